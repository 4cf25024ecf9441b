"""Claims about `[[pools]]`: what an entry may say, where its key is, and what it leaves to the shorthand (POOL-1)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from config import changes, models, settings, sources

ENGINES = '[[pools]]\nname = "engines"\nurls = ["http://10.0.0.1:8000/v1"]\ndialect = "vllm"\n'
OFFICIAL = '[[pools]]\nname = "official"\nurls = "https://api.deepseek.com"\npriority = 1\n'


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "dashseek.toml"


def load(file: Path, text: str, environ: Mapping[str, str] = {}, **flags: object) -> settings.Settings:
    file.write_text(text)
    return sources.load(flags, str(file), environ, needs=("upstream",))


def complaints(file: Path, text: str, environ: Mapping[str, str] = {}, **flags: object) -> str:
    with pytest.raises(settings.SettingsError) as refused:
        models.load(load(file, text, environ, **flags))
    return "\n".join(refused.value.lines)


def test_an_upstream_alone_is_one_pool_without_a_name() -> None:
    chosen = sources.load({"upstream": ("http://a", "http://b"), "dialect": "vllm"}, None, {})
    (pool,) = chosen.pools_in_force
    assert (pool.name, pool.urls, pool.dialect, pool.spread) == ("", ("http://a", "http://b"), "vllm", "order")
    assert pool.serves("deepseek-v3")


def test_entries_are_the_pools(file: Path) -> None:
    chosen = load(file, ENGINES + 'models = ["deepseek-v3"]\nmax_in_flight = 8\n' + OFFICIAL)
    engines, official = chosen.pools_in_force
    assert (engines.max_in_flight, engines.priority, official.priority) == (8, 0, 1)
    assert engines.serves("deepseek-v3")
    assert not engines.serves("deepseek-r1")
    assert official.serves("deepseek-r1")


@pytest.mark.parametrize(
    ("flags", "environ", "as_"),
    [
        ({"upstream": ("http://a",)}, {}, "urls"),
        ({"dialect": "vllm"}, {}, "dialect"),
        ({"map": ("deepseek-v3=m",)}, {}, "map"),
        ({}, {"DASHSEEK_UPSTREAM_API_KEY": "sk-a"}, "api_key_env or api_key_file"),
    ],
)
def test_the_shorthand_beside_pools_is_refused_with_what_mends_it(
    file: Path, flags: dict[str, object], environ: dict[str, str], as_: str
) -> None:
    said = complaints(file, ENGINES, environ, **flags)
    assert f"is shorthand for one pool, and there are pools ({file}:1): say it in an entry [[pools]], as {as_}" in said


class TestKeys:
    def test_one_is_in_a_variable_even_if_that_looks_like_a_setting(self, file: Path) -> None:
        text = OFFICIAL + 'api_key_env = "DASHSEEK_UPSTREAM_API_KEY"\n'
        (pool,) = load(file, text, {"DASHSEEK_UPSTREAM_API_KEY": "sk-a"}).pools
        assert pool.api_key is not None
        assert pool.api_key.get_secret_value() == "sk-a"
        assert "sk-a" not in repr(pool) + str(pool.said())

    def test_one_is_in_a_file(self, file: Path, tmp_path: Path) -> None:
        (tmp_path / "key").write_text("sk-b\n")
        (pool,) = load(file, OFFICIAL + f'api_key_file = "{tmp_path / "key"}"\n').pools
        assert pool.api_key is not None
        assert pool.api_key.get_secret_value() == "sk-b"

    @pytest.mark.parametrize(
        ("said", "environ", "wrong"),
        [
            ('api_key = "sk-secret"', {}, "a secret does not belong here: say api_key_env, or api_key_file"),
            ('api_key_env = "NOWHERE"', {}, "that variable is not set, or is empty"),
            ('api_key_env = "K"\napi_key_file = "/etc/hosts"', {"K": "sk-secret"}, "has a key twice"),
            ('api_key_env = "K"', {"K": "sk secret"}, "must be printable ASCII without spaces"),
        ],
    )
    def test_what_is_no_key_is_a_complaint_without_it(
        self, file: Path, said: str, environ: dict[str, str], wrong: str
    ) -> None:
        told = complaints(file, OFFICIAL + said, environ)
        assert wrong in told
        assert "secret" not in told.replace("a secret does not belong", "")

    def test_with_a_key_of_ours_callers_need_none_of_the_upstreams(self, file: Path) -> None:
        chosen = load(file, OFFICIAL + 'api_key_env = "K"\n', {"K": "sk-a"})
        assert chosen.auth == "any"

    def test_callers_keys_and_ours_do_not_mix(self, file: Path) -> None:
        assert "a pool has one of ours" in complaints(
            file, OFFICIAL + 'api_key_env = "K"\n', {"K": "sk-a"}, auth="passthrough"
        )


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        (ENGINES + ENGINES, "two have the name engines"),
        (ENGINES.replace("engines", "a b"), "String should match pattern"),
        (ENGINES + "weight = 0", "must be greater than 0"),
        (ENGINES + "wait = 0", "there is no such field"),
        (ENGINES + 'headers = {Authorization = "Bearer x"}', "authorization is not to be said here"),
        (ENGINES + 'headers = {X-A = "a\\nb"}', "must be printable ASCII on one line"),
        (ENGINES + 'headers = {X-A = "(secret)"}', "X-A: (secret) stands for a value that is not printed"),
        (
            ENGINES.replace('v1"]', 'v1", "http://10.0.0.1:8000/v1"]'),
            "http://10.0.0.1:8000/v1 is there twice: say each URL once",
        ),
        (
            ENGINES.replace('v1"]', 'v1", "http://b", "http://10.0.0.1:8000/v1/"]'),
            "http://10.0.0.1:8000/v1 is there twice: say each URL once",
        ),
        (ENGINES + 'models = ["deepseek-v9"]', "pools.0.models"),
        (ENGINES + 'models = ["deepseek-r1"]\nmap = {deepseek-v3 = "x"}', "none of them serves deepseek-v3"),
        (ENGINES.replace("http://10.0.0.1", "dns+http://10.0.0.1"), "dns+ is for a name"),
        (ENGINES.replace("[[pools]]", "failover_on = [500]\n[[pools]]"), "must be of 429, 503, 529"),
    ],
)
def test_what_is_wrong_is_told(file: Path, text: str, wrong: str) -> None:
    assert wrong.replace("String should", "String must") in complaints(file, text).replace(
        "String should", "String must"
    )


def test_a_name_in_a_pools_map_is_a_model_and_has_its_id_there_alone(file: Path) -> None:
    text = ENGINES + 'map = {house-model = "hm", deepseek-v3 = "ds-v3"}\n' + OFFICIAL
    rows = {row["id"]: row for row in models.load(load(file, text))}
    assert rows["house-model"]["upstream"]["pool:engines"] == "hm"
    assert rows["deepseek-v3"]["upstream"]["pool:engines"] == "ds-v3"
    assert rows["deepseek-v3"]["upstream"]["deepseek"] != "ds-v3"
    assert rows["deepseek-v3"]["templates"]["pool:engines"] == rows["deepseek-v3"]["template"]


def test_what_no_pool_serves_is_not_on_offer(file: Path) -> None:
    text = ENGINES + 'models = ["deepseek-v3", "deepseek-r1"]\n'
    assert [row["id"] for row in models.load(load(file, text))] == ["deepseek-v3", "deepseek-r1"]
    assert "stands for a model that no pool serves" in complaints(file, 'aliases = {a = "deepseek-v3.1"}\n' + text)


def test_what_is_printed_can_be_read_again(file: Path) -> None:
    chosen = load(file, ENGINES + "max_in_flight = 8\n" + OFFICIAL)
    again = load(file, str(settings.shown(chosen, "pools")))
    assert again.pools == chosen.pools


def test_what_a_header_says_is_never_shown(file: Path) -> None:
    before = load(file, ENGINES + 'headers = {X-Api-Key = "sk-before"}\n')
    after = load(file, ENGINES + 'headers = {X-Api-Key = "sk-after"}\n')
    shown = str(settings.shown(before, "pools"))
    (change,) = changes.between(before, after)
    assert "X-Api-Key" in shown
    assert "X-Api-Key" in str(change)
    assert "sk-" not in shown + str(change)
    # It is refused where it is read again, not sent.
    assert "say the value itself" in complaints(file, shown)
