"""A recorded call as a document, open and ended, and what is read back of one; or why it is none."""

from __future__ import annotations

import base64
from typing import Any

import orjson
import pytest

from proxy.inspector import call_file
from proxy.inspector.call_file import Chunk, NoCallFile
from proxy.inspector.recorded import Packet, Read, RecordedCall, UpstreamCall
from tests.proxy.telemetry.records import ended

PATH = "/api/v1/services/aigc/text-generation/generation"
HALF = "é".encode()[:1]


def came(**facts: Any) -> RecordedCall:
    """A call that has come in, and no more."""
    return RecordedCall(7, 1_795_896_387.25, "POST", PATH, "dashscope", "r", {"Accept": "*/*"}, 10_000, **facts)


def answered(**facts: Any) -> RecordedCall:
    """One that upstream answers, in two reads of which the first ends inside a character."""
    reads = [Read(20.5, b"data: " + HALF), Read(30.5, b"\xa9\n\n")]
    asked = UpstreamCall(0, "/chat/completions", b'{"model":"m"}', {"X-Note": "a"}, 10.5, "http://a", "p", 200)
    asked.content_type, asked.answered_ms, asked.ended_ms, asked.reads = "text/event-stream", 15.5, 35.5, reads
    packets = [Packet(31.5, b"data:{}\n\n", 0, 1)]
    told = {
        "body": b'{"model":"deepseek-v3"}',
        "read_ms": 1.5,
        "upstream": [asked],
        "packets": packets,
        "streams": True,
    }
    return came(**{**told, "held_bytes": 900, **facts})


OPEN = {
    "dashseek_call": 1,
    "number": 7,
    "request_id": "r",
    "at": "2026-11-28T20:06:27.250+00:00",
    "api": "dashscope",
    "stream": False,
    "redacted": False,
    "caller": {
        "method": "POST",
        "path": PATH,
        "headers": {"Accept": "*/*"},
        "body": {"text": ""},
        "read_ms": None,
        "lost_bytes": 0,
    },
    "upstream": [],
    "packets": [],
    "refusal": None,
    "ended_ms": None,
    "status": 0,
    "hint": "",
    "journal": [],
    "cause": None,
    "lost_bytes": 0,
}
ASKED = {
    "target": "http://a",
    "pool": "p",
    "path": "/chat/completions",
    "headers": {"X-Note": "a"},
    "body": {"text": '{"model":"m"}'},
    "asked_ms": 10.5,
    "status": 200,
    "content_type": "text/event-stream",
    "answered_ms": 15.5,
    "ended_ms": 35.5,
    "failure": "",
    "reads": [
        {"at_ms": 20.5, "base64": base64.b64encode(b"data: " + HALF).decode()},
        {"at_ms": 30.5, "base64": base64.b64encode(b"\xa9\n\n").decode()},
    ],
}


def test_of_a_call_that_has_come_in_it_is_said_what_came() -> None:
    assert call_file.document_of(came()) == OPEN


def test_a_call_that_has_ended_is_said_with_both_sides_and_its_lines_in_the_books() -> None:
    record = ended(cause="why", request_id="r")
    document = call_file.document_of(answered(record=record, ended_ms=40.5))
    assert document.pop("journal") == [
        {"event": "open", **(record.opening or {})},
        {"event": "close", "request_id": "r", **record.closing},
    ]
    caller = {**OPEN["caller"], "body": {"text": '{"model":"deepseek-v3"}'}, "read_ms": 1.5}  # type: ignore[dict-item]
    facts = {"stream": True, "caller": caller, "upstream": [ASKED], "ended_ms": 40.5, "status": 200, "cause": "why"}
    packets = [{"at_ms": 31.5, "of": [0, 1], "text": "data:{}\n\n"}]
    assert document == {name: it for name, it in OPEN.items() if name != "journal"} | facts | {"packets": packets}


def test_of_an_upstream_call_that_goes_on_no_more_is_said_than_is_known() -> None:
    (asked,) = call_file.document_of(came(upstream=[UpstreamCall(0, "/c", b"", {}, 1.5)]))["upstream"]
    unknown = {"target": "", "pool": "", "status": 0, "content_type": "", "answered_ms": None, "ended_ms": None}
    assert asked == {
        **unknown,
        "path": "/c",
        "headers": {},
        "body": {"text": ""},
        "asked_ms": 1.5,
        "failure": "",
        "reads": [],
    }


def test_what_was_refused_has_its_refusal_and_one_line_in_the_books() -> None:
    document = call_file.document_of(came(refusal=b"no", record=ended({"status": 400}, opening=None)))
    assert (document["refusal"], document["status"]) == ({"text": "no"}, 400)
    assert [line["event"] for line in document["journal"]] == ["close"]
    assert (call_file.answer_of(document), call_file.answered_of(document)) == (b"no", (400, "application/json"))


def test_what_is_no_call_has_a_status_of_its_own() -> None:
    stray = came(status=404, hint="a hint", record=ended())
    assert (call_file.document_of(stray)["status"], call_file.document_of(stray)["hint"]) == (404, "a hint")
    line = call_file.summary_of(stray)
    assert (line["outcome"], line["status"], line["cause"]) == ("stray", 404, "a hint")


LINE: dict[str, Any] = {
    "number": 7,
    "request_id": "r",
    "at_s": 1_795_896_387.25,
    "api": "dashscope",
    "method": "POST",
    "path": PATH,
    "model": "",
    "stream": False,
    "outcome": "open",
    "status": 0,
    "code": None,
    "cause": None,
    "bytes": 0,
    "input_tokens": None,
    "output_tokens": None,
    "packets": 0,
    "read_ms": None,
    "asked_ms": None,
    "answered_ms": None,
    "first_ms": None,
    "ended_ms": None,
}
ON_ITS_WAY = {
    "model": "deepseek-v3",
    "stream": True,
    "packets": 1,
    "read_ms": 1.5,
    "asked_ms": 10.5,
    "answered_ms": 15.5,
    "first_ms": 31.5,
    "bytes": 900,
}
OVER = {
    "outcome": "upstream_cut",
    "status": 500,
    "code": "X",
    "cause": "why",
    "input_tokens": 10,
    "output_tokens": 17,
    "packets": 2,
    "first_ms": 250.0,
    "ended_ms": 40.5,
    "model": "deepseek-v3.2",
}


@pytest.mark.parametrize(
    ("call", "line"),
    [
        (came(), LINE),
        (answered(), LINE | ON_ITS_WAY),
        (
            answered(record=ended({"outcome": "upstream_cut", "status": 500, "code": "X"}, cause="why"), ended_ms=40.5),
            LINE | ON_ITS_WAY | OVER,
        ),
    ],
    ids=["come in", "on its way", "over"],
)
def test_a_list_has_a_line_of_how_it_goes_or_went(call: RecordedCall, line: dict[str, Any]) -> None:
    assert call_file.summary_of(call) == line


@pytest.mark.parametrize(
    ("call", "model"),
    [
        (came(), ""),
        (came(body=b'{"model":"' + b"m" * 65 + b'"}'), "m" * 64),
        (came(body=b"{}"), "?"),
        (came(body=b'{"model":'), "?"),
        (came(body=b"[]"), "?"),
        (came(body=b'{"model":"a"}', model="b"), "b"),
        (came(body=b'{"model":"a"}', record=ended(asked_model="c")), "c"),
        (came(body=b'{"model":"a"}', record=ended(asked_model=None)), "a"),
    ],
)
def test_a_model_is_named_as_its_caller_did(call: RecordedCall, model: str) -> None:
    assert call_file.summary_of(call)["model"] == model


def test_what_was_written_is_read() -> None:
    document = call_file.document_of(answered())
    raw = orjson.dumps(document)
    assert call_file.read(raw) == document
    assert call_file.is_one(b" \n" + raw)
    assert [*call_file.chunks_of(document["upstream"][0])] == [
        Chunk(10.0, b"data: " + HALF),
        Chunk(20.0, b"\xa9\n\n"),
    ]


def test_a_stream_was_answered_with_200_whatever_came_of_it() -> None:
    document = call_file.document_of(answered(record=ended({"status": 500})))
    assert document["status"] == 500
    assert call_file.answered_of(document) == (200, "text/event-stream; charset=utf-8")


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b"", "not a call"),
        (b"[]", "not a call"),
        (b"{}", "not a call"),
        (b'"dashseek_call"', "not a call"),
        (b'{"dashseek_call":2}', "a call of form 2; this version reads form 1"),
        (b'{"dashseek_call":1}', "not a call"),
        (b'{"log":{"entries":[]}}', "an HTTP archive"),
        (orjson.dumps({**OPEN, "caller": {"body": {}}}), "not a call"),
        (orjson.dumps({**OPEN, "upstream": [{"reads": [{"at_ms": "soon", "text": ""}]}]}), "not a call"),
        (orjson.dumps({**OPEN, "upstream": [{"reads": [{"at_ms": 1}]}]}), "not a call"),
        (orjson.dumps({**OPEN, "upstream": [{}]}), "not a call"),
    ],
)
def test_what_is_no_call_is_told_why(raw: bytes, why: str) -> None:
    with pytest.raises(NoCallFile, match=f"^{why}"):
        call_file.read(raw)


def test_a_file_is_as_long_as_a_call_may_be_and_no_longer() -> None:
    raw = orjson.dumps(OPEN).ljust(call_file.MOST_FILE_BYTES)
    assert call_file.read(raw) == OPEN
    with pytest.raises(NoCallFile, match=r"^longer than any call: 16,777,217 bytes$"):
        call_file.read(raw + b" ")


@pytest.mark.parametrize(
    ("raw", "is_call", "is_archive"),
    [
        (b'{"dashseek_call":1}', True, False),
        (b'data: {"dashseek_call":1}\n\n', False, False),
        (b'{"choices":[]}', False, False),
        (b'{"log":{"entries":[]}}', False, True),
        (b'{"log":{}}', False, False),
        (b'{"log":7}', False, False),
        (b"[]", False, False),
        (b"{", False, False),
    ],
)
def test_a_call_and_an_archive_are_told_from_an_upstreams_body(raw: bytes, is_call: bool, is_archive: bool) -> None:
    assert (call_file.is_one(raw), call_file.is_archive(raw)) == (is_call, is_archive)
