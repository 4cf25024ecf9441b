"""What every request passes and every answer carries, on both ports: framing, browsers' rules, a failure's shape.

`guard` puts all of it before an application's routes: a guard of one port is a guard of the other.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import Final

import aiohttp
from aiohttp import hdrs, http_exceptions, web
from aiohttp.typedefs import Middleware

from proxy.downstream.browsers import Browsers
from proxy.downstream.phase import LEAVING, LIFECYCLE, Lifecycle
from proxy.downstream.request_ids import request_id
from proxy.downstream.strays import Stray, Strays
from translators import faults
from translators.tongue import Tongue

# A fault and a request id -> the body of the answer that tells it, in the tongue of whoever is told.
Failure = Callable[[faults.Fault, str], bytes]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

# Which tongue a request's route speaks; failures are told in it.
TONGUE: Final[web.RequestKey[Tongue]] = web.RequestKey("tongue")
# In the admin application: the base URL of the data port.
SERVED: Final = web.AppKey("served", str)
# Of an application: the tongue that tells a failure where no route has said another, what websites may do there, who is
# told of strays, the paths by which a platform asks whether it is well, and tongues by the beginnings of paths.
PORT_TONGUE: Final[web.AppKey[Tongue]] = web.AppKey("tongue")
BROWSERS: Final = web.AppKey("browsers", Browsers)
STRAYS: Final = web.AppKey("strays", Strays)
HEALTH: Final[web.AppKey[tuple[str, ...]]] = web.AppKey("health")
PATH_TONGUES: Final[web.AppKey[Mapping[str, Tongue]]] = web.AppKey("path_tongues")
# The paths of calls, each with what the router finds there for POST, and what serves it.
CALLS: Final[web.AppKey[dict[str, tuple[web.UrlMappingMatchInfo, Handler]]]] = web.AppKey("calls")
# On answers alone: some upstreams behave differently when they see a proxy before them.
VIA: Final = "1.1 dashseek"
# What no caller of ours needs, and what a proxy before us may frame differently than we do (request smuggling).
CHUNKED: Final = ["chunked"]
FRAMING: Final[tuple[tuple[str, Callable[[web.Request], bool]], ...]] = (
    ("HTTP version", lambda request: request.version not in (aiohttp.HttpVersion10, aiohttp.HttpVersion11)),
    (
        "Transfer-Encoding on HTTP/1.0",
        lambda request: request.version == aiohttp.HttpVersion10 and hdrs.TRANSFER_ENCODING in request.headers,
    ),
    (
        "Transfer-Encoding",
        lambda request: (
            [coding.lower() for coding in request.headers.getall(hdrs.TRANSFER_ENCODING, CHUNKED)] != CHUNKED
        ),
    ),
    ("not origin-form", lambda request: not request.raw_path.startswith("/")),
)


class Misframed(http_exceptions.BadHttpMessage):
    """A request that aiohttp takes and we do not."""


def guard(
    app: web.Application,
    *,
    tongue: Tongue,
    below: Mapping[str, Tongue] = MappingProxyType({}),
    browsers: Browsers,
    strays: Strays,
    health: tuple[str, ...],
) -> None:
    """Put everything of this module before an application's routes, and behind its answers.

    tongue:   tells a failure where nothing says another
    below:    what tells it on every path below these, each with a slash at its end, whether there is a route or not
    browsers: what websites may do
    strays:   is told of what is no call
    health:   paths that are answered where no other connection is
    """
    app[PORT_TONGUE], app[BROWSERS], app[STRAYS], app[HEALTH] = tongue, browsers, strays, health
    app[PATH_TONGUES] = below
    app[LIFECYCLE] = Lifecycle()
    app[CALLS] = {}
    app.middlewares.append(_shaping(browsers))
    app.on_response_prepare.append(last_look)


def add_calls(app: web.Application, path: str, handler: Handler) -> None:
    """Let calls be made at a path without parameters: by its route, and by `straight` as nearly all of them come."""
    found = web.UrlMappingMatchInfo({}, app.router.add_post(path, routed(handler)))
    found.add_app(app)
    app[CALLS][path] = found, handler


def routed(handler: Handler) -> Handler:
    """What serves calls, as a router wants it: a coroutine of its own."""

    async def served(request: web.Request) -> web.StreamResponse:
        return await handler(request)

    return served


def straight(app: web.Application, general: Handler) -> Handler:
    """What serves the requests of an application: calls at their known paths straight, all others as `general` does.

    Router, middlewares and what each request says of the application are the same for all of these calls: found for
    each, they take nineteen of its 480 functions, and before Python 3.12 a call to the kernel.
    """

    def behind_all(handler: Handler) -> Handler:
        for middleware in reversed(app.middlewares):
            handler = functools.partial(middleware, handler=handler)
        return handler

    calls = {path: (found, behind_all(handler)) for path, (found, handler) in app[CALLS].items()}

    def dispatch(request: web.Request) -> Awaitable[web.StreamResponse]:
        known = calls.get(request.raw_path)
        if known is None or request.method != hdrs.METH_POST or hdrs.EXPECT in request.headers:
            return general(request)
        request._match_info, handler = known  # noqa: SLF001 - what aiohttp's own application sets
        return handler(request)

    return dispatch


def _shaping(browsers: Browsers) -> Middleware:
    """Lets in what is framed well and no website's doing; tells every failure in its tongue (spec HTTP-4, ERR-1)."""
    refuses = browsers.refuses

    @web.middleware
    async def shaped(request: web.Request, handler: Handler) -> web.StreamResponse:
        check_framing(request)
        try:
            if request.method == hdrs.METH_OPTIONS and (answer := browsers.preflight(request)) is not None:
                return answer
            if refuses:
                browsers.check(request)
            return await handler(request)
        except faults.Refusal as refusal:
            # Its traceback holds the frames of the call, which hold the refusal: only a collection would free them.
            refusal.__traceback__ = None
            return _refused(request, refusal.fault)
        except Stray as found:
            stray = found
        except web.HTTPRequestEntityTooLarge:
            return _refused(request, faults.BODY_TOO_LARGE)
        except web.HTTPMethodNotAllowed as wrong:
            stray = Stray(faults.wrong_method(request.method), f"takes {', '.join(sorted(wrong.allowed_methods))}")
        except web.HTTPException:
            stray = Stray(faults.NOT_FOUND)
        request.app[STRAYS].note(request.method, request.raw_path, stray.fault.status, request_id(request), stray.hint)
        return _refused(request, stray.fault)

    return shaped


def _refused(request: web.Request, fault: faults.Fault) -> web.Response:
    below = (tongue for path, tongue in request.app[PATH_TONGUES].items() if f"{request.path}/".startswith(path))
    tongue = request.get(TONGUE) or next(below, request.app[PORT_TONGUE])
    return refused(fault, request_id(request), tongue.failure, tongue.failure_headers(fault, time.time()))


def check_framing(request: web.Request) -> None:
    """Refuse a request that others may frame differently, as if it could not be parsed: raises `Misframed`."""
    if (
        request.version == aiohttp.HttpVersion11
        and hdrs.TRANSFER_ENCODING not in request.headers
        and request.raw_path.startswith("/")
    ):
        return  # as of nearly every one
    for what, applies in FRAMING:
        if applies(request):
            raise Misframed(what)


def refused(
    fault: faults.Fault, request_id: str, failure: Failure, more: Mapping[str, str] = MappingProxyType({})
) -> web.Response:
    """A failure as an answer of its own, in the caller's tongue (spec ERR-1).

    more: what the tongue says in the head of a failure, beside what all do
    """
    headers = {**more} if fault.retry_after is None else {hdrs.RETRY_AFTER: fault.retry_after, **more}
    body = failure(fault, request_id)
    return web.Response(status=fault.status, body=body, content_type="application/json", headers=headers)


async def last_look(request: web.Request, answer: web.StreamResponse) -> None:
    """Before the head of any answer leaves: its id, no banner, and whether its connection may bring another request."""
    answer.headers["X-Request-Id"] = request_id(request)
    answer.headers[hdrs.VIA] = VIA
    answer.headers.popall(hdrs.SERVER, None)
    answer.headers.update(request.app[BROWSERS].shared(request))
    if is_last(request):
        answer.force_close()
        answer.headers[hdrs.CONNECTION] = "close"


def is_last(request: web.Request, lifecycle: Lifecycle | None = None) -> bool:
    """Whether its connection brings no other request after this one.

    lifecycle: of its port, where that is at hand

    JDK's HttpClient offers `Upgrade: h2c` with its first call. That is to be ignored, but what follows it on the
    connection is read by nobody; nor is what follows a body that did not come in whole.
    """
    leaving = (lifecycle or request.app[LIFECYCLE]).phase >= LEAVING
    return leaving or hdrs.UPGRADE in request.headers or not request.content.is_eof()
