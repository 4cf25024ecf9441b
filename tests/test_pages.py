"""The pages: each link leads somewhere, lines are short, and no command stands on a page that no test runs."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
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
    # Its commands are those of the first and the third.
    "deploy/README.zh.md": "test_pages.py",
    # And its one command is the second's.
    "proxy/examples/README.zh.md": "test_pages.py",
}
# Wrapped by nobody yet: its paragraphs are long lines, in both languages.
LONG = {"translators/PROTOCOL.md", "translators/PROTOCOL.zh.md"}
WIDTH = 100
README_LINES = 150
# A shorter paragraph may stand in several places, such as a line that leads to an example.
REPEATABLE = 80


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


PATH = re.compile(r"`((?:proxy|translators|config|tests|deploy)/[\w./-]*)`((?:,? `\w+`)*)")


@pytest.mark.parametrize("page", PAGES)
def test_a_path_that_a_page_names_is_there_and_has_the_names_beside_it(page: str) -> None:
    astray = []
    for name, beside in PATH.findall(prose((ROOT / page).read_text("utf-8"))):
        path = ROOT / name
        if not path.exists():
            astray.append(name)
        elif path.suffix == ".py" and path.parts[len(ROOT.parts)] != "tests":
            text = path.read_text("utf-8")
            astray += [f"{name} {word}" for word in re.findall(r"\w+", beside) if not re.search(rf"\b{word}\b", text)]
    assert astray == []


def columns(line: str) -> int:
    """How wide a line is: a Chinese character takes two columns."""
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in line)


@pytest.mark.parametrize("page", [page for page in PAGES if page not in LONG])
def test_a_line_of_a_page_fits_its_width(page: str) -> None:
    lines = prose((ROOT / page).read_text("utf-8")).splitlines()
    # A row of a table is one line, and so is a command.
    assert [line for line in lines if columns(line) > WIDTH and not line.startswith(("|", "    "))] == []


def test_nothing_stands_twice() -> None:
    """No paragraph and no block of code, but for those of the Chinese page and of the two languages of the protocol."""
    blocks = [
        " ".join(block.split())
        for page in PAGES
        if not page.endswith(".zh.md")
        for block in re.split(r"\n\s*\n", (ROOT / page).read_text("utf-8"))
    ]
    again = {block for block, times in Counter(blocks).items() if times > 1 and len(block) >= REPEATABLE}
    assert again == set()


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


ENGLISH = [(ROOT / name).read_text("utf-8") for name in ("README.md", "deploy/README.md")]
CHINESE = (ROOT / "deploy" / "README.zh.md").read_text("utf-8")


def code(text: str) -> list[str]:
    """The words of the code in a text; pages have other names from elsewhere, and in another language."""
    return sorted(word for word in CODE.findall(text) if not word.endswith(".md`"))


class TestChinese:
    """The Chinese page is the README and the handbook, one after the other."""

    def test_it_is_what_the_readme_leads_to_first(self) -> None:
        assert "(deploy/README.zh.md)" in ENGLISH[0].splitlines()[0]

    def test_it_has_their_sections(self) -> None:
        levels = [re.findall(r"^(#+) ", prose(text), re.MULTILINE) for text in (*ENGLISH, CHINESE)]
        assert levels[2] == levels[0] + levels[1]

    def test_it_has_their_commands(self) -> None:
        commands = [re.findall(r"```sh\n(.*?)```", text, re.DOTALL) for text in (*ENGLISH, CHINESE)]
        assert commands[2] == commands[0] + commands[1]

    def test_it_has_their_lists(self) -> None:
        items = [re.findall(r"^(-|\d+\.) ", prose(text), re.MULTILINE) for text in (*ENGLISH, CHINESE)]
        assert items[2] == items[0] + items[1]

    def test_it_has_their_tables(self) -> None:
        """Row by row as many cells, and in each the same code, such as names of metrics and settings."""
        tables = [
            [
                [code(cell) for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
                for line in text.splitlines()
                if line.startswith("|")
            ]
            for text in (*ENGLISH, CHINESE)
        ]
        for theirs, ours in zip(tables[0] + tables[1], tables[2], strict=True):
            assert theirs == ours

    def test_it_names_the_same_settings_variables_and_words_of_the_code(self) -> None:
        said = [code(" ".join(prose(text).split())) for text in (*ENGLISH, CHINESE)]
        assert {*said[0], *said[1]} == {*said[2]}


class TestChineseCallers:
    """What Chinese callers ask most, as the English page has it: where the base URL goes, and Dify's 401."""

    PAGES = tuple(
        re.split(r"(?=^## )", (ROOT / "proxy" / "examples" / name).read_text("utf-8"), flags=re.MULTILINE)
        for name in ("README.md", "README.zh.md")
    )
    PAIRS = (("## Where a client", "## 客户端的 base URL"), ("## Dify, and its 401", "## Dify 与它的 401"))

    @pytest.mark.parametrize("pair", PAIRS, ids=["base URL", "Dify"])
    def test_a_section_has_the_commands_the_items_and_the_code_of_each_cell(self, pair: tuple[str, str]) -> None:
        english, chinese = (
            next(part for part in page if part.startswith(title)) for page, title in zip(self.PAGES, pair, strict=True)
        )
        for form in (r"```sh\n.*?```", r"^(?=\* )"):
            ours, theirs = (re.findall(form, text, re.MULTILINE | re.DOTALL) for text in (english, chinese))
            assert ours == theirs
        cells = [
            [code(cell) for line in text.splitlines() if line.startswith("|") for cell in line.split("|")[1:-1]]
            for text in (english, chinese)
        ]
        assert cells[0] == cells[1]
        assert {*code(english)} == {*code(chinese)}
