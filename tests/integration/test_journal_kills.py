"""Claims about journals whose writers are killed: totals of what was closed are exact, the rest is named as unknown."""

from __future__ import annotations

import contextlib
import random
import signal
import subprocess
import sys
from pathlib import Path

import orjson

from proxy.metering import ledger

ROOT = Path(__file__).parents[2]
ROUNDS = 12
WRITERS = 2

# A process that admits and ends calls until it is killed, forty open at a time, in a journal that rotates all along.
# It reports on a pipe, after the journal has it, what was opened and what was closed: the test's own books.
WRITER = """
import collections, itertools, os, pathlib, sys
sys.path.insert(0, {root!r})
from proxy.metering import append_file, journal
from tests.proxy.metering.test_journal import closed, opening
path, seed = pathlib.Path(sys.argv[1]), sys.argv[2]
book = journal.Journal(
    append_file.LineFile(path, max_bytes=50_000, sync="never", clock=itertools.count(0, 0.01).__next__), "refuse"
)
calls = collections.deque()
for number in itertools.count():
    name = f"{{seed}}-{{number}}"
    calls.append((name, number, book.open(opening(request_id=name))))
    os.write(1, b"+%s\\n" % name.encode())
    if len(calls) == 40:
        name, number, entry = calls.popleft()
        used = {{"input_tokens": number, "output_tokens": 1, "total_tokens": number + 1}}
        entry.close(closed(usage=used, generated=used))
        os.write(1, b"-%s\\n" % name.encode())
"""


def test_random_kills_leave_exact_totals_and_name_every_call_that_was_cut_off(tmp_path: Path) -> None:
    """MET-1, MET-2, row 64: several writers, one file, rotated while they die."""
    path = tmp_path / "usage.jsonl"
    dice = random.Random(64)
    opened: set[str] = set()
    closed: set[str] = set()
    kills = 0
    for round_number in range(ROUNDS):
        writers = [
            subprocess.Popen(
                [sys.executable, "-c", WRITER.format(root=str(ROOT)), str(path), f"{round_number}.{writer}"],
                stdout=subprocess.PIPE,
            )
            for writer in range(WRITERS)
        ]
        for writer in writers:
            assert writer.stdout is not None
            reports = [writer.stdout.readline() for _ in range(dice.randint(1, 800))]
            writer.send_signal(signal.SIGKILL)
            reports += writer.stdout.readlines()
            writer.stdout.close()
            writer.wait()
            for report in b"".join(reports).decode().splitlines():
                (opened if report.startswith("+") else closed).add(report[1:])
            kills += 1

    files = sorted(tmp_path.iterdir())
    assert len(files) > 5
    read = ledger.read(files, rules=ledger.RULES)
    assert read.violations == []
    # Linux looks for a kill between two pages: now and then one cuts a line in two.
    assert len(read.torn) <= kills
    ends = {record["request_id"]: record for record in _closes(files)}
    unknown = {call.opening["request_id"] for call in read.unknown}
    # A writer may die between its line in the journal and its report of it: one call of each is in doubt, no more.
    assert closed <= ends.keys()
    assert opened <= ends.keys() | unknown
    assert len(ends.keys() - closed) + len((ends.keys() | unknown) - opened) <= kills
    assert not ends.keys() & unknown
    total = sum(totals.total for totals in read.totals.values())
    assert total == sum(int(name.partition("-")[2]) + 1 for name in ends)


def _closes(files: list[Path]) -> list[ledger.Json]:
    """Read as simply as can be, so that the ledger's way of reading is not its own witness."""
    records = []
    for line in b"".join(file.read_bytes() for file in files).splitlines():
        with contextlib.suppress(orjson.JSONDecodeError):
            records.append(orjson.loads(line[max(0, line.rfind(b'{"ev":')) :]))
    return [record for record in records if record["ev"] == "close"]
