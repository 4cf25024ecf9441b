"""The calls that are kept: never more, and never of more bytes, than was said; the oldest goes first."""

from __future__ import annotations

import random

from proxy.inspector.recent_calls import ENTRY_BYTES, RecentCalls
from proxy.inspector.recorded import RecordedCall
from tests.proxy.telemetry.records import ended


def begun(recent: RecentCalls, request_id: str = "id") -> RecordedCall:
    return recent.begin("POST", "/", "dashscope", request_id, {"Content-Type": "application/json"})


def test_the_oldest_is_let_go_of_where_there_are_too_many() -> None:
    recent = RecentCalls(calls=3)
    calls = [begun(recent) for _ in range(5)]
    assert [call.number for call in recent] == [3, 4, 5]
    assert [call.is_forgotten for call in calls] == [True, True, False, False, False]
    assert recent.find("1") is None
    assert recent.find("5") is calls[4]


def test_of_one_request_id_the_newest_is_found() -> None:
    recent = RecentCalls()
    begun(recent, "a")
    second = begun(recent, "a")
    assert recent.find("a") is second
    assert recent.find("b") is None


def test_an_open_call_may_be_let_go_of_and_ends_in_peace() -> None:
    recent = RecentCalls(calls=1)
    old = begun(recent)
    begun(recent)
    old.take_packet(b"frames")
    recent.changed(old)
    assert [call.number for call in recent] == [2]
    assert recent.held_bytes == next(iter(recent)).held_bytes


def test_bytes_are_bounded_in_all_and_are_those_of_the_calls_that_are_there() -> None:
    chance, recent = random.Random(1), RecentCalls(calls=50, call_bytes=20_000, all_bytes=100_000)
    open_calls: list[RecordedCall] = []
    for _ in range(2_000):
        if chance.random() < 0.2 or not open_calls:
            open_calls.append(begun(recent))
        call = chance.choice(open_calls)
        call.take_packet(b"x" * chance.randrange(5_000))
        recent.changed(call)
        assert recent.held_bytes <= 100_000
        assert call.held_bytes <= 20_000
        assert recent.held_bytes == sum(one.held_bytes for one in recent)
        assert len(recent) <= 50
    recent.clear()
    assert (len(recent), recent.held_bytes) == (0, 0)


def test_a_call_is_an_entry_and_its_headers_and_as_many_stay_as_have_room() -> None:
    one = ENTRY_BYTES + len("Content-Type") + len("application/json")
    for bytes_, kept in ((2 * one, [1, 2]), (2 * one - 1, [2])):
        recent = RecentCalls(all_bytes=bytes_)
        begun(recent)
        begun(recent)
        assert ([call.number for call in recent], recent.held_bytes) == (kept, len(kept) * one)


def test_who_looks_on_is_told_once_what_has_changed_often() -> None:
    recent = RecentCalls(calls=2)
    with recent.watched() as watch:
        first = begun(recent)
        for _ in range(100):
            recent.changed(first)
        begun(recent)
        assert watch.news.is_set()
        assert watch.take() == [1, 2]
        assert not watch.news.is_set()
        assert watch.take() == []
        begun(recent)
        assert sorted(watch.take()) == [1, 3]
    begun(recent)
    assert watch.take() == []


def test_what_the_books_say_of_a_call_is_kept_and_told() -> None:
    recent, record = RecentCalls(), ended()
    call = begun(recent)
    with recent.watched() as watch:
        recent.end(call, record)
        assert watch.take() == [1]
    assert (call.record, call.ended_ms is None) == (record, False)
