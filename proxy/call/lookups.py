"""What callers ask beside their calls: which models they may call, and how long a prompt is (spec HTTP-12, COM-29).

No upstream is asked and no journal line is written; the key is that of a call, and so is the allowance of `rpm`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from time import monotonic
from typing import NamedTuple

from proxy.admission import authentication, limits
from proxy.admission.authentication import Admission
from proxy.admission.limits import Refused, Scope
from proxy.call.gateway import Gateway
from proxy.call.prompt_count import INLINE_CHARS, Count, begin
from proxy.call.thread_pool import LARGE_BODY_BYTES
from proxy.call.timeouts import BODY, EXPIRIES, FIRST_TOKEN, CallTimeouts, Expired
from proxy.downstream.request import Request
from proxy.downstream.sinks import CallerGone
from translators import breadth, faults
from translators.catalogue import Catalogue
from translators.deepseek import prompt
from translators.dialogue import Call, Json
from translators.openai import request as upstream_request
from translators.tokens import encoded as tokens_of

# A document into the call whose prompt it holds; raises `Refusal`.
Prompted = Callable[[Json, Catalogue], Call]


class Tokens(NamedTuple):
    """What a prompt is made of.

    ids:   of the text that its user said last
    texts: what each of these stands for
    input: how many the whole prompt has, as the model's chat template renders it
    """

    ids: Sequence[int]
    texts: Sequence[str]
    input: int


async def models(gateway: Gateway, request: Request, name: str | None = None) -> list[str]:
    """The names of the models that the caller may call; of one alone where it is asked for, none if there is no such.

    name: in any spelling a call may use
    """
    caller = await _admitted(gateway, request)
    found = gateway.catalogue.names if name is None else (name,) if gateway.catalogue.knows(name) else ()
    allowed = None if caller.known is None else caller.known.models
    return [one for one in found if allowed is None or gateway.catalogue.find(one).id in allowed]


async def tokens(gateway: Gateway, request: Request, prompted: Prompted) -> Tokens:
    """The tokens of a prompt, by our own vocabulary."""
    caller = await _admitted(gateway, request)
    request.tongue.check(request.headers)
    received_s = monotonic()
    with ExitStack() as ends:
        try:
            with CallTimeouts(BODY, gateway.open_calls, gateway.loop, received_s) as timeouts:
                held = ends.enter_context(gateway.open_bodies.hold())
                body = await request.body(held, partial(timeouts.enter, FIRST_TOKEN))
                found: list[Call] = []
                steps = _read(gateway, request, prompted, body, found)
                if len(body) > LARGE_BODY_BYTES:
                    await gateway.reading.run(steps, len(body))
                else:
                    for _ in steps:
                        pass
                held.end_turn()
                (call,) = found
                if caller.known is not None:
                    caller.known.check_model(call.model.id)
                return await _counted(gateway, call, ends)
        except Expired as expired:
            raise faults.Refusal(EXPIRIES[expired.wait].fault or faults.TIMED_OUT) from None
        except CallerGone:
            request.hang_up()


def _read(gateway: Gateway, request: Request, prompted: Prompted, body: bytearray, found: list[Call]) -> Iterator[int]:
    """A body into the call whose prompt it holds; in steps, for a thread that has other bodies to read."""
    yield from breadth.check(body)
    document = request.tongue.read(body)
    yield 0
    found.append(prompted(document, gateway.catalogue))


async def _admitted(gateway: Gateway, request: Request) -> Admission:
    """Let a caller in, and count it as one more of the minute."""
    request.refuse_late()
    caller = authentication.admit(request.headers, gateway.settings, gateway.keyring)
    own = caller.known.limits if caller.known else None
    scopes = limits.scopes(gateway.settings, "", caller.fingerprint, own)
    taken_from = [
        Scope(scope.name, replace(scope.limit, concurrency=None, tpm=None)) for scope in scopes if scope.limit.rpm
    ]
    if taken_from:
        got = await gateway.limiter.reserve(taken_from, 0)
        if isinstance(got, Refused):
            raise faults.Refusal(got.fault, "over a limit")
        got.settle(0)
    return caller


async def _counted(gateway: Gateway, call: Call, ends: ExitStack) -> Tokens:
    # As the pool that is asked first renders it.
    upstreams, model = gateway.upstreams, call.model
    pool = next((target.pool for target in upstreams.serving(model.id)), upstreams.pools[0])
    order = upstream_request.order(call._replace(model=gateway.model_of(pool, model)), gateway.dialect_of(pool))
    count = Count(
        prompt.totals(order.prompt, gateway.vocabulary), sum(map(len, order.prompt.texts)), model.input_tokens
    )
    ends.callback(count.drop)
    await begin(gateway.counting, count, model)
    length = await count.wait()
    if length > model.input_tokens:
        raise faults.Refusal(faults.input_length(model.input_tokens))
    text = next(said.content or "" for said in reversed(call.messages) if said.role == "user")
    told: list[Tokens] = []
    steps = _told(gateway, text, length, told)
    if len(text) > INLINE_CHARS:
        await gateway.counting.run(steps, len(text))
    else:
        for _ in steps:
            pass
    return told[0]


def _told(gateway: Gateway, text: str, length: int, told: list[Tokens]) -> Iterator[int]:
    """The tokens of a text; in steps, for a thread that has other texts to count."""
    vocabulary = gateway.vocabulary
    ids: list[int] = []
    for part in tokens_of(text, vocabulary):
        ids += part
        yield len(ids)
    words = [vocabulary.decode_bytes([one]).decode("utf-8", "replace") for one in ids]
    told.append(Tokens(ids, words, length))
