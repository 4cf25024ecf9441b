"""`dashseek translate`: what would become of a call or of an answer, told offline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest
from click.testing import CliRunner, Result

from proxy.commands import cli

CALL: dict[str, Any] = {
    "model": "deepseek-ai/DeepSeek-V3.2",
    "input": {"messages": [{"role": "user", "content": "hi", "mood": "good"}]},
    "parameters": {
        "incremental_output": True,
        "enable_thinking": True,
        "thinking_budget": 500,
        "max_tokens": 100,
        "top_k": 20,
        "stop": ["a"],
        "heartbeat": True,
        "zzz": 1,
    },
}
STREAM = (
    b'data: {"choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]}\n\n'
    b'data: {"choices":[{"index":0,"delta":{"content":"Hi"},"finish_reason":null}]}\n\n'
    b'data: {"choices":[{"index":0,"delta":{"content":""},"finish_reason":"stop"}],'
    b'"usage":{"prompt_tokens":7,"completion_tokens":1}}\n\ndata: [DONE]\n\n'
)
COMPLETION = orjson.dumps(
    {
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 7, "completion_tokens": 1},
    }
)


def run(given: bytes, *flags: str) -> Result:
    ended = CliRunner().invoke(cli.dashseek, ["translate", *flags], input=given)
    assert ended.exception is None or isinstance(ended.exception, SystemExit)
    return ended


def explained(document: dict[str, Any], *flags: str) -> dict[str, Any]:
    result = run(orjson.dumps(document), "--json", *flags)
    assert result.exit_code == 0, result.output
    told: dict[str, Any] = orjson.loads(result.output)
    return told


def actions(told: dict[str, Any]) -> dict[str, str]:
    return {field["field"]: field["action"] for field in told["fields"] if field["field"]}


@pytest.mark.parametrize(
    ("said", "why"), [({}, "not said: a tool call leaves in one packet"), ({"tool_stream": True}, "true lets")]
)
def test_how_a_tool_call_leaves_is_told_whether_its_caller_said_so_or_not(said: dict[str, Any], why: str) -> None:
    """SSE-7: who sees pieces held reads here why they are."""
    tool = {"type": "function", "function": {"name": "f", "parameters": {}}}
    told = explained({**CALL, "parameters": {"tools": [tool], "result_format": "message", **said}}, "--sse")
    (line,) = [field for field in told["fields"] if field["field"] == "parameters.tool_stream"]
    assert (line["action"], line["upstream"], line["why"].startswith(why)) == ("kept", "", True)
    assert "parameters.tool_stream" not in actions(explained(CALL, "--sse"))


def test_every_field_of_the_call_has_one_line_with_a_reason() -> None:
    told = explained(CALL, "--sse")
    said = {"model", "input.messages", "input.messages.mood", *(f"parameters.{name}" for name in CALL["parameters"])}
    assert {field["field"] for field in told["fields"]} - {""} == said
    assert all(field["why"] for field in told["fields"] if field["action"] != "kept")


@pytest.mark.parametrize("said", [{}, {"tool_stream": None}, {"tool_stream": False}, {"tool_stream": True}], ids=str)
def test_what_is_done_to_tool_calls_unasked_is_named_once(said: dict[str, bool | None]) -> None:
    """PAR-20."""
    tools = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
    told = explained({**CALL, "parameters": {"tools": tools, **said}})
    assert [field["field"] for field in told["fields"]].count("parameters.tool_stream") == 1


def test_what_becomes_of_a_field_depends_on_the_dialect() -> None:
    assert actions(explained(CALL, "--sse"))["parameters.top_k"] == "dropped"
    assert actions(explained(CALL, "--sse", "--dialect", "vllm"))["parameters.top_k"] == "kept"


def test_the_body_is_the_one_that_would_be_sent() -> None:
    told = explained(CALL, "--sse", "--dialect", "siliconflow")
    assert told["path"] == "/chat/completions"
    assert told["body"]["thinking_budget"] == 500
    assert told["body"]["max_tokens"] == 100


def test_what_upstream_is_told_unasked_is_named_too() -> None:
    told = explained({"model": "deepseek-v3", "input": {"prompt": "hi"}})
    added = {field["upstream"]: field["why"] for field in told["fields"] if field["action"] == "added"}
    assert added == {
        "stream": "the default",
        "thinking": "always said: upstream's default is on (spec PAR-14)",
        "max_tokens": "without it, the model's answer limit (spec OUT-8)",
    }


def test_people_get_text_with_a_line_a_field() -> None:
    result = run(orjson.dumps(CALL), "--sse")
    assert result.exit_code == 0
    assert "POST /chat/completions" in result.output
    lines = [line for line in result.output.splitlines() if line.startswith("parameters.")]
    assert len(lines) == len(CALL["parameters"])


@pytest.mark.parametrize(
    ("n", "times", "told"),
    [
        (None, "", None),
        (1, "", "kept      (asked of the upstream, or asked for one by one)"),
        (2, ", 2 times", "emulated  (2 upstream calls (spec OUT-7))"),
    ],
)
def test_people_read_what_goes_upstream_and_why(n: int | None, times: str, told: str | None) -> None:
    """USE-5: the prompt is `<BOS> <User> hi <Assistant> </think>`."""
    said = {"n": n, "max_tokens": 5, "enable_thinking": False, "top_k": 1, "zzz": 1}
    call = {
        "model": "deepseek-v3.1",
        "input": {"messages": [{"role": "user", "content": "hi"}]},
        "parameters": {name: value for name, value in said.items() if value is not None},
    }
    asked, table = run(orjson.dumps(call)).output.split("\n\n")
    body = orjson.dumps(explained(call)["body"], option=orjson.OPT_INDENT_2).decode()
    assert asked == f"POST /chat/completions{times}   (5 prompt tokens)\n{body}"
    assert {line[:32].strip(): line[33:].rstrip() for line in table.splitlines()} == {
        "model": "renamed   (the id it has upstream)",
        "input.messages": "kept",
        "parameters.top_k": "dropped   (upstream does not have it)",
        "parameters.max_tokens": "kept      (without it, the model's answer limit (spec OUT-8))",
        **({"parameters.n": told} if told else {}),
        "parameters.enable_thinking": "renamed  as thinking  (always said: upstream's default is on (spec PAR-14))",
        "parameters.zzz": "dropped   (unknown here, and ignored as the service does)",
        "-": "added    as stream  (the default)",
    }


def test_where_upstream_tells_no_figures_the_prompt_is_counted(tmp_path: Path) -> None:
    """USE-1."""
    asked = tmp_path / "call.json"
    asked.write_bytes(
        orjson.dumps({"model": "deepseek-v3", "input": {"messages": [{"role": "user", "content": "hi"}]}})
    )
    untold = STREAM.replace(b',"usage":{"prompt_tokens":7,"completion_tokens":1}', b"")
    assert untold != STREAM
    packets = run(untold, "--answer", "--call", str(asked)).output.split("data:")[1:]
    counted = explained(orjson.loads(asked.read_bytes()))["input_tokens"]
    assert {orjson.loads(packet.partition("\n")[0])["usage"]["input_tokens"] for packet in packets} == {counted}


def test_without_a_call_packets_say_what_is_new_and_chunks_have_usage() -> None:
    two = STREAM.replace(
        b'data: {"choices":[{"index":0,"delta":{"content":""}',
        b'data: {"choices":[{"index":0,"delta":{"content":" you"}',
    )
    packets = [
        orjson.loads(line.removeprefix("data:"))["output"]["choices"][0]["message"]["content"]
        for line in run(two, "--answer").output.splitlines()
        if line.startswith("data:")
    ]
    assert "".join(packets) == "Hi you"
    chunks = run(two, "--answer", "--api", "openai").output
    assert '"usage":{"prompt_tokens":7,"completion_tokens":1,"total_tokens":8' in chunks


def test_a_key_that_upstream_refuses_is_taken_for_ones_own() -> None:
    """ERR-4: whoever tries an answer here has no caller to blame."""
    refused = orjson.loads(
        run(b'{"error":{"message":"Authentication Fails","type":"authentication_error"}}', "--answer").output
    )
    assert refused["code"] == "InternalError"


def test_another_model_can_be_tried() -> None:
    told = explained({"input": CALL["input"]}, "--model", "deepseek-r1")
    assert told["body"]["thinking"] == {"type": "enabled"}


@pytest.mark.parametrize("flags", [(), ("--json",)])
def test_a_refused_call_says_the_fault_and_exits_with_1(flags: tuple[str, ...]) -> None:
    result = run(b'{"model":"deepseek-v3"}', *flags)
    assert result.exit_code == 1
    assert "BadRequest.EmptyInput" in result.output
    assert "Required input parameter missing from request." in result.output


def test_a_recorded_stream_becomes_packets() -> None:
    result = run(STREAM, "--answer")
    assert result.exit_code == 0
    assert result.output.startswith("id:1\nevent:result\n:HTTP_STATUS/200\ndata:{")
    assert '"finish_reason":"stop"' in result.output.split("\n\n")[1]
    assert '"usage":{"input_tokens":7,"output_tokens":1,"total_tokens":8}' in result.output
    # Each says what is new in it: what was said stands in one of them.
    assert result.output.count('"content":"Hi"') == 1


def test_a_recorded_completion_becomes_a_reply() -> None:
    reply = orjson.loads(run(COMPLETION, "--answer").output)
    assert reply["output"]["choices"][0]["message"]["content"] == "Hi"
    assert reply["usage"]["total_tokens"] == 8


def test_an_answer_can_be_read_as_the_answer_to_a_call(tmp_path: Path) -> None:
    asked = tmp_path / "call.json"
    asked.write_bytes(orjson.dumps({"model": "deepseek-v3", "input": {"prompt": "hi"}}))
    result = run(STREAM, "--answer", "--call", str(asked))
    assert [line.count('"content":"Hi"') for line in result.output.splitlines() if line.startswith("data:")] == [1, 1]
    assert orjson.loads(run(STREAM, "--answer", "--no-sse", "--call", str(asked)).output)["usage"]["total_tokens"] == 8


def test_an_answer_that_is_a_failure_is_shown_as_the_callers_error() -> None:
    result = run(b'{"error":{"message":"Content Exists Risk","type":"invalid_request_error"}}', "--answer")
    assert result.exit_code == 1
    assert orjson.loads(result.output)["code"] == "DataInspectionFailed"


def test_wrong_settings_exit_with_2() -> None:
    assert run(b"{}", "--dialect", "klingon").exit_code == 2


CHAT: dict[str, Any] = {
    "model": "deepseek-v3.2",
    "messages": [{"role": "developer", "content": "x"}, {"role": "user", "content": "hi", "mood": "good"}],
    "stream": True,
    "stream_options": {"include_usage": True},
    "thinking": {"type": "enabled"},
    "max_completion_tokens": 100,
    "user": "u",
    "zzz": 1,
}


class TestCompatible:
    """COM-33: the second surface, by its own tables."""

    def test_every_field_has_one_line(self) -> None:
        told = explained(CHAT, "--api", "openai")
        assert actions(told) == {
            "model": "renamed",
            "messages": "kept",
            "max_completion_tokens": "emulated",
            "thinking": "renamed",
            "stream": "kept",
            "stream_options": "kept",
            "messages.mood": "dropped",
            "user": "dropped",
            "zzz": "dropped",
        }
        assert told["body"]["thinking"] == {"type": "enabled"}

    def test_an_answer_becomes_chunks_or_a_completion(self) -> None:
        stream = run(STREAM, "--api", "openai", "--answer")
        assert stream.output.startswith('data: {"choices":[{"delta":{"content":"","role":"assistant"}')
        assert stream.output.endswith("data: [DONE]\n\n")
        assert orjson.loads(run(COMPLETION, "--api", "openai", "--answer").output)["object"] == "chat.completion"

    def test_a_refusal_is_in_its_words(self) -> None:
        result = run(orjson.dumps({**CHAT, "model": "gpt-4o"}), "--api", "openai", "--json")
        assert result.exit_code == 1
        told = orjson.loads(result.output)
        assert told["error"]["code"] == "model_not_found"
        assert told["hint"].startswith("known: deepseek")

    def test_a_refusal_for_people_is_in_its_words_too(self) -> None:
        result = run(orjson.dumps({**CHAT, "model": "deepseek-v3.5"}), "--api", "openai")
        refused, hint = result.output.splitlines()
        assert refused == (
            "refused  404 invalid_request_error model_not_found: "
            "The model `deepseek-v3.5` does not exist or you do not have access to it."
        )
        assert "known: deepseek" in hint
        result = run(orjson.dumps({**CHAT, "messages": []}), "--api", "openai")
        assert result.output == "refused  400 invalid_request_error: [] is too short - 'messages'\n"
        result = run(orjson.dumps({**CHAT, "seed": -1}), "--api", "openai")
        assert result.output.startswith("refused  400 invalid_request_error invalid_value: -1 is lesser")
