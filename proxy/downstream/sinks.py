"""Where a pipe's bytes go: to the caller as packets while they come, or as one reply at the end."""

from __future__ import annotations

import asyncio
import functools
import os
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import Final, Protocol

from aiohttp import web

from proxy.downstream import answer_head
from proxy.downstream.answer_head import KEPT, LAST, Head, Sent
from translators.pipe import Mark, Pipe, State
from translators.tongue import Tongue

# What a handler gives back to the server: opaque to the way of a call.
Response = web.StreamResponse | Sent

ENDED: Final = State.ENDED  # as a name of the module, as in `upstream.line`: one look of every delta
END_OF_CHUNKS = b"0\r\n\r\n"


class CallerGone(Exception):  # noqa: N818 - named for what happened
    """The caller has left in the middle: aiohttp tells it by cancelling the handler, or a write finds it."""


class Sink(Protocol):
    """Where a pipe's bytes go: to the caller as they come, or into a reply.

    left: whether the caller has left and upstream is read on all the same
    """

    left: bool

    def pass_on(self, frames: bytes) -> bool:
        """Take whole frames, or the whole reply, without waiting; whether the caller must be waited for now."""

    def redirect(self, pipe: Pipe) -> None:
        """The answer comes through another pipe, before a byte of it has come."""

    async def drained(self) -> None:
        """Wait until the caller has read enough for more to be passed on. Raises `CallerGone`."""

    def hold(self) -> None:
        """Tokens have come that are not shown yet."""

    async def close(self) -> None:
        """End the answer. Raises `CallerGone`."""

    def settle(self) -> None:
        """The connection is about to be cut: what still lies in our own write buffer was not handed over (MET-3)."""

    def stop(self) -> None:
        """Stop the heartbeat."""


class PacketSink:
    """The caller's stream: its head is held until there is something to say, or until it has been held too long.

    Frames go straight to the kernel, and what it does not take into the transport, under aiohttp's flow control: more
    is passed on once all of that has left. What lies there when a connection is torn down was not handed over; of
    frames that were written together, all were if a byte of them was (spec MET-3): whoever leaves has never read more.

    first_s, last_s: time on the monotonic clock of the first and the newest packet, None before there is one
    bytes:           of frames, heartbeats apart
    on_first:        told that time of the first one
    """

    left = False
    __slots__ = (
        "_beat",
        "_chunked",
        "_file",
        "_head",
        "_heartbeat_s",
        "_is_closed",
        "_is_open",
        "_keep_alive",
        "_loop",
        "_marks",
        "_pipe",
        "_quiet_at",
        "_request",
        "_tongue",
        "_transport",
        "_written",
        "bytes",
        "first_s",
        "last_s",
        "on_first",
    )

    def __init__(
        self,
        request: web.Request,
        transport: asyncio.Transport,
        tongue: Tongue,
        pipe: Pipe,
        head: Head,
        *,
        file: int | None,
        hold_s: float,
        heartbeat_s: float,
    ) -> None:
        self._request = request
        self._tongue = tongue
        self._pipe = pipe
        self._head = head
        self._heartbeat_s = heartbeat_s
        # Before Python 3.12 `get_running_loop` asks the kernel for the process.
        self._loop = request.task.get_loop()
        self._transport = transport
        # One read of upstream's at most lies here, and the end of it is told (`drained`).
        transport.set_write_buffer_limits(high=0)
        self._file = file
        self._beat: asyncio.TimerHandle | None = self._loop.call_later(hold_s, self._breathe)
        self._quiet_at = 0
        self._is_open = self._is_closed = self._chunked = self._keep_alive = False
        self._written = 0
        self._marks: deque[tuple[int, Mark]] = deque()
        self.first_s: float | None = None
        self.last_s: float | None = None
        self.on_first: Callable[[float], None] | None = None
        self.bytes = 0

    def pass_on(self, frames: bytes) -> bool:
        """Send whole frames, the head before the first of them, the end of the body behind the last."""
        wire = b"%x\r\n%b\r\n" % (len(frames), frames) if self._chunked else frames
        if not self._is_open:
            wire = self._opened(frames)
        if self._pipe.state is ENDED:  # in place, as is `_write` below: two calls of a paced delta's twenty-four
            self._is_closed = True
            if self._chunked:
                wire += END_OF_CHUNKS
        is_gone = _send(self._transport, self._file, wire)
        self._written += len(wire)
        self.bytes += len(frames)
        self.last_s = monotonic()
        if self.first_s is None:
            self.first_s = self.last_s
            if self.on_first is not None:
                self.on_first(self.last_s)
        if self._marks or not is_gone:
            self._marks.append((self._written - len(wire), self._pipe.mark()))
            self.settle()
            return True
        self._pipe.hand_over()
        return False

    def redirect(self, pipe: Pipe) -> None:
        """See `Sink`; the head may be out already."""
        self._pipe = pipe
        if self._is_open:
            pipe.open()

    async def drained(self) -> None:
        await _drained(self._request)
        self.settle()

    def hold(self) -> None:
        """See `Sink`."""

    async def close(self) -> None:
        """End the body; once is enough. A caller who reads it to the end has been handed all of it."""
        self.stop()
        if not self._is_closed:
            self._is_closed = True
            wire = b"" if self._is_open else self._opened(b"")
            self._write(wire + END_OF_CHUNKS if self._chunked else wire)
        await _drained(self._request)
        self._marks.clear()
        self._pipe.hand_over()

    def settle(self) -> None:
        """Take what has left our own write buffer as handed over (MET-3), what was begun with it."""
        left = self._written - self._transport.get_write_buffer_size()
        while self._marks and self._marks[0][0] < left:
            self._pipe.hand_over_to(self._marks.popleft()[1])

    def stop(self) -> None:
        """Stop the heartbeat."""
        if self._beat is not None:
            self._beat.cancel()
            self._beat = None

    @property
    def response(self) -> Sent:
        """What tells aiohttp that the answer is out."""
        return KEPT if self._keep_alive else LAST

    @property
    def is_open(self) -> bool:
        """Whether the head is out."""
        return self._is_open

    def _opened(self, frames: bytes) -> bytes:
        """The head, and the first frames behind it."""
        self._is_open = True
        head, self._keep_alive, self._chunked = self._head.rendered(_stream_lines(self._tongue))  # type: ignore[arg-type] # a module
        if not frames:
            return head
        return b"%b%x\r\n%b\r\n" % (head, len(frames), frames) if self._chunked else head + frames

    def _write(self, wire: bytes) -> None:
        _send(self._transport, self._file, wire)
        self._written += len(wire)

    def _breathe(self) -> None:
        """Send what tells caller and ingress that the call lives: the head, or a heartbeat once that is out.

        A stream that has spoken since needs no other sign of life; nor does a caller who has not read the last one. A
        pipe that is behind may be at work in a thread.
        """
        if self.bytes == self._quiet_at and not (self._marks or self._pipe.is_behind):
            try:
                if not self._is_open:
                    self._pipe.open()
                    self._write(self._opened(b""))
                elif not self._transport.get_write_buffer_size():
                    beat = self._tongue.HEARTBEAT
                    self._write(b"%x\r\n%b\r\n" % (len(beat), beat) if self._chunked else beat)
            except CallerGone:
                return  # the handler is being told on its own
        self._quiet_at = self.bytes
        self._beat = self._loop.call_later(self._heartbeat_s, self._breathe)


class ReplySink:
    """The caller's reply, which leaves in one piece at the end: what a pipe says is kept until then."""

    left = False
    __slots__ = (
        "_body",
        "_file",
        "_head",
        "_keep_alive",
        "_pipe",
        "_request",
        "_transport",
        "bytes",
        "is_open",
        "sent_s",
    )

    def __init__(
        self, request: web.Request, transport: asyncio.Transport, file: int | None, pipe: Pipe, head: Head
    ) -> None:
        self._request = request
        self._transport = transport
        self._file = file
        self._pipe = pipe
        self._head = head
        self._body = b""
        self._keep_alive = False
        self.is_open = False
        self.bytes = 0
        self.sent_s: float | None = None

    def pass_on(self, frames: bytes) -> bool:
        """Keep a part of the reply."""
        self._body += frames
        return False

    def redirect(self, pipe: Pipe) -> None:
        """See `Sink`."""
        self._pipe = pipe

    async def drained(self) -> None:
        """Nothing is written before the end."""

    def hold(self) -> None:
        """See `Sink`."""

    def settle(self) -> None:
        """A reply is one: it was handed over if all of it has left."""
        if self.is_open and not self._transport.get_write_buffer_size():
            self._pipe.hand_over()

    def stop(self) -> None:
        """See `Sink`."""

    async def close(self) -> None:
        """Send the reply, here and not by aiohttp: it, too, may meet a caller who does not read."""
        protocol, body = self._request.protocol, self._body
        head, self._keep_alive, _ = self._head.rendered(f"{answer_head.JSON}Content-Length: {len(body)}\r\n")
        _send(self._transport, self._file, head + body)
        self.is_open = True
        self.bytes = len(body)
        if protocol.writing_paused:
            await _drained(self._request)
        self.sent_s = monotonic()
        self._pipe.hand_over()

    @property
    def response(self) -> Sent:
        """What tells aiohttp that the answer is out."""
        return KEPT if self._keep_alive else LAST


@functools.lru_cache(maxsize=8)
def _stream_lines(tongue: Tongue) -> str:
    """What the head of a stream says in a tongue, of which there are three."""
    return answer_head.fields(tongue.STREAM_HEADERS)


def file_of(transport: asyncio.BaseTransport) -> int | None:
    """The descriptor that takes what is written as it is; None where TLS stands before it."""
    if transport.get_extra_info("sslcontext") is not None:
        return None
    file: int = transport.get_extra_info("socket").fileno()
    return file


def _send(transport: asyncio.Transport, file: int | None, wire: bytes) -> bool:
    """Hand bytes to the kernel now, and to the transport what it does not take. Raises `CallerGone`.

    Whether the kernel has taken them all.

    uvloop's transport keeps everything until the turn of the loop is over: what was handed over could not be told from
    what was not (spec MET-3). Past it, both loops know at once, and a paced delta costs a tenth less.
    """
    if transport.is_closing():
        raise CallerGone
    taken = 0
    if file is not None and not transport.get_write_buffer_size():
        try:
            taken = os.write(file, wire)
        except BlockingIOError:
            pass
        except OSError:
            raise CallerGone from None
    if taken == len(wire):
        return True
    transport.write(wire[taken:])
    return not transport.get_write_buffer_size()


async def _drained(request: web.Request) -> None:
    """Wait until the transport takes more."""
    if not request.protocol.writing_paused:
        return
    try:
        await request.writer.drain()
    except ConnectionError:
        raise CallerGone from None
