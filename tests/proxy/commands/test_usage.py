"""Claims about `dashseek usage`: a table for people, rows for programs, a verdict with a code, a tail that keeps up."""

from __future__ import annotations

import csv
import gc
import gzip
import io
import itertools
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import orjson
import pytest
from click.testing import CliRunner, Result

from proxy.commands import cli, usage
from proxy.metering import ledger

Json = dict[str, Any]


# The second line of a table's head.
COLUMNS = (
    "calls",
    "input",
    "cached",
    "output",
    "reasoning",
    "total",
    *("input", "cached", "output", "reasoning", "calls"),
)


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
    ended = CliRunner().invoke(cli.dashseek, ["usage", *map(str, arguments)], prog_name="dashseek")
    assert ended.exception is None or isinstance(ended.exception, SystemExit)
    return ended


def test_what_is_not_named_is_counted(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of something else breaks a rule in each of its lines."""
    monkeypatch.setattr(ledger, "NAMED", 2)
    path.write_bytes(b"x\n" * 5 + b'{"ev"\n' * 3)
    assert run("verify", path).output.splitlines() == [
        f"{path}:1: MET-2: not a line of a journal",
        f"{path}:2: MET-2: not a line of a journal",
        "and 3 more, which are not named",
        f"{path}:6: torn: cut off while it was written, and not counted",
        f"{path}:7: torn: cut off while it was written, and not counted",
        "and 1 more torn lines, which are not named",
        "0 calls, 0 unknown, 3 torn lines, 5 times a rule broken",
    ]
    said = orjson.loads(run("sum", "--json", path).stdout)
    assert (len(said["violations"]), said["violations_total"], len(said["torn"]), said["torn_total"]) == (2, 5, 2, 3)


# sum


def test_people_get_a_table_for_each_dimension_and_the_unknown_calls_by_name(path: Path) -> None:
    """MET-6."""
    shown = run("sum", "--tz", "UTC", path).output
    head, blank, *table = shown.splitlines()[:7]
    assert (head, blank) == ("hours, days and months: UTC", "")
    assert [line.split() for line in table] == [
        ["generated"] * 4 + ["upstream"],
        [
            "day",
            "calls",
            "input",
            "cached",
            "output",
            "reasoning",
            "total",
            "input",
            "cached",
            "output",
            "reasoning",
            "calls",
        ],
        ["2026-11-22", "2", "2,000", "0", "570", "0", "2,570", "2,000", "0", "570", "0", "2"],
        ["2026-11-23", "1", "0", "0", "0", "0", "0", "0", "0", "0", "0", "0"],
        ["all", "3", "2,000", "0", "570", "0", "2,570", "2,000", "0", "570", "0", "2"],
    ]
    assert len({len(line) for line in table}) == 1
    for begin in ("model  ", "key  ", "outcome  "):
        assert f"\n{begin}" in shown
    assert "\nunknown      1      0 " in shown
    assert f"unknown: 2026-11-23T10:00:00.123Z deepseek-v3 team a id-3 ({path}:5)" in shown


def test_one_table_by_what_is_asked_for(path: Path) -> None:
    shown = run("sum", "--by", "key", "--by", "model", path).output
    assert [line.split("  ")[0] for line in shown.splitlines()[3:7]] == ["key", "9f86d081884c", "team a", "all"]
    assert [line.split()[-11] for line in shown.splitlines()[4:7]] == ["1", "2", "3"]


def test_programs_get_rows_of_the_finest_grain(path: Path) -> None:
    """MET-6: JSON and CSV say the same."""
    said = orjson.loads(run("sum", "--json", path).output)
    assert said["total"] == {
        "calls": 3,
        "input": 2000,
        "cached": 0,
        "output": 570,
        "reasoning": 0,
        "total": 2570,
        "generated_input": 2000,
        "generated_cached": 0,
        "generated_output": 570,
        "generated_reasoning": 0,
        "upstream_calls": 2,
    }
    assert [unknown["request_id"] for unknown in said["unknown"]] == ["id-3"]
    assert (said["torn"], said["violations"], said["copies"]) == ([], [], [])
    rows = list(csv.DictReader(io.StringIO(run("sum", "--csv", path).stdout)))
    assert rows == [{name: str(value) for name, value in group.items()} for group in said["groups"]]
    assert [row["outcome"] for row in rows] == ["ok", "ok", "unknown"]


def test_json_is_written_as_if_it_were_written_at_once(path: Path) -> None:
    empty = path.with_name("empty.jsonl")
    empty.touch()
    for journal in (path, empty):
        told = run("sum", "--json", journal).stdout_bytes
        assert told == orjson.dumps(orjson.loads(told), option=orjson.OPT_INDENT_2) + b"\n"


def test_no_more_groups_are_kept_than_are_asked_for(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So a long journal of many keys needs the room of its report, and no more."""
    kept: list[int] = []

    def read(*args: Any, **named: Any) -> ledger.Ledger:
        books = reading(*args, **named)
        kept.append(len(books.totals))
        return books

    reading = ledger.read
    monkeypatch.setattr(ledger, "read", read)
    for flags in (("--by", "month"), ("--by", "outcome"), ("--by", "day", "--by", "model")):
        run("sum", "--csv", *flags, path)
    assert kept == [1, 2, 3]


def test_programs_may_ask_for_fewer_dimensions(path: Path) -> None:
    rows = list(csv.DictReader(io.StringIO(run("sum", "--csv", "--by", "outcome", path).stdout)))
    assert [(row["outcome"], row["calls"], row["total"]) for row in rows] == [
        ("ok", "2", "2570"),
        ("unknown", "1", "0"),
    ]


@pytest.mark.parametrize(
    ("by", "said"),
    [
        ("hour", ["2026-11-22T18+08:00", "2026-11-23T18+08:00"]),
        ("day", ["2026-11-22", "2026-11-23"]),
        ("month", ["2026-11"]),
        ("pool", ["-", "http://a"]),
        ("upstream_model", ["deepseek-chat"]),
        ("basis", ["unknown", "upstream_final"]),
        ("outcome", ["ok", "unknown"]),
    ],
)
def test_a_report_can_be_by_each_dimension(path: Path, by: str, said: list[str]) -> None:
    rows = csv.DictReader(io.StringIO(run("sum", "--csv", "--by", by, "--tz", "Asia/Shanghai", path).stdout))
    assert [row[by] for row in rows] == said


def test_calls_are_told_apart_by_the_tongue_they_came_in(tmp_path: Path) -> None:
    """COM-31: lines that were written before there was another are DashScope's."""
    path = tmp_path / "usage.jsonl"
    path.write_bytes(lines(*records("1", 5), *records("2", 7, api="dashscope"), *records("3", 9, api="openai")))
    rows = csv.DictReader(io.StringIO(run("sum", "--csv", "--by", "api", path).stdout))
    assert [(row["api"], row["calls"], row["output"]) for row in rows] == [
        ("dashscope", "2", "12"),
        ("openai", "1", "9"),
    ]


def test_a_pool_is_named_where_the_journal_names_it(path: Path) -> None:
    path.write_bytes(lines(*records("1", 5, attempts=[{"target": "http://a", "result": "200", "pool": "gpus"}])))
    assert run("sum", "--csv", "--by", "pool", path).stdout.splitlines()[1].startswith("gpus,1,")


def test_since_and_until_are_moments_of_the_zone(path: Path) -> None:
    def calls(*flags: str) -> int:
        total: int = orjson.loads(run("sum", "--json", *flags, path).output)["total"]["calls"]
        return total

    assert calls("--tz", "UTC", "--since", "2026-11-23") == 1
    assert calls("--tz", "UTC", "--until", "2026-11-23") == 2
    assert calls("--tz", "-10:00", "--since", "2026-11-22T00:00", "--until", "2026-11-22T00:01") == 2
    assert calls("--tz", "Asia/Shanghai", "--since", "2026-12") == 0
    shown = run("sum", "--tz", "Asia/Shanghai", "--since", "2026-11", "--until", "2026-12", path).output
    assert shown.startswith(
        "hours, days and months: Asia/Shanghai, from 2026-10-31T16:00:00.000Z, until 2026-11-30T16:00:00.000Z\n"
    )
    assert run("sum", "--tz", "UTC", path).output.startswith("hours, days and months: UTC\n")


def test_what_programs_read_names_the_span_where_one_was_asked_for(path: Path) -> None:
    def span(*flags: str) -> tuple[str | None, str | None]:
        told = orjson.loads(run("sum", "--json", "--tz", "UTC", *flags, path).output)
        return told["since"], told["until"]

    november, december = "2026-11-01T00:00:00.000Z", "2026-12-01T00:00:00.000Z"
    assert span() == (None, None)
    assert span("--since", "2026-11") == (november, None)
    assert span("--until", "2026-12") == (None, december)
    assert span("--since", "2026-11", "--until", "2026-12") == (november, december)


def test_the_machines_zone_is_said_in_the_head(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    said = "hours, days and months: Asia/Tokyo (of this machine; see --tz)\n"
    assert run("sum", path).stdout.startswith(said)
    assert run("sum", "--csv", path).stderr == said
    assert orjson.loads(run("sum", "--json", path).stdout)["tz"] == "Asia/Tokyo"


PRICES = """zone = "Asia/Shanghai"
[[callers]]
model = "*"
valid_from = 2026-01-01
currency = "CNY"
input = 3
cached = 1
output = 12
[[upstream]]
model = "deepseek-chat"
valid_from = 2026-01-01
currency = "CNY"
input = 2
cached = 0.2
output = 8.000001
[[upstream]]
model = "deepseek-reasoner"
valid_from = 2026-01-01
currency = "USD"
input = 1
cached = 1
output = 1
"""


@pytest.fixture
def prices(tmp_path: Path) -> Path:
    (path := tmp_path / "prices.toml").write_text(PRICES)
    return path


def test_prices_add_columns_of_money_exactly(path: Path, prices: Path) -> None:
    path.write_bytes(lines(*records("1", 500), *records("2", 70, upstream_model="deepseek-reasoner")))
    ended = run("sum", "--json", "--by", "upstream_model", "--prices", prices, path)
    groups = {group.pop("upstream_model"): group for group in orjson.loads(ended.stdout)["groups"]}
    money = {
        model: {name: sums[name] for name in sums if "_CNY" in name or "_USD" in name} for model, sums in groups.items()
    }
    assert money == {
        "deepseek-chat": {
            "revenue_CNY": "0.009",
            "cost_CNY": "0.0060000005",
            "cost_USD": "0.00",
            "margin_CNY": "0.0029999995",
        },
        "deepseek-reasoner": {
            "revenue_CNY": "0.00384",
            "cost_CNY": "0.00",
            "cost_USD": "0.00107",
            "margin_CNY": "0.00384",
        },
    }
    assert ended.exit_code == 0
    table = run("sum", "--by", "model", "--prices", prices, path).output.splitlines()
    assert table[2].split()[-4:] == ["revenue", "cost", "cost", "margin"]
    assert table[3].split()[-4:] == ["CNY", "CNY", "USD", "CNY"]
    assert table[5].split()[-4:] == ["0.01284", "0.0060000005", "0.00107", "0.0068399995"]


def test_a_call_of_as_many_tokens_either_way_is_named_where_it_has_no_price(path: Path, prices: Path) -> None:
    prices.write_text(PRICES.replace('"deepseek-chat"', '"other"'))
    path.write_bytes(lines(*records("1", 1_000)))
    ended = run("sum", "--csv", "--tz", "UTC", "--prices", prices, path)
    assert "no price under [[upstream]] for 1 calls of deepseek-chat" in ended.stderr
    assert gc.isenabled()


def test_calls_without_a_price_are_named_and_are_code_1(path: Path, prices: Path) -> None:
    prices.write_text(PRICES.replace('model = "*"', 'model = "other"').replace('"deepseek-chat"', '"other"'))
    ended = run("sum", "--csv", "--tz", "UTC", "--prices", prices, path)
    assert ended.exit_code == 1
    owed = "what they owe is in no sum, so revenue and margin are too small"
    cost = "what they cost is in no sum, so cost is too small and margin too large"
    assert ended.stderr.splitlines() == [
        f"no price under [[callers]] for 1 calls of deepseek-r1: {owed}",
        f"no price under [[callers]] for 1 calls of deepseek-v3: {owed}",
        f"no price under [[upstream]] for 2 calls of deepseek-chat: {cost}",
    ]
    prices.write_text("")
    assert run("sum", "--prices", prices, path).exit_code == 0


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (("--tz", "Mars"), "Mars: no such zone"),
        (("--since", "yesterday"), "yesterday: no time; say"),
        (("--since", "2026-12", "--until", "2026-11"), "nothing lies from 2026-12 until 2026-11"),
        (("--prices", __file__), "test_usage.py: "),
        (("--by", "colour"), "'colour' is not one of"),
    ],
)
def test_what_was_typed_wrongly_is_code_2_and_a_sentence(path: Path, flags: tuple[str, ...], sentence: str) -> None:
    ended = run("sum", *flags, path)
    assert ended.exit_code == 2
    assert sentence in ended.stderr
    assert "Traceback" not in ended.output


@pytest.mark.parametrize("form", ["", "--csv", "--json"])
def test_a_reader_that_has_enough_is_no_error(path: Path, form: str) -> None:
    """`dashseek usage sum calls.jsonl | head -1`: its end is closed before anything is written."""
    reading, writing = os.pipe()
    os.close(reading)
    # Python itself holds back what goes into a pipe, unless that is set.
    environ = {name: said for name, said in os.environ.items() if name != "PYTHONUNBUFFERED"}
    words = ("usage", "sum", "--tz", "UTC", *filter(None, [form]), str(path))
    command = [sys.executable, "-m", "proxy", *words]
    ended = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, env=environ, check=False)
    os.close(writing)
    assert (ended.returncode, ended.stderr) == (1, b"")


def test_what_could_not_be_read_is_told_on_stderr_and_by_the_code(tmp_path: Path) -> None:
    """MET-6."""
    path = tmp_path / "usage.jsonl"
    opens = [records(f"{number}", 0)[0] for number in range(usage.SHOWN + 2)]
    path.write_bytes(lines(*opens) + b"garbage\n" + b'{"ev":"cl')
    for form in ((), ("--json",), ("--csv",)):
        ended = run("sum", "--tz", "UTC", *form, path)
        assert ended.exit_code == 1
        assert ended.stderr == (
            "torn lines, not counted: 1\n"
            f"{path}:23: MET-2: not a line of a journal\n"
            "1 times a rule broken: see dashseek usage verify\n"
        )
    assert run("sum", path).stdout.endswith("unknown: 2 more\n")
    path.write_bytes(lines(*opens[: usage.SHOWN]))
    assert " more" not in run("sum", path).stdout


def test_a_copy_is_named_on_stderr_and_no_fault(path: Path) -> None:
    (copy := path.with_suffix(".jsonl.1")).write_bytes(path.read_bytes())
    for command in (("sum", "--tz", "UTC", "--json"), ("verify",)):
        ended = run(*command, path, copy)
        assert ended.exit_code == 0
        assert ended.stderr == f"{copy}: holds the same as {path}, and is not counted again\n"
    assert orjson.loads(run("sum", "--json", path, copy).stdout)["total"]["calls"] == 3


def test_a_file_that_may_not_be_read_is_a_sentence(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", refuse)
    for command in ("sum", "verify"):
        ended = run(command, path)
        assert (ended.exit_code, ended.output) == (1, f"Error: {path}: Permission denied\n")


def test_the_same_report_is_the_same_bytes_whatever_the_order_of_the_files(path: Path, prices: Path) -> None:
    other = path.with_suffix(".jsonl.1")
    other.write_bytes(lines(*records("8", 3, at="2026-11-21T10:00:00.000Z"), records("9", 1)[0]) + b"garbage\n")
    (copy := path.with_suffix(".copy")).write_bytes(other.read_bytes())
    files = [path, other, copy]
    for form in ((), ("--json",), ("--csv",)):
        shown = {run("sum", "--prices", prices, *form, *order).output for order in itertools.permutations(files)}
        assert len(shown) == 1
    assert len({run("verify", *order).output for order in itertools.permutations(files)}) == 1


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

    monkeypatch.setattr(usage, "LARGE_BYTES", path.stat().st_size)
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    assert usage.verify([path]) == 0
    assert "reading" in terminal.getvalue()
    assert "100%" in terminal.getvalue()
    monkeypatch.setattr(sys, "stderr", plain := io.StringIO())
    assert usage.verify([path]) == 0
    assert plain.getvalue() == ""


def test_nobody_looks_for_cycles_while_journals_are_read(path: Path) -> None:
    with usage.reading([path]):
        assert not gc.isenabled()
    assert gc.isenabled()


# verify


def test_a_true_journal_is_code_0_and_its_unknown_calls_are_named(path: Path) -> None:
    """MET-2, MET-6."""
    path.write_bytes(path.read_bytes() + b'{"ev":"open"')
    ended = run("verify", path)
    assert ended.exit_code == 0
    assert ended.output.splitlines() == [
        f"{path}:5: unknown: the call 3 has no end here: a crash, still open, or in another file",
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


def test_a_rotated_file_by_itself_is_code_0_where_its_borders_cut_calls(path: Path) -> None:
    """MET-6."""
    path.write_bytes(lines(*list(map(orjson.loads, path.read_bytes().splitlines()[1:]))))
    ended = run("verify", path)
    assert ended.exit_code == 0
    assert ended.output.endswith("3 calls, 1 unknown, 1 begun in another file, 0 torn lines, no rule broken\n")


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


def test_tail_looks_no_further_back_than_a_call_can_be_long(path: Path) -> None:
    far, near = (lines(records(call, 1)[1]) for call in ("far", "near"))
    for between, shown in ((0, ["id-far", "id-near"]), (2 * usage.CALL_BYTES, ["id-near"])):
        path.write_bytes(far + b"x" * between + b"\n" + near)
        told = run("tail", "--no-follow", "-n", "2", path).output.splitlines()
        assert [line.rpartition("  ")[2] for line in told] == shown


def test_tail_shows_a_call_in_the_first_line(path: Path) -> None:
    path.write_bytes(lines(records("1", 1)[1]))
    assert run("tail", "--no-follow", path).output.count("id-1") == 1


def test_tail_follows_a_line_of_which_a_piece_is_there(
    path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (line,) = lines(*records("first", 1)).splitlines(keepends=True)[1:]
    path.write_bytes(line[:-50])

    def rest() -> None:
        with path.open("ab") as file:
            file.write(line[-50:])

    def interrupt() -> None:
        raise KeyboardInterrupt

    events = [rest, interrupt]
    monkeypatch.setattr(time, "sleep", lambda _: events.pop(0)())
    assert usage.tail(path, 1, follow=True) == 0
    assert capsys.readouterr().out.count("id-first") == 1


def test_a_report_that_is_interrupted_is_no_answer(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object, **__: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(usage, "show_sum", interrupt)
    path.write_bytes(b"")
    assert run("sum", path).exit_code == 130


def test_a_dimension_that_is_asked_for_twice_is_one_column(path: Path) -> None:
    path.write_bytes(lines(*records("1", 1)))
    assert run("sum", "--csv", "--by", "model", "--by", "day", "--by", "model", path).stdout.startswith(
        "model,day,calls"
    )


def test_tail_of_a_packed_file_says_that_it_is_one(path: Path) -> None:
    """It would show nothing, for ever."""
    path.write_bytes(gzip.compress(lines(*records("first", 1))))
    ended = run("tail", path)
    assert (ended.exit_code, ended.stdout) == (1, "")
    assert ended.stderr == f"Error: {path}: is packed, and nothing comes to it any more: unpack it first\n"


def test_tail_says_that_a_line_is_no_record_and_goes_on(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Damaged, or of another version."""
    damaged = [b'{"ev":"close"}\n', b'{"ev":"close",nonsense}\n', b'{"ev":"close","usage":3,"code":null}\n']
    path.write_bytes(b"".join(damaged) + lines(*records("first", 1)))
    assert usage.tail(path, 9, follow=False) == 0
    shown = capsys.readouterr()
    assert [line.rpartition("  ")[2] for line in shown.out.splitlines()] == ["id-first"]
    assert shown.err.splitlines() == [
        "a line is not a record, and not shown: usage is missing",
        "a line is not a record, and not shown: no JSON",
        "a line is not a record, and not shown: key_name is missing",
    ]


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
