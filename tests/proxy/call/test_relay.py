"""Claims about the caller's stream: when its head goes out, when a heartbeat, and how they look (SSE-2, SSE-11)."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest
from aiohttp import web

from proxy.call import relay
from proxy.downstream import sinks
from proxy.simulation.wire import Script
from tests import caller, lint
from tests.conftest import StartSimulator
from tests.proxy.conftest import StartGateway
from translators.dashscope import tongue

WORDS = "one two three four five"
INCREMENTAL = caller.call(WORDS, incremental_output=True)
HEARTBEATS = re.compile(rb"^:heartbeat\n", re.MULTILINE)


async def test_the_head_is_held_until_there_is_something_to_say(
    simulator: StartSimulator, gateway_before: StartGateway
) -> None:
    """Spec SSE-2: the upstream's head alone is nothing."""
    upstream = await simulator(Script(text=WORDS, first_byte_delay_s=0.3, keep_alive_s=0.02))
    front = await gateway_before(upstream.url, head_hold=5)
    async with caller.dial(front.url) as line:
        line.send(caller.request(INCREMENTAL, caller.SSE))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.15):
                await line.head()
        assert (await line.head()).status == 200
        assert caller.text(await line.rest()) == WORDS


async def test_a_head_that_is_held_too_long_goes_out_alone_and_heartbeats_follow(
    simulator: StartSimulator, gateway_before: StartGateway
) -> None:
    upstream = await simulator(Script(text=WORDS, first_byte_delay_s=0.5))
    front = await gateway_before(upstream.url, head_hold=0.1, heartbeat=0.1)
    answer = await caller.stream(front.url, INCREMENTAL)
    assert 2 <= len(HEARTBEATS.findall(answer.body)) <= 4
    assert caller.text(answer.body) == WORDS
    assert not lint.check(answer.body, incremental=True)


async def test_silence_in_the_middle_is_filled_too_and_each_comment_joins_the_next_frame(
    simulator: StartSimulator, gateway_before: StartGateway
) -> None:
    upstream = await simulator(Script(text=WORDS, gap_s=0.3))
    front = await gateway_before(upstream.url, head_hold=0.1, heartbeat=0.1)
    answer = await caller.stream(front.url, INCREMENTAL)
    assert b"\n\n:heartbeat\n" in answer.body
    assert b":heartbeat\n\n" not in answer.body
    assert not lint.check(answer.body, incremental=True)


async def test_a_stream_that_speaks_needs_no_heartbeat(simulator: StartSimulator, gateway_before: StartGateway) -> None:
    upstream = await simulator(Script(text=WORDS, repeat=4, gap_s=0.02))
    front = await gateway_before(upstream.url, head_hold=0.2, heartbeat=0.2)
    assert not HEARTBEATS.findall((await caller.stream(front.url, INCREMENTAL)).body)


async def test_several_events_of_one_read_leave_in_one_write(
    simulator: StartSimulator, gateway_before: StartGateway
) -> None:
    """Spec SSE-10; a chunk of HTTP is a write."""
    upstream = await simulator(Script(text=WORDS, deltas_per_write=100))
    front = await gateway_before(upstream.url)
    async with caller.dial(front.url) as line:
        line.send(caller.request(INCREMENTAL, caller.SSE))
        await line.head()
        piece = await line.piece()
        assert len(caller.packets(piece)) > 2
        assert piece.endswith(b"\n\n")


async def test_no_frame_is_ever_split_over_two_writes(simulator: StartSimulator, gateway_before: StartGateway) -> None:
    """Spec SSE-1: some clients decode each network read by itself."""
    upstream = await simulator(Script(text="你好，世界 " * 20, split=7))
    front = await gateway_before(upstream.url)
    async with caller.dial(front.url) as line:
        line.send(caller.request(INCREMENTAL, caller.SSE))
        await line.head()
        while piece := await line.piece():
            assert piece.startswith(b"id:")
            assert piece.endswith(b"\n\n")


async def test_what_comes_while_usage_is_awaited_can_still_break_off(
    simulator: StartSimulator, gateway_before: StartGateway
) -> None:
    """Spec SSE-8: an upstream that owes nothing but its figures has not failed."""
    upstream = await simulator(Script(text=WORDS, usage="own", cut_after=7, cut_by="rst"))
    front = await gateway_before(upstream.url)
    answer = await caller.stream(front.url, INCREMENTAL)
    assert not lint.check(answer.body, incremental=True)
    assert caller.packets(answer.body)[-1]["output"]["choices"][0]["finish_reason"] == "stop"


async def test_what_upstream_says_after_the_finish_is_waited_for_a_moment_only(
    simulator: StartSimulator, gateway_before: StartGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection is closed then; otherwise it serves the next call."""
    monkeypatch.setattr(relay, "LEFTOVER_S", 0.05)
    upstream = await simulator(Script(text=WORDS, stall_after=8))
    front = await gateway_before(upstream.url)
    await caller.stream(front.url, INCREMENTAL)
    assert await upstream.calls[0].over() == "aborted"
    upstream.script = Script(text=WORDS)
    for _ in range(3):
        await caller.stream(front.url, INCREMENTAL)
    assert [seen.connection for seen in upstream.calls] == [1, 2, 2, 2]


async def test_a_caller_who_reads_no_heartbeat_gets_no_second_one(
    simulator: StartSimulator, gateway_before: StartGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or the comments of a long silence would pile up, each with a task of its own."""
    monkeypatch.setattr(tongue, "HEARTBEAT", b":" + b"a" * (8 << 20) + b"\n")
    upstream = await simulator(Script(first_byte_delay_s=30))
    front = await gateway_before(upstream.url, head_hold=0.05, heartbeat=0.05)
    async with caller.dial(front.url, receive_bytes=4096) as line:
        line.send(caller.request(INCREMENTAL, caller.SSE))
        await line.head()
        line.stall()
        await asyncio.sleep(0.4)
        waiting = [task for task in asyncio.all_tasks() if "_breathe" in repr(task.get_coro())]
        assert len(waiting) == 1


class _Gone:
    """A response whose caller has left: aiohttp tells by the next write, unless it has cancelled the handler first."""

    async def write(self, _: bytes) -> None:
        raise ConnectionResetError

    async def write_eof(self) -> None:
        raise ConnectionResetError

    async def prepare(self, _: object) -> None:
        raise ConnectionResetError


@pytest.fixture
async def left() -> sinks.PacketSink:
    downstream = sinks.PacketSink(Any, tongue, Any, hold_s=60, heartbeat_s=60)  # type: ignore[arg-type]
    downstream.response = _Gone()  # type: ignore[assignment]
    return downstream


async def test_a_write_that_fails_is_a_caller_who_has_left(left: sinks.PacketSink) -> None:
    with pytest.raises(sinks.CallerGone):
        await left.write(b"id:1\n\n")
    with pytest.raises(sinks.CallerGone):
        await left.close()


async def test_so_is_a_reply_that_cannot_be_sent() -> None:
    whole = sinks.ReplySink(Any, Any)  # type: ignore[arg-type]
    whole.response = _Gone()  # type: ignore[assignment]
    with pytest.raises(sinks.CallerGone):
        await whole.close()


async def test_a_heartbeat_that_fails_is_left_to_the_handler(left: sinks.PacketSink) -> None:
    """It is being told on its own; a task of a timer has nobody to tell."""
    left._due()
    assert left._task is not None
    await left._task
    left.stop()


async def test_a_caller_who_is_gone_before_the_head_has_left_and_is_no_bug() -> None:
    """aiohttp says so by the error of a write, if the handler comes to it before it is cancelled."""
    told: list[BaseException] = []

    async def handler(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.abort()
        through: Any = None
        downstream = sinks.PacketSink(request, tongue, through, hold_s=9, heartbeat_s=9)
        try:
            await downstream.write(b"data:\n\n")
        except sinks.CallerGone as error:
            told.append(error)
        finally:
            downstream.stop()
        return web.Response()

    app = web.Application()
    app.router.add_get("/", handler)
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        host, port = runner.addresses[0]
        async with caller.dial(f"http://{host}:{port}") as line:
            line.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert await line.eof() == b""
        assert len(told) == 1
    finally:
        await runner.cleanup()
