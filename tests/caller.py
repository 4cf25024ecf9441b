"""A DashScope caller over a raw socket: every byte it sends, and when, and every byte it gets, is the test's to say."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
import zlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import orjson
from multidict import CIMultiDict

Json = dict[str, Any]

GENERATION = "/api/v1/services/aigc/text-generation/generation"
KEY = "sk-the-callers-own"
SSE = {"X-DashScope-SSE": "enable"}
# Who serves with TLS in a test shows a certificate of the test's own.
BELIEVING = ssl._create_unverified_context()


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer, its body unchunked.

    line: the status line
    """

    line: str
    headers: CIMultiDict[str]
    body: bytes

    @property
    def status(self) -> int:
        """The number of the status line."""
        return int(self.line.split(" ")[1])

    @property
    def json(self) -> Json:
        """The body, which must be JSON."""
        document: Json = orjson.loads(self.body)
        return document

    @property
    def fault(self) -> tuple[int, str, str]:
        """Status, code and message of an error; an assertion that it has DashScope's shape, in its order (ERR-1)."""
        assert list(self.json) == ["code", "message", "request_id"]
        assert self.headers["x-request-id"] == self.json["request_id"]
        assert self.headers["content-type"] == "application/json"
        return self.status, self.json["code"], self.json["message"]


def call(text: str = "Say hello.", model: str = "deepseek-v3", **parameters: object) -> Json:
    """The body of a call."""
    return {"model": model, "input": {"messages": [{"role": "user", "content": text}]}, "parameters": parameters}


def request(
    body: Json | bytes, headers: Mapping[str, str] = {}, *, path: str = GENERATION, method: str = "POST"
) -> bytes:
    """A call as bytes; a header of the same name replaces ours, and `""` leaves it out."""
    raw = body if isinstance(body, bytes) else orjson.dumps(body)
    ours = {
        "Host": "localhost",
        "Authorization": f"Bearer {KEY}",
        "Content-Type": "application/json",
        "Content-Length": str(len(raw)),
    }
    said = CIMultiDict(ours)
    said.update(headers)
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in said.items() if value), "", ""]
    return "\r\n".join(lines).encode("latin-1") + raw


def bomb(unit: bytes, times: int, first: bytes = b"") -> bytes:
    """What gzip makes of `first` and then so many units, at the price of one of them: a full flush begins each anew."""
    squeeze = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    head, again = (squeeze.compress(part) + squeeze.flush(zlib.Z_FULL_FLUSH) for part in (first, unit))
    check = zlib.crc32(first)
    for _ in range(times):
        check = zlib.crc32(unit, check)
    trailer = struct.pack("<LL", check, len(first) + len(unit) * times)
    return b"\x1f\x8b\x08" + bytes(5) + b"\x02\xff" + head + again * times + squeeze.flush() + trailer


class Line:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    def send(self, wire: bytes) -> None:
        """Hand bytes to the socket."""
        self._writer.write(wire)

    async def head(self) -> Answer:
        """The head of the next answer, without its body."""
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        line, *fields = head.removesuffix("\r\n\r\n").split("\r\n")
        pairs = (field.partition(":") for field in fields)
        return Answer(line, CIMultiDict((name, value.strip()) for name, _, value in pairs), b"")

    async def answer(self, head: Answer | None = None, *, bodiless: bool = False) -> Answer:
        """The next answer, whole; or the rest of the one whose head was read."""
        head = head or await self.head()
        if bodiless:
            return head
        if "Content-Length" in head.headers:
            body = await self._reader.readexactly(int(head.headers["Content-Length"]))
        elif head.headers.get("Transfer-Encoding") == "chunked":
            body = await self.rest()
        else:
            body = await self._reader.read()
        return Answer(head.line, head.headers, body)

    async def piece(self) -> bytes:
        """The next chunk of a chunked body; b"" at its proper end."""
        size = int(await self._reader.readuntil(b"\r\n"), 16)
        data = await self._reader.readexactly(size)
        assert await self._reader.readexactly(2) == b"\r\n"
        return data

    async def rest(self) -> bytes:
        """All that is left of a chunked body, which must end properly."""
        pieces = []
        while piece := await self.piece():
            pieces.append(piece)
        return b"".join(pieces)

    async def until(self, text: bytes) -> bytes:
        """The body up to the chunk in which its text so far holds this."""
        body = b""
        while text not in body:
            piece = await self.piece()
            assert piece, f"ended before {text!r}: {body!r}"
            body += piece
        return body

    async def eof(self) -> bytes:
        """What comes until the other side closes."""
        return await self._reader.read()

    def leave(self) -> None:
        """Hang up, by FIN."""
        self._writer.close()

    def vanish(self) -> None:
        """Hang up, by RST."""
        connection: socket.socket = self._writer.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()

    def stall(self) -> None:
        """Read no more, and stay."""
        transport = self._writer.transport
        assert isinstance(transport, asyncio.ReadTransport)
        transport.pause_reading()

    def go_on(self) -> None:
        """Read again."""
        transport = self._writer.transport
        assert isinstance(transport, asyncio.ReadTransport)
        transport.resume_reading()


@contextlib.asynccontextmanager
async def dial(url: str, *, receive_bytes: int | None = None) -> AsyncIterator[Line]:
    """A connection to a base URL; it ends with the context.

    receive_bytes: how much the kernel may take in for a caller who does not read
    """
    address = urlsplit(url)
    connection = socket.socket()
    connection.setblocking(False)
    if receive_bytes is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    try:
        await asyncio.get_running_loop().sock_connect(connection, (address.hostname, address.port))
    except OSError:
        connection.close()
        raise
    secured = {"ssl": BELIEVING, "server_hostname": address.hostname} if address.scheme == "https" else {}
    reader, writer = await asyncio.open_connection(sock=connection, **secured)
    try:
        yield Line(reader, writer)
    finally:
        writer.transport.abort()


async def ask(
    url: str, body: Json | bytes, headers: Mapping[str, str] = {}, *, path: str = GENERATION, method: str = "POST"
) -> Answer:
    """One call on a connection of its own, and its whole answer."""
    async with dial(url) as line:
        line.send(request(body, headers, path=path, method=method))
        return await line.answer(bodiless=method == "HEAD")


async def stream(url: str, body: Json | bytes, headers: Mapping[str, str] = {}) -> Answer:
    """One call for packets, and its whole answer."""
    return await ask(url, body, {**SSE, **headers})


def packets(body: bytes) -> list[Json]:
    """The data of every frame of a stream."""
    return [orjson.loads(line.removeprefix(b"data:")) for line in body.split(b"\n") if line.startswith(b"data:")]


def text(body: bytes) -> str:
    """The answer that the packets of an incremental stream make up."""
    found = (packet["output"]["choices"][0]["message"] for packet in packets(body) if "output" in packet)
    return "".join(message["content"] for message in found)
