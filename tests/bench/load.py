"""Calls upon a peer, over raw connections: what the load costs is not what is measured."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

import orjson

PATH = "/api/v1/services/aigc/text-generation/generation"
COMPATIBLE = "/compatible-mode/v1/chat/completions"
# Long words: four megabytes of it are half a million tokens, which the longest context holds.
SENTENCE = "Everybody understands something important about international communication. "
# Longer than any head or line of a peer.
LIMIT_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Ask:
    """One call.

    deltas, burst, gap_s, silent: how the upstream is to answer
    prompt: characters before the instruction
    model:  the caller's name for it
    compatible: whether by the OpenAI-compatible surface
    """

    deltas: int
    burst: int = 1
    gap_s: float = 0.0
    silent: bool = False
    stream: bool = True
    incremental: bool = True
    prompt: int = 0
    model: str = "deepseek-v3"
    compatible: bool = False

    def wire(self) -> bytes:
        """The request, the same for every peer."""
        how = {"deltas": self.deltas, "burst": self.burst, "gap_s": self.gap_s, "silent": self.silent}
        text = SENTENCE * (self.prompt // len(SENTENCE)) + "\n" + orjson.dumps(how).decode()
        messages = [{"role": "user", "content": text}]
        said = (
            {"messages": messages, "stream_options": {"include_usage": True}}
            if self.compatible
            else {"input": {"messages": messages}, "parameters": {"incremental_output": self.incremental}}
        )
        body = orjson.dumps({"model": self.model, "stream": self.stream, **said})
        path = COMPATIBLE if self.compatible else PATH
        sse = "X-DashScope-SSE: enable\r\n" if self.stream else ""
        head = (
            f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer sk-bench\r\n{sse}"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection to a peer."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port, limit=LIMIT_BYTES)
    try:
        yield reader, writer
    finally:
        writer.close()


async def reads(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    """An answer that succeeds, as it comes: the end of its head first."""
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    assert b" 200 " in head[:20], head
    yield b""
    if b"content-length:" in head:
        yield await reader.readexactly(int(head.partition(b"content-length:")[2].split(b"\r\n", 1)[0]))
        return
    tail = b""
    while not tail.endswith(b"0\r\n\r\n"):
        wire = await reader.read(1 << 16)
        assert wire
        tail = (tail + wire)[-8:]
        yield wire


async def run(url: str, ask: Ask, calls: int, connections: int) -> int:
    """Make calls, one after the other on each connection; how many bytes came.

    Paced ones do not keep time with each other: a turn of the peer's loop that serves all of them at once is cheap.
    """
    wire = ask.wire()

    async def caller(number: int) -> int:
        size = 0
        async with connected(url) as (reader, writer):
            await asyncio.sleep(ask.gap_s * number / connections)
            for _ in range(calls // connections):
                writer.write(wire)
                async for part in reads(reader):
                    size += len(part)
        return size

    return sum(await asyncio.gather(*(caller(number) for number in range(connections))))


async def first_packets(url: str, ask: Ask, calls: int, every_s: float) -> list[float]:
    """Open streams at a steady rate, each on a connection that was there before; seconds until each first packet."""
    wire = ask.wire()
    parts = urlsplit(url)
    idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def connect() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """One that is there, unless the server has closed it meanwhile, or none is left on a machine that is busy."""
        while idle:
            reader, writer = idle.pop()
            if not reader.at_eof():
                return reader, writer
            writer.close()
        return await asyncio.open_connection(parts.hostname, parts.port, limit=LIMIT_BYTES)

    async def caller() -> float:
        reader, writer = await connect()
        began_s = time.perf_counter()
        writer.write(wire)
        first_s = 0.0
        async for part in reads(reader):
            # The upstream's own first chunk says nothing; a pass-through hands it on all the same.
            if not first_s and b'"content":" the"' in part:
                first_s = time.perf_counter() - began_s
        idle.append((reader, writer))
        return first_s

    idle.extend(await asyncio.gather(*(connect() for _ in range(8))))
    calling = []
    for _ in range(calls):
        calling.append(asyncio.create_task(caller()))
        await asyncio.sleep(every_s)
    took = await asyncio.gather(*calling)
    for _, writer in idle:
        writer.close()
    return list(took)


@asynccontextmanager
async def silent_streams(url: str, number: int) -> AsyncIterator[None]:
    """Streams that have shown a packet and say nothing more, as long as the context lives."""
    wire = Ask(deltas=2, silent=True).wire()
    writers = []
    try:
        for batch in _batches(number, 100):
            opening = [_opened(url, wire) for _ in range(batch)]
            writers += await asyncio.gather(*opening)
        yield
    finally:
        for writer in writers:
            writer.close()


async def longest_gap(url: str, ask: Ask, beside: Ask) -> tuple[float, float]:
    """Seconds between two packets of a stream at most, before and while another call is made beside it."""
    gaps: list[float] = []

    async def watch() -> None:
        async with connected(url) as (reader, writer):
            writer.write(ask.wire())
            last_s = 0.0
            async for _ in reads(reader):
                now_s = time.perf_counter()
                if last_s:
                    gaps.append(now_s - last_s)
                last_s = now_s

    watching = asyncio.create_task(watch())
    await asyncio.sleep(1)
    quiet = max(gaps)
    gaps.clear()
    async with connected(url) as (reader, writer):
        writer.write(beside.wire())
        # The answer is that it is longer than the model takes: by then it has been read and counted.
        await reader.readuntil(b"\r\n\r\n")
    loud = max(gaps)
    watching.cancel()
    return quiet, loud


async def _opened(url: str, wire: bytes) -> asyncio.StreamWriter:
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port, limit=1 << 12)
    writer.write(wire)
    await reader.readuntil(b'"content":" the"')
    return writer


def _batches(number: int, most: int) -> Iterator[int]:
    yield from (min(most, number - start) for start in range(0, number, most))
