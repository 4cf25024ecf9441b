"""One timer for all the waits of a call: each wait has its own named limit, and re-arming it costs an assignment.

`asyncio.timeout` per read would schedule and cancel a timer for every chunk. Here the timer runs at its own slow pace
and looks, when it fires, how long the present wait has lasted. Source: spec ERR-5.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from enum import Enum
from types import TracebackType
from typing import Final, NamedTuple, Self

from proxy.metering.journal import Outcome
from translators import faults


class Timeout(Enum):
    """What a call can be waiting for; the value is the setting that limits it (see `EXPIRIES`)."""

    __hash__ = object.__hash__  # in C; an `Enum` hashes its name, in Python

    BODY = "body_timeout"
    FIRST_TOKEN = "first_token_timeout"  # noqa: S105 - a token of text
    TOKEN = "idle_timeout"  # noqa: S105 - a token of text
    CALLER = "write_timeout"
    TOTAL = "total_timeout"
    DRAIN = "drain_timeout"
    LEFT = "cancel_drain_timeout"


class Expiry(NamedTuple):
    """What a wait that has outlasted its limit means.

    fault:   what the caller is told; None where there is nobody to tell
    outcome: the word of the record
    """

    fault: faults.Fault | None
    outcome: Outcome


EXPIRIES: Final[Mapping[Timeout, Expiry]] = {
    Timeout.BODY: Expiry(faults.BODY_INVALID, Outcome.TIMEOUT_BODY),
    Timeout.FIRST_TOKEN: Expiry(faults.TIMED_OUT, Outcome.TIMEOUT_FIRST_TOKEN),
    Timeout.TOKEN: Expiry(faults.TIMED_OUT, Outcome.TIMEOUT_IDLE),
    Timeout.CALLER: Expiry(None, Outcome.CLIENT_STALLED),
    Timeout.TOTAL: Expiry(faults.TIMED_OUT, Outcome.TIMEOUT_TOTAL),
    Timeout.DRAIN: Expiry(faults.UNAVAILABLE, Outcome.SHUTDOWN_CUT),
    Timeout.LEFT: Expiry(faults.TIMED_OUT, Outcome.CLIENT_GONE_MID_STREAM),
}

# TOTAL runs from the start of the call, LEFT from its caller's leaving, DRAIN comes from outside and may be 0: none of
# them is a wait to enter.
_ENTERED: Final = frozenset(Timeout) - {Timeout.TOTAL, Timeout.DRAIN, Timeout.LEFT}


class Expired(Exception):  # noqa: N818 - named for what happened
    """A wait has outlasted its limit.

    wait: which one
    """

    def __init__(self, wait: Timeout) -> None:
        super().__init__(wait.value)
        self.wait = wait


class OpenCalls:
    """The calls that are open: how many there are, and a way to end them all.

    streams: how many of them write packets
    """

    __slots__ = ("_timeouts", "streams")

    def __init__(self) -> None:
        self._timeouts: set[CallTimeouts] = set()
        self.streams = 0

    def __len__(self) -> int:
        return len(self._timeouts)

    def __contains__(self, timeouts: CallTimeouts) -> bool:
        return timeouts in self._timeouts

    def __iter__(self) -> Iterator[CallTimeouts]:
        return iter(self._timeouts)

    def add(self, timeouts: CallTimeouts) -> None:
        """A call begins to wait."""
        self._timeouts.add(timeouts)

    def discard(self, timeouts: CallTimeouts) -> None:
        """It has ended."""
        self._timeouts.discard(timeouts)

    def expire(self, timeout: Timeout) -> None:
        """End every call that is open, as if it had waited too long for this."""
        for timeouts in tuple(self._timeouts):
            timeouts.expire(timeout)


class CallTimeouts:
    """An async context that ends with `Expired` when the present wait has lasted too long.

    wait:     what is waited for at first
    limits_s: seconds each wait may last
    open_calls: where it is found from outside, as long as its context lives
    since_s:  loop time from which TOTAL counts
    """

    __slots__ = (
        "_deadline",
        "_deadline_of",
        "_expired",
        "_handle",
        "_limits_s",
        "_loop",
        "_open",
        "_since",
        "_tick_s",
        "_timeout",
        "wait",
    )

    def __init__(self, wait: Timeout, limits_s: Mapping[Timeout, float], open_calls: OpenCalls, since_s: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._limits_s = limits_s
        # Often enough that changing to a shorter wait is not noticed late.
        self._tick_s = min(map(limits_s.__getitem__, _ENTERED))
        self._timeout = asyncio.timeout(None)
        self._handle: asyncio.TimerHandle | None = None
        self._expired: Timeout | None = None
        self._open = open_calls
        self._deadline = since_s + limits_s[Timeout.TOTAL]
        self._deadline_of = Timeout.TOTAL
        self.enter(wait)

    def enter(self, wait: Timeout) -> None:
        """From now on the call waits for this."""
        self.wait = wait
        self._since = self._loop.time()

    def end_within(self, wait: Timeout) -> None:
        """From now on the whole call may last no longer than this, whatever it waits for; once it is over, nothing."""
        due = self._loop.time() + self._limits_s[wait]
        if due < self._deadline and self in self._open:
            self._deadline, self._deadline_of = due, wait
            if self._handle is not None:
                self._handle.cancel()
            self._look()

    def expire(self, wait: Timeout) -> None:
        """End the call now, as if this wait had lasted too long; the first word counts."""
        if self._expired is None:
            self._expired = wait
            self._timeout.reschedule(self._loop.time())

    async def __aenter__(self) -> Self:
        await self._timeout.__aenter__()
        self._open.add(self)
        self._look()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.discard(self)
        if self._handle is not None:
            self._handle.cancel()
        try:
            await self._timeout.__aexit__(kind, error, trace)
        except TimeoutError:
            raise Expired(self._expired or self.wait) from None

    def _look(self) -> None:
        now = self._loop.time()
        due = self._since + self._limits_s[self.wait]
        if now >= self._deadline:
            self.expire(self._deadline_of)
        elif now >= due:
            self.expire(self.wait)
        else:
            self._handle = self._loop.call_at(min(due, self._deadline, now + self._tick_s), self._look)
