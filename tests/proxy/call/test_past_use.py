"""Claims about what budgets begin with: what the journal says of this month, by whoever used it, in its zone."""

from __future__ import annotations

import gzip
import random
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import orjson
import pytest

from proxy.call import past_use
from proxy.call.budgets import Budgets, PeriodUse
from proxy.metering import ledger, prices
from proxy.metering.prices import Prices
from tests.proxy.metering.records import closed, line, named, opened, upstream_call, used, written

SHANGHAI = ZoneInfo("Asia/Shanghai")
NOW = datetime(2026, 11, 22, 23, tzinfo=SHANGHAI)
# Two prices for all, from different days on, one for a key by its name, one by its fingerprint; of one model none.
PRICES = """zone = "Asia/Shanghai"
""" + "".join(
    f"""
[[callers]]
model = "{model}"
{only}
valid_from = {since}
currency = "CNY"
input = {price}
cached = 0.5
output = 2
"""
    for model, only, since, price in (
        ("deepseek-v3", "", "2026-01-01", 1),
        ("deepseek-v3", "", "2026-11-22T12:34:00", 3),
        ("deepseek-r1", 'key = "team a"', "2026-01-01", 5),
        ("deepseek-r1", 'key = "aaaaaaaaaaaa"', "2026-01-01", 7),
    )
)
MODELS = ("deepseek-v3", "deepseek-r1", "deepseek-v3.1")
# By fingerprint and name: one whose key was renewed, one that was renamed, some that have no name, or the other's.
KEYS = (
    *(("9f86d081884c", "team a"), ("0123456789ab", "team a"), ("0123456789ab", "team ä"), ("bbbbbbbbbbbb", 'te"am')),
    *(("aaaaaaaaaaaa", None), ("cccccccccccc", None), ("dddddddddddd", "cccccccccccc"), (None, None)),
)


@pytest.fixture(params=[True, False], ids=["money", "tokens"])
def priced(request: pytest.FixtureRequest, tmp_path: Path) -> Prices | None:
    (path := tmp_path / "prices.toml").write_text(PRICES)
    return prices.load(path) if request.param else None


def call(number: int, at: datetime, tokens: tuple[int, int] = (600, 400), **said: Any) -> tuple[bytes, bytes]:
    """Its two lines."""
    moment = f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%S.000Z}"
    facts = {"usage": used(*tokens), "generated": used(*tokens), "calls": [upstream_call(*tokens)], **said}
    begun = {name: said[name] for name in ("model", "key_id", "key_name") if name in said}
    return (
        written(opened(named(number), at=moment, **begun)),
        written(closed(named(number), at=moment, **facts)),
    )


def month(journal: Path, zone: tzinfo = SHANGHAI) -> past_use.Month:
    return past_use.month_of(journal, zone, NOW.timestamp())


def spent(kept: Budgets) -> dict[tuple[str, str], PeriodUse]:
    """What somebody may ask for now."""
    asked = ("2026-11-22", "2026-11")
    return {what: used for what, used in kept._spent.items() if what[1] in asked and (used.tokens or used.cost)}


def parsed(journal: Path, priced: Prices | None) -> tuple[Budgets, int]:
    """What it comes to where each call is counted as it is when it ends; and how many they are."""
    kept, read, records = Budgets(SHANGHAI, priced), month(journal), []
    ledger.read(read.files, span=read.span, each=lambda record, _: records.append(record))
    for record in records:
        kept.spend(record)
    return kept, len(records)


@pytest.mark.parametrize("seed", range(12))
def test_it_is_what_would_be_there_had_the_process_not_ended(tmp_path: Path, seed: int, priced: Prices | None) -> None:
    """Of any journal: calls of other months, in any order, twice there, cut off, and lines of somebody else."""
    chance = random.Random(seed)
    lines = []
    for number in range(1, 600):
        at = NOW - timedelta(minutes=chance.choice((chance.randrange(1300), chance.randrange(60 * 24 * 30))))
        key_id, key_name = chance.choice(KEYS[: chance.choice((4, 8))])
        tokens = chance.choice(((chance.randrange(900), chance.randrange(900)), (0, 0)))
        generated = used(tokens[0], tokens[1] + chance.randrange(2), None, chance.choice((None, 0, tokens[0] // 2)))
        said = {"usage": used(*tokens, None, chance.choice((None, tokens[0] // 3))), "generated": generated}
        begun, ended = call(number, at, tokens, model=chance.choice(MODELS), key_id=key_id, key_name=key_name, **said)
        if chance.random() < 0.1:
            # Turned away: it has no name.
            ended = line({**orjson.loads(ended), "call": None})
        if chance.random() < 0.1:
            ended = begun[: chance.randrange(1, 90)] + ended
        lines.append(begun)
        lines.insert(max(0, len(lines) - chance.randrange(20)), ended)
        lines += [ended] * (chance.random() < 0.05)
        lines += [chance.choice((b"no line\n", b"\n", b'{"ev":"close","key_id":1}\n'))] * (chance.random() < 0.02)
    begun_and_ended = call(600, NOW, key_id=KEYS[0][0], key_name=KEYS[0][1])
    third = len(lines) // 3
    (tmp_path / "calls.jsonl.2.gz").write_bytes(gzip.compress(b"".join(lines[:third])))
    (tmp_path / "calls.jsonl.1").write_bytes(b"".join(lines[third : 2 * third]))
    # The end of the last line may be missing.
    (tmp_path / "calls.jsonl").write_bytes(
        b"".join([*lines[2 * third :], *begun_and_ended])[: chance.choice((-1, None))]
    )
    read = past_use.count(kept := Budgets(SHANGHAI, priced), month(tmp_path / "calls.jsonl"), priced)
    others, calls = parsed(tmp_path / "calls.jsonl", priced)
    assert (spent(kept), read.calls) == (spent(others), calls)
    assert len(spent(kept)) > 10


def test_it_is_of_this_month_in_the_zone_of_its_days_and_of_each_call_once(tmp_path: Path) -> None:
    """LIM-1: rotated files too."""
    begun = datetime(2026, 11, 1, tzinfo=SHANGHAI)
    (tmp_path / "calls.jsonl.1").write_bytes(b"".join(call(1, begun - timedelta(seconds=1))))
    (tmp_path / "calls.jsonl").write_bytes(b"".join((*call(2, begun), call(2, begun)[1], call(3, begun)[0])))
    read = past_use.count(kept := Budgets(SHANGHAI, None), month(tmp_path / "calls.jsonl"), None)
    assert read.calls == 1
    assert spent(kept) == {
        (scope, "2026-11"): PeriodUse(1000) for scope in ("all", "key:9f86d081884c", "model:deepseek-v3")
    }
    assert month(tmp_path / "calls.jsonl").size_bytes == sum(file.stat().st_size for file in tmp_path.iterdir())


def test_two_keys_of_one_name_have_each_their_own(tmp_path: Path) -> None:
    """As the old and the new one of a caller; and a call that had no key is nobody's."""
    lines = [call(number, NOW, key_id=key_id) for number, key_id in enumerate(("9f86d081884c", "0123456789ab", None))]
    (tmp_path / "calls.jsonl").write_bytes(b"".join(one for both in lines for one in both))
    past_use.count(kept := Budgets(SHANGHAI, None), month(tmp_path / "calls.jsonl"), None)
    tokens = {scope: use.tokens for (scope, period), use in spent(kept).items() if period == "2026-11-22"}
    assert tokens.pop("key:None") == 1000
    assert tokens == {"all": 3000, "key:9f86d081884c": 1000, "key:0123456789ab": 1000, "model:deepseek-v3": 3000}
