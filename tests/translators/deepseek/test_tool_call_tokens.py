"""A call told as JSON, in whatever pieces, counts what the model wrote for it.

Source: spec USE-7; SOURCES#recorded-completions.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

import proxy.vocabulary
from translators import tokens
from translators.deepseek.markup import Markup, Piece
from translators.deepseek.markup import pieces as spelled
from translators.deepseek.templates import LAYOUTS
from translators.deepseek.tool_call_tokens import CallCounter, constant
from translators.dialogue import Template, ToolCall

TEMPLATES: tuple[Template, ...] = get_args(Template)
V4 = LAYOUTS["v4"].calls
VOCABULARY = proxy.vocabulary.load()

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 10_000) | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
ARGUMENTS = st.dictionaries(st.text("abc_ é☃", min_size=1, max_size=6), JSON, max_size=3)


def length(pieces: Sequence[Piece]) -> int:
    """Tokens of a rendering: the texts between special tokens are encoded whole."""
    total, text = 0, ""
    for piece in pieces:
        if isinstance(piece, str):
            text += piece
        else:
            total += len(VOCABULARY.encode(text)) + 1
            text = ""
    return total + len(VOCABULARY.encode(text))


def written(markup: Markup, *calls: ToolCall) -> int:
    return length(markup.write(calls, opened=True)) - constant(markup.close, VOCABULARY)


def counted(name: str, *arguments: str, markup: Markup = V4) -> CallCounter:
    counter = CallCounter(markup, VOCABULARY)
    counter.name(name)
    for piece in arguments:
        counter.add(piece)
    return counter


def cut(text: str, sizes: Sequence[int]) -> list[str]:
    pieces = []
    for size in [*sizes, len(text)]:
        pieces.append(text[:size])
        text = text[size:]
    return [piece for piece in pieces if piece]


@pytest.mark.parametrize("template", TEMPLATES)
@given(arguments=ARGUMENTS, sizes=st.lists(st.integers(1, 9), max_size=30), ascii_only=st.booleans())
def test_a_whole_call_is_what_the_models_own_renderer_writes_in_any_pieces(
    template: Template, arguments: dict[str, Any], sizes: list[int], ascii_only: bool
) -> None:
    # Within other values the model's own spelling counts, so escapes there would not be the renderer's.
    plain = not any(isinstance(value, list | dict) for value in arguments.values())
    text = json.dumps(arguments, ensure_ascii=ascii_only and plain)
    markup = LAYOUTS[template].calls
    counter = counted("get_weather", *cut(text, sizes), markup=markup)
    told = text if markup.argument is None else json.dumps(arguments, ensure_ascii=False)
    assert counter.total == written(markup, ToolCall("", "get_weather", told))
    counter.end()
    counter.add("}")
    assert counter.total == written(markup, ToolCall("", "get_weather", told))


@given(arguments=ARGUMENTS, at=st.integers(0, 60))
def test_a_call_that_goes_on_counts_no_more_than_it_will(arguments: dict[str, Any], at: int) -> None:
    """USE-7: who cancels pays for what was written, give or take a token that the next letters complete."""
    text = json.dumps(arguments, ensure_ascii=False)
    assert counted("f", text[:at]).total <= counted("f", text).total + 2


@pytest.mark.parametrize(
    ("told", "written_so_far"),
    [
        ("", ""),
        ("{", ""),
        ('{"ci', '<｜DSML｜parameter name="ci'),
        ('{"city"', '<｜DSML｜parameter name="city"'),
        ('{"city" :', '<｜DSML｜parameter name="city" string'),
        ('{"city": "', '<｜DSML｜parameter name="city" string="true">'),
        ('{"city": [', '<｜DSML｜parameter name="city" string="false">['),
        ('{"city": "Paris', '<｜DSML｜parameter name="city" string="true">Paris'),
        ('{"city": "Paris"', '<｜DSML｜parameter name="city" string="true">Paris</｜DSML｜parameter>\n'),
        ('{"n": 4 ', '<｜DSML｜parameter name="n" string="false">4'),
        ('{"n": 4,', '<｜DSML｜parameter name="n" string="false">4</｜DSML｜parameter>\n'),
    ],
)
def test_what_is_told_so_far_is_what_was_written_so_far(told: str, written_so_far: str) -> None:
    """A call that the limit cuts stays at that: nothing of it is closed."""
    dsml = written_so_far.count("｜DSML｜")
    parts = ('<｜DSML｜invoke name="f">\n' + written_so_far).split("｜DSML｜")
    assert counted("f", told).total == dsml + 1 + sum(len(VOCABULARY.encode(part)) for part in parts)


@pytest.mark.parametrize(
    ("pieces", "value"),
    [
        (['{"a": "x\\', 'n"}'], "x\n"),
        (['{"a": "\\u4e2', 'd"}'], "中"),
        (['{"a": "\\ud83d', '\\ude00"}'], "😀"),
        (['{"a": "\\', '"\\/\\', '\\"}'], '"/\\'),
        (['{"a": "\\uzzzz"}'], "\\uzzzz"),
    ],
)
def test_a_string_is_written_bare_wherever_its_escapes_are_cut(pieces: list[str], value: str) -> None:
    assert counted("f", *pieces).total == written(V4, ToolCall("", "f", json.dumps({"a": value})))


@pytest.mark.parametrize("value", ['{"a":1}', "[ 1,2 ]", '{"k": "\\\\", "q": "]}\\""}', '[{"b": [[]]}]', "1.50", "[}"])
def test_another_value_counts_as_the_server_told_it(value: str) -> None:
    """A server tells it as the model wrote it (the encoders published with the weights)."""
    text = f'<｜DSML｜invoke name="f">\n<｜DSML｜parameter name="a" string="false">{value}'
    parts = text.split("｜DSML｜")
    for pieces in ([f'{{"a": {value}'], list(f'{{"a": {value}')):
        assert counted("f", *pieces).total == 2 + sum(len(VOCABULARY.encode(part)) for part in parts)


@pytest.mark.parametrize("size", [1, 2, 99])
def test_blanks_between_names_and_values_are_the_servers(size: int) -> None:
    spaced = ' \n{ "a" : [1] , "b" :\n2 } '
    pieces = [spaced[at : at + size] for at in range(0, len(spaced), size)]
    assert counted("f", *pieces).total == counted("f", '{"a": [1], "b": 2}').total


def test_a_name_may_come_in_pieces_and_late() -> None:
    whole = counted("get_weather", "{}").total
    pieces = CallCounter(V4, VOCABULARY)
    for piece in ("get", "_we", "ather"):
        pieces.name(piece)
    pieces.add("{}")
    late = CallCounter(V4, VOCABULARY)
    late.add("{}")
    late.name("get_weather")
    assert pieces.total == whole
    # Its place is passed, so what it would share a token with is not known.
    assert abs(late.total - whole) <= 1


@pytest.mark.parametrize("text", ["42", "plain words", '["a"]'])
def test_what_is_no_object_is_one_argument(text: str) -> None:
    counter = counted("f", text)
    counter.end()
    counter.end()
    assert counter.total == written(V4, ToolCall("", "f", text))


@pytest.mark.parametrize(
    "text", ["", "{", '{"a', '{"a"', '{"a":', '{"a": "x', '{"a": "x\\', '{"a": 1', '{"a": 1,', "{a: 1", '{"a" 1}']
)
@pytest.mark.parametrize("template", TEMPLATES)
def test_a_broken_object_is_closed_where_the_model_has_ended(template: Template, text: str) -> None:
    markup = LAYOUTS[template].calls
    counter = counted("f", text, markup=markup)
    before = counter.total
    counter.end()
    closed = counter.total
    counter.end()
    assert closed == counter.total
    assert closed >= before
    # What closes a call stands apart from whatever it holds.
    assert closed >= constant(markup.called, VOCABULARY)


TEXT, OTHER, CLOSE = ' string="true">', ' string="false">', "</｜DSML｜parameter>\n"
NAMED = '<｜DSML｜parameter name="a"'


@pytest.mark.parametrize(
    ("told", "written_of_it"),
    [
        ("", ""),
        ("{", ""),
        ('{"a', NAMED + TEXT + CLOSE),
        ('{"a"', NAMED + TEXT + CLOSE),
        ('{"a" ', NAMED + TEXT + CLOSE),
        ('{"a":', NAMED + TEXT + CLOSE),
        ('{"a": "', NAMED + TEXT + CLOSE),
        ('{"a": "x', NAMED + TEXT + "x" + CLOSE),
        ('{"a": "x\\', NAMED + TEXT + "x\\" + CLOSE),
        ('{"a": "x\\u4e', NAMED + TEXT + "x\\u4e" + CLOSE),
        ('{"a": "x"', NAMED + TEXT + "x" + CLOSE),
        ('{"a": 1', NAMED + OTHER + "1" + CLOSE),
        ('{"a": 1 ', NAMED + OTHER + "1" + CLOSE),
        ('{"a": 1,', NAMED + OTHER + "1" + CLOSE),
        ('{"a": ["\\', NAMED + OTHER + '["\\' + CLOSE),
        ('{"a": 1 , "a": "x', NAMED + OTHER + "1" + CLOSE + NAMED + TEXT + "x" + CLOSE),
        ('{"a": {"b": 1}, "a": 2', NAMED + OTHER + '{"b": 1}' + CLOSE + NAMED + OTHER + "2" + CLOSE),
        ("{x: 1", "x:1"),
        ('{"a" 1}', NAMED + OTHER + "1" + CLOSE),
        ('{"a": 1} and more', NAMED + OTHER + "1" + CLOSE),
        ("words", '<｜DSML｜parameter name="arguments"' + TEXT + "words" + CLOSE),
        (" [1, 2]", '<｜DSML｜parameter name="arguments"' + TEXT + "[1, 2]" + CLOSE),
    ],
)
@pytest.mark.parametrize("step", [1, 99])
def test_what_was_opened_is_closed_as_the_model_closes_it(told: str, written_of_it: str, step: int) -> None:
    """USE-7: whatever of the arguments a server has lost, a call that has ended has its end."""
    empty = "\n" if told.strip("{") in ("", "x: 1") else ""
    for markup, nothing in ((V4, ""), (LAYOUTS["v4-preview"].calls, empty)):
        counter = counted("f", *(told[at : at + step] for at in range(0, len(told), step)), markup=markup)
        counter.end()
        expected = f'<｜DSML｜invoke name="f">\n{written_of_it}{nothing}</｜DSML｜invoke>\n'
        assert counter.total == length(spelled(expected))


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("pieces", [['{"a": 1} and more'], ['{"a": 1}', " and", " more"], ['{"a":', " 1}}"]], ids=str)
def test_what_follows_an_object_is_not_the_models(template: Template, pieces: list[str]) -> None:
    markup = LAYOUTS[template].calls
    whole = "".join(pieces).partition("}")[0] + "}"
    assert counted("f", *pieces, markup=markup).total == counted("f", whole, markup=markup).total


def test_a_call_without_arguments_is_closed_like_one_whose_object_is_empty() -> None:
    counter = counted("f")
    counter.end()
    assert counter.total == counted("f", "{}").total


@dataclass
class Watched:
    """A vocabulary that notes how many characters it was given to encode."""

    chars: int = 0
    within: tokens.Vocabulary = field(default_factory=proxy.vocabulary.load)

    def encode(self, text: str) -> Sequence[int]:
        self.chars += len(text)
        return self.within.encode(text)

    def length(self, text: str) -> int:
        self.chars += len(text)
        return self.within.length(text)

    def word(self, text: str) -> tokens.Word:
        self.chars += len(text)
        return self.within.word(text)

    def encode_piece(self, piece: bytes) -> Sequence[int]:
        self.chars += len(piece)
        return self.within.encode_piece(piece)

    def decode_bytes(self, ids: Sequence[int]) -> bytes:
        return self.within.decode_bytes(ids)

    def first_piece(self, text: str) -> int:
        self.chars += len(text)
        return self.within.first_piece(text)

    def settled(self, text: str) -> int:
        self.chars += len(text)
        return self.within.settled(text)


LONG = {
    "string": '{"a": "' + "word " * 4_000 + '"}',
    "list": '{"a": [' + "1, " * 7_000 + "1]}",
    "blanks": '{"a": [' + " " * 20_000 + "]}",
    "blanks that are not the value's": '{"a": 1' + " " * 20_000 + "}",
}


@pytest.mark.parametrize("text", LONG.values(), ids=LONG)
def test_the_cost_of_a_fragment_is_that_of_its_own_length(text: str) -> None:
    """USE-2: amortised, and not the length of all arguments so far."""
    watched = Watched()
    counter = CallCounter(V4, watched)
    counter.name("f")
    for start in range(0, len(text), 4):
        counter.add(text[start : start + 4])
    assert counter.total == counted("f", text).total
    assert watched.chars < 40 * len(text)
