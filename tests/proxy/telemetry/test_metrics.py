"""Claims about what is measured of a call: its labels are closed sets, its numbers those of its record."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import math
import os
import platform
import re
import time
import timeit
from typing import Any

import pytest

from proxy.call import record
from proxy.call.exchange import Exchange, Times
from proxy.metering import journal
from proxy.simulation.wire import Script
from proxy.telemetry import installed, log_writer, metrics
from proxy.telemetry import series as tally
from proxy.upstream import targets
from tests import caller
from tests.conftest import StartSimulator
from tests.proxy.conftest import StartGateway
from tests.proxy.metering.records import used
from tests.proxy.telemetry.records import TIMES, ended
from translators import faults

THINKING = {"enable_thinking": True, "incremental_output": True}


def values(measured: metrics.Metrics, row: tally.MetricRow) -> dict[tuple[str, ...], float]:
    """Each series of a row: a counter's value, a histogram's number of observations."""
    found = measured.read()[row.name]
    return {labels: sum(series[:-1]) if row.buckets else series[0] for labels, series in found.items()}


def row_of(name: str) -> tally.MetricRow:
    (row,) = (row for row in metrics.ROWS if row.name == name)
    return row


async def test_an_answered_call_is_counted_once_everywhere(
    simulator: StartSimulator, gateway_before: StartGateway
) -> None:
    upstream_ = await simulator()
    running = await gateway_before(upstream_.url)
    measured = running.metrics
    answer = await caller.stream(running.url, caller.call("Hi", "deepseek-v3.2", **THINKING))
    await running.end_of()
    used = caller.packets(answer.body)[-1]["usage"]
    details = {**used["output_tokens_details"], **used["prompt_tokens_details"]}
    assert values(measured, metrics.REQUESTS) == {("dashscope", "deepseek-v3.2", "sse", "200", "ok", "ok"): 1}
    assert values(measured, metrics.DURATION) == {("deepseek-v3.2", "chat", "dashscope", ""): 1}
    assert values(measured, metrics.FIRST_TOKEN) == {("deepseek-v3.2", "chat", "dashscope"): 1}
    assert values(measured, metrics.PER_TOKEN) == {("deepseek-v3.2", "chat", "dashscope"): 1}
    assert values(measured, metrics.TOKENS) == {
        ("dashscope", "deepseek-v3.2", "input", "upstream_final"): used["input_tokens"],
        ("dashscope", "deepseek-v3.2", "output", "upstream_final"): used["output_tokens"],
        ("dashscope", "deepseek-v3.2", "reasoning", "upstream_final"): details["reasoning_tokens"],
        ("dashscope", "deepseek-v3.2", "cached", "upstream_final"): details["cached_tokens"],
    }
    assert values(measured, metrics.DELIVERED) == {
        ("dashscope", "deepseek-v3.2", "input"): used["input_tokens"],
        ("dashscope", "deepseek-v3.2", "output"): used["output_tokens"],
    }
    assert values(measured, metrics.RECORDS) == {("ok",): 1}
    assert values(measured, metrics.ATTEMPTS) == {("", upstream_.url, "200", "false"): 1}
    assert values(measured, metrics.OVERHEAD) == {("read",): 1, ("translate",): 1, ("close",): 1}
    assert values(measured, metrics.DRIFT) == {(): 1}
    assert values(measured, metrics.CANCELLED) == values(measured, metrics.REJECTIONS) == {}


async def test_com32_what_is_of_calls_is_told_apart_by_the_tongue_they_came_in(
    simulator: StartSimulator, gateway_before: StartGateway
) -> None:
    running = await gateway_before((await simulator()).url)
    body = {"model": "deepseek-v3", "messages": [{"role": "user", "content": "Hi"}], "stream": True}
    assert (await caller.ask(running.url, body, path="/compatible-mode/v1/chat/completions")).status == 200
    await running.end_of()
    for row in metrics.ROWS:
        if "api" in row.labels:
            assert {labels[row.labels.index("api")] for labels in values(running.metrics, row)} == {"openai"}, row.name
    assert sum("api" in row.labels for row in metrics.ROWS) == 6


async def test_a_reply_has_no_time_to_first_token(simulator: StartSimulator, gateway_before: StartGateway) -> None:
    running = await gateway_before((await simulator()).url)
    measured = running.metrics
    await caller.ask(running.url, caller.call())
    await running.end_of()
    assert values(measured, metrics.REQUESTS) == {("dashscope", "deepseek-v3", "json", "200", "ok", "ok"): 1}
    assert values(measured, metrics.FIRST_TOKEN) == {}


@pytest.mark.parametrize("model", ["gpt-4", "a" * 500, 'x"}\nfake_metric 1', "deepseek-v3\x00"])
async def test_a_model_that_a_caller_invents_is_other(gateway_before: StartGateway, model: str) -> None:
    running = await gateway_before("http://127.0.0.1:1")
    measured = running.metrics
    await caller.ask(running.url, caller.call(model=model))
    await running.end_of()
    rejected = ("dashscope", "other", "json", "400", "InvalidParameter", "rejected")
    assert values(measured, metrics.REQUESTS) == {rejected: 1}
    assert values(measured, metrics.RECORDS) == {}


async def test_an_alias_is_counted_as_the_model_it_stands_for(
    simulator: StartSimulator, gateway_before: StartGateway
) -> None:
    running = await gateway_before((await simulator()).url, aliases=("qwen-turbo=deepseek-v3",))
    measured = running.metrics
    await caller.ask(running.url, caller.call(model="Vendor/QWEN-turbo"))
    await running.end_of()
    ((_, model, *_),) = values(measured, metrics.REQUESTS)
    assert model == "deepseek-v3"


@pytest.mark.parametrize(("events", "phase"), [(0, "before_first_packet"), (3, "mid_stream")])
async def test_a_caller_who_leaves_is_counted_by_phase(
    simulator: StartSimulator, gateway_before: StartGateway, events: int, phase: str
) -> None:
    script = Script(stall_after=events) if events else Script(first_byte_delay_s=30)
    upstream_ = await simulator(script)
    running = await gateway_before(upstream_.url)
    measured = running.metrics
    async with caller.dial(running.url) as line:
        line.send(caller.request(caller.call(incremental_output=True), caller.SSE))
        await upstream_.call()
        if events:
            await line.head()
            await line.piece()
        assert values(measured, row_of("dashseek_requests_in_flight")) == {(): 1}
        assert values(measured, row_of("dashseek_streams_open")) == {(): 1}
        assert values(measured, row_of("dashseek_upstream_connections"))["acquired",] == 1
        line.leave()
        await running.end_of()
    assert values(measured, metrics.CANCELLED) == {(phase,): 1}
    ((*_, status, code, outcome),) = values(measured, metrics.REQUESTS)
    assert (status, code, outcome) == ("499", "none", f"client_gone_{phase}")
    assert values(measured, row_of("dashseek_requests_in_flight")) == {(): 0}
    assert values(measured, row_of("dashseek_streams_open")) == {(): 0}
    assert values(measured, row_of("dashseek_upstream_connections"))["acquired",] == 0


@pytest.mark.parametrize(
    ("limit", "chosen", "body"),
    [
        ("rpm", {"limits": "rpm=1"}, caller.call()),
        ("tpm", {"limits": "tpm=1"}, caller.call()),
        ("burst", {"limits": "burst=1"}, caller.call()),
        ("body", {"max_body_bytes": 1_000}, caller.call("a" * 2_000)),
    ],
)
async def test_a_call_over_a_limit_is_counted_by_limit(
    simulator: StartSimulator, gateway_before: StartGateway, limit: str, chosen: dict[str, object], body: caller.Json
) -> None:
    running = await gateway_before((await simulator()).url, **chosen)
    measured = running.metrics
    for _ in range(2):
        await caller.ask(running.url, body)
    await running.end_of(2)
    assert values(measured, metrics.REJECTIONS)[limit,] >= 1
    assert len(values(measured, metrics.REJECTIONS)) == 1


async def test_concurrency_is_a_limit_too(simulator: StartSimulator, gateway_before: StartGateway) -> None:
    """Its code is that of an upstream without room: the label tells them apart."""
    upstream_ = await simulator(Script(first_byte_delay_s=30))
    running = await gateway_before(upstream_.url, limits="concurrency=1")
    measured = running.metrics
    async with caller.dial(running.url) as line:
        line.send(caller.request(caller.call(), caller.SSE))
        await upstream_.call()
        await caller.ask(running.url, caller.call())
    assert values(measured, metrics.REJECTIONS) == {("concurrency",): 1}


async def test_a_refusal_of_upstreams_is_no_limit_of_ours(
    simulator: StartSimulator, gateway_before: StartGateway
) -> None:
    running = await gateway_before((await simulator(Script(status=429))).url)
    measured = running.metrics
    await caller.ask(running.url, caller.call())
    await running.end_of()
    assert values(measured, metrics.REJECTIONS) == {}


async def test_a_retry_is_counted_as_one(simulator: StartSimulator, gateway_before: StartGateway) -> None:
    alive = (await simulator()).url
    running = await gateway_before("http://127.0.0.1:1", alive)
    measured = running.metrics
    await caller.ask(running.url, caller.call())
    await running.end_of()
    assert values(measured, metrics.ATTEMPTS) == {
        ("", "http://127.0.0.1:1", "unreachable", "false"): 1,
        ("", alive, "200", "true"): 1,
    }


async def test_a_status_that_upstream_invents_is_other(gateway_before: StartGateway) -> None:
    measured = (await gateway_before("http://127.0.0.1:1")).metrics
    exchange = Exchange(
        "r", "dashscope", Times(0.0), attempts=[targets.Attempt("t", status=number) for number in (599, 731)]
    )
    measured.keep(record.close(exchange, record.End.DONE, journal.Journal(None, "continue"), says_upstream=False))
    assert values(measured, metrics.ATTEMPTS) == {("", "t", "other", "false"): 2}


async def test_a_loop_that_was_held_up_is_seen(gateway_before: StartGateway) -> None:
    running = await gateway_before("http://127.0.0.1:1")
    async with metrics.opened(running.house.gauges()) as measured:
        await asyncio.sleep(0)
        end = time.monotonic() + 2 * metrics.LAG_EVERY_S
        while time.monotonic() < end:
            pass
        for _ in range(3):
            await asyncio.sleep(0)
        *counts, total_s = measured.read()[metrics.LAG.name][()]
    assert sum(counts) == 1
    assert total_s >= metrics.LAG_EVERY_S * 0.9


async def test_log_lines_that_nobody_reads_are_counted(gateway_before: StartGateway) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with contextlib.closing(log_writer.LogWriter(writer)) as log:
        log.write("line\n")
    os.close(writer)
    measured = metrics.Metrics((await gateway_before("http://127.0.0.1:1")).house.gauges(), log)
    assert values(measured, metrics.LOG_DROPPED) == {(): 1}


async def test_nothing_watches_the_loop_once_its_metrics_are_closed() -> None:
    there = asyncio.all_tasks()
    async with metrics.opened({}):
        (watching,) = asyncio.all_tasks() - there
        assert not watching.done()
    assert watching.cancelled()


def test_names_are_what_prometheus_users_expect() -> None:
    names = [row.name for row in metrics.ROWS]
    assert len(names) == len(set(names))
    for row in metrics.ROWS:
        assert re.fullmatch(r"(dashseek|gen_ai_server|process)_[a-z_]+", row.name)
        assert row.name.endswith("_total") == (row.kind == "counter")
        assert bool(row.buckets) == (row.kind == "histogram")
        assert list(row.buckets) == sorted(set(row.buckets))
        assert row.meaning.endswith(".")


def test_bounds_are_those_that_opentelemetry_advises_and_go_on() -> None:
    """Its semantic conventions for generative AI, as their dashboards expect them."""
    duration = [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92]
    assert list(metrics.DURATION.buckets) == [*duration, 163.84, 327.68, 655.36]
    first_token = [0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10]
    assert list(metrics.FIRST_TOKEN.buckets) == [*first_token, 15, 20, 30, 45, 60]
    per_token = [0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5]
    assert list(metrics.PER_TOKEN.buckets) == per_token


def test_other_bounds_are_steps_of_a_decade() -> None:
    """Three to each: from a tenth of a millisecond to seconds, and from one token to a thousand, none apart."""
    short_s = [step * 10.0**decade for decade in range(-4, 1) for step in (1, 2.5, 5)][:-1]
    assert list(metrics.SHORT_S) == pytest.approx(short_s)
    drift = [0, *(step * 10**decade for decade in range(3) for step in (1, 2, 5)), 1000]
    assert list(metrics.DRIFT.buckets) == drift


def observed(row: tally.MetricRow, value: float, within: float) -> list[float]:
    """A histogram of one value, whose bucket is the one up to `within`; or beyond all of them."""
    bounds = [*row.buckets, math.inf]
    return [float(bound == within) for bound in bounds] + [value]


MODEL = "deepseek-v3.2"
OF_MODEL = (MODEL, "chat", "dashscope")
# What a call adds to each row that calls are counted in; read, translated, answered by the second pool it was tried at.
ANSWERED: tally.Reading = {
    metrics.DURATION.name: {(*OF_MODEL, ""): observed(metrics.DURATION, 2.5, 2.56)},
    metrics.FIRST_TOKEN.name: {OF_MODEL: observed(metrics.FIRST_TOKEN, 0.25, 0.25)},
    # Two seconds, by the 16 tokens that followed the first.
    metrics.PER_TOKEN.name: {OF_MODEL: observed(metrics.PER_TOKEN, 0.125, 0.15)},
    metrics.REQUESTS.name: {("dashscope", MODEL, "sse", "200", "ok", "ok"): [1]},
    metrics.TOKENS.name: {
        ("dashscope", MODEL, kind, "upstream_final"): [number]
        for kind, number in (("input", 11), ("output", 18), ("reasoning", 6), ("cached", 3))
    },
    metrics.DELIVERED.name: {("dashscope", MODEL, "input"): [10], ("dashscope", MODEL, "output"): [17]},
    metrics.CANCELLED.name: {},
    metrics.RECORDS.name: {("ok",): [1]},
    metrics.ATTEMPTS.name: {("p", "http://a", "unreachable", "false"): [1], ("q", "http://b", "200", "true"): [1]},
    metrics.REJECTIONS.name: {},
    metrics.DRIFT.name: {(): observed(metrics.DRIFT, 3, 5)},
    metrics.OVERHEAD.name: {
        ("read",): observed(metrics.OVERHEAD, 0.125, 0.25),
        ("translate",): observed(metrics.OVERHEAD, 0.0625, 0.1),
        ("close",): observed(metrics.OVERHEAD, 0.25, 0.25),
    },
    metrics.LAG.name: {(): metrics.LAG.zero},
    metrics.STRAYS.name: {},
}


def counted(*ended_calls: journal.Record) -> tally.Reading:
    """What is counted of these calls, by the rows that count."""
    measured = metrics.Metrics({})
    for one in ended_calls:
        measured.keep(one)
    read = measured.read()
    return {row.name: read[row.name] for row in metrics.COUNTED}


@pytest.mark.parametrize("times", [1, 3])
async def test_each_row_gets_the_figures_of_a_calls_record(times: int) -> None:
    total: tally.Reading = {}
    for _ in range(times):
        tally.add_to(total, ANSWERED)
    assert counted(*[ended()] * times) == total


REFUSED_AT_ONCE = {"upstream_sent": None, "first_packet": None, "last_packet": None, "closed": 0.0}
CUT = {"outcome": "upstream_cut", "status": 500, "code": "InternalError"}
ROW_BY_ROW: dict[
    str, tuple[dict[str, Any], dict[str, Any], dict[tally.MetricRow, dict[tuple[str, ...], list[float]]]]
] = {
    "refused unread": (
        {
            "outcome": "rejected",
            "status": 401,
            "code": "InvalidApiKey",
            "basis": "none",
            "attempts": [],
            "t": REFUSED_AT_ONCE,
        },
        {"opening": None, "model": None, "stream": False, "tries": [], "read_s": None, "translate_s": None},
        {
            metrics.REQUESTS: {("dashscope", "other", "json", "401", "InvalidApiKey", "rejected"): [1]},
            metrics.DURATION: {("other", "chat", "dashscope", "rejected"): observed(metrics.DURATION, 0.0, 0.01)},
            **{row: {} for row in (metrics.RECORDS, metrics.ATTEMPTS, metrics.TOKENS, metrics.DELIVERED)},
            **{row: {} for row in (metrics.OVERHEAD, metrics.FIRST_TOKEN, metrics.PER_TOKEN, metrics.REJECTIONS)},
            metrics.CANCELLED: {},
            metrics.DRIFT: {(): metrics.DRIFT.zero},
        },
    ),
    "refused with room for no body": (
        {"outcome": "rejected", "status": 400, "code": metrics.TOO_LARGE},
        {},
        {metrics.REJECTIONS: {("body",): [1]}},
    ),
    "over a limit": (
        {"outcome": "rejected", "status": 429, "code": faults.RATE_LIMITED.code},
        {"limited": True},
        {metrics.REJECTIONS: {("rpm",): [1]}},
    ),
    "as upstream says it": (
        {"outcome": "upstream_error", "code": faults.RATE_LIMITED.code},
        {},
        {metrics.REJECTIONS: {}},
    ),
    "cut": (
        CUT,
        {},
        {
            metrics.REQUESTS: {("dashscope", MODEL, "sse", "500", "InternalError", "upstream_cut"): [1]},
            metrics.DURATION: {(*OF_MODEL, "upstream_cut"): observed(metrics.DURATION, 2.5, 2.56)},
            metrics.RECORDS: {("upstream_cut",): [1]},
            metrics.REJECTIONS: {},
            metrics.CANCELLED: {},
        },
    ),
    "left": (
        {"outcome": "client_gone_mid_stream", "status": 499},
        {},
        {
            metrics.REQUESTS: {("dashscope", MODEL, "sse", "499", "none", "client_gone_mid_stream"): [1]},
            metrics.CANCELLED: {("mid_stream",): [1]},
            metrics.REJECTIONS: {},
        },
    ),
    "a reply": (
        {},
        {"stream": False},
        {
            metrics.REQUESTS: {("dashscope", MODEL, "json", "200", "ok", "ok"): [1]},
            metrics.FIRST_TOKEN: {},
            metrics.PER_TOKEN: {},
            metrics.OVERHEAD: ANSWERED[metrics.OVERHEAD.name],
        },
    ),
    "of an unknown model": (
        {},
        {"model": None},
        {
            metrics.PER_TOKEN: {("other", "chat", "dashscope"): observed(metrics.PER_TOKEN, 0.125, 0.15)},
            metrics.TOKENS: {
                (api, "other", *rest): series for (api, _, *rest), series in ANSWERED[metrics.TOKENS.name].items()
            },
        },
    ),
    "one token has no next one": (
        {"usage": used(10, 1)},
        {},
        {metrics.PER_TOKEN: {}, metrics.FIRST_TOKEN: ANSWERED[metrics.FIRST_TOKEN.name]},
    ),
    "two have": ({"usage": used(10, 2)}, {}, {metrics.PER_TOKEN: {OF_MODEL: observed(metrics.PER_TOKEN, 2.0, 2.5)}}),
    "no parts are told": (
        {"generated": used(11, 18), "drift_tokens": None},
        {},
        {
            metrics.TOKENS: {
                ("dashscope", MODEL, kind, "upstream_final"): [number]
                for kind, number in (("input", 11), ("output", 18))
            },
            metrics.DRIFT: {(): metrics.DRIFT.zero},
        },
    ),
    "closed as its last packet left": (
        {"t": {**TIMES, "closed": 2249.0}},
        {"read_s": None},
        {
            metrics.OVERHEAD: {
                ("translate",): ANSWERED[metrics.OVERHEAD.name]["translate",],
                ("close",): observed(metrics.OVERHEAD, 0.0, metrics.SHORT_S[0]),
            }
        },
    ),
}


@pytest.mark.parametrize("name", ROW_BY_ROW)
async def test_each_row_gets_what_is_its_own_of_a_call(name: str) -> None:
    closing, facts, rows = ROW_BY_ROW[name]
    found = counted(ended(closing, **facts))
    assert {row.name: found[row.name] for row in rows} == {row.name: wanted for row, wanted in rows.items()}


@pytest.mark.parametrize("name", ROW_BY_ROW)
async def test_calls_of_two_kinds_are_counted_apart(name: str) -> None:
    closing, facts, _ = ROW_BY_ROW[name]
    one, other = ended(), ended(closing, **facts)
    total = counted(one)
    tally.add_to(total, counted(other))
    assert counted(one, other) == total


@pytest.mark.parametrize(("step_s", "late_s"), [(0.5, 0.5 - 1 / 1024), (0.0, 0.0)])
async def test_how_late_a_timer_fires_is_from_when_it_was_due(
    monkeypatch: pytest.MonkeyPatch, step_s: float, late_s: float
) -> None:
    """By a clock that is so much later whenever somebody looks; one that is early is not late."""
    looks = itertools.count(0.0, step_s)
    monkeypatch.setattr(metrics, "monotonic", lambda: next(looks))
    monkeypatch.setattr(metrics, "LAG_EVERY_S", 1 / 1024)
    async with metrics.opened({}) as measured:
        while not (fired := values(measured, metrics.LAG)[()]):  # noqa: ASYNC110 - the loop's own timer is waited for
            await asyncio.sleep(0)
        total_s = measured.read()[metrics.LAG.name][()][-1]
    assert total_s == fired * late_s


async def test_what_was_no_call_is_counted_by_its_status() -> None:
    measured = metrics.Metrics({})
    for status in (404, 404, 405):
        measured.keep_stray(status)
    assert values(measured, metrics.STRAYS) == {("404",): 2, ("405",): 1}


async def test_what_runs_is_said_and_nothing_was_dropped() -> None:
    measured = metrics.Metrics({})
    version = installed.version_of("dashseek"), platform.python_version()
    assert values(measured, metrics.BUILD) == {version: 1}
    assert values(measured, metrics.LOG_DROPPED) == {(): 0}


def test_every_outcome_has_a_place() -> None:
    assert set(metrics.PHASES) <= {outcome.value for outcome in journal.Outcome}


async def test_a_call_costs_a_few_microseconds(simulator: StartSimulator, gateway_before: StartGateway) -> None:
    """The goal is 15 µs where an addition is 10 ns; of the thread's own time, in additions, on whatever machine."""
    running = await gateway_before((await simulator()).url)
    measured = running.metrics
    await caller.stream(running.url, caller.call("Hi", "deepseek-v3.2", **THINKING))
    ended, _ = await running.end_of()
    best_s = min(timeit.repeat(lambda: measured.keep(ended), number=500, repeat=20, timer=time.thread_time))
    yard_s = min(timeit.repeat("a + 1", "a = 1000", number=500, repeat=20, timer=time.thread_time))
    assert best_s / yard_s < 1_500, f"{best_s / 500 * 1e6:.1f} µs, {best_s / yard_s:.0f} additions"
