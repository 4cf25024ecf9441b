"""Fragments become whole calls, their tokens those the model wrote (spec SSE-7, USE-2; tokenizer.md §4.3)."""

from __future__ import annotations

import pytest

from translators import dialogue, tokens, toolcalls

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


def test_a_growing_call_counts_its_frame_its_name_and_its_json(drafts: toolcalls.Drafts) -> None:
    """25 for the first call, 3 for "get_weather", 3 for `{"city":"`, 1 for "Paris", 1 for `"}`."""
    add(drafts, (0, "a", "get_weather", '{"city":"'))
    assert drafts.tokens() == 25 + 3 + 3
    add(drafts, (0, "", "", 'Paris"}'))
    assert drafts.tokens() == 25 + 3 + 5


def test_whole_calls_count_as_the_model_wrote_them(drafts: toolcalls.Drafts) -> None:
    """12 for a second call, 14 for an argument: keys and values bare, strings without quotes, other values as JSON."""
    add(drafts, (0, "a", "get_weather", '{"city":"Paris"}'), (1, "b", "get_weather", '{"city":42,"Rome":"1"}'))
    assert drafts.tokens_whole() == 25 + 12 + (3 + 14 + 1 + 1) + (3 + 14 + 1 + 1 + 14 + 1 + 1)


@pytest.mark.parametrize("arguments", ['{"city', "42"])
def test_arguments_that_are_no_object_count_as_they_are(arguments: str, drafts: toolcalls.Drafts) -> None:
    add(drafts, (0, "a", "get_weather", arguments))
    assert drafts.tokens_whole() == drafts.tokens()


def test_calls_come_out_in_the_neutral_vocabulary(drafts: toolcalls.Drafts) -> None:
    drafts.add(0, "a", "f", "{}")
    assert drafts.whole() == (dialogue.ToolCall("a", "f", "{}"),)
