"""Claims about the reading of chunks that differ in their text alone: nothing else is ever taken for one."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from translators import sse
from translators.openai import stencil

TEXT = " sea"


def chunk(delta: dict[str, Any], **more: Any) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}
    return {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]} | more


def cut_from(data: bytes, name: str = "content") -> stencil.Stencil:
    made = stencil.Stencil()
    made.cut(data, name)
    return made


PLAIN = chunk({"content": TEXT})
NULLS = {"role": None, "tool_calls": None, "reasoning_content": None}
FORMS = {
    "an answer": (PLAIN, "content"),
    "an answer beside nulls": (chunk({"content": TEXT, **NULLS}), "content"),
    "an answer beside a role and empty words": (
        chunk({"role": "assistant", "content": TEXT, "reasoning": "", "tool_calls": []}),
        "content",
    ),
    "a chain": (chunk({"reasoning_content": TEXT}), "reasoning_content"),
    "a chain by its other name": (chunk({"reasoning": TEXT}), "reasoning"),
    "a chain beside a null": (chunk({"content": None, "reasoning_content": TEXT}), "reasoning_content"),
    "a text that is also the name": (chunk({"content": '"content":"x"'}), "content"),
    "a null for usage": (chunk({"content": TEXT}, usage=None), "content"),
    "the same words elsewhere": (chunk({"content": TEXT}, id='"content":"x"'), "content"),
}


@pytest.mark.parametrize("dumps", [orjson.dumps, lambda form: json.dumps(form).encode()], ids=["compact", "spaced"])
@pytest.mark.parametrize("name", FORMS)
def test_another_text_is_read_as_it_would_be_by_who_reads_it_all(name: str, dumps: Any) -> None:
    form, key = FORMS[name]
    made = cut_from(dumps(form), key)
    assert made.name == key
    for text in (" moves", "大海", '"', "\\", "\n", "😀"):
        delta = form["choices"][0]["delta"] | {key: text}
        other = dumps(form | {"choices": [form["choices"][0] | {"delta": delta}]})
        assert made.text_in(other) == text
        assert stencil.plain(orjson.loads(other)) == (text, key)


@given(st.binary(max_size=8), st.integers(0, 200), st.integers(0, 8))
def test_what_it_reads_is_what_the_whole_chunk_says(put: bytes, at: int, instead_of: int) -> None:
    """Whatever is put into a chunk wherever, a text that fits is the text of the whole."""
    whole = orjson.dumps(PLAIN)
    made = cut_from(whole)
    data = whole[:at] + put + whole[at + instead_of :]
    if text := made.text_in(data):
        assert stencil.plain(orjson.loads(data)) == (text, "content")


@pytest.mark.parametrize(
    "other",
    [
        chunk({"content": 5}),
        chunk({"content": None}),
        chunk({"content": TEXT, "tool_calls": [{}]}),
        chunk({"content": TEXT, "reasoning_content": TEXT}),
        chunk({"content": TEXT, "reasoning": 0}),
        chunk({"content": TEXT}, usage={"prompt_tokens": 1}),
        chunk({"content": TEXT}, created=2),
        {**PLAIN, "choices": [PLAIN["choices"][0] | {"finish_reason": "stop"}]},
        {**PLAIN, "choices": [PLAIN["choices"][0] | {"index": 1}]},
        {**PLAIN, "choices": PLAIN["choices"] * 2},
        {"error": {"message": TEXT}},
    ],
    ids=orjson.dumps,
)
def test_what_differs_in_anything_else_does_not_fit(other: dict[str, Any]) -> None:
    assert cut_from(orjson.dumps(PLAIN)).text_in(orjson.dumps(other)) == ""
    if other != chunk({"content": TEXT}, created=2):
        assert stencil.plain(other) == (stencil.SILENT if other == chunk({"content": None}) else stencil.NOT_PLAIN)


@pytest.mark.parametrize(
    "between", [b'" sea" ,"content":" wide"', b'" sea","role":"x"', b'" sea', b'sea"', b"", b'"\xff"']
)
def test_between_the_ends_there_is_one_string(between: bytes) -> None:
    head, tail = orjson.dumps(PLAIN).split(b'" sea"')
    made = cut_from(head + b'" sea"' + tail)
    assert made.text_in(head + between + tail) == ""
    assert made.text_in(head + b'" wide"' + tail) == " wide"


def test_of_two_places_it_is_the_one_that_counts() -> None:
    """A name that comes twice has the later value; a text that is not the delta's is none of ours."""
    twice = orjson.dumps(PLAIN).replace(b'"content":', b'"content":"no","content":')
    assert cut_from(twice).text_in(twice.replace(b"sea", b"sky")) == " sky"
    behind = orjson.dumps(chunk({"content": TEXT}, note={"content": "no"}))
    assert cut_from(behind).text_in(behind.replace(b"sea", b"sky")) == ""


def test_a_chunk_too_large_or_without_such_a_text_gives_none() -> None:
    large = orjson.dumps(chunk({"content": "a" * 5_000}))
    assert cut_from(large).text_in(large) == ""
    escaped = orjson.dumps(PLAIN).replace(b'"content"', b'"c\\u006fntent"')
    assert stencil.plain(orjson.loads(escaped)) == (TEXT, "content")
    assert cut_from(escaped).text_in(escaped) == ""


def test_where_each_chunk_has_something_of_its_own_few_are_tried() -> None:
    made = stencil.Stencil()
    fitted = []
    for number in range(34):
        data = orjson.dumps(chunk({"content": TEXT}, created=number))
        made.cut(data, "content")
        fitted.append(made.text_in(data) != "")
    assert [number for number, fits in enumerate(fitted) if fits] == [0, 16, 32]


def test_the_answer_behind_a_chain_is_not_waited_for() -> None:
    made = stencil.Stencil()
    for name in ("reasoning_content", "content"):
        data = orjson.dumps(chunk({name: TEXT}))
        made.cut(data, name)
        assert made.text_in(data) == TEXT


def wire(*texts: Any, dumps: Any = orjson.dumps) -> bytes:
    """A read of plain chunks."""
    return b"".join(b"data: " + dumps(chunk({"content": text})) + b"\n\n" for text in texts)


def run_from(data: bytes) -> stencil.Stencil:
    """As the decoder gives the data of an event: with the blank before it."""
    return cut_from(data.removeprefix(b"data:").removesuffix(b"\n\n"))


def read_at_one_go(made: stencil.Stencil, data: bytes) -> tuple[list[str], list[bytes]] | None:
    """Texts and strings of a read, as `chunks.Reader` asks for them."""
    if len(data) < made.two_bytes:
        one = made.one_in(data)
        return None if one is None else ([one[0]], [one[1]])
    found = made.run_in(data)
    if found is None:
        return None
    assert found[2] == b",\n".join(found[1])
    return found[0], found[1]


@pytest.mark.parametrize(
    "texts",
    [[" sea"], [" sea" * 200], ["The", " sea", "，", "大海"], ['"', "\\", "\n", "\\n", "😀"], ['"content":"x"', "x"]],
    ids=len,
)
def test_a_read_of_plain_chunks_is_read_at_one_go(texts: list[str]) -> None:
    """COM-34: the texts, and the strings as they stand."""
    assert read_at_one_go(run_from(wire("x")), wire(*texts)) == (texts, [orjson.dumps(text) for text in texts])


@pytest.mark.parametrize(
    "other",
    [
        wire("a", ""),
        wire(""),
        wire("a", 5),
        wire(5),
        wire("a") + b"data: [DONE]\n\n",
        wire("a", "b")[:-1],
        wire("a", "\u2603", dumps=lambda form: json.dumps(form).encode()),
        wire("\\u2603"),
        wire("a").replace(b'"a"', b'"a'),
        wire("a").replace(b'"a"', b'"a\n"'),
        wire("a").replace(b'"a"', b'"a"\n'),
        wire("a").replace(b'"a"', b'"a","content":"b"'),
        wire("a").replace(b'"a"', b'"a","b"'),
        wire("a").replace(b'"a"', b'"\xff"'),
        wire("a", "b", "c").replace(b'"a"', b'"a\\"').replace(b'"b"', b'",","'),
        wire("a", "b").replace(b'"a"', b'"a"\n'),
        wire("a", "b").replace(b'"b"', b' "b"'),
        wire("a", "b", "c").replace(b'"a"', b'"a').replace(b'"b"', b'b"').replace(b'"c"', b'"c","d"'),
        wire("a", "b").replace(b'"a"', b'"a"],["x"'),
    ],
    ids=str,
)
def test_any_other_read_is_not(other: bytes) -> None:
    """SSE-10, ERR-3: what is broken is seen, and nothing of it is copied."""
    assert read_at_one_go(run_from(wire("x")), other) is None


@given(
    st.lists(st.text(max_size=3), min_size=1, max_size=4), st.binary(max_size=8), st.integers(0, 700), st.integers(0, 9)
)
def test_a_run_is_what_reading_each_event_gives(texts: list[str], put: bytes, at: int, instead_of: int) -> None:
    """Whatever is put into a read, wherever."""
    whole = wire(*texts)
    data = whole[:at] + put + whole[at + instead_of :]
    found = read_at_one_go(run_from(wire("x")), data)
    if found is not None:
        events = sse.Decoder(1 << 20).feed(data)
        assert [stencil.plain(orjson.loads(event)) for event in events] == [(text, "content") for text in found[0]]
        assert [orjson.loads(string) for string in found[1]] == found[0]
        assert not any(string.strip() != string for string in found[1])


def test_a_chunk_of_several_lines_is_no_pattern() -> None:
    """Its data is not what stands in a read."""
    made = cut_from(orjson.dumps(chunk({"content": "x"})).replace(b",", b",\n"))
    assert made.name == ""
