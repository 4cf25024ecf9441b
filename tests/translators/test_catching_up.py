"""What a pipe puts off is what it would have said at once: the same bytes, in the same order, in the same bounds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson
import pytest

from tests import corpus, lint
from tests.corpus import SHAPES, Shape, chunk, figures, usage_chunk
from translators import choice as answer
from translators import faults, pipe

SMALL = 24
LONG = "word and another " * 40
LARGE = len(LONG)
READ = 100


def caught_up(through: pipe.Pipe) -> bytes:
    """All that was put off, as the shell has it taken."""
    out = b""
    while through.is_behind:
        out += through.catch_up()
        through.go_on()
    return out


def fed(through: pipe.Pipe, wire: bytes, cut: int = READ) -> bytes:
    """What comes out so far, where the shell lets the pipe catch up as soon as it is behind."""
    return b"".join(through.feed(wire[at : at + cut]) + caught_up(through) for at in range(0, len(wire), cut))


def driven(through: pipe.Pipe, wire: bytes, cut: int = READ) -> bytes:
    """All that comes out; the end may be what is put off."""
    return fed(through, wire, cut) + through.eof() + caught_up(through)


@pytest.mark.parametrize("how", ["incremental", "cumulative", "reply"])
@pytest.mark.parametrize("name", [name for name, shape in SHAPES.items() if len(shape.wire) < 1 << 16])
def test_what_is_put_off_is_what_would_have_been_said_at_once(name: str, how: str) -> None:
    shape: Shape = SHAPES[name]
    call = corpus.ask(stream=how != "reply", incremental=how == "incremental")
    at_once, late = (
        corpus.outcome(lambda through=through: driven(through, shape.wire, 7))  # type: ignore[misc]
        for through in (corpus.open_pipe(call, shape.rules), corpus.open_pipe(call, shape.rules, large_bytes=SMALL))
    )
    assert at_once == late


@pytest.mark.parametrize(
    "body", [chunk({"content": LONG}, "stop") + corpus.DONE, chunk({"content": LONG}, "stop")[:-1]]
)
def test_while_it_is_behind_nothing_is_taken_and_nothing_is_over(body: bytes) -> None:
    through = corpus.open_pipe(corpus.ask(), large_bytes=SMALL)
    assert through.feed(body[:READ]) == b""
    assert through.feed(body[READ:]) == b""
    assert through.eof() == b""
    assert (through.is_behind, through.is_open(), through.wants_no_more(), through.awaits_usage()) == (
        (True, True, True, False)
    )
    assert through.late_bytes >= LARGE
    assert through.release() == b""
    assert through.generated() == 0
    out = caught_up(through)
    assert corpus.fold(out + through.eof()).content == LONG
    assert through.late_bytes == 0
    assert not through.is_open()
    assert through.feed(b"data: 1\n\n") == b""


def test_a_completion_is_put_off_by_its_length() -> None:
    message = {"role": "assistant", "content": LONG}
    raw = orjson.dumps({"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]})
    at_once, late = (corpus.open_pipe(corpus.ask(), large_bytes=size) for size in (1 << 20, LARGE))
    assert late.feed_completion(raw) == b""
    assert late.is_behind
    assert caught_up(late) == at_once.feed_completion(raw)
    for most, is_late in ((len(raw), False), (len(raw) - 1, True)):
        one = corpus.open_pipe(corpus.ask(), large_bytes=most)
        assert (one.feed_completion(raw) == b"") is one.is_behind is is_late
    # Under the label of events it is a document, which is whole at the end.
    document = corpus.open_pipe(corpus.ask(), large_bytes=LARGE)
    assert driven(document, raw).replace(b"\n", b"") != b""
    assert document.is_over


@pytest.mark.parametrize("large_bytes", [1 << 20, 1_000, SMALL])
@pytest.mark.parametrize("incremental", [True, False])
def test_events_under_the_label_of_a_completion_end_where_they_end(large_bytes: int, *, incremental: bool) -> None:
    raw = chunk({"content": LONG}) + chunk({"content": "."}, "stop") + usage_chunk(figures(9, 200)) + corpus.DONE
    through = corpus.open_pipe(corpus.ask(incremental=incremental), large_bytes=large_bytes)
    out = through.feed_completion(raw) + caught_up(through)
    assert lint.check(out, incremental=incremental) == []
    assert corpus.told_by(corpus.packets(out)[-1]).finish == "stop"
    assert through.is_over


def test_events_under_the_label_of_a_completion_that_repeat_much_end_behind_their_parts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pipe, "FRAMES_BYTES", 100)
    through = corpus.open_pipe(corpus.ask(incremental=False), large_bytes=LARGE)
    out = through.feed(chunk({"content": LONG * 2}))
    out += through.feed_completion(chunk({"content": "a"}) + chunk({"content": "b"}, "stop"))
    assert through.is_behind
    out += caught_up(through)
    assert corpus.told_by(corpus.packets(out)[-1]).content == LONG * 2 + "ab"
    assert through.is_over


def test_packets_that_repeat_much_are_laid_out_a_part_at_a_time() -> None:
    """SSE-10: one read of small deltas behind a long text would be hundreds of megabytes."""
    text = "word " * (pipe.FRAMES_BYTES // 20)
    deltas = b"".join(chunk({"content": letter}) for letter in "abcdefghij")
    through = corpus.open_pipe(corpus.ask(incremental=False), large_bytes=1 << 10)
    before = fed(through, chunk({"content": text}), 1 << 20)
    # One is, whatever it repeats.
    before += through.feed(chunk({"content": "."}))
    assert not through.is_behind
    assert through.feed(deltas + chunk({}, "stop") + corpus.DONE) == b""
    parts = []
    while through.is_behind:
        assert through.late_bytes < 200
        parts.append(through.catch_up())
        through.go_on()
    assert all(len(part) < 2 * pipe.FRAMES_BYTES for part in parts)
    assert len(parts) > 2
    out = before + b"".join(parts) + through.eof()
    assert lint.check(out, incremental=False) == []
    assert corpus.told_by(corpus.packets(out)[-1]).content == text + ".abcdefghij"


def test_what_upstream_tells_behind_a_failure_in_the_same_read_counts_in_parts_too() -> None:
    text = "word " * (pipe.FRAMES_BYTES // 5)
    error = corpus.event({"error": {"message": "x", "type": "server_error", "code": 500}})
    through = corpus.open_pipe(corpus.ask(incremental=False), large_bytes=1 << 10)
    fed(through, chunk({"content": text}), 1 << 20)
    assert through.feed(error + usage_chunk(figures(9, 77))) == b""
    frame = caught_up(through)
    assert b"event:error\n" in frame
    assert through.account().spent[0].completion == 77
    assert not through.is_open()


def test_several_upstream_calls_come_one_after_the_other() -> None:
    """OUT-7: what one of them says meanwhile waits behind what another has put off."""
    through = corpus.open_pipe(corpus.ask(n=2, thinking=False), large_bytes=SMALL, legs=2)
    giant = chunk({"content": LONG}, "stop") + usage_chunk(figures(9, 200)) + corpus.DONE
    other = chunk({"content": "b"}, "stop") + usage_chunk(figures(9, 1)) + corpus.DONE
    assert through.feed(giant[:READ], 0) + through.feed(giant[READ:], 0) == b""
    assert through.feed(other, 1) == b""
    out = caught_up(through)
    assert lint.check(out, incremental=True) == []
    texts = ["", ""]
    for packet in corpus.packets(out):
        for one in packet["output"]["choices"]:
            texts[one["index"]] += one["message"]["content"]
    assert texts == [LONG, "b"]
    assert through.is_over


def test_what_waits_for_an_upstream_call_that_is_over_is_dropped() -> None:
    through = corpus.open_pipe(corpus.ask(), large_bytes=SMALL)
    wire = chunk({"content": LONG})
    assert through.feed(wire[:READ]) + through.feed(wire[READ:]) == b""
    assert through.feed(chunk({"content": "more"})) == b""
    first = through.catch_up()
    assert corpus.fold(first).content == LONG
    through.go_on()
    assert through.is_behind
    refusal = faults.Refusal(faults.INTERNAL, "a test")
    assert through.fail(refusal).startswith(b"id:2\nevent:error")
    through.go_on()
    assert not through.is_behind
    late = pipe.Late(0, 0, lambda: b"never")
    through._late.append(late)
    assert through.catch_up() == b""


def test_a_fault_in_what_was_put_off_keeps_its_status() -> None:
    through = corpus.open_pipe(corpus.ask(), large_bytes=SMALL)
    for piece in (b"data: {nonsense" + b"x" * READ, b"\n\n"):
        assert through.feed(piece) == b""
    with pytest.raises(faults.Refusal) as refused:
        through.catch_up()
    assert refused.value.fault is faults.UPSTREAM_BROKEN


class Held:
    """What a pipe says that it keeps, of so much as it may."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.now = 0
        self.highest = 0

    def take(self, change: int) -> None:
        if self.now + change > self.most:
            raise faults.Refusal(faults.OVERLOADED, "a test")
        self.now += change
        self.highest = max(self.highest, self.now)


def deltas(text: str) -> Iterator[bytes]:
    for at in range(0, len(text), 50):
        yield chunk({"content": text[at : at + 50]})


@pytest.mark.parametrize(
    ("asked", "keeps"),
    [
        ({"incremental": True}, False),
        ({"incremental": False}, True),
        ({"stream": False}, True),
    ],
    ids=["incremental", "cumulative", "reply"],
)
def test_what_an_answer_keeps_is_told_in_large_steps(asked: dict[str, Any], *, keeps: bool) -> None:
    """REQ-11."""
    held = Held(1 << 30)
    through = corpus.open_pipe(corpus.ask(**asked), large_bytes=1_000, hold=held.take)
    text = LONG * 20
    for delta in deltas(text):
        through.feed(delta)
        caught_up(through)
    assert (held.now > len(text) - 3_000) is keeps
    assert held.now <= len(text)


def test_half_an_event_is_kept_too_and_no_more_once_it_is_taken() -> None:
    held = Held(1 << 30)
    through = corpus.open_pipe(corpus.ask(), large_bytes=1_000, hold=held.take)
    fed(through, chunk({"content": "a" * 100_000}), 500)
    assert 98_000 < held.highest < 102_000
    assert held.now < 2_000


def test_a_read_that_waits_is_kept_until_it_is_taken() -> None:
    held = Held(1 << 30)
    through = corpus.open_pipe(corpus.ask(), large_bytes=1_000, hold=held.take)
    first, waiting = chunk({"content": "a" * 2_000}), chunk({"content": "b" * 5_000})
    assert through.feed(first[:1_500]) + through.feed(first[1_500:]) == b""
    assert through.late_bytes == len(first) - len("data:\n\n")
    assert through.feed(waiting[:4_000]) + through.feed(waiting[4_000:]) == b""
    assert corpus.fold(through.catch_up()).content == "a" * 2_000
    through.go_on()
    assert (through.late_bytes, held.now) == (4_000, len(waiting))
    assert corpus.fold(caught_up(through)).content == "b" * 5_000
    assert held.now == 0


def test_log_probabilities_are_kept_as_what_they_take() -> None:
    entry = {"token": "a", "logprob": -0.1, "bytes": [97], "top_logprobs": []}
    for asked in ({"incremental": False}, {"stream": False}):
        held = Held(1 << 30)
        call = corpus.ask(logprobs=True, thinking=False, **asked)
        through = corpus.open_pipe(call, large_bytes=1_000, hold=held.take)
        for _ in range(10):
            through.feed(chunk({"content": "a"}, logprobs={"content": [entry]}))
            caught_up(through)
        assert held.now > 15_000


@pytest.mark.parametrize("large", [False, True])
def test_an_answer_that_would_keep_too_much_ends_as_one_there_is_no_room_for(*, large: bool) -> None:
    held = Held(20_000)
    through = corpus.open_pipe(corpus.ask(incremental=False), large_bytes=1_000, hold=held.take)
    wire = chunk({"content": "a" * 30_000}) if large else b"".join(deltas("a" * 30_000))
    if large:
        with pytest.raises(faults.Refusal) as refused:
            driven(through, wire, 500)
        assert refused.value.fault is faults.OVERLOADED
        return
    out = driven(through, wire, 500)
    assert b"event:error\n:HTTP_STATUS/503\n" in out
    assert not through.is_open()


def test_more_pieces_in_one_chunk_than_it_has_choices_for_are_broken() -> None:
    """Each could become a packet that says the whole text again."""
    piece = {"index": 0, "delta": {"content": "a"}, "finish_reason": None}
    for count, fault in ((4, None), (5, faults.UPSTREAM_BROKEN)):
        wire = corpus.event({"choices": [piece] * count})
        came = corpus.outcome(lambda wire=wire: corpus.open_pipe(corpus.ask()).feed(wire))  # type: ignore[misc]
        assert came == fault if fault else isinstance(came, bytes)


def test_a_chain_over_its_budget_is_found_in_what_was_put_off() -> None:
    rules = answer.Rules(parallel_calls=True, chain_limit=10)
    through = corpus.open_pipe(corpus.ask(), rules, large_bytes=SMALL)
    wire = chunk({"reasoning": LONG})
    before = fed(through, wire)
    chain = through.chain_over_budget()
    assert chain is not None
    assert LONG.startswith(chain)
    through.resume()
    rest = driven(through, chunk({"content": LONG}, "stop") + corpus.DONE)
    assert corpus.fold(before + rest).content == LONG
