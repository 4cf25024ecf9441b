"""Claims about `dashseek usage`: a table for people, rows for programs, a verdict with a code, a tail that keeps up."""

from __future__ import annotations

import csv
import io
import itertools
import os
import sys
import time
from pathlib import Path
from typing import Any

import orjson
import pytest
from click.testing import CliRunner, Result

from proxy.commands import cli, usage

Json = dict[str, Any]


def records(call: str, output: int, **said: Any) -> list[Json]:
    used = {"input_tokens": 1_000, "output_tokens": output, "total_tokens": 1_000 + output}
    opened: Json = {
        "ev": "open",
        "call": call,
        "at": "2026-11-22T10:00:00.123Z",
        "request_id": f"id-{call}",
        "model": "deepseek-v3",
        "upstream_model": "deepseek-chat",
        "key_id": "9f86d081884c",
        "key_name": "team a",
        "stream": True,
        "thinking": False,
    }
    closed = {
        "outcome": "ok",
        "status": 200,
        "code": None,
        "usage": used,
        "generated": used,
        "basis": "upstream_final",
        "drift_tokens": 0,
        "packets": 2,
        "bytes_out": 100,
        "attempts": [{"target": "http://a", "result": "200", "reused": False}],
        "t": {"upstream_sent": 1.0, "first_packet": 2.0, "last_packet": 3.0, "closed": 1_234.0},
    }
    return [opened | said, {**opened, **closed, **said, "ev": "close"}]


def lines(*several: Json) -> bytes:
    return b"".join(orjson.dumps(record) + b"\n" for record in several)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "usage.jsonl"
    unknown, _ = records("3", 0, at="2026-11-23T10:00:00.123Z")
    path.write_bytes(lines(*records("1", 500), *records("2", 70, model="deepseek-r1", key_name=None), unknown))
    return path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli.dashseek, ["usage", *map(str, arguments)], prog_name="dashseek")


# sum


def test_people_get_a_table_for_each_dimension_and_the_unknown_calls_by_name(path: Path) -> None:
    """MET-6."""
    shown = run("sum", path).output
    assert shown.startswith(
        "day         calls  input  output  total  reasoning  cached  generated\n"
        "2026-11-22      2  2,000     570  2,570          0       0        570\n"
        "2026-11-23      1      0       0      0          0       0          0\n"
        "all             3  2,000     570  2,570          0       0        570\n"
    )
    for begin in ("model  ", "key  ", "outcome  "):
        assert f"\n\n{begin}" in shown
    assert "\nunknown      1      0 " in shown
    assert f"unknown: 2026-11-23T10:00:00.123Z deepseek-v3 id-3 ({path}:5)" in shown


def test_one_table_by_what_is_asked_for(path: Path) -> None:
    shown = run("sum", "--by", "key", "--by", "model", path).output
    assert shown.splitlines()[:4] == [
        "key           model        calls  input  output  total  reasoning  cached  generated",
        "9f86d081884c  deepseek-r1      1  1,000      70  1,070          0       0         70",
        "team a        deepseek-v3      2  1,000     500  1,500          0       0        500",
        "all                            3  2,000     570  2,570          0       0        570",
    ]


def test_programs_get_rows_of_the_finest_grain(path: Path) -> None:
    """MET-6: JSON and CSV say the same."""
    said = orjson.loads(run("sum", "--json", path).output)
    assert said["total"] == {
        "calls": 3,
        "input": 2000,
        "output": 570,
        "total": 2570,
        "reasoning": 0,
        "cached": 0,
        "generated": 570,
    }
    assert [unknown["request_id"] for unknown in said["unknown"]] == ["id-3"]
    assert (said["torn"], said["violations"]) == ([], [])
    rows = list(csv.DictReader(io.StringIO(run("sum", "--csv", path).output)))
    assert rows == [{name: str(value) for name, value in group.items()} for group in said["groups"]]
    assert [row["outcome"] for row in rows] == ["ok", "ok", "unknown"]


def test_programs_may_ask_for_fewer_dimensions(path: Path) -> None:
    rows = list(csv.DictReader(io.StringIO(run("sum", "--csv", "--by", "outcome", path).output)))
    assert [(row["outcome"], row["calls"], row["total"]) for row in rows] == [
        ("ok", "2", "2570"),
        ("unknown", "1", "0"),
    ]


def test_doubts_are_told_below_the_tables(tmp_path: Path) -> None:
    path = tmp_path / "usage.jsonl"
    opens = [records(f"{number}", 0)[0] for number in range(usage.SHOWN + 2)]
    path.write_bytes(lines(*opens) + b"garbage\n" + b'{"ev":"cl')
    shown = run("sum", path).output
    assert shown.endswith(
        "unknown: 2 more\ntorn lines, not counted: 1\n1 times a rule broken: see dashseek usage verify\n"
    )


def test_an_empty_journal_is_a_table_of_nothing(tmp_path: Path) -> None:
    path = tmp_path / "usage.jsonl"
    path.write_bytes(b"")
    assert "all      0" in run("sum", path).output
    assert run("verify", path).output == "0 calls, 0 unknown, 0 torn lines, no rule broken\n"


def test_a_file_that_is_not_there_is_code_2() -> None:
    assert run("sum", "/nowhere").exit_code == run("verify").exit_code == 2


def test_a_large_journal_has_a_progress_bar_for_those_who_watch(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(usage, "LARGE_BYTES", 1)
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    assert usage.verify([path]) == 0
    assert "reading" in terminal.getvalue()
    assert "100%" in terminal.getvalue()
    monkeypatch.setattr(sys, "stderr", plain := io.StringIO())
    assert usage.verify([path]) == 0
    assert plain.getvalue() == ""


# verify


def test_a_true_journal_is_code_0_and_its_unknown_calls_are_named(path: Path) -> None:
    """MET-2, MET-6."""
    path.write_bytes(path.read_bytes() + b'{"ev":"open"')
    ended = run("verify", path)
    assert ended.exit_code == 0
    assert ended.output.splitlines() == [
        f"{path}:5: unknown: the call 3 has no end: a crash, or still open",
        f"{path}:6: torn: cut off while it was written, and not counted",
        "3 calls, 1 unknown, 1 torn lines, no rule broken",
    ]


def test_a_broken_rule_is_code_1_and_named_with_its_line(path: Path) -> None:
    """MET-6."""
    first, last = records("4", 5)
    last["usage"] = last["usage"] | {"total_tokens": 7}
    path.write_bytes(path.read_bytes() + lines(first, last | {"outcome": "upstream_cut"}))
    ended = run("verify", path)
    assert ended.exit_code == 1
    assert f"{path}:7: I2: usage: 7 is not 1000 + 5\n" in ended.output
    assert ended.output.endswith("1 times a rule broken\n")


# tail


def test_tail_shows_the_last_calls_one_line_each(path: Path) -> None:
    failed = records("9", 8, outcome="upstream_error", code="InternalError", key_name=None, key_id=None)
    path.write_bytes(path.read_bytes() + lines(*failed))
    assert run("tail", "--no-follow", "-n", "2", path).output.splitlines() == [
        "2026-11-22 10:00:00.123  ok          deepseek-r1  9f86d081884c  1000+70 tokens  1.23 s  id-2",
        "2026-11-22 10:00:00.123  upstream_error  deepseek-v3  -  1000+8 tokens  1.23 s  id-9  InternalError",
    ]


def test_tail_begins_near_the_end_of_a_large_journal(path: Path) -> None:
    path.write_bytes(lines(*itertools.chain.from_iterable(records(f"{number}", 1) for number in range(2_000))))
    shown = run("tail", "--no-follow", "-n", "3", path).output
    assert [line.rpartition("  ")[2] for line in shown.splitlines()] == ["id-1997", "id-1998", "id-1999"]
    assert run("tail", "--no-follow", "-n", "0", path).output == ""


def test_tail_follows_calls_as_they_end_over_torn_pieces_and_rotation(
    path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """MET-6; what happens next happens whenever it has read all there is."""
    first, second, third = (lines(*records(call, 1)) for call in ("first", "second", "third"))

    def append(wire: bytes) -> None:
        with path.open("ab") as file:
            file.write(wire)

    def interrupt() -> None:
        raise KeyboardInterrupt

    events = [
        lambda: append(first[:-50]),
        lambda: append(first[-50:]),
        lambda: path.rename(path.with_suffix(".1")),
        lambda: append(second),
        lambda: append(b'{"ev":"close"\n' + third),
        interrupt,
    ]
    monkeypatch.setattr(time, "sleep", lambda _: events.pop(0)())
    before = os.listdir("/proc/self/fd")
    assert usage.tail(path, 1, follow=True) == 0
    shown = [line.rpartition("  ")[2] for line in capsys.readouterr().out.splitlines()]
    assert shown == ["id-2", "id-first", "id-second", "id-third"]
    assert os.listdir("/proc/self/fd") == before
