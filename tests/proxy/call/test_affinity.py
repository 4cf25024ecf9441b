"""Claims about affinity before two real llama.cpp servers: what their prefix caches hold, with it and without."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from config.values import toml
from proxy.simulation import llamacpp
from tests import caller, needs
from tests.conftest import campaign
from tests.proxy.conftest import StartGateway

CONVERSATIONS = max(4, campaign(40))
TURNS = 4
AT_ONCE = 1
# Of its own for each conversation: some sixty tokens that only its own engine has.
SYSTEM = "You are clerk number {n} of the harbour of town {n}. " + "Ship {n} carries {n} crates of salt and rope. " * 4

pytestmark = [
    needs.unless(llamacpp.available(), "the local model"),
    pytest.mark.campaign,
    pytest.mark.timeout(1_800),
]


@pytest.fixture(scope="module")
def engines() -> Iterator[list[str]]:
    with ExitStack() as stack:
        yield [stack.enter_context(llamacpp.start()).url for _ in range(2)]


def written(file: Path, engines: list[str], affinity: str) -> Path:
    pool = f'[[pools]]\nname = "llama"\nurls = {toml(engines)}\ndialect = "llamacpp"\n'
    file.write_text(f'affinity = "{affinity}"\n{pool}')
    return file


async def cached(gateway_before: StartGateway, engines: list[str], file: Path, affinity: str) -> tuple[int, int]:
    """Prompt tokens of all conversations, and how many of them the engines said were cached."""
    front = await gateway_before(config=written(file, engines, affinity), log_level="error")
    chance = random.Random(1)
    # Different ones with and without, or the second run would find what the first has left.
    talks = [[{"role": "system", "content": SYSTEM.format(n=f"{affinity} {n}")}] for n in range(CONVERSATIONS)]

    async def say(lane: Iterator[list[dict[str, str]]], turn: int) -> None:
        for said in lane:
            said.append({"role": "user", "content": f"What is due on day {turn}?"})
            call = caller.call("", incremental_output=True, max_tokens=2)
            call["input"] = {"messages": said}
            answer = await caller.stream(front.url, call)
            assert answer.status == 200, answer.body
            said.append({"role": "assistant", "content": caller.text(answer.body)})

    for turn in range(TURNS):
        # People answer in their own time. Were the next turn to follow at once, the engine that has just answered would
        # be the less loaded one, and least load alone would be as good.
        lane = iter(chance.sample(talks, len(talks)))
        await asyncio.gather(*(say(lane, turn) for _ in range(AT_ONCE)))
    await front.end_of(CONVERSATIONS * TURNS)
    used = [record.closing["attempts"][-1]["used"] for record, _ in front.ended]
    told = [(one["prompt"] or 0, one["cached"] or 0) for one in used if one is not None]
    return sum(prompt for prompt, _ in told), sum(known for _, known in told)


async def test_with_it_engines_find_what_they_have(
    gateway_before: StartGateway, engines: list[str], tmp_path: Path
) -> None:
    prompt_off, cached_off = await cached(gateway_before, engines, tmp_path / "off.toml", "off")
    prompt_on, cached_on = await cached(gateway_before, engines, tmp_path / "on.toml", "prefix")
    # `pytest -s` shows the figures.
    print(f"cached: {cached_off} of {prompt_off} without, {cached_on} of {prompt_on} with affinity")  # noqa: T201
    assert cached_on / prompt_on > cached_off / prompt_off
