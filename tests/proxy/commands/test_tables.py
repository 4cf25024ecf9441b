"""Claims about tables for people: columns line up, and a name of two words stands in two lines."""

from __future__ import annotations

import pytest

from proxy.commands import tables


def test_columns_line_up_words_to_the_left_and_figures_to_the_right(capsys: pytest.CaptureFixture[str]) -> None:
    tables.show(["day", "calls"], [["2026-11-22", "1"], ["all", "1,000"]], 1)
    assert capsys.readouterr().out.splitlines() == [
        "day         calls",
        "2026-11-22      1",
        "all         1,000",
    ]


def test_a_name_of_two_words_stands_in_two_lines(capsys: pytest.CaptureFixture[str]) -> None:
    tables.show(["upstream_model", "generated_input"], [["m", "1"]], 1)
    assert capsys.readouterr().out.splitlines() == [
        "upstream  generated",
        "model         input",
        "m                 1",
    ]
