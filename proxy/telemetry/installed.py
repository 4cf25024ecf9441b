"""What is installed: the versions of it, and the complaint where another distribution has claimed a package of ours."""

from __future__ import annotations

from importlib import metadata
from typing import Final

DISTRIBUTION: Final = "dashseek"
ROOMS: Final = ("proxy", "translators", "config")


def room_complaint() -> str | None:
    """Which other distribution has a package of our name, and what to do; None where none has."""
    claims = metadata.packages_distributions()
    others = [f"{other} ({room})" for room in ROOMS for other in sorted({*claims.get(room, ())} - {DISTRIBUTION})]
    if not others:
        return None
    return (
        f"a package of ours is also installed by {', '.join(others)}: "
        "give dashseek an environment of its own (pipx, a venv or an image)"
    )


def version_of(distribution: str) -> str:
    """The version that is installed; in words where none is, as when the code runs from a bare checkout."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "not installed"
