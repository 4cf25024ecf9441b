"""The configuration changes while `serve` is under load: no call is lost, cut, or served under two of them (POOL-6)."""

from __future__ import annotations

import asyncio
import random
import signal
from pathlib import Path

import pytest

from proxy.simulation.wire import Script
from tests import caller, lint
from tests.conftest import StartServe, StartSimulator, campaign

RELOADS = max(10, campaign(200))
LANES = 8
# What the interpreter and its allocator may keep of so many configurations.
MOST_GROWN_BYTES = 24 << 20
CALL = caller.call("one two three four five six", incremental_output=True)
BROKEN = ("idle_timeout = -1\n", "there = [", "[[pools]]\nname = 'x'\nurls = ['ftp://a']\n")


def resident_bytes(pid: int) -> int:
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(status["VmRSS"].split()[0]) << 10


def configuration(number: int, urls: list[str], chance: random.Random) -> str:
    """One whose model, header and pool all have its number: a mixture of two would be seen upstream."""
    pool = (
        f'[[pools]]\nname = "p{number}"\nurls = {chance.sample(urls, chance.randint(1, len(urls)))}\n'
        f'headers = {{X-Configuration = "{number}"}}\nmap = {{deepseek-v3 = "m{number}"}}\n'
    )
    return f"idle_timeout = {60 + number}\naffinity = '{chance.choice(['off', 'prefix', 'key'])}'\n{pool}"


@pytest.mark.campaign
@pytest.mark.timeout(600)
@pytest.mark.parametrize("workers", [1, 2])
async def test_reloads_under_load_lose_cut_and_mix_nothing(
    serve: StartServe, simulator: StartSimulator, tmp_path: Path, workers: int
) -> None:
    upstreams = [await simulator(Script(gap_s=0.002)) for _ in range(2)]
    urls, chance, file = [upstream.url for upstream in upstreams], random.Random(workers), tmp_path / "c.toml"
    file.write_text(configuration(0, urls, chance))
    served = await serve("", "--config", str(file), "--workers", str(workers), "--log-level", "info")
    over, ended = asyncio.Event(), 0

    async def lane() -> None:
        nonlocal ended
        while not over.is_set():
            answer = await caller.stream(served.url, CALL)
            assert answer.status == 200, answer.body
            assert not lint.check(answer.body, incremental=True)
            assert caller.text(answer.body).endswith("six")
            ended += 1

    lanes = [asyncio.create_task(lane()) for _ in range(LANES)]
    grown_from, valid, broken = 0, 0, 0
    for number in range(1, RELOADS + 1):
        if chance.random() < 0.3:
            broken += 1
            file.write_text(chance.choice(BROKEN))
        else:
            valid += 1
            file.write_text(configuration(number, urls, chance))
        served.process.send_signal(signal.SIGHUP)
        async with asyncio.timeout(20):
            while served.output.count('"event":"reload') < number:  # noqa: ASYNC110 - the log of another process
                await asyncio.sleep(0.01)
        if number == RELOADS // 2:
            grown_from = resident_bytes(served.process.pid)
    grown_bytes = resident_bytes(served.process.pid) - grown_from
    over.set()
    await asyncio.gather(*lanes)
    calls = [call for upstream in upstreams for call in upstream.calls]
    assert (served.output.count('"reloaded"'), served.output.count('"reload_refused"')) == (valid, broken)
    assert len(calls) == ended > RELOADS
    assert all(call.body["model"] == f"m{call.headers['X-Configuration']}" for call in calls)
    assert len({call.body["model"] for call in calls}) > 1
    assert grown_bytes < MOST_GROWN_BYTES
