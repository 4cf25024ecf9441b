"""Claims about the changes that `.ci/run mutants` makes: the run itself takes hours, so what it needs is shown here."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.mirrors import ROOT, sources
from tests.mutants import Mutant, Results, changed, mutants_of, picked, report
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
