"""A connection into requests fit for a handler; what is none is answered here, in the shape of its port.

aiohttp's own server has no clock on the head of a request, echoes what it cannot parse, and is lenient about framing
that a proxy before us may read in another way. Both ports are served by this one class: a guard of one is a guard of
the other. Source: spec ERR-5, ERR-6, HTTP-6; SOURCES#missing-timeouts, #http-parsers.
"""

from __future__ import annotations

import asyncio
import functools
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final, NoReturn

import structlog
from aiohttp import hdrs, http_exceptions, web

from proxy.downstream.answer_head import Sent
from proxy.downstream.request_ids import new_request_id, request_id
from proxy.downstream.sinks import file_of
from proxy.downstream.strays import TLS_HELLO, TLS_HINT, RateLimitedLog, Strays
from proxy.downstream.surface import VIA, Failure, Misframed, refused
from translators import faults

log = structlog.get_logger()


# TCP_USER_TIMEOUT fires so many seconds after `write_timeout`: our own time-out, which knows what it cuts, comes first.
# The kernel's is for bytes that it has taken over: their caller vanished without a word, or stopped reading at the very
# end, after its call had ended here.
KERNEL_GRACE_S: Final = 5.0
# TCP_NOTSENT_LOWAT, in bytes. Without it the kernel takes megabytes for a caller who does not read, and calls them
# written: they would be billed, and the stall noticed late.
UNSENT_BYTES: Final = 128 << 10
# Divisors of `write_timeout` for TCP keep-alive, which asks whether the caller is there while nothing is sent (a reply
# that is awaited): the first probe after half of it, then one every sixth.
KEEPALIVE_IDLE: Final = 2
KEEPALIVE_PROBES: Final = 6

# Connections beyond the cap that are read from at one time, the newest of them: a health probe is answered, every other
# request reads 503.
RESERVE: Final = 16
# Seconds for which the rest of a request is read and dropped after an answer that did not wait for it: to close at once
# would reset the connection, and the answer with it.
LINGER_S: Final = 1.0

HEAD_END: Final = b"\r\n\r\n"


@functools.cache
def kernels_clock(write_timeout_s: float) -> Mapping[int, int]:
    """TCP options that end the connection of a caller who does not read or is gone; only those the system has."""
    wanted = {
        "TCP_NOTSENT_LOWAT": UNSENT_BYTES,
        "TCP_USER_TIMEOUT": int((write_timeout_s + KERNEL_GRACE_S) * 1000),
        "TCP_KEEPIDLE": max(1, int(write_timeout_s / KEEPALIVE_IDLE)),
        "TCP_KEEPINTVL": max(1, int(write_timeout_s / KEEPALIVE_PROBES)),
    }
    return {getattr(socket, name): value for name, value in wanted.items() if hasattr(socket, name)}


class Answered(ConnectionError):  # noqa: N818 - named for what happened
    """The answer is out, past aiohttp: it takes this for a caller who left, ends the connection and says nothing."""


@dataclass(slots=True)
class Slots:
    """The connections of one port that may be open at a time; for the next one the one longest idle is closed.

    most: how many may be open
    idle: those without a request now, whether silent from the start, with half a head, or kept; longest idle first
    """

    most: int
    open: int = 0
    idle: dict[Connection, None] = field(default_factory=dict)

    def admit(self, new: Connection) -> bool:
        """Give a connection a slot; False where all that are open have a request under way."""
        if self.open >= self.most and not self._evict():
            return False
        self.open += 1
        self.idle[new] = None
        return True

    def release(self, gone: Connection) -> None:
        """Take back the slot of a connection."""
        self.open -= 1
        self.idle.pop(gone, None)

    def _evict(self) -> bool:
        longest = next((one for one in self.idle if one.awaits_head or one.lingers), None)
        if longest is not None:
            longest.evict()
        return longest is not None


@dataclass(frozen=True, slots=True)
class PortContext:
    """What all connections of one port share.

    failure:          shape of a failure, where there is no request to ask
    slots:            of the connections that may bring requests
    reserve:          slots of those that come beyond them: a health probe is answered, all else refused
    health:           how a request begins that is a health probe
    strays:           is told of a TLS hello
    malformed:        is told of what is no request
    no_room:          is told of connections that were refused, or closed for another
    header_timeout_s: for a head, from its first byte to its last; for silence at the start, too
    keepalive_s:      between two requests
    socket_options:   of TCP, see `kernels_clock`
    """

    failure: Failure
    slots: Slots
    reserve: Slots
    health: tuple[bytes, ...]
    strays: Strays
    malformed: RateLimitedLog
    no_room: RateLimitedLog
    header_timeout_s: float
    keepalive_s: float
    socket_options: Mapping[int, int]


class Connection(web.RequestHandler):
    """One connection: aiohttp's, with a clock on every head, a slot among others, and answers of ours.

    file:         see `file_of`: asked once for all that it sends

    Of aiohttp's private parts two are read, by `awaits_head` and `has_request` alone: nothing public tells them.
    """

    __slots__ = (
        "_begun",
        "_clock",
        "_head_bytes",
        "_is_held_back",
        "_is_over",
        "_last_bytes",
        "_port",
        "_received_bytes",
        "_runs_ahead",
        "_says_tls",
        "_slots",
        "file",
        "has_answered",
    )

    def __init__(self, server: web.Server, port: PortContext) -> None:
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            keepalive_timeout=port.keepalive_s,
            lingering_time=LINGER_S,
            # A body is inflated by who wants it (`downstream.body`), once its key was looked at.
            auto_decompress=False,
        )
        self._port = port
        self._slots: Slots | None = None
        self.file: int | None = None
        self.has_answered = False
        self._is_over = False
        self._is_held_back = False
        self._says_tls = False
        self._clock: asyncio.TimerHandle | None = None
        # Whether bytes of a head have come, or of what is sent away.
        self._begun = False
        # Since it was last known to be at rest: what came, the last of it, and where its first head ended.
        self._received_bytes = 0
        self._last_bytes = b""
        self._head_bytes = 0
        # Whether it has ever sent a request ahead of the answer before: what waits behind one is then not known.
        self._runs_ahead = False

    @property
    def awaits_head(self) -> bool:
        """Whether no whole head is there that was not answered."""
        waiter = self._waiter
        if waiter is None and not self.has_answered:
            # uvloop may read before aiohttp's own task has had its first turn.
            return not self._head_bytes
        return waiter is not None and not waiter.done()

    @property
    def lingers(self) -> bool:
        """Whether its last answer is out, and what is left of its request is only read to be dropped."""
        return self._is_over and self.transport is not None and not self.transport.get_write_buffer_size()

    @property
    def has_request(self) -> bool:
        """Whether a handler is at work."""
        return self._current_request is not None

    @property
    def owes_a_call(self) -> bool:
        """Whether it was let in and has brought no call yet."""
        return not self.has_answered and not self.has_request

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take a slot and start the clock: one that sends nothing has as long as one that sends half a head."""
        super().connection_made(transport)
        self.file = file_of(transport)
        both = (self._port.slots, self._port.reserve)
        self._slots = next((slots for slots in both if slots.admit(self)), None)
        if self._slots is None:
            self.force_close()
            return
        for option, value in self._port.socket_options.items():
            transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, option, value)
        self._start_clock(self._too_silent)

    def data_received(self, data: bytes) -> None:
        """Time a head from its first byte to its last; of a connection in the reserve read health probes alone."""
        if data:  # for none, aiohttp's reader asks for what its parser holds back
            if self._slots is self._port.reserve and not self._may_ask(data):
                self._refuse_unread()
                return
            self._measure(data)
        super().data_received(data)
        if not self.awaits_head:
            if self._clock is not None:
                self._stop_clock()
            # What comes behind a last answer is no request.
            if self._slots is not None and not self._is_over:
                self._slots.idle.pop(self, None)
        elif data and not self._begun:
            self._stop_clock()
            self._begun = True
            # It is idle no more: aiohttp would close it without a word, in the middle of a head that came late.
            self.keep_alive(True)
            self._start_clock(self._too_late)

    def pause_reading(self) -> None:
        """Stop reading: the body's reader has enough."""
        self._is_held_back = True
        super().pause_reading()

    def resume_reading(self, resume_parser: bool = True) -> None:
        """Read on, if reading was stopped: aiohttp asks for it with every body, which takes eight calls for nothing."""
        if self._is_held_back:
            self._is_held_back = False
            super().resume_reading(resume_parser)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Give the slot back and stop the clock."""
        self._release_slot()
        self._stop_clock()
        super().connection_lost(exc)

    def evict(self) -> None:
        """Close an idle connection for a new one, which has its slot at once."""
        self._port.no_room.note(reason="longest_idle_closed", request_id="")
        self._release_slot()
        self.force_close()

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
            if self._says_tls:
                self._port.strays.note("", "", faults.BODY_INVALID.status, known_as, TLS_HINT)
            else:
                # aiohttp's own messages repeat what was sent.
                reason = exc.message if isinstance(exc, Misframed) else type(exc).__name__
                self._port.malformed.note(reason=reason, request_id=known_as)
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
            self._is_over = not resp.keep_alive
            self._await_next(request)
            return resp, False
        if isinstance(resp, web.HTTPException):
            resp = refused(faults.BODY_INVALID, request_id(request), self._port.failure)
            resp.force_close()
        if self._slots is self._port.reserve:
            resp.force_close()
        self.has_answered = True
        finished = await super().finish_response(request, resp, start_time)
        self._is_over = not finished[0].keep_alive
        self._await_next(request)
        return finished

    def _may_ask(self, data: bytes) -> bool:
        """Whether a connection in the reserve is answered: its request is a health probe, or a slot is free by now."""
        if self._received_bytes:
            return True
        if self._begun:
            return False
        if data.startswith(self._port.health):
            return True
        if not self._port.slots.admit(self):
            return False
        self._port.reserve.release(self)
        self._slots = self._port.slots
        return True

    def _measure(self, data: bytes) -> None:
        """Note where a head ends, and what came last."""
        if self._runs_ahead:
            return
        if not self._received_bytes and data[:1].isalpha() and (end := data.find(HEAD_END)) >= 0:
            # A whole head in the first piece, as of nearly every request.
            self._says_tls = False
            self._head_bytes = end + len(HEAD_END)
            self._received_bytes = len(data)
            self._last_bytes = data[-len(HEAD_END) :]
            return
        if not self._received_bytes:
            # Empty lines before a request are none of it, and are taken (RFC 9112 2.2).
            data = data.lstrip(b"\r\n")
            self._says_tls = not self.has_answered and data.startswith(TLS_HELLO)
        if not self._head_bytes:
            seen = self._last_bytes + data if self._last_bytes else data
            if (end := seen.find(HEAD_END)) >= 0:
                self._head_bytes = self._received_bytes - len(self._last_bytes) + end + len(HEAD_END)
        self._received_bytes += len(data)
        self._last_bytes = (self._last_bytes + data[-len(HEAD_END) :])[-len(HEAD_END) :]

    def _await_next(self, request: web.BaseRequest) -> None:
        """Wait for the next request; what has come of it already, in the segment of the one before, has its clock."""
        if self._slots is None or not self.connected:
            return
        self._slots.idle.pop(self, None)
        self._slots.idle[self] = None
        if self._clock is not None:  # as it is of each head that has begun
            self._stop_clock()
        if not self._runs_ahead and self._has_ended_with(request):
            self._received_bytes, self._last_bytes, self._head_bytes = 0, b"", 0
            return
        # Half a head; or whole ones, and then it is stopped. Where that has happened before, what waits is not known,
        # and the end comes without a word: nobody may take one for the answer to what they send next.
        self._begun = not self._runs_ahead
        self._start_clock(self._too_late if self._begun else self._too_silent)
        self._runs_ahead = True

    def _has_ended_with(self, request: web.BaseRequest) -> bool:
        """Whether nothing came behind a request: a head ends by its empty line, and so do chunks."""
        if hdrs.TRANSFER_ENCODING in request.headers:
            return self._last_bytes == HEAD_END
        behind = self._received_bytes - self._head_bytes - (request.content_length or 0)
        # Some send an empty line behind a body, which is nothing (RFC 9112 2.2).
        return not behind or (0 < behind < len(HEAD_END) and not self._last_bytes[-behind:].strip(b"\r\n"))

    def _refuse_unread(self) -> None:
        """Answer without reading, and let what is still coming go by for a moment: an end at once would reset it."""
        if not self._begun:
            self._stop_clock()
            self._begun = True
            known_as = new_request_id()
            self._port.no_room.note(reason="max_connections", request_id=known_as)
            self._answer(faults.OVERLOADED, known_as)
            self._clock = asyncio.get_running_loop().call_later(LINGER_S, self.force_close)

    def _too_silent(self) -> None:
        if self.awaits_head:
            self.force_close()

    def _too_late(self) -> None:
        if not self.awaits_head:
            return
        known_as = new_request_id()
        self._port.malformed.note(reason="header_timeout", request_id=known_as)
        self._answer(faults.TIMED_OUT, known_as)
        self.force_close()

    def _answer(self, fault: faults.Fault, known_as: str) -> None:
        """Write an answer past aiohttp's: there is no request that a response could belong to."""
        body = self._port.failure(fault, known_as)
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

    def _release_slot(self) -> None:
        """Give the slot back, once."""
        if self._slots is not None:
            self._slots.release(self)
            self._slots = None

    def _start_clock(self, end: Callable[[], None]) -> None:
        self._clock = asyncio.get_running_loop().call_later(self._port.header_timeout_s, end)

    def _stop_clock(self) -> None:
        self._begun = False
        if self._clock is not None:
            self._clock.cancel()
            self._clock = None


def _is_odd_expect(error: BaseException | None, request: web.BaseRequest) -> bool:
    """Whether aiohttp came to grief over repeating an `Expect` that is no text."""
    return isinstance(error, UnicodeEncodeError) and hdrs.EXPECT in request.headers
