"""Where `cancel_policy` is `drain`: calls whose callers may leave before upstream has ended, each in a task of its own.

Otherwise a call lives in its handler and ends with it, and nothing here is used. Source: spec MET-5.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from proxy.call.timeouts import ABANDONED, CallTimeouts
from proxy.downstream.sinks import ENDED, CallerGone, Response, Sink
from translators import faults
from translators.pipe import Pipe


class AbandonedCalls:
    """The calls of a gateway that may outlive their callers."""

    def __init__(self) -> None:
        self._calls: set[asyncio.Task[Response]] = set()

    async def serve(self, call: Coroutine[Any, Any, Response], leave: Callable[[], bool]) -> Response:
        """Serve a call to its end, even if its caller leaves.

        leave: tells the call so; whether it goes on, else it is cancelled
        """
        task = asyncio.create_task(call)
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if not leave():
                task.cancel()
            raise

    async def end(self) -> None:
        """End the abandoned calls that a drain has left, each with its record."""
        for task in self._calls:
            task.cancel()
        await asyncio.gather(*self._calls, return_exceptions=True)


@asynccontextmanager
async def opened() -> AsyncIterator[AbandonedCalls]:
    """Room for such calls, as long as the context lives."""
    abandoned_calls = AbandonedCalls()
    try:
        yield abandoned_calls
    finally:
        await abandoned_calls.end()


class AbandonedSink:
    """A sink whose caller may leave while upstream is read on: what comes then is counted, and goes nowhere.

    Both bounds count from then on: a time-out ends the call after `cancel_drain_timeout`, a `Refusal` after so many
    tokens. Source: spec MET-5.
    """

    __slots__ = ("_most", "_pipe", "_sink", "_timeouts", "_tokens", "left")

    def __init__(self, sink: Sink, pipe: Pipe, timeouts: CallTimeouts, tokens: int) -> None:
        self._sink = sink
        self._pipe = pipe
        self._timeouts = timeouts
        self._tokens = tokens
        # None until it is known, and while a thread is at the pipe.
        self._most: int | None = None
        self.left = False

    def leave(self) -> None:
        """The caller has left; idempotent."""
        if not self.left:
            self.left = True
            if not self._pipe.is_behind:
                self._most = self._pipe.answer.used().output + self._tokens
            self._timeouts.end_within(ABANDONED)
            self._sink.stop()

    def pass_on(self, frames: bytes) -> bool:
        """Pass frames on while there is a caller."""
        full = False
        if not self.left:
            try:
                full = self._sink.pass_on(frames)
            except CallerGone:
                self.leave()
        self.hold()
        return full

    def redirect(self, pipe: Pipe) -> None:
        """See `Sink`."""
        self._pipe = pipe
        self._sink.redirect(pipe)

    async def drained(self) -> None:
        """Wait for the caller, while there is one."""
        if not self.left:
            try:
                await self._sink.drained()
            except CallerGone:
                self.leave()

    def hold(self) -> None:
        """Take note of new tokens; beyond `cancel_drain_tokens` the call ends, unless these are its last."""
        if not self.left:
            return
        used = self._pipe.answer.used().output
        if self._most is None:
            self._most = used + self._tokens
        if used > self._most and self._pipe.state is not ENDED:
            raise faults.Refusal(faults.TIMED_OUT, "cancel_drain_tokens reached")

    async def close(self) -> None:
        """End the caller's answer, while there is a caller."""
        if not self.left:
            try:
                await self._sink.close()
            except CallerGone:
                self.leave()

    def settle(self) -> None:
        """See `Sink`."""
        self._sink.settle()

    def stop(self) -> None:
        """See `Sink`."""
        self._sink.stop()
