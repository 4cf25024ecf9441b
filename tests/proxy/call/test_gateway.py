"""Claims about what a gateway is put together from, as an operator asks for it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import structlog.testing

import proxy.admission
from config import models, settings, sources
from proxy.admission.memory_limiter import MemoryLimiter
from proxy.call import gateway
from proxy.call.timeouts import BODY, TOKEN, Timeout


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
        await gateway._budgets(chosen, None)
    assert [(line["event"], line["calls"]) for line in lines] == [("budgets_read", 0)] * read


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
                gateway._prices(chosen)
        else:
            assert gateway._prices(chosen) is not None
    assert gateway._prices(chosen_by()) is None
