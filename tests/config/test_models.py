"""Claims about the model table: what is shipped, what an operator changes, what is refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import get_args

import pytest

from config import models, settings, sources
from config.pools import DIALECTS
from translators import dialogue


def rows(**flags: object) -> dict[str, models.ModelRow]:
    return {row["id"]: row for row in models.load(sources.load(flags, None, {}))}


def complaints(**flags: object) -> tuple[str, ...]:
    with pytest.raises(settings.SettingsError) as refused:
        rows(**flags)
    return refused.value.lines


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    return tmp_path / "models.toml"


def test_a_row_is_field_for_field_the_model_of_the_vocabulary() -> None:
    """MOD-1; `config` may not import `translators`, so a test holds the two together."""
    assert list(models.ModelRow.__annotations__) == [field.name for field in dataclasses.fields(dialogue.Model)]
    assert get_args(models.Template) == get_args(dialogue.Template)
    for row in rows().values():
        assert dialogue.Model(**row).id == row["id"]


def test_the_shipped_names_are_those_of_the_specification() -> None:
    """MOD-1."""
    assert list(rows()) == [
        "deepseek-v3",
        "deepseek-v3.1",
        "deepseek-v3.2",
        "deepseek-v3.2-exp",
        "deepseek-r1",
        "deepseek-r1-0528",
        "deepseek-v4-flash",
        "deepseek-v4-pro",
        "deepseek-v4.1-flash",
    ]


@pytest.mark.parametrize(
    ("name", "thinking", "strict", "limits"),
    [
        ("deepseek-v3", "never", False, (131_072, 131_072, 0, 16_384)),
        ("deepseek-v3.1", "hybrid", True, (131_072, 98_304, 32_768, 65_536)),
        ("deepseek-v3.2", "hybrid", True, (131_072, 98_304, 32_768, 65_536)),
        ("deepseek-v3.2-exp", "hybrid", True, (131_072, 98_304, 32_768, 65_536)),
        ("deepseek-r1", "always", False, (131_072, 98_304, 32_768, 16_384)),
        ("deepseek-r1-0528", "always", False, (131_072, 98_304, 32_768, 16_384)),
        ("deepseek-v4-flash", "hybrid", False, (1_048_576, 917_504, 131_072, 393_216)),
        ("deepseek-v4-pro", "hybrid", False, (1_048_576, 917_504, 131_072, 393_216)),
        ("deepseek-v4.1-flash", "hybrid", False, (1_048_576, 1_000_000, 393_216, 393_216)),
    ],
)
def test_limits_and_thinking_are_those_bailian_publishes(
    name: str, thinking: str, strict: bool, limits: tuple[int, ...]
) -> None:
    """SOURCES#model-limits; PAR-14. Limits: context, input, chain, answer."""
    row = rows()[name]
    assert (row["thinking"], row["strict_thinking"]) == (thinking, strict)
    assert (row["context_tokens"], row["input_tokens"], row["chain_tokens"], row["answer_tokens"]) == limits


def test_what_sees_and_what_leaves_the_shelf_is_said_by_its_row() -> None:
    """MOD-1, HTTP-3; SOURCES#deepseek-models."""
    shipped = rows()
    assert {name for name, row in shipped.items() if row["sees"]} == {"deepseek-v4.1-flash"}
    assert {name for name, row in shipped.items() if row["path"] != "text"} == {"deepseek-v4.1-flash"}
    kept = {"deepseek-v4-flash", "deepseek-v4-pro", "deepseek-v4.1-flash"}
    assert {name for name, row in shipped.items() if row["retires"] is None} == kept
    assert {row["retires"] for row in shipped.values()} == {None, "2026-10"}


@pytest.mark.parametrize(
    ("said", "complaint"),
    [
        ('path = "audio"', "path: must be 'text', 'multimodal' or 'both'"),
        ("sees = 1.5", "sees: "),
        ('retires = "soon"', "retires: "),
        ('retires = "2026-13"', "retires: "),
    ],
)
def test_what_a_row_says_wrongly_of_path_sight_and_end_is_named(theirs: Path, said: str, complaint: str) -> None:
    """MOD-1."""
    theirs.write_text(f'[[model]]\nid = "deepseek-v3"\n{said}\n')
    assert any(complaint in line for line in complaints(models_file=str(theirs)))


def test_a_model_that_never_thinks_ignores_the_wish_as_shipped() -> None:
    """PAR-14: partner acceptance sends enable_thinking to deepseek-v3."""
    assert rows()["deepseek-v3"]["enable_thinking"] == "ignore"


def test_no_retired_name_goes_upstream() -> None:
    """SOURCES#deepseek-models: api.deepseek.com has switched these off."""
    sent = {model for row in rows().values() for model in row["upstream"].values()}
    assert not sent & {"deepseek-chat", "deepseek-reasoner"}
    assert {row["upstream"]["deepseek"] for row in rows().values()} == {"deepseek-flash", "deepseek-v4-pro"}


def test_the_template_counted_with_is_that_of_the_model_which_serves() -> None:
    """SOURCES#deepseek-models: deepseek-flash is V4.1, whatever the caller calls it."""
    shipped = rows()
    assert shipped["deepseek-v3.2"]["templates"] == {"deepseek": "v4.1"}
    assert shipped["deepseek-v4-pro"]["templates"] == {}
    assert rows(map=("deepseek-v4-pro=mine",))["deepseek-v4-pro"]["templates"] == {}
    assert rows(map=("deepseek-v3=deepseek-v4-pro",))["deepseek-v3"]["templates"]["deepseek"] == "v4"
    assert rows(map=("deepseek-v3=my-own",))["deepseek-v3"]["templates"] == {}


def test_a_mapped_name_has_the_given_id_in_every_dialect() -> None:
    """MOD-5."""
    row = rows(map=("DeepSeek-R1=my-r1",))["deepseek-r1"]
    assert row["upstream"] == dict.fromkeys(DIALECTS, "my-r1")
    assert row["thinking"] == "always"


def test_an_unknown_mapped_name_is_a_new_model_like_v3() -> None:
    """MOD-5."""
    table = rows(map=("house-model=smollm2",))
    like = {
        **table["deepseek-v3"],
        "id": "house-model",
        "retires": None,
        "upstream": dict.fromkeys(DIALECTS, "smollm2"),
    }
    assert table["house-model"] == {**like, "templates": {}}


@pytest.mark.parametrize("name", ["deepseek-r1-250120", "vendor/deepseek-r1-2025-05-28", "deepseek-r1-0120"])
def test_a_mapped_name_with_a_date_is_a_row_like_the_one_before_it(name: str) -> None:
    """MOD-5, MOD-6."""
    row = rows(map=(f"{name}=dated",))[name]
    assert (row["thinking"], row["upstream"]["deepseek"]) == ("always", "dated")


def test_a_row_may_have_further_names_which_a_mapped_one_is_like() -> None:
    """MOD-3, MOD-5: a row of that name then takes it from the other."""
    table = rows(map=("deepseek-flash=mine",), aliases=("flash=deepseek-flash-1017",))
    assert table["deepseek-v4.1-flash"]["aliases"] == ("deepseek-flash",)
    assert (table["deepseek-flash"]["template"], table["deepseek-flash"]["aliases"]) == ("v4.1", ())
    assert rows(map=("deepseek-v4.1-flash=mine",))["deepseek-v4.1-flash"]["aliases"] == ("deepseek-flash",)


def test_where_the_chain_is_looked_for_can_be_said_for_all_rows() -> None:
    """OUT-10."""
    assert {row["think_in_content"] for row in rows().values()} == {"auto"}
    assert {row["think_in_content"] for row in rows(think_in_content="yes").values()} == {"yes"}


def test_a_vendors_name_for_a_known_model_is_mapped_as_that_model() -> None:
    """MOD-2 finds `siliconflow/deepseek-r1` under the plain name; mapped apart, it stays a thinking model."""
    table = rows(map=("siliconflow/deepseek-r1=theirs",))
    assert table["siliconflow/deepseek-r1"]["thinking"] == "always"
    assert table["deepseek-r1"]["upstream"]["deepseek"] == "deepseek-flash"


def test_a_file_changes_a_known_row_where_it_says_so_and_adds_whole_ones(theirs: Path) -> None:
    theirs.write_text(
        """
        [templates]
        mine = "v3.2"
        [[model]]
        id = "DeepSeek-V3"
        enable_thinking = "refuse"
        [[model]]
        id = "house-model"
        thinking = "hybrid"
        context_tokens = 1000
        input_tokens = 900
        chain_tokens = 100
        answer_tokens = 100
        template = "v3"
        upstream = { vllm = "mine", sglang = "other" }
        """
    )
    table = rows(models_file=str(theirs))
    assert table["deepseek-v3"] == {**rows()["deepseek-v3"], "enable_thinking": "refuse"}
    assert table["house-model"]["templates"] == {"vllm": "v3.2"}
    assert not table["house-model"]["strict_thinking"]


def test_all_faults_of_a_file_and_the_aliases_are_told_at_once(theirs: Path) -> None:
    """MOD-3: an alias stands for a model there is."""
    theirs.write_text(
        """
        [[model]]
        id = "deepseek-r1"
        answer_tokens = true
        colour = "blue"
        upstream = { vlm = "x" }
        [[model]]
        id = "deepseek-v3"
        chain_tokens = 7
        [[model]]
        id = "deepseek-v3.1"
        answer_tokens = 200_000
        [[model]]
        thinking = "somewhat"
        """
    )
    told = complaints(models_file=str(theirs), aliases=("a=nothing", "b=vendor/deepseek-v3"))
    expected = [
        ("deepseek-r1", "answer_tokens: must be a whole number"),
        ("deepseek-r1", "colour: there is no such field"),
        ("deepseek-r1", f"upstream: goes by dialect: must be one of {', '.join(DIALECTS)}"),
        ("deepseek-v3", "chain_tokens is 0 on a model that never thinks, and on no other"),
        ("deepseek-v3.1", "no limit can be greater than context_tokens"),
        ("", "thinking: must be 'never', 'hybrid' or 'always'"),
        ("", "answer_tokens: is missing"),
    ]
    for name, wrong in expected:
        assert f"model {name} ({theirs}): {wrong}" in told
    assert told[-1] == "aliases.a (--alias): stands for a model that is not known"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("model = 3", "model: must be a list"),
        ("models = []", "models: there is no such field"),
        ('[templates]\nmine = "v9"', "templates.mine: must be 'v3'"),
        ("model", "is not TOML: "),
    ],
)
def test_a_file_of_another_form_is_refused(theirs: Path, text: str, told: str) -> None:
    theirs.write_text(text)
    (line,) = complaints(models_file=str(theirs))
    assert line.startswith(f"models_file ({theirs}): {told}")


def test_a_limit_of_a_model_that_is_not_known_is_a_slip() -> None:
    """LIM-1: it would never be reached."""
    told = complaints(model_limits=("deepsek-v3=rpm=1", "deepseek-r1=rpm=1"))
    assert told == ("model_limits.deepsek-v3 (--model-limit): there is no such model; did you mean deepseek-v3?",)
