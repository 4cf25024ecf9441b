"""Usage journals, shown to people and programs: `usage sum`, `usage verify`, `usage tail` (spec MET-6)."""

from __future__ import annotations

import csv
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any, Final, Literal

import click
import orjson

from proxy.metering import ledger
from proxy.metering.ledger import Group, Ledger, Totals

Form = Literal["table", "json", "csv"]

DIMENSIONS: Final = Group._fields
FIGURES: Final = ("calls", "input", "output", "total", "reasoning", "cached", "generated")
# Below this many bytes a progress bar would be gone before it is seen.
LARGE_BYTES: Final = 32 << 20
BROKEN: Final = 1
# Shown by name, before the rest is only counted.
SHOWN: Final = 20
POLL_S: Final = 0.2
# Where to begin, for the last calls of a large file: no call has lines longer than this together.
CALL_BYTES: Final = 8 << 10
CLOSE: Final = b'{"ev":"close"'


def show_sum(paths: Sequence[Path], by: Sequence[str], form: Form) -> int:
    """Show totals; a table for people is one for each dimension, or one for those of `by`; returns the exit code."""
    with _progress(paths) as advance:
        read = ledger.read(paths, advance=advance)
    if form == "table":
        for dimensions in [by] if by else [(name,) for name in DIMENSIONS]:
            _show_table(dimensions, _summed(read, dimensions))
            click.echo()
        _show_doubts(read)
        return 0
    rows = [_row(by or DIMENSIONS, group, totals) for group, totals in _summed(read, by or DIMENSIONS).items()]
    if form == "csv":
        writer = csv.DictWriter(sys.stdout, [*(by or DIMENSIONS), *FIGURES], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        return 0
    total = _row((), (), _total(read.totals.values()))
    unknown = [unknown.opening | {"place": str(unknown.place)} for unknown in read.unknown]
    doubts = {"unknown": unknown, "torn": [*map(str, read.torn)], "violations": [*map(str, read.violations)]}
    click.echo(orjson.dumps({"total": total, "groups": rows, **doubts}, option=orjson.OPT_INDENT_2))
    return 0


def verify(paths: Sequence[Path]) -> int:
    """Hold journals to the rules and name each line that breaks one; returns the exit code, 1 if any does."""
    with _progress(paths) as advance:
        read = ledger.read(paths, rules=ledger.RULES, advance=advance)
    for violation in read.violations:
        click.echo(violation)
    for unknown in read.unknown:
        click.echo(f"{unknown.place}: unknown: the call {unknown.opening['call']} has no end: a crash, or still open")
    for place in read.torn:
        click.echo(f"{place}: torn: cut off while it was written, and not counted")
    calls = sum(totals.calls for totals in read.totals.values())
    click.echo(f"{calls} calls, {len(read.unknown)} unknown, {len(read.torn)} torn lines, {_broken(read)}")
    return BROKEN if read.violations else 0


def tail(path: Path, last: int, *, follow: bool) -> int:
    """Show the last calls, one line each, and then those that end, until interrupted; returns the exit code."""
    with suppress(KeyboardInterrupt):
        for line in _tail(path, last, follow=follow):
            click.echo(_one_line(orjson.loads(line)))
    return 0


def _summed(read: Ledger, dimensions: Sequence[str]) -> dict[tuple[str, ...], Totals]:
    """Totals by some dimensions, in alphabetical order."""
    summed: dict[tuple[str, ...], Totals] = {}
    positions = [DIMENSIONS.index(name) for name in dimensions]
    for group, totals in sorted(read.totals.items()):
        summed.setdefault(tuple(group[position] for position in positions), Totals()).add(totals)
    return dict(sorted(summed.items()))


def _total(several: Iterable[Totals]) -> Totals:
    total = Totals()
    for totals in several:
        total.add(totals)
    return total


def _row(dimensions: Sequence[str], group: Sequence[str], totals: Totals) -> dict[str, Any]:
    sums = {**asdict(totals), "total": totals.total}
    return {**dict(zip(dimensions, group, strict=True)), **{name: sums[name] for name in FIGURES}}


def _show_table(dimensions: Sequence[str], summed: dict[tuple[str, ...], Totals]) -> None:
    body = [[*group, *_figures(totals)] for group, totals in summed.items()]
    names = ["all", *[""] * (len(dimensions) - 1)]
    rows = [[*dimensions, *FIGURES], *body, [*names, *_figures(_total(summed.values()))]]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [
            cell.ljust(width) if position < len(dimensions) else cell.rjust(width)
            for position, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        click.echo("  ".join(cells).rstrip())


def _figures(totals: Totals) -> list[str]:
    return [f"{figure:,}" for figure in _row((), (), totals).values()]


def _show_doubts(read: Ledger) -> None:
    for unknown in read.unknown[:SHOWN]:
        facts = unknown.opening
        click.echo(f"unknown: {facts['at']} {facts['model']} {facts['request_id']} ({unknown.place})")
    if len(read.unknown) > SHOWN:
        click.echo(f"unknown: {len(read.unknown) - SHOWN} more")
    if read.torn:
        click.echo(f"torn lines, not counted: {len(read.torn)}")
    if read.violations:
        click.echo(f"{_broken(read)}: see dashseek usage verify")


def _broken(read: Ledger) -> str:
    return "no rule broken" if not read.violations else f"{len(read.violations)} times a rule broken"


@contextmanager
def _progress(paths: Sequence[Path]) -> Iterator[Callable[[int], None]]:
    """Somebody who watches a large journal being read is told how far it is."""
    size = sum(path.stat().st_size for path in paths)
    if size < LARGE_BYTES or not sys.stderr.isatty():
        yield lambda _: None
        return
    with click.progressbar(length=size, label="reading", file=sys.stderr) as bar:
        yield bar.update


def _tail(path: Path, last: int, *, follow: bool) -> Iterator[bytes]:
    """The `close` lines at the end of a file, and those that come; what is rotated away is followed by its heir."""
    file = path.open("rb")
    try:
        begun = b""
        closes: deque[bytes] = deque(maxlen=last)
        file.seek(max(0, path.stat().st_size - last * CALL_BYTES))
        for line in file:
            begun = b"" if line.endswith(b"\n") else line
            closes.extend([line] * _is_close(line))
        yield from closes
        while follow:
            if piece := file.readline():
                begun += piece
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
    return line.startswith(CLOSE) and line.endswith(b"}\n")


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
