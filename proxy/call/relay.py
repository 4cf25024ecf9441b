"""Upstream's bytes through a pipe to the caller: the loop of a stream, its waits and back-pressure.

It moves bytes and knows no field. The head that is held and the heartbeat are the sink's; a caller who hangs up
ends the handler. Source: spec SSE-2, SSE-8, SSE-10, SSE-11, ERR-5, MET-5.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from time import monotonic

from proxy.call.timeouts import CALLER, TOKEN, CallTimeouts
from proxy.downstream.sinks import Sink
from proxy.upstream.response import Broken, Response
from translators import faults
from translators.pipe import Pipe

# While a call of a tool is held until it is whole, its growing usage is told at most so often (spec SSE-7).
PROGRESS_S = 1.0

# After the finish, upstream's closing bytes are waited for so long that its connection can be used again.
LEFTOVER_S = 0.25


async def pump(
    response: Response,
    sink: Sink,
    pipe: Pipe,
    timeouts: CallTimeouts,
    catch_up: Callable[[Response, Sink, Pipe], Awaitable[None]],
    *,
    leg: int,
    usage_s: float,
) -> None:
    """Move one upstream call's bytes until nothing more is wanted of it.

    catch_up: passes on what is too much for a turn of the loop (`large_answers`)

    Each read goes through the pipe and into the caller's transport in the turn of the loop in which it came. The task
    sleeps meanwhile: it wakes where the caller must be waited for, where only usage is missing, and at the end. A
    wake-up for each delta costs a quarter of a paced one.
    """
    progress = 0
    full = False
    told_s = monotonic()

    def take(wire: bytes) -> bool:
        nonlocal progress, full, told_s
        if frames := pipe.feed(wire, leg):
            full = sink.pass_on(frames)
            # `enter`, in place: with the two calls that `took_text` saves, three of a paced delta's twenty.
            timeouts.wait, timeouts.began_s = TOKEN, monotonic()
        elif (grown := pipe.generated(leg)) > progress:
            # Tokens that are held back (calls not yet whole, the start of a stop) are tokens too; comments are not.
            progress = grown
            timeouts.enter(TOKEN)
            sink.hold()
            if monotonic() - told_s >= PROGRESS_S and (frames := pipe.progress()):
                told_s = monotonic()
                full = sink.pass_on(frames)
        return full or (not pipe.took_text and pipe.wants_no_more(leg))

    while pipe.is_open(leg):
        if pipe.is_behind:
            await catch_up(response, sink, pipe)
        elif pipe.awaits_usage(leg):
            await _end(response, sink, pipe, timeouts, leg=leg, usage_s=usage_s)
        else:
            await response.pour(take)
        if full:
            full = False
            timeouts.enter(CALLER)
            await sink.drained()
            timeouts.enter(TOKEN)
        elif response.at_end() and (frames := pipe.eof(leg)):
            await write(sink, frames, timeouts)


async def write(sink: Sink, frames: bytes, timeouts: CallTimeouts) -> None:
    """Pass frames on, and wait for the caller where that must be."""
    timeouts.enter(CALLER)
    if sink.pass_on(frames):
        await sink.drained()


async def _end(response: Response, sink: Sink, pipe: Pipe, timeouts: CallTimeouts, *, leg: int, usage_s: float) -> None:
    """Pass the finish on, once usage has come or is waited for no more."""
    if frames := await _last_words(response, pipe, leg, usage_s):
        await write(sink, frames, timeouts)
    # What came may be more of the answer, which takes its end back (spec OUT-3).
    timeouts.enter(TOKEN)


async def _last_words(response: Response, pipe: Pipe, leg: int, usage_s: float) -> bytes:
    """Wait `usage_timeout` for the usage of a complete answer, then finish with or without it (spec SSE-8)."""
    try:
        async with asyncio.timeout(usage_s):
            while pipe.awaits_usage(leg):
                wire = await response.read()
                if frames := pipe.feed(wire, leg) if wire else pipe.eof(leg):
                    return frames
    except (TimeoutError, Broken):
        # An upstream that breaks off now owes us nothing but its figures.
        return pipe.release(leg)
    return b""


async def drop_leftover(response: Response, pipe: Pipe, leg: int) -> None:
    """Read what upstream still says after the finish, so that its connection is clean for the next call."""
    if response.at_end():
        return
    try:
        async with asyncio.timeout(LEFTOVER_S):
            while wire := await response.read():
                pipe.pass_by(wire, leg)
    except (TimeoutError, Broken, faults.Refusal):
        response.close()
