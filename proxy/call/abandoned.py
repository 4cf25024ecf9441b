"""Calls whose callers may leave before upstream has ended: each in a task of its own, known until it has ended too.

Only where `cancel_policy` is `drain`; otherwise a call lives in its handler and ends with it. Source: spec MET-5.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web


class AbandonedCalls:
    """The calls of a gateway that may outlive their callers."""

    def __init__(self) -> None:
        self._calls: set[asyncio.Task[web.StreamResponse]] = set()

    async def serve(
        self, call: Coroutine[Any, Any, web.StreamResponse], leave: Callable[[], bool]
    ) -> web.StreamResponse:
        """Serve a call to its end, even if its caller leaves.

        leave: tells the call so; whether it goes on, else it is cancelled
        """
        task = asyncio.create_task(call)
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if not leave():
                task.cancel()
            raise

    async def end(self) -> None:
        """End what a drain has left over, its record written."""
        for task in self._calls:
            task.cancel()
        await asyncio.gather(*self._calls, return_exceptions=True)


@asynccontextmanager
async def opened() -> AsyncIterator[AbandonedCalls]:
    """Room for such calls, as long as the context lives."""
    abandoned_calls = AbandonedCalls()
    try:
        yield abandoned_calls
    finally:
        await abandoned_calls.end()
