"""The connections to each target: those in use, and those that wait for a call, the newest of them first.

An idle one is closed when its time is over, without being asked, and the moment anything comes on it.
Source: spec ERR-4, ERR-5.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Collection
from time import monotonic
from typing import Final, NamedTuple
from urllib.parse import urlsplit

import aiohappyeyeballs

from proxy.upstream.line import IDLE, Line
from proxy.upstream.reasons import reason_of
from proxy.upstream.response import Slow, Unreachable

PORTS: Final = {"http": 80, "https": 443}
# A name's addresses are asked for anew after so long: what has moved is found again.
ADDRESSES_S: Final = 30.0
# The next address is tried where one has not answered for so long (RFC 8305, 5).
NEXT_ADDRESS_S: Final = 0.25


Address = tuple[int, int, int, str, tuple[str, int]]


class Place(NamedTuple):
    """Where a base URL leads.

    address: of the host, where one of several is meant; None: any
    trust:   names whose certificates are believed, see `Connections.believe`
    """

    secure: bool
    host: str
    port: int
    prefix: str
    address: str | None = None
    trust: str = ""

    @property
    def authority(self) -> str:
        """Host and port as a `Host` header says them."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == PORTS["https" if self.secure else "http"] else f"{host}:{self.port}"


class Connections:
    """The connections of a process to its upstreams; they outlive a reload of the configuration.

    keepalive_s: how long a connection waits for its next call
    """

    def __init__(self, keepalive_s: float) -> None:
        self._loop = asyncio.get_running_loop()
        self.keepalive_s = keepalive_s
        self._trusts: dict[str, ssl.SSLContext] = {}
        self._idle: dict[Place, list[Line]] = {}
        self._acquired: set[Line] = set()
        self._places: dict[Line, Place] = {}
        self._addresses: dict[Place, tuple[float, list[Address]]] = {}
        self._sweep: asyncio.TimerHandle | None = None

    @property
    def idle(self) -> int:
        """How many wait for a call."""
        return sum(map(len, self._idle.values()))

    @property
    def acquired(self) -> int:
        """How many have one."""
        return len(self._acquired)

    def believe(self, name: str, trust: ssl.SSLContext) -> None:
        """Say whose certificates are believed where a place names this."""
        self._trusts[name] = trust

    def waiting(self, place: Place) -> Line | None:
        """A connection that waits for a call, taken; None where none is fit for one."""
        idle = self._idle.get(place)
        while idle:
            line = idle.pop()
            if line.is_usable():
                self._acquired.add(line)
                return line
            line.abort()
        return None

    async def connect(self, place: Place, connect_s: float) -> Line:
        """A new connection, taken, made within so long, name and handshake included. Raises `Unreachable`, `Slow`."""
        try:
            async with asyncio.timeout(connect_s):
                line = await self._connected(place)
        except TimeoutError:
            raise Slow(f"no connection in {connect_s:g} s") from None
        except (OSError, RuntimeError) as error:
            # happy eyeballs raises `RuntimeError` where no address could be tried at all.
            raise Unreachable(str(reason_of(error))) from None
        self._places[line] = place
        self._acquired.add(line)
        return line

    def forget_addresses(self, place: Place) -> None:
        """Drop the addresses of this host, so that the next connection resolves its name again."""
        self._addresses.pop(place, None)

    def keep(self, places: Collection[Place]) -> None:
        """Forget what is known of other places; connections that are open there end by themselves."""
        self._addresses = {place: known for place, known in self._addresses.items() if place in places}
        self._idle = {place: idle for place, idle in self._idle.items() if idle or place in places}

    def close(self) -> None:
        """End every connection."""
        if self._sweep is not None:
            self._sweep.cancel()
        for line in [*self._places]:
            line.abort()

    async def _connected(self, place: Place) -> Line:
        addresses = await self._resolved(place)
        plain = await aiohappyeyeballs.start_connection(addresses, happy_eyeballs_delay=NEXT_ADDRESS_S, loop=self._loop)
        try:
            _, line = await self._loop.create_connection(
                lambda: Line(self._loop, self._part),
                sock=plain,
                ssl=self._trusts[place.trust] if place.secure else None,
                server_hostname=place.host if place.secure else None,
            )
        except BaseException:
            plain.close()
            raise
        if not place.secure:
            line.peek_at(plain)
        return line

    async def _resolved(self, place: Place) -> list[Address]:
        until_s, addresses = self._addresses.get(place, (0.0, []))
        if until_s <= monotonic():
            # In a thread on both loops: uvloop has a resolver of its own.
            addresses = await self._loop.run_in_executor(None, _look_up, place)
            self._addresses[place] = monotonic() + ADDRESSES_S, addresses
        return addresses

    def _part(self, line: Line) -> None:
        """Take back a connection that is idle, or forget one that is lost."""
        self._acquired.discard(line)
        if line.stage is IDLE:
            self._idle.setdefault(self._places[line], []).append(line)
            if self._sweep is None:
                self._sweep = self._loop.call_later(self.keepalive_s, self._close_old)
        elif (place := self._places.pop(line, None)) is not None:
            idle = self._idle.get(place, [])
            if line in idle:
                idle.remove(line)

    def _close_old(self) -> None:
        """Close what has waited long enough, and look again when the next one will have."""
        self._sweep = None
        old_s = monotonic() - self.keepalive_s
        waiting = [line for idle in self._idle.values() for line in idle]
        for line in waiting:
            if line.idle_s <= old_s:
                line.abort()
        if left := [line.idle_s for line in waiting if line.idle_s > old_s]:
            self._sweep = self._loop.call_later(min(left) - old_s, self._close_old)


def _look_up(place: Place) -> list[Address]:
    host = place.address or place.host
    return socket.getaddrinfo(host, place.port, type=socket.SOCK_STREAM)  # type: ignore[return-value]


def addresses_of(place: Place) -> list[str]:
    """The addresses of its host, in order; raises `OSError`. It blocks: for a thread."""
    return sorted({str(address[4][0]) for address in _look_up(place)})


def place_of(url: str) -> Place:
    """Where a base URL leads; it was checked when the settings were read."""
    parts = urlsplit(url)
    secure = parts.scheme.lower() == "https"
    port = parts.port or PORTS["https" if secure else "http"]
    return Place(secure, parts.hostname or "", port, parts.path.rstrip("/"))
