"""An answer into what comes before its first stop, found across deltas without delaying text that can begin none.

Source: spec PAR-9.
"""

from __future__ import annotations

from collections.abc import Sequence


class Finder:
    """Watches one answer for the first of its stops; holds back only a tail that may still become one.

    hit: whether a stop was met; nothing is handed out after it
    """

    __slots__ = ("_held", "_stops", "hit")

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._held = ""
        self.hit = False

    def feed(self, text: str) -> str:
        """The text that is certainly before any stop."""
        held = self._held + text
        # The stop that is whole first wins, as if the text came letter by letter; of two, the longer.
        found = [(at + len(stop), at) for stop in self._stops if (at := held.find(stop)) >= 0]
        if found:
            self.hit = True
            self._held = ""
            return held[: min(found)[1]]
        safe = min(_first_start(held, stop) for stop in self._stops)
        self._held = held[safe:]
        return held[:safe]

    def eof(self) -> str:
        """What was held for a stop that never came whole."""
        held, self._held = self._held, ""
        return held


def _first_start(text: str, stop: str) -> int:
    """Where the earliest tail of `text` that begins `stop` starts; its length where there is none."""
    at = text.find(stop[0], max(0, len(text) - len(stop) + 1))
    while at >= 0 and not stop.startswith(text[at:]):
        at = text.find(stop[0], at + 1)
    return len(text) if at < 0 else at
