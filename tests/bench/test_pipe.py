"""What one text delta costs on its way through the whole pipe, counting included, in reads of 16 deltas.

The least of many rounds is `us_per_delta` of the extra info.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests import corpus
from tests.corpus import chunk

SENTENCE = "the quick brown fox jumps over a lazy dog and then some 你好 ， it ."
WORDS = [" " + word for word in SENTENCE.split()]
READS = 8

DELTAS = {
    "plain": [chunk({"content": word}) for word in WORDS],
    "beside a null chain": [chunk({"content": word, "reasoning_content": None}, usage=None) for word in WORDS],
    "of a chain": [chunk({"content": None, "reasoning_content": word}, usage=None) for word in WORDS],
}


@pytest.mark.parametrize("incremental", [True, False], ids=["incremental", "cumulative"])
@pytest.mark.parametrize("name", DELTAS)
def test_a_read_of_16_text_deltas(name: str, benchmark: Any, *, incremental: bool) -> None:
    read = b"".join(DELTAS[name])

    def opened() -> tuple[tuple[Any, ...], dict[str, Any]]:
        return (corpus.open_pipe(corpus.ask(incremental=incremental)),), {}

    def through(pipe: Any) -> bytes:
        return b"".join(pipe.feed(read) for _ in range(READS))

    out = benchmark.pedantic(through, setup=opened, rounds=200)
    assert out.count(b"\nevent:result\n") == READS * len(WORDS)
    stats = getattr(benchmark, "stats", None)
    if stats is not None:
        benchmark.extra_info["us_per_delta"] = stats.stats.min / READS / len(WORDS) * 1e6
