"""An OpenAI-style call into the answer DeepSeek would give, or into any fault it could have, over real sockets.

`dashseek simulate` runs it, and it is the upstream of the tests. Raw streams instead of a web framework: whoever
writes a test decides about every write, every FIN and every RST.
"""

from __future__ import annotations

import asyncio
import signal
from collections import deque
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import Self, TypedDict

import click
import orjson
from multidict import CIMultiDict

from proxy import vocabulary
from proxy.inspector import call_file, copies
from proxy.inspector.call_file import NoCallFile
from proxy.simulation import deepseek, refusals
from proxy.simulation.deepseek import Scale
from proxy.simulation.wire import _FRAME, Ending, Json, Script, Seen, _counted, _events, _halves, _Out
from translators.tokens import Vocabulary


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
    goes_on:    set; while it is cleared, answers wait after the first of several writes

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
        self.goes_on = asyncio.Event()
        self.goes_on.set()
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
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self._server.wait_closed()
        # A bug of the stand-in must not pass for a fault of the upstream.
        if self._failures:
            raise self._failures[0]

    @property
    def url(self) -> str:
        """The base to give to `--upstream`."""
        host, port = self._address
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

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
                    await _Out(writer, Script(), came, self._news, self.goes_on).say(
                        "application/json", orjson.dumps(self.tally)
                    )
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
        out = _Out(writer, script, seen, self._news, self.goes_on)
        if refusal := _refusal(seen, script):
            return await out.refuse(*refusal)
        if seen.path in _MODELS:
            await out.say("application/json", orjson.dumps(_LISTED))
            return "done"
        if script.replay is not None:
            replay = _replay(script)
            if call_file.is_one(replay):
                # Of a call that had several, each that is asked for is the next one.
                recorded = call_file.read(replay)["upstream"]
                return await out.play(recorded[(len(self.calls) - 1) % len(recorded)])
            return await out.send(script.replay_content_type, ((frame, 0) for frame in _FRAME.findall(replay)))
        if fault := refusals.fault(seen.body, beta=seen.path.startswith("/beta"), host=script.host):
            return await out.refuse(400, fault, script.error_shape)
        answer = deepseek.compose(seen.body, script, self._scale)
        if fault := refusals.too_long(answer, seen.body, script):
            return await out.refuse(400, fault, script.error_shape)
        seen.prompt_tokens = answer.usage["prompt_tokens"]
        if not seen.body.get("stream"):
            return await out.send("application/json", _halves(deepseek.completion(answer, seen.body), script))
        chunks = deepseek.chunks(answer, seen.body, script, self._scale)
        return await out.send(
            "text/event-stream; charset=utf-8", _events(_counted(chunks, answer, self._scale), script)
        )


def _replay(script: Script) -> bytes:
    given = script.replay
    return given.read_bytes() if isinstance(given, Path) else given or b""


def run(script: Script, host: str, port: int) -> int:
    """Be the upstream until SIGINT or SIGTERM, then 0: `dashseek simulate`.

    Raises OSError where it cannot listen, `NoCallFile` where what it is to play is an exported call and is none.
    """
    replay = _replay(script)
    if call_file.is_archive(replay):
        raise NoCallFile(call_file.ARCHIVE)
    if call_file.is_one(replay):
        recorded = call_file.read(replay)
        if not recorded["upstream"]:
            raise NoCallFile("that call never went upstream")
        if why := copies.why_not_whole(recorded):
            raise NoCallFile(why)
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

    def eof_received(self) -> None:
        self._conversation.cancel()

    def connection_lost(self, exc: Exception | None) -> None:
        self._conversation.cancel()
        super().connection_lost(exc)


async def _read(reader: asyncio.StreamReader, connection: int) -> Seen:
    """The next request, its body by Content-Length; ConnectionError where it is not HTTP."""
    try:
        # A TLS hello has no end that could be waited for.
        if (first := await reader.readexactly(1)) == TLS_HANDSHAKE:
            raise ConnectionAbortedError("a TLS hello")
        head = (first + await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        request_line, *lines = head.removesuffix("\r\n\r\n").split("\r\n")
        method, target, _ = request_line.split(" ")
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
_BASES = ("", "/v1", "/beta")
_PATHS = frozenset(f"{base}/chat/completions" for base in _BASES)
_MODELS = frozenset(f"{base}/models" for base in _BASES)
# As DeepSeek lists them; a call may name any.
_LISTED: Json = {
    "object": "list",
    "data": [{"id": name, "object": "model", "owned_by": "deepseek"} for name in ("deepseek-flash", "deepseek-v4-pro")],
}
# The type of the record that a TLS client begins with (RFC 8446, 5.1).
TLS_HANDSHAKE = b"\x16"


def _refusal(seen: Seen, script: Script) -> tuple[int, str | None, str] | None:
    """Status, words and shape of the answer to a request that is not even looked into."""
    scheme, _, key = seen.headers.get("Authorization", "").partition(" ")
    locked, shape = script.key is not None, script.error_shape
    rows = (
        ("Transfer-Encoding" in seen.headers, 411, "send a Content-Length", shape),
        (seen.path not in _PATHS | _MODELS, 404, "Not Found", shape),
        (seen.method != ("GET" if seen.path in _MODELS else "POST"), 405, "Method Not Allowed", shape),
        # Without a key, the gateway before DeepSeek answers, and not in JSON (SOURCES#deepseek-errors).
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
