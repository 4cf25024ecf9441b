"""Lines into a descriptor, by a thread of its own: whoever says something never waits for who reads it.

A pipe that nobody reads takes 64 KB; the next line written to it would stop the loop, and every call with it.
Source: reliability.md 6, row 72.
"""

from __future__ import annotations

import os
import queue
import select
import threading
from typing import Final, Protocol

import structlog

log = structlog.get_logger()

# So many lines wait, some megabytes of them; what comes on top is dropped.
MOST_LINES: Final = 8_192
# At the end so long for the lines that wait: a log that nobody reads must not keep a process from leaving.
CLOSE_S: Final = 1.0


class Lines(Protocol):
    """A text file to write to, as far as `structlog` needs one.

    dropped: lines that nobody will ever read, since the start
    """

    @property
    def dropped(self) -> int: ...

    def write(self, line: str) -> None:
        """Take a line."""

    def flush(self) -> None:
        """Write what waits."""

    def close(self) -> None:
        """No more will come."""


class LogWriter:
    """A text file to write to, as far as `structlog` needs one, that never blocks and never fails."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        # One number for each thread that counts: `+=` of two threads may lose one.
        self._no_room = 0
        self._failed = 0
        self._told = 0
        # A daemon may be left behind in a write that never ends.
        self._thread = threading.Thread(target=self._run, name="outlet", daemon=True)
        self._thread.start()

    @property
    def dropped(self) -> int:
        """Lines that nobody will ever read, since the start."""
        return self._no_room + self._failed

    def write(self, line: str) -> None:
        """Take a line, or drop and count it."""
        if self._lines.qsize() < MOST_LINES:
            self._lines.put(line.encode("utf-8", "backslashreplace"))
        else:
            self._no_room += 1

    def flush(self) -> None:
        """Nothing to do: lines are written as soon as they can be."""

    def close(self) -> None:
        """Write what waits, within a second."""
        self._lines.put(None)
        self._thread.join(CLOSE_S)

    def _run(self) -> None:
        while (line := self._lines.get()) is not None:
            try:
                self._write(line)
            except OSError:  # nobody can read it any more, or the disk is full; both may mend themselves
                self._failed += 1
                continue
            if self.dropped > self._told and self._lines.qsize() < MOST_LINES // 2:
                count, self._told = self.dropped - self._told, self.dropped
                log.warning("log_lines_dropped", count=count)

    def _write(self, line: bytes) -> None:
        """Write all of it. Raw: the interpreter's own buffer has a lock that it wants to take when it ends."""
        while line:
            try:
                line = line[os.write(self._descriptor, line) :]
            except BlockingIOError:  # somebody who shares the descriptor has made it so
                select.select([], [self._descriptor], [])


class Unthreaded:
    """The same for a process that may have no thread, since it forks: what finds no room at once is dropped."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.dropped = 0

    def write(self, line: str) -> None:
        """Write a line if there is room for it."""
        _, room, _ = select.select([], [self._descriptor], [], 0)
        try:
            if not room:
                raise BlockingIOError
            # A pipe that has room has room for so much.
            os.write(self._descriptor, line.encode("utf-8", "backslashreplace")[: select.PIPE_BUF])
        except OSError:
            self.dropped += 1

    def flush(self) -> None:
        """Nothing to do: lines are written as soon as they can be."""

    def close(self) -> None:
        """Nothing to do: nothing waits."""
