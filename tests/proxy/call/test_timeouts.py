"""Claims about the waits of a call: every wait is ended by its own limit, by no other, and named (spec ERR-5)."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping

import pytest

from proxy.call import timeouts
from proxy.call.timeouts import CallTimeouts, Expired, OpenCalls, Timeout

LONG = dict.fromkeys(Timeout, 60.0)
ENTERED = [Timeout.BODY, Timeout.FIRST_TOKEN, Timeout.TOKEN, Timeout.CALLER]


def open_calls(limits_s: Mapping[Timeout, float] = LONG) -> OpenCalls:
    return OpenCalls({**LONG, **limits_s}, asyncio.get_running_loop())


def watch(
    wait: Timeout, limits_s: Mapping[Timeout, float] = LONG, *, open_: OpenCalls | None = None, age_s: float = 0.0
) -> CallTimeouts:
    loop = asyncio.get_running_loop()
    return CallTimeouts(wait, open_calls(limits_s) if open_ is None else open_, loop, loop.time() - age_s)


async def expiry_of(block: Coroutine[None, None, None]) -> Timeout:
    """Which wait ended a block."""
    with pytest.raises(Expired) as expired:
        await block
    return expired.value.wait


@pytest.mark.parametrize("wait", ENTERED, ids=lambda wait: wait.value)
async def test_a_wait_that_lasts_too_long_ends_the_block_and_is_named(wait: Timeout) -> None:
    with pytest.raises(Expired) as expired, watch(wait, {wait: 0.02}):
        await asyncio.sleep(10)
    assert expired.value.wait is wait
    assert str(expired.value) == wait.value


@pytest.mark.parametrize("wait", ENTERED, ids=lambda wait: wait.value)
async def test_a_wait_is_not_ended_by_the_limit_of_another(wait: Timeout) -> None:
    shorter = {other: 0.01 for other in ENTERED if other is not wait}
    with watch(wait, shorter):
        await asyncio.sleep(0.05)


async def test_a_wait_entered_again_and_again_lasts_as_long_as_it_likes() -> None:
    with watch(Timeout.TOKEN, {Timeout.TOKEN: 0.05}) as clock:
        for _ in range(10):
            await asyncio.sleep(0.01)
            clock.enter(Timeout.TOKEN)


async def test_a_shorter_wait_entered_later_is_noticed_in_time() -> None:
    async def block() -> None:
        with watch(Timeout.FIRST_TOKEN, {Timeout.CALLER: 0.05}) as clock:
            clock.enter(Timeout.CALLER)
            await asyncio.sleep(10)

    async with asyncio.timeout(1):
        assert await expiry_of(block()) is Timeout.CALLER


async def test_the_total_counts_from_the_start_of_the_call_and_nothing_re_arms_it() -> None:
    async def block() -> None:
        with watch(Timeout.TOKEN, age_s=59.95) as clock:
            while True:
                await asyncio.sleep(0.005)
                clock.enter(Timeout.TOKEN)

    assert await expiry_of(block()) is Timeout.TOTAL


async def test_a_call_whose_caller_has_left_ends_in_time_and_nothing_re_arms_that() -> None:
    """MET-5."""

    async def busy() -> None:
        with watch(Timeout.TOKEN, {Timeout.ABANDONED: 0.05}) as clock:
            clock.end_within(Timeout.ABANDONED)
            while True:
                await asyncio.sleep(0.005)
                clock.enter(Timeout.TOKEN)

    assert await expiry_of(busy()) is Timeout.ABANDONED


async def test_it_does_not_put_the_end_of_a_call_off() -> None:
    async def busy() -> None:
        with watch(Timeout.TOKEN, {Timeout.TOTAL: 0.05, Timeout.ABANDONED: 10}) as clock:
            clock.end_within(Timeout.ABANDONED)
            await asyncio.sleep(10)

    assert await expiry_of(busy()) is Timeout.TOTAL


async def test_a_call_that_is_overdue_already_ends_at_its_first_wait() -> None:
    with pytest.raises(Expired), watch(Timeout.TOKEN, age_s=61):
        await asyncio.sleep(10)


@pytest.mark.parametrize(
    ("wait", "at_s", "ended_by"),
    [
        (Timeout.TOKEN, 104.875, None),
        (Timeout.TOKEN, 105.0, Timeout.TOKEN),
        (Timeout.CALLER, 139.875, None),
        (Timeout.CALLER, 140.0, Timeout.TOTAL),
        (Timeout.TOKEN, 140.0, Timeout.TOTAL),
    ],
)
async def test_a_wait_has_all_of_its_time_and_no_more(
    monkeypatch: pytest.MonkeyPatch, wait: Timeout, at_s: float, ended_by: Timeout | None
) -> None:
    monkeypatch.setattr(timeouts, "monotonic", lambda: 100.0)
    limits_s = open_calls({Timeout.TOKEN: 5.0, Timeout.TOTAL: 50.0})
    clock = CallTimeouts(wait, limits_s, asyncio.get_running_loop(), 90.0)
    clock.look(at_s)
    assert clock._expired is ended_by


@pytest.mark.parametrize(
    ("limit_s", "at_s", "ended_by"), [(7.0, 107.0, Timeout.ABANDONED), (40.0, 140.0, Timeout.TOTAL)]
)
async def test_the_rest_of_a_call_is_limited_where_that_is_sooner(
    monkeypatch: pytest.MonkeyPatch, limit_s: float, at_s: float, ended_by: Timeout
) -> None:
    """MET-5; of a call that has ended nothing is."""
    monkeypatch.setattr(timeouts, "monotonic", lambda: 100.0)
    limits_s = open_calls({Timeout.TOTAL: 50.0, Timeout.ABANDONED: limit_s})
    clock = CallTimeouts(Timeout.TOKEN, limits_s, asyncio.get_running_loop(), 90.0)
    clock.end_within(Timeout.ABANDONED)
    clock.look(139.875)
    assert clock._expired is None
    with clock:
        clock.end_within(Timeout.ABANDONED)
        clock.look(at_s - 0.125)
        assert clock._expired is None
    clock.look(at_s)
    assert clock._expired is ended_by


async def test_the_timer_looks_eight_times_in_the_shortest_wait_and_once_a_second() -> None:
    calls = open_calls()
    assert calls._tick_s == 1.0
    for limit_s, tick_s in ((16.0, 1.0), (4.0, 0.5), (6.0, 0.5)):
        calls.look_within(limit_s)
        assert calls._tick_s == tick_s
    calls.limit({**LONG, Timeout.DRAIN: 0.0, Timeout.BODY: 2.0})
    assert calls._tick_s == 0.25


async def test_a_limit_of_its_own_is_one_calls_alone() -> None:
    calls = open_calls()
    one, other = (watch(Timeout.TOKEN, open_=calls) for _ in range(2))
    one.limit(Timeout.TOKEN, 4.0)
    other.limit(Timeout.TOKEN, LONG[Timeout.TOKEN])
    assert one._limits_s == {**calls.limits_s, Timeout.TOKEN: 4.0}
    assert other._limits_s is calls.limits_s
    assert calls.limits_s[Timeout.TOKEN] == LONG[Timeout.TOKEN]
    assert calls._tick_s == 0.5


async def test_a_timer_that_is_stopped_looks_no_more() -> None:
    calls = open_calls()
    calls.close()
    with watch(Timeout.TOKEN, open_=calls):
        handle = calls._handle
        assert handle is not None
        calls.close()
        assert handle.cancelled()
        calls.close()


async def test_it_is_ended_from_outside_and_the_first_word_counts() -> None:
    """Spec OPS-2: a drain ends what is left."""
    clocks = open_calls()

    async def block() -> None:
        with watch(Timeout.TOKEN, open_=clocks):
            (clock,) = clocks
            clock.expire(Timeout.DRAIN)
            clock.expire(Timeout.TOTAL)
            await asyncio.sleep(10)

    assert await expiry_of(block()) is Timeout.DRAIN
    assert not clocks


async def test_a_drain_time_of_nothing_is_no_busy_loop() -> None:
    """`drain_timeout = 0` is a setting, not the pace of the timer."""
    looks = 0

    class Counted(CallTimeouts):
        def look(self, now_s: float) -> None:
            nonlocal looks
            looks += 1
            super().look(now_s)

    loop = asyncio.get_running_loop()
    with Counted(Timeout.TOKEN, open_calls({Timeout.DRAIN: 0.0}), loop, loop.time()):
        await asyncio.sleep(0.05)
    assert looks == 1


async def test_many_calls_wait_under_one_timer_and_each_ends_by_its_own() -> None:
    clocks = open_calls({Timeout.TOKEN: 0.05})

    async def block(wait: Timeout) -> None:
        with watch(wait, open_=clocks):
            await asyncio.sleep(0.3)

    waits = [Timeout.TOKEN, Timeout.FIRST_TOKEN] * 50
    ended = await asyncio.gather(*map(block, waits), return_exceptions=True)
    assert [isinstance(one, Expired) for one in ended] == [wait is Timeout.TOKEN for wait in waits]


async def test_a_call_that_was_ended_between_two_waits_ends_at_the_next() -> None:
    clocks = open_calls()
    timeouts = watch(Timeout.BODY, open_=clocks)
    with timeouts:
        await asyncio.sleep(0)
    timeouts.expire(Timeout.DRAIN)
    with pytest.raises(Expired), timeouts:
        await asyncio.sleep(10)


async def test_a_block_that_ends_in_time_leaves_no_timer_and_no_entry() -> None:
    clocks = open_calls({Timeout.TOKEN: 0.02})
    with watch(Timeout.TOKEN, open_=clocks):
        assert len(clocks) == 1
    assert not clocks
    await asyncio.sleep(0.05)
    assert clocks._handle is None


async def test_a_caller_who_leaves_as_the_block_ends_starts_no_timer() -> None:
    """It would fire into a block that is over."""
    failed: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failed.append(context))
    with (over := watch(Timeout.TOKEN, {Timeout.ABANDONED: 0.02})):
        pass
    over.end_within(Timeout.ABANDONED)
    await asyncio.sleep(0.1)
    assert not failed


async def test_who_is_cancelled_by_another_is_cancelled_not_expired() -> None:
    async def work() -> None:
        with watch(Timeout.TOKEN, {Timeout.TOKEN: 5}):
            await asyncio.sleep(10)

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_an_error_of_the_block_is_what_leaves_it() -> None:
    with pytest.raises(KeyError), watch(Timeout.TOKEN):
        raise KeyError


async def test_a_context_that_goes_on_ends_in_the_next_one_whatever_comes_between() -> None:
    """The call is open all the while, and what ends it in between is told by the second context."""
    calls = open_calls()
    clock = watch(Timeout.BODY, open_=calls)
    with clock:
        clock.go_on()
    assert clock in calls
    clock.expire(Timeout.DRAIN)
    with pytest.raises(Expired) as expired, clock:
        await asyncio.sleep(10)
    assert expired.value.wait is Timeout.DRAIN
    assert len(calls) == 0


async def test_once_it_has_gone_on_a_context_ends_as_any_other() -> None:
    open_ = open_calls()
    clock = watch(Timeout.BODY, open_=open_)
    assert (clock.is_open, open_.streams) == (False, 0)
    with clock as first:
        clock.go_on()
    assert (first is clock, clock.is_open, clock in open_) == (True, True, True)
    with clock as second:
        assert second is clock
    assert (clock.is_open, clock in open_) == (False, False)
    with clock:
        assert (clock.is_open, len(open_)) == (True, 1)
    for _ in range(2):
        clock.leave()
    assert not open_


async def test_all_that_are_open_are_ended_at_once() -> None:
    """OPS-2."""
    open_, begun = open_calls(), asyncio.Semaphore(0)

    async def block() -> None:
        with watch(Timeout.BODY, open_=open_):
            begun.release()
            await asyncio.sleep(3_600)

    blocks = [asyncio.create_task(expiry_of(block())) for _ in range(3)]
    for _ in blocks:
        await begun.acquire()
    open_.expire(Timeout.DRAIN)
    async with asyncio.timeout(30):
        assert await asyncio.gather(*blocks) == [Timeout.DRAIN] * 3


async def test_a_call_that_has_no_next_context_leaves() -> None:
    """A caller who is gone before the answer begins."""
    calls = open_calls()
    with watch(Timeout.BODY, open_=calls) as clock:
        clock.go_on()
    clock.leave()
    clock.leave()
    assert len(calls) == 0


async def test_an_error_ends_a_context_that_was_to_go_on() -> None:
    calls = open_calls()
    clock = watch(Timeout.BODY, open_=calls)
    clock.go_on()
    with pytest.raises(ZeroDivisionError), clock:
        raise ZeroDivisionError
    assert len(calls) == 0
