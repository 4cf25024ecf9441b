"""Claims about `dashseek demo`: it shows one call, says what is wrong with it, and serves on."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import sys
import threading
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any, NamedTuple, cast

import orjson
import pytest
from aiohttp import web

from proxy.commands import demo
from proxy.metering.journal import Record
from proxy.simulation import llamacpp
from proxy.simulation.simulator import Simulator
from proxy.simulation.wire import Script
from tests import caller, needs
from tests.conftest import ROOT
from tests.proxy.surroundings import left_port, serving

Json = dict[str, Any]
ADMIN = re.compile(r"(http://\S+:\d+)/docs")


async def get(url: str, path: str) -> tuple[int, str]:
    answer = await caller.ask(url, b"", path=path, method="GET")
    return answer.status, answer.body.decode()


async def test_it_serves_on_with_a_docs_page_and_has_kept_its_call() -> None:
    running = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "proxy", "demo", "--port", "0"), cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    assert running.stdout is not None
    try:
        async with asyncio.timeout(60):
            while not (found := ADMIN.search((await running.stdout.readline()).decode())):
                pass
        assert (await get(found[1], "/docs"))[0] == 200
        (kept,) = orjson.loads((await get(found[1], "/calls/list"))[1])["calls"]
        assert kept["outcome"] == "ok"
        metrics = (await get(found[1], "/metrics"))[1].splitlines()
        assert 'dashseek_usage_records_total{outcome="ok"} 1.0' in metrics
    finally:
        running.terminate()
        await running.communicate()
    assert running.returncode == 0


def test_the_docs_are_where_those_of_serve_are_unless_somebody_is_there() -> None:
    with socket.socket() as taken, socket.socket() as free:
        taken.bind(("127.0.0.1", 0))
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        assert demo._admin_port(port - 1) == port
        assert demo._admin_port(taken.getsockname()[1] - 1) == 0
    assert (demo._admin_port(0), demo._admin_port(65_535)) == (0, 0)


def test_a_port_that_was_left_a_moment_ago_can_be_had() -> None:
    port = left_port()
    assert demo._admin_port(port - 1) == port


def test_before_the_simulator_no_figure_jumps(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(llamacpp, "available", lambda: False)
    before = {*threading.enumerate()}
    assert demo.run(once=True, port=0) == 0
    said = capfd.readouterr().out
    assert f"upstream  the simulator; for a real model: {llamacpp.INSTALL}\nproxy     http://127.0.0.1:" in said
    assert "upstream says the same" in said
    assert demo.JUMPS not in said
    assert {*threading.enumerate()} - before == set()


@needs.unless(llamacpp.available(), "the local model")
def test_before_another_vocabulary_one_line_says_why_the_figures_jump(capfd: pytest.CaptureFixture[str]) -> None:
    assert demo.run(once=True, port=0) == 0
    assert demo.JUMPS in capfd.readouterr().out


def test_a_call_that_was_not_right_is_code_1(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    async def ill(stack: contextlib.AsyncExitStack, words: Any) -> tuple[str, str, str]:
        upstream = await stack.enter_async_context(Simulator(Script(status=500), vocabulary=words))
        return upstream.url, demo.SIMULATED, "one that is ill"

    monkeypatch.setattr(demo, "_upstream", ill)
    assert demo.run(once=True, port=0) == 1
    err = capfd.readouterr().err.splitlines()
    assert [line.partition(", ")[0][:40] for line in err if line.startswith("wrong: ")] == [
        'wrong: answered with 500: {"code":"Inter',
        "wrong: the record says 0 + 0 (none)",
    ]


@contextlib.asynccontextmanager
async def answering(answer: web.Response) -> AsyncIterator[tuple[str, list[Json]]]:
    """A server with one answer for all; with the calls it got, and their headers."""
    came: list[Json] = []

    async def take(request: web.BaseRequest) -> web.StreamResponse:
        came.append({"path": request.path, "call": await request.json(), **request.headers})
        return answer

    async with serving(take) as url:
        yield url, came


def packet(text: str, used: tuple[int, int, int], finish: str = "null") -> Json:
    return {
        "output": {"choices": [{"message": {"content": text}, "finish_reason": finish}]},
        "usage": dict(zip(("input_tokens", "output_tokens", "total_tokens"), used, strict=True)),
    }


def stream(*packets: Json) -> web.Response:
    body = b"".join(b"id:1\nevent:result\n:HTTP_STATUS/200\ndata:%b\n\n" % orjson.dumps(one) for one in packets)
    return web.Response(body=body, content_type="text/event-stream")


async def test_it_calls_as_a_dashscope_client_does_and_shows_packet_by_packet(
    capsys: pytest.CaptureFixture[str],
) -> None:
    packets = packet("The ", (9, 1, 10)), packet("sea", (9, 2, 11)), packet("", (9, 123, 132), "stop")
    async with answering(stream(*packets)) as (url, came):
        seen = await demo._show(url)
    assert (seen.packets, seen.finish, seen.counted, seen.complaints) == (3, "stop", (9, 2), [])
    assert seen.usage == packets[-1]["usage"]
    (call,) = came
    assert (call["path"], call["call"]) == ("/api/v1/services/aigc/text-generation/generation", demo.CALL)
    assert (call["X-DashScope-SSE"], call["Authorization"]) == ("enable", f"Bearer {demo.KEY}")
    sent, *shown = capsys.readouterr().out.splitlines()
    assert orjson.loads(sent.removeprefix("sent      ")) == demo.CALL
    assert shown == [
        "",
        "   9 +   1 =   10  'The '",
        "   9 +   2 =   11  'sea'",
        "   9 + 123 =  132  ''",
        "",
        '3 packets, stop; usage {"input_tokens":9,"output_tokens":123,"total_tokens":132}',
    ]


async def test_before_the_only_packet_nothing_was_counted() -> None:
    async with answering(stream(packet("a", (9, 1, 10), "stop"))) as (url, _):
        seen = await demo._show(url)
    assert (seen.packets, seen.counted, seen.complaints) == (1, (0, 0), [])


@pytest.mark.parametrize(
    ("answer", "complaints"),
    [
        (web.Response(status=404, text="nobody"), ["answered with 404: nobody"]),
        (stream(packet("a", (9, 1, 10))), ["the stream ended without a finish"]),
        (
            stream(packet("a", (9, 1, 10)), {"code": "InternalError", "message": "m"}),
            ["an error frame: InternalError m", "the stream ended without a finish"],
        ),
        (
            stream(packet("a", (9, 1, 10)), packet("b", (9, 1, 11)), packet("c", (0, 1, 1), "stop")),
            [
                "packet 2 does not add up: {'input_tokens': 9, 'output_tokens': 1, 'total_tokens': 11}",
                "packet 3 does not add up: {'input_tokens': 0, 'output_tokens': 1, 'total_tokens': 1}",
            ],
        ),
    ],
)
async def test_what_is_wrong_with_a_call_is_said(answer: web.Response, complaints: list[str]) -> None:
    async with answering(answer) as (url, _):
        assert (await demo._show(url)).complaints == complaints


class Ending(NamedTuple):
    """How a call ended, and what is said of it: figures are of the prompt and the answer."""

    counted: tuple[int, int] = (9, 3)
    last: tuple[int, int] = (9, 3)
    generated: tuple[int, int] = (9, 3)
    basis: str = "upstream_final"
    dialect: str = demo.SIMULATED
    complaints: tuple[str, ...] = ()
    said: str = "upstream says the same: 9 + 3\n"


@pytest.mark.parametrize(
    "ending",
    [
        Ending(),
        # The finish may bring one token more, and no more.
        Ending(counted=(9, 2)),
        Ending(counted=(9, 1), complaints=("the figures were 9 + 1, then 9 + 3",)),
        Ending(counted=(9, 4), complaints=("the figures were 9 + 4, then 9 + 3",)),
        Ending(counted=(8, 3), complaints=("the figures were 8 + 3, then 9 + 3",)),
        Ending(counted=(8, 3), dialect="llamacpp", said=f"upstream says the same: 9 + 3\n{demo.JUMPS}\n"),
        Ending(basis="counted", complaints=("the record says 9 + 3 (counted)",), said=""),
        Ending(generated=(9, 4), complaints=("the record says 9 + 4 (upstream_final)",), said=""),
    ],
)
def test_the_last_packet_says_what_upstream_does_and_those_before_it_lead_there(
    ending: Ending, capsys: pytest.CaptureFixture[str]
) -> None:
    def usage(figures: tuple[int, int]) -> Json:
        return dict(zip(("input_tokens", "output_tokens"), figures, strict=True))

    record = cast("Record", SimpleNamespace(closing={"basis": ending.basis, "generated": usage(ending.generated)}))
    seen = demo.Seen(counted=ending.counted, usage=usage(ending.last))
    assert demo._against_upstream(seen, record, ending.dialect) == [*ending.complaints]
    assert capsys.readouterr().out == ending.said
