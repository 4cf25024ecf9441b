"""I · Large answers: what an upstream says at once costs other callers' streams nothing (spec USE-6, SSE-10).

Gaps are seconds of the processor that the loop worked without a pause, not by a clock.
"""

from __future__ import annotations

import orjson
import pytest

from proxy.simulation.wire import Script
from tests import caller, lint
from tests.faults import matrix
from tests.faults.conftest import Stand
from tests.faults.matrix import row
from tests.faults.test_cost import GAP_S, MIB, Spent, beside
from tests.faults.test_mid_stream import _event

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(300)]

DELTA_BYTES = MIB
ALL_S = 1.0
END = _event({}, finish_reason="stop") + b"data: [DONE]\n\n"
STOPS = ["a" * 50 + letter for letter in "bcdefghijklmnop"]
ARGUMENTS = orjson.dumps({"a": "b" * DELTA_BYTES}).decode()
TOOLS = [{"type": "function", "function": {"name": "f"}}]


def completion(text: str) -> bytes:
    message = {"role": "assistant", "content": text}
    return orjson.dumps({"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]})


# What upstream says, under which type, and what the call asks for.
STREAMED = "text/event-stream"
GIANTS: dict[str, tuple[bytes, str, dict[str, object]]] = {
    "letters": (_event({"content": "a" * DELTA_BYTES}) + END, STREAMED, {}),
    "words": (_event({"content": "word and another " * (DELTA_BYTES // 17)}) + END, STREAMED, {}),
    "Chinese": (_event({"content": "一二三" * (DELTA_BYTES // 9)}) + END, STREAMED, {}),
    "a chain": (_event({"reasoning_content": "a" * DELTA_BYTES}) + END, STREAMED, {"model": "deepseek-r1"}),
    "tags": (_event({"content": "<think>" + "<" * DELTA_BYTES}) + END, STREAMED, {"model": "deepseek-r1"}),
    "stops": (_event({"content": "a" * (DELTA_BYTES // 2)}) + END, STREAMED, {"stop": STOPS}),
    "arguments": (
        _event({"tool_calls": [{"index": 0, "id": "1", "function": {"name": "f", "arguments": ARGUMENTS}}]}) + END,
        STREAMED,
        {"tools": TOOLS},
    ),
    "no blank line": (_event({"content": "a" * DELTA_BYTES}, finish_reason="stop")[:-2], STREAMED, {}),
    "JSON": (completion("a" * DELTA_BYTES), "application/json", {}),
    "JSON under another label": (completion("a" * DELTA_BYTES), STREAMED, {}),
    "events under another label": (_event({"content": "a" * DELTA_BYTES}) + END, "application/json", {}),
}
gaps_of: dict[str, float] = {}


@pytest.mark.parametrize("name", GIANTS)
@row(
    "all of it, correct",
    figure=f"1 MiB at once, of eleven kinds: another stream's longest gap ≤ {GAP_S * 1e3:g} ms, "
    f"≤ {ALL_S:g} s of the processor in all threads",
)
async def test_f99_a_giant_answer_holds_up_no_other_stream(stand: Stand, name: str) -> None:
    await stand.ask()
    replay, content_type, asked = GIANTS[name]
    spent = Spent(stand.served.process.pid)
    async with beside(stand, spent) as gaps:
        stand.upstream.scripts.append(Script(replay=replay, replay_content_type=content_type))
        answer = await stand.ask(caller.call(incremental_output=True, **asked))
    assert answer.status == 200
    assert not lint.check(answer.body, incremental=True)
    last = caller.packets(answer.body)[-1]
    assert last["output"]["choices"][0]["finish_reason"] in {"stop", "tool_calls"}
    assert last["usage"]["output_tokens"] > DELTA_BYTES // 40
    assert max(gaps) < GAP_S
    assert spent.all_s < ALL_S
    await stand.settled()
    gaps_of[name] = max(gaps)
    worst = max(gaps_of, key=gaps_of.__getitem__)
    matrix.reached(
        "longest gap of a stream beside 1 MiB that upstream says at once", f"{gaps_of[worst] * 1e3:.0f} ms ({worst})"
    )
