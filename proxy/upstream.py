"""The only place that opens a connection of our own: one POST to a configured upstream, retried once where that is safe.

It talks to the configured upstreams and nothing else: no redirects, no proxies from the environment, no cookies, headers built from
zero, TLS always verified. Source: spec ERR-4, OPS-3.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace

import aiohttp
import structlog
from multidict import CIMultiDict

from config import settings
from translators import faults
from translators.openai import failures

log = structlog.get_logger()

# Longer JSON answers come from no model.
COMPLETION_BYTES = 64 << 20

# Nothing came back and the connection was an old one: the server closed it while we wrote. A POST sent into that has not been served.
STALE = (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError)


@dataclass(slots=True)
class Attempt:
    """One try at one target, for the record of the call."""

    target: str
    reused: bool = False
    result: str = "open"


@dataclass(frozen=True, slots=True)
class Post:
    """What is sent: the path below a target's base URL, the body, the key, and what is passed on of the trace."""

    path: str
    body: bytes
    key: str | None
    trace: Mapping[str, str] = field(default_factory=dict)


class Upstream:
    """The upstreams of this process behind one connection pool."""

    def __init__(self, session: aiohttp.ClientSession, targets: tuple[str, ...]) -> None:
        self._session = session
        self._targets = targets

    @asynccontextmanager
    async def post(self, post: Post, attempts: list[Attempt]) -> AsyncIterator[aiohttp.ClientResponse]:
        """The response to one POST, its head read and its body not; closed with the context, reused only if read to its end.

        Raises `Refusal` where no target could be asked. At most one retry, and only when nothing can have been served: the connection
        was never made, or a pooled one had died before any byte of the answer.
        """
        response = await self._first_answer(post, attempts)
        try:
            yield response
        finally:
            # Closes the connection unless the body was read to its end, which has given it back to the pool already.
            response.close()

    async def _first_answer(self, post: Post, attempts: list[Attempt]) -> aiohttp.ClientResponse:
        targets = (self._targets * 2)[:2]
        for target in targets:
            attempt = Attempt(target)
            attempts.append(attempt)
            try:
                response = await self._ask(target, post, attempt)
                attempt.result = str(response.status)
                return response
            except aiohttp.ClientConnectorError as error:
                failure: aiohttp.ClientError = error
                safe = True
            except aiohttp.ConnectionTimeoutError:
                attempt.result = "connect_timeout"
                raise faults.Refusal(faults.TIMED_OUT, "connect_timeout fired") from None
            except STALE as error:
                failure, safe = error, attempt.reused
            except aiohttp.ClientError as error:
                failure, safe = error, False
            attempt.result = type(failure).__name__
            if not safe:
                raise faults.Refusal(faults.UPSTREAM_BROKEN, f"upstream broke off: {attempt.result}") from failure
        raise faults.Refusal(faults.UNAVAILABLE, f"no upstream could be reached: {attempt.result}")

    async def _ask(self, target: str, post: Post, attempt: Attempt) -> aiohttp.ClientResponse:
        headers = CIMultiDict(post.trace)
        headers["Content-Type"] = "application/json"
        if post.key is not None:
            headers["Authorization"] = f"Bearer {post.key}"
        return await self._session.post(
            target + post.path,
            data=post.body,
            headers=headers,
            allow_redirects=False,
            trace_request_ctx=SimpleNamespace(attempt=attempt),
        )


@asynccontextmanager
async def opened(chosen: settings.Settings) -> AsyncIterator[Upstream]:
    """The upstreams with their pool, as long as the context lives."""
    context = ssl.create_default_context()
    if chosen.upstream_ca_file is not None:
        context.load_verify_locations(cafile=str(chosen.upstream_ca_file))
    connector = aiohttp.TCPConnector(
        limit=0,
        ssl=context,
        keepalive_timeout=chosen.upstream_keepalive_timeout,
        ttl_dns_cache=30,
    )
    trace = aiohttp.TraceConfig()
    trace.on_connection_reuseconn.append(_note_reuse)
    async with aiohttp.ClientSession(
        connector=connector,
        # Only the connection has a limit here; every other wait is the watch's, which knows what a token is.
        timeout=aiohttp.ClientTimeout(total=None, connect=chosen.connect_timeout),
        headers={"User-Agent": "dashseek", "Accept-Encoding": "identity"},
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=False,
        trace_configs=[trace],
    ) as session:
        yield Upstream(session, chosen.upstream)


async def failure_of(response: aiohttp.ClientResponse, terms: failures.Terms) -> faults.Refusal:
    """The refusal that a response other than a success stands for."""
    raw = await _read(response, failures.BODY_LIMIT)
    return failures.of_response(response.status, raw[: failures.BODY_LIMIT], terms, response.headers.get("Retry-After"))


async def completion_of(response: aiohttp.ClientResponse) -> bytes:
    """The whole body of a JSON answer."""
    raw = await _read(response, COMPLETION_BYTES)
    if len(raw) > COMPLETION_BYTES:
        raise faults.Refusal(faults.UPSTREAM_BROKEN, f"upstream sent a completion of more than {COMPLETION_BYTES} bytes")
    return raw


async def _read(response: aiohttp.ClientResponse, limit: int) -> bytes:
    parts, size = [], 0
    while size <= limit and (part := await response.content.readany()):
        parts.append(part)
        size += len(part)
    return b"".join(parts)


async def _note_reuse(_: aiohttp.ClientSession, context: SimpleNamespace, __: aiohttp.TraceConnectionReuseconnParams) -> None:
    context.trace_request_ctx.attempt.reused = True
