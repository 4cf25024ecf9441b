"""Claims about the one line of a call (spec MET-3, MET-4)."""

from __future__ import annotations

from typing import Any

import pytest
import structlog.testing

from proxy import passage, record
from proxy.simulator import Script
from tests import caller
from tests.conftest import StartSimulator
from tests.proxy.conftest import Running, StartGateway
from translators import faults


async def line_of(front: Running, number: int = 1) -> dict[str, Any]:
    """The line that a call of this gateway would get."""
    exchange, outcome = await front.end_of(number)
    with structlog.testing.capture_logs() as lines:
        record.to_log(exchange, outcome)
    (line,) = lines
    return dict(line)


async def test_it_says_what_the_caller_was_told(simulator: StartSimulator, gateway_before: StartGateway) -> None:
    """Spec MET-3: the usage of the record is that of the last packet."""
    front = await gateway_before((await simulator()).url)
    answer = await caller.stream(front.url, caller.call("PROMPT", incremental_output=True))
    line = await line_of(front)
    usage = caller.packets(answer.body)[-1]["usage"]
    assert (line["input_tokens"], line["output_tokens"]) == (usage["input_tokens"], usage["output_tokens"])
    assert line["request_id"] == answer.headers["x-request-id"]
    assert {"outcome": "ok", "model": "deepseek-v3", "stream": True, "basis": "upstream_final"}.items() <= line.items()
    assert line["attempts"] == ["200"]
    assert 0 < line["first_packet_ms"] <= line["duration_ms"]
    assert "PROMPT" not in str(line)
    assert caller.KEY not in str(line)


async def test_a_failure_says_which_and_why(simulator: StartSimulator, gateway_before: StartGateway) -> None:
    front = await gateway_before((await simulator(Script(status=429, retry_after="3"))).url)
    await caller.ask(front.url, caller.call())
    line = await line_of(front)
    assert (line["status"], line["code"]) == (429, "Throttling.RateQuota")
    assert line["cause"] == "upstream failed with 429"
    assert line["outcome"] == "failed"


async def test_a_call_that_was_not_let_in_has_no_more_to_say(gateway_before: StartGateway) -> None:
    front = await gateway_before("http://127.0.0.1:1")
    await caller.ask(front.url, caller.call(), {"Authorization": ""})
    assert not {"key", "model", "input_tokens", "attempts", "first_packet_ms"} & {*(await line_of(front))}


@pytest.mark.parametrize(
    ("fault", "level"),
    [
        (faults.NO_KEY, "info"),
        (faults.UPSTREAM_BROKEN, "warning"),
        (faults.UPSTREAM_KEY_REFUSED, "error"),
        (faults.INTERNAL, "error"),
    ],
)
async def test_who_can_mend_it_decides_how_loud_it_is(fault: faults.Fault, level: str) -> None:
    """Spec ERR: an upstream key of ours that is refused is loud in the log."""
    exchange = passage.Exchange("r", 0.0, refusal=faults.Refusal(fault, "cause"))
    with structlog.testing.capture_logs() as lines:
        record.to_log(exchange, "failed")
    assert lines[0]["log_level"] == level
