"""A body into the response of a configured upstream, over connections of our own; retried once where that is safe.

It talks to the configured upstreams and nothing else: no redirects, no proxies from the environment, no cookies,
headers built from zero, TLS always verified. Source: spec ERR-4, OPS-3.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from contextvars import ContextVar
from functools import partial
from typing import Final, NamedTuple

import aiohttp
from multidict import CIMultiDict

from config.settings import Settings
from proxy.upstream.response import Broken, Response, Slow, Unreachable, UpstreamFailure
from proxy.upstream.targets import Attempt, Targets, is_safe_to_retry

# Of an answer whose caller does not read aiohttp holds twice as much, and one read of the socket's on top. With its own
# 64 KB a caller who stalls costs 316 kB, with this 248 kB.
BUFFER_BYTES = 16 << 10

# What aiohttp raises -> what it is to a call; the first match wins.
FAILURES: Final[tuple[tuple[type[Exception], type[UpstreamFailure]], ...]] = (
    (aiohttp.ConnectionTimeoutError, Slow),
    (aiohttp.ClientConnectorError, Unreachable),
    (aiohttp.ClientError, Broken),
)
# What a pooled connection says that the server closed while we wrote. A POST sent into that has not been served.
UNSERVED: Final = (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError, aiohttp.ClientConnectionResetError)

# Who makes a socket finds here for which try. A trace of aiohttp's would tell as well, for 20 us a call.
_TRY: ContextVar[Attempt] = ContextVar("try")


class Post(NamedTuple):
    """What is sent: the path below a target's base URL, the body, the key, and headers to find the call again by."""

    path: str
    body: bytes
    key: str | None
    known_as: Mapping[str, str] = {}


class Answered:
    """aiohttp's response as a `Response`."""

    __slots__ = ("_response", "content_type", "retry_after", "status")

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        self.status = response.status
        self.content_type = response.content_type
        self.retry_after = response.headers.get("Retry-After")

    async def read(self, most: int) -> bytes:
        try:
            return await self._response.content.read(most)
        except aiohttp.ClientError as error:
            raise _failure_of(error) from None

    def at_end(self) -> bool:
        return self._response.content.at_eof()

    def close(self) -> None:
        # aiohttp has put a connection back by itself whose answer was read to the end.
        self._response.close()


class Upstream:
    """The upstreams of this process.

    pooled: keeps connections for the next call
    fresh:  opens one for every call; what is retried must not meet a second connection that has died unnoticed
    """

    def __init__(self, pooled: aiohttp.ClientSession, fresh: aiohttp.ClientSession, urls: tuple[str, ...]) -> None:
        self._sessions = (pooled, fresh)
        self._targets = Targets(urls, asyncio.get_running_loop().time)

    async def post(self, post: Post, attempts: list[Attempt]) -> Response:
        """The response to one POST, its head read and its body not.

        Raises `UpstreamFailure` where no target answered. At most one retry, and only when nothing can have been
        served: the connection was never made, or a pooled one had died before any byte of the answer.
        """
        targets = self._targets.two()
        for retry, session, target in zip((False, True), self._sessions, targets, strict=True):
            attempt = Attempt(target, retry, reused=not retry)
            attempts.append(attempt)
            _TRY.set(attempt)
            try:
                response = await _ask(session, target, post)
            except aiohttp.ClientError as error:
                failure = _failure_of(error)
                attempt.result = failure.result
                if not isinstance(failure, Broken):
                    attempt.reused = False
                    self._eject(target)
                unserved = isinstance(error, UNSERVED)
                if retry or not is_safe_to_retry(failure, attempt, targets[1], unserved=unserved):
                    raise failure from None
            else:
                attempt.answered(response.status)
                self._targets.restore(target)
                return Answered(response)
        raise AssertionError("a retry that fails is raised")

    async def lists(self, target: str, key: str | None) -> int:
        """The status a target gives to the question for its models, which costs nothing; raises `ClientError`."""
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        _TRY.set(Attempt(target))
        async with self._sessions[1].get(f"{target}/models", headers=headers, allow_redirects=False) as response:
            return response.status

    def connections(self) -> Mapping[str, int]:
        """How many connections wait for a call, and how many have one."""
        found = {"idle": 0, "acquired": 0}
        for connector in (session.connector for session in self._sessions):
            if connector is not None:
                # aiohttp counts them and has no public word for it.
                found["idle"] += sum(map(len, connector._conns.values()))  # noqa: SLF001
                found["acquired"] += len(connector._acquired)  # noqa: SLF001
        return found

    def _eject(self, target: str) -> None:
        """Try it last for a while, and ask anew where its name leads: it may have moved."""
        self._targets.eject(target)
        for session in self._sessions:
            if isinstance(session.connector, aiohttp.TCPConnector):
                session.connector.clear_dns_cache()


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[Upstream]:
    """The upstreams with their pool, as long as the context lives."""
    # Made where it is needed: reading the system's certificates takes a moment of every start.
    context = trust(settings) if any(target.lower().startswith("https:") for target in settings.upstream) else True
    connector = partial(aiohttp.TCPConnector, limit=0, ssl=context, ttl_dns_cache=30, socket_factory=_dialled)
    async with (
        _session(settings, connector(keepalive_timeout=settings.upstream_keepalive_timeout)) as pooled,
        _session(settings, connector(force_close=True)) as fresh,
    ):
        yield Upstream(pooled, fresh, settings.upstream)


def trust(settings: Settings) -> ssl.SSLContext:
    """Whose certificates are believed: the operator's own where there are some, else the system's."""
    authorities = settings.upstream_ca_file
    return ssl.create_default_context(cafile=None if authorities is None else str(authorities))


def _session(settings: Settings, connector: aiohttp.TCPConnector) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=connector,
        # Only the connection has a limit here; every other wait is the call's, which knows what a token is.
        timeout=aiohttp.ClientTimeout(total=None, connect=settings.connect_timeout),
        headers={"User-Agent": "dashseek", "Accept-Encoding": "identity"},
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=False,
        read_bufsize=BUFFER_BYTES,
    )


def _dialled(address: aiohttp.AddrInfoType) -> socket.socket:
    """A socket for the present try, which then goes over no connection that was there before."""
    _TRY.get().reused = False
    family, kind, protocol, _, _ = address
    return socket.socket(family, kind, protocol)


async def _ask(session: aiohttp.ClientSession, target: str, post: Post) -> aiohttp.ClientResponse:
    headers = CIMultiDict(post.known_as)
    headers["Content-Type"] = "application/json"
    if post.key is not None:
        headers["Authorization"] = f"Bearer {post.key}"
    return await session.post(
        target + post.path,
        data=post.body,
        headers=headers,
        allow_redirects=False,
    )


def _failure_of(error: aiohttp.ClientError) -> UpstreamFailure:
    return next(failure for kind, failure in FAILURES if isinstance(error, kind))(type(error).__name__)
