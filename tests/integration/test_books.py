"""Two sets of books, one journal: over thousands of mixed calls it says what upstream generated and what callers saw.

Real processes, three of them: this one calls, `dashseek serve` meters, `dashseek simulate` generates and keeps count.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import random
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from proxy.metering import ledger
from proxy.simulation import simulator
from tests import caller, load
from tests.conftest import ROOT, Served
from tests.faults import chaos

CALLS = 10_000
WORKERS = 64
LEAVERS = 0.4
SETTLE_S = 20.0

Json = dict[str, Any]

WORDS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "required": ["city"]}}}]
RISK = {"status": 400, "error_text": "Content Exists Risk"}


def simulated(**switches: object) -> str:
    """A prompt that tells the simulator how to answer."""
    return orjson.dumps({"simulate": switches}).decode()


def mixed(dice: random.Random) -> load.Call:
    """Any call at all."""
    text = " ".join(dice.choices(WORDS, k=dice.randint(2, 9)))
    paced = {"text": text, "gap_s": dice.choice((0, 0, 0.003, 0.01))}
    kinds: dict[str, tuple[int, Json]] = {
        "text": (20, caller.call(simulated(**paced), incremental_output=dice.random() < 0.7)),
        "thinking": (
            15,
            caller.call(simulated(**paced), "deepseek-v3.2", enable_thinking=True, incremental_output=True),
        ),
        "r1": (8, caller.call(simulated(**paced), "deepseek-r1", incremental_output=True)),
        "two choices": (8, caller.call(simulated(**paced), n=2, incremental_output=True)),
        "tool call": (8, caller.call(simulated(tools=[f'weather {{"city": "{text}"}}']), tools=TOOLS)),
        "cut to length": (5, caller.call(simulated(**paced), max_tokens=3, incremental_output=True)),
        "usage apart": (6, caller.call(simulated(**paced, usage="own"), incremental_output=True)),
        "usage all along": (6, caller.call(simulated(**paced, usage="every"), incremental_output=True)),
        "no usage": (6, caller.call(simulated(**paced, usage="never"), incremental_output=True)),
        "upstream throttles": (4, caller.call(simulated(status=429))),
        "upstream fails": (4, caller.call(simulated(status=dice.choice((400, 500, 503)), first_byte_delay_s=0.01))),
        "upstream breaks off": (4, caller.call(simulated(**paced, cut_after=dice.randint(1, 4)))),
        "upstream fails midway": (4, caller.call(simulated(**paced, error_event_after=dice.randint(1, 4)))),
        "moderated before": (3, caller.call(simulated(**RISK))),
        "moderated midway": (3, caller.call(simulated(**paced, finish_reason="content_filter"))),
        "over our limit": (4, caller.call(simulated(**paced), "deepseek-v3.1")),
    }
    (kind,) = dice.choices(list(kinds), [weight for weight, _ in kinds.values()])
    _, body = kinds[kind]
    leaving = dice.choice(("half-close", "half-close", "reset")) if dice.random() < LEAVERS else None
    packets = kind in {"thinking", "r1", "upstream breaks off"} or dice.random() < 0.7
    after = dice.randint(0, 4) if packets else 0
    return load.Call(kind, body, packets, leaving, after)  # type: ignore[arg-type]


@contextlib.contextmanager
def simulating() -> Iterator[str]:
    """A simulator of its own process; its URL."""
    command = [sys.executable, "-m", "proxy", "simulate", "--port", "0"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().split()[-1]
        try:
            yield url
        finally:
            process.terminate()


def tally_of(url: str) -> simulator.Totals:
    """What a simulator says it has done."""
    with urllib.request.urlopen(f"{url}/tally", timeout=10) as answer:
        tally: simulator.Totals = orjson.loads(answer.read())
    return tally


def closes_of(path: Path) -> list[Json]:
    """Read as simply as can be, so that the ledger's way of reading is not its own witness."""
    lines = map(orjson.loads, path.read_bytes().splitlines())
    return [line for line in lines if line["ev"] == "close"]


def output(used: Json) -> int:
    tokens: int = used["output_tokens"]
    return tokens


@pytest.mark.timeout(600)
async def test_the_journal_says_what_upstream_generated_and_what_callers_saw(tmp_path: Path) -> None:
    """Mixed calls with random cancels, upstream read on (`drain`); MET-1, MET-3, MET-5."""
    path = tmp_path / "calls.jsonl"
    dice = random.Random(6)
    calls = [mixed(dice) for _ in range(CALLS)]
    with contextlib.ExitStack() as stack:
        upstream = stack.enter_context(simulating())
        dead = stack.enter_context(chaos.closed_port())
        served = Served(
            # The first target is dead: now and then a call is tried there, and then elsewhere, and is one record.
            (
                *("--upstream", dead, "--upstream", upstream, "--port", "0", "--journal-file", str(path)),
                *("--cancel-policy", "drain", "--model-limit", "deepseek-v3.1=rpm=60", "--log-level", "error"),
            ),
            {},
            tmp_path,
        )
        stack.callback(served.end)
        await asyncio.to_thread(served.wait_until_ready)
        heard = await load.run([served.url], calls, workers=WORKERS, dice=dice)
        assert await asyncio.to_thread(served.end) == 0, served.output
        assert served.output.count("\n") == 2, served.output
        tally = await asyncio.to_thread(tally_of, upstream)

    read = ledger.read([path], rules=ledger.RULES)
    assert (read.violations, read.unknown, read.torn) == ([], [], [])
    closes = {record["request_id"]: record for record in closes_of(path)}
    # Who leaves before its body has been read was not there; nobody else is missing.
    absent = [got for got in heard if got.call.known_as not in closes]
    assert all(got.call.leaving and not got.call.after and not got.said for got in absent)
    assert len(closes) > 0.8 * CALLS
    kinds = collections.Counter(
        (got.call.kind, closes[got.call.known_as]["outcome"]) for got in heard if got.call.known_as in closes
    )

    # What upstream says it generated.
    assert tally["open"] == 0
    assert sum(output(record["generated"]) for record in closes.values()) == tally["completion_tokens"], kinds
    assert sum(totals.generated_output for totals in read.totals.values()) == tally["completion_tokens"]
    tried = [attempt["result"] for record in closes.values() for attempt in record["attempts"]]
    assert tally["calls"] == sum(result.isdecimal() for result in tried)
    assert len(tried) > tally["calls"], "nothing was retried"

    # What callers last saw. Who resets the connection may have missed some of what was handed over to it.
    sure = [got for got in heard if got.call.leaving != "reset" and got.call.known_as in closes]
    assert sum(output(closes[got.call.known_as]["usage"]) for got in sure) == sum(got.used[1] for got in sure)
    for got in sure:
        billed = closes[got.call.known_as]["usage"]
        assert (billed["input_tokens"], billed["output_tokens"]) == got.used, got
    for got in heard:
        if got.call.leaving == "reset" and (record := closes.get(got.call.known_as)):
            assert got.used[1] <= output(record["usage"]) <= output(record["generated"]), got

    # All of it happened.
    outcomes = {outcome for _, outcome in kinds}
    assert outcomes >= {
        *("ok", "throttled", "moderated_input", "moderated_output", "upstream_error", "upstream_cut"),
        *("client_gone_before_first_packet", "client_gone_mid_stream"),
    }
