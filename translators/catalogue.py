"""A model's name as a caller writes it -> the `Model` it means."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final

from translators import faults
from translators.dialogue import Model

# A log line is no place for a caller's essay: so many characters of a name are kept for it.
LONGEST_NAME: Final = 64
DISTILLED: Final = "a distilled model has another vocabulary, whose tokens cannot be counted here"
# A snapshot of a model: `-MMDD`, `-YYMMDD` or `-YYYY-MM-DD` behind its name (spec MOD-6).
_DATED: Final = re.compile(r"(.+)-(?:\d{4}|\d{6}|\d{4}-\d{2}-\d{2})", re.ASCII)


class Catalogue:
    """The models on offer, found by every name they go by.

    rows:    the models, each under its `id` and its own `aliases`
    aliases: further names and the model each stands for; an alias wins over a row of the same name (spec MOD-3)
    sees:    whether any of them takes images
    raises:  ValueError for an alias of a model that is not among the rows
    """

    def __init__(self, rows: Iterable[Model], aliases: Mapping[str, str] = {}) -> None:
        rows = list(rows)
        self.sees = any(row.sees for row in rows)
        known = {alias.lower(): row for row in rows for alias in row.aliases} | {row.id.lower(): row for row in rows}
        self._models = dict(known)
        for alias, target in aliases.items():
            model = _look_up(known, target)
            if model is None:
                raise ValueError(f"alias {alias!r} stands for {target!r}, which is not a known model")
            self._models[alias.lower()] = model

    @property
    def names(self) -> tuple[str, ...]:
        """Every name a model goes by, in lower case."""
        return tuple(self._models)

    def knows(self, name: str) -> bool:
        """Whether `find` finds it."""
        return name in self._models or _look_up(self._models, name) is not None

    def find(self, name: str) -> Model:
        """The model a caller means, case, vendor prefix and date ignored (spec MOD-2, MOD-6); refuses others."""
        # As it is first: nearly every call spells the name so, and to take it apart costs as much as its message does.
        model = self._models.get(name) or _look_up(self._models, name)
        if model is None:
            raise faults.Refusal(faults.MODEL_UNKNOWN, _hint(name))
        return model


def _look_up(models: Mapping[str, Model], name: str) -> Model | None:
    # The whole name first: a row or an alias may have a slash or a date of its own.
    name = name.lower()
    plain = name.rpartition("/")[2]
    dated = _DATED.fullmatch(plain)
    return models.get(name) or models.get(plain) or (models.get(dated[1]) if dated else None)


def _hint(name: str) -> str:
    """What the operator is told beside the name, which the line of the call says itself."""
    return DISTILLED if "-distill" in name.lower() else ""
