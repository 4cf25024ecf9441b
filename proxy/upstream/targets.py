"""The configured upstreams in the order they are tried, and the record of each try (spec ERR-4)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from proxy.upstream.response import Result, Slow, Unreachable, UpstreamFailure

# A target that could not be reached is tried after the others for so long: each call to it would lose its first try.
EJECTED_S = 10.0


@dataclass(slots=True)
class Attempt:
    """One try at one target, for the record of the call.

    target:   its base URL
    retry:    whether it is the second try of its upstream call
    reused:   whether it went over a connection that had served before
    unserved: whether it failed before any byte of an answer
    result:   what came of it
    status:   of the answer, where one came
    """

    target: str
    retry: bool = False
    reused: bool = False
    unserved: bool = False
    result: Result = Result.OPEN
    status: int | None = None

    @property
    def word(self) -> str:
        """What records say came of it: a status, or why there is none."""
        return self.result.value if self.status is None else str(self.status)

    def answered(self, status: int) -> None:
        """Note the status of the answer."""
        self.result, self.status = Result.ANSWERED, status


class Targets:
    """The base URLs in the operator's order, but for those that could not be reached a moment ago.

    now_s: the clock, in seconds
    """

    def __init__(self, urls: tuple[str, ...], now_s: Callable[[], float]) -> None:
        self._urls = urls
        self._now_s = now_s
        self._ejected_until_s: dict[str, float] = {}

    def two(self) -> tuple[str, str]:
        """The target of the first try and that of the retry."""
        if not self._ejected_until_s:
            return self._urls[0], self._urls[1 % len(self._urls)]
        now_s = self._now_s()
        order = sorted(self._urls, key=lambda target: self._ejected_until_s.get(target, now_s) > now_s)
        return order[0], order[1 % len(order)]

    def eject(self, target: str) -> None:
        """Put a target last for `EJECTED_S` seconds."""
        self._ejected_until_s[target] = self._now_s() + EJECTED_S

    def restore(self, target: str) -> None:
        """Give a target that has answered its place again."""
        self._ejected_until_s.pop(target, None)


def is_safe_to_retry(failure: UpstreamFailure, attempt: Attempt, other: str) -> bool:
    """Whether nothing can have been served, and another try, at the target `other`, can end in another way."""
    if isinstance(failure, Slow):
        # A second wait of the same length for the same target helps nobody.
        return attempt.target != other
    return isinstance(failure, Unreachable) or (attempt.reused and attempt.unserved)
