"""The fields of a call of the compatible surface: DashScope's own table, read in this tongue's words (spec COM-8).

A parameter is checked by the row of `dashscope.parameters`: what the two surfaces do differently is all that is here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

from translators import faults
from translators.dashscope import kinds, parameters
from translators.dashscope.parameters import Row, Table
from translators.dashscope.rules import Case
from translators.dialogue import Json

Kind = Callable[[Any, str], Any]

# What the native surface alone asks of its callers, and why it is nothing here.
NATIVE_ALONE: Final[Mapping[str, str]] = {
    "result_format": "a choice has a message, always",
    "incremental_output": "a chunk says what is new, always",
    "tool_stream": "a tool call comes in pieces, always",
}

LARGEST_SEED: Final = 2**31 - 1
WORDS: Final[Mapping[Kind, str]] = {
    kinds.number: "Float",
    kinds.integer: "Integer",
    kinds.boolean: "Boolean",
    kinds.dictionary: "Object",
    kinds.sequence: "Array",
}


def typed(read: Kind) -> Kind:
    """A reader that takes the same values, and refuses the others in the words of this surface."""

    def reader(value: Any, path: str) -> Any:
        try:
            return read(value, path)
        except faults.Refusal:
            raise faults.Refusal(faults.invalid(f"'{path}' must be {WORDS[read]}")) from None

    return reader


def seed(value: int, case: Case) -> int:  # noqa: ARG001 - the shape every rule has
    """A seed, whose range is smaller here."""
    if value < 0:
        raise faults.Refusal(faults.invalid(f"{value} is lesser than the minimum of 0 - 'seed'", "invalid_value"))
    if value > LARGEST_SEED:
        text = f"{value} is greater than the maximum of {LARGEST_SEED} - 'seed'"
        raise faults.Refusal(faults.invalid(text, "invalid_value"))
    return value


# What a row has otherwise here.
OWN: Final[Mapping[str, Json]] = {
    "seed": {"rule": seed},
    "max_tokens": {"aliases": ("max_completion_tokens",)},
}


def _here(row: Row) -> Row:
    kind = row.kind if row.kind is kinds.anything else typed(row.kind)
    return replace(row, kind=kind, **OWN.get(row.theirs, {}))


TABLE: Final = Table(tuple(_here(row) for row in parameters.ROWS if row.theirs not in NATIVE_ALONE), root="")

# Known to clients, without a meaning here (spec COM-10). Anything else is dropped as unknown.
DROPPED: Final[Mapping[str, str]] = {
    "user": "names the caller's own end user, who is none of the upstream's business",
    "store": "nothing is kept here",
    "metadata": "belongs to what is kept, and nothing is",
    "service_tier": "an upstream has one",
    "prediction": "no upstream takes a draft of the answer",
    "modalities": "text is all there is",
    "audio": "text is all there is",
    "verbosity": "no upstream has it",
    "prompt_cache_key": "an upstream finds its cache by the prompt",
    "safety_identifier": "names the caller's own end user, who is none of the upstream's business",
    "logit_bias": "DeepSeek has no token biases",
    "functions": "the older form of tools",
    "function_call": "the older form of tool_choice",
    "web_search_options": "no upstream searches the web",
    "search_options": "tunes enable_search, which is refused",
    "vl_high_resolution_images": "for models that see",
    "max_input_tokens": "a prompt is never shortened here",
    "extra_body": "what the OpenAI SDKs have a parameter for; its fields are meant to stand beside the others",
    "input": "the native surface's",
    "parameters": "the native surface's",
    **NATIVE_ALONE,
}
