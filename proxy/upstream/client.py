"""A body into the response of a configured upstream, over connections of our own; retried once where that is safe.

It talks to the configured upstreams and nothing else: no redirects, no proxies from the environment, no cookies,
headers built from zero, TLS always verified. Source: spec ERR-4, OPS-3.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Final, NamedTuple

from config.settings import Settings
from proxy.upstream.line import Line
from proxy.upstream.connections import Connections, Place, place_of
from proxy.upstream.response import Broken, Response, UpstreamFailure
from proxy.upstream.targets import Attempt, Targets, is_safe_to_retry

# What every request says beside its own words; `identity`, for compressed events would wait for each other.
CONSTANT: Final = "User-Agent: dashseek\r\nAccept: */*\r\nAccept-Encoding: identity\r\n"
# A server that gave up waiting for our next request said so before it saw it (RFC 9110, 15.5.9).
REQUEST_TIMEOUT: Final = 408
# A longer body is written behind its head and not copied together with it.
JOINED_BYTES: Final = 64 << 10


class Post(NamedTuple):
    """What is sent: the path below a target's base URL, the body, the key, and headers to find the call again by."""

    path: str
    body: bytes
    key: str | None
    known_as: Mapping[str, str] = {}


class Upstream:
    """The upstreams of this process: their targets in order, and the connections to them."""

    def __init__(self, connections: Connections, urls: tuple[str, ...]) -> None:
        loop = asyncio.get_running_loop()
        self._connections = connections
        self._targets = Targets(urls, loop.time)
        self._places = {url: place_of(url) for url in urls}

    async def post(self, post: Post, attempts: list[Attempt]) -> Response:
        """The response to one POST, its head read and its body not.

        Raises `UpstreamFailure` where no target answered. At most one retry, over a new connection, and only when
        nothing can have been served: the connection was never made, or a pooled one had died before any byte of the
        answer.
        """
        first, second = self._targets.two()
        try:
            return await self._ask(Attempt(first), post, attempts)
        except UpstreamFailure as failure:
            if not is_safe_to_retry(failure, attempts[-1], second):
                raise
        return await self._ask(Attempt(second, retry=True), post, attempts)

    async def lists(self, target: str, key: str | None) -> int:
        """The status a target gives to the question for its models, which costs nothing; raises `UpstreamFailure`."""
        place = place_of(target)
        line = await self._connections.connect(place)
        try:
            line.ask(_request("GET", place, Post("/models", b"", key)))
            await line.head()
            return line.status
        finally:
            line.abort()

    def connections(self) -> Mapping[str, int]:
        """How many connections wait for a call, and how many have one."""
        return {"idle": self._connections.idle, "acquired": self._connections.acquired}

    async def _ask(self, attempt: Attempt, post: Post, attempts: list[Attempt]) -> Response:
        """One try. What is retried must not meet a second connection that has died unnoticed."""
        attempts.append(attempt)
        place = self._places[attempt.target]
        line: Line | None = None
        try:
            if not attempt.retry:
                line = self._connections.waiting(place)
            attempt.reused = line is not None
            if line is None:
                line = await self._connections.connect(place)
            line.ask(_request("POST", place, post))
            if len(post.body) > JOINED_BYTES:
                line.send(post.body)
            await line.head()
            if attempt.reused and line.status == REQUEST_TIMEOUT:
                attempt.unserved = True
                raise Broken("408 for a request that was not read")
        except UpstreamFailure as failure:
            attempt.result = failure.result
            if line is not None:
                attempt.unserved = attempt.unserved or line.is_silent
                line.abort()
            else:
                self._targets.eject(attempt.target)
                self._connections.forget_addresses(place)
            raise
        except BaseException:
            # The call has ended meanwhile.
            if line is not None:
                line.abort()
            raise
        attempt.answered(line.status)
        self._targets.restore(attempt.target)
        return line


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[Upstream]:
    """The upstreams with their pool, as long as the context lives."""
    # Made where it is needed: reading the system's certificates takes a moment of every start.
    secure = any(target.lower().startswith("https:") for target in settings.upstream)
    connections = Connections(
        trust(settings) if secure else None,
        keepalive_s=settings.upstream_keepalive_timeout,
        connect_s=settings.connect_timeout,
    )
    try:
        yield Upstream(connections, settings.upstream)
    finally:
        connections.close()
        # The sockets are closed in the loop's next turn.
        await asyncio.sleep(0)


def trust(settings: Settings) -> ssl.SSLContext:
    """Whose certificates are believed: the operator's own where there are some, else the system's."""
    authorities = settings.upstream_ca_file
    return ssl.create_default_context(cafile=None if authorities is None else str(authorities))


def _request(method: str, place: Place, post: Post) -> bytes:
    """A request as it goes over the wire, its body with it unless that is long."""
    body, key = post.body, post.key
    lines = [f"{method} {place.prefix}{post.path} HTTP/1.1\r\nHost: {place.authority}\r\n{CONSTANT}"]
    lines += [f"{name}: {value}\r\n" for name, value in post.known_as.items()]
    if key is not None:
        lines.append(f"Authorization: Bearer {key}\r\n")
    if body:
        lines.append(f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n")
    head = "".join(lines)
    if head.count("\n") != head.count("\r\n") or head.count("\r") != head.count("\n"):
        raise ValueError("a header of more than one line")
    # As aiohttp's parser has read a caller's key: bytes that are no UTF-8 go on as they came.
    wire = (head + "\r\n").encode("utf-8", "surrogateescape")
    return wire if len(body) > JOINED_BYTES else wire + body
