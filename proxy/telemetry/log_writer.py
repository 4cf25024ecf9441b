"""Lines into a descriptor, by a thread of its own: whoever says something never waits for who reads it.

A pipe that nobody reads takes 64 KB; the next line written to it would stop the loop, and every call with it.
Source: SOURCES#fault-matrix row 72.
"""

from __future__ import annotations

import os
import select
import threading
import time
from collections import deque
from typing import Final, Protocol

import structlog

log = structlog.get_logger()

# So many lines wait, some megabytes of them; what comes on top is dropped.
MOST_LINES: Final = 8_192
# So long are lines gathered before they are written, and so many of them go in one write.
GATHER_S: Final = 0.02
BATCH_LINES: Final = 256
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

    def write_line(self, line: bytes) -> None:
        """The same of a line that is encoded, its end with it."""

    def flush(self) -> None:
        """Write what waits."""

    def close(self) -> None:
        """Write what waits, and close."""


class LogWriter:
    """A text file to write to, as far as `structlog` needs one, that never blocks and never fails.

    Lines are gathered for `GATHER_S` and written together: a thread that is woken for each line fights the loop for
    the interpreter, a fifth of what a small call costs. A crash loses that much of the log, and nothing of the journal.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._lines: deque[bytes] = deque()
        # Set while there is something for the thread to do: whoever adds the first line of a batch wakes it.
        self._awake = threading.Event()
        # The same as a plain field, for whoever adds a line: it is set after a line and cleared before lines are taken.
        self._is_woken = False
        self._over = False
        # One number for each thread that counts: `+=` of two threads may lose one.
        self._no_room = 0
        self._failed = 0
        self._told = 0
        # A daemon may be left behind in a write that never ends.
        self._thread = threading.Thread(target=self._run, name="log writer", daemon=True)
        self._thread.start()

    @property
    def dropped(self) -> int:
        """How many lines were dropped since the start."""
        return self._no_room + self._failed

    def write(self, line: str) -> None:
        """Take a line, or drop and count it."""
        self.write_line(line.encode("utf-8", "backslashreplace"))

    def write_line(self, line: bytes) -> None:
        """The same of a line that is encoded, its end with it."""
        if len(self._lines) >= MOST_LINES:
            self._no_room += 1
            return
        self._lines.append(line)
        if not self._is_woken:
            self._is_woken = True
            self._awake.set()

    def flush(self) -> None:
        """Nothing to do: lines are written as soon as they can be."""

    def close(self) -> None:
        """Write what waits, within a second."""
        self._over = True
        self._awake.set()
        self._thread.join(CLOSE_S)

    def _run(self) -> None:
        is_last = False
        while not is_last:
            self._awake.wait()
            if not self._over:
                time.sleep(GATHER_S)
            # In this order: a line that is added now is taken now, or wakes the thread again; and so does the end.
            self._awake.clear()
            self._is_woken = False
            is_last = self._over
            self._write_all()

    def _write_all(self) -> None:
        """Write what waits, in pieces of `BATCH_LINES`, and say once that lines were lost where there is room again."""
        while self._lines:
            batch = [self._lines.popleft() for _ in range(min(len(self._lines), BATCH_LINES))]
            try:
                self._write(b"".join(batch))
            except OSError:  # nobody can read it any more, or the disk is full; both may mend themselves
                self._failed += len(batch)
                continue
            if self.dropped > self._told and len(self._lines) < MOST_LINES // 2:
                count, self._told = self.dropped - self._told, self.dropped
                log.warning("log_lines_dropped", count=count)

    def _write(self, lines: bytes) -> None:
        """Write all of it. Raw: the interpreter's own buffer has a lock that it wants to take when it ends."""
        while lines:
            try:
                lines = lines[os.write(self._descriptor, lines) :]
            except BlockingIOError:  # somebody who shares the descriptor has made it so
                select.select([], [self._descriptor], [])


class Unthreaded:
    """A log writer without a thread, for a process that forks: what finds no room at once is dropped."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.dropped = 0

    def write(self, line: str) -> None:
        """Write a line if there is room for it."""
        self.write_line(line.encode("utf-8", "backslashreplace"))

    def write_line(self, line: bytes) -> None:
        """The same of a line that is encoded."""
        _, room, _ = select.select([], [self._descriptor], [], 0)
        try:
            if not room:
                raise BlockingIOError
            # A pipe that has room has room for so much.
            os.write(self._descriptor, line[: select.PIPE_BUF])
        except OSError:
            self.dropped += 1

    def flush(self) -> None:
        """Nothing to do: lines are written as soon as they can be."""

    def close(self) -> None:
        """Nothing to do: nothing waits."""
