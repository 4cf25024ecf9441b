"""Hand-written streams, one folder per rule: upstream's bytes in, a caller's bytes out, to the last one.

tests/golden/stream/RULE-case/: `call.json` as a caller sends it, `upstream.sse`, and what it becomes: `packets.sse`
(incremental), `packets.cumulative.sse`, `reply.json` (an error body where the call fails). The prompt counts 5 tokens:
a user's two ("你是谁", "？") and the three of the template around them.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import orjson
import pytest

import proxy.vocabulary
from config import models
from config.settings import Settings
from tests import corpus, lint
from translators import catalogue, dialogue, faults, pipe
from translators import choice as answer
from translators.dashscope import call, multimodal, packets
from translators.deepseek import prompt
from translators.openai import dialects, request
from translators.terms import agreed

CASES = sorted((Path(__file__).parent / "golden" / "stream").iterdir())
CATALOGUE = catalogue.Catalogue((corpus.NEVER, corpus.HYBRID, corpus.ALWAYS))


def asked(case: Path) -> dialogue.Call:
    document = call.read((case / "call.json").read_bytes())
    return call.translate(document, CATALOGUE, stream=True, decode=proxy.vocabulary.load().decode_bytes)


def opened(given: dialogue.Call) -> pipe.Pipe:
    rules = answer.Rules(stops=given.stops, parallel_calls=given.parallel_tool_calls, calls_in_pieces=given.tool_stream)
    return corpus.open_pipe(given, rules)


@pytest.mark.parametrize("cut", [1, 7, 4096], ids="cut={}".format)
@pytest.mark.parametrize("incremental", [True, False], ids=["incremental", "cumulative"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_stream_is_what_was_written_down_however_it_is_cut(case: Path, *, incremental: bool, cut: int) -> None:
    given = asked(case)._replace(incremental=incremental)
    stream = corpus.drive(opened(given), (case / "upstream.sse").read_bytes(), cut)
    expected = (case / ("packets.sse" if incremental else "packets.cumulative.sse")).read_bytes()
    assert stream.decode() == expected.decode()
    assert lint.check(stream, incremental=incremental) == []


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_reply_folded_from_a_stream_is_what_was_written_down(case: Path) -> None:
    given = asked(case)._replace(stream=False)
    try:
        reply = corpus.drive(opened(given), (case / "upstream.sse").read_bytes())
    except faults.Refusal as refusal:
        reply = packets.error(refusal.fault, corpus.REQUEST_ID)
    assert orjson.loads(reply) == orjson.loads((case / "reply.json").read_bytes())


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_what_was_written_down_agrees_with_itself(case: Path) -> None:
    """SSE-5: increments put together, the last cumulative packet and the reply are the same."""
    reply = orjson.loads((case / "reply.json").read_bytes())
    stream, snapshots = ((case / name).read_bytes() for name in ("packets.sse", "packets.cumulative.sse"))
    for choice in reply.get("output", {"choices": []})["choices"]:
        index = choice["index"]
        whole = corpus.told_by(reply, index)
        last = [p for p in corpus.packets(snapshots) if p["output"]["choices"][0]["index"] == index][-1]
        folded, shown = corpus.fold(stream, index), corpus.told_by(last, index)
        assert replace(folded, usage={}) == replace(shown, usage={}) == replace(whole, usage={})
        assert folded.usage == shown.usage


# The multimodal path: parts in, what goes upstream of them (`body.json`), and parts out.
PARTS = sorted((Path(__file__).parent / "golden" / "multimodal").iterdir())
SEEING = catalogue.Catalogue((dialogue.Model(**models.load(Settings())[-1]),))


def shown(case: Path, **fields: object) -> dialogue.Call:
    document = multimodal.read((case / "call.json").read_bytes())
    given = multimodal.translate(document, SEEING, stream=True, decode=proxy.vocabulary.load().decode_bytes)
    return given._replace(**fields)  # type: ignore[arg-type]


def seen_through(given: dialogue.Call) -> pipe.Pipe:
    """A pipe whose prompt is counted as the call's own."""
    order = request.order(given, dialects.DIALECTS["deepseek"])
    terms = agreed(order, request_id=corpus.REQUEST_ID, own_key=False)
    through = pipe.Pipe(given, terms, proxy.vocabulary.load(), multimodal)
    through.count_prompt(prompt.length(order.prompt, proxy.vocabulary.load()), 0)
    return through


@pytest.mark.parametrize("case", PARTS, ids=lambda case: case.name)
def test_parts_go_upstream_as_they_stand(case: Path) -> None:
    """REQ-4, COM-11: on either surface."""
    body = request.order(shown(case), dialects.DIALECTS["deepseek"]).body().json
    assert body == orjson.loads((case / "body.json").read_bytes())


@pytest.mark.parametrize("cut", [1, 4096], ids="cut={}".format)
@pytest.mark.parametrize("incremental", [True, False], ids=["incremental", "cumulative"])
@pytest.mark.parametrize("case", PARTS, ids=lambda case: case.name)
def test_packets_of_parts_are_what_was_written_down(case: Path, *, incremental: bool, cut: int) -> None:
    """HTTP-3."""
    wire = (case / "upstream.sse").read_bytes()
    stream = corpus.drive(seen_through(shown(case, incremental=incremental)), wire, cut)
    expected = (case / ("packets.sse" if incremental else "packets.cumulative.sse")).read_bytes()
    assert stream.decode() == expected.decode()


@pytest.mark.parametrize("case", PARTS, ids=lambda case: case.name)
def test_a_reply_of_parts_is_what_was_written_down(case: Path) -> None:
    """HTTP-3."""
    reply = corpus.drive(seen_through(shown(case, stream=False)), (case / "upstream.sse").read_bytes())
    assert orjson.loads(reply) == orjson.loads((case / "reply.json").read_bytes())
