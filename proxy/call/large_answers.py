"""What upstream says at once and is too much for a turn of the loop, taken beside it: other streams go on meanwhile.

A delta or a JSON answer of a megabyte takes a fifth of a second to be counted, found stops in, laid out. A pipe puts it
off, with all that comes behind it; here a thread lets the pipe catch up, and the figures and the order of packets are
those of one thread. Frames that would repeat a long text many times are laid out a part at a time, the caller's reading
in between. Source: spec USE-6, USE-8, SSE-10.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Final

from proxy.call.thread_pool import Job, ThreadPool, settle
from proxy.call.timeouts import CALLER, TOKEN, TOTAL, CallTimeouts
from proxy.downstream.sinks import CallerGone, Sink
from proxy.upstream.response import Response
from translators.pipe import Pipe

# What upstream says of more bytes takes longer than a turn of the loop should, up to 20 ms.
LARGE_BYTES: Final = 64 << 10
# One thread: no model answers so, and whatever comes shares the processor with the loop.
THREADS: Final = 1
# A call that ends meanwhile waits so long for its thread, so that its record knows what upstream had said.
END_S: Final = 1.0


class LargeAnswers:
    """The thread of one process that lets pipes catch up, the shorter text first."""

    def __init__(self, pool: ThreadPool) -> None:
        self._pool = pool

    async def catch_up(
        self, pipe: Pipe, response: Response, sink: Sink, timeouts: CallTimeouts, turns: asyncio.Lock
    ) -> None:
        """Pass on what the pipe was fed and has put off.

        turns: the upstream calls of one pipe come one after the other

        Raises `Refusal` where the answer ends so, where too much waits for the thread, or where all open calls hold too
        much; and `CallerGone`.
        """
        async with turns:
            while pipe.is_behind:
                # Nobody is waited for: only the whole call has a limit.
                timeouts.enter(TOTAL)
                if pipe.late_bytes > LARGE_BYTES:
                    frames = await self._beside(pipe, response, sink)
                else:
                    frames = pipe.catch_up()
                if not frames:
                    sink.hold()
                full = bool(frames) and sink.pass_on(frames)
                pipe.go_on()
                if full:
                    timeouts.enter(CALLER)
                    await sink.drained()
                else:
                    await asyncio.sleep(0)
        timeouts.enter(TOKEN)

    async def _beside(self, pipe: Pipe, response: Response, sink: Sink) -> bytes:
        """Let the pipe catch up in the thread; nobody else touches it meanwhile."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        came: list[bytes] = []

        def work() -> Iterator[int]:
            came.append(pipe.catch_up())
            yield 0

        def tell(_: int, error: BaseException | None) -> None:
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(settle, done, error)

        # Its one step yields 0, and above -1 a job is done.
        job = Job(work(), pipe.late_bytes, -1, tell)
        self._pool.put(job)
        try:
            await asyncio.shield(done)
        except asyncio.CancelledError:
            if not response.at_end():
                response.close()
            # What upstream has said is billed by its provider: the record waits for the count of it.
            await _whatever_comes(done)
            self._pool.drop(job)
            if came and came[0]:
                # The call has a limit that has passed: what came before that goes out before its error frame.
                with contextlib.suppress(CallerGone):
                    sink.pass_on(came[0])
            raise
        return came[0]


async def _whatever_comes(done: asyncio.Future[None]) -> None:
    """Wait for the thread, however often the call is cancelled meanwhile, for `END_S` at most."""
    loop = asyncio.get_running_loop()
    end_s = loop.time() + END_S
    while not done.done() and (left_s := end_s - loop.time()) > 0:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait((done,), timeout=left_s)
