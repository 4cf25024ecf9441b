"""The targets that serve a model -> the one that a call goes to; and whether another try is within the budget.

Pure: clock, randomness and what is in flight are handed in. The lowest priority with a target that is well and free;
inside it the less loaded of two picked at random, or the one that a key belongs to; where nothing is well the least bad
serves. A weight is a part of what is in flight, and so of the calls where all targets take as long. Source:
Mitzenmacher, The Power of Two Choices, 2001; Thaler and Ravishankar, Using Name-Based Mappings to Increase Hit Rates,
1998 (rendezvous); Mirrokni, Thorup, Zadimoghaddam, Consistent Hashing with Bounded Loads, 2018.
"""

from __future__ import annotations

import math
from bisect import bisect
from collections.abc import Callable, Collection, Sequence
from itertools import accumulate
from typing import Final

from proxy.upstream.health import WELL
from proxy.upstream.targets import Target

# A target that a key belongs to takes at most so many times the mean of what is in flight.
BOUND: Final = 1.25
# Tries beyond the first may be this part of the calls in flight, and always so many.
RETRIED_PART: Final = 0.2
LEAST_RETRIES: Final = 3

# Of so many all are looked at: two picks would leave out the one that is free in a third of all choices.
FEW: Final = 3

# Above the hash of any whole number (`sys.hash_info.modulus`), by so much that no quotient is rounded to 1.
_NUMBERS: Final = 2.0**61 + 2.0**10


def choose(
    targets: Sequence[Target],
    now_s: float,
    random: Callable[[], float],
    *,
    key: int | None = None,
    tried: Collection[Target] = (),
) -> Target | None:
    """The target that a call goes to; None where none is free.

    targets: those that serve its model, by priority
    now_s:   the clock that their health goes by
    random:  a number from 0 to below 1, each time another
    key:     what a target is bound to by affinity; None: by load alone
    tried:   those that are out of the question
    """
    fit: list[Target] = []
    priority: int | None = None
    for target in targets:
        if target.pool.priority != priority:
            if fit:
                break
            priority = target.pool.priority
        standing = target.standing
        if (
            standing.in_flight < target.most
            and (standing.health.state is WELL or standing.health.may_be_asked(now_s))
            and target not in tried
        ):
            fit.append(target)
    if not fit:
        return _least_bad(targets, tried)
    if len(fit) == 1:
        return fit[0]
    if key is not None:
        return _bound_to(key, fit)
    if fit[0].pool.spread == "order":
        return fit[0]
    return _less_loaded(fit, random)


def may_retry(retries: int, in_flight: int) -> bool:
    """Whether one more try beyond the first is within the budget.

    retries:   those that are on their way
    in_flight: all upstream calls that are
    """
    return retries < max(LEAST_RETRIES, RETRIED_PART * in_flight)


def _less_loaded(fit: Sequence[Target], random: Callable[[], float]) -> Target:
    """Of two picked at random, each as often as its weight says, the one that has less on its way for its weight.

    Of three that weigh the same it is the one that has the least. Picked alike, a target would be in two of `len(fit)`
    picks at most, however great its weight. And the one that is picked first is left where the other with a part of a
    call more, by chance, has less: were two of whole numbers the measure, the greater weight would get all that comes
    alone, and two calls at a time would be shared alike.
    """
    number = len(fit)
    weights = [target.weight for target in fit]
    if min(weights) == max(weights):
        first = int(random() * number)
        second = int(random() * (number - 1))
        if second >= first:
            second += 1
        one, other = fit[first], fit[second]
        found = other if other.standing.in_flight < one.standing.in_flight else one
        if number == FEW:
            last = fit[FEW - first - second]
            return last if last.standing.in_flight < found.standing.in_flight else found
        return found
    first = _picked(weights, random())
    one = fit[first]
    weights[first] = 0.0
    other = fit[_picked(weights, random())]
    # Divided by the weights; multiplied crosswise there is nothing to divide.
    if (other.standing.in_flight + random()) * one.weight < one.standing.in_flight * other.weight:
        return other
    return one


def _picked(weights: Sequence[float], chance: float) -> int:
    """A place among some, each with the likelihood of its weight."""
    sums = [*accumulate(weights)]
    # Below the last sum however it is rounded: the greatest chance is half a unit in the last place below 1.
    return bisect(sums, chance * sums[-1])


def _bound_to(key: int, fit: Sequence[Target]) -> Target:
    """The one of the highest score that has less than its share of 1.25 times what is in flight.

    The hash of a whole number is what is left of it when divided by a prime: of two that are multiplied a number that
    tells neither, in every process the same. A hash of texts costs ten times as much.
    """
    loads = [target.standing.in_flight for target in fit]
    weights = {target.weight for target in fit}
    found, best = fit[0], -math.inf
    if len(weights) == 1:
        most = math.ceil(BOUND * (sum(loads) + 1) / len(fit))
        for target, load in zip(fit, loads, strict=True):
            if load < most and (score := hash(target.seed * key)) > best:
                found, best = target, score
        return found
    share = BOUND * (sum(loads) + 1) / sum(target.weight for target in fit)
    for target, load in zip(fit, loads, strict=True):
        rank = -target.weight / math.log((hash(target.seed * key) + 1) / _NUMBERS)
        if load < math.ceil(share * target.weight) and rank > best:
            found, best = target, rank
    return found


def _least_bad(targets: Sequence[Target], tried: Collection[Target]) -> Target | None:
    """Of those that are free, the one that may be well the soonest."""
    free = [one for one in targets if one.standing.in_flight < one.most and one not in tried]
    return min(free, key=lambda one: one.standing.health.until_s, default=None)
