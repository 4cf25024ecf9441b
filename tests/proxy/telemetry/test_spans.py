"""Claims about what spans say of a call's record, and about the way they leave; of the real `serve`: `test_tracing`."""

from __future__ import annotations

import atexit
import http.server
import logging
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from multidict import CIMultiDict
from opentelemetry.sdk import trace as sdk
from opentelemetry.sdk.trace import export
from opentelemetry.sdk.trace.export import in_memory_span_exporter
from opentelemetry.trace import SpanKind, StatusCode
from structlog import testing

from proxy.telemetry import installed, spans
from tests.proxy.metering.records import Json, opened, used
from tests.proxy.telemetry.records import TIMES, ended

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@dataclass(frozen=True, slots=True)
class Asked:
    """A request, as far as spans say it."""

    method: str = "POST"
    path: str = "/partner/models/deepseek-v3"
    route: str = "/{partner}/models/{model}"
    headers: CIMultiDict[str] = field(default_factory=CIMultiDict)


def told(closing: Json | None = None, *, asks: bool = True, began_s: float = 1.5, **facts: Any) -> list[Any]:
    """The spans of a call that has ended so, the upstream call's first."""
    provider, kept = sdk.TracerProvider(), in_memory_span_exporter.InMemorySpanExporter()
    provider.add_span_processor(export.SimpleSpanProcessor(kept))
    trace = spans.Spans(provider).begin(Asked(headers=CIMultiDict(traceparent=f"00-{TRACE}-{PARENT}-01")), began_s)
    assert trace.id == TRACE
    headers = trace.onward(opened("a")) if asks else {}  # type: ignore[arg-type]
    trace.end(ended(closing, **facts))
    found = [*kept.get_finished_spans()]
    if asks:
        assert headers["traceparent"] == f"00-{TRACE}-{found[0].context.span_id:016x}-01"
    return found


def test_a_call_is_a_span_and_under_it_one_of_its_upstream_call() -> None:
    client, server = told()
    assert (server.name, client.name) == ("POST /{partner}/models/{model}", "chat deepseek-chat")
    assert (server.kind, client.kind) == (SpanKind.SERVER, SpanKind.CLIENT)
    assert (f"{server.parent.span_id:016x}", client.parent.span_id) == (PARENT, server.context.span_id)
    assert server.start_time == 1_500_000_000
    assert {span.status.status_code for span in (client, server)} == {StatusCode.UNSET}
    assert dict(server.attributes) == {
        "http.request.method": "POST",
        "http.route": "/{partner}/models/{model}",
        "url.path": "/partner/models/deepseek-v3",
        "url.scheme": "http",
        "http.response.status_code": 200,
        "dashseek.request_id": "id-a",
        "dashseek.api": "dashscope",
        "dashseek.outcome": "ok",
    }
    assert dict(client.attributes) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "deepseek",
        "gen_ai.request.model": "deepseek-chat",
        "gen_ai.request.stream": True,
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.response.time_to_first_chunk": 0.125,
        "gen_ai.usage.input_tokens": 11,
        "gen_ai.usage.output_tokens": 18,
        "gen_ai.usage.reasoning.output_tokens": 6,
        "gen_ai.usage.cache_read.input_tokens": 3,
        "server.address": "b",
        "server.port": 80,
    }


def test_a_call_that_never_went_upstream_is_one_span() -> None:
    (server,) = told({"outcome": "rejected", "status": 400, "code": "InvalidParameter"}, asks=False)
    assert server.attributes["dashseek.code"] == "InvalidParameter"


@pytest.mark.parametrize(
    ("closing", "failed", "told_of_server"),
    [
        ({"outcome": "rejected", "status": 429, "code": "Throttling"}, (True, False), 429),
        ({"outcome": "upstream_error", "status": 500, "code": "InternalError"}, (True, True), 500),
        ({"outcome": "upstream_error", "status": 503, "code": "ModelUnavailable"}, (True, True), 503),
        # Who has left was sent no status.
        ({"outcome": "client_gone_mid_stream", "status": 499}, (True, False), None),
    ],
)
def test_what_failed_has_its_outcome_and_only_what_is_our_fault_is_an_error_of_ours(
    closing: Json, failed: tuple[bool, bool], told_of_server: int | None
) -> None:
    found = told(closing)
    assert tuple(span.status.status_code is StatusCode.ERROR for span in found) == failed
    assert [span.attributes["error.type"] for span in found] == [closing["outcome"]] * 2
    assert found[1].attributes.get("http.response.status_code") == told_of_server


ADDRESS = {"server.address", "server.port"}
FIRST_CHUNK = {"gen_ai.response.time_to_first_chunk"}
PARTS = {"gen_ai.usage.reasoning.output_tokens", "gen_ai.usage.cache_read.input_tokens"}


@pytest.mark.parametrize(
    ("closing", "facts", "unsaid"),
    [
        ({"attempts": []}, {}, ADDRESS),
        ({}, {"finish_reasons": ()}, {"gen_ai.response.finish_reasons"}),
        ({"t": {**TIMES, "upstream_sent": None}}, {}, FIRST_CHUNK),
        ({"t": {**TIMES, "first_packet": None}}, {}, FIRST_CHUNK),
        ({"basis": "none"}, {}, PARTS | {"gen_ai.usage.input_tokens", "gen_ai.usage.output_tokens"}),
        ({"generated": used(11, 18)}, {}, PARTS),
    ],
)
def test_what_is_not_known_of_an_upstream_call_is_not_said(closing: Json, facts: Json, unsaid: set[str]) -> None:
    whole, found = told()[0].attributes, told(closing, **facts)[0].attributes
    assert {*whole} - {*found} == unsaid


@pytest.mark.parametrize(
    ("target", "address", "port"),
    [
        ("https://api.deepseek.com/v1", "api.deepseek.com", 443),
        ("http://host/v1", "host", 80),
        ("https://[::1]:8443", "::1", 8443),
        ("", "", 80),
    ],
)
def test_an_upstream_is_told_by_its_host_and_port(target: str, address: str, port: int) -> None:
    said = told({"attempts": [{"target": target, "result": "200"}]}, tries=[("", target, False)])[0].attributes
    assert (said["server.address"], said["server.port"]) == (address, port)


@dataclass(slots=True)
class Collector:
    """What takes spans, and who was there when they came.

    daemons: of each thread that then sent the last ones off, whether it keeps no process from leaving
    """

    url: str
    wires: list[bytes] = field(default_factory=list)
    daemons: list[bool] = field(default_factory=list)


@pytest.fixture
def collector() -> Iterator[Collector]:
    class Taken(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            made.wires.append(self.rfile.read(int(self.headers["Content-Length"])))
            made.daemons.extend(thread.daemon for thread in threading.enumerate() if thread.name == "spans")
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Taken) as server:
        made = Collector(f"http://127.0.0.1:{server.server_address[1]}")
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield made
        server.shutdown()
        thread.join()


def test_what_was_not_sent_yet_leaves_with_the_end_and_nothing_is_left_behind(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not by a proxy of the environment; complaints are lines of our log, and nobody else's."""
    complaints, at_exit, register = logging.getLogger("opentelemetry"), list[object](), atexit.register

    def noted(end: Any, *how: Any, **named: Any) -> Any:
        at_exit.append(getattr(end, "__self__", None))
        return register(end, *how, **named)

    monkeypatch.setattr(complaints, "propagate", True)
    monkeypatch.setattr(atexit, "register", noted)
    monkeypatch.setattr(spans, "FLUSH_S", 20)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
    # Not before its end, however long this takes.
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "3600000")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    handlers = [*complaints.handlers]
    with testing.capture_logs() as lines, spans.opened() as begun:
        begun.begin(Asked(), 1.5).end(ended())
        logging.getLogger("opentelemetry.sdk").info("all is well")
        logging.getLogger("opentelemetry.sdk").warning("%s is away", "it")
        assert not complaints.propagate
    assert [*lines] == [{"event": "spans", "log_level": "warning", "reason": "it is away"}]
    (wire,) = collector.wires
    for said in (b"POST /{partner}/models/{model}", installed.version_of("dashseek").encode(), b"service.name"):
        assert said in wire
    assert collector.daemons == [True]
    assert complaints.handlers == handlers
    # An end of the process does not wait for a collector again.
    assert not [one for one in at_exit if isinstance(one, sdk.TracerProvider)]
