"""What one call costs `translators` alone: its body read, what upstream is asked, its answer and its account.

No socket, no loop, no books. The calls are those of the bench of the process (`load`), the answers its upstream's.
`python_calls` of the extra info is how many functions of Python's a call enters: in the process, where other work has
used the processor's caches meanwhile, time follows it more than what each function does.
"""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any

import orjson
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

import proxy.vocabulary
from tests import corpus
from tests.bench import load, upstream
from translators import breadth
from translators.catalogue import Catalogue
from translators.compatible import tongue as compatible
from translators.dashscope import tongue as native
from translators.deepseek import prompt
from translators.openai import request
from translators.openai.dialects import DIALECTS
from translators.pipe import Pipe
from translators.terms import agreed
from translators.tongue import Tongue

TONGUES: dict[str, Tongue] = {"native": native, "compatible": compatible}
CATALOGUE = Catalogue([corpus.NEVER])
MESSAGE = {"role": "assistant", "content": "".join(upstream.WORDS)}
USAGE = {"prompt_tokens": 9, "completion_tokens": 16, "total_tokens": 25}
COMPLETION = orjson.dumps({"choices": [{"index": 0, "message": MESSAGE, "finish_reason": "stop"}], "usage": USAGE})
READS = (upstream.FIRST, upstream.DELTAS[0], upstream.last(1))

pytestmark = pytest.mark.benchmark(max_time=0.3, min_rounds=50)


def served(tongue: Tongue, body: bytearray, headers: dict[str, str]) -> bytes:
    """A call from its body to the bytes of its answer."""
    vocabulary = proxy.vocabulary.load()
    list(breadth.check(body))
    document = tongue.read(body)
    call = tongue.translate(
        document,
        CATALOGUE,
        stream=tongue.wants_stream(headers, document),
        path_model=None,
        strict_thinking=None,
        decode=vocabulary.decode_bytes,
    )
    order = request.order(call, DIALECTS["deepseek"])
    orjson.dumps(order.body().json)
    pipe = Pipe(call, agreed(order, request_id=corpus.REQUEST_ID, own_key=True), vocabulary, tongue)
    *_, tokens = prompt.totals(order.prompt, vocabulary)
    pipe.count_prompt(tokens, 0, prompt.overhead(order.prompt, vocabulary))
    out = b"".join(map(pipe.feed, READS)) if call.stream else pipe.feed_completion(COMPLETION)
    pipe.hand_over()
    pipe.account()
    return out


def python_calls(tongue: Tongue, body: bytearray, headers: dict[str, str]) -> int:
    entered = 0

    def count(_: FrameType, event: str, __: Any) -> None:
        nonlocal entered
        entered += event == "call"

    sys.setprofile(count)
    try:
        served(tongue, body, headers)
    finally:
        sys.setprofile(None)
    return entered


@pytest.mark.parametrize("stream", [False, True], ids=["JSON", "stream of one text"])
@pytest.mark.parametrize("name", TONGUES)
def test_a_small_call(name: str, benchmark: BenchmarkFixture, *, stream: bool) -> None:
    wire = load.Ask(deltas=16, stream=stream, compatible=name == "compatible").wire()
    body = bytearray(wire.partition(b"\r\n\r\n")[2])
    headers = {"X-DashScope-SSE": "enable"} if stream else {}
    out = benchmark(served, TONGUES[name], body, headers)
    assert b'"stop"' in out
    benchmark.extra_info["python_calls"] = python_calls(TONGUES[name], body, headers)
