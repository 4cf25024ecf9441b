"""The models there are, as clients of the OpenAI protocol read them (spec COM-29)."""

from __future__ import annotations

from collections.abc import Sequence

import orjson

from translators.compatible.shapes import Model, Models


def models(names: Sequence[str]) -> bytes:
    """All of them."""
    shown: Models = {"object": "list", "data": [_row(name) for name in names]}
    return orjson.dumps(shown)


def model(name: str) -> bytes:
    """One, under the name that was asked for."""
    return orjson.dumps(_row(name))


def _row(name: str) -> Model:
    return {"id": name, "object": "model", "created": 0, "owned_by": "deepseek"}
