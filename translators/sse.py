"""Upstream bytes into the data of server-sent events; knows line ends, comments and joins, no JSON.

The stream may be cut anywhere between two reads: inside a character, inside a CR LF pair, inside the byte-order mark.
Source: WHATWG HTML, "Server-sent events", interpretation; spec SSE-10.
"""

from __future__ import annotations

import sys
from typing import Final

from translators import faults

# What may stand before the first thing a body says: blank lines, which keep alive, and a byte-order mark.
LEADING: Final = b" \t\r\n\xef\xbb\xbf"
STREAMED: Final = (b"data:", b":", b"event:", b"id:", b"retry:")
# What stands before the data of an event named `error`, so that it can be taken neither for JSON nor for `[DONE]`.
ERROR: Final = b"event:error\n"
# As numbers: a byte is found in a quarter of the time that one byte's `bytes` takes.
LF: Final = 0x0A
CR: Final = 0x0D


def is_stream(body: bytes) -> bool:
    """Whether a body is events by what it begins with, whatever its label says (spec SSE-10)."""
    return body.lstrip(LEADING).startswith(STREAMED)


class Decoder:
    """Collects reads of one upstream stream and hands out the data of each whole event, behind `ERROR` if it is one.

    limit:       bytes one event may have; a longer one is a `Refusal`, since it would have to be held in memory whole
    large_bytes: an event of more costs more than a turn of a loop should
    is_document: whether it began as a JSON document and not as events: it is held until `document`
    is_between:  whether the next read begins with another event: nothing is held of one
    is_large:    whether so much of an event is held, or was handed out last
    """

    __slots__ = ("_after_cr", "_large_bytes", "_limit", "_pending", "_unread", "is_between", "is_document", "is_large")

    def __init__(self, limit: int, large_bytes: int = sys.maxsize) -> None:
        self._limit = limit
        self._large_bytes = large_bytes
        self.is_between = self.is_large = False
        self._pending = bytearray()
        self._unread = True
        self._after_cr = self.is_document = False

    def feed(self, wire: bytes) -> list[bytes]:
        """The data of every event that `wire` completes, in order; comments and empty events leave nothing."""
        if not self._pending and wire.startswith(b"data:") and wire.endswith(b"\n\n") and not self._after_cr:
            found = wire[5:-2].split(b"\n\ndata:")
            # Whole events of one data line each, as nearly every read of every upstream is: no other line end in it.
            if CR not in wire and wire.count(LF) == 2 * len(found):
                self._unread = False
                self.is_between = True
                return found
        self.is_between = False
        if self._unread:
            wire = wire.lstrip(LEADING)
            if not wire:
                return []
            self._unread = False
            self.is_document = wire.startswith(b"{")
        if self.is_document:
            self._pending += wire
            self._check_limit()
            return []
        if self._after_cr or CR in wire:
            wire = self._with_line_feeds(wire)
        pending = self._pending
        if pending:
            # Only the last byte held can be half of a blank line: what was searched once is never searched again.
            start = len(pending) - 1
            pending += wire
            end = pending.rfind(b"\n\n", start)
            if end < 0:
                self._check_limit()
                return []
            blocks = bytes(pending[:end]).split(b"\n\n")
            del pending[: end + 2]
        else:
            blocks = wire.split(b"\n\n")
            pending += blocks.pop()
        self._check_limit()
        self.is_between = not (pending or self._after_cr)
        return self._data_of(blocks)

    @property
    def held_bytes(self) -> int:
        """How much of an event, or of a document, is held."""
        return len(self._pending)

    def look(self) -> None:
        """What was large has been taken: see anew whether what is held is."""
        self.is_large = len(self._pending) > self._large_bytes

    def document(self) -> bytes:
        """The whole document, where it is one."""
        return bytes(self._pending)

    def eof(self) -> list[bytes]:
        """The data of an event that lacks only its closing blank line: some servers end without it."""
        block = bytes(self._pending)
        self._pending.clear()
        return self._data_of([block]) if block else []

    def _data_of(self, blocks: list[bytes]) -> list[bytes]:
        found = []
        for block in blocks:
            if block.startswith(b"data:") and b"\n" not in block:
                found.append(block[5:])
            elif (data := _join(block)) is not None:
                found.append(data)
        return found

    def _with_line_feeds(self, wire: bytes) -> bytes:
        """CR LF and CR become LF; a CR that ends a read swallows the LF that begins the next one."""
        if not wire:
            return wire
        if self._after_cr and wire.startswith(b"\n"):
            wire = wire[1:]
            self._after_cr = False
            if not wire:
                return wire
        self._after_cr = wire.endswith(b"\r")
        return wire.replace(b"\r\n", b"\n").replace(b"\r", b"\n")

    def _check_limit(self) -> None:
        if len(self._pending) > self._limit:
            raise faults.Refusal(faults.UPSTREAM_BROKEN, f"upstream sent an event of more than {self._limit} bytes")
        if len(self._pending) > self._large_bytes:
            self.is_large = True


def _join(block: bytes) -> bytes | None:
    """The data lines of one event, joined; None where it has none (comments, `event:`, `id:`, `retry:` alone).

    An event named `error` is an error whatever its data, and none is some (spec SSE-10).
    """
    fields = block.split(b"\n")
    lines = [line[5:].removeprefix(b" ") for line in fields if line.startswith(b"data:")]
    names = [line[6:].strip() for line in fields if line.startswith(b"event:")]
    if names and names[-1] == b"error":
        return ERROR + b"\n".join(lines)
    return b"\n".join(lines) if lines else None
