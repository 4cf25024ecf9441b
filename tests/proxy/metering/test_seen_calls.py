"""Claims about calls whose lines have been seen: by any name, in any order, one or many at once, they are told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.metering.seen_calls import SeenCalls

OPENING = (Path("usage.jsonl"), 1, b"")
# Of one process and another, on both sides of where a page and a number's length end, and of no journal's form.
NAMES = [
    *(
        b"%b-%x" % (process, number)
        for process in (b"a1", b"a2")
        for number in (*range(0xFFC, 0x1004), 0xFFFF, 0x10000)
    ),
    *(b"", b"-", b"1", b"a1", b"a1-", b"a1-1", b"a1-ff", b"a1-ffg", b"a1-fF1", b"a1-1-001", b"a1-\\u0031000", b"A-001"),
]
calls = st.sampled_from(NAMES)


class Simple:
    """The same, as simply as can be."""

    def __init__(self) -> None:
        self.begun: set[bytes] = set()
        self.ended: set[bytes] = set()

    def begin(self, call: bytes) -> bool:
        is_new = call not in self.begun
        self.begun.add(call)
        return is_new

    def end(self, call: bytes) -> bool:
        is_new = call not in self.ended
        self.ended.add(call)
        return is_new

    def are_new(self, begun: list[bytes], ended: list[bytes]) -> bool:
        each_once = len({*begun}) == len(begun) and len({*ended}) == len(ended)
        return each_once and self.begun.isdisjoint(begun) and self.ended.isdisjoint(ended)


# Some at random, and some as processes write them: one after the other, from anywhere on.
several = st.one_of(
    st.lists(calls, max_size=5),
    st.tuples(st.integers(0, 36), st.integers(0, 12)).map(lambda row: NAMES[row[0] : sum(row)]),
)
steps = st.one_of(
    st.tuples(st.just("begin"), calls),
    st.tuples(st.just("end"), calls),
    st.tuples(st.just("note"), st.tuples(several, several)),
)


@given(st.lists(steps, max_size=30))
def test_calls_are_told_apart_however_their_lines_come(history: list[tuple[str, Any]]) -> None:
    """MET-1."""
    seen, simple = SeenCalls(), Simple()
    for step, said in history:
        if step == "begin":
            assert seen.begin(said, OPENING) == simple.begin(said)
        elif step == "end":
            assert seen.end(said) == simple.end(said)
        else:
            begun, ended = said
            noted = seen.note(begun, lambda _: OPENING, ended)
            # A name that JSON may say in another way is left to whoever parses it.
            assert noted == simple.are_new(begun, ended) or (not noted and any(b"\\" in name for name in begun + ended))
            if noted:
                simple.begun.update(begun)
                simple.ended.update(ended)
        assert seen.open.keys() == simple.begun - simple.ended
        assert seen.ended_alone() == len(simple.ended - simple.begun)


@pytest.mark.parametrize("processes", [1, 3])
def test_what_goes_on_where_it_was_is_noted_without_a_look_at_each(processes: int) -> None:
    """From number to number, over the end of a page, each of several processes at its own place."""
    seen, simple = SeenCalls(), Simple()
    for first in range(0xF00, 0x1100, 0x30):
        numbers = range(first, first + 0x30)
        begun = [b"a%d-%x" % (process, number) for number in numbers for process in range(processes)]
        ended = [b"a%d-%x" % (process, number - 7) for number in numbers for process in range(processes)]
        assert seen.note(begun, lambda _: OPENING, ended)
        simple.begun.update(begun)
        simple.ended.update(ended)
        assert seen.open.keys() == simple.begun - simple.ended
        assert not seen.note(begun[:1], lambda _: OPENING, [])
        assert not seen.note([], lambda _: OPENING, ended[-1:])
    assert seen.ended_alone() == 7 * processes
