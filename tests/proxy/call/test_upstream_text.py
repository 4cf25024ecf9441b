"""Claims about upstream's own sentence in the log: there for who mends it, gone where it quotes the call (MET-4)."""

from __future__ import annotations

from typing import Any

import pytest
import structlog.testing

from proxy.call import upstream_text
from proxy.call.upstream_text import REPEATS
from proxy.simulation.wire import Script
from tests import caller, corpus
from tests.conftest import StartSimulator
from tests.proxy.conftest import StartGateway
from translators import faults
from translators.dialogue import Call, Message, Tool, ToolCall

SECRET = "My neighbour keeps eleven unregistered llamas."


def call(*messages: Message, **more: Any) -> Call:
    return Call(corpus.NEVER, messages, stream=False, **more)


def told(said: str, asked: Call | None) -> str | None:
    return upstream_text.for_log(faults.Refusal(faults.UPSTREAM_BROKEN, "upstream failed with 500", said), asked)


def user(text: str) -> Call:
    return call(Message("user", text))


def test_what_upstream_said_is_there_word_for_word() -> None:
    assert told("CUDA out of memory on rank 3", user(SECRET)) == "CUDA out of memory on rank 3"


def test_a_call_that_did_not_fail_or_an_upstream_that_said_nothing_has_none() -> None:
    assert upstream_text.for_log(None, user("hi")) is None
    assert told("", user("hi")) is None


def test_a_call_that_was_never_read_cannot_be_quoted() -> None:
    assert told("slow down", None) == "slow down"


QUOTING = {
    "whole": user(SECRET),
    "in part": user(f"Please judge. {SECRET} Is that allowed?"),
    "over several lines": user(SECRET.replace(" ", "\n  ")),
    "in other letters": user(SECRET.upper()),
    "a chain of thought": call(Message("assistant", "", reasoning=SECRET)),
    "arguments": call(Message("assistant", None, tool_calls=(ToolCall("1", "f", f'{{"a":"{SECRET}"}}'),))),
    "a tool": call(Message("user", "x"), tools=(Tool("f", {"name": "f", "description": SECRET}),)),
    "a stop": call(Message("user", "x"), stops=(SECRET,)),
}


@pytest.mark.parametrize("name", QUOTING)
def test_a_sentence_that_quotes_the_call_is_left_out(name: str) -> None:
    assert told(f"Unprocessable: '{SECRET}' is no list", QUOTING[name]) == REPEATS


@pytest.mark.parametrize("text", ["羊驼没有登记", "llamas"])
def test_a_short_prompt_is_found_too(text: str) -> None:
    assert told(f"bad value '{text}' in content", user(text)) == REPEATS


@pytest.mark.parametrize(("text", "quotes"), [("is", False), ("thi", False), ("this", True)])
def test_a_syllable_in_common_is_no_quotation(text: str, *, quotes: bool) -> None:
    assert told("this is busy", user(text)) == (REPEATS if quotes else "this is busy")


@pytest.mark.parametrize("at", range(4))
@pytest.mark.parametrize("size", [19, 20])
def test_a_text_little_longer_than_a_piece_is_found_wherever_it_stands(at: int, size: int) -> None:
    text = "0123456789abcdefghij"[:size]
    assert told("-" * at + text, user(text)) == REPEATS


def test_sixteen_bytes_in_common_are_a_quotation_and_fifteen_are_none() -> None:
    """At the end of a sentence, too; of a prompt that is longer."""
    fifteen = "0123456789abcde"
    assert told(f"----{fifteen}f", user(f"{'_' * 20}{fifteen}f")) == REPEATS
    assert told(f"----{fifteen}", user(f"{'_' * 20}{fifteen}")) == f"----{fifteen}"


def test_a_prompt_too_long_to_look_through_leaves_nothing() -> None:
    assert told("too long", user("x" * (upstream_text.MOST_BYTES + 1))) == REPEATS


@pytest.mark.parametrize("status", [400, 429, 500, 503])
async def test_the_log_of_a_failure_says_it(
    simulator: StartSimulator, gateway_before: StartGateway, status: int
) -> None:
    upstream = await simulator(Script(status=status, error_text="CUDA out of memory on rank 3 at http://10.0.0.7:8000"))
    front = await gateway_before(upstream.url)
    with structlog.testing.capture_logs() as lines:
        await caller.ask(front.url, caller.call())
        await front.end_of()
    (line,) = [line for line in lines if line["event"] == "call"]
    assert line["upstream_said"] == "CUDA out of memory on rank 3 at"


async def test_a_setting_leaves_it_out(simulator: StartSimulator, gateway_before: StartGateway) -> None:
    upstream = await simulator(Script(status=500, error_text="CUDA out of memory"))
    front = await gateway_before(upstream.url, log_upstream_text=False)
    with structlog.testing.capture_logs() as lines:
        await caller.ask(front.url, caller.call())
        await front.end_of()
    assert "CUDA" not in str(lines)


async def test_who_quotes_the_prompt_is_not_quoted(simulator: StartSimulator, gateway_before: StartGateway) -> None:
    upstream = await simulator(Script(status=500, error_text=f"template failed at '{SECRET}'"))
    front = await gateway_before(upstream.url)
    with structlog.testing.capture_logs() as lines:
        await caller.ask(front.url, caller.call(SECRET))
        await front.end_of()
    assert "llamas" not in str(lines)
    assert [line["upstream_said"] for line in lines if line["event"] == "call"] == [REPEATS]
