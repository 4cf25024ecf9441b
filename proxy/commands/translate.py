"""A call or an upstream's answer from standard input, shown as what it would become: `translate`, all offline."""

from __future__ import annotations

from typing import Any, Final

import click
import orjson

from proxy.admin.translation import Translator
from proxy.commands import known_models
from translators import faults
from translators.deepseek import prompt
from translators.dialogue import Json
from translators.pipe import Pipe
from translators.terms import agreed
from translators.tongue import Tongue

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


def of_call(raw: bytes, translator: Translator, *, stream: bool, model: str | None, as_json: bool) -> int:
    """Show the upstream call of a caller's call, and one line for every field; returns the exit code.

    stream: whether its headers ask for SSE; on the compatible surface the body says so itself
    """
    try:
        shown = translator.call(raw, stream=stream, model=model)
    except faults.Refusal as refusal:
        hint = None
        if refusal.fault == faults.MODEL_UNKNOWN or refusal.fault.code == faults.MODEL_NOT_FOUND.code:
            asked = model or str(translator.tongue.read(raw).get("model", ""))
            hint = known_models.hint(asked, translator.catalogue.names)
        elif refusal.fault == faults.UNAVAILABLE:
            hint = refusal.cause
        return _show_refusal(refusal.fault, translator.tongue, as_json=as_json, hint=hint)
    if as_json:
        _print(shown.document())
        return 0
    body = shown.body
    times = f", {body.legs} times" if body.legs > 1 else ""
    named = f" of pool {shown.pool}" if shown.pool else ""
    click.echo(f"POST {body.path}{named}{times}   ({shown.input_tokens} prompt tokens)")
    click.echo(orjson.dumps(body.json, option=orjson.OPT_INDENT_2))
    click.echo()
    for line in shown.lines:
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
    told = orjson.loads(tongue.failure(fault, REQUEST_ID))
    if as_json:
        _print({"refused": fault.status, **told, **({"hint": hint} if hint else {})})
    else:
        said = told.get("error", told)
        # The compatible surface tells errors apart by two words, which may be one, and the second may be missing.
        words = dict.fromkeys(filter(None, (said.get("type"), said["code"])))
        click.echo(f"refused  {fault.status} {' '.join(words)}: {said['message']}")
        if hint:
            click.echo(f"         {hint}")
    return REFUSED


def _print(shown: dict[str, Any]) -> None:
    click.echo(orjson.dumps(shown, option=orjson.OPT_INDENT_2))
