"""What `serve --inspect` costs: nothing where it is off, and never more memory than was said."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import orjson
import pytest

from proxy.simulation.wire import Script
from tests import caller
from tests.caller import SSE
from tests.conftest import Served, StartServe, StartSimulator, campaign


async def test_without_the_flag_there_is_nothing(serve: StartServe, simulator: StartSimulator) -> None:
    upstream = await simulator()
    served = await serve(upstream.url)
    for path in ("/calls", "/calls/list", "/calls/1"):
        headers = {"Content-Length": "", "Authorization": ""}
        assert (await caller.ask(served.admin_url, b"", headers, path=path, method="GET")).status == 404
    index = await caller.ask(served.admin_url, b"", {"Content-Length": "", "Authorization": ""}, path="/", method="GET")
    assert b"calls" not in index.body.replace(b"calls would", b"")


@pytest.mark.campaign
@pytest.mark.timeout(900)
async def test_memory_is_bounded_and_flat_over_many_calls(serve: StartServe, simulator: StartSimulator) -> None:
    """20,000 calls: what is kept after the first hundreds is what is kept after all."""
    upstream = await simulator(Script(text="word " * 200, deltas_per_write=20))
    served = await serve(upstream.url, "--inspect")
    body = caller.call("Say words. " * 50, incremental_output=True)
    total, half = campaign(20_000), []

    async def some(number: int) -> None:
        for _ in range(number):
            answer = await caller.ask(served.url, body, SSE)
            assert answer.status == 200

    for share in range(4):
        await asyncio.gather(*(some(total // 4 // 10) for _ in range(10)))
        upstream.calls.clear()
        kept = orjson.loads((await _listed(served)).body)
        assert len(kept["calls"]) == 200
        assert kept["held_bytes"] < 200 * (2 << 20)
        half.append(_resident_kib(served))
        del share
    # The first quarter fills the list; after it nothing grows but what a machine's allocator keeps.
    assert half[-1] - half[0] < 24 * 1024, half


async def _listed(served: Served) -> caller.Answer:
    return await caller.ask(
        served.admin_url, b"", {"Content-Length": "", "Authorization": ""}, path="/calls/list", method="GET"
    )


def _resident_kib(served: Served) -> int:
    status = Path(f"/proc/{served.process.pid}/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS")))


async def test_calls_are_kept_after_a_reload_as_before(
    serve: StartServe, simulator: StartSimulator, tmp_path: Path
) -> None:
    upstream = await simulator()
    file = tmp_path / "dashseek.toml"
    file.write_text(f'upstream = ["{upstream.url}"]\ninspect = true\n')
    served = await serve(upstream.url, "--config", str(file))
    for number, alias in ((1, "before"), (2, "after")):
        await caller.ask(served.url, caller.call(f"It is {alias}."), SSE)
        calls = orjson.loads((await _listed(served)).body)["calls"]
        assert (len(calls), calls[-1]["packets"] > 0, calls[-1]["answered_ms"] > 0) == (number, True, True)
        file.write_text(file.read_text() + f'aliases = {{ {alias} = "deepseek-v3" }}\n' * (number == 1))
        served.process.send_signal(signal.SIGHUP)
        async with asyncio.timeout(10):
            while '"event":"reload' not in served.output:  # noqa: ASYNC110 - the log of another process
                await asyncio.sleep(0.01)
    assert '"reloaded"' in served.output
