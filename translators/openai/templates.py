"""How each DeepSeek generation lays a conversation out before the model sees it: one row of facts per template.

The fixed texts are facts of the protocol, as published with the models and seen in recorded token counts
(tokenizer.md 4.1, 4.2); V4 and V4.1 as the vendor's renderer writes them (`deepseek-recipe` 0.2.0).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from translators.dialogue import Template, Tool
from translators.openai.dialects import Effort
from translators.openai.markup import Piece, Special, Writer, dsml, dsml_opening, tokens

Before = Literal["user", "tool"]
Opening = Mapping[tuple[Before, bool], tuple[Piece, ...]]


@dataclass(frozen=True, slots=True)
class Tools:
    """The instruction that tells a model of its tools.

    lead, close: the fixed texts around the schemas
    schema:      how one tool is written
    """

    lead: str
    schema: Callable[[Tool], str]
    close: str


@dataclass(frozen=True, slots=True)
class Results:
    """How a block of tool results stands in the prompt.

    open, close: around the block
    each:        before and after one result
    between:     two results
    """

    open: tuple[Piece, ...] = ()
    each: tuple[Piece, Piece] = ("", "")
    between: str = ""
    close: tuple[Piece, ...] = ()


@dataclass(frozen=True, slots=True)
class Layout:
    """One template.

    opening:       what opens an assistant turn, by what stands before it and whether its chain is in it
    keeps:         when an earlier turn's chain stays in the prompt: never; since the last user message;
                   in a prefix, and everywhere beside tools
    calls:         how a turn's tool calls are written
    tools:         the instruction for tools
    results:       how tool results are written
    forced:        what a forced `tool_choice` adds to the prompt
    prefaces:      what an effort puts before everything in a thinking call; high where none is said
    json_mode:     the instruction of JSON mode; "" where the server says nothing
    one_user_turn: whether user messages and tool results that follow each other share a turn
    system_marked: whether system messages stand in place, each behind a token; else they are joined in front
    blank_first:   whether a blank line leads the first instruction even where no system message is
    """

    opening: Opening
    keeps: Literal["never", "since_user", "beside_tools"]
    calls: Writer
    tools: Tools
    results: Results
    forced: tuple[Piece, ...] = ()
    prefaces: Mapping[Effort, str] = field(default_factory=dict)
    json_mode: str = ""
    one_user_turn: bool = False
    system_marked: bool = False
    blank_first: bool = False


def schema_instruction(schema: object) -> str:
    """The instruction that holds an answer to a schema (`deepseek-recipe` 0.2.0)."""
    return f"## Response Format:\n\nYou MUST strictly adhere to the following schema to reply:\n{_json(schema)}"


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _as_received(tool: Tool) -> str:
    return _json(tool.function)


def _normalised(tool: Tool) -> str:
    """Name, description, parameters in this order and nothing else, whatever the caller sent."""
    function = tool.function
    description, parameters = function.get("description") or "", function.get("parameters") or {}
    return _json({"name": tool.name, "description": description, "parameters": parameters})


def _described(tool: Tool) -> str:
    description, parameters = tool.function.get("description") or "", tool.function.get("parameters") or {}
    return f"### {tool.name}\nDescription: {description}\n\nParameters: {_json(parameters)}\n"


def _fenced(tool: Tool) -> str:
    return f"\n```json\n{_json({'type': 'function', 'function': tool.function})}\n```"


# The template that vLLM and SGLang ship for tool calls of V3 and R1; no recorded count has confirmed it.
_V3_TOOLS = Tools(
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
_V31_TOOLS = Tools(
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
# Published with V3.2; one recorded prompt, 339 = 339 tokens (tokenizer.md 4.2).
_V32_TOOLS = Tools(
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

_JSON_MODE = "You are a helpful assistant designed to output JSON.\n## Response Format:\n\nReply with JSON object ONLY."
_THOROUGH = (
    "Reasoning Effort: Absolute maximum with no shortcuts permitted.\n"
    "You MUST be very thorough in your thinking and comprehensively decompose the problem to resolve the root cause, "
    "rigorously stress-testing your logic against all potential paths, edge cases, and adversarial scenarios.\n"
    "Explicitly write out your entire deliberation process, documenting every intermediate step, considered "
    "alternative, and rejected hypothesis to ensure absolutely no assumption is left unchecked.\n\n"
)
_RELENTLESS = (
    "Reasoning Effort: Beyond maximum — exhaustive, relentless, and uncompromising.\n"
    "You MUST reason with the utmost depth and rigor, leaving absolutely nothing to chance: exhaustively decompose the "
    "problem into its most fundamental components, trace every causal chain to its root, and resolve the underlying "
    "cause rather than any surface symptom.\n"
    "Do not stop reasoning until you have independently verified the solution from multiple angles and are certain "
    "that no assumption remains unchecked and no error remains undiscovered.\n\n"
)
_NUMBERED = "Reasoning Effort: {} (range 1-100, the higher the value, the more thorough the reasoning)\n\n"

_A, _THINK, _THOUGHT = Special.ASSISTANT, Special.THINK, Special.THOUGHT
# V3.1 goes on right after a tool result; V3.2 parts them by a blank line; V4 opens a turn of its own every time.
_V3_OPENING: Opening = {("user", True): (_A,), ("user", False): (_A,), ("tool", True): (), ("tool", False): ()}
_R1_OPENING: Opening = {**_V3_OPENING, ("user", True): (_A, _THINK, "\n")}
_V31_OPENING: Opening = {**_V3_OPENING, ("user", True): (_A, _THINK), ("user", False): (_A, _THOUGHT)}
_V4_OPENING: Opening = {
    ("user", True): (_A, _THINK),
    ("user", False): (_A, _THOUGHT),
    ("tool", True): (_A, _THINK),
    ("tool", False): (_A, _THOUGHT),
}
_V32_OPENING: Opening = {**_V4_OPENING, ("tool", True): ("\n\n", _THINK), ("tool", False): ("\n\n", _THOUGHT)}
_V4_RESULTS = Results(each=("<tool_result>", "</tool_result>"))
_FENCED_CALLS = ("function<｜tool▁sep｜>", "\n```json\n", "\n```")

LAYOUTS: Mapping[Template, Layout] = {
    # Also what R1 had at first, and has at Bailian: the model itself writes `<think>` (tokenizer.md 4.4).
    "v3": Layout(
        opening=_V3_OPENING,
        keeps="never",
        calls=tokens(*_FENCED_CALLS, line="\n"),
        tools=_V3_TOOLS,
        results=Results(
            (Special.OUTPUTS,), (Special.OUTPUT, Special.OUTPUT_END), between="\n", close=(Special.OUTPUTS_END,)
        ),
    ),
    "r1": Layout(
        opening=_R1_OPENING,
        keeps="never",
        calls=tokens(*_FENCED_CALLS, line="\n"),
        tools=_V3_TOOLS,
        results=Results((Special.OUTPUTS,), (Special.OUTPUT, Special.OUTPUT_END), close=(Special.OUTPUTS_END,)),
    ),
    "v3.1": Layout(
        opening=_V31_OPENING,
        keeps="never",
        calls=tokens("", "<｜tool▁sep｜>", ""),
        tools=_V31_TOOLS,
        results=Results(each=(Special.OUTPUT, Special.OUTPUT_END)),
    ),
    "v3.2": Layout(
        opening=_V32_OPENING,
        keeps="since_user",
        calls=dsml("function_calls", no_arguments="\n"),
        tools=_V32_TOOLS,
        results=Results(("\n\n<function_results>",), ("\n<result>", "</result>"), close=("\n</function_results>",)),
        json_mode=_JSON_MODE,
    ),
    # The weights of April 2026, which engines still render so, and the service's own template until July.
    "v4-preview": Layout(
        opening=_V4_OPENING,
        keeps="beside_tools",
        calls=dsml("tool_calls", no_arguments="\n"),
        tools=Tools(_V4_LEAD, _as_received, _V4_CLOSE),
        results=_V4_RESULTS,
        forced=tuple(dsml_opening("tool_calls")),
        prefaces={"max": _THOROUGH},
        json_mode=_JSON_MODE,
        one_user_turn=True,
    ),
    "v4": Layout(
        opening=_V4_OPENING,
        keeps="beside_tools",
        calls=dsml("tool_calls"),
        tools=Tools(_V4_LEAD, _normalised, _V4_CLOSE),
        results=_V4_RESULTS,
        forced=tuple(dsml_opening("tool_calls")),
        prefaces={"high": _THOROUGH, "max": _RELENTLESS},
        json_mode=_JSON_MODE,
        one_user_turn=True,
        blank_first=True,
    ),
    "v4.1": Layout(
        opening=_V4_OPENING,
        keeps="beside_tools",
        calls=dsml("calls", gap=" ", no_arguments="\n"),
        tools=Tools(_V41_LEAD, _normalised, _V4_CLOSE),
        results=_V4_RESULTS,
        forced=tuple(dsml_opening("calls", gap=" ")),
        prefaces={"low": _NUMBERED.format(50), "high": _NUMBERED.format(75), "max": _NUMBERED.format(100)},
        json_mode=schema_instruction({"type": "json_object"}),
        one_user_turn=True,
        system_marked=True,
        blank_first=True,
    ),
}
