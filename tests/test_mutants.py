"""Claims about the changes that `.ci/run mutants` makes: the run itself takes hours, so what it needs is shown here."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.mirrors import ROOT, sources
from tests.mutants import Mutant, Results, Witnesses, changed, mutants_of, nearest, noticed_by, picked, report
from tests.mutants_picked import HARMLESS


def test_every_change_picked_by_hand_still_has_its_place() -> None:
    assert {mutant.source for mutant in picked()} <= {str(source) for source in sources()}


def test_a_change_stands_in_the_file_as_long_as_it_is_judged(tmp_path: Path) -> None:
    mutant = next(picked())
    (tmp_path / mutant.source).parent.mkdir(parents=True)
    whole = (ROOT / mutant.source).read_text()
    (tmp_path / mutant.source).write_text(whole)
    with changed(tmp_path, mutant):
        assert (tmp_path / mutant.source).read_text() == whole.replace(mutant.old, mutant.new)
    assert (tmp_path / mutant.source).read_text() == whole


def test_what_was_compiled_of_a_change_is_not_taken_for_what_stands_there(tmp_path: Path) -> None:
    """Nor for another change of the same length, made within the same second."""

    def value() -> str:
        env = {name: said for name, said in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        command = [sys.executable, "-S", "-c", "import table; print(table.ROWS)"]
        return subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=True).stdout.strip()

    (tmp_path / "table.py").write_text("ROWS = 1\n")
    assert value() == "1"
    for new in ("2", "3"):
        with changed(tmp_path, Mutant("table.py", 1, "1", new, len("ROWS = "), "ROWS = 1")):
            assert value() == new
        assert value() == "1"


def test_the_tests_that_meet_a_file_are_asked_first_and_then_those_that_import_it() -> None:
    relay = next(mutants_of(Path("proxy/call/relay.py")))
    mirrored, others = nearest(relay)
    assert mirrored == ["tests/proxy/call/test_relay.py"]
    assert others.index("tests/proxy/call/test_forward.py") < others.index("tests/proxy/call/test_budgets.py")
    assert not {*mirrored} & {*others}
    assert len({*others}) == len(others)
    assert all((ROOT / path).is_file() for path in (*mirrored, *others))


def test_a_test_that_fails_for_another_reason_than_the_change_notices_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One that fails without it as well, one that fails now and then, and one that notices."""
    # Plugins cost a second for each run of tests; of these, one is asked for.
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.setenv("PYTEST_PLUGINS", "pytest_timeout")
    # What the run around it was asked for is not asked of these.
    monkeypatch.setenv("PYTEST_ADDOPTS", "--cov=translators")
    monkeypatch.setattr("tests.mutants.nearest", lambda mutant: [["test_table.py"]])
    (tmp_path / "table.py").write_text("ROWS = 1\n")
    (tmp_path / "test_table.py").write_text(
        "from pathlib import Path\nimport table\n"
        "def test_red(): assert False\n"
        "def test_once():\n    path = Path('met')\n    met = path.exists()\n    path.touch()\n    assert met\n"
        "def test_rows(): assert table.ROWS == 1\n"
    )
    found = Mutant("table.py", 1, "1", "2", len("ROWS = "), "ROWS = 1")
    witnesses = Witnesses()
    assert noticed_by(tmp_path, found, witnesses) == "test_table.py::test_rows"
    said = capsys.readouterr().out
    assert "not green without any change: test_table.py::test_red" in said
    assert f"no witness: test_table.py::test_once, {found}" in said
    assert noticed_by(tmp_path, found._replace(new="1 "), witnesses) is None


def test_every_change_of_a_file_can_be_read_and_is_one() -> None:
    def read(mutant: Mutant) -> str:
        raw = source.encode()
        end = mutant.start + len(mutant.old.encode())
        return ast.dump(ast.parse(raw[: mutant.start] + mutant.new.encode() + raw[end:]))

    path = Path("translators/stops.py")
    source = (ROOT / path).read_text()
    changes = list(mutants_of(path))
    assert len(changes) > 30
    assert all(read(mutant) != ast.dump(ast.parse(source)) for mutant in changes)


def test_a_change_that_harms_nobody_is_one_that_can_be_made_and_says_why() -> None:
    for change, reason in HARMLESS.items():
        made = {(mutant.text, mutant.old, mutant.new) for mutant in mutants_of(Path(change.source))}
        assert change[1:] in made, change
        assert len(reason.split()) > 3


def test_a_run_goes_on_where_another_has_ended(tmp_path: Path) -> None:
    """Also where that was killed while it wrote a line, and where a file has grown above a change."""
    first, second, *_ = mutants_of(Path("translators/stops.py"))
    path = tmp_path / "results"
    before = Results(path)
    before.keep(first, "tests/test_it.py")
    path.write_text(path.read_text() + '{"change": ["translators/st')
    after = Results(path)
    assert after.by(first._replace(line=first.line + 7)) == "tests/test_it.py"
    assert not after.knows(second)
    after.keep(second, None)
    assert Results(path).knows(second)


def test_what_was_missed_what_is_left_and_what_harms_nobody_are_counted_apart(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    noticed, missed, harmless, left, *_ = mutants_of(Path("translators/stops.py"))
    monkeypatch.setattr(Mutant, "reason", property(lambda self: "It is as good." if self == harmless else None))
    results = Results(None)
    results.keep(noticed, "tests/test_it.py")
    results.keep(missed, None)
    assert not report([noticed, missed, harmless, left], results)
    said = capsys.readouterr().out
    assert "1 of 2 noticed: 50.0%, 95% wanted" in said
    assert f"1 more harm nobody, by tests/mutants_picked.py:\n  {harmless}: It is as good." in said
    assert "1 more are not judged so far" in said
