"""The hand-written parts of the OpenAPI document: schemas that no table of the code holds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from translators import faults
from translators.dashscope import call, messages, rules, tools
from translators.dialogue import Json

_TEXT_PART: Final[Json] = {
    "type": "object",
    "properties": {"type": {"const": "text"}, "text": {"type": ["string", "null"]}},
    "required": ["text"],
}
TEXT: Final[Json] = {
    "description": "A text, or parts of one, which are joined. A model that sees takes images as well, in turns of "
    'users and tools: `{"image": URL}`, with `detail` beside it; to others they are refused (REQ-4).',
    "anyOf": [{"type": "string"}, {"type": "array", "items": _TEXT_PART}],
}
NAME: Final[Json] = {"type": "string", "minLength": 1}
TOOL_CALL: Final[Json] = {
    "type": "object",
    "properties": {
        "id": {"description": "A string; anything else counts as none."},
        "function": {
            "type": "object",
            "properties": {
                "name": NAME,
                "arguments": {"type": ["string", "object", "null"], "description": "JSON in a string."},
            },
            "required": ["name"],
        },
    },
    "required": ["function"],
}
TOOL: Final[Json] = {
    "type": "object",
    "properties": {
        "type": {"const": "function"},
        "function": {
            "type": "object",
            "properties": {
                "name": {"type": "string", "pattern": "^[a-zA-Z0-9_-]{1,64}$", "not": {"const": "search"}},
                "description": {"description": "For the model."},
                "parameters": {"type": ["object", "null"], "description": "A JSON schema."},
            },
            "required": ["name"],
        },
    },
    "required": ["function"],
}
# Any other word is no more than ignored; to name these two shows them to readers, and to what makes calls up.
SSE_HEADER: Final[Json] = {"anyOf": [{"enum": ["enable", "disable"]}, {"type": "string"}]}
# What the rule of a parameter says beyond its type; where this is silent the rule's own bounds and the type speak.
SAID: Final[Mapping[str, Json]] = {
    "top_k": {"type": ["integer", "null"], "minimum": 0},
    "max_tokens": {"type": ["integer", "null"], "minimum": 1},
    "n": {"type": ["integer", "null"], "minimum": 1, "maximum": 4},
    "stop": {
        "anyOf": [
            {"type": ["string", "null"]},
            {"type": "array", "maxItems": rules.MOST_STOPS, "items": {"type": "string"}},
            {"type": "array", "maxItems": rules.MOST_STOPS, "items": {"type": "integer", "minimum": 0}},
            {
                "type": "array",
                "maxItems": rules.MOST_STOPS,
                "items": {"type": "array", "items": {"type": "integer", "minimum": 0}},
            },
        ]
    },
    "top_logprobs": {"type": ["integer", "null"], "minimum": 0, "maximum": 5},
    "response_format": {
        "anyOf": [
            {"type": "null"},
            {
                "type": "object",
                "properties": {"type": {"enum": ["text", "json_object"]}},
                "required": ["type"],
            },
            {
                "type": "object",
                "properties": {"type": {"const": "json_schema"}, "json_schema": {"type": "object"}},
                "required": ["type", "json_schema"],
            },
        ]
    },
    "result_format": {"enum": ["message", "text", None]},
    "tools": {"type": ["array", "null"], "maxItems": tools.MOST_TOOLS, "items": TOOL},
    "tool_choice": {
        "anyOf": [
            {"enum": [*tools.CHOICES, None]},
            {
                "type": "object",
                "properties": {
                    "type": {"const": "function"},
                    "function": {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]},
                },
                "required": ["function"],
            },
        ]
    },
    "enable_search": {"enum": [False, None]},
}
# Refusals of calls that the schema lets through: one field's range hangs on another, or on the model.
CROSS_FIELD: Final[tuple[tuple[str, str], ...]] = (
    ("HTTP-3", faults.WRONG_ENDPOINT.message),
    ("REQ-3", messages.WRONG_ROLE),
    ("REQ-5", messages.ORPHAN),
    ("REQ-5", messages.UNANSWERED),
    ("REQ-6", call.PARTIAL_WHILE_THINKING),
    ("REQ-9", messages.NOT_JSON),
    ("PAR-8", rules.N_WITH_TOOLS),
    ("PAR-8", rules.N_WITH_THINKING),
    ("PAR-9", rules.STOP_KINDS),
    ("PAR-11", rules.NO_JSON_WORD),
    ("PAR-11", rules.JSON_WHILE_THINKING),
    ("PAR-12", rules.RESULT_FORMAT_WITH_TOOLS),
    *(("PAR-14", text) for _, text in rules.THINKING_DEMANDS),
    ("PAR-17", tools.WRONG_CHOICE),
)
_READY: Final[Json] = {
    "type": "object",
    "properties": {"ready": {"type": "boolean"}, "reasons": {"type": "array", "items": {"type": "string"}}},
    "required": ["ready", "reasons"],
}
_ASSISTANT: Final[Json] = {
    "role": {"const": "assistant"},
    "reasoning_content": {"type": ["string", "null"], "description": "The chain of thought of an earlier turn."},
    "partial": {"description": "`true` on the last message: go on writing it."},
}
