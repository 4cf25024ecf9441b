"""`Call` + `Dialect` -> who does what: the limits that upstream is given, and those that we keep ourselves.

Decided once, before a field is written, for one decision shows in several fields: a budget that we enforce makes
the upstream call a stream, and its chain a part of `max_tokens`.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from translators.dialogue import Call, Effort, Tool
from translators.openai import dialects
from translators.openai.dialects import Dialect, Native

Budgeting = Literal["unasked", "native", "continue", "effort"]


class Plan(NamedTuple):
    """What was decided for one call.

    upstream_model: the id sent as `model`
    budgeting:      who holds the thinking budget (spec OUT-9)
    effort:         the effort that stands for a budget nobody can hold
    max_tokens:     what upstream is given (spec OUT-8)
    wanted_tokens:  what it would be given if nothing had to be clamped
    answer_limit:   cut the answer here ourselves, in tokens; None: upstream does it
    chain_limit:    close the chain here ourselves, in tokens; None: upstream does it, or nobody
    sent_stops:     stops that upstream looks for
    kept_stops:     stops that we look for, for upstream takes fewer or would end the chain with them (spec PAR-9)
    legs:           upstream calls that make up `n` choices (spec OUT-7)
    stream:         whether the upstream call is a stream: asked for, or needed to see the text as it comes
    """

    call: Call
    dialect: Dialect
    upstream_model: str
    budgeting: Budgeting
    effort: Effort | None
    max_tokens: int
    wanted_tokens: int
    answer_limit: int | None
    chain_limit: int | None
    sent_stops: tuple[str, ...]
    kept_stops: tuple[str, ...]
    legs: int
    stream: bool


def decide(call: Call, dialect: Dialect, upstream_model: str) -> Plan:
    """Settle what `dialect` is asked to do of `call`, whose prompt has not been counted yet (`bounded`)."""
    # A prefix with an answer in it has its chain behind it.
    chains = call.thinking and not call.messages[-1].partial
    budgeting = _budgeting(call, dialect) if chains else "unasked"
    counted_chain = chains and dialect.counts_chain
    wanted = call.max_tokens or call.model.answer_tokens
    if counted_chain:
        wanted += call.thinking_budget or call.model.chain_tokens
    # Without `max_tokens` the caller set no limit to the answer, so there is none to cut it at.
    answer_limit = call.max_tokens if counted_chain else None
    chain_limit = call.thinking_budget if budgeting == "continue" else None
    sent = 0 if chains and dialect.stops_in_chain else dialect.most_stops
    kept_stops = call.stops[sent:] if sent is not None else ()
    effort = dialects.effort(call.thinking_budget) if budgeting == "effort" and call.thinking_budget else None
    max_tokens = _clamped(wanted, call, dialect, 0)
    legs = 1 if call.n <= dialect.most_choices else call.n
    stream = call.stream or bool(kept_stops) or answer_limit is not None or chain_limit is not None
    held = max_tokens, wanted, answer_limit, chain_limit, call.stops[:sent], kept_stops
    return tuple.__new__(Plan, (call, dialect, upstream_model, budgeting, effort, *held, legs, stream))


def bounded(decided: Plan, input_tokens: int | None) -> Plan:
    """The same with a prompt of so many tokens, where that is known: what is left of the context bounds the answer."""
    if input_tokens is None:
        return decided
    fitting = _clamped(decided.wanted_tokens, decided.call, decided.dialect, input_tokens)
    return decided._replace(max_tokens=fitting)


def offers_tools(call: Call) -> bool:
    """Whether the model may call a tool at all."""
    return bool(call.tools) and call.tool_choice != "none"


def named_tool(call: Call) -> Tool | None:
    """The one tool that must be called, where the caller names it."""
    return call.tool_choice if isinstance(call.tool_choice, Tool) and call.tools else None


def _budgeting(call: Call, dialect: Dialect) -> Budgeting:
    if call.thinking_budget is None:
        return "unasked"
    if isinstance(dialect.budget, Native):
        return "native"
    formatted = call.response_format is not None and call.response_format.type != "text"
    if dialect.budget == "continue" and dialect.continuation.alone and (call.tools or formatted):
        return "effort"
    return dialect.budget


def _clamped(wanted: int, call: Call, dialect: Dialect, input_tokens: int) -> int:
    left, most = call.model.context_tokens - input_tokens, dialect.most_tokens or wanted
    if 1 <= wanted <= left and wanted <= most:
        # As nearly always, in a tenth of the instructions.
        return wanted
    return max(1, min(wanted, left, most))
