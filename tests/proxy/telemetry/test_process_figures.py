"""Claims about what the kernel counts of this process, as it is scraped."""

from __future__ import annotations

import os
import resource
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


def test_each_figure_is_that_of_its_field(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """proc(5): 22 is the start in ticks since the boot, 23 the bytes of memory, 24 the pages held; any name may be."""
    fields = ["7", "(a ) name (of 3)", "S", *map(str, range(4, 53))]
    fields[8] = "-1"
    for file in ("self/fd/0", "self/fd/1", "self/fd/7"):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    (tmp_path / "self" / "stat").write_text(" ".join(fields))
    (tmp_path / "stat").write_text("cpu  1 2 3\nctxt 4\nbtime 1795896387\nprocesses 5\n")
    monkeypatch.setattr(process_figures, "PROC", tmp_path)
    # Its own, not its children's; the limit in force, not the one up to which it may be raised.
    monkeypatch.setattr(os, "times", lambda: (1.0, 2.0, 4.0, 8.0, 16.0))
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1_024, 4_096))
    assert figures() == {
        "process_cpu_seconds_total": 3,
        "process_resident_memory_bytes": 24 * resource.getpagesize(),
        "process_virtual_memory_bytes": 23,
        "process_start_time_seconds": 1_795_896_387 + 22 / os.sysconf("SC_CLK_TCK"),
        "process_open_fds": 3,
        "process_max_fds": 1_024,
    }


def test_where_the_kernel_shows_nothing_there_is_no_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_figures, "PROC", Path("/nowhere"))
    gauges = process_figures.gauges()
    assert gauges[process_figures.RESIDENT]() == {}
    assert gauges[process_figures.STARTED]() == {}
