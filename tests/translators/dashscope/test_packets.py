"""Packets byte for byte, and what each mode repeats (spec SSE-1, SSE-3, SSE-5, SSE-7, OUT-1, OUT-4)."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from typing import Any

import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests import corpus, lint
from tests.corpus import chunk, figures, usage_chunk
from translators import dialogue, faults, usage
from translators.dashscope import packets


def shape(model: dialogue.Model, **fields: object) -> packets.Shape:
    return packets.Shape(corpus.ask(model, **fields), usage.Tally(), corpus.REQUEST_ID)


def test_a_frame_is_exactly_this() -> None:
    """SSE-1: no space after a colon, compact, raw UTF-8."""
    through = corpus.open_pipe(corpus.ask(corpus.NEVER))
    assert through.feed(chunk({"content": "你好"})).decode() == (
        "id:1\nevent:result\n:HTTP_STATUS/200\n"
        'data:{"output":{"choices":[{"message":{"content":"你好","role":"assistant"},"index":0,"finish_reason":"null"}]},'
        '"usage":{"input_tokens":5,"output_tokens":1,"total_tokens":6},'
        f'"request_id":"{corpus.REQUEST_ID}"}}\n\n'
    )


def test_an_error_frame_is_exactly_this() -> None:
    """SSE-3: clients know an error by its first key."""
    frames = packets.Frames(shape(corpus.NEVER))
    assert frames.error(faults.TIMED_OUT).decode() == (
        "id:1\nevent:error\n:HTTP_STATUS/500\n"
        'data:{"code":"RequestTimeOut","message":"Request timed out, please try again later.",'
        f'"request_id":"{corpus.REQUEST_ID}"}}\n\n'
    )


USAGES = {
    "never": (corpus.NEVER, dialogue.Usage(5, 7), {}),
    "hybrid, thinking": (
        corpus.HYBRID,
        dialogue.Usage(5, 7, 3),
        {"output_tokens_details": {"reasoning_tokens": 3, "text_tokens": 4}},
    ),
    "r1": (corpus.ALWAYS, dialogue.Usage(5, 7, 3), {"output_tokens_details": {"reasoning_tokens": 3}}),
    "cached": (corpus.NEVER, dialogue.Usage(5, 7, None, 0), {"prompt_tokens_details": {"cached_tokens": 0}}),
}


@pytest.mark.parametrize("name", USAGES)
def test_usage_names_what_is_known_of_this_model(name: str) -> None:
    """OUT-4: `text_tokens` is refused on r1."""
    model, used, more = USAGES[name]
    expected = {"input_tokens": 5, "output_tokens": 7, "total_tokens": 12} | more
    assert shape(model).usage(used) == expected


@pytest.mark.parametrize(
    ("model", "thinking", "shows"),
    [
        (corpus.NEVER, False, False),
        (corpus.NEVER, True, True),
        (corpus.HYBRID, False, True),
        (corpus.HYBRID, True, True),
        (corpus.ALWAYS, True, True),
    ],
)
def test_thinking_models_always_have_the_field_of_their_chain(
    model: dialogue.Model, *, thinking: bool, shows: bool
) -> None:
    """OUT-1."""
    message = shape(model, thinking=thinking).message("a", "")
    assert ("reasoning_content" in message) is shows
    through = corpus.open_pipe(corpus.ask(model, thinking=thinking, incremental=True))
    (packet,) = corpus.packets(through.feed(chunk({"content": "a"})))
    assert ("reasoning_content" in corpus.choice_of(packet)["message"]) is shows
    assert ("output_tokens_details" in packet["usage"]) is thinking


def test_a_later_fragment_has_an_empty_id_and_no_name() -> None:
    """SSE-7."""
    call = dialogue.ToolCall("c", "f", "{}")
    assert packets.tool_call(1, call) == {
        "function": {"name": "f", "arguments": "{}"},
        "id": "c",
        "index": 1,
        "type": "function",
    }
    assert packets.tool_call(1, call, first=False) == {
        "function": {"arguments": "{}"},
        "id": "",
        "index": 1,
        "type": "function",
    }


@pytest.mark.parametrize("incremental", [True, False])
def test_a_chain_nobody_expected_is_shown_all_the_same(*, incremental: bool) -> None:
    """OUT-1: from its first packet on, and counted."""
    through = corpus.open_pipe(corpus.ask(corpus.NEVER, incremental=incremental), chain_end=0)
    out = corpus.drive(through, chunk({"reasoning": "We"}) + chunk({"content": "The"}) + chunk({}, "stop"))
    assert lint.check(out, incremental=incremental) == []
    for packet in corpus.packets(out):
        assert "reasoning_content" in corpus.choice_of(packet)["message"]
        assert packet["usage"]["output_tokens_details"] == {"reasoning_tokens": 1}


@pytest.mark.parametrize("model", [corpus.NEVER, corpus.HYBRID], ids=lambda model: model.thinking)
def test_a_chain_behind_another_choices_text_renews_what_was_made(model: dialogue.Model) -> None:
    """OUT-1, OUT-4: from then on every packet tells the tokens of the chain."""
    through = corpus.open_pipe(corpus.ask(model, n=2, thinking=False), chain_end=0)
    told = [
        (packet["usage"].get("output_tokens_details"), "reasoning_content" in packet["output"]["choices"][0]["message"])
        for wire in (chunk({"content": "a"}), chunk({"reasoning": "b"}, index=1), chunk({"content": " sea"}))
        for packet in corpus.packets(through.feed(wire))
    ]
    of_text = {"text_tokens": 0} if model is corpus.HYBRID else {}
    both = {"text_tokens": 2} if model is corpus.HYBRID else {}
    assert told == [
        (None, model is corpus.HYBRID),
        ({"reasoning_tokens": 1, **of_text}, True),
        ({"reasoning_tokens": 0, **both}, True),
    ]


def test_cached_tokens_are_in_every_packet_once_upstream_has_told() -> None:
    """OUT-4."""
    through = corpus.open_pipe(corpus.ask())
    cached = [
        packet["usage"].get("prompt_tokens_details")
        for wire in (
            chunk({"content": "a"}),
            usage_chunk(figures(9, 1, prompt_cache_hit_tokens=4)),
            chunk({"content": "b"}),
        )
        for packet in corpus.packets(through.feed(wire))
    ]
    assert cached == [None, {"cached_tokens": 4}]


def test_what_upstream_tells_is_in_the_next_text_whatever_said_it_first() -> None:
    """USE-3: the form of a text packet is made anew, also where a packet of another form has said the news."""
    call = corpus.ask(corpus.NEVER, incremental=True)
    answer = corpus.open_pipe(call).answer
    laid_out = packets.Shape(call, answer.tally, corpus.REQUEST_ID)
    frames, (choice,) = packets.Frames(laid_out), answer.choices
    frames.text(choice, [(b'"a"', packets.EMPTY)], [(1, 0)])
    answer.tally.report(answer.tally.latest(0), usage.Figures(cached=4), final=False)
    frames.packet(choice, laid_out.message("", ""))
    frames.text(choice, [(b'"b"', packets.EMPTY)], [(2, 0)])
    last = corpus.packets(frames.take())[-1]
    assert last["usage"] == {
        "input_tokens": 5,
        "output_tokens": 2,
        "total_tokens": 7,
        "prompt_tokens_details": {"cached_tokens": 4},
    }


@given(st.lists(st.text(min_size=1), min_size=1), st.sampled_from([corpus.NEVER, corpus.HYBRID, corpus.ALWAYS]))
def test_spliced_packets_are_what_serialising_them_whole_would_give(texts: list[str], model: dialogue.Model) -> None:
    """SSE-1: whatever the text, quotes, controls, percent signs and marks of ours included."""
    for incremental in (True, False):
        through = corpus.open_pipe(corpus.ask(model, incremental=incremental))
        stream = b"".join(through.feed(chunk({"content": text})) for text in texts)
        shown = [corpus.choice_of(packet)["message"]["content"] for packet in corpus.packets(stream)]
        expected = texts if incremental else ["".join(texts[: last + 1]) for last in range(len(texts))]
        assert shown == expected
        for block in stream.split(b"\n\n")[:-1]:
            data = block[block.index(b"\ndata:") + 6 :]
            assert orjson.dumps(orjson.loads(data)) == data


SPELLINGS: dict[str, Callable[[Any], bytes]] = {
    "as we write": orjson.dumps,
    "in ASCII": lambda document: json.dumps(document).encode(),
    "with escaped solidi": lambda document: orjson.dumps(document).replace(b"/", b"\\/"),
}


WORDS = [f" {word}" for word in ("is", "wide", "and", "deep", "and", "nobody", "has", "seen", "all") * 4]


@pytest.mark.parametrize("spelling", SPELLINGS)
@example(texts=WORDS, size=7, prompt=5, incremental=True, name="reasoning_content", model=corpus.ALWAYS)
@example(texts=WORDS, size=7, prompt=5, incremental=True, name="reasoning_content", model=corpus.HYBRID)
@example(texts=WORDS, size=7, prompt=5, incremental=True, name="content", model=corpus.NEVER)
@settings(max_examples=60)
@given(
    texts=st.one_of(
        # Of any text most are escaped somewhere, and not taken at one go.
        st.lists(st.text(min_size=1), min_size=1, max_size=12),
        st.lists(st.text('ab .,"\\\n你好', min_size=1), min_size=6, max_size=40),
    ),
    size=st.integers(1, 12),
    prompt=st.sampled_from([corpus.PROMPT_TOKENS, 9_990, 50_000]),
    incremental=st.booleans(),
    name=st.sampled_from(["content", "reasoning_content"]),
    model=st.sampled_from([corpus.NEVER, corpus.HYBRID, corpus.ALWAYS]),
)
def test_a_read_taken_at_one_go_is_what_its_events_give(
    *, spelling: str, texts: list[str], size: int, prompt: int, incremental: bool, name: str, model: dialogue.Model
) -> None:
    """SSE-1, USE-1: byte for byte, whoever upstream's strings are written by."""

    def event(text: str) -> bytes:
        choice = {"index": 0, "delta": {name: text}, "finish_reason": None}
        return b"data: " + SPELLINGS[spelling]({"choices": [choice]}) + b"\n\n"

    call = corpus.ask(model, incremental=incremental)
    at_one_go, one_by_one = corpus.open_pipe(call), corpus.open_pipe(call)
    # The first two are read in full: a stencil is made of the second.
    events = [event(text) for text in ("The", " sea", *texts)]
    reads = [b"".join(events[at : at + size]) for at in range(0, len(events), size)]
    # Upstream may tell of the prompt in between.
    half = len(reads) // 2
    for tokens, start, end in ((prompt, 0, half), (prompt + 1, half, len(reads))):
        for pipe in (at_one_go, one_by_one):
            pipe.count_prompt(tokens, 0)
        # A comment behind each event makes it none of those.
        alone = b"".join(one_by_one.feed(one + b": \n\n") for one in events[start * size : end * size])
        assert b"".join(map(at_one_go.feed, reads[start:end])) == alone


@pytest.mark.parametrize("is_chain", [False, True])
@pytest.mark.parametrize("model", [corpus.NEVER, corpus.HYBRID, corpus.ALWAYS], ids=lambda model: model.thinking)
def test_columns_say_what_one_after_the_other_would_say_whatever_the_numbers(
    model: dialogue.Model, *, is_chain: bool
) -> None:
    """SSE-1, OUT-4: those of up to four digits are kept as they are written; a chain is no more than all."""
    call = corpus.ask(model, incremental=True, thinking=is_chain)
    answer = corpus.open_pipe(call).answer
    (choice,) = answer.choices
    edge = range(9_990, 9_996)
    for several, before, prompt in itertools.product((1, 5, 6, 7), (0, *edge), (5, *edge)):
        strings = [b'"%d"' % number for number in range(several)]
        made, chain = [*range(1, several + 1)], [*range(2, several + 2)] if is_chain else [1] * several
        answer.tally.count_prompt(prompt, 0, 0)
        together, alone = (packets.Frames(packets.Shape(call, answer.tally, corpus.REQUEST_ID)) for _ in range(2))
        together.number = alone.number = before
        # One side, then the other, of which either may have been laid out before.
        for side in (is_chain, is_chain, False):
            together.splice(choice, strings, (made, chain), side)
            for string, one in zip(strings, zip(made, chain, strict=True), strict=True):
                alone.splice_one(choice, string, one, side)
            assert together.mark() == alone.mark()
            assert together.take() == alone.take()


@pytest.mark.parametrize("logprobs", [False, True])
@pytest.mark.parametrize("incremental", [False, True])
def test_what_is_laid_out_by_strings_takes_them_as_they_come(*, incremental: bool, logprobs: bool) -> None:
    """COM-34: log probabilities are told apart by their texts; all else costs no text twice."""
    frames = packets.Frames(shape(corpus.NEVER, logprobs=logprobs))
    writer = (packets.Incremental if incremental else packets.Cumulative)(frames)
    assert (writer.splice is None, writer.splice_one is None) == (logprobs, logprobs)


@pytest.mark.parametrize("way", ["splice", "splice_one", "reasoning"])
@pytest.mark.parametrize("several", [1, 7])
@pytest.mark.parametrize("incremental", [False, True])
def test_a_chain_that_nobody_expected_is_shown_however_it_comes(*, incremental: bool, several: int, way: str) -> None:
    """OUT-1: from the first string on."""
    call = corpus.ask(corpus.NEVER, incremental=incremental, thinking=False)
    answer = corpus.open_pipe(call).answer
    frames = packets.Frames(packets.Shape(call, answer.tally, corpus.REQUEST_ID))
    writer = (packets.Incremental if incremental else packets.Cumulative)(frames)
    (choice,) = answer.choices
    answer.tally.counts_chain = True
    figures = [*range(1, several + 1)]
    assert writer.splice is not None
    assert writer.splice_one is not None
    if way == "splice":
        writer.splice(choice, [b'"a"'] * several, (figures, figures), True)
    elif way == "splice_one":
        for made in figures:
            writer.splice_one(choice, b'"a"', (made, made), True)
    else:
        writer.reasoning(choice, ["a"] * several, [(made, made) for made in figures])
    shown = [corpus.choice_of(packet)["message"]["reasoning_content"] for packet in corpus.packets(writer.take())]
    assert shown == (["a"] * several if incremental else ["a" * made for made in figures])


@pytest.mark.parametrize("text", ["%d", "%b", packets.CONTENT_MARK, packets.REASONING_MARK, ":-1", '","x":-2'])
def test_text_that_looks_like_a_mark_is_text(text: str) -> None:
    through = corpus.open_pipe(corpus.ask())
    stream = through.feed(chunk({"reasoning": text}) + chunk({"content": text}))
    assert lint.check(stream + b"", incremental=True) == ["SSE-4 choice 0 never finishes"]
    assert (corpus.fold(stream).reasoning, corpus.fold(stream).content) == (text, text)


@pytest.mark.parametrize("incremental", [True, False])
def test_log_probabilities_stand_beside_the_text_they_are_of(*, incremental: bool) -> None:
    """OUT-6: in every packet, also where there are none; a chain has none. All of them in the last snapshot alone."""
    entries = [{"token": token, "bytes": list(token.encode()), "logprob": -1.0, "top_logprobs": []} for token in "ab"]
    wire = chunk({"reasoning": "We"}, logprobs={"content": [entries[0]]})
    wire += b"".join(chunk({"content": one["token"]}, logprobs={"content": [one]}) for one in entries)
    through = corpus.open_pipe(corpus.ask(logprobs=True, incremental=incremental))
    out = corpus.drive(through, wire + chunk({}, "stop") + corpus.DONE)
    assert lint.check(out, incremental=incremental) == []
    shown = [corpus.choice_of(packet)["logprobs"]["content"] for packet in corpus.packets(out)]
    first, second = entries
    assert shown == ([[], [first], [second], []] if incremental else [[], [first], [second], entries])


def test_snapshots_with_log_probabilities_are_linear_in_them() -> None:
    """SSE-5, OUT-6: repeated in each packet, they would be ten times the text."""
    tops = [{"token": "x" * 8, "logprob": -1.0}] * 5
    wire = b"".join(
        chunk({"content": "a"}, logprobs={"content": [{"token": "a", "logprob": -1.0, "top_logprobs": tops}]})
        for _ in range(400)
    )
    through = corpus.open_pipe(corpus.ask(logprobs=True, incremental=False))
    out = corpus.drive(through, wire + chunk({}, "stop") + corpus.DONE)
    assert len(out) < 400 * 4_000
    assert len(corpus.choice_of(corpus.packets(out)[-1])["logprobs"]["content"]) == 400


def test_nothing_to_take_is_no_bytes() -> None:
    assert packets.Frames(shape(corpus.NEVER)).take() == b""
