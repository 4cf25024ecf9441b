"""An upstream `usage` object into figures; whatever is missing, null, negative or no number is simply not said.

What a figure is worth, a zero on the way or one beyond the model's window, is `usage.Upstream`'s to judge.
"""

from __future__ import annotations

from translators.usage import Figures


def read(reported: object) -> Figures | None:
    """The figures of one `usage` object; None where there is no object at all.

    source: DeepSeek, vLLM, SGLang, llama.cpp and Ark usage objects, recorded; spec USE-3, USE-4
    """
    if not isinstance(reported, dict):
        return None
    details = _part(reported, "completion_tokens_details")
    prompt_details = _part(reported, "prompt_tokens_details")
    prompt = _figure(reported.get("prompt_tokens"))
    completion = _figure(reported.get("completion_tokens"))
    # SGLang and Azure put the chain at the top level.
    reasoning = _first(details.get("reasoning_tokens"), reported.get("reasoning_tokens"))
    if prompt is not None and completion is not None and reasoning is not None and reasoning > completion:
        # Some servers keep the chain out of the completion: their own sum shows it.
        apart = prompt + completion + reasoning
        completion = completion + reasoning if _figure(reported.get("total_tokens")) == apart else completion
    return Figures(
        input=prompt,
        output=completion,
        reasoning=reasoning,
        # DeepSeek named its cache before OpenAI had a field for it.
        cached=_first(prompt_details.get("cached_tokens"), reported.get("prompt_cache_hit_tokens")),
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
    """A whole number, also one that is written as 12.0 (spec USE-3)."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if type(value) is int and value >= 0 else None
