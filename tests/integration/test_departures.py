"""MET-5, the other policy: what a caller has left is read on for the record, within bounds, and never for longer.

On the real process: only there does a caller's leaving cancel the handler.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest
import pytest_asyncio

from proxy.metering import ledger
from proxy.simulation.simulator import Simulator
from proxy.simulation.wire import Script
from tests import caller
from tests.conftest import Served
from tests.integration.conftest import Pair
from translators import tokens

pytestmark = pytest.mark.asyncio(loop_scope="module")

WORDS = "one two three four five six seven eight nine ten"
STREAM = caller.request(caller.call(WORDS, incremental_output=True), caller.SSE)
REPLY = caller.request(caller.call())
CHAIN = "a chain of thought that goes on and on and is read by nobody at all"
# A budget that we hold by counting needs to see the chain as it comes, so the reply is folded from a stream.
FOLDED = caller.request(caller.call(model="deepseek-r1", thinking_budget=1_000))
OVER_BUDGET = caller.request(caller.call(model="deepseek-r1", thinking_budget=4, incremental_output=True), caller.SSE)
BEFORE, MID_STREAM = "client_gone_before_first_packet", "client_gone_mid_stream"


class Drained:
    """A process that reads on, its upstream, and its journal."""

    def __init__(self, pair: Pair, path: Path) -> None:
        self.pair = pair
        self.path = path

    async def left(self, wire: bytes, *scripts: Script, seen: bytes | None = None) -> int:
        """Leave one call once this was seen of it, `None` before the first packet; the number of its upstream call."""
        number = self.pair.next(*scripts)
        async with caller.dial(self.pair.url) as line:
            line.send(wire)
            await self.pair.upstream.call(number + len(scripts) - 1)
            if seen is not None:
                await line.head()
                await line.until(seen)
            line.vanish()
        return number

    async def close(self, count: int = 1) -> dict[str, Any]:
        """The next `close` line."""
        async with asyncio.timeout(10):
            while len(self.closes) < count:  # noqa: ASYNC110 - nothing tells that a process has written
                await asyncio.sleep(0.01)
        read = ledger.read([self.path], rules=ledger.RULES)
        assert (read.violations, read.unknown) == ([], [])
        return self.closes[-1]

    async def logged(self, text: str) -> None:
        """Wait until the log says so: it is written, and read, by threads of their own."""
        async with asyncio.timeout(10):
            while text not in self.pair.served.output:  # noqa: ASYNC110 - nothing tells that a process has logged
                await asyncio.sleep(0.01)

    @property
    def closes(self) -> list[dict[str, Any]]:
        """The ends of the calls that were admitted."""
        lines = [orjson.loads(line) for line in self.path.read_bytes().splitlines()]
        return [line for line in lines if line["ev"] == "close" and line["call"]]


@pytest_asyncio.fixture(loop_scope="module")
async def drained(
    request: pytest.FixtureRequest, vocabulary: tokens.Vocabulary, tmp_path: Path
) -> AsyncIterator[Drained]:
    """Started with the flags of `pytest.mark.flags(…)`."""
    mark = request.node.get_closest_marker("flags")
    path = tmp_path / "calls.jsonl"
    flags = ("--cancel-policy", "drain", "--journal-file", str(path), *(mark.args if mark else ()))
    async with Simulator(vocabulary=vocabulary) as upstream:
        served = Served(("--upstream", upstream.url, "--port", "0", *flags), {}, tmp_path)
        try:
            await asyncio.to_thread(served.wait_until_ready)
            yield Drained(Pair(upstream, served), path)
            assert "raceback" not in served.output
        finally:
            await asyncio.to_thread(served.end)


PHASES = [
    pytest.param(Script(text=WORDS, first_byte_delay_s=0.3), STREAM, None, id="before upstream's head"),
    pytest.param(
        Script(text=WORDS, first_byte_delay_s=0.3, keep_alive_s=0.05),
        STREAM,
        None,
        id="before the first packet",
    ),
    pytest.param(Script(text=WORDS, gap_s=0.05), STREAM, b"id:3\n", id="mid-stream"),
    pytest.param(Script(text=WORDS, usage="own", gap_s=0.05), STREAM, b'" ten"', id="before its usage"),
    pytest.param(Script(text=WORDS, first_byte_delay_s=0.3), REPLY, None, id="JSON"),
    pytest.param(Script(text=WORDS, gap_s=0.05), FOLDED, None, id="JSON, folded from a stream"),
]


@pytest.mark.parametrize(("script", "wire", "seen"), PHASES)
async def test_upstream_is_read_to_its_end_and_generated_is_what_it_says(
    drained: Drained, script: Script, wire: bytes, seen: bytes | None
) -> None:
    await drained.left(wire, script, seen=seen)
    closed = await drained.close()
    (upstream_call,) = drained.pair.upstream.calls
    assert await upstream_call.over() == "done"
    assert (closed["outcome"], closed["status"], closed["basis"]) == (
        MID_STREAM if seen else BEFORE,
        499,
        "upstream_final",
    )
    assert closed["generated"]["input_tokens"] == upstream_call.prompt_tokens
    assert closed["generated"]["output_tokens"] == upstream_call.completion_tokens
    delivered = closed["usage"]["output_tokens"]
    assert (0 < delivered <= upstream_call.completion_tokens) if seen else delivered == 0


async def test_what_was_delivered_stays_what_the_caller_was_handed(drained: Drained) -> None:
    """MET-3: by half-closing, a caller leaves and still reads all that was handed over to it."""
    number = drained.pair.next(Script(text=WORDS, gap_s=0.05))
    async with caller.dial(drained.pair.url) as line:
        line.send(STREAM)
        await line.head()
        body = await line.until(b"id:3\n")
        line._writer.write_eof()
        body += await line.eof()
    closed = await drained.close()
    assert closed["usage"] == caller.packets(body)[-1]["usage"]
    assert closed["usage"]["output_tokens"] < closed["generated"]["output_tokens"]
    assert drained.pair.upstream.calls[number - 1].ended == "done"


async def test_who_leaves_with_packets_in_the_buffer_was_handed_them(drained: Drained) -> None:
    """The write that waits for such a caller ends with its connection, and the call goes on."""
    drained.pair.next(Script(text=WORDS + " ", endless=True, deltas_per_write=200))
    async with caller.dial(drained.pair.url, receive_bytes=4096) as line:
        line.send(STREAM)
        await line.head()
        line.stall()
        await asyncio.sleep(0.5)
        assert drained.pair.upstream.open == 1
        line.vanish()
    closed = await drained.close()
    assert (closed["outcome"], closed["basis"]) == (MID_STREAM, "counted")
    assert 0 < closed["usage"]["output_tokens"] < closed["generated"]["output_tokens"]
    assert 0 <= closed["generated"]["output_tokens"] - closed["usage"]["output_tokens"] - 8192 < 1_000


async def test_every_leg_of_a_fan_out_is_read_to_its_end(drained: Drained) -> None:
    """OUT-7: `n = 2` is two upstream calls and one record."""
    wire = caller.request(caller.call("Hi", n=2, incremental_output=True), caller.SSE)
    scripts = Script(text=WORDS, gap_s=0.03), Script(text=WORDS * 2, gap_s=0.03)
    await drained.left(wire, *scripts, seen=b"id:3\n")
    closed = await drained.close()
    legs = drained.pair.upstream.calls
    assert [leg.ended for leg in legs] == ["done", "done"]
    assert closed["generated"]["output_tokens"] == sum(leg.completion_tokens for leg in legs)
    assert (closed["basis"], len(closed["attempts"])) == ("upstream_final", 2)


async def test_a_second_leg_is_not_begun_for_a_caller_who_has_left(drained: Drained) -> None:
    """OUT-9: what it would say is read by nobody; what the first one said is counted."""
    await drained.left(OVER_BUDGET, Script(reasoning=CHAIN, gap_s=0.1), seen=b"id:1\n")
    closed = await drained.close()
    (upstream_call,) = drained.pair.upstream.calls
    assert await upstream_call.over() == "aborted"
    assert (closed["outcome"], closed["basis"]) == (MID_STREAM, "counted")
    assert closed["generated"]["output_tokens"] >= 4


async def test_a_refusal_that_comes_after_the_caller_has_left_generated_nothing(drained: Drained) -> None:
    await drained.left(STREAM, Script(status=503, first_byte_delay_s=0.2))
    closed = await drained.close()
    assert (closed["outcome"], closed["basis"], closed["code"]) == (BEFORE, "none", None)
    assert closed["generated"]["total_tokens"] == 0


async def test_an_upstream_that_breaks_off_after_that_is_counted(drained: Drained) -> None:
    await drained.left(STREAM, Script(text=WORDS, gap_s=0.05, cut_after=8), seen=b"id:3\n")
    closed = await drained.close()
    assert (closed["outcome"], closed["basis"]) == (MID_STREAM, "counted")
    assert closed["generated"]["output_tokens"] == drained.pair.upstream.calls[0].completion_tokens == 7


async def test_who_leaves_before_upstream_was_asked_reaches_none(drained: Drained) -> None:
    async with caller.dial(drained.pair.url) as line:
        line.send(REPLY[:-3])
        await asyncio.sleep(0.05)
        line.vanish()
    assert (await caller.ask(drained.pair.url, caller.call())).status == 200
    assert len(drained.pair.upstream.calls) == 1


# The bounds


@pytest.mark.flags("--cancel-drain-timeout", "0.3")
@pytest.mark.parametrize(
    ("wire", "seen"), [(STREAM, b"id:3\n"), (REPLY, None), (FOLDED, None)], ids=["stream", "JSON", "folded"]
)
async def test_it_is_read_on_for_so_many_seconds_and_no_longer(
    drained: Drained, wire: bytes, seen: bytes | None
) -> None:
    """Tokens do not re-arm it."""
    script = Script(first_byte_delay_s=30) if wire is REPLY else Script(text="a b ", endless=True, gap_s=0.02)
    await drained.left(wire, script, seen=seen)
    left_s = time.monotonic()
    closed = await drained.close()
    assert 0.2 < time.monotonic() - left_s < 10
    assert await drained.pair.upstream.calls[0].over() == "aborted"
    assert closed["outcome"] == (MID_STREAM if seen else BEFORE)
    assert closed["basis"] == "counted"
    await drained.logged('"cause":"cancel_drain_timeout fired"')


@pytest.mark.flags("--cancel-drain-tokens", "20")
@pytest.mark.parametrize(("wire", "seen"), [(STREAM, b"id:3\n"), (FOLDED, None)], ids=["stream", "folded"])
async def test_it_is_read_on_for_so_many_tokens_and_no_more(drained: Drained, wire: bytes, seen: bytes | None) -> None:
    """Held tokens count too: a reply shows none before its end."""
    await drained.left(wire, Script(text="a b ", endless=True, gap_s=0.01), seen=seen)
    closed = await drained.close()
    upstream_call = drained.pair.upstream.calls[0]
    assert await upstream_call.over() == "aborted"
    after = closed["generated"]["output_tokens"] - closed["usage"]["output_tokens"]
    assert 20 < after < (30 if seen else 80)
    await drained.logged('"cause":"cancel_drain_tokens reached"')


@pytest.mark.flags("--idle-timeout", "0.3")
async def test_the_other_time_limits_hold_as_ever(drained: Drained) -> None:
    await drained.left(STREAM, Script(text=WORDS, stall_after=5), seen=b"id:3\n")
    closed = await drained.close()
    assert (closed["outcome"], closed["basis"]) == (MID_STREAM, "counted")
    await drained.logged('"cause":"idle_timeout fired"')


# What it holds


@pytest.mark.flags("--limits", "concurrency=1")
async def test_the_place_of_an_open_call_is_free_when_upstream_has_ended_not_before(drained: Drained) -> None:
    """LIM-1: a limit of open calls is there for upstream's sake, and upstream is still at it."""
    await drained.left(STREAM, Script(text=WORDS, gap_s=0.1), seen=b"id:3\n")
    refused = await caller.ask(drained.pair.url, caller.call())
    assert refused.fault[:2] == (503, "ModelServingError")
    await drained.pair.upstream.calls[0].over()
    await drained.close()
    assert (await caller.ask(drained.pair.url, caller.call())).status == 200


@pytest.mark.parametrize("gap_s", [0.05, 30], ids=["in time", "cut"])
@pytest.mark.flags("--drain-timeout", "1.5")
async def test_a_process_that_leaves_waits_for_it_as_for_any_call_and_then_ends_it(
    drained: Drained, gap_s: float
) -> None:
    """OPS-2."""
    script = Script(text=WORDS, gap_s=gap_s) if gap_s < 1 else Script(text=WORDS, stall_after=6)
    await drained.left(STREAM, script, seen=b"id:3\n")
    drained.pair.served.process.terminate()
    assert await asyncio.to_thread(drained.pair.served.process.wait, 5) == 0
    closed = await drained.close()
    assert await drained.pair.upstream.calls[0].over() == ("done" if gap_s < 1 else "aborted")
    assert (closed["outcome"], closed["basis"]) == (MID_STREAM, "upstream_final" if gap_s < 1 else "counted")


async def test_a_caller_who_stays_notices_nothing(drained: Drained) -> None:
    answer = await caller.stream(drained.pair.url, caller.call(WORDS, incremental_output=True))
    closed = await drained.close()
    assert closed["outcome"] == "ok"
    assert closed["usage"] == closed["generated"] == caller.packets(answer.body)[-1]["usage"]
    drained.pair.next(Script(status=429, retry_after="7"))
    refused = await caller.stream(drained.pair.url, caller.call())
    assert (refused.fault[:2], refused.headers["Retry-After"]) == ((429, "Throttling.RateQuota"), "7")
