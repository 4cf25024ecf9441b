"""What callers may use in a day or a month, in tokens and in money, and what they have used: all, each key, each model.

A budget is no meter: it drains at midnight, or at the end of the month, of this machine's zone. A call is let in while
something is left, and counts with what it used when it has ended, so all that are open at that moment may go beyond.
What was used is in this process's memory, worked out anew from the journal when it starts (`past_use`), or, of several
processes, in their Redis. All other limits are in `admission`, which reads no journal. Source: spec LIM-1.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, tzinfo
from decimal import Decimal
from typing import Any, Final

import structlog

from config.settings import Settings, SettingsError
from config.values import BUDGETS, COSTS, Budget, Limit
from proxy.admission import limits
from proxy.admission.keyring import Budgeted, Key
from proxy.admission.limits import FAULTS, UNIT, Demand, Scope
from proxy.metering import periods, prices
from proxy.metering.prices import Phases, PriceError, Prices, Tariff
from proxy.metering.totals import NOBODY
from translators import faults
from translators.catalogue import Catalogue

log = structlog.get_logger()

# Budgets of a day; the others are of a month.
DAILY: Final = ("tpd", "cost_day")


@dataclass(slots=True)
class PeriodUse:
    """What was used in one period."""

    tokens: int = 0
    cost: Decimal = field(default_factory=Decimal)


class SharedBudgets:
    """What several processes count in one Redis, beside its meters: what is asked for there, and what a call costs.

    zone:    whose days and months they are
    priced:  what callers owe; None where budgets are of tokens alone
    clock_s: wall clock
    """

    def __init__(self, zone: tzinfo, priced: Prices | None, clock_s: Callable[[], float] = time.time) -> None:
        self._zone = zone
        self._prices = priced
        self._clock_s = clock_s
        # The phases of the prices in the minute that a call was received in last.
        self._minute = ""
        self._phases: Phases = ()
        # The models that were called without a price, of which that was said.
        self._unpriced: set[str] = set()

    def demands(self, scopes: Iterable[Scope]) -> tuple[Demand, ...]:
        """What a call needs something left of, where its limits are decided."""
        asked: list[Demand] = []
        for scope, name, amount, now in self._set(scopes):
            units = math.ceil(amount / UNIT) if name in COSTS else amount
            meter = f"{scope.name}:{name}:{_period(name, now)}"
            asked.append(Demand(meter, name, units, -1_000 * _left_s(name, now), 0))
        return tuple(asked)

    def _set(self, scopes: Iterable[Scope]) -> Iterator[tuple[Scope, Budget, Any, datetime]]:
        """The budgets that are set: of whom, which, how much, and the moment they are asked for."""
        now: datetime | None = None
        for scope in scopes:
            for name in BUDGETS:
                if (amount := getattr(scope.limit, name)) is not None:
                    now = now or datetime.fromtimestamp(self._clock_s(), self._zone)
                    yield scope, name, amount, now

    def refusal(self, scopes: Iterable[Scope]) -> faults.Fault | None:  # noqa: ARG002 - decided in Redis
        """None: nothing is known here; see `Budgets`."""
        return None

    def spend(self, record: Mapping[str, Any]) -> Decimal:
        """What its caller owes for a call that has ended, as both halves of its record say it."""
        return self.owed(record)

    def owed(self, record: Mapping[str, Any]) -> Decimal:
        """What the caller of a call owes, by the prices of the moment it was received; 0 without a price."""
        if self._prices is None:
            return Decimal(0)
        tariff = self._tariff(self._prices, record)
        if tariff is None:
            return Decimal(0)
        used = record["usage"]
        cached = used.get("prompt_tokens_details", {}).get("cached_tokens", 0)
        return prices.amount(tariff.rates, used["input_tokens"], cached, used["output_tokens"])

    def _tariff(self, priced: Prices, opening: Mapping[str, Any]) -> Tariff | None:
        minute = opening["at"][: periods.MINUTE]
        if self._minute != minute:
            self._minute, self._phases = minute, priced.phases(periods.moment(minute))
        key = opening["key_name"] or opening["key_id"] or NOBODY
        return priced.tariff("callers", opening["model"], key, self._phases)

    def note_unpriced(self, opening: Mapping[str, Any], scopes: Iterable[Scope]) -> None:
        """Log of a call that is let in under a limit of money and has no price, so that it counts nothing there.

        Once for each model; its record's first half says what a price is by.
        """
        model = opening["model"]
        if self._prices is None or model in self._unpriced or not any(scope.limit.of_money for scope in scopes):
            return
        if self._tariff(self._prices, opening) is None:
            self._unpriced.add(model)
            log.warning("no_price", model=model)

    def unpriced(self, settings: Settings, catalogue: Catalogue, keys: Collection[Key] | None) -> list[str]:
        """Which models somebody may call now under a limit of money though no price for them is in force.

        catalogue: the models on offer
        keys:      the callers we know; None where others call
        """
        if self._prices is None:
            return []
        phases = self._prices.phases(datetime.fromtimestamp(self._clock_s(), UTC))
        named = {row.only for row in self._prices.callers}
        callers = {(key.name if key.name in named else "", key.limits, key.models) for key in keys or ()}
        if keys is None:
            # Nobody's price is by a name that is empty.
            callers = {(NOBODY if settings.auth == "none" else "", None, None)}
        key_id = None if settings.auth == "none" else NOBODY
        return [
            model
            for model in sorted({catalogue.find(name).id for name in catalogue.names})
            if any(
                (may_ask_for is None or model in may_ask_for)
                and any(scope.limit.of_money for scope in limits.scopes(settings, model, key_id, own))
                and self._prices.tariff("callers", model, name, phases) is None
                for name, own, may_ask_for in callers
            )
        ]

    def under(self, priced: Prices | None) -> SharedBudgets:
        """These budgets by the prices of a configuration that is read anew."""
        return SharedBudgets(self._zone, priced, self._clock_s)


class Budgets(SharedBudgets):
    """What has been used today and this month, by scope; one process's.

    zone, priced, clock_s: as there
    spent:                 by scope and period, where something was used already
    """

    def __init__(
        self,
        zone: tzinfo,
        priced: Prices | None,
        clock_s: Callable[[], float] = time.time,
        spent: dict[tuple[str, str], PeriodUse] | None = None,
    ) -> None:
        super().__init__(zone, priced, clock_s)
        self._spent = {} if spent is None else spent
        self._day = ""

    def demands(self, scopes: Iterable[Scope]) -> tuple[Demand, ...]:  # noqa: ARG002 - decided here
        """None: nobody else knows of them."""
        return ()

    def refusal(self, scopes: Iterable[Scope]) -> faults.Fault | None:
        """What a caller is told one of whose budgets is used up, with the seconds until it is anew; None if none is."""
        for scope, name, amount, now in self._set(scopes):
            spent = self._spent.get((scope.name, _period(name, now)))
            if spent is not None and (spent.cost if name in COSTS else spent.tokens) >= amount:
                return FAULTS[name].after(str(_left_s(name, now)))
        return None

    def spend(self, record: Mapping[str, Any]) -> Decimal:
        """Add a call that has ended, as both halves of its record say it, to the periods it was received in."""
        tokens, cost = record["generated"]["total_tokens"], self.owed(record)
        if not tokens and not cost:
            return cost
        day = f"{datetime.fromisoformat(record['at']).astimezone(self._zone):%Y-%m-%d}"
        self.add(day, ("all", f"key:{record['key_id']}", f"model:{record['model']}"), tokens, cost)
        return cost

    def add(self, day: str, scopes: Iterable[str], tokens: int, cost: Decimal) -> None:
        """Add what was used in a day, to that day and its month.

        scopes: the names of those that used it
        """
        if day > self._day:
            self._forget(day)
        for scope in scopes:
            for period in (day, day[: periods.LENGTHS["month"]]):
                spent = self._spent.setdefault((scope, period), PeriodUse())
                spent.tokens += tokens
                spent.cost += cost

    def under(self, priced: Prices | None) -> Budgets:
        """These budgets by the prices of a configuration that is read anew."""
        return Budgets(self._zone, priced, self._clock_s, self._spent)

    def _forget(self, day: str) -> None:
        """A new day has begun; nobody asks for periods that are over."""
        self._day = day
        for what in [what for what in self._spent if what[1] not in {day, day[:7]}]:
            del self._spent[what]


def prices_of(settings: Settings) -> Prices | None:
    """What callers owe, as the prices file says it; None where there is none. Raises `SettingsError`."""
    if settings.prices_file is None:
        return None
    origin = settings.origins.get("prices_file", "default")
    try:
        priced = prices.load(settings.prices_file)
    except (PriceError, OSError) as error:
        raise SettingsError([f"prices_file ({origin}): {error}"]) from None
    if len(priced.currencies("callers")) > 1:
        raise SettingsError(
            [f"prices_file ({origin}): {settings.prices_file}: callers owe in several currencies, a limit is in one"]
        )
    if not priced.callers and any(limit.of_money for limit in said(settings)):
        raise SettingsError(
            [f"prices_file ({origin}): limits of money, cost_day and cost_month, need a row [[callers]] in it"]
        )
    return priced


def said(settings: Settings) -> Sequence[Limit]:
    """All limits that settings name; those of the keys file are not among them."""
    each = (settings.limits, settings.key_limits, *settings.model_limits.values())
    return [limit for limit in each if limit is not None]


def budgeted(settings: Settings, priced: Prices | None) -> Budgeted:
    """What limits of a day or a month the keys file may say."""
    if settings.workers > 1 and settings.redis_url is None:
        return "none"
    return "money" if priced is not None and priced.callers else "tokens"


def _period(name: str, now: datetime) -> str:
    return f"{now:%Y-%m-%d}" if name in DAILY else f"{now:%Y-%m}"


def _left_s(name: str, now: datetime) -> int:
    """Seconds until the period is over, the one that has begun included; across a change of the clocks, too."""
    if name in DAILY:
        end = datetime(now.year, now.month, now.day, tzinfo=now.tzinfo) + timedelta(days=1)
    else:
        end = datetime(now.year + now.month // 12, now.month % 12 + 1, 1, tzinfo=now.tzinfo)
    return math.ceil(end.timestamp() - now.timestamp())
