"""Where a pipe's bytes go: to the caller as packets while they come, or as one reply at the end."""

from __future__ import annotations

import asyncio
from typing import Protocol

import aiohttp
from aiohttp import web

from translators.pipe import Pipe
from translators.tongue import Tongue

# What a handler gives back to the server: opaque to the way of a call.
Response = web.StreamResponse


class CallerGone(Exception):  # noqa: N818 - named for what happened
    """The caller has left in the middle: aiohttp tells it by a failed write, or by cancelling the handler."""


class PacketSink:
    """The caller's stream: its head is held until there is something to say, or until it has been held too long.

    first_s, last_s: loop time of the first and the newest packet, None before there is one
    bytes:           of frames, heartbeats apart
    """

    left = False
    __slots__ = (
        "_beat",
        "_heartbeat_s",
        "_loop",
        "_opening",
        "_pipe",
        "_request",
        "_said",
        "_task",
        "_tongue",
        "bytes",
        "first_s",
        "last_s",
        "response",
    )

    def __init__(self, request: web.Request, tongue: Tongue, pipe: Pipe, *, hold_s: float, heartbeat_s: float) -> None:
        self._request = request
        self._tongue = tongue
        self._pipe = pipe
        self._heartbeat_s = heartbeat_s
        self._loop = asyncio.get_running_loop()
        self._opening = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        self._beat: asyncio.TimerHandle | None = self._loop.call_later(hold_s, self._due)
        self._said = 0
        self.response: web.StreamResponse | None = None
        self.first_s: float | None = None
        self.last_s: float | None = None
        self.bytes = 0

    async def write(self, frames: bytes) -> None:
        """Send whole frames, the head before the first of them."""
        response = self.response or await self.opened()
        self.last_s = self._loop.time()
        if self.first_s is None:
            self.first_s = self.last_s
        self.bytes += len(frames)
        try:
            await response.write(frames)
        except ConnectionError:
            raise CallerGone from None
        except asyncio.CancelledError:
            # A caller who stalled, or left while the buffer was full: the frames had been handed over before.
            self._pipe.hand_over()
            raise
        except aiohttp.ClientConnectionError:
            # So it is told where the handler is not cancelled for it.
            self._pipe.hand_over()
            raise CallerGone from None
        self._pipe.hand_over()

    def hold(self) -> None:
        """See `Sink`."""

    async def close(self) -> None:
        """End the body; once is enough."""
        self.stop()
        response = self.response or await self.opened()
        try:
            await response.write_eof()
        except (ConnectionError, aiohttp.ClientConnectionError):
            raise CallerGone from None

    def stop(self) -> None:
        """No heartbeat any more."""
        if self._beat is not None:
            self._beat.cancel()
            self._beat = None
        if self._task is not None:
            self._task.cancel()

    async def opened(self) -> web.StreamResponse:
        """The response, its head out."""
        async with self._opening:
            if self.response is None:
                response = web.StreamResponse(headers=self._tongue.STREAM_HEADERS)
                try:
                    await response.prepare(self._request)
                except ConnectionError:
                    raise CallerGone from None
                self.response = response
            return self.response

    def _due(self) -> None:
        # A stream that has spoken since needs no other sign of life; nor does a caller who has not read the last one.
        if self.bytes == self._said and (self._task is None or self._task.done()):
            self._task = self._loop.create_task(self._breathe())
        self._said = self.bytes
        self._beat = self._loop.call_later(self._heartbeat_s, self._due)

    async def _breathe(self) -> None:
        """Show that we are alive: the head, or a heartbeat once it is out."""
        try:
            if self.response is None:
                self._pipe.open()
                await self.opened()
            else:
                await self.response.write(self._tongue.HEARTBEAT)
        except (ConnectionError, CallerGone):
            pass  # the caller has left; the handler is being told on its own


class ReplySink:
    """The caller's reply, which leaves in one piece at the end: what a pipe says is kept until then."""

    left = False
    __slots__ = ("_body", "_pipe", "_request", "bytes", "response", "sent_s")

    def __init__(self, request: web.Request, pipe: Pipe) -> None:
        self._request = request
        self._pipe = pipe
        self._body = b""
        self.bytes = 0
        self.sent_s: float | None = None
        self.response = web.Response(content_type="application/json")

    async def write(self, frames: bytes) -> None:
        """Keep a part of the reply."""
        self._body += frames

    def hold(self) -> None:
        """See `Sink`."""

    def stop(self) -> None:
        """See `Sink`."""

    async def close(self) -> None:
        """Send the reply, here and not by aiohttp: it, too, may meet a caller who does not read."""
        self.response.body = self._body
        try:
            await self.response.prepare(self._request)
            await self.response.write_eof()
        except asyncio.CancelledError:
            # A caller who stalled, or left while the buffer was full: the reply had been handed over before.
            self._pipe.hand_over()
            raise
        except (ConnectionError, aiohttp.ClientConnectionError):
            raise CallerGone from None
        self.sent_s, self.bytes = asyncio.get_running_loop().time(), len(self._body)
        self._pipe.hand_over()


class Sink(Protocol):
    """Where a pipe's bytes go: to the caller as they come, or into a reply.

    left: whether the caller has left and upstream is read on all the same
    """

    left: bool

    async def write(self, frames: bytes) -> None:
        """Take whole frames, or the whole reply."""

    def hold(self) -> None:
        """Tokens have come that are not shown yet."""

    async def close(self) -> None:
        """No more will come."""

    def stop(self) -> None:
        """No heartbeat any more."""
