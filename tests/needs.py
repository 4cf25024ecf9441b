"""What some tests need beyond pip: found here, or the test is skipped by a reason of one form, `needs WHAT: HOW`.

`conftest.py` sums these reasons up at the end of a run, and `.ci/run` allows no other than those of `MACHINE`. What
says so by a mark is known before anything runs: `pytest -m outfit` chooses it.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import NoReturn

import pytest

ROOT = Path(__file__).parent.parent
CLIENTS = ROOT / ".clients"
SETUP = ".ci/run setup"
# What no set-up can give: a machine has it or not.
MACHINE = {
    "root": "run the tests as root",
    "root of a network namespace": "run the tests as root, where `ip netns add` is allowed",
    "root to mount": "run the tests as root, where a tmpfs may be mounted",
    "IPv6": "a machine that has ::1",
    "an address beside loopback": "a machine with a network",
    "more open files": "raise the hard limit (ulimit -Hn)",
    "pidfd": "Linux 5.3",
    "recorded usage": "DASHSEEK_USAGE_PAIRS names the file",
    "a git checkout": "git clone",
}


def reason(what: str) -> str:
    """Why a test that needs this is skipped, and how to get it."""
    return f"needs {what}: {MACHINE.get(what, SETUP)}"


def lack(what: str) -> NoReturn:
    """Skip the test that asks: this is not here."""
    pytest.skip(reason(what))


def found(program: str) -> str | None:
    """Where a program is: among the tools that check deploy/, or on the path."""
    return shutil.which(program, path=CLIENTS / "tools" / "bin") or shutil.which(program)


def program(name: str) -> str:
    """Where a program is; the test is skipped where it is nowhere."""
    return found(name) or lack(name)


def is_client(name: str) -> bool:
    """Whether the environment of a published client has been made whole."""
    return (CLIENTS / name / "stamp").is_file()


def client(name: str) -> Path:
    """The environment of a published client; the test is skipped where there is none."""
    return CLIENTS / name if is_client(name) else lack(f".clients/{name}")


def programs(*names: str) -> pytest.MarkDecorator:
    """Skip a test, or a module, unless each of these programs is there."""
    missing = next((name for name in names if not found(name)), names[0])
    return unless(all(map(found, names)), missing)


def clients(*names: str) -> pytest.MarkDecorator:
    """Skip a test, or a module, unless each of these published clients is there."""
    missing = next((name for name in names if not is_client(name)), names[0])
    return unless(all(map(is_client, names)), f".clients/{missing}")


def is_outfit(item: pytest.Item) -> bool:
    """Whether a test says by a mark that it needs something which the set-up brings."""
    reasons = (mark.kwargs.get("reason", "") for mark in item.iter_markers("skipif"))
    return any(reason.startswith("needs ") and reason.endswith(f": {SETUP}") for reason in reasons)


def unless(there: object, what: str) -> pytest.MarkDecorator:
    """Skip a test, or a module, unless what it needs is there."""
    return pytest.mark.skipif(not there, reason=reason(what))
