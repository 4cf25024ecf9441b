"""A finished stream into complaints: the linter of spec SSE-1…SSE-11, for our own streams and for any gateway's.

`check` returns one sentence per breach, each led by its rule; an empty list is a clean stream. Nothing in a stream
makes it raise: what has another shape is a breach.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import orjson

Json = dict[str, Any]

FRAME = re.compile(
    rb"(?P<heartbeats>(?::heartbeat\n)*)id:(?P<id>\d{1,18})\nevent:(?P<event>result|error)\n"
    rb":HTTP_STATUS/(?P<status>\d{3})\ndata:(?P<data>[^\n]+)"
)
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
FINISHES = ("null", "stop", "length", "tool_calls")
FIGURES = ("input_tokens", "output_tokens", "total_tokens")
PACKET_KEYS = {"output", "usage", "request_id"}
LEAST_ERROR = 400
ERROR_KEYS = ["code", "message", "request_id"]


@dataclass(slots=True)
class Seen:
    """What one choice has shown so far.

    reasoning: of cumulative packets alone; behind no fragment of it does anything ask for the rest
    calls:     the first fragment of each, of incremental packets alone; called: whether there were any, in any form
    """

    content: str = ""
    reasoning: str = ""
    output_tokens: int = 0
    calls: list[Json] = field(default_factory=list)
    called: bool = False
    finished: bool = False


def check(stream: bytes, *, incremental: bool | None = None) -> list[str]:
    """Every breach of the stream's rules, led by the rule's number.

    incremental: how the packets were asked for; None where it is not known, and rules about that are left out
    """
    return list(_Linter(incremental).complaints(stream))


class _Linter:
    """One stream under inspection."""

    def __init__(self, incremental: bool | None) -> None:
        self._incremental = incremental
        self._choices: dict[int, Seen] = {}
        self._request_id: str | None = None
        self._failed = False

    def complaints(self, stream: bytes) -> Iterator[str]:
        # Heartbeats that no frame follows are a stream that was still silent when it ended.
        *blocks, rest = stream.split(b"\n\n")
        if rest:
            yield f"SSE-1 the last frame has no blank line behind it: {rest[:40]!r}"
        for number, block in enumerate(blocks, 1):
            found = FRAME.fullmatch(block)
            if found is None:
                yield from _misshapen(block)
                continue
            if int(found["id"]) != number:
                yield f"SSE-1 id {int(found['id'])} where {number} is due"
            if self._failed:
                yield "SSE-3 a frame after the error frame"
            yield from self._data(found)
        yield from self._end()

    def _data(self, frame: re.Match[bytes]) -> Iterator[str]:
        try:
            document = orjson.loads(frame["data"])
        except orjson.JSONDecodeError:
            yield "SSE-1 data is not JSON"
            return
        if orjson.dumps(document) != frame["data"]:
            yield "SSE-1 JSON is not compact raw UTF-8"
        if not isinstance(document, dict):
            yield "OUT-1 a packet is no object"
            return
        yield from self._request(document.get("request_id"))
        if frame["event"] == b"error":
            yield from self._error(document, int(frame["status"]))
        else:
            if frame["status"] != b"200":
                yield "SSE-1 a result whose status is not 200"
            yield from self._packet(document)

    def _request(self, request_id: object) -> Iterator[str]:
        if not isinstance(request_id, str) or not UUID.fullmatch(request_id):
            yield f"HTTP-6 request_id is no UUID: {request_id!r}"
        elif request_id != (self._request_id or request_id):
            yield "HTTP-6 request_id changes"
        else:
            self._request_id = request_id

    def _error(self, document: Json, status: int) -> Iterator[str]:
        self._failed = True
        if list(document) != ERROR_KEYS:
            yield f"SSE-3 an error with the keys {list(document)}"
        if status < LEAST_ERROR:
            yield f"SSE-3 an error with status {status}"
        if self._choices and all(seen.finished for seen in self._choices.values()):
            yield "SSE-4 an error after the finish"

    def _packet(self, document: Json) -> Iterator[str]:
        if set(document) != PACKET_KEYS:
            yield f"OUT-1 a packet with the keys {sorted(document)}"
        output = document.get("output")
        choices = output.get("choices") if isinstance(output, dict) else None
        if not isinstance(choices, list) or not choices:
            yield "OUT-1 no choices"
            return
        if len(choices) != 1:
            yield "OUT-7 more than one choice in a packet"
        for choice in choices:
            yield from self._choice(choice, document.get("usage"))

    def _choice(self, choice: object, usage: object) -> Iterator[str]:
        if not isinstance(choice, dict):
            yield "OUT-1 a choice is no object"
            return
        index, finish, message = choice.get("index"), choice.get("finish_reason"), choice.get("message")
        if type(index) is not int:
            yield f"OUT-1 index is {index!r}"
            return
        seen = self._choices.setdefault(index, Seen())
        if seen.finished:
            yield f"SSE-4 choice {index} goes on after its finish"
        if finish not in FINISHES:
            yield f"OUT-2 finish_reason is {finish!r}"
        seen.finished = seen.finished or finish in FINISHES[1:]
        if not isinstance(message, dict) or message.get("role") != "assistant":
            yield "OUT-1 no message of the assistant"
            return
        before = seen.output_tokens
        yield from _usage(usage, seen, last=seen.finished)
        yield from self._message(message, seen, grown=seen.output_tokens > before)
        seen.called = seen.called or bool(message.get("tool_calls"))
        if finish == "tool_calls" and not seen.called:
            yield "OUT-2 finish_reason tool_calls without calls"

    def _message(self, message: Json, seen: Seen, *, grown: bool) -> Iterator[str]:
        content, reasoning = message.get("content"), message.get("reasoning_content", "")
        if not isinstance(content, str) or not isinstance(reasoning, str):
            yield "OUT-1 content or reasoning_content is no string"
            return
        if self._incremental is False:
            if not (content.startswith(seen.content) and reasoning.startswith(seen.reasoning)):
                yield "SSE-5 a cumulative packet does not begin with the one before it"
            if seen.content and reasoning != seen.reasoning:
                yield "SSE-6 reasoning after content"
            seen.content, seen.reasoning = content, reasoning
        elif self._incremental:
            if reasoning and (seen.content or content):
                yield "SSE-6 reasoning after or beside content"
            # While a call is held its usage alone may go on (spec SSE-7).
            if not (content or reasoning or message.get("tool_calls") or seen.finished or grown):
                yield "SSE-10 a packet that says nothing"
            seen.content += content
        if "tool_calls" in message:
            yield from self._calls(message["tool_calls"], seen)

    def _calls(self, calls: object, seen: Seen) -> Iterator[str]:
        if not isinstance(calls, list) or not calls:
            yield "OUT-5 tool_calls is there and empty"
            return
        if self._incremental and len(calls) != 1:
            yield "SSE-7 more than one fragment in a packet"
        if self._incremental is False and not seen.finished:
            yield "SSE-7 cumulative calls before they are complete"
        for position, call in enumerate(calls):
            function = call.get("function") if isinstance(call, dict) else None
            if not (
                isinstance(function, dict)
                and type(call.get("index")) is int
                and isinstance(call.get("id"), str)
                and call.get("type") == "function"
                and isinstance(function.get("arguments"), str)
            ):
                yield f"OUT-5 a call of another shape: {call!r}"
            elif self._incremental:
                yield from _fragment(call, function, seen)
            elif self._incremental is False and not (
                call["index"] == position and call["id"] and isinstance(function.get("name"), str)
            ):
                yield "SSE-7 a cumulative call without its index, id or name"

    def _end(self) -> Iterator[str]:
        if not self._failed and not self._choices:
            yield "SSE-4 a stream without packets"
        for index, seen in self._choices.items():
            if not seen.finished and not self._failed:
                yield f"SSE-4 choice {index} never finishes"


def _misshapen(block: bytes) -> Iterator[str]:
    """A frame that is none, with the likeliest reason."""
    if b"[DONE]" in block:
        yield "SSE-1 [DONE]"
    elif block and all(line.startswith(b":") for line in block.split(b"\n")):
        yield "SSE-11 a heartbeat that ends an event"
    else:
        yield f"SSE-1 not a frame: {block[:60]!r}"


def _usage(usage: object, seen: Seen, *, last: bool) -> Iterator[str]:
    if not isinstance(usage, dict) or any(type(usage.get(name)) is not int or usage[name] < 0 for name in FIGURES):
        yield "OUT-4 usage lacks a figure"
        return
    if usage["total_tokens"] != usage["input_tokens"] + usage["output_tokens"]:
        yield "OUT-4 total_tokens is not the sum"
    if usage["output_tokens"] < seen.output_tokens and not last:
        yield "USE-2 output_tokens falls before the last packet"
    seen.output_tokens = usage["output_tokens"]
    details = usage.get("output_tokens_details", {})
    reasoning = details.get("reasoning_tokens", 0) if isinstance(details, dict) else None
    if not isinstance(reasoning, int):
        yield "OUT-4 output_tokens_details of another shape"
        return
    if reasoning > usage["output_tokens"]:
        yield "OUT-4 more reasoning than output"
    if details.get("text_tokens") not in (None, usage["output_tokens"] - reasoning):
        yield "OUT-4 text_tokens is not what reasoning leaves"


def _fragment(call: Json, function: Json, seen: Seen) -> Iterator[str]:
    """Fragments come in index order; only the first of a call has its id and name."""
    index = call["index"]
    if index == len(seen.calls):
        if not call["id"] or not isinstance(function.get("name"), str):
            yield "SSE-7 a first fragment without id or name"
        seen.calls.append(call)
    elif index == len(seen.calls) - 1:
        if call["id"] or "name" in function:
            yield "SSE-7 a later fragment with an id or a name"
    else:
        yield f"SSE-7 a fragment of call {index} out of order"
