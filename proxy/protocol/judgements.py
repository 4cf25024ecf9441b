"""What a gateway answered -> a complaint, "" where the rule is kept, or `NotShown`: the judges of the checks, pure.

An answer of another shape than a judge reads makes it raise `Breach`, or KeyError, TypeError, ValueError and their
like: `proxy.protocol.conformance` takes all of them for a broken rule.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

import orjson

from proxy.protocol import asks, lint
from proxy.protocol.asks import Target
from translators import faults
from translators.dialogue import Json

# Beyond what a model's own end token and a cut at a token border explain, a count is another count.
ANSWER_TOLERANCE: Final = (2, 0.02)
RUNNING_TOLERANCE: Final = (4, 0.1)
# A template may have moved by as much as is learned of it (spec USE-5).
PROMPT_TOLERANCE: Final = (128, 0.0)
# A gateway may render a prompt otherwise than its model does, and count by another vocabulary where it serves one.
FIRST_TOLERANCE: Final = (16, 0.2)
OTHER_TOLERANCE: Final = (16, 0.8)
REJECTED: Final = (429, 503)
# A call that takes so much longer than the same one before it has waited for one that nobody reads any more.
LATE_S: Final = 5.0
LATE_TIMES: Final = 3

# The codes of the service's own error page (partner specification, error codes) that a text call can earn.
CODES: Final = frozenset(
    {
        *(value.code for value in vars(faults).values() if isinstance(value, faults.Fault)),
        *(
            "InvalidURL",
            "InvalidParameter.DataInspection",
            "BadRequest.IllegalInput",
            "BadRequest.UnsupportedFileFormat",
        ),
        *("BadRequest.InputDownloadFailed", "BadRequestException", "BadRequest.ResourceNotExist", "BadRequest"),
        *("InvalidParameter.NotSupportEnableThinking", "APIConnectionError", "Model.AccessDenied", "App.AccessDenied"),
        *("Workspace.AccessDenied", "AccessDenied.Unpurchased", "AllocationQuota.FreeTierOnly", "WorkSpaceNotFound"),
        *("Conflict", "Throttling", "CommodityNotPurchased", "PrepaidBillOverdue", "PostpaidBillOverdue"),
        *("InternalError.Timeout", "SystemError", "ModelServiceFailed", "Throttling.User", "NotFound"),
    }
)

OK: Final = 200
ERROR: Final = 400
ABSENT: Final = 404
_NUMBER: Final = re.compile(r"\d+")
_UUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class Breach(Exception):  # noqa: N818 - a rule is broken, by somebody else's program
    """What came instead of an answer that could be judged."""


class NotShown(Exception):  # noqa: N818 - it is no error: the answer gave nothing to judge by
    """Why nothing can be said."""


@dataclass(frozen=True, slots=True)
class Came:
    """What one request brought.

    status:  0 where no head came
    headers: by their names in lower case
    pieces:  the body, by the chunks of HTTP it came in
    failed:  what kept it from coming whole; "" where it did
    reused:  whether an earlier request had used the connection
    seconds: from connecting to the last byte
    """

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    pieces: tuple[bytes, ...] = ()
    failed: str = ""
    reused: bool = False
    seconds: float = 0.0

    @property
    def body(self) -> bytes:
        """The pieces in one."""
        return b"".join(self.pieces)


# A complaint, or "" where the rule is kept; NotShown where the answers do not say.
Judge = Callable[[Sequence[Came], Target], str]


def answered(came: Came) -> Came:
    """An answer of status 200 that came whole; NotShown where the gateway had no time for us."""
    if came.status in REJECTED:
        raise NotShown(f"answered {came.status}: {cut(came.body)}")
    if came.failed:
        raise Breach(came.failed)
    if came.status != OK:
        raise Breach(f"answered {came.status}: {cut(came.body)}")
    return came


def cut(body: bytes, size: int = 160) -> str:
    text = body.decode("utf-8", "replace")
    return text if len(text) <= size else f"{text[:size]}…"


def read(came: Came) -> Json:
    document = orjson.loads(came.body)
    if not isinstance(document, dict):
        raise TypeError(f"no object: {cut(came.body)}")
    return document


def _choice(came: Came) -> Json:
    choice: Json = read(answered(came))["output"]["choices"][0]
    return choice


def streamed(came: Came) -> bytes:
    """The body of a stream; what ended by its time or was refused is no stream."""
    if not answered(came).headers.get("content-type", "").startswith("text/event-stream"):
        raise Breach(f"no stream but {came.headers.get('content-type')}: {cut(came.body)}")
    return came.body


def _packets(came: Came) -> list[Json]:
    """The packets of a stream, without an error frame, read as tolerantly as the most tolerant client does."""
    lines = (line for line in streamed(came).split(b"\n") if line.startswith(b"data:"))
    documents = (parsed(line.removeprefix(b"data:")) for line in lines)
    found = [document for document in documents if isinstance(document, dict) and "output" in document]
    if not found:
        raise Breach(f"no packets: {cut(came.body)}")
    return found


def parsed(text: bytes) -> object:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return None


def _said(packets: Iterable[Json], side: str = "content") -> Iterator[str]:
    """What each packet of an incremental stream adds to one side of its first choice."""
    for packet in packets:
        message = packet["output"]["choices"][0]["message"]
        yield message.get(side) or ""


def calls_of(message: Json) -> list[Json]:
    """The whole calls of a message, each looked at."""
    calls: list[Json] = message.get("tool_calls") or []
    for call in calls:
        if not (call["id"] and call["type"] == "function" and type(call["index"]) is int):
            raise Breach(f"a call without id, index or type: {call}")
        if not isinstance(orjson.loads(call["function"]["arguments"]), dict):
            raise Breach(f"arguments that are no JSON object: {call['function']['arguments']}")
    return calls


def within(said: int, true: int, tolerance: tuple[int, float]) -> bool:
    return abs(said - true) <= max(tolerance[0], tolerance[1] * true)


def status(came: Sequence[Came], _: Target) -> str:
    answered(came[-1])
    return ""


def whole(came: Sequence[Came], _: Target) -> str:
    document = read(answered(came[0]))
    if set(document) != {"output", "usage", "request_id"}:
        return f"the keys {sorted(document)}"
    choice = document["output"]["choices"][0]
    message = choice["message"]
    if message["role"] != "assistant" or not isinstance(message["content"], str):
        return f"a message {message}"
    return "" if type(choice["index"]) is int else "no index"


def ended(came: Sequence[Came], _: Target) -> str:
    finish = _choice(came[0])["finish_reason"]
    return "" if finish in ("stop", "length") else f"finish_reason {finish!r}"


def identified(came: Sequence[Came], _: Target) -> str:
    found = [read(answer).get("request_id") for answer in came]
    return next((f"request_id {one!r}" for one in found if not isinstance(one, str) or not _UUID.fullmatch(one)), "")


def identified_in_header(came: Sequence[Came], _: Target) -> str:
    for answer in came:
        if answer.headers.get("x-request-id") != read(answer).get("request_id"):
            return f"x-request-id {answer.headers.get('x-request-id')!r}, request_id in the body another"
    return ""


def kept(came: Sequence[Came], _: Target) -> str:
    found = read(answered(came[0]))["request_id"]
    return "" if found == asks.KEPT_ID else f"asked with {asks.KEPT_ID}, answered with {found}"


def header(name: str, pattern: str) -> Judge:
    """A header of such a value, blanks and case aside; one that is not there is empty."""
    fits = re.compile(pattern, re.DOTALL)

    def judged(came: Sequence[Came], _: Target) -> str:
        value = answered(came[0]).headers.get(name, "")
        return "" if fits.fullmatch(value.replace(" ", "").lower()) else f"{name}: {value or 'absent'}"

    return judged


def is_stream(came: Sequence[Came], _: Target) -> str:
    streamed(came[0])
    return ""


def is_json(came: Sequence[Came], _: Target) -> str:
    read(answered(came[0]))
    return ""


def refused_as(fault: faults.Fault) -> Judge:
    """A refusal of that status and code."""

    def judged(came: Sequence[Came], _: Target) -> str:
        code = _refusal(came[-1]).get("code")
        due = f"{fault.status} {fault.code} is due"
        return "" if (came[-1].status, code) == (fault.status, fault.code) else f"{due}: {told(came[-1])}"

    return judged


def in_parts_or(fault: faults.Fault) -> Judge:
    """An answer in parts by the multimodal path, or the refusal of a model that is bound to the other."""

    def judged(came: Sequence[Came], target: Target) -> str:
        if came[-1].status != OK:
            return refused_as(fault)(came, target)
        content = _choice(came[-1])["message"]["content"]
        parts = isinstance(content, list) and all(isinstance(part, dict) and "text" in part for part in content)
        return "" if parts else f"content is no list of parts: {told(came[-1])}"

    return judged


def among_answers(judge: Judge) -> Judge:
    """A judge of a refusal, heard only where a good call, the first of those made, is answered."""

    def judged(came: Sequence[Came], target: Target) -> str:
        if came[0].status != OK:
            raise NotShown(f"a good call is answered {came[0].status} as well")
        return judge(came[1:], target)

    return judged


def worded_as(fault: faults.Fault, *, known: bool) -> Judge:
    """A refusal in those words. known: whether the model's limits are, which stand in some."""

    def judged(came: Sequence[Came], _: Target) -> str:
        if came[0].status == OK:
            raise NotShown("not refused")
        due, found = fault.message, str(_refusal(came[0]).get("message"))
        same = due == found if known else _NUMBER.sub("N", due) == _NUMBER.sub("N", found)
        return "" if same else f"{due!r} is due: {found!r}"

    return judged


def _refusal(came: Came) -> Json:
    if came.status in REJECTED:
        raise NotShown(f"answered {came.status}: {cut(came.body)}")
    if came.failed:
        raise Breach(came.failed)
    return read(came)


def told(came: Came) -> str:
    return f"{came.status} {cut(came.body)}"


def locked(came: Sequence[Came], _: Target) -> str:
    if came[0].status == OK:
        raise NotShown("this gateway lets any key in")
    return refused_as(faults.BAD_KEY)(came, _)


def error_shape(came: Sequence[Came], _: Target) -> str:
    for answer in came:
        if answer.status < ERROR:
            raise NotShown("not refused")
        told = read(answer)
        if set(told) != set(lint.ERROR_KEYS) or not all(isinstance(value, str) for value in told.values()):
            return f"an error with the keys {list(told)}"
    return ""


def error_codes(came: Sequence[Came], _: Target) -> str:
    codes = {str(read(answer).get("code")) for answer in came if answer.status >= ERROR}
    if not codes:
        raise NotShown("not refused")
    return "" if codes <= CODES else f"codes of another service: {sorted(codes - CODES)}"


def true_status(came: Sequence[Came], _: Target) -> str:
    """An SSE call refused before its first packet has the status of the JSON call, and JSON."""
    plain, streamed = came
    if plain.status == OK:
        raise NotShown("not refused")
    if streamed.status != plain.status or "json" not in streamed.headers.get("content-type", ""):
        return f"{streamed.status} {streamed.headers.get('content-type')} where the JSON call has {plain.status}"
    return ""


def clean(rule: str, *, incremental: bool | None = None) -> Judge:
    """No complaint of the linter under that rule.

    incremental: whether the streams were asked for so; None where the rule is the same in both
    """

    def judged(came: Sequence[Came], _: Target) -> str:
        shown, found = False, []
        for answer in came:
            try:
                body = streamed(answer)
            except NotShown:
                continue
            shown = True
            found += [said for said in lint.check(body, incremental=incremental) if said.partition(" ")[0] == rule]
        if not shown:
            raise NotShown("no stream came")
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        return f"{found[0]}{more}" if found else ""

    return judged


def whole_frames(came: Sequence[Came], _: Target) -> str:
    for answer in came:
        streamed(answer)
        for piece in answer.pieces:
            if not piece.endswith(b"\n\n"):
                return f"a chunk that ends inside a frame: …{cut(piece[-60:])!r}"
    return ""


def several(came: Sequence[Came], _: Target) -> str:
    packets = _packets(came[0])
    spoken = [said for said in _said(packets) if said]
    if sum(map(len, spoken)) < 8:  # noqa: PLR2004 - a word or two may come at once
        raise NotShown("the answer was too short")
    return "" if len(spoken) > 1 else "the whole text in one packet"


def grows(came: Sequence[Came], _: Target) -> str:
    """Cumulative packets each hold the text so far; the last one all of it."""
    texts = list(_said(_packets(came[0])))
    if len(set(texts)) < 2:  # noqa: PLR2004
        raise NotShown("one packet alone")
    wrong = next((at for at, (one, other) in enumerate(pairwise(texts), 2) if not other.startswith(one)), 0)
    return f"packet {wrong} does not begin with the text of the one before it" if wrong else ""


def _figures(document: Json) -> tuple[int, int, int]:
    """Input, output and total."""
    given, generated, total = (document["usage"][name] for name in lint.FIGURES)
    if not type(given) is type(generated) is type(total) is int:
        raise TypeError(f"usage {document['usage']}")
    return given, generated, total


def on_every(came: Sequence[Came], _: Target) -> str:
    for answer in came:
        for number, packet in enumerate(_packets(answer), 1):
            usage = packet.get("usage")
            if not isinstance(usage, dict) or any(type(usage.get(name)) is not int for name in lint.FIGURES):
                return f"packet {number} has the usage {usage}"
    return ""


def from_the_first(came: Sequence[Came], target: Target) -> str:
    packets = _packets(came[0])
    first, last = _figures(packets[0])[0], _figures(packets[-1])[0]
    near = within(first, last, FIRST_TOLERANCE if target.count else OTHER_TOLERANCE)
    return "" if first > 0 and near else f"input_tokens {first} at first, {last} at last"


def on_the_way(came: Sequence[Came], target: Target) -> str:
    """Output grows with the text: whoever hangs up is billed by the last packet he saw."""
    packets, text = _packets(came[0]), ""
    if len(packets) < 3:  # noqa: PLR2004
        raise NotShown("fewer than three packets")
    final = _figures(packets[-1])[1]
    whole = "".join(_said(packets))
    for number, (packet, said) in enumerate(zip(packets[:-1], _said(packets), strict=False), 1):
        text += said
        output = _figures(packet)[1]
        if text and output <= 0:
            return f"packet {number} shows text and output_tokens {output}"
        # As much of the tokens as of the text, by half, for tokens differ in length; of another vocabulary, by more.
        if output < final * len(text) / max(len(whole), 1) / (2 if target.count else 8) - 2:
            return f"packet {number} shows {len(text)} of {len(whole)} characters and {output} of {final} tokens"
    return ""


def _written(packets: Iterable[Json], count: Callable[[str], int]) -> Iterator[tuple[Json, int]]:
    """Each packet of an incremental stream, and the tokens up to it: chain, text, and the one that ends a chain."""
    chain = text = ""
    for packet in packets:
        (thought,), (said,) = _said([packet], "reasoning_content"), _said([packet])
        chain, text = chain + thought, text + said
        yield packet, count(chain) + count(text) + bool(chain and text)


def counted(came: Sequence[Came], target: Target) -> str:
    """The last packet's output is that of the text."""
    if target.count is None:
        raise NotShown("there is no vocabulary to count by")
    *_, (last, ours) = _written(_packets(came[0]), target.count)
    theirs = _figures(last)[1]
    return "" if within(theirs, ours, ANSWER_TOLERANCE) else f"output_tokens {theirs}, by our count {ours}"


def running(came: Sequence[Came], target: Target) -> str:
    """Every packet's output is that of the text so far."""
    if target.count is None:
        raise NotShown("there is no vocabulary to count by")
    for number, (packet, ours) in enumerate(_written(_packets(came[0]), target.count), 1):
        theirs = _figures(packet)[1]
        if not within(theirs, ours, RUNNING_TOLERANCE):
            return f"packet {number}: output_tokens {theirs}, by our count {ours}"
    return ""


def prompt_counted(came: Sequence[Came], target: Target) -> str:
    if target.prompt is None:
        raise NotShown("there is no template to render by")
    ours, theirs = target.prompt(asks.call(target)), _figures(read(answered(came[0])))[0]
    return "" if within(theirs, ours, PROMPT_TOLERANCE) else f"input_tokens {theirs}, by our count {ours}"


def sums(came: Sequence[Came], _: Target) -> str:
    for answer in came:
        given, generated, total = _figures(read(answered(answer)))
        message = _choice(answer)["message"]
        if generated == 0 and not any(map(message.get, ("content", "reasoning_content", "tool_calls"))):
            raise NotShown("the model said nothing")
        if given <= 0 or generated <= 0 or total != given + generated:
            return f"{given} + {generated} = {total}"
    return ""


def details(came: Sequence[Came], target: Target) -> str:
    last = _packets(came[0])[-1]["usage"]
    details = last.get("output_tokens_details")
    if not isinstance(details, dict) or type(details.get("reasoning_tokens")) is not int:
        return f"no reasoning_tokens in {last}"
    if target.thinks == "always" and "text_tokens" in details:
        return "text_tokens on a model that always thinks"
    if target.thinks == "hybrid" and "text_tokens" not in details:
        return "no text_tokens beside reasoning_tokens"
    return "" if details["reasoning_tokens"] > 0 else "reasoning_tokens 0 where a chain came"


def thought(came: Sequence[Came], _: Target) -> str:
    return "" if any(_said(_packets(came[0]), "reasoning_content")) else "no reasoning_content in any packet"


def did_not_think(came: Sequence[Came], _: Target) -> str:
    return "reasoning_content though thinking is off" if any(_said(_packets(came[0]), "reasoning_content")) else ""


def called(came: Sequence[Came], _: Target) -> str:
    choice = _choice(came[0])
    calls = calls_of(choice["message"])
    if not calls and choice["finish_reason"] == "length":
        raise NotShown("the answer was cut at its limit")
    if not calls:
        return f"no call: {choice['message']}"
    if choice["finish_reason"] != "tool_calls":
        return f"finish_reason {choice['finish_reason']!r} beside calls"
    name = calls[0]["function"]["name"]
    return "" if name == asks.TOOL["function"]["name"] else f"a call of {name!r}, which was not offered"


def maybe_called(came: Sequence[Came], target: Target) -> str:
    if not _choice(came[0])["message"].get("tool_calls"):
        raise NotShown("the model chose to call nothing")
    return called(came, target)


def called_nothing(came: Sequence[Came], _: Target) -> str:
    message = _choice(came[0])["message"]
    return f"calls though none is asked for: {message['tool_calls']}" if "tool_calls" in message else ""


def called_once(came: Sequence[Came], _: Target) -> str:
    calls = calls_of(_choice(came[0])["message"])
    if not calls:
        raise NotShown("the model chose to call nothing")
    return "" if len(calls) == 1 else f"{len(calls)} calls though parallel_tool_calls is not set"


def called_both(came: Sequence[Came], _: Target) -> str:
    calls = calls_of(_choice(came[0])["message"])
    if len(calls) < 2:  # noqa: PLR2004
        raise NotShown(f"the model made {len(calls)} calls")
    indices = [call["index"] for call in calls]
    return "" if indices == list(range(len(calls))) else f"indices {indices}"


def stopped(came: Sequence[Came], _: Target) -> str:
    return stopped_short(_choice(came[0]))


def stopped_short(choice: Json) -> str:
    """A choice whose text ends before the stop, and by it."""
    text = choice["message"]["content"]
    if "gamma" in text:
        return f"the stop is in the text: {text!r}"
    if "beta" not in text:
        raise NotShown(f"the model did not come near the stop: {cut(text.encode())!r}")
    return "" if choice["finish_reason"] == "stop" else f"finish_reason {choice['finish_reason']!r}"


def spoken(usage: Json, column: str) -> int:
    """The tokens of an answer without its chain of thought, which no `max_tokens` limits (spec OUT-8)."""
    generated: int = usage[column] - (usage.get(f"{column}_details") or {}).get("reasoning_tokens", 0)
    return generated


def cut_off(came: Sequence[Came], target: Target) -> str:
    return cut_short(_choice(came[0]), spoken(read(came[0])["usage"], "output_tokens"), target)


def cut_short(choice: Json, output: int, target: Target) -> str:
    """A choice of so many tokens that ends at its limit, and says so."""
    if choice["finish_reason"] == "stop" and output < asks.CUT_AT:
        raise NotShown(f"the model ended by itself, after {output} tokens")
    if choice["finish_reason"] != "length":
        return f"finish_reason {choice['finish_reason']!r} after {output} of {asks.CUT_AT} tokens"
    if target.count and (ours := target.count(choice["message"]["content"])) > asks.CUT_AT + 1:
        return f"{ours} tokens of text at max_tokens {asks.CUT_AT}"
    return ""


def two(came: Sequence[Came], _: Target) -> str:
    document = read(answered(came[0]))
    indices = sorted(choice["index"] for choice in document["output"]["choices"])
    if indices != [0, 1]:
        return f"choices {indices}"
    single = _figures(read(answered(came[1])))[0]
    given = _figures(document)[0]
    return "" if within(given, single, (4, 0.1)) else f"input_tokens {given} for two, {single} for one"


def two_streamed(came: Sequence[Came], target: Target) -> str:
    packets = _packets(came[0])
    counts = Counter(choice["index"] for packet in packets for choice in packet["output"]["choices"])
    if set(counts) != {0, 1}:
        return f"choices {sorted(counts)}"
    return clean("OUT-7")(came, target)


def log_probabilities(came: Sequence[Came], _: Target) -> str:
    choice = _choice(came[0])
    if "logprobs" not in choice:
        return "no logprobs beside the message"
    for entry in choice["logprobs"]["content"]:
        if not {"token", "bytes", "logprob", "top_logprobs"} <= set(entry):
            return f"an entry with {sorted(entry)}"
        if len(entry["top_logprobs"]) > 2 or type(entry["logprob"]) not in (int, float):  # noqa: PLR2004
            return f"an entry {cut(orjson.dumps(entry))}"
    return ""


def json_object(came: Sequence[Came], _: Target) -> str:
    return only_json(_choice(came[0]))


def only_json(choice: Json) -> str:
    """A choice whose text is a JSON object, and nothing beside it."""
    if choice["finish_reason"] == "length":
        raise NotShown("the answer was cut at its limit")
    text = choice["message"]["content"]
    return "" if isinstance(parsed(text.encode()), dict) else f"no JSON object: {cut(text.encode())!r}"


def new_text_only(came: Sequence[Came], _: Target) -> str:
    content = _choice(came[0])["message"]["content"]
    return f"begins with what was given: {content!r}" if content.startswith("Hello") else ""


def reused(came: Sequence[Came], _: Target) -> str:
    answered(came[0])
    answered(came[1])
    return "" if came[1].reused else "the second call needed a connection of its own"


def unharmed(came: Sequence[Came], _: Target) -> str:
    left, after = came
    if left.status != OK:
        raise NotShown(f"the stream to leave was answered {left.status}")
    answered(after)
    return ""


def accepted_soon(came: Sequence[Came], target: Target) -> str:
    usual, *others = came
    unharmed(others, target)
    took_s, usual_s = others[-1].seconds, answered(usual).seconds
    late = took_s > LATE_S + LATE_TIMES * usual_s
    return f"the call after it took {took_s:.1f} s, the same call {usual_s:.1f} s before it" if late else ""


def _offered(came: Came) -> Came:
    """The answer of a route that a gateway need not have."""
    if came.status == ABSENT:
        raise NotShown("there is no such route")
    return answered(came)


def models(came: Sequence[Came], _: Target) -> str:
    listed = read(_offered(came[0]))["output"]["models"]
    return "" if listed and all("model" in row for row in listed) else f"models {cut(orjson.dumps(listed))}"


def tokens(came: Sequence[Came], _: Target) -> str:
    document = read(_offered(came[0]))
    ids = document["output"]["token_ids"]
    return "" if ids and type(document["usage"]["input_tokens"]) is int else "no token_ids"
