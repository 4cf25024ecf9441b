"""DashScope as a caller's tongue: what the pipe and the shell need of it, under the names of `translators.tongue`.

Source: spec HTTP-5, HTTP-7, HTTP-9, SSE-1, SSE-11, ERR-1.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from translators import faults
from translators.collected import Collected
from translators.dashscope.call import read, translate
from translators.dashscope.packets import Cumulative, Frames, Incremental, Shape
from translators.dashscope.packets import error as failure
from translators.dialogue import Call, Json
from translators.faults import Fault
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

STREAM_HEADERS: Final[Mapping[str, str]] = {
    "Content-Type": "text/event-stream;charset=UTF-8",
    "Cache-Control": "no-cache",
    "X-Accel-Buffering": "no",
    "X-DashScope-Call-Gateway": "true",
}

# A comment line and no blank line: it joins the next frame, so that no client takes it for an event of its own. Clients
# that dispatch on comment + blank line (openai-python's decoder, after an `id:`) would otherwise see an empty event.
HEARTBEAT: Final = b":heartbeat\n"


def check(headers: Mapping[str, str]) -> None:
    """Refuse what a header asks for and no upstream can do (spec HTTP-9)."""
    if headers.get("X-DashScope-Async", "").strip().lower() == "enable":
        raise faults.Refusal(faults.NO_ASYNC)
    if "X-DashScope-EncryptionKey" in headers:
        raise faults.Refusal(faults.ENCRYPTED_BODY)


def wants_stream(headers: Mapping[str, str], document: Json) -> bool:  # noqa: ARG001 - another tongue looks there
    """Whether the headers ask for SSE; an explicit `disable` wins over all (spec HTTP-5, HTTP-14)."""
    # Where a header came twice, `get` would tell the first line alone.
    explicit = {value.strip().lower() for name, value in headers.items() if name.lower() == SSE_HEADER}
    if not explicit.isdisjoint(("enable", "disable")):
        return "disable" not in explicit
    named = headers.get("Accept", "") + "," + headers.get("Content-Type", "")
    return "text/event-stream" in named.lower()


def writer(call: Call, tally: Tally, *, request_id: str, at_s: float) -> Writer:  # noqa: ARG001 - no packet says a time
    """Packets of what is new, packets of all so far, or one reply: as the call asks."""
    shape = Shape(call, tally, request_id)
    if not call.stream:
        return Collected(shape)
    return Incremental(Frames(shape)) if call.incremental else Cumulative(Frames(shape))


def failure_headers(fault: Fault) -> Mapping[str, str]:  # noqa: ARG001
    """None of its own."""
    return {}
