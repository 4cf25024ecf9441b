"""What the proxy costs: CPU seconds of its process, as a ratio to a bare pass-through in the same run.

    python -m tests.bench.run [--short] [--json FILE]

Everything is on: exact counting, usage on every packet, the journal. Rounds of both peers alternate; a row shows the
median over rounds and the spread. Ratios carry over between machines, microseconds do not.
"""

# ruff: noqa: T201 - a table is what this is for

from __future__ import annotations

import argparse
import asyncio
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import orjson

PATH = "/api/v1/services/aigc/text-generation/generation"


@dataclass(frozen=True, slots=True)
class Workload:
    """One row.

    goal:    the ratio the project aims at
    unit:    what CPU is counted per
    calls:   in all, over so many connections
    prompt:  characters before the instruction
    """

    name: str
    goal: float
    unit: str
    calls: int
    connections: int
    deltas: int
    burst: int = 1
    gap_s: float = 0.0
    stream: bool = True
    prompt: int = 0

    @property
    def units(self) -> int:
        """How many of them."""
        return self.calls * self.deltas if self.unit == "chunk" else self.calls


WORKLOADS = (
    # A pause between writes, or the kernel would join them and no proxy would see a write of sixteen.
    Workload("burst of 16", 2.2, "chunk", calls=32, connections=8, deltas=1600, burst=16, gap_s=0.002),
    Workload("paced, 20 ms", 1.2, "chunk", calls=500, connections=500, deltas=50, gap_s=0.02),
    Workload("start of a stream", 1.4, "call", calls=1500, connections=8, deltas=1),
    Workload("small JSON call", 1.3, "call", calls=2000, connections=8, deltas=16, stream=False),
    Workload("64 KB prompt, JSON", 1.3, "call", calls=300, connections=4, deltas=16, stream=False, prompt=64 << 10),
)


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


def _cpu_s(pid: int) -> float:
    """Seconds its threads have been on a CPU so far; the kernel counts them in nanoseconds."""
    return sum(int(file.read_text().split()[0]) for file in Path(f"/proc/{pid}/task").glob("*/schedstat")) / 1e9


def _body(work: Workload) -> bytes:
    how = {"deltas": work.deltas, "burst": work.burst, "gap_s": work.gap_s}
    text = "All work and no play makes a dull sea. " * (work.prompt // 39) + "\n" + orjson.dumps(how).decode()
    messages = [{"role": "user", "content": text}]
    # One body for both peers: each reads its own half of it.
    return orjson.dumps(
        {
            "model": "deepseek-v3",
            "messages": messages,
            "stream": work.stream,
            "input": {"messages": messages},
            "parameters": {"incremental_output": True},
        }
    )


async def _caller(url: str, request: bytes, calls: int) -> None:
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port, limit=1 << 20)
    for _ in range(calls):
        writer.write(request)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        assert b" 200 " in head[:20], head
        if b"content-length:" in head:
            await reader.readexactly(int(head.partition(b"content-length:")[2].split(b"\r\n", 1)[0]))
            continue
        tail = b""
        while not tail.endswith(b"0\r\n\r\n"):
            wire = await reader.read(1 << 16)
            assert wire
            tail = (tail + wire)[-8:]
    writer.close()


async def _load(url: str, work: Workload) -> None:
    body = _body(work)
    sse = "X-DashScope-SSE: enable\r\n" if work.stream else ""
    head = (
        f"POST {PATH} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer sk-bench\r\n{sse}"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    each = work.calls // work.connections
    await asyncio.gather(*(_caller(url, head.encode() + body, each) for _ in range(work.connections)))


def _measure(url: str, pid: int, work: Workload) -> float:
    """CPU microseconds per unit."""
    before = _cpu_s(pid)
    asyncio.run(_load(url, work))
    return (_cpu_s(pid) - before) / work.units * 1e6


def run(rounds: int, scale: int) -> list[dict[str, Any]]:
    """Every row: the two peers' CPU per unit and their ratio, round by round."""
    rows = []
    with ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory())
        upstream, _ = stack.enter_context(_process("-m", "tests.bench.upstream"))
        bare = stack.enter_context(_process("-m", "tests.bench.passthrough", upstream))
        flags = ("--port", "0", "--journal-file", f"{directory}/calls.jsonl", "--log-level", "warning")
        ours = stack.enter_context(_process("-m", "proxy", "serve", "--upstream", upstream, *flags))
        for full in WORKLOADS:
            calls = max(full.connections, full.calls // scale // full.connections * full.connections)
            work = Workload(**{name: getattr(full, name) for name in Workload.__slots__} | {"calls": calls})
            for peer in (bare, ours):
                _measure(*peer, work)
            pairs = [(_measure(*bare, work), _measure(*ours, work)) for _ in range(rounds)]
            ratios = [mine / theirs for theirs, mine in pairs]
            rows.append(
                {
                    "workload": full.name,
                    "per": full.unit,
                    "pass_through_us": statistics.median(pair[0] for pair in pairs),
                    "dashseek_us": statistics.median(pair[1] for pair in pairs),
                    "ratio": statistics.median(ratios),
                    "ratios": ratios,
                    "goal": full.goal,
                }
            )
    return rows


def main() -> None:
    """Print the table, and write it where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="a few seconds, for a look")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    chosen = parser.parse_args()
    rows = run(rounds=2, scale=8) if chosen.short else run(rounds=5, scale=1)
    print(f"{'workload':<22}{'per':<8}{'pass-through':>13}{'dashseek':>11}{'ratio':>8}{'spread':>16}{'goal':>7}")
    for row in rows:
        spread = f"{min(row['ratios']):.2f}-{max(row['ratios']):.2f}"
        print(
            f"{row['workload']:<22}{row['per']:<8}{row['pass_through_us']:>10.1f} us{row['dashseek_us']:>8.1f} us"
            f"{row['ratio']:>8.2f}{spread:>16}{row['goal']:>7.1f}"
        )
    if chosen.json:
        chosen.json.write_bytes(orjson.dumps(rows, option=orjson.OPT_INDENT_2))


if __name__ == "__main__":
    main()
