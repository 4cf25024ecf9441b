"""Claims about limits that several processes share, proved on a real redis-server: one sum, one round trip."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import random
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio as redis
from structlog.testing import capture_logs

from config import sources, values
from proxy.admission import limits, redis_limiter
from proxy.admission.memory_limiter import MemoryLimiter
from proxy.call import gateway
from proxy.call.budgets import SharedBudgets
from proxy.simulation.wire import Script
from tests import caller, needs
from tests.conftest import StartServe, StartSimulator

BINARY = needs.found("redis-server")
pytestmark = needs.unless(BINARY, "redis-server")

ROOT = Path(__file__).parents[2]
START_TIMEOUT_S = 10.0
# Of the loop, in which what waits for nothing comes to its end.
PASSES = 50

# One of several replicas: it asks as fast as it can, and says how many calls were let in.
REPLICA = """
import asyncio, sys
from config import values
from proxy.admission import limits, redis_limiter
redis_limiter.TIMEOUT_S = 10.0
async def main():
    async with redis_limiter.opened(sys.argv[1], "closed") as limiter:
        scopes = [limits.Scope("all", values.Limit(rpm=100, concurrency=60, tpm=10_000))]
        async def call():
            decision = await limiter.reserve(scopes, 90)
            return not isinstance(decision, limits.Refused)
        let_in = 0
        for _ in range(20):
            let_in += sum(await asyncio.gather(*(call() for _ in range(10))))
        print(let_in, flush=True)
        # Who leaves gives back what it holds.
        sys.stdin.read()
asyncio.run(main())
"""


def scope(name: str = "all", /, **limit: int) -> limits.Scope:
    return limits.Scope(name, values.Limit(**limit))


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


@contextlib.contextmanager
def running(port: int, home: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A redis-server that keeps nothing."""
    assert BINARY is not None
    process = subprocess.Popen(
        [BINARY, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", str(home)],
        stdout=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGCONT)
        process.terminate()
        process.wait()


@contextlib.contextmanager
def standing_still(server: subprocess.Popen[bytes]) -> Iterator[None]:
    """What is sent to it meanwhile waits for it, and is read when it goes on."""
    server.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        server.send_signal(signal.SIGCONT)


@contextlib.asynccontextmanager
async def losing_answers(port: int) -> AsyncIterator[tuple[str, list[bytes]]]:
    """A way to a Redis that is cut before the answer to what a test asks it to lose: each word of the list once."""
    lost: list[bytes] = []

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        onward, back = await asyncio.open_connection("127.0.0.1", port)
        with contextlib.suppress(ConnectionError):
            while question := await reader.read(1 << 16):
                back.write(question)
                answer = await onward.read(1 << 16)
                if lost and lost[0] in question:
                    lost.pop(0)
                    break
                writer.write(answer)
        back.close()
        writer.close()

    server = await asyncio.start_server(carry, "127.0.0.1", 0)
    async with server:
        yield f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0", lost


async def answers(url: str) -> None:
    """Return once the server at a URL does."""
    async with asyncio.timeout(START_TIMEOUT_S):
        async with redis.Redis.from_url(url) as client:
            while True:
                with contextlib.suppress(redis.RedisError):
                    await client.ping()
                    return
                await asyncio.sleep(0.02)


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def url(port: int) -> str:
    return f"redis://127.0.0.1:{port}/0"


@pytest.fixture
async def server(port: int, url: str, tmp_path: Path) -> AsyncIterator[subprocess.Popen[bytes]]:
    """A fresh server."""
    with running(port, tmp_path) as process:
        await answers(url)
        yield process


@pytest.fixture
async def client(server: subprocess.Popen[bytes], url: str) -> AsyncIterator[Any]:
    """A plain client of it."""
    async with redis.Redis.from_url(url) as plain:
        yield plain


@pytest.fixture
async def limiter(client: Any, url: str) -> AsyncIterator[redis_limiter.RedisLimiter]:
    async with redis_limiter.opened(url, "closed") as shared:
        yield shared


@pytest.fixture(autouse=True)
def patience(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine that others use too a slow answer would count as none, and the policy decide.

    Not for whoever stops the server itself: that is about a Redis that is silent.
    """
    if "client" in request.fixturenames and "server" not in inspect.signature(request.function).parameters:
        monkeypatch.setattr(redis_limiter, "TIMEOUT_S", 10.0)


def refused(decision: object) -> bool:
    return isinstance(decision, limits.Refused)


async def let_in(limiter: limits.Limiter, scopes: list[limits.Scope], tokens: int = 1) -> limits.Reservation:
    decision = await limiter.reserve(scopes, tokens)
    assert not isinstance(decision, limits.Refused)
    return decision


# One sum


async def test_two_limiters_on_one_redis_never_let_in_more_than_one_would(client: Any, url: str) -> None:
    """LIM-1."""
    scopes = [scope(tpm=1_000, concurrency=80, rpm=500)]
    async with redis_limiter.opened(url, "closed") as first, redis_limiter.opened(url, "closed") as second:
        decisions = await asyncio.gather(
            *(limiter.reserve(scopes, 100) for limiter in (first, second) for _ in range(50))
        )
    assert sum(not refused(decision) for decision in decisions) == 10


async def test_a_thousand_calls_at_once_are_all_counted(client: Any, url: str) -> None:
    """Row 41: a flood must not open the door because it finds no connection."""
    async with redis_limiter.opened(url, "open") as limiter:
        decisions = await asyncio.gather(*(limiter.reserve([scope("all", tpm=1_000)], 10) for _ in range(1_000)))
        assert limiter.unchecked == 0
    assert 100 <= sum(not refused(decision) for decision in decisions) <= 105


async def test_replicas_in_processes_of_their_own_share_every_limit(client: Any, url: str) -> None:
    """LIM-1: with several processes on one Redis the sum of admitted calls never exceeds the limit."""
    command = (sys.executable, "-c", REPLICA, url)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    replicas = [await asyncio.create_subprocess_exec(*command, cwd=ROOT, **pipes) for _ in range(3)]
    outputs = [await replica.stdout.readline() for replica in replicas if replica.stdout]
    await asyncio.gather(*(replica.communicate(b"") for replica in replicas))
    assert [replica.returncode for replica in replicas] == [0] * 3
    assert sum(map(int, outputs)) == 60


@pytest.mark.parametrize(
    ("limit", "answer"),
    [
        ({"concurrency": 1}, (503, "ModelServingError", "1")),
        ({"burst": 1}, (429, "Throttling.BurstRate", "1")),
        ({"rpm": 1}, (429, "Throttling.RateQuota", "60")),
        ({"tpm": 10}, (429, "Throttling.AllocationQuota", "60")),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
async def test_a_caller_is_told_the_same_as_by_the_memory(
    limit: dict[str, int], answer: tuple[int, str, str], limiter: redis_limiter.RedisLimiter
) -> None:
    """LIM-1."""
    told = []
    for one in (limiter, MemoryLimiter()):
        await let_in(one, [scope("all", **limit)], 10)
        decision = await one.reserve([scope("all", **limit)], 10)
        assert isinstance(decision, limits.Refused)
        told.append((decision.fault.status, decision.fault.code, decision.fault.retry_after))
    assert told == [answer, answer]


async def test_a_call_that_one_scope_refuses_takes_nothing_from_the_others(limiter: redis_limiter.RedisLimiter) -> None:
    wide, narrow = scope("all", rpm=6, concurrency=3), scope("key:a", rpm=1)
    await let_in(limiter, [wide, narrow])
    for _ in range(20):
        assert refused(await limiter.reserve([wide, narrow], 1))
    await let_in(limiter, [wide])
    await let_in(limiter, [wide])
    assert refused(await limiter.reserve([wide], 1))


# Ends


@pytest.mark.parametrize(("end", "left"), [("refund", 10_000), ("settle", 9_990), ("release", 4_000)])
async def test_tokens_come_back_as_far_as_they_were_not_used(
    end: str, left: int, limiter: redis_limiter.RedisLimiter
) -> None:
    """Row 44: refund within a second; exact, but for what drains while the test runs."""
    reservation = await let_in(limiter, [scope("all", tpm=10_000, concurrency=1)], 6_000)
    if end == "settle":
        reservation.settle(10)
    else:
        getattr(reservation, end)()
    reservation.refund()
    await limiter.settled()
    await let_in(limiter, [scope("all", tpm=10_000, concurrency=1)], left)
    assert refused(await limiter.reserve([scope("all", tpm=10_000)], 500))


async def test_a_prompt_comes_on_top_of_its_call_and_both_are_settled_as_one(
    limiter: redis_limiter.RedisLimiter,
) -> None:
    """USE-8."""
    scopes = [scope("all", tpm=10_000, concurrency=2, rpm=2)]
    for _ in range(2):
        first = await let_in(limiter, scopes, 3_000)
        more = await limiter.reserve(scopes, 6_000, held=3_000)
        assert not isinstance(more, limits.Refused)
        assert refused(await limiter.reserve([scope("all", tpm=10_000)], 1_500))
        limits.Joined(first, more).settle(0)
        await limiter.settled()
    assert refused(await limiter.reserve(scopes, 1))
    await let_in(limiter, [scope("all", tpm=10_000, concurrency=1)], 9_000)


async def test_meters_that_are_empty_leave_nothing_in_redis(client: Any, limiter: redis_limiter.RedisLimiter) -> None:
    reservation = await let_in(limiter, [scope("key:a", tpm=100, concurrency=2)], 50)
    ttls = [await client.pttl(key) for key in await client.keys()]
    assert len(ttls) == 3  # the third is the reservation's own
    assert all(0 < ttl <= limits.PERIODS_MS["tpm"] + 1_000 for ttl in ttls)
    reservation.refund()
    await limiter.settled()
    assert await client.keys() == []


async def test_a_caller_who_leaves_while_redis_decides_costs_nothing(
    client: Any, limiter: redis_limiter.RedisLimiter
) -> None:
    await let_in(limiter, [scope("warm", rpm=1)])
    for _ in range(30):
        asking = asyncio.ensure_future(limiter.reserve([scope("all", concurrency=1, tpm=100)], 100))
        await asyncio.sleep(0)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await limiter.settled()
    assert await client.keys("*all*") == []
    await let_in(limiter, [scope("all", concurrency=1, tpm=100)], 100)
    asking = asyncio.ensure_future(limiter.reserve([scope("all", concurrency=1)], 1))
    await asyncio.sleep(0)
    asking.cancel()
    await asyncio.wait([asking])
    await limiter.settled()
    assert await client.zcard("{dashseek}:all:concurrency") == 1


async def test_what_was_used_above_the_limit_is_waited_for(limiter: redis_limiter.RedisLimiter) -> None:
    """LIM-1: as by the memory."""
    told = []
    for one in (limiter, MemoryLimiter()):
        (await let_in(one, [scope(tpm=100)], 900)).settle(350)
        await limiter.settled()
        decision = await one.reserve([scope(tpm=100)], 1)
        assert isinstance(decision, limits.Refused)
        told.append(int(decision.fault.retry_after or 0))
    assert told == [pytest.approx(151, abs=1)] * 2


# Leases


@pytest.fixture
async def at_ms(client: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], Awaitable[object]]:
    """Sets the clock that the scripts go by."""
    for script in ("RESERVE", "SETTLE", "RENEW"):
        told = getattr(redis_limiter, script).replace(
            redis_limiter.CLOCK, "\nlocal now = tonumber(redis.call('GET', 'clock'))\n"
        )
        assert "TIME" not in told
        monkeypatch.setattr(redis_limiter, script, told)
    return lambda ms: client.set("clock", ms)  # type: ignore[no-any-return]


async def test_a_refund_after_a_minute_gives_back_nothing_that_others_have_taken(
    client: Any, url: str, at_ms: Callable[[int], Awaitable[object]]
) -> None:
    await at_ms(1_000_000)
    async with redis_limiter.opened(url, "closed") as limiter:
        early = await let_in(limiter, [scope(tpm=100)], 100)
        await at_ms(1_060_000)
        await let_in(limiter, [scope(tpm=100)], 100)
        early.refund()
        await limiter.settled()
        assert refused(await limiter.reserve([scope(tpm=100)], 1))


@pytest.mark.parametrize("seed", range(8))
async def test_late_ends_leave_the_same_levels_as_in_the_memory(
    client: Any, url: str, at_ms: Callable[[int], Awaitable[object]], seed: int
) -> None:
    """LIM-1: which is what the calls would have left had they taken from the start what they have used."""
    dice, ms, allowance = random.Random(seed), 1_000_000, [scope(tpm=600, concurrency=50)]
    await at_ms(ms)
    async with redis_limiter.opened(url, "closed") as shared:
        memory = MemoryLimiter(lambda: ms)
        open_calls: list[tuple[limits.Reservation, limits.Reservation]] = []
        for _ in range(60):
            ms += dice.choice((0, 1, 500, 7_000, 61_000))
            await at_ms(ms)
            tokens = dice.randrange(1, 200)
            if dice.random() < 0.6:
                both = await shared.reserve(allowance, tokens), await memory.reserve(allowance, tokens)
                assert refused(both[0]) == refused(both[1])
                if not isinstance(both[0], limits.Refused) and not isinstance(both[1], limits.Refused):
                    open_calls.append(both)
            elif open_calls:
                for one in open_calls.pop(dice.randrange(len(open_calls))):
                    one.settle(tokens)
                await shared.settled()
            level = int(await client.hget("{dashseek}:all:tpm", "level") or 0)
            bucket = memory._buckets.get("all:tpm")
            assert level == (bucket.level if bucket else 0)


def test_a_lease_is_confirmed_before_the_first_one_ends_and_renewed_twice_before_the_whole_one_does() -> None:
    """Of the figures that ship: tests use shorter ones."""
    assert redis_limiter.LOOK_EVERY_S + redis_limiter.TIMEOUT_S < redis_limiter.FIRST_LEASE_MS / 1e3 <= 1
    assert 2 * redis_limiter.RENEW_EVERY_S < redis_limiter.LEASE_S == redis_limiter.LEASE_MS / 1e3


async def test_the_calls_of_a_process_that_has_died_are_over_when_their_leases_are(
    client: Any, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row 64: no slot is lost for good, also where another one that lives holds one."""
    monkeypatch.setattr(redis_limiter, "FIRST_LEASE_MS", 150)
    monkeypatch.setattr(redis_limiter, "LEASE_MS", 400)
    monkeypatch.setattr(redis_limiter, "LOOK_EVERY_S", 0.02)
    monkeypatch.setattr(redis_limiter, "RENEW_EVERY_S", 0.1)
    two = [scope("all", concurrency=2)]
    async with redis_limiter.opened(url, "closed") as alive:
        await let_in(alive, two)
        async with redis_limiter.opened(url, "closed") as dead:
            await let_in(dead, two)
            await asyncio.sleep(0.6)
            assert refused(await alive.reserve(two, 1))
        async with asyncio.timeout(5):
            while refused(await alive.reserve(two, 1)):  # noqa: ASYNC110 - only Redis knows
                await asyncio.sleep(0.02)
        assert refused(await alive.reserve(two, 1))


async def test_a_renewal_revives_nothing_that_has_ended(client: Any, limiter: redis_limiter.RedisLimiter) -> None:
    """It may cross the settlement on the way."""
    reservation = await let_in(limiter, [scope(concurrency=1)])
    held = dict(limiter._open)
    reservation.release()
    await limiter.settled()
    limiter._open.update(held)
    assert await limiter._renew_leases(tuple(held))
    assert await client.keys() == []


async def test_who_leaves_a_limiter_leaves_nothing_at_work(limiter: redis_limiter.RedisLimiter) -> None:
    before = asyncio.all_tasks()
    async with limiter.kept_up():
        await asyncio.sleep(0)
        assert len(asyncio.all_tasks()) == len(before) + 1
    assert asyncio.all_tasks() == before


async def test_many_open_calls_are_renewed_in_several_scripts(
    client: Any, limiter: redis_limiter.RedisLimiter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_limiter, "RENEWED_AT_ONCE", 3)
    calls = [await let_in(limiter, [scope(concurrency=9), scope("key:a", concurrency=9)]) for _ in range(5)]
    await client.config_resetstat()
    assert await limiter._renew_leases(tuple(limiter._open))
    assert (await client.info("commandstats"))["cmdstat_evalsha"]["calls"] >= 4
    seconds, _ = await client.time()
    ends_s = [end / 1e3 for _, end in await client.zrange("{dashseek}:key:a:concurrency", 0, -1, withscores=True)]
    assert len(ends_s) == 5
    assert all(end_s - seconds > 50 for end_s in ends_s)
    for call in calls:
        call.release()


# The cost


async def test_a_decision_is_one_round_trip_and_its_end_another(
    client: Any, limiter: redis_limiter.RedisLimiter
) -> None:
    """LIM-1."""
    everything = [scope(name, concurrency=9, burst=9, rpm=9, tpm=900) for name in ("all", "key:a", "model:m")]
    (await let_in(limiter, everything)).settle(1)
    await limiter.settled()
    await client.config_resetstat()
    (await let_in(limiter, everything)).settle(1)
    await limiter.settled()
    # Of what has ended nothing is kept, or renewed.
    assert (limiter._open, limiter._unconfirmed, limiter._untold) == ({}, set(), {})
    sent = await client.info("commandstats")
    assert sent["cmdstat_evalsha"]["calls"] == 2
    assert not {"cmdstat_eval", "cmdstat_script|load", "cmdstat_multi"} & sent.keys()


async def test_a_server_that_has_lost_its_scripts_gets_them_again(
    client: Any, limiter: redis_limiter.RedisLimiter
) -> None:
    await let_in(limiter, [scope("all", rpm=2)])
    await client.script_flush()
    await let_in(limiter, [scope("all", rpm=2)])
    assert refused(await limiter.reserve([scope("all", rpm=2)], 1))


# Redis away


@pytest.mark.parametrize("policy", ["open", "closed"])
async def test_while_redis_is_away_the_policy_counts_and_is_logged_once(
    policy: redis_limiter.Policy, port: int, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LIM-1: a stated policy, logged and counted; and limits are back when Redis is."""
    monkeypatch.setattr(redis_limiter, "LOOK_EVERY_S", 0.05)
    one = [scope("all", rpm=1)]
    with capture_logs() as logged:
        async with redis_limiter.opened(url, policy) as limiter:
            decisions = [await limiter.reserve(one, 1) for _ in range(5)]
            assert [refused(decision) for decision in decisions] == [policy == "closed"] * 5
            assert limiter.unchecked == 5
            for decision in decisions:
                if isinstance(decision, limits.Refused):
                    fault = decision.fault
                    assert (fault.status, fault.code, fault.blame) == (503, "ModelUnavailable", "operator")
                else:
                    for end in (decision.release, decision.refund, lambda told=decision: told.settle(1)):
                        end()
            with running(port, tmp_path):
                await answers(url)
                await asyncio.sleep(0.15)
                reservation = await let_in(limiter, one)
                assert refused(await limiter.reserve(one, 1))
                reservation.release()
                await limiter.settled()
    assert [(event["event"], event["log_level"]) for event in logged] == [
        ("redis_away", "error"),
        ("redis_back", "warning"),
    ]


async def test_an_end_that_cannot_be_told_is_counted_and_raises_nothing(port: int, url: str, tmp_path: Path) -> None:
    with capture_logs():
        async with redis_limiter.opened(url, "open") as limiter:
            with running(port, tmp_path):
                await answers(url)
                reservation = await let_in(limiter, [scope("all", concurrency=1)])
            reservation.settle(1)
            await limiter.settled()
            assert limiter.unsettled == 1


# What drains in the seconds of a test is less than a call takes more than once.
EVERYTHING = {"concurrency": 8, "rpm": 30, "tpm": 60_000}


async def holds(client: Any, leases: int, calls: int, tokens: int) -> bool:
    """Whether Redis holds so much of the limits above, but for what has drained."""
    kept = {kind: int(await client.hget(f"{{dashseek}}:all:{kind}", "level") or 0) / 60_000 for kind in ("rpm", "tpm")}
    return (
        await client.zcard("{dashseek}:all:concurrency") == leases
        and calls - 2 <= kept["rpm"] <= calls
        and tokens - 4_000 <= kept["tpm"] <= tokens
    )


async def unread(port: int) -> bool:
    """Whether something has come to a port of this machine over a connection, and was not read: it stands still."""
    table = await asyncio.to_thread(Path("/proc/net/tcp").read_text)
    rows = [line.split() for line in table.splitlines()[1:]]
    return any(
        state == "01" and int(local.partition(":")[2], 16) == port and int(queues.partition(":")[2], 16) > 0
        for _, local, _, state, queues, *_ in rows
    )


async def until(true: Callable[[], Awaitable[bool]], limit_s: float) -> None:
    async with asyncio.timeout(limit_s):
        while not await true():  # noqa: ASYNC110 - only Redis knows
            await asyncio.sleep(0.02)


async def test_what_redis_takes_after_it_stood_still_is_given_back_within_a_second(
    client: Any, server: subprocess.Popen[bytes], url: str
) -> None:
    """LIM-1: eight calls are decided by nobody; later Redis reads their questions, and reserves for all of them."""
    with capture_logs() as logged:
        async with redis_limiter.opened(url, "closed") as limiter:
            # As many connections as can be there, so that the questions are sent.
            warm = await asyncio.gather(*(let_in(limiter, [scope(**EVERYTHING)]) for _ in range(8)))
            for reservation in warm:
                reservation.refund()
            await limiter.settled()
            assert await holds(client, 0, 8, 0)
            with standing_still(server):
                gone = await asyncio.gather(*(limiter.reserve([scope(**EVERYTHING)], 5_000) for _ in range(8)))
                assert all(map(refused, gone))
                await asyncio.sleep(0.8)
            await client.ping()
            again: list[limits.Reservation] = []

            async def all_again() -> bool:
                decision = await limiter.reserve([scope(**EVERYTHING)], 5_000)
                again.extend(() if isinstance(decision, limits.Refused) else (decision,))
                return len(again) == 8

            await until(all_again, 1)
            assert await holds(client, 8, 16, 40_000)
            for reservation in again:
                reservation.settle(0)
            await limiter.settled()
            assert await holds(client, 0, 16, 0)
            assert limiter.unsettled == 0
    assert [event["event"] for event in logged] == ["redis_away", "redis_back"]


async def test_a_gateway_whose_redis_stood_still_lets_in_as_many_as_before(
    serve: StartServe, simulator: StartSimulator, client: Any, server: subprocess.Popen[bytes], url: str
) -> None:
    """LIM-1: the whole limit was locked for a minute."""
    upstream = await simulator(Script(first_byte_delay_s=0.1))
    flags = ("--limits", "concurrency=8", "--redis-policy", "closed")
    served = await serve(upstream.url, *flags, env={"DASHSEEK_REDIS_URL": url})

    async def statuses() -> list[int]:
        answers = await asyncio.gather(*(caller.ask(served.url, caller.call()) for _ in range(8)))
        return [answer.status for answer in answers]

    assert await statuses() == [200] * 8
    with standing_still(server):
        assert await statuses() == [503] * 8
    await client.ping()

    async def all_are_served() -> bool:
        return await statuses() == [200] * 8

    await until(all_are_served, 2)
    await until(lambda: _nothing_is_open(client), 1)


async def _nothing_is_open(client: Any) -> bool:
    return not await client.zcard("{dashseek}:all:concurrency")


async def test_calls_that_end_while_redis_stands_still_are_over_within_a_second_after_it(
    client: Any, server: subprocess.Popen[bytes], url: str
) -> None:
    """LIM-1: a lease of a minute has no owner any more."""
    with capture_logs():
        async with redis_limiter.opened(url, "open") as limiter:
            open_calls = await asyncio.gather(*(let_in(limiter, [scope(**EVERYTHING)], 5_000) for _ in range(8)))
            await until(lambda: _all_confirmed(limiter), 2)
            with standing_still(server):
                await limiter.reserve([scope(**EVERYTHING)], 1)
                for call in open_calls:
                    call.settle(0)
                await limiter.settled()
                assert limiter.unsettled >= 8
                await asyncio.sleep(0.5)
            await client.ping()
            await until(lambda: holds(client, 0, 8, 0), 1)


async def _all_confirmed(limiter: redis_limiter.RedisLimiter) -> bool:
    return not limiter._unconfirmed


async def test_the_lease_of_a_process_that_died_while_it_asked_is_over_within_a_second(
    client: Any, server: subprocess.Popen[bytes], url: str, port: int
) -> None:
    """LIM-1: nobody is left to undo it."""
    program = """
import asyncio, sys
from config import values
from proxy.admission import limits, redis_limiter
async def main():
    async with redis_limiter.opened(sys.argv[1], "closed") as limiter:
        one = [limits.Scope("all", values.Limit(concurrency=1))]
        # A busy machine may be slower than the client waits.
        while isinstance(first := await limiter.reserve(one, 1), limits.Refused):
            await asyncio.sleep(0.1)
        first.release()
        await limiter.settled()
        print("asking", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        await limiter.reserve(one, 1)
asyncio.run(main())
"""
    pipes: Any = {"stdin": asyncio.subprocess.PIPE, "stdout": asyncio.subprocess.PIPE}
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", program, url, cwd=ROOT, **pipes)
    assert process.stdin is not None
    assert process.stdout is not None
    await process.stdout.readline()
    with standing_still(server):
        process.stdin.write(b"\n")
        await until(lambda: unread(port), 30)
        process.kill()
        await process.wait()
    process.stdin.close()

    async def is_held() -> bool:
        return await client.zcard("{dashseek}:all:concurrency") == 1

    await until(is_held, 30)
    async with redis_limiter.opened(url, "closed") as other:

        async def there_is_room() -> bool:
            return not refused(await other.reserve([scope(concurrency=1)], 1))

        await until(there_is_room, 1.2)


async def test_what_is_asked_again_because_its_answer_was_lost_counts_once(client: Any, port: int) -> None:
    """LIM-1: the client tries a connection that broke once more, and cannot know that the first time was enough."""
    async with losing_answers(port) as (lossy, lost), redis_limiter.opened(lossy, "closed") as limiter:
        # So that no script is loaded in the middle.
        (await let_in(limiter, [scope("warm", tpm=9)])).settle(1)
        await limiter.settled()
        lost.append(b"EVALSHA")
        reservation = await let_in(limiter, [scope(**EVERYTHING)], 20_000)
        assert not lost
        assert await holds(client, 1, 1, 20_000)
        await let_in(limiter, [scope(**EVERYTHING)], 20_000)
        await until(lambda: _all_confirmed(limiter), 2)
        lost.append(b"EVALSHA")
        reservation.settle(5_000)
        await limiter.settled()
        assert not lost
        assert await holds(client, 1, 2, 25_000)


async def test_what_was_undone_before_redis_read_it_takes_nothing(
    client: Any, limiter: redis_limiter.RedisLimiter
) -> None:
    """Connections have no order: the question may be read last."""
    changes = [(demand, demand.cost) for demand in limits.demands([scope(**EVERYTHING)], 5_000)]
    undone = [(demand, -cost) for demand, cost in changes]
    for order in ("undo, ask", "ask, undo, ask, undo"):
        name = f"name {order}"
        for step in order.split(", "):
            script, own, rows = {
                "ask": (limiter._reserve, redis_limiter.FIRST_LEASE_MS, changes),
                "undo": (limiter._settle, "undone", undone),
            }[step]
            await limiter._ask(script, *redis_limiter._arguments(name, own, rows))
        assert await holds(client, 0, 0, 0)


async def test_a_redis_that_is_killed_and_comes_back_empty_counts_from_there(
    port: int, url: str, tmp_path: Path
) -> None:
    """What it has forgotten is not given back to what it counts now."""
    one = [scope(concurrency=1, tpm=1_000)]
    with capture_logs() as logged:
        async with redis_limiter.opened(url, "closed") as limiter:
            with running(port, tmp_path) as server:
                await answers(url)
                forgotten = await let_in(limiter, one, 900)
                server.kill()
                server.wait()
                assert refused(await limiter.reserve(one, 1))
            with running(port, tmp_path):
                await answers(url)

                async def let_in_again() -> bool:
                    return not refused(await limiter.reserve(one, 900))

                await until(let_in_again, 1)
                forgotten.settle(1)
                await limiter.settled()
                assert refused(await limiter.reserve(one, 1))
                assert refused(await limiter.reserve([scope(tpm=1_000)], 200))
    assert [event["event"] for event in logged] == ["redis_away", "redis_back"]


@pytest.mark.parametrize("back_s", [3_600, 30])
async def test_a_clock_of_redis_that_goes_back_stands_still(
    client: Any, url: str, monkeypatch: pytest.MonkeyPatch, back_s: int
) -> None:
    """LIM-1: a step of its clock, or a failover to a machine that is behind."""
    clock = "{redis.call('TIME')[1] - (redis.call('GET', '{dashseek}:behind') or 0), redis.call('TIME')[2]}"
    for script in ("RESERVE", "SETTLE", "RENEW"):
        monkeypatch.setattr(
            redis_limiter, script, getattr(redis_limiter, script).replace("redis.call('TIME')", clock, 1)
        )
    async with redis_limiter.opened(url, "closed") as limiter:
        await let_in(limiter, [scope(burst=4, tpm=6_000, concurrency=2)], 6_000)
        for _ in range(3):
            await let_in(limiter, [scope(burst=4)])
        await client.set("{dashseek}:behind", back_s)
        # Who is refused mends the meter: it drains from now on, not when the clock has caught up.
        decision = await limiter.reserve([scope(burst=4, tpm=6_000)], 100)
        assert isinstance(decision, limits.Refused)
        assert int(decision.fault.retry_after or 0) <= 2
        await asyncio.sleep(1.1)
        await let_in(limiter, [scope(burst=4, tpm=6_000)], 100)
        # A lease of before is no longer than any other.
        await let_in(limiter, [scope(concurrency=2)])
        assert refused(await limiter.reserve([scope(concurrency=2)], 1))
        seconds, _ = await client.time()
        leases = await client.zrange("{dashseek}:all:concurrency", 0, -1, withscores=True)
        assert all(end_ms / 1e3 <= seconds - back_s + redis_limiter.LEASE_MS / 1e3 + 1 for _, end_ms in leases)


async def test_a_redis_that_accepts_and_says_nothing_holds_no_call_up() -> None:
    """A hanging Redis is as good as none: one wait, of those whose turn it is to ask, then nothing for a while."""

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            await reader.read()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    async with server:
        mute = f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        with capture_logs() as logged:
            async with redis_limiter.opened(mute, "open") as limiter:
                await asyncio.gather(*(limiter.reserve([scope("all", rpm=1)], 1) for _ in range(50)))
                # Whoever waited for a turn behind them has asked nothing that Redis may yet read, nor waited for it.
                assert 0 < limiter.unsettled <= redis_limiter.AT_ONCE
                later = [asyncio.ensure_future(limiter.reserve([scope("all", rpm=1)], 1)) for _ in range(50)]
                for _ in range(PASSES):
                    await asyncio.sleep(0)
                # Decided before any timer of the loop could have run out.
                assert all(call.done() for call in later)
                assert limiter.unchecked == 100
    assert [event["event"] for event in logged] == ["redis_away"]


# Budgets of a day and a month

EVENING = datetime(2026, 11, 28, 23, tzinfo=UTC).timestamp()


def left_of(scopes: list[limits.Scope], now_s: float = EVENING) -> tuple[limits.Demand, ...]:
    return SharedBudgets(UTC, None, lambda: now_s).demands(scopes)


async def spent(client: Any, kind: str = "tpd:2026-11-28") -> int:
    return int(await client.get(f"{{dashseek}}:all:{kind}") or 0)


async def test_processes_share_what_is_left_of_a_day(client: Any, url: str) -> None:
    """LIM-1: who has some left is let in; beyond it nothing is taken until midnight, also where a clock goes back."""
    one = [scope(tpd=1_000, rpm=9)]
    async with redis_limiter.opened(url, "closed") as first, redis_limiter.opened(url, "closed") as second:
        for limiter in (first, second):
            reservation = await limiter.reserve(one, 1, budgets=left_of(one))
            assert not isinstance(reservation, limits.Refused)
            reservation.settle(600)
            await limiter.settled()
        assert await spent(client) == 1_200
        assert redis_limiter.KEPT_MS < await client.pttl("{dashseek}:all:tpd:2026-11-28") <= 176_400_000
        for now_s in (EVENING, EVENING + 3_600, EVENING + 1):
            decision = await second.reserve(one, 1, budgets=left_of(one, now_s))
            if now_s == EVENING + 3_600:
                assert not refused(decision)
                continue
            assert isinstance(decision, limits.Refused)
            told = decision.fault
            assert (told.status, told.code) == (429, "Throttling.AllocationQuota")
            assert told.retry_after == str(round(EVENING + 3_600 - now_s))
        assert float(await client.hget("{dashseek}:all:rpm", "level")) <= 3 * 60_000


@pytest.mark.parametrize(("amount", "is_left"), [("0.0056", False), ("0.0056000001", True)])
async def test_money_is_counted_exactly(limiter: redis_limiter.RedisLimiter, amount: str, is_left: bool) -> None:
    one = [limits.Scope("all", values.Limit(cost_day=Decimal(amount)))]
    for _ in range(2):
        reservation = await limiter.reserve(one, 1, budgets=left_of(one))
        assert not isinstance(reservation, limits.Refused)
        reservation.settle(5, cost=Decimal("0.0028"))
        await limiter.settled()
    assert refused(await limiter.reserve(one, 1, budgets=left_of(one))) is not is_left


async def test_what_was_used_counts_once_whatever_redis_hears_and_forgets(client: Any, port: int) -> None:
    """LIM-1: an end whose answer was lost is told again; what a call used was used though Redis has lost the call."""
    one = [scope(tpd=10_000, concurrency=2)]
    async with losing_answers(port) as (lossy, lost), redis_limiter.opened(lossy, "closed") as limiter:
        reservations = [await limiter.reserve(one, 1, budgets=left_of(one)) for _ in range(2)]
        lost.append(b"EVALSHA")
        for reservation in reservations:
            assert not isinstance(reservation, limits.Refused)
            reservation.settle(700)
            reservation.settle(700)
            await limiter.settled()
            await until(lambda: _told(limiter), 20)
            await client.delete(*await client.keys("*reservation*"))
        assert not lost
        assert await spent(client) == 1_400
        (await let_in(limiter, one)).refund()
        await limiter.settled()
        assert await spent(client) == 1_400


async def _told(limiter: redis_limiter.RedisLimiter) -> bool:
    return not limiter.unsettled


async def test_a_call_that_went_while_redis_stood_still_counts_when_it_is_back(
    client: Any, server: subprocess.Popen[bytes], url: str
) -> None:
    one = [scope(tpd=10_000)]
    with capture_logs():
        async with redis_limiter.opened(url, "open") as limiter:
            (await let_in(limiter, one)).release()
            with standing_still(server):
                reservation = await limiter.reserve(one, 1, budgets=left_of(one))
                assert not isinstance(reservation, limits.Refused)
                reservation.settle(700)
                await limiter.settled()
            await client.ping()
            await until(lambda: _told(limiter), 20)
            assert await spent(client) == 700


async def test_workers_refuse_together_and_a_restart_forgets_nothing(
    serve: StartServe, simulator: StartSimulator, server: subprocess.Popen[bytes], url: str
) -> None:
    """LIM-1: over the wire, with two workers; the books of one are not the other's."""
    assert server.poll() is None
    upstream = await simulator(Script(text="hi there"))
    # A Redis that is slow on a busy machine lets nobody in.
    flags = ("--limits", "tpd=1", "--workers", "2", "--redis-policy", "closed")
    env = {"DASHSEEK_REDIS_URL": url, "TZ": "UTC"}
    seen: set[str | None] = set()

    async def all_refuse() -> bool:
        answers = await asyncio.gather(*(caller.ask(served.url, caller.call()) for _ in range(8)))
        told = {answer.json.get("code") for answer in answers}
        seen.update(told)
        return told == {"Throttling.AllocationQuota"}

    served = await serve(upstream.url, *flags, env=env)
    await until(all_refuse, 20)
    assert None in seen
    await asyncio.to_thread(served.end)
    seen.clear()
    served = await serve(upstream.url, *flags, env=env)
    await until(all_refuse, 20)
    assert None not in seen


# A whole gateway

# What a process does first: the scripts go by a clock that is behind by what Redis says.
BEHIND = """
from proxy.admission import redis_limiter
for script in ("RESERVE", "SETTLE", "RENEW"):
    told = getattr(redis_limiter, script)
    time = "{redis.call('TIME')[1] - (redis.call('GET', '{dashseek}:behind') or 0), redis.call('TIME')[2]}"
    setattr(redis_limiter, script, told.replace("redis.call('TIME')", time, 1))
"""


async def test_a_gateway_outlives_a_redis_that_is_stopped_killed_restarted_and_set_back(
    serve: StartServe, simulator: StartSimulator, port: int, url: str, tmp_path: Path
) -> None:
    """LIM-1, by a whole process: each time as many calls are let in as before, none more, and none is left open."""
    (early := tmp_path / "early").mkdir()
    (early / "sitecustomize.py").write_text(BEHIND)
    upstream = await simulator(Script(first_byte_delay_s=0.3))
    flags = ("--limits", "concurrency=4 rpm=6000", "--redis-policy", "closed")
    env = {"DASHSEEK_REDIS_URL": url, "PYTHONPATH": f"{early}:{ROOT}"}

    async def told(calls: int = 4) -> set[str | None]:
        answers = await asyncio.gather(*(caller.ask(served.url, caller.call()) for _ in range(calls)))
        return {answer.json.get("code") for answer in answers}

    async def all_are_served() -> bool:
        return await told() == {None}

    async def more_are_refused() -> bool:
        return await told(12) == {None, "ModelServingError"}

    async def is_as_before() -> None:
        await until(all_are_served, 20)
        async with redis.Redis.from_url(url) as client:
            await until(lambda: _nothing_is_open(client), 20)
        await until(more_are_refused, 20)

    with running(port, tmp_path) as server:
        await answers(url)
        served = await serve(upstream.url, *flags, env=env)
        await is_as_before()
        with standing_still(server):
            assert await told() == {"ModelUnavailable"}
        await is_as_before()
        server.kill()
        server.wait()
        assert await told() == {"ModelUnavailable"}
    with running(port, tmp_path):
        await answers(url)
        await is_as_before()
        async with redis.Redis.from_url(url) as client:
            before_ms = int(await client.hget("{dashseek}:all:rpm", "at") or 0)
            await client.set("{dashseek}:behind", 3_600)
            await is_as_before()
            assert before_ms - int(await client.hget("{dashseek}:all:rpm", "at") or 0) > 3_000_000
            await until(lambda: _nothing_is_open(client), 20)
    said = served.output
    assert said.count("redis_away") >= 2
    assert "Traceback" not in said


# As an operator asks for it


async def test_a_redis_url_means_shared_limits(client: Any, url: str) -> None:
    chosen = sources.load({}, None, {"DASHSEEK_REDIS_URL": url})
    async with gateway.open_limiter(chosen) as limiter:
        assert isinstance(limiter, redis_limiter.RedisLimiter)
        assert not refused(await limiter.reserve([], 1))
        await let_in(limiter, [scope("all", rpm=1)])
        assert refused(await limiter.reserve([scope("all", rpm=1)], 1))
