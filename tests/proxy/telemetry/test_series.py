"""Claims about the text a scraper gets, and about the sum of several processes."""

from __future__ import annotations

import pytest
from prometheus_client import parser
from prometheus_client.openmetrics import parser as openmetrics

from proxy.telemetry import series

CALLS = series.MetricRow("calls_total", "counter", "Calls.", ("model",))
DROPPED = series.MetricRow("dropped_total", "counter", "Dropped.")
WAIT = series.MetricRow("wait_seconds", "histogram", "Waits.", ("phase",), (0.1, 1))
WELL = series.MetricRow("well", "gauge", "Well.", across=min)
ROWS = (CALLS, DROPPED, WAIT, WELL)


def samples(*readings: series.Reading, accept: str = "") -> dict[tuple[str, ...], float]:
    text, _ = series.expose(ROWS, readings, accept)
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in parser.text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def counted(*values_s: float, calls: int = 1) -> series.Reading:
    found = series.Counters(ROWS[:3])
    found.add(CALLS, ("a",), calls)
    for value_s in values_s:
        found.observe(WAIT, value_s, ("read",))
    return found.read() | {"well": {(): [1.0]}}


def test_a_value_on_a_bound_is_within_it_and_buckets_are_cumulative() -> None:
    found = samples(counted(0.05, 0.1, 0.5, 7))
    assert [found["wait_seconds_bucket", le, "read"] for le in ("0.1", "1.0", "+Inf")] == [2, 3, 4]
    assert found["wait_seconds_count", "read"] == 4
    assert found["wait_seconds_sum", "read"] == pytest.approx(7.65)


def test_what_has_no_labels_is_there_before_it_happens() -> None:
    """An alert on an increase must see the zero it increases from."""
    assert samples(series.Counters(ROWS[:3]).read()) == {("dropped_total",): 0}


def test_the_readings_of_several_processes_add_up() -> None:
    """But what each is well by is the worst of them."""
    ill = counted(0.5, calls=5) | {"well": {(): [0.0]}}
    found = samples(counted(0.05), ill, {})
    assert found["calls_total", "a"] == 6
    assert found["wait_seconds_count", "read"] == 2
    assert found["wait_seconds_sum", "read"] == pytest.approx(0.55)
    assert found["well",] == 0


def test_a_reading_stands_still() -> None:
    found = series.Counters(ROWS[:3])
    before = found.read()
    found.add(DROPPED)
    assert samples(before)["dropped_total",] == 0


def test_a_scraper_may_ask_for_openmetrics() -> None:
    text, content_type = series.expose(ROWS, [counted(0.05)], "application/openmetrics-text;version=1.0.0")
    assert content_type.startswith("application/openmetrics-text; version=1.0.0")
    names = [family.name for family in openmetrics.text_string_to_metric_families(text.decode())]
    assert names == ["calls", "dropped", "wait_seconds", "well"]


def test_there_is_no_created_series() -> None:
    assert b"_created" not in series.expose(ROWS, [counted(0.05)])[0]


def test_a_series_is_counted_in_again_by_whoever_asked_for_it() -> None:
    found = series.Counters(ROWS[:3])
    for labels in (("a",), ("a",), ("b",)):
        found.of(CALLS, labels)[0] += 2
    found.of(WAIT, ("read",))[-1] += 0.5
    found.of(DROPPED)[0] += 1
    assert found.read() == {
        "calls_total": {("a",): [4], ("b",): [2]},
        "dropped_total": {(): [1]},
        "wait_seconds": {("read",): [0, 0, 0, 0.5]},
    }


def test_what_processes_that_have_ended_had_counted_is_added_to_their_sum() -> None:
    total: series.Reading = {}
    for calls in (1, 2):
        reading = counted(0.5, calls=calls)
        series.add_to(total, reading)
        # What was added is no part of the sum: it goes on by itself.
        reading["calls_total"]["a",][0] = 99
    assert total == {
        "calls_total": {("a",): [3]},
        "dropped_total": {(): [0]},
        "wait_seconds": {("read",): [0, 2, 0, 1]},
        "well": {(): [2]},
    }
