"""The journal against two sets of books over thousands of calls that go wrong: what callers read, what upstream told.

The upstream writes every odd form that hosts are known for, and breaks off, stalls and refuses; callers hang up or stop
reading. `.ci/run campaign` makes 5,000 calls, half under each policy of cancelling; a run of all tests one in twenty.
Source: spec USE-2, USE-3, MET-1, MET-3, MET-5; SOURCES#usage-placement, #stream-pitfalls.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import random
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pytest

import proxy.vocabulary
from proxy.metering import ledger
from proxy.simulation.simulator import Simulator
from proxy.simulation.wire import Script
from tests import caller, load
from tests.conftest import Served, campaign
from tests.faults import matrix
from tests.faults.chaos import closed_port
from translators import tokens

Json = dict[str, Any]
Usage = Json | None

CALLS = campaign(5_000)
SEED = random.SystemRandom().randrange(1, 1 << 32)
WORKERS = 24
LEAVERS = 0.35
# Above the window of any model.
BEYOND = (1 << 20) + 1
FLAGS = ("--idle-timeout", "0.6", "--first-token-timeout", "2", "--usage-timeout", "0.3", "--log-level", "error")
# Texts whose tokens do not end where their words do, and characters of two, three and four bytes.
WORDS = (
    "one",
    " two",
    " verschieden",
    "三个",
    " caf\u00e9",
    "\n\n",
    "👩‍🚀",
    " 1234",
    "  ",
    ".",
    "</b>",
    " antidis",
    "الـ",
)
TOOLS = [{"type": "function", "function": {"name": name, "parameters": {"type": "object"}}} for name in ("f", "get_it")]
NUMBER = re.compile(r"call (\d+)")
FAULTS = ("fin", "rst", "stall", "error", "garbage")


@dataclass(slots=True)
class Plan:
    """How one call is answered, and what it is told of that.

    wire:       the events, and behind how many of them upstream has told its last word
    script:     what becomes of them
    told:       prompt and completion of that last word, None where it is not said or cannot be true (spec USE-3)
    exact:      tokens of the answer by our own count; None where tool calls are in it
    asked:      upstream calls that were made of it
    kind:       the fault in it
    behind_budget: how the second upstream call is answered, which goes on behind a chain that was left at its budget
    """

    wire: bytes
    script: Script
    told: tuple[int | None, int | None]
    exact: int | None
    asked: int = 0
    kind: str = ""
    behind_budget: Plan | None = None


def event(document: object, dice: random.Random) -> bytes:
    """One event in one of the ways hosts write it."""
    data = orjson.dumps(document)
    space = b" " if dice.random() < 0.8 else b""
    return b"data:%b%b\n\n" % (space, data)


def noise(dice: random.Random) -> bytes:
    """An event that says nothing (spec SSE-10)."""
    return dice.choice(
        (b": keep-alive\n\n", b"data: null\n\n", b'data: {"choices":null}\n\n', b"data: {}\n\n", b"data:\n\n")
    )


def cut(text: str, dice: random.Random) -> Iterator[str]:
    """A text in deltas that begin and end anywhere."""
    at = 0
    while at < len(text):
        size = dice.randint(1, 7)
        yield text[at : at + size]
        at += size


def chunk(delta: Json, finish: object, usage: object, dice: random.Random) -> Json:
    """A chunk, with one of the spellings of "not ended" where it has not (spec OUT-3)."""
    choice: Json = {"index": 0, "delta": delta}
    if finish is None:
        spelling = dice.choice((..., None, "", "null"))
        choice |= {} if spelling is ... else {"finish_reason": spelling}
    else:
        choice["finish_reason"] = finish
    return {"choices": [choice]} | ({} if usage is None else {"usage": usage})


def fragments(dice: random.Random) -> Iterator[Json]:
    """A tool call in pieces, in any of the forms that hosts give it (spec OUT-5)."""
    form = dice.choice(("whole", "pieces", "object", "none", "placeholder", "name in pieces"))
    name = dice.choice(("f", "get_it"))
    head: Json = {"index": 0, "id": "call_1", "type": "function", "function": {"name": name}}
    arguments = orjson.dumps({"city": "".join(dice.choices(WORDS, k=3)), "n": 2}).decode()
    if form == "object":
        yield head | {"function": {"name": name, "arguments": orjson.loads(arguments)}}
    elif form == "none":
        yield head | {"function": {"name": name, "arguments": dice.choice((None, "", "null"))}}
    elif form == "whole":
        yield head | {"function": {"name": name, "arguments": arguments}}
    else:
        first, *others = ("get_", "it") if form == "name in pieces" else (name,)
        opening = "{}" if form == "placeholder" else ""
        yield head | {"function": {"name": first, "arguments": opening}}
        yield from ({"index": 0, "function": {"name": piece}} for piece in others)
        yield from ({"index": 0, "function": {"arguments": piece}} for piece in cut(arguments, dice))


def figure(prompt: object, completion: object, chain: int | None) -> Json:
    """A usage object; its total is not the sum that would say that the chain stands beside the answer."""
    details = {} if chain is None else {"completion_tokens_details": {"reasoning_tokens": chain}}
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": 999_999, **details}


def plan(dice: random.Random, vocabulary: tokens.Vocabulary, *, thinks: bool, calls: bool, stream: bool) -> Plan:
    """Any answer at all, with any figures, broken anywhere."""
    chain = "".join(dice.choices(WORDS, k=dice.randint(1, 9))) if thinks else ""
    text = "" if calls and dice.random() < 0.5 else "".join(dice.choices(WORDS, k=dice.randint(1, 12)))
    exact = tokens.count(chain, vocabulary) + thinks + tokens.count(text, vocabulary)
    counted = None if calls else exact
    prompt, made = dice.randint(3, 40), exact + dice.choice((0, 0, 1, 5, 30))
    # What is told at the end, and what of it can be true.
    word: tuple[object, object, int | None, int | None] = dice.choice(
        (
            (prompt, made, prompt, made),
            (prompt, made, prompt, made),
            (float(prompt), float(made), prompt, made),
            (prompt, 0, prompt, 0),
            (prompt, BEYOND, prompt, None),
            (1 << 40, made, None, made),
            (None, made, None, made),
            (prompt, "many", prompt, None),
            (-1, made, None, made),
        )
    )
    last = figure(word[0], word[1], tokens.count(chain, vocabulary) if thinks and dice.random() < 0.5 else None)
    told = word[2:]
    placement = dice.choice(("own", "own", "finish", "every", "zeros", "never"))
    finish = dice.choice(("stop", "stop", "length")) if not calls else "tool_calls"
    deltas: list[Json] = [{"reasoning_content": piece} for piece in cut(chain, dice)]
    deltas += [{"content": piece} for piece in cut(text, dice)]
    deltas += [{"tool_calls": [piece]} for piece in fragments(dice)] if calls else []
    if not stream:
        message: Json = {"role": "assistant", "content": text, **({"reasoning_content": chain} if thinks else {})}
        message |= {"tool_calls": [piece | {"index": 0} for piece in list(fragments(dice))[:1]]} if calls else {}
        choice = {"index": 0, "message": message, "finish_reason": dice.choice((finish, None, ""))}
        body = orjson.dumps({"choices": [choice]} | ({} if placement == "never" else {"usage": last}))
        told = (None, None) if placement == "never" else told
        return _broken(Plan(body, Script(), told, counted), 1, dice, stream=False)
    events, running = [], 0
    for position, delta in enumerate(deltas):
        if dice.random() < 0.05:
            events.append(noise(dice))
        if dice.random() < 0.02 and position:
            # Taken back by what follows.
            events.append(event(chunk({"content": ""}, "stop", None, dice), dice))
        running += tokens.count(str(*delta.values()), vocabulary) if not calls else 0
        usage = {"every": figure(prompt, min(running, made), None), "zeros": figure(0, 0, None)}.get(placement)
        events.append(event(chunk(delta, None, usage, dice), dice))
    beside = last if placement in ("finish", "every", "zeros") else None
    events.append(event(chunk({}, finish, beside, dice), dice))
    if placement == "own":
        events += [noise(dice)] if dice.random() < 0.1 else []
        events.append(event({"choices": [], "usage": last}, dice))
    whole = len(events)
    if dice.random() < 0.9:
        events.append(b"data: [DONE]\n\n")
    if placement == "never":
        told = (None, None)
    elif placement == "every":
        # What was told on the way stays, where the last word cannot be true.
        told = (prompt if told[0] is None else told[0], told[1])
        counted = None
    made_plan = Plan(b"".join(events), Script(), told, counted)
    return _broken(made_plan, whole, dice, stream=True)


def _broken(made: Plan, whole: int, dice: random.Random, *, stream: bool) -> Plan:
    """The plan, perhaps with a fault of upstream's in it; nothing is told of what did not come."""
    how: Json = {"gap_s": dice.choice((0, 0, 0.002)), "deltas_per_write": dice.choice((1, 1, 3, 50))}
    if dice.random() < 0.2:
        how["split"] = dice.randint(1, 40)
    # A document has no events.
    fault = dice.choice(FAULTS if stream else FAULTS[:3]) if dice.random() < 0.25 else None
    made.kind = fault or "whole"
    at = dice.randint(0, whole)
    if fault is not None and at < whole:
        # It may have ended all the same, with a `stop` that more would have taken back; its usage has not come.
        made.told, made.exact = (None, None), None
    if fault in ("fin", "rst"):
        how |= {"cut_after": at, "cut_by": fault}
    elif fault == "stall":
        how |= {"stall_after": at}
    elif fault == "error":
        how |= {"error_event_after": at, "error_event_status": dice.choice((429, 500, 503))}
    elif fault == "garbage":
        events = re.findall(rb".+?\n\n", made.wire, re.DOTALL)
        made.wire = b"".join([*events[:at], b"data: {]\n\n", *events[at:]])
    made.script = Script(replay=made.wire, **how)
    if not stream:
        made.script = Script(replay=made.wire, replay_content_type="application/json", **how)
    return made


class Upstream:
    """The plans of all calls, each answered by the number in its prompt."""

    def __init__(self, plans: dict[int, Plan]) -> None:
        self.plans = plans

    def __call__(self, body: Json) -> Script:
        """The answer to one upstream call."""
        prompt = next(message["content"] for message in body["messages"] if message["role"] == "user")
        found = NUMBER.search(prompt)
        assert found is not None
        one = self.plans[int(found[1])]
        one.asked += 1
        if body["messages"][-1]["role"] == "assistant" and one.behind_budget is not None:
            return one.behind_budget.script
        return one.script


def drawn(number: int, dice: random.Random, vocabulary: tokens.Vocabulary) -> tuple[load.Call, Plan]:
    """Any call at all, and how it is answered."""
    packets = dice.random() < 0.8
    kind = dice.choice(("text", "text", "thinking", "r1", "calls", "two", "budget", "short", "refused"))
    model = {"thinking": "deepseek-v4-flash", "r1": "deepseek-r1", "budget": "deepseek-r1"}.get(kind, "deepseek-v3")
    asked: Json = {"incremental_output": dice.random() < 0.7}
    asked |= {
        "thinking": {"enable_thinking": True},
        "calls": {"tools": TOOLS, "parallel_tool_calls": True, "tool_stream": dice.random() < 0.5},
        "two": {"n": 2},
        "budget": {"thinking_budget": 3},
        "short": {"max_tokens": 4},
    }.get(kind, {})
    made = plan(
        dice,
        vocabulary,
        thinks=kind in ("thinking", "r1", "budget"),
        calls=kind == "calls",
        # A chain that we hold to a budget has to be seen as it grows.
        stream=packets or kind == "budget",
    )
    if kind == "budget":
        made.behind_budget = plan(dice, vocabulary, thinks=False, calls=False, stream=True)
    if kind == "refused":
        made.script, made.told, made.kind = Script(status=dice.choice((400, 429, 500, 503))), (None, None), "refused"
    leaving: Any = dice.choice(("half-close", "half-close", "reset")) if dice.random() < LEAVERS else None
    after = dice.randint(0, 5) if packets else 0
    body = caller.call(f"call {number} " + " ".join(dice.choices(WORDS, k=3)), model, **asked)
    return load.Call(kind, body, packets, leaving, after), made


def output(used: Json) -> int:
    """Its output tokens."""
    made: int = used["output_tokens"]
    return made


class Compared:
    """Records held against what callers read and what upstream told.

    wrong:    what differs, and all that is known of its call
    outcomes: how many records have each
    told:     upstream calls that were compared
    counted:  those of them whose answer upstream told no figure for that can be true
    """

    def __init__(self) -> None:
        self.wrong: list[tuple[object, ...]] = []
        self.outcomes: collections.Counter[str] = collections.Counter()
        self.told = 0
        self.counted = 0

    def look(self, got: load.Heard, made: Plan, record: Json) -> None:
        """Compare one record."""
        self.outcomes[record["outcome"]] += 1
        billed = record["usage"]["input_tokens"], output(record["usage"])
        # Who resets the connection may have missed what was handed over, upstream's last word among it.
        missed = got.call.leaving == "reset" and (got.used[1] <= billed[1] or billed[1] == made.told[1])
        if got.used != billed and not missed:
            self.wrong.append(("read", got.used, billed, got, made, record))
        if record["outcome"] != "ok":
            return
        for position, spent in enumerate(record["calls"]):
            if spent["end"] not in ("cut", "budget", None):
                self._look_up(spent, made.behind_budget if position and made.behind_budget else made, (got, record))

    def _look_up(self, spent: Json, made: Plan, case: tuple[object, ...]) -> None:
        self.told += 1
        prompt, completion = made.told
        if prompt not in (None, spent["prompt"]) or completion not in (None, spent["completion"]):
            self.wrong.append(("told", made.told, spent, made, *case))
        if completion is None and made.exact is not None:
            self.counted += 1
            if spent["completion"] != made.exact:
                self.wrong.append(("counted", made.exact, spent, made, *case))


@pytest.mark.campaign
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("policy", ["abort", "drain"])
async def test_the_journal_agrees_with_both_sides_whatever_goes_wrong(policy: str, tmp_path: Path) -> None:
    """USE-2, USE-3, MET-1, MET-3, MET-5: exactly what was told by upstream, exactly what was read by who read on."""
    dice, vocabulary = random.Random(SEED), proxy.vocabulary.load()
    path = tmp_path / "calls.jsonl"
    pairs = [drawn(number, dice, vocabulary) for number in range(CALLS // 2)]
    plans = dict(enumerate(made for _, made in pairs))
    with contextlib.ExitStack() as stack:
        dead = stack.enter_context(closed_port())
        async with Simulator(Upstream(plans), vocabulary=vocabulary) as upstream:
            served = Served(
                (
                    *("--upstream", dead, "--upstream", upstream.url, "--port", "0", "--journal-file", str(path)),
                    *("--cancel-policy", policy, *FLAGS),
                ),
                {},
                tmp_path,
            )
            stack.callback(served.end)
            await asyncio.to_thread(served.wait_until_ready)
            heard = await load.run([served.url], [call for call, _ in pairs], workers=WORKERS, dice=dice)
            assert await asyncio.to_thread(served.end) == 0, served.output
    assert "raceback" not in served.output, served.output[-6000:]

    read = ledger.read([path], rules=ledger.RULES)
    assert (read.violations, read.unknown, read.torn) == ([], [], []), SEED
    closes = {
        line["request_id"]: line for line in map(orjson.loads, path.read_bytes().splitlines()) if line["ev"] == "close"
    }
    by_id = {call.known_as: made for call, made in pairs}
    assert all(got.call.leaving for got in heard if got.call.known_as not in closes), SEED

    found = Compared()
    for got in heard:
        if record := closes.get(got.call.known_as):
            found.look(got, by_id[got.call.known_as], record)
    wrong = "\n\n".join(str(one)[:3000] for one in found.wrong[:20])
    assert not wrong, f"seed {SEED}, {len(found.wrong)} wrong:\n{wrong}"
    told = f"{len(closes):,} calls in the books, {found.told:,} upstream calls, {found.counted:,} of them by our count"
    sys.stdout.write(f"\n{policy}, seed {SEED}: {told}; {dict(found.outcomes)}\n")
    matrix.reached(f"{len(heard):,} calls with faults on both sides, policy {policy}", f"0 differ: {told}")
    # All of it happened.
    assert found.told > len(heard) // 4, found.outcomes
    assert found.counted, found.outcomes
    expected = {"ok", "upstream_error", "upstream_cut", "throttled", "client_gone_before_first_packet"}
    assert {*found.outcomes} >= expected, found.outcomes
