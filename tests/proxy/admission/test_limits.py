"""Claims about limits: never over, never below nothing, a refund leaves no trace, who is refused is told until when."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from config import sources, values
from proxy.admission import limits, memory_limiter
from proxy.admission.memory_limiter import MemoryLimiter

ALL = "all"
KEYS = ("key:a", "key:b")


class Clock:
    """Milliseconds, as the test says."""

    def __init__(self) -> None:
        self.ms = 1_000_000

    def __call__(self) -> int:
        return self.ms


def now(
    limiter: MemoryLimiter, scopes: list[limits.Scope], tokens: int = 1, held: int | None = None
) -> limits.Reservation | limits.Refused:
    """Reserve without a loop: the memory never waits, which is why no other call can come between."""
    coroutine = limiter.reserve(scopes, tokens, held)
    try:
        coroutine.send(None)
    except StopIteration as done:
        decision: limits.Reservation | limits.Refused = done.value
        return decision
    raise AssertionError("it waited")


def levels(limiter: MemoryLimiter) -> dict[str, int]:
    return {name: bucket.level for name, bucket in limiter._buckets.items()}


def scope(name: str = ALL, /, **limit: int) -> limits.Scope:
    return limits.Scope(name, values.Limit(**limit))


def taken(decision: limits.Reservation | limits.Refused) -> limits.Reservation:
    assert not isinstance(decision, limits.Refused)
    return decision


def told(decision: limits.Reservation | limits.Refused) -> tuple[int, str, str | None]:
    assert isinstance(decision, limits.Refused)
    return decision.fault.status, decision.fault.code, decision.fault.retry_after


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def limiter(clock: Clock) -> MemoryLimiter:
    return MemoryLimiter(clock)


# What a caller is told


@pytest.mark.parametrize(
    ("limit", "tokens", "answer"),
    [
        ({"concurrency": 2}, 1, (503, "ModelServingError", "1")),
        ({"burst": 2}, 1, (429, "Throttling.BurstRate", "1")),
        ({"rpm": 2}, 1, (429, "Throttling.RateQuota", "30")),
        ({"tpm": 20}, 10, (429, "Throttling.AllocationQuota", "30")),
    ],
    ids=["row 43", "row 42", "row 39", "row 40"],
)
def test_the_third_call_of_two_is_refused_in_dashscopes_words(
    limit: dict[str, int], tokens: int, answer: tuple[int, str, str], limiter: MemoryLimiter
) -> None:
    """LIM-1, ERR: with `Retry-After`, and the caller is to blame."""
    for _ in range(2):
        taken(now(limiter, [scope(ALL, **limit)], tokens))
    refused = now(limiter, [scope(ALL, **limit)], tokens)
    assert told(refused) == answer
    assert isinstance(refused, limits.Refused)
    assert refused.fault.blame == "caller"


def test_of_several_reasons_the_one_that_lasts_longest_is_told(limiter: MemoryLimiter) -> None:
    everything = [scope(concurrency=1, burst=1, rpm=1, tpm=600), scope("model:m", rpm=2)]
    taken(now(limiter, everything, 100))
    assert told(now(limiter, everything, 600)) == (429, "Throttling.RateQuota", "60")


@given(st.integers(1, 50), st.integers(1, 5_000), st.integers(0, 70_000))
def test_who_waits_as_long_as_told_is_let_in(rpm: int, tpm: int, later_ms: int) -> None:
    clock = Clock()
    limiter = MemoryLimiter(clock)
    allowance = [scope(rpm=rpm, tpm=tpm)]
    while not isinstance(refused := now(limiter, allowance, 1 + tpm // 3), limits.Refused):
        pass
    clock.ms += later_ms
    assert refused.fault.retry_after is not None
    clock.ms += int(refused.fault.retry_after) * 1_000
    taken(now(limiter, allowance, 1 + tpm // 3))


@pytest.mark.parametrize(("limit", "room_ms"), [({"tpm": 7}, 8_572), ({"rpm": 1}, 60_000), ({"burst": 1}, 1_000)])
def test_a_millisecond_too_early_is_too_early(
    limit: dict[str, int], room_ms: int, limiter: MemoryLimiter, clock: Clock
) -> None:
    """Of seven tokens a minute one comes back every 8,571.4 ms."""
    taken(now(limiter, [scope(ALL, **limit)], 7))
    clock.ms += room_ms - 1
    assert isinstance(now(limiter, [scope(ALL, **limit)], 1), limits.Refused)
    clock.ms += 1
    taken(now(limiter, [scope(ALL, **limit)], 1))


@pytest.mark.parametrize(("wait_ms", "told_s"), [(1, "1"), (1_000, "1"), (1_001, "2"), (600_000_001, "600001")])
def test_the_time_that_is_told_is_whole_seconds_and_never_too_short(wait_ms: int, told_s: str) -> None:
    (demand,) = limits.demands([scope(rpm=1)], 1)
    assert told(limits.refused(demand, wait_ms))[2] == told_s


# All or nothing


def test_a_call_that_one_scope_refuses_takes_nothing_from_the_others(limiter: MemoryLimiter) -> None:
    wide, narrow = scope(rpm=10, concurrency=5), scope("key:a", rpm=1)
    taken(now(limiter, [wide, narrow]))
    for _ in range(100):
        assert isinstance(now(limiter, [wide, narrow]), limits.Refused)
    for _ in range(4):
        taken(now(limiter, [wide]))


async def test_of_a_hundred_calls_at_once_as_many_are_let_in_as_may() -> None:
    """Row 41: no race."""
    limiter = MemoryLimiter()
    asked = (limiter.reserve([scope(tpm=1_000, concurrency=80)], 100) for _ in range(100))
    decisions = await asyncio.gather(*asked)
    assert sum(not isinstance(decision, limits.Refused) for decision in decisions) == 10


def test_without_limits_everybody_is_let_in(limiter: MemoryLimiter) -> None:
    for _ in range(100):
        taken(now(limiter, [], 10**9)).release()
        taken(now(limiter, [scope()], 10**9)).settle(10**9)


def test_a_call_that_may_be_longer_than_a_minutes_worth_waits_for_all_of_it(
    limiter: MemoryLimiter, clock: Clock
) -> None:
    """LIM-1: else nobody who does not say `max_tokens` could ever be let in."""
    taken(now(limiter, [scope(tpm=100)], 65_536))
    assert told(now(limiter, [scope(tpm=100)], 1)) == (429, "Throttling.AllocationQuota", "1")
    assert told(now(limiter, [scope(tpm=100)], 65_536)) == (429, "Throttling.AllocationQuota", "60")
    clock.ms += 60_000
    taken(now(limiter, [scope(tpm=100)], 65_536))


# Ends


def test_an_open_call_makes_room_when_it_ends_and_only_once(limiter: MemoryLimiter) -> None:
    """Row 44."""
    first, second = (taken(now(limiter, [scope(concurrency=2)])) for _ in range(2))
    for end in (first.release, first.release, first.refund, lambda: first.settle(9)):
        end()
    taken(now(limiter, [scope(concurrency=2)]))
    assert isinstance(now(limiter, [scope(concurrency=2)]), limits.Refused)
    second.refund()
    taken(now(limiter, [scope(concurrency=2)]))


@pytest.mark.parametrize(
    ("end", "left"),
    [("refund", 100), ("settle", 70), ("more", 0), ("release", 40)],
)
def test_tokens_come_back_as_far_as_they_were_not_used(end: str, left: int, limiter: MemoryLimiter) -> None:
    """Row 44; what was used beyond the reservation is taken as far as there is any left."""
    reservation = taken(now(limiter, [scope(tpm=100)], 60))
    if end in {"settle", "more"}:
        reservation.settle(30 if end == "settle" else 5_000)
    else:
        getattr(reservation, end)()
    if left:
        taken(now(limiter, [scope(tpm=100)], left))
    assert isinstance(now(limiter, [scope(tpm=100)], 1), limits.Refused)


def test_what_was_used_above_the_limit_is_waited_for(limiter: MemoryLimiter, clock: Clock) -> None:
    """LIM-1: a call may be let in that is longer than a whole minute's allowance; it is paid for to the last token."""
    taken(now(limiter, [scope(tpm=100)], 900)).settle(350)
    assert told(now(limiter, [scope(tpm=100)], 1))[2] == "151"
    # As many invented keys as make it look for buckets that have drained.
    for number in range(2 * memory_limiter.SWEEP_AT):
        now(limiter, [scope(f"key:{number}", burst=1)])
    clock.ms += 150_000
    assert told(now(limiter, [scope(tpm=100)], 1))[2] == "1"
    clock.ms += 600
    taken(now(limiter, [scope(tpm=100)], 1))


def test_a_failed_call_was_a_call_all_the_same(limiter: MemoryLimiter) -> None:
    """Who retries in a loop what fails is still held to calls a minute."""
    taken(now(limiter, [scope(rpm=1)])).refund()
    assert isinstance(now(limiter, [scope(rpm=1)]), limits.Refused)


@given(
    parts=st.tuples(st.integers(1, 150), st.integers(0, 150)),
    used=st.one_of(st.none(), st.integers(0, 400)),
    waits_ms=st.tuples(st.integers(0, 40_000), st.integers(0, 90_000)),
    level=st.integers(0, 60),
)
def test_what_is_taken_in_two_steps_is_as_if_it_had_been_one(
    parts: tuple[int, int], used: int | None, waits_ms: tuple[int, int], level: int
) -> None:
    """USE-8: the call and its answer before its prompt is counted, then that; one call, and one settlement."""
    clock = Clock()
    one, two = MemoryLimiter(clock), MemoryLimiter(clock)
    allowance = [scope(tpm=100, rpm=10, concurrency=3), scope("key:k", tpm=400)]
    for limiter in (one, two):
        taken(now(limiter, allowance, level)).release()
    whole = now(one, allowance, sum(parts))
    first = now(two, allowance, parts[0])
    more = now(two, allowance, parts[1], held=parts[0])
    if isinstance(whole, limits.Refused):
        assert isinstance(first, limits.Refused) or told(more) == told(whole)
        return
    joined = limits.Joined(taken(first), taken(more))
    assert levels(one) == levels(two)
    clock.ms += sum(waits_ms)
    for ended in (whole, joined):
        if used is None:
            ended.release()
        else:
            ended.settle(used)
    # A meter that nobody has touched has not drained in the books.
    later = [now(limiter, allowance, 1) for limiter in (one, two)]
    assert levels(one) == levels(two)
    assert isinstance(later[0], limits.Refused) == isinstance(later[1], limits.Refused)


@pytest.mark.parametrize(
    ("end", "changed"),
    [
        (lambda call: call.settle(45), [(-1, 0), (5,)]),
        (lambda call: call.settle(5), [(-1, -25), (-10,)]),
        (lambda call: call.settle(60, in_part=True), [(-1, 0), (0,)]),
        (lambda call: call.refund(), [(-1, -30), (-10,)]),
        (lambda call: call.release(), [(-1, 0), (0,)]),
    ],
)
def test_both_steps_of_a_call_end_as_it_does(
    end: Callable[[limits.Joined], None], changed: list[tuple[int, ...]]
) -> None:
    """USE-8: 30 tokens, then 10 more; the first step is settled in part, what is above both with the second."""
    reported = list[tuple[int, ...]]()
    steps = [
        limits.Taken(
            [*limits.demands([scope(concurrency=1, tpm=100)], tokens, held)],
            lambda changes: reported.append(tuple(change for _, change in changes)),
        )
        for tokens, held in ((30, None), (10, 30))
    ]
    end(limits.Joined(*steps))
    assert reported == changed


@pytest.mark.parametrize(
    ("kind", "tokens_used", "cost", "change"),
    [
        ("tpd", 700, Decimal("0.5"), 700),
        ("tokens_month", None, Decimal("0.5"), 0),
        ("cost_day", 700, Decimal("0.0028"), 28_000_000),
        ("cost_month", None, limits.NO_MONEY, 0),
    ],
)
def test_a_budget_counts_what_a_call_has_used_or_cost_when_it_has_ended(
    kind: limits.Kind, tokens_used: int | None, cost: Decimal, change: int
) -> None:
    demand = limits.Demand(f"all:{kind}", kind, 10**9, -1_000, 0)
    assert limits.changes([demand], tokens_used, cost=cost) == ((demand, change),)
    free = 0 if kind in values.COSTS else tokens_used or 0
    assert limits.changes([demand], tokens_used) == ((demand, free),)


def test_a_prompt_there_is_no_room_for_gives_its_answers_tokens_back(limiter: MemoryLimiter) -> None:
    """LIM-1; it was a call all the same: its prompt was counted (USE-8)."""
    taken(now(limiter, [scope(tpm=100)], 10)).release()
    allowance = [scope(tpm=100, concurrency=1, rpm=2)]
    first = taken(now(limiter, allowance, 60))
    assert told(now(limiter, allowance, 41, held=60))[:2] == (429, "Throttling.AllocationQuota")
    first.refund()
    taken(now(limiter, allowance, 90)).refund()
    assert told(now(limiter, allowance, 1))[1] == "Throttling.RateQuota"


@given(
    history=st.lists(st.tuples(st.integers(1, 80), st.integers(0, 40_000)), max_size=12),
    tokens=st.integers(1, 200),
    waits_ms=st.tuples(st.integers(0, 90_000), st.integers(0, 90_000)),
)
def test_a_refund_leaves_no_trace(history: list[tuple[int, int]], tokens: int, waits_ms: tuple[int, int]) -> None:
    """LIM-1: exact to the token, whatever has drained meanwhile: the limiter is as one that never saw the call."""
    clock = Clock()
    seen, unseen = MemoryLimiter(clock), MemoryLimiter(clock)
    allowance = [scope(tpm=100)]
    for cost, wait_ms in history:
        now(seen, allowance, cost), now(unseen, allowance, cost)
        clock.ms += wait_ms
    extra = now(seen, allowance, tokens)
    clock.ms += waits_ms[0]
    if not isinstance(extra, limits.Refused):
        extra.refund()
    clock.ms += waits_ms[1]
    for cost in (1, 100, 37):
        first, second = now(seen, allowance, cost), now(unseen, allowance, cost)
        if isinstance(first, limits.Refused) or isinstance(second, limits.Refused):
            assert first == second
    assert seen._buckets == unseen._buckets


@st.composite
def calls_and_ends(draw: st.DrawFn) -> list[tuple[str, int, int]]:
    """Calls of tokens, then the tokens that each has used, in any order, with waits: `("begin", call, tokens)`."""
    costs = draw(st.lists(st.integers(1, 80), min_size=1, max_size=7))
    begun = [("begin", call, tokens) for call, tokens in enumerate(costs)]
    ends = [("end", call, draw(st.integers(0, cost))) for call, cost in enumerate(costs)]
    waits = [("wait", 0, ms) for ms in draw(st.lists(st.integers(0, 60_000), max_size=12))]
    steps = draw(st.permutations([*begun, *ends, *waits]))
    open_calls: set[int] = set()
    late = [step for step in steps if step[0] == "end"]
    order = []
    for step in (*steps, *late):
        if step[0] == "begin":
            open_calls.add(step[1])
        if step[0] == "end":
            if step[1] not in open_calls:
                continue
            open_calls.discard(step[1])
        order.append(step)
    return order


@given(calls_and_ends())
def test_a_late_refund_is_as_if_the_call_had_taken_that_much_from_the_start(steps: list[tuple[str, int, int]]) -> None:
    """LIM-1: what of it has drained meanwhile has made room already; what others have taken since stays taken."""
    used = {call: tokens for step, call, tokens in steps if step == "end"}
    clock = Clock()
    real, ideal = MemoryLimiter(clock), MemoryLimiter(clock)
    allowance = [scope(tpm=600)]
    open_calls = {}
    for step, call, value in steps:
        if step == "wait":
            clock.ms += value
        elif step == "begin":
            open_calls[call] = taken(now(real, allowance, value))
            taken(now(ideal, allowance, used[call]))
        else:
            open_calls.pop(call).settle(value)
    # Touched, so that both have drained up to now.
    for limiter in (real, ideal):
        taken(now(limiter, allowance, 1))
    assert levels(real) == levels(ideal)


def test_a_refund_after_a_minute_gives_back_nothing_that_others_have_taken(
    limiter: MemoryLimiter, clock: Clock
) -> None:
    allowance = [scope(tpm=100)]
    early = taken(now(limiter, allowance, 100))
    clock.ms += 60_000
    taken(now(limiter, allowance, 100))
    early.refund()
    assert told(now(limiter, allowance, 1))[:2] == (429, "Throttling.AllocationQuota")


def test_however_many_calls_are_open_few_low_levels_are_kept_and_never_too_much_is_given_back(
    limiter: MemoryLimiter, clock: Clock
) -> None:
    allowance = [scope(tpm=1_000_000)]
    open_calls = []
    for _ in range(10 * limits.MOST_LOWS):
        open_calls.append(taken(now(limiter, allowance, 1_000)))
        clock.ms += 3
    (bucket,) = limiter._buckets.values()
    assert len(bucket.lows) == limits.MOST_LOWS
    for one in open_calls:
        one.refund()
    assert 0 <= bucket.level < 60_000 * 1_000 * 20
    clock.ms += 120_000
    taken(now(limiter, allowance, 1_000_000))


def test_low_levels_that_are_kept_rise_and_the_nearest_two_count_as_the_lower() -> None:
    """What a refund may give back, by the reservation it is of."""
    bucket = memory_limiter.Bucket(0, 0, 0)
    for number, level in enumerate((9, 5, 5, 7)):
        bucket.note(number, level)
    assert bucket.lows == [(2, 5), (3, 7)]
    bucket.level = 30
    bucket.give_back(2, 2)
    assert (bucket.lows, bucket.level) == ([(3, 5)], 28)
    for nearest in (0, 10, limits.MOST_LOWS - 1):
        bucket = memory_limiter.Bucket(0, 0, 0)
        levels = [2 * number + (number > nearest) * -1 for number in range(limits.MOST_LOWS + 1)]
        for number, level in enumerate(levels):
            bucket.note(number, level)
        kept = [*enumerate(levels)]
        kept[nearest : nearest + 2] = [(nearest + 1, levels[nearest])]
        assert bucket.lows == kept


# What a limiter remembers


def test_keys_that_callers_invent_are_forgotten(limiter: MemoryLimiter, clock: Clock) -> None:
    for number in range(3 * memory_limiter.SWEEP_AT):
        taken(now(limiter, [scope(f"key:{number}", rpm=5, concurrency=5)])).release()
        clock.ms += 20
    assert len(limiter._buckets) < 2 * memory_limiter.SWEEP_AT


def test_many_that_cannot_be_forgotten_are_not_looked_through_again_and_again(
    limiter: MemoryLimiter, clock: Clock
) -> None:
    """Each time only when there are twice as many; and a meter is forgotten in the moment it is empty."""
    seen, looks = limiter._buckets, 0
    for number in range(2 * memory_limiter.SWEEP_AT):
        taken(now(limiter, [scope(f"key:{number}", rpm=1)]))
        looks += limiter._buckets is not seen
        seen = limiter._buckets
    assert looks == 2
    clock.ms += 60_000
    for number in range(2 * memory_limiter.SWEEP_AT):
        taken(now(limiter, [scope(f"model:{number}", rpm=1)]))
    assert len(limiter._buckets) == 2 * memory_limiter.SWEEP_AT


def test_a_meter_that_is_not_empty_is_not_forgotten(limiter: MemoryLimiter) -> None:
    taken(now(limiter, [scope("key:full", rpm=1)]))
    for number in range(3 * memory_limiter.SWEEP_AT):
        taken(now(limiter, [scope(f"key:{number}", concurrency=1)])).release()
    assert len(limiter._buckets) < 2 * memory_limiter.SWEEP_AT
    assert isinstance(now(limiter, [scope("key:full", rpm=1)]), limits.Refused)


def test_an_open_call_is_never_forgotten(limiter: MemoryLimiter, clock: Clock) -> None:
    taken(now(limiter, [scope("key:open", concurrency=1)]))
    for number in range(3 * memory_limiter.SWEEP_AT):
        clock.ms += 100
        taken(now(limiter, [scope(f"key:{number}", rpm=5)]))
    assert isinstance(now(limiter, [scope("key:open", concurrency=1)]), limits.Refused)


def test_a_limit_that_shrinks_while_calls_are_open_counts_at_once(limiter: MemoryLimiter) -> None:
    """KEY-1: the keys file is re-read."""
    first = taken(now(limiter, [scope(tpm=100, concurrency=3)], 90))
    taken(now(limiter, [scope(tpm=100, concurrency=3)], 5))
    assert isinstance(now(limiter, [scope(tpm=10, concurrency=1)], 1), limits.Refused)
    first.settle(2)
    assert isinstance(now(limiter, [scope(tpm=10, concurrency=1)], 1), limits.Refused)
    taken(now(limiter, [scope(tpm=10, concurrency=2)], 3))


# Any history


class History(RuleBasedStateMachine):
    """Calls of two keys, let in, ended in any way, in any order, at any time."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.limiter = MemoryLimiter(self.clock)
        self.open: list[tuple[limits.Reservation, str, int]] = []
        # Of each scope, when what was taken from its tokens, or given back to them.
        self.moved: dict[str, list[tuple[int, int]]] = {name: [] for name in (ALL, *KEYS)}
        self.scopes: dict[str, limits.Scope] = {}

    @initialize(
        every=st.builds(values.Limit, *[st.integers(1, 12)] * 3, st.integers(50, 500)),
        each=st.builds(values.Limit, *[st.one_of(st.none(), st.integers(1, 6))] * 3, st.integers(20, 300)),
    )
    def furnish(self, every: values.Limit, each: values.Limit) -> None:
        self.scopes = {ALL: limits.Scope(ALL, every)} | {name: limits.Scope(name, each) for name in KEYS}

    @rule(key=st.sampled_from(KEYS), tokens=st.integers(1, 400))
    def call(self, key: str, tokens: int) -> None:
        decision = now(self.limiter, [self.scopes[ALL], self.scopes[key]], tokens)
        if not isinstance(decision, limits.Refused):
            self.open.append((decision, key, tokens))
            self.nothing_is_above_full()
            self.move(key, lambda amount: min(tokens, amount))

    @rule(ms=st.integers(0, 70_000))
    def wait(self, ms: int) -> None:
        self.clock.ms += ms

    @precondition(lambda self: self.open)
    @rule(which=st.integers(0, 99), used=st.one_of(st.none(), st.integers(0, 400)), again=st.booleans())
    def end(self, which: int, used: int | None, again: bool) -> None:
        reservation, key, tokens = self.open.pop(which % len(self.open))
        for _ in range(1 + again):
            if used is None:
                reservation.release()
            else:
                reservation.settle(used)
        if used is not None:
            self.move(key, lambda amount: min(used, amount, tokens) - min(tokens, amount))

    def move(self, key: str, change: object) -> None:
        for name in (ALL, key):
            amount = self.scopes[name].limit.tpm
            assert callable(change)
            self.moved[name].append((self.clock.ms, change(amount)))

    def nothing_is_above_full(self) -> None:
        """Of what a call was let in by; what calls have used above what they took is waited for first."""
        for demand in limits.demands([self.scopes[ALL]], 1):
            bucket = self.limiter._buckets[demand.meter]
            assert bucket.level <= demand.amount * (demand.period_ms or 1)

    @invariant()
    def no_bucket_is_below_empty(self) -> None:
        assert all(bucket.level >= 0 for bucket in self.limiter._buckets.values())

    @invariant()
    def as_many_calls_are_open_as_are_counted(self) -> None:
        for name, owner in self.scopes.items():
            count = sum(name in {ALL, key} for _, key, _ in self.open)
            if owner.limit.concurrency is not None:
                meter = self.limiter._buckets.get(f"{name}:concurrency", memory_limiter.Bucket(0, 0, 0))
                assert meter.level == count <= owner.limit.concurrency

    @invariant()
    def no_window_of_time_has_more_tokens_than_a_full_meter_and_what_drained(self) -> None:
        for name, moved in self.moved.items():
            amount = self.scopes[name].limit.tpm if self.scopes else None
            for first, (begin_ms, _) in enumerate(moved):
                inside = moved[first:]
                window_ms = inside[-1][0] - begin_ms
                assert amount is not None
                assert sum(tokens for _, tokens in inside) * 60_000 <= amount * (60_000 + window_ms)


TestHistory = History.TestCase
TestHistory.settings = hypothesis_settings(max_examples=100, stateful_step_count=40)


# As an operator asks for it


def test_a_call_takes_from_everyones_its_keys_and_its_models_allowance() -> None:
    chosen = sources.load(
        {"limits": "rpm=9", "key_limits": "rpm=3", "model_limits": ("deepseek-r1=concurrency=1",)}, None, {}
    )
    everyone = limits.Scope("all", values.Limit(rpm=9))
    model = limits.Scope("model:deepseek-r1", values.Limit(concurrency=1))
    assert limits.scopes(chosen, "deepseek-v3") == (everyone,)
    assert limits.scopes(chosen, "deepseek-r1", "ab") == (everyone, limits.Scope("key:ab", values.Limit(rpm=3)), model)
    own = values.Limit(tpm=1)
    assert limits.scopes(chosen, "deepseek-r1", "ab", own) == (everyone, limits.Scope("key:ab", own), model)
    nothing = sources.load({}, None, {})
    assert limits.scopes(nothing, "deepseek-v3", "ab") == ()
    assert limits.scopes(nothing, "deepseek-v3", "ab", own) == (limits.Scope("key:ab", own),)


@pytest.mark.parametrize(
    ("said", "name"),
    [({"limits": "rpm=9"}, "all"), ({"key_limits": "rpm=9"}, "key:ab"), ({"model_limits": ("m=rpm=9",)}, "model:m")],
)
def test_each_allowance_counts_by_itself(said: dict[str, object], name: str) -> None:
    chosen = sources.load(said, None, {})
    assert limits.scopes(chosen, "m", "ab") == (limits.Scope(name, values.Limit(rpm=9)),)
