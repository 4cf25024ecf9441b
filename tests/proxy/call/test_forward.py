"""Claims about one call on its way: what ends it, what its caller is told then, and what is left behind.

The gateway runs in the test's own loop, with short limits, and every limit is looked at from both of its sides
(spec ERR-5).
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import structlog.testing

from config.values import toml
from proxy.call import forward, relay, timeouts
from proxy.downstream import sinks
from proxy.simulation.simulator import Simulator
from proxy.simulation.wire import Script
from proxy.upstream import report
from proxy.upstream.health import Event, State
from tests import caller, lint
from tests.conftest import StartSimulator
from tests.proxy.conftest import Running, StartGateway
from translators import faults, pipe

TIMED_OUT = (500, "RequestTimeOut", "Request timed out, please try again later.")
INTERNAL = (500, "InternalError", faults.INTERNAL.message)
UNAVAILABLE = (503, "ModelUnavailable", faults.UNAVAILABLE.message)
WORDS = "one two three four five six seven eight nine ten"
INCREMENTAL = caller.call(WORDS, incremental_output=True)


def last_frame(body: bytes) -> tuple[int, str, str]:
    """Status, code and message of the error frame that ends a stream; an assertion that its framing is right."""
    assert not lint.check(body, incremental=True), body
    frame = body.removesuffix(b"\n\n").split(b"\n\n")[-1]
    status = int(frame.split(b":HTTP_STATUS/")[1][:3])
    assert b"\nevent:error\n" in frame
    error = caller.packets(frame)[0]
    return status, error["code"], error["message"]


async def cause_of(front: Running, number: int = 1) -> str:
    record, _ = await front.end_of(number)
    assert record.cause is not None
    return record.cause


def assert_nothing_is_left(front: Running) -> None:
    assert not front.house.open_calls


FrontOf = Callable[[Script, Script], Awaitable[tuple[Running, Simulator]]]


@pytest.fixture
def front_of(simulator: StartSimulator, gateway_before: StartGateway, tmp_path: Path) -> FrontOf:
    """Starts a gateway before an upstream and the one that is asked where that is out; it, and the first of them."""

    async def start(*scripts: Script) -> tuple[Running, Simulator]:
        one, other = [await simulator(script) for script in scripts]
        pools = [
            {"name": "p0", "urls": [one.url], "first_token_timeout": 0.15},
            {"name": "p1", "urls": [other.url], "priority": 1},
        ]
        file = tmp_path / "pools.toml"
        await asyncio.to_thread(file.write_text, f"pools = {toml(pools)}\n")
        return await gateway_before(config=file), one

    return start


class TestTargets:
    """What an answer that has begun says of its target (POOL-3): nothing, until something of it has come."""

    @pytest.mark.parametrize("ask", [caller.stream, caller.ask])
    @pytest.mark.parametrize(
        ("script", "word"),
        [
            (Script(stall_after=0), "first_token_timeout"),
            (Script(keep_alive_s=0.02, first_byte_delay_s=30), "first_token_timeout"),
            (Script(cut_after=0, cut_by="end"), "500"),
            (Script(cut_after=0, cut_by="rst"), "broken"),
            # Of a stream and of a completion.
            (Script(replay=b'data: {"error": {"message": "no", "code": 503}}\n\n'), "503"),
            (Script(replay=b'data: {"error": {"message": "no", "code": 503, "retry_after": 7}}\n\n'), "503"),
            (Script(replay=b"{", replay_content_type="application/json"), "500"),
        ],
        ids=["silence", "comments", "an end", "a reset", "an error", "an error that says when", "no JSON"],
    )
    async def test_one_that_begins_three_answers_and_says_nothing_is_out(
        self, front_of: FrontOf, script: Script, word: str, ask: Callable[..., Awaitable[caller.Answer]]
    ) -> None:
        front, _ = await front_of(script, Script(text=WORDS))
        for _ in range(3):
            assert (await ask(front.url, INCREMENTAL)).status in {500, 503}
        look, _ = report.targets(front.house.upstreams)
        assert (look.state, look.last_error, look.first_token_s) == ("out", word, None)
        assert (await ask(front.url, INCREMENTAL)).status == 200
        await front.end_of(4)
        tried = [attempt["pool"] for record, _ in front.ended for attempt in record.closing["attempts"]]
        assert tried == ["p0", "p0", "p0", "p1"]

    @pytest.mark.parametrize(
        "script",
        [
            Script(text=WORDS, stall_after=4),
            Script(text=WORDS, cut_after=4),
            # A packet and the failure behind it, in one read.
            Script(
                replay=b'data: {"choices":[{"index":0,"delta":{"role":"assistant","content":"one"}}]}\n\n'
                b'data: {"error": {"message": "no", "code": 503}}\n\n',
                deltas_per_write=2,
            ),
        ],
        ids=["silence", "an end", "an error"],
    )
    async def test_one_that_has_said_something_is_well(
        self, simulator: StartSimulator, gateway_before: StartGateway, script: Script
    ) -> None:
        upstream = await simulator(script)
        front = await gateway_before(upstream.url, idle_timeout=0.15)
        for _ in range(4):
            assert b"event:error" in (await caller.stream(front.url, INCREMENTAL)).body
        assert report.targets(front.house.upstreams)[0].state == "well"

    async def test_a_trial_lasts_until_the_first_packet(
        self, simulator: StartSimulator, gateway_before: StartGateway
    ) -> None:
        upstream = await simulator(Script(text=WORDS, gap_s=0.05))
        front = await gateway_before(upstream.url)
        (target,) = front.house.upstreams.targets
        front.house.upstreams.note(target, Event.LOST)
        target.standing.health.let_try(0.0)
        streaming = asyncio.create_task(caller.stream(front.url, INCREMENTAL))
        await upstream.until(lambda: bool(upstream.calls) and upstream.calls[0].events == 1)
        assert target.standing.health.state is State.TRIAL
        await upstream.until(lambda: upstream.calls[0].events > 4)
        assert target.standing.health.state is State.WELL
        assert caller.text((await streaming).body) == WORDS

    async def test_how_long_a_first_packet_took_is_kept_of_it(
        self, simulator: StartSimulator, gateway_before: StartGateway
    ) -> None:
        """From its upstream call on; of a reply nobody can tell."""
        upstream = await simulator(Script(text=WORDS, first_byte_delay_s=0.05))
        front = await gateway_before(upstream.url)
        (standing,) = (target.standing for target in front.house.upstreams.targets)
        await caller.ask(front.url, caller.call())
        assert standing.first_token_s is None
        answer = await caller.stream(front.url, INCREMENTAL)
        assert standing.first_token_s is not None
        assert 0.05 <= standing.first_token_s < 30
        assert [part.split(";")[0] for part in answer.headers["Server-Timing"].split(", ")] == [
            *("read", "translate", "upstream", "first-token", "total")
        ]

    @pytest.mark.parametrize(
        ("fault", "cause", "left", "said"),
        [
            (faults.MODEL_UNKNOWN, "upstream failed with 400", False, "answered"),
            (faults.MODEL_UNKNOWN, "upstream failed with 400", True, "answered"),
            (faults.UPSTREAM_BROKEN, "upstream failed with 500", False, "500"),
            (faults.UPSTREAM_BROKEN, "upstream failed with 500", True, None),
            (faults.OVERLOADED.after("7"), "upstream failed with 503", False, "503"),
            # Here there is no room: what was asked is not to blame.
            (faults.OVERLOADED.after("1"), "over max_open_bytes", False, None),
            (faults.INTERNAL, "a bug", False, "500"),
        ],
    )
    def test_what_an_answer_fails_with_is_its_targets_from_500_on_where_it_is_upstreams(
        self, fault: faults.Fault, cause: str, left: bool, said: str | None
    ) -> None:
        told = list[str]()
        lease: Any = SimpleNamespace(answered=lambda: told.append("answered"), failed=told.append)
        sink: Any = SimpleNamespace(left=left)
        forward._blame(faults.Refusal(fault, cause), sink, lease)
        assert told == ([] if said is None else [said])


class TestOnePool:
    """What is on its way for one pool never goes on to another that may write it in another way (OUT-7, OUT-9)."""

    @pytest.mark.parametrize(
        ("dialect", "parameters", "first", "asked"),
        [
            ("vllm", {}, (), 1),
            # One upstream call of two choices, and two of one.
            ("vllm", {"n": 2}, (), 0),
            ("deepseek", {"n": 2}, (Script(status=503), Script(first_byte_delay_s=30)), 0),
            # Its second call goes on where the first was.
            ("deepseek", {"enable_thinking": True, "thinking_budget": 10}, (Script(text="", reasoning=WORDS * 20),), 0),
        ],
        ids=["one", "two of one", "one of each", "two behind each other"],
    )
    async def test_it_stays_where_it_is(
        self,
        simulator: StartSimulator,
        gateway_before: StartGateway,
        tmp_path: Path,
        *,
        dialect: str,
        parameters: dict[str, Any],
        first: tuple[Script, ...],
        asked: int,
    ) -> None:
        busy, free = await simulator(Script(status=503)), await simulator(Script(text="hi"))
        busy.scripts.extend(first)
        pools = [
            {"name": "p0", "urls": [busy.url], "dialect": dialect},
            {"name": "p1", "urls": [free.url], "dialect": "deepseek", "priority": 1},
        ]
        file = tmp_path / "pools.toml"
        await asyncio.to_thread(
            file.write_text,
            f"failover_on = [503]\nfirst_token_timeout = 20\nstrict_thinking = false\npools = {toml(pools)}\n",
        )
        front = await gateway_before(config=file)
        call = caller.call(WORDS, "deepseek-v3.2", incremental_output=True, **parameters)
        assert (await caller.stream(front.url, call)).status == (
            200 if asked or "thinking_budget" in parameters else 503
        )
        await front.end_of()
        assert len(free.calls) == asked
        assert (front.house.upstreams.in_flight, front.house.upstreams.connections.acquired) == (0, 0)


@pytest.mark.parametrize(("headers", "streams"), [(caller.SSE, 1), ({}, 0)], ids=["packets", "reply"])
async def test_what_is_open_is_counted_and_what_streams_apart(
    simulator: StartSimulator, gateway_before: StartGateway, headers: dict[str, str], streams: int
) -> None:
    """And of a stream whose caller leaves no heartbeat is left."""
    upstream = await simulator(Script(text=WORDS, stall_after=3))
    front = await gateway_before(upstream.url, heartbeat=0.01)
    open_calls = front.house.open_calls
    assert (len(open_calls), open_calls.streams) == (0, 0)
    async with caller.dial(front.url) as line:
        line.send(caller.request(INCREMENTAL, headers))
        await upstream.call()
        async with asyncio.timeout(30):
            while open_calls.streams != streams:  # noqa: ASYNC110 - nobody tells that an answer has begun
                await asyncio.sleep(0)
        assert (len(open_calls), open_calls.streams) == (1, streams)
        sinks_ = [one for one in gc.get_objects() if type(one) is sinks.PacketSink and one._transport._loop is _loop()]
        assert len(sinks_) == streams
        with structlog.testing.capture_logs() as lines:
            line.vanish()
            await front.end_of()
            await asyncio.sleep(0)
    assert [entry["event"] for entry in lines] == ["call"]
    assert (len(open_calls), open_calls.streams) == (0, 0)
    assert [one._beat for one in sinks_] == [None] * streams


async def test_how_far_our_count_is_from_upstreams_is_learned_where_it_tells(
    simulator: StartSimulator, gateway_before: StartGateway
) -> None:
    """USE-5."""
    front = await gateway_before((await simulator(Script(text=WORDS, usage="own"))).url)
    assert (await caller.stream(front.url, INCREMENTAL)).status == 200
    await front.end_of()
    assert len(front.house.offsets._seen) == 1


@pytest.mark.parametrize(
    ("reported", "countable", "learned"),
    [(5, True, [("kind", 7, 5)]), (0, True, [("kind", 7, 0)]), (None, True, []), (5, False, []), (None, False, [])],
)
def test_nothing_is_learned_of_a_prompt_that_cannot_be_counted_or_was_not_told_of(
    reported: int | None, countable: bool, learned: list[tuple[str, int, int]]
) -> None:
    """USE-5: an image of unknown size is no difference of templates."""
    told = list[tuple[str, int, int]]()
    first, second = (SimpleNamespace(figures=SimpleNamespace(input=figure)) for figure in (reported, 99))
    tally = SimpleNamespace(upstream=[first, second], counted_input=7)
    call: Any = SimpleNamespace(
        pool_request=SimpleNamespace(kind="kind", pipe=SimpleNamespace(answer=SimpleNamespace(tally=tally))),
        exchange=SimpleNamespace(call=SimpleNamespace(is_countable=countable)),
        gateway=SimpleNamespace(offsets=SimpleNamespace(learn=lambda *said: told.append(said))),
    )
    forward.Forwarding._learn(call)
    assert told == learned


class TestFirstTokenTimeout:
    """From the upstream call to its first token; the head is still held, so the failure has its own status."""

    @pytest.mark.parametrize("keep_alive_s", [None, 0.02], ids=["silence", "comments"])
    async def test_it_fires(
        self, simulator: StartSimulator, gateway_before: StartGateway, keep_alive_s: float | None
    ) -> None:
        upstream = await simulator(Script(first_byte_delay_s=30, keep_alive_s=keep_alive_s))
        front = await gateway_before(upstream.url, first_token_timeout=0.15)
        answer = await caller.stream(front.url, INCREMENTAL)
        assert answer.fault == TIMED_OUT
        assert await cause_of(front) == "first_token_timeout fired"
        assert await upstream.calls[0].over() == "aborted"
        assert_nothing_is_left(front)

    async def test_it_fires_on_a_json_call(self, simulator: StartSimulator, gateway_before: StartGateway) -> None:
        upstream = await simulator(Script(first_byte_delay_s=30, keep_alive_s=0.02))
        front = await gateway_before(upstream.url, first_token_timeout=0.15)
        assert (await caller.ask(front.url, caller.call())).fault == TIMED_OUT
        assert await upstream.calls[0].over() == "aborted"

    async def test_it_does_not_fire_just_before(self, simulator: StartSimulator, gateway_before: StartGateway) -> None:
        upstream = await simulator(Script(text=WORDS, first_byte_delay_s=0.15))
        front = await gateway_before(upstream.url, first_token_timeout=2, idle_timeout=2)
        assert caller.text((await caller.stream(front.url, INCREMENTAL)).body) == WORDS

    async def test_once_the_head_is_out_it_is_an_error_frame(
        self, simulator: StartSimulator, gateway_before: StartGateway
    ) -> None:
        """Spec SSE-11: the other side of `head_hold`."""
        upstream = await simulator(Script(first_byte_delay_s=30))
        front = await gateway_before(upstream.url, first_token_timeout=0.3, head_hold=0.05, heartbeat=0.05)
        answer = await caller.stream(front.url, INCREMENTAL)
        assert answer.status == 200
        assert answer.body.startswith(b":heartbeat\n")
        assert last_frame(answer.body) == TIMED_OUT


class TestIdleTimeout:
    """Between two tokens; comments do not re-arm it."""

    @pytest.mark.parametrize("keep_alive_s", [None, 0.02], ids=["silence", "comments"])
    async def test_it_fires(
        self, simulator: StartSimulator, gateway_before: StartGateway, keep_alive_s: float | None
    ) -> None:
        upstream = await simulator(Script(text=WORDS, stall_after=4, keep_alive_s=keep_alive_s))
        front = await gateway_before(upstream.url, idle_timeout=0.15)
        answer = await caller.stream(front.url, INCREMENTAL)
        assert last_frame(answer.body) == TIMED_OUT
        assert caller.text(answer.body) == "one two three"
        assert await cause_of(front) == "idle_timeout fired"
        assert await upstream.calls[0].over() == "aborted"
        assert_nothing_is_left(front)

    async def test_every_token_re_arms_it(self, simulator: StartSimulator, gateway_before: StartGateway) -> None:
        upstream = await simulator(Script(text=WORDS, gap_s=0.1))
        front = await gateway_before(upstream.url, idle_timeout=0.4)
        assert caller.text((await caller.stream(front.url, INCREMENTAL)).body) == WORDS

    async def test_tokens_that_are_held_back_re_arm_it_too(
        self, simulator: StartSimulator, gateway_before: StartGateway
    ) -> None:
        """Cumulative calls are shown once, complete (SSE-7); generating their arguments is no silence."""
        arguments = '{"city": "' + " ".join(WORDS.split() * 2) + '"}'
        upstream = await simulator(Script(tools=(f"weather {arguments}",), gap_s=0.05))
        front = await gateway_before(upstream.url, idle_timeout=0.4)
        tools = [{"type": "function", "function": {"name": "weather", "parameters": {}}}]
        answer = await caller.stream(front.url, caller.call("Weather?", tools=tools))
        message = caller.packets(answer.body)[-1]["output"]["choices"][0]["message"]
        assert message["tool_calls"][0]["function"]["arguments"] == arguments

    async def test_a_slow_caller_does_not_count_against_the_upstream(
        self, simulator: StartSimulator, gateway_before: StartGateway
    ) -> None:
        """Spec ERR-5: backpressure is the caller's silence."""
        upstream = await simulator(Script(endless=True, deltas_per_write=200))
        front = await gateway_before(upstream.url, idle_timeout=0.1)
        async with caller.dial(front.url, receive_bytes=4096) as line:
            line.send(caller.request(caller.call(WORDS, incremental_output=True), caller.SSE))
            await line.head()
            line.stall()
            await asyncio.sleep(0.4)
            assert front.house.open_calls
            assert not front.ended


class TestTotalTimeout:
    """For the whole call, however busy it is."""

    async def test_it_fires(self, simulator: StartSimulator, gateway_before: StartGateway) -> None:
        upstream = await simulator(Script(gap_s=0.02, endless=True))
        front = await gateway_before(upstream.url, total_timeout=0.3)
        answer = await caller.stream(front.url, INCREMENTAL)
        assert last_frame(answer.body) == TIMED_OUT
        assert await cause_of(front) == "total_timeout fired"
        assert await upstream.calls[0].over() == "aborted"

    async def test_it_does_not_fire_just_before(self, simulator: StartSimulator, gateway_before: StartGateway) -> None:
        upstream = await simulator(Script(text=WORDS, gap_s=0.02))
        front = await gateway_before(upstream.url, total_timeout=3)
        assert caller.text((await caller.stream(front.url, INCREMENTAL)).body) == WORDS


class TestConnectTimeout:
    """To connect; the only limit that is aiohttp's."""

    async def test_it_fires(self, gateway_before: StartGateway) -> None:
        # A listener whose queue is full answers no SYN: that is what a black hole looks like.
        with _full_listener() as url:
            front = await gateway_before(url, connect_timeout=0.2)
            started = asyncio.get_running_loop().time()
            assert (await caller.ask(front.url, caller.call())).fault == TIMED_OUT
            assert asyncio.get_running_loop().time() - started < 1
        record, _ = await front.end_of()
        assert len(record.closing["attempts"]) == 1
        assert (await cause_of(front)).startswith("connect_timeout fired")

    async def test_the_next_target_is_asked_where_there_is_one(
        self, simulator: StartSimulator, gateway_before: StartGateway
    ) -> None:
        upstream = await simulator()
        with _full_listener() as url:
            front = await gateway_before(url, upstream.url, connect_timeout=0.2)
            assert (await caller.ask(front.url, caller.call())).status == 200

    async def test_an_upstream_that_is_slow_to_answer_is_not_slow_to_connect(
        self, simulator: StartSimulator, gateway_before: StartGateway
    ) -> None:
        upstream = await simulator(Script(first_byte_delay_s=0.3))
        front = await gateway_before(upstream.url, connect_timeout=0.1)
        assert (await caller.ask(front.url, caller.call())).status == 200


class TestUsageTimeout:
    """For upstream's usage, once the answer is complete (spec SSE-8)."""

    async def test_it_fires_and_our_own_count_finishes_the_stream(
        self, simulator: StartSimulator, gateway_before: StartGateway
    ) -> None:
        # Role, ten words, finish; its usage would be the next event.
        upstream = await simulator(Script(text=WORDS, usage="own", stall_after=12))
        front = await gateway_before(upstream.url, usage_timeout=0.1)
        started = asyncio.get_running_loop().time()
        answer = await caller.stream(front.url, INCREMENTAL)
        assert asyncio.get_running_loop().time() - started < 1
        assert not lint.check(answer.body, incremental=True)
        last = caller.packets(answer.body)[-1]
        assert last["output"]["choices"][0]["finish_reason"] == "stop"
        assert last["usage"]["output_tokens"] == 10
        record, outcome = await front.end_of()
        assert outcome == "ok"
        assert record.closing["basis"] == "counted"

    async def test_late_usage_is_waited_for(self, simulator: StartSimulator, gateway_before: StartGateway) -> None:
        upstream = await simulator(Script(usage="own", gap_s=0.1))
        front = await gateway_before(upstream.url, usage_timeout=1)
        await caller.stream(front.url, INCREMENTAL)
        record, _ = await front.end_of()
        assert record.closing["basis"] == "upstream_final"


class TestWriteTimeout:
    """A caller who stops reading, and stays."""

    @pytest.mark.parametrize("headers", [caller.SSE, {}], ids=["packets", "reply"])
    async def test_the_caller_is_cut_and_so_is_its_upstream(
        self, simulator: StartSimulator, gateway_before: StartGateway, headers: dict[str, str]
    ) -> None:
        replay = b'{"choices":[{"index":0,"message":{"content":"%b"},"finish_reason":"stop"}]}' % (b"a" * (8 << 20))
        script = Script(endless=True, deltas_per_write=200)
        upstream = await simulator(script if headers else Script(replay=replay, replay_content_type="application/json"))
        front = await gateway_before(upstream.url, write_timeout=0.2, idle_timeout=60)
        async with caller.dial(front.url, receive_bytes=4096) as line:
            line.send(caller.request(caller.call(WORDS * 20, incremental_output=True), headers))
            line.stall()
            record, outcome = await front.end_of()
            # What waits for it is dropped: an end behind that would never come.
            server = front.process.calls.runner.server
            assert server is not None
            async with asyncio.timeout(10):
                while server.connections:  # noqa: ASYNC110 - nothing tells that a connection is gone
                    await asyncio.sleep(0.01)
        assert outcome == "client_stalled"
        # What the kernel has taken is delivered, read or not; a reply that still lies here in part is not (MET-3).
        assert bool(record.closing["usage"]["output_tokens"]) is bool(headers)
        assert record.closing["usage"]["output_tokens"] <= record.closing["generated"]["output_tokens"]
        assert_nothing_is_left(front)
        if headers:
            assert await upstream.calls[0].over() == "aborted"

    async def test_a_slow_caller_gets_everything(self, simulator: StartSimulator, gateway_before: StartGateway) -> None:
        upstream = await simulator(Script(text=WORDS + " ", repeat=300, deltas_per_write=100))
        front = await gateway_before(upstream.url, write_timeout=0.5)
        async with caller.dial(front.url, receive_bytes=4096) as line:
            line.send(caller.request(caller.call(incremental_output=True), caller.SSE))
            await line.head()
            body = b""
            while piece := await line.piece():
                body += piece
                await asyncio.sleep(0.01)
        assert caller.text(body) == (WORDS + " ") * 300


class TestDrain:
    """What is left when the time is up (spec OPS-2)."""

    async def test_an_open_stream_ends_with_one_error_frame(
        self, simulator: StartSimulator, gateway_before: StartGateway
    ) -> None:
        upstream = await simulator(Script(gap_s=0.02, endless=True))
        front = await gateway_before(upstream.url)
        async with caller.dial(front.url) as line:
            line.send(caller.request(INCREMENTAL, caller.SSE))
            await line.head()
            body = await line.piece()
            (clock,) = front.house.open_calls
            clock.expire(timeouts.Timeout.DRAIN)
            body += await line.rest()
        assert last_frame(body) == UNAVAILABLE
        assert await upstream.calls[0].over() == "aborted"

    @pytest.mark.parametrize("headers", [caller.SSE, {}], ids=["packets", "reply"])
    async def test_a_call_that_is_held_gets_its_status(
        self, simulator: StartSimulator, gateway_before: StartGateway, headers: dict[str, str]
    ) -> None:
        upstream = await simulator(Script(first_byte_delay_s=30))
        front = await gateway_before(upstream.url)
        async with caller.dial(front.url) as line:
            line.send(caller.request(INCREMENTAL, headers))
            await upstream.call()
            (clock,) = front.house.open_calls
            clock.expire(timeouts.Timeout.DRAIN)
            assert (await line.answer()).fault == UNAVAILABLE

    async def test_a_call_whose_body_is_still_coming_is_open_too(self, gateway_before: StartGateway) -> None:
        front = await gateway_before("http://127.0.0.1:1")
        async with caller.dial(front.url) as line:
            line.send(caller.request(INCREMENTAL)[:-5])
            async with asyncio.timeout(5):
                while not front.house.open_calls:  # noqa: ASYNC110 - nothing tells that a call has begun
                    await asyncio.sleep(0.01)
            (clock,) = front.house.open_calls
            clock.expire(timeouts.Timeout.DRAIN)
            assert (await line.answer()).fault == UNAVAILABLE


class TestBugs:
    """A bug of ours: told as one, with its place in the log and nowhere else."""

    async def test_before_the_first_packet_it_has_its_status(
        self, simulator: StartSimulator, gateway_before: StartGateway, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(relay, "pump", _fail)
        front = await gateway_before((await simulator()).url)
        assert (await caller.stream(front.url, INCREMENTAL)).fault == INTERNAL
        assert await cause_of(front) == "a bug (ZeroDivisionError)"

    async def test_in_an_open_stream_it_is_the_last_frame_never_a_second_head(
        self, simulator: StartSimulator, gateway_before: StartGateway, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        front = await gateway_before((await simulator(Script(gap_s=0.05))).url)
        async with caller.dial(front.url) as line:
            line.send(caller.request(INCREMENTAL, caller.SSE))
            await line.head()
            body = await line.piece()
            monkeypatch.setattr(pipe.Pipe, "feed", _fail_at_once)
            body += await line.rest()
        assert last_frame(body) == INTERNAL

    async def test_after_the_last_byte_it_is_in_the_log_alone(
        self, simulator: StartSimulator, gateway_before: StartGateway, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        failed = asyncio.Event()

        async def drop(*said: object) -> None:
            failed.set()
            await _fail(*said)

        monkeypatch.setattr(relay, "drop_leftover", drop)
        # Its last word comes behind the rest: where it came with it, nothing is left to drop.
        front = await gateway_before((await simulator(Script(text=WORDS, gap_s=0.01))).url)
        with structlog.testing.capture_logs() as lines:
            assert caller.text((await caller.stream(front.url, INCREMENTAL)).body) == WORDS
            record, outcome = await front.end_of()
        assert outcome == "ok"
        assert failed.is_set()
        (bug,) = (line for line in lines if line["event"] == "bug")
        assert (bug["request_id"], bug["error"]) == (record.request_id, "ZeroDivisionError")


async def test_one_failed_leg_ends_the_others(simulator: StartSimulator, gateway_before: StartGateway) -> None:
    """Spec OUT-7: n calls to an upstream that knows no n are one call to the caller."""
    upstream = await simulator(Script(endless=True, gap_s=0.02))
    upstream.scripts.extend([Script(cut_after=5, gap_s=0.02), Script(endless=True, gap_s=0.02)])
    front = await gateway_before(upstream.url)
    answer = await caller.stream(front.url, caller.call(WORDS, incremental_output=True, n=2))
    assert answer.status == 200
    assert last_frame(answer.body) == INTERNAL
    assert {await seen.over() for seen in upstream.calls} == {"cut", "aborted"}
    assert_nothing_is_left(front)


async def test_an_answer_that_we_cut_is_not_read_on(
    simulator: StartSimulator, gateway_before: StartGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Upstream would write on for as long as its connection is waited for, and be paid for it."""
    monkeypatch.setattr(relay, "LEFTOVER_S", 30)
    upstream = await simulator(Script(text="one two STOP ", endless=True, gap_s=0.01))
    front = await gateway_before(upstream.url)
    stops = [*map(str, range(40)), "STOP"]
    # The connection stays: the end of it would end the call, and with that upstream's.
    async with caller.dial(front.url) as line:
        line.send(caller.request(caller.call(incremental_output=True, stop=stops), caller.SSE))
        assert caller.text((await line.answer()).body) == "one two "
        async with asyncio.timeout(5):
            assert await upstream.calls[0].over() == "aborted"


@pytest.mark.parametrize("headers", [caller.SSE, {}], ids=["packets", "reply"])
async def test_a_chain_over_its_budget_is_one_answer_of_two_upstream_calls(
    simulator: StartSimulator, gateway_before: StartGateway, headers: dict[str, str]
) -> None:
    """Spec OUT-9: the first call is left, the second goes on behind the closed chain."""
    upstream = await simulator()
    upstream.scripts.extend([Script(text="none", reasoning=WORDS * 20, gap_s=0.01), Script(text="the answer")])
    front = await gateway_before(upstream.url, strict_thinking="false")
    asked = caller.call(
        WORDS, "deepseek-v3.2", enable_thinking=True, thinking_budget=10, incremental_output=bool(headers)
    )
    answer = await caller.ask(front.url, asked, headers)
    packets = caller.packets(answer.body) if headers else [answer.json]
    messages = [packet["output"]["choices"][0]["message"] for packet in packets]
    assert "".join(message["reasoning_content"] for message in messages) == WORDS
    assert "".join(message["content"] for message in messages) == "the answer"
    assert await upstream.calls[0].over() == "aborted"
    assert upstream.calls[1].path.startswith("/beta")
    assert (await front.end_of())[1] == "ok"


async def test_who_leaves_with_the_last_byte_in_hand_has_not_left_early(
    simulator: StartSimulator, gateway_before: StartGateway
) -> None:
    """The upstream is still closing its answer when the caller has all of its own."""
    upstream = await simulator(Script(text=WORDS, stall_after=13))
    front = await gateway_before(upstream.url)
    async with caller.dial(front.url) as line:
        line.send(caller.request(INCREMENTAL, caller.SSE))
        await line.head()
        await line.rest()
        line.vanish()
        _, outcome = await front.end_of()
    assert outcome == "ok"


def _loop() -> asyncio.AbstractEventLoop:
    return asyncio.get_running_loop()


def _fail_at_once(*_: object) -> bytes:
    raise ZeroDivisionError


async def _fail(*_: object, **__: object) -> None:
    raise ZeroDivisionError


@contextlib.contextmanager
def _full_listener() -> Iterator[str]:
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            queued = stack.enter_context(socket.socket())
            queued.setblocking(False)
            queued.connect_ex(listener.getsockname())
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


class TestBugInTheLastWrite:
    """The finish may be out or not, so no frame may follow it; and the caller is not to blame."""

    @staticmethod
    def broken(*_: object) -> None:
        raise ZeroDivisionError

    @pytest.mark.parametrize("headers", [caller.SSE, {}], ids=["packets", "reply"])
    async def test_before_the_head_it_is_an_internal_error(
        self,
        simulator: StartSimulator,
        gateway_before: StartGateway,
        monkeypatch: pytest.MonkeyPatch,
        headers: dict[str, str],
    ) -> None:
        front = await gateway_before((await simulator(Script(text="one", deltas_per_write=100))).url)
        monkeypatch.setattr(sinks.PacketSink, "pass_on", self.broken)
        monkeypatch.setattr(sinks.ReplySink, "close", self.broken)
        assert (await caller.ask(front.url, INCREMENTAL, headers)).fault == INTERNAL
        record, outcome = await front.end_of()
        assert outcome == "internal_error"
        assert record.fault == faults.INTERNAL
        assert_nothing_is_left(front)

    async def test_after_it_the_stream_is_cut_and_the_record_says_why(
        self, simulator: StartSimulator, gateway_before: StartGateway, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        front = await gateway_before((await simulator(Script(text=WORDS))).url)
        pass_on = sinks.PacketSink.pass_on

        def broken_at_last(sink: sinks.PacketSink, frames: bytes) -> bool:
            if sink._pipe.is_over:
                self.broken()
            return pass_on(sink, frames)

        monkeypatch.setattr(sinks.PacketSink, "pass_on", broken_at_last)
        async with caller.dial(front.url) as line:
            line.send(caller.request(INCREMENTAL, caller.SSE))
            assert (await line.head()).status == 200
            with pytest.raises((asyncio.IncompleteReadError, ConnectionResetError)):
                await line.rest()
        assert (await front.end_of())[1] == "internal_error"
        assert_nothing_is_left(front)
