"""Claims about sums: any journal, in any zone, at any prices, adds up to what an independent summing makes of it."""

from __future__ import annotations

import csv
import gzip
import io
import itertools
from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from fractions import Fraction
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.commands import cli
from proxy.metering import ledger, totals
from proxy.metering.periods import Span
from proxy.metering.totals import Group, Sums, Totals, figures
from tests.proxy.metering.records import Json, closed, line, named, opened, upstream_call, used, written

# Moments at which something changes: clocks, months, years, prices and their windows.
EDGES = [
    datetime(2026, 3, 29, 1, tzinfo=UTC),
    datetime(2026, 10, 25, 1, tzinfo=UTC),
    datetime(2026, 11, 1, 6, tzinfo=UTC),
    datetime(2026, 10, 31, 16, tzinfo=UTC),
    datetime(2026, 12, 31, 23, 30, tzinfo=UTC),
    datetime(2026, 9, 10, 4, tzinfo=UTC),
    datetime(2026, 9, 30, 1, tzinfo=UTC),
    datetime(2026, 10, 1, 1, tzinfo=UTC),
]
ZONES = ["UTC", "Asia/Shanghai", "Europe/Berlin", "America/New_York", "Asia/Kathmandu", "Australia/Lord_Howe"]
GRAINS = {"hour": "%Y-%m-%dT%H", "day": "%Y-%m-%d", "month": "%Y-%m"}

PRICES = """zone = "Asia/Shanghai"
[[callers]]
model = "*"
valid_from = 2020-01-01
currency = "CNY"
input = 3
cached = 0.7
output = 12.000000007
[[callers]]
model = "m1"
key = "team a"
valid_from = 2026-10-25T01:30:00Z
currency = "CNY"
input = 1
cached = 0
output = 2
[[upstream]]
model = "u0"
valid_from = 2020-01-01
currency = "CNY"
input = 2
cached = 0.2
output = 8
[[upstream]]
model = "u0"
valid_from = 2026-09-10T12:00:00
currency = "CNY"
input = 1
cached = 0.003
output = 4
[[upstream.windows]]
days = "mon-fri"
hours = ["09:00-12:00", "23:00-01:00"]
holidays = [2026-10-01]
factor = 2
[[upstream]]
model = "u1"
valid_from = 2020-01-01
currency = "USD"
input = 1
cached = 1
output = 1
"""


def owed_rates(record: Json, moment: datetime) -> tuple[Fraction, ...]:
    if (
        record["model"] == "m1"
        and record["key_name"] == "team a"
        and moment >= datetime(2026, 10, 25, 1, 30, tzinfo=UTC)
    ):
        return Fraction(1), Fraction(0), Fraction(2)
    return Fraction(3), Fraction(7, 10), Fraction("12.000000007")


def taken_rates(record: Json, moment: datetime) -> tuple[Fraction, ...]:
    if record["upstream_model"] == "u1":
        return Fraction(1), Fraction(1), Fraction(1)
    if moment < datetime(2026, 9, 10, 4, tzinfo=UTC):
        return Fraction(2), Fraction(1, 5), Fraction(8)
    local = moment.astimezone(ZoneInfo("Asia/Shanghai"))
    # The day a window began on, and whether the hour lies in one.
    began = (local - timedelta(hours=1)).date() if local.hour == 0 else local.date()
    is_window = local.hour in {0, 9, 10, 11, 23} and began.weekday() < 5 and began != date(2026, 10, 1)
    factor = 2 if is_window else 1
    return Fraction(factor), Fraction(3 * factor, 1000), Fraction(4 * factor)


def worth(rates: tuple[Fraction, ...], tokens: Json) -> Fraction:
    cached = tokens["prompt_tokens_details"]["cached_tokens"]
    figures = (tokens["input_tokens"] - cached, cached, tokens["output_tokens"])
    return sum((rate * figure for rate, figure in zip(rates, figures, strict=True)), Fraction(0)) / 10**6


@st.composite
def calls(draw: st.DrawFn) -> list[Json]:
    """Any calls, most of them near a moment at which something changes."""
    records = []
    for number in range(draw(st.integers(1, 25))):
        moment = draw(st.sampled_from(EDGES)) + timedelta(minutes=draw(st.integers(-200, 200)))
        shown, made = (
            used(cached + draw(st.integers(0, 10**6)), output, draw(st.integers(0, output)), cached)
            for cached, output in [(draw(st.integers(0, 10**6)), draw(st.integers(0, 10**6))) for _ in range(2)]
        )
        several = draw(st.sampled_from([0, 1, 1, 1, 3]))
        models = draw(st.sampled_from([("m0", "u0"), ("m1", "u0"), ("m1", "u1")]))
        record = closed(
            named(0xFE + number),
            at=moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            model=models[0],
            upstream_model=models[1],
            key_name=draw(st.sampled_from(["team a", "team b", None])),
            outcome="client_gone_mid_stream",
            usage=shown,
            generated=draw(st.sampled_from([shown, made])),
        )
        record["calls"] = [upstream_call(None, 1) for _ in range(several)]
        records.append(record)
    return records


def files(data: st.DataObject, home: Path, records: list[Json]) -> list[Path]:
    """The calls' lines in several files, in any order, cut anywhere, packed, doubled, with torn lines between."""
    lines = [wire for record in records for wire in (written(_opening(record)), written(record))]
    lines = data.draw(st.permutations(lines)) if data.draw(st.booleans()) else lines
    edges = sorted(data.draw(st.lists(st.integers(0, len(lines)), max_size=3)))
    paths = []
    for number, (begin, end) in enumerate(itertools.pairwise([0, *edges, len(lines)])):
        content = b"".join(lines[begin:end])
        if data.draw(st.booleans()):
            content += lines[0][: data.draw(st.integers(1, 60))]
        for is_packed in data.draw(st.sampled_from([[False], [True], [False, True]])):
            path = home / f"usage.jsonl.{number}{'.gz' if is_packed else ''}"
            path.write_bytes(gzip.compress(content) if is_packed else content)
            paths.append(path)
    return list(data.draw(st.permutations(paths)))


def _opening(record: Json) -> Json:
    return {name: record[name] for name in opened(None)} | {"ev": "open"}


def summed(records: Iterable[Json], zone: str, grain: str) -> dict[tuple[str, str, str], dict[str, Any]]:
    """As simply as can be, call by call, in fractions."""
    groups: dict[tuple[str, str, str], dict[str, Any]] = {}
    for record in records:
        moment = datetime.fromisoformat(record["at"])
        local = moment.astimezone(ZoneInfo(zone))
        period = local.strftime(GRAINS[grain]) + (local.isoformat()[19:] if grain == "hour" else "")
        key = record["key_name"] or record["key_id"]
        row = groups.setdefault((period, key, record["model"]), {})
        sums: dict[str, Any] = {"calls": 1, "upstream_calls": len(record["calls"])}
        for side, usage in (("", "usage"), ("generated_", "generated")):
            sums[f"{side}input"] = record[usage]["input_tokens"]
            sums[f"{side}output"] = record[usage]["output_tokens"]
            sums[f"{side}cached"] = record[usage]["prompt_tokens_details"]["cached_tokens"]
            sums[f"{side}reasoning"] = record[usage]["output_tokens_details"]["reasoning_tokens"]
        sums["total"] = sums["input"] + sums["output"]
        taken = worth(taken_rates(record, moment), record["generated"])
        sums["revenue_CNY"] = worth(owed_rates(record, moment), record["usage"])
        sums["cost_CNY"] = taken if record["upstream_model"] == "u0" else 0
        sums["cost_USD"] = taken if record["upstream_model"] == "u1" else 0
        sums["margin_CNY"] = sums["revenue_CNY"] - sums["cost_CNY"]
        for name, amount in sums.items():
            row[name] = row.get(name, 0) + amount
    return groups


@settings(max_examples=120)
@given(data=st.data(), records=calls(), zone=st.sampled_from(ZONES), grain=st.sampled_from([*GRAINS]))
def test_any_journal_adds_up_to_what_an_independent_summing_makes_of_it(
    data: st.DataObject,
    records: list[Json],
    zone: str,
    grain: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """MET-6: tokens and money, over zones, clock changes, borders of months and prices, and files in any state."""
    home = tmp_path_factory.mktemp("books")
    (home / "prices.toml").write_text(PRICES)
    flags = [
        "--by",
        grain,
        "--by",
        "key",
        "--by",
        "model",
        "--tz",
        zone,
        "--prices",
        str(home / "prices.toml"),
        "--csv",
    ]
    since, until = sorted(data.draw(st.sampled_from([*EDGES, datetime(2030, 1, 1, tzinfo=UTC)])) for _ in range(2))
    if data.draw(st.booleans()):
        flags += ["--since", since.isoformat(), "--until", until.isoformat()]
        counted = [record for record in records if since <= datetime.fromisoformat(record["at"]) < until]
    else:
        counted = records
    paths = files(data, home, records)
    ended = CliRunner().invoke(cli.dashseek, ["usage", "sum", *flags, *map(str, paths)])
    again = CliRunner().invoke(cli.dashseek, ["usage", "sum", *flags, *map(str, reversed(paths))])
    assert (ended.exit_code, ended.stdout_bytes) == (0, again.stdout_bytes)
    rows = {
        (row.pop(grain), row.pop("key"), row.pop("model")): row for row in csv.DictReader(io.StringIO(ended.stdout))
    }
    assert {group: {name: Fraction(figure) for name, figure in row.items()} for group, row in rows.items()} == summed(
        counted, zone, grain
    )


def test_figures_are_read_in_the_order_of_the_sums() -> None:
    record = closed("1", usage=used(9, 8, 1, 2), generated=used(7, 6, 3, 4), calls=[upstream_call(1, 2)] * 5)
    assert Totals(*totals.figures(record)) == Totals(
        calls=1,
        input=9,
        cached=2,
        output=8,
        reasoning=1,
        generated_input=7,
        generated_cached=4,
        generated_output=6,
        generated_reasoning=3,
        upstream_calls=5,
    )


def test_what_is_remembered_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A journal of any length and any number of keys takes a bounded part of memory beside its sums."""
    monkeypatch.setattr(totals, "REMEMBERED", 3)
    (path := tmp_path / "usage.jsonl").write_bytes(
        b"".join(
            line(closed(f"a-{number:x}", at=f"2026-11-22T10:{number % 60:02}:00.000Z", key_name=f"k{number % 7}"))
            for number in range(500)
        )
    )
    assert sum(summed.calls for summed in ledger.read([path]).totals.values()) == 500


def test_what_is_not_asked_for_is_not_told_apart() -> None:
    """Of a report by the hour and the key there are as many groups, whatever else its calls say."""
    sums = Sums(Span(), None, by=("key",))
    for model in ("deepseek-v3", "deepseek-r1"):
        for key in ("team a", "team b"):
            sums.row(closed("1", model=model, key_name=key)).add(figures(closed("1")))
    assert {group: told.calls for group, told in sums.totals().items()} == {
        Group("", "", key, "", "", "", "", ""): 2 for key in ("team a", "team b")
    }


def test_sums_are_exact_beyond_what_a_machine_counts_in() -> None:
    sums = Sums(Span(), None)
    most = closed("1", usage=used(2**64 - 1, 4), calls=[])
    for _ in range(3):
        sums.row(most).add(figures(most))
    assert [told.input for told in sums.totals().values()] == [3 * (2**64 - 1)]
