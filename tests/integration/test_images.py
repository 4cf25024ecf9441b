"""Images by both surfaces, before the simulator, which counts and refuses them as DeepSeek's renderer does.

The SDK's `MultiModalConversation` in every form, its second generation, the command line that probes for a model's
path, and the calls of Dify's plugin for models that see. No model that sees could be had as a package: what upstream
says of a picture is the simulator's; a real engine with an eye of zero weights is asked in `test_real_model`.

Source: spec HTTP-3, REQ-4, REQ-11, COM-7, USE-1; SOURCES#images, #multimodal-path.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import orjson
import pytest

from proxy.downstream import paths
from proxy.metering import ledger
from proxy.simulation import deepseek
from tests import caller, needs, pictures
from tests.conftest import StartServe, StartSimulator
from tests.integration import scripts

pytestmark = pytest.mark.timeout(scripts.CALLS_TIMEOUT_S + 60)

Json = dict[str, Any]

MODEL = "deepseek-v4.1-flash"
PICTURE = pictures.url(pictures.PNG)
QUESTION = "What is it?"
# One token for each mark of the prompt, the blank line behind the picture with the question.
PROMPT = 9 + pictures.TOKENS


def asking(*parts: Json, model: str = MODEL, **parameters: object) -> Json:
    return {
        "model": model,
        "input": {"messages": [{"role": "user", "content": list(parts)}]},
        "parameters": parameters,
    }


def part(url: str = PICTURE) -> Json:
    return {"image": url}


async def shown(url: str, body: Json, *, stream: bool = False, path: str = paths.MULTIMODAL) -> caller.Answer:
    return await caller.ask(url, body, caller.SSE if stream else {}, path=path)


async def test_what_is_shown_is_counted_told_and_written_down(
    simulator: StartSimulator, serve: StartServe, tmp_path: Path
) -> None:
    """HTTP-3, USE-1, MET-3: on every packet what upstream says at the end, for the picture came along."""
    upstream, books = await simulator(), tmp_path / "calls.jsonl"
    front = await serve(upstream.url, "--journal-file", str(books))
    answer = await shown(front.url, asking(part(), {"text": QUESTION}, incremental_output=True), stream=True)
    packets = caller.packets(answer.body)
    (call,) = upstream.calls
    assert [packet["usage"]["input_tokens"] for packet in packets] == [call.prompt_tokens] * len(packets)
    assert call.prompt_tokens == PROMPT
    assert all(packet["usage"]["image_tokens"] == pictures.TOKENS for packet in packets)
    text = "".join(said["text"] for packet in packets for said in packet["output"]["choices"][0]["message"]["content"])
    assert text == f"You said: {QUESTION}"
    assert await asyncio.to_thread(front.end) == 0
    close = orjson.loads(books.read_bytes().splitlines()[1])
    assert (close["usage"]["input_tokens"], close["usage"]["image_tokens"]) == (PROMPT, pictures.TOKENS)
    assert (close["drift_tokens"], close["basis"]) == (0, "upstream_final")
    assert ledger.read([books], rules=ledger.RULES).violations == []


async def test_an_address_is_passed_on_and_counted_by_upstream_alone(
    simulator: StartSimulator, serve: StartServe
) -> None:
    """USE-1, USE-5: nothing is fetched; the text's count runs, upstream's wins, and no later prompt learns of it."""
    upstream = await simulator()
    front = await serve(upstream.url)
    body = asking(part("https://example.invalid/a.png"), {"text": QUESTION}, incremental_output=True)
    for _ in range(3):
        answer = await shown(front.url, body, stream=True)
        first, *_, last = caller.packets(answer.body)
        assert (first["usage"]["input_tokens"], last["usage"]["input_tokens"]) == (9, 9 + 184)
        assert last["usage"]["input_tokens_details"] == {"text_tokens": 9, "image_tokens": 184}
        assert "image_tokens" not in first["usage"]
    assert upstream.calls[-1].body["messages"][0]["content"][0] == {
        "type": "image_url",
        "image_url": {"url": "https://example.invalid/a.png"},
    }


async def test_a_picture_by_address_is_billed_where_a_chain_was_left_at_its_budget(
    simulator: StartSimulator, serve: StartServe, tmp_path: Path
) -> None:
    """OUT-9, USE-1, MET-3: the first upstream call ends before it tells; the second one's prompt says what it had."""
    upstream, books = await simulator(), tmp_path / "calls.jsonl"
    front = await serve(upstream.url, "--journal-file", str(books))
    text = {"text": "hello there my friend"}
    # What the simulator's template has not is learned of a picture that came along.
    assert (await shown(front.url, asking(part(), text, enable_thinking=True))).status == 200
    body = asking(part("https://example.invalid/a.png"), text, enable_thinking=True, thinking_budget=4)
    reply = (await shown(front.url, body)).json
    last = caller.packets((await shown(front.url, body, stream=True)).body)[-1]
    first, second = (call.prompt_tokens for call in upstream.calls[1:3])
    assert (first, second) == (9 + 184, 9 + 184 + 4 + 2)
    assert await asyncio.to_thread(front.end) == 0
    lines = map(orjson.loads, books.read_bytes().splitlines())
    closes = [line for line in lines if "generated" in line][1:]
    for usage, close in zip((reply["usage"], last["usage"]), closes, strict=True):
        assert (usage["input_tokens"], usage["image_tokens"]) == (first, 184)
        assert usage["input_tokens_details"] == {"text_tokens": 9, "image_tokens": 184}
        assert (close["usage"]["input_tokens"], close["usage"]["image_tokens"]) == (first, 184)
        assert [call["prompt"] for call in close["calls"]] == [first, second]
        assert close["generated"]["input_tokens"] == first + second
    assert ledger.read([books], rules=ledger.RULES).violations == []


async def test_each_surface_takes_them_and_each_path_its_models(simulator: StartSimulator, serve: StartServe) -> None:
    """HTTP-3, COM-7: the same upstream body, whichever way it came."""
    upstream = await simulator()
    front = await serve(upstream.url)
    native = asking(part(), {"text": QUESTION})
    compatible = {
        "model": MODEL,
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "image_url", "image_url": {"url": PICTURE}},
                    {"type": "text", "text": QUESTION},
                ],
            }
        ],
    }
    ways = {
        paths.MULTIMODAL: native,
        caller.GENERATION: native,
        f"/siliconflow/models/{MODEL}": native,
        "/compatible-mode/v1/chat/completions": compatible,
    }
    for path, body in ways.items():
        answer = await shown(front.url, body, path=path)
        assert answer.status == 200, (path, answer.body)
    bodies = [call.body["messages"] for call in upstream.calls]
    assert bodies[1:] == bodies[:-1]
    wrong = await shown(front.url, asking({"text": "a"}, model="deepseek-v4-pro"))
    assert wrong.fault == (400, "InvalidParameter", "url error, please check url！")
    blind = await shown(front.url, asking(part(), model="deepseek-v4-pro"), path=caller.GENERATION)
    assert blind.fault[2].endswith("input content must be a string.")
    assert len(upstream.calls) == len(ways)


async def test_they_are_bounded_in_bytes_number_and_kind(simulator: StartSimulator, serve: StartServe) -> None:
    """REQ-4, REQ-11: beside the text, which keeps its own bound; before upstream is asked."""
    upstream = await simulator()
    flags = ("--max-body-bytes", "20kB", "--max-image-bytes", "60kB", "--max-images", "3", "--image-type", "png")
    front = await serve(upstream.url, *flags)
    large = pictures.url(pictures.PNG + bytes(24_000))
    long = {"text": "word " * 6_000}

    async def refusal(body: Json, path: str = paths.MULTIMODAL) -> str:
        answer = await shown(front.url, body, path=path)
        return "" if answer.status == 200 else answer.fault[2].rpartition(": ")[2]

    assert await refusal(asking(part(large), {"text": "a"})) == ""
    assert await refusal(asking(part(large), part(large), {"text": "a"})) == "Multimodal file size is too large"
    for path in (caller.GENERATION, f"/siliconflow/models/{MODEL}"):
        assert await refusal(asking(part(large), {"text": "a"}), path) == ""
        assert await refusal(asking(part(large), part(large)), path) == "Multimodal file size is too large"
        assert await refusal(asking(part(), long), path) == "Payload Too Large."
    blind = asking(part(large), model="deepseek-v3")
    assert await refusal(blind, caller.GENERATION) == "input content must be a string."
    assert await refusal(asking(long)) == "Payload Too Large."
    assert await refusal(asking(part(), long)) == "Payload Too Large."
    assert await refusal(asking(part(large), part(large), long)) == "Payload Too Large."
    assert await refusal(asking(*[part()] * 3)) == ""
    assert "got 4" in await refusal(asking(*[part()] * 4))
    other = await refusal(asking(part(pictures.url(pictures.GIF, "image/png"))))
    assert other == "The media format is not supported or incorrect for the data inspection."
    assert len(upstream.calls) == 4
    # As PHP writes JSON.
    escaped = orjson.dumps(asking(part(large), {"text": "a"})).replace(b"/", b"\\/")
    assert (await caller.ask(front.url, escaped, path=paths.MULTIMODAL)).status == 200


async def test_an_operator_may_have_none_fetched(simulator: StartSimulator, serve: StartServe) -> None:
    """REQ-4: an engine of one's own would ask what only it can reach."""
    upstream = await simulator()
    front = await serve(upstream.url, "--image-address", "refuse")
    answer = await shown(front.url, asking(part("http://127.0.0.1:9/a.png"), {"text": QUESTION}))
    assert answer.fault[2].endswith("Failed to download multimodal content.")
    assert (await shown(front.url, asking(part(), {"text": QUESTION}))).status == 200
    assert len(upstream.calls) == 1


async def test_where_nothing_sees_a_body_is_one_of_text(
    simulator: StartSimulator, serve: StartServe, tmp_path: Path
) -> None:
    """REQ-11: nobody may send more for the sake of images that no model takes."""
    rows = tmp_path / "models.toml"
    rows.write_text(f'[[model]]\nid = "{MODEL}"\nsees = false\n')
    front = await serve((await simulator()).url, "--models-file", str(rows), "--max-body-bytes", "20kB")
    answer = await shown(front.url, asking(part(pictures.url(pictures.PNG + bytes(30_000)))))
    assert answer.fault[2] == "Payload Too Large."


# What a user of the SDK asks, by the name of the form.
FORMS: dict[str, Json] = {
    "reply": {"stream": False},
    "deltas": {"stream": True, "incremental_output": True},
    "snapshots": {"stream": True, "incremental_output": False},
    "unsaid": {"stream": True},
}
CASES = {
    f"{kind}, {form}": {
        "model": MODEL,
        "api_key": "sk-x",
        "messages": [{"role": "user", "content": [*content, {"text": QUESTION}]}],
        **how,
        **more,
    }
    for form, how in FORMS.items()
    for kind, content, more in (
        ("picture", [part()], {}),
        ("text", [], {}),
        ("thinking", [part()], {"enable_thinking": True}),
    )
}
REFUSED = {
    "another path": CASES["text, reply"] | {"model": "deepseek-v4-pro"},
    "video": CASES["text, reply"] | {"messages": [{"role": "user", "content": [{"video": "https://a/b.mp4"}]}]},
}


SDKS = [pytest.param(name, marks=needs.clients(name)) for name in ("dashscope-1", "dashscope-2")]


@pytest.mark.parametrize("client", SDKS)
@pytest.mark.parametrize("api", ["MultiModalConversation", "AioMultiModalConversation"])
async def test_the_sdk_is_answered_in_every_form(
    client: str, api: str, simulator: StartSimulator, serve: StartServe
) -> None:
    """HTTP-3: whole in order, in parts, with the usage of each packet."""
    front = await serve((await simulator()).url)
    calls = {name: {"api": api, "arguments": arguments} for name, arguments in (CASES | REFUSED).items()}
    seen = await scripts.run(f"{front.url}/api/v1", client, "multimodal.py", calls)
    for name, arguments in CASES.items():
        told = seen[name]
        assert told["failure"] is None, (name, told["failure"])
        packets = told["packets"]
        parts = [packet["output"]["choices"][0]["message"]["content"] for packet in packets]
        assert all(isinstance(content, list) for content in parts), name
        texts = ["".join(said["text"] for said in content) for content in parts]
        whole = "".join(texts) if arguments.get("incremental_output") else texts[-1]
        assert whole == f"You said: {QUESTION}", (name, texts)
        usage = packets[-1]["usage"]
        shows = pictures.TOKENS if name.startswith(("picture", "thinking")) else 0
        assert (usage.get("image_tokens") or 0) == shows, name
        assert usage["input_tokens"] == usage["input_tokens_details"]["text_tokens"] + shows, name
        if name.startswith("thinking"):
            chains = [packet["output"]["choices"][0]["message"].get("reasoning_content") or "" for packet in packets]
            chain = "".join(chains) if arguments.get("incremental_output") else chains[-1]
            assert "The user wrote" in chain, name
    assert "url error, please check url" in seen["another path"]["failure"]["text"]
    assert "This model does not support video input." in seen["video"]["failure"]["text"]


@needs.clients("dashscope-2")
async def test_the_second_generation_chooses_the_path_by_what_is_shown(
    simulator: StartSimulator, serve: StartServe
) -> None:
    """HTTP-3: text goes to the text path, anything shown to the other; the row is called on both."""
    upstream = await simulator()
    front = await serve(upstream.url)
    content = [{"type": "image_url", "image_url": {"url": PICTURE}}, {"type": "text", "text": QUESTION}]
    calls = {
        f"{name}, {stream}": {
            "api": "Client",
            "arguments": {
                "model": MODEL,
                "api_key": "sk-x",
                "stream": stream,
                "messages": [{"role": "user", "content": said}],
            },
        }
        for name, said in (("picture", content), ("text", QUESTION))
        for stream in (False, True)
    }
    seen = await scripts.run(f"{front.url}/api/v1", "dashscope-2", "completions.py", calls)
    for name, told in seen.items():
        assert told["failure"] is None, (name, told["failure"])
        choices = [choice for packet in told["packets"] for choice in packet["output"]["choices"]]
        assert QUESTION in "".join(str(choice["message"]["content"] or "") for choice in choices), name


@needs.clients("dashscope-2")
async def test_the_command_line_that_probes_finds_each_models_path(
    simulator: StartSimulator, serve: StartServe
) -> None:
    """HTTP-3: by `url error`, as JSON before any packet, also where a stream was asked for."""
    front = await serve((await simulator()).url)
    calls = {
        f"{model}, {stream}": {
            "api": "TongyiProvider",
            "arguments": {
                "model": model,
                "api_key": "sk-x",
                "stream": stream,
                "messages": [{"role": "user", "content": QUESTION}],
            },
        }
        for model in (MODEL, "deepseek-v4-pro")
        for stream in (False, True)
    }
    seen = await scripts.run(front.url, "dashscope-2", "prober.py", calls)
    for name, told in seen.items():
        assert told["failure"] is None, (name, told["failure"])
        (answer,) = told["packets"]
        assert answer["text"] == f"You said: {QUESTION}", name
        expected = paths.MULTIMODAL if name.startswith(MODEL) else caller.GENERATION
        assert answer["path"] == expected, name


# Recorded from Dify's Tongyi plugin 0.2.13 with a row of its own for the model, by the SDK 1.26.7: a text of one blank
# beside calls, a tool turn with the call's id for a name; the picture by address, for any other it uploads first.
DIFY: Json = {
    "model": MODEL,
    "parameters": {"stream": False, "temperature": 0.3, "incremental_output": False},
    "input": {
        "messages": [
            {"role": "system", "content": [{"text": "You look."}]},
            {"role": "user", "content": [{"image": "https://example.invalid/a.png"}, {"text": QUESTION}]},
            {
                "role": "assistant",
                "content": [{"text": " "}],
                "tool_calls": [{"id": "call_1", "type": "function", "function": {"name": "look", "arguments": "{}"}}],
            },
            {"role": "tool", "content": "a dog", "name": "call_1"},
            {"role": "user", "content": [{"text": QUESTION}]},
        ]
    },
}
DIFYS_TOOL: Json = {
    "type": "function",
    "function": {
        "name": "look",
        "description": "Look",
        "parameters": {"q": {"description": "", "type": "string"}},
        "required": ["q"],
    },
}


async def test_difys_calls_for_models_that_see_are_answered(simulator: StartSimulator, serve: StartServe) -> None:
    """HTTP-3, REQ-5; of a reply it reads the first part unasked, also beside a call of a tool."""
    upstream = await simulator(lambda body: deepseek.Script(tools=("look {}",) if body.get("tools") else ()))
    front = await serve(upstream.url)
    reply = await shown(front.url, DIFY)
    assert reply.json["output"]["choices"][0]["message"]["content"][0]["text"] == f"You said: {QUESTION}"
    assert upstream.calls[0].body["messages"][3] == {"role": "tool", "content": "a dog", "tool_call_id": "call_1"}
    called = DIFY | {"parameters": DIFY["parameters"] | {"tools": [DIFYS_TOOL]}}
    message = (await shown(front.url, called)).json["output"]["choices"][0]["message"]
    assert message["content"][0]["text"] == ""
    assert message["tool_calls"][0]["function"]["name"] == "look"
    packets = caller.packets((await shown(front.url, DIFY, stream=True)).body)
    assert packets[-1]["output"]["choices"][0]["message"]["content"] == [{"text": f"You said: {QUESTION}"}]
