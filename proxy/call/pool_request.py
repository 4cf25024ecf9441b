"""A call and the pool it goes to -> what the pool is asked, and the pipe of its answer; anew where the pool changes."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, replace
from typing import Final

import orjson

from config.pools import Pool
from proxy.admission.authentication import Admission
from proxy.call import prompt_count
from proxy.call.cleanup import Cleanups
from proxy.call.exchange import Exchange
from proxy.call.gateway import Gateway
from proxy.call.large_answers import LARGE_BYTES
from proxy.call.prompt_count import Count, is_short
from proxy.downstream.body import HeldBody
from proxy.downstream.request import Request
from proxy.upstream.client import Post
from proxy.upstream.targets import number_of
from translators import faults
from translators.deepseek import prompt
from translators.dialogue import Call
from translators.openai import request as upstream_request
from translators.openai.request import Body, Order
from translators.pipe import Pipe
from translators.terms import Terms, agreed

# Of the beginning of a prompt, so many characters of each turn tell it from others.
PREFIX_CHARS: Final = 16 << 10


# Frozen, each field would be set by a call of its own: of 1,130 of a small call, thirty.
@dataclass(slots=True)
class PoolRequest:
    """One call as one pool serves it.

    pool:  whose dialect, names and key it is written in
    order: what it is asked
    pipe, terms: of its answer
    count: of its prompt, as that pool's model renders it
    kind:  key of the learned difference between upstream's prompt count and ours (spec USE-5)
    key:   what goes with it
    known_as: headers to find it again by
    """

    pool: Pool
    order: Order
    pipe: Pipe
    terms: Terms
    count: Count
    kind: Hashable
    key: str | None
    known_as: Mapping[str, str]

    def first(self) -> Post:
        """Its first upstream call."""
        return self._post(self.order.body(self.count.tokens))

    def resumed(self, chain: str) -> Post:
        """The one that goes on after a chain of thought that has reached its budget."""
        return self._post(self.order.resumed(chain))

    def _post(self, body: Body) -> Post:
        return Post(body.path, orjson.dumps(body.json), self.key, self.known_as)


@dataclass(slots=True)
class CallWriter:
    """Writes one call as the request of whichever pool it goes to.

    cleanups: of the call, to which each count adds its own
    held:     its share of what all open calls hold
    """

    gateway: Gateway
    request: Request
    exchange: Exchange
    call: Call
    caller: Admission
    cleanups: Cleanups
    held: HeldBody

    def order(self, pool: Pool) -> Order:
        """What a pool is asked for the call."""
        gateway = self.gateway
        model = gateway.model_of(pool, self.call.model)
        call = self.call if model is self.call.model else self.call._replace(model=model)
        return upstream_request.order(call, gateway.dialect_of(pool))

    def count(self, order: Order) -> Count:
        """The count of what upstream will make of the prompt; of one that is not short, it is to be begun."""
        chars = sum(map(len, order.prompt.texts))
        count = Count(prompt.totals(order.prompt, self.gateway.vocabulary), chars, self.call.model.input_tokens)
        self.cleanups.append(count.drop)
        return count

    async def begin(self, count: Count) -> None:
        """Begin a count; the call is refused where the prompt is known by then and too long (spec MOD-4)."""
        model = self.call.model
        await prompt_count.begin(self.gateway.counting, count, model)
        if count.tokens is not None and count.tokens > model.input_tokens:
            raise faults.Refusal(faults.input_length(model.input_tokens))

    def written(self, pool: Pool, order: Order, count: Count, known_as: Mapping[str, str]) -> PoolRequest:
        """The call, written for a pool."""
        gateway, exchange, caller = self.gateway, self.exchange, self.caller
        key = gateway.upstreams.key_of(pool) if caller.own_key else caller.upstream_key
        terms = agreed(
            order,
            request_id=exchange.request_id,
            own_key=caller.own_key,
            known=(caller.upstream_key, *gateway.upstreams.unsaid) if caller.upstream_key else gateway.upstreams.unsaid,
            at_s=exchange.at_s,
            event_limit=int(gateway.settings.max_event_bytes),
        )
        exchange.pipe = pipe = Pipe(
            self.call,
            terms,
            gateway.vocabulary,
            self.request.tongue,
            large_bytes=LARGE_BYTES,
            hold=self.held.take,
        )
        overhead = prompt.overhead(order.prompt, gateway.vocabulary)
        # Two pools may render one model's prompts in two ways.
        kind = order.offset_key if not pool.name else (pool.name, order.offset_key)
        count.tell(lambda tokens: pipe.count_prompt(tokens, gateway.offsets.get(kind), overhead))
        return PoolRequest(pool, order, pipe, terms, count, kind, key, known_as)

    def with_key(self, request: PoolRequest) -> PoolRequest:
        """The same with the key that its pool has by now."""
        own = self.caller.own_key
        return replace(request, key=self.gateway.upstreams.key_of(request.pool) if own else self.caller.upstream_key)

    async def rewritten(self, before: PoolRequest, pool: Pool) -> PoolRequest:
        """The same call, written for another pool."""
        order = self.order(pool)
        if _form(order) == _form(before.order):
            return self.written(pool, before.order, before.count, before.known_as)
        count = self.count(order)
        if not is_short(count, self.call.model):
            await self.begin(count)
        count.beside(self.gateway.loop)
        return self.written(pool, order, count, before.known_as)


def _form(order: Order) -> tuple[str, str, str]:
    """What a body depends on, beside the call."""
    dialect = order.plan.dialect
    return dialect.name, order.upstream_model, prompt.template_of(order.call.model, dialect.name)


def affinity_of(gateway: Gateway, call: Call, caller: Admission) -> int | None:
    """What binds a call to a target: the beginning of its prompt, or its caller; None where nothing shall."""
    match gateway.settings.affinity:
        case "off":
            return None
        case "key":
            return number_of((caller.fingerprint or "").encode())
    # What engines keep of a prompt begins at its beginning: system, tools, the first turn of the conversation.
    parts = [call.model.id, *(repr(tool)[:PREFIX_CHARS] for tool in call.tools)]
    for message in call.messages:
        parts += (message.role, (message.content or "")[:PREFIX_CHARS])
        if message.role != "system":
            break
    return number_of("\0".join(parts).encode("utf-8", "surrogatepass"))
