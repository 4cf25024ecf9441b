"""Assembly: routes, the surface every answer passes, and the process around them."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import Awaitable, Callable, Iterable
from typing import Final

import structlog
from aiohttp import web

from config import models, settings
from proxy import (
    admin,
    front,
    gateway,
    generation,
    journal,
    lifecycle,
    metrics,
    outlet,
    passage,
    record,
    relay,
    telemetry,
)
from translators import faults

log = structlog.get_logger()

GENERATION: Final = "/api/v1/services/aigc/text-generation/generation"
MULTIMODAL: Final = "/api/v1/services/aigc/multimodal-generation/generation"
HEALTH: Final = "/healthz"

# A call that comes while the process leaves may succeed on the next connection at once: another process answers it.
LEAVING_RETRY_S: Final = "1"

# Written to past the interpreter, see `outlet`.
STDOUT: Final = 1

GC_THRESHOLDS: Final = (50_000, 20, 100)

EXCHANGE: Final = web.RequestKey("exchange", passage.Exchange)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Record = Callable[[passage.Exchange, journal.Closing], None]


def serve(chosen: settings.Settings, rows: Iterable[models.ModelRow]) -> int:
    """Serve until a signal; returns the exit code.

    Raises `OSError` where the port is not to be had, `vocabulary.VocabularyError` where the vocabulary is not.
    """
    with contextlib.closing(telemetry.configure(chosen)) as lines, contextlib.closing(outlet.Outlet(STDOUT)) as stdout:
        front.raise_file_limit()
        return asyncio.run(_serve(chosen, rows, lines, stdout))


async def _serve(
    chosen: settings.Settings, rows: Iterable[models.ModelRow], lines: outlet.Outlet, stdout: outlet.Outlet
) -> int:
    async with gateway.opened(chosen, rows, lines) as house, metrics.opened(house) as measured:
        # What is loaded now lives as long as the process: it need not be walked by every collection.
        gc.collect()
        gc.freeze()
        # A call of many small parts is read in a fifth of the time where the collector does not look in between.
        gc.set_threshold(*GC_THRESHOLDS)
        calls = application(house, measured.keep)
        running = await lifecycle.start(calls, chosen, admin.application(house, calls[front.DRAINING], measured))

        def announce() -> None:
            log.info(
                "serving",
                url=running.url,
                admin=running.admin_url,
                upstream=chosen.upstream,
                dialect=chosen.dialect,
                auth=chosen.auth,
            )
            stdout.write(f"dashseek serving on {running.url}\n")  # the line that scripts wait for

        await running.until_told_to_stop(house.clocks, announce)
    return 0


def application(house: gateway.Gateway, keep: Record = lambda _, __: None) -> web.Application:
    """The web application before one gateway; `keep` is told of every call when it has ended."""
    app = web.Application(middlewares=[surface], client_max_size=int(house.settings.max_body_bytes))
    app[front.LEAVING] = asyncio.Event()
    app[front.DRAINING] = asyncio.Event()
    app.on_response_prepare.append(front.last_look)
    app.on_response_prepare.append(_say_times)
    door = _door(house, keep)
    app.router.add_post(GENERATION, door)
    app.router.add_post(MULTIMODAL, _wrong_endpoint)
    app.router.add_get(HEALTH, admin.alive)
    if house.settings.model_route:
        app.router.add_post(_pattern(house.settings.model_route), door)
    return app


@web.middleware
async def surface(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Let in what is framed well, and give every failure DashScope's shape (spec HTTP-4, ERR-1)."""
    front.check_framing(request)
    try:
        return await handler(request)
    except faults.Refusal as refusal:
        return _refused(request, refusal.fault)
    except web.HTTPMethodNotAllowed:
        return _refused(request, faults.wrong_method(request.method))
    except web.HTTPException:
        return _refused(request, faults.NOT_FOUND)


def _refused(request: web.Request, fault: faults.Fault) -> web.Response:
    return front.refused(fault, front.request_id(request))


async def _say_times(asked: web.Request, answer: web.StreamResponse) -> None:
    if EXCHANGE in asked:
        answer.headers["Server-Timing"] = asked[EXCHANGE].timing()


def _door(house: gateway.Gateway, keep: Record) -> Handler:
    async def generate(request: web.Request) -> web.StreamResponse:
        if request.app[front.LEAVING].is_set():
            raise faults.Refusal(faults.UNAVAILABLE.after(LEAVING_RETRY_S), "the process is ending")
        exchange = passage.Exchange(front.request_id(request), asyncio.get_running_loop().time())
        request[EXCHANGE] = exchange
        end = record.End.BUG
        try:
            response = await generation.generate(house, request, exchange)
            end = record.End.DONE
        except faults.Refusal as refusal:
            exchange.refusal = refusal
            end = record.End.DONE
            raise
        except passage.CallerStalled:
            end = record.End.STALLED
            _cut(request)
            raise asyncio.CancelledError from None
        except (relay.CallerGone, asyncio.CancelledError):
            # Who leaves with the last byte in hand has not left early.
            end = record.End.LEFT if exchange.ended_s is None else record.End.DONE
            raise asyncio.CancelledError from None
        except Exception as error:
            log.exception("bug", request_id=exchange.request_id, error=type(error).__name__)
            exchange.refusal = faults.Refusal(faults.INTERNAL, f"a bug ({type(error).__name__})")
            if request.writer.output_size:
                # A second answer would be taken for a part of the first.
                _cut(request)
                raise asyncio.CancelledError from None
            raise exchange.refusal from None
        finally:
            keep(exchange, record.settle(exchange, end, house.journal))
        return response

    return generate


def _cut(request: web.Request) -> None:
    if request.transport is not None:
        request.transport.abort()


async def _wrong_endpoint(_: web.Request) -> web.StreamResponse:
    raise faults.Refusal(faults.WRONG_ENDPOINT)


def _pattern(route: str) -> str:
    """A route as the operator writes it: `{model}` may hold slashes, every other part is one segment."""
    return route.replace("{model}", "{model:[^/]+(?:/[^/]+)*}")
