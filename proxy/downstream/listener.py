"""A port that is listened on: how many may connect, out of how many open files, and who waits."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import resource
import socket
import sys
from collections.abc import Callable, Sequence
from typing import Final

import structlog
from aiohttp import http_parser, web

from config.settings import Settings
from proxy.downstream import surface, tls
from proxy.downstream.connection import RESERVE, Connection, PortContext, Slots, kernels_clock
from proxy.downstream.strays import PLAIN_HINT, RateLimitedLog, Strays
from proxy.downstream.tls import Certificate, Secured
from translators import faults

log = structlog.get_logger()

# A caller's connection and that of its upstream call, out of what is left by the admin port, the listeners, the log,
# the journal, who is told that there is no room, and who was accepted but not counted yet.
FDS_PER_CALL: Final = 2
SPARE_FDS: Final = 80
# Connections of the admin port, at most a quarter of all files: whoever fills it takes none from callers.
ADMIN_CONNECTIONS: Final = 64
ADMIN_SHARE: Final = 4
# Connections that wait to be accepted, in the kernel: they cost us no file.
BACKLOG: Final = 1_024
# So many are accepted at one go: none of them can be counted before the loop has had its turn.
ACCEPTED_AT_ONCE: Final = 8
# Without a file to accept with, so long until it is tried again.
NO_FILE_S: Final = 1.0
OUT_OF_FILES: Final = (errno.EMFILE, errno.ENFILE)


def parser_complaint() -> str | None:
    """That aiohttp parses in another way than was tested, and what to do; None where it does not."""
    if http_parser.HttpRequestParser is not http_parser.HttpRequestParserPy:
        return None
    return (
        "aiohttp runs without its C parser, and the other one reads malformed calls differently: "
        "install aiohttp from a wheel and unset AIOHTTP_NO_EXTENSIONS"
    )


def raise_file_limit() -> None:
    """Let the process open as many files as it may: what a shell or a service manager gives is often only 1,024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == hard:
        return
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError) as error:  # macOS says "unlimited" and does not mean it
        log.warning("file_limit", files=soft, not_raised_to=hard, reason=type(error).__name__)
    else:
        log.info("file_limit", files=hard, before=soft)


class Listener:
    """Sockets that take connections, each as one of ours.

    It accepts by itself: uvloop's server would cut whom it has no file for, and asyncio's takes as many at one go as
    wait. Without a file to accept with, a caller waits in the kernel's queue until there is one.

    sockets:     bound, and listened on
    connections: makes one for each that is taken
    certificate: what is shown where callers speak TLS; None where they do not
    """

    def __init__(
        self,
        sockets: Sequence[socket.socket],
        connections: Callable[[], asyncio.Protocol],
        certificate: Certificate | None = None,
    ) -> None:
        self.sockets = sockets
        self.connections = connections
        self._loop = asyncio.get_running_loop()
        self._following = None if certificate is None else self._loop.create_task(certificate.keep_fresh())
        self._no_files = RateLimitedLog("accept_failed", "any")
        self._beginning: set[asyncio.Task[object]] = set()
        self._pauses: set[asyncio.TimerHandle] = set()
        for one in sockets:
            one.setblocking(False)
            one.listen(BACKLOG)
            self._loop.add_reader(one, self._accept, one)

    async def drain(self) -> None:
        """Take no more but those who have connected already: the kernel resets whom nobody has taken."""
        for one in self.sockets:
            with contextlib.suppress(OSError):
                while True:
                    self._begin(one.accept()[0])
        self.close()
        if self._beginning:
            await asyncio.wait(self._beginning)

    def close(self) -> None:
        """Take no more. Idempotent."""
        self._stop()
        for one in self.sockets:
            one.close()

    def _stop(self) -> None:
        for pause in self._pauses:
            pause.cancel()
        self._pauses.clear()
        if self._following is not None:
            self._following.cancel()
        for one in self.sockets:
            if one.fileno() >= 0:
                self._loop.remove_reader(one)

    def _accept(self, listening: socket.socket) -> None:
        for _ in range(ACCEPTED_AT_ONCE):
            try:
                taken, _ = listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in OUT_OF_FILES:
                    raise
                self._no_files.note(reason=errno.errorcode[error.errno], request_id="")
                self._loop.remove_reader(listening)
                self._pauses.add(self._loop.call_later(NO_FILE_S, self._go_on, listening))
                return
            self._begin(taken)

    def _go_on(self, listening: socket.socket) -> None:
        self._pauses.clear()
        self._loop.add_reader(listening, self._accept, listening)

    def _begin(self, taken: socket.socket) -> None:
        taken.setblocking(False)
        task = self._loop.create_task(self._loop.connect_accepted_socket(self.connections, taken))
        self._beginning.add(task)
        task.add_done_callback(self._beginning.discard)


async def listen(
    connections: Callable[[], asyncio.Protocol],
    address: tuple[str, int] | socket.socket,
    *,
    shared: bool = False,
    certificate: Certificate | None = None,
) -> Listener:
    """Take connections, each as one of these; raises `OSError` where the address is not to be had.

    address:     host and port, or a socket that is bound already
    shared:      whether others of our processes listen there too
    certificate: what is followed as long as it listens, where they speak TLS
    """
    if isinstance(address, socket.socket):
        return Listener([address], connections, certificate)
    host, port = address
    ask = functools.partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    found = await asyncio.get_running_loop().run_in_executor(None, ask)
    with contextlib.ExitStack() as stack:
        sockets = []
        for family, kind, protocol, _, where in dict.fromkeys(found):
            bound = stack.enter_context(socket.socket(family, kind, protocol))
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if shared:
                bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if family == socket.AF_INET6:
                # Beside an address of its own for IPv4.
                bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            try:
                bound.bind(where)
            except OSError as error:
                # Which of several addresses it was is in the text alone.
                raise OSError(error.errno, f"cannot listen on {where[:2]}: {error.strerror}") from None
            sockets.append(bound)
        stack.pop_all()
    return Listener(sockets, connections, certificate)


def connections(
    app: web.Application, server: web.Server, settings: Settings, *, port: str, most: int
) -> Callable[[], Connection]:
    """What `loop.create_server` asks for every connection it accepts, before an application that `surface.guard` made.

    port: its name in the log
    most: how many may be open, the reserve apart
    """
    context = PortContext(
        failure=app[surface.PORT_TONGUE].failure,
        slots=Slots(most),
        reserve=Slots(RESERVE),
        health=tuple(f"GET {path} ".encode("ascii") for path in app[surface.HEALTH]),
        strays=app[surface.STRAYS],
        malformed=RateLimitedLog("malformed", port),
        no_room=RateLimitedLog("no_room", port),
        header_timeout_s=settings.header_timeout,
        keepalive_s=settings.keepalive_timeout,
        socket_options=kernels_clock(settings.write_timeout),
    )
    return functools.partial(Connection, server, context)


def secured(
    connections: Callable[[], Connection], certificate: Certificate, app: web.Application, port: str
) -> Callable[[], Secured]:
    """The same connections with TLS before each; a handshake that fails leaves a line in the log.

    port: its name in the log
    """
    strays: Strays = app[surface.STRAYS]
    handshakes = RateLimitedLog("malformed", port)

    def refused(reason: str) -> None:
        if reason == tls.SPEAKS_HTTP:
            strays.note("", "", faults.BODY_INVALID.status, "", PLAIN_HINT)
        else:
            handshakes.note(reason=f"tls: {reason}", request_id="")

    return lambda: Secured(certificate.context, connections(), refused)


def most_connections(asked_for: int | None) -> int:
    """How many connections of callers may be open: what the limit of open files has room for, or fewer if so chosen.

    Without a cap the process would run out of files in the middle of calls, and could not even say so (spec ERR-5).
    """
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return fitting(soft, asked_for)


def admin_connections() -> int:
    """How many connections of the admin port may be open."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _of_admin(soft)


def fitting(files: int, asked_for: int | None) -> int:
    """How many connections of callers so many open files have room for, or fewer if so chosen."""
    if files == resource.RLIM_INFINITY:
        return asked_for or sys.maxsize
    room = max(1, (files - _of_admin(files) - SPARE_FDS) // FDS_PER_CALL)
    return min(asked_for or room, room)


def _of_admin(files: int) -> int:
    return (
        ADMIN_CONNECTIONS if files == resource.RLIM_INFINITY else max(1, min(ADMIN_CONNECTIONS, files // ADMIN_SHARE))
    )
