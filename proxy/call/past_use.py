"""A journal into what was used before this process began, for the budgets of a day and a month.

The journal is read as reports read it (`ledger`), which knows a million calls in seconds; a budget is of the sums that
come out. Those name a key as people do, and two keys may have one name: whose it was is looked up in the lines.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, tzinfo
from decimal import Decimal
from pathlib import Path
from typing import Any, Final, NamedTuple

import orjson

from proxy.call.budgets import Budgets
from proxy.metering import journal_files, ledger, periods, prices
from proxy.metering.journal_files import ARCHIVE_ERRORS
from proxy.metering.periods import Span
from proxy.metering.prices import Prices
from proxy.metering.seen_calls import SeenCalls
from proxy.metering.totals import NOBODY, figures

# As a journal writes whose call it is.
KEY: Final = re.compile(rb'"key_id":("[^"\\]*+"|null),"key_name":("(?:[^"\\]|\\.)*+"|null)')
# By what sums are told apart that a budget can be of; a price is by the model and the key.
BY: Final = frozenset({"period", "model", "key"})


@dataclass(frozen=True, slots=True)
class Month:
    """The journal of the month that has begun.

    files: as far as they can hold calls of it, rotated ones too
    span:  from its first day on, by days
    """

    files: Sequence[Path]
    span: Span

    @property
    def size_bytes(self) -> int:
        """Of the files, packed as they are; raises `OSError`."""
        return sum(file.stat().st_size for file in self.files)


class Read(NamedTuple):
    """What was read.

    calls:  that have ended
    broken: times a rule of the books is broken; such lines, or what an archive lacks, count nothing
    torn:   lines that were cut off, which count nothing either
    """

    calls: int
    broken: int
    torn: int


def month_of(journal: Path, zone: tzinfo, now_s: float) -> Month:
    """What there is of a journal since this month began in a zone; raises `OSError`.

    now_s: wall clock
    """
    now = datetime.fromtimestamp(now_s, zone)
    begun = datetime(now.year, now.month, 1, tzinfo=zone)
    files = journal_files.of_journal(journal, begun.timestamp())
    return Month(files, Span(zone, since=periods.at_of(begun.isoformat(), zone)))


def count(budgets: Budgets, month: Month, priced: Prices | None) -> Read:
    """Add what was used in a month to budgets that have counted nothing yet; raises `OSError`."""
    read = ledger.read(month.files, span=month.span, prices=priced, by=BY)
    ids = _ids(month.files)
    several = set()
    for group, totals in sorted(read.totals.items(), key=lambda sums: sums[0].period):
        tokens, cost = totals.generated_input + totals.generated_output, Decimal(0)
        if group.owed is not None:
            cost = prices.amount(group.owed.rates, totals.input, totals.cached, totals.output)
        if not tokens and not cost:
            continue
        scopes = ["all", f"model:{group.model}"]
        match [*ids.get(group.key, ())]:
            case [key_id]:
                scopes.append(f"key:{key_id}")
            case _:
                several.add(group.key)
        budgets.add(group.period, scopes, tokens, cost)
    for record in _closings(month, several) if several else ():
        day = month.span.label(record["at"])
        budgets.add(day, [f"key:{record['key_id']}"], record["generated"]["total_tokens"], budgets.owed(record))
    calls = sum(totals.calls for totals in read.totals.values()) - len(read.unknown)
    return Read(calls, read.violations.total, read.torn.total)


def _ids(files: Sequence[Path]) -> Mapping[str, set[str | None]]:
    """The fingerprints of the keys that lines name, by the name a report has for them."""
    ids: dict[str, set[str | None]] = {}
    pairs: set[tuple[bytes, bytes]] = set()
    for file in files:
        with journal_files.opened(file) as (_, content), suppress(*ARCHIVE_ERRORS):
            for piece in journal_files.blocks(content):
                pairs.update(KEY.findall(piece.text, 0, piece.end))
    for pair in pairs:
        # What is no text of JSON is in no line that counts.
        with suppress(orjson.JSONDecodeError):
            key_id, key_name = map(orjson.loads, pair)
            ids.setdefault(key_name or key_id or NOBODY, set()).add(key_id)
    return ids


def _closings(month: Month, keys: Collection[str]) -> Iterator[dict[str, Any]]:
    """The ends of calls by some keys, as reports name them: each call once, as `ledger` counts it."""
    holds = re.compile(b"|".join(re.escape(orjson.dumps(key)) for key in keys))
    seen = SeenCalls()
    for file in journal_files.distinct(month.files)[0]:
        with journal_files.opened(file) as (_, content), suppress(*ARCHIVE_ERRORS):
            for piece in journal_files.blocks(content):
                for line in filter(holds.search, piece.lines()):
                    # Behind what is left of a torn line a whole one may stand.
                    with suppress(*ledger.MALFORMED):
                        record = orjson.loads(line[max(line.rfind(ledger.BEGINNING), 0) :])
                        if (
                            line.endswith(b"\n")
                            and record["ev"] == "close"
                            and (record["key_name"] or record["key_id"]) in keys
                            and figures(record)
                            and (record["call"] is None or seen.end(record["call"].encode()))
                            and record["at"] >= month.span.since
                        ):
                            yield record
