"""The end of a call into its record: how it ended, what was delivered and generated; never a key or a text.

Its journal line, its budgets and limits, its spans and its log line are closed here, in this order (`close`).
The journal's line and the log's say the same fields. Everything here is synchronous: a `finally` that calls it
cannot be cancelled half-way. Source: spec MET-1, MET-3, MET-4.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum, auto
from time import monotonic
from typing import Final

import structlog
from structlog.processors import NAME_TO_LEVEL

from proxy.admission.limits import NO_MONEY
from proxy.call import upstream_text
from proxy.call.exchange import Exchange
from proxy.call.timeouts import EXPIRIES
from proxy.metering import journal
from proxy.metering.journal import Closing, Journal, Outcome, Record, Times, UpstreamCall, render
from proxy.telemetry import logs
from proxy.telemetry.logs import Level
from proxy.upstream.response import Result
from proxy.upstream.targets import Attempt
from translators import dialogue, faults
from translators.answer import Account
from translators.usage import Basis, Figures, Spent

log = structlog.get_logger()

CLIENT_GONE_STATUS: Final = 499  # nginx's word for it; in records alone, never sent


class End(Enum):
    """How the handler saw a call end; the rest is in the exchange."""

    DONE = auto()
    LEFT = auto()
    STALLED = auto()
    BUG = auto()


# As names of the module, as in `upstream.line`.
DONE, LEFT, STALLED, BUG = End
OK: Final = Outcome.OK


# Who can mend a failure decides how loud it is: an upstream key that is refused is the operator's to see.
LEVELS: Final[Mapping[faults.Blame, Level]] = {
    "caller": "info",
    "upstream": "warning",
    "operator": "error",
    "proxy": "error",
}
MODERATED: Final[Mapping[faults.Fault, Outcome]] = {
    faults.INPUT_MODERATED: Outcome.MODERATED_INPUT,
    faults.OUTPUT_MODERATED: Outcome.MODERATED_OUTPUT,
}
# Outcomes that leave nothing to bill where nothing was generated: upstream did no work, or said that it did none.
IDLE: Final = frozenset(
    {Outcome.REJECTED, Outcome.THROTTLED, Outcome.UPSTREAM_ERROR, Outcome.TIMEOUT_BODY, Outcome.TIMEOUT_CONNECT}
)
NOTHING_SAID: Final = Figures()
GONE: Final = frozenset(
    {Outcome.CLIENT_GONE_BEFORE_FIRST_PACKET, Outcome.CLIENT_GONE_MID_STREAM, Outcome.CLIENT_STALLED}
)


def close(exchange: Exchange, end: End, journal: Journal, *, says_upstream: bool) -> Record:
    """Write down how a call ended, and give back what it had reserved and not used; what was written.

    says_upstream: whether the log says what upstream said of a failure
    """
    record = _record(exchange, end, says_upstream=says_upstream)
    closing, books = record.closing, exchange.books
    rendered, opening = render(closing), None
    if books.entry is not None:
        opening = books.entry.opening
        books.entry.close(rendered)
    elif record.opening is not None:
        opening = render(record.opening)
        journal.turn_away(opening, rendered)
    cost = NO_MONEY
    if books.budgets is not None:
        assert record.opening is not None  # noqa: S101 - for the type checker: it was known before they were asked
        cost = books.budgets.spend({**record.opening, **closing})
    if books.reservation is not None:
        if closing["basis"] == "none":
            books.reservation.refund()
        else:
            books.reservation.settle(closing["generated"]["total_tokens"], cost=cost)
    if books.trace is not None:
        books.trace.end(record)
    _log(record, opening, rendered)
    return record


def outcome_of(exchange: Exchange, account: Account | None, end: End) -> Outcome:
    """The one word for how a call ended."""
    packets = account.packets if account else 0
    if end is BUG:
        return Outcome.INTERNAL_ERROR
    if end is STALLED:
        return Outcome.CLIENT_STALLED
    if end is LEFT:
        return Outcome.CLIENT_GONE_MID_STREAM if packets else Outcome.CLIENT_GONE_BEFORE_FIRST_PACKET
    if exchange.expired is not None:
        return EXPIRIES[exchange.expired].outcome
    if exchange.refusal is None:
        return OK
    return _failed(exchange, exchange.refusal)


def _failed(exchange: Exchange, refusal: faults.Refusal) -> Outcome:
    fault = refusal.fault
    if fault in MODERATED:
        return MODERATED[fault]
    if exchange.limited or fault.status == 429:  # noqa: PLR2004 - HTTP's own number
        return Outcome.THROTTLED
    if fault.blame == "proxy":
        return Outcome.INTERNAL_ERROR
    if not exchange.attempts:
        return Outcome.REJECTED
    if exchange.attempts[-1].result is Result.SLOW:
        return Outcome.TIMEOUT_CONNECT
    return Outcome.UPSTREAM_CUT if refusal.cause.startswith(faults.CUT) else Outcome.UPSTREAM_ERROR


def _record(exchange: Exchange, end: End, *, says_upstream: bool) -> Record:
    account = exchange.pipe.account() if exchange.pipe else None
    outcome = outcome_of(exchange, account, end)
    call, times, refusal = exchange.call, exchange.times, exchange.refusal
    # By place, as `Attempt` and `Admission` are made: a class that is called by names makes a dictionary of them first.
    return Record(
        exchange.request_id,
        exchange.api,
        exchange.books.opening,
        _closing(exchange, account, outcome),
        exchange.caller.fingerprint if exchange.caller else None,
        call.model.id if call else None,
        exchange.asked_model,
        call is not None and call.stream,
        account.finish_reasons if account else (),
        exchange.limited,
        [(attempt.pool, attempt.label or attempt.target, attempt.retry) for attempt in exchange.attempts],
        None if times.read_s is None else times.read_s - times.received_s,
        None if times.read_s is None or times.sent_s is None else times.sent_s - times.read_s,
        refusal.fault if refusal else None,
        None if refusal is None else exchange.cause,
        upstream_text.for_log(refusal, call) if says_upstream and refusal is not None else None,
        exchange.books.trace.id if exchange.books.trace else None,
    )


def _closing(exchange: Exchange, account: Account | None, outcome: Outcome) -> Closing:
    generated, basis = _generated(exchange, account, outcome)
    packets, delivered, drift = 0, None, None
    calls: list[UpstreamCall] = []
    if account is not None:
        packets, delivered, _, _, drift, _, spent = account
        if basis != "none":
            calls = [*map(_upstream_call, spent)]
    usage = _said(exchange, delivered)
    status, code = 200, None
    if outcome in GONE:
        status = CLIENT_GONE_STATUS
    elif exchange.refusal is not None:
        status, code = exchange.refusal.fault.status, exchange.refusal.fault.code
    return {
        "outcome": outcome._value_,  # the property is two calls
        "status": status,
        "code": code,
        "usage": usage,
        "generated": usage if generated == delivered else _said(exchange, generated),
        "basis": basis,
        "calls": calls,
        "drift_tokens": drift,
        "packets": packets,
        "bytes_out": exchange.bytes_out,
        "attempts": [*map(_attempt, exchange.attempts)],
        "t": _times(exchange),
    }


def _attempt(attempt: Attempt) -> journal.Attempt:
    said: journal.Attempt = {"target": attempt.target, "result": attempt.word, "reused": attempt.reused}
    if attempt.pool:
        said["pool"] = attempt.pool
        said["used"] = None
        if attempt.used is not None and attempt.used.figures != NOTHING_SAID:
            prompt, completion, reasoning, cached, _ = attempt.used.figures
            said["used"] = {"prompt": prompt, "cached": cached, "completion": completion, "reasoning": reasoning}
    return said


def _generated(exchange: Exchange, account: Account | None, outcome: Outcome) -> tuple[dialogue.Usage | None, Basis]:
    """The last figure known of what upstream produced, and whose it is."""
    if account is None or not exchange.attempts:
        return None, "none"
    if exchange.refusal is not None and exchange.expired is None:
        # Also where the caller had left before upstream said so.
        outcome = _failed(exchange, exchange.refusal)
    if outcome in IDLE and not (account.generated.output or any(one.completion for one in account.spent)):
        return None, "none"
    return _sum(account.spent), account.basis


def _sum(calls: Sequence[Spent]) -> dialogue.Usage:
    """What all upstream calls of one call have used: each has a prompt of its own."""
    if len(calls) == 1:
        _, prompt, cached_prompt, completion, reasoning, _, _ = calls[0]
        return dialogue.Usage(prompt, completion, reasoning, cached_prompt)
    cached = [one.cached for one in calls if one.cached is not None]
    chains = [one.reasoning for one in calls if one.reasoning is not None]
    return dialogue.Usage(
        sum(one.prompt for one in calls),
        sum(one.completion for one in calls),
        sum(chains) if chains else None,
        sum(cached) if cached else None,
    )


def _upstream_call(spent: Spent) -> UpstreamCall:
    _, prompt, cached, completion, reasoning, basis, end = spent
    return {
        "prompt": prompt,
        "cached": cached,
        "completion": completion,
        "reasoning": reasoning,
        "basis": basis,
        "end": None if None in end else ",".join(filter(None, end)),
    }


def _said(exchange: Exchange, used: dialogue.Usage | None) -> journal.Usage:
    if used is None or exchange.call is None:
        return journal.NOTHING
    return journal.usage(used, hybrid=exchange.call.model.thinking == "hybrid")


def _times(exchange: Exchange) -> Times:
    times = exchange.times
    begun_s, sent_s, first_s, last_s = times.received_s, times.sent_s, times.first_packet_s, times.last_packet_s
    # To the nearest tenth; `round` to a place goes by a text, and costs ten times as much.
    return {
        "upstream_sent": None if sent_s is None else ((sent_s - begun_s) * 1e4 + 0.5) // 1 / 10,
        "first_packet": None if first_s is None else ((first_s - begun_s) * 1e4 + 0.5) // 1 / 10,
        "last_packet": None if last_s is None else ((last_s - begun_s) * 1e4 + 0.5) // 1 / 10,
        "closed": ((monotonic() - begun_s) * 1e4 + 0.5) // 1 / 10,
    }


def _log(record: Record, opening: bytes | None, closing: bytes) -> None:
    """The one log line of a call that has ended: the journal's fields, flat, the cause, and upstream's own words."""
    told = record.fault if record.closing["status"] != CLIENT_GONE_STATUS else None
    level = LEVELS[told.blame] if told else "info"
    said = record.upstream_said
    if opening is not None and record.trace_id is None and logs.say_call(level, opening, closing, record.cause, said):
        return
    known: dict[str, object] = (
        {
            "request_id": record.request_id,
            "api": record.api,
            "key_id": record.key_id,
            "asked_model": record.asked_model,
        }
        if record.opening is None
        else {name: said for name, said in record.opening.items() if name != "at"}
    )
    if record.trace_id is not None:
        known["trace_id"] = record.trace_id
    if said is not None:
        known["upstream_said"] = said
    log.log(NAME_TO_LEVEL[level], "call", **known, **record.closing, cause=record.cause)
