"""Rows: which there are, which are chosen, what they ask for, and in what mode of a stream they judge it."""

from __future__ import annotations

from typing import Final

import orjson
import pytest

from proxy.protocol import asks, conformance
from proxy.protocol.conformance import Check, Verdict
from proxy.protocol.judgements import Came
from tests.proxy.protocol.judged import HYBRID, PLAIN, UNKNOWN
from translators.dialogue import Json

SSE: Final = {"content-type": "text/event-stream"}
WEATHER: Final = {"name": "f", "arguments": "{}"}
CALL: Final = {"id": "c", "type": "function", "index": 0, "function": WEATHER}


def rows(target: asks.Target = PLAIN) -> dict[str, Check]:
    return {row.name: row for row in conformance.checks(target)}


def stream(*messages: Json, finish: str = "stop") -> Came:
    """A stream of messages, the last of which ends it."""
    frames = []
    for number, message in enumerate(messages, 1):
        said = {"role": "assistant", "content": "", **message}
        reason = finish if number == len(messages) else "null"
        packet = {
            "output": {"choices": [{"message": said, "index": 0, "finish_reason": reason}]},
            "usage": {"input_tokens": 5, "output_tokens": 2, "total_tokens": 7},
            "request_id": asks.KEPT_ID,
        }
        frames.append(b"id:%d\nevent:result\n:HTTP_STATUS/200\ndata:%b\n\n" % (number, orjson.dumps(packet)))
    return Came(200, SSE, tuple(frames))


# For each check whose rule depends on how a stream was asked for: one that keeps it, and one that breaks it. What keeps
# the rule in one mode breaks it in the other, or the other way round.
MODES: Final[dict[str, tuple[asks.Target, Came, Came]]] = {
    "no-empty-packets": (PLAIN, stream({"content": "a"}, {}), stream({"content": "a"}, {}, {})),
    "cumulative-whole": (
        PLAIN,
        stream({"content": "a"}, {"content": "ab"}),
        stream({"content": "a"}, {"content": "b"}),
    ),
    "tool-stream": (
        PLAIN,
        stream({"tool_calls": [CALL]}, {}, finish="tool_calls"),
        stream({"tool_calls": [CALL, {**CALL, "index": 1}]}, finish="tool_calls"),
    ),
    "tool-cumulative": (
        PLAIN,
        stream({"tool_calls": [CALL, {**CALL, "index": 1}]}, finish="tool_calls"),
        stream({"tool_calls": [CALL]}, {"tool_calls": [CALL]}, finish="tool_calls"),
    ),
    "thinking-order": (
        HYBRID,
        stream({"reasoning_content": "h"}, {"content": "a"}),
        stream({"reasoning_content": "h", "content": "a"}, {"reasoning_content": "h"}),
    ),
}


@pytest.mark.parametrize("name", MODES)
def test_a_stream_is_judged_as_it_was_asked_for(name: str) -> None:
    """SSE-5, SSE-6, SSE-7, SSE-10."""
    target, kept, broken = MODES[name]
    check = rows(target)[name]
    assert conformance.judge(check, [kept], target).verdict is Verdict.PASSED
    assert conformance.judge(check, [broken], target).evidence.startswith(f"{check.rule} ")


def test_figures_in_a_refusal_are_held_to_where_the_model_is_known() -> None:
    """PAR-5: another model has another limit, and the same words around it."""
    name = "PAR-5-refuses-1-text"
    due = "<400> InternalError.Algo.InvalidParameter: Range of max_tokens should be [1, 9]"
    said = [Came(200), Came(400, pieces=(orjson.dumps({"code": "InvalidParameter", "message": due}),))]
    assert conformance.judge(rows(UNKNOWN)[name], said, UNKNOWN).verdict is Verdict.PASSED
    assert conformance.judge(rows(PLAIN)[name], said, PLAIN).verdict is Verdict.FAILED


@pytest.mark.parametrize(
    ("only", "kept"),
    [
        ((), ["endpoint", "usage-exact", "length", "PAR-1-takes-1"]),
        (("answers",), ["length"]),
        (("OUT-8", "endpoint"), ["endpoint", "length"]),
        (("parameters",), ["PAR-1-takes-1"]),
    ],
)
def test_rows_are_chosen_by_group_by_rule_and_by_name(only: tuple[str, ...], kept: list[str]) -> None:
    some = [rows()[name] for name in ("endpoint", "usage-exact", "length", "PAR-1-takes-1")]
    assert [row.name for row in conformance.selected(some, only)] == kept


def test_a_word_that_means_no_row_is_named() -> None:
    with pytest.raises(KeyError, match="nothing"):
        conformance.selected(conformance.checks(PLAIN), ["endpoint", "nothing"])


def test_a_request_that_several_rows_share_is_made_once_and_in_their_order() -> None:
    some = [rows()[name] for name in ("frame", "keep-alive", "usage-exact", "usage-reply")]
    assert list(conformance.asked(some)) == ["text", "cumulative", "tool stream", "alive 1", "alive 2", "reply"]


def test_names_that_differ_by_a_number_are_one_from_the_least_to_the_greatest() -> None:
    names = ["PAR-1-takes-9", "PAR-1-takes-10", "PAR-1-takes-2", "stop", "PAR-1-refuses-1", "PAR-1-refuses-1-text"]
    assert [*conformance._run_together(names)] == [
        *("PAR-1-takes-2…10", "stop", "PAR-1-refuses-1", "PAR-1-refuses-1-text")
    ]


def test_what_holds_a_rule_is_listed_for_every_model_route_and_tongue() -> None:
    held = conformance.by_rule()
    assert held["HTTP-2"] == ("route-model",)
    assert held["COM-18"] == ("pieces", "reasoning")
    assert held["PAR-10"] == ("PAR-10-takes-1…2", "PAR-10-refuses-1…2", "PAR-10-refuses-1…2-text")
