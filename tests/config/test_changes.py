"""Claims about what a reload changes: each setting that may, none that may not, and never a mixture that is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from config import changes, models, settings, sources
from config.settings import Settings, SettingsError


def load(**flags: object) -> Settings:
    return sources.load({"upstream": ("http://a",), **flags}, None, {})


def test_nothing_is_nothing() -> None:
    assert changes.between(load(), load()) == []
    assert changes.settled(load(), load(heartbeat=3))[1] == []


def test_what_is_said_in_another_way_is_told_as_a_file_says_it() -> None:
    told = [*map(str, changes.between(load(), load(idle_timeout=3, keys_file=None, affinity="key")))]
    assert told == ['affinity: "off" -> "key"', "idle_timeout: 120 -> 3"]


def test_a_key_that_changes_is_told_and_not_shown() -> None:
    one, other = (
        sources.load({"upstream": ("http://a",)}, None, {"DASHSEEK_UPSTREAM_API_KEY": f"sk-{n}"}) for n in "ab"
    )
    assert [*map(str, changes.between(one, other))] == ["upstream_api_key: (secret) -> (secret)"]


def test_models_that_come_go_and_change_are_told() -> None:
    now, then = load(map=("one=a",)), load(map=("one=b", "two=b"))
    told = [str(change) for change in changes.between(now, then, models.load(now), models.load(then))]
    assert told[2:] == ["model one: a row -> another row", "model two: not set -> a row"]


def test_each_field_of_a_pool_and_each_entry_of_a_table_is_a_change_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("sk-canary")
    text = '[[pools]]\nname = "{}"\nurls = "http://{}"\n'
    before, after = tmp_path / "before.toml", tmp_path / "after.toml"
    kept = text.format("kept", "a") + "weight = {}\nmodels = ['*']\n"
    before.write_text('aliases = {x = "deepseek-v3"}\n' + kept.format(1) + text.format("old", "b"))
    after.write_text(
        'aliases = {x = "deepseek-r1", y = "deepseek-v3"}\n'
        + kept.format(3)
        + f'api_key_file = "{tmp_path / "key"}"\n'
        + text.format("new", "c")
    )
    now, then = (sources.load({}, str(file), {}) for file in (before, after))
    assert [*map(str, changes.between(now, then))] == [
        "pools.kept.api_key_file: not set -> " + f'"{tmp_path / "key"}"',
        "pools.kept.weight: 1 -> 3",
        "pools.kept.api_key: not set -> (secret)",
        'pools.old.name: "old" -> not set',
        'pools.old.urls: ["http://b"] -> not set',
        'pools.new.name: not set -> "new"',
        'pools.new.urls: not set -> ["http://c"]',
        'aliases.x: "deepseek-v3" -> "deepseek-r1"',
        'aliases.y: not set -> "deepseek-v3"',
        'auth: "passthrough" -> "any"',
    ]


def test_another_order_of_the_same_pools_is_told(tmp_path: Path) -> None:
    file, text = tmp_path / "c.toml", '[[pools]]\nname = "{0}"\nurls = "http://{0}"\n'
    loaded = []
    for order in ("ab", "ba"):
        file.write_text("".join(map(text.format, order)))
        loaded.append(sources.load({}, str(file), {}))
    assert [*map(str, changes.between(*loaded))] == ['pools: ["a", "b"] -> ["b", "a"]']


def test_what_cannot_change_stays_and_is_named() -> None:
    settled, left = changes.settled(load(port=8080), load(port=9, idle_timeout=3))
    assert left == ["port", "admin_port"]
    assert (settled.port, settled.admin_port, settled.idle_timeout) == (8080, 8081, 3)


def test_what_may_not_be_said_of_what_stays_is_refused() -> None:
    """`auth = none` is well on the loopback address of the file, and not on the address that is listened on."""
    now = load(host="0.0.0.0")
    with pytest.raises(SettingsError) as refused:
        changes.settled(now, load(host="127.0.0.1", auth="none"))
    assert "cannot change while the process runs" in refused.value.lines[0]


def test_a_key_of_a_file_is_read_again_with_what_stays(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("sk-a")
    now, then = (load(upstream_api_key_file=str(tmp_path / "key"), port=port) for port in (1, 2))
    settled, _ = changes.settled(now, then)
    assert settled.upstream_api_key is not None
    assert settled.upstream_api_key.get_secret_value() == "sk-a"


def test_every_setting_changes_or_is_named_as_one_that_stays() -> None:
    assert {*settings.NAMES} >= changes.FIXED
