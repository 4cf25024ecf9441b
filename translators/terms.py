"""What upstream is asked for a call -> the terms of its answer: what upstream does not do, we do."""

from __future__ import annotations

from typing import Final, NamedTuple

from translators.choice import Rules
from translators.deepseek import prompt
from translators.dialogue import Call, Template
from translators.openai import failures
from translators.openai.request import Order

# Bytes of one upstream event, where nobody says another number.
EVENT_LIMIT: Final = 16 << 20


class Terms(NamedTuple):
    """What an answer is made under, beside the call.

    rules:         what we do to it ourselves
    chain_end:     tokens upstream counts for closing a chain of thought, 0 or 1
    legs:          upstream calls that serve it: 1, or `n` where upstream knows no `n`
    failures:      what its failures can depend on
    request_id:    the caller's, in every packet
    at_s:          wall clock, when the call was received: some tongues say it in every packet
    event_limit:   bytes one upstream event may have
    answer_end:    tokens upstream counts for ending an answer, 0 or 1
    prefix:        text a JSON completion repeats before its own (llama.cpp, prefix completion)
    template:      how the model writes tool calls
    calls_opened:  whether the prompt holds what opens them (a forced `tool_choice`)
    """

    rules: Rules
    chain_end: int
    legs: int
    failures: failures.Terms
    request_id: str
    at_s: float
    event_limit: int
    prefix: str
    answer_end: int
    template: Template
    calls_opened: bool


def agreed(
    order: Order,
    *,
    request_id: str,
    own_key: bool,
    known: tuple[str, ...] = (),
    at_s: float = 0.0,
    event_limit: int = EVENT_LIMIT,
) -> Terms:
    """The terms of an answer to `order`: what upstream does not do, we do.

    known: keys and hosts of the call, none of which may come back in upstream's words (spec ERR-3)
    """
    call, decided = order.call, order.plan
    dialect, last = decided.dialect, call.messages[-1]
    template, thinking = order.template, call.thinking
    # The fields of `Rules` and of `Terms`, in their order: by their names they take 1.2 of a call's 68 µs more.
    rules = (
        thinking and _looks_for_tags(call),
        call.model.think_in_content == "yes",
        decided.kept_stops,
        decided.answer_limit,
        decided.chain_limit,
        call.parallel_tool_calls,
        call.tool_stream,
        thinking and template == "r1",
    )
    terms = (
        tuple.__new__(Rules, rules),
        int(dialect.counts_close),
        decided.legs,
        tuple.__new__(failures.Terms, (call.model.input_tokens, own_key, known)),
        request_id,
        at_s,
        event_limit,
        last.content or "" if dialect.repeats_prefix and last.partial else "",
        int(dialect.counts_end),
        template,
        bool(call.tools) and prompt.opens_calls(call, template),
    )
    return tuple.__new__(Terms, terms)


def _looks_for_tags(call: Call) -> bool:
    """Whether the chain of a call that thinks may come inside the content (spec OUT-10); a prefix has it behind it."""
    if call.messages[-1].partial:
        return False
    where = call.model.think_in_content
    return where == "yes" or (where == "auto" and call.model.thinking == "always")
