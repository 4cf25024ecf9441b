"""All the waits of all calls under one timer: each wait has its own named limit, and re-arming it costs an assignment.

`asyncio.timeout` for each read would schedule and cancel a timer for every chunk, and one for each call costs a small
call a twentieth. Here one timer runs at a slow pace while any call is open, and looks how long each has waited.
Source: spec ERR-5.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from enum import Enum
from time import monotonic
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
    ABANDONED = "cancel_drain_timeout"


# As names of the module, as in `upstream.line`: nine of a small call are these, and one of every delta.
BODY, FIRST_TOKEN, TOKEN, CALLER, TOTAL, DRAIN, ABANDONED = Timeout


class Expiry(NamedTuple):
    """What a wait that has outlasted its limit means.

    fault:   what the caller is told; None where there is nobody to tell
    outcome: the word of the record
    """

    fault: faults.Fault | None
    outcome: Outcome


EXPIRIES: Final[Mapping[Timeout, Expiry]] = {
    BODY: Expiry(faults.BODY_INVALID, Outcome.TIMEOUT_BODY),
    FIRST_TOKEN: Expiry(faults.TIMED_OUT, Outcome.TIMEOUT_FIRST_TOKEN),
    TOKEN: Expiry(faults.TIMED_OUT, Outcome.TIMEOUT_IDLE),
    CALLER: Expiry(None, Outcome.CLIENT_STALLED),
    TOTAL: Expiry(faults.TIMED_OUT, Outcome.TIMEOUT_TOTAL),
    DRAIN: Expiry(faults.UNAVAILABLE, Outcome.SHUTDOWN_CUT),
    ABANDONED: Expiry(faults.TIMED_OUT, Outcome.CLIENT_GONE_MID_STREAM),
}

# The timer looks so often in the shortest wait, and at least once a second.
TICKS: Final = 8
LONGEST_TICK_S: Final = 1.0


class Expired(Exception):  # noqa: N818 - named for what happened
    """A wait has outlasted its limit.

    wait: which one
    """

    def __init__(self, wait: Timeout) -> None:
        super().__init__(wait.value)
        self.wait = wait


class OpenCalls:
    """The calls that are open: how many there are, the timer of their waits, and a way to end them all.

    limits_s: seconds each wait of a call may last
    streams:  how many of them write packets
    """

    __slots__ = ("_handle", "_loop", "_tick_s", "_waiting", "limits_s", "streams")

    def __init__(self, limits_s: Mapping[Timeout, float], loop: asyncio.AbstractEventLoop) -> None:
        self.limits_s = limits_s
        self.streams = 0
        self._loop = loop
        self._waiting: set[CallTimeouts] = set()
        self._handle: asyncio.TimerHandle | None = None
        self._tick_s = LONGEST_TICK_S
        self.limit(limits_s)

    def limit(self, limits_s: Mapping[Timeout, float]) -> None:
        """Take these limits for the calls that begin from now on."""
        self.limits_s = limits_s
        # `drain_timeout` may be 0, and is nothing that is looked at.
        self.look_within(min(limit_s for timeout, limit_s in limits_s.items() if timeout is not DRAIN))

    def look_within(self, limit_s: float) -> None:
        """Look often enough for a wait of this length: it ends at most so much late."""
        self._tick_s = min(self._tick_s, LONGEST_TICK_S, limit_s / TICKS)

    def __len__(self) -> int:
        return len(self._waiting)

    def __contains__(self, timeouts: CallTimeouts) -> bool:
        return timeouts in self._waiting

    def __iter__(self) -> Iterator[CallTimeouts]:
        return iter(self._waiting)

    def add(self, timeouts: CallTimeouts) -> None:
        """Add the waits of a call that begins."""
        self._waiting.add(timeouts)
        if self._handle is None:
            self._handle = self._loop.call_later(self._tick_s, self._tick)

    def discard(self, timeouts: CallTimeouts) -> None:
        """Take out the waits of a call that has ended."""
        self._waiting.discard(timeouts)

    def expire(self, timeout: Timeout) -> None:
        """End every open call by this time-out."""
        for timeouts in tuple(self._waiting):
            timeouts.expire(timeout)

    def close(self) -> None:
        """Stop the timer."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _tick(self) -> None:
        now_s = monotonic()
        for timeouts in tuple(self._waiting):
            timeouts.look(now_s)
        self._handle = self._loop.call_later(self._tick_s, self._tick) if self._waiting else None


class CallTimeouts:
    """The waits of one call: a context, entered once or several times, that ends with `Expired` when one is too long.

    wait:       what is waited for at first
    began_s:    time on the monotonic clock when that wait began
    open_calls: where it is found from outside, as long as a context lives, and whose timer looks at it
    since_s:    time on the monotonic clock from which TOTAL counts
    """

    __slots__ = (
        "_cancelling",
        "_deadline",
        "_deadline_of",
        "_expired",
        "_goes_on",
        "_limits_s",
        "_loop",
        "_open",
        "_task",
        "began_s",
        "wait",
    )

    def __init__(self, wait: Timeout, open_calls: OpenCalls, loop: asyncio.AbstractEventLoop, since_s: float) -> None:
        self._loop = loop
        self._open = open_calls
        self._task: asyncio.Task[object] | None = None
        self._cancelling = 0
        self._expired: Timeout | None = None
        self._goes_on = False
        # Those of the configuration that the call began under.
        self._limits_s = open_calls.limits_s
        self._deadline = since_s + self._limits_s[TOTAL]
        self._deadline_of = TOTAL
        self.enter(wait)

    def enter(self, wait: Timeout) -> None:
        """Begin a wait: until the next one the call is limited by this time-out."""
        self.wait = wait
        self.began_s = monotonic()

    def limit(self, wait: Timeout, limit_s: float) -> None:
        """Give this call a limit of its own."""
        if self._limits_s[wait] != limit_s:
            self._limits_s = {**self._limits_s, wait: limit_s}
            self._open.look_within(limit_s)

    def end_within(self, wait: Timeout) -> None:
        """Limit the rest of the whole call by this time-out, whatever it waits for; nothing where it has ended."""
        due = monotonic() + self._limits_s[wait]
        if due < self._deadline and self._task is not None:
            self._deadline, self._deadline_of = due, wait

    def expire(self, wait: Timeout) -> None:
        """End the call now by this time-out; the first one counts."""
        if self._expired is None:
            self._expired = wait
            if self._task is not None:
                self._task.cancel()

    def look(self, now_s: float) -> None:
        """End the call if its wait has lasted longer than its limit."""
        if now_s >= self._deadline:
            self.expire(self._deadline_of)
        elif now_s >= self.began_s + self._limits_s[self.wait]:
            self.expire(self.wait)

    def go_on(self) -> None:
        """Let the context that ends now, without an error, go on in the next one: to end and begin takes ten calls."""
        self._goes_on = True

    @property
    def is_open(self) -> bool:
        """Whether a context is open, or is to go on."""
        return self._task is not None

    def leave(self) -> None:
        """The call has ended without a next context. Idempotent."""
        self._open.discard(self)
        self._task = None

    def __enter__(self) -> Self:
        if self._goes_on and self._task is not None:
            self._goes_on = False
            return self
        task = asyncio.current_task(self._loop)
        assert task is not None  # noqa: S101 - for the type checker: a call is served by a task
        self._task = task
        self._cancelling = task.cancelling()
        self._open.add(self)
        if self._expired is not None:
            task.cancel()
        else:
            self.look(monotonic())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._goes_on and kind is None:
            return
        self._open.discard(self)
        task, self._task = self._task, None
        # As `asyncio.timeout` does it: a cancellation of somebody else's stays one.
        if (
            self._expired is not None
            and task is not None
            and task.uncancel() <= self._cancelling
            and kind is asyncio.CancelledError
        ):
            raise Expired(self._expired) from None
