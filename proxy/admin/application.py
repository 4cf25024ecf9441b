"""The application of the admin port: probes, metrics, pages. On a port of its own, they do not compete with callers.

Ready means that a call would be served: not draining, and the journal can be written. Whether the upstream is well is
not asked: a dead upstream must not take every replica out of service. Source: spec OPS-1.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Protocol

from aiohttp import hdrs, web

from config.settings import Settings
from proxy.admin import calls, docs, pools, usage
from proxy.admin.calls import Inspected
from proxy.call.gateway import Gateway
from proxy.downstream import browsers, surface
from proxy.downstream.phase import Lifecycle, Phase
from proxy.downstream.strays import Hints, Strays
from proxy.inspector.recent_calls import RecentCalls
from proxy.metering.append_file import DASH
from proxy.telemetry import metrics, series
from proxy.telemetry.metrics import Metrics
from proxy.telemetry.series import Reading
from proxy.upstream import report
from proxy.upstream.report import TargetReport
from translators.dashscope import tongue

HEALTH: Final = ("/healthz", "/readyz")
HINTS: Final[Hints] = ((re.compile("/api/|/v1/|.*/models/"), "a call: the data port takes it"),)

# The whole index, where to go from here for who has found the port and nothing else: one line each.
INDEX: Final = """<!doctype html><html lang="en"><meta charset="utf-8"><title>dashseek</title>
<h1>dashseek</h1><ul>
<li><a href="docs">docs</a>: the protocol, examples, a box that makes a call
{links}<li><a href="openapi.json">openapi.json</a>: the same for programs
<li><a href="pools">pools</a>: who is asked, who is out, and for how long; <a href="pools.json">for programs</a>
{books}<li><a href="metrics">metrics</a>: for Prometheus
<li><a href="readyz">readyz</a>: whether a call would be served now, and why not
<li><a href="healthz">healthz</a>: whether the process is alive
</ul></html>
"""
# There only where there is something to read.
USAGE_LINK: Final = (
    '<li><a href="usage">usage</a>: today and this month, by key and model; <a href="usage.json">for programs</a>\n'
)
CALLS_LINK: Final = '<li><a href="calls">calls</a>: the last calls, both sides of each\n'


class ServerState(Protocol):
    """What the admin port tells: of one process, or of several that serve one port."""

    async def reasons(self) -> list[str]:
        """Why a call would not be served now; none if it would."""

    async def readings(self) -> list[Reading]:
        """What each process has measured."""

    async def targets(self) -> list[TargetReport]:
        """How each target stands, in each process."""

    @property
    def inspected(self) -> Inspected | None:
        """The calls that are kept, and what it takes to read them; None where none are."""


@dataclass(frozen=True, slots=True)
class Process:
    """The state of this process."""

    gateway: Gateway
    lifecycle: Lifecycle
    measured: Metrics
    recent: RecentCalls | None = None

    @property
    def inspected(self) -> Inspected | None:
        return None if self.recent is None else Inspected(self.recent, self.gateway)

    def said(self) -> list[str]:
        """`reasons`, at once."""
        found = {
            "draining": self.lifecycle.phase is not Phase.SERVING,
            "journal not writable": not self.gateway.journal.writable(),
        }
        return [reason for reason, holds in found.items() if holds]

    async def reasons(self) -> list[str]:
        return self.said()

    async def readings(self) -> list[Reading]:
        return [self.measured.read()]

    async def targets(self) -> list[TargetReport]:
        return report.targets(self.gateway.latest.gateway.upstreams)


def application(state: ServerState, settings: Settings) -> web.Application:
    """The admin application beside one gateway, or beside several."""

    async def ready(_: web.Request) -> web.StreamResponse:
        reasons = await state.reasons()
        return web.json_response({"ready": not reasons, "reasons": reasons}, status=503 if reasons else 200)

    async def scraped(request: web.Request) -> web.StreamResponse:
        accept = request.headers.get(hdrs.ACCEPT, "")
        text, content_type = series.expose(metrics.ROWS, await state.readings(), accept)
        return web.Response(body=text, headers={hdrs.CONTENT_TYPE: content_type})

    async def targets(_: web.Request) -> web.StreamResponse:
        body = pools.page(pools.rows(await state.targets()))
        headers = {**docs.HEADERS, "Content-Security-Policy": pools.POLICY, hdrs.CACHE_CONTROL: "no-store"}
        return web.Response(text=body, content_type="text/html", headers=headers)

    async def targets_told(_: web.Request) -> web.StreamResponse:
        return web.json_response({"targets": [row.document() for row in pools.rows(await state.targets())]})

    app = web.Application()
    surface.guard(
        app,
        # The only one who reads a failure here is the docs page, whose calls are DashScope's.
        tongue=tongue,
        browsers=browsers.at_admin(settings),
        strays=Strays("admin", HINTS),
        health=HEALTH,
    )
    app.router.add_get("/healthz", alive)
    app.router.add_get("/readyz", ready)
    app.router.add_get("/metrics", scraped)
    app.router.add_get("/pools", targets)
    app.router.add_get("/pools.json", targets_told)
    usage.add_to(app, settings)
    docs.add_to(app, settings)
    if (inspected := state.inspected) is not None:
        calls.add_to(app, inspected)
    made = INDEX.format(
        links="" if inspected is None else CALLS_LINK,
        books=USAGE_LINK if settings.journal_file not in (None, DASH) else "",
    )

    async def index(_: web.Request) -> web.StreamResponse:
        headers = {**docs.HEADERS, "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'"}
        return web.Response(text=made, content_type="text/html", headers=headers)

    app.router.add_get("/", index)
    return app


async def alive(_: web.Request) -> web.StreamResponse:
    """The loop answers; nothing else is asked."""
    return web.json_response({"status": "ok"})
