"""Spans of the real `serve`, as a small real OTLP receiver gets them; and that they cost nothing where nobody asked."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import orjson
import pytest
from aiohttp import web
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as collector
from opentelemetry.proto.trace.v1 import trace_pb2

from proxy.downstream import paths
from proxy.simulation.wire import Script
from tests import caller
from tests.conftest import ROOT, Served, StartServe, StartSimulator

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PROMPT, ANSWER = "the-prompt-of-a-caller", "the-answer-of-a-model"
THINKING = {"enable_thinking": True, "incremental_output": True}


@dataclass(slots=True)
class Receiver:
    """What came in by OTLP over HTTP.

    wire: every request as it came
    """

    url: str = ""
    wire: list[bytes] = field(default_factory=list)
    resource: dict[str, Any] = field(default_factory=dict)
    spans: list[Any] = field(default_factory=list)
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    async def take(self, asked: web.Request) -> web.Response:
        """One export."""
        self.wire.append(await asked.read())
        for resource_spans in collector.ExportTraceServiceRequest.FromString(self.wire[-1]).resource_spans:
            self.resource = attributes(resource_spans.resource)
            for scope in resource_spans.scope_spans:
                self.spans += scope.spans
        self._news.set()
        return web.Response(
            body=collector.ExportTraceServiceResponse().SerializeToString(), content_type="application/x-protobuf"
        )

    async def call(self) -> tuple[Any, Any]:
        """The two spans of a call: ours, and that of the upstream call."""
        async with asyncio.timeout(10):
            while len(self.spans) < 2:
                self._news.clear()
                await self._news.wait()
        (server,) = (span for span in self.spans if span.kind == trace_pb2.Span.SPAN_KIND_SERVER)
        (client,) = (span for span in self.spans if span.kind == trace_pb2.Span.SPAN_KIND_CLIENT)
        return server, client


def attributes(of: Any) -> dict[str, Any]:
    def plain(value: Any) -> Any:
        kind = value.WhichOneof("value")
        return [plain(part) for part in value.array_value.values] if kind == "array_value" else getattr(value, kind)

    return {attribute.key: plain(attribute.value) for attribute in of.attributes}


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    """A collector of traces."""
    received = Receiver()
    served = web.Application()
    served.router.add_post("/v1/traces", received.take)
    runner = web.AppRunner(served)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    received.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield received
    await runner.cleanup()


async def traced(serve: StartServe, upstream: str, receiver: Receiver, *flags: str, **env: str) -> Served:
    """A `serve` that sends its spans at once."""
    environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url, "OTEL_BSP_SCHEDULE_DELAY": "50", **env}
    return await serve(upstream, "--tracing", "otlp", *flags, env=environ)


async def test_a_call_is_two_spans_in_the_callers_trace(
    simulator: StartSimulator, serve: StartServe, receiver: Receiver
) -> None:
    upstream = await simulator()
    served = await traced(serve, upstream.url, receiver)
    trace = {"traceparent": f"00-{TRACE}-{PARENT}-01", "tracestate": "a=b"}
    answer = await caller.stream(served.url, caller.call("Hi", "deepseek-v3.2", **THINKING), trace)
    server, client = await receiver.call()
    used = caller.packets(answer.body)[-1]["usage"]

    assert (server.trace_id.hex(), server.parent_span_id.hex()) == (TRACE, PARENT)
    assert (client.trace_id.hex(), client.parent_span_id) == (TRACE, server.span_id)
    assert server.trace_state == client.trace_state == "a=b"
    sent = upstream.calls[0].headers
    assert sent["traceparent"] == f"00-{TRACE}-{client.span_id.hex()}-01"
    assert sent["tracestate"] == "a=b"

    assert server.name == f"POST {paths.GENERATION}"
    assert attributes(server) == {
        "http.request.method": "POST",
        "http.route": paths.GENERATION,
        "url.path": paths.GENERATION,
        "url.scheme": "http",
        "http.response.status_code": 200,
        "dashseek.request_id": answer.headers["x-request-id"],
        "dashseek.api": "dashscope",
        "dashseek.outcome": "ok",
    }
    model = upstream.calls[0].body["model"]
    assert client.name == f"chat {model}"
    told = attributes(client)
    assert 0 < told.pop("gen_ai.response.time_to_first_chunk") < 5
    assert told == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "deepseek",
        "gen_ai.request.model": model,
        "gen_ai.request.stream": True,
        "gen_ai.response.finish_reasons": ["stop"],
        "gen_ai.usage.input_tokens": used["input_tokens"],
        "gen_ai.usage.output_tokens": used["output_tokens"],
        "gen_ai.usage.reasoning.output_tokens": used["output_tokens_details"]["reasoning_tokens"],
        "gen_ai.usage.cache_read.input_tokens": used["prompt_tokens_details"]["cached_tokens"],
        "server.address": "127.0.0.1",
        "server.port": int(upstream.url.rpartition(":")[2]),
    }
    assert server.start_time_unix_nano <= client.start_time_unix_nano
    assert client.end_time_unix_nano <= server.end_time_unix_nano
    assert receiver.resource["service.name"] == "dashseek"
    # What it says is gathered, and read by a thread of its own: all of it is there once it has ended.
    await asyncio.to_thread(served.end)
    (line,) = (line for line in served.output.splitlines() if '"event":"call"' in line)
    assert orjson.loads(line)["trace_id"] == TRACE


async def test_a_failure_is_an_error_of_both(simulator: StartSimulator, serve: StartServe, receiver: Receiver) -> None:
    served = await traced(serve, (await simulator(Script(status=500))).url, receiver, OTEL_SERVICE_NAME="edge")
    await caller.ask(served.url, caller.call(), path="/partner/models/deepseek-v3")
    server, client = await receiver.call()
    assert server.name == "POST /{partner}/models/{model}"
    for span in (server, client):
        assert span.status.code == trace_pb2.Status.STATUS_CODE_ERROR
        assert attributes(span)["error.type"] == "upstream_error"
    assert attributes(server)["http.response.status_code"] == 500
    assert attributes(server)["dashseek.code"] == "InternalError"
    assert receiver.resource["service.name"] == "edge"


async def test_a_refused_call_is_no_error_of_the_server_and_has_one_span(
    simulator: StartSimulator, serve: StartServe, receiver: Receiver
) -> None:
    served = await traced(serve, (await simulator()).url, receiver)
    await caller.ask(served.url, b"[]")
    assert await asyncio.to_thread(served.end) == 0
    (server,) = receiver.spans
    assert server.status.code == trace_pb2.Status.STATUS_CODE_UNSET
    assert attributes(server)["error.type"] == "rejected"


async def test_what_is_not_sampled_is_passed_on_and_not_told(
    simulator: StartSimulator, serve: StartServe, receiver: Receiver
) -> None:
    upstream = await simulator()
    served = await traced(serve, upstream.url, receiver)
    await caller.ask(served.url, caller.call(), {"traceparent": f"00-{TRACE}-{PARENT}-00"})
    assert await asyncio.to_thread(served.end) == 0
    assert receiver.spans == []
    assert upstream.calls[0].headers["traceparent"].startswith(f"00-{TRACE}-")
    assert upstream.calls[0].headers["traceparent"].endswith("-00")


async def test_no_key_prompt_or_answer_is_in_them(
    simulator: StartSimulator, serve: StartServe, receiver: Receiver
) -> None:
    """Spec MET-4."""
    served = await traced(
        serve, (await simulator(Script(text=ANSWER))).url, receiver, DASHSEEK_UPSTREAM_API_KEY="sk-ours"
    )
    answer = await caller.ask(served.url, caller.call(PROMPT))
    assert ANSWER in answer.body.decode()
    await receiver.call()
    for secret in (PROMPT, ANSWER, caller.KEY, "sk-ours"):
        assert secret.encode() not in b"".join(receiver.wire)


async def test_a_collector_that_is_away_costs_no_call_and_is_said(simulator: StartSimulator, serve: StartServe) -> None:
    served = await traced(
        serve,
        (await simulator()).url,
        Receiver(url="http://127.0.0.1:1"),
        OTEL_EXPORTER_OTLP_TIMEOUT="1",
        HTTP_PROXY="http://127.0.0.1:9",
    )
    assert (await caller.ask(served.url, caller.call())).status == 200
    async with asyncio.timeout(10):
        while '"event":"spans"' not in served.output:  # noqa: ASYNC110 - it comes from another process
            await asyncio.sleep(0.05)
    assert await asyncio.to_thread(served.end) == 0


def test_who_does_not_ask_for_it_does_not_load_it() -> None:
    lines = (
        "import sys; import proxy.server.process; "
        "print([name for name in sys.modules if name.startswith('opentelemetry')])"
    )
    run = subprocess.run([sys.executable, "-c", lines], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout == "[]\n"


def test_without_the_extra_it_is_a_sentence_with_exit_code_2() -> None:
    hidden = "import sys; sys.modules['opentelemetry'] = None; from proxy.commands import cli; cli.dashseek()"
    flags = ["serve", "--upstream", "http://127.0.0.1:1", "--port", "0", "--tracing", "otlp"]
    run = subprocess.run(
        [sys.executable, "-c", hidden, *flags], cwd=ROOT, capture_output=True, text=True, check=False, timeout=30
    )
    assert run.returncode == 2
    assert "tracing (--tracing): needs OpenTelemetry: pip install '.[otel]'" in run.stderr
