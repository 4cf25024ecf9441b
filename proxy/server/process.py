"""Assembly: routes, the surface every answer passes, and the process around them."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Coroutine
from contextlib import asynccontextmanager
from typing import Any, Final

import structlog
from aiohttp import web

from config.models import ModelRow
from config.settings import Settings, SettingsError
from proxy import vocabulary
from proxy.admin import application as admin
from proxy.admin.application import Process
from proxy.admission import keyring
from proxy.call import prepare, record
from proxy.call.forward import CallerStalled, Exchange
from proxy.call.gateway import Gateway, catalogue_of, open_gateway
from proxy.call.record import End
from proxy.call.relay import CallerGone
from proxy.downstream import connection
from proxy.metering.journal import Closing
from proxy.server import lifecycle, supervisor, systemd
from proxy.server.supervisor import Report, WorkerReports, WorkerSlot
from proxy.telemetry import logs, metrics
from proxy.telemetry.log_writer import Lines, LogWriter, Unthreaded
from translators import faults

log = structlog.get_logger()

GENERATION: Final = connection.GENERATION
MULTIMODAL: Final = "/api/v1/services/aigc/multimodal-generation/generation"
HEALTH: Final = "/healthz"

# A call that comes while the process leaves may succeed on the next connection at once: another process answers it.
LEAVING_RETRY_S: Final = "1"

# Written to past the interpreter, see `outlet`.
STDOUT: Final = 1
STDERR: Final = 2

SERVING: Final = "dashseek serving on {}\n"  # the line that scripts wait for

LIMITS_APART: Final = (
    "keys of the keys file have limits, and each of several processes would allow them whole: "
    "say DASHSEEK_REDIS_URL as well"
)

GC_THRESHOLDS: Final = (10_000, 10, 10)

EXCHANGE: Final = web.RequestKey("exchange", Exchange)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Record = Callable[[Exchange, Closing], None]


def serve(settings: Settings, rows: Collection[ModelRow]) -> int:
    """Serve until a signal; returns the exit code.

    Raises `OSError` where the port is not to be had, `vocabulary.VocabularyError` where the vocabulary is not.
    """
    if settings.workers == 1:
        return _run(settings, lambda stdout, stderr: _serve(settings, rows, stdout, stderr))
    if settings.keys_file and not settings.redis_url:
        known = keyring.read(settings.keys_file, catalogue_of(settings, rows))
        if any(key.limits for key in known.values()):
            raise SettingsError([f"workers ({settings.origins['workers']}): {LIMITS_APART}"])
    # What every worker needs is loaded once and shared; nothing here may start a thread (see `workers`).
    vocabulary.load()
    _keep()
    unthreaded = Unthreaded(STDERR)
    logs.configure(settings, unthreaded)

    def child(seat: WorkerSlot) -> int:
        if seat.number == supervisor.ADMIN_PROCESS:
            return _run(settings, lambda _, __: _answer(settings, seat))
        return _run(settings, lambda _, stderr: _work(settings, rows, seat, stderr))

    def announce(url: str, admin_url: str) -> None:
        _log_start(settings, url, admin_url)
        Unthreaded(STDOUT).write(SERVING.format(url))
        systemd.say("READY=1")

    return supervisor.supervise(settings, child, announce)


def _run(settings: Settings, work: Callable[[Lines, Lines], Coroutine[Any, Any, None]]) -> int:
    with (
        contextlib.closing(logs.configure(settings)) as stderr,
        contextlib.closing(LogWriter(STDOUT)) as stdout,
    ):
        connection.raise_file_limit()
        asyncio.run(work(stdout, stderr))
        return 0


async def _serve(settings: Settings, rows: Collection[ModelRow], stdout: Lines, stderr: Lines) -> None:
    """One process that does everything."""
    async with _house(settings, rows, stderr) as (gateway, calls, state):
        running = await lifecycle.start(calls, settings, admin.application(state))

        def announce() -> None:
            _log_start(settings, running.url, running.admin_url)
            stdout.write(SERVING.format(running.url))
            systemd.say("READY=1")

        await running.until_told_to_stop(gateway.clocks, announce)


async def _work(settings: Settings, rows: Collection[ModelRow], seat: WorkerSlot, stderr: Lines) -> None:
    """One of several that serve a port."""
    async with _house(settings, rows, stderr) as (gateway, calls, state):

        def said() -> Report:
            return {"process": os.getpid(), "reasons": state.said(), "reading": supervisor.sent(state.measured.read())}

        running = await lifecycle.start(calls, settings.model_copy(update={"port": seat.port}))
        async with supervisor.serve_report(seat.sockets[seat.number], said):
            with seat.held():
                await running.until_told_to_stop(gateway.clocks, seat.say_ready)


async def _answer(settings: Settings, seat: WorkerSlot) -> None:
    """The front desk of several."""
    growing = frozenset(row.name for row in metrics.ROWS if row.kind != "gauge")
    desk = admin.application(WorkerReports(seat.sockets, growing))
    desk[connection.SERVED] = lifecycle.url((settings.host, seat.port))
    with seat.held():
        await lifecycle.answer(desk, seat.admin, seat.say_ready)


@asynccontextmanager
async def _house(
    settings: Settings, rows: Collection[ModelRow], stderr: Lines
) -> AsyncIterator[tuple[Gateway, web.Application, Process]]:
    async with open_gateway(settings, rows) as gateway, metrics.opened(gateway, stderr) as measured:
        _keep()
        calls = application(gateway, measured.keep)
        yield gateway, calls, Process(gateway, calls[connection.DRAINING], measured)


def _keep() -> None:
    # What is loaded now lives as long as the process: it need not be walked by every collection.
    gc.collect()
    gc.freeze()
    # A call of many small parts is read in a fifth of the time where the collector does not look in between.
    gc.set_threshold(*GC_THRESHOLDS)


def _log_start(settings: Settings, url: str, admin_url: str | None) -> None:
    log.info(
        "serving",
        url=url,
        admin=admin_url,
        upstream=settings.upstream,
        dialect=settings.dialect,
        auth=settings.auth,
        workers=settings.workers,
    )


def application(gateway: Gateway, keep: Record = lambda _, __: None) -> web.Application:
    """The web application before one gateway; `keep` is told of every call when it has ended."""
    app = web.Application(middlewares=[surface], client_max_size=int(gateway.settings.max_body_bytes))
    app[connection.LEAVING] = asyncio.Event()
    app[connection.DRAINING] = asyncio.Event()
    app[connection.CUTTING] = asyncio.Event()
    app.on_response_prepare.append(connection.last_look)
    app.on_response_prepare.append(_say_times)
    door = _door(gateway, keep)
    app.router.add_post(GENERATION, door)
    app.router.add_post(MULTIMODAL, _wrong_endpoint)
    app.router.add_get(HEALTH, admin.alive)
    if gateway.settings.model_route:
        app.router.add_post(_pattern(gateway.settings.model_route), door)
    return app


@web.middleware
async def surface(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Let in what is framed well, and give every failure DashScope's shape (spec HTTP-4, ERR-1)."""
    connection.check_framing(request)
    try:
        return await handler(request)
    except faults.Refusal as refusal:
        # Its traceback holds the frames of the call, which hold the refusal: only a collection would free them.
        refusal.__traceback__ = None
        return _refused(request, refusal.fault)
    except web.HTTPMethodNotAllowed:
        return _refused(request, faults.wrong_method(request.method))
    except web.HTTPException:
        return _refused(request, faults.NOT_FOUND)


def _refused(request: web.Request, fault: faults.Fault) -> web.Response:
    return connection.refused(fault, connection.request_id(request))


async def _say_times(request: web.Request, answer: web.StreamResponse) -> None:
    if EXCHANGE in request:
        answer.headers["Server-Timing"] = request[EXCHANGE].timing()


def _door(gateway: Gateway, keep: Record) -> Handler:
    async def generate(request: web.Request) -> web.StreamResponse:
        if connection.too_late(request):
            raise faults.Refusal(faults.UNAVAILABLE.after(LEAVING_RETRY_S), "the process is ending")
        exchange = _begun(gateway, request)
        if gateway.settings.cancel_policy == "drain":
            return await gateway.abandoned_calls.serve(_served(request, exchange), exchange.leave)
        return await _served(request, exchange)

    async def _served(request: web.Request, exchange: Exchange) -> web.StreamResponse:
        end = End.BUG
        try:
            response = await prepare.generate(gateway, request, exchange)
            end = End.DONE
        except faults.Refusal as refusal:
            exchange.refusal = refusal
            end = End.DONE
            raise
        except CallerStalled:
            end = End.STALLED
            _cut(request)
            raise asyncio.CancelledError from None
        except (CallerGone, asyncio.CancelledError):
            # Who leaves with the last byte in hand has not left early.
            end = End.LEFT if exchange.ended_s is None else End.DONE
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
            keep(exchange, record.settle(exchange, end, gateway.journal))
        return response

    return generate


def _begun(gateway: Gateway, request: web.Request) -> Exchange:
    exchange = Exchange(connection.request_id(request), asyncio.get_running_loop().time())
    request[EXCHANGE] = exchange
    if gateway.spans is not None:
        exchange.trace = gateway.spans.begin(request, exchange.at_s)
    return exchange


def _cut(request: web.Request) -> None:
    if request.transport is not None:
        request.transport.abort()


async def _wrong_endpoint(_: web.Request) -> web.StreamResponse:
    raise faults.Refusal(faults.WRONG_ENDPOINT)


def _pattern(route: str) -> str:
    """A route as the operator writes it: `{model}` may hold slashes, every other part is one segment."""
    return route.replace("{model}", "{model:[^/]+(?:/[^/]+)*}")
