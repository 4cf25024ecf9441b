"""Instructions for each call or chunk, by callgrind: what `run` measures in CPU time, whoever else wants the cores.

    python -m tests.bench.instructions [--calls N] [--keep DIRECTORY] [ROW ...]

Two runs of one tree differ by a fifth of a per cent, so that a step of one shows, and by several of a chunk; the
kernel's part and what caches cost do not. `--keep` leaves callgrind's files, for `callgrind_annotate --inclusive=yes
--tree=both`.
"""

# ruff: noqa: T201 - a table is what this is for

from __future__ import annotations

import argparse
import asyncio
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

from tests.bench import load
from tests.bench.load import Ask

ROWS: Final[Mapping[str, Ask]] = {
    "small JSON call": Ask(20, stream=False),
    "start of a stream": Ask(1),
    "compatible, small JSON call": Ask(20, stream=False, compatible=True),
}
# A chunk's are what a stream of twice as many takes more: without its start. A pause that is long enough for a process
# under callgrind, so that each write is a read: after 5 ms on a busy machine some are two, and cost less.
CHUNKS: Final[Mapping[str, Ask]] = {
    "burst of 16, a chunk": Ask(160, burst=16, gap_s=0.02),
    "paced, a chunk": Ask(160, gap_s=0.015),
    "compatible, burst of 16, a chunk": Ask(160, burst=16, gap_s=0.02, compatible=True),
    "compatible, paced, a chunk": Ask(160, gap_s=0.015, compatible=True),
}
# So many streams of them are counted, one for each of so many calls.
CALLS_FOR_A_STREAM: Final = 30
# So many calls until the interpreter has specialised what they run, and so many more with callgrind at work.
WARM: Final = 300
SETTLED: Final = 20
# What follows an answer (its record, the log's thread) has ended after so long.
REST_S: Final = 0.3
TOTAL: Final = re.compile(r"^(?:summary|totals): *(\d+)", re.MULTILINE)


@contextmanager
def _started(*words: str) -> Iterator[tuple[str, int]]:
    """A process: its URL and its process id."""
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout is not None
            found = re.search(r"http://\S+", process.stdout.readline())
            assert found is not None, words
            yield found[0], process.pid
        finally:
            process.terminate()


def _tell(pid: int, *words: str) -> None:
    subprocess.run(["callgrind_control", *words, str(pid)], check=True, capture_output=True)


async def _call(url: str, pid: int, ask: Ask, calls: int, *, warm: int, settled: int) -> None:
    """Let callgrind write down so many calls, one after the other on one connection."""
    wire = ask.wire()
    async with load.connected(url) as (reader, writer):

        async def make(number: int) -> None:
            for _ in range(number):
                writer.write(wire)
                async for _ in load.reads(reader):
                    pass
            await asyncio.sleep(REST_S)

        await make(warm)
        _tell(pid, "--instr=on")
        await make(settled)
        _tell(pid, "--zero")
        await make(calls)
        _tell(pid, "--dump")
        _tell(pid, "--instr=off")


def _written(directory: Path) -> int:
    """The instructions of what callgrind has written down last."""
    newest = max(directory.glob("*.*"), key=lambda file: int(file.suffix[1:]))
    found = TOTAL.search(newest.read_text())
    assert found is not None, newest
    return int(found[1])


def main() -> None:
    """Print what each row costs the pass-through and us."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=300, help="how many calls are counted")
    parser.add_argument("--keep", type=Path, help="leave what callgrind writes there")
    names = "; ".join((*ROWS, *CHUNKS))
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"a part of a name, of: {names}")
    chosen = parser.parse_args()
    if shutil.which("valgrind") is None:
        sys.exit("needs valgrind: apt-get install valgrind")
    # Or the order of sets and dictionaries would make every run another one.
    os.environ["PYTHONHASHSEED"] = "0"
    rows, chunks = (
        {name: ask for name, ask in some.items() if not chosen.rows or any(word in name for word in chosen.rows)}
        for some in (ROWS, CHUNKS)
    )
    counts: dict[str, list[float]] = {name: [] for name in (*rows, *chunks)}
    streams = max(1, chosen.calls // CALLS_FOR_A_STREAM)
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        before, _ = stack.enter_context(_started(sys.executable, "-m", "tests.bench.upstream"))
        said = ("--port", "0", "--admin-port", "0", "--journal-file", str(scratch / "calls.jsonl"))
        peers = {
            "pass-through": ("tests.bench.passthrough", before),
            "dashseek": ("proxy", "serve", "--upstream", before, *said),
        }
        for peer, words in peers.items():
            directory = (chosen.keep or scratch) / peer
            directory.mkdir(parents=True)
            grind = ("valgrind", "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={directory}/out")
            with _started(*grind, sys.executable, "-m", *words) as (url, pid):
                for name, ask in rows.items():
                    asyncio.run(_call(url, pid, ask, chosen.calls, warm=WARM, settled=SETTLED))
                    counts[name].append(_written(directory) / chosen.calls)
                for name, ask in chunks.items():
                    taken = []
                    for once_or_twice in (ask, replace(ask, deltas=2 * ask.deltas)):
                        asyncio.run(_call(url, pid, once_or_twice, streams, warm=3, settled=1))
                        taken.append(_written(directory))
                    counts[name].append((taken[1] - taken[0]) / streams / ask.deltas)
    for name, (bare, ours_each) in counts.items():
        print(f"{name:<32}{ours_each / bare:>6.2f} x{bare:>12,.0f}{ours_each:>12,.0f}")


if __name__ == "__main__":
    main()
