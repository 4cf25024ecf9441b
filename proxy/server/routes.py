"""The routes of the data port: which path speaks which tongue."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Final, NamedTuple

from aiohttp import hdrs, web

from proxy.admin import application as admin
from proxy.call import handler, lookups
from proxy.call.gateway import Gateway
from proxy.call.handler import Keep
from proxy.downstream import browsers, paths, surface
from proxy.downstream.request import TIMING, Request
from proxy.downstream.sinks import Response
from proxy.downstream.strays import SLASH_HINT, Hints, Stray, Strays
from proxy.downstream.surface import Handler
from proxy.inspector import taps
from proxy.inspector.recent_calls import RecentCalls
from translators import faults
from translators.compatible import call as compatible_call
from translators.compatible import listing as compatible_listing
from translators.compatible import tongue as compatible
from translators.dashscope import call as dashscope_call
from translators.dashscope import listing as dashscope_listing
from translators.dashscope import multimodal
from translators.dashscope import tongue as dashscope
from translators.tongue import Tongue


class Doors(NamedTuple):
    """How a call is made of a request, and what serves it; `inspected` puts a tap into each.

    request: makes a call of what came; told how many bytes of images may come along
    serve:   serves it through the gateway of now
    """

    request: Callable[[web.Request, Tongue, int], Request] = Request
    serve: Callable[[Gateway, Request, Keep], Awaitable[Response]] = handler.serve


# Where calls are taken below /api/v1/services/, as an expression.
SERVED: Final = "|".join(re.escape(path.removeprefix("/api/v1/services/")) for path in paths.NATIVE)
# What the paths look like that no route takes -> what was meant (spec HTTP-13).
HINTS: Final[Hints] = tuple(
    (re.compile(pattern), hint)
    for pattern, hint in (
        (r"/services/", "/api/v1 is missing before it"),
        (r"/v1/services/", "/api is missing before it"),
        (r"/(compatible-mode|compatible-api)/v1/(api/v1/)?services/", "DashScope's own calls are below /api/v1"),
        (r"(/api/v1){2,}/", "/api/v1 is there twice"),
        # Served, but for the slashes.
        (r"(/compatible-mode)?/v1/(chat/completions|models)$", SLASH_HINT),
        (r"(/compatible-mode)?/(chat/completions|models)$", "/v1 is missing before it"),
        (r"(/compatible-mode)?(/v1){2,}/", "/v1 is there twice"),
        (r".*(/chat/completions){2,}$", "/chat/completions is there twice"),
        (
            r"/compatible-mode\b|(/api)?/v1$|.*/(chat/)?completions$|(/api)?(/v1)?/(models|responses|embeddings)$",
            "an OpenAI path: chat completions and models are served, below /compatible-mode/v1 and /v1",
        ),
        (r"/(readyz|metrics|docs|openapi\.json)\b", "the admin port's"),
        (
            rf"/api/v1/services/(?!{SERVED})",
            "answers in text are served, below text-generation and multimodal-generation",
        ),
    )
)


def application(
    gateway: Gateway,
    keep: Keep = lambda _: None,
    stray: Callable[[int], None] = lambda _: None,
    doors: Doors | None = None,
) -> web.Application:
    """The web application before one gateway.

    keep:   is told of every call when it has ended
    stray:  is told of everything that is no call, by its status
    doors:  what a request becomes, and who serves it
    """
    settings, doors = gateway.settings, doors or Doors()
    app = web.Application(client_max_size=int(settings.max_body_bytes))
    surface.guard(
        app,
        tongue=dashscope,
        below={f"{root}/": compatible for root in paths.COMPATIBLE},
        browsers=browsers.at_calls(settings),
        strays=Strays("calls", HINTS, stray),
        health=(paths.HEALTH,),
    )
    app.on_response_prepare.append(_say_times)
    generation = _spoken(dashscope, gateway, keep, doors)
    surface.add_calls(app, paths.GENERATION, generation)
    surface.add_calls(app, paths.MULTIMODAL, _spoken(multimodal, gateway, keep, doors))
    app.router.add_get(paths.HEALTH, admin.alive)
    _add_lookups(app.router, gateway)
    for root in paths.COMPATIBLE:
        surface.add_calls(app, root + paths.COMPLETIONS, _spoken(compatible, gateway, keep, doors))
        _add_models(app.router, root, gateway)
    if settings.model_route:
        app.router.add_post(_pattern(settings.model_route), surface.routed(generation))
    return app


def inspected(
    gateway: Gateway, keep: Keep, recent: RecentCalls, stray: Callable[[int], None] = lambda _: None
) -> web.Application:
    """The same with a tap at each of its two doors.

    recent: where what passes is kept
    """

    def request(came: web.Request, tongue: Tongue, image_bytes: int) -> Request:
        return taps.TappedRequest(came, tongue, image_bytes, recent)

    async def serve(now: Gateway, call: Request, keep: Keep) -> Response:
        return await handler.serve(replace(now, upstreams=taps.upstreams(now.upstreams, recent)), call, keep)

    app = application(gateway, taps.keep_of(keep, recent), stray, Doors(request, serve))
    taps.tap_refusals(app, recent)
    return app


def _spoken(tongue: Tongue, gateway: Gateway, keep: Keep, doors: Doors) -> Handler:
    """What serves the calls of a path whose callers speak so, and may show images where any model sees."""
    made, serve = doors
    latest = gateway.latest

    def generate(request: web.Request) -> Awaitable[web.StreamResponse]:
        now = latest.gateway
        image_bytes = int(now.settings.max_image_bytes) if now.catalogue.sees else 0
        return serve(now, made(request, tongue, image_bytes), keep)  # type: ignore[return-value] # `Sent`: see `Connection`

    return generate


def _add_models(router: web.UrlDispatcher, root: str, gateway: Gateway) -> None:
    """The models, below one path of the compatible surface (spec COM-1, COM-29)."""
    router.add_get(root + paths.MODELS, _listed(gateway), allow_head=False)
    # A line end, too: no name goes past, for the route with a model in its path would take it.
    model = router.add_resource(root + paths.MODELS + "/{id:(?s:.+)}")
    model.add_route(hdrs.METH_GET, _described(gateway))
    model.add_route(hdrs.METH_ANY, _wrong_method)


def _add_lookups(router: web.UrlDispatcher, gateway: Gateway) -> None:
    """What callers of the native surface ask beside their calls (spec HTTP-12)."""

    async def models(request: web.Request) -> web.StreamResponse:
        call = Request(request, dashscope)
        names = await lookups.models(gateway.latest.gateway, call, request.query.get("model"))
        return _json(dashscope_listing.models(names, request.query, call.id))

    async def tokens(request: web.Request) -> web.StreamResponse:
        call = Request(request, dashscope)
        found = await lookups.tokens(gateway.latest.gateway, call, dashscope_call.prompted)
        return _json(dashscope_listing.tokens(*found, call.id))

    router.add_get(paths.NATIVE_MODELS, models, allow_head=False)
    router.add_post(paths.TOKENIZER, tokens)


def _listed(gateway: Gateway) -> Handler:
    """The models, as the compatible surface lists them (spec COM-29)."""

    async def models(request: web.Request) -> web.StreamResponse:
        call = Request(request, compatible)
        return _json(compatible_listing.models(await lookups.models(gateway.latest.gateway, call)))

    return models


def _described(gateway: Gateway) -> Handler:
    """One of them."""

    async def model(request: web.Request) -> web.StreamResponse:
        call = Request(request, compatible)
        name = request.match_info["id"]
        if not await lookups.models(gateway.latest.gateway, call, name):
            raise faults.Refusal(compatible_call.unknown_model(name))
        return _json(compatible_listing.model(name))

    return model


def _json(body: bytes) -> web.Response:
    return web.Response(body=body, content_type="application/json")


async def _wrong_method(request: web.Request) -> web.StreamResponse:
    raise Stray(faults.wrong_method(request.method), "takes GET")


async def _say_times(request: web.Request, answer: web.StreamResponse) -> None:
    if (timing := request.get(TIMING)) is not None:
        answer.headers["Server-Timing"] = timing()


def _pattern(route: str) -> str:
    """A route as the operator writes it: `{model}` may hold slashes, every other part is one segment."""
    return route.replace("{model}", "{model:[^/]+(?:/[^/]+)*}")
