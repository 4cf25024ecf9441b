"""Lines of a journal as tests write them by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson

from proxy.metering.journal import Closing, Opening

Json = dict[str, Any]


def used(given: int, generated: int, reasoning: int | None = None, cached: int | None = None) -> Json:
    shape: Json = {"input_tokens": given, "output_tokens": generated, "total_tokens": given + generated}
    if reasoning is not None:
        shape["output_tokens_details"] = {"reasoning_tokens": reasoning, "text_tokens": generated - reasoning}
    if cached is not None:
        shape["prompt_tokens_details"] = {"cached_tokens": cached}
    return shape


def upstream_call(prompt: int | None, completion: int | None, **said: Any) -> Json:
    """One entry of a line's `calls`."""
    facts = {"cached": 0, "reasoning": 0, "basis": "upstream_final", "end": "stop"}
    return {"prompt": prompt, "completion": completion, **facts, **said}


def opened(call: str | None, **said: Any) -> Json:
    facts = {
        "at": "2026-11-22T10:00:00.000Z",
        "request_id": f"id-{call}",
        "api": "dashscope",
        "model": "deepseek-v3",
        "upstream_model": "deepseek-chat",
        "key_id": "9f86d081884c",
        "key_name": "team a",
        "stream": True,
        "thinking": False,
    }
    return {"ev": "open", "call": call, **facts, **said}


def closed(call: str | None, **said: Any) -> Json:
    facts = {
        "outcome": "ok",
        "status": 200,
        "code": None,
        "usage": used(3, 4),
        "generated": used(3, 4),
        "basis": "upstream_final",
        "drift_tokens": 0,
        "packets": 2,
        "bytes_out": 100,
        "attempts": [{"target": "http://a", "result": "200", "reused": False}],
        "t": {"upstream_sent": 1.0, "first_packet": 2.0, "last_packet": 3.0, "closed": 4.0},
    }
    return {**opened(call), "ev": "close", **facts, **said}


def named(number: int) -> str:
    """A call as a journal names it: its process, and a running number."""
    return f"0ba9543b5961-{number:x}"


def written(record: Json) -> bytes:
    """A line with its members in the order in which a journal writes them."""
    order = ["ev", "call", *Opening.__annotations__, *(Closing.__annotations__ if record["ev"] == "close" else ())]
    return line({name: record[name] for name in order})


def line(record: object) -> bytes:
    return orjson.dumps(record) + b"\n"


def write(path: Path, *records: Json | bytes) -> Path:
    path.write_bytes(b"".join(record if isinstance(record, bytes) else line(record) for record in records))
    return path
