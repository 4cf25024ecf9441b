"""Claims about the log: its forms, its levels, and what an exception may say in it (spec MET-4)."""

from __future__ import annotations

import ast
import asyncio
import concurrent.futures
import io
import logging
import re
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import orjson
import pytest
import structlog

import proxy
from config import sources
from proxy.metering import journal
from proxy.telemetry import log_writer, logs

SECRET = "the prompt of a caller"


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    levels = {name: logging.getLogger(name).level for name in ("aiohttp", "asyncio")}
    yield
    structlog.reset_defaults()
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


class Terminal(io.TextIOWrapper):
    def isatty(self) -> bool:
        return True


def said(log: Callable[[], object], *, terminal: bool = False, **chosen: object) -> str:
    """What is on standard error once this was logged and the log is closed."""
    with tempfile.TemporaryFile() as file, pytest.MonkeyPatch.context() as patch:
        stderr = (Terminal if terminal else io.TextIOWrapper)(file, "utf-8")
        patch.setattr(sys, "stderr", stderr)
        lines = logs.configure(sources.load({"upstream": ("http://127.0.0.1:1",), **chosen}, None, {}))
        log()
        lines.close()
        file.seek(0)
        return stderr.read()


def log_a_call() -> None:
    structlog.get_logger().info("call", request_id="r", odd=dict)


def log_a_failure() -> None:
    log = structlog.get_logger()
    try:
        try:
            int(SECRET)
        except ValueError as error:
            raise KeyError(SECRET) from error
    except KeyError:
        log.exception("bug", request_id="r")


def test_a_line_is_one_json_object() -> None:
    text = said(log_a_call)
    assert {"event": "call", "level": "info", "request_id": "r"}.items() <= orjson.loads(text).items()
    assert text.count("\n") == 1
    # In UTC, and says so.
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+Z", orjson.loads(text)["timestamp"])


def test_the_line_of_a_call_says_the_microsecond(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time_ns", lambda: 1_795_896_387_999_998_765)
    line = orjson.loads(said(lambda: logs.say_open(b'{"ev":"open","request_id":"r"}')))
    assert (line["event"], line["request_id"], line["timestamp"]) == ("open", "r", "2026-11-28T20:06:27.999998Z")


OPENING, CLOSING = b'{"at":"2026-11-22T10:00:00.000Z","request_id":"r"}', b'{"outcome":"ok","status":200}'


@pytest.mark.parametrize(
    ("why", "told"),
    [
        ((None, None), {"cause": None}),
        (('the "cause"', None), {"cause": 'the "cause"'}),
        ((None, "too long"), {"cause": None, "upstream_said": "too long"}),
    ],
)
def test_the_line_of_a_call_has_both_its_halves_and_why(
    why: tuple[str | None, str | None], told: dict[str, object]
) -> None:
    line = orjson.loads(said(lambda: logs.say_call("warning", OPENING, CLOSING, *why)))
    assert line.pop("timestamp") != "2026-11-22T10:00:00.000Z"
    assert line == {"request_id": "r", "outcome": "ok", "status": 200, "event": "call", "level": "warning", **told}


LEVELS: tuple[logs.Level, ...] = ("debug", "info", "warning", "error")


@pytest.mark.parametrize(
    ("chosen", "levels", "written"),
    [
        # As JSON a call has a line without structlog, where its level is said at all.
        ({"log_level": "warning"}, {"warning", "error"}, 2),
        ({"log_level": "debug"}, {*LEVELS}, 4),
        # For people structlog says it, and decides.
        ({"log_format": "console", "log_level": "warning"}, {*LEVELS}, None),
    ],
)
def test_the_line_of_a_call_is_written_where_its_level_is_said(
    chosen: dict[str, object], levels: set[str], written: int | None
) -> None:
    def log() -> None:
        assert {level for level in LEVELS if logs.says(level)} == levels
        done = {logs.say_call(level, OPENING, CLOSING, None, None) for level in LEVELS}
        assert done == {written is not None}

    assert said(log, **chosen).count("\n") == (written or 0)


def test_who_captures_what_is_logged_gets_the_lines_of_calls_from_structlog() -> None:
    def log() -> None:
        with structlog.testing.capture_logs():
            assert logs.says("debug")
            assert not logs.say_open(OPENING)
        assert not logs.says("debug")
        assert logs.say_open(OPENING)

    assert said(log).count("\n") == 1


def test_a_log_may_be_set_up_in_a_thread_where_no_signal_can_be() -> None:
    """Whoever serves in a thread of theirs, as tests do, has signals of their own."""
    before = signal.getsignal(logs.LOUDER)
    with concurrent.futures.ThreadPoolExecutor(1) as threads:
        assert threads.submit(said, log_a_call).result().count("\n") == 1
    assert signal.getsignal(logs.LOUDER) is before


def test_a_logger_that_has_spoken_before_a_fork_writes_what_it_says_later_where_the_child_does() -> None:
    log = structlog.get_logger()
    with tempfile.TemporaryFile() as parents:
        logs.configure(
            sources.load({"upstream": ("http://127.0.0.1:1",)}, None, {}), log_writer.Unthreaded(parents.fileno())
        )
        log.warning("serving")
        assert "call" in said(lambda: log.info("call", request_id="r"))
        parents.seek(0)
        assert parents.read().count(b"\n") == 1


def test_on_a_terminal_it_is_for_eyes() -> None:
    assert not said(log_a_call, terminal=True).startswith("{")


def test_a_form_that_was_asked_for_is_taken() -> None:
    assert orjson.loads(said(log_a_call, terminal=True, log_format="json"))["event"] == "call"


def test_what_is_less_severe_than_asked_for_is_not_said() -> None:
    def log() -> None:
        log_a_call()
        structlog.get_logger().warning("malformed")

    text = said(log, log_level="warning")
    assert "malformed" in text
    assert "call" not in text


@pytest.mark.parametrize("terminal", [False, True], ids=["json", "console"])
def test_a_traceback_says_where_and_never_what(terminal: bool) -> None:
    """An exception's words may repeat what a caller sent; its place, and the source line there, do not."""
    text = said(log_a_failure, terminal=terminal)
    assert "ValueError" in text
    assert "KeyError" in text
    assert "in log_a_failure" in text
    assert SECRET not in text


def test_what_an_exception_was_raised_in_the_course_of_has_its_place_too() -> None:
    def log() -> None:
        try:
            log_a_failure()
            try:
                int(SECRET)
            finally:
                raise KeyError(SECRET)
        except KeyError:
            structlog.get_logger().exception("bug")

    *_, line = map(orjson.loads, said(log).splitlines())
    assert [name for name, *_ in line["traceback"]] == ["KeyError", "ValueError"]


def test_a_given_exception_has_its_place_too() -> None:
    text = said(lambda: structlog.get_logger().error("bug", exc_info=ZeroDivisionError(SECRET)))
    assert orjson.loads(text)["traceback"] == [["ZeroDivisionError"]]


def test_aiohttps_own_lines_are_not_said_nor_are_asyncios() -> None:
    """They repeat what was sent, with a traceback for everybody who leaves."""
    said(log_a_call)
    assert not logging.getLogger("asyncio").isEnabledFor(logging.ERROR)
    assert not logging.getLogger("aiohttp.server").isEnabledFor(logging.ERROR)
    assert not logging.getLogger("aiohttp.access").isEnabledFor(logging.INFO)


def logged() -> Iterator[tuple[str, set[str]]]:
    """Every line the code can write: its event, and the fields it names."""
    for path in Path(proxy.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Call(ast.Attribute(ast.Name("log"), "log"), [_, ast.Constant(str(event)), *_], fields):
                    yield event, {field.arg for field in fields if field.arg}
                case ast.Call(ast.Attribute(ast.Name("log")), [ast.Constant(str(event)), *_], fields):
                    yield event, {field.arg for field in fields if field.arg}
                case ast.Call(ast.Name("RateLimitedLog"), [ast.Constant("stray"), *_], _):
                    yield "stray", {"port", "count"}
                case ast.Call(ast.Attribute(ast.Attribute(ast.Name("self"), "_log"), "note"), [], fields):
                    yield "stray", {field.arg for field in fields if field.arg}
                case ast.Call(ast.Name("RateLimitedLog"), [ast.Constant(str(event)), *_], _):
                    yield event, {"port", "reason", "request_id", "count"}
                case ast.Call(ast.Attribute(attr="note"), [], fields):
                    # Of every other one.
                    assert {field.arg for field in fields} == {"reason", "request_id"}


def test_every_line_says_only_what_is_listed_and_nothing_is_listed_in_vain() -> None:
    """MET-4: what may be said is a closed list, known before it is said."""
    found: dict[str, set[str]] = {}
    for event, fields in logged():
        found[event] = found.get(event, set()) | fields
    # These it has from the journal, or from the processors.
    found["call"] |= {*journal.Opening.__annotations__, *journal.Closing.__annotations__, "trace_id", "asked_model"} - {
        "at"
    }
    found["call"] |= {"upstream_said"}
    found["open"] = {*journal.Opening.__annotations__, "trace_id"} - {"at"}
    found["bug"] = found["bug"] - {"exc_info"} | {"traceback"}
    assert found == {event: {*fields} for event, fields in logs.LINES.items()}


def test_a_signal_says_more_and_another_as_much_as_before() -> None:
    def talk() -> None:
        log = structlog.get_logger()
        log.debug("ignored", request_id="before")
        signal.raise_signal(logs.LOUDER)
        log.debug("ignored", request_id="meanwhile")
        signal.raise_signal(logs.LOUDER)
        signal.raise_signal(logs.AS_SAID)
        log.debug("ignored", request_id="afterwards")

    (line,) = [orjson.loads(line) for line in said(talk, log_level="warning").splitlines()]
    assert line["request_id"] == "meanwhile"


class Interrupted:
    """Lines of which the first is interrupted by a signal while it is written."""

    dropped = 0

    def __init__(self) -> None:
        self.written: list[str] = []

    def write(self, line: str) -> None:
        self.written.append(line)
        if len(self.written) == 1:
            signal.raise_signal(logs.LOUDER)

    def flush(self) -> None: ...

    def close(self) -> None: ...


async def test_a_signal_in_the_middle_of_a_line_does_not_wait_for_its_end() -> None:
    """Whoever writes a line has the lock for it."""
    lines = Interrupted()
    logs.configure(sources.load({"upstream": ("http://127.0.0.1:1",)}, None, {}), lines)
    structlog.get_logger().info("call")
    await asyncio.sleep(0)
    assert [event in line for event, line in zip(("call", "log_level"), lines.written, strict=True)] == [True, True]
