"""A caller's call into the upstream call it would become, with one line for every field; nothing is sent.

What `translate` prints, and the docs page shows beside the packets.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from config import models as tables
from config.pools import Pool
from config.settings import Settings, SettingsError
from config.sources import guess
from proxy import vocabulary
from proxy.call import gateway
from translators import explain, faults
from translators.catalogue import Catalogue
from translators.compatible import tongue as compatible
from translators.dashscope import tongue as dashscope
from translators.deepseek import prompt
from translators.dialogue import Call, Json, Model
from translators.explain import Line
from translators.openai import dialects, request
from translators.openai.request import Body, Order
from translators.tokens import Vocabulary
from translators.tongue import Tongue

# By the names that records and journals have for them.
TONGUES: Final[Mapping[str, Tongue]] = {one.API: one for one in (dashscope, compatible)}


@dataclass(frozen=True, slots=True)
class Translated:
    """A call that would not be refused.

    asked:        as it was read
    pool:         the one that it is written for; "" where there is but that of `--upstream`
    body:         what the upstream would be asked
    lines:        what became of each field
    input_tokens: of the prompt, by our count
    """

    asked: Call
    pool: str
    body: Body
    lines: list[Line]
    input_tokens: int

    def document(self) -> Json:
        """The same as JSON."""
        fields: list[dict[str, Any]] = [
            {"field": line.field, "action": line.action, "upstream": line.theirs, "why": line.why}
            for line in self.lines
        ]
        body = self.body
        return {
            **({"pool": self.pool} if self.pool else {}),
            "path": body.path,
            "calls": body.legs,
            "input_tokens": self.input_tokens,
            "body": body.json,
            "fields": fields,
        }


@dataclass(frozen=True, slots=True)
class Translator:
    """The tables a translation needs.

    pool:   the one that is asked; None: the first that serves the model, by priority
    tongue: of the callers whose calls are read
    """

    settings: Settings
    pool: Pool | None
    catalogue: Catalogue
    vocabulary: Vocabulary
    tongue: Tongue

    def pool_of(self, call: Call) -> Pool:
        """The pool that a call is written for: where all is well, one of those that are asked first."""
        pools = sorted(self.settings.pools_in_force, key=lambda pool: pool.priority)
        return self.pool or next((one for one in pools if one.serves(call.model.id)), pools[0])

    def order(self, call: Call) -> Order:
        """What the pool is asked for a call."""
        pool = self.pool_of(call)
        model = gateway.in_pool(pool, call.model) if call.model.id in pool.map else call.model
        return request.order(call._replace(model=model), dialects.DIALECTS[pool.dialect])

    def read(self, document: Json, *, stream: bool, model: str | None) -> Call:
        """The call a document makes; raises `Refusal`."""
        return self.tongue.translate(
            document,
            self.catalogue,
            stream=stream,
            path_model=model,
            strict_thinking=self.settings.strict_thinking,
            decode=self.vocabulary.decode_bytes,
        )

    def call(self, raw: bytes, *, stream: bool, model: str | None = None) -> Translated:
        """What becomes of a call; raises `Refusal`.

        stream: whether its headers ask for SSE; on the compatible surface the body says so itself
        model:  stands in for the call's own
        """
        document = self.tongue.read(raw)
        call = self.read(document, stream=stream or self.tongue.wants_stream({}, document), model=model)
        pool = self.pool_of(call)
        if not pool.serves(call.model.id):
            raise faults.Refusal(faults.UNAVAILABLE, f"pool {pool.name} does not serve {call.model.id}")
        order = self.order(call)
        lines = explain.of(document, call, order.fields(), self.tongue.API)
        return Translated(call, pool.name, order.body(), lines, prompt.length(order.prompt, self.vocabulary))


def build(settings: Settings, api: str, pool: str | None = None) -> Translator:
    """The translator an operator's settings make, the same as `serve` would use; `SettingsError`.

    pool: the name of the one whose upstream call is shown; None: the first that serves the model, by priority
    """
    rows = (Model(**row) for row in tables.load(settings))
    pools = {one.name: one for one in settings.pools_in_force}
    if pool is not None and pool not in pools:
        there = f"there are {', '.join(pools)}" if any(pools) else "the configuration has none"
        raise SettingsError([f"--pool: there is no pool {pool}: {there}" + guess(pool, filter(None, pools))])
    found = None if pool is None else pools[pool]
    return Translator(settings, found, Catalogue(rows, settings.aliases), vocabulary.load(), TONGUES[api])
