"""What a caller reads of any upstream stream, however it is cut and however it was asked for (spec OUT, SSE, USE)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

import proxy.vocabulary
from tests import corpus, lint
from tests.corpus import SHAPES, Shape, chunk, figures, usage_chunk
from translators import choice as answer
from translators import faults, pipe
from translators.compatible import tongue as compatible
from translators.compatible.call import Form
from translators.dashscope import tongue as dashscope
from translators.deepseek import prompt
from translators.dialogue import Image, Message, ToolCall
from translators.openai import failures
from translators.openai.chunks import Reader
from translators.tongue import Tongue

CUTS = (1, 7, 4096)


def streamed(shape: Shape, cut: int = 1 << 20, **fields: Any) -> bytes | faults.Fault:
    through = corpus.open_pipe(corpus.ask(**fields), shape.rules)
    return corpus.outcome(lambda: corpus.drive(through, shape.wire, cut))


def is_told(shape: Shape) -> corpus.Report:
    return corpus.Report(shape.content, shape.reasoning, list(shape.calls), shape.finish)


def said(told: corpus.Report) -> corpus.Report:
    """Without what is compared on its own."""
    return replace(told, usage={})


ANSWERED = [name for name, shape in SHAPES.items() if shape.fault is None]
FAILED = [name for name, shape in SHAPES.items() if shape.fault is not None]


@pytest.mark.parametrize("name", ANSWERED)
def test_incremental_packets_cumulative_packets_and_the_reply_say_the_same(name: str) -> None:
    """SSE-5, SSE-7, OUT-1: put together, last, and whole."""
    shape = SHAPES[name]
    deltas, snapshots = streamed(shape), streamed(shape, incremental=False)
    reply = streamed(shape, stream=False)
    assert isinstance(deltas, bytes)
    assert isinstance(snapshots, bytes)
    assert isinstance(reply, bytes)
    folded = corpus.fold(deltas)
    last, whole = (corpus.told_by(packet) for packet in (corpus.packets(snapshots)[-1], orjson.loads(reply)))
    assert said(folded) == said(last) == said(whole) == is_told(shape)
    assert folded.usage == last.usage == whole.usage


@pytest.mark.parametrize("incremental", [True, False], ids=["incremental", "cumulative"])
@pytest.mark.parametrize("name", SHAPES)
def test_every_stream_is_clean_and_no_cut_changes_a_byte(name: str, *, incremental: bool) -> None:
    """SSE-1…SSE-11."""
    shape = SHAPES[name]
    whole = streamed(shape, incremental=incremental)
    if isinstance(whole, bytes):
        assert lint.check(whole, incremental=incremental) == []
    cuts = CUTS if len(shape.wire) < 1 << 16 else CUTS[2:]
    assert [streamed(shape, cut, incremental=incremental) for cut in cuts] == [whole] * len(cuts)


@pytest.mark.parametrize("name", [name for name in ANSWERED if SHAPES[name].figures])
def test_the_last_usage_is_upstreams(name: str) -> None:
    """USE-3, USE-4: its figures, and ours for a chain it does not tell or calls 0."""
    stream = streamed(SHAPES[name])
    assert isinstance(stream, bytes)
    usage = corpus.packets(stream)[-1]["usage"]
    given, made, chain = SHAPES[name].figures or (0, 0, 0)
    assert (usage["input_tokens"], usage["output_tokens"], usage["total_tokens"]) == (given, made, given + made)
    assert usage["output_tokens_details"] == {"reasoning_tokens": chain, "text_tokens": made - chain}


@pytest.mark.parametrize("name", FAILED)
def test_a_failure_keeps_its_status_until_a_packet_is_out_then_is_the_last_frame(name: str) -> None:
    """SSE-2, SSE-3, SSE-4, ERR-1; a JSON call always keeps its status."""
    shape = SHAPES[name]
    assert shape.fault is not None
    for incremental in (True, False):
        stream = streamed(shape, incremental=incremental)
        if not shape.content:
            assert stream == shape.fault
            continue
        assert isinstance(stream, bytes)
        *before, last = corpus.packets(stream)
        assert before
        assert last == {"code": shape.fault.code, "message": shape.fault.message, "request_id": corpus.REQUEST_ID}
        assert f":HTTP_STATUS/{shape.fault.status}\n".encode() in stream
        told = corpus.fold(stream) if incremental else corpus.told_by(before[-1])
        assert told.content == shape.content
    assert streamed(shape, stream=False) == shape.fault


@pytest.mark.parametrize("name", ANSWERED)
def test_an_upstream_lost_before_the_finish_is_an_error_never_a_clean_end(name: str) -> None:
    """SSE-4: cut after every event, a stream either has its finish or an error."""
    shape = SHAPES[name]
    if len(shape.wire) > 1 << 16:
        return
    separator = b"\r\n\r\n" if b"\r\n" in shape.wire else b"\r\r" if b"\r" in shape.wire else b"\n\n"
    events = [piece + separator for piece in shape.wire.split(separator) if piece]
    for kept in range(len(events)):
        part = replace(shape, wire=b"".join(events[:kept]))
        stream = streamed(part)
        if isinstance(stream, faults.Fault):
            assert stream == faults.UPSTREAM_BROKEN
            continue
        assert lint.check(stream, incremental=True) == []
        last = corpus.packets(stream)[-1]
        assert ("code" in last) is (b"event:error" in stream)


@given(st.data())
def test_any_upstream_stream_is_read_the_same_in_any_cut_and_any_mode(data: st.DataObject) -> None:
    """SSE-1…SSE-10, USE-2: random answers in random deltas, random usage, random reads."""
    words = st.text('ab 你😀\n"\\', min_size=0, max_size=6)
    thoughts, texts = data.draw(st.lists(words, max_size=5)), data.draw(st.lists(words, max_size=8))
    deltas = [{"reasoning_content": text, "content": None} for text in thoughts] + [{"content": text} for text in texts]
    usages = st.one_of(st.just(...), st.none(), st.builds(figures, st.integers(-1, 30), st.integers(-1, 30)))
    wire = b"".join(chunk(delta, usage=data.draw(usages)) for delta in deltas)
    wire += chunk({"content": ""}, "stop", usage=data.draw(usages)) + corpus.DONE
    shape = Shape(wire, content="".join(texts), reasoning="".join(thoughts))
    cut = data.draw(st.integers(1, 200))
    deltas_out, snapshots = streamed(shape), streamed(shape, incremental=False)
    reply = streamed(shape, stream=False)
    assert streamed(shape, cut) == deltas_out
    assert isinstance(deltas_out, bytes)
    assert isinstance(snapshots, bytes)
    assert isinstance(reply, bytes)
    assert lint.check(deltas_out, incremental=True) == []
    assert lint.check(snapshots, incremental=False) == []
    folded = corpus.fold(deltas_out)
    assert said(folded) == is_told(shape)
    assert folded == corpus.told_by(corpus.packets(snapshots)[-1]) == corpus.told_by(orjson.loads(reply))


@pytest.mark.parametrize("tongue", [dashscope, compatible], ids=["native", "compatible"])
@pytest.mark.parametrize("cut", [1_000, 4_096, 65_536])
def test_of_a_read_that_is_cut_within_an_event_the_whole_ones_are_taken_at_one_go(
    cut: int, tongue: Tongue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SSE-10, COM-34: as a proxy before upstream's server fills its buffers; event by event each costs three times."""
    alone: list[bytes] = []
    feed = Reader.feed
    monkeypatch.setattr(Reader, "feed", lambda self, events: feed(self, (alone.append(one) or one for one in events)))
    words = [f" word {number}" for number in range(1_000)]
    wire = b"".join(chunk({"content": word}) for word in words)
    call = corpus.ask(corpus.NEVER, form=Form("x") if tongue is compatible else None)
    through, whole = corpus.open_pipe(call, spoken=tongue), corpus.open_pipe(call, spoken=tongue)
    reads = [wire[:500], *(wire[at : at + cut] for at in range(500, len(wire), cut))]
    out = [through.feed(read) for read in reads]
    # Those before the first two texts, and one for each border.
    assert len(alone) <= 5 + len(reads)
    assert b"".join(out) == b"".join(whole.feed(chunk({"content": word})) for word in words)
    assert through.account().generated == whole.account().generated


@pytest.mark.parametrize("tongue", [dashscope, compatible], ids=["native", "compatible"])
@pytest.mark.parametrize(
    "rules",
    [{}, {"answer_limit": 12}, {"answer_limit": 1}, {"stops": ("word 13",)}, {"chain_limit": 9}, {"think_tags": True}],
    ids=str,
)
@pytest.mark.parametrize("given", [{}, {"incremental": False}, {"stream": False}], ids=str)
def test_a_text_that_comes_alone_is_what_it_is_beside_a_comment(
    rules: dict[str, Any], given: dict[str, Any], tongue: Tongue
) -> None:
    """SSE-10, COM-34: the short way of what comes as it is generated, and the long way of anything else."""
    call = corpus.ask(form=Form("x", usage=True) if tongue is compatible else None, **given)
    short, long = (corpus.open_pipe(call, answer.Rules(**rules), spoken=tongue) for _ in range(2))
    names = ["reasoning_content"] * 12 + ["content"] * 20
    events = [chunk({name: f" word {number}"}) for number, name in enumerate(names)]
    taken = 0
    for event in (*events, chunk({}, "stop"), usage_chunk(figures(7, 99)), corpus.DONE):
        out = short.feed(event)
        assert out == long.feed(event + b": \n\n")
        assert (short.is_open(), short.wants_no_more(), short.was_cut(), short.state) == (
            *(long.is_open(), long.wants_no_more(), long.was_cut(), long.state),
        )
        assert not short.took_text or short.is_open()
        assert not long.took_text
        taken += short.took_text
        for through in (short, long):
            through.hand_over()
        assert short.account() == long.account()
    # All but those before the second of a side, where a caller reads what comes and nobody cuts it off.
    if call.stream and not rules:
        assert taken == 12 - 2 + 20 - 1


def test_a_failure_in_a_read_that_is_cut_has_the_usage_behind_it() -> None:
    """MET-3: wherever the read before it ended."""
    texts = b"".join(chunk({"content": word}) for word in ("The", " sea", " is", " wide"))
    failure = corpus.event({"error": {"message": "x"}})
    wire = texts + failure + usage_chunk(figures(7, 9)) + chunk({"content": "a"})[:9]
    for at in range(len(texts) // 2, len(texts + failure) - 1):
        through = corpus.open_pipe(corpus.ask(corpus.NEVER))
        for read in (wire[:at], wire[at:]):
            through.feed(read)
        (spent,) = through.account().spent
        assert (spent.prompt, spent.completion) == (7, 9), at


def test_the_running_count_is_that_of_all_text_so_far() -> None:
    """USE-1, USE-2: "We think" is 2 tokens, the closing tag 1, "The answer" 2; the prompt is counted before."""
    stream = streamed(SHAPES["B.1 DeepSeek, usage in the finish chunk"])
    assert isinstance(stream, bytes)
    usages = [packet["usage"] for packet in corpus.packets(stream)]
    assert [usage["output_tokens"] for usage in usages] == [1, 2, 4, 5, 6]
    assert [usage["input_tokens"] for usage in usages] == [5, 5, 5, 5, 9]
    assert [usage["output_tokens_details"]["reasoning_tokens"] for usage in usages] == [1, 2, 2, 2, 2]


@pytest.mark.parametrize(
    ("tokens", "sees", "image"),
    [((), True, None), ((192,), True, 192), ((None,), True, 295), ((192, None), True, 295), ((192,), False, None)],
    ids=["none", "of a known size", "of an unknown size", "both", "none is seen"],
)
def test_what_of_a_prompt_is_images_is_what_is_counted_or_all_else(
    tokens: tuple[int | None, ...], image: int | None, *, sees: bool
) -> None:
    """USE-1, OUT-4: upstream tells of 300 tokens, of which the text is 5."""
    shown = tuple(Image("https://a/b.png", tokens=size) for size in tokens)
    turn = Message("user", "hi", parts=("hi", *shown))
    call = corpus.ask(replace(corpus.NEVER, sees=sees))._replace(messages=(turn,))
    through = corpus.open_pipe(call)
    through.count_prompt(corpus.PROMPT_TOKENS + (sum(filter(None, tokens)) if sees else 0), 0)
    through.feed(chunk({"content": "a"}) + chunk({}, "stop", usage=figures(300, 1)))
    assert through.account().generated.image == image


def test_of_a_prompt_whose_template_is_not_known_nothing_is_taken_away() -> None:
    """USE-5."""
    through = corpus.open_pipe(corpus.ask())
    for learned, prompt_tokens in ((-1, 5), (3, 8)):
        through.count_prompt(5, learned)
        assert through.account().generated.input == prompt_tokens


def test_a_figure_that_comes_with_text_is_in_that_texts_packet() -> None:
    """USE-3: some report on every chunk; between reports our count goes on from theirs."""
    shape = Shape(
        chunk({"content": "The"}, usage=figures(9, 7))
        + chunk({"content": " answer"})
        + chunk({"content": " is"}, usage=figures(9, 8))
        + chunk({"content": "!"})
        + chunk({}, "stop")
        + corpus.DONE
    )
    stream = streamed(shape)
    assert isinstance(stream, bytes)
    assert [packet["usage"]["output_tokens"] for packet in corpus.packets(stream)] == [7, 8, 8, 9, 9]
    assert {packet["usage"]["input_tokens"] for packet in corpus.packets(stream)} == {9}


def test_the_finish_waits_for_usage_and_no_longer() -> None:
    """SSE-8: in a later chunk with empty choices; what has been said leaves before."""
    through = corpus.open_pipe(corpus.ask())
    assert corpus.packets(through.feed(chunk({"content": "The"})))
    assert not through.awaits_usage()
    assert through.feed(chunk({}, "stop")) == b""
    assert through.awaits_usage()
    out = through.feed(usage_chunk(figures(9, 3)))
    assert corpus.packets(out)[-1]["usage"]["output_tokens"] == 3
    assert not through.is_open()
    assert through.state is pipe.State.ENDED
    assert (through.feed(corpus.DONE), through.release(), through.eof()) == (b"", b"", b"")


def test_a_finish_whose_usage_never_comes_is_released_with_our_count() -> None:
    """SSE-8: after a short timer, which is the shell's."""
    through = corpus.open_pipe(corpus.ask())
    out = through.feed(chunk({"content": "The"}) + chunk({}, "stop")) + through.release()
    assert lint.check(out, incremental=True) == []
    assert corpus.packets(out)[-1]["usage"]["output_tokens"] == 2
    assert through.account().basis == "counted"


def test_once_the_shell_has_sent_the_head_every_failure_is_a_frame() -> None:
    """SSE-11, SSE-3."""
    through = corpus.open_pipe(corpus.ask())
    through.open()
    out = through.feed(b"data: {oops\n\n")
    assert out.startswith(b"id:1\nevent:error\n:HTTP_STATUS/500\n")
    assert through.state is pipe.State.ENDED
    with pytest.raises(faults.Refusal):
        through.fail(faults.Refusal(faults.TIMED_OUT))


@pytest.mark.parametrize("said", ["", "one"])
def test_a_failure_behind_packets_of_the_same_read_is_told_from_one_that_stands_alone(said: str) -> None:
    through = corpus.open_pipe(corpus.ask())
    through.open()
    before = chunk({"content": said}) if said else b""
    assert b"event:error" in through.feed(before + corpus.event({"error": {"message": "no", "code": 503}}))
    assert through.failed_behind_packets is bool(said)


def test_a_shell_failure_before_the_first_packet_keeps_its_status() -> None:
    """SSE-2: a time-out is refused, not framed."""
    through = corpus.open_pipe(corpus.ask())
    through.feed(chunk({"role": "assistant", "content": ""}))
    assert through.state is pipe.State.HELD
    with pytest.raises(faults.Refusal) as refused:
        through.fail(faults.Refusal(faults.TIMED_OUT))
    assert refused.value.fault is faults.TIMED_OUT


def test_an_answer_cut_by_us_closes_its_upstream_and_keeps_our_count() -> None:
    """OUT-8: nothing upstream still says is read, not even an error in the same read."""
    rules = answer.Rules(answer_limit=2)
    through = corpus.open_pipe(corpus.ask(thinking=False), rules, chain_end=0)
    wire = (
        chunk({"content": "The answer is"}) + chunk({"content": " 42"}, "stop", usage=figures(9, 99)) + b"data: {\n\n"
    )
    out = through.feed(wire)
    assert through.was_cut()
    assert not through.is_open()
    (last,) = corpus.packets(out)
    assert last["usage"]["output_tokens"] == 2
    assert corpus.told_by(last).finish == "length"


def test_an_answer_cut_in_the_finish_chunk_keeps_our_count() -> None:
    """OUT-8: the figures of that chunk are of text that nobody sees."""
    rules = answer.Rules(answer_limit=1)
    through = corpus.open_pipe(corpus.ask(thinking=False), rules, chain_end=0)
    out = corpus.drive(through, chunk({"content": "The"}) + chunk({"content": " answer"}, "stop", usage=figures(9, 2)))
    assert lint.check(out, incremental=True) == []
    assert corpus.fold(out).content == "The"
    assert corpus.fold(out).finish == "length"


def test_tokens_that_are_held_count_as_life_and_comments_do_not() -> None:
    """ERR-5, SSE-7: how the shell re-arms its idle limit."""
    through = corpus.open_pipe(corpus.ask(incremental=False))
    assert through.feed(b": keep-alive\n\n") == b""
    assert through.generated() == 0
    assert through.feed(corpus.fragment(0, '{"a":', name="f", id="c")) == b""
    held = through.generated()
    assert held > 0
    through.feed(corpus.fragment(0, "1}"))
    assert through.generated() > held


class TestSeveralChoices:
    """OUT-7: n choices of one upstream call, or of n calls."""

    def test_native_choices_share_one_input_and_their_sum(self) -> None:
        """vLLM: one choice per packet, usage per choice while it runs, the sum in the chunk without choices."""
        through = corpus.open_pipe(corpus.ask(n=2, thinking=False), chain_end=0)
        out = corpus.drive(
            through,
            chunk({"content": "Yes"}, usage=figures(9, 2))
            + chunk({"content": "No"}, index=1, usage=figures(9, 3))
            + chunk({}, "stop", usage=figures(9, 2))
            + chunk({}, "stop", index=1, usage=figures(9, 3))
            + usage_chunk(figures(9, 6))
            + corpus.DONE,
        )
        assert lint.check(out, incremental=True) == []
        assert [corpus.fold(out, index).content for index in (0, 1)] == ["Yes", "No"]
        assert [corpus.fold(out, index).usage["output_tokens"] for index in (0, 1)] == [2, 4]
        used = through.answer.used()
        assert (used.input, used.output, through.account().basis) == (9, 6, "upstream_final")

    def test_native_choices_without_a_sum_keep_our_counts(self) -> None:
        through = corpus.open_pipe(corpus.ask(n=2, thinking=False), chain_end=0)
        wire = chunk({"content": "Yes"}) + chunk({"content": "No"}, index=1)
        out = corpus.drive(through, wire + chunk({}, "stop") + chunk({}, "length", index=1) + corpus.DONE)
        assert [corpus.fold(out, index).finish for index in (0, 1)] == ["stop", "length"]
        assert through.answer.used().output == 2

    @pytest.mark.parametrize("stream", [True, False])
    def test_legs_fill_one_choice_each_and_end_together(self, *, stream: bool) -> None:
        through = corpus.open_pipe(corpus.ask(n=2, thinking=False, stream=stream), legs=2, chain_end=0)
        out = through.feed(chunk({"content": "Yes"}), 0) + through.feed(chunk({"content": "No"}), 1)
        out += through.feed(chunk({}, "stop", usage=figures(9, 4)) + corpus.DONE, 1)
        assert through.is_open(0)
        assert not through.is_open(1)
        out += through.feed(chunk({}, "length", usage=figures(9, 7)) + corpus.DONE, 0)
        assert through.state is pipe.State.ENDED
        used = through.answer.used()
        assert (used.input, used.output) == (9, 11)
        if not stream:
            reply = orjson.loads(out)
            assert [choice["finish_reason"] for choice in reply["output"]["choices"]] == ["length", "stop"]
            assert reply["usage"]["output_tokens"] == 11
            return
        assert lint.check(out, incremental=True) == []
        assert [corpus.fold(out, index).usage["output_tokens"] for index in (0, 1)] == [7, 4]

    def test_the_basis_is_that_of_the_weakest_leg(self) -> None:
        """MET-3."""
        through = corpus.open_pipe(corpus.ask(n=2, thinking=False), legs=2, chain_end=0)
        through.feed(chunk({"content": "Yes"}) + chunk({}, "stop", usage=figures(9, 4)), 0)
        through.feed(chunk({"content": "No"}) + chunk({}, "stop") + corpus.DONE, 1)
        assert through.account().basis == "counted"

    def test_a_leg_that_fails_before_any_packet_fails_the_call(self) -> None:
        through = corpus.open_pipe(corpus.ask(n=2, thinking=False), legs=2)
        through.feed(chunk({"role": "assistant"}), 0)
        with pytest.raises(faults.Refusal):
            through.feed(b"data: {\n\n", 1)

    def test_a_leg_that_fails_later_ends_the_whole_stream(self) -> None:
        through = corpus.open_pipe(corpus.ask(n=2, thinking=False), legs=2)
        out = through.feed(chunk({"content": "Yes"}), 0) + through.eof(1)
        assert lint.check(out, incremental=True) == []
        assert out.count(b"event:error") == 1
        assert not through.is_open(0)
        assert through.feed(chunk({"content": "No"}), 0) == b""

    def test_done_with_a_choice_missing_is_an_error(self) -> None:
        """SSE-4: Ark ignores `n`."""
        through = corpus.open_pipe(corpus.ask(n=2, thinking=False))
        wire = chunk({"content": "Yes"}, "stop") + corpus.DONE
        assert corpus.outcome(lambda: corpus.drive(through, wire)) == faults.UPSTREAM_BROKEN


COMPLETION = {
    "id": "x",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "The answer", "reasoning_content": "We think"},
            "finish_reason": "stop",
        }
    ],
    "usage": figures(9, 6, 2, prompt_cache_hit_tokens=4),
}


@pytest.mark.parametrize("fields", [{"incremental": True}, {"incremental": False}, {"stream": False}], ids=str)
def test_a_whole_completion_says_what_a_stream_would(fields: dict[str, Any]) -> None:
    """OUT-1: blank lines before it are keep-alive."""
    through = corpus.open_pipe(corpus.ask(**fields))
    out = through.feed_completion(b"\n\n" + orjson.dumps(COMPLETION))
    assert through.state is pipe.State.ENDED
    told = corpus.fold(out) if fields.get("incremental") else None
    told = told or corpus.told_by(corpus.packets(out)[-1] if "stream" not in fields else orjson.loads(out))
    assert said(told) == corpus.Report("The answer", "We think", [], "stop")
    assert told.usage["prompt_tokens_details"] == {"cached_tokens": 4}
    assert told.usage["output_tokens"] == 6


def test_every_packet_of_a_measured_completion_says_what_upstream_measured() -> None:
    """USE-3: nothing is counted again, and no packet says less than the last one."""
    out = corpus.open_pipe(corpus.ask(incremental=True)).feed_completion(orjson.dumps(COMPLETION))
    assert [packet["usage"]["output_tokens"] for packet in corpus.packets(out)] == [6, 6, 6]


def test_a_measured_completion_with_leftover_tags_is_still_taken_apart() -> None:
    """SSE-6."""
    message = {"role": "assistant", "content": "<think>We think</think>The answer"}
    whole = COMPLETION | {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}
    through = corpus.open_pipe(corpus.ask(stream=False), rules=answer.Rules(think_tags=True))
    told = corpus.told_by(orjson.loads(through.feed_completion(orjson.dumps(whole))))
    assert said(told) == corpus.Report("The answer", "We think", [], "stop")
    assert told.usage["output_tokens"] == 6


def test_what_a_server_repeats_of_the_prefix_is_taken_off() -> None:
    """REQ-6: llama.cpp, JSON calls only."""
    through = corpus.open_pipe(corpus.ask(stream=False), prefix="The ")
    assert corpus.told_by(orjson.loads(through.feed_completion(orjson.dumps(COMPLETION)))).content == "answer"


@pytest.mark.parametrize("fields", [{"incremental": True}, {"stream": False}], ids=str)
def test_the_answer_is_read_for_what_it_is_whatever_its_label(fields: dict[str, Any]) -> None:
    """SSE-10: events under the label of a document, and a document where events were asked for."""
    wire = chunk({"reasoning": "We think"}) + chunk({"content": "The answer"}, "stop") + corpus.DONE
    labelled = corpus.open_pipe(corpus.ask(**fields)).feed_completion(b"\n\n" + wire)
    assert labelled == corpus.drive(corpus.open_pipe(corpus.ask(**fields)), wire)
    whole = b"\n" + orjson.dumps(COMPLETION)
    for cut in CUTS:
        through = corpus.open_pipe(corpus.ask(**fields))
        assert corpus.drive(through, whole, cut) == corpus.open_pipe(corpus.ask(**fields)).feed_completion(whole)
        assert through.state is pipe.State.ENDED


def test_a_document_that_is_cut_is_an_error_frame_once_the_head_is_out() -> None:
    """SSE-10, SSE-11: it is read for what it is whenever it comes."""
    through = corpus.open_pipe(corpus.ask())
    through.open()
    assert corpus.drive(through, b'{"choices":[').startswith(b"id:1\nevent:error\n:HTTP_STATUS/500\n")


BROKEN_COMPLETIONS = {
    "empty": (b"", faults.UPSTREAM_BROKEN),
    "not JSON": (b"<html>", faults.UPSTREAM_BROKEN),
    "no object": (b"[]", faults.UPSTREAM_BROKEN),
    "no choices": (b"{}", faults.UPSTREAM_BROKEN),
    "another number of choices": (b'{"choices":[]}', faults.UPSTREAM_BROKEN),
    "a choice that is no object": (b'{"choices":[1]}', faults.UPSTREAM_BROKEN),
    "a choice without a message": (b'{"choices":[{}]}', faults.UPSTREAM_BROKEN),
    "an error": (b'{"error":{"message":"Insufficient Balance","code":402}}', faults.ARREARAGE),
}


@pytest.mark.parametrize("name", BROKEN_COMPLETIONS)
def test_a_completion_that_is_none_is_refused(name: str) -> None:
    """ERR-3."""
    raw, fault = BROKEN_COMPLETIONS[name]
    through = corpus.open_pipe(corpus.ask(stream=False))
    assert corpus.outcome(lambda: through.feed_completion(raw)) == fault


def test_an_error_never_names_the_operators_key_as_the_callers_fault() -> None:
    """ERR table: our own key refused upstream is an internal error."""
    through = corpus.open_pipe(corpus.ask(), failures=failures.Terms(1, own_key=True))
    wire = corpus.event({"error": {"message": "Authentication Fails", "code": 401}})
    assert corpus.outcome(lambda: through.feed(wire)) == faults.UPSTREAM_KEY_REFUSED


CHAIN = corpus.chunk({"reasoning": "We think"}) + corpus.chunk({"reasoning": " much", "content": None})
REST = (
    corpus.chunk({"role": "assistant", "content": ""})
    + corpus.chunk({"reasoning": " and on"})
    + corpus.chunk({"content": "The answer"})
    + corpus.chunk({"content": "."}, "stop", usage=corpus.figures(40, 4))
    + corpus.DONE
)
BUDGET = answer.Rules(chain_limit=2)


def budgeted(cut: int = 1 << 20, **fields: Any) -> bytes:
    """A chain that outgrows its budget of two tokens, and the second upstream call behind it."""
    through = corpus.open_pipe(corpus.ask(**fields), BUDGET)
    seen = b"".join(through.feed(CHAIN[at : at + cut]) for at in range(0, len(CHAIN), cut))
    assert not through.is_open()
    assert through.chain_over_budget() == "We think"
    through.resume()
    assert through.chain_over_budget() is None
    return seen + corpus.drive(through, REST, cut)


@pytest.mark.parametrize("cut", [1, 7, 4096])
def test_a_chain_over_its_budget_is_gone_on_with_in_one_stream_and_one_usage(cut: int) -> None:
    """OUT-9: input once, as first counted; output the chain and the second call's answer, not the tag between them."""
    stream = budgeted(cut)
    assert lint.check(stream, incremental=True) == []
    told = corpus.fold(stream)
    assert (told.reasoning, told.content, told.finish) == ("We think", "The answer.", "stop")
    assert told.usage["input_tokens"] == corpus.PROMPT_TOKENS
    assert told.usage["output_tokens"] == 2 + 4
    assert told.usage["output_tokens_details"]["reasoning_tokens"] == 2


def test_a_budget_is_kept_alike_in_all_three_forms() -> None:
    """OUT-9"""
    told = corpus.fold(budgeted())
    last = corpus.packets(budgeted(incremental=False))[-1]
    reply = orjson.loads(budgeted(stream=False))
    for form in (corpus.choice_of(last), corpus.choice_of(reply)):
        assert form["message"]["content"] == told.content
        assert form["message"]["reasoning_content"] == told.reasoning
    assert last["usage"] == reply["usage"] == told.usage


def test_a_chain_over_its_budget_in_the_last_chunk_is_gone_on_with_too() -> None:
    """OUT-9: the finish is that of a chain, not of an answer."""
    through = corpus.open_pipe(corpus.ask(), BUDGET)
    through.feed(corpus.chunk({"reasoning": "We think much"}, "length", usage=corpus.figures(5, 3)))
    assert through.chain_over_budget() == "We think"


def test_a_chain_within_its_budget_is_no_case_for_a_second_call() -> None:
    """OUT-9"""
    through = corpus.open_pipe(corpus.ask(), BUDGET)
    corpus.drive(
        through, corpus.chunk({"reasoning": "We think"}) + corpus.chunk({"content": "A"}, "stop") + corpus.DONE
    )
    assert through.chain_over_budget() is None
    assert through.state is pipe.State.ENDED


@pytest.mark.parametrize(("finish", "made"), [("stop", 2), ("length", 1)])
def test_an_end_token_is_counted_only_where_the_answer_ended_by_itself(finish: str, made: int) -> None:
    """USE-1, where upstream reports nothing."""
    through = corpus.open_pipe(corpus.ask(corpus.NEVER), chain_end=0, answer_end=1)
    stream = corpus.drive(through, chunk({"content": "Hello"}) + chunk({}, finish) + corpus.DONE)
    assert corpus.packets(stream)[-1]["usage"]["output_tokens"] == made


def whole_call(arguments: str, finish: str = "tool_calls") -> bytes:
    """One call in two fragments, and its end without usage."""
    head = corpus.fragment(0, "", name="f", id="a")
    return head + corpus.fragment(0, arguments) + chunk({}, finish) + corpus.DONE


def markup_tokens(arguments: str, *, opened: bool = False) -> int:
    rendered = prompt.markup((ToolCall("a", "f", arguments),), "v4", opened=opened)
    return prompt.length(rendered, proxy.vocabulary.load())


def calling(**terms: Any) -> pipe.Pipe:
    return corpus.open_pipe(corpus.ask(thinking=False), chain_end=0, **terms)


def outputs(stream: bytes) -> list[int]:
    return [packet["usage"]["output_tokens"] for packet in corpus.packets(stream)]


@pytest.mark.parametrize("opened", [False, True], ids=["unforced", "forced"])
def test_a_call_is_counted_as_the_model_writes_it_and_no_packet_is_above_the_last(*, opened: bool) -> None:
    """USE-7: under a forced `tool_choice` what opens the calls is in the prompt."""
    arguments = '{"city": "Paris", "days": 3}'
    said = outputs(corpus.drive(calling(calls_opened=opened), whole_call(arguments)))
    assert said[-1] == max(said) == markup_tokens(arguments, opened=opened)


def test_a_call_that_the_limit_has_cut_is_not_closed() -> None:
    """USE-7: its closing tags were never written."""
    whole = outputs(corpus.drive(calling(), whole_call('{"city": "Par')))[-1]
    cut = outputs(corpus.drive(calling(), whole_call('{"city": "Par', "length")))[-1]
    begun = outputs(corpus.drive(calling(), whole_call("", "length")))[-1]
    assert begun < cut < whole


def test_a_call_at_the_limit_that_is_whole_is_closed_and_its_block_is_not() -> None:
    """USE-7."""
    whole = outputs(corpus.drive(calling(), whole_call("{}")))[-1]
    limited = outputs(corpus.drive(calling(), whole_call("{}", "length")))[-1]
    close = prompt.length(prompt.markup((), "v4", opened=True), proxy.vocabulary.load())
    assert whole - limited == close


@pytest.mark.parametrize("fields", [{"incremental": True}, {"incremental": False}, {"stream": False}], ids=str)
def test_the_last_word_is_the_exact_count_in_every_form(fields: dict[str, Any]) -> None:
    """USE-2: "abcdef" is one token, and two on the way."""
    through = corpus.open_pipe(corpus.ask(thinking=False, **fields), chain_end=0)
    wire = b"".join(chunk({"content": letter}) for letter in "abcdef") + chunk({}, "stop") + corpus.DONE
    out = corpus.drive(through, wire)
    last = corpus.packets(out)[-1] if fields.get("stream", True) else orjson.loads(out)
    assert last["usage"]["output_tokens"] == through.answer.used().output == 1
    assert through.account().spent[0].completion == 1


def test_a_running_zero_is_not_a_figure_and_a_final_one_is() -> None:
    """USE-3."""
    running = chunk({"content": "The answer"}, usage=figures(0, 0))
    through = calling()
    assert corpus.packets(through.feed(running))[-1]["usage"]["output_tokens"] == 2
    assert through.answer.tally.input == corpus.PROMPT_TOKENS
    last = corpus.packets(corpus.drive(through, chunk({}, "stop", usage=figures(0, 0))))[-1]
    assert (last["usage"]["input_tokens"], last["usage"]["output_tokens"]) == (0, 0)
    assert through.account().basis == "upstream_final"


def test_a_final_figure_beyond_the_window_is_none_and_our_count_stands() -> None:
    """USE-3: basis and drift say so."""
    through = calling()
    wire = chunk({"content": "The answer"}) + chunk({}, "stop", usage=figures(1 << 20, 1 << 20))
    last = corpus.packets(corpus.drive(through, wire))[-1]
    assert (last["usage"]["input_tokens"], last["usage"]["output_tokens"]) == (corpus.PROMPT_TOKENS, 2)
    assert (through.account().basis, through.answer.tally.drift) == ("counted", (1 << 20) - corpus.PROMPT_TOKENS)


@pytest.mark.parametrize(
    "beside",
    [
        chunk({"reasoning": "We think much", "content": "Never shown"}),
        chunk({"reasoning": "We think much", "content": "Never shown"}, "stop"),
        chunk(
            {"reasoning": "We think much", "tool_calls": [{"index": 0, "function": {"name": "f", "arguments": "{}"}}]}
        ),
        chunk({"content": "<think>We think much</think>Never shown"}),
    ],
    ids=["text", "text and the end", "a call", "in the content"],
)
def test_what_comes_beside_the_end_of_a_budget_is_not_shown(beside: bytes) -> None:
    """OUT-9: it is asked for again, behind the closed chain."""
    through = corpus.open_pipe(corpus.ask(), BUDGET._replace(think_tags=True))
    seen = through.feed(beside)
    through.resume()
    told = corpus.fold(seen + corpus.drive(through, REST))
    assert (told.reasoning, told.content, told.calls) == ("We think", "The answer.", [])


ZERO = figures(0, 0)
FIRST_STOP = chunk({"content": ""}, "stop", usage=ZERO)
TEXT = {"content": "one two"}


@pytest.mark.parametrize(
    ("wire", "content", "used"),
    [
        (FIRST_STOP + chunk(TEXT, usage=ZERO) + chunk({}, "stop", usage=figures(9, 2)), "one two", (9, 2)),
        (FIRST_STOP + chunk(TEXT, usage=figures(9, 1)) + chunk({}, "stop"), "one two", (9, 1)),
        (FIRST_STOP + chunk(TEXT, usage=ZERO) + chunk({}, "stop"), "one two", (corpus.PROMPT_TOKENS, 2)),
        (FIRST_STOP + chunk(TEXT) + chunk({}, "stop"), "one two", (corpus.PROMPT_TOKENS, 2)),
        (chunk({"content": ""}, "stop", usage=figures(9, 0)) + chunk(TEXT) + chunk({}, "stop"), "one two", (9, 2)),
        (FIRST_STOP + usage_chunk(figures(9, 2)), "", (9, 2)),
        (FIRST_STOP + usage_chunk(ZERO) + chunk(TEXT), "", (0, 0)),
        (FIRST_STOP, "", (0, 0)),
        (chunk(TEXT) + chunk({}, "stop", usage=figures(9, 0)), "one two", (9, 0)),
        (chunk(TEXT, "stop", usage=ZERO), "one two", (0, 0)),
        (chunk(TEXT, "stop", usage=ZERO) + corpus.DONE + chunk({"content": ""}), "one two", (0, 0)),
        (chunk(TEXT, "stop", usage=ZERO) + chunk({"content": ""}), "one two", (corpus.PROMPT_TOKENS, 2)),
    ],
)
@pytest.mark.parametrize("cut", CUTS)
def test_a_zero_beside_a_choice_is_the_last_word_only_if_nothing_follows(
    wire: bytes, content: str, used: tuple[int, int], cut: int
) -> None:
    """USE-3, OUT-3: hosts that fill usage in on every chunk begin at 0, with a first `stop` that is none."""
    through = corpus.open_pipe(corpus.ask(corpus.NEVER), chain_end=0)
    told = corpus.fold(corpus.drive(through, wire + corpus.DONE, cut))
    assert (told.content, told.finish) == (content, "stop")
    assert (told.usage["input_tokens"], told.usage["output_tokens"]) == used


def test_a_zero_that_is_waited_with_is_the_last_word_once_the_wait_is_over() -> None:
    """SSE-8."""
    through = corpus.open_pipe(corpus.ask(corpus.NEVER), chain_end=0)
    through.feed(FIRST_STOP)
    assert through.awaits_usage()
    assert corpus.packets(through.release())[-1]["usage"]["output_tokens"] == 0
    assert through.account().basis == "upstream_final"
