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
            ('api_key_env = "NOWHERE"', {}, "official.api_key_env ({file}:5): NOWHERE is not set, or is empty"),
            (
                'api_key_env = "K"\napi_key_file = "/etc/hosts"',
                {"K": "sk-secret"},
                "official.api_key_file ({file}:6): a key is said twice",
            ),
            ('api_key_env = "K"', {"K": "sk secret"}, "must be printable ASCII without spaces"),
        ],
    )
    def test_what_is_no_key_is_a_complaint_without_it(
        self, file: Path, said: str, environ: dict[str, str], wrong: str
    ) -> None:
        told = complaints(file, OFFICIAL + said, environ)
        assert wrong.replace("{file}", str(file)) in told
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
        (ENGINES + ENGINES, "pools.engines.name ({file}:6): another pool has that name"),
        (ENGINES.replace("engines", "a b"), "pools.#1.name ({file}:2): must be a name of 1 to 32 letters"),
        (OFFICIAL + ENGINES + "weight = -1", "pools.engines.weight ({file}:9): must be greater than 0"),
        (OFFICIAL + ENGINES + 'weight = "much"', "pools.engines.weight ({file}:9): must be a number"),
        (OFFICIAL + ENGINES.replace("name", "nom"), "pools.#2.name ({file}:5): is missing"),
        (
            OFFICIAL + ENGINES.replace("name", "nam"),
            "pools.#2.nam ({file}:6): there is no such field; did you mean name?",
        ),
        (ENGINES + "wieght = 2", "there is no such field; did you mean weight?"),
        (ENGINES + '\naffinity = "key"\n' + OFFICIAL, "pools.engines.affinity ({file}:6): is a setting of the whole"),
        (ENGINES + 'upstream = "http://a"', "pools.engines.upstream ({file}:5): is shorthand for a pool: in an entry"),
        ("weight = 2\n" + ENGINES, "weight ({file}:1): belongs to a pool: say it below the line [[pools]] of one"),
        (OFFICIAL + '[pools.headers]\nHost = "a"', "pools.official.headers ({file}:5): host is not to be said here"),
        (OFFICIAL + 'api_key_file = "/run/no/key"', "({file}:5): is not a file: nothing is at /run/no/key"),
        (OFFICIAL + 'api_key_file = "/run"', "pools.official.api_key_file ({file}:5): is not a file: /run"),
        (OFFICIAL + 'api_key_file = "sk-key"', "pools.official.api_key_file ({file}:5): is not a file"),
        (OFFICIAL + 'api_key_file = "/etc/hosts"', "({file}:5): must be printable ASCII without spaces"),
        (ENGINES.replace("[[pools]]", "[pools]"), "pools ({file}:1): must be a list of entries, each below a line"),
        ("pools = [3]", "pools ({file}:1): must be a list of entries"),
        # An entry of another list has no name.
        ('failover_on = [429, "x"]\n' + ENGINES, "failover_on.#2 ({file}:1): must be a whole number"),
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
        (ENGINES + 'models = ["deepseek-v9"]', "pools.engines.models ({file}:5): there is no model"),
        (ENGINES + 'models = ["deepseek-r1"]\nmap = {deepseek-v3 = "x"}', "engines.map ({file}:6): deepseek-v3 is not"),
        (ENGINES.replace("http://10.0.0.1", "dns+http://10.0.0.1"), "dns+ is for a name"),
        (ENGINES.replace("[[pools]]", "failover_on = [500]\n[[pools]]"), "must be of 429, 503, 529"),
    ],
)
def test_what_is_wrong_is_told(file: Path, text: str, wrong: str) -> None:
    assert wrong.replace("{file}", str(file)) in complaints(file, text)


def test_what_may_be_a_key_is_repeated_nowhere(file: Path) -> None:
    for said in ('api_key_file = "skcanary"', 'api_key_env = "skcanary"', 'api_key = "skcanary"', 'urls = "skcanary"'):
        text = ENGINES.replace("urls", "#") if said.startswith("urls") else ENGINES
        assert "canary" not in complaints(file, f"{text}\n{said}\n")


def test_a_line_in_a_list_over_several_is_none_of_a_field(file: Path) -> None:
    text = 'pools = [\n  {name = "a", urls = "http://a"},\n  {name = "b", urls = "http://b", weight = 0},\n]\n'
    assert f"pools.b.weight ({file}:1): must be greater than 0" in complaints(file, text)


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


def test_several_processes_divide_what_all_may_have_on_their_way(file: Path) -> None:
    """POOL-2: never above `max_in_flight`, whichever worker a call comes to."""
    chosen = load(file, ENGINES + "max_in_flight = 7\n" + OFFICIAL, workers=3)
    parts = [[pool.max_in_flight for pool in chosen.of_worker(number).pools_in_force] for number in (1, 2, 3)]
    assert parts == [[3, None], [2, None], [2, None]]
    said = complaints(file, ENGINES + "max_in_flight = 2\n", workers=3)
    assert "max_in_flight = 2 of the pool engines" in said
    assert "--workers 2 at most" in said
