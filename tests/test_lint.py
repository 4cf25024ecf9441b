"""The linter finds every kind of planted breach, and nothing in a good stream."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import lint

REQUEST_ID = "5354a793-a130-4b36-b1dc-2610c5f49071"


def packet(
    number: int, *, finish: object = "null", event: bytes = b"result", status: int = 200, **parts: object
) -> bytes:
    """A good frame, but for what `parts` and the others make of it."""
    message = {
        "content": parts.pop("content", "a"),
        "reasoning_content": parts.pop("reasoning", ""),
        "role": "assistant",
    }
    calls = parts.pop("calls", None)
    given = message if calls is None else message | {"tool_calls": calls}
    choice = {"message": parts.pop("message", given), "index": parts.pop("index", 0), "finish_reason": finish}
    usage = parts.pop("usage", {"input_tokens": 5, "output_tokens": number, "total_tokens": 5 + number})
    document = {"output": {"choices": parts.pop("choices", [choice])}, "usage": usage, "request_id": REQUEST_ID} | parts
    return b"id:%d\nevent:%b\n:HTTP_STATUS/%d\ndata:%b\n\n" % (number, event, status, orjson.dumps(document))


def error(number: int, status: int = 500, **document: object) -> bytes:
    data = orjson.dumps(document or {"code": "InternalError", "message": "m", "request_id": REQUEST_ID})
    return b"id:%d\nevent:error\n:HTTP_STATUS/%d\ndata:%b\n\n" % (number, status, data)


def call(index: object = 0, call_id: object = "c", name: str | None = "f", arguments: object = "{}") -> lint.Json:
    named = {} if name is None else {"name": name}
    return {"function": {**named, "arguments": arguments}, "id": call_id, "index": index, "type": "function"}


def usage(given: int, made: object, total: int, **details: object) -> lint.Json:
    return {"input_tokens": given, "output_tokens": made, "total_tokens": total, **details}


END = packet(2, content="", finish="stop")
LATER = call(call_id="", name=None)

GOOD = {
    "text": (packet(1) + END, True),
    "cumulative text": (packet(1, content="a") + packet(2, content="ab", finish="stop"), False),
    "heartbeats before frames": (b":heartbeat\n" + packet(1) + b":heartbeat\n:heartbeat\n" + END, True),
    "an error frame at the end": (packet(1) + error(2, 503), True),
    "an error frame alone": (error(1), True),
    "chain, then answer": (
        packet(1, content="", reasoning="h") + packet(2, content="a") + packet(3, content="", finish="stop"),
        True,
    ),
    "cumulative chain": (
        packet(1, content="", reasoning="h") + packet(2, content="a", reasoning="h", finish="stop"),
        False,
    ),
    "calls in fragments": (
        packet(1, content="", calls=[call()])
        + packet(2, content="", calls=[LATER])
        + packet(3, content="", calls=[call(1, "d")])
        + packet(4, content="", finish="tool_calls"),
        True,
    ),
    "cumulative calls": (packet(1, calls=[call(), call(1, "d")], finish="tool_calls"), False),
    "a last packet that corrects downward": (
        packet(1, usage={"input_tokens": 5, "output_tokens": 9, "total_tokens": 14}) + END,
        True,
    ),
    "two choices": (
        packet(1) + packet(2, index=1) + packet(3, content="", finish="stop") + packet(4, index=1, finish="length"),
        True,
    ),
    "one of two choices ended before an error": (
        packet(1) + packet(2, index=1) + packet(3, content="", finish="stop") + error(4),
        True,
    ),
    "an error of the caller's": (error(1, 400), True),
    "no tokens yet, and none more for a text": (
        packet(1, usage=usage(0, 0, 0)) + packet(2, usage=usage(0, 0, 0)) + packet(3, content="", finish="stop"),
        True,
    ),
    "details that say nothing": (packet(1, usage=usage(5, 0, 5, output_tokens_details={})) + END, True),
    "all of it a chain": (
        packet(1, content="", reasoning="h", usage=usage(5, 1, 6, output_tokens_details={"reasoning_tokens": 1})) + END,
        True,
    ),
    "a chain and what it leaves": (
        packet(1, usage=usage(5, 3, 8, output_tokens_details={"reasoning_tokens": 1, "text_tokens": 2}))
        + packet(2, content="", finish="stop"),
        True,
    ),
    "how it was asked for is not known": (
        packet(1, calls=[call()]) + packet(2, finish="tool_calls", calls=[call()]),
        None,
    ),
    "nor whether the calls are over": (packet(1, calls=[call()]) + packet(2, content="", finish="tool_calls"), None),
}


@pytest.mark.parametrize("name", GOOD)
def test_a_good_stream_has_no_complaints(name: str) -> None:
    stream, incremental = GOOD[name]
    assert lint.check(stream, incremental=incremental) == []


PLANTED = {
    "SSE-1 the last frame has no blank line": (packet(1) + END[:-1], True),
    "SSE-1 id 3 where 2 is due": (packet(1) + packet(3, finish="stop"), True),
    "SSE-1 id 3 where 2 is due ": (packet(1).replace(b"id:1", b"id: 1") + packet(3, finish="stop"), True),
    "SSE-1 not a frame": (packet(1).replace(b"id:1", b"id: 1") + END, True),
    "SSE-1 not a frame ": (packet(1).replace(b"\n", b"\r\n", 1) + END, True),
    "SSE-1 [DONE]": (packet(1) + END + b"data: [DONE]\n\n", True),
    "SSE-1 data is not JSON": (packet(1).replace(b"data:{", b"data:") + END, True),
    "SSE-1 JSON is not compact": (packet(1).replace(b'"content":', b'"content": ') + END, True),
    "SSE-1 JSON is not compact raw UTF-8": (packet(1).replace(b'"a"', rb'"\u4f60"') + END, True),
    "SSE-1 a result whose status": (packet(1, status=201) + END, True),
    "SSE-3 a frame after the error frame": (packet(1) + error(2) + packet(3, content="", finish="stop"), True),
    "SSE-3 an error with the keys": (error(1, message="m", code="c", request_id=REQUEST_ID), True),
    "SSE-3 an error with status": (error(1, 200), True),
    "SSE-4 an error after the finish": (packet(1) + END + error(3), True),
    "SSE-4 choice 0 never finishes": (packet(1), True),
    "SSE-4 choice 1 never finishes": (packet(1) + packet(2, index=1) + packet(3, content="", finish="stop"), True),
    "SSE-4 choice 0 goes on after its finish": (packet(1) + END + packet(3, content="", finish="stop"), True),
    "SSE-4 a stream without packets": (b"", True),
    "SSE-5 a cumulative packet": (packet(1, content="ab") + packet(2, content="b", finish="stop"), False),
    "SSE-6 reasoning after content": (
        packet(1, content="a") + packet(2, content="a", reasoning="h", finish="stop"),
        False,
    ),
    "SSE-6 reasoning after or beside content ": (packet(1) + packet(2, content="", reasoning="h", finish="stop"), True),
    "SSE-6 reasoning after or beside content": (packet(1, reasoning="h") + END, True),
    "SSE-7 more than one fragment": (packet(1, calls=[call(), call(1)]) + packet(2, finish="tool_calls"), True),
    "SSE-7 cumulative calls before": (
        packet(1, calls=[call()]) + packet(2, calls=[call()], finish="tool_calls"),
        False,
    ),
    "SSE-7 a cumulative call without": (packet(1, calls=[call(name=None)], finish="tool_calls"), False),
    "SSE-7 a first fragment without": (packet(1, calls=[call(call_id="")]) + packet(2, finish="tool_calls"), True),
    "SSE-7 a later fragment with": (
        packet(1, calls=[call()]) + packet(2, calls=[call()]) + packet(3, finish="tool_calls"),
        True,
    ),
    "SSE-7 a later fragment with an id": (
        packet(1, calls=[call()]) + packet(2, calls=[call(name=None)]) + packet(3, finish="tool_calls"),
        True,
    ),
    "SSE-7 a later fragment with an id or a name": (
        packet(1, calls=[call()]) + packet(2, calls=[call(call_id="")]) + packet(3, finish="tool_calls"),
        True,
    ),
    "SSE-7 a fragment of call 0 out of order": (
        packet(1, calls=[call()])
        + packet(2, calls=[call(1)])
        + packet(3, calls=[LATER])
        + packet(4, finish="tool_calls"),
        True,
    ),
    "SSE-10 a packet that says nothing": (
        packet(1, usage={"input_tokens": 5, "output_tokens": 2, "total_tokens": 7}) + packet(2, content="") + END,
        True,
    ),
    "SSE-11 a heartbeat that ends an event": (packet(1) + b":heartbeat\n\n" + END, True),
    "HTTP-6 request_id is no UUID": (packet(1, request_id=None) + END, True),
    "HTTP-6 request_id changes": (packet(1, request_id=REQUEST_ID.replace("5", "6")) + END, True),
    "OUT-1 a packet is no object": (b"id:1\nevent:result\n:HTTP_STATUS/200\ndata:[]\n\n", True),
    "OUT-1 a packet with the keys": (packet(1, code="") + END, True),
    "OUT-1 no choices": (packet(1, choices=[]) + END, True),
    "OUT-1 index is None": (packet(1, index=None) + END, True),
    "OUT-1 no message of the assistant": (packet(1, message={"content": ""}) + END, True),
    "OUT-1 content or reasoning_content": (packet(1, content=None) + END, True),
    "OUT-2 finish_reason is None": (packet(1, finish=None), True),
    "OUT-2 finish_reason tool_calls without calls": (packet(1, finish="tool_calls"), True),
    "OUT-4 usage lacks a figure": (packet(1, usage=usage(5, None, 5)) + END, True),
    "OUT-4 usage lacks a figure ": (packet(1, usage=None) + END, True),
    "OUT-4 usage lacks a figure  ": (packet(1, usage=usage(5, -1, 4)) + END, True),
    "OUT-4 total_tokens is not the sum": (packet(1, usage=usage(5, 1, 7)) + END, True),
    "OUT-4 more reasoning than output": (
        packet(1, usage=usage(5, 1, 6, output_tokens_details={"reasoning_tokens": 2})) + END,
        True,
    ),
    "OUT-4 text_tokens is not": (packet(1, usage=usage(5, 1, 6, output_tokens_details={"text_tokens": 2})) + END, True),
    "OUT-5 tool_calls is there and empty": (packet(1, calls=[]) + END, True),
    "OUT-5 a call of another shape": (packet(1, calls=[call(arguments=None)]) + END, True),
    "OUT-7 more than one choice": (
        packet(
            1,
            choices=[
                {"message": {"content": "a", "role": "assistant"}, "index": index, "finish_reason": "stop"}
                for index in (0, 1)
            ],
        ),
        True,
    ),
    "USE-2 output_tokens falls": (
        packet(1, usage=usage(5, 9, 14)) + packet(2) + packet(3, content="", finish="stop"),
        True,
    ),
}


@pytest.mark.parametrize("complaint", PLANTED)
def test_a_planted_breach_is_found_and_named_by_its_rule(complaint: str) -> None:
    stream, incremental = PLANTED[complaint]
    found = lint.check(stream, incremental=incremental)
    assert any(said.startswith(complaint.strip()) for said in found), found


SCALARS = st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.text(max_size=3)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner))


@given(st.data())
def test_no_stream_makes_it_raise(data: st.DataObject) -> None:
    """It reads streams of anybody: whatever stands where something else is due is a complaint."""
    document = orjson.loads(packet(1, calls=[call()]).partition(b"data:")[2])
    document["usage"]["output_tokens_details"] = {"reasoning_tokens": 1, "text_tokens": 1}
    place: Any = document
    while isinstance(place, dict | list) and place:
        key = data.draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
        if data.draw(st.booleans()) or not isinstance(place[key], dict | list):
            place[key] = data.draw(VALUES)
            break
        place = place[key]
    frame = b"id:1\nevent:result\n:HTTP_STATUS/200\ndata:%b\n\n"
    stream = frame % orjson.dumps(document)
    for incremental in (None, False, True):
        lint.check(stream + END, incremental=incremental)
