"""Records of calls that have ended, as tests make them up."""

from __future__ import annotations

from typing import Any, cast

from proxy.metering.journal import Closing, Opening, Record
from tests.proxy.metering.records import Json, closed, opened, used

# Halves and quarters, whose sums are exact. Times are in milliseconds.
TIMES = {"upstream_sent": 125.0, "first_packet": 250.0, "last_packet": 2250.0, "closed": 2500.0}
FACTS: Json = {
    "request_id": "id-a",
    "api": "dashscope",
    "key_id": "9f86d081884c",
    "model": "deepseek-v3.2",
    "asked_model": "deepseek-v3.2",
    "stream": True,
    "finish_reasons": ("stop",),
    "limited": False,
    "tries": [("p", "http://a", False), ("q", "http://b", True)],
    "read_s": 0.125,
    "translate_s": 0.0625,
    "fault": None,
    "cause": None,
    "upstream_said": None,
    "trace_id": None,
}
ATTEMPTS = [{"target": f"http://{name}", "result": result} for name, result in (("a", "unreachable"), ("b", "200"))]


def ended(closing: Json | None = None, **facts: Any) -> Record:
    """An answered stream, second try; or what else is said of it."""
    figures = {"usage": used(10, 17, 5, 4), "generated": used(11, 18, 6, 3), "drift_tokens": -3}
    told = closed("a", **{**figures, "t": TIMES, "attempts": ATTEMPTS, **(closing or {})})
    said = {"opening": cast("Opening", opened("a")), **FACTS, **facts}
    return Record(closing=cast("Closing", told), **said)
