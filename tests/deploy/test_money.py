"""The pages and examples about money: every command of `money.md` is run, every example is loaded and used."""

from __future__ import annotations

import gzip
import os
import re
import subprocess
import sys
import threading
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path

import orjson
import pytest

from proxy.metering import ledger, prices
from proxy.metering import provider_bill as bills
from proxy.metering.append_file import LineFile
from proxy.metering.provider_bill import Cost
from tests.deploy.conftest import DEPLOY, passes, program, run
from tests.proxy.metering.records import closed, line, opened, used, write

BLOCKS = re.findall(r"```sh\n(.*?)```", (DEPLOY / "money.md").read_text(), re.DOTALL)
COMMANDS = [command for block in BLOCKS for command in block.replace("\\\n", " ").splitlines()]
DASHSEEK = [command for command in COMMANDS if command.startswith("dashseek ")]
DAY = "2026-11-22T00:00:00+08:00,2026-11-23T00:00:00+08:00"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A month's journal in two files, and the provider's export that agrees with it."""
    tokens = used(1_000, 200, 50, 640)
    for number, name in enumerate(("calls.jsonl", "calls.jsonl.1")):
        write(tmp_path / name, opened(f"a-{number}"), closed(f"a-{number}", usage=tokens, generated=tokens))
    (tmp_path / "calls.jsonl.2.gz").write_bytes(gzip.compress((tmp_path / "calls.jsonl.1").read_bytes()))
    rows = [
        f"u,{DAY},deepseek-chat,prod,sk,{type_},{price},{amount}"
        for type_, price, amount in (
            ("input_cache_miss_tokens", "0.0000015", 720),
            ("input_cache_hit_tokens", "0.00000003", 1280),
            ("output_tokens", "0.000006", 400),
            ("request_count", "", 2),
        )
    ]
    amount = "user_id,start_time_iso,end_time_iso,model,api_key_name,api_key,type,price,amount"
    cost = "user_id,start_time_iso,end_time_iso,model,wallet_type,cost,currency"
    with zipfile.ZipFile(tmp_path / "usage_data.zip", "w") as archive:
        archive.writestr("amount-2026-11-01_2026-11-30.csv", "\n".join([amount, *rows, ""]))
        archive.writestr("cost-2026-11-01_2026-11-30.csv", f"{cost}\nu,{DAY},deepseek-chat,Paid,0.0035184,CNY\n")
    (tmp_path / "deploy").symlink_to(DEPLOY)
    (dashseek := tmp_path / "bin" / "dashseek").parent.mkdir()
    dashseek.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m proxy "$@"\n')
    dashseek.chmod(0o755)
    return tmp_path


def shell(home: Path, command: str) -> subprocess.CompletedProcess[str]:
    path = {"PATH": f"{home / 'bin'}:{os.environ['PATH']}", "PYTHONPATH": str(DEPLOY.parent)}
    return subprocess.run(
        ["/bin/sh", "-c", command], cwd=home, env=os.environ | path, capture_output=True, text=True, check=False
    )


def test_there_are_commands_to_run() -> None:
    assert {command.split()[2] for command in DASHSEEK} == {"sum", "verify", "reconcile", "export"}


@pytest.mark.parametrize("command", DASHSEEK)
def test_every_command_of_the_page_does_what_it_says(home: Path, command: str) -> None:
    done = shell(home, command)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "calls.jsonl.2.gz: holds the same as calls.jsonl.1" in done.stderr


def test_the_end_of_a_month_says_what_is_owed_and_what_the_bill_says(home: Path) -> None:
    for command in BLOCKS[-1].replace("\\\n", " ").splitlines():
        assert shell(home, command).returncode == 0
    head, row = (home / "2026-11.csv").read_text().splitlines()
    report = dict(zip(head.split(","), row.split(","), strict=True))
    assert (report["calls"], report["total"]) == ("2", "2400")
    assert (report["revenue_CNY"], report["cost_CNY"], report["margin_CNY"]) == ("0.00512", "0.0035184", "0.0016016")
    bill = orjson.loads((home / "2026-11-bill.json").read_text())
    assert (bill["lines"], bill["differences"]) == (5, [])


def test_the_example_of_prices_can_be_reckoned_with() -> None:
    read = prices.load(DEPLOY / "prices.toml")
    assert {row.model for row in read.callers} == {"*", "deepseek-v3"}
    assert read.currencies("upstream") == {"CNY"}
    assert sum(len(row.windows) for row in read.upstream) == 1


def test_the_example_of_a_mapping_reads_what_it_describes(tmp_path: Path) -> None:
    mapped = bills.load_mapping(DEPLOY / "bill-mapping.toml")
    (long := tmp_path / "long.csv").write_text(
        "billing_time,model_name,key_name,item,quantity,unit_price\n2026-11-22,DeepSeek-V3,prod,Cached tokens,64,0.1\n"
    )
    (wide := tmp_path / "wide.csv").write_text(
        "date,model_name,prompt_tokens,completion_tokens,fee,currency\n2026-11-22,DeepSeek-V3,100,10,0.5,CNY\n"
    )
    bill = bills.load([long, wide], mapped, None)
    assert [(line.type, line.amount) for line in bill.lines] == [("cached", 64), ("prompt", 100), ("output", 10)]
    assert [cost.amount for cost in bill.costs] == [Decimal("0.5")]
    assert isinstance(bill.costs[0], Cost)
    assert mapped.keys == {"*": "prod"}


LONG = """billing_time,model_name,key_name,item,quantity,unit_price
2026-11-22,deepseek-chat,prod,Input tokens,720,0.000001
2026-11-22,deepseek-chat,prod,Cached tokens,1280,0.000001
2026-11-22,deepseek-chat,prod,Output tokens,400,0.000001
2026-11-22,deepseek-chat,prod,Calls,2,
"""
WIDE = """date,model_name,prompt_tokens,completion_tokens,fee,currency
2026-11-22,deepseek-chat,2000,400,0.5,CNY
"""
# An export, and how many lines it is.
LAYOUTS = {"long": (LONG, 4), "wide": (WIDE, 2)}


@pytest.mark.parametrize("names", [["long"], ["wide"], ["long", "wide"]], ids="+".join)
def test_a_bill_of_each_layout_of_the_example_agrees_with_the_journal(home: Path, names: list[str]) -> None:
    for name in names:
        (home / f"{name}.csv").write_text(LAYOUTS[name][0])
    # The long one has prices, which are not the whole of the fee.
    more = ["--tolerance", "1"] if len(names) > 1 else []
    bills = [word for name in names for word in ("--bill", f"{name}.csv")]
    mapping = ["--mapping", "deploy/bill-mapping.toml"]
    done = shell(home, " ".join(["dashseek usage reconcile calls.jsonl --json calls.jsonl.1", *bills, *mapping, *more]))
    assert done.returncode == 0, done.stdout + done.stderr
    compared = orjson.loads(done.stdout)
    assert (compared["differences"], compared["totals"]["output"]["bill"]) == ([], str(400 * len(names)))
    assert compared["lines"] == sum(LAYOUTS[name][1] for name in names) + bool(more)


def logrotate(home: Path, path: Path, *words: str) -> None:
    text = (DEPLOY / "logrotate" / "dashseek").read_text().replace("/var/lib/dashseek/calls.jsonl", str(path))
    (home / "rotate").write_text(text.replace("dateext", "dateext\n    dateformat -%s").replace("daily", "size 1"))
    passes("logrotate", "--state", home / "state", *words, home / "rotate")


def test_logrotate_takes_the_file_as_it_is(tmp_path: Path) -> None:
    """It complains of a word it does not know and goes on all the same."""
    wrong = tmp_path / "rotate"
    wrong.write_text((DEPLOY / "logrotate" / "dashseek").read_text().replace("nocreate", "nocreat"))
    assert "unknown option 'nocreat'" in run("logrotate", "--debug", wrong).stderr
    done = run("logrotate", "--debug", DEPLOY / "logrotate" / "dashseek")
    assert done.returncode == 0
    assert not re.search("error|unknown|insecure", done.stderr)


def test_no_line_is_lost_where_logrotate_renames_the_file_under_writing(tmp_path: Path) -> None:
    """Within a second the new file is there; with copytruncate some lines would be in neither."""
    program("logrotate")
    path = tmp_path / "calls.jsonl"
    over = threading.Event()
    with ThreadPoolExecutor(1) as writer:
        calls = writer.submit(_write, LineFile(path, max_bytes=None, sync="never"), over)
        try:
            for _ in range(3):
                _wait_for(path)
                logrotate(tmp_path, path, "--force")
            _wait_for(path)
        finally:
            over.set()
        written = calls.result()
    files = list(tmp_path.glob("calls.jsonl*"))
    assert len(files) == 4
    read = ledger.read(files, rules=ledger.RULES)
    assert (read.violations, read.unknown, read.begun_elsewhere) == ([], [], 0)
    assert sum(totals.calls for totals in read.totals.values()) == written


def _wait_for(path: Path) -> None:
    """Until there is something in it that can be rotated; and a second, for rotated files are named by it."""
    end = time.monotonic() + 30
    while not path.exists() or not path.stat().st_size:
        assert time.monotonic() < end, "nobody writes"
        time.sleep(0.05)
    time.sleep(1)


def _write(file: LineFile, over: threading.Event) -> int:
    calls = 0
    while not over.wait(0.001):
        calls += 1
        file.append(line(opened(f"a-{calls:x}")))
        file.append(line(closed(f"a-{calls:x}")))
    file.close()
    return calls
