"""Claims about what the kernel counts of this process, as it is scraped."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from proxy.telemetry import process_figures


def figures() -> dict[str, float]:
    return {row.name: gauge()[()] for row, gauge in process_figures.gauges().items()}


def test_the_figures_are_those_of_this_process() -> None:
    before = figures()
    held = bytearray(64 << 20)
    held[:: 4 << 10] = b"x" * len(held[:: 4 << 10])
    with Path(os.devnull).open("rb"):
        after = figures()
    assert after["process_resident_memory_bytes"] - before["process_resident_memory_bytes"] > 48 << 20
    assert after["process_virtual_memory_bytes"] >= after["process_resident_memory_bytes"]
    assert after["process_open_fds"] == before["process_open_fds"] + 1
    assert after["process_max_fds"] >= after["process_open_fds"]
    assert time.time() - 3_600 * 24 < after["process_start_time_seconds"] <= time.time()
    assert 0 < before["process_cpu_seconds_total"] <= after["process_cpu_seconds_total"]


def test_where_the_kernel_shows_nothing_there_is_no_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_figures, "PROC", Path("/nowhere"))
    gauges = process_figures.gauges()
    assert gauges[process_figures.RESIDENT]() == {}
    assert gauges[process_figures.STARTED]() == {}
