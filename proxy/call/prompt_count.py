"""When a prompt is counted: before its call where its length decides what is sent, else beside upstream's work on it.

So it adds nothing to the first packet (spec USE-6). A short prompt takes the loop's time while the request is on its
way, a long one that of a thread (`thread_pool`), only as long as its call lives (spec USE-8).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from typing import Final

from proxy.call.thread_pool import Job, ThreadPool
from translators.dialogue import Model
from translators.tokens import UNSETTLED_TOKENS

# A prompt below this many characters is counted in less time than a thread needs to take it over (tiktoken, measured).
INLINE_CHARS: Final = 8_000
# Bytes one character can have, and so the most tokens it can be.
LONGEST_CHARACTER: Final = 4


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
        self._pool: ThreadPool | None = None
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

    def in_pool(self, pool: ThreadPool) -> None:
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
    return count.chars <= INLINE_CHARS and count.chars * LONGEST_CHARACTER <= prompt_room(model)


async def begin(pool: ThreadPool, count: Count, model: Model) -> None:
    """Begin to count a prompt; it is known already where what is sent depends on it (spec MOD-4)."""
    if count.chars > INLINE_CHARS:
        count.in_pool(pool)
    # No text has more tokens than bytes: most prompts are short enough by their size alone.
    if count.chars * LONGEST_CHARACTER > prompt_room(model):
        await count.wait()


def prompt_room(model: Model) -> int:
    """The longest prompt, in tokens, that a model takes and beside which everything it may write still fits."""
    return min(model.input_tokens, model.context_tokens - model.chain_tokens - model.answer_tokens)
