"""I · A long run of calls of every kind, half of whose callers leave: nothing grows (spec MET-1, MET-5)."""

from __future__ import annotations

import asyncio
import gzip
import random
from collections import Counter
from pathlib import Path

import orjson
import pytest

from proxy.simulation.wire import Script
from tests import caller, forks
from tests.conftest import campaign
from tests.faults import matrix
from tests.faults.conftest import Stage, Stand
from tests.faults.matrix import row

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(3600)]

CALLS = campaign(24_000)
WAVE = 60
SEED = 15
GROWTH_BYTES = 12 << 20
COMPATIBLE = "/compatible-mode/v1/chat/completions"
GZIP = {"Content-Encoding": "gzip"}
TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}]
SAID = [{"role": "user", "content": "Tell me everything."}]

# What upstream does to a wave of calls; most often it is well.
SCRIPTS = (
    *[Script(text="one two three four five six", gap_s=0.004)] * 4,
    Script(text="一二三四五六七八九十" * 20, deltas_per_write=9),
    Script(text="word and another " * 200, deltas_per_write=100),
    Script(reasoning="one two three", text="four five", gap_s=0.004),
    Script(tools=('f {"a": 1}',), gap_s=0.004),
    Script(endless=True, text="a b c", gap_s=0.01, cut_after=40),
    Script(text="one two three four", gap_s=0.004, cut_after=2, cut_by="rst"),
    Script(status=429, retry_after="1"),
    Script(status=500),
    Script(status=400, error_text="Content Exists Risk"),
    Script(replay=b"data: {nonsense\n\n"),
    Script(text="one two three", stall_after=2, usage="never"),
)


def native(text: str = "Tell me everything.", /, **parameters: object) -> bytes:
    return orjson.dumps(caller.call(text, **parameters))


def compatible(**fields: object) -> bytes:
    return orjson.dumps({"model": "deepseek-v3", "messages": SAID, **fields})


def plain(body: bytes, **headers: str) -> bytes:
    return caller.request(body, {**headers})


def events(body: bytes, **headers: str) -> bytes:
    return caller.request(body, {**caller.SSE, **headers})


# As they go over the line; two of three are well-formed and let in.
WIRES = (
    events(native(incremental_output=True)),
    events(native()),
    plain(native()),
    events(native(incremental_output=True, tools=TOOLS)),
    events(native(model="deepseek-r1", incremental_output=True)),
    events(native(model="deepseek-r1", incremental_output=True, thinking_budget=2)),
    events(native(incremental_output=True, n=2)),
    events(native(stop=["three"], incremental_output=True)),
    events(native("word " * 4_000, incremental_output=True)),
    caller.request(gzip.compress(native("word " * 90_000)), {**caller.SSE, **GZIP}),
    caller.request(compatible(stream=True), path=COMPATIBLE),
    caller.request(compatible(stream=True, stream_options={"include_usage": True}), path=COMPATIBLE),
    caller.request(compatible(), path=COMPATIBLE),
    plain(b"{nonsense"),
    plain(native(temperature=7)),
    plain(native(), Authorization=""),
    caller.request(b"{}", path="/nowhere"),
    caller.request(gzip.compress(native())[:-4], GZIP),
)


async def one(stand: Stand, dice: random.Random, number: int) -> int:
    """A call on a connection of its own; every second caller leaves, at any time, by FIN or RST. Its status, or 0."""
    wire = dice.choice(WIRES)
    async with caller.dial(stand.url) as line:
        if number % 2:
            cut = dice.random()
            line.send(wire if cut < 0.8 else wire[: int(len(wire) * dice.random())])
            await asyncio.sleep(dice.choice((0, 0.002, 0.01, 0.03)))
            (line.leave if dice.random() < 0.5 else line.vanish)()
            return 0
        line.send(wire)
        async with asyncio.timeout(60):
            return (await line.answer()).status


@pytest.mark.campaign
@row(
    "an answer or an error of its own, each",
    freed="all: files, tasks, connections, upstream calls; memory flat",
    figure="24,000 calls of 18 kinds before 15 behaviours of upstream, 12,000 of their callers leave (1 in 20 of that "
    f"in each run); RSS of the second half ≤ {GROWTH_BYTES >> 20} MiB; the journal is clean",
)
async def test_f100_a_long_run_of_all_kinds_of_calls_leaves_nothing(stage: Stage, tmp_path: Path) -> None:
    dice = random.Random(SEED)
    journal = tmp_path / "calls.jsonl"
    stand = await stage("--journal-file", str(journal), "--idle-timeout", "1", "--first-token-timeout", "2")
    statuses: Counter[int] = Counter()

    async def waves(count: int) -> None:
        for start in range(0, count, WAVE):
            stand.upstream.script = dice.choice(SCRIPTS)
            numbers = range(start, min(start + WAVE, count))
            statuses.update(await asyncio.gather(*(one(stand, dice, number) for number in numbers)))

    # Caches, pools and threads that every process comes to have.
    await waves(max(CALLS // 20, 600))
    await stand.settled()
    before, half_bytes = await stand.gauges(), 0
    statuses.clear()
    await waves(CALLS // 2)
    half_bytes = stand.rss_bytes
    await waves(CALLS // 2)
    await stand.settled()
    after, grown_bytes = await stand.gauges(), stand.rss_bytes - half_bytes
    assert after["dashseek_event_loop_tasks"] == before["dashseek_event_loop_tasks"]
    assert after['dashseek_upstream_connections{state="acquired"}'] == 0
    assert after["dashseek_requests_in_flight"] == 0
    assert grown_bytes < GROWTH_BYTES
    assert statuses[0] == CALLS // 2
    assert statuses.keys() >= {200, 400, 401, 404, 429, 500}
    assert statuses.keys() <= {0, 200, 400, 401, 404, 429, 500, 503}
    verified = await asyncio.to_thread(forks.dashseek, "usage", "verify", str(journal))
    assert verified.returncode == 0, verified.stdout + verified.stderr
    records = sum(1 for line in journal.read_bytes().splitlines() if b'"close"' in line)
    matrix.reached(
        f"{CALLS:,} mixed calls, {statuses[0]:,} of their callers leave",
        f"memory {grown_bytes / 2**20:+.1f} MiB over the second half, to {stand.rss_bytes / 2**20:.0f} MiB; "
        f"{after['dashseek_event_loop_tasks']:.0f} tasks as before, 0 files more, 0 open; {records:,} records in the "
        "journal, verify clean",
    )
