"""What a platform asks of the process, alive and ready, on a port of its own: probes do not compete with callers.

Ready means that a call would be served: not draining, and the journal can be written. Whether the upstream is well is
not asked: a dead upstream must not take every replica out of service. Source: spec OPS-1.
"""

from __future__ import annotations

import asyncio

from aiohttp import hdrs, web

from proxy import gateway, metrics, tally


def application(house: gateway.Gateway, draining: asyncio.Event, measured: metrics.Metrics) -> web.Application:
    """The admin application beside one gateway."""

    async def ready(_: web.Request) -> web.StreamResponse:
        reasons = []
        if draining.is_set():
            reasons.append("draining")
        if not house.journal.writable():
            reasons.append("journal not writable")
        return web.json_response({"ready": not reasons, "reasons": reasons}, status=503 if reasons else 200)

    async def scraped(asked: web.Request) -> web.StreamResponse:
        accept = asked.headers.get(hdrs.ACCEPT, "")
        text, content_type = tally.expose(metrics.ROWS, [measured.read()], accept)
        return web.Response(body=text, headers={hdrs.CONTENT_TYPE: content_type})

    app = web.Application()
    app.router.add_get("/healthz", alive)
    app.router.add_get("/readyz", ready)
    app.router.add_get("/metrics", scraped)
    return app


async def alive(_: web.Request) -> web.StreamResponse:
    """The loop answers; nothing else is asked."""
    return web.json_response({"status": "ok"})
