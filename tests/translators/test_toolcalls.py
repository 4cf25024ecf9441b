"""Fragments become whole calls, their tokens those the model wrote (spec SSE-7, USE-2; tokenizer.md §4.3)."""

from __future__ import annotations

import pytest

from translators import dialogue, tokens, toolcalls
from translators.deepseek import prompt
from translators.deepseek.templates import LAYOUTS

Piece = tuple[int | None, str, str, str]


@pytest.fixture
def drafts(vocabulary: tokens.Vocabulary) -> toolcalls.Drafts:
    return toolcalls.Drafts(vocabulary, "call_x")


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
    "a repetition with blanks": ([(0, "a", "f", "{}"), (0, "a", "f", "\n")], [("a", "f", "{}\n")]),
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
        (["{", "}}"], False),
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


def test_what_follows_a_closed_call_is_dropped(vocabulary: tokens.Vocabulary) -> None:
    """SSE-7: a later call has been shown, and no stream goes back."""
    draft = toolcalls.Draft(vocabulary)
    draft.add("a", "f", "{}")
    draft.closed = True
    draft.add("", "", "\n")
    assert draft.text == "{}"


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
    drafts.end()
    assert drafts.tokens + lead == counted(drafts.whole(), vocabulary, opened=opened)


def test_calls_of_older_models_stand_between_special_tokens(vocabulary: tokens.Vocabulary) -> None:
    drafts = toolcalls.Drafts(vocabulary, "call_x", LAYOUTS["v3"].calls)
    add(drafts, (0, "a", "f", '{"a": 1}'), (1, "b", "g", "{}"))
    drafts.end()
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
