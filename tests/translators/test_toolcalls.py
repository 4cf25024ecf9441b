"""Fragments become whole calls, their tokens those the model wrote.

Source: spec SSE-7, USE-2; SOURCES#recorded-completions.
"""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import proxy.vocabulary
from translators import dialogue, faults, tokens, toolcalls
from translators.deepseek import prompt
from translators.deepseek.templates import LAYOUTS

Piece = tuple[int | None, str, str, str]


@pytest.fixture
def drafts(vocabulary: tokens.Vocabulary) -> toolcalls.Drafts:
    return toolcalls.Drafts(vocabulary, "call_x", names=["get", "get_weather", "haha", "f", "g"])


def add(drafts: toolcalls.Drafts, *pieces: Piece) -> list[tuple[str, str, str]]:
    for piece in pieces:
        drafts.add(*piece)
    return [(call.id, call.name, call.arguments) for call in drafts.whole()]


MERGES: dict[str, tuple[list[Piece], list[tuple[str, str, str]]]] = {
    "head and tail": ([(0, "a", "f", ""), (0, "", "", "{"), (0, "", "", "}")], [("a", "f", "{}")]),
    "by index": ([(0, "a", "f", ""), (1, "b", "g", ""), (0, "", "", "{}")], [("a", "f", "{}"), ("b", "g", "")]),
    "by id under another index": ([(0, "a", "f", ""), (1, "a", "", "{}")], [("a", "f", "{}")]),
    "a tail under an unknown index": ([(0, "a", "f", ""), (7, "", "", "{}")], [("a", "f", "{}")]),
    "a tail without an index": ([(None, "a", "f", ""), (None, "", "", "{}")], [("a", "f", "{}")]),
    "a tail before any head": ([(0, "", "", "{"), (0, "a", "f", "}")], [("a", "f", "{}")]),
    "another id at the same index": ([(0, "a", "f", "{"), (0, "b", "f", "{}")], [("a", "f", "{"), ("b", "f", "{}")]),
    "another name at the same index": (
        [(0, "", "f", "{"), (0, "", "g", "}")],
        [("call_x_0", "f", "{"), ("call_x_1", "g", "}")],
    ),
    "the same name again, whole": (
        [(0, "", "f", '{"a":1}'), (0, "", "f", '{"a":2}')],
        [("call_x_0", "f", '{"a":1}'), ("call_x_1", "f", '{"a":2}')],
    ),
    "the same id again, whole": ([(0, "f", "f", "{}"), (1, "f", "f", "{}")], [("f", "f", "{}"), ("f", "f", "{}")]),
    "a repetition without arguments": ([(0, "a", "f", "{}"), (0, "a", "f", "")], [("a", "f", "{}")]),
    "a repetition with blanks": ([(0, "a", "f", "{}"), (0, "a", "f", "\n")], [("a", "f", "{}")]),
    "a name in pieces": (
        [(0, "a", "get_", ""), (0, "", "weather", ""), (0, "", "", "{}")],
        [("a", "get_weather", "{}")],
    ),
    "a name in pieces, the id again": ([(0, "a", "get_", ""), (0, "a", "weather", "{}")], [("a", "get_weather", "{}")]),
    "a name whose pieces are alike": ([(0, "a", "ha", ""), (0, "", "ha", "{}")], [("a", "haha", "{}")]),
    "a name that another goes on from, said twice": (
        [(0, "a", "get", ""), (0, "a", "get", "{}")],
        [("a", "get", "{}")],
    ),
    "a name that grows at every fragment": (
        [(0, "a", "get_", ""), (0, "a", "get_weather", "{}")],
        [("a", "get_weather", "{}")],
    ),
    "a name that is whole, and something behind it": (
        [(0, "a", "get_weather", ""), (0, "a", "!", "{}")],
        [("a", "get_weather", "{}")],
    ),
    "a name nobody offers, said twice": ([(0, "a", "no", ""), (0, "a", "no", "{}")], [("a", "no", "{}")]),
    "a name nobody offers, in pieces": ([(0, "a", "no", ""), (0, "a", "body", "{}")], [("a", "nobody", "{}")]),
    "two names of functions at one index": (
        [(0, "", "get", ""), (0, "", "haha", "{}")],
        [("call_x_0", "get", ""), ("call_x_1", "haha", "{}")],
    ),
    "a placeholder": ([(0, "a", "f", "{}"), (0, "", "", ' {"x"'), (0, "", "", ":1}")], [("a", "f", '{"x":1}')]),
    "a placeholder with a blank in it": (
        [(0, "a", "f", "{ }"), (0, "", "", '{"x":1}')],
        [("a", "f", '{"x":1}')],
    ),
    "a placeholder in pieces and lines": (
        [(0, "a", "f", "{"), (0, "", "", "\n"), (0, "", "", " }"), (0, "", "", " "), (0, "", "", '{"x":1}')],
        [("a", "f", '{"x":1}')],
    ),
    "a null for a placeholder": ([(0, "a", "f", "nu"), (0, "", "", 'll {"x":1}')], [("a", "f", '{"x":1}')]),
    "placeholders of every kind": ([(0, "a", "f", '{}null{ }{"x":1}')], [("a", "f", '{"x":1}')]),
    "as many placeholders as are looked at": (
        [(0, "a", "f", "null" * 16), (0, "", "", '{"x":1}')],
        [("a", "f", '{"x":1}')],
    ),
    "and more than these": (
        [(0, "a", "f", "null" * 17), (0, "", "", '{"x":1}')],
        [("a", "f", "null" * 17 + '{"x":1}')],
    ),
    "and more than these, one by one": (
        [(0, "a", "f", "null" * 16), (0, "", "", "null"), (0, "", "", '{"x":1}')],
        [("a", "f", "null" * 17 + '{"x":1}')],
    ),
    "a placeholder alone": ([(0, "a", "f", "{ }"), (0, "", "", "{}"), (0, "", "", "x")], [("a", "f", "{}")]),
    "a name said anew, a little longer": (
        [(0, "a", "ge", ""), (0, "a", "get_wea", ""), (0, "a", "get_weather", "{}")],
        [("a", "get_weather", "{}")],
    ),
    "the same from a name that is another function's": (
        [(0, "a", "get", ""), (0, "a", "get_wea", ""), (0, "a", "get_weather", "{}")],
        [("a", "get_weather", "{}")],
    ),
    "the same, two names of functions and one id": (
        [(0, "a", "get", ""), (0, "", "get_weather", ""), (0, "", "", "{}")],
        [("a", "get_weather", "{}")],
    ),
    "two names of functions, no id": (
        [(0, "", "get", ""), (0, "", "get_weather", "{}")],
        [("call_x_0", "get", ""), ("call_x_1", "get_weather", "{}")],
    ),
    "a longer name that nobody offers": ([(0, "a", "no", ""), (0, "a", "nobody", "{}")], [("a", "nonobody", "{}")]),
    "something behind the end": ([(0, "a", "f", '{"x":1}'), (0, "", "", '{"y":2}')], [("a", "f", '{"x":1}')]),
    "something behind the end, at once": ([(0, "a", "f", '{"x":1}{"y":2}')], [("a", "f", '{"x":1}')]),
    "blanks around it": ([(0, "a", "f", ' \n{"x":1}\n ')], [("a", "f", '{"x":1}')]),
    "an id made anew for each fragment": (
        [(0, "a", "f", ""), (0, "b", "", '{"x"'), (0, "c", "", ":1}")],
        [("a", "f", '{"x":1}')],
    ),
    "an id and then a name, behind a whole call": (
        [(0, "a", "f", "{}"), (0, "b", "", ""), (0, "", "g", "{}")],
        [("a", "f", "{}"), ("b", "g", "{}")],
    ),
    "two calls without arguments, by one id": (
        [(0, "f", "f", ""), (1, "f", "f", "")],
        [("f", "f", ""), ("f", "f", "")],
    ),
    "half a character and the other": (
        [(0, "a", "f", '{"x":"\ud83d'), (0, "", "", '\ude00"}')],
        [("a", "f", '{"x":"😀"}')],
    ),
    "half a character alone": ([(0, "a", "f", '{"x":"\ud83d'), (0, "", "", '"}')], [("a", "f", '{"x":"\ufffd"}')]),
}


@pytest.mark.parametrize("name", MERGES)
def test_fragments_are_merged_by_id_and_index(name: str, drafts: toolcalls.Drafts) -> None:
    pieces, calls = MERGES[name]
    assert add(drafts, *pieces) == calls


@pytest.mark.parametrize(
    ("pieces", "whole"),
    [
        (["{}"], True),
        (['{"a":', '"}"', "}"], True),
        (['{"a":', '"}'], False),
        (["{}", " \n"], True),
        (["1"], False),
        (["[{}", "]"], False),
        ([], False),
        (["{", "}}"], True),
        (["{a}"], False),
        (["{a}", "{}"], False),
    ],
)
def test_a_call_is_whole_when_nothing_can_follow(
    pieces: list[str],
    whole: bool,
    vocabulary: tokens.Vocabulary,
) -> None:
    draft = toolcalls.Draft(vocabulary)
    for piece in pieces:
        draft.add("", "f", piece)
        draft.is_whole()
    assert draft.is_whole() is whole


PARTS = st.lists(
    st.sampled_from(
        [
            *("{}", "{ }", "null", " ", "\n", '{"a":1}', '{"b":"}"}', '{"c":{}}', "x", "[1]", '"', "{", "}"),
            "\ud83d",
            "\ude00",
        ]
    ),
    max_size=6,
).map("".join)


@settings(max_examples=300)
@given(PARTS, st.lists(st.integers(0, 60)))
@example("\ud83d ", [1])
def test_arguments_are_the_same_wherever_they_are_cut(text: str, cuts: list[int]) -> None:
    """OUT-5: whatever they are."""
    vocabulary = proxy.vocabulary.load()
    places = [0, *sorted({cut for cut in cuts if cut < len(text)} - {0}), len(text)]
    found = []
    for pieces in ([text], [text[start:end] for start, end in pairwise(places)]):
        drafts = toolcalls.Drafts(vocabulary, "call_x", names=["f"])
        add(drafts, (0, "a", "f", ""), *((0, "", "", piece) for piece in pieces))
        drafts.close(cut=False)
        found.append(drafts.whole())
    assert found[0] == found[1]


def test_a_call_without_a_name_is_that_of_the_only_function(vocabulary: tokens.Vocabulary) -> None:
    """OUT-5"""
    drafts = toolcalls.Drafts(vocabulary, "call_x", names=["only"])
    add(drafts, (0, "a", "", '{"x":1}'), (1, "b", "", ""))
    drafts.close(cut=False)
    assert [(call.id, call.name, call.arguments) for call in drafts.whole()] == [("a", "only", '{"x":1}')]


@pytest.mark.parametrize("cut", [False, True])
def test_a_call_that_could_be_of_several_functions_is_unreadable(drafts: toolcalls.Drafts, *, cut: bool) -> None:
    """OUT-5: nobody could make it; what a limit cut off before its name is none."""
    add(drafts, (0, "a", "", '{"x":1}'))
    if cut:
        drafts.close(cut=True)
        assert drafts.whole() == ()
    else:
        with pytest.raises(faults.Refusal, match="a tool call without a name"):
            drafts.close(cut=False)


def test_an_id_alone_calls_nothing(drafts: toolcalls.Drafts) -> None:
    add(drafts, (0, "a", "f", "{}"), (1, "b", "", ""))
    drafts.close(cut=False)
    assert [call.id for call in drafts.whole()] == ["a"]


def test_a_fragment_without_a_name_writes_none_and_a_name_behind_arguments_is_said_again(
    vocabulary: tokens.Vocabulary,
) -> None:
    """SSE-7, USE-7."""
    draft = toolcalls.Draft(vocabulary)
    begun = draft.counter.total
    draft.add("a", "", "")
    assert (draft.name, draft.counter.total) == ("", begun)
    draft.add("", "f", "{")
    draft.add("", "g", "}")
    assert (draft.id, draft.name, draft.text) == ("a", "f", "{}")


def test_what_follows_a_whole_call_that_was_shown_is_dropped(vocabulary: tokens.Vocabulary) -> None:
    """SSE-7: no stream goes back."""
    draft = toolcalls.Draft(vocabulary)
    draft.add("a", "f", "{}")
    draft.shown = 1
    draft.add("", "", '{"x":1}')
    assert draft.text == "{}"


@pytest.mark.parametrize(
    ("arguments", "cut", "text"),
    [("", False, "{}"), ("null", False, "{}"), ("", True, ""), ('{"x', True, '{"x'), ("nul", False, "nul")],
)
def test_no_arguments_at_all_are_an_empty_object(
    arguments: str, text: str, drafts: toolcalls.Drafts, *, cut: bool
) -> None:
    """OUT-5: unless the limit cut them off before they began."""
    add(drafts, (0, "a", "f", arguments))
    drafts.close(cut=cut)
    assert [call.arguments for call in drafts.whole()] == [text]


@pytest.mark.parametrize("cut", [False, True])
def test_what_closes_a_call_is_counted_unless_a_limit_cut_it_off(vocabulary: tokens.Vocabulary, *, cut: bool) -> None:
    """USE-7: whatever of its arguments has come."""
    draft = toolcalls.Draft(vocabulary)
    draft.add("a", "f", '{"a": "x')
    begun = draft.counter.total
    draft.close(cut=cut)
    assert (draft.counter.total == begun) is cut


def test_of_calls_cut_off_only_the_last_is_no_call(drafts: toolcalls.Drafts) -> None:
    """OUT-5"""
    add(drafts, (0, "a", "f", ""), (1, "b", "g", "\ud83d"))
    drafts.close(cut=True)
    assert [call.arguments for call in drafts.whole()] == ["{}", "\ufffd"]


def test_more_calls_than_any_answer_has_are_as_unreadable_as_a_broken_chunk(drafts: toolcalls.Drafts) -> None:
    for number in range(1_024):
        drafts.add(number, f"id{number}", "f", "{}")
    with pytest.raises(faults.Refusal) as refusal:
        drafts.add(1_024, "one more", "f", "{}")
    assert refusal.value.fault == faults.UPSTREAM_BROKEN


def test_a_name_without_end_is_unreadable(drafts: toolcalls.Drafts) -> None:
    drafts.add(0, "a", "x" * 1_024, "")
    with pytest.raises(faults.Refusal) as refusal:
        drafts.add(0, "a", "y", "")
    assert refusal.value.fault == faults.UPSTREAM_BROKEN


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("start", "piece"), [*(('{"x":"', piece) for piece in ["}", "\\", "{}", " "]), ("{", " "), ("{}", "{}")]
)
def test_a_call_costs_time_linear_in_its_arguments(start: str, piece: str, drafts: toolcalls.Drafts) -> None:
    """A host that repeats id and name, and fragments that each look like the last."""
    drafts.add(0, "a", "f", start)
    for _ in range(20_000):
        drafts.add(0, *(("a", "f") if len(start) > 2 else ("", "")), piece)
    assert len(drafts.drafts) == 1


LEAVES = st.text(max_size=4) | st.integers() | st.booleans() | st.none()
VALUES = st.recursive(
    LEAVES, lambda inner: st.dictionaries(st.text(max_size=3), inner, max_size=3) | st.lists(inner, max_size=3)
)


@given(VALUES, st.data())
def test_an_object_is_whole_with_its_last_character_and_not_before(value: object, data: st.DataObject) -> None:
    text = json.dumps({"x": value}, ensure_ascii=data.draw(st.booleans()))
    draft = toolcalls.Draft(proxy.vocabulary.load())
    at = 0
    while at < len(text):
        assert not draft.is_whole()
        size = data.draw(st.integers(1, len(text) - at))
        draft.add("", "f", text[at : at + size])
        at += size
    assert draft.is_whole()
    assert draft.text == text


def test_an_id_that_was_shown_stays(drafts: toolcalls.Drafts) -> None:
    """OUT-5: callers pair results by it."""
    add(drafts, (0, "", "f", "{"))
    drafts.drafts[0].shown = 1
    assert add(drafts, (0, "late", "", "}")) == [("call_x_0", "f", "{}")]


def test_a_growing_call_counts_its_opening_its_name_and_what_came_of_its_arguments(drafts: toolcalls.Drafts) -> None:
    """USE-7: the call's head, then its one argument, the value, the close of both."""
    add(drafts, (0, "a", "get_weather", ""))
    begun = drafts.tokens
    add(drafts, (0, "", "", '{"city":"'))
    assert drafts.tokens > begun
    add(drafts, (0, "", "", "Paris"))
    open_call = drafts.tokens
    add(drafts, (0, "", "", '"}'))
    # `</｜DSML｜parameter>\n</｜DSML｜invoke>\n`
    assert drafts.tokens > open_call + 2


def counted(calls: tuple[dialogue.ToolCall, ...], vocabulary: tokens.Vocabulary, *, opened: bool = False) -> int:
    rendered = prompt.markup(calls, "v4", opened=opened)
    return prompt.length(rendered, vocabulary)


@pytest.mark.parametrize("opened", [False, True])
def test_whole_calls_count_as_the_model_wrote_them(*, opened: bool, vocabulary: tokens.Vocabulary) -> None:
    """USE-7: side by side, and without the opening where a forced `tool_choice` has put it into the prompt."""
    drafts = toolcalls.Drafts(vocabulary, "call_x", opened=opened)
    add(drafts, (0, "a", "get_weather", '{"city": "Paris"}'), (1, "b", "get_weather", "{}"))
    assert bool(drafts.lead) is not opened
    lead = tokens.count(drafts.lead, vocabulary)
    close = counted((), vocabulary, opened=True)
    assert drafts.tokens + lead == counted(drafts.whole(), vocabulary, opened=opened) - close
    drafts.close(cut=False)
    assert drafts.tokens + lead == counted(drafts.whole(), vocabulary, opened=opened)


def test_calls_of_older_models_stand_between_special_tokens(vocabulary: tokens.Vocabulary) -> None:
    drafts = toolcalls.Drafts(vocabulary, "call_x", LAYOUTS["v3"].calls)
    add(drafts, (0, "a", "f", '{"a": 1}'), (1, "b", "g", "{}"))
    drafts.close(cut=False)
    assert drafts.lead == ""
    assert drafts.tokens == prompt.length(prompt.markup(drafts.whole(), "v3"), vocabulary)


def test_the_sum_of_all_calls_is_kept_and_not_made_anew(vocabulary: tokens.Vocabulary) -> None:
    """USE-2: a fragment costs the same beside one call and beside a thousand."""
    drafts = toolcalls.Drafts(vocabulary, "call_x")
    for index in range(1_000):
        drafts.add(index, f"id{index}", "f", "{}")
    assert drafts.tokens == sum(draft.counter.total for draft in drafts.drafts) + counted((), vocabulary) - (
        tokens.count(drafts.lead, vocabulary) + counted((), vocabulary, opened=True)
    )


def test_calls_come_out_in_the_neutral_vocabulary(drafts: toolcalls.Drafts) -> None:
    drafts.add(0, "a", "f", "{}")
    assert drafts.whole() == (dialogue.ToolCall("a", "f", "{}"),)


def test_arguments_without_end_are_no_answer(drafts: toolcalls.Drafts, monkeypatch: pytest.MonkeyPatch) -> None:
    """REQ-11: what is kept of an answer is bounded, over all of its calls."""
    monkeypatch.setattr(toolcalls, "MOST_CHARS", 100)
    drafts.add(0, "a", "f", '{"a": "' + "b" * 50)
    with pytest.raises(faults.Refusal, match="without end"):
        drafts.add(1, "b", "f", '{"a": "' + "b" * 50)
