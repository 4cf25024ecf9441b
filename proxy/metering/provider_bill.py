"""A provider's export of what it bills, CSV files or a ZIP of them, into lines by day, model, key name and type.

What is known of DeepSeek's export is from programs that read it, not from DeepSeek: `amount-*.csv` has a row for each
day (or hour), model, key and type, with the price of one token, another row where the price changed within the day;
`cost-*.csv` a row for each day, model and wallet, without keys. Until July 2026 days were `utc_date`, `20260725` or
`2026-07-25`; since August a row has a beginning and an end with the offset of the zone asked for. Not known: whether a
call counts where it began or where it ended, and whether refused calls are among the requests.
"""

from __future__ import annotations

import csv
import io
import tomllib
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import MAXYEAR, MINYEAR, UTC, date, datetime, timedelta, tzinfo
from decimal import Decimal, InvalidOperation
from pathlib import Path, PurePosixPath
from typing import Any, Final, Literal, get_args

from proxy.metering import periods
from proxy.metering.periods import PeriodError

# What of a call is billed: `input` is the prompt without what was cached, `prompt` with it, where a provider does not
# tell them apart; the figures are tokens, and calls upstream.
Kind = Literal["input", "cached", "prompt", "output", "requests"]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)


class BillError(Exception):
    """An export, or a mapping of one, that cannot be read; the sentence names the place in it."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Which column of an export says what; a file is read by the first layout whose columns it has.

    day:      a date, or the moment at which the row's hour or day begins
    end:      the moment at which it ends; None: there is no such column
    zone:     of days that have no offset; None where all have one
    model:    the provider's name of it
    key:      the name of the key; None where the file does not tell keys apart
    type:     what was billed, one of `types`; None where each kind has a column
    types:    the file's word for each kind, for what has no word here is a line of its own
    amount:   how many, of the type
    price:    of one token; may be empty
    columns:  where each kind has a column of its own: its kind, by column
    cost:     money; None where the file has none
    currency: the column that names it
    once:     whether no row may be there twice
    """

    day: str
    model: str
    end: str | None = None
    zone: tzinfo | None = None
    key: str | None = None
    type: str | None = None
    types: Mapping[str, Kind] = field(default_factory=dict)
    amount: str | None = None
    price: str | None = None
    columns: Mapping[str, Kind] = field(default_factory=dict)
    cost: str | None = None
    currency: str | None = None
    once: bool = False

    def fits(self, header: Iterable[str]) -> bool:
        """Whether a file with these columns is read by it."""
        named = (self.day, self.end, self.model, self.key, self.type, self.amount, self.price, self.cost, self.currency)
        return {*filter(None, named), *self.columns} <= set(header)


_TYPES: Final[Mapping[str, Kind]] = {
    "input_cache_miss_tokens": "input",
    "input_cache_hit_tokens": "cached",
    "output_tokens": "output",
    "request_count": "requests",
}
DEEPSEEK: Final = tuple(
    Layout(**day, model="model", once=True, **rest)
    for day in ({"day": "start_time_iso", "end": "end_time_iso"}, {"day": "utc_date", "zone": UTC})
    for rest in (
        {"key": "api_key_name", "type": "type", "types": _TYPES, "amount": "amount", "price": "price"},
        {"cost": "cost", "currency": "currency"},
    )
)


@dataclass(frozen=True, slots=True)
class Mapped:
    """What a mapping file says.

    layouts: how the export is read
    models:  the provider's name of a model, by its id upstream, where they differ
    keys:    the provider's name of a key, by the caller's key name or fingerprint; `*`: of all others
    """

    layouts: tuple[Layout, ...] = DEEPSEEK
    models: Mapping[str, str] = field(default_factory=dict)
    keys: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Line:
    """One thing that was billed.

    day:  in the zone of the bill
    key:  its name; None where the file does not tell keys apart
    type: a kind, or the provider's own word for what is none
    price: of one; None where the bill has none
    """

    day: date
    model: str
    key: str | None
    type: str
    amount: Decimal
    price: Decimal | None


@dataclass(frozen=True, slots=True)
class Cost:
    """Money that was taken for a day of a model, in one currency."""

    day: date
    model: str
    currency: str
    amount: Decimal


@dataclass(slots=True)
class Bill:
    """A provider's export.

    zone:  of its days
    lines: what was used
    costs: what was taken for it
    """

    zone: tzinfo = UTC
    lines: list[Line] = field(default_factory=list)
    costs: list[Cost] = field(default_factory=list)

    def days(self) -> tuple[date, date] | None:
        """The first and the last day it speaks of."""
        days = [*(line.day for line in self.lines), *(cost.day for cost in self.costs)]
        return (min(days), max(days)) if days else None


def load(paths: Sequence[Path], mapped: Mapped, zone: tzinfo | None) -> Bill:
    """A bill, of several files or one ZIP; raises `BillError`, `OSError`.

    zone: that its days shall be of; None: its own
    """
    rows = [row for path in paths for row in _rows(path, mapped.layouts)]
    bill = Bill(zone or _zone_of(rows))
    seen: dict[tuple[str, ...], str] = {}
    for row in rows:
        if row.layout.once:
            what = tuple(row.values.values())
            if (other := seen.setdefault(what, row.place)) != row.place:
                raise BillError(f"{row.place}: is the same row as {other}: is a file named twice?")
        _read(row, bill)
    return bill


@dataclass(frozen=True, slots=True)
class _Row:
    place: str
    layout: Layout
    values: dict[str, str]
    begin: datetime
    is_day: bool

    def number(self, column: str) -> Decimal:
        text = self.values[column].strip()
        try:
            number = Decimal(text)
        except InvalidOperation:
            number = Decimal("NaN")
        if not number.is_finite():
            raise BillError(f"{self.place}: {column}: {text or 'nothing'} is no number")
        return number


def _rows(path: Path, layouts: Sequence[Layout]) -> Iterator[_Row]:
    for name, text in _texts(path):
        reader = csv.DictReader(io.StringIO(text, newline=""))
        header = reader.fieldnames or ()
        layout = next((layout for layout in layouts if layout.fits(header)), None)
        if layout is None:
            raise BillError(
                f"{name}: no layout is known for its columns {', '.join(header) or '(none)'}; see --mapping"
            )
        for values in reader:
            place = f"{name}:{reader.line_num}"
            if None in values or None in values.values():
                raise BillError(f"{place}: has not as many columns as the first line")
            begin, is_day = _begin(place, values[layout.day], layout.zone)
            yield _Row(place, layout, values, begin, is_day)


def _texts(path: Path) -> Iterator[tuple[str, str]]:
    """The CSV files in it, without the byte order mark."""
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                for name in sorted(filter(_is_export, archive.namelist())):
                    yield f"{path}/{name}", archive.read(name).decode("utf-8-sig")
        else:
            yield str(path), path.read_text(encoding="utf-8-sig")
    except (UnicodeDecodeError, zipfile.BadZipFile) as error:
        raise BillError(f"{path}: {error}") from None


def _is_export(name: str) -> bool:
    """Whether a member of a ZIP is a CSV file of the provider's: macOS adds `__MACOSX/._NAME`, its notes on each."""
    path = PurePosixPath(name)
    return path.suffix.lower() == ".csv" and path.parts[0] != "__MACOSX" and not path.name.startswith("._")


# Years of which a day may lie outside of the calendar, in a zone beside.
_EDGES: Final = (MINYEAR, MAXYEAR)


def _begin(place: str, text: str, zone: tzinfo | None) -> tuple[datetime, bool]:
    """When a row begins, and whether it says a day alone."""
    try:
        begin = datetime.fromisoformat(text.strip())
    except ValueError:
        raise BillError(f"{place}: {text or 'nothing'} is no day") from None
    if begin.year in _EDGES:
        raise BillError(f"{place}: {text}: not all zones have a day of that year")
    if begin.tzinfo is not None:
        return begin, False
    if zone is None:
        raise BillError(f"{place}: {text}: has no offset from UTC; say the zone in --mapping")
    return begin.replace(tzinfo=zone), begin.time() == datetime.min.time()


def _zone_of(rows: Sequence[_Row]) -> tzinfo:
    """The zone of the bill's days: that of the layout, or the one offset that all rows have."""
    zones = {row.layout.zone or row.begin.tzinfo or UTC for row in rows}
    if len(zones) > 1:
        raise BillError("its days have several offsets from UTC, or zones; say the one to go by with --tz")
    return zones.pop() if zones else UTC


def _read(row: _Row, bill: Bill) -> None:
    layout = row.layout
    day = _day(row, bill.zone)
    model = row.values[layout.model].strip()
    if layout.cost is not None:
        currency = row.values[layout.currency].strip() if layout.currency else ""
        bill.costs.append(Cost(day, model, currency, row.number(layout.cost)))
    key = row.values[layout.key].strip() if layout.key else None
    for type_, column in _amounts(row):
        price = row.number(layout.price) if layout.price and row.values[layout.price].strip() else None
        bill.lines.append(Line(day, model, key, type_, row.number(column), price))


def _amounts(row: _Row) -> Iterator[tuple[str, str]]:
    """What is billed in a row, and the column that says how much."""
    layout = row.layout
    if layout.type is not None and layout.amount is not None:
        word = row.values[layout.type].strip()
        yield layout.types.get(word, word), layout.amount
    for column, kind in layout.columns.items():
        yield kind, column


def _day(row: _Row, zone: tzinfo) -> date:
    begin = row.begin.astimezone(zone)
    if row.is_day and begin.utcoffset() == row.begin.utcoffset():
        return row.begin.date()
    if row.is_day:
        end = row.begin + timedelta(days=1)
    elif row.layout.end is not None:
        end, _ = _begin(row.place, row.values[row.layout.end], row.layout.zone)
    else:
        end = row.begin
    last = max(row.begin, end - timedelta(microseconds=1))
    if last.astimezone(zone).date() != begin.date():
        raise BillError(f"{row.place}: does not lie within one day of {periods.name_of(zone)}: see --tz")
    return begin.date()


def load_mapping(path: Path) -> Mapped:
    """A mapping of a provider's export; raises `BillError`, `OSError`."""
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
        layouts = tuple(_layout(table) for table in document.get("layout", []))
        _only(document, {"layout", "models", "keys"})
        return Mapped(layouts or DEEPSEEK, _names(document, "models"), _names(document, "keys"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, PeriodError, ValueError, TypeError) as error:
        raise BillError(f"{path}: {error}") from None


_COLUMNS: Final = ("day", "end", "model", "key", "type", "amount", "price", "cost", "currency")


def _layout(table: dict[str, Any]) -> Layout:
    _only(table, {*_COLUMNS, "zone", "types", "columns"})
    for name in ("day", "model"):
        if name not in table:
            raise ValueError(f"[[layout]]: {name} is missing")
    words: dict[str, Any] = {name: str(table[name]) for name in _COLUMNS if name in table}
    if "zone" in table:
        words["zone"] = periods.zone_of(table["zone"])
    types, columns = _names(table, "types"), _names(table, "columns")
    for kind in (*types.values(), *columns.values()):
        if kind not in KINDS:
            raise ValueError(f"[[layout]]: {kind}: kinds are {', '.join(KINDS)}")
    if ("type" in words) != ("amount" in words) or not ({"type", "cost"} & words.keys() or columns):
        raise ValueError("[[layout]]: says not what is billed: type and amount, columns, or cost")
    return Layout(**words, types=types, columns=columns)


def _names(table: Mapping[str, Any], name: str) -> dict[str, Any]:
    names = table.get(name, {})
    if not isinstance(names, dict) or not all(isinstance(value, str) for value in names.values()):
        raise ValueError(f"{name} is no table of texts")
    return names


def _only(table: Mapping[str, Any], known: set[str]) -> None:
    if strange := sorted(set(table) - known):
        raise ValueError(f"nothing is called {strange[0]}; there are {', '.join(sorted(known))}")
