"""Figures: counted as text comes, corrected by upstream, learned for the next prompt (spec USE-1…USE-5)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

import proxy.vocabulary
from translators import tokens, usage


@pytest.fixture
def meter(vocabulary: tokens.Vocabulary) -> usage.Meter:
    return usage.Meter(vocabulary, 1)


def test_of_nothing_nothing_is_said(meter: usage.Meter) -> None:
    """USE-1: and who has left before a packet came owes nothing."""
    assert meter.passed == meter.place().said == meter.said == (0, 0)
    meter.pass_by()
    assert meter.passed == (0, 0)
    meter.end()
    assert (meter.output, meter.reasoning, meter.counted, meter.exact) == (0, 0, 0, 0)
    tally = usage.Tally()
    assert (tally.input, tally.counted_input, tally.drift) == (0, 0, None)
    assert tally.of(meter) == (0, 0, None, None, None)


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
    meter.expect(1)
    meter.answer(" is")
    meter.resume_from(1)
    assert meter.output == 2
    meter.answer(" 42 and so on")
    assert meter.output > 2


def test_upstreams_figure_stands_for_the_text_it_comes_with_and_ours_goes_on_from_it(meter: usage.Meter) -> None:
    """USE-3."""
    meter.expect(10)
    meter.answer("The")
    assert meter.output == 10
    meter.resume_from(10)
    meter.answer(" answer")
    assert meter.output == 11


def owed(meter: usage.Meter, *texts: str, is_chain: bool = False) -> usage.Place:
    kept = meter.owing(is_chain=is_chain)
    kept += b"".join(orjson.dumps(text) + usage.BETWEEN for text in texts)
    return meter.place()


# What else happens to a meter between pieces of text.
ACTS: Sequence[Callable[[usage.Meter], Any]] = (
    lambda meter: meter.close_chain(),
    lambda meter: meter.skip("\n\n"),
    lambda meter: meter.end(),
    lambda meter: meter.reasoning,
    lambda meter: meter.markup(7, "\n"),
    lambda meter: (meter.expect(9), meter.resume_from(9)),
    lambda meter: meter.counted,
    lambda meter: meter.exact,
    lambda meter: meter.conclude(),
)


@given(
    st.lists(st.lists(st.text(min_size=1), min_size=1) | st.sampled_from(ACTS)),
    st.integers(0, 3),
    st.sets(st.integers(0, 9)),
)
def test_what_is_counted_later_says_what_it_would_have_said(
    steps: list[list[str] | Callable[[usage.Meter], Any]], chains: int, passed: set[int]
) -> None:
    """COM-31, COM-34: at every place, whenever it is asked for, and whatever happened behind it."""
    vocabulary = proxy.vocabulary.load()
    now, later = usage.Meter(vocabulary, 1, 1), usage.Meter(vocabulary, 1, 1)
    places: list[tuple[usage.Place, usage.Said]] = []
    left = 0, 0
    for number, step in enumerate(steps):
        if callable(step):
            assert step(now) == step(later)
        else:
            is_chain = number < chains
            (now.think if is_chain else now.answer)(*step)
            place = owed(later, *step, is_chain=is_chain)
            left = now.said if number in passed else left
            if number in passed:
                later.pass_by()
            places.append((place, now.said))
    assert [place.said for place, _ in places] == [said for _, said in places]
    assert later.passed == left
    assert later.said == now.said
    assert later.exact == now.exact


@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("is_chain", [True, False])
@pytest.mark.parametrize("reported", [0, 9])
def test_text_that_is_owed_comes_before_what_happens_behind_it(
    act: Callable[[usage.Meter], Any], reported: int, vocabulary: tokens.Vocabulary, *, is_chain: bool
) -> None:
    """COM-34: also where upstream has told a figure before."""
    now, later = usage.Meter(vocabulary, 1, 1), usage.Meter(vocabulary, 1, 1)
    for meter in (now, later):
        if reported:
            meter.expect(reported)
            meter.think("We")
            meter.resume_from(reported)
    (now.think if is_chain else now.answer)(" think", ".")
    first = owed(later, " think", ".", is_chain=is_chain)
    said = now.said
    assert act(now) == act(later)
    now.answer("The", " sea")
    last = owed(later, "The", " sea")
    assert (first.said, last.said) == (said, now.said)
    assert (later.said, later.counted, later.exact) == (now.said, now.counted, now.exact)


@pytest.mark.parametrize(
    ("way", "is_chain"),
    [
        ("think_one", True),
        ("think_run", True),
        ("answer_one", True),
        ("answer_run", True),
        ("answer_one", False),
        ("answer_run", False),
    ],
)
def test_text_that_is_owed_comes_before_what_is_told_at_once(
    way: str, vocabulary: tokens.Vocabulary, *, is_chain: bool
) -> None:
    """USE-1."""
    now, later = usage.Meter(vocabulary, 1, 1), usage.Meter(vocabulary, 1, 1)
    (now.think if is_chain else now.answer)("The", " sea")
    owed(later, "The", " sea", is_chain=is_chain)
    text = " is wide" if way.endswith("one") else [" is", " wide"]
    assert getattr(now, way)(text) == getattr(later, way)(text)
    assert (later.said, later.counted) == (now.said, now.counted)


PIECES = st.tuples(st.text(min_size=1), st.sampled_from(["owed", "one", "run"]))


@given(st.lists(PIECES | st.sampled_from(ACTS)), st.integers(0, 4))
def test_a_piece_is_counted_alone_as_among_others(
    steps: list[tuple[str, str] | Callable[[usage.Meter], Any]], chains: int
) -> None:
    """USE-1: also where others are owed before it, and whatever happened between them."""
    vocabulary = proxy.vocabulary.load()
    together, alone = usage.Meter(vocabulary, 1), usage.Meter(vocabulary, 1)
    for number, step in enumerate(steps):
        if callable(step):
            assert step(together) == step(alone)
            continue
        text, way = step
        is_chain = number < chains
        (said,) = together.think(text) if is_chain else together.answer(text)
        if way == "owed":
            assert owed(alone, text, is_chain=is_chain).end
        elif way == "one":
            assert (alone.think_one if is_chain else alone.answer_one)(text) == said
        else:
            made, chain = (alone.think_run if is_chain else alone.answer_run)([text])
            assert (*made, *chain) == said
    assert alone.said == together.said


@pytest.mark.parametrize(
    ("act", "tokens_more"),
    [
        (lambda meter: meter.close_chain(), 1),
        (lambda meter: meter.skip("\n\n"), 1),
        (lambda meter: meter.end(), 1),
        (lambda meter: meter.markup(7), 7),
        (lambda meter: meter.answer_one(" answer"), 1),
        (lambda meter: meter.answer(" answer"), 1),
        (lambda meter: meter.think_one(" think"), 1),
        (lambda meter: meter.think(" think"), 1),
    ],
    ids=["close", "skip", "end", "markup", "answer one", "answer", "think one", "think"],
)
@pytest.mark.parametrize("reported", [10, 1_000])
def test_whatever_is_counted_behind_a_figure_of_upstreams_goes_on_from_it(
    act: Callable[[usage.Meter], object], tokens_more: int, reported: int, vocabulary: tokens.Vocabulary
) -> None:
    """USE-3."""
    meter = usage.Meter(vocabulary, 1, 1)
    meter.expect(reported)
    meter.think("We")
    meter.resume_from(reported)
    act(meter)
    assert meter.output == meter.exact == reported + tokens_more


class Uncounted:
    """A vocabulary that nobody may ask."""

    def __getattr__(self, name: str) -> Any:
        if name in ("encode", "word"):
            return self._count
        raise AttributeError(name)

    def _count(self, text: str) -> Any:
        raise AssertionError(f"{text} was counted")


def test_what_upstream_tells_of_a_whole_answer_is_not_counted() -> None:
    """COM-34, USE-3: only the slices that had come before."""
    meter = usage.Meter(Uncounted(), 1, 1)  # type: ignore[arg-type]
    owed(meter, "The answer")
    meter.pass_by()
    owed(meter, " is", " 42")
    meter.end()
    assert meter.reasoning == 0
    meter.correct(5, 0)
    assert meter.output == 5
    assert meter.said == (5, 0)


@pytest.mark.parametrize("is_counted_first", [True, False])
def test_of_what_was_passed_by_the_last_piece_is_known(meter: usage.Meter, *, is_counted_first: bool) -> None:
    """COM-31, MET-3: whatever is owed, and told, behind it."""
    owed(meter, "The", " sea")
    if is_counted_first:
        meter.settle()
    meter.pass_by()
    owed(meter, " is", " wide")
    meter.expect(9)
    assert meter.passed == (2, 0)
    assert meter.said == (9, 0)
    assert meter.passed == (2, 0)
    meter.pass_by()
    assert meter.passed == (4, 0)


def test_what_is_owed_of_the_other_side_is_counted_first(meter: usage.Meter) -> None:
    """USE-4: and so is what something was told behind."""
    assert owed(meter, "We think", is_chain=True).told is None
    assert owed(meter, "The").said == (3, 2)
    owed(meter, " sea")
    meter.expect(9)
    assert owed(meter, " is").said == (9, 2)


def test_a_place_knows_what_was_asked_for_elsewhere(meter: usage.Meter) -> None:
    place = owed(meter, "The", " sea")
    assert place.said == place.said == meter.said == (2, 0)


def test_a_chain_that_is_owed_is_counted_when_somebody_asks(meter: usage.Meter) -> None:
    owed(meter, "We think", is_chain=True)
    assert meter.reasoning == 2


def test_a_place_behind_what_is_counted_is_known(meter: usage.Meter) -> None:
    owed(meter, "The", " sea")
    first = meter.place()
    meter.settle()
    assert meter.place().said == (2, 0)
    owed(meter, " is", " wide", " and")
    meter.settle()
    assert first.said == (2, 0)


def test_a_place_that_was_left_before_the_end_keeps_its_figures(meter: usage.Meter) -> None:
    """MET-3: who has left did not see what upstream told at the end."""
    place = owed(meter, "The", " answer")
    owed(meter, " is 42")
    meter.correct(99, 0)
    assert place.said == (2, 0)
    assert meter.said == (99, 0)


def test_what_is_owed_is_counted_when_the_sum_is_asked_for(vocabulary: tokens.Vocabulary) -> None:
    meter = usage.Meter(vocabulary, 0)
    owed(meter, "The")
    assert meter.output == 1
    owed(meter, " answer")
    assert (meter.reasoning, meter.output) == (0, 2)


def test_a_place_does_not_keep_its_answer(vocabulary: tokens.Vocabulary) -> None:
    place = owed(usage.Meter(vocabulary, 0), "The")
    with pytest.raises(ReferenceError):
        assert place.said


def test_a_slice_is_counted_once_there_is_one(meter: usage.Meter) -> None:
    """COM-34: what is left to count when a caller leaves is a slice at most."""
    place = owed(meter, *["word "] * 100)
    meter.pass_by()
    assert place.told is None
    place = owed(meter, *["word "] * (usage.SLICE_BYTES // 8))
    meter.pass_by()
    assert place.told is not None
    assert meter.passed == place.told


@pytest.mark.parametrize(("short_bytes", "is_counted"), [(0, False), (1, True)])
def test_a_slice_is_what_is_more_than_its_bytes(
    short_bytes: int, meter: usage.Meter, monkeypatch: pytest.MonkeyPatch, *, is_counted: bool
) -> None:
    place = owed(meter, "The", " sea")
    monkeypatch.setattr(usage, "SLICE_BYTES", place.end - short_bytes)
    meter.pass_by()
    assert (place.told is not None) is is_counted


def test_only_upstreams_last_word_corrects_downward(meter: usage.Meter) -> None:
    """USE-3."""
    meter.think("We")
    meter.answer("The answer")
    meter.correct(2, 1)
    assert meter.said == (meter.output, meter.reasoning) == (2, 1)


def test_the_room_left_is_that_of_answer_and_chain_alone(meter: usage.Meter) -> None:
    """OUT-8, OUT-9."""
    assert meter.chain_fits("We think", 1) == len("We")
    meter.think("We think")
    assert meter.answer_fits("The answer is", 2) == len("The answer")


def test_the_last_word_falls_to_the_exact_count_where_upstream_has_none(
    meter: usage.Meter, vocabulary: tokens.Vocabulary
) -> None:
    """USE-2: "abcdef" is one token, and two while its letters come, in one read or in several."""
    said = [one for piece in "abcdef" for one in meter.answer(piece)]
    assert meter.output > 1
    assert said == sorted(said) == usage.Meter(vocabulary, 1).answer(*"abcdef")
    alone = usage.Meter(vocabulary, 1)
    assert said == [alone.answer_one(piece) for piece in "abcdef"]
    alone = usage.Meter(vocabulary, 1)
    assert [made for made, _ in said] == [alone.think_one(piece)[0] for piece in "abcdef"]
    meter.conclude()
    assert meter.output == 1


def test_the_last_word_goes_on_from_a_running_figure_and_never_below_it(meter: usage.Meter) -> None:
    """USE-3: upstream said 10 of what we count as one."""
    meter.expect(10)
    meter.answer("The")
    meter.resume_from(10)
    meter.answer(" answer")
    meter.conclude()
    assert meter.output == 11
    meter.expect(12)
    meter.resume_from(3)
    meter.conclude()
    assert meter.output == 12


def test_an_answer_that_was_cut_is_counted_whatever_upstream_says_of_the_whole(meter: usage.Meter) -> None:
    """OUT-8: a completion comes with the figure of all of it, of which a stop may leave a part."""
    meter.expect(12)
    meter.answer("The answer")
    meter.conclude()
    assert meter.output == 2


def test_what_opens_the_calls_is_counted_together_with_the_answer(vocabulary: tokens.Vocabulary) -> None:
    """USE-7: ".\n\n" is one token; an answer that goes on behind its calls ends anew."""
    meter = usage.Meter(vocabulary, 0)
    meter.answer("Well.")
    meter.markup(5, "\n\n<")
    assert meter.output == len(vocabulary.encode("Well.\n\n<")) + 5
    meter.markup(7, "\n\n<")
    assert meter.output == len(vocabulary.encode("Well.\n\n<")) + 7
    meter.answer(" Yes")
    meter.conclude()
    assert meter.output == len(vocabulary.encode("Well. Yes\n\n<")) + 7


def test_what_opened_the_calls_was_written_once_whatever_follows_them(vocabulary: tokens.Vocabulary) -> None:
    """USE-7: behind "Well." it shares a token, behind "Yes" it would share none."""
    meter = usage.Meter(vocabulary, 0)
    meter.answer("Well.")
    meter.markup(5, "\n\n<")
    meter.answer(" Yes")
    meter.markup(7, "\n\n<")
    lead = len(vocabulary.encode("Well.\n\n<")) - len(vocabulary.encode("Well."))
    assert lead < len(vocabulary.encode("Yes\n\n<")) - len(vocabulary.encode("Yes"))
    assert meter.counted == len(vocabulary.encode("Well. Yes")) + lead + 7


def test_a_chain_that_was_left_is_what_is_billed_of_it_and_the_answer_goes_on_from_there(meter: usage.Meter) -> None:
    """OUT-9: of what was generated behind its budget nothing; its closing tag is in another prompt."""
    meter.think("We think about it")
    meter.leave_chain(3, 2)
    assert (meter.exact, meter.reasoning) == (3, 2)
    meter.close_chain()
    meter.answer("The answer")
    meter.conclude()
    assert meter.said == (5, 2)


def test_a_later_report_replaces_and_what_it_leaves_out_stays() -> None:
    """USE-3."""
    tally = usage.Tally()
    upstream = tally.begin(0)
    tally.report(upstream, usage.Figures(9, 3, 2, 4), final=False)
    tally.report(upstream, usage.Figures(output=5), final=False)
    assert upstream.figures == usage.Figures(9, 5, 2, 4)
    assert (tally.input, tally.cached) == (9, 4)


RUNNING, FINAL = False, True
# What was told, when, and what of it is believed, the model's context being 100 tokens and our count of the prompt 5.
REPORTS: dict[str, tuple[usage.Figures, bool, usage.Figures]] = {
    "a running zero is none": (usage.Figures(0, 0, 0, 0), RUNNING, usage.Figures()),
    "a running one is one": (usage.Figures(1, 1), RUNNING, usage.Figures(1, 1)),
    "a running zero of the answer alone": (usage.Figures(7, 0), RUNNING, usage.Figures(7)),
    "a final zero is one": (usage.Figures(0, 0), FINAL, usage.Figures(0, 0)),
    "a running figure beyond the window": (usage.Figures(101, 101), RUNNING, usage.Figures()),
    "a final figure beyond the window": (usage.Figures(101, 3), FINAL, usage.Figures(None, 3)),
    "as long as the window": (usage.Figures(100, 100), FINAL, usage.Figures(100, 100)),
    "a cache larger than its prompt": (usage.Figures(7, 3, None, 64), FINAL, usage.Figures(7, 3, None, 7)),
    "a cache of a prompt that is none": (usage.Figures(101, 3, None, 64), FINAL, usage.Figures(None, 3)),
    "a cache without a prompt": (usage.Figures(cached=64), FINAL, usage.Figures(cached=5)),
    "a chain longer than its answer": (usage.Figures(7, 3, 30), FINAL, usage.Figures(7, 3, 3)),
    "a chain without an answer": (usage.Figures(7, None, 30), FINAL, usage.Figures(7)),
}


@pytest.mark.parametrize("name", REPORTS)
def test_a_figure_is_believed_only_where_it_can_be_one(name: str) -> None:
    """USE-3."""
    told, final, believed = REPORTS[name]
    tally = usage.Tally(window=100)
    tally.count_prompt(5, 0, 0)
    upstream = tally.begin(0)
    assert tally.report(upstream, told, final=final) == believed.output
    assert upstream.figures == believed
    assert tally.input == (5 if believed.input is None else believed.input)
    assert tally.cached == believed.cached


def test_several_choices_of_one_upstream_call_have_a_window_each() -> None:
    """USE-3, OUT-7."""
    tally = usage.Tally(window=100)
    upstream = tally.begin(0, choices=4)
    assert tally.report(upstream, usage.Figures(7, 400), final=True) == 400
    assert tally.report(upstream, usage.Figures(7, 101), final=False, of_one=True) is None
    assert tally.report(upstream, usage.Figures(7, 9), final=False, of_one=True) == 9
    assert upstream.figures == usage.Figures(7, 400)


def test_the_drift_is_recorded_also_of_a_figure_that_is_not_believed() -> None:
    """USE-3, USE-5: at the end; a zero on the way is nothing."""
    tally = usage.Tally(window=100)
    tally.count_prompt(5, 0, 0)
    upstream = tally.begin(0)
    tally.report(upstream, usage.Figures(0, 0), final=False)
    assert tally.drift is None
    tally.report(upstream, usage.Figures(1_000, 3), final=True)
    assert (tally.input, tally.drift) == (5, 995)


@pytest.mark.parametrize(
    ("reports", "basis"),
    [
        ([], "counted"),
        ([(usage.Figures(7, 3), False)], "upstream_last"),
        ([(usage.Figures(7, 3), True)], "upstream_final"),
        ([(usage.Figures(None, 3), True)], "counted"),
        ([(usage.Figures(7, None), True)], "counted"),
        ([(usage.Figures(7, 3), False), (usage.Figures(7, 101), True)], "upstream_last"),
        ([(usage.Figures(101, 101), True)], "counted"),
    ],
)
def test_the_basis_is_that_of_the_weaker_figure(reports: list[tuple[usage.Figures, bool]], basis: str) -> None:
    """MET-3."""
    tally = usage.Tally(window=100)
    upstream = tally.begin(0)
    for told, final in reports:
        tally.report(upstream, told, final=final)
    assert upstream.basis == basis


def test_a_second_call_of_a_choice_says_nothing_of_the_callers_prompt() -> None:
    """OUT-9: its prompt holds the chain, and it wrote only the rest."""
    tally = usage.Tally()
    tally.count_prompt(5, 0, 0)
    tally.begin(0)
    second = tally.begin(0, before=11, chain=10)
    assert tally.latest(0) is second
    assert tally.report(second, usage.Figures(17, 4, None, 12), final=True) == 15
    assert (tally.input, tally.cached, tally.drift) == (5, None, None)
    assert second.figures == usage.Figures(17, 4, None, 12)


@pytest.mark.parametrize(("thinking", "reasoning"), [(True, 1), (False, None)])
def test_a_chain_is_never_longer_than_its_output(
    meter: usage.Meter,
    thinking: bool,
    reasoning: int | None,
) -> None:
    """OUT-4."""
    meter.think("We think")
    meter.correct(1, meter.reasoning)
    shown = usage.Tally(counts_chain=thinking).of(meter)
    assert (shown.reasoning, shown.total) == (reasoning, 1)


@pytest.mark.parametrize(("told", "expected"), [(7, 7), (0, 3), (None, 3)])
def test_a_chain_upstream_does_not_count_is_ours(told: int | None, expected: int) -> None:
    """USE-4."""
    upstream = usage.Upstream(0, 1, 0, None)
    upstream.figures = usage.Figures(reasoning=told)
    assert upstream.reasoning(3) == expected


LESSONS = {
    "nothing learned": ([], 0),
    "one is enough": ([(100, 179)], 79),
    "of two the later": ([(100, 100), (100, 179)], 79),
    "one that differs among many": ([(100, 100), (100, 100), (100, 179)], 0),
    "the commonest of the last five": ([(100, 179)] * 5 + [(100, 100)] * 3, 0),
    "and no longer ago": ([(100, 100)] * 9 + [(100, 179)] * 3, 79),
    "the longest template there could be": ([(100, 228)], 128),
    "another vocabulary": ([(100, 900)], 0),
    "what grows with the prompt": ([(30_004, 30_903)], 0),
    "and however often": ([(30_004, 30_903)] * 5, 0),
    "a share of a long prompt": ([(60_004, 57_602)], 0),
    "a prompt of no tokens": ([(100, 0)], 0),
    "a shorter template": ([(100, 21)], -79),
}


@pytest.mark.parametrize("name", LESSONS)
def test_a_difference_is_applied_where_it_can_be_a_templates(name: str) -> None:
    """USE-5."""
    lessons, expected = LESSONS[name]
    offsets = usage.Offsets()
    for counted, reported in lessons:
        assert offsets.learn("kind", counted, reported) == reported - counted
    assert offsets.get("kind") == expected
    assert offsets.get("another kind") == 0


@given(st.lists(st.integers(0, 2), max_size=60))
def test_of_the_last_differences_the_commonest_is_applied_of_equals_the_latest(differences: list[int]) -> None:
    """USE-5, after each of them."""
    offsets = usage.Offsets()
    for number, difference in enumerate(differences, 1):
        offsets.learn("kind", 5, 5 + difference)
        last = differences[:number][-usage.REMEMBERED :]
        assert offsets.get("kind") == max(reversed(last), key=last.count)


@pytest.mark.parametrize(("learned", "applied"), [(79, 84), (-3, 2), (-4, 5), (0, 5)])
def test_an_offset_never_takes_more_than_the_templates_own_tokens(learned: int, applied: int) -> None:
    """USE-5: the texts themselves are there under any template."""
    tally = usage.Tally()
    tally.count_prompt(5, learned, overhead=3)
    assert (tally.input, tally.counted_input) == (applied, 5)


def test_the_end_token_counts_where_the_server_counts_it_and_the_answer_ended_by_itself(
    vocabulary: tokens.Vocabulary,
) -> None:
    """USE-1: a property of the server (Azure counts it), not of the model."""
    meter = usage.Meter(vocabulary, chain_end=0, answer_end=1)
    meter.answer("Hello")
    assert meter.output == 1
    meter.end()
    assert meter.output == 2


@pytest.mark.parametrize(
    ("told", "image"),
    [(None, 192), (496, 496), (600, 600), (0, 192), (601, 192)],
    ids=["nothing", "more", "all", "zero", "too much"],
)
def test_what_upstream_tells_of_images_is_believed_within_the_prompt(told: int | None, image: int) -> None:
    """USE-3."""
    tally = usage.Tally(image=192)
    tally.report(tally.begin(0), usage.Figures(600, 3, image=told), final=True)
    assert tally.image == image


def test_more_image_than_prompt_is_no_figure() -> None:
    """USE-3: told of a call without any."""
    tally = usage.Tally()
    tally.report(tally.begin(0), usage.Figures(10, 3, image=11), final=True)
    assert (tally.input, tally.image) == (10, None)


@pytest.mark.parametrize(
    ("known", "prompt", "image"),
    [(None, 193, 184), (192, 400, 391), (None, 9, None), (None, 5, None), (192, 100, 91)],
    ids=["an address", "and another", "no more than the text", "less", "less than is known"],
)
def test_where_the_size_of_an_image_is_not_known_the_text_is_what_we_count(
    known: int | None, prompt: int, image: int | None
) -> None:
    """USE-1, OUT-4: all else of upstream's prompt is the images."""
    tally = usage.Tally(image=known, is_countable=False)
    tally.count_prompt(7 + (known or 0), 2, 3)
    assert (tally.input, tally.image) == (9 + (known or 0), known)
    tally.report(tally.begin(0), usage.Figures(prompt, 3), final=True)
    assert (tally.input, tally.image) == (prompt, image)


def test_what_upstream_tells_of_images_of_unknown_size_stands() -> None:
    """USE-3."""
    tally = usage.Tally(is_countable=False)
    tally.count_prompt(9, 0, 3)
    upstream = tally.begin(0)
    tally.report(upstream, usage.Figures(600, 3, image=500), final=False)
    tally.report(upstream, usage.Figures(600, 4), final=True)
    assert tally.image == 500


def test_images_of_a_model_that_counts_by_another_rule_leave_the_text_what_we_counted() -> None:
    """OUT-4: llama.cpp with an eye of 16 tokens told 29 of a prompt of 9 and a picture that is 194 by DeepSeek's."""
    tally = usage.Tally(image=194)
    tally.count_prompt(203, 0, 0)
    assert (tally.input, tally.image) == (203, 194)
    tally.report(tally.begin(0), usage.Figures(29, 8), final=True)
    assert (tally.input, tally.image) == (29, 20)


def test_images_are_never_more_than_the_prompt() -> None:
    """OUT-4: where upstream counts them for less; a later word of it may be of more."""
    tally = usage.Tally(image=192)
    tally.count_prompt(201, 0, 3)
    upstream = tally.begin(0)
    tally.report(upstream, usage.Figures(100, 3), final=False)
    assert (tally.input, tally.image) == (100, 91)
    tally.report(upstream, usage.Figures(192, 3), final=False)
    assert (tally.input, tally.image) == (192, 192)
    tally.report(upstream, usage.Figures(600, 3), final=True)
    assert (tally.input, tally.image) == (600, 192)


@pytest.mark.parametrize(
    ("is_countable", "known", "first", "second", "given", "image"),
    [
        (False, None, None, 199, 193, 184),
        (False, None, None, None, 9, None),
        (False, None, None, 15, 9, None),
        (False, 192, None, 15, 201, 192),
        (False, 192, None, 16, 10, 1),
        (False, None, 190, 199, 190, 181),
        (True, None, None, 199, 9, None),
    ],
    ids=["behind it", "nowhere", "of the text alone", "of less than is known", "of more", "before", "all is counted"],
)
def test_a_prompt_that_a_call_left_at_its_budget_has_not_told_is_read_off_the_one_behind_it(
    known: int | None, first: int | None, second: int | None, given: int, image: int | None, *, is_countable: bool
) -> None:
    """OUT-9, USE-1: that of the second call less the chain, `</think>` and a blank line; where nobody else knows."""
    tally = usage.Tally(image=known, is_countable=is_countable)
    tally.count_prompt(9 + (known or 0), 0, 3)
    tally.report(tally.begin(0), usage.Figures(first, 4), final=False)
    tally.report(tally.begin(0, before=4, chain=4), usage.Figures(second, 8), final=True)
    assert (tally.input, tally.image) == (given, image)
