"""One call from its first byte to its record: begun, served, and closed in the books whatever happens."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import structlog
from aiohttp import web

from proxy.call import prepare, record
from proxy.call.exchange import CallerStalled, Exchange
from proxy.call.gateway import Gateway
from proxy.call.record import End
from proxy.downstream import connection, surface
from proxy.downstream.sinks import CallerGone
from proxy.metering.journal import Closing
from translators import faults

log = structlog.get_logger()

# A call that comes while the process leaves may succeed on the next connection at once: another process answers it.
LEAVING_RETRY_S: Final = "1"
EXCHANGE: Final = web.RequestKey("exchange", Exchange)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Record = Callable[[Exchange, Closing], None]


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
    exchange = Exchange(surface.request_id(request), asyncio.get_running_loop().time())
    request[EXCHANGE] = exchange
    if gateway.spans is not None:
        exchange.trace = gateway.spans.begin(request, exchange.at_s)
    return exchange


def _cut(request: web.Request) -> None:
    if request.transport is not None:
        request.transport.abort()
