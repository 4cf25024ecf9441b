"""B · Bad calls: each has one clear answer, and upstream hears of none of them."""

from __future__ import annotations

import asyncio

import orjson
import pytest

from tests import caller
from tests.faults.conftest import CALL, Stand
from tests.faults.matrix import row

pytestmark = pytest.mark.asyncio(loop_scope="module")

MAX_BODY_BYTES = 1 << 20
FLAGS = ("--header-timeout", "0.3", "--body-timeout", "0.3", "--max-body-bytes", str(MAX_BODY_BYTES))

INVALID = (400, "InvalidParameter")
LONG = orjson.dumps(caller.call("a" * MAX_BODY_BYTES))
BOMB = caller.bomb(b" " * (1 << 20), 100)
BOMB_BYTES = 24 << 20
POST = f"POST {caller.GENERATION} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer k\r\n".encode()
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"

TOO_LARGE = [
    pytest.param(caller.request(LONG), id="Content-Length"),
    pytest.param(POST + CHUNKED + b"%x\r\n%b\r\n0\r\n\r\n" % (len(LONG), LONG), id="chunked"),
    pytest.param(caller.request(BOMB, {"Content-Encoding": "gzip"}), id="gzip bomb"),
]
UNREADABLE = [
    pytest.param(b"", id="empty"),
    pytest.param(b"[]", id="no object"),
    pytest.param(b'{"model": "deepseek-v3"', id="cut"),
    pytest.param(b'{"model": ' + b"[" * 5_000, id="deep"),
    pytest.param(b'{"model": NaN}', id="NaN"),
    pytest.param(b'{"model": "\\ud800"', id="lone surrogate, cut"),
    pytest.param(b'{"model": "\xff"}', id="bad UTF-8"),
    pytest.param(b"\xef\xbb\xbf{}", id="BOM"),
]
WRONG = [
    pytest.param({"input": {"prompt": "hi"}}, (400, "BadRequest.EmptyModel"), id="model"),
    pytest.param({"model": "deepseek-v3"}, (400, "BadRequest.EmptyInput"), id="input"),
    pytest.param({"model": "none", "input": {"prompt": "hi"}}, INVALID, id="unknown model"),
    pytest.param(caller.call(temperature="warm"), INVALID, id="type"),
    pytest.param(caller.call(top_p=2), INVALID, id="range"),
]
MISFRAMED = [
    pytest.param(POST + b"Content-Length: 2\r\n" + CHUNKED + b"0\r\n\r\n", id="CL and TE"),
    pytest.param(POST + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}", id="two CL"),
    pytest.param(POST + b"Content-Length: +2\r\n\r\n{}", id="signed CL"),
    pytest.param(POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", id="TE unknown"),
    pytest.param(POST + b"Transfer-Encoding: identity, chunked\r\n\r\n0\r\n\r\n", id="TE of two"),
    pytest.param(POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", id="TE of gzip"),
    pytest.param(POST.replace(b"1.1", b"1.0") + CHUNKED + b"0\r\n\r\n", id="TE on 1.0"),
    pytest.param(POST.replace(b"1.1", b"2.0") + b"Content-Length: 2\r\n\r\n{}", id="version"),
    pytest.param(POST.replace(b"POST ", b"POST http://evil") + b"Content-Length: 2\r\n\r\n{}", id="absolute form"),
    pytest.param(POST + b"X : 1\r\nContent-Length: 2\r\n\r\n{}", id="space before a colon"),
    pytest.param(POST + b"X: 1\r\n Y: 2\r\nContent-Length: 2\r\n\r\n{}", id="folded line"),
    pytest.param(POST + CHUNKED + b"fffffffffffffffff\r\n", id="chunk size"),
    pytest.param(POST.replace(b"\r\n", b"\n") + b"\n", id="bare LF"),
]


@row("500 `RequestTimeOut`, then the end", freed="the connection", figure="header_timeout 0.3 s")
async def test_f13_a_head_that_never_ends_is_answered_and_closed(stand: Stand) -> None:
    async with stand.frees(), caller.dial(stand.url) as line:
        line.send(POST)
        async with asyncio.timeout(1):
            assert (await line.answer()).fault[:2] == (500, "RequestTimeOut")
            assert await line.eof() == b""


@row("400 `InvalidParameter`", figure="body_timeout 0.3 s")
async def test_f14_a_body_that_never_ends_is_answered(stand: Stand) -> None:
    async with stand.frees("rejected", "timeout_body") as named, caller.dial(stand.url) as line:
        line.send(caller.request(CALL, named)[:-5])
        async with asyncio.timeout(1):
            assert (await line.answer()).fault[:2] == INVALID


@pytest.mark.parametrize("wire", TOO_LARGE)
@row("400 `BadRequest.TooLarge`", figure="a bomb of 100 MB at a limit of 1 MB: ≤ 24 MB of memory")
async def test_f15_a_body_beyond_the_limit_is_refused_before_it_is_whole(stand: Stand, wire: bytes) -> None:
    before_bytes = stand.rss_bytes
    async with stand.frees(), caller.dial(stand.url) as line:
        line.send(wire)
        assert (await line.answer()).fault[:2] == (400, "BadRequest.TooLarge")
    assert stand.rss_bytes - before_bytes < BOMB_BYTES


@pytest.mark.parametrize("body", UNREADABLE)
@row("400 `InvalidParameter`")
async def test_f16_what_is_no_json_object_is_refused(stand: Stand, body: bytes) -> None:
    async with stand.frees("rejected") as named:
        assert (await stand.ask(body, named)).fault[:2] == INVALID


@pytest.mark.parametrize(("body", "fault"), WRONG)
@row("400, the rule's own code and text")
async def test_f17_what_breaks_a_rule_of_the_call_is_named(
    stand: Stand, body: caller.Json, fault: tuple[int, str]
) -> None:
    async with stand.frees("rejected") as named:
        assert (await stand.ask(body, named)).fault[:2] == fault


@pytest.mark.parametrize("wire", MISFRAMED)
@row("400 `InvalidParameter`, `Connection: close`", freed="the connection", figure="exactly one answer, no echo")
async def test_f18_a_request_that_others_may_frame_differently_is_refused(stand: Stand, wire: bytes) -> None:
    async with stand.frees(), caller.dial(stand.url) as line:
        line.send(wire + b"GET /smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n")
        answer = await line.answer()
        assert answer.fault[:2] == INVALID
        assert answer.headers["Connection"] == "close"
        assert b"HTTP/1" not in await line.eof()


KEYS = {"none": "", "empty": "Bearer ", "scheme": "Basic abc", "no scheme": "sk-abc", "tab": "Bearer a\tb"}


@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
@row("401 `InvalidApiKey`", figure="no echo of the key")
async def test_f19_a_call_without_a_usable_key_is_refused(stand: Stand, key: str) -> None:
    async with stand.frees("rejected") as named:
        answer = await stand.ask(CALL, {"Authorization": key, **named})
        assert answer.fault[:2] == (401, "InvalidApiKey")
    assert b"abc" not in answer.body


@pytest.mark.parametrize("name", ["Authorization", "x-api-key"])
async def test_two_lines_of_one_key_header_are_one_too_many(stand: Stand, name: str) -> None:
    """Spec HTTP-14: a checker before us may have read the other."""
    wire = caller.request(CALL, {"Authorization": "", name: "Bearer one"})
    first = f"{name}: Bearer one\r\n".encode()
    async with caller.dial(stand.url) as line:
        line.send(wire.replace(first, first + f"{name.lower()}: Bearer two\r\n".encode()))
        assert (await line.answer()).fault == (401, "InvalidApiKey", "Invalid API-key provided.")


@pytest.mark.parametrize(
    ("method", "path", "fault"),
    [
        ("GET", caller.GENERATION, INVALID),
        ("POST", "/", (404, "NotFound")),
        ("POST", "/" + caller.GENERATION, (404, "NotFound")),
        ("POST", caller.GENERATION + "/", (404, "NotFound")),
        ("POST", "/api/%2e%2e/healthz", (404, "NotFound")),
    ],
)
@row("404 `NotFound`, 400 `InvalidParameter`")
async def test_f20_an_unknown_path_or_method_is_said_to_be_so(
    stand: Stand, method: str, path: str, fault: tuple[int, str]
) -> None:
    async with stand.frees():
        assert (await caller.ask(stand.url, CALL, path=path, method=method)).fault[:2] == fault


async def test_upstream_heard_of_none_of_them(stand: Stand) -> None:
    """Runs last."""
    assert not stand.upstream.calls
