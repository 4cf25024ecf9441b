"""What counting costs: a delta of one token early and late in an answer, and a prompt (spec USE-2, USE-6)."""

from __future__ import annotations

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from translators import tokens

PROSE = {
    "en": "The relay reads what has come, counts it and hands it on; nothing waits for a number, none is guessed. ",
    "zh": "代理读到什么就转发什么，每个数据包都带着准确的用量；没有谁在等一个数字，也没有哪个数字是猜的。",
    "code": "    for part in parts:\n        total += count(part, vocabulary)  # never a guess\n    return total\n\n",
}
DELTAS_PER_ROUND = 500

pytestmark = pytest.mark.benchmark(max_time=0.2, min_rounds=20)


def one_token_deltas(text: str, vocabulary: tokens.Vocabulary) -> list[str]:
    """The text as an upstream streams it: a token each, a character that spans tokens held back until it is whole."""
    deltas, held = [], b""
    for token in vocabulary.encode(text):
        held += vocabulary.decode_bytes([token])
        try:
            deltas.append(held.decode())
        except UnicodeDecodeError:
            continue
        held = b""
    return deltas


@pytest.mark.parametrize("before_tokens", [0, 20_000])
@pytest.mark.parametrize("prose", PROSE.values(), ids=PROSE)
def test_one_token_deltas(
    prose: str, before_tokens: int, benchmark: BenchmarkFixture, vocabulary: tokens.Vocabulary
) -> None:
    """Time for 500 deltas; it does not grow with what came before them."""
    deltas = one_token_deltas(prose * 40, vocabulary)[:DELTAS_PER_ROUND]
    answer = tokens.Counter(vocabulary)
    while answer.total < before_tokens:
        answer.add(prose)

    def stream() -> int:
        counter = answer.fork()
        for delta in deltas:
            counter.add(delta)
        return counter.total

    assert benchmark(stream) == answer.fork().add("".join(deltas))


@pytest.mark.parametrize("prose", PROSE.values(), ids=PROSE)
def test_a_prompt_of_64_kilobytes(prose: str, benchmark: BenchmarkFixture, vocabulary: tokens.Vocabulary) -> None:
    """Time for one prompt."""
    prompt = (prose * 1_000).encode()[:65_536].decode(errors="ignore")
    assert benchmark(tokens.count, prompt, vocabulary) == len(vocabulary.encode(prompt))
