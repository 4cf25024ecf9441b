"""What the operator reads: structured log lines, one per call, never a key, a prompt or an answer."""

from __future__ import annotations

import logging
import sys
import traceback
from typing import Any

import orjson
import structlog

from config import settings
from proxy import outlet


def configure(chosen: settings.Settings, lines: outlet.Lines | None = None) -> outlet.Lines:
    """Set the log up once, before the first line: JSON for machines, colours on a terminal.

    Returns what writes it, to be closed after the last line; `lines`, where that is there already.
    """
    as_json = chosen.log_format == "json" or (chosen.log_format == "auto" and not sys.stderr.isatty())
    level = logging.getLevelNamesMapping()[chosen.log_level.upper()]
    lines = lines or outlet.Outlet(sys.stderr.fileno())
    renderer: Any = structlog.processors.JSONRenderer(_dumps) if as_json else structlog.dev.ConsoleRenderer()
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _traceback_alone,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(file=lines),  # type: ignore[arg-type]
        cache_logger_on_first_use=True,
    )
    # aiohttp logs a traceback for every malformed request and every caller who leaves: ours to tell, in one line.
    logging.getLogger("aiohttp").setLevel(logging.CRITICAL)
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    return lines


def _traceback_alone(_: object, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Where an exception came from, and from which others, but not their words: those may repeat a prompt or a key."""
    error = event.pop("exc_info", None)
    error = sys.exception() if error is True else error
    trail = []
    while error is not None:
        trail.append([type(error).__name__, *(line.strip() for line in traceback.format_tb(error.__traceback__))])
        error = error.__cause__ or error.__context__
    return {**event, "traceback": trail} if trail else event


def _dumps(event: dict[str, Any], **_: Any) -> str:
    return orjson.dumps(event, default=repr).decode()
