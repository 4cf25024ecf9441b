"""`tools` and `tool_choice` -> the tools of a call, each schema made whole, and the choice among them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from translators import faults
from translators.dashscope import kinds
from translators.dialogue import Json, Tool, ToolChoice

# Eight times what DeepSeek takes.
MOST_TOOLS = 1_024

RESERVED_NAME = "Tool names are not allowed to be [search]"
WRONG_CHOICE = 'tool_choice is one of the strings that should be ["none", "auto"]'
MALFORMED_CHOICE = (
    "Input should be a valid string: parameters.tool_choice.str"
    " & Field required: parameters.tool_choice.ToolChoice.function"
)

UNFORCED: Mapping[str, ToolChoice] = {"auto": "auto", "none": "none"}
CHOICES: Mapping[str, ToolChoice] = {**UNFORCED, "required": "required"}


def read(listed: Any, path: str) -> tuple[Tool, ...]:
    """The tools in the caller's order; none for an empty list (spec PAR-16)."""
    return tuple(_tool(tool, f"{path}.{index}") for index, tool in enumerate(kinds.bounded(listed, path, MOST_TOOLS)))


def choose(value: Any, given: tuple[Tool, ...], *, thinks: bool) -> ToolChoice:
    """The word or the tool that `tool_choice` means (spec PAR-17).

    given:  the tools a choice by name chooses from
    thinks: whether the call thinks; then nothing can be forced
    """
    chosen: ToolChoice | None
    if isinstance(value, str):
        chosen = (UNFORCED if thinks else CHOICES).get(value)
    else:
        name = _chosen_name(value)
        chosen = None if thinks else next((tool for tool in given if tool.name == name), None)
    if chosen is None:
        raise faults.Refusal(faults.invalid(WRONG_CHOICE))
    return chosen


def _tool(tool: Any, path: str) -> Tool:
    entry = kinds.dictionary(tool, path)
    if entry.get("type", "function") != "function":
        raise faults.Refusal(faults.invalid(f"Input should be 'function': {path}.type"))
    function = kinds.dictionary(kinds.required(entry, "function", path), f"{path}.function")
    name = kinds.string(kinds.required(function, "name", f"{path}.function"), f"{path}.function.name")
    if name == "search":
        raise faults.Refusal(faults.invalid(RESERVED_NAME))
    if function.get("parameters") is not None:
        kinds.dictionary(function["parameters"], f"{path}.function.parameters")
    return Tool(name, _whole(function))


def _whole(function: Json) -> Json:
    """The function with a JSON schema for its parameters, `required` inside of it, key order kept."""
    schema, required = function.get("parameters"), function.get("required")
    if schema is None:
        dropped = {"parameters", "required"}
        return {key: value for key, value in function.items() if key not in dropped}
    # Dify sends the properties alone, with `required` beside them (SOURCES#dify-tools), others among them; LlamaIndex a
    # whole schema, and `required` so too.
    whole: Json = _schema(schema)
    if required and isinstance(required, list) and whole.get("required") in (None, []):
        whole = {**whole, "required": required}
    if whole is schema and "required" not in function:
        return function
    return {key: whole if key == "parameters" else value for key, value in function.items() if key != "required"}


def _schema(said: Json) -> Json:
    """The schema that is meant: what was said, or one of the properties that were, perhaps with those required."""
    required = said.get("required")
    if not isinstance(required, list):
        return {"type": "object", "properties": said} if _is_bare(said) else said
    properties = {name: value for name, value in said.items() if name != "required"}
    # A schema says what is required of its properties, a map of some of its own names.
    if _is_bare(properties) and all(isinstance(name, str) and name in properties for name in required):
        return {"type": "object", "properties": properties, "required": required}
    return said


def _is_bare(schema: Json) -> bool:
    """Whether these are properties by name rather than a schema.

    Every property is an object, and hardly any keyword of a schema is: one that is no object makes it a schema. Of
    objects alone, `properties` tells it, if it holds what a schema's does: properties by name again, each an object.
    """
    if not all(isinstance(value, dict) for value in schema.values()):
        return False
    inner = schema.get("properties")
    return inner is None or not all(isinstance(value, dict | bool) for value in inner.values())


def _chosen_name(value: Any) -> str:
    function = value.get("function") if isinstance(value, dict) else None
    name = function.get("name") if isinstance(function, dict) else None
    if not isinstance(name, str):
        raise faults.Refusal(faults.invalid(MALFORMED_CHOICE))
    return name
