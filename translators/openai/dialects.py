"""How the upstreams differ: one row of facts per OpenAI-style server, read by those who write its bodies.

Sources are cited per field: DeepSeek API guide; `deepseek-recipe` 0.2.0, the vendor's own request conversion;
vLLM 0.32 and llama.cpp b11549, captured; SGLang 0.5.23, read; SiliconFlow and Ark, documentation.
Source: SOURCES#deepseek-request, #engine-request, #host-request.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from translators.dialogue import Effort, Json, Template

# A budget that no upstream can hold is said as an effort: up to so many tokens, this much (SOURCES#thinking-budget).
EFFORT_STEPS: tuple[tuple[int, Effort], ...] = ((1_024, "low"), (16_384, "high"))
# Templates of V4 and later.
V4 = frozenset[Template]({"v4-preview", "v4", "v4.1"})


@dataclass(frozen=True, slots=True)
class Native:
    """A thinking budget that the upstream holds itself, in tokens between `least` and `most`."""

    field: str
    least: int = 1
    most: int | None = None


@dataclass(frozen=True, slots=True)
class Continuation:
    """How a last assistant message is gone on with instead of answered (spec REQ-6, OUT-9).

    path:       where such a call goes
    message:    what the message carries beside its text
    body:       what the body carries
    alone:      whether it is refused beside tools and beside a response format
    chain_from: templates whose renderer reads a closed chain from `reasoning_content`;
                under any other the chain is written in front of the text, closed by `</think>`
    closes:     whether a chain closed in that way is known to be gone on with
    """

    path: str = "/chat/completions"
    message: Json = field(default_factory=dict)
    body: Json = field(default_factory=dict)
    alone: bool = False
    chain_from: frozenset[Template] = frozenset()
    closes: bool = False


@dataclass(frozen=True, slots=True)
class Dialect:
    """One way of speaking `/chat/completions`.

    name:             the word of settings and of `Model.upstream`
    thinking:         the fields that switch it; one of the two is always sent, for the default differs (spec PAR-14)
    budget:           who holds a thinking budget: the upstream, we by counting, or nobody (an effort is asked for)
    efforts:          the upstream's words for an effort, in `reasoning_effort`; empty where it has none
    efforts_v4:       its words for V4 and later, where those are others
    counts_chain:     whether `max_tokens` includes the chain of thought (spec OUT-8)
    most_tokens:      the largest `max_tokens` that is not refused; None: the context is the bound
    most_choices:     the largest `n` served with usage that can be trusted; more is fanned out (spec OUT-7)
    most_stops:       the longest `stop` list; None: no bound
    stops_in_chain:   whether a stop also ends the chain of thought, which it must not (spec PAR-9)
    most_logprobs:    the largest `top_logprobs`
    logprobs_beside_tools: whether a stream may have both
    sampling:         our sampling fields by the upstream's name; one that is not listed does not cross
    seeds:            a seed is taken modulo this
    json_schema:      whether the answer can be held to a schema (else it is instructed, spec PAR-11)
    named_tool:       whether `tool_choice` may name a function (else that tool alone is sent, and required)
    parallel_tools:   whether `parallel_tool_calls` is understood
    stream_options:   asks for usage, on every chunk where the upstream can
    continuation:     how a prefix is completed
    repeats_prefix:   whether the JSON answer to a prefix starts with the prefix again
    keeps_reasoning:  whether `reasoning_content` of the history is understood (spec REQ-7)
    counts_close:     whether `</think>` is part of its `completion_tokens`
    counts_end:       whether the end-of-sentence token is
    tool_images:      whether a tool's answer may hold images, as a user's turn may everywhere (SOURCES#images)
    """

    name: str
    thinking: Mapping[bool, Json]
    budget: Native | Literal["continue", "effort"]
    sampling: Mapping[str, str]
    efforts: Mapping[Effort, str] = field(default_factory=dict)
    efforts_v4: Mapping[Effort, str] = field(default_factory=dict)
    counts_chain: bool = True
    most_tokens: int | None = None
    most_choices: int = 1
    most_stops: int | None = None
    stops_in_chain: bool = True
    most_logprobs: int = 20
    logprobs_beside_tools: bool = True
    seeds: int = 2**63
    json_schema: bool = False
    named_tool: bool = True
    parallel_tools: bool = False
    stream_options: Json = field(default_factory=lambda: {"include_usage": True})
    continuation: Continuation = Continuation()
    repeats_prefix: bool = False
    keeps_reasoning: bool = True
    counts_close: bool = True
    counts_end: bool = False
    tool_images: bool = True

    def word_for(self, effort: Effort, template: Template) -> str | None:
        """What the upstream calls an effort of a model with this template; None where it has no words for efforts."""
        return (self.efforts_v4 if template in V4 else {}).get(effort) or self.efforts.get(effort)


def effort(budget_tokens: int) -> Effort:
    """Name the effort that stands for a budget the upstream cannot hold."""
    return next((word for limit, word in EFFORT_STEPS if budget_tokens <= limit), "max")


_COMMON = {name: name for name in ("temperature", "top_p", "presence_penalty", "frequency_penalty")}
_ENGINE = _COMMON | {name: name for name in ("top_k", "seed", "repetition_penalty")}

# Templates of DeepSeek V3.1 and later read `thinking`, Qwen-like ones `enable_thinking`; both engines ignore the other.
_TEMPLATE_SWITCH = {on: {"chat_template_kwargs": {"thinking": on, "enable_thinking": on}} for on in (True, False)}
_TYPE_SWITCH = {True: {"thinking": {"type": "enabled"}}, False: {"thinking": {"type": "disabled"}}}
_CONTINUE_FIELDS = {"continue_final_message": True, "add_generation_prompt": False}
_USAGE_ON_EVERY_CHUNK = {"include_usage": True, "continuous_usage_stats": True}

_ROWS = (
    # api.deepseek.com. Only n = 1; stops: "Stop string array too long: 17", matched by its parser after the chain;
    # prefix completion under /beta alone, and "Function call should not be used with prefix".
    Dialect(
        name="deepseek",
        thinking=_TYPE_SWITCH,
        budget="continue",
        sampling=_COMMON | {"seed": "seed"},
        efforts={"low": "low", "high": "high", "max": "max"},
        most_tokens=393_216,
        most_stops=16,
        stops_in_chain=False,
        continuation=Continuation(
            path="/beta/chat/completions",
            message={"prefix": True},
            alone=True,
            chain_from=frozenset(get_args(Template)),
            closes=True,
        ),
    ),
    # The budget needs `--reasoning-parser` and `--reasoning-config` on the server: without them a call that has one
    # is answered by an error, never by a chain that is longer than allowed.
    Dialect(
        name="vllm",
        thinking=_TEMPLATE_SWITCH,
        budget=Native("thinking_token_budget"),
        sampling=_ENGINE,
        most_choices=4,
        json_schema=True,
        parallel_tools=True,
        stream_options=_USAGE_ON_EVERY_CHUNK,
        continuation=Continuation(body=_CONTINUE_FIELDS),
        counts_end=True,
    ),
    # Its budget is a logits processor that the server must have been started with, so we count instead.
    Dialect(
        name="sglang",
        thinking=_TEMPLATE_SWITCH,
        budget="continue",
        sampling=_ENGINE,
        efforts={"low": "low", "high": "high", "max": "max"},
        most_choices=4,
        json_schema=True,
        parallel_tools=True,
        stream_options=_USAGE_ON_EVERY_CHUNK,
        continuation=Continuation(body=_CONTINUE_FIELDS, chain_from=V4, closes=True),
        counts_end=True,
    ),
    # `reasoning_budget_tokens` is ignored with DeepSeek's templates, so we count. Usage is that of one choice only.
    # A last assistant message is gone on with unasked, text appended raw. The seed is 32 bits, all ones: random.
    Dialect(
        name="llamacpp",
        thinking=_TEMPLATE_SWITCH,
        budget="continue",
        sampling=_ENGINE | {"repetition_penalty": "repeat_penalty"},
        seeds=2**32 - 1,
        logprobs_beside_tools=False,
        json_schema=True,
        named_tool=False,
        parallel_tools=True,
        continuation=Continuation(closes=True),
        repeats_prefix=True,
        counts_end=True,
    ),
    Dialect(
        name="siliconflow",
        thinking={True: {"enable_thinking": True}, False: {"enable_thinking": False}},
        budget=Native("thinking_budget", least=128, most=32_768),
        sampling=_COMMON | {"top_k": "top_k"},
        efforts={"low": "high", "high": "high", "max": "max"},
        counts_chain=False,
        most_stops=4,
        tool_images=False,
    ),
    # Silently answers n > 1 with one choice. Whether `max_tokens` includes the chain is not documented for every
    # model: taken as if it did, for then the worst is an answer that we cut. V4 has its own words for efforts there,
    # the vendor's three among them (minimal, low, medium, high, max); older models know none above high.
    Dialect(
        name="ark",
        thinking=_TYPE_SWITCH,
        budget="effort",
        sampling=_COMMON,
        efforts={"low": "low", "high": "medium", "max": "high"},
        efforts_v4={"low": "low", "high": "high", "max": "max"},
        most_stops=4,
        stream_options={"include_usage": True, "chunk_include_usage": True},
        tool_images=False,
    ),
    # Any other host: what OpenAI itself documents, and nothing that a strict server would refuse.
    Dialect(
        name="openai",
        thinking={True: {"reasoning_effort": "high"}, False: {"reasoning_effort": "none"}},
        budget="effort",
        sampling=_COMMON | {"seed": "seed"},
        efforts={"low": "low", "high": "medium", "max": "high"},
        most_stops=4,
        json_schema=True,
        parallel_tools=True,
        keeps_reasoning=False,
        tool_images=False,
    ),
)

DIALECTS: Mapping[str, Dialect] = {row.name: row for row in _ROWS}
