"""What calls and checks find out about one target, into whether it is asked: well, out for a while, or on trial.

A check asks another path than a call, often without a key: it says that a target can be reached, not that it serves. So
it never takes back what answers to calls have shown. Pure: the clock is handed in. Source: spec ERR-4.
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


WELL: Final = State.WELL  # asked by every call: a name of the module, as in `line`


class Event(Enum):
    """What is found out: by calls, and by checks beside them.

    ANSWERED: a call was answered, be it with a refusal; where with 200, its first packet is there
    FAILED:   a call was answered that it has failed (5xx), was broken off before it was, or not answered in time
    REFUSED:  a call was refused for our own key; or too many have failed
    LOST:     no connection, to a call or a check; or a check was refused for our own key; or too many have failed
    AILING:   a check was answered that it has failed (5xx)
    PROBED:   a check was answered
    TRIED:    a call is sent to it after its time out is over
    LEFT:     that call has ended, and nothing was found out
    """

    __hash__ = object.__hash__  # in C; an `Enum` hashes its name, in Python

    ANSWERED = auto()
    FAILED = auto()
    REFUSED = auto()
    LOST = auto()
    AILING = auto()
    PROBED = auto()
    TRIED = auto()
    LEFT = auto()


# Of two calls that were sent at the same time the second to fail finds it out already: that is no second failure.
NEXT: Final[Mapping[tuple[State, Event], State]] = {
    (State.WELL, Event.ANSWERED): State.WELL,
    (State.WELL, Event.FAILED): State.WELL,
    (State.WELL, Event.REFUSED): State.OUT,
    (State.WELL, Event.LOST): State.OUT,
    (State.WELL, Event.AILING): State.WELL,
    (State.WELL, Event.PROBED): State.WELL,
    (State.OUT, Event.ANSWERED): State.WELL,
    (State.OUT, Event.FAILED): State.OUT,
    (State.OUT, Event.REFUSED): State.OUT,
    (State.OUT, Event.LOST): State.OUT,
    (State.OUT, Event.AILING): State.OUT,
    (State.OUT, Event.PROBED): State.WELL,
    (State.OUT, Event.TRIED): State.TRIAL,
    (State.TRIAL, Event.ANSWERED): State.WELL,
    (State.TRIAL, Event.FAILED): State.OUT,
    (State.TRIAL, Event.REFUSED): State.OUT,
    (State.TRIAL, Event.LOST): State.OUT,
    (State.TRIAL, Event.AILING): State.OUT,
    (State.TRIAL, Event.PROBED): State.WELL,
    (State.TRIAL, Event.LEFT): State.OUT,
}
# What so many in a row come to.
IN_A_ROW: Final[Mapping[Event, Event]] = {Event.FAILED: Event.REFUSED, Event.AILING: Event.LOST}
# Where answers to calls have shown it: a check that is answered changes nothing until a call is.
BY_ANSWERS: Final = frozenset(
    {
        (State.WELL, Event.REFUSED),
        (State.OUT, Event.REFUSED),
        (State.TRIAL, Event.REFUSED),
        (State.TRIAL, Event.FAILED),
    }
)


class Health:
    """One target's.

    state:      see `State`
    until_s:    when it may be tried again, on the clock of who asks; meaningless while it is well
    out_s:      how long it was put out last
    failures:   calls that have failed, in a row
    ailing:     checks that were answered that it has failed, in a row
    by_answers: whether answers to calls have put it out
    """

    __slots__ = ("ailing", "by_answers", "failures", "out_s", "state", "until_s")

    def __init__(self) -> None:
        self.state = State.WELL
        self.until_s = 0.0
        self.out_s = 0.0
        self.failures = 0
        self.ailing = 0
        self.by_answers = False

    def may_be_asked(self, now_s: float) -> bool:
        """Whether a call may be sent there as if nothing were wrong."""
        return self.state is WELL or (self.state is State.OUT and now_s >= self.until_s)

    def is_spotless(self) -> bool:
        """Whether one more answer would change nothing."""
        return self.state is WELL and not self.failures and not self.ailing

    def send(self, now_s: float) -> bool:
        """Note that a call is sent there; whether it is the trial at the end of its time out."""
        if self.state is not State.OUT or now_s < self.until_s:
            return False
        self.state = NEXT[self.state, Event.TRIED]
        return True

    def let_try(self, now_s: float) -> None:
        """Let the next call be its trial: what kept it out may have been mended."""
        self.until_s = min(self.until_s, now_s)

    def note(self, event: Event, now_s: float) -> None:
        """Take what was found out; an event that cannot be in this state changes nothing."""
        before, event = self.state, self._counted(event)
        if event is Event.PROBED and self.by_answers:
            return
        self.state = NEXT.get((before, event), before)
        self.by_answers = (before, event) in BY_ANSWERS or (self.by_answers and event is not Event.ANSWERED)
        if self.state is not State.OUT or before is State.OUT:
            return
        if event is Event.LEFT:
            self.until_s = now_s
        else:
            self.out_s = min(2 * self.out_s, LONGEST_OUT_S) if before is State.TRIAL else FIRST_OUT_S
            self.until_s = now_s + self.out_s

    def _counted(self, event: Event) -> Event:
        """What an event comes to with those of its kind before it."""
        match event:
            case Event.ANSWERED:
                self.failures = self.ailing = 0
            case Event.PROBED:
                self.ailing = 0
            case Event.FAILED:
                self.failures += 1
                return IN_A_ROW[event] if self.failures >= STRIKES else event
            case Event.AILING:
                self.ailing += 1
                return IN_A_ROW[event] if self.ailing >= STRIKES else event
        return event
