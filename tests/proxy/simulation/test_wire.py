"""Claims about what a simulated upstream writes and when, byte by byte, by a clock that passes as it is waited for."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Iterator, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import orjson
import pytest
from multidict import CIMultiDict

from proxy.simulation import deepseek, wire
from proxy.simulation.deepseek import Scale
from proxy.simulation.wire import Json, Script, Seen
from translators import faults

EVENTS = ((b"data: 1\n\n", 1), (b"data: 2\n\n", 3), (b"data: 3\n\n", 4))
ONE, TWO, THREE = (event for event, _ in EVENTS)
STREAM = "text/event-stream"
BEAT = b": keep-alive\n\n"
DONE = b"data: [DONE]\n\n"
BODY: Json = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], "thinking": {"type": "disabled"}}

RECORDED: Json = {
    "asked_ms": 100.0,
    "answered_ms": 130.0,
    "status": 200,
    "content_type": STREAM,
    "failure": "",
    "reads": [{"at_ms": 140.0, "text": "one"}, {"at_ms": 190.0, "text": "two"}],
}


class Line:
    """The way to a caller, as much of it as an answer needs: what was written, each with its time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_s = 0.0
        self.written: list[tuple[float, bytes]] = []
        self.is_drained = self.has_turned = True
        self.transport = self
        self.aborted = False
        self.socket = socket.socket()
        monkeypatch.setattr(wire, "asyncio", SimpleNamespace(sleep=self.sleep))
        monkeypatch.setattr(wire, "time", SimpleNamespace(monotonic=lambda: self.now_s))

    async def sleep(self, seconds: float) -> None:
        self.has_turned = True
        self.now_s += seconds

    def write(self, data: bytes) -> None:
        # A caller who does not read holds it up, and other callers are served between two writes.
        assert self.is_drained
        assert self.has_turned
        self.is_drained = False
        self.has_turned = not data.startswith(b"HTTP/")
        self.written.append((self.now_s, data))

    async def drain(self) -> None:
        self.is_drained = True
        self.has_turned = self.has_turned or self.written[-1][1].startswith(b"HTTP/")

    def get_extra_info(self, name: str) -> socket.socket:
        assert name == "socket"
        return self.socket

    def abort(self) -> None:
        self.aborted = True

    @property
    def head(self) -> tuple[float, list[str]]:
        """When the head was written, and its lines."""
        at_s, head = self.written[0]
        assert head.endswith(b"\r\n\r\n")
        return at_s, head.decode().split("\r\n")[:-2]

    @property
    def body(self) -> list[tuple[float, bytes]]:
        """Every chunk, the empty one that ends the body among them."""
        assert self.is_drained
        chunks = []
        for at_s, chunk in self.written[1:]:
            size, _, rest = chunk.partition(b"\r\n")
            assert rest.endswith(b"\r\n")
            assert len(rest) - 2 == int(size, 16)
            chunks.append((at_s, rest[:-2]))
        return chunks


@pytest.fixture
def line(monkeypatch: pytest.MonkeyPatch) -> Iterator[Line]:
    line = Line(monkeypatch)
    with line.socket:
        yield line


def seen() -> Seen:
    return Seen("POST", "/chat/completions", CIMultiDict(), b"{}", {}, 1)


def out(line: Line, script: Script, of: Seen, news: asyncio.Event | None = None) -> wire._Out:
    goes_on = asyncio.Event()
    goes_on.set()
    return wire._Out(line, script, of, news or asyncio.Event(), goes_on)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("switches", "head_s", "body"),
    [
        ({}, 0, [(0, ONE), (0, TWO), (0, THREE), (0, b"")]),
        ({"first_byte_delay_s": 2}, 2, [(2, ONE), (2, TWO), (2, THREE), (2, b"")]),
        ({"first_byte_delay_s": 2, "keep_alive_s": 0.5}, 0, [(0.5, BEAT), (1, BEAT), (1.5, BEAT), (2, ONE)]),
        ({"first_byte_delay_s": 0.5, "keep_alive_s": 0.5}, 0, [(0.5, ONE)]),
        ({"gap_s": 2}, 0, [(0, ONE), (2, TWO), (4, THREE), (4, b"")]),
        ({"gap_s": 2, "keep_alive_s": 1.5}, 0, [(0, ONE), (1.5, BEAT), (2, TWO), (3.5, BEAT), (4, THREE), (4, b"")]),
        ({"gap_s": 2, "deltas_per_write": 2}, 0, [(0, ONE + TWO), (2, THREE), (2, b"")]),
        ({"gap_s": 2, "deltas_per_write": 3}, 0, [(0, ONE + TWO + THREE), (0, b"")]),
        ({"crlf": True}, 0, [(0, b"data: 1\r\n\r\n"), (0, b"data: 2\r\n\r\n")]),
        ({"crlf": True, "replay": b""}, 0, [(0, ONE), (0, TWO)]),
        ({"crlf": True, "gap_s": 2, "keep_alive_s": 1.5}, 0, [(0, b"data: 1\r\n\r\n"), (1.5, b": keep-alive\r\n\r\n")]),
        ({"split": 5}, 0, [(0, b"data:"), (0, b" 1\n\n"), (0, b"data:")]),
        ({"split": 9}, 0, [(0, ONE), (0, TWO)]),
    ],
)
async def test_a_stream_comes_in_writes_with_gaps_and_signs_of_life(
    line: Line, switches: Mapping[str, Any], head_s: float, body: Sequence[tuple[float, bytes]]
) -> None:
    of, news = seen(), asyncio.Event()
    assert await out(line, Script(**switches), of, news).send(STREAM, EVENTS) == "done"
    assert line.head == (
        head_s,
        ["HTTP/1.1 200 OK", f"Content-Type: {STREAM}", "Transfer-Encoding: chunked"],
    )
    assert line.body[: len(body)] == [*body]
    assert line.body[-1][1] == b""
    assert (of.events, of.completion_tokens, news.is_set()) == (3, 4, True)


@pytest.mark.parametrize(
    ("switches", "ended", "body", "events"),
    [
        ({"cut_after": 0}, "cut", [], 0),
        ({"cut_after": 2}, "cut", [ONE, TWO], 2),
        ({"cut_after": 2, "deltas_per_write": 3}, "cut", [ONE + TWO], 2),
        ({"cut_after": 3}, "cut", [ONE, TWO, THREE], 3),
        ({"cut_after": 4}, "done", [ONE, TWO, THREE, b""], 3),
        ({"cut_after": 1, "cut_by": "end"}, "cut", [ONE, b""], 1),
        ({"stall_after": 1}, "cut", [ONE], 1),
        (
            {"error_event_after": 1, "error_event_status": 503, "error_text": "no"},
            *("done", [ONE, '"message":"no","type":"service_unavailable_error"', DONE, b""], 1),
        ),
        (
            {"error_event_after": 0, "error_event_status": 529, "no_done": True},
            *("done", ['"message":"Unnamed Status","type":"invalid_request_error","param":null,"code":529', b""], 0),
        ),
    ],
)
async def test_a_stream_breaks_off_where_the_script_says(
    line: Line, switches: Mapping[str, Any], ended: str, body: Sequence[bytes | str], events: int
) -> None:
    of = seen()
    assert await out(line, Script(**switches), of).send(STREAM, EVENTS) == ended
    chunks = [chunk for _, chunk in line.body]
    assert len(chunks) == len(body)
    for chunk, said in zip(chunks, body, strict=True):
        if isinstance(said, str):
            assert chunk.startswith(b'data: {"error":{')
            assert said in chunk.decode()
        else:
            assert chunk == said
    assert (of.events, line.aborted) == (events, False)


async def test_a_body_of_another_kind_knows_no_comments_and_no_error_events(line: Line) -> None:
    script = Script(first_byte_delay_s=2, keep_alive_s=1.5, error_event_after=1)
    assert await out(line, script, seen()).send("application/json", ((b"{", 5), (b"}", 5))) == "done"
    assert line.body == [(1.5, b"\n"), (2, b"{"), (2, b"}"), (2, b"")]


async def test_a_reset_does_not_linger(line: Line) -> None:
    assert await out(line, Script(cut_after=1, cut_by="rst"), seen()).send(STREAM, EVENTS) == "cut"
    is_on, seconds = struct.unpack("ii", line.socket.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8))
    assert (bool(is_on), seconds, line.aborted) == (True, 0, True)


class TestPlay:
    """A call that was recorded, played again."""

    @pytest.mark.parametrize(("fast", "times_s"), [(False, (0.03, 0.04, 0.09, 0.09)), (True, (0, 0, 0, 0))])
    async def test_it_comes_as_it_came_and_when_or_at_once(
        self, line: Line, *, fast: bool, times_s: Sequence[float]
    ) -> None:
        of, news = seen(), asyncio.Event()
        assert await out(line, Script(fast=fast), of, news).play(RECORDED) == "done"
        assert line.head[1][:2] == ["HTTP/1.1 200 OK", f"Content-Type: {STREAM}"]
        assert [line.head[0], *(at_s for at_s, _ in line.body)] == [*times_s]
        assert [chunk for _, chunk in line.body] == [b"one", b"two", b""]
        assert (of.events, news.is_set()) == (2, True)

    async def test_what_is_late_does_not_wait(self, line: Line) -> None:
        call = RECORDED | {"reads": [{"at_ms": 140.0, "text": "one"}, {"at_ms": 120.0, "text": "two"}]}
        await out(line, Script(), seen()).play(call)
        assert line.body == [(0.04, b"one"), (0.04, b"two"), (0.04, b"")]

    async def test_it_ends_as_it_ended(self, line: Line) -> None:
        of = seen()
        assert await out(line, Script(), of).play(RECORDED | {"failure": f"{faults.CUT}: a reset"}) == "cut"
        assert [chunk for _, chunk in line.body] == [b"one", b"two"]
        line.written.clear()
        assert await out(line, Script(), of).play(RECORDED | {"answered_ms": None, "failure": "too late"}) == "cut"
        assert line.written == []

    async def test_what_had_no_type_is_json(self, line: Line) -> None:
        assert await out(line, Script(), seen()).play(RECORDED | {"status": 503, "content_type": ""}) == "done"
        assert line.head[1][:2] == ["HTTP/1.1 503 Service Unavailable", "Content-Type: application/json"]


@pytest.mark.parametrize(
    ("status", "phrase", "text", "kind"),
    [
        (400, "Bad Request", "Invalid request", "invalid_request_error"),
        (401, "Unauthorized", "Authentication Fails (no such user)", "authentication_error"),
        (402, "Payment Required", "Insufficient Balance", "unknown_error"),
        (404, "Not Found", "Not Found", "invalid_request_error"),
        (429, "Too Many Requests", "Rate limit reached for requests", "rate_limit_error"),
        (500, "Internal Server Error", "Internal server error", "internal_error"),
        (
            *(503, "Service Unavailable"),
            "Service is too busy. We advise users to temporarily switch to alternative LLM API service providers.",
            "service_unavailable_error",
        ),
        (529, "Unnamed Status", "Unnamed Status", "invalid_request_error"),
    ],
)
async def test_an_error_is_worded_as_deepseek_words_it(
    line: Line, status: int, phrase: str, text: str, kind: str
) -> None:
    """SOURCES#deepseek-errors: of all errors of the caller's the code is the same."""
    script = Script(first_byte_delay_s=2, retry_after="7" if status == 429 else None)
    assert await out(line, script, seen()).refuse(status, None, "nested") == "done"
    lines = [f"HTTP/1.1 {status} {phrase}", "Content-Type: application/json", "Transfer-Encoding: chunked"]
    assert line.head == (2, lines + ["Retry-After: 7"] * (status == 429))
    (_, error), end = line.body
    code = kind if status >= 500 else "invalid_request_error"
    assert orjson.loads(error) == {"error": {"message": text, "type": kind, "param": None, "code": code}}
    assert end == (2, b"")


async def test_what_no_script_touches_is_said_as_it_is(line: Line) -> None:
    await out(line, Script(first_byte_delay_s=2, cut_after=0), seen()).say("text/plain", b"as it is")
    assert line.head == (0, ["HTTP/1.1 200 OK", "Content-Type: text/plain", "Transfer-Encoding: chunked"])
    assert line.body == [(0, b"as it is"), (0, b"")]


def test_a_json_body_comes_in_two_halves_with_its_blank_lines_before_it() -> None:
    completion = {"usage": {"completion_tokens": 7}, "text": "x" * 100}
    halves = [*wire._halves(completion, Script(blank_lines=3))]
    assert b"".join(half for half, _ in halves) == b"\n\n\n" + orjson.dumps(completion)
    (first, before), (second, after) = halves
    assert abs(len(first) - len(second)) <= 1
    # It is generated whole before any of it is sent.
    assert (before, after) == (7, 7)


@pytest.mark.parametrize(
    ("script", "body", "generated"),
    [
        (Script(text="a b c"), BODY, [0, 1, 2, 3, 3]),
        # The token that ends a chain is shown by no delta.
        (Script(reasoning="t u", text="a b"), BODY | {"thinking": {"type": "enabled"}}, [0, 1, 2, 4, 5, 5]),
        (Script(dialect="vllm", text="a b"), BODY | {"n": 2}, [0, 0, 1, 2, 3, 4, 4, 4]),
        (Script(text="a", tools=("f {}",)), BODY, [0, 1, 1, 1, "all"]),
    ],
)
def test_what_is_generated_is_counted_delta_by_delta_and_tool_calls_at_the_end(
    script: Script, body: Json, generated: list[int | str]
) -> None:
    scale = Scale(None)
    answer = deepseek.compose(body, script, scale)
    chunks = deepseek.chunks(answer, body, script, scale)
    counted = [generated for _, generated in wire._counted(chunks, answer, scale)]
    assert counted == [answer.usage["completion_tokens"] if one == "all" else one for one in generated]
    assert counted[-1] == answer.usage["completion_tokens"]


def test_done_follows_all_chunks_and_has_generated_nothing_more() -> None:
    chunks = [({"a": 1}, 3), ({"b": 2}, 5)]
    events = [(b'data: {"a":1}\n\n', 3), (b'data: {"b":2}\n\n', 5)]
    assert [*wire._events(chunks, Script())] == [*events, (DONE, 5)]
    assert [*wire._events(chunks, Script(no_done=True))] == events
    assert [*wire._events([], Script())] == [(DONE, 0)]


async def test_the_first_note_of_an_end_counts_and_who_waits_for_it_is_told() -> None:
    of = seen()
    assert (of.events, of.prompt_tokens, of.completion_tokens, of.ended, of.ended_s) == (0, 0, 0, "open", None)
    waiting = asyncio.create_task(of.over())
    await asyncio.sleep(0)
    assert not waiting.done()
    of.end("cut")
    async with asyncio.timeout(10):
        assert await waiting == "cut"
    at_s = of.ended_s
    of.end("aborted")
    assert (of.ended, of.ended_s, await of.over()) == ("cut", at_s, "cut")
