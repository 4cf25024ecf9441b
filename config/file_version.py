"""A file that is followed -> its version, which is another one when its content may be."""

from __future__ import annotations

from pathlib import Path

# Times of its content and of its inode, the inode, the size in bytes.
Version = tuple[int, int, int, int]


def version_of(path: Path) -> Version:
    """The version of a file, links followed: a mounted Secret changes by a link. Raises `OSError`.

    Whoever writes in place and puts the old time back (`cp -p`, `rsync -t --inplace`) cannot put back the inode's.
    """
    found = path.stat()
    return found.st_mtime_ns, found.st_ctime_ns, found.st_ino, found.st_size


def version_if_there(path: Path) -> Version | None:
    """The same; None where there is no such file, or none that can be looked at."""
    try:
        return version_of(path)
    except OSError:
        return None
