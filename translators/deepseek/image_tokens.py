"""Size of an image -> the tokens it is in a prompt of DeepSeek's models that see, by the vendor's own rule.

An image becomes patches of 14 pixels, three by three of them one cell; each row of cells ends with a mark, and two
marks stand around the whole. Small images are blown up first, large ones shrunk until they fit.
Source: `deepseek-recipe` 0.2.0, equal on 25,000 sizes; SOURCES#images.
"""

from __future__ import annotations

from math import ceil, floor, sqrt
from typing import Final

PATCH: Final = 14
CELL: Final = 3 * PATCH
LEAST_PIXELS: Final = 295_936
MOST_TOKENS: Final = 1_024
# The two marks around an image.
MARKS: Final = 2
# What `detail` says: an image that is only glanced at is first made to fit into this square.
LOW: Final = "low"
LOW_SIDE: Final = 512


def count(width: int, height: int, detail: str | None = None) -> int:
    """Tokens of an image of this many pixels, each side at least 1."""
    if detail == LOW and max(width, height) > LOW_SIDE:
        scale = LOW_SIDE / max(width, height)
        width, height = (max(1, floor(side * scale + 0.5)) for side in (width, height))
    # Blown up as long as that helps: where one side is a single patch, the other grows step by step.
    before, whole = (0, 0), (1, 1)
    while whole[0] * whole[1] < LEAST_PIXELS and whole != before:
        before = whole
        if width * height < LEAST_PIXELS:
            scale = sqrt(LEAST_PIXELS / (width * height))
            width, height = int(width * scale), int(height * scale)
        whole = _in_patches(width), _in_patches(height)
        if whole[0] * whole[1] < LEAST_PIXELS:
            width, height = whole
    found = _cells(*whole)
    return found if found <= MOST_TOKENS else _fitted(width, height)


def _in_patches(side: int) -> int:
    return ceil(side / PATCH) * PATCH


def _cells(width: int, height: int) -> int:
    across, down = (ceil(side / CELL) for side in (width, height))
    return down * (across + 1) + MARKS


def _fitted(width: int, height: int) -> int:
    """Of an image that is too large: the same shape in as many cells as there may be."""
    ratio, room = height / width, MOST_TOKENS - MARKS
    across = sqrt(room / ratio + 0.25) - 0.5
    columns, rows = floor(across), floor(across * ratio)
    if not (columns and rows):
        # Less than one column of cells, or than one row of them.
        return MOST_TOKENS
    scale = min(columns * CELL / width, rows * CELL / height)
    return _cells(*(floor(side * scale / PATCH) * PATCH for side in (width, height)))
