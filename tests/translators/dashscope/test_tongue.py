"""Claims about DashScope's headers, and about its writers as the pipe sees them (spec HTTP-5, ERR-1)."""

from __future__ import annotations

import pytest
from multidict import CIMultiDict

from tests import corpus
from translators import faults
from translators.dashscope import packets, tongue
from translators.usage import Tally

ASKS = {"X-DashScope-SSE": "enable"}, {"Accept": "text/event-stream"}, {"Content-Type": "text/event-stream"}


@pytest.mark.parametrize(
    ("headers", "streams"),
    [
        ({}, False),
        *((asks, True) for asks in ASKS),
        ({"x-dashscope-sse": " ENABLE "}, True),
        ({"ACCEPT": "application/json, Text/Event-Stream;q=0.5"}, True),
        ({"Content-Type": "text/event-stream; charset=utf-8"}, True),
        ({"Accept": "application/json", "Content-Type": "application/json"}, False),
        ({"X-DashScope-SSE": "maybe"}, False),
        ({"X-DashScope-SSE": ""}, False),
        *((asks | {"X-DashScope-SSE": "Disable"}, False) for asks in ASKS),
    ],
)
def test_sse_is_selected_by_any_of_three_headers_and_disable_wins(headers: dict[str, str], streams: bool) -> None:
    """Spec HTTP-5."""
    assert tongue.wants_stream(CIMultiDict(headers), {}) is streams


@pytest.mark.parametrize(
    ("lines", "streams"),
    [
        (["enable", "disable"], False),
        (["disable", "enable"], False),
        (["Enable ", "DISABLE"], False),
        (["enable", "enable"], True),
        (["maybe", "enable"], True),
        (["maybe", "no"], False),
    ],
)
def test_of_two_lines_disable_wins(lines: list[str], streams: bool) -> None:
    """Spec HTTP-14."""
    headers = CIMultiDict(zip(("X-DashScope-SSE", "x-dashscope-sse"), lines, strict=True))
    assert tongue.wants_stream(headers, {}) is streams


@pytest.mark.parametrize("stream", [True, False])
def test_a_failure_says_the_same_in_a_frame_and_in_place_of_a_reply(*, stream: bool) -> None:
    """ERR-1."""
    writer = tongue.writer(corpus.ask(stream=stream), Tally(), request_id=corpus.REQUEST_ID, at_s=0.0)
    failure = tongue.failure(faults.TIMED_OUT, corpus.REQUEST_ID)
    frame = packets.ERROR_FRAME % (1, faults.TIMED_OUT.status, failure)
    assert writer.error(faults.TIMED_OUT) == (frame if stream else failure)


def test_a_failure_has_no_header_of_its_own() -> None:
    assert tongue.failure_headers(faults.TIMED_OUT, 0.0) == {}
