"""The queries for DuckDB and ClickHouse, run by each itself, against what `usage sum` makes of the files."""

from __future__ import annotations

import csv
import gzip
import io
import random
from importlib import import_module, util
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from proxy.commands import cli
from proxy.metering.export import COLUMNS
from tests import needs
from tests.deploy.conftest import DEPLOY
from tests.proxy.metering.records import Json, closed, named, opened, upstream_call, used, written

ZONE = "Asia/Shanghai"
PAGE = (DEPLOY / "export.md").read_text()


def engine(name: str) -> Any:
    """A database as a library; the test is skipped where its wheel is not there."""
    root = name.partition(".")[0]
    return import_module(name) if util.find_spec(root) else needs.lack(root)


def statements(name: str) -> list[str]:
    """The statements of a file, without what is said about them."""
    text = (DEPLOY / "queries" / name).read_text()
    lines = [line for line in text.splitlines() if not line.startswith("--")]
    return [statement.strip() for statement in "\n".join(lines).split(";\n") if statement.strip()]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A journal in two files, with calls near the ends of days and of a month, doubled lines and one that was cut."""
    random.seed(24)
    lines = []
    for number in range(300):
        said: Json = {
            "at": f"2026-{random.choice(['10-31', '11-01'])}T{random.randrange(24):02}:{number % 60:02}:00.000Z",
            "key_name": random.choice(["team a", "team b", None]),
            "upstream_model": random.choice(["u0", "u1"]),
        }
        amounts = used(random.randrange(9, 999), random.randrange(9, 999), *random.choice([(), (3,), (3, 2)]))
        counted = random.random() < 0.3
        end = {
            "outcome": "client_gone_mid_stream" if counted else "ok",
            "basis": "counted" if counted else "upstream_final",
            "usage": amounts,
            "generated": amounts if number % 3 else used(1000, 1000, 0, 500),
            "calls": [upstream_call(3, 4)] * random.randrange(1, 3),
        }
        lines += [written(opened(named(number), **said)), written(closed(named(number), **said, **end))]
    refused = {"outcome": "throttled", "usage": used(0, 0), "generated": used(0, 0), "basis": "none", "calls": []}
    lines += [written(closed(None, **refused, request_id=f"r{number}")) for number in range(5)]
    (tmp_path / "calls.jsonl").write_bytes(b"".join(lines[200:]) + lines[0][:77])
    (tmp_path / "calls.jsonl.1.gz").write_bytes(gzip.compress(b"".join(lines[:230])))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def report(home: Path, *by: str) -> dict[tuple[str, ...], Json]:
    flags = [word for name in by for word in ("--by", name)]
    files = [str(home / "calls.jsonl"), str(home / "calls.jsonl.1.gz")]
    ended = CliRunner().invoke(cli.dashseek, ["usage", "sum", "--tz", ZONE, "--csv", *flags, *files])
    rows = csv.DictReader(io.StringIO(ended.stdout))
    return {tuple(row.pop(name) for name in by): {name: int(value) for name, value in row.items()} for row in rows}


def check(home: Path, by_day: list[Any], by_month: list[Any], failures: list[Any], counted: list[Any]) -> None:
    columns = ("calls", "input", "cached", "output", "generated_input", "generated_output")
    days = report(home, "day", "key")
    assert [tuple(row[:2]) for row in by_day] == list(days)
    assert [tuple(map(int, row[2:])) for row in by_day] == [tuple(map(row.get, columns)) for row in days.values()]
    months = report(home, "month", "upstream_model")
    assert [(*row[:2], *map(int, row[2:])) for row in by_month] == [
        (
            *names,
            row["generated_input"] - row["generated_cached"],
            row["generated_cached"],
            row["generated_output"],
            row["upstream_calls"],
        )
        for names, row in months.items()
    ]
    outcomes = report(home, "outcome")
    assert {row[0]: (int(row[1]), int(row[2])) for row in failures} == {
        name: (row["calls"], row["generated_input"] + row["generated_output"])
        for (name,), row in outcomes.items()
        if name != "ok"
    }
    bases = report(home, "month", "basis")
    assert {month: float(percent) for month, percent in counted} == {
        month: round(
            100
            * bases[(month, "counted")]["generated_output"]
            / sum(row["generated_output"] for (other, _), row in bases.items() if other == month),
            2,
        )
        for month in ("2026-10", "2026-11")
    }


def test_duckdb_says_of_the_journals_own_files_what_usage_sum_says(home: Path) -> None:
    """MET-6: copies and torn lines among them."""
    database = engine("duckdb").connect()
    _, _, *answers = [database.execute(statement).fetchall() for statement in statements("duckdb.sql")]
    check(home, *answers)


@pytest.mark.parametrize("to", ["calls.csv", "calls.parquet"])
def test_duckdb_asks_the_same_of_an_exported_table(home: Path, to: str) -> None:
    if to.endswith("parquet"):
        engine("pyarrow")
    database = engine("duckdb").connect()
    CliRunner().invoke(cli.dashseek, ["usage", "export", "calls.jsonl", "calls.jsonl.1.gz", "--to", to])
    zone, _, *questions = statements("duckdb.sql")
    database.execute(zone)
    source = f"{to}/*.parquet" if to.endswith("parquet") else to
    database.execute(f"CREATE VIEW calls AS SELECT *, coalesce(key_name, key_id, '-') AS key FROM '{source}'")
    check(home, *(database.execute(question).fetchall() for question in questions))


def test_clickhouse_says_of_what_it_was_sent_what_usage_sum_says(home: Path) -> None:
    """Lines that were sent twice are there once."""
    session = engine("chdb.session").Session(str(home / "clickhouse"))
    try:
        table, insert, view, *questions = statements("clickhouse.sql")
        for statement in (table, insert, insert, view):
            session.query(statement)
        answers = [list(csv.reader(io.StringIO(str(session.query(question, "CSV"))))) for question in questions]
    finally:
        session.close()
    check(home, *answers)


def test_the_page_names_every_column_as_it_is() -> None:
    rows = [f"| `{column.name}` | {column.kind} | {column.meaning} |" for column in COLUMNS]
    assert "\n".join(rows) in PAGE
