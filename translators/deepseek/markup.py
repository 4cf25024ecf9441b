"""Tool calls -> what a DeepSeek model writes for them: special tokens, and the texts between them.

A special token is one token wherever a server puts it; the same letters in anybody's text are plain text
(SOURCES#special-tokens-in-text). So a rendering is a list of pieces, never one string.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from translators.dialogue import ToolCall


class Special(Enum):
    """A token of the vocabulary that stands for no text; the value is how it is spelled."""

    BOS = "<｜begin▁of▁sentence｜>"
    EOS = "<｜end▁of▁sentence｜>"
    SYSTEM = "<｜System｜>"
    USER = "<｜User｜>"
    ASSISTANT = "<｜Assistant｜>"
    THINK = "<think>"
    THOUGHT = "</think>"
    DSML = "｜DSML｜"
    CALLS = "<｜tool▁calls▁begin｜>"
    CALLS_END = "<｜tool▁calls▁end｜>"
    CALL = "<｜tool▁call▁begin｜>"
    CALL_END = "<｜tool▁call▁end｜>"
    SEPARATOR = "<｜tool▁sep｜>"
    OUTPUTS = "<｜tool▁outputs▁begin｜>"
    OUTPUTS_END = "<｜tool▁outputs▁end｜>"
    OUTPUT = "<｜tool▁output▁begin｜>"
    OUTPUT_END = "<｜tool▁output▁end｜>"


# Names of the module: asked of its class, a member takes as long as two calls (Python 3.11).
BOS, EOS, SYSTEM, USER, THOUGHT = Special.BOS, Special.EOS, Special.SYSTEM, Special.USER, Special.THOUGHT

Piece = str | Special

# The name of the one argument that text which is no JSON object becomes.
NOT_AN_OBJECT = "arguments"

_SPELLED = {special.value: special for special in Special}
_BOUNDARY = re.compile("(" + "|".join(map(re.escape, _SPELLED)) + ")")


def pieces(fixed: str) -> list[Piece]:
    """Cut a fixed text of a template at the special tokens it spells; for a template's own words only."""
    return [_SPELLED.get(part, part) for part in _BOUNDARY.split(fixed) if part]


@dataclass(frozen=True, slots=True)
class Argument:
    """How one argument of a call is written: its name, whether it is a string, its value.

    before: up to its name
    named:  behind its name, as far as a server has seen it when it tells that the name is whole
    valued: and as far as it has seen it when it tells that a value follows
    kind:   the rest before its value, by whether that is a string
    after:  behind its value
    source: a recorded stream that a limit has cut there
    """

    before: tuple[Piece, ...]
    named: str
    valued: str
    kind: Mapping[bool, str]
    after: tuple[Piece, ...]


@dataclass(frozen=True, slots=True)
class Markup:
    """How tool calls are written; in the order of its fields.

    opening:      what opens the calls; where it begins with text, that may share a token with the answer before it
    between:      what stands between two calls
    call:         up to the name of the function
    named:        behind that name
    argument:     one argument; None where all of them stand as JSON text
    no_arguments: what stands where a call has none
    called:       behind the arguments
    close:        what closes the calls
    """

    opening: tuple[Piece, ...]
    call: tuple[Piece, ...]
    named: tuple[Piece, ...]
    called: tuple[Piece, ...]
    close: tuple[Piece, ...]
    between: tuple[Piece, ...] = ()
    argument: Argument | None = None
    no_arguments: tuple[Piece, ...] = ()

    def write(self, calls: Sequence[ToolCall], *, opened: bool = False) -> list[Piece]:
        """Write whole calls; `opened` where the prompt holds the opening already (a forced `tool_choice`)."""
        written: list[Piece] = [] if opened else [*self.opening]
        for index, call in enumerate(calls):
            written += [*(self.between if index else ()), *self.call, call.name, *self.named]
            written += [*self._arguments(call.arguments), *self.called]
        return [*written, *self.close]

    def _arguments(self, text: str) -> list[Piece]:
        if self.argument is None:
            return [text]
        written: list[Piece] = []
        for key, is_text, value in _values(text):
            written += [*self.argument.before, key, self.argument.named, self.argument.valued]
            written += [self.argument.kind[is_text], value, *self.argument.after]
        return written or [*self.no_arguments]


def dsml(block: str, gap: str = "", no_arguments: str = "") -> Markup:
    """Markup of V3.2 and later, argument by argument (SOURCES#recorded-completions; `deepseek-recipe` 0.2.0).

    block:        the name of the element that holds the calls
    gap:          what follows the DSML token in every tag
    no_arguments: what stands where a call has none
    """

    def tag(text: str) -> tuple[Piece, ...]:
        return tuple(pieces(text.replace("｜DSML｜", f"｜DSML｜{gap}")))

    return Markup(
        opening=tag(f"\n\n<｜DSML｜{block}>\n"),
        call=tag('<｜DSML｜invoke name="'),
        named=('">\n',),
        argument=Argument(
            before=tag('<｜DSML｜parameter name="'),
            named='"',
            valued=" string",
            kind={True: '="true">', False: '="false">'},
            after=tag("</｜DSML｜parameter>\n"),
        ),
        no_arguments=(no_arguments,),
        called=tag("</｜DSML｜invoke>\n"),
        close=tag(f"</｜DSML｜{block}>"),
    )


def tokens(before: str, between: str, after: str, *, line: str = "") -> Markup:
    """Markup of V3, R1 and V3.1: special tokens around JSON (the models' published templates).

    before, between, after: around name and arguments; line: between calls
    """
    return Markup(
        opening=(Special.CALLS,),
        between=(line,),
        call=(Special.CALL, *pieces(before)),
        named=tuple(pieces(between)),
        called=(after, Special.CALL_END),
        close=(Special.CALLS_END,),
    )


def _values(text: str) -> list[tuple[str, bool, str]]:
    """Each argument's name, whether it is a string, and its value as written."""
    try:
        arguments = json.loads(text)
        return [(key, *_value(value)) for key, value in arguments.items()]
    except (ValueError, AttributeError, RecursionError):
        # Not an object: the official renderer keeps the text as one argument of this name.
        return [(NOT_AN_OBJECT, True, text)]


def _value(value: object) -> tuple[bool, str]:
    return (True, value) if isinstance(value, str) else (False, json.dumps(value, ensure_ascii=False))
