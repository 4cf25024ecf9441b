"""I · Both doors: what strangers and websites can use up or reach without a key (spec ERR-5, HTTP-13, HTTP-15)."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from proxy.downstream import listener
from proxy.downstream.connection import RESERVE
from proxy.simulation.wire import Script
from tests import caller
from tests.faults import matrix
from tests.faults.conftest import CALL, Stage, Stand
from tests.faults.matrix import row
from tests.faults.test_process import _cpu_s, _with_files

pytestmark = pytest.mark.asyncio(loop_scope="module")

FILES = 256
STRANGERS = 300
CANARY = "canary-5e1f"
GET = {"Content-Length": "", "Content-Type": "", "Authorization": ""}
HEALTHY = caller.request(b"", GET, method="GET", path="/healthz")


async def health(url: str, path: str = "/healthz") -> int:
    async with asyncio.timeout(5):
        return (await caller.ask(url, b"", GET, method="GET", path=path)).status


@contextlib.asynccontextmanager
async def strangers(url: str, wires: list[bytes]) -> AsyncIterator[contextlib.AsyncExitStack]:
    """Connections that say so much and no more, however many the port keeps of them."""
    async with contextlib.AsyncExitStack() as stack:
        for wire in wires:
            line = await stack.enter_async_context(caller.dial(url))
            line.send(wire)
        await asyncio.sleep(0.2)
        yield stack


def cpu_us(stand: Stand, before_s: float, number: int) -> float:
    return (_cpu_s(stand.served.process.pid) - before_s) / number * 1e6


@row(
    "callers are served as ever; the strangers are cut, the longest idle first",
    freed="the connections",
    figure=f"{STRANGERS} silent connections to the admin port, {FILES} files: no accept error, both ports answer",
)
@pytest.mark.parametrize("workers", ["1", "2"])
async def test_f91_strangers_at_the_admin_port_take_nothing_from_callers(
    stage: Stage, tmp_path: Path, workers: str
) -> None:
    stand = await stage("--workers", workers, env=_with_files(tmp_path, FILES))
    admin = stand.served.admin_url
    async with strangers(admin, [b"", b"GET /metrics HTTP/1.1\r\nHo", HEALTHY] * (STRANGERS // 3)):
        assert (await stand.ask()).status == 200
        assert [await health(stand.url), await health(admin), await health(admin, "/readyz")] == [200] * 3
        if workers == "1":
            open_files = stand.fds - stand.idle_fds
            assert open_files <= listener.ADMIN_CONNECTIONS + RESERVE + 4
            matrix.reached(f"{STRANGERS} strangers at the admin port", f"{open_files} files more, callers served")
    assert "accept_failed" not in stand.served.output
    assert stand.served.output.count('"no_room"') <= 1


@row(
    "500 `RequestTimeOut`, 400 `InvalidParameter`, or the end without a word",
    freed="the connection",
    figure="header_timeout and body_timeout 0.3 s; no banner, no echo",
)
@pytest.mark.parametrize("workers", ["1", "2"])
async def test_f92_the_admin_port_times_and_answers_as_the_data_port_does(stage: Stage, workers: str) -> None:
    stand = await stage("--workers", workers, "--header-timeout", "0.3", "--body-timeout", "0.3")
    admin = stand.served.admin_url
    ours = {"Host": admin.removeprefix("http://"), "Origin": admin}
    said = {
        b"": None,
        b"GET /metrics HTTP/1.1\r\nHost: local": (500, "RequestTimeOut"),
        HEALTHY + HEALTHY[:20]: (500, "RequestTimeOut"),
        caller.request(CALL, ours, path="/docs/try")[:-5]: (400, "InvalidParameter"),
        f"GET /metrics HTTP/1.1\r\nHost: localhost\r\nX-A : {CANARY}\r\n\r\n".encode(): (400, "InvalidParameter"),
        f"GET /metrics HTTP/1.1\r\nHost: localhost\r\nExpect: {CANARY}\r\n\r\n".encode(): (400, "InvalidParameter"),
        f"GET /{CANARY} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode(): (404, "NotFound"),
    }
    for wire, fault in said.items():
        async with asyncio.timeout(3), caller.dial(admin) as line:
            line.send(wire)
            if wire.startswith(HEALTHY):
                assert "server" not in (await line.answer()).headers
            if fault is not None:
                answer = await line.answer()
                assert answer.fault[:2] == fault, wire
                assert "server" not in answer.headers
                assert CANARY not in str(answer)
            assert await line.eof() == b"", wire
    assert CANARY not in stand.served.output.replace(f"/{CANARY}", "")


@row(
    "the call is answered; who was idle longest is cut",
    freed="the connections",
    figure="a cap of 40, 40 strangers that keep theirs with a `GET` each, and come back: no call refused",
)
async def test_f93_idle_strangers_keep_nobody_out(stage: Stage) -> None:
    stand = await stage("--max-connections", "40")
    async with strangers(stand.url, [HEALTHY] * 40) as crowd:
        for _ in range(10):
            assert (await stand.reply()).status == 200
            assert await health(stand.url) == 200
            line = await crowd.enter_async_context(caller.dial(stand.url))
            line.send(HEALTHY)
    assert '"no_room"' in stand.served.output
    assert "max_connections" not in stand.served.output
    await stand.settled()


@row(
    "200 for health, 503 `ModelServingError` for calls, no call cut",
    figure=f"a cap of 8, all at work, {3 * RESERVE} strangers beside them",
)
async def test_f94_health_is_answered_while_every_place_is_at_work(stage: Stage) -> None:
    stand = await stage("--max-connections", "8")
    stand.upstream.script = Script(endless=True, gap_s=0.05)
    async with contextlib.AsyncExitStack() as stack:
        lines = []
        for _ in range(8):
            line = await stack.enter_async_context(caller.dial(stand.url))
            line.send(caller.request(CALL, caller.SSE))
            assert (await line.head()).status == 200
            lines.append(line)
        await stack.enter_async_context(strangers(stand.url, [b"", b"POST / HTTP/1.1\r\n", HEALTHY[:9]] * RESERVE))
        assert [await health(stand.url) for _ in range(5)] == [200] * 5
        assert (await stand.reply()).fault[:2] == (503, "ModelServingError")
        for line in lines:
            assert await line.piece()
    stand.upstream.script = Script()
    await stand.settled()


@row(
    "200, then 500 `RequestTimeOut` and the end", freed="the connection", figure="header_timeout 0.3 s, in one segment"
)
async def test_f95_half_a_head_behind_a_call_is_timed(stage: Stage) -> None:
    stand = await stage("--header-timeout", "0.3")
    async with asyncio.timeout(5), caller.dial(stand.url) as line:
        line.send(caller.request(CALL) + caller.request(CALL)[:60])
        assert (await line.answer()).status == 200
        assert (await line.answer()).fault[:2] == (500, "RequestTimeOut")
        assert await line.eof() == b""
    await stand.settled()


@row(
    "403 `AccessDenied`; 200 for programs, for pages of our own host and for named ones",
    figure="CSRF by `text/plain`, DNS rebinding, `/metrics` by a moved name: upstream unasked",
)
@pytest.mark.parametrize("auth", ["any", "none"])
async def test_f96_a_website_reaches_nothing(stage: Stage, auth: str) -> None:
    page = "https://chat.example.com"
    flags = ("--auth", auth, "--cors-origin", page)
    stand = await stage(*flags, env={"DASHSEEK_UPSTREAM_API_KEY": "sk-the-operators"})
    port = stand.url.rpartition(":")[2]
    rebound = {"Host": f"evil.example:{port}"}
    for headers in (
        {"Origin": "http://evil.example", "Sec-Fetch-Site": "cross-site", "Content-Type": "text/plain"},
        {**rebound, "Origin": f"http://evil.example:{port}"},
        {**rebound, "Sec-Fetch-Site": "same-origin"},
    ):
        assert (await stand.reply(CALL, headers)).fault == (403, "AccessDenied", "Access denied.")
    assert stand.upstream.calls == []
    for path in ("/metrics", "/readyz", "/docs", "/openapi.json"):
        answer = await caller.ask(stand.served.admin_url, b"", GET | rebound, method="GET", path=path)
        assert answer.fault[:2] == (403, "AccessDenied")
    for headers in ({}, rebound, {"Host": f"localhost:{port}", "Origin": f"http://localhost:{port}"}, {"Origin": page}):
        answer = await stand.reply(CALL, headers)
        assert answer.status == 200
        assert answer.headers.get("Access-Control-Allow-Origin") == (page if headers == {"Origin": page} else None)


@row("404 `NotFound`, 400 `InvalidParameter`", figure="2,000 of them: ten lines a minute, each counted; ≤ 1 ms of CPU")
async def test_f97_strays_fill_no_log(stage: Stage) -> None:
    stand = await stage()
    before_s = _cpu_s(stand.served.process.pid)
    async with caller.dial(stand.url) as line:
        for _ in range(20):
            line.send(caller.request(b"", GET, method="GET", path=f"/nowhere?key={CANARY}") * 100)
            for _ in range(100):
                assert (await line.answer()).status == 404
    spent_us = cpu_us(stand, before_s, 2_000)
    assert spent_us < 1_000
    matrix.reached("a stray, one of 2,000 on a connection", f"{spent_us:.0f} µs of CPU; 10 lines of log")
    told = [line for line in stand.lines if line["event"] == "stray"]
    assert len(told) == 10
    assert CANARY not in stand.served.output
    assert (await stand.gauges())['dashseek_stray_requests_total{status="404"}'] == 2_000
