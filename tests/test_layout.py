"""What ships, and what stands where."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests import mirrors, needs

ROOT = Path(__file__).parent.parent
ROOMS = ("proxy", "translators", "config")
CARD = {"setup.cfg", "pyproject.toml", "README.md", "LICENSE", "proxy", "translators", "config", "tests", "deploy"}
MODULES = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))


def tracked() -> list[str]:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        needs.lack("a git checkout")
    return listed.stdout.split()


def test_the_top_level_is_the_users_card() -> None:
    top = {path.split("/")[0] for path in tracked()}
    assert {name for name in top if not name.startswith(".")} <= CARD


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_module_says_in_its_first_line_what_it_is(path: Path) -> None:
    first = path.read_text().split("\n", 1)[0]
    assert first.startswith('"""')
    assert len(first) > len('"""A thing.')


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_module_is_a_grab_bag(path: Path) -> None:
    assert not {"utils", "helpers", "common", "manager", "base", "data", "misc"} & set(path.stem.split("_"))


@pytest.mark.parametrize("path", [*mirrors.sources()], ids=str)
def test_every_module_is_met_in_a_test_file_at_its_place_or_one_that_is_named(path: Path) -> None:
    own = ROOT / "tests" / path.parent / f"test_{path.name}"
    assert (ROOT / mirrors.mirror(path)).is_file(), f"make {own.relative_to(ROOT)}, or name another in tests/mirrors.py"
    assert str(path) not in mirrors.ELSEWHERE or not own.exists(), f"{path} has a test file of its own now"


def test_what_is_met_elsewhere_is_there() -> None:
    assert {*mirrors.ELSEWHERE} <= {*map(str, mirrors.sources())}
