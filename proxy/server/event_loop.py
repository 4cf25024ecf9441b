"""The event loop the process runs on: uvloop where it is installed, else asyncio's own.

uvloop takes a twentieth to a fifth of what a paced delta costs, and nothing sure of a small call
(`tests/bench/README.md`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Literal

from config.settings import Settings, SettingsError

Name = Literal["asyncio", "uvloop"]


def name_of(settings: Settings) -> Name:
    """The loop that an operator gets. Raises `SettingsError` where they named one that is not installed."""
    if settings.loop == "asyncio":
        return "asyncio"
    try:
        import uvloop  # noqa: F401, PLC0415 - an extra
    except ModuleNotFoundError:
        if settings.loop == "auto":
            return "asyncio"
        origin = settings.origins.get("loop", "default")
        raise SettingsError([f"loop ({origin}): uvloop is not installed: pip install '.[fast]'"]) from None
    return "uvloop"


def factory(settings: Settings) -> Callable[[], asyncio.AbstractEventLoop]:
    """The function that makes it, as `asyncio.Runner` takes it. Raises `SettingsError` as `name_of` does."""
    if name_of(settings) == "asyncio":
        return asyncio.new_event_loop
    import uvloop  # noqa: PLC0415 - an extra

    return uvloop.new_event_loop
