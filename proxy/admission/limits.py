"""Limits into decisions: what a call needs is taken from everyone's, its key's and its model's allowance, or from none.

Each limit is a meter that a call fills and time drains, at an even pace; whole numbers all through, so that a refund is
exact. Here they live in this process's memory; `shared_limits` keeps the same meters in a Redis. Source: spec LIM-1.
"""

from __future__ import annotations

import math
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Final, Literal, NamedTuple, Protocol

from config.settings import Settings, SettingsError
from config.values import Limit
from translators import faults

Kind = Literal["concurrency", "burst", "rpm", "tpm"]

# What a caller is told who is over a limit of a kind; the proxy's capacity is not upstream's, though it reads the same.
FAULTS: Final[dict[Kind, faults.Fault]] = {
    "concurrency": replace(faults.OVERLOADED, blame="caller"),
    "burst": faults.BURST_LIMITED,
    "rpm": faults.RATE_LIMITED,
    "tpm": faults.QUOTA_EXCEEDED,
}
# The time in which a full meter drains; a call that is open drains when it ends.
PERIODS_MS: Final[dict[Kind, int]] = {"concurrency": 0, "burst": 1_000, "rpm": 60_000, "tpm": 60_000}
# Nobody knows when an open call ends: a caller over that limit is told to come back in so long.
OPEN_CALL_MS: Final = 1_000
# How many meters are kept before those that have drained are looked for; callers can invent keys, not memory.
SWEEP_AT: Final = 4_096


@dataclass(frozen=True, slots=True)
class Scope:
    """Whose allowance: `all`, `key:FINGERPRINT` or `model:ID`, and how much it is."""

    name: str
    limit: Limit


class Demand(NamedTuple):
    """What one call takes from one meter.

    meter:     its name: scope and kind
    kind:      what it measures
    amount:    how much it holds: calls or tokens
    period_ms: the time in which that much drains; 0 for open calls
    cost:      how much the call takes; tokens at most the amount, or a long call could never be let in
    """

    meter: str
    kind: Kind
    amount: int
    period_ms: int
    cost: int


@dataclass(frozen=True, slots=True)
class Refused:
    """A call over a limit: what its caller is told, `Retry-After` included; nothing was taken."""

    fault: faults.Fault


class Reservation(Protocol):
    """What one call has taken. It ends in one of three ways, the first of which counts; none blocks or raises."""

    def settle(self, tokens_used: int) -> None:
        """The call has ended: these are the tokens it was worth."""

    def refund(self) -> None:
        """The call has failed: it was worth no tokens. It was a call all the same."""

    def release(self) -> None:
        """The call has ended and nobody knows what it was worth: it was worth what was reserved."""


class Limiter(Protocol):
    """Lets calls in."""

    async def reserve(self, scopes: Sequence[Scope], tokens: int) -> Reservation | Refused:
        """Take one call of so many tokens from all scopes, or from none.

        tokens: the most it can be: its prompt and the longest answer it may get
        """


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[Limiter]:
    """The limiter an operator asked for, as long as the context lives.

    Raises `SettingsError` where it is to be in a Redis and the client for that is not installed.
    """
    if settings.redis_url is None:
        yield Memory()
        return
    try:
        from proxy.admission import redis_limiter  # noqa: PLC0415 - needs an extra that most do not need
    except ModuleNotFoundError:
        origin = settings.origins.get("redis_url", "default")
        raise SettingsError([f"redis_url ({origin}): needs the Redis client: pip install 'dashseek[redis]'"]) from None
    async with redis_limiter.opened(settings.redis_url.get_secret_value(), settings.redis_policy) as shared:
        yield shared


def scopes(settings: Settings, model: str, key_id: str | None = None, own: Limit | None = None) -> tuple[Scope, ...]:
    """Whose allowances a call takes from.

    model:  the id it asks for
    key_id: the fingerprint of its key; without a key there is no allowance of a key
    own:    what the keys file says of this key, else `key_limits` counts
    """
    each = (
        ("all", settings.limits),
        (f"key:{key_id}", (own or settings.key_limits) if key_id else None),
        (f"model:{model}", settings.model_limits.get(model)),
    )
    return tuple(Scope(name, limit) for name, limit in each if limit is not None)


def demands(taken_from: Iterable[Scope], tokens: int) -> Iterator[Demand]:
    """What a call takes, meter by meter."""
    for scope in taken_from:
        for kind, period_ms in PERIODS_MS.items():
            amount: int | None = getattr(scope.limit, kind)
            if amount is not None:
                cost = min(tokens, amount) if kind == "tpm" else 1
                yield Demand(f"{scope.name}:{kind}", kind, amount, period_ms, cost)


def refused(demand: Demand, wait_ms: int) -> Refused:
    """The refusal of a call that one meter has no room for until so long from now."""
    return Refused(FAULTS[demand.kind].after(str(max(1, math.ceil(wait_ms / 1_000)))))


def now_ms() -> int:
    """A clock that never goes back, in whole milliseconds."""
    return time.monotonic_ns() // 1_000_000


@dataclass(slots=True)
class Bucket:
    """How full one meter is: in units of which a call or token is `period_ms` and `amount` drain every millisecond."""

    level: int = 0
    at_ms: int = 0

    def drained(self, demand: Demand, at_ms: int) -> int:
        """The level at a time; open calls do not drain."""
        return max(0, self.level - (at_ms - self.at_ms) * demand.amount * bool(demand.period_ms))


class Memory:
    """A limiter for one process.

    clock_ms: milliseconds, whole and monotonic
    """

    def __init__(self, clock_ms: Callable[[], int] = now_ms) -> None:
        self._clock_ms = clock_ms
        self._meters: dict[str, Bucket] = {}
        self._sweep_at = SWEEP_AT

    async def reserve(self, scopes: Sequence[Scope], tokens: int) -> Reservation | Refused:
        """Decide without ever waiting, so that no other call can come between."""
        at_ms = self._clock_ms()
        asked = tuple(demands(scopes, tokens))
        waits_ms = [self._wait_ms(demand, at_ms) for demand in asked]
        if any(waits_ms):
            longest = max(waits_ms)
            return refused(asked[waits_ms.index(longest)], longest)
        for demand in asked:
            self._fill(demand, demand.cost, at_ms)
        self._sweep(at_ms)
        return Taken(asked, self._give_back)

    def _wait_ms(self, demand: Demand, at_ms: int) -> int:
        meter = self._meters.get(demand.meter)
        level = meter.drained(demand, at_ms) if meter else 0
        unit = demand.period_ms or 1
        excess = level + demand.cost * unit - demand.amount * unit
        if excess <= 0:
            return 0
        return math.ceil(excess / demand.amount) if demand.period_ms else OPEN_CALL_MS

    def _fill(self, demand: Demand, cost: int, at_ms: int) -> None:
        """Add to a meter, or take from it; it never falls below empty, and only a smaller limit finds it above full."""
        meter = self._meters.setdefault(demand.meter, Bucket(0, at_ms))
        unit = demand.period_ms or 1
        drained = meter.drained(demand, at_ms)
        meter.level = min(max(drained + cost * unit, 0), max(demand.amount * unit, drained))
        meter.at_ms = at_ms

    def _give_back(self, asked: Sequence[Demand], tokens_used: int | None) -> None:
        at_ms = self._clock_ms()
        for demand in asked:
            change = returned(demand, tokens_used)
            if change:
                self._fill(demand, change, at_ms)

    def _sweep(self, at_ms: int) -> None:
        """Forget meters that must be empty by now, once there are many: an absent one is an empty one."""
        if len(self._meters) < self._sweep_at:
            return
        longest_ms = max(PERIODS_MS.values())
        self._meters = {
            name: meter
            for name, meter in self._meters.items()
            if meter.level and (name.endswith(":concurrency") or at_ms - meter.at_ms < longest_ms)
        }
        self._sweep_at = max(SWEEP_AT, 2 * len(self._meters))


def returned(demand: Demand, tokens_used: int | None) -> int:
    """What the end of a call adds to a meter; most often less than nothing.

    tokens_used: None where nobody knows
    """
    if demand.kind == "concurrency":
        return -demand.cost
    return tokens_used - demand.cost if demand.kind == "tpm" and tokens_used is not None else 0


class Taken:
    """A reservation: it tells its limiter once how it ended.

    give_back: takes what was taken, and the tokens used where they are known
    """

    __slots__ = ("_asked", "_give_back", "_open")

    def __init__(self, asked: Sequence[Demand], give_back: Callable[[Sequence[Demand], int | None], None]) -> None:
        self._asked = asked
        self._give_back = give_back
        self._open = True

    def settle(self, tokens_used: int) -> None:
        """See `Reservation`."""
        self._end(tokens_used)

    def refund(self) -> None:
        """See `Reservation`."""
        self._end(0)

    def release(self) -> None:
        """See `Reservation`."""
        self._end(None)

    def _end(self, tokens_used: int | None) -> None:
        if self._open:
            self._open = False
            self._give_back(self._asked, tokens_used)
