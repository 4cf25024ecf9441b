"""The table of the fault matrix says what the tests say."""

from __future__ import annotations

from tests.faults import matrix


def test_the_table_is_fresh() -> None:
    """`python -m tests.faults.matrix` writes it."""
    assert matrix.PAGE.read_text("utf-8") == matrix.page()


def test_every_row_has_one_test_or_a_reason() -> None:
    numbers = [number for number, *_ in matrix.tests()]
    assert sorted([*numbers, *matrix.NOT_SHOWN, *matrix.ELSEWHERE]) == list(range(1, 100))
