"""A call into two spans, ours and under it that of the upstream call: names and numbers, never a key or a text.

Where they go is said by OpenTelemetry's own variables (`OTEL_EXPORTER_OTLP_ENDPOINT`, `OTEL_TRACES_SAMPLER`, …). They
leave in a thread; what a collector does not take is lost, and no call waits for it. Source: SOURCES#genai-spans.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final, Protocol
from urllib.parse import urlsplit

import requests
import structlog
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http import trace_exporter
from opentelemetry.sdk import resources
from opentelemetry.sdk import trace as sdk
from opentelemetry.sdk.trace import export
from opentelemetry.trace.propagation import tracecontext
from opentelemetry.util.types import AttributeValue

from proxy.metering.journal import Closing, Opening, Record
from proxy.telemetry import installed, trace_context

log = structlog.get_logger()

PROVIDER: Final = "deepseek"
W3C: Final = tracecontext.TraceContextTextMapPropagator()
# At the end so long for what was not sent yet.
FLUSH_S: Final = 5.0
SERVER_ERROR: Final = 500


class Traced(Protocol):
    """What spans say of a request."""

    @property
    def method(self) -> str: ...
    @property
    def path(self) -> str: ...
    @property
    def route(self) -> str: ...
    @property
    def headers(self) -> trace_context.Headers: ...


class Trace:
    """One call's spans, from its head on."""

    __slots__ = ("_client", "_server", "_tracer")

    def __init__(self, tracer: trace.Tracer, request: Traced, began_s: float) -> None:
        self._tracer = tracer
        self._server = tracer.start_span(
            f"{request.method} {request.route}",
            W3C.extract(trace_context.passed_on(request.headers)),
            trace.SpanKind.SERVER,
            {
                "http.request.method": request.method,
                "http.route": request.route,
                "url.path": request.path,
                "url.scheme": "http",
            },
            start_time=int(began_s * 1e9),
        )
        self._client: trace.Span | None = None

    @property
    def id(self) -> str:
        """What the call is found by in the traces."""
        return trace.format_trace_id(self._server.get_span_context().trace_id)

    def onward(self, opening: Opening) -> Mapping[str, str]:
        """The headers for upstream, whose span begins here."""
        self._client = self._tracer.start_span(
            f"chat {opening['upstream_model']}",
            trace.set_span_in_context(self._server),
            trace.SpanKind.CLIENT,
            {
                "gen_ai.operation.name": "chat",
                "gen_ai.provider.name": PROVIDER,
                "gen_ai.request.model": opening["upstream_model"],
                "gen_ai.request.stream": opening["stream"],
            },
        )
        headers: dict[str, str] = {}
        W3C.inject(headers, trace.set_span_in_context(self._client))
        return headers

    def end(self, record: Record) -> None:
        """End both spans, with their status and figures."""
        closing = record.closing
        if self._client is not None:
            _end(self._client, closing, _of_upstream(record), failed=closing["outcome"] != "ok")
        attributes: dict[str, AttributeValue] = {
            "dashseek.request_id": record.request_id,
            "dashseek.api": record.api,
            "dashseek.outcome": closing["outcome"],
        }
        if closing["code"] is not None:
            attributes["dashseek.code"] = closing["code"]
        # Who has left was sent no status; 499 is a word of records alone.
        if not closing["outcome"].startswith("client_"):
            attributes["http.response.status_code"] = closing["status"]
        _end(self._server, closing, attributes, failed=closing["status"] >= SERVER_ERROR)


class Spans:
    """Begins the spans of calls."""

    __slots__ = ("_tracer",)

    def __init__(self, provider: trace.TracerProvider) -> None:
        self._tracer = provider.get_tracer(installed.DISTRIBUTION, installed.version_of(installed.DISTRIBUTION))

    def begin(self, request: Traced, began_s: float) -> Trace:
        """The spans of one call.

        began_s: wall clock
        """
        return Trace(self._tracer, request, began_s)


@contextmanager
def opened() -> Iterator[Spans]:
    """Spans that go to the collector of the environment, as long as the context lives."""
    ours = {"service.name": installed.DISTRIBUTION, "service.version": installed.version_of(installed.DISTRIBUTION)}
    resource = resources.Resource(ours).merge(resources.OTELResourceDetector().detect())
    provider = sdk.TracerProvider(resource=resource, shutdown_on_exit=False)
    # We talk to nobody but whom the operator named: no proxy of the environment between.
    session = requests.Session()
    session.trust_env = False
    provider.add_span_processor(export.BatchSpanProcessor(trace_exporter.OTLPSpanExporter(session=session)))
    complaints = logging.getLogger("opentelemetry")
    complaints.propagate, said = False, _Said(logging.WARNING)
    complaints.addHandler(said)
    try:
        yield Spans(provider)
    finally:
        # A daemon: a collector that does not answer must not keep the process from leaving.
        leaving = threading.Thread(target=provider.shutdown, name="spans", daemon=True)
        leaving.start()
        leaving.join(FLUSH_S)
        complaints.removeHandler(said)


class _Said(logging.Handler):
    """OpenTelemetry's complaints, among our log lines."""

    def emit(self, record: logging.LogRecord) -> None:
        log.warning("spans", reason=record.getMessage())


def _of_upstream(record: Record) -> dict[str, AttributeValue]:
    closing = record.closing
    attributes: dict[str, AttributeValue] = {}
    if closing["attempts"]:
        place = urlsplit(closing["attempts"][-1]["target"])
        attributes["server.address"] = place.hostname or ""
        attributes["server.port"] = place.port or (443 if place.scheme == "https" else 80)
    if record.finish_reasons:
        attributes["gen_ai.response.finish_reasons"] = record.finish_reasons
    sent_ms, first_ms = closing["t"]["upstream_sent"], closing["t"]["first_packet"]
    if sent_ms is not None and first_ms is not None:
        attributes["gen_ai.response.time_to_first_chunk"] = (first_ms - sent_ms) / 1e3
    if closing["basis"] != "none":
        used = closing["generated"]
        attributes["gen_ai.usage.input_tokens"] = used["input_tokens"]
        attributes["gen_ai.usage.output_tokens"] = used["output_tokens"]
        if "output_tokens_details" in used:
            attributes["gen_ai.usage.reasoning.output_tokens"] = used["output_tokens_details"]["reasoning_tokens"]
        if "prompt_tokens_details" in used:
            attributes["gen_ai.usage.cache_read.input_tokens"] = used["prompt_tokens_details"]["cached_tokens"]
    return attributes


def _end(span: trace.Span, closing: Closing, attributes: Mapping[str, AttributeValue], *, failed: bool) -> None:
    span.set_attributes(attributes)
    if closing["outcome"] != "ok":
        span.set_attribute("error.type", closing["outcome"])
    if failed:
        span.set_status(trace.StatusCode.ERROR)
    span.end()
