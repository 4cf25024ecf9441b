"""What upstream says when it fails into the fault the caller reads: one table, every body shape, nothing raw.

Source: upstream error bodies as recorded and captured (DeepSeek, vLLM, SGLang, llama.cpp, SiliconFlow, Ark);
SOURCES#deepseek-errors, #engine-errors; spec ERR-1…ERR-3.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple

import orjson

from translators import faults, surrogates

# Longer failure bodies are pages for people; their first part tells as much.
BODY_LIMIT: Final = 64 * 1024
SENTENCE_LIMIT: Final = 300
# As much as is read of one, for what must not leave makes it shorter.
READ_CHARS: Final = SENTENCE_LIMIT * 4
# Where the caller may be told when to come back (spec ERR-4).
RETRIED: Final = (429, 503)


@dataclass(frozen=True, slots=True)
class Failure:
    """One upstream failure as it was read.

    status: HTTP status, or the number inside an error event; 500 where there is neither
    words:  everything upstream said about it, lower case: type, code, sentence
    text:   its sentence
    """

    status: int
    words: str
    text: str


class Terms(NamedTuple):
    """What a call was made under, as far as its failure can depend on it.

    input_limit: the model's longest prompt in tokens, for the fault that names it
    own_key:     whether the upstream key is the operator's, so that the caller is not to blame for it
    known:       keys and hosts of this call, none of which may leave in upstream's words
    """

    input_limit: int
    own_key: bool
    known: tuple[str, ...] = ()


Verdict = Callable[[Failure, Terms], faults.Fault]


@dataclass(frozen=True, slots=True)
class Row:
    """One kind of failure: for these statuses, where these words are said (any words if None), this fault.

    fault:   or what makes it of the failure and the call's terms
    own_key: the fault where the key is ours, if the caller is then not to blame
    cause:   what the operator is told in place of the status
    """

    statuses: Collection[int]
    words: str | None
    fault: faults.Fault | Verdict
    own_key: faults.Fault | None = None
    cause: str = ""

    def matches(self, failure: Failure) -> bool:
        """Whether this is the failure the row speaks of."""
        said = self.words is None or re.search(self.words, failure.words)
        return failure.status in self.statuses and bool(said)


def _too_long(failure: Failure, terms: Terms) -> faults.Fault:
    """The longest prompt there can be: the model's own limit, or upstream's where that is smaller."""
    found = CONTEXT_TOKENS.search(failure.words)
    upstream_limit = int(found[1]) if found else 0
    return faults.input_length(min(upstream_limit or terms.input_limit, terms.input_limit))


def _parameter(failure: Failure, terms: Terms) -> faults.Fault:
    """Upstream's own sentence where it is about a parameter and in plain words; else that there was one."""
    sentence = _freed(failure.text, terms.known)
    words = sentence.split()
    if UNREADABLE.search(sentence) or not (FIELD.search(sentence) and all(map(PLAIN.fullmatch, words))):
        return faults.PARAMETER_REFUSED
    return faults.invalid(" ".join(words)[:SENTENCE_LIMIT].strip(" ,;:"))


CONTEXT: Final = (
    r"maximum context length|longer than the model's context|exceeds? the (available |model's )?(maximum )?context"
    r"|input token exceed|exceed_context_size|context_length_exceeded|max_model_len"
)
CONTEXT_TOKENS: Final = re.compile(r"(?:context length (?:is|of) |context (?:length|size) \()(\d{1,9}) tokens")
INPUT_RISK: Final = r"content exists risk|inputtextriskdetection|inputimageriskdetection|sensitivecontentdetected"
OUTPUT_RISK: Final = r"outputtextriskdetection|outputimageriskdetection|content_filter"

# Of a model that does not see: Ark, hosts of text models, DeepSeek until August 2026, vLLM, llama.cpp (which says 500).
NO_IMAGES: Final = (
    r"not support image input|image input is not supported|only supports text input|unknown variant .?image_url"
    r"|not a multimodal model|at most 0 image"
)

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
    Row([400, 422, 500], NO_IMAGES, faults.NOT_TEXT),
    Row([400, 422], r"download.{0,20}image|fetch.{0,20}image", faults.IMAGE_NOT_LOADED),
    # llama.cpp, which asks for an address in its own name and says 500 of what comes.
    Row([500], r"cannot make get request|failed to download image", faults.IMAGE_NOT_LOADED),
    Row([400, 422], r"failed to load image", faults.IMAGE_NOT_DECODED),
    Row([400, 422], r"unsupported image", faults.IMAGE_KIND),
    Row([400, 422], None, _parameter),
    Row([401], None, faults.BAD_KEY, faults.UPSTREAM_KEY_REFUSED),
    Row([402], None, faults.ARREARAGE, faults.ACCOUNT_OVERDUE),
    Row([403], None, faults.ACCESS_DENIED),
    Row([404], r"(?<!/)model", faults.MODEL_NOT_FOUND),
    Row(
        [404],
        None,
        faults.UPSTREAM_PATH_UNKNOWN,
        cause="upstream answered 404 and named no model (is the base URL right? /chat/completions is added to it)",
    ),
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
    (r"\b\d{1,3}(?:\.\d{1,3}){3}(?::\d+)?\b|(?<![\w:])[\da-f]{0,4}(?::[\da-f]{0,4}){2,}:?\w*", ""),
    (r"\b[a-z]:\\\S*", ""),
    (r"\b(?:sk|ak|key)-[\w*-]{8,}|[\w-]*\*{2,}[\w-]*|\b[\w-]{32,}\b", ""),
    (r"\bbearer\s+\S+|\b(?=\w*\d)(?=\w*[a-z])\w{16,}\b|\b(?:org|proj)-\w+", ""),
    (r"(?:/[\w.-]+){2,}", ""),
    (r"\(?\b(?:request|trace)[ _-]?id:?\s*[\w-]*\)?", ""),
    (r"\b(?:deepseek|siliconflow|volc\w*|vllm|sglang|llama\.cpp)\b(?!-)", "the model service"),
)
# A page or a stack trace: nothing in it is for the caller.
UNREADABLE: Final = re.compile(r"<[a-z!/]|traceback", re.IGNORECASE)
PAGE: Final = re.compile(r"<[a-z!/]", re.IGNORECASE)

# What a caller may read of a refused parameter: a sentence that names a field of the body and is made of what engines
# say of one: its range, its type, its place. All of its words are listed, for a name or a secret is a plain word, too.
_FIELDS: Final = (
    "max_tokens|max_completion_tokens|temperature|top_p|top_k|n|seed|stop|logprobs|top_logprobs|presence_penalty"
    "|frequency_penalty|repetition_penalty|repeat_penalty|response_format|json_schema|json_object|schema|tools?"
    "|tool_choice|tool_calls|tool_call_id|parallel_tool_calls|functions?|parameters|arguments|messages|role|content"
    "|reasoning_content|reasoning_effort|thinking|thinking_budget|thinking_token_budget|enable_thinking|stream"
    "|stream_options|prefix|min_p|logit_bias|best_of|chat_template_kwargs|max_model_len|guided_json|partial|include_usage"
    "|index|name|id|type|text|function|strict|required|properties|description"
)
_WORDS: Final = re.sub(
    r"\s+",
    "|",
    """
    a about above absent accept accepted accepts actual add additional after again all allow allowed allows
    alphanumeric already also always among an and any API are argument array as assistant at attribute available
    back bad be beam because been before begin behind below between beyond body bool boolean both bounds but by can
    cannot character characters choice choices column combination combined compatible conflict conflicts contain
    contained contains context conversation convert count currently data decimal deprecated deserialize detected
    dict dictionary did different digits disabled do does doesn't don't double duplicate duplicated each either
    element elements else empty enabled end enough ensure entry equal error exactly exceed exceeded exceeds
    exclusive exist existing exists expected extra failed fails false few field fields finite first fit float follow
    followed following for forbidden format found four fraction fractional from get given got greater greedy had has
    have high higher if ignore ignored illegal in inclusive incompatible incorrect input inputs instance instead
    insufficient int integer integers into invalid is isn't it item items its JSON key keys large larger last least
    length less like limit limited line list literal long longer low lower malformed map mapping match matching max
    maximum may mean message min minimum missing mode model more most must mutually name named names NaN need needs
    negative neither nested no non non-empty non-negative none nor not now null number numbers object objects of off
    omitted on one only option options or order other out outside over parameter parse parsed parsing part passed
    pattern permitted please positive possible preceding present prompt property provide provided range reach
    received recognized reduce remove replace request requested require requires responding response result role
    roles same sampling schema seed sent sequence set shorter should signed single size small smaller some specified
    specify streaming string strings such support supported supports system target than that the their them there
    these they thinking this those three to together token tokens too true try tuple two types unable unavailable
    unexpected union unknown unless unrecognized unsigned unsupported unterminated up use used user using valid
    validation value values via was were when where whether which while with within without word words wrong you
    your zero
    """.strip(),
)
FIELD: Final = re.compile(rf"\b(?:{_FIELDS})\b")
_NUMBER: Final = r"[-+]?\d{1,10}(?:\.\d{1,6})?"
PLAIN: Final = re.compile(
    r"""["'`(\[{<]*"""
    rf"(?:(?i:{_WORDS})|{_NUMBER}"
    rf"|(?:{_FIELDS})(?:\[\d{{1,4}}\])?(?:\.(?:{_FIELDS})(?:\[\d{{1,4}}\])?){{0,4}}"
    rf"(?:=(?:{_NUMBER}|(?i:{_WORDS})))?)?"
    r"""["'`)\]}>,.:;!?=]*"""
)

# The class of a failure inside a success, by the words of its type and code, letters alone: the first that is met.
# DeepSeek says `invalid_request_error` for a code whatever the type is.
CLASSES: Final = (
    ("ratelimit|toomanyrequests|insufficientquota", 429),
    ("unavailable|overloaded|busy", 503),
    ("authentication", 401),
    ("timeout|timedout", 504),
    ("invalidrequest|badrequest", 400),
)
# The same by a whole sentence, where no field has the class: nothing but what is said of nothing else.
SENTENCES: Final = (
    (r"\btoo many (?:concurrent )?requests\b|\brate[ _-]?limit|\b(?:exceeded|insufficient).{0,40}\bquota\b", 429),
    (r"\boverloaded\b|\b(?:too|is|server) busy\b|\bservice (?:is )?(?:temporarily )?unavailable\b", 503),
    (r"\bunauthori[sz]ed\b|\bnot authenticated\b|\bauthentication fail|\b(?:invalid|incorrect) api[ -]?key\b", 401),
    (r"\btimed?[ -]?out\b", 504),
)
# A failure that is no `error` object: a sentence under one of these names, and what tells of which kind it is.
SAID: Final = ("message", "detail", "msg", "error_msg", "status_msg")
KINDS: Final = ("code", "status", "status_code", "error_code", "errorCode", "type")
# Where a failure inside a success says when to come back, in seconds.
WAITS: Final = ("retry_after", "retryAfter")
# Kinds of what is no failure: relays say so that they are there, and queues that they work (1xx to 3xx of HTTP).
QUIET: Final = frozenset(
    {"0", "ok", "success", "ping", "keepalive", "keep-alive", "heartbeat", "progress", "queued", "processing"}
).union(map(str, range(100, 400)))
# Numbers and words, letters alone, of which one names an error; `error` itself is in most of them.
FAILING: Final = re.compile(r"\s*(?:-\d+|[4-9]\d\d|[1-9]\d{3,})(?:\.0+)?\s*", re.ASCII)
FAILING_WORDS: Final = re.compile(
    "error|fail|exception|abort|denied|forbidden|refuse|reject|unauthori|invalid|illegal|notfound|unsupported|exceed"
    "|limit|exhaust|insufficient|overdue|arrear|throttl|risk|sensitive|filter|internal|unknown|cancel|blocked"
)
# An empty text where others say null.
NO_ERROR: Final = (None, "", False)
# What a field that is only for errors says where there is none.
NO_CODE: Final = frozenset({"0", "200", "ok", "success", "none", "false", ""})
FAILED: Final = range(400, 600)
NUMBER: Final = re.compile(r"\s*(\d{3})(?:\.0+)?\s*", re.ASCII)
LONGEST_WAIT_S: Final = 86_400
HTTP_DATE: Final = re.compile(
    r"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun), \d\d (?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) \d{4}"
    r" \d\d:\d\d:\d\d GMT",
    re.ASCII,
)


def of_response(status: int, raw: bytes, terms: Terms, retry_after: str | None = None) -> faults.Refusal:
    """What an HTTP answer other than a success means.

    raw: the first `BODY_LIMIT` bytes of its body: JSON of any known shape, plain text, HTML
    """
    return waiting(_refusal(_read(status, raw), terms), retry_after)


def waiting(refusal: faults.Refusal, retry_after: object) -> faults.Refusal:
    """The same, with when to come back where upstream tells that and the caller may be told; see `of_response`."""
    if refusal.fault.status not in RETRIED or refusal.fault.retry_after is not None:
        return refusal
    return faults.Refusal(refusal.fault.after(_wait(retry_after)), refusal.cause, refusal.said)


def _wait(value: object) -> str | None:
    """A `Retry-After` that means what it says: seconds up to a day, or a date; nothing for anything else."""
    if isinstance(value, float) and 0 <= value <= LONGEST_WAIT_S:
        value = math.ceil(value)
    said = "" if value is None else str(value).strip()
    if re.fullmatch(r"\d{1,5}", said, re.ASCII) and int(said) <= LONGEST_WAIT_S:
        return said
    return said if HTTP_DATE.fullmatch(said) else None


def is_failure(chunk: Mapping[str, Any]) -> bool:
    """Whether an event, or the body of a success, is a failure: nested, or flat and without an answer."""
    error = chunk.get("error")
    if chunk.get("choices") is not None or chunk.get("usage") is not None:
        # Relays fill every field that there is: an empty object is no error beside an answer.
        return bool(error)
    if any(sign.says(chunk.get(sign.field)) for sign in SIGNS):
        return True
    kinds = [str(chunk[name]).lower() for name in KINDS if chunk.get(name) not in (None, "")]
    if not kinds or not QUIET.isdisjoint(kinds) or all(chunk.get(name) is None for name in SAID):
        return False
    # Words that name no error are of progress, unless their sentence is one of those said of nothing else.
    words = re.sub(r"[^a-z ]", "", " ".join(kinds)[:BODY_LIMIT])
    return (
        any(map(FAILING.fullmatch, kinds))
        or any(re.search(pattern, words) for pattern, _ in CLASSES)
        or FAILING_WORDS.search(words) is not None
        or _status_said(_failure(0, chunk).text, 0) > 0
    )


class Sign(NamedTuple):
    """A field that says by itself that an object is a failure.

    says: whether it does, by its value; None where the field is missing
    why:  who says so, or what else it cannot mean
    """

    field: str
    says: Callable[[Any], bool]
    why: str


def _is_code(value: Any) -> bool:
    return value is not None and str(value).lower() not in NO_CODE


def _is_named_error(value: Any) -> bool:
    return isinstance(value, str) and value.lower() == "error"


SIGNS: Final = (
    Sign("error", lambda value: value not in NO_ERROR, "OpenAI, and all that follow it"),
    Sign("errors", bool, "JSON:API and GraphQL: a list, absent or empty where there is none"),
    Sign("detail", bool, "FastAPI, which SGLang and vLLM are written with"),
    Sign("object", _is_named_error, "SGLang, and vLLM of 2024"),
    Sign("event", _is_named_error, "relays that put the event's name into its data"),
    Sign("type", _is_named_error, "Anthropic's form, which gateways pass on"),
    Sign("success", lambda value: value is False, "gateways' envelope: nothing else is not a success"),
    Sign("error_code", _is_code, "Baidu's form: absent or 0 where there is none"),
    Sign("errorCode", _is_code, "the same as Java services spell it"),
    Sign(
        "base_resp",
        lambda value: isinstance(value, dict) and _is_code(value.get("status_code")),
        "MiniMax's envelope: status_code 0 is success",
    ),
)


def document(data: bytes) -> dict[str, Any]:
    """The data of an event that is an error by its name, as the object that it would be an error as."""
    try:
        said = surrogates.lenient(data)
    except orjson.JSONDecodeError:
        said = data.decode("utf-8", "replace")
    return said if isinstance(said, dict) else {"error": said}


def of_event(chunk: Mapping[str, Any], terms: Terms) -> faults.Refusal:
    """What an error object in an open stream, or in the body of a success, means."""
    parts = _parts(chunk)
    failure = _failure(_status_of(parts), parts)
    refusal = _refusal(replace(failure, status=failure.status or _status_said(failure.text)), terms)
    return waiting(refusal, next((parts[name] for name in WAITS if parts.get(name) is not None), None))


def _parts(document: Mapping[str, Any]) -> Mapping[str, Any]:
    """The fields of a failure: those of the innermost object that is one, else its own."""
    for name in ("error", "errors", "detail", "base_resp"):
        inner = document.get(name)
        if name == "errors" and isinstance(inner, list) and inner:
            inner = inner[0]
        if isinstance(inner, dict) and inner:
            return {**document, **inner}
        if name in ("error", "errors") and isinstance(inner, str) and inner:
            return {**document, "message": document.get("message") or inner}
    return document


def _status_of(parts: Mapping[str, Any]) -> int:
    """The HTTP status that a failure inside a success would have had; 0 where no field tells."""
    for name in KINDS:
        number = NUMBER.fullmatch(str(parts.get(name))[:SENTENCE_LIMIT])
        if number and int(number[1]) in FAILED:
            return int(number[1])
    words = re.sub(r"[^a-z]", "", " ".join(str(parts.get(name, "")) for name in KINDS)[:BODY_LIMIT].lower())
    return next((status for pattern, status in CLASSES if re.search(pattern, words)), 0)


def _status_said(sentence: str, otherwise: int = 500) -> int:
    said = sentence[:READ_CHARS].lower()
    return next((status for pattern, status in SENTENCES if re.search(pattern, said)), otherwise)


def _refusal(failure: Failure, terms: Terms) -> faults.Refusal:
    row = next(row for row in ROWS if row.matches(failure))
    fault = row.own_key if terms.own_key and row.own_key else row.fault
    return faults.Refusal(
        fault if isinstance(fault, faults.Fault) else fault(failure, terms),
        row.cause or f"upstream failed with {failure.status}",
        _clean(_freed(failure.text, terms.known)),
    )


def _read(status: int, raw: bytes) -> Failure:
    """The four JSON shapes (nested, flat, `detail`, `code/message/data`), plain text and pages."""
    try:
        document = surrogates.loads(raw)
    except orjson.JSONDecodeError:
        text = raw.decode("utf-8", "replace")
        return Failure(status, "" if PAGE.search(text) else text.lower()[:BODY_LIMIT], text)
    if not isinstance(document, dict):
        return Failure(status, str(document).lower()[:BODY_LIMIT], "")
    return _failure(status, _parts(document))


def _failure(status: int, parts: Mapping[str, Any]) -> Failure:
    text = next((said for name in SAID if isinstance(said := parts.get(name), str) and said), "")
    text = surrogates.whole(text)
    words = " ".join(str(parts.get(name, "")) for name in ("type", "code", "status")) + " " + text
    return Failure(status, words.lower()[:BODY_LIMIT], text)


def _freed(text: str, known: Sequence[str]) -> str:
    """The text without the very strings that must not leave, whatever they look like; as much as is read of it."""
    text = text[:READ_CHARS]
    for secret in sorted(filter(None, known), key=len, reverse=True):
        text = re.sub(re.escape(secret), "", text, flags=re.IGNORECASE)
    return text


def _clean(text: str) -> str:
    """A sentence fit to leave: one line, of bounded length, without keys, addresses, hosts, paths and ids."""
    if UNREADABLE.search(text):
        return ""
    sentence = " ".join(text[:READ_CHARS].split())
    for pattern, instead in SECRETS:
        sentence = re.sub(pattern, instead, sentence, flags=re.IGNORECASE)
    return " ".join(sentence.split())[:SENTENCE_LIMIT].strip(" ,;:")
