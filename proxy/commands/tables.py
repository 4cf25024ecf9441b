"""Rows of text into columns that line up, for people."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator, Sequence

import click

from proxy.commands.texts import padded, width

GAP = "  "


def show(head: Sequence[str], rows: Sequence[Sequence[str]], texts: int) -> None:
    """Show a table; the first `texts` columns are words, the others figures.

    A terminal too narrow for all figures has them in several tables below each other, each with the words.

    head: names of columns; one of two words, `generated_input`, stands in two lines
    """
    split = [name.rpartition("_") for name in head]
    above, below = [first for first, _, _ in split], [last for _, _, last in split]
    widths = [max(map(width, column)) for column in zip(above, below, *rows, strict=True)]
    for number, shown in enumerate(_pieces(widths, texts, _room())):
        if number:
            click.echo()
        names = [above] if any(above[column] for column in shown) else []
        for line in [*names, below, *rows]:
            cells = [_cell(line[column], widths[column], is_figure=column >= texts) for column in shown]
            click.echo(GAP.join(cells).rstrip())


def _pieces(widths: Sequence[int], texts: int, room: int) -> Iterator[list[int]]:
    """Which columns stand beside each other: the words, and as many figures as there is room for, at least one."""
    words = [*range(texts)]
    shown, taken = words, sum(widths[:texts]) + len(GAP) * texts
    for column in range(texts, len(widths)):
        if len(shown) > texts and taken + widths[column] > room:
            yield shown
            shown, taken = words, sum(widths[:texts]) + len(GAP) * texts
        shown, taken = [*shown, column], taken + widths[column] + len(GAP)
    yield shown


def _room() -> int:
    """How many columns there are: those of the terminal, and no end of them in a file."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else sys.maxsize


def _cell(text: str, columns: int, *, is_figure: bool) -> str:
    return " " * (columns - width(text)) + text if is_figure else padded(text, columns)
