"""A connection into requests fit for a handler; what is none is answered here, in DashScope's shape.

aiohttp's own server has no clock on the head of a request, echoes what it cannot parse, and is lenient about framing
that a proxy before us may read in another way. Source: spec ERR-5, ERR-6, HTTP-6; reliability.md 1.4, 1.5.
"""

from __future__ import annotations

import asyncio
import errno
import functools
import resource
import socket
import sys
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final, NoReturn

import aiohttp
import structlog
from aiohttp import hdrs, http_exceptions, web

from config.settings import Settings
from translators import faults
from translators.dashscope import packets

log = structlog.get_logger()

GENERATION: Final = "/api/v1/services/aigc/text-generation/generation"

REQUEST_ID: Final = web.RequestKey("request_id", str)
# Set once the process takes no more calls: the connections that are left end with their present answer.
LEAVING: Final = web.AppKey("leaving", asyncio.Event)
DRAINING: Final = web.AppKey("draining", asyncio.Event)
# Set once what is left is cut: nothing is begun that could not end.
CUTTING: Final = web.AppKey("cutting", asyncio.Event)
# In the admin application: the base URL of the data port.
SERVED: Final = web.AppKey("served", str)
# On answers alone: some upstreams behave differently when they see a proxy before them.
VIA: Final = "1.1 dashseek"

# What the kernel has taken over nobody else waits for: a caller who vanished without a word, or stopped reading at the
# very end. It cuts later than the watch of the call, which knows what it cuts.
KERNEL_GRACE_S: Final = 5.0
# The kernel would keep megabytes for a caller who does not read, and call them written: billed, and noticed late.
UNSENT_BYTES: Final = 128 << 10
# Where nothing is sent (a reply that is awaited) it asks whether the caller is there, so often in a write_timeout.
KEEPALIVE_IDLE: Final = 2
KEEPALIVE_PROBES: Final = 6

# Of what is not HTTP, or finds no room, one line in so many seconds is logged, or a scanner fills the disk.
LINE_EVERY_S: Final = 10.0

# A caller's connection and that of its upstream call, out of what is left by the listener, the log, the journal, who
# is told that there is no room, and who was accepted but not counted yet.
FDS_PER_CALL: Final = 2
SPARE_FDS: Final = 64
# Connections that wait to be accepted, in the kernel: they cost us no file.
BACKLOG: Final = 1_024
# asyncio accepts as many at one go as its own `backlog` says, before a single one of them can be counted.
ACCEPTED_AT_ONCE: Final = 8
# Beyond the cap so many are told so at a time; who comes beyond these is cut without a word.
REFUSED_AT_ONCE: Final = 16
# After an answer that did not wait for all of its request, what is still coming is let go by for so long.
LINGER_S: Final = 1.0

OUT_OF_FILES: Final = (errno.EMFILE, errno.ENFILE)

# What no caller of ours needs, and what a proxy before us may frame differently than we do (request smuggling).
FRAMING: Final[tuple[tuple[str, Callable[[web.Request], bool]], ...]] = (
    ("HTTP version", lambda request: request.version not in (aiohttp.HttpVersion10, aiohttp.HttpVersion11)),
    (
        "Transfer-Encoding on HTTP/1.0",
        lambda request: request.version == aiohttp.HttpVersion10 and hdrs.TRANSFER_ENCODING in request.headers,
    ),
    ("not origin-form", lambda request: not request.raw_path.startswith("/")),
)


class Misframed(http_exceptions.BadHttpMessage):
    """A request that aiohttp takes and we do not."""


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


def connections(server: web.Server, settings: Settings) -> Callable[[], Connection]:
    """What `loop.create_server` asks for every connection it accepts."""
    room = ConnectionCount(most_connections(settings.max_connections), Flood("no_room"))
    return functools.partial(Connection, server, Flood("malformed"), room, settings)


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


@functools.cache
def kernels_clock(write_timeout_s: float) -> Mapping[int, int]:
    """TCP options, for a caller who does not read or is not there any more; where the system has them (Linux has)."""
    wanted = {
        "TCP_NOTSENT_LOWAT": UNSENT_BYTES,
        "TCP_USER_TIMEOUT": int((write_timeout_s + KERNEL_GRACE_S) * 1000),
        "TCP_KEEPIDLE": max(1, int(write_timeout_s / KEEPALIVE_IDLE)),
        "TCP_KEEPINTVL": max(1, int(write_timeout_s / KEEPALIVE_PROBES)),
    }
    return {getattr(socket, name): value for name, value in wanted.items() if hasattr(socket, name)}


def request_id(request: web.BaseRequest) -> str:
    """The caller's id where it is a well-formed UUID, else a new one, the same whenever asked (spec HTTP-6)."""
    if REQUEST_ID not in request:
        request[REQUEST_ID] = _request_id(request.headers.get("X-Request-Id", "").lower())
    return request[REQUEST_ID]


def check_framing(request: web.Request) -> None:
    """Refuse a request that others may frame differently, as if it could not be parsed: raises `Misframed`."""
    for what, applies in FRAMING:
        if applies(request):
            raise Misframed(what)


def refused(fault: faults.Fault, request_id: str) -> web.Response:
    """A failure as an answer of its own (spec ERR-1)."""
    headers = {} if fault.retry_after is None else {hdrs.RETRY_AFTER: fault.retry_after}
    body = packets.error(fault, request_id)
    return web.Response(status=fault.status, body=body, content_type="application/json", headers=headers)


async def last_look(request: web.Request, answer: web.StreamResponse) -> None:
    """Before the head of any answer leaves: its id, no banner, and whether its connection may bring another request."""
    answer.headers["X-Request-Id"] = request_id(request)
    answer.headers[hdrs.VIA] = VIA
    answer.headers.popall(hdrs.SERVER, None)
    # JDK's HttpClient offers `Upgrade: h2c` with its first call. That is to be ignored, but what follows it on the
    # connection is read by nobody; nor is what follows a body that did not come in whole.
    if hdrs.UPGRADE in request.headers or not request.content.is_eof() or request.app[LEAVING].is_set():
        answer.force_close()
        answer.headers[hdrs.CONNECTION] = "close"


def too_late(request: web.Request) -> bool:
    """Whether the process leaves without this call; but a connection that it took still brings its first one.

    An ingress has no other way to learn of the end than that it cannot connect any more.
    """
    if request.app[CUTTING].is_set():
        return True
    connection = request.protocol
    return request.app[LEAVING].is_set() and (not isinstance(connection, Connection) or connection.has_answered)


class Answered(ConnectionError):  # noqa: N818 - named for what happened
    """The answer is out, past aiohttp: it takes this for a caller who left, ends the connection and says nothing."""


class Flood:
    """The log of what strangers can cause at will: the first, and then one line for many.

    event: what they cause
    """

    def __init__(self, event: str) -> None:
        self._event = event
        self._loop = asyncio.get_running_loop()
        self._quiet_until_s = 0.0
        self._unsaid = 0

    def note(self, reason: str, request_id: str) -> None:
        """Take one; `reason` holds nothing of what was sent."""
        self._unsaid += 1
        now_s = self._loop.time()
        if now_s >= self._quiet_until_s:
            log.warning(self._event, reason=reason, request_id=request_id, count=self._unsaid)
            self._unsaid, self._quiet_until_s = 0, now_s + LINE_EVERY_S


@dataclass(slots=True)
class ConnectionCount:
    """How many connections of callers are open, of how many that may be."""

    most: int
    flood: Flood
    open: int = 0


class Connection(web.RequestHandler):
    """One connection of a caller: aiohttp's, with a clock on every head, a cap on their number, and answers of ours."""

    __slots__ = (
        "_begun",
        "_beyond",
        "_clock",
        "_header_timeout_s",
        "_kernels_clock",
        "_malformed",
        "_room",
        "has_answered",
    )

    def __init__(self, server: web.Server, malformed: Flood, room: ConnectionCount, settings: Settings) -> None:
        loop = asyncio.get_running_loop()
        super().__init__(server, loop=loop, keepalive_timeout=settings.keepalive_timeout, lingering_time=LINGER_S)
        self._malformed = malformed
        self._room = room
        self._beyond = False
        self.has_answered = False
        self._header_timeout_s = settings.header_timeout
        self._kernels_clock = kernels_clock(settings.write_timeout)
        self._clock: asyncio.TimerHandle | None = None
        self._begun = False

    @property
    def owes_a_call(self) -> bool:
        """Whether it was let in and has brought no call yet."""
        return not self.has_answered and self._current_request is None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A connection that says nothing at all has as long as one that says half."""
        super().connection_made(transport)
        self._room.open += 1
        self._beyond = self._room.open > self._room.most
        if self._room.open > self._room.most + REFUSED_AT_ONCE:
            self.force_close()
            return
        for option, value in self._kernels_clock.items():
            transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, option, value)
        self._clock = self._loop.call_later(self._header_timeout_s, self.force_close)

    def data_received(self, data: bytes) -> None:
        """Time a head from its first byte to its last; of who came beyond the cap, nothing is read."""
        if self._beyond:
            self._send_away()
            return
        super().data_received(data)
        if self._waiter is None or self._waiter.done():
            self._stop_clock()
        elif data and not self._begun:
            self._stop_clock()
            self._begun = True
            # It is idle no more: aiohttp would close it without a word, in the middle of a head that came late.
            self.keep_alive(True)
            self._clock = self._loop.call_later(self._header_timeout_s, self._too_late)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Nothing is waited for any more."""
        self._room.open -= 1
        self._stop_clock()
        super().connection_lost(exc)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = HTTPStatus.INTERNAL_SERVER_ERROR,  # noqa: ARG002 - aiohttp's signature
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002
    ) -> NoReturn:
        """Answer what aiohttp could not parse, or a bug outside of any handler; the connection ends with it."""
        known_as = request_id(request)
        if isinstance(exc, http_exceptions.HttpProcessingError) or _is_odd_expect(exc, request):
            # aiohttp's own messages repeat what was sent.
            self._malformed.note(exc.message if isinstance(exc, Misframed) else type(exc).__name__, known_as)
            self._answer(faults.BODY_INVALID, known_as)
        elif not isinstance(exc, Answered):
            log.error("bug", request_id=known_as, error=type(exc).__name__, exc_info=exc)
            self._answer(faults.INTERNAL, known_as)
        raise Answered

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Say in our words what aiohttp refuses before any handler: an `Expect` it does not know."""
        if isinstance(resp, web.HTTPException):
            resp = refused(faults.BODY_INVALID, request_id(request))
            resp.force_close()
        self.has_answered = True
        return await super().finish_response(request, resp, start_time)

    def _send_away(self) -> None:
        """Answer without reading, and let what is still coming go by for a moment: an end at once would reset it."""
        if not self._begun:
            self._begun = True
            known_as = _request_id("")
            self._room.flood.note("max_connections", known_as)
            self._answer(faults.OVERLOADED, known_as)
            if self._clock is not None:
                self._clock.cancel()
            self._clock = self._loop.call_later(LINGER_S, self.force_close)

    def _too_late(self) -> None:
        known_as = _request_id("")
        self._malformed.note("header_timeout", known_as)
        self._answer(faults.TIMED_OUT, known_as)
        self.force_close()

    def _answer(self, fault: faults.Fault, known_as: str) -> None:
        """Write an answer past aiohttp's: there is no request that a response could belong to."""
        body = packets.error(fault, known_as)
        head = (
            f"HTTP/1.1 {fault.status} {HTTPStatus(fault.status).phrase}",
            "Content-Type: application/json",
            f"Content-Length: {len(body)}",
            f"X-Request-Id: {known_as}",
            f"Via: {VIA}",
            "Connection: close",
        )
        if self.transport is not None:
            self.transport.write("\r\n".join((*head, "", "")).encode("ascii") + body)

    def _stop_clock(self) -> None:
        self._begun = False
        if self._clock is not None:
            self._clock.cancel()
            self._clock = None


def _is_odd_expect(error: BaseException | None, request: web.BaseRequest) -> bool:
    """Whether aiohttp came to grief over repeating an `Expect` that is no text."""
    return isinstance(error, UnicodeEncodeError) and hdrs.EXPECT in request.headers


def _request_id(said: str) -> str:
    try:
        known = said != "" and str(uuid.UUID(said)) == said
    except ValueError:
        known = False
    return said if known else str(uuid.uuid4())
