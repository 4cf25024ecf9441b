"""Calls that have ended, and the state of the process, into metrics; published once a call, never for a chunk.

Names and buckets of `gen_ai_*` are OpenTelemetry's for servers; ours are longer where a chain of thought runs for
minutes. No label holds what a caller can invent: a model that is not in the table is `other`.

Source: SOURCES#metric-names.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import platform
from bisect import bisect_left
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus
from time import monotonic
from typing import Final

from proxy.admission import limits
from proxy.metering.journal import Outcome, Record
from proxy.telemetry import installed, process_figures
from proxy.telemetry.log_writer import Lines
from proxy.telemetry.series import Counters, Labels, MetricRow, Reading

OTHER: Final = "other"
CHAT: Final = "chat"
# Of every row that is of calls, `api` is the tongue they came in.
GEN_AI: Final = ("gen_ai_request_model", "gen_ai_operation_name", "api")
LAG_EVERY_S: Final = 0.25
SHORT_S: Final = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)

DURATION: Final = MetricRow(
    "gen_ai_server_request_duration_seconds",
    "histogram",
    "From a call's head to its last byte; error_type is its outcome where that is not ok.",
    (*GEN_AI, "error_type"),
    tuple(2**step / 100 for step in range(17)),
)
FIRST_TOKEN: Final = MetricRow(
    "gen_ai_server_time_to_first_token_seconds",
    "histogram",
    "From a call's head to its first packet; of calls for packets.",
    GEN_AI,
    (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 15, 20, 30, 45, 60),
)
PER_TOKEN: Final = MetricRow(
    "gen_ai_server_time_per_output_token_seconds",
    "histogram",
    "From the first packet to the last, by token after the first; of calls for packets.",
    GEN_AI,
    (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5),
)
REQUESTS: Final = MetricRow(
    "dashseek_requests_total",
    "counter",
    "Calls that have ended; api is the tongue they came in, dashscope or openai; mode is sse or json (also where one "
    "was refused unread); code is ok, DashScope's, or none where the caller had left (status 499).",
    ("api", "model", "mode", "status", "code", "outcome"),
)
TOKENS: Final = MetricRow(
    "dashseek_tokens_total",
    "counter",
    "Tokens that upstream produced or read, and whose figure that is; reasoning is a part of output, cached of input.",
    ("api", "model", "type", "basis"),
)
DELIVERED: Final = MetricRow(
    "dashseek_delivered_tokens_total",
    "counter",
    "Tokens that the last packet handed to the caller named: what is billed.",
    ("api", "model", "type"),
)
CANCELLED: Final = MetricRow(
    "dashseek_cancelled_total", "counter", "Calls whose caller left or stopped reading.", ("phase",)
)
RECORDS: Final = MetricRow(
    "dashseek_usage_records_total", "counter", "Calls that were written down, by how they ended.", ("outcome",)
)
ATTEMPTS: Final = MetricRow(
    "dashseek_upstream_attempts_total",
    "counter",
    "Tries upstream: the status that came, the error that kept it from coming, or open where nobody waited for it. "
    "pool is empty where there is but the one of --upstream.",
    ("pool", "target", "result", "retry"),
)
REJECTIONS: Final = MetricRow(
    "dashseek_limit_rejections_total", "counter", "Calls refused for being over a limit of ours.", ("limit",)
)
DRIFT: Final = MetricRow(
    "dashseek_usage_drift_tokens",
    "histogram",
    "Upstream's prompt tokens less our count of them, without the sign.",
    (),
    (0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000),
)
OVERHEAD: Final = MetricRow(
    "dashseek_overhead_seconds",
    "histogram",
    "What is spent here: read is the caller's body coming in, translate from there to the upstream call, close what "
    "follows the last packet.",
    ("phase",),
    SHORT_S,
)
LAG: Final = MetricRow(
    "dashseek_event_loop_lag_seconds",
    "histogram",
    "How late a timer of the event loop fires, four times a second: every open stream waits so long.",
    (),
    SHORT_S,
)
STRAYS: Final = MetricRow(
    "dashseek_stray_requests_total",
    "counter",
    "Requests to the data port that were no call: no such path, another method, a website's, a TLS hello; none of them "
    "is in the rows above.",
    ("status",),
)
COUNTED: Final = (
    *(DURATION, FIRST_TOKEN, PER_TOKEN, REQUESTS, TOKENS, DELIVERED, CANCELLED, RECORDS),
    *(ATTEMPTS, REJECTIONS, DRIFT, OVERHEAD, LAG, STRAYS),
)


# What is read from its place when it is asked for, and costs nothing until then.
IN_FLIGHT: Final = MetricRow("dashseek_requests_in_flight", "gauge", "Calls that are open.")
STREAMS: Final = MetricRow("dashseek_streams_open", "gauge", "Open calls that are answered in packets.")
CONNECTIONS: Final = MetricRow("dashseek_upstream_connections", "gauge", "Connections to upstreams.", ("state",))
TARGETS: Final = MetricRow(
    "dashseek_targets",
    "gauge",
    "Targets, as each process sees them: well, out, or on trial. target is as configured: a name's addresses are one.",
    ("pool", "target", "state"),
)
TARGET_CALLS: Final = MetricRow(
    "dashseek_target_calls_in_flight", "gauge", "Upstream calls that are on their way.", ("pool", "target")
)
TARGET_FIRST_TOKEN: Final = MetricRow(
    "dashseek_target_first_token_seconds",
    "gauge",
    "Moving mean of the time from an upstream call to its first packet; the longest of all processes.",
    ("pool", "target"),
    across=max,
)
TASKS: Final = MetricRow("dashseek_event_loop_tasks", "gauge", "Tasks of the event loop.")
JOURNAL_LINES: Final = MetricRow("dashseek_journal_lines_total", "counter", "Lines that are in the usage journal.")
JOURNAL_DROPPED: Final = MetricRow(
    "dashseek_usage_records_dropped_total", "counter", "Lines that could not be written to the usage journal."
)
JOURNAL_WRITABLE: Final = MetricRow(
    "dashseek_journal_writable", "gauge", "1 while calls can be written down, or need not be.", across=min
)
RELOADED: Final = MetricRow(
    "dashseek_config_reloaded_timestamp_seconds",
    "gauge",
    "When the configuration was last read anew and taken; 0 where it was not since the start.",
    across=max,
)
REFUSED: Final = MetricRow(
    "dashseek_config_refused_timestamp_seconds",
    "gauge",
    "When a configuration was last read anew and refused; 0 where none was.",
    across=max,
)
BUILD: Final = MetricRow("dashseek_build_info", "gauge", "What runs; always 1.", ("version", "python"), across=max)
READ: Final = (
    IN_FLIGHT,
    STREAMS,
    CONNECTIONS,
    TARGETS,
    TARGET_CALLS,
    TARGET_FIRST_TOKEN,
    TASKS,
    JOURNAL_LINES,
    JOURNAL_DROPPED,
    JOURNAL_WRITABLE,
    RELOADED,
    REFUSED,
    BUILD,
)
LOG_DROPPED: Final = MetricRow("dashseek_log_lines_dropped_total", "counter", "Log lines that nobody will ever read.")
ROWS: Final = (*COUNTED, *READ, LOG_DROPPED, *process_figures.ROWS)

# Reads a value as it is now, by its labels.
Gauge = Callable[[], Mapping[Labels, float]]

PHASES: Final[Mapping[str, str]] = {
    Outcome.CLIENT_GONE_BEFORE_FIRST_PACKET.value: "before_first_packet",
    Outcome.CLIENT_GONE_MID_STREAM.value: "mid_stream",
    Outcome.CLIENT_STALLED.value: "stalled",
}
# Of those that are told the same, the first: a budget counts as `tpm`.
LIMITS: Final[Mapping[str, str]] = {fault.code: kind for kind, fault in reversed(limits.FAULTS.items())}
TOO_LARGE: Final = "BadRequest.TooLarge"
STATUSES: Final = frozenset(str(status.value) for status in HTTPStatus)


@dataclass(slots=True)
class CallSeries:
    """The series that all calls of one kind are counted in; None where a kind has none.

    A call is counted in sixteen: to find each by its labels takes two function calls.
    tokens: of the prompt and the answer that upstream read and wrote, and of those that were delivered
    read, translate, close: of the overhead
    """

    requests: list[float]
    duration: list[float]
    records: list[float] | None
    tokens: tuple[list[float], list[float], list[float], list[float]] | None
    first_token: list[float] | None
    read: list[float] | None
    translate: list[float] | None
    close: list[float] | None


class Metrics:
    """What one process has measured of its calls and of itself.

    gauges: the rows of `READ` that others can tell, and how
    log:    what writes its log lines
    """

    __slots__ = ("_by_kind", "_gauges", "_log", "_tally")

    def __init__(self, gauges: Mapping[MetricRow, Gauge], log: Lines | None = None) -> None:
        self._gauges: Mapping[MetricRow, Gauge] = {**gauges, TASKS: _tasks, BUILD: _build, **process_figures.gauges()}
        self._log = log
        self._tally = Counters(COUNTED)
        # By what tells one kind from another: words of closed sets, as all labels are.
        self._by_kind: dict[tuple[object, ...], CallSeries] = {}

    def keep(self, record: Record) -> None:
        """Publish one call that has ended."""
        closing, counted = record.closing, self._tally
        outcome, code, times = closing["outcome"], closing["code"], closing["t"]
        took_s, last_ms = times["closed"] / 1e3, times["last_packet"]
        kind = (
            *(record.api, record.model, record.stream, closing["status"], code, outcome, closing["basis"]),
            *(record.opening is None, record.read_s is None, record.translate_s is None, last_ms is None),
        )
        found = self._by_kind.get(kind)
        if found is None:
            found = self._by_kind[kind] = self._series_of(record)
        # Each histogram in place: four function calls less of a small call's eight hundred.
        found.requests[0] += 1
        found.duration[bisect_left(DURATION.buckets, took_s)] += 1
        found.duration[-1] += took_s
        if found.records is not None:
            found.records[0] += 1
        if (series := found.read) is not None and (read_s := record.read_s) is not None:
            series[bisect_left(SHORT_S, read_s)] += 1
            series[-1] += read_s
        if (series := found.translate) is not None and (translate_s := record.translate_s) is not None:
            series[bisect_left(SHORT_S, translate_s)] += 1
            series[-1] += translate_s
        if (series := found.close) is not None and last_ms is not None:
            close_s = max(0.0, took_s - last_ms / 1e3)
            series[bisect_left(SHORT_S, close_s)] += 1
            series[-1] += close_s
        for attempt, (pool, target, retry) in zip(closing["attempts"], record.tries, strict=True):
            result = attempt["result"]
            known = result if result in STATUSES or not result.isdigit() else OTHER
            counted.add(ATTEMPTS, (pool, target, known, "true" if retry else "false"))
        if found.tokens is not None:
            self._keep_tokens(found.tokens, record)
        if found.first_token is not None:
            self._keep_packets(found.first_token, record)
        if outcome != "ok":
            self._keep_failure(record)

    def keep_stray(self, status: int) -> None:
        """Publish one request that was no call."""
        self._tally.add(STRAYS, (str(status),))

    def lag(self, late_s: float) -> None:
        """Publish how late a timer fired."""
        self._tally.observe(LAG, late_s)

    def read(self) -> Reading:
        """Everything as it is now, as plain data."""
        now = {row.name: {at: [value] for at, value in gauge().items()} for row, gauge in self._gauges.items()}
        dropped = float(self._log.dropped) if self._log else 0.0
        return self._tally.read() | now | {LOG_DROPPED.name: {(): [dropped]}}

    def _series_of(self, record: Record) -> CallSeries:
        """The series of a kind of calls, of which this is the first."""
        closing, of = record.closing, self._tally.of
        api, model = record.api, record.model or OTHER
        outcome, code, basis = closing["outcome"], closing["code"], closing["basis"]
        mode, status = "sse" if record.stream else "json", str(closing["status"])
        is_ok, has_packets = outcome == "ok", closing["t"]["last_packet"] is not None
        said = code or ("ok" if is_ok else "none")
        return CallSeries(
            requests=of(REQUESTS, (api, model, mode, status, said, outcome)),
            duration=of(DURATION, (model, CHAT, api, "" if is_ok else outcome)),
            records=None if record.opening is None else of(RECORDS, (outcome,)),
            tokens=None
            if basis == "none"
            else (
                of(TOKENS, (api, model, "input", basis)),
                of(TOKENS, (api, model, "output", basis)),
                of(DELIVERED, (api, model, "input")),
                of(DELIVERED, (api, model, "output")),
            ),
            first_token=of(FIRST_TOKEN, (model, CHAT, api)) if record.stream and has_packets else None,
            read=None if record.read_s is None else of(OVERHEAD, ("read",)),
            translate=None if record.translate_s is None else of(OVERHEAD, ("translate",)),
            close=of(OVERHEAD, ("close",)) if has_packets else None,
        )

    def _keep_failure(self, record: Record) -> None:
        """Publish what only calls that have failed are counted in."""
        closing = record.closing
        if phase := PHASES.get(closing["outcome"]):
            self._tally.add(CANCELLED, (phase,))
        if (limit := _limit(closing["code"], limited=record.limited)) is not None:
            self._tally.add(REJECTIONS, (limit,))

    def _keep_tokens(self, found: tuple[list[float], list[float], list[float], list[float]], record: Record) -> None:
        closing = record.closing
        generated, usage, basis = closing["generated"], closing["usage"], closing["basis"]
        read, written, delivered_input, delivered_output = found
        read[0] += generated["input_tokens"]
        written[0] += generated["output_tokens"]
        delivered_input[0] += usage["input_tokens"]
        delivered_output[0] += usage["output_tokens"]
        if "output_tokens_details" in generated:
            reasoning = generated["output_tokens_details"]["reasoning_tokens"]
            self._tally.add(TOKENS, (record.api, record.model or OTHER, "reasoning", basis), reasoning)
        if "prompt_tokens_details" in generated:
            cached = generated["prompt_tokens_details"]["cached_tokens"]
            self._tally.add(TOKENS, (record.api, record.model or OTHER, "cached", basis), cached)
        if closing["drift_tokens"] is not None:
            self._tally.observe(DRIFT, abs(closing["drift_tokens"]))

    def _keep_packets(self, first_token: list[float], record: Record) -> None:
        times = record.closing["t"]
        first_ms, last_ms = times["first_packet"], times["last_packet"]
        if first_ms is not None and last_ms is not None:
            _observe(first_token, FIRST_TOKEN.buckets, first_ms / 1e3)
            if (later := record.closing["usage"]["output_tokens"] - 1) > 0:
                labels = record.model or OTHER, CHAT, record.api
                self._tally.observe(PER_TOKEN, (last_ms - first_ms) / 1e3 / later, labels)


def _observe(series: list[float], buckets: Sequence[float], value: float) -> None:
    """Add one value to a series of a histogram."""
    series[bisect_left(buckets, value)] += 1
    series[-1] += value


@asynccontextmanager
async def opened(gauges: Mapping[MetricRow, Gauge], log: Lines | None = None) -> AsyncIterator[Metrics]:
    """The metrics of a process; its event loop is watched as long as the context lives."""
    metrics = Metrics(gauges, log)
    watching = asyncio.create_task(_watch_the_loop(metrics))
    try:
        yield metrics
    finally:
        watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watching


async def _watch_the_loop(metrics: Metrics) -> None:
    while True:
        due_s = monotonic() + LAG_EVERY_S
        await asyncio.sleep(LAG_EVERY_S)
        metrics.lag(max(0.0, monotonic() - due_s))


def _tasks() -> Mapping[Labels, float]:
    return {(): len(asyncio.all_tasks())}


@functools.cache
def _build() -> Mapping[Labels, float]:
    return {(installed.version_of(installed.DISTRIBUTION), platform.python_version()): 1}


def _limit(code: str | None, *, limited: bool) -> str | None:
    if code is None:
        return None
    if limited:
        return LIMITS.get(code)
    return "body" if code == TOO_LARGE else None
