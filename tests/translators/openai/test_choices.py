"""What a chunk and a completion share is read the same, and nothing unknown passes (spec OUT-2, OUT-3, OUT-6)."""

from __future__ import annotations

import pytest

from tests import corpus
from translators import choice as answer
from translators import dialogue, faults
from translators.openai import choices


@pytest.fixture
def choice() -> answer.Choice:
    return corpus.open_pipe(corpus.ask(logprobs=True)).answer.choices[0]


@pytest.mark.parametrize(
    ("word", "finish"),
    [
        ("stop", dialogue.Finish.STOP),
        ("eos", dialogue.Finish.STOP),
        ("length", dialogue.Finish.LENGTH),
        ("tool_calls", dialogue.Finish.TOOL_CALLS),
        ("function_call", dialogue.Finish.TOOL_CALLS),
    ],
)
def test_a_regular_end_is_one_of_three(word: str, finish: dialogue.Finish) -> None:
    """OUT-2."""
    assert choices.finish_of(word) is finish


@pytest.mark.parametrize(
    ("word", "fault"),
    [
        ("content_filter", faults.OUTPUT_MODERATED),
        ("insufficient_system_resource", faults.OVERLOADED),
        ("aborted", faults.UPSTREAM_BROKEN),
        ("abort", faults.UPSTREAM_BROKEN),
        ("error", faults.UPSTREAM_BROKEN),
        ("anything else", faults.UPSTREAM_BROKEN),
        (["stop"], faults.UPSTREAM_BROKEN),
        (0, faults.UPSTREAM_BROKEN),
    ],
)
def test_any_other_end_is_an_error_never_a_silent_stop(word: object, fault: faults.Fault) -> None:
    """OUT-3."""
    with pytest.raises(faults.Refusal) as refused:
        choices.finish_of(word)
    assert refused.value.fault == fault


@pytest.mark.parametrize("word", [None, "", "null"])
def test_an_answer_that_has_not_ended_says_so_in_several_ways(word: object) -> None:
    """OUT-3: SGLang of 2025, KoboldCpp."""
    assert choices.finish_of(word) is None


@pytest.mark.parametrize(
    ("part", "reasoning"),
    [
        ({"reasoning_content": "a", "reasoning": "a"}, "a"),
        ({"reasoning": "a"}, "a"),
        ({"reasoning_content": "", "reasoning": "a"}, "a"),
        ({"reasoning_content": None, "reasoning": None}, ""),
        ({}, ""),
    ],
)
def test_both_names_of_a_chain_are_one_thing(part: dict[str, object], reasoning: str) -> None:
    """SSE-6."""
    assert choices.reasoning_of(part) == reasoning


def entry(token: str, **more: object) -> dialogue.Json:
    return {"token": token, "logprob": -1.0, **more}


def kept(choice: answer.Choice) -> list[str]:
    return [found["token"] for found in choice.logprobs]


def test_an_entry_keeps_the_four_fields_callers_know(choice: answer.Choice) -> None:
    """OUT-6: bytes that upstream leaves out are those of the token."""
    tops = [entry("Ja", bytes=[1], rank=1), "no entry", entry("你")]
    choices.take_logprobs(choice, {"content": "Ja"}, {"content": [entry("Ja", top_logprobs=tops, id=7), 5]})
    assert choice.logprobs == [
        {
            "token": "Ja",
            "bytes": [74, 97],
            "logprob": -1.0,
            "top_logprobs": [
                {"token": "Ja", "bytes": [1], "logprob": -1.0},
                {"token": "你", "bytes": [228, 189, 160], "logprob": -1.0},
            ],
        }
    ]


@pytest.mark.parametrize("logprobs", [None, [], {}, {"content": None}, {"content": "x"}])
def test_no_entries_are_none(logprobs: object, choice: answer.Choice) -> None:
    choices.take_logprobs(choice, {"content": "a"}, logprobs)
    assert choice.logprobs == []


PARTS: dict[str, tuple[dict[str, object], list[str]]] = {
    "text": ({"content": "bc"}, ["a", "b", "c"]),
    "a chain": ({"reasoning": "abc"}, []),
    "a chain and an answer": ({"reasoning": "a", "content": "bc"}, ["b", "c"]),
    "calls": ({"tool_calls": [{}], "content": "bc"}, []),
    "nothing, before the answer": ({}, []),
}


@pytest.mark.parametrize("name", PARTS)
def test_entries_of_anything_but_the_answer_are_dropped(name: str, choice: answer.Choice) -> None:
    """PAR-10."""
    part, expected = PARTS[name]
    choices.take_logprobs(choice, part, {"content": [entry("a"), entry("b"), entry("c")]})
    assert kept(choice) == expected


def test_the_first_token_of_a_character_has_no_text_and_is_kept(choice: answer.Choice) -> None:
    """OUT-6: vLLM sends an empty delta for it."""
    choice.say("a")
    choices.take_logprobs(choice, {"content": ""}, {"content": [entry("\ufffd", bytes=[228])]})
    assert kept(choice) == ["\ufffd"]


def test_an_empty_fragment_of_a_call_is_no_call(choice: answer.Choice) -> None:
    """SSE-10."""
    choices.take_calls(choice, [{}, {"index": 0, "id": "", "function": {"arguments": ""}}, {"function": None}])
    assert choice.tool_calls() == ()
    assert choice.phase is answer.Phase.START


@pytest.mark.parametrize(
    ("part", "calls"),
    [
        ({"function_call": {"name": "f"}}, [{"index": 0, "function": {"name": "f"}}]),
        ({"function_call": {"name": "f"}, "tool_calls": [{"id": "a"}]}, [{"id": "a"}]),
        ({"function_call": None, "tool_calls": []}, None),
        ({}, None),
    ],
)
def test_the_older_form_of_a_call_is_one_call(part: dict[str, object], calls: object) -> None:
    """OUT-3: no answer that is empty and has stopped."""
    assert choices.calls_of(part) == calls


def test_an_older_call_of_another_shape_ends_the_answer() -> None:
    """ERR-3."""
    with pytest.raises(faults.Refusal) as refused:
        choices.calls_of({"function_call": "f"})
    assert refused.value.fault == faults.UPSTREAM_BROKEN


@pytest.mark.parametrize("calls", ["x", {}, [1], [{"id": 5}], [{"function": {"name": 5}}]])
def test_calls_of_another_shape_end_the_answer(calls: object, choice: answer.Choice) -> None:
    """ERR-3."""
    with pytest.raises(faults.Refusal) as refused:
        choices.take_calls(choice, calls)
    assert refused.value.fault == faults.UPSTREAM_BROKEN


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"location": "杭州"}, '{"location":"杭州"}'),
        ({}, "{}"),
        ({"a": "\ud83d"}, '{"a":"\ufffd"}'),
        ([1], "[1]"),
    ],
)
def test_parsed_arguments_are_written_out(arguments: object, text: str, choice: answer.Choice) -> None:
    """OUT-5: llama.cpp of spring 2026."""
    choices.take_calls(choice, [{"index": 0, "id": "a", "function": {"name": "f", "arguments": arguments}}])
    assert [call.arguments for call in choice.tool_calls()] == [text]


def test_arguments_too_deep_to_be_written_end_the_answer(choice: answer.Choice) -> None:
    """ERR-3."""
    deep: object = "\ud83d"
    for _ in range(500):
        deep = [deep]
    with pytest.raises(faults.Refusal) as refused:
        choices.take_calls(choice, [{"index": 0, "id": "a", "function": {"name": "f", "arguments": deep}}])
    assert refused.value.fault == faults.UPSTREAM_BROKEN


def test_half_a_character_in_a_token_or_a_name_is_replaced(choice: answer.Choice) -> None:
    """SSE-10: these are never continued."""
    choices.take_logprobs(choice, {"content": "\ud83d"}, {"content": [entry("\ud83d")]})
    choices.take_calls(choice, [{"index": 0, "id": "\ude00", "function": {"name": "f\ud83d", "arguments": "{}"}}])
    assert kept(choice) == ["\ufffd"]
    assert [(call.id, call.name) for call in choice.tool_calls()] == [("\ufffd", "f\ufffd")]
