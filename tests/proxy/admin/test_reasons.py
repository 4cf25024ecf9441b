"""What the pages say of a field, a failure or a stray: each reason that the code can give is there in Chinese."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator

import orjson
import pytest

from proxy.admin import docs
from proxy.downstream import browsers, strays
from proxy.inspector import copies
from proxy.server import routes
from tests.conftest import ROOT
from translators import explain, faults
from translators.compatible import parameters as compatible
from translators.dashscope import call as calls
from translators.dashscope import parameters

KNOWN = tomllib.loads((docs.ROOM / "page" / "reasons.zh.toml").read_text("utf-8"))
# Where failures are worded, and by what: which argument is the cause.
FAILURES = {"Refusal": 1, "Stray": 1}
ROOMS = ("proxy/admission", "proxy/call", "proxy/downstream", "proxy/server", "proxy/upstream", "translators")


def form_of(node: ast.expr | None) -> str | None:
    """A sentence in the code, with `{}` for what changes."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values)
    return None


def said_of_fields() -> Iterator[str | None]:
    for row in (*parameters.ROWS, *compatible.TABLE.rows):
        yield row.why
    for dropped in (calls.DROPPED, parameters.DROPPED, compatible.DROPPED):
        yield from dropped.values()
    yield from (explain.UNKNOWN, explain.UNSAID, explain.SHAPES, explain.HELD)
    for node in ast.walk(ast.parse((ROOT / "translators/openai/fields.py").read_text("utf-8"))):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("FieldMapping", "_dropped"):
            at = 3 if getattr(node.func, "id", "") == "FieldMapping" else 1
            yield form_of(node.args[at]) if len(node.args) > at else None
        elif isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "why":
            yield form_of(node.value)


def said_of_failures() -> Iterator[str | None]:
    yield from (hint for _, hint in routes.HINTS)
    yield from copies.REASONS
    yield from (strays.TLS_HINT, strays.PLAIN_HINT, strays.SLASH_HINT, browsers.PAGE_HINT, browsers.NAME_HINT)
    for room in ROOMS:
        for file in (ROOT / room).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text("utf-8"))):
                name = getattr(node.func, "id", getattr(node.func, "attr", "")) if isinstance(node, ast.Call) else ""
                if isinstance(node, ast.Call) and name in FAILURES and len(node.args) > FAILURES[name]:
                    yield form_of(node.args[FAILURES[name]])
                if isinstance(node, ast.Call) and name == "_broken":  # makes a sentence of its argument
                    yield f"upstream sent {form_of(node.args[0])}"


def is_known(sentence: str) -> bool:
    # Behind a colon stand words of others, which go no further; a sentence may be but two others.
    sentence = sentence.partition(": ")[0] if sentence.endswith("{}") else sentence
    sentence = sentence.replace("{} before the answer ended", f"{faults.CUT} before the answer ended")
    sentence = sentence.removesuffix("upstream sent {}")
    forms = (re.escape(form).replace(r"\{\}", ".+") for form in KNOWN)
    return not re.sub(r"[^a-z]", "", sentence.replace("{}", "")) or any(re.fullmatch(form, sentence) for form in forms)


@pytest.mark.parametrize("said", [said_of_fields, said_of_failures])
def test_every_reason_is_there_in_chinese(said: object) -> None:
    given = {*filter(None, said())}  # type: ignore[operator]
    assert len(given) > 40
    assert sorted(sentence for sentence in given if not is_known(sentence)) == []


@pytest.mark.parametrize("english", KNOWN)
def test_a_translation_has_what_changes_and_is_chinese(english: str) -> None:
    chinese = KNOWN[english]
    assert chinese.count("{}") == english.count("{}")
    assert re.search("[一-鿿]", chinese)


def test_nothing_ends_the_script_that_holds_them() -> None:
    assert "<" not in docs.reasons()
    assert orjson.loads(docs.reasons()) == KNOWN
