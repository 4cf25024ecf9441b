"""COM-1 … COM-32, case by case, against the real process; what a chunk says is proved in `translators`.

Cases are numbered as those of the surface's specification: S1 to S40.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson
import pytest

from proxy.simulation.wire import Script
from tests import caller, needs
from tests.conftest import Served, StartServe, StartSimulator
from tests.integration.conftest import Pair
from tests.stopwatch import Stopwatch

pytestmark = pytest.mark.asyncio(loop_scope="module")

FLAGS = ("--log-level", "debug", "--usage-timeout", "0.3", "--head-hold", "0.4", "--heartbeat", "0.15")

CHAT = "/compatible-mode/v1/chat/completions"
SHORT = "/v1/chat/completions"
MODELS = "/compatible-mode/v1/models"
KNOWN = "7574ee8f-a130-4b36-b1dc-2610c5f49071"
USAGE = {"stream_options": {"include_usage": True}}
TOOL = {"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object", "properties": {}}}}
CALLS = ('get_weather {"city": "Paris"}', 'get_weather {"city": "Rome"}')
DONE = b"data: [DONE]\n\n"


TURNS = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": [{"type": "text", "text": "Weather"}, {"type": "text", "text": "?"}]},
    {
        "role": "assistant",
        "content": "",
        "reasoning_content": "I ask.",
        "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "get_weather", "arguments": "{}"}}],
    },
    {"role": "tool", "tool_call_id": "c1", "content": "Sunny."},
]
SCHEMA = {
    "type": "json_schema",
    "json_schema": {"name": "city", "schema": {"type": "object", "properties": {"city": {"type": "string"}}}},
}
BEGUN = {"role": "assistant", "content": "Once"}
# What both surfaces say of a call, and what each says in words of its own.
TWINS: Mapping[str, tuple[caller.Json, caller.Json, caller.Json]] = {
    "plain": ({}, {}, {}),
    "sampling": ({"temperature": 0.5, "top_p": 0.9, "top_k": 20, "seed": 7}, {}, {}),
    "penalties": ({"presence_penalty": 0.5, "frequency_penalty": -0.5, "repetition_penalty": 1.1}, {}, {}),
    "limit": ({"max_tokens": 77}, {}, {}),
    "limit by its newer name": ({}, {"max_tokens": 77}, {"max_completion_tokens": 77}),
    "stops": ({"stop": ["a", "b"]}, {}, {}),
    "stops as tokens": ({"stop": [[108386], [5]]}, {}, {}),
    "log probabilities": ({"logprobs": True, "top_logprobs": 3}, {}, {}),
    "a json": ({"response_format": {"type": "json_object"}}, {}, {}),
    "a schema": ({"response_format": SCHEMA}, {}, {}),
    "a tool": ({"tools": [TOOL]}, {}, {}),
    "a named tool": (
        {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "get_weather"}}},
        {},
        {},
    ),
    "several calls": ({"tools": [TOOL], "parallel_tool_calls": True}, {}, {}),
    "a chain always": ({"model": "deepseek-r1"}, {}, {}),
    "a chain where asked for": (
        {"model": "deepseek-v3.2", "enable_thinking": True, "thinking_budget": 50},
        {"incremental_output": True},
        {"stream": True},
    ),
    "a chain by DeepSeek's name": (
        {"model": "deepseek-v4-flash"},
        {"enable_thinking": True},
        {"thinking": {"type": "enabled"}},
    ),
    "no chain by an effort": ({"model": "deepseek-v4-flash"}, {"enable_thinking": False}, {"reasoning_effort": "none"}),
    "a conversation": ({"messages": TURNS, "tools": [TOOL]}, {}, {}),
    "an answer begun": ({"messages": [{"role": "user", "content": "Tell"}, {**BEGUN, "partial": True}]}, {}, {}),
    "a stream": ({}, {"incremental_output": True}, {"stream": True, "stream_options": {"include_usage": True}}),
}


def chat(text: str = "Say hello.", model: Any = "deepseek-v3", **fields: Any) -> caller.Json:
    """The body of a call."""
    return {"model": model, "messages": [{"role": "user", "content": text}], **fields}


def stream(text: str = "Say hello.", model: str = "deepseek-v3", **fields: Any) -> caller.Json:
    """The body of a call for chunks and their usage."""
    return chat(text, model, stream=True, **USAGE, **fields)


async def ask(
    pair: Pair | Served, body: caller.Json | bytes, headers: Mapping[str, str] = {}, *, path: str = CHAT, **more: Any
) -> caller.Answer:
    return await caller.ask(pair.url, body, headers, path=path, **more)


def events(answer: caller.Answer) -> list[caller.Json]:
    """The JSON of every event but `[DONE]`, which must be the last; each has exactly the form COM-15 names."""
    assert answer.status == 200, answer.body
    assert answer.headers["content-type"] == "text/event-stream;charset=UTF-8"
    *blocks, rest = answer.body.split(b"\n\n")
    assert rest == b""
    assert all(block.startswith(b"data: ") and b"\n" not in block for block in blocks)
    return [orjson.loads(block[6:]) for block in blocks if block != b"data: [DONE]"]


def deltas(answer: caller.Answer) -> list[caller.Json]:
    return [event["choices"][0]["delta"] for event in events(answer) if event.get("choices")]


def fault(answer: caller.Answer) -> tuple[int, str, str | None, str]:
    """Status, type, code and message of an error; an assertion that it has the shape of COM-25, in its order."""
    assert list(answer.json) == ["error", "id", "request_id"]
    assert list(answer.json["error"]) == ["message", "type", "param", "code"]
    assert answer.headers["x-request-id"] == answer.json["request_id"] == answer.json["id"].removeprefix("chatcmpl-")
    assert answer.headers["content-type"] == "application/json"
    error = answer.json["error"]
    return answer.status, error["type"], error["code"], error["message"]


def refused(message: str, code: str | None = "invalid_parameter_error") -> tuple[int, str, str | None, str]:
    return 400, "invalid_request_error", code, message


async def upstream_body(pair: Pair, body: caller.Json, path: str = CHAT, headers: Mapping[str, str] = {}) -> bytes:
    """What reaches the upstream of a call that is answered."""
    number = pair.next(Script(text="Hello json"))
    assert (await caller.ask(pair.url, body, headers, path=path)).status == 200
    return (await pair.upstream.call(number)).raw


class TestStream:
    """COM-2, COM-12, COM-15 to COM-22 on the wire."""

    async def test_s1_text_and_usage(self, pair: Pair) -> None:
        pair.next(Script(text="你好。", delta_chars=2))
        answer = await ask(pair, stream())
        assert deltas(answer) == [
            {"content": "", "role": "assistant"},
            {"content": "你好"},
            {"content": "。"},
            {"content": ""},
        ]
        assert [event["usage"] for event in events(answer)[:-1]] == [None] * 4
        last = events(answer)[-1]
        assert last["choices"] == []
        assert last["usage"]["total_tokens"] == last["usage"]["prompt_tokens"] + last["usage"]["completion_tokens"]
        assert answer.body.endswith(b"}\n\n" + DONE)

    @pytest.mark.parametrize("options", [{}, {"stream_options": {"include_usage": False}}], ids=["S2", "S3"])
    async def test_s2_s3_usage_is_told_where_it_is_asked_for(self, pair: Pair, options: caller.Json) -> None:
        answer = await ask(pair, chat(stream=True, **options))
        assert all(event["usage"] is None and event["choices"] for event in events(answer))
        assert answer.body.endswith(DONE)

    async def test_s4_no_header_asks_for_a_stream(self, pair: Pair) -> None:
        answer = await ask(pair, chat(), {"Accept": "text/event-stream", "X-DashScope-SSE": "enable"})
        assert answer.json["object"] == "chat.completion"

    async def test_s5_and_none_forbids_it(self, pair: Pair) -> None:
        assert events(await ask(pair, stream(), {"X-DashScope-SSE": "disable", "Accept": "application/json"}))

    async def test_s6_a_completion(self, pair: Pair) -> None:
        before_s = int(time.time())
        answer = await ask(pair, chat(model="DeepSeek-V3"))
        said = answer.json
        assert [*said] == ["choices", "object", "usage", "created", "system_fingerprint", "model", "id"]
        assert said["id"] == "chatcmpl-" + answer.headers["x-request-id"]
        assert said["system_fingerprint"] is None
        assert said["model"] == "DeepSeek-V3"
        assert before_s <= said["created"] <= time.time()
        assert [*said["choices"][0]] == ["message", "finish_reason", "index", "logprobs"]

    async def test_s7_the_callers_id_is_kept(self, pair: Pair) -> None:
        number = pair.next(Script())
        answer = await ask(pair, stream(), {"X-Request-Id": KNOWN})
        assert answer.headers["x-request-id"] == KNOWN
        assert {event["id"] for event in events(answer)} == {f"chatcmpl-{KNOWN}"}
        assert len({event["created"] for event in events(answer)}) == 1
        assert (await pair.upstream.call(number)).headers["X-Request-Id"] == KNOWN

    @pytest.mark.parametrize(
        "body",
        [
            pytest.param(stream(model="deepseek-r1"), id="S8"),
            pytest.param(stream(model="deepseek-v3.2", enable_thinking=True), id="S9"),
            pytest.param(stream(model="deepseek-v3.2", thinking={"type": "enabled"}), id="S12"),
        ],
    )
    async def test_s8_s9_s12_a_chain_comes_before_the_answer(self, pair: Pair, body: caller.Json) -> None:
        number = pair.next(Script(text="Yes.", reasoning="Well now"))
        answer = await ask(pair, body)
        first, *rest, last = deltas(answer)
        assert first == {"content": None, "role": "assistant", "reasoning_content": ""}
        assert last == {"content": "", "reasoning_content": None}
        chain = [delta for delta in rest if delta["content"] is None]
        text = rest[len(chain) :]
        assert "".join(delta["reasoning_content"] for delta in chain) == "Well now"
        assert "".join(delta["content"] for delta in text) == "Yes."
        assert all(delta["reasoning_content"] is None for delta in text)
        details = events(answer)[-1]["usage"]["completion_tokens_details"]
        assert [*details] == ["reasoning_tokens"]
        assert details["reasoning_tokens"] > 0
        assert (await pair.upstream.call(number)).body["thinking"] == {"type": "enabled"}

    async def test_s14_a_call_in_fragments(self, pair: Pair) -> None:
        """COM-19."""
        pair.next(Script(tools=CALLS[:1]))
        answer = await ask(pair, stream(tools=[TOOL]))
        pieces = [delta["tool_calls"][0] for delta in deltas(answer) if delta.get("tool_calls")]
        first, *later = pieces
        assert first["type"] == "function"
        assert first["id"]
        assert first["function"]["name"] == "get_weather"
        assert later
        assert all(piece["id"] == "" and [*piece["function"]] == ["arguments"] for piece in later)
        assert "".join(piece["function"]["arguments"] for piece in pieces) == '{"city": "Paris"}'
        assert events(answer)[-2]["choices"][0]["finish_reason"] == "tool_calls"

    @pytest.mark.parametrize(("parallel", "indices"), [(True, [0, 1]), (False, [0])], ids=["S15", "S16"])
    async def test_s15_s16_several_calls_where_they_are_asked_for(
        self, pair: Pair, indices: list[int], *, parallel: bool
    ) -> None:
        pair.next(Script(tools=CALLS))
        answer = await ask(pair, stream(tools=[TOOL], **({"parallel_tool_calls": True} if parallel else {})))
        shown = [delta["tool_calls"][0]["index"] for delta in deltas(answer) if delta.get("tool_calls")]
        assert shown == sorted(shown)
        assert sorted(set(shown)) == indices

    async def test_s17_two_choices(self, pair: Pair) -> None:
        pair.next(Script(text="one two"), Script(text="one two"))
        answer = await ask(pair, stream(n=2))
        choices = [event["choices"][0] for event in events(answer) if event["choices"]]
        for index in (0, 1):
            own = [choice for choice in choices if choice["index"] == index]
            assert [choice["delta"].get("role") for choice in own] == ["assistant", *[None] * (len(own) - 1)]
            assert [choice["finish_reason"] for choice in own] == [*[None] * (len(own) - 1), "stop"]
        assert [event["usage"]["completion_tokens"] for event in events(answer) if not event["choices"]] == [4]

    async def test_s18_usage_on_every_chunk(self, pair: Pair) -> None:
        pair.next(Script(text="one two three"))
        options = {"include_usage": True, "continuous_usage_stats": True}
        answer = await ask(pair, chat("one two three", stream=True, stream_options=options))
        told = [event["usage"]["completion_tokens"] for event in events(answer)]
        assert told == sorted(told)
        assert told[-1] == 3

    async def test_com24_silence_has_a_comment(self, pair: Pair) -> None:
        pair.next(Script(first_byte_delay_s=0.8, text="Hi"))
        answer = await ask(pair, stream())
        assert answer.body.startswith(b":heartbeat\n")
        assert answer.body.replace(b":heartbeat\n", b"").endswith(DONE)

    async def test_s32_broken_off_in_the_middle(self, pair: Pair) -> None:
        pair.next(Script(text="one two three", cut_after=3))
        answer = await ask(pair, stream())
        *shown, error = events(answer)
        assert [event["choices"][0]["delta"] for event in shown][1:] == [{"content": "one"}, {"content": " two"}]
        assert error["error"]["type"] == error["error"]["code"] == "internal_error"
        assert error["request_id"] == answer.headers["x-request-id"]
        assert DONE not in answer.body

    async def test_s33_broken_off_behind_the_finish(self, pair: Pair) -> None:
        pair.next(Script(text="one two three", usage="own", cut_after=5))
        answer = await ask(pair, stream())
        assert events(answer)[-2]["choices"][0]["finish_reason"] == "stop"
        assert events(answer)[-1]["usage"]["completion_tokens"] == 3
        assert answer.body.endswith(DONE)


class TestCall:
    """COM-3 to COM-11 on the wire."""

    NO_KEY = (
        "You didn't provide an API key. You need to provide your API key in an Authorization header using Bearer auth "
        "(i.e. Authorization: Bearer YOUR_KEY)."
    )
    FAULTS = (
        pytest.param(
            chat(model="deepseek-v3.2", enable_thinking=True),
            refused("parameter.enable_thinking must be set to false for non-streaming calls"),
            id="S10",
        ),
        pytest.param(chat(temperature=2), refused("Temperature should be in [0.0, 2.0)"), id="S19"),
        pytest.param(stream(temperature=2), refused("Temperature should be in [0.0, 2.0)"), id="S19 stream"),
        pytest.param(chat(seed=-1), refused("-1 is lesser than the minimum of 0 - 'seed'", "invalid_value"), id="S20"),
        pytest.param({"messages": []}, refused("you must provide a model parameter.", None), id="S22"),
        pytest.param(
            chat(model="gpt-4o"),
            (
                404,
                "invalid_request_error",
                "model_not_found",
                "The model `gpt-4o` does not exist or you do not have access to it.",
            ),
            id="S23",
        ),
        pytest.param(chat() | {"messages": []}, refused("[] is too short - 'messages'", None), id="S25"),
        pytest.param(
            chat() | {"messages": [*chat()["messages"], {"role": "wizard", "content": "x"}]},
            refused(
                "wizard is not one of ['system', 'assistant', 'user', 'tool', 'function'] - 'messages.[1].role'", None
            ),
            id="S26",
        ),
        pytest.param(
            b'{"model":"deepseek-v3", ',
            refused("Required body invalid, please check the request body format."),
            id="S35",
        ),
    )

    @pytest.mark.parametrize(("body", "told"), FAULTS)
    async def test_a_fault_has_its_status_and_its_words(
        self, pair: Pair, body: caller.Json | bytes, told: tuple[int, str, str | None, str]
    ) -> None:
        """COM-4 to COM-8, COM-25: the body first (COM-5), then the model, the messages, the parameters."""
        assert fault(await ask(pair, body)) == told

    async def test_s11_a_newer_model_thinks_in_a_json_call_too(self, pair: Pair) -> None:
        answer = await ask(pair, chat(model="deepseek-v4-flash", enable_thinking=True))
        assert [*answer.json["choices"][0]["message"]] == ["content", "reasoning_content", "role"]

    async def test_s13_the_services_own_switch_counts_first(self, pair: Pair) -> None:
        body = stream(model="deepseek-v3.2", enable_thinking=False, thinking={"type": "enabled"})
        assert b'"thinking":{"type":"disabled"}' in await upstream_body(pair, body)

    async def test_s21_the_largest_seed(self, pair: Pair) -> None:
        assert (await ask(pair, chat(seed=2147483647))).status == 200

    async def test_s24_a_name_is_echoed(self, pair: Pair) -> None:
        answer = await ask(pair, chat(model="deepseek-ai/DeepSeek-V3"))
        assert answer.json["model"] == "deepseek-ai/DeepSeek-V3"

    async def test_s27_a_developer_is_the_system(self, pair: Pair) -> None:
        body = chat() | {"messages": [{"role": "developer", "content": "Be brief."}, *chat()["messages"]]}
        assert orjson.loads(await upstream_body(pair, body))["messages"][0]["role"] == "system"

    @pytest.mark.parametrize("said", ["", "Bearer ", "Basic dTpw"])
    async def test_s28_no_key(self, pair: Pair, said: str) -> None:
        answer = await ask(pair, b"not JSON", {"Authorization": said})
        assert fault(answer) == (401, "invalid_request_error", None, self.NO_KEY)

    async def test_s29_a_key_that_upstream_refuses(self, pair: Pair) -> None:
        pair.next(Script(key="sk-another"))
        expected = (401, "invalid_request_error", "invalid_api_key", "Incorrect API key provided.")
        assert fault(await ask(pair, chat())) == expected

    async def test_s30_upstreams_limit(self, pair: Pair) -> None:
        pair.next(Script(status=429, retry_after="7"))
        answer = await ask(pair, stream())
        text = "You exceeded your current requests list."
        assert fault(answer) == (429, "limit_requests", "limit_requests", text)
        assert answer.headers["retry-after"] == "7"

    async def test_s31_moderation(self, pair: Pair) -> None:
        pair.next(Script(status=400, error_text="Content Exists Risk"))
        told = fault(await ask(pair, chat()))
        assert told[:3] == (400, "data_inspection_failed", "data_inspection_failed")

    @pytest.mark.parametrize("fields", [{"max_completion_tokens": 77}, {"max_tokens": 77, "max_completion_tokens": 99}])
    async def test_s34_the_limits_names(self, pair: Pair, fields: caller.Json) -> None:
        native = await upstream_body(pair, caller.call(max_tokens=77), caller.GENERATION)
        assert await upstream_body(pair, chat(**fields)) == native

    async def test_s36_what_nobody_reads_goes_nowhere_and_is_named_once(self, pair: Pair) -> None:
        fields = dict.fromkeys(("user", "store", "service_tier", "prediction", "input", "extra_body"), "x")
        headers = {
            "X-Stainless-Lang": "python",
            "OpenAI-Organization": "o",
            "X-Request-Id": (known := str(uuid.uuid4())),
        }
        plain = await upstream_body(pair, chat())
        assert await upstream_body(pair, chat(metadata={}, functions=[], **fields), headers=headers) == plain
        async with asyncio.timeout(5):
            while known not in pair.served.output:  # noqa: ASYNC110 - nothing tells that a process has logged
                await asyncio.sleep(0.01)
        lines = [line for line in pair.served.output.splitlines() if known in line and '"event":"ignored"' in line]
        assert len(lines) == 1

    async def test_com10_a_channel_of_type_ali_of_new_api(self, pair: Pair) -> None:
        """As its source has it: the test of a channel, a call that streams, and the list of the channel's models."""
        hidden = {"X-DashScope-Plugin": '{"pdf_extracter":{}}', "X-DashScope-DataInspection": '{"input":"cip"}'}
        sent = {"max_tokens": 16, "top_p": 0.001}
        plain = await upstream_body(pair, chat("hi", **sent))
        # Go says `Accept` with nothing behind it where new-api's own caller said none.
        asked = chat("hi", stream=False, enable_thinking=False, **sent)
        assert await upstream_body(pair, asked, headers={"Accept": "", **hidden}) == plain
        number = pair.next(Script(text="Yes.", reasoning="Well now"))
        asked = stream("hi", "deepseek-v3.2", enable_thinking=True, **sent)
        headers = {"Accept": "text/event-stream", "X-DashScope-SSE": "enable", **hidden}
        answer = await ask(pair, asked, headers)
        assert events(answer)[-1]["usage"]["completion_tokens_details"]["reasoning_tokens"] == 2
        call = await pair.upstream.call(number)
        assert not [name for name in call.headers if name.lower().startswith("x-dashscope")]
        listed = await ask(pair, b"", {"Accept": ""}, path=MODELS, method="GET")
        assert {"deepseek-v3", "deepseek-v3.2"} <= {row["id"] for row in listed.json["data"]}

    async def test_s37_the_short_paths(self, pair: Pair) -> None:
        assert (await ask(pair, chat(), path=SHORT)).json["object"] == "chat.completion"
        assert (await ask(pair, chat(), path=SHORT + "?api-version=1")).status == 200
        listed = await ask(pair, b"", path="/v1/models", method="GET")
        assert listed.json == (await ask(pair, b"", path=MODELS, method="GET")).json

    @pytest.mark.parametrize(
        "path", ["/v1", "/v1/", "/v1/embeddings", "/v1/files/x", "/compatible-mode/v1/responses", "/v1/completions"]
    )
    @pytest.mark.parametrize("method", ["POST", "GET", "OPTIONS"])
    async def test_s38_another_path_is_not_found_in_this_tongue(self, pair: Pair, path: str, method: str) -> None:
        answer = await ask(pair, b"", path=path, method=method)
        assert fault(answer) == (404, "NotFound", "NotFound", "Not found!")

    async def test_s38_outside_of_it_dashscopes_is_spoken(self, pair: Pair) -> None:
        answer = await ask(pair, b"", path="/api/v1/nowhere")
        assert answer.fault == (404, "NotFound", "Not found!")

    @pytest.mark.parametrize(
        ("path", "method"), [(CHAT, "GET"), (SHORT, "OPTIONS"), (MODELS, "POST"), (f"{MODELS}/a", "PUT")]
    )
    async def test_com30_a_wrong_method_is_named(self, pair: Pair, path: str, method: str) -> None:
        answer = await ask(pair, b"", path=path, method=method)
        assert fault(answer) == refused(f"Request method '{method}' is not supported.")

    async def test_s40_no_page_of_another_origin_is_let_in(self, pair: Pair) -> None:
        headers = {"Origin": "https://chat.example.com", "Access-Control-Request-Method": "POST"}
        answer = await ask(pair, b"", headers, method="OPTIONS")
        assert "access-control-allow-origin" not in answer.headers
        answer = await ask(pair, chat(), {"Origin": "https://chat.example.com"})
        assert "access-control-allow-origin" not in answer.headers

    async def test_com4_headers_that_no_upstream_can_serve(self, pair: Pair) -> None:
        answer = await ask(pair, chat(), {"X-DashScope-Async": "enable"})
        assert fault(answer)[:3] == (403, "access_denied", "access_denied")

    @pytest.mark.parametrize("name", TWINS)
    async def test_com11_twins_reach_the_upstream_alike(self, pair: Pair, name: str) -> None:
        """Twenty calls, byte for byte: what the surfaces call by one name, and what they do not."""
        shared, native_alone, here_alone = TWINS[name]
        model = shared.get("model", "deepseek-v3")
        turns = shared.get("messages", [{"role": "user", "content": "a json"}])
        fields = {field: said for field, said in shared.items() if field not in ("model", "messages")}
        native = {"model": model, "input": {"messages": turns}, "parameters": {**fields, **native_alone}}
        here = {"model": model, "messages": turns, **fields, **here_alone}
        streams = here.get("stream") is True
        before = await upstream_body(pair, native, caller.GENERATION, caller.SSE if streams else {})
        assert before == await upstream_body(pair, here)
        assert orjson.loads(before)["messages"]


class TestModels:
    """COM-29."""

    async def test_all_of_them(self, pair: Pair) -> None:
        answer = await ask(pair, b"", path=MODELS, method="GET")
        assert [*answer.json] == ["object", "data"]
        names = [row["id"] for row in answer.json["data"]]
        assert "deepseek-v3.2" in names
        row = next(row for row in answer.json["data"] if row["id"] == "deepseek-r1")
        assert row == {"id": "deepseek-r1", "object": "model", "created": 0, "owned_by": "deepseek"}

    @pytest.mark.parametrize("name", ["deepseek-r1", "DeepSeek-R1", "deepseek-ai/DeepSeek-R1"])
    async def test_one_under_the_name_asked(self, pair: Pair, name: str) -> None:
        assert (await ask(pair, b"", path=f"{MODELS}/{name}", method="GET")).json["id"] == name

    @pytest.mark.parametrize("name", ["a%0Ab", "a%0D%0AX-Y:%201", "%0A", "a%2Fb%0A", "%00", "%F0%9F%92%A9", "..%2F.."])
    async def test_any_path_below_them_is_a_name(self, pair: Pair, name: str) -> None:
        """And none of them a call by the route that has a model in its path."""
        before = len(pair.upstream.calls)
        path = f"{MODELS.removeprefix('/compatible-mode')}/{name}"
        assert fault(await ask(pair, b"", path=path, method="GET"))[:3] == (
            404,
            "invalid_request_error",
            "model_not_found",
        )
        assert fault(await ask(pair, caller.call(), path=path)) == refused("Request method 'POST' is not supported.")
        assert len(pair.upstream.calls) == before

    async def test_one_that_is_none(self, pair: Pair) -> None:
        assert fault(await ask(pair, b"", path=f"{MODELS}/gpt-4o", method="GET"))[:3] == (
            404,
            "invalid_request_error",
            "model_not_found",
        )

    async def test_a_key_is_asked_for(self, pair: Pair) -> None:
        answer = await ask(pair, b"", {"Authorization": ""}, path=MODELS, method="GET")
        assert fault(answer) == (401, "invalid_request_error", None, TestCall.NO_KEY)


class TestHttp12:
    """The two small endpoints of the native surface."""

    async def test_models_a_page_at_a_time(self, pair: Pair) -> None:
        answer = await ask(pair, b"", path="/api/v1/models?page_no=2&page_size=3", method="GET")
        assert [*answer.json] == ["output", "request_id"]
        output = answer.json["output"]
        assert (output["page_no"], output["page_size"], len(output["models"])) == (2, 3, 3)
        whole = await ask(pair, b"", path="/api/v1/models?page_size=100", method="GET")
        assert whole.json["output"]["total"] == len(whole.json["output"]["models"]) == output["total"]
        assert output["models"] == whole.json["output"]["models"][3:6]

    async def test_one_model(self, pair: Pair) -> None:
        found = await ask(pair, b"", path="/api/v1/models?model=deepseek-r1", method="GET")
        assert [row["model"] for row in found.json["output"]["models"]] == ["deepseek-r1"]
        none = await ask(pair, b"", path="/api/v1/models?model=gpt-4o", method="GET")
        assert (none.json["output"]["total"], none.json["output"]["models"]) == (0, [])

    @pytest.mark.parametrize("query", ["page_no=0", "page_size=101", "page_size=many"])
    async def test_no_such_page(self, pair: Pair, query: str) -> None:
        answer = await ask(pair, b"", path=f"/api/v1/models?{query}", method="GET")
        assert answer.fault[:2] == (400, "InvalidParameter")

    async def test_the_tokens_of_a_prompt(self, pair: Pair) -> None:
        before = len(pair.upstream.calls)
        turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes?"}]
        body = {"model": "deepseek-v3", "input": {"messages": [*turns, {"role": "user", "content": "你是谁？"}]}}
        answer = await ask(pair, body, path="/api/v1/tokenizer")
        assert [*answer.json] == ["output", "usage", "request_id"]
        output = answer.json["output"]
        assert "".join(output["tokens"]) == "你是谁？"
        assert len(output["tokens"]) == len(output["token_ids"]) == 2
        counted = (await caller.ask(pair.url, body)).json["usage"]["input_tokens"]
        assert answer.json["usage"] == {"input_tokens": counted}
        assert len(pair.upstream.calls) == before + 1

    async def test_a_long_prompt_is_counted_too(self, pair: Pair) -> None:
        body = {"model": "deepseek-v3", "input": {"prompt": "word " * 20_000}, "parameters": {"temperature": 99}}
        answer = await ask(pair, body, path="/api/v1/tokenizer")
        assert len(answer.json["output"]["token_ids"]) == pytest.approx(20_000, abs=2)
        body["input"] = {"prompt": "word " * 200_000}
        assert (
            (await ask(pair, body, path="/api/v1/tokenizer"))
            .fault[2]
            .endswith("Range of input length should be [1, 131072]")
        )

    @pytest.mark.parametrize(
        ("body", "code"),
        [
            (b"{", "InvalidParameter"),
            ({"input": {"prompt": "x"}}, "BadRequest.EmptyModel"),
            ({"model": "deepseek-v3"}, "BadRequest.EmptyInput"),
            ({"model": "gpt-4o", "input": {"prompt": "x"}}, "InvalidParameter"),
        ],
    )
    async def test_what_is_no_prompt_is_refused(self, pair: Pair, body: Any, code: str) -> None:
        assert (await ask(pair, body, path="/api/v1/tokenizer")).fault[:2] == (400, code)

    @pytest.mark.parametrize(("path", "method"), [("/api/v1/models", "GET"), ("/api/v1/tokenizer", "POST")])
    async def test_a_key_is_asked_for(self, pair: Pair, path: str, method: str) -> None:
        answer = await ask(pair, b"", {"Authorization": ""}, path=path, method=method)
        assert answer.fault == (401, "InvalidApiKey", "No API-key provided.")


def closed(path: Path) -> list[caller.Json]:
    lines = [orjson.loads(line) for line in path.read_bytes().splitlines()] if path.exists() else []
    return [line for line in lines if line["ev"] == "close"]


async def until_closed(path: Path, number: int) -> list[caller.Json]:
    async with asyncio.timeout(5):
        while len(found := closed(path)) < number:  # noqa: ASYNC110 - nothing tells that a process has written
            await asyncio.sleep(0.01)
    return found


# What the upstream of a call does before it falls silent, what the caller sees then, and what both surfaces say of it.
PLACES: Mapping[str, tuple[Script, bytes, caller.Json]] = {
    "before a packet": (Script(text="one", first_byte_delay_s=60), b"", {}),
    "in the chain": (Script(reasoning="one two three four", text="x", stall_after=4), b"three", {}),
    "in the answer": (Script(reasoning="well", text="one two three four", stall_after=5), b"three", {}),
    "in a call": (Script(reasoning="well", tools=CALLS[:1], stall_after=5), b"get_weather", {"tools": [TOOL]}),
    "before its usage": (Script(reasoning="well", text="one two", usage="own", stall_after=5), b"two", {}),
}
# Each call's own; and what the form of a surface makes of it: one begins with a chunk of its own.
OWN = frozenset({"api", "at", "call", "request_id", "t", "packets", "bytes_out"})


@pytest.mark.asyncio(loop_scope="function")
async def test_s39_who_leaves_at_the_same_place_leaves_the_same_record(
    simulator: StartSimulator, serve: StartServe, tmp_path: Path
) -> None:
    """COM-31, MET-5: but for the surface's name."""
    path = tmp_path / "calls.jsonl"
    upstream = await simulator()
    upstream.scripts.extend(script for script, *_ in PLACES.values() for _ in range(2))
    served = await serve(upstream.url, "--journal-file", str(path), "--usage-timeout", "30")
    number = 0
    for _, seen, fields in PLACES.values():
        native = caller.call("Hi", "deepseek-r1", incremental_output=True, tool_stream=True, **fields)
        here = caller.request(stream("Hi", "deepseek-r1", **fields), path=CHAT)
        for wire in (caller.request(native, caller.SSE), here):
            number += 1
            async with asyncio.timeout(10), caller.dial(served.url) as line:
                line.send(wire)
                call = await upstream.call(number)
                if seen:
                    await line.head()
                    await line.until(seen)
                await asyncio.sleep(0.2)
                watch = Stopwatch(served.process.pid)
                line.leave()
                assert await call.over() == "aborted"
                assert call.ended_s is not None
                assert watch.lap_s(call.ended_s) < 0.1
            await until_closed(path, number)
    lines = closed(path)
    for place, native_line, here_line in zip(PLACES, lines[::2], lines[1::2], strict=True):
        assert (native_line["api"], here_line["api"]) == ("dashscope", "openai")
        assert [*native_line] == [*here_line]
        for name in native_line.keys() - OWN:
            assert native_line[name] == here_line[name], (place, name)
    assert [line["outcome"] for line in lines[1::2]] == [
        "client_gone_before_first_packet",
        *["client_gone_mid_stream"] * 4,
    ]
    assert [line["usage"]["output_tokens"] for line in lines[3:6:2]] == [3, 5]


@pytest.mark.asyncio(loop_scope="function")
async def test_com32_limits_hold_for_both_and_for_what_is_asked_beside(
    simulator: StartSimulator, serve: StartServe, tmp_path: Path
) -> None:
    path = tmp_path / "calls.jsonl"
    served = await serve((await simulator()).url, "--key-limits", "rpm=3", "--journal-file", str(path))
    assert (await ask(served, chat())).status == 200
    assert (await caller.ask(served.url, caller.call())).status == 200
    assert (await ask(served, b"", path=MODELS, method="GET")).status == 200
    answer = await ask(served, stream())
    assert fault(answer)[:3] == (429, "limit_requests", "limit_requests")
    assert int(answer.headers["retry-after"]) > 0
    assert fault(await ask(served, b"", path=MODELS, method="GET"))[0] == 429
    assert (await ask(served, b"", path="/api/v1/models", method="GET")).fault[0] == 429
    # Calls alone are in the books.
    assert [line["api"] for line in await until_closed(path, 3)] == ["openai", "dashscope", "openai"]
    assert [line["code"] for line in closed(path)] == [None, None, "Throttling.RateQuota"]


@pytest.mark.asyncio(loop_scope="function")
async def test_com27_a_call_that_the_operator_must_mend_is_not_sent_again(
    simulator: StartSimulator, serve: StartServe
) -> None:
    served = await serve(
        (await simulator(Script(key="sk-another"))).url,
        *("--auth", "any"),
        env={"DASHSEEK_UPSTREAM_API_KEY": "sk-ours"},
    )
    answer = await ask(served, chat())
    assert fault(answer)[:3] == (500, "internal_error", "internal_error")
    assert answer.headers["x-should-retry"] == "false"


@pytest.mark.asyncio(loop_scope="function")
async def test_com28_a_page_of_a_named_origin_may_call_and_read(simulator: StartSimulator, serve: StartServe) -> None:
    """Preflights without a key, whatever headers they ask for; answers, errors and streams; no other origin."""
    origin = "https://chat.example.com"
    served = await serve((await simulator()).url, "--cors-origin", origin)
    asked = {
        "Origin": origin,
        "Authorization": "",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization, content-type, x-stainless-lang, x-stainless-retry-count",
    }
    for path in (CHAT, SHORT, MODELS):
        async with caller.dial(served.url) as line:
            line.send(caller.request(b"", asked, path=path, method="OPTIONS"))
            answer = await line.answer(bodiless=True)
        assert answer.status == 204
        assert answer.headers["access-control-allow-origin"] == origin
        assert answer.headers["access-control-allow-headers"] == asked["Access-Control-Request-Headers"]
        assert {"GET", "POST"} <= set(answer.headers["access-control-allow-methods"].split(", "))
        assert "access-control-allow-credentials" not in answer.headers
    for body in (chat(), stream(), chat(model="gpt-4o")):
        answer = await ask(served, body, {"Origin": origin})
        assert answer.headers["access-control-allow-origin"] == origin
        shown = answer.headers["access-control-expose-headers"].lower()
        assert "x-request-id" in shown
        assert "retry-after" in shown
        assert answer.headers["vary"] == "Origin"
        other = await ask(served, body, {"Origin": "https://evil.example.com"})
        assert "access-control-allow-origin" not in other.headers


@pytest.mark.asyncio(loop_scope="function")
async def test_com28_every_page_may_where_the_operator_says_so(simulator: StartSimulator, serve: StartServe) -> None:
    """It is told its own origin, never `*`; a caller that is no page is told nothing."""
    served = await serve((await simulator()).url, "--cors-origin", "*")
    for origin in ("https://chat.example.com", "null", "app://obsidian.md"):
        for body in (stream(), chat(seed=-1)):
            answer = await ask(served, body, {"Origin": origin})
            assert answer.headers["access-control-allow-origin"] == origin
            assert answer.headers["vary"] == "Origin"
    answer = await ask(served, chat())
    assert "access-control-allow-origin" not in answer.headers
    assert answer.headers["vary"] == "Origin"


@pytest.mark.asyncio(loop_scope="function")
async def test_com28_http15_any_page_is_refused_in_this_tongue_where_any_key_will_do(
    simulator: StartSimulator, serve: StartServe
) -> None:
    served = await serve((await simulator()).url, "--auth", "any", env={"DASHSEEK_UPSTREAM_API_KEY": "sk-ours"})
    answer = await ask(served, chat(), {"Origin": "https://evil.example.com"})
    assert fault(answer) == (403, "access_denied", "access_denied", "Access denied.")


KEYS = """
[[key]]
name = "few"
sha256 = "{few}"
models = ["deepseek-v3"]
"""


@pytest.mark.asyncio(loop_scope="function")
async def test_com29_a_key_sees_the_models_it_may_call(
    simulator: StartSimulator, serve: StartServe, tmp_path: Path
) -> None:
    keys = tmp_path / "keys.toml"
    keys.write_text(KEYS.format(few=hashlib.sha256(b"few").hexdigest()))
    served = await serve(
        (await simulator()).url,
        *("--auth", "keys", "--keys-file", str(keys), "--alias", "qwen-turbo=deepseek-v3"),
        env={"DASHSEEK_UPSTREAM_API_KEY": "sk-ours"},
    )
    headers = {"Authorization": "Bearer few"}
    listed = await ask(served, b"", headers, path=MODELS, method="GET")
    assert {row["id"] for row in listed.json["data"]} == {"deepseek-v3", "qwen-turbo"}
    assert (await ask(served, b"", headers, path=f"{MODELS}/deepseek-r1", method="GET")).status == 404
    assert (await ask(served, chat(model="deepseek-r1"), headers)).status == 403
    native = await ask(served, b"", headers, path="/api/v1/models", method="GET")
    assert native.json["output"]["total"] == 2
    body = {"model": "deepseek-r1", "input": {"prompt": "x"}}
    assert (await ask(served, body, headers, path="/api/v1/tokenizer")).fault[0] == 403
    wrong = await ask(served, b"", {"Authorization": "Bearer many"}, path=MODELS, method="GET")
    assert fault(wrong)[2] == "invalid_api_key"


@pytest.mark.asyncio(loop_scope="function")
@needs.programs("chromium")
@needs.clients("playwright")
async def test_com28_a_page_in_a_real_browser_can_call_exactly_where_its_origin_is_named(
    simulator: StartSimulator, serve: StartServe
) -> None:
    """The page is of another origin: that of an admin port."""
    browser, playwright = needs.program("chromium"), needs.client("playwright")
    upstream = await simulator(Script(text="Hello, page."))
    page = await serve(upstream.url)
    origin = page.admin_url.rstrip("/")
    named = await serve(upstream.url, "--cors-origin", origin)
    everybody = await serve(upstream.url, "--cors-origin", "*")
    unnamed = await serve(upstream.url)
    another = await serve(upstream.url, "--cors-origin", "https://chat.example.com")
    visit = await asyncio.create_subprocess_exec(
        str(playwright / "bin" / "python"),
        str(Path(__file__).parent / "clients" / "other_origin.py"),
        *(browser, f"{origin}/healthz", named.url, everybody.url, unnamed.url, another.url),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(visit.communicate(), 90)
    assert visit.returncode == 0, err.decode()
    *may, unnamed_said, another_said = orjson.loads(out)
    for seen in may:
        assert seen["status"] == 200
        assert uuid.UUID(seen["id"])
        assert seen["body"].endswith("data: [DONE]\n\n")
    assert unnamed_said == another_said == {"error": "TypeError"}
    # A browser that was not told that it may has not sent the call.
    assert len(upstream.calls) == len(may) == 2
