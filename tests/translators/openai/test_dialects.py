"""The rows of the dialect table keep the promises that its readers rely on."""

import typing

import pytest

from config import pools
from translators.dialogue import Effort, Template
from translators.openai import dialects
from translators.openai.dialects import DIALECTS, Dialect, Native

ROWS = pytest.mark.parametrize("row", DIALECTS.values(), ids=DIALECTS.keys())


def test_every_dialect_that_settings_offer_has_a_row() -> None:
    assert set(DIALECTS) == set(pools.DIALECTS)


@ROWS
def test_thinking_on_and_off_are_said_by_the_same_fields(row: Dialect) -> None:
    """PAR-14."""
    assert row.thinking[True].keys() == row.thinking[False].keys()
    assert row.thinking[True] != row.thinking[False]


@ROWS
def test_a_budget_is_held_by_somebody_who_can(row: Dialect) -> None:
    """OUT-9: counting needs a continuation, an effort needs words."""
    if row.budget == "continue":
        assert row.continuation.closes
        assert row.efforts or not row.continuation.alone
    if row.budget == "effort":
        assert set(row.efforts) == set(typing.get_args(dialects.Effort))
        assert not row.efforts_v4 or set(row.efforts_v4) == set(row.efforts)
    if isinstance(row.budget, Native):
        assert row.budget.least >= 1


@pytest.mark.parametrize(
    ("name", "template", "words"),
    [
        ("ark", "v3.2", ["low", "medium", "high"]),
        ("ark", "v4", ["low", "high", "max"]),
        ("ark", "v4.1", ["low", "high", "max"]),
        ("openai", "v4", ["low", "medium", "high"]),
        ("siliconflow", "v4", ["high", "high", "max"]),
        ("vllm", "v4", [None, None, None]),
    ],
)
def test_an_effort_is_said_in_the_upstreams_word_for_it(name: str, template: Template, words: list[str | None]) -> None:
    """OUT-9: Ark has minimal, low, medium, high and max for V4, and nothing above high before."""
    efforts: tuple[Effort, ...] = ("low", "high", "max")
    assert [dialects.DIALECTS[name].word_for(effort, template) for effort in efforts] == words


@ROWS
def test_usage_is_always_asked_for(row: Dialect) -> None:
    """USE-3."""
    assert row.stream_options["include_usage"] is True


@ROWS
def test_what_dashscope_allows_fits(row: Dialect) -> None:
    """PAR-8, PAR-10: n up to 4, five alternatives."""
    assert 1 <= row.most_choices <= 4
    assert row.most_logprobs >= 5


@pytest.mark.parametrize(
    ("budget", "effort"),
    [(1, "low"), (1_024, "low"), (1_025, "high"), (16_384, "high"), (16_385, "max"), (393_216, "max")],
)
def test_a_budget_stands_for_an_effort(budget: int, effort: str) -> None:
    assert dialects.effort(budget) == effort
