"""The limits of one process in its memory: one bucket a limit, decided without ever waiting (spec LIM-1)."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from proxy.admission.limits import (
    OPEN_CALL_MS,
    PERIODS_MS,
    Demand,
    Refused,
    Reservation,
    Scope,
    Taken,
    demands,
    refused,
    returned,
)

# How many meters are kept before those that have drained are looked for; callers can invent keys, not memory.
SWEEP_AT: Final = 4_096


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


class MemoryLimiter:
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
