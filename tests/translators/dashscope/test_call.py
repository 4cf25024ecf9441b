"""A DashScope call becomes a `Call` in full, or earns exactly the Refusal the spec names; nothing else comes out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import pictures
from translators import faults
from translators.catalogue import Catalogue
from translators.dashscope import call, parameters
from translators.dialogue import Call, Json, Message, Model, Tool

V3 = Model("deepseek-v3", "never", 65_536, 57_344, 0, 8_192, "v3")
V31 = Model("deepseek-v3.1", "hybrid", 131_072, 98_304, 32_768, 65_536, "v3.1", strict_thinking=True)
V4 = replace(V31, id="deepseek-v4-pro", strict_thinking=False)
V41 = replace(V4, id="deepseek-v4.1-flash", path="both", sees=True, template="v4.1")
R1 = Model("deepseek-r1", "always", 131_072, 98_304, 32_768, 16_384, "r1")
CATALOGUE = Catalogue([V3, V31, V4, V41, R1], {"qwen-turbo": "deepseek-v3", "qwen-max": "deepseek-v3"})

BODY_INVALID = faults.Fault(400, "InvalidParameter", "Required body invalid, please check the request body format.")
EMPTY_MODEL = faults.Fault(400, "BadRequest.EmptyModel", 'Required parameter "model" missing from request.')
EMPTY_INPUT = faults.Fault(400, "BadRequest.EmptyInput", "Required input parameter missing from request.")
UNKNOWN_MODEL = faults.Fault(400, "InvalidParameter", "Model not exist.")
NEITHER_FORM = faults.invalid('Either "prompt" or "messages" must exist and cannot both be none')
PARTIAL = faults.invalid("Partial mode is not supported when enable_thinking is true")

USER = {"role": "user", "content": "Hi"}
BEGUN = {"role": "assistant", "content": "Once", "partial": True}
SCHEMA = {"type": "object", "properties": {"location": {"type": "string"}}, "required": ["location"]}


def decode(ids: Sequence[int]) -> bytes:
    return b"".join({37763: b"\n", 367: b"\n", 7: b"\xff"}[number] for number in ids)


def body(*messages: Any, model: str = "deepseek-v3", **given: Any) -> Json:
    return {"model": model, "input": {"messages": list(messages or (USER,))}, "parameters": given}


def translated(document: Any, **options: Any) -> Call:
    """As the shell does it: from bytes on."""
    options = dict[str, Any](stream=False, decode=decode) | options
    return call.translate(call.read(orjson.dumps(document)), CATALOGUE, **options)


def fault_of(document: Any, **options: Any) -> faults.Fault:
    with pytest.raises(faults.Refusal) as refusal:
        translated(document, **options)
    return refusal.value.fault


def test_half_a_surrogate_pair_becomes_the_replacement_character() -> None:
    """REQ-10: names of fields and of everything a tool says as well."""
    raw = rb'{"model":"deepseek-v3","input":{"messages":[{"role":"user","content":"Hi \ud83d"}],"\ude00":[1.5]}}'
    made = call.translate(call.read(raw), CATALOGUE, stream=False, decode=decode)
    assert made.messages[0].content == "Hi \ufffd"
    assert made.ignored == ("input.\ufffd",)


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"model=deepseek-v3", id="a form"),
        pytest.param(b'{"model": "deepseek-v3",}', id="a trailing comma"),
        pytest.param(b'{"a": NaN}', id="NaN"),
        pytest.param(b'{"a": 1e999}', id="infinity"),
        pytest.param(b'{"a": "\xff"}', id="bad UTF-8"),
        pytest.param(rb'{"a": "\ud800", "b": 1e999}', id="half a surrogate pair, and infinity"),
        pytest.param(b'{"a":' * 900 + rb'"\ud800"' + b"}" * 900, id="half a surrogate pair, too deep"),
        pytest.param(b"\xef\xbb\xbf{}", id="a byte order mark"),
        pytest.param(b'{"a":' * 2_000 + b"1" + b"}" * 2_000, id="too deep to read"),
        pytest.param(b'{"a":' * 300 + b"1" + b"}" * 300, id="too deep to send on"),
        pytest.param(b"[]", id="a list"),
        pytest.param(b'"{}"', id="a string"),
        pytest.param(b"null", id="null"),
    ],
)
def test_a_body_that_is_no_json_object_is_refused(raw: bytes) -> None:
    """REQ-1"""
    with pytest.raises(faults.Refusal) as refusal:
        call.read(raw)
    assert refusal.value.fault == BODY_INVALID


@pytest.mark.parametrize(("levels", "is_read"), [(254, True), (255, False)])
@pytest.mark.parametrize("beside", [0, 10_000], ids=["short", "long"])
def test_a_body_is_as_deep_as_can_be_written(levels: int, beside: int, *, is_read: bool) -> None:
    """REQ-1: what is read and cannot go upstream is refused at once; of a short one as of a long one."""
    raw = b'{"a":' + b"[" * (levels - 1) + b"]" * (levels - 1) + b',"b":"%b"}' % (b"x" * beside)
    if is_read:
        assert call.read(raw).keys() == {"a", "b"}
    else:
        with pytest.raises(faults.Refusal) as refusal:
            call.read(raw)
        assert refusal.value.fault == BODY_INVALID


def test_a_refused_body_is_not_quoted_in_the_log() -> None:
    """MET-4"""
    with pytest.raises(faults.Refusal) as refusal:
        call.read(b'{"secret": tell}')
    assert "secret" not in str(refusal.value)
    assert "tell" not in str(refusal.value)


@pytest.mark.parametrize(
    ("document", "fault"),
    [
        ({}, EMPTY_MODEL),
        ({"model": None, "input": {}}, EMPTY_MODEL),
        ({"model": "", "input": {}}, EMPTY_MODEL),
        ({"model": "gpt-5"}, EMPTY_INPUT),
        ({"model": "deepseek-v3", "input": None}, EMPTY_INPUT),
        ({"model": "deepseek-v3", "input": "Hi"}, BODY_INVALID),
        ({"model": "deepseek-v3", "input": []}, BODY_INVALID),
        ({"model": "gpt-5", "input": {}}, UNKNOWN_MODEL),
        ({"model": 7, "input": {}}, UNKNOWN_MODEL),
        ({"model": "deepseek-v3", "input": {}}, NEITHER_FORM),
        (
            {"model": "deepseek-v3", "input": {}, "parameters": []},
            faults.invalid("Input should be a valid dictionary: parameters"),
        ),
        ({"model": "deepseek-v3", "input": {}, "parameters": {"temperature": 9}}, NEITHER_FORM),
    ],
)
def test_structural_faults_come_first_and_in_order(document: Json, fault: faults.Fault) -> None:
    """REQ-1, MOD-2, REQ-8"""
    assert fault_of(document) == fault


@pytest.mark.parametrize("document", [{}, {"parameters": None}, {"parameters": {}}])
def test_parameters_may_be_absent(document: Json) -> None:
    """REQ-1"""
    document = {"model": "DeepSeek-V3", "input": {"messages": [USER]}} | document
    assert translated(document) == Call(V3, (Message("user", "Hi"),), stream=False, asked_model="DeepSeek-V3")


def test_what_is_not_said_is_not_asked_for() -> None:
    """PAR-8, PAR-10, PAR-13, PAR-17, PAR-18, PAR-20: the defaults of the service."""
    made = translated({"model": "deepseek-v3", "input": {"messages": [USER]}}, stream=True)
    said = {"n": 1, "tool_choice": "auto", "asked_model": "deepseek-v3", "stream": True}
    assert {
        name: value for name, value in made._asdict().items() if name not in ("model", "messages") and value
    } == said
    (message,) = made.messages
    assert (message.partial, message.parts, message.tool_calls) == (False, (), ())
    assert (V3.strict_thinking, V3.sees) == (False, False)


@pytest.mark.parametrize("model", ["gpt-5", "", None, 7])
def test_the_model_in_the_path_wins(model: Any) -> None:
    """HTTP-2"""
    document = body() | {"model": model}
    assert translated(document, path_model="siliconflow/deepseek-r1").model is R1


def test_an_unknown_model_in_the_path_is_refused_whatever_the_body_says() -> None:
    """HTTP-2, MOD-2"""
    assert fault_of(body(), path_model="gpt-5") == UNKNOWN_MODEL


@pytest.mark.parametrize("stream", [True, False])
def test_the_headers_alone_ask_for_a_stream(stream: bool) -> None:
    """HTTP-5"""
    assert translated(body(stream=not stream) | {"stream": not stream}, stream=stream).stream is stream


@pytest.mark.parametrize(
    ("model", "thinking"), [("deepseek-v3", False), ("deepseek-v3.1", False), ("deepseek-r1", True)]
)
def test_a_call_thinks_by_the_models_nature_without_a_flag(model: str, thinking: bool) -> None:
    """PAR-14"""
    assert translated(body(model=model)).thinking is thinking


def test_the_operator_may_let_strict_models_think_in_json_calls() -> None:
    """PAR-14"""
    document = body(model="deepseek-v3.1", enable_thinking=True)
    assert fault_of(document).message.endswith("must be set to false for non-streaming calls")
    assert translated(document, strict_thinking=False).thinking is True


def test_a_continued_answer_is_partial() -> None:
    """REQ-6"""
    assert translated(body(USER, BEGUN)).messages[-1] == Message("assistant", "Once", partial=True)


@pytest.mark.parametrize("model", ["deepseek-r1", "deepseek-v3.1", "deepseek-v4-pro"])
def test_a_model_that_can_think_refuses_to_continue_while_asked_to(model: str) -> None:
    """REQ-6: before any parameter is looked at."""
    assert fault_of(body(USER, BEGUN, model=model, enable_thinking=True, temperature=9)) == PARTIAL


@pytest.mark.parametrize(
    ("model", "given"),
    [
        ("deepseek-v3", {"enable_thinking": True}),
        ("deepseek-r1", {}),
        ("deepseek-r1", {"enable_thinking": False}),
        ("deepseek-v3.1", {"enable_thinking": False}),
    ],
)
def test_any_other_continuation_is_accepted(model: str, given: dict[str, Any]) -> None:
    """REQ-6"""
    assert translated(body(USER, BEGUN, model=model, **given)).messages[-1].partial


def test_message_faults_come_before_parameter_faults() -> None:
    """REQ rules before PAR rules."""
    assert fault_of(body({"role": "user"}, temperature=9)) == faults.invalid("The content field is a required field.")


def test_what_is_not_understood_is_named_once_and_never_quoted() -> None:
    """HTTP-8"""
    document = body(USER | {"mood": "secret"}, USER | {"mood": "secret"}, kwargs={}, foo="secret", seed=None, top_p=0.5)
    document = document | {"stream": True, "resources": [], "model": "deepseek-v3", "nothing": None}
    document["input"]["history"] = ["secret"]
    assert translated(document).ignored == (
        "stream",
        "resources",
        "input.history",
        "input.messages.mood",
        "parameters.kwargs",
        "parameters.foo",
    )


def test_names_that_are_not_understood_are_kept_few_and_short() -> None:
    """HTTP-8"""
    many: Json = {f"{number:03}" + "x" * 10_000: 1 for number in range(1_000)}
    ignored = translated(body(**many)).ignored
    assert len(ignored) == 32
    assert {len(name) for name in ignored} == {80}


def test_every_name_dropped_at_the_top_has_a_reason() -> None:
    """HTTP-8"""
    assert all(call.DROPPED.values())
    assert not call.DROPPED.keys() & call.READ_FIELDS


def tool_turns(**fields: Any) -> list[Json]:
    made = {"id": "get_weather", "type": "function", "function": {"name": "get_weather", "arguments": "{}"}}
    return [USER, {"role": "assistant", "tool_calls": [made]} | fields]


CLIENTS = {
    "Dify": body(
        *tool_turns(content=" "),
        {"role": "tool", "content": "sun", "name": "get_weather"},
        model="qwen-turbo",
        stream=True,
        incremental_output=False,
        result_format="message",
        tools=[
            {
                "type": "function",
                "function": {
                    "name": "get_weather",
                    "parameters": {"location": {"type": "string"}},
                    "required": ["location"],
                },
            }
        ],
    ),
    "LlamaIndex": body(
        {"role": "user", "content": [{"type": "text", "text": "Hi"}]}, kwargs={}, result_format="message"
    ),
    "LangChain.js": body(stream=True, result_format="text", top_p=0.8, incremental_output=True, enable_search=False),
    "AgentScope": body(
        *tool_turns(content=[{"text": None}]),
        {"role": "tool", "tool_call_id": "get_weather", "content": "sun", "name": "get_weather"},
        incremental_output=False,
        result_format="message",
    )
    | {"resources": []},
    "Spring": body(
        {"role": "user", "content": [{"type": "text", "text": "Hi", "cache_control": {"type": "ephemeral"}}]},
        stop=[],
        seed=None,
        max_tokens=None,
        tools=[{"type": "function", "function": {"name": "f", "description": "", "parameters": SCHEMA}}],
        vl_high_resolution_images=False,
    ),
    "Python SDK": {
        "model": "deepseek-v3",
        "input": {"prompt": "Hi", "history": [{"user": "a", "bot": "b"}]},
        "parameters": {"stream": True, "heartbeat": True, "plugins": "{}"},
        "stream": True,
    },
    ".NET": body(
        model="qwen-max",
        result_format="message",
        seed=1234,
        max_completion_tokens=1_500,
        top_p=0.8,
        top_k=100,
        repetition_penalty=1.1,
        temperature=0.85,
        stop=[[37763, 367]],
        enable_search=False,
        incremental_output=True,
        parallel_tool_calls=True,
    ),
    "v4 thinks in a JSON call": body(
        model="deepseek-v4-pro", incremental_output=False, enable_thinking=True, max_completion_tokens=20
    ),
    "r1 with the flag": body(model="deepseek-r1", enable_thinking=True),
    "calls without content": body(*tool_turns(), {"role": "tool", "content": "sun", "tool_call_id": "get_weather"}),
}


@pytest.mark.parametrize("client", CLIENTS)
def test_what_real_clients_send_is_accepted(client: str) -> None:
    """SOURCES#client-requests"""
    assert isinstance(translated(CLIENTS[client]), Call)


def test_difys_tools_arrive_whole() -> None:
    """SOURCES#dify-tools: the schema is wrapped, the result finds its call, the alias its model."""
    made = translated(CLIENTS["Dify"])
    assert made.model is V3
    assert made.tools == (Tool("get_weather", {"name": "get_weather", "parameters": SCHEMA}),)
    assert made.messages[-1] == Message("tool", "sun", tool_call_id="get_weather")
    assert made.ignored == ("parameters.stream",)


def test_a_recorded_call_arrives_whole() -> None:
    """SOURCES#recorded-call"""
    assert translated(CLIENTS[".NET"], stream=True) == Call(
        V3,
        (Message("user", "Hi"),),
        stream=True,
        incremental=True,
        max_tokens=1_500,
        temperature=0.85,
        top_p=0.8,
        top_k=100,
        seed=1_234,
        repetition_penalty=1.1,
        stops=("\n\n",),
        parallel_tool_calls=True,
        asked_model="qwen-max",
    )


def test_langchains_orphaned_result_is_refused_as_the_service_would() -> None:
    """SOURCES#langchain-tools"""
    document = body(USER, {"role": "assistant", "content": ""}, {"role": "tool", "content": "a", "tool_call_id": "b"})
    text = 'messages with role "tool" must be a response to a preceeding message with "tool_calls".'
    assert fault_of(document) == faults.invalid(text)


NAMES = sorted(
    {
        *("model", "input", "parameters", "messages", "prompt", "history", "user", "bot", "role", "content", "type"),
        *("text", "tool_calls", "tool_call_id", "id", "name", "function", "arguments", "reasoning_content", "partial"),
        *("json_schema", "required", "properties"),
        *(name for row in parameters.ROWS for name in (row.theirs, *row.aliases)),
        *parameters.DROPPED,
    }
)
WORDS = [
    *("user", "assistant", "tool", "function", "system", "auto", "none", "required", "text", "json_object"),
    *("json_schema", "json", "deepseek-v3", "deepseek-r1", "deepseek-v3.1", "get_weather", "search", "nan", "1e999"),
]
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(WORDS)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
)
KEYS = st.sampled_from(NAMES) | st.text(st.characters(exclude_categories=["Cs"]), max_size=4)
ANY_JSON = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=5), max_leaves=24
)


def holds_together(made: Call) -> bool:
    """What the rooms after this one rely on."""
    answered = {message.tool_call_id for message in made.messages if message.role == "tool"}
    called = {asked.id for message in made.messages for asked in message.tool_calls}
    return (
        answered == called
        and all(message.content is not None or message.tool_calls for message in made.messages)
        and all(made.stops)
        and len(made.ignored) <= 32
        and (made.thinking_budget is None or made.thinking)
    )


def a_call_or_a_refusal(document: Any) -> bool:
    try:
        return holds_together(translated(document, stream=True))
    except faults.Refusal as refusal:
        return refusal.fault.status == 400 and refusal.fault.blame == "caller"


@given(document=ANY_JSON)
@settings(max_examples=150)
def test_any_json_gives_a_call_or_a_refusal(document: Any) -> None:
    assert a_call_or_a_refusal(document)


@given(
    model=st.sampled_from(["deepseek-v3", "deepseek-v3.1", "deepseek-v4-pro", "deepseek-r1"]),
    source=st.fixed_dictionaries({}, optional={"messages": ANY_JSON, "prompt": ANY_JSON, "history": ANY_JSON}),
    values=st.dictionaries(KEYS, ANY_JSON, max_size=6),
)
@settings(max_examples=150)
def test_any_input_and_parameters_give_a_call_or_a_refusal(model: str, source: Json, values: Json) -> None:
    assert a_call_or_a_refusal({"model": model, "input": source, "parameters": values})


def replaced(value: Any, path: Sequence[int], by: Any) -> Any:
    """The same JSON with the value at a path replaced; the path's numbers pick children, as far as there are any."""
    if not path or not isinstance(value, dict | list) or not value:
        return by
    keys = list(value) if isinstance(value, dict) else list(range(len(value)))
    key = keys[path[0] % len(keys)]
    child = replaced(value[key], path[1:], by)
    if isinstance(value, dict):
        return value | {key: child}
    return [child if place == key else other for place, other in enumerate(value)]


@given(client=st.sampled_from(sorted(CLIENTS)), path=st.lists(st.integers(0, 20), min_size=1, max_size=8), by=ANY_JSON)
@settings(max_examples=250)
def test_a_real_call_with_anything_in_the_place_of_a_value_gives_a_call_or_a_refusal(
    client: str, path: list[int], by: Any
) -> None:
    assert a_call_or_a_refusal(replaced(CLIENTS[client], path, by))


@pytest.mark.parametrize(("given", "route", "shown"), [(None, None, False), (None, "x/deepseek-r1", True)])
def test_calls_of_tools_come_whole_unless_pieces_are_asked_for(
    given: bool | None, route: str | None, *, shown: bool
) -> None:
    """PAR-20: the partner's route sends pieces by default."""
    assert translated(body(tool_stream=given), path_model=route).tool_stream is shown
    for said in (True, False):
        assert translated(body(tool_stream=said), path_model=route).tool_stream is said


def test_the_model_is_known_as_it_was_asked_for() -> None:
    """MOD-6: the log tells a dated name from its row."""
    made = translated(body(model="Vendor/DeepSeek-V4-Pro-0813"))
    assert (made.model, made.asked_model) == (V4, "Vendor/DeepSeek-V4-Pro-0813")


def test_a_prompt_is_read_without_its_parameters() -> None:
    """HTTP-12."""
    document = body(model="deepseek-r1", temperature=99)
    assert call.prompted(document, CATALOGUE) == Call(R1, (Message("user", "Hi"),), stream=False, thinking=True)


@pytest.mark.parametrize("path", ["text", "multimodal"])
@pytest.mark.parametrize(("bound", "elsewhere"), [("text", "multimodal"), ("multimodal", "text"), ("both", "")])
def test_a_model_is_called_on_the_path_of_its_row(bound: Any, elsewhere: str, path: Any) -> None:
    """HTTP-3; the route with a model in its path takes all."""
    models = Catalogue([replace(V3, path=bound)])
    document = call.read(orjson.dumps(body()))
    options: dict[str, Any] = {"stream": False, "decode": decode, "path": path}
    assert call.translate(document, models, path_model="deepseek-v3", **options).model.path == bound
    if path == elsewhere:
        with pytest.raises(faults.Refusal) as refusal:
            call.translate(document, models, **options)
        assert refusal.value.fault == faults.WRONG_ENDPOINT
        assert f"the {bound} path" in refusal.value.cause
    else:
        assert call.translate(document, models, **options).model.path == bound


def test_what_is_counted_without_a_call_may_show_images_as_well() -> None:
    """HTTP-12."""
    picture = {"image": pictures.url(pictures.PNG)}
    document = body({"role": "user", "content": [picture, {"text": "What?"}]}, model="deepseek-v4.1-flash")
    assert call.prompted(call.read(orjson.dumps(document)), CATALOGUE).image_tokens == pictures.TOKENS


def test_images_are_countable_where_the_size_of_each_is_known() -> None:
    """USE-1: nobody fetches one to know."""
    picture, address = {"image": pictures.url(pictures.PNG)}, {"image": "https://example.org/a.png"}

    def asked(*parts: Any) -> Call:
        return translated(body({"role": "user", "content": [*parts]}, model="deepseek-v4.1-flash"))

    assert (asked({"text": "a"}).image_tokens, asked({"text": "a"}).is_countable) == (None, True)
    assert (asked(picture, picture).image_tokens, asked(picture).is_countable) == (2 * pictures.TOKENS, True)
    assert (asked(picture, address).image_tokens, asked(picture, address).is_countable) == (pictures.TOKENS, False)
    assert (asked(address).image_tokens, asked(address).is_countable) == (None, False)
