"""The calls of journals, as far as their lines have been seen: which have begun, ended, and are still open.

A call's name is its process and a running number, so a byte tells what has been seen of it.
"""

from __future__ import annotations

import itertools
import re
from bisect import bisect_right
from collections.abc import Callable, Collection, Sequence
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

# Where a call's opening line stands: file and number; and the line, or what of it follows the call's name.
Opening = tuple[Path, int, bytes]


class Numbers(NamedTuple):
    """Names that follow each other.

    name: all but their last three digits
    """

    name: bytes
    begin: int
    end: int

    def text(self) -> bytes:
        """All of them, one behind the other: a name has one dash, which tells where each begins."""
        return self.name + self.name.join(ROW[self.begin : self.end])

    def is_free(self, page: bytearray) -> bool:
        """Whether no line of them was seen before, if that is their page."""
        return page.count(NOTHING, self.begin, self.end) == self.end - self.begin


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

    def note(self, begun: Sequence[bytes], opening: Callable[[int], Opening], ended: Sequence[bytes]) -> bool:
        """Many lines at once; False, and nothing is noted, where a call has two of a kind, or a name of another form.

        begun:   calls that are opened
        opening: the line of one of them, by its place among them; asked for those that stay open
        ended:   calls that end, opened here or elsewhere
        """
        left = dict.fromkeys(begun)
        if len(left) < len(begun):
            return False
        # Those that have not begun here.
        earlier = [*itertools.compress(ended, map(left.pop, ended, itertools.repeat(True)))]
        known = self.open.keys() & earlier
        alone = {*earlier} - known
        if len(known) + len(alone) < len(earlier) or (alone and not (alone.isdisjoint(begun) and self._are_new(alone))):
            return False
        if (rows := self._in_order(begun)) is not None:
            self._begin(rows)
        elif self._are_new(begun, left):
            for call in begun:
                if self._seen(call) == ENDED_ALONE:
                    del left[call]
                self._note(call, BEGUN)
        else:
            return False
        for call in alone:
            self._note(call, ENDED_ALONE)
        for call in known:
            del self.open[call]
        stay_open = itertools.compress(itertools.count(), map(left.__contains__, begun))
        self.open.update((begun[at], opening(at)) for at in stay_open)
        return True

    def _are_new(self, calls: Collection[bytes], left: Collection[bytes] = ()) -> bool:
        """Whether no line of them was seen before, but for the last one of those that have none now."""
        for call in calls:
            seen = self._seen(call)
            if seen == BEGUN or (seen == ENDED_ALONE and call not in left) or b"\\" in call or not call.isascii():
                return False
        return True

    def _in_order(self, begun: Sequence[bytes]) -> list[Numbers] | None:
        """Where names without a gap are noted; None where there is one, or one of them had a line before."""
        rows: list[Numbers] = []
        ordered, begin = sorted(begun), 0
        while begin < len(ordered):
            name = ordered[begin][:-3]
            end = bisect_right(ordered, name + LAST, begin)
            page, place = self._page(ordered[begin]), PLACES.get(ordered[begin][-3:], PAGE)
            row = Numbers(name, place, place + end - begin)
            if page is None or not row.is_free(page) or b"".join(ordered[begin:end]) != row.text():
                return None
            rows.append(row)
            begin = end
        return rows

    def _begin(self, rows: list[Numbers]) -> None:
        for row in rows:
            self._pages[row.name][row.begin : row.end] = bytes([BEGUN]) * (row.end - row.begin)

    def ended_alone(self) -> int:
        """How many calls have an end and no beginning."""
        others = sum(seen == ENDED_ALONE for seen in self._others.values())
        return others + sum(page.count(ENDED_ALONE) for page in self._pages.values())

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
