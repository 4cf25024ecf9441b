"""An upstream `usage` object into figures; whatever is missing, null, negative or no number is simply not said."""

from __future__ import annotations

from translators.usage import Figures

# No answer has this many tokens: a larger figure is garbage, and garbage must not reach a bill.
ABSURD = 1 << 40


def read(reported: object) -> Figures | None:
    """The figures of one `usage` object; None where there is no object at all.

    source: DeepSeek, vLLM, SGLang, llama.cpp and Ark usage objects, recorded; spec USE-3, USE-4
    """
    if not isinstance(reported, dict):
        return None
    details = _part(reported, "completion_tokens_details")
    prompt = _part(reported, "prompt_tokens_details")
    return Figures(
        input=_figure(reported.get("prompt_tokens")),
        output=_figure(reported.get("completion_tokens")),
        # SGLang and Azure put the chain at the top level.
        reasoning=_first(details.get("reasoning_tokens"), reported.get("reasoning_tokens")),
        # DeepSeek named its cache before OpenAI had a field for it.
        cached=_first(prompt.get("cached_tokens"), reported.get("prompt_cache_hit_tokens")),
    )


def _part(reported: dict[str, object], name: str) -> dict[str, object]:
    part = reported.get(name)
    return part if isinstance(part, dict) else {}


def _first(*candidates: object) -> int | None:
    for value in candidates:
        if (figure := _figure(value)) is not None:
            return figure
    return None


def _figure(value: object) -> int | None:
    return value if type(value) is int and 0 <= value < ABSURD else None
