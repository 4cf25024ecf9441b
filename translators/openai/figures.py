"""An upstream `usage` object into figures; whatever is missing, null, negative or no number is simply not said.

What a figure is worth, a zero on the way or one beyond the model's window, is `usage.Upstream`'s to judge.
"""

from __future__ import annotations

from typing import Final

from translators.usage import Figures

# What a host of a model that does not think tells, without a cache.
SUMMED: Final = frozenset({"prompt_tokens", "completion_tokens", "total_tokens"})


def read(reported: object) -> Figures | None:
    """The figures of one `usage` object; None where there is no object at all.

    source: DeepSeek, vLLM, SGLang, llama.cpp and Ark usage objects, recorded; spec USE-3, USE-4
    """
    if not isinstance(reported, dict):
        return None
    prompt, completion = reported.get("prompt_tokens"), reported.get("completion_tokens")
    if type(prompt) is not int or prompt < 0:
        prompt = _figure(prompt)
    if type(completion) is not int or completion < 0:
        completion = _figure(completion)
    if reported.keys() <= SUMMED:
        return tuple.__new__(Figures, (prompt, completion, None, None, None))
    # SGLang and Azure put the chain at the top level.
    reasoning = _figure_in(reported, "completion_tokens_details", "reasoning_tokens", "reasoning_tokens")
    if prompt is not None and completion is not None and reasoning is not None and reasoning > completion:
        # Some servers keep the chain out of the completion: their own sum shows it.
        apart = prompt + completion + reasoning
        completion = completion + reasoning if _figure(reported.get("total_tokens")) == apart else completion
    return Figures(
        input=prompt,
        output=completion,
        reasoning=reasoning,
        # DeepSeek named its cache before OpenAI had a field for it.
        cached=_figure_in(reported, "prompt_tokens_details", "cached_tokens", "prompt_cache_hit_tokens"),
        # vLLM's word for it, and that of others.
        image=_figure_in(reported, "prompt_tokens_details", "multimodal_tokens", "image_tokens"),
    )


def _figure_in(reported: dict[str, object], part: str, name: str, at_the_top: str) -> int | None:
    """A figure that stands in a part of the usage, else at its top level."""
    details, found = reported.get(part), None
    if isinstance(details, dict):
        found = _figure(details.get(name))
    return found if found is not None or at_the_top not in reported else _figure(reported[at_the_top])


def _figure(value: object) -> int | None:
    """A whole number, also one that is written as 12.0 (spec USE-3)."""
    if type(value) is float and value.is_integer():
        value = int(value)
    return value if type(value) is int and value >= 0 else None
