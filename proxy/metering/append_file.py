"""Lines into a file that several processes append to: each whole or recognisably torn, synced, rotated, found again.

One `write` per line on an `O_APPEND` descriptor: the kernel never interleaves such writes. A full disk, a lost machine
or a kill between two pages can cut one short; whoever opens the file next, or finds its own line cut, begins with a
line end. A process that does not know writes on right behind the torn piece, which the ledger recognises.
Source: SOURCES#usage-record, #fault-matrix row 67.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, Literal

Sync = Literal["never", "interval", "always"]

# How often the file is looked for at its path: another process, or logrotate, may have moved it.
LOOK_EVERY_S: Final = 1.0
# A file that is not at its path any more has no writer so long after that was seen, for others look as often.
SETTLED_S: Final = 2 * LOOK_EVERY_S
# So many files wait to be sealed; of a disk that is slower than they come, the rest is not.
UNSEALED: Final = 16
# A disk with less room than this is full to us: some hundred lines, so that open calls can still be closed.
ROOM_BYTES: Final = 64 << 10
MODE: Final = 0o640
# The name that means standard output, and its descriptor.
DASH: Final = Path("-")
STDOUT: Final = 1


class StandardOutput:
    """Lines to whoever reads our standard output, a container's log as a rule; what comes of them is theirs to know.

    A line is one `write`, shorter than a pipe takes whole (PIPE_BUF), so lines of several processes never mix.
    """

    def append(self, line: bytes) -> None:
        """Write one line, its end included; raises `OSError` where it cannot be written whole."""
        if os.write(STDOUT, line) < len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def writable(self) -> bool:
        """Whether there is an output at all; whether somebody reads it shows with the next line."""
        try:
            os.fstat(STDOUT)
        except OSError:
            return False
        return True

    def sync(self) -> None:
        """Nothing is held back."""

    def seal(self, make: Callable[[int], bytes]) -> None:
        """What becomes of the lines is known to whoever reads them."""

    def close(self) -> None:
        """It is not ours to close."""


class LineFile:
    """A file that is only ever appended to.

    max_bytes: size at which it is renamed to `NAME.1`, the next time to `NAME.2` …; no file is renamed twice, none is
               deleted; None: never. Looked at once a second, so a file may grow somewhat beyond it
    sync:      when lines are forced to the disk: by whoever calls `sync` in the background, or with every line
    clock:     seconds, monotonic
    """

    def __init__(
        self, path: Path, *, max_bytes: int | None, sync: Sync, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._policy = sync
        self._clock = clock
        self._descriptor: int | None = None
        self._look_s = 0.0
        self._failed_s: float | None = None
        self._torn = False
        self._dirty = False
        self._retired: list[int] = []
        self._unsealed: list[tuple[float, int]] = []
        self._syncing = threading.Lock()

    def append(self, line: bytes) -> None:
        """Write one line, its end included; raises `OSError` where it cannot be written whole."""
        try:
            descriptor = self._current()
            text = b"\n" + line if self._torn else line
            written = os.write(descriptor, text)
            self._torn = written < len(text)
            if self._torn:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self._dirty = True
            if self._policy == "always":
                os.fdatasync(descriptor)
        except OSError:
            self._failed_s = self._clock()
            raise
        self._failed_s = None

    def writable(self) -> bool:
        """Whether the next line can be expected to be written; writes nothing."""
        if self._failed_s is not None and self._clock() < self._failed_s + LOOK_EVERY_S:
            return False
        try:
            disk = os.fstatvfs(self._current())
        except OSError:
            return False
        return os.access(self._path, os.W_OK) and disk.f_bavail * disk.f_frsize >= ROOM_BYTES

    def sync(self) -> None:
        """Force what is written to the disk, unless that is never done; may run in a thread. Raises `OSError`."""
        with self._syncing:
            while self._retired:
                descriptor = self._retired.pop()
                try:
                    self._force(descriptor)
                finally:
                    os.close(descriptor)
            if self._dirty and self._descriptor is not None:
                self._dirty = False
                self._force(self._descriptor)

    def seal(self, make: Callable[[int], bytes]) -> None:
        """Write a line about each file that was left for a new one, which this process made; in a thread of its own.

        make: the line, its end included, of the file behind a descriptor. Raises `OSError`
        """
        while self._unsealed and self._clock() >= self._unsealed[0][0] + SETTLED_S:
            _, descriptor = self._unsealed.pop(0)
            try:
                line = make(descriptor)
            finally:
                os.close(descriptor)
            if self._descriptor is not None and os.write(self._descriptor, line) < len(line):
                self._torn = True

    def close(self) -> None:
        """Sync a last time and close; raises `OSError`."""
        if self._descriptor is not None:
            self._retired.append(self._descriptor)
            self._descriptor = None
        while self._unsealed:
            os.close(self._unsealed.pop()[1])
        self.sync()

    def _current(self) -> int:
        """The descriptor to write to: that of the file which is at the path now, as far as a second ago."""
        now_s = self._clock()
        if self._descriptor is not None and now_s < self._look_s:
            return self._descriptor
        if self._descriptor is None or not self._stands(self._descriptor):
            self._descriptor = self._reopened()
        elif self._max_bytes is not None and os.fstat(self._descriptor).st_size >= self._max_bytes:
            self._rotate(self._descriptor)
        self._look_s = now_s + LOOK_EVERY_S
        return self._descriptor

    def _stands(self, descriptor: int) -> bool:
        try:
            there = os.stat(self._path)
        except FileNotFoundError:
            return False
        return os.path.samestat(os.fstat(descriptor), there)

    def _reopened(self) -> int:
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        try:
            descriptor = os.open(self._path, flags | os.O_EXCL, MODE)
        except FileExistsError:
            descriptor = os.open(self._path, flags, MODE)
        else:
            # Of several processes one makes the new file, and that one seals the former.
            if self._descriptor is not None and len(self._unsealed) < UNSEALED:
                self._unsealed.append((self._clock(), os.dup(self._descriptor)))
        if self._descriptor is not None:
            # Closed by `sync`, when its last lines are on the disk; a thread may be at it just now.
            self._retired.append(self._descriptor)
        size = os.fstat(descriptor).st_size
        self._torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
        return descriptor

    def _rotate(self, descriptor: int) -> None:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return  # another process is at it: its new file is seen in a second
        try:
            if self._stands(descriptor):
                self._path.rename(self._rotated_name())
            self._descriptor = self._reopened()
        finally:
            fcntl.flock(descriptor, fcntl.LOCK_UN)

    def _rotated_name(self) -> Path:
        names = (
            re.fullmatch(re.escape(self._path.name) + r"\.(\d+)(\.\w+)?", name)
            for name in os.listdir(self._path.parent)
        )
        last = max((int(name[1]) for name in names if name), default=0)
        return self._path.with_name(f"{self._path.name}.{last + 1}")

    def _force(self, descriptor: int) -> None:
        if self._policy != "never":
            os.fdatasync(descriptor)
