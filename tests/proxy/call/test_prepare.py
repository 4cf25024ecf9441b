"""Claims about the door: when a prompt is counted (USE-6)."""

from __future__ import annotations

import asyncio
import itertools
import time

import pytest

from proxy.simulation.wire import Script
from tests import caller
from tests.conftest import StartSimulator
from tests.proxy.conftest import StartGateway


class TestCounting:
    """Spec USE-6: the prompt is counted without holding up anybody."""

    LONG = "All happy families are alike; each unhappy family is unhappy in its own way. " * 2_000

    async def test_a_long_prompt_is_counted_beside_the_upstream_call_and_to_the_token(
        self, simulator: StartSimulator, gateway_before: StartGateway
    ) -> None:
        upstream = await simulator(Script(text="hi", usage="never"))
        front = await gateway_before(upstream.url)
        answer = await caller.stream(front.url, caller.call(self.LONG, incremental_output=True))
        vocabulary = front.house.vocabulary
        text_alone = len(vocabulary.encode(self.LONG))
        counts = {packet["usage"]["input_tokens"] for packet in caller.packets(answer.body)}
        assert len(counts) == 1
        assert text_alone < counts.pop() < text_alone + 10

    async def test_nobody_waits_while_it_is_counted(
        self, simulator: StartSimulator, gateway_before: StartGateway
    ) -> None:
        front = await gateway_before((await simulator(Script(text="hi"))).url)
        gaps: list[float] = []

        async def tick() -> None:
            last = time.perf_counter()
            while True:
                await asyncio.sleep(0)
                gaps.append((now := time.perf_counter()) - last)
                last = now

        ticking = asyncio.create_task(tick())
        assert (await caller.ask(front.url, caller.call(self.LONG * 4))).status == 200
        ticking.cancel()
        assert max(gaps) < 0.25

    async def test_a_prompt_beyond_the_models_limit_never_reaches_the_upstream(
        self, simulator: StartSimulator, gateway_before: StartGateway
    ) -> None:
        """Spec MOD-4."""
        upstream = await simulator()
        front = await gateway_before(upstream.url)
        limit = front.house.catalogue.find("deepseek-v3").input_tokens
        status, code, message = (await caller.ask(front.url, caller.call("a b " * limit))).fault
        assert (status, code) == (400, "InvalidParameter")
        assert message.endswith(f"Range of input length should be [1, {limit}]")
        assert not upstream.calls


class TestTrace:
    """The only headers of a caller that go upstream."""

    async def test_the_callers_trace_goes_on_and_nothing_else(
        self, simulator: StartSimulator, gateway_before: StartGateway
    ) -> None:
        upstream = await simulator()
        front = await gateway_before(upstream.url)
        trace = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "tracestate": "a=b"}
        others = {"Cookie": "c", "X-Forwarded-For": "f", "X-DashScope-WorkSpace": "w", "Connection": "authorization"}
        await caller.ask(front.url, caller.call(), trace | others)
        sent = upstream.calls[0].headers
        assert {name: sent[name] for name in trace} == trace
        assert not {*others} & {*sent}

    async def test_upstream_learns_the_id_the_caller_knows(
        self, simulator: StartSimulator, gateway_before: StartGateway
    ) -> None:
        """And nothing of a proxy before it."""
        upstream = await simulator()
        front = await gateway_before(upstream.url)
        answer = await caller.ask(front.url, caller.call(), {"Via": "1.1 other"})
        sent = upstream.calls[0].headers
        assert sent["x-request-id"] == answer.json["request_id"]
        assert "via" not in {name.lower() for name in sent}

    @pytest.mark.parametrize("header", ["tracestate", "traceparent"])
    async def test_bytes_that_are_no_text_are_left_out(
        self, simulator: StartSimulator, gateway_before: StartGateway, header: str
    ) -> None:
        upstream = await simulator()
        front = await gateway_before(upstream.url)
        assert (await caller.ask(front.url, caller.call(), {header: "a=\xff"})).status == 200
        assert header not in upstream.calls[0].headers


async def test_what_a_body_names_is_never_asked(simulator: StartSimulator, gateway_before: StartGateway) -> None:
    """Spec OPS-3: no host from a body, wherever it may stand."""
    upstream, other = await simulator(), await simulator()
    front = await gateway_before(upstream.url)
    names = [
        "api_base",
        "base_url",
        "url",
        "endpoint",
        "host",
        "proxy",
        "upstream",
        "callback_url",
        "file_url",
        "model_url",
    ]
    spoils = dict.fromkeys(names, other.url)
    calls = itertools.chain(
        [caller.call(**spoils), caller.call() | spoils, caller.call() | {"model": f"{other.url}/deepseek-v3"}],
        [caller.call() | {"input": {**caller.call()["input"], **spoils}}],
    )
    for body in calls:
        await caller.ask(front.url, body)
    assert upstream.calls
    assert not other.connections
