"""The door: one DashScope call in, its packets or its reply out, in reading order.

Key and headers, body, call, prompt, upstream body; then the passage. A `Refusal` that leaves here is answered with its
own status.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial
from typing import Final

import aiohttp
import orjson
import structlog
from aiohttp import web

from proxy.admission import authentication, limits
from proxy.admission.authentication import Admission
from proxy.admission.limits import Refused
from proxy.call import forward, prompt_count
from proxy.call.forward import Exchange, Passage
from proxy.call.gateway import Gateway
from proxy.call.prompt_count import Count
from proxy.call.relay import CallerGone
from proxy.call.timeouts import Expired, Wait
from proxy.metering import journal
from proxy.metering.journal import Opening
from proxy.telemetry import trace_context
from proxy.upstream.client import Post
from translators import faults, pipe
from translators.dashscope import call as calls
from translators.deepseek import prompt
from translators.dialogue import Call
from translators.openai import request
from translators.openai.request import Body
from translators.pipe import Pipe

log = structlog.get_logger()

ENCODINGS: Final = ("identity", "gzip")


async def generate(house: Gateway, asked: web.Request, exchange: Exchange) -> web.StreamResponse:
    """Serve one call."""
    try:
        async with house.timed(Wait.BODY, exchange.received_s):
            ready = await _ready(house, asked, exchange)
    except Expired as expired:
        raise forward.refusal_of(expired, exchange) from None
    return await (ready.stream() if ready.streams else ready.reply())


async def _ready(house: Gateway, asked: web.Request, exchange: Exchange) -> Passage:
    """Read and check a call until it is ready to go."""
    exchange.caller = caller = authentication.admit(asked.headers, house.settings, house.ring)
    check_headers(asked.headers)
    body = await _body(asked)
    exchange.read_s = asyncio.get_running_loop().time()
    exchange.call = call = _read(house, asked, body)
    if caller.known is not None:
        caller.known.check_model(call.model.id)
    if call.ignored:
        log.debug("ignored", request_id=exchange.request_id, fields=call.ignored)
    return await _prepared(house, asked, exchange, call, caller)


def wants_stream(headers: Mapping[str, str]) -> bool:
    """Whether the headers ask for SSE; an explicit `disable` wins over all (spec HTTP-5)."""
    explicit = headers.get("X-DashScope-SSE", "").strip().lower()
    if explicit in ("enable", "disable"):
        return explicit == "enable"
    named = headers.get("Accept", "") + "," + headers.get("Content-Type", "")
    return "text/event-stream" in named.lower()


def check_headers(headers: Mapping[str, str]) -> None:
    """Refuse what a header asks for and no upstream can do (spec HTTP-9)."""
    if headers.get("X-DashScope-Async", "").strip().lower() == "enable":
        raise faults.Refusal(faults.NO_ASYNC)
    if "X-DashScope-EncryptionKey" in headers:
        raise faults.Refusal(faults.ENCRYPTED_BODY)


def _read(house: Gateway, asked: web.Request, body: bytes) -> Call:
    return calls.translate(
        calls.read(body),
        house.catalogue,
        stream=wants_stream(asked.headers),
        path_model=asked.match_info.get("model"),
        strict_thinking=house.settings.strict_thinking,
        decode=house.vocabulary.decode_bytes,
    )


async def _body(asked: web.Request) -> bytes:
    """The call's body, inflated, within its limit of size (spec HTTP-11)."""
    if asked.headers.get("Content-Encoding", "identity").strip().lower() not in ENCODINGS:
        raise faults.Refusal(faults.BODY_INVALID, "neither plain nor gzip")
    if (asked.content_length or 0) > asked.client_max_size:
        raise faults.Refusal(faults.BODY_TOO_LARGE)
    try:
        return await asked.read()
    except web.HTTPRequestEntityTooLarge:
        raise faults.Refusal(faults.BODY_TOO_LARGE) from None
    except ConnectionError:
        # So it is told where the handler is not cancelled for it.
        raise CallerGone from None
    except (aiohttp.ClientError, web.RequestPayloadError, aiohttp.http_exceptions.HttpProcessingError) as error:
        raise faults.Refusal(faults.BODY_INVALID, f"unreadable body ({type(error).__name__})") from None


async def _counting(house: Gateway, call: Call, body: Body) -> Count:
    """The count of what upstream will make of the prompt."""
    template = prompt.template_of(call.model, house.dialect.name)
    rendered = prompt.parts(request.seen(call, house.dialect), template, body.effort)
    return await prompt_count.begin(
        partial(prompt.length, rendered, house.vocabulary), sum(map(len, rendered.texts)), call.model
    )


async def _prepared(
    house: Gateway,
    asked: web.Request,
    exchange: Exchange,
    call: Call,
    caller: Admission,
) -> Passage:
    """Everything a call needs to go; nothing has left yet."""
    model, dialect = call.model, house.dialect
    upstream_model = request.upstream_id(call, dialect)
    body = request.translate(call, dialect, upstream_model=upstream_model)
    kind = prompt.offset_key(call, upstream_model, body.effort)
    exchange.opening = _opening(exchange, call, caller, upstream_model)
    count = await _counting(house, call, body)
    if count.tokens is not None and count.tokens > model.input_tokens:
        raise faults.Refusal(faults.input_length(model.input_tokens))
    if count.tokens is not None and count.tokens > prompt_count.room(model):
        body = request.translate(call, dialect, upstream_model=upstream_model, input_tokens=count.tokens)
    await _let_in(house, exchange, call, count)
    terms = pipe.agreed(
        call,
        dialect,
        body,
        request_id=exchange.request_id,
        own_key=caller.own_key,
        event_limit=int(house.settings.max_event_bytes),
    )
    exchange.pipe = through = Pipe(call, terms, house.vocabulary)
    count.tell(lambda tokens: through.count_prompt(tokens, house.offsets.get(kind)))
    exchange.entry = house.journal.open(exchange.opening)
    traced = exchange.trace.onward(exchange.opening) if exchange.trace else trace_context.passed_on(asked.headers)
    known_as = {"X-Request-Id": exchange.request_id, **traced}

    def post(body: Body) -> Post:
        return Post(body.path, orjson.dumps(body.json), caller.upstream_key, known_as)

    def resumed(chain: str) -> Post:
        return post(request.resume(call, dialect, chain, upstream_model=upstream_model))

    return Passage(house, asked, exchange, through, terms, post(body), resumed, count, kind, call.stream)


async def _let_in(house: Gateway, exchange: Exchange, call: Call, count: Count) -> None:
    """Take the call from its allowances; raises `Refusal` where it is over a limit (spec LIM-1)."""
    caller = exchange.caller
    known = caller.known if caller else None
    fingerprint = caller.fingerprint if caller else None
    taken_from = limits.scopes(house.settings, call.model.id, fingerprint, known.limits if known else None)
    if not taken_from:
        return
    longest_answer = (call.max_tokens or call.model.answer_tokens) + (_chain(call) if call.thinking else 0)
    got = await house.limiter.reserve(taken_from, await count.wait() + call.n * longest_answer)
    if isinstance(got, Refused):
        exchange.limited = True
        raise faults.Refusal(got.fault, "over a limit")
    exchange.reservation = got


def _chain(call: Call) -> int:
    return call.thinking_budget or call.model.chain_tokens


def _opening(exchange: Exchange, call: Call, caller: Admission, upstream_model: str) -> Opening:
    return {
        "at": journal.timestamp(exchange.at_s),
        "request_id": exchange.request_id,
        "model": call.model.id,
        "upstream_model": upstream_model,
        "key_id": caller.fingerprint,
        "key_name": caller.known.name if caller.known else None,
        "stream": call.stream,
        "thinking": call.thinking,
    }
