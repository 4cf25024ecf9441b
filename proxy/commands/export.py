"""Usage journals into a table with a row for each call: `usage export`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from proxy.commands import usage
from proxy.commands.exit_codes import Exit
from proxy.metering import export, periods, tables
from proxy.metering.export import ExportError


@dataclass(frozen=True, slots=True)
class Asked:
    """What is exported, and where to.

    to:           a file whose name says its form, or a directory where that is Parquet
    tz:           zone of `since` and `until` where they have none; None: this machine's
    since, until: from when to when calls were received
    with_unknown: calls without an end too
    """

    to: Path
    tz: str | None
    since: str | None
    until: str | None
    with_unknown: bool


def show(paths: Sequence[Path], asked: Asked) -> int:
    """Export, and say how much that was; returns the exit code, 1 where a line could not be read.

    Raises `ExportError`, `PeriodError`, `OSError`.
    """
    zone = periods.zone_of(asked.tz) if asked.tz else periods.machine_zone()
    span = periods.span_of(zone, "day", asked.since, asked.until)
    try:
        table = tables.table(asked.to)
        with usage.reading(paths) as advance:
            exported = export.export(paths, table, span, with_unknown=asked.with_unknown, advance=advance)
    except ExportError as error:
        raise ExportError(f"{asked.to}: {error}") from None
    click.echo(f"{asked.to}: {exported.added:,} rows added")
    unknown = len(exported.ledger.unknown)
    if unknown and not asked.with_unknown:
        click.echo(f"calls without an end, left out: {unknown} (--unknown takes them in)", err=True)
    usage.show_doubts(exported.ledger)
    return Exit.NO if exported.ledger.violations else Exit.OK
