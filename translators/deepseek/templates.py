"""How each DeepSeek generation lays a conversation out before the model sees it: one row of facts per template.

Published with the models and confirmed by recorded token counts; V4 and V4.1 as the vendor's renderer writes them
(`deepseek-recipe` 0.2.0). Source: SOURCES#chat-templates, #recorded-prompts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from translators.deepseek import instructions
from translators.deepseek.instructions import Tools
from translators.deepseek.markup import Markup, Piece, Special, dsml, tokens
from translators.dialogue import Effort, Template

Before = Literal["user", "tool"]
Opening = Mapping[tuple[Before, bool], tuple[Piece, ...]]


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
    opens_forced:  whether a forced `tool_choice` puts the opening of the calls into the prompt
    prefaces:      what an effort puts before everything in a thinking call; high where none is said
    json_mode:     the instruction of JSON mode; "" where the server says nothing
    one_user_turn: whether user messages and tool results that follow each other share a turn
    opens_each:    whether every user message and block of results is followed by the opening, answered or not
    systems:       where system messages stand: joined in front; each in its place; each in its place behind a token
    blank_first:   whether a blank line leads the first instruction even where no system message is
    tools_first:   whether the instructions stand before the first system message, not behind it
    asked:         what opens an answer to the user, without its chain and with it: special tokens, the text behind them
    """

    opening: Opening
    keeps: Literal["never", "since_user", "beside_tools"]
    calls: Markup
    tools: Tools
    results: Results
    opens_forced: bool = False
    prefaces: Mapping[Effort, str] = field(default_factory=dict)
    json_mode: str = ""
    one_user_turn: bool = False
    opens_each: bool = False
    systems: Literal["joined", "in_place", "marked"] = "joined"
    blank_first: bool = False
    tools_first: bool = False
    asked: tuple[tuple[int, str], tuple[int, str]] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "asked", (_marks(self.opening["user", False]), _marks(self.opening["user", True])))


def _marks(opening: Sequence[Piece]) -> tuple[int, str]:
    """How many special tokens an opening is, and the text behind the last of them; it has no other."""
    specials = sum(isinstance(piece, Special) for piece in opening)
    return specials, "".join(piece for piece in opening[specials:] if isinstance(piece, str))


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
    # Also what R1 had at first, and has at Bailian: the model itself writes `<think>` (SOURCES#bailian-r1).
    "v3": Layout(
        opening=_V3_OPENING,
        keeps="never",
        calls=tokens(*_FENCED_CALLS, line="\n"),
        tools=instructions.V3_TOOLS,
        results=Results(
            (Special.OUTPUTS,), (Special.OUTPUT, Special.OUTPUT_END), between="\n", close=(Special.OUTPUTS_END,)
        ),
    ),
    "r1": Layout(
        opening=_R1_OPENING,
        keeps="never",
        calls=tokens(*_FENCED_CALLS, line="\n"),
        tools=instructions.V3_TOOLS,
        results=Results((Special.OUTPUTS,), (Special.OUTPUT, Special.OUTPUT_END), close=(Special.OUTPUTS_END,)),
    ),
    "v3.1": Layout(
        opening=_V31_OPENING,
        keeps="never",
        calls=tokens("", "<｜tool▁sep｜>", ""),
        tools=instructions.V31_TOOLS,
        results=Results(each=(Special.OUTPUT, Special.OUTPUT_END)),
    ),
    "v3.2": Layout(
        opening=_V32_OPENING,
        keeps="since_user",
        calls=dsml("function_calls", no_arguments="\n"),
        tools=instructions.V32_TOOLS,
        results=Results(("\n\n<function_results>",), ("\n<result>", "</result>"), close=("\n</function_results>",)),
        json_mode=instructions.JSON_MODE,
        opens_each=True,
    ),
    # The weights of April 2026, which engines rendered so until August, and the service's own template until July; one
    # recorded prompt with two system messages and strict tools, 976 = 976 tokens.
    "v4-preview": Layout(
        opening=_V4_OPENING,
        keeps="beside_tools",
        calls=dsml("tool_calls", no_arguments="\n"),
        tools=instructions.V4_PREVIEW_TOOLS,
        results=_V4_RESULTS,
        opens_forced=True,
        prefaces={"max": instructions.THOROUGH},
        json_mode=instructions.JSON_MODE,
        one_user_turn=True,
        systems="in_place",
    ),
    "v4": Layout(
        opening=_V4_OPENING,
        keeps="beside_tools",
        calls=dsml("tool_calls"),
        tools=instructions.V4_TOOLS,
        results=_V4_RESULTS,
        opens_forced=True,
        prefaces={"high": instructions.THOROUGH, "max": instructions.RELENTLESS},
        json_mode=instructions.JSON_MODE,
        one_user_turn=True,
        blank_first=True,
    ),
    "v4.1": Layout(
        opening=_V4_OPENING,
        keeps="beside_tools",
        calls=dsml("calls", gap=" ", no_arguments="\n"),
        tools=instructions.V41_TOOLS,
        results=_V4_RESULTS,
        opens_forced=True,
        prefaces={
            "low": instructions.NUMBERED.format(50),
            "high": instructions.NUMBERED.format(75),
            "max": instructions.NUMBERED.format(100),
        },
        json_mode=instructions.schema({"type": "json_object"}),
        one_user_turn=True,
        systems="marked",
        blank_first=True,
    ),
}

# vLLM and SGLang render V3.2 and, until August 2026, V4 by the encoders published with the weights, and put tools into
# a system message themselves: SGLang into the first one, vLLM into an empty one in front of all (vLLM 0.19, SGLang
# 0.5.12, read). A response format is theirs to enforce and not told to the model.
_SGLANG = {"blank_first": True, "systems": "in_place", "json_mode": ""}
_BY_ENGINE: Mapping[str, Mapping[str, Any]] = {"sglang": _SGLANG, "vllm": {**_SGLANG, "tools_first": True}}
_ENCODED: Mapping[Template, Tools] = {
    "v3.2": instructions.V32_TOOLS,
    "v4-preview": instructions.V4_ENCODED_TOOLS,
}
# Rows of a template as one dialect has it; any other dialect has the row above.
VARIANTS: Mapping[tuple[Template, str], Layout] = {
    (template, engine): replace(LAYOUTS[template], tools=tools, **changes)
    for template, tools in _ENCODED.items()
    for engine, changes in _BY_ENGINE.items()
}


def layout(template: Template, dialect: str = "") -> Layout:
    """How a template lays a conversation out where `dialect` is spoken."""
    return VARIANTS.get((template, dialect), LAYOUTS[template])
