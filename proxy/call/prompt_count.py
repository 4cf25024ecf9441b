"""When a prompt is counted: before its call where its length decides what is sent, else beside upstream's work on it.

So it adds nothing to the first packet (spec USE-6). A short prompt takes the loop's time while the request is on its
way, a long one that of a pool which counts shorter ones first, each only as long as its call lives (spec USE-8).
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import itertools
import sys
import threading
from collections.abc import Callable, Iterator
from enum import Enum
from types import TracebackType
from typing import Final, Self

from translators import faults
from translators.dialogue import Model
from translators.tokens import UNSETTLED_TOKENS

# A prompt below this many characters is counted in less time than a thread needs to take it over (tiktoken, measured).
INLINE_CHARS: Final = 8_000
# A body up to here is checked, parsed and read in less time than a delta takes on its way; others are in a thread.
LARGE_BODY_BYTES: Final = 256 << 10
# Bytes one character can have, and so the most tokens it can be.
LONGEST_CHARACTER: Final = 4
# They let go of the interpreter most of the time; more would take the loop's processor.
THREADS: Final = 2
# A second or two of ordinary text for two threads, and so the longest that anybody waits.
MOST_WAITING_CHARS: Final = 64 << 20
RETRY_S: Final = "1"
# A thread looks up from its work every few milliseconds.
END_S: Final = 1.0


class _State(Enum):
    """Where a job is: queued and running in turns until it has ended, by itself or because its call has."""

    QUEUED = "queued"
    RUNNING = "running"
    ENDED = "ended"


class Job:
    """One prompt in the pool.

    totals: its tokens so far, every few thousand characters; none once it has ended, so that its text is let go of
    chars:  its length
    most:   above so many tokens nobody needs to know how many there are
    tell:   takes the total, or what kept a thread from counting; called in the thread
    """

    __slots__ = ("chars", "most", "state", "tell", "totals")

    def __init__(
        self, totals: Iterator[int], chars: int, most: int, tell: Callable[[int, BaseException | None], None]
    ) -> None:
        self.totals = totals
        self.chars = chars
        self.most = most
        self.tell = tell
        self.state = _State.QUEUED


class CountingPool:
    """Threads that count long texts, for one process.

    most_chars:    how many characters may wait, or be counted, at a time; a single text may always
    threads:       how many there are
    waiting_chars: how many do
    """

    def __init__(self, most_chars: int = MOST_WAITING_CHARS, threads: int = THREADS) -> None:
        self._most_chars = most_chars
        self._most_threads = threads
        self._changed = threading.Condition()
        # By length, then by age.
        self._queue: list[tuple[int, int, Job]] = []
        self._ages = itertools.count()
        self._threads: list[threading.Thread] = []
        self._closed = False
        self.waiting_chars = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Drop what waits, and end."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join(END_S)

    def put(self, job: Job) -> None:
        """Let a job be counted; raises `Refusal` where too much waits."""
        with self._changed:
            if self.waiting_chars and self.waiting_chars + job.chars > self._most_chars:
                raise faults.Refusal(faults.OVERLOADED.after(RETRY_S), "too many texts wait to be counted")
            self.waiting_chars += job.chars
            self._enqueue(job)
            if len(self._threads) < self._most_threads:
                self._threads.append(threading.Thread(target=self._work, name="counting", daemon=True))
                self._threads[-1].start()

    async def run(self, steps: Iterator[int], chars: int) -> None:
        """Let a thread take these steps, a shorter job's between them; what they raise is raised here.

        Who is cancelled drops them.
        """
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()

        def tell(_: int, error: BaseException | None) -> None:
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(settle, done, error)

        job = Job(steps, chars, sys.maxsize, tell)
        self.put(job)
        try:
            await done
        finally:
            self.drop(job)

    def drop(self, job: Job) -> None:
        """Stop a job whose call has ended: at once if it waits, after the piece it is at if a thread has it."""
        with self._changed:
            self._end(job)

    def _enqueue(self, job: Job) -> None:
        job.state = _State.QUEUED
        heapq.heappush(self._queue, (job.chars, next(self._ages), job))
        self._changed.notify()

    def _end(self, job: Job) -> None:
        if job.state is not _State.ENDED:
            job.state = _State.ENDED
            job.totals = iter(())
            self.waiting_chars -= job.chars

    def _work(self) -> None:
        while (job := self._next()) is not None:
            self._take_turn(job)

    def _next(self) -> Job | None:
        """The shortest job that waits; None at the end."""
        with self._changed:
            while not self._closed:
                while self._queue:
                    _, _, job = heapq.heappop(self._queue)
                    if job.state is _State.QUEUED:
                        job.state = _State.RUNNING
                        return job
                self._changed.wait()
        return None

    def _take_turn(self, job: Job) -> None:
        """Count until that is done, or its call has ended, or a shorter prompt waits."""
        total, error = 0, None
        try:
            for total in job.totals:
                if total > job.most or self._gives_way(job):
                    break
        except BaseException as raised:  # noqa: BLE001 - the engine's panic is one; whoever waits is to have it
            error = raised
        with self._changed:
            counted = job.state is _State.RUNNING
            if counted:
                self._end(job)
        if counted:
            job.tell(total, error)

    def _gives_way(self, job: Job) -> bool:
        """Whether a job stops here: a shorter one waits, or its call has ended."""
        with self._changed:
            if self._closed:
                self._end(job)
            elif job.state is _State.RUNNING and self._queue and self._queue[0][0] < job.chars:
                self._enqueue(job)
            return job.state is not _State.RUNNING


def settle(done: asyncio.Future[None], error: BaseException | None) -> None:
    """Tell who waits for a job that it is done, or what it raised; nobody where nobody waits any more."""
    if done.done():
        return
    if error is None:
        done.set_result(None)
    else:
        done.set_exception(error)
        # It is raised where it is waited for; where nobody waits there is nobody to tell.
        done.exception()


class Count:
    """The length of one prompt, in tokens.

    totals: its tokens so far, every few thousand characters
    chars:  its length
    most:   the most tokens that are taken: what is longer need not be counted to its end
    tokens: None until it is known
    """

    __slots__ = ("_future", "_job", "_loop", "_most", "_pool", "_tell", "_totals", "chars", "tokens")

    def __init__(self, totals: Iterator[int], chars: int, most: int) -> None:
        self.tokens: int | None = None
        self.chars = chars
        self._totals = totals
        self._most = most + UNSETTLED_TOKENS
        self._tell: Callable[[int], None] | None = None
        self._pool: CountingPool | None = None
        self._job: Job | None = None
        self._future: asyncio.Future[int] | None = None

    def tell(self, tell: Callable[[int], None]) -> None:
        """Call `tell` with the length: at once where it is known, else as soon as it is."""
        self._tell = tell
        if self.tokens is not None:
            tell(self.tokens)

    def now(self) -> int:
        """Count it here and now, if nobody has."""
        if self.tokens is None:
            total = 0
            for total in self._totals:
                if total > self._most:
                    break
            self._known(total)
        assert self.tokens is not None  # noqa: S101 - for the type checker: it was just counted
        return self.tokens

    def in_pool(self, pool: CountingPool) -> None:
        """Let a thread count it, from now on; raises `Refusal` where too much waits for one."""
        job = Job(self._totals, self.chars, self._most, self._counted)
        pool.put(job)
        self._pool, self._job = pool, job
        self._loop = asyncio.get_running_loop()
        self._future = self._loop.create_future()

    def beside(self, loop: asyncio.AbstractEventLoop) -> None:
        """Schedule the count on the loop, behind what is ready there: the upstream request is written first."""
        if self.tokens is None and self._future is None:
            # A timer that is due comes behind all that is ready; `call_soon` would come before the request's bytes.
            loop.call_later(0, self.now)

    async def wait(self) -> int:
        """The length, once it is known."""
        return self.now() if self._future is None else await asyncio.shield(self._future)

    def drop(self) -> None:
        """Stop counting: the call has ended."""
        self._tell, self._totals = None, iter(())
        if self._pool is not None and self._job is not None:
            self._pool.drop(self._job)
            self._job = None

    def _counted(self, total: int, error: BaseException | None) -> None:
        """Hand the total from the thread to the loop, unless the loop is closed."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._done, total, error)

    def _done(self, total: int, error: BaseException | None) -> None:
        future = self._future
        assert future is not None  # noqa: S101 - for the type checker: it is in the pool
        if error is None:
            future.set_result(total)
            self._known(total)
        else:
            # It is raised where the length is waited for; where nobody waits there is nobody to tell.
            future.set_exception(error)
            future.exception()

    def _known(self, tokens: int) -> None:
        self.tokens = tokens
        if self._tell is not None:
            self._tell(tokens)


def is_short(count: Count, model: Model) -> bool:
    """Whether a prompt need not be begun to be counted: it is short by its size alone, and counted on the loop."""
    return count.chars <= INLINE_CHARS and count.chars * LONGEST_CHARACTER <= min(model.input_tokens, room(model))


async def begin(pool: CountingPool, count: Count, model: Model) -> None:
    """Begin to count a prompt; it is known already where what is sent depends on it (spec MOD-4)."""
    if count.chars > INLINE_CHARS:
        count.in_pool(pool)
    # No text has more tokens than bytes: most prompts are short enough by their size alone.
    if count.chars * LONGEST_CHARACTER > min(model.input_tokens, room(model)):
        await count.wait()


def room(model: Model) -> int:
    """The longest prompt, in tokens, beside which everything the model may write still fits."""
    return model.context_tokens - model.chain_tokens - model.answer_tokens
