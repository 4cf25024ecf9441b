"""JSON whose strings hold half a surrogate pair, read all the same: both sides of a pair wait for each other.

`"\\ud83d"` is JSON by its grammar and no Unicode text: programs that cut strings by 16-bit units send it, and a parser
that wants text refuses the whole document for it. Here a half that stays alone becomes U+FFFD (spec REQ-10, SSE-10).
"""

from __future__ import annotations

import json
import math
import re
from typing import Any, Final

import orjson

# An escape of either half, in any spelling: without one there is nothing that a lenient reader could save.
_ESCAPE: Final = re.compile(rb"\\u[dD][89a-fA-F]")
# What a backslash begins, as far as it tells a half that stays alone from a pair and from a backslash and a word.
_ESCAPED: Final = re.compile(
    r"\\\\|\\u[dD][89abAB][\da-fA-F]{2}\\u[dD][c-fC-F][\da-fA-F]{2}|(\\u[dD][89a-fA-F][\da-fA-F]{2})"
)
# An exponent, or so many digits, that no double may hold it.
_HUGE: Final = re.compile(rb"[eE]\+?\d{3}|\d{200}")


def loads(raw: bytes | bytearray) -> Any:
    """The JSON in `raw`, halves of surrogate pairs left as they are; raises `orjson.JSONDecodeError` for anything else.

    Halves are what `whole` and `parted` are for: a text that still has one cannot be written.
    """
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        if _ESCAPE.search(raw) is None:
            raise
        try:
            return json.loads(raw.decode(), parse_constant=_refuse, parse_float=_finite, parse_int=_fitting)
        except (ValueError, RecursionError):
            # NaN, 1e999, an integer of thousands of digits, too many levels: what `orjson` refuses is refused here too.
            raise error from None


def lenient(raw: bytes | bytearray) -> Any:
    """The JSON in `raw` as `loads` reads it, a number that no double holds as null: it says no figure (spec USE-3)."""
    try:
        return loads(raw)
    except orjson.JSONDecodeError as error:
        if _HUGE.search(raw) is None:
            raise
        try:
            return json.loads(raw.decode(), parse_constant=_refuse, parse_float=_known_float, parse_int=_known_int)
        except (ValueError, RecursionError):
            raise error from None


def unescaped(text: str) -> str:
    """The text of a JSON document with U+FFFD for every escape of half a pair without its other one."""
    return _ESCAPED.sub(lambda found: "\ufffd" if found[1] else found[0], text)


def whole(text: str) -> str:
    """The text with pairs joined, and U+FFFD for every half without its other one."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def parted(text: str) -> tuple[str, str]:
    """The text whole, and apart from it a first half at its end, which the next piece may complete."""
    half = text[-1:] if "\ud800" <= text[-1:] <= "\udbff" else ""
    return whole(text[: len(text) - len(half)]), half


def mended(document: Any) -> Any:
    """The document with every text in it `whole`, names of fields too; raises RecursionError if it is too deep."""
    if isinstance(document, str):
        return whole(document)
    if isinstance(document, list):
        return [mended(item) for item in document]
    if isinstance(document, dict):
        return {whole(name): mended(value) for name, value in document.items()}
    return document


def _refuse(constant: str) -> Any:
    raise ValueError(constant)


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError(digits)
    return number


def _fitting(digits: str) -> float:
    """An integer; beyond 64 bits the nearest number there is, for none of them can be written."""
    number = int(digits)
    return number if -(1 << 63) <= number < 1 << 64 else _finite(digits)


def _known_float(digits: str) -> float | None:
    number = float(digits)
    return number if math.isfinite(number) else None


def _known_int(digits: str) -> float | None:
    """An integer as `_fitting` reads it, looked at by its length first: Python refuses thousands of digits."""
    number = _known_float(digits)
    return None if number is None else _fitting(digits)
