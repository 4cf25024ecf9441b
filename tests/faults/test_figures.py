"""Figures: what storms, crowds and attacks leave behind, in the sizes that are promised.

The long job is a million mutated requests (`.ci/run campaign`), of which every run of the tests sends 50,000.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import resource
import time
from collections import Counter
from collections.abc import Iterator

import pytest

from proxy.simulation.wire import Script
from tests import caller, needs
from tests.conftest import LOOP, campaign
from tests.faults import fuzz, matrix
from tests.faults.conftest import CALL, Stage, Stand
from tests.faults.matrix import row

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(3600)]

STORM = 10_000
# On asyncio memory comes to its level after 20,000 leavers, and is flat from there to 30,000; on uvloop it begins flat.
BEFORE_STORM = 20_000 if LOOP.get("DASHSEEK_LOOP") == "asyncio" else 0
CROWD = 2_000
CALLS = 10_000
FUZZ = campaign(1_000_000)
SEED = random.SystemRandom().randrange(1, 1 << 32)

WAVE = 100
STORM_GROWTH_BYTES = 4 << 20
STORMS_AGAIN = 3
CROWD_BYTES = 150 << 10
# So many connections, and on each a call about as often as upstream closes what is idle.
KEPT = 500
UPSTREAM_KEEPALIVE_S = 1.0
SPREAD_S = 0.01
# What the collector lets lie about (`GC_THRESHOLD`): broken requests leave cycles behind, in aiohttp and asyncio.
FUZZ_GROWTH_BYTES = 48 << 20
TIMEOUTS = ("--header-timeout", "2", "--body-timeout", "1", "--keepalive-timeout", "2")


@pytest.fixture(autouse=True)
def files() -> Iterator[None]:
    """A crowd needs a file for each caller, and one more for each upstream call: they are all in this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 2 * CROWD + 200:
        needs.lack("more open files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def _leave(stand: Stand, number: int) -> None:
    """Every third before its first packet; every other by FIN, the rest by RST."""
    async with caller.dial(stand.url) as line:
        line.send(caller.request(CALL, caller.SSE))
        if number % 3:
            await line.head()
            await line.piece()
        else:
            await asyncio.sleep(number % 7 * 0.01)
        (line.leave if number % 2 else line.vanish)()


async def _storm(stand: Stand, leavers: int) -> None:
    for start in range(0, leavers, WAVE):
        await asyncio.gather(*(_leave(stand, number) for number in range(start, start + WAVE)))


@row(
    "nothing",
    freed="all: files, tasks, connections to upstream, and memory flat",
    figure=f"{STORM:,} leavers: half FIN, half RST, a third before the first packet; RSS of the second half "
    f"≤ {STORM_GROWTH_BYTES >> 20} MB",
)
async def test_f12_a_storm_of_leavers_leaves_nothing_behind(stage: Stage) -> None:
    stand = await stage()
    stand.upstream.script = Script(text="a b c", endless=True, gap_s=0.02)
    before = await stand.gauges()
    await _storm(stand, BEFORE_STORM + STORM // 2)
    half_bytes = stand.rss_bytes
    await _storm(stand, STORM // 2)
    await stand.settled()
    grown_bytes = stand.rss_bytes - half_bytes
    # On a busy machine more calls are open at a time, once: what leaks grows again.
    for _ in range(STORMS_AGAIN):
        if grown_bytes < STORM_GROWTH_BYTES:
            break
        half_bytes = stand.rss_bytes
        await _storm(stand, STORM // 2)
        await stand.settled()
        grown_bytes = stand.rss_bytes - half_bytes
    after = await stand.gauges()
    assert after["dashseek_event_loop_tasks"] == before["dashseek_event_loop_tasks"]
    assert after['dashseek_upstream_connections{state="idle"}'] == 0
    assert after['dashseek_upstream_connections{state="acquired"}'] == 0
    assert after["dashseek_requests_in_flight"] == 0
    assert {seen.ended for seen in stand.upstream.calls} == {"aborted"}
    assert grown_bytes < STORM_GROWTH_BYTES
    outcomes = Counter(line["outcome"] for line in stand.lines if line["event"] == "call")
    assert outcomes.keys() == {"client_gone_mid_stream", "client_gone_before_first_packet"}
    matrix.reached(
        f"{STORM:,} cancelled streams",
        f"left: 0 tasks, 0 files, 0 connections, 0 upstream requests; memory {grown_bytes / 2**20:+.1f} MB over the "
        f"second half; {outcomes['client_gone_before_first_packet']:,} before their first packet",
    )


@row("all of it, every one", figure=f"{CROWD:,} open streams in one process: ≤ {CROWD_BYTES >> 10} kB each")
async def test_f65_a_crowd_of_open_streams_is_served(stage: Stage) -> None:
    # On a busy machine so many calls take seconds until the first of them is connected.
    stand = await stage("--log-level", "warning", "--connect-timeout", "60")
    await stand.ask()
    idle_bytes = stand.rss_bytes
    stand.upstream.script = Script(text="one two three", deltas_per_write=2)
    stand.upstream.goes_on.clear()
    async with contextlib.AsyncExitStack() as stack:
        lines = [await stack.enter_async_context(caller.dial(stand.url)) for _ in range(CROWD)]
        for line in lines:
            line.send(caller.request(CALL, caller.SSE))
        heads = await asyncio.gather(*(line.head() for line in lines))
        assert {head.status for head in heads} == {200}
        open_bytes = stand.rss_bytes
        assert stand.upstream.open == CROWD
        stand.upstream.goes_on.set()
        bodies = await asyncio.gather(*(line.rest() for line in lines))
    assert {caller.text(body) for body in bodies} == {"one two three"}
    assert open_bytes - idle_bytes < CROWD * CROWD_BYTES
    await stand.settled()
    matrix.reached(
        f"{CROWD:,} open streams in one process",
        f"RSS {idle_bytes / 2**20:.0f} MB before, {open_bytes / 2**20:.0f} MB with them: "
        f"{(open_bytes - idle_bytes) / CROWD / 2**10:.0f} kB each",
    )


async def _call_at_the_brink(stand: Stand, name: str, calls: int) -> None:
    """Calls on one connection, each when upstream is just about to close the connection of the last one."""
    dice = random.Random(name)
    async with caller.dial(stand.url) as line:
        for number in range(calls):
            said = f"{name}/{number}"
            line.send(caller.request(caller.call(said)))
            answer = await line.answer()
            assert answer.status == 200
            assert said in answer.json["output"]["choices"][0]["message"]["content"]
            await asyncio.sleep(UPSTREAM_KEEPALIVE_S + dice.uniform(-SPREAD_S, SPREAD_S))


async def test_calls_that_race_upstreams_keepalive_all_succeed_and_none_is_made_twice(stage: Stage) -> None:
    """Our pool keeps connections for longer than upstream does, which settings advise against (ERR-4, row 27)."""
    # A caller who is late on a busy machine finds its own connection open.
    stand = await stage("--upstream-keepalive-timeout", "5", "--keepalive-timeout", "60")
    stand.upstream.script = Script(keepalive_timeout_s=UPSTREAM_KEEPALIVE_S)
    each = CALLS // KEPT
    await asyncio.gather(*(_call_at_the_brink(stand, f"caller-{number}", each) for number in range(KEPT)))
    executed = Counter(seen.body["messages"][-1]["content"] for seen in stand.upstream.calls)
    assert len(executed) == sum(executed.values()) == KEPT * each
    tries = Counter(len(line["attempts"]) for line in stand.lines if line["event"] == "call")
    assert tries.keys() <= {1, 2}
    assert stand.upstream.connections > KEPT
    matrix.reached(
        f"{KEPT * each:,} calls against an upstream with {UPSTREAM_KEEPALIVE_S:g} s keep-alive",
        f"0 failures, 0 duplicates; {tries[2]:,} were saved by the one safe retry, over {stand.upstream.connections:,} "
        "connections",
    )


@pytest.mark.campaign
async def test_mutated_requests_are_answered_in_our_words_in_time_and_without_a_trace(stage: Stage) -> None:
    stand = await stage(*TIMEOUTS, "--log-level", "warning")
    stand.upstream.script = Script(text="a b")
    await fuzz.attack(stand.url, min(FUZZ, 1_000), SEED + 1)
    warm_bytes, began_s = stand.rss_bytes, time.monotonic()
    came = await fuzz.attack(stand.url, FUZZ, SEED)
    spent_s = time.monotonic() - began_s
    await stand.settled()
    assert fuzz.CANARY not in stand.served.output
    assert (await stand.ask()).status == 200
    assert {line["event"] for line in stand.lines} <= {"malformed"}
    # What strangers cause at will must not fill the disk.
    assert len(stand.lines) <= 2 + spent_s / 5
    assert stand.rss_bytes - warm_bytes < FUZZ_GROWTH_BYTES
    statuses = ", ".join(f"{number:,} × {status}" for status, number in came.most_common())
    matrix.reached(
        f"{FUZZ:,} mutated requests",
        f"0 hangs, 0 tracebacks, 0 answers that are not ours, no echo: {statuses}; {len(stand.lines)} lines of log",
    )
