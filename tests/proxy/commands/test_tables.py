"""Claims about tables for people: columns line up, and a name of two words stands in two lines."""

from __future__ import annotations

import os
import subprocess
import sys
import termios

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


def test_a_chinese_name_takes_two_columns_a_character(capsys: pytest.CaptureFixture[str]) -> None:
    tables.show(["key", "calls"], [["团队甲", "1"], ["team b", "20"]], 1)
    assert capsys.readouterr().out.splitlines() == [
        "key     calls",
        "团队甲      1",
        "team b     20",
    ]


ON_A_TERMINAL = """
from proxy.commands import tables
tables.show(["key", "model", "calls", "made_input", "total"], [["team a", "m", "1,000", "22", "333"]], 2)
"""
WHOLE = [
    "                       made",
    "key     model  calls  input  total",
    "team a  m      1,000     22    333",
]
IN_TWO = [
    "                       made",
    "key     model  calls  input",
    "team a  m      1,000     22",
    "",
    "key     model  total",
    "team a  m        333",
]
ONE_BY_ONE = [
    "key     model  calls",
    "team a  m      1,000",
    "",
    "                made",
    "key     model  input",
    "team a  m         22",
    "",
    "key     model  total",
    "team a  m        333",
]


@pytest.mark.parametrize(
    ("columns", "shown"), [(34, WHOLE), (33, IN_TWO), (27, IN_TWO), (26, ONE_BY_ONE), (5, ONE_BY_ONE)]
)
def test_figures_for_which_a_terminal_has_no_room_stand_below_with_their_words(columns: int, shown: list[str]) -> None:
    mine, its = os.openpty()
    termios.tcsetwinsize(its, (24, columns))
    environment = {name: said for name, said in os.environ.items() if name != "COLUMNS"}
    subprocess.run([sys.executable, "-c", ON_A_TERMINAL], stdout=its, env=environment, check=True)
    os.close(its)
    assert os.read(mine, 4096).decode().splitlines() == shown
    os.close(mine)
