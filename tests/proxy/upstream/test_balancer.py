"""Claims about which target a call goes to: clock, randomness and loads are the test's."""

from __future__ import annotations

import heapq
import math
import random
import sys
from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.pools import Pool
from proxy.upstream import balancer
from proxy.upstream.connections import place_of
from proxy.upstream.health import Event
from proxy.upstream.targets import Attempt, Standing, Target, number_of

NOW_S = 1_000.0
CHANCES = st.integers(0, 1 << 32).map(random.Random)


def pool(name: str = "a", **said: object) -> Pool:
    return Pool.model_validate({"name": name, "urls": ["http://a"], **said})


def target(of: Pool, number: int, *, in_flight: int = 0, out: bool = False) -> Target:
    standing = Standing()
    standing.in_flight = in_flight
    if out:
        standing.health.note(Event.LOST, NOW_S - number / 100)
    url = f"http://10.0.0.{number}:8000"
    return Target(of, url, url, place_of(url), standing)


@st.composite
def fleets(draw: st.DrawFn) -> list[Target]:
    """Up to four pools of up to four targets, in any state, by priority."""
    made = []
    for name in "abcd"[: draw(st.integers(1, 4))]:
        said = pool(
            name,
            priority=draw(st.integers(0, 2)),
            weight=draw(st.sampled_from([0.5, 1, 2, 5])),
            max_in_flight=draw(st.sampled_from([None, 1, 3])),
            spread=draw(st.sampled_from(["load", "order"])),
        )
        for number in range(draw(st.integers(1, 4))):
            load = draw(st.integers(0, 3 if said.max_in_flight is None else said.max_in_flight))
            made.append(target(said, number, in_flight=load, out=draw(st.booleans())))
    return sorted(made, key=lambda one: one.pool.priority)


KEYS = st.one_of(st.none(), st.integers(1, (1 << 64) - 1))


@given(fleets(), KEYS, CHANCES, st.booleans())
def test_it_is_free_and_of_the_lowest_priority_that_has_one_well(
    fleet: list[Target], key: int | None, chance: random.Random, retried: bool
) -> None:
    tried = fleet[:1] if retried else []
    found = balancer.choose(fleet, NOW_S, chance.random, key=key, tried=tried)
    free = [one for one in fleet if one.standing.in_flight < one.most and one not in tried]
    if found is None:
        assert not free
        return
    assert found in free
    well = [one for one in free if one.standing.health.may_be_asked(NOW_S)]
    if well:
        assert found in well
        assert found.pool.priority == min(one.pool.priority for one in well)


@given(
    st.lists(st.tuples(st.integers(0, 12), st.sampled_from([0.5, 1, 3])), min_size=2, max_size=8),
    st.booleans(),
    st.integers(1, (1 << 64) - 1),
)
def test_what_a_key_is_bound_to_has_at_most_its_share_and_a_quarter(
    loads: list[tuple[int, float]], alike: bool, key: int
) -> None:
    fleet = [
        target(pool(str(number), weight=1 if alike else weight), number, in_flight=load)
        for number, (load, weight) in enumerate(loads)
    ]
    found = balancer.choose(fleet, NOW_S, random.Random(0).random, key=key)
    assert found is not None
    share = found.weight / sum(one.weight for one in fleet)
    most = 1.25 * (sum(load for load, _ in loads) + 1) * share + 1e-9  # as rounded
    assert found.standing.in_flight < math.ceil(most)


def test_its_share_and_a_quarter_counts_the_call_that_is_placed() -> None:
    """Of two calls on four targets, and this one, no target takes two: its share and a quarter are less than one."""
    for key in range(1, 17):
        fleet = [target(pool(str(number)), number, in_flight=number % 2) for number in range(4)]
        found = balancer.choose(fleet, NOW_S, random.Random(0).random, key=key)
        assert found is not None
        assert found.standing.in_flight == 0


def test_a_key_stays_with_its_target_and_the_others_stay_when_one_goes() -> None:
    said = pool()
    fleet = [target(said, number) for number in range(8)]
    keys = [random.Random(number).getrandbits(64) for number in range(400)]

    def bound(among: list[Target]) -> list[Target]:
        return [balancer.choose(among, NOW_S, random.Random(1).random, key=key) for key in keys]  # type: ignore[misc]

    before, after = bound(fleet), bound(fleet[1:])
    assert bound(fleet) == before
    assert all(now is then for then, now in zip(before, after, strict=True) if then is not fleet[0])
    shares = Counter(one.url for one in before)
    assert len(shares) == len(fleet)
    assert max(shares.values()) < 2.5 * min(shares.values())


@pytest.mark.parametrize("weights", [(3, 1), (1, 2, 4), (0.1, 0.5, 1, 5)])
def test_a_weight_is_a_share_of_the_keys(weights: Sequence[float]) -> None:
    fleet = [target(pool(str(number), weight=weight), number) for number, weight in enumerate(weights)]
    chance = random.Random(5)
    found = Counter(balancer.choose(fleet, NOW_S, chance.random, key=chance.getrandbits(64)) for _ in range(4_000))
    assert max(abs(found[one] / 4_000 - one.weight / sum(weights)) for one in fleet) < 0.02


@pytest.mark.parametrize("remainder", [0, sys.hash_info.modulus - 1], ids=["least", "most"])
def test_the_least_and_the_most_that_a_hash_can_be_are_a_score(remainder: int) -> None:
    """A logarithm of 0 is none, and by one of 1 nothing can be divided."""
    fleet = [target(pool("a", weight=2), 1), target(pool("b"), 2)]
    key = pow(fleet[0].seed, -1, sys.hash_info.modulus) * remainder or sys.hash_info.modulus
    assert hash(fleet[0].seed * key) == remainder
    found = balancer.choose(fleet, NOW_S, random.Random(1).random, key=key)
    assert found is fleet[0]


@given(st.integers(2, 12), CHANCES)
def test_nobody_starves_and_nobody_is_crowded(number: int, chance: random.Random) -> None:
    """Calls that never end: with two choices the fullest has hardly more than the mean."""
    said = pool()
    fleet = [target(said, place) for place in range(number)]
    for _ in range(20 * number):
        found = balancer.choose(fleet, NOW_S, chance.random)
        assert found is not None
        found.standing.in_flight += 1
    loads = [one.standing.in_flight for one in fleet]
    assert min(loads) > 10
    assert max(loads) < 30


@given(CHANCES)
def test_the_load_follows_the_weights(chance: random.Random) -> None:
    fleet = [target(pool("a", weight=1), 1), target(pool("b", weight=3), 2)]
    for _ in range(400):
        found = balancer.choose(fleet, NOW_S, chance.random)
        assert found is not None
        found.standing.in_flight += 1
    assert abs(fleet[1].standing.in_flight - 300) <= 2


def shares(fleet: list[Target], takes_s: Sequence[float], at_once: int, calls: int) -> list[float]:
    """The part of so many calls that each target gets, so many of them on their way at any time; no clock waits."""
    chance = random.Random(1)
    open_calls: list[tuple[float, int, int]] = []
    served: Counter[int] = Counter()

    def begin(now_s: float, number: int) -> None:
        found = balancer.choose(fleet, now_s, chance.random)
        assert found is not None
        found.standing.in_flight += 1
        place = fleet.index(found)
        # All of the first begin at once, which is no choice.
        served[place] += number >= at_once
        heapq.heappush(open_calls, (now_s + takes_s[place] * chance.uniform(0.7, 1.3), number, place))

    for number in range(at_once):
        begin(0.0, number)
    for number in range(at_once, at_once + calls):
        now_s, _, place = heapq.heappop(open_calls)
        fleet[place].standing.in_flight -= 1
        begin(now_s, number)
    return [served[place] / calls for place in range(len(fleet))]


def test_shares_follow_capacity_within_a_twentieth() -> None:
    """Three of different speed under 2,000 calls, sixty at a time."""
    takes_s = (1.0, 0.5, 0.25)
    found = shares([target(pool(), number) for number in range(3)], takes_s, at_once=60, calls=2_000)
    ideal = [1 / one_s / sum(1 / s for s in takes_s) for one_s in takes_s]
    assert max(abs(share / fair - 1) for share, fair in zip(found, ideal, strict=True)) < 0.05


@pytest.mark.parametrize(("at_once", "most"), [(1, 0.015), (2, 0.1), (4, 0.1), (8, 0.03), (60, 0.01)])
@pytest.mark.parametrize("weights", [(1, 3), (1, 2), (1, 9), (1, 2, 4), (8, *[1] * 8), (0.1, *[10] * 3)])
def test_shares_follow_weights_however_much_is_on_its_way(weights: Sequence[float], at_once: int, most: float) -> None:
    """A call is whole: of two of a weight of 1 and 3 with two calls between them, one has none, half, or all."""
    fleet = [target(pool(str(number), weight=weight), number) for number, weight in enumerate(weights)]
    found = shares(fleet, [1.0] * len(fleet), at_once, calls=4_000)
    ideal = [weight / sum(weights) for weight in weights]
    assert max(abs(share - fair) for share, fair in zip(found, ideal, strict=True)) < most


def test_of_two_of_different_weight_both_are_looked_at() -> None:
    heavy, light = target(pool("h", weight=3), 1, in_flight=100), target(pool("l"), 2)
    chance = random.Random(2)
    assert {balancer.choose([heavy, light], NOW_S, chance.random) for _ in range(100)} == {light}


def test_of_pools_of_one_priority_the_first_says_how_calls_are_spread() -> None:
    ordered, loaded = target(pool("a", spread="order"), 1, in_flight=7), target(pool("b"), 2)
    assert balancer.choose([ordered, loaded], NOW_S, random.Random(0).random) is ordered
    loaded.standing.in_flight = 9
    assert balancer.choose([loaded, ordered], NOW_S, random.Random(0).random) is ordered


def test_in_order_the_first_that_is_well_is_asked() -> None:
    said = pool(spread="order")
    fleet = [target(said, 0, out=True), target(said, 1, in_flight=7), target(said, 2)]
    assert balancer.choose(fleet, NOW_S, random.Random(0).random) is fleet[1]


def test_where_nothing_is_well_the_one_that_is_tried_the_soonest_serves() -> None:
    said = pool()
    fleet = [target(said, 1, out=True), target(said, 3, out=True), target(said, 2, out=True)]
    assert balancer.choose(fleet, NOW_S, random.Random(0).random) is fleet[1]


def test_where_nothing_is_free_nothing_is_found() -> None:
    said = pool(max_in_flight=2)
    assert balancer.choose([target(said, 1, in_flight=2)], NOW_S, random.Random(0).random) is None


@given(st.integers(0, 10_000), st.integers(0, 10_000))
def test_retries_are_a_fifth_of_what_is_in_flight_or_a_few(retries: int, in_flight: int) -> None:
    allowed = balancer.may_retry(retries, in_flight)
    assert allowed == (retries < max(3, in_flight / 5))


def test_a_mean_follows_the_newest_by_a_fifth() -> None:
    standing = Standing()
    means = []
    for first_token_s in (1.0, 2.0, 1.2):
        standing.took(first_token_s)
        means.append(standing.first_token_s)
    assert means == pytest.approx([1.0, 1.2, 1.2])


def test_a_text_has_one_number_of_sixty_four_bits_in_every_process() -> None:
    """Else two replicas would bind a session to two targets."""
    assert number_of(b"a http://10.0.0.1:8000") == 3_674_506_630_929_958_527


def test_a_try_begins_as_the_first_over_a_connection_of_its_own() -> None:
    attempt = Attempt("http://a")
    assert (attempt.word, attempt.retry, attempt.reused, attempt.unserved) == ("open", False, False, False)
    attempt.answered(503)
    assert attempt.word == "503"
