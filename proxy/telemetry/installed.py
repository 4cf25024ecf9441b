"""What is installed: the versions of it, and the complaint where another distribution has claimed a package of ours."""

from __future__ import annotations

import re
from importlib import metadata, util
from pathlib import Path
from typing import Final

import proxy

DISTRIBUTION: Final = "dashseek"
ROOMS: Final = ("proxy", "translators", "config")
# A line for a file of Python in one of them, or that is one.
_ROOM_FILE: Final = re.compile(rf"^({'|'.join(ROOMS)})(?:/[^,\n]*)?\.py(?=[,\s]|$)", re.MULTILINE)


def room_complaint() -> str | None:
    """Which other distribution has a package of our name, and what to do; None where none has.

    Two small files of each distribution are looked at: `metadata.packages_distributions` parses all of every one, which
    took a tenth of what a start takes.
    """
    claims = {(ROOMS.index(room), found.name) for found in metadata.distributions() for room in _rooms_of(found)}
    others = [f"{other} ({ROOMS[room]})" for room, other in sorted(claims) if other != DISTRIBUTION]
    if not others:
        return None
    return (
        f"a package of ours is also installed by {', '.join(others)}: "
        "give dashseek an environment of its own (pipx, a venv or an image)"
    )


def _rooms_of(distribution: metadata.Distribution) -> set[str]:
    """Packages and modules of our names that it has, as it declares them, or else as its files say."""
    if declared := (distribution.read_text("top_level.txt") or "").split():
        return {*ROOMS} & {*declared}
    return {*_ROOM_FILE.findall(distribution.read_text("RECORD") or distribution.read_text("SOURCES.txt") or "")}


def shadow_complaint() -> str | None:
    """Which package of ours Python would take from elsewhere, and what to do; None where all stand side by side.

    A folder `config` of one's own on the path comes before ours, from wheel and checkout alike.
    """
    home = Path(proxy.__file__).parents[1]
    for room in ROOMS:
        spec = util.find_spec(room)
        places = [*(spec.submodule_search_locations or ())] if spec else []
        if not places or Path(places[0]).resolve() != (home / room).resolve():
            where = f"is taken from {places[0]}" if places else "is missing"
            return (
                f"our package `{room}` {where}, and not from {home}: start dashseek elsewhere or without PYTHONPATH, "
                "and give it an environment of its own (pipx, uv tool, a venv or an image)"
            )
    return None


def version_of(distribution: str) -> str:
    """The version that is installed; in words where none is, as when the code runs from a bare checkout."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "not installed"
