"""The names of what is installed, into its versions."""

from __future__ import annotations

from importlib import metadata
from typing import Final

DISTRIBUTION: Final = "dashseek"


def of(distribution: str) -> str:
    """The version that is installed; in words where none is, as when the code runs from a bare checkout."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "not installed"
