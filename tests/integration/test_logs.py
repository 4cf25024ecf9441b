"""The log of the real `serve`: what is in its lines, whose they are, and how much is said."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import Any

import orjson
import pytest

from proxy.simulation.wire import Script
from proxy.telemetry import logs
from tests import caller
from tests.conftest import Served, StartServe, StartSimulator

EVERY_LINE = {"event", "level", "timestamp"}
IGNORED = caller.call() | {"resources": []}


def lines_of(served: Served) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in served.output.splitlines() if line.startswith("{")]


async def until(served: Served, event: str, number: int = 1) -> list[dict[str, Any]]:
    """The lines of an event, once there are so many; the log is read by a thread of its own."""
    async with asyncio.timeout(10):
        while len(found := [line for line in lines_of(served) if line["event"] == event]) < number:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    return found


async def test_every_field_is_a_listed_one_and_every_call_is_found_by_its_id(
    simulator: StartSimulator, serve: StartServe
) -> None:
    scripts = [Script(status=500), Script(cut_after=2), Script(status=429)]
    upstream = await simulator(lambda _: scripts.pop() if scripts else Script())
    served = await serve(upstream.url, "--log-level", "debug", "--limits", "rpm=7", "--dialect", "openai")
    (not_held,) = await until(served, "thinking_budget_not_held")
    assert not_held["dialect"] == "openai"
    assert "deepseek-r1" in not_held["models"]
    answers = [await caller.stream(served.url, body) for body in (*[IGNORED] * 5, b"[]", *[caller.call()] * 3)]
    async with caller.dial(served.url) as line:
        line.send(b"GARBAGE\r\n\r\n")
        answers.append(await line.answer())
    calls = await until(served, "call", 9)
    await until(served, "malformed")
    for line in lines_of(served):
        assert line.keys() - EVERY_LINE <= {*logs.LINES[line["event"]]}
    assert [line["request_id"] for line in calls] == [answer.headers["x-request-id"] for answer in answers[:9]]
    (malformed,) = await until(served, "malformed")
    assert malformed["request_id"] == answers[-1].headers["x-request-id"]


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_a_running_process_says_more_when_it_is_told_to(
    simulator: StartSimulator, serve: StartServe, workers: str
) -> None:
    served = await serve((await simulator()).url, "--workers", workers)
    said_by = {"1": 1, "2": 3}[workers]  # each of the workers, and their front desk
    await caller.ask(served.url, IGNORED)
    served.process.send_signal(signal.SIGUSR1)
    await until(served, "log_level", said_by)
    more = await caller.ask(served.url, IGNORED)
    await until(served, "call", 2)
    served.process.send_signal(signal.SIGUSR2)
    await until(served, "log_level", 2 * said_by)
    await caller.ask(served.url, IGNORED)
    await until(served, "call", 3)
    (ignored,) = await until(served, "ignored")
    assert ignored["request_id"] == more.headers["x-request-id"]
    assert ignored["fields"]
    assert await asyncio.to_thread(served.end) == 0


async def test_a_crash_leaves_the_calls_it_cut_off_in_the_log_where_no_journal_is_kept(
    simulator: StartSimulator, serve: StartServe
) -> None:
    """MET-2: a call without its end is unknown, not missing."""
    served = await serve((await simulator(Script(endless=True, gap_s=0.02))).url)
    async with caller.dial(served.url) as line:
        line.send(caller.request(caller.call(), caller.SSE))
        known_as = (await line.head()).headers["x-request-id"]
        (opened,) = await until(served, "open")
        served.process.kill()
        await asyncio.to_thread(served.process.wait, 10)
    assert opened["request_id"] == known_as
    assert [line["event"] for line in lines_of(served)].count("call") == 0


async def test_where_a_journal_is_kept_the_log_has_the_end_of_a_call_alone(
    simulator: StartSimulator, serve: StartServe, tmp_path: Path
) -> None:
    served = await serve((await simulator()).url, "--journal-file", str(tmp_path / "calls.jsonl"))
    await caller.ask(served.url, caller.call())
    await until(served, "call")
    assert "open" not in [line["event"] for line in lines_of(served)]
