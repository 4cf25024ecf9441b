"""A caller's name for a model finds it, or is refused (spec MOD-2, MOD-3)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from translators import catalogue, faults
from translators.catalogue import Catalogue
from translators.dialogue import Model

V3 = Model("deepseek-v3", "never", 65_536, 57_344, 0, 8_192, "v3")
R1 = Model("deepseek-r1", "always", 131_072, 98_304, 32_768, 16_384, "r1")
HOSTED = Model("Acme/DeepSeek-V3", "never", 65_536, 57_344, 0, 8_192, "v3")


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("deepseek-v3", V3),
        ("DeepSeek-V3", V3),
        ("siliconflow/deepseek-v3", V3),
        ("deepseek-ai/DeepSeek-V3", V3),
        ("pre-x/deepseek-r1", R1),
        ("a/b/DEEPSEEK-R1", R1),
    ],
)
def test_case_and_vendor_prefix_are_ignored(name: str, model: Model) -> None:
    """MOD-2"""
    assert Catalogue([V3, R1]).find(name) is model


@pytest.mark.parametrize("name", ["", "/", "deepseek-v3/", "deepseek-v3-032", "qwen-turbo", "deepseek-v3 ", "-0324"])
def test_an_unknown_model_is_refused(name: str) -> None:
    """MOD-2"""
    with pytest.raises(faults.Refusal) as refusal:
        Catalogue([V3, R1]).find(name)
    assert refusal.value.fault == faults.Fault(400, "InvalidParameter", "Model not exist.")


@pytest.mark.parametrize("name", ["qwen-turbo", "Qwen-Turbo", "qwen/qwen-turbo"])
def test_an_alias_is_found_as_a_row_is(name: str) -> None:
    """MOD-3"""
    assert Catalogue([V3, R1], {"qwen-turbo": "deepseek-ai/DeepSeek-V3"}).find(name) is V3


def test_an_alias_wins_over_a_row_and_leaves_the_other_aliases_alone() -> None:
    """MOD-3"""
    catalogue = Catalogue([V3, R1], {"DeepSeek-V3": "deepseek-r1", "chat": "deepseek-v3"})
    assert (catalogue.find("deepseek-v3"), catalogue.find("chat")) == (R1, V3)


def test_an_alias_of_an_unknown_model_is_the_operators_mistake() -> None:
    """MOD-3"""
    with pytest.raises(ValueError, match=r"alias 'chat' stands for 'gpt-5', which is not a known model"):
        Catalogue([V3], {"chat": "gpt-5"})


def test_a_row_whose_id_has_a_slash_is_found_by_its_whole_id() -> None:
    """MOD-2"""
    catalogue = Catalogue([V3, HOSTED])
    assert catalogue.find("acme/deepseek-v3") is HOSTED
    assert catalogue.find("other/deepseek-v3") is V3


def test_it_knows_the_names_it_finds() -> None:
    catalogue = Catalogue([V3, R1], {"My-Alias": "deepseek-r1"})
    assert set(catalogue.names) == {"deepseek-v3", "deepseek-r1", "my-alias"}
    assert all(catalogue.knows(name) for name in ("MY-ALIAS", "vendor/deepseek-v3"))
    assert not catalogue.knows("nothing")


@pytest.mark.parametrize(
    "name", ["deepseek-v3-0324", "DeepSeek-V3-250324", "vendor/deepseek-v3-2025-03-24", "deepseek-chat-0731"]
)
def test_a_dated_name_is_the_model_before_the_date(name: str) -> None:
    """MOD-6"""
    assert Catalogue([V3, R1], {"deepseek-chat": "deepseek-v3"}).find(name) is V3


def test_a_row_of_a_dated_name_is_found_before_the_rule() -> None:
    """MOD-6: deepseek-r1-0528."""
    dated = replace(R1, id="deepseek-r1-0528")
    assert Catalogue([R1, dated]).find("deepseek-r1-0528") is dated


def test_a_row_goes_by_its_own_aliases_unless_another_row_is_named_so() -> None:
    """MOD-3"""
    named = replace(R1, aliases=("Thinker", "deepseek-v3"))
    catalogue = Catalogue([V3, named])
    assert (catalogue.find("thinker"), catalogue.find("deepseek-v3")) == (named, V3)


@pytest.mark.parametrize(("name", "cause"), [("qwen-flash", ""), ("deepseek-r1-distill-qwen-7b", catalogue.DISTILLED)])
def test_the_log_is_told_why_a_model_of_the_family_is_none_of_ours(name: str, cause: str) -> None:
    """The name itself is in the line of the call."""
    with pytest.raises(faults.Refusal) as refusal:
        Catalogue([V3]).find(name)
    assert refusal.value.cause == cause


def test_it_says_whether_any_model_sees() -> None:
    """REQ-11: only then may a body be as large as its images make it."""
    model = Model("m", "never", 9, 9, 0, 9, "v3")
    assert not Catalogue([model]).sees
    assert Catalogue([model, replace(model, id="n", sees=True)]).sees
