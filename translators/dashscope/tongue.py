"""DashScope as a caller's tongue: what the pipe and the shell need of it, under the names of `translators.tongue`.

Source: spec HTTP-5, SSE-1, ERR-1.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from translators.collected import Collected
from translators.dashscope.call import read, translate
from translators.dashscope.packets import Cumulative, Frames, Incremental, Shape
from translators.dashscope.packets import error as failure
from translators.dialogue import Call, Json
from translators.faults import Fault
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

API: Final = "dashscope"
SSE_HEADER: Final = "x-dashscope-sse"


def wants_stream(headers: Mapping[str, str], document: Json) -> bool:  # noqa: ARG001 - another tongue looks there
    """Whether the headers ask for SSE; an explicit `disable` wins over all (spec HTTP-5, HTTP-14)."""
    enabled = False
    # Where a header came twice, `get` would tell the first line alone.
    for name, value in headers.items():
        if len(name) == len(SSE_HEADER) and name.lower() == SSE_HEADER:
            word = value.strip().lower()
            if word == "disable":
                return False
            enabled = enabled or word == "enable"
    if enabled:
        return True
    named = headers.get("Accept", "") + "," + headers.get("Content-Type", "")
    return "text/event-stream" in named.lower()


def writer(call: Call, tally: Tally, *, request_id: str, at_s: float) -> Writer:  # noqa: ARG001 - no packet says a time
    """Packets of what is new, packets of all so far, or one reply: as the call asks."""
    shape = Shape(call, tally, request_id)
    if not call.stream:
        return Collected(shape)
    return Incremental(Frames(shape)) if call.incremental else Cumulative(Frames(shape))


def failure_headers(fault: Fault, now_s: float) -> Mapping[str, str]:  # noqa: ARG001
    """None of its own."""
    return {}
