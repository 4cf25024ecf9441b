"""What a template tells the model besides the conversation, word for word: its tools, its format, how hard to think.

Fixed texts are facts of the protocol, kept to be counted: as published with the models, and for V4 and V4.1 as the
vendor's renderer writes them (`deepseek-recipe` 0.2.0). The tokens they spell are special (`markup.pieces`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from translators.dialogue import Tool


@dataclass(frozen=True, slots=True)
class Tools:
    """The instruction that tells a model of its tools.

    lead, close: the fixed texts around the schemas
    schema:      how one tool is written
    """

    lead: str
    schema: Callable[[Tool], str]
    close: str


def schema(schema: object) -> str:
    """The instruction that holds an answer to a schema (`deepseek-recipe` 0.2.0)."""
    return f"## Response Format:\n\nYou MUST strictly adhere to the following schema to reply:\n{_json(schema)}"


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _as_received(tool: Tool) -> str:
    return _json(tool.function)


def _strict_normalised(tool: Tool) -> str:
    """As received, but for strict tools."""
    return _normalised(tool) if tool.function.get("strict") is True else _as_received(tool)


def _normalised(tool: Tool) -> str:
    """Name, description, parameters in this order and nothing else, whatever the caller sent."""
    function = tool.function
    description, parameters = function.get("description") or "", function.get("parameters") or {}
    if function.get("strict") is True:
        parameters = _strict(parameters or {"type": "object"})
    return _json({"name": tool.name, "description": description, "parameters": parameters})


def _strict(schema: object) -> object:
    """A schema of a strict tool as the vendor's renderer has it: keywords by type, in its order, the rest dropped.

    Every property is required and nothing else allowed. What the renderer refuses stays as it is: so does upstream.
    source: `deepseek-recipe` 0.2.0, run
    """
    if not isinstance(schema, dict):
        return schema
    kind = schema.get("type") or next((word for word in ("anyOf", "$ref") if word in schema), None)
    keywords = STRICT_KEYWORDS.get(kind) if isinstance(kind, str) else None
    if keywords is None:
        return schema
    properties = schema.get("properties")
    properties = properties if isinstance(properties, dict) else {}
    shown = {**schema, "properties": properties, "additionalProperties": False, "required": list(properties)}
    return {word: _within(word, shown[word]) for word in keywords if shown.get(word) is not None}


def _within(word: str, value: Any) -> object:
    """What stands under a keyword: schemas by name, one schema, several, or plain data."""
    if word in {"properties", "$def"} and isinstance(value, dict):
        return {name: _strict(schema) for name, schema in value.items()}
    if word == "anyOf" and isinstance(value, list):
        return [_strict(schema) for schema in value]
    return _strict(value) if word == "items" else value


def _described(tool: Tool) -> str:
    description, parameters = tool.function.get("description") or "", tool.function.get("parameters") or {}
    return f"### {tool.name}\nDescription: {description}\n\nParameters: {_json(parameters)}\n"


def _fenced(tool: Tool) -> str:
    return f"\n```json\n{_json({'type': 'function', 'function': tool.function})}\n```"


_BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")
_NUMBER = ("type", "description", "const", "default", *_BOUNDS)
# What the renderer keeps of a strict tool's schema, by its type, in the order in which it writes it.
STRICT_KEYWORDS: Mapping[str, tuple[str, ...]] = {
    "object": ("type", "properties", "additionalProperties", "required", "description", "$def"),
    "array": ("type", "items", "description"),
    "string": ("type", "description", "pattern", "format", "enum"),
    "number": _NUMBER,
    "integer": _NUMBER,
    "boolean": ("type", "description"),
    "null": ("type", "description"),
    "anyOf": ("anyOf", "description"),
    "$ref": ("$ref",),
}

# The template that vLLM and SGLang ship for tool calls of V3 and R1; no recorded count has confirmed it.
V3_TOOLS = Tools(
    lead=(
        "You are a helpful assistant with tool calling capabilities. When a tool call is needed, you MUST use the "
        "following format to issue the call:\n<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>"
        'FUNCTION_NAME\n```json\n{"param1": "value1", "param2": "value2"}\n```'
        "<｜tool▁call▁end｜><｜tool▁calls▁end｜>\n\n"
        "Make sure the JSON is valid.## Tools\n\n### Function\n\nYou have the following functions available:\n\n"
    ),
    schema=_fenced,
    close="\n",
)
# The V3.1 model card, "ToolCall".
V31_TOOLS = Tools(
    lead="## Tools\nYou have access to the following tools:\n\n",
    schema=_described,
    close=(
        "\nIMPORTANT: ALWAYS adhere to this exact format for tool use:\n<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>"
        "tool_call_name<｜tool▁sep｜>tool_call_arguments<｜tool▁call▁end｜>{additional_tool_calls}<｜tool▁calls▁end｜>\n\n"
        "Where:\n\n- `tool_call_name` must be an exact match to one of the available tools\n"
        "- `tool_call_arguments` must be valid JSON that strictly follows the tool's Parameters Schema\n"
        "- For multiple tool calls, chain them directly without separators or spaces\n"
    ),
)
# Published with V3.2; one recorded prompt, 339 = 339 tokens (SOURCES#recorded-prompts).
V32_TOOLS = Tools(
    lead="""\
## Tools
You have access to a set of tools you can use to answer the user's question.
You can invoke functions by writing a "<｜DSML｜function_calls>" block like the following as part of your reply to \
the user:
<｜DSML｜function_calls>
<｜DSML｜invoke name="$FUNCTION_NAME">
<｜DSML｜parameter name="$PARAMETER_NAME" string="true|false">$PARAMETER_VALUE</｜DSML｜parameter>
...
</｜DSML｜invoke>
<｜DSML｜invoke name="$FUNCTION_NAME2">
...
</｜DSML｜invoke>
</｜DSML｜function_calls>
String and scalar parameters should be specified as is without any escaping or quotes, while lists and objects should \
use JSON format. The "string" attribute should be set to "true" for string type parameters and "false" for other types \
(numbers, booleans, arrays, objects).
If the thinking_mode is enabled, then after function results you should strongly consider outputting a thinking block. \
Here is an example:
<｜DSML｜function_calls>
...
</｜DSML｜function_calls>
<function_results>
...
</function_results>
<think>...thinking about results</think>
Here are the functions available in JSONSchema format:
<functions>
""",
    schema=_as_received,
    close="\n</functions>\n",
)
_V4_LEAD = """\
## Tools

You have access to a set of tools to help answer the user's question. You can invoke tools by writing a \
"<｜DSML｜tool_calls>" block like the following:

<｜DSML｜tool_calls>
<｜DSML｜invoke name="$TOOL_NAME">
<｜DSML｜parameter name="$PARAMETER_NAME" string="true|false">$PARAMETER_VALUE</｜DSML｜parameter>
...
</｜DSML｜invoke>
<｜DSML｜invoke name="$TOOL_NAME2">
...
</｜DSML｜invoke>
</｜DSML｜tool_calls>

String parameters should be specified as is and set `string="true"`. For all other types (numbers, booleans, arrays, \
objects), pass the value in JSON format and set `string="false"`.

If thinking_mode is enabled (triggered by <think>), you MUST output your complete reasoning inside <think>...</think> \
BEFORE any tool calls or final response.

Otherwise, output directly after </think> with tool calls or final response.

### Available Tool Schemas

"""
_V4_CLOSE = "\n\nYou MUST strictly follow the above defined tool name and parameter schemas to invoke tool calls.\n"
# V4.1 writes the same block with a space after the DSML token, and names it `calls`.
_V41_LEAD = _V4_LEAD.replace("｜DSML｜tool_calls", "｜DSML｜calls").replace("｜DSML｜", "｜DSML｜ ")

V4_PREVIEW_TOOLS = Tools(_V4_LEAD, _strict_normalised, _V4_CLOSE)
# As the encoder published with the weights has them.
V4_ENCODED_TOOLS = Tools(_V4_LEAD, _as_received, _V4_CLOSE)
V4_TOOLS = Tools(_V4_LEAD, _normalised, _V4_CLOSE)
V41_TOOLS = Tools(_V41_LEAD, _normalised, _V4_CLOSE)

JSON_MODE = "You are a helpful assistant designed to output JSON.\n## Response Format:\n\nReply with JSON object ONLY."
THOROUGH = (
    "Reasoning Effort: Absolute maximum with no shortcuts permitted.\n"
    "You MUST be very thorough in your thinking and comprehensively decompose the problem to resolve the root cause, "
    "rigorously stress-testing your logic against all potential paths, edge cases, and adversarial scenarios.\n"
    "Explicitly write out your entire deliberation process, documenting every intermediate step, considered "
    "alternative, and rejected hypothesis to ensure absolutely no assumption is left unchecked.\n\n"
)
RELENTLESS = (
    "Reasoning Effort: Beyond maximum — exhaustive, relentless, and uncompromising.\n"
    "You MUST reason with the utmost depth and rigor, leaving absolutely nothing to chance: exhaustively decompose the "
    "problem into its most fundamental components, trace every causal chain to its root, and resolve the underlying "
    "cause rather than any surface symptom.\n"
    "Do not stop reasoning until you have independently verified the solution from multiple angles and are certain "
    "that no assumption remains unchecked and no error remains undiscovered.\n\n"
)
NUMBERED = "Reasoning Effort: {} (range 1-100, the higher the value, the more thorough the reasoning)\n\n"
