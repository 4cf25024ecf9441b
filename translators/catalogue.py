"""A model's name as a caller writes it -> the `Model` it means."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from translators import faults
from translators.dialogue import Model


class Catalogue:
    """The models on offer, found by every name they go by.

    rows:    the models, each under its `id`
    aliases: further names and the model each stands for; an alias wins over a row of the same name (spec MOD-3)
    raises:  ValueError for an alias of a model that is not among the rows
    """

    def __init__(self, rows: Iterable[Model], aliases: Mapping[str, str] = {}) -> None:
        known = {row.id.lower(): row for row in rows}
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
        return _look_up(self._models, name) is not None

    def find(self, name: str) -> Model:
        """The model a caller means, case and vendor prefix ignored (spec MOD-2); refuses an unknown one."""
        model = _look_up(self._models, name)
        if model is None:
            raise faults.Refusal(faults.MODEL_UNKNOWN)
        return model


def _look_up(models: Mapping[str, Model], name: str) -> Model | None:
    # The whole name first: a row or an alias may have a slash of its own.
    name = name.lower()
    return models.get(name) or models.get(name.rpartition("/")[2])
