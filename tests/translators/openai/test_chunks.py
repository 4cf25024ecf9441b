"""Every event is read or ends the stream, and what follows the end is not wanted (spec ERR-3, SSE-4, SSE-8)."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import corpus
from tests.corpus import chunk, figures, usage_chunk
from translators import choice as answer
from translators import faults, sse, usage
from translators.dialogue import Finish
from translators.openai import chunks, failures


def reader(n: int = 1, **fields: object) -> tuple[chunks.Reader, list[answer.Choice], usage.Tally]:
    through = corpus.open_pipe(corpus.ask(n=n, thinking=False, stream=False), chain_end=0)
    served, tally = through.answer.choices, through.answer.tally
    terms = failures.Terms(corpus.INPUT_LIMIT, own_key=False)
    return chunks.Reader(served, tally, 0, terms, logprobs=bool(fields.get("logprobs"))), served, tally


def data(event: bytes) -> bytes:
    return event.removeprefix(b"data:").strip()


def test_a_reader_is_over_with_usage_after_the_finish() -> None:
    """SSE-8."""
    read, _, tally = reader()
    states = []
    for event in (usage_chunk(figures(9, 0)), chunk({"content": "The"}), chunk({}, "stop"), usage_chunk(figures(9, 1))):
        read.feed([data(event)])
        states.append((read.over, read.done))
    assert states == [(False, False)] * 3 + [(True, False)]
    assert (tally.latest(0).figures, tally.latest(0).is_final) == (usage.Figures(9, 1), True)


def test_a_reader_is_over_with_done() -> None:
    read, _, _ = reader()
    read.feed([b" [DONE] "])
    assert (read.done, read.over) == (True, True)


def test_usage_of_one_of_several_choices_is_its_own() -> None:
    """OUT-7: vLLM's continuous usage; the sum is in the chunk without choices."""
    read, served, tally = reader(2)
    read.feed([data(chunk({"content": "Yes"}, usage=figures(9, 4)))])
    read.feed([data(chunk({"content": "No"}, "stop", index=1, usage=figures(9, 5)))])
    read.feed([data(chunk({}, "stop", usage=figures(9, 4)))])
    assert [choice.meter.output for choice in served] == [4, 5]
    assert tally.latest(0).figures == usage.Figures(input=9)
    assert not read.over
    read.feed([data(usage_chunk(figures(9, 9)))])
    assert tally.latest(0).figures == usage.Figures(9, 9)
    assert read.over


def test_an_answer_cut_by_us_is_over_once_every_choice_has_ended() -> None:
    """OUT-8, OUT-7."""
    through = corpus.open_pipe(corpus.ask(n=2, thinking=False, stream=False), answer.Rules(answer_limit=1), chain_end=0)
    terms = failures.Terms(corpus.INPUT_LIMIT, own_key=False)
    read = chunks.Reader(through.answer.choices, through.answer.tally, 0, terms, logprobs=False)
    seen = []
    for index in (0, 1):
        read.feed([data(chunk({"content": "The answer"}, index=index))])
        seen.append(read.over)
    assert seen == [False, True]


@pytest.mark.parametrize("n", [1, 2, 4])
def test_a_chunk_has_some_pieces_for_each_choice_and_no_more(n: int) -> None:
    read, served, _ = reader(n)
    pieces = [{"index": at % n, "delta": {"content": " sea"}} for at in range(chunks.MOST_ITEMS * n)]
    read.feed([orjson.dumps({"choices": pieces})])
    assert [choice.meter.counted for choice in served] == [chunks.MOST_ITEMS] * n
    with pytest.raises(faults.Refusal) as refused:
        read.feed([orjson.dumps({"choices": [*pieces, pieces[0]]})])
    assert refused.value.fault == faults.UPSTREAM_BROKEN


TOLD: st.SearchStrategy[Any] = (
    st.none() | st.just({}) | st.just([]) | st.builds(figures, st.integers(0, 12), st.integers(0, 12))
)


@settings(deadline=None)
@given(
    pieces=st.lists(
        st.tuples(st.sampled_from(["content", "reasoning_content"]), st.text("ab <think>/", max_size=6), TOLD),
        min_size=1,
        max_size=8,
    ),
    ends=st.lists(st.integers(0, 7), max_size=2),
    rules=st.sampled_from([{}, {"stops": ("b",)}, {"answer_limit": 2}, {"chain_limit": 2}, {"think_tags": True}]),
    size=st.integers(1, 3),
)
def test_a_text_that_tells_usage_is_taken_as_any_chunk_is(
    *, pieces: list[tuple[str, str, Any]], ends: list[int], rules: dict[str, Any], size: int
) -> None:
    """USE-3: byte for byte and in the books, behind an end that is taken back as well."""
    events = [chunk({name: text}, usage=told) for name, text, told in pieces]
    for at in ends:
        events.insert(at, chunk({"content": ""}, "stop", usage=figures(9, 0)))
    reads = [b"".join(events[at : at + size]) for at in range(0, len(events), size)] + [corpus.DONE]
    seen = []
    for is_short in (True, False):
        through = corpus.open_pipe(corpus.ask(), answer.Rules(**rules))
        for reader in through._readers:
            # Without runs every chunk goes the long way.
            reader._in_runs = is_short
        out = corpus.outcome(lambda: b"".join(map(through.feed, reads)) + through.eof())  # noqa: B023 - called at once
        seen.append((out, through.account()))
    assert seen[0] == seen[1]


@pytest.mark.parametrize("logprobs", [True, False])
def test_log_probabilities_are_read_only_where_they_were_asked_for(*, logprobs: bool) -> None:
    """PAR-10: kept until their text leaves, here that of a stop that may come."""
    through = corpus.open_pipe(corpus.ask(thinking=False, stream=False), answer.Rules(stops=("There",)))
    terms = failures.Terms(corpus.INPUT_LIMIT, own_key=False)
    read = chunks.Reader(through.answer.choices, through.answer.tally, 0, terms, logprobs=logprobs)
    read.feed([data(chunk({"content": "The"}, logprobs={"content": [{"token": "The", "logprob": -1.0}]}))])
    assert len(through.answer.choices[0].logprobs) == int(logprobs)


UNREADABLE = {
    "not JSON": b"{oops",
    "no object": b"[]",
    "choices that are no list": b'{"choices":{}}',
    "a choice that is no object": b'{"choices":[1]}',
    "a choice that is no object, with usage": b'{"choices":[1],"usage":{"completion_tokens":1}}',
    "an index that is no number": b'{"choices":[{"index":"0"}]}',
    "an index below zero": b'{"choices":[{"index":-1}]}',
    "a delta that is no object": b'{"choices":[{"delta":"x"}]}',
    "half a surrogate pair, and no JSON": rb'{"choices":[{"delta":{"content":"\ud83d"}}]',
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_what_cannot_be_read_ends_the_stream(name: str) -> None:
    """ERR-3."""
    read, _, _ = reader()
    with pytest.raises(faults.Refusal) as refused:
        read.feed([UNREADABLE[name]])
    assert refused.value.fault == faults.UPSTREAM_BROKEN
    assert refused.value.cause.startswith("upstream sent ")


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b" ",
        b"null",
        b"{}",
        b'{"type":"keepalive","sequence_number":3}',
        b'{"choices":null}',
        b'{"choices":null,"usage":null}',
        b'{"usage":{}}',
        b'{"choices":[{}]}',
        b'{"error":null,"choices":[]}',
        b'{"error":"","choices":[{}]}',
        b'{"error":{},"choices":[{}]}',
    ],
)
def test_what_says_nothing_is_read_as_nothing(raw: bytes) -> None:
    """SSE-10."""
    read, (choice,), _ = reader()
    read.feed([raw])
    assert choice.phase is answer.Phase.START


@pytest.mark.parametrize(
    "event",
    [sse.ERROR + b'{"message":"overloaded"}', sse.ERROR + b"server busy", b'{"status":503,"msg":"no"}'],
)
def test_a_failure_in_the_middle_of_a_stream_is_no_silent_end(event: bytes) -> None:
    """ERR-3, SSE-10: without an `error` object, too."""
    read, (choice,), _ = reader()
    with pytest.raises(faults.Refusal) as refused:
        read.feed([data(chunk({"content": "The answer"})), event, b"[DONE]"])
    assert refused.value.fault == faults.OVERLOADED
    assert choice.meter.output == 2


def test_an_error_without_data_is_one() -> None:
    with pytest.raises(faults.Refusal) as refused:
        reader()[0].feed([sse.ERROR])
    assert refused.value.fault == faults.UPSTREAM_BROKEN


@pytest.mark.parametrize("number", [b"1e400", b"9" * 5_000])
def test_a_figure_that_no_double_holds_is_none_and_the_stream_goes_on(number: bytes) -> None:
    """USE-3"""
    said = b'"finish_reason":"stop"}],"usage":{"prompt_tokens":%b,"completion_tokens":7}}' % number
    for take in (
        lambda read: read.feed([b'{"choices":[{"delta":{"content":"The"},' + said]),
        lambda read: read.feed_completion(b'{"choices":[{"message":{"content":"The"},' + said),
    ):
        read, (choice,), tally = reader()
        take(read)
        assert choice.finish_reason is Finish.STOP
        assert tally.latest(0).figures == usage.Figures(output=7)


@pytest.mark.parametrize(("before", "fault"), [(b"", faults.INPUT_MODERATED), (b"x", faults.OUTPUT_MODERATED)])
def test_one_wording_of_moderation_is_about_input_until_there_is_text(before: bytes, fault: faults.Fault) -> None:
    """ERR table; DeepSeek says the same of both."""
    read, _, _ = reader()
    if before:
        read.feed([data(chunk({"content": before.decode()}))])
    with pytest.raises(faults.Refusal) as refused:
        read.feed([b'{"error":{"message":"Content Exists Risk"}}'])
    assert refused.value.fault == fault


@pytest.mark.parametrize(
    ("raw", "what"), [(b"oops", "not JSON"), (b"", "no object"), (b" \n", "no object"), (b"[1]", "no object")]
)
def test_the_log_is_told_what_a_completion_is_that_is_none(raw: bytes, what: str) -> None:
    """ERR-3."""
    with pytest.raises(faults.Refusal) as refused:
        reader()[0].feed_completion(raw)
    assert refused.value.fault == faults.UPSTREAM_BROKEN
    assert refused.value.cause == f"upstream sent a completion that is {what}"


def completion(**message: object) -> bytes:
    return orjson.dumps({"choices": [{"message": message, "finish_reason": "stop"}]})


def test_a_completion_without_usage_is_done_and_tells_no_figure() -> None:
    """USE-3: our count stands."""
    read, (choice,), tally = reader()
    read.feed_completion(completion(content="The answer"))
    assert (read.done, read.over) == (True, True)
    assert choice.meter.output == 2
    assert tally.latest(0).figures == usage.Figures()


def test_a_completion_may_hold_calls_and_no_text() -> None:
    """OUT-5; vLLM's many nulls are nothing."""
    read, (choice,), _ = reader(logprobs=True)
    call = {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    read.feed_completion(completion(content=None, reasoning=None, tool_calls=[call], refusal=None))
    assert [call.name for call in choice.tool_calls()] == ["f"]


@pytest.mark.parametrize("whole", [True, False])
def test_the_older_form_of_a_call_is_delivered_and_counted(whole: bool) -> None:
    """OUT-3, OUT-5: `function_call`, in pieces or at once."""
    read, (choice,), _ = reader()
    if whole:
        read.feed_completion(
            b'{"choices":[{"message":{"content":null,"function_call":{"name":"f","arguments":"{\\"a\\":1}"}},'
            b'"finish_reason":"function_call"}]}'
        )
    else:
        for called in ({"name": "f", "arguments": ""}, {"arguments": '{"a"'}, {"arguments": ":1}"}):
            read.feed([data(chunk({"function_call": called}))])
        read.feed([b'{"choices":[{"index":0,"delta":{},"finish_reason":"function_call"}]}'])
    choice.close()
    assert choice.finish_reason is Finish.TOOL_CALLS
    (call,) = choice.tool_calls()
    assert (call.name, call.arguments) == ("f", '{"a":1}')
    assert call.id
    assert choice.meter.output > 0


def test_a_text_beside_the_older_form_of_a_call_is_no_plain_chunk() -> None:
    """OUT-5"""
    read, (choice,), _ = reader()
    read.feed([data(chunk({"content": "Hi", "function_call": {"name": "f", "arguments": "{}"}}))])
    assert [call.name for call in choice.tool_calls()] == ["f"]


@pytest.mark.parametrize("word", ["null", '""', '"null"', "..."])
def test_a_complete_body_without_a_finish_reason_has_stopped(word: str) -> None:
    """OUT-3: its framing says that it is complete."""
    read, (choice,), _ = reader()
    said = "" if word == "..." else f',"finish_reason":{word}'
    read.feed_completion(b'{"choices":[{"message":{"content":"Hi \\ud83d"}%b}]}' % said.encode())
    choice.close()
    assert choice.finish_reason is Finish.STOP


@pytest.mark.parametrize("raw", [b'{"object":"error","message":"x"}', b'{"code":50508,"message":"x","data":null}'])
def test_a_flat_failure_in_a_success_is_no_silence(raw: bytes) -> None:
    """ERR-3."""
    for take in (lambda read: read.feed([raw]), lambda read: read.feed_completion(raw)):
        with pytest.raises(faults.Refusal) as refused:
            take(reader()[0])
        assert refused.value.fault == faults.UPSTREAM_BROKEN


@pytest.mark.parametrize("later", [False, True], ids=["in one read", "in a later one"])
@pytest.mark.parametrize(
    ("behind", "passed"),
    [
        (chunk({"content": " two"}), True),
        (chunk({"reasoning_content": "hm"}), True),
        (corpus.fragment(0, "{}", name="f"), True),
        (chunk({"content": ""}) + corpus.DONE, False),
        (usage_chunk(figures(9, 1)), False),
        (b'data: []\n\ndata: {"choices":[1,{"delta":2}]}\n\n', False),
        (b"", False),
    ],
)
def test_more_behind_an_end_that_came_with_its_usage_is_noticed_and_not_shown(
    behind: bytes, passed: bool, *, later: bool
) -> None:
    """OUT-3: with its usage an end is the end."""
    through = corpus.open_pipe(corpus.ask())
    wire = chunk({"content": "one"}) + chunk({}, "stop", usage=figures(9, 1))
    stream = through.feed(wire + (b"" if later else behind))
    if later:
        through.pass_by(behind)
    assert through.is_over
    assert b"two" not in stream
    assert through.has_passed_by is passed
    # It is known by now.
    through.pass_by(behind)
    assert through.has_passed_by is passed


def test_what_we_cut_off_ourselves_is_no_more_of_an_answer() -> None:
    through = corpus.open_pipe(corpus.ask(), answer.Rules(parallel_calls=True, stops=("x",)))
    through.feed(chunk({"content": "one x"}) + chunk({"content": " two"}))
    assert through.is_over
    assert not through.has_passed_by
