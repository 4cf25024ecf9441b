"""The limits of one process in its memory: one bucket a limit, decided without ever waiting (spec LIM-1)."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from proxy.admission.limits import (
    OPEN_CALL_MS,
    Demand,
    Refused,
    Reservation,
    Scope,
    Taken,
    demands,
    refused,
    returned,
)

# How many buckets are kept before those that have drained are looked for; callers can invent keys, not memory.
SWEEP_AT: Final = 4_096


def now_ms() -> int:
    """A clock that never goes back, in whole milliseconds."""
    return time.monotonic_ns() // 1_000_000


@dataclass(slots=True)
class Bucket:
    """How full one limit is: in units of which a call or token is `period_ms` and `amount` drain every millisecond."""

    level: int = 0
    at_ms: int = 0
    # When it will have drained, if nothing is added.
    empty_ms: float = 0

    def drained(self, demand: Demand, at_ms: int) -> int:
        """The level at a time; open calls do not drain."""
        return max(0, self.level - (at_ms - self.at_ms) * demand.amount * bool(demand.period_ms))


class MemoryLimiter:
    """A limiter for one process.

    clock_ms: milliseconds, whole and monotonic
    """

    def __init__(self, clock_ms: Callable[[], int] = now_ms) -> None:
        self._clock_ms = clock_ms
        self._buckets: dict[str, Bucket] = {}
        self._sweep_at = SWEEP_AT

    async def reserve(self, scopes: Sequence[Scope], tokens: int, held: int | None = None) -> Reservation | Refused:
        """Decide without ever waiting, so that no other call can come between."""
        at_ms = self._clock_ms()
        asked = tuple(demands(scopes, tokens, held))
        waits_ms = [self._wait_ms(demand, at_ms) for demand in asked]
        if any(waits_ms):
            longest = max(waits_ms)
            return refused(asked[waits_ms.index(longest)], longest)
        for demand in asked:
            self._fill(demand, demand.cost, at_ms)
        self._sweep(at_ms)
        return Taken(asked, self._give_back)

    def _wait_ms(self, demand: Demand, at_ms: int) -> int:
        bucket = self._buckets.get(demand.meter)
        level = bucket.drained(demand, at_ms) if bucket else 0
        unit = demand.period_ms or 1
        excess = level + demand.cost * unit - demand.amount * unit
        if excess <= 0:
            return 0
        return math.ceil(excess / demand.amount) if demand.period_ms else OPEN_CALL_MS

    def _fill(self, demand: Demand, cost: int, at_ms: int) -> None:
        """Add to a bucket, or take from it: never below empty; above full where a call has used more than it took."""
        bucket = self._buckets.setdefault(demand.meter, Bucket(0, at_ms))
        bucket.level = max(bucket.drained(demand, at_ms) + cost * (demand.period_ms or 1), 0)
        bucket.at_ms = at_ms
        bucket.empty_ms = at_ms + math.ceil(bucket.level / demand.amount) if demand.period_ms else math.inf

    def _give_back(self, asked: Sequence[Demand], tokens_used: int | None) -> None:
        at_ms = self._clock_ms()
        for demand in asked:
            change = returned(demand, tokens_used)
            if change:
                self._fill(demand, change, at_ms)

    def _sweep(self, at_ms: int) -> None:
        """Forget buckets that must be empty by now, once there are many: an absent one is an empty one."""
        if len(self._buckets) < self._sweep_at:
            return
        self._buckets = {
            name: bucket for name, bucket in self._buckets.items() if bucket.level and bucket.empty_ms > at_ms
        }
        self._sweep_at = max(SWEEP_AT, 2 * len(self._buckets))
