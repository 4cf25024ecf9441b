"""A call of the compatible surface becomes the `Call` its native twin would, or earns the fault the spec names."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import pictures
from tests.translators.dashscope.test_call import CATALOGUE, USER, V31, decode
from translators import faults
from translators.compatible import call, parameters, tongue
from translators.compatible.call import Form
from translators.dashscope import multimodal
from translators.dashscope import parameters as native_parameters
from translators.dashscope import tongue as dashscope
from translators.dialogue import Call, Image, Json, Message
from translators.openai import request
from translators.openai.dialects import DIALECTS

BEGUN = {"role": "assistant", "content": "Once"}
ASKED = {"role": "assistant", "tool_calls": [{"id": "c1", "function": {"name": "f", "arguments": "{}"}}]}
TOLD = {"role": "tool", "tool_call_id": "c1", "content": "x"}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
ROLES = "['system', 'assistant', 'user', 'tool', 'function']"


def body(*messages: Any, model: Any = "deepseek-v3", **fields: Any) -> Json:
    return {"model": model, "messages": list(messages or (USER,)), **fields}


def translated(document: Any, **options: Any) -> Call:
    """As the shell does it: from bytes on."""
    read = tongue.read(orjson.dumps(document))
    stream = tongue.wants_stream({}, read)
    return tongue.translate(read, CATALOGUE, **{"stream": stream, "decode": decode} | options)


def failure_of(document: Any) -> tuple[int, str | None, str]:
    """Status, code and message, as the caller reads them."""
    with pytest.raises(faults.Refusal) as refusal:
        translated(document)
    error = orjson.loads(tongue.failure(refusal.value.fault, "r"))["error"]
    return refusal.value.fault.status, error["code"], error["message"]


def refused(text: str, code: str | None = "invalid_parameter_error") -> tuple[int, str | None, str]:
    return 400, code, text


class TestStream:
    """COM-2: the body's `stream: true` alone."""

    @pytest.mark.parametrize(("said", "streams"), [(True, True), (False, False), (None, False)])
    def test_it_is_what_the_body_says(self, *, said: bool | None, streams: bool) -> None:
        headers = {"Accept": "text/event-stream", "X-DashScope-SSE": "enable"}
        assert tongue.wants_stream(headers, body(stream=said)) is streams
        assert translated(body(stream=said)).stream is streams

    def test_another_type_is_refused(self) -> None:
        assert failure_of(body(stream="yes")) == refused("'stream' must be Boolean")


class TestModel:
    """COM-6."""

    @pytest.mark.parametrize("document", [{"messages": [USER]}, body(model=None), body(model="")])
    def test_none_is_told_first(self, document: Json) -> None:
        assert failure_of(document) == refused("you must provide a model parameter.", None)

    @pytest.mark.parametrize(("name", "shown"), [("gpt-4o", "gpt-4o"), ("x" * 90, "x" * 64), (5, "5"), ([], "[]")])
    def test_an_unknown_one_is_not_found(self, name: Any, shown: str) -> None:
        text = f"The model `{shown}` does not exist or you do not have access to it."
        assert failure_of(body(model=name)) == (404, "model_not_found", text)

    @pytest.mark.parametrize("name", ["DeepSeek-V3", "siliconflow/deepseek-v3", "qwen-turbo"])
    def test_it_is_kept_as_it_was_named(self, name: str) -> None:
        found = translated(body(model=name))
        assert found.model.id == "deepseek-v3"
        assert found.form == Form(name)


class TestMessages:
    """COM-7."""

    def test_none_at_all(self) -> None:
        text = 'Either "prompt" or "messages" must exist and cannot both be none'
        assert failure_of({"model": "deepseek-v3"}) == refused(text)
        assert failure_of(body() | {"messages": []}) == refused("[] is too short - 'messages'", None)

    def test_another_type(self) -> None:
        assert failure_of(body() | {"messages": "Hi"}) == refused("'messages' must be Array")
        assert failure_of(body(USER, "Hi")) == refused("'messages.[1]' must be Object")
        many = [USER] * 8_193
        assert failure_of(body() | {"messages": many}) == refused("List should have at most 8192 items: messages")

    @pytest.mark.parametrize(
        ("turn", "shown"),
        [({"role": "wizard"}, "wizard"), ({"role": "plugin"}, "plugin"), ({}, "None"), ({"role": 5}, "5")],
    )
    def test_a_role_that_is_none(self, turn: Json, shown: str) -> None:
        expected = refused(f"{shown} is not one of {ROLES} - 'messages.[1].role'", None)
        assert failure_of(body(USER, {"content": "x"} | turn)) == expected

    def test_a_developer_is_the_system(self) -> None:
        found = translated(body({"role": "developer", "content": "Be brief."}, USER))
        assert found.messages == (Message("system", "Be brief."), Message("user", "Hi"))

    def test_no_user_and_a_wrong_last_turn(self) -> None:
        system = {"role": "system", "content": "x"}
        no_user = "The input messages do not contain elements with the role of user."
        assert failure_of(body({**BEGUN, "prefix": True})) == refused(no_user)
        assert failure_of(body(USER, system))[2].startswith('Role must be in ["user"')
        assert failure_of(body(USER, BEGUN))[2].startswith('Role must be in ["user"')

    def test_parts_of_text_are_joined_whatever_else_they_hold(self) -> None:
        parts = [{"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}}, {"text": "b"}]
        assert translated(body({"role": "user", "content": parts})).messages[0].content == "ab"

    def test_a_part_that_is_no_text(self) -> None:
        image = {"type": "image_url", "image_url": {"url": "https://example.com"}}
        expected = refused("input content must be a string.")
        assert failure_of(body({"role": "user", "content": [image]})) == expected

    @pytest.mark.parametrize(
        ("content", "shown"), [({}, "an object"), (5, "an integer"), (0.5, "a number"), (True, "a boolean")]
    )
    def test_content_of_another_type(self, content: Any, shown: str) -> None:
        text = (
            "Invalid type for 'messages.[1].content': expected one of a string or array of objects, "
            f"but got {shown} instead."
        )
        assert failure_of(body(USER, {"role": "user", "content": content})) == refused(text, "invalid_type")

    def test_content_may_be_missing_beside_calls_alone(self) -> None:
        assert translated(body(USER, ASKED, TOLD)).messages[1].content is None
        assert failure_of(body({"role": "user"})) == refused("The content field is a required field.")

    def test_a_tool_answers_a_call(self) -> None:
        expected = 'messages with role "tool" must be a response to a preceeding message with "tool_calls".'
        assert failure_of(body(USER, TOLD)) == refused(expected)
        assert failure_of(body(USER, {**ASKED, "tool_calls": [5]}, TOLD)) == refused(
            "Input should be a valid dictionary: messages.[1].tool_calls.0"
        )

    @pytest.mark.parametrize("name", ["partial", "prefix"])
    def test_a_last_answer_is_gone_on_with(self, name: str) -> None:
        assert translated(body(USER, {**BEGUN, name: True})).messages[-1].partial
        thinking = body(USER, {**BEGUN, name: True}, model="deepseek-r1", enable_thinking=True)
        assert failure_of(thinking) == refused("Partial mode is not supported when enable_thinking is true")


class TestParameters:
    """COM-8: DashScope's rules, in this tongue's words."""

    @pytest.mark.parametrize(
        ("fields", "text"),
        [
            ({"temperature": 2}, "Temperature should be in [0.0, 2.0)"),
            ({"top_p": 0}, "Range of top_p should be (0.0, 1.0]"),
            ({"top_k": -1}, "Parameter top_k be greater than or equal to 0"),
            ({"max_tokens": 0}, "Range of max_tokens should be [1, 8192]"),
            ({"max_completion_tokens": 0}, "Range of max_tokens should be [1, 8192]"),
            ({"repetition_penalty": 0}, "Repetition_penalty should be greater than 0.0"),
            ({"presence_penalty": 3}, "Presence_penalty should be in [-2.0, 2.0]"),
            ({"n": 5}, "Range of n should be [1, 4]"),
            ({"top_logprobs": 6}, "Range of top_logprobs should be [0, 5]"),
            (
                {"tools": [TOOL], "tool_choice": "any"},
                'tool_choice is one of the strings that should be ["none", "auto"]',
            ),
            ({"enable_search": True}, "This model does not support enable_search."),
            ({"temperature": "warm"}, "'temperature' must be Float"),
            ({"top_k": 1.5}, "'top_k' must be Integer"),
            ({"logprobs": "true"}, "'logprobs' must be Boolean"),
            ({"enable_thinking": 1}, "'enable_thinking' must be Boolean"),
            ({"tools": 5}, "Input should be a valid list: parameters.tools"),
        ],
    )
    def test_a_wrong_one_is_refused(self, fields: Json, text: str) -> None:
        assert failure_of(body(**fields)) == refused(text)

    @pytest.mark.parametrize(
        ("seed", "text"),
        [
            (-1, "-1 is lesser than the minimum of 0 - 'seed'"),
            (2**31, "2147483648 is greater than the maximum of 2147483647 - 'seed'"),
        ],
    )
    def test_a_seed_has_a_range_of_its_own(self, seed: int, text: str) -> None:
        assert failure_of(body(seed=seed)) == refused(text, "invalid_value")
        assert translated(body(seed=2**31 - 1)).seed == 2**31 - 1

    def test_null_is_absent_and_a_numeric_string_is_the_number(self) -> None:
        assert translated(body(temperature=None, top_p="0.5", seed=None)) == translated(body(top_p=0.5))

    def test_of_two_limits_the_older_name_counts(self) -> None:
        assert translated(body(max_tokens=77, max_completion_tokens=99)).max_tokens == 77
        assert translated(body(max_completion_tokens=77)).max_tokens == 77

    def test_what_the_native_surface_demands_of_thinking_is_no_matter_here(self) -> None:
        fields = {"enable_thinking": True, "incremental_output": False, "result_format": "text"}
        assert translated(body(model="deepseek-v3.1", stream=True, **fields)).thinking
        refusal = refused("parameter.enable_thinking must be set to false for non-streaming calls")
        assert failure_of(body(model="deepseek-v3.1", **fields)) == refusal

    def test_every_parameter_of_the_native_surface_is_read_here_or_named(self) -> None:
        native = {row.theirs for row in native_parameters.ROWS}
        assert native == {row.theirs for row in parameters.TABLE.rows} | set(parameters.NATIVE_ALONE)


class TestThinking:
    """COM-9."""

    @pytest.mark.parametrize(
        ("fields", "thinks"),
        [
            ({}, False),
            ({"enable_thinking": True}, True),
            ({"thinking": {"type": "enabled"}}, True),
            ({"thinking": {"type": "disabled"}}, False),
            ({"thinking": {"type": "auto"}}, False),
            ({"thinking": {"type": "auto"}, "chat_template_kwargs": {"thinking": True}}, True),
            ({"thinking": True}, False),
            ({"chat_template_kwargs": {"enable_thinking": True}}, True),
            ({"chat_template_kwargs": {"enable_thinking": False, "thinking": True}}, False),
            ({"chat_template_kwargs": {"thinking": 1}}, False),
            ({"chat_template_kwargs": []}, False),
            ({"reasoning_effort": "high"}, False),
            ({"reasoning_effort": "none", "enable_thinking": True}, True),
            ({"enable_thinking": False, "thinking": {"type": "enabled"}}, False),
            ({"enable_thinking": None, "thinking": {"type": "enabled"}}, True),
        ],
    )
    def test_the_first_switch_that_says_something_counts(self, fields: Json, *, thinks: bool) -> None:
        assert translated(body(model="deepseek-v4-pro", **fields)).thinking is thinks

    def test_none_is_off(self) -> None:
        assert call._switch(body(reasoning_effort="none")) is False

    def test_a_model_without_it_ignores_it_and_r1_always_thinks(self) -> None:
        assert not translated(body(thinking={"type": "enabled"})).thinking
        assert translated(body(model="deepseek-r1", thinking={"type": "disabled"})).thinking


class TestForm:
    """COM-21, COM-22: what a stream tells of tokens."""

    @pytest.mark.parametrize(
        ("options", "usage", "running"),
        [
            (None, False, False),
            ({}, False, False),
            ({"include_usage": True}, True, False),
            ({"include_usage": False}, False, False),
            ({"include_usage": None}, False, False),
            ({"include_usage": True, "continuous_usage_stats": True}, True, True),
            ({"continuous_usage_stats": True}, False, False),
        ],
    )
    def test_it_is_what_the_options_say(self, options: Json | None, *, usage: bool, running: bool) -> None:
        found = translated(body(stream=True, stream_options=options))
        assert found.form == Form("deepseek-v3", usage, running)

    def test_they_are_nothing_without_a_stream(self) -> None:
        assert translated(body(stream_options=5)).form == Form("deepseek-v3")

    def test_wrong_types_are_refused(self) -> None:
        assert failure_of(body(stream=True, stream_options=5)) == refused("'stream_options' must be Object")
        wrong = body(stream=True, stream_options={"include_usage": "yes"})
        assert failure_of(wrong) == refused("'stream_options.include_usage' must be Boolean")


class TestIgnored:
    """COM-10."""

    def test_what_nobody_reads_is_named_and_changes_nothing(self) -> None:
        fields = {name: {"x": 1} for name in parameters.DROPPED} | {"whatever": 1, "nothing": None}
        found = translated(body({**USER, "name": "n", "refusal": "r", "audio": {}}, **fields))
        assert found._replace(ignored=()) == translated(body())
        assert set(found.ignored) == {*parameters.DROPPED, "whatever", "messages.refusal", "messages.audio"}

    def test_it_is_where_the_messages_or_the_fields_alone_have_it(self) -> None:
        assert translated(body(whatever=1)).ignored == ("whatever",)
        assert translated(body({**USER, "refusal": "r"})).ignored == ("messages.refusal",)

    def test_what_switches_and_shapes_is_read(self) -> None:
        fields = {"thinking": {}, "chat_template_kwargs": {}, "reasoning_effort": "low", "stream_options": {}}
        assert translated(body(stream=True, **fields)).ignored == ()


# What a call says in both tongues: messages, and fields by their native names.
TWINS: dict[str, tuple[list[Json], Json]] = {
    "plain": ([USER], {}),
    "system": ([{"role": "system", "content": "Be brief."}, USER], {}),
    "parts": ([{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}], {}),
    "history": ([USER, {"role": "assistant", "content": "Hello"}, USER], {"temperature": 0.5}),
    "sampling": ([USER], {"temperature": 0, "top_p": 0.9, "top_k": 20, "seed": 7, "repetition_penalty": 1.1}),
    "penalties": ([USER], {"presence_penalty": 1, "frequency_penalty": -1}),
    "limit": ([USER], {"max_tokens": 77}),
    "two choices": ([USER], {"n": 2}),
    "a stop": ([USER], {"stop": "\n"}),
    "many stops": ([USER], {"stop": list("abcdefghijklmnopqrst")}),
    "stops of ids": ([USER], {"stop": [[37763], [367]]}),
    "logprobs": ([USER], {"logprobs": True, "top_logprobs": 3}),
    "json": ([{"role": "user", "content": "as json"}], {"response_format": {"type": "json_object"}}),
    "schema": (
        [USER],
        {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}}},
    ),
    "tools": ([USER], {"tools": [TOOL], "tool_choice": "auto", "parallel_tool_calls": True}),
    "a forced tool": ([USER], {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "f"}}}),
    "no tool": ([USER], {"tools": [TOOL], "tool_choice": "none"}),
    "a loop": ([USER, ASKED, TOLD], {"tools": [TOOL]}),
    "thinking": ([USER], {"enable_thinking": True}),
    "a budget": ([USER], {"enable_thinking": True, "thinking_budget": 100}),
    "not thinking": ([USER], {"enable_thinking": False}),
    "a prefix": ([USER, {**BEGUN, "partial": True}], {}),
    "a chain kept": (
        [USER, {**ASKED, "content": "", "reasoning_content": "So."}, TOLD],
        {"tools": [TOOL], "enable_thinking": True},
    ),
    "search off": ([USER], {"enable_search": False}),
}


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("model", ["deepseek-v3", "deepseek-v3.1", "deepseek-r1"])
@pytest.mark.parametrize("name", TWINS)
def test_a_call_reaches_the_upstream_as_its_native_twin_does(name: str, model: str, dialect: str) -> None:
    """COM-11: byte for byte; what both refuse is refused for the same reason."""
    turns, given = TWINS[name]
    native = {"model": model, "input": {"messages": turns}, "parameters": {"incremental_output": True, **given}}
    twins: list[Any] = []
    for make in (
        lambda: dashscope.translate(native, CATALOGUE, stream=True, decode=decode),
        lambda: translated(body(*turns, model=model, stream=True, **given)),
    ):
        try:
            sent = request.order(make(), DIALECTS[dialect]).body(100)
            twins.append((sent.path, orjson.dumps(sent.json), sent.legs))
        except faults.Refusal as refusal:
            twins.append(refusal.fault)
    assert twins[0] == twins[1]


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
NAMES = [row.theirs for row in parameters.TABLE.rows] + [*call.SWITCHES, *call.READ_FIELDS, "messages"]


@settings(max_examples=300)
@given(st.dictionaries(st.sampled_from(NAMES), JSON_VALUES, max_size=4))
def test_whatever_is_said_is_a_call_or_a_refusal(fields: Json) -> None:
    try:
        told = translated(body() | fields)
    except faults.Refusal as refusal:
        told = orjson.loads(tongue.failure(refusal.fault, "r"))["error"]["message"]
    assert told


def test_the_strict_rows_are_the_models() -> None:
    """PAR-14: an operator's word counts here too."""
    assert V31.strict_thinking
    document = body(model="deepseek-v3.1", enable_thinking=True)
    assert translated(document, strict_thinking=False).thinking


def test_a_model_of_the_path_wins() -> None:
    """The plug has it for every tongue; no route of this one uses it."""
    assert translated(body(model="gpt-4o"), path_model="deepseek-r1").form == Form("deepseek-r1")


class TestImages:
    """COM-7 as amended: where the row sees."""

    PICTURE = pictures.url(pictures.PNG)
    SEEN = Image(PICTURE, "low", "png", pictures.TOKENS)

    @staticmethod
    def shown(*parts: Any, model: str = "deepseek-v4.1-flash", role: str = "user") -> Json:
        return body({"role": role, "content": [*parts]}, USER, model=model)

    def part(self, **image: Any) -> Json:
        return {"type": "image_url", "image_url": {"url": self.PICTURE} | image}

    def test_a_model_that_sees_is_shown_them_in_the_callers_order(self) -> None:
        made = translated(self.shown({"type": "text", "text": "a"}, self.part(detail="low"), {"text": "b"}))
        assert made.messages[0] == Message("user", "ab", parts=("a", self.SEEN, "b"))

    def test_a_part_that_says_something_beside_it_loses_neither(self) -> None:
        image = {"image_url": {"url": self.PICTURE, "detail": "low"}}
        said = translated(self.shown({"type": "text", "text": "a"} | image))
        assert said.messages[0] == Message("user", "a", parts=("a", self.SEEN))
        shown = translated(self.shown({"type": "image_url"} | image | {"text": "a"}))
        assert shown.messages[0] == Message("user", "a", parts=(self.SEEN, "a"))

    def test_an_address_by_itself_is_taken(self) -> None:
        made = translated(self.shown({"type": "image_url", "image_url": "https://a/b.png"}))
        assert made.images == (Image("https://a/b.png"),)

    def test_the_call_is_that_of_its_native_twin(self) -> None:
        """COM-11."""
        native = {"messages": [{"role": "user", "content": [{"image": self.PICTURE, "detail": "low"}, {"text": "b"}]}]}
        twin = multimodal.translate(
            {"model": "deepseek-v4.1-flash", "input": native}, CATALOGUE, stream=False, decode=decode
        )
        said = [{"role": "user", "content": [self.part(detail="low"), {"text": "b"}]}]
        made = translated({"model": "deepseek-v4.1-flash", "messages": said})
        bodies = [request.order(one, DIALECTS["deepseek"]).body().json for one in (made, twin)]
        assert bodies[0] == bodies[1]

    def test_others_are_refused(self) -> None:
        assert failure_of(self.shown(self.part(), model="deepseek-v3")) == refused("input content must be a string.")
        assert failure_of(self.shown(self.part(), role="system")) == refused("input content must be a string.")
        assert failure_of(self.shown({"type": "input_audio", "input_audio": {}})) == refused(
            "This model does not support audio input."
        )
        assert failure_of(self.shown({"type": "image_url", "image_url": {}})) == refused(
            "Failed to download multimodal content."
        )
