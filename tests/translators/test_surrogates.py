"""Half a surrogate pair costs its own character and nothing else (spec REQ-10, SSE-10)."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from translators import surrogates


@pytest.mark.parametrize(
    ("raw", "document"),
    [
        (rb'{"a":"Hi \ud83d"}', {"a": "Hi \ud83d"}),
        (rb'["\uDE00!", "\ud83d\ude00"]', ["\ude00!", "😀"]),
        (rb'{"\ud83d":1}', {"\ud83d": 1}),
        (b'{"a":1}', {"a": 1}),
        (rb'["\ud83d", 1.5, 7, 1180591620717411303424]', ["\ud83d", 1.5, 7, 2.0**70]),
    ],
)
def test_a_half_is_read_as_it_stands(raw: bytes, document: object) -> None:
    assert surrogates.loads(raw) == document


@pytest.mark.parametrize("number", [0, -1, 2**64 - 1, 2**64, -(2**63), -(2**63) - 1])
def test_a_number_beside_it_is_read_as_it_is_elsewhere(number: int) -> None:
    """Beyond 64 bits as the nearest there is."""
    read, elsewhere = surrogates.loads(rb'["\ud83d", %d]' % number)[1], orjson.loads(b"%d" % number)
    assert (type(read), read) == (type(elsewhere), elsewhere)


@pytest.mark.parametrize(
    "raw",
    [
        b"{oops",
        rb'["\ud83d", NaN]',
        rb'["\ud83d", 1e999]',
        rb'["\ud83d"',
        rb'["\ud83d", ' + b"9" * 5_000 + b"]",
        rb'["\ud83d", ' + b"[" * 100_000 + b"]",
        b'["\\ud83d", "\xff"]',
    ],
    ids=["no JSON", "NaN", "infinity", "cut", "digits", "levels", "bytes"],
)
def test_what_is_no_json_beside_it_stays_so(raw: bytes) -> None:
    with pytest.raises(orjson.JSONDecodeError):
        surrogates.loads(raw)


@pytest.mark.parametrize(
    ("raw", "document"),
    [
        (b'{"a":1e400,"b":-1E+400,"c":1.5}', {"a": None, "b": None, "c": 1.5}),
        (b'{"a":%b,"b":7}' % (b"9" * 5_000), {"a": None, "b": 7}),
        (b'{"a":1e400,"b":%b}' % (b"9" * 250), {"a": None, "b": float("9" * 250)}),
        (rb'{"a":1e400,"b":"\ud83d"}', {"a": None, "b": "\ud83d"}),
        (b'{"a":1}', {"a": 1}),
    ],
    ids=["exponents", "digits", "a float of many digits", "half a pair", "nothing of the kind"],
)
def test_a_number_that_no_double_holds_says_no_figure(raw: bytes, document: object) -> None:
    """USE-3: what else its document says is read."""
    assert surrogates.lenient(raw) == document


@pytest.mark.parametrize("raw", [b"[DONE]", b"[1e400", b"[1e400, NaN]", b"1e400" + b"[" * 100_000, b"[" + b"9" * 5_000])
def test_a_huge_number_makes_no_json_of_what_is_none(raw: bytes) -> None:
    with pytest.raises(orjson.JSONDecodeError):
        surrogates.lenient(raw)


@pytest.mark.parametrize(
    ("text", "mended"),
    [
        (r'{"a":"\ud83d"}', '{"a":"\ufffd"}'),
        (r'{"a":"\uDE00\ud83d\ude00\uD83d"}', r'{"a":"' + "\ufffd" + r"\ud83d\ude00" + '\ufffd"}'),
        (r'{"a":"\\ud83d"}', r'{"a":"\\ud83d"}'),
        (r'{"a":"\\\ud83d"}', r'{"a":"\\' + '\ufffd"}'),
        (r'{"a":"\u4f60"}', r'{"a":"\u4f60"}'),
    ],
)
def test_an_escape_of_half_a_pair_is_mended_where_it_stands(text: str, mended: str) -> None:
    """REQ-10: nothing else of the text is touched."""
    assert surrogates.unescaped(text) == mended
    assert orjson.loads(mended)


@pytest.mark.parametrize(
    ("text", "whole"),
    [("a", "a"), ("é😀", "é😀"), ("\ud83d\ude00", "😀"), ("a\ud83d", "a\ufffd"), ("\ude00\ud83d", "\ufffd\ufffd")],
)
def test_halves_become_the_replacement_character(text: str, whole: str) -> None:
    assert surrogates.whole(text) == whole
    assert surrogates.mended({text: [text, 1, None]}) == {whole: [whole, 1, None]}


@given(st.text(st.characters(categories=("Cs", "L", "So"))), st.integers(0, 40))
def test_a_text_cut_anywhere_is_put_together_again(text: str, at: int) -> None:
    first, half = surrogates.parted(text[:at])
    assert first + surrogates.whole(half + text[at:]) == surrogates.whole(text)
    first.encode()
