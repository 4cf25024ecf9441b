"""The checks of a gateway's OpenAI-compatible surface: requests, judges and rows of the second tongue (COM-1 and on).

They are made and told as those of `proxy.protocol.conformance`, which lays them out for a target of this tongue.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, Final, Literal

import orjson

from proxy.protocol import asks, claims
from proxy.protocol.asks import Ask, Target
from proxy.protocol.judgements import (
    ANSWER_TOLERANCE,
    ERROR,
    OK,
    REJECTED,
    Breach,
    Came,
    Judge,
    NotShown,
    among_answers,
    answered,
    calls_of,
    cut,
    cut_short,
    header,
    only_json,
    parsed,
    read,
    spoken,
    stopped_short,
    streamed,
    told,
    within,
)
from translators.dialogue import Json

COMPLETIONS: Final = "/chat/completions"
FRAME: Final = re.compile(rb"(?::[^\n]*\n+)*data: (?P<data>[^\n]+)")
DONE: Final = b"[DONE]"
FIGURES: Final = ("prompt_tokens", "completion_tokens", "total_tokens")
FINISHES: Final = ("stop", "length", "tool_calls")


# What is asked


def _call(target: Target, text: str = asks.WORDS, **fields: Any) -> Json:
    thinking = {"enable_thinking": False} if target.thinks == "hybrid" else {}
    said = {"messages": [{"role": "user", "content": text}], "max_tokens": 64, "temperature": 0}
    return {"model": target.model, **said, **thinking, **fields}


def _priced(target: Target, name: str, call: Json, **how: Any) -> Ask:
    chain = asks.THINKING_TOKENS if call.get("enable_thinking") or target.thinks == "always" else 0
    prompt = 10 + (len(orjson.dumps(call["messages"])) + len(orjson.dumps(call.get("tools", "")))) // 4
    return Ask(name, call, path=COMPLETIONS, tokens=prompt + chain + call["max_tokens"] * call.get("n", 1), **how)


def requests(target: Target) -> dict[str, Ask]:
    """Every request of these checks, by name."""
    short = _call(target, "Say hello.", max_tokens=8)
    usage = {"include_usage": True}
    named = {"type": "function", "function": {"name": asks.TOOL["function"]["name"]}}
    tools = {"tools": [asks.TOOL], "tool_choice": named if target.thinks != "always" else "auto", "max_tokens": 128}
    refused = {**short, "temperature": 9}
    developer = [{"role": "developer", "content": "Be brief."}, *short["messages"]]
    listed = (
        _priced(target, "reply", _call(target)),
        _priced(target, "stream", _call(target, asks.SCENE, stream=True)),
        _priced(target, "stream usage", _call(target, asks.SCENE, stream=True, stream_options=usage)),
        _priced(
            target,
            "running usage",
            _call(target, asks.SCENE, stream=True, stream_options={**usage, "continuous_usage_stats": True}),
        ),
        _priced(target, "thinking", _call(target, "Is 91 a prime?", stream=True, enable_thinking=True)),
        _priced(target, "tool", _call(target, asks.CITIES, **tools)),
        _priced(target, "tool stream", _call(target, asks.CITIES, stream=True, **tools)),
        _priced(target, "length", _call(target, max_tokens=asks.CUT_AT)),
        _priced(target, "stop", _call(target, stop=["gamma"])),
        _priced(target, "n", _call(target, n=2)),
        _priced(
            target, "json", _call(target, "Give a JSON object with one key.", response_format={"type": "json_object"})
        ),
        _priced(target, "by accept", short, headers={"Accept": "text/event-stream"}),
        _priced(target, "developer", {**short, "messages": developer}),
        _priced(target, "ignored", {**short, "user": "u", "store": False, "metadata": {}, "extra_body": {}}),
        Ask("refused", refused, path=COMPLETIONS),
        Ask("refused stream", {**refused, "stream": True}, path=COMPLETIONS),
        Ask("no model", {**short, "model": "no-such-model"}, path=COMPLETIONS),
        Ask("no key", short, path=COMPLETIONS, manner="no_key"),
        Ask("wrong key", short, path=COMPLETIONS, manner="wrong_key"),
        Ask("no path", short, path="/no-such-path"),
        Ask("models", None, path="/models", method="GET"),
    )
    return {ask.name: ask for ask in listed}


# How it is judged


def _choice(came: Came) -> Json:
    choice: Json = read(answered(came))["choices"][0]
    return choice


def _frames(came: Came) -> list[bytes]:
    """The data of every frame."""
    blocks = streamed(came).split(b"\n\n")
    return [found["data"] for block in blocks if (found := FRAME.fullmatch(block))]


def _chunks(came: Came) -> list[Json]:
    found = [chunk for data in _frames(came) if isinstance(chunk := parsed(data), dict)]
    if not found:
        raise Breach(f"no chunks: {cut(came.body)}")
    if "error" in found[-1]:
        raise Breach(f"an error in the stream: {cut(orjson.dumps(found[-1]))}")
    return found


def _deltas(came: Came) -> Iterator[Json]:
    for chunk in _chunks(came):
        for choice in chunk["choices"]:
            yield choice["delta"]


def _figures(usage: Json) -> tuple[int, int, int]:
    given, generated, total = (usage[name] for name in FIGURES)
    if not type(given) is type(generated) is type(total) is int:
        raise Breach(f"usage {usage}")
    if given <= 0 or generated <= 0 or total != given + generated:
        raise Breach(f"usage {given} + {generated} = {total}")
    return given, generated, total


def whole(came: Sequence[Came], _: Target) -> str:
    """A completion of its form."""
    reply = read(answered(came[0]))
    if reply["object"] != "chat.completion" or not reply["created"] > 0:
        return f"object {reply['object']!r}, created {reply['created']!r}"
    choice = reply["choices"][0]
    message = choice["message"]
    if message["role"] != "assistant" or not isinstance(message["content"], str) or choice["index"] != 0:
        return f"a choice {choice}"
    return "" if choice["finish_reason"] in FINISHES else f"finish_reason {choice['finish_reason']!r}"


def echoed(came: Sequence[Came], target: Target) -> str:
    """The caller's own name of the model."""
    found = read(answered(came[0]))["model"]
    return "" if found == target.model else f"asked {target.model!r}, answered {found!r}"


def identified(came: Sequence[Came], _: Target) -> str:
    """`chatcmpl-` and the id of the header."""
    found, sent = read(answered(came[0]))["id"], came[0].headers.get("x-request-id", "")
    return "" if sent and found == f"chatcmpl-{sent}" else f"id {found!r}, x-request-id {sent!r}"


def is_document(came: Sequence[Came], _: Target) -> str:
    """No stream."""
    read(answered(came[0]))
    return ""


def _error(came: Came) -> Json:
    if came.status in REJECTED:
        raise NotShown(f"answered {came.status}: {cut(came.body)}")
    if came.status < ERROR:
        raise Breach(f"answered {told(came)}")
    error: Json = read(came)["error"]
    return error


def error_shape(came: Sequence[Came], _: Target) -> str:
    """The four keys, and an id beside them."""
    for answer in came:
        error = _error(answer)
        if set(error) != {"message", "type", "param", "code"} or not isinstance(error["message"], str):
            return f"an error {error}"
        if not isinstance(read(answer)["request_id"], str):
            return "no request_id"
    return ""


def refused_as(status: int, code: str | None) -> Judge:
    """An error of that status and code."""

    def judged(came: Sequence[Came], _: Target) -> str:
        found = came[0].status, _error(came[0])["code"]
        return "" if found == (status, code) else f"{status} {code} is due: {told(came[0])}"

    return judged


def locked(came: Sequence[Came], _: Target) -> str:
    """401, where a key is asked for."""
    if came[0].status == OK:
        raise NotShown("this gateway lets any key in")
    error = _error(came[0])
    return "" if came[0].status == 401 and error["type"] else f"401 is due: {told(came[0])}"  # noqa: PLR2004


def true_status(came: Sequence[Came], _: Target) -> str:
    """A refused call for a stream is refused as any other."""
    plain, streaming = came
    _error(plain)
    same = streaming.status == plain.status and "json" in streaming.headers.get("content-type", "")
    return "" if same else f"{told(streaming)} where the JSON call has {plain.status}"


def framed(came: Sequence[Came], _: Target) -> str:
    """`data: ` and a document, each with its blank line; comments may stand before."""
    for answer in came:
        *blocks, rest = streamed(answer).split(b"\n\n")
        if rest:
            return f"the last frame has no blank line behind it: {rest[:40]!r}"
        for block in blocks:
            if FRAME.fullmatch(block) is None and not block.startswith(b":"):
                return f"not a frame: {block[:60]!r}"
    return ""


def done(came: Sequence[Came], _: Target) -> str:
    """`[DONE]` once, at the end."""
    _chunks(came[0])
    frames = _frames(came[0])
    return "" if DONE in frames and frames.index(DONE) == len(frames) - 1 else "[DONE] is not the last frame"


def chunked(came: Sequence[Came], _: Target) -> str:
    """Chunks of their form, all of one id."""
    for answer in came:
        chunks = _chunks(answer)
        if len({chunk["id"] for chunk in chunks}) != 1:
            return "the id changes"
        for chunk in chunks:
            if chunk["object"] != "chat.completion.chunk" or len(chunk["choices"]) > 1:
                return f"a chunk {cut(orjson.dumps(chunk))}"
    return ""


def role_once(came: Sequence[Came], _: Target) -> str:
    """The first chunk says the role, no other does."""
    first, *others = _deltas(came[0])
    if first.get("role") != "assistant":
        return f"the first delta is {first}"
    return "the role comes again" if any(delta.get("role") for delta in others) else ""


def finished(came: Sequence[Came], _: Target) -> str:
    """One finish, behind which nothing comes."""
    reasons = [choice["finish_reason"] for chunk in _chunks(came[0]) for choice in chunk["choices"]]
    if reasons[-1] not in FINISHES:
        return f"the last finish_reason is {reasons[-1]!r}"
    return "" if not any(reasons[:-1]) else "a finish before the end"


def in_pieces(came: Sequence[Came], _: Target) -> str:
    """More than one piece of text."""
    texts = [text for delta in _deltas(came[0]) if (text := delta.get("content"))]
    if sum(map(len, texts)) < 8:  # noqa: PLR2004 - a word or two may come at once
        raise NotShown("the answer was too short")
    return "" if len(texts) > 1 else "the whole text in one chunk"


def ordered(came: Sequence[Came], _: Target) -> str:
    """A chain, and no part of it behind text."""
    spoken, thought = False, False
    for delta in _deltas(came[0]):
        if delta.get("reasoning_content"):
            thought = True
            if spoken or delta.get("content"):
                return "reasoning after or beside content"
        spoken = spoken or bool(delta.get("content"))
    return "" if thought else "no reasoning_content in any chunk"


def usage_asked(came: Sequence[Came], target: Target) -> str:
    """One chunk without choices, the last, with figures that are right."""
    chunks = _chunks(came[0])
    if chunks[-1]["choices"] or any(chunk.get("usage") for chunk in chunks[:-1]):
        return "usage is not in one last chunk without choices"
    _, generated, _ = _figures(chunks[-1]["usage"])
    if target.count:
        ours = target.count("".join(delta.get("content") or "" for delta in _deltas(came[0])))
        chain = target.count("".join(delta.get("reasoning_content") or "" for delta in _deltas(came[0])))
        ours += chain + (chain > 0)
        if not within(generated, ours, ANSWER_TOLERANCE):
            return f"completion_tokens {generated}, by our count {ours}"
    return ""


def usage_unasked(came: Sequence[Came], _: Target) -> str:
    """No usage anywhere."""
    return "usage that nobody asked for" if any(chunk.get("usage") for chunk in _chunks(came[0])) else ""


def usage_running(came: Sequence[Came], _: Target) -> str:
    """Usage on every chunk."""
    chunks = _chunks(came[0])
    return "" if all(chunk.get("usage") for chunk in chunks) else "a chunk without usage"


def usage_reply(came: Sequence[Came], _: Target) -> str:
    """Figures that add up."""
    message = _choice(came[0])["message"]
    if not any(map(message.get, ("content", "reasoning_content", "tool_calls"))):
        raise NotShown("the model said nothing")
    _figures(read(answered(came[0]))["usage"])
    return ""


def called(came: Sequence[Came], _: Target) -> str:
    """A call of the function that was offered."""
    choice = _choice(came[0])
    made = calls_of(choice["message"])
    if not made:
        raise NotShown("the model called nothing")
    if choice["finish_reason"] != "tool_calls":
        return f"finish_reason {choice['finish_reason']!r} beside calls"
    return "" if made[0]["function"]["name"] == asks.TOOL["function"]["name"] else f"a call {made[0]}"


def fragments(came: Sequence[Came], _: Target) -> str:
    """Fragments in order that make JSON; id and name in the first alone."""
    known: list[Json] = []
    arguments: list[str] = []
    for delta in _deltas(came[0]):
        for fragment in delta.get("tool_calls") or ():
            function = fragment["function"]
            if fragment["index"] == len(known):
                if not (fragment["id"] and function["name"] and fragment["type"] == "function"):
                    return f"a first fragment without id, name or type: {fragment}"
                known.append(fragment)
                arguments.append("")
            elif fragment["index"] != len(known) - 1 or fragment.get("id") or function.get("name"):
                return f"a later fragment of another call, or with an id or a name: {fragment}"
            arguments[-1] += function["arguments"]
    if not known:
        raise NotShown("the model called nothing")
    wrong = [text for text in arguments if not isinstance(parsed(text.encode()), dict)]
    return f"arguments that are no JSON object: {wrong[0]}" if wrong else ""


def stopped(came: Sequence[Came], _: Target) -> str:
    """An answer that ends before the stop, and by it."""
    return stopped_short(_choice(came[0]))


def cut_off(came: Sequence[Came], target: Target) -> str:
    """An answer that ends at its limit, and says so."""
    return cut_short(_choice(came[0]), spoken(read(came[0])["usage"], "completion_tokens"), target)


def two(came: Sequence[Came], _: Target) -> str:
    """Two choices, by their indices."""
    indices = [choice["index"] for choice in read(answered(came[0]))["choices"]]
    return "" if sorted(indices) == [0, 1] else f"choices {indices}"


def json_object(came: Sequence[Came], _: Target) -> str:
    """Content that is a JSON object."""
    return only_json(_choice(came[0]))


def models(came: Sequence[Came], _: Target) -> str:
    """A list of models."""
    listed = read(answered(came[0]))
    return "" if listed["object"] == "list" and all(row["id"] for row in listed["data"]) else f"{cut(came[0].body)}"


# The rows: name, group, rule, weight, claim, why, names of requests, judge

_SDK: Final = "openai-python and -node read this form."
_SUMS: Final = "LangChain adds up the usage of all chunks."
_DEEP: Final = "Gateways flag a model that differs."
Row = tuple[str, str, str, Literal["must", "should", "note"], str, str, tuple[str, ...], Judge]
ROWS: Final[tuple[Row, ...]] = (
    ("reply", "surface", "COM-13", "must", "a reply is a chat.completion", _SDK, ("reply",), whole),
    ("model-echo", "surface", "COM-6", "should", "the model as the caller named it", _DEEP, ("reply",), echoed),
    ("id", "surface", "COM-12", "should", "chatcmpl- and x-request-id", "Support asks for it.", ("reply",), identified),
    ("sse-body", "surface", "COM-2", "must", "Accept alone is no stream", _SDK, ("by accept",), is_document),
    ("developer", "surface", "COM-7", "should", "developer is a role", _SDK, ("developer",), whole),
    ("ignored", "surface", "COM-10", "must", "unknown fields are ignored", _SDK, ("ignored",), whole),
    ("models", "surface", "COM-29", "should", "GET /models is a list", "Pickers read it.", ("models",), models),
    ("no-key", "keys", "COM-3", "must", "no key is 401", claims.BRANCH, ("no key",), locked),
    (
        "wrong-key",
        "keys",
        "COM-3",
        "must",
        "a wrong key is 401",
        claims.BRANCH,
        ("reply", "wrong key"),
        among_answers(locked),
    ),
    ("error", "errors", "COM-25", "must", "error has its four keys", _SDK, ("refused", "no model"), error_shape),
    (
        "range",
        "errors",
        "COM-8",
        "must",
        "temperature 9 is 400 invalid_parameter_error",
        claims.BRANCH,
        ("refused",),
        refused_as(400, "invalid_parameter_error"),
    ),
    (
        "no-model",
        "errors",
        "COM-6",
        "must",
        "an unknown model is 404 model_not_found",
        claims.BRANCH,
        ("no model",),
        refused_as(404, "model_not_found"),
    ),
    ("no-path", "errors", "COM-30", "should", "404 NotFound", claims.BRANCH, ("no path",), refused_as(404, "NotFound")),
    (
        "status",
        "errors",
        "COM-26",
        "must",
        "streams are refused as JSON",
        _SDK,
        ("refused", "refused stream"),
        true_status,
    ),
    (
        "stream-type",
        "frames",
        "COM-12",
        "must",
        "a stream is text/event-stream",
        _SDK,
        ("stream",),
        header("content-type", "text/event-stream.*"),
    ),
    ("frame", "frames", "COM-15", "must", "data:, a space, JSON", _SDK, ("stream", "stream usage"), framed),
    ("done", "frames", "COM-15", "must", "[DONE] ends a stream", "Clients wait for it.", ("stream",), done),
    ("chunk", "frames", "COM-16", "must", "chunks of one id, one choice", _SDK, ("stream", "tool stream"), chunked),
    ("role", "frames", "COM-17", "must", "the role comes once, first", "Helpers join roles.", ("stream",), role_once),
    ("finish", "frames", "COM-20", "must", "one finish, at the end", _SDK, ("stream",), finished),
    ("pieces", "frames", "COM-18", "must", "text comes in pieces", "Users wait else.", ("stream",), in_pieces),
    ("usage-asked", "usage", "COM-21", "must", "usage in a last chunk", claims.BILLED, ("stream usage",), usage_asked),
    ("usage-unasked", "usage", "COM-21", "must", "no usage unasked", _SUMS, ("stream",), usage_unasked),
    ("usage-reply", "usage", "COM-14", "must", "a reply's usage adds up", claims.BILLED, ("reply",), usage_reply),
    (
        "usage-running",
        "usage",
        "COM-22",
        "note",
        "continuous_usage_stats puts it on every chunk",
        claims.BILLED,
        ("running usage",),
        usage_running,
    ),
    ("tool", "tools", "COM-13", "must", "a call has its fields", claims.LOOPS, ("tool",), called),
    ("tool-stream", "tools", "COM-19", "must", "fragments make a call", claims.LOOPS, ("tool stream",), fragments),
    (
        "length",
        "answers",
        "COM-8",
        "must",
        "max_tokens ends by length",
        claims.STRINGS,
        ("length",),
        cut_off,
    ),
    ("stop", "answers", "COM-8", "must", "a stop ends by stop", claims.STRINGS, ("stop",), stopped),
    ("json", "answers", "COM-8", "must", "json_object is one", "It is parsed unseen.", ("json",), json_object),
)
# Of models that think, and of those that need not.
THINKING: Final[tuple[Row, ...]] = (
    ("reasoning", "thinking", "COM-18", "must", "reasoning before content", _SDK, ("thinking",), ordered),
)
PLAIN: Final[tuple[Row, ...]] = (("n", "answers", "COM-23", "must", "n choices", claims.STRINGS, ("n",), two),)


def rows(target: Target) -> tuple[Row, ...]:
    """The rows that apply to a target."""
    thinks = THINKING if target.thinks != "never" else ()
    return (*ROWS, *thinks, *(PLAIN if target.thinks != "always" else ()))
