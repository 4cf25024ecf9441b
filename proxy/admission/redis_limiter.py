"""The limits of several processes into one Redis: the meters of `limits`, one round trip a decision, atomic by script.

Redis's clock counts, not the processes'. An open call holds a lease that its process renews, so that the calls of a
process that has died are over when their leases are. Needs the extra `redis`. Source: spec LIM-1.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, Final, Literal

import structlog
from redis import asyncio as redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from proxy.admission import limits
from proxy.admission.limits import Demand, Refused, Reservation, Scope, Taken
from translators import faults

log = structlog.get_logger()

Policy = Literal["open", "closed"]

# In braces, so that a cluster keeps all meters of a decision on one node.
PREFIX: Final = "{dashseek}:"
# A call that waits for a limiter is a call that waits: an answer later than this counts as none.
TIMEOUT_S: Final = 0.25
# So many scripts run at a time, the rest wait their turn: a flood of calls must not look like a Redis that is away.
AT_ONCE: Final = 32
# After a failure Redis is left alone for so long; calls meanwhile go by the policy at once.
REST_S: Final = 1.0
LEASE_MS: Final = 60_000
RENEW_EVERY_S: Final = 20.0
# At the end, so long for the last settlements to arrive.
FAREWELL_S: Final = 1.0
AWAY: Final = replace(faults.UNAVAILABLE, blame="operator", retry_after="1")

# Both scripts get the meters as KEYS and, after their own arguments, for each one: amount, period in ms, change.
# A period of 0 is a set of leases; else a meter is a hash of its level and the time it had it.
METERS: Final = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local function row(i)
    return tonumber(ARGV[3 * i]), tonumber(ARGV[3 * i + 1]), tonumber(ARGV[3 * i + 2])
end
local function drained(key, amount)
    local kept = redis.call('HMGET', key, 'level', 'at')
    local passed = math.max(0, now - (tonumber(kept[2]) or now))
    return math.max(0, (tonumber(kept[1]) or 0) - passed * amount)
end
local function keep(key, level, amount, period)
    if level <= 0 then
        redis.call('DEL', key)
    else
        redis.call('HSET', key, 'level', string.format('%.0f', level), 'at', string.format('%.0f', now))
        redis.call('PEXPIRE', key, math.ceil(level / amount) + 1000)
    end
end
"""

# ARGV: the call's name, its lease in ms. Returns the meter with the longest wait, and that in ms; 0, 0: all was taken.
RESERVE: Final = (
    METERS
    + """
local worst, longest = 0, 0
local levels = {}
for i, key in ipairs(KEYS) do
    local amount, period, cost = row(i)
    local wait = 0
    if period == 0 then
        redis.call('ZREMRANGEBYSCORE', key, '-inf', now)
        if redis.call('ZCARD', key) + cost > amount then wait = OPEN_CALL_MS end
    else
        levels[i] = drained(key, amount) + cost * period
        wait = math.ceil((levels[i] - amount * period) / amount)
    end
    if wait > longest then worst, longest = i, wait end
end
if worst > 0 then return {worst, longest} end
for i, key in ipairs(KEYS) do
    local amount, period = row(i)
    if period == 0 then
        redis.call('ZADD', key, now + ARGV[2], ARGV[1])
        redis.call('PEXPIRE', key, ARGV[2])
    else
        keep(key, levels[i], amount, period)
    end
end
return {0, 0}
""".replace("OPEN_CALL_MS", str(limits.OPEN_CALL_MS))
)

SETTLE: Final = (
    METERS
    + """
for i, key in ipairs(KEYS) do
    local amount, period, change = row(i)
    if period == 0 then
        redis.call('ZREM', key, ARGV[1])
    else
        local before = drained(key, amount)
        keep(key, math.min(math.max(before + change * period, 0), math.max(amount * period, before)), amount, period)
    end
end
"""
)

# KEYS: sets of leases. ARGV: the lease in ms, then for each set one call in it.
RENEW: Final = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
for i, key in ipairs(KEYS) do
    redis.call('ZADD', key, 'XX', now + ARGV[1], ARGV[i + 1])
    redis.call('PEXPIRE', key, ARGV[1])
end
"""


class Unchecked:
    """The reservation of a call that was let in while nobody could count: there is nothing to give back."""

    def settle(self, tokens_used: int) -> None:
        """See `limits.Reservation`."""

    def refund(self) -> None:
        """See `limits.Reservation`."""

    def release(self) -> None:
        """See `limits.Reservation`."""


class RedisLimiter:
    """A limiter for all processes on one Redis.

    unchecked: calls that were let in, or refused, by the policy alone
    unsettled: reservations whose end could not be told; they drain as if all was used
    """

    def __init__(self, client: redis.Redis, policy: Policy, clock: Callable[[], float] = time.monotonic) -> None:
        self._policy = policy
        self._clock = clock
        self._reserve = client.register_script(RESERVE)
        self._settle = client.register_script(SETTLE)
        self._renew = client.register_script(RENEW)
        self._leases: dict[str, tuple[str, ...]] = {}
        self._settling: set[asyncio.Future[Any]] = set()
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._away = False
        self._rest_until_s = 0.0
        self.unchecked = 0
        self.unsettled = 0

    async def reserve(self, scopes: Sequence[Scope], tokens: int) -> Reservation | Refused:
        """Decide in one round trip; where there is no answer in time, by the policy."""
        asked = tuple(limits.demands(scopes, tokens))
        if not asked:
            return Unchecked()
        name = uuid.uuid4().hex
        rows = (part for demand in asked for part in (demand.amount, demand.period_ms, demand.cost))
        asking = asyncio.ensure_future(self._ask(self._reserve, _keys(asked), [name, LEASE_MS, *rows]))
        try:
            worst, wait_ms = await asyncio.shield(asking)
        except (RedisError, OSError):
            self.unchecked += 1
            return Unchecked() if self._policy == "open" else Refused(AWAY)
        except asyncio.CancelledError:
            # The caller has left while Redis was deciding: what it takes is given back.
            asking.add_done_callback(lambda _: self._undo(name, asked, asking))
            self._keep(asking)
            raise
        if worst:
            return limits.refused(asked[worst - 1], wait_ms)
        self._leases[name] = _keys(demand for demand in asked if not demand.period_ms)
        return Taken(asked, lambda _, tokens_used: self._end(name, asked, tokens_used))

    async def keep_leases(self) -> None:
        """Renew the leases of the calls that are open, until cancelled."""
        while True:
            await asyncio.sleep(RENEW_EVERY_S)
            held = [(key, name) for name, keys in self._leases.items() for key in keys]
            if held:
                with contextlib.suppress(RedisError, OSError):
                    await self._ask(self._renew, [key for key, _ in held], [LEASE_MS, *(name for _, name in held)])

    async def settled(self) -> None:
        """Wait until all reservations that have ended, or were given up, are settled."""
        while self._settling:
            await asyncio.wait(self._settling)

    def _undo(self, name: str, asked: Sequence[Demand], asking: asyncio.Future[list[int]]) -> None:
        if not asking.cancelled() and asking.exception() is None and asking.result()[0] == 0:
            self._end(name, asked, 0)

    def _end(self, name: str, asked: Sequence[Demand], tokens_used: int | None) -> None:
        """Settle in a task of its own: whoever ends a call may be a `finally` that is being cancelled."""
        self._leases.pop(name, None)
        changes = [(demand, limits.returned(demand, tokens_used)) for demand in asked]
        changed = [(demand, change) for demand, change in changes if change]
        if changed:
            self._keep(asyncio.ensure_future(self._tell(name, changed)))

    def _keep(self, task: asyncio.Future[Any]) -> None:
        self._settling.add(task)
        task.add_done_callback(self._settling.discard)

    async def _tell(self, name: str, changed: Sequence[tuple[Demand, int]]) -> None:
        rows = (part for demand, change in changed for part in (demand.amount, demand.period_ms, change))
        try:
            await self._ask(self._settle, _keys(demand for demand, _ in changed), [name, "", *rows])
        except (RedisError, OSError):
            self.unsettled += 1

    async def _ask(self, script: Any, keys: Sequence[str], arguments: Sequence[str | int]) -> Any:
        """Run a script; a Redis that was away a moment ago is not asked."""
        async with self._turns:
            if self._away and self._clock() < self._rest_until_s:
                raise RedisError("away")
            try:
                async with asyncio.timeout(TIMEOUT_S):
                    answer = await script(keys=keys, args=arguments)
            except (RedisError, OSError) as error:
                if not self._away:
                    log.error("redis_away", policy=self._policy, error=type(error).__name__)
                self._away = True
                self._rest_until_s = self._clock() + REST_S
                raise
        if self._away:
            self._away = False
            log.warning("redis_back", unchecked=self.unchecked, unsettled=self.unsettled)
        return answer


def _keys(asked: Iterable[Demand]) -> tuple[str, ...]:
    return tuple(PREFIX + demand.meter for demand in asked)


@asynccontextmanager
async def opened(url: str, policy: Policy) -> AsyncIterator[RedisLimiter]:
    """The limiter on the Redis at a URL, as long as the context lives; it need not be there yet."""
    # One retry, without waiting: a pooled connection may have died since its last use. A demand that is counted twice
    # for it is on the safe side.
    client: redis.Redis = redis.Redis.from_url(
        url, socket_connect_timeout=TIMEOUT_S, socket_timeout=TIMEOUT_S, retry=Retry(NoBackoff(), 1)
    )
    shared = RedisLimiter(client, policy)
    renewing = asyncio.create_task(shared.keep_leases())
    try:
        yield shared
    finally:
        renewing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await renewing
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FAREWELL_S):
                await shared.settled()
        await client.aclose()
