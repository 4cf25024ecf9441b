"""A recorded call as a document, and back: what the page shows, what is taken away, what is played again.

Bytes are text where they are UTF-8, else base64: a read may end inside a character.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

import orjson

from proxy.inspector.recorded import RecordedCall, UpstreamCall
from proxy.metering.journal import Record
from translators.sse import is_stream

# The version of the form; a file of another is not read.
FORM: Final = 1
MARK: Final = "dashseek_call"
MOST_FILE_BYTES: Final = 16 << 20
MODEL_CHARS: Final = 64
OK: Final = 200
ARCHIVE: Final = "an HTTP archive (HAR), which other tools read; `dashseek calls export` without --har writes a call"

Json = dict[str, Any]


class NoCallFile(ValueError):  # noqa: N818 - it says what the file is
    """A file that holds no call; the text says why."""


class Chunk(NamedTuple):
    """What came at once: when, in milliseconds since the call came in, and its bytes."""

    at_ms: float
    wire: bytes


def document_of(call: RecordedCall) -> Json:
    """All that is kept of a call."""
    record = call.record
    return {
        MARK: FORM,
        "number": call.number,
        "request_id": call.request_id,
        "at": datetime.fromtimestamp(call.at_s, UTC).isoformat(timespec="milliseconds"),
        "api": call.api,
        "stream": call.streams,
        "redacted": False,
        "caller": {
            "method": call.method,
            "path": call.path,
            "headers": call.headers,
            "body": coded(call.body),
            "read_ms": call.read_ms,
            "lost_bytes": call.lost_body_bytes,
        },
        "upstream": [_upstream(one) for one in call.upstream],
        "packets": [
            {"at_ms": packet.at_ms, "of": [packet.call, packet.read], **coded(packet.frames)} for packet in call.packets
        ],
        "refusal": coded(call.refusal) if call.refusal else None,
        "ended_ms": call.ended_ms,
        "status": call.status or (record.closing["status"] if record else 0),
        "hint": call.hint,
        "journal": _journal(record),
        "cause": record.cause if record else None,
        "lost_bytes": call.lost_bytes,
    }


def summary_of(call: RecordedCall) -> Json:
    """One line of a list: how it goes, or went."""
    record = call.record
    closing = record.closing if record else None
    first = closing["t"]["first_packet"] if closing else call.packets[0].at_ms if call.packets else None
    asked = call.upstream[0] if call.upstream else None
    return {
        "number": call.number,
        "request_id": call.request_id,
        "at_s": call.at_s,
        "api": call.api,
        "method": call.method,
        "path": call.path,
        "model": _model(call),
        "stream": call.streams,
        "outcome": "stray" if call.status else closing["outcome"] if closing else "open",
        "status": call.status or (closing["status"] if closing else 0),
        "code": closing["code"] if closing else None,
        "cause": call.hint or (record.cause if record else None),
        "input_tokens": closing["usage"]["input_tokens"] if closing else None,
        "output_tokens": closing["usage"]["output_tokens"] if closing else None,
        "packets": closing["packets"] if closing else len(call.packets),
        "read_ms": call.read_ms,
        "asked_ms": asked.asked_ms if asked else None,
        "answered_ms": asked.answered_ms if asked else None,
        "first_ms": first,
        "ended_ms": call.ended_ms,
        "bytes": call.held_bytes,
    }


def _model(call: RecordedCall) -> str:
    """As its caller named it, also while it is open."""
    if call.record is not None and call.record.asked_model:
        call.model = call.record.asked_model
    elif not call.model and call.body:
        try:
            call.model = str(orjson.loads(call.body).get("model", ""))[:MODEL_CHARS] or "?"
        except (orjson.JSONDecodeError, AttributeError):
            call.model = "?"
    return call.model


def _upstream(call: UpstreamCall) -> Json:
    return {
        "target": call.target,
        "pool": call.pool,
        "path": call.path,
        "headers": call.headers,
        "body": coded(call.body),
        "asked_ms": call.asked_ms,
        "status": call.status,
        "content_type": call.content_type,
        "answered_ms": call.answered_ms,
        "ended_ms": call.ended_ms,
        "failure": call.failure,
        "reads": [{"at_ms": read.at_ms, **coded(read.wire)} for read in call.reads],
    }


def _journal(record: Record | None) -> list[Json]:
    """The two lines of the books; a call that was never admitted has one."""
    if record is None:
        return []
    lines: list[Json] = [{"event": "open", **record.opening}] if record.opening else []
    return [*lines, {"event": "close", "request_id": record.request_id, **record.closing}]


def coded(wire: bytes) -> Json:
    """Bytes as they stand in a document."""
    try:
        return {"text": wire.decode()}
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(wire).decode()}


def decoded(said: Mapping[str, Any]) -> bytes:
    """Bytes as they were."""
    return str(said["text"]).encode() if "text" in said else base64.b64decode(said["base64"])


def read(raw: bytes) -> Json:
    """A call from its file; raises `NoCallFile`."""
    if len(raw) > MOST_FILE_BYTES:
        raise NoCallFile(f"longer than any call: {len(raw):,} bytes")
    try:
        document: Any = orjson.loads(raw)
        if MARK not in document and is_archive(raw):
            raise NoCallFile(ARCHIVE)
        if document[MARK] != FORM:
            raise NoCallFile(f"a call of form {document[MARK]}; this version reads form {FORM}")
        decoded(document["caller"]["body"])
        for call in document["upstream"]:
            for chunk in call["reads"]:
                float(chunk["at_ms"])
                decoded(chunk)
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, NoCallFile):
            raise
        raise NoCallFile("not a call as `calls export` writes it") from None
    found: Json = document
    return found


def is_one(raw: bytes) -> bool:
    """Whether bytes look like such a file, and not like an upstream's body."""
    return raw.lstrip()[:1] == b"{" and f'"{MARK}"'.encode() in raw


def is_archive(raw: bytes) -> bool:
    """Whether bytes are an HTTP archive, as `har_of` or a browser writes one."""
    try:
        return "entries" in orjson.loads(raw)["log"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return False


def chunks_of(call: Mapping[str, Any]) -> Iterator[Chunk]:
    """What came in one upstream call, in milliseconds since it was made."""
    for chunk in call["reads"]:
        yield Chunk(float(chunk["at_ms"]) - float(call["asked_ms"]), decoded(chunk))


def answered_of(document: Mapping[str, Any]) -> tuple[int, str]:
    """The status of HTTP and the type of what the caller was handed: a stream that failed on its way began with 200."""
    if is_stream(answer_of(document)):
        return OK, "text/event-stream; charset=utf-8"
    return int(document["status"]), "application/json"


def answer_of(document: Mapping[str, Any]) -> bytes:
    """All that the caller was handed: packets, a reply, or a refusal."""
    return b"".join(map(decoded, handed(document)))


def handed(document: Mapping[str, Any]) -> list[Json]:
    """The same, as it left: the packets in order, or the one refusal."""
    refusal = document.get("refusal")
    return [*document["packets"], *([refusal] if refusal else [])]
