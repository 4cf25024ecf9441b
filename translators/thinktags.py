"""A chain of thought left inside the content as `<think>…</think>`, split off again wherever the deltas are cut.

Hosts that serve a thinking model without a reasoning parser send it so; which ones is a fact of the dialect.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import Final

OPEN: Final = "<think>"
CLOSE: Final = "</think>"


class Side(Enum):
    """Where in the content the reader is."""

    BEFORE = auto()
    CHAIN = auto()
    GAP = auto()
    ANSWER = auto()


class Splitter:
    """Turns content into pairs of (chain, answer); either may be empty.

    opened: whether the content began with a chain
    """

    __slots__ = ("_held", "_side", "opened")

    def __init__(self) -> None:
        self._side = Side.BEFORE
        self._held = ""
        self.opened = False

    def feed(self, text: str) -> tuple[str, str]:
        """What of the content so far is certainly chain, and what certainly answer."""
        chain = ""
        text = self._held + text
        self._held = ""
        if self._side is Side.BEFORE:
            start = text.lstrip()
            if OPEN.startswith(start):
                self._held = text
                return "", ""
            self.opened = start.startswith(OPEN)
            self._side = Side.CHAIN if self.opened else Side.ANSWER
            text = start[len(OPEN) :] if self.opened else text
        if self._side is Side.CHAIN:
            chain, tag, text = text.partition(CLOSE)
            if not tag:
                held = _overlap(chain)
                self._held = chain[len(chain) - held :]
                return chain[: len(chain) - held], ""
            self._side = Side.GAP
        if self._side is Side.GAP:
            # The blank lines between the tag and the answer belong to the template, not to the answer.
            text = text.lstrip("\n")
            if text:
                self._side = Side.ANSWER
        return chain, text

    def eof(self) -> tuple[str, str]:
        """What was held for a tag that never came whole."""
        held, self._held = self._held, ""
        return (held, "") if self._side is Side.CHAIN else ("", held)


def _overlap(text: str) -> int:
    """How many last characters of `text` may be the beginning of the closing tag."""
    return next((size for size in range(min(len(CLOSE) - 1, len(text)), 0, -1) if text.endswith(CLOSE[:size])), 0)
