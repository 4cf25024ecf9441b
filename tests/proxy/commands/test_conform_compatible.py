"""The checker of the OpenAI-compatible surface is checked: as that of DashScope's own protocol, by mutants."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any, Final

import orjson
import pytest
import pytest_asyncio

from proxy.commands import conform
from proxy.commands.conform_reports import Report
from proxy.protocol import claims, compatible_checks, conformance
from proxy.protocol.conformance import Verdict
from proxy.simulation.simulator import Simulator
from proxy.simulation.wire import Script
from tests.conftest import ROOT
from tests.gateways import Answer, Answering, Gateway, Json, Mutant, Request, before, errors, header, refusing, replies
from translators import tokens

pytestmark = pytest.mark.asyncio(loop_scope="module")

KEY: Final = "sk-the-examiners-own"
MODELS: Final = ("deepseek-v3", "deepseek-v4-flash", "deepseek-r1")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def upstream(vocabulary: tokens.Vocabulary) -> AsyncIterator[Simulator]:
    async with Simulator(Script(key=KEY), vocabulary=vocabulary) as upstream:
        yield upstream


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(upstream: Simulator, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Gateway]:
    async with before(upstream.url, tmp_path_factory.mktemp("serve")) as gateway:
        yield gateway


async def examined(url: str, *only: str, model: str = "deepseek-v4-flash") -> Report:
    asked = conform.Examined(f"{url}/compatible-mode/v1", model, KEY, 10, counted=True, only=only, api="openai")
    target = conform.target_of(model, None, counted=True, api="openai")
    report = await conform.examine(asked, target, conform.rows_of(target, only), lambda _, __: None)
    assert not isinstance(report, str)
    return report


def found(report: Report, verdict: Verdict) -> dict[str, str]:
    return {it.check.name: it.finding.evidence for it in report.results if it.finding.verdict is verdict}


def frames(change: Callable[[list[bytes]], list[bytes]]) -> Answering:
    def answering(_: Request, answer: Answer) -> Answer:
        if not answer.streams:
            return answer
        listed = change(answer.body.split(b"\n\n")[:-1])
        return replace(answer, pieces=(b"".join(frame + b"\n\n" for frame in listed),))

    return answering


def chunk(change: Callable[[Json, int], object]) -> Answering:
    """Change every chunk of every stream, told its number."""

    def changed(listed: list[bytes]) -> list[bytes]:
        documents = [orjson.loads(frame.removeprefix(b"data: ")) for frame in listed[:-1]]
        for number, document in enumerate(documents):
            change(document, number)
        return [*(b"data: " + orjson.dumps(document) for document in documents), listed[-1]]

    return frames(changed)


def delta(change: Callable[[Json, int], object]) -> Answering:
    return chunk(lambda document, number: [change(choice["delta"], number) for choice in document["choices"]])


def choice(change: Callable[[Json], object]) -> Answering:
    def changed(document: Json, _: Request) -> None:
        if "choices" in document:
            change(document["choices"][0])

    return replies(changed)


def fragment(change: Callable[[Json], object]) -> Answering:
    return delta(lambda said, _: [change(call) for call in said.get("tool_calls") or ()])


def all_at_once(listed: list[bytes]) -> list[bytes]:
    documents = [orjson.loads(frame.removeprefix(b"data: ")) for frame in listed[:-1]]
    texts = "".join(document["choices"][0]["delta"].get("content") or "" for document in documents)
    documents[0]["choices"][0]["delta"]["content"] = texts
    return [b"data: " + orjson.dumps(document) for document in (documents[0], documents[-1])] + listed[-1:]


def with_parameter(**fields: Any) -> Callable[[Request], Request]:
    """Change fields of the call that are there; None takes one away."""

    def asking(request: Request) -> Request:
        document = request.document
        changed = {name: value for name, value in fields.items() if name in document}
        kept = {name: value for name, value in {**document, **changed}.items() if value is not None}
        return replace(request, body=orjson.dumps(kept)) if document else request

    return asking


def streaming(request: Request) -> Request:
    if "event-stream" not in request.headers.get("Accept", ""):
        return request
    return replace(request, body=orjson.dumps({**request.document, "stream": True}))


def for_streams(request: Request, answer: Answer) -> Answer:
    """A refused call for a stream is answered with a frame, as the service itself has been seen to do."""
    if answer.status != 400 or b'"stream":true' not in request.body:
        return answer
    return replace(answer, headers={"Content-Type": "text/event-stream"}, pieces=(b"data: " + answer.body + b"\n\n",))


def inner(change: Callable[[Json], object]) -> Answering:
    """Change what is inside of errors."""

    def changed(document: Json) -> None:
        change(document["error"])

    return errors(changed)


M = Mutant
MUTANTS: Final[dict[str, Mutant]] = {
    "another object": M("reply", answering=replies(lambda d, _: d.update(object="text_completion"))),
    "content null": M("reply", answering=choice(lambda c: c["message"].update(content=None))),
    "no finish": M("reply", answering=choice(lambda c: c.update(finish_reason=None))),
    "its own name of the model": M("model-echo", answering=replies(lambda d, _: d.update(model="deepseek-chat"))),
    "a bare id": M("id", answering=replies(lambda d, _: d.update(id=d["id"].removeprefix("chatcmpl-")))),
    "Accept asks for a stream": M("sse-body", asking=streaming),
    "developer is no role": M("developer", answering=refusing(lambda r: b"developer" in r.body)),
    "unknown fields are refused": M("ignored", answering=refusing(lambda r: b"extra_body" in r.body)),
    "models in another list": M("models", answering=replies(lambda d, _: d.update(object="models"))),
    "403 without a key": M("no-key", answering=lambda r, a: replace(a, status=403) if a.status == 401 else a),
    "404 for a bad key": M("wrong-key", answering=lambda r, a: replace(a, status=404) if a.status == 401 else a),
    "errors of DashScope": M("error", answering=errors(lambda d: {**d["error"], "request_id": d["request_id"]})),
    "errors without param": M("error", answering=inner(lambda error: error.pop("param"))),
    "ranges are not held": M("range", asking=with_parameter(temperature=1)),
    "400 for an unknown model": M("no-model", answering=lambda r, a: replace(a, status=400) if a.status == 404 else a),
    "HTML for an unknown path": M(
        "no-path", answering=lambda r, a: replace(a, pieces=(b"<h1>",)) if a.status == 404 else a
    ),
    "refusals in a frame": M("status", answering=for_streams),
    "a stream as JSON": M("stream-type", answering=header("content-type", "application/json", stream=True)),
    "no space behind the colon": M(
        "frame", answering=frames(lambda f: [one.replace(b"data: ", b"data:") for one in f])
    ),
    "ids of events": M("frame", answering=frames(lambda f: [b"id:1\n" + one for one in f])),
    "no [DONE]": M("done", answering=frames(lambda f: f[:-1])),
    "more after [DONE]": M("done", answering=frames(lambda f: [*f, f[0]])),
    "a whole completion in a chunk": M("chunk", answering=chunk(lambda d, _: d.update(object="chat.completion"))),
    "an id for each chunk": M("chunk", answering=chunk(lambda d, number: d.update(id=f"chatcmpl-{number}"))),
    "the role in every chunk": M("role", answering=delta(lambda said, _: said.update(role="assistant"))),
    "no role": M("role", answering=delta(lambda said, _: said.pop("role", None))),
    "no finish in a stream": M("finish", answering=frames(lambda f: [*f[:-2], f[-1]])),
    "two ends": M("finish", answering=frames(lambda f: [*f[:-1], f[-2], f[-1]])),
    "all of the text at once": M("pieces", answering=frames(all_at_once)),
    "no usage though asked": M("usage-asked", asking=with_parameter(stream_options=None)),
    "usage in the finish chunk": M("usage-asked", answering=frames(lambda f: [*f[:-2], f[-1]])),
    "words for tokens": M(
        "usage-asked",
        answering=chunk(
            lambda d, _: (
                d["usage"] and d["usage"].update(completion_tokens=40, total_tokens=40 + d["usage"]["prompt_tokens"])
            )
        ),
    ),
    "usage unasked": M("usage-unasked", answering=chunk(lambda d, _: d.update(usage={"prompt_tokens": 1}))),
    "a wrong sum": M("usage-reply", answering=replies(lambda d, _: d["usage"].update(total_tokens=1))),
    "no running usage": M("usage-running", asking=with_parameter(stream_options={"include_usage": True})),
    "a call without an id": M(
        "tool", answering=choice(lambda c: [f.pop("id") for f in c["message"].get("tool_calls", ())])
    ),
    "stop beside calls": M("tool", answering=choice(lambda c: c.update(finish_reason="stop"))),
    "fragments without a name": M("tool-stream", answering=fragment(lambda call: call["function"].pop("name", None))),
    "an id on every fragment": M("tool-stream", answering=fragment(lambda call: call.update(id="c"))),
    "half of the arguments": M("tool-stream", answering=fragment(lambda call: call["function"].update(arguments="{"))),
    "max_tokens is not heard": M("length", asking=with_parameter(max_tokens=64)),
    "stops are not heard": M("stop", asking=with_parameter(stop=None)),
    "JSON in a fence": M("json", answering=choice(lambda c: c["message"].update(content="```json\n{}\n```"))),
    "no chain is shown": M("reasoning", answering=delta(lambda said, _: said.pop("reasoning_content", None))),
    "reasoning after content": M(
        "reasoning", answering=delta(lambda said, _: said.get("content") and said.update(reasoning_content="x"))
    ),
    "one of two": M("n", answering=replies(lambda d, _: d.update(choices=d["choices"][:1]))),
}


@pytest.mark.parametrize("model", MODELS)
async def test_nothing_is_found_in_what_is_right(gateway: Gateway, model: str) -> None:
    report = await examined(gateway.upstream, model=model)
    assert found(report, Verdict.FAILED) == {}
    assert found(report, Verdict.NOT_SHOWN) == {}


async def test_nothing_is_found_behind_a_gateway_that_changes_nothing(gateway: Gateway) -> None:
    gateway.mutant = Mutant("")
    assert found(await examined(gateway.url), Verdict.FAILED) == {}


@pytest.mark.parametrize("name", MUTANTS)
async def test_a_broken_gateway_is_found_by_its_check(gateway: Gateway, name: str) -> None:
    gateway.mutant = mutant = MUTANTS[name]
    report = await examined(gateway.url, mutant.caught)
    assert list(found(report, Verdict.FAILED)) == [mutant.caught], report.results


WORDS = ("alpha beta gamma delta", "OK", "", "\n\n")


@pytest.mark.parametrize("text", WORDS)
async def test_whatever_a_model_says_is_no_breach(gateway: Gateway, upstream: Simulator, text: str) -> None:
    """It may obey to the word, or end before any limit and any stop."""
    upstream.script = Script(key=KEY, text=text)
    try:
        report = await examined(gateway.upstream, "length", "stop", "pieces", "usage-reply")
        assert found(report, Verdict.FAILED) == {}
    finally:
        upstream.script = Script(key=KEY)


async def test_a_stream_that_breaks_off_is_told_as_that(gateway: Gateway, upstream: Simulator) -> None:
    upstream.script = Script(key=KEY, cut_after=5)
    try:
        report = await examined(gateway.upstream, "frames")
    finally:
        upstream.script = Script(key=KEY)
    for name in ("chunk", "done", "finish"):
        assert found(report, Verdict.FAILED)[name].startswith("an error in the stream: ")


async def test_no_check_cannot_fail() -> None:
    names = {
        row.name
        for model in MODELS
        for row in conformance.checks(conform.target_of(model, None, counted=False, api="openai"))
    }
    assert names == {mutant.caught for mutant in MUTANTS.values()}


async def test_every_rule_has_a_check_or_a_reason() -> None:
    text = (ROOT / "translators" / "PROTOCOL.md").read_text("utf-8")
    checked = {row[2] for row in (*compatible_checks.ROWS, *compatible_checks.THINKING, *compatible_checks.PLAIN)}
    assert set(re.findall(r"\bCOM-\d+", text)) - checked - claims.UNCHECKED.keys() == set()
    assert checked & claims.UNCHECKED.keys() == set()
