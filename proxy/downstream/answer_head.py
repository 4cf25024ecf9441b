"""The head of a call's answer in one rendering, and the word to aiohttp that the answer is out.

`StreamResponse` makes a multidict, runs two signals and three coroutines for each answer: with aiohttp's client, 1.0 of
a pass-through's call (`tests/bench/README.md`). Every other answer of the port goes by it. Source: spec HTTP-6, HTTP-7.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping
from email.utils import formatdate
from typing import Final

from aiohttp import HttpVersion11, hdrs, web

from proxy.downstream.phase import LIFECYCLE
from proxy.downstream.surface import BROWSERS, VIA, is_last

JSON: Final = "Content-Type: application/json\r\n"
CHUNKED: Final = "Transfer-Encoding: chunked\r\n"


class Sent:
    """An answer that is out: what a handler gives back to aiohttp, which has nothing left to send.

    keep_alive: whether the connection may bring another request
    """

    __slots__ = ("keep_alive",)

    def __init__(self, *, keep_alive: bool) -> None:
        self.keep_alive = keep_alive


KEPT: Final = Sent(keep_alive=True)
LAST: Final = Sent(keep_alive=False)


def fields(headers: Mapping[str, str]) -> str:
    """Header lines."""
    return "".join(f"{name}: {value}\r\n" for name, value in headers.items())


@functools.lru_cache(maxsize=1)
def _date(epoch_s: int) -> str:
    return formatdate(epoch_s, usegmt=True)


class Head:
    """The head of a call's answer, of which only what it says is left open.

    lifecycle: of the port that the call came to
    timing:    makes the value of `Server-Timing`, where there is one
    """

    __slots__ = ("_browsers", "_known_as", "_request", "lifecycle", "timing")

    def __init__(self, request: web.Request, known_as: str) -> None:
        app = request.app  # asked once: three calls each time
        self._request = request
        self._known_as = known_as
        self._browsers = app[BROWSERS]
        self.lifecycle = app[LIFECYCLE]
        self.timing: Callable[[], str] | None = None

    def rendered(self, lines: str) -> tuple[bytes, bool, bool]:
        """The head of a 200, whether its connection is kept, and whether its body goes in chunks.

        lines: the header lines of this kind of answer; a body whose length they say goes as it is
        """
        request = self._request
        modern = request.version >= HttpVersion11
        sized = hdrs.CONTENT_LENGTH in lines
        chunked = modern and not sized
        kept = (chunked or sized) and request.keep_alive and not is_last(request, self.lifecycle)
        said = "HTTP/1.1 200 OK\r\n" if modern else "HTTP/1.0 200 OK\r\n"
        connection = "" if kept is modern else "Connection: keep-alive\r\n" if kept else "Connection: close\r\n"
        timed = "" if self.timing is None else f"Server-Timing: {self.timing()}\r\n"
        shared = fields(self._browsers.shared(request)) if self._browsers.origins else ""
        wire = (
            f"{said}{lines}{CHUNKED if chunked else ''}{connection}X-Request-Id: {self._known_as}\r\n"
            f"Via: {VIA}\r\n{timed}{shared}Date: {_date(int(time.time()))}\r\n\r\n"
        )
        return wire.encode("ascii"), kept, chunked
