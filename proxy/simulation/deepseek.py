"""A chat-completions body into the answer DeepSeek would give: its refusals, words, chunks and figures; no sockets.

The prompt is counted by the V4 template's marks alone, so a proxy that renders prompts has something to be measured by.
"""

from __future__ import annotations

import codecs
import itertools
import math
import re
import string
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, Final, Literal

import orjson
import pydantic

from config.pools import Dialect as DialectName
from translators import images, tokens
from translators.deepseek import image_tokens
from translators.openai import dialects
from translators.openai.dialects import Dialect
from translators.tokens import Vocabulary

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Script:
    """How the next answer goes; the defaults behave like api.deepseek.com.

    An event is one `data:` line of a stream (the first names the role, the last is `[DONE]`) or half of a JSON body.
    text:                the answer; otherwise it repeats the last user message
    reasoning:           the chain of thought of a call that thinks; otherwise one sentence
    tools:               calls to answer with, each `NAME ARGUMENTS`; otherwise, without a text, the first tool offered
    repeat:              how often the text is said
    endless:             say the text again and again until the caller leaves
    finish_reason:       the finish reason, whatever happened; `-` for no finish at all
    usage:               where a stream that asks for usage gets it: in the finish chunk, its own, every one, or never
    context_tokens:      the longest prompt and answer together, in tokens
    key:                 the only key let in; otherwise any, or none
    status:              an error status to answer with
    error_text:          what that error says; otherwise DeepSeek's words
    error_shape:         the body of that error: DeepSeek's, SGLang's, FastAPI's, a host's, plain text, HTML
    retry_after:         a Retry-After header for that error
    first_byte_delay_s:  seconds before anything comes; with keep-alives, before anything else comes
    gap_s:               seconds between writes
    keep_alive_s:        while waiting, a comment (blank line before JSON) every so many seconds
    stall_after:         fall silent after so many events, the connection left open
    cut_after:           break off after so many events
    cut_by:              break off by FIN, by RST, or by a proper end of the body
    error_event_after:   put an error event into the stream after so many events, and end it
    error_event_status:  the status that event tells
    no_done:             leave out [DONE]
    deltas_per_write:    events in one write
    delta_chars:         characters of one delta; otherwise one token
    split:               bytes of one write at most
    crlf:                end lines with CRLF
    blank_lines:         blank lines before a JSON body
    keepalive_timeout_s: close a connection that has been idle for so long
    replay:              a file, or bytes, to send verbatim as the body; an exported call, as it came and when
    replay_content_type: the content type of that body
    fast:                send an exported call without its waits
    dialect:             the kind of host: how thinking is switched there, and what is not refused
    source:              SOURCES#deepseek-request, #deepseek-stream, #deepseek-errors, #fault-simulation
    """

    text: str | None = None
    reasoning: str | None = None
    tools: tuple[str, ...] = ()
    repeat: int = 1
    endless: bool = False
    finish_reason: str | None = None
    usage: Literal["finish", "own", "every", "never"] = "finish"
    context_tokens: int = 1_048_576
    key: str | None = None
    status: int = 200
    error_text: str | None = None
    error_shape: Literal["nested", "flat", "detail", "host", "text", "html"] = "nested"
    retry_after: str | None = None
    first_byte_delay_s: float = 0.0
    gap_s: float = 0.0
    keep_alive_s: float | None = None
    stall_after: int | None = None
    cut_after: int | None = None
    cut_by: Literal["fin", "rst", "end"] = "fin"
    error_event_after: int | None = None
    error_event_status: int = 500
    no_done: bool = False
    deltas_per_write: int = 1
    delta_chars: int | None = None
    split: int | None = None
    crlf: bool = False
    blank_lines: int = 0
    keepalive_timeout_s: float | None = None
    replay: Path | bytes | None = None
    replay_content_type: str = "text/event-stream; charset=utf-8"
    fast: bool = False
    dialect: DialectName = "deepseek"

    @property
    def host(self) -> Dialect:
        """What is known of that kind of host."""
        return dialects.DIALECTS[self.dialect]


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer, cut into what its deltas hold.

    reasoning: the chain of thought; None where the call does not think
    tools:     name and arguments of each call, the arguments in pieces
    finish:    DeepSeek's word
    usage:     DeepSeek's object, for the whole of it
    """

    reasoning: tuple[str, ...] | None
    content: tuple[str, ...]
    tools: tuple[tuple[str, tuple[str, ...]], ...]
    finish: str | None
    usage: Json


class Scale:
    """Text in tokens: by the vocabulary, or word by word where there is none."""

    def __init__(self, vocabulary: Vocabulary | None) -> None:
        self._vocabulary = vocabulary
        self.count: Callable[[str], int] = lru_cache(_TEXTS_KNOWN)(
            lambda text: len(_WORD.findall(text)) if vocabulary is None else tokens.count(text, vocabulary)
        )

    def split(self, text: str) -> Iterator[str]:
        """The text in pieces of one token each; a character that takes several comes with its last one."""
        if self._vocabulary is None:
            yield from _WORD.findall(text)
            return
        decoder = codecs.getincrementaldecoder("utf-8")()
        for token in self._vocabulary.encode(text):
            if piece := decoder.decode(self._vocabulary.decode_bytes([token])):
                yield piece


_WORD = re.compile(r"\s*\S+|\s+")
# Texts whose count is kept.
_TEXTS_KNOWN: Final = 1_024


def settings(body: Json) -> Json:
    """The switches a caller sets from afar: the last user message `{"simulate": {"status": 429}}`."""
    try:
        match orjson.loads(_last(body, "user")):
            case {"simulate": dict(switches), **others} if not others:
                return switches
    except orjson.JSONDecodeError:
        pass
    return {}


@cache
def _adapter() -> pydantic.TypeAdapter[Script]:
    """Made once, with the first switch: to make it takes 2 ms, many times what it takes to answer a call."""
    return pydantic.TypeAdapter(Script)


def with_switches(script: Script, switches: Json) -> Script:
    """The script with some fields replaced; ValueError names one that is unknown or has a wrong value."""
    if not switches:
        return script
    # A file is for who starts the simulator to name, not for who calls it.
    known = {field.name for field in fields(Script)} - {"replay"}
    if unknown := switches.keys() - known:
        raise ValueError(f"unknown switch `{min(unknown)}`, expected one of {', '.join(sorted(known))}")
    try:
        return _adapter().validate_python(asdict(script) | switches)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"switch `{first['loc'][0]}`: {first['msg']}") from error


def compose(body: Json, script: Script, scale: Scale) -> Answer:
    """What is said to a body without fault, ended where its `stop` or `max_tokens` ends it."""
    chain, text, calls = _chain(body, script), _words(body, script), _calls(body, script)
    left: float = body.get("max_tokens") or math.inf

    reasoning = None if chain is None else _within(left, scale.split(chain), scale)
    # Leaving the chain takes a token that no delta shows (SOURCES#recorded-completions).
    left -= 0 if reasoning is None else scale.count("".join(reasoning)) + 1
    cut = left < 0 or (reasoning is not None and "".join(reasoning) != chain)
    content = () if cut else _within(left, scale.split(text), scale)
    whole = not cut and "".join(content) == text
    markup = _markup(calls) if whole else ""
    whole = whole and (not markup or scale.count(text + markup) <= left)
    calls = calls if whole else ()

    return Answer(
        reasoning=None if reasoning is None else _regroup(reasoning, script.delta_chars),
        content=_regroup(content, script.delta_chars),
        tools=tuple((name, tuple(scale.split(arguments))) for name, arguments in calls),
        finish=_finish(script, "length" if not whole else "tool_calls" if calls else "stop"),
        usage=_usage(
            _prompt_tokens(body, scale),
            None if reasoning is None else scale.count("".join(reasoning)),
            scale.count("".join(content) + _markup(calls)) + (reasoning is not None and not cut),
            _number(body),
        ),
    )


def completion(answer: Answer, body: Json) -> Json:
    """The answer as one JSON body, the same in each of its choices."""
    message: Json = {"role": "assistant", "content": "".join(answer.content)}
    if answer.reasoning is not None:
        message["reasoning_content"] = "".join(answer.reasoning)
    if answer.tools:
        calls = ((name, "".join(arguments)) for name, arguments in answer.tools)
        message["tool_calls"] = [_call(at, name, arguments) for at, (name, arguments) in enumerate(calls)]
    logprobs = _logprobs(body, answer.reasoning or (), answer.content)
    choice = {"message": message, "logprobs": logprobs, "finish_reason": answer.finish}
    choices = [{"index": index, **choice} for index in range(_number(body))]
    return {**_envelope(body, "chat.completion"), "choices": choices, "usage": answer.usage}


def chunks(answer: Answer, body: Json, script: Script, scale: Scale) -> Iterator[Json]:
    """The answer as the objects of a stream, `[DONE]` not among them."""
    asked = bool((body.get("stream_options") or {}).get("include_usage"))
    placement = script.usage if asked else "never"
    envelope = _envelope(body, "chat.completion.chunk")
    prompt_tokens = answer.usage["prompt_tokens"]
    reasoning = content = ""

    for delta, thought, said in _deltas(answer, endless=script.endless):
        usage = None
        if placement == "every":
            reasoning, content = reasoning + thought, content + said
            chain_tokens = None if answer.reasoning is None else scale.count(reasoning)
            usage = _usage(prompt_tokens, chain_tokens, scale.count(content), _number(body))
        logprobs = _logprobs(body, (thought,) if thought else (), (said,) if said else ())
        for index in range(_number(body)):
            choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": None}
            yield {**envelope, "choices": [choice], "usage": usage}

    delta = {"content": ""} if answer.reasoning is None else {"content": "", "reasoning_content": None}
    for index in range(_number(body) if answer.finish is not None else 0):
        is_last = index == _number(body) - 1
        usage = answer.usage if placement in ("finish", "every") and is_last else None
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": answer.finish}
        yield {**envelope, "choices": [choice], "usage": usage}
    if placement == "own":
        yield {**envelope, "choices": [], "usage": answer.usage}


# In their names what thinks without being asked to.
_ALWAYS_THINKS = ("r1", "reasoner")


def _thinks(body: Json, host: Dialect) -> bool:
    """Whether it thinks; a continued turn that brings its chain has already thought.

    DeepSeek does unless it is switched off, other hosts where it is switched on or the model does nothing else.
    """
    last = body["messages"][-1]
    if last["role"] == "assistant" and last.get("reasoning_content"):
        return False
    if host.name == "deepseek":
        return (body.get("thinking") or {}).get("type") != "disabled" and body.get("reasoning_effort") != "none"
    if host.thinking[True].items() <= body.items():
        return True
    return any(name in body["model"].lower() for name in _ALWAYS_THINKS)


def _number(body: Json) -> int:
    return int(body.get("n") or 1)


def _stops(body: Json) -> list[str]:
    stop = body.get("stop") or []
    return [stop] if isinstance(stop, str) else list(stop)


def _wants(body: Json) -> str | None:
    kind: str | None = (body.get("response_format") or {}).get("type")
    return kind


def _text(message: Json) -> str:
    content = message.get("content") or ""
    return content if isinstance(content, str) else "".join(part["text"] for part in content if "text" in part)


def _pictures(message: Json) -> list[Json]:
    """The images of a turn."""
    content = message.get("content")
    return [part["image_url"] for part in content if "image_url" in part] if isinstance(content, list) else []


def _picture_tokens(image: Json) -> int:
    """One that would have to be fetched is taken for a small one."""
    url, detail = image["url"], image.get("detail")
    size = images.header(url)[1:] if images.is_inline(url) else (_FETCHED_PIXELS, _FETCHED_PIXELS)
    return image_tokens.count(*size, detail)


# Its width and its height.
_FETCHED_PIXELS: Final = 512


def _last(body: Json, role: str) -> str:
    messages = body.get("messages")
    named = (m for m in reversed(messages if isinstance(messages, list) else []) if isinstance(m, dict))
    return next((_text(message) for message in named if message.get("role") == role), "")


def _chain(body: Json, script: Script) -> str | None:
    if not _thinks(body, script.host):
        return None
    if script.reasoning is not None:
        return script.reasoning
    return f"The user wrote {len(_last(body, 'user'))} characters. I will repeat them."


def _words(body: Json, script: Script) -> str:
    if script.text is not None:
        text = script.text
    elif body["messages"][-1]["role"] == "tool":
        text = f"The tool said: {_last(body, 'tool')}"
    elif _wants(body) in ("json_object", "json_schema"):
        text = orjson.dumps({"you_said": _last(body, "user")}).decode()
    elif _calls(body, script):
        text = ""
    else:
        text = f"You said: {_last(body, 'user')}"
    text *= script.repeat
    ends = [text.find(stop) for stop in _stops(body) if stop in text]
    return text[: min(ends, default=None)]


def _calls(body: Json, script: Script) -> tuple[tuple[str, str], ...]:
    """Name and arguments of each call to answer with."""
    if script.tools:
        parts = (call.partition(" ") for call in script.tools)
        return tuple((name, arguments or "{}") for name, _, arguments in parts)
    offered = _offered(body)
    if script.text is not None or not offered:
        return ()
    return ((offered[0]["name"], orjson.dumps(_sample(offered[0].get("parameters") or {}, "")).decode()),)


def _offered(body: Json) -> list[Json]:
    """The functions this turn may call; none right after a result, lest it go on for ever, unless forced."""
    functions = [tool["function"] for tool in body.get("tools") or ()]
    match body.get("tool_choice"):
        case {"function": {"name": name}}:
            return [function for function in functions if function["name"] == name]
        case "required":
            return functions
        case choice:
            return [] if choice == "none" or body["messages"][-1]["role"] == "tool" else functions


_SAMPLES: Mapping[str, Any] = {"integer": 1, "number": 1.5, "boolean": True, "null": None}


def _sample(schema: Json, name: str) -> Any:
    """A value that fits a schema: its default, its first choice, or a plain one; objects hold what they must."""
    properties = schema.get("properties") or {}
    match schema:
        case {"default": value} | {"const": value} | {"enum": [value, *_]}:
            return value
        case {"type": "array", **others}:
            return [_sample(others["items"], name)] if others.get("minItems") and others.get("items") else []
        case {"type": "string"}:
            return name
        case {"type": str(kind)} if kind in _SAMPLES:
            return _SAMPLES[kind]
    return {key: _sample(properties.get(key) or {"type": "string"}, key) for key in schema.get("required") or ()}


def _within(budget: float, pieces: Iterable[str], scale: Scale) -> tuple[str, ...]:
    """As many pieces as the budget pays for."""
    pieces = tuple(pieces)
    costs = itertools.accumulate(map(scale.count, pieces))
    return pieces[: sum(1 for _ in itertools.takewhile(lambda cost: cost <= budget, costs))]


def _regroup(pieces: tuple[str, ...], chars: int | None) -> tuple[str, ...]:
    text = "".join(pieces)
    return pieces if chars is None else tuple(text[at : at + chars] for at in range(0, len(text), chars))


def _finish(script: Script, natural: str) -> str | None:
    return None if script.finish_reason == "-" else script.finish_reason or natural


def _markup(calls: Iterable[tuple[str, str]]) -> str:
    """Tool calls as the model writes them, for counting (SOURCES#tool-markup)."""
    blocks = []
    for name, arguments in calls:
        try:
            given = orjson.loads(arguments)
        except orjson.JSONDecodeError:
            given = None
        pairs = given.items() if isinstance(given, dict) else [("arguments", arguments)]
        lines = (
            f'<｜DSML｜parameter name="{key}" string="{str(isinstance(value, str)).lower()}">'
            f"{value if isinstance(value, str) else orjson.dumps(value).decode()}</｜DSML｜parameter>\n"
            for key, value in pairs
        )
        blocks.append(f'<｜DSML｜invoke name="{name}">\n{"".join(lines)}</｜DSML｜invoke>\n')
    return f"\n\n<｜DSML｜tool_calls>\n{''.join(blocks)}</｜DSML｜tool_calls>" if blocks else ""


def _prompt_tokens(body: Json, scale: Scale) -> int:
    """The prompt by the V4 template: one token a mark, the texts between them (SOURCES#chat-templates)."""
    with_tools = bool(body.get("tools"))
    system = "\n\n".join(_text(message) for message in body["messages"] if message["role"] == "system")
    functions = "\n".join(orjson.dumps(tool["function"]).decode() for tool in body.get("tools") or ())
    turns = (_turn_tokens(message, scale, with_tools=with_tools) for message in body["messages"])
    # The prompt opens with one mark and ends with two, unless its last turn is the one to continue.
    marks = 0 if body["messages"][-1]["role"] == "assistant" else 3
    return marks + scale.count(system) + scale.count(functions) + sum(turns)


def _turn_tokens(message: Json, scale: Scale, *, with_tools: bool) -> int:
    # A blank line stands between the parts; beside an image it is a token of its own, or one with the text behind it.
    if pictures := _pictures(message):
        return 1 + _parts_tokens(message["content"], scale) + sum(map(_picture_tokens, pictures))
    text = _text(message)
    match message["role"]:
        case "system":
            return 0
        case "assistant":
            calls = message.get("tool_calls") or ()
            markup = _markup((call["function"]["name"], call["function"]["arguments"]) for call in calls)
            chain = (message.get("reasoning_content") or "") if with_tools or message.get("prefix") else ""
            return 3 + bool(chain) + scale.count(chain) + scale.count(text + markup)
        case "tool":
            return 1 + scale.count(f"<tool_result>{text}</tool_result>")
    return 1 + scale.count(text)


def _parts_tokens(parts: Sequence[Json], scale: Scale) -> int:
    """The texts of a turn with images, as the renderer joins them."""
    said = "\n\n".join(part.get("text", _IMAGE_MARK) for part in parts)
    return sum(map(scale.count, said.split(_IMAGE_MARK)))


# Where an image stands among the texts; no caller's text holds it.
_IMAGE_MARK = "\0image"


def _usage(prompt_tokens: int, chain_tokens: int | None, other_tokens: int, number: int) -> Json:
    completion_tokens = number * ((chain_tokens or 0) + other_tokens)
    details = {} if chain_tokens is None else {"completion_tokens_details": {"reasoning_tokens": number * chain_tokens}}
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
        "prompt_tokens_details": {"cached_tokens": 0},
        **details,
        "prompt_cache_hit_tokens": 0,
        "prompt_cache_miss_tokens": prompt_tokens,
    }


def _envelope(body: Json, kind: str) -> Json:
    return {
        "id": str(uuid.uuid4()),
        "object": kind,
        "created": int(time.time()),
        "model": body["model"],
        "system_fingerprint": "fp_simulator",
    }


def _call(index: int, name: str, arguments: str) -> Json:
    function = {"name": name, "arguments": arguments}
    return {"index": index, "id": f"call_{index:02}_{uuid.uuid4().hex[:20]}", "type": "function", "function": function}


def _deltas(answer: Answer, *, endless: bool) -> Iterator[tuple[Json, str, str]]:
    """Each delta, and what it adds to the chain and to the text."""
    thinks = answer.reasoning is not None
    yield {"role": "assistant", "content": None, "reasoning_content": ""} if thinks else dict(_FIRST), "", ""
    for piece in answer.reasoning or ():
        yield {"content": None, "reasoning_content": piece}, piece, ""
    # A text without a word would go round for ever without a pause.
    for piece in itertools.cycle(answer.content or (" ",)) if endless else answer.content:
        yield {"content": piece, "reasoning_content": None} if thinks else {"content": piece}, "", piece
    for index, (name, arguments) in enumerate(answer.tools):
        yield {"tool_calls": [_call(index, name, "")]}, "", ""
        for piece in arguments:
            yield {"tool_calls": [{"index": index, "function": {"arguments": piece}}]}, "", ""


_FIRST: Json = {"role": "assistant", "content": ""}


def _logprobs(body: Json, reasoning: Sequence[str], content: Sequence[str]) -> Json | None:
    if not body.get("logprobs") or not (reasoning or content):
        return None
    entries = {"content": content, "reasoning_content": reasoning}
    return {key: [_logprob(body, piece) for piece in pieces] or None for key, pieces in entries.items()}


def _logprob(body: Json, piece: str) -> Json:
    """A made-up log probability: the piece first, then letters in order, each less likely by one."""
    rivals = [piece, *string.ascii_lowercase][: body.get("top_logprobs") or 0]
    tops = [
        {"token": rival, "logprob": -0.25 - rank, "bytes": list(rival.encode())} for rank, rival in enumerate(rivals)
    ]
    return {"token": piece, "logprob": -0.25, "bytes": list(piece.encode()), "top_logprobs": tops}
