"""What upstream says when it fails into the fault the caller reads: one table, every body shape, nothing raw.

Source: upstream error bodies as recorded and captured (DeepSeek, vLLM, SGLang, llama.cpp, SiliconFlow, Ark);
upstream.md D; spec ERR-1…ERR-3.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import orjson

from translators import faults

# Longer failure bodies are pages for people; their first part tells as much.
BODY_LIMIT: Final = 64 * 1024
SENTENCE_LIMIT: Final = 300
# Where the caller may be told when to come back (spec ERR-4).
RETRIED: Final = (429, 503)


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


class Terms(NamedTuple):
    """What a call was made under, as far as its failure can depend on it.

    input_limit: the model's longest prompt in tokens, for the fault that names it
    own_key:     whether the upstream key is the operator's, so that the caller is not to blame for it
    """

    input_limit: int
    own_key: bool


Verdict = Callable[[Failure, Terms], faults.Fault]


@dataclass(frozen=True, slots=True)
class Row:
    """One kind of failure: for these statuses, where these words are said (any words if None), this fault.

    fault:   or what makes it of the failure and the call's terms
    own_key: the fault where the key is ours, if the caller is then not to blame
    """

    statuses: Collection[int]
    words: str | None
    fault: faults.Fault | Verdict
    own_key: faults.Fault | None = None

    def matches(self, failure: Failure) -> bool:
        """Whether this is the failure the row speaks of."""
        said = self.words is None or re.search(self.words, failure.words)
        return failure.status in self.statuses and bool(said)


def _too_long(failure: Failure, terms: Terms) -> faults.Fault:
    """The longest prompt there can be: the model's own limit, or upstream's where that is smaller."""
    found = CONTEXT_TOKENS.search(failure.words)
    upstream_limit = int(found[1]) if found else 0
    return faults.input_length(min(upstream_limit or terms.input_limit, terms.input_limit))


def _parameter(failure: Failure, _terms: Terms) -> faults.Fault:
    """Upstream's own sentence about a parameter, cleaned; the plain text where nothing readable is left."""
    sentence = _clean(failure.text)
    return faults.invalid(sentence) if sentence else faults.BODY_INVALID


CONTEXT: Final = (
    r"maximum context length|longer than the model's context|exceeds? the (available |model's )?(maximum )?context"
    r"|input token exceed|exceed_context_size|context_length_exceeded|max_model_len"
)
CONTEXT_TOKENS: Final = re.compile(r"(?:context length (?:is|of) |context (?:length|size) \()(\d{1,9}) tokens")
INPUT_RISK: Final = r"content exists risk|inputtextriskdetection|inputimageriskdetection|sensitivecontentdetected"
OUTPUT_RISK: Final = r"outputtextriskdetection|outputimageriskdetection|content_filter"

_ANY: Final = range(1000)

# First match wins: what was said before where it was said, and the narrow before the wide.
ROWS: Final = (
    Row([*range(400, 500), 500], CONTEXT, _too_long),
    Row(_ANY, INPUT_RISK, faults.INPUT_MODERATED),
    Row(_ANY, OUTPUT_RISK, faults.OUTPUT_MODERATED),
    Row(
        [402, 403],
        r"\bbalance\b|overdue|arrear|insufficient.(quota|funds|credit)",
        faults.ARREARAGE,
        faults.ACCOUNT_OVERDUE,
    ),
    Row(_ANY, r"accountoverdue|insufficient balance", faults.ARREARAGE, faults.ACCOUNT_OVERDUE),
    Row([400, 422], None, _parameter),
    Row([401], None, faults.BAD_KEY, faults.UPSTREAM_KEY_REFUSED),
    Row([402], None, faults.ARREARAGE, faults.ACCOUNT_OVERDUE),
    Row([403], None, faults.ACCESS_DENIED),
    Row([404], None, faults.MODEL_NOT_FOUND),
    Row([408, 504], None, faults.TIMED_OUT),
    Row([413], None, faults.BODY_TOO_LARGE),
    Row([429], r"token|quota|\btpm\b|\bbalance\b", faults.QUOTA_EXCEEDED),
    Row([429], None, faults.RATE_LIMITED),
    Row([503, 529], None, faults.OVERLOADED),
    Row(range(500, 600), r"enginecore|inference|cuda|out of memory", faults.INFERENCE),
    Row(_ANY, None, faults.UPSTREAM_BROKEN),
)

# What must not leave: keys, addresses, hosts, paths, ids; and the name of whoever stands behind us.
SECRETS: Final = (
    (r"\bhttps?://\S+|\S+@\S+|\blocalhost(?::\d+)?", ""),
    (r"\b(?:[\w-]+\.)+(?:com|cn|net|org|io|ai|local|internal|svc)\b\S*", ""),
    (r"\b\d{1,3}(?:\.\d{1,3}){3}(?::\d+)?\b", ""),
    (r"\b(?:sk|ak|key)-[\w*-]{8,}|[\w-]*\*{2,}[\w-]*|\b[\w-]{32,}\b", ""),
    (r"(?:/[\w.-]+){2,}", ""),
    (r"\(?\b(?:request|trace)[ _-]?id:?\s*[\w-]*\)?", ""),
    (r"\b(?:deepseek|siliconflow|volc\w*|vllm|sglang|llama\.cpp)\b(?!-)", "the model service"),
)
# A page or a stack trace: nothing in it is for the caller.
UNREADABLE: Final = re.compile(r"<[a-z!/]|traceback", re.IGNORECASE)


def of_response(status: int, raw: bytes, terms: Terms, retry_after: str | None = None) -> faults.Refusal:
    """What an HTTP answer other than a success means.

    raw: the first `BODY_LIMIT` bytes of its body: JSON of any known shape, plain text, HTML
    """
    refusal = _refusal(_read(status, raw), terms)
    if retry_after is None or refusal.fault.status not in RETRIED:
        return refusal
    return faults.Refusal(refusal.fault.after(retry_after), refusal.cause)


def is_failure(chunk: Mapping[str, Any]) -> bool:
    """Whether an event, or the body of a success, is a failure: nested, or flat and without an answer."""
    if chunk.get("error") is not None:
        return True
    flat = chunk.get("object") == "error" or ("code" in chunk and "message" in chunk)
    return flat and chunk.get("choices") is None and chunk.get("usage") is None


def of_event(chunk: Mapping[str, Any], terms: Terms) -> faults.Refusal:
    """What an error object in an open stream, or in the body of a success, means."""
    error = chunk.get("error")
    if error is None:
        parts: Mapping[str, Any] = chunk
    else:
        parts = error if isinstance(error, dict) else {"message": error}
    code = parts.get("code")
    status = code if type(code) is int and code in range(400, 600) else 500
    return _refusal(_failure(status, parts), terms)


def _refusal(failure: Failure, terms: Terms) -> faults.Refusal:
    row = next(row for row in ROWS if row.matches(failure))
    fault = row.own_key if terms.own_key and row.own_key else row.fault
    return faults.Refusal(
        fault if isinstance(fault, faults.Fault) else fault(failure, terms),
        f"upstream failed with {failure.status}: {_clean(failure.text)}",
    )


def _read(status: int, raw: bytes) -> Failure:
    """The four JSON shapes (nested, flat, `detail`, `code/message/data`), plain text and pages."""
    try:
        document = orjson.loads(raw)
    except orjson.JSONDecodeError:
        text = raw.decode("utf-8", "replace")
        return Failure(status, text.lower()[:BODY_LIMIT], text)
    if not isinstance(document, dict):
        return Failure(status, str(document).lower()[:BODY_LIMIT], "")
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
    if UNREADABLE.search(text):
        return ""
    sentence = " ".join(text[: SENTENCE_LIMIT * 4].split())
    for pattern, instead in SECRETS:
        sentence = re.sub(pattern, instead, sentence, flags=re.IGNORECASE)
    return " ".join(sentence.split())[:SENTENCE_LIMIT].strip(" ,;:")
