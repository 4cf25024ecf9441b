"""A call or an upstream's answer from standard input, shown as what it would become: `translate`, all offline."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import click
import orjson

from config import models as tables
from config.pools import Pool
from config.settings import Settings, SettingsError
from config.sources import guess
from proxy import vocabulary
from proxy.call import gateway
from proxy.commands import known_models
from translators import explain, faults
from translators.catalogue import Catalogue
from translators.compatible import tongue as compatible
from translators.dashscope import tongue as dashscope
from translators.deepseek import prompt
from translators.dialogue import Call, Json, Model
from translators.openai import dialects, request
from translators.openai.dialects import Dialect
from translators.openai.request import Order
from translators.pipe import Pipe
from translators.terms import agreed
from translators.tokens import Vocabulary
from translators.tongue import Tongue

TONGUES: Final[Mapping[str, Tongue]] = {one.API: one for one in (dashscope, compatible)}
# An answer without its call is read as the answer to this one, which either tongue reads.
PLAIN_CALL: Final[Json] = {
    "model": "deepseek-v3",
    "input": {"messages": [{"role": "user", "content": ""}]},
    "parameters": {"incremental_output": True},
    "messages": [{"role": "user", "content": ""}],
    "stream_options": {"include_usage": True},
}
REQUEST_ID: Final = "00000000-0000-4000-8000-000000000000"
REFUSED: Final = 1


@dataclass(frozen=True, slots=True)
class Translator:
    """The tables a translation needs.

    pool:   the one that is asked
    tongue: of the callers whose calls are read
    """

    settings: Settings
    pool: Pool
    catalogue: Catalogue
    vocabulary: Vocabulary
    tongue: Tongue

    @property
    def dialect(self) -> Dialect:
        """The upstream's way of speaking."""
        return dialects.DIALECTS[self.pool.dialect]

    def order(self, call: Call) -> Order:
        """What the pool is asked for a call."""
        model = gateway.in_pool(self.pool, call.model) if call.model.id in self.pool.map else call.model
        return request.order(call._replace(model=model), self.dialect)

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


def build(chosen: Settings, api: str, pool: str | None = None) -> Translator:
    """The translator an operator's settings make, the same as `serve` would use; `SettingsError`.

    pool: the one whose upstream call is shown; None: the first
    """
    rows = (Model(**row) for row in tables.load(chosen))
    pools = {one.name: one for one in chosen.pools_in_force}
    if pool is not None and pool not in pools:
        raise SettingsError([f"--pool: there is no pool {pool}" + guess(pool, pools)])
    found = next(iter(pools.values())) if pool is None else pools[pool]
    return Translator(chosen, found, Catalogue(rows, chosen.aliases), vocabulary.load(), TONGUES[api])


def of_call(raw: bytes, translator: Translator, *, stream: bool, model: str | None, as_json: bool) -> int:
    """Show the upstream call of a caller's call, and one line for every field; returns the exit code.

    stream: whether its headers ask for SSE; on the compatible surface the body says so itself
    """
    tongue = translator.tongue
    try:
        document = tongue.read(raw)
        asked = str(model or document.get("model", ""))
        call = translator.read(document, stream=stream or tongue.wants_stream({}, document), model=model)
    except faults.Refusal as refusal:
        unknown = refusal.fault == faults.MODEL_UNKNOWN
        hint = known_models.hint(asked, translator.catalogue.names) if unknown else None
        return _show_refusal(refusal.fault, tongue, as_json=as_json, hint=hint)
    order = translator.order(call)
    body = order.body()
    lines = explain.of(document, call, order.fields(), tongue.API)
    input_tokens = prompt.length(order.prompt, translator.vocabulary)
    if as_json:
        fields = [
            {"field": line.field, "action": line.action, "upstream": line.theirs, "why": line.why} for line in lines
        ]
        _print(
            {"path": body.path, "calls": body.legs, "input_tokens": input_tokens, "body": body.json, "fields": fields}
        )
        return 0
    times = f", {body.legs} times" if body.legs > 1 else ""
    click.echo(f"POST {body.path}{times}   ({input_tokens} prompt tokens)")
    click.echo(orjson.dumps(body.json, option=orjson.OPT_INDENT_2))
    click.echo()
    for line in lines:
        where = f" as {line.theirs}" if line.theirs and line.theirs != line.field.rpartition(".")[2] else ""
        click.echo(f"{line.field or '-':<32} {line.action:<8}{where}" + (f"  ({line.why})" if line.why else ""))
    return 0


def of_answer(
    raw: bytes, call_raw: bytes | None, translator: Translator, *, stream: bool | None, model: str | None
) -> int:
    """Show the packets or the reply that a recorded upstream answer becomes; returns the exit code.

    stream: whether the call asked for SSE; None: as upstream answered
    """
    tongue = translator.tongue
    whole = raw.lstrip()[:1] == b"{"
    try:
        document = PLAIN_CALL if call_raw is None else tongue.read(call_raw)
        call = translator.read(document, stream=not whole if stream is None else stream, model=model)
        order = translator.order(call)
        terms = agreed(order, request_id=REQUEST_ID, own_key=True)._replace(legs=1)
        pipe = Pipe(call, terms, translator.vocabulary, tongue)
        pipe.count_prompt(prompt.length(order.prompt, translator.vocabulary), 0)
        out = pipe.feed_completion(raw) if whole else pipe.feed(raw) + pipe.eof()
    except faults.Refusal as refusal:
        return _show_refusal(refusal.fault, tongue, as_json=True)
    click.echo(out, nl=not call.stream)
    return 0


def _show_refusal(fault: faults.Fault, tongue: Tongue, *, as_json: bool, hint: str | None = None) -> int:
    if as_json:
        told = {"hint": hint} if hint else {}
        _print({"refused": fault.status, **orjson.loads(tongue.failure(fault, REQUEST_ID)), **told})
    else:
        click.echo(f"refused  {fault.status} {fault.code}: {fault.message}")
        if hint:
            click.echo(f"         {hint}")
    return REFUSED


def _print(shown: dict[str, Any]) -> None:
    click.echo(orjson.dumps(shown, option=orjson.OPT_INDENT_2))
