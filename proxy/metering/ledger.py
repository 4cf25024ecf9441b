"""The lines of usage journals into totals, unknown calls, torn lines and broken rules: what was used, and is it true.

Each file is read once, line by line, rotated and packed ones too, in whatever order they are named: of a call whose
lines are in two files the end may be read first. Source: spec MET-2, MET-6.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from operator import add
from pathlib import Path
from typing import IO, Any, Final, NamedTuple

import orjson

from proxy.metering import journal_files
from proxy.metering.invariants import RULES as RULES  # noqa: PLC0414 - who reads the books finds their rules here
from proxy.metering.invariants import Rule
from proxy.metering.journal_files import ARCHIVE_ERRORS, Copy
from proxy.metering.periods import Span
from proxy.metering.prices import Prices
from proxy.metering.totals import UNKNOWN as UNKNOWN  # noqa: PLC0414 - as above
from proxy.metering.totals import Group, Sums, Totals, figures

Json = dict[str, Any]

# Every line of ours begins so, and no text inside one can hold it: its quotation marks would be escaped.
BEGINNING: Final = b'{"ev":"'
OPENING: Final = b'{"ev":"open","call":"'
# So many lines between two words about the progress.
ADVANCE_EVERY: Final = 20_000
# What reading a line that is no record can raise.
MALFORMED: Final = (KeyError, TypeError, AttributeError, IndexError, ValueError)


class Place(NamedTuple):
    """Where a line stands."""

    path: Path
    line: int

    def __str__(self) -> str:
        return f"{self.path}:{self.line}"


@dataclass(frozen=True, slots=True)
class Violation:
    """A rule that a line breaks.

    rule: its name in the specification, or I and a number: an invariant of the journal's lines
    text: how
    """

    place: Place
    rule: str
    text: str

    def __str__(self) -> str:
        return f"{self.place}: {self.rule}: {self.text}"


@dataclass(frozen=True, slots=True)
class Unknown:
    """A call that was opened and not closed: cut off by a crash, still open, or closed in a file that is not here."""

    place: Place
    opening: Json


@dataclass(slots=True)
class Ledger:
    """What journals say.

    totals:          sums by group; unknown calls have an outcome of that name
    unknown:         calls without an end
    begun_elsewhere: calls whose end alone is here: they began in a file that was rotated away
    torn:            lines that were cut off while they were written, which is no broken rule
    violations:      broken rules, and lines that could not be read
    copies:          files that were not read, for what they hold is in another one
    """

    totals: dict[Group, Totals] = field(default_factory=dict)
    unknown: list[Unknown] = field(default_factory=list)
    begun_elsewhere: int = 0
    torn: list[Place] = field(default_factory=list)
    violations: list[Violation] = field(default_factory=list)
    copies: list[Copy] = field(default_factory=list)


def read(
    paths: Iterable[Path],
    *,
    rules: Iterable[Rule] = (),
    span: Span | None = None,
    prices: Prices | None = None,
    each: Callable[[Json], None] | None = None,
    advance: Callable[[int], None] = lambda _: None,
) -> Ledger:
    """What these journals say together.

    rules:   what every `close` line is held to
    span:    the calls that are counted, by when they were received; None: all, by days of UTC
    prices:  what groups are told apart by, where it is asked what calls cost
    each:    is shown every `close` line that is counted
    advance: is told now and then how many more bytes of the files are behind us
    errors:  `OSError` where a file cannot be read
    """
    files, copies = journal_files.distinct(list(paths))
    for copy in copies:
        advance(copy.path.stat().st_size)
    reader = _Reader(tuple(rules), span or Span(), prices, each)
    for path in files:
        with journal_files.opened(path) as (raw, lines):
            reader.read(path, raw, lines, advance)
    return reader.finished(copies)


class _Calls:
    """Which lines of each call have been seen: a byte a call, for a call's name is its process and a running number.

    pages: a byte for each of the 4096 names that differ in their last three digits, by what stands before these
    """

    OPENED = 1
    CLOSED = 2

    DIGITS: Final = {b"%03x" % number: number for number in range(4096)}

    def __init__(self) -> None:
        self.pages: dict[bytes, bytearray] = {}
        self._others: dict[bytes, int] = {}

    def note(self, call: bytes, line: int) -> int:
        """Which lines had been seen before this one."""
        position = self.DIGITS.get(call[-3:])
        if position is None:
            seen = self._others.get(call, 0)
            self._others[call] = seen | line
            return seen
        page = self.pages.get(call[:-3])
        if page is None:
            page = self.pages[call[:-3]] = bytearray(4096)
        seen = page[position]
        page[position] = seen | line
        return seen

    def closed_alone(self) -> int:
        """How many calls have an end and no beginning."""
        others = sum(seen == self.CLOSED for seen in self._others.values())
        return others + sum(page.count(self.CLOSED) for page in self.pages.values())


@dataclass(slots=True)
class _Repeated:
    """A run of lines that were all read before: a copied piece is reported once, not line by line."""

    path: Path
    line: int
    last: int
    call: str
    lines: int = 1

    def violation(self) -> Violation:
        if self.lines == 1:
            text = f"the call {self.call} is there twice, and counted once"
        else:
            text = f"{self.lines} lines to {self.last} are of calls that are there twice, and counted once"
        return Violation(Place(self.path, self.line), "I1", text)


class _Reader:
    """Journals, as far as they are read."""

    def __init__(
        self, rules: tuple[Rule, ...], span: Span, prices: Prices | None, each: Callable[[Json], None] | None
    ) -> None:
        self._rules = rules
        self._since, self._until = span.since, span.until
        self._each = each
        self._ledger = Ledger()
        self._sums = Sums(span, prices)
        self._calls = _Calls()
        self._open: dict[bytes, tuple[Path, int, bytes]] = {}
        self._repeated: _Repeated | None = None

    def read(self, path: Path, raw: IO[bytes], lines: Iterable[bytes], advance: Callable[[int], None]) -> None:
        number, behind = 0, 0
        # Half of all lines are of this kind, and say nothing that counts unless their call has no end.
        begin, opens, are_plain = len(OPENING), self._open, not self._rules
        page_of, position_of = self._calls.pages.get, _Calls.DIGITS.get
        try:
            for number, line in enumerate(lines, 1):
                if are_plain and line.startswith(OPENING) and line.endswith(b"}\n"):
                    call = line[begin : line.find(b'"', begin)]
                    page, position = page_of(call[:-3]), position_of(call[-3:])
                    if page is None or position is None or page[position]:
                        self._begun(path, number, call, line)
                    else:
                        page[position] = _Calls.OPENED
                        opens[call] = path, number, line
                else:
                    self._take(path, number, line)
                if not number % ADVANCE_EVERY:
                    advance(raw.tell() - behind)
                    behind = raw.tell()
        except ARCHIVE_ERRORS:
            self._violated(path, number + 1, "MET-2", "the archive breaks off here")
        advance(raw.tell() - behind)

    def finished(self, copies: list[Copy]) -> Ledger:
        ledger = self._ledger
        self._end_repeated()
        ledger.copies = copies
        ledger.begun_elsewhere = self._calls.closed_alone()
        for path, number, line in self._open.values():
            self._leave_unknown(path, number, line)
        ledger.unknown.sort(key=lambda unknown: (unknown.opening["at"], str(unknown.opening["call"])))
        ledger.totals = self._sums.totals()
        return ledger

    def _leave_unknown(self, path: Path, number: int, line: bytes) -> None:
        try:
            opening = orjson.loads(line)
            if self._since <= opening["at"] < self._until:
                self._sums.count_unknown(opening)
                self._ledger.unknown.append(Unknown(Place(path, number), opening))
        except MALFORMED as error:
            self._violated(path, number, "MET-3", f"not a record: {type(error).__name__}")

    def _take(self, path: Path, number: int, line: bytes) -> None:
        if not line.endswith(b"}\n"):
            if line != b"\n":
                self._mend(path, number, line)
            return
        try:
            try:
                record = orjson.loads(line)
            except orjson.JSONDecodeError:
                self._mend(path, number, line)
                return
            if record["ev"] == "close":
                self._ended(path, number, record)
            elif record["ev"] == "open":
                self._sums.group(record)
                self._begun(path, number, record["call"].encode(), line)
            else:
                raise KeyError
        except MALFORMED as error:
            self._violated(path, number, "MET-3", f"not a record: {type(error).__name__}")

    def _mend(self, path: Path, number: int, line: bytes) -> None:
        """A torn line, onto which a whole one may have been written by a process that did not know."""
        whole = line.rfind(BEGINNING)
        torn = line[:whole] if whole > 0 else line.removesuffix(b"\n")
        if torn.startswith(BEGINNING[: len(torn)]):
            self._ledger.torn.append(Place(path, number))
        else:
            self._violated(path, number, "MET-2", "not a line of a journal")
        if whole > 0:
            self._take(path, number, line[whole:])

    def _begun(self, path: Path, number: int, call: bytes, line: bytes) -> None:
        seen = self._calls.note(call, _Calls.OPENED)
        if not seen:
            self._open[call] = path, number, line
        elif seen & _Calls.OPENED:
            self._repeat(path, number, call)

    def _ended(self, path: Path, number: int, record: Json) -> None:
        # What cannot be read adds nothing, and does not end its call: all of it is read before any of it counts.
        added = figures(record)
        row = self._sums.row(record)
        if (name := record["call"]) is not None:
            call = name.encode()
            seen = self._calls.note(call, _Calls.CLOSED)
            if seen & _Calls.CLOSED:
                self._repeat(path, number, call)
                return
            if seen:
                del self._open[call]
            if self._repeated is not None:
                self._end_repeated()
        if self._since <= record["at"] < self._until:
            row[:] = map(add, row, added)
            if self._each is not None:
                self._each(record)
        for rule in self._rules:
            if breach := rule.breach(record):
                self._violated(path, number, rule.name, breach)

    def _repeat(self, path: Path, number: int, call: bytes) -> None:
        if self._repeated is not None and self._repeated.path == path:
            self._repeated.last = number
            self._repeated.lines += 1
            return
        self._end_repeated()
        self._repeated = _Repeated(path, number, number, call.decode())

    def _end_repeated(self) -> None:
        if self._repeated is not None:
            self._ledger.violations.append(self._repeated.violation())
            self._repeated = None

    def _violated(self, path: Path, number: int, rule: str, text: str) -> None:
        self._ledger.violations.append(Violation(Place(path, number), rule, text))
