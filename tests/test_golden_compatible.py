"""Hand-written streams of the compatible surface, one folder per rule: upstream's bytes in, a caller's bytes out.

tests/golden/compatible/RULE-case/: `call.json` as a caller sends it, `upstream.sse`, and what it becomes: `chunks.sse`,
and `reply.json` where the call does not stream (an error body where it fails). The prompt counts 5 tokens, as in
`test_golden`. tests/golden/compatible-calls/RULE-case/: `call.json`, and what reaches an upstream of it
(`upstream.json`) or what it is answered (`failure.json`: the status and the body).
"""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest

import proxy.vocabulary
from proxy.protocol import tables
from tests import corpus
from translators import catalogue, dialogue, faults, pipe
from translators import choice as answer
from translators.compatible import tongue
from translators.openai import request
from translators.openai.dialects import DIALECTS

CASES = sorted((Path(__file__).parent / "golden" / "compatible").iterdir())
CATALOGUE = catalogue.Catalogue((corpus.NEVER, corpus.HYBRID, corpus.ALWAYS))
CALLS = sorted((Path(__file__).parent / "golden" / "compatible-calls").iterdir())
# The moment at which each of these calls came.
AT_S = 1_795_872_537.9


def asked(case: Path) -> dialogue.Call:
    document = tongue.read((case / "call.json").read_bytes())
    assert tongue.wants_stream({}, document)
    return tongue.translate(document, CATALOGUE, stream=True, decode=proxy.vocabulary.load().decode_bytes)


def opened(given: dialogue.Call) -> pipe.Pipe:
    rules = answer.Rules(stops=given.stops, parallel_calls=given.parallel_tool_calls, calls_in_pieces=given.tool_stream)
    return corpus.open_pipe(given, rules, spoken=tongue, at_s=AT_S)


@pytest.mark.parametrize("cut", [1, 7, 4096], ids="cut={}".format)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_stream_is_what_was_written_down_however_it_is_cut(case: Path, cut: int) -> None:
    stream = corpus.drive(opened(asked(case)), (case / "upstream.sse").read_bytes(), cut)
    assert stream.decode() == (case / "chunks.sse").read_text()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_reply_folded_from_a_stream_is_what_was_written_down(case: Path) -> None:
    given = asked(case)._replace(stream=False)
    try:
        reply = corpus.drive(opened(given), (case / "upstream.sse").read_bytes())
    except faults.Refusal as refusal:
        reply = tongue.failure(refusal.fault, corpus.REQUEST_ID)
    expected = orjson.loads((case / "reply.json").read_bytes())
    # The order of the keys, too (COM-13).
    assert reply == orjson.dumps(expected)


def told(case: Path) -> tuple[str, bytes]:
    """What becomes of a call: the file that has it written down, and its bytes."""
    try:
        document = tongue.read((case / "call.json").read_bytes())
        stream = tongue.wants_stream({}, document)
        decode = proxy.vocabulary.load().decode_bytes
        given = tongue.translate(document, tables.shipped().catalogue, stream=stream, decode=decode)
    except faults.Refusal as refusal:
        body = tongue.failure(refusal.fault, corpus.REQUEST_ID)
        return "failure.json", b'{"status":%d,"body":%b}' % (refusal.fault.status, body)
    return "upstream.json", orjson.dumps(request.order(given, DIALECTS["deepseek"]).body().json)


@pytest.mark.parametrize("case", CALLS, ids=lambda case: case.name)
def test_a_call_becomes_what_was_written_down(case: Path) -> None:
    name, body = told(case)
    assert sorted(path.name for path in case.iterdir()) == sorted(["call.json", name])
    # The order of the keys, too.
    assert body == orjson.dumps(orjson.loads((case / name).read_bytes()))
