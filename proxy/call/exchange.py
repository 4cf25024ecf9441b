"""One call as its record will tell it: who asked for what, when things happened, and how it ended."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import aiohttp
import structlog

from proxy.admission.authentication import Admission
from proxy.admission.limits import Reservation
from proxy.call.timeouts import Expired, Timeout
from proxy.metering.journal import Entry, Opening
from proxy.upstream.targets import Attempt
from translators import faults
from translators.dialogue import Call
from translators.pipe import Pipe

if TYPE_CHECKING:
    from proxy.telemetry.spans import Trace

log = structlog.get_logger()

# What a wait that lasted too long is to the caller.
EXPIRED: Final[Mapping[Timeout, faults.Fault]] = {
    Timeout.BODY: faults.BODY_INVALID,
    Timeout.FIRST_TOKEN: faults.TIMED_OUT,
    Timeout.TOKEN: faults.TIMED_OUT,
    Timeout.TOTAL: faults.TIMED_OUT,
    Timeout.DRAIN: faults.UNAVAILABLE,
    Timeout.LEFT: faults.TIMED_OUT,
}


class CallerStalled(Exception):  # noqa: N818 - named for what happened
    """The caller has not read for too long; there is nobody to tell."""


@dataclass(slots=True)
class Exchange:
    """One call as its record will tell it.

    at_s:       wall clock, when it was received
    received_s: loop time, as are the other times; ended_s: when its last byte was handed over
    read_s:     when its body was there; answered_s: when the head of upstream's answer was
    limited:    whether it was over a limit of ours
    refusal:    how it failed, if it did
    expired:    the wait that lasted too long, if one did
    trace:      its spans, where there are some
    unheard:    tells the call that its caller has left, where upstream is then read on; None where it is stopped
    """

    request_id: str
    received_s: float
    at_s: float = field(default_factory=time.time)
    caller: Admission | None = None
    call: Call | None = None
    attempts: list[Attempt] = field(default_factory=list)
    pipe: Pipe | None = None
    opening: Opening | None = None
    entry: Entry | None = None
    reservation: Reservation | None = None
    bytes_out: int = 0
    read_s: float | None = None
    sent_s: float | None = None
    answered_s: float | None = None
    first_packet_s: float | None = None
    last_packet_s: float | None = None
    ended_s: float | None = None
    limited: bool = False
    refusal: faults.Refusal | None = None
    expired: Timeout | None = None
    trace: Trace | None = None
    unheard: Callable[[], None] | None = None

    def leave(self) -> bool:
        """The caller has left; whether the call goes on all the same."""
        if self.unheard is not None:
            self.unheard()
        return self.unheard is not None

    def timing(self) -> str:
        """What has taken how long so far, in milliseconds, as the head of an answer says it (`Server-Timing`)."""
        now_s = asyncio.get_running_loop().time()
        said = []
        if self.read_s is not None:
            said.append(f"read;dur={(self.read_s - self.received_s) * 1e3:.1f}")
            if self.sent_s is not None:
                said.append(f"translate;dur={(self.sent_s - self.read_s) * 1e3:.1f}")
                if self.answered_s is not None:
                    said.append(f"upstream;dur={(self.answered_s - self.sent_s) * 1e3:.1f}")
                if self._speaks():
                    said.append(f"first-token;dur={(now_s - self.sent_s) * 1e3:.1f}")
        said.append(f"total;dur={(now_s - self.received_s) * 1e3:.1f}")
        return ", ".join(said)

    def _speaks(self) -> bool:
        """Whether there is something to put into a first packet."""
        if self.call is None or self.pipe is None or not self.call.stream:
            return False
        return any(choice.meter.output for choice in self.pipe.answer.choices)


def refusal_of(error: Exception, exchange: Exchange) -> faults.Refusal:
    """What the caller is told of a call that ended so; what nobody foresaw is logged with its traceback."""
    if isinstance(error, faults.Refusal):
        return error
    if isinstance(error, Expired):
        exchange.expired = error.wait
        return faults.Refusal(EXPIRED[error.wait], f"{error.wait.value} fired")
    if isinstance(error, aiohttp.ClientError):
        return faults.Refusal(faults.UPSTREAM_BROKEN, f"{faults.CUT} ({type(error).__name__})")
    log.error("bug", request_id=exchange.request_id, error=type(error).__name__, exc_info=error)
    return faults.Refusal(faults.INTERNAL, f"a bug ({type(error).__name__})")
