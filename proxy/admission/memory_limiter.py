"""The limits of one process in its memory: one bucket a limit, decided without ever waiting (spec LIM-1)."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from proxy.admission.limits import (
    MOST_LOWS,
    OPEN_CALL_MS,
    Changes,
    Demand,
    Refused,
    Reservation,
    Scope,
    Taken,
    demands,
    refused,
)

# How many buckets are kept before those that have drained are looked for; callers can invent keys, not memory.
SWEEP_AT: Final = 4_096


def now_ms() -> int:
    """A clock that never goes back, in whole milliseconds."""
    return time.monotonic_ns() // 1_000_000


@dataclass(slots=True)
class Bucket:
    """How full one limit is: in units of which a call or token is `period_ms` and `amount` drain every millisecond.

    level:    at `at_ms`
    empty_ms: when it will have drained, if nothing is added
    lows:     numbers of reservations, rising, each with the lowest level since the one before: what was given back
              later than that had drained down to there (`Bucket.give_back`)
    """

    level: int
    at_ms: int
    empty_ms: float
    lows: list[tuple[int, int]] = field(default_factory=list, compare=False)

    def drained(self, demand: Demand, at_ms: int) -> int:
        """The level at a time; open calls do not drain."""
        return max(0, self.level - (at_ms - self.at_ms) * demand.amount * bool(demand.period_ms))

    def note(self, number: int, level: int) -> None:
        """Remember the level just before a reservation is added."""
        lows = self.lows
        while lows and lows[-1][1] >= level:
            lows.pop()
        lows.append((number, level))
        if len(lows) > MOST_LOWS:
            at = min(range(1, len(lows)), key=lambda one: lows[one][1] - lows[one - 1][1])
            lows[at - 1 : at + 1] = [(lows[at][0], lows[at - 1][1])]

    def give_back(self, number: int, unused: int) -> None:
        """Take out what a reservation has not used, as far as it has not drained: as if it had never been added.

        Without it the bucket would have been empty wherever it was lower than that; what was added since stays.
        """
        lows = self.lows
        later = next((at for at, (other, _) in enumerate(lows) if other > number), len(lows))
        if later < len(lows):
            unused = min(unused, lows[later][1])
            lows[later:] = [(other, low - unused) for other, low in lows[later:]]
            while later and lows[later - 1][1] >= lows[later][1]:
                later -= 1
                del lows[later]
        self.level -= min(unused, self.level)


class MemoryLimiter:
    """A limiter for one process.

    clock_ms: milliseconds, whole and monotonic
    """

    def __init__(self, clock_ms: Callable[[], int] = now_ms) -> None:
        self._clock_ms = clock_ms
        self._buckets: dict[str, Bucket] = {}
        self._numbers = itertools.count()
        self._sweep_at = SWEEP_AT

    async def reserve(
        self,
        scopes: Sequence[Scope],
        tokens: int,
        held: int | None = None,
        budgets: Sequence[Demand] = (),  # noqa: ARG002 - see below
    ) -> Reservation | Refused:
        """Decide without ever waiting, so that no other call can come between.

        budgets: none: in one process they are kept by whoever reads the journal for them
        """
        at_ms = self._clock_ms()
        asked = tuple(demands(scopes, tokens, held))
        waits_ms = [self._wait_ms(demand, at_ms) for demand in asked]
        if any(waits_ms):
            longest = max(waits_ms)
            return refused(asked[waits_ms.index(longest)], longest)
        number = next(self._numbers)
        for demand in asked:
            self._add(demand, demand.cost, at_ms, number)
        self._sweep(at_ms)
        return Taken(asked, partial(self._give_back, number))

    def _wait_ms(self, demand: Demand, at_ms: int) -> int:
        bucket = self._buckets.get(demand.meter)
        level = bucket.drained(demand, at_ms) if bucket else 0
        unit = demand.period_ms or 1
        excess = level + demand.cost * unit - demand.amount * unit
        if excess <= 0 or not demand.cost:
            return 0
        return math.ceil(excess / demand.amount) if demand.period_ms else OPEN_CALL_MS

    def _add(self, demand: Demand, cost: int, at_ms: int, number: int) -> None:
        """Add to a bucket; above full where a call has used more than it took."""
        bucket = self._buckets.setdefault(demand.meter, Bucket(0, at_ms, at_ms))
        level = bucket.drained(demand, at_ms)
        if demand.kind == "tpm":
            bucket.note(number, level)
        bucket.level = level + cost * (demand.period_ms or 1)
        self._looked_at(bucket, demand, at_ms)

    def _give_back(self, number: int, changes: Changes) -> None:
        at_ms = self._clock_ms()
        for demand, change in changes:
            if change > 0:
                self._add(demand, change, at_ms, next(self._numbers))
            elif change and (bucket := self._buckets.get(demand.meter)) is not None:
                bucket.level = bucket.drained(demand, at_ms)
                bucket.give_back(number, -change * (demand.period_ms or 1))
                self._looked_at(bucket, demand, at_ms)

    def _looked_at(self, bucket: Bucket, demand: Demand, at_ms: int) -> None:
        bucket.at_ms = at_ms
        bucket.empty_ms = at_ms + math.ceil(bucket.level / demand.amount) if demand.period_ms else math.inf

    def _sweep(self, at_ms: int) -> None:
        """Forget buckets that must be empty by now, once there are many: an absent one is an empty one."""
        if len(self._buckets) < self._sweep_at:
            return
        self._buckets = {
            name: bucket for name, bucket in self._buckets.items() if bucket.level and bucket.empty_ms > at_ms
        }
        self._sweep_at = max(SWEEP_AT, 2 * len(self._buckets))
