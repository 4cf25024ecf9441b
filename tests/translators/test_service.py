"""What every surface refuses by a header, and says in the head of a stream (spec HTTP-7, HTTP-9, SSE-11)."""

from __future__ import annotations

import pytest
from multidict import CIMultiDict

from translators import faults, service
from translators.compatible import tongue as compatible
from translators.dashscope import tongue as dashscope


@pytest.mark.parametrize(
    ("headers", "fault"),
    [
        ({"X-DashScope-Async": "enable"}, faults.NO_ASYNC),
        ({"x-dashscope-async": " Enable"}, faults.NO_ASYNC),
        ({"X-DashScope-EncryptionKey": "{}"}, faults.ENCRYPTED_BODY),
    ],
)
def test_what_no_upstream_can_do_is_refused(headers: dict[str, str], fault: faults.Fault) -> None:
    """Spec HTTP-9."""
    with pytest.raises(faults.Refusal) as refusal:
        service.check(CIMultiDict(headers))
    assert refusal.value.fault == fault


def test_async_disabled_is_what_dashscope4j_says_with_every_call() -> None:
    """SOURCES#sse-selection."""
    service.check(CIMultiDict({"X-DashScope-Async": "disable"}))


def test_a_stream_has_one_head_and_one_sign_of_life_on_every_surface() -> None:
    """HTTP-7, SSE-11, COM-12, COM-24: a comment, and no blank line that a client would take for an event."""
    for tongue in (dashscope, compatible):
        assert tongue.STREAM_HEADERS["Content-Type"] == "text/event-stream;charset=UTF-8"
        assert tongue.HEARTBEAT.startswith(b":")
        assert tongue.HEARTBEAT.count(b"\n") == 1
        assert tongue.check is service.check
