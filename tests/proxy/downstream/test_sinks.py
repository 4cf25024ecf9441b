"""Claims about an answer's bytes: when they go, in which order, and what of them was handed over (SSE-10, MET-3)."""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp import HttpVersion10, HttpVersion11

from proxy.downstream import sinks
from proxy.downstream.answer_head import KEPT, LAST, Head
from proxy.downstream.browsers import Browsers, nothing
from proxy.downstream.phase import LIFECYCLE, Lifecycle
from proxy.downstream.sinks import CallerGone, PacketSink, ReplySink
from proxy.downstream.surface import BROWSERS
from translators.dashscope import tongue
from translators.pipe import State

FRAME, OTHER = b"data:1\n\n", b"data:22\n\n"
END = b"0\r\n\r\n"
LARGE = b"a" * (1 << 20)


def chunk(frames: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(frames), frames)


class Flow(asyncio.Protocol):
    """What the transport tells to write on or not, as aiohttp's connection takes it."""

    def __init__(self) -> None:
        self.writing_paused = False
        self._goes_on = asyncio.Event()

    def pause_writing(self) -> None:
        self.writing_paused = True
        self._goes_on.clear()

    def resume_writing(self) -> None:
        self.writing_paused = False
        self._goes_on.set()

    async def drain(self) -> None:
        await self._goes_on.wait()


class Caller:
    """Both ends of a caller's connection, and a pipe that notes what it is told.

    told: what the pipe was told: of what was handed over the mark, or "all"
    """

    def __init__(self, transport: asyncio.Transport, flow: Flow, theirs: socket.socket) -> None:
        self.transport = transport
        self.theirs = theirs
        self.told: list[object] = []
        marks = iter(range(1, 99))
        self.pipe: Any = SimpleNamespace(
            state=State.OPEN,
            is_behind=False,
            open=lambda: self.told.append("open"),
            mark=lambda: next(marks),
            hand_over=lambda: self.told.append("all"),
            hand_over_to=self.told.append,
        )
        self.request: Any = SimpleNamespace(
            task=asyncio.current_task(),
            app={BROWSERS: Browsers(nothing), LIFECYCLE: Lifecycle()},
            protocol=flow,
            writer=SimpleNamespace(drain=flow.drain),
            version=HttpVersion11,
            keep_alive=True,
            headers={},
            content=SimpleNamespace(is_eof=lambda: True),
        )

    def packets(self, heartbeat_s: float = 60) -> PacketSink:
        file = sinks.file_of(self.transport)
        head, said = Head(self.request, "r"), {"hold_s": 60, "heartbeat_s": heartbeat_s}
        return PacketSink(self.request, self.transport, tongue, self.pipe, head, file=file, **said)  # type: ignore[arg-type]

    def reply(self) -> ReplySink:
        return ReplySink(
            self.request, self.transport, sinks.file_of(self.transport), self.pipe, Head(self.request, "r")
        )

    async def read(self, size: int = 0) -> bytes:
        """What has come to them so far, and so much at least."""
        came = b""
        while True:
            try:
                came += self.theirs.recv(1 << 20)
            except BlockingIOError:
                if len(came) >= size:
                    return came
                await asyncio.sleep(0)


@pytest.fixture
async def line() -> AsyncIterator[Caller]:
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    transport, flow = await asyncio.get_running_loop().create_unix_connection(Flow, sock=ours)
    async with asyncio.timeout(30):
        yield Caller(transport, flow, theirs)
    transport.abort()
    theirs.close()


@pytest.mark.parametrize(
    ("version", "keeps", "chunked"),
    [(HttpVersion11, True, True), (HttpVersion11, False, True), (HttpVersion10, True, False)],
)
async def test_packets_leave_at_once_the_head_before_the_first_and_the_end_behind_the_last(
    line: Caller, version: Any, keeps: bool, chunked: bool
) -> None:
    line.request.version, line.request.keep_alive = version, keeps
    sink, firsts = line.packets(), list[float]()
    sink.on_first = firsts.append
    assert (sink.left, sink.is_open, sink.first_s, sink.last_s, sink.bytes) == (False, False, None, None, 0)
    assert not sink.pass_on(FRAME)
    assert (sink.is_open, sink.bytes, line.told) == (True, len(FRAME), ["all"])
    assert firsts == [sink.first_s] == [sink.last_s]
    head, _, body = (await line.read()).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n" if version is HttpVersion11 else b"HTTP/1.0 200 OK\r\n")
    assert body == (chunk(FRAME) if chunked else FRAME)
    line.pipe.state = State.ENDED
    assert not sink.pass_on(OTHER)
    assert await line.read() == (chunk(OTHER) + END if chunked else OTHER)
    assert (firsts, sink.bytes) == ([sink.first_s], len(FRAME + OTHER))
    assert sink.last_s is not None
    assert sink.last_s >= firsts[0]
    for _ in range(2):
        await sink.close()
    assert (await line.read(), line.told) == (b"", ["all"] * 4)
    assert sink.response is (KEPT if keeps and chunked else LAST)


@pytest.mark.parametrize("opened", [True, False])
async def test_an_end_without_a_last_packet_is_an_end_too(line: Caller, opened: bool) -> None:
    sink = line.packets()
    if opened:
        sink.pass_on(FRAME)
        await line.read()
    beat = sink._beat
    assert beat is not None
    for _ in range(2):
        await sink.close()
    came = await line.read()
    assert came == END if opened else came.partition(b"\r\n\r\n")[2] == END
    assert (beat.cancelled(), sink._beat) == (True, None)


async def test_what_is_not_taken_is_waited_for_and_handed_over_once_it_has_left(line: Caller) -> None:
    """Of frames that were written together all were handed over if a byte of them was."""
    sink = line.packets()
    assert line.transport.get_write_buffer_limits() == (0, 0)
    assert sink.pass_on(LARGE)
    assert sink.pass_on(FRAME)
    assert line.told == [1]
    waiting = asyncio.create_task(sink.drained())
    await asyncio.sleep(0)
    assert (waiting.done(), line.told) == (False, [1])
    came = await line.read(len(LARGE) + len(chunk(FRAME)))
    await waiting
    assert came.endswith(chunk(LARGE) + chunk(FRAME))
    assert line.told == [1, 2]
    assert not sink.pass_on(OTHER)
    assert line.told == [1, 2, "all"]
    await sink.drained()


async def test_an_answer_has_ended_once_all_of_it_has_left(line: Caller) -> None:
    sink = line.packets()
    sink.pass_on(LARGE)
    sink.pass_on(FRAME)
    line.pipe.state = State.ENDED
    closing = asyncio.create_task(sink.close())
    await asyncio.sleep(0)
    assert (closing.done(), line.told) == (False, [1])
    assert (await line.read(len(LARGE) + len(FRAME) + len(END))).endswith(chunk(FRAME) + END)
    await closing
    assert (line.told, len(sink._marks)) == ([1, "all"], 0)


@pytest.mark.parametrize(
    ("waits_bytes", "handed"), [(100, []), (99, [1]), (40, [1]), (39, [1, 2]), (20, [1, 2]), (0, [1, 2, 3])]
)
async def test_what_has_begun_to_leave_was_handed_over(line: Caller, waits_bytes: int, handed: list[int]) -> None:
    sink = line.packets()
    sink._transport = SimpleNamespace(get_write_buffer_size=lambda: waits_bytes)  # type: ignore[assignment]
    sink._written, sink._marks = 100, deque([(0, 1), (60, 2), (80, 3)])  # type: ignore[list-item]
    sink.settle()
    assert line.told == handed
    assert len(sink._marks) == 3 - len(handed)


@pytest.mark.parametrize("opened", [True, False])
async def test_another_pipe_is_opened_where_the_head_is_out(line: Caller, opened: bool) -> None:
    sink, told = line.packets(), list[object]()
    if opened:
        sink._breathe()
    other: Any = SimpleNamespace(
        state=State.OPEN, is_behind=False, open=lambda: told.append("open"), hand_over=lambda: told.append("all")
    )
    sink.redirect(other)
    assert told == ["open"] * opened
    sink.pass_on(FRAME)
    assert told == [*["open"] * opened, "all"]
    assert line.told == ["open"] * opened


async def test_silence_is_filled_by_the_head_and_then_by_heartbeats(line: Caller) -> None:
    """SSE-11: not where anything was said since, nor for who does not read, nor beside a thread that is at work."""
    beat, sink = chunk(tongue.HEARTBEAT), line.packets(heartbeat_s=30)
    loop = asyncio.get_running_loop()
    sink._breathe()
    assert (await line.read()).endswith(b"\r\n\r\n")
    assert (line.told, sink.bytes) == (["open"], 0)
    assert sink._beat is not None
    assert 0 < sink._beat.when() - loop.time() <= 30
    for behind, said in ((False, beat), (True, b""), (False, beat)):
        line.pipe.is_behind = behind
        sink._breathe()
        assert await line.read() == said
    sink.pass_on(FRAME)
    await line.read()
    for said in (b"", beat):
        sink._breathe()
        assert await line.read() == said
    # As where the last one was not read.
    line.transport.write(LARGE)
    sink._written += len(LARGE)
    waits_bytes = line.transport.get_write_buffer_size()
    sink._breathe()
    assert line.transport.get_write_buffer_size() == waits_bytes > 0
    sink.pass_on(FRAME)
    sink._breathe()
    assert line.transport.get_write_buffer_size() == waits_bytes + len(chunk(FRAME))
    sink.stop()
    assert sink._beat is None
    sink.stop()


async def test_what_a_heartbeat_writes_counts_as_written(line: Caller) -> None:
    """Or what comes behind it would be taken for handed over too late."""
    sink = line.packets()
    sink._breathe()
    for _ in range(3):
        sink._breathe()
    assert sink._written == len(await line.read())


async def test_a_reply_is_kept_and_leaves_as_one(line: Caller) -> None:
    sink = line.reply()
    assert (sink.left, sink.is_open, sink.bytes, sink.sent_s, sink.response) == (False, False, 0, None, LAST)
    assert not sink.pass_on(b"{")
    sink.pass_on(b"}")
    sink.settle()
    sink.hold()
    sink.stop()
    await sink.drained()
    assert (await line.read(), line.told) == (b"", [])
    await sink.close()
    head, _, body = (await line.read()).partition(b"\r\n\r\n")
    assert (body, b"Content-Length: 2" in head) == (b"{}", True)
    assert (sink.is_open, sink.bytes, sink.response, line.told) == (True, 2, KEPT, ["all"])
    assert sink.sent_s is not None


async def test_a_reply_was_handed_over_when_all_of_it_has_left(line: Caller) -> None:
    sink = line.reply()
    sink.pass_on(LARGE)
    sink.redirect(line.pipe)
    closing = asyncio.create_task(sink.close())
    await asyncio.sleep(0)
    sink.settle()
    assert (closing.done(), sink.is_open, sink.sent_s, line.told) == (False, True, None, [])
    assert (await line.read(len(LARGE))).endswith(LARGE)
    sink.settle()
    await closing
    assert line.told == ["all"] * 2


@pytest.mark.parametrize("known", [True, False])
async def test_bytes_go_to_the_kernel_or_in_order_to_the_transport(line: Caller, known: bool) -> None:
    file = sinks.file_of(line.transport) if known else None
    assert sinks._send(line.transport, file, b"one") is True
    assert await line.read() == b"one"
    assert sinks._send(line.transport, file, LARGE) is False
    waits_bytes = line.transport.get_write_buffer_size()
    some = line.theirs.recv(1 << 16)
    assert sinks._send(line.transport, file, b"two") is False
    assert line.transport.get_write_buffer_size() == waits_bytes + 3
    assert some + await line.read(len(LARGE) + 3 - len(some)) == LARGE + b"two"
    line.transport.close()
    with pytest.raises(CallerGone):
        sinks._send(line.transport, file, b"three")


async def test_what_stands_behind_tls_has_no_descriptor_of_its_own(line: Caller) -> None:
    assert sinks.file_of(line.transport) == line.transport.get_extra_info("socket").fileno()
    secured: Any = SimpleNamespace(get_extra_info={"sslcontext": object(), "socket": line.theirs}.get)
    assert sinks.file_of(secured) is None
