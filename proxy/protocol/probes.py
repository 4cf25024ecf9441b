"""Calls that show one rule at work each: made to be refused, or to be followed to every upstream.

The protocol document is full of what becomes of them (`proxy.protocol.documents`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from translators.dashscope import kinds
from translators.dialogue import Json


@dataclass(frozen=True, slots=True)
class Probe:
    """A call made to see what becomes of it.

    rule:   the rule it is about
    given:  `parameters`, or the whole document where it has a `model` or an `input` of its own
    model:  the model it asks for
    stream: whether it asks for SSE
    """

    rule: str
    given: Json
    model: str = "deepseek-v3"
    stream: bool = False


TOOL: Final[Json] = {"type": "function", "function": {"name": "f"}}
SCHEMA: Final[Json] = {"type": "json_schema", "json_schema": {"name": "s", "schema": {"type": "object"}}}
THINKING: Final[Json] = {"enable_thinking": True, "incremental_output": True}


def _says(*turns: Json, **more: Any) -> Json:
    return {"model": "deepseek-v3", "input": {"messages": list(turns), **more}}


_USER: Final[Json] = {"role": "user", "content": "hi"}
_CALLING: Final[Json] = {"role": "assistant", "tool_calls": [{"id": "c", "function": {"name": "f"}}]}

STRUCTURE: Final = (
    Probe("REQ-1", {"input": {"prompt": "hi"}}),
    Probe("REQ-1", {"model": "deepseek-v3"}),
    Probe("MOD-2", {"model": "gpt", "input": {"prompt": "hi"}}),
    Probe("REQ-2", _says(_USER, prompt="hi")),
    Probe("REQ-2", {"model": "deepseek-v3", "input": {}}),
    Probe("REQ-2", _says()),
    Probe("REQ-3", _says({"role": "robot", "content": "hi"})),
    Probe("REQ-3", _says(_USER, {"role": "assistant", "content": "hello"})),
    Probe("REQ-3", _says({"role": "assistant", "content": "hello", "partial": True})),
    Probe("REQ-4", _says({"role": "user"})),
    Probe("REQ-4", _says({"role": "user", "content": [{"image": "a.png"}]})),
    Probe("REQ-5", _says(_USER, {"role": "tool", "content": "1"})),
    Probe("REQ-5", _says(_USER, _CALLING, _USER)),
    Probe(
        "REQ-6",
        {
            "model": "deepseek-v3.2",
            "input": {"messages": [_USER, {"role": "assistant", "content": "he", "partial": True}]},
            "parameters": {"enable_thinking": True},
        },
    ),
)

REFUSED: Final = (
    Probe("PAR-1", {"temperature": 2}),
    Probe("PAR-1", {"temperature": "a"}),
    Probe("PAR-1", {"temperature": True}),
    Probe("PAR-2", {"top_p": 0}),
    Probe("PAR-3", {"top_k": -1}),
    Probe("PAR-3", {"top_k": "a"}),
    Probe("PAR-3", {"top_k": 1.5}),
    Probe("PAR-4", {"seed": -1}),
    Probe("PAR-5", {"max_tokens": 0}),
    Probe("PAR-6", {"repetition_penalty": 0}),
    Probe("PAR-7", {"presence_penalty": 3}),
    Probe("PAR-7", {"frequency_penalty": 3}),
    Probe("PAR-8", {"n": 5}),
    Probe("PAR-8", {"n": 2, "tools": [TOOL]}),
    Probe("PAR-8", {"n": 2}, "deepseek-r1"),
    Probe("PAR-9", {"stop": ["a", 1]}),
    Probe("PAR-10", {"logprobs": 1}),
    Probe("PAR-10", {"top_logprobs": 6}),
    Probe("PAR-11", {"response_format": "json"}),
    Probe("PAR-11", {"response_format": {"type": "json_object"}}),
    Probe("PAR-11", {"response_format": SCHEMA, **THINKING}, "deepseek-v4-flash", stream=True),
    Probe("PAR-12", {"result_format": "xml"}),
    Probe("PAR-12", {"result_format": "text", "tools": [TOOL]}),
    Probe("PAR-13", {"incremental_output": "true"}),
    Probe("PAR-14", {"enable_thinking": True}, "deepseek-v3.2"),
    Probe("PAR-14", {"enable_thinking": True}, "deepseek-v3.2", stream=True),
    Probe("PAR-14", {"result_format": "text", **THINKING}, "deepseek-v3.2", stream=True),
    Probe("PAR-15", {"thinking_budget": 0, **THINKING}, "deepseek-v3.2", stream=True),
    Probe("PAR-16", {"tools": {}}),
    Probe("PAR-16", {"tools": [{"type": "function", "function": {"name": "search"}}]}),
    Probe("PAR-17", {"tools": [TOOL], "tool_choice": {"type": "function"}}),
    Probe("PAR-17", {"tools": [TOOL], "tool_choice": "any"}),
    Probe("PAR-17", {"tools": [TOOL], "tool_choice": TOOL}, "deepseek-r1"),
    Probe("PAR-18", {"parallel_tool_calls": []}),
    Probe("PAR-20", {"tool_stream": "true"}),
    Probe("PAR-19", {"enable_search": True}),
)

# The parameter that is looked at comes first; the rest is what it needs beside it.
CROSSED: Final = (
    Probe("PAR-1", {"temperature": 0.5}),
    Probe("PAR-2", {"top_p": 0.5}),
    Probe("PAR-3", {"top_k": 50}),
    Probe("PAR-4", {"seed": 7}),
    Probe("PAR-5", {"max_tokens": 100}),
    Probe("OUT-8", {"max_tokens": 100, **THINKING}, "deepseek-v3.2", stream=True),
    Probe("PAR-6", {"repetition_penalty": 1.5}),
    Probe("PAR-7", {"presence_penalty": 0.5}),
    Probe("PAR-7", {"frequency_penalty": 0.5}),
    Probe("PAR-8", {"n": 2}),
    Probe("PAR-9", {"stop": ["a"]}),
    Probe("PAR-9", {"stop": ["a"], **THINKING}, "deepseek-v3.2", stream=True),
    Probe("PAR-10", {"logprobs": True}),
    Probe("PAR-10", {"top_logprobs": 2, "logprobs": True}),
    Probe("PAR-11", {"response_format": SCHEMA}),
    Probe("PAR-14", {"enable_thinking": False}, "deepseek-v3.2"),
    Probe("PAR-14", THINKING, "deepseek-v3.2", stream=True),
    Probe("PAR-15", {"thinking_budget": 2_000, **THINKING}, "deepseek-v3.2", stream=True),
    Probe("PAR-16", {"tools": [TOOL]}),
    Probe("PAR-17", {"tool_choice": "required", "tools": [TOOL]}),
    Probe("PAR-17", {"tool_choice": TOOL, "tools": [TOOL]}),
    Probe("PAR-18", {"parallel_tool_calls": True, "tools": [TOOL]}),
)

# Every type of a field, and values that it takes and does not take.
TYPED: Final[Mapping[Callable[[Any, str], Any], tuple[object, ...]]] = {
    kinds.number: ("0.5", "a", True, []),
    kinds.integer: ("7", 7.0, 7.5, "a", True, []),
    kinds.boolean: ("true", 1, []),
    kinds.string: (1,),
    kinds.sequence: ({},),
    kinds.dictionary: ([],),
}
