"""Limits into decisions, all or nothing: a call fits everyone's, its key's and its model's allowance, or is refused.

Each limit is a meter that a call fills and time drains, at an even pace; whole numbers all through, so that a refund is
exact. `memory_limiter` keeps them in this process, `redis_limiter` in a Redis. Source: spec LIM-1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Final, Literal, NamedTuple, Protocol

from config.settings import Settings
from config.values import BUDGETS, COSTS, Budget, Limit
from translators import faults

Kind = Literal["concurrency", "burst", "rpm", "tpm"] | Budget

# What a caller is told who is over a limit of a kind; the proxy's capacity is not upstream's, though it reads the same.
FAULTS: Final[dict[Kind, faults.Fault]] = {
    "concurrency": replace(faults.OVERLOADED, blame="caller"),
    "burst": faults.BURST_LIMITED,
    "rpm": faults.RATE_LIMITED,
    "tpm": faults.QUOTA_EXCEEDED,
    "tpd": faults.QUOTA_EXCEEDED,
    "tokens_month": faults.QUOTA_EXCEEDED,
    "cost_day": faults.QUOTA_EXCEEDED,
    "cost_month": faults.QUOTA_EXCEEDED,
}
# The time in which a full meter drains; a call that is open drains when it ends.
PERIODS_MS: Final[dict[Kind, int]] = {"concurrency": 0, "burst": 1_000, "rpm": 60_000, "tpm": 60_000}
# Nobody knows when an open call ends: a caller over that limit is told to come back in so long.
OPEN_CALL_MS: Final = 1_000
# Low levels that are kept of a meter, so that a late end gives back no more than it still holds; beyond so many,
# neighbours count as the lower of the two.
MOST_LOWS: Final = 64
# Money is counted in whole units of so much of its currency: the cost of a token at a thousandth of a cent a million.
UNIT: Final = Decimal("1e-10")
NO_MONEY: Final = Decimal(0)


@dataclass(frozen=True, slots=True)
class Scope:
    """Whose allowance: `all`, `key:FINGERPRINT` or `model:ID`, and how much it is."""

    name: str
    limit: Limit


class Demand(NamedTuple):
    """What one call takes from one meter.

    meter:     its name: scope and kind; of a budget, the day or month as well
    kind:      what it measures
    amount:    how much it holds: calls, tokens, or money in `UNIT`
    period_ms: the time in which that much drains; 0 for open calls; of a budget, which does not drain, the time that
               is left of its day or month, below 0
    cost:      how much the call takes; tokens at most the amount, or a long call could never be let in; of a budget
               nothing, a call counts when it has ended
    before:    tokens that the same call has taken from it in an earlier step
    """

    meter: str
    kind: Kind
    amount: int
    period_ms: int
    cost: int
    before: int = 0


# Meters, each with what is added to it.
Changes = tuple[tuple[Demand, int], ...]


@dataclass(frozen=True, slots=True)
class Refused:
    """A call over a limit: what its caller is told, `Retry-After` included; nothing was taken."""

    fault: faults.Fault


class Reservation(Protocol):
    """What one call has taken. It ends in one of three ways, the first of which counts; none blocks or raises."""

    def settle(self, tokens_used: int, *, in_part: bool = False, cost: Decimal = NO_MONEY) -> None:
        """End the call at the tokens it used.

        in_part: what is above this reservation is settled with the call's other one
        cost:    what its caller owes, where budgets are counted with the limits
        """

    def refund(self) -> None:
        """End a failed call: its tokens are given back, its place in calls a minute is not."""

    def release(self) -> None:
        """End a call of unknown use at what was reserved."""


class Joined:
    """What one call has taken in two steps.

    first: the call, and the tokens that were known of then
    more:  the tokens that have come to it
    """

    __slots__ = ("_first", "_more")

    def __init__(self, first: Reservation, more: Reservation) -> None:
        self._first = first
        self._more = more

    def settle(self, tokens_used: int, *, in_part: bool = False, cost: Decimal = NO_MONEY) -> None:
        """See `Reservation`."""
        self._first.settle(tokens_used, in_part=True, cost=cost)
        self._more.settle(tokens_used, in_part=in_part)

    def refund(self) -> None:
        """See `Reservation`."""
        self._first.refund()
        self._more.refund()

    def release(self) -> None:
        """See `Reservation`."""
        self._first.release()
        self._more.release()


class Limiter(Protocol):
    """Decides which calls are let in, by limits."""

    async def reserve(
        self, scopes: Sequence[Scope], tokens: int, held: int | None = None, budgets: Sequence[Demand] = ()
    ) -> Reservation | Refused:
        """Reserve one call of so many tokens in all scopes, or, where one has no room, in none.

        tokens:  the most it can be: its prompt and the longest answer it may get
        held:    what the same call has taken before: these tokens come on top of it, and it is not one call more
        budgets: of a day or a month, that must have something left, and count the call when it has ended
        """


def scopes(settings: Settings, model: str, key_id: str | None = None, own: Limit | None = None) -> tuple[Scope, ...]:
    """Whose allowances a call takes from.

    model:  the id it asks for
    key_id: the fingerprint of its key; without a key there is no allowance of a key
    own:    what the keys file says of this key, else `key_limits` counts
    """
    if own is None and not (settings.limits or settings.key_limits or settings.model_limits):
        return ()
    each = (
        ("all", settings.limits),
        (f"key:{key_id}", (own or settings.key_limits) if key_id else None),
        (f"model:{model}", settings.model_limits.get(model)),
    )
    return tuple(Scope(name, limit) for name, limit in each if limit is not None)


def demands(taken_from: Iterable[Scope], tokens: int, held: int | None = None) -> Iterator[Demand]:
    """What a call takes, meter by meter; see `Limiter.reserve`."""
    before = held or 0
    for scope in taken_from:
        for kind, period_ms in PERIODS_MS.items():
            amount: int | None = getattr(scope.limit, kind)
            if amount is None:
                continue
            meter = f"{scope.name}:{kind}"
            if kind == "tpm":
                taken = min(before, amount)
                yield Demand(meter, kind, amount, period_ms, min(before + tokens, amount) - taken, taken)
            elif held is None:
                yield Demand(meter, kind, amount, period_ms, 1)


def refused(demand: Demand, wait_ms: int) -> Refused:
    """The refusal of a call that is over one meter's limit, with the time after which it fits."""
    return Refused(FAULTS[demand.kind].after(str(max(1, math.ceil(wait_ms / 1_000)))))


def returned(demand: Demand, tokens_used: int | None, *, in_part: bool = False, cost: Decimal = NO_MONEY) -> int:
    """What the end of a call adds to a meter: negative where it used less than it reserved.

    tokens_used:   None where nobody knows
    in_part, cost: see `Reservation.settle`
    """
    if demand.kind == "concurrency":
        return -demand.cost
    if demand.kind in BUDGETS:
        return round(cost / UNIT) if demand.kind in COSTS else tokens_used or 0
    if demand.kind != "tpm" or tokens_used is None:
        return 0
    more = max(tokens_used - demand.before, 0) - demand.cost
    return min(more, 0) if in_part else more


def changes(
    asked: Iterable[Demand], tokens_used: int | None, *, in_part: bool = False, cost: Decimal = NO_MONEY
) -> Changes:
    """What the end of a call adds to each meter; see `returned`."""
    return tuple((demand, returned(demand, tokens_used, in_part=in_part, cost=cost)) for demand in asked)


class Taken:
    """A reservation that reports its end to its limiter, once.

    give_back: takes what the end adds to each meter
    """

    __slots__ = ("_asked", "_give_back", "_open")

    def __init__(self, asked: Sequence[Demand], give_back: Callable[[Changes], None]) -> None:
        self._asked = asked
        self._give_back = give_back
        self._open = True

    def settle(self, tokens_used: int, *, in_part: bool = False, cost: Decimal = NO_MONEY) -> None:
        """See `Reservation`."""
        self._end(tokens_used, in_part=in_part, cost=cost)

    def refund(self) -> None:
        """See `Reservation`."""
        self._end(0)

    def release(self) -> None:
        """See `Reservation`."""
        self._end(None)

    def _end(self, tokens_used: int | None, *, in_part: bool = False, cost: Decimal = NO_MONEY) -> None:
        if self._open:
            self._open = False
            self._give_back(changes(self._asked, tokens_used, in_part=in_part, cost=cost))
