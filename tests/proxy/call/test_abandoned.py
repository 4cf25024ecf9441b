"""Claims about calls that may outlive their callers (MET-5); what they are billed is claimed in `test_departures`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

import pytest

from proxy.call import abandoned


class Served:
    """A call that goes on until it is let end."""

    def __init__(self) -> None:
        self.goes_on = asyncio.Event()
        self.ended = asyncio.get_running_loop().create_future()

    async def serve(self) -> Any:
        try:
            await self.goes_on.wait()
        except asyncio.CancelledError:
            self.ended.set_result("cancelled")
            raise
        self.ended.set_result("done")
        return "answer"


async def left(serving: Awaitable[object]) -> None:
    """Serve it until its caller leaves."""
    handler = asyncio.ensure_future(serving)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    handler.cancel()
    with pytest.raises(asyncio.CancelledError):
        await handler


async def test_whose_caller_stays_is_answered_and_nobody_is_told() -> None:
    async with abandoned.opened() as calls:
        call = Served()
        call.goes_on.set()
        assert await calls.serve(call.serve(), pytest.fail) == "answer"  # type: ignore[arg-type]
        assert not calls._calls


@pytest.mark.parametrize(("goes_on", "end"), [(True, "done"), (False, "cancelled")])
async def test_whose_caller_leaves_goes_on_or_is_stopped_as_it_says(*, goes_on: bool, end: str) -> None:
    async with abandoned.opened() as calls:
        call = Served()
        await left(calls.serve(call.serve(), lambda: goes_on))
        call.goes_on.set()
        assert await call.ended == end


async def test_at_the_end_those_that_are_left_are_stopped_and_waited_for() -> None:
    """OPS-2: each has its record before what it is written in is closed."""
    async with abandoned.opened() as calls:
        served = [Served() for _ in range(2)]
        for call in served:
            await left(calls.serve(call.serve(), lambda: True))
        assert len(calls._calls) == 2
    assert [call.ended.done() and call.ended.result() for call in served] == ["cancelled"] * 2
