"""Claims about the changes that `.ci/run mutants` makes: the run itself takes hours, so what it needs is shown here."""

from __future__ import annotations

import ast
from pathlib import Path

from tests.mirrors import ROOT, sources
from tests.mutants import Mutant, changed, mutants_of, picked


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
