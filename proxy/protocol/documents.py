"""The tables the translators work by -> the tables of the protocol document, in both its languages, and `openapi.json`.

`translators/PROTOCOL.md` and `PROTOCOL.zh.md` are prose around marks. What stands between two marks comes from the
code: `python -m proxy.protocol.documents` writes it, `--check` names the files that are stale. A refusal in a table is
one that a probe has just earned, and what goes upstream is what `request.Order.fields` says of a call.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import click
import orjson

from proxy.protocol import claims, compatible, conformance, openapi
from proxy.protocol.phrases import Language
from proxy.protocol.tables import CALLERS_TABLES, TABLES, Sources, shipped
from translators import faults

HOME: Final = Path(faults.__file__).parent
FILES: Final[Mapping[Language, str]] = {
    Language.EN: "PROTOCOL.md",
    Language.ZH: "PROTOCOL.zh.md",
}
OPENAPI: Final = "openapi.json"
# The page for callers, from the folder that the packages stand in.
CALLERS: Final = "proxy/examples/README.md"
# The streams that the OpenAPI document shows, by their number in the protocol.
STREAMS: Final[Mapping[str, str]] = {"finished": "E-8", "broken": "E-10"}
ANSWER: Final = re.compile(r"<!-- example: (\S+) answer -->\n```text\n(.*?)\n```", re.DOTALL)
# A row of the list of rules: its number, what it is about, and the checks of `dashseek conform`.
RULE_ROW: Final = re.compile(r"^\| ([A-Z]+-\d+) \| ([^|\n]+) \|(?: [^|\n]* \|)?$", re.MULTILINE)
BLOCK: Final = re.compile(r"(<!-- generated: ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def fill(document: str, language: Language, sources: Sources) -> str:
    """The document with every generated block written anew; KeyError for a mark that names no table."""
    known = {**TABLES, **compatible.TABLES, **CALLERS_TABLES}
    filled = BLOCK.sub(lambda found: f"{found[1]}{known[found[2]](language, sources)}\n{found[3]}", document)
    sections, heading, rules = filled.partition("\n## 13. ")
    checks = conformance.by_rule()
    return (
        sections
        + heading
        + RULE_ROW.sub(lambda row: f"| {row[1]} | {row[2]} | {_held_by(row[1], checks, language)} |", rules)
    )


def _held_by(rule: str, checks: Mapping[str, tuple[str, ...]], language: Language) -> str:
    """The checks that hold a rule from outside, or why there is none."""
    why = claims.why_unchecked(rule)
    return ", ".join(f"`{name}`" for name in checks.get(rule, ())) or (why[language] if why else "–")


def refresh(directory: Path, *, write: bool) -> list[str]:
    """The names of the documents there that are stale; with `write` they no longer are."""
    sources = shipped()
    before = {name: (directory / name).read_text("utf-8") for name in (*FILES.values(), OPENAPI)}
    after = {name: fill(before[name], language, sources) for language, name in FILES.items()}
    after[OPENAPI] = described(after[FILES[Language.EN]], sources)
    stale = [name for name in before if after[name] != before[name]]
    for name in stale if write else ():
        (directory / name).write_text(after[name], "utf-8")
    return stale


def refresh_callers(directory: Path, *, write: bool) -> list[str]:
    """The same for the callers' page, where there is one."""
    path = directory / CALLERS
    before = path.read_text("utf-8") if path.exists() else ""
    after = fill(before, Language.EN, shipped())
    if write and after != before:
        path.write_text(after, "utf-8")
    return [CALLERS] if after != before else []


def described(document: str, sources: Sources) -> str:
    """The OpenAPI document, with streams that stand in the protocol document, where a test runs them."""
    answers = dict(ANSWER.findall(document))
    streams = {name: f"{answers[number]}\n\n" for name, number in STREAMS.items()}
    whole = compatible.described(openapi.document(sources.rows, streams), sources)
    return orjson.dumps(whole, option=orjson.OPT_INDENT_2).decode() + "\n"


@click.command()
@click.option("--check", is_flag=True, help="Write nothing; exit 1 if a document is stale.")
def main(*, check: bool) -> None:
    """Write the tables of the protocol document anew, in both its languages, and the OpenAPI document."""
    stale = [*refresh(HOME, write=not check), *refresh_callers(HOME.parent, write=not check)]
    for name in stale:
        click.echo(f"{name}: {'stale' if check else 'written'}")
    if check and stale:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
