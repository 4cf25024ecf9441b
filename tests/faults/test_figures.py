"""Figures: what a storm of leavers, and a crowd that stays, leave behind; sized by DASHSEEK_STORM, DASHSEEK_CROWD."""

from __future__ import annotations

import asyncio
import contextlib
import os

import pytest

from proxy.simulator import Script
from tests import caller
from tests.faults.conftest import CALL, Stage, Stand
from tests.faults.matrix import row

pytestmark = pytest.mark.asyncio(loop_scope="module")

# The bounded forms; the long ones are 10,000 and 2,000.
STORM = int(os.environ.get("DASHSEEK_STORM", "2000"))
CROWD = int(os.environ.get("DASHSEEK_CROWD", "500"))
WAVE = 100
STORM_GROWTH_BYTES = 8 << 20
CROWD_BYTES = 200 << 10


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


@pytest.mark.timeout(600)
@row(
    "nothing",
    freed="all, and memory flat",
    figure=f"2,000 leavers (10,000 by DASHSEEK_STORM): half FIN, half RST, a third before the first packet; RSS of the "
    f"second half ≤ {STORM_GROWTH_BYTES >> 20} MB",
)
async def test_f12_a_storm_of_leavers_leaves_nothing_behind(stage: Stage) -> None:
    stand = await stage("--log-level", "warning")
    stand.upstream.script = Script(text="a b c", endless=True, gap_s=0.02)
    half_bytes = 0
    for start in range(0, STORM, WAVE):
        await asyncio.gather(*(_leave(stand, number) for number in range(start, start + WAVE)))
        if start < STORM // 2:
            half_bytes = stand.rss_bytes
    await stand.settled()
    assert stand.rss_bytes - half_bytes < STORM_GROWTH_BYTES


@pytest.mark.timeout(600)
@row(
    "all of it, every one",
    figure=f"500 open streams (2,000 by DASHSEEK_CROWD): ≤ {CROWD_BYTES >> 10} kB each",
)
async def test_f65_a_crowd_of_open_streams_is_served(stage: Stage) -> None:
    stand = await stage("--max-connections", str(CROWD), "--log-level", "warning")
    await stand.ask()
    idle_bytes = stand.rss_bytes
    stand.upstream.script = Script(text="one two three", gap_s=0.5)
    async with contextlib.AsyncExitStack() as stack:
        lines = [await stack.enter_async_context(caller.dial(stand.url)) for _ in range(CROWD)]
        for line in lines:
            line.send(caller.request(CALL, caller.SSE))
        heads = await asyncio.gather(*(line.head() for line in lines))
        assert {head.status for head in heads} == {200}
        assert stand.rss_bytes - idle_bytes < CROWD * CROWD_BYTES
        bodies = await asyncio.gather(*(line.rest() for line in lines))
    assert {caller.text(body) for body in bodies} == {"one two three"}
    await stand.settled()
