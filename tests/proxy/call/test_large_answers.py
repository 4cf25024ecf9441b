"""Claims about what upstream says at once: taken beside the loop, in order, and to its end for the books."""

from __future__ import annotations

import asyncio
import time

import orjson
import pytest

from proxy.call import large_answers
from proxy.simulation.wire import Script
from tests import caller, lint
from tests.conftest import StartSimulator
from tests.proxy.conftest import StartGateway
from tests.stopwatch import Stopwatch
from translators import pipe

TEXT = "word and another " * 20_000
TOKENS = 60_000  # three for each round of the words


def event(delta: dict[str, object], finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return b"data: %b\n\n" % orjson.dumps({"choices": [choice]})


GIANT = event({"content": TEXT})
END = event({}, "stop") + b"data: [DONE]\n\n"
INCREMENTAL = caller.call(incremental_output=True)


def completion(text: str) -> bytes:
    message = {"role": "assistant", "content": text}
    return orjson.dumps({"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]})


def slowly(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Let the thread need so long for whatever it takes."""
    at_once = pipe.Pipe.catch_up

    def catch_up(self: pipe.Pipe) -> bytes:
        if self.late_bytes > large_answers.LARGE_BYTES:
            time.sleep(seconds)
        return at_once(self)

    monkeypatch.setattr(pipe.Pipe, "catch_up", catch_up)


async def test_packets_before_and_behind_it_keep_their_order(
    simulator: StartSimulator, gateway_before: StartGateway
) -> None:
    upstream = await simulator(Script(replay=event({"content": "a"}) + GIANT + event({"content": "b"}) + END))
    front = await gateway_before(upstream.url)
    answer = await caller.stream(front.url, INCREMENTAL)
    assert not lint.check(answer.body, incremental=True)
    assert caller.text(answer.body) == "a" + TEXT + "b"
    record, outcome = await front.end_of()
    assert outcome == "ok"
    assert record.closing["generated"] == record.closing["usage"]
    assert front.house.open_bodies.held_bytes == 0


@pytest.mark.parametrize("streams", [True, False])
async def test_a_json_answer_is_the_same(
    simulator: StartSimulator, gateway_before: StartGateway, *, streams: bool
) -> None:
    upstream = await simulator(Script(replay=completion(TEXT), replay_content_type="application/json"))
    front = await gateway_before(upstream.url)
    answer = await caller.ask(front.url, INCREMENTAL, caller.SSE if streams else {})
    if streams:
        assert caller.text(answer.body) == TEXT
    else:
        assert answer.json["output"]["choices"][0]["message"]["content"] == TEXT
        assert answer.json["usage"]["output_tokens"] >= TOKENS


async def test_small_packets_behind_a_long_text_come_as_the_caller_reads_them(
    simulator: StartSimulator, gateway_before: StartGateway
) -> None:
    """SSE-10: each says all of the text again, and one read holds two hundred of them."""
    small = b"".join(event({"content": letter}) for letter in "abcdefghij" * 20)
    upstream = await simulator(Script(replay=GIANT + small + END, deltas_per_write=1_000))
    front = await gateway_before(upstream.url)
    async with caller.dial(front.url, receive_bytes=64 << 10) as line:
        line.send(caller.request(caller.call(), caller.SSE))
        await line.head()
        body, last = b"", b""
        while piece := await line.piece():
            assert len(piece) < 2 * pipe.FRAMES_BYTES
            body, last = (body + piece, piece)
    assert not lint.check(body, incremental=False)
    message = caller.packets(last)[-1]["output"]["choices"][0]["message"]
    assert message["content"] == TEXT + "abcdefghij" * 20


async def test_several_upstream_calls_of_one_answer_come_one_after_the_other(
    simulator: StartSimulator, gateway_before: StartGateway
) -> None:
    """OUT-7: api.deepseek.com knows no `n`."""
    upstream = await simulator(Script(replay=GIANT + END))
    front = await gateway_before(upstream.url)
    answer = await caller.stream(front.url, caller.call(incremental_output=True, n=3))
    assert not lint.check(answer.body, incremental=True)
    texts = ["", "", ""]
    for packet in caller.packets(answer.body):
        for choice in packet["output"]["choices"]:
            texts[choice["index"]] += choice["message"]["content"]
    assert texts == [TEXT] * 3


async def test_heartbeats_wait_for_it_and_come_again(
    simulator: StartSimulator, gateway_before: StartGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody else touches a pipe that is catching up."""
    slowly(monkeypatch, 0.2)
    upstream = await simulator(Script(replay=GIANT + END))
    front = await gateway_before(upstream.url, head_hold=0.05, heartbeat=0.05)
    answer = await caller.stream(front.url, INCREMENTAL)
    assert not lint.check(answer.body, incremental=True)
    assert caller.text(answer.body) == TEXT


async def test_who_leaves_meanwhile_stops_upstream_and_its_record_knows_what_upstream_had_said(
    simulator: StartSimulator, gateway_before: StartGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MET-3, MET-5."""
    slowly(monkeypatch, 0.3)
    upstream = await simulator(Script(replay=GIANT + event({"content": "b"}), stall_after=1))
    front = await gateway_before(upstream.url)
    async with caller.dial(front.url) as line:
        line.send(caller.request(INCREMENTAL, caller.SSE))
        seen = await upstream.call(1)
        while not front.house.large_answers._pool.waiting_chars:  # noqa: ASYNC110 - a thread tells nobody
            await asyncio.sleep(0.01)
        line.vanish()
        watch = Stopwatch()
        assert await seen.over() == "aborted"
        assert watch.lap_s(seen.ended_s) < 0.25
    record, outcome = await front.end_of()
    assert outcome == "client_gone_before_first_packet"
    assert record.closing["generated"]["output_tokens"] >= TOKENS
    assert record.closing["packets"] == record.closing["usage"]["total_tokens"] == 0


async def test_a_call_that_ends_does_not_wait_for_ever(
    simulator: StartSimulator, gateway_before: StartGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(large_answers, "END_S", 0.05)
    slowly(monkeypatch, 0.5)
    upstream = await simulator(Script(replay=GIANT + END))
    front = await gateway_before(upstream.url, total_timeout=0.1)
    watch = Stopwatch()
    answer = await caller.stream(front.url, INCREMENTAL)
    assert answer.fault[:2] == (500, "RequestTimeOut")
    assert watch.lap_s() < 0.5
    await front.end_of()


async def test_what_came_before_a_limit_passed_goes_out_before_its_error_frame(
    simulator: StartSimulator, gateway_before: StartGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    slowly(monkeypatch, 0.3)
    upstream = await simulator(Script(replay=event({"content": "a"}) + GIANT + END, stall_after=2))
    front = await gateway_before(upstream.url, total_timeout=0.2)
    answer = await caller.stream(front.url, INCREMENTAL)
    assert not lint.check(answer.body, incremental=True)
    assert caller.text(answer.body) == "a" + TEXT
    assert b"event:error\n" in answer.body


async def test_no_wait_of_the_callers_or_upstreams_is_blamed_meanwhile(
    simulator: StartSimulator, gateway_before: StartGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    slowly(monkeypatch, 0.4)
    upstream = await simulator(Script(replay=GIANT + END))
    front = await gateway_before(upstream.url, first_token_timeout=0.15, idle_timeout=0.15, write_timeout=0.15)
    assert caller.text((await caller.stream(front.url, INCREMENTAL)).body) == TEXT


async def test_once_it_is_caught_up_with_upstreams_silence_has_its_limit_again(
    simulator: StartSimulator, gateway_before: StartGateway
) -> None:
    """ERR-5."""
    upstream = await simulator(Script(replay=GIANT + event({"content": "b"}), stall_after=1))
    front = await gateway_before(upstream.url, idle_timeout=0.3)
    answer = await caller.stream(front.url, INCREMENTAL)
    assert caller.text(answer.body) == TEXT
    assert (await front.end_of())[1] == "timeout_idle"


async def test_a_fault_in_it_keeps_its_status(simulator: StartSimulator, gateway_before: StartGateway) -> None:
    upstream = await simulator(Script(replay=b"data: {" + TEXT.encode() + b"\n\n"))
    front = await gateway_before(upstream.url)
    assert (await caller.stream(front.url, INCREMENTAL)).fault[:2] == (500, "InternalError")


@pytest.mark.parametrize("kind", ["one event", "JSON", "much text"])
async def test_an_answer_that_all_open_calls_have_no_room_for_is_told_to_come_back(
    simulator: StartSimulator, gateway_before: StartGateway, kind: str
) -> None:
    """REQ-11: what is held of answers counts as bodies do."""
    script = {
        "one event": Script(replay=GIANT * 2 + END),
        "JSON": Script(replay=completion(TEXT * 4), replay_content_type="application/json"),
        "much text": Script(replay=event({"content": "word " * 100}) * 1_000 + END, deltas_per_write=10),
    }[kind]
    upstream = await simulator(script)
    front = await gateway_before(upstream.url, max_open_bytes=300_000, max_body_bytes=100_000)
    answer = await caller.ask(front.url, caller.call())
    assert answer.fault[:2] == (503, "ModelServingError")
    assert answer.headers["Retry-After"] == "1"
    assert front.house.open_bodies.held_bytes == 0
    upstream.script = Script(text="a b")
    assert (await caller.ask(front.url, caller.call())).status == 200
