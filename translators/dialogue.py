"""The neutral vocabulary both tongues meet in: what a call asks, and what an answer has used.

A caller's tongue turns its JSON into a `Call`, an upstream's turns the `Call` into its body; neither knows the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final, Literal, NamedTuple

Json = dict[str, Any]
# How much a model is to think, where no upstream can hold a budget in tokens.
Effort = Literal["low", "high", "max"]

Template = Literal["v3", "r1", "v3.1", "v3.2", "v4-preview", "v4", "v4.1"]

# Where the chain of thought is looked for: `auto` in the content of what always thinks, if that opens with the tag;
# `yes` in the content of every call that thinks, which begins inside the chain; `no` in its own field alone.
ThinkInContent = Literal["auto", "yes", "no"]


# Which of the native surface's two paths takes calls to a model; the route with a model in its path takes all (HTTP-3).
Path = Literal["text", "multimodal", "both"]


class Finish(Enum):
    """Why an answer ended.

    word: DashScope's own (spec OUT-2); it is the value, which an `Enum` looks up in Python
    """

    word: Literal["stop", "length", "tool_calls"]

    STOP = "stop"
    LENGTH = "length"
    TOOL_CALLS = "tool_calls"

    def __init__(self, word: Literal["stop", "length", "tool_calls"]) -> None:
        self.word = word


# Names of the module: asked of its class, a member takes as long as two calls (Python 3.11).
STOP, LENGTH, TOOL_CALLS = Finish


@dataclass(frozen=True, slots=True)
class Model:
    """One model as callers name it.

    id:              the name in a call, lower case
    thinking:        whether it thinks: never, when asked (hybrid), always
    context_tokens:  prompt, chain and answer together
    input_tokens:    the longest prompt
    chain_tokens:    the longest chain of thought; 0 where it never thinks
    answer_tokens:   the longest answer, the default of `max_tokens`
    template:        how its prompt is rendered, for counting
    enable_thinking: what a model that never thinks does with `enable_thinking: true`
    strict_thinking: whether thinking demands SSE, incremental output and message format (spec PAR-14)
    aliases:         further names it goes by
    think_in_content: whether its chain of thought may come inside the content (spec OUT-10)
    path:            which native path takes calls to it (spec HTTP-3)
    sees:            whether it takes images (spec REQ-4)
    retires:         the month, YYYY-MM, in which the service stops or stopped selling it; None where none is known
    upstream:        the id it has upstream, by dialect; a dialect without an entry gets `id`
    templates:       the prompt template of the model that serves it there, by dialect, where it differs
    source:          config/models.toml; Bailian's limits, partner spec
    """

    id: str
    thinking: Literal["never", "hybrid", "always"]
    context_tokens: int
    input_tokens: int
    chain_tokens: int
    answer_tokens: int
    template: Template
    enable_thinking: Literal["ignore", "refuse"] = "ignore"
    strict_thinking: bool = False
    aliases: tuple[str, ...] = ()
    think_in_content: ThinkInContent = "auto"
    path: Path = "text"
    sees: bool = False
    retires: str | None = None
    upstream: Mapping[str, str] = field(default_factory=dict)
    templates: Mapping[str, Template] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One function call the model asked for; `arguments` is JSON text exactly as generated."""

    id: str
    name: str
    arguments: str


class Image(NamedTuple):
    """A picture in a turn, as the caller gave it; nobody here ever fetches or decodes it.

    url:    an http(s) address, or the picture itself as a `data:` URL
    detail: how closely to look, where the caller said so
    kind:   what it is by its own first bytes (`png`, `jpeg`, `gif`, `webp`); None of an address
    tokens: what it counts in the prompt; None of an address, whose size is not known
    """

    url: str
    detail: str | None = None
    kind: str | None = None
    tokens: int | None = None


class Message(NamedTuple):
    """One turn of the conversation.

    content:      text, that of all parts together; None only on an assistant turn that is nothing but tool calls
    parts:        texts and images in the caller's order; only on a turn that has an image
    reasoning:    the chain of thought of an assistant turn, where the caller kept it
    tool_call_id: on a tool turn, the call it answers
    partial:      on the last assistant turn: go on writing it (prefix completion)
    """

    role: Literal["system", "user", "assistant", "tool"]
    content: str | None
    reasoning: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    partial: bool = False
    parts: tuple[str | Image, ...] = ()


# The rest of a turn that is a role and a text: to look for it is one comparison. A tool's has the id of its call.
TEXT_ALONE: Final = tuple(Message._field_defaults.values())


@dataclass(frozen=True, slots=True)
class Tool:
    """A function the model may call; `function` is the caller's object, key order kept, its schema made whole."""

    name: str
    function: Json


@dataclass(frozen=True, slots=True)
class ResponseFormat:
    """What the answer must look like; `schema` is the `json_schema` object of that type."""

    type: Literal["text", "json_object", "json_schema"]
    schema: Json | None = None


ToolChoice = Literal["auto", "none", "required"] | Tool


class Call(NamedTuple):
    """One checked call: every field has a meaning, nothing is left to check.

    None means "not said"; a default that DashScope states is filled in.
    max_tokens: limits the answer alone, never the chain (spec OUT-8)
    thinking:   whether this call thinks, the model's nature considered
    stops:      texts that end the answer, token ids decoded
    tool_stream: whether a tool call is shown in pieces as they come, else whole (spec SSE-7)
    asked_model: the model as the caller named it, at most 64 characters, for the log (spec MOD-6)
    form:       how its answer is to be laid out, beside `stream` and `incremental`; the tongue's own, which alone looks
                into it
    ignored:    names of fields that were not understood, for the debug log (spec HTTP-8)
    """

    model: Model
    messages: tuple[Message, ...]
    stream: bool
    incremental: bool = False
    thinking: bool = False
    thinking_budget: int | None = None
    max_tokens: int | None = None
    n: int = 1
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    seed: int | None = None
    repetition_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    stops: tuple[str, ...] = ()
    logprobs: bool = False
    top_logprobs: int | None = None
    response_format: ResponseFormat | None = None
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice = "auto"
    parallel_tool_calls: bool = False
    tool_stream: bool = False
    asked_model: str = ""
    form: Any = None
    ignored: tuple[str, ...] = ()

    @property
    def images(self) -> tuple[Image, ...]:
        """All of them, in order."""
        if not self.model.sees:
            return ()
        return tuple(part for message in self.messages for part in message.parts if isinstance(part, Image))

    @property
    def image_tokens(self) -> int | None:
        """What those whose size is known are in the prompt; None where there is none of them."""
        return sum(image.tokens or 0 for image in self.images) or None

    @property
    def is_countable(self) -> bool:
        """Whether its prompt can be counted before upstream has told: no image's size is unknown."""
        return all(image.tokens is not None for image in self.images)


class Usage(NamedTuple):
    """Tokens of one call or one choice, in tokens of the model's vocabulary.

    input:     the prompt as the chat template renders it
    output:    everything generated, reasoning and tool markup included
    reasoning: the part of `output` that is the visible chain of thought; None where the call does not think
    cached:    the part of `input` that upstream read from its cache; None where upstream does not tell
    image:     the part of `input` that is images, as far as their size is known; None where there is none of these
    source:    spec OUT-4, USE-1
    """

    input: int
    output: int
    reasoning: int | None = None
    cached: int | None = None
    image: int | None = None

    @property
    def total(self) -> int:
        """Always the sum; an upstream's own total is never believed (spec OUT-4)."""
        return self.input + self.output
