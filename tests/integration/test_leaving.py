"""MET-5: a caller who hangs up stops the upstream within 100 ms, in every phase, streaming or not.

aiohttp's own test server cancels handlers by a setting that its real server has off: only the real process proves this.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import orjson
import pytest

from proxy.simulation.wire import Script
from tests import caller
from tests.integration.conftest import Pair
from tests.stopwatch import Stopwatch

pytestmark = pytest.mark.asyncio(loop_scope="module")

# The rule's 100 ms, with what the simulator in the test's own loop takes to notice.
ABORT_S = 0.1
SSE_CALL = caller.call("Tell me everything.", incremental_output=True)
HANG_UPS = [
    pytest.param(caller.Line.leave, id="FIN"),
    pytest.param(caller.Line.vanish, id="RST"),
]
HangUp = Callable[[caller.Line], None]

# How an upstream stands when the caller leaves, what was asked, and what the caller has seen by then.
STREAM, REPLY = caller.request(SSE_CALL, caller.SSE), caller.request(caller.call())
# A budget that we hold by counting needs to see the chain as it comes, so the reply is folded from a stream.
FOLDED = caller.request(caller.call(model="deepseek-r1", thinking_budget=1_000))
PHASES = [
    pytest.param(Script(first_byte_delay_s=30), STREAM, None, id="before upstream's head"),
    pytest.param(Script(first_byte_delay_s=30, keep_alive_s=0.05), STREAM, None, id="before the first packet"),
    pytest.param(Script(endless=True, gap_s=0.01), STREAM, b"id:5\n", id="mid-stream"),
    pytest.param(Script(endless=True), STREAM, b"id:5\n", id="mid-stream, at full speed"),
    pytest.param(Script(stall_after=5), STREAM, b"id:3\n", id="mid-stream, in a silence"),
    pytest.param(Script(first_byte_delay_s=30), REPLY, None, id="JSON, before upstream's head"),
    pytest.param(Script(first_byte_delay_s=30, keep_alive_s=0.05), REPLY, None, id="JSON, before its body"),
    pytest.param(Script(endless=True, gap_s=0.01), FOLDED, None, id="JSON, folded from a stream"),
]


@pytest.mark.parametrize("hang_up", HANG_UPS)
@pytest.mark.parametrize(("script", "wire", "seen"), PHASES)
async def test_the_upstream_is_left_at_once(
    pair: Pair, script: Script, wire: bytes, seen: bytes | None, hang_up: HangUp
) -> None:
    number = pair.next(script)
    async with caller.dial(pair.url) as line:
        line.send(wire)
        upstream_call = await pair.upstream.call(number)
        if seen is not None:
            await line.head()
            await line.until(seen)
        watch = Stopwatch(pair.served.process.pid)
        hang_up(line)
        assert await upstream_call.over() == "aborted"
    assert upstream_call.ended_s is not None
    assert watch.lap_s(upstream_call.ended_s) < ABORT_S


@pytest.mark.parametrize("hang_up", HANG_UPS)
@pytest.mark.parametrize("headers", [caller.SSE, {}], ids=["packets", "reply"])
async def test_every_leg_of_a_fan_out_is_left(pair: Pair, headers: dict[str, str], hang_up: HangUp) -> None:
    """Spec OUT-7: `n = 2` is two upstream calls."""
    number = pair.next(*[Script(first_byte_delay_s=0.1, stall_after=3)] * 2)
    async with caller.dial(pair.url) as line:
        line.send(caller.request(caller.call("Hi", n=2, incremental_output=True), headers))
        legs = [await pair.upstream.call(number), await pair.upstream.call(number + 1)]
        if headers:
            await line.head()
            await line.piece()
        watch = Stopwatch(pair.served.process.pid)
        hang_up(line)
        assert [await leg.over() for leg in legs] == ["aborted", "aborted"]
    assert watch.lap_s(max(leg.ended_s or 0 for leg in legs)) < ABORT_S


async def test_who_leaves_before_the_body_is_whole_reaches_no_upstream(pair: Pair) -> None:
    before = len(pair.upstream.calls)
    async with caller.dial(pair.url) as line:
        line.send(caller.request(caller.call())[:-3])
        await asyncio.sleep(0.05)
        line.vanish()
    await asyncio.sleep(0.1)
    assert len(pair.upstream.calls) == before


async def test_a_storm_of_leavers_leaves_nothing_behind(pair: Pair) -> None:
    """300 callers leave, some before their first packet, some after, by FIN and by RST; then all is as it was."""
    script = pair.upstream.script
    try:
        pair.upstream.script = Script(text="a b c", endless=True, gap_s=0.02)
        await asyncio.gather(*(_leave(pair, number) for number in range(300)))
        async with asyncio.timeout(5):
            await pair.upstream.until(lambda: pair.upstream.open == 0)
    finally:
        pair.upstream.script = script
    assert (await caller.ask(pair.url, caller.call())).status == 200


async def _leave(pair: Pair, number: int) -> None:
    async with caller.dial(pair.url) as line:
        line.send(caller.request(SSE_CALL, caller.SSE))
        if number % 3:
            await line.head()
            await line.piece()
        else:
            await asyncio.sleep(number % 7 * 0.01)
        (line.leave if number % 2 else line.vanish)()


async def test_the_log_has_one_line_for_each_and_no_traceback(pair: Pair) -> None:
    """Runs last: it looks at what all others have left there."""
    number = pair.next(Script(first_byte_delay_s=30))
    known_as = "0c5b1a1e-6a53-4a1c-8a0e-5b6a3f0d9c11"
    async with caller.dial(pair.url) as line:
        line.send(caller.request(caller.call(), {"X-Request-Id": known_as}))
        await pair.upstream.call(number)
        line.leave()
    async with asyncio.timeout(5):
        while pair.served.output.count(known_as) < 2:  # noqa: ASYNC110 - nothing tells that a process has logged
            await asyncio.sleep(0.01)
    lines: list[dict[str, Any]] = [
        orjson.loads(line) for line in pair.served.output.splitlines() if line.startswith("{")
    ]
    assert [line.get("outcome", line["event"]) for line in lines if line.get("request_id") == known_as] == [
        "open",
        "client_gone_before_first_packet",
    ]
    assert {line["event"] for line in lines} <= {"serving", "models_retire", "open", "call"}
    assert "raceback" not in pair.served.output
