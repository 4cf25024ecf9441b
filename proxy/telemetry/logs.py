"""Log lines as data, from a closed list (`LINES`), one per call: never a key, a prompt or an answer."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import signal
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import orjson
import structlog
from structlog.processors import NAME_TO_LEVEL

from config.settings import Settings
from proxy.metering.journal import clock
from proxy.telemetry.log_writer import Lines, LogWriter

log = structlog.get_logger()

Level = Literal["debug", "info", "warning", "error"]

LEVELS: Final[Mapping[Level, bytes]] = {
    "debug": b"debug",
    "info": b"info",
    "warning": b"warning",
    "error": b"error",
}

DEBUG: Final = "debug"
# Two signals and not one that toggles: of several processes, one may have started in between.
LOUDER: Final = signal.SIGUSR1
AS_SAID: Final = signal.SIGUSR2

# Every line there is, and its fields besides `event`, `level` and `timestamp`: what is not here is not said.
LINES: Final[Mapping[str, tuple[str, ...]]] = {
    "serving": ("url", "admin", "upstream", "dialect", "auth", "workers", "loop"),
    "thinking_budget_not_held": ("dialect", "models"),
    "models_retire": ("models",),
    "pools_without_key": ("pools", "beside"),
    "models_without_price": ("models",),
    "no_price": ("model",),
    "call": (
        *("request_id", "api", "model", "upstream_model", "key_id", "key_name", "stream", "thinking"),
        *("outcome", "status", "code", "usage", "generated", "basis", "calls", "drift_tokens", "packets"),
        *("bytes_out", "attempts", "t", "cause", "upstream_said", "trace_id", "asked_model"),
    ),
    # Where no journal is kept: the call that a crash cuts off has this line and no other.
    "open": (
        *("request_id", "api", "model", "upstream_model", "key_id", "key_name", "stream", "thinking", "trace_id"),
    ),
    "model": ("request_id", "asked_model", "model"),
    "ignored": ("request_id", "fields"),
    "text_after_end": ("request_id", "target"),
    "bug": ("request_id", "error", "traceback"),
    "stray": ("port", "method", "path", "status", "request_id", "hint", "count"),
    "malformed": ("port", "request_id", "reason", "count"),
    "no_room": ("port", "request_id", "reason", "count"),
    "accept_failed": ("port", "request_id", "reason", "count"),
    "draining": ("open_calls",),
    "cutting": ("open_calls",),
    "stopped": (),
    "process_died": ("number", "pid", "code", "next_in_s"),
    "process_not_started": ("number", "reason", "next_in_s"),
    "process_hung": ("number", "pid", "silent_s"),
    "process_killed": ("number", "pid"),
    "hung_up": (),
    "reloaded": ("left",),
    "reload_refused": ("reason",),
    "file_limit": ("files", "before", "not_raised_to", "reason"),
    "certificate_read": (),
    "certificate_kept": ("reason",),
    "keys_read": ("keys",),
    "keys_kept": ("reason", "keys"),
    "target_out": ("pool", "target", "reason", "for_s"),
    "target_well": ("pool", "target"),
    "addresses": ("target", "addresses"),
    "name_not_found": ("target", "reason", "addresses"),
    "name_found": ("target",),
    "upstream_key_read": ("pool",),
    "upstream_key_kept": ("pool", "reason"),
    "certificates_read": ("pool",),
    "certificates_kept": ("pool", "reason"),
    "journal_unwritable": ("reason", "policy"),
    "journal_writable_again": ("dropped",),
    "journal_sync_failed": ("reason",),
    "journal_sealed": ("begins", "bytes", "ended", "sha256"),
    "journal_seal_failed": ("reason",),
    "budgets_reading": ("bytes",),
    "budgets_read": ("calls", "broken", "torn", "took_s"),
    "redis_away": ("policy", "error"),
    "redis_back": ("unchecked", "unsettled"),
    "spans": ("reason",),
    "log_level": ("now",),
    "log_lines_dropped": ("count",),
}


def configure(settings: Settings, lines: Lines | None = None) -> Lines:
    """Set the log up once, before the first line: JSON for machines, colours on a terminal.

    Returns what writes it, to be closed after the last line; `lines`, where that is there already.
    """
    as_json = settings.log_format == "json" or (settings.log_format == "auto" and not sys.stderr.isatty())
    threshold = Threshold(settings.log_level)
    renderer: Any = structlog.processors.JSONRenderer(_dumps) if as_json else structlog.dev.ConsoleRenderer()
    written = lines or LogWriter(sys.stderr.fileno())
    chain: list[structlog.typing.Processor] = [
        threshold,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _traceback_alone,
        renderer,
    ]
    _calls.clear()
    if as_json:
        _calls.append(Calls(threshold, written, chain))
    structlog.configure(
        processors=chain,
        # Says everything; the threshold, which can move, decides.
        wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG),
        logger_factory=structlog.WriteLoggerFactory(file=written),  # type: ignore[arg-type]
        # What is forked from a process with lines of its own sets its log up anew, loggers already used included.
        cache_logger_on_first_use=lines is None,
    )
    # aiohttp logs a traceback for every malformed request and every caller who leaves: ours to tell, in one line.
    logging.getLogger("aiohttp").setLevel(logging.CRITICAL)
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    if threading.current_thread() is threading.main_thread():
        signal.signal(LOUDER, lambda *_: threshold.move(DEBUG))
        signal.signal(AS_SAID, lambda *_: threshold.move(settings.log_level))
    return written


@dataclass(slots=True)
class Calls:
    """Where the lines of calls go past `structlog`, whose chain costs a third of what all the rest of a record does.

    chain: structlog's, which begins with the threshold unless somebody captures what is logged
    """

    threshold: Threshold
    lines: Lines
    chain: list[structlog.typing.Processor]


# One where the log is JSON, none where it is for people.
_calls: Final[list[Calls]] = []


def says(level: Level) -> bool:
    """Whether a line of this level may be written: to find out by `structlog` takes nine calls and an exception."""
    return not _calls or _calls[0].chain[0] is not _calls[0].threshold or _calls[0].threshold.lets_pass(level)


def say_call(level: Level, opening: bytes, closing: bytes, cause: str | None, upstream_said: str | None) -> bool:
    """Say the line of a call that has ended, spliced from what its journal lines are made of.

    Returns False where `structlog` must say it.
    opening: JSON that begins with `at`, which the line has in its own time stamp
    """
    why = b"null" if cause is None else orjson.dumps(cause)
    said = b"" if upstream_said is None else b',"upstream_said":' + orjson.dumps(upstream_said)
    return _say(level, b"call", opening, b",", closing[1:-1], b',"cause":', why, said)


def say_open(opening: bytes) -> bool:
    """Say the line of a call that was admitted, likewise; for where no journal is kept."""
    return _say("info", b"open", opening)


def _say(level: Level, event: bytes, opening: bytes, *more: bytes) -> bool:
    if not _calls or _calls[0].chain[0] is not _calls[0].threshold:
        return False
    calls = _calls[0]
    if calls.threshold.lets_pass(level):
        now_us = time.time_ns() // 1000
        end = b',"event":"%b","level":"%b","timestamp":"%b.%06dZ"}\n' % (
            event,
            LEVELS[level],
            encoded_clock(now_us // 1_000_000),
            now_us % 1_000_000,
        )
        calls.lines.write_line(b"".join((b"{", opening[opening.index(b",") + 1 : -1], *more, end)))
    return True


@functools.lru_cache(maxsize=2)
def encoded_clock(epoch_s: int) -> bytes:
    """Date and time of a second in UTC, as log lines say it; made once a second."""
    return clock(epoch_s).encode("ascii")


class Threshold:
    """The log level, which a signal may change while the process runs.

    level: the word for it, as the setting says it
    """

    __slots__ = ("_least",)

    def __init__(self, level: str) -> None:
        self._least = NAME_TO_LEVEL[level]

    def move(self, level: str) -> None:
        """Set the level. Safe in a signal handler: the line about it is written by the event loop, later.

        The handler may have interrupted somebody who is writing a line, and who has the lock for it.
        """
        self._least = NAME_TO_LEVEL[level]
        with contextlib.suppress(RuntimeError):
            asyncio.get_running_loop().call_soon_threadsafe(lambda: log.warning("log_level", now=level))

    def lets_pass(self, level: Level) -> bool:
        """Whether a line of this level is written now."""
        return NAME_TO_LEVEL[level] >= self._least

    def __call__(self, _: object, method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        if NAME_TO_LEVEL[method] < self._least:
            raise structlog.DropEvent
        return event


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
