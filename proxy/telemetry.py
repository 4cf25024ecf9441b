"""What the operator reads: structured log lines, one per call, never a key, a prompt or an answer."""

from __future__ import annotations

import logging
import sys
from typing import Any

import orjson
import structlog

from config import settings


def configure(chosen: settings.Settings) -> None:
    """Set the log up once, before the first line: JSON for machines, colours on a terminal."""
    as_json = chosen.log_format == "json" or (chosen.log_format == "auto" and not sys.stderr.isatty())
    level = logging.getLevelNamesMapping()[chosen.log_level.upper()]
    renderer: Any = structlog.processors.JSONRenderer(_dumps) if as_json else structlog.dev.ConsoleRenderer()
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
    # aiohttp logs a traceback for every malformed request and every caller who leaves: those are ours to tell, in one line.
    logging.getLogger("aiohttp").setLevel(logging.CRITICAL)
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)


def _dumps(event: dict[str, Any], **_: Any) -> str:
    return orjson.dumps(event, default=repr).decode()
