"""A value of the wrong type is refused in the service's words (spec "Parameters", the paragraph above the table)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from translators import faults
from translators.dashscope import kinds

NOT_A_NUMBER = "Input should be a valid number, unable to parse string as a number: parameters.x"
NOT_AN_INTEGER = "Input should be a valid integer, unable to parse string as an integer: parameters.x"
FRACTION = "Input should be a valid integer, got a number with a fractional part: parameters.x"
NOT_A_BOOLEAN = "Input should be a valid boolean, unable to interpret input: parameters.x"

REFUSED: list[tuple[Callable[[Any, str], Any], list[Any], str]] = [
    (kinds.number, ["a", "", "nan", "inf", "-Infinity", "1_0", "٣", "1e999", "0x1"], NOT_A_NUMBER),
    (kinds.number, [True, [], {}], "Input should be a valid number: parameters.x"),
    (kinds.integer, ["a", "", "1.5", "1e3", "1_0", "٣", "inf", "9" * 5_000], NOT_AN_INTEGER),
    (kinds.integer, [1.5, float("inf")], FRACTION),
    (kinds.integer, [False, [], {}], "Input should be a valid integer: parameters.x"),
    (kinds.boolean, ["true", "yes", 1, 0, 0.5], NOT_A_BOOLEAN),
    (kinds.boolean, [[], {}], "Input should be a valid boolean: parameters.x"),
    (kinds.string, [1, True, [], {}], "Input should be a valid string: parameters.x"),
    (kinds.sequence, ["a", 1, {}], "Input should be a valid list: parameters.x"),
    (kinds.dictionary, ["a", 1, []], "Input should be a valid dictionary: parameters.x"),
]


@pytest.mark.parametrize(
    ("kind", "value", "read"),
    [
        (kinds.number, 1, 1.0),
        (kinds.number, 0.5, 0.5),
        (kinds.number, "0.5", 0.5),
        (kinds.number, "-1", -1.0),
        (kinds.number, "+1e2", 100.0),
        (kinds.number, ".5", 0.5),
        (kinds.number, "5.", 5.0),
        (kinds.integer, 7, 7),
        (kinds.integer, 7.0, 7),
        (kinds.integer, 2.0**100, 2**100),
        (kinds.integer, "7", 7),
        (kinds.integer, "-7", -7),
        (kinds.boolean, True, True),
        (kinds.boolean, False, False),
        (kinds.string, "", ""),
        (kinds.sequence, [], []),
        (kinds.dictionary, {}, {}),
        (kinds.anything, None, None),
    ],
)
def test_a_value_of_the_type_is_read(kind: Callable[[Any, str], Any], value: Any, read: Any) -> None:
    result = kind(value, "parameters.x")
    assert result == read
    assert type(result) is type(read)


@pytest.mark.parametrize(
    ("kind", "value", "text"), [(kind, value, text) for kind, values, text in REFUSED for value in values]
)
def test_a_value_of_another_type_is_refused(kind: Callable[[Any, str], Any], value: Any, text: str) -> None:
    with pytest.raises(faults.Refusal) as refusal:
        kind(value, "parameters.x")
    assert refusal.value.fault == faults.invalid(text)


def test_a_long_string_of_digits_is_refused_in_linear_time() -> None:
    """A pattern that backtracks would take minutes here."""
    with pytest.raises(faults.Refusal):
        kinds.number("1" * 1_000_000 + "x", "parameters.x")


def test_a_required_field_is_handed_out() -> None:
    assert kinds.required({"name": 0}, "name", "a.b") == 0


@pytest.mark.parametrize("holder", [{}, {"name": None}, {"name": ""}])
def test_a_missing_required_field_is_refused(holder: dict[str, Any]) -> None:
    with pytest.raises(faults.Refusal) as refusal:
        kinds.required(holder, "name", "a.b")
    assert refusal.value.fault == faults.invalid("Field required: a.b.name")
