"""A body into the response of one target, over connections of our own: one try, and what came of it.

It talks to the configured upstreams and nothing else: no redirects, no proxies from the environment, no cookies,
headers built from zero, TLS always verified. Source: spec ERR-4, OPS-3.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

from proxy.upstream.connections import Connections, Place
from proxy.upstream.line import Line
from proxy.upstream.response import Broken, Response, UpstreamFailure
from proxy.upstream.targets import Attempt, Target

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


async def ask(
    connections: Connections, target: Target, post: Post, attempt: Attempt, *, connect_s: float, anew: bool
) -> Response:
    """The response of one target to one POST, its head read and its body not; raises `UpstreamFailure`.

    attempt: takes what came of it
    anew:    over a new connection: what is tried again must not meet a second one that has died unnoticed
    """
    place = target.place
    line: Line | None = None
    try:
        if not anew:
            line = connections.waiting(place)
        attempt.reused = line is not None
        if line is None:
            line = await connections.connect(place, connect_s)
        _send(line, target, post)
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
            connections.forget_addresses(place)
        raise
    except BaseException:
        # The call has ended meanwhile.
        if line is not None:
            line.abort()
        raise
    attempt.answered(line.status)
    return line


async def status_of(
    connections: Connections, place: Place, path: str, key: str | None, *, connect_s: float, headers: Mapping[str, str]
) -> int:
    """The status a target gives to a GET, which costs nothing; raises `UpstreamFailure`.

    path: below the prefix of the place
    """
    line = await connections.connect(place, connect_s)
    try:
        line.ask(_request(_constant("GET", place, path, headers), Post(path, b"", key)))
        await line.head()
        return line.status
    finally:
        line.abort()


def trust_of(authorities: Path | None) -> ssl.SSLContext:
    """Whose certificates are believed: those of a file of the operator's, else the system's."""
    return ssl.create_default_context(cafile=None if authorities is None else str(authorities))


def _send(line: Line, target: Target, post: Post) -> None:
    head = target.heads.get(post.path)
    if head is None:
        head = target.heads[post.path] = _constant("POST", target.place, post.path, target.pool.headers)
    line.ask(_request(head, post))
    if len(post.body) > JOINED_BYTES:
        line.send(post.body)


def _constant(method: str, place: Place, path: str, headers: Mapping[str, str]) -> str:
    """The lines of a request's head that are the same for every call."""
    said = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    head = f"{method} {place.prefix}{path} HTTP/1.1\r\nHost: {place.authority}\r\n{CONSTANT}{said}"
    _check(head, 2 + CONSTANT.count("\n") + len(headers))
    return head


def _request(constant: str, post: Post) -> bytes:
    """A request as it goes over the wire, its body with it unless that is long."""
    body = post.body
    said = ""
    for name, value in post.known_as.items():
        said += f"{name}: {value}\r\n"
    if post.key is not None:
        said += f"Authorization: Bearer {post.key}\r\n"
    _check(said, len(post.known_as) + (post.key is not None))
    if body:
        said += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    # As aiohttp's parser has read a caller's key: bytes that are no UTF-8 go on as they came.
    wire = f"{constant}{said}\r\n".encode("utf-8", "surrogateescape")
    return wire if len(body) > JOINED_BYTES else wire + body


def _check(lines: str, number: int) -> None:
    """Raise `ValueError` where lines are not so many."""
    if lines.count("\n") != number or lines.count("\r") != number:
        raise ValueError("a header of more than one line")
