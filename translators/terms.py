"""A call, its dialect and its upstream body -> the terms its answer is made under: what upstream does not do, we do."""

from __future__ import annotations

from typing import NamedTuple

from translators.choice import Rules
from translators.dialogue import Call
from translators.openai import failures
from translators.openai.dialects import Dialect
from translators.openai.request import Body


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
    """

    rules: Rules
    chain_end: int
    legs: int
    failures: failures.Terms
    request_id: str
    at_s: float = 0.0
    event_limit: int = 16 << 20
    prefix: str = ""
    answer_end: int = 0


def agreed(
    call: Call,
    dialect: Dialect,
    body: Body,
    *,
    request_id: str,
    own_key: bool,
    at_s: float = 0.0,
    event_limit: int = 16 << 20,
) -> Terms:
    """The terms of an answer to `body`: what upstream does not do, we do."""
    last = call.messages[-1]
    return Terms(
        rules=Rules(
            think_tags=dialect.think_in_content and call.thinking,
            stops=body.stops,
            answer_limit=body.answer_limit,
            chain_limit=body.chain_limit,
            parallel_calls=call.parallel_tool_calls,
        ),
        chain_end=int(dialect.counts_close),
        answer_end=int(dialect.counts_end),
        legs=body.legs,
        failures=failures.Terms(call.model.input_tokens, own_key),
        request_id=request_id,
        at_s=at_s,
        event_limit=event_limit,
        prefix=last.content or "" if dialect.repeats_prefix and last.partial else "",
    )
