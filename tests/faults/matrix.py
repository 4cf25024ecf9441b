"""The tests of this directory into MATRIX.md: one row for each fault, with what the caller saw and what was freed.

`python -m tests.faults.matrix` writes it. The rows are those of SOURCES#fault-matrix; the claim is the test's own name.
"""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import orjson

from tests.faults import attacks

HERE = Path(__file__).parent
PAGE = HERE / "MATRIX.md"
REACHED = HERE / "reached.json"
CLAIM = re.compile(r"test_f(\d+)_(\w+)")

Test = TypeVar("Test", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Row:
    """What one test shows.

    saw:    by the caller
    freed:  within a second of the end
    figure: the border that the test holds it to
    """

    saw: str
    freed: str
    figure: str


# What no test shows, and why.
NOT_SHOWN: dict[int, tuple[str, str]] = {}
ELSEWHERE: dict[int, str] = {
    **dict.fromkeys(
        range(39, 45),
        "limits: tests/proxy/admission/test_limits.py, tests/integration/test_shared_limits.py, test_replicas.py",
    ),
    64: "kill -9: tests/integration/test_serve_kills.py, tests/integration/test_journal_kills.py",
    78: "a real Redis stopped, killed, restarted empty, its answers lost, its clock set back: no lease without an "
    "owner within 1 s of its return, calls and tokens taken once: tests/integration/test_shared_limits.py",
    79: "a worker that hangs: named in `/readyz`, killed, replaced 10 to 12 s later, the watchdog at rest until then; "
    "with `drain_timeout` 0.5 s and `drain_delay` 0.5 s all gone 6 s after SIGTERM: tests/integration/test_workers.py",
    80: "HUP, QUIT, INT, USR1, USR2 in mid-stream, in the first tenths of a second and every millisecond of the end: "
    "no stream cut, exit 0: tests/integration/test_signals.py",
    81: "a keys file emptied, cut, written in place under its old time and size: tests/proxy/admission/test_keyring.py",
    98: "5,000 calls, half under each policy of cancelling, upstream breaking off, stalling and telling figures that "
    "can and cannot be true, callers hanging up: journal = what was read = what upstream told, 1 in 20 of them in each "
    "run: tests/integration/test_books_under_faults.py",
    73: "nginx, HAProxy, Envoy in front, with the files of deploy/: packets one by one, the first ≤ 50 ms later than "
    "without, upstream saw a hang-up within 1 s, a drain loses nothing: tests/integration/test_ingresses.py",
}


def row(saw: str, *, freed: str = "all", figure: str = "") -> Callable[[Test], Test]:
    """Say what a test shows, where the table finds it."""

    def say(test: Test) -> Test:
        test.fault_row = Row(saw, freed, figure)  # type: ignore[attr-defined]
        return test

    return say


def reached(what: str, figure: str) -> None:
    """Note what a run has reached, for the table; only where DASHSEEK_REACHED is set."""
    if "DASHSEEK_REACHED" in os.environ:
        known = orjson.loads(REACHED.read_bytes()) | {what: figure}
        REACHED.write_bytes(orjson.dumps(known, option=orjson.OPT_INDENT_2) + b"\n")


def tests() -> Iterator[tuple[int, str, str, Row]]:
    """Every test of a row: its number, its claim, its file, what it shows."""
    for path in sorted(HERE.glob("test_*.py")):
        for name, test in vars(importlib.import_module(f"tests.faults.{path.stem}")).items():
            if found := CLAIM.fullmatch(name):
                yield int(found[1]), found[2].replace("_", " "), path.name, test.fault_row


def page() -> str:
    """The table as Markdown."""
    lines = {
        number: f"| {number} | {claim} | {shown.saw} | {shown.freed} | {shown.figure} | {file} |"
        for number, claim, file, shown in tests()
    }
    lines |= {number: f"| {number} | {what} | *not shown* | | {why} | |" for number, (what, why) in NOT_SHOWN.items()}
    lines |= {number: f"| {number} | *elsewhere* | | | {where} | |" for number, where in ELSEWHERE.items()}
    return "\n".join(
        (
            "# The fault matrix",
            "",
            "Every fault the real `serve` process was put through, before an upstream that fails when told to.",
            "Generated from the tests by `python -m tests.faults.matrix`; a test says when it is stale.",
            "",
            "*Freed*, within a second: the upstream call has ended, the process has as many files open as before",
            "its first call, no traceback is in its log. *First*: before the first packet, with a true status.",
            "",
            "| row | claim | the caller saw | freed | held to | test |",
            "|---|---|---|---|---|---|",
            *(lines[number] for number in sorted(lines)),
            "",
            "## Attacks",
            "",
            "Each was tried once by hand and is tried again by every run of the tests.",
            "",
            "| attack | shown by |",
            "|---|---|",
            *attacks.page(),
            "",
            "## Kinds that got through",
            "",
            "When the attacks were tried first, by cost or by a door without the other's guard; each is gone.",
            "",
            "| | kind | shown by |",
            "|---|---|---|",
            *attacks.gone(),
            "",
            "## Figures",
            "",
            "Reached by the tests above, in the sizes a run of all tests has, on two cores that others used too.",
            "`DASHSEEK_REACHED=1 python -m pytest tests/faults/test_figures.py` notes them anew.",
            "",
            "| what | reached |",
            "|---|---|",
            *(f"| {what} | {figure} |" for what, figure in orjson.loads(REACHED.read_bytes()).items()),
            "",
        )
    )


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
