"""The head of a call's answer in one rendering, and the word to aiohttp that the answer is out.

`StreamResponse` makes a multidict, runs two signals and three coroutines for each answer: with aiohttp's client, 1.0 of
a pass-through's call (`tests/bench/README.md`). Every other answer of the port goes by it. Source: spec HTTP-6, HTTP-7.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Mapping
from email.utils import formatdate
from typing import Final

from aiohttp import HttpVersion11, hdrs, web

from proxy.downstream.surface import BROWSERS, VIA, is_last, request_id

JSON: Final = "Content-Type: application/json\r\n"
CHUNKED: Final = "Transfer-Encoding: chunked\r\n"


class Sent:
    """An answer that is out: what a handler gives back to aiohttp, which has nothing left to send.

    keep_alive: whether the connection may bring another request
    """

    __slots__ = ("keep_alive",)

    def __init__(self, *, keep_alive: bool) -> None:
        self.keep_alive = keep_alive


def fields(headers: Mapping[str, str]) -> str:
    """Header lines."""
    return "".join(f"{name}: {value}\r\n" for name, value in headers.items())


@functools.lru_cache(maxsize=1)
def _date(epoch_s: int) -> str:
    return formatdate(epoch_s, usegmt=True)


def head(request: web.Request, lines: str, timing: str | None) -> tuple[bytes, bool, bool]:
    """The head of a 200, whether its connection is kept, and whether its body goes in chunks.

    lines:  the header lines of this kind of answer; a body whose length they say goes as it is
    timing: the value of `Server-Timing`, where there is one
    """
    modern = request.version >= HttpVersion11
    chunked = modern and hdrs.CONTENT_LENGTH not in lines
    kept = request.keep_alive and not is_last(request) and (chunked or hdrs.CONTENT_LENGTH in lines)
    said = "HTTP/1.1 200 OK\r\n" if modern else "HTTP/1.0 200 OK\r\n"
    connection = "" if kept is modern else "Connection: keep-alive\r\n" if kept else "Connection: close\r\n"
    timed = "" if timing is None else f"Server-Timing: {timing}\r\n"
    shared = fields(request.app[BROWSERS].shared(request))
    wire = (
        f"{said}{lines}{CHUNKED if chunked else ''}{connection}X-Request-Id: {request_id(request)}\r\n"
        f"Via: {VIA}\r\n{timed}{shared}Date: {_date(int(time.time()))}\r\n\r\n"
    )
    return wire.encode("ascii"), kept, chunked
