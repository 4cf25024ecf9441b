"""Claims about what a call may build, told from its bytes (spec REQ-11)."""

from __future__ import annotations

import contextlib
import itertools
import sys
import time

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from translators import breadth, faults

JSON = st.recursive(
    st.none() | st.integers(0, 9) | st.text('a,:{["\\\\\n😀', max_size=6),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(',:"\\\\a', max_size=3), inner, max_size=4),
    max_leaves=20,
)
MEBIBYTE = 1 << 20


def built(value: object) -> tuple[int, int]:
    """Parts and members, counted in what was built."""
    if isinstance(value, list):
        parts, members = 1 + max(len(value) - 1, 0), 0
        inner = value
    elif isinstance(value, dict):
        parts, members = 1 + max(len(value) - 1, 0), len(value)
        inner = [*value.values()]
    else:
        return 0, 0
    each = [built(one) for one in inner]
    return parts + sum(one[0] for one in each), members + sum(one[1] for one in each)


def is_refused(raw: bytes) -> bool:
    try:
        for _ in breadth.check(bytearray(raw)):
            pass
    except faults.Refusal as refusal:
        return refusal.fault is faults.BODY_TOO_LARGE
    return False


@settings(max_examples=400)
@given(value=JSON, window=st.integers(1, 12))
def test_just_what_stands_outside_strings_counts(value: object, window: int) -> None:
    """Wherever the text is cut to be looked at."""
    raw = orjson.dumps(value)
    parts, members = built(value)
    for (allowed_parts, fits), (allowed_members, fit) in itertools.product(
        ((parts, True), (parts - 1, False)), ((members, True), (members - 1, False))
    ):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(breadth, "_WINDOW_BYTES", window)
            patch.setattr(breadth, "_TURN_BYTES", window)
            patch.setattr(breadth, "MOST_PARTS", allowed_parts)
            patch.setattr(breadth, "MOST_MEMBERS", allowed_members)
            assert is_refused(raw) is not (fits and fit)


@pytest.mark.parametrize(
    ("unit", "most"),
    [
        (b"0", breadth.MOST_PARTS),
        (b"[]", breadth.MOST_PARTS // 2),
        (b"{}", breadth.MOST_PARTS // 2),
        (b'"[{,"', breadth.MOST_PARTS),
        (b'{"":0}', breadth.MOST_MEMBERS),
    ],
)
def test_half_a_million_parts_are_taken_and_one_more_is_not(unit: bytes, most: int) -> None:
    def text(units: int) -> bytes:
        return b'{"\\\\\\"[{,:":[' + b",".join([unit] * units) + b"]}"

    spent = 2 if most == breadth.MOST_PARTS else 1
    assert not is_refused(text(most - spent))
    assert is_refused(text(most + 1))


@pytest.mark.parametrize(
    "unit",
    [b",", b'"', b"\\", b'\\"', b'","', b'",', b"[", b":", b"a", b'"a":"b",', "😀".encode()],
    ids=repr,
)
def test_looking_costs_little_whatever_it_looks_at(unit: bytes) -> None:
    """In seconds of the processor; the text itself takes about as long to be parsed."""
    raw = bytearray(b'{"' + unit * (12 * MEBIBYTE // len(unit)))
    steps_s, began_s = [], time.thread_time()
    with contextlib.suppress(faults.Refusal):
        for _ in breadth.check(raw):
            steps_s.append(time.thread_time() - began_s)
            began_s = time.thread_time()
    assert sum(steps_s) < 0.3
    assert max(steps_s) < 0.1


class TestWide:
    """One character can make every character of its text two or four bytes long."""

    @pytest.mark.parametrize(
        ("wide", "chars", "most_chars"),
        [
            ("😀".encode(), 1, 8 * MEBIBYTE),
            (b"\\ud83d\\ude00", 2, 8 * MEBIBYTE),
            (b"\\uD83D\\uDE00", 2, 8 * MEBIBYTE),
            ("一".encode(), 1, 10 * MEBIBYTE),
            (b"\\u4e00", 1, 10 * MEBIBYTE),
        ],
    )
    def test_a_long_text_with_one_is_refused(self, wide: bytes, chars: int, most_chars: int) -> None:
        """Of more characters than are allowed, brackets and quotes among them; of as many it is taken."""
        longest = b'["' + wide + b"a" * (most_chars - chars - len('[""]')) + b'"]'
        assert not is_refused(longest)
        assert is_refused(b" " + longest)

    @pytest.mark.parametrize(
        ("character", "bytes_each"),
        [("\x80", 1), ("ÿ", 1), ("Ā", 2), ("一", 2), ("\uffff", 2), ("\U00010000", 4), ("\U0010ffff", 4)],
        ids=ascii,
    )
    def test_how_wide_it_makes_its_text(self, character: str, bytes_each: int, monkeypatch: pytest.MonkeyPatch) -> None:
        """As the interpreter keeps it; each side of every border."""
        # More than what is not looked at, of a text of few characters.
        most = {1: 1 << 30, 2: breadth.MOST_MEMBERS + 20_000, 4: breadth.MOST_MEMBERS + 10_000}
        monkeypatch.setattr(breadth, "MOST_CHARS", most)
        chars = min(most[bytes_each], 2 * breadth.MOST_MEMBERS)
        # Of one character there is one text for all, and what it was written as may hang on it.
        assert sys.getsizeof(character * 3) - sys.getsizeof(character * 2) == bytes_each
        for more in (0, 1):
            raw = b'["' + character.encode() + b"a" * (chars + more - len('[""]') - 1) + b'"]'
            assert is_refused(raw) is (chars + more > most[bytes_each])

    @pytest.mark.parametrize("narrow", [b"a", "一".encode(), "é".encode()])
    def test_one_without_is_not(self, narrow: bytes) -> None:
        """Nor is one that is wide all through: it has fewer characters."""
        assert not is_refused(b'["' + narrow * (12 * MEBIBYTE // len(narrow) - 4) + b'"]')

    def test_nor_is_the_longest_prompt_as_escapes(self) -> None:
        """Two million characters, as an encoder writes them that keeps to ASCII."""
        assert not is_refused(b'["' + b"\\u4e00" * 2_000_000 + b'\\ud83d\\ude00"]')


@pytest.mark.parametrize(
    ("raw", "parts"),
    [
        (b"{}", 0),
        (b"[" + b"[]," * 10_000 + b"[]]", 20_002),
        (b"[" + b"[]," * 100_000 + b"[]]", 200_002),
        (b"{" + b'"a":0,' * 50_000 + b'"a":0}', 100_002),
        (b'["' + b"," * 600_000 + b'"]', 1),
    ],
    ids=["few", "some", "many", "members", "of a text alone"],
)
def test_it_tells_how_many_parts_there_are(raw: bytes, parts: int) -> None:
    """REQ-11: what is built is held by its call; of a short text nothing is said."""
    steps = breadth.check(raw)
    told = None
    while told is None:
        try:
            next(steps)
        except StopIteration as done:
            told = done.value
    assert (told or breadth.parts_of(orjson.loads(raw), raw)) == parts


def levels(value: object) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inner is None else 1 + max(map(levels, inner), default=0)


def values(value: object) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + sum(map(values, inner))


@settings(max_examples=200)
@given(value=JSON, few=st.integers(0, 40))
def test_what_was_read_is_gone_through_in_place_of_its_text(value: object, few: int) -> None:
    """REQ-11: as long as it is little; else the text says how much it is at most."""
    raw = orjson.dumps(value)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(breadth, "_SHORT_BYTES", 0)
        patch.setattr(breadth, "_FEW_BYTES", 0)
        patch.setattr(breadth, "_FEW_VALUES", few)
        deep, parts = breadth.levels_of(value, raw), breadth.parts_of(value, raw)
    if values(value) <= few:
        assert (deep, parts) == (levels(value), values(value))
    else:
        assert deep >= levels(value)
        assert parts >= sum(built(value))
