"""Claims about tables of calls: each call one row, whatever was cut off, doubled, renamed or repeated."""

from __future__ import annotations

import csv
import fcntl
import gzip
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from importlib import util
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from proxy.commands import cli
from proxy.metering import export, tables
from proxy.metering.export import COLUMNS
from tests import needs
from tests.proxy.metering.records import Json, closed, named, opened, upstream_call, used, write, written

NAMES = [column.name for column in COLUMNS]


def calls(first: int, last: int) -> list[bytes]:
    lines = []
    for number in range(first, last):
        said: Json = {
            "at": f"2026-11-{1 + number // 60:02}T10:{number % 60:02}:00.000Z",
            "key_name": f"team {number % 3}",
        }
        amounts = used(number + 5, number + 2, number, number + 1)
        end = closed(named(number), **said, usage=amounts, generated=amounts, calls=[upstream_call(3, 4)])
        lines += [written(opened(named(number), **said)), written(end)]
    return lines


def run(to: Path, *files: Path, flags: tuple[str, ...] = ()) -> Result:
    ended = CliRunner().invoke(cli.dashseek, ["usage", "export", *map(str, files), "--to", str(to), *flags])
    assert ended.exception is None or isinstance(ended.exception, SystemExit)
    return ended


def of_csv(path: Path) -> list[Json]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def of_sqlite(path: Path) -> list[Json]:
    rows = sqlite3.connect(path).execute("SELECT * FROM calls ORDER BY at, call").fetchall()
    return [dict(zip(NAMES, row, strict=True)) for row in rows]


def of_parquet_part(part: Path) -> list[Json]:
    from pyarrow import parquet  # noqa: PLC0415 - an extra

    rows: list[Json] = parquet.read_table(part).to_pylist()
    return rows


def of_parquet(path: Path) -> list[Json]:
    return [row for part in sorted(path.glob("part-*.parquet")) for row in of_parquet_part(part)]


FORMS: dict[str, Callable[[Path], list[Json]]] = {"csv": of_csv, "sqlite": of_sqlite, "parquet": of_parquet}


@pytest.fixture(params=FORMS)
def to(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    if request.param == "parquet":
        util.find_spec("pyarrow") or needs.lack("pyarrow")
    return tmp_path / f"calls.{request.param}"


def read(to: Path) -> list[Json]:
    return FORMS[to.suffix[1:]](to)


def names(to: Path) -> list[str]:
    return [row["call"] for row in read(to)]


def test_a_row_says_what_the_line_says(to: Path, tmp_path: Path) -> None:
    """MET-3: every column, in every form, in the type that form has for it."""
    record = closed(
        named(1),
        usage=used(9, 8, 2, 3),
        generated=used(90, 80, 20, 30),
        calls=[upstream_call(3, 4)] * 2,
        attempts=[
            {"target": "http://a", "result": "cut", "reused": True},
            {"target": "http://b", "pool": "p", "result": "200", "reused": False},
        ],
        t={"upstream_sent": 1.5, "first_packet": None, "last_packet": 3.0, "closed": 4.5},
    )
    ended = run(to, write(tmp_path / "calls.jsonl", written(opened(named(1))), written(record)))
    assert (ended.exit_code, ended.stdout) == (0, f"{to}: 1 rows added\n")
    (row,) = read(to)
    expected: dict[str, Any] = {
        "call": named(1),
        "at": "2026-11-22T10:00:00.000Z",
        "request_id": f"id-{named(1)}",
        "api": "dashscope",
        "model": "deepseek-v3",
        "upstream_model": "deepseek-chat",
        "key_id": "9f86d081884c",
        "key_name": "team a",
        "stream": True,
        "thinking": False,
        "outcome": "ok",
        "status": 200,
        "code": None,
        "input": 9,
        "cached": 3,
        "output": 8,
        "reasoning": 2,
        "generated_input": 90,
        "generated_cached": 30,
        "generated_output": 80,
        "generated_reasoning": 20,
        "basis": "upstream_final",
        "upstream_calls": 2,
        "drift_tokens": 0,
        "packets": 2,
        "bytes_out": 100,
        "attempts": 2,
        "target": "http://b",
        "pool": "p",
        "result": "200",
        "upstream_sent_ms": 1.5,
        "first_packet_ms": None,
        "last_packet_ms": 3.0,
        "closed_ms": 4.5,
    }
    assert list(expected) == NAMES
    if to.suffix == ".csv":
        said = {name: str(value) for name, value in expected.items()}
        assert row == {**said, "stream": "true", "thinking": "false", "code": "", "first_packet_ms": ""}
    elif to.suffix == ".parquet":
        assert row.pop("at").isoformat() == "2026-11-22T10:00:00+00:00"
        expected.pop("at")
        assert row == expected
    else:
        assert row == expected


def test_what_has_grown_is_gone_on_with_under_whatever_name(to: Path, tmp_path: Path) -> None:
    """MET-6: rotated and packed meanwhile, doubled, and a call that ends in the next file."""
    lines = calls(0, 40)
    current = write(tmp_path / "calls.jsonl", *lines[:31])
    assert run(to, current).stdout == f"{to}: 15 rows added\n"
    packed = tmp_path / "calls.jsonl.1.gz"
    packed.write_bytes(gzip.compress(current.read_bytes()))
    write(current, *lines[31:60])
    assert run(to, current, packed).stdout == f"{to}: 15 rows added\n"
    write(current, *lines[31:])
    write(tmp_path / "calls.jsonl.0", *lines[31:])
    assert run(to, packed, current, tmp_path / "calls.jsonl.0").stdout == f"{to}: 10 rows added\n"
    assert run(to, packed, current).stdout == f"{to}: 0 rows added\n"
    assert names(to) == [named(number) for number in range(40)]


def test_an_export_that_is_cut_off_goes_on_behind_its_last_whole_batch(
    to: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever it is cut: what had been written and not been told of is written again, once."""
    monkeypatch.setattr(export, "BATCH_ROWS", 4)
    monkeypatch.setattr(tables, "PART_ROWS", 8)
    path = write(tmp_path / "calls.jsonl", *calls(0, 50))
    random.seed(7)
    for _ in range(6):
        with monkeypatch.context() as patched:
            left = random.randrange(1, 5)
            kind = type(tables.table(to))
            whole = kind.write

            def cut(self: Any, rows: Any, progress: Any, whole: Any = whole) -> None:
                nonlocal left
                left -= 1
                if not left:
                    if to.suffix == ".csv":
                        self._file.write("half a li")
                        self._file.flush()
                    raise OSError(28, "No space left on device", str(to))
                whole(self, rows, progress)

            patched.setattr(kind, "write", cut)
            assert run(to, path).exit_code in {0, 1}
    assert run(to, path).exit_code == 0
    assert names(to) == [named(number) for number in range(50)]


KILLED = (
    "import os, sys; from pathlib import Path; from proxy.metering import tables; from proxy.commands import cli\n"
    "tables.os.fsync = lambda file, n=iter(range(9)): next(n) == int(sys.argv[1]) and os.kill(os.getpid(), 9)\n"
    "cli.dashseek(['usage', 'export', sys.argv[2], '--to', sys.argv[3]])"
)


@pytest.mark.parametrize("place", range(3))
def test_a_file_whose_export_was_killed_in_its_first_batch_is_gone_on_with(tmp_path: Path, place: int) -> None:
    """Rows are there of which nothing is said yet, and whose they are is known."""
    path, to = write(tmp_path / "calls.jsonl", *calls(0, 200)), tmp_path / "calls.csv"
    first = spawned("-c", KILLED, place, path, to)
    first.communicate(timeout=60)
    assert first.returncode == -signal.SIGKILL
    assert run(to, path).stdout == f"{to}: 200 rows added\n"
    assert names(to) == [named(number) for number in range(200)]


def test_what_took_the_place_of_a_file_that_was_begun_is_left_as_it_is(tmp_path: Path) -> None:
    path = write(tmp_path / "calls.jsonl", *calls(0, 2))
    (to := tmp_path / "calls.csv").with_name("calls.csv.state").write_text('{"bytes": 0, "progress": null}')
    to.write_text("call,at,price\n")
    ended = run(to, path)
    assert (ended.exit_code, "calls.csv.state does not say how far it is" in ended.stderr) == (2, True)
    assert to.read_text() == "call,at,price\n"
    to.write_text("call,at,requ")
    assert run(to, path).stdout == f"{to}: 2 rows added\n"
    assert names(to) == [named(0), named(1)]


def spawned(*words: object) -> subprocess.Popen[str]:
    command = [sys.executable, *map(str, words)]
    return subprocess.Popen(
        command, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=needs.ROOT
    )


HOLD = (
    "import sys; from pathlib import Path; from proxy.metering import tables\n"
    "table = tables.table(Path(sys.argv[1])); table.begin(); print('held', flush=True); sys.stdin.read()"
)


def test_one_process_at_a_time_writes_a_table_and_a_killed_one_holds_nothing(to: Path, tmp_path: Path) -> None:
    """MET-6: jobs that overlap; the second says who is at it and leaves all as it is."""
    path = write(tmp_path / "calls.jsonl", *calls(0, 3))
    assert run(to, path).exit_code == 0
    (link := tmp_path / f"link{to.suffix}").symlink_to(to)
    with spawned("-c", HOLD, to) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        write(path, *calls(0, 5))
        for name in (to, link):
            second = run(name, path)
            assert (second.exit_code, second.stdout) == (2, "")
            assert f"Error: {name}: process {holder.pid} on {os.uname().nodename} exports to it now" in second.stderr
        assert names(to) == [named(number) for number in range(3)]
        holder.send_signal(signal.SIGKILL)
    assert run(to, path).stdout == f"{to}: 2 rows added\n"
    assert names(to) == [named(number) for number in range(5)]
    assert not [*tmp_path.rglob("*.lock")]


def test_exports_at_the_same_time_write_each_call_once(to: Path, tmp_path: Path) -> None:
    """Whoever comes first; what the others say they added is what they did."""
    path = write(tmp_path / "calls.jsonl", *calls(0, 400))
    others = [spawned("-m", "proxy", "usage", "export", path, "--to", to) for _ in range(3)]
    ended = [(*other.communicate(timeout=60), other.returncode) for other in others]
    assert {code for *_, code in ended} <= {0, 2}
    added = [int(said.split()[-3]) for said, _, code in ended if code == 0]
    assert (sum(added), max(added)) == (400, 400), ended
    assert names(to) == [named(number) for number in range(400)]
    assert run(to, path).stdout == f"{to}: 0 rows added\n"


def test_a_lock_whose_file_went_between_is_taken_on_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one before has struck it off: what is locked then is a file that nobody else finds."""
    path, seen = tmp_path / "calls.csv.lock", list[int]()
    flock = fcntl.flock

    def flocked(descriptor: int, operation: int) -> None:
        seen.append(os.fstat(descriptor).st_ino)
        if len(seen) == 1:
            path.unlink()
        elif len(seen) == 2:
            path.replace(tmp_path / "kept")
            path.touch()
        flock(descriptor, operation)

    monkeypatch.setattr("fcntl.flock", flocked)
    (lock := tables.Lock(path)).take()
    assert (len(seen), path.stat().st_ino) == (3, seen[-1])
    path.write_text("")
    with pytest.raises(export.ExportError, match=r"^another process exports to it now"):
        tables.Lock(path).take()
    lock.release()
    lock.release()
    assert not path.exists()


def test_a_file_of_parquet_is_whole_after_so_many_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever reads the directory has them while the export goes on."""
    util.find_spec("pyarrow") or needs.lack("pyarrow")
    monkeypatch.setattr(export, "BATCH_ROWS", 1)
    monkeypatch.setattr(tables, "PART_ROWS", 8)
    to = tmp_path / "calls.parquet"
    assert run(to, write(tmp_path / "calls.jsonl", *calls(0, 20))).exit_code == 0
    assert [(part.name, len(of_parquet_part(part))) for part in sorted(to.iterdir())] == [
        ("part-000001.parquet", 8),
        ("part-000002.parquet", 8),
        ("part-000003.parquet", 4),
    ]


def test_calls_without_an_end_are_taken_in_when_all_is_over(to: Path, tmp_path: Path) -> None:
    """MET-2: unknown, and not of 0 tokens."""
    lines = calls(0, 3)
    path = write(tmp_path / "calls.jsonl", *lines[:5])
    ended = run(to, path)
    assert ended.stderr == "calls without an end, left out: 1 (--unknown takes them in)\n"
    assert names(to) == [named(0), named(1)]
    assert run(to, path, flags=("--unknown",)).exit_code == 0
    unknown = read(to)[-1]
    assert (unknown["call"], unknown["outcome"], unknown["input"] or None) == (named(2), "unknown", None)
    again = run(to, write(path, *lines))
    if to.suffix == ".sqlite":
        assert [row["outcome"] for row in read(to)] == ["ok"] * 3
    else:
        assert again.exit_code == 2
        assert "has its calls without an end already: name another file" in again.stderr


def test_people_are_told_how_much_that_was_and_what_was_left_out(tmp_path: Path) -> None:
    journal = write(tmp_path / "calls.jsonl", opened(named(1)), closed(named(1)))
    rows = tmp_path / "calls.csv"
    ended = run(rows, journal)
    assert (ended.exit_code, ended.stdout, ended.stderr) == (0, f"{rows}: 1 rows added\n", "")
    write(journal, opened(named(1)), closed(named(1)), opened(named(2)))
    left_out = "calls without an end, left out: 1 (--unknown takes them in)\n"
    ended = run(rows, journal)
    assert (ended.exit_code, ended.stdout, ended.stderr) == (0, f"{rows}: 0 rows added\n", left_out)
    ended = run(rows, journal, flags=("--unknown",))
    assert (ended.exit_code, ended.stderr) == (0, "")


def test_only_calls_of_a_time_and_no_other_time_into_the_same_table(to: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "calls.jsonl", *calls(0, 120))
    flags = ("--tz", "UTC", "--since", "2026-11-02")
    assert run(to, path, flags=flags).stdout == f"{to}: 60 rows added\n"
    ended = run(to, path)
    assert (ended.exit_code, "holds the calls of another time" in ended.stderr) == (2, True)


def test_what_is_no_export_of_ours_is_left_as_it_is(tmp_path: Path) -> None:
    path = write(tmp_path / "calls.jsonl", *calls(0, 2))
    (other := tmp_path / "other.csv").write_text("a,b\n")
    (database := tmp_path / "other.db").write_text("no database, but long enough to be read as one" * 9)
    sqlite3.connect(ours := tmp_path / "theirs.db").execute("CREATE TABLE calls (a)")
    for to, sentence in (
        (other, "is there already, and other.csv.state does not say how far it is"),
        (database, "SQLite says: file is not a database"),
        (ours, "has a table calls with other columns"),
        (tmp_path / "calls.xlsx", "ends in none of .csv .sqlite .db .parquet"),
    ):
        ended = run(to, path)
        assert (ended.exit_code, sentence in ended.stderr) == (2, True), ended.stderr
    assert other.read_text() == "a,b\n"
    run(whole := tmp_path / "calls.csv", path)
    whole.write_text("call\n")
    assert "is shorter than calls.csv.state says" in run(whole, path).stderr


def test_lines_that_cannot_be_read_are_code_1_and_no_row(tmp_path: Path) -> None:
    path = write(tmp_path / "calls.jsonl", *calls(0, 2), b'{"ev":"close"}\n')
    ended = run(tmp_path / "calls.csv", path)
    assert (ended.exit_code, len(of_csv(tmp_path / "calls.csv"))) == (1, 2)
    progress = json.loads((tmp_path / "calls.csv.state").read_text())["progress"]
    assert (progress["ended"], [*progress["rows"].values()]) == (False, [2])


def test_what_a_line_does_not_tell_is_0_where_it_is_a_sum_and_nothing_where_it_is_not(tmp_path: Path) -> None:
    """A call that used no cache and did not think; one that was never admitted."""
    refused = {
        "usage": used(0, 0),
        "generated": used(0, 0),
        "basis": "none",
        "attempts": [],
        "outcome": "refused_limit",
    }
    plain, lone = (
        dict(zip(NAMES, export.row(record), strict=True)) for record in (closed("1"), closed(None, **refused))
    )
    assert [plain[name] for name in ("cached", "reasoning", "upstream_calls", "target")] == [0, 0, 1, "http://a"]
    assert [lone[name] for name in ("call", "cached", "upstream_calls", "attempts")] == [None, 0, 0, 0]
    assert [lone[name] for name in ("target", "pool", "result")] == [None] * 3


def test_rows_are_on_the_disk_before_it_is_said_that_they_are(
    to: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "calls.jsonl", *calls(0, 3))
    synced: list[str] = []
    monkeypatch.setattr("os.fsync", lambda file: synced.append(Path(f"/proc/self/fd/{file}").readlink().name))
    assert run(to, path).exit_code == 0
    # SQLite sees to it by itself.
    assert (
        synced
        == {".csv": [f"{to.name}.state~", to.name, f"{to.name}.state~"], ".parquet": [".part-000001"], ".sqlite": []}[
            to.suffix
        ]
    )


def test_no_file_is_left_open(to: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "calls.jsonl", *calls(0, 3))
    assert run(to, path).exit_code == 0
    made = tables.table(to)
    made.begin()
    made.close()
    assert not [file for file in Path("/proc/self/fd").iterdir() if str(file.resolve()).startswith(str(to))]


def test_what_keeps_rows_from_a_table_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "calls.jsonl", *calls(0, 2))
    run(database := tmp_path / "calls.db", path)
    sqlite3.connect(database).execute("CREATE TRIGGER no BEFORE INSERT ON calls BEGIN SELECT RAISE(FAIL, 'no'); END")
    ended = run(database, write(path, *calls(0, 3)))
    assert (ended.exit_code, "SQLite says: no" in ended.stderr) == (2, True), ended.stderr
    if util.find_spec("pyarrow"):
        from pyarrow import parquet, table  # noqa: PLC0415 - an extra

        (theirs := tmp_path / "theirs.parquet").mkdir()
        parquet.write_table(table({"a": [1]}), theirs / "part-000001.parquet")
        ended = run(theirs, path)
        assert "part-000001.parquet does not say how far it is: name another directory" in ended.stderr
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    ended = run(tmp_path / "calls.parquet", path)
    assert (ended.exit_code, "needs pyarrow: pip install" in ended.stderr) == (2, True), ended.stderr
