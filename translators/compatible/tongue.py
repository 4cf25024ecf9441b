"""The compatible surface as a caller's tongue, under the names of `translators.tongue`.

What is not in a call or an answer is DashScope's own: the headers that are refused, how a body is read, the head of a
stream and what shows in a silent one. Source: spec COM-2, COM-5, COM-12, COM-24.
"""

from __future__ import annotations

from typing import Final

from translators.collected import Collected
from translators.compatible.call import translate, wants_stream
from translators.compatible.chunks import Chunks, Layout
from translators.compatible.failures import failure, failure_headers
from translators.dashscope.call import read
from translators.dashscope.tongue import HEARTBEAT, STREAM_HEADERS, check
from translators.dialogue import Call
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
