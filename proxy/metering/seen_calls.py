"""The calls of journals, as far as their lines have been seen: which have begun, ended, and are still open.

A call's name is its process and a running number, so a byte tells what has been seen of it.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Collection
from pathlib import Path
from typing import Final, NamedTuple

# How a journal names a call.
NAME: Final = re.compile(rb"[0-9a-z]+-[0-9a-f]*[0-9a-f]{3}")
PAGE: Final = 1 << 12
# The last three digits of the names that share a page.
ROW: Final = [b"%03x" % number for number in range(PAGE)]
PLACES: Final = {digits: place for place, digits in enumerate(ROW)}
# Behind every digit.
LAST: Final = b"~"

# What has been seen of a call. One that has begun has ended, too, where it is not among those that are open.
NOTHING: Final = 0
BEGUN: Final = 1
ENDED_ALONE: Final = 2


class Opening(NamedTuple):
    """Where a call's opening line stands.

    text: the line
    """

    path: Path
    line: int
    text: bytes


class SeenCalls:
    """Calls, as far as their lines have been seen.

    open: those that have begun and not ended
    """

    def __init__(self) -> None:
        self.open: dict[bytes, Opening] = {}
        # A byte for each of the names that differ in their last three digits, by what stands before these.
        self._pages: dict[bytes, bytearray] = {}
        # Names of another form, of whoever wrote them.
        self._others: dict[bytes, int] = {}

    def begin(self, call: bytes, opening: Opening) -> bool:
        """A call's opening line; False where there was one before."""
        seen = self._seen(call)
        if seen == BEGUN:
            return False
        self._note(call, BEGUN)
        if seen == NOTHING:
            self.open[call] = opening
        return True

    def end(self, call: bytes) -> bool:
        """The line with which a call ends; False where there was one before."""
        match self._seen(call):
            case 0:
                self._note(call, ENDED_ALONE)
                return True
            case 1:
                return self.open.pop(call, None) is not None
            case _:
                return False

    def begin_new(self, calls: Collection[bytes]) -> bool:
        """Opening lines of different calls; False, and none is noted, where one of them had a line before.

        They are not among those that are open by that. A process opens its calls in the order of their numbers, so of
        each page a row is noted at once: where that is so, it takes a third of the time of `begin`.
        """
        ordered = sorted(calls)
        rows: list[tuple[bytearray, int, int]] = []
        begin = 0
        while begin < len(ordered):
            name = ordered[begin][:-3]
            end = bisect_right(ordered, name + LAST, begin)
            row = ordered[begin:end]
            page, place = self._page(row[0]), PLACES.get(row[0][-3:], PAGE)
            # Digits hold no dash, and a page's name does: the text can be cut in one way.
            if page is None or b"".join(row) != name + name.join(ROW[place : place + len(row)]):
                return self._begin_each(ordered)
            if page.count(NOTHING, place, place + len(row)) < len(row):
                return False
            rows.append((page, place, place + len(row)))
            begin = end
        for page, place, behind in rows:
            page[place:behind] = bytes([BEGUN]) * (behind - place)
        return True

    def ended_alone(self) -> int:
        """How many calls have an end and no beginning."""
        others = sum(seen == ENDED_ALONE for seen in self._others.values())
        return others + sum(page.count(ENDED_ALONE) for page in self._pages.values())

    def _begin_each(self, calls: list[bytes]) -> bool:
        if any(map(self._seen, calls)):
            return False
        for call in calls:
            self._note(call, BEGUN)
        return True

    def _seen(self, call: bytes) -> int:
        page = self._page(call)
        return self._others.get(call, NOTHING) if page is None else page[PLACES[call[-3:]]]

    def _note(self, call: bytes, seen: int) -> None:
        page = self._page(call)
        if page is None:
            self._others[call] = seen
        else:
            page[PLACES[call[-3:]]] = seen

    def _page(self, call: bytes) -> bytearray | None:
        """Where a call is noted; None where its name is not of a journal's form."""
        page = self._pages.get(call[:-3])
        if page is None and NAME.fullmatch(call):
            page = self._pages[call[:-3]] = bytearray(PAGE)
        return page if call[-3:] in PLACES else None
