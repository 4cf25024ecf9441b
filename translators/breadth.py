"""A JSON text's bytes -> whether reading it would build too much; told before it is parsed (spec REQ-11).

A kilobyte on the wire can be a million lists: what a text builds follows its brackets and commas, not its bytes. A
member of an object costs as much as three other parts.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Generator, Iterator

from translators import faults

# `[`, `{` and `,` outside strings: about as many values, of some hundred bytes each.
MOST_PARTS = 500_000
# `:` outside strings: names with a value.
MOST_MEMBERS = 160_000

# One character beyond Latin makes every character of its text two bytes long, one beyond the basic plane four.
MOST_CHARS = {1: sys.maxsize, 2: 10 << 20, 4: 8 << 20}

# So few bytes hold few parts, whatever they are.
_FEW_BYTES = 16 << 10
# To count a character in so many takes less time than to go through what they make.
_SHORT_BYTES = 4 << 10
# To go through so many values takes no longer than to count two characters in 64 KB.
_FEW_VALUES = 1_000
_STRUCTURE = b"[{,:"
_WINDOW_BYTES = 64 << 10
_WINDOWS_A_TURN = 16
_TURN_BYTES = 1 << 20
_NOT_LOOKED_AT = bytes({*range(256)} - {*b'"[{,:'})
_NO_STRUCTURE = bytes({*range(256)} - {*_STRUCTURE})
_CONTINUED = bytes(range(0x80, 0xC0))
_LATIN = bytes(range(0xC4))
_BASIC = bytes(range(0xF0))
_NO_BACKSLASH = re.compile(rb"[^\\]")


def check(raw: bytes | bytearray) -> Generator[int, None, int]:
    """Refuse a text that would build too much, in time that follows its bytes whatever they are.

    A generator, for a caller that shares its thread with others: of a long text, each step is some milliseconds. It
    returns about how many parts the text has, those of its strings included where they may be; 0 of a shorter one,
    which is not looked at (`parts_of`).
    """
    if len(raw) <= MOST_MEMBERS:
        return 0
    # Most calls have fewer of them in all, strings included.
    parts = members = chars = 0
    width = 1
    for start in range(0, len(raw), _TURN_BYTES):
        end = start + _TURN_BYTES
        turn = raw[start:end]
        # In one pass, of 0.6 ns a byte: four counts take 1.4.
        kept = turn.translate(None, _NO_STRUCTURE)
        named = kept.count(b":")
        members += named
        parts += len(kept) - named
        if len(raw) > MOST_CHARS[4]:
            chars += _chars(turn)
            # Looked for in three passes: most long texts need none of them.
            if not turn.isascii() or b"\\u" in turn:
                width = max(width, _width(turn))
        if end < len(raw):
            yield 0
    if chars > MOST_CHARS[width]:
        raise faults.Refusal(faults.BODY_TOO_LARGE, "too many wide characters")
    if parts <= MOST_PARTS and members <= MOST_MEMBERS:
        return parts + members
    return (yield from _outside_strings(raw))


def parts_of(document: object, raw: bytes | bytearray) -> int:
    """About how many parts a document has, read from a text that `check` had nothing to say of; 0 of a short one."""
    if len(raw) <= _FEW_BYTES:
        return 0
    found = _measured(document)
    return sum(map(raw.count, _STRUCTURE)) if found is None else found[1]


def levels_of(document: object, raw: bytes | bytearray) -> int:
    """How many levels a document has at most, read from this text."""
    # Of a 64 KB prompt in a few turns the document is gone through in 2 µs; two looks at its bytes took 45, a
    # twentieth of what such a call costs, and twice as long as to parse it.
    found = _measured(document) if len(raw) > _SHORT_BYTES else None
    return raw.count(b"[") + raw.count(b"{") if found is None else found[0]


def _measured(document: object) -> tuple[int, int] | None:
    """How many levels of lists and objects a document has, and how many values; None where there are many."""
    level = [document] if isinstance(document, dict | list) else []
    levels, values = 0, 1
    while level:
        values += sum(map(len, level))
        if values > _FEW_VALUES:
            return None
        levels += 1
        level = [
            value
            for one in level
            for value in (one.values() if type(one) is dict else one)
            if type(value) is dict or type(value) is list
        ]
    return levels, values


def _outside_strings(raw: bytes | bytearray) -> Generator[int, None, int]:
    """Count what stands outside strings alone."""
    parts = members = 0
    is_inside = False
    for number, window in enumerate(_windows(raw)):
        # Without escapes a quote begins or ends a string, and two that meet change nothing.
        kept = window.replace(b"\\\\", b"").replace(b'\\"', b"").translate(None, _NOT_LOOKED_AT).replace(b'""', b"")
        pieces = kept.split(b'"')
        outside = b"".join(pieces[is_inside::2])
        is_inside ^= len(pieces) % 2 == 0
        named = outside.count(b":")
        members += named
        parts += len(outside) - named
        if parts > MOST_PARTS or members > MOST_MEMBERS:
            raise faults.Refusal(faults.BODY_TOO_LARGE, "too many parts")
        if number % _WINDOWS_A_TURN == 0:
            yield 0
    return parts + members


def _chars(raw: bytes | bytearray) -> int:
    """How many it has at most; unless backslashes come in pairs, each of which is one character itself."""
    size = len(raw) if raw.isascii() else len(raw.translate(None, _CONTINUED))
    return size - 5 * raw.count(b"\\u")


def _width(raw: bytes | bytearray) -> int:
    """How many bytes each of them will take: as they are, or as escapes and surrogate pairs."""
    if b"\\ud" in raw or b"\\uD" in raw or raw.translate(None, _BASIC):
        return 4
    return 2 if b"\\u" in raw or raw.translate(None, _LATIN) else 1


def _windows(raw: bytes | bytearray) -> Iterator[bytes | bytearray]:
    """The text in pieces that no escape reaches over."""
    start = 0
    while start < len(raw):
        found = _NO_BACKSLASH.search(raw, start + _WINDOW_BYTES - 1)
        end = found.end() if found else len(raw)
        yield raw[start:end]
        start = end
