"""Claims about the way of the docs page's calls where the data port lets it down."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from aiohttp import web

from proxy.admin import docs
from proxy.downstream import surface
from proxy.server import lifecycle
from tests import caller


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 200 OK\r\nContent-Ty"], ids=["nothing", "half a head"])
async def test_a_data_port_that_breaks_off_before_its_answer_is_said_to_be_away(said: bytes) -> None:
    async def break_off(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(said)
        writer.close()

    async with contextlib.AsyncExitStack() as stack:
        data = await stack.enter_async_context(await asyncio.start_server(break_off, "127.0.0.1", 0))
        desk = web.Application()
        desk[surface.SERVED] = lifecycle.url(data.sockets[0].getsockname())
        docs.add_to(desk)
        runner = web.AppRunner(desk)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        ours = {"Host": f"{host}:{port}", "Origin": f"http://{host}:{port}"}
        answer = await caller.ask(f"http://{host}:{port}", caller.call(), ours, path="/docs/try")
    assert answer.fault[:2] == (503, "ModelUnavailable")
