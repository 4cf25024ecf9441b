"""How the targets of all pools stand, as each process sees them, into one page and one JSON document (POOL-7)."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

from proxy.upstream.report import TargetReport

# The gravest word of several processes is the word.
GRAVITY: Final = ("well", "trial", "out")
HEAD: Final = """<!doctype html><html lang="en"><meta charset="utf-8"><meta http-equiv="refresh" content="5">
<meta name="viewport" content="width=device-width"><title>dashseek: pools</title>
<style>body{font:15px/1.5 system-ui,sans-serif;margin:2rem}table{border-collapse:collapse}
td,th{padding:.2rem .8rem;text-align:right;border-bottom:1px solid #ccc}td:nth-child(-n+3),th:nth-child(-n+3)
{text-align:left}.out{color:#b00020;font-weight:600}.trial{color:#8a5a00;font-weight:600}</style>
<h1>Pools</h1><p>All processes together, anew every five seconds; <a href="pools.json">for programs</a>.
<table><tr><th>pool<th>target<th>state<th>in flight<th>most<th>out for<th>last error<th>first token<th>calls<th>share
"""
POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"


class TargetRow(NamedTuple):
    """One target.

    report: how it stands in all processes together
    share:  part of all calls of all targets that were sent here; None before the first
    """

    report: TargetReport
    share: float | None

    def document(self) -> dict[str, Any]:
        """The same as JSON."""
        return {**self.report._asdict(), "share": self.share}


def rows(reports: Iterable[TargetReport]) -> list[TargetRow]:
    """One row for each target, in the order of the configuration; each worker has a bound of its own."""
    found: dict[tuple[str, str], list[TargetReport]] = {}
    for report in reports:
        found.setdefault((report.pool, report.target), []).append(report)
    calls = sum(report.calls for same in found.values() for report in same)
    return [_row(same, calls) for same in found.values()]


def page(targets: Sequence[TargetRow]) -> str:
    """The page for people."""
    return HEAD + "\n".join(map(_line, targets)) + "\n</table></html>\n"


def _row(same: Sequence[TargetReport], all_calls: int) -> TargetRow:
    bounds = [report.max_in_flight for report in same if report.max_in_flight is not None]
    waits = [report.out_for_s for report in same if report.out_for_s is not None]
    firsts = [(report.first_token_s, max(1, report.calls)) for report in same if report.first_token_s is not None]
    calls = sum(report.calls for report in same)
    together = TargetReport(
        pool=same[0].pool,
        target=same[0].target,
        state=max((report.state for report in same), key=GRAVITY.index),
        in_flight=sum(report.in_flight for report in same),
        max_in_flight=sum(bounds) if bounds else None,
        out_for_s=max(waits, default=None),
        last_error=next((report.last_error for report in same if report.last_error is not None), None),
        first_token_s=round(sum(s * n for s, n in firsts) / sum(n for _, n in firsts), 4) if firsts else None,
        calls=calls,
    )
    return TargetRow(together, round(calls / all_calls, 4) if all_calls else None)


def _line(row: TargetRow) -> str:
    report = row.report
    cells = (
        report.pool or "–",
        report.target,
        report.state,
        str(report.in_flight),
        "–" if report.max_in_flight is None else str(report.max_in_flight),
        "–" if report.out_for_s is None else f"{report.out_for_s:g} s",
        report.last_error or "–",
        "–" if report.first_token_s is None else f"{report.first_token_s * 1e3:.0f} ms",
        str(report.calls),
        "–" if row.share is None else f"{row.share:.1%}",
    )
    pool, target, word, *figures = map(html.escape, cells)
    return "<td>".join((f"<tr><td>{pool}", f'{target}<td class="{word}">{word}', *figures))
