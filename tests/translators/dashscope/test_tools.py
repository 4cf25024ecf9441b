"""Tools are read and made whole, and the choice among them is one the call can have (spec PAR-16, PAR-17)."""

from __future__ import annotations

from typing import Any

import pytest

from translators import faults
from translators.dashscope import tools
from translators.dialogue import Tool

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER = Tool("weather", {"name": "weather"})
MALFORMED = (
    "Input should be a valid string: parameters.tool_choice.str"
    " & Field required: parameters.tool_choice.ToolChoice.function"
)
WRONG_CHOICE = 'tool_choice is one of the strings that should be ["none", "auto"]'


def named(name: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name}}


def test_a_tool_keeps_its_function_as_the_caller_wrote_it() -> None:
    """PAR-16"""
    function = {"strict": True, "name": "weather", "description": "…", "parameters": SCHEMA}
    (tool,) = tools.read([{"type": "function", "function": function}], "parameters.tools")
    assert tool == Tool("weather", function)
    assert list(tool.function) == ["strict", "name", "description", "parameters"]


def test_no_tools_is_an_empty_list() -> None:
    """PAR-16"""
    assert tools.read([], "parameters.tools") == ()


def test_a_tool_without_a_type_is_a_function() -> None:
    """PAR-16: nothing else can be meant."""
    assert tools.read([{"function": {"name": "weather"}}], "parameters.tools") == (WEATHER,)


@pytest.mark.parametrize(
    ("function", "whole"),
    [
        pytest.param(
            {"name": "f", "parameters": {"city": {"type": "string"}}, "required": ["city"]},
            {"name": "f", "parameters": SCHEMA},
            id="Dify",
        ),
        pytest.param(
            {"name": "f", "parameters": {"type": {"type": "string"}}},
            {"name": "f", "parameters": {"type": "object", "properties": {"type": {"type": "string"}}}},
            id="a property called type",
        ),
        pytest.param(
            {"required": [], "parameters": {}, "name": "f"},
            {"parameters": {"type": "object", "properties": {}}, "name": "f"},
            id="no properties at all",
        ),
        pytest.param({"name": "f", "parameters": None}, {"name": "f"}, id="null"),
        pytest.param({"name": "f", "required": ["city"]}, {"name": "f"}, id="required of nothing"),
        pytest.param(
            {"name": "f", "parameters": {"properties": {"type": "array", "items": {}}}, "required": ["properties"]},
            {
                "name": "f",
                "parameters": {
                    "type": "object",
                    "properties": {"properties": {"type": "array", "items": {}}},
                    "required": ["properties"],
                },
            },
            id="a property called properties",
        ),
        pytest.param(
            {"name": "f", "parameters": {"city": {"type": "string"}}, "required": "city"},
            {"name": "f", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}},
            id="required that is no list",
        ),
        pytest.param(
            {"name": "f", "parameters": {"city": {"type": "string"}, "required": ["city"]}},
            {"name": "f", "parameters": SCHEMA},
            id="required among the properties",
        ),
        pytest.param(
            {"name": "f", "parameters": {"city": {"type": "string"}, "required": []}, "required": ["city"]},
            {"name": "f", "parameters": SCHEMA},
            id="required among the properties, empty, and beside them",
        ),
        pytest.param(
            {"name": "f", "parameters": {"required": {"type": "string"}}},
            {"name": "f", "parameters": {"type": "object", "properties": {"required": {"type": "string"}}}},
            id="a property called required",
        ),
    ],
)
def test_a_bare_property_map_is_wrapped_into_a_schema(function: dict[str, Any], whole: dict[str, Any]) -> None:
    """PAR-16, SOURCES#dify-tools"""
    (tool,) = tools.read([{"type": "function", "function": function}], "parameters.tools")
    assert tool.function == whole
    assert list(tool.function) == list(whole)


def test_required_beside_a_whole_schema_moves_into_it() -> None:
    """PAR-16: LlamaIndex words every tool so."""
    schema = {key: value for key, value in SCHEMA.items() if key != "required"}
    (tool,) = tools.read([{"function": {"name": "f", "parameters": schema, "required": ["city"]}}], "parameters.tools")
    assert tool.function == {"name": "f", "parameters": SCHEMA}
    assert "required" not in schema


def test_a_schema_that_says_what_is_required_is_believed() -> None:
    """PAR-16: the stray word goes all the same."""
    (tool,) = tools.read([{"function": {"name": "f", "parameters": SCHEMA, "required": ["day"]}}], "parameters.tools")
    assert tool.function == {"name": "f", "parameters": SCHEMA}


@pytest.mark.parametrize("said", [[], None])
def test_a_schema_that_requires_nothing_takes_what_is_required_beside_it(said: Any) -> None:
    """PAR-16: an empty list is what programs write that know of none."""
    function = {"name": "f", "parameters": SCHEMA | {"required": said}, "required": ["city"]}
    (tool,) = tools.read([{"function": function}], "parameters.tools")
    assert tool.function == {"name": "f", "parameters": SCHEMA}


@pytest.mark.parametrize(
    "schema",
    [
        SCHEMA,
        {"$defs": {}, "required": ["a"]},
        {"not": {}, "required": [["a"]]},
        {"properties": {"a": {}}, "required": ["a"]},
        {"properties": {}},
        {"properties": {"a": {}, "b": True}},
        {"type": "object"},
        {"$ref": "#/a"},
        {"anyOf": []},
    ],
)
def test_a_schema_stays_as_it_is(schema: dict[str, Any]) -> None:
    """PAR-16"""
    (tool,) = tools.read([{"type": "function", "function": {"name": "f", "parameters": schema}}], "parameters.tools")
    assert tool.function["parameters"] == schema


def test_wrapping_leaves_the_callers_object_alone() -> None:
    function = {"name": "f", "parameters": {"city": {"type": "string"}}, "required": ["city"]}
    tools.read([{"type": "function", "function": function}], "parameters.tools")
    assert function == {"name": "f", "parameters": {"city": {"type": "string"}}, "required": ["city"]}


@pytest.mark.parametrize(
    ("listed", "text"),
    [
        ({}, "Input should be a valid list: parameters.tools"),
        ("weather", "Input should be a valid list: parameters.tools"),
        (["weather"], "Input should be a valid dictionary: parameters.tools.0"),
        ([{}], "Field required: parameters.tools.0.function"),
        ([named("f"), {"type": "function"}], "Field required: parameters.tools.1.function"),
        ([{"type": "web_search"}], "Input should be 'function': parameters.tools.0.type"),
        ([{"type": ["function"]}], "Input should be 'function': parameters.tools.0.type"),
        ([{"type": "function", "function": "f"}], "Input should be a valid dictionary: parameters.tools.0.function"),
        ([{"type": "function", "function": {"a": 1}}], "Field required: parameters.tools.0.function.name"),
        ([named("")], "Field required: parameters.tools.0.function.name"),
        ([named(7)], "Input should be a valid string: parameters.tools.0.function.name"),
        ([named("search")], "Tool names are not allowed to be [search]"),
        (
            [{"type": "function", "function": {"name": "f", "parameters": "{}"}}],
            "Input should be a valid dictionary: parameters.tools.0.function.parameters",
        ),
    ],
)
def test_a_malformed_tool_is_refused(listed: Any, text: str) -> None:
    """PAR-16"""
    with pytest.raises(faults.Refusal) as refusal:
        tools.read(listed, "parameters.tools")
    assert refusal.value.fault == faults.invalid(text)


@pytest.mark.parametrize(
    ("value", "thinks", "choice"),
    [
        ("auto", False, "auto"),
        ("auto", True, "auto"),
        ("none", False, "none"),
        ("none", True, "none"),
        ("required", False, "required"),
        (named("weather"), False, WEATHER),
        ({"function": {"name": "weather"}}, False, WEATHER),
    ],
)
def test_a_choice_is_a_word_or_a_given_tool(value: Any, thinks: bool, choice: Any) -> None:
    """PAR-17"""
    assert tools.choose(value, (WEATHER,), thinks=thinks) == choice


@pytest.mark.parametrize(
    ("value", "thinks", "text"),
    [
        # LangChain sends the bare name; the service refuses it as well (SOURCES#langchain-tools).
        ("weather", False, WRONG_CHOICE),
        ("", False, WRONG_CHOICE),
        ("any", False, WRONG_CHOICE),
        ("required", True, WRONG_CHOICE),
        (named("weather"), True, WRONG_CHOICE),
        (named("other"), False, WRONG_CHOICE),
        ({"type": "function"}, False, MALFORMED),
        ({"type": "function", "function": "weather"}, False, MALFORMED),
        ({"type": "function", "function": {}}, True, MALFORMED),
        (named(7), False, MALFORMED),
        (7, False, MALFORMED),
        (["auto"], False, MALFORMED),
    ],
)
def test_any_other_choice_is_refused(value: Any, thinks: bool, text: str) -> None:
    """PAR-17"""
    with pytest.raises(faults.Refusal) as refusal:
        tools.choose(value, (WEATHER,), thinks=thinks)
    assert refusal.value.fault == faults.invalid(text)
