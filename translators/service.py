"""What every surface of the service has in common on HTTP: refused headers, the head of a stream, a sign of life in it.

Source: spec HTTP-7, HTTP-9, SSE-11, COM-12, COM-24.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from translators import faults

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
