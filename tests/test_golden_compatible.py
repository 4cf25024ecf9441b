"""Hand-written streams of the compatible surface, one folder per rule: upstream's bytes in, a caller's bytes out.

tests/golden/compatible/RULE-case/: `call.json` as a caller sends it, `upstream.sse`, and what it becomes: `chunks.sse`,
and `reply.json` where the call does not stream (an error body where it fails). The prompt counts 5 tokens, as in
`test_golden`.
"""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest

import proxy.vocabulary
from tests import corpus
from translators import catalogue, dialogue, faults, pipe
from translators import choice as answer
from translators.compatible import tongue

CASES = sorted((Path(__file__).parent / "golden" / "compatible").iterdir())
CATALOGUE = catalogue.Catalogue((corpus.NEVER, corpus.HYBRID, corpus.ALWAYS))
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
