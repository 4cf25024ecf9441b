"""Claims about the way of the docs page's calls where the data port lets it down."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from aiohttp import web

from config import sources
from proxy.admin import application as admin
from proxy.admin.docs import MOST_CALLS
from proxy.downstream import surface
from proxy.server import lifecycle
from proxy.server.board import Heartbeats, WorkerReports
from proxy.simulation.wire import Script
from tests import caller
from tests.conftest import StartSimulator
from tests.proxy.conftest import Running, StartGateway


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 200 OK\r\nContent-Ty"], ids=["nothing", "half a head"])
async def test_a_data_port_that_breaks_off_before_its_answer_is_said_to_be_away(said: bytes) -> None:
    async def break_off(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(said)
        writer.close()

    async with contextlib.AsyncExitStack() as stack:
        data = await stack.enter_async_context(await asyncio.start_server(break_off, "127.0.0.1", 0))
        settings = sources.load({"upstream": ("http://127.0.0.1:1",)}, None, {})
        desk = admin.application(WorkerReports({}, Heartbeats(1), frozenset()), settings)
        desk[surface.SERVED] = lifecycle.url(data.sockets[0].getsockname())
        runner = web.AppRunner(desk)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        ours = {"Host": f"{host}:{port}", "Origin": f"http://{host}:{port}"}
        answer = await caller.ask(f"http://{host}:{port}", caller.call(), ours, path="/docs/try")
    assert answer.fault[:2] == (503, "ModelUnavailable")


def attempt(front: Running, **headers: str) -> bytes:
    ours = {"Host": front.admin_url.removeprefix("http://"), "Origin": front.admin_url, **headers}
    return caller.request(caller.call(), ours, path="/docs/try")


async def test_a_body_that_never_ends_is_answered(gateway_before: StartGateway) -> None:
    front = await gateway_before("http://127.0.0.1:1", body_timeout=0.2)
    async with caller.dial(front.admin_url) as line, asyncio.timeout(3):
        line.send(attempt(front)[:-5])
        assert (await line.answer()).fault[:2] == (400, "InvalidParameter")
        assert await line.eof() == b""


async def test_a_body_beyond_the_limit_is_refused(gateway_before: StartGateway) -> None:
    front = await gateway_before("http://127.0.0.1:1")
    async with caller.dial(front.admin_url) as line:
        line.send(attempt(front, **{"Content-Length": str(3 << 20)}) + bytes(1 << 20))
        assert (await line.answer()).fault[:2] == (400, "BadRequest.TooLarge")


async def test_so_many_of_its_calls_are_open_at_a_time_and_no_more(
    simulator: StartSimulator, gateway_before: StartGateway
) -> None:
    """Each holds two files more, which no cap on connections counts."""
    front = await gateway_before((await simulator(Script(endless=True, gap_s=0.05))).url)
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(MOST_CALLS):
            line = await stack.enter_async_context(caller.dial(front.admin_url))
            line.send(attempt(front, **caller.SSE))
            assert (await line.head()).status == 200
        other = await stack.enter_async_context(caller.dial(front.admin_url))
        other.send(attempt(front))
        assert (await other.answer()).fault[:2] == (503, "ModelServingError")
