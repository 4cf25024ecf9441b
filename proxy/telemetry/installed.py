"""What is installed beside us, into complaints: code that would run, or parse, and is not the code that was tested."""

from __future__ import annotations

from importlib import metadata
from typing import Final

from proxy.telemetry import versions

ROOMS: Final = ("proxy", "translators", "config")


def room_complaint() -> str | None:
    """Which other distribution has a package of our name, and what to do; None where none has."""
    claims = metadata.packages_distributions()
    others = [
        f"{other} ({room})" for room in ROOMS for other in sorted({*claims.get(room, ())} - {versions.DISTRIBUTION})
    ]
    if not others:
        return None
    return (
        f"a package of ours is also installed by {', '.join(others)}: "
        "give dashseek an environment of its own (pipx, a venv or an image)"
    )


def parser_complaint() -> str | None:
    """That aiohttp parses in another way than was tested, and what to do; None where it does not."""
    from aiohttp import http_parser  # noqa: PLC0415 - who only asks for help does not wait for it

    if http_parser.HttpRequestParser is not http_parser.HttpRequestParserPy:
        return None
    return (
        "aiohttp runs without its C parser, and the other one reads malformed calls differently: "
        "install aiohttp from a wheel and unset AIOHTTP_NO_EXTENSIONS"
    )
