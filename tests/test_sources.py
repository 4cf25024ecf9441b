"""What is cited is there: rules in the protocol's list of them, facts in the page of sources."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HOME = ROOT / "translators"
SOURCES = (HOME / "SOURCES.md").read_text("utf-8")
# Both end with the list of rules.
LISTS = {name: (HOME / name).read_text("utf-8").partition("\n## 13. ")[2] for name in ("PROTOCOL.md", "PROTOCOL.zh.md")}
LISTED = {name: re.findall(r"^\| ([A-Z]+-\d+) \|", text, re.MULTILINE) for name, text in LISTS.items()}
RULES = LISTED["PROTOCOL.md"]
FAMILIES = {rule.partition("-")[0] for rule in RULES}
RULE = re.compile(r"\b([A-Z]{3,4})-(\d+)(?: ?(?:…|–|to) ?(?:\1-)?(\d+))?\b")
# Written like a rule, and none: encodings, digests, weaknesses, a clock's zone.
OTHERS = {"CST", "CVE", "CWE", "SHA", "UTF"}
# One name, or several of them after one SOURCES: `SOURCES#a, #b`.
CITED = re.compile(r"\bSOURCES((?:(?:,\s+)?#[a-z0-9-]+)+)")
# Names that the facts once had, in notes that never were a part of this repository.
NOTES = re.compile(r"\b(?:ecosystem|performance|reliability|tokenizer|upstream|wire)\.md\b|\bissue \d", re.IGNORECASE)
KINDS = {".py", ".md", ".toml", ".yaml", ".cfg", ".js", ".mjs", ".sh"}


def pages() -> Iterator[tuple[str, str]]:
    """Every text of ours, by its path: code, tests, pages."""
    for room in ("proxy", "translators", "config", "tests", "deploy"):
        for path in sorted((ROOT / room).rglob("*")):
            if path.suffix in KINDS and not {"node_modules", "__pycache__"} & {*path.parts} and path != Path(__file__):
                yield str(path.relative_to(ROOT)), path.read_text("utf-8")
    for name in ("README.md", "setup.cfg", ".ci/run"):
        yield name, (ROOT / name).read_text("utf-8")


PAGES = dict(pages())


def cited(text: str) -> list[str]:
    return [name for found in CITED.findall(text) for name in re.findall(r"#([a-z0-9-]+)", found)]


def rules(text: str) -> Iterator[str]:
    """The rules a text names, one by one or as a range."""
    for family, first, last in RULE.findall(text):
        if family not in OTHERS:
            yield from (f"{family}-{number}" for number in range(int(first), int(last or first) + 1))


@pytest.mark.parametrize(
    ("text", "names"),
    [("(SOURCES#a-b)", ["a-b"]), ("SOURCES#a, #b,\n    #c; and #d", ["a", "b", "c"]), ("no SOURCES here, #a", [])],
)
def test_a_citation_names_one_source_or_several(text: str, names: list[str]) -> None:
    assert cited(text) == names


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("ABC-4, UTF-8", ["ABC-4"]),
        ("ABC-1…ABC-3", ["ABC-1", "ABC-2", "ABC-3"]),
        ("ABC-8 to ABC-9", ["ABC-8", "ABC-9"]),
    ],
)
def test_a_rule_is_named_alone_or_in_a_range(text: str, names: list[str]) -> None:
    assert [*rules(text)] == names


def test_every_source_that_is_cited_is_there_and_every_one_there_is_cited() -> None:
    anchors = re.findall(r"^### (.+)$", SOURCES, re.MULTILINE)
    assert len(anchors) == len({*anchors})
    wanted = defaultdict(set)
    for path, text in PAGES.items():
        if path != "translators/SOURCES.md":
            for name in cited(text):
                wanted[name].add(path)
    assert {name: paths for name, paths in wanted.items() if name not in anchors} == {}
    assert [name for name in anchors if name not in wanted] == []


def test_every_rule_that_is_named_is_in_the_list() -> None:
    unknown = {path: sorted({*rules(text)} - {*RULES}) for path, text in PAGES.items()}
    assert {path: names for path, names in unknown.items() if names} == {}


def test_the_list_is_whole_and_the_same_in_both_languages() -> None:
    assert LISTED["PROTOCOL.zh.md"] == RULES
    for family in FAMILIES:
        numbers = [int(rule.partition("-")[2]) for rule in RULES if rule.startswith(f"{family}-")]
        assert numbers == [*range(1, len(numbers) + 1)]


def test_nothing_refers_to_what_is_not_in_the_repository() -> None:
    found = {path: NOTES.findall(text) for path, text in PAGES.items()}
    assert {path: names for path, names in found.items() if names} == {}
