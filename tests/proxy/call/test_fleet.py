"""Claims about several upstreams of different speed behind one door: who gets how much, and what a death costs."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from config.values import toml
from proxy.metering import journal
from proxy.metering.journal import Record
from proxy.upstream import health, report
from tests import caller
from tests.conftest import ROOT, campaign
from tests.proxy.conftest import Running, StartGateway

CALLS = max(500, campaign(2_000))
LANES = 60
# Seconds between two deltas; what an answer takes beside them is measured.
GAPS_S = (0.08, 0.04, 0.02)
CALL = caller.call("one two three four five six seven eight nine ten", incremental_output=True)

pytestmark = [pytest.mark.campaign, pytest.mark.timeout(240)]


def free_port() -> int:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return int(bound.getsockname()[1])


@contextlib.contextmanager
def simulate(port: int, gap_s: float) -> Iterator[subprocess.Popen[str]]:
    """The real thing, in a process that can be killed."""
    words = [sys.executable, "-m", "proxy", "simulate", "--port", str(port), "--gap", str(gap_s)]
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            yield process
        finally:
            process.kill()


@pytest.fixture
async def fleet(
    gateway_before: StartGateway, tmp_path: Path
) -> AsyncIterator[tuple[Running, list[str], list[subprocess.Popen[str]]]]:
    with contextlib.ExitStack() as stack:
        ports = [free_port() for _ in GAPS_S]
        processes = [stack.enter_context(simulate(port, gap_s)) for port, gap_s in zip(ports, GAPS_S, strict=True)]
        urls = [f"http://127.0.0.1:{port}" for port in ports]
        (tmp_path / "c.toml").write_text(f'[[pools]]\nname = "fleet"\nurls = {toml(urls)}\n')
        yield await gateway_before(config=tmp_path / "c.toml", log_level="error"), urls, processes


async def ask(front: Running, calls: int) -> list[bool]:
    """So many calls, some at a time; whether each was answered whole."""
    left, whole = iter(range(calls)), []

    async def lane() -> None:
        for _ in left:
            answer = await caller.stream(front.url, CALL)
            whole.append(answer.status == 200 and b"event:error" not in answer.body)

    await asyncio.gather(*(lane() for _ in range(LANES)))
    return whole


def shares(ended: list[tuple[Record, str]], urls: list[str]) -> list[float]:
    served = Counter(record.closing["attempts"][-1]["target"] for record, _ in ended)
    return [served[url] / served.total() for url in urls]


async def test_shares_follow_capacity(fleet: tuple[Running, list[str], list[subprocess.Popen[str]]]) -> None:
    front, urls, _ = fleet
    assert all(await ask(front, CALLS))
    # All begin at once, and the last ones end alone.
    steady = front.ended[LANES:-LANES]
    found = shares(steady, urls)
    taken: dict[str, list[float]] = {url: [] for url in urls}
    for record, _ in steady:
        taken[record.closing["attempts"][-1]["target"]].append(record.closing["t"]["closed"])
    # What is served at the same number in flight, of each.
    speeds = [len(taken[url]) / sum(taken[url]) for url in urls]
    ideal = [speed / sum(speeds) for speed in speeds]
    assert ideal[0] < ideal[1] < ideal[2]
    assert max(abs(share - fair) for share, fair in zip(found, ideal, strict=True)) < 0.1


async def test_a_death_costs_what_had_begun_there_and_it_comes_back(
    fleet: tuple[Running, list[str], list[subprocess.Popen[str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "FIRST_OUT_S", 1.0)
    # On a busy machine it is tried in vain more often before it is back, each time for twice as long.
    monkeypatch.setattr(health, "LONGEST_OUT_S", 2.0)
    front, urls, processes = fleet
    asking = asyncio.create_task(ask(front, CALLS))
    while len(front.ended) < CALLS // 3:  # noqa: ASYNC110 - the calls of others
        await asyncio.sleep(0.005)
    processes[2].kill()
    # Only now its connections are closed, and seen to be.
    await asyncio.to_thread(processes[2].wait)
    killed_at = journal.timestamp(time.time())
    whole = await asking
    failed = [record for record, outcome in front.ended if outcome != "ok"]
    assert len(whole) == CALLS
    assert 0 < whole.count(False) == len(failed) <= LANES
    for record in failed:
        # It was sent there, and over a connection that had been made: nobody else could know what was done of it.
        *_, last = record.closing["attempts"]
        assert (last["target"], last["result"] in {"200", "broken"}) == (urls[2], True)
        assert record.opening is not None
        assert record.opening["at"] < killed_at
    with simulate(int(urls[2].rpartition(":")[2]), GAPS_S[2]):
        async with asyncio.timeout(60):
            while report.targets(front.house.upstreams)[2].state != "well":
                assert all(await ask(front, LANES))
        # From here on: while it was out it had nothing.
        before = len(front.ended)
        assert all(await ask(front, 2 * LANES))
    assert shares(front.ended[before:], urls)[2] > 0.1
