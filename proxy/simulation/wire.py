"""What a simulated upstream writes: heads, events and errors, each whole, in pieces or broken as the script says."""

from __future__ import annotations

import asyncio
import itertools
import math
import re
import socket
import struct
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Literal

import orjson
from multidict import CIMultiDict

from proxy.inspector import call_file
from proxy.simulation import deepseek
from proxy.simulation.deepseek import Answer, Scale
from translators import faults

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
    _over: asyncio.Event = field(default_factory=asyncio.Event)

    async def over(self) -> Ending:
        """Wait for its end."""
        await self._over.wait()
        return self.ended

    def end(self, how: Ending) -> None:
        """Note how it ended; the first note counts."""
        if self.ended == "open":
            self.ended, self.ended_s = how, time.monotonic()
            self._over.set()


# Some send a status that no standard names: 529 is overload.
_PHRASES: Mapping[int, str] = {status.value: status.phrase for status in HTTPStatus}
_NO_PHRASE = "Unnamed Status"
# DeepSeek's texts and types by status (SOURCES#deepseek-errors).
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


# The bodies in which upstreams put an error (SOURCES#deepseek-errors, #engine-errors).
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

    def __init__(
        self,
        writer: asyncio.StreamWriter,
        script: Script,
        seen: Seen,
        news: asyncio.Event,
        goes_on: asyncio.Event,
    ) -> None:
        self._writer = writer
        self._script = script
        self._seen = seen
        self._news = news
        self._goes_on = goes_on
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
                await self._goes_on.wait()
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

    async def play(self, call: Mapping[str, Any]) -> Ending:
        """Answer as a recorded upstream did: its status, its bytes as they came and when, and how it ended."""
        began_s = time.monotonic()

        async def until(at_ms: float) -> None:
            if not self._script.fast:
                await asyncio.sleep(max(0.0, began_s + at_ms / 1e3 - time.monotonic()))

        asked_ms = call["asked_ms"]
        if call["answered_ms"] is None:
            return await self._cut()
        await until(call["answered_ms"] - asked_ms)
        await self._head(call["status"], call["content_type"] or "application/json")
        for chunk in call_file.chunks_of(call):
            await until(chunk.at_ms)
            await self._write(chunk.wire)
            self._seen.events += 1
            self._news.set()
        return await (self._cut() if call["failure"].startswith(faults.CUT) else self._end())

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
        size, rest = self._script.split or len(data), memoryview(data)
        while rest:
            piece, rest = rest[:size], rest[size:]
            self._writer.write(b"%x\r\n%b\r\n" % (len(piece), bytes(piece)))
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
