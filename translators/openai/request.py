"""`Call` -> the body of the upstream call, and what of the call is left for us to do.

The way: `messages.seen` (what has no field is said), `plan.decide` (who does what), `crossings` (field by field).
"""

from __future__ import annotations

from typing import NamedTuple

from translators.dialogue import Call, Effort, Json
from translators.openai import fields as rows
from translators.openai import messages, plan
from translators.openai.dialects import Dialect
from translators.openai.fields import FieldMapping
from translators.openai.plan import Plan

PATH = "/chat/completions"


class Body(NamedTuple):
    """One upstream call, and the duties that stay with the caller of it.

    json:         the body; nothing in it that the dialect does not know
    path:         below the upstream's base
    legs:         how often to send it to get `n` choices; 1: they all come in one answer (spec OUT-7)
    stream:       whether the answer comes as a stream, asked for by the caller or not
    answer_limit: cut the answer at so many tokens; None: upstream does (spec OUT-8)
    chain_limit:  close the chain at so many tokens and `resume`; None: upstream does, or nobody can (spec OUT-9)
    stops:        texts to look for in the answer, beside those that upstream looks for (spec PAR-9)
    effort:       the effort asked for in place of a budget, which the prompt shows (`prompt.parts`)
    """

    json: Json
    path: str
    legs: int
    stream: bool
    answer_limit: int | None
    chain_limit: int | None
    stops: tuple[str, ...]
    effort: Effort | None


def translate(call: Call, dialect: Dialect, *, upstream_model: str, input_tokens: int | None = None) -> Body:
    """Write the upstream call for `call`.

    upstream_model: the id to ask for (`upstream_id`)
    input_tokens:   the prompt's length, where it has been counted: it bounds `max_tokens` (spec OUT-8)
    """
    decided = _decided(call, dialect, upstream_model, input_tokens)
    body: Json = {}
    for crossing in rows.crossings(decided):
        body |= crossing.sent
    return Body(
        json=body,
        path=dialect.continuation.path if call.messages[-1].partial else PATH,
        legs=decided.legs,
        stream=decided.stream,
        answer_limit=decided.answer_limit,
        chain_limit=decided.chain_limit,
        stops=decided.kept_stops,
        effort=decided.effort,
    )


def resume(call: Call, dialect: Dialect, chain: str, *, upstream_model: str, input_tokens: int | None = None) -> Body:
    """Write the second leg: the same call, gone on with after `chain`, which is closed (spec OUT-9).

    Only for a body that had a `chain_limit`. The prompt of this leg holds the chain; its answer is the answer alone.
    """
    resumed = messages.resumed(call, dialect, chain)
    return translate(resumed, dialect, upstream_model=upstream_model, input_tokens=input_tokens)


def explain(
    call: Call, dialect: Dialect, *, upstream_model: str, input_tokens: int | None = None
) -> list[FieldMapping]:
    """Say of every field of `call` what becomes of it; the body of `translate` is what these send."""
    return list(rows.crossings(_decided(call, dialect, upstream_model, input_tokens)))


def seen(call: Call, dialect: Dialect) -> Call:
    """The call as upstream is asked it, which is the one to count (`prompt.parts`)."""
    return messages.seen(call, dialect)


def upstream_id(call: Call, dialect: Dialect) -> str:
    """The id that the call's model has there (spec MOD-1)."""
    return call.model.upstream.get(dialect.name, call.model.id)


def enforces_budgets(dialect: Dialect) -> bool:
    """Whether a thinking budget is held there at all; where it is not, say so at start-up (spec OUT-9)."""
    return dialect.budget != "effort"


def _decided(call: Call, dialect: Dialect, upstream_model: str, input_tokens: int | None) -> Plan:
    return plan.decide(messages.seen(call, dialect), dialect, upstream_model, input_tokens)
