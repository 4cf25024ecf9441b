"""The account of an answer: what was delivered, what was generated, whose figures they are (spec MET-3)."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import corpus
from tests.corpus import SHAPES, Shape, chunk, figures, usage_chunk
from translators import choice as answer
from translators import faults
from translators.compatible import tongue as compatible
from translators.compatible.call import Form
from translators.dashscope import tongue as dashscope
from translators.tongue import Tongue
from translators.usage import Spent

BASES = {
    "upstream_final": SHAPES["B.2 vLLM, text with the finish"],
    "upstream_last": Shape(chunk({"content": "The"}, usage=figures(9, 7)) + chunk({}, "stop") + corpus.DONE),
    "counted": SHAPES["B.5 usage nowhere"],
}


@pytest.mark.parametrize("basis", BASES)
def test_the_record_can_say_whose_figures_they_are(basis: str) -> None:
    """MET-3."""
    through = corpus.open_pipe(corpus.ask())
    corpus.drive(through, BASES[basis].wire)
    assert through.account().basis == basis


_STOPPED = chunk({}, "stop") + corpus.DONE


def test_what_is_delivered_is_what_the_packets_handed_over_said() -> None:
    """MET-3: a packet that was made but not handed over is not billed."""
    through = corpus.open_pipe(corpus.ask(corpus.NEVER), chain_end=0)
    assert through.account()[:2] == (0, None)
    first = corpus.packets(through.feed(chunk({"content": "Hello"})))
    through.hand_over()
    through.feed(chunk({"content": " world"}))
    assert through.account()[:2] == (1, corpus.used(first[-1]))


@pytest.mark.parametrize("spoken", [dashscope, compatible], ids=["dashscope", "compatible"])
def test_what_is_delivered_is_what_had_come_out_where_the_mark_was_set(spoken: Tongue) -> None:
    """MET-3: what a socket has taken of a stream is known by the place it had come to, not by all that was made."""
    form = Form(corpus.NEVER.id) if spoken is compatible else None
    marked, whole = (
        corpus.open_pipe(corpus.ask(corpus.NEVER, form=form), chain_end=0, spoken=spoken) for _ in range(2)
    )
    for through in (marked, whole):
        through.feed(chunk({"content": "Hello"}))
    whole.hand_over()
    mark = marked.mark()
    marked.feed(chunk({"content": " world"}))
    assert marked.account()[:2] == (0, None)
    marked.hand_over_to(mark)
    assert marked.account()[:2] == whole.account()[:2]
    assert whole.account().packets >= 1


def test_a_reply_is_delivered_with_the_figures_it_had_where_the_mark_was_set() -> None:
    """MET-3: a reply is one packet."""
    through = corpus.open_pipe(corpus.ask(corpus.NEVER, stream=False), chain_end=0)
    reply = orjson.loads(corpus.drive(through, chunk({"content": "Hello"}) + _STOPPED))
    through.hand_over_to(through.mark())
    assert through.account()[:2] == (1, corpus.used(reply))


def test_a_call_wants_no_more_of_upstream_once_every_choice_has_ended() -> None:
    """MET-3: its usage may still come; the caller's answer is over with the last packet."""
    through = corpus.open_pipe(corpus.ask(corpus.NEVER), chain_end=0)
    through.feed(chunk({"content": "Hello"}))
    assert (through.wants_no_more(), through.is_over) == (False, False)
    through.feed(chunk({}, "stop"))
    assert (through.wants_no_more(), through.is_over) == (True, False)
    through.feed(usage_chunk(figures(3, 1)) + corpus.DONE)
    assert through.is_over


def test_figures_that_come_with_a_moderated_end_are_known() -> None:
    """MET-3: the end is a fault, and what upstream generated up to it is no secret."""
    through = corpus.open_pipe(corpus.ask())
    through.feed(chunk({"content": "Hello"}))
    through.feed(chunk({"content": " world"}, "content_filter", usage=figures(7, 42)))
    assert through.refusal is not None
    account = through.account()
    assert (account.generated.input, account.generated.output, account.basis) == (7, 42, "upstream_final")


FAILED = ["content_filter", "insufficient_system_resource", "abort", "no such word", 7]
CALLED = {"tool_calls": [{"index": 0, "id": "c", "function": {"name": "f", "arguments": '{"a": 1}'}}]}


@pytest.mark.parametrize("word", FAILED)
@pytest.mark.parametrize("made", [2, 0])
@pytest.mark.parametrize("delta", [{"content": "one two three four five"}, CALLED], ids=["text", "a call"])
@pytest.mark.parametrize("form", ["its chunk", "a chunk behind it", "a document"])
def test_what_upstream_tells_with_an_end_that_failed_is_its_last_word(
    word: object, made: int, delta: dict[str, object], form: str
) -> None:
    """USE-3: the choice has ended, in whatever way; also where we count more than that, and where it is nothing."""
    through, told = corpus.open_pipe(corpus.ask(thinking=False), chain_end=0), figures(9, made)
    item = {"index": 0, "delta": {}, "finish_reason": word}
    end = corpus.event({"choices": [item]} | ({"usage": told} if form == "its chunk" else {}))
    if form == "a document":
        whole = {"choices": [{"index": 0, "message": delta, "finish_reason": word}], "usage": told}
        assert isinstance(corpus.outcome(lambda: through.feed_completion(orjson.dumps(whole))), faults.Fault)
    else:
        behind = b"" if form == "its chunk" else corpus.event({"note": 1}) + usage_chunk(told)
        corpus.outcome(lambda: through.feed(chunk(delta) + end + behind + corpus.DONE))
    (spent,) = through.account().spent
    assert (spent.prompt, spent.completion, spent.basis) == (9, made, "upstream_final")


def test_what_comes_behind_an_end_that_failed_and_is_no_usage_is_passed_over() -> None:
    """USE-3: a figure of one choice more is none of the whole."""
    through = corpus.open_pipe(corpus.ask(thinking=False), chain_end=0)
    behind = chunk({"content": "more"}, usage=figures(9, 7)) + b"data: {\n\n" + usage_chunk(None)
    corpus.outcome(lambda: through.feed(chunk({"content": "Hello"}) + chunk({}, "abort") + behind))
    (spent,) = through.account().spent
    assert (spent.completion, spent.basis) == (1, "counted")


def test_what_upstream_says_of_its_cache_later_was_not_delivered() -> None:
    """MET-3: upstream is read on for the record after its caller has left."""
    told = figures(3, 1, prompt_tokens_details={"cached_tokens": 2})
    through = corpus.open_pipe(corpus.ask())
    first = corpus.packets(through.feed(chunk({"content": "Hello"})))
    through.hand_over()
    last = corpus.packets(through.feed(chunk({}, "stop") + usage_chunk(told) + corpus.DONE))
    assert last[-1]["usage"]["prompt_tokens_details"] == {"cached_tokens": 2}
    assert through.account().delivered == corpus.used(first[-1])
    through.hand_over()
    assert through.account().delivered == corpus.used(last[-1])


def test_of_several_choices_the_outputs_delivered_are_summed() -> None:
    """MET-3, OUT-7: input once."""
    through = corpus.open_pipe(corpus.ask(n=2), legs=2)
    for leg in range(2):
        through.feed(chunk({"reasoning_content": "Hmm"}), leg)
        through.feed(chunk({"content": "Hello"}), leg)
    through.hand_over()
    delivered = through.account().delivered
    assert delivered is not None
    each = corpus.packets(
        corpus.drive(
            corpus.open_pipe(corpus.ask()), chunk({"reasoning_content": "Hmm"}) + chunk({"content": "Hello"}) + _STOPPED
        )
    )
    assert delivered.input == corpus.PROMPT_TOKENS
    assert delivered.output == 2 * each[-1]["usage"]["output_tokens"]
    assert delivered.reasoning == 2 * each[-1]["usage"]["output_tokens_details"]["reasoning_tokens"]


@pytest.mark.parametrize("prompts", [(1000, 1001), (1001, 1000)])
def test_of_several_prompts_the_one_delivered_is_the_one_the_last_packet_said(prompts: tuple[int, int]) -> None:
    """MET-3, OUT-7: upstream calls of one fan-out may tell different prompts; one figure is billed."""
    through = corpus.open_pipe(corpus.ask(n=2, thinking=False), chain_end=0, legs=2)
    seen = b""
    for leg, prompt in enumerate(prompts):
        seen += through.feed(chunk({"content": "Yes"}) + chunk({}, "stop", usage=figures(prompt, 1)) + corpus.DONE, leg)
    through.hand_over()
    delivered = through.account().delivered
    assert delivered is not None
    assert delivered.input == prompts[1] == corpus.packets(seen)[-1]["usage"]["input_tokens"]


def test_a_reply_is_delivered_whole_or_not_at_all() -> None:
    """MET-3"""
    through = corpus.open_pipe(corpus.ask(stream=False))
    reply = orjson.loads(corpus.drive(through, chunk({"content": "Hello"}) + _STOPPED))
    assert through.account()[:2] == (0, None)
    through.hand_over()
    assert through.account()[:2] == (1, corpus.used(reply))


def test_an_error_frame_is_no_packet() -> None:
    """MET-3"""
    through = corpus.open_pipe(corpus.ask())
    through.feed(chunk({"content": "Hello"}))
    through.eof()
    through.hand_over()
    assert through.account().packets == 1


def test_the_account_says_how_choices_ended_and_what_each_upstream_call_reported() -> None:
    """MET-3: of the choices that have ended, and the upstream calls that told something."""
    through = corpus.open_pipe(corpus.ask(n=2, thinking=False), chain_end=0, legs=2)
    through.feed(chunk({"content": "Hello"}), 0)
    through.feed(chunk({"content": "Hello"}) + chunk({}, "length") + usage_chunk(figures(9, 2)) + corpus.DONE, 1)
    account = through.account()
    assert account.finish_reasons == ("length",)
    assert account.spent == (
        Spent(0, 9, None, 1, None, "counted", (None,)),
        Spent(1, 9, None, 2, None, "upstream_final", ("length",)),
    )


@pytest.mark.parametrize(("told", "drift"), [(None, None), (figures(9, 2), 9 - corpus.PROMPT_TOKENS)])
def test_drift_is_upstreams_prompt_less_our_count(told: object, drift: int | None) -> None:
    """USE-5: whatever was learned to add to it."""
    through = corpus.open_pipe(corpus.ask())
    through.count_prompt(corpus.PROMPT_TOKENS, 7)
    through.feed(usage_chunk(told) + chunk({"content": "Hello"}))
    assert through.account().drift == drift


def test_what_one_upstream_call_has_used_is_what_it_said() -> None:
    """MET-3."""
    through = corpus.open_pipe(corpus.ask())
    told = figures(7, 42, 40, prompt_tokens_details={"cached_tokens": 3})
    corpus.drive(through, chunk({"reasoning": "We"}) + chunk({"content": "Hi"}) + chunk({}, "stop", usage=told))
    assert through.account().spent == (Spent(0, 7, 3, 42, 40, "upstream_final", ("stop",)),)


def test_what_an_answer_that_goes_on_has_used_is_the_last_figure_and_what_came_since() -> None:
    """MET-3."""
    through = corpus.open_pipe(corpus.ask(thinking=False), chain_end=0)
    through.feed(chunk({"content": "The"}, usage=figures(7, 10)) + chunk({"content": " answer"}))
    assert through.account().spent == (Spent(0, 7, None, 11, None, "upstream_last", (None,)),)


def test_each_of_several_upstream_calls_has_a_prompt_of_its_own() -> None:
    """MET-3, OUT-7: the caller's is counted once, upstream's bill has both."""
    through = corpus.open_pipe(corpus.ask(n=2, thinking=False), chain_end=0, legs=2)
    through.feed(chunk({"content": "Yes"}) + chunk({}, "stop", usage=figures(7, 4)) + corpus.DONE, 0)
    through.feed(chunk({"content": "No"}), 1)
    assert through.account().spent == (
        Spent(0, 7, None, 4, None, "upstream_final", ("stop",)),
        Spent(1, 7, None, 1, None, "counted", (None,)),
    )
    assert through.account().basis == "counted"


def test_a_chain_that_was_gone_on_with_is_two_upstream_calls() -> None:
    """MET-3, OUT-9: the second prompt holds the chain, `</think>` and a blank line."""
    through = corpus.open_pipe(corpus.ask(), answer.Rules(chain_limit=2))
    through.feed(chunk({"reasoning": "We think"}) + chunk({"reasoning": " much"}))
    assert through.account().spent == (Spent(0, corpus.PROMPT_TOKENS, None, 2, 2, "counted", ("budget",)),)
    through.resume()
    through.feed(corpus.chunk({"content": "The answer"}))
    first, second = through.account().spent
    assert first == Spent(0, corpus.PROMPT_TOKENS, None, 2, 2, "counted", ("budget",))
    assert second == Spent(0, corpus.PROMPT_TOKENS + 2 + 2, None, 2, 0, "counted", (None,))
    corpus.drive(through, corpus.chunk({}, "stop", usage=corpus.figures(40, 4)))
    assert through.account().spent == (
        first,
        Spent(0, 40, None, 4, 0, "upstream_final", ("stop",)),
    )
    assert through.account().basis == "counted"


@pytest.mark.parametrize("first", [None, figures(7, 9, 1), figures(7, 1)])
@pytest.mark.parametrize("second", [None, figures(40, 4), figures(40, 1), figures(40, 0)])
@pytest.mark.parametrize("whole", [False, True], ids=["events", "a document"])
def test_of_a_chain_held_to_its_budget_no_token_is_billed_that_no_upstream_call_generated(
    first: object, second: object, *, whole: bool
) -> None:
    """OUT-9, MET-6: `</think>` stands in the second prompt; the bill is the chain and what came behind it."""
    through = corpus.open_pipe(corpus.ask(), answer.Rules(chain_limit=2))
    if whole:
        message = {"reasoning_content": "We think much", "content": "Never shown"}
        item = {"index": 0, "message": message, "finish_reason": "stop"}
        seen = through.feed_completion(orjson.dumps({"choices": [item], "usage": first}))
    else:
        seen = through.feed(chunk({"reasoning": "We think much"}, usage=first))
    through.resume()
    seen += through.feed(chunk({"content": "The answer"}) + chunk({}, "stop", usage=second) + corpus.DONE)
    through.hand_over()
    assert corpus.fold(seen).content == "The answer"
    account = through.account()
    delivered = account.delivered
    assert delivered is not None
    output, reasoning = (sum(one[at] or 0 for one in account.spent) for at in (3, 4))
    assert delivered.output <= output
    assert (delivered.reasoning or 0) <= reasoning
    if first is None and second is not None:
        assert delivered.output == output == 2 + second["completion_tokens"]


def completed(content: str, finish: str, usage: object) -> bytes:
    item = {"index": 0, "message": {"content": content}, "finish_reason": finish}
    return orjson.dumps({"choices": [item], "usage": usage})


def test_an_answer_that_we_have_cut_says_so_and_a_whole_completion_keeps_upstreams_figure() -> None:
    """MET-3: a stop leaves the caller a part, upstream has generated all of it."""
    call = corpus.ask(thinking=False, stream=False)
    through = corpus.open_pipe(call, answer.Rules(stops=(" is",)), chain_end=0)
    reply = orjson.loads(through.feed_completion(completed("The answer is 42", "stop", figures(7, 9))))
    assert reply["usage"]["output_tokens"] < 9
    assert through.account().spent == (Spent(0, 7, None, 9, None, "upstream_final", ("cut",)),)
    assert through.account().basis == "upstream_last"


def test_the_text_of_a_completion_that_was_moderated_is_counted() -> None:
    """MET-3: as it is where the same comes as a stream."""
    through = corpus.open_pipe(corpus.ask(thinking=False, stream=False), chain_end=0)
    raw = completed("The answer", "content_filter", None)
    assert corpus.outcome(lambda: through.feed_completion(raw)) == faults.OUTPUT_MODERATED
    assert through.answer.used().output == 2


@st.composite
def answers(draw: st.DrawFn) -> tuple[bytes, answer.Rules, int]:
    """Streams with usage on any of their chunks, what we do to them, and for how many choices."""
    n = draw(st.integers(1, 3))
    told = st.none() | st.builds(figures, st.integers(0, 9), st.integers(0, 9), st.integers(0, 9))
    texts = st.sampled_from(["one", " two three", "<", "é"])
    pieces = draw(st.lists(st.tuples(st.sampled_from(["reasoning", "content"]), texts, told), min_size=1, max_size=6))
    wire = b""
    for index in range(n):
        for side, text, usage in pieces:
            wire += chunk({side: text}, index=index, usage=usage)
            if draw(st.booleans()):
                wire += usage_chunk(draw(told))
        wire += chunk({"content": draw(st.sampled_from(["", "end"]))}, "stop", index=index, usage=draw(told))
    limits = draw(st.sampled_from([{}, {"answer_limit": 1}, {"answer_limit": 3}, {"stops": (" two",)}]))
    return wire + usage_chunk(draw(told)) + corpus.DONE, answer.Rules(**limits), n


@settings(max_examples=300)
@given(answers(), st.booleans())
def test_what_is_delivered_is_what_was_generated_and_of_a_cut_answer_no_more(
    streamed: tuple[bytes, answer.Rules, int], thinking: bool
) -> None:
    """MET-6, whatever upstream tells, and when: the last packets and the record say the same."""
    wire, rules, n = streamed
    for stream in (True, False):
        through = corpus.open_pipe(corpus.ask(n=n, thinking=thinking, stream=stream), rules)
        corpus.drive(through, wire)
        through.hand_over()
        account = through.account()
        (spent,) = account.spent
        assert account.delivered is not None
        given, output, chain, cached, _ = account.delivered
        delivered, generated = (given, output, chain), (spent.prompt, spent.completion, spent.reasoning)
        assert cached == spent.cached
        if "cut" in spent.end:
            assert all((few or 0) <= (many or 0) for few, many in zip(delivered, generated, strict=True))
        else:
            assert delivered == generated


def test_a_document_cut_at_its_limit_is_billed_by_our_count_within_upstreams_last_word() -> None:
    """MET-6, OUT-8: a chain of 3, and an answer of 4 of which 2 are shown."""
    message = {"reasoning_content": "We think so", "content": "one two three four"}
    document = {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}
    for told, output in ((8, 6), (5, 5)):
        through = corpus.open_pipe(corpus.ask(), answer.Rules(answer_limit=2))
        packets = corpus.packets(through.feed_completion(orjson.dumps(document | {"usage": figures(9, told)})))
        assert (packets[-1]["usage"]["output_tokens"], through.account().spent[0].completion) == (output, told)


def test_the_chain_of_an_answer_that_was_cut_is_the_one_upstream_told() -> None:
    """USE-4, MET-6."""
    through = corpus.open_pipe(corpus.ask(), answer.Rules(answer_limit=1))
    wire = chunk({"reasoning": "We think so"}, usage=figures(9, 1, 1))
    seen = through.feed(wire + chunk({"content": "one two"}, usage=figures(9, 3, 1)))
    usage = corpus.packets(seen)[-1]["usage"]
    assert usage["output_tokens_details"]["reasoning_tokens"] == through.account().spent[0].reasoning == 1
    assert usage["output_tokens_details"]["text_tokens"] == usage["output_tokens"] - 1 > 0
