"""The life of the process: listen, serve, drain on a signal, and leave nothing open (spec OPS-2)."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, cast

import structlog
from aiohttp import web

from config.settings import Settings
from proxy.call.timeouts import OpenCalls, Timeout
from proxy.downstream import listener, surface
from proxy.downstream.connection import Connection
from proxy.downstream.listener import Listener
from proxy.downstream.phase import LIFECYCLE, Phase
from proxy.downstream.tls import Certificate
from proxy.server import signals, systemd

log = structlog.get_logger()

# Seconds for the last frames of the calls that a drain has ended to leave.
LAST_FRAMES_S = 1.0
# After the last connection was taken: so long for calls that are on their way on connections that are kept, and so long
# at most for the first call of each that has brought none.
LATECOMERS_S = 0.2
FIRST_CALLS_S = 2.0
# So often it is looked whether that, or the end of all calls, has come.
LOOK_EVERY_S = 0.02
# Ignored by the system where nobody handles it. A loop that handles any signal wakes up for all of them.
WAKES = signal.SIGURG


@dataclass(slots=True)
class Port:
    """A port that is listened on.

    url: where, the port as the system gave it
    """

    url: str
    runner: web.AppRunner
    listener: Listener

    async def close(self) -> None:
        """End everything that is open there."""
        self.listener.close()
        await self.runner.cleanup()


@dataclass(slots=True)
class Running:
    """A server that listens.

    calls, admin: its ports; None where others answer the platform
    """

    calls: Port
    admin: Port | None
    drain_delay_s: float
    drain_timeout_s: float

    @property
    def url(self) -> str:
        """Base URL of the data port."""
        return self.calls.url

    @property
    def admin_url(self) -> str | None:
        """Base URL of the admin port."""
        return self.admin.url if self.admin else None

    async def until_told_to_stop(
        self,
        open_calls: OpenCalls,
        announce: Callable[[], None] = lambda: None,
        hang_up: Callable[[], None] | None = None,
    ) -> None:
        """Serve until a first signal, then drain; a second signal cuts at once.

        open_calls: what a drain waits for
        announce:   says that we serve, to who may send a signal as soon as it hears that
        hang_up:    what SIGHUP asks for; None: a line in the log
        """
        stop = _Signals(hang_up)
        turning = asyncio.create_task(systemd.turning())
        try:
            announce()
            await stop.first.wait()
            systemd.say("STOPPING=1")
            self._enter(Phase.DRAINING)
            log.info("draining", open_calls=len(open_calls))
            await _either(stop.second, asyncio.sleep(self.drain_delay_s))
            await self._close()
            await _either(stop.second, asyncio.sleep(LATECOMERS_S))
            await _either(stop.second, _until(self._all_have_called, FIRST_CALLS_S))
            await _either(stop.second, _until(lambda: not open_calls, self.drain_timeout_s))
            self._enter(Phase.CUTTING)
            if open_calls:
                log.warning("cutting", open_calls=len(open_calls))
            open_calls.expire(Timeout.DRAIN)
            await _until(lambda: not open_calls, LAST_FRAMES_S)
            await self._clean_up()
            log.info("stopped")
        finally:
            turning.cancel()
            stop.forget()

    async def stop(self) -> None:
        """Stop at once; for when no call is open."""
        await self._clean_up()

    def _enter(self, phase: Phase) -> None:
        self.calls.runner.app[LIFECYCLE].phase = phase

    def _all_have_called(self) -> bool:
        """Whether every open connection has brought a request: a busy proxy before us connects first and asks later."""
        server = self.calls.runner.server
        return server is None or not any(isinstance(one, Connection) and one.owes_a_call for one in server.connections)

    async def _clean_up(self) -> None:
        await self.calls.close()
        if self.admin is not None:
            await self.admin.close()

    async def _close(self) -> None:
        """Take no new connection, and no second call on one that is there."""
        self._enter(Phase.LEAVING)
        await self.calls.listener.drain()


async def start(app: web.Application, settings: Settings, admin: web.Application | None = None) -> Running:
    """Listen on the data port, and with `admin` on the admin port; raises `OSError` where one is not to be had."""
    most = listener.most_connections(settings.max_connections)
    address = settings.host, settings.port
    shared = settings.workers > 1
    certificate = None
    if settings.tls_cert is not None and settings.tls_key is not None:
        certificate = Certificate(settings.tls_cert, settings.tls_key)
    calls = await _open(
        app, settings, "calls", most, address, shutdown_s=LAST_FRAMES_S, shared=shared, certificate=certificate
    )
    beside: Port | None = None
    if admin is not None:
        admin[surface.SERVED] = calls.url
        try:
            beside = await _open_admin(admin, settings, (settings.admin_host, settings.admin_port))
        except OSError:
            await calls.close()
            raise
    return Running(calls, beside, settings.drain_delay, settings.drain_timeout)


async def answer(
    app: web.Application, settings: Settings, listening: socket.socket, announce: Callable[[], None]
) -> None:
    """Serve the admin port alone, on a socket that is bound already, until a signal."""
    stop = _Signals()
    try:
        port = await _open_admin(app, settings, listening)
        announce()
        await stop.first.wait()
        await port.close()
    finally:
        stop.forget()


async def _open_admin(app: web.Application, settings: Settings, address: tuple[str, int] | socket.socket) -> Port:
    most = listener.admin_connections()
    return await _open(app, settings, "admin", most, address, shutdown_s=0, shared=False, certificate=None)


async def _open(
    app: web.Application,
    settings: Settings,
    name: str,
    most: int,
    address: tuple[str, int] | socket.socket,
    *,
    shutdown_s: float,
    shared: bool,
    certificate: Certificate | None,
) -> Port:
    runner = web.AppRunner(
        app,
        # aiohttp's default would let an upstream generate for a caller who has left.
        handler_cancellation=True,
        access_log=None,
        shutdown_timeout=shutdown_s,
    )
    await runner.setup()
    assert runner.server is not None  # noqa: S101 - for the type checker: it was just set up
    general = cast(surface.Handler, runner.server.request_handler)
    runner.server.request_handler = cast(Any, surface.straight(app, general))
    connections: Callable[[], asyncio.Protocol]
    connections = listener.connections(app, runner.server, settings, port=name, most=most)
    if certificate is not None:
        connections = listener.secured(connections, certificate, app, name)
    try:
        listening = await listener.listen(connections, address, shared=shared, certificate=certificate)
    except OSError:
        await runner.cleanup()
        raise
    return Port(url(listening.sockets[0].getsockname(), secured=certificate is not None), runner, listening)


def url(address: Any, *, secured: bool = False) -> str:
    """The base URL of an address as sockets have it; `secured` where callers speak TLS there."""
    host, port = address[:2]
    return f"http{'s' * secured}://" + (f"[{host}]:{port}" if ":" in host else f"{host}:{port}")


def callable_at(listening: str) -> str:
    """The URL to call where one listens on every address: `0.0.0.0` says where to listen, not where to call."""
    return listening.replace("//0.0.0.0:", "//127.0.0.1:").replace("//[::]:", "//[::1]:")


class _Signals:
    """The first and the second signal to stop, as events; a hang-up asks for a reload, or is a line in the log."""

    def __init__(self, hang_up: Callable[[], None] | None = None) -> None:
        self._hung_up = hang_up
        self.first = asyncio.Event()
        self.second = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        meanings = dict.fromkeys(signals.STOPS, self._take)
        # Whoever runs us in a process of their own, as `demo` does, may end when its terminal is closed.
        if signals.is_prepared():
            meanings[signals.HANG_UP] = self._hang_up
        # Not handlers of the loop: from when it drops one until another is there the next such signal kills, whatever
        # this thread's mask, for another thread takes it.
        self._loop.add_signal_handler(WAKES, lambda: None)

        def hear(number: int, _frame: object) -> None:
            self._loop.call_soon_threadsafe(meanings[signal.Signals(number)])

        self._before = {number: signal.signal(number, hear) for number in meanings}
        signals.deliver()

    def forget(self) -> None:
        """Restore the signal handlers of before, except those that would end a process that is ending."""
        signals.restore(self._before)
        self._loop.remove_signal_handler(WAKES)

    def _take(self) -> None:
        (self.second if self.first.is_set() else self.first).set()

    def _hang_up(self) -> None:
        if self._hung_up is None:
            log.warning("hung_up")
        else:
            self._hung_up()


async def _either(stop: asyncio.Event, wait: Coroutine[Any, Any, None]) -> None:
    """Wait for one of the two."""
    tasks = [asyncio.ensure_future(stop.wait()), asyncio.ensure_future(wait)]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def _until(happened: Callable[[], bool], limit_s: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(limit_s):
            while not happened():  # noqa: ASYNC110 - it looks only while the process leaves
                await asyncio.sleep(LOOK_EVERY_S)
