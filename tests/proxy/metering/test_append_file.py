"""Claims about the file under the journal: no line is lost, torn unseen or mixed with another, whoever else writes."""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from proxy.metering import append_file

LINE = b'{"ev":"x"}\n'

# One of several writers: its own clock runs fast, so that it looks for the file, and rotates it, all the time.
WRITER = """
import itertools, sys, pathlib
from proxy.metering import append_file
name, count, path = sys.argv[1], int(sys.argv[2]), pathlib.Path(sys.argv[3])
file = append_file.LineFile(path, max_bytes=4096, sync="never", clock=itertools.count().__next__)
for number in range(count):
    file.append(b"%s %d %s\\n" % (name.encode(), number, b"x" * (number % 700)))
file.close()
"""


class Clock:
    """Seconds, as the test says."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "usage.jsonl"


def opened(
    path: Path, clock: Clock, *, max_bytes: int | None = None, sync: append_file.Sync = "never"
) -> append_file.LineFile:
    return append_file.LineFile(path, max_bytes=max_bytes, sync=sync, clock=clock)


@contextmanager
def a_disk_that_ends_at(size: int) -> Iterator[None]:
    """No file of this process may grow beyond so many bytes: the write that reaches them is cut short."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


# Writing


def test_lines_follow_what_is_there(path: Path, clock: Clock) -> None:
    path.write_bytes(LINE)
    file = opened(path, clock)
    file.append(LINE)
    file.close()
    assert path.read_bytes() == LINE * 2


def test_a_line_after_a_torn_one_begins_on_a_line_of_its_own(path: Path, clock: Clock) -> None:
    """MET-2."""
    path.write_bytes(LINE + LINE[:4])
    file = opened(path, clock)
    file.append(LINE)
    file.close()
    assert path.read_bytes() == LINE + LINE[:4] + b"\n" + LINE


def test_a_line_after_a_single_byte_begins_on_a_line_of_its_own(path: Path, clock: Clock) -> None:
    path.write_bytes(LINE[:1])
    file = opened(path, clock)
    file.append(LINE)
    file.close()
    assert path.read_bytes() == LINE[:1] + b"\n" + LINE


def test_a_disk_that_fills_in_the_middle_of_a_line_is_told_and_the_next_line_is_whole(path: Path, clock: Clock) -> None:
    """Row 67."""
    file = opened(path, clock)
    file.append(LINE)
    with a_disk_that_ends_at(len(LINE) + 3):
        with pytest.raises(OSError, match="No space"):
            file.append(LINE)
        with pytest.raises(OSError, match="too large"):
            file.append(LINE)
    file.append(LINE)
    file.close()
    assert path.read_bytes() == LINE + LINE[:3] + b"\n" + LINE


def test_writers_in_four_processes_lose_and_mix_nothing_while_they_rotate(path: Path, clock: Clock) -> None:
    """SOURCES#usage-record: one write per line, safe for several processes; rotation safe with several writers."""
    count = 1_500
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, name, str(count), str(path)], cwd=Path(__file__).parents[3])
        for name in "abcd"
    ]
    assert [writer.wait(60) for writer in writers] == [0] * 4
    files = sorted(path.parent.iterdir())
    assert len(files) > 20
    lines = sorted(line for file in files for line in file.read_text().splitlines())
    wanted = sorted(f"{name} {number} {'x' * (number % 700)}" for name in "abcd" for number in range(count))
    # A writer that finds the last byte of another's line not yet there begins a new line, which leaves an empty one.
    assert [line for line in lines if line] == wanted


# Rotation


def test_a_file_that_is_large_enough_gets_the_next_number_and_none_is_overwritten(path: Path, clock: Clock) -> None:
    (path.parent / "usage.jsonl.7.gz").write_bytes(b"old")
    (path.parent / "usage.jsonl.other").write_bytes(b"other")
    file = opened(path, clock, max_bytes=len(LINE))
    for _ in range(3):
        file.append(LINE)
        clock.now_s += append_file.LOOK_EVERY_S
    file.close()
    assert sorted(found.name for found in path.parent.iterdir()) == [
        *("usage.jsonl", "usage.jsonl.7.gz", "usage.jsonl.8", "usage.jsonl.9", "usage.jsonl.other")
    ]
    assert (path.parent / "usage.jsonl.8").read_bytes() == LINE


def test_the_file_is_looked_at_once_a_second(path: Path, clock: Clock) -> None:
    file = opened(path, clock, max_bytes=1)
    for _ in range(5):
        file.append(LINE)
    file.close()
    assert path.read_bytes() == LINE * 5


def test_a_file_that_is_small_enough_stays(path: Path, clock: Clock) -> None:
    file = opened(path, clock, max_bytes=1_000)
    for _ in range(2):
        file.append(LINE)
        clock.now_s += append_file.LOOK_EVERY_S
    file.close()
    assert path.read_bytes() == LINE * 2


def test_a_file_that_logrotate_has_taken_is_made_anew(path: Path, clock: Clock) -> None:
    file = opened(path, clock)
    file.append(LINE)
    path.rename(path.with_suffix(".gone"))
    file.append(LINE)
    clock.now_s += append_file.LOOK_EVERY_S
    file.append(LINE)
    file.close()
    assert (path.with_suffix(".gone").read_bytes(), path.read_bytes()) == (LINE * 2, LINE)


def test_a_file_that_another_process_has_put_in_place_is_found(path: Path, clock: Clock) -> None:
    file = opened(path, clock)
    file.append(LINE)
    path.rename(path.with_suffix(".gone"))
    path.write_bytes(b"theirs\n")
    clock.now_s += append_file.LOOK_EVERY_S
    file.append(LINE)
    file.close()
    assert path.read_bytes() == b"theirs\n" + LINE


def test_two_writers_who_both_find_the_file_too_large_rotate_it_once(path: Path, clock: Clock) -> None:
    first, second = (opened(path, clock, max_bytes=1) for _ in range(2))
    for file in (first, second, first, second):
        file.append(LINE)
    clock.now_s += append_file.LOOK_EVERY_S
    for file in (first, second):
        file.append(LINE)
    assert sorted(found.name for found in path.parent.iterdir()) == ["usage.jsonl", "usage.jsonl.1"]
    # Nobody holds the lock of the one that was rotated away.
    with path.with_name("usage.jsonl.1").open() as rotated:
        fcntl.flock(rotated, fcntl.LOCK_EX | fcntl.LOCK_NB)
    for file in (first, second):
        file.close()


def test_a_writer_leaves_the_file_to_another_who_is_rotating_it(
    path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = opened(path, clock, max_bytes=1)
    file.append(LINE)
    clock.now_s += append_file.LOOK_EVERY_S

    def busy(*_: object) -> None:
        raise BlockingIOError

    monkeypatch.setattr("fcntl.flock", busy)
    file.append(LINE)
    file.close()
    assert path.read_bytes() == LINE * 2


def test_a_file_rotated_under_the_lock_by_another_is_not_renamed_again(
    path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = opened(path, clock, max_bytes=1)
    file.append(LINE)
    clock.now_s += append_file.LOOK_EVERY_S

    def locked_too_late(_: int, operation: int) -> None:
        if operation & fcntl.LOCK_EX:
            path.rename(path.with_name("taken"))

    monkeypatch.setattr("fcntl.flock", locked_too_late)
    file.append(LINE)
    monkeypatch.undo()
    file.close()
    assert sorted(found.name for found in path.parent.iterdir()) == ["taken", "usage.jsonl"]


# Being able to


def test_a_full_disk_is_not_writable_for_the_next_second(clock: Clock) -> None:
    """OPS-1, row 67; the device is full at every write."""
    file = opened(Path("/dev/full"), clock)
    with pytest.raises(OSError, match="No space") as refused:
        file.append(LINE)
    assert refused.value.errno == errno.ENOSPC
    assert not file.writable()
    file.close()


def test_too_little_room_is_not_writable(path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    file = opened(path, clock)
    assert file.writable()

    class Nearly:
        f_frsize = 4096

        def __init__(self, blocks: int) -> None:
            self.f_bavail = blocks

    enough = append_file.ROOM_BYTES // Nearly.f_frsize
    for blocks in (enough, enough - 1):
        monkeypatch.setattr(os, "fstatvfs", lambda _, blocks=blocks: Nearly(blocks))
        assert file.writable() is (blocks == enough)
    file.close()


def test_a_directory_that_is_gone_is_not_writable_until_it_is_back(path: Path, clock: Clock) -> None:
    home = path.parent / "journal"
    home.mkdir()
    file = opened(home / path.name, clock)
    file.append(LINE)
    (home / path.name).unlink()
    home.rmdir()
    clock.now_s += append_file.LOOK_EVERY_S
    assert not file.writable()
    with pytest.raises(FileNotFoundError):
        file.append(LINE)
    home.mkdir()
    assert not file.writable()
    clock.now_s += append_file.LOOK_EVERY_S
    assert file.writable()
    file.append(LINE)
    file.close()
    assert (home / path.name).read_bytes() == LINE


# Forcing to the disk


@pytest.mark.parametrize(("sync", "forced_after"), [("never", (0, 0)), ("interval", (0, 1)), ("always", (1, 2))])
def test_lines_are_forced_to_the_disk_as_the_policy_says(
    sync: append_file.Sync, forced_after: tuple[int, int], path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    forced: list[int] = []
    monkeypatch.setattr(os, "fdatasync", forced.append)
    file = opened(path, clock, sync=sync)
    file.append(LINE)
    after_line = len(forced)
    file.sync()
    file.sync()
    assert (after_line, len(forced)) == forced_after
    file.close()


def test_a_file_that_was_rotated_away_is_forced_too(path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    forced: list[int] = []
    monkeypatch.setattr(os, "fdatasync", forced.append)
    file = opened(path, clock, max_bytes=1, sync="interval")
    file.append(LINE)
    clock.now_s += append_file.LOOK_EVERY_S
    file.append(LINE)
    file.sync()
    assert len(set(forced)) == 2
    file.close()


def test_nothing_stays_open(path: Path, clock: Clock) -> None:
    before = os.listdir("/proc/self/fd")
    file = opened(path, clock, max_bytes=1, sync="interval")
    for number in range(5):
        file.append(LINE)
        clock.now_s += append_file.SETTLED_S
        if number == 3:
            file.seal(lambda _: LINE)
    file.close()
    file.close()
    assert os.listdir("/proc/self/fd") == before


# Sealing


def test_so_many_files_wait_to_be_sealed_and_no_more(path: Path, clock: Clock) -> None:
    file = opened(path, clock, max_bytes=1)
    for _ in range(append_file.UNSEALED + 3):
        file.append(LINE)
        clock.now_s += append_file.LOOK_EVERY_S
    clock.now_s += append_file.SETTLED_S
    sealed: list[int] = []
    file.seal(lambda descriptor: sealed.append(os.fstat(descriptor).st_ino) or LINE)
    file.close()
    assert sealed == [
        path.with_name(f"usage.jsonl.{1 + number}").stat().st_ino for number in range(append_file.UNSEALED)
    ]


def test_a_line_after_a_torn_seal_begins_on_a_line_of_its_own(path: Path, clock: Clock) -> None:
    file = opened(path, clock)
    file.append(LINE)
    path.rename(path.with_suffix(".gone"))
    clock.now_s += append_file.LOOK_EVERY_S
    file.append(LINE)
    clock.now_s += append_file.SETTLED_S - append_file.LOOK_EVERY_S / 2
    file.append(LINE)
    clock.now_s += append_file.LOOK_EVERY_S / 2
    with a_disk_that_ends_at(2 * len(LINE) + 3):
        file.seal(lambda _: LINE)
    file.append(LINE)
    file.close()
    assert path.read_bytes() == LINE * 2 + LINE[:3] + b"\n" + LINE


# Standard output


def test_what_standard_output_does_not_take_whole_is_told(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = append_file.StandardOutput()
    with path.open("wb", buffering=0) as file:
        monkeypatch.setattr(append_file, "STDOUT", file.fileno())
        assert output.writable()
        output.append(LINE)
        with a_disk_that_ends_at(len(LINE) + 3), pytest.raises(OSError, match="No space"):
            output.append(LINE)
    assert not output.writable()
    assert path.read_bytes() == LINE + LINE[:3]
