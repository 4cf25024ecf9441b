"""Settings and models into what an operator should know of them although nothing is wrong: at start, and in `check`."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Final

import structlog

from config.models import ModelRow
from config.settings import Settings
from translators.openai.dialects import DIALECTS
from translators.openai.request import enforces_budgets

log = structlog.get_logger()

NOT_HELD: Final = "dialect {} holds no thinking_budget: an effort is asked for instead; this concerns {}"


def say(settings: Settings, rows: Collection[ModelRow]) -> None:
    """Say it in the log, one line for each thing to know.

    rows: the models on offer
    """
    if unheld := _unheld(settings, rows):
        log.info("thinking_budget_not_held", dialect=settings.dialect, models=unheld)


def sentences(settings: Settings, rows: Collection[ModelRow]) -> Iterator[tuple[str, str]]:
    """The same for a person: a word for what it is about, and a sentence."""
    if unheld := _unheld(settings, rows):
        yield "budgets", NOT_HELD.format(settings.dialect, ", ".join(unheld))


def _unheld(settings: Settings, rows: Collection[ModelRow]) -> list[str]:
    """The models that think where neither upstream nor we can hold a budget (spec OUT-9)."""
    held = enforces_budgets(DIALECTS[settings.dialect])
    return [] if held else [row["id"] for row in rows if row["thinking"] != "never"]
