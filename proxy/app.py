"""Assembly: routes, the surface every answer passes, and the process around them."""

from __future__ import annotations

import asyncio
import gc
import uuid
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import AsyncExitStack
from typing import Final

import structlog
from aiohttp import web

from config import models, settings
from proxy import gateway, generation, lifecycle, passage, record, relay, telemetry, upstream, vocabulary
from translators import faults
from translators.dashscope import packets

log = structlog.get_logger()

GENERATION: Final = "/api/v1/services/aigc/text-generation/generation"
MULTIMODAL: Final = "/api/v1/services/aigc/multimodal-generation/generation"
HEALTH: Final = "/healthz"

REQUEST_ID: Final = web.RequestKey("request_id", str)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Record = Callable[[passage.Exchange, str], None]


def serve(chosen: settings.Settings, rows: Iterable[models.ModelRow]) -> int:
    """Serve until a signal; returns the exit code.

    Raises `OSError` where the port is not to be had, `vocabulary.VocabularyError` where the vocabulary is not.
    """
    telemetry.configure(chosen)
    return asyncio.run(_serve(chosen, rows))


async def _serve(chosen: settings.Settings, rows: Iterable[models.ModelRow]) -> int:
    async with AsyncExitStack() as stack:
        upstreams = await stack.enter_async_context(upstream.opened(chosen))
        house = gateway.build(chosen, rows, vocabulary.load(), upstreams)
        # What is loaded now lives as long as the process: it need not be walked by every collection.
        gc.collect()
        gc.freeze()
        running = await lifecycle.start(application(house), chosen)
        print(f"dashseek serving on {running.url}", flush=True)  # noqa: T201 - the line that scripts wait for
        log.info("serving", url=running.url, upstream=chosen.upstream, dialect=chosen.dialect, auth=chosen.auth)
        await running.until_told_to_stop(house.clocks)
    return 0


def application(house: gateway.Gateway, keep: Record = record.to_log) -> web.Application:
    """The web application before one gateway; `keep` is told of every call when it has ended."""
    app = web.Application(middlewares=[surface], client_max_size=int(house.settings.max_body_bytes))
    door = _door(house, keep)
    app.router.add_post(GENERATION, door)
    app.router.add_post(MULTIMODAL, _wrong_endpoint)
    app.router.add_get(HEALTH, _healthy)
    if house.settings.model_route:
        app.router.add_post(_pattern(house.settings.model_route), door)
    return app


@web.middleware
async def surface(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Give the call its id, and every failure DashScope's shape (spec HTTP-6, ERR-1)."""
    request[REQUEST_ID] = request_id = request_id_of(request.headers)
    try:
        response = await handler(request)
    except faults.Refusal as refusal:
        response = refused(refusal.fault, request_id)
    except web.HTTPMethodNotAllowed:
        response = refused(faults.wrong_method(request.method), request_id)
    except web.HTTPException:
        response = refused(faults.NOT_FOUND, request_id)
    if not response.prepared:
        response.headers["X-Request-Id"] = request_id
    return response


def request_id_of(headers: Mapping[str, str]) -> str:
    """The caller's id where it is a well-formed UUID, else a new one (spec HTTP-6)."""
    said = headers.get("X-Request-Id", "").lower()
    try:
        known = str(uuid.UUID(said)) == said
    except ValueError:
        known = False
    return said if known else str(uuid.uuid4())


def refused(fault: faults.Fault, request_id: str) -> web.Response:
    """A failure as an answer of its own."""
    headers = {} if fault.retry_after is None else {"Retry-After": fault.retry_after}
    body = packets.error(fault, request_id)
    return web.Response(status=fault.status, body=body, content_type="application/json", headers=headers)


def _door(house: gateway.Gateway, keep: Record) -> Handler:
    async def generate(request: web.Request) -> web.StreamResponse:
        exchange = passage.Exchange(request[REQUEST_ID], asyncio.get_running_loop().time())
        outcome = "internal_error"
        try:
            response = await generation.generate(house, request, exchange)
            outcome = "ok" if exchange.refusal is None else "failed"
        except faults.Refusal as refusal:
            exchange.refusal, outcome = refusal, "failed"
            raise
        except passage.CallerStalled:
            outcome = "client_stalled"
            if request.transport is not None:
                request.transport.abort()
            raise asyncio.CancelledError from None
        except (relay.CallerGone, asyncio.CancelledError):
            outcome = "client_gone"
            raise asyncio.CancelledError from None
        except Exception as error:
            log.exception("bug", request_id=exchange.request_id, error=type(error).__name__)
            raise faults.Refusal(faults.INTERNAL) from None
        finally:
            keep(exchange, outcome)
        return response

    return generate


async def _wrong_endpoint(_: web.Request) -> web.StreamResponse:
    raise faults.Refusal(faults.WRONG_ENDPOINT)


async def _healthy(_: web.Request) -> web.StreamResponse:
    return web.json_response({"status": "ok"})


def _pattern(route: str) -> str:
    """A route as the operator writes it: `{model}` may hold slashes, every other part is one segment."""
    return route.replace("{model}", "{model:.+}")
