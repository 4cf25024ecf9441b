"""What a `close` line must say to be true: one rule for each way in which it could not be.

I1 and I8 are about lines together, the ledger sees to them; I6 needs the metrics. That a counted figure never falls
(I3 of old) is no rule: the last packet of a caller who left may be above the exact count of the whole text (USE-2).
Source: spec MET-1, MET-3, MET-6.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

from proxy.metering.outcome import Outcome
from translators.usage import BASES

Json = dict[str, Any]

OUTCOMES: Final = frozenset(outcome.value for outcome in Outcome)
# A call's columns, and what they are called in the figures of one upstream call.
COLUMNS: Final = {"input": "prompt", "cached": "cached", "output": "completion", "reasoning": "reasoning"}


class Rule(NamedTuple):
    """One invariant of a `close` line.

    name:    as a violation names it
    breach:  what is wrong with a record, or None
    """

    name: str
    breach: Callable[[Json], str | None]


def columns(used: Json) -> dict[str, int]:
    """Tokens of a usage, by column; raises `KeyError` where a figure that must be there is not."""
    return {
        "input": used["input_tokens"],
        "cached": used.get("prompt_tokens_details", {}).get("cached_tokens", 0),
        "output": used["output_tokens"],
        "reasoning": used.get("output_tokens_details", {}).get("reasoning_tokens", 0),
    }


def several(record: Json) -> bool:
    """Whether more than one upstream call was made of it: a fan-out, or two legs."""
    return len(record.get("calls") or ()) > 1


def _was_cut(record: Json) -> bool:
    """Whether we ended an answer, at a limit or a stop: upstream's figure is of more than its caller was given."""
    return any("cut" in (call["end"] or "").split(",") for call in record.get("calls") or ())


def _sums(record: Json) -> str | None:
    for name in ("usage", "generated"):
        used = record[name]
        if used["total_tokens"] != used["input_tokens"] + used["output_tokens"]:
            return f"{name}: {used['total_tokens']} is not {used['input_tokens']} + {used['output_tokens']}"
        tokens = columns(used)
        if tokens["reasoning"] > tokens["output"]:
            return f"{name}: more reasoning_tokens than output_tokens"
        if tokens["cached"] > tokens["input"]:
            return f"{name}: more cached_tokens than input_tokens"
    return None


def _agrees(record: Json) -> str | None:
    if record["outcome"] != "ok":
        return None
    if record["basis"] == "none":
        return "ok, but nobody knows what was generated"
    delivered, generated = columns(record["usage"]), columns(record["generated"])
    if not (several(record) or _was_cut(record)):
        return None if delivered == generated else "ok, but what was delivered is not what was generated"
    for name, tokens in delivered.items():
        if tokens > generated[name]:
            return f"{name}: {tokens} delivered of {generated[name]} that its upstream calls generated"
    return None


def _based(record: Json) -> str | None:
    if record["basis"] == "none" and record["generated"]["output_tokens"]:
        return "output was generated, on no basis"
    return None


def _untouched(record: Json) -> str | None:
    if record["call"] is None and record["attempts"]:
        return "a call that was never admitted went upstream"
    if not record["attempts"] and (record["usage"]["total_tokens"] or record["generated"]["total_tokens"]):
        return "tokens of a call that never went upstream"
    return None


def _handed_over(record: Json) -> str | None:
    if not record["packets"] and record["usage"]["total_tokens"]:
        return "tokens were delivered without a packet"
    return None


def _outcome(record: Json) -> str | None:
    return None if record["outcome"] in OUTCOMES else "there is no such outcome"


def _adds_up(record: Json) -> str | None:
    """`generated` is the sum of its upstream calls, and its basis no better than the weakest figure shown."""
    calls = record.get("calls")
    if not calls:
        return None
    for name, tokens in columns(record["generated"]).items():
        summed = sum(call[COLUMNS[name]] or 0 for call in calls)
        if summed != tokens:
            return f"generated: {name} is {tokens}, that of its upstream calls together {summed}"
    weakest = min((BASES.index(call["basis"]) for call in calls if call["basis"] != "none"), default=0)
    if BASES.index(record["basis"]) > weakest:
        return f"basis: {record['basis']}, but one of its upstream calls is {BASES[weakest]}"
    return None


RULES: Final = (
    Rule("I2", _sums),
    Rule("I4", _agrees),
    Rule("I5", _based),
    Rule("I7", _untouched),
    Rule("MET-1", _outcome),
    Rule("MET-3", _handed_over),
    Rule("MET-3", _adds_up),
)
