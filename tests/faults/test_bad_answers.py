"""D · The upstream answers badly: DashScope's code for it with a true status, none of its words, no retry."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from proxy.simulation.wire import Script
from tests import caller
from tests.faults.conftest import Stage, Stand, frame
from tests.faults.matrix import row

pytestmark = pytest.mark.asyncio(loop_scope="module")

CANARY = "canary-host.internal"
BROKEN = (500, "InternalError")
OVERLOADED = (503, "ModelServingError")
THROTTLED = (429, "Throttling.RateQuota")
NAMELESS = (
    b'data: {"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"c1","function":{"arguments":"{}"}}]}}]}\n\n'
    b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"tool_calls"}]}\n\ndata: [DONE]\n\n'
)
EVENT = b'data: {"error": {"message": "%b", "type": "x", "code": %d}}\n\n'


async def _fails(stand: Stand, script: Script, fault: tuple[int, str], *outcomes: str) -> caller.Answer:
    """A call for packets and one for a reply: the same fault for both, of one upstream call each."""
    for ask in (stand.ask, stand.reply):
        number = stand.next(script)
        async with stand.frees(*(outcomes or ("upstream_error",))) as named:
            answer = await ask(headers=named)
        assert answer.fault[:2] == fault
        assert CANARY.encode() not in answer.body
        assert len(stand.upstream.calls) == number
    return answer


@row("500 `InternalError` with our key, 401 `InvalidApiKey` or 403 `AccessDenied` with the caller's")
async def test_f29_a_refused_key_is_told_to_whose_it_is(stand: Stand, stage: Stage) -> None:
    await _fails(stand, Script(status=401, error_text=CANARY), (401, "InvalidApiKey"))
    await _fails(stand, Script(status=403, error_text=CANARY), (403, "AccessDenied"))
    ours = await stage(env={"DASHSEEK_UPSTREAM_API_KEY": "sk-ours"})
    await _fails(ours, Script(status=401, error_text=CANARY), BROKEN)
    assert {line["level"] for line in ours.lines if line["event"] == "call"} == {"error"}


@row("400 `Arrearage` with the caller's key, 503 `ModelUnavailable` with ours")
async def test_f30_an_empty_account_is_told_to_whose_it_is(stand: Stand, stage: Stage) -> None:
    await _fails(stand, Script(status=402), (400, "Arrearage"))
    ours = await stage(env={"DASHSEEK_UPSTREAM_API_KEY": "sk-ours"})
    await _fails(ours, Script(status=402), (503, "ModelUnavailable"))


@pytest.mark.parametrize("status", [400, 422])
@row("400 `InvalidParameter`, upstream's sentence if it names a field in plain words")
async def test_f31_a_parameter_upstream_refuses_is_the_callers(stand: Stand, status: int) -> None:
    said = "Invalid top_k value, the valid range of top_k is [1, 100]"
    answer = await _fails(stand, Script(status=status, error_text=said), (400, "InvalidParameter"))
    assert answer.json["message"].endswith(said)
    said = f"Invalid top_k, see https://{CANARY}/doc, key sk-1234567890abc"
    answer = await _fails(stand, Script(status=status, error_text=said), (400, "InvalidParameter"))
    assert answer.json["message"].endswith("The upstream refused a parameter of this call.")


@row("400 `DataInspectionFailed`, of the input")
async def test_f32_content_risk_before_any_text_is_the_inputs(stand: Stand) -> None:
    script = Script(status=400, error_text="Content Exists Risk")
    answer = await _fails(stand, script, (400, "DataInspectionFailed"), "moderated_input")
    assert answer.json["message"] == "Input data may contain inappropriate content."


@row("packets, then `event:error` 400 `DataInspectionFailed`, of the output")
async def test_f33_a_content_filter_mid_stream_is_the_outputs(stand: Stand) -> None:
    stand.next(Script(text="one two three", gap_s=0.01, finish_reason="content_filter"))
    async with stand.frees("moderated_output") as named:
        answer = await stand.ask(headers=named)
    assert frame(answer.body) == (400, "DataInspectionFailed")
    assert b"Output data may" in answer.body
    assert caller.text(answer.body) == "one two three"


@pytest.mark.parametrize("retry_after", [None, "7"])
@row("429 `Throttling.RateQuota`, or `.AllocationQuota` where it speaks of tokens; `Retry-After` passed on")
async def test_f34_a_throttled_upstream_is_passed_on_and_not_asked_again(stand: Stand, retry_after: str | None) -> None:
    answer = await _fails(stand, Script(status=429, retry_after=retry_after), THROTTLED, "throttled")
    assert answer.headers.get("Retry-After") == retry_after
    tokens = Script(status=429, error_text="tokens per minute", retry_after=retry_after)
    await _fails(stand, tokens, (429, "Throttling.AllocationQuota"), "throttled")


@pytest.mark.parametrize(
    "script",
    [
        Script(status=500, error_text=CANARY),
        Script(status=502, error_text=CANARY, error_shape="html"),
        Script(replay=b'{"choices": [', replay_content_type="application/json"),
        Script(replay=NAMELESS),
    ],
    ids=["500", "502", "broken JSON", "a tool call without a name"],
)
@row("500 `InternalError`, none of upstream's words")
async def test_f35_a_broken_answer_is_an_internal_error(stand: Stand, script: Script) -> None:
    await _fails(stand, script, BROKEN)


@pytest.mark.parametrize(
    "script",
    [Script(status=503), Script(status=529), Script(text=" ", finish_reason="insufficient_system_resource")],
    ids=["503", "529", "finish"],
)
@row("503 `ModelServingError`; an `event:error` where the head had gone out")
async def test_f36_an_overloaded_upstream_is_told_as_such(stand: Stand, script: Script) -> None:
    stand.next(script)
    async with stand.frees("upstream_error") as named:
        answer = await stand.ask(headers=named)
    assert (frame(answer.body) if answer.status == 200 else answer.fault[:2]) == OVERLOADED


@row(
    "the true status: 400, 429, 503, and `Retry-After` with the last two; `event:error` once heartbeats began",
    figure="both sides of head_hold",
)
async def test_f37_a_200_whose_first_event_is_an_error_has_its_true_status(stand: Stand, stage: Stage) -> None:
    hasty = await stage("--head-hold", "0.1")
    for status in (400, 429, 503):
        replay = EVENT % (CANARY.encode(), status)
        stand.next(Script(replay=replay, retry_after="7"))
        async with stand.frees("upstream_error", "throttled") as named:
            answer = await stand.ask(headers=named)
        assert (answer.fault[0], answer.headers.get("Retry-After")) == (status, None if status == 400 else "7")
        hasty.next(Script(replay=replay, first_byte_delay_s=0.3))
        async with hasty.frees("upstream_error", "throttled") as named:
            answer = await hasty.ask(headers=named)
        assert answer.status == 200
        assert frame(answer.body)[0] == status


@pytest.mark.parametrize("kind", ["page", "204", "redirect", "type"])
@row("500 `InternalError`", figure="a redirect is not followed")
async def test_f38_what_is_no_answer_at_all_is_an_internal_error(stand: Stand, stage: Stage, kind: str) -> None:
    if kind in ("204", "redirect"):
        line = b"204 No Content" if kind == "204" else b"307 Temporary Redirect\r\nLocation: %b" % stand.url.encode()
        async with _saying(b"HTTP/1.1 %b\r\nContent-Length: 0\r\n\r\n" % line) as url:
            other = await stage(targets=(url,))
            async with other.frees("upstream_error") as named:
                assert (await other.ask(headers=named)).fault[:2] == BROKEN
        return
    content_type = "text/html" if kind == "page" else "application/octet-stream"
    await _fails(
        stand,
        Script(replay=b"<html>hello</html>", replay_content_type=content_type),
        BROKEN,
        "upstream_error",
        "upstream_cut",
    )


@contextlib.asynccontextmanager
async def _saying(answer: bytes) -> AsyncIterator[str]:
    """A server that says this to whatever it is asked; its base URL."""

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await reader.read()
        writer.close()

    async with await asyncio.start_server(converse, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
