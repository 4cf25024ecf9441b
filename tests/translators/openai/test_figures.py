"""Usage objects of every upstream become figures; what is no figure is not said.

Source: spec USE-3, USE-4; SOURCES#usage-fields.
"""

from __future__ import annotations

import pytest

from translators import usage
from translators.openai import figures

REPORTS: dict[str, tuple[object, usage.Figures | None]] = {
    "DeepSeek": (
        {
            "prompt_tokens": 18,
            "completion_tokens": 219,
            "total_tokens": 237,
            "prompt_tokens_details": {"cached_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 205},
            "prompt_cache_hit_tokens": 0,
            "prompt_cache_miss_tokens": 18,
        },
        usage.Figures(18, 219, 205, 0),
    ),
    "DeepSeek's own name for its cache": ({"prompt_cache_hit_tokens": 64}, usage.Figures(cached=64)),
    "SGLang, Azure: the chain at the top": (
        {"prompt_tokens": 19, "completion_tokens": 1720, "prompt_tokens_details": None, "reasoning_tokens": 3},
        usage.Figures(19, 1720, 3),
    ),
    "vLLM": (
        {"prompt_tokens": 28, "completion_tokens": 14, "completion_tokens_details": {"reasoning_tokens": 0}},
        usage.Figures(28, 14, 0),
    ),
    "llama.cpp": ({"prompt_tokens": 1, "completion_tokens": 2}, usage.Figures(1, 2)),
    "vLLM, with details of the prompt": (
        {"prompt_tokens": 528, "prompt_tokens_details": {"cached_tokens": 16, "multimodal_tokens": 496}},
        usage.Figures(528, cached=16, image=496),
    ),
    "others": ({"image_tokens": 496}, usage.Figures(image=496)),
    "an explicit zero": ({"prompt_tokens": 0, "completion_tokens": 0}, usage.Figures(0, 0)),
    "nulls": ({"prompt_tokens": None, "completion_tokens": None}, usage.Figures()),
    "negative": ({"prompt_tokens": -1, "completion_tokens": -5}, usage.Figures()),
    "strings": ({"prompt_tokens": "9", "completion_tokens": "2"}, usage.Figures()),
    "whole floats": ({"prompt_tokens": 9.0, "completion_tokens": 2.0}, usage.Figures(9, 2)),
    "fractions and truths": ({"prompt_tokens": 9.5, "completion_tokens": True}, usage.Figures()),
    "no number at all": ({"prompt_tokens": float("nan"), "completion_tokens": float("inf")}, usage.Figures()),
    "a chain outside the completion": (
        {"prompt_tokens": 9, "completion_tokens": 2, "reasoning_tokens": 30, "total_tokens": 41},
        usage.Figures(9, 32, 30),
    ),
    "a chain as long as its completion": (
        {"prompt_tokens": 9, "completion_tokens": 30, "reasoning_tokens": 30, "total_tokens": 69},
        usage.Figures(9, 30, 30),
    ),
    "a chain longer than its completion, and a total that does not explain it": (
        {"prompt_tokens": 9, "completion_tokens": 2, "reasoning_tokens": 30, "total_tokens": 11},
        usage.Figures(9, 2, 30),
    ),
    "an unusable figure gives way to the other": (
        {"prompt_tokens_details": {"cached_tokens": -1}, "prompt_cache_hit_tokens": 3},
        usage.Figures(cached=3),
    ),
    "empty": ({}, usage.Figures()),
    "null": (None, None),
    "text": ("none", None),
    "list": ([], None),
}


@pytest.mark.parametrize("name", REPORTS)
def test_a_report_is_read_figure_by_figure(name: str) -> None:
    reported, expected = REPORTS[name]
    assert figures.read(reported) == expected
