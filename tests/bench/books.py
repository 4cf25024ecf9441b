"""What it costs to sum a journal: `dashseek usage sum`, beside a program that parses each line and adds its tokens.

    python -m tests.bench.books [--calls N] [--keys N] [--rounds N] [--keep FILE]

The journal is written by the product's own writer: calls of five models and as many keys as are asked for, in both
tongues, with and without a chain of thought, one in fifty left by its caller, thirty open at a time. A report costs
more where more differs from call to call, so it is told of how many kinds the lines are. Both are processes of their
own on one core, one after the other; figures are medians.
"""

# ruff: noqa: T201 - a table is what this is for

from __future__ import annotations

import argparse
import os
import random
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from proxy.metering import journal
from proxy.metering.append_file import LineFile
from proxy.metering.journal import Closing, Entry, Journal, Opening
from proxy.metering.outcome import Outcome

MODELS = (
    ("deepseek-v3", "deepseek-chat", "never"),
    ("deepseek-v3.1", "deepseek-chat", "when asked"),
    ("deepseek-v3.2", "deepseek-chat", "when asked"),
    ("deepseek-r1", "deepseek-reasoner", "always"),
    ("deepseek-r1-0528", "deepseek-reasoner", "always"),
)
OPEN = 30
BEGIN_S = 1_793_000_000.0
CALLS_A_S = 2.0

# At their end both tell on stderr what they took: seconds of CPU, and the most memory they had, in KiB.
TELL = """
import re, sys, time
print(time.process_time(), re.search("VmHWM:\\s*([0-9]+)", open("/proc/self/status").read())[1], file=sys.stderr)
"""
OURS = "import sys\nfrom proxy.__main__ import main\ntry:\n    main()\nexcept SystemExit:\n    pass\n" + TELL
PLAIN = (
    """
import sys, orjson
sums = {}
with open(sys.argv[-1], "rb") as lines:
    for line in lines:
        said = orjson.loads(line)
        if said["ev"] == "close":
            group = sums.setdefault((said["at"][:10], said["model"], said["key_name"], said["outcome"]), [0] * 5)
            group[0] += 1
            for at, side in ((1, "usage"), (3, "generated")):
                group[at] += said[side]["input_tokens"]
                group[at + 1] += said[side]["output_tokens"]
names = ("calls", "input", "output", "generated_input", "generated_output")
print(orjson.dumps({"total": dict(zip(names, map(sum, zip(*sums.values()))))}).decode())
"""
    + TELL
)


class Taken(NamedTuple):
    """What a process took.

    total: its sums
    """

    cpu_s: float
    mib: float
    total: dict[str, int]


def write(path: Path, calls: int, keys: int) -> int:
    """A journal of so many calls; returns of how many kinds the lines of their ends are."""
    chance = random.Random(7)
    names = [(f"{chance.getrandbits(48):012x}", f"team-{number}") for number in range(keys)]
    kinds = set()
    waiting: list[tuple[Entry, Opening, str]] = []
    file = LineFile(path, max_bytes=None, sync=False)
    books, now = Journal(file, "refuse"), BEGIN_S

    def end() -> None:
        entry, opening, thinks = waiting.pop(chance.randrange(len(waiting)))
        closing = _closing(chance, opening, hybrid=thinks == "when asked")
        kinds.add((*(opening[name] for name in ("model", "key_id", "stream", "thinking", "api")), closing["outcome"]))
        entry.close(journal.render(closing))

    for _ in range(calls):
        now += chance.expovariate(CALLS_A_S)
        model, upstream_model, thinks = chance.choice(MODELS)
        key_id, key_name = chance.choice(names)
        opening: Opening = {
            "at": journal.timestamp(now),
            "request_id": f"{chance.getrandbits(128):032x}",
            "api": chance.choice(("dashscope", "openai")),
            "model": model,
            "upstream_model": upstream_model,
            "key_id": key_id,
            "key_name": key_name,
            "stream": chance.random() < 0.8,
            "thinking": thinks == "always" or (thinks == "when asked" and chance.random() < 0.5),
        }
        waiting.append((books.open(opening), opening, thinks))
        if len(waiting) > OPEN:
            end()
    while waiting:
        end()
    books.close()
    return len(kinds)


def _closing(chance: random.Random, opening: Opening, *, hybrid: bool) -> Closing:
    prompt, completion = int(chance.lognormvariate(6, 1)), int(chance.lognormvariate(5.5, 1))
    cached, left = prompt // 128 * 64, chance.random() < 0.02
    delivered = chance.randrange(completion + 1) if left else completion
    reasoning = completion // 2 if opening["thinking"] else None
    sent, first = round(chance.uniform(1, 3), 3), round(chance.uniform(200, 900), 3)
    last = round(first + completion * 12.1, 3)

    def used(generated: int) -> journal.Usage:
        usage: journal.Usage = {
            "input_tokens": prompt,
            "output_tokens": generated,
            "total_tokens": prompt + generated,
        }
        if reasoning is not None:
            chain = min(reasoning, generated)
            usage["output_tokens_details"] = {"reasoning_tokens": chain}
            if hybrid:
                usage["output_tokens_details"]["text_tokens"] = generated - chain
        usage["prompt_tokens_details"] = {"cached_tokens": cached}
        return usage

    return {
        "outcome": (Outcome.CLIENT_GONE_MID_STREAM if left else Outcome.OK).value,
        "status": 499 if left else 200,
        "code": None,
        "usage": used(delivered),
        "generated": used(completion),
        "basis": "counted" if left else "upstream_final",
        "calls": [
            {
                "prompt": prompt,
                "cached": cached,
                "completion": completion,
                "reasoning": reasoning,
                "basis": "counted" if left else "upstream_final",
                "end": None if left else "stop",
            }
        ],
        "drift_tokens": chance.choice((0, 0, 0, 1, -2)),
        "packets": delivered + 1 if opening["stream"] else 1,
        "bytes_out": delivered * 300,
        "attempts": [{"target": "https://api.deepseek.com", "result": "200", "reused": True}],
        "t": {"upstream_sent": sent, "first_packet": first, "last_packet": last, "closed": last + 0.5},
    }


def taken(program: str, *words: str) -> Taken:
    """Run one to its end, on a core of its own."""
    core = {min(os.sched_getaffinity(0))}
    ran = subprocess.run(
        [sys.executable, "-c", program, *words],
        check=True,
        capture_output=True,
        preexec_fn=lambda: os.sched_setaffinity(0, core),
    )
    cpu_s, kib = ran.stderr.split()[-2:]
    return Taken(float(cpu_s), int(kib) / 1024, orjson.loads(ran.stdout)["total"])


@contextmanager
def _journal(keep: Path | None) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as scratch:
        yield keep or Path(scratch) / "calls.jsonl"


def main() -> None:
    """Print what a report costs, and what the plain program does."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=1_000_000, help="of the journal, 1.2 KB each [1000000]")
    parser.add_argument("--keys", type=int, default=12, help="that called [12]")
    parser.add_argument("--rounds", type=int, default=5, help="how often both are run [5]")
    parser.add_argument("--keep", type=Path, help="write the journal there, and leave it")
    chosen = parser.parse_args()
    with _journal(chosen.keep) as path:
        path.unlink(missing_ok=True)
        kinds = write(path, chosen.calls, chosen.keys)
        size = path.stat().st_size
        ours, plain = [], []
        for _ in range(chosen.rounds):
            ours.append(taken(OURS, "usage", "sum", "--tz", "UTC", "--json", str(path)))
            plain.append(taken(PLAIN, str(path)))
            _agree(ours[-1].total, plain[-1].total)
    print(
        f"{chosen.calls:,} calls, {size / 1e6:,.0f} MB, ends of {kinds:,} kinds; {chosen.rounds} rounds, CPU of a core"
    )
    for name, runs in (("usage sum", ours), ("parse and add", plain)):
        cpu = sorted(run.cpu_s for run in runs)
        mib = max(run.mib for run in runs)
        print(f"{name:15}{statistics.median(cpu):7.2f} s ({cpu[0]:.2f}-{cpu[-1]:.2f}) {mib:6.0f} MiB")
    ratios = sorted(one.cpu_s / other.cpu_s for one, other in zip(ours, plain, strict=True))
    print(f"{'ratio':15}{statistics.median(ratios):7.2f} x ({ratios[0]:.2f}-{ratios[-1]:.2f})")


def _agree(ours: dict[str, Any], plain: dict[str, int]) -> None:
    if any(ours[name] != value for name, value in plain.items()):
        sys.exit(f"the two do not agree: {ours} and {plain}")


if __name__ == "__main__":
    main()
