"""An answer into what comes before its first stop, found across deltas without delaying text that can begin none.

Every character is looked at once, however many stops there are and however nearly they match: the stops are one
automaton (Aho-Corasick), whose state is the longest beginning of a stop that the text ends with, and so what must be
held back. Source: spec PAR-9.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple


class Finder:
    """Watches one answer for the first of its stops; holds back only a tail that may still become one.

    hit: whether a stop was met; nothing is handed out after it
    """

    __slots__ = ("_automaton", "_held", "_state", "hit")

    def __init__(self, stops: Sequence[str]) -> None:
        self._automaton = _automaton(tuple(stops))
        self._state = 0
        self._held = ""
        self.hit = False

    def feed(self, text: str) -> str:
        """The text that is certainly before any stop."""
        beginnings, onward, fallback, depth, whole = self._automaton
        state, at, size = self._state, 0, len(text)
        whole_text = self._held + text
        while at < size:
            if not state:
                found = beginnings.search(text, at)
                if found is None:
                    break
                at = found.start()
            character = text[at]
            while state and character not in onward[state]:
                state = fallback[state]
            state = onward[state].get(character, 0)
            at += 1
            if whole[state]:
                # The stop that is whole first wins, as if the text came letter by letter; of two, the longer.
                self.hit = True
                end = len(self._held) + at
                self._held = ""
                return whole_text[: end - whole[state]]
        self._state = state
        safe = len(whole_text) - depth[state]
        self._held = whole_text[safe:]
        return whole_text[:safe]

    def eof(self) -> str:
        """The text held back for a stop that never came whole."""
        held, self._held = self._held, ""
        return held


class _Automaton(NamedTuple):
    """The stops, character by character; state 0 is none of them begun.

    beginnings: finds the next character that any stop begins with
    onward:     by state, the state after each character that goes on with it
    fallback:   by state, that of the next shorter beginning the text ends with
    depth:      by state, how many characters of a stop have been seen
    whole:      by state, the length of the longest stop that is whole there; 0 where none is
    """

    beginnings: re.Pattern[str]
    onward: list[dict[str, int]]
    fallback: list[int]
    depth: list[int]
    whole: list[int]


@lru_cache(maxsize=1)  # the choices of one call share theirs
def _automaton(stops: tuple[str, ...]) -> _Automaton:
    onward: list[dict[str, int]] = [{}]
    depth, whole = [0], [0]
    # From where nothing has begun there is nothing to fall back to: the first is never read.
    fallback = [0]
    for stop in stops:
        state = 0
        for character in stop:
            if character not in onward[state]:
                onward[state][character] = len(onward)
                onward.append({})
                fallback.append(0)
                depth.append(depth[state] + 1)
                whole.append(0)
            state = onward[state][character]
        whole[state] = len(stop)
    # Shorter beginnings first: what a state falls back to is known before it is asked for.
    waiting = deque(onward[0].values())
    while waiting:
        state = waiting.popleft()
        whole[state] = whole[state] or whole[fallback[state]]
        for character, following in onward[state].items():
            shorter = fallback[state]
            while shorter and character not in onward[shorter]:
                shorter = fallback[shorter]
            fallback[following] = onward[shorter].get(character, 0)
            waiting.append(following)
    beginnings = re.compile("[" + "".join(map(re.escape, onward[0])) + "]")
    return _Automaton(beginnings, onward, fallback, depth, whole)
