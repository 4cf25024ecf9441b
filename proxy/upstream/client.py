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
from typing import NamedTuple

import aiohttp
from multidict import CIMultiDict

from config.settings import Settings
from proxy.upstream.targets import EJECTED_S, STALE, UNREACHABLE, Attempt
from translators import faults
from translators.openai import failures
from translators.openai.failures import Terms

# Longer JSON answers come from no model.
COMPLETION_BYTES = 64 << 20

# Of an answer whose caller does not read aiohttp holds twice as much, and one read of the socket's on top. With its own
# 64 KB a caller who stalls costs 316 kB, with this 248 kB.
BUFFER_BYTES = 16 << 10


# What it is to the caller that no answer came; first match wins.
FAULTS = (
    (aiohttp.ConnectionTimeoutError, faults.TIMED_OUT, "connect_timeout fired"),
    (aiohttp.ClientConnectorError, faults.UNAVAILABLE, "no connection"),
    (aiohttp.ClientError, faults.UPSTREAM_BROKEN, "upstream broke off before its answer"),
)


# Who makes a socket finds here for which try. A trace of aiohttp's would tell as well, for 20 us a call.
_TRY: ContextVar[Attempt] = ContextVar("try")


class Post(NamedTuple):
    """What is sent: the path below a target's base URL, the body, the key, and headers to find the call again by."""

    path: str
    body: bytes
    key: str | None
    known_as: Mapping[str, str] = {}


class Upstream:
    """The upstreams of this process.

    pooled: keeps connections for the next call
    fresh:  opens one for every call; what is retried must not meet a second connection that has died unnoticed
    """

    def __init__(self, pooled: aiohttp.ClientSession, fresh: aiohttp.ClientSession, targets: tuple[str, ...]) -> None:
        self._sessions = (pooled, fresh)
        self._targets = targets
        self._ejected_until_s: dict[str, float] = {}

    async def post(self, post: Post, attempts: list[Attempt]) -> aiohttp.ClientResponse:
        """The response to one POST, its head read and its body not.

        Whoever asked closes it: its connection serves again if it was read to its end, and is closed with it if not.

        Raises `Refusal` where no target could be asked. At most one retry, and only when nothing can have been served:
        the connection was never made, or a pooled one had died before any byte of the answer.
        """
        targets = self._two_targets()
        for retry, session, target in zip((False, True), self._sessions, targets, strict=True):
            attempt = Attempt(target, retry, reused=not retry)
            attempts.append(attempt)
            _TRY.set(attempt)
            try:
                response = await _ask(session, target, post)
            except aiohttp.ClientError as error:
                attempt.result = type(error).__name__
                fault, cause = next((fault, cause) for kind, fault, cause in FAULTS if isinstance(error, kind))
                refusal = faults.Refusal(fault, f"{cause} ({attempt.result})")
                if isinstance(error, UNREACHABLE):
                    attempt.reused = False
                    self._eject(target)
                if not _is_safe_to_retry(error, attempt, targets[1]):
                    break
            else:
                attempt.result = str(response.status)
                self._ejected_until_s.pop(target, None)
                return response
        raise refusal

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

    def _two_targets(self) -> tuple[str, str]:
        """The target of the first try and that of the retry: in the operator's order, but the ejected ones last."""
        now_s = asyncio.get_running_loop().time()
        order = sorted(self._targets, key=lambda target: self._ejected_until_s.get(target, now_s) > now_s)
        return order[0], order[1 % len(order)]

    def _eject(self, target: str) -> None:
        """Try it last for a while, and ask anew where its name leads: it may have moved."""
        self._ejected_until_s[target] = asyncio.get_running_loop().time() + EJECTED_S
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
    return ssl.create_default_context(
        cafile=None if settings.upstream_ca_file is None else str(settings.upstream_ca_file)
    )


async def failure_of(response: aiohttp.ClientResponse, terms: Terms) -> faults.Refusal:
    """The refusal that a response other than a success stands for."""
    raw = await _read(response, failures.BODY_LIMIT)
    return failures.of_response(response.status, raw[: failures.BODY_LIMIT], terms, response.headers.get("Retry-After"))


async def completion_of(response: aiohttp.ClientResponse) -> bytes:
    """The whole body of a JSON answer."""
    raw = await _read(response, COMPLETION_BYTES)
    if len(raw) > COMPLETION_BYTES:
        raise faults.Refusal(
            faults.UPSTREAM_BROKEN, f"upstream sent a completion of more than {COMPLETION_BYTES} bytes"
        )
    return raw


def _session(settings: Settings, connector: aiohttp.TCPConnector) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=connector,
        # Only the connection has a limit here; every other wait is the watch's, which knows what a token is.
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


def _is_safe_to_retry(error: aiohttp.ClientError, attempt: Attempt, other: str) -> bool:
    """Whether nothing can have been served, and another try can end in another way."""
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        # A second wait of the same length for the same target helps nobody.
        return attempt.target != other
    return isinstance(error, aiohttp.ClientConnectorError) or (attempt.reused and isinstance(error, STALE))


async def _read(response: aiohttp.ClientResponse, limit: int) -> bytes:
    parts, size = [], 0
    while size <= limit and (part := await response.content.readany()):
        parts.append(part)
        size += len(part)
    return b"".join(parts)
