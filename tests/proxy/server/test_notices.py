"""What an operator is told of settings that are right (spec OUT-9)."""

from __future__ import annotations

from typing import Any

import pytest
import structlog

from config import models
from config.settings import Settings
from proxy.server import notices
from translators.openai.dialects import DIALECTS


def told(**said: Any) -> tuple[dict[str, str], dict[str, Any]]:
    """Sentences by topic, and log lines by event."""
    settings = Settings(upstream=("http://a",), **said)
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
