"""The table of the fault matrix says what the tests say."""

from __future__ import annotations

import re

from tests.faults import attacks, matrix


def test_the_table_is_fresh() -> None:
    """`python -m tests.faults.matrix` writes it."""
    assert matrix.PAGE.read_text("utf-8") == matrix.page()


def test_every_row_has_one_test_or_a_reason() -> None:
    numbers = [number for number, *_ in matrix.tests()]
    assert sorted([*numbers, *matrix.NOT_SHOWN, *matrix.ELSEWHERE]) == list(range(1, 125))


def test_every_attack_is_shown_by_rows_and_tests_that_are_there() -> None:
    numbers = {number for number, *_ in matrix.tests()} | matrix.ELSEWHERE.keys()
    for line in (*attacks.page(), *attacks.gone()):
        where = line.rsplit(" | ", 1)[1].removesuffix(" |")
        assert {int(number) for number in re.findall(r"\b\d+\b", where)} <= numbers, line
        for file in re.findall(r"tests/\S+\.py", where):
            assert (matrix.HERE.parents[1] / file).is_file(), line
