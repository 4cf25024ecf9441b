"""Claims about `dashseek usage reconcile`: differences with their reasons, for people and programs, and a verdict."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import orjson
import pytest
from click.testing import CliRunner, Result

from proxy.commands import cli
from tests.proxy.metering.records import closed, opened, used, write

AMOUNT = "user_id,start_time_iso,end_time_iso,model,api_key_name,api_key,type,price,amount"
COST = "user_id,start_time_iso,end_time_iso,model,wallet_type,cost,currency"
DAY = "2026-11-22T00:00:00+08:00,2026-11-23T00:00:00+08:00"


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    tokens = used(100, 10, 4, 64)
    gone = {"outcome": "client_gone_mid_stream", "basis": "counted"}
    return write(
        tmp_path / "usage.jsonl",
        *(opened("1"), closed("1", usage=tokens, generated=tokens)),
        *(opened("2"), closed("2", usage=tokens, generated=tokens, **gone)),
        opened("3"),
    )


def amount(path: Path, output: int, requests: int = 2, cached: int = 128) -> Path:
    rows = [
        f"u,{DAY},deepseek-chat,prod,sk,{type_},{price},{number}"
        for type_, price, number in (
            ("input_cache_hit_tokens", "0.0000002", cached),
            ("input_cache_miss_tokens", "0.000002", 72),
            ("output_tokens", "0.000008", output),
            ("request_count", "", requests),
        )
    ]
    path.write_text("\n".join([AMOUNT, *rows, ""]))
    return path


@pytest.fixture
def bill(tmp_path: Path) -> Path:
    return amount(tmp_path / "amount.csv", 1_020)


def run(*arguments: object) -> Result:
    ended = CliRunner().invoke(cli.dashseek, ["usage", "reconcile", *map(str, arguments)], prog_name="dashseek")
    assert ended.exception is None or isinstance(ended.exception, SystemExit)
    return ended


def test_a_bill_that_agrees_is_code_0(journal: Path, tmp_path: Path) -> None:
    ended = run(journal, "--bill", amount(tmp_path / "amount.csv", 20))
    assert ended.exit_code == 0
    assert ended.output.startswith("days of +08:00, 2026-11-22 to 2026-11-22\n")
    assert ended.output.endswith("\n4 lines compared: 4 agree, 0 differ within the tolerance, 0 beyond it\n")


BEFORE = (
    "not compared: 2 calls of the journal before the bill's first day (2026-11-20 to 2026-11-21), "
    "200 input and 20 output tokens"
)
AFTER = "not compared: 1 call of the journal after the bill's last day (2026-11-23), 100 input and 10 output tokens"
APART = "the bill and the journal have no day in common: no call was compared"


@pytest.fixture
def longer(journal: Path) -> Path:
    """The same, with calls on days before and after that of the bill."""
    tokens = used(100, 10, 4, 64)
    days = enumerate(("2026-11-20T10:00:00.000Z", "2026-11-21T10:00:00.000Z", "2026-11-22T16:00:00.000Z"))
    records = [closed(f"d{number}", at=at, usage=tokens, generated=tokens) for number, at in days]
    return write(journal, journal.read_bytes(), *records)


def test_calls_of_days_outside_the_bill_are_said_not_to_be_compared(longer: Path, tmp_path: Path) -> None:
    bill = amount(tmp_path / "amount.csv", 20)
    ended = run(longer, "--bill", bill)
    assert (ended.exit_code, ended.stdout.splitlines()[:4]) == (
        0,
        ["days of +08:00, 2026-11-22 to 2026-11-22", BEFORE, AFTER, ""],
    )
    for form in ("--json", "--csv"):
        ended = run(form, longer, "--bill", bill)
        assert (ended.exit_code, ended.stderr.splitlines()) == (0, [BEFORE, AFTER])
    said = orjson.loads(run("--json", longer, "--bill", bill).stdout)
    assert said["not_compared"] == {
        "before": {"calls": 2, "input": 200, "output": 20, "first_day": "2026-11-20", "last_day": "2026-11-21"},
        "after": {"calls": 1, "input": 100, "output": 10, "first_day": "2026-11-23", "last_day": "2026-11-23"},
    }


def test_a_bill_of_no_day_of_the_journal_is_code_1(journal: Path, tmp_path: Path) -> None:
    day = "2026-12-01T00:00:00+08:00,2026-12-02T00:00:00+08:00"
    (bill := tmp_path / "amount.csv").write_text(f"{AMOUNT}\nu,{day},deepseek-chat,prod,sk,output_tokens,,0\n")
    ended = run(journal, "--bill", bill)
    assert (ended.exit_code, ended.stdout.splitlines()[1].split(" (")[0], ended.stdout.splitlines()[2]) == (
        1,
        "not compared: 3 calls of the journal before the bill's first day",
        APART,
    )
    ended = run("--json", journal, "--bill", bill)
    assert (ended.exit_code, ended.stderr.splitlines()[-1]) == (1, APART)


def test_people_are_shown_each_difference_and_the_calls_that_can_be_why(journal: Path, bill: Path) -> None:
    ended = run(journal, "--bill", bill)
    assert ended.exit_code == 1
    assert ended.output.splitlines() == [
        "days of +08:00, 2026-11-22 to 2026-11-22",
        "",
        "all        bill  journal  difference",
        "cached      128      128           0",
        "input        72       72           0",
        "output    1,020       20       1,000",
        "requests      2        2           0",
        "",
        "day         model          key   type     bill  journal  difference",
        "2026-11-22  deepseek-chat  prod  output  1,020       20       1,000",
        "    1 call, 10 in the journal: the caller had left before upstream told its last figure (id-2)",
        "    1 call: has no end in the journal: a crash, or still open (id-3)",
        "",
        "4 lines compared: 3 agree, 0 differ within the tolerance, 1 beyond it",
    ]


def test_programs_get_the_same_as_json_and_csv(journal: Path, bill: Path) -> None:
    said = orjson.loads(run("--json", journal, "--bill", bill).stdout)
    assert said == {
        "tz": "+08:00",
        "lines": 4,
        "totals": {
            "cached": {"bill": "128", "journal": "128"},
            "input": {"bill": "72", "journal": "72"},
            "output": {"bill": "1020", "journal": "20"},
            "requests": {"bill": "2", "journal": "2"},
        },
        "within_tolerance": 0,
        "differences": [
            {
                "day": "2026-11-22",
                "model": "deepseek-chat",
                "key": "prod",
                "type": "output",
                "bill": "1020",
                "journal": "20",
                "difference": "1000",
                "causes": [
                    {"cause": "gone", "calls": 1, "journal": 10, "requests": ["id-2"]},
                    {"cause": "unknown", "calls": 1, "journal": None, "requests": ["id-3"]},
                ],
                "absence": None,
            }
        ],
        "not_compared": {
            side: {"calls": 0, "input": 0, "output": 0, "first_day": None, "last_day": None}
            for side in ("before", "after")
        },
    }
    (row,) = csv.DictReader(io.StringIO(run("--csv", journal, "--bill", bill).stdout))
    assert (row["difference"], row["why"]) == ("1000", "gone unknown")
    assert len({run("--json", journal, "--bill", bill).stdout_bytes for _ in range(2)}) == 1


@pytest.mark.parametrize(
    ("flags", "code"),
    [
        (["--tolerance", "999"], 1),
        (["--tolerance", "1000"], 0),
        (["--tolerance", "99%"], 0),
        (["--tolerance", "98%"], 1),
        (["--tolerance", "1%", "--tolerance", "1000"], 0),
    ],
)
def test_the_code_is_by_the_tolerance(journal: Path, bill: Path, flags: list[str], code: int) -> None:
    assert run(journal, "--bill", bill, *flags).exit_code == code


@pytest.mark.parametrize(
    ("flags", "code"),
    [
        ([], 1),
        (["--tolerance", "0"], 1),
        (["--tolerance", "0.5"], 1),
        (["--tolerance", "0.5%"], 1),
        (["--tolerance", "1"], 0),
        (["--tolerance", "0.78%"], 0),
    ],
)
def test_a_line_that_is_off_by_one_is_within_what_is_asked_for_alone(
    journal: Path, tmp_path: Path, flags: list[str], code: int
) -> None:
    assert run(journal, "--bill", amount(tmp_path / "amount.csv", 20, cached=129), *flags).exit_code == code


def test_money_is_compared_where_there_are_prices(journal: Path, bill: Path, tmp_path: Path) -> None:
    (cost := tmp_path / "cost.csv").write_text(f"{COST}\nu,{DAY},deepseek-chat,Paid,0.0083296,CNY\n")
    (prices := tmp_path / "prices.toml").write_text(
        '[[upstream]]\nmodel = "deepseek-chat"\nvalid_from = 2026-01-01T00:00:00Z\n'
        'currency = "CNY"\ninput = 2\ncached = 0.2\noutput = 8\n'
    )
    flags = ("--bill", bill, "--bill", cost, "--prices", prices, "--json")
    types = {row["type"]: row["difference"] for row in orjson.loads(run(journal, *flags).stdout)["differences"]}
    assert types == {"cost CNY": "0.008", "output": "1000"}


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--bill", __file__], "no layout is known for its columns"),
        (["--tolerance", "much"], "much: no tolerance; say 100 or 0.5%"),
        (["--tolerance", "-1"], "-1: no tolerance"),
        (["--mapping", __file__], "test_reconcile.py: "),
        (["--prices", __file__], "test_reconcile.py: "),
        (["--tz", "Mars"], "Mars: no such zone"),
    ],
)
def test_what_was_typed_wrongly_is_code_2_and_a_sentence(
    journal: Path, bill: Path, flags: list[str], sentence: str
) -> None:
    ended = run(journal, "--bill", bill, *flags)
    assert ended.exit_code == 2
    assert sentence in ended.stderr


def test_a_journal_that_could_not_be_read_whole_is_code_1(journal: Path, tmp_path: Path) -> None:
    journal.write_bytes(journal.read_bytes() + b"garbage\n")
    ended = run(journal, "--bill", amount(tmp_path / "amount.csv", 20))
    assert ended.exit_code == 1
    assert "MET-2" in ended.stderr


def test_a_bill_without_a_line_agrees_with_nothing(journal: Path, tmp_path: Path) -> None:
    (empty := tmp_path / "empty.csv").write_text(AMOUNT + "\n")
    ended = run(journal, "--bill", empty)
    assert (ended.exit_code, ended.output.splitlines()[0]) == (1, "days of UTC: the bill is empty")
