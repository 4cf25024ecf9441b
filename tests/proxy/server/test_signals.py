"""Claims about what a signal does before there are handlers, and after they are gone (spec OPS-2).

What the real process does with them is `integration/test_signals.py`'s.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from proxy.server import signals
from tests.conftest import ROOT

OTHERS = (signals.HANG_UP, *signals.LEVELS)
ALL = (*signals.STOPS, *OTHERS)


@pytest.fixture(autouse=True)
def before() -> Iterator[None]:
    """As it was, whatever is claimed."""
    handlers = {number: signal.getsignal(number) for number in (*ALL, signal.SIGALRM)}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    hook = sys.unraisablehook
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    sys.unraisablehook = hook


def test_until_there_are_handlers_a_stop_ends_it_well_and_all_else_waits() -> None:
    heard: list[int] = []
    assert not signals.is_prepared()
    signals.prepare()
    assert signals.is_prepared()
    assert set(OTHERS) <= signal.pthread_sigmask(signal.SIG_BLOCK, ())
    for number in OTHERS:
        # Nothing is done where one comes through all the same, and nothing is lost that waits.
        assert signal.getsignal(number) is signals.ignore
        signals.ignore(number, None)
        signal.raise_signal(number)
        signal.signal(number, lambda number, _: heard.append(number))
    assert heard == []
    signals.deliver()
    assert sorted(heard) == sorted(OTHERS)


@pytest.mark.parametrize("number", signals.STOPS, ids=lambda number: number.name)
def test_a_stop_ends_it_with_0_and_the_next_one_changes_nothing(number: signal.Signals) -> None:
    signals.prepare()
    with pytest.raises(SystemExit) as ended:
        signal.raise_signal(number)
    assert ended.value.code == 0
    for again in (*signals.STOPS, signal.SIGALRM):
        signal.raise_signal(again)


def test_handlers_are_put_back_where_the_process_goes_on() -> None:
    def own(_number: int, _frame: Any) -> None:
        pass

    for number in ALL:
        signal.signal(number, signal.SIG_IGN)
    # None is what was set by no Python.
    signals.restore({signal.SIGTERM: own, signal.SIGINT: None, signal.SIGUSR1: signal.SIG_DFL})
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP)] == [
        *(own, signal.SIG_DFL, signal.SIG_DFL, signal.SIG_IGN)
    ]


def test_in_a_process_that_is_ending_none_does_anything_any_more() -> None:
    signals.prepare()
    prepared = {number: signal.getsignal(number) for number in (*ALL, signal.SIGALRM)}
    for number in prepared:
        signal.signal(number, lambda *_: None)
    signals.restore(prepared | {signal.SIGALRM: signal.SIG_DFL})
    assert {signal.getsignal(number) for number in ALL} == {signal.SIG_IGN}
    assert signal.getsignal(signal.SIGALRM) is signal.SIG_DFL


def test_an_end_that_is_dropped_comes_again_and_any_other_error_is_shown() -> None:
    """The interpreter drops what is raised in `__del__`."""
    script = """
import os, signal, time
from proxy.server import signals
class Broken:
    def __del__(self):
        raise LookupError("shown")
class Dropped:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0)
signals.prepare()
Broken()
Dropped()
while True:
    time.sleep(0.1)
"""
    ended = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=30, check=False
    )
    assert (ended.returncode, ended.stdout) == (0, "")
    assert ended.stderr.count("LookupError: shown") == 1
    assert "SystemExit" not in ended.stderr
