"""What an operator is told of settings that are right (spec OUT-9, MOD-1)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import structlog

from config import models
from config.settings import Settings
from proxy.server import notices
from translators.openai.dialects import DIALECTS


def told(**said: Any) -> tuple[dict[str, str], dict[str, Any]]:
    """Sentences by topic, and log lines by event."""
    settings = Settings(**{"upstream": ("http://a",), **said})
    rows = models.load(settings)
    with structlog.testing.capture_logs() as lines:
        notices.say(settings, rows)
    return dict(notices.sentences(settings, rows)), {line["event"]: line for line in lines}


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_budget_that_nobody_holds_is_told_with_the_models_that_think(dialect: str) -> None:
    """OUT-9."""
    sentences, lines = told(dialect=dialect)
    unheld = dialect in {"ark", "openai"}
    assert ("budgets" in sentences) is ("thinking_budget_not_held" in lines) is unheld
    if unheld:
        line = lines["thinking_budget_not_held"]
        assert line["dialect"] == dialect
        assert "deepseek-r1" in line["models"]
        assert "deepseek-v3" not in line["models"]
        assert f"dialect {dialect} " in sentences["budgets"]


def test_models_that_leave_the_shelf_are_told_with_the_month(tmp_path: Path) -> None:
    """MOD-1: as shipped, and as an operator's file says."""
    sentences, lines = told()
    assert lines["models_retire"]["models"]["deepseek-r1"] == "2026-10"
    assert "deepseek-v4-pro" not in lines["models_retire"]["models"]
    assert "deepseek-r1 (2026-10)" in sentences["retired"]
    own = tmp_path / "models.toml"
    own.write_text('[[model]]\nid = "deepseek-v4-pro"\nretires = "2027-01"\n')
    assert told(models_file=own)[1]["models_retire"]["models"]["deepseek-v4-pro"] == "2027-01"


def test_each_dialect_of_the_pools_is_told_with_the_models_that_it_serves() -> None:
    """OUT-9."""
    pools = [
        {"name": "e", "urls": ["http://e"], "dialect": "deepseek", "models": ["deepseek-r1"]},
        {"name": "a", "urls": ["http://a"], "dialect": "ark", "models": ["deepseek-r1", "deepseek-v3"]},
        {"name": "b", "urls": ["http://b"], "dialect": "ark", "models": ["deepseek-r1"]},
        {"name": "c", "urls": ["http://c"], "dialect": "openai", "models": ["deepseek-v3"]},
        {"name": "d", "urls": ["http://d"], "dialect": "deepseek", "models": ["*"]},
    ]
    settings = Settings(pools=pools)
    with structlog.testing.capture_logs() as lines:
        notices.say(settings, models.load(settings))
    told = [(line["dialect"], line["models"]) for line in lines if line["event"] == "thinking_budget_not_held"]
    assert told == [("ark", ["deepseek-r1"])]


@pytest.mark.parametrize(("keyed", "is_told"), [("a", True), ("", False), ("ab", False)])
def test_a_pool_without_a_key_beside_one_that_has_one_is_told(tmp_path: Path, keyed: str, *, is_told: bool) -> None:
    """Nothing is wrong with an engine that asks for none; but it may have been forgotten."""
    (tmp_path / "key").write_text("sk-a")
    key = {"api_key_file": tmp_path / "key"}
    pools = [{"name": name, "urls": [f"http://{name}"], **(key if name in keyed else {})} for name in "ab"]
    sentences, lines = told(upstream=(), pools=pools)
    assert ("keys" in sentences) is ("pools_without_key" in lines) is is_told
    if is_told:
        assert sentences["keys"].startswith("b has no key and a has one:")
        assert (lines["pools_without_key"]["pools"], lines["pools_without_key"]["beside"]) == (["b"], ["a"])
