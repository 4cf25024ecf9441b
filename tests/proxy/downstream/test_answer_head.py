"""Claims about the head of a call's answer: how its end is told, what becomes of its connection (HTTP-6, HTTP-7)."""

from __future__ import annotations

from email.utils import parsedate_to_datetime
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp import HttpVersion, HttpVersion10, HttpVersion11
from multidict import CIMultiDict

from proxy.downstream import answer_head
from proxy.downstream.answer_head import Head
from proxy.downstream.browsers import Browsers, nothing
from proxy.downstream.phase import LEAVING, LIFECYCLE, Lifecycle
from proxy.downstream.surface import BROWSERS

SIZED, OPEN = f"{answer_head.JSON}Content-Length: 2\r\n", "Content-Type: text/event-stream\r\n"
CLOSE, KEEP = "close", "keep-alive"


def head_of(
    lines: str, version: HttpVersion = HttpVersion11, *, keeps: bool = True, leaves: bool = False, **said: Any
) -> tuple[list[str], bool, bool]:
    """The lines of a head, whether its connection is kept, and whether its body goes in chunks."""
    lifecycle = Lifecycle(LEAVING) if leaves else Lifecycle()
    request: Any = SimpleNamespace(
        app={BROWSERS: said.get("browsers", Browsers(nothing)), LIFECYCLE: lifecycle},
        version=version,
        keep_alive=keeps,
        headers=said.get("headers", {}),
        content=SimpleNamespace(is_eof=lambda: True),
    )
    head = Head(request, "r")
    head.timing = said.get("timing")
    wire, kept, chunked = head.rendered(lines)
    assert wire.endswith(b"\r\n\r\n")
    return wire.decode().removesuffix("\r\n\r\n").split("\r\n"), kept, chunked


@pytest.mark.parametrize(
    ("lines", "version", "keeps", "leaves", "connection", "kept", "chunked"),
    [
        (SIZED, HttpVersion11, True, False, None, True, False),
        (OPEN, HttpVersion11, True, False, None, True, True),
        (SIZED, HttpVersion11, False, False, CLOSE, False, False),
        (OPEN, HttpVersion11, False, False, CLOSE, False, True),
        (OPEN, HttpVersion11, True, True, CLOSE, False, True),
        (SIZED, HttpVersion10, True, False, KEEP, True, False),
        # Its end is that of its connection, which every 1.0 understands.
        (OPEN, HttpVersion10, True, False, None, False, False),
        (SIZED, HttpVersion10, False, False, None, False, False),
    ],
)
def test_how_a_body_ends_is_said_as_the_caller_understands_it(
    *, lines: str, version: HttpVersion, keeps: bool, leaves: bool, connection: str | None, kept: bool, chunked: bool
) -> None:
    head, *rest = head_of(lines, version, keeps=keeps, leaves=leaves)
    assert head[0] == f"HTTP/1.{version.minor} 200 OK"
    said = CIMultiDict(tuple(line.split(": ", 1)) for line in head[1:])  # type: ignore[misc]
    assert (said.get("Connection"), rest) == (connection, [kept, chunked])
    assert said.get("Transfer-Encoding") == ("chunked" if chunked else None)
    assert (said["X-Request-Id"], said["Via"]) == ("r", "1.1 dashseek")
    assert said["Date"].endswith(" GMT")
    assert parsedate_to_datetime(said["Date"]).year > 2000
    assert not {"Server-Timing", "Vary"} & {*said}


def test_times_and_what_a_page_may_read_are_said_where_there_is_any() -> None:
    browsers = Browsers(nothing, frozenset({"https://ours.example"}))
    head, *_ = head_of(OPEN, timing=lambda: "read;dur=1.0", browsers=browsers)
    assert "Server-Timing: read;dur=1.0" in head
    assert "Vary: Origin" in head


def test_an_answer_that_is_out_says_whether_its_connection_goes_on() -> None:
    assert (answer_head.KEPT.keep_alive, answer_head.LAST.keep_alive) == (True, False)
