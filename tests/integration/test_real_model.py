"""Real text from a real model: `serve` before a real llama.cpp, called as a DashScope caller calls."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from proxy.downstream import paths
from proxy.simulation import llamacpp
from tests import eye, lint, needs, pictures
from translators import faults

pytestmark = needs.unless(llamacpp.available(), "the local model")

BODIES = {
    path.parent.name: json.loads(path.read_text())
    for path in sorted((Path(__file__).parents[1] / "golden" / "body" / "llamacpp").glob("*/body.json"))
}
# A model this small needs to be shown twice what a call looks like.
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


@pytest.fixture(scope="module")
def llama() -> Iterator[llamacpp.Local]:
    with llamacpp.start() as running:
        yield running


@pytest.fixture
async def url(serve: Any, llama: llamacpp.Local) -> str:
    served = await serve(llama.url, "--dialect", "llamacpp")
    return str(served.url + paths.GENERATION)


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(headers={"Authorization": "Bearer sk-test"}) as opened:
        yield opened


async def reply(session: aiohttp.ClientSession, url: str, call: dict[str, Any]) -> dict[str, Any]:
    async with session.post(url, json=call) as answer:
        document: dict[str, Any] = await answer.json()
        assert answer.status == 200, document
        return document


async def packets(session: aiohttp.ClientSession, url: str, call: dict[str, Any]) -> list[dict[str, Any]]:
    async with session.post(url, json=call, headers={"X-DashScope-SSE": "enable"}) as answer:
        stream = await answer.read()
    incremental = call["parameters"].get("incremental_output", False)
    assert lint.check(stream, incremental=incremental) == []
    data = [line[5:] for line in stream.splitlines() if line.startswith(b"data:")]
    return [json.loads(packet) for packet in data]


def call(text: str | list[dict[str, Any]], model: str = "deepseek-v3.2", **parameters: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": text}] if isinstance(text, str) else text
    return {
        "model": model,
        "input": {"messages": messages},
        "parameters": {"temperature": 0, "max_tokens": 60, **parameters},
    }


def shown(city: str) -> list[dict[str, Any]]:
    function = {"name": "get_weather", "arguments": json.dumps({"city": city})}
    return [
        {"role": "user", "content": f"What is the weather in {city}?"},
        {"role": "assistant", "content": "", "tool_calls": [{"id": city, "type": "function", "function": function}]},
        {"role": "tool", "tool_call_id": city, "content": "sunny"},
        {"role": "assistant", "content": f"It is sunny in {city}."},
    ]


def text_of(seen: list[dict[str, Any]], side: str = "content") -> str:
    return "".join(packet["output"]["choices"][0]["message"].get(side, "") for packet in seen)


async def test_a_stream_its_sum_and_the_reply_say_the_same(session: aiohttp.ClientSession, url: str) -> None:
    asked = "What is the capital of France?"
    deltas = await packets(session, url, call(asked, incremental_output=True))
    sums = await packets(session, url, call(asked))
    whole = await reply(session, url, call(asked))
    said = whole["output"]["choices"][0]["message"]["content"]
    assert "Paris" in said
    assert text_of(deltas) == sums[-1]["output"]["choices"][0]["message"]["content"] == said
    used = {name: whole["usage"][name] for name in ("input_tokens", "output_tokens", "total_tokens")}
    for last in (deltas[-1], sums[-1]):
        assert used.items() <= last["usage"].items()


async def test_a_chain_of_thought_comes_first_and_is_counted(session: aiohttp.ClientSession, url: str) -> None:
    asked = call("What is the capital of France?", enable_thinking=True, incremental_output=True)
    seen = await packets(session, url, asked)
    assert "Paris" in text_of(seen, "reasoning_content")
    details = seen[-1]["usage"]["output_tokens_details"]
    assert 0 < details["reasoning_tokens"] <= seen[-1]["usage"]["output_tokens"]


@pytest.mark.parametrize("incremental", [True, False])
async def test_a_tool_is_called(session: aiohttp.ClientSession, url: str, incremental: bool) -> None:
    turns = [*shown("Rome"), *shown("Berlin"), {"role": "user", "content": "What is the weather in Paris?"}]
    seen = await packets(session, url, call(turns, tools=[WEATHER], incremental_output=incremental))
    fragments = [
        fragment for packet in seen for fragment in packet["output"]["choices"][0]["message"].get("tool_calls", [])
    ]
    assert fragments[0]["function"]["name"] == "get_weather"
    assert json.loads("".join(part["function"]["arguments"] for part in fragments)) == {"city": "Paris"}
    assert seen[-1]["output"]["choices"][0]["finish_reason"] == "tool_calls"


async def test_two_choices_are_two_calls_and_one_prompt(session: aiohttp.ClientSession, url: str) -> None:
    whole = await reply(session, url, call("What is the capital of France?", n=2))
    assert [choice["index"] for choice in whole["output"]["choices"]] == [0, 1]
    one = await reply(session, url, call("What is the capital of France?"))
    assert whole["usage"]["input_tokens"] == one["usage"]["input_tokens"]
    assert whole["usage"]["output_tokens"] == 2 * one["usage"]["output_tokens"]


async def test_max_tokens_cuts_with_length(session: aiohttp.ClientSession, url: str) -> None:
    whole = await reply(session, url, call("Tell me a story.", max_tokens=5))
    assert whole["output"]["choices"][0]["finish_reason"] == "length"
    assert whole["usage"]["output_tokens"] == 5


@pytest.mark.parametrize("case", BODIES)
async def test_a_real_server_takes_every_body_of_its_dialect(
    session: aiohttp.ClientSession, llama: llamacpp.Local, case: str
) -> None:
    golden = BODIES[case]
    async with session.post(llama.url + golden["path"], json=golden["json"] | {"max_tokens": 8}) as answer:
        assert answer.status == 200, await answer.text()
        assert await answer.read()


@pytest.mark.parametrize("headers", [{}, {"X-DashScope-SSE": "enable"}], ids=["json", "sse"])
async def test_a_picture_for_an_engine_that_does_not_see_is_a_fault_of_the_call(
    session: aiohttp.ClientSession, url: str, headers: dict[str, str]
) -> None:
    """REQ-4, ERR-3: this one says so with status 500; whoever is told 500 would call again."""
    parts = [{"image": pictures.url(pictures.PNG)}, {"text": "What is it?"}]
    asked = call([{"role": "user", "content": parts}], "deepseek-v4.1-flash")
    async with session.post(url, json=asked, headers=headers) as answer:
        document = await answer.json()
    assert (answer.status, document["code"]) == (400, "InvalidParameter")
    assert document["message"].endswith("input content must be a string.")


@pytest.fixture
async def seeing(serve: Any, tmp_path: Path) -> AsyncIterator[str]:
    """The same before an engine that has an eye, on the path of pictures."""
    eye.write(tmp_path / "mmproj.gguf")
    with llamacpp.start(eye=tmp_path / "mmproj.gguf") as running:
        served = await serve(running.url, "--dialect", "llamacpp")
        yield str(served.url + paths.MULTIMODAL)


async def test_a_real_engine_is_shown_a_picture(session: aiohttp.ClientSession, seeing: str) -> None:
    """HTTP-3, USE-1, OUT-4: decoded and counted there, by its own rule; what it cannot see is the caller's fault."""

    def asking(picture: str) -> dict[str, Any]:
        parts = [{"image": picture}, {"text": "What is it?"}]
        return call([{"role": "user", "content": parts}], "deepseek-v4.1-flash", max_tokens=4, incremental_output=True)

    shown = asking(pictures.url(pictures.whole(64, 48)))
    usage = (await reply(session, seeing, shown))["usage"]
    assert usage["image_tokens"] >= eye.TOKENS
    assert usage["input_tokens_details"]["text_tokens"] + usage["image_tokens"] == usage["input_tokens"]
    async with session.post(seeing, json=shown, headers={"X-DashScope-SSE": "enable"}) as answer:
        data = [line[5:] for line in (await answer.read()).splitlines() if line.startswith(b"data:")]
    last = json.loads(data[-1])
    assert len(data) > 1
    assert last["output"]["choices"][0]["finish_reason"] == "length"
    assert last["usage"]["input_tokens_details"] == usage["input_tokens_details"]
    for picture, told in (
        (pictures.url(pictures.PNG), faults.IMAGE_NOT_DECODED),
        ("http://127.0.0.1:1/a.png", faults.IMAGE_NOT_LOADED),
    ):
        async with session.post(seeing, json=asking(picture)) as answer:
            assert (answer.status, (await answer.json())["message"]) == (400, told.message)
