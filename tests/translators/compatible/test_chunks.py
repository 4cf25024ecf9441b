"""Chunks and completions byte for byte, and what the books are told of them (spec COM-12 to COM-26, COM-31)."""

from __future__ import annotations

import gc
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import corpus
from tests.corpus import chunk, figures, fragment, usage_chunk
from translators import choice as answer
from translators import dialogue, faults, pipe
from translators.compatible import chunks, tongue
from translators.compatible.call import Form
from translators.dashscope import tongue as dashscope
from translators.dialogue import Json
from translators.usage import Meter

AT_S = 1_795_872_537.9
# As this tongue's calls have them.
RULES = answer.Rules(parallel_calls=True, calls_in_pieces=True)


def ask(model: dialogue.Model = corpus.NEVER, form: Form | None = None, **fields: Any) -> dialogue.Call:
    return corpus.ask(model, form=form or Form(model.id), **fields)


def opened(call: dialogue.Call, rules: answer.Rules | None = None, **terms: Any) -> pipe.Pipe:
    return corpus.open_pipe(call, rules or RULES, spoken=tongue, at_s=AT_S, **terms)


def events(stream: bytes) -> list[Json]:
    """The JSON of every event; `[DONE]` is none."""
    blocks = [block for block in stream.split(b"\n\n") if block]
    assert all(block.startswith(b"data: ") and b"\n" not in block for block in blocks)
    return [orjson.loads(block[6:]) for block in blocks if block != b"data: [DONE]"]


KEYS = ["choices", "object", "usage", "created", "system_fingerprint", "model", "id"]


def read(stream: bytes, *, running: bool) -> corpus.Report:
    """What a client has read of a stream of one choice; an assertion that it was said as COM-15 to COM-22 have it."""
    *shown, last = events(stream)
    is_whole = "error" not in last
    assert stream.endswith(b"data: [DONE]\n\n") is is_whole
    report = corpus.Report()
    if is_whole:
        assert [*last] == KEYS
        assert last["choices"] == []
        report.usage = last["usage"]
    for number, event in enumerate(shown):
        assert [*event] == KEYS
        assert (event["usage"] is not None) is running
        (choice,) = event["choices"]
        assert [*choice] == ["delta", "finish_reason", "index", "logprobs"]
        delta = choice["delta"]
        text, chain, calls = delta["content"], delta.get("reasoning_content"), delta.get("tool_calls", [])
        assert ("role" in delta) is (number == 0)
        assert bool(text) + bool(chain) + len(calls) == 1 or number == 0 or choice["finish_reason"] or running
        assert not chain or (text is None and not report.content)
        report.content += text or ""
        report.reasoning += chain or ""
        for call in calls:
            function, is_new = call["function"], call["index"] == len(report.calls)
            assert (bool(call["id"]), "name" in function, call["type"]) == (is_new, is_new, "function")
            if is_new:
                report.calls.append((call["id"], function["name"], ""))
            # In their order, never interleaved.
            assert call["index"] == len(report.calls) - 1
            call_id, name, arguments = report.calls.pop()
            report.calls.append((call_id, name, arguments + function["arguments"]))
        if choice["finish_reason"] is not None:
            assert number == len(shown) - 1
            assert text == ""
            report.finish = choice["finish_reason"]
    return report


@pytest.mark.parametrize("running", [False, True], ids=["usage at the end", "usage on every chunk"])
@pytest.mark.parametrize("name", corpus.SHAPES)
def test_every_upstream_stream_says_here_what_it_says_on_the_native_surface(name: str, *, running: bool) -> None:
    """COM-11, COM-15 to COM-22, COM-26: however it is cut."""
    shape = corpus.SHAPES[name]
    call = ask(corpus.HYBRID, Form("m", usage=True, running_usage=running))
    rules = shape.rules._replace(calls_in_pieces=True)

    def streamed(cut: int) -> bytes | faults.Fault:
        return corpus.outcome(lambda: corpus.drive(opened(call, rules), shape.wire, cut))

    stream = streamed(1 << 20)
    assert streamed(7 if len(shape.wire) < 1 << 16 else 4096) == stream
    if not isinstance(stream, bytes):
        assert stream == shape.fault
        assert not shape.content
        return
    report = read(stream, running=running)
    if shape.fault is not None:
        assert orjson.loads(tongue.failure(shape.fault, corpus.REQUEST_ID)) == events(stream)[-1]
        assert report.content == shape.content
        return
    native = corpus.fold(corpus.drive(corpus.open_pipe(corpus.ask(), rules), shape.wire))
    assert (report.content, report.reasoning, report.calls, report.finish) == (
        *(native.content, native.reasoning, native.calls, native.finish),
    )
    used = report.usage
    assert [used[name] for name in ("prompt_tokens", "completion_tokens", "total_tokens")] == [
        native.usage[name] for name in ("input_tokens", "output_tokens", "total_tokens")
    ]
    chain = native.usage["output_tokens_details"]["reasoning_tokens"]
    assert used["completion_tokens_details"] == {"reasoning_tokens": chain}
    reply = orjson.loads(corpus.drive(opened(call._replace(stream=False), rules), shape.wire))
    (choice,) = reply["choices"]
    message = choice["message"]
    assert (message["content"], message["reasoning_content"]) == (shape.content, shape.reasoning)
    calls = [
        (one["id"], one["function"]["name"], one["function"]["arguments"]) for one in message.get("tool_calls", [])
    ]
    assert calls == report.calls
    assert (choice["finish_reason"], reply["usage"]) == (shape.finish, used)


def test_an_event_is_exactly_this() -> None:
    """COM-15 to COM-17: one space, compact, raw UTF-8; the first chunk leaves with the next."""
    assert opened(ask()).feed(chunk({"content": "你好"})).decode() == (
        'data: {"choices":[{"delta":{"content":"","role":"assistant"},"finish_reason":null,"index":0,"logprobs":null}],'
        '"object":"chat.completion.chunk","usage":null,"created":1795872537,"system_fingerprint":null,'
        f'"model":"deepseek-v3","id":"chatcmpl-{corpus.REQUEST_ID}"}}\n\n'
        'data: {"choices":[{"delta":{"content":"你好"},"finish_reason":null,"index":0,"logprobs":null}],'
        '"object":"chat.completion.chunk","usage":null,"created":1795872537,"system_fingerprint":null,'
        f'"model":"deepseek-v3","id":"chatcmpl-{corpus.REQUEST_ID}"}}\n\n'
    )


@given(
    st.lists(st.text(min_size=1), min_size=1),
    st.sampled_from([corpus.NEVER, corpus.HYBRID]),
    st.sampled_from(["deepseek-v3", '"%b\\/deepseek-v3', chunks.MARK + "/deepseek-v3"]),
    st.booleans(),
)
def test_spliced_chunks_are_what_serialising_them_whole_would_give(
    texts: list[str],
    model: dialogue.Model,
    name: str,
    running: bool,
) -> None:
    """COM-18, COM-34: whatever the text and the model's name."""
    through = opened(ask(model, Form(name, running, running)))
    reasoning = "".join(texts) if model is corpus.HYBRID else ""
    stream = b"".join(through.feed(chunk({"reasoning_content": text})) for text in texts if reasoning)
    stream += b"".join(through.feed(chunk({"content": text})) for text in texts)
    shown = events(stream)
    deltas = [event["choices"][0]["delta"] for event in shown]
    assert "".join(delta["content"] or "" for delta in deltas) == "".join(texts)
    assert "".join(delta.get("reasoning_content") or "" for delta in deltas) == reasoning
    assert {event["model"] for event in shown} == {name}
    assert all(orjson.dumps(event) == block[6:] for event, block in zip(shown, stream.split(b"\n\n"), strict=False))


def test_a_completion_has_each_call_of_its_answer_whole() -> None:
    """COM-13: the pieces put together, each with its place."""
    wire = fragment(0, '{"a"', id="c", name="f") + fragment(0, ":1}") + fragment(1, "{}", id="d", name="g")
    reply = orjson.loads(corpus.drive(opened(ask(stream=False)), wire + chunk({}, "tool_calls") + corpus.DONE))
    (choice,) = reply["choices"]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["tool_calls"] == [
        {"function": {"arguments": '{"a":1}', "name": "f"}, "id": "c", "index": 0, "type": "function"},
        {"function": {"arguments": "{}", "name": "g"}, "id": "d", "index": 1, "type": "function"},
    ]


def test_a_chain_that_nobody_expected_is_shown_all_the_same() -> None:
    """COM-13, COM-14, COM-18: from its first chunk on, and counted."""
    wire = chunk({"content": ""}) + chunk({"reasoning": "We"}) + chunk({"content": "The"}) + chunk({}, "stop")
    out = corpus.drive(opened(ask(form=Form("x", usage=True)), chain_end=0), wire + corpus.DONE)
    assert [event["choices"][0]["delta"] for event in events(out)[:-1]] == [
        {"content": None, "role": "assistant", "reasoning_content": ""},
        {"content": None, "reasoning_content": "We"},
        {"content": "The", "reasoning_content": None},
        {"content": "", "reasoning_content": None},
    ]
    assert events(out)[-1]["usage"]["completion_tokens_details"] == {"reasoning_tokens": 1}
    reply = orjson.loads(corpus.drive(opened(ask(stream=False), chain_end=0), wire))
    assert reply["choices"][0]["message"] == {"content": "The", "reasoning_content": "We", "role": "assistant"}


def test_a_chain_behind_another_choices_text_renews_what_was_made() -> None:
    """COM-18 with n = 2: forms made without a side for the chain are gone."""
    through = opened(ask(n=2))
    deltas = [
        event["choices"][0]["delta"]
        for wire in (chunk({"content": "a"}), chunk({"reasoning": "b"}, index=1), chunk({"content": "c"}))
        for event in events(through.feed(wire))
    ]
    assert deltas[1] == {"content": "a"}
    assert deltas[-1] == {"content": "c", "reasoning_content": None}


def test_an_answer_without_a_word_still_begins_and_ends() -> None:
    """COM-17, COM-20."""
    shown = events(corpus.drive(opened(ask()), chunk({}, "stop") + corpus.DONE))
    assert [event["choices"][0]["delta"] for event in shown] == [{"content": "", "role": "assistant"}, {"content": ""}]
    assert [event["choices"][0]["finish_reason"] for event in shown] == [None, "stop"]


def test_text_that_is_held_until_the_end_leaves_before_it() -> None:
    """COM-20: a stop that never came whole."""
    call = ask(stops=("answer",))
    wire = chunk({"content": "The ans"}) + chunk({}, "stop") + corpus.DONE
    shown = events(corpus.drive(opened(call, answer.Rules(stops=call.stops)), wire))
    assert [event["choices"][0]["delta"]["content"] for event in shown] == ["", "The ", "ans", ""]
    assert [event["choices"][0]["finish_reason"] for event in shown] == [None, None, None, "stop"]


def test_log_probabilities_that_belong_to_no_text_leave_with_the_end() -> None:
    """COM-23, OUT-6; where none was asked for, none is shown."""
    entry = {"token": "", "bytes": [], "logprob": -1.0, "top_logprobs": []}
    wire = chunk({"content": "a"}, logprobs={"content": [{"token": "a", "logprob": -0.5}]})
    wire += chunk({"content": ""}, "stop", logprobs={"content": [entry]}) + corpus.DONE
    shown = [event["choices"][0]["logprobs"] for event in events(corpus.drive(opened(ask(logprobs=True)), wire))]
    assert [found and [one["token"] for one in found["content"]] for found in shown] == [None, ["a"], [""]]
    shown = [event["choices"][0]["logprobs"] for event in events(corpus.drive(opened(ask()), wire))]
    assert shown == [None, None, None]


def test_cached_tokens_are_told_where_upstream_tells() -> None:
    """COM-14."""
    wire = chunk({"content": "a"}) + chunk({}, "stop") + usage_chunk(figures(9, 1, prompt_cache_hit_tokens=4))
    out = events(corpus.drive(opened(ask(form=Form("x", usage=True))), wire + corpus.DONE))
    assert out[-1]["choices"] == []
    assert out[-1]["usage"] == {
        "prompt_tokens": 9,
        "completion_tokens": 1,
        "total_tokens": 10,
        "prompt_tokens_details": {"cached_tokens": 4},
    }


def test_usage_on_every_chunk_never_falls() -> None:
    """COM-22."""
    wire = b"".join(chunk({"content": text}) for text in ("The", " ans", "wer", " is", " 42"))
    wire += fragment(0, '{"a"', id="c", name="f") + fragment(0, ":1}") + chunk({}, "tool_calls")
    through = opened(ask(form=Form("x", usage=True, running_usage=True)))
    told = [event["usage"]["completion_tokens"] for event in events(corpus.drive(through, wire + corpus.DONE))]
    assert told == sorted(told)
    assert told[0] == 0
    assert told[1] > 0


@pytest.mark.parametrize(("running", "chunks_said"), [(True, 2), (False, 0)])
def test_a_call_that_waits_for_another_is_told_by_its_usage_alone(*, running: bool, chunks_said: int) -> None:
    """COM-18, COM-22: where every chunk tells usage there is one to be told; else there is nothing to say."""
    through = opened(ask(form=Form("x", running, running)))
    through.feed(fragment(0, '{"a', id="c", name="f"))
    through.feed(fragment(1, '{"city":"a rather long name of one"}', id="d", name="g"))
    shown = events(through.progress() + through.progress())
    assert len(shown) == chunks_said
    assert all(event["choices"][0]["delta"] == {"content": ""} for event in shown)


class TestBooks:
    """COM-31: the books are told what a usage chunk would say, whether or not the caller asked for one."""

    WIRE = (
        *(chunk({"reasoning_content": text}) for text in ("We ", "think", " a lot.")),
        *(chunk({"content": text}) for text in ("你", "好", "，世界")),
        fragment(0, '{"city"', id="c1", name="get_weather"),
        fragment(0, ':"Par'),
        fragment(0, 'is"}'),
        chunk({}, "tool_calls"),
        usage_chunk(figures(70, 40, 9, prompt_cache_hit_tokens=64)),
        corpus.DONE,
    )

    @pytest.mark.parametrize("form", [Form("x"), Form("x", usage=True), Form("x", True, True)])
    @pytest.mark.parametrize("left_after", range(len(WIRE) + 1))
    def test_whoever_leaves_at_the_same_place_is_told_the_same(self, left_after: int, form: Form) -> None:
        accounts = []
        native = corpus.open_pipe(corpus.ask(corpus.HYBRID), RULES, spoken=dashscope)
        for through in (native, opened(ask(corpus.HYBRID, form))):
            for wire in self.WIRE[:left_after]:
                if through.feed(wire):
                    through.hand_over()
            found = through.account()
            accounts.append((found.delivered, found.generated, found.basis, found.drift, found.finish_reasons))
        assert accounts[0] == accounts[1]

    def test_what_lies_in_our_own_buffer_was_not_handed_over(self) -> None:
        through = opened(ask())
        through.feed(chunk({"content": "a"}))
        mark = through.mark()
        through.feed(chunk({"content": " b c d"}))
        through.hand_over_to(mark)
        found = through.account()
        assert found.packets == 2
        assert found.delivered == dialogue.Usage(corpus.PROMPT_TOKENS, 1)

    @pytest.mark.parametrize("prompts", [(1_000, 1_001), (1_001, 1_000)])
    def test_of_several_prompts_it_is_the_longest(self, prompts: tuple[int, int]) -> None:
        """OUT-7: upstream calls of one fan-out may tell different ones; one figure is billed."""
        through = opened(ask(n=2), legs=2)
        for leg, prompt in enumerate(prompts):
            through.feed(chunk({"content": "Yes"}, usage=figures(prompt, 1)), leg)
        through.hand_over()
        assert through.account().delivered == dialogue.Usage(1_001, 2)

    def test_a_caller_who_was_handed_nothing_was_told_nothing(self) -> None:
        assert opened(ask()).account().delivered is None

    def test_a_reply_is_one(self) -> None:
        through = opened(ask(stream=False))
        corpus.drive(through, chunk({"content": "a"}) + chunk({}, "stop") + corpus.DONE)
        through.hand_over()
        assert through.account().packets == 1
        assert through.account().delivered == dialogue.Usage(corpus.PROMPT_TOKENS, 1)


def test_a_fault_before_the_first_chunk_is_raised_and_after_it_is_an_event_without_done() -> None:
    """COM-26."""
    through = opened(ask())
    with pytest.raises(faults.Refusal):
        through.fail(faults.Refusal(faults.TIMED_OUT))
    through.feed(chunk({"content": "a"}))
    assert through.fail(faults.Refusal(faults.TIMED_OUT)) == (
        b'data: {"error":{"message":"Request timed out, please try again later.","type":"RequestTimeOut","param":null,'
        b'"code":"RequestTimeOut"},"id":"chatcmpl-%b","request_id":"%b"}\n\n'
        % (corpus.REQUEST_ID.encode(), corpus.REQUEST_ID.encode())
    )


def test_a_failed_reply_is_the_failure() -> None:
    layout = chunks.Layout(ask(), pipe.Tally(), "r", 1)
    assert layout.error(faults.TIMED_OUT) == tongue.failure(faults.TIMED_OUT, "r")


@pytest.mark.parametrize("form", [Form("x"), Form("x", True, True)])
def test_of_chunks_that_have_left_nothing_is_kept(form: Form) -> None:
    """REQ-11."""
    through = opened(ask(form=form))
    through.feed(chunk({"content": "a"}) + chunk({"content": " b"}))
    assert (through._writer.kept_bytes, through._writer.repeats) == (0, False)


def test_nothing_to_take_is_no_bytes() -> None:
    assert opened(ask()).feed(b": keep-alive\n\n") == b""


WORDS = st.lists(st.lists(st.text(min_size=1, max_size=9), min_size=1, max_size=4), min_size=1, max_size=6)


@given(WORDS, WORDS, st.integers(0, 20), st.booleans())
def test_whoever_leaves_is_billed_alike_however_the_text_was_read(
    chain: list[list[str]], text: list[list[str]], left_after: int, ends: bool
) -> None:
    """COM-31, COM-34, MET-3: what is copied and counted behind the stream, as what is counted piece by piece."""
    reads = [b"".join(chunk({"reasoning_content": piece}) for piece in read) for read in chain]
    reads += [b"".join(chunk({"content": piece}) for piece in read) for read in text]
    if ends:
        reads += [chunk({"content": ""}, "stop"), usage_chunk(figures(7, 99, 3)), corpus.DONE]
    call = ask(corpus.HYBRID, thinking=True)
    together, apart, native = opened(call), opened(call), corpus.open_pipe(call._replace(form=None), RULES)
    for number, read in enumerate(reads):
        out = together.feed(read), b"".join(apart.feed(read[at : at + 1]) for at in range(len(read)))
        assert out[0] == out[1]
        native.feed(read)
        if number < left_after:
            for through in (together, apart, native):
                through.hand_over()
    accounts = together.account(), apart.account(), native.account()
    assert accounts[0] == accounts[1]
    for name in ("delivered", "generated", "basis", "drift", "finish_reasons", "spent"):
        assert getattr(accounts[0], name) == getattr(accounts[2], name), name


def test_escapes_leave_as_upstream_wrote_them_but_for_those_of_characters() -> None:
    """COM-15, COM-34: the JSON is raw UTF-8; `\\u` goes the slow way, and halves of a pair are joined there."""
    through = opened(ask(form=Form("x")))
    event = chunk({"content": "@"}).replace
    through.feed(event(b"@", b"a"))
    through.feed(event(b"@", b"b"))
    assert b'{"content":"a\\/\\n\xe6\xb5\xb7"}' in through.feed(event(b"@", b"a\\/\\n\xe6\xb5\xb7"))
    assert '{"content":"海"}'.encode() in through.feed(event(b"@", b"\\u6d77"))
    assert through.feed(event(b"@", b"\\ud83d")) == b""
    assert '{"content":"😀"}'.encode() in through.feed(event(b"@", b"\\ude00"))
    assert '{"content":"海"}'.encode() in through.feed(event(b"@", "海".encode()))


@pytest.mark.parametrize("ends", [True, False])
def test_nothing_of_a_stream_that_is_over_waits_for_a_collection(*, ends: bool) -> None:
    """Thousands of them would, between two of the collector's looks."""
    gc.collect()
    gc.disable()
    try:
        through = opened(ask())
        for _ in range(4):
            through.feed(chunk({"content": "sea"}) + chunk({"content": " is"}))
            through.hand_over()
        if ends:
            through.feed(chunk({"content": ""}, "stop") + usage_chunk(figures(7, 9)) + corpus.DONE)
        through.account()
        del through
        assert gc.collect() == 0
    finally:
        gc.enable()


@pytest.mark.parametrize("usage", ["beside the end", "behind it"])
def test_an_answer_whose_length_upstream_tells_is_not_counted(monkeypatch: pytest.MonkeyPatch, usage: str) -> None:
    """COM-34: nothing of it is shorter than a slice, nobody left, and the bill is upstream's."""

    def count(_: Meter) -> None:
        raise AssertionError("it was counted")

    told = figures(7, 9)
    through = opened(ask(form=Form("x", usage=True)))
    through.feed(chunk({"content": "The"}))
    monkeypatch.setattr(Meter, "settle", count)
    for _ in range(9):
        through.feed(chunk({"content": " sea"}) * 3)
        through.hand_over()
    # Reads that end and begin within an event, one with other line ends; and the last words come with the end.
    cut = chunk({"content": " sea"}) * 3
    for read in (cut[:-9], cut[-9:] + cut, cut.replace(b"\n", b"\r\n")):
        assert through.feed(read)
    if usage == "behind it":
        end = chunk({"content": ""}, "stop") + usage_chunk(told)
    else:
        end = chunk({"content": ""}, "stop", usage=told)
    assert events(through.feed(cut + end + corpus.DONE))[-1]["usage"]["completion_tokens"] == 9
    through.hand_over()
    account = through.account()
    assert account.delivered == account.generated == dialogue.Usage(7, 9, None, None)
    assert account.basis == "upstream_final"


def test_a_stop_ends_an_answer_within_a_read() -> None:
    """PAR-9: what follows in it, and after it, is not read."""
    call = ask(stops=("answer",))
    through = opened(call, answer.Rules(stops=call.stops))
    through.feed(chunk({"content": "The"}) + chunk({"content": " sea"}))
    out = through.feed(chunk({"content": " is"}) + chunk({"content": " answer"}) + chunk({"content": " 42"}))
    assert [event["choices"][0]["delta"].get("content") for event in events(out)] == ["a is", " ", ""]
    assert out.endswith(b"data: [DONE]\n\n")
    assert through.was_cut()
    assert through.feed(chunk({"content": " 43"})) == b""
