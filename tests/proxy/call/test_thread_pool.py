"""Steps that threads take: run, raised, dropped. Order, bound and end are claimed by `test_prompt_count`."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest

from proxy.call import thread_pool
from proxy.call.thread_pool import Job, ThreadPool
from translators import faults


async def test_steps_run_in_a_thread_and_what_they_raise_is_raised_where_they_are_waited_for() -> None:
    taken: list[int] = []

    def steps(*, fails: bool) -> Iterator[int]:
        for step in range(3):
            taken.append(step)
            yield 0
        if fails:
            raise faults.Refusal(faults.BODY_TOO_LARGE)

    with ThreadPool(threads=1) as pool:
        await pool.run(steps(fails=False), 10)
        assert taken == [0, 1, 2]
        with pytest.raises(faults.Refusal):
            await pool.run(steps(fails=True), 10)
        assert pool.waiting_chars == 0


async def test_all_that_may_wait_can_and_no_more() -> None:
    """USE-8: a single job may be of any length; threads are begun when jobs come, and only so many."""
    held, begun = threading.Event(), threading.Semaphore(0)

    def steps() -> Iterator[int]:
        begun.release()
        held.wait()
        yield 0

    def job(chars: int) -> Job:
        return Job(steps(), chars, 1, lambda *_: None)

    with ThreadPool(most_chars=100, threads=2) as pool:
        try:
            first, second = job(1_000), job(60)
            pool.put(first)
            begun.acquire()
            assert len(pool._threads) == 1
            with pytest.raises(faults.Refusal) as refused:
                pool.put(job(1))
            assert (refused.value.fault.code, refused.value.fault.retry_after) == ("ModelServingError", "1")
            pool.drop(first)
            pool.drop(first)
            assert pool.waiting_chars == 0
            pool.put(second)
            pool.put(job(40))
            assert (pool.waiting_chars, len(pool._threads)) == (100, 2)
            with pytest.raises(faults.Refusal):
                pool.put(job(1))
        finally:
            held.set()


@pytest.mark.parametrize(("most", "taken"), [(2, 4), (3, 5)])
async def test_a_job_is_done_above_its_most(most: int, taken: int) -> None:
    totals, told = iter(range(9)), asyncio.Queue[tuple[int, BaseException | None]]()
    loop = asyncio.get_running_loop()

    def tell(total: int, error: BaseException | None) -> None:
        loop.call_soon_threadsafe(told.put_nowait, (total, error))

    with ThreadPool(threads=1) as pool:
        pool.put(Job(totals, 1, most, tell))
        assert await told.get() == (most + 1, None)
        assert next(totals) == taken
        assert pool.waiting_chars == 0


async def test_a_job_gives_way_to_a_shorter_one_and_to_none_that_is_as_long() -> None:
    taken, begun, go_on = list[str](), threading.Event(), threading.Event()

    def steps(name: str) -> Iterator[int]:
        for _ in range(3):
            begun.set()
            go_on.wait()
            taken.append(name)
            yield 0

    with ThreadPool(threads=1) as pool:
        first = asyncio.create_task(pool.run(steps("a"), 10))
        await asyncio.sleep(0)
        await asyncio.to_thread(begun.wait)
        others = [asyncio.create_task(pool.run(steps(name), chars)) for name, chars in (("b", 10), ("c", 9))]
        await asyncio.sleep(0)
        go_on.set()
        await asyncio.gather(first, *others)
    # Who has given way waits behind its equals.
    assert "".join(taken) == "acccbbbaa"


async def test_a_job_without_a_step_has_come_to_nothing() -> None:
    told = asyncio.Queue[int]()
    loop = asyncio.get_running_loop()
    with ThreadPool(threads=1) as pool:
        pool.put(Job(iter(()), 1, 9, lambda total, _: loop.call_soon_threadsafe(told.put_nowait, total)))
        assert await told.get() == 0


async def test_its_end_is_that_of_its_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that wait for work are woken, and waited for: what they use ends behind them."""
    monkeypatch.setattr(thread_pool, "END_S", 30.0)
    with ThreadPool(threads=2) as pool:
        for _ in range(2):
            await pool.run(iter((0,)), 1)
    assert [thread.is_alive() for thread in pool._threads] == [False, False]


async def test_steps_of_who_is_cancelled_are_dropped() -> None:
    begun = asyncio.Event()
    loop = asyncio.get_running_loop()
    taken = 0

    def steps() -> Iterator[int]:
        nonlocal taken
        loop.call_soon_threadsafe(begun.set)
        while True:
            taken += 1
            yield 0

    with ThreadPool(threads=1) as pool:
        running = asyncio.create_task(pool.run(steps(), 10))
        await begun.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert pool.waiting_chars == 0
        await pool.run(iter((0,)), 10)
        before = taken
        await pool.run(iter((0,)), 10)
        assert taken == before
