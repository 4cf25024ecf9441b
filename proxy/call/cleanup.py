"""A call's cleanup callbacks: each gives back something that it has taken, when it ends, however it ends."""

from __future__ import annotations

from collections.abc import Callable

# In the order in which things were taken.
Cleanups = list[Callable[[], None]]


def clean_up(cleanups: Cleanups) -> None:
    """Call each, the last first; a bug in one of them is raised when the others have had their turn.

    `contextlib.ExitStack` wraps every callback in two functions and looks at exceptions that these never raise: twenty
    function calls of a small call's nine hundred. A context of our own took four.
    """
    while cleanups:
        cleanup = cleanups.pop()
        try:
            cleanup()
        except BaseException:
            # A bug in one of them: the others have no part in it.
            clean_up(cleanups)
            raise
