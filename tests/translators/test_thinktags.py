"""A chain left inside the content is split off, however its tags are cut (spec SSE-6; SOURCES#stream-pitfalls)."""

from __future__ import annotations

import pytest

from translators import thinktags

CASES = {
    "a chain, then an answer": ("<think>We think</think>\n\nThe answer", "We think", "The answer", True),
    "blanks before the tag": ("\n <think>We</think>The", "We", "The", True),
    "no chain": ("The <think>answer</think>", "", "The <think>answer</think>", False),
    "blanks of an answer without a chain stay": ("\n The", "", "\n The", False),
    "an empty chain": ("<think></think>The", "", "The", True),
    "a chain that is never closed": ("<think>We </thi", "We </thi", "", True),
    "half an opening tag": ("<thin", "", "<thin", False),
    "a second chain is text": ("<think>a</think>b<think>c</think>", "a", "b<think>c</think>", True),
    "a broken closing tag": ("<think>a</thi b</think>c", "a</thi b", "c", True),
    "nothing behind the chain": ("<think>a</think>\n\n", "a", "", True),
    "blanks at the head of the answer are its own": ("<think>a</think>\n\n    code", "a", "    code", True),
    "a tab and a bullet too": ("<think>a</think>\n\t- b", "a", "\t- b", True),
    "line ends inside the answer stay": ("<think>a</think>\nb\n\nc\n", "a", "b\n\nc\n", True),
}


@pytest.mark.parametrize("size", [1, 2, 5, 100], ids="delta={}".format)
@pytest.mark.parametrize("name", CASES)
def test_chain_and_answer_do_not_depend_on_the_deltas(name: str, size: int) -> None:
    text, chain, answer, opened = CASES[name]
    splitter = thinktags.Splitter()
    parts = [splitter.feed(text[at : at + size]) for at in range(0, len(text), size)] + [splitter.eof()]
    assert ("".join(part[0] for part in parts), "".join(part[1] for part in parts)) == (chain, answer)
    assert splitter.opened is opened


@pytest.mark.parametrize("size", [1, 2, 100], ids="delta={}".format)
def test_the_line_ends_behind_a_chain_are_in_neither_side_and_known(size: int) -> None:
    """USE-2: they were generated."""
    text = "<think>a</think>\n\nb\n"
    splitter = thinktags.Splitter()
    for at in range(0, len(text), size):
        splitter.feed(text[at : at + size])
    assert splitter.gap == 2


def test_no_more_is_held_than_may_begin_a_tag() -> None:
    """SSE-6: a chain is shown as it comes."""
    splitter = thinktags.Splitter()
    said = [splitter.feed(text) for text in ("<think>", "We", " a <", "b", "</thi", "s", "</think", ">The", " sea")]
    chain = ["", "We", " a ", "<b", "", "</this", "", "", ""]
    assert said == list(zip(chain, ["", "", "", "", "", "", "", "The", " sea"], strict=True))


INSIDE = {
    "the closing tag alone, for the prompt ends with the other": ("hm\n</think>\n\n42", "hm\n", "42"),
    "an opening tag all the same": ("<think>\nhm\n</think>\n\n42", "\nhm\n", "42"),
    "blanks first": (" \nhm</think>42", " \nhm", "42"),
    "a chain that is never closed": ("hm </thi", "hm </thi", ""),
    "half an opening tag and no more": ("<thi", "<thi", ""),
    "a second closing tag is text": ("a</think>b</think>c", "a", "b</think>c"),
}


@pytest.mark.parametrize("size", [1, 2, 5, 100], ids="delta={}".format)
@pytest.mark.parametrize("name", INSIDE)
def test_content_that_begins_inside_the_chain_is_split_at_its_end(name: str, size: int) -> None:
    """OUT-10: `yes`."""
    text, chain, answer = INSIDE[name]
    splitter = thinktags.Splitter(inside=True)
    parts = [splitter.feed(text[at : at + size]) for at in range(0, len(text), size)] + [splitter.eof()]
    assert ("".join(part[0] for part in parts), "".join(part[1] for part in parts)) == (chain, answer)


def test_blanks_without_end_cost_no_more_than_their_length() -> None:
    """They are held for a tag that may follow."""
    splitter = thinktags.Splitter()
    for _ in range(200_000):
        splitter.feed(" ")
    assert not splitter.begun
    assert splitter.eof() == ("", " " * 200_000)
