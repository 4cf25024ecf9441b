"""A port that is listened on: how many may connect, out of how many open files, and who waits."""

from __future__ import annotations

import asyncio
import errno
import functools
import resource
import socket
import sys
from collections.abc import Callable
from typing import Any, Final

import structlog
from aiohttp import http_parser, web

from config.settings import Settings
from proxy.downstream import surface
from proxy.downstream.connection import RESERVE, Connection, Door, Room, kernels_clock
from proxy.downstream.strays import Flood

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
# asyncio accepts as many at one go as its own `backlog` says, before a single one of them can be counted.
ACCEPTED_AT_ONCE: Final = 8
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


async def listen(
    connections: Callable[[], Connection], address: tuple[str, int] | socket.socket, *, shared: bool = False
) -> asyncio.Server:
    """Take connections, each as one of these; raises `OSError` where the address is not to be had.

    Where a file is missing to accept one (another part of the process has taken more than we left it), asyncio waits a
    second, and the caller with it, in the kernel's queue.

    address: host and port, or a socket that is bound already
    shared:  whether others of our processes listen there too
    """
    loop = asyncio.get_running_loop()
    no_files = Flood("accept_failed", "any")

    def told(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if isinstance(error, OSError) and error.errno in OUT_OF_FILES:
            no_files.note(reason=errno.errorcode[error.errno], request_id="")
        else:
            loop.default_exception_handler(context)

    loop.set_exception_handler(told)
    if isinstance(address, socket.socket):
        listener = await loop.create_server(connections, sock=address, backlog=ACCEPTED_AT_ONCE)
    else:
        host, port = address
        listener = await loop.create_server(
            connections, host, port, backlog=ACCEPTED_AT_ONCE, reuse_port=shared or None
        )
    for listening in listener.sockets:
        with listening.dup() as same:
            same.listen(BACKLOG)
    return listener


def connections(
    app: web.Application, server: web.Server, settings: Settings, *, port: str, most: int
) -> Callable[[], Connection]:
    """What `loop.create_server` asks for every connection it accepts, before an application that `surface.guard` made.

    port: its name in the log
    most: how many may be open, the reserve apart
    """
    door = Door(
        failure=app[surface.PORT_TONGUE].failure,
        seats=Room(most),
        reserve=Room(RESERVE),
        health=tuple(f"GET {path} ".encode("ascii") for path in app[surface.HEALTH]),
        strays=app[surface.STRAYS],
        malformed=Flood("malformed", port),
        no_room=Flood("no_room", port),
        header_timeout_s=settings.header_timeout,
        keepalive_s=settings.keepalive_timeout,
        socket_options=kernels_clock(settings.write_timeout),
    )
    return functools.partial(Connection, server, door)


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
