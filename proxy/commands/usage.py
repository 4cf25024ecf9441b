"""Usage journals, shown to people and programs: `usage sum`, `usage verify`, `usage tail` (spec MET-6)."""

from __future__ import annotations

import csv
import errno
import functools
import gc
import itertools
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import IO, Any, Final, Literal

import click
import orjson

from proxy.commands import tables
from proxy.commands.exit_codes import Exit
from proxy.metering import journal_files, ledger, periods, prices
from proxy.metering.journal_files import LINE_BYTES
from proxy.metering.ledger import Ledger
from proxy.metering.periods import LENGTHS, Grain, Span
from proxy.metering.prices import Prices, Side, Tariff
from proxy.metering.totals import Group, Totals

Form = Literal["table", "json", "csv"]

# What a report can be by. Finest last: it keeps periods as fine as what it is by.
GRAINS: Final[tuple[Grain, ...]] = ("month", "day", "hour")
DIMENSIONS: Final = (*GRAINS, "model", "key", "outcome", "upstream_model", "pool", "basis", "api")
DEFAULT: Final = ("day", "model", "key", "outcome")
FIGURES: Final = (
    "calls",
    "input",
    "cached",
    "output",
    "reasoning",
    "total",
    "generated_input",
    "generated_cached",
    "generated_output",
    "generated_reasoning",
    "upstream_calls",
)
# Columns of money, for each currency of the price file: what callers owe, what upstream takes, what remains.
REVENUE: Final = "revenue"
COST: Final = "cost"
MARGIN: Final = "margin"
# What is not in the sums where calls have no price.
UNPRICED: Final[Mapping[Side, str]] = {
    "callers": "what they owe is in no sum, so revenue and margin are too small",
    "upstream": "what they cost is in no sum, so cost is too small and margin too large",
}
# Below this many bytes a progress bar would be gone before it is seen.
LARGE_BYTES: Final = 32 << 20
# Shown by name, before the rest is only counted.
SHOWN: Final = 20
POLL_S: Final = 0.2
# Where to begin, for the last calls of a large file: no call has lines longer than this together.
CALL_BYTES: Final = 8 << 10
CLOSE: Final = b'{"ev":"close"'


@dataclass(frozen=True, slots=True)
class Report:
    """What a report is of.

    by:    the dimensions of its one table; empty: a table for each of `DEFAULT`
    span:  from when to when, and in which zone
    tz:    the name of the zone; None: it is this machine's, which nobody asked for
    prices: what it is reckoned with; None: tokens alone
    """

    by: tuple[str, ...] = ()
    span: Span = field(default_factory=Span)
    tz: str | None = None
    prices: Prices | None = None


def report(by: Sequence[str], tz: str | None, since: str | None, until: str | None, price_file: Path | None) -> Report:
    """What was asked for on the command line; raises `PeriodError`, `PriceError`, `OSError`."""
    zone = periods.zone_of(tz) if tz else periods.machine_zone()
    grain: Grain = next((grain for grain in reversed(GRAINS) if grain in by), "day")
    span = periods.span_of(zone, grain, since, until)
    return Report(tuple(dict.fromkeys(by)), span, tz, prices.load(price_file) if price_file else None)


def show_sum(paths: Sequence[Path], form: Form, asked: Report) -> int:
    """Show totals, what could not be read on stderr; returns the exit code, 1 where something could not."""
    dimensions = asked.by or DEFAULT
    with reading(paths) as advance:
        read = ledger.read(paths, span=asked.span, prices=asked.prices, by=_fields(dimensions), advance=advance)
    if form == "table":
        _show_tables(read, asked)
    elif form == "csv":
        if asked.tz is None:
            click.echo(_zone_line(asked), err=True)
        writer = csv.DictWriter(sys.stdout, [*dimensions, *FIGURES, *_money_columns(asked.prices)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(_rows(read, dimensions, asked))
    else:
        _show_json(read, dimensions, asked)
    show_doubts(read)
    unpriced = _show_unpriced(read, asked.prices)
    return Exit.NO if read.violations or unpriced else Exit.OK


def verify(paths: Sequence[Path]) -> int:
    """Hold journals to the rules and name each line that breaks one; returns the exit code, 1 if any does.

    Calls whose other line is in a file that is not here break none: a rotated file by itself can be true.
    """
    with reading(paths) as advance:
        read = ledger.read(paths, rules=ledger.RULES, advance=advance)
    for violation in ledger.broken_seals(read):
        read.violations.append(violation)
    for violation in read.violations:
        click.echo(violation)
    if beyond := read.violations.total - len(read.violations):
        click.echo(f"and {beyond} more, which are not named")
    for unknown in read.unknown:
        click.echo(
            f"{unknown.place}: unknown: the call {unknown.opening['call']} has no end here: a crash, still open, or in "
            "another file"
        )
    for place in read.torn:
        click.echo(f"{place}: torn: cut off while it was written, and not counted")
    if beyond := read.torn.total - len(read.torn):
        click.echo(f"and {beyond} more torn lines, which are not named")
    for sentence in ledger.earlier_files(read):
        click.echo(sentence)
    for copy in read.copies:
        click.echo(copy, err=True)
    calls = sum(totals.calls for totals in read.totals.values())
    elsewhere = f", {read.begun_elsewhere} begun in another file" if read.begun_elsewhere else ""
    click.echo(f"{calls} calls, {len(read.unknown)} unknown{elsewhere}, {read.torn.total} torn lines, {_broken(read)}")
    return Exit.NO if read.violations else Exit.OK


def tail(path: Path, last: int, *, follow: bool) -> int:
    """Show the last calls, one line each, and then those that end, until interrupted; returns the exit code."""
    with suppress(KeyboardInterrupt):
        for line in _tail(path, last, follow=follow):
            try:
                shown = _one_line(orjson.loads(line))
            except ledger.MALFORMED as error:
                click.echo(f"a line is not a record, and not shown: {ledger.reason(error)}", err=True)
            else:
                click.echo(shown)
    return 0


def _show_tables(read: Ledger, asked: Report) -> None:
    """A table for people is one for each dimension, or one for those that were asked for."""
    click.echo(_zone_line(asked))
    for dimensions in [asked.by] if asked.by else [(name,) for name in DEFAULT]:
        body = [[*group, *_texts(sums, asked)] for group, sums in _summed(read, dimensions)]
        names = ["all", *[""] * (len(dimensions) - 1)]
        head = [*dimensions, *FIGURES, *_money_columns(asked.prices)]
        click.echo()
        tables.show(head, [*body, [*names, *_texts(_total(read), asked)]], len(dimensions))
    for unknown in read.unknown[:SHOWN]:
        facts = unknown.opening
        key = facts["key_name"] or facts["key_id"] or "-"
        click.echo(f"unknown: {facts['at']} {facts['model']} {key} {facts['request_id']} ({unknown.place})")
    if len(read.unknown) > SHOWN:
        click.echo(f"unknown: {len(read.unknown) - SHOWN} more")


def _zone_line(asked: Report) -> str:
    name = periods.name_of(asked.span.zone)
    since = f", from {asked.span.since}" if asked.span.since != periods.FIRST else ""
    until = f", until {asked.span.until}" if asked.span.until != periods.LAST else ""
    return f"hours, days and months: {name}{'' if asked.tz else ' (of this machine; see --tz)'}{since}{until}"


def _show_json(read: Ledger, dimensions: Sequence[str], asked: Report) -> None:
    span = asked.span
    shown = {
        "tz": periods.name_of(span.zone),
        "since": span.since if span.since != periods.FIRST else None,
        "until": span.until if span.until != periods.LAST else None,
        "total": _shown(_total(read), asked),
        "groups": [],
        "drift": asdict(read.drift),
        "unknown": [],
        "torn": [*map(str, read.torn)],
        "torn_total": read.torn.total,
        "violations": [*map(str, read.violations)],
        "violations_total": read.violations.total,
        "copies": [*map(str, read.copies)],
    }
    unknown = (unknown.opening | {"place": str(unknown.place)} for unknown in read.unknown)
    rest = orjson.dumps(shown, option=orjson.OPT_INDENT_2)
    for name, rows in (("groups", _rows(read, dimensions, asked)), ("unknown", unknown)):
        rest = _show_array(name, rows, rest)
    sys.stdout.buffer.write(rest + b"\n")


def _show_array(name: str, rows: Iterable[dict[str, Any]], document: bytes) -> bytes:
    """Write a document up to the end of an array, row by row, for there may be many; returns what follows."""
    out = sys.stdout.buffer
    before, begin, after = document.partition(b'\n  "%b": [' % name.encode())
    out.write(before + begin)
    gap = b""
    for row in rows:
        text = orjson.dumps(row, option=orjson.OPT_INDENT_2).replace(b"\n", b"\n    ")
        out.write(gap + b"\n    " + text)
        gap = b","
    return (b"\n  " if gap else b"") + after


class _Sums:
    """Tokens and money of a row."""

    def __init__(self) -> None:
        self.totals = Totals()
        self.money: dict[str, Decimal] = {}

    def add(self, group: Group, totals: Totals) -> None:
        self.totals.add(totals)
        if group.owed is not None:
            owed = prices.amount(group.owed.rates, totals.input, totals.cached, totals.output)
            self._book(REVENUE, group.owed, owed)
            self._book(MARGIN, group.owed, owed)
        if group.taken is not None:
            taken = prices.amount(
                group.taken.rates, totals.generated_input, totals.generated_cached, totals.generated_output
            )
            self._book(COST, group.taken, taken)
            self._book(MARGIN, group.taken, -taken)

    def _book(self, column: str, tariff: Tariff, amount: Decimal) -> None:
        name = f"{column}_{tariff.currency}"
        self.money[name] = prices.total((self.money.get(name, Decimal(0)), amount))


def _summed(read: Ledger, dimensions: Sequence[str]) -> Iterator[tuple[tuple[str, ...], _Sums]]:
    """Sums by some dimensions, in alphabetical order."""
    said = functools.cache(_said)

    def of(group: Group) -> tuple[str, ...]:
        return tuple(said(group.period, name) if name in LENGTHS else getattr(group, name) for name in dimensions)

    for key, groups in itertools.groupby(sorted(read.totals, key=of), of):
        sums = _Sums()
        for group in groups:
            sums.add(group, read.totals[group])
        yield key, sums


def _fields(dimensions: Sequence[str]) -> set[str]:
    """The fields of a group that dimensions are of."""
    return {"period" if name in LENGTHS else name for name in dimensions}


def _said(period: str, dimension: str) -> str:
    return period[: LENGTHS[dimension]]


def _total(read: Ledger) -> _Sums:
    return next((sums for _, sums in _summed(read, ())), _Sums())


def _rows(read: Ledger, dimensions: Sequence[str], asked: Report) -> Iterator[dict[str, Any]]:
    for group, sums in _summed(read, dimensions):
        yield {**dict(zip(dimensions, group, strict=True)), **_shown(sums, asked)}


def _shown(sums: _Sums, asked: Report) -> dict[str, Any]:
    """Figures as numbers, money as text: no program shall read it as a binary fraction."""
    tokens = {**asdict(sums.totals), "total": sums.totals.total}
    amounts = {name: prices.written(sums.money.get(name, Decimal(0))) for name in _money_columns(asked.prices)}
    return {**{name: tokens[name] for name in FIGURES}, **amounts}


def _texts(sums: _Sums, asked: Report) -> list[str]:
    return [value if isinstance(value, str) else f"{value:,}" for value in _shown(sums, asked).values()]


def _money_columns(priced: Prices | None) -> list[str]:
    """A margin only where both sides are in one currency."""
    if priced is None:
        return []
    owed, taken = priced.currencies("callers"), priced.currencies("upstream")
    columns = ((REVENUE, owed), (COST, taken), (MARGIN, owed & taken))
    return [f"{column}_{currency}" for column, currencies in columns for currency in sorted(currencies)]


def show_doubts(read: Ledger) -> None:
    """Say on stderr what was not counted, and what was not read."""
    for copy in read.copies:
        click.echo(copy, err=True)
    if read.torn:
        click.echo(f"torn lines, not counted: {read.torn.total}", err=True)
    for violation in read.violations[:SHOWN]:
        click.echo(violation, err=True)
    if read.violations:
        click.echo(f"{_broken(read)}: see dashseek usage verify", err=True)


def _show_unpriced(read: Ledger, priced: Prices | None) -> bool:
    """Say on stderr which calls have no price; whether there are any."""
    if priced is None:
        return False
    missing: dict[tuple[Side, str], int] = {}
    for group, totals in read.totals.items():
        if priced.callers and group.owed is None and totals.total:
            _count(missing, ("callers", group.model), totals.calls)
        if priced.upstream and group.taken is None and totals.generated_input + totals.generated_output:
            _count(missing, ("upstream", group.upstream_model), totals.calls)
    for (side, model), calls in sorted(missing.items()):
        click.echo(f"no price under [[{side}]] for {calls} calls of {model}: {UNPRICED[side]}", err=True)
    return bool(missing)


def _count(missing: dict[tuple[Side, str], int], what: tuple[Side, str], calls: int) -> None:
    missing[what] = missing.get(what, 0) + calls


def _broken(read: Ledger) -> str:
    return "no rule broken" if not read.violations else f"{read.violations.total} times a rule broken"


@contextmanager
def reading(paths: Sequence[Path]) -> Iterator[Callable[[int], None]]:
    """Journals are about to be read: somebody who watches a large one is told how far it is."""
    size = sum(path.stat().st_size for path in paths)
    # What lines are read into holds no cycles; to look for some takes up to an eighth of the time.
    gc.disable()
    try:
        if size < LARGE_BYTES or not sys.stderr.isatty():
            yield lambda _: None
            return
        with click.progressbar(length=size, label="reading", file=sys.stderr) as bar:
            yield bar.update
    finally:
        gc.enable()


def _tail(path: Path, last: int, *, follow: bool) -> Iterator[bytes]:
    """The `close` lines at the end of a file, and those that come; what is rotated away is followed by its heir."""
    file = path.open("rb")
    try:
        if journal_files.is_packed(file):
            raise OSError(errno.EINVAL, "is packed, and nothing comes to it any more: unpack it first", str(path))
        begun = b""
        closes: deque[bytes] = deque(maxlen=last)
        file.seek(max(0, path.stat().st_size - last * CALL_BYTES))
        for line in iter(lambda: file.readline(LINE_BYTES), b""):
            begun = b"" if line.endswith(b"\n") else line
            closes.extend([line] * _is_close(line))
        yield from closes
        while follow:
            if piece := file.readline(LINE_BYTES):
                begun = begun[:LINE_BYTES] + piece
                if begun.endswith(b"\n"):
                    yield from [begun] * _is_close(begun)
                    begun = b""
            elif _moved(file, path):
                file.close()
                file, begun = path.open("rb"), b""
            else:
                time.sleep(POLL_S)
    finally:
        file.close()


def _is_close(line: bytes) -> bool:
    return line.startswith(CLOSE) and journal_files.is_whole(line)


def _moved(file: IO[bytes], path: Path) -> bool:
    return path.exists() and not os.path.samestat(os.fstat(file.fileno()), path.stat())


def _one_line(record: dict[str, Any]) -> str:
    used, code = record["usage"], record["code"]
    caller = record["key_name"] or record["key_id"] or "-"
    parts = [
        record["at"].removesuffix("Z").replace("T", " "),
        f"{record['outcome']:<10}",
        record["model"],
        caller,
        f"{used['input_tokens']}+{used['output_tokens']} tokens",
        f"{record['t']['closed'] / 1e3:.2f} s",
        record["request_id"],
        *([code] if code else []),
    ]
    return "  ".join(parts)
