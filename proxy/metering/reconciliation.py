"""A provider's bill against the journal: each line that differs, and the calls that can be why.

The journal knows what upstream told. Where a call broke off before upstream had told its last figure, or where upstream
never tells one, the provider may know better: those calls are the first to look at, and each kind of them is a cause.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any, Final

from proxy.metering import prices as money
from proxy.metering.ledger import Unknown
from proxy.metering.periods import MINUTE, Span
from proxy.metering.periods import moment as moment_of
from proxy.metering.prices import Prices, Rates
from proxy.metering.provider_bill import KINDS, Bill, Kind, Line, Mapped
from proxy.metering.totals import NOBODY, figures, pool_of

Json = dict[str, Any]

# The two types that a prompt's tokens are billed under.
PROMPT: Final[tuple[Kind, ...]] = ("input", "cached")
# Calls that are named for each cause, those with most tokens first.
NAMED: Final = 5
COST: Final = "cost"
# The key of a cell that is of all keys together.
ALL: Final = ""
HUNDRED: Final = Decimal(100)


class Cause(Enum):
    """Why the provider may say something else than the journal."""

    GONE = "the caller had left before upstream told its last figure"
    CUT = "upstream, a time-out or a shutdown cut the call before its last figure"
    COUNTED = "upstream told no usage: the figures are our count"
    SEVERAL = "of several upstream calls (n, thinking_budget)"
    RETRIED = "an upstream call was tried again after its connection had died: the provider may bill the first try too"
    FAILED = "upstream answered an error that does not say that nothing was done: the provider may bill it"
    REFUSED = "upstream refused a try: the provider may count it as a request"
    UNKNOWN = "has no end in the journal: a crash, or still open"
    BORDER = "went on over midnight: the provider may count it on the other day"


# The journal holds none of what these may have used: they can only make a bill larger.
NOT_HELD: Final = frozenset({Cause.RETRIED, Cause.FAILED, Cause.REFUSED, Cause.UNKNOWN})
# Of a try that was refused no tokens are billed.
REQUESTS_ALONE: Final = frozenset({Cause.REFUSED})
# Statuses of a server's error that say that nothing was done; of 4xx all do.
NOTHING_DONE: Final = frozenset({503, 529})
# What came of tries that upstream has never seen.
UNSENT: Final = frozenset({"unreachable", "connect_timeout"})
SERVER_ERROR: Final = 500


class Absence(Enum):
    """Why a line may differ where no call can be why."""

    JOURNAL = "no call in the journal: another program with this key, or a journal that was not named"
    BILL = "not in the bill: a key or a model of another name, or an export that was made too early"
    TYPE = "the journal does not know this type"
    PRICE = "at the prices of the price file; the bill has others"
    UNPRICED = "the price file has no price for some of these calls"
    SPLIT = "the prompts agree; the provider had another part of them in its cache than upstream told"
    OWN = "the bill's own amounts and prices do not make its cost"
    MORE = "no call here can be why: another program with this key, or a call that no journal holds"
    LESS = "no call here can be why: the provider billed less than upstream told"


_CUT: Final = ("upstream_", "timeout_", "shutdown_", "internal_")


@dataclass(slots=True)
class Witnesses:
    """Calls of one cause.

    calls:   how many
    tokens:  what the journal holds of them, by kind
    largest: request ids of those with most tokens
    """

    calls: int = 0
    tokens: dict[str, int] = field(default_factory=dict)
    largest: list[tuple[int, str]] = field(default_factory=list)

    def add(self, request_id: str, amounts: Mapping[str, int]) -> None:
        """Add a call."""
        self.calls += 1
        for kind, amount in amounts.items():
            self.tokens[kind] = self.tokens.get(kind, 0) + amount
        weight = amounts.get("prompt", 0) + amounts.get("output", 0)
        heapq.heappush(self.largest, (weight, request_id))
        if len(self.largest) > NAMED:
            heapq.heappop(self.largest)

    def named(self) -> list[str]:
        """Request ids, those with most tokens first."""
        return [request_id for _, request_id in sorted(self.largest, key=lambda call: (-call[0], call[1]))]


@dataclass(frozen=True, slots=True)
class Cell:
    """What a line of a bill is of."""

    day: date
    model: str
    key: str


@dataclass(slots=True)
class Evidence:
    """What the journal holds of one cell.

    amounts: by kind
    costs:   what they cost at our prices, by currency
    causes:  the calls that can make a difference
    calls:   how many of callers, those without an end too
    """

    amounts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(KINDS, 0))
    costs: dict[str, Decimal] = field(default_factory=dict)
    unpriced: int = 0
    causes: dict[Cause, Witnesses] = field(default_factory=dict)
    calls: int = 0

    def add(self, other: Evidence) -> None:
        """Add what the calls of another come to, such as those of another key, and why that may differ."""
        self.calls += other.calls
        for kind, amount in other.amounts.items():
            self.amounts[kind] += amount
        for currency, cost in other.costs.items():
            self.costs[currency] = money.total((self.costs.get(currency, Decimal(0)), cost))
        self.unpriced += other.unpriced
        for cause, witnesses in other.causes.items():
            mine = self.causes.setdefault(cause, Witnesses())
            mine.calls += witnesses.calls
            for kind, tokens in witnesses.tokens.items():
                mine.tokens[kind] = mine.tokens.get(kind, 0) + tokens
            mine.largest = heapq.nlargest(NAMED, (*mine.largest, *witnesses.largest))


@dataclass(frozen=True, slots=True)
class Difference:
    """A line on which bill and journal do not agree.

    type:    a kind, a word of the provider's, or `cost` and a currency
    bill:    what the provider says
    journal: what the journal says
    causes:  the calls that can be why, those with most tokens first
    absence: why, where none can
    """

    cell: Cell
    type: str
    bill: Decimal
    journal: Decimal
    causes: tuple[tuple[Cause, Witnesses], ...] = ()
    absence: Absence | None = None

    @property
    def amount(self) -> Decimal:
        """How much more the provider says."""
        return money.EXACT.subtract(self.bill, self.journal)


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How much a line may differ: so many tokens, calls or units of money, or so many per cent of the bill."""

    amount: Decimal = Decimal(0)
    percent: Decimal = Decimal(0)

    def holds(self, difference: Difference) -> bool:
        """Whether a difference is within it."""
        apart = abs(difference.amount)
        share = money.EXACT.multiply(abs(difference.bill), self.percent)
        return apart <= self.amount or money.EXACT.multiply(apart, HUNDRED) <= share


@dataclass(slots=True)
class Outside:
    """Calls of the journal on days that the bill does not reach, which are compared with nothing.

    calls:  how many, those without an end too
    input:  tokens of their prompts, as upstream counted them
    output: tokens generated
    first:  the first day that has some; None where there are none
    last:   the last one
    """

    calls: int = 0
    input: int = 0
    output: int = 0
    first: date | None = None
    last: date | None = None

    def add(self, day: date, evidence: Evidence) -> None:
        """Add what the journal holds of a cell of that day."""
        self.calls += evidence.calls
        self.input += evidence.amounts["prompt"]
        self.output += evidence.amounts["output"]
        self.first = min(day, self.first or day)
        self.last = max(day, self.last or day)


@dataclass(slots=True)
class Reconciliation:
    """What comes of the comparison.

    lines:       how many were compared
    differences: those that do not agree, largest first: money, then tokens, then calls
    totals:      bill and journal, by type
    before:      calls on days before the bill's first
    after:       calls on days after its last
    inside:      how many calls lie on its days
    """

    lines: int = 0
    differences: list[Difference] = field(default_factory=list)
    totals: dict[str, tuple[Decimal, Decimal]] = field(default_factory=dict)
    before: Outside = field(default_factory=Outside)
    after: Outside = field(default_factory=Outside)
    inside: int = 0

    @property
    def is_apart(self) -> bool:
        """Whether the journal has calls, and none of them on a day of the bill."""
        return not self.inside and bool(self.before.calls or self.after.calls)


class Collector:
    """The journal's side, as it is read: give `see` to the ledger, then its unknown calls."""

    def __init__(self, bill: Bill, mapped: Mapped, keys: frozenset[str], prices: Prices | None) -> None:
        """Collect for a bill.

        keys: the bill's keys that calls of this journal go by; empty: all
        """
        self._days = Span(bill.zone)
        self._mapped = mapped
        self._known = keys or frozenset(line.key for line in bill.lines if line.key is not None)
        self._prices = prices
        self.cells: dict[Cell, Evidence] = {}

    @property
    def is_priced(self) -> bool:
        """Whether it was asked what calls cost."""
        return self._prices is not None

    def see(self, record: Json) -> None:
        """Take in a `close` line that counts."""
        _, _, _, _, _, prompt, cached, output, _, requests = figures(record)
        amounts = {
            "input": prompt - cached,
            "cached": cached,
            "prompt": prompt,
            "output": output,
            "requests": requests,
        }
        cell = self._cell(record, record["at"])
        evidence = self.cells.setdefault(cell, Evidence())
        evidence.calls += 1
        for kind, amount in amounts.items():
            evidence.amounts[kind] += amount
        if self._prices is not None:
            self._price(evidence, record, prompt, cached, output)
        request_id = str(record["request_id"])
        for cause in _causes(record, requests):
            evidence.causes.setdefault(cause, Witnesses()).add(request_id, amounts)
        other = self._cell(record, _closed(record))
        if other != cell and requests:
            for side in (cell, other):
                witnesses = self.cells.setdefault(side, Evidence()).causes.setdefault(Cause.BORDER, Witnesses())
                witnesses.add(request_id, amounts)

    def see_unknown(self, several: Iterable[Unknown]) -> None:
        """Take in the calls without an end."""
        for unknown in several:
            opening = unknown.opening
            evidence = self.cells.setdefault(self._cell(opening, opening["at"]), Evidence())
            evidence.calls += 1
            evidence.causes.setdefault(Cause.UNKNOWN, Witnesses()).add(str(opening["request_id"]), {})

    def _cell(self, record: Json, at: str) -> Cell:
        model = record["upstream_model"]
        return Cell(date.fromisoformat(self._days.label(at)), self._mapped.models.get(model, model), self._key(record))

    def _key(self, record: Json) -> str:
        """The bill's name of the key that a call went upstream with."""
        name = record["key_name"] or record["key_id"] or NOBODY
        keys = self._mapped.keys
        if (mapped := keys.get(name, keys.get(money.ANY))) is not None:
            return mapped
        if name in self._known:
            return str(name)
        # One key of the provider's stands for all callers, where the bill has no other.
        return next(iter(self._known)) if len(self._known) == 1 else str(name)

    def _price(self, evidence: Evidence, record: Json, prompt: int, cached: int, output: int) -> None:
        assert self._prices is not None  # noqa: S101 - for the type checker: it was looked at
        phases = self._prices.phases(moment_of(record["at"]))
        tariff = self._prices.tariff("upstream", record["upstream_model"], pool_of(record), phases)
        if tariff is None:
            evidence.unpriced += bool(prompt or output)
            return
        cost = money.amount(Rates(*tariff.rates), prompt, cached, output)
        evidence.costs[tariff.currency] = money.total((evidence.costs.get(tariff.currency, Decimal(0)), cost))


def _causes(record: Json, requests: int) -> Iterable[Cause]:
    """Why the provider may say something else of a call.

    requests: its upstream calls of which figures are known; 0 where there are none
    """
    outcome, basis = record["outcome"], record["basis"]
    results = [str(attempt["result"]) for attempt in record["attempts"]]
    errors = [int(result) for result in results if result.isdecimal() and result != "200"]
    # Tries of which upstream may have made something that it did not tell, or told in part.
    begun = len(results) - len(errors) - sum(result in UNSENT for result in results)
    if results and basis != "upstream_final" and (begun or basis != "none"):
        if outcome.startswith("client_"):
            yield Cause.GONE
        elif outcome.startswith(_CUT):
            yield Cause.CUT
        elif basis != "none":
            yield Cause.COUNTED
    if requests > 1:
        yield Cause.SEVERAL
    # Each upstream call is tried at least once; of a call without figures nobody knows how many they were.
    if 0 < requests < begun:
        yield Cause.RETRIED
    is_refusal = [error < SERVER_ERROR or error in NOTHING_DONE for error in errors]
    if not all(is_refusal):
        yield Cause.FAILED
    if any(is_refusal):
        yield Cause.REFUSED


def _closed(record: Json) -> str:
    end = datetime.fromisoformat(record["at"]) + timedelta(milliseconds=record["t"]["closed"])
    return end.astimezone(UTC).isoformat()[:MINUTE]


def reconcile(bill: Bill, collected: Collector, keys: frozenset[str]) -> Reconciliation:
    """Compare what the bill and the journal say, of the days from the bill's first to its last.

    keys: the bill's keys that calls of this journal go by; lines of others are left out; empty: all
    """
    result = Reconciliation()
    days = bill.days()
    if days is None:
        return result
    cells = _within(result, collected.cells, *days)
    together = _of_all_keys(cells)
    _compare_lines(result, [line for line in bill.lines if not keys or line.key in keys], cells, together)
    if bill.costs and not keys:
        taken: dict[tuple[Cell, str], Decimal] = {}
        for cost in bill.costs:
            what = Cell(cost.day, cost.model, ALL), cost.currency
            taken[what] = money.total((taken.get(what, Decimal(0)), cost.amount))
        if collected.is_priced:
            _compare_priced(result, taken, together)
        _compare_own(result, bill, taken)
    result.differences.sort(key=_order)
    return result


def _within(result: Reconciliation, cells: Mapping[Cell, Evidence], first: date, last: date) -> dict[Cell, Evidence]:
    """The cells of these days; calls of the others are noted in the result."""
    within: dict[Cell, Evidence] = {}
    for cell, evidence in cells.items():
        if first <= cell.day <= last:
            within[cell] = evidence
            result.inside += evidence.calls
        elif evidence.calls:
            (result.before if cell.day < first else result.after).add(cell.day, evidence)
    return within


def _of_all_keys(cells: Mapping[Cell, Evidence]) -> dict[Cell, Evidence]:
    together: dict[Cell, Evidence] = {}
    for cell, evidence in cells.items():
        together.setdefault(Cell(cell.day, cell.model, ALL), Evidence()).add(evidence)
    return together


def _compare_lines(
    result: Reconciliation, lines: list[Line], cells: Mapping[Cell, Evidence], together: Mapping[Cell, Evidence]
) -> None:
    """Each line of a key against the calls of that key, each line without one against those of all keys together.

    What the bill tells of a day and model in one of the two ways is not missing in the other; what it tells in neither
    is missing once, by key where it tells that by key on other days.
    """
    keyed = [line for line in lines if line.key is not None]
    keyless = [line for line in lines if line.key is None]
    by_key = {_billed_as(line.type) for line in keyed}
    _compare_amounts(result, keyed, cells, {(line.day, line.model, _billed_as(line.type)) for line in keyless})
    _compare_amounts(
        result, keyless, together, {(cell.day, cell.model, type_) for cell in together for type_ in by_key}
    )


def _billed_as(type_: str) -> str:
    """The type of which it is a part, or itself: a prompt is billed whole or in two."""
    return "prompt" if type_ in PROMPT else type_


def _compare_amounts(
    result: Reconciliation, lines: list[Line], cells: Mapping[Cell, Evidence], elsewhere: Set[tuple[date, str, str]]
) -> None:
    """Compare lines and cells that are told apart alike.

    elsewhere: days, models and types that are not missing where no line speaks of them
    """
    billed: dict[tuple[Cell, str], Decimal] = {}
    for line in lines:
        what = Cell(line.day, line.model, ALL if line.key is None else line.key), line.type
        billed[what] = money.total((billed.get(what, Decimal(0)), line.amount))
    if not billed:
        return
    spoken_of = {type_ for _, type_ in billed}
    asked: list[Kind] = [kind for kind in KINDS if kind in spoken_of]
    in_bill = {cell for cell, _ in billed}
    for cell, evidence in cells.items():
        for kind in asked:
            is_missing = evidence.amounts[kind] and (cell.day, cell.model, _billed_as(kind)) not in elsewhere
            if is_missing or cell in in_bill:
                billed.setdefault((cell, kind), Decimal(0))
    for (cell, type_), amount in billed.items():
        evidence = cells.get(cell, Evidence())
        journal = Decimal(evidence.amounts.get(type_, 0))
        absence = _absence(cell, type_, billed, evidence, is_billed=cell in in_bill)
        _compare(result, Difference(cell, type_, amount, journal, absence=absence), evidence)


def _absence(
    cell: Cell, type_: str, billed: Mapping[tuple[Cell, str], Decimal], evidence: Evidence, *, is_billed: bool
) -> Absence | None:
    """Why no call can be why, as far as all amounts of a cell say it."""
    if type_ not in KINDS:
        return Absence.TYPE
    if not any(evidence.amounts.values()) and not evidence.causes:
        return Absence.JOURNAL
    if not is_billed:
        return Absence.BILL
    if type_ in PROMPT and not evidence.causes:
        prompts = money.total([billed.get((cell, kind), Decimal(0)) for kind in PROMPT])
        if prompts == sum(evidence.amounts[kind] for kind in PROMPT):
            return Absence.SPLIT
    return None


def _compare_own(result: Reconciliation, bill: Bill, taken: Mapping[tuple[Cell, str], Decimal]) -> None:
    """The bill's costs against its own amounts and prices."""
    priced: dict[Cell, Decimal] = {}
    for line in bill.lines:
        if line.price is not None:
            cell = Cell(line.day, line.model, ALL)
            product = money.EXACT.multiply(line.price, line.amount)
            priced[cell] = money.total((priced.get(cell, Decimal(0)), product))
    currencies: dict[Cell, set[str]] = {}
    for cell, currency in taken:
        currencies.setdefault(cell, set()).add(currency)
    for (cell, currency), amount in taken.items():
        # Of two currencies in one day the amounts do not say which price is in which.
        if len(currencies[cell]) == 1 and cell in priced:
            own = Difference(cell, f"{COST} {currency}, billed", amount, priced[cell], (), Absence.OWN)
            _compare(result, own, Evidence())


def _compare_priced(
    result: Reconciliation, taken: Mapping[tuple[Cell, str], Decimal], together: Mapping[Cell, Evidence]
) -> None:
    """The bill's costs against the tokens of all keys at our prices."""
    ours = {(cell, currency) for cell, evidence in together.items() for currency in evidence.costs}
    differ = {(difference.cell.day, difference.cell.model) for difference in result.differences}
    for cell, currency in sorted(ours | taken.keys(), key=lambda what: (what[0].day, what[0].model, what[1])):
        evidence = together.get(cell, Evidence())
        absence = None if (cell.day, cell.model) in differ else Absence.PRICE
        if evidence.unpriced:
            absence = Absence.UNPRICED
        cost = evidence.costs.get(currency, Decimal(0))
        billed = taken.get((cell, currency), Decimal(0))
        _compare(result, Difference(cell, f"{COST} {currency}", billed, cost, (), absence), evidence)


def _compare(result: Reconciliation, difference: Difference, evidence: Evidence) -> None:
    result.lines += 1
    bill, journal = result.totals.get(difference.type, (Decimal(0), Decimal(0)))
    result.totals[difference.type] = (
        money.total((bill, difference.bill)),
        money.total((journal, difference.journal)),
    )
    if difference.amount:
        result.differences.append(_explained(difference, evidence))


def _explained(difference: Difference, evidence: Evidence) -> Difference:
    kind = difference.type if difference.type in KINDS else "output"
    can_be = [found for found in evidence.causes.items() if _can_be(*found, difference)]
    causes = sorted(can_be, key=lambda found: (-found[1].tokens.get(kind, 0), -found[1].calls, found[0].name))
    absence = difference.absence
    if absence is None and not causes:
        absence = Absence.MORE if difference.amount > 0 else Absence.LESS
    shown = () if absence in {Absence.TYPE, Absence.OWN, Absence.JOURNAL} else tuple(causes)
    return Difference(difference.cell, difference.type, difference.bill, difference.journal, shown, absence)


def _can_be(cause: Cause, witnesses: Witnesses, difference: Difference) -> bool:
    """Whether these calls can be why: a bill is not smaller by what the journal does not hold either."""
    if cause in REQUESTS_ALONE and difference.type != "requests":
        return False
    if difference.amount > 0:
        return True
    tokens = witnesses.tokens
    held = tokens.get(difference.type, 0) if difference.type in KINDS else any(tokens.values())
    return bool(held) and cause not in NOT_HELD


def _order(difference: Difference) -> tuple[object, ...]:
    is_money, is_calls = difference.type.startswith(COST), difference.type == "requests"
    cell = difference.cell
    return not is_money, is_calls, -abs(difference.amount), cell.day, cell.model, cell.key, difference.type
