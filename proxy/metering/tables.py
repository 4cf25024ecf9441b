"""Rows of calls into a file of one form: CSV, SQLite, or Parquet in parts; with how far it is, both or neither.

One process at a time writes a table; a second one is refused before it has changed anything.
"""

from __future__ import annotations

import csv
import fcntl
import io
import json
import os
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from proxy.metering.export import COLUMNS, ExportError, Kind, Progress, Row, Table

STATE: Final = ".state"
LOCK: Final = ".lock"
HEADER: Final = ",".join(column.name for column in COLUMNS) + "\n"
# Rows of one Parquet file: what is lost at most of an export that is cut off.
PART_ROWS: Final = 1 << 18
METADATA: Final = b"dashseek.export"
SQL_TYPES: Final[Mapping[Kind, str]] = {
    "text": "TEXT",
    "moment": "TEXT",
    "boolean": "INTEGER",
    "integer": "INTEGER",
    "real": "REAL",
}


class Lock:
    """The right to write a table, by the kernel's lock on a file, which ends with the process however that ends.

    The file says whose it is, and is there no longer than the lock, or until the next one where a process was killed.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None

    def take(self) -> None:
        """Take it, or raise `ExportError` that names the process that has it; `OSError` where no file can be made."""
        while True:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = os.pread(descriptor, io.DEFAULT_BUFFER_SIZE, 0).decode("utf-8", "replace")
                os.close(descriptor)
                raise ExportError(f"{holder or 'another process'} exports to it now, so nothing was added") from None
            if self._stands(descriptor):
                break
            # Its holder has taken the file away between the two.
            os.close(descriptor)
        self._descriptor = descriptor
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()} on {os.uname().nodename}".encode(), 0)

    def _stands(self, descriptor: int) -> bool:
        try:
            return os.path.samestat(os.fstat(descriptor), os.stat(self._path))
        except FileNotFoundError:
            return False

    def release(self) -> None:
        """Give it back, if it was taken."""
        if self._descriptor is not None:
            self._path.unlink(missing_ok=True)
            os.close(self._descriptor)
            self._descriptor = None


class CsvTable:
    """A CSV file with a header, and beside it a file that says how long it is and how far that goes.

    Empty is what is not known; booleans are `true` and `false`.
    """

    is_keyed = False

    def __init__(self, path: Path) -> None:
        self._path = path
        self._state = path.with_name(path.name + STATE)
        self._lock = _lock_beside(path)
        self._file: io.TextIOWrapper | None = None

    def begin(self) -> Progress | None:
        """How far it is; what was written behind that is cut off."""
        self._lock.take()
        progress = None
        if self._path.exists() and self._path.stat().st_size:
            progress = self._resumed()
        self._file = self._path.open("a", encoding="utf-8", newline="")
        if progress is None:
            # Rows reach the disk before it is said that they do: without this nobody would know whose they are.
            self._tell(None)
            self._file.write(HEADER)
        return progress

    def _resumed(self) -> Progress | None:
        try:
            said = json.loads(self._state.read_text("utf-8"))
            size = int(said["bytes"])
            progress = None if said["progress"] is None else Progress(**said["progress"])
            if progress is None and not self._begins_as_ours():
                raise ValueError("another file has taken the place of what was begun")
        except (OSError, ValueError, KeyError, TypeError):
            raise ExportError(f"is there already, and {self._state.name} does not say how far it is") from None
        if size > self._path.stat().st_size:
            raise ExportError(f"is shorter than {self._state.name} says: name another file")
        os.truncate(self._path, size)
        return progress

    def write(self, rows: Sequence[Row], progress: Progress) -> None:
        """Append rows, and say so when they are on the disk."""
        assert self._file is not None  # noqa: S101 - for the type checker: it was begun
        csv.writer(self._file, lineterminator="\n").writerows(map(_plain, rows))
        self._file.flush()
        os.fsync(self._file.fileno())
        self._tell(progress)

    def _begins_as_ours(self) -> bool:
        with self._path.open("rb") as file:
            return HEADER.encode().startswith(file.read(len(HEADER)))

    def _tell(self, progress: Progress | None) -> None:
        said = {"bytes": self._path.stat().st_size, "progress": progress and asdict(progress)}
        _replace(self._state, lambda path: path.write_text(json.dumps(said), encoding="utf-8"))

    def close(self) -> None:
        """Nothing is held back."""
        try:
            if self._file is not None:
                self._file.close()
        finally:
            self._lock.release()


def _plain(row: Row) -> list[Any]:
    return [("true" if value else "false") if isinstance(value, bool) else value for value in row]


class SqliteTable:
    """A table `calls` of a database, by the call's name; a table `export` says how far it is, in one transaction."""

    is_keyed = True

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = _lock_beside(path)
        self._database: sqlite3.Connection | None = None

    def begin(self) -> Progress | None:
        """How far it is; raises `ExportError` where the file is no database, or its `calls` are others."""
        self._lock.take()
        columns = ", ".join(
            f"{column.name} {SQL_TYPES[column.kind]}{' PRIMARY KEY' if column.name == 'call' else ''}"
            for column in COLUMNS
        )
        try:
            self._database = sqlite3.connect(self._path)
            self._database.execute(f"CREATE TABLE IF NOT EXISTS calls ({columns})")
            self._database.execute("CREATE TABLE IF NOT EXISTS export (progress TEXT)")
            there = [name for _, name, *_ in self._database.execute("PRAGMA table_info(calls)")]
            said = self._database.execute("SELECT progress FROM export").fetchone()
        except sqlite3.Error as error:
            raise ExportError(f"SQLite says: {error}") from None
        if there != [column.name for column in COLUMNS]:
            raise ExportError("has a table calls with other columns: name another file")
        return Progress(**json.loads(said[0])) if said else None

    def write(self, rows: Sequence[Row], progress: Progress) -> None:
        """Rows and progress in one transaction; raises `ExportError` where the database does not take them."""
        assert self._database is not None  # noqa: S101 - for the type checker: it was begun
        marks = ", ".join("?" * len(COLUMNS))
        try:
            with self._database:
                self._database.executemany(f"INSERT OR REPLACE INTO calls VALUES ({marks})", rows)  # noqa: S608
                self._database.execute("DELETE FROM export")
                self._database.execute("INSERT INTO export VALUES (?)", (json.dumps(asdict(progress)),))
        except sqlite3.Error as error:
            raise ExportError(f"SQLite says: {error}") from None

    def close(self) -> None:
        """Every transaction is on the disk."""
        try:
            if self._database is not None:
                self._database.close()
        finally:
            self._lock.release()


class ParquetTable:
    """A directory of Parquet files, each whole or not there; each says in its metadata how far it goes.

    Raises `ExportError` where pyarrow is not installed (the extra `parquet`).
    """

    is_keyed = False

    def __init__(self, path: Path) -> None:
        try:
            import pyarrow  # noqa: PLC0415 - an extra
            from pyarrow import parquet  # noqa: PLC0415
        except ImportError:
            raise ExportError("needs pyarrow: pip install '.[parquet]'") from None
        self._arrow, self._parquet = pyarrow, parquet
        types = {
            "text": pyarrow.string(),
            "moment": pyarrow.timestamp("ms", "UTC"),
            "boolean": pyarrow.bool_(),
            "integer": pyarrow.int64(),
            "real": pyarrow.float64(),
        }
        self._schema = pyarrow.schema([(column.name, types[column.kind]) for column in COLUMNS])
        self._path = path
        # Inside, where no reader of Parquet looks: the directory may be a mount.
        self._lock = Lock(path / LOCK)
        self._number = 0
        self._writer: Any = None
        self._rows = 0

    def begin(self) -> Progress | None:
        """How far the last whole file goes."""
        self._path.mkdir(exist_ok=True)
        self._lock.take()
        parts = sorted(self._path.glob("part-*.parquet"))
        if not parts:
            return None
        said = (self._parquet.read_metadata(parts[-1]).metadata or {}).get(METADATA)
        if said is None:
            raise ExportError(f"{parts[-1].name} does not say how far it is: name another directory")
        self._number = int(parts[-1].stem.removeprefix("part-"))
        return Progress(**json.loads(said))

    def write(self, rows: Sequence[Row], progress: Progress) -> None:
        """Append rows to the file that is being written, which is there when it is whole."""
        self._said = json.dumps(asdict(progress))
        if not rows:
            return
        if self._writer is None:
            self._number += 1
            self._writer = self._parquet.ParquetWriter(self._partial, self._schema, compression="zstd")
        columns = zip(*rows, strict=True)
        arrays = [self._array(values, field.type) for values, field in zip(columns, self._schema, strict=True)]
        self._writer.write_table(self._arrow.Table.from_arrays(arrays, schema=self._schema))
        self._rows += len(rows)
        if self._rows >= PART_ROWS:
            self._finish()

    def _array(self, values: Sequence[Any], kind: Any) -> Any:
        if self._arrow.types.is_timestamp(kind):
            # RFC 3339 with a Z, which is text to be read.
            return self._arrow.array(values, self._arrow.string()).cast(kind)
        return self._arrow.array(values, kind)

    @property
    def _partial(self) -> Path:
        return self._path / f".part-{self._number:06}"

    def _finish(self) -> None:
        self._writer.add_key_value_metadata({METADATA: self._said})
        self._writer.close()
        self._writer, self._rows = None, 0
        _synced(self._partial)
        self._partial.rename(self._path / f"part-{self._number:06}.parquet")

    def close(self) -> None:
        """What has been written is whole."""
        try:
            if self._writer is not None:
                self._finish()
        finally:
            self._lock.release()


FORMS: Final[Mapping[str, Callable[[Path], Table]]] = {
    ".csv": CsvTable,
    ".sqlite": SqliteTable,
    ".db": SqliteTable,
    ".parquet": ParquetTable,
}


def table(path: Path) -> Table:
    """The table a file's name says it is; raises `ExportError`."""
    form = FORMS.get(path.suffix)
    if form is None:
        raise ExportError(f"ends in none of {' '.join(FORMS)}")
    return form(path)


def _lock_beside(path: Path) -> Lock:
    # A link and what it names are one table.
    target = path.resolve()
    return Lock(target.with_name(target.name + LOCK))


def _replace(path: Path, write: Callable[[Path], object]) -> None:
    partial = path.with_name(path.name + "~")
    write(partial)
    _synced(partial)
    partial.replace(path)


def _synced(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
