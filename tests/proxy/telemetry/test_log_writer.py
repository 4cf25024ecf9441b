"""Claims about lines that are written aside: nobody waits for their reader, and none is lost without a word."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import select
import sys
import termios
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

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


class Gathering:
    """The pause in which lines are gathered, as long as the test wants it; and what is said of lost lines.

    begun: how many pauses there were
    told:  how many lines the pipe held, and of how many was said that they were lost, whenever that was said
    meanwhile: what happens while it is said, the first time
    """

    def __init__(self, pipe: Pipe, patch: pytest.MonkeyPatch) -> None:
        self._pipe = pipe
        self._news = threading.Condition()
        self._ended = False
        self.begun = 0
        self.told: list[tuple[int, int]] = []
        self.meanwhile: Callable[[], object] | None = None
        patch.setattr(log_writer, "time", SimpleNamespace(sleep=self._pause))
        structlog.configure(processors=[self._tell])

    def _pause(self, _: float) -> None:
        with self._news:
            self.begun += 1
            self._news.notify_all()
            assert self._news.wait_for(lambda: self._ended, 20)

    def _tell(self, _: object, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        held = fcntl.ioctl(self._pipe.reads, termios.FIONREAD, bytes(4))
        self.told.append((int.from_bytes(held, sys.byteorder) // len(LINE), event["count"]))
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile is not None:
            meanwhile()
        raise structlog.DropEvent

    def begins(self, number: int, within_s: float = 20) -> bool:
        """Whether the pause of that number begins, from 1."""
        with self._news:
            return self._news.wait_for(lambda: self.begun >= number, within_s)

    def end(self) -> None:
        """Let the thread write what was gathered, and is gathered from now on."""
        with self._news:
            self._ended = True
            self._news.notify_all()


@pytest.fixture
def gathering(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gathering]:
    monkeypatch.setattr(log_writer, "MOST_LINES", 100)
    monkeypatch.setattr(log_writer, "BATCH_LINES", 10)
    monkeypatch.setattr(log_writer, "CLOSE_S", 20)
    yield Gathering(pipe, monkeypatch)
    structlog.reset_defaults()


def test_the_thread_is_woken_once_for_all_lines_that_are_gathered(
    pipe: Pipe, gathering: Gathering, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And sleeps as long as there is none; with the end it is gone."""
    others, woken = writers(), []

    class Noted(threading.Event):
        def set(self) -> None:
            woken.append(True)
            super().set()

    monkeypatch.setattr(log_writer, "threading", SimpleNamespace(Event=Noted, Thread=threading.Thread))
    out = pipe.outlet()
    for number in (1, 2):
        assert not gathering.begins(number, within_s=0.05)
        for _ in range(30):
            out.write(LINE)
        assert gathering.begins(number)
        assert number > 1 or len(woken) == 1
        gathering.end()
        arrived = 0
        while arrived < 30:
            arrived += pipe.read().count(b"\n")
    out.close()
    assert (out.dropped, gathering.told) == (0, [])
    assert not {*writers()} - {*others}


def test_what_was_lost_is_said_once_more_than_half_of_the_room_is_free_again(pipe: Pipe, gathering: Gathering) -> None:
    """Of a hundred that wait sixty are out by then; what is lost meanwhile is said the next time."""
    out = pipe.outlet()
    out.write(LINE)
    assert gathering.begins(1)
    for _ in range(150):
        out.write(LINE)
    gathering.meanwhile = lambda: [out.write(LINE) for _ in range(61)]
    gathering.end()
    out.close()
    assert gathering.told == [(60, 51), (120, 1)]
    assert (out.dropped, pipe.read().count(b"\n")) == (52, 160)


def writers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "log writer"]


def test_its_thread_keeps_no_process_from_leaving(pipe: Pipe) -> None:
    """A write that nobody reads never ends."""
    pipe.outlet()
    assert all(thread.daemon for thread in writers())
    assert writers()


def test_all_lines_that_nobody_can_read_are_counted(pipe: Pipe, gathering: Gathering) -> None:
    with open(os.devnull) as nothing:
        os.dup2(nothing.fileno(), pipe.reads)
    out = pipe.outlet()
    for _ in range(35):
        out.write(LINE)
    assert gathering.begins(1)
    gathering.end()
    out.close()
    assert out.dropped == 35


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


def test_a_descriptor_that_others_made_non_blocking_loses_nothing(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    waits = threading.Event()

    def wait(*given: Any) -> Any:
        waits.set()
        return select.select(*given)

    monkeypatch.setattr(log_writer, "select", SimpleNamespace(select=wait))
    os.set_blocking(pipe.writes, False)
    out = pipe.outlet()
    for _ in range(FLOOD):
        out.write(LINE)
    # It does not try again and again meanwhile.
    assert waits.wait(20)
    said = 0
    while said < FLOOD * len(LINE):
        said += len(pipe.read())
    out.close()
    assert out.dropped == 0


def test_without_a_thread_a_line_is_written_at_once_or_dropped_and_counted(
    pipe: Pipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that forks: of a line that is longer than a pipe takes at once, its begin. It waits for nobody."""
    waited_s = set()

    def wait(reads: Any, writes: Any, others: Any, most_s: float) -> Any:
        waited_s.add(most_s)
        return select.select(reads, writes, others, most_s)

    monkeypatch.setattr(log_writer, "select", SimpleNamespace(select=wait, PIPE_BUF=select.PIPE_BUF))
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
    assert waited_s == {0}
