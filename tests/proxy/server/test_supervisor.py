"""Claims about the processes of one port: when a dead one is replaced, and what the desk makes of half an answer.

What they do together is `integration/test_workers.py`'s.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from proxy.server import supervisor


def test_a_child_that_dies_young_again_and_again_is_replaced_later_and_later() -> None:
    place = supervisor._Child(1)
    waits_s = []
    for _ in range(8):
        place.started_s = time.monotonic()
        waits_s.append(supervisor._postponed_s(place))
    assert waits_s == [1, 2, 4, 8, *[supervisor.LONGEST_WAIT_S / 2] * 4]


def test_one_that_has_lived_is_replaced_at_once_and_the_waits_begin_anew() -> None:
    place = supervisor._Child(1, wait_s=supervisor.LONGEST_WAIT_S)
    place.started_s = time.monotonic() - supervisor.LIVED_S - 1
    assert supervisor._postponed_s(place) == 0
    place.started_s = time.monotonic()
    assert supervisor._postponed_s(place) == 1


@pytest.mark.parametrize("said", [b"", b'{"process": 1, "reas', b"\xff"])
async def test_a_worker_that_dies_while_it_answers_is_one_that_does_not_serve(said: bytes, tmp_path: Path) -> None:
    """OPS-1: not a 500 for whoever asks the front desk."""

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(said)
        writer.close()

    path = tmp_path / "1"
    async with await asyncio.start_unix_server(answer, path):
        reports = supervisor.WorkerReports({1: path}, frozenset())
        assert await reports.reasons() == ["no worker serves"]
        assert await reports.readings() == [{}, {}]
