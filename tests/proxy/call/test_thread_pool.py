"""Steps that threads take: run, raised, dropped. Order, bound and end are claimed by `test_prompt_count`."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from proxy.call.thread_pool import ThreadPool
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
