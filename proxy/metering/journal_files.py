"""Journal files as they lie on the disk, rotated and packed ones too, into lines, each file's content once.

A file may be there twice: under two names, as a copy, packed beside the unpacked one (`gzip -k`, or a compressor at
work), or as the beginning of one that has grown since (`copytruncate` that could not truncate). A journal's first line
names a call, and no two calls have the same name: only files that begin alike are compared, and the rest costs a line.
"""

from __future__ import annotations

import errno
import gzip
import io
import itertools
import re
import stat
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedIOBase, BufferedReader
from pathlib import Path
from typing import Final, Literal, NamedTuple

# How a journal that broke off inside its archive ends.
ARCHIVE_ERRORS: Final = (EOFError, gzip.BadGzipFile, zlib.error)
BUFFER_BYTES: Final = 1 << 16
# No line of a journal is a hundredth as long: of one that is longer the beginning is kept, and the rest passed over.
LINE_BYTES: Final = 1 << 20
Content = BufferedIOBase
# How a file begins that gzip has packed.
PACKED: Final = b"\x1f\x8b"

# What rotation puts behind a name: numbers, dates, and the packer's ending.
ROTATED: Final = r"(?:[.-][0-9]+)*(?:\.gz)?"
AT: Final = re.compile(rb'"at":"([^"]*)"')


@dataclass(frozen=True, slots=True)
class Copy:
    """A file that is not read, for what it holds is in another one.

    same: how: the same file under another name, the same content, or the other's beginning
    """

    path: Path
    original: Path
    same: Literal["is the same file as", "holds the same as", "is the beginning of"]

    def __str__(self) -> str:
        return f"{self.path}: {self.same} {self.original}, and is not counted again"


def is_whole(line: bytes) -> bool:
    """Whether a line has the end of a record: blanks behind it are none of it, which an editor may have left."""
    return line.endswith(b"}\n") or (line.endswith(b"\n") and line.rstrip().endswith(b"}"))


def is_packed(file: BufferedReader) -> bool:
    """Whether a file that is read from its beginning is of gzip, whatever its name."""
    return file.peek(len(PACKED)).startswith(PACKED)


class Piece(NamedTuple):
    """Lines of a file, and the beginning of the next one.

    end: of the lines
    """

    text: bytearray
    end: int

    def lines(self) -> list[bytes]:
        """Each of them."""
        return io.BytesIO(memoryview(self.text)[: self.end]).readlines()


def of_journal(path: Path, since_s: float) -> list[Path]:
    """A journal and what was rotated from it, as far as it was written to since a moment; raises `OSError`."""
    pattern = re.compile(re.escape(path.name) + ROTATED)
    found = [other for other in path.parent.iterdir() if pattern.fullmatch(other.name)]
    return sorted(other for other in found if other == path or other.stat().st_mtime >= since_s)


def distinct(paths: Sequence[Path]) -> tuple[list[Path], list[Copy]]:
    """The files to read, the one that begins earliest first, and those that are there twice; raises `OSError`.

    The order in which they are named does not matter.
    """
    copies: list[Copy] = []
    files: dict[tuple[int, int], Path] = {}
    for path in sorted(set(paths), key=str):
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.ESPIPE, "is no regular file, and a journal is read more than once", str(path))
        original = files.setdefault((found.st_dev, found.st_ino), path)
        if original is not path:
            copies.append(Copy(path, original, "is the same file as"))
    begin_alike: dict[bytes, list[Path]] = {}
    for path in files.values():
        _take_in(path, begin_alike.setdefault(first_line(path), []), copies)
    begins = [(first, path) for first, several in begin_alike.items() for path in several]
    ordered = sorted(begins, key=lambda begun: (found[1] if (found := AT.search(begun[0])) else b"", str(begun[1])))
    return [path for _, path in ordered], sorted(copies, key=lambda copy: str(copy.path))


@contextmanager
def opened(path: Path) -> Iterator[tuple[Content, Content]]:
    """A file as it lies on the disk, to tell how far it is read, and its unpacked content."""
    with path.open("rb") as raw:
        if path.suffix == ".gz" or is_packed(raw):
            with gzip.open(raw) as unpacked:
                yield raw, unpacked
        else:
            yield raw, raw


def blocks(content: Content, kept: int = 1) -> Iterator[Piece]:
    """The content in pieces of whole lines, the last one of a file as it is; raises `ARCHIVE_ERRORS`.

    Of a line that is none, for it is longer than `LINE_BYTES`, there is the beginning.

    kept: so many pieces are there at a time: then the first one is written over
    """
    buffers = itertools.cycle([bytearray(BUFFER_BYTES) for _ in range(kept)])
    begun = b""
    while True:
        text = next(buffers) if len(begun) * 2 < BUFFER_BYTES else bytearray(len(begun) * 2)
        text[: len(begun)] = begun
        read = content.readinto1(memoryview(text)[len(begun) :])
        if not read:
            break
        if len(begun) + read < len(text):
            text = text[: len(begun) + read]
        end = text.rfind(b"\n") + 1
        begun = bytes(memoryview(text)[end:])
        if end:
            yield Piece(text, end)
        if len(begun) > LINE_BYTES:
            begun += _behind_line(content)
    if begun:
        yield Piece(bytearray(begun), len(begun))


def _behind_line(content: Content) -> bytes:
    """Pass over the rest of a line; returns what was read from its end on, nothing at the end of a file."""
    while piece := content.read1(BUFFER_BYTES):
        if (end := piece.find(b"\n")) >= 0:
            return piece[end:]
    return b""


def _take_in(path: Path, several: list[Path], copies: list[Copy]) -> None:
    """Among files that begin alike, keep those that say something of their own."""
    for position, other in enumerate(several):
        match _compared(path, other):
            case "same":
                copies.append(Copy(path, other, "holds the same as"))
                return
            case "first ends":
                copies.append(Copy(path, other, "is the beginning of"))
                return
            case "second ends":
                copies.append(Copy(other, path, "is the beginning of"))
                several[position] = path
                return
            case "differ":
                pass
    several.append(path)


def first_line(path: Path) -> bytes:
    """What a journal is known by under any name: its first line names a call, and no two calls have the same name."""
    with opened(path) as (_, content):
        try:
            lines = iter(lambda: content.readline(LINE_BYTES), b"")
            return next((line for line in lines if line != b"\n"), b"")
        except ARCHIVE_ERRORS:
            return b""


def _compared(first: Path, second: Path) -> Literal["same", "first ends", "second ends", "differ"]:
    with opened(first) as (_, left), opened(second) as (_, right):
        for mine, its in zip(_pieces(left), _pieces(right), strict=False):
            if mine == its:
                continue
            if its.startswith(mine):
                return "first ends"
            return "second ends" if mine.startswith(its) else "differ"
    return "same"


def _pieces(content: Content) -> Iterable[bytes]:
    """The content in pieces of one size, the last one shorter, and then nothing for ever."""
    while True:
        try:
            piece = content.read(BUFFER_BYTES)
        except ARCHIVE_ERRORS:
            piece = b""
        yield piece
        if not piece:
            return
