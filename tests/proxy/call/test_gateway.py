"""Claims about what a gateway is put together from, as an operator asks for it."""

from __future__ import annotations

import gzip
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import structlog.testing

import proxy.admission
from config import models, settings, sources
from proxy.admission import key_file
from proxy.admission.memory_limiter import MemoryLimiter
from proxy.call import budgets, gateway
from proxy.call.budgets import Budgets, SharedBudgets
from proxy.call.timeouts import BODY, TOKEN, CallTimeouts, Timeout
from proxy.metering import journal
from proxy.telemetry import metrics
from tests.conftest import ROOT, StartSimulator
from tests.proxy.metering.records import closed, named, opened, upstream_call, written

# What makes the two lines of a call.
LINES: tuple[tuple[Callable[..., dict[str, Any]], dict[str, Any]], ...] = (
    (opened, {}),
    (closed, {"calls": [upstream_call(3, 4)]}),
)


async def test_limits_are_in_memory_by_default() -> None:
    async with gateway.open_limiter(sources.load({}, None, {})) as limiter:
        assert isinstance(limiter, MemoryLimiter)


async def test_a_redis_without_its_client_is_a_wrong_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "redis", None)
    monkeypatch.delitem(sys.modules, "proxy.admission.redis_limiter", raising=False)
    monkeypatch.delattr(proxy.admission, "redis_limiter", raising=False)
    chosen = sources.load({}, None, {"DASHSEEK_REDIS_URL": "redis://127.0.0.1:1"})
    with pytest.raises(settings.SettingsError, match=r"pip install '\.\[redis\]'"):
        async with gateway.open_limiter(chosen):
            raise AssertionError


UPSTREAM = {"upstream": ("http://127.0.0.1:1",)}


def chosen_by(**said: object) -> settings.Settings:
    return sources.load({**UPSTREAM, **said}, None, {})


async def test_bounds_are_the_operators_and_a_reloads_hold_from_when_it_is_in_force() -> None:
    """REQ-11, ERR-5: for all that is open, too; until then nothing of them is."""
    before = chosen_by(max_open_bytes="40000000", max_body_bytes="30000", body_timeout=7, idle_timeout=9)
    after = chosen_by(max_open_bytes="50000000", max_body_bytes="20000", body_timeout=3, idle_timeout=9)

    def held(house: gateway.Gateway) -> tuple[int, int, float, float]:
        limits_s, bodies = house.open_calls.limits_s, house.open_bodies
        assert {*limits_s} == {*Timeout}
        return bodies.most_bytes, bodies.most_grown, limits_s[BODY], limits_s[TOKEN]

    async with gateway.open_gateway(before, models.load(before)) as one:
        assert one.latest.gateway is one
        assert held(one) == (40_000_000, 30_000, 7.0, 9.0)
        assert (one.reading._most_chars, one.reading._most_threads) == (40_000_000, 1)
        assert one.spans is None
        other = await gateway.successor(one, after, models.load(after))
        assert one.latest.gateway is one
        assert held(one) == held(other) == (40_000_000, 30_000, 7.0, 9.0)
        gateway.take_over(other)
        assert one.latest.gateway is other
        assert held(one) == held(other) == (50_000_000, 20_000, 3.0, 9.0)
        assert (other.settings, other.open_calls, other.journal) == (after, one.open_calls, one.journal)


@pytest.mark.parametrize(
    ("said", "read"),
    [
        ({"limits": "tpd=100"}, True),
        ({"key_limits": "tpd=100"}, True),
        ({"model_limits": {"deepseek-r1": "tpd=100"}}, True),
        ({"limits": "rpm=100 tpm=100"}, False),
        ({}, False),
        ({"limits": "tpd=100", "journal_file": None}, False),
        ({"limits": "tpd=100", "journal_file": "-"}, False),
        # Its directory was there when the settings were read.
        ({"limits": "tpd=100", "journal_file": "gone/calls.jsonl"}, False),
    ],
)
async def test_the_journal_is_read_for_what_was_used_where_a_limit_asks_for_it(
    tmp_path: Path, said: dict[str, object], read: bool
) -> None:
    """LIM-1: whatever it holds; and not at every start of who has no such limit."""
    file = said.get("journal_file", "calls.jsonl")
    journal = str(tmp_path / str(file)) if file not in {None, "-"} else file
    (tmp_path / "gone").mkdir()
    chosen = chosen_by(**{**said, "journal_file": journal})
    (tmp_path / "gone").rmdir()
    with structlog.testing.capture_logs() as lines:
        await gateway._budgets(chosen, None, None)
    assert [(line["event"], line["calls"]) for line in lines] == [("budgets_read", 0)] * read


def _packed_and_cut(text: bytes) -> bytes:
    return gzip.compress(text, 0)[:-700]


@pytest.mark.parametrize(
    ("name", "damaged", "told"),
    [
        ("calls.jsonl", bytes, ("info", 3, 0, 0)),
        ("calls.jsonl", lambda text: text + b'{"ev":"close","call":', ("warning", 3, 0, 1)),
        ("calls.jsonl", lambda text: text.replace(b"\n", b"\r\n"), ("info", 3, 0, 0)),
        ("calls.jsonl", lambda text: b"a line\n{}\n" + text, ("warning", 3, 2, 0)),
        ("calls.jsonl.1.gz", gzip.compress, ("info", 3, 0, 0)),
        ("calls.jsonl.1.gz", _packed_and_cut, ("warning", 2, 1, 0)),
    ],
    ids=["whole", "torn", "CRLF", "of somebody else", "packed", "cut"],
)
async def test_a_journal_that_is_damaged_makes_the_line_of_what_was_read_a_warning(
    tmp_path: Path, name: str, damaged: Callable[[bytes], bytes], told: tuple[str, int, int, int]
) -> None:
    """MET-2, LIM-1: budgets would be too low, and nobody knew."""
    at = journal.timestamp(time.time())
    lines = [written(one(named(number), at=at, **more)) for number in range(3) for one, more in LINES]
    (tmp_path / name).write_bytes(damaged(b"".join(lines)))
    chosen = chosen_by(limits="tpd=100", journal_file=str(tmp_path / "calls.jsonl"))
    with structlog.testing.capture_logs() as logged:
        await gateway._budgets(chosen, None, None)
    assert [tuple(line[field] for field in ("log_level", "calls", "broken", "torn")) for line in logged] == [told]


async def test_what_callers_owe_is_of_one_currency(tmp_path: Path) -> None:
    """A limit of money is in it."""
    prices = tmp_path / "prices.toml"
    row = (
        '[[callers]]\nmodel = "{}"\nvalid_from = 2026-01-01T00:00:00Z\nzone = "UTC"\ncurrency = "{}"\n'
        "input = 1.0\ncached = 1.0\noutput = 1.0\n"
    )
    for currency, refused in (("CNY", False), ("USD", True)):
        prices.write_text(row.format("deepseek-v3", "CNY") + row.format("deepseek-r1", currency))
        chosen = chosen_by(prices_file=str(prices))
        if refused:
            with pytest.raises(settings.SettingsError, match="several currencies"):
                budgets.prices_of(chosen)
        else:
            assert budgets.prices_of(chosen) is not None
    assert budgets.prices_of(chosen_by()) is None


ROW = """
[[{side}]]
model = "{model}"
valid_from = {since}
zone = "UTC"
currency = "CNY"
input = 1
cached = 1
output = 1
"""
EARLY, LATE = "2026-01-01", "2999-01-01"
MONEY = "cost_day=0.0000001"


def priced_by(tmp_path: Path, *rows: dict[str, str], **said: object) -> settings.Settings:
    text = "".join(ROW.format(**{"side": "callers", "model": "*", "since": EARLY, **row}) for row in rows)
    (tmp_path / "prices.toml").write_text(text)
    return chosen_by(prices_file=str(tmp_path / "prices.toml"), **said)


@pytest.mark.parametrize("said", [{"limits": MONEY}, {"key_limits": MONEY}, {"model_limits": {"deepseek-r1": MONEY}}])
async def test_a_limit_of_money_needs_what_callers_owe(tmp_path: Path, said: dict[str, object]) -> None:
    """Without a row of theirs no call could ever count."""
    unlimited = priced_by(tmp_path, {"side": "upstream"})
    assert budgets.prices_of(unlimited) is not None
    limited = priced_by(tmp_path, {"side": "upstream"}, **said)
    with pytest.raises(settings.SettingsError, match=r"^prices_file \(--prices-file\): .* need a row \[\[callers\]\]"):
        budgets.prices_of(limited)
    assert budgets.prices_of(priced_by(tmp_path, {}, **said)) is not None


@pytest.mark.parametrize(
    ("rows", "said", "unpriced"),
    [
        ([{}], {"limits": MONEY}, []),
        ([{"since": LATE}], {"limits": MONEY}, "all"),
        ([{"model": "deepseek-r1"}], {"limits": MONEY}, "all but deepseek-r1"),
        ([{"since": LATE}], {"limits": "rpm=60 tpd=100"}, []),
        ([{"since": LATE}], {"model_limits": {"deepseek-r1": MONEY}}, ["deepseek-r1"]),
        # Without a key there is no allowance of one.
        ([{"since": LATE}], {"key_limits": MONEY, "auth": "passthrough"}, "all"),
        ([{"since": LATE}], {"key_limits": MONEY, "auth": "none"}, []),
        # A price for others than those who may call.
        ([{"model": '*"\nkey = "team b'}], {"limits": MONEY}, "all"),
    ],
)
async def test_models_that_cost_nothing_under_a_limit_of_money_are_named_at_the_start_and_at_a_reload(
    tmp_path: Path, rows: list[dict[str, str]], said: dict[str, object], unpriced: str | list[str]
) -> None:
    chosen = priced_by(tmp_path, *rows, **said)
    every = sorted(row["id"] for row in models.load(chosen))
    if isinstance(unpriced, str):
        unpriced = [model for model in every if model != unpriced.removeprefix("all but ")]
    with structlog.testing.capture_logs() as lines:
        async with gateway.open_gateway(chosen, models.load(chosen)) as one:
            gateway.take_over(await gateway.successor(one, chosen, models.load(chosen)))
    told = [(line["log_level"], line["models"]) for line in lines if line["event"] == "models_without_price"]
    assert told == [("warning", unpriced)] * 2 * bool(unpriced)


@pytest.mark.parametrize(
    ("keys", "unpriced"),
    [
        ([("team a", ["deepseek-v3"], MONEY)], []),
        ([("team a", ["deepseek-r1"], MONEY)], ["deepseek-r1"]),
        ([("team a", ["deepseek-r1"], "rpm=6")], []),
        ([("team b", ["deepseek-v3"], MONEY)], ["deepseek-v3"]),
        ([("team a", ["deepseek-v3"], MONEY), ("team b", ["deepseek-v3"], MONEY)], ["deepseek-v3"]),
    ],
)
async def test_of_callers_we_know_it_is_what_they_may_ask_for_by_their_own_limits_and_prices(
    tmp_path: Path, keys: list[tuple[str, list[str], str]], unpriced: list[str]
) -> None:
    for name, asked, limit in keys:
        key_file.add(tmp_path / "keys.toml", name, key_file.made(), models=asked, limits=limit)
    (tmp_path / "upstream.key").write_text("sk-ours")
    own = {"keys_file": str(tmp_path / "keys.toml"), "upstream_api_key_file": str(tmp_path / "upstream.key")}
    chosen = priced_by(tmp_path, {"model": 'deepseek-v3"\nkey = "team a'}, **own)
    with structlog.testing.capture_logs() as lines:
        async with gateway.open_gateway(chosen, models.load(chosen)):
            pass
    assert [line["models"] for line in lines if line["event"] == "models_without_price"] == [unpriced] * bool(unpriced)


async def test_what_is_kept_fresh_is_that_of_the_configuration_in_force_and_ends_with_the_gateway(
    simulator: StartSimulator, tmp_path: Path
) -> None:
    keys, ours = tmp_path / "keys.toml", tmp_path / "upstream.key"
    keys.write_text(f'[[key]]\nname = "team a"\nsha256 = "{"0" * 64}"\n')
    ours.write_text("sk-ours")
    upstream = await simulator()
    said = {"upstream": (upstream.url,), "keys_file": str(keys), "upstream_api_key_file": str(ours)}
    chosen = chosen_by(**said)

    def follows(house: gateway.Gateway) -> tuple[int, bool]:
        assert house.keyring is not None
        return len(house.upstreams._tasks), house.keyring._watching is not None

    async with gateway.open_gateway(chosen, models.load(chosen)) as one:
        assert follows(one) == (1, True)
        gauges = one.gauges()
        assert [gauges[row]() for row in (metrics.RELOADED, metrics.REFUSED)] == [{(): 0.0}] * 2
        other = await gateway.successor(one, chosen, models.load(chosen))
        assert (follows(one), follows(other)) == ((1, True), (0, False))
        gateway.take_over(other)
        assert (follows(one), follows(other)) == ((0, False), (1, True))
        (target,) = other.upstreams.targets
        await other.upstreams.connections.connect(target.place, 10)
        assert one.upstreams.connections.acquired == 1
        with CallTimeouts(BODY, one.open_calls, one.loop, one.loop.time()):
            assert one.open_calls._handle is not None
    assert follows(other) == (0, False)
    assert one.upstreams.connections.acquired == 0
    assert one.open_calls._handle is None


async def test_a_configuration_whose_certificates_cannot_be_read_is_none(tmp_path: Path) -> None:
    (believed := tmp_path / "ca.pem").write_bytes((ROOT / "tests/config/ca.pem").read_bytes())
    before, after = chosen_by(), chosen_by(upstream=("https://127.0.0.1:1",), upstream_ca_file=str(believed))
    async with gateway.open_gateway(before, models.load(before)) as one:
        assert (await gateway.successor(one, after, models.load(after))).upstreams._trusts
        believed.write_bytes(b"none")
        with pytest.raises(settings.SettingsError, match="the configuration cannot be used: SSLError"):
            await gateway.successor(one, after, models.load(after))


@pytest.mark.parametrize(
    ("limit", "chosen", "environ", "complaint"),
    [
        ("tpd=5", {}, {}, None),
        ("tpd=5", {"workers": "2"}, {}, "need one process or DASHSEEK_REDIS_URL"),
        ("tpd=5", {"workers": "2"}, {"DASHSEEK_REDIS_URL": "redis://a"}, None),
        ("tpd=5", {}, {"DASHSEEK_REDIS_URL": "redis://a"}, None),
        ("rpm=5", {"workers": "2"}, {}, None),
        ("cost_day=5", {}, {}, "need a prices_file"),
        ("cost_day=5", {"prices_file": "prices.toml"}, {}, None),
        ("cost_day=5", {"prices_file": "upstream.toml"}, {}, r"need a prices_file with \[\[callers\]\]"),
    ],
)
async def test_what_a_key_may_use_in_a_day_must_be_reckoned_by_somebody(
    tmp_path: Path, limit: str, chosen: dict[str, str], environ: dict[str, str], complaint: str | None
) -> None:
    """KEY-1, LIM-1; the journal is read for it, or the Redis asked."""
    keys, ours = tmp_path / "keys.toml", tmp_path / "upstream.key"
    keys.write_text(f'[[key]]\nname = "team a"\nsha256 = "{"0" * 64}"\nlimits = "{limit}"\n')
    ours.write_text("sk-ours")
    for file, side in (("prices.toml", "callers"), ("upstream.toml", "upstream")):
        (tmp_path / file).write_text(ROW.format(side=side, model="*", since=EARLY))
    files = {name: str(tmp_path / value) if name == "prices_file" else value for name, value in chosen.items()}
    said = {**UPSTREAM, "keys_file": str(keys), "upstream_api_key_file": str(ours), **files}
    read = sources.load({**said, "journal_file": str(tmp_path / "calls.jsonl")}, None, environ)
    catalogue = gateway.catalogue_of(read, models.load(read))
    priced = budgets.prices_of(read)
    if complaint is not None:
        with pytest.raises(settings.SettingsError, match=complaint):
            gateway._keyring(read, catalogue, priced)
        return
    keyring = gateway._keyring(read, catalogue, priced)
    with structlog.testing.capture_logs() as lines:
        used = await gateway._budgets(read, keyring, priced)
    is_shared = "DASHSEEK_REDIS_URL" in environ
    assert type(used) is (SharedBudgets if is_shared else Budgets)
    assert len(lines) == (limit != "rpm=5" and not is_shared)
    assert gateway._keyring(chosen_by(), catalogue, None) is None


async def test_a_zone_or_prices_that_mean_nothing_are_a_wrong_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (prices := tmp_path / "prices.toml").write_text("[[callers]]\n")
    chosen = chosen_by(prices_file=str(prices))
    with pytest.raises(settings.SettingsError, match=r"prices_file \(--prices-file\): "):
        budgets.prices_of(chosen)
    prices.unlink()
    with pytest.raises(settings.SettingsError, match=r"prices_file \(--prices-file\): "):
        budgets.prices_of(chosen)
    monkeypatch.setenv("TZ", "Nowhere/Else")
    with pytest.raises(settings.SettingsError, match="TZ: Nowhere/Else: no such zone"):
        await gateway._budgets(chosen_by(), None, None)


async def test_traces_without_their_extra_are_a_wrong_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "proxy.telemetry.spans", None)
    monkeypatch.delattr("proxy.telemetry.spans", raising=False)
    chosen = chosen_by(tracing="otlp")
    with pytest.raises(
        settings.SettingsError, match=r"tracing \(--tracing\): needs OpenTelemetry: pip install '\.\[otel\]'"
    ):
        async with gateway.open_gateway(chosen, models.load(chosen)):
            raise AssertionError


async def test_a_model_is_in_a_pool_what_its_map_says_and_elsewhere_as_it_is(tmp_path: Path) -> None:
    """MOD-5."""
    (file := tmp_path / "pools.toml").write_text(
        '[[pools]]\nname = "p"\nurls = ["http://127.0.0.1:1"]\ndialect = "vllm"\nmap = {"deepseek-v3" = "mine"}\n'
        '[[pools]]\nname = "q"\nurls = ["http://127.0.0.1:2"]\n'
    )
    chosen = sources.load({}, str(file), {})
    async with gateway.open_gateway(chosen, models.load(chosen)) as one:
        mapped, plain = one.upstreams.pools
        v3, r1 = map(one.catalogue.find, ("deepseek-v3", "deepseek-r1"))
        assert [one.model_of(plain, model) is model for model in (v3, r1)] == [True, True]
        assert one.model_of(mapped, r1) is r1
        assert one.model_of(mapped, v3) is one.model_of(mapped, v3) is not v3
        assert (one.upstream_model(mapped, v3), one.upstream_model(mapped, r1)) == ("mine", "deepseek-r1")
        assert one.upstream_model(plain, v3) != "mine"
        assert (one.dialect_of(mapped).name, one.dialect_of(plain).name) == ("vllm", "deepseek")
