"""The units, as systemd reads them and as the process behaves."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from config import settings
from proxy.commands import exit_codes
from tests.deploy.conftest import DEPLOY, passes, run, with_line

UNITS = {"dashseek.service": "dashseek.service", "dashseek@.service": "dashseek@8080.service"}
# Of 10; "OK" ends at 5. What it still may: talk to the network, which is its work.
EXPOSURE = 1.5


def installed(unit: str, directory: Path) -> Path:
    """The unit under the name it is started by, with a program that is there."""
    file = directory / UNITS[unit]
    file.write_text(with_line((DEPLOY / "systemd" / unit).read_text(), "/opt/dashseek/bin/dashseek", "/bin/true"))
    return file


def entries(unit: str) -> dict[str, str]:
    return dict(re.findall(r"^(\w+)=(.*)", (DEPLOY / "systemd" / unit).read_text(), re.MULTILINE))


@pytest.mark.parametrize("unit", UNITS)
def test_systemd_finds_nothing_wrong(unit: str, tmp_path: Path) -> None:
    """It passes over what it does not know, so what counts is what it says."""
    file = installed(unit, tmp_path)
    assert file.name not in run("systemd-analyze", "verify", file).stderr
    file.write_text(with_line(file.read_text(), "Type=notify", "Type=notified"))
    assert re.search(rf"{file.name}:\d+: Failed to parse service type", run("systemd-analyze", "verify", file).stderr)


@pytest.mark.parametrize("unit", UNITS)
def test_the_sandbox_leaves_it_its_work_and_little_else(unit: str, tmp_path: Path) -> None:
    said = passes("systemd-analyze", "security", "--offline=true", "--no-pager", installed(unit, tmp_path))
    exposure = re.search(r"exposure level for \S+: ([\d.]+)", said)
    assert exposure
    assert float(exposure[1]) <= EXPOSURE


@pytest.mark.parametrize("unit", UNITS)
def test_it_has_time_to_read_what_was_used_of_its_budgets(unit: str) -> None:
    """Of fifty million calls a month, at twice the time that one takes."""
    assert int(entries(unit)["TimeoutStartSec"]) >= 50 * 12


@pytest.mark.parametrize("unit", UNITS)
def test_it_has_time_for_its_drain_and_is_not_started_again_with_wrong_settings(unit: str) -> None:
    chosen = settings.Settings()
    said = entries(unit)
    assert int(said["TimeoutStopSec"]) >= chosen.drain_delay + chosen.drain_timeout + 15
    assert int(said["RestartPreventExitStatus"]) == exit_codes.Exit.CONFIGURATION


def test_the_template_is_the_unit_but_for_its_port() -> None:
    whole, one = ((DEPLOY / "systemd" / unit).read_text().partition("[Unit]")[2] for unit in UNITS)
    assert one.replace(", on port %i", "").replace(" --port %i", "") == whole
    assert one.count("%i") == 2
