"""Rows of text into columns that line up, for people."""

from __future__ import annotations

from collections.abc import Sequence

import click


def show(head: Sequence[str], rows: Sequence[Sequence[str]], texts: int) -> None:
    """Show a table; the first `texts` columns are words, the others figures.

    head: names of columns; one of two words, `generated_input`, stands in two lines
    """
    split = [name.rpartition("_") for name in head]
    above, below = [first for first, _, _ in split], [last for _, _, last in split]
    lines = [*([above] if any(above) else []), below, *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = [
            cell.ljust(width) if position < texts else cell.rjust(width)
            for position, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        click.echo("  ".join(cells).rstrip())
