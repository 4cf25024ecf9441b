"""Whole choices into the one JSON reply of a call that does not stream (spec OUT-1, OUT-7)."""

from __future__ import annotations

from collections.abc import Sequence

import orjson

from translators import choice as answer
from translators import faults
from translators.dashscope import packets, shapes
from translators.dashscope.packets import Shape
from translators.dialogue import Json, ToolCall, Usage
from translators.tongue import Handed
from translators.usage import Said


class Collected:
    """A writer that keeps the pieces of each choice until the reply is made."""

    __slots__ = ("_content", "_handed", "_logprobs", "_reasoning", "_shape", "_used")

    def __init__(self, shape: Shape) -> None:
        self._shape = shape
        self._used: Usage | None = None
        self._handed = Handed(0, None)
        self._content: dict[int, list[str]] = {}
        self._reasoning: dict[int, list[str]] = {}
        self._logprobs: dict[int, list[Json]] = {}

    def reasoning(self, choice: answer.Choice, texts: Sequence[str], _: Sequence[Said]) -> None:
        self._shape.thinks = True
        self._reasoning.setdefault(choice.index, []).extend(texts)

    def content(self, choice: answer.Choice, texts: Sequence[str], _: Sequence[Said]) -> None:
        self._content.setdefault(choice.index, []).extend(texts)
        if self._shape.call.logprobs:
            self._logprobs.setdefault(choice.index, []).extend(choice.entries_of("".join(texts)))

    def fragment(self, choice: answer.Choice, position: int, call: ToolCall, *, first: bool) -> None:
        """Nothing to keep: the choice has its calls."""

    def progress(self, choice: answer.Choice) -> None:
        """A reply says its usage once."""

    def finish(self, choice: answer.Choice) -> None:
        self.content(choice, (choice.tail,), ())

    def take(self) -> bytes:
        """Nothing: a reply comes whole."""
        return b""

    def whole(self, choices: Sequence[answer.Choice], used: Usage) -> bytes:
        """The reply: every choice in order, one usage for all of them."""
        shape = self._shape
        self._used = used
        return orjson.dumps(shape.whole([self._choice(choice) for choice in choices], shape.usage(used)))

    def error(self, fault: faults.Fault) -> bytes:
        """What there is in place of the reply."""
        return packets.error(fault, self._shape.request_id)

    def hand_over(self) -> None:
        """See `tongue.Writer`."""
        self._handed = Handed(1, self._used)

    def mark(self) -> Usage | None:
        """See `tongue.Writer`."""
        return self._used

    def hand_over_to(self, mark: Usage | None) -> None:
        """See `tongue.Writer`."""
        self._handed = Handed(1, mark)

    def handed(self) -> Handed:
        """See `tongue.Writer`."""
        return self._handed

    def _choice(self, choice: answer.Choice) -> shapes.Choice:
        calls = [packets.tool_call(position, call) for position, call in enumerate(choice.tool_calls())]
        content = "".join(self._content.get(choice.index, ()))
        reasoning = "".join(self._reasoning.get(choice.index, ()))
        message = self._shape.message(content, reasoning, calls)
        logprobs = self._logprobs.get(choice.index, ())
        return self._shape.choice(choice.index, message, packets.finish_of(choice), logprobs)
