"""A stop ends the answer wherever the deltas are cut, and delays nothing else (spec PAR-9)."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
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


@settings(deadline=None)
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


@settings(deadline=None)
@given(st.text("ab.", max_size=20), st.lists(st.text("ab.", min_size=1, max_size=4), min_size=1, max_size=3))
def test_no_more_is_held_than_may_become_a_stop(text: str, texts: list[str]) -> None:
    finder = stops.Finder(texts)
    out = finder.feed(text)
    if not finder.hit:
        held = text[len(out) :]
        assert held == "" or any(stop.startswith(held) for stop in texts)
