"""What makes a followed file another one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from config.file_version import version_if_there, version_of


def test_a_file_that_nobody_touches_stays_the_same(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text("one")
    assert version_of(path) == version_of(path) == version_if_there(path)


def test_a_file_written_in_place_under_its_old_time_and_size_is_another(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text("one")
    before, found = version_of(path), path.stat()
    while path.stat().st_ctime_ns == found.st_ctime_ns:  # of the kernel's clock, which ticks every few milliseconds
        path.write_text("two")
        os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))
    assert path.stat().st_mtime_ns == found.st_mtime_ns
    assert version_of(path) != before


def test_a_link_that_leads_elsewhere_is_another_file(tmp_path: Path) -> None:
    """As kubelet changes a mounted Secret."""
    for name in ("old", "new"):
        (tmp_path / name).write_text("key")
    link = tmp_path / "link"
    link.symlink_to("old")
    before = version_of(link)
    (tmp_path / "next").symlink_to("new")
    (tmp_path / "next").rename(link)
    assert version_of(link) != before


def test_of_a_file_that_is_not_there_there_is_none(tmp_path: Path) -> None:
    assert version_if_there(tmp_path / "no") is None
    with pytest.raises(FileNotFoundError):
        version_of(tmp_path / "no")
