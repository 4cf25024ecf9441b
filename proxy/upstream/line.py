"""One connection to an upstream: a request in one write, its answer parsed as it comes, one after the other.

It knows HTTP's framing and nothing else. Each read of the socket goes to a function in the same turn of the loop: a
`StreamReader` between costs a buffer, a future and a wake-up of a task for every delta, a third of what a paced one
costs. Source: spec ERR-4, SSE-10; RFC 9112.
"""

from __future__ import annotations

import asyncio
import functools
import select
import socket
import zlib
from collections.abc import Callable
from enum import Enum, auto
from time import monotonic
from typing import Final, NoReturn, cast

import httptools

from proxy.upstream.reasons import SPEAKS_TLS, is_tls
from proxy.upstream.response import READ_BYTES, Broken

# A head that is longer is none, nor is what stands between two pieces of a body (trailers, extensions of chunks): the
# parser itself knows no limit.
HEAD_BYTES: Final = 64 << 10
# What has come while nobody takes it; beyond this the socket is not read (spec SSE-10).
HELD_BYTES: Final = READ_BYTES
# Read into by every connection in turn: what is read is copied out of it before the loop goes on.
_READ: Final = memoryview(bytearray(READ_BYTES))

_GZIP: Final = 16 + zlib.MAX_WBITS
_INTERIM: Final = 200  # statuses below it announce another head

Take = Callable[[bytes], bool]


class Stage(Enum):
    """Where a connection stands.

    IDLE:  nothing was asked; anything that comes now, an end included, is the end of it
    ASKED: the head of the answer is awaited
    BODY:  the head is there
    WHOLE: the body is there too
    LOST:  the connection has ended, or is not to be used again
    """

    __hash__ = object.__hash__  # in C; an `Enum` hashes its name, in Python

    IDLE = auto()
    ASKED = auto()
    BODY = auto()
    WHOLE = auto()
    LOST = auto()


# A member asked of its class takes 770 instructions (Python 3.11: past the interpreter's caches), a name of the module
# fifteen. Of a small call nineteen are these: 1.1 % of it.
IDLE, ASKED, BODY, WHOLE, LOST = Stage


class Line(asyncio.BufferedProtocol):
    """A connection, and while it serves the `Response` to what was asked.

    part:      told once when it is idle again, and once when it is lost
    is_silent: whether nothing has come since the request: a server that had closed it has not served it
    idle_s:    time on the monotonic clock since when it is idle
    on_body:   takes what the parser finds of a body
    """

    __slots__ = (
        "_bare_bytes",
        "_body",
        "_coding",
        "_delimited",
        "_failure",
        "_has_parser",
        "_held",
        "_held_bytes",
        "_inflater",
        "_is_interim",
        "_is_reading",
        "_keeps_alive",
        "_loop",
        "_parser",
        "_part",
        "_peeked",
        "_take",
        "_take_error",
        "_transport",
        "_unread",
        "_waiter",
        "content_type",
        "idle_s",
        "is_silent",
        "on_body",
        "retry_after",
        "stage",
        "status",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop, part: Callable[[Line], None]) -> None:
        self._loop = loop
        self._part = part
        self._transport: asyncio.Transport | None = None
        self._peeked: socket.socket | None = None
        self._has_parser = False
        self._waiter: asyncio.Future[None] | None = None
        self.stage = IDLE
        self.idle_s = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's is one by its verbs alone.
        self._transport = cast(asyncio.Transport, transport)

    def peek_at(self, plain: socket.socket) -> None:
        """The socket that a connection without TLS is read from: looked into before it serves again."""
        self._peeked = plain
        self._unread = select.poll()
        self._unread.register(plain, select.POLLIN)

    # What a call does

    def ask(self, wire: bytes) -> None:
        """Send a whole request; the connection must be idle."""
        assert self._transport is not None  # noqa: S101 - for the type checker: it was made
        self.stage = ASKED
        self.status = 0
        self.content_type = ""
        self.retry_after: str | None = None
        self.is_silent = True
        self._body: list[bytes] = []
        # The list's own: a method would be one call more of a paced delta's twenty, and one for each delta of a burst
        # that comes as so many chunks. What is no body of this answer is kept from it by ending the parser (`_stop`).
        self.on_body = self._body.append
        self._parser = httptools.HttpResponseParser(self)
        self._has_parser = True
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._bare_bytes = 0
        self._coding = b""
        self._is_interim = False
        self._is_reading = True
        self._delimited = False
        self._keeps_alive = False
        self._inflater: zlib._Decompress | None = None
        self._failure: Broken | None = None
        self._take: Take | None = None
        self._take_error: Exception | None = None
        self._transport.write(wire)

    def send(self, body: bytes) -> None:
        """Send the body that the request has announced."""
        assert self._transport is not None  # noqa: S101 - for the type checker: it was made
        self._transport.write(body)

    async def head(self) -> None:
        """Wait for the head of the answer. Raises `Broken`."""
        while self.stage is ASKED:
            await self._wait()
        if self._failure is not None:
            self._raise_failure()

    async def pour(self, take: Take) -> None:
        """Hand what comes to `take`, read by read, until it has enough (it returns True) or the body has ended.

        `take` runs inside the turn of the loop in which the bytes came. Raises `Broken`, and whatever `take` raises.
        """
        if self._inflater is not None:
            while piece := await self.read():
                if take(piece):
                    return
            return
        self._take = take
        if self._held:
            self._flow()
        while self._take is not None and self.stage is BODY:
            self._read_on()
            await self._wait()
        enough, self._take = self._take is None, None
        if self._take_error is not None:
            try:
                raise self._take_error
            finally:
                # Its traceback holds the frames of the call, which hold this connection.
                self._take_error = None
        if not enough:
            self._raise_failure()

    async def read(self) -> bytes:
        """What has come, at most `READ_BYTES` of it, waiting for the first of them; b"" at the end. Raises `Broken`."""
        if self._inflater is not None:
            # A few bytes may become many pieces: others have their turn between them.
            await asyncio.sleep(0)
        elif self._held:
            piece = self._held.pop(0)
            self._held_bytes -= len(piece)
            return piece
        while not (piece := self._next()):
            self._raise_failure()
            if self.stage is not BODY or self._is_unpacked():
                return b""
            self._read_on()
            await self._wait()
        return piece

    def at_end(self) -> bool:
        """Whether the body has come in whole and was read."""
        return (self.stage is WHOLE or self._is_unpacked()) and not self._held

    def close(self) -> None:
        """Let go: it serves again if its answer was read to the end, and is closed if not. Idempotent."""
        if self.stage is WHOLE and not self._held and self._keeps_alive:
            self.stage = IDLE
            self.idle_s = monotonic()
            if not self._is_reading:
                self._read_on()
            self._part(self)
        elif self.stage is not IDLE:
            self.abort()

    def abort(self) -> None:
        """End the connection at once, whatever lies in its buffers. Idempotent."""
        if self.stage is not LOST:
            self._lose("closed by us")
            if self._transport is not None:
                self._transport.abort()

    def is_usable(self) -> bool:
        """Whether an idle connection may serve: it is open, and nothing has come that nobody asked for.

        What lies unread in the kernel counts: the loop may not have had its turn since it came.
        """
        if self.stage is not IDLE or self._transport is None or self._transport.is_closing():
            return False
        if self._peeked is None:
            return True
        # A byte that nobody asked for, or an end. To peek and be refused is an exception, a hundredth of a small call.
        return not self._unread.poll(0)

    # What the loop does

    def get_buffer(self, _: int) -> memoryview:
        return _READ

    def buffer_updated(self, size: int) -> None:
        """Parse what was read, and hand on what it holds of a body."""
        if self.stage is IDLE or self.stage is LOST:
            self.abort()
            return
        self.is_silent = False
        self._bare_bytes += size
        try:
            self._parser.feed_data(_READ[:size])
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._unparsed(size, error)
        if body := self._body:
            self._bare_bytes = 0
            wire = body[0] if len(body) == 1 else b"".join(body)
            body.clear()
            if self._take is None:
                self._hold(wire)
            else:
                try:
                    if self._take(wire):
                        self._take = None
                except Exception as error:  # noqa: BLE001 - it belongs to the call that waits, not to the loop
                    self._take, self._take_error = None, error
        elif self._bare_bytes > HEAD_BYTES and self.stage is not WHOLE:
            self._fail(f"more than {HEAD_BYTES} bytes of a head, or between two pieces of a body")
        if self._take is None or self.stage is not BODY:
            self._wake()

    def eof_received(self) -> None:
        """The upstream says no more: the transport is closed, and `connection_lost` tells."""

    def connection_lost(self, error: Exception | None) -> None:
        """An answer that ends with its connection is whole now; any other is broken off."""
        if self.stage is BODY and not self._delimited and error is None:
            self.stage = WHOLE
            self._wake()
        elif self.stage in (ASKED, BODY):
            self._fail("connection closed" if error is None else type(error).__name__)
            self._wake()
        elif self.stage is WHOLE:
            self._keeps_alive = False
        elif self.stage is IDLE:
            self._lose("connection closed")
        self._transport = None

    def pause_writing(self) -> None:
        """A request is bounded, and its call waits for the answer anyhow."""

    def resume_writing(self) -> None:
        """See `pause_writing`."""

    # What the parser finds

    def on_message_begin(self) -> None:
        if self.stage is WHOLE:
            self._stop("a second answer that nobody asked for")

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.stage is not ASKED:
            return  # a trailer
        match name.lower():
            case b"content-type":
                self.content_type = _media_type(value)
            case b"retry-after":
                self.retry_after = value.strip().decode("latin-1")
            case b"content-length" | b"transfer-encoding":
                self._delimited = True
            case b"content-encoding":
                self._coding = value.strip().lower()

    def on_headers_complete(self) -> None:
        if self.stage is not ASKED:
            return
        self.status = self._parser.get_status_code()
        self._is_interim = self.status < _INTERIM
        if self._is_interim:
            return
        self.stage = BODY
        self._bare_bytes = 0
        if self._coding not in (b"", b"identity"):
            self._encoded(self._coding)

    def on_message_complete(self) -> None:
        if self._is_interim:
            # What it said of itself is not said of the answer.
            self._is_interim = self._delimited = False
            self.content_type, self.retry_after, self._coding = "", None, b""
        elif self.stage is BODY:
            self.stage = WHOLE
            self._keeps_alive = self._parser.should_keep_alive()

    # Parts

    def _is_unpacked(self) -> bool:
        """Whether a packed body has come to its end, whatever follows it."""
        return self._inflater is not None and self._inflater.eof

    def _unparsed(self, size: int, error: Exception) -> None:
        """The parser has stopped in what was read."""
        if self.stage is WHOLE:
            # Behind a whole answer, whatever it is: the next call has another connection.
            self._keeps_alive = False
        elif isinstance(error, httptools.HttpParserUpgrade):
            self._fail("an upgrade nobody asked for")
        else:
            is_first = self.stage is ASKED and self._bare_bytes == size
            tls = is_first and is_tls(bytes(_READ[:size]))
            self._fail(str(SPEAKS_TLS) if tls else f"no HTTP, {type(error).__name__}")

    def _encoded(self, coding: bytes) -> None:
        """Identity was asked for. What is gzip all the same is inflated piece by piece; anything else is unreadable."""
        if coding in (b"gzip", b"x-gzip"):
            self._inflater = zlib.decompressobj(_GZIP)
        else:
            self._fail("a content coding nobody asked for")
            self._stop("a content coding nobody asked for")

    def _stop(self, detail: str) -> NoReturn:
        """End the parser, from within: nothing that follows is of the answer. See `_unparsed`."""
        raise Broken(detail)

    def _hold(self, wire: bytes) -> None:
        """Keep what has come of the body until somebody wants it."""
        if self._inflater is not None and self._inflater.eof:
            self._keeps_alive = False  # bytes behind the end of what was packed
            return
        self._held.append(wire)
        self._held_bytes += len(wire)
        if self._held_bytes > HELD_BYTES and self._is_reading and self._transport is not None:
            self._is_reading = False
            self._transport.pause_reading()

    def _flow(self) -> None:
        """Hand on what is held, for as long as it is wanted."""
        try:
            while self._take is not None and (piece := self._next()):
                if self._take(piece):
                    self._take = None
        except Exception as error:  # noqa: BLE001 - as above
            self._take, self._take_error = None, error

    def _next(self) -> bytes:
        """The next piece of what is held, inflated where it must be; b"" where there is none yet."""
        while self._held:
            wire = self._held[0]
            if self._inflater is None:
                self._drop_first()
                return wire
            try:
                piece = self._inflater.decompress(wire, READ_BYTES)
            except zlib.error:
                self._held.clear()
                self._fail("a body that is no gzip")
                return b""
            if self._inflater.eof:
                self._held.clear()
                self._held_bytes = 0
            elif rest := self._inflater.unconsumed_tail:
                self._held_bytes += len(rest) - len(wire)
                self._held[0] = rest
            else:
                self._drop_first()
            if piece:
                return piece
        return b""

    def _drop_first(self) -> None:
        self._held_bytes -= len(self._held.pop(0))

    def _read_on(self) -> None:
        if not self._is_reading and self._transport is not None and not self._transport.is_closing():
            self._is_reading = True
            self._transport.resume_reading()

    def _fail(self, detail: str) -> None:
        """End the answer as failed; what came of it is still read."""
        if self._failure is None:
            self._failure = Broken(detail)
        self._lose(detail)
        if self._transport is not None:
            self._transport.abort()

    def _lose(self, detail: str) -> None:
        if self.stage is not LOST:
            if self.stage is not IDLE and self._failure is None:
                self._failure = Broken(detail)
            self.stage = LOST
            self._part(self)
            # Parser and connection refer to each other: only the garbage collector would free that cycle.
            self._loop.call_soon(self._let_go)

    def _let_go(self) -> None:
        self._peeked = None
        if self._has_parser:
            del self._parser

    def _raise_failure(self) -> None:
        """Raise the failure, once all that came before it was read."""
        if self._held:
            return
        if self._failure is not None:
            try:
                raise self._failure
            finally:
                self._failure = Broken(self._failure.detail)
        if self._inflater is not None and self.stage is WHOLE and not self._inflater.eof:
            raise Broken("a body that is no whole gzip")

    async def _wait(self) -> None:
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


@functools.lru_cache(maxsize=16)
def _media_type(value: bytes) -> str:
    """A content type without its parameters; an upstream says two of them."""
    return value.partition(b";")[0].strip().decode("latin-1").lower()
