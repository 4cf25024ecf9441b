"""Gateways that break one rule each: the real `serve`, with what it says changed on the way to the caller."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import aiohttp
import orjson
from aiohttp import web

from tests.conftest import Served

Json = dict[str, Any]
HOP = {"transfer-encoding", "content-length", "connection", "date", "server", "host", "accept-encoding"}


@dataclass(frozen=True, slots=True)
class Request:
    """A call on its way to `serve`."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def document(self) -> Json:
        """The body, {} where it is no object."""
        try:
            found = orjson.loads(self.body)
        except orjson.JSONDecodeError:
            return {}
        return found if isinstance(found, dict) else {}

    @property
    def parameters(self) -> Json:
        """Those of the call."""
        return self.document.get("parameters") or {}


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer on its way back; pieces: what is written at a time, `cut` whether it ends without its end."""

    status: int
    headers: Mapping[str, str]
    pieces: tuple[bytes, ...]

    @property
    def body(self) -> bytes:
        return b"".join(self.pieces)

    @property
    def streams(self) -> bool:
        return self.headers.get("Content-Type", "").startswith("text/event-stream")


Asking = Callable[[Request], Request]
Answering = Callable[[Request, Answer], Answer]


@dataclass(frozen=True, slots=True)
class Mutant:
    """One way to break a rule.

    caught: the check that is to find it
    asking: what becomes of a call before `serve` has it; answering: of its answer
    expects: whether `Expect: 100-continue` is let in
    """

    caught: str
    asking: Asking = lambda request: request
    answering: Answering = lambda request, answer: answer
    model: str = "deepseek-v3.2"
    expects: bool = True
    route: str | None = None


def frames(change: Callable[[list[bytes]], list[bytes]]) -> Answering:
    """Change the frames of every stream."""

    def answering(_: Request, answer: Answer) -> Answer:
        if not answer.streams:
            return answer
        return replace(answer, pieces=(b"".join(f + b"\n\n" for f in change(answer.body.split(b"\n\n")[:-1])),))

    return answering


def each(change: Callable[[Json, int, int], Json | None]) -> Answering:
    """Change the packet of every frame, told its number from 0 and how many there are."""

    def changed(listed: list[bytes]) -> list[bytes]:
        out = []
        for number, frame in enumerate(listed):
            head, _, data = frame.partition(b"data:")
            document = change(orjson.loads(data), number, len(listed))
            if document is not None:
                out.append(head + b"data:" + orjson.dumps(document))
        return out

    return frames(changed)


def replies(
    change: Callable[[Json, Request], object], *, where: Callable[[Request], bool] = lambda r: True
) -> Answering:
    """Change JSON answers of status 200."""

    def answering(request: Request, answer: Answer) -> Answer:
        if answer.streams or answer.status != 200 or not where(request):
            return answer
        document = orjson.loads(answer.body)
        given = change(document, request)
        return replace(answer, pieces=(orjson.dumps(document if given is None else given),))

    return answering


def errors(change: Callable[[Json], object], status: int | None = None) -> Answering:
    """Change JSON answers that are errors."""

    def answering(_: Request, answer: Answer) -> Answer:
        if answer.status < 400:
            return answer
        document = orjson.loads(answer.body)
        given = change(document)
        body = orjson.dumps(document if given is None else given)
        return replace(answer, status=status or answer.status, pieces=(body,))

    return answering


def header(name: str, value: str | None, *, stream: bool) -> Answering:
    """Set a header of streams, or of replies; None takes it away."""

    def answering(_: Request, answer: Answer) -> Answer:
        if answer.streams is not stream:
            return answer
        headers = {key: said for key, said in answer.headers.items() if key.lower() != name.lower()}
        return replace(answer, headers=headers if value is None else {**headers, name: value})

    return answering


def given(**changes: Any) -> Asking:
    """Change parameters that are there; None takes one away."""

    def asking(request: Request) -> Request:
        document, parameters = request.document, dict(request.parameters)
        if not document:
            return request
        for name, value in changes.items():
            if name in parameters:
                parameters[name] = value
        kept = {name: value for name, value in parameters.items() if value is not None}
        return replace(request, body=orjson.dumps({**document, "parameters": kept}))

    return asking


def without(name: str) -> Asking:
    """Take a header of the call away."""

    def asking(request: Request) -> Request:
        return replace(request, headers={k: v for k, v in request.headers.items() if k.lower() != name.lower()})

    return asking


def refusing(when: Callable[[Request], bool], status: int = 400) -> Answering:
    """Refuse some calls."""
    headers = {"Content-Type": "application/json", "Retry-After": "0"}
    body = b'{"code":"InvalidParameter","message":"m","request_id":"7574ee8f-38a3-4b1e-9280-11c33ab46e50"}'

    def answering(request: Request, answer: Answer) -> Answer:
        return Answer(status, headers, (body,)) if when(request) else answer

    return answering


@dataclass(slots=True)
class Gateway:
    """The server of a mutant: `async with Gateway(serve.url) as gateway`, and `gateway.mutant = …`."""

    upstream: str
    mutant: Mutant = field(default_factory=lambda: Mutant(""))
    url: str = ""
    _session: aiohttp.ClientSession = field(init=False)
    _runner: web.AppRunner = field(init=False)

    async def __aenter__(self) -> Gateway:
        self._session = aiohttp.ClientSession(auto_decompress=False, skip_auto_headers=("Accept-Encoding", "Accept"))
        application = web.Application()
        application.router.add_route("*", "/{path:.*}", self._answer, expect_handler=self._expect)
        self._runner = web.AppRunner(application)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()
        await self._session.close()

    async def _expect(self, request: web.Request) -> None:
        if not self.mutant.expects:
            raise web.HTTPExpectationFailed
        assert request.transport is not None
        request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        came = Request(request.method, request.path_qs, dict(request.headers), await request.read())
        asked = self.mutant.asking(came)
        # The server here has already inflated the body, and said that it may come.
        dropped = HOP | {"expect", "content-encoding"}
        sent = {name: value for name, value in asked.headers.items() if name.lower() not in dropped}
        async with self._session.request(
            asked.method, self.upstream + asked.path, headers=sent, data=asked.body or None
        ) as got:
            kept = {name: value for name, value in got.headers.items() if name.lower() not in HOP}
            answer = Answer(got.status, kept, (await got.read(),))
        answer = self.mutant.answering(came, answer)
        response = web.StreamResponse(status=answer.status, headers=answer.headers)
        if answer.headers.get("Connection") == "close" or request.version < aiohttp.HttpVersion11:
            response.force_close()
        await response.prepare(request)
        for piece in answer.pieces:
            await response.write(piece)
            await asyncio.sleep(0)
        await response.write_eof()
        return response


@contextlib.asynccontextmanager
async def before(upstream: str, directory: Path) -> AsyncIterator[Gateway]:
    """The real `serve` before an upstream, and the server of mutants before both, as long as the context lives."""
    served = Served(("--upstream", upstream, "--port", "0"), {}, directory)
    try:
        await asyncio.to_thread(served.wait_until_ready)
        async with Gateway(served.url) as gateway:
            yield gateway
    finally:
        await asyncio.to_thread(served.end)
