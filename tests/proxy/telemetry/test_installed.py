"""Claims about what is installed beside us: who claims a package of ours, and which one Python would take."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from proxy.telemetry import installed
from tests.conftest import ROOT
from tests.proxy.surroundings import distribution


@pytest.mark.parametrize(
    ("files", "claimed"),
    [
        ({"top_level_txt": "config\n"}, "(config)"),
        ({"top_level_txt": "theirs\n", "RECORD": "config/__init__.py,,\n"}, ""),
        ({"RECORD": "translators/deep/er.py,sha256=x,7\n"}, "(translators)"),
        ({"RECORD": "theirs/__init__.py,,\nconfig.py,sha256=x,7\n"}, "(config)"),
        ({"SOURCES_txt": "setup.py\nproxy/a.py"}, "(proxy)"),
        ({"RECORD": "config/settings.toml,,\nconfigs/a.py,,\nproxy.pyi,,\ntheirs/proxy/a.py,,\n"}, ""),
        ({}, ""),
    ],
)
def test_a_package_of_our_name_is_found_however_it_is_recorded(
    files: dict[str, str], claimed: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    distribution(tmp_path, "theirs", **files)
    monkeypatch.syspath_prepend(tmp_path)
    complaint = installed.room_complaint()
    assert complaint == (
        f"a package of ours is also installed by theirs {claimed}: "
        "give dashseek an environment of its own (pipx, a venv or an image)"
        if claimed
        else None
    )


MEND = "start dashseek elsewhere or without PYTHONPATH, and give it an environment of its own"


def test_a_package_that_python_would_take_from_elsewhere_is_named_with_where_it_is(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert installed.shadow_complaint() is None
    taken = tmp_path / "config"
    taken.mkdir()
    (taken / "__init__.py").touch()
    monkeypatch.delitem(sys.modules, "config")
    monkeypatch.syspath_prepend(tmp_path)
    complaint = installed.shadow_complaint() or ""
    assert complaint.startswith(f"our package `config` is taken from {taken}, and not from {ROOT}: {MEND}")
    monkeypatch.setattr(installed, "ROOMS", ("a_room_that_is_nowhere",))
    complaint = installed.shadow_complaint() or ""
    assert complaint.startswith(f"our package `a_room_that_is_nowhere` is missing, and not from {ROOT}: {MEND}")


def test_a_version_is_that_of_what_is_installed_or_words() -> None:
    assert installed.version_of("pytest") == pytest.__version__
    assert installed.version_of("a-distribution-that-is-none") == "not installed"
