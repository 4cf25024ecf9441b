"""Claims about the language of the commands: Chinese where the locale asks for it, whole, and logs as they were."""

from __future__ import annotations

import ast
import inspect
import os
import re
import string
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from config import settings
from proxy.commands import cli, exit_codes, help_texts, texts
from tests.conftest import ROOT

LOCALES = {
    "LANG": {"LANG": "zh_CN.UTF-8"},
    "LC_ALL over LANG": {"LANG": "en_US.UTF-8", "LC_ALL": "zh_TW.UTF-8"},
    "LC_MESSAGES over LANG": {"LANG": "de_DE", "LC_MESSAGES": "zh_CN"},
}
CHINESE = re.compile("[一-鿿]")
AT = ("check", "--upstream", "http://127.0.0.1:1")
# What a sentence is made by, file by file: each of these is shown to a person by `check`, `doctor` or `demo`.
MAKERS = {
    "proxy/commands/doctor.py": ("Finding", "_refused", "Reason"),
    "proxy/commands/check.py": ("echo",),
    "proxy/commands/demo.py": ("echo",),
    "proxy/upstream/reasons.py": ("Reason",),
    "config/values.py": ("ValueError",),
    "config/settings.py": ("ValueError",),
    "config/pools.py": ("ValueError",),
}


@pytest.fixture(autouse=True)
def locale(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*texts.LOCALE, *(one for one in os.environ if one.startswith(settings.PREFIX))):
        monkeypatch.delenv(name, raising=False)


def run(*words: str, **environ: str) -> str:
    return CliRunner().invoke(cli.dashseek, words, env=environ, prog_name="dashseek").output


@pytest.mark.parametrize("name", LOCALES)
def test_the_locale_asks_for_chinese(name: str) -> None:
    assert "示例：" in run("--help", **LOCALES[name])


@pytest.mark.parametrize("environ", [{}, {"LANG": "C"}, {"LANG": "zh_CN", "LC_ALL": "C"}], ids=["none", "C", "LC_ALL"])
def test_else_it_is_as_written(environ: dict[str, str]) -> None:
    assert not CHINESE.search(run("--help", **environ))
    assert texts.of("it speaks TLS") == "it speaks TLS"


def test_what_check_says_is_chinese() -> None:
    said = run(*AT, LANG="zh_CN.UTF-8")
    assert said.startswith("正常      给出 1 项设置，")
    wrong = run(*AT, "--dialect", "vlm", "--port", "70000", LANG="zh_CN.UTF-8")
    assert "设置有误" in wrong
    assert "是否想写 vllm？" in wrong
    assert "port（--port）：必须小于或等于 65535" in wrong


def test_what_doctor_says_is_chinese_and_its_columns_stand() -> None:
    lines = run("doctor", "--upstream", "http://127.0.0.1:1", LANG="zh_CN.UTF-8").splitlines()
    assert "失败  连接        127.0.0.1:1：连接被拒绝，该端口无人监听" in lines
    assert {texts.width(line[: len(line) - len(line.lstrip())]) for line in lines if "->" in line} == {18}


def sentences() -> Iterator[str]:
    """All that help says: of commands, flags, sections, exit codes."""

    def of(command: click.Command) -> Iterator[str]:
        for param in command.params:
            if isinstance(param, click.Option) and param.help:
                yield param.help
        for one in getattr(command, "commands", {}).values():
            yield from of(one)

    for entry in cli.COMMANDS.values():
        yield entry.summary
        yield from of(entry.build())
    yield from exit_codes.MEANINGS.values()
    yield from settings.SECTIONS
    yield from (field.description or "" for name, field in settings.Settings.model_fields.items() if name != "origins")
    for text in (said for name, said in vars(help_texts).items() if name.isupper()):
        for paragraph in re.split(r"\n[ \t]*\n", inspect.cleandoc(text)):
            if not paragraph.startswith(texts.UNBROKEN):
                yield " ".join(paragraph.split())


def test_all_that_help_says_is_there_in_chinese() -> None:
    assert [said for said in sentences() if not CHINESE.search(texts.explained(said))] == []


@pytest.mark.parametrize("name", ["serve", "conform"])
def test_help_says_all_of_it_however_many_lines_that_takes(name: str) -> None:
    said = "".join(run(name, "--help", LANG="zh_CN.UTF-8", COLUMNS="60").split())
    options = [param for param in cli.COMMANDS[name].build().params if isinstance(param, click.Option)]
    helps = [param.help for param in options if param.help and not param.hidden]
    assert len(helps) > 5
    assert [one for one in helps if "".join(texts.explained(one).split()) not in said] == []


def form_of(node: ast.expr) -> str | None:
    """A sentence in the code, with `{}` for what changes."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        parts = (str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values)
        return "".join(parts)
    return None


def made(path: str) -> Iterator[str]:
    for node in ast.walk(ast.parse((ROOT / path).read_text("utf-8"))):
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name in MAKERS[path]:
                yield from filter(None, map(form_of, node.args))


@pytest.mark.parametrize("path", MAKERS)
def test_a_sentence_that_the_code_makes_is_there_in_chinese(path: str) -> None:
    """Whatever stands for what changes in it; a column of figures has no words of its own."""
    said = {
        line
        for form in made(path)
        for line in form.split("\n")
        if len(re.findall(r"[a-z]{2,}", line.replace("{}", ""))) > 2
    }
    assert said
    numbered = (line.replace("{}", "x1") for line in said if not line.startswith("pip install "))
    assert [line for line in numbered if not CHINESE.search(texts._chinese(line))] == []


@pytest.mark.parametrize("english", texts.catalogue())
def test_a_translation_has_the_slots_of_its_sentence(english: str) -> None:
    slots = [name for _, name, _, _ in string.Formatter().parse(texts.catalogue()[english]) if name is not None]
    assert len(slots) == len(texts.SLOT.findall(english))
    assert slots == [""] * len(slots) or sorted(slots) == [str(number) for number in range(len(slots))]


def test_a_line_ends_where_its_columns_do_and_never_before_a_stop() -> None:
    said = "每个数据包都带有截至当前的用量，精确到 token。Every packet says what was used so far."
    lines = texts.broken(said, 20)
    assert all(texts.width(line) <= 22 for line in lines)
    assert not [line for line in lines if line[0] in "，。"]
    assert "".join(lines).replace(" ", "") == said.replace(" ", "")


def test_what_nobody_has_translated_comes_as_it_is() -> None:
    assert texts._chinese("a sentence that nobody knows") == "a sentence that nobody knows"
    assert texts._chinese("") == ""


def test_no_log_line_is_translated() -> None:
    """Logs are for programs: nothing that writes them knows the catalogue."""
    rooms = ("server", "call", "downstream", "upstream", "telemetry", "metering", "admission", "admin")
    files = [path for room in rooms for path in (ROOT / "proxy" / room).rglob("*.py")]
    assert not [path for path in files if "commands.texts" in Path(path).read_text("utf-8")]
