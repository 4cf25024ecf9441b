"""Claims about lines that are written aside: nobody waits for their reader, and none is lost without a word."""

from __future__ import annotations

import contextlib
import os
import re
import select
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
import structlog

from proxy.telemetry import log_writer
from tests.stopwatch import Stopwatch

LINE = "x" * 99 + "\n"
# More than any pipe takes by itself.
FLOOD = 3_000
TOLD = re.compile(rb'"count": (\d+), "event": "log_lines_dropped"\}\n')


@dataclass(slots=True)
class Pipe:
    """A pipe, and those who write into it."""

    reads: int
    writes: int
    outlets: list[log_writer.LogWriter] = field(default_factory=list)

    def outlet(self) -> log_writer.LogWriter:
        """One more writer."""
        self.outlets.append(log_writer.LogWriter(self.writes))
        return self.outlets[-1]

    def read(self) -> bytes:
        """What is in it."""
        return os.read(self.reads, 1 << 16)


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    pipe = Pipe(*os.pipe())
    yield pipe
    # Nobody reads any more: whoever still writes fails at once, and must have done so before the number is used again.
    os.close(pipe.reads)
    for out in pipe.outlets:
        out.close()
    os.close(pipe.writes)


def test_lines_arrive_whole_and_in_order_and_are_out_when_it_is_closed(pipe: Pipe) -> None:
    out = pipe.outlet()
    lines = [f"{number}\n" for number in range(1_000)]
    for line in lines:
        out.write(line)
    out.close()
    assert pipe.read().decode() == "".join(lines)
    assert out.dropped == 0


def test_a_reader_who_does_not_read_costs_lines_and_no_time(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_writer, "MOST_LINES", 100)
    out = pipe.outlet()
    watch = Stopwatch()
    for _ in range(FLOOD):
        out.write(LINE)
    assert watch.lap_s() < 1
    assert 0 < out.dropped <= FLOOD - 100


def test_what_was_dropped_is_said_once_it_is_read_again(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_writer, "MOST_LINES", 100)
    out = pipe.outlet()
    structlog.configure(
        processors=[structlog.processors.JSONRenderer()],
        logger_factory=structlog.WriteLoggerFactory(file=out),  # type: ignore[arg-type]
    )
    try:
        for _ in range(FLOOD):
            out.write(LINE)
        said, told = b"", 0
        # In more than one line, where the thread that writes gets a turn in the middle of the flood.
        while said.count(LINE.encode()) + told < FLOOD:
            said += pipe.read()
            told = sum(map(int, TOLD.findall(said)))
    finally:
        structlog.reset_defaults()
    assert told == out.dropped > 0


def test_the_end_waits_for_a_reader_a_second_at_most(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_writer, "CLOSE_S", 0.1)
    out = pipe.outlet()
    for _ in range(FLOOD):
        out.write(LINE)
    watch = Stopwatch()
    out.close()
    assert watch.lap_s() < 0.5


def test_a_reader_who_is_gone_is_no_failure_of_who_writes(pipe: Pipe) -> None:
    with open(os.devnull) as nothing:
        os.dup2(nothing.fileno(), pipe.reads)
    out = pipe.outlet()
    out.write(LINE)
    out.close()
    assert out.dropped == 1


def test_a_descriptor_that_others_made_non_blocking_loses_nothing(pipe: Pipe) -> None:
    os.set_blocking(pipe.writes, False)
    out = pipe.outlet()
    for _ in range(FLOOD):
        out.write(LINE)
    said = 0
    while said < FLOOD * len(LINE):
        said += len(pipe.read())
    out.close()
    assert out.dropped == 0


def test_without_a_thread_a_line_is_written_at_once_or_dropped_and_counted(pipe: Pipe) -> None:
    """A process that forks: of a line that is longer than a pipe takes at once, its begin."""
    out = log_writer.Unthreaded(pipe.writes)
    out.write("a half \udcff\n")
    out.write_line(b"y" * (select.PIPE_BUF + 1))
    assert pipe.read() == b"a half \\udcff\n" + b"y" * select.PIPE_BUF
    assert out.dropped == 0
    os.set_blocking(pipe.writes, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(pipe.writes, b"z" * select.PIPE_BUF)
    os.set_blocking(pipe.writes, True)
    for number in (1, 2):
        out.write(LINE)
        assert out.dropped == number
    with open(os.devnull) as nothing:
        os.dup2(nothing.fileno(), pipe.reads)
    out.write(LINE)
    assert out.dropped == 3
