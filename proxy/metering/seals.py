"""A journal file that is not written to any more into one line of the next: its sums and its digest, a chain of files.

    {"ev":"seal","at":…,"begins":…,"begins_at":…,"bytes":…,"lines":…,"opened":…,"ended":…,"input":…,…,"sha256":…}

A file's digest covers the seal of the one before it, so what is altered in one shows in the next, and what is missing
between two is named with its sums. Whoever can write all files can seal them anew: who must be proof against that keeps
the newest seal elsewhere (it is in the log, `journal_sealed`). Source: spec MET-6.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

import orjson

from proxy.metering import journal_files

Json = dict[str, Any]

# A file is read in such pieces with such pauses between: a few hundredths of a core, beside calls.
PIECE_BYTES: Final = 1 << 16
PAUSE_S: Final = 0.004
FIGURES: Final = re.compile(rb'"(usage|generated)":\{"input_tokens":(\d{1,15}),"output_tokens":(\d{1,15})')
DIGITS: Final = 32


class Sums(NamedTuple):
    """What is in a file, as far as it goes.

    bytes:  of it
    lines:  line ends
    opened: lines of calls that began
    ended:  lines of calls that ended
    input, output: tokens as delivered
    generated_input, generated_output: tokens as generated
    sha256: of the bytes
    """

    bytes: int
    lines: int
    opened: int
    ended: int
    input: int
    output: int
    generated_input: int
    generated_output: int
    sha256: str


def seal(descriptor: int, pause: Callable[[float], object] = time.sleep) -> bytes:
    """The line about a file that nobody writes to any more; raises `OSError`."""
    size = os.fstat(descriptor).st_size
    pieces = _pieces(descriptor, size, pause)
    summed = sums(pieces)
    first = os.pread(descriptor, journal_files.BUFFER_BYTES, 0).lstrip(b"\n").partition(b"\n")
    line = b"".join(first[:2])
    said = {"ev": "seal", "at": _now(), "begins": name_of(line), "begins_at": begins_at(line), **summed._asdict()}
    return orjson.dumps(said) + b"\n"


def sums(pieces: Iterator[bytes]) -> Sums:
    """The sums of what stands in a file."""
    digest = hashlib.sha256()
    size = lines = opened = ended = 0
    tokens = {b"usage": [0, 0], b"generated": [0, 0]}
    begun = b""
    for piece in pieces:
        digest.update(piece)
        size += len(piece)
        # What is no line of a journal has no figures either.
        whole, end, begun = (begun[: journal_files.LINE_BYTES] + piece).rpartition(b"\n")
        block = whole + end
        lines += block.count(b"\n")
        opened += block.count(b'{"ev":"open"')
        ended += block.count(b'{"ev":"close"')
        for side, given, generated in FIGURES.findall(block):
            tokens[side][0] += int(given)
            tokens[side][1] += int(generated)
    (given, answered), (read, made) = tokens[b"usage"], tokens[b"generated"]
    return Sums(size, lines, opened, ended, given, answered, read, made, digest.hexdigest())


def name_of(first_line: bytes) -> str:
    """What a file is called in a seal, whatever its name is by now."""
    return hashlib.sha256(first_line).hexdigest()[:DIGITS]


def begins_at(first_line: bytes) -> str:
    """The moment in a file's first line; empty where it has none."""
    found = journal_files.AT.search(first_line)
    return found[1].decode("ascii", "replace") if found else ""


@dataclass(frozen=True, slots=True)
class Found:
    """A seal in a journal.

    path, line: where it stands
    said:       what it says
    """

    path: Path
    line: int
    said: Json


class Breach(NamedTuple):
    """A file that is not what its seal says."""

    path: Path
    line: int
    text: str


def check(found: Sequence[Found], files: Sequence[Path]) -> list[Breach]:
    """Hold files, the one that begins earliest first, against the seals that stand in them; raises `OSError`.

    That what comes before the earliest of them is not here is no breach (`earlier`): a part of a journal can be true.
    """
    here, earliest = _here(files)
    breaches = []
    for one in found:
        path = here.get(str(one.said["begins"]))
        if path is not None:
            text = _altered(path, one.said)
        else:
            text = _missing(one.said) if one.said["begins_at"] > earliest else None
        if text is not None:
            breaches.append(Breach(one.path, one.line, text))
    return breaches


def earlier(found: Sequence[Found], files: Sequence[Path]) -> list[str]:
    """The files that are sealed in these, begin before all of them and are not here, a sentence each."""
    here, earliest = _here(files)
    return [
        f"{one.path}:{one.line}: earlier: {_missing(one.said)}"
        for one in found
        if str(one.said["begins"]) not in here and one.said["begins_at"] <= earliest
    ]


def _here(files: Sequence[Path]) -> tuple[dict[str, Path], str]:
    """Files by what seals call them, and the moment at which the first one begins; raises `OSError`."""
    here = {name_of(journal_files.first_line(path)): path for path in files}
    return here, begins_at(journal_files.first_line(files[0])) if files else ""


def _missing(said: Json) -> str:
    # It need not be the one before: where files turn faster than they are sealed, a seal stands one or two further on.
    return (
        f"the file that begins at {said['begins_at']} is not here, or its first line is another: "
        f"{said['ended']} calls, {said['input']} + {said['output']} tokens delivered, "
        f"{said['generated_input']} + {said['generated_output']} generated"
    )


def _altered(path: Path, said: Json) -> str | None:
    with journal_files.opened(path) as (_, content):
        left = int(said["bytes"])

        def sealed() -> Iterator[bytes]:
            nonlocal left
            while left and (piece := content.read(min(left, journal_files.BUFFER_BYTES))):
                left -= len(piece)
                yield piece

        try:
            summed = sums(sealed())
            grown = content.read(1)
        except journal_files.ARCHIVE_ERRORS:
            return f"{path} breaks off, and was whole when it was sealed"
    if left:
        return f"{path} is {left} bytes shorter than when it was sealed"
    if summed.sha256 != said["sha256"]:
        changes = [
            f"{name} {said[name]} -> {value}"
            for name, value in summed._asdict().items()
            if name != "sha256" and value != said[name]
        ]
        return f"{path} is not what was sealed: {', '.join(changes) or 'the same sums of other lines'}"
    return f"{path} has grown since it was sealed" if grown else None


def _pieces(descriptor: int, size: int, pause: Callable[[float], object]) -> Iterator[bytes]:
    position = 0
    while position < size and (piece := os.pread(descriptor, min(PIECE_BYTES, size - position), position)):
        position += len(piece)
        yield piece
        pause(PAUSE_S)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
