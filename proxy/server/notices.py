"""Settings and models into what an operator should know of them although nothing is wrong: at start, and in `check`."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Final

import structlog

from config.models import ModelRow
from config.pools import EVERY_MODEL, Pool
from config.settings import Settings
from translators.openai.dialects import DIALECTS
from translators.openai.request import enforces_budgets

log = structlog.get_logger()

RETIRING: Final = "the service stops selling {}; what answers for them here is what their rows or --map say"
NOT_HELD: Final = "dialect {} holds no thinking_budget: an effort is asked for instead; this concerns {}"

KEYLESS: Final = "{} has no key and {} has one: calls go there without any, and a 401 puts it out"


def say(settings: Settings, rows: Collection[ModelRow]) -> None:
    """Say it in the log, one line for each thing to know.

    rows: the models on offer
    """
    for dialect, models in _unheld(settings, rows).items():
        log.info("thinking_budget_not_held", dialect=dialect, models=models)
    if retiring := _retiring(rows):
        log.info("models_retire", models=retiring)
    if keyless := _keyless(settings):
        bare, keyed = keyless
        log.warning("pools_without_key", pools=bare, beside=keyed)


def sentences(settings: Settings, rows: Collection[ModelRow]) -> Iterator[tuple[str, str]]:
    """The same for a person: a word for what it is about, and a sentence."""
    for dialect, models in _unheld(settings, rows).items():
        yield "budgets", NOT_HELD.format(dialect, ", ".join(models))
    if retiring := _retiring(rows):
        yield "retired", RETIRING.format(", ".join(f"{model} ({month})" for model, month in retiring.items()))
    if keyless := _keyless(settings):
        yield "keys", KEYLESS.format(*map(", ".join, keyless))


def _keyless(settings: Settings) -> tuple[list[str], list[str]] | None:
    """The pools that have no key, and those that have one; None where all are alike (POOL-1)."""
    bare = [pool.name for pool in settings.pools if pool.api_key is None]
    keyed = [pool.name for pool in settings.pools if pool.api_key is not None]
    return (bare, keyed) if bare and keyed else None


def _retiring(rows: Collection[ModelRow]) -> dict[str, str]:
    """The models that leave the service's shelf, each with the month (spec MOD-1)."""
    return {row["id"]: row["retires"] for row in rows if row["retires"] is not None}


def _unheld(settings: Settings, rows: Collection[ModelRow]) -> dict[str, list[str]]:
    """By dialect, the models that think where neither upstream nor we can hold a budget (spec OUT-9)."""
    unheld: dict[str, list[str]] = {}
    for pool in settings.pools_in_force:
        if enforces_budgets(DIALECTS[pool.dialect]):
            continue
        served = [row["id"] for row in rows if row["thinking"] != "never" and _serves(pool, row["id"])]
        known = unheld.setdefault(pool.dialect, [])
        known += [model for model in served if model not in known]
    return {dialect: models for dialect, models in unheld.items() if models}


def _serves(pool: Pool, model: str) -> bool:
    return EVERY_MODEL in pool.models or model in pool.models
