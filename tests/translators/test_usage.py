"""Figures: counted as text comes, corrected by upstream, learned for the next prompt (spec USE-1…USE-5)."""

from __future__ import annotations

import pytest

from translators import tokens, usage


@pytest.fixture
def meter(vocabulary: tokens.Vocabulary) -> usage.Meter:
    return usage.Meter(vocabulary, 1)


def test_the_count_is_chain_closing_tag_answer_and_markup(meter: usage.Meter) -> None:
    """USE-2."""
    meter.think("We think")
    assert (meter.output, meter.reasoning) == (2, 2)
    meter.close_chain()
    meter.answer("The answer")
    meter.markup(28)
    assert (meter.output, meter.reasoning, meter.counted) == (2 + 1 + 2 + 28, 2, 33)


def test_the_closing_tag_is_counted_once(meter: usage.Meter) -> None:
    meter.close_chain()
    meter.close_chain()
    assert meter.output == 1


def test_text_joined_across_deltas_is_not_counted_twice(meter: usage.Meter) -> None:
    """USE-2: "Par" and "is" are one token together; what was said is not taken back."""
    meter.answer("Par")
    before = meter.output
    meter.answer("is")
    assert before == 1
    assert (meter.output, meter.counted) == (1, 1)


def test_the_output_never_falls_while_it_streams(meter: usage.Meter) -> None:
    """USE-2: not even where upstream's running figure does."""
    meter.answer("The answer")
    meter.hear(1)
    meter.answer(" is")
    meter.follow(1)
    assert meter.output == 2
    meter.answer(" 42 and so on")
    assert meter.output > 2


def test_upstreams_figure_stands_for_the_text_it_comes_with_and_ours_goes_on_from_it(meter: usage.Meter) -> None:
    """USE-3."""
    meter.hear(10)
    meter.answer("The")
    assert meter.output == 10
    meter.follow(10)
    meter.answer(" answer")
    assert meter.output == 11


def test_only_upstreams_last_word_corrects_downward(meter: usage.Meter) -> None:
    """USE-3."""
    meter.answer("The answer")
    meter.settle(1)
    assert meter.output == 1


def test_the_room_left_is_that_of_answer_and_chain_alone(meter: usage.Meter) -> None:
    """OUT-8, OUT-9."""
    assert meter.chain_fits("We think", 1) == len("We")
    meter.think("We think")
    assert meter.answer_fits("The answer is", 2) == len("The answer")


def test_a_later_report_replaces_and_what_it_leaves_out_stays() -> None:
    """USE-3."""
    tally = usage.Tally()
    tally.report(0, usage.Figures(9, 3, 2, 4))
    tally.report(0, usage.Figures(output=5))
    assert tally.figures == {0: usage.Figures(9, 5, 2, 4)}
    assert (tally.input, tally.cached) == (9, 4)


@pytest.mark.parametrize(("thinking", "reasoning"), [(True, 1), (False, None)])
def test_a_chain_is_never_longer_than_its_output(
    meter: usage.Meter,
    thinking: bool,
    reasoning: int | None,
) -> None:
    """OUT-4."""
    meter.think("We think")
    meter.settle(1)
    shown = usage.Tally(counts_chain=thinking).of(meter)
    assert (shown.reasoning, shown.total) == (reasoning, 1)


@pytest.mark.parametrize(("told", "expected"), [(7, 7), (0, 3), (None, 3)])
def test_a_chain_upstream_does_not_count_is_ours(told: int | None, expected: int) -> None:
    """USE-4."""
    assert usage.reasoning_of(usage.Figures(reasoning=told), 3) == expected


LESSONS = {
    "nothing learned": ([], 0),
    "one is enough": ([(100, 179)], 79),
    "a template that moved, once": ([(100, 100), (100, 179)], 0),
    "a template that moved": ([(100, 100), (100, 179), (100, 179)], 79),
    "a rounding matter": ([(1000, 1000), (1000, 1003)], 3),
    "another vocabulary": ([(100, 900)], 0),
    "another vocabulary, unstable": ([(100, 130), (200, 260), (300, 390)], 0),
    "implausible but steady": ([(100, 900), (100, 900)], 800),
}


@pytest.mark.parametrize("name", LESSONS)
def test_a_difference_is_trusted_while_it_is_stable_or_small(name: str) -> None:
    """USE-5."""
    lessons, expected = LESSONS[name]
    offsets = usage.Offsets()
    for counted, reported in lessons:
        assert offsets.learn("kind", counted, reported) == reported - counted
    assert offsets.get("kind") == expected
    assert offsets.get("another kind") == 0


def test_the_end_token_counts_where_the_server_counts_it_and_the_answer_ended_by_itself(
    vocabulary: tokens.Vocabulary,
) -> None:
    """USE-1: a property of the server (Azure counts it), not of the model."""
    meter = usage.Meter(vocabulary, chain_end=0, answer_end=1)
    meter.answer("Hello")
    assert meter.output == 1
    meter.end()
    assert meter.output == 2
