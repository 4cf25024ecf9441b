"""`close` lines into sums: tokens as delivered and as generated, by period, model, key, outcome and what else is asked.

Here a million lines would spend their time: what does not change from call to call is looked up once a minute, and
figures are added many at a time.
"""

from __future__ import annotations

from array import array
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from operator import add
from typing import Any, Final, NamedTuple

from proxy.metering import periods
from proxy.metering.line_form import Form, summed, upstream_calls
from proxy.metering.periods import Span
from proxy.metering.prices import Phases, Prices, Tariff
from translators.usage import BASES

Json = dict[str, Any]
UNKNOWN: Final = "unknown"
NOBODY: Final = "-"
# So much is remembered of what lines say; beyond it it is looked up anew.
REMEMBERED: Final = 1 << 13
WHOLE: Final = frozenset({int})
# How a minute of an hour is said.
MINUTES: Final = frozenset(b":%02d" % minute for minute in range(60))
# The tongue of lines that were written before there was another.
NATIVE: Final = "dashscope"
NOT_ASKED: Final = {"target": NOBODY}


class FigureError(ValueError):
    """Among figures that were put aside as lines say them there is one that JSON has no such number for."""


class Group(NamedTuple):
    """What totals are kept by: the finest grain there is.

    period:         the hour, day or month, in the zone of the report
    model:          as callers ask for it
    key:            its name, else its fingerprint, else "-"
    outcome:        how it ended; "unknown" where that is not known
    pool:           the pool that served it, where there are no pools the target; "-" where none was asked
    upstream_model: the id it has upstream
    basis:          whose figure `generated` is; "unknown" of a call without an end
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

NOTHING: Final = (0,) * len(FIGURES)

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


# What a group says of calls, but for their price.
SAID: Final = tuple(name for name in Group._fields if name not in {"owed", "taken"})

# Of a group: model, key, outcome, pool, upstream model, basis, api.
_Names = tuple[str, str, str, str, str, str, str]


def _names(record: Mapping[str, Any]) -> _Names:
    names = (
        record["model"],
        record["key_name"] or record["key_id"] or NOBODY,
        record.get("outcome", UNKNOWN),
        pool_of(record),
        record["upstream_model"],
        record.get("basis", UNKNOWN),
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
    """The sums of a group, in the order of `FIGURES`."""

    __slots__ = ("sums",)

    def __init__(self) -> None:
        self.sums: Sequence[int] = NOTHING

    def add(self, added: Iterable[int]) -> None:
        """Add a call's figures, or other sums."""
        sums = [*map(add, self.sums, added)]
        # Of a report by the hour there are many rows, and a third of the room is enough for each.
        self.sums = array("Q", sums) if max(sums) < 1 << 64 else sums


class Aside:
    """Figures of lines that look alike, as the lines say them: put aside, to be added to a row many at a time.

    agreed: of calls of which the same was delivered and generated
    used:   of other calls, as delivered
    made:   and as generated
    """

    __slots__ = ("_row", "_upstream_calls", "agreed", "made", "used")

    def __init__(self, row: Row, upstream_calls: int = 1) -> None:
        self._row = row
        self._upstream_calls = upstream_calls
        self.agreed: list[bytes] = []
        self.used: list[bytes] = []
        self.made: list[bytes] = []

    def add(self, calls: int, used: Sequence[int], made: Sequence[int]) -> None:
        """Add sums of what was put aside to its row."""
        self._row.add((calls, *used, *made, calls * self._upstream_calls))


def _fold(asides: Iterable[Aside]) -> None:
    """Add what is put aside; raises `ValueError` where one of the figures is none."""
    agreed, differ = [], []
    for aside in asides:
        if aside.agreed:
            agreed.append(aside)
        if aside.used:
            differ.append(aside)
    for aside, both in zip(agreed, summed([aside.agreed for aside in agreed]), strict=True):
        aside.add(len(aside.agreed), both, both)
        aside.agreed.clear()
    used, made = summed([aside.used for aside in differ]), summed([aside.made for aside in differ])
    for aside, delivered, generated in zip(differ, used, made, strict=True):
        aside.add(len(aside.used), delivered, generated)
        aside.used.clear()
        aside.made.clear()


class Sums:
    """Totals by group, as far as lines are read.

    by:      the fields of groups that are asked for, the others are empty; None: all
    outside: of calls that are not counted; what they say is to be true all the same
    """

    def __init__(self, span: Span, prices: Prices | None, by: Collection[str] | None = None) -> None:
        self._merged = frozenset() if by is None else frozenset(SAID) - frozenset(by)
        self.outside = Aside(Row())
        self._span = span
        self._prices = prices
        self._rows: dict[Group, Row] = {}
        self._remembered: dict[tuple[Any, ...], Row] = {}
        self._minutes: dict[str, _Moment] = {}
        self._hours: dict[bytes, _Moment | None] = {}
        self._by_moment: dict[_Moment, dict[Form, Aside]] = {}
        self._by_minute: dict[bytes, dict[Form, Aside]] = {}
        self._known = 0
        self._asides: dict[tuple[Row, int, bool], Aside] = {}
        self._names: dict[Form, tuple[_Names, bool]] = {}

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

    def asides(self, minute: bytes) -> dict[Form, Aside]:
        """Where lines of a minute are put aside, by what they look like, as far as that is known.

        Of all minutes that a report makes the same of it is the same object, until all is folded. Raises where that is
        no minute.
        """
        asides = self._by_minute.get(minute)
        if asides is None:
            moment = self._of_hour(minute[: periods.HOUR]) if minute[periods.HOUR :] in MINUTES else None
            asides = self._by_moment.setdefault(moment or self._moment(minute.decode()), {})
            self._by_minute[minute] = asides
        return asides

    def _of_hour(self, hour: bytes) -> _Moment | None:
        """What a report makes of each minute of an hour, where it is the same; raises where that is no hour."""
        # A price may hold for some minutes of an hour; a period that holds at its first and its last one holds between.
        if self._prices is None and hour not in self._hours:
            first, last = (self._moment(f"{hour.decode()}:{minute}") for minute in ("00", "59"))
            self._hours[hour] = first if first == last else None
        return self._hours.get(hour)

    def knows(self, form: Form) -> bool:
        """Whether it is known what lines that look like this are counted by."""
        return form in self._names

    def aside(self, minute: bytes, form: Form) -> Aside:
        """Where a line of a form that is known is put aside."""
        asides = self.asides(minute)
        if form not in asides:
            names, thinks = self._names[form]
            # Where it thinks, figures have another shape: those of one shape are added up faster.
            alike = (self._row(self._grouped(names, minute.decode())), upstream_calls(form), thinks)
            if alike not in self._asides:
                self._asides[alike] = Aside(*alike[:2])
            asides[form] = self._asides[alike]
            self._known += 1
        return asides[form]

    def remember(self, form: Form, record: Json) -> None:
        """Know by what lines like this one look what they are counted by; raises where one of its names is no text."""
        if len(self._names) >= REMEMBERED:
            self._names.clear()
        self._names[form] = _names(record), bool(record.get("thinking"))

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
            return self._told_apart(group, ())
        owed = self._prices.tariff("callers", group.model, group.key, moment.phases)
        taken = self._prices.tariff("upstream", group.upstream_model, group.pool, moment.phases)
        # What has no price is named by its model.
        unpriced = [name for name, tariff in (("model", owed), ("upstream_model", taken)) if tariff is None]
        return self._told_apart(group._replace(owed=owed, taken=taken), unpriced)

    def _told_apart(self, group: Group, names: Collection[str]) -> Group:
        if not self._merged:
            return group
        said: list[Any] = [
            "" if name in self._merged and name not in names else value
            for name, value in zip(Group._fields, group, strict=True)
        ]
        return Group(*said)

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
        self._row(self.group(opening)).add((1, *NOTHING[1:]))

    def fold(self) -> None:
        """Add what is put aside, before it takes too much room; raises `FigureError`."""
        try:
            _fold([self.outside, *self._asides.values()])
        except ValueError as error:
            raise FigureError(str(error)) from error
        if self._known >= REMEMBERED or len(self._by_minute) >= REMEMBERED:
            self._hours.clear()
            self._by_minute.clear()
            self._by_moment.clear()
            self._asides.clear()
            self._known = 0

    def totals(self) -> Mapping[Group, Totals]:
        """What has been added; raises `FigureError`."""
        self.fold()
        return _Summed({group: row for group, row in self._rows.items() if row.sums[0]})


class _Summed(Mapping[Group, Totals]):
    """Totals by group, each made when it is asked for: of a report by the hour there are many."""

    def __init__(self, rows: dict[Group, Row]) -> None:
        self._rows = rows

    def __getitem__(self, group: Group) -> Totals:
        return Totals(*self._rows[group].sums)

    def __iter__(self) -> Iterator[Group]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)


def pool_of(record: Mapping[str, Any]) -> str:
    """Who served a call: the last that was asked."""
    attempts = record.get("attempts")
    if not attempts:
        return NOBODY
    return str(attempts[-1].get("pool") or attempts[-1]["target"])
