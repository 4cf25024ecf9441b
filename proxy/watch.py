"""One timer for all the waits of a call: each wait has its own named limit, and re-arming it costs an assignment.

`asyncio.timeout` per read would schedule and cancel a timer for every chunk. Here the timer runs at its own slow pace and looks, when it
fires, how long the present wait has lasted. Source: spec ERR-5.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from enum import Enum
from types import TracebackType
from typing import Self


class Wait(Enum):
    """What a call can be waiting for; the value is the setting that limits it."""

    FIRST_TOKEN = "first_token_timeout"  # noqa: S105 - a token of text
    TOKEN = "idle_timeout"  # noqa: S105 - a token of text
    CALLER = "write_timeout"
    TOTAL = "total_timeout"
    DRAIN = "drain_timeout"


class Expired(Exception):  # noqa: N818 - named for what happened
    """A wait has outlasted its limit.

    wait: which one
    """

    def __init__(self, wait: Wait) -> None:
        super().__init__(wait.value)
        self.wait = wait


class Watch:
    """An async context that ends with `Expired` when the present wait has lasted too long.

    limits_s: seconds each wait may last; TOTAL counts from the start and is no wait to enter, DRAIN only comes from outside
    """

    __slots__ = ("_deadline", "_expired", "_handle", "_limits_s", "_loop", "_since", "_tick_s", "_timeout", "wait")

    def __init__(self, limits_s: Mapping[Wait, float]) -> None:
        self._loop = asyncio.get_running_loop()
        self._limits_s = limits_s
        # Often enough that changing to a shorter wait is not noticed late.
        self._tick_s = min(limits_s.values())
        self._timeout = asyncio.timeout(None)
        self._handle: asyncio.TimerHandle | None = None
        self._expired: Wait | None = None
        self.wait = Wait.FIRST_TOKEN
        self._since = self._loop.time()
        self._deadline = self._since + limits_s[Wait.TOTAL]

    def enter(self, wait: Wait) -> None:
        """From now on the call waits for this."""
        self.wait = wait
        self._since = self._loop.time()

    def expire(self, wait: Wait) -> None:
        """End the call now, as if this wait had lasted too long."""
        self._expired = wait
        if self._timeout.when() is None:
            self._timeout.reschedule(self._loop.time())

    async def __aenter__(self) -> Self:
        await self._timeout.__aenter__()
        self._look()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._handle is not None:
            self._handle.cancel()
        try:
            await self._timeout.__aexit__(kind, error, trace)
        except TimeoutError:
            if self._expired is None:
                raise
            raise Expired(self._expired) from None

    def _look(self) -> None:
        now = self._loop.time()
        due = self._since + self._limits_s[self.wait]
        if now >= self._deadline:
            self.expire(Wait.TOTAL)
        elif now >= due:
            self.expire(self.wait)
        else:
            self._handle = self._loop.call_at(min(due, self._deadline, now + self._tick_s), self._look)
