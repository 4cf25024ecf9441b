"""One call that is kept: within its bound, and without its keys."""

from __future__ import annotations

import pytest

from proxy.inspector import recorded
from proxy.inspector.recorded import ENTRY_BYTES, RecordedCall

KEY = "sk-1234567890"


def call(limit: int = 10_000) -> RecordedCall:
    return RecordedCall(1, 0.0, "POST", "/", "dashscope", "id", {}, limit)


def test_what_goes_beyond_the_bound_of_a_call_is_counted_and_not_kept() -> None:
    kept = call(limit=1_000 + 3 * ENTRY_BYTES)
    kept.take_body(b"x" * 600)
    upstream = kept.ask("/chat/completions", b"y" * 300, {})
    kept.take_read(upstream, b"z" * 200)
    kept.take_read(upstream, b"z" * 100)
    assert [read.wire for read in upstream.reads] == [b"z" * 100]
    kept.take_packet(b"p")
    assert kept.packets == []
    assert (kept.lost_bytes, kept.lost_body_bytes) == (201, 0)
    assert kept.held_bytes <= kept.limit


def test_of_a_body_that_is_too_long_the_beginning_is_kept() -> None:
    kept = call(limit=1_000)
    kept.take_body(bytearray(b"x" * 5_000))
    assert len(kept.body) == 1_000 - ENTRY_BYTES
    assert kept.lost_bytes == 5_000 - len(kept.body)
    kept.take_body(b"again")
    assert kept.body == b""


def test_what_is_forgotten_keeps_nothing_and_goes_on_without_harm() -> None:
    kept = call()
    upstream = kept.ask("/chat/completions", b"body", {})
    kept.take_read(upstream, b"read")
    kept.take_packet(b"a packet")
    kept.forget()
    kept.take_read(upstream, b"more")
    kept.take_packet(b"frames")
    assert (kept.body, kept.packets, upstream.body, upstream.reads) == (b"", [], b"", [])


def test_a_packet_is_that_of_the_read_before_it() -> None:
    kept = call()
    first, second = kept.ask("/", b"", {}), kept.ask("/", b"", {})
    kept.take_packet(b"before")
    kept.take_read(first, b"a")
    kept.take_read(second, b"b")
    kept.take_packet(b"b's")
    kept.take_read(first, b"c")
    kept.take_packet(b"c's")
    assert [(packet.call, packet.read) for packet in kept.packets] == [(-1, -1), (1, 0), (0, 1)]


@pytest.mark.parametrize("cut", range(1, len(KEY)))
def test_a_key_is_masked_wherever_a_read_cuts_it(cut: int) -> None:
    kept = call()
    kept.mask.add(KEY)
    upstream = kept.ask("/", f"is {KEY} good?".encode(), {"Authorization": f"Bearer {KEY}"})
    kept.take_read(upstream, f"it is {KEY[:cut]}".encode())
    kept.take_read(upstream, f"{KEY[cut:]}, you see".encode())
    wire = b"".join(read.wire for read in upstream.reads)
    assert wire == b"it is " + b"*" * len(KEY) + b", you see"
    assert [len(read.wire) for read in upstream.reads] == [6 + cut, len(KEY) - cut + 9]
    assert KEY.encode() not in upstream.body
    assert upstream.headers == {"Authorization": "(masked)"}


@pytest.mark.parametrize("size", [1, 2, 5, 12])
def test_a_key_is_masked_over_any_number_of_reads(size: int) -> None:
    kept = call(limit=100_000)
    kept.mask.add(KEY)
    upstream = kept.ask("/", b"", {})
    wire = f"it is {KEY}{KEY}, you see".encode()
    for at in range(0, len(wire), size):
        kept.take_read(upstream, wire[at : at + size])
    assert b"".join(read.wire for read in upstream.reads) == wire.replace(KEY.encode(), b"*" * len(KEY))
    assert {len(read.wire) for read in upstream.reads[:-1]} == {size}


def test_a_refusal_is_kept_beside_the_packets_and_without_a_key() -> None:
    kept = call(limit=1_000)
    kept.mask.add(KEY)
    kept.take_refusal(f"not {KEY}".encode())
    assert (kept.refusal, kept.packets) == (b"not " + b"*" * len(KEY), [])
    kept.forget()
    assert kept.refusal == b""
    kept.take_refusal(b"late")
    assert kept.refusal == b""


def test_what_a_body_loses_is_told_by_itself() -> None:
    kept = call(limit=1_000)
    kept.take_body(b"x" * 5_000)
    kept.take_packet(b"p" * 100)
    assert (kept.lost_body_bytes, kept.lost_bytes - kept.lost_body_bytes) == (5_000 - (1_000 - ENTRY_BYTES), 100)


def test_of_an_upstream_call_without_room_all_but_its_body_is_kept() -> None:
    kept = call(limit=ENTRY_BYTES + 10)
    upstream = kept.ask("/chat/completions", b"eleven byte", {"X-Note": "a"})
    assert (upstream.body, upstream.path, upstream.headers) == (b"", "/chat/completions", {"X-Note": "a"})
    assert kept.lost_bytes == 11
    assert kept.ask("/chat/completions", b"ten bytes.", {}).body == b"ten bytes."


def test_times_are_milliseconds_since_it_came_to_a_tenth(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = [100.0, 100.02125, 101.5]
    monkeypatch.setattr(recorded, "monotonic", lambda: now_s.pop(0))
    kept = RecordedCall(1, 0.0, "POST", "/", "dashscope", "id", {}, 10_000, began_s=recorded.monotonic())
    assert (kept.now_ms(), kept.now_ms()) == (21.2, 1_500.0)
