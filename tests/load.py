"""Many mixed calls at once, and what became of each as its caller saw it: the books that a journal is held against.

Lean, for ten thousand calls on two cores: a raw connection for each worker, kept as long as nobody hangs up.
"""

from __future__ import annotations

import asyncio
import random
import socket
import struct
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal
from urllib.parse import urlsplit

import orjson

from tests import caller
from tests.caller import Json

# How a caller hangs up. By half-closing it still reads all that was handed over to it; by a reset it may miss some.
Leaving = Literal["half-close", "reset"]
END: Final = b"\r\n0\r\n\r\n"
PIECE_BYTES: Final = 64 << 10
# Before its first packet a caller leaves within so long.
PAUSE_S: Final = 0.1


@dataclass(slots=True)
class Call:
    """What is asked, and how its caller will behave.

    kind:    names it
    packets: whether it asks for packets
    leaving: how its caller hangs up; None: not at all
    after:   packets it waits for before that; 0: a moment
    """

    kind: str
    body: Json
    packets: bool = True
    leaving: Leaving | None = None
    after: int = 0
    known_as: str = field(default_factory=lambda: str(uuid.uuid4()))


@dataclass(slots=True)
class Heard:
    """What its caller got.

    status: None where no head came
    said:   the usage of the newest packet of each choice, or that of the reply
    ended:  whether it saw the end: a finish, an error, or a reply
    """

    call: Call
    status: int | None = None
    said: dict[int, Json] = field(default_factory=dict)
    ended: bool = False

    @property
    def used(self) -> tuple[int, int]:
        """Input and output tokens that were last said: input once, outputs summed (spec OUT-7)."""
        said = self.said.values()
        return max((one["input_tokens"] for one in said), default=0), sum(one["output_tokens"] for one in said)


class Worker:
    """One caller after another on one connection, as long as it lasts."""

    def __init__(self, url: str) -> None:
        address = urlsplit(url)
        self._address = (address.hostname, address.port)
        self._line: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def make(self, call: Call, dice: random.Random) -> Heard:
        """Make one call; a connection that breaks is an answer too."""
        heard = Heard(call)
        try:
            await self._make(call, heard, dice)
        except (ConnectionError, asyncio.IncompleteReadError):
            self.hang_up()
        return heard

    def hang_up(self) -> None:
        """Leave the connection, if there is one."""
        if self._line is not None:
            self._line[1].transport.abort()
            self._line = None

    async def _make(self, call: Call, heard: Heard, dice: random.Random) -> None:
        if self._line is None:
            self._line = await asyncio.open_connection(*self._address, limit=1 << 20)
        reader, writer = self._line
        headers = {"X-Request-Id": call.known_as, **(caller.SSE if call.packets else {})}
        writer.write(caller.request(call.body, headers))
        if call.leaving and not call.after:
            await asyncio.sleep(dice.random() * PAUSE_S)
            await self._leave(call.leaving, b"", heard)
            return
        head = await reader.readuntil(b"\r\n\r\n")
        heard.status = int(head[9:12])
        if b"\r\nContent-Length:" in head:
            size = int(head.partition(b"\r\nContent-Length:")[2].partition(b"\r\n")[0])
            _note_reply(await reader.readexactly(size), heard)
        else:
            body, mark = b"", b"id:%d\n" % call.after if call.leaving else END
            try:
                while END not in body and mark not in body:
                    if not (piece := await reader.read(PIECE_BYTES)):
                        raise ConnectionAbortedError
                    body += piece
            finally:
                _note_packets(body, heard)
            if call.leaving and END not in body:
                await self._leave(call.leaving, body, heard)
        if b"\r\nConnection: close" in head:
            self.hang_up()

    async def _leave(self, leaving: Leaving, seen: bytes, heard: Heard) -> None:
        assert self._line is not None
        reader, writer = self._line
        if leaving == "half-close":
            writer.write_eof()
            try:
                seen += await reader.read()
            except ConnectionError:
                seen += bytes(reader._buffer)  # type: ignore[attr-defined]
        else:
            connection: socket.socket = writer.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.hang_up()
        if seen.startswith(b"HTTP/"):
            heard.status = int(seen[9:12])
            head, _, seen = seen.partition(b"\r\n\r\n")
            if b"\r\nContent-Length:" in head:
                _note_reply(seen, heard)
                return
        _note_packets(seen, heard)


def _note_reply(body: bytes, heard: Heard) -> None:
    reply = orjson.loads(body)
    heard.ended = True
    if "usage" in reply:
        heard.said = {0: reply["usage"]}


def _note_packets(body: bytes, heard: Heard) -> None:
    unfinished = set()
    # The last piece of a line that broke off says nothing.
    for line in body.split(b"\n")[:-1]:
        if not line.startswith(b"data:"):
            continue
        packet = orjson.loads(line.removeprefix(b"data:"))
        if "output" not in packet:
            heard.ended = True
            return
        (choice,) = packet["output"]["choices"]
        heard.said[choice["index"]] = packet["usage"]
        (unfinished.add if choice["finish_reason"] == "null" else unfinished.discard)(choice["index"])
    heard.ended = bool(heard.said) and not unfinished


async def run(urls: Sequence[str], calls: Iterable[Call], *, workers: int, dice: random.Random) -> list[Heard]:
    """Make all calls, so many at a time, each worker to one of the URLs in turn; what each of them got."""
    todo = iter(calls)

    async def work(url: str) -> list[Heard]:
        worker = Worker(url)
        heard = [await worker.make(call, dice) for call in todo]
        worker.hang_up()
        return heard

    works = (work(urls[number % len(urls)]) for number in range(workers))
    return [heard for each in await asyncio.gather(*works) for heard in each]
