"""The lines of a journal as `Journal` writes them, in one expression: what sums need of each, without parsing it.

Members stand in one order, without spaces, so a block of lines is read in one pass. What is not worked out for itself
stands in three pieces (`said`, `basis`, `tries`), the same in thousands of lines: the first line with such pieces is
parsed as JSON, the others are known by them. A line that is not quite so is parsed: of several upstream
calls or attempts, of an older version, torn, altered, of somebody else.

What looks like a line of this form is one: the beginning of another line inside it would stand in a piece, which was
never parsed, or where the form has no brace or quotation mark. Only line ends may be swallowed: a block is as many
lines as it has line ends, or it is not of this form. Figures stay as lines say them until many are summed together
(`summed`); then, and not before, one that JSON would not read is found.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Final, NamedTuple

import orjson

# Possessive throughout: what cannot be another way is not tried again.
_NUMBER: Final = rb"\d{1,15}+"
# The figures of a `usage`, from the first on, to its end.
_FIGURES: Final = (
    rb'%b,"output_tokens":%b,"total_tokens":\d{1,16}+'
    rb'(?:,"output_tokens_details":\{"reasoning_tokens":%b(?:,"text_tokens":%b|)\}|)'
    rb'(?:,"prompt_tokens_details":\{"cached_tokens":%b\}|)(?:,"image_tokens":%b|)\}'
) % ((_NUMBER,) * 6)
_TOLD: Final = rb"(?:null|\d{1,15}+)"
# What upstream said of an attempt, where there are pools; no sum is made of it.
_OF_POOL: Final = rb'%b,"cached":%b,"completion":%b,"reasoning":%b\}' % ((_TOLD,) * 4)


class Columns(NamedTuple):
    """Lines of this form by column; in each line the groups that are not of its kind are empty.

    begun:    the name of a call that is opened
    opening:  the rest of its line
    ended:    the name of a call that has ended; empty where it was turned away, for then it has none
    minute:   in which it was received
    said:     from the caller's tongue to the code that was sent
    figures:  of `usage`
    made:     of `generated`; empty where they are the same
    basis:    whose figure that is, and whether an upstream call is known
    drift:    how far upstream's prompt is from our count; `null` where it has not told
    tries:    its one attempt, but for what upstream said of it, or that there was none
    """

    begun: tuple[bytes, ...]
    opening: tuple[bytes, ...]
    ended: tuple[bytes, ...]
    minute: tuple[bytes, ...]
    said: tuple[bytes, ...]
    figures: tuple[bytes, ...]
    made: tuple[bytes, ...]
    basis: tuple[bytes, ...]
    drift: tuple[bytes, ...]
    tries: tuple[bytes, ...]


Groups = tuple[bytes, ...]
# The pieces of a line that say which sums it belongs to: `said`, `basis`, `tries`.
Form = tuple[bytes, bytes, bytes]
# A line that is none of ours, or must be parsed.
OTHER: Final[Groups] = (b"",) * len(Columns._fields)
BEGUN: Final[Callable[[Groups], bytes]] = itemgetter(Columns._fields.index("begun"))
OPENING: Final[Callable[[Groups], bytes]] = itemgetter(Columns._fields.index("opening"))
# There in each line of a call that has ended, and in no other.
SAID: Final[Callable[[Groups], bytes]] = itemgetter(Columns._fields.index("said"))

# So much of a line is passed over without a look at each byte: less than there is where all that is said is empty. What
# is passed over may hold what else ends a member, so it is looked at again where that matters.
_OPENING_BYTES: Final = 128
_SAID_BYTES: Final = 120
_CALL_BYTES: Final = 56
_TIMES_BYTES: Final = 40

LINE: Final = re.compile(
    rb'\{"ev":"(?:open","call":"([^"]++)"(,"at":.{%d}[^{]*\}\n)' % _OPENING_BYTES
    + rb'|close","call":(?:"([^"]++)"|null),"at":"([^"]{16})[^"]{8}","request_id":"[^"]*+"'
    + rb'(,"api":.{%d}[^{]*+)\{"input_tokens":(%b),' % (_SAID_BYTES, _FIGURES)
    + rb'"generated":\{"input_tokens":(?:\6|(%b)),' % _FIGURES
    + rb'("basis":"[^"]*+","calls":\[\]?+)(?:(?<!\])\{"prompt":.{%d}[^}]*+\}\]|(?<=\])),' % _CALL_BYTES
    + rb'"drift_tokens":(null|-?\d{1,15}+),"packets":[^,]*+,"bytes_out":[^,]*+,'
    + rb'("attempts":\[\{?+[^{]*+\{"[up])(?:pstream_sent":|rompt":%b\}\],"t":\{"upstream_sent":)' % _OF_POOL
    + rb".{%d}[^{]*\}\}\n)" % _TIMES_BYTES
    + rb"|[^\n]*+\n",
    re.DOTALL,
)


def upstream_calls(form: Form) -> int:
    """Of how many upstream calls the figures are known in lines of such pieces: of one, or of none."""
    return 0 if form[1].endswith(b"]") else 1


def is_other(groups: Groups) -> bool:
    """Whether a line must be parsed."""
    return groups == OTHER or b"{" in OPENING(groups)


# What is put aside to be added up has its figures in one of a few orders: the letters say which.
_DIGITS: Final = b"0123456789"
_FIGURE: Final = re.compile(rb'"([a-z_]+)":(?!\{)')
# In the order in which they are summed.
_SUMMED: Final = (b"input_tokens", b"cached_tokens", b"output_tokens", b"reasoning_tokens")
# Where none, one or two of each of these are there for each call, all calls tell the same: `h` is in one name, `m` in
# that and in `image_tokens`, `g` in this and in `reasoning_tokens`, `x` in `text_tokens` alone.
_LETTERS: Final = b"hxgm"
_AROUND: Final = bytes({*range(256)} - {*_DIGITS, *b",", *_LETTERS})
# So many columns are parsed together: of more there would be numbers by the megabyte.
_TOGETHER: Final = 16
# Of a column: input, cached, output, reasoning.
_Tokens = tuple[int, int, int, int]


def summed(columns: Sequence[Sequence[bytes]]) -> list[_Tokens]:
    """The sums of each of some columns of `figures`, none of them empty: input, cached, output, reasoning.

    Raises `ValueError` where JSON has no such number. Many together take a tenth of the time that each takes by itself.
    """
    alike: dict[bytes, list[int]] = {}
    for at, column in enumerate(columns):
        alike.setdefault(column[0].translate(None, _DIGITS), []).append(at)
    sums: dict[int, _Tokens] = {}
    for around, places in alike.items():
        for begin in range(0, len(places), _TOGETHER):
            some = places[begin : begin + _TOGETHER]
            sums |= zip(some, _summed([columns[at] for at in some], around), strict=True)
    return [sums[at] for at in range(len(columns))]


def _summed(columns: Sequence[Sequence[bytes]], around: bytes) -> list[_Tokens]:
    """The sums of columns whose first figures are of one shape, `around`."""
    figures = sum(map(len, columns))
    text = b",".join(itertools.chain.from_iterable(columns)).translate(None, _AROUND)
    for letter in _LETTERS:
        length = len(text)
        text = text.replace(b"%c" % letter, b"")
        if length - len(text) not in {0, figures, 2 * figures}:
            return [*map(_summed_apart, columns)]
    numbers = orjson.loads(b"[%b]" % text)
    width = len(numbers) // figures
    order = _order(around)
    sums, begin = [], 0
    for column in columns:
        end = begin + len(column) * width
        given, cached, generated, reasoning = [
            0 if place is None else sum(numbers[begin + place : end : width]) for place in order
        ]
        sums.append((given, cached, generated, reasoning))
        begin = end
    return sums


def _summed_apart(column: Sequence[bytes]) -> _Tokens:
    alike: dict[bytes, list[bytes]] = {}
    for figures in column:
        alike.setdefault(figures.translate(None, _DIGITS), []).append(figures)
    given, cached, generated, reasoning = map(sum, zip(*summed([*alike.values()]), strict=True))
    return given, cached, generated, reasoning


@functools.cache
def _order(around: bytes) -> list[int | None]:
    """Where each of the figures that are summed stands among all; None where it is not told."""
    names = [b"input_tokens", *_FIGURE.findall(around)]
    return [names.index(name) if name in names else None for name in _SUMMED]


def numbers(column: Sequence[bytes]) -> list[int | None]:
    """Numbers as lines say them, `null` as None; raises `ValueError` where JSON has no such number."""
    # Parsed together they take half the time that `int` takes for each.
    told: list[int | None] = orjson.loads(b"[%b]" % b",".join(column))
    return told
