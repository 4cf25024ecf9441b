"""200 random `kill -9` of `serve` under load: totals of what was closed are exact, the rest is named as unknown.

The real command, each time a process of its own; a fork server that has read the code and the vocabulary once starts it
in milliseconds. Several run side by side on one journal, which is moved away now and then.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import random
import sys
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import orjson
import pytest

import proxy.server.process
from proxy import vocabulary
from proxy.commands import cli
from proxy.metering import ledger
from tests import caller, forks, load
from tests.conftest import READY
from tests.integration.test_books import simulated, simulating

KILLS = 200
SIDE_BY_SIDE = 4
WORKERS = 6
LONGEST_LIFE_S = 0.35
ROTATE_EVERY = 10
WORDS = "one two three four five six"

Json = dict[str, Any]

# What the fork server does once: it imports this module, for the function it is to run.
assert proxy.server.process
vocabulary.load()


def serve(flags: Sequence[str], said: Connection) -> None:
    """`dashseek serve`, its standard output a pipe."""
    # The settings of whoever runs the tests are not the settings under test.
    for name in [name for name in os.environ if name.startswith("DASHSEEK_")]:
        del os.environ[name]
    os.dup2(said.fileno(), 1)
    sys.stdout = os.fdopen(1, "w", closefd=False)
    cli.dashseek.main(["serve", *flags], prog_name="dashseek")


def one(dice: random.Random) -> load.Call:
    body = caller.call(simulated(text=WORDS, gap_s=dice.choice((0, 0.005, 0.02))), incremental_output=True)
    leaves = dice.random() < 0.2
    return load.Call("text", body, dice.random() < 0.7, "half-close" if leaves else None, 1 if leaves else 0)


class Slot:
    """One place for a process, which is killed and started again."""

    def __init__(self, flags: Sequence[str], dice: random.Random) -> None:
        self._flags = flags
        self._dice = dice
        self._context = multiprocessing.get_context("forkserver")
        self.heard: list[load.Heard] = []

    async def live_and_die(self) -> None:
        """One life: it serves until it is killed."""
        hears, says = self._context.Pipe(duplex=False)
        process = self._context.Process(target=serve, args=(self._flags, says))
        process.start()
        says.close()
        told = await asyncio.to_thread(os.read, hears.fileno(), 200)
        found = READY.search(told.decode())
        assert found is not None, told
        calling = asyncio.create_task(self._call(found[1], dead := asyncio.Event()))
        await asyncio.sleep(self._dice.random() * LONGEST_LIFE_S)
        process.kill()
        dead.set()
        # Here and not in a thread: whoever starts a process looks after all others, and only one can hear of an end.
        process.join()
        assert process.exitcode == -9
        hears.close()
        await calling

    async def _call(self, url: str, dead: asyncio.Event) -> None:
        def calls() -> Any:
            while not dead.is_set():
                yield one(self._dice)

        self.heard += await load.run([url], calls(), workers=WORKERS, dice=self._dice)


async def _many_lives(path: Path) -> list[load.Heard]:
    with simulating() as upstream:
        flags = ("--upstream", upstream, "--port", "0", "--journal-file", str(path))
        slots = [Slot((*flags, "--log-level", "error"), random.Random(number)) for number in range(SIDE_BY_SIDE)]

        async def often(slot: Slot) -> None:
            for life in range(KILLS // SIDE_BY_SIDE):
                await slot.live_and_die()
                if slot is slots[0] and not life % ROTATE_EVERY:
                    # As logrotate does; whoever lives now writes on into the file it has.
                    os.rename(path, f"{path}.{life}")

        await asyncio.gather(*map(often, slots))
    return [got for slot in slots for got in slot.heard]


@pytest.mark.timeout(600)
def test_random_kills_leave_exact_totals_and_name_every_call_that_was_cut_off(tmp_path: Path) -> None:
    """MET-1, MET-2; SOURCES#fault-matrix row 64."""
    multiprocessing.set_forkserver_preload([__name__])
    heard = asyncio.run(_many_lives(tmp_path / "calls.jsonl"))

    files = sorted(tmp_path.iterdir())
    assert len(files) > 1
    read = ledger.read(files, rules=ledger.RULES)
    assert read.violations == []
    # Linux looks for a kill between two pages: now and then one cuts a line in two.
    assert len(read.torn) <= KILLS
    closes = {record["request_id"]: record for record in _closes(files)}
    unknown = {call.opening["request_id"] for call in read.unknown}

    # Every call that got as much as a byte is in the books, once: with its end, or by name as unknown.
    assert not closes.keys() & unknown
    assert {got.call.known_as for got in heard if got.said} <= closes.keys() | unknown
    assert closes.keys() | unknown <= {got.call.known_as for got in heard}
    assert min(len(closes), len(unknown)) > KILLS / 2
    # A life has no more calls open than it has callers.
    assert len(unknown) <= KILLS * WORKERS

    # Exact: what was closed is what callers saw who got their end.
    ended = [got for got in heard if got.ended and got.call.known_as in closes]
    assert len(ended) > len(closes) / 2
    for got in ended:
        billed = closes[got.call.known_as]["usage"]
        assert (billed["input_tokens"], billed["output_tokens"]) == got.used
    known = [totals for group, totals in read.totals.items() if group.outcome != ledger.UNKNOWN]
    assert sum(totals.calls for totals in known) == len(closes)
    assert sum(totals.total for totals in known) == sum(record["usage"]["total_tokens"] for record in closes.values())

    # And so says the command.
    verified = forks.dashseek("usage", "verify", *map(str, files))
    assert verified.returncode == 0, verified.stdout[-2000:]
    assert verified.stdout.count(": unknown: ") == len(unknown)
    last = f"{len(closes) + len(unknown)} calls, {len(unknown)} unknown, {len(read.torn)} torn lines, no rule broken\n"
    assert verified.stdout.endswith(last)


def _closes(files: Sequence[Path]) -> list[Json]:
    """Read as simply as can be, so that the ledger's way of reading is not its own witness."""
    whole = [line for line in b"".join(file.read_bytes() for file in files).splitlines() if line.endswith(b"}")]
    records = [orjson.loads(line[line.rfind(b'{"ev":') :]) for line in whole]
    return [record for record in records if record["ev"] == "close"]
