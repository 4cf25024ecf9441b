"""H · What upstreams and callers say in words of their own: read for what they mean, before the real process."""

from __future__ import annotations

import pytest

from proxy.simulation.wire import Script
from tests import caller, lint
from tests.corpus import DONE, chunk, event, figures
from tests.faults.conftest import Stand, frame
from tests.faults.matrix import row

pytestmark = pytest.mark.asyncio(loop_scope="module")

QUIET = (
    b'data: {"type":"keepalive","sequence_number":3}\n\n',
    b"data:\n\n",
    b"data: null\n\n",
    b'data: {"choices":null}\n\n',
    b'event: ping\ndata: {"type":"ping"}\n\n',
)
BUSY = {"message": "Service is too busy.", "type": "service_unavailable_error", "code": "service_unavailable_error"}


@pytest.mark.parametrize("quiet", QUIET, ids=["typed", "empty", "null", "no choices", "ping"])
@row("all of it, correct", figure='`finish_reason` `""` until the end, such an event before each other')
async def test_f86_events_that_say_nothing_end_no_stream(stand: Stand, quiet: bytes) -> None:
    said = (chunk({"content": "one "}, ""), chunk({"content": "two"}, ""), chunk({}, "stop", usage=figures(9, 4)), DONE)
    stand.next(Script(replay=b"".join(quiet + one for one in said), gap_s=0.02))
    async with stand.frees("ok") as named:
        answer = await stand.ask(headers=named)
    assert lint.check(answer.body) == []
    assert caller.text(answer.body) == "one two"


@row("all of it, correct", figure="each event in a read of its own; the finish waits for usage meanwhile")
async def test_f87_a_finish_that_the_answer_follows_is_taken_back(stand: Stand) -> None:
    said = (
        chunk({"content": "", "reasoning_content": ""}, "stop"),
        chunk({"content": "one "}),
        chunk({"content": "two"}, "stop"),
        chunk({"content": " three"}),
        chunk({}, "stop", usage=figures(9, 4)),
        DONE,
    )
    stand.next(Script(replay=b"".join(said), gap_s=0.05))
    async with stand.frees("ok") as named:
        answer = await stand.ask(headers=named)
    assert lint.check(answer.body) == []
    assert caller.text(answer.body) == "one two three"


@row(
    "503 `ModelServingError`, 429 `Throttling.RateQuota`, 400 `InvalidParameter`", figure="DeepSeek's own error object"
)
async def test_f88_a_200_that_fails_in_words_has_the_status_they_mean(stand: Stand) -> None:
    for error, status in (
        (BUSY, 503),
        ({"code": "rate_limit_exceeded"}, 429),
        ({"code": "429"}, 429),
        ({"type": "invalid_request_error"}, 400),
    ):
        stand.next(Script(replay=b": keep-alive\n\n" + event({"error": error})))
        async with stand.frees("upstream_error", "throttled") as named:
            assert (await stand.ask(headers=named)).fault[0] == status
        stand.next(Script(replay=chunk({"content": "one"}) + event({"error": error}), gap_s=0.02))
        async with stand.frees("upstream_error", "throttled") as named:
            assert frame((await stand.ask(headers=named)).body)[0] == status


@row("503 `ModelUnavailable`", figure="the log says what to look at")
async def test_f89_a_path_that_upstream_does_not_have_is_the_operators(stand: Stand) -> None:
    stand.next(Script(status=404, error_text="Not Found", error_shape="detail"))
    async with stand.frees("upstream_error") as named:
        assert (await stand.ask(headers=named)).fault[:2] == (503, "ModelUnavailable")
    (line,) = (line for line in stand.lines if line.get("request_id") == named["X-Request-Id"] and "outcome" in line)
    assert line["level"] == "error"
    assert "is the base URL right?" in line["cause"]


@pytest.mark.parametrize("arguments", ["", "null", None])
@row("the answer, as if the history were whole", figure="half a surrogate pair, a call without arguments")
async def test_f90_a_history_with_a_bad_character_goes_on(stand: Stand, arguments: str | None) -> None:
    made = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": arguments}}
    body = caller.call(incremental_output=True)
    body["input"]["messages"] += [
        {"role": "assistant", "content": "", "tool_calls": [made]},
        {"role": "tool", "tool_call_id": "c1", "content": "HALF"},
    ]
    number = stand.next(Script(text="fine"))
    async with stand.frees("ok") as named:
        answer = await stand.ask(caller.orjson.dumps(body).replace(b"HALF", rb"Hi \ud83d"), named)
    assert caller.text(answer.body) == "fine"
    seen = stand.upstream.calls[number - 1].body["messages"]
    assert seen[1]["tool_calls"][0]["function"]["arguments"] == "{}"
    assert seen[2]["content"] == "Hi \ufffd"
