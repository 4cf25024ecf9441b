"""A file of prices and a call's moment into what its tokens cost: what callers owe, and what upstream takes.

A price is that of the moment at which a call was received. All sums are exact: decimals as they stand in the file,
times whole tokens; nothing is rounded, and no currency is converted into another.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, tzinfo
from decimal import Context, Decimal, Inexact
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

from proxy.metering import periods
from proxy.metering.periods import PeriodError

Side = Literal["callers", "upstream"]
Phases = tuple[int | None, ...]

ANY: Final = "*"
DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
# Prices are those of a million tokens.
MILLION: Final = -6
# More digits than any sum has; should one ever have more, it is an error and no rounded figure.
EXACT: Final = Context(prec=200, traps=[Inexact])
# Whom a price may be for alone, on each side, beside the model.
ONLY: Final[Mapping[Side, str]] = {"callers": "key", "upstream": "pool"}
RATES: Final = ("input", "cached", "output")


class PriceError(Exception):
    """A price file that does not say what it means; the sentence names the place in it."""


class Rates(NamedTuple):
    """Prices of a million tokens.

    input:  of the prompt, where upstream had not cached it
    cached: of the prompt, where it had
    output: of the answer, chain of thought included
    """

    input: Decimal
    cached: Decimal
    output: Decimal


class Tariff(NamedTuple):
    """What is paid at one moment, and in what."""

    currency: str
    rates: Rates


@dataclass(frozen=True, slots=True)
class Window:
    """Hours of a week in which other rates hold.

    days:     as `date.weekday` numbers them; the day on which the hours begin
    hours:    minutes of the day, from and to; where the end is before the beginning it is that of the next day
    holidays: days that are none of `days`, whatever their name
    """

    days: frozenset[int]
    hours: tuple[tuple[int, int], ...]
    holidays: frozenset[date]
    rates: Rates

    def holds(self, local: datetime) -> bool:
        """Whether a moment of the price's zone lies in it."""
        minute, day = local.hour * 60 + local.minute, local.date()
        for begin, end in self.hours:
            if begin < end:
                if begin <= minute < end and self._counts(day):
                    return True
            elif (minute >= begin and self._counts(day)) or (minute < end and self._counts(day - timedelta(days=1))):
                return True
        return False

    def _counts(self, day: date) -> bool:
        return day.weekday() in self.days and day not in self.holidays


@dataclass(frozen=True, slots=True)
class Price:
    """One row of the file.

    model:      as callers ask for it, or its id upstream; `*`: whatever has no row of its own
    only:       the one key, or pool, it is for; None: for all
    valid_from: the first moment it holds; it holds until a later row for the same begins
    """

    model: str
    only: str | None
    valid_from: datetime
    zone: tzinfo
    tariff: Tariff
    windows: tuple[Window, ...]

    def phase(self, moment: datetime) -> int | None:
        """Which of its windows a moment lies in, -1 for none of them; None where it does not hold yet."""
        if moment < self.valid_from:
            return None
        local = moment.astimezone(self.zone)
        return next((number for number, window in enumerate(self.windows) if window.holds(local)), -1)

    def in_phase(self, phase: int) -> Tariff:
        """What is paid then."""
        return self.tariff if phase < 0 else self.tariff._replace(rates=self.windows[phase].rates)


@dataclass(frozen=True, slots=True)
class Prices:
    """The whole file: what callers owe, and what upstream takes; a side without a row is not reckoned."""

    callers: tuple[Price, ...]
    upstream: tuple[Price, ...]

    def phases(self, moment: datetime) -> Phases:
        """What holds at a moment, of every row: few of them are ever different."""
        return tuple(row.phase(moment) for row in (*self.callers, *self.upstream))

    def tariff(self, side: Side, model: str, only: str, phases: Phases) -> Tariff | None:
        """What is paid for a model, by a key or to a pool; None where no row says it."""
        fitting = [
            (row, phase)
            for row, phase in self._of(side, phases)
            if phase is not None and row.model in {model, ANY} and row.only in {only, None}
        ]
        if not fitting:
            return None
        row, phase = max(fitting, key=lambda fit: (fit[0].only is not None, fit[0].model != ANY, fit[0].valid_from))
        return row.in_phase(phase)

    def _of(self, side: Side, phases: Phases) -> Iterable[tuple[Price, int | None]]:
        if side == "callers":
            return zip(self.callers, phases, strict=False)
        return zip(self.upstream, phases[len(self.callers) :], strict=True)

    def currencies(self, side: Side) -> set[str]:
        """What is paid in, on one side."""
        rows: tuple[Price, ...] = getattr(self, side)
        return {row.tariff.currency for row in rows}


def amount(rates: Rates, tokens: int, cached: int, output: int) -> Decimal:
    """What tokens cost, exactly.

    tokens: of the prompt, `cached` of them from the cache
    """
    product = EXACT.multiply(rates.input, Decimal(tokens - cached))
    product = EXACT.add(product, EXACT.multiply(rates.cached, Decimal(cached)))
    return EXACT.scaleb(EXACT.add(product, EXACT.multiply(rates.output, Decimal(output))), MILLION)


def total(several: Sequence[Decimal]) -> Decimal:
    """A sum, exactly."""
    summed = Decimal(0)
    for value in several:
        summed = EXACT.add(summed, value)
    return summed


def written(value: Decimal) -> str:
    """An amount with all its digits, and two behind the point at least."""
    whole, _, part = f"{value.normalize(EXACT):f}".partition(".")
    return f"{whole}.{part.ljust(2, '0')}"


def load(path: Path) -> Prices:
    """The prices of a file; raises `PriceError`, `OSError`."""
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"), parse_float=Decimal)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise PriceError(f"{path}: {error}") from None
    try:
        return _prices(document)
    except PriceError as error:
        raise PriceError(f"{path}: {error}") from None


def _prices(document: dict[str, Any]) -> Prices:
    reader = _Table("the file", document, ("zone", "callers", "upstream"))
    zone = reader.value("zone", _zone, None)
    sides: dict[Side, tuple[Price, ...]] = {}
    for side in ONLY:
        rows = document.get(side, [])
        if not isinstance(rows, list):
            raise PriceError(f"{side}: write each row under [[{side}]]")
        read = [
            _price(_Table(f"[[{side}]] {n}", row, _ROW | {ONLY[side]}), side, zone) for n, row in enumerate(rows, 1)
        ]
        _refuse_twins(side, read)
        sides[side] = tuple(read)
    return Prices(sides["callers"], sides["upstream"])


class _Table:
    """A table of the file whose values are read by name; what nobody knows is refused."""

    def __init__(self, place: str, values: object, known: Sequence[str] | frozenset[str]) -> None:
        if not isinstance(values, dict):
            raise PriceError(f"{place}: is no table")
        if strange := sorted(set(values) - set(known)):
            raise PriceError(f"{place}: nothing is called {strange[0]}; there are {', '.join(sorted(known))}")
        self.place = place
        self.values: dict[str, Any] = values

    def value(self, name: str, read: Callable[[Any], Any], *default: Any) -> Any:
        if name not in self.values:
            if default:
                return default[0]
            raise PriceError(f"{self.place}: {name} is missing")
        try:
            return read(self.values[name])
        except (ValueError, TypeError, AttributeError, PeriodError) as error:
            raise PriceError(f"{self.place}: {name}: {error}") from None


_ROW: Final = frozenset({"model", "valid_from", "zone", "currency", "windows", *RATES})
_WINDOW: Final = frozenset({"days", "hours", "holidays", "factor", *RATES})


def _price(row: _Table, side: Side, zone: tzinfo | None) -> Price:
    zone = row.value("zone", _zone, zone)
    valid_from = row.value("valid_from", _moment)
    if valid_from.tzinfo is None:
        if zone is None:
            raise PriceError(
                f'{row.place}: valid_from: has no zone; say zone = "Asia/Shanghai" at the head of the file'
            )
        valid_from = valid_from.replace(tzinfo=zone)
    try:
        valid_from = valid_from.astimezone(UTC)
    except OverflowError:
        raise PriceError(f"{row.place}: valid_from: no calendar of UTC has it; say a later day") from None
    rates = Rates(*(row.value(name, _rate) for name in RATES))
    windows = row.value("windows", list, [])
    if windows and zone is None:
        raise PriceError(f'{row.place}: windows: have no zone; say zone = "Asia/Shanghai" at the head of the file')
    return Price(
        row.value("model", _text),
        row.value(ONLY[side], _text, None),
        valid_from,
        zone or UTC,
        Tariff(row.value("currency", _text), rates),
        tuple(
            _window(_Table(f"{row.place}, window {n}", window, _WINDOW), rates) for n, window in enumerate(windows, 1)
        ),
    )


def _window(table: _Table, rates: Rates) -> Window:
    factor = table.value("factor", _rate, None)
    if factor is not None:
        if said := sorted(set(RATES) & set(table.values)):
            raise PriceError(f"{table.place}: factor, or {said[0]}: not both")
        rates = Rates(*(EXACT.multiply(rate, factor) for rate in rates))
    else:
        rates = Rates(*(table.value(name, _rate) for name in RATES))
    return Window(
        table.value("days", _days, frozenset(range(len(DAYS)))),
        table.value("hours", _hours),
        table.value("holidays", _dates, frozenset()),
        rates,
    )


def _refuse_twins(side: Side, rows: Sequence[Price]) -> None:
    seen: set[tuple[str, str | None, datetime]] = set()
    for number, row in enumerate(rows, 1):
        if (what := (row.model, row.only, row.valid_from)) in seen:
            raise PriceError(f"[[{side}]] {number}: another row is for the same, from the same moment")
        seen.add(what)


def _zone(value: Any) -> tzinfo:
    return periods.zone_of(_text(value))


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError("is no text")
    return value


def _moment(value: Any) -> datetime:
    if isinstance(value, datetime):
        return value
    if isinstance(value, date):
        return datetime(value.year, value.month, value.day)  # noqa: DTZ001 - its zone is that of the row
    raise ValueError("is no date, such as 2026-09-10 or 2026-09-10T12:00:00+08:00, without quotation marks")


def _rate(value: Any) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        raise ValueError("is no number")
    rate = Decimal(value)
    if not rate.is_finite() or rate < 0:
        raise ValueError("is no amount from 0 up")
    return rate


def _days(value: Any) -> frozenset[int]:
    """`mon-fri`, or `mon sat`."""
    days: set[int] = set()
    for word in _text(value).lower().replace(",", " ").split():
        first, _, last = word.partition("-")
        if first not in DAYS or (last and last not in DAYS):
            raise ValueError(f"{word}: days are {' '.join(DAYS)}, or mon-fri")
        begin, end = DAYS.index(first), DAYS.index(last or first)
        days.update(range(begin, end + 1) if begin <= end else (*range(begin, len(DAYS)), *range(end + 1)))
    return frozenset(days)


def _hours(value: Any) -> tuple[tuple[int, int], ...]:
    """`09:00-12:00`, or several."""
    spans = []
    for span in [value] if isinstance(value, str) else value:
        begin, _, end = _text(span).partition("-")
        first, last = _minutes(begin), _minutes(end)
        if first in {last, 24 * 60}:
            raise ValueError(f"{span}: no time lies in it")
        spans.append((first, last))
    return tuple(spans)


def _minutes(text: str) -> int:
    hours, _, minutes = text.strip().partition(":")
    if not (hours.isdigit() and minutes.isdigit() and len(minutes) == 2):  # noqa: PLR2004 - as clocks write them
        raise ValueError(f"{text}: no time of day, such as 09:00")
    minute = int(hours) * 60 + int(minutes)
    if int(minutes) > 59 or minute > 24 * 60:  # noqa: PLR2004
        raise ValueError(f"{text}: no time of day")
    return minute


def _dates(value: Any) -> frozenset[date]:
    if not isinstance(value, list) or not all(type(day) is date for day in value):
        raise ValueError("is no list of dates, such as [2026-10-01, 2026-10-02]")
    return frozenset(value)
