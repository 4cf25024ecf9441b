"""A connection into requests fit for a handler; what is none is answered here, in DashScope's shape.

aiohttp's own server has no clock on the head of a request, echoes what it cannot parse, and is lenient about framing
that a proxy before us may read in another way. Source: spec ERR-5, ERR-6, HTTP-6; reliability.md 1.4, 1.5.
"""

from __future__ import annotations

import asyncio
import functools
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final, NoReturn

import structlog
from aiohttp import hdrs, http_exceptions, web

from config.settings import Settings
from proxy.downstream.answer import Sent
from proxy.downstream.surface import VIA, Failure, Misframed, new_request_id, refused, request_id
from translators import faults

log = structlog.get_logger()


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

# Beyond the cap so many are told so at a time; who comes beyond these is cut without a word.
REFUSED_AT_ONCE: Final = 16
# After an answer that did not wait for all of its request, what is still coming is let go by for so long.
LINGER_S: Final = 1.0


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
        "_count",
        "_failure",
        "_header_timeout_s",
        "_kernels_clock",
        "_malformed",
        "has_answered",
    )

    def __init__(
        self, server: web.Server, malformed: Flood, count: ConnectionCount, settings: Settings, failure: Failure
    ) -> None:
        loop = asyncio.get_running_loop()
        super().__init__(
            server,
            loop=loop,
            keepalive_timeout=settings.keepalive_timeout,
            lingering_time=LINGER_S,
            # A body is inflated by who wants it (`downstream.body`), once its key was looked at.
            auto_decompress=False,
        )
        self._malformed = malformed
        self._count = count
        self._failure = failure
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
        self._count.open += 1
        self._beyond = self._count.open > self._count.most
        if self._count.open > self._count.most + REFUSED_AT_ONCE:
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
        self._count.open -= 1
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
        if isinstance(resp, Sent):
            self.has_answered = True
            return resp, False
        if isinstance(resp, web.HTTPException):
            resp = refused(faults.BODY_INVALID, request_id(request), self._failure)
            resp.force_close()
        self.has_answered = True
        return await super().finish_response(request, resp, start_time)

    def _send_away(self) -> None:
        """Answer without reading, and let what is still coming go by for a moment: an end at once would reset it."""
        if not self._begun:
            self._begun = True
            known_as = new_request_id()
            self._count.flood.note("max_connections", known_as)
            self._answer(faults.OVERLOADED, known_as)
            if self._clock is not None:
                self._clock.cancel()
            self._clock = self._loop.call_later(LINGER_S, self.force_close)

    def _too_late(self) -> None:
        known_as = new_request_id()
        self._malformed.note("header_timeout", known_as)
        self._answer(faults.TIMED_OUT, known_as)
        self.force_close()

    def _answer(self, fault: faults.Fault, known_as: str) -> None:
        """Write an answer past aiohttp's: there is no request that a response could belong to."""
        body = self._failure(fault, known_as)
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
