"""Taps at the two doors: they hand on all that passes, and keep what it was; put in by `--inspect`, else not there.

At the caller's door they stand for a `Request` and for the sink it makes; at upstream's for the upstreams and for each
`Response`. Nothing on the way of a call asks whether they are there.
"""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from typing import Any, TypeVar, cast

from aiohttp import typedefs, web

from proxy.admission import authentication
from proxy.downstream import surface
from proxy.downstream.body import HeldBody
from proxy.downstream.request import Request
from proxy.downstream.request_ids import request_id
from proxy.downstream.sinks import PacketSink, ReplySink
from proxy.downstream.strays import Strays
from proxy.inspector.key_mask import masked_headers, masked_text
from proxy.inspector.recent_calls import CURRENT, RecentCalls
from proxy.inspector.recorded import RecordedCall, UpstreamCall
from proxy.metering.journal import Record
from proxy.upstream.client import Post
from proxy.upstream.response import Response, UpstreamFailure
from translators.pipe import Pipe
from translators.tongue import Tongue

Keep = Callable[[Record], None]
Upstreams = TypeVar("Upstreams")


class TappedRequest(Request):
    """A caller's request that is kept, with its body and with what leaves as its answer."""

    __slots__ = ("_calls", "_kept")

    def __init__(self, request: web.Request, tongue: Tongue, image_bytes: int, calls: RecentCalls) -> None:
        super().__init__(request, tongue, image_bytes)
        headers = masked_headers(request.headers.items())
        self._calls = calls
        self._kept = calls.begin(request.method, masked_text(request.path), tongue.API, self.id, headers)
        self._kept.mask.add(authentication.key_in(request.headers))
        CURRENT.set(self._kept)

    async def body(self, held: HeldBody, received: Callable[[], None] | None = None) -> bytearray:
        body = await super().body(held, received)
        self._kept.take_body(body)
        self._calls.changed(self._kept)
        return body

    def packets(
        self, pipe: Pipe, *, hold_s: float, heartbeat_s: float, on_first: Callable[[float], None]
    ) -> PacketSink:
        self._kept.streams = True
        sink = super().packets(pipe, hold_s=hold_s, heartbeat_s=heartbeat_s, on_first=on_first)
        return cast("PacketSink", TappedSink(sink, self._kept, self._calls))

    def reply(self, pipe: Pipe) -> ReplySink:
        return cast("ReplySink", TappedSink(super().reply(pipe), self._kept, self._calls))


class TappedSink:
    """A sink whose frames are kept as they are passed on; all else is the sink's."""

    __slots__ = ("_calls", "_kept", "_sink")

    def __init__(self, sink: PacketSink | ReplySink, kept: RecordedCall, calls: RecentCalls) -> None:
        self._sink = sink
        self._kept = kept
        self._calls = calls

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sink, name)

    def pass_on(self, frames: bytes) -> bool:
        """Keep frames, and pass them on."""
        self._kept.take_packet(frames)
        self._calls.changed(self._kept)
        return self._sink.pass_on(frames)


class TappedUpstreams:
    """The upstreams, whose calls and answers are kept; all else is theirs."""

    def __init__(self, upstreams: Any, calls: RecentCalls) -> None:
        self._upstreams = upstreams
        self._calls = calls

    def __getattr__(self, name: str) -> Any:
        return getattr(self._upstreams, name)

    async def post(self, *how: Any) -> Response:
        """Make one upstream call; the last that was written for it is the one that was answered.

        how: what the upstreams take: a `Post`, the list of attempts, and perhaps what writes another `Post`
        """
        kept = CURRENT.get()
        if kept is None:
            response: Response = await self._upstreams.post(*how)
            return response
        asked: list[UpstreamCall] = []

        def seen(given: Any) -> Any:
            if isinstance(given, Post):
                kept.mask.add(given.key)
                asked.append(kept.ask(given.path, given.body, given.known_as))
                self._calls.changed(kept)
            elif callable(given):
                return rewriting(given)
            return given

        def rewriting(write: Callable[..., Any]) -> Callable[..., Any]:
            async def written(*given: Any) -> Any:
                return seen(await write(*given))

            return written

        try:
            response = await self._upstreams.post(*map(seen, how))
        except UpstreamFailure as failure:
            asked[-1].failure, asked[-1].ended_ms = f"{failure.words} ({failure.detail})", kept.now_ms()
            self._calls.changed(kept)
            raise
        call = asked[-1]
        call.status, call.content_type, call.answered_ms = response.status, response.content_type, kept.now_ms()
        attempts = next(given for given in how if isinstance(given, list))
        call.target, call.pool = str(attempts[-1].target), attempts[-1].pool
        self._calls.changed(kept)
        return TappedResponse(response, kept, call, self._calls)


class TappedResponse:
    """An upstream's answer whose bytes are kept as they are read."""

    __slots__ = ("_call", "_calls", "_kept", "_response", "content_type", "retry_after", "status")

    def __init__(self, response: Response, kept: RecordedCall, call: UpstreamCall, calls: RecentCalls) -> None:
        self._response = response
        self._kept = kept
        self._call = call
        self._calls = calls
        self.status = response.status
        self.content_type = response.content_type
        self.retry_after = response.retry_after

    async def read(self) -> bytes:
        """See `Response`."""
        try:
            wire = await self._response.read()
        except UpstreamFailure as failure:
            self._end(f"{failure.words} ({failure.detail})")
            raise
        if wire:
            self._take(wire)
        return wire

    async def pour(self, take: Callable[[bytes], bool]) -> None:
        """See `Response`."""

        def tapped(wire: bytes) -> bool:
            self._take(wire)
            return take(wire)

        try:
            await self._response.pour(tapped)
        except UpstreamFailure as failure:
            self._end(f"{failure.words} ({failure.detail})")
            raise

    def at_end(self) -> bool:
        """See `Response`."""
        return self._response.at_end()

    def close(self) -> None:
        """See `Response`."""
        self._end("" if self._response.at_end() else "closed by us")
        self._response.close()

    def _take(self, wire: bytes) -> None:
        if not self._kept.is_forgotten:
            self._kept.take_read(self._call, wire)
            self._calls.changed(self._kept)

    def _end(self, failure: str) -> None:
        if self._call.ended_ms is None:
            self._call.failure, self._call.ended_ms = failure, self._kept.now_ms()
            self._calls.changed(self._kept)


class TappedStrays(Strays):
    """Requests that are no call: kept with what they may have meant."""

    def __init__(self, strays: Strays, calls: RecentCalls) -> None:
        self._strays = strays
        self._calls = calls

    def note(self, method: str, target: str, status: int, request_id: str, hint: str | None = None) -> None:
        self._strays.note(method, target, status, request_id, hint)
        path = masked_text(target.partition("?")[0])
        call = self._calls.begin(method, path, "", request_id, {})
        call.status, call.hint, call.ended_ms = status, hint or self._strays.guess(path) or "", 0.0
        if method:
            # Not what came before any request, such as a hello of TLS.
            CURRENT.set(call)


def _answers(calls: RecentCalls) -> typedefs.Middleware:
    """What keeps answers that are a failure and nothing else, outside of all that makes one."""

    @web.middleware
    async def answered(request: web.Request, handler: surface.Handler) -> web.StreamResponse:
        CURRENT.set(None)
        answer = await handler(request)
        if isinstance(answer, web.Response) and answer.status >= HTTPStatus.BAD_REQUEST:
            _keep_refusal(request, answer, calls)
        return answer

    return answered


def _keep_refusal(request: web.Request, answer: web.Response, calls: RecentCalls) -> None:
    kept = CURRENT.get()
    if kept is None:
        # Neither a call nor a stray: what callers ask beside their calls, and are refused.
        kept = calls.begin(request.method, masked_text(request.path), "", request_id(request), {})
        kept.status, kept.ended_ms = answer.status, 0.0
    if not kept.headers:
        kept.headers = masked_headers(request.headers.items())
        kept.mask.add(authentication.key_in(request.headers))
    if isinstance(answer.body, bytes) and not kept.packets:
        kept.take_refusal(answer.body)
    calls.changed(kept)


def upstreams(behind: Upstreams, calls: RecentCalls) -> Upstreams:
    """The upstreams, tapped."""
    return cast("Upstreams", TappedUpstreams(behind, calls))


def keep_of(keep: Keep, calls: RecentCalls) -> Keep:
    """What is told of every call that has ended, and tells it on."""

    def tapped(record: Record) -> None:
        if (call := CURRENT.get()) is not None:
            calls.end(call, record)
        keep(record)

    return tapped


def tap_refusals(app: web.Application, calls: RecentCalls) -> None:
    """Keep what is no call as well, and of all the answers that are failures."""
    app[surface.STRAYS] = TappedStrays(app[surface.STRAYS], calls)
    app.middlewares.insert(0, _answers(calls))
