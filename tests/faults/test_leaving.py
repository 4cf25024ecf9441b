"""A · The caller leaves: whatever it was waiting for, upstream is told at once and nothing is left (spec MET-5)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from proxy.simulation.wire import Script
from tests import caller, needs
from tests.faults import chaos
from tests.faults.conftest import CALL, Stage, Stand
from tests.faults.matrix import row

pytestmark = pytest.mark.asyncio(loop_scope="module")

FLAGS = ("--usage-timeout", "30")
# MET-5's 100 ms.
ABORT_S = 0.1
BEFORE, MID_STREAM = "client_gone_before_first_packet", "client_gone_mid_stream"
STALLED_BYTES = 400 << 10
STALLED = 20
# Addresses for tests between two hosts (RFC 2544).
OURS, THEIRS = "198.18.77.1", "198.18.77.2"


async def _leaves(stand: Stand, script: Script, outcome: str, seen: bytes | None, *, rst: bool = False) -> None:
    """One stream, left once this was seen of it; `None` is before the first packet."""
    number = stand.next(script)
    async with stand.frees(outcome) as named, caller.dial(stand.url) as line:
        line.send(caller.request(CALL, caller.SSE | dict(named)))
        upstream_call = await stand.upstream.call(number)
        if seen is not None:
            await line.head()
            await line.until(seen)
        watch = stand.watch()
        (line.vanish if rst else line.leave)()
        assert await upstream_call.over() == "aborted"
    assert watch.lap_s(upstream_call.ended_s) < ABORT_S


@row("nothing", figure="nothing reached upstream")
async def test_f01_who_leaves_before_the_upstream_is_connected_leaves_nothing(stage: Stage) -> None:
    async with chaos.deaf_port() as deaf:
        stand = await stage(targets=(deaf,))
        async with stand.frees(BEFORE) as named, caller.dial(stand.url) as line:
            line.send(caller.request(CALL, caller.SSE | dict(named)))
            while stand.fds < stand.idle_fds + 2:  # noqa: ASYNC110 - nothing tells that a process is connecting
                await asyncio.sleep(0.01)
            line.leave()
    assert not stand.upstream.calls


@row("nothing", figure="upstream saw the abort within 100 ms")
async def test_f02_who_leaves_before_the_first_byte_stops_the_upstream(stand: Stand) -> None:
    await _leaves(stand, Script(first_byte_delay_s=30), BEFORE, None)


@row("packets, then nothing", figure="upstream saw the abort within 100 ms")
async def test_f03_who_leaves_mid_stream_stops_the_upstream(stand: Stand) -> None:
    await _leaves(stand, Script(endless=True, gap_s=0.01), MID_STREAM, b"id:5\n")


@row("packets, then nothing", figure="upstream saw the abort within 100 ms")
async def test_f04_a_reset_mid_stream_is_the_same_as_leaving(stand: Stand) -> None:
    await _leaves(stand, Script(endless=True, gap_s=0.01), MID_STREAM, b"id:5\n", rst=True)


@row("all the text, no finish", figure="upstream saw the abort within 100 ms")
async def test_f05_who_leaves_between_the_last_token_and_its_usage_stops_the_upstream(stand: Stand) -> None:
    await _leaves(stand, Script(text="one two", usage="own", stall_after=4), MID_STREAM, b'" two"')


@row("nothing", figure="upstream saw the abort within 100 ms")
async def test_f06_who_leaves_a_call_without_packets_stops_the_upstream(stand: Stand) -> None:
    number = stand.next(Script(first_byte_delay_s=30))
    async with stand.frees(BEFORE) as named, caller.dial(stand.url) as line:
        line.send(caller.request(CALL, named))
        upstream_call = await stand.upstream.call(number)
        watch = stand.watch()
        line.leave()
        assert await upstream_call.over() == "aborted"
    assert watch.lap_s(upstream_call.ended_s) < ABORT_S


@row("packets, then nothing", freed="all, once upstream has ended", figure="upstream ended by itself: `done`")
async def test_f07_by_the_other_policy_upstream_is_read_to_its_end(stage: Stage) -> None:
    """Its bounds, and its other phases: tests/integration/test_departures.py."""
    stand = await stage("--cancel-policy", "drain")
    stand.next(Script(text="one two three four five six", gap_s=0.05))
    async with stand.frees(MID_STREAM) as named:
        async with caller.dial(stand.url) as line:
            line.send(caller.request(CALL, caller.SSE | dict(named)))
            await line.head()
            await line.until(b"id:3\n")
            line.leave()
        assert await stand.upstream.calls[0].over() == "done"
    (told,) = (line for line in stand.lines if line["event"] == "call")
    assert (told["basis"], told["generated"]["output_tokens"]) == ("upstream_final", 6)
    assert 0 < told["usage"]["output_tokens"] < 6


@row("nothing: a half-closed connection counts as left (documented in the threat model)")
async def test_f08_a_half_close_counts_as_leaving(stand: Stand) -> None:
    number = stand.next(Script(endless=True, gap_s=0.01))
    async with stand.frees(BEFORE, MID_STREAM) as named, caller.dial(stand.url) as line:
        line.send(caller.request(CALL, caller.SSE | dict(named)))
        upstream_call = await stand.upstream.call(number)
        line._writer.write_eof()
        assert await upstream_call.over() == "aborted"


@row("what fitted into the buffers, then the cut", figure="20 callers: ≤ 400 kB of memory each; cut at write_timeout")
async def test_f09_who_stops_reading_is_held_back_and_then_cut(stage: Stage) -> None:
    held: list[int] = []
    # What an allocator has not given back yet can only add: the least of three processes is what they hold.
    while not held or (held[-1] > STALLED_BYTES and len(held) < 3):
        held.append(await _stalled(await stage("--write-timeout", "1.5")))
    assert held[-1] <= STALLED_BYTES, held


async def _stalled(stand: Stand) -> int:
    """Let callers stop reading until they are cut; bytes of memory that each of them cost."""
    stand.next(*[Script(text="word " * 200)] * 4)
    await asyncio.gather(*(stand.ask() for _ in range(4)))
    stand.upstream.script = Script(text="word " * 200, endless=True, deltas_per_write=50)
    idle_bytes = stand.rss_bytes

    async def stalls() -> None:
        async with caller.dial(stand.url, receive_bytes=4096) as line:
            line.send(caller.request(CALL, caller.SSE))
            await line.head()
            line.stall()
            while stand.upstream.open:  # noqa: ASYNC110 - all of them are cut at about the same time
                await asyncio.sleep(0.02)

    calls = [asyncio.create_task(stalls()) for _ in range(STALLED)]
    await asyncio.sleep(1.2)
    held_bytes = stand.rss_bytes - idle_bytes
    async with asyncio.timeout(8):
        await asyncio.gather(*calls)
    await stand.settled()
    assert (await stand.outcomes(4 + STALLED))[4:] == ["client_stalled"] * STALLED
    return held_bytes // STALLED


@row("nothing", figure="write_timeout 1 s: cut by the kernel within 9 s, packets and reply (65 to 75 s by default)")
async def test_f11_who_vanishes_without_a_word_stops_the_upstream(stage: Stage) -> None:
    async with contextlib.AsyncExitStack() as stack:
        namespace = stack.enter_context(other_host())
        stand = await stage("--host", OURS, "--write-timeout", "1")
        number = stand.next(Script(endless=True, gap_s=0.05), Script(first_byte_delay_s=60))
        async with stand.frees(MID_STREAM) as packets, stand.frees(BEFORE) as reply:
            for place, said in enumerate((caller.SSE | dict(packets), reply)):
                await _elsewhere(stack, namespace, stand.url, caller.request(CALL, said))
                async with asyncio.timeout(5):
                    await stand.upstream.call(number + place)
            await asyncio.sleep(0.3)
            _ip("-n", namespace, "link", "set", "theirs", "down")
            async with asyncio.timeout(9):
                for place in (0, 1):
                    assert await (await stand.upstream.call(number + place)).over() == "aborted"


@row("all of it, correct", figure="about 1 kB in 20 ms, idle_timeout 0.3 s untouched")
async def test_f10_who_reads_slowly_gets_everything(stage: Stage) -> None:
    stand = await stage("--idle-timeout", "0.3", "--write-timeout", "5")
    words = "slow and steady " * 40
    stand.next(Script(text=words))
    async with stand.frees("ok") as named, caller.dial(stand.url, receive_bytes=2048) as line:
        line.send(caller.request(CALL, caller.SSE | dict(named)))
        await line.head()
        body = b""
        while piece := await line.piece():
            body += piece
            await asyncio.sleep(len(piece) / 50_000)
    assert caller.text(body) == words


@contextlib.contextmanager
def other_host() -> Iterator[str]:
    """A network namespace, joined to ours by a cable that can be pulled."""
    needs.program("ip")
    name = f"dashseek-{os.getpid()}"
    try:
        _ip("netns", "add", name)
    except subprocess.CalledProcessError:
        needs.lack("root of a network namespace")
    try:
        _ip("link", "add", "ours", "type", "veth", "peer", "name", "theirs", "netns", name)
        _ip("addr", "add", f"{OURS}/30", "dev", "ours")
        _ip("link", "set", "ours", "up")
        _ip("-n", name, "addr", "add", f"{THEIRS}/30", "dev", "theirs")
        _ip("-n", name, "link", "set", "theirs", "up")
        yield name
    finally:
        # Connections that nobody can end any more would keep the namespace, and with it the cable, for minutes.
        subprocess.run(["ip", "link", "del", "ours"], check=False, capture_output=True)
        _ip("netns", "del", name)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


async def _elsewhere(stack: contextlib.AsyncExitStack, namespace: str, url: str, wire: bytes) -> None:
    """A caller in a namespace, who sends this and reads until the stack ends: as long lives its namespace."""
    host, _, port = url.removeprefix("http://").partition(":")
    code = f"import socket, sys; s = socket.create_connection(({host!r}, {port})); s.sendall(sys.stdin.buffer.read())"
    command = ("ip", "netns", "exec", namespace, sys.executable, "-c", f"{code}\nwhile s.recv(4096): pass")
    process = await asyncio.create_subprocess_exec(*command, stdin=subprocess.PIPE)
    stack.push_async_callback(process.wait)
    stack.callback(process.kill)
    assert process.stdin is not None
    process.stdin.write(wire)
    process.stdin.close()
