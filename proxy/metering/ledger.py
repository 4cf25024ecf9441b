"""The lines of usage journals into totals, unknown calls, torn lines and broken rules: what was used, and is it true.

Each file is read once, line by line, rotated and packed ones too, in whatever order they are named: of a call whose
lines are in two files the end may be read first. Source: spec MET-2, MET-6.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

import orjson

from proxy.metering import journal_files, seals
from proxy.metering.invariants import RULES as RULES  # noqa: PLC0414 - who reads the books finds their rules here
from proxy.metering.invariants import Rule
from proxy.metering.journal_files import ARCHIVE_ERRORS, Content, Copy
from proxy.metering.line_form import LINE, said_of
from proxy.metering.periods import MINUTE, Span
from proxy.metering.prices import Prices
from proxy.metering.seals import Found
from proxy.metering.totals import UNKNOWN as UNKNOWN  # noqa: PLC0414 - as above
from proxy.metering.totals import Form, Group, Row, Sums, Totals, figures

Json = dict[str, Any]

NO_FORMS: Final[dict[Form, Row]] = {}
# So many blocks until what their lines say is added up.
FOLD_EVERY: Final = 32
# Every line of ours begins so, and no text inside one can hold it: its quotation marks would be escaped.
BEGINNING: Final = b'{"ev":"'
OPENING: Final = b'{"ev":"open","call":"'
NOT_TOLD: Final = b"null"
# The rule that files are what was sealed, and all there.
SEAL: Final = "seal"
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
class Drift:
    """How far upstream's prompts are from our count of them, of the calls it told of.

    calls:  of which it told
    exact:  those without a difference
    tokens: the differences together, without their signs
    """

    calls: int = 0
    exact: int = 0
    tokens: int = 0

    def add(self, drifts: list[int]) -> None:
        """Add some calls' differences."""
        self.calls += len(drifts)
        self.exact += drifts.count(0)
        self.tokens += sum(map(abs, drifts))


@dataclass(slots=True)
class Ledger:
    """What journals say.

    totals:          sums by group; unknown calls have an outcome of that name
    drift:           how far upstream's prompts are from ours
    unknown:         calls without an end
    begun_elsewhere: calls whose end alone is here: they began in a file that was rotated away
    torn:            lines that were cut off while they were written, which is no broken rule
    violations:      broken rules, and lines that could not be read
    seals:           lines about files that were rotated away
    copies:          files that were not read, for what they hold is in another one
    """

    totals: dict[Group, Totals] = field(default_factory=dict)
    drift: Drift = field(default_factory=Drift)
    unknown: list[Unknown] = field(default_factory=list)
    begun_elsewhere: int = 0
    torn: list[Place] = field(default_factory=list)
    violations: list[Violation] = field(default_factory=list)
    seals: list[Found] = field(default_factory=list)
    copies: list[Copy] = field(default_factory=list)


def read(
    paths: Iterable[Path],
    *,
    rules: Iterable[Rule] = (),
    span: Span | None = None,
    prices: Prices | None = None,
    each: Callable[[Json, Path], None] | None = None,
    advance: Callable[[int], None] = lambda _: None,
) -> Ledger:
    """What these journals say together.

    rules:   what every `close` line is held to
    span:    the calls that are counted, by when they were received; None: all, by days of UTC
    prices:  what groups are told apart by, where it is asked what calls cost
    each:    is shown every `close` line that is counted, and its file
    advance: is told now and then how many more bytes of the files are behind us
    errors:  `OSError` where a file cannot be read
    """
    files, copies = journal_files.distinct(list(paths))
    for copy in copies:
        advance(copy.path.stat().st_size)
    reader = _Reader(tuple(rules), span or Span(), prices, each)
    for path in files:
        with journal_files.opened(path) as (raw, content):
            reader.read(path, raw, content, advance)
    return reader.finished(copies)


def broken_seals(read: Ledger, paths: Iterable[Path]) -> list[Violation]:
    """Which of the files that were read are not what seals in them say of them; raises `OSError`."""
    try:
        breaches = seals.check(read.seals, journal_files.distinct(list(paths))[0])
    except MALFORMED as error:
        return [Violation(Place(read.seals[0].path, read.seals[0].line), SEAL, f"not a seal: {type(error).__name__}")]
    return [Violation(Place(breach.path, breach.line), SEAL, breach.text) for breach in breaches]


class _Calls:
    """Which lines of each call have been seen: a byte a call, for a call's name is its process and a running number.

    pages: a byte for each of the 4096 names that differ in their last three digits, by what stands before these
    """

    OPENED = 1
    CLOSED = 2
    ENDED = OPENED | CLOSED

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
        self, rules: tuple[Rule, ...], span: Span, prices: Prices | None, each: Callable[[Json, Path], None] | None
    ) -> None:
        self._rules = rules
        self._since, self._until = span.since, span.until
        self._each = each
        self._ledger = Ledger()
        self._sums = Sums(span, prices)
        self._calls = _Calls()
        self._open: dict[bytes, tuple[Path, int, bytes]] = {}
        self._repeated: _Repeated | None = None
        self._line = 0
        self._record: Json | None = None

    def read(self, path: Path, raw: Content, content: Content, advance: Callable[[int], None]) -> None:
        behind = 0
        self._line = 0
        # Rules and whoever is shown each line need all that it says.
        take = self._take_lines if self._rules or self._each else self._take_block
        try:
            for number, block in enumerate(journal_files.blocks(content), 1):
                take(path, block)
                if not number % FOLD_EVERY:
                    self._sums.fold()
                advance(raw.tell() - behind)
                behind = raw.tell()
        except ARCHIVE_ERRORS:
            self._violated(path, self._line + 1, "MET-2", "the archive breaks off here")
        advance(raw.tell() - behind)

    def _take_lines(self, path: Path, block: bytes) -> None:
        for line in io.BytesIO(block):
            self._line += 1
            self._take(path, self._line, line)

    def _take_block(self, path: Path, block: bytes) -> None:
        """The lines of a block, by their form: here a report spends its time, and nothing is asked for twice."""
        lines = LINE.findall(block)
        if len(lines) != block.count(b"\n") or not block.endswith(b"\n"):
            self._take_lines(path, block)
            return
        whole: list[bytes] = []
        opens, forms, row_of = self._open, self._sums.forms.get, self._sums.row_of
        page_of, position_of, opened, ended = self._calls.pages.get, _Calls.DIGITS.get, _Calls.OPENED, _Calls.ENDED
        since, until, is_repeating = self._since.encode(), self._until.encode(), self._repeated is not None
        drifts: list[bytes] = []
        for number, (
            page_name, digits, opening, ended_page_name, ended_digits, at, said, used, given, generated, reasoning,
            cached, made, basis, uncalled, drift, tries,
        ) in enumerate(lines, self._line + 1):  # fmt: skip
            if opening:
                page, position = page_of(page_name), position_of(digits)
                if page is None or position is None or page[position]:
                    self._begun(path, number, page_name + digits, opening)
                    is_repeating = self._repeated is not None
                else:
                    page[position] = opened
                    opens[page_name + digits] = path, number, opening
                continue
            page, position = page_of(ended_page_name), position_of(ended_digits)
            form = said, basis, tries
            row = forms(at[:MINUTE], NO_FORMS).get(form) or (row_of(at[:MINUTE], form) if at else None)
            if row is None or page is None or position is None or page[position] != opened or is_repeating:
                whole = whole or io.BytesIO(block).readlines()
                record = self._parsed(path, number, whole[number - self._line - 1])
                if at and record is not None:
                    self._sums.remember(form, record)
                is_repeating = self._repeated is not None
                continue
            page[position] = ended
            del opens[ended_page_name + ended_digits]
            if not since <= at < until:
                continue
            if drift != NOT_TOLD:
                drifts.append(drift)
            if made or uncalled:
                row.add((1, *said_of(used), *said_of(made or used), not uncalled))
            else:
                row.agreed.extend((given, cached, generated, reasoning))
        self._line += len(lines)
        self._ledger.drift.add([*map(int, drifts)])

    def _parsed(self, path: Path, number: int, line: bytes) -> Json | None:
        """Take a line; what it says, if it is an end that can be read."""
        self._record = None
        self._take(path, number, line)
        return self._record

    def finished(self, copies: list[Copy]) -> Ledger:
        ledger = self._ledger
        self._end_repeated()
        ledger.copies = copies
        ledger.begun_elsewhere = self._calls.closed_alone()
        for call, (path, number, line) in self._open.items():
            self._leave_unknown(
                path, number, line if line.startswith(BEGINNING) else b'%b%b"%b' % (OPENING, call, line)
            )
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
            elif record["ev"] == "seal":
                self._ledger.seals.append(Found(path, number, record))
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
        self._record = record
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
            row.add(added)
            if type(drift := record.get("drift_tokens")) is int:
                self._ledger.drift.add([drift])
            if self._each is not None:
                self._each(record, path)
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
