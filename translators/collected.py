"""Whole choices into the one JSON reply of a call that does not stream, in any tongue's layout (spec OUT-1, OUT-7)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Protocol

import orjson

from translators import choice as answer
from translators import faults
from translators.dialogue import Call, Json, ToolCall, Usage
from translators.tongue import ENTRY_BYTES, Handed
from translators.usage import Said


class Layout(Protocol):
    """What a reply looks like.

    thinks: whether messages carry a chain of thought
    """

    call: Call
    thinks: bool

    def of(self, choice: answer.Choice, content: str, reasoning: str, logprobs: Sequence[Json]) -> Any:
        """One member of `choices`, which has ended."""

    def reply(self, choices: list[Any], used: Usage) -> Any:
        """All of it."""

    def error(self, fault: faults.Fault) -> bytes:
        """What there is in place of it."""


NOTHING_HANDED: Final = Handed(0, None)


class Collected:
    """A writer that keeps the pieces of each choice until the reply is made."""

    repeats = False
    __slots__ = ("_content", "_handed", "_layout", "_logprobs", "_reasoning", "_used", "kept_bytes")

    # A reply is laid out of texts.
    copier = splice = splice_one = None

    def __init__(self, layout: Layout) -> None:
        self.kept_bytes = 0
        self._layout = layout
        self._used: Usage | None = None
        self._handed = NOTHING_HANDED
        self._content: dict[int, list[str]] = {}
        self._reasoning: dict[int, list[str]] = {}
        self._logprobs: dict[int, list[Json]] = {}

    def reasoning(self, choice: answer.Choice, texts: Sequence[str], _: Sequence[Said]) -> None:
        self._layout.thinks = True
        self._reasoning.setdefault(choice.index, []).extend(texts)
        self.kept_bytes += sum(map(len, texts))

    def content(self, choice: answer.Choice, texts: Sequence[str], _: Sequence[Said]) -> None:
        self._content.setdefault(choice.index, []).extend(texts)
        self.kept_bytes += sum(map(len, texts))
        if self._layout.call.logprobs:
            entries = choice.entries_of("".join(texts))
            self._logprobs.setdefault(choice.index, []).extend(entries)
            self.kept_bytes += len(entries) * ENTRY_BYTES

    def fragment(self, choice: answer.Choice, position: int, call: ToolCall, *, first: bool) -> None:
        """Nothing to keep: the choice has its calls."""

    def progress(self, choice: answer.Choice) -> None:
        """A reply says its usage once."""

    def finish(self, choice: answer.Choice) -> None:
        if choice.tail or self._layout.call.logprobs:
            self.content(choice, (choice.tail,), ())

    def take(self) -> bytes:
        """Nothing: a reply comes whole."""
        return b""

    def whole(self, choices: Sequence[answer.Choice], used: Usage) -> bytes:
        """The reply: every choice in order, one usage for all of them."""
        self._used = used
        made = []
        for choice in choices:
            index = choice.index
            content, reasoning = "".join(self._content.get(index, ())), "".join(self._reasoning.get(index, ()))
            made.append(self._layout.of(choice, content, reasoning, self._logprobs.get(index, ())))
        return orjson.dumps(self._layout.reply(made, used))

    def error(self, fault: faults.Fault) -> bytes:
        """What there is in place of the reply."""
        return self._layout.error(fault)

    def hand_over(self) -> None:
        """See `tongue.Writer`."""
        self._handed = tuple.__new__(Handed, (1, self._used))

    def mark(self) -> Usage | None:
        """See `tongue.Writer`."""
        return self._used

    def hand_over_to(self, mark: Usage | None) -> None:
        """See `tongue.Writer`."""
        self._handed = Handed(1, mark)

    def handed(self) -> Handed:
        """See `tongue.Writer`."""
        return self._handed
