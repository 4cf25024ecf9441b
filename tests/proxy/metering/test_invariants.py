"""Claims about the rules of a `close` line: its upstream calls, beside what `test_ledger` plants in whole journals."""

from __future__ import annotations

import pytest

from proxy.metering import invariants
from tests.proxy.metering.records import Json, closed, upstream_call, used


def breaches(record: Json) -> list[str]:
    return [breach for rule in invariants.RULES if (breach := rule.breach(record))]


@pytest.mark.parametrize(
    ("generated", "call", "breach"),
    [
        (used(5, 4), upstream_call(3, 4), "generated: input is 5, that of its upstream calls together 3"),
        (used(3, 4), upstream_call(3, 5), "generated: output is 4, that of its upstream calls together 5"),
        (used(3, 4, None, 1), upstream_call(3, 4), "generated: cached is 1, that of its upstream calls together 0"),
        (used(3, 4, 1), upstream_call(3, 4), "generated: reasoning is 1, that of its upstream calls together 0"),
    ],
)
def test_what_was_generated_is_the_sum_of_the_upstream_calls_in_each_column(
    generated: Json, call: Json, breach: str
) -> None:
    """MET-3."""
    assert breaches(closed("1", outcome="upstream_cut", generated=generated, calls=[call])) == [breach]


def test_the_basis_is_no_better_than_the_weakest_figure_shown() -> None:
    """MET-3: a call of which nothing is known shows no figure."""
    nothing = upstream_call(None, None, cached=None, reasoning=None, basis="none")
    weak = upstream_call(0, 0, basis="counted")
    strong = upstream_call(3, 4)
    assert breaches(closed("1", calls=[nothing, strong])) == []
    assert breaches(closed("1", calls=[weak, strong], basis="counted")) == []
    assert breaches(closed("1", calls=[weak, strong])) == [
        "basis: upstream_final, but one of its upstream calls is counted"
    ]
    assert breaches(closed("1", calls=[], basis="upstream_final")) == []


def test_of_one_upstream_call_all_is_delivered_and_of_several_no_more_than_all() -> None:
    """MET-6."""
    two = [upstream_call(3, 2, reasoning=1), upstream_call(3, 2, reasoning=1)]
    assert breaches(closed("1", generated=used(6, 4, 2), calls=two, usage=used(3, 4, 2))) == []
    assert breaches(closed("1", generated=used(6, 4, 2), calls=two, usage=used(3, 4, 3))) == [
        "reasoning: 3 delivered of 2 that its upstream calls generated"
    ]
    assert breaches(closed("1", usage=used(3, 4, 2))) == ["ok, but what was delivered is not what was generated"]


def test_of_an_answer_that_was_cut_here_no_more_is_delivered_than_upstream_generated() -> None:
    """MET-6, MET-3: upstream's last word is of all it wrote."""
    cut = [upstream_call(3, 8, reasoning=3) | {"end": "cut"}]
    assert breaches(closed("1", generated=used(3, 8, 3), calls=cut, usage=used(3, 6, 3))) == []
    assert breaches(closed("1", generated=used(3, 8, 3), calls=cut, usage=used(3, 9, 3))) == [
        "output: 9 delivered of 8 that its upstream calls generated"
    ]
    whole = [upstream_call(3, 8, reasoning=3) | {"end": "length"}]
    assert breaches(closed("1", generated=used(3, 8, 3), calls=whole, usage=used(3, 6, 3))) == [
        "ok, but what was delivered is not what was generated"
    ]


@pytest.mark.parametrize("side", ["usage", "generated"])
def test_a_call_that_never_went_upstream_has_no_tokens_on_either_side(side: str) -> None:
    """I7."""
    nothing = {"usage": used(0, 0), "generated": used(0, 0), "attempts": [], "outcome": "rejected"}
    assert breaches(closed("1", **nothing)) == []
    assert "tokens of a call that never went upstream" in breaches(closed("1", **{**nothing, side: used(3, 4)}))


@pytest.mark.parametrize("basis", ["upstream_final", "upstream_last", "counted"])
def test_upstream_calls_of_which_nothing_is_known_are_no_basis(basis: str) -> None:
    """MET-3."""
    nothing = upstream_call(None, None, cached=None, reasoning=None, basis="none")
    said = {"calls": [nothing], "generated": used(0, 0), "usage": used(0, 0), "outcome": "upstream_cut"}
    assert breaches(closed("1", **said, basis="none")) == []
    assert breaches(closed("1", **said, basis=basis)) == [f"basis: {basis}, but one of its upstream calls is none"]
