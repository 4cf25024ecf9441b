"""Streams captured from a real llama.cpp b11549 say the same in every form, however they are cut (spec OUT, SSE, USE).

`tests/golden/captured/` holds them byte for byte: SmolLM2-135M behind `proxy.simulation.llamacpp`'s template, at
temperature 0.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from tests import corpus, lint
from translators import choice, pipe

CAPTURED = sorted((Path(__file__).parent / "golden" / "captured").glob("*.sse"))
RULES = choice.Rules(parallel_calls=True)


def seen(path: Path, cut: int = 1 << 20, **fields: Any) -> bytes:
    asked = {"thinking": "thinking" in path.stem, "logprobs": "logprobs" in path.stem} | fields
    return corpus.drive(corpus.open_pipe(corpus.ask(**asked), RULES), path.read_bytes(), cut)


def told_by_upstream(path: Path) -> tuple[int, int]:
    """The figures of the usage chunk."""
    (line,) = [line for line in path.read_bytes().splitlines() if b'"usage":' in line]
    figures = orjson.loads(line.removeprefix(b"data:"))["usage"]
    return figures["prompt_tokens"], figures["completion_tokens"]


@pytest.mark.parametrize("path", CAPTURED, ids=lambda path: path.stem)
def test_a_captured_stream_reads_alike_in_all_three_forms(path: Path) -> None:
    """SSE-5, SSE-7, OUT-1"""
    deltas = seen(path)
    told = corpus.fold(deltas)
    assert lint.check(deltas, incremental=True) == []
    snapshots = seen(path, incremental=False)
    assert lint.check(snapshots, incremental=False) == []
    last, reply = corpus.packets(snapshots)[-1], orjson.loads(seen(path, stream=False))
    for form in (corpus.told_by(last), corpus.told_by(reply)):
        assert form == told
    assert told.content or told.reasoning or told.calls


@pytest.mark.parametrize("cut", [1, 7, 4096])
@pytest.mark.parametrize("incremental", [True, False])
@pytest.mark.parametrize("path", CAPTURED, ids=lambda path: path.stem)
def test_a_captured_stream_gives_the_same_packets_wherever_it_is_cut(path: Path, incremental: bool, cut: int) -> None:
    """SSE-10"""
    assert seen(path, cut, incremental=incremental) == seen(path, incremental=incremental)


@pytest.mark.parametrize("path", CAPTURED, ids=lambda path: path.stem)
def test_the_last_packet_says_what_the_server_said(path: Path) -> None:
    """USE-3"""
    used = corpus.packets(seen(path))[-1]["usage"]
    assert (used["input_tokens"], used["output_tokens"]) == told_by_upstream(path)


@pytest.mark.parametrize("path", CAPTURED, ids=lambda path: path.stem)
def test_a_captured_stream_that_is_cut_off_anywhere_is_an_error_never_a_clean_end(path: Path) -> None:
    """SSE-4"""
    wire = path.read_bytes()
    ended = wire.index(b'"finish_reason":"')
    for at in range(0, ended, 97):
        through = corpus.open_pipe(corpus.ask(thinking=False), RULES)
        out = corpus.outcome(lambda through=through, at=at: corpus.drive(through, wire[:at]))
        if isinstance(out, bytes):
            assert b"event:error\n:HTTP_STATUS/500\n" in out
            assert through.state is pipe.State.ENDED
