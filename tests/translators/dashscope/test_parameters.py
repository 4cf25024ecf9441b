"""Every parameter within its bounds fills its field, and beyond them is refused in the service's words (spec PAR-*)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from translators import faults
from translators.dashscope import parameters, rules
from translators.dialogue import Call, Message, Model, ResponseFormat, Tool

V3 = Model("deepseek-v3", "never", 65_536, 57_344, 0, 8_192, "v3")
TOOL = {"type": "function", "function": {"name": "weather"}}


def decode(ids: Sequence[int]) -> bytes:
    return "".join(map(chr, ids)).encode()


def case(given: dict[str, Any], model: Model = V3) -> rules.Case:
    return rules.Case(model, (Message("user", "As JSON, please."),), given, False, None, decode)


def fault_of(given: dict[str, Any]) -> faults.Fault:
    with pytest.raises(faults.Refusal) as refusal:
        parameters.check(case(given))
    return refusal.value.fault


@pytest.mark.parametrize(
    ("source", "given", "filled"),
    [
        ("PAR-1", {"temperature": 0}, {"temperature": 0.0}),
        ("PAR-1", {"temperature": 1.99}, {"temperature": 1.99}),
        ("PAR-1", {"temperature": "0.5"}, {"temperature": 0.5}),
        ("PAR-2", {"top_p": 0.01}, {"top_p": 0.01}),
        ("PAR-2", {"top_p": 1}, {"top_p": 1.0}),
        ("PAR-3", {"top_k": 0}, {"top_k": None}),
        ("PAR-3", {"top_k": 1}, {"top_k": 1}),
        ("PAR-3", {"top_k": 100}, {"top_k": 100}),
        ("PAR-3", {"top_k": 101}, {"top_k": None}),
        ("PAR-4", {"seed": 0}, {"seed": 0}),
        ("PAR-4", {"seed": 2**63 - 1}, {"seed": 2**63 - 1}),
        ("PAR-4", {"seed": "1234"}, {"seed": 1234}),
        ("PAR-5", {"max_tokens": 1}, {"max_tokens": 1}),
        ("PAR-5", {"max_tokens": 8_192}, {"max_tokens": 8_192}),
        ("PAR-5", {"max_tokens": 20.0}, {"max_tokens": 20}),
        ("PAR-5", {"max_length": 5}, {"max_tokens": 5}),
        ("PAR-5", {"max_completion_tokens": 5}, {"max_tokens": 5}),
        ("PAR-5", {"max_length": 7, "max_completion_tokens": 6, "max_tokens": 5}, {"max_tokens": 5}),
        ("PAR-5", {"max_length": 7, "max_completion_tokens": 6, "max_tokens": None}, {"max_tokens": 6}),
        ("PAR-5", {"max_length": "many", "max_tokens": 5}, {"max_tokens": 5}),
        ("PAR-6", {"repetition_penalty": 0.01}, {"repetition_penalty": 0.01}),
        ("PAR-7", {"presence_penalty": -2}, {"presence_penalty": -2.0}),
        ("PAR-7", {"presence_penalty": 2}, {"presence_penalty": 2.0}),
        ("PAR-7", {"frequency_penalty": -2}, {"frequency_penalty": -2.0}),
        ("PAR-7", {"frequency_penalty": 2}, {"frequency_penalty": 2.0}),
        ("PAR-8", {"n": 1}, {"n": 1}),
        ("PAR-8", {"n": 4}, {"n": 4}),
        ("PAR-8", {"n": 1, "tools": [TOOL]}, {"n": 1, "tools": (Tool("weather", {"name": "weather"}),)}),
        ("PAR-8", {"n": 2, "tools": []}, {"n": 2, "tools": ()}),
        ("PAR-9", {"stop": "a"}, {"stops": ("a",)}),
        ("PAR-10", {"logprobs": True}, {"logprobs": True}),
        ("PAR-10", {"logprobs": True, "top_logprobs": 0}, {"logprobs": True, "top_logprobs": 0}),
        ("PAR-10", {"logprobs": True, "top_logprobs": 5}, {"logprobs": True, "top_logprobs": 5}),
        ("PAR-10", {"logprobs": False, "top_logprobs": 5}, {"logprobs": False, "top_logprobs": None}),
        ("PAR-10", {"top_logprobs": 5}, {"top_logprobs": None}),
        ("PAR-11", {"response_format": {"type": "json_object"}}, {"response_format": ResponseFormat("json_object")}),
        ("PAR-12", {"result_format": "message"}, {}),
        ("PAR-12", {"result_format": "text"}, {}),
        ("PAR-12", {"result_format": "text", "tools": []}, {"tools": ()}),
        ("PAR-13", {"incremental_output": True}, {"incremental": True}),
        ("PAR-13", {"incremental_output": False}, {"incremental": False}),
        ("PAR-14", {"enable_thinking": True}, {}),
        ("PAR-15", {"thinking_budget": 10**9}, {"thinking_budget": None}),
        ("PAR-17", {"tool_choice": "none"}, {"tool_choice": "none"}),
        ("PAR-18", {"parallel_tool_calls": True}, {"parallel_tool_calls": True}),
        ("PAR-19", {"enable_search": False}, {}),
        ("HTTP-8", dict.fromkeys(parameters.DROPPED, object()), {}),
        ("HTTP-8", {row.theirs: None for row in parameters.ROWS}, {}),
        ("HTTP-8", {}, {}),
    ],
)
def test_what_is_within_bounds_fills_the_call(source: str, given: dict[str, Any], filled: dict[str, Any]) -> None:
    assert parameters.check(case(given)) == {"thinking": False} | filled


@pytest.mark.parametrize(
    ("source", "given", "text"),
    [
        ("PAR-1", {"temperature": -0.1}, "Temperature should be in [0.0, 2.0)"),
        ("PAR-1", {"temperature": 2}, "Temperature should be in [0.0, 2.0)"),
        (
            "PAR-1",
            {"temperature": "a"},
            "Input should be a valid number, unable to parse string as a number: parameters.temperature",
        ),
        ("PAR-1", {"temperature": True}, "Input should be a valid number: parameters.temperature"),
        ("PAR-2", {"top_p": 0}, "Range of top_p should be (0.0, 1.0]"),
        ("PAR-2", {"top_p": 1.01}, "Range of top_p should be (0.0, 1.0]"),
        ("PAR-3", {"top_k": -1}, "Parameter top_k be greater than or equal to 0"),
        (
            "PAR-3",
            {"top_k": 1.5},
            "Input should be a valid integer, got a number with a fractional part: parameters.top_k",
        ),
        ("PAR-4", {"seed": -1}, "Range of seed should be [0, 9223372036854775807]"),
        ("PAR-4", {"seed": 2**63}, "Range of seed should be [0, 9223372036854775807]"),
        ("PAR-4", {"seed": 1e30}, "Range of seed should be [0, 9223372036854775807]"),
        (
            "PAR-4",
            {"seed": "a"},
            "Input should be a valid integer, unable to parse string as an integer: parameters.seed",
        ),
        ("PAR-5", {"max_tokens": 0}, "Range of max_tokens should be [1, 8192]"),
        ("PAR-5", {"max_tokens": 8_193}, "Range of max_tokens should be [1, 8192]"),
        ("PAR-5", {"max_length": 0}, "Range of max_tokens should be [1, 8192]"),
        (
            "PAR-5",
            {"max_length": "a"},
            "Input should be a valid integer, unable to parse string as an integer: parameters.max_length",
        ),
        ("PAR-6", {"repetition_penalty": 0}, "Repetition_penalty should be greater than 0.0"),
        ("PAR-7", {"presence_penalty": -2.1}, "Presence_penalty should be in [-2.0, 2.0]"),
        ("PAR-7", {"presence_penalty": 2.1}, "Presence_penalty should be in [-2.0, 2.0]"),
        ("PAR-7", {"frequency_penalty": -2.1}, "Frequency_penalty should be in [-2.0, 2.0]"),
        ("PAR-7", {"frequency_penalty": 2.1}, "Frequency_penalty should be in [-2.0, 2.0]"),
        ("PAR-8", {"n": 0}, "Range of n should be [1, 4]"),
        ("PAR-8", {"n": 5}, "Range of n should be [1, 4]"),
        ("PAR-8", {"n": 2, "tools": [TOOL]}, "The n parameter must be 1 when tools is given"),
        ("PAR-10", {"logprobs": 1}, "Input should be a valid boolean, unable to interpret input: parameters.logprobs"),
        ("PAR-10", {"top_logprobs": -1}, "Range of top_logprobs should be [0, 5]"),
        ("PAR-10", {"top_logprobs": 6}, "Range of top_logprobs should be [0, 5]"),
        ("PAR-12", {"result_format": "json"}, 'result_format should be "message" or "text"'),
        ("PAR-12", {"result_format": 1}, "Input should be a valid string: parameters.result_format"),
        (
            "PAR-12",
            {"result_format": "text", "tools": [TOOL]},
            'The result_format parameter must be "message" when tools is given',
        ),
        (
            "PAR-13",
            {"incremental_output": "true"},
            "Input should be a valid boolean, unable to interpret input: parameters.incremental_output",
        ),
        ("PAR-13", {"incremental_output": []}, "Input should be a valid boolean: parameters.incremental_output"),
        (
            "PAR-14",
            {"enable_thinking": "yes"},
            "Input should be a valid boolean, unable to interpret input: parameters.enable_thinking",
        ),
        (
            "PAR-15",
            {"thinking_budget": "a"},
            "Input should be a valid integer, unable to parse string as an integer: parameters.thinking_budget",
        ),
        ("PAR-16", {"tools": {}}, "Input should be a valid list: parameters.tools"),
        (
            "PAR-17",
            {"tool_choice": "weather", "tools": [TOOL]},
            'tool_choice is one of the strings that should be ["none", "auto"]',
        ),
        ("PAR-18", {"parallel_tool_calls": {}}, "Input should be a valid boolean: parameters.parallel_tool_calls"),
        ("PAR-19", {"enable_search": True}, "This model does not support enable_search."),
    ],
)
def test_what_is_out_of_bounds_is_refused(source: str, given: dict[str, Any], text: str) -> None:
    fault = fault_of(given)
    assert (fault.status, fault.code) == (400, "InvalidParameter")
    assert fault.message == "<400> InternalError.Algo.InvalidParameter: " + text


def test_the_first_fault_in_the_order_of_the_spec_is_the_answer() -> None:
    """spec "Parameters": the order of the rows, not of the caller's JSON."""
    # One fault a row, and a caller who says them backwards: mending one after the other shows the rows in order.
    wrong: dict[str, Any] = {
        "enable_search": True,
        "tool_stream": [],
        "parallel_tool_calls": [],
        "tool_choice": 7,
        "tools": 7,
        "thinking_budget": [],
        "enable_thinking": [],
        "incremental_output": [],
        "result_format": "pdf",
        "response_format": 7,
        "top_logprobs": 6,
        "logprobs": [],
        "stop": 7,
        "n": 9,
        "frequency_penalty": 9,
        "presence_penalty": 9,
        "repetition_penalty": 0,
        "max_tokens": 0,
        "seed": -1,
        "top_k": -1,
        "top_p": 9,
        "temperature": 9,
    }
    assert [row.theirs for row in parameters.ROWS] == list(reversed(wrong))
    for name in reversed(list(wrong)):
        assert fault_of(wrong) == fault_of({name: wrong[name]})
        wrong = {other: value for other, value in wrong.items() if other != name}


def test_every_row_fills_a_field_of_the_call_has_a_reason_and_a_rule() -> None:
    names = set(Call._fields)
    for row in parameters.ROWS:
        assert row.ours is None or row.ours in names
        assert row.why
        assert row.source.startswith("PAR-")
    # As the table of the spec stands: the newest rule before the last one.
    order = [*range(1, 19), 20, 19]
    assert list(dict.fromkeys(row.source for row in parameters.ROWS)) == [f"PAR-{number}" for number in order]


def test_a_name_is_in_the_table_or_dropped_for_a_reason_never_both() -> None:
    """HTTP-8"""
    spelled = [name for row in parameters.ROWS for name in (row.theirs, *row.aliases)]
    assert len(spelled) == len(set(spelled))
    assert not set(spelled) & set(parameters.DROPPED)
    assert all(parameters.DROPPED.values())


def test_what_no_row_reads_is_named() -> None:
    """HTTP-8: dropped, unknown, or set aside for another spelling; null is as good as absent."""
    given: dict[str, Any] = {
        "max_length": 5,
        "max_tokens": 7,
        "seed": None,
        "kwargs": {},
        "foo": 1,
        "bar": None,
        "enable_search": False,
    }
    assert list(parameters.ignored(given)) == ["max_length", "kwargs", "foo"]
