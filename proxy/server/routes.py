"""The routes of the data port, and the shape that every answer of it has."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import web

from proxy.admin import application as admin
from proxy.call import handler
from proxy.call.gateway import Gateway
from proxy.call.handler import Keep
from proxy.downstream import surface
from proxy.downstream.phase import LIFECYCLE, Lifecycle
from proxy.downstream.request import Request
from proxy.downstream.surface import GENERATION
from translators import faults
from translators.dashscope import tongue as dashscope
from translators.tongue import Tongue

MULTIMODAL: Final = "/api/v1/services/aigc/multimodal-generation/generation"
HEALTH: Final = "/healthz"

# What tells a failure on this port where no route has said otherwise.
FAILURE: Final[surface.Failure] = dashscope.failure

REQUEST: Final = web.RequestKey("request", Request)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def application(gateway: Gateway, keep: Keep = lambda _: None) -> web.Application:
    """The web application before one gateway; `keep` is told of every call when it has ended."""
    app = web.Application(middlewares=[shaped], client_max_size=int(gateway.settings.max_body_bytes))
    app[LIFECYCLE] = Lifecycle()
    app.on_response_prepare.append(surface.last_look)
    app.on_response_prepare.append(_say_times)
    generation = _spoken(dashscope, gateway, keep)
    app.router.add_post(GENERATION, generation)
    app.router.add_post(MULTIMODAL, _wrong_endpoint)
    app.router.add_get(HEALTH, admin.alive)
    if gateway.settings.model_route:
        app.router.add_post(_pattern(gateway.settings.model_route), generation)
    return app


@web.middleware
async def shaped(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Let in what is framed well, and tell every failure in the caller's tongue (spec HTTP-4, ERR-1)."""
    surface.check_framing(request)
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
    known_as = surface.request_id(request)
    if REQUEST not in request:
        return surface.refused(fault, known_as, FAILURE)
    tongue = request[REQUEST].tongue
    return surface.refused(fault, known_as, tongue.failure, tongue.failure_headers(fault))


def _spoken(tongue: Tongue, gateway: Gateway, keep: Keep) -> Handler:
    """What serves the calls of a path whose callers speak so."""

    async def generate(request: web.Request) -> web.StreamResponse:
        request[REQUEST] = call = Request(request, tongue)
        return await handler.serve(gateway, call, keep)  # type: ignore[return-value] # `Sent`: see `Connection`

    return generate


async def _say_times(request: web.Request, answer: web.StreamResponse) -> None:
    if REQUEST in request and (timing := request[REQUEST].timing) is not None:
        answer.headers["Server-Timing"] = timing()


async def _wrong_endpoint(_: web.Request) -> web.StreamResponse:
    raise faults.Refusal(faults.WRONG_ENDPOINT)


def _pattern(route: str) -> str:
    """A route as the operator writes it: `{model}` may hold slashes, every other part is one segment."""
    return route.replace("{model}", "{model:[^/]+(?:/[^/]+)*}")
