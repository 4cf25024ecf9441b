"""Numbers that only grow, and gauges read when asked for, into what Prometheus scrapes.

Counting is plain arithmetic on lists of one thread: prometheus-client's own objects lock and loop, which a call with
twenty numbers would feel (20 µs against 5). The library writes the text. A reading is plain data, so that the readings
of several processes can be sent and added up.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal

from prometheus_client import core, exposition

Labels = tuple[str, ...]
# By name and labels: a counter or gauge is one number; a histogram one for each bucket, +Inf, and the sum.
Reading = dict[str, dict[Labels, list[float]]]


@dataclass(frozen=True, slots=True)
class MetricRow:
    """One metric.

    name:    as it is scraped, unit included, in base units
    meaning: its help text
    labels:  names of its labels; their values come from closed sets
    buckets: upper bounds, for a histogram; +Inf is added
    across:  what the numbers of several processes make together
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    meaning: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    across: Callable[[Iterable[float]], float] = sum

    @property
    def zero(self) -> list[float]:
        """A series at zero."""
        return [0.0] * (len(self.buckets) + 2 if self.kind == "histogram" else 1)


class Counters:
    """What was counted so far in this process; a row without labels is there from the start, with zero."""

    __slots__ = ("_series",)

    def __init__(self, rows: Iterable[MetricRow]) -> None:
        self._series: Reading = {row.name: {} if row.labels else {(): row.zero} for row in rows}

    def of(self, row: MetricRow, labels: Labels = ()) -> list[float]:
        """One series, for whoever will count in it again: one number, or a histogram's."""
        return self._series[row.name].get(labels) or self._begun(row, labels)

    def add(self, row: MetricRow, labels: Labels = (), amount: float = 1.0) -> None:
        """Count more of something."""
        series = self._series[row.name].get(labels) or self._begun(row, labels)
        series[0] += amount

    def observe(self, row: MetricRow, value: float, labels: Labels = ()) -> None:
        """Add one value to a histogram."""
        series = self._series[row.name].get(labels) or self._begun(row, labels)
        series[bisect_left(row.buckets, value)] += 1
        series[-1] += value

    def read(self) -> Reading:
        """A copy of everything."""
        return {name: {labels: [*series] for labels, series in found.items()} for name, found in self._series.items()}

    def _begun(self, row: MetricRow, labels: Labels) -> list[float]:
        self._series[row.name][labels] = series = row.zero
        return series


def add_to(total: Reading, more: Reading) -> None:
    """Add a reading of what only grows to the sum of others."""
    for name, found in more.items():
        series = total.setdefault(name, {})
        for labels, values in found.items():
            known = series.get(labels)
            series[labels] = [*values] if known is None else [*map(sum, zip(known, values, strict=True))]


def expose(rows: Iterable[MetricRow], readings: Sequence[Reading], accept: str = "") -> tuple[bytes, str]:
    """The readings of all processes, as one text and its content type.

    accept: the scraper's `Accept`, by which it may ask for OpenMetrics
    """
    encode, content_type = exposition.choose_encoder(accept)
    return encode(_Collected(rows, readings)), content_type


@dataclass(frozen=True, slots=True)
class _Collected:
    """What prometheus-client takes for a registry."""

    rows: Iterable[MetricRow]
    readings: Sequence[Reading]

    def collect(self) -> Iterator[core.Metric]:
        """One family for each row."""
        for row in self.rows:
            yield _family(row, _together(row, [reading.get(row.name, {}) for reading in self.readings]))


def _together(row: MetricRow, found: Sequence[Mapping[Labels, list[float]]]) -> dict[Labels, list[float]]:
    every = dict.fromkeys(labels for series in found for labels in series)
    return {
        labels: [
            row.across(part) for part in zip(*(series[labels] for series in found if labels in series), strict=True)
        ]
        for labels in every
    }


def _family(row: MetricRow, found: Mapping[Labels, list[float]]) -> core.Metric:
    if row.kind == "histogram":
        histogram = core.HistogramMetricFamily(row.name, row.meaning, labels=row.labels)
        bounds = [*(str(float(bound)) for bound in row.buckets), "+Inf"]
        for labels, (*counts, total) in found.items():
            histogram.add_metric(labels, [*zip(bounds, accumulate(counts), strict=True)], total)
        return histogram
    kind = core.CounterMetricFamily if row.kind == "counter" else core.GaugeMetricFamily
    family: core.CounterMetricFamily | core.GaugeMetricFamily = kind(row.name, row.meaning, labels=row.labels)
    for labels, (value,) in found.items():
        family.add_metric(labels, value)
    return family
