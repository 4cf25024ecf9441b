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


TEN = "一二三四五六七八九十"


def test_paragraphs_of_help_take_the_columns_there_are_behind_their_indent() -> None:
    """22 of them: eleven characters. What is written line by line stays so."""
    formatter = texts.Formatter(width=24)
    formatter.write_usage("dashseek demo", "[OPTIONS]")
    with formatter.indentation():
        formatter.write_text(
            f"{TEN}甲\n\n{TEN}甲乙\n\n\b\nExamples:\n  dashseek demo --once --port 8090\n\nSay the\n version.\n"
        )
    assert formatter.getvalue().split("\n") == [
        *("用法：dashseek demo ", "       [OPTIONS]"),
        *(f"  {TEN}甲", ""),
        *(f"  {TEN}甲", "  乙", ""),
        *("  示例：", "    dashseek demo --once --port 8090", ""),
        *("  显示版本。", ""),
    ]
    formatter = texts.Formatter(width=40)
    formatter.write_usage("dashseek", "demo", "Usage: ")
    assert formatter.getvalue() == "Usage: dashseek demo\n"


def test_flags_stand_beside_what_they_do_or_above_it_where_they_are_long() -> None:
    """A column of the widest, of 30 at most; two blanks; the rest of the line, of ten columns at least."""
    thirty = "--as-wide-as-a-flag-may-be-xxx"
    rows = [
        ("--once", f"{TEN}甲"),
        (thirty, TEN),
        (f"{thirty}x", "Say the version."),
        ("-h", ""),
        ("", "End after the call."),
        ("-v", "01234 56789"),
    ]
    aside = " " * 34
    shown = {
        # 54 - 2 - 32: room for ten characters.
        54: [
            f"  --once{aside[8:]}{TEN}",
            f"{aside}甲",
            f"  {thirty}  {TEN}",
            f"  {thirty}x",
            f"{aside}显示版本。",
            "  -h",
            f"{aside}调用之后即结束。",
            f"  -v{aside[4:]}01234 56789",
        ],
        20: [
            f"  --once{aside[8:]}{TEN[:5]}",
            f"{aside}{TEN[5:]}",
            f"{aside}甲",
            f"  {thirty}  {TEN[:5]}",
            f"{aside}{TEN[5:]}",
            f"  {thirty}x",
            f"{aside}显示版本。",
            "  -h",
            f"{aside}调用之后即",
            f"{aside}结束。",
            f"  -v{aside[4:]}01234",
            f"{aside}56789",
        ],
    }
    for columns, lines in shown.items():
        formatter = texts.Formatter(width=columns)
        with formatter.section("Options"):
            formatter.write_dl(rows)
        assert formatter.getvalue().split("\n") == ["选项:", *lines, ""]
    formatter = texts.Formatter(width=54)
    formatter.write_dl([("a", TEN), ("bb", TEN)])
    formatter.write_dl([])
    assert formatter.getvalue() == f"a   {TEN}\nbb  {TEN}\n"


@pytest.mark.parametrize(
    ("columns", "lines"),
    [
        (20, [TEN, "甲。乙"]),
        (19, [TEN[:9], "十甲。乙"]),
        (22, [f"{TEN}", "甲。乙"]),
        (24, [f"{TEN}甲。", "乙"]),
        (1, [*TEN, "甲。", "乙"]),
    ],
)
def test_a_line_holds_what_its_columns_do(columns: int, lines: list[str]) -> None:
    """A stop stays with what is before it; what is wider than a line stands alone."""
    assert texts.broken(f"{TEN}甲。乙", columns) == lines
    assert texts.broken("to be as wide as it is", 11) == ["to be as", "wide as it", "is"]


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
