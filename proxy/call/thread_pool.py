"""Threads of one process for work that would hold up its event loop: the shortest job first, in steps.

Large bodies are read there (`prepare`), long prompts counted (`prompt_count`), large answers of upstream taken
(`large_answers`). Between two steps a job gives way to a shorter one; it lives as long as its call. Source: spec USE-8.
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

# A body up to here is checked, parsed and read in less time than a delta takes on its way; others are in a thread.
LARGE_BODY_BYTES: Final = 256 << 10
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
    """One piece of work for the threads, in steps of some milliseconds.

    steps: each yields a total so far, tokens where a prompt is counted; none once the job has ended, so that its text
           is let go of
    chars: its length, by which it is queued: characters, or bytes of a body or an answer
    most:  above this total it is done
    tell:  takes the last total, or what a step has raised; called in the thread
    """

    __slots__ = ("chars", "most", "state", "steps", "tell")

    def __init__(
        self, steps: Iterator[int], chars: int, most: int, tell: Callable[[int, BaseException | None], None]
    ) -> None:
        self.steps = steps
        self.chars = chars
        self.most = most
        self.tell = tell
        self.state = _State.QUEUED


class ThreadPool:
    """A few threads and the jobs that wait for them, the shortest first.

    most_chars:    length of all jobs that may wait, or be worked on, at a time; a single one may always
    threads:       how many there are, each begun when a job comes
    waiting_chars: length of the jobs that do
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
        """Queue a job; raises `Refusal` where too much waits."""
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
        """Stop a job whose call has ended: at once if it waits, after the step it is at if a thread has it."""
        with self._changed:
            self._end(job)

    def _enqueue(self, job: Job) -> None:
        job.state = _State.QUEUED
        heapq.heappush(self._queue, (job.chars, next(self._ages), job))
        self._changed.notify()

    def _end(self, job: Job) -> None:
        if job.state is not _State.ENDED:
            job.state = _State.ENDED
            job.steps = iter(())
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
        """Take steps of a job until it is done, or its call has ended, or a shorter job waits."""
        total, error = 0, None
        try:
            for total in job.steps:
                if total > job.most or self._gives_way(job):
                    break
        except BaseException as raised:  # noqa: BLE001 - the engine's panic is one; whoever waits is to have it
            error = raised
        with self._changed:
            is_done = job.state is _State.RUNNING
            if is_done:
                self._end(job)
        if is_done:
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
