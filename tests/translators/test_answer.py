"""The account of an answer: what was delivered, what was generated, whose figures they are (spec MET-3)."""

from __future__ import annotations

import orjson
import pytest

from tests import corpus
from tests.corpus import SHAPES, Shape, chunk, figures, usage_chunk
from translators.usage import Figures

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


def test_figures_that_come_with_a_moderated_end_are_known() -> None:
    """MET-3: the end is a fault, and what upstream generated up to it is no secret."""
    through = corpus.open_pipe(corpus.ask())
    through.feed(chunk({"content": "Hello"}))
    through.feed(chunk({"content": " world"}, "content_filter", usage=figures(7, 42)))
    assert through.refusal is not None
    account = through.account()
    assert (account.generated.input, account.generated.output, account.basis) == (7, 42, "upstream_last")


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
    through = corpus.open_pipe(corpus.ask(n=2), legs=2)
    through.feed(chunk({"content": "Hello"}), 0)
    through.feed(chunk({"content": "Hello"}) + chunk({}, "length") + usage_chunk(figures(9, 2)) + corpus.DONE, 1)
    account = through.account()
    assert account.finish_reasons == ("length",)
    assert account.figures == {1: Figures(input=9, output=2)}


@pytest.mark.parametrize(("told", "drift"), [(None, None), (figures(9, 2), 9 - corpus.PROMPT_TOKENS)])
def test_drift_is_upstreams_prompt_less_our_count(told: object, drift: int | None) -> None:
    """USE-5: whatever was learned to add to it."""
    through = corpus.open_pipe(corpus.ask())
    through.count_prompt(corpus.PROMPT_TOKENS, 7)
    through.feed(usage_chunk(told) + chunk({"content": "Hello"}))
    assert through.account().drift == drift
