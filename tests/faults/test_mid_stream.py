"""F · Faults in an open stream: the packets so far, then one error frame or the true end (spec SSE-3, SSE-4)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator

import orjson
import pytest

from proxy.simulation.simulator import Simulator
from proxy.simulation.wire import Script
from tests import caller, lint
from tests.faults import chaos
from tests.faults.conftest import Stage, Stand, frame
from tests.faults.matrix import row

pytestmark = pytest.mark.asyncio(loop_scope="module")

FLAGS = ("--idle-timeout", "0.4", "--first-token-timeout", "0.8", "--total-timeout", "2")
WORDS = "one two three four five six"
BROKEN, TIMED_OUT = (500, "InternalError"), (500, "RequestTimeOut")
KNOWN = {"X-Request-Id": "0c5b1a1e-6a53-4a1c-8a0e-5b6a3f0d9c11"}


async def _breaks(stand: Stand, script: Script, fault: tuple[int, str], *outcomes: str) -> caller.Answer:
    """A stream that ends with one error frame after its packets."""
    stand.next(script)
    async with stand.frees(*outcomes) as named:
        answer = await stand.ask(headers=named)
    assert answer.status == 200
    assert not lint.check(answer.body, incremental=True)
    assert frame(answer.body) == fault
    return answer


def _event(delta: caller.Json, **others: object) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": others.pop("finish_reason", None)}
    return b"data: %b\n\n" % orjson.dumps({"choices": [choice], **others})


async def _replayed(stand: Stand, *events: bytes, outcome: str = "ok") -> caller.Answer:
    stand.next(Script(replay=b"".join(events)))
    async with stand.frees(outcome) as named:
        answer = await stand.ask(headers=named)
    assert not lint.check(answer.body, incremental=True)
    return answer


@row("packets, then `event:error` 500 `InternalError`")
async def test_f45_a_fin_without_a_finish_is_an_error(stand: Stand) -> None:
    answer = await _breaks(stand, Script(text=WORDS, cut_after=4), BROKEN, "upstream_cut")
    assert WORDS.startswith(caller.text(answer.body))
    await _breaks(stand, Script(text=WORDS, cut_after=4, cut_by="end"), BROKEN, "upstream_cut")


@row("packets, then `event:error` 500 `InternalError`", figure="by the upstream, and on the line after 2,000 bytes")
async def test_f46_a_reset_is_an_error(stand: Stand, stage: Stage) -> None:
    await _breaks(stand, Script(text=WORDS, gap_s=0.02, cut_after=4, cut_by="rst"), BROKEN, "upstream_cut")
    async with Simulator(Script(endless=True, gap_s=0.001)) as up, chaos.Chaos(up.url) as line:
        between = await stage(targets=(line.url,), upstream=up)
        line.line = chaos.Line(reset_after=2_000)
        async with between.frees("upstream_cut") as named:
            assert frame((await between.ask(headers=named)).body) == BROKEN


@row("packets, then `event:error` 500 `InternalError`")
async def test_f47_a_killed_upstream_is_an_error(stage: Stage) -> None:
    async with _process() as (upstream, url):
        stand = await stage(targets=(url,))
        async with stand.frees("upstream_cut") as named, caller.dial(stand.url) as line:
            line.send(caller.request(caller.call(incremental_output=True), caller.SSE | dict(named)))
            await line.head()
            body = await line.until(b"id:5\n")
            upstream.kill()
            assert frame(body + await line.rest()) == BROKEN


@row("packets, then `event:error` 500 `RequestTimeOut`", figure="idle_timeout 0.4 s; comments do not re-arm it")
async def test_f48_a_frozen_upstream_is_timed(stand: Stand, stage: Stage) -> None:
    await _breaks(stand, Script(text=WORDS, stall_after=4, keep_alive_s=0.1), TIMED_OUT, "timeout_idle")
    async with _process() as (upstream, url):
        frozen = await stage("--idle-timeout", "0.4", targets=(url,))
        async with frozen.frees("timeout_idle") as named, caller.dial(frozen.url) as line:
            line.send(caller.request(caller.call(incremental_output=True), caller.SSE | dict(named)))
            await line.head()
            body = await line.until(b"id:5\n")
            os.kill(upstream.pid, signal.SIGSTOP)
            watch = frozen.watch()
            assert frame(body + await line.rest()) == TIMED_OUT
            assert watch.lap_s() < 1.4


@row(
    "*first:* 500 `RequestTimeOut`; `event:error` once heartbeats began",
    figure="first_token_timeout; both sides of head_hold",
)
async def test_f49_comments_for_ever_are_no_token(stand: Stand, stage: Stage) -> None:
    script = Script(first_byte_delay_s=30, keep_alive_s=0.1)
    stand.next(script)
    async with stand.frees("timeout_first_token") as named:
        assert (await stand.ask(headers=named)).fault[:2] == TIMED_OUT
    hasty = await stage("--head-hold", "0.2", "--heartbeat", "0.1", "--first-token-timeout", "0.8")
    answer = await _breaks(hasty, script, TIMED_OUT, "timeout_first_token")
    assert b":heartbeat\n" in answer.body


@row("packets, then `event:error` 500 `RequestTimeOut`", figure="total_timeout 2 s")
async def test_f50_an_answer_without_end_is_cut(stand: Stand) -> None:
    await _breaks(stand, Script(endless=True, gap_s=0.05), TIMED_OUT, "timeout_total")


@row("all of it", figure="gaps of 3/4 idle_timeout, and 1.2 s in which nothing may leave yet")
async def test_f51_tokens_that_come_just_in_time_are_delivered(stand: Stand) -> None:
    stand.next(Script(text="one two three", gap_s=0.3))
    async with stand.frees("ok") as named:
        assert caller.text((await stand.ask(headers=named)).body) == "one two three"
    # What may be the beginning of a stop beyond the sixteen of upstream is held back, and is a token all the same.
    held = caller.call(stop=[*(f"#{number}" for number in range(16)), f"{WORDS}!"], incremental_output=True)
    stand.next(Script(text=WORDS, gap_s=0.2))
    async with stand.frees("ok") as named:
        answer = await stand.ask(held, headers=named)
    first, *_ = caller.packets(answer.body)
    assert caller.text(answer.body) == WORDS
    assert first["output"]["choices"][0]["message"]["content"] == WORDS


@row("the same bytes", figure="single bytes, CRLF, 50 events a write, `data:` without a space")
async def test_f52_how_events_are_cut_makes_no_difference(stand: Stand) -> None:
    events = (_event({"content": word}) for word in ("one", " two"))
    replay = b"".join([*events, _event({}, finish_reason="stop"), b"data: [DONE]\n\n"])
    ways = (
        [Script(text=WORDS), Script(text=WORDS, crlf=True), Script(text=WORDS, deltas_per_write=50, split=1)],
        [
            Script(replay=replay),
            Script(replay=replay.replace(b"data: ", b"data:")),
            Script(replay=b"\xef\xbb\xbf" + replay),
        ],
    )
    for way in ways:
        stand.next(*way)
        assert len({(await stand.ask(headers=KNOWN)).body for _ in way}) == 1
    await stand.settled()


@row("all of it", figure="8 MB in one event: ≤ 128 MB of memory, no hang")
async def test_f53_one_event_of_megabytes_is_delivered(stage: Stage) -> None:
    stand = await stage()
    words = "word and another " * 500_000
    before_bytes = stand.rss_bytes
    answer = await _replayed(stand, _event({"content": words}), _event({}, finish_reason="stop"))
    assert caller.text(answer.body) == words
    assert stand.rss_bytes - before_bytes < 128 << 20


@row("packets, then `event:error` 500 `InternalError`", figure="never skipped")
async def test_f54_an_event_that_is_no_json_is_an_error(stand: Stand) -> None:
    events = (_event({"content": "one"}), b"data: {nonsense\n\n", _event({"content": "two"}, finish_reason="stop"))
    answer = await _replayed(stand, *events, outcome="upstream_error")
    assert frame(answer.body) == BROKEN
    assert b"two" not in answer.body


@row("packets, then `event:error` of the error's own status")
async def test_f55_an_error_object_in_the_stream_is_mapped(stand: Stand) -> None:
    script = Script(
        text=WORDS, gap_s=0.01, error_event_after=4, error_event_status=503, error_text="at canary.internal"
    )
    answer = await _breaks(stand, script, (503, "ModelServingError"), "upstream_error")
    assert b"canary" not in answer.body


@row("our count on every packet", figure="`basis` counted")
async def test_f56_without_any_usage_our_own_count_is_told(stand: Stand) -> None:
    stand.next(Script(text=WORDS, usage="never"))
    async with stand.frees("ok") as named:
        told = [packet["usage"]["output_tokens"] for packet in caller.packets((await stand.ask(headers=named)).body)]
    assert told[-1] == len(WORDS.split())
    assert stand.lines[-1]["basis"] == "counted"


@pytest.mark.parametrize("odd", [-3, "many", None, 2**63, 1 << 40, [1]], ids=str)
@row("figures that never fall, or an error; no hang")
async def test_f57_usage_that_cannot_be_is_never_shown(stand: Stand, odd: object) -> None:
    usage = {"prompt_tokens": 3, "completion_tokens": odd, "total_tokens": odd}
    stand.next(Script(replay=_event({"content": "one"}, usage=usage) + _event({}, finish_reason="stop", usage=usage)))
    async with stand.frees("ok", "upstream_error") as named:
        answer = await stand.ask(headers=named)
    if answer.status == 200:
        told = [packet["usage"]["output_tokens"] for packet in caller.packets(answer.body) if "usage" in packet]
        assert told == sorted(told)
        # What is beyond any model's context is no figure.
        assert all(type(tokens) is int and 0 <= tokens < 1 << 30 for tokens in told)


@row("zeros in the last packet", figure="`basis` upstream_final")
async def test_f58_usage_of_zero_is_upstreams_word(stand: Stand) -> None:
    zero = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
    answer = await _replayed(stand, _event({"content": "one"}), _event({}, finish_reason="stop", usage=zero))
    assert caller.packets(answer.body)[-1]["usage"]["total_tokens"] == 0
    assert stand.lines[-1]["basis"] == "upstream_final"


@row("one call, its arguments whole")
async def test_f59_fragments_without_an_index_are_merged(stand: Stand) -> None:
    parts = [{"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"x":'}}]
    more = [{"id": "a", "function": {"name": "", "arguments": " 1}"}}]
    events = (_event({"tool_calls": parts}), _event({"tool_calls": more}), _event({}, finish_reason="tool_calls"))
    answer = await _replayed(stand, *events)
    found = [packet["output"]["choices"][0]["message"].get("tool_calls", []) for packet in caller.packets(answer.body)]
    calls = [call for said in found for call in said]
    assert "".join(call["function"]["arguments"] for call in calls) == '{"x": 1}'
    assert {call["index"] for call in calls} == {0}


@row("one end")
async def test_f60_what_comes_after_the_finish_is_no_second_end(stand: Stand) -> None:
    finish = _event({}, finish_reason="stop")
    answer = await _replayed(
        stand, b'data: {"choices": []}\n\n', _event({"content": "one"}), finish, finish, b"data: [DONE]\n\n"
    )
    ends = [packet["output"]["choices"][0]["finish_reason"] for packet in caller.packets(answer.body)]
    assert caller.text(answer.body) == "one"
    assert [end for end in ends if end != "null"] == ["stop"]


@contextlib.asynccontextmanager
async def _process() -> AsyncIterator[tuple[subprocess.Popen[str], str]]:
    """An endless upstream as a process, to be killed and frozen; and its base URL."""
    command = [sys.executable, "-m", "proxy", "simulate", "--port", "0", "--endless", "--gap", "0.02"]
    process = subprocess.Popen(  # noqa: ASYNC220 - it starts at once, and is killed
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert process.stdout is not None
    try:
        said = await asyncio.to_thread(process.stdout.readline)
        yield process, re.findall(r"http://\S+", said)[0]
    finally:
        process.kill()
        process.stdout.close()
        process.wait()
