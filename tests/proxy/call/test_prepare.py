"""Claims about the door: how a body is read, when a prompt is counted (HTTP-11, USE-6)."""

from __future__ import annotations

import asyncio
import gzip
import itertools
import time

import orjson
import pytest

from proxy.simulation.wire import Script
from tests import caller
from tests.conftest import StartSimulator
from tests.proxy.conftest import StartGateway
from translators import faults

UNREADABLE = (400, "InvalidParameter", faults.BODY_INVALID.message)
TOO_LARGE = (400, "BadRequest.TooLarge", "Payload Too Large.")


class TestBody:
    """Spec HTTP-11."""

    LIMIT = 4_096

    @pytest.mark.parametrize("encoding", ["gzip", " GZIP ", "identity"])
    async def test_gzip_is_inflated(
        self, simulator: StartSimulator, gateway_before: StartGateway, encoding: str
    ) -> None:
        front = await gateway_before((await simulator()).url)
        raw = orjson.dumps(caller.call())
        body = gzip.compress(raw) if "g" in encoding.lower() else raw
        assert (await caller.ask(front.url, body, {"Content-Encoding": encoding})).status == 200

    @pytest.mark.parametrize("encoding", ["deflate", "br", "zstd", "gzip, gzip", "aes128gcm"])
    async def test_no_other_encoding_is(self, gateway_before: StartGateway, encoding: str) -> None:
        front = await gateway_before("http://127.0.0.1:1")
        answer = await caller.ask(front.url, caller.call(), {"Content-Encoding": encoding})
        assert answer.fault == UNREADABLE

    @pytest.mark.parametrize(
        "body",
        [
            b"{}",
            gzip.compress(orjson.dumps(caller.call()))[:-20],
            gzip.compress(orjson.dumps(caller.call()))[:40] + b"x" * 30,
        ],
        ids=["not gzip", "cut short", "broken in the middle"],
    )
    async def test_broken_gzip_is_unreadable(self, gateway_before: StartGateway, body: bytes) -> None:
        front = await gateway_before("http://127.0.0.1:1")
        assert (await caller.ask(front.url, body, {"Content-Encoding": "gzip"})).fault == UNREADABLE

    async def test_the_limit_counts_after_inflation(self, gateway_before: StartGateway) -> None:
        front = await gateway_before("http://127.0.0.1:1", max_body_bytes=str(self.LIMIT))
        bomb = gzip.compress(orjson.dumps(caller.call("a" * 10_000_000)))
        assert (await caller.ask(front.url, bomb, {"Content-Encoding": "gzip"})).fault == TOO_LARGE

    async def test_a_length_beyond_the_limit_is_refused_before_the_body_comes(
        self, gateway_before: StartGateway
    ) -> None:
        front = await gateway_before("http://127.0.0.1:1", max_body_bytes=str(self.LIMIT))
        async with caller.dial(front.url) as line:
            line.send(caller.request(b"{", {"Content-Length": str(self.LIMIT + 1)}))
            answer = await line.answer()
        assert answer.fault == TOO_LARGE
        assert answer.headers["connection"] == "close"

    async def test_chunks_beyond_the_limit_are_refused_without_waiting_for_the_last(
        self, gateway_before: StartGateway
    ) -> None:
        front = await gateway_before("http://127.0.0.1:1", max_body_bytes=str(self.LIMIT))
        async with caller.dial(front.url) as line:
            line.send(caller.request(b"", {"Content-Length": "", "Transfer-Encoding": "chunked"}))
            line.send(b"%x\r\n%b\r\n" % (self.LIMIT + 1, b"a" * (self.LIMIT + 1)))
            assert (await line.answer()).fault == TOO_LARGE

    async def test_a_body_of_just_the_limit_is_read(
        self, simulator: StartSimulator, gateway_before: StartGateway
    ) -> None:
        front = await gateway_before((await simulator()).url, max_body_bytes=str(self.LIMIT))
        room = self.LIMIT - len(orjson.dumps(caller.call("")))
        body = orjson.dumps(caller.call("a" * room))
        assert len(body) == self.LIMIT
        assert (await caller.ask(front.url, body)).status == 200

    @pytest.mark.parametrize("sent", [0, 40])
    async def test_a_body_that_does_not_come_is_not_waited_for(self, gateway_before: StartGateway, sent: int) -> None:
        """Spec ERR-5: `body_timeout`."""
        front = await gateway_before("http://127.0.0.1:1", body_timeout=0.1)
        raw = orjson.dumps(caller.call())
        async with caller.dial(front.url) as line:
            line.send(caller.request(raw)[: -(len(raw) - sent)])
            answer = await line.answer()
        assert answer.fault == UNREADABLE
        assert answer.headers["connection"] == "close"
        record, outcome = await front.end_of()
        assert outcome == "timeout_body"
        assert record.cause == "body_timeout fired"

    async def test_a_slow_body_in_time_is_read(self, simulator: StartSimulator, gateway_before: StartGateway) -> None:
        front = await gateway_before((await simulator()).url, body_timeout=2)
        wire = caller.request(caller.call())
        async with caller.dial(front.url) as line:
            for at in range(0, len(wire), 50):
                line.send(wire[at : at + 50])
                await asyncio.sleep(0.02)
            assert (await line.answer()).status == 200

    async def test_a_caller_who_leaves_in_the_middle_of_it_is_gone(self, gateway_before: StartGateway) -> None:
        front = await gateway_before("http://127.0.0.1:1")
        async with caller.dial(front.url) as line:
            line.send(caller.request(caller.call())[:-5])
            await asyncio.sleep(0.05)
            line.vanish()
            assert (await front.end_of())[1] == "client_gone_before_first_packet"


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
