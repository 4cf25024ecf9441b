"""Requests that are no call: each is counted, some leave a line that says what was meant (spec HTTP-13).

What strangers can cause at will is logged at a rate, or a scanner fills the disk.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Iterable
from typing import Final

import structlog

from translators import faults

log = structlog.get_logger()

# Of what is not HTTP, or finds no room, one line in so many seconds is logged.
LINE_EVERY_S: Final = 10.0
# Of strays the first so many of a minute are.
STRAY_LINES: Final = 10
STRAY_WINDOW_S: Final = 60.0
PATH_CHARS: Final = 128
METHOD_CHARS: Final = 16

TLS_HELLO: Final = b"\x16\x03"
TLS_HINT: Final = "a TLS hello: this port speaks plain HTTP, so say http://, or give it --tls-cert and --tls-key"
PLAIN_HINT: Final = "plain HTTP: this port speaks TLS, so say https://"
SLASH_HINT: Final = "a doubled or trailing slash"

# What a path looks like -> what its caller probably meant; the first that fits counts.
Hints = Iterable[tuple[re.Pattern[str], str]]


class Stray(Exception):  # noqa: N818 - it says what came, not that something broke
    """A request that is no call of ours.

    fault: what its sender is told
    hint:  what the operator is told beside it, in our own words; None where there is nothing to guess
    """

    def __init__(self, fault: faults.Fault, hint: str | None = None) -> None:
        self.fault = fault
        self.hint = hint


class RateLimitedLog:
    """A log of what strangers can cause at will: a few lines in a window, then one that counts the rest.

    event:   what they cause
    most:    lines in a window; what comes beyond them is told as the `count` of the line after them
    every_s: length of a window
    port:    whose connections cause it
    """

    def __init__(
        self, event: str, port: str, *, most: int = 1, every_s: float | None = None, level: int = logging.WARNING
    ) -> None:
        self._event = event
        self._port = port
        self._most = most
        self._every_s = every_s
        self._level = level
        self._ends_s = 0.0
        self._lines = 0
        self._unsaid = 0

    def note(self, **fields: object) -> None:
        """Take one; the fields hold nothing of what was sent that is not bounded and escaped."""
        self._unsaid += 1
        now_s = asyncio.get_running_loop().time()
        if now_s >= self._ends_s:
            self._ends_s, self._lines = now_s + (self._every_s or LINE_EVERY_S), 0
        if self._lines < self._most:
            self._lines += 1
            log.log(self._level, self._event, port=self._port, **fields, count=self._unsaid)
            self._unsaid = 0


class Strays:
    """The strays of one port.

    port:  its name in the log
    hints: what their paths look like, and what was meant
    count: is told of each, by its status
    """

    def __init__(self, port: str, hints: Hints = (), count: Callable[[int], None] = lambda _: None) -> None:
        self._hints = hints
        self._count = count
        self._log = RateLimitedLog("stray", port, most=STRAY_LINES, every_s=STRAY_WINDOW_S, level=logging.INFO)

    def note(self, method: str, target: str, status: int, request_id: str, hint: str | None = None) -> None:
        """Take one.

        target: its path and query as they were sent; the query goes no further
        """
        self._count(status)
        path = target.partition("?")[0]
        self._log.note(
            method=method[:METHOD_CHARS],
            path=escaped(path, PATH_CHARS),
            status=status,
            request_id=request_id,
            hint=hint or self.guess(path),
        )

    def guess(self, path: str) -> str | None:
        """What was meant by a path, in our own words; None where there is nothing to guess."""
        path = path[:PATH_CHARS]
        tidy = re.sub("/{2,}", "/", path)
        tidy = tidy.rstrip("/") or "/"
        found = next((hint for pattern, hint in self._hints if pattern.match(tidy)), None)
        return found or (SLASH_HINT if tidy != path else None)


def escaped(text: str, most_chars: int) -> str:
    """The beginning of what a stranger sent, in printable ASCII."""
    if text.isascii() and text.isprintable():
        return text[:most_chars]
    cut = text[:most_chars].encode("ascii", "backslashreplace").decode("ascii")
    return "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in cut)
