"""The configuration, read anew while the process serves: judged as a whole, swapped at once or not at all (POOL-6).

Calls that are open end under what they began with. A signal asks for it, or a file that has changed where `reload` is
`watch`. Of several processes the first one reads and judges, and all workers take it or none does.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import pickle
import socket
import struct
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import Final, NamedTuple

import orjson
import structlog

from config import changes
from config.file_version import Version, version_if_there
from config.models import ModelRow
from config.settings import Settings, SettingsError
from proxy.call import gateway as gateways
from proxy.call.gateway import Gateway

log = structlog.get_logger()

# A file is looked at so often; a ConfigMap takes the better part of a minute to come to its mount.
LOOK_EVERY_S: Final = 2.0
# A worker that has not made ready in so long does not follow, and so nobody does.
WORKER_S: Final = 10.0

# Kind, number of the offer, bytes that follow.
_FRAME: Final = struct.Struct("!BII")
_NUMBERS: Final = itertools.count(1)


class Snapshot(NamedTuple):
    """One configuration, read and judged.

    left: settings that are said anew and stay as they were
    """

    settings: Settings
    rows: Sequence[ModelRow]
    left: Sequence[str] = ()


@dataclass(slots=True)
class Source:
    """Where the configuration is read from.

    read:        judges it as `check` does; raises `SettingsError`
    config_file: the file of settings; None where there is none
    now:         what is in force
    """

    read: Callable[[], tuple[Settings, Sequence[ModelRow]]]
    config_file: str | None
    now: Snapshot
    _seen: Mapping[Path, Version | None] = field(init=False)

    def __post_init__(self) -> None:
        self._seen = self._look()

    def judged(self) -> Snapshot:
        """What a reload would lead to; raises `SettingsError`, with every complaint."""
        self._seen = self._look()
        settings, rows = self.read()
        settled, left = changes.settled(self.now.settings, settings)
        return Snapshot(settled, rows, left)

    def has_changed(self) -> bool:
        """Whether a file is another one since it was read, where files are to be watched."""
        return self.now.settings.reload == "watch" and self._look() != self._seen

    def _look(self) -> Mapping[Path, Version | None]:
        return {path: version_if_there(path) for path in changes.files(self.now.settings, self.config_file)}


@dataclass(slots=True)
class Reloader:
    """Reloads of a process that does everything, one after the other."""

    gateway: Gateway
    source: Source
    _asked: asyncio.Event = field(default_factory=asyncio.Event)

    def ask(self) -> None:
        """Read the configuration anew; what is asked meanwhile is one more reload."""
        self._asked.set()

    async def serve(self) -> None:
        """Reload when asked, or when a file has changed, until cancelled."""
        while True:
            try:
                async with asyncio.timeout(LOOK_EVERY_S):
                    await self._asked.wait()
            except TimeoutError:
                if not self.source.has_changed():
                    continue
            self._asked.clear()
            await self._reload()

    async def _reload(self) -> None:
        latest = self.gateway.latest
        try:
            snapshot = await asyncio.to_thread(self.source.judged)
            following = await gateways.successor(latest.gateway, snapshot.settings, snapshot.rows)
        except SettingsError as error:
            note_refused(latest, error.lines)
            return
        self.source.now = snapshot
        gateways.take_over(following)
        note_taken(latest, snapshot.left)


def note_taken(latest: gateways.Latest, left: Sequence[str]) -> None:
    """The new configuration is in force."""
    latest.reloaded_at_s = time.time()
    log.info("reloaded", left=left)


def note_refused(latest: gateways.Latest, reason: Sequence[str]) -> None:
    """The old one stays, with one line that says all that is wrong."""
    latest.refused_at_s = time.time()
    log.error("reload_refused", reason=tuple(reason))


# Several processes


class Kind(IntEnum):
    """What a frame between the first process and a worker is.

    OFFER: a snapshot; READY: why it cannot be taken, nothing if it can; GO: take it; DONE: it is taken
    NO:    it is not to be taken, or there is nothing to take
    """

    OFFER = 1
    READY = 2
    GO = 3
    DONE = 4
    NO = 5


def offered(workers: Sequence[socket.socket], snapshot: Snapshot) -> list[str]:
    """Let all workers take a configuration, or none; why not, if not. For the first process, which waits meanwhile."""
    number = next(_NUMBERS)
    wire = pickle.dumps(snapshot)
    reasons: list[str] = []
    try:
        for worker in workers:
            worker.settimeout(WORKER_S)
            _send(worker, Kind.OFFER, number, wire)
        for worker in workers:
            reasons += orjson.loads(_answer(worker, number))
    except (OSError, EOFError):
        reasons.append("a worker does not follow; it may be about to be replaced")
    if reasons:
        tell_refused(workers)
        return [*dict.fromkeys(reasons)]
    for worker in workers:
        # Who is gone by now is replaced by one that begins with it.
        with contextlib.suppress(OSError):
            _send(worker, Kind.GO, number)
    for worker in workers:
        with contextlib.suppress(OSError, EOFError):
            _answer(worker, number)
    return []


def tell_refused(workers: Sequence[socket.socket]) -> None:
    """Let the workers know that a configuration was refused: their metrics say when."""
    for worker in workers:
        with contextlib.suppress(OSError):
            _send(worker, Kind.NO, next(_NUMBERS))


def _send(worker: socket.socket, kind: Kind, number: int, said: bytes = b"") -> None:
    worker.sendall(_FRAME.pack(kind, number, len(said)) + said)


def _answer(worker: socket.socket, number: int) -> bytes:
    """What a worker says of an offer; an answer to an earlier one has come too late."""
    while True:
        _, answered, length = _FRAME.unpack(_exactly(worker, _FRAME.size))
        said = _exactly(worker, length)
        if answered == number:
            return said


def _exactly(worker: socket.socket, length: int) -> bytes:
    found = b""
    while len(found) < length:
        more = worker.recv(length - len(found))
        if not more:
            raise EOFError
        found += more
    return found


async def follow(control: socket.socket, gateway: Gateway, worker: int) -> None:
    """Take what the first process offers, in a worker of that number, until cancelled."""
    reader, writer = await asyncio.open_connection(sock=control)
    try:
        await _follow(reader, writer, gateway.latest, worker)
    except (asyncio.IncompleteReadError, ConnectionError):
        return  # the first process is gone, and this one drains
    finally:
        writer.close()


async def _follow(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, latest: gateways.Latest, worker: int
) -> None:
    following: Gateway | None = None
    while True:
        kind, number, length = _FRAME.unpack(await reader.readexactly(_FRAME.size))
        said = await reader.readexactly(length)
        if kind == Kind.OFFER:
            following, reasons = await _prepared(latest.gateway, said, worker)
            answer = orjson.dumps(reasons)
            writer.write(_FRAME.pack(Kind.READY, number, len(answer)) + answer)
        elif kind == Kind.GO and following is not None:
            gateways.take_over(following)
            latest.reloaded_at_s = time.time()
            following = None
            writer.write(_FRAME.pack(Kind.DONE, number, 0))
        else:
            following = None
            latest.refused_at_s = time.time()


async def _prepared(gateway: Gateway, said: bytes, worker: int) -> tuple[Gateway | None, Sequence[str]]:
    # From the first process, which has made this one: nobody else can write there.
    snapshot: Snapshot = pickle.loads(said)  # noqa: S301 - as above
    try:
        return await gateways.successor(gateway, snapshot.settings.of_worker(worker), snapshot.rows), ()
    except SettingsError as error:
        return None, error.lines
