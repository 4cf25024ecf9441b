"""What calls go to: a target of a pool, the calls that are on their way there, and the record of each try (ERR-4)."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import Final

from config.pools import Pool
from proxy.upstream.connections import Place
from proxy.upstream.health import Health
from proxy.upstream.response import Result
from translators.usage import Upstream

ANSWERED: Final = Result.ANSWERED  # as in `line`
# How much the newest time to a first token counts in the mean of them.
NEWEST: Final = 0.2


@dataclass(slots=True)
class Attempt:
    """One try at one target, for the record of the call.

    target:   its base URL
    pool:     the pool it is of; "" where there is but the one of `--upstream`
    label:    the target as it was configured, for metrics: an address of a name has the name
    retry:    whether it is not the first try of its upstream call
    reused:   whether it went over a connection that had served before
    unserved: whether it failed before any byte of an answer
    result:   what came of it
    status:   of the answer, where one came
    used:     what upstream says that it has used, as far as it has; None where it was not served
    """

    target: str
    pool: str = ""
    label: str = ""
    retry: bool = False
    reused: bool = False
    unserved: bool = False
    result: Result = Result.OPEN
    status: int | None = None
    used: Upstream | None = None

    @property
    def word(self) -> str:
        """What records say came of it: a status, or why there is none."""
        return self.result.value if self.status is None else str(self.status)

    def answered(self, status: int) -> None:
        """Note the status of the answer."""
        self.result, self.status = ANSWERED, status


class Standing:
    """How a target stands; it outlives a reload of the configuration, where the target is still there.

    health:     whether it is asked
    in_flight:  upstream calls that are on their way
    calls:      upstream calls that were sent there
    first_token_s: moving mean of the time to a first packet, in seconds; None before the first
    last_error: the last failure, as records word it; None where there was none
    """

    __slots__ = ("calls", "first_token_s", "health", "in_flight", "last_error")

    def __init__(self) -> None:
        self.health = Health()
        self.in_flight = 0
        self.calls = 0
        self.first_token_s: float | None = None
        self.last_error: str | None = None

    def took(self, first_token_s: float) -> None:
        """Take one more time to a first packet into the mean."""
        mean_s = self.first_token_s
        self.first_token_s = first_token_s if mean_s is None else mean_s + NEWEST * (first_token_s - mean_s)


class Target:
    """One upstream of one pool, under one configuration.

    pool:     what it is of
    url:      its base URL, of an address of a name the address's; names it in records
    label:    as configured
    place:    where to connect
    standing: how it stands
    most:     upstream calls it may have at a time
    weight:   of its pool
    seed:     what affinity tells it from others by: the same in every process
    heads:    by path, the lines of a request's head that are the same for every call
    """

    __slots__ = ("heads", "label", "most", "place", "pool", "seed", "standing", "url", "weight")

    def __init__(self, pool: Pool, url: str, label: str, place: Place, standing: Standing) -> None:
        self.pool = pool
        self.url = url
        self.label = label
        self.place = place
        self.standing = standing
        self.most: float = math.inf if pool.max_in_flight is None else pool.max_in_flight
        self.weight = pool.weight
        self.heads: dict[str, str] = {}
        self.seed = number_of(f"{pool.name} {url}".encode())


def number_of(text: bytes) -> int:
    """Sixty-four bits that stand for a text, in every process the same."""
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest())
