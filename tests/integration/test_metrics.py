"""`/metrics` of the real `serve`: what Prometheus' linter and a real Prometheus make of it; what is never in it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
from prometheus_client.openmetrics import parser as openmetrics

from proxy.simulation.wire import Json, Script
from proxy.telemetry import metrics
from tests import caller, needs
from tests.conftest import Served, StartServe, StartSimulator

PROMPT = "the-prompt-of-a-caller"
ANSWER = "the-answer-of-a-model"
OPENMETRICS = {"Accept": "application/openmetrics-text;version=1.0.0"}
SCRAPE = """
global: {{scrape_interval: 200ms}}
scrape_configs:
  - job_name: dashseek
    static_configs: [{{targets: ["{target}"]}}]
"""
PATIENCE_S = 30.0
ENDLESS = "tell me for ever"


def script_of(body: Json) -> Script:
    """Who means to leave gets an answer that does not end before."""
    endless = ENDLESS in body["messages"][-1]["content"]
    return Script(endless=True, gap_s=0.01) if endless else Script(text="one two three", gap_s=0.01)


async def scrape(served: Served, headers: dict[str, str] | None = None) -> tuple[str, str]:
    """The content type and the text."""
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{served.admin_url}/metrics", headers=headers) as response,
    ):
        assert response.status == 200
        return response.headers["Content-Type"], await response.text()


async def load(served: Served, calls: int = 24) -> None:
    """Calls of every kind at once: streams, replies, refused ones, and callers who leave."""

    async def one(number: int) -> None:
        match number % 4:
            case 0:
                await caller.stream(served.url, caller.call(PROMPT, incremental_output=True))
            case 1:
                await caller.ask(served.url, caller.call(PROMPT, "deepseek-r1"))
            case 2:
                await caller.ask(served.url, caller.call(PROMPT, model=f"invented-{number}"))
            case _:
                async with caller.dial(served.url) as line:
                    line.send(caller.request(caller.call(ENDLESS, incremental_output=True), caller.SSE))
                    await line.head()

    await asyncio.gather(*(one(number) for number in range(calls)))


def promtool(text: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [needs.program("promtool"), "check", "metrics"], input=text, capture_output=True, text=True, check=False
    )


@needs.programs("promtool")
async def test_prometheus_linter_has_nothing_to_say_under_load(simulator: StartSimulator, serve: StartServe) -> None:
    upstream = await simulator(script_of)
    served = await serve(upstream.url)
    under_load = asyncio.create_task(load(served))
    await upstream.call()
    _, meanwhile = await scrape(served)
    await under_load
    content_type, afterwards = await scrape(served)
    assert content_type == "text/plain; version=0.0.4; charset=utf-8"
    for text in (meanwhile, afterwards):
        judged = promtool(text)
        assert (judged.returncode, judged.stdout, judged.stderr) == (0, "", "")
    assert "invented" not in afterwards
    assert 'model="other"' in afterwards


async def test_openmetrics_is_there_for_those_who_ask(simulator: StartSimulator, serve: StartServe) -> None:
    served = await serve((await simulator()).url)
    await load(served, 4)
    content_type, text = await scrape(served, OPENMETRICS)
    assert content_type.startswith("application/openmetrics-text; version=1.0.0")
    names = [family.name for family in openmetrics.text_string_to_metric_families(text)]
    assert names == [row.name.removesuffix("_total") for row in metrics.ROWS]


async def test_no_key_prompt_or_answer_is_in_them(simulator: StartSimulator, serve: StartServe) -> None:
    """Spec MET-4."""
    served = await serve((await simulator(Script(text=ANSWER))).url, env={"DASHSEEK_UPSTREAM_API_KEY": "sk-ours"})
    answer = await caller.ask(served.url, caller.call(PROMPT))
    assert ANSWER in answer.body.decode()
    await caller.ask(served.url, caller.call(PROMPT, model=PROMPT))
    _, text = await scrape(served)
    for secret in (PROMPT, ANSWER, caller.KEY, "sk-ours", answer.headers["x-request-id"]):
        assert secret not in text


@contextlib.asynccontextmanager
async def prometheus(target: str, directory: Path) -> AsyncIterator[str]:
    """The base URL of a real Prometheus that scrapes one target."""
    program = needs.program("prometheus")
    config = directory / "prometheus.yml"
    config.write_text(SCRAPE.format(target=target.removeprefix("http://")))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with (directory / "prometheus.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            program,
            f"--config.file={config}",
            f"--storage.tsdb.path={directory / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
            stdout=log,
            stderr=log,
        )
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        await process.wait()


async def answer_of(url: str, query: str) -> Any:
    """The value of a query that has one, as soon as it has one."""
    async with aiohttp.ClientSession() as session, asyncio.timeout(PATIENCE_S):
        while True:
            # While it starts it answers nobody, or in plain words.
            with contextlib.suppress(aiohttp.ClientError, ValueError):
                async with session.get(f"{url}/api/v1/query", params={"query": query}) as response:
                    found = json.loads(await response.read())
                    if found["status"] == "success" and found["data"]["result"]:
                        return float(found["data"]["result"][0]["value"][1])
            await asyncio.sleep(0.1)


@needs.programs("prometheus")
async def test_a_real_prometheus_answers_about_a_real_serve(
    simulator: StartSimulator, serve: StartServe, tmp_path: Path
) -> None:
    served = await serve((await simulator(script_of)).url)
    await load(served)
    async with prometheus(served.admin_url, tmp_path) as url:
        assert await answer_of(url, 'up{job="dashseek"} == 1') == 1
        assert await answer_of(url, 'sum(dashseek_requests_total{outcome="ok"}) == 12') == 12
        assert await answer_of(url, 'sum(dashseek_requests_total{status="400", model="other"}) == 6') == 6
        assert await answer_of(url, "sum(dashseek_cancelled_total) == 6") == 6
        quantile = "histogram_quantile(0.95, sum by (le) (gen_ai_server_time_to_first_token_seconds_bucket))"
        assert 0 < await answer_of(url, quantile) < 60
        assert await answer_of(url, "dashseek_event_loop_lag_seconds_count > 0") > 0
