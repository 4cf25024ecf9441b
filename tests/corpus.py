"""Upstream streams of every known shape, and the pipe driven by them: what the tests of the answer side share.

Shapes are those of SOURCES#deepseek-stream, #vllm-stream, #sglang-stream, #llamacpp-stream,
#usage-placement and SOURCES#stream-pitfalls, written small enough to be counted by hand.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

import proxy.vocabulary
from translators import choice as answer
from translators import dialogue, faults, pipe
from translators.dashscope import tongue
from translators.openai import failures
from translators.terms import EVENT_LIMIT, Terms
from translators.tongue import Tongue

Json = dict[str, Any]

REQUEST_ID: Final = "5354a793-a130-4b36-b1dc-2610c5f49071"
DONE: Final = b"data: [DONE]\n\n"
PROMPT_TOKENS: Final = 5
INPUT_LIMIT: Final = 98_304

HYBRID: Final = dialogue.Model("deepseek-v3.2", "hybrid", 131_072, INPUT_LIMIT, 32_768, 65_536, "v3.2")
ALWAYS: Final = dialogue.Model("deepseek-r1", "always", 131_072, INPUT_LIMIT, 32_768, 16_384, "r1")
NEVER: Final = dialogue.Model("deepseek-v3", "never", 131_072, 131_072, 0, 16_384, "v3")


@dataclass(frozen=True, slots=True)
class Shape:
    """One upstream stream, and what a caller must be able to read in it.

    calls:  id, name and arguments of each tool call
    figures: input, output and reasoning of the last usage where upstream tells; None where our count stands
    fault:  what ends it instead of a finish
    """

    wire: bytes
    content: str = ""
    reasoning: str = ""
    calls: tuple[tuple[str, str, str], ...] = ()
    finish: str = "stop"
    figures: tuple[int, int, int] | None = None
    fault: faults.Fault | None = None
    rules: answer.Rules = field(default_factory=lambda: answer.Rules(parallel_calls=True))


def event(document: object) -> bytes:
    """One upstream event."""
    return b"data: " + orjson.dumps(document) + b"\n\n"


def chunk(delta: object, finish: str | None = None, *, index: int = 0, usage: object = ..., **choice: object) -> bytes:
    """One chunk with one choice; `usage` is left out unless given."""
    choices = [{"index": index, "delta": delta, "finish_reason": finish, **choice}]
    return event({"object": "chat.completion.chunk", "choices": choices} | ({} if usage is ... else {"usage": usage}))


def usage_chunk(usage: object) -> bytes:
    """A chunk of usage alone."""
    return event({"choices": [], "usage": usage})


def figures(given: object, made: object, chain: object = ..., **more: object) -> Json:
    """A `usage` object."""
    details = {} if chain is ... else {"completion_tokens_details": {"reasoning_tokens": chain}}
    return {"prompt_tokens": given, "completion_tokens": made, "total_tokens": 999, **details, **more}


def fragment(index: int | None, arguments: object = ..., *, name: object = ..., **call: object) -> bytes:
    """A chunk with one piece of a tool call; what is not given is left out."""
    function = {key: value for key, value in (("name", name), ("arguments", arguments)) if value is not ...}
    piece = {"index": index, **call} | ({"function": function} if function else {})
    return chunk({"tool_calls": [piece if index is not None else {k: v for k, v in piece.items() if k != "index"}]})


def ask(model: dialogue.Model = HYBRID, **fields: Any) -> dialogue.Call:
    """A call: streamed, incremental and thinking unless said otherwise."""
    given = {"stream": True, "incremental": True, "thinking": model.thinking != "never"} | fields
    return dialogue.Call(model=model, messages=(dialogue.Message("user", "hi"),), **given)


def open_pipe(
    call: dialogue.Call,
    rules: answer.Rules | None = None,
    *,
    spoken: Tongue = tongue,
    large_bytes: int = sys.maxsize,
    hold: Callable[[int], None] | None = None,
    **terms: Any,
) -> pipe.Pipe:
    """A pipe for it, whose prompt is counted; its caller speaks DashScope unless said otherwise."""
    given: Json = {
        "rules": rules or answer.Rules(parallel_calls=True),
        "chain_end": 1,
        "legs": 1,
        "failures": failures.Terms(INPUT_LIMIT, own_key=False),
        "request_id": REQUEST_ID,
        "at_s": 0.0,
        "event_limit": EVENT_LIMIT,
        "prefix": "",
        "answer_end": 0,
        "template": "v4",
        "calls_opened": False,
    } | terms
    through = pipe.Pipe(call, Terms(**given), proxy.vocabulary.load(), spoken, large_bytes=large_bytes, hold=hold)
    through.count_prompt(PROMPT_TOKENS, 0)
    return through


def drive(through: pipe.Pipe, wire: bytes, cut: int = 1 << 20) -> bytes:
    """All that comes out of a pipe for all that upstream says, read in pieces of `cut` bytes; raises `Refusal`."""
    out = b"".join(through.feed(wire[at : at + cut]) for at in range(0, len(wire), cut))
    return out + through.eof()


def outcome(act: Callable[[], bytes]) -> bytes | faults.Fault:
    """What came out, or the fault that refused it."""
    try:
        return act()
    except faults.Refusal as refusal:
        return refusal.fault


def packets(stream: bytes) -> list[Json]:
    """The JSON of every frame."""
    return [orjson.loads(block[block.index(b"\ndata:") + 6 :]) for block in stream.split(b"\n\n") if block]


def choice_of(packet: Json, index: int = 0) -> Json:
    """A choice of a packet or reply."""
    found: Json = next(choice for choice in packet["output"]["choices"] if choice["index"] == index)
    return found


def used(packet: Json) -> dialogue.Usage:
    """The usage that a packet or a reply says."""
    said = packet["usage"]
    chain = said.get("output_tokens_details", {}).get("reasoning_tokens")
    cached = said.get("prompt_tokens_details", {}).get("cached_tokens")
    return dialogue.Usage(said["input_tokens"], said["output_tokens"], chain, cached)


@dataclass(slots=True)
class Report:
    """What a caller has read of one choice, however it was sent."""

    content: str = ""
    reasoning: str = ""
    calls: list[tuple[str, str, str]] = field(default_factory=list)
    finish: str = "null"
    usage: Json = field(default_factory=dict)
    logprobs: list[Json] = field(default_factory=list)


def fold(stream: bytes, index: int = 0) -> Report:
    """Incremental packets put together, as a client does it."""
    told = Report()
    for packet in packets(stream):
        for choice in packet.get("output", {"choices": []})["choices"]:
            if choice["index"] != index:
                continue
            message = choice["message"]
            told.content += message["content"]
            told.reasoning += message.get("reasoning_content", "")
            for call in message.get("tool_calls", ()):
                function = call["function"]
                if call["index"] == len(told.calls):
                    told.calls.append((call["id"], function["name"], ""))
                call_id, name, arguments = told.calls[call["index"]]
                told.calls[call["index"]] = (call_id, name, arguments + function["arguments"])
            told.finish, told.usage = choice["finish_reason"], packet["usage"]
            told.logprobs += choice.get("logprobs", {"content": []})["content"]
    return told


def told_by(packet: Json, index: int = 0) -> Report:
    """A reply, or a cumulative packet, which says everything at once."""
    choice = choice_of(packet, index)
    message = choice["message"]
    return Report(
        message["content"],
        message.get("reasoning_content", ""),
        [(c["id"], c["function"]["name"], c["function"]["arguments"]) for c in message.get("tool_calls", ())],
        choice["finish_reason"],
        packet["usage"],
        choice.get("logprobs", {"content": []})["content"],
    )


def _deepseek(*deltas: tuple[str, str], usage: object = None, finish: str = "stop") -> bytes:
    """As api.deepseek.com thinks: both keys in every delta, one of them null."""
    wire = chunk({"role": "assistant", "content": None, "reasoning_content": ""}, usage=None)
    for reasoning, content in deltas:
        wire += chunk({"content": content or None, "reasoning_content": reasoning or None}, usage=None)
    return wire + chunk({"content": "", "reasoning_content": None}, finish, usage=usage) + DONE


_SAID: Final = (("We", ""), (" think", ""), ("", "The"), ("", " answer"))
_TOLD: Final[Json] = {"reasoning": "We think", "content": "The answer"}
_NULLS: Final[Json] = {"role": None, "content": None, "reasoning_content": None, "tool_calls": None}
_HEAD: Final = chunk({"role": "assistant", "content": ""})
_PLAIN: Final = _HEAD + chunk({"content": "The"}) + chunk({"content": " answer"})
_STOP: Final = chunk({}, "stop")
_ANSWER: Final[Json] = {"content": "The answer"}
_PARIS: Final = ("c1", "get_weather", '{"city":"Paris"}')
_ROME: Final = ("c2", "get_weather", '{"city":"Rome"}')
_PARIS_HEAD: Final = fragment(0, "", name="get_weather", id="c1", type="function")
_CALLED: Final = chunk({}, "tool_calls", usage=figures(9, 48)) + DONE
_ONE: Final[Json] = {"calls": (_PARIS,), "finish": "tool_calls", "figures": (9, 48, 0)}
_BOTH: Final[Json] = {"calls": (_PARIS, _ROME), "finish": "tool_calls", "figures": (9, 48, 0)}
_FULL: Final = chunk({"content": " answer"}, "stop", usage=figures(9, 4)) + DONE


def _whole(index: int | None, call: tuple[str, str, str], **more: object) -> bytes:
    return fragment(index, call[2], name=call[1], id=call[0], type="function", **more)


SHAPES: Final[Mapping[str, Shape]] = {
    "B.1 DeepSeek, usage in the finish chunk": Shape(
        _deepseek(*_SAID, usage=figures(9, 6, 2, prompt_cache_hit_tokens=0)), **_TOLD, figures=(9, 6, 2)
    ),
    "B.1 DeepSeek, no thinking, no details": Shape(
        _PLAIN + chunk({"content": ""}, "stop", usage=figures(9, 2)) + DONE, **_ANSWER, figures=(9, 2, 0)
    ),
    "B.1 DeepSeek, keep-alive comments": Shape(
        b": keep-alive\n\n" + _PLAIN + b": keep-alive\n\n" + _STOP + usage_chunk(figures(9, 2)) + DONE,
        **_ANSWER,
        figures=(9, 2, 0),
    ),
    "B.2 vLLM, `reasoning`, own usage chunk, chain said to be 0": Shape(
        _HEAD
        + chunk({"reasoning": "We"}, token_ids=None)
        + chunk({})
        + chunk({"reasoning": " think"})
        + chunk({"content": "The"})
        + chunk({"content": " answer"})
        + chunk({"content": ""}, "stop", stop_reason=None)
        + usage_chunk(figures(9, 6, 0))
        + DONE,
        **_TOLD,
        figures=(9, 6, 2),
    ),
    "B.2 vLLM, both names of the chain": Shape(
        chunk({"reasoning": "We", "reasoning_content": "We"}) + chunk({"content": "The"}) + _STOP + DONE,
        reasoning="We",
        content="The",
    ),
    "B.2 vLLM, chain and answer in one chunk": Shape(
        _HEAD
        + chunk({"reasoning": "We think", "content": "The answer"})
        + _STOP
        + usage_chunk(figures(9, 5, 2))
        + DONE,
        **_TOLD,
        figures=(9, 5, 2),
    ),
    "B.2 vLLM, chain and answer in the finish chunk": Shape(
        _HEAD
        + chunk({"reasoning": "We think", "content": "The answer"}, "stop")
        + usage_chunk(figures(9, 5, 2))
        + DONE,
        **_TOLD,
        figures=(9, 5, 2),
    ),
    "B.2 vLLM, chain in the finish chunk": Shape(
        _HEAD
        + chunk({"reasoning": "We"})
        + chunk({"reasoning": " think"}, "length")
        + usage_chunk(figures(9, 2))
        + DONE,
        reasoning="We think",
        finish="length",
        figures=(9, 2, 2),
    ),
    "B.2 vLLM, continuous usage": Shape(
        chunk({"role": "assistant", "content": ""}, usage=figures(9, 0))
        + chunk({"content": "The"}, usage=figures(9, 2))
        + chunk({"content": " answer"}, usage=figures(9, 3))
        + chunk({}, "stop", usage=figures(9, 4))
        + usage_chunk(figures(9, 4))
        + DONE,
        **_ANSWER,
        figures=(9, 4, 0),
    ),
    "B.2 vLLM, text with the finish": Shape(_HEAD + chunk({"content": "The"}) + _FULL, **_ANSWER, figures=(9, 4, 0)),
    "B.2 vLLM, a call without arguments first": Shape(
        fragment(0, name="get_weather", id="c1", type="function")
        + fragment(0, '{"city":')
        + fragment(0, '"Paris"}')
        + _CALLED,
        **_ONE,
    ),
    "B.2 vLLM, a named choice that ends with stop": Shape(
        _whole(0, _PARIS) + chunk({}, "stop", usage=figures(9, 48)) + DONE, **_ONE
    ),
    "B.2 vLLM, a truncated call": Shape(
        _PARIS_HEAD + fragment(0, '{"city') + chunk({}, "length", usage=figures(9, 40)) + DONE,
        calls=(("c1", "get_weather", '{"city'),),
        finish="length",
        figures=(9, 40, 0),
    ),
    "B.3 SGLang, every key null": Shape(
        chunk(_NULLS | {"role": "assistant", "content": ""}, matched_stop=None, usage=None)
        + chunk(_NULLS | {"reasoning_content": "We think"}, usage=None)
        + chunk(_NULLS | {"content": "The answer"}, usage=None)
        + chunk(_NULLS, "stop", matched_stop=1, usage=None)
        + usage_chunk(figures(9, 6, prompt_tokens_details=None, reasoning_tokens=0))
        + DONE,
        **_TOLD,
        figures=(9, 6, 2),
    ),
    "B.3 Azure, `choices: []` first": Shape(
        event({"choices": [], "prompt_filter_results": []}) + _PLAIN + _STOP + usage_chunk(figures(9, 3)) + DONE,
        **_ANSWER,
        figures=(9, 3, 0),
    ),
    "B.4 llama.cpp, pings, null content, empty finish delta": Shape(
        b":\n\n"
        + chunk({"role": "assistant", "content": None})
        + chunk({"reasoning_content": "We think"})
        + b":\n\n"
        + chunk({"content": "The answer"})
        + chunk({}, "stop")
        + event({"choices": [], "usage": figures(9, 6), "timings": {"n": 1}})
        + DONE,
        **_TOLD,
        figures=(9, 6, 2),
    ),
    "B.5 Ark, usage on every chunk, none of its own": Shape(
        chunk({"content": "The"}, usage=figures(9, 1))
        + chunk({"content": " answer"}, usage=figures(9, 2))
        + chunk({"content": ""}, "stop", usage=figures(9, 2))
        + DONE,
        **_ANSWER,
        figures=(9, 2, 0),
    ),
    "B.5 usage nowhere": Shape(_PLAIN + _STOP + DONE, **_ANSWER),
    "B.5 usage null": Shape(_PLAIN + chunk({}, "stop", usage=None) + usage_chunk(None) + DONE, **_ANSWER),
    "B.5 usage of negative figures": Shape(_PLAIN + _STOP + usage_chunk(figures(-1, -1)) + DONE, **_ANSWER),
    "B.5 usage of strings": Shape(_PLAIN + _STOP + usage_chunk(figures("9", "2")) + DONE, **_ANSWER),
    "B.5 usage is a string": Shape(_PLAIN + _STOP + usage_chunk("none") + DONE, **_ANSWER),
    "B.5 usage of zero": Shape(_PLAIN + _STOP + usage_chunk(figures(9, 0)) + DONE, **_ANSWER, figures=(9, 0, 0)),
    "B.5 usage of zero, first and only": Shape(usage_chunk(figures(0, 0)) + _PLAIN + _STOP + DONE, **_ANSWER),
    "B.5 usage that falls": Shape(
        chunk({"content": "The"}, usage=figures(9, 7))
        + chunk({"content": " answer"}, usage=figures(9, 3))
        + chunk({}, "stop", usage=figures(9, 2))
        + DONE,
        **_ANSWER,
        figures=(9, 2, 0),
    ),
    "B.5 usage twice": Shape(
        _PLAIN + chunk({}, "stop", usage=figures(9, 2)) + usage_chunk(figures(9, 2)) + DONE,
        **_ANSWER,
        figures=(9, 2, 0),
    ),
    "I finish twice": Shape(_PLAIN + _STOP + chunk({}, "length") + usage_chunk(figures(9, 2)) + DONE, **_ANSWER),
    "OUT-3 an empty word until the finish": Shape(
        chunk({"content": "The"}, "") + chunk({"content": " answer"}, "") + chunk({}, "stop") + DONE, **_ANSWER
    ),
    "OUT-3 DashScope's own word until the finish": Shape(
        chunk({"content": "The"}, "null") + chunk({"content": " answer"}, "null") + chunk({}, "stop") + DONE, **_ANSWER
    ),
    "OUT-3 an empty word beside calls": Shape(
        chunk({"tool_calls": [{"index": 0, "id": "c1", "function": {"name": "get_weather", "arguments": ""}}]}, "")
        + chunk({"tool_calls": [{"index": 0, "function": {"arguments": _PARIS[2]}}]}, "")
        + _CALLED,
        **_ONE,
    ),
    "SSE-10 events that say nothing": Shape(
        b'data: {"type":"keepalive","sequence_number":3}\n\ndata:\n\n'
        + chunk({"content": "The"})
        + b'data: null\n\ndata: {"choices":null}\n\ndata: {}\n\nevent: ping\ndata: {"type":"ping"}\n\ndata: \n\n'
        + chunk({"content": " answer"}, "stop")
        + DONE,
        **_ANSWER,
    ),
    "SSE-10 a pair in two deltas": Shape(
        rb'data: {"choices":[{"delta":{"content":"Hi \ud83d"}}]}' + b"\n\n"
        rb'data: {"choices":[{"delta":{"content":"\ude00!"}}]}' + b"\n\n" + _STOP + DONE,
        content="Hi 😀!",
    ),
    "SSE-10 half a pair before plain text": Shape(
        rb'data: {"choices":[{"delta":{"content":"Hi \uD83D"}}]}' + b"\n\n" + chunk({"content": "!"}) + _STOP + DONE,
        content="Hi \ufffd!",
    ),
    "SSE-10 half a pair between deltas that are alike": Shape(
        chunk({"content": "a"})
        + chunk({"content": "b"})
        + rb'data: {"choices":[{"delta":{"content":"\ud83d"}}]}'
        + b"\n\n"
        + chunk({"content": "c"})
        + _STOP
        + DONE,
        content="ab\ufffdc",
    ),
    "SSE-10 half a pair between deltas of the chain that are alike": Shape(
        chunk({"reasoning": "a"})
        + chunk({"reasoning": "b"})
        + rb'data: {"choices":[{"delta":{"reasoning":"\ud83d"}}]}'
        + b"\n\n"
        + chunk({"reasoning": "c"})
        + _STOP
        + DONE,
        reasoning="ab\ufffdc",
    ),
    "SSE-10 half a pair of the chain, then the answer": Shape(
        rb'data: {"choices":[{"delta":{"reasoning":"Hm \ud83d"}}]}' + b"\n\n" + chunk({"content": "Hi"}) + _STOP + DONE,
        reasoning="Hm \ufffd",
        content="Hi",
    ),
    "SSE-10 a pair of the chain in two deltas": Shape(
        rb'data: {"choices":[{"delta":{"reasoning":"\ud83d"}}]}' + b"\n\n"
        rb'data: {"choices":[{"delta":{"reasoning":"\ude00"}}]}'
        + b"\n\n"
        + chunk({"reasoning": "!"})
        + chunk({"content": "Hi"})
        + _STOP
        + DONE,
        reasoning="😀!",
        content="Hi",
    ),
    "SSE-10 half a pair of the chain, then plain deltas of it": Shape(
        rb'data: {"choices":[{"delta":{"reasoning":"\ud83d"}}]}' + b"\n\n" + chunk({"reasoning": "!"}) + _STOP + DONE,
        reasoning="\ufffd!",
    ),
    "SSE-10 half a pair before the limit": Shape(
        rb'data: {"choices":[{"delta":{"content":"Hi \ud83d"}}]}' + b"\n\n" + chunk({}, "length") + DONE,
        content="Hi \ufffd",
        finish="length",
    ),
    "SSE-10 half a pair before [DONE]": Shape(
        rb'data: {"choices":[{"delta":{"content":"Hi \ud83d"}}]}' + b"\n\n" + DONE, content="Hi \ufffd"
    ),
    "SSE-10 half a pair before a call": Shape(
        rb'data: {"choices":[{"delta":{"content":"Hi \ud83d"}}]}' + b"\n\n" + _whole(0, _PARIS) + _CALLED,
        content="Hi \ufffd",
        **_ONE,
    ),
    "SSE-10 a pair in two pieces of arguments": Shape(
        rb'data: {"choices":[{"delta":{"tool_calls":[{"index":0,"id":"c1","function":{"name":"f",'
        rb'"arguments":"{\"x\":\"\ud83d"}}]}}]}' + b"\n\n"
        rb'data: {"choices":[{"delta":{"tool_calls":[{"index":0,"function":{"arguments":"\ude00\"}"}}]}}]}'
        + b"\n\n"
        + _CALLED,
        calls=(("c1", "f", '{"x":"😀"}'),),
        finish="tool_calls",
        figures=(9, 48, 0),
    ),
    "OUT-5 a name in pieces": Shape(
        fragment(0, "", name="get_", id="c1") + fragment(0, "", name="weather") + fragment(0, _PARIS[2]) + _CALLED,
        **_ONE,
    ),
    "OUT-5 a name in pieces, in pieces": Shape(
        fragment(0, "", name="get_", id="c1") + fragment(0, "", name="weather") + fragment(0, _PARIS[2]) + _CALLED,
        **_ONE,
        rules=answer.Rules(parallel_calls=True, calls_in_pieces=True),
    ),
    "OUT-5 arguments as an object": Shape(
        fragment(0, {"city": "Paris"}, name="get_weather", id="c1") + _CALLED, **_ONE
    ),
    "OUT-5 no arguments": Shape(
        fragment(0, "", name="f", id="c1") + fragment(0, None) + _CALLED,
        calls=(("c1", "f", "{}"),),
        finish="tool_calls",
        figures=(9, 48, 0),
    ),
    "OUT-5 a placeholder": Shape(
        fragment(0, "{}", name="get_weather", id="c1") + fragment(0, _PARIS[2]) + _CALLED, **_ONE
    ),
    "OUT-5 a placeholder, in pieces": Shape(
        fragment(0, "{}", name="get_weather", id="c1") + fragment(0, _PARIS[2]) + _CALLED,
        **_ONE,
        rules=answer.Rules(parallel_calls=True, calls_in_pieces=True),
    ),
    "OUT-10 content that begins inside the chain": Shape(
        b"".join(chunk({"content": text}) for text in ("We", " think</", "think>\n\n", "The answer")) + _STOP + DONE,
        **_TOLD,
        rules=answer.Rules(think_tags=True, inside_chain=True),
    ),
    "OUT-3 text after the finish takes it back": Shape(
        _PLAIN + _STOP + chunk({"content": "!"}) + chunk({"reasoning": "!"}) + chunk({}, "length") + DONE,
        content="The answer!",
        finish="length",
    ),
    "OUT-3 a call after the finish takes it back": Shape(
        _PLAIN + _STOP + _whole(0, _PARIS) + _CALLED, **_ANSWER, **_ONE
    ),
    "OUT-3 a finish on an empty first chunk": Shape(
        chunk({"content": "", "reasoning_content": ""}, "stop")
        + chunk({"reasoning_content": "We think"})
        + chunk({"content": "The answer"})
        + chunk({}, "stop", usage=figures(9, 5, 2))
        + DONE,
        **_TOLD,
        figures=(9, 5, 2),
    ),
    "OUT-3 text with a finish that is taken back": Shape(
        chunk({"content": "The"}, "stop") + chunk({"content": " answer"}, "stop") + DONE, **_ANSWER
    ),
    "OUT-3 text after our own end is not wanted": Shape(
        chunk({"content": "The answer is"}) + chunk({"content": " not"}, "stop") + chunk({"content": "!"}) + DONE,
        content="The answer",
        finish="length",
        rules=answer.Rules(answer_limit=2),
    ),
    "I chain after the answer": Shape(_PLAIN + chunk({"reasoning_content": "!"}) + _STOP + DONE, **_ANSWER),
    "I [DONE] without finish": Shape(_PLAIN + DONE, **_ANSWER),
    "I [DONE] without finish or blank line": Shape(_PLAIN + b"data: [DONE]", **_ANSWER),
    "I no [DONE]": Shape(_PLAIN + _STOP, **_ANSWER),
    "I text after [DONE]": Shape(_PLAIN + _STOP + DONE + b"data: {broken\n\n", **_ANSWER),
    "I an error after usage": Shape(
        _PLAIN + chunk({}, "stop", usage=figures(9, 2)) + event({"error": {"message": "late"}}),
        **_ANSWER,
        figures=(9, 2, 0),
    ),
    "I an empty answer": Shape(_HEAD + chunk({}, "stop", usage=figures(9, 0)) + DONE, figures=(9, 0, 0)),
    "I CR LF": Shape((_PLAIN + _STOP + DONE).replace(b"\n", b"\r\n"), **_ANSWER),
    "I CR": Shape((_PLAIN + _STOP + DONE).replace(b"\n", b"\r"), **_ANSWER),
    "I byte-order mark, no space after data": Shape(
        b"\xef\xbb\xbf" + (_PLAIN + _STOP + DONE).replace(b"data: ", b"data:"), **_ANSWER
    ),
    "I characters of several bytes": Shape(
        chunk({"content": "你好"}) + chunk({"content": "😀\u2028\x00"}) + _STOP + DONE, content="你好😀\u2028\x00"
    ),
    "I a huge line": Shape(chunk({"content": "a b " * 40_000}) + _STOP + DONE, content="a b " * 40_000),
    "I `<think>` left in the content": Shape(
        _HEAD
        + b"".join(chunk({"content": text}) for text in ("<th", "ink>", "We", " think</", "think", ">\n\n", "The"))
        + _FULL,
        **_TOLD,
        figures=(9, 4, 2),
        rules=answer.Rules(think_tags=True),
    ),
    "I a chain that is never closed": Shape(
        chunk({"content": "<think>We think</th"}) + chunk({}, "length") + DONE,
        reasoning="We think</th",
        finish="length",
        rules=answer.Rules(think_tags=True),
    ),
    "I content that only begins like a chain": Shape(
        chunk({"content": "<thi"}) + _STOP + DONE, content="<thi", rules=answer.Rules(think_tags=True)
    ),
    "PAR-9 a stop across deltas": Shape(
        _HEAD + b"".join(chunk({"content": text}) for text in ("The", " an", "sw", "er", " not")) + _STOP + DONE,
        content="The ",
        rules=answer.Rules(stops=("answer", "zz")),
    ),
    "PAR-9 a stop that never comes whole": Shape(
        _HEAD + chunk({"content": "The ans"}) + _STOP + usage_chunk(figures(9, 3)) + DONE,
        content="The ans",
        figures=(9, 3, 0),
        rules=answer.Rules(stops=("answer",)),
    ),
    "PAR-9 a stop in the finish chunk": Shape(
        _HEAD + chunk({"content": "The"}) + chunk({"content": " answer"}, "length") + DONE,
        content="The ",
        rules=answer.Rules(stops=("answer",)),
    ),
    "PAR-9 a stop in the chain is none": Shape(
        chunk({"reasoning": "the answer"}) + chunk({"content": "Yes"}) + _STOP + DONE,
        reasoning="the answer",
        content="Yes",
        rules=answer.Rules(stops=("answer",)),
    ),
    "OUT-8 cut at the answer's limit": Shape(
        chunk({"reasoning": "We think"}) + chunk({"content": "The"}) + chunk({"content": " answer is"}) + _FULL,
        reasoning="We think",
        content="The answer",
        finish="length",
        rules=answer.Rules(answer_limit=2),
    ),
    "OUT-8 cut while a stop is held": Shape(
        chunk({"content": "The"}) + chunk({"content": " answer is"}) + _FULL,
        content="The answer",
        finish="length",
        rules=answer.Rules(answer_limit=2, stops=("swers",)),
    ),
    "SSE-7 DeepSeek: later fragments of arguments alone": Shape(
        _PARIS_HEAD + fragment(0, '{"city":') + fragment(0, '"Paris"}') + _CALLED, **_ONE
    ),
    "SSE-7 Bailian, Azure: empty and null words later": Shape(
        _PARIS_HEAD
        + fragment(0, '{"city":', name="", id="", type="function")
        + fragment(0, '"Paris"}', name=None, id=None, type=None)
        + fragment(0, None, name=None)
        + fragment(0)
        + chunk({"tool_calls": []})
        + _CALLED,
        **_ONE,
    ),
    "SSE-7 id and name repeated in every fragment": Shape(
        _PARIS_HEAD
        + fragment(0, '{"city":', name="get_weather", id="c1")
        + fragment(0, '"Paris"}', name="get_weather", id="c1")
        + fragment(0, "", name="get_weather", id="c1")
        + _CALLED,
        **_ONE,
    ),
    "SSE-7 a whole call in one delta, with the finish": Shape(
        chunk(
            {"content": "The", "tool_calls": [{"index": 0, "id": "c1", "function": {"name": "f", "arguments": "{}"}}]},
            "tool_calls",
            usage=figures(9, 30),
        )
        + DONE,
        content="The",
        calls=(("c1", "f", "{}"),),
        finish="tool_calls",
        figures=(9, 30, 0),
    ),
    "SSE-7 content, then calls": Shape(_PLAIN + _whole(0, _PARIS) + _CALLED, **_ANSWER, **_ONE),
    "SSE-7 chain, then calls, then content": Shape(
        chunk({"reasoning": "We"}) + _whole(0, _PARIS) + chunk({"content": "The"}) + _CALLED,
        reasoning="We",
        content="The",
        calls=(_PARIS,),
        finish="tool_calls",
        figures=(9, 48, 1),
    ),
    "SSE-7 two calls, one after the other": Shape(
        _PARIS_HEAD
        + fragment(0, _PARIS[2])
        + fragment(1, "", name="get_weather", id="c2")
        + fragment(1, _ROME[2])
        + _CALLED,
        **_BOTH,
    ),
    "SSE-7 two calls, interleaved": Shape(
        _PARIS_HEAD
        + fragment(1, "", name="get_weather", id="c2")
        + fragment(0, '{"city":')
        + fragment(1, '{"city":')
        + fragment(1, '"Rome"}')
        + fragment(0, '"Paris"}')
        + _CALLED,
        **_BOTH,
    ),
    "SSE-7 blanks behind a whole call": Shape(
        _whole(0, _PARIS) + _whole(1, _ROME) + fragment(0, "\n") + _CALLED, **_BOTH
    ),
    "SSE-7 two calls in one delta": Shape(
        chunk(
            {
                "tool_calls": [
                    {"index": index, "id": call[0], "function": {"name": call[1], "arguments": call[2]}}
                    for index, call in enumerate((_PARIS, _ROME))
                ]
            }
        )
        + _CALLED,
        **_BOTH,
    ),
    "SSE-7 every call at index 0": Shape(_whole(0, _PARIS) + _whole(0, _ROME) + _CALLED, **_BOTH),
    "SSE-7 calls without an index": Shape(_whole(None, _PARIS) + _whole(None, _ROME) + _CALLED, **_BOTH),
    "SSE-7 calls without ids, one name after another at index 0": Shape(
        fragment(0, "{}", name="f") + fragment(0, '{"a":1}', name="g") + _CALLED,
        calls=(
            ("call_5354a793a1304b36b1dc2610c5f49071_0_0", "f", "{}"),
            ("call_5354a793a1304b36b1dc2610c5f49071_0_1", "g", '{"a":1}'),
        ),
        finish="tool_calls",
        figures=(9, 48, 0),
    ),
    "SSE-7 the function's name for an id": Shape(
        fragment(0, '{"a":1}', name="f", id="f") + fragment(1, '{"a":2}', name="f", id="f") + _CALLED,
        calls=(("f", "f", '{"a":1}'), ("f", "f", '{"a":2}')),
        finish="tool_calls",
        figures=(9, 48, 0),
    ),
    "SSE-7 an index that changes, same id": Shape(
        fragment(0, "", name="get_weather", id="c1")
        + fragment(1, '{"city":', id="c1")
        + fragment(1, '"Paris"}', id="c1")
        + _CALLED,
        **_ONE,
    ),
    "SSE-7 an index that changes, no id": Shape(
        _PARIS_HEAD + fragment(1, '{"city":') + fragment(1, '"Paris"}') + _CALLED, **_ONE
    ),
    "SSE-7 an index that changes, then a second call at it": Shape(
        _PARIS_HEAD + fragment(1, _PARIS[2]) + _whole(1, _ROME) + _CALLED, **_BOTH
    ),
    "SSE-7 an id that comes late": Shape(
        fragment(0, '{"city":', name="get_weather") + fragment(0, '"Paris"}', id="c1") + _CALLED,
        calls=(("c1", "get_weather", '{"city":"Paris"}'),),
        finish="tool_calls",
        figures=(9, 48, 0),
    ),
    "SSE-7 an id that comes late, in pieces": Shape(
        fragment(0, '{"city":', name="get_weather") + fragment(0, '"Paris"}', id="c1") + _CALLED,
        calls=(("call_5354a793a1304b36b1dc2610c5f49071_0_0", "get_weather", '{"city":"Paris"}'),),
        finish="tool_calls",
        figures=(9, 48, 0),
        rules=answer.Rules(parallel_calls=True, calls_in_pieces=True),
    ),
    "SSE-7 a name that comes late": Shape(
        fragment(0, '{"city":', id="c1") + fragment(0, '"Paris"}', name="get_weather") + _whole(1, _ROME) + _CALLED,
        **_BOTH,
    ),
    "SSE-7 an id that calls nothing": Shape(
        fragment(0, id="c1") + _whole(1, _ROME) + _CALLED,
        calls=(_ROME,),
        finish="tool_calls",
        figures=(9, 48, 0),
    ),
    "SSE-7 arguments that are no object": Shape(
        fragment(0, "1", name="f", id="c1") + fragment(1, "{}", name="g", id="c2") + fragment(0, "2") + _CALLED,
        calls=(("c1", "f", "12"), ("c2", "g", "{}")),
        finish="tool_calls",
        figures=(9, 48, 0),
    ),
    "SSE-7 a second call that is truncated": Shape(
        _whole(0, _PARIS) + fragment(1, '{"ci', name="get_weather", id="c2") + chunk({}, "length") + DONE,
        calls=(_PARIS, ("c2", "get_weather", '{"ci')),
        finish="length",
    ),
    "OUT-2 `tool_calls` and none there": Shape(_PLAIN + chunk({}, "tool_calls") + DONE, **_ANSWER),
    "PAR-18 the first call only": Shape(
        _whole(0, _PARIS) + _whole(1, _ROME) + _CALLED, **_ONE, rules=answer.Rules(parallel_calls=False)
    ),
    "D.4 vLLM, an error first": Shape(
        event({"error": {"message": "bad top_p", "type": "BadRequestError", "param": None, "code": 400}}) + DONE,
        fault=faults.invalid("bad top_p"),
    ),
    "D.4 vLLM, an error later": Shape(
        _PLAIN + event({"error": {"message": "EngineCore encountered an issue", "code": 500}}) + DONE,
        **_ANSWER,
        fault=faults.INFERENCE,
    ),
    "D.4 OpenRouter, an error beside a choice": Shape(
        _PLAIN + event({"choices": [{"delta": {}, "finish_reason": "error"}], "error": "gone"}),
        **_ANSWER,
        fault=faults.UPSTREAM_BROKEN,
    ),
    "D.1 moderated before any text": Shape(
        _HEAD + event({"error": {"message": "Content Exists Risk"}}), fault=faults.INPUT_MODERATED
    ),
    "D.1 moderated after text": Shape(
        _PLAIN + event({"error": {"message": "Content Exists Risk"}}), **_ANSWER, fault=faults.OUTPUT_MODERATED
    ),
    "OUT-3 content_filter": Shape(_PLAIN + chunk({}, "content_filter"), **_ANSWER, fault=faults.OUTPUT_MODERATED),
    "OUT-3 insufficient_system_resource": Shape(
        _PLAIN + chunk({}, "insufficient_system_resource"), **_ANSWER, fault=faults.OVERLOADED
    ),
    "OUT-3 insufficient_system_resource first": Shape(
        chunk({}, "insufficient_system_resource"), fault=faults.OVERLOADED
    ),
    "OUT-3 aborted": Shape(_PLAIN + chunk({}, "aborted") + DONE, **_ANSWER, fault=faults.UPSTREAM_BROKEN),
    "OUT-3 an unknown finish reason": Shape(
        _PLAIN + chunk({}, "bored") + DONE, **_ANSWER, fault=faults.UPSTREAM_BROKEN
    ),
    "SSE-4 no [DONE], no finish": Shape(_PLAIN, **_ANSWER, fault=faults.UPSTREAM_BROKEN),
    "SSE-4 nothing at all": Shape(b"", fault=faults.UPSTREAM_BROKEN),
    "SSE-4 [DONE] alone": Shape(_HEAD + DONE, fault=faults.UPSTREAM_BROKEN),
    "ERR-3 a chunk that is not JSON": Shape(_PLAIN + b"data: {oops\n\n", **_ANSWER, fault=faults.UPSTREAM_BROKEN),
    "ERR-3 a chunk that is no object": Shape(_PLAIN + b"data: []\n\n", **_ANSWER, fault=faults.UPSTREAM_BROKEN),
    "ERR-3 a flat failure": Shape(
        _PLAIN + event({"object": "error", "message": "gone", "code": 500}), **_ANSWER, fault=faults.UPSTREAM_BROKEN
    ),
    "ERR-3 a choice that is no object": Shape(
        _PLAIN + event({"choices": [1]}), **_ANSWER, fault=faults.UPSTREAM_BROKEN
    ),
    "ERR-3 a choice nobody asked for": Shape(
        _PLAIN + chunk({"content": "x"}, index=1), **_ANSWER, fault=faults.UPSTREAM_BROKEN
    ),
    "ERR-3 a delta that is no object": Shape(_PLAIN + chunk("x"), **_ANSWER, fault=faults.UPSTREAM_BROKEN),
    "ERR-3 a text that is a number": Shape(_PLAIN + chunk({"content": 1}), **_ANSWER, fault=faults.UPSTREAM_BROKEN),
    "ERR-3 tool calls that are no list": Shape(
        _PLAIN + chunk({"tool_calls": "x"}), **_ANSWER, fault=faults.UPSTREAM_BROKEN
    ),
    "ERR-3 a tool call that is no object": Shape(
        _PLAIN + chunk({"tool_calls": ["x"]}), **_ANSWER, fault=faults.UPSTREAM_BROKEN
    ),
    "ERR-3 a choice without a delta": Shape(
        _HEAD + event({"choices": [{"index": 0, "finish_reason": None}]}) + chunk({"content": "The"}) + _FULL,
        **_ANSWER,
        figures=(9, 4, 0),
    ),
}
