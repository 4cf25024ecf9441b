"""The checker is checked: nothing is found in what is right, and every check finds the gateway that breaks its rule."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import io
import json
import os
import re
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final
from xml.etree import ElementTree

import orjson
import pytest
import pytest_asyncio
from click.testing import CliRunner

from proxy.commands import cli, conform, conform_reports
from proxy.commands.conform_reports import Report
from proxy.protocol import asks, claims, claims_zh, conformance, judgements, tables
from proxy.protocol.asks import Ask
from proxy.protocol.conformance import Verdict
from proxy.protocol.judgements import Came
from proxy.simulation.simulator import Simulator
from proxy.simulation.wire import Script
from tests import forks
from tests.conftest import ROOT
from tests.gateways import (
    Answer,
    Answering,
    Gateway,
    Json,
    Mutant,
    Request,
    before,
    each,
    errors,
    frames,
    given,
    header,
    refusing,
    replies,
    without,
)
from translators import tokens

pytestmark = pytest.mark.asyncio(loop_scope="module")

KEY: Final = "sk-the-examiners-own"
MODELS: Final = ("deepseek-v3", "deepseek-v3.1", "deepseek-v3.2", "deepseek-r1", "deepseek-v4-flash")
ROUTE: Final = "/partner/models/deepseek-v3.2"
CALL: Final = {
    "index": 0,
    "id": "c",
    "type": "function",
    "function": {"name": "get_current_weather", "arguments": "{}"},
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def upstream(vocabulary: tokens.Vocabulary) -> AsyncIterator[Simulator]:
    """A simulator that wants a key."""
    async with Simulator(Script(key=KEY), vocabulary=vocabulary) as upstream:
        yield upstream


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(upstream: Simulator, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Gateway]:
    """The real `serve` before it, and the server of mutants before both."""
    async with before(upstream.url, tmp_path_factory.mktemp("serve")) as gateway:
        yield gateway


async def examined(url: str, *only: str, model: str = "deepseek-v3.2", **how: Any) -> Report:
    asked = conform.Examined(f"{url}/api/v1", model, KEY, 10, counted=True, only=only, **how)
    target = conform.target_of(model, asked.route, counted=True)
    report = await conform.examine(asked, target, conform.rows_of(target, only), lambda _, __: None)
    assert not isinstance(report, str)
    return report


def found(report: Report, verdict: Verdict) -> dict[str, str]:
    return {it.check.name: it.finding.evidence for it in report.results if it.finding.verdict is verdict}


# How a rule is broken


def message(change: Callable[[Json], object]) -> Answering:
    """Change the message of the first choice of every reply."""
    return replies(lambda document, _: _none(change(document["output"]["choices"][0]["message"])))


def choice(change: Callable[[Json], object], **where: Any) -> Answering:
    return replies(lambda document, _: _none(change(document["output"]["choices"][0])), **where)


def packet(change: Callable[[Json, int, int], object]) -> Answering:
    return each(lambda document, number, total: _kept(document, change(document, number, total)))


def usage(change: Callable[[Json, int, int], object]) -> Answering:
    return packet(lambda document, number, total: change(document["usage"], number, total))


def said(change: Callable[[Json, int, int], object]) -> Answering:
    return packet(lambda document, number, total: change(document["output"]["choices"][0], number, total))


def _none(_: object) -> None:
    return None


def _kept(document: Json, _: object) -> Json:
    return document


def text_of(frame: bytes, old: bytes, new: bytes) -> bytes:
    return frame.replace(old, new)


def every(old: bytes, new: bytes) -> Answering:
    return frames(lambda listed: [frame.replace(old, new) for frame in listed])


def escaped(listed: list[bytes]) -> list[bytes]:
    out = []
    for frame in listed:
        head, _, data = frame.partition(b"data:")
        out.append(head + b"data:" + json.dumps(json.loads(data), separators=(",", ":")).encode())
    return out


def in_thirds(_: Request, answer: Answer) -> Answer:
    if not answer.streams:
        return answer
    third = len(answer.body) // 3
    return replace(answer, pieces=(answer.body[:third], answer.body[third : 2 * third], answer.body[2 * third :]))


def all_at_once(listed: list[bytes]) -> list[bytes]:
    """Only the last packet, with the whole text."""
    documents = [orjson.loads(frame.partition(b"data:")[2]) for frame in listed]
    whole = "".join(document["output"]["choices"][0]["message"]["content"] for document in documents)
    documents[-1]["output"]["choices"][0]["message"]["content"] = whole
    return [b"id:1\nevent:result\n:HTTP_STATUS/200\ndata:" + orjson.dumps(documents[-1])]


def idle(listed: list[bytes]) -> list[bytes]:
    """A packet without text, twice."""
    head, _, data = listed[0].partition(b"data:")
    document = orjson.loads(data)
    document["output"]["choices"][0]["message"]["content"] = ""
    return [listed[0], head + b"data:" + orjson.dumps(document), *listed[1:]]


def early(listed: list[bytes]) -> list[bytes]:
    """A call in a packet of its own before the end."""
    head, _, data = listed[0].partition(b"data:")
    document = orjson.loads(data)
    document["output"]["choices"][0]["message"]["tool_calls"] = [CALL]
    document["output"]["choices"][0]["finish_reason"] = "null"
    return [head + b"data:" + orjson.dumps(document), *listed]


def failing(code: bytes, status: bytes, *, goes_on: bool = False) -> Answering:
    """Streams that break off with an error frame of our own making."""

    def changed(listed: list[bytes]) -> list[bytes]:
        wrong = b"id:2\nevent:error\n:HTTP_STATUS/%b\ndata:{%b}" % (status, code)
        return [listed[0], wrong, *(listed[2:] if goes_on else [])]

    return frames(changed)


WHOLE_ERROR: Final = b'"code":"InternalError","message":"m","request_id":"7574ee8f-38a3-4b1e-9280-11c33ab46e50"'


def sse_for(when: Callable[[Request], bool], *, stream: bool) -> Callable[[Request], Request]:
    """Forward some calls so that `serve` answers with a stream, or with a document."""

    def asking(request: Request) -> Request:
        if not when(request):
            return request
        return replace(
            request,
            headers={
                **{k: v for k, v in request.headers.items() if k.lower() not in ("x-dashscope-sse", "accept")},
                "X-DashScope-SSE": "enable" if stream else "disable",
            },
        )

    return asking


def forwarded(change: Callable[[Json], Json], when: Callable[[Request], bool] = lambda _: True):
    def asking(request: Request) -> Request:
        return replace(request, body=orjson.dumps(change(request.document))) if when(request) else request

    return asking


def on(path: str, document: Json) -> Answering:
    """Answer a path that `serve` need not have."""

    def answering(request: Request, answer: Answer) -> Answer:
        if not request.path.endswith(path):
            return answer
        return Answer(200, {"Content-Type": "application/json"}, (orjson.dumps(document),))

    return answering


def has(*names: str) -> Callable[[Request], bool]:
    return lambda request: any(name in request.parameters for name in names)


def wants(name: str, value: object) -> Callable[[Request], bool]:
    return lambda request: name in request.parameters and request.parameters[name] == value


def carries(name: str, value: str = "") -> Callable[[Request], bool]:
    return lambda request: value in {k.lower(): v for k, v in request.headers.items()}.get(name.lower(), "\0")


def as_stream_of(text: bytes) -> Answering:
    def answering(request: Request, answer: Answer) -> Answer:
        wrong = answer.status == 400 and carries("x-dashscope-sse", "enable")(request)
        return Answer(200, {"Content-Type": "text/event-stream"}, (text,)) if wrong else answer

    return answering


def two_calls(*indices: int) -> Answering:
    """Two calls where one was made."""

    def change(choice: Json) -> None:
        if "tool_calls" in choice["message"]:
            choice["message"]["tool_calls"] = [{**CALL, "index": index, "id": f"c{index}"} for index in indices]

    return choice(change)


def tools(change: Callable[[Json], object]) -> Answering:
    """Change every streamed call."""

    def changed(packet: Json, *_: int) -> None:
        for call in packet["output"]["choices"][0]["message"].get("tool_calls", ()):
            change(call)

    return packet(changed)


def gzipped(_: Request, answer: Answer) -> Answer:
    if not answer.streams:
        return answer
    return replace(answer, headers={**answer.headers, "Content-Encoding": "gzip"}, pieces=(gzip.compress(answer.body),))


def chained(*steps: Answering) -> Answering:
    def answering(request: Request, answer: Answer) -> Answer:
        for step in steps:
            answer = step(request, answer)
        return answer

    return answering


class Poisoned:
    """A gateway whose pool is spoiled by whoever hangs up: the call after a stream fails."""

    def __init__(self) -> None:
        self.spoiled = False

    def __call__(self, request: Request, answer: Answer) -> Answer:
        if answer.streams:
            self.spoiled = True
            return answer
        return refusing(lambda _: self.spoiled, 500)(request, answer)


M = Mutant
UPPER: Final = "7574EE8F-38A3-4B1E-9280-11C33AB46E50"
MUTANTS: Final[dict[str, Mutant]] = {
    # surface
    "every call is refused": M("endpoint", answering=refusing(lambda _: True)),
    "a field of its own beside output": M("reply-shape", answering=replies(lambda d, _: {**d, "code": ""})),
    "status_code in the body": M("reply-shape", answering=replies(lambda d, _: {**d, "status_code": 200})),
    "content null": M("reply-shape", answering=message(lambda m: m.update(content=None))),
    "a choice without index": M("reply-shape", answering=choice(lambda c: c.pop("index"))),
    "no role": M("reply-shape", answering=message(lambda m: m.pop("role"))),
    "a reply that never ended": M("reply-finish", answering=choice(lambda c: c.update(finish_reason="null"))),
    "eos for stop": M("reply-finish", answering=choice(lambda c: c.update(finish_reason="eos"))),
    "an id in capitals": M("request-id", answering=replies(lambda d, _: {**d, "request_id": UPPER})),
    "errors without an id": M("request-id", answering=errors(lambda d: d.pop("request_id") and d)),
    "another id in the header": M("request-id-header", answering=header("x-request-id", "x", stream=False)),
    "an id of its own always": M("request-id-kept", asking=without("x-request-id")),
    "JSON as text/plain": M("json-type", answering=header("content-type", "text/plain", stream=False)),
    "a stream as JSON": M("stream-type", answering=header("content-type", "application/json", stream=True)),
    "a stream without charset": M("stream-charset", answering=header("content-type", "text/event-stream", stream=True)),
    "a stream that may be cached": M("stream-cache", answering=header("cache-control", None, stream=True)),
    "a stream that may be buffered": M("stream-buffering", answering=header("x-accel-buffering", None, stream=True)),
    "no call gateway": M("call-gateway", answering=header("x-dashscope-call-gateway", None, stream=True)),
    "Accept is not heard": M("sse-accept", asking=sse_for(carries("accept", "event-stream"), stream=False)),
    "Content-Type is not heard": M(
        "sse-content-type", asking=sse_for(carries("content-type", "event-stream"), stream=False)
    ),
    "Enable is not enable": M("sse-case", asking=sse_for(carries("x-dashscope-sse", "Enable"), stream=False)),
    "disable is not heard": M("sse-disable", asking=sse_for(carries("x-dashscope-sse", "disable"), stream=True)),
    "stream in the body is heard": M("sse-body", asking=sse_for(lambda r: "stream" in r.document, stream=True)),
    "404 by HTML": M(
        "unknown-path", answering=lambda r, a: Answer(404, {}, (b"<h1>no</h1>",)) if a.status == 404 else a
    ),
    "405 for a wrong method": M("wrong-method", answering=refusing(lambda r: r.method == "GET", 405)),
    "a string where parts are due": M(
        "multimodal", asking=lambda r: replace(r, path=r.path.replace("multimodal-generation", "text-generation"))
    ),
    "404 for the multimodal route": M("multimodal", answering=refusing(lambda r: "multimodal" in r.path, 404)),
    "async is not heard": M("async", asking=without("x-dashscope-async")),
    "encryption is not heard": M("encrypted", asking=without("x-dashscope-encryptionkey")),
    "unknown headers are refused": M("ignored", answering=refusing(carries("x-unknown"))),
    "unknown parameters are refused": M("ignored", answering=refusing(has("kwargs"))),
    "streams in gzip": M("stream-plain", answering=gzipped),
    "bodies in gzip are not read": M("gzip", answering=refusing(carries("content-encoding"))),
    "an empty list of models": M("models", answering=on("/models", {"output": {"models": []}, "request_id": ""})),
    "a tokenizer without ids": M("tokenizer", answering=on("/tokenizer", {"output": {"token_ids": []}})),
    # keys
    "403 without a key": M("no-key", answering=lambda r, a: replace(a, status=403) if a.status == 401 else a),
    "404 for a bad key": M("wrong-key", answering=lambda r, a: replace(a, status=404) if a.status == 401 else a),
    "another code for a bad key": M("wrong-key", answering=errors(lambda d: d.update(code="Unauthorized"))),
    "x-api-key is not read": M("x-api-key", asking=without("x-api-key")),
    # connections
    "a connection for each call": M("keep-alive", answering=header("Connection", "close", stream=False)),
    "Expect is not understood": M("expect", expects=False),
    "a pool spoiled by who hangs up": M("hang-up", answering=Poisoned()),
    # frames
    "a space behind id": M("frame", answering=every(b"id:", b"id: ")),
    "a space behind event": M("frame", answering=every(b"event:", b"event: ")),
    "a space behind data": M("frame", answering=every(b"\ndata:", b"\ndata: ")),
    "no id": M("frame", answering=frames(lambda f: [re.sub(rb"^id:\d+\n", b"", one) for one in f])),
    "ids from 0": M("frame", answering=frames(lambda f: [re.sub(rb"^id:1\n", b"id:0\n", one) for one in f])),
    "a gap in the ids": M("frame", answering=frames(lambda f: f[:1] + f[2:])),
    "no event": M("frame", answering=every(b"event:result\n", b"")),
    "no status": M("frame", answering=every(b":HTTP_STATUS/200\n", b"")),
    "CRLF": M("frame", answering=every(b"\n", b"\r\n")),
    "[DONE] at the end": M("frame", answering=frames(lambda f: [*f, b"data:[DONE]"])),
    "escapes for characters": M("frame", answering=frames(escaped)),
    "two lines of data": M("frame", answering=every(b"data:", b"data:\ndata:")),
    "a stream that ends in a frame": M(
        "frame", answering=lambda r, a: replace(a, pieces=(a.body[:-1],)) if a.streams else a
    ),
    "a stream in three writes": M("whole-frames", answering=in_thirds),
    "an error frame of status 200": M("error-frame", answering=failing(WHOLE_ERROR, b"200")),
    "an error frame without code": M("error-frame", answering=failing(b'"message":"m","request_id":"r"', b"500")),
    "more after an error": M("error-frame", answering=failing(WHOLE_ERROR, b"500", goes_on=True)),
    "a stream that just ends": M("one-end", answering=frames(lambda f: f[:-1])),
    "an end told twice": M("one-end", answering=frames(lambda f: [*f, f[-1]])),
    "text after the end": M("one-end", answering=frames(lambda f: [*f, f[1]])),
    "a finish in every packet": M("one-end", answering=said(lambda c, *_: c.update(finish_reason="stop"))),
    "an empty stream": M("one-end", answering=frames(lambda _: [])),
    "empty packets": M("no-empty-packets", answering=frames(idle)),
    "a heartbeat that is an event": M("heartbeats", answering=frames(lambda f: [b":heartbeat", *f])),
    "the packet in a wrapper": M("packet-shape", answering=each(lambda d, *_: {"data": d, **d})),
    "reasoning null": M("packet-shape", answering=said(lambda c, *_: c["message"].update(reasoning_content=None))),
    "an id for each packet": M(
        "packet-id", answering=packet(lambda d, n, _: d.update(request_id=f"7574ee8f-38a3-4b1e-9280-{n:012}"))
    ),
    "null for the string": M("finish-word", answering=said(lambda c, n, t: n < t - 1 and c.update(finish_reason=None))),
    "end_turn for stop": M("finish-word", answering=said(lambda c, n, t: n == t - 1 and c.update(finish_reason="end"))),
    "all of the text at once": M("incremental", answering=frames(all_at_once)),
    "deltas without incremental_output": M(
        "cumulative",
        asking=forwarded(
            lambda d: {**d, "parameters": {**d["parameters"], "incremental_output": True}},
            lambda r: carries("x-dashscope-sse")(r) and not has("incremental_output")(r),
        ),
    ),
    "deltas, again": M(
        "cumulative-whole",
        asking=forwarded(
            lambda d: {**d, "parameters": {**d["parameters"], "incremental_output": True}},
            lambda r: carries("x-dashscope-sse")(r) and not has("incremental_output")(r),
        ),
    ),
    # usage
    "usage in the last packet alone": M(
        "usage-every-packet", answering=packet(lambda d, n, t: n < t - 1 and d.update(usage=None))
    ),
    "no total": M("usage-every-packet", answering=usage(lambda u, *_: u.pop("total_tokens"))),
    "no input at first": M("usage-first", answering=usage(lambda u, n, _: n == 0 and u.update(input_tokens=0))),
    "input guessed at first": M("usage-first", answering=usage(lambda u, n, _: n == 0 and u.update(input_tokens=90))),
    "output 0 until the end": M(
        "usage-running", answering=usage(lambda u, n, t: n < t - 1 and u.update(output_tokens=0))
    ),
    "output 1 until the end": M(
        "usage-running", answering=usage(lambda u, n, t: n < t - 1 and u.update(output_tokens=1))
    ),
    "output that falls": M("usage-falls", answering=usage(lambda u, n, _: n == 1 and u.update(output_tokens=99))),
    "a wrong sum": M("usage-sum", answering=usage(lambda u, *_: u.update(total_tokens=u["total_tokens"] + 1))),
    "more reasoning than output": M(
        "usage-sum", answering=usage(lambda u, *_: u.update(output_tokens_details={"reasoning_tokens": 10_000}))
    ),
    "a wrong sum of a reply": M("usage-reply", answering=replies(lambda d, _: d["usage"].update(total_tokens=1))),
    "a reply without usage": M("usage-reply", answering=replies(lambda d, _: d.pop("usage") and d)),
    "words for tokens": M(
        "usage-exact", answering=usage(lambda u, *_: u.update(output_tokens=u["output_tokens"] // 2))
    ),
    "a packet a token": M("usage-exact-running", answering=usage(lambda u, n, _: u.update(output_tokens=6 * n))),
    "characters for tokens": M("usage-prompt", answering=replies(lambda d, _: d["usage"].update(input_tokens=400))),
    # tools
    "calls in spite of none": M("no-tool", answering=message(lambda m: m.update(tool_calls=[CALL]))),
    "arguments as an object": M(
        "auto-tool", answering=message(lambda m: [c["function"].update(arguments={}) for c in m.get("tool_calls", ())])
    ),
    "no JSON in the arguments": M(
        "auto-tool", answering=message(lambda m: [c["function"].update(arguments="{") for c in m.get("tool_calls", ())])
    ),
    "no type": M("auto-tool", answering=message(lambda m: [c.pop("type") for c in m.get("tool_calls", ())])),
    "stop beside calls": M(
        "auto-tool", answering=choice(lambda c: "tool_calls" in c["message"] and c.update(finish_reason="stop"))
    ),
    "two calls for one": M("one-tool", answering=two_calls(0, 1)),
    "two calls of one index": M("parallel-tools", answering=two_calls(0, 0)),
    "fragments without an id": M("tool-stream", answering=tools(lambda call: call.update(id=""))),
    "fragments out of order": M("tool-stream", answering=tools(lambda call: call.update(index=1))),
    "cumulative calls without a name": M("tool-cumulative", answering=tools(lambda c: c["function"].pop("name"))),
    "half of a call": M("tool-cumulative", answering=frames(early)),
    "a streamed call without type": M("tool-stream-shape", answering=tools(lambda call: call.pop("type"))),
    "an empty list of calls": M("tool-stream-shape", answering=said(lambda c, *_: c["message"].update(tool_calls=[]))),
    "no answer to results": M("tool-loop", answering=refusing(lambda r: b'"tool_call_id"' in r.body)),
    "the named tool is not called": M("named-tool", asking=given(tool_choice="none")),
    "another tool is called": M(
        "named-tool",
        answering=message(lambda m: [c["function"].update(name="f") for c in m.get("tool_calls", ())]),
    ),
    "required is not heard": M("required-tool", asking=given(tool_choice="none")),
    # answers
    "max_tokens is not heard": M("length", asking=given(max_tokens=64)),
    "stop for length": M(
        "length", answering=choice(lambda c: c.update(finish_reason="stop"), where=wants("max_tokens", 3))
    ),
    "max_length is not heard": M("length-max_length", asking=given(max_length=None)),
    "max_completion_tokens is not heard": M("length-max_completion_tokens", asking=given(max_completion_tokens=None)),
    "stops are not heard": M("stop", asking=given(stop=None)),
    "the stop is shown": M(
        "stop", answering=choice(lambda c: c["message"].update(content="alpha beta gamma"), where=has("stop"))
    ),
    "no log probabilities": M("logprobs", asking=given(logprobs=None, top_logprobs=None)),
    "log probabilities of OpenAI's old form": M(
        "logprobs", answering=choice(lambda c: c.update(logprobs={"tokens": []}), where=has("logprobs"))
    ),
    "JSON in a fence": M(
        "json",
        answering=choice(lambda c: c["message"].update(content="```json\n{}\n```"), where=has("response_format")),
    ),
    "a schema is not heard": M(
        "schema", answering=choice(lambda c: c["message"].update(content="Yes."), where=has("response_format"))
    ),
    "one of two": M("n", answering=replies(lambda d, _: d["output"].update(choices=d["output"]["choices"][:1]))),
    "the prompt counted twice": M(
        "n", answering=replies(lambda d, _: d["usage"].update(input_tokens=44), where=has("n"))
    ),
    "one of two in a stream": M(
        "n-stream", answering=each(lambda d, *_: d if d["output"]["choices"][0]["index"] == 0 else None)
    ),
    "two in a packet": M(
        "n-stream", answering=packet(lambda d, *_: d["output"]["choices"].extend(d["output"]["choices"]))
    ),
    # prompts
    "prompts are not read": M("prompt", answering=refusing(lambda r: b'"prompt"' in r.body)),
    "prompts answered as text": M("prompt", answering=replies(lambda d, _: d.update(output={"text": "a"}))),
    "history is not read": M("history", answering=refusing(lambda r: b'"history"' in r.body)),
    "lists are not read": M("parts", answering=refusing(lambda r: b'"text"' in r.body)),
    "the beginning is repeated": M(
        "prefix",
        answering=choice(lambda c: c["message"].update(content="Hello!"), where=lambda r: b'"partial"' in r.body),
    ),
    # errors
    "an error inside an error": M("error-shape", answering=errors(lambda d: {"error": d})),
    "a number for a code": M("error-shape", answering=errors(lambda d: d.update(code=400))),
    "codes of another service": M("error-codes", answering=errors(lambda d: d.update(code="invalid_request_error"))),
    "422 for no JSON": M("body-invalid", answering=lambda r, a: replace(a, status=422) if a.status == 400 else a),
    "an error with status 200": M("body-invalid", answering=errors(lambda _: None, 200)),
    "errors as a stream": M("error-status", answering=as_stream_of(b"event:error\n\n")),
    # models, thinking
    "vendors are not understood": M("model-name", answering=refusing(lambda r: b"vendor/" in r.body)),
    "the body's model wins": M("route-model", answering=refusing(lambda r: b"no-such-model" in r.body), route=ROUTE),
    "no chain is shown": M("thinks", answering=said(lambda c, *_: c["message"].pop("reasoning_content", 0))),
    "reasoning after content": M(
        "thinking-order", answering=said(lambda c, n, t: n == t - 1 and c["message"].update(reasoning_content="x"))
    ),
    "spaces in thinking frames": M("thinking-frames", answering=every(b"data:", b"data: ")),
    "no reasoning_tokens": M("thinking-details", answering=usage(lambda u, *_: u.pop("output_tokens_details", 0))),
    "no text_tokens on a hybrid": M(
        "thinking-details", answering=usage(lambda u, *_: u.get("output_tokens_details", {}).pop("text_tokens", 0))
    ),
    "text_tokens on r1": M(
        "thinking-details",
        answering=usage(lambda u, *_: u["output_tokens_details"].update(text_tokens=1)),
        model="deepseek-r1",
    ),
    "it thinks though it shall not": M(
        "thinks-not", answering=said(lambda c, n, _: n == 0 and c["message"].update(reasoning_content="hm"))
    ),
    # ranges, off by one
    "temperature 2 is taken": M("PAR-1-refuses-1", asking=given(temperature=1.9)),
    "temperature 1.99 is refused": M("PAR-1-takes-2", answering=refusing(wants("temperature", 1.99))),
    "top_p 0 is taken": M("PAR-2-refuses-1", asking=given(top_p=0.1)),
    "top_p 1 is refused": M("PAR-2-takes-1", answering=refusing(wants("top_p", 1))),
    "n 5 is taken": M("PAR-8-refuses-1", asking=given(n=1)),
    "top_logprobs 6 is taken": M("PAR-10-refuses-2", asking=given(top_logprobs=5)),
    "the largest seed is refused": M("PAR-4-takes-2", answering=refusing(wants("seed", 2**63 - 1))),
}
# Broken for all of their kind by one gateway each.
KINDS: Final = {
    "nothing is refused": (
        re.compile(r".*-refuses-\d+"),
        lambda request, answer: Answer(200, answer.headers, (b"{}",)) if answer.status == 400 else answer,
    ),
    "refusals in other words": (
        re.compile(r".*-refuses-\d+-text"),
        errors(lambda document: document.update(message="no")),
    ),
    "every call is refused": (re.compile(r".*-takes-\d+"), refusing(lambda _: True)),
}


# Claims


@pytest.mark.parametrize("model", MODELS)
async def test_nothing_is_found_in_what_is_right(gateway: Gateway, model: str) -> None:
    report = await examined(gateway.upstream, model=model)
    assert found(report, Verdict.FAILED) == {}
    # What a single call, and routes that are not there, cannot show.
    assert found(report, Verdict.NOT_SHOWN).keys() <= {"parallel-tools", "models", "tokenizer"}
    assert report.conforms


async def test_nothing_is_found_on_a_partners_route_nor_behind_a_gateway_that_changes_nothing(gateway: Gateway) -> None:
    gateway.mutant = Mutant("")
    for report in (await examined(gateway.upstream, route=ROUTE), await examined(gateway.url)):
        assert found(report, Verdict.FAILED) == {}


@pytest.mark.parametrize("name", MUTANTS)
async def test_a_broken_gateway_is_found_by_its_check(gateway: Gateway, name: str) -> None:
    gateway.mutant = mutant = MUTANTS[name]
    report = await examined(gateway.url, mutant.caught, model=mutant.model, route=mutant.route)
    assert list(found(report, Verdict.FAILED)) == [mutant.caught], report.results


@pytest.mark.parametrize("name", KINDS)
async def test_every_check_of_a_kind_finds_what_breaks_all_of_it(gateway: Gateway, name: str) -> None:
    pattern, answering = KINDS[name]
    gateway.mutant = Mutant("", answering=answering)
    for model in ("deepseek-v3", "deepseek-v3.2", "deepseek-r1"):
        due = {row.name for row in rows(model) if pattern.fullmatch(row.name)}
        assert due
        assert due == found(await examined(gateway.url, *due, model=model), Verdict.FAILED).keys()


def rows(model: str, route: str | None = None) -> tuple[conformance.Check, ...]:
    return conformance.checks(conform.target_of(model, route, counted=True))


async def test_no_check_cannot_fail() -> None:
    caught = {mutant.caught for mutant in MUTANTS.values()}
    names = {row.name for model in MODELS for row in rows(model, ROUTE)}
    left = {name for name in names - caught if not any(kind.fullmatch(name) for kind, _ in KINDS.values())}
    assert left == {"http-1.0", "hang-up-time"}, "and those are below"


async def test_a_call_that_waits_for_one_that_was_left_is_found(gateway: Gateway) -> None:
    gateway.mutant = Mutant("")
    report = await examined(gateway.url, "hang-up-time")
    (result,) = report.results
    assert result.finding.verdict is Verdict.PASSED
    usual, left, after = (Came(200, seconds=seconds) for seconds in (0.1, 0.1, 5.2))
    target = conform.target_of("deepseek-v3", None, counted=False)
    assert conformance.judge(result.check, (usual, left, after), target).verdict is Verdict.PASSED
    found = conformance.judge(result.check, (usual, left, replace(after, seconds=5.4)), target)
    assert (found.verdict, found.evidence) == (
        Verdict.FAILED,
        "the call after it took 5.4 s, the same call 0.1 s before it",
    )


async def test_a_gateway_without_http_1_0_is_found() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 505 HTTP Version Not Supported\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1")
    async with server:
        host, port = server.sockets[0].getsockname()
        report = await examined(f"http://{host}:{port}", "http-1.0")
    assert "http-1.0" in found(report, Verdict.FAILED)


async def test_every_rule_has_a_check_or_a_reason() -> None:
    """The rules of the protocol document that a caller can meet."""
    text = (ROOT / "translators" / "PROTOCOL.md").read_text("utf-8")
    numbered = set(re.findall(r"^\| ([A-Z]+-\d+) \|", text.partition("\n## 13. ")[2], re.MULTILINE))
    checked = conformance.by_rule().keys()
    assert {rule for rule in numbered - checked if claims.why_unchecked(rule) is None} == set()
    assert numbered - checked >= claims.UNCHECKED.keys()
    assert checked & claims.UNCHECKED.keys() == set()
    assert conformance.by_rule()["PAR-2"] == ("PAR-2-takes-1…2", "PAR-2-refuses-1", "PAR-2-refuses-1-text")


async def test_every_claim_and_every_reason_is_there_in_chinese_and_every_group() -> None:
    for row in tables.shipped().rows:
        for target in (asks.Target(row.id, row, routed=True), asks.Target(row.id, row, api="openai")):
            for check in conformance.checks(target):
                assert check.group in conform_reports.GROUPS
                for sentence in (check.claim, check.why):
                    assert re.search("[一-鿿]", claims_zh.chinese(sentence)), sentence
    assert claims_zh.chinese("nobody has said so") == "nobody has said so"


# The command


async def command(*arguments: str, key: str = KEY) -> tuple[int, str, str]:
    """Run it as a process: its exit code, standard output and standard error."""
    ended = await asyncio.to_thread(forks.dashseek, "conform", *arguments, env={"DASHSCOPE_API_KEY": key})
    return ended.returncode, ended.stdout, ended.stderr


def echoing(request: Request, answer: Answer) -> Answer:
    """A gateway that tells the key it was given."""
    told = orjson.dumps({"code": "X", "message": request.headers.get("Authorization", ""), "request_id": ""})
    return Answer(400, {"Content-Type": "application/json"}, (told,))


async def test_it_says_first_what_it_will_cost_and_ends_with_0(gateway: Gateway) -> None:
    code, out, err = await command(f"{gateway.upstream}/api/v1", "--only", "frames")
    assert code == 0, out
    assert re.match(r"\d+ checks of http://\S+/api/v1: 3 calls, about \d+ tokens\n", err)
    assert err.splitlines()[1:] == ["1/12 frames"]
    assert "(deepseek-v3) conforms: 12 passed, 0 failed, 0 not shown; 3 calls" in out
    assert "\033" not in out + err


async def test_what_is_broken_comes_first_and_the_end_is_1(gateway: Gateway) -> None:
    gateway.mutant = MUTANTS["[DONE] at the end"]
    code, out, _ = await command(f"{gateway.url}/api/v1", "--only", "frames", "--only", "usage")
    assert code == 1
    assert out.startswith("failed    must   SSE-1   frame: SSE-1 [DONE] (and ")
    assert "does not conform" in out


async def test_a_broken_should_is_told_and_is_no_failure_of_the_whole(gateway: Gateway, tmp_path: Path) -> None:
    gateway.mutant = MUTANTS["a stream that may be buffered"]
    junit = tmp_path / "conform.xml"
    code, out, _ = await command(f"{gateway.url}/api/v1", "--only", "stream-buffering", "--junit", str(junit))
    assert (code, out.split()[:2]) == (0, ["failed", "should"])
    (case,) = ElementTree.parse(junit).getroot().iter("testcase")
    assert case.find("failure") is None
    assert "should: x-accel-buffering: absent" in case.findtext("system-out", "")


async def test_reports_tell_all_of_it_load_nothing_and_hold_no_key(gateway: Gateway, tmp_path: Path) -> None:
    gateway.mutant = Mutant("", answering=echoing)
    junit, page = tmp_path / "conform.xml", tmp_path / "conform.html"
    url = gateway.url.replace("//", f"//user:{KEY}@")
    code, out, err = await command(
        f"{url}/api/v1", "--only", "surface", "--json", "--junit", str(junit), "--html", str(page)
    )
    assert code == 1
    told = orjson.loads(out)
    first = told["checks"][0]
    assert (told["target"], told["complete"], told["conforms"]) == (f"{gateway.url}/api/v1", True, False)
    assert told["failed"] + told["passed"] + told["not_shown"] == len(told["checks"])
    assert first["weight"] == "must"
    assert "‹key›" in first["came"][0]
    assert set(first["specification"]) == {"en", "zh"}
    suite = ElementTree.parse(junit).getroot().find("testsuite")
    assert suite is not None
    assert int(suite.attrib["failures"]) == len(list(suite.iter("failure"))) > 0
    shown = page.read_text("utf-8")
    assert f'<span class="zh">接口</span></th><td>{told["failed"]}</td>' in shown
    summary, _, _ = shown.partition("</section>")
    assert "does not conform: " in summary
    assert "不符合：" in summary
    assert "is that its key" not in summary
    assert summary.count("<li>") == told["failed"] + told["not_shown"]
    assert not re.search(r"<script|src=|href=|@import|url\(", shown)
    for text in (out, err, junit.read_text("utf-8"), shown):
        assert KEY not in text


async def test_what_a_gateway_says_is_no_message_to_the_terminal(gateway: Gateway) -> None:
    wrong = Answer(400, {"Content-Type": "text/plain"}, (b"\033[2J\033]0;owned\007 no\x00 \xc2\x9b",))
    gateway.mutant = Mutant("", answering=lambda request, answer: wrong)
    code, out, _ = await command(f"{gateway.url}/api/v1", "--only", "endpoint")
    assert code == 1
    assert all(char.isprintable() or char == "\n" for char in out)


async def test_an_answer_without_an_end_is_left(gateway: Gateway) -> None:
    long = Answer(200, {"Content-Type": "application/json"}, (b" " * (conform.LONGEST_BODY_BYTES + 1),))
    gateway.mutant = Mutant("", answering=lambda request, answer: long)
    report = await examined(gateway.url, "endpoint")
    assert found(report, Verdict.FAILED) == {"endpoint": "longer than 4,194,304 bytes"}


async def test_nobody_there_is_told_by_its_own_exit_code() -> None:
    code, _, err = await command("http://127.0.0.1:1/api/v1", "--only", "endpoint")
    assert code == 4
    assert err.splitlines()[-1].startswith("nobody answers there: connection refused")


NOBODY: Final = "http://127.0.0.1:1/api/v1"
MISTAKES: dict[str, tuple[tuple[str, ...], str, str]] = {
    "no key": ((NOBODY,), "", "DASHSCOPE_API_KEY"),
    "a key with its line end": ((NOBODY,), f"{KEY}\n", "DASHSCOPE_API_KEY"),
    "a word that is none": ((NOBODY, "--only", "nothing"), KEY, "--only nothing: no group"),
    "a slip": ((NOBODY, "--only", "usaeg"), KEY, "did you mean usage?"),
    "a folder that is none": ((NOBODY, "--junit", "/no/such/folder/x.xml"), KEY, "no such folder"),
    "for a page": ((NOBODY, "--html", "/no/such/folder/x.html"), KEY, "no such folder"),
    "no time": ((NOBODY, "--timeout", "0"), KEY, "--timeout"),
    "nobody": ((), KEY, "URL is an SDK's base"),
    "no scheme": (("localhost:8080/api/v1",), KEY, "URL is an SDK's base"),
    "another scheme": (("ftp://localhost/api/v1",), KEY, "URL is an SDK's base"),
    "half an address": (("http://[x",), KEY, "URL is an SDK's base"),
    "no host": (("http://",), KEY, "URL is an SDK's base"),
}


@pytest.mark.parametrize("name", MISTAKES)
async def test_what_cannot_be_asked_is_told_before_anything_is_spent(name: str) -> None:
    arguments, key, told = MISTAKES[name]
    ended = CliRunner().invoke(cli.dashseek, ["conform", *arguments], env={"DASHSCOPE_API_KEY": key, "LANG": "C"})
    assert ended.exit_code == 2, ended.output
    assert told in ended.output


async def test_the_list_names_every_check_and_every_rule_without_one() -> None:
    code, out, _ = await command("--list", "--model", "deepseek-r1", key="")
    assert code == 0
    for row in rows("deepseek-r1"):
        assert row.name in out
    for rule in claims.UNCHECKED:
        assert rule in out


async def test_what_is_asked_is_shown_whole_where_it_is_short_and_else_by_its_beginning() -> None:
    claimed = [row.claim for row in rows("deepseek-v3") if "-refuses-" in row.name or "-takes-" in row.name]
    shown = [claim.rpartition("}")[0] + "}" for claim in claimed if "…" not in claim]
    assert shown
    assert all(len(text) <= conformance.LONGEST_CLAIM and isinstance(orjson.loads(text), dict) for text in shown)
    cut = [claim.partition("…")[0] for claim in claimed if "…" in claim]
    assert cut
    assert {len(text) for text in cut} == {conformance.LONGEST_CLAIM}


async def test_on_a_terminal_progress_is_one_line_and_leaves_nothing_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    asked = rows("deepseek-r1")[:2]
    tell = conform._progress(len(asked))
    for number, row in enumerate(asked, 1):
        tell(number, row)
    first, second = (f"\r\033[K{number}/2 {row.group}: {row.name}" for number, row in enumerate(asked, 1))
    assert terminal.getvalue() == first + second + "\r\033[K"


async def test_in_a_file_progress_is_a_line_for_each_group(capsys: pytest.CaptureFixture[str]) -> None:
    asked = rows("deepseek-v3")
    tell = conform._progress(len(asked))
    for number, row in enumerate(asked, 1):
        tell(number, row)
    groups = {row.group: number for number, row in reversed([*enumerate(asked, 1)])}
    told = [f"{groups[group]}/{len(asked)} {group}" for group in dict.fromkeys(row.group for row in asked)]
    assert capsys.readouterr().err.splitlines() == told


async def test_what_was_spent_is_what_upstream_has_counted(gateway: Gateway, upstream: Simulator) -> None:
    assert (await examined(gateway.upstream, "no-key")).tokens == 0
    before_it = len(upstream.calls)
    report = await examined(gateway.upstream, "whole-frames")
    spent = sum(call.prompt_tokens + call.completion_tokens for call in upstream.calls[before_it:])
    assert report.tokens == spent > 0
    assert not any(it.unasked for it in report.results)


async def test_no_more_is_spent_than_the_budget(gateway: Gateway) -> None:
    report = await examined(gateway.upstream, budget=200)
    assert report.tokens <= 200
    # What was not asked for is not kept.
    assert (report.broken, report.complete, report.conforms) == (False, False, False)
    assert "not asked: the budget is spent" in found(report, Verdict.NOT_SHOWN).values()
    suites = list(ElementTree.fromstring(conform_reports.as_junit(report)))
    errors = [case for suite in suites for case in suite if case.find("error") is not None]
    owed = [it for it in report.results if it.unasked and it.check.weight == "must"]
    assert len(errors) == sum(int(suite.attrib["errors"]) for suite in suites) == len(owed) > 0
    assert "left off: " in conform_reports.as_html(report)
    # What costs nothing is asked all the same.
    assert "no-key" not in found(report, Verdict.NOT_SHOWN)


@pytest_asyncio.fixture(loop_scope="module")
async def silent() -> AsyncIterator[str]:
    """Somebody who takes every call and says nothing."""

    async def wait(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            await reader.read()
        writer.close()

    async with await asyncio.start_server(wait, "127.0.0.1") as server:
        host, port = server.sockets[0].getsockname()
        yield f"http://{host}:{port}"


async def test_who_says_nothing_is_left_after_the_time(silent: str) -> None:
    code, out, _ = await command(f"{silent}/api/v1", "--only", "endpoint", "--timeout", "0.2")
    assert code == 1
    assert "endpoint: not whole after 0.2 s" in out


async def test_ctrl_c_ends_with_what_is_known(gateway: Gateway, silent: str) -> None:
    del gateway
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "proxy", "conform", f"{silent}/api/v1"),
        cwd=ROOT,
        env={**os.environ, "DASHSCOPE_API_KEY": KEY},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    await process.stderr.readuntil(b"surface\n")
    process.send_signal(signal.SIGINT)
    out, err = await process.communicate()
    assert (process.returncode, err) == (1, b"")
    assert b"left off: 0 passed, 0 failed" in out


async def test_a_gateway_too_busy_to_answer_is_not_blamed(gateway: Gateway) -> None:
    gateway.mutant = Mutant("", answering=refusing(lambda _: True, 429))
    report = await examined(gateway.url, "PAR-1", "usage")
    assert found(report, Verdict.FAILED) == {}
    assert not found(report, Verdict.PASSED)
    assert not report.conforms
    # Nor waited for again and again.
    asked = {ask.name for result in report.results for ask in result.check.asks}
    assert report.calls == len(asked) + conform.PATIENCE


WORDS = ("alpha beta gamma delta", "OK", "", "\n\n")


@pytest.mark.parametrize("model", ["deepseek-v3.2", "deepseek-r1"])
@pytest.mark.parametrize("text", WORDS)
async def test_whatever_a_model_says_is_no_breach(gateway: Gateway, upstream: Simulator, text: str, model: str) -> None:
    """It may obey to the word, or end before any limit and any stop."""
    upstream.script = Script(key=KEY, text=text)
    try:
        report = await examined(gateway.upstream, "length", "stop", "frames", "usage", model=model)
        assert found(report, Verdict.FAILED) == {}
    finally:
        upstream.script = Script(key=KEY)


async def test_where_no_call_is_answered_nothing_is_said_of_a_wrong_key(gateway: Gateway, upstream: Simulator) -> None:
    upstream.script = Script(key=KEY, status=500)
    try:
        report = await examined(gateway.upstream, "keys")
    finally:
        upstream.script = Script(key=KEY)
    assert found(report, Verdict.NOT_SHOWN)["wrong-key"] == "a good call is answered 500 as well"
    assert "no-key" not in found(report, Verdict.FAILED)


HINTS: dict[str, tuple[str, str, asks.Api, str]] = {
    "no path": ("", "deepseek-v3", "dashscope", "such as {}/api/v1"),
    "the whole URL": (f"/api/v1{asks.GENERATION}", "deepseek-v3", "dashscope", "such as {}/api/v1"),
    "the other surface": ("/compatible-mode/v1", "deepseek-v3", "dashscope", "such as {}/api/v1"),
    "the other way round": ("/api/v1", "deepseek-v3", "openai", "such as {}/compatible-mode/v1"),
    "a path of its own": ("/mine/api/v1", "deepseek-v3", "dashscope", "no such route is there"),
    "another model": ("/api/v1", "gpt-4", "dashscope", "it has no gpt-4: say a model of its with --model"),
    "another model, by OpenAI's protocol": ("/compatible-mode/v1", "gpt-4", "openai", "it has no gpt-4"),
    "all well": ("/api/v1", "deepseek-v3", "dashscope", ""),
}


@pytest.mark.parametrize("name", HINTS)
async def test_where_a_plain_call_is_refused_it_says_what_was_probably_meant(gateway: Gateway, name: str) -> None:
    path, model, api, hint = HINTS[name]
    asked = conform.Examined(gateway.upstream + path, model, KEY, 10, counted=False, api=api)
    target = conform.target_of(model, None, counted=False, api=api)
    first = conform.rows_of(target, ())[:1]
    report = await conform.examine(asked, target, first, lambda _, __: None)
    assert not isinstance(report, str)
    assert hint.format(gateway.upstream) in report.hint
    assert bool(report.hint) == bool(hint)


async def test_a_key_that_is_refused_is_asked_about(gateway: Gateway) -> None:
    gateway.mutant = Mutant("", answering=refusing(lambda _: True, 401))
    code, out, _ = await command(f"{gateway.url}/api/v1", "--only", "endpoint")
    assert code == 1
    assert "is that its key, in DASHSCOPE_API_KEY?" in out


async def test_somebody_who_never_answers_is_left_after_a_few_requests(silent: str) -> None:
    asked = conform.Examined(f"{silent}/api/v1", "deepseek-v3", KEY, 0.2, counted=False)
    target = conform.target_of("deepseek-v3", None, counted=False)
    met = await conform.examine(asked, target, conform.rows_of(target, ()), lambda _, __: None)
    assert met == "not whole after 0.2 s"


async def test_those_few_are_three() -> None:
    came = []
    async with await asyncio.start_server(lambda _, writer: came.append(writer), "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/api/v1"
        asked = conform.Examined(url, "deepseek-v3", KEY, 0.1, counted=False)
        target = conform.target_of("deepseek-v3", None, counted=False)
        await conform.examine(asked, target, conform.rows_of(target, ()), lambda _, __: None)
        assert len(came) == conform.SILENCE == 3
        for writer in came:
            writer.close()


async def test_what_a_model_that_always_thinks_may_cost_has_its_chain() -> None:
    asked = conformance.asked(rows("deepseek-r1")).values()
    assert min(ask.tokens for ask in asked if ask.tokens) > asks.THINKING_TOKENS
    compatible = conformance.asked(
        conformance.checks(conform.target_of("deepseek-r1", None, counted=True, api="openai"))
    )
    assert min(ask.tokens for ask in compatible.values() if ask.tokens) > asks.THINKING_TOKENS
    plain = conformance.asked(rows("deepseek-v3")).values()
    assert max(ask.tokens for ask in plain) < asks.THINKING_TOKENS


@pytest.mark.parametrize(
    ("figures", "content", "evidence"),
    [
        ((5, 1, 6), "a", ""),
        ((5, 1, 6), "", ""),
        ((5, 0, 5), "a", "5 + 0 = 5"),
        ((0, 1, 1), "a", "0 + 1 = 1"),
        ((5, 1, 7), "a", "5 + 1 = 7"),
        ((5, 0, 5), "", None),
    ],
)
async def test_a_total_is_the_sum_of_two_figures_that_are_there(
    figures: tuple[int, int, int], content: str, evidence: str | None
) -> None:
    """None: a model that said nothing shows nothing."""
    said = {
        "output": {"choices": [{"message": {"content": content}}]},
        "usage": dict(zip(("input_tokens", "output_tokens", "total_tokens"), figures, strict=True)),
    }
    came = [Came(200, {}, (orjson.dumps(said),))]
    target = conform.target_of("deepseek-v3.2", None, counted=False)
    if evidence is None:
        with pytest.raises(judgements.NotShown):
            judgements.sums(came, target)
    else:
        assert judgements.sums(came, target) == evidence


def streaming(*packets: tuple[str, Any]) -> list[Came]:
    """A stream of packets, each with its text, and its output_tokens behind a prompt of one; None: no usage."""
    frames = []
    for text, output in packets:
        usage = None if output is None else {"input_tokens": 1, "output_tokens": output, "total_tokens": 1 + output}
        said = {"output": {"choices": [{"message": {"content": text}}]}, "usage": usage}
        frames.append(b"data:%b\n\n" % orjson.dumps(said))
    return [Came(200, {"content-type": "text/event-stream"}, tuple(frames))]


@pytest.mark.parametrize(
    ("judge", "packets", "evidence"),
    [
        (judgements.on_every, [("a", 1), ("b", None)], "packet 2 has the usage None"),
        (judgements.grows, [("a", 1), ("ab", 2), ("b", 3)], "packet 3 does not begin with the text of the one before"),
        (judgements.on_the_way, [("", 0), ("a", 0), ("b", 2)], "packet 2 shows text and output_tokens 0"),
        (judgements.on_the_way, [("a" * 9, 9), ("b" * 9, 1), ("", 18)], "packet 2 shows 18 of 18 characters and 1 of"),
        (judgements.running, [("one", 1), (" two", 9)], "packet 2: output_tokens 9, by our count 2"),
    ],
)
async def test_a_packet_is_named_by_its_number_from_1(
    judge: judgements.Judge, packets: list[tuple[str, Any]], evidence: str
) -> None:
    assert judge(streaming(*packets), conform.target_of("deepseek-v3.2", None, counted=True)).startswith(evidence)


async def test_what_came_is_shown_whole_up_to_two_pieces_and_then_its_beginning_and_its_end() -> None:
    short, long = "a" * conform.SHOWN_BYTES, "b" * conform.SHOWN_BYTES
    whole = Came(200, {"content-type": "text/plain"}, ((short + long).encode(),))
    assert conform._shown(whole).endswith(f"\n{short}{long}")
    cut = replace(whole, pieces=((short + "c" + long).encode(),))
    assert conform._shown(cut).endswith(f"\n{short}\n…\n{long}")


class Scripted:
    """Somebody who answers each request on a connection with the next of some answers, whole, and notes what comes."""

    def __init__(self, *answers: bytes | None) -> None:
        self._answers = [*answers]
        self.came: list[bytes] = []
        self.connections = 0
        self.left = asyncio.Event()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = re.search(rb"(?i)content-length: (\d+)", head)
                self.came.append(head + await reader.readexactly(int(length[1]) if length else 0))
                answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
                if answer is None:
                    break
                writer.write(answer)
        self.left.set()
        writer.close()

    @contextlib.asynccontextmanager
    async def examiner(self, **how: Any) -> AsyncIterator[conform._Examiner]:
        async with await asyncio.start_server(self._serve, "127.0.0.1", 0) as server, conform._session() as session:
            url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/api/v1"
            asked = conform.Examined(url, "deepseek-v3", KEY, how.pop("timeout_s", 10.0), counted=False, **how)
            yield conform._Examiner(asked, conform.target_of("deepseek-v3", None, counted=False), session)


def http(status: str, body: bytes = b"", *headers: str) -> bytes:
    head = "".join(f"{line}\r\n" for line in (f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, ""))
    return head.encode() + body


BUSY: Final = http("429 Too Many Requests", b"", "Retry-After: 0")


async def test_whoever_hangs_up_takes_the_connection_along() -> None:
    scripted = Scripted(http("200 OK", b"a piece and no more").replace(b"19", b"99"))
    async with scripted.examiner() as examiner:
        came = await examiner._made(Ask("a", {}, manner="hang_up"))
        await scripted.left.wait()
    assert (came.status, came.body, came.failed) == (200, b"a piece and no more", "")


async def test_a_connection_that_had_gone_is_no_answer_of_the_gateway() -> None:
    scripted = Scripted(http("200 OK"), None, http("201 Created"))
    async with scripted.examiner() as examiner:
        first, second = [await examiner._ask(Ask(name, {})) for name in "ab"]
        assert (first.status, second.status, second.failed) == (200, 201, "")
        assert (first.reused, second.reused, examiner.made, scripted.connections) == (False, False, 3, 2)
    scripted = Scripted(None)
    async with scripted.examiner() as examiner:
        came = await examiner._ask(Ask("a", {}))
        assert (came.status, bool(came.failed), examiner.made) == (0, True, 1)


async def test_a_time_is_that_of_its_request() -> None:
    scripted = Scripted(http("200 OK"))
    async with scripted.examiner() as examiner:
        began = time.monotonic()
        came = await examiner._made(Ask("a", {}))
        assert 0 < came.seconds <= time.monotonic() - began


async def test_a_body_is_what_came_packed_or_not() -> None:
    packed = gzip.compress(b"{}")
    async with Scripted(http("200 OK", packed, "Content-Encoding: gzip")).examiner() as examiner:
        assert (await examiner._made(Ask("a", {}))).body == packed


@pytest.mark.parametrize(
    ("chance", "shown_at", "made", "verdict"),
    [
        (True, 1, 2, Verdict.PASSED),
        (True, 3, 6, Verdict.PASSED),
        (True, 4, 6, Verdict.NOT_SHOWN),
        (False, 2, 2, Verdict.NOT_SHOWN),
    ],
)
async def test_what_chance_has_spoiled_is_asked_for_anew_three_times(
    chance: bool, shown_at: int, made: int, verdict: Verdict
) -> None:
    judged = 0

    def judge(*_: object) -> str:
        nonlocal judged
        judged += 1
        if judged < shown_at:
            raise judgements.NotShown("nothing was said")
        return ""

    check = conformance.Check("c", "g", "SSE-1", "must", "", "", (Ask("a", {}), Ask("b", {})), judge, chance)
    async with Scripted(http("200 OK")).examiner() as examiner:
        result = await examiner.result(check)
        assert (result.finding.verdict, examiner.made, result.unasked) == (verdict, made, False)
        # What was asked for is not asked for again by another check.
        await examiner.result(replace(check, name="d", asks=check.asks[:1]))
        assert examiner.made == made


@pytest.mark.parametrize(
    ("answers", "unasked"), [((BUSY, BUSY, http("200 OK")), True), ((http("200 OK"),), False), ((BUSY,), True)]
)
async def test_what_a_busy_gateway_did_not_show_was_not_asked(answers: tuple[bytes, ...], unasked: bool) -> None:
    """One of two answers is enough; what is shown all the same is shown."""

    def judge(*_: object) -> str:
        raise judgements.NotShown("nothing was said")

    check = conformance.Check("c", "g", "SSE-1", "must", "", "", (Ask("a", {}), Ask("b", {})), judge)
    for judged, held in ((check, unasked), (replace(check, judge=lambda *_: ""), False)):
        async with Scripted(*answers).examiner() as examiner:
            assert (await examiner.result(judged)).unasked is held


async def test_what_is_left_off_was_not_asked(silent: str) -> None:
    """Ctrl-C, as soon as the first is looked at."""
    asked = conform.Examined(f"{silent}/api/v1", "deepseek-v3", KEY, 10, counted=False)
    target = conform.target_of("deepseek-v3", None, counted=False)
    looked_at: list[int] = []

    def interrupt(number: int, _: conformance.Check) -> None:
        looked_at.append(number)
        os.kill(os.getpid(), signal.SIGINT)

    report = await conform.examine(asked, target, conform.rows_of(target, ("frames",)), interrupt)
    assert isinstance(report, Report)
    assert (looked_at, report.left_off, report.verdict, report.tokens) == ([1], True, "left off", 0)
    assert {(result.unasked, result.finding.evidence) for result in report.results} == {(True, "left off")}
    assert len(report.results) == 12


async def test_where_others_would_go_is_not_gone_to() -> None:
    scripted = Scripted(http("302 Found", b"", "Location: /elsewhere"))
    async with scripted.examiner() as examiner:
        assert (await examiner._made(Ask("a", {}))).status == 302
    assert len(scripted.came) == 1


@pytest.mark.parametrize(("size", "failed"), [(64, ""), (65, "longer than 64 bytes")])
@pytest.mark.parametrize("manner", ["plain", "fresh"])
async def test_as_much_is_listened_to_as_any_answer_has(
    size: int, failed: str, manner: asks.Manner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conform, "LONGEST_BODY_BYTES", 64)
    scripted = Scripted(http("200 OK", b"x" * size))
    async with scripted.examiner() as examiner:
        assert (await examiner._made(Ask("a", {}, manner=manner))).failed == failed


async def test_who_is_too_busy_is_asked_again_and_after_three_in_a_row_no_more() -> None:
    ok = http("200 OK")
    scripted = Scripted(BUSY, ok, BUSY, BUSY, BUSY, BUSY, BUSY, BUSY, BUSY, BUSY, ok)
    async with scripted.examiner() as examiner:
        statuses, made = [], []
        for number in range(7):
            statuses.append((await examiner._ask(Ask(f"{number}", {}))).status)
            made.append(examiner.made)
    assert statuses == [200, 429, 429, 429, 429, 429, 200]
    assert made == [2, 4, 6, 8, 9, 10, 11]
    assert examiner.rejected == 0


async def test_a_wait_is_as_long_as_it_was_said_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []

    async def sleep(delay_s: float) -> None:
        waits.append(delay_s)

    async with Scripted(BUSY.replace(b"After: 0", b"After: 7"), http("200 OK")).examiner() as examiner:
        with monkeypatch.context() as patched:
            patched.setattr(asyncio, "sleep", sleep)
            assert (await examiner._ask(Ask("a", {}))).status == 200
    assert 7.0 in waits


@pytest.mark.parametrize(
    ("answers", "alone"), [((http("200 OK"), None), False), ((None,), True), ((None, http("200 OK")), False)]
)
async def test_nobody_is_there_where_none_of_three_is_answered(answers: tuple[bytes | None, ...], alone: bool) -> None:
    async with Scripted(*answers).examiner() as examiner:
        for name in "abcd":
            assert not examiner.alone or len(examiner.came) >= 3
            examiner.came[name] = await examiner._ask(Ask(name, {}, manner="fresh"))
        assert bool(examiner.alone) is alone


async def test_a_wait_that_is_too_long_is_not_waited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conform, "LONGEST_RETRY_S", 0.0)
    for answer, made in ((BUSY, 2), (BUSY.replace(b"After: 0", b"After: 1"), 1)):
        async with Scripted(answer).examiner() as examiner:
            await examiner._ask(Ask("a", {}))
            assert examiner.made == made


@pytest.mark.parametrize(("said", "wait_s"), [("0", 0.0), ("7", 7.0), ("soon", 1.0), ("1.5", 1.0), (None, 1.0)])
async def test_a_wait_is_in_whole_seconds_or_one(said: str | None, wait_s: float) -> None:
    assert conform._retry_s(Came(429, {} if said is None else {"retry-after": said})) == wait_s


@pytest.mark.parametrize(("budget", "asked"), [(None, True), (11, True), (10, True), (9, False)])
async def test_a_budget_may_be_spent_to_its_end(budget: int | None, asked: bool) -> None:
    async with Scripted(http("200 OK")).examiner(budget=budget) as examiner:
        examiner.spent = 6
        assert examiner._affordable(Ask("a", {}, tokens=4)) is asked
        assert examiner._affordable(Ask("free", {}, tokens=0))


@pytest.mark.parametrize(
    ("status", "body", "tokens"),
    [
        (200, b'{"usage":{"total_tokens":5}}', 5),
        (200, b'data:{"usage":{"total_tokens":5}}\n\ndata:{"usage":{"total_tokens":8}}\n\n', 8),
        (200, b'data:{"usage":{"total_tokens":8}}\n\ndata:{"usage":null}\n\ndata:[DONE]\n\n', 8),
        (200, b'data:{"usage":{"total_tokens":8}}\n\ndata:{"usage":{}}\n\ndata:{}\n\n', 8),
        (200, b"", 99),
        (200, b"[]", 99),
        (400, b'{"usage":{"total_tokens":5}}', 0),
        (0, b"", 0),
    ],
)
async def test_what_a_call_has_cost_is_the_last_figure_in_it_or_what_it_may_have(
    status: int, body: bytes, tokens: int
) -> None:
    assert conform._total(Came(status, {}, (body,)), Ask("a", {}, tokens=99)) == tokens


@pytest.mark.parametrize(
    ("ask", "told"),
    [
        (Ask("a", None, method="GET"), "GET /v1/x"),
        (Ask("a", {"b": 1}), 'POST /v1/x {"b":1}'),
        (Ask("a", b"{", headers={"Accept": "*/*"}), "POST /v1/x Accept: */*; {"),
        (
            Ask("a", b"{", stream=True, headers={"Accept": "*/*"}),
            "POST /v1/x X-DashScope-SSE: enable; Accept: */*; {",
        ),
        (Ask("a", b"", manner="hang_up"), "POST /v1/x (hang up)"),
    ],
)
async def test_a_request_is_told_in_a_line(ask: Ask, told: str) -> None:
    assert conform._told(ask, "https://user@h/v1/x?key=k") == told


async def test_what_did_not_come_is_shown_as_what_kept_it() -> None:
    assert conform._shown(Came(0, failed="connection refused")) == "connection refused"
    assert conform._shown(Came(200, {}, (b"ab",), "cut off")) == "200  cut off\nab"


ASTRAY: Final = {
    200: {b"": ""},
    401: {b"": "is that its key, in DASHSCOPE_API_KEY?"},
    403: {b"": "is that its key, in DASHSCOPE_API_KEY?"},
    400: {
        b"ModelNotFound": "it has no m: say a model of its",
        b"the Model does not EXIST": "it has no m: say a model of its",
        b"no model": "",
        b"does not exist": "",
    },
    404: {b"Model not exist.": "it has no m", b"model": "say the base of an SDK", b"": "such as https://h/x/api/v1"},
    405: {b"model not exist": "such as https://h/x/api/v1"},
    500: {b"model not exist": ""},
}


async def test_what_was_probably_meant_is_told_by_status_and_body() -> None:
    asked = conform.Examined("https://h/x/v1/", "m", KEY, 10, counted=False)
    for status, bodies in ASTRAY.items():
        for body, hint in bodies.items():
            told = conform._astray(asked, Came(status, {}, (body,)))
            assert (hint in told, bool(told)) == (True, bool(hint)), (status, body, told)
    assert conform._astray(replace(asked, route="/r"), Came(404)) == ""
    assert conform._astray(replace(asked, url="https://h/x"), Came(404)).endswith(
        "say the base of an SDK, such as https://h/x/api/v1"
    )
    assert conform._astray(replace(asked, url="https://h/api/v1"), Came(404)).endswith("no such route is there")


async def test_it_leaves_nothing_of_itself_behind() -> None:
    before = asyncio.all_tasks()
    scripted = Scripted(http("404 Not Found"))
    async with scripted.examiner() as examiner:
        target = examiner.target
        report = await conform.examine(examiner.examined, target, conform.rows_of(target, ("no-key",)), lambda *_: None)
    assert isinstance(report, Report)
    if left := {task for task in asyncio.all_tasks() - before if "Event.wait" in repr(task.get_coro())}:
        _, left = await asyncio.wait(left, timeout=5)
    assert not left
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize(
    ("route", "routed"), [(None, False), ("/api/v1/x", False), ("/partner/models/deepseek-v3.2", True)]
)
@pytest.mark.parametrize("model", ["deepseek-v3", "gpt-4"])
async def test_what_is_known_of_a_model_is_its_row_and_its_count(model: str, route: str | None, routed: bool) -> None:
    for counted in (True, False):
        target = conform.target_of(model, route, counted=counted)
        is_ours = model == "deepseek-v3"
        assert (target.model, target.routed, target.api) == (model, routed, "dashscope")
        assert (target.row is not None, target.count is not None) == (is_ours, is_ours and counted)
        assert (target.prompt is not None) == (is_ours and counted)
    target = conform.target_of("deepseek-v3", None, counted=True)
    assert target.count is not None
    assert target.prompt is not None
    said = {"model": "deepseek-v3", "input": {"messages": [{"role": "user", "content": "hi"}]}}
    # <｜begin▁of▁sentence｜> <｜User｜> hi <｜Assistant｜>
    assert (target.count("hi there"), target.prompt(said)) == (2, 4)


async def test_a_list_is_of_what_was_asked_for() -> None:
    code, out, _ = await command("--list", "--only", "frames", key="")
    assert code == 0
    checks = out.partition("\nnot checked:")[0].splitlines()[1:]
    assert {line.split()[0] for line in checks} == {"frames"}
