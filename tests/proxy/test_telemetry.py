"""Claims about the log: its forms, its levels, and what an exception may say in it (spec MET-4)."""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Iterator

import orjson
import pytest
import structlog

from config import settings
from proxy import telemetry

SECRET = "the prompt of a caller"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    levels = {name: logging.getLogger(name).level for name in ("aiohttp", "asyncio")}
    yield
    structlog.reset_defaults()
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


def configured(monkeypatch: pytest.MonkeyPatch, stderr: io.StringIO, **chosen: object) -> io.StringIO:
    monkeypatch.setattr(sys, "stderr", stderr)
    telemetry.configure(settings.load({"upstream": ("http://127.0.0.1:1",), **chosen}, None, {}))
    return stderr


def log_a_failure() -> None:
    log = structlog.get_logger()
    try:
        try:
            int(SECRET)
        except ValueError as error:
            raise KeyError(SECRET) from error
    except KeyError:
        log.exception("bug", request_id="r")


def test_a_line_is_one_json_object(monkeypatch: pytest.MonkeyPatch) -> None:
    stderr = configured(monkeypatch, io.StringIO())
    structlog.get_logger().info("call", request_id="r", odd={1, 2}.__class__)
    line = orjson.loads(stderr.getvalue())
    assert {"event": "call", "level": "info", "request_id": "r"}.items() <= line.items()
    assert stderr.getvalue().count("\n") == 1


def test_on_a_terminal_it_is_for_eyes(monkeypatch: pytest.MonkeyPatch) -> None:
    stderr = configured(monkeypatch, Terminal())
    structlog.get_logger().info("call", request_id="r")
    assert not stderr.getvalue().startswith("{")


def test_a_form_that_was_asked_for_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    stderr = configured(monkeypatch, Terminal(), log_format="json")
    structlog.get_logger().info("call")
    assert orjson.loads(stderr.getvalue())["event"] == "call"


def test_what_is_less_severe_than_asked_for_is_not_said(monkeypatch: pytest.MonkeyPatch) -> None:
    stderr = configured(monkeypatch, io.StringIO(), log_level="warning")
    structlog.get_logger().info("call")
    structlog.get_logger().warning("malformed")
    assert "malformed" in stderr.getvalue()
    assert "call" not in stderr.getvalue()


@pytest.mark.parametrize("stderr", [io.StringIO(), Terminal()], ids=["json", "console"])
def test_a_traceback_says_where_and_never_what(monkeypatch: pytest.MonkeyPatch, stderr: io.StringIO) -> None:
    """An exception's words may repeat what a caller sent; its place, and the source line there, do not."""
    configured(monkeypatch, stderr)
    log_a_failure()
    said = stderr.getvalue()
    assert "ValueError" in said
    assert "KeyError" in said
    assert "in log_a_failure" in said
    assert SECRET not in said


def test_a_given_exception_has_its_place_too(monkeypatch: pytest.MonkeyPatch) -> None:
    stderr = configured(monkeypatch, io.StringIO())
    structlog.get_logger().error("bug", exc_info=ZeroDivisionError(SECRET))
    assert orjson.loads(stderr.getvalue())["traceback"] == [["ZeroDivisionError"]]


def test_aiohttps_own_lines_are_not_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """They repeat what was sent, with a traceback for everybody who leaves."""
    configured(monkeypatch, io.StringIO())
    assert not logging.getLogger("aiohttp.server").isEnabledFor(logging.ERROR)
    assert not logging.getLogger("aiohttp.access").isEnabledFor(logging.INFO)
