"""Claims about the record of a call: its one log line and its two journal lines (spec MET-1, MET-3, MET-4)."""

from __future__ import annotations

import asyncio
from datetime import UTC
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import orjson
import pytest
import structlog.testing

from config.values import Limit
from proxy.admission.limits import PERIODS_MS, Refused, Scope
from proxy.admission.memory_limiter import MemoryLimiter
from proxy.call import exchange as exchanges
from proxy.call import record, timeouts
from proxy.call.budgets import Budgets
from proxy.call.exchange import Books, Exchange, Times
from proxy.metering import journal, ledger
from proxy.metering.journal import Outcome
from proxy.simulation.wire import Script
from proxy.telemetry import log_writer, logs
from proxy.upstream.response import Result
from proxy.upstream.targets import Attempt
from tests import caller, corpus
from tests.conftest import StartSimulator
from tests.faults import chaos
from tests.proxy.conftest import LOG, StartGateway
from translators import dialogue, faults
from translators.answer import Account
from translators.usage import Figures, Spent, Upstream

THINKING = {"enable_thinking": True, "incremental_output": True}


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in path.read_bytes().splitlines()]


async def recorded(
    simulator: StartSimulator,
    gateway_before: StartGateway,
    path: Path,
    script: Script | None = None,
    **chosen: object,
) -> tuple[Any, Any]:
    """A gateway that keeps a journal, before an upstream."""
    upstream = await simulator(script)
    return upstream, await gateway_before(upstream.url, journal_file=str(path), **chosen)


def test_times_are_told_to_the_nearest_tenth_of_a_millisecond(monkeypatch: pytest.MonkeyPatch) -> None:
    """From a call's head; what has not happened has none."""
    monkeypatch.setattr(record, "monotonic", lambda: 705.25)
    named = {"sent_s": "upstream_sent", "first_packet_s": "first_packet", "last_packet_s": "last_packet"}
    for step, name in named.items():
        for happened_s, told_ms in ((605.00114, 600_001.1), (605.00116, 600_001.2), (None, None)):
            exchange: Any = SimpleNamespace(times=Times(5.0, **{step: happened_s}))
            assert record._times(exchange) == {**dict.fromkeys(named.values()), name: told_ms, "closed": 700_250.0}


SPEAKS, SILENT = (SimpleNamespace(meter=SimpleNamespace(output=output)) for output in (1, 0))
SENT = {"read_s": 5.001, "sent_s": 5.003}


@pytest.mark.parametrize(
    ("times", "stream", "choices", "told"),
    [
        ({}, None, None, "total;dur=250.0"),
        ({"read_s": 5.001}, None, None, "read;dur=1.0, total;dur=250.0"),
        (SENT, True, None, "read;dur=1.0, translate;dur=2.0, total;dur=250.0"),
        (SENT, True, (SILENT,), "read;dur=1.0, translate;dur=2.0, total;dur=250.0"),
        (SENT, None, (SPEAKS,), "read;dur=1.0, translate;dur=2.0, total;dur=250.0"),
        (SENT, False, (SPEAKS,), "read;dur=1.0, translate;dur=2.0, total;dur=250.0"),
        (
            SENT | {"answered_s": 5.103},
            True,
            (SILENT, SPEAKS),
            "read;dur=1.0, translate;dur=2.0, upstream;dur=100.0, first-token;dur=247.0, total;dur=250.0",
        ),
    ],
)
def test_the_head_of_an_answer_says_what_has_happened_by_then(
    monkeypatch: pytest.MonkeyPatch, times: dict[str, float], stream: bool | None, choices: Any, told: str
) -> None:
    """HTTP-7: `Server-Timing`, in milliseconds; a first token only where packets were asked for and there is one."""
    monkeypatch.setattr(exchanges, "monotonic", lambda: 5.25)
    call: Any = None if stream is None else SimpleNamespace(stream=stream)
    pipe: Any = None if choices is None else SimpleNamespace(answer=SimpleNamespace(choices=choices))
    assert Exchange("r", "dashscope", Times(5.0, **times), call=call, pipe=pipe).timing() == told


def test_who_keeps_a_record_is_told_how_long_reading_and_translating_took() -> None:
    """In seconds; what has not happened took no time that could be told."""
    for times, took in (
        (Times(1.0), (None, None)),
        (Times(1.0, read_s=1.5), (0.5, None)),
        (Times(1.0, read_s=1.5, sent_s=3.5), (0.5, 2.0)),
        # The tries of a call that was refused unread are none, and yet it may never be told what it took.
        (Times(1.0, sent_s=3.5), (None, None)),
    ):
        exchange = Exchange("r", "dashscope", times)
        written = record.close(exchange, record.End.DONE, journal.Journal(None, "continue"), says_upstream=False)
        assert (written.read_s, written.translate_s) == took
        assert (written.closing["bytes_out"], written.closing["packets"]) == (0, 0)


def test_a_call_that_goes_on_without_its_caller_says_so_and_is_told() -> None:
    """MET-5: what stops upstream otherwise asks it."""
    told: list[None] = []
    exchange = Exchange("r", "dashscope", Times(0.0))
    assert exchange.leave() is False
    exchange.abandon = lambda: told.append(None)
    assert exchange.leave() is True
    assert len(told) == 1


@pytest.mark.parametrize(
    ("fault", "cause", "tried", "said"),
    [
        (faults.MODEL_UNKNOWN, "", False, faults.MODEL_UNKNOWN.message),
        (faults.MODEL_UNKNOWN, "a rule: theirs", False, f"{faults.MODEL_UNKNOWN.message} (a rule)"),
        (faults.UNAVAILABLE, "", False, faults.UNAVAILABLE.message),
        (faults.UNAVAILABLE, "a rule: theirs", False, "a rule"),
        # Once upstream was asked, the sentence may be upstream's.
        (faults.MODEL_UNKNOWN, "", True, ""),
        (faults.MODEL_UNKNOWN, "upstream failed: theirs", True, "upstream failed"),
    ],
)
def test_a_cause_is_a_sentence_of_ours(fault: faults.Fault, cause: str, tried: bool, said: str) -> None:
    """MET-4."""
    attempts: Any = [None] if tried else []
    exchange = Exchange("r", "dashscope", Times(0.0), attempts=attempts, refusal=faults.Refusal(fault, cause))
    assert exchange.cause == said


@pytest.mark.parametrize("wait", [*timeouts.Timeout])
def test_what_a_wait_is_refused_with_is_its_own_fault_or_that_time_is_up(wait: timeouts.Timeout) -> None:
    """ERR-5: and the call remembers which one it was."""
    exchange = Exchange("r", "dashscope", Times(0.0))
    refusal = exchanges.refusal_of(timeouts.Expired(wait), exchange)
    own = {timeouts.BODY: faults.BODY_INVALID, timeouts.DRAIN: faults.UNAVAILABLE}
    assert (refusal.fault, refusal.cause) == (own.get(wait, faults.TIMED_OUT), f"{wait.value} fired")
    assert exchange.expired is wait


def test_what_nobody_foresaw_is_a_bug_of_ours_and_its_words_are_for_the_log() -> None:
    with structlog.testing.capture_logs() as lines:
        refusal = exchanges.refusal_of(ValueError("canary"), Exchange("r", "dashscope", Times(0.0)))
    assert (refusal.fault, refusal.cause) == (faults.INTERNAL, "a bug (ValueError)")
    assert [(line["event"], line["error"]) for line in lines] == [("bug", "ValueError")]


async def test_an_ok_call_was_delivered_what_was_generated(
    simulator: StartSimulator, gateway_before: StartGateway, tmp_path: Path
) -> None:
    """MET-3: `usage` is what the last packet said, and for `ok` that is what upstream said."""
    path = tmp_path / "calls.jsonl"
    _, front = await recorded(simulator, gateway_before, path)
    answer = await caller.stream(front.url, caller.call("PROMPT", "deepseek-v3.2", **THINKING))
    await front.end_of()
    opened, closed = lines_of(path)
    seen = caller.packets(answer.body)
    assert (opened["ev"], closed["ev"]) == ("open", "close")
    assert opened["call"] == closed["call"]
    assert closed["usage"] == closed["generated"] == seen[-1]["usage"]
    assert closed["packets"] == len(seen)
    assert closed["bytes_out"] == len(answer.body)
    assert closed["request_id"] == answer.headers["x-request-id"]
    assert {"outcome": "ok", "status": 200, "code": None, "basis": "upstream_final"}.items() <= closed.items()
    times = closed["t"]
    assert 0 <= times["upstream_sent"] <= times["first_packet"] <= times["last_packet"] <= times["closed"]
    assert "PROMPT" not in path.read_text()
    assert caller.KEY not in path.read_text()
    assert ledger.read([path], rules=ledger.RULES).violations == []


@pytest.mark.parametrize(
    ("script", "outcome", "status", "basis"),
    [
        (Script(status=429), "throttled", 429, "none"),
        (Script(status=400, error_text="Content Exists Risk"), "moderated_input", 400, "counted"),
        (Script(finish_reason="content_filter"), "moderated_output", 400, "upstream_final"),
        (Script(status=500), "upstream_error", 500, "none"),
        (Script(cut_after=4), "upstream_cut", 500, "counted"),
        (Script(error_event_after=3), "upstream_error", 500, "counted"),
        (Script(first_byte_delay_s=30), "timeout_first_token", 500, "counted"),
        (Script(stall_after=4), "timeout_idle", 500, "counted"),
    ],
    ids=lambda value: str(value) if not isinstance(value, Script) else "",
)
async def test_every_end_has_its_word(
    simulator: StartSimulator,
    gateway_before: StartGateway,
    tmp_path: Path,
    *,
    script: Script,
    outcome: str,
    status: int,
    basis: str,
) -> None:
    """MET-1: exactly one close, whatever happened, and its usage is that of the last packet."""
    path = tmp_path / "calls.jsonl"
    _, front = await recorded(simulator, gateway_before, path, script, first_token_timeout=0.3, idle_timeout=0.3)
    answer = await caller.stream(front.url, caller.call(incremental_output=True))
    await front.end_of()
    opened, closed = lines_of(path)
    assert (closed["outcome"], closed["status"], closed["basis"]) == (outcome, status, basis)
    packets = [packet for packet in caller.packets(answer.body) if "usage" in packet] if answer.status == 200 else []
    assert closed["usage"] == (packets[-1]["usage"] if packets else journal.NOTHING)
    assert opened["ev"] == "open"
    assert ledger.read([path], rules=ledger.RULES).violations == []


@pytest.mark.parametrize("events", [0, 3])
async def test_a_caller_who_leaves_is_billed_what_it_was_handed(
    simulator: StartSimulator, gateway_before: StartGateway, tmp_path: Path, events: int
) -> None:
    """MET-1, MET-3: before the first packet nothing, afterwards the last packet; beside it what was generated."""
    path = tmp_path / "calls.jsonl"
    script = Script(stall_after=2 + events) if events else Script(first_byte_delay_s=30)
    upstream, front = await recorded(simulator, gateway_before, path, script)
    async with caller.dial(front.url) as line:
        line.send(caller.request(caller.call(incremental_output=True), caller.SSE))
        await upstream.call()
        if events:
            await line.head()
            await line.piece()
        line.leave()
        await front.end_of()
    closed = lines_of(path)[-1]
    assert closed["outcome"] == ("client_gone_mid_stream" if events else "client_gone_before_first_packet")
    assert closed["status"] == 499
    assert (closed["usage"]["output_tokens"] > 0) == bool(events)
    assert closed["generated"]["input_tokens"] > 0
    assert closed["generated"]["output_tokens"] >= closed["usage"]["output_tokens"]


async def test_a_call_that_was_retried_is_one_record(
    simulator: StartSimulator, gateway_before: StartGateway, tmp_path: Path
) -> None:
    """I8, ERR-4: two attempts, one bill."""
    path = tmp_path / "calls.jsonl"
    upstream = await simulator()
    with chaos.closed_port() as dead:
        front = await gateway_before(dead, upstream.url, journal_file=str(path))
        answer = await caller.stream(front.url, caller.call(incremental_output=True))
        await front.end_of()
    _, closed = lines_of(path)
    assert [attempt["result"] for attempt in closed["attempts"]] == ["unreachable", "200"]
    assert closed["usage"] == closed["generated"] == caller.packets(answer.body)[-1]["usage"]


async def test_who_leaves_between_the_last_token_and_its_usage_is_billed_without_it(
    simulator: StartSimulator, gateway_before: StartGateway, tmp_path: Path
) -> None:
    """MET-3, row 5: all that was generated is counted by us, and nothing says so but us."""
    path = tmp_path / "calls.jsonl"
    # Role, two words, finish; its usage would be the next event.
    script = Script(text="one two", usage="own", stall_after=4)
    _, front = await recorded(simulator, gateway_before, path, script, usage_timeout=30)
    async with caller.dial(front.url) as line:
        line.send(caller.request(caller.call(incremental_output=True), caller.SSE))
        await line.head()
        await line.until(b'" two"')
        line.leave()
        await front.end_of()
    closed = lines_of(path)[-1]
    assert (closed["outcome"], closed["basis"]) == ("client_gone_mid_stream", "counted")
    assert closed["usage"] == closed["generated"]
    assert closed["usage"]["output_tokens"] == 2


async def test_an_answer_that_failed_before_its_text_was_generated_where_upstream_says_so(
    simulator: StartSimulator, gateway_before: StartGateway, tmp_path: Path
) -> None:
    """MET-3, USE-3: its usage comes behind its end, in the same read."""
    path = tmp_path / "calls.jsonl"
    wire = corpus.chunk({}, "insufficient_system_resource") + corpus.usage_chunk(corpus.figures(9, 3))
    script = Script(replay=wire, deltas_per_write=2)
    _, front = await recorded(simulator, gateway_before, path, script)
    await caller.stream(front.url, caller.call())
    await front.end_of()
    closed = lines_of(path)[-1]
    assert (closed["outcome"], closed["basis"]) == ("upstream_error", "upstream_final")
    assert (closed["generated"]["input_tokens"], closed["generated"]["output_tokens"]) == (9, 3)


async def test_a_folded_reply_that_fails_midway_was_generated_and_not_delivered(
    simulator: StartSimulator, gateway_before: StartGateway, tmp_path: Path
) -> None:
    """MET-3: a budget that we hold is held on a stream; of it the caller sees nothing, and upstream has worked."""
    path = tmp_path / "calls.jsonl"
    script = Script(reasoning="one two three four five", error_event_after=5)
    _, front = await recorded(simulator, gateway_before, path, script)
    answer = await caller.ask(front.url, caller.call(model="deepseek-r1", thinking_budget=1_000))
    await front.end_of()
    closed = lines_of(path)[-1]
    assert (answer.status, closed["outcome"], closed["basis"]) == (500, "upstream_error", "counted")
    assert (closed["usage"], closed["generated"]["output_tokens"]) == (journal.NOTHING, 4)


async def test_two_choices_are_one_record(
    simulator: StartSimulator, gateway_before: StartGateway, tmp_path: Path
) -> None:
    """I8, OUT-7, MET-3: the caller's prompt once, outputs summed; upstream has read it twice."""
    path = tmp_path / "calls.jsonl"
    _, front = await recorded(simulator, gateway_before, path)
    answer = await caller.stream(front.url, caller.call(n=2, incremental_output=True))
    await front.end_of()
    _, closed = lines_of(path)
    ends = [
        packet for packet in caller.packets(answer.body) if packet["output"]["choices"][0]["finish_reason"] != "null"
    ]
    assert closed["usage"]["output_tokens"] == sum(packet["usage"]["output_tokens"] for packet in ends)
    usage, generated, calls = closed["usage"], closed["generated"], closed["calls"]
    assert generated["output_tokens"] == usage["output_tokens"] == sum(one["completion"] for one in calls)
    assert generated["input_tokens"] == 2 * usage["input_tokens"] == sum(one["prompt"] for one in calls)
    assert [(one["basis"], one["end"]) for one in calls] == [("upstream_final", "stop")] * 2
    assert len(closed["attempts"]) == 2


async def test_a_call_over_a_limit_is_turned_away_with_one_line(
    simulator: StartSimulator, gateway_before: StartGateway, tmp_path: Path
) -> None:
    """LIM-1, I7: the upstream is untouched, nothing is used, the caller is told when to come back."""
    path = tmp_path / "calls.jsonl"
    upstream, front = await recorded(simulator, gateway_before, path, limits="rpm=1")
    assert (await caller.ask(front.url, caller.call())).status == 200
    answer = await caller.ask(front.url, caller.call())
    assert answer.status == 429
    assert orjson.loads(answer.body)["code"] == "Throttling.RateQuota"
    assert int(answer.headers["retry-after"]) >= 1
    await front.end_of(2)
    assert len(upstream.calls) == 1
    closed = lines_of(path)[-1]
    assert {"outcome": "throttled", "attempts": [], "usage": journal.NOTHING, "basis": "none"}.items() <= closed.items()
    assert ledger.read([path], rules=ledger.RULES).violations == []


async def test_what_was_reserved_and_not_used_is_given_back(
    simulator: StartSimulator, gateway_before: StartGateway
) -> None:
    """LIM-1: a minute's tokens are enough for many short calls, though not for many of the longest answers."""
    upstream = await simulator()
    front = await gateway_before(upstream.url, limits="tpm=20000")
    for _ in range(4):
        assert (await caller.ask(front.url, caller.call(max_tokens=12000))).status == 200


async def test_an_open_call_that_failed_gives_its_place_back(
    simulator: StartSimulator, gateway_before: StartGateway
) -> None:
    """LIM-1"""
    upstream = await simulator(Script(status=500))
    front = await gateway_before(upstream.url, limits="concurrency=1")
    for _ in range(3):
        assert (await caller.ask(front.url, caller.call())).status == 500


async def test_a_call_that_was_not_let_in_has_no_more_to_say(gateway_before: StartGateway, tmp_path: Path) -> None:
    """Nobody fills the disk with calls that have no key."""
    path = tmp_path / "calls.jsonl"
    front = await gateway_before("http://127.0.0.1:1", journal_file=str(path))
    with structlog.testing.capture_logs() as lines:
        await caller.ask(front.url, caller.call(), {"Authorization": ""})
        await front.end_of()
    (line,) = [line for line in lines if line["event"] == "call"]
    assert (line["outcome"], line["key_id"]) == ("rejected", None)
    assert path.read_bytes() == b""


@pytest.mark.parametrize(
    ("body", "headers", "cause", "model"),
    [
        (caller.call(model="qwen-flash"), {}, "Model not exist.", "qwen-flash"),
        (caller.call(model="a\n\u4f60" + "b" * 100), {}, "Model not exist.", "a\\x0a\\u4f60" + "b" * 61),
        (caller.call(top_p=2), {}, "InvalidParameter: Range of top_p", "deepseek-v3"),
        (caller.call(), {"Authorization": "Basic c2stY2FuYXJ5"}, "No API-key provided.", None),
        (caller.call(), {"Authorization": "sk-canary"}, "Invalid API-key provided. (the key stands in", None),
        (b"[]", {}, "Required body invalid, please check the request body format. (not an object)", None),
        (b'{"canary', {}, "Required body invalid, please check the request body format. (", None),
        (
            caller.call(),
            {"x-api-key": "sk-a\r\nx-api-key: sk-b"},
            "Invalid API-key provided. (a key header came twice)",
            None,
        ),
    ],
)
async def test_the_line_of_a_refusal_says_our_own_sentence_and_the_model_that_was_asked_for(
    gateway_before: StartGateway, body: caller.Json | bytes, headers: dict[str, str], cause: str, model: str | None
) -> None:
    front = await gateway_before("http://127.0.0.1:1")
    with structlog.testing.capture_logs() as lines:
        await caller.ask(front.url, body, headers)
        await front.end_of()
    (line,) = [line for line in lines if line["event"] == "call"]
    assert cause in line["cause"]
    assert (line["api"], line["asked_model"]) == ("dashscope", model)
    assert "canary" not in str(line)


async def test_the_line_of_a_refusal_says_which_tongue_it_was_told_in(gateway_before: StartGateway) -> None:
    """COM-31: also where the call was refused before there was any other line of it."""
    front = await gateway_before("http://127.0.0.1:1")
    with structlog.testing.capture_logs() as lines:
        await caller.ask(front.url, {"model": "deepseek-r1-distill-qwen-7b"}, path="/v1/chat/completions")
        await front.end_of()
    (line,) = [line for line in lines if line["event"] == "call"]
    assert (line["api"], line["code"]) == ("openai", "ModelNotFound")
    # As on the native surface (MOD-2).
    assert "distilled" in line["cause"]


async def test_the_cause_is_our_own_sentence_and_upstreams_is_in_no_journal(
    simulator: StartSimulator, gateway_before: StartGateway, tmp_path: Path
) -> None:
    """It may repeat the prompt (MET-4): what of it the log says is looked at in `upstream_text`."""
    path = tmp_path / "calls.jsonl"
    said = Script(status=400, error_text="Invalid max_tokens canary")
    front = await gateway_before((await simulator(said)).url, journal_file=str(path))
    with structlog.testing.capture_logs() as lines:
        assert (await caller.ask(front.url, caller.call())).status == 400
        await front.end_of()
    assert [line["cause"] for line in lines if line["event"] == "call"] == ["upstream failed with 400"]
    assert "canary" not in path.read_text()


@pytest.mark.parametrize(
    ("fault", "level"),
    [
        (faults.MODEL_UNKNOWN, "info"),
        (faults.UPSTREAM_BROKEN, "warning"),
        (faults.UPSTREAM_KEY_REFUSED, "error"),
        (faults.INTERNAL, "error"),
    ],
)
async def test_who_can_mend_it_decides_how_loud_it_is(fault: faults.Fault, level: str) -> None:
    """Spec ERR: an upstream key of ours that is refused is loud in the log."""
    exchange = Exchange("r", "dashscope", Times(0.0), refusal=faults.Refusal(fault, "a cause: and words of upstream's"))
    with structlog.testing.capture_logs() as lines:
        record.close(exchange, record.End.DONE, journal.Journal(None, "continue"), says_upstream=True)
    assert lines[0]["log_level"] == level
    sentence = f"{fault.message} (a cause)" if fault.blame == "caller" else "a cause"
    assert lines[0]["cause"] == sentence


@pytest.mark.parametrize("wait", [*timeouts.Timeout])
def test_every_wait_that_can_expire_has_a_word(wait: timeouts.Timeout) -> None:
    """MET-1: `timeout_<name>`."""
    exchange = Exchange("r", "dashscope", Times(0.0), expired=wait)
    assert record.outcome_of(exchange, None, record.End.DONE) is timeouts.EXPIRIES[wait].outcome


USED = dialogue.Usage(30, 12)


def account(packets: int, generated: dialogue.Usage = USED, *spent: tuple[int, int]) -> Account:
    """What a call has come to: its packets, what was generated, and of each upstream call prompt and completion."""
    calls = (Spent(leg, *said[:1], None, said[1], None, "counted", (None,)) for leg, said in enumerate(spent))
    return Account(packets, USED if packets else None, generated, "counted", 2, ("stop",), tuple(calls))


@pytest.mark.parametrize(
    ("end", "packets", "outcome"),
    [
        (record.BUG, 1, Outcome.INTERNAL_ERROR),
        (record.STALLED, 1, Outcome.CLIENT_STALLED),
        (record.LEFT, None, Outcome.CLIENT_GONE_BEFORE_FIRST_PACKET),
        (record.LEFT, 0, Outcome.CLIENT_GONE_BEFORE_FIRST_PACKET),
        (record.LEFT, 1, Outcome.CLIENT_GONE_MID_STREAM),
        (record.DONE, 1, Outcome.OK),
    ],
)
def test_how_the_handler_saw_it_end_has_its_word(end: record.End, packets: int | None, outcome: Outcome) -> None:
    """MET-1"""
    exchange = Exchange("r", "dashscope", Times(0.0))
    assert record.outcome_of(exchange, None if packets is None else account(packets), end) is outcome


SLOW, BROKE, CAME = (Attempt("t", result=result) for result in (Result.SLOW, Result.BROKEN, Result.ANSWERED))


@pytest.mark.parametrize(
    ("fault", "cause", "attempts", "limited", "outcome"),
    [
        (faults.INPUT_MODERATED, "", [CAME], False, Outcome.MODERATED_INPUT),
        (faults.OUTPUT_MODERATED, "", [CAME], False, Outcome.MODERATED_OUTPUT),
        (faults.RATE_LIMITED, "", [], False, Outcome.THROTTLED),
        (faults.OVERLOADED, "", [], True, Outcome.THROTTLED),
        (faults.OVERLOADED, "", [], False, Outcome.REJECTED),
        (faults.INTERNAL, "", [CAME], False, Outcome.INTERNAL_ERROR),
        (faults.INTERNAL, "", [], False, Outcome.INTERNAL_ERROR),
        (faults.MODEL_UNKNOWN, "", [], False, Outcome.REJECTED),
        (faults.TIMED_OUT, "", [BROKE, SLOW], False, Outcome.TIMEOUT_CONNECT),
        (faults.UPSTREAM_BROKEN, "upstream failed with 500", [SLOW, CAME], False, Outcome.UPSTREAM_ERROR),
        (faults.UPSTREAM_BROKEN, faults.CUT, [CAME], False, Outcome.UPSTREAM_CUT),
    ],
)
def test_why_it_failed_has_its_word(
    fault: faults.Fault, cause: str, attempts: list[Attempt], limited: bool, outcome: Outcome
) -> None:
    """MET-1"""
    refusal = faults.Refusal(fault, cause)
    exchange = Exchange("r", "dashscope", Times(0.0), attempts=attempts, limited=limited, refusal=refusal)
    assert record.outcome_of(exchange, None, record.DONE) is outcome


@pytest.mark.parametrize(
    ("attempts", "generated", "spent", "basis", "calls"),
    [
        ([CAME], 0, [(30, 0)], "none", 0),
        ([CAME], 0, [(30, 0), (30, 0)], "none", 0),
        ([CAME], 12, [(30, 0)], "counted", 1),
        ([CAME], 0, [(30, 12)], "counted", 1),
        ([CAME], 0, [(30, 0), (30, 12)], "counted", 2),
        # Nobody was asked.
        ([], 12, [(30, 12)], "none", 0),
    ],
)
def test_of_a_call_that_failed_only_what_was_generated_is_to_be_billed(
    attempts: list[Attempt], generated: int, spent: list[tuple[int, int]], basis: str, calls: int
) -> None:
    """MET-3: upstream did no work, or said that it did none."""
    made = account(0, dialogue.Usage(30, generated), *spent)
    pipe: Any = SimpleNamespace(account=lambda: made)
    refusal = faults.Refusal(faults.UPSTREAM_BROKEN, "upstream failed with 500")
    exchange = Exchange("r", "dashscope", Times(0.0), attempts=attempts, refusal=refusal, pipe=pipe)
    closing = record.close(exchange, record.DONE, journal.Journal(None, "continue"), says_upstream=True).closing
    assert (closing["basis"], len(closing["calls"])) == (basis, calls)


async def test_the_record_of_a_call_says_what_was_known_of_it_and_closes_its_books() -> None:
    """MET-1, LIM-1: what was used stays taken from its limits, and counts in its budgets."""
    limiter = MemoryLimiter(lambda: 0)
    scopes, model = [Scope("all", Limit(tpm=1_000, tpd=1_000))], dialogue.Model("m", "never", 200, 100, 0, 50, "v3")
    reservation = await limiter.reserve(scopes, 500)
    assert not isinstance(reservation, Refused)
    opening: Any = {"at": "2026-11-22T10:00:00.000Z", "request_id": "r", "key_id": "k", "model": "m"}
    told, made = list[object](), account(1, USED, (30, 12))
    trace: Any = SimpleNamespace(id="4bf9", end=told.append)
    pipe: Any = SimpleNamespace(account=lambda: made)
    asked: Any = SimpleNamespace(model=model, stream=True)
    caller_: Any = SimpleNamespace(fingerprint="k")
    used, unused = Upstream(0, 1, 0, None), Upstream(0, 1, 0, None)
    used.figures = Figures(30, 12, 4, 3)
    first = Attempt("http://10.0.0.1", "p", "dns+http://a", False, used=unused, status=503)
    second = Attempt("http://10.0.0.2", "p", "dns+http://a", True, used=used, status=200, result=Result.ANSWERED)
    budgets = Budgets(UTC, None)
    exchange = Exchange(
        "r",
        "dashscope",
        Times(0.0),
        pipe=pipe,
        call=asked,
        caller=caller_,
        attempts=[first, Attempt("http://b"), second],
    )
    exchange.books = Books(opening, reservation=reservation, budgets=budgets, trace=trace)
    with structlog.testing.capture_logs() as lines:
        written = record.close(exchange, record.DONE, journal.Journal(None, "continue"), says_upstream=True)
    assert told == [written]
    assert (written.key_id, written.model, written.stream, written.finish_reasons) == ("k", "m", True, ("stop",))
    assert (written.trace_id, written.fault, written.cause, written.upstream_said) == ("4bf9", None, None, None)
    place = ("p", "dns+http://a")
    assert written.tries == [(*place, False), ("", "http://b", False), (*place, True)]
    figures = {"prompt": 30, "cached": 3, "completion": 12, "reasoning": 4}
    assert [attempt.get("used", "") for attempt in written.closing["attempts"]] == [None, "", figures]
    assert limiter._buckets["all:tpm"].level == 42 * PERIODS_MS["tpm"]
    assert budgets._spent["all", "2026-11-22"].tokens == 42
    (line,) = lines
    assert (line["request_id"], line["trace_id"], line["usage"]["total_tokens"]) == ("r", "4bf9", 42)
    assert not {"at", "upstream_said"} & {*line}


@pytest.mark.parametrize("traced", [None, "4bf9"])
def test_the_line_of_a_call_that_is_traced_names_its_trace(
    capfd: pytest.CaptureFixture[str], traced: str | None
) -> None:
    opening: Any = {"at": "2026-11-22T10:00:00.000Z", "request_id": "r", "model": "m"}
    trace: Any = None if traced is None else SimpleNamespace(id=traced, end=lambda _: None)
    exchange = Exchange("r", "dashscope", Times(0.0), books=Books(opening, trace=trace))
    logs.configure(LOG, log_writer.Unthreaded(2))
    record.close(exchange, record.DONE, journal.Journal(None, "continue"), says_upstream=True)
    said = orjson.loads(capfd.readouterr().err)
    assert (said["request_id"], said["outcome"], said.get("trace_id")) == ("r", "ok", traced)


@pytest.mark.parametrize(
    ("spent", "told"),
    [
        ([(30, None, 12, None)], (30, 12, None, None)),
        ([(30, 3, 12, 4)], (30, 12, 4, 3)),
        ([(30, None, 12, None), (20, None, 5, None)], (50, 17, None, None)),
        ([(30, 3, 12, 4), (20, None, 5, None), (10, 2, 1, 1)], (60, 18, 5, 5)),
    ],
)
def test_what_all_upstream_calls_have_used_is_their_sum(
    spent: list[tuple[int, int | None, int, int | None]], told: tuple[int | None, ...]
) -> None:
    """MET-3: of what some did not tell the others' is said."""
    calls = [Spent(leg, *said, "counted", ("stop",)) for leg, said in enumerate(spent)]
    assert record._sum(calls)[:4] == told


@pytest.mark.parametrize(("says", "said"), [(True, "no room"), (False, None)])
def test_upstreams_words_are_for_the_log_where_the_operator_wants_them(says: bool, said: str | None) -> None:
    """MET-4; and a call without them has no such field."""
    refusal = faults.Refusal(faults.UPSTREAM_BROKEN, "upstream failed with 500", "no room")
    with structlog.testing.capture_logs() as lines:
        written = record.close(
            Exchange("r", "dashscope", Times(0.0), refusal=refusal),
            record.DONE,
            journal.Journal(None, "continue"),
            says_upstream=says,
        )
    assert written.upstream_said == lines[0].get("upstream_said") == said
    assert (written.stream, written.finish_reasons, written.key_id, written.model) == (False, (), None, None)
    assert ("trace_id" in lines[0], "upstream_said" in lines[0]) == (False, says)


@pytest.mark.parametrize(("end", "level"), [(record.LEFT, "info"), (record.STALLED, "info"), (record.DONE, "error")])
def test_a_failure_of_which_nobody_was_told_is_not_loud(end: record.End, level: str) -> None:
    exchange = Exchange("r", "dashscope", Times(0.0), refusal=faults.Refusal(faults.INTERNAL, "a bug"))
    with structlog.testing.capture_logs() as lines:
        record.close(exchange, end, journal.Journal(None, "continue"), says_upstream=True)
    assert [line["log_level"] for line in lines] == [level]


async def test_who_reads_slowly_and_leaves_is_billed_for_all_that_it_has_read(
    simulator: StartSimulator, gateway_before: StartGateway, tmp_path: Path
) -> None:
    """MET-3: frames that found no room at once are handed over when the kernel has taken them."""
    path = tmp_path / "calls.jsonl"
    script = Script(text="word " * 1_500, deltas_per_write=1_000, stall_after=1_400)
    _, front = await recorded(simulator, gateway_before, path, script)
    async with caller.dial(front.url, receive_bytes=4096) as line:
        line.send(caller.request(caller.call(incremental_output=True), caller.SSE))
        await line.head()
        line.stall()
        await asyncio.sleep(0.1)
        line.go_on()
        body = await line.until(b"\nid:1390\n")
        await asyncio.sleep(0.1)
        line.leave()
        await front.end_of()
    closed = lines_of(path)[-1]
    assert closed["usage"]["output_tokens"] >= caller.packets(body)[-1]["usage"]["output_tokens"]
