"""`input` becomes a conversation that an upstream takes as it stands (spec REQ-2 to REQ-7)."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import pictures
from tests.pictures import url
from translators import faults
from translators.dashscope import messages
from translators.dialogue import Image, Message, ToolCall

BOTH = 'Only one of the parameters "prompt" and "messages" can be present'
NEITHER = 'Either "prompt" or "messages" must exist and cannot both be none'
ROLE = (
    'Role must be in ["user","assistant","system","function","plugin","tool"]'
    ' and the role in last message must be in ["user","function","tool"]'
)
NO_USER = "The input messages do not contain elements with the role of user."
NO_CONTENT = "The content field is a required field."
NOT_TEXT = "input content must be a string."
ORPHAN = 'messages with role "tool" must be a response to a preceeding message with "tool_calls".'
UNANSWERED = (
    'An assistant message with "tool_calls" must be followed by tool messages responding to each "tool_call_id".'
)

USER: dict[str, Any] = {"role": "user", "content": "Hi"}


def call(id: str | None = None, name: str = "weather", arguments: Any = "{}") -> dict[str, Any]:  # noqa: A002
    function = {"name": name, "arguments": arguments}
    return {"type": "function", "function": function} | ({} if id is None else {"id": id})


ONE, TWO, THREE = '{"n":1}', '{"n":2}', '{"n":3}'


def calling(*calls: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"role": "assistant", "tool_calls": list(calls), **fields}


def result(content: str, **fields: Any) -> dict[str, Any]:
    return {"role": "tool", "content": content, **fields}


def read(*turns: Any) -> tuple[Message, ...]:
    return messages.read({"messages": list(turns)}, sees=False)


TURN = st.fixed_dictionaries(
    {"role": st.sampled_from(["system", "user", "assistant", "tool", "nobody", 1])},
    optional={"content": st.sampled_from(["", "Hi", None, [{"text": "Hi"}]]), "partial": st.booleans()},
)


@given(turns=st.lists(st.just(USER) | TURN | st.none(), max_size=4))
def test_a_plain_conversation_is_read_as_any_other(turns: list[Any]) -> None:
    """It takes a shorter way; what is not plain, or is to be refused, does not."""
    plain = messages.plain(turns, messages.ROLES)
    try:
        said = read(*turns)
    except faults.Refusal:
        assert plain is None
        return
    assert plain in (None, said)
    names = {name for turn in turns for name in turn}
    texts = [turn for turn in turns if isinstance(turn.get("content"), str) and turn["role"] != "tool"]
    assert (plain is not None) == (texts == turns and names == {"role", "content"})


@pytest.mark.parametrize(
    "turns", [None, "Hi", [], [USER] * (messages.MOST_TURNS + 1)], ids=["none", "a text", "0", "many"]
)
def test_nor_is_anything_but_a_conversation(turns: Any) -> None:
    assert messages.plain(turns, messages.ROLES) is None


def text_of_refusal(source: dict[str, Any]) -> str:
    with pytest.raises(faults.Refusal) as refusal:
        messages.read(source, sees=False)
    fault = refusal.value.fault
    assert (fault.status, fault.code) == (400, "InvalidParameter")
    assert fault.message.startswith(faults.PARAMETER_PREFIX)
    return fault.message.removeprefix(faults.PARAMETER_PREFIX)


def test_history_and_prompt_become_messages_oldest_first() -> None:
    """REQ-2"""
    source = {"prompt": "c", "history": [{"user": "a1", "bot": "b1"}, {"user": "a2", "bot": "b2"}]}
    assert messages.read(source, sees=False) == (
        Message("user", "a1"),
        Message("assistant", "b1"),
        Message("user", "a2"),
        Message("assistant", "b2"),
        Message("user", "c"),
    )


@pytest.mark.parametrize("history", [None, [], [{}], [{"user": None, "bot": None}]])
def test_a_prompt_needs_no_history(history: Any) -> None:
    """REQ-2"""
    assert messages.read({"prompt": "c", "history": history, "messages": None}, sees=False) == (Message("user", "c"),)


@pytest.mark.parametrize("given", ["", 0, False, {}])
def test_what_is_empty_is_no_list_for_that(given: Any) -> None:
    """REQ-2, REQ-5: null alone means absent."""
    said = "Input should be a valid list: input."
    assert text_of_refusal({"prompt": "c", "history": given}) == f"{said}history"
    turn = {"role": "assistant", "content": "a", "tool_calls": given}
    assert text_of_refusal({"messages": [USER, turn, USER]}) == f"{said}messages.1.tool_calls"


def test_either_side_of_a_history_pair_may_be_missing() -> None:
    """REQ-2: the partner spec calls both optional."""
    source = {"prompt": "c", "history": [{"user": "a"}, {"bot": "b"}]}
    assert [message.role for message in messages.read(source, sees=False)] == ["user", "assistant", "user"]


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ({"prompt": "a", "messages": [USER]}, BOTH),
        ({"prompt": "a", "messages": []}, BOTH),
        ({}, NEITHER),
        ({"prompt": None, "messages": None}, NEITHER),
        ({"history": []}, NEITHER),
        ({"messages": []}, "[] is too short"),
        ({"messages": "Hi"}, "Input should be a valid list: input.messages"),
        ({"messages": {}}, "Input should be a valid list: input.messages"),
        ({"messages": [USER, "Hi"]}, "Input should be a valid dictionary: input.messages.1"),
        ({"prompt": 7}, NOT_TEXT),
        ({"prompt": "a", "history": "b"}, "Input should be a valid list: input.history"),
        ({"prompt": "a", "history": ["b"]}, "Input should be a valid dictionary: input.history.0"),
        ({"prompt": "a", "history": [{"user": 7}]}, NOT_TEXT),
    ],
)
def test_an_input_of_neither_form_is_refused(source: dict[str, Any], text: str) -> None:
    """REQ-2"""
    assert text_of_refusal(source) == text


@pytest.mark.parametrize(
    ("word", "role"),
    [("system", "system"), ("user", "user"), ("assistant", "assistant")],
)
def test_a_role_is_kept(word: str, role: str) -> None:
    """REQ-3"""
    assert read({"role": word, "content": "a"}, USER)[0].role == role


@pytest.mark.parametrize("word", ["tool", "function", "plugin"])
def test_every_word_for_a_tools_turn_becomes_tool(word: str) -> None:
    """REQ-3"""
    answer = {"role": word, "name": "weather", "content": "sun"}
    assert read(USER, calling(call("a")), answer)[-1] == Message("tool", "sun", tool_call_id="a")


def test_roles_need_not_alternate_and_a_later_system_message_is_accepted() -> None:
    """REQ-3"""
    said = read(USER, USER, {"role": "system", "content": "Be brief."}, {"role": "assistant", "content": "a"}, USER)
    assert [message.role for message in said] == ["user", "user", "system", "assistant", "user"]


@pytest.mark.parametrize(
    ("turns", "text"),
    [
        ([{"role": "developer", "content": "a"}, USER], ROLE),
        ([{"role": "User", "content": "a"}], ROLE),
        ([{"role": ["user"], "content": "a"}], ROLE),
        ([{"content": "a"}], ROLE),
        ([USER, {"role": "assistant", "content": "a"}], ROLE),
        ([USER, {"role": "assistant", "content": "a", "partial": False}], ROLE),
        ([USER, {"role": "assistant", "content": "a", "partial": "true"}], ROLE),
        ([USER, {"role": "system", "content": "a"}], ROLE),
        ([USER, {"role": "system", "content": "a", "partial": True}], ROLE),
        ([{"role": "assistant", "content": "a", "partial": True}], NO_USER),
        ([{"role": "tool", "content": "a", "tool_call_id": "a"}], NO_USER),
    ],
)
def test_a_role_out_of_place_is_refused(turns: list[Any], text: str) -> None:
    """REQ-3"""
    assert text_of_refusal({"messages": turns}) == text


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("", ""),
        (" ", " "),
        ([{"type": "text", "text": "a"}, {"text": "b"}], "ab"),
        ([{"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}}], "a"),
        ([], ""),
        ([{"text": None}], ""),
    ],
)
def test_content_is_a_string_or_its_text_parts_joined(content: Any, text: str) -> None:
    """REQ-4"""
    assert read({"role": "user", "content": content}) == (Message("user", text),)


@pytest.mark.parametrize(
    ("turn", "text"),
    [
        ({"role": "user"}, NO_CONTENT),
        ({"role": "user", "content": None}, NO_CONTENT),
        ({"role": "user", "tool_calls": [call("a")]}, NO_CONTENT),
        ({"role": "user", "content": 7}, NOT_TEXT),
        ({"role": "user", "content": True}, NOT_TEXT),
        ({"role": "user", "content": {"text": "a"}}, NOT_TEXT),
        ({"role": "user", "content": ["a"]}, NOT_TEXT),
        ({"role": "user", "content": [{"image": "https://…"}]}, NOT_TEXT),
        ({"role": "user", "content": [{"type": "image_url", "text": "a"}]}, NOT_TEXT),
        ({"role": "user", "content": [{"text": "a", "image": "https://…"}]}, NOT_TEXT),
        ({"role": "user", "content": [{"type": "text", "text": "a", "image_url": {"url": "https://…"}}]}, NOT_TEXT),
        ({"role": "user", "content": [{"text": "a", "video": "https://…"}]}, NOT_TEXT),
        ({"role": "user", "content": [{"type": "text"}]}, NOT_TEXT),
        ({"role": "user", "content": [{"type": "text", "text": 7}]}, NOT_TEXT),
    ],
)
def test_content_that_is_no_text_is_refused(turn: dict[str, Any], text: str) -> None:
    """REQ-4"""
    assert text_of_refusal({"messages": [turn, USER]}) == text


@pytest.mark.parametrize("calls", [None, []])
def test_an_assistant_without_calls_needs_content(calls: Any) -> None:
    """REQ-4"""
    assert text_of_refusal({"messages": [{"role": "assistant", "tool_calls": calls}, USER]}) == NO_CONTENT


@pytest.mark.parametrize(("fields", "content"), [({}, None), ({"content": None}, None), ({"content": " "}, " ")])
def test_an_assistant_with_calls_needs_no_content(fields: dict[str, Any], content: str | None) -> None:
    """REQ-4; Dify sends a blank"""
    assert read(USER, calling(call("a"), **fields), result("sun", tool_call_id="a"))[1].content == content


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ('{"city": "Bonn"}', '{"city": "Bonn"}'),
        (None, "{}"),
        ({}, "{}"),
        ({"city": "Köln", "days": [1, 2]}, '{"city":"Köln","days":[1,2]}'),
    ],
)
def test_arguments_are_kept_as_generated_and_an_object_is_written_out(arguments: Any, text: str) -> None:
    """REQ-5"""
    said = read(USER, calling(call("a", arguments=arguments)), result("sun", tool_call_id="a"))
    assert said[1].tool_calls == (ToolCall("a", "weather", text),)


@pytest.mark.parametrize(
    ("calls", "text"),
    [
        ({"a": 1}, "Input should be a valid list: input.messages.1.tool_calls"),
        (["a"], "Input should be a valid dictionary: input.messages.1.tool_calls.0"),
        ([{}], "Field required: input.messages.1.tool_calls.0.function"),
        ([{"function": []}], "Input should be a valid dictionary: input.messages.1.tool_calls.0.function"),
        ([{"function": {}}], "Field required: input.messages.1.tool_calls.0.function.name"),
        ([call(name="")], "Field required: input.messages.1.tool_calls.0.function.name"),
        ([{"function": {"name": 7}}], "Input should be a valid string: input.messages.1.tool_calls.0.function.name"),
        ([call(arguments=7)], "Input should be a valid string: input.messages.1.tool_calls.0.function.arguments"),
        ([call(arguments=[])], "Input should be a valid string: input.messages.1.tool_calls.0.function.arguments"),
    ],
)
def test_a_malformed_call_is_refused(calls: Any, text: str) -> None:
    """REQ-5"""
    turns = [USER, {"role": "assistant", "tool_calls": calls}, result("sun")]
    assert text_of_refusal({"messages": turns}) == text


def pairs(said: tuple[Message, ...]) -> dict[str, str | None]:
    """Whose call each result answers: result to the called function's arguments."""
    by_id = {made.id: made.arguments for message in said for made in message.tool_calls}
    return {message.content or "": by_id[message.tool_call_id or ""] for message in said if message.role == "tool"}


@pytest.mark.parametrize(
    ("calls", "results", "paired"),
    [
        pytest.param(
            [call("a", "f", ONE), call("b", "f", TWO)],
            [result("two", tool_call_id="b"), result("one", tool_call_id="a")],
            {"one": ONE, "two": TWO},
            id="by id, in any order",
        ),
        pytest.param(
            [call("f", "f", ONE), call("g", "g", TWO)],
            [result("two", name="g"), result("one", name="f")],
            {"one": ONE, "two": TWO},
            id="Dify: the name is the id is the function",
        ),
        pytest.param(
            [call("f", "f", ONE), call("f", "f", TWO)],
            [result("one", name="f"), result("two", name="f")],
            {"one": ONE, "two": TWO},
            id="Dify: one function twice",
        ),
        pytest.param(
            [call("x1", "f", ONE), call("x2", "g", TWO)],
            [result("two", name="g", tool_call_id=""), result("one", name="f", tool_call_id=None)],
            {"one": ONE, "two": TWO},
            id="by name where the id is empty",
        ),
        pytest.param(
            [call(None, "f", ONE), call("", "g", TWO)],
            [result("one"), result("two", tool_call_id=7)],
            {"one": ONE, "two": TWO},
            id="by order where there is neither",
        ),
        pytest.param(
            [call("g", "f", ONE), call("f", "g", TWO)],
            [result("two", tool_call_id="f"), result("one", tool_call_id="g")],
            {"one": ONE, "two": TWO},
            id="an id before a name of the same letters",
        ),
        pytest.param(
            [call("a", "f", ONE), call("b", "f", TWO), call("c", "f", THREE)],
            [result("two", tool_call_id="b"), result("one", name="f"), result("three")],
            {"one": ONE, "two": TWO, "three": THREE},
            id="a call answered by id is not answered by name again",
        ),
        pytest.param(
            [call("call_1_1", "f", ONE), call(None, "f", TWO)],
            [result("one", tool_call_id="call_1_1"), result("two")],
            {"one": ONE, "two": TWO},
            id="an id that looks like one of ours",
        ),
    ],
)
def test_every_result_finds_its_call(calls: list[Any], results: list[Any], paired: dict[str, str]) -> None:
    """REQ-5"""
    said = read(USER, calling(*calls), *results)
    assert pairs(said) == paired
    ids = [made.id for made in said[1].tool_calls]
    assert len(set(ids)) == len(ids)
    assert "" not in ids


def test_ids_that_tell_calls_apart_are_kept_and_others_are_all_made_anew() -> None:
    """REQ-5: an id is made of the places of message and call, so the same call gets the same ids."""
    said = read(
        USER,
        calling(call("a"), call("b")),
        result("1", tool_call_id="a"),
        result("2", tool_call_id="b"),
        calling(call("a"), call("a")),
        result("3", name="a"),
        result("4", name="a"),
    )
    ids = [tuple(made.id for made in message.tool_calls) for message in said if message.tool_calls]
    assert ids == [("a", "b"), ("call_4_0", "call_4_1")]
    assert [message.tool_call_id for message in said if message.role == "tool"] == ["a", "b", "call_4_0", "call_4_1"]


@pytest.mark.parametrize(
    ("turns", "text"),
    [
        pytest.param([result("a", tool_call_id="a"), USER], ORPHAN, id="nothing before it"),
        pytest.param([USER, result("a", tool_call_id="a")], ORPHAN, id="no call before it"),
        # LangChain drops calls built as its own objects and leaves their results (SOURCES#langchain-tools).
        pytest.param([USER, {"role": "assistant", "content": ""}, result("a")], ORPHAN, id="LangChain"),
        pytest.param([USER, calling(call("a")), result("a", tool_call_id="b")], ORPHAN, id="another id"),
        pytest.param([USER, calling(call("a")), result("a", name="other")], ORPHAN, id="another name"),
        pytest.param([USER, calling(call("a")), result("a"), result("b")], ORPHAN, id="one too many"),
        pytest.param(
            [USER, calling(call("a")), result("a", tool_call_id="a"), result("b", tool_call_id="a")],
            ORPHAN,
            id="answered twice",
        ),
        pytest.param([USER, calling(call("a")), USER], UNANSWERED, id="a user turn instead"),
        pytest.param([USER, calling(call("a")), USER, result("a")], UNANSWERED, id="a user turn between"),
        pytest.param([USER, calling(call("a"), call("b")), result("a")], UNANSWERED, id="one too few"),
        pytest.param([USER, calling(call("a"), partial=True)], UNANSWERED, id="the end instead"),
    ],
)
def test_calls_and_results_that_do_not_match_are_refused(turns: list[Any], text: str) -> None:
    """REQ-5"""
    assert text_of_refusal({"messages": turns}) == text


def test_a_turn_of_as_many_calls_as_there_may_be_is_paired_in_any_order() -> None:
    """REQ-5: calls of one function, answered last first."""
    count = messages.MOST_CALLS
    calls = [call(f"id{index}") for index in range(count)]
    results = [result("r", tool_call_id=f"id{index}") for index in reversed(range(count))]
    said = read(USER, calling(*calls), *results)
    assert [message.tool_call_id for message in said[2:]] == [f"id{index}" for index in reversed(range(count))]


TOO_MANY = "List should have at most {} items: {}"


@pytest.mark.parametrize(
    ("source", "most", "path"),
    [
        ({"messages": [USER] * (messages.MOST_TURNS + 1)}, messages.MOST_TURNS, "input.messages"),
        (
            {"prompt": "x", "history": [{"user": "a"}] * (messages.MOST_TURNS // 2 + 1)},
            messages.MOST_TURNS // 2,
            "input.history",
        ),
        (
            {"messages": [USER, calling(*[call("c")] * (messages.MOST_CALLS + 1)), USER]},
            messages.MOST_CALLS,
            "input.messages.1.tool_calls",
        ),
    ],
)
def test_lists_too_long_for_any_conversation_are_refused_at_once(source: dict[str, Any], most: int, path: str) -> None:
    """Bad input costs bounded time."""
    assert text_of_refusal(source) == TOO_MANY.format(most, path)


def test_partial_counts_on_the_last_assistant_message_alone() -> None:
    """REQ-6"""
    earlier = {"role": "assistant", "content": "a", "partial": True}
    said = read(USER | {"partial": True}, earlier, USER, {"role": "assistant", "content": "b", "partial": True})
    assert [message.partial for message in said] == [False, False, False, True]


def test_the_chain_of_an_assistant_turn_is_kept() -> None:
    """REQ-7"""
    turn: dict[str, Any] = {"role": "assistant", "content": "a", "reasoning_content": "because"}
    assert read(turn, USER)[0] == Message("assistant", "a", reasoning="because")
    assert read(turn | {"reasoning_content": ""}, USER)[0].reasoning == ""
    assert read(turn | {"reasoning_content": None}, USER)[0].reasoning is None
    assert read(USER | {"reasoning_content": 7})[0].reasoning is None


def test_a_chain_that_is_no_text_is_refused() -> None:
    """REQ-7"""
    turns = [USER, {"role": "assistant", "content": "a", "reasoning_content": 7}, USER]
    text = "Input should be a valid string: input.messages.1.reasoning_content"
    assert text_of_refusal({"messages": turns}) == text


def test_names_that_nobody_reads_are_told_without_their_values() -> None:
    """HTTP-8"""
    source = {"messages": [USER | {"mood": "good", "name": "Ann", "seen": None}], "history": [], "prompt": None, "z": 1}
    assert list(messages.ignored(source)) == ["history", "z", "messages.mood"]
    assert list(messages.ignored({"prompt": "a", "history": [], "messages": None, "z": 1})) == ["z"]


@pytest.mark.parametrize("arguments", [None, {}, "", " \n", "null", " null "])
def test_an_earlier_call_without_arguments_goes_up_as_an_empty_object(arguments: Any) -> None:
    """REQ-9"""
    made = call("a", arguments=arguments)
    said = read(USER, calling(made), result("r", tool_call_id="a"))
    assert said[1].tool_calls[0].arguments == "{}"


@pytest.mark.parametrize("arguments", ['{"a": 1}', ' {"a":"\\ud83d\\ude00"}', '{"城":"杭州"}'])
def test_the_text_of_an_object_goes_up_as_it_came(arguments: str) -> None:
    """REQ-9"""
    made = call("a", arguments=arguments)
    said = read(USER, calling(made), result("r", tool_call_id="a"))
    assert said[1].tool_calls[0].arguments == arguments


def test_half_a_pair_in_earlier_arguments_is_one_bad_character() -> None:
    """REQ-10: written as an escape, too; upstreams refuse the whole call for it."""
    made = call("a", arguments=r'{"a": "\ud83d", "b": "\\ud83d"}')
    said = read(USER, calling(made), result("r", tool_call_id="a"))
    assert said[1].tool_calls[0].arguments == '{"a": "\ufffd", "b": "\\\\ud83d"}'


@pytest.mark.parametrize("arguments", ['{"loc', "[1]", '"Beijing"', "7", "Beijing", "{}{}"])
def test_earlier_arguments_that_are_no_object_are_refused(arguments: str) -> None:
    """REQ-9: upstreams refuse them as a fault of their own."""
    made = call("a", arguments=arguments)
    text = 'The "function.arguments" parameter of the code model must be in JSON format.'
    assert text_of_refusal({"messages": [USER, calling(made), result("r", tool_call_id="a")]}) == text


PICTURE = url(pictures.PNG)
ADDRESS = "https://example.org/a.png"
SEEN = Image(PICTURE, None, "png", pictures.TOKENS)


def seen(*turns: Any, sees: bool = True) -> tuple[Message, ...]:
    return messages.read({"messages": list(turns)}, sees=sees)


@pytest.mark.parametrize(
    ("content", "text", "parts"),
    [
        ([{"image": PICTURE}, {"text": "What?"}], "What?", (SEEN, "What?")),
        ([{"text": "a"}, {"image": ADDRESS}, {"text": "b"}], "ab", ("a", Image(ADDRESS), "b")),
        ([{"type": "image", "image": ADDRESS, "text": None, "detail": "low"}], "", (Image(ADDRESS, "low"),)),
        ([{"image": ADDRESS, "detail": "closely", "min_pixels": 3136}], "", (Image(ADDRESS),)),
        ([{"image": None, "text": "a"}, {"type": "text", "text": "b"}], "ab", ()),
        ([{"image": ADDRESS, "text": "a"}, {"text": "b"}], "ab", (Image(ADDRESS), "a", "b")),
        ([{"type": "text", "text": "a", "image": ADDRESS}], "a", ("a", Image(ADDRESS))),
        ([{"type": "image", "text": "a", "image": ADDRESS, "video": None}], "a", ("a", Image(ADDRESS))),
        ([{"text": "", "image": ADDRESS}], "", (Image(ADDRESS),)),
        ([{"text": "a", "video": None, "image_url": None}], "a", ()),
        ([], "", ()),
        ("a", "a", ()),
    ],
)
@pytest.mark.parametrize("role", ["user", "tool"])
def test_a_model_that_sees_is_shown_what_the_caller_shows(
    role: str, content: Any, text: str, parts: tuple[str | Image, ...]
) -> None:
    """REQ-4: in the caller's order, and by the vendor's rule counted where the picture came along."""
    turns: list[Any] = [{"role": "user", "content": content}]
    if role == "tool":
        called = {"id": "c", "function": {"name": "f"}}
        turns = [USER, {"role": "assistant", "content": [], "tool_calls": [called]}]
        turns += [{"role": "tool", "tool_call_id": "c", "content": content}]
    message = seen(*turns)[-1]
    assert (message.content, message.parts) == (text, parts)


@pytest.mark.parametrize(
    ("part", "fault"),
    [
        ({"video": ADDRESS}, "This model does not support video input."),
        ({"video": [ADDRESS], "fps": 2}, "This model does not support video input."),
        ({"type": "input_audio", "input_audio": {}}, "This model does not support audio input."),
        ({"audio": ADDRESS}, "This model does not support audio input."),
        ({"type": "file", "file": {"file_id": "x"}}, "This model does not support file input."),
        ({"type": "image_url", "image_url": {"url": ADDRESS}}, messages.NO_MODALITY),
        ({"text": "a", "image_url": {"url": ADDRESS}}, "input content must be a string."),
        ({"text": "a", "video": ADDRESS}, "This model does not support video input."),
        ({"image": ADDRESS, "video": ADDRESS}, "This model does not support video input."),
        ({"image": ADDRESS, "text": 7}, "input content must be a string."),
        ({"picture": ADDRESS}, messages.NO_MODALITY),
        ({}, messages.NO_MODALITY),
        ("a", "input content must be a string."),
        ({"text": 7}, "input content must be a string."),
        ({"image": "oss://dashscope-instant/a.png"}, "Failed to download multimodal content."),
        ({"image": "file:///a.png"}, "Failed to download multimodal content."),
        ({"image": "https://a/" + "b" * 8_192}, "Failed to download multimodal content."),
        ({"image": 7}, "Failed to download multimodal content."),
        ({"image": ""}, "Failed to download multimodal content."),
        ({"image": "data:image/png;base64,iVBO"}, "Failed to decode the image during the data inspection."),
        (
            {"image": url(b"BM" + bytes(60), "image/bmp")},
            "The media format is not supported or incorrect for the data inspection.",
        ),
        ({"image": url(pictures.png(8_193, 1))}, "The image length and width do not meet the model restrictions."),
        ({"image": url(pictures.png(5, 0))}, "The image length and width do not meet the model restrictions."),
    ],
)
def test_what_it_cannot_be_shown_is_refused_by_name(part: Any, fault: str) -> None:
    """REQ-4."""
    with pytest.raises(faults.Refusal) as refusal:
        seen({"role": "user", "content": [{"text": "a"}, part]})
    assert refusal.value.fault == faults.invalid(fault)


@pytest.mark.parametrize("role", ["system", "assistant"])
def test_an_image_in_a_turn_that_nobody_shows_is_refused(role: str) -> None:
    """REQ-4: upstream refuses it, or says nothing and takes a placeholder."""
    with pytest.raises(faults.Refusal) as refusal:
        seen({"role": role, "content": [{"image": PICTURE}]}, USER)
    assert refusal.value.fault == faults.NOT_TEXT


def test_a_model_that_does_not_see_is_shown_nothing() -> None:
    """REQ-4."""
    with pytest.raises(faults.Refusal) as refusal:
        seen({"role": "user", "content": [{"image": PICTURE}]}, sees=False)
    assert refusal.value.fault == faults.NOT_TEXT


def test_a_call_has_no_more_images_than_upstream_takes() -> None:
    """REQ-4, and not one of more than that is looked at."""
    shown = {"role": "user", "content": [{"image": ADDRESS}] * 300}
    assert sum(len(message.parts) for message in seen(shown, shown)) == messages.MOST_IMAGES
    with pytest.raises(faults.Refusal) as refusal:
        seen(shown, shown, {"role": "user", "content": [{"image": "data:image/png;base64,no"}]})
    assert refusal.value.fault == faults.too_many_images(600, 601)
