"""The calls of journals into rows of a table, one a call, each once: for a spreadsheet, SQLite, DuckDB, ClickHouse.

Rows leave as they are read, in batches, and with each batch the place at which to go on: of each journal file, known by
its first line whatever its name is by now, how many rows have left. An export that is cut off, or repeated when the
journal has grown, reads everything again and goes on behind the last row that is there. Source: spec MET-6.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, Protocol

from proxy.metering import journal_files, ledger, seals
from proxy.metering.ledger import Ledger
from proxy.metering.periods import Span
from proxy.metering.totals import UNKNOWN

Json = dict[str, Any]
Kind = Literal["text", "moment", "boolean", "integer", "real"]

# Rows that leave together: some megabytes.
BATCH_ROWS: Final = 8192


class ExportError(Exception):
    """A table that cannot be gone on with; a sentence for whoever named it."""


class Column(NamedTuple):
    """A column of the table.

    name:    as readers name it
    kind:    what its values are; `moment` is text in RFC 3339 where a table has no type for it, and always UTC
    meaning: for the page about it
    value:   of a `close` line; None where the line does not tell
    """

    name: str
    kind: Kind
    meaning: str
    value: Callable[[Json], Any]


def _member(name: str) -> Callable[[Json], Any]:
    return lambda record: record.get(name)


def _figure(side: str, *path: str) -> Callable[[Json], Any]:
    def read(record: Json) -> Any:
        value = record[side]
        for name in path[:-1]:
            value = value.get(name, {})
        return value.get(path[-1], 0)

    return read


def _last(name: str) -> Callable[[Json], Any]:
    return lambda record: record["attempts"][-1].get(name) if record["attempts"] else None


def _time(name: str) -> Callable[[Json], Any]:
    return lambda record: record["t"][name]


def _upstream_calls(record: Json) -> int:
    return len(record["calls"]) if "calls" in record else int(record["basis"] != "none")


CACHED: Final = ("prompt_tokens_details", "cached_tokens")
REASONING: Final = ("output_tokens_details", "reasoning_tokens")
OPENING: Final = (
    Column("call", "text", "its name, the key of the table; empty if it was never admitted", _member("call")),
    Column("at", "moment", "when it was received", _member("at")),
    Column("request_id", "text", "the caller's, and not unique where the caller chooses it", _member("request_id")),
    Column("api", "text", "the protocol it came in: `dashscope`, `openai`", _member("api")),
    Column("model", "text", "as the model table names it", _member("model")),
    Column("upstream_model", "text", "its id upstream", _member("upstream_model")),
    Column("key_id", "text", "the first twelve digits of the SHA-256 of the caller's key", _member("key_id")),
    Column("key_name", "text", "its name in the keys file", _member("key_name")),
    Column("stream", "boolean", "whether it asked for packets", _member("stream")),
    Column("thinking", "boolean", "whether it thinks", _member("thinking")),
)  # fmt: skip
CLOSING: Final = (
    Column("outcome", "text", "how it ended; `unknown` where it has no end", _member("outcome")),
    Column("status", "integer", "HTTP status, or the number in the error frame", _member("status")),
    Column("code", "text", "DashScope's code of the error", _member("code")),
    Column("input", "integer", "tokens of the prompt, as delivered", _figure("usage", "input_tokens")),
    Column("cached", "integer", "of them, from upstream's cache", _figure("usage", *CACHED)),
    Column("output", "integer", "tokens of the answer, as delivered", _figure("usage", "output_tokens")),
    Column("reasoning", "integer", "of them, the chain of thought", _figure("usage", *REASONING)),
    Column("generated_input", "integer", "tokens of all prompts upstream", _figure("generated", "input_tokens")),
    Column("generated_cached", "integer", "of them, from upstream's cache", _figure("generated", *CACHED)),
    Column("generated_output", "integer", "tokens that upstream produced", _figure("generated", "output_tokens")),
    Column("generated_reasoning", "integer", "of them, the chain of thought", _figure("generated", *REASONING)),
    Column("basis", "text", "whose figures the generated ones are", _member("basis")),
    Column("upstream_calls", "integer", "calls upstream of which figures are known", _upstream_calls),
    Column("drift_tokens", "integer", "upstream's tokens of the prompt less our own count", _member("drift_tokens")),
    Column("packets", "integer", "packets handed to the caller", _member("packets")),
    Column("bytes_out", "integer", "bytes handed to the caller", _member("bytes_out")),
    Column("attempts", "integer", "tries upstream", lambda record: len(record["attempts"])),
    Column("target", "text", "the upstream asked last", _last("target")),
    Column("pool", "text", "its pool", _last("pool")),
    Column("result", "text", "what came of that try", _last("result")),
    Column("upstream_sent_ms", "real", "from `at` to the first call upstream", _time("upstream_sent")),
    Column("first_packet_ms", "real", "from `at` to the first packet", _time("first_packet")),
    Column("last_packet_ms", "real", "from `at` to the last packet", _time("last_packet")),
    Column("closed_ms", "real", "from `at` to the end", _time("closed")),
)  # fmt: skip
COLUMNS: Final = (*OPENING, *CLOSING)
Row = tuple[Any, ...]


def row(record: Json) -> Row:
    """A `close` line as a row."""
    return tuple(column.value(record) for column in COLUMNS)


def unknown_row(opening: Json) -> Row:
    """An `open` line without an end as a row: nothing is known of its tokens, which is not 0."""
    return (*(column.value(opening) for column in OPENING), UNKNOWN, *(None for _ in CLOSING[1:]))


@dataclass(slots=True)
class Progress:
    """How far a table is.

    rows:  of each journal file, by the digest of its first line, the rows that are in the table
    since, until: the calls it is of
    ended: whether calls without an end are in it, so that it cannot go on
    """

    rows: dict[str, int] = field(default_factory=dict)
    since: str = ""
    until: str = ""
    ended: bool = False


class Table(Protocol):
    """Where rows go: a file of one form."""

    is_keyed: bool
    """Whether a later row of the same call takes the place of the former."""

    def begin(self) -> Progress | None:
        """How far it is, and what is behind that thrown away; None where there is nothing.

        From here to `close` no other process writes it. Raises `ExportError`, also where one does.
        """

    def write(self, rows: Sequence[Row], progress: Progress) -> None:
        """Append rows, and with them, both or neither, how far it is now."""

    def close(self) -> None:
        """All of it on the disk, and others may write it; also where `begin` has failed."""


class Exported(NamedTuple):
    """What came of an export.

    ledger:  what the journals say
    added:   rows that were not in the table before
    """

    ledger: Ledger
    added: int


class _Writer:
    def __init__(self, table: Table, progress: Progress, files: dict[Path, str]) -> None:
        self._table = table
        self._progress = progress
        self._done = dict(progress.rows)
        self._seen: dict[str, int] = {}
        self._files = files
        self._batch: list[Row] = []
        self.added = 0

    def see(self, record: Json, path: Path) -> None:
        file = self._files[path]
        seen = self._seen[file] = self._seen.get(file, 0) + 1
        if seen > self._done.get(file, 0):
            self._progress.rows[file] = seen
            self.add(row(record))

    def add(self, row: Row) -> None:
        self._batch.append(row)
        self.added += 1
        if len(self._batch) >= BATCH_ROWS:
            self.flush()

    def flush(self) -> None:
        self._table.write(self._batch, self._progress)
        self._batch.clear()


def export(
    paths: Iterable[Path],
    table: Table,
    span: Span,
    *,
    with_unknown: bool,
    advance: Callable[[int], None],
) -> Exported:
    """Append to a table what is not in it yet.

    with_unknown: calls without an end too; a table that cannot replace them has an end then
    errors:       `ExportError` where it cannot be gone on with, `OSError`
    """
    paths = list(paths)
    files = {path: seals.name_of(journal_files.first_line(path)) for path in paths}
    try:
        progress = table.begin() or Progress(since=span.since, until=span.until)
        if (progress.since, progress.until) != (span.since, span.until):
            raise ExportError("holds the calls of another time: name another file, or the same --since and --until")
        if progress.ended and not table.is_keyed:
            raise ExportError("has its calls without an end already: name another file")
        writer = _Writer(table, progress, files)
        read = ledger.read(paths, span=span, each=writer.see, advance=advance)
        if with_unknown:
            progress.ended = True
            for unknown in read.unknown:
                writer.add(unknown_row(unknown.opening))
        writer.flush()
    finally:
        table.close()
    return Exported(read, writer.added)
