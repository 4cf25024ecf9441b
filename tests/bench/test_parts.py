"""What the parts of a delta's way cost by themselves: parsing what comes, splicing a packet (`test_count` counts).

Each round is a read of 16 deltas.
"""

from __future__ import annotations

import orjson
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from proxy.inspector.recent_calls import RecentCalls
from tests import corpus
from tests.bench import upstream
from translators import sse
from translators.dashscope import packets

READ = b"".join(upstream.DELTAS)

pytestmark = pytest.mark.benchmark(max_time=0.2, min_rounds=20)


def test_parse(benchmark: BenchmarkFixture) -> None:
    decoder = sse.Decoder(1 << 20)

    def parse() -> list[object]:
        return [orjson.loads(data) for data in decoder.feed(READ)]

    assert len(benchmark(parse)) == len(upstream.DELTAS)


@pytest.mark.parametrize("size", [1, 1_000], ids=["a word", "a long text so far"])
def test_splice(benchmark: BenchmarkFixture, size: int) -> None:
    call = corpus.ask(incremental=True)
    answer = corpus.open_pipe(call).answer
    frames, (choice,) = packets.Frames(packets.Shape(call, answer.tally, corpus.REQUEST_ID)), answer.choices
    texts = [(orjson.dumps(" word" * size), packets.EMPTY) for _ in upstream.DELTAS]
    said = [choice.meter.said] * len(texts)

    def splice() -> bytes:
        frames.text(choice, texts, said)
        return frames.take()

    assert benchmark(splice).count(b"\nevent:result\n") == len(upstream.DELTAS)


def test_tap(benchmark: BenchmarkFixture) -> None:
    """What `--inspect` adds where it is on: a read and a packet for each delta."""
    recent = RecentCalls(calls=1)

    def tap() -> int:
        call = recent.begin("POST", "/", "dashscope", corpus.REQUEST_ID, {})
        call.mask.add("sk-the-callers-own")
        upstream_call = call.ask("/chat/completions", b"{}", {})
        for delta in upstream.DELTAS:
            call.take_read(upstream_call, delta)
            recent.changed(call)
            call.take_packet(delta)
            recent.changed(call)
        return len(call.packets)

    assert benchmark(tap) == len(upstream.DELTAS)
