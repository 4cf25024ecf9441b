"""Claims about limits of a day and a month: what is used up is refused until midnight, and outlives a start."""

from __future__ import annotations

import asyncio
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import structlog.testing

from config import sources
from config.settings import SettingsError
from config.values import Limit, limit, toml
from proxy.admission import key_file, keyring, limits
from proxy.admission.keyring import Keyring
from proxy.admission.limits import Scope
from proxy.call import budgets
from proxy.call.budgets import Budgets, SharedBudgets
from proxy.metering import prices
from proxy.simulation.wire import Script
from tests import caller
from tests.conftest import StartSimulator
from tests.proxy.conftest import StartGateway
from tests.proxy.metering.records import closed, named, upstream_call, used
from translators.catalogue import Catalogue

SHANGHAI = ZoneInfo("Asia/Shanghai")
PRICES = """zone = "Asia/Shanghai"
[[callers]]
model = "*"
valid_from = 2026-01-01
currency = "CNY"
input = 1
cached = 0.5
output = 2
"""


def at(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def call(moment: str, tokens: tuple[int, int] = (600, 400), **said: Any) -> dict[str, Any]:
    facts = {"at": moment, "usage": used(*tokens), "generated": used(*tokens), "calls": [upstream_call(*tokens)]}
    return closed(named(1), **{**facts, **said})


class Clock:
    now = "2026-11-22T23:00:00+08:00"

    def __call__(self) -> float:
        return at(self.now)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.mark.parametrize(
    ("amounts", "spent", "retry_after"),
    [
        ({"tpd": 1000}, 1, "3600"),
        ({"tpd": 1001}, 1, None),
        ({"tpd": 1001}, 2, "3600"),
        ({"tokens_month": 2000}, 2, str(8 * 86400 + 3600)),
        ({"cost_day": "0.0028"}, 2, "3600"),
        ({"cost_month": "0.00280001"}, 2, None),
        ({"rpm": 60}, 9, None),
    ],
)
def test_a_call_is_let_in_while_something_is_left(
    clock: Clock, tmp_path: Path, amounts: dict[str, object], spent: int, retry_after: str | None
) -> None:
    """LIM-1: 429 Throttling.AllocationQuota, with the seconds until the period is over."""
    (path := tmp_path / "prices.toml").write_text(PRICES)
    kept = Budgets(SHANGHAI, prices.load(path), clock)
    parsed = limit(amounts)
    assert isinstance(parsed, Limit)
    scopes = [Scope("all", Limit()), Scope("key:9f86d081884c", parsed)]
    for _ in range(spent):
        kept.spend(call("2026-11-22T14:00:00.000Z"))
    fault = kept.refusal(scopes)
    assert (fault.retry_after if fault else None) == retry_after
    if fault is not None:
        assert (fault.status, fault.code) == (429, "Throttling.AllocationQuota")
    assert kept.refusal([Scope("key:another", parsed)]) is None


@pytest.mark.parametrize(
    ("name", "now", "left_s"),
    [
        ("tpd", "2026-11-22T00:00:00", 86_400),
        ("tpd", "2026-12-31T23:59:59.500", 1),
        ("tokens_month", "2026-11-30T23:59:59", 1),
        ("tokens_month", "2026-12-01T00:00:00", 31 * 86_400),
        ("tokens_month", "2027-01-31T12:00:00", 43_200),
        ("tokens_month", "2028-02-01T00:00:00", 29 * 86_400),
    ],
)
def test_a_period_ends_with_its_day_or_month(name: str, now: str, left_s: int) -> None:
    (asked,) = SharedBudgets(SHANGHAI, None, lambda: at(f"{now}+08:00")).demands([Scope("all", Limit(**{name: 1}))])
    assert asked.period_ms == -1_000 * left_s


# By key, or by all; what is not named has no price.
KEYED = """zone = "UTC"
[[callers]]
model = "deepseek-v3"
valid_from = 2026-01-01
currency = "CNY"
input = 1
cached = 0.5
output = 2
""" + "".join(
    f"""
[[callers]]
model = "deepseek-v3"
key = "{key}"
valid_from = 2026-01-01
currency = "CNY"
input = {price}
cached = {price}
output = {price}
"""
    for key, price in (("team a", 3), ("9f86d081884c", 4), ("-", 5))
)


@pytest.mark.parametrize("kind", [SharedBudgets, Budgets])
@pytest.mark.parametrize(
    ("said", "owed"),
    [
        ({}, "0.003"),
        ({"key_name": None}, "0.004"),
        ({"key_name": None, "key_id": None}, "0.005"),
        ({"key_name": "team b"}, "0.0014"),
        ({"key_name": "team b", "usage": used(600, 400, 0, 600)}, "0.0011"),
        ({"model": "deepseek-r1"}, "0"),
        ({"usage": used(0, 0), "generated": used(0, 0)}, "0"),
    ],
    ids=str,
)
def test_what_a_caller_owes_is_by_its_keys_name_or_id_or_what_all_pay(
    tmp_path: Path, kind: type[SharedBudgets], said: dict[str, Any], owed: str
) -> None:
    (path := tmp_path / "prices.toml").write_text(KEYED)
    before = kind(SHANGHAI, None)
    priced = before.under(prices.load(path))
    for one, cost in ((before, "0"), (priced, owed)):
        # In two minutes, and twice in the second.
        for minute in (14, 15, 15):
            assert one.spend(call(f"2026-11-22T{minute}:00:00.000Z", **said)) == Decimal(cost)


@pytest.mark.parametrize("kind", [SharedBudgets, Budgets])
def test_of_a_call_that_counts_nothing_under_a_limit_of_money_its_model_is_logged_once(
    tmp_path: Path, kind: type[SharedBudgets]
) -> None:
    """And its price is asked for anew where prices are read anew."""
    (path := tmp_path / "prices.toml").write_text(KEYED)
    kept = kind(SHANGHAI, prices.load(path))
    money, tokens = [Scope("all", Limit(cost_day=Decimal(1)))], [Scope("all", Limit(tpd=1, rpm=1))]
    ours, theirs = call("2026-11-22T14:00:00.000Z"), call("2026-11-22T14:00:00.000Z", model="deepseek-r1")
    for one, opening, scopes, said in (
        (kept, ours, money, []),
        (kept, theirs, tokens, []),
        (kept, theirs, money, ["deepseek-r1"]),
        (kept, theirs, money, []),
        (kept.under(prices.load(path)), theirs, money, ["deepseek-r1"]),
        (kind(SHANGHAI, None), theirs, money, []),
    ):
        with structlog.testing.capture_logs() as lines:
            one.note_unpriced(opening, scopes)
        assert lines == [{"event": "no_price", "log_level": "warning", "model": model} for model in said]


async def test_a_call_without_a_price_is_let_in_and_said(
    simulator: StartSimulator, gateway_before: StartGateway, tmp_path: Path
) -> None:
    (path := tmp_path / "prices.toml").write_text(PRICES.replace('"*"', '"deepseek-r1"'))
    upstream = await simulator(Script(text="hi there"))
    front = await gateway_before(upstream.url, prices_file=path, limits="cost_day=0.0000001")
    with structlog.testing.capture_logs() as lines:
        for _ in range(2):
            assert (await caller.ask(front.url, caller.call())).status == 200
            await front.end_of()
    assert [line["model"] for line in lines if line["event"] == "no_price"] == ["deepseek-v3"]


def test_of_a_call_that_used_nothing_nothing_is_kept(clock: Clock, tmp_path: Path) -> None:
    """Or whoever is refused with ever another key would fill the memory; what was delivered is owed in any case."""
    (path := tmp_path / "prices.toml").write_text(PRICES)
    kept = Budgets(SHANGHAI, prices.load(path), clock)
    kept.spend(call("2026-11-22T14:00:00.000Z", (0, 0)))
    assert kept._spent == {}
    kept.spend(call("2026-11-22T14:00:00.000Z", generated=used(0, 0)))
    assert kept._spent["all", "2026-11-22"] == budgets.PeriodUse(0, Decimal("0.0014"))


def test_the_day_is_that_of_the_zone_and_the_month_goes_on(clock: Clock) -> None:
    kept = Budgets(SHANGHAI, None, clock)
    # Half past midnight in Shanghai; the day before in UTC.
    kept.spend(call("2026-11-21T15:59:00.000Z"))
    kept.spend(call("2026-11-21T16:30:00.000Z"))
    day, month = Scope("all", Limit(tpd=1000)), Scope("all", Limit(tokens_month=2000))
    assert kept.refusal([day]) is not None
    clock.now = "2026-11-23T00:00:00+08:00"
    assert (kept.refusal([day]), kept.refusal([month]) is not None) == (None, True)
    clock.now = "2026-12-01T00:00:00+08:00"
    assert kept.refusal([day, month]) is None
    kept.spend(call("2026-11-30T16:00:00.000Z"))
    assert {period for _, period in kept._spent} == {"2026-12-01", "2026-12"}


def test_a_day_of_changed_clocks_ends_at_its_own_midnight() -> None:
    zone = ZoneInfo("Europe/Berlin")
    kept = Budgets(zone, None, lambda: at("2026-10-25T00:00:00+02:00"))
    kept.spend(call("2026-10-24T22:00:00.000Z"))
    fault = kept.refusal([Scope("all", Limit(tpd=1))])
    assert fault is not None
    assert fault.retry_after == str(25 * 3600)


def test_other_prices_hold_from_then_on_and_what_was_used_stays(clock: Clock, tmp_path: Path) -> None:
    (path := tmp_path / "prices.toml").write_text(PRICES)
    kept = Budgets(SHANGHAI, None, clock)
    kept.spend(call("2026-11-22T14:00:00.000Z"))
    later = kept.under(prices.load(path))
    later.spend(call("2026-11-22T14:00:00.000Z", key_name=None, usage=used(1000, 0, 0, 1000)))
    assert kept._spent["all", "2026-11"] == budgets.PeriodUse(2000, Decimal("0.0005"))


def test_a_limit_of_money_is_an_exact_amount_and_reads_as_it_is_written() -> None:
    read = limit("rpm=6 cost_day=12.50")
    assert read == Limit(rpm=6, cost_day=Decimal("12.50"))
    assert toml(read) == "{rpm = 6, cost_day = 12.50}"
    for wrong in ("cost_day=0", "cost_day=x", "cost_month=nan", "tpd=1.5"):
        with pytest.raises(ValueError, match="must be"):
            limit(wrong)


@pytest.mark.parametrize(("limit", "let_in"), [("tpd=10", 8), ("tpd=10 concurrency=3", 3), ("tpd=10 rpm=4", 4)])
async def test_all_calls_that_are_open_when_it_is_used_up_may_go_beyond_it(
    simulator: StartSimulator, gateway_before: StartGateway, limit: str, let_in: int
) -> None:
    """Nothing is reserved: as many as its other limits let in. The next is refused."""
    upstream = await simulator(Script(text="as many tokens as there are in all of these words", first_byte_delay_s=0.4))
    front = await gateway_before(upstream.url, limits=limit)
    answers = await asyncio.gather(*(caller.ask(front.url, caller.call()) for _ in range(8)))
    assert [answer.status for answer in answers].count(200) == let_in
    for _ in answers:
        await front.end_of()
    assert b"Throttling.AllocationQuota" in (await caller.ask(front.url, caller.call())).body


async def test_who_has_used_it_up_is_refused_and_a_restart_forgets_nothing(
    simulator: StartSimulator, gateway_before: StartGateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LIM-1, MET-3: over the wire, and from the journal."""
    monkeypatch.setenv("TZ", "UTC")
    upstream = await simulator(Script(text="hi there"))
    for first in (200, 429):
        front = await gateway_before(upstream.url, journal_file=tmp_path / "calls.jsonl", limits="tpd=1")
        for status in (first, 429):
            answer = await caller.ask(front.url, caller.call())
            assert answer.status == status, answer
            await front.end_of()
        assert b"Throttling.AllocationQuota" in answer.body
        assert 0 < int(answer.headers["Retry-After"]) <= 86400
    ends = [line for line in (tmp_path / "calls.jsonl").read_bytes().splitlines() if b'"close"' in line]
    assert [b"throttled" in line for line in ends] == [False, True, True, True]


@pytest.mark.parametrize(
    ("flags", "environ", "complaint"),
    [
        (
            {"limits": "tpd=5", "workers": "2"},
            {},
            "workers (--workers): each of several processes would allow the whole limit: say DASHSEEK_REDIS_URL",
        ),
        ({"model_limits": ("deepseek-v3=cost_month=5",)}, {}, "prices_file (default): limits of money"),
    ],
)
def test_what_processes_cannot_share_or_reckon_is_refused(
    flags: dict[str, Any], environ: dict[str, str], complaint: str
) -> None:
    with pytest.raises(SettingsError) as refused:
        sources.load(flags, None, environ)
    assert complaint in "\n".join(refused.value.lines)


def test_with_a_redis_workers_may_have_them() -> None:
    said = {"limits": "tpd=5", "key_limits": "tokens_month=9", "workers": "2"}
    assert sources.load(said, None, {"DASHSEEK_REDIS_URL": "redis://a"}).workers == 2


def test_what_is_asked_of_a_redis_names_the_period_and_what_is_left_of_it(clock: Clock) -> None:
    """LIM-1: a budget drains at midnight, and takes nothing beforehand; money is in whole units."""
    amounts = Limit(rpm=6, tpd=1000, tokens_month=2000, cost_day=Decimal("12.50"))
    asked = SharedBudgets(SHANGHAI, None, clock).demands([Scope("all", Limit(rpm=1)), Scope("key:a", amounts)])
    assert [(one.meter, one.kind, one.amount, one.period_ms, one.cost) for one in asked] == [
        ("key:a:tpd:2026-11-22", "tpd", 1000, -3_600_000, 0),
        ("key:a:tokens_month:2026-11", "tokens_month", 2000, -(8 * 24 + 1) * 3_600_000, 0),
        ("key:a:cost_day:2026-11-22", "cost_day", 125_000_000_000, -3_600_000, 0),
    ]
    assert Budgets(SHANGHAI, None, clock).demands([Scope("all", amounts)]) == ()
    ended = limits.changes(asked, 700, in_part=True, cost=Decimal("0.0028"))
    assert [change for _, change in ended] == [700, 700, 28_000_000]
    assert [change for _, change in limits.changes(asked, None)] == [0, 0, 0]


@pytest.mark.parametrize(
    ("kind", "said", "complaint"),
    [
        ("none", "tpd=5", "of a day or a month, need one process or DASHSEEK_REDIS_URL"),
        ("tokens", "cost_day=5", "of money, need a prices_file"),
        ("tokens", "tpd=5", None),
        ("money", "cost_day=5", None),
    ],
)
def test_the_keys_file_is_held_to_the_same(
    tmp_path: Path, kind: keyring.Budgeted, said: str, complaint: str | None
) -> None:
    """KEY-1: also when it is read anew."""
    key_file.add(path := tmp_path / "keys.toml", "team a", key_file.made(), limits=said)
    if complaint is None:
        assert Keyring(path, Catalogue([]), kind).has_budgets
        return
    with pytest.raises(SettingsError, match=complaint):
        Keyring(path, Catalogue([]), kind)
