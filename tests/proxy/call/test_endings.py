"""What a call gives back when it ends."""

import pytest

from proxy.call.endings import Endings


def test_the_last_that_was_taken_is_given_back_first() -> None:
    """As a stack of contexts would."""
    given: list[int] = []
    with Endings() as ends:
        for number in range(3):
            ends.callback(lambda number=number: given.append(number))  # type: ignore[misc]
        assert given == []
    assert given == [2, 1, 0]


def test_a_bug_in_one_of_them_keeps_nothing_from_being_given_back() -> None:
    """It is raised all the same."""
    given: list[str] = []

    def broken() -> None:
        raise ZeroDivisionError

    ends = Endings()
    ends.callback(lambda: given.append("first"))
    ends.callback(broken)
    ends.callback(lambda: given.append("last"))
    with pytest.raises(ZeroDivisionError), ends:
        pass
    assert given == ["last", "first"]
