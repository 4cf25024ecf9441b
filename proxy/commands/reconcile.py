"""A provider's bill beside the journal, shown to people and programs: `usage reconcile`."""

from __future__ import annotations

import csv
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, Final

import click
import orjson

from proxy.commands import tables, usage
from proxy.commands.exit_codes import Exit
from proxy.commands.usage import Form
from proxy.metering import ledger, periods, prices, reconciliation
from proxy.metering import provider_bill as bills
from proxy.metering.provider_bill import Bill, Mapped
from proxy.metering.reconciliation import Collector, Difference, Outside, Reconciliation, Tolerance

HEAD: Final = ("day", "model", "key", "type", "bill", "journal", "difference")
TEXTS: Final = 4
APART: Final = "the bill and the journal have no day in common: no call was compared"


@dataclass(frozen=True, slots=True)
class Asked:
    """What is compared, and how.

    bill:      the provider's files
    mapping:   how they are read; None: as DeepSeek's
    keys:      the bill's keys that this journal is about; empty: all
    tz:        zone of the days; None: the bill's own
    prices:    a price file, to compare money; None: tokens and calls alone
    tolerance: how much a line may differ
    """

    bill: tuple[Path, ...]
    mapping: Path | None = None
    keys: frozenset[str] = frozenset()
    tz: str | None = None
    prices: Path | None = None
    tolerance: Tolerance = field(default_factory=Tolerance)


def tolerance(words: Sequence[str]) -> Tolerance:
    """`100`, `0.5%`, or both: a line is within it if one of them holds."""
    amount, percent = Decimal(0), Decimal(0)
    for word in words:
        try:
            number = Decimal(word.removesuffix("%"))
        except InvalidOperation:
            number = Decimal("NaN")
        if not number.is_finite() or number < 0:
            raise click.UsageError(f"{word}: no tolerance; say 100 or 0.5%")
        if word.endswith("%"):
            percent = number
        else:
            amount = number
    return Tolerance(amount, percent)


def show(paths: Sequence[Path], form: Form, asked: Asked) -> int:
    """Show where bill and journal differ, and which calls lie on days outside the bill.

    Returns the exit code: 1 if a line is beyond the tolerance, there is none, or no day is of both.
    Raises `BillError`, `PriceError`, `PeriodError`, `OSError`.
    """
    mapped = bills.load_mapping(asked.mapping) if asked.mapping else Mapped()
    priced = prices.load(asked.prices) if asked.prices else None
    bill = bills.load(asked.bill, mapped, periods.zone_of(asked.tz) if asked.tz else None)
    collector = Collector(bill, mapped, asked.keys, priced if priced and priced.upstream else None)
    with usage.reading(paths) as advance:
        read = ledger.read(paths, each=lambda record, _: collector.see(record), advance=advance)
    collector.see_unknown(read.unknown)
    result = reconciliation.reconcile(bill, collector, asked.keys)
    beyond = [difference for difference in result.differences if not asked.tolerance.holds(difference)]
    if form == "table":
        _show_table(bill, result, beyond)
    elif form == "csv":
        _show_csv(beyond)
    else:
        _show_json(bill, result, beyond)
    if form != "table":
        for sentence in _doubts(result):
            click.echo(sentence, err=True)
    usage.show_doubts(read)
    return Exit.NO if beyond or read.violations or not result.lines or result.is_apart else Exit.OK


def _show_table(bill: Bill, result: Reconciliation, beyond: Sequence[Difference]) -> None:
    days = bill.days()
    click.echo(
        f"days of {periods.name_of(bill.zone)}" + (f", {days[0]} to {days[1]}" if days else ": the bill is empty")
    )
    for sentence in _doubts(result):
        click.echo(sentence)
    if result.totals:
        click.echo()
        rows = [
            [type_, *map(_number, (billed, journal, prices.EXACT.subtract(billed, journal)))]
            for type_, (billed, journal) in sorted(result.totals.items())
        ]
        tables.show(["all", *HEAD[TEXTS:]], rows, 1)
    for difference in beyond:
        click.echo()
        row = [text or "-" for text in _texts(difference).values()]
        tables.show(HEAD, [row], TEXTS)
        for reason in _reasons(difference):
            click.echo(f"    {reason}")
    within = len(result.differences) - len(beyond)
    click.echo(
        f"\n{result.lines} lines compared: {result.lines - len(result.differences)} agree, {within} differ within the "
        f"tolerance, {len(beyond)} beyond it"
    )


def _doubts(result: Reconciliation) -> list[str]:
    """A sentence each for calls before and after the days of the bill, and where no day is of both."""
    sides = ((result.before, "before the bill's first day"), (result.after, "after the bill's last day"))
    sentences = [_not_compared(outside, where) for outside, where in sides if outside.calls]
    return [*sentences, *([APART] if result.is_apart else [])]


def _not_compared(outside: Outside, where: str) -> str:
    calls = "call" if outside.calls == 1 else "calls"
    days = str(outside.first) if outside.first == outside.last else f"{outside.first} to {outside.last}"
    return (
        f"not compared: {outside.calls:,} {calls} of the journal {where} ({days}), "
        f"{outside.input:,} input and {outside.output:,} output tokens"
    )


def _reasons(difference: Difference) -> list[str]:
    reasons = []
    for cause, witnesses in difference.causes:
        held = f", {witnesses.tokens[difference.type]:,} in the journal" if difference.type in witnesses.tokens else ""
        calls = "call" if witnesses.calls == 1 else "calls"
        reasons.append(f"{witnesses.calls} {calls}{held}: {cause.value} ({', '.join(witnesses.named())})")
    return [*reasons, *([difference.absence.value] if difference.absence else [])]


def _texts(difference: Difference) -> dict[str, str]:
    cell = difference.cell
    figures = map(_number, (difference.bill, difference.journal, difference.amount))
    return dict(zip(HEAD, (str(cell.day), cell.model, cell.key, difference.type, *figures), strict=True))


def _number(value: Decimal) -> str:
    return f"{value.normalize(prices.EXACT):,f}"


def _plain(value: Decimal) -> str:
    return f"{value.normalize(prices.EXACT):f}"


def _show_csv(beyond: Sequence[Difference]) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow([*HEAD, "why"])
    for difference in beyond:
        row = _row(difference)
        names = [cause["cause"] for cause in row["causes"]] + ([row["absence"]] if row["absence"] else [])
        writer.writerow([*(row[name] for name in HEAD), " ".join(names)])


def _show_json(bill: Bill, result: Reconciliation, beyond: Sequence[Difference]) -> None:
    shown = {
        "tz": periods.name_of(bill.zone),
        "lines": result.lines,
        "totals": {
            type_: {"bill": _plain(billed), "journal": _plain(journal)}
            for type_, (billed, journal) in sorted(result.totals.items())
        },
        "within_tolerance": len(result.differences) - len(beyond),
        "differences": [_row(difference) for difference in beyond],
        "not_compared": {"before": _outside(result.before), "after": _outside(result.after)},
    }
    click.echo(orjson.dumps(shown, option=orjson.OPT_INDENT_2))


def _outside(outside: Outside) -> dict[str, Any]:
    return {
        "calls": outside.calls,
        "input": outside.input,
        "output": outside.output,
        "first_day": str(outside.first) if outside.first else None,
        "last_day": str(outside.last) if outside.last else None,
    }


def _row(difference: Difference) -> dict[str, Any]:
    cell = difference.cell
    return {
        "day": str(cell.day),
        "model": cell.model,
        "key": cell.key,
        "type": difference.type,
        "bill": _plain(difference.bill),
        "journal": _plain(difference.journal),
        "difference": _plain(difference.amount),
        "causes": [
            {
                "cause": cause.name.lower(),
                "calls": witnesses.calls,
                "journal": witnesses.tokens.get(difference.type),
                "requests": witnesses.named(),
            }
            for cause, witnesses in difference.causes
        ],
        "absence": difference.absence.name.lower() if difference.absence else None,
    }
