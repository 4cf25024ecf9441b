"""One call from its first byte to its record: begun, served, and closed in the books whatever happens.

A caller who hangs up is noticed here: as `CancelledError`, for aiohttp cancels the handler, or as `CallerGone`, where a
read or a write finds it first. Whether upstream is then stopped or read on is `cancel_policy` (`abandoned`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from time import monotonic

import structlog

from proxy.call import prepare, record
from proxy.call.exchange import CallerStalled, Exchange, Times
from proxy.call.gateway import Gateway
from proxy.call.record import BUG, DONE, LEFT, STALLED
from proxy.downstream.request import Request
from proxy.downstream.sinks import CallerGone, Response
from proxy.metering.journal import Record
from translators import faults

log = structlog.get_logger()

Keep = Callable[[Record], None]


def serve(gateway: Gateway, request: Request, keep: Keep) -> Awaitable[Response]:
    """Serve one call; raises `Refusal` where it fails before its answer begins, here or when it is awaited.

    keep: is told of the call when it has ended
    """
    request.refuse_late()
    exchange = Exchange(request.id, request.tongue.API, Times(monotonic()))
    request.say_times(exchange.timing)
    if gateway.spans is not None:
        exchange.books.trace = gateway.spans.begin(request, exchange.at_s)
    call = _served(gateway, request, exchange, keep)
    if gateway.settings.cancel_policy == "drain":
        return gateway.abandoned_calls.serve(call, exchange.leave)
    return call


async def _served(gateway: Gateway, request: Request, exchange: Exchange, keep: Keep) -> Response:
    end = BUG
    try:
        response = await prepare.generate(gateway, request, exchange)
        end = DONE
    except faults.Refusal as refusal:
        exchange.refusal = refusal
        end = DONE
        raise
    except CallerStalled:
        end = STALLED
        request.hang_up(at_once=True)
    except (CallerGone, asyncio.CancelledError):
        # Who leaves with the last byte in hand has not left early.
        end = LEFT if exchange.times.ended_s is None else DONE
        request.hang_up()
    except Exception as error:
        log.exception("bug", request_id=exchange.request_id, error=type(error).__name__)
        exchange.refusal = faults.Refusal(faults.INTERNAL, f"a bug ({type(error).__name__})")
        if request.has_answer:
            request.hang_up(at_once=True)
        raise exchange.refusal from None
    finally:
        keep(record.close(exchange, end, gateway.journal, says_upstream=gateway.settings.log_upstream_text))
    return response
