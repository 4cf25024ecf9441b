"""`close` lines into sums: tokens as delivered and as generated, by period, model, key, outcome and what else is asked.

Here a million lines would spend their time: what does not change from call to call is looked up once a minute, and
figures are added many at a time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from operator import add
from typing import Any, Final, NamedTuple

from proxy.metering import periods
from proxy.metering.periods import Span
from proxy.metering.prices import Phases, Prices, Tariff
from translators.usage import BASES

Json = dict[str, Any]
# The pieces of a line that say which sums it belongs to (`line_form`).
Form = tuple[bytes, bytes, bytes]

UNKNOWN: Final = "unknown"
NOBODY: Final = "-"
# So much is remembered of what lines say; beyond it it is looked up anew.
REMEMBERED: Final = 1 << 13
WHOLE: Final = frozenset({int})
# The tongue of lines that were written before there was another.
NATIVE: Final = "dashscope"
NOT_ASKED: Final = {"target": NOBODY}


class Group(NamedTuple):
    """What totals are kept by: the finest grain there is.

    period:         the hour, day or month, in the zone of the report
    model:          as callers ask for it
    key:            its name, else its fingerprint, else "-"
    outcome:        how it ended; "unknown" where that is not known
    pool:           the pool that served it, where there are no pools the target; "-" where none was asked
    upstream_model: the id it has upstream
    basis:          whose figure `generated` is
    api:            the tongue the call came in
    owed:           what its caller pays; None where no price is asked for, or none is given
    taken:          what upstream takes
    """

    period: str
    model: str
    key: str
    outcome: str
    pool: str = NOBODY
    upstream_model: str = NOBODY
    basis: str = "none"
    api: str = NATIVE
    owed: Tariff | None = None
    taken: Tariff | None = None


@dataclass(slots=True)
class Totals:
    """Sums over calls, in tokens.

    calls:               calls of callers
    input, output:       as delivered, which is what callers are billed for
    cached:              the part of `input` that upstream had in its cache
    reasoning:           the part of `output` that is the chain of thought
    generated_input:     prompts, as upstream counted them: of a call that is several upstream calls, all of theirs
    generated_cached:    the part of them that upstream had in its cache
    generated_output:    what upstream is known to have produced
    generated_reasoning: the part of it that is the chain of thought
    upstream_calls:      calls upstream of which figures are known, which is what upstream bills as requests
    """

    calls: int = 0
    input: int = 0
    cached: int = 0
    output: int = 0
    reasoning: int = 0
    generated_input: int = 0
    generated_cached: int = 0
    generated_output: int = 0
    generated_reasoning: int = 0
    upstream_calls: int = 0

    @property
    def total(self) -> int:
        """As delivered."""
        return self.input + self.output

    def add(self, other: Totals) -> None:
        """Add another's sums."""
        for name in FIGURES:
            setattr(self, name, getattr(self, name) + getattr(other, name))


FIGURES: Final = tuple(field.name for field in fields(Totals))

Figures = tuple[int, int, int, int, int, int, int, int, int, int]


def figures(record: Json) -> Figures:
    """What a `close` line adds to each of `FIGURES`; raises where one is missing, negative or no whole number."""
    used, made = record["usage"], record["generated"]
    read = (
        1,
        used["input_tokens"],
        used["prompt_tokens_details"]["cached_tokens"] if "prompt_tokens_details" in used else 0,
        used["output_tokens"],
        used["output_tokens_details"]["reasoning_tokens"] if "output_tokens_details" in used else 0,
        made["input_tokens"],
        made["prompt_tokens_details"]["cached_tokens"] if "prompt_tokens_details" in made else 0,
        made["output_tokens"],
        made["output_tokens_details"]["reasoning_tokens"] if "output_tokens_details" in made else 0,
        _upstream_calls(record["calls"]) if "calls" in record else int(record["basis"] != "none"),
    )
    if not WHOLE.issuperset(map(type, read)) or min(read) < 0:
        raise ValueError("a figure is negative, or no whole number")
    return read


def _upstream_calls(calls: list[Json]) -> int:
    """How many they are; raises where one of them is no record of a call. A figure upstream did not tell is null."""
    for call in calls:
        for name in ("prompt", "cached", "completion", "reasoning"):
            told = call[name]
            if told is not None and (type(told) is not int or told < 0):
                raise ValueError(f"{name} is no number of tokens")
        if call["basis"] not in BASES or not isinstance(call["end"], str | None):
            raise ValueError("no basis or end")
    return len(calls)


# Of a group: model, key, outcome, pool, upstream model, basis, api.
_Names = tuple[str, str, str, str, str, str, str]


def _names(record: Mapping[str, Any]) -> _Names:
    names = (
        record["model"],
        record["key_name"] or record["key_id"] or NOBODY,
        record.get("outcome", UNKNOWN),
        pool_of(record),
        record["upstream_model"],
        record.get("basis", "none"),
        record.get("api", NATIVE),
    )
    if not all(isinstance(name, str) for name in names):
        raise TypeError("a name is no text")
    return names


class _Moment(NamedTuple):
    """All that a report makes of a minute: the same value for all minutes that it makes the same of."""

    label: str
    phases: Phases


class Row:
    """The sums of a group.

    sums:   in the order of `FIGURES`
    agreed: figures that are not added yet, four for each call: input, cached, output, reasoning, of calls of which the
            same was delivered and generated, by one upstream call
    """

    __slots__ = ("agreed", "sums")

    def __init__(self) -> None:
        self.sums = [0] * len(FIGURES)
        self.agreed: list[int] = []

    def add(self, added: Iterable[int]) -> None:
        """Add a call's figures."""
        self.sums[:] = map(add, self.sums, added)

    def fold(self) -> None:
        """Add what is not added yet."""
        calls = len(self.agreed) // 4
        sides = [sum(self.agreed[column::4]) for column in range(4)]
        self.agreed.clear()
        self.add((calls, *sides, *sides, calls))


class Sums:
    """Totals by group, as far as lines are read."""

    def __init__(self, span: Span, prices: Prices | None) -> None:
        self._span = span
        self._prices = prices
        self._rows: dict[Group, Row] = {}
        self._remembered: dict[tuple[Any, ...], Row] = {}
        self._minutes: dict[str, _Moment] = {}
        self._by_moment: dict[_Moment, dict[Form, Row]] = {}
        self._known = 0
        self._names: dict[Form, _Names] = {}

    def row(self, record: Json) -> Row:
        """The sums a `close` line belongs to; raises where it does not say so."""
        minute = record["at"][: periods.MINUTE]
        attempts = record["attempts"]
        last = attempts[-1] if attempts else NOT_ASKED
        said = (
            self._minutes.get(minute) or self._moment(minute),
            record["model"],
            record["key_name"],
            record["key_id"],
            record["outcome"],
            record["upstream_model"],
            record["basis"],
            record.get("api", NATIVE),
            last["pool"] if "pool" in last else last["target"],
        )
        row = self._remembered.get(said)
        if row is None:
            if len(self._remembered) >= REMEMBERED:
                self._remembered.clear()
            row = self._remembered[said] = self._row(self.group(record))
        return row

    def rows(self, minute: bytes) -> dict[Form, Row]:
        """The sums that lines of a minute belong to, by what they look like, as far as that is known.

        Of all minutes that a report makes the same of it is the same object. Raises where that is no minute.
        """
        moment = self._moment(minute.decode())
        rows = self._by_moment.get(moment)
        if rows is None:
            if len(self._by_moment) >= REMEMBERED:
                self._by_moment.clear()
            rows = self._by_moment[moment] = {}
        return rows

    def row_of(self, minute: bytes, form: Form) -> Row | None:
        """The sums a line belongs to by what it looks like; None where no such line was parsed yet."""
        names = self._names.get(form)
        if names is None:
            return None
        self._known += 1
        if self._known >= REMEMBERED:
            self._by_moment.clear()
            self._known = 0
        row = self.rows(minute)[form] = self._row(self._grouped(names, minute.decode()))
        return row

    def remember(self, form: Form, record: Json) -> None:
        """Know by what lines like this one look what they are counted by; raises where one of its names is no text."""
        if len(self._names) >= REMEMBERED:
            self._names.clear()
        self._names[form] = _names(record)

    def _row(self, group: Group) -> Row:
        row = self._rows.get(group)
        if row is None:
            row = self._rows[group] = Row()
        return row

    def group(self, record: Mapping[str, Any]) -> Group:
        """What a line is counted by; of an `open` line too. Raises where a name is no text."""
        return self._grouped(_names(record), record["at"])

    def _grouped(self, names: _Names, at: str) -> Group:
        moment = self._moment(at)
        group = Group(moment.label, *names)
        if self._prices is None:
            return group
        return group._replace(
            owed=self._prices.tariff("callers", group.model, group.key, moment.phases),
            taken=self._prices.tariff("upstream", group.upstream_model, group.pool, moment.phases),
        )

    def _moment(self, at: str) -> _Moment:
        minute = at[: periods.MINUTE]
        moment = self._minutes.get(minute)
        if moment is None:
            if len(self._minutes) >= REMEMBERED:
                self._minutes.clear()
            phases = self._prices.phases(periods.moment(minute)) if self._prices else ()
            moment = self._minutes[minute] = _Moment(self._span.label(minute), phases)
        return moment

    def count_unknown(self, opening: Json) -> None:
        """Count a call without an end; nothing is known of its tokens."""
        self._row(self.group(opening)).sums[0] += 1

    def fold(self) -> None:
        """Add what rows hold back, before it takes too much room."""
        for row in self._rows.values():
            if row.agreed:
                row.fold()

    def totals(self) -> dict[Group, Totals]:
        """What has been added."""
        self.fold()
        return {group: Totals(*row.sums) for group, row in self._rows.items() if row.sums[0]}


def pool_of(record: Mapping[str, Any]) -> str:
    """Who served a call: the last that was asked."""
    attempts = record.get("attempts")
    if not attempts:
        return NOBODY
    return str(attempts[-1].get("pool") or attempts[-1]["target"])
