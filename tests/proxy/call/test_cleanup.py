"""What a call gives back when it ends."""

import pytest

from proxy.call.cleanup import Cleanups, clean_up


def test_the_last_that_was_taken_is_given_back_first() -> None:
    """As a stack of contexts would."""
    given: list[int] = []
    cleanups: Cleanups = []
    for number in range(3):
        cleanups.append(lambda number=number: given.append(number))  # type: ignore[misc]
    clean_up(cleanups)
    assert given == [2, 1, 0]


def test_a_bug_in_one_of_them_keeps_nothing_from_being_given_back() -> None:
    """It is raised all the same."""
    given: list[str] = []

    def broken() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        clean_up([lambda: given.append("first"), broken, lambda: given.append("last")])
    assert given == ["last", "first"]
