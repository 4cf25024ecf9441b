"""The lines of a journal as `Journal` writes them, in one expression: what sums need of each, without parsing it.

Members stand in one order, without spaces, so a block of lines is read in one pass. What is not worked out for itself
stands in three pieces (`said`, `basis`, `tries`), the same in thousands of lines: the first line with such pieces is
parsed as JSON, the others are known by them. A line that is not quite so is parsed: of several upstream
calls or attempts, of an older version, torn, altered, of somebody else.

What looks like a line of this form is one: the beginning of another line inside it would stand in a piece, which was
never parsed, or where the form has no brace or quotation mark. Only line ends may be swallowed: a block is as many
lines as it has line ends, or it is not of this form.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Final, NamedTuple

import orjson

# Possessive throughout: what cannot be another way is not tried again.
_NUMBER: Final = rb"\d{1,15}+"


def _used(figure: bytes) -> bytes:
    return (
        rb'\{"input_tokens":' + figure + rb',"output_tokens":' + figure + rb',"total_tokens":\d{1,16}+'
        rb'(?:,"output_tokens_details":\{"reasoning_tokens":' + figure + rb'(?:,"text_tokens":\d{1,15}+|)\}|)'
        rb'(?:,"prompt_tokens_details":\{"cached_tokens":' + figure + rb'\}|)(?:,"image_tokens":\d{1,15}+|)\}'
    )


_USED: Final = _used(rb"(" + _NUMBER + rb")")
_TOLD: Final = rb"(?:null|\d{1,15}+)"
# What upstream said of an attempt, where there are pools; no sum is made of it.
_OF_POOL: Final = (
    rb',"used":(?:null|\{"prompt":'
    + _TOLD
    + rb',"cached":'
    + _TOLD
    + rb',"completion":'
    + _TOLD
    + rb',"reasoning":'
    + _TOLD
    + rb"\})"
)


class Columns(NamedTuple):
    """Lines of this form by column; in each line the groups that are not of its kind are empty.

    begun:     the name of a call that is opened
    opening:   the rest of its line
    ended:     the name of a call that has ended; empty where it was turned away, for then it has none
    minute:    in which it was received
    said:      from the caller's tongue to the code that was sent
    usage:     `usage`, whole
    given, generated, reasoning, cached: its figures; empty where it does not tell
    made:      `generated`, whole, where it is not what was used
    basis:     whose figure that is
    uncalled:  there where no upstream call is known
    drift:     how far upstream's prompt is from our count; `null` where it has not told
    tries:     its one attempt, but for what upstream said of it, or that there was none
    """

    begun: tuple[bytes, ...]
    opening: tuple[bytes, ...]
    ended: tuple[bytes, ...]
    minute: tuple[bytes, ...]
    said: tuple[bytes, ...]
    usage: tuple[bytes, ...]
    given: tuple[bytes, ...]
    generated: tuple[bytes, ...]
    reasoning: tuple[bytes, ...]
    cached: tuple[bytes, ...]
    made: tuple[bytes, ...]
    basis: tuple[bytes, ...]
    uncalled: tuple[bytes, ...]
    drift: tuple[bytes, ...]
    tries: tuple[bytes, ...]


Groups = tuple[bytes, ...]
# A line that is none of ours, or must be parsed.
OTHER: Final[Groups] = (b"",) * len(Columns._fields)
BEGUN: Final[Callable[[Groups], bytes]] = itemgetter(Columns._fields.index("begun"))
OPENING: Final[Callable[[Groups], bytes]] = itemgetter(Columns._fields.index("opening"))
# There in each line of a call that has ended, and in no other.
SAID: Final[Callable[[Groups], bytes]] = itemgetter(Columns._fields.index("said"))

LINE: Final = re.compile(
    rb'\{"ev":"open","call":"([^"]++)"(,"at":[^{]*\}\n)'
    rb'|\{"ev":"close","call":(?:"([^"]++)"|null),"at":"([^"]{16})[^"]{8}","request_id":"[^"]*+"'
    rb'(,"api":[^{]*+)(' + _USED + rb"),"
    rb'"generated":(?:\6|(' + _used(_NUMBER) + rb")),"
    rb'("basis":"[^"]*+"),"calls":\[(?:(\])|\{"prompt":[^}]*+\}\]),'
    rb'"drift_tokens":(null|-?\d{1,15}+),"packets":[^,]*+,"bytes_out":[^,]*+,'
    rb'("attempts":\[(?:\{"target":"[^"]*+","result":"[^"]*+","reused":(?:true|false)(?:,"pool":"[^"]*+"|)|))'
    rb"(?:\}\]|\]|" + _OF_POOL + rb"\}\]),"
    rb'"t":\{"upstream_sent":[^{]*\}\}\n'
    rb"|[^\n]*+\n"
)
_FIGURES: Final = re.compile(_USED)


def said_of(used: bytes) -> tuple[int, int, int, int]:
    """The figures of a `used` or `made`: input, cached, output, reasoning."""
    match = _FIGURES.fullmatch(used)
    assert match is not None  # noqa: S101 - for the type checker: it was part of a line
    given, generated, reasoning, cached = match.groups(b"0")
    return int(given), int(cached), int(generated), int(reasoning)


def numbers(column: Sequence[bytes]) -> list[int | None]:
    """Numbers as lines say them, nothing as 0, `null` as None; raises `ValueError` where JSON has no such number."""
    # Parsed together they take half the time that `int` takes for each.
    column = [said or b"0" for said in column] if b"" in column else column
    told: list[int | None] = orjson.loads(b"[%b]" % b",".join(column))
    return told
