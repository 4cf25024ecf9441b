"""A recorded call as an archive of two requests (HAR 1.2), with what nobody has measured said to be unknown."""

from __future__ import annotations

from typing import Any

import pytest

from proxy.inspector import har
from proxy.inspector.recorded import UpstreamCall
from tests.proxy.inspector.test_call_file import PATH, answered, call_file, came
from tests.proxy.telemetry.records import ended

FORM = {"httpVersion": "HTTP/1.1", "cookies": [], "headersSize": -1}


def request(url: str, name: str, value: str, body: str) -> dict[str, Any]:
    return {
        **FORM,
        "method": "POST",
        "url": url,
        "headers": [{"name": name, "value": value}],
        "queryString": [],
        "postData": {"mimeType": "application/json", "text": body},
        "bodySize": len(body),
    }


def response(status: int, phrase: str, mime: str, body: str) -> dict[str, Any]:
    size = len(body.encode())
    return {
        **FORM,
        "status": status,
        "statusText": phrase,
        "headers": [{"name": "Content-Type", "value": mime}] if mime else [],
        "content": {"size": size, "mimeType": mime, "text": body},
        "redirectURL": "",
        "bodySize": size,
    }


def entry(at: str, asked: Any, answer: Any, *, wait: float, receive: float, time: float) -> dict[str, Any]:
    timings = {"send": 0, "wait": wait, "receive": receive}
    return {
        "pageref": "call",
        "startedDateTime": at,
        "time": time,
        "request": asked,
        "response": answer,
        "cache": {},
        "timings": timings,
    }


AT = "2026-11-28T20:06:27.250+00:00"
OURS = request(f"http://dashseek{PATH}", "Accept", "*/*", '{"model":"deepseek-v3"}')
THEIRS = request("http://a/chat/completions", "X-Note", "a", '{"model":"m"}')
STREAM = "text/event-stream"


def test_both_sides_of_a_call_are_requests_of_one_page() -> None:
    document = call_file.document_of(answered(record=ended(), ended_ms=40.5))
    page = {"startedDateTime": AT, "id": "call", "title": f"POST {PATH}", "pageTimings": {"onLoad": 40.5}}
    ours = response(200, "OK", f"{STREAM}; charset=utf-8", "data:{}\n\n")
    theirs = response(200, "OK", STREAM, "data: é\n\n")
    assert har.har_of(document, "1.0")["log"] == {
        "version": "1.2",
        "creator": {"name": "dashseek", "version": "1.0"},
        "pages": [page],
        "entries": [
            entry(AT, OURS, ours, wait=31.5, receive=9.0, time=40.5),
            # It began ten milliseconds and a half later.
            entry("2026-11-28T20:06:27.260+00:00", THEIRS, theirs, wait=5.0, receive=20.0, time=25.0),
        ],
    }


@pytest.mark.parametrize(
    ("call", "on_load", "times"),
    [
        pytest.param(came(), -1, [(0.0, 0.0, 0.0)], id="come in"),
        pytest.param(answered(), -1, [(31.5, 0.0, 31.5), (5.0, 20.0, 25.0)], id="open"),
        pytest.param(came(ended_ms=4.5, refusal=b"no"), 4.5, [(4.5, 0.0, 4.5)], id="refused"),
        pytest.param(
            came(upstream=[UpstreamCall(0, "/c", b"", {}, 1.5)]), -1, [(0.0, 0.0, 0.0), (-1, -1, 0.0)], id="asked"
        ),
        pytest.param(
            came(upstream=[UpstreamCall(0, "/c", b"", {}, 1.5, answered_ms=3.5)]),
            -1,
            [(0.0, 0.0, 0.0), (2.0, -1, 2.0)],
            id="answered",
        ),
        pytest.param(
            came(upstream=[UpstreamCall(0, "/c", b"", {}, 1.5, ended_ms=3.5)]),
            -1,
            [(0.0, 0.0, 0.0), (-1, -1, 0.0)],
            id="failed",
        ),
    ],
)
def test_what_was_not_measured_is_unknown_and_counts_for_nothing(
    call: Any, on_load: float, times: list[tuple[float, float, float]]
) -> None:
    log = har.har_of(call_file.document_of(call), "1.0")["log"]
    assert log["pages"][0]["pageTimings"] == {"onLoad": on_load}
    told = [(one["timings"]["wait"], one["timings"]["receive"], one["time"]) for one in log["entries"]]
    assert told == times


def test_a_status_of_no_standard_has_no_phrase_and_no_type_no_header() -> None:
    asked = UpstreamCall(0, "/c", b"", {}, 1.5, "http://a", status=599)
    _, theirs = har.har_of(call_file.document_of(came(upstream=[asked])), "1.0")["log"]["entries"]
    assert theirs["response"] == response(599, "", "", "")
