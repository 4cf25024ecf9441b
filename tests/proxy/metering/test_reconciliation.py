"""Claims about reconciliation: what agrees is silent, a planted difference of every kind is named with its calls."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from config.settings import FAILOVER_STATUSES
from proxy.metering import ledger, prices, reconciliation
from proxy.metering import provider_bill as bills
from proxy.metering.provider_bill import DEEPSEEK, Layout, Mapped
from proxy.metering.reconciliation import Absence, Cause, Collector, Difference, Outside, Reconciliation, Tolerance
from proxy.upstream.response import Result
from tests.proxy.metering.records import Json, closed, opened, upstream_call, used, write

AMOUNT = "user_id,utc_date,model,api_key_name,api_key,type,price,amount"
COST = "user_id,utc_date,model,wallet_type,cost,currency"
PRICES = """zone = "UTC"
[[upstream]]
model = "deepseek-chat"
valid_from = 2026-01-01
currency = "CNY"
input = 2
cached = 0.2
output = 8
"""
RATES = {"input": Decimal("0.000002"), "cached": Decimal("0.0000002"), "output": Decimal("0.000008")}
WORDS = {"input": "input_cache_miss_tokens", "cached": "input_cache_hit_tokens", "output": "output_tokens"}


def call(name: str, **said: Any) -> list[Json]:
    """A call of 100 tokens in, 64 of them cached, and 10 out."""
    tokens = used(100, 10, 4, 64)
    return [opened(name, **_opening(said)), closed(name, **{"usage": tokens, "generated": tokens, **said})]


def _opening(said: Json) -> Json:
    return {name: value for name, value in said.items() if name in opened(None)}


class Books:
    """A journal and a bill that agree, until something is planted in one of them."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.records: list[Json] = []
        self.billed: dict[tuple[str, str, str, str], int] = {}
        self.cost: Decimal | None = None
        self.keys: frozenset[str] = frozenset()
        self.mapped = Mapped()
        self.priced = False
        self.prices = PRICES
        self.keyless: list[str] = []

    def bill(self, *, day: str = "20261122", model: str = "deepseek-chat", key: str = "prod", **more: int) -> None:
        for kind, amount in more.items():
            what = day, model, key, kind
            self.billed[what] = self.billed.get(what, 0) + amount

    def add(self, name: str, *, requests: int = 1, **said: Any) -> None:
        """A call that both sides know alike."""
        self.records += call(name, **said)
        self.bill(input=36, cached=64, output=10, requests=requests)

    def reconciled(self) -> Reconciliation:
        journal = write(self.home / "usage.jsonl", *self.records)
        rows = [
            f"u,{day},{model},{key},sk,{WORDS.get(kind, 'request_count' if kind == 'requests' else kind)},"
            f"{RATES.get(kind, '')},{amount}"
            for (day, model, key, kind), amount in self.billed.items()
        ]
        files = [self.home / "amount.csv"]
        files[0].write_text("\n".join([AMOUNT, *rows, ""]))
        if self.keyless:
            (keyless := self.home / "keyless.csv").write_text(
                "\n".join(["date,name,made,read,calls", *self.keyless, ""])
            )
            files.append(keyless)
        if self.cost is not None:
            files.append(self.home / "cost.csv")
            files[-1].write_text(f"{COST}\nu,20261122,deepseek-chat,Paid,{self.cost},CNY\n")
        (self.home / "prices.toml").write_text(self.prices)
        bill = bills.load(files, self.mapped, None)
        priced = prices.load(self.home / "prices.toml") if self.priced else None
        collector = Collector(bill, self.mapped, self.keys, priced)
        collector.see_unknown(ledger.read([journal], each=lambda record, _: collector.see(record)).unknown)
        return reconciliation.reconcile(bill, collector, self.keys)

    def differences(self) -> dict[str, Difference]:
        return {difference.type: difference for difference in self.reconciled().differences}

    def one(self) -> Difference:
        (difference,) = self.reconciled().differences
        return difference


@pytest.fixture
def books(tmp_path: Path) -> Books:
    books = Books(tmp_path)
    books.add("1")
    books.add("2")
    return books


def causes(difference: Difference) -> list[Cause]:
    return [cause for cause, _ in difference.causes]


def test_what_agrees_has_no_difference(books: Books) -> None:
    books.cost = 72 * RATES["input"] + 128 * RATES["cached"] + 20 * RATES["output"]
    books.priced = True
    result = books.reconciled()
    assert (result.lines, result.differences) == (6, [])
    assert result.totals["output"] == (20, 20)


@pytest.mark.parametrize(
    ("cause", "said"),
    [
        (Cause.GONE, {"outcome": "client_gone_mid_stream", "basis": "counted"}),
        (Cause.GONE, {"outcome": "client_stalled", "basis": "upstream_last"}),
        (Cause.CUT, {"outcome": "upstream_cut", "basis": "counted"}),
        (Cause.CUT, {"outcome": "timeout_idle", "basis": "upstream_last"}),
        (Cause.COUNTED, {"basis": "counted"}),
    ],
)
def test_calls_without_a_last_figure_are_named_where_the_provider_bills_more(
    books: Books, cause: Cause, said: Json
) -> None:
    books.add("3", **said)
    books.bill(output=7)
    difference = books.one()
    assert (difference.type, difference.amount, causes(difference)) == ("output", 7, [cause])
    (witnesses,) = (witnesses for _, witnesses in difference.causes)
    assert (witnesses.calls, witnesses.tokens["output"], witnesses.named()) == (1, 10, ["id-3"])


def test_calls_of_several_upstream_calls_are_named(books: Books) -> None:
    """A fan-out, or the two legs of a thinking budget."""
    calls = [upstream_call(50, 5, cached=32, reasoning=2), upstream_call(50, 5, cached=32, reasoning=2)]
    books.add("3", calls=calls, requests=2)
    books.bill(input=-1)
    assert causes(books.one()) == [Cause.SEVERAL]
    books.bill(input=1, requests=-1)
    assert (books.one().type, books.one().amount) == ("requests", -1)


def test_one_upstream_call_is_no_reason(books: Books) -> None:
    books.add("3", calls=[upstream_call(100, 10, cached=64, reasoning=4)])
    books.bill(output=7)
    assert (causes(books.one()), books.one().absence) == ([], Absence.MORE)


def tries(*results: str) -> list[Json]:
    return [{"target": "http://a", "result": result, "reused": False} for result in results]


def upstream_calls(count: int) -> list[Json]:
    return [upstream_call(50, 5, cached=32, reasoning=2)] * count


@pytest.mark.parametrize(
    ("results", "calls", "expected"),
    [
        (["broken", "200"], 1, [Cause.RETRIED]),
        (["broken", "200", "200"], 2, [Cause.RETRIED, Cause.SEVERAL]),
        # Fan-out, and the two legs of a thinking budget.
        (["200", "200", "200"], 3, [Cause.SEVERAL]),
        (["200", "200"], 2, [Cause.SEVERAL]),
        # Upstream never saw the first try.
        (["unreachable", "200"], 1, []),
        (["connect_timeout", "200"], 1, []),
        (["unreachable", "200", "200"], 2, [Cause.SEVERAL]),
        # The first try was refused: it is counted as a request at most.
        (["503", "200"], 1, [Cause.REFUSED]),
        (["429", "200", "200"], 2, [Cause.REFUSED, Cause.SEVERAL]),
    ],
)
def test_a_call_was_retried_where_it_has_more_tries_than_upstream_calls(
    books: Books, results: list[str], calls: int, expected: list[Cause]
) -> None:
    books.add("3", attempts=tries(*results), calls=upstream_calls(calls), requests=calls)
    books.bill(requests=1)
    assert sorted(causes(books.one()), key=lambda cause: cause.name) == expected
    books.bill(requests=-1, output=1)
    told = [cause for cause in expected if cause is not Cause.REFUSED]
    assert sorted(causes(books.one()), key=lambda cause: cause.name) == told


FAILED: Json = {"usage": used(0, 0), "generated": used(0, 0), "basis": "none", "calls": [], "outcome": "upstream_error"}


@pytest.mark.parametrize(
    ("results", "said", "requests", "tokens"),
    [
        (["500"], {}, [Cause.FAILED], [Cause.FAILED]),
        (["504"], {"outcome": "client_gone_before_first_packet"}, [Cause.FAILED], [Cause.FAILED]),
        (["500", "open", "open"], {}, [Cause.CUT, Cause.FAILED], [Cause.CUT, Cause.FAILED]),
        (["503"], {}, [Cause.REFUSED], []),
        (["400"], {}, [Cause.REFUSED], []),
        (["429", "500"], {"outcome": "throttled"}, [Cause.FAILED, Cause.REFUSED], [Cause.FAILED]),
        (["unreachable", "unreachable"], {}, [], []),
        (["connect_timeout"], {"outcome": "timeout_connect"}, [], []),
        # A success that held an error, and no answer.
        (["200"], {}, [Cause.CUT], [Cause.CUT]),
        (["broken"], {"outcome": "upstream_cut"}, [Cause.CUT], [Cause.CUT]),
        (["open"], {"outcome": "timeout_first_token"}, [Cause.CUT], [Cause.CUT]),
        (["open"], {"outcome": "client_gone_before_first_packet"}, [Cause.GONE], [Cause.GONE]),
    ],
)
def test_a_call_without_figures_is_named_by_what_came_of_its_tries(
    books: Books, results: list[str], said: Json, requests: list[Cause], tokens: list[Cause]
) -> None:
    books.records += call("3", **{**FAILED, "attempts": tries(*results), **said})
    books.bill(requests=1)
    assert sorted(causes(books.one()), key=lambda cause: cause.name) == requests
    books.bill(requests=-1, output=1)
    difference = books.one()
    assert sorted(causes(difference), key=lambda cause: cause.name) == tokens
    assert (difference.absence is Absence.MORE) == (not tokens)


def test_the_statuses_of_a_server_that_say_that_nothing_was_done_are_those_after_which_another_is_asked() -> None:
    asked = {status for status in FAILOVER_STATUSES if status >= reconciliation.SERVER_ERROR}
    assert asked == reconciliation.NOTHING_DONE


def test_tries_that_upstream_never_saw_are_those_without_a_connection() -> None:
    assert {Result.UNREACHABLE.value, Result.SLOW.value} == reconciliation.UNSENT


def test_calls_without_an_end_are_named(books: Books) -> None:
    books.records.append(opened("3"))
    books.bill(input=36, cached=64, output=10, requests=1)
    found = books.differences()
    assert set(found) == {"input", "cached", "output", "requests"}
    assert {cause for difference in found.values() for cause in causes(difference)} == {Cause.UNKNOWN}


def test_calls_of_which_the_journal_holds_nothing_are_no_reason_for_a_smaller_bill(books: Books) -> None:
    books.add("3", attempts=tries("broken", "200"))
    books.records.append(opened("4"))
    books.bill(output=-1)
    assert (causes(books.one()), books.one().absence) == ([], Absence.LESS)
    books.bill(output=2)
    assert causes(books.one()) == [Cause.RETRIED, Cause.UNKNOWN]


def test_calls_that_hold_nothing_of_a_type_are_no_reason_for_a_smaller_bill_of_it(books: Books) -> None:
    books.records += call("3", **{**FAILED, "attempts": tries("200")})
    books.records += call("4", basis="counted", usage=used(100, 0, 0, 0), generated=used(100, 0, 0, 0))
    books.bill(input=99, output=-1, requests=1)
    found = books.differences()
    assert (causes(found["output"]), found["output"].absence) == ([], Absence.LESS)
    assert causes(found["input"]) == [Cause.COUNTED]
    books.bill(output=2)
    assert causes(books.differences()["output"]) == [Cause.COUNTED, Cause.CUT]
    books.priced, books.cost = True, Decimal("0.0000001")
    assert causes(books.differences()["cost CNY"]) == [Cause.COUNTED]


def test_a_call_over_midnight_is_named_on_both_days(books: Books) -> None:
    late = {"at": "2026-11-22T23:59:59.000Z", "t": {"closed": 2_000.0}}
    books.records += call("3", **late)
    books.bill(day="20261123", input=36, cached=64, output=10, requests=1)
    found = books.reconciled().differences
    assert {(difference.cell.day.day, difference.type) for difference in found} == {
        (day, kind) for day in (22, 23) for kind in ("input", "cached", "output", "requests")
    }
    assert all(causes(difference) == [Cause.BORDER] for difference in found)
    assert all(witnesses.named() == ["id-3"] for difference in found for _, witnesses in difference.causes)


def test_what_the_journal_never_saw_is_named(books: Books) -> None:
    books.bill(day="20261123", output=5)
    assert (books.one().absence, books.one().journal) == (Absence.JOURNAL, 0)


def test_what_the_bill_never_saw_is_named(books: Books) -> None:
    books.records += call("3", upstream_model="deepseek-reasoner")
    found = books.reconciled().differences
    assert {difference.absence for difference in found} == {Absence.BILL}
    assert {difference.bill for difference in found} == {0}
    assert {difference.cell.model for difference in found} == {"deepseek-reasoner"}


def test_what_no_call_can_make_is_said_to_be_so(books: Books) -> None:
    books.bill(output=1)
    assert books.one().absence is Absence.MORE
    books.bill(output=-2)
    assert books.one().absence is Absence.LESS


def test_prompts_of_which_another_part_was_cached_are_no_calls_of_another_program(books: Books) -> None:
    books.bill(input=-5, cached=5)
    assert {difference.absence for difference in books.differences().values()} == {Absence.SPLIT}
    books.bill(input=-5, cached=6)
    assert Absence.SPLIT not in {difference.absence for difference in books.differences().values()}


def test_a_type_the_journal_does_not_know_is_a_difference_never_left_out(books: Books) -> None:
    books.bill(search_count=3)
    difference = books.one()
    assert (difference.type, difference.absence) == ("search_count", Absence.TYPE)
    assert (difference.bill, difference.journal) == (3, 0)


def test_a_cost_that_is_not_the_bills_own_amounts_times_prices_is_named(books: Books) -> None:
    books.cost = Decimal("0.5")
    difference = books.one()
    assert (difference.type, difference.absence) == ("cost CNY, billed", Absence.OWN)


def test_another_price_is_named(books: Books) -> None:
    books.priced = True
    books.cost = 2 * (72 * RATES["input"] + 128 * RATES["cached"] + 20 * RATES["output"])
    found = books.differences()
    assert (found["cost CNY"].absence, found["cost CNY"].amount) == (Absence.PRICE, books.cost / 2)


def test_money_of_other_tokens_is_explained_by_the_calls(books: Books) -> None:
    books.add("3", outcome="client_gone_mid_stream", basis="counted")
    books.bill(output=1_000)
    books.priced = True
    books.cost = 108 * RATES["input"] + 192 * RATES["cached"] + 1030 * RATES["output"]
    difference = books.differences()["cost CNY"]
    assert (causes(difference), difference.absence) == ([Cause.GONE], None)
    assert difference.amount == 1_000 * RATES["output"]


def test_calls_without_a_price_are_named(books: Books) -> None:
    books.priced = True
    books.cost = 72 * RATES["input"] + 128 * RATES["cached"] + 20 * RATES["output"]
    books.prices = PRICES.replace("2026-01-01", "2026-11-22T12:00:00Z")
    difference = books.differences()["cost CNY"]
    assert (difference.absence, difference.journal) == (Absence.UNPRICED, 0)


def test_only_the_days_of_the_bill_are_compared(books: Books) -> None:
    books.records += call("4", at="2026-11-21T10:00:00.000Z")
    books.records += call("5", at="2026-11-23T00:00:00.000Z")
    assert books.reconciled().differences == []


def test_calls_on_days_outside_the_bill_are_counted_with_their_tokens(books: Books) -> None:
    books.records += call("4", at="2026-11-20T10:00:00.000Z")
    books.records += call("5", at="2026-11-21T10:00:00.000Z", usage=used(1, 1))
    books.records.append(opened("6", at="2026-11-21T11:00:00.000Z"))
    books.records += call("7", at="2026-11-23T00:00:00.000Z")
    result = books.reconciled()
    assert result.before == Outside(3, 200, 20, bills.date(2026, 11, 20), bills.date(2026, 11, 21))
    assert result.after == Outside(1, 100, 10, bills.date(2026, 11, 23), bills.date(2026, 11, 23))
    assert (result.inside, result.is_apart) == (2, False)


def test_a_bill_of_other_days_alone_is_apart_from_the_journal(books: Books) -> None:
    books.billed.clear()
    books.bill(day="20261201", output=0)
    result = books.reconciled()
    assert (result.differences, result.before.calls, result.is_apart) == ([], 2, True)
    books.records.clear()
    assert not books.reconciled().is_apart


def test_a_call_that_went_on_into_the_first_day_of_the_bill_is_of_the_day_before(books: Books) -> None:
    books.records = call("3", at="2026-11-21T23:59:59.000Z", t={"closed": 2_000.0})
    result = books.reconciled()
    assert (result.before.calls, result.inside, result.is_apart) == (1, 0, True)
    assert causes(result.differences[0]) == [Cause.BORDER]


def test_the_largest_difference_comes_first_money_before_tokens_before_calls(books: Books) -> None:
    books.cost = Decimal("0.0001")
    books.bill(input=3, output=-5, requests=9)
    assert [difference.type for difference in books.reconciled().differences] == [
        "cost CNY, billed",
        "output",
        "input",
        "requests",
    ]


def test_keys_are_matched_by_name_and_else_by_what_a_mapping_says(books: Books) -> None:
    """One key of the provider's stands for all callers, where the bill has no other."""
    books.bill(key="elsewhere", output=99)
    found = books.reconciled().differences
    assert {(difference.cell.key, difference.absence) for difference in found} == {
        ("prod", Absence.JOURNAL),
        ("elsewhere", Absence.JOURNAL),
        ("team a", Absence.BILL),
    }
    books.bill(key="team a", output=20)
    found = books.reconciled().differences
    assert {difference.type for difference in found if difference.cell.key == "team a"} == {
        *("input", "cached", "requests")
    }
    books.bill(key="team a", output=-20)
    books.mapped = Mapped(keys={"team a": "prod"})
    assert {difference.cell.key for difference in books.reconciled().differences} == {"elsewhere"}
    books.mapped = Mapped(keys={"*": "prod"})
    books.keys = frozenset({"prod"})
    assert books.reconciled().differences == []
    books.mapped = Mapped()
    assert books.reconciled().differences == []


KEYLESS = Layout(day="date", model="name", zone=UTC, columns={"made": "output"})
KEYLESS_WHOLE = replace(KEYLESS, columns={"made": "output", "read": "prompt", "calls": "requests"})


@pytest.mark.parametrize("names", [{}, {"*": "prod"}, {"team a": "prod"}, {"team a": "prod", "team b": "test"}])
def test_a_bill_without_keys_is_of_all_callers_whatever_a_mapping_says(tmp_path: Path, names: dict[str, str]) -> None:
    books = Books(tmp_path)
    books.mapped = Mapped((*DEEPSEEK, KEYLESS), keys=names)
    books.records = [*call("1"), *call("2", key_name="team b"), *call("3", key_name=None, key_id=None)]
    books.keyless = ["2026-11-22,deepseek-chat,30,,"]
    assert (books.reconciled().lines, books.reconciled().differences) == (1, [])
    books.records += call("4", basis="counted")
    books.keyless = ["2026-11-22,deepseek-chat,43,,"]
    difference = books.one()
    assert (difference.cell.key, difference.amount, causes(difference)) == ("", 3, [Cause.COUNTED])
    books.records += call("5", upstream_model="deepseek-reasoner", key_name="team b")
    found = books.reconciled().differences
    assert [(difference.cell.model, difference.absence) for difference in found] == [
        ("deepseek-reasoner", Absence.BILL),
        ("deepseek-chat", None),
    ]


def test_lines_with_keys_and_without_are_each_compared_with_their_calls(books: Books) -> None:
    """A bill whose rows have had keys from some day on, or of some models; what no line speaks of is missing once."""
    books.mapped = Mapped((*DEEPSEEK, KEYLESS_WHOLE))
    books.records += call("3", at="2026-11-20T10:00:00.000Z") + call("4", upstream_model="deepseek-reasoner")
    books.keyless = ["2026-11-20,deepseek-chat,10,100,1", "2026-11-22,deepseek-reasoner,10,100,1"]
    assert books.reconciled().differences == []
    books.records += call("5", at="2026-11-21T10:00:00.000Z")
    found = books.reconciled().differences
    assert {(difference.cell.day.day, difference.cell.key, difference.absence) for difference in found} == {
        (21, "prod", Absence.BILL)
    }
    assert len(found) == 4


def test_what_is_told_without_keys_alone_is_missing_on_a_day_told_of_with_keys(books: Books) -> None:
    books.mapped = Mapped((*DEEPSEEK, KEYLESS))
    books.keyless = ["2026-11-21,deepseek-chat,10,,"]
    books.records += call("3", at="2026-11-21T10:00:00.000Z")
    books.billed = {what: amount for what, amount in books.billed.items() if what[3] == "requests"}
    found = books.reconciled().differences
    assert [(difference.cell.day.day, difference.type, difference.absence) for difference in found] == [
        (22, "output", Absence.BILL),
        (21, "requests", Absence.BILL),
    ]


def test_models_are_matched_by_what_a_mapping_says(books: Books) -> None:
    books.records += call("3", upstream_model="ep-2026")
    books.bill(input=36, cached=64, output=10, requests=1)
    assert books.reconciled().differences
    books.mapped = Mapped(models={"ep-2026": "deepseek-chat"})
    assert books.reconciled().differences == []


def test_an_empty_bill_is_nothing(books: Books) -> None:
    books.billed.clear()
    assert books.reconciled() == Reconciliation()


@pytest.mark.parametrize(
    ("tolerance", "holds"),
    [
        (Tolerance(), False),
        (Tolerance(amount=Decimal(4)), False),
        (Tolerance(amount=Decimal(5)), True),
        (Tolerance(percent=Decimal("4.9")), False),
        (Tolerance(percent=Decimal(5)), True),
    ],
)
def test_a_difference_is_within_a_tolerance_or_beyond_it(tolerance: Tolerance, holds: bool) -> None:
    cell = reconciliation.Cell(bills.date(2026, 11, 22), "m", "k")
    for journal in (95, 105):
        assert tolerance.holds(Difference(cell, "output", Decimal(100), Decimal(journal))) is holds
    assert tolerance.holds(Difference(cell, "output", Decimal(0), Decimal(0)))


def test_the_calls_with_most_tokens_are_named_first(books: Books) -> None:
    for number in range(9):
        tokens = used(100, 10 + number, 4, 64)
        books.records += call(f"g{number}", basis="counted", usage=tokens, generated=tokens)
    ((_, witnesses),) = books.differences()["output"].causes
    assert (witnesses.calls, witnesses.named()) == (9, [f"id-g{number}" for number in (8, 7, 6, 5, 4)])


def test_the_cause_with_most_tokens_of_the_line_comes_first(books: Books) -> None:
    """By its kind; of money by output, for that costs most. Of those that hold none, the one of most calls."""
    for number, (given, output, said) in enumerate(
        (
            (500, 1, {"basis": "counted"}),
            (10, 50, {"outcome": "client_gone_mid_stream", "basis": "counted"}),
            (10, 0, {"outcome": "upstream_cut", "basis": "counted"}),
            (10, 0, {"outcome": "upstream_cut", "basis": "counted"}),
        )
    ):
        tokens = used(given, output, 0, 0)
        books.records += call(f"c{number}", usage=tokens, generated=tokens, **said)
    books.records.append(opened("u"))
    books.bill(input=9_000, cached=9, output=9_000)
    books.priced, books.cost = True, Decimal(5)
    found = books.differences()
    assert causes(found["input"])[:3] == [Cause.COUNTED, Cause.CUT, Cause.GONE]
    assert causes(found["output"])[:2] == [Cause.GONE, Cause.COUNTED]
    assert causes(found["cached"]) == [Cause.CUT, Cause.COUNTED, Cause.GONE, Cause.UNKNOWN]
    assert causes(found["cost CNY"])[:2] == [Cause.GONE, Cause.COUNTED]


def test_a_cell_without_tokens_of_one_kind_is_in_the_journal(books: Books) -> None:
    books.records.clear()
    books.billed.clear()
    tokens = used(100, 10)
    books.records += call("3", usage=tokens, generated=tokens)
    books.bill(input=100, cached=1, output=10, requests=1)
    assert (books.one().type, books.one().absence) == ("cached", Absence.MORE)


def test_calls_without_tokens_are_no_line_where_the_bill_has_none(books: Books) -> None:
    nothing = used(0, 0)
    refused = {"usage": nothing, "generated": nothing, "basis": "none", "attempts": [], "outcome": "refused_limit"}
    books.records += call("3", upstream_model="deepseek-reasoner", **refused)
    assert (books.reconciled().lines, books.reconciled().differences) == (4, [])
    books.bill(model="deepseek-reasoner", output=0)
    assert (books.reconciled().lines, books.reconciled().differences) == (8, [])


def test_money_is_compared_over_all_keys_with_the_calls_of_each(books: Books) -> None:
    for number, key in enumerate(("prod", "test")):
        books.records += call(f"k{number}", key_name=key, basis="counted")
        books.bill(key=key, input=36, cached=64, output=10, requests=1)
    books.mapped = Mapped(keys={"team a": "prod"})
    books.priced = True
    books.cost = 144 * RATES["input"] + 256 * RATES["cached"] + 41 * RATES["output"]
    books.bill(output=1)
    difference = books.differences()["cost CNY"]
    assert difference.amount == RATES["output"]
    ((cause, witnesses),) = difference.causes
    assert (cause, witnesses.calls, witnesses.named()) == (Cause.COUNTED, 2, ["id-k0", "id-k1"])
    assert (witnesses.tokens["output"], witnesses.tokens["prompt"]) == (20, 200)
    books.keys = frozenset({"prod"})
    # A cost is of all keys together.
    assert "cost CNY" not in books.reconciled().totals


def test_money_is_compared_where_the_bill_has_costs(books: Books) -> None:
    books.priced = True
    assert books.reconciled().differences == []
    books.records += call("3", upstream_model="deepseek-reasoner")
    books.prices = PRICES.replace("deepseek-chat", "*")
    books.bill(model="deepseek-reasoner", input=36, cached=64, output=10, requests=1)
    books.cost = 72 * RATES["input"] + 128 * RATES["cached"] + 20 * RATES["output"]
    difference = books.one()
    assert (difference.cell.model, difference.type, difference.bill) == ("deepseek-reasoner", "cost CNY", 0)
    assert difference.absence is Absence.PRICE


def test_a_call_of_a_prompt_alone_without_a_price_is_named(books: Books) -> None:
    """Of one without any tokens nobody asks what it costs."""
    books.records.clear()
    books.billed.clear()
    books.priced, books.cost = True, Decimal(1)
    books.prices = PRICES.replace("2026-01-01", "2026-11-22T12:00:00Z")
    for tokens, absence in ((used(0, 0), Absence.PRICE), (used(100, 0), Absence.UNPRICED)):
        books.records += call(f"{absence}", usage=tokens, generated=tokens)
        assert books.differences()["cost CNY"].absence is absence


def test_of_two_currencies_nobody_knows_which_amount_is_in_which(tmp_path: Path) -> None:
    """And of a bill without amounts nobody knows what it should be."""
    (amount := tmp_path / "amount.csv").write_text(
        f"{AMOUNT}\nu,20261122,m,prod,sk,output_tokens,1,5\nu,20261123,m,prod,sk,output_tokens,1,5\n"
    )
    (cost := tmp_path / "cost.csv").write_text(
        f"{COST}\nu,20261122,m,Paid,5,CNY\nu,20261122,m,Paid,1,USD\nu,20261123,m,Paid,7,CNY\nu,20261124,m,Paid,7,CNY\n"
    )
    bill = bills.load([amount, cost], Mapped(), None)
    collector = Collector(bill, Mapped(), frozenset(), None)
    found = reconciliation.reconcile(bill, collector, frozenset()).differences
    own = [difference for difference in found if difference.absence is Absence.OWN]
    assert [(difference.cell.day.day, difference.type, difference.amount) for difference in own] == [
        (23, "cost CNY, billed", 2)
    ]
