"""The lines of usage journals into totals, unknown calls, torn lines and broken rules: what was used, and is it true.

Each file is read once, line by line, rotated and packed ones too, in whatever order they are named: of a call whose
lines are in two files the end may be read first. Source: spec MET-2, MET-6.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

import orjson

from proxy.metering import journal_files, seals
from proxy.metering.invariants import RULES as RULES  # noqa: PLC0414 - who reads the books finds their rules here
from proxy.metering.invariants import Rule
from proxy.metering.journal_files import ARCHIVE_ERRORS, Content, Copy, Piece
from proxy.metering.line_form import BEGUN, LINE, OPENING, SAID, Columns, Form, Groups, is_other, numbers
from proxy.metering.periods import MINUTE, Span
from proxy.metering.prices import Prices
from proxy.metering.seals import Found
from proxy.metering.seen_calls import SeenCalls
from proxy.metering.totals import UNKNOWN as UNKNOWN  # noqa: PLC0414 - as above
from proxy.metering.totals import Aside, FigureError, Group, Sums, Totals, figures

Json = dict[str, Any]

T = TypeVar("T")

NO_COLUMNS: Final = Columns(*((),) * len(Columns._fields))
# So many pieces of a file are taken together: of 512 KiB one call in sixteen is still open at the end, and is to be
# kept, of 64 KiB more than half.
TOGETHER: Final = 8
# So many pieces until what their lines say is added up: 32 MiB, of which 4 MiB are kept until then.
FOLD_EVERY: Final = 512
NEWLINE: Final = ord("\n")
# Every line of ours begins so, and no text inside one can hold it: its quotation marks would be escaped.
BEGINNING: Final = b'{"ev":"'
OPENS: Final = b'{"ev":"open","call":"'
# So many places are named: a file of something else breaks a rule in each of its lines.
NAMED: Final = 10_000
# The rule that files are what was sealed, and all there.
SEAL: Final = "seal"
# A reason may say a value of the line, which can be of any length.
REASON_LENGTH: Final = 80
# What reading a line that is no record can raise; `OverflowError` for a moment that is in no calendar.
MALFORMED: Final = (KeyError, TypeError, AttributeError, IndexError, ValueError, OverflowError)


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
    """A call that was opened and not closed: cut off by a crash, still open, or closed in a file that is not here.

    line: its only one, which takes a sixth of the room of what it says
    """

    place: Place
    line: bytes

    @property
    def opening(self) -> Json:
        """What the line says."""
        said: Json = orjson.loads(self.line)
        return said


class Named(list[T]):
    """The first `NAMED` of what was found.

    total: how many there are
    """

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def append(self, found: T) -> None:
        """Count one more, and keep it where it is among the first."""
        self.total += 1
        if self.total <= NAMED:
            super().append(found)


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
    torn:            lines that were cut off while they were written, which is no broken rule, as far as they are named
    violations:      broken rules, and lines that could not be read, as far as they are named
    seals:           lines about files that were rotated away
    copies:          files that were not read, for what they hold is in another one
    files:           those that were read, the one that begins earliest first
    """

    totals: Mapping[Group, Totals] = field(default_factory=dict)
    drift: Drift = field(default_factory=Drift)
    unknown: list[Unknown] = field(default_factory=list)
    begun_elsewhere: int = 0
    torn: Named[Place] = field(default_factory=Named)
    violations: Named[Violation] = field(default_factory=Named)
    seals: list[Found] = field(default_factory=list)
    copies: list[Copy] = field(default_factory=list)
    files: list[Path] = field(default_factory=list, compare=False)


def _moment_of(unknown: Unknown) -> tuple[str, str]:
    opening = unknown.opening
    return opening["at"], str(opening["call"])


def read(
    paths: Iterable[Path],
    *,
    rules: Iterable[Rule] = (),
    span: Span | None = None,
    prices: Prices | None = None,
    by: Collection[str] | None = None,
    each: Callable[[Json, Path], None] | None = None,
    advance: Callable[[int], None] = lambda _: None,
) -> Ledger:
    """What these journals say together.

    rules:   what every `close` line is held to
    span:    the calls that are counted, by when they were received; None: all, by days of UTC
    prices:  what groups are told apart by, where it is asked what calls cost
    by:      the fields of groups that are asked for, the others are empty; None: all
    each:    is shown every `close` line that is counted, and its file
    advance: is told now and then how many more bytes of the files are behind us
    errors:  `OSError` where a file cannot be read
    """
    files, copies = journal_files.distinct(list(paths))
    for copy in copies:
        advance(copy.path.stat().st_size)
    asked = (tuple(rules), span or Span(), prices, by, each)
    progress = _Progress(advance)
    # Rules and whoever is shown each line need all that it says.
    if not (rules or each):
        with suppress(FigureError):
            return _read(files, copies, _Reader(*asked), progress)
    return _read(files, copies, _Reader(*asked, parses=True), progress.again())


def _read(files: list[Path], copies: list[Copy], reader: _Reader, advance: Callable[[int], None]) -> Ledger:
    for path in files:
        with journal_files.opened(path) as (raw, content):
            reader.read(path, raw, content, advance)
    return reader.finished(files, copies)


class _Progress:
    """How far files are read, told once for each byte where they are read twice."""

    def __init__(self, advance: Callable[[int], None]) -> None:
        self._advance = advance
        self._behind = self._told = 0

    def __call__(self, more: int) -> None:
        self._behind += more
        if self._behind > self._told:
            self._advance(self._behind - self._told)
            self._told = self._behind

    def again(self) -> _Progress:
        """The same, from the first file on."""
        self._behind = 0
        return self


def broken_seals(read: Ledger) -> list[Violation]:
    """Which of the files that were read are not what seals in them say of them; raises `OSError`."""
    try:
        breaches = seals.check(read.seals, read.files)
    except MALFORMED as error:
        return [Violation(Place(read.seals[0].path, read.seals[0].line), SEAL, f"not a seal: {reason(error)}")]
    return [Violation(Place(breach.path, breach.line), SEAL, breach.text) for breach in breaches]


def earlier_files(read: Ledger) -> list[str]:
    """Which files before all that were read are sealed in these, a sentence each; raises `OSError`.

    No rule is broken: the oldest are taken away some day. A seal that is none is told by `broken_seals`.
    """
    with suppress(*MALFORMED):
        return seals.earlier(read.seals, read.files)
    return []


def reason(error: Exception) -> str:
    """Why a line is no record, of what is `MALFORMED`: what it lacks, or what cannot be."""
    match error:
        case orjson.JSONDecodeError():
            return "no JSON"
        case KeyError(args=(str(name),)):
            return f"{name} is missing"
        case ValueError():
            return str(error)[:REASON_LENGTH]
        case _:
            return "a member is of another type"


class _Block:
    """Lines, what each looks like, and, only where it is asked for, each by itself.

    pieces: of whole lines, but for the last one of a file
    """

    def __init__(self, pieces: Iterable[Piece]) -> None:
        self._pieces = [*pieces]
        self.lines: list[Groups] = []
        # A last line without an end would be tried from each of its bytes on.
        self.is_of_lines = all(text[end - 1] == NEWLINE for text, end in self._pieces)
        ends = 0
        for text, end in self._pieces if self.is_of_lines else ():
            self.lines += LINE.findall(text, 0, end)
            # `count` would look at each byte, and take four times as long.
            ends += len(text) - len(text.replace(b"\n", b""))
        self.is_of_lines = self.is_of_lines and ends == len(self.lines)

    def others(self) -> list[int]:
        """Which lines have not the form."""
        return [at for at, groups in enumerate(self.lines) if is_other(groups)]

    @cached_property
    def text(self) -> list[bytes]:
        return [*itertools.chain.from_iterable(map(Piece.lines, self._pieces))]


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
    """Journals, as far as they are read.

    parses: whether each line is parsed, whatever it looks like
    """

    def __init__(
        self,
        rules: tuple[Rule, ...],
        span: Span,
        prices: Prices | None,
        by: Collection[str] | None,
        each: Callable[[Json, Path], None] | None,
        *,
        parses: bool = False,
    ) -> None:
        self._rules = rules
        self._parses = parses
        self._since, self._until = span.since, span.until
        self._each = each
        self._ledger = Ledger()
        self._sums = Sums(span, prices, by)
        self._calls = SeenCalls()
        self._repeated: _Repeated | None = None
        self._line = 0
        # Differences that are not added yet, as lines say them.
        self._drifts: list[bytes] = []

    def read(self, path: Path, raw: Content, content: Content, advance: Callable[[int], None]) -> None:
        behind = 0
        self._line = 0
        pieces: list[Piece] = []
        try:
            for number, piece in enumerate(journal_files.blocks(content, TOGETHER), 1):
                pieces.append(piece)
                if not number % TOGETHER:
                    self._take_pieces(path, pieces)
                    advance(raw.tell() - behind)
                    behind = raw.tell()
                if not number % FOLD_EVERY:
                    self._fold()
        except ARCHIVE_ERRORS:
            self._take_pieces(path, pieces)
            self._violated(path, self._line + 1, "MET-2", "the archive breaks off here")
        self._take_pieces(path, pieces)
        advance(raw.tell() - behind)

    def _take_pieces(self, path: Path, pieces: list[Piece]) -> None:
        if self._parses:
            self._take_lines(path, itertools.chain.from_iterable(map(Piece.lines, pieces)))
        else:
            self._take_block(path, _Block(pieces))
        pieces.clear()

    def _take_lines(self, path: Path, lines: Iterable[bytes]) -> None:
        for line in lines:
            self._line += 1
            self._take(path, self._line, line)

    def _take_block(self, path: Path, block: _Block) -> None:
        """Whole lines by their form: those that have it together, the others between them one by one."""
        if not block.is_of_lines:
            self._take_lines(path, block.text)
            return
        if self._take_run(path, block, 0, len(block.lines)):
            return
        others = block.others()
        if not others:
            self._take_lines(path, block.text)
            return
        begin = 0
        for end in others:
            if begin < end and not self._take_run(path, block, begin, end):
                self._take_lines(path, block.text[begin:end])
            self._take_lines(path, block.text[end : end + 1])
            begin = end + 1
        if begin < len(block.lines) and not self._take_run(path, block, begin, len(block.lines)):
            self._take_lines(path, block.text[begin:])

    def _take_run(self, path: Path, block: _Block, begin: int, end: int) -> bool:
        """Take lines that all have the form; False, and nothing is taken, where one must be looked at for itself.

        Where no call has two lines of a kind, among them or before, it does not matter in which order they stand. Here
        a report spends its time: what can be done for all of them at once is, and figures are put aside as they are.
        """
        lines = block.lines[begin:end]
        closings = [*filter(SAID, lines)]
        columns = Columns(*zip(*closings, strict=True)) if closings else NO_COLUMNS
        kinds = [*map(BEGUN, lines)]
        begun = [*filter(None, kinds)]
        openings = [*map(OPENING, itertools.compress(lines, kinds))]
        if len(begun) + len(closings) < len(lines) or b"{" in b"".join(openings):
            return False
        asides = self._asides(columns, block, begin, end)
        begun_at = [*itertools.compress(itertools.count(self._line + 1), kinds)]
        if asides is None or not self._calls.note(
            begun, lambda at: (path, begun_at[at], openings[at]), [*filter(None, columns.ended)]
        ):
            return False
        if any(columns.ended):
            self._end_repeated()
        for aside, used, made in zip(asides, columns.figures, columns.made, strict=True):
            if made:
                aside.used.append(used)
                aside.made.append(made)
            else:
                aside.agreed.append(used)
        if self._sums.outside not in asides[:1]:
            self._drifts += columns.drift
        self._line += len(lines)
        return True

    def _asides(self, columns: Columns, block: _Block, begin: int, end: int) -> Sequence[Aside] | None:
        """Where closings are put aside; None where one of them must be looked at for itself."""
        minutes = {*columns.minute}
        if (is_inside := self._is_inside(minutes)) is None:
            return None
        try:
            asides_of = {minute: self._sums.asides(minute) for minute in minutes}
            forms = [*zip(columns.said, columns.basis, columns.tries, strict=True)]
            same = asides_of[columns.minute[0]] if columns.minute else {}
            if all(asides is same for asides in asides_of.values()):
                known = [*map(same.get, forms)]
            else:
                known = [asides_of[minute].get(form) for minute, form in zip(columns.minute, forms, strict=True)]
            lines: Sequence[int] = ()
            for at in [at for at, aside in enumerate(known) if aside is None] if None in known else ():
                if not self._sums.knows(forms[at]):
                    lines = lines or [line for line in range(begin, end) if SAID(block.lines[line])]
                    self._learn(forms[at], block.text[lines[at]])
                known[at] = self._sums.aside(columns.minute[at], forms[at])
            if not is_inside:
                numbers(columns.drift)
        except MALFORMED:
            return None
        return [*filter(None, known)] if is_inside else [self._sums.outside] * len(known)

    def _is_inside(self, minutes: Set[bytes]) -> bool | None:
        """Whether calls of these minutes count; None where some do and some do not, as in the first and the last."""
        since, until = self._since[:MINUTE].encode(), self._until[:MINUTE].encode()
        if not minutes or (since < min(minutes) and max(minutes) < until):
            return True
        return False if max(minutes) < since or min(minutes) > until else None

    def _learn(self, form: Form, line: bytes) -> None:
        """Parse the first line that looks like this; raises what is `MALFORMED`."""
        record = orjson.loads(line)
        figures(record)
        self._sums.remember(form, record)

    def _fold(self) -> None:
        """Add up what was put aside; raises `FigureError`."""
        self._sums.fold()
        try:
            self._ledger.drift.add([drift for drift in numbers(self._drifts) if drift is not None])
        except ValueError as error:
            raise FigureError(str(error)) from error
        self._drifts.clear()

    def finished(self, files: list[Path], copies: list[Copy]) -> Ledger:
        ledger = self._ledger
        self._end_repeated()
        ledger.files, ledger.copies = files, copies
        ledger.begun_elsewhere = self._calls.ended_alone()
        while self._calls.open:
            call, (path, number, line) = self._calls.open.popitem()
            self._leave_unknown(path, number, line if line.startswith(BEGINNING) else b'%b%b"%b' % (OPENS, call, line))
        ledger.unknown.sort(key=_moment_of)
        self._fold()
        ledger.totals = self._sums.totals()
        return ledger

    def _leave_unknown(self, path: Path, number: int, line: bytes) -> None:
        try:
            opening = orjson.loads(line)
            if self._since <= opening["at"] < self._until:
                self._sums.count_unknown(opening)
                self._ledger.unknown.append(Unknown(Place(path, number), line))
        except MALFORMED as error:
            self._violated(path, number, "MET-3", f"not a record: {reason(error)}")

    def _take(self, path: Path, number: int, line: bytes) -> None:
        if not journal_files.is_whole(line):
            if line.strip():
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
                raise ValueError("ev is none of open, close and seal")
        except MALFORMED as error:
            self._violated(path, number, "MET-3", f"not a record: {reason(error)}")

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
        if not self._calls.begin(call, (path, number, line)):
            self._repeat(path, number, call)

    def _ended(self, path: Path, number: int, record: Json) -> None:
        # What cannot be read adds nothing, and does not end its call: all of it is read before any of it counts.
        added = figures(record)
        row = self._sums.row(record)
        if (name := record["call"]) is not None:
            call = name.encode()
            if not self._calls.end(call):
                self._repeat(path, number, call)
                return
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
