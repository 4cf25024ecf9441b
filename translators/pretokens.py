"""Text to pre-tokens: the exact DeepSeek pre-tokenizer as one table, and the borders that no later text can move.

No token reaches over the border of two pre-tokens. `PATTERN` is compiled by the vocabulary's own engine alone, so that
one Unicode version counts; `cut` finds the last border that is sure in a text that still grows.

Source: SOURCES#pre-tokenizer, #safe-cuts.
"""

from __future__ import annotations

import functools
import re

# The published pre-tokenizer splits three times, each time only what is left: numbers, then CJK, then the rest.
# Folded into one pattern, numbers and CJK are therefore like the end of the text to the look-aheads below.
_CJK = r"\u4e00-\u9fa5\u3040-\u30ff"
# The third split still divides a CJK run: four of its characters are no letters, three are unassigned, two are marks.
_CJK_LETTER = r"\u4e00-\u9fa5\u3041-\u3096\u3099\u309a\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff"
_LETTER = rf"\p{{L}}\p{{M}}--[{_CJK}]"
_ASCII_PUNCTUATION = r"!-/:-@\[-`{-~"

# In order: the first alternative that matches wins.
_ALTERNATIVES = {
    "number": r"\p{N}{1,3}",
    "CJK": rf"[\u3040\u3097-\u309a]?[{_CJK_LETTER}]+",
    "kana punctuation": r"[\u309b\u309c\u30a0\u30fb]+",
    "punctuation and a word": rf"[{_ASCII_PUNCTUATION}][A-Za-z]+",
    "word": rf"[^\r\n\p{{L}}\p{{P}}\p{{S}}\p{{N}}{_CJK}]?[{_LETTER}]+",
    "punctuation": rf"\x20?[\p{{P}}\p{{S}}--[{_CJK}]]+[\r\n]*",
    "lines": r"\s*[\r\n]+",
}
_ALTERNATIVES_THAT_LOOK_AHEAD = {
    "blanks": rf"\s+(?![^\s\p{{N}}{_CJK}])",
    "last blanks": r"\s+",
    "unassigned kana": rf"[\u3040\u3097\u3098]+(?![{_CJK_LETTER}])",
    "control, format, private, unassigned": rf"[^\s\p{{L}}\p{{M}}\p{{N}}\p{{P}}\p{{S}}{_CJK}]+(?![{_LETTER}])",
}
# One group around what never looks ahead: the engine then runs it without backtracking, twice as fast.
PATTERN = "|".join((f"(?:{'|'.join(_ALTERNATIVES.values())})", *_ALTERNATIVES_THAT_LOOK_AHEAD.values()))

FIRST = rf"\A(?:{PATTERN})"
# Those at the start of a text that end before its last character: of a text that may go on, all that have ended. The
# atomic group keeps each as it is where the next one has not. The last does not end between a blank and what is none:
# a blank before a control character stands alone, and would join the blanks before it if nothing came behind it.
SETTLED = rf"\A(?:(?>{PATTERN})(?=(?s:..)))+(?:(?<=[\S\r\n])|(?=\s))"

# Between a character of the left class and one of the right there is a border, whatever stands around the two.
# The rows know only ASCII, CJK and white space: no Unicode version can make them disagree with the engine.
_CUTS = (
    (r"\S", r" \t"),
    (rf"A-Za-z0-9{_CJK}", r"\r\n"),
    (r"\r\n", r"\S"),
    (_CJK, rf"^{_CJK}"),
    (rf"^{_CJK}", _CJK),
    (r"\x00-/:-\x7f", r"0-9"),
    (r"0-9", rf"A-Za-z{_ASCII_PUNCTUATION}"),
    (r"A-Za-z", rf"\x00-\x08\x0e-\x1f\x7f{_ASCII_PUNCTUATION}"),
)
_LEFT = [re.compile(f"[{left}]") for left, _ in _CUTS]
_RIGHT = [re.compile(f"[{right}]") for _, right in _CUTS]
_LAST_CUT = re.compile(f"(?s:.*)(?:{'|'.join(f'[{left}](?=[{right}])' for left, right in _CUTS)})")


def cut(text: str, seen: int) -> int:
    """Where the last sure border of `text` is, in characters; 0 if there is none.

    seen: so many characters at the start are known to hold none
    """
    found = _LAST_CUT.match(text, max(seen - 1, 0))
    return found.end() if found else 0


@functools.lru_cache(maxsize=4_096)
def left_of(character: str) -> int:
    """The rows of the table in which a character may stand on the left, as bits; of no character none.

    The border of two neighbours is a sure one if they have a row in common: `left_of(one) & right_of(other)`.
    """
    return sum(1 << row for row, known in enumerate(_LEFT) if known.match(character))


@functools.lru_cache(maxsize=4_096)
def right_of(character: str) -> int:
    """Those in which it may stand on the right."""
    return sum(1 << row for row, known in enumerate(_RIGHT) if known.match(character))
