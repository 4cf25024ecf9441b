"""The programs that read what deploy/ holds: .clients/tools first, then the machine's own."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.needs import CLIENTS, lack, program

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"


def compose_engine() -> Path:
    """The engine of `docker compose`; the command of the wheel around it keeps its exit code to itself."""
    found = next((CLIENTS / "tools").glob("lib/python*/site-packages/compose/docker-compose"), None)
    return found or lack("docker-compose")


def run(name: str, *words: str | Path, given: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run one to its end, in the root of the checkout."""
    return subprocess.run(
        [program(name), *words], cwd=ROOT, input=given, capture_output=True, text=True, check=False, timeout=100
    )


def passes(name: str, *words: str | Path, given: str | None = None) -> str:
    """Run one that must have nothing to complain of; its standard output."""
    done = run(name, *words, given=given)
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


def fails(name: str, *words: str | Path, given: str | None = None) -> str:
    """Run one that must complain; all it says."""
    done = run(name, *words, given=given)
    assert done.returncode != 0, done.stdout
    return done.stderr + done.stdout


def with_line(text: str, old: str, new: str) -> str:
    """A text with one place of it changed, which must be there."""
    assert text.count(old) >= 1, old
    return text.replace(old, new)
