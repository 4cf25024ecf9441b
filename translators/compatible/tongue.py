"""The compatible surface as a caller's tongue, under the names of `translators.tongue`.

What a call may say it shares with DashScope's own surface, and the head of a stream with all the service. Source: spec
COM-2, COM-5, COM-12, COM-24.
"""

from __future__ import annotations

from typing import Final

from translators.collected import Collected
from translators.compatible.call import translate, wants_stream
from translators.compatible.chunks import Chunks, Layout
from translators.compatible.failures import failure, failure_headers
from translators.dashscope.call import read
from translators.dialogue import Call
from translators.service import HEARTBEAT, STREAM_HEADERS, check
from translators.tongue import Writer
from translators.usage import Tally

__all__ = (
    "API",
    "HEARTBEAT",
    "STREAM_HEADERS",
    "check",
    "failure",
    "failure_headers",
    "read",
    "translate",
    "wants_stream",
    "writer",
)

API: Final = "openai"


def writer(call: Call, tally: Tally, *, request_id: str, at_s: float) -> Writer:
    """Chunks, or one completion: as the call asks."""
    layout = Layout(call, tally, request_id, int(at_s))
    return Chunks(layout) if call.stream else Collected(layout)
