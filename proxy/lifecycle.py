"""The life of the process: listen, serve, drain on a signal, and leave nothing open (spec OPS-2)."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Collection, Coroutine
from dataclasses import dataclass
from typing import Any

import structlog
from aiohttp import web

from config import settings
from proxy import front, watch

log = structlog.get_logger()

SIGNALS = (signal.SIGTERM, signal.SIGINT)
# After the calls that are left were told to end, so long for their last frames to leave.
LAST_FRAMES_S = 1.0
BACKLOG = 1024


@dataclass(slots=True)
class Running:
    """A server that listens.

    url: where, the port as the system gave it
    """

    url: str
    runner: web.AppRunner
    listener: asyncio.Server
    drain_delay_s: float
    drain_timeout_s: float

    async def until_told_to_stop(self, clocks: Collection[watch.Watch]) -> None:
        """Serve until a first signal, then drain; a second signal cuts at once.

        clocks: the watches of open calls; it is empty when none is open
        """
        told = _Signals()
        try:
            await told.first.wait()
            log.info("draining", open_calls=len(clocks))
            await _either(told.second, asyncio.sleep(self.drain_delay_s))
            self._close()
            await _either(told.second, _until_empty(clocks, self.drain_timeout_s))
            if clocks:
                log.warning("cutting", open_calls=len(clocks))
            for clock in tuple(clocks):
                clock.expire(watch.Wait.DRAIN)
            await _until_empty(clocks, LAST_FRAMES_S)
            await self.runner.cleanup()
            log.info("stopped")
        finally:
            told.forget()

    async def stop(self) -> None:
        """Stop at once; nothing is open."""
        self._close()
        await self.runner.cleanup()

    def _close(self) -> None:
        """Take no new connection, and no new call on one that is there."""
        self.listener.close()
        self.runner.app[front.LEAVING].set()


async def start(app: web.Application, chosen: settings.Settings) -> Running:
    """Listen; raises `OSError` where the address is not to be had."""
    runner = web.AppRunner(
        app,
        # aiohttp's default would let an upstream generate for a caller who has left.
        handler_cancellation=True,
        access_log=None,
        shutdown_timeout=LAST_FRAMES_S,
    )
    await runner.setup()
    assert runner.server is not None  # noqa: S101 - for the type checker: it was just set up
    connections = front.connections(runner.server, chosen)
    try:
        listener = await asyncio.get_running_loop().create_server(
            connections, chosen.host, chosen.port, backlog=BACKLOG
        )
    except OSError:
        await runner.cleanup()
        raise
    host, port = listener.sockets[0].getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    return Running(f"http://{shown}:{port}", runner, listener, chosen.drain_delay, chosen.drain_timeout)


class _Signals:
    """The first and the second signal, as events."""

    def __init__(self) -> None:
        self.first = asyncio.Event()
        self.second = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        for number in SIGNALS:
            self._loop.add_signal_handler(number, self._take)

    def forget(self) -> None:
        """Let signals do again what they do by default."""
        for number in SIGNALS:
            self._loop.remove_signal_handler(number)

    def _take(self) -> None:
        (self.second if self.first.is_set() else self.first).set()


async def _either(told: asyncio.Event, wait: Coroutine[Any, Any, None]) -> None:
    """Wait for one of the two."""
    tasks = [asyncio.ensure_future(told.wait()), asyncio.ensure_future(wait)]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def _until_empty(clocks: Collection[watch.Watch], limit_s: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(limit_s):
            while clocks:  # noqa: ASYNC110 - it looks only while the process leaves
                await asyncio.sleep(0.02)
