"""What calls and checks find out about one target, into whether it is asked: well, out for a while, or on trial.

Pure: the clock is handed in. Source: spec ERR-4.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, auto
from typing import Final

# So many failures in a row put a target out; what could not be reached at all is out at the first.
STRIKES: Final = 3
# Seconds that a target is out; doubled by each trial that fails.
FIRST_OUT_S: Final = 10.0
LONGEST_OUT_S: Final = 300.0


class State(Enum):
    """Where a target stands."""

    __hash__ = object.__hash__  # in C; an `Enum` hashes its name, in Python

    WELL = "well"
    OUT = "out"
    TRIAL = "trial"


class Event(Enum):
    """What is found out.

    ANSWERED: it answered, be it with a refusal
    FAILED:   it answered that it has failed (5xx), broke off before it answered, or did not answer in time
    LOST:     it cannot be asked: no connection, or it does not take our own key; or it has failed too often
    TRIED:    a call is sent to it after its time out is over
    LEFT:     that call has ended, and nothing was found out
    """

    __hash__ = object.__hash__  # in C; an `Enum` hashes its name, in Python

    ANSWERED = auto()
    FAILED = auto()
    LOST = auto()
    TRIED = auto()
    LEFT = auto()


# Of two calls that were sent at the same time the second to fail finds it out already: that is no second failure.
NEXT: Final[Mapping[tuple[State, Event], State]] = {
    (State.WELL, Event.ANSWERED): State.WELL,
    (State.WELL, Event.FAILED): State.WELL,
    (State.WELL, Event.LOST): State.OUT,
    (State.OUT, Event.ANSWERED): State.WELL,
    (State.OUT, Event.FAILED): State.OUT,
    (State.OUT, Event.LOST): State.OUT,
    (State.OUT, Event.TRIED): State.TRIAL,
    (State.TRIAL, Event.ANSWERED): State.WELL,
    (State.TRIAL, Event.FAILED): State.OUT,
    (State.TRIAL, Event.LOST): State.OUT,
    (State.TRIAL, Event.LEFT): State.OUT,
}


class Health:
    """One target's.

    state:    see `State`
    until_s:  when it may be tried again, on the clock of who asks; meaningless while it is well
    out_s:    how long it was put out last
    failures: in a row
    """

    __slots__ = ("failures", "out_s", "state", "until_s")

    def __init__(self) -> None:
        self.state = State.WELL
        self.until_s = 0.0
        self.out_s = 0.0
        self.failures = 0

    def may_be_asked(self, now_s: float) -> bool:
        """Whether a call may be sent there as if nothing were wrong."""
        return self.state is State.WELL or (self.state is State.OUT and now_s >= self.until_s)

    def send(self, now_s: float) -> bool:
        """Note that a call is sent there; whether it is the trial at the end of its time out."""
        if self.state is not State.OUT or now_s < self.until_s:
            return False
        self.state = NEXT[self.state, Event.TRIED]
        return True

    def note(self, event: Event, now_s: float) -> None:
        """Take what was found out; an event that cannot be in this state changes nothing."""
        if event is Event.ANSWERED:
            self.state, self.failures, self.out_s = State.WELL, 0, 0.0
            return
        before = self.state
        if event in {Event.FAILED, Event.LOST}:
            self.failures += 1
            if self.failures >= STRIKES:
                event = Event.LOST
        self.state = NEXT.get((before, event), before)
        if self.state is not State.OUT or before is State.OUT:
            return
        if event is Event.LEFT:
            self.until_s = now_s
        else:
            self.out_s = min(2 * self.out_s, LONGEST_OUT_S) if before is State.TRIAL and self.out_s else FIRST_OUT_S
            self.until_s = now_s + self.out_s
