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
from typing import Final

_NUMBER: Final = rb"\d{1,15}"


def _used(figure: bytes) -> bytes:
    return (
        rb'\{"input_tokens":' + figure + rb',"output_tokens":' + figure + rb',"total_tokens":\d{1,16}'
        rb'(?:,"output_tokens_details":\{"reasoning_tokens":' + figure + rb'(?:,"text_tokens":\d{1,15})?\})?'
        rb'(?:,"prompt_tokens_details":\{"cached_tokens":' + figure + rb"\})?\}"
    )


_USED: Final = _used(rb"(" + _NUMBER + rb")")
# What upstream said of an attempt, where there are pools; no sum is made of it.
_SAID: Final = rb"(?:null|\d{1,15})"
_TOLD: Final = (
    rb'"used":(?:null|\{"prompt":'
    + _SAID
    + rb',"cached":'
    + _SAID
    + rb',"completion":'
    + _SAID
    + rb',"reasoning":'
    + _SAID
    + rb"\})\}\]"
)
# The groups of a line; all that are not of its kind are empty, of a line of no such form all:
#
# page, digits:     the name of a call that is opened, and its last three digits apart
# opening:          the rest of its line
# page, digits:     the name of a call that has ended
# at:               when it was received
# said:             from the caller's tongue to the code that was sent
# used:             `usage`, whole
# input, output, reasoning, cached: its figures; empty where it does not tell
# made:             `generated`, whole, where it is not what was used
# basis:            whose figure that is
# uncalled:         there where no upstream call is known
# drift:            how far upstream's prompt is from our count; `null` where it has not told
# tries:            its one attempt, but for what upstream said of it, or that there was none
LINE: Final = re.compile(
    rb'\{"ev":"(?:open","call":"([^"]*)([^"]{3})"(,"at":[^{]*\}\n)'
    rb'|close","call":"([^"]*)([^"]{3})","at":"([^"]{24})","request_id":"[^"]*"'
    rb'(,"api":[^{]*"usage":)(' + _USED + rb"),"
    rb'"generated":(?:\8|(' + _used(_NUMBER) + rb")),"
    rb'("basis":"[^"]*"),"calls":\[(?:(\])|\{"prompt":[^}]*\}\]),'
    rb'"drift_tokens":(null|-?\d{1,15}),"packets":[^,]*,"bytes_out":[^,]*,("attempts":\[(?:\]|\{[^{}]*(?:\}\]|(?="used":))))(?:'
    rb"" + _TOLD + rb")?,"
    rb'"t":\{"upstream_sent":[^{]*\}\}\n)|[^\n]*\n'
)
_FIGURES: Final = re.compile(_USED)


def said_of(used: bytes) -> tuple[int, int, int, int]:
    """The figures of a `used` or `made`: input, cached, output, reasoning."""
    match = _FIGURES.fullmatch(used)
    assert match is not None  # noqa: S101 - for the type checker: it was part of a line
    given, generated, reasoning, cached = match.groups(b"0")
    return int(given), int(cached), int(generated), int(reasoning)
