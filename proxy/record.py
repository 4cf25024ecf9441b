"""The record of a call: what is kept of it when it has ended, never a key, a prompt or an answer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any, Final

import structlog

from proxy import passage
from translators import faults

log = structlog.get_logger()


# Who can mend a failure decides how loud it is: an upstream key that is refused is the operator's to see.
LEVELS: Final[Mapping[faults.Blame, int]] = {
    "caller": logging.INFO,
    "upstream": logging.WARNING,
    "operator": logging.ERROR,
    "proxy": logging.ERROR,
}


def to_log(exchange: passage.Exchange, outcome: str) -> None:
    """The one log line of a call."""
    level = logging.INFO if exchange.refusal is None else LEVELS[exchange.refusal.fault.blame]
    log.log(level, "call", request_id=exchange.request_id, outcome=outcome, **_facts(exchange))


def _facts(exchange: passage.Exchange) -> dict[str, Any]:
    now_s = asyncio.get_running_loop().time()
    facts: dict[str, Any] = {"duration_ms": _ms(now_s - exchange.received_s)}
    if exchange.first_packet_s is not None:
        facts["first_packet_ms"] = _ms(exchange.first_packet_s - exchange.received_s)
    if exchange.caller is not None:
        facts["key"] = exchange.caller.fingerprint
    if exchange.call is not None:
        call = exchange.call
        facts |= {"model": call.model.id, "stream": call.stream, "thinking": call.thinking}
    if exchange.pipe is not None:
        used = exchange.pipe.answer.used()
        facts |= {
            "input_tokens": used.input,
            "output_tokens": used.output,
            "basis": exchange.pipe.answer.basis,
            "drift_tokens": used.input - exchange.pipe.answer.tally.counted_input,
        }
    if exchange.attempts:
        facts["attempts"] = [attempt.result for attempt in exchange.attempts]
    if exchange.refusal is not None:
        fault = exchange.refusal.fault
        # Behind a colon come upstream's own words, and some upstreams repeat the prompt in theirs (FastAPI's 422).
        cause = exchange.refusal.cause.partition(": ")[0]
        facts |= {"status": fault.status, "code": fault.code, "cause": cause}
    return facts


def _ms(seconds: float) -> float:
    return round(seconds * 1e3, 1)
