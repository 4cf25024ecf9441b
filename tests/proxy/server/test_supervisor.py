"""Claims about the processes of one port: when one that has died is replaced.

What they do together is `integration/test_workers.py`'s.
"""

from __future__ import annotations

import time

from proxy.server import supervisor


def test_a_child_that_dies_young_again_and_again_is_replaced_later_and_later() -> None:
    place = supervisor._Child(1)
    waits_s = []
    for _ in range(8):
        place.started_s = time.monotonic()
        waits_s.append(supervisor._postponed_s(place))
    assert waits_s == [1, 2, 4, 8, 16, *[supervisor.LONGEST_WAIT_S] * 3]


def test_one_that_has_lived_is_replaced_at_once_and_the_waits_begin_anew() -> None:
    place = supervisor._Child(1, wait_s=supervisor.LONGEST_WAIT_S)
    place.started_s = time.monotonic() - supervisor.LIVED_S - 1
    assert supervisor._postponed_s(place) == 0
    place.started_s = time.monotonic()
    assert supervisor._postponed_s(place) == 1
