"""How the targets of all pools stand now: a row for each, for the page and `/pools.json`, and the gauges of `/metrics`.

Read from `Upstreams` when it is asked for; nothing here changes anything.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final, NamedTuple

from proxy.upstream.connections import Connections
from proxy.upstream.health import State
from proxy.upstream.pools import Upstreams
from proxy.upstream.targets import Target

# The last error of a name that has no address.
NO_ADDRESS: Final = "no_address"


class TargetReport(NamedTuple):
    """How one target stands.

    pool, target:  its names
    state:         well, out, or trial; a name that has no address is out
    in_flight:     upstream calls on their way
    max_in_flight: most of them; None: no bound
    out_for_s:     seconds until it is tried again; None while it is well, and for a name without an address
    last_error:    the last failure, as records word it
    first_token_s: moving mean of the time to a first packet
    calls:         upstream calls that were sent there
    """

    pool: str
    target: str
    state: str
    in_flight: int
    max_in_flight: int | None
    out_for_s: float | None
    last_error: str | None
    first_token_s: float | None
    calls: int


def targets(upstreams: Upstreams) -> list[TargetReport]:
    """Every target, by priority, then the names that have no address."""
    now_s = upstreams.now_s()
    return [
        *(_target(target, now_s) for target in upstreams.targets),
        *(
            TargetReport(pool.name, label, State.OUT.value, 0, pool.max_in_flight, None, NO_ADDRESS, None, 0)
            for pool, label in upstreams.nowhere()
        ),
    ]


def connections(opened: Connections) -> Mapping[str, int]:
    """How many connections wait for a call, and how many have one."""
    return {"idle": opened.idle, "acquired": opened.acquired}


def states(upstreams: Upstreams) -> dict[tuple[str, ...], float]:
    """How many targets of each configured one are in which state: pool, target, state; a name without one is out."""
    found: dict[tuple[str, ...], float] = {
        (pool.name, url, state.value): 0.0 for pool in upstreams.pools for url in pool.urls for state in State
    }
    for target in upstreams.targets:
        found[target.pool.name, target.label, target.standing.health.state.value] += 1
    for pool, label in upstreams.nowhere():
        found[pool.name, label, State.OUT.value] = 1.0
    return found


def loads(upstreams: Upstreams) -> dict[tuple[str, ...], float]:
    """The upstream calls on their way to each configured target: pool, target."""
    found: dict[tuple[str, ...], float] = {(pool.name, url): 0.0 for pool in upstreams.pools for url in pool.urls}
    for target in upstreams.targets:
        found[target.pool.name, target.label] += target.standing.in_flight
    return found


def first_tokens_s(upstreams: Upstreams) -> dict[tuple[str, ...], float]:
    """The longest mean time to a first packet of each configured target that has had one: pool, target."""
    found: dict[tuple[str, ...], float] = {}
    for target in upstreams.targets:
        place, mean_s = (target.pool.name, target.label), target.standing.first_token_s
        if mean_s is not None:
            found[place] = max(mean_s, found.get(place, 0.0))
    return found


def _target(target: Target, now_s: float) -> TargetReport:
    standing = target.standing
    health = standing.health
    return TargetReport(
        target.pool.name,
        target.url,
        health.state.value,
        standing.in_flight,
        None if math.isinf(target.most) else int(target.most),
        None if health.state is State.WELL else max(0.0, round(health.until_s - now_s, 1)),
        standing.last_error,
        None if standing.first_token_s is None else round(standing.first_token_s, 4),
        standing.calls,
    )
