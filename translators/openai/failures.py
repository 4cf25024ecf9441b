"""What upstream says when it fails, into the fault the caller reads: one table, every body shape, nothing passed on raw.

Source: upstream error bodies as recorded and captured (DeepSeek, vLLM, SGLang, llama.cpp, SiliconFlow, Ark); spec ERR-1…ERR-3.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson

from translators import faults

# Longer failure bodies are pages for people; their first part tells as much.
BODY_LIMIT: Final = 64 * 1024
SENTENCE_LIMIT: Final = 300


@dataclass(frozen=True, slots=True)
class Failure:
    """One upstream failure as it was read.

    status: HTTP status, or the number inside an error event; 500 where there is neither
    words:  everything upstream said about it, lower case: message, type, code
    text:   its sentence
    """

    status: int
    words: str
    text: str


@dataclass(frozen=True, slots=True)
class Terms:
    """What a call was made under, as far as its failure can depend on it.

    input_limit: the model's longest prompt in tokens, for the fault that names it
    own_key:     whether the upstream key is the operator's, so that the caller is not to blame for it
    """

    input_limit: int
    own_key: bool


@dataclass(frozen=True, slots=True)
class Row:
    """One kind of failure: for these statuses, where these words are said (any words if None), this fault.

    own_key: the fault where the key is ours, if the caller is then not to blame
    """

    statuses: range
    words: re.Pattern[str] | None
    fault: faults.Fault
    own_key: faults.Fault | None = None


def _said(words: str) -> re.Pattern[str]:
    return re.compile(words)


_ANY = range(1000)
_CLIENT = range(400, 500)
CONTEXT: Final = _said(
    r"maximum context length|longer than the model's context|exceeds? the (available |model's )?(maximum )?context"
    r"|input token exceed|exceed_context_size|context_length_exceeded|max_model_len"
)
CONTEXT_TOKENS: Final = re.compile(
    r"context length (?:is|of) (\d{1,9}) tokens|context length \((\d{1,9}) tokens\)|context size \((\d{1,9}) tokens\)"
)

# First match wins: what was said before where it was said, and the narrow before the wide.
ROWS: Final = (
    Row(
        _ANY,
        _said(r"content exists risk|inputtextriskdetection|inputimageriskdetection|sensitivecontentdetected"),
        faults.INPUT_MODERATED,
    ),
    Row(_ANY, _said(r"outputtextriskdetection|outputimageriskdetection|content_filter"), faults.OUTPUT_MODERATED),
    Row(range(402, 404), _said(r"balance|overdue|insufficient|arrear"), faults.ARREARAGE, faults.ACCOUNT_OVERDUE),
    Row(_ANY, _said(r"accountoverdue|insufficient balance"), faults.ARREARAGE, faults.ACCOUNT_OVERDUE),
    Row(range(401, 402), None, faults.BAD_KEY, faults.UPSTREAM_KEY_REFUSED),
    Row(range(402, 403), None, faults.ARREARAGE, faults.ACCOUNT_OVERDUE),
    Row(range(403, 404), None, faults.ACCESS_DENIED),
    Row(range(404, 405), None, faults.MODEL_NOT_FOUND),
    Row(range(408, 409), None, faults.TIMED_OUT),
    Row(range(413, 414), None, faults.BODY_TOO_LARGE),
    Row(range(429, 430), _said(r"token|quota|tpm|balance"), faults.QUOTA_EXCEEDED),
    Row(range(429, 430), None, faults.RATE_LIMITED),
    Row(range(503, 504), None, faults.OVERLOADED),
    Row(range(529, 530), None, faults.OVERLOADED),
    Row(range(504, 505), None, faults.TIMED_OUT),
    Row(range(500, 600), _said(r"enginecore|inference|cuda|out of memory"), faults.INFERENCE),
    Row(_ANY, None, faults.UPSTREAM_BROKEN),
)

# What must not leave: keys, addresses, hosts, paths, ids; and the name of whoever stands behind us.
SECRETS: Final = (
    (re.compile(r"\bhttps?://\S+|\b[\w-]+(?:\.[\w-]+)+\.(?:com|cn|net|org|io|ai|local|internal|svc)\S*"), ""),
    (re.compile(r"\b\d{1,3}(?:\.\d{1,3}){3}(?::\d+)?\b"), ""),
    (re.compile(r"\b(?:sk|ak|key)-[\w*-]+|\*{2,}\w+|\b[\w-]{32,}\b"), ""),
    (re.compile(r"(?:/[\w.-]+){2,}"), ""),
    (re.compile(r"\(?\b(?:request|trace)[ _-]?id:?\s*[\w-]*\)?", re.IGNORECASE), ""),
    (
        re.compile(r"\b(?:deepseek|siliconflow|volc\w*|vllm|sglang|llama\.cpp)\b(?!-)", re.IGNORECASE),
        "the model service",
    ),
)


def of_response(status: int, raw: bytes, terms: Terms, retry_after: str | None = None) -> faults.Refusal:
    """What an HTTP answer other than a success means.

    raw: the first `BODY_LIMIT` bytes of its body: JSON of any known shape, plain text, HTML
    """
    refusal = _refusal(_read(status, raw), terms)
    if refusal.fault.status in (429, 503) and retry_after is not None:
        refusal.fault = refusal.fault.after(retry_after)
    return refusal


def of_event(chunk: Mapping[str, Any], terms: Terms) -> faults.Refusal:
    """What an error object in an open stream, or in the body of a success, means."""
    error = chunk["error"]
    parts = error if isinstance(error, dict) else {"message": error}
    code = parts.get("code")
    status = code if type(code) is int and code in range(400, 600) else 500
    return _refusal(_failure(status, parts), terms)


def _refusal(failure: Failure, terms: Terms) -> faults.Refusal:
    cause = f"upstream failed with {failure.status}: {_clean(failure.text)}"
    if (failure.status in _CLIENT or failure.status == 500) and CONTEXT.search(failure.words):
        return faults.Refusal(faults.input_length(_context(failure, terms.input_limit)), cause)
    if failure.status in (400, 422) and not any(
        row.words is not None and failure.status in row.statuses and row.words.search(failure.words) for row in ROWS
    ):
        return faults.Refusal(_parameter(failure), cause)
    row = next(
        row for row in ROWS if failure.status in row.statuses and (row.words is None or row.words.search(failure.words))
    )
    return faults.Refusal(row.own_key if terms.own_key and row.own_key else row.fault, cause)


def _parameter(failure: Failure) -> faults.Fault:
    """Upstream's own sentence about a parameter, cleaned; the plain text where nothing readable is left."""
    sentence = _clean(failure.text)
    return faults.invalid(sentence) if sentence else faults.BODY_INVALID


def _context(failure: Failure, input_limit: int) -> int:
    """The longest prompt there can be: the model's own limit, or upstream's where that is smaller."""
    found = CONTEXT_TOKENS.search(failure.words)
    limits = [int(group) for group in (found.groups() if found else ()) if group] + [input_limit]
    return min(limit for limit in limits if limit) if any(limits) else 1


def _read(status: int, raw: bytes) -> Failure:
    """The four JSON shapes (nested, flat, `detail`, `code/message/data`), plain text and pages."""
    try:
        document = orjson.loads(raw)
    except orjson.JSONDecodeError:
        text = raw.decode("utf-8", "replace")
        return Failure(status, text.lower(), "" if "<" in text else text)
    if not isinstance(document, dict):
        return Failure(status, str(document).lower()[:SENTENCE_LIMIT], "")
    error = document.get("error")
    if isinstance(error, dict):
        return _failure(status, error)
    if isinstance(error, str):
        return _failure(status, {"message": error, **document})
    return _failure(status, document)


def _failure(status: int, parts: Mapping[str, Any]) -> Failure:
    text = parts.get("message") or parts.get("detail") or ""
    text = text if isinstance(text, str) else ""
    words = " ".join(str(parts.get(name, "")) for name in ("type", "code")) + " " + text
    return Failure(status, words.lower()[:BODY_LIMIT], text)


def _clean(text: str) -> str:
    """A sentence fit to leave: one line, of bounded length, without keys, addresses, hosts, paths and ids."""
    if "traceback" in text.lower() or "<" in text:
        return ""
    sentence = " ".join(text[: SENTENCE_LIMIT * 4].split())
    for pattern, instead in SECRETS:
        sentence = pattern.sub(instead, sentence)
    return " ".join(sentence.split())[:SENTENCE_LIMIT].strip(" ,;:")
