"""Claims about calls whose lines have been seen: by any name, in any order, one or many at once, they are told."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from proxy.metering.seen_calls import Opening, SeenCalls

OPENING = Opening(Path("usage.jsonl"), 1, b"")
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

    def begin_new(self, several: list[bytes]) -> bool:
        if not (self.begun | self.ended).isdisjoint(several):
            return False
        self.begun.update(several)
        return True


steps = st.one_of(
    st.tuples(st.just("begin"), calls),
    st.tuples(st.just("end"), calls),
    st.tuples(st.just("begin_new"), st.lists(calls, unique=True)),
    st.tuples(
        st.just("begin_new"),
        st.tuples(st.integers(0, 30), st.integers(0, 30)).map(lambda ends: NAMES[min(ends) : max(ends)]),
    ),
)


@given(st.lists(steps, max_size=30))
def test_calls_are_told_apart_however_their_lines_come(history: list[tuple[str, bytes | list[bytes]]]) -> None:
    """MET-1."""
    seen, simple = SeenCalls(), Simple()
    for step, said in history:
        match step, said:
            case "begin", bytes():
                assert seen.begin(said, OPENING) == simple.begin(said)
            case "end", bytes():
                assert seen.end(said) == simple.end(said)
            case _, list():
                is_new = seen.begin_new(said)
                assert is_new == simple.begin_new(said)
                # Whoever notes several at once says which of them are left open.
                seen.open.update((call, OPENING) for call in said if is_new)
        assert seen.open.keys() == simple.begun - simple.ended
        assert seen.ended_alone() == len(simple.ended - simple.begun)
