"""Claims about time: whose hour, day and month a call is in, where clocks change, and which words name a moment."""

from __future__ import annotations

from datetime import UTC
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from proxy.metering import periods
from proxy.metering.periods import Grain, PeriodError, Span


@pytest.mark.parametrize(
    ("zone", "grain", "at", "label"),
    [
        ("UTC", "day", "2026-10-31T16:30:00.000Z", "2026-10-31"),
        ("Asia/Shanghai", "day", "2026-10-31T16:30:00.000Z", "2026-11-01"),
        ("Asia/Shanghai", "month", "2026-10-31T15:59:59.999Z", "2026-10"),
        ("Asia/Shanghai", "month", "2026-10-31T16:00:00.000Z", "2026-11"),
        ("Asia/Kathmandu", "hour", "2026-10-31T18:14:59.999Z", "2026-10-31T23+05:45"),
        ("Asia/Kathmandu", "hour", "2026-10-31T18:15:00.000Z", "2026-11-01T00+05:45"),
        ("-03:30", "day", "2026-11-01T03:29:00.000Z", "2026-10-31"),
    ],
)
def test_a_call_is_in_the_period_of_the_zone(zone: str, grain: Grain, at: str, label: str) -> None:
    assert Span(periods.zone_of(zone), grain).label(at) == label


def test_an_hour_that_comes_twice_is_two_hours() -> None:
    """The clocks of Berlin go back at 01:00 UTC."""
    span = Span(ZoneInfo("Europe/Berlin"), "hour")
    labels = [span.label(f"2026-10-25T0{hour}:30:00.000Z") for hour in range(3)]
    assert labels == ["2026-10-25T02+02:00", "2026-10-25T02+01:00", "2026-10-25T03+01:00"]


@pytest.mark.parametrize(
    ("text", "zone", "at"),
    [
        ("2026-11", "UTC", "2026-11-01T00:00:00.000Z"),
        ("2026-11", "Asia/Shanghai", "2026-10-31T16:00:00.000Z"),
        ("2026-11-28", "+08:00", "2026-11-27T16:00:00.000Z"),
        ("2026-11-28T20:00", "Asia/Shanghai", "2026-11-28T12:00:00.000Z"),
        ("2026-11-28T20:00+01:00", "Asia/Shanghai", "2026-11-28T19:00:00.000Z"),
        ("2026-11-28T20:00Z", "Asia/Shanghai", "2026-11-28T20:00:00.000Z"),
    ],
)
def test_a_month_a_day_and_a_time_name_their_first_moment(text: str, zone: str, at: str) -> None:
    assert periods.at_of(text, periods.zone_of(zone)) == at


@pytest.mark.parametrize("text", ["yesterday", "2026-13", "2026-02-30", "2026-11-28 25:00", ""])
def test_what_is_no_time_is_refused_in_a_sentence(text: str) -> None:
    with pytest.raises(PeriodError, match="no time; say"):
        periods.at_of(text, UTC)


@pytest.mark.parametrize(("text", "zone"), [("0001-01-01", "+08:00"), ("9999-12-31T20:00", "-05:00")])
def test_a_time_that_is_in_no_calendar_of_utc_is_refused(text: str, zone: str) -> None:
    with pytest.raises(PeriodError, match="no time; say"):
        periods.at_of(text, periods.zone_of(zone))
    assert periods.at_of(text, UTC).startswith(text)


def test_a_span_is_from_the_earlier_moment_until_the_later() -> None:
    assert periods.span_of(UTC, "day", None, None) == Span()
    month = periods.span_of(UTC, "hour", "2026-11", "2026-12")
    assert month == Span(UTC, "hour", "2026-11-01T00:00:00.000Z", "2026-12-01T00:00:00.000Z")
    # No time at all is a span, of no call.
    assert periods.span_of(UTC, "day", "2026-11", "2026-11").since == "2026-11-01T00:00:00.000Z"
    with pytest.raises(PeriodError, match="nothing lies from 2026-12 until 2026-11, which is earlier"):
        periods.span_of(UTC, "day", "2026-12", "2026-11")


@pytest.mark.parametrize("name", ["Mars/Olympus", "CST-8", "/etc/passwd", "../x", "+8", "+25:00", "Asia", "x\0"])
def test_what_is_no_zone_is_refused_in_a_sentence(name: str) -> None:
    with pytest.raises(PeriodError, match="no such zone"):
        periods.zone_of(name)


@pytest.mark.parametrize("name", ["UTC", "+08:00", "-03:30", "Asia/Shanghai"])
def test_a_zone_is_named_as_it_is_read(name: str) -> None:
    assert periods.name_of(periods.zone_of(name)) == name


def test_the_machines_zone_is_what_tz_says_and_else_what_localtime_links_to(tmp_path: Path) -> None:
    table = tmp_path / "zoneinfo" / "Asia" / "Tokyo"
    table.parent.mkdir(parents=True)
    table.touch()
    (link := tmp_path / "localtime").symlink_to(table)
    assert periods.name_of(periods.machine_zone({}, link)) == "Asia/Tokyo"
    assert periods.name_of(periods.machine_zone({"TZ": ":Europe/Paris"}, link)) == "Europe/Paris"
    assert periods.machine_zone({}, tmp_path / "nothing") is UTC
    for path in (f":{link}", "/usr/share/zoneinfo/Asia/Tokyo"):
        assert periods.name_of(periods.machine_zone({"TZ": path}, tmp_path / "nothing")) == "Asia/Tokyo"
    with pytest.raises(PeriodError, match="no table of a zone"):
        periods.machine_zone({"TZ": f":{tmp_path}/nothing"}, link)
    with pytest.raises(PeriodError):
        periods.machine_zone({"TZ": "CST-8"}, link)
