"""One call as its record will tell it: who asked for what, when things happened, and how it ended."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic
from typing import TYPE_CHECKING

import structlog

from proxy.admission.authentication import Admission
from proxy.admission.limits import Reservation
from proxy.call.budgets import SharedBudgets
from proxy.call.timeouts import EXPIRIES, Expired, Timeout
from proxy.metering.journal import Entry, Opening
from proxy.upstream.response import UpstreamFailure
from proxy.upstream.targets import Attempt
from translators import faults
from translators.dialogue import Call
from translators.pipe import Pipe

if TYPE_CHECKING:
    from proxy.telemetry.spans import Trace

log = structlog.get_logger()


class CallerStalled(Exception):  # noqa: N818 - named for what happened
    """The caller has not read for too long; there is nobody to tell."""


@dataclass(slots=True)
class Times:
    """When the steps of a call happened, on the monotonic clock (s); None where they have not.

    Not in the loop's time: uvloop's goes by whole milliseconds.

    received_s:     its head was there
    read_s:         its body was
    sent_s:         the first upstream call was begun
    answered_s:     the head of upstream's first answer was there
    first_packet_s: the first packet, or the reply, was handed over
    last_packet_s:  the newest one was
    ended_s:        the last byte was: who leaves after this has not left early
    """

    received_s: float
    read_s: float | None = None
    sent_s: float | None = None
    answered_s: float | None = None
    first_packet_s: float | None = None
    last_packet_s: float | None = None
    ended_s: float | None = None


@dataclass(slots=True)
class Books:
    """Where a call is written down.

    opening:     what was known of it when it was admitted; None before
    entry:       its line in the journal, to be closed; None where it was never admitted
    reservation: what was taken from its allowances; None where it has none, or was over a limit
    budgets:     what it counts in when it has ended; None where it has no limits
    trace:       its spans; None where calls are not traced
    """

    opening: Opening | None = None
    entry: Entry | None = None
    reservation: Reservation | None = None
    budgets: SharedBudgets | None = None
    trace: Trace | None = None


@dataclass(slots=True)
class Exchange:
    """One call as its record will tell it: who asks for what, and what has come of it so far.

    request_id: the caller's, or ours (spec HTTP-6)
    api:        the tongue its caller speaks, by its name in the books
    times:      when its steps happened
    books:      where it is written down
    at_s:       wall clock, when it was received
    caller:     who was let in; None before
    asked_model: as the caller named it, cut and escaped; None where no name was read
    call:       what was asked for; None before it was read
    pipe:       the way of its answer; None before it is ready to go
    attempts:   the tries upstream, in order
    bytes_out:  bytes of the body handed to the caller's socket, heartbeats apart
    limited:    whether it was over a limit of ours
    refusal:    how it failed, if it did
    expired:    the wait that outlasted its limit, if one did
    abandon:    goes on without the caller, where `cancel_policy` is `drain`; None where upstream is stopped
    """

    request_id: str
    api: str
    times: Times
    books: Books = field(default_factory=Books)
    at_s: float = field(default_factory=time.time)
    caller: Admission | None = None
    asked_model: str | None = None
    call: Call | None = None
    pipe: Pipe | None = None
    attempts: list[Attempt] = field(default_factory=list)
    bytes_out: int = 0
    limited: bool = False
    refusal: faults.Refusal | None = None
    expired: Timeout | None = None
    abandon: Callable[[], None] | None = None

    @property
    def cause(self) -> str | None:
        """Why it failed, in our own words: never a caller's but a bounded name, never upstream's (spec MET-4)."""
        if self.refusal is None:
            return None
        # Behind a colon may come words of others: a parser's, a library's.
        cause = self.refusal.cause.partition(": ")[0]
        if self.attempts or self.refusal.fault.blame != "caller" or self.expired is not None:
            return cause or ("" if self.attempts else self.refusal.fault.message)
        # Before upstream was asked, what the caller reads is ours, too: it names the parameter, or the rule.
        return f"{self.refusal.fault.message} ({cause})" if cause else self.refusal.fault.message

    def leave(self) -> bool:
        """The caller has left; whether the call goes on all the same."""
        if self.abandon is not None:
            self.abandon()
        return self.abandon is not None

    def timing(self) -> str:
        """What has taken how long so far, in milliseconds, as the head of an answer says it (`Server-Timing`)."""
        times, now_s = self.times, monotonic()
        parts = []
        if times.read_s is not None:
            parts.append(f"read;dur={(times.read_s - times.received_s) * 1e3:.1f}")
            if times.sent_s is not None:
                parts.append(f"translate;dur={(times.sent_s - times.read_s) * 1e3:.1f}")
                if times.answered_s is not None:
                    parts.append(f"upstream;dur={(times.answered_s - times.sent_s) * 1e3:.1f}")
                if self.call is not None and self.call.stream and self._speaks():
                    parts.append(f"first-token;dur={(now_s - times.sent_s) * 1e3:.1f}")
        parts.append(f"total;dur={(now_s - times.received_s) * 1e3:.1f}")
        return ", ".join(parts)

    def _speaks(self) -> bool:
        """Whether there is something to put into a first packet."""
        return self.pipe is not None and any(choice.meter.output for choice in self.pipe.answer.choices)


def refusal_of(error: Exception, exchange: Exchange) -> faults.Refusal:
    """What the caller is told of a call that ended so; what nobody foresaw is logged with its traceback."""
    if isinstance(error, faults.Refusal):
        return error
    if isinstance(error, Expired):
        exchange.expired = error.wait
        return faults.Refusal(EXPIRIES[error.wait].fault or faults.TIMED_OUT, f"{error.wait.value} fired")
    if isinstance(error, UpstreamFailure):
        return error.refusal()
    log_bug(error, exchange)
    return faults.Refusal(faults.INTERNAL, f"a bug ({type(error).__name__})")


def log_bug(error: Exception, exchange: Exchange) -> None:
    """Log what nobody foresaw with its traceback, and what is the end of a call like any other not at all."""
    if not isinstance(error, faults.Refusal | Expired | UpstreamFailure):
        log.error("bug", request_id=exchange.request_id, error=type(error).__name__, exc_info=error)
