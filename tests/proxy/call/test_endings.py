"""What a call gives back when it ends."""

import pytest

from proxy.call.endings import Endings, give_back


def test_the_last_that_was_taken_is_given_back_first() -> None:
    """As a stack of contexts would."""
    given: list[int] = []
    ends: Endings = []
    for number in range(3):
        ends.append(lambda number=number: given.append(number))  # type: ignore[misc]
    give_back(ends)
    assert given == [2, 1, 0]


def test_a_bug_in_one_of_them_keeps_nothing_from_being_given_back() -> None:
    """It is raised all the same."""
    given: list[str] = []

    def broken() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        give_back([lambda: given.append("first"), broken, lambda: given.append("last")])
    assert given == ["last", "first"]
