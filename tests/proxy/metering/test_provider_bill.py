"""Claims about a provider's export: DeepSeek's shapes, old and new, those of others by a mapping, and every mistake."""

from __future__ import annotations

import zipfile
from datetime import UTC, date, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from proxy.metering import provider_bill as bills
from proxy.metering.provider_bill import Bill, BillError, Cost, Line, Mapped

NEW = "user_id,start_time_iso,end_time_iso,model,api_key_name,api_key,type,price,amount"
NEW_COST = "user_id,start_time_iso,end_time_iso,model,wallet_type,cost,currency"
OLD = "user_id,utc_date,model,api_key_name,api_key,type,price,amount"
OLD_COST = "user_id,utc_date,model,wallet_type,cost,currency"
DAY = "2026-09-01T00:00:00+08:00,2026-09-02T00:00:00+08:00"


def file(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "export.csv"


def load(*paths: Path, mapping: Path | None = None) -> Bill:
    return bills.load(paths, bills.load_mapping(mapping) if mapping else Mapped(), None)


def test_deepseeks_amounts_are_lines_by_day_model_key_and_type(path: Path) -> None:
    """As programs describe what platform.deepseek.com has exported since August 2026."""
    rows = [
        f'u,{DAY},deepseek-v4-pro,"Team, Primary",sk-1***2,input_cache_hit_tokens,0.000000025,11464960',
        f'u,{DAY},deepseek-v4-pro,"Team, Primary",sk-1***2,input_cache_miss_tokens,0.000003,7064',
        f'u,{DAY},deepseek-v4-pro,"Team, Primary",sk-1***2,input_cache_miss_tokens,0.000006,3',
        f'u,{DAY},deepseek-v4-pro,"Team, Primary",sk-1***2,output_tokens,0.000006,1890',
        f'u,{DAY},deepseek-v4-pro,"Team, Primary",sk-1***2,request_count,,2',
        f'u,{DAY},deepseek-v4-pro,"Team, Primary",sk-1***2,search_count,0.01,4',
    ]
    path.write_bytes(b"\xef\xbb\xbf" + "\r\n".join([NEW, *rows, ""]).encode())
    bill = load(path)
    assert bill.zone == timezone(timedelta(hours=8))
    assert [(line.type, line.amount, line.price) for line in bill.lines] == [
        ("cached", 11464960, Decimal("0.000000025")),
        ("input", 7064, Decimal("0.000003")),
        ("input", 3, Decimal("0.000006")),
        ("output", 1890, Decimal("0.000006")),
        ("requests", 2, None),
        ("search_count", 4, Decimal("0.01")),
    ]
    assert {(line.day, line.model, line.key) for line in bill.lines} == {
        (date(2026, 9, 1), "deepseek-v4-pro", "Team, Primary")
    }


@pytest.mark.parametrize("day", ["20260725", "2026-07-25"])
def test_deepseeks_older_files_have_days_of_utc(path: Path, day: str) -> None:
    bill = load(file(path, OLD, f"u,{day},deepseek-chat,a,sk,output_tokens,0.000006,5"))
    assert (bill.zone, bill.lines) == (
        UTC,
        [Line(date(2026, 7, 25), "deepseek-chat", "a", "output", Decimal(5), Decimal("0.000006"))],
    )


def test_costs_are_by_day_and_model_in_each_currency(path: Path) -> None:
    bill = load(file(path, NEW_COST, f"u,{DAY},m,Paid,2.9492980000000000,CNY", f"u,{DAY},m,Granted,1,USD"))
    assert bill.costs == [
        Cost(date(2026, 9, 1), "m", "CNY", Decimal("2.949298")),
        Cost(date(2026, 9, 1), "m", "USD", Decimal(1)),
    ]
    assert bill.days() == (date(2026, 9, 1), date(2026, 9, 1))
    assert load(file(path, OLD_COST, "u,20260901,m,Paid,1,CNY")).costs[0].day == date(2026, 9, 1)


def test_a_zip_is_read_as_the_files_in_it(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "usage_data.zip", "w") as archive:
        archive.writestr("amount-2026-09-01_2026-09-30.csv", f"\ufeff{NEW}\nu,{DAY},m,a,sk,request_count,,2\n")
        archive.writestr("cost-2026-09-01_2026-09-30.csv", f"\ufeff{NEW_COST}\nu,{DAY},m,Paid,1.5,CNY\n")
        archive.writestr("readme.txt", "hello")
    bill = load(tmp_path / "usage_data.zip")
    assert (len(bill.lines), len(bill.costs)) == (1, 1)


def test_what_macos_adds_to_a_zip_is_no_file_of_the_bill(tmp_path: Path) -> None:
    notes = b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X        \xb0\xff"
    with zipfile.ZipFile(tmp_path / "usage_data.zip", "w") as archive:
        archive.writestr("usage_data/AMOUNT.CSV", f"{NEW}\nu,{DAY},m,a,sk,request_count,,2\n")
        for name in ("__MACOSX/usage_data/._AMOUNT.CSV", "__MACOSX/amount.csv", "usage_data/._AMOUNT.CSV", "._a.csv"):
            archive.writestr(name, notes)
    assert [line.amount for line in load(tmp_path / "usage_data.zip").lines] == [2]


def test_hours_are_days_of_the_zone_asked_for(path: Path) -> None:
    hour = "2026-09-01T23:00:00+08:00,2026-09-02T00:00:00+08:00"
    amounts = file(path, NEW, f"u,{hour},m,a,sk,request_count,,2")
    assert load(amounts).lines[0].day == date(2026, 9, 1)
    tokyo = bills.load([amounts], Mapped(), ZoneInfo("Asia/Tokyo"))
    assert tokyo.lines[0].day == date(2026, 9, 2)


def test_another_providers_columns_are_named_by_a_mapping(tmp_path: Path) -> None:
    mapping = file(
        tmp_path / "theirs.toml",
        '[models]\n"gpt-x" = "GPT X"\n[keys]\n"*" = "prod"',
        '[[layout]]\nday = "date"\nzone = "Asia/Shanghai"\nmodel = "Model"\ncost = "Fee"\ncurrency = "Unit"',
        '[layout.columns]\n"In" = "prompt"\n"Out" = "output"',
        '[[layout]]\nday = "hour"\nmodel = "Model"\nkey = "Key"\ntype = "Item"\namount = "Quantity"',
        'types = { "calls" = "requests" }',
    )
    wide = file(tmp_path / "wide.csv", "date,Model,In,Out,Fee,Unit", "2026-09-01,GPT X,30,4,0.5,CNY")
    long = file(tmp_path / "long.csv", "hour,Model,Key,Item,Quantity", "2026-09-01T01:00+08:00,GPT X,prod,calls,7")
    bill = bills.load([wide, long], bills.load_mapping(mapping), ZoneInfo("Asia/Shanghai"))
    assert [(line.key, line.type, line.amount) for line in bill.lines] == [
        (None, "prompt", 30),
        (None, "output", 4),
        ("prod", "requests", 7),
    ]
    assert bill.costs == [Cost(date(2026, 9, 1), "GPT X", "CNY", Decimal("0.5"))]
    # Of another provider's rows nobody knows that none is there twice.
    file(long, *long.read_text().splitlines(), long.read_text().splitlines()[-1])
    assert [line.amount for line in load(long, mapping=mapping).lines] == [7, 7]


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        (["a,b", "1,2"], "export.csv: no layout is known for its columns a, b; see --mapping"),
        ([""], "no layout is known for its columns (none)"),
        ([NEW, f"u,{DAY},m,a,sk,output_tokens,,x"], "export.csv:2: amount: x is no number"),
        ([NEW, f"u,{DAY},m,a,sk,output_tokens,,NaN"], "amount: NaN is no number"),
        ([NEW, f"u,{DAY},m,a,sk,output_tokens,,"], "amount: nothing is no number"),
        ([NEW, f"u,{DAY},m,a,sk,output_tokens"], "export.csv:2: has not as many columns as the first line"),
        ([NEW, f"u,{DAY},m,a,sk,output_tokens,,1,2"], "has not as many columns as the first line"),
        ([OLD, "u,today,m,a,sk,output_tokens,,1"], "export.csv:2: today is no day"),
        ([OLD, "u,9999-12-31,m,a,sk,output_tokens,,1"], "export.csv:2: 9999-12-31: not all zones have a day of"),
        ([OLD, *["u,20260901,m,a,sk,output_tokens,,1"] * 2], "export.csv:3: is the same row as"),
        (
            [NEW, f"u,{DAY},m,a,sk,request_count,,1", f"u,{DAY.replace('08', '09')},m,a,sk,request_count,,1"],
            "several offsets",
        ),
        (
            [NEW, "u,2026-09-01T00:00:00+08:00,2026-10-01T00:00:00+08:00,m,a,sk,request_count,,1"],
            "does not lie within one day of +08:00",
        ),
    ],
)
def test_what_cannot_be_read_is_an_error_with_its_place_never_left_out(
    path: Path, lines: list[str], sentence: str
) -> None:
    with pytest.raises(BillError) as caught:
        load(file(path, *lines))
    assert sentence in str(caught.value)


def test_a_day_of_another_zone_is_no_day_of_this_one(path: Path) -> None:
    with pytest.raises(BillError, match="does not lie within one day of Asia/Shanghai"):
        bills.load([file(path, OLD, "u,20260901,m,a,sk,output_tokens,,1")], Mapped(), ZoneInfo("Asia/Shanghai"))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[[layout", "theirs.toml: "),
        ("x = 1", "nothing is called x; there are keys, layout, models"),
        ('[[layout]]\nmodel = "m"', "day is missing"),
        ('[[layout]]\nday = "d"\nmodel = "m"', "says not what is billed"),
        ('[[layout]]\nday = "d"\nmodel = "m"\ntype = "t"\ncost = "c"', "says not what is billed"),
        ('[[layout]]\nday = "d"\nmodel = "m"\ncolumns = { a = "tokens" }', "tokens: kinds are input, cached"),
        ('[[layout]]\nday = "d"\nmodel = "m"\ncolumns = { a = 1 }', "columns is no table of texts"),
        ('[[layout]]\nday = "d"\nmodel = "m"\ncost = "c"\nzone = "Mars"', "no such zone"),
        ('[[layout]]\nday = "d"\nmodel = "m"\ncost = "c"\nx = 1', "nothing is called x"),
        ("[models]\na = 1", "models is no table of texts"),
    ],
)
def test_a_mistake_in_a_mapping_is_named(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(BillError) as caught:
        bills.load_mapping(file(tmp_path / "theirs.toml", text))
    assert sentence in str(caught.value)


def test_a_day_of_another_zone_may_lie_within_a_longer_one_of_this(tmp_path: Path, path: Path) -> None:
    """The day on which the clocks of Berlin go back has 25 hours."""
    mapping = file(tmp_path / "theirs.toml", '[[layout]]\nday = "d"\nzone = "+01:00"\nmodel = "m"\ncost = "c"')
    known, berlin = bills.load_mapping(mapping), ZoneInfo("Europe/Berlin")
    assert bills.load([file(path, "d,m,c", "2026-10-25,x,1")], known, berlin).costs[0].day == date(2026, 10, 25)
    with pytest.raises(BillError, match="does not lie within one day of Europe/Berlin"):
        bills.load([file(path, "d,m,c", "2026-10-24,x,1")], known, berlin)


@pytest.mark.parametrize("content", [b"\xff\xfe", b"PK\x05\x06" + bytes(10) + b"\xff" * 8])
def test_what_is_no_text_and_no_archive_is_an_error_with_its_name(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(BillError) as caught:
        load(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_a_day_without_a_zone_is_an_error_where_no_zone_is_named(tmp_path: Path, path: Path) -> None:
    mapping = file(tmp_path / "theirs.toml", '[[layout]]\nday = "d"\nmodel = "m"\ncost = "c"')
    with pytest.raises(BillError, match="has no offset from UTC"):
        load(file(path, "d,m,c", "2026-09-01,x,1"), mapping=mapping)
