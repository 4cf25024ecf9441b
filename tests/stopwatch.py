"""How long something took, but for the time in which a process that takes part wanted a core and was given none.

A claim of "within 100 ms" is about us, not about what else runs on the machine: Linux keeps that time for each thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path


class Stopwatch:
    """Runs from when it is made, for this process and the others named; of each its first thread counts."""

    def __init__(self, *others: int) -> None:
        self._waits_s = {pid: _waits_s(pid) for pid in (os.getpid(), *others)}
        self._begun_s, self._waited_s = time.monotonic(), 0.0

    def lap_s(self, until_s: float | None = None) -> float:
        """Seconds up to now, or to a time on the monotonic clock that has just passed."""
        for pid, before_s in self._waits_s.items():
            now_s = _waits_s(pid)
            # What a process waited after it was looked at last, before it ended, nobody knows.
            self._waited_s += max(0.0, now_s - before_s)
            self._waits_s[pid] = now_s
        return max(0.0, (time.monotonic() if until_s is None else until_s) - self._begun_s - self._waited_s)

    async def ended_s(self, poll: Callable[[], int | None]) -> float:
        """Seconds until a process has ended, which this is to be called for: they are looked at all along."""
        while poll() is None:
            self.lap_s()
            await asyncio.sleep(0.02)
        return self.lap_s()


def _waits_s(pid: int) -> float:
    # Not on every kernel; a process that has ended waits for nothing.
    with contextlib.suppress(OSError):
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9
    return 0.0
