"""How long something took, but for the time in which a process that takes part wanted a core and was given none.

A claim of "within 100 ms" is about us, not about what else runs on the machine: Linux keeps that time for each thread.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path


class Stopwatch:
    """Runs from when it is made, for this process and the others named; of each its first thread counts."""

    def __init__(self, *others: int) -> None:
        self._pids = (os.getpid(), *others)
        self._begun_s, self._begun_waits_s = time.monotonic(), self._waits_s()

    def lap_s(self, until_s: float | None = None) -> float:
        """Seconds up to now, or to a time on the monotonic clock that has just passed."""
        passed_s = (time.monotonic() if until_s is None else until_s) - self._begun_s
        return max(0.0, passed_s - (self._waits_s() - self._begun_waits_s))

    def _waits_s(self) -> float:
        waits_ns = 0
        for pid in self._pids:
            # Not on every kernel; a process that has ended waits for nothing.
            with contextlib.suppress(OSError):
                waits_ns += int(Path(f"/proc/{pid}/schedstat").read_text().split()[1])
        return waits_ns / 1e9
