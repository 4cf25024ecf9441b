"""`--journal-file -`: the books on standard output, where containers keep theirs, whatever that output is."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from pathlib import Path

import orjson
import pytest

from tests import caller, forks
from tests.conftest import ROOT, StartSimulator


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_a_pipe_gets_the_books_and_nothing_else(workers: str, simulator: StartSimulator, tmp_path: Path) -> None:
    upstream = await simulator()
    flags = ("--upstream", upstream.url, "--port", "0", "--journal-file", "-", "--workers", workers)
    serving = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "proxy", "serve", *flags, "--auth", "any"),
        cwd=ROOT,
        env={**os.environ, "DASHSEEK_LOG_FORMAT": "json"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert serving.stderr is not None
    async with asyncio.timeout(60):
        while not (found := re.search(rb'"url":"(http[^"]+)"', await serving.stderr.readline())):
            pass
    for _ in range(3):
        assert (await caller.ask(found[1].decode(), caller.call())).status == 200
    serving.terminate()
    out, _ = await serving.communicate()
    assert serving.returncode == 0
    # An answer is out before its call is closed: of two processes the other one may open the next call first.
    events: dict[str, list[str]] = {}
    for line in map(orjson.loads, out.splitlines()):
        events.setdefault(line["call"], []).append(line["ev"])
    assert [*events.values()] == [["open", "close"]] * 3
    books = tmp_path / "calls.jsonl"
    books.write_bytes(out)
    verified = await asyncio.to_thread(forks.dashseek, "usage", "verify", str(books))
    assert verified.returncode == 0, verified.stdout


def test_check_says_that_it_can_be_used() -> None:
    assert forks.dashseek("check", "--upstream", "http://a", "--journal-file", "-").returncode == 0
