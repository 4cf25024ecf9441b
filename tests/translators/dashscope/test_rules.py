"""What one parameter allows depends on the model, on thinking and on the other parameters (spec PAR-8 to PAR-15)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from translators import faults
from translators.dashscope import rules
from translators.dialogue import Message, Model, ResponseFormat, Tool

NEVER = Model("deepseek-v3", "never", 65_536, 57_344, 0, 8_192, "v3")
HYBRID = Model("deepseek-v3.1", "hybrid", 131_072, 98_304, 32_768, 65_536, "v3.1", strict_thinking=True)
LENIENT = replace(HYBRID, id="deepseek-v4-pro", strict_thinking=False)
ALWAYS = Model("deepseek-r1", "always", 131_072, 98_304, 32_768, 16_384, "r1")

VOCABULARY = {1: "你".encode(), 2: "好".encode(), 3: "你".encode()[:1], 4: "你".encode()[1:], 5: b"\n\n"}
STOP = (
    'The "stop" parameter must be of type "str", "list[str]", "list[int]", or "list[list[int]]",'
    " and all elements within the list must be of the same type."
)
NO_JSON = "'messages' must contain the word 'json' in some form, to use 'response_format' of type 'json_object'."
JSON_THINKING = "Json mode response is not supported when enable_thinking is true"
THINKS = {"enable_thinking": True}
FULL = {"enable_thinking": True, "incremental_output": True, "result_format": "message"}


def decode(ids: Sequence[int]) -> bytes:
    if any(number >= 2**32 for number in ids):
        raise OverflowError
    return b"".join(VOCABULARY[number] for number in ids)


def case(
    given: dict[str, Any],
    model: Model = HYBRID,
    *,
    said: str | None = "Hi",
    stream: bool = True,
    strict_thinking: bool | None = None,
) -> rules.Case:
    return rules.Case(model, (Message("assistant", said),), given, stream, strict_thinking, decode)


def refused(rule: rules.Rule, value: Any, circumstances: rules.Case) -> faults.Fault:
    with pytest.raises(faults.Refusal) as refusal:
        rule(value, circumstances)
    return refusal.value.fault


@pytest.mark.parametrize(
    ("model", "given", "thinks"),
    [
        (NEVER, {}, False),
        (NEVER, THINKS, False),
        (HYBRID, {}, False),
        (HYBRID, {"enable_thinking": False}, False),
        (HYBRID, {"enable_thinking": "true"}, False),
        (HYBRID, THINKS, True),
        (ALWAYS, {}, True),
        (ALWAYS, {"enable_thinking": False}, True),
    ],
)
def test_whether_a_call_thinks_is_the_models_nature_and_then_the_flag(
    model: Model, given: dict[str, Any], thinks: bool
) -> None:
    """PAR-14"""
    assert case(given, model).thinks is thinks


@pytest.mark.parametrize(
    ("value", "stops"),
    [
        ("a", ("a",)),
        ("", ()),
        ([], ()),
        (["a", "b", "a", ""], ("a", "b")),
        ([1, 2], ("你", "好")),
        ([[1, 2], [5]], ("你好", "\n\n")),
        ([[]], ()),
        # Half a character never shows in a text, two halves do.
        ([3, 4, 2], ("好",)),
        ([[3, 4]], ("你",)),
        ([[3]], ()),
    ],
)
def test_stops_are_texts_each_once_and_token_ids_are_decoded(value: Any, stops: tuple[str, ...]) -> None:
    """PAR-9"""
    assert rules.stop(value, case({})) == stops


@pytest.mark.parametrize(
    "value",
    [
        7,
        True,
        {},
        [None],
        ["a", 1],
        [1, "a"],
        [1.0],
        [True],
        [1, [2]],
        [[1], "a"],
        [["a"]],
        [[1, True]],
        [[[1]]],
        [999],
        [-1],
        [[1, 2**40]],
    ],
)
def test_stops_of_mixed_kinds_or_unknown_ids_are_refused(value: Any) -> None:
    """PAR-9"""
    assert refused(rules.stop, value, case({})) == faults.invalid(STOP)


def test_an_id_that_the_vocabulary_calls_a_value_error_is_refused_alike() -> None:
    """PAR-9"""

    def picky(ids: Sequence[int]) -> bytes:
        raise ValueError(ids)

    assert refused(rules.stop, [1], case({})._replace(decode=picky)) == faults.invalid(STOP)


@pytest.mark.parametrize(("model", "given"), [(HYBRID, THINKS), (ALWAYS, {})])
def test_more_than_one_answer_is_refused_while_thinking(model: Model, given: dict[str, Any]) -> None:
    """PAR-8"""
    fault = refused(rules.n, 2, case(given, model))
    assert fault == faults.invalid("The n parameter must be 1 when the model is thinking")
    assert rules.n(1, case(given, model)) == 1


def test_more_than_one_answer_is_fine_without_thinking() -> None:
    """PAR-8"""
    assert rules.n(2, case({})) == 2
    assert rules.n(2, case(THINKS, NEVER)) == 2


@pytest.mark.parametrize(
    ("value", "form"),
    [
        ({"type": "text"}, ResponseFormat("text")),
        ({"type": "json_object", "json_schema": None}, ResponseFormat("json_object")),
        ({"type": "json_schema", "json_schema": {"name": "a"}}, ResponseFormat("json_schema", {"name": "a"})),
    ],
)
def test_a_response_format_is_text_json_or_a_schema(value: Any, form: ResponseFormat) -> None:
    """PAR-11"""
    assert rules.response_format(value, case({}, said="Answer in Json.")) == form


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("json_object", "json_object"),
        ("text", "text"),
        (7, "int"),
        (["json_object"], "list"),
        ({}, "NoneType"),
        ({"type": None}, "NoneType"),
        ({"type": "xml"}, "xml"),
        ({"type": "x" * 1_000}, "x" * 64),
        ({"type": {"a": 1}}, "dict"),
        ({"type": "json_schema"}, "json_schema"),
        ({"type": "json_schema", "json_schema": "{}"}, "json_schema"),
    ],
)
def test_any_other_response_format_is_refused(value: Any, said: str) -> None:
    """PAR-11"""
    text = (
        "Unknown format of response_format, response_format should be a dict, includes 'type' and an optional key"
        f" 'json_schema'. The response_format type from user is {said}."
    )
    assert refused(rules.response_format, value, case({})) == faults.invalid(text)


@pytest.mark.parametrize("said", ["Hi", None])
def test_json_mode_needs_the_word_in_some_message(said: str | None) -> None:
    """PAR-11"""
    fault = refused(rules.response_format, {"type": "json_object"}, case({}, said=said))
    assert fault == faults.invalid(NO_JSON)


def test_a_schema_needs_no_word() -> None:
    """PAR-11"""
    schema = {"type": "json_schema", "json_schema": {}}
    assert rules.response_format(schema, case({})) == ResponseFormat("json_schema", {})


@pytest.mark.parametrize("value", [{"type": "json_object"}, {"type": "json_schema", "json_schema": {}}])
def test_structured_output_is_refused_while_thinking_on_request(value: dict[str, Any]) -> None:
    """PAR-11"""
    fault = refused(rules.response_format, value, case(THINKS, LENIENT, said="JSON"))
    assert fault == faults.invalid(JSON_THINKING)


@pytest.mark.parametrize(("model", "given"), [(ALWAYS, THINKS), (NEVER, THINKS), (HYBRID, {})])
def test_structured_output_is_fine_where_the_flag_is_not_what_makes_it_think(
    model: Model, given: dict[str, Any]
) -> None:
    """PAR-11"""
    form = rules.response_format({"type": "json_object"}, case(given, model, said="JSON"))
    assert form == ResponseFormat("json_object")


def test_text_is_fine_while_thinking() -> None:
    """PAR-11"""
    assert rules.response_format({"type": "text"}, case(THINKS)) == ResponseFormat("text")


@pytest.mark.parametrize(
    ("given", "stream", "text"),
    [
        (FULL, False, "parameter.enable_thinking must be set to false for non-streaming calls"),
        (THINKS, False, "parameter.enable_thinking must be set to false for non-streaming calls"),
        (THINKS, True, 'The incremental_output parameter must be "true" when enable_thinking is true'),
        (
            FULL | {"incremental_output": False},
            True,
            'The incremental_output parameter must be "true" when enable_thinking is true',
        ),
        (
            FULL | {"result_format": "text"},
            True,
            'The result_format parameter must be "message" when enable_thinking is true',
        ),
    ],
)
def test_strict_thinking_has_its_demands(given: dict[str, Any], stream: bool, text: str) -> None:
    """PAR-14"""
    assert refused(rules.enable_thinking, True, case(given, stream=stream)) == faults.invalid(text)


@pytest.mark.parametrize("given", [FULL, {"enable_thinking": True, "incremental_output": True}])
def test_strict_thinking_is_content_with_what_it_demands(given: dict[str, Any]) -> None:
    """PAR-14"""
    assert rules.enable_thinking(True, case(given)) is True


@pytest.mark.parametrize("result_format", ["message", "text"])
def test_a_lenient_row_lets_json_calls_think(result_format: str) -> None:
    """PAR-14: as recorded for deepseek-v4-pro."""
    given = {"enable_thinking": True, "incremental_output": False, "result_format": result_format}
    assert rules.enable_thinking(True, case(given, LENIENT, stream=False)) is True


def test_the_operator_overrides_all_rows() -> None:
    """PAR-14"""
    assert rules.enable_thinking(True, case(THINKS, HYBRID, stream=False, strict_thinking=False)) is True
    fault = refused(rules.enable_thinking, True, case(THINKS, LENIENT, stream=False, strict_thinking=True))
    assert fault == faults.invalid("parameter.enable_thinking must be set to false for non-streaming calls")


@pytest.mark.parametrize(("model", "thinks"), [(NEVER, False), (ALWAYS, True)])
@pytest.mark.parametrize("value", [True, False])
def test_a_model_of_one_nature_ignores_the_flag_and_its_demands(model: Model, value: bool, thinks: bool) -> None:
    """PAR-14"""
    given = {"enable_thinking": value}
    assert rules.enable_thinking(value, case(given, model, stream=False, strict_thinking=True)) is thinks


def test_a_row_may_refuse_the_flag() -> None:
    """PAR-14"""
    model = replace(NEVER, enable_thinking="refuse")
    assert refused(rules.enable_thinking, True, case(THINKS, model)) == faults.Fault(
        400, "InvalidParameter.NotSupportEnableThinking", "The model deepseek-v3 does not support enable_thinking."
    )
    assert rules.enable_thinking(False, case({"enable_thinking": False}, model)) is False


@pytest.mark.parametrize(
    ("model", "given", "value", "budget"),
    [
        (HYBRID, THINKS, 1, 1),
        (HYBRID, THINKS, 32_768, 32_768),
        (ALWAYS, {}, 1_024, 1_024),
        (HYBRID, {}, 1_024, None),
        (NEVER, THINKS, 0, None),
    ],
)
def test_a_budget_counts_where_the_call_thinks(
    model: Model, given: dict[str, Any], value: int, budget: int | None
) -> None:
    """PAR-15"""
    assert rules.thinking_budget(value, case(given, model)) == budget


@pytest.mark.parametrize("value", [0, -1, 32_769])
@pytest.mark.parametrize(("model", "given"), [(HYBRID, THINKS), (HYBRID, {}), (ALWAYS, {})])
def test_a_budget_beyond_the_chain_is_refused(model: Model, given: dict[str, Any], value: int) -> None:
    """PAR-15"""
    text = "The thinking_budget parameter must be a positive integer and not greater than 32768"
    assert refused(rules.thinking_budget, value, case(given, model)) == faults.invalid(text)


def test_a_choice_names_one_of_the_given_tools() -> None:
    """PAR-17"""
    choice = {"type": "function", "function": {"name": "weather"}}
    assert rules.tool_choice(choice, case({"tools": [choice]})) == Tool("weather", {"name": "weather"})
    assert rules.tool_choice("required", case({})) == "required"


@pytest.mark.parametrize("value", ["required", {"type": "function", "function": {"name": "weather"}}])
@pytest.mark.parametrize(("model", "given"), [(HYBRID, THINKS), (ALWAYS, {})])
def test_thinking_cannot_be_forced_to_a_tool(model: Model, given: dict[str, Any], value: Any) -> None:
    """PAR-17"""
    tools = [{"type": "function", "function": {"name": "weather"}}]
    text = 'tool_choice is one of the strings that should be ["none", "auto"]'
    assert refused(rules.tool_choice, value, case(given | {"tools": tools}, model)) == faults.invalid(text)


@pytest.mark.parametrize("item", ["a", 1, [1]])
def test_more_stops_than_anyone_has_are_refused_at_once(item: Any) -> None:
    """PAR-9: each is looked for in every delta."""
    text = f"List should have at most {rules.MOST_STOPS} items: parameters.stop"
    assert refused(rules.stop, [item] * (rules.MOST_STOPS + 1), case({})) == faults.invalid(text)


@pytest.mark.parametrize("value", ["a" * 513, ["b", "a" * 513], ["a" * 512] * 33, [[1] * 513]])
def test_stops_longer_than_any_upstream_takes_are_refused(value: Any) -> None:
    """PAR-9: looking for them has a price."""
    assert refused(rules.stop, value, case({})) == faults.invalid('The "stop" parameter is too long.')


def test_the_longest_stops_are_taken() -> None:
    """PAR-9"""
    assert rules.stop(["a" * 512] * 32, case({})) == ("a" * 512,)
