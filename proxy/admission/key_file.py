"""A keys file into the same file with one key more or less: under a lock, with a backup, whole or not at all.

Everything else in it stays as it is written, comments too. What would not read back as meant is not written. The
process that serves reads the file anew within a second (`keyring`).
"""

from __future__ import annotations

import fcntl
import io
import itertools
import os
import re
import secrets
import shutil
import tomllib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import orjson

from config.settings import SettingsError
from proxy.admission import keyring
from proxy.admission.keyring import FINGERPRINT_DIGITS, KeyRow

BACKUP: Final = "~"
LOCK: Final = ".lock"
MODE: Final = 0o640
KEY_BYTES: Final = 32
# A table, or an entry of an array of tables, begins on a line of its own.
HEADER: Final = re.compile(r"^[ \t]*\[", re.MULTILINE)
ENTRY: Final = re.compile(r"[ \t]*\[\[[ \t]*(?:key|\"key\"|'key')[ \t]*\]\]")


PART: Final = re.compile(r"[ \t]*\[+[ \t]*key[ \t]*\.")


class KeyFileError(Exception):
    """An edit that is not made; a sentence for whoever asked for it."""


def made() -> str:
    """A new key: 256 bits of chance, as a header carries them."""
    return f"sk-{secrets.token_urlsafe(KEY_BYTES)}"


def add(
    path: Path,
    name: str,
    secret: str,
    *,
    models: Sequence[str] = (),
    limits: str | None = None,
    show: Callable[[], object] | None = None,
) -> KeyRow:
    """Append a caller's key, of which the digest alone is written; its row. Makes the file where there is none.

    show:   called when nothing speaks against the key and the file is as it was, which it stays where this raises: a
            key that is shown and not in the file opens nothing, one in the file that nobody was shown is of no use
    raises: `KeyFileError`, `OSError`, `SettingsError` where the file as it is cannot be read, and what `show` does
    """
    try:
        entry = keyring.entry(name, secret)
        for what, said in (*(("model", model) for model in models), ("limit", limits or "")):
            keyring.check_line(what, said)
    except ValueError as error:
        raise KeyFileError(str(error)) from None
    with _locked(path):
        text = _text(path) if path.exists() else ""
        before = keyring.rows(path) if text else ()
        _check_tables(path, text)
        if models:
            entry += f"\nmodels = {_toml(list(models))}"
        if limits is not None:
            entry += f"\nlimits = {_toml(limits)}"
        added = f"{'' if text.endswith(chr(10)) else chr(10)}{entry}\n" if text else f"{entry.lstrip()}\n"
        return _replace(path, text + added.replace("\n", _line_ending(text)), before, 1, show)[-1]


def revoke(path: Path, which: str) -> tuple[KeyRow, ...]:
    """Take out the keys of a name, or the one key of a fingerprint; their rows. Raises as `add` does."""
    with _locked(path):
        rows = keyring.rows(path)
        gone = [number for number, row in enumerate(rows) if which in {row.name, row.sha256[:FINGERPRINT_DIGITS]}]
        if not gone:
            raise KeyFileError(f"{path}: no key has the name or the fingerprint {which}")
        text = _text(path)
        _check_tables(path, text)
        blocks = _blocks(text)
        entries = [number for number, block in enumerate(blocks) if ENTRY.match(block)]
        if len(entries) != len(rows):
            raise KeyFileError(f"{path}: its keys do not each stand under a [[key]] of their own; edit it by hand")
        taken = {entries[number] for number in gone}
        kept = [row for number, row in enumerate(rows) if number not in gone]
        after = "".join(_comments(block) if number in taken else block for number, block in enumerate(blocks))
        _replace(path, after, kept, 0)
    return tuple(rows[number] for number in gone)


def _text(path: Path) -> str:
    """With its line endings, of which a text file is relieved when it is read as one."""
    return path.read_bytes().decode("utf-8")


def _line_ending(text: str) -> str:
    """That of most of its lines."""
    return "\r\n" if text.count("\r\n") * 2 > text.count("\n") else "\n"


def _check_tables(path: Path, text: str) -> None:
    """Raise `KeyFileError` where one more `[[key]]` would not be TOML: `key = [...]` cannot be gone on with."""
    if not _is_toml(f"{text}\n[[key]]\n"):
        raise KeyFileError(
            f"{path}: its keys stand in an inline array, key = [...], and only [[key]] tables are added and taken out: "
            "edit it by hand"
        )


def _is_toml(text: str) -> bool:
    try:
        tomllib.loads(io.StringIO(text, newline=None).read())  # line endings as `keyring` reads them
    except (ValueError, RecursionError):
        return False
    return True


def _blocks(text: str) -> list[str]:
    """The text before the first table, and each table with what stands under it, tables of a key with their key."""
    begins = [0, *(match.start() for match in HEADER.finditer(text) if not PART.match(text, match.start())), len(text)]
    return [text[begin:end] for begin, end in itertools.pairwise(begins)]


def _comments(block: str) -> str:
    """What stands behind the last line of a table that says something: it may be about what follows."""
    # Not `splitlines`, which parts a line of TOML at other characters, too.
    lines = io.StringIO(block, newline="\n").readlines()
    said = max(number for number, line in enumerate(lines) if line.strip() and not line.lstrip().startswith("#"))
    rest = "".join(lines[said + 1 :])
    return rest if rest.strip() else ""


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Alone among those who edit it; the lock is a file beside it, for the file itself is replaced."""
    descriptor = os.open(_beside(path, LOCK), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _replace(
    path: Path, text: str, rows: Sequence[KeyRow], more: int, show: Callable[[], object] | None = None
) -> tuple[KeyRow, ...]:
    """Put a new version, of these rows and so many more, in the place of the former, kept beside it; its rows.

    show: called when the new version can be put there, and is not yet
    """
    target = path.resolve()
    partial = target.with_name(target.name + ".new")
    found = target.stat() if target.exists() else None
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, MODE)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        try:
            read = keyring.rows(partial) if _is_toml(text) else ()
        except SettingsError as error:
            raise KeyFileError(f"{path}: {error.lines[0].partition(': ')[2]}; it is as it was") from None
        if read[: len(rows)] != tuple(rows) or len(read) != len(rows) + more:
            raise KeyFileError(f"{path}: would not read back as meant, and is as it was: edit it by hand")
        if found is not None:
            os.chmod(partial, found.st_mode & 0o777)
            if os.geteuid() == 0:
                os.chown(partial, found.st_uid, found.st_gid)
        if show is not None:
            show()
        if found is not None:
            shutil.copy2(target, _beside(target, BACKUP))
        partial.replace(target)
        return read
    finally:
        partial.unlink(missing_ok=True)


def _beside(path: Path, ending: str) -> Path:
    target = path.resolve()
    return target.with_name(target.name + ending)


def _toml(value: object) -> str:
    # A TOML string of one line, or an array of them, is JSON.
    return orjson.dumps(value).decode()
