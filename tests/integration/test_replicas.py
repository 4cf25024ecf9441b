"""Two `dashseek serve` on one Redis, under load: what they let in together never exceeds the limit (LIM-1).

Measured twice: by the journals, and by the simulator, which sees how many calls are open at a time. That both decide is
so by construction: each has calls open before the load begins, and the load is halved between them beforehand. Out of
one queue the replica that is scheduled first takes all places, and refuses the rest of the queue within a second.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import random
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from proxy.metering import ledger
from proxy.simulation import simulator
from tests import caller, load, needs
from tests.conftest import ROOT, Served
from tests.integration import test_shared_limits as shared
from tests.integration.test_books import closes_of, simulated, simulating, tally_of

pytestmark = needs.programs("redis-server")

# For each of the two: calls that are open before the load begins, those of the load, and how many of them at a time.
HELD = 3
CALLS = 250
WORKERS = 24
# `at` is cut to the millisecond, and clocks are read before what they time: of two calls that just touch, as much.
SLACK_S = 0.003
# By default a Redis that is slow to answer counts as away after a quarter of a second, and calls go without limits.
PATIENT = "import proxy.admission.redis_limiter as limiter; limiter.TIMEOUT_S = 10.0"

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Ended:
    """What a load on two replicas has left behind.

    let_in:  the `close` lines of the calls that went upstream
    refused: the codes of those that did not
    """

    let_in: list[Json]
    refused: list[str]
    tally: simulator.Totals

    @property
    def lasted_s(self) -> float:
        """From the first call to the last one that was let in."""
        return max(sent_s(record) for record in self.let_in) - min(at_s(record) for record in self.let_in)


def at_s(record: Json) -> float:
    """When a call was received, on the wall clock."""
    return datetime.fromisoformat(record["at"]).timestamp()


def sent_s(record: Json) -> float:
    """When it went upstream."""
    sent_ms: float = record["t"]["upstream_sent"]
    return at_s(record) + sent_ms / 1e3


def closed_s(record: Json) -> float:
    """When it had ended; its place is given back after that."""
    closed_ms: float = record["t"]["closed"]
    return at_s(record) + closed_ms / 1e3


def most_at_once(records: list[Json]) -> int:
    """The most calls that were open at a time."""
    steps = sorted(
        step
        for record in records
        for step in ((sent_s(record), 1), (max(sent_s(record), closed_s(record) - SLACK_S), -1))
    )
    return max(itertools.accumulate(change for _, change in steps))


@contextlib.contextmanager
def replicas(path: Path, upstream: str, redis_url: str, *flags: str) -> Iterator[list[Served]]:
    """Two processes with one journal and one Redis, which they wait for: this machine has other work, too."""
    (path.parent / "sitecustomize.py").write_text(PATIENT)
    env = {"DASHSEEK_REDIS_URL": redis_url, "PYTHONPATH": os.pathsep.join([str(path.parent), str(ROOT)])}
    words = ("--upstream", upstream, "--port", "0", "--journal-file", str(path), "--log-level", "warning", *flags)
    with contextlib.ExitStack() as stack:
        both = [Served(words, env, path.parent) for _ in range(2)]
        for served in both:
            stack.callback(served.end)
        yield both


@contextlib.asynccontextmanager
async def held_open(url: str) -> AsyncIterator[None]:
    """Calls that have been let in, and go on for two seconds."""
    body = caller.call(simulated(text="one two three four five six seven eight nine ten", gap_s=0.2), max_tokens=10)
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(HELD):
            line = await stack.enter_async_context(caller.dial(url))
            line.send(caller.request(body, caller.SSE))
            assert (await line.head()).status == 200
            await line.until(b'"usage"')
        yield


async def loaded(tmp_path: Path, limit: str, *, gap_s: float = 0.0, leavers: float = 0.0) -> Ended:
    """Put both replicas under load."""
    path, dice, port = tmp_path / "calls.jsonl", random.Random(2), shared.free_port()
    redis_url = f"redis://127.0.0.1:{port}/0"

    def one() -> load.Call:
        text = "one two three four five six seven eight nine ten"
        body = caller.call(simulated(text=text, gap_s=gap_s * dice.random()), max_tokens=10, incremental_output=True)
        leaves = dice.random() < leavers
        return load.Call("text", body, leaving="half-close" if leaves else None, after=2 if leaves else 0)

    with shared.running(port, tmp_path), simulating() as upstream:
        await shared.answers(redis_url)
        with replicas(path, upstream, redis_url, "--limits", limit, "--cancel-policy", "drain") as both:
            await asyncio.gather(*(asyncio.to_thread(served.wait_until_ready) for served in both))
            async with contextlib.AsyncExitStack() as stack:
                for served in both:
                    await stack.enter_async_context(held_open(served.url))
                halves = [[one() for _ in range(CALLS)] for _ in both]
                runs = [
                    load.run([served.url], half, workers=WORKERS, dice=dice)
                    for served, half in zip(both, halves, strict=True)
                ]
                await asyncio.gather(*runs)
            # So long for what was left to be read to its end.
            assert [await asyncio.to_thread(served.end) for served in both] == [0, 0]
            # Redis was there all along: no word of it in the log.
            assert [served.output.count("\n") for served in both] == [2, 2], both[0].output + both[1].output
        tally = await asyncio.to_thread(tally_of, upstream)

    read = ledger.read([path], rules=ledger.RULES)
    assert (read.violations, read.unknown) == ([], [])
    closes = closes_of(path)
    let_in = [record for record in closes if record["attempts"]]
    # Each has decided on all that it was asked, and let in at least what was held open.
    assert len(closes) == 2 * (HELD + CALLS)
    shares = Counter(record["call"].partition("-")[0] for record in let_in)
    assert len(shares) == 2, shares
    assert min(shares.values()) >= HELD, shares
    assert tally["calls"] == len(let_in)
    return Ended(let_in, [record["code"] for record in closes if not record["attempts"]], tally)


async def test_open_calls(tmp_path: Path) -> None:
    """Those included whose callers have left and whose upstream is read on."""
    ended = await loaded(tmp_path, "concurrency=12", gap_s=0.02, leavers=0.2)
    assert most_at_once(ended.let_in) <= 12
    assert 6 < ended.tally["most_open"] <= 12
    assert set(ended.refused) == {"ModelServingError"}


async def test_calls_a_minute(tmp_path: Path) -> None:
    ended = await loaded(tmp_path, "rpm=120")
    assert 120 <= len(ended.let_in) <= 120 * (1 + ended.lasted_s / 60)
    assert set(ended.refused) == {"Throttling.RateQuota"}


async def test_calls_a_second(tmp_path: Path) -> None:
    ended = await loaded(tmp_path, "burst=15")
    assert 15 <= len(ended.let_in) <= 15 * (1 + ended.lasted_s)
    assert set(ended.refused) == {"Throttling.BurstRate"}


async def test_tokens_a_minute(tmp_path: Path) -> None:
    ended = await loaded(tmp_path, "tpm=6000")
    used = sum(record["generated"]["total_tokens"] for record in ended.let_in)
    assert 6000 * 0.8 < used <= 6000 * (1 + ended.lasted_s / 60)
    assert set(ended.refused) == {"Throttling.AllocationQuota"}
