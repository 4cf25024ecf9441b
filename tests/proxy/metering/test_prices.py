"""Claims about prices: the row and the window that hold, exact sums, and a sentence for every mistake in the file."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from pathlib import Path

import pytest

from proxy.metering import prices
from proxy.metering.prices import PriceError, Prices, Rates, Side, Tariff

HEAD = 'zone = "Asia/Shanghai"\n'
ROW = 'currency = "CNY"\ninput = 2\ncached = 0.2\noutput = 8.5\n'


def loaded(path: Path, text: str) -> Prices:
    path.write_text(text)
    return prices.load(path)


def row(side: Side = "upstream", model: str = "m", valid_from: str = "2026-01-01", rest: str = ROW) -> str:
    return f'[[{side}]]\nmodel = "{model}"\nvalid_from = {valid_from}\n{rest}'


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "prices.toml"


def paid(read: Prices, at: str, model: str = "m", only: str = "-", side: Side = "upstream") -> str | None:
    tariff = read.tariff(side, model, only, read.phases(datetime.fromisoformat(at)))
    return f"{tariff.currency} {tariff.rates.output}" if tariff else None


def test_a_price_holds_from_its_first_moment_until_the_next(path: Path) -> None:
    read = loaded(
        path,
        HEAD + row() + row(valid_from="2026-09-10T12:00:00+08:00", rest=ROW.replace("8.5", "9")),
    )
    assert paid(read, "2025-12-31T15:59:00+00:00") is None
    assert paid(read, "2025-12-31T16:00:00+00:00") == "CNY 8.5"
    assert paid(read, "2026-09-10T03:59:00+00:00") == "CNY 8.5"
    assert paid(read, "2026-09-10T04:00:00+00:00") == "CNY 9"


def test_the_nearest_row_counts(path: Path) -> None:
    """A key's own, then a model's own, then that of all others; a later row of the others changes nothing."""
    text = HEAD + row("callers", "*", "2026-06-01", ROW.replace("8.5", "1"))
    text += row("callers", "m", rest=ROW.replace("8.5", "2"))
    text += row("callers", "*", rest='key = "team a"\n' + ROW.replace("8.5", "3"))
    text += row("callers", "m", "2026-07-01", 'key = "team a"\n' + ROW.replace("8.5", "4"))
    read = loaded(path, text)
    at = "2026-06-15T00:00:00+00:00"
    assert paid(read, at, "x", side="callers") == "CNY 1"
    assert paid(read, at, "m", side="callers") == "CNY 2"
    assert paid(read, at, "m", "team a", side="callers") == "CNY 3"
    assert paid(read, "2026-07-15T00:00:00+00:00", "m", "team a", side="callers") == "CNY 4"
    assert paid(read, at, "m") is None
    assert (read.currencies("callers"), read.currencies("upstream")) == ({"CNY"}, set())


WINDOW = """[[upstream.windows]]
days = "mon-fri"
hours = ["09:00-12:00", "14:00-18:00"]
holidays = [2026-10-01]
factor = 2
"""


@pytest.mark.parametrize(
    ("at", "output"),
    [
        ("2026-09-30T08:59+08:00", "8.5"),
        ("2026-09-30T09:00+08:00", "17.0"),
        ("2026-09-30T11:59+08:00", "17.0"),
        ("2026-09-30T12:00+08:00", "8.5"),
        ("2026-09-30T17:59+08:00", "17.0"),
        ("2026-10-01T09:00+08:00", "8.5"),
        ("2026-10-03T09:00+08:00", "8.5"),
        ("2026-09-30T01:30+00:00", "17.0"),
    ],
)
def test_a_window_holds_in_the_hours_of_its_zone_but_on_holidays(path: Path, at: str, output: str) -> None:
    """As DeepSeek's peak hours: Beijing's working hours, Chinese holidays excepted."""
    assert paid(loaded(path, HEAD + row() + WINDOW), at) == f"CNY {output}"


@pytest.mark.parametrize(
    ("at", "output"),
    [
        ("2026-10-02T21:59+08:00", "8.5"),
        ("2026-10-02T22:00+08:00", "1"),
        ("2026-10-02T22:30+08:00", "1"),
        ("2026-10-03T01:59+08:00", "1"),
        ("2026-10-03T02:00+08:00", "8.5"),
        ("2026-10-03T22:30+08:00", "8.5"),
        ("2026-10-02T01:00+08:00", "8.5"),
    ],
)
def test_a_window_over_midnight_belongs_to_the_day_it_begins_on(path: Path, at: str, output: str) -> None:
    window = '[[upstream.windows]]\ndays = "fri"\nhours = "22:00-02:00"\ninput = 1\ncached = 1\noutput = 1\n'
    assert paid(loaded(path, HEAD + row() + window), at) == f"CNY {output}"


def test_a_window_follows_the_clocks_where_they_change(path: Path) -> None:
    """02:00–03:00 in Berlin: two hours long when the clocks go back, none when they go forward."""
    window = '[[upstream.windows]]\nhours = "02:00-03:00"\nfactor = 2\n'
    read = loaded(path, 'zone = "Europe/Berlin"\n' + row() + window)
    doubled = [hour for hour in range(24) if paid(read, f"2026-10-25T{hour:02}:30+00:00") == "CNY 17.0"]
    assert doubled == [0, 1]
    assert not [hour for hour in range(12) if paid(read, f"2026-03-29T{hour:02}:30+00:00") == "CNY 17.0"]


def test_sums_are_exact_to_the_last_digit() -> None:
    rates = Rates(Decimal("0.0028"), Decimal("1e-9"), Decimal("3.141592653589793"))
    cost = prices.amount(rates, 10**15 + 1, 1, 7)
    assert cost == Decimal("0.0028") * 10**9 + Decimal("1e-15") + Decimal("3.141592653589793") * 7 / 10**6
    assert prices.total([Decimal("0.1")] * 10) == 1
    assert prices.written(Decimal("12.5")) == "12.50"
    assert prices.written(Decimal("-0.000000021")) == "-0.000000021"
    assert prices.written(Decimal("1E+3")) == "1000.00"


def test_prices_may_be_of_one_side_alone(path: Path) -> None:
    assert loaded(path, "") == Prices((), ())
    assert loaded(path, HEAD + row()).callers == ()
    tariff = loaded(path, HEAD + row()).upstream[0].tariff
    assert tariff == Tariff("CNY", Rates(Decimal(2), Decimal("0.2"), Decimal("8.5")))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[[upstream]", "prices.toml: "),
        ("nothing = 1", "the file: nothing is called nothing; there are callers, upstream, zone"),
        ('zone = "Mars"', "the file: zone: Mars: no such zone here"),
        ("upstream = 1", "upstream: write each row under [[upstream]]"),
        ("upstream = [1]", "[[upstream]] 1: is no table"),
        (row(), "[[upstream]] 1: valid_from: has no zone"),
        (HEAD + row(valid_from='"2026-01-01"'), "valid_from: is no date"),
        (row(valid_from="0001-01-01T00:00:00+08:00"), "[[upstream]] 1: valid_from: no calendar of UTC has it"),
        (HEAD + row(model=""), "model: is no text"),
        (HEAD + row() + 'key = "a"', "nothing is called key"),
        (HEAD + row(rest=ROW.replace("8.5", "-1")), "output: is no amount from 0 up"),
        (HEAD + row(rest=ROW.replace("8.5", "nan")), "output: is no amount from 0 up"),
        (HEAD + row(rest=ROW.replace("8.5", "true")), "output: is no number"),
        (HEAD + row(rest=ROW.replace("8.5", '"8.5"')), "output: is no number"),
        (HEAD + row(rest=ROW.replace("output", "# output")), "output is missing"),
        (HEAD + row() + row(), "[[upstream]] 2: another row is for the same, from the same moment"),
        (row(valid_from="2026-01-01T00:00:00Z") + WINDOW, "windows: have no zone"),
        (HEAD + row() + WINDOW.replace("mon-fri", "moon"), "window 1: days: moon"),
        (HEAD + row() + WINDOW.replace("mon-fri", "mon-moon"), "window 1: days: mon-moon"),
        (HEAD + row() + WINDOW.replace("09:00-12:00", "9-12"), "hours: 9: no time of day"),
        (HEAD + row() + WINDOW.replace("09:00-12:00", "09:60-12:00"), "hours: 09:60: no time of day"),
        (HEAD + row() + WINDOW.replace("09:00-12:00", "09:00-24:01"), "hours: 24:01: no time of day"),
        (HEAD + row() + WINDOW.replace("09:00-12:00", "09:00-09:00"), "no time lies in it"),
        (HEAD + row() + WINDOW.replace("09:00-12:00", "24:00-02:00"), "no time lies in it"),
        (HEAD + row() + WINDOW.replace("2026-10-01", '"2026-10-01"'), "holidays: is no list of dates"),
        (HEAD + row() + WINDOW.replace("2026-10-01", '2026-10-01, "2026-10-02"'), "holidays: is no list of dates"),
        (HEAD + row() + WINDOW + "input = 2", "factor, or input: not both"),
        (HEAD + row() + WINDOW.replace("factor", "# factor"), "input is missing"),
        (HEAD + "[[upstream]]\nwindows = 1\n" + row().partition("\n")[2], "windows: "),
    ],
)
def test_a_mistake_in_the_file_is_named_with_its_place(path: Path, text: str, sentence: str) -> None:
    with pytest.raises(PriceError) as caught:
        loaded(path, text)
    assert str(caught.value).startswith(f"{path}: ")
    assert sentence in str(caught.value)


def test_days_may_be_listed_and_go_over_the_end_of_the_week(path: Path) -> None:
    window = '[[upstream.windows]]\ndays = "sat-mon, wed"\nhours = "00:00-24:00"\nfactor = 0\n'
    read = loaded(path, HEAD + row() + window)
    free = [day for day in range(5, 12) if paid(read, f"2026-10-{day:02}T12:00+08:00") == "CNY 0.0"]
    assert free == [5, 7, 10, 11]


def test_a_window_may_end_at_any_minute(path: Path) -> None:
    window = '[[upstream.windows]]\nhours = "00:00-09:59"\nfactor = 0\n'
    read = loaded(path, HEAD + row() + window)
    assert [paid(read, f"2026-10-05T09:{minute}+08:00") for minute in (58, 59)] == ["CNY 0.0", "CNY 8.5"]
