"""The limits of several processes in one Redis: the meters of `limits`, one round trip a decision, atomic by script.

Redis's clock counts, not the processes'. An open call holds a lease that its process renews, so that the calls of a
process that has died are over when their leases are. A reservation whose answer was not awaited is undone as soon as
Redis speaks again, and its lease is over within a second by itself. What a restart makes Redis forget is forgotten:
calls that were open then are not counted any more. Budgets of a day or a month are beside the meters: who has some
left is let in, and what a call used counts when it has ended. Needs the extra `redis`. Source: spec LIM-1.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import partial
from typing import Any, Final, Literal

import structlog
from redis import asyncio as redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from proxy.admission import limits
from proxy.admission.limits import Changes, Demand, Refused, Reservation, Scope, Taken
from translators import faults

log = structlog.get_logger()

Policy = Literal["open", "closed"]

# In braces, so that a cluster keeps all meters of a decision on one node.
PREFIX: Final = "{dashseek}:"
# A call that waits for a limiter is a call that waits: an answer later than this counts as none.
TIMEOUT_S: Final = 0.25
# So many scripts run at a time, the rest wait their turn: a flood of calls must not look like a Redis that is away.
AT_ONCE: Final = 32
# So often new leases are confirmed, and a Redis that was away is asked whether it is back; no call waits for that.
LOOK_EVERY_S: Final = 0.3
# What a reservation begins with: long enough to be confirmed in, and soon over where nobody has heard of it.
FIRST_LEASE_MS: Final = 1_000
# What its process renews: the calls of one that has died are over after so long.
LEASE_MS: Final = 60_000
LEASE_S: Final = LEASE_MS / 1e3
RENEW_EVERY_S: Final = 20.0
# A budget is kept so long beyond its day or month, for a clock that is set back and for calls that are still open.
KEPT_MS: Final = 2 * 86_400_000
# Leases in one script: Redis serves nobody else while it runs.
RENEWED_AT_ONCE: Final = 500
# At the end, so long for the last settlements to arrive.
FAREWELL_S: Final = 1.0
AWAY: Final = replace(faults.UNAVAILABLE, blame="operator", retry_after="1")

# Redis's own time in ms, in every script.
CLOCK: Final = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
"""

# RESERVE and SETTLE get the meters as KEYS, then the reservation's own key; ARGV are its name, an argument of the
# script's own, and for each meter: amount, period in ms, change. A period of 0 is a set of leases; else a meter is a
# hash of its level, the time it had it, and its lows: times, rising, each with the lowest level since the one before
# (`memory_limiter.Bucket`). A period below 0 is a budget, a number, and what is left of its time. The reservation's own
# key is `taken` and the time as long as the reservation stands, `undone` where it was given up, and `settled` where it
# had budgets; so each script can come twice, late, or in the wrong order, and counts once.
METERS: Final = (
    CLOCK
    + """
local reservation, meters = KEYS[#KEYS], #KEYS - 1
local function row(i)
    return tonumber(ARGV[3 * i]), tonumber(ARGV[3 * i + 1]), tonumber(ARGV[3 * i + 2])
end
local function expire(key, level, amount)
    redis.call('PEXPIRE', key, math.ceil(level / amount) + 1000)
end
local function drained(key, amount)
    local kept = redis.call('HMGET', key, 'level', 'at')
    local level, at = tonumber(kept[1]) or 0, tonumber(kept[2]) or now
    -- A clock that has gone back (a step, a failover) counts as standing still: from now on it drains again, and the
    -- time of a meter is mended also where the call is refused.
    if at > now then
        redis.call('HSET', key, 'at', string.format('%.0f', now))
        redis.call('HDEL', key, 'lows')
        expire(key, level, amount)
        return level
    end
    return math.max(0, level - (now - at) * amount)
end
local function keep(key, level, amount)
    if level <= 0 then
        redis.call('DEL', key)
    else
        redis.call('HSET', key, 'level', string.format('%.0f', level), 'at', string.format('%.0f', now))
        expire(key, level, amount)
    end
end
local function lows_of(key)
    local lows = {}
    for at, low in string.gmatch(redis.call('HGET', key, 'lows') or '', '(%d+):(%d+)') do
        lows[#lows + 1] = {tonumber(at), tonumber(low)}
    end
    return lows
end
local function keep_lows(key, lows)
    local words = {}
    for i, low in ipairs(lows) do words[i] = string.format('%.0f:%.0f', low[1], low[2]) end
    redis.call('HSET', key, 'lows', table.concat(words, ' '))
end
local function note(key, level)
    local lows = lows_of(key)
    while #lows > 0 and lows[#lows][2] >= level do table.remove(lows) end
    lows[#lows + 1] = {now, level}
    if #lows > MOST_LOWS then
        local nearest = 2
        for i = 3, #lows do
            if lows[i][2] - lows[i - 1][2] < lows[nearest][2] - lows[nearest - 1][2] then nearest = i end
        end
        lows[nearest][2] = lows[nearest - 1][2]
        table.remove(lows, nearest - 1)
    end
    keep_lows(key, lows)
end
local function give_back(key, level, amount, since, unused)
    local lows = lows_of(key)
    local later = #lows + 1
    while later > 1 and lows[later - 1][1] > since do later = later - 1 end
    if later <= #lows then
        unused = math.min(unused, lows[later][2])
        for i = later, #lows do lows[i][2] = lows[i][2] - unused end
        while later > 1 and lows[later - 1][2] >= lows[later][2] do
            table.remove(lows, later - 1)
            later = later - 1
        end
        keep_lows(key, lows)
    end
    keep(key, level - math.min(unused, level), amount)
end
"""
).replace("MOST_LOWS", str(limits.MOST_LOWS))

# Its own argument: the first lease in ms. Returns the meter with the longest wait, and that in ms; 0, 0: all was taken.
RESERVE: Final = (
    (
        METERS
        + """
if redis.call('EXISTS', reservation) == 1 then return {0, 0} end
local worst, longest = 0, 0
local levels = {}
for i = 1, meters do
    local key, amount, period, cost = KEYS[i], row(i)
    local wait = 0
    if period == 0 then
        redis.call('ZREMRANGEBYSCORE', key, '-inf', now)
        -- No lease is longer than a whole one, but for a clock that has gone back.
        for _, name in ipairs(redis.call('ZRANGEBYSCORE', key, '(' .. now + LEASE_MS, '+inf')) do
            redis.call('ZADD', key, now + LEASE_MS, name)
        end
        if redis.call('ZCARD', key) + cost > amount then wait = OPEN_CALL_MS end
    elseif period < 0 then
        if (tonumber(redis.call('GET', key)) or 0) >= amount then wait = -period end
    else
        levels[i] = drained(key, amount)
        -- The later step of a call that has filled it already waits for nothing.
        if cost > 0 then wait = math.ceil((levels[i] + (cost - amount) * period) / amount) end
    end
    if wait > longest then worst, longest = i, wait end
end
if worst > 0 then return {worst, longest} end
for i = 1, meters do
    local key, amount, period, cost = KEYS[i], row(i)
    if period == 0 then
        redis.call('ZADD', key, now + ARGV[2], ARGV[1])
        redis.call('PEXPIRE', key, LEASE_MS)
    elseif cost > 0 then
        keep(key, levels[i] + cost * period, amount)
        if string.sub(key, -4) == ':tpm' then note(key, levels[i]) end
    end
end
redis.call('SET', reservation, 'taken ' .. string.format('%.0f', now), 'PX', LEASE_MS)
return {0, 0}
"""
    )
    .replace("OPEN_CALL_MS", str(limits.OPEN_CALL_MS))
    .replace("LEASE_MS", str(LEASE_MS))
)

# Its own argument: `settled`, or `undone` where nobody has heard whether the reservation was made. What Redis does not
# know (any more) has drained, or was lost with all else: there is nothing to give back. What was used of a budget was
# used whatever Redis knows.
SETTLE: Final = (
    (
        METERS
        + """
local known, budgets = redis.call('GET', reservation) or '', false
local since = tonumber(string.match(known, '^taken (%d+)$'))
-- Where the clock has gone back behind it, every low counts as later.
if since and since > now then since = 0 end
for i = 1, meters do
    local key, amount, period, change = KEYS[i], row(i)
    if period == 0 then
        redis.call('ZREM', key, ARGV[1])
    elseif period < 0 then
        budgets = true
        if change > 0 and known ~= 'settled' and known ~= 'undone' then
            redis.call('INCRBY', key, ARGV[3 * i + 2])
            redis.call('PEXPIRE', key, KEPT_MS - period)
        end
    elseif since and change > 0 then
        local level = drained(key, amount)
        keep(key, level + change * period, amount)
        note(key, level)
    elseif since and change < 0 then
        give_back(key, drained(key, amount), amount, since, -change * period)
    end
end
if budgets or ARGV[2] == 'undone' then
    redis.call('SET', reservation, ARGV[2], 'PX', LEASE_MS)
else
    redis.call('DEL', reservation)
end
"""
    )
    .replace("LEASE_MS", str(LEASE_MS))
    .replace("KEPT_MS", str(KEPT_MS))
)

# KEYS: pairs of a reservation and a set of leases, or the reservation again where it is in none. ARGV: the lease in ms,
# then for each pair the reservation's name. One that has ended is not revived.
RENEW: Final = (
    CLOCK
    + """
for i = 1, #KEYS, 2 do
    local reservation, key = KEYS[i], KEYS[i + 1]
    if string.sub(redis.call('GET', reservation) or '', 1, 6) == 'taken ' then
        redis.call('PEXPIRE', reservation, ARGV[1])
        if key ~= reservation then
            redis.call('ZADD', key, now + ARGV[1], ARGV[(i + 3) / 2])
            redis.call('PEXPIRE', key, ARGV[1])
        end
    end
end
"""
)


class NotAskedError(RedisError):
    """Redis was away a moment ago, and was not asked again."""


@dataclass(frozen=True, slots=True)
class End:
    """The end of a reservation, kept until Redis has confirmed it.

    how:     `settled`, or `undone` where nobody has heard whether it was made
    changes: what that adds to each meter
    until_s: when Redis has forgotten the reservation, by the loop's clock
    """

    how: Literal["settled", "undone"]
    changes: Changes
    until_s: float


class Unchecked:
    """The reservation of a call let in while Redis was away: nothing was counted, so nothing is given back."""

    def settle(self, tokens_used: int, *, in_part: bool = False, cost: Decimal = limits.NO_MONEY) -> None:
        """See `limits.Reservation`."""

    def refund(self) -> None:
        """See `limits.Reservation`."""

    def release(self) -> None:
        """See `limits.Reservation`."""


class RedisLimiter:
    """A limiter for all processes on one Redis.

    unchecked: calls that were let in, or refused, by the policy alone
    """

    def __init__(self, client: redis.Redis, policy: Policy) -> None:
        self._client = client
        self._policy = policy
        self._reserve = client.register_script(RESERVE)
        self._settle = client.register_script(SETTLE)
        self._renew = client.register_script(RENEW)
        # Reservations that stand, each with the sets it has a lease in; of these, those that have but their first.
        self._open: dict[str, tuple[str, ...]] = {}
        self._unconfirmed: set[str] = set()
        self._untold: dict[str, End] = {}
        self._settling: set[asyncio.Future[Any]] = set()
        self._turns = asyncio.Semaphore(AT_ONCE)
        # Away from the first failure to the next success; resting until Redis answers at all: nobody waits meanwhile.
        self._away = False
        self._resting = False
        self._leaving = False
        self.unchecked = 0

    @property
    def unsettled(self) -> int:
        """Reservations that have ended and of whose end Redis has not heard yet."""
        return len(self._untold)

    async def reserve(
        self, scopes: Sequence[Scope], tokens: int, held: int | None = None, budgets: Sequence[Demand] = ()
    ) -> Reservation | Refused:
        """Decide in one round trip; where there is no answer in time, by the policy."""
        asked = (*limits.demands(scopes, tokens, held), *budgets)
        if not asked:
            return Unchecked()
        name = uuid.uuid4().hex
        changes = tuple((demand, demand.cost) for demand in asked)
        asking = asyncio.ensure_future(self._ask(self._reserve, *_arguments(name, FIRST_LEASE_MS, changes)))
        try:
            worst, wait_ms = await asyncio.shield(asking)
        except (RedisError, OSError) as error:
            self._give_up(name, asked, error)
            self.unchecked += 1
            if self._policy == "closed":
                return Refused(AWAY)
            # What it uses of its budgets is used, and told when Redis is back.
            return Taken(budgets, partial(self._end, uuid.uuid4().hex)) if budgets else Unchecked()
        except asyncio.CancelledError:
            # The caller has left while Redis was deciding: what it takes is given back.
            asking.add_done_callback(lambda _: self._forgo(name, asked, asking))
            self._keep(asking)
            raise
        if worst:
            return limits.refused(asked[worst - 1], wait_ms)
        self._open[name] = _keys(demand for demand in asked if not demand.period_ms)
        self._unconfirmed.add(name)
        return Taken(asked, partial(self._end, name))

    async def _keep_up(self) -> None:
        """Confirm and renew leases, and tell Redis what it could not be told, until the limiter is left."""
        renewed_s = _now_s()
        while not self._leaving:
            await asyncio.sleep(LOOK_EVERY_S)
            if self._resting:
                if not await self._is_back():
                    continue
                renewed_s = float("-inf")
            await self._catch_up()
            if _now_s() - renewed_s < RENEW_EVERY_S:
                await self._renew_leases(tuple(self._unconfirmed))
            elif await self._renew_leases(tuple(self._open)):
                renewed_s = _now_s()

    async def _catch_up(self) -> None:
        """Tell Redis of the ends it has not heard of, but for those of reservations it has forgotten meanwhile."""
        now_s = _now_s()
        self._untold = {name: end for name, end in self._untold.items() if end.until_s > now_s}
        await asyncio.gather(*(self._tell(name, end) for name, end in tuple(self._untold.items())))

    async def settled(self) -> None:
        """Wait until Redis has been told of all reservations that have ended, if it listens."""
        while self._settling:
            await asyncio.wait(self._settling)

    @asynccontextmanager
    async def kept_up(self) -> AsyncIterator[None]:
        """Confirm and renew leases while the context lives, then report the last ends, within `FAREWELL_S`."""
        keeping_up = asyncio.create_task(self._keep_up())
        try:
            yield
        finally:
            # A client may swallow a cancellation that comes together with an answer.
            self._leaving = True
            keeping_up.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await keeping_up
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(FAREWELL_S):
                    await self._leave()

    async def _leave(self) -> None:
        """Report the ends that Redis has not confirmed, waiting for it where it is away."""
        await self.settled()
        while self._untold:
            if not self._resting or await self._is_back():
                await self._catch_up()
            await asyncio.sleep(LOOK_EVERY_S / 3)

    def _give_up(self, name: str, asked: Sequence[Demand], error: BaseException) -> None:
        """Undo a reservation whose answer was not awaited: Redis may have made it, or may yet make it."""
        if not isinstance(error, NotAskedError):
            changes = tuple((demand, -demand.cost) for demand in asked)
            self._untold[name] = End("undone", changes, _now_s() + LEASE_S)

    def _forgo(self, name: str, asked: Sequence[Demand], asking: asyncio.Future[list[int]]) -> None:
        if asking.cancelled():
            return
        if (error := asking.exception()) is not None:
            self._give_up(name, asked, error)
        elif asking.result()[0] == 0:
            self._end(name, limits.changes(asked, 0))

    def _end(self, name: str, changes: Changes) -> None:
        """Settle in a task of its own, for the caller may be a `finally` of a task that is being cancelled."""
        self._open.pop(name, None)
        self._unconfirmed.discard(name)
        self._keep(asyncio.ensure_future(self._tell(name, End("settled", changes, _now_s() + LEASE_S))))

    def _keep(self, task: asyncio.Future[Any]) -> None:
        self._settling.add(task)
        task.add_done_callback(self._settling.discard)

    async def _tell(self, name: str, end: End) -> None:
        try:
            await self._ask(self._settle, *_arguments(name, end.how, end.changes))
        except (RedisError, OSError):
            self._untold[name] = end
        else:
            self._untold.pop(name, None)

    async def _renew_leases(self, names: Sequence[str]) -> bool:
        """Give these reservations a whole lease from now on; whether Redis has done so."""
        pairs = [(name, _own_key(name), key) for name in names for key in self._open.get(name, ()) or (_own_key(name),)]
        try:
            for first in range(0, len(pairs), RENEWED_AT_ONCE):
                some = pairs[first : first + RENEWED_AT_ONCE]
                keys = [key for _, reservation, lease in some for key in (reservation, lease)]
                await self._ask(self._renew, keys, [LEASE_MS, *(name for name, *_ in some)])
        except (RedisError, OSError):
            return False
        self._unconfirmed.difference_update(names)
        return True

    async def _is_back(self) -> bool:
        """Ask a Redis that was away whether it answers."""
        try:
            async with asyncio.timeout(TIMEOUT_S):
                await self._client.ping()
        except (RedisError, OSError):
            return False
        self._resting = False
        return True

    async def _ask(self, script: Any, keys: Sequence[str], arguments: Sequence[str | int]) -> Any:
        """Run a script; a Redis that was away a moment ago is not asked."""
        async with self._turns:
            if self._resting:
                raise NotAskedError
            try:
                async with asyncio.timeout(TIMEOUT_S):
                    answer = await script(keys=keys, args=arguments)
            except (RedisError, OSError) as error:
                if not self._away:
                    log.error("redis_away", policy=self._policy, error=type(error).__name__)
                self._away = self._resting = True
                raise
        if self._away:
            self._away = False
            log.warning("redis_back", unchecked=self.unchecked, unsettled=self.unsettled)
        return answer


def _arguments(name: str, own: str | int, changes: Changes) -> tuple[tuple[str, ...], list[str | int]]:
    """KEYS and ARGV of `RESERVE` and `SETTLE`."""
    rows = (part for demand, change in changes for part in (demand.amount, demand.period_ms, change))
    return (*_keys(demand for demand, _ in changes), _own_key(name)), [name, own, *rows]


def _keys(asked: Iterable[Demand]) -> tuple[str, ...]:
    return tuple(PREFIX + demand.meter for demand in asked)


def _own_key(name: str) -> str:
    return f"{PREFIX}reservation:{name}"


def _now_s() -> float:
    return asyncio.get_running_loop().time()


@asynccontextmanager
async def opened(url: str, policy: Policy) -> AsyncIterator[RedisLimiter]:
    """The limiter on the Redis at a URL, as long as the context lives; it need not be there yet."""
    # One retry, without waiting: a pooled connection may have died since its last use.
    client: redis.Redis = redis.Redis.from_url(
        url, socket_connect_timeout=TIMEOUT_S, socket_timeout=TIMEOUT_S, retry=Retry(NoBackoff(), 1)
    )
    limiter = RedisLimiter(client, policy)
    try:
        async with limiter.kept_up():
            yield limiter
    finally:
        await client.aclose()
