"""Tool calls -> what a DeepSeek model writes for them: special tokens, and the texts between them.

A special token is one token wherever a server puts it; the same letters in anybody's text are plain text
(tokenizer.md 2). So a rendering is a list of pieces, never one string.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
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


Piece = str | Special
Writer = Callable[[Sequence[ToolCall]], list[Piece]]

_SPELLED = {special.value: special for special in Special}
_BOUNDARY = re.compile("(" + "|".join(map(re.escape, _SPELLED)) + ")")


def pieces(fixed: str) -> list[Piece]:
    """Cut a fixed text of a template at the special tokens it spells; for a template's own words only."""
    return [_SPELLED.get(part, part) for part in _BOUNDARY.split(fixed) if part]


def dsml(block: str, gap: str = "", no_arguments: str = "") -> Writer:
    """Write calls as V3.2 and later do, argument by argument (tokenizer.md 4.3; `deepseek-recipe` 0.2.0).

    block:        the name of the element that holds the calls
    gap:          what follows the DSML token in every tag
    no_arguments: what stands where a call has none
    """
    invoke, invoked = pieces(f'<｜DSML｜{gap}invoke name="'), pieces(f"</｜DSML｜{gap}invoke>\n")
    parameter, given = pieces(f'<｜DSML｜{gap}parameter name="'), pieces(f"</｜DSML｜{gap}parameter>\n")

    def write(calls: Sequence[ToolCall]) -> list[Piece]:
        written = dsml_opening(block, gap)
        for call in calls:
            written += [*invoke, call.name, '">\n']
            arguments = list(_arguments(call.arguments))
            for key, is_text, value in arguments:
                written += [*parameter, f'{key}" string="{is_text}">{value}', *given]
            written += [*([] if arguments else [no_arguments]), *invoked]
        return written + pieces(f"</｜DSML｜{gap}{block}>")

    return write


def dsml_opening(block: str, gap: str = "") -> list[Piece]:
    """What opens the calls; a forced `tool_choice` has it at the end of the prompt instead (tokenizer.md 4.1)."""
    return pieces(f"\n\n<｜DSML｜{gap}{block}>\n")


def tokens(before: str, between: str, after: str, *, line: str = "") -> Writer:
    """Write calls as V3, R1 and V3.1 do, by special tokens around JSON (the models' published templates).

    before, between, after: around name and arguments; line: between calls
    """

    def write(calls: Sequence[ToolCall]) -> list[Piece]:
        written: list[Piece] = [Special.CALLS]
        for index, call in enumerate(calls):
            written += [line if index else "", Special.CALL, *pieces(before), call.name]
            written += [*pieces(between), call.arguments, after, Special.CALL_END]
        return [*written, Special.CALLS_END]

    return write


def _arguments(text: str) -> Iterator[tuple[str, str, str]]:
    """Each argument's name, whether it is a string, and its value as written."""
    try:
        arguments = json.loads(text)
        written = {key: _value(value) for key, value in arguments.items()}
    except (ValueError, AttributeError, RecursionError):
        # Not an object: the official renderer keeps the text as one argument of this name.
        written = {"arguments": ("true", text)}
    for key, (is_text, value) in written.items():
        yield key, is_text, value


def _value(value: object) -> tuple[str, str]:
    return ("true", value) if isinstance(value, str) else ("false", json.dumps(value, ensure_ascii=False))
