"""Signals into what they mean, from the first instruction of `serve` to its last (spec OPS-2).

Until handlers are there, a signal to stop ends the process with 0, and any other waits for its handler. Afterwards none
does anything: the process is ending. Nothing here is slow to import.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Mapping
from typing import Any, Final, NoReturn

# The first one of these drains, the next one cuts.
STOPS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)
# A terminal that was closed, or a log rotation that means well: there is nothing to read again, so it is a log line.
HANG_UP: Final = signal.SIGHUP
# What moves the log's level, see `telemetry.logs`.
LEVELS: Final = (signal.SIGUSR1, signal.SIGUSR2)
# An end that was swallowed is tried again so soon.
AGAIN_S: Final = 0.001


def prepare() -> None:
    """From now on no signal harms; for the main thread, before anything slow is imported."""
    for number in STOPS:
        signal.signal(number, _end)
    for number in (HANG_UP, *LEVELS):
        signal.signal(number, ignore)
    sys.unraisablehook = _swallowed
    # They wait, in this thread and in all it starts, until `deliver`.
    signal.pthread_sigmask(signal.SIG_BLOCK, (HANG_UP, *LEVELS))


def is_prepared() -> bool:
    """Whether this process was, and has not begun to serve."""
    return signal.getsignal(signal.SIGTERM) is _end


def deliver() -> None:
    """Let through what has waited: its handlers are there."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (HANG_UP, *LEVELS))


def restore(before: Mapping[signal.Signals, Any]) -> None:
    """Put back these handlers, of before serving began; in a process that we have prepared, none: it is ending.

    For good: the interpreter lets go of all handlers but SIG_IGN before its last instruction.
    """
    # Never `_end` in between: what it raises would leave a process that the next signal kills.
    ending = (*STOPS, HANG_UP, *LEVELS) if _end in before.values() else ()
    for number in ending:
        signal.signal(number, signal.SIG_IGN)
    for number, handler in before.items():
        if number not in ending:
            signal.signal(number, handler or signal.SIG_DFL)


def ignore(_number: int, _frame: Any) -> None:
    """Do nothing; unlike SIG_IGN it lets a signal wake up who waits for one, and wait itself where it is blocked."""


def _end(_number: int, _frame: Any) -> NoReturn:
    # Not `ignore`: the interpreter lets go of that before its last instruction, and the next signal would kill.
    for number in (*STOPS, signal.SIGALRM):
        signal.signal(number, signal.SIG_IGN)
    raise SystemExit(0)


def _swallowed(what: sys.UnraisableHookArgs) -> None:
    """What was raised where nobody can catch it: an end among it comes again, a moment later and somewhere else.

    An import calls back when its lock is let go, and what a signal raises in there is dropped by the interpreter.
    """
    if isinstance(what.exc_value, SystemExit):
        signal.signal(signal.SIGALRM, _end)
        signal.setitimer(signal.ITIMER_REAL, AGAIN_S)
    else:
        sys.__unraisablehook__(what)
