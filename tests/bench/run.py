"""What the proxy costs, as ratios to a bare pass-through in the same run, and what it takes and holds by itself.

    python -m tests.bench.run [--short] [--rounds N] [--beside NAME=DIRECTORY] [--json FILE] [ROW ...]

Everything is on: exact counting, usage on every packet, the journal, the log, metrics. What is trusted is CPU time of
the process (`schedstat`), as a ratio to the pass-through's of the same round, in which all peers are measured one after
the other in another order; a row shows the median over rounds and the spread. Ratios carry over between machines,
microseconds do not. `--beside old=../before` puts an older checkout into the same rounds.
"""

# ruff: noqa: T201 - a table is what this is for

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import orjson

from tests.bench import load
from tests.bench.load import Ask

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
# What is measured has a core to itself, as far as this program goes: load and upstream share the last one.
CPUS = os.sched_getaffinity(0)
PEER_CPU, LOAD_CPU = min(CPUS), max(CPUS)
# Of the models, one whose context holds a prompt of megabytes.
LONGEST = "deepseek-v4-pro"
PACED_S = 0.02


# Rows whose peers stand side by side: the loops we serve on, and what `--beside` names.
UVLOOP = "uvloop"
ASYNCIO = "asyncio"
BARE = "pass-through"


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the table.

    goal:     what the project aims at, in the figure's unit; None where it stands for comparison alone
    rounds:   the figure, round by round
    ours, bare: what the ratio is made of, in microseconds; None where the figure stands for itself
    """

    name: str
    unit: str
    goal: float | None
    rounds: tuple[float, ...]
    ours: float | None = None
    bare: float | None = None

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
    few:    how often one that takes seconds is
    scale:  by what the long form's sizes are divided
    loops:  what ours runs on, the first of them in the table's own column
    beside: other checkouts, each with its `.venv`, by the name they have in the table
    keeps:  the peers of the short form, which stay for all rows; one Python process may be a tenth dearer than the next
            for its whole life, so the long form starts them anew for each round
    """

    upstream: str
    directory: Path
    rounds: int
    few: int
    scale: int
    loops: tuple[str, ...]
    beside: Mapping[str, Path]
    keeps: ExitStack | None = None
    kept: dict[str, Peer] = field(default_factory=dict)

    @contextmanager
    def bare(self) -> Iterator[Peer]:
        """The pass-through, on uvloop where it is installed."""
        with _process("-m", "tests.bench.passthrough", self.upstream) as (url, pid):
            yield Peer(url, (pid,))

    @contextmanager
    def ours(self, *flags: str, workers: int = 1, targets: int = 0, root: Path | None = None) -> Iterator[Peer]:
        """`dashseek serve`; of several processes those that serve.

        targets: of a pool of its file; 0: the one of `--upstream`
        root:    another checkout, whose program it is
        """
        journal = self.directory / f"calls-{time.monotonic_ns()}.jsonl"
        said = ("--port", "0", "--journal-file", str(journal), "--workers", str(workers), *flags)
        before = ("--upstream", self.upstream)
        if targets:
            # All of them lead to the same upstream, which looks at no path.
            urls = ", ".join(f'"{self.upstream}/{number}"' for number in range(targets))
            (file := self.directory / f"{targets}.toml").write_text(f'[[pools]]\nname = "p"\nurls = [{urls}]\n')
            before = ("--config", str(file))
        with _process("-m", "proxy", "serve", *before, *said, root=root, pinned=workers == 1) as (url, pid):
            yield Peer(url, (pid,) if workers == 1 else _children(pid)[1:])

    @contextmanager
    def peers(self) -> Iterator[Mapping[str, Peer]]:
        """The pass-through and all of ours, side by side."""
        if self.kept:
            yield self.kept
            return
        with ExitStack() as stack:
            here = stack if self.keeps is None else self.keeps
            found = {BARE: here.enter_context(self.bare())}
            for loop in self.loops:
                found[loop] = here.enter_context(self.ours("--loop", loop))
            for name, root in self.beside.items():
                found[name] = here.enter_context(self.ours(root=root))
            if self.keeps is not None:
                self.kept.update(found)
            yield found


@dataclass(frozen=True, slots=True)
class Cost:
    """CPU seconds of our process for each call or each chunk, as a ratio to the pass-through's in the same round.

    loop_alone: leave out the threads, which count long prompts: the tokenizer's own time is not ours to save
    """

    ask: Ask
    calls: int
    connections: int
    per_chunk: bool
    goal: float | None
    loop_alone: bool = False

    def measure(self, name: str, stand: Stand) -> list[Figure]:
        calls = max(self.connections, self.calls // stand.scale // self.connections * self.connections)
        units = calls * self.ask.deltas if self.per_chunk else calls
        # A paced stream takes its time, and all of it is measured, however short the look: of a chunk's cost a stream's
        # start, some 500 us, is a part that follows their number. To warm up a quarter will do.
        warm = replace(self.ask, deltas=self.ask.deltas // 4) if self.ask.gap_s >= PACED_S else self.ask

        def cost_us(peer: Peer, calls: int, ask: Ask = self.ask) -> float:
            spent_s = peer.loop_s if self.loop_alone else peer.cpu_s
            before_s = spent_s()
            asyncio.run(load.run(peer.url, ask, calls, self.connections))
            return (spent_s() - before_s) / units * 1e6

        costs: list[Mapping[str, float]] = []
        for turn in range(stand.rounds):
            with stand.peers() as peers:
                shuffled = random.Random(turn).sample([*peers.items()], len(peers))
                # What stays has been warmed up in the first round.
                for _, peer in shuffled if not (turn and stand.keeps) else ():
                    cost_us(peer, min(calls, max(self.connections, 200)), warm)
                costs.append({peer_name: cost_us(peer, calls) for peer_name, peer in shuffled})
        first, *others = (peer for peer in costs[0] if peer != BARE)
        order = [*stand.loops, *stand.beside]
        first, *others = sorted((first, *others), key=order.index)
        return [
            Figure(
                name if peer == first else f"  the same: {peer}",
                "x",
                self.goal if peer == first else None,
                tuple(cost[peer] / cost[BARE] for cost in costs),
                statistics.median(cost[peer] for cost in costs),
                statistics.median(cost[BARE] for cost in costs),
            )
            for peer in (first, *others)
        ]


def first_packet(name: str, stand: Stand) -> list[Figure]:
    """How much later than through the pass-through the first packet comes, at 40 new streams a second."""
    ask, calls = Ask(deltas=20, gap_s=0.005), max(40, 600 // stand.scale)
    middle: dict[str, list[float]] = {loop: [] for loop in stand.loops}
    late: dict[str, list[float]] = {loop: [] for loop in stand.loops}
    with stand.peers() as peers:
        for turn in range(stand.rounds + 1):
            took = {
                peer: sorted(asyncio.run(load.first_packets(peers[peer].url, ask, calls, 1 / 40)))
                for peer in (BARE, *stand.loops)
            }
            theirs = took.pop(BARE)
            for peer, mine in took.items():
                if turn:  # the first warms up
                    middle[peer].append((mine[len(mine) // 2] - theirs[len(theirs) // 2]) * 1e3)
                    late[peer].append((mine[int(len(mine) * 0.99)] - theirs[int(len(theirs) * 0.99)]) * 1e3)
    return [
        Figure(f"{name}, {loop}, {what}", "ms later", goal, tuple(found[loop]))
        for loop in stand.loops
        for what, goal, found in (("p50", 1.3, middle), ("p99", 3.0, late))
    ]


def memory(name: str, stand: Stand) -> list[Figure]:
    """What a fresh process holds, what an open silent stream adds, and whether a second wave needs more."""
    return [figure for loop in stand.loops for figure in _memory(name, stand, loop)]


def _memory(name: str, stand: Stand, loop: str) -> list[Figure]:
    number = max(200, 2000 // stand.scale)

    def wave(url: str, peer: Peer) -> int:
        async def opened() -> int:
            async with load.silent_streams(url, number):
                return peer.rss_bytes()

        return asyncio.run(opened())

    with stand.ours("--loop", loop) as ours:
        asyncio.run(load.run(ours.url, Ask(deltas=2), 1, 1))
        fresh = ours.rss_bytes()
        first = wave(ours.url, ours)
        time.sleep(1)
        second = wave(ours.url, ours)
    return [
        Figure(f"fresh process, {loop}", "MiB", 100, (fresh / 2**20,)),
        Figure(f"{name}, {loop}", "KiB a stream", 40, ((first - fresh) / number / 1024,)),
        Figure(f"a second wave adds, {loop}", "%", 5, (max(0.0, second / first - 1) * 100,)),
    ]


def cumulative(name: str, stand: Stand) -> list[Figure]:
    """CPU for each byte sent where every packet repeats the whole text: long answers against short ones."""

    def cost(peer: Peer, deltas: int) -> float:
        before_s = peer.cpu_s()
        size = asyncio.run(load.run(peer.url, Ask(deltas, burst=16, gap_s=0.002, incremental=False), 4, 4))
        return (peer.cpu_s() - before_s) / size

    figures = []
    for loop in stand.loops:
        with stand.ours("--loop", loop) as ours:
            cost(ours, 500)
            rounds = tuple(cost(ours, 4000) / cost(ours, 1000) for _ in range(stand.few))
        figures.append(Figure(f"{name}, {loop}", "x a byte", 1.0, rounds))
    return figures


def gap(name: str, stand: Stand) -> list[Figure]:
    """The longest silence in another stream, paced at 20 ms, while a prompt of 10 MB is read and counted."""
    paced, large = Ask(deltas=1500, gap_s=0.02), Ask(deltas=1, stream=False, prompt=10_000_000)
    with stand.ours() as ours:
        rounds = tuple(
            max(0.0, loud - quiet) * 1e3
            for quiet, loud in (asyncio.run(load.longest_gap(ours.url, paced, large)) for _ in range(stand.few))
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


def targets(name: str, stand: Stand) -> list[Figure]:
    """CPU for each small JSON call with a pool of one target, and of sixteen, against `--upstream` alone."""
    ask, calls = Ask(deltas=16, stream=False), max(640, 3200 // stand.scale)
    ratios: dict[int, list[float]] = {1: [], 16: []}
    for turn in range(stand.rounds):
        # One Python process may be a tenth dearer than the next for its whole life.
        with stand.ours() as alone, stand.ours(targets=1) as one, stand.ours(targets=16) as sixteen:
            peers, costs_s = [(0, alone), (1, one), (16, sixteen)], {0: 0.0, 1: 0.0, 16: 0.0}
            for _, peer in peers:
                asyncio.run(load.run(peer.url, ask, 200, 32))
            for number, peer in random.Random(turn).sample(peers * 2, 2 * len(peers)):
                before_s = peer.cpu_s()
                asyncio.run(load.run(peer.url, ask, calls, 32))
                costs_s[number] += peer.cpu_s() - before_s
        for number, found in ratios.items():
            found.append(costs_s[number] / costs_s[0])
    return [
        Figure(name, "x --upstream", 1.05, tuple(ratios[1])),
        Figure("  the same: sixteen", "x --upstream", None, tuple(ratios[16])),
    ]


def start(name: str, stand: Stand) -> list[Figure]:
    """From the command to the line that says it serves."""
    rounds = []
    for _ in range(stand.few):
        began_s = time.perf_counter()
        with stand.ours():
            rounds.append(time.perf_counter() - began_s)
    return [Figure(name, "s", 1.5, tuple(rounds))]


ROWS: Mapping[str, Callable[[str, Stand], list[Figure]]] = {
    "small JSON call": Cost(Ask(20, stream=False), 4000, 32, per_chunk=False, goal=1.5).measure,
    "start of a stream": Cost(Ask(1), 3000, 16, per_chunk=False, goal=1.6).measure,
    # A pause between writes, or the kernel would join them and no proxy would see a write of sixteen.
    "burst of 16, a chunk": Cost(Ask(1600, burst=16, gap_s=0.002), 32, 8, per_chunk=True, goal=1.7).measure,
    "paced at 20 ms x 50, a chunk": Cost(Ask(200, gap_s=0.02), 50, 50, per_chunk=True, goal=1.2).measure,
    "paced at 20 ms x 500, a chunk": Cost(Ask(150, gap_s=0.02), 500, 500, per_chunk=True, goal=1.2).measure,
    "compatible, burst of 16, a chunk": (
        Cost(Ask(1600, burst=16, gap_s=0.002, compatible=True), 32, 8, per_chunk=True, goal=1.4).measure
    ),
    "compatible, paced at 20 ms x 50, a chunk": (
        Cost(Ask(200, gap_s=0.02, compatible=True), 50, 50, per_chunk=True, goal=1.1).measure
    ),
    "64 KB prompt, JSON, less counting": (
        Cost(Ask(20, stream=False, prompt=64 << 10), 400, 16, per_chunk=False, goal=1.5, loop_alone=True).measure
    ),
    "4 MB prompt, JSON, less counting": (
        Cost(Ask(20, stream=False, prompt=4 << 20, model=LONGEST), 16, 2, per_chunk=False, goal=None, loop_alone=True)
    ).measure,
    "first packet": first_packet,
    "an open silent stream": memory,
    "cumulative, 4,000 tokens": cumulative,
    "gap beside a 10 MB prompt": gap,
    "two processes, small JSON call": processes,
    "a pool of one target, small JSON call": targets,
    "start to ready": start,
}
# What takes long and says little in a small size, or little beside its neighbours.
LONG_ALONE = frozenset(
    {
        "paced at 20 ms x 500, a chunk",
        "compatible, paced at 20 ms x 50, a chunk",
        "4 MB prompt, JSON, less counting",
        "cumulative, 4,000 tokens",
        "gap beside a 10 MB prompt",
        "a pool of one target, small JSON call",
    }
)


def main() -> None:
    """Print the table, and write it where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="two small rounds of each, for a look")
    parser.add_argument("--rounds", type=int, help="how often each figure is taken")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument(
        "--beside", action="append", default=[], metavar="NAME=DIRECTORY", help="another checkout with a .venv"
    )
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"a part of a name, of: {'; '.join(ROWS)}")
    chosen = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    os.sched_setaffinity(0, {LOAD_CPU})
    beside = {name: Path(root) for name, _, root in (said.partition("=") for said in chosen.beside)}
    loops = (UVLOOP, ASYNCIO) if importlib.util.find_spec("uvloop") else (ASYNCIO,)
    print(f"{'':<38}{'reached':>10} {'':<13}{'spread':>15}{'goal':>7}{'pass-through':>15}{'dashseek':>12}")
    figures = []
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        upstream, _ = stack.enter_context(_process("-m", "tests.bench.upstream", cpu=LOAD_CPU))
        rounds, few, scale = (2, 1, 16) if chosen.short else (5, 5, 1)
        keeps = stack.enter_context(ExitStack()) if chosen.short else None
        loops = loops[:1] if chosen.short else loops
        stand = Stand(upstream, directory, chosen.rounds or rounds, chosen.rounds or few, scale, loops, beside, keeps)
        for name, measure in ROWS.items():
            if chosen.rows and not any(word in name for word in chosen.rows):
                continue
            if chosen.short and name in LONG_ALONE:
                continue
            for figure in measure(name, stand):
                figures.append(figure)
                print(_line(figure), flush=True)
    if chosen.json:
        chosen.json.write_bytes(orjson.dumps([_document(figure) for figure in figures], option=orjson.OPT_INDENT_2))


def _line(figure: Figure) -> str:
    spread = f"{min(figure.rounds):.2f}-{max(figure.rounds):.2f}"
    costs = "".join(f"{cost:>9.1f} us" if cost else "" for cost in (figure.bare, figure.ours))
    goal = "" if figure.goal is None else f"{figure.goal:g}"
    return f"{figure.name:<38}{figure.value:>10.2f} {figure.unit:<13}{spread:>15}{goal:>7}   {costs}"


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
def _process(
    *words: str, marker: str = "http://", root: Path | None = None, pinned: bool = True, cpu: int = PEER_CPU
) -> Iterator[tuple[str, int]]:
    """A peer on a core of its own, where there are two: its URL and its process id."""
    python = sys.executable if root is None else str(root / ".venv/bin/python")
    with subprocess.Popen(
        [python, *words], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=root
    ) as run:
        os.sched_setaffinity(run.pid, {cpu} if pinned else CPUS)
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
