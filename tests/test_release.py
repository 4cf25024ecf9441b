"""What a release is: one version everywhere, dated changes, and two distributions that a bare environment can run."""

from __future__ import annotations

import configparser
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from dataclasses import dataclass
from email import message_from_bytes
from pathlib import Path

import pytest
import yaml

from tests import needs
from tests.test_layout import CARD, MODULES, ROOMS

ROOT = Path(__file__).parent.parent
VERSION = "0.2.0"
CHANGES = re.compile(r"^\*\*(\d+\.\d+\.\d+)\*\* ?[（(](\d{4}-\d{2}-\d{2})\b", re.MULTILINE)
IMAGE = re.compile(r"registry\.example/dashseek:([\w.]+)")
TAG = re.compile(r"newTag: (\S+)")
# What is of a checkout and not on the card: the checks, and what an image is made of.
BESIDE = (".ci", ".dockerignore", ".gitignore")
LINK = re.compile(r"\]\((?!https?:|#)([^)#]+)")
# Builds both as an index takes them: the second from what the first holds, so that nothing is missing there.
BUILD = """
import os, pathlib, sys, tarfile
from setuptools import build_meta
out = sys.argv[1]
name = build_meta.build_sdist(out)
tarfile.open(os.path.join(out, name)).extractall(out, filter="data")
os.chdir(os.path.join(out, name.removesuffix(".tar.gz")))
build_meta.build_wheel(out)
"""


@dataclass(frozen=True)
class Built:
    """Both distributions of this checkout."""

    wheel: Path
    sdist: Path

    def names(self) -> set[str]:
        """What the wheel installs."""
        with zipfile.ZipFile(self.wheel) as opened:
            return {name for name in opened.namelist() if ".dist-info/" not in name}

    def told(self, name: str) -> bytes:
        """A file of the wheel's metadata."""
        with zipfile.ZipFile(self.wheel) as opened:
            (found,) = [path for path in opened.namelist() if path.endswith(f".dist-info/{name}")]
            return opened.read(found)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Built from a copy, with the build backend of this environment."""
    out, source = tmp_path_factory.mktemp("dist"), tmp_path_factory.mktemp("source")
    for name in (*CARD, *BESIDE):
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, source)
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", BUILD, str(out)], cwd=source, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    ((wheel,), (sdist,)) = (list(out.glob(pattern)) for pattern in ("*.whl", "*.tar.gz"))
    return Built(wheel, sdist)


def card() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg", "utf-8")
    return parser


def test_the_version_is_the_same_everywhere() -> None:
    chart = yaml.safe_load((ROOT / "deploy" / "chart" / "Chart.yaml").read_text())
    said = {"setup.cfg": card()["metadata"]["version"], "chart": chart["version"], "chart's app": chart["appVersion"]}
    for path in (*(ROOT / "deploy").rglob("*.yaml"), *(ROOT / "deploy").rglob("*.md")):
        for pattern in (IMAGE, TAG):
            said |= {f"{path} {number}": tag for number, tag in enumerate(pattern.findall(path.read_text("utf-8")))}
    assert len(said) > 6
    assert {where: version for where, version in said.items() if version != VERSION} == {}


@pytest.mark.parametrize("page", ["README.md", "deploy/README.zh.md"])
def test_the_changes_are_dated_and_the_newest_is_this_version(page: str) -> None:
    found = CHANGES.findall((ROOT / page).read_text("utf-8"))
    assert [version for version, _ in found] == [VERSION, "0.1.0"]
    assert sorted(date for _, date in found) == [date for _, date in reversed(found)]


def test_the_wheel_holds_the_three_rooms_and_nothing_else(built: Built) -> None:
    assert {name.split("/")[0] for name in built.names()} == set(ROOMS)
    shipped = [*(ROOT / "proxy" / "admin" / "page").iterdir(), *(ROOT / "proxy" / "examples").iterdir()]
    documents = [*(ROOT / "translators").glob("*.md"), ROOT / "translators" / "openapi.json"]
    rows = ROOT / "config" / "models.toml"
    assert {str(path.relative_to(ROOT)) for path in (*shipped, *documents, *MODULES, rows)} <= built.names()


def test_the_source_distribution_is_the_checkout(built: Built) -> None:
    with tarfile.open(built.sdist) as opened:
        names = {name.partition("/")[2] for name in opened.getnames() if "/" in name}
    source = [path for name in (*CARD, *BESIDE) for path in (ROOT / name, *(ROOT / name).rglob("*"))]
    files = {str(path.relative_to(ROOT)) for path in source if path.is_file() and path.suffix != ".pyc"}
    assert built.names() <= files <= names
    # So each link of each page leads somewhere.
    pages = [path for path in names if path.endswith(".md")]
    links = [(page, link) for page in pages for link in LINK.findall((ROOT / page).read_text("utf-8"))]
    assert len(links) > 100
    assert [found for found in links if os.path.normpath(Path(found[0]).parent / found[1]) not in names] == []


def test_the_metadata_says_what_it_is(built: Built) -> None:
    said = message_from_bytes(built.told("METADATA"))
    assert (said["Name"], said["Version"], said["License"]) == ("dashseek", VERSION, "Apache-2.0")
    assert said["Requires-Python"] == ">=3.11"
    assert {*card()["options.extras_require"]} == {*said.get_all("Provides-Extra", [])}
    assert "dashseek = proxy.__main__:main" in built.told("entry_points.txt").decode()
    # On the page of an index a link of the checkout leads nowhere.
    assert said["Description-Content-Type"] == "text/markdown"
    assert "dashseek serve" in (page := str(said.get_payload()))
    assert not LINK.search(page)


def test_an_index_would_take_both(built: Built) -> None:
    twine = needs.found("twine") or needs.lack("twine")
    checked = subprocess.run(
        [twine, "check", "--strict", built.wheel, built.sdist], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stdout
    assert checked.stdout.count("PASSED") == 2


def test_a_bare_environment_runs_what_was_installed(built: Built, tmp_path: Path) -> None:
    """The wheel with nothing of this checkout near it; its dependencies are those of this environment."""
    bare = tmp_path / "bare"
    venv.create(bare, with_pip=True)
    python = bare / "bin" / "python"
    install = [python, "-m", "pip", "install", "-qq", "--disable-pip-version-check", "--no-deps", "--no-index"]
    subprocess.run([*install, built.wheel], check=True)
    site = sysconfig.get_path("purelib", vars={"base": str(bare), "platbase": str(bare)})
    # A path alone: an editable install that stands there is not followed.
    (Path(site) / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("DASHSEEK_", "PYTHON"))}

    def run(*words: str | Path) -> str:
        ended = subprocess.run(
            words, cwd=tmp_path, env=environ, capture_output=True, text=True, check=False, timeout=60
        )
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    where = (
        "import json, config, proxy, translators as t; print(json.dumps([config.__file__, proxy.__file__, t.__file__]))"
    )
    assert all(path.startswith(site) for path in json.loads(run(python, "-c", where)))
    dashseek = bare / "bin" / "dashseek"
    assert run(dashseek, "version").startswith(f"dashseek {VERSION} (")
    assert run(dashseek, "check", "--upstream", "http://127.0.0.1:1").startswith("ok ")
    assert "deepseek-v3" in run(dashseek, "check", "--upstream", "http://127.0.0.1:1")
