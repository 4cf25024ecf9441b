"""A request into a call that is ready to go: read, checked, let in, counted, translated, in that order.

Key and headers, body, call, limits, prompt, upstream body; then `forward` takes it. A `Refusal` that leaves here is
answered with its own status.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from time import monotonic
from typing import Final

import structlog

from proxy.admission import authentication, limits
from proxy.admission.authentication import Admission
from proxy.admission.limits import Joined, Refused, Reservation, Scope
from proxy.call.cleanup import Cleanups, clean_up
from proxy.call.exchange import Exchange, refusal_of
from proxy.call.forward import Forwarding
from proxy.call.gateway import Gateway
from proxy.call.pool_request import CallWriter, affinity_of
from proxy.call.prompt_count import Count, is_short
from proxy.call.thread_pool import LARGE_BODY_BYTES
from proxy.call.timeouts import BODY, FIRST_TOKEN, CallTimeouts, Expired
from proxy.downstream.body import HeldBody
from proxy.downstream.request import Request
from proxy.downstream.sinks import Response
from proxy.downstream.strays import escaped
from proxy.metering import journal
from proxy.metering.journal import Opening
from proxy.telemetry import logs, trace_context
from translators import breadth, faults
from translators.dialogue import Call

log = structlog.get_logger()

# Of a model's name in the log, which a caller can invent.
ASKED_MODEL_CHARS = 64

# What a value of a call's JSON takes in memory, about; of few of them nothing is said.
PART_BYTES: Final = 100
MANY_PARTS: Final = 10_000


async def generate(gateway: Gateway, request: Request, exchange: Exchange) -> Response:
    """Make one call ready and serve it as packets or as a reply; what it holds is given back however it ends.

    Raises `Refusal` while its status can still be sent, `CallerGone`, `CallerStalled`.
    """
    cleanups: Cleanups = []
    timeouts = CallTimeouts(BODY, gateway.open_calls, gateway.loop, exchange.times.received_s)
    try:
        try:
            with timeouts:
                ready = await _ready(gateway, request, exchange, timeouts, cleanups)
                timeouts.go_on()
        except Expired as expired:
            raise refusal_of(expired, exchange) from None
        except faults.Refusal as refusal:
            # Nobody else has been asked: too much is open here, or waits to be counted.
            exchange.limited |= refusal.fault.code == faults.OVERLOADED.code
            raise
        return await (ready.stream() if ready.streams else ready.reply())
    finally:
        if timeouts.is_open:  # there was nobody to answer
            timeouts.leave()
        clean_up(cleanups)


async def _ready(
    gateway: Gateway, request: Request, exchange: Exchange, timeouts: CallTimeouts, cleanups: Cleanups
) -> Forwarding:
    """Read and check a call until it is ready to go; what it holds is given back by `cleanups`."""
    exchange.caller = caller = authentication.admit(request.headers, gateway.settings, gateway.keyring)
    request.tongue.check(request.headers)
    held = gateway.open_bodies.hold()
    cleanups.append(held.give_back)
    # Once the body is there, what else is waited for is not its caller's fault.
    body = await request.body(held, partial(timeouts.enter, FIRST_TOKEN))
    exchange.times.read_s, size_bytes = monotonic(), len(body)
    reading = Reading(gateway, request, exchange, body)
    # What was sent is let go of as soon as it is read, and what nobody reads of it.
    del body
    if size_bytes > LARGE_BODY_BYTES:
        await gateway.reading.run(reading.steps(), size_bytes)
        # Its text is in the call, and again in what upstream is asked.
        held.take(size_bytes)
    else:
        for _ in reading.steps():
            pass
    if held.has_turn:
        held.end_turn()
    if reading.parts > MANY_PARTS:
        held.take(reading.parts * PART_BYTES)
        held.built(size_bytes + reading.parts * PART_BYTES)
    call = reading.call
    if call.images or size_bytes > gateway.settings.max_body_bytes:
        _check_images(gateway, call, size_bytes)
    if caller.known is not None:
        caller.known.check_model(call.model.id)
    if (call.ignored or exchange.asked_model != call.model.id) and logs.says("debug"):
        _say_read(exchange, call)
    return await _prepared(gateway, request, exchange, call, caller, timeouts=timeouts, cleanups=cleanups, held=held)


class Reading:
    """A body into the call that it makes: in steps, for a thread of a pool that has other bodies to read.

    Known once all steps are taken:

    parts: values that its JSON has, about
    call:  what it asks for
    """

    __slots__ = ("_body", "_exchange", "_gateway", "_request", "call", "parts")

    def __init__(self, gateway: Gateway, request: Request, exchange: Exchange, body: bytearray) -> None:
        self._gateway = gateway
        self._request = request
        self._exchange = exchange
        self._body = body
        self.call: Call
        self.parts: int

    def steps(self) -> Iterator[int]:
        """Check, parse and translate; of a long body each step is some milliseconds. Raises `Refusal`."""
        self.parts = yield from breadth.check(self._body)
        document = self._request.tongue.read(self._body)
        self.parts = self.parts or breadth.parts_of(document, self._body)
        self._body = bytearray()
        yield 0
        gateway, request, tongue = self._gateway, self._request, self._request.tongue
        asked_model = request.path_model or document.get("model")
        if isinstance(asked_model, str):
            self._exchange.asked_model = escaped(asked_model, ASKED_MODEL_CHARS)
        self._exchange.call = self.call = tongue.translate(
            document,
            gateway.catalogue,
            stream=tongue.wants_stream(request.headers, document),
            path_model=request.path_model,
            strict_thinking=gateway.settings.strict_thinking,
            decode=gateway.vocabulary.decode_bytes,
        )


def _check_images(gateway: Gateway, call: Call, size_bytes: int) -> None:
    """Hold the images of a call to their limits, and what is left of its body to its own (spec REQ-4, REQ-11)."""
    settings, images = gateway.settings, call.images
    inline_bytes = sum(len(image.url) for image in images if image.kind is not None)
    if size_bytes - inline_bytes > settings.max_body_bytes:
        raise faults.Refusal(faults.BODY_TOO_LARGE)
    if inline_bytes > settings.max_image_bytes:
        raise faults.Refusal(faults.IMAGES_TOO_LARGE, "over max_image_bytes")
    if len(images) > settings.max_images:
        raise faults.Refusal(faults.too_many_images(settings.max_images, len(images)), "over max_images")
    for image in images:
        if image.kind is None and settings.image_address == "refuse":
            raise faults.Refusal(faults.IMAGE_NOT_LOADED, "image_address is refuse")
        if image.kind is not None and image.kind not in settings.image_type:
            raise faults.Refusal(faults.IMAGE_KIND, f"image_type does not name {image.kind}")


async def _prepared(
    gateway: Gateway,
    request: Request,
    exchange: Exchange,
    call: Call,
    caller: Admission,
    *,
    timeouts: CallTimeouts,
    cleanups: Cleanups,
    held: HeldBody,
) -> Forwarding:
    """Everything a call needs to go; nothing has left yet."""
    upstreams, books = gateway.upstreams, exchange.books
    targets = upstreams.serving(call.model.id)
    likely = targets[0].pool if targets else upstreams.pools[0]
    opening = books.opening = _opening(exchange, call, caller, gateway.upstream_model(likely, call.model))
    own = caller.known.limits if caller.known is not None else None
    taken_from = limits.scopes(gateway.settings, call.model.id, caller.fingerprint, own)
    if taken_from:
        await _let_in(gateway, exchange, call, taken_from)
    lease = upstreams.lease(call.model.id, key=affinity_of(gateway, call, caller))
    cleanups.append(lease.release)
    pool = lease.pool
    writer = CallWriter(gateway, request, exchange, call, caller, cleanups, held)
    order = writer.order(pool)
    opening["upstream_model"] = order.upstream_model
    count = writer.count(order)
    if not is_short(count, call.model):
        await writer.begin(count)
    if taken_from:
        await _add_prompt(gateway, exchange, call, count, taken_from)
    books.entry = entry = gateway.journal.open(opening)
    if gateway.settings.journal_file is None:
        _say_open(opening, entry.opening, books.trace.id if books.trace else None)
    traced = trace_context.passed_on(request.headers) if books.trace is None else books.trace.onward(opening)
    pool_request = writer.written(pool, order, count, {"X-Request-Id": exchange.request_id, **traced})
    if (own_s := pool.first_token_timeout) is not None:
        timeouts.limit(FIRST_TOKEN, own_s)
    return Forwarding(gateway, request, exchange, writer, pool_request, lease, call.stream, timeouts)


def _say_read(exchange: Exchange, call: Call) -> None:
    """Log, at debug, the model that a name led to and the fields that nobody reads."""
    if exchange.asked_model != call.model.id:
        # An alias, another case, a vendor's prefix or a date behind the name (spec MOD-6).
        log.debug("model", request_id=exchange.request_id, asked_model=exchange.asked_model, model=call.model.id)
    if call.ignored:
        log.debug("ignored", request_id=exchange.request_id, fields=call.ignored)


def _say_open(opening: Opening, rendered: bytes, trace_id: str | None) -> None:
    """Log that a call is about to go, where no journal line says so (spec MET-2)."""
    if trace_id is None and logs.say_open(rendered):
        return
    known: dict[str, object] = {name: said for name, said in opening.items() if name != "at"}
    log.info("open", **known | ({} if trace_id is None else {"trace_id": trace_id}))


async def _let_in(gateway: Gateway, exchange: Exchange, call: Call, taken_from: Sequence[Scope]) -> None:
    """Take the call from its allowances, and the longest answer it may get (spec LIM-1, USE-8).

    Raises `Refusal` where it is over a limit: then its prompt need not be counted.
    """
    budgets = exchange.books.budgets = gateway.budgets
    if (fault := budgets.refusal(taken_from)) is not None:
        exchange.limited = True
        raise faults.Refusal(fault, "over a limit of a day or a month")
    got = await gateway.limiter.reserve(taken_from, _longest_answer(call), budgets=budgets.demands(taken_from))
    exchange.books.reservation = _taken(exchange, got)
    assert exchange.books.opening is not None  # noqa: S101 - for the type checker: it is made before this
    budgets.note_unpriced(exchange.books.opening, taken_from)


async def _add_prompt(
    gateway: Gateway, exchange: Exchange, call: Call, count: Count, taken_from: Sequence[Scope]
) -> None:
    """Take the tokens of its prompt as well, where tokens are limited; raises `Refusal`."""
    reservation = exchange.books.reservation
    taken_from = [scope for scope in taken_from if scope.limit.tpm is not None]
    if reservation is None or not taken_from:
        return
    tokens = await count.wait()
    more = _taken(exchange, await gateway.limiter.reserve(taken_from, tokens, held=_longest_answer(call)))
    exchange.books.reservation = Joined(reservation, more)


def _taken(exchange: Exchange, got: Reservation | Refused) -> Reservation:
    if isinstance(got, Refused):
        exchange.limited = True
        raise faults.Refusal(got.fault, "over a limit")
    return got


def _longest_answer(call: Call) -> int:
    """In tokens, of all choices together."""
    return call.n * ((call.max_tokens or call.model.answer_tokens) + (_chain(call) if call.thinking else 0))


def _chain(call: Call) -> int:
    return call.thinking_budget or call.model.chain_tokens


def _opening(exchange: Exchange, call: Call, caller: Admission, upstream_model: str) -> Opening:
    return {
        "at": journal.timestamp(exchange.at_s),
        "request_id": exchange.request_id,
        "api": exchange.api,
        "model": call.model.id,
        "upstream_model": upstream_model,
        "key_id": caller.fingerprint,
        "key_name": caller.known.name if caller.known else None,
        "stream": call.stream,
        "thinking": call.thinking,
    }
