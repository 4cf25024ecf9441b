"""What the proxy costs, as ratios to a bare pass-through in the same run, and what it takes and holds by itself.

    python -m tests.bench.run [--short] [--json FILE] [ROW ...]

Everything is on: exact counting, usage on every packet, the journal, metrics. Rounds of both peers alternate; a row
shows the median over rounds and the spread. Ratios carry over between machines, microseconds do not.
"""

# ruff: noqa: T201 - a table is what this is for

from __future__ import annotations

import argparse
import asyncio
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from tests.bench import load
from tests.bench.load import Ask

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the table.

    goal:     what the project aims at, in the figure's unit
    ours, bare: what the ratio is made of; None where the figure stands for itself
    rounds:   the figure, round by round
    """

    name: str
    unit: str
    goal: float
    rounds: tuple[float, ...]
    ours: float | None = None
    bare: float | None = None
    cost_unit: str = "us"

    @property
    def value(self) -> float:
        """The median."""
        return statistics.median(self.rounds)


@dataclass(frozen=True, slots=True)
class Peer:
    """A process that answers."""

    url: str
    pids: tuple[int, ...]

    def cpu_s(self) -> float:
        """Seconds its threads have been on a CPU so far; the kernel counts them in nanoseconds."""
        return sum(map(_cpu_s, self.pids))

    def loop_s(self) -> float:
        """The same of the threads with an event loop alone."""
        return sum(_spent_s(Path(f"/proc/{pid}/task/{pid}/schedstat")) for pid in self.pids)

    def rss_bytes(self) -> int:
        """What it holds of the memory."""
        return sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE_BYTES for pid in self.pids)


@dataclass(frozen=True, slots=True)
class Stand:
    """The upstream, and how to start the peers before it.

    rounds: how often each figure is taken
    scale:  by what the long form's sizes are divided
    """

    upstream: str
    directory: Path
    rounds: int
    scale: int

    @contextmanager
    def bare(self) -> Iterator[Peer]:
        """The pass-through."""
        with _process("-m", "tests.bench.passthrough", self.upstream) as (url, pid):
            yield Peer(url, (pid,))

    @contextmanager
    def ours(self, *flags: str, workers: int = 1) -> Iterator[Peer]:
        """`dashseek serve`; of several processes those that serve."""
        journal = self.directory / f"calls-{time.monotonic_ns()}.jsonl"
        said = ("--port", "0", "--journal-file", str(journal), "--log-level", "warning", "--workers", str(workers))
        with _process("-m", "proxy", "serve", "--upstream", self.upstream, *said, *flags) as (url, pid):
            yield Peer(url, (pid,) if workers == 1 else _children(pid)[1:])


@dataclass(frozen=True, slots=True)
class Cost:
    """CPU seconds of our process for each call or each chunk, as a ratio to the pass-through's.

    loop_alone: leave out the threads, which count long prompts: the tokenizer's own time is not ours to save
    """

    ask: Ask
    calls: int
    connections: int
    per_chunk: bool
    goal: float
    loop_alone: bool = False

    def measure(self, name: str, stand: Stand) -> list[Figure]:
        calls = max(self.connections, self.calls // stand.scale // self.connections * self.connections)
        units = calls * self.ask.deltas if self.per_chunk else calls

        def cost_us(peer: Peer) -> float:
            spent_s = peer.loop_s if self.loop_alone else peer.cpu_s
            before_s = spent_s()
            asyncio.run(load.run(peer.url, self.ask, calls, self.connections))
            return (spent_s() - before_s) / units * 1e6

        with stand.bare() as bare, stand.ours() as ours:
            for peer in (bare, ours):
                cost_us(peer)
            pairs = [(cost_us(bare), cost_us(ours)) for _ in range(stand.rounds)]
        return [
            Figure(
                name,
                "x",
                self.goal,
                tuple(mine / theirs for theirs, mine in pairs),
                statistics.median(mine for _, mine in pairs),
                statistics.median(theirs for theirs, _ in pairs),
            )
        ]


def first_packet(name: str, stand: Stand) -> list[Figure]:
    """How much later than through the pass-through the first packet comes, at 40 new streams a second."""
    ask, calls = Ask(deltas=20, gap_s=0.005), max(40, 600 // stand.scale)
    middle, late = [], []
    with stand.bare() as bare, stand.ours() as ours:
        for turn in range(stand.rounds + 1):
            theirs, mine = (
                sorted(asyncio.run(load.first_packets(peer.url, ask, calls, 1 / 40))) for peer in (bare, ours)
            )
            if turn:  # the first warms up
                middle.append((mine[len(mine) // 2] - theirs[len(theirs) // 2]) * 1e3)
                late.append((mine[int(len(mine) * 0.99)] - theirs[int(len(theirs) * 0.99)]) * 1e3)
    return [
        Figure(f"{name}, p50", "ms later", 1.3, tuple(middle)),
        Figure(f"{name}, p99", "ms later", 3.0, tuple(late)),
    ]


def memory(name: str, stand: Stand) -> list[Figure]:
    """What a fresh process holds, what an open silent stream adds, and whether a second wave needs more."""
    number = max(200, 2000 // stand.scale)

    def wave(url: str, peer: Peer) -> int:
        async def opened() -> int:
            async with load.silent_streams(url, number):
                return peer.rss_bytes()

        return asyncio.run(opened())

    with stand.ours() as ours:
        asyncio.run(load.run(ours.url, Ask(deltas=2), 1, 1))
        fresh = ours.rss_bytes()
        first = wave(ours.url, ours)
        time.sleep(1)
        second = wave(ours.url, ours)
    return [
        Figure("fresh process", "MiB", 100, (fresh / 2**20,)),
        Figure(name, "KiB a stream", 40, ((first - fresh) / number / 1024,)),
        Figure("a second wave adds", "%", 5, (max(0.0, second / first - 1) * 100,)),
    ]


def cumulative(name: str, stand: Stand) -> list[Figure]:
    """CPU for each byte sent where every packet repeats the whole text: long answers against short ones."""

    def cost(peer: Peer, deltas: int) -> float:
        before_s = peer.cpu_s()
        size = asyncio.run(load.run(peer.url, Ask(deltas, burst=16, gap_s=0.002, incremental=False), 4, 4))
        return (peer.cpu_s() - before_s) / size

    with stand.ours() as ours:
        cost(ours, 500)
        rounds = tuple(cost(ours, 4000) / cost(ours, 1000) for _ in range(stand.rounds))
    return [Figure(name, "x a byte", 1.0, rounds)]


def gap(name: str, stand: Stand) -> list[Figure]:
    """The longest silence in another stream, paced at 20 ms, while a prompt of 10 MB is read and counted."""
    paced, large = Ask(deltas=1500, gap_s=0.02), Ask(deltas=1, stream=False, prompt=10_000_000)
    with stand.ours() as ours:
        rounds = tuple(
            max(0.0, loud - quiet) * 1e3
            for quiet, loud in (asyncio.run(load.longest_gap(ours.url, paced, large)) for _ in range(stand.rounds))
        )
    return [Figure(name, "ms more", 50, rounds)]


def processes(name: str, stand: Stand) -> list[Figure]:
    """CPU for each small JSON call of two processes against one, and the busiest one's share of the work."""
    ask, calls = Ask(deltas=16, stream=False), max(64, 3200 // stand.scale)

    def cost_s(peer: Peer) -> list[float]:
        before = [*map(_cpu_s, peer.pids)]
        asyncio.run(load.run(peer.url, ask, calls, 32))
        return [after - start for after, start in zip(map(_cpu_s, peer.pids), before, strict=True)]

    ratios, shares = [], []
    with stand.ours() as one, stand.ours(workers=2) as two:
        for peer in (one, two):
            cost_s(peer)
        for _ in range(stand.rounds):
            alone, both = cost_s(one), cost_s(two)
            ratios.append(sum(both) / sum(alone))
            shares.append(max(both) / sum(both))
    return [Figure(name, "x", 1.1, tuple(ratios)), Figure("the busier one's share", "of all", 0.6, tuple(shares))]


def start(name: str, stand: Stand) -> list[Figure]:
    """From the command to the line that says it serves."""
    rounds = []
    for _ in range(stand.rounds):
        began_s = time.perf_counter()
        with stand.ours():
            rounds.append(time.perf_counter() - began_s)
    return [Figure(name, "s", 1.5, tuple(rounds))]


ROWS: Mapping[str, Callable[[str, Stand], list[Figure]]] = {
    # A pause between writes, or the kernel would join them and no proxy would see a write of sixteen.
    "burst of 16, a chunk": Cost(Ask(1600, burst=16, gap_s=0.002), 32, 8, per_chunk=True, goal=2.2).measure,
    "paced at 20 ms x 500, a chunk": Cost(Ask(150, gap_s=0.02), 500, 500, per_chunk=True, goal=1.2).measure,
    "start of a stream": Cost(Ask(1), 1600, 8, per_chunk=False, goal=1.4).measure,
    "small JSON call": Cost(Ask(16, stream=False), 2000, 8, per_chunk=False, goal=1.3).measure,
    "64 KB prompt, JSON, less counting": (
        Cost(Ask(16, stream=False, prompt=64 << 10), 400, 4, per_chunk=False, goal=1.3, loop_alone=True).measure
    ),
    "first packet": first_packet,
    "an open silent stream": memory,
    "cumulative, 4,000 tokens": cumulative,
    "gap beside a 10 MB prompt": gap,
    "two processes, small JSON call": processes,
    "start to ready": start,
}


def main() -> None:
    """Print the table, and write it where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="two small rounds of each, for a look")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"a part of a name, of: {'; '.join(ROWS)}")
    chosen = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    print(f"{'':<34}{'reached':>10} {'':<13}{'spread':>15}{'goal':>7}{'pass-through':>15}{'dashseek':>12}")
    figures = []
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        upstream, _ = stack.enter_context(_process("-m", "tests.bench.upstream"))
        stand = Stand(upstream, directory, *((2, 8) if chosen.short else (5, 1)))
        for name, measure in ROWS.items():
            if chosen.rows and not any(word in name for word in chosen.rows):
                continue
            for figure in measure(name, stand):
                figures.append(figure)
                print(_line(figure), flush=True)
    if chosen.json:
        chosen.json.write_bytes(orjson.dumps([_document(figure) for figure in figures], option=orjson.OPT_INDENT_2))


def _line(figure: Figure) -> str:
    spread = f"{min(figure.rounds):.2f}-{max(figure.rounds):.2f}"
    costs = "".join(f"{cost:>9.1f} us" if cost else "" for cost in (figure.bare, figure.ours))
    return f"{figure.name:<34}{figure.value:>10.2f} {figure.unit:<13}{spread:>15}{figure.goal:>7g}   {costs}"


def _document(figure: Figure) -> dict[str, Any]:
    return {
        "name": figure.name,
        "unit": figure.unit,
        "reached": figure.value,
        "rounds": figure.rounds,
        "goal": figure.goal,
        "pass_through_us": figure.bare,
        "dashseek_us": figure.ours,
    }


@contextmanager
def _process(*words: str, marker: str = "http://") -> Iterator[tuple[str, int]]:
    """A peer: its URL and its process id."""
    with subprocess.Popen(
        [sys.executable, *words], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as run:
        assert run.stdout is not None
        line = run.stdout.readline()
        try:
            yield marker + line.partition(marker)[2].strip(), run.pid
        finally:
            run.kill()


def _children(pid: int) -> tuple[int, ...]:
    """In the order they were started."""
    return tuple(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))


def _cpu_s(pid: int) -> float:
    return sum(map(_spent_s, Path(f"/proc/{pid}/task").glob("*/schedstat")))


def _spent_s(schedstat: Path) -> float:
    return int(schedstat.read_text().split()[0]) / 1e9


if __name__ == "__main__":
    main()
