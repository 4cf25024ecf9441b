"""What the kernel counts of this process, under the names every Prometheus client uses: memory, files, start, CPU.

Read from `/proc` when it is asked for; where there is none, as on macOS, the rows have no value.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from proxy.telemetry.series import Labels, MetricRow

CPU: Final = MetricRow("process_cpu_seconds_total", "counter", "CPU time of the process, in seconds.")
RESIDENT: Final = MetricRow("process_resident_memory_bytes", "gauge", "Memory the process holds.")
VIRTUAL: Final = MetricRow("process_virtual_memory_bytes", "gauge", "Memory the process could touch.")
STARTED: Final = MetricRow(
    "process_start_time_seconds", "gauge", "When the process started; of several, the first.", across=min
)
OPEN_FILES: Final = MetricRow(
    "process_open_fds", "gauge", "Open files, connections among them; of several, the most.", across=max
)
MOST_FILES: Final = MetricRow("process_max_fds", "gauge", "Most files it may open; of several, the fewest.", across=min)

PROC: Final = Path("/proc")
# Fields of /proc/PID/stat behind the name in brackets, which may hold anything (proc(5)).
_START, _VSIZE, _RSS = 19, 20, 21


def _stat(field: int) -> int:
    return int((PROC / "self" / "stat").read_text("ascii", "replace").rpartition(")")[2].split()[field])


def _booted_s() -> int:
    lines = (PROC / "stat").read_text("ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("btime "))


FIGURES: Final[Mapping[MetricRow, Callable[[], float]]] = {
    CPU: lambda: sum(os.times()[:2]),
    RESIDENT: lambda: _stat(_RSS) * os.sysconf("SC_PAGE_SIZE"),
    VIRTUAL: lambda: _stat(_VSIZE),
    STARTED: lambda: _booted_s() + _stat(_START) / os.sysconf("SC_CLK_TCK"),
    OPEN_FILES: lambda: len(os.listdir(PROC / "self" / "fd")),
    MOST_FILES: lambda: resource.getrlimit(resource.RLIMIT_NOFILE)[0],
}
ROWS: Final = (*FIGURES,)


def gauges() -> Mapping[MetricRow, Callable[[], Mapping[Labels, float]]]:
    """Each row, and the function that reads its value; none where there is no `/proc`."""
    return {row: _gauge(figure) for row, figure in FIGURES.items()}


def _gauge(figure: Callable[[], float]) -> Callable[[], Mapping[Labels, float]]:
    def read() -> Mapping[Labels, float]:
        try:
            return {(): figure()}
        except OSError:
            return {}

    return read
