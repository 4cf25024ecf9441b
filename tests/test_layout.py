"""What ships, and what stands where."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
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


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel as pip builds it, from a copy of this checkout with the build backend of this environment."""
    out, source = tmp_path_factory.mktemp("wheel"), tmp_path_factory.mktemp("source")
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in (*ROOMS, "tests"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    built = subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "wheel",
            "--quiet",
            "--no-deps",
            "--no-build-isolation",
            "-w",
            str(out),
            str(source),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    (path,) = out.glob("dashseek-*.whl")
    return zipfile.ZipFile(path)


def test_the_wheel_holds_the_three_rooms_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    names = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert {name.split("/")[0] for name in names} == set(ROOMS)
    assert "config/models.toml" in names
    shipped = [*(ROOT / "proxy" / "admin" / "page").iterdir(), *(ROOT / "proxy" / "examples").iterdir()]
    documents = [*(ROOT / "translators").glob("*.md"), ROOT / "translators" / "openapi.json"]
    assert {str(path.relative_to(ROOT)) for path in (*shipped, *documents)} <= names
    assert {str(path.relative_to(ROOT)) for path in MODULES} <= names


def test_the_wheel_has_the_console_script(wheel: zipfile.ZipFile) -> None:
    (entry_points,) = [name for name in wheel.namelist() if name.endswith("entry_points.txt")]
    assert "dashseek = proxy.__main__:main" in wheel.read(entry_points).decode()
