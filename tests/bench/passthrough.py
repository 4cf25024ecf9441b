"""The baseline: an aiohttp proxy that reads nothing of what it passes on, about as short as one can be.

python -m tests.bench.passthrough UPSTREAM   prints its URL, serves until it is killed

It runs on uvloop where that is installed, as ours does.
"""

from __future__ import annotations

import asyncio
import gc
import sys

import aiohttp
from aiohttp import web


async def main(upstream: str) -> None:
    session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=75),
        timeout=aiohttp.ClientTimeout(total=None),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        headers={"Accept-Encoding": "identity"},
    )

    async def relay(request: web.Request) -> web.StreamResponse:
        body = await request.read()
        headers = {"Content-Type": "application/json"}
        async with session.post(upstream + "/chat/completions", data=body, headers=headers) as answer:
            if answer.content_type == "application/json":
                return web.Response(body=await answer.read(), content_type="application/json")
            response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
            await response.prepare(request)
            async for wire in answer.content.iter_any():
                await response.write(wire)
            return response

    app = web.Application(client_max_size=16 << 20)
    app.router.add_post("/{tail:.*}", relay)
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(f"http://127.0.0.1:{runner.addresses[0][1]}", flush=True)  # noqa: T201 - the line the runner waits for
    gc.collect()
    gc.freeze()
    await asyncio.Event().wait()


def run(upstream: str) -> None:
    try:
        import uvloop  # noqa: PLC0415 - an extra
    except ModuleNotFoundError:
        asyncio.run(main(upstream))
    else:
        uvloop.run(main(upstream))


if __name__ == "__main__":
    run(sys.argv[1])
