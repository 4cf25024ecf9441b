"""Which copies of a call are offered: those that are what was sent and said."""

from __future__ import annotations

from typing import Any

import pytest

from proxy.inspector import copies
from proxy.inspector.copies import ANSWER_CUT, BODY_CUT, BODY_UNREAD, NEVER_SENT, NO_SDK, NO_STREAM

ALL = ("curl", "python", "upstream", "golden")
WHOLE: dict[str, Any] = {
    "caller": {
        "path": "/api/v1/services/aigc/text-generation/generation",
        "headers": {"Content-Length": "2"},
        "read_ms": 0.1,
        "lost_bytes": 0,
    },
    "upstream": [{"body": {"text": "{}"}, "content_type": "text/event-stream"}],
    "lost_bytes": 0,
}


def call(caller: dict[str, Any] | None = None, upstream: list[dict[str, Any]] | None = None, lost: int = 0) -> Any:
    sent = WHOLE["upstream"] if upstream is None else [WHOLE["upstream"][0] | one for one in upstream]
    return {"caller": WHOLE["caller"] | (caller or {}), "upstream": sent, "lost_bytes": lost}


@pytest.mark.parametrize(
    ("document", "reasons"),
    [
        pytest.param(call(), {}, id="all of it is kept"),
        pytest.param(call({"lost_bytes": 9}), dict.fromkeys(("curl", "python", "golden"), BODY_CUT), id="a long body"),
        pytest.param(
            call({"read_ms": None}, []),
            dict.fromkeys(("curl", "python", "golden"), BODY_UNREAD) | {"upstream": NEVER_SENT},
            id="refused for its head",
        ),
        pytest.param(
            call({"read_ms": None, "headers": {"transfer-encoding": "chunked"}}),
            dict.fromkeys(("curl", "python", "golden"), BODY_UNREAD),
            id="a body of unknown length, not read",
        ),
        pytest.param(
            call({"read_ms": None, "headers": {}, "path": "/compatible-mode/v1/models"}, []),
            {"python": NO_SDK, "upstream": NEVER_SENT, "golden": NEVER_SENT},
            id="no body to read",
        ),
        pytest.param(call(lost=9), {"golden": ANSWER_CUT}, id="a long answer"),
        pytest.param(
            call(upstream=[{"body": {"text": ""}}], lost=9),
            {"upstream": ANSWER_CUT, "golden": ANSWER_CUT},
            id="no room for what was sent upstream",
        ),
        pytest.param(
            call(upstream=[{}, {"body": {"text": ""}}], lost=9),
            {"upstream": ANSWER_CUT, "golden": ANSWER_CUT},
            id="no room for one of two bodies",
        ),
        pytest.param(call(upstream=[{}, {"content_type": "application/json"}]), {"golden": NO_STREAM}, id="JSON"),
        pytest.param(call(upstream=[]), dict.fromkeys(("upstream", "golden"), NEVER_SENT), id="never sent"),
    ],
)
def test_each_copy_that_would_not_be_true_has_a_reason(document: Any, reasons: dict[str, str]) -> None:
    assert copies.not_offered(document) == reasons
    assert {*reasons} <= {*ALL}
    assert {*reasons.values()} <= {*copies.REASONS}
    assert copies.why_not_again(document) == reasons.get("curl", "")


def test_what_is_played_is_whole() -> None:
    assert copies.why_not_whole(call()) == ""
    assert copies.why_not_whole(call(lost=1_234)).startswith("1,234 bytes of it are not kept")
