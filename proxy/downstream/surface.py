"""What every request passes and every answer carries, on both ports: its id, its framing, and a failure's shape."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

import aiohttp
from aiohttp import hdrs, http_exceptions, web

from proxy.downstream.phase import LIFECYCLE, Phase
from translators import faults

# A fault and a request id -> the body of the answer that tells it, in the tongue of whoever is told.
Failure = Callable[[faults.Fault, str], bytes]

GENERATION: Final = "/api/v1/services/aigc/text-generation/generation"

UUID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")

REQUEST_ID: Final = web.RequestKey("request_id", str)
# In the admin application: the base URL of the data port.
SERVED: Final = web.AppKey("served", str)
# On answers alone: some upstreams behave differently when they see a proxy before them.
VIA: Final = "1.1 dashseek"
# What no caller of ours needs, and what a proxy before us may frame differently than we do (request smuggling).
FRAMING: Final[tuple[tuple[str, Callable[[web.Request], bool]], ...]] = (
    ("HTTP version", lambda request: request.version not in (aiohttp.HttpVersion10, aiohttp.HttpVersion11)),
    (
        "Transfer-Encoding on HTTP/1.0",
        lambda request: request.version == aiohttp.HttpVersion10 and hdrs.TRANSFER_ENCODING in request.headers,
    ),
    ("not origin-form", lambda request: not request.raw_path.startswith("/")),
)


class Misframed(http_exceptions.BadHttpMessage):
    """A request that aiohttp takes and we do not."""


def request_id(request: web.BaseRequest) -> str:
    """The caller's id where it is a well-formed UUID, else a new one, the same whenever asked (spec HTTP-6)."""
    if REQUEST_ID not in request:
        request[REQUEST_ID] = new_request_id(request.headers.get("X-Request-Id", "").lower())
    return request[REQUEST_ID]


def check_framing(request: web.Request) -> None:
    """Refuse a request that others may frame differently, as if it could not be parsed: raises `Misframed`."""
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
    if is_last(request):
        answer.force_close()
        answer.headers[hdrs.CONNECTION] = "close"


def is_last(request: web.Request) -> bool:
    """Whether its connection brings no other request after this one.

    JDK's HttpClient offers `Upgrade: h2c` with its first call. That is to be ignored, but what follows it on the
    connection is read by nobody; nor is what follows a body that did not come in whole.
    """
    leaving = request.app[LIFECYCLE].phase >= Phase.LEAVING
    return leaving or hdrs.UPGRADE in request.headers or not request.content.is_eof()


def new_request_id(given: str = "") -> str:
    """A caller's id where it is a well-formed UUID in lower case, else a new one: random, version 4 (RFC 9562)."""
    if UUID.fullmatch(given):
        return given
    # `uuid.uuid4` takes five times as long, 1 % of a small call.
    made = os.urandom(16).hex()
    return f"{made[:8]}-{made[8:12]}-4{made[13:16]}-{'89ab'[int(made[16], 16) & 3]}{made[17:20]}-{made[20:]}"
