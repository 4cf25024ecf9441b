"""Whatever a model calls a tool with, every published client puts together what it said (spec SSE-7).

The rules are those of the clients' own code, each as short as it is there; the arguments are random, and so are the
pieces upstream sends them in.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import corpus, lint
from tests.corpus import Json, chunk, fragment
from translators import dialogue, faults

Join = Callable[[str | None, str], str]
TEXTS = st.text(st.characters(codec="utf-8"), max_size=6) | st.sampled_from(
    ["  a  ", "ha ha ha ha", "111111", '"}{"', "\\"]
)
VALUES = st.recursive(
    TEXTS | st.integers() | st.booleans() | st.none(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)
CALLS = st.lists(st.dictionaries(TEXTS, VALUES, max_size=3), min_size=1, max_size=3)


def concatenated(known: str | None, piece: str) -> str:
    """qwen-agent, Dify, openai-style accumulators."""
    return (known or "") + piece


def stripped(known: str | None, piece: str) -> str:
    """LlamaIndex, asynchronous: the first as it is, the others without the blanks around them."""
    return piece if known is None else known + piece.strip()


def guessed(known: str | None, piece: str) -> str:
    """LangChain.js: a piece that begins with all there is replaces it, one that ends it is a repetition."""
    if known is None or piece.startswith(known):
        return piece
    return known if known.endswith(piece) else known + piece


def parsed(known: str | None, piece: str) -> str:
    """LlamaIndex' agents: every piece is read as JSON at once."""
    json.loads(piece)
    return piece


def merged(stream: bytes, join: Join) -> list[tuple[str, str, Any]]:
    """The calls of a stream by their index: id, name and arguments read."""
    calls: dict[int, tuple[str, str, str]] = {}
    for packet in corpus.packets(stream):
        for call in corpus.choice_of(packet)["message"].get("tool_calls", ()):
            known = calls.get(call["index"])
            name = (known[1] if known else "") + call["function"].get("name", "")
            arguments = join(known[2] if known else None, call["function"]["arguments"])
            calls[call["index"]] = (known[0] if known else call["id"], name, arguments)
    return [(call_id, name, json.loads(arguments)) for call_id, name, arguments in calls.values()]


def pieces_of(text: str, data: st.DataObject) -> list[str]:
    pieces = []
    while text:
        size = data.draw(st.integers(1, len(text)))
        pieces.append(text[:size])
        text = text[size:]
    return pieces


def called(arguments: list[Json], data: st.DataObject) -> list[bytes]:
    """What upstream sends, event by event."""
    events = []
    for index, one in enumerate(arguments):
        events.append(fragment(index, "", name="get_weather", id=f"c{index}"))
        text = json.dumps(one, ensure_ascii=data.draw(st.booleans()), indent=data.draw(st.sampled_from([None, 1])))
        events += [fragment(index, piece) for piece in pieces_of(text, data)]
    return [*events, chunk({}, "tool_calls"), corpus.DONE]


@pytest.mark.parametrize("join", [concatenated, stripped, guessed, parsed])
@settings(max_examples=60)
@given(CALLS, st.data())
def test_every_client_gets_the_arguments_the_model_wrote(
    join: Join, arguments: list[Json], data: st.DataObject
) -> None:
    through = corpus.open_pipe(corpus.ask())
    stream = b""
    for event in called(arguments, data):
        stream += through.feed(event)
        if data.draw(st.booleans()):
            stream += through.progress()
    assert lint.check(stream, incremental=True) == []
    assert merged(stream, join) == [(f"c{index}", "get_weather", one) for index, one in enumerate(arguments)]


@settings(max_examples=60)
@given(CALLS, st.data())
def test_pieces_that_were_asked_for_are_the_text_itself(arguments: list[Json], data: st.DataObject) -> None:
    """PAR-20: and none of them is empty."""
    through = corpus.open_pipe(corpus.ask(), corpus.answer.Rules(parallel_calls=True, calls_in_pieces=True))
    stream = b"".join(map(through.feed, called(arguments, data)))
    assert merged(stream, concatenated) == [(f"c{index}", "get_weather", one) for index, one in enumerate(arguments)]
    for packet in corpus.packets(stream):
        assert all(call["function"]["arguments"] for call in corpus.choice_of(packet)["message"].get("tool_calls", ()))


ODD = st.lists(st.sampled_from(["{}", "null", " ", '{"a":1}', '{"b":"}"}', "x", "{", "}", ""]), max_size=4).map("".join)


@settings(max_examples=60)
@given(st.lists(ODD, min_size=1, max_size=3), st.sampled_from(["", "same"]), st.data())
def test_a_stream_and_a_whole_answer_give_the_same_calls(
    arguments: list[str], one_id: str, data: st.DataObject
) -> None:
    """OUT-5: mended in the same way, also where a host gives every call the same id."""
    ids = [one_id or f"c{number}" for number in range(len(arguments))]
    heads = (fragment(number, "", name="get_weather", id=ids[number]) for number in range(len(arguments)))
    stream = b""
    for number, (head, text) in enumerate(zip(heads, arguments, strict=True)):
        stream += head + b"".join(fragment(number, piece) for piece in pieces_of(text, data))
    calls = [
        {"id": ids[number], "type": "function", "function": {"name": "get_weather", "arguments": text}}
        for number, text in enumerate(arguments)
    ]
    message = {"role": "assistant", "content": None, "tool_calls": calls}
    whole = {"choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}]}
    streamed = corpus.drive(corpus.open_pipe(corpus.ask(stream=False)), stream + chunk({}, "tool_calls") + corpus.DONE)
    said = corpus.open_pipe(corpus.ask(stream=False)).feed_completion(json.dumps(whole).encode())
    assert json.loads(streamed)["output"] == json.loads(said)["output"]


@pytest.mark.parametrize("whole", [False, True], ids=["stream", "whole"])
@pytest.mark.parametrize("offered", [("get_weather",), ("get_weather", "get_time")])
def test_a_call_without_a_name_is_the_only_functions_or_an_error(offered: tuple[str, ...], *, whole: bool) -> None:
    """OUT-5: nobody could make a call of a function without a name."""
    tools = tuple(dialogue.Tool(name, {"name": name}) for name in offered)
    through = corpus.open_pipe(corpus.ask(stream=not whole, tools=tools))
    call = {"id": "c1", "type": "function", "function": {"arguments": "{}"}}
    message = {"role": "assistant", "content": "So:", "tool_calls": [call]}
    raw = {"choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}]}
    wire = chunk({"content": "So:"}) + fragment(0, "{}", id="c1") + chunk({}, "tool_calls") + corpus.DONE
    if len(offered) > 1 and whole:
        with pytest.raises(faults.Refusal, match="a tool call without a name"):
            through.feed_completion(json.dumps(raw).encode())
        return
    said = through.feed_completion(json.dumps(raw).encode()) if whole else through.feed(wire)
    if len(offered) > 1:
        assert b"event:error" in said
        assert through.refusal is not None
        assert through.refusal.cause == "upstream sent a tool call without a name"
    else:
        assert b'"name":"get_weather"' in said


@pytest.mark.parametrize(
    "fields", [{"incremental": True}, {"incremental": False}, {"incremental": False, "logprobs": True}]
)
def test_while_a_call_is_held_its_usage_goes_on(fields: dict[str, bool]) -> None:
    """SSE-7, USE-1: who hangs up is billed for what was generated; a snapshot keeps its text."""
    through = corpus.open_pipe(corpus.ask(**fields))
    assert through.progress() == b""
    through.feed(chunk({"content": "Let me see"}))
    assert through.progress() == b""
    assert through.feed(fragment(0, "", name="get_weather", id="c1")) == b""
    seen = []
    for piece in ('{"city":', '"Paris', ' and more of it"'):
        assert through.feed(fragment(0, piece)) == b""
        (packet,) = corpus.packets(through.progress())
        seen.append(packet["usage"]["output_tokens"])
        message = corpus.choice_of(packet)["message"]
        assert "tool_calls" not in message
        assert message["content"] == ("" if fields["incremental"] else "Let me see")
        assert through.progress() == b""
        through.hand_over()
        delivered = through.account().delivered
        assert delivered is not None
        assert delivered.output == seen[-1]
    assert seen == sorted(set(seen))
    through.feed(fragment(0, "}") + chunk({}, "tool_calls") + corpus.DONE)
    assert through.progress() == b""


def test_a_held_call_opens_the_stream_and_a_reply_has_no_progress() -> None:
    """SSE-2: upstream's first event is understood; SSE-3."""
    through = corpus.open_pipe(corpus.ask())
    through.feed(fragment(0, "{", name="get_weather", id="c1"))
    assert corpus.packets(through.progress())
    assert through.eof().startswith(b"id:2\nevent:error\n")
    whole = corpus.open_pipe(corpus.ask(stream=False))
    whole.feed(fragment(0, "{", name="get_weather", id="c1"))
    assert whole.progress() == b""
