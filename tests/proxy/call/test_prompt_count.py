"""Claims about when a prompt is counted: once, beside what does not need it, while somebody does (USE-6, USE-8)."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import replace

import pytest

from proxy.call import prompt_count
from proxy.call.prompt_count import Count
from proxy.call.thread_pool import END_S, THREADS, ThreadPool
from proxy.simulation.wire import Script
from tests import caller
from tests.conftest import StartSimulator
from tests.proxy.conftest import StartGateway
from translators import dialogue, faults
from translators.deepseek import prompt
from translators.tokens import UNSETTLED_TOKENS

MODEL = dialogue.Model("m", "never", 200, 100, 0, 50, "v3")
ROOMY = replace(MODEL, input_tokens=1 << 20, context_tokens=1 << 21)
SHORT, LONG = 20, prompt_count.INLINE_CHARS + 1
COMPLETION = (
    b'{"choices":[{"index":0,"message":{"role":"assistant","content":"hi"},"finish_reason":"stop"}],'
    b'"usage":{"prompt_tokens":5,"completion_tokens":1,"total_tokens":6}}'
)


class Counted:
    """Counts to seven, and remembers how often and in which thread."""

    def __init__(self) -> None:
        self.threads: list[threading.Thread] = []

    def __iter__(self) -> Iterator[int]:
        self.threads.append(threading.current_thread())
        yield 7


class Held:
    """A prompt that is counted a step at a time, as long as it is let."""

    def __init__(self, steps: int = 1 << 30) -> None:
        self.steps = steps
        self.taken = 0
        self.begun = threading.Event()
        self.go_on = threading.Event()

    def __iter__(self) -> Iterator[int]:
        for step in range(1, self.steps + 1):
            self.taken = step
            self.begun.set()
            assert self.go_on.wait(5)
            yield step


@pytest.fixture
def pool() -> Iterator[ThreadPool]:
    with ThreadPool(most_chars=10 * LONG) as pool:
        yield pool


def put(pool: ThreadPool, totals: Iterable[int], chars: int = LONG, most: int = 1 << 40) -> Count:
    count = Count(iter(totals), chars, most)
    count.in_pool(pool)
    return count


@contextlib.asynccontextmanager
async def busy(pool: ThreadPool, chars: int = LONG) -> AsyncIterator[list[Held]]:
    """Every thread of the pool has a prompt of that length."""
    holding = [Held() for _ in range(THREADS)]
    counts = [put(pool, held, chars) for held in holding]
    for held in holding:
        assert await asyncio.to_thread(held.begun.wait, 5)
    try:
        yield holding
    finally:
        for count in counts:
            count.drop()
        for held in holding:
            held.go_on.set()


async def test_a_short_prompt_that_decides_nothing_is_not_counted_before_it_must(pool: ThreadPool) -> None:
    counted = Counted()
    count = Count(iter(counted), SHORT, 200)
    await prompt_count.begin(pool, count, MODEL)
    assert (count.tokens, counted.threads) == (None, [])


@pytest.mark.parametrize("chars", [26, LONG], ids=["as many bytes as tokens are allowed", "long"])
async def test_a_prompt_that_may_be_too_long_is_counted_before_its_call(pool: ThreadPool, chars: int) -> None:
    """Spec MOD-4."""
    count = Count(iter(Counted()), chars, 200)
    await prompt_count.begin(pool, count, MODEL)
    assert count.tokens == 7


async def test_a_prompt_that_may_leave_too_little_room_is_counted_before_its_call_too(pool: ThreadPool) -> None:
    """OUT-8: the model takes it, though not together with its longest answer."""
    tight = replace(MODEL, input_tokens=200)
    count = Count(iter(Counted()), 40, 200)
    await prompt_count.begin(pool, count, tight)
    assert count.tokens == 7


async def test_a_long_one_is_counted_in_a_thread_and_told_of_when_it_is_known(pool: ThreadPool) -> None:
    counted, told = Counted(), asyncio.Event()
    count = Count(iter(counted), LONG, ROOMY.input_tokens)
    await prompt_count.begin(pool, count, ROOMY)
    assert count.tokens is None
    count.tell(lambda tokens: told.set() if tokens == 7 else None)
    await told.wait()
    assert await count.wait() == 7
    assert counted.threads != [threading.main_thread()]
    assert len(counted.threads) == 1
    assert pool.waiting_chars == 0


async def test_it_is_counted_behind_what_is_ready_and_once() -> None:
    counted, told, order = Counted(), asyncio.Event(), []
    count = Count(iter(counted), SHORT, 200)
    count.tell(lambda _: (order.append("counted"), told.set()))
    count.beside(asyncio.get_running_loop())
    count.beside(asyncio.get_running_loop())
    asyncio.get_running_loop().call_soon(order.append, "written")
    await told.wait()
    assert await count.wait() == 7
    assert (order, len(counted.threads)) == (["written", "counted"], 1)


async def test_who_asks_later_is_told_at_once() -> None:
    count, told = Count(iter(Counted()), SHORT, 200), []
    assert count.now() == 7
    count.tell(told.append)
    assert told == [7]


async def test_what_keeps_a_thread_from_counting_is_raised_where_it_is_waited_for(pool: ThreadPool) -> None:
    def broken() -> Iterator[int]:
        yield 1
        raise BaseException("a panic of the engine")

    count = put(pool, broken())
    with pytest.raises(BaseException, match="panic"):
        await count.wait()
    assert (count.tokens, pool.waiting_chars) == (None, 0)
    assert await put(pool, Counted()).wait() == 7


@pytest.mark.parametrize("inline", [True, False])
async def test_what_is_too_long_is_not_counted_to_its_end(pool: ThreadPool, inline: bool) -> None:
    """Spec USE-8: above the model's window nobody needs to know how far."""
    taken = []

    def totals() -> Iterator[int]:
        for total in range(0, 1 << 30, 1_000):
            taken.append(total)
            yield total

    count = Count(totals(), LONG, 5_000) if inline else put(pool, totals(), most=5_000)
    assert 5_000 < await count.wait() == count.tokens < 8_000
    assert len(taken) < 9


class TestOwner:
    """Spec USE-8: who leaves stops the work."""

    async def test_a_prompt_that_waits_is_let_go_of_when_its_call_ends(self, pool: ThreadPool) -> None:
        async with busy(pool):
            before_chars = pool.waiting_chars
            totals = iter([*range(3)])
            waits = put(pool, totals)
            assert pool.waiting_chars == before_chars + LONG
            waits.drop()
            waits.drop()
            assert pool.waiting_chars == before_chars
            assert sys.getrefcount(totals) == 2
        assert await put(pool, Counted()).wait() == 7
        assert next(totals) == 0

    async def test_one_that_is_being_counted_is_let_go_of_at_the_next_look(self, pool: ThreadPool) -> None:
        async with busy(pool) as holding:
            pass
        assert await put(pool, Counted()).wait() == 7
        assert [held.taken for held in holding] == [1] * THREADS
        assert pool.waiting_chars == 0

    async def test_who_does_not_wait_any_more_is_not_told(self, pool: ThreadPool) -> None:
        told: list[int] = []
        async with busy(pool):
            count = put(pool, Counted())
            count.tell(told.append)
            count.drop()
        assert await put(pool, Counted()).wait() == 7
        assert (told, count.tokens) == ([], None)

    async def test_the_end_of_the_process_waits_for_none(self) -> None:
        with ThreadPool() as pool:
            put(pool, itertools.count())
            await asyncio.sleep(0.01)
            began_s = time.monotonic()
        assert time.monotonic() - began_s < END_S


class TestOrder:
    """Spec USE-8: short before long."""

    async def test_a_shorter_prompt_does_not_wait_for_a_longer_one(self, pool: ThreadPool) -> None:
        order: list[str] = []

        def named(name: str) -> Iterator[int]:
            order.append(name)
            yield 1

        async with busy(pool, chars=LONG + 7) as holding:
            waiting = [put(pool, named(str(chars)), chars) for chars in (LONG + 9, LONG + 1, LONG + 5, LONG + 1)]
            holding[0].go_on.set()
            await asyncio.gather(*(count.wait() for count in waiting[1:]))
            # The one that is longer than what was interrupted waits for that as well.
            assert waiting[0].tokens is None
            assert order == [str(chars) for chars in (LONG + 1, LONG + 1, LONG + 5)]
            while holding[0].taken == 1:  # noqa: ASYNC110 - a thread tells nobody
                await asyncio.sleep(0.01)


class TestBound:
    """Spec USE-8: what waits is bounded."""

    async def test_beyond_it_a_call_is_told_to_come_back(self, pool: ThreadPool) -> None:
        async with busy(pool):
            for _ in range(10 - THREADS):
                put(pool, Counted())
            with pytest.raises(faults.Refusal) as refusal:
                put(pool, Counted())
            assert (refusal.value.fault.status, refusal.value.fault.code) == (503, "ModelServingError")
            assert refusal.value.fault.retry_after == "1"

    async def test_a_single_prompt_may_be_longer(self, pool: ThreadPool) -> None:
        assert await put(pool, Counted(), chars=1 << 30).wait() == 7


async def test_it_is_counted_when_the_call_is_on_its_way(
    gateway_before: StartGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop, real, there = asyncio.get_running_loop(), prompt.totals, []
    counted = asyncio.Event()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        front = await gateway_before(f"http://127.0.0.1:{listening.getsockname()[1]}")

        async def serve(upstream: socket.socket) -> None:
            await loop.sock_recv(upstream, 1 << 16)
            head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
            await loop.sock_sendall(upstream, head % len(COMPLETION) + COMPLETION)

        first = asyncio.create_task(caller.ask(front.url, caller.call()))
        upstream, _ = await loop.sock_accept(listening)
        with upstream:
            await serve(upstream)
            assert (await first).status == 200

            def looking(*said: object) -> Iterator[int]:
                there.append(upstream.recv(4, socket.MSG_PEEK))
                counted.set()
                yield from real(*said)

            # From here on the connection is there: what the count comes behind is the writing alone.
            monkeypatch.setattr(prompt, "totals", looking)
            second = asyncio.create_task(caller.ask(front.url, caller.call()))
            await counted.wait()
            await serve(upstream)
            assert (await second).status == 200
    assert there == [b"POST"]


async def test_no_packet_leaves_before_its_prompt_is_counted(
    simulator: StartSimulator, gateway_before: StartGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """USE-1: an answer that is there before the count waits for it."""
    real, answered = prompt.totals, threading.Event()

    def late(*said: object) -> Iterator[int]:
        answered.wait(30)
        yield from real(*said)

    upstream = await simulator(Script(text="two words", usage="none"))
    front = await gateway_before(upstream.url)
    monkeypatch.setattr(prompt, "totals", late)
    words = LONG // len("sea ") + 1
    call = caller.call("sea " * words, incremental_output=True)
    asked = asyncio.create_task(caller.stream(front.url, call))
    await (await upstream.call()).over()
    answered.set()
    inputs = [packet["usage"]["input_tokens"] for packet in caller.packets((await asked).body)]
    assert len(inputs) > 1
    assert min(inputs) == max(inputs) > words


async def test_what_waits_for_a_thread_is_not_counted_on_the_loop(pool: ThreadPool) -> None:
    """Every open stream would halt meanwhile."""
    counted = Counted()
    async with busy(pool):
        count = put(pool, counted)
        count.beside(asyncio.get_running_loop())
        await asyncio.sleep(0.01)
        assert counted.threads == []
    assert await count.wait() == 7
    assert len(counted.threads) == 1
    assert counted.threads != [threading.main_thread()]


async def test_who_leaves_takes_the_count_from_nobody_else(pool: ThreadPool) -> None:
    async with busy(pool):
        count = put(pool, Counted())
        leaver, other = (asyncio.ensure_future(count.wait()) for _ in range(2))
        await asyncio.sleep(0)
        leaver.cancel()
        await asyncio.wait([leaver])
    assert await other == 7
    assert leaver.cancelled()


@pytest.mark.parametrize(
    ("said", "room"),
    [
        ({}, 200),
        ({"input_tokens": 900}, 650),
        ({"input_tokens": 650}, 650),
        ({"input_tokens": 980, "chain_tokens": 0}, 950),
        ({"input_tokens": 999, "chain_tokens": 0, "answer_tokens": 0}, 999),
    ],
)
def test_there_is_room_for_a_prompt_beside_all_that_may_be_written(said: dict[str, int], room: int) -> None:
    """OUT-8."""
    model = dialogue.Model("m", "hybrid", 1_000, 200, 300, 50, "v3")
    assert prompt_count.prompt_room(replace(model, **said)) == room


@pytest.mark.parametrize(
    ("chars", "input_tokens", "is_short", "in_a_thread", "is_waited_for"),
    [
        (SHORT, 4 * SHORT, True, False, False),
        (SHORT, 4 * SHORT - 1, False, False, True),
        (LONG - 1, 4 * LONG, True, False, False),
        (LONG, 4 * LONG, False, True, False),
        (LONG, 4 * LONG - 1, False, True, True),
    ],
)
async def test_where_a_prompt_is_counted_is_by_its_length_and_its_models(
    pool: ThreadPool, *, chars: int, input_tokens: int, is_short: bool, in_a_thread: bool, is_waited_for: bool
) -> None:
    """USE-6, MOD-4: no text has more tokens than bytes."""
    model = replace(ROOMY, input_tokens=input_tokens)
    async with busy(pool, chars) if in_a_thread and not is_waited_for else contextlib.nullcontext():
        count = Count(iter(Counted()), chars, input_tokens)
        assert prompt_count.is_short(count, model) is is_short
        await prompt_count.begin(pool, count, model)
        assert (count._future is not None) is in_a_thread
        assert count.tokens == (7 if is_waited_for else None)
        count.drop()


@pytest.mark.parametrize(
    ("totals", "counted"), [((), 0), ((1, 3, 4), 4), ((9, 10, 11), 11), ((10, 11, 12), 11), ((8, 9), 9)]
)
def test_a_prompt_is_counted_until_it_is_too_long_for_certain(totals: tuple[int, ...], counted: int) -> None:
    """As far as its last tokens may still change: here ten are not too many."""
    count, told = Count(iter(totals), SHORT, 10 - UNSETTLED_TOKENS), list[int]()
    count.tell(told.append)
    assert (count.now(), count.now()) == (counted, counted)
    count.tell(told.append)
    assert told == [counted] * 2


async def test_what_is_being_counted_is_not_counted_by_the_loop_too(pool: ThreadPool) -> None:
    loop = asyncio.get_running_loop()
    async with busy(pool):
        in_pool = put(pool, Counted())
        alone = Count(iter(Counted()), SHORT, 200)
        for count in (in_pool, alone):
            count.beside(loop)
        # Behind all that is ready.
        assert alone.tokens is None
        for _ in range(3):
            await asyncio.sleep(0)
        assert (in_pool.tokens, alone.tokens) == (None, 7)
        before = pool.waiting_chars
        for _ in range(2):
            in_pool.drop()
        alone.drop()
        assert pool.waiting_chars == before - LONG


async def test_what_a_count_raises_is_raised_where_it_is_waited_for(pool: ThreadPool) -> None:
    def failing() -> Iterator[int]:
        yield 1
        raise ZeroDivisionError

    for _ in range(2):
        count = put(pool, failing())
        with pytest.raises(ZeroDivisionError):
            await count.wait()
        assert count.tokens is None
