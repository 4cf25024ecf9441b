"""The life of the process: listen, serve, drain on a signal, and leave nothing open (spec OPS-2)."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any

import structlog
from aiohttp import web

from config import settings
from proxy import watch

log = structlog.get_logger()

SIGNALS = (signal.SIGTERM, signal.SIGINT)
# After the calls that are left were told to end, so long for their last frames to leave.
LAST_FRAMES_S = 2.0


@dataclass(slots=True)
class Running:
    """A server that listens.

    url: where, the port as the system gave it
    """

    url: str
    runner: web.AppRunner
    site: web.TCPSite
    drain_delay_s: float
    drain_timeout_s: float

    async def until_told_to_stop(self, clocks: set[watch.Watch]) -> None:
        """Serve until a first signal, then drain; a second signal cuts at once.

        clocks: the watches of open calls; it is empty when none is open
        """
        told = _Signals()
        try:
            await told.first.wait()
            log.info("draining", open_calls=len(clocks))
            await _either(told.second, asyncio.sleep(self.drain_delay_s))
            await self.site.stop()
            await _either(told.second, _until_empty(clocks, self.drain_timeout_s))
            for clock in tuple(clocks):
                clock.expire(watch.Wait.DRAIN)
            await _until_empty(clocks, LAST_FRAMES_S)
            await self.runner.cleanup()
            log.info("stopped")
        finally:
            told.forget()


    async def stop(self) -> None:
        """Stop at once; nothing is open."""
        await self.runner.cleanup()


async def start(app: web.Application, chosen: settings.Settings) -> Running:
    """Listen; raises `OSError` where the address is not to be had."""
    runner = web.AppRunner(
        app,
        # aiohttp's default would let an upstream generate for a caller who has left.
        handler_cancellation=True,
        access_log=None,
        keepalive_timeout=chosen.keepalive_timeout,
        shutdown_timeout=LAST_FRAMES_S,
        handle_signals=False,
    )
    await runner.setup()
    site = web.TCPSite(runner, chosen.host, chosen.port, backlog=1024)
    try:
        await site.start()
    except OSError:
        await runner.cleanup()
        raise
    host, port = runner.addresses[0][:2]
    shown = f"[{host}]" if ":" in host else host
    return Running(f"http://{shown}:{port}", runner, site, chosen.drain_delay, chosen.drain_timeout)


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


async def _until_empty(clocks: set[watch.Watch], limit_s: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(limit_s):
            while clocks:
                await asyncio.sleep(0.02)
