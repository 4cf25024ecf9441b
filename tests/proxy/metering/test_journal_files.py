"""Claims about files that are there twice: which one is read, which are named, and what is no copy."""

from __future__ import annotations

import gzip
import os
import random
from pathlib import Path

import pytest

from proxy.metering import journal_files
from tests.proxy.metering.records import closed, line, opened, write

LINES = [line(record | {"salt": number}) for number in range(2_000) for record in (opened(f"a-{number:x}"),)]
WHOLE = b"".join(LINES)


def put(path: Path, content: bytes) -> Path:
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("end", [len(LINES[0]), 300_000, len(WHOLE) - 10])
def test_the_beginning_of_a_file_that_has_grown_is_a_copy(tmp_path: Path, suffix: str, end: int) -> None:
    """Of whatever length, and packed or not: what copytruncate leaves that could not truncate."""
    for first, second in (("a", "b"), ("b", "a")):
        grown, copy = put(tmp_path / first, WHOLE), put(tmp_path / f"{second}{suffix}", WHOLE[:end])
        files, copies = journal_files.distinct([copy, grown])
        assert files == [grown]
        assert [str(copied) for copied in copies] == [f"{copy}: is the beginning of {grown}, and is not counted again"]
        copy.unlink()


def test_files_that_begin_alike_and_go_on_differently_are_both_read(tmp_path: Path) -> None:
    first = put(tmp_path / "a", WHOLE)
    second = put(tmp_path / "b", WHOLE[:-500] + line(closed("b-1")))
    assert journal_files.distinct([second, first]) == ([first, second], [])


def test_the_file_that_begins_earliest_comes_first_whatever_its_name(tmp_path: Path) -> None:
    names = ["c", "a", "b.gz"]
    files = [
        put(tmp_path / name, line(opened(f"a-{day}", at=f"2026-11-{day:02}T00:00:00.000Z")))
        for day, name in enumerate(names, 1)
    ]
    empty = put(tmp_path / "empty", b"")
    for seed in range(5):
        random.Random(seed).shuffle(shuffled := [*files, empty, *files])
        assert journal_files.distinct(shuffled) == ([empty, *files], [])


def test_links_are_the_same_file(tmp_path: Path) -> None:
    path = write(tmp_path / "a", opened("a-1"))
    (tmp_path / "b").hardlink_to(path)
    (tmp_path / "c").symlink_to(path)
    files, copies = journal_files.distinct([tmp_path / name for name in "cba"])
    assert files == [path]
    assert [(copy.path.name, copy.same) for copy in copies] == [
        ("b", "is the same file as"),
        ("c", "is the same file as"),
    ]


def test_three_copies_of_growing_length_are_one_file(tmp_path: Path) -> None:
    files = [put(tmp_path / f"{number}", WHOLE[: 1_000 * number]) for number in (1, 2, 3)]
    kept, copies = journal_files.distinct(files)
    assert kept == files[2:]
    assert [copy.path for copy in copies] == files[:2]


def test_what_is_no_archive_is_left_to_the_reader(tmp_path: Path) -> None:
    (tmp_path / "a.gz").write_bytes(b"no archive")
    assert journal_files.distinct([tmp_path / "a.gz"]) == ([tmp_path / "a.gz"], [])
    packed = gzip.compress(WHOLE)
    (tmp_path / "b.gz").write_bytes(packed[: len(packed) // 2])
    whole = put(tmp_path / "b", WHOLE)
    files, copies = journal_files.distinct([tmp_path / "b.gz", whole])
    assert (files, len(copies)) == ([whole], 1)


def test_a_packed_file_is_known_by_how_it_begins_too(tmp_path: Path) -> None:
    path = put(tmp_path / "b.gz", WHOLE).rename(tmp_path / "usage.jsonl.1")
    with journal_files.opened(path) as (_, content):
        assert content.read() == WHOLE


def test_what_can_be_read_but_once_is_no_journal(tmp_path: Path) -> None:
    os.mkfifo(pipe := tmp_path / "pipe")
    for path in (pipe, Path("/dev/null"), tmp_path):
        with pytest.raises(OSError, match="no regular file, and a journal is read more than once"):
            journal_files.distinct([path])
