"""The lines of usage journals into totals, unknown calls, torn lines and broken rules: what was used, and is it true.

Each file is read once, line by line, rotated and gzip'd ones too, in whatever order: of a call whose lines are in two
files the end may be read first. Source: spec MET-2, MET-6; reliability.md 5.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final, NamedTuple

import orjson

from proxy.metering.journal import Outcome

Json = dict[str, Any]

UNKNOWN: Final = "unknown"
# Every line of ours begins so, and no text inside one can hold it: its quotation marks would be escaped.
BEGINNING: Final = b'{"ev":"'
OUTCOMES: Final = frozenset(outcome.value for outcome in Outcome)
# So many lines between two words about the progress.
ADVANCE_EVERY: Final = 20_000
# How a journal that broke off inside its archive ends.
ARCHIVE_ERRORS: Final = (EOFError, gzip.BadGzipFile, zlib.error)


class Group(NamedTuple):
    """What totals are kept by: the finest grain there is.

    day: UTC
    key: its name, else its fingerprint, else "-"
    """

    day: str
    model: str
    key: str
    outcome: str


@dataclass(slots=True)
class Totals:
    """Sums over calls, in tokens.

    input, output:    as delivered, which is what callers are billed for
    reasoning:        the part of `output` that is the chain of thought
    cached:           the part of `input` that upstream had in its cache
    generated:        output tokens upstream is known to have produced
    """

    calls: int = 0
    input: int = 0
    output: int = 0
    reasoning: int = 0
    cached: int = 0
    generated: int = 0

    @property
    def total(self) -> int:
        """As delivered."""
        return self.input + self.output

    def add(self, other: Totals) -> None:
        """Add another's sums."""
        self.calls += other.calls
        self.input += other.input
        self.output += other.output
        self.reasoning += other.reasoning
        self.cached += other.cached
        self.generated += other.generated


@dataclass(frozen=True, slots=True)
class Place:
    """Where a line stands."""

    path: Path
    line: int

    def __str__(self) -> str:
        return f"{self.path}:{self.line}"


@dataclass(frozen=True, slots=True)
class Violation:
    """A rule that a line breaks.

    rule: its name in reliability.md 5, or in the specification
    text: how
    """

    place: Place
    rule: str
    text: str

    def __str__(self) -> str:
        return f"{self.place}: {self.rule}: {self.text}"


@dataclass(frozen=True, slots=True)
class Unknown:
    """A call that was opened and not closed: cut off by a crash, or still open."""

    place: Place
    opening: Json


@dataclass(slots=True)
class Ledger:
    """What journals say.

    totals:     by day, model, key and outcome; unknown calls have an outcome of that name
    unknown:    calls without an end
    torn:       lines that were cut off while they were written, which is no broken rule
    violations: broken rules
    """

    totals: dict[Group, Totals] = field(default_factory=dict)
    unknown: list[Unknown] = field(default_factory=list)
    torn: list[Place] = field(default_factory=list)
    violations: list[Violation] = field(default_factory=list)


class Rule(NamedTuple):
    """One invariant of a `close` line.

    name:    as a violation names it
    breach:  what is wrong with a record, or None
    """

    name: str
    breach: Callable[[Json], str | None]


def _sums(record: Json) -> str | None:
    for name in ("usage", "generated"):
        used = record[name]
        if used["total_tokens"] != used["input_tokens"] + used["output_tokens"]:
            return f"{name}: {used['total_tokens']} is not {used['input_tokens']} + {used['output_tokens']}"
        if min(used["input_tokens"], used["output_tokens"]) < 0:
            return f"{name}: fewer tokens than none"
        if _part(used, "output_tokens_details", "reasoning_tokens") > used["output_tokens"]:
            return f"{name}: more reasoning_tokens than output_tokens"
        if _part(used, "prompt_tokens_details", "cached_tokens") > used["input_tokens"]:
            return f"{name}: more cached_tokens than input_tokens"
    return None


def _monotonic(record: Json) -> str | None:
    delivered, generated = record["usage"]["output_tokens"], record["generated"]["output_tokens"]
    # Only upstream's own figure may correct a count downward (spec USE-3).
    if record["basis"] == "counted" and delivered > generated:
        return f"{delivered} tokens were delivered of {generated} that were counted"
    return None


def _agrees(record: Json) -> str | None:
    if record["outcome"] != "ok":
        return None
    if record["usage"] != record["generated"]:
        return "ok, but what was delivered is not what was generated"
    return "ok, but nobody knows what was generated" if record["basis"] == "none" else None


def _based(record: Json) -> str | None:
    if record["basis"] == "none" and record["generated"]["output_tokens"]:
        return "output was generated, on no basis"
    return None


def _untouched(record: Json) -> str | None:
    if record["call"] is None and record["attempts"]:
        return "a call that was never admitted went upstream"
    if not record["attempts"] and (record["usage"]["total_tokens"] or record["generated"]["total_tokens"]):
        return "tokens of a call that never went upstream"
    return None


def _handed_over(record: Json) -> str | None:
    if not record["packets"] and record["usage"]["total_tokens"]:
        return "tokens were delivered without a packet"
    return None


def _outcome(record: Json) -> str | None:
    return None if record["outcome"] in OUTCOMES else "there is no such outcome"


# I1 and I8 are about lines together, I6 needs the metrics: `_Reader` and the operator see to them.
RULES: Final = (
    Rule("I2", _sums),
    Rule("I3", _monotonic),
    Rule("I4", _agrees),
    Rule("I5", _based),
    Rule("I7", _untouched),
    Rule("MET-1", _outcome),
    Rule("MET-3", _handed_over),
)


def read(
    paths: Iterable[Path], *, rules: Iterable[Rule] = (), advance: Callable[[int], None] = lambda _: None
) -> Ledger:
    """What these journals say together.

    rules:   what every `close` line is held to
    advance: is told now and then how many more bytes of the files are behind us
    errors:  `OSError` where a file cannot be read
    """
    reader = _Reader(tuple(rules))
    once = {(found.st_dev, found.st_ino): path for path in paths for found in [path.stat()]}
    for path in once.values():
        with _lines(path) as (raw, lines):
            reader.read(path, raw, lines, advance)
    return reader.finished()


class _Reader:
    """Journals, as far as they are read."""

    def __init__(self, rules: tuple[Rule, ...]) -> None:
        self._rules = rules
        self._ledger = Ledger()
        self._sums: dict[Group, list[int]] = {}
        self._open: dict[str, tuple[Path, int, bytes]] = {}
        self._early: dict[str, tuple[Path, int]] = {}

    def read(self, path: Path, raw: IO[bytes], lines: Iterable[bytes], advance: Callable[[int], None]) -> None:
        number, behind = 0, 0
        try:
            for number, line in enumerate(lines, 1):
                self._take(path, number, line)
                if not number % ADVANCE_EVERY:
                    advance(raw.tell() - behind)
                    behind = raw.tell()
        except ARCHIVE_ERRORS:
            self._violated(path, number + 1, "MET-2", "the archive breaks off here")
        advance(raw.tell() - behind)

    def finished(self) -> Ledger:
        ledger = self._ledger
        for call, (path, number) in self._early.items():
            self._violated(path, number, "I1", f"the call {call} is closed twice, or was never opened")
        ledger.totals = {group: Totals(*sums) for group, sums in self._sums.items()}
        for path, number, line in self._open.values():
            opening = orjson.loads(line)
            ledger.unknown.append(Unknown(Place(path, number), opening))
            ledger.totals.setdefault(_group(opening | {"outcome": UNKNOWN}), Totals()).calls += 1
        return ledger

    def _take(self, path: Path, number: int, line: bytes) -> None:
        if line == b"\n":
            return
        record = None
        if line.endswith(b"}\n"):
            with suppress(orjson.JSONDecodeError):
                record = orjson.loads(line)
        try:
            if record is None:
                self._mend(path, number, line)
            elif record["ev"] == "close":
                self._close(path, number, record)
            else:
                self._open_(path, number, line, record)
        except (KeyError, TypeError, AttributeError, IndexError) as error:
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

    def _open_(self, path: Path, number: int, line: bytes, record: Json) -> None:
        if record["ev"] != "open":
            raise KeyError
        if record["call"] in self._open:
            self._violated(path, number, "I1", f"the call {record['call']} is opened twice")
        _group(record | {"outcome": UNKNOWN})
        if not self._early.pop(record["call"], None):
            self._open[record["call"]] = path, number, line

    def _close(self, path: Path, number: int, record: Json) -> None:
        used = record["usage"]
        # An exchange of seven fields for a row of sums: this is what a million lines spend their time in.
        group = _group(record)
        cached = used["prompt_tokens_details"]["cached_tokens"] if "prompt_tokens_details" in used else 0
        reasoning = used["output_tokens_details"]["reasoning_tokens"] if "output_tokens_details" in used else 0
        figures = (
            1,
            used["input_tokens"],
            used["output_tokens"],
            reasoning,
            cached,
            record["generated"]["output_tokens"],
        )
        call = record["call"]
        if call is not None and self._open.pop(call, None) is None:
            self._early[call] = path, number
        sums = self._sums.get(group)
        if sums is None:
            sums = self._sums[group] = [0] * len(figures)
        for position, figure in enumerate(figures):
            sums[position] += figure
        for rule in self._rules:
            if breach := rule.breach(record):
                self._violated(path, number, rule.name, breach)

    def _violated(self, path: Path, number: int, rule: str, text: str) -> None:
        self._ledger.violations.append(Violation(Place(path, number), rule, text))


def _group(record: Mapping[str, Any]) -> Group:
    return Group(record["at"][:10], record["model"], record["key_name"] or record["key_id"] or "-", record["outcome"])


def _part(used: Json, details: str, name: str) -> int:
    return int(used.get(details, {}).get(name, 0))


@contextmanager
def _lines(path: Path) -> Iterator[tuple[IO[bytes], Iterable[bytes]]]:
    """A file as it lies on the disk, to tell how far we are, and the lines in it."""
    with path.open("rb", buffering=1 << 18) as raw:
        if path.suffix == ".gz":
            with gzip.GzipFile(fileobj=raw) as unpacked:
                yield raw, unpacked
        else:
            yield raw, raw
