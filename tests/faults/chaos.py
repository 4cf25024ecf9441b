"""A TCP connection into one that goes wrong on the way: delayed, sliced, reset, silent or refused, as a test says.

It stands before the scriptable upstream and does what that cannot: it breaks the line, not the answer.
Source: SOURCES#fault-simulation.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

PIECE_BYTES = 64 << 10


@dataclass(frozen=True, slots=True)
class Line:
    """What becomes of the connections; the defaults pass everything on.

    latency_s:        each piece of an answer comes so much later
    slice_bytes:      an answer comes in pieces of so many bytes at most
    reset_after:      reset once so many bytes of a connection's answers have passed
    reset_on_request: reset as soon as a byte of a request comes, on a connection that was there or on a new one
    black_hole:       nothing of an answer passes, and the connection stays
    refuse:           reset what connects
    """

    latency_s: float = 0.0
    slice_bytes: int = PIECE_BYTES
    reset_after: int | None = None
    reset_on_request: bool = False
    black_hole: bool = False
    refuse: bool = False


class Chaos:
    """The proxy: `async with Chaos(upstream.url, Line(slice_bytes=1)) as chaos`; its `line` may change at any time."""

    def __init__(self, target: str, line: Line = Line()) -> None:
        self.line = line
        self.connections = 0
        address = urlsplit(target)
        self._target = (address.hostname, address.port)
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    @property
    def url(self) -> str:
        """The base to give to `--upstream`."""
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.create_task(self._join(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass bytes both ways until one side ends; the other side then ends too."""
        if self.line.refuse:
            _reset(writer)
            return
        onward_reader, onward = await asyncio.open_connection(*self._target)
        ways = [
            asyncio.create_task(self._requests(reader, onward, writer)),
            asyncio.create_task(self._answers(onward_reader, writer)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            onward.transport.abort()
            writer.close()

    async def _requests(
        self, reader: asyncio.StreamReader, onward: asyncio.StreamWriter, back: asyncio.StreamWriter
    ) -> None:
        while piece := await reader.read(PIECE_BYTES):
            if self.line.reset_on_request:
                _reset(back)
                return
            onward.write(piece)
            await onward.drain()

    async def _answers(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        passed = 0
        while piece := await reader.read(self.line.slice_bytes):
            await asyncio.sleep(self.line.latency_s)
            if self.line.black_hole:
                continue
            left = len(piece) if self.line.reset_after is None else self.line.reset_after - passed
            writer.write(piece[:left])
            await writer.drain()
            passed += len(piece)
            if self.line.reset_after is not None and passed >= self.line.reset_after:
                _reset(writer)
                return


def _reset(writer: asyncio.StreamWriter) -> None:
    """End a connection by RST, not FIN: without lingering."""
    connection: socket.socket = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


@contextlib.contextmanager
def closed_port() -> Iterator[str]:
    """A target that refuses connections: bound by us, so that nobody else takes it, and not listening."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"


@contextlib.asynccontextmanager
async def deaf_port() -> AsyncIterator[str]:
    """A target that answers no SYN: a listener whose queue is full is a black hole to all others."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        await asyncio.sleep(0.05)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
