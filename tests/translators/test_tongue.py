"""Every caller's tongue is a module with the same names, so that the way of a call need not know which it is."""

from __future__ import annotations

import pytest

from translators.compatible import tongue as compatible
from translators.dashscope import multimodal
from translators.dashscope import tongue as dashscope
from translators.tongue import Tongue

# mypy holds each of them to the signatures.
TONGUES: dict[str, Tongue] = {"dashscope": dashscope, "multimodal": multimodal, "openai": compatible}


@pytest.mark.parametrize("name", TONGUES)
def test_a_tongue_has_every_name_and_offers_no_other(name: str) -> None:
    names = {one for one in vars(Tongue) if not one.startswith("_")}
    assert names == set(TONGUES[name].__all__)  # type: ignore[attr-defined]
