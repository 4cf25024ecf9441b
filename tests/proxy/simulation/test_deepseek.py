"""Claims about what the stand-in says: DeepSeek's refusals word for word, and answers that keep to the body."""

from __future__ import annotations

import itertools
import string
from typing import Any

import orjson
import pytest

from proxy.simulation import deepseek, refusals
from proxy.simulation.deepseek import Json, Scale, Script
from tests import pictures
from translators import tokens
from translators.openai import dialects

ASK: Json = {"model": "deepseek-flash", "messages": [{"role": "user", "content": "Hello"}]}
PLAIN: Json = {**ASK, "thinking": {"type": "disabled"}}
WEATHER: Json = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer"}, "note": {"type": "string"}},
            "required": ["city", "days"],
        },
    },
}
ASKED: Json = {
    "role": "assistant",
    "content": None,
    "reasoning_content": "",
    "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "X"}'}}],
}
TOLD: Json = {"role": "tool", "tool_call_id": "c1", "content": "Sunny."}
FORGETFUL: Json = ASKED | {"reasoning_content": None}


@pytest.fixture
def scale(vocabulary: tokens.Vocabulary) -> Scale:
    return Scale(vocabulary)


def message(body: Json, script: Script, scale: Scale) -> Json:
    answer: Json = deepseek.completion(deepseek.compose(body, script, scale), body)["choices"][0]
    return {**answer["message"], "finish_reason": answer["finish_reason"]}


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"messages": []}, "Failed to deserialize the JSON body"),
        ({"messages": "Hello"}, "Failed to deserialize the JSON body"),
        ({"model": None}, "Failed to deserialize the JSON body"),
        ({"messages": [*ASK["messages"], "Hello"]}, "Failed to deserialize the JSON body"),
        ({"messages": [{"role": "developer"}]}, "unknown variant `developer`, expected one of `system`, `user`"),
        ({"max_tokens": 0}, "Invalid max_tokens value, the valid range of max_tokens is [1, 393216]"),
        ({"max_tokens": 393_217}, "Invalid max_tokens value, the valid range of max_tokens is [1, 393216]"),
        ({"max_tokens": "many"}, "Failed to deserialize the JSON body"),
        ({"temperature": -0.1}, "Invalid temperature value"),
        ({"temperature": 2.1}, "Invalid temperature value"),
        ({"top_p": 0}, "Invalid top_p value, the valid range of top_p is (0, 1.0]"),
        ({"top_p": 1.1}, "Invalid top_p value, the valid range of top_p is (0, 1.0]"),
        ({"n": 0}, "Invalid n value (currently only n = 1 is supported)"),
        ({"n": 2}, "Invalid n value (currently only n = 1 is supported)"),
        ({"top_logprobs": -1, "logprobs": True}, "Invalid top_logprobs value, the valid range"),
        ({"top_logprobs": 21, "logprobs": True}, "Invalid top_logprobs value, the valid range"),
        ({"top_logprobs": 1}, "logprobs must be true"),
        ({"stop": ["x"] * 17}, "at most 16"),
        ({"stream_options": {"include_usage": True}}, "stream_options should be set along with stream = true"),
        ({"response_format": {"type": "json_schema"}}, "response_format.type `json_schema` is unavailable now"),
        ({"response_format": {"type": "json_object"}}, "must contain the word 'json'"),
        ({"tools": [WEATHER, {"type": "function", "function": {"name": "no good"}}]}, "does not match pattern"),
        ({"tools": [WEATHER], "tool_choice": "required"}, "Thinking mode does not support this tool_choice"),
        (
            {"thinking": {"type": "disabled"}, "tool_choice": {"type": "function", "function": {"name": "other"}}},
            "not among the tools",
        ),
        ({"messages": [*ASK["messages"], TOLD]}, "must be a response to a preceding message"),
        (
            {"tools": [WEATHER], "messages": [*ASK["messages"], FORGETFUL, TOLD]},
            "The `reasoning_content` in the thinking mode must be passed back to the API.",
        ),
        # One turn of the running loop is enough, also where no caller has said anything.
        (
            {"tools": [WEATHER], "messages": [*ASK["messages"], FORGETFUL, TOLD, ASKED, TOLD]},
            "The `reasoning_content` in the thinking mode must be passed back to the API.",
        ),
        (
            {"tools": [WEATHER], "messages": [FORGETFUL, TOLD]},
            "The `reasoning_content` in the thinking mode must be passed back to the API.",
        ),
        ({"messages": [{"role": "assistant", "content": "I", "prefix": True}]}, "beta"),
    ],
)
def test_what_deepseek_refuses_is_refused_in_its_words(change: Json, text: str) -> None:
    """SOURCES#deepseek-request."""
    assert text in (refusals.fault(ASK | change, beta=False) or "")


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"model": "no-such-model", "top_k": 5, "seed": 1, "anything": {}},
        {"max_tokens": 393_216, "temperature": 2, "top_p": 1, "n": 1, "stop": ["x"] * 16},
        {"max_tokens": 1, "temperature": 0, "top_p": 0.01, "top_logprobs": 0, "logprobs": True, "stop": "x"},
        {"top_logprobs": 20, "logprobs": True},
        {"stream": True, "stream_options": {"include_usage": True}},
        {"tools": [WEATHER], "messages": [*ASK["messages"], ASKED, TOLD]},
        # An earlier loop may have lost its chain.
        {"tools": [WEATHER], "messages": [*ASK["messages"], FORGETFUL, TOLD, *ASK["messages"], ASKED, TOLD]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "json"}]}, *ASK["messages"]]}
        | {"response_format": {"type": "json_object"}},
        {"reasoning_effort": "none", "tools": [WEATHER], "tool_choice": "required"},
    ],
)
def test_what_deepseek_takes_is_taken(change: Json) -> None:
    assert refusals.fault(ASK | change, beta=False) is None


@pytest.mark.parametrize(
    ("dialect", "change"),
    [
        ("vllm", {"n": 4, "response_format": {"type": "json_schema"}}),
        ("sglang", {"tools": [WEATHER], "tool_choice": "required"}),
        ("ark", {"tools": [WEATHER], "messages": [*ASK["messages"], FORGETFUL, TOLD]}),
    ],
)
def test_what_another_host_takes_is_taken_by_one_that_stands_in_for_it(dialect: str, change: Json) -> None:
    host = dialects.DIALECTS[dialect]
    assert refusals.fault(ASK | change, beta=False, host=host) is None
    assert refusals.fault(ASK | change, beta=False) is not None
    assert refusals.fault(ASK | {"n": 0}, beta=False, host=dialects.DIALECTS["siliconflow"]) is not None
    assert refusals.fault(ASK | change | {"temperature": 3}, beta=False, host=host) is not None


def test_another_host_thinks_where_its_own_switch_says_so(scale: Scale) -> None:
    vllm, on = Script(dialect="vllm"), {"chat_template_kwargs": {"thinking": True, "enable_thinking": True}}
    assert "reasoning_content" not in message(ASK, vllm, scale)
    assert "reasoning_content" in message(ASK | on, vllm, scale)
    assert "reasoning_content" in message(ASK | {"model": "DeepSeek-R1"}, vllm, scale)


def test_several_choices_say_the_same_and_are_all_counted(scale: Scale) -> None:
    script = Script(dialect="vllm")
    one, two = (deepseek.compose(PLAIN | {"n": n}, script, scale) for n in (1, 2))
    assert two.usage["completion_tokens"] == 2 * one.usage["completion_tokens"]
    whole = deepseek.completion(two, PLAIN | {"n": 2})
    assert [choice["index"] for choice in whole["choices"]] == [0, 1]
    ends = [
        (choice["index"], chunk["usage"] is not None)
        for chunk in deepseek.chunks(two, PLAIN | {"n": 2, "stream_options": {"include_usage": True}}, script, scale)
        for choice in chunk["choices"]
        if choice["finish_reason"]
    ]
    assert ends == [(0, False), (1, True)]


def test_a_prompt_without_room_for_its_answer_is_told_both_lengths(scale: Scale) -> None:
    """SOURCES#deepseek-errors: the text from which proxies read the limit."""
    body, script = {**PLAIN, "max_tokens": 100}, Script(context_tokens=104)
    answer = deepseek.compose(body, script, scale)
    assert "maximum context length is 104 tokens. However, you requested 105 tokens (5 in the messages" in str(
        refusals.too_long(answer, body, script)
    )
    assert refusals.too_long(answer, body, Script(context_tokens=105)) is None
    # Of which an answer without a limit takes nothing beforehand.
    assert refusals.too_long(answer, PLAIN, Script(context_tokens=5)) is None
    assert "requested 5 tokens (5 in the messages, 0 in" in str(
        refusals.too_long(answer, PLAIN, Script(context_tokens=4))
    )
    # What is said of none is of a million, in powers of two.
    most = (1 << 20) - 5
    assert refusals.too_long(answer, PLAIN | {"max_tokens": most}, Script()) is None
    assert refusals.too_long(answer, PLAIN | {"max_tokens": most + 1}, Script()) is not None


def test_a_script_that_says_nothing_holds_nothing_back_and_breaks_nothing() -> None:
    said = [field for field in Script.__dataclass_fields__ if getattr(Script(), field)]
    assert {*said} == {
        *("repeat", "usage", "context_tokens", "dialect", "replay_content_type", "deltas_per_write"),
        *("status", "error_shape", "error_event_status", "cut_by"),
    }
    assert (Script().repeat, Script().deltas_per_write) == (1, 1)


def test_thinking_is_on_unless_switched_off(scale: Scale) -> None:
    assert "reasoning_content" in message(ASK, Script(), scale)
    for off in ({"thinking": {"type": "disabled"}}, {"reasoning_effort": "none"}):
        assert "reasoning_content" not in message(ASK | off, Script(), scale)


@pytest.mark.parametrize(
    ("last", "thinks"),
    [
        ({"role": "assistant", "content": "", "reasoning_content": "Hm.", "prefix": True}, False),
        ({"role": "assistant", "content": "", "reasoning_content": "Hm."}, False),
        ({"role": "assistant", "content": "", "prefix": True}, True),
        ({"role": "user", "content": "", "reasoning_content": "Hm."}, True),
    ],
)
def test_a_continued_turn_that_brings_its_chain_does_not_think_again(last: Json, scale: Scale, *, thinks: bool) -> None:
    """spec OUT-9: the second leg of a budget."""
    body = {**ASK, "messages": [*ASK["messages"], last]}
    assert refusals.fault(body, beta=True) is None
    assert ("reasoning_content" in message(body, Script(), scale)) is thinks


def test_the_first_tool_is_called_with_what_its_schema_requires(scale: Scale) -> None:
    answer = message({**ASK, "tools": [WEATHER]}, Script(), scale)
    assert (answer["content"], answer["finish_reason"]) == ("", "tool_calls")
    assert answer["tool_calls"][0]["function"] == {"name": "get_weather", "arguments": '{"city":"city","days":1}'}


def test_a_tool_result_is_answered_in_words(scale: Scale) -> None:
    body = {**ASK, "tools": [WEATHER], "messages": [*ASK["messages"], ASKED, TOLD]}
    assert message(body, Script(), scale)["content"] == "The tool said: Sunny."


def test_a_choice_of_tools_is_kept_to(scale: Scale) -> None:
    other = {"type": "function", "function": {"name": "other"}}
    body = {**PLAIN, "tools": [WEATHER, other]}
    named = message({**body, "tool_choice": other}, Script(), scale)
    assert named["tool_calls"][0]["function"] == {"name": "other", "arguments": "{}"}
    assert "tool_calls" not in message({**body, "tool_choice": "none"}, Script(), scale)
    assert "tool_calls" in message({**body, "tool_choice": "required"}, Script(), scale)


def test_a_script_may_call_several_tools_with_any_arguments_after_a_text(scale: Scale) -> None:
    script = Script(text="Wait.", tools=('a {"x": 1}', "b not json", "c"))
    answer = deepseek.compose(PLAIN, script, scale)
    assert [(name, "".join(arguments)) for name, arguments in answer.tools] == [
        ("a", '{"x": 1}'),
        ("b", "not json"),
        ("c", "{}"),
    ]
    assert "".join(answer.content) == "Wait."
    assert message(PLAIN, Script(text="Wait.", repeat=3), scale)["content"] == "Wait.Wait.Wait."
    deltas = [chunk["choices"][0]["delta"] for chunk in deepseek.chunks(answer, PLAIN, script, scale)]
    first, *later = [delta["tool_calls"][0] for delta in deltas if delta.get("tool_calls", [{}])[0].get("index") == 0]
    assert first["function"] == {"name": "a", "arguments": ""}
    assert all(call.keys() == {"index", "function"} for call in later)


def test_the_value_of_every_kind_of_schema_fits_it() -> None:
    schema = {
        "type": "object",
        "properties": {
            "a": {"type": "array", "items": {"type": "boolean"}, "minItems": 1},
            "b": {"type": "array"},
            "c": {"enum": ["red", "blue"]},
            "d": {"type": "object", "properties": {}, "required": ["inner"]},
            "e": {"type": "number"},
            "f": {"type": "null"},
            "g": {"type": "string", "default": "x"},
            "h": {"type": "array", "minItems": 1},
            "i": {"type": "array", "items": {"type": "boolean"}},
        },
        "required": list("abcdefghi"),
    }
    assert deepseek._sample(schema, "") == {
        "a": [True],
        "b": [],
        "c": "red",
        "d": {"inner": "inner"},
        "e": 1.5,
        "f": None,
        "g": "x",
        "h": [],
        "i": [],
    }


@pytest.mark.parametrize(
    ("max_tokens", "reasoning", "content", "completion_tokens"),
    [(1, "a", "", 1), (2, "a b", "", 2), (3, "a b", "", 3), (4, "a b", "c", 4), (5, "a b", "c d", 5)],
)
def test_max_tokens_counts_the_chain_and_its_end(
    max_tokens: int, reasoning: str, content: str, completion_tokens: int
) -> None:
    """SOURCES#answer-limit, #recorded-completions."""
    answer = deepseek.compose({**ASK, "max_tokens": max_tokens}, Script(reasoning="a b", text="c d"), Scale(None))
    assert ("".join(answer.reasoning or ()), "".join(answer.content)) == (reasoning, content)
    assert answer.usage["completion_tokens"] == completion_tokens
    assert answer.finish == ("stop" if max_tokens == 5 else "length")


def test_max_tokens_may_be_as_many_as_the_answer_has_where_nothing_is_thought() -> None:
    for max_tokens, content, finish in ((1, "c", "length"), (2, "c d", "stop")):
        answer = deepseek.compose({**PLAIN, "max_tokens": max_tokens}, Script(text="c d"), Scale(None))
        assert ("".join(answer.content), answer.usage["completion_tokens"]) == (content, max_tokens)
        assert answer.finish == finish


def test_a_tool_call_that_max_tokens_cuts_is_not_shown(scale: Scale) -> None:
    body = {**PLAIN, "tools": [WEATHER]}
    whole = deepseek.compose(body, Script(), scale)
    most = whole.usage["completion_tokens"]
    for max_tokens, tools, finish in ((20, (), "length"), (most - 1, (), "length"), (most, whole.tools, "tool_calls")):
        answer = deepseek.compose({**body, "max_tokens": max_tokens}, Script(), scale)
        assert (answer.tools, answer.finish) == (tools, finish)


@pytest.mark.parametrize(("text", "said"), [("a b", ["a", " b", "a"]), ("", [" ", " ", " "])])
def test_an_endless_answer_says_its_text_again_and_again(text: str, said: list[str]) -> None:
    """One without a word would go round for ever without a pause."""
    script, scale = Script(text=text, endless=True), Scale(None)
    _, *deltas = itertools.islice(
        deepseek.chunks(deepseek.compose(PLAIN, script, scale), PLAIN, script, scale), 1 + len(said)
    )
    assert [chunk["choices"][0]["delta"]["content"] for chunk in deltas] == said


@pytest.mark.parametrize(
    ("content", "switches"),
    [
        ('{"simulate": {"status": 429}}', {"status": 429}),
        ('{"simulate": {"status": 429}, "more": 1}', {}),
        ('{"simulate": 429}', {}),
        ("Hello", {}),
        ("[]", {}),
    ],
)
def test_a_caller_sets_switches_by_a_message_that_says_nothing_else(content: str, switches: Json) -> None:
    body = {"messages": [{"role": "user", "content": content}, {"role": "assistant", "content": "Hello"}]}
    assert deepseek.settings(body) == switches


@pytest.mark.parametrize("stop", ["said", ["Hello", "said"]])
def test_the_first_stop_ends_the_text_and_is_not_shown(stop: Any, scale: Scale) -> None:
    assert message({**PLAIN, "stop": stop}, Script(), scale)["content"] == "You "


def test_json_mode_gets_json(scale: Scale) -> None:
    body = {**PLAIN, "response_format": {"type": "json_object"}}
    assert orjson.loads(message(body, Script(), scale)["content"]) == {"you_said": "Hello"}


@pytest.mark.parametrize("text", ["a 你好 😀👨‍👩‍👧 b", "  \n\n x\t", ""])
def test_pieces_join_to_the_text_and_none_is_empty(text: str, vocabulary: tokens.Vocabulary) -> None:
    for scale in (Scale(vocabulary), Scale(None)):
        pieces = list(scale.split(text))
        assert "".join(pieces) == text
        assert all(pieces)


def test_logprobs_come_for_the_chain_and_the_text_apart(scale: Scale) -> None:
    body = {**ASK, "logprobs": True, "top_logprobs": 2}
    script = Script(reasoning="Hello", text="Yes")
    answer = deepseek.compose(body, script, scale)
    logprobs = deepseek.completion(answer, body)["choices"][0]["logprobs"]
    assert [entry["token"] for entry in logprobs["content"]] == ["Yes"]
    assert [entry["token"] for entry in logprobs["reasoning_content"]] == ["Hello"]
    assert [top["token"] for top in logprobs["content"][0]["top_logprobs"]] == ["Yes", "a"]
    least = deepseek.completion(answer, body | {"top_logprobs": 20})["choices"][0]["logprobs"]["content"][0]
    assert [top["token"] for top in least["top_logprobs"]] == ["Yes", *string.ascii_lowercase[:19]]
    assert [top["logprob"] for top in least["top_logprobs"]] == [least["logprob"] - rank for rank in range(20)]
    assert least["logprob"] == -0.25
    alone = deepseek.completion(answer, ASK | {"logprobs": True})["choices"][0]["logprobs"]["content"][0]
    assert alone == least | {"top_logprobs": []}
    _, thought, said, finish = deepseek.chunks(answer, {**body, "stream": True}, script, scale)
    assert thought["choices"][0]["logprobs"]["content"] is None
    assert said["choices"][0]["logprobs"]["reasoning_content"] is None
    assert finish["choices"][0]["logprobs"] is None


@pytest.mark.parametrize(
    ("messages", "marks"),
    [
        ([("user", "Hello")], 4),
        ([("system", "Hello"), ("user", "Hello")], 4),
        ([("user", "Hello"), ("assistant", "Hello"), ("user", "Hello")], 8),
        # The turn to continue is not ended.
        ([("user", "Hello"), ("assistant", "Hello")], 4),
    ],
)
def test_a_prompt_is_its_texts_and_the_marks_of_the_v4_template(
    messages: list[tuple[str, str]], marks: int, scale: Scale
) -> None:
    """SOURCES#chat-templates: bos, User and Assistant, think or its end; an old turn also its end of sentence."""
    body = {**PLAIN, "messages": [{"role": role, "content": content} for role, content in messages]}
    answer = deepseek.compose(body, Script(), scale)
    assert answer.usage["prompt_tokens"] == len(messages) * scale.count("Hello") + marks


def test_tools_their_results_and_a_chain_that_is_kept_count_in_the_prompt(scale: Scale) -> None:
    """SOURCES#chat-templates: a chain is kept beside tools and in the turn to continue, between two marks."""
    said = {"role": "assistant", "content": "Hello"}

    def prompt_tokens(*turns: Json, **more: object) -> int:
        body = {**PLAIN, "messages": [*PLAIN["messages"], *turns], **more}
        used: int = deepseek.compose(body, Script(), scale).usage["prompt_tokens"]
        return used

    tools = scale.count(orjson.dumps(WEATHER["function"]).decode())
    assert prompt_tokens(tools=[WEATHER]) - prompt_tokens() == tools
    thought, chain = said | {"reasoning_content": "Hm, well."}, 1 + scale.count("Hm, well.")
    ask = PLAIN["messages"][0]
    assert prompt_tokens(thought, ask) == prompt_tokens(said, ask)
    assert prompt_tokens(thought, ask, tools=[WEATHER]) - prompt_tokens(said, ask) == tools + chain
    assert prompt_tokens(thought | {"prefix": True}) - prompt_tokens(said) == chain
    result = scale.count("<tool_result>Sunny.</tool_result>")
    assert prompt_tokens(said, TOLD) - prompt_tokens(said, ask) == result - scale.count("Hello")


def test_usage_adds_up_wherever_it_comes(scale: Scale) -> None:
    body = {**ASK, "stream": True, "stream_options": {"include_usage": True}, "tools": [WEATHER]}
    script = Script(usage="every")
    answer = deepseek.compose(body, script, scale)
    for chunk in deepseek.chunks(answer, body, script, scale):
        usage = chunk["usage"]
        assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
        assert usage["completion_tokens"] >= usage["completion_tokens_details"]["reasoning_tokens"]
        assert usage["prompt_cache_hit_tokens"] + usage["prompt_cache_miss_tokens"] == usage["prompt_tokens"]
        assert usage["prompt_tokens_details"] == {"cached_tokens": usage["prompt_cache_hit_tokens"]}
    assert usage == answer.usage


def shown(*parts: Json, role: str = "user") -> Json:
    return {**PLAIN, "messages": [*PLAIN["messages"], {"role": role, "content": [*parts]}, *PLAIN["messages"]]}


def picture(url: str, **more: str) -> Json:
    return {"type": "image_url", "image_url": {"url": url, **more}}


def test_images_count_in_the_prompt_by_the_vendors_rule(scale: Scale) -> None:
    """SOURCES#images: a blank line on each side of an image is a token, the one before a text among its tokens."""
    text, seen = {"type": "text", "text": "What?"}, picture(pictures.url(pictures.PNG))

    def prompt_tokens(*parts: Json) -> int:
        used: int = deepseek.compose(shown(*parts), Script(), scale).usage["prompt_tokens"]
        return used

    assert prompt_tokens(seen, text) - prompt_tokens(text) == pictures.TOKENS + 1
    assert prompt_tokens(seen, seen, text) - prompt_tokens(seen, text) == pictures.TOKENS + 1
    assert prompt_tokens(picture("https://a/b"), text) - prompt_tokens(text) == 184 + 1


def test_images_are_refused_in_deepseeks_words() -> None:
    """SOURCES#images."""
    good = picture(pictures.url(pictures.PNG))
    assert refusals.fault(shown(good), beta=False) is None
    assert refusals.fault(shown(good, role="assistant"), beta=False) == "Image in assistant message is not supported"
    answered = {**ASK, "messages": [*ASK["messages"], {"role": "assistant", "content": "Hello"}, *ASK["messages"]]}
    assert refusals.fault(answered, beta=False) is None
    assert "unsupported image" in str(refusals.fault(shown(picture("data:image/bmp;base64,AAAA")), beta=False))
