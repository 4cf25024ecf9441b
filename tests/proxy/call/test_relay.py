"""Claims about the caller's stream: when its head goes out, when a heartbeat, and how they look (SSE-2, SSE-11)."""

from __future__ import annotations

import asyncio
import gc
import itertools
import re
import socket
import time
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp import web

from proxy.call import relay
from proxy.downstream import sinks, surface
from proxy.downstream.answer_head import Head
from proxy.downstream.browsers import Browsers, nothing
from proxy.downstream.phase import LIFECYCLE, Lifecycle
from proxy.simulation.wire import Script
from tests import caller, lint
from tests.conftest import StartSimulator
from tests.proxy.conftest import StartGateway
from translators.dashscope import tongue
from translators.pipe import State

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
        pieces = 0
        while piece := await line.piece():
            pieces += 1
            assert piece.startswith(b"id:")
            assert piece.endswith(b"\n\n")
    assert pieces > 20


CALLED = Script(tools=('weather {"city": "Paris, the one in France"}',))
ASKING = caller.call("Weather?", tools=[{"type": "function", "function": {"name": "weather"}}])


@pytest.mark.parametrize(("pace_s", "tells"), [(0.0, False), (1.0, True)], ids=["at once", "a second later"])
async def test_of_a_held_call_of_a_tool_usage_is_told_once_a_second(
    simulator: StartSimulator,
    gateway_before: StartGateway,
    monkeypatch: pytest.MonkeyPatch,
    *,
    pace_s: float,
    tells: bool,
) -> None:
    """SSE-7: by the clock since it was last told, which here stands still, or does so from just a second later on."""
    began_s = time.monotonic()
    clock = itertools.chain((began_s,), itertools.repeat(began_s + pace_s))
    front = await gateway_before((await simulator(CALLED)).url)
    monkeypatch.setattr(relay, "monotonic", lambda: next(clock))
    packets = caller.packets((await caller.stream(front.url, ASKING)).body)
    told = [packet for packet in packets if packet["output"]["choices"][0]["finish_reason"] == "null"]
    assert len(told) == tells


async def test_tokens_that_are_held_count_where_upstream_is_read_on_for_so_many(
    simulator: StartSimulator, gateway_before: StartGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MET-5: nothing of a call of a tool is shown before it is whole."""
    # What is told of it meanwhile is looked at on a way of its own.
    monkeypatch.setattr(relay, "PROGRESS_S", 1e9)
    upstream = await simulator(replace(CALLED, tools=(f'weather {{"city": "{"Paris " * 200}"}}',), gap_s=0.005))
    front = await gateway_before(upstream.url, cancel_policy="drain", cancel_drain_tokens=5)
    async with caller.dial(front.url) as line:
        line.send(caller.request(ASKING, caller.SSE))
        await upstream.until(lambda: bool(upstream.calls) and upstream.calls[0].events > 2)
        line.leave()
        record, _ = await front.end_of()
    assert record.cause == "cancel_drain_tokens reached"
    assert await upstream.calls[0].over() == "aborted"


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
    """Or the comments of a long silence would pile up."""
    monkeypatch.setattr(tongue, "HEARTBEAT", b":" + b"a" * (8 << 20) + b"\n")
    upstream = await simulator(Script(first_byte_delay_s=30))
    front = await gateway_before(upstream.url, head_hold=0.05, heartbeat=0.05)
    async with caller.dial(front.url, receive_bytes=4096) as line:
        line.send(caller.request(INCREMENTAL, caller.SSE))
        await line.head()
        line.stall()
        await asyncio.sleep(0.4)
        assert front.process.calls.runner.server is not None
        (connection,) = front.process.calls.runner.server.connections
        assert connection.transport is not None
        assert connection.transport.get_write_buffer_size() < 8 << 20


async def test_of_a_stream_that_has_ended_no_timer_is_left_that_would_keep_it(
    simulator: StartSimulator, gateway_before: StartGateway
) -> None:
    """Each would come again every heartbeat for ever, and hold the whole call."""

    def packet_sinks() -> list[sinks.PacketSink]:
        gc.collect()
        return [one for one in gc.get_objects() if type(one) is sinks.PacketSink]

    # Of other tests, whose loops have ended.
    before = packet_sinks()
    front = await gateway_before((await simulator()).url, heartbeat=0.05)
    for _ in range(3):
        await caller.stream(front.url, INCREMENTAL)
    front.ended.clear()
    # Each look at all objects of a run takes a good part of a second, of a core that others may have.
    async with asyncio.timeout(60):
        while len(packet_sinks()) > len(before):  # noqa: ASYNC110 - nobody tells of an object that is gone
            await asyncio.sleep(0.05)


async def test_what_the_kernel_refuses_was_not_handed_over_and_is_kept_for_nobody() -> None:
    """MET-3: it says so before the loop sees the caller's end."""
    ours, theirs = socket.socketpair()
    transport, _ = await asyncio.get_running_loop().create_unix_connection(asyncio.Protocol, sock=ours)
    theirs.close()
    with pytest.raises(sinks.CallerGone):
        sinks._send(transport, ours.fileno(), b"data:{}\n\n")
    assert not transport.is_closing()
    assert transport.get_write_buffer_size() == 0
    transport.abort()


async def test_a_caller_who_is_gone_is_told_by_every_write_and_is_no_bug() -> None:
    """A write finds it, if the handler comes to it before it is cancelled; a heartbeat leaves it to the handler."""
    told: list[BaseException] = []

    async def handler(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        through: Any = SimpleNamespace(state=State.OPEN, is_behind=False, open=lambda: None)
        head = Head(request, "r")
        waits = {"hold_s": 9.0, "heartbeat_s": 9.0}
        packets = sinks.PacketSink(request, request.transport, tongue, through, head, file=None, **waits)
        reply = sinks.ReplySink(request, request.transport, None, through, head)
        request.transport.abort()
        packets._breathe()
        for write in (partial(packets.pass_on, b"data:\n\n"), packets.close, reply.close):
            try:
                await write()  # type: ignore[misc]
            except sinks.CallerGone as error:
                told.append(error)
        packets.stop()
        return web.Response()

    app = web.Application()
    app[LIFECYCLE] = Lifecycle()
    app[surface.BROWSERS] = Browsers(nothing)
    app.router.add_get("/", handler)
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        host, port = runner.addresses[0]
        async with caller.dial(f"http://{host}:{port}") as line:
            line.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert await line.eof() == b""
        assert len(told) == 3
    finally:
        await runner.cleanup()
