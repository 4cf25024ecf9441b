"""A chain of thought left inside the content as `<think>…</think>`, split off again wherever the deltas are cut.

Hosts that serve a thinking model without a reasoning parser send it so, often without its opening tag, with which the
prompt ends; where to look for it is a fact of the model's row or a setting (spec OUT-10).
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


# Names of the module: asked of its class, a member takes as long as two calls (Python 3.11).
BEFORE, CHAIN, GAP, ANSWER = Side


class Splitter:
    """Turns content into pairs of (chain, answer); either may be empty.

    inside: whether content begins inside the chain, so that only its end is looked for; an opening tag is dropped
    opened: whether the content began with a chain
    begun:  whether there was anything but blanks
    gap:    how many line ends there are between the chain and the answer, which are in neither
    """

    __slots__ = ("_held", "_inside", "_side", "_start", "begun", "gap", "opened")

    def __init__(self, *, inside: bool = False) -> None:
        self._inside = inside
        self._side = BEFORE
        self._held: list[str] = []
        self._start = ""
        self.begun = False
        self.gap = 0
        self.opened = False

    def feed(self, text: str) -> tuple[str, str]:
        """What of the content so far is certainly chain, and what certainly answer."""
        chain = ""
        if self._side is BEFORE:
            self._held.append(text)
            self._start += text if self._start else text.lstrip()
            self.begun = bool(self._start)
            if OPEN.startswith(self._start):
                return "", ""
            tagged = self._start.startswith(OPEN)
            self.opened = tagged or self._inside
            self._side = CHAIN if self.opened else ANSWER
            self._held = [self._start[len(OPEN) :] if tagged else "".join(self._held)]
            self._start = text = ""
        if self._held:
            text = "".join(self._held) + text
            self._held = []
        if self._side is CHAIN:
            chain, tag, text = text.partition(CLOSE)
            if not tag:
                held = _overlap(chain)
                self._held = [chain[len(chain) - held :]]
                return chain[: len(chain) - held], ""
            self._side = GAP
        if self._side is GAP:
            # The blank lines between the tag and the answer belong to the template, not to the answer.
            answer = text.lstrip("\n")
            self.gap += len(text) - len(answer)
            text = answer
            if text:
                self._side = ANSWER
        return chain, text

    def eof(self) -> tuple[str, str]:
        """The text held back for a tag that never came whole."""
        held, self._held = "".join(self._held), []
        in_chain = self._side is CHAIN or (self._side is BEFORE and self._inside)
        return (held, "") if in_chain else ("", held)


def _overlap(text: str) -> int:
    """How many last characters of `text` may be the beginning of the closing tag."""
    return next((size for size in range(min(len(CLOSE) - 1, len(text)), 0, -1) if text.endswith(CLOSE[:size])), 0)
