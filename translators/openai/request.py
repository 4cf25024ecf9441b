"""`Call` -> the body of the upstream call, and what of the call is left for us to do.

The way: `messages.seen` (what has no field is said), `plan.decide` (who does what), `crossings` (field by field). Both
decisions, and the prompt that follows from them, are worked out once for a call: its `Order`.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import NamedTuple

from translators.deepseek import prompt
from translators.deepseek.prompt import Prompt
from translators.dialogue import Call, Effort, Json, Template
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


class Order(NamedTuple):
    """What one upstream is asked for one call.

    call:           as the caller makes it
    plan:           who does what of it; its `call` is the one that upstream sees
    prompt:         what upstream will make of its turns, to be counted (spec USE-1)
    template:       that of the model which serves it there
    offset_key:     key of the learned difference between upstream's prompt count and ours (spec USE-5)
    """

    call: Call
    plan: Plan
    prompt: Prompt
    template: Template
    offset_key: Hashable

    @property
    def upstream_model(self) -> str:
        """The id that the call's model has there (spec MOD-1)."""
        return self.plan.upstream_model

    def body(self, input_tokens: int | None = None) -> Body:
        """Write the upstream call.

        input_tokens: the prompt's length, where it has been counted: it bounds `max_tokens` (spec OUT-8)
        """
        return _written(self.plan if input_tokens is None else plan.bounded(self.plan, input_tokens))

    def fields(self) -> list[FieldMapping]:
        """Say of every field of the call what becomes of it; the body is what these send."""
        return rows.crossings(self.plan)

    def resumed(self, chain: str, input_tokens: int | None = None) -> Body:
        """Write the second leg: the same call, gone on with after `chain`, which is closed (spec OUT-9).

        Only for a plan with a `chain_limit`. The prompt of this leg holds the chain; its answer is the answer alone.
        """
        going_on = _decided(messages.resumed(self.call, self.plan.dialect, chain), self.plan.dialect)
        return _written(plan.bounded(going_on, input_tokens))


def order(call: Call, dialect: Dialect) -> Order:
    """Work out what `dialect` is asked for `call`, and what its prompt is; raises `Refusal` where it takes no such."""
    if not dialect.tool_images:
        messages.check_images(call, dialect)
    decided, template = _decided(call, dialect), prompt.template_of(call.model, dialect.name)
    rendered = prompt.parts(decided.call, template, decided.effort, dialect.name)
    offset_key = prompt.offset_key(call, decided.upstream_model, decided.effort)
    return tuple.__new__(Order, (call, decided, rendered, template, offset_key))


def enforces_budgets(dialect: Dialect) -> bool:
    """Whether a thinking budget is held there at all; where it is not, say so at start-up (spec OUT-9)."""
    return dialect.budget != "effort"


def _decided(call: Call, dialect: Dialect) -> Plan:
    upstream_model = call.model.upstream.get(dialect.name, call.model.id)
    return plan.decide(messages.seen(call, dialect), dialect, upstream_model)


def _written(decided: Plan) -> Body:
    path = decided.dialect.continuation.path if decided.call.messages[-1].partial else PATH
    left = decided.legs, decided.stream, decided.answer_limit, decided.chain_limit, decided.kept_stops, decided.effort
    return tuple.__new__(Body, (rows.sent(decided), path, *left))
