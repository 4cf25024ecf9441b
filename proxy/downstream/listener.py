"""A port that callers connect to: how many may, out of how many open files, and who waits."""

from __future__ import annotations

import asyncio
import errno
import functools
import resource
import sys
from collections.abc import Callable
from typing import Any, Final

import structlog
from aiohttp import http_parser, web

from config.settings import Settings
from proxy.downstream.connection import Connection, ConnectionCount, Flood
from proxy.downstream.surface import Failure

log = structlog.get_logger()

# A caller's connection and that of its upstream call, out of what is left by the listener, the log, the journal, who
# is told that there is no room, and who was accepted but not counted yet.
FDS_PER_CALL: Final = 2
SPARE_FDS: Final = 64
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


async def listen(connections: Callable[[], Connection], settings: Settings) -> asyncio.Server:
    """Take connections, each as one of these; raises `OSError` where the address is not to be had.

    Where a file is missing to accept one (another part of the process has taken more than we left it), asyncio waits a
    second, and the caller with it, in the kernel's queue.
    """
    loop = asyncio.get_running_loop()
    no_files = Flood("accept_failed")

    def told(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if isinstance(error, OSError) and error.errno in OUT_OF_FILES:
            no_files.note(errno.errorcode[error.errno], "")
        else:
            loop.default_exception_handler(context)

    loop.set_exception_handler(told)
    listener = await loop.create_server(
        connections,
        settings.host,
        settings.port,
        backlog=ACCEPTED_AT_ONCE,
        reuse_port=settings.workers > 1 or None,
    )
    for listening in listener.sockets:
        with listening.dup() as same:
            same.listen(BACKLOG)
    return listener


def connections(server: web.Server, settings: Settings, failure: Failure) -> Callable[[], Connection]:
    """What `loop.create_server` asks for every connection it accepts."""
    count = ConnectionCount(most_connections(settings.max_connections), Flood("no_room"))
    return functools.partial(Connection, server, Flood("malformed"), count, settings, failure)


def most_connections(asked_for: int | None) -> int:
    """How many connections of callers may be open: what the limit of open files has room for, or fewer if so chosen.

    Without a cap the process would run out of files in the middle of calls, and could not even say so (spec ERR-5).
    """
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return fitting(soft, asked_for)


def fitting(files: int, asked_for: int | None) -> int:
    """How many connections of callers so many open files have room for, or fewer if so chosen."""
    if files == resource.RLIM_INFINITY:
        return asked_for or sys.maxsize
    room = max(1, (files - SPARE_FDS) // FDS_PER_CALL)
    return min(asked_for or room, room)
