"""A stop ends the answer wherever the deltas are cut, and delays nothing else (spec PAR-9)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from translators import stops


def fed(deltas: list[str], *texts: str) -> tuple[list[str], bool]:
    finder = stops.Finder(texts)
    out = []
    for delta in deltas:
        out.append(finder.feed(delta))
        if finder.hit:
            return out, True
    return [*out, finder.eof()], False


CASES = {
    "no stop": (["one", "two"], ["STOP"], ["one", "two", ""], False),
    "inside one delta": (["one STOP two"], ["STOP"], ["one "], True),
    "across deltas": (["a S", "TO", "P b"], ["STOP"], ["a ", "", ""], True),
    "a beginning that comes to nothing": (["a S", "TO", "RM"], ["STOP"], ["a ", "", "STORM", ""], False),
    "a beginning at the end": (["a ST"], ["STOP"], ["a ", "ST"], False),
    "a beginning inside a beginning": (["aa", "ab"], ["aab"], ["", "a"], True),
    "a repeated beginning": (["xaax", "a"], ["ab"], ["xaax", "", "a"], False),
    "the stop that is whole first": (["abc"], ["abc", "b"], ["a"], True),
    "of two at one place the longer": (["xab"], ["b", "ab"], ["x"], True),
    "a stop of one letter holds nothing": (["ab", "c."], ["."], ["ab", "c"], True),
}


@pytest.mark.parametrize("name", CASES)
def test_text_before_a_stop_goes_out_and_nothing_after_it(name: str) -> None:
    deltas, texts, expected, hit = CASES[name]
    assert fed(deltas, *texts) == (expected, hit)


@given(st.text("ab.", max_size=20), st.lists(st.text("ab.", min_size=1, max_size=4), min_size=1, max_size=3), st.data())
def test_no_cut_moves_a_stop(text: str, texts: list[str], data: st.DataObject) -> None:
    """The same text letter by letter, at once, and in random pieces."""
    pieces, rest = [], text
    while rest:
        size = data.draw(st.integers(1, len(rest)))
        pieces.append(rest[:size])
        rest = rest[size:]
    results = [fed(cut, *texts) for cut in (list(text), [text], pieces)]
    assert len({("".join(out), hit) for out, hit in results}) == 1


@given(st.text("ab.", max_size=20), st.lists(st.text("ab.", min_size=1, max_size=4), min_size=1, max_size=3))
def test_no_more_is_held_than_may_become_a_stop(text: str, texts: list[str]) -> None:
    finder = stops.Finder(texts)
    out = finder.feed(text)
    if not finder.hit:
        held = text[len(out) :]
        assert held == "" or any(stop.startswith(held) for stop in texts)


@given(st.text("ab", max_size=24), st.lists(st.text("ab", min_size=1, max_size=6), min_size=1, max_size=5))
def test_the_stop_that_is_whole_first_wins_and_of_two_the_longer(text: str, texts: list[str]) -> None:
    found = [(end, end - len(stop)) for end in range(len(text) + 1) for stop in texts if text[:end].endswith(stop)]
    out, hit = fed([text], *texts)
    assert hit is bool(found)
    assert "".join(out) == text[: min(found)[1] if found else len(text)]


@pytest.mark.timeout(30)
def test_stops_that_nearly_match_cost_time_linear_in_the_text() -> None:
    """Each of 32 stops begins at every letter: looked for one by one, that is ten thousand million steps."""
    texts = ["a" * 500 + chr(0x4E00 + number) for number in range(32)]
    finder = stops.Finder(texts)
    assert finder.feed("a" * 1_000_000) == "a" * 999_500
    assert finder.eof() == "a" * 500
