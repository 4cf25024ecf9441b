"""Which copies of a recorded call would be what was sent or said, and why another would not be.

The page offers these copies, `calls replay` makes the first of them again, the simulator plays upstream's side.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

# Why there is no copy, as the page says it.
BODY_CUT: Final = "its body is longer than what is kept of a call"
BODY_UNREAD: Final = "its body was never read, for it was refused for what stands before it"
NEVER_SENT: Final = "it never went upstream"
ANSWER_CUT: Final = "upstream's side is longer than what is kept of a call"
NO_STREAM: Final = "golden cases are of upstream's streams"
NO_SDK: Final = "no SDK calls this path"
REASONS: Final = (BODY_CUT, BODY_UNREAD, NEVER_SENT, ANSWER_CUT, NO_STREAM, NO_SDK)

# How the paths end that an SDK calls.
SDK_PATHS: Final = ("/text-generation/generation", "/multimodal-generation/generation", "/chat/completions")


def not_offered(document: Mapping[str, Any]) -> dict[str, str]:
    """Why not, for each copy that would not be true: of `curl`, `python`, `upstream` and `golden`."""
    caller, sent = document["caller"], document["upstream"]
    asking = _of_caller(caller)
    never = "" if sent else NEVER_SENT
    cut = ANSWER_CUT if document["lost_bytes"] else ""
    has_bodies = all(call["body"] != {"text": ""} for call in sent)
    streams = all(call["content_type"] == "text/event-stream" for call in sent)
    reasons = {
        "curl": asking,
        "python": asking or ("" if caller["path"].endswith(SDK_PATHS) else NO_SDK),
        "upstream": never or ("" if has_bodies else cut),
        "golden": asking or never or cut or ("" if streams else NO_STREAM),
    }
    return {copy: reason for copy, reason in reasons.items() if reason}


def why_not_again(document: Mapping[str, Any]) -> str:
    """Why a call cannot be made again as its caller made it; "" where it can."""
    return _of_caller(document["caller"])


def why_not_whole(recorded: Mapping[str, Any]) -> str:
    """Why an answer cannot be played, or held against another; "" where all of it is kept."""
    lost = recorded.get("lost_bytes")
    return f"{lost:,} bytes of it are not kept: a call is kept up to a bound" if lost else ""


def _of_caller(caller: Mapping[str, Any]) -> str:
    if caller.get("lost_bytes"):
        return BODY_CUT
    sent = {name.lower(): value for name, value in caller["headers"].items()}
    has_body = sent.get("content-length", "0") != "0" or "transfer-encoding" in sent
    return BODY_UNREAD if caller["read_ms"] is None and has_body else ""
