"""A request's body into the caller's bytes: whole, inflated in steps, and paid for while its call holds it.

aiohttp would inflate whatever arrives, whether or not anyone wants it; here nothing is inflated before key and headers
were looked at and the body is there, and never more than the limit and one step. Source: spec HTTP-11, REQ-11.
"""

from __future__ import annotations

import asyncio
import zlib
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Final, NamedTuple, Protocol, Self

import aiohttp
from aiohttp import hdrs, web

from proxy.downstream.sinks import CallerGone
from translators import faults

PLAIN: Final = "identity"
ENCODINGS: Final = frozenset({PLAIN, "gzip", "x-gzip"})
# zlib's number for "a gzip member: its head, its check sum, its length".
GZIP_WBITS: Final = 31
# So much is inflated before the loop has its turn: about half a millisecond of an ordinary text.
STEP_BYTES: Final = 256 << 10
# What zlib has not used of a piece it copies at every step: small pieces keep that small.
PIECE_BYTES: Final = 16 << 10
# Compressors write one member, or one for each of some large blocks; empty ones cost as much as full ones.
MOST_MEMBERS: Final = 64
# A body that unpacks to more waits until no other large one is being unpacked and read.
LARGE_BYTES: Final = 256 << 10
# So many times what was sent a written text may become, and any picture: beyond it a body is made to become much.
PLAIN_RATIO: Final = 16
# Other calls end in moments.
RETRY_S: Final = "1"
# How a picture begins that comes along in a body of JSON; some writers escape a slash, and whoever writes `data\u003a`
# gives it up to be longer than a text.
PICTURES: Final = (b"data:image/", b"data:image\\/")


class Limits(NamedTuple):
    """How long a body may be (spec REQ-11).

    body_bytes:  in bytes, unpacked
    image_bytes: as much more where a picture comes along: what stands before the first one is never longer
    """

    body_bytes: int
    image_bytes: int = 0

    @property
    def most_bytes(self) -> int:
        """The longest body that is read."""
        return self.body_bytes + self.image_bytes

    def adding_to(self, body: bytearray) -> Callable[[bytes], None]:
        """What adds a piece to a body, and refuses one that comes too much."""
        if not self.image_bytes:
            return body.extend

        def add(chunk: bytes) -> None:
            before_bytes = len(body)
            body.extend(chunk)
            self.check(body, before_bytes)

        return add

    def check(self, body: bytearray, before_bytes: int) -> None:
        """Refuse a body that has just become longer than one without pictures may be, and shows none."""
        if before_bytes <= self.body_bytes < len(body) and not any(mark in body for mark in PICTURES):
            raise faults.Refusal(faults.BODY_TOO_LARGE)


class Inflating(Protocol):
    """What `zlib.decompressobj` gives, whose type has no public name."""

    @property
    def eof(self) -> bool:
        """Whether the end of the member, its check sum and its length have been seen."""
        ...

    @property
    def unconsumed_tail(self) -> bytes:
        """What was not taken because the step was full."""
        ...

    @property
    def unused_data(self) -> bytes:
        """What came behind the end of the member."""
        ...

    def decompress(self, data: bytes | bytearray, max_length: int, /) -> bytes:
        """The next bytes, so many at most."""
        ...


class OpenBodies:
    """How many bytes the bodies of all open calls hold, unpacked, of how many that may be.

    most_bytes:    spec REQ-11, `max_open_bytes`
    most_grown:    bytes that packed bodies together may have become beyond `PLAIN_RATIO` times what was sent, so that
                   several of them cost no more than one; one alone may become what a body may be
    turns:         of large packed bodies one is unpacked and read at a time, who comes first first
    """

    __slots__ = ("grown_bytes", "held_bytes", "most_bytes", "most_grown", "turns")

    def __init__(self, most_bytes: int, most_grown: int) -> None:
        self.most_bytes = most_bytes
        self.most_grown = most_grown
        self.turns = asyncio.Lock()
        self.held_bytes = 0
        self.grown_bytes = 0

    def hold(self) -> HeldBody:
        """The share of one call, to be given back with the end of its context."""
        return HeldBody(self)


class HeldBody:
    """The share of one call in `OpenBodies`.

    has_turn: whether others wait for it to be unpacked and read
    """

    __slots__ = ("_all", "_bytes", "_grown_bytes", "_packed_bytes", "has_turn")

    def __init__(self, open_bodies: OpenBodies) -> None:
        self._all = open_bodies
        self._bytes = 0
        self._grown_bytes = 0
        self._packed_bytes: int | None = None
        self.has_turn = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.give_back()

    def give_back(self) -> None:
        """The call has ended. Idempotent."""
        if self.has_turn:
            self.end_turn()
        self._all.held_bytes -= self._bytes
        self._all.grown_bytes -= self._grown_bytes
        self._bytes = self._grown_bytes = 0

    async def take_turn(self) -> None:
        """Wait until no other large body is being unpacked or read."""
        if not self.has_turn:
            await self._all.turns.acquire()
            self.has_turn = True

    def end_turn(self) -> None:
        """The body is read. Idempotent."""
        if self.has_turn:
            self.has_turn = False
            self._all.turns.release()

    def take(self, size_bytes: int) -> None:
        """Hold so many more, or fewer; raises `Refusal` where all calls together would hold too many."""
        if self._all.held_bytes + size_bytes > self._all.most_bytes:
            raise faults.Refusal(faults.OVERLOADED.after(RETRY_S), "over max_open_bytes")
        self._all.held_bytes += size_bytes
        self._bytes += size_bytes

    def came_packed(self, packed_bytes: int) -> None:
        """The body is packed, and so large."""
        self._packed_bytes = packed_bytes

    def built(self, size_bytes: int) -> None:
        """What has been made of a body that came packed is so much by now."""
        if self._packed_bytes is not None:
            # Those that wait for their turn have not grown.
            grown = max(0, size_bytes - max(PLAIN_RATIO * self._packed_bytes, LARGE_BYTES))
            self._all.grown_bytes += grown - self._grown_bytes
            self._grown_bytes = grown

    def grow(self, size_bytes: int) -> None:
        """A body that came packed is so much by now; raises `Refusal` where those of others are vast as well."""
        self.built(size_bytes)
        if self._all.most_grown < self._all.grown_bytes != self._grown_bytes > 0:
            raise faults.Refusal(faults.OVERLOADED.after(RETRY_S), "packed bodies become too much together")


async def read(
    request: web.Request, held: HeldBody, limits: Limits, received: Callable[[], None] | None = None
) -> bytearray:
    """The body of a request, inflated, within its limits of size and that of all calls.

    received: called once all of it has come, as it was sent

    Raises `Refusal`, or `CallerGone`.
    """
    encoding = PLAIN
    if hdrs.CONTENT_ENCODING in request.headers:
        encoding = ",".join(request.headers.getall(hdrs.CONTENT_ENCODING)).strip().lower()
        if encoding not in ENCODINGS:
            raise faults.Refusal(faults.BODY_INVALID, "neither plain nor gzip")
    body = bytearray()
    if encoding == PLAIN:
        if not _is_there(request, held, limits, body):
            await _receive(request, held, limits.most_bytes, limits.adding_to(body))
        if received is not None:
            received()
        return body
    # In pieces, each of which is let go of once it is inflated.
    packed: deque[bytearray] = deque((body,))

    def keep(chunk: bytes) -> None:
        if len(packed[-1]) < PIECE_BYTES:
            packed[-1].extend(chunk)
        else:
            packed.append(bytearray(chunk))

    await _receive(request, held, limits.most_bytes, keep)
    if received is not None:
        received()
    return await _inflated(packed, limits, held)


def _is_there(request: web.Request, held: HeldBody, limits: Limits, body: bytearray) -> bool:
    """Take a body that has come whole, as nearly every one with its head: to wait for nothing takes eleven calls."""
    content = request.content
    if not content.is_eof() or content.total_bytes > limits.body_bytes:
        return False
    try:
        body += content.read_nowait()
    except ConnectionError:
        raise CallerGone from None
    held.take(len(body))
    return True


async def _receive(request: web.Request, held: HeldBody, most_bytes: int, keep: Callable[[bytes], None]) -> None:
    """Keep what arrives, as it arrives, until all of it is there."""
    if (request.content_length or 0) > most_bytes:
        raise faults.Refusal(faults.BODY_TOO_LARGE)
    received_bytes, content = 0, request.content
    try:
        while chunk := await content.readany():
            received_bytes += len(chunk)
            if received_bytes > most_bytes:
                raise faults.Refusal(faults.BODY_TOO_LARGE)
            held.take(len(chunk))
            keep(chunk)
            if content.at_eof():
                return  # one more look costs three calls
    except ConnectionError:
        # So it is told where the handler is not cancelled for it.
        raise CallerGone from None
    except (aiohttp.ClientError, web.RequestPayloadError, aiohttp.http_exceptions.HttpProcessingError) as error:
        raise faults.Refusal(faults.BODY_INVALID, f"unreadable body ({type(error).__name__})") from None


async def _inflated(packed: deque[bytearray], limits: Limits, held: HeldBody) -> bytearray:
    """The members of a gzip body, one after the other, each to the end of its check sum and length."""
    body = bytearray()
    held.came_packed(sum(map(len, packed)))
    member, members = zlib.decompressobj(GZIP_WBITS), 1
    try:
        while packed:
            piece = packed[0]
            for start in range(0, len(piece), PIECE_BYTES):
                rest: bytes | bytearray = piece[start : start + PIECE_BYTES]
                while rest:
                    if member.eof:
                        members += 1
                        member = zlib.decompressobj(GZIP_WBITS)
                    if members > MOST_MEMBERS:
                        raise faults.Refusal(faults.BODY_INVALID, "gzip of too many members")
                    await _step(member, rest, body, limits, held)
                    held.grow(len(body))
                    rest = member.unused_data if member.eof else member.unconsumed_tail
            held.take(-len(packed.popleft()))
        # It has taken all that came, and may not have given all of that.
        while not member.eof and await _step(member, b"", body, limits, held):
            held.grow(len(body))
    except zlib.error:
        raise faults.Refusal(faults.BODY_INVALID, "broken gzip") from None
    if not member.eof:
        raise faults.Refusal(faults.BODY_INVALID, "gzip that was cut short")
    return body


async def _step(member: Inflating, packed: bytes | bytearray, body: bytearray, limits: Limits, held: HeldBody) -> int:
    """Inflate no more than a step of it, and let the loop go on; returns how much that was, in bytes."""
    # Those that wait hold a step each.
    if len(body) >= LARGE_BYTES:
        await held.take_turn()
    more = member.decompress(packed, STEP_BYTES)
    before_bytes = len(body)
    if before_bytes + len(more) > limits.most_bytes:
        raise faults.Refusal(faults.BODY_TOO_LARGE)
    held.take(len(more))
    body += more
    limits.check(body, before_bytes)
    if len(more) == STEP_BYTES:
        await asyncio.sleep(0)
    return len(more)
