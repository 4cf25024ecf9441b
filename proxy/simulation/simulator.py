"""An OpenAI-style call into the answer DeepSeek would give, or into any fault it could have, over real sockets.

`dashseek simulate` runs it, and it is the upstream of the tests. Raw streams instead of a web framework: whoever
writes a test decides about every write, every FIN and every RST.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import re
import signal
import socket
import struct
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from types import TracebackType
from typing import Literal, Self, TypedDict

import click
import orjson
from multidict import CIMultiDict

from proxy import vocabulary
from proxy.simulation import deepseek
from proxy.simulation.deepseek import Answer, Scale
from translators.tokens import Vocabulary

Json = deepseek.Json
Script = deepseek.Script
Ending = Literal["open", "done", "cut", "aborted"]
# A part of an answer's body, and the tokens generated once it is out.
Event = tuple[bytes, int]


@dataclass(slots=True)
class Seen:
    """One request and what became of it.

    path:       without the query
    raw:        its body as it came; `body` is that parsed, {} where it is no JSON object
    connection: the number of the connection that brought it, from 1
    received_s: when it was complete, on the monotonic clock
    events:     written so far
    prompt_tokens, completion_tokens: what has been generated so far, by its own count, whoever was told of it; before
                an answer's end delta by delta, and tool calls at its end alone
    ended:      open; done; cut by the script; aborted by the caller
    ended_s:    when it ended, on the same clock
    """

    method: str
    path: str
    headers: CIMultiDict[str]
    raw: bytes
    body: Json
    connection: int
    received_s: float = field(default_factory=time.monotonic)
    events: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    ended: Ending = "open"
    ended_s: float | None = None
    _over: asyncio.Event = field(default_factory=asyncio.Event, repr=False)

    async def over(self) -> Ending:
        """Wait for its end."""
        await self._over.wait()
        return self.ended

    def end(self, how: Ending) -> None:
        """Note how it ended; the first word counts."""
        if self.ended == "open":
            self.ended, self.ended_s = how, time.monotonic()
            self._over.set()


class Totals(TypedDict):
    """What a simulator has done so far, as `GET /tally` tells it.

    calls:     that have come; open: that have not ended; most_open: at the same time, ever
    prompt_tokens, completion_tokens: of all answers, as far as they were generated
    """

    calls: int
    open: int
    most_open: int
    prompt_tokens: int
    completion_tokens: int


# Thousands of callers may come at once; a refused connection is a fault nobody asked for.
_BACKLOG = 4_096


class Simulator:
    """The running upstream: `async with Simulator(…) as upstream`.

    script:     how it answers, or a function that says so from the request's body
    scripts:    answers of the next requests, one each, before `script` is asked
    vocabulary: what it counts and cuts by; otherwise one word is one token
    calls:      every request so far, in order of arrival
    open:       requests that have not ended; most_open: at the same time, ever

    A caller who can write nothing but messages chooses too, by a last user message `{"simulate": {"status": 429}}`.
    """

    def __init__(
        self,
        script: Script | Callable[[Json], Script] | None = None,
        *,
        vocabulary: Vocabulary | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        self.script = script or Script()
        self.scripts: deque[Script] = deque()
        self.calls: list[Seen] = []
        self.connections = 0
        self.open = 0
        self.most_open = 0
        self._scale = Scale(vocabulary)
        self._address = (host, port)
        self._tasks: set[asyncio.Task[None]] = set()
        self._failures: list[BaseException] = []
        self._news = asyncio.Event()

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Connection(self._accept), *self._address, backlog=_BACKLOG)
        self._address = self._server.sockets[0].getsockname()[:2]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()
        # A bug of the stand-in must not pass for a fault of the upstream.
        if self._failures:
            raise self._failures[0]

    @property
    def url(self) -> str:
        """The base to give to `--upstream`."""
        host, port = self._address
        return f"http://{host}:{port}"

    @property
    def tally(self) -> Totals:
        """What it has done so far."""
        return {
            "calls": len(self.calls),
            "open": self.open,
            "most_open": self.most_open,
            "prompt_tokens": sum(seen.prompt_tokens for seen in self.calls),
            "completion_tokens": sum(seen.completion_tokens for seen in self.calls),
        }

    @property
    def open_connections(self) -> int:
        """Connections that are not closed, busy or idle."""
        return len(self._tasks)

    async def call(self, number: int = 1) -> Seen:
        """Wait for the request of that number, from 1."""
        await self.until(lambda: len(self.calls) >= number)
        return self.calls[number - 1]

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait until something holds of requests, events and connections: `lambda: upstream.calls[0].events == 3`."""
        while not holds():
            self._news.clear()
            await self._news.wait()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> asyncio.Task[None]:
        self.connections += 1
        task = asyncio.create_task(self._converse(reader, writer, self.connections))
        self._tasks.add(task)
        task.add_done_callback(self._hang_up)
        return task

    def _hang_up(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._news.set()
        if not task.cancelled() and (failure := task.exception()):
            self._failures.append(failure)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, connection: int) -> None:
        """Answer the requests of one connection; a caller who leaves cancels this, wherever it stands."""
        idle_s: float | None = None
        seen: Seen | None = None
        try:
            while seen is None or seen.ended == "done":
                came = await asyncio.wait_for(_read(reader, connection), idle_s)
                if (came.method, came.path) == _TALLY:
                    await _Out(writer, Script(), came, self._news).say("application/json", orjson.dumps(self.tally))
                    continue
                seen = came
                self._begin(seen)
                script = self._next_script(seen.body)
                idle_s = script.keepalive_timeout_s
                self._end(seen, await self._answer(seen, script, writer))
            writer.close()
            await writer.wait_closed()
        except (TimeoutError, asyncio.CancelledError, asyncio.IncompleteReadError, ConnectionError):
            pass  # idle for too long, or left by the caller: both end here
        finally:
            writer.transport.abort()
            if seen is not None:
                self._end(seen, "aborted")

    def _begin(self, seen: Seen) -> None:
        self.calls.append(seen)
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        self._news.set()

    def _end(self, seen: Seen, how: Ending) -> None:
        self.open -= seen.ended == "open"
        seen.end(how)

    def _next_script(self, body: Json) -> Script:
        script = self.scripts.popleft() if self.scripts else self.script
        return script if isinstance(script, Script) else script(body)

    async def _answer(self, seen: Seen, script: Script, writer: asyncio.StreamWriter) -> Ending:
        try:
            script = deepseek.with_switches(script, deepseek.settings(seen.body))
        except ValueError as error:
            script = Script(status=400, error_text=str(error))
        out = _Out(writer, script, seen, self._news)
        if refusal := _refusal(seen, script):
            return await out.refuse(*refusal)
        if script.replay is not None:
            replay = script.replay if isinstance(script.replay, bytes) else script.replay.read_bytes()
            return await out.send(script.replay_content_type, ((frame, 0) for frame in _FRAME.findall(replay)))
        if fault := deepseek.fault(seen.body, beta=seen.path.startswith("/beta")):
            return await out.refuse(400, fault, script.error_shape)
        answer = deepseek.compose(seen.body, script, self._scale)
        if fault := deepseek.too_long(answer, seen.body, script):
            return await out.refuse(400, fault, script.error_shape)
        seen.prompt_tokens = answer.usage["prompt_tokens"]
        if not seen.body.get("stream"):
            return await out.send("application/json", _halves(deepseek.completion(answer, seen.body), script))
        chunks = deepseek.chunks(answer, seen.body, script, self._scale)
        return await out.send(
            "text/event-stream; charset=utf-8", _events(_counted(chunks, answer, self._scale), script)
        )


def run(script: Script, host: str, port: int) -> int:
    """Be the upstream until SIGINT or SIGTERM, then 0: `dashseek simulate`. OSError where it cannot listen."""
    return asyncio.run(_run(script, host, port))


_USE = """\
simulating DeepSeek on {url}
  dashseek serve --upstream {url}
  curl -N {url}/chat/completions -H 'Content-Type: application/json' \\
    -d '{{"model":"deepseek-flash","stream":true,"messages":[{{"role":"user","content":"Hello!"}}]}}'
one call asks for a fault by its last user message: {{"simulate": {{"status": 429}}}}
what it has generated so far: curl {url}/tally"""


async def _run(script: Script, host: str, port: int) -> int:
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ended.set)
    async with Simulator(script, vocabulary=vocabulary.load(), host=host, port=port) as upstream:
        click.echo(_USE.format(url=upstream.url))
        await ended.wait()
    return 0


class _Connection(asyncio.StreamReaderProtocol):
    """A connection whose task is cancelled the moment the caller leaves, by FIN or by RST."""

    def __init__(self, accept: Callable[[asyncio.StreamReader, asyncio.StreamWriter], asyncio.Task[None]]) -> None:
        def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self._conversation = accept(reader, writer)

        super().__init__(asyncio.StreamReader(), accepted)

    def eof_received(self) -> bool | None:
        self._conversation.cancel()
        return super().eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self._conversation.cancel()
        super().connection_lost(exc)


async def _read(reader: asyncio.StreamReader, connection: int) -> Seen:
    """The next request, its body by Content-Length; ConnectionError where it is not HTTP."""
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        request_line, *lines = head.removesuffix("\r\n\r\n").split("\r\n")
        method, target, _ = request_line.split(" ", 2)
        headers = CIMultiDict((name, value.strip()) for name, _, value in (line.partition(":") for line in lines))
        raw = await reader.readexactly(int(headers.get("Content-Length", 0)))
    except (ValueError, asyncio.LimitOverrunError) as error:
        raise ConnectionAbortedError("not an HTTP request") from error
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError:
        body = None
    return Seen(method, target.partition("?")[0], headers, raw, body if isinstance(body, dict) else {}, connection)


_TALLY = ("GET", "/tally")
_PATHS = frozenset(f"{base}/chat/completions" for base in ("", "/v1", "/beta"))


def _refusal(seen: Seen, script: Script) -> tuple[int, str | None, str] | None:
    """Status, words and shape of the answer to a request that is not even looked into."""
    scheme, _, key = seen.headers.get("Authorization", "").partition(" ")
    locked, shape = script.key is not None, script.error_shape
    rows = (
        ("Transfer-Encoding" in seen.headers, 411, "send a Content-Length", shape),
        (seen.path not in _PATHS, 404, "Not Found", shape),
        (seen.method != "POST", 405, "Method Not Allowed", shape),
        # Without a key, the gateway before DeepSeek answers, and not in JSON (upstream.md D.1).
        (locked and not scheme, 401, "Authentication Fails (governor)", "text"),
        (
            locked and scheme.lower() != "bearer",
            401,
            "Authentication Fails (auth header format should be Bearer sk-...)",
            shape,
        ),
        (locked and key != script.key, 401, f"Authentication Fails, Your api key: ****{key[-4:]} is invalid", shape),
        (script.status != HTTPStatus.OK, script.status, script.error_text, shape),
    )
    return next(((status, text, shape) for applies, status, text, shape in rows if applies), None)


# Some send a status that no standard names: 529 is overload.
_PHRASES: Mapping[int, str] = {status.value: status.phrase for status in HTTPStatus}
_NO_PHRASE = "Unnamed Status"

# DeepSeek's texts and types by status (upstream.md D.1).
_ERRORS: Mapping[int, tuple[str, str]] = {
    400: ("Invalid request", "invalid_request_error"),
    401: ("Authentication Fails (no such user)", "authentication_error"),
    402: ("Insufficient Balance", "unknown_error"),
    429: ("Rate limit reached for requests", "rate_limit_error"),
    500: ("Internal server error", "internal_error"),
    503: (
        "Service is too busy. We advise users to temporarily switch to alternative LLM API service providers.",
        "service_unavailable_error",
    ),
}


def _error(status: int, text: str, kind: str) -> Json:
    code = kind if status >= HTTPStatus.INTERNAL_SERVER_ERROR else "invalid_request_error"
    return {"error": {"message": text, "type": kind, "param": None, "code": code}}


# The bodies in which upstreams put an error (upstream.md D.1, D.2).
_SHAPES: Mapping[str, tuple[str, Callable[[int, str, str], bytes]]] = {
    "nested": ("application/json", lambda status, text, kind: orjson.dumps(_error(status, text, kind))),
    "flat": (
        "application/json",
        lambda status, text, kind: orjson.dumps(
            {"object": "error", "message": text, "type": kind, "param": None, "code": status}
        ),
    ),
    "detail": ("application/json", lambda _status, text, _kind: orjson.dumps({"detail": text})),
    "host": (
        "application/json",
        lambda status, text, _kind: orjson.dumps({"code": status, "message": text, "data": None}),
    ),
    "text": ("text/plain", lambda _status, text, _kind: text.encode()),
    "html": ("text/html", lambda _status, text, _kind: f"<html><body><h1>{text}</h1></body></html>".encode()),
}

# A frame of a replay with the blank line that ends it; what has none is one frame.
_FRAME = re.compile(rb".+?(?:\r?\n\r?\n|\Z)", re.DOTALL)


def _halves(completion: Json, script: Script) -> Iterator[Event]:
    body = b"\n" * script.blank_lines + orjson.dumps(completion)
    middle = len(body) // 2
    generated = completion["usage"]["completion_tokens"]
    yield from ((body[:middle], generated), (body[middle:], generated))


def _counted(chunks: Iterable[Json], answer: Answer, scale: Scale) -> Iterator[tuple[Json, int]]:
    """Each chunk, and the tokens that are generated once it is out."""
    generated, thinks = 0, answer.reasoning is not None
    for chunk in chunks:
        for choice in chunk["choices"]:
            thought, text = (choice["delta"].get(name) or "" for name in ("reasoning_content", "content"))
            # The token that ends a chain is one that no delta shows.
            generated += scale.count(thought) + scale.count(text) + (thinks and text != "")
            thinks = thinks and not text
            if choice["finish_reason"] is not None:
                generated = answer.usage["completion_tokens"]
        yield chunk, generated


def _events(chunks: Iterable[tuple[Json, int]], script: Script) -> Iterator[Event]:
    generated = 0
    for chunk, generated in chunks:
        yield _event(orjson.dumps(chunk)), generated
    if not script.no_done:
        yield _event(b"[DONE]"), generated


def _event(data: bytes) -> bytes:
    return b"data: %b\n\n" % data


class _Out:
    """The answer's way out: one body in chunks of HTTP, with every delay and break of the script."""

    def __init__(self, writer: asyncio.StreamWriter, script: Script, seen: Seen, news: asyncio.Event) -> None:
        self._writer = writer
        self._script = script
        self._seen = seen
        self._news = news
        self._comment = b""

    async def refuse(self, status: int, text: str | None, shape: str) -> Ending:
        """Answer with an error; without a text, in DeepSeek's words."""
        default, kind = _ERRORS.get(status, (_PHRASES.get(status, _NO_PHRASE), "invalid_request_error"))
        content_type, render = _SHAPES[shape]
        await asyncio.sleep(self._script.first_byte_delay_s)
        await self._head(status, content_type)
        await self._write(render(status, text or default, kind))
        return await self._end()

    async def say(self, content_type: str, body: bytes) -> None:
        """Answer with a body that no script touches."""
        await self._head(200, content_type)
        await self._write(body)
        await self._end()

    async def send(self, content_type: str, events: Iterable[Event]) -> Ending:
        """Answer with events, up to the place where the script breaks off."""
        script = self._script
        streams = content_type.startswith("text/event-stream")
        self._comment = b": keep-alive\n\n" if streams else b"\n"
        faults = {script.stall_after: self._stall, script.cut_after: self._cut}
        if streams:
            faults[script.error_event_after] = self._error_event
        if script.keep_alive_s is None:
            await asyncio.sleep(script.first_byte_delay_s)
            await self._head(200, content_type)
        else:
            await self._head(200, content_type)
            await self._wait(script.first_byte_delay_s)

        held: list[bytes] = []
        # The end is a place like any other: a fault may come there.
        for event, generated in itertools.chain(events, ((b"", 0),)):
            if event and len(held) == script.deltas_per_write:
                await self._write(b"".join(held))
                held.clear()
                await self._wait(script.gap_s)
            if fault := faults.get(self._seen.events):
                await self._write(b"".join(held))
                return await fault()
            held.append(event.replace(b"\n", b"\r\n") if script.crlf and script.replay is None else event)
            if event:
                self._seen.events += 1
                self._seen.completion_tokens = generated
            self._news.set()
        await self._write(b"".join(held))
        return await self._end()

    async def _head(self, status: int, content_type: str) -> None:
        lines = [
            f"HTTP/1.1 {status} {_PHRASES.get(status, _NO_PHRASE)}",
            f"Content-Type: {content_type}",
            "Transfer-Encoding: chunked",
            *([f"Retry-After: {self._script.retry_after}"] if self._script.retry_after else []),
        ]
        self._writer.write("\r\n".join([*lines, "", ""]).encode("latin-1"))
        await self._writer.drain()

    async def _write(self, data: bytes) -> None:
        size = self._script.split or len(data)
        for start in range(0, len(data), size or 1):
            piece = data[start : start + size]
            self._writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            await self._writer.drain()
            # An endless answer must not be all its loop does: the caller may live in it too.
            await asyncio.sleep(0)

    async def _wait(self, seconds: float) -> None:
        every_s = self._script.keep_alive_s
        while every_s is not None and seconds > every_s:
            await asyncio.sleep(every_s)
            await self._write(self._comment.replace(b"\n", b"\r\n") if self._script.crlf else self._comment)
            seconds -= every_s
        await asyncio.sleep(seconds)

    async def _end(self) -> Ending:
        self._writer.write(b"0\r\n\r\n")
        await self._writer.drain()
        return "done"

    async def _stall(self) -> Ending:
        await self._wait(math.inf)
        return "cut"

    async def _cut(self) -> Ending:
        if self._script.cut_by == "end":
            await self._end()
        if self._script.cut_by == "rst":
            # No lingering: closing then is a reset, not a FIN.
            connection: socket.socket = self._writer.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._writer.transport.abort()
        return "cut"

    async def _error_event(self) -> Ending:
        status = self._script.error_event_status
        text, kind = _ERRORS.get(status, (_PHRASES.get(status, _NO_PHRASE), "invalid_request_error"))
        error = {"message": self._script.error_text or text, "type": kind, "param": None, "code": status}
        await self._write(_event(orjson.dumps({"error": error})))
        if not self._script.no_done:
            await self._write(_event(b"[DONE]"))
        return await self._end()
