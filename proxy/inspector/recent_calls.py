"""The last calls of this process: at most so many, of so many bytes each and in all, the oldest out first.

Never on disk, and gone with the process. Source: spec MET-4.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

from proxy.inspector.recorded import ENTRY_BYTES, RecordedCall
from proxy.metering.journal import Record

MOST_CALLS: Final = 200
MOST_CALL_BYTES: Final = 2 << 20
MOST_BYTES: Final = 256 << 20

# The call that this task serves.
CURRENT: Final[ContextVar[RecordedCall | None]] = ContextVar("inspected_call", default=None)


class Watch:
    """The calls that have changed since one watcher last asked, each once however often it did.

    changed: numbers of calls that are new or have gone on; forgotten ones among them
    news:    set while there is something
    """

    def __init__(self) -> None:
        self.changed: dict[int, None] = {}
        self.news = asyncio.Event()

    def take(self) -> list[int]:
        """What has changed, once."""
        changed, self.changed = [*self.changed], {}
        self.news.clear()
        return changed


class RecentCalls:
    """The calls that are kept, by their numbers, in the order in which they came.

    held_bytes: of all of them
    """

    def __init__(self, calls: int = MOST_CALLS, call_bytes: int = MOST_CALL_BYTES, all_bytes: int = MOST_BYTES) -> None:
        self.most_calls, self.most_call_bytes, self.most_bytes = calls, call_bytes, all_bytes
        self.held_bytes = 0
        self._calls: dict[int, RecordedCall] = {}
        self._counted: dict[int, int] = {}
        self._number = 0
        self._watches: set[Watch] = set()

    def __iter__(self) -> Iterator[RecordedCall]:
        return iter(self._calls.values())

    def __len__(self) -> int:
        return len(self._calls)

    def find(self, name: str) -> RecordedCall | None:
        """The call of that number, or the newest with that request id."""
        if name.isascii() and name.isdigit():
            return self._calls.get(int(name))
        return next((call for call in reversed(self._calls.values()) if call.request_id == name), None)

    def begin(self, method: str, path: str, api: str, request_id: str, headers: dict[str, str]) -> RecordedCall:
        """Keep a call that comes in."""
        self._number += 1
        call = RecordedCall(self._number, time.time(), method, path, api, request_id, headers, self.most_call_bytes)
        call.held_bytes = ENTRY_BYTES + sum(len(name) + len(value) for name, value in headers.items())
        self._calls[call.number] = call
        self.changed(call)
        return call

    def end(self, call: RecordedCall, record: Record) -> None:
        """Keep what the books say of it."""
        call.close(record)
        self.changed(call)

    def changed(self, call: RecordedCall) -> None:
        """Count what is held of a call anew, let go of the oldest where that is too much, tell who looks on."""
        number = call.number
        if not call.is_forgotten:
            self.held_bytes += call.held_bytes - self._counted.get(number, 0)
            self._counted[number] = call.held_bytes
        while len(self._calls) > self.most_calls or self.held_bytes > self.most_bytes:
            self._forget(next(iter(self._calls.values())))
        self._tell(number)

    def clear(self) -> None:
        """Let go of all."""
        for call in [*self._calls.values()]:
            self._forget(call)

    @contextmanager
    def watched(self) -> Iterator[Watch]:
        """A watch, as long as the context lives."""
        watch = Watch()
        self._watches.add(watch)
        try:
            yield watch
        finally:
            self._watches.discard(watch)

    def _forget(self, call: RecordedCall) -> None:
        del self._calls[call.number]
        self.held_bytes -= self._counted.pop(call.number)
        call.forget()
        self._tell(call.number)

    def _tell(self, number: int) -> None:
        for watch in self._watches:
            watch.changed[number] = None
            watch.news.set()
