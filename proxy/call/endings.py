"""What a call takes and must give back when it ends, whatever happens in between."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Self


class Endings:
    """A context that gives back what was taken in it, the last first.

    `contextlib.ExitStack` wraps every callback in two functions and looks at exceptions that these never raise: twenty
    function calls of a small call's nine hundred.

    callback: takes what is to be called at the end
    """

    __slots__ = ("_ends", "callback")

    def __init__(self) -> None:
        self._ends: list[Callable[[], None]] = []
        self.callback = self._ends.append

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        while self._ends:
            end = self._ends.pop()
            try:
                end()
            except BaseException:
                # A bug in one of them: the others have no part in it.
                self.__exit__(kind, error, trace)
                raise
