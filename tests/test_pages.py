"""The pages: each link leads somewhere, lines are short, and no command stands on a page that no test runs."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    str(path.relative_to(ROOT))
    for room in (".", "proxy", "translators", "config", "tests", "deploy")
    for path in (ROOT / room).glob("*.md" if room == "." else "**/*.md")
    if "node_modules" not in path.parts
)
FENCE = re.compile(r"^```\w*\n.*?^```$", re.DOTALL | re.MULTILINE)
CODE = re.compile(r"`[^`\n]+`")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)|<(https?://[^>\s]+)>")
# The pages whose commands are run, and where.
RUN = {
    "README.md": "integration/test_pages.py",
    "proxy/examples/README.md": "integration/test_pages.py",
    "deploy/README.md": "deploy/test_handbook.py",
    "deploy/money.md": "deploy/test_money.py",
}
# Wrapped by nobody yet: its paragraphs are long lines, in both languages.
LONG = {"translators/PROTOCOL.md", "translators/PROTOCOL.zh.md"}
WIDTH = 100
README_LINES = 150


def prose(text: str) -> str:
    return FENCE.sub("", text)


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as forges make them."""
    found: set[str] = set()
    for heading in re.findall(r"^#+ (.+)$", prose(text), re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        name = "".join(letter for letter in plain if letter.isalnum() or letter in " -_").replace(" ", "-")
        number, once = 0, name
        while name in found:
            number += 1
            name = f"{once}-{number}"
        found.add(name)
    return found


def links(page: str) -> Iterator[str]:
    for target, address in LINK.findall(CODE.sub("``", prose((ROOT / page).read_text("utf-8")))):
        yield target or address


def test_an_anchor_is_made_as_forges_make_it() -> None:
    assert anchors("# The `a`, 2.3 b?\n## X\n## X\n```\n# no\n```\n") == {"the-a-23-b", "x", "x-1"}


@pytest.mark.parametrize("page", PAGES)
def test_every_link_of_a_page_leads_somewhere(page: str) -> None:
    astray = []
    for link in links(page):
        name, _, anchor = link.partition("#")
        if "://" in name:
            continue
        target = (ROOT / page).parent / name if name else ROOT / page
        if not target.exists() or (anchor and anchor not in anchors(target.read_text("utf-8"))):
            astray.append(link)
    assert astray == []


def columns(line: str) -> int:
    """How wide a line is: a Chinese character takes two columns."""
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in line)


@pytest.mark.parametrize("page", [page for page in PAGES if page not in LONG])
def test_a_line_of_a_page_fits_its_width(page: str) -> None:
    lines = prose((ROOT / page).read_text("utf-8")).splitlines()
    # A row of a table is one line, and so is a command.
    assert [line for line in lines if columns(line) > WIDTH and not line.startswith(("|", "    "))] == []


def test_a_newcomer_reads_the_readme_in_one_go() -> None:
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) <= README_LINES


def test_every_page_with_commands_has_a_test_that_runs_them() -> None:
    assert {page for page in PAGES if "\n```sh\n" in (ROOT / page).read_text("utf-8")} == RUN.keys()
    for page, test in RUN.items():
        assert Path(page).name in (ROOT / "tests" / test).read_text("utf-8")


def test_every_page_is_found_from_the_readme() -> None:
    seen, waiting = set(), ["README.md"]
    while waiting:
        page = waiting.pop()
        if page not in seen:
            seen.add(page)
            for link in links(page):
                path = ((ROOT / page).parent / link.partition("#")[0]).resolve()
                if path.suffix == ".md" and path.is_relative_to(ROOT):
                    waiting.append(str(path.relative_to(ROOT)))
    assert seen == {*PAGES}
