"""When a prompt is counted: before its call where its length decides what is sent, else beside upstream's work on it.

So it adds nothing to the first packet (spec USE-6). A short prompt takes the loop's time while the request is on its
way, a long one a thread's: tiktoken gives the loop its turns meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from translators.dialogue import Model

# A prompt below this many characters is counted in less time than a thread needs to take it over (tiktoken, measured).
INLINE_CHARS: Final = 8_000
# Bytes one character can have, and so the most tokens it can be.
LONGEST_CHARACTER: Final = 4


class Count:
    """The length of one prompt, in tokens.

    tokens: None until it is known
    """

    __slots__ = ("_count", "_future", "_tell", "tokens")

    def __init__(self, count: Callable[[], int]) -> None:
        self.tokens: int | None = None
        self._count = count
        self._tell: Callable[[int], None] | None = None
        self._future: asyncio.Future[int] | None = None

    def tell(self, tell: Callable[[int], None]) -> None:
        """Whom to tell of it: at once where it is known, else as soon as it is."""
        self._tell = tell
        if self.tokens is not None:
            tell(self.tokens)

    def now(self) -> int:
        """Count it here and now, if nobody has."""
        if self.tokens is None:
            self._known(self._count())
        assert self.tokens is not None  # noqa: S101 - for the type checker: it was just counted
        return self.tokens

    def in_thread(self) -> None:
        """Let a thread count it, from now on."""
        self._future = asyncio.get_running_loop().run_in_executor(None, self._count)
        self._future.add_done_callback(self._done)

    def beside(self) -> None:
        """Count it once the loop has done what is before it, such as writing the request that is about to be sent."""
        if self.tokens is None and self._future is None:
            # A timer that is due comes behind all that is ready; `call_soon` would come before the request's bytes.
            asyncio.get_running_loop().call_later(0, self.now)

    async def wait(self) -> int:
        """The length, once it is known."""
        return self.now() if self._future is None else await asyncio.shield(self._future)

    def _done(self, future: asyncio.Future[int]) -> None:
        # What kept a thread from counting is raised where the length is waited for.
        if not (future.cancelled() or future.exception()):
            self._known(future.result())

    def _known(self, tokens: int) -> None:
        self.tokens = tokens
        if self._tell is not None:
            self._tell(tokens)


async def begin(count: Callable[[], int], chars: int, model: Model) -> Count:
    """The count of a prompt of so many characters, known already where what is sent depends on it (spec MOD-4)."""
    counting = Count(count)
    # No text has more tokens than bytes: most prompts are short enough by their size alone.
    decides = chars * LONGEST_CHARACTER > min(model.input_tokens, room(model))
    if chars > INLINE_CHARS:
        counting.in_thread()
    if decides:
        await counting.wait()
    return counting


def room(model: Model) -> int:
    """The longest prompt, in tokens, beside which everything the model may write still fits."""
    return model.context_tokens - model.chain_tokens - model.answer_tokens
