"""What the commands say, in the reader's language: as the code has it, or in Chinese where the locale asks for that.

A sentence is looked up as it is about to be shown, whole or by its form, where `{}` stands for what changes: whoever
writes one needs to know nothing of other languages. Logs are for programs too, and stay as they are.
"""

from __future__ import annotations

import functools
import os
import re
import tomllib
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import click

# The first of these that is set says the language of messages (POSIX).
LOCALE: Final = ("LC_ALL", "LC_MESSAGES", "LANG")
CATALOGUE: Final = Path(__file__).with_name("texts.zh.toml")
SLOT: Final = re.compile(r"\{\}")
UNBROKEN: Final = "\b"
# What stands behind a flag's text: its variable, its default.
ASIDE: Final = re.compile(r"(.*?)(\s*\[[^\]]*\])", re.DOTALL)


def is_chinese(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether the locale asks for Chinese."""
    said = next(filter(None, (environ.get(name) for name in LOCALE)), "")
    return said.lower().startswith("zh")


def of(sentence: str) -> str:
    """A sentence in the reader's language; as it came where nobody has translated it."""
    return _chinese(sentence) if is_chinese() else sentence


def echo(text: str = "", *, err: bool = False) -> None:
    """Show text, each of its lines in the reader's language."""
    click.echo("\n".join(map(of, text.split("\n"))), err=err)


def padded(text: str, columns: int) -> str:
    """Text, filled up to so many columns of a terminal, of which a Chinese character takes two."""
    return text + " " * (columns - width(text))


def width(text: str) -> int:
    """How many columns of a terminal a text takes."""
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)


@functools.cache
def catalogue() -> Mapping[str, str]:
    """The sentences, and the same in Chinese."""
    return tomllib.loads(CATALOGUE.read_text("utf-8"))


@functools.cache
def _forms() -> Sequence[tuple[re.Pattern[str], str]]:
    """The sentences that something changes in, those that say most of themselves first."""
    forms = sorted((text for text in catalogue() if SLOT.search(text)), key=lambda text: -len(SLOT.sub("", text)))
    return [
        (re.compile("(.+?)".join(map(re.escape, SLOT.split(form))), re.DOTALL), catalogue()[form]) for form in forms
    ]


def _chinese(sentence: str) -> str:
    plain = sentence.strip()
    if not plain:
        return sentence
    said = catalogue().get(plain)
    if said is not None:
        said = said.format()
    else:
        for form, theirs in _forms():
            if found := form.fullmatch(plain):
                # A single word is a name: of a setting, a flag, a host.
                said = theirs.format(*(_chinese(part) if " " in part else part for part in found.groups()))
                break
        else:
            what, colon, why = plain.partition(": ")
            if not colon or (theirs := _chinese(why)) == why:
                return sentence
            said = f"{what}：{theirs}"
    begin = len(sentence) - len(sentence.lstrip())
    return sentence[:begin] + said + sentence[len(sentence.rstrip()) :]


class Formatter(click.HelpFormatter):
    """Help in Chinese: its texts looked up, its lines broken where their columns end."""

    def write_usage(self, prog: str, args: str = "", prefix: str | None = None) -> None:
        super().write_usage(prog, args, "用法：" if prefix is None else prefix)

    def section(self, name: str) -> Any:
        return super().section(_chinese(name))

    def write_text(self, text: str) -> None:
        for number, paragraph in enumerate(re.split(r"\n[ \t]*\n", text.strip("\n"))):
            if number:
                self.write("\n")
            if paragraph.startswith(UNBROKEN):
                lines = [_chinese(line) for line in paragraph.removeprefix(UNBROKEN).strip("\n").split("\n")]
            else:
                lines = broken(_chinese(" ".join(paragraph.split())), self.width - self.current_indent)
            self.write("".join(f"{' ' * self.current_indent}{line}\n" for line in lines))

    def write_dl(self, rows: Iterable[tuple[str, str]], col_max: int = 30, col_spacing: int = 2) -> None:
        rows = [*rows]
        column = min(max((width(term) for term, _ in rows), default=0), col_max) + col_spacing
        for term, text in rows:
            lines = broken(explained(text), max(self.width - self.current_indent - column, 10))
            head = f"{' ' * self.current_indent}{term}"
            if width(term) <= column - col_spacing and lines:
                head = padded(head, self.current_indent + column) + lines.pop(0)
            self.write(f"{head.rstrip()}\n")
            self.write("".join(f"{' ' * (self.current_indent + column)}{line}\n" for line in lines))


class Context(click.Context):
    """A click context that helps in the reader's language."""

    def make_formatter(self) -> click.HelpFormatter:
        if not is_chinese():
            return super().make_formatter()
        return Formatter(width=self.terminal_width, max_width=self.max_content_width)


class Command(click.Command):
    """A command that helps in the reader's language."""

    context_class = Context


class Group(click.Group):
    """A group that does."""

    context_class = Context


def explained(text: str) -> str:
    """A flag's text, and in brackets its variable and default."""
    asides = ASIDE.fullmatch(text)
    if asides is None or text.strip() in catalogue():
        return _chinese(text)
    return _chinese(asides[1]) + asides[2].replace("default", "默认").replace("required", "必需")


def broken(text: str, columns: int) -> list[str]:
    """Text in lines of so many columns; a line ends at a space or beside a Chinese character, never before a stop."""
    lines = [""]
    for piece in _pieces(text):
        if width(lines[-1] + piece.rstrip()) > columns and lines[-1]:
            lines[-1] = lines[-1].rstrip()
            lines.append(piece.lstrip())
        else:
            lines[-1] += piece
    return [*filter(None, map(str.rstrip, lines))]


def _pieces(text: str) -> Iterator[str]:
    """What may not be broken: a word with the space behind it, or one Chinese character, with the stops behind."""
    return (
        found[0]
        for found in re.finditer(r"(?:[⺀-鿿]|[^\s⺀-鿿，。：；、？！）」]+)[，。：；、？！）」]*\s*|\S\s*", text)
    )
