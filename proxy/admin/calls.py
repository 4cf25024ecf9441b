"""`/calls` of the admin port: the calls that are kept, live, each with both its sides, in a page that loads nothing.

Only where `inspect` is set, which the settings let be on loopback alone. What callers and upstreams say leaves as JSON
and is put into the page as text; no other site's page may ask for it.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

import orjson
from aiohttp import hdrs, web

from proxy.admin import docs
from proxy.admin.docs import Page
from proxy.admin.translation import TONGUES
from proxy.call.gateway import Gateway
from proxy.downstream import browsers, surface
from proxy.inspector import call_file, copies, har, redaction
from proxy.inspector.recent_calls import RecentCalls
from proxy.telemetry import installed
from translators import explain, faults
from translators.dashscope import multimodal
from translators.openai import request as upstream_request

# In the path of calls whose answers are lists of parts, whatever else they have in common.
MULTIMODAL: Final = "/multimodal-generation/"
# What has changed is told so often at most: of fifty streams each packet would be news.
EVERY_S: Final = 0.2
# Who says nothing for so long is told that we live, and found out where it has left.
BEAT_S: Final = 15.0
MOST_WATCHERS: Final = 8
SUMMARIES_AT_ONCE: Final = 50

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Inspected:
    """The calls that are kept, and what is needed to say what became of their fields."""

    recent: RecentCalls
    gateway: Gateway


INSPECTED: Final = web.AppKey("inspected", Inspected)
WATCHERS: Final = web.AppKey("watchers", asyncio.Semaphore)


def add_to(app: web.Application, inspected: Inspected) -> None:
    """Let an admin application show them."""
    app[INSPECTED], app[WATCHERS] = inspected, asyncio.Semaphore(MOST_WATCHERS)
    app.router.add_get("/calls", _show)
    for path, handler in (
        ("/calls/list", _list),
        ("/calls/events", _watch),
        ("/calls/{id}.har", _archive),
        ("/calls/{id}", _one),
    ):
        app.router.add_get(path, _own_page(handler))


async def _list(request: web.Request) -> web.StreamResponse:
    recent = request.app[INSPECTED].recent
    return _json({"calls": [call_file.summary_of(call) for call in recent], **_bounds(recent)})


async def _one(request: web.Request) -> web.StreamResponse:
    return _json(await _taken_away(request))


async def _archive(request: web.Request) -> web.StreamResponse:
    version = installed.version_of(installed.DISTRIBUTION)
    return _json(har.har_of(await _taken_away(request), version))


async def _watch(request: web.Request) -> web.StreamResponse:
    watchers = request.app[WATCHERS]
    if watchers.locked():
        raise faults.Refusal(faults.OVERLOADED)
    async with watchers:
        return await _tell(request, request.app[INSPECTED].recent)


async def _taken_away(request: web.Request) -> dict[str, Any]:
    """The call that is asked for as a document, redacted where that is asked for."""
    inspected = request.app[INSPECTED]
    call = inspected.recent.find(request.match_info["id"])
    if call is None:
        raise faults.Refusal(faults.NOT_FOUND)
    # Here and not in the thread: the call may go on.
    document = call_file.document_of(call)
    latest = inspected.gateway.latest.gateway
    if "redact" in request.query:
        return await asyncio.to_thread(redaction.redacted, document, latest.vocabulary)
    account = await asyncio.to_thread(account_of, document, latest)
    return document | {"account": account, "not_offered": copies.not_offered(document)}


def _own_page(handler: Handler) -> Handler:
    """Answers only who is no browser, and our own page."""

    async def answered(request: web.Request) -> web.StreamResponse:
        site = request.headers.get(browsers.SEC_FETCH_SITE, "same-origin")
        if site not in browsers.OWN_SITES:
            raise faults.Refusal(faults.ACCESS_DENIED)
        return await handler(request)

    return answered


async def _tell(request: web.Request, recent: RecentCalls) -> web.StreamResponse:
    """All calls, and then what changes, as events; at most a few times a second, however much happens."""
    headers = {**docs.HEADERS, hdrs.CACHE_CONTROL: "no-store", hdrs.CONTENT_TYPE: "text/event-stream; charset=utf-8"}
    response = web.StreamResponse(headers=headers)
    await response.prepare(request)
    with recent.watched() as watch:
        changed = [call.number for call in recent]
        while True:
            for start in range(0, max(1, len(changed)), SUMMARIES_AT_ONCE):
                await response.write(_event(recent, changed[start : start + SUMMARIES_AT_ONCE]))
            await asyncio.sleep(EVERY_S)
            while not watch.changed:
                try:
                    async with asyncio.timeout(BEAT_S):
                        await watch.news.wait()
                except TimeoutError:
                    await response.write(b":\n\n")
            changed = watch.take()


def _event(recent: RecentCalls, changed: list[int]) -> bytes:
    calls = {number: recent.find(str(number)) for number in changed}
    told = {
        "calls": [call_file.summary_of(call) for call in calls.values() if call is not None],
        "gone": [number for number, call in calls.items() if call is None],
        **_bounds(recent),
    }
    return b"data:" + orjson.dumps(told) + b"\n\n"


def _bounds(recent: RecentCalls) -> dict[str, int]:
    return {
        "held_bytes": recent.held_bytes,
        "most_calls": recent.most_calls,
        "most_call_bytes": recent.most_call_bytes,
        "most_bytes": recent.most_bytes,
    }


def account_of(document: dict[str, Any], gateway: Gateway) -> list[dict[str, str]]:
    """What became of every field of a call, as `translate` says it; nothing where it was not read so far."""
    shows_images = MULTIMODAL in document["caller"]["path"]
    tongue = multimodal if shows_images else TONGUES.get(document["api"])
    if tongue is None or not document["upstream"]:
        return []
    caller = document["caller"]
    try:
        asked = tongue.read(call_file.decoded(caller["body"]))
        call = tongue.translate(
            asked,
            gateway.catalogue,
            stream=document["stream"],
            path_model=None if "/models/" not in caller["path"] else caller["path"].partition("/models/")[2],
            strict_thinking=gateway.settings.strict_thinking,
            decode=gateway.vocabulary.decode_bytes,
        )
        pools = gateway.upstreams.pools
        pool = next((one for one in pools if one.name == document["upstream"][-1]["pool"]), pools[0])
        order = upstream_request.order(
            call._replace(model=gateway.model_of(pool, call.model)), gateway.dialect_of(pool)
        )
        lines = explain.of(asked, call, order.fields(), tongue.API)
    except faults.Refusal:
        # It was longer than what is kept of one call.
        return []
    return [{"field": line.field, "action": line.action, "upstream": line.theirs, "why": line.why} for line in lines]


@functools.lru_cache(maxsize=1)
def page(served: str) -> Page:
    """The page of a process that serves there."""
    return docs.made("calls", {"served": served})


async def _show(request: web.Request) -> web.StreamResponse:
    return docs.shown(await asyncio.to_thread(page, docs.callable_at(request.app[surface.SERVED])))


def _json(document: object) -> web.Response:
    headers = {**docs.HEADERS, hdrs.CACHE_CONTROL: "no-store"}
    return web.Response(body=orjson.dumps(document), content_type="application/json", headers=headers)
