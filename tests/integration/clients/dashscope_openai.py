"""Calls through dashscope's second generation, OpenAI protocol, and what is asked beside them, as a user sees it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import dashscope
import document

# The native endpoints stand beside the compatible ones.
NATIVE = document.BASE_URL.replace("/compatible-mode/v1", "/api/v1")


def client(arguments: document.Json, base_url: str) -> Any:
    """One of the OpenAI protocol; its own retries would hide what one answer does to it."""
    key, retries = arguments.pop("api_key"), arguments.pop("retries", 0)
    return dashscope.Client(api_key=key, base_url=base_url, protocol="openai", max_retries=retries)


async def create(arguments: document.Json) -> AsyncIterator[document.Json]:
    """Make a call."""
    if arguments.pop("thinking", False):
        arguments["enable_thinking"] = True
    answer = client(arguments, document.BASE_URL).chat.completions.create(**arguments)
    told = document.answer()
    try:
        for response in answer if arguments["stream"] else [answer]:
            add(told, response)
    finally:
        yield told


def add(told: document.Json, response: Any) -> None:
    """A completion, or a chunk of one."""
    plain = response.model_dump(mode="json")
    if plain.get("usage"):
        told["usage"] = [plain["usage"]["input_tokens"], plain["usage"]["output_tokens"]]
    for choice in plain["choices"]:
        said = choice.get("message") or choice["delta"]
        told["text"] += said.get("content") or ""
        told["reasoning"] += said.get("reasoning_content") or ""
        if choice.get("finish_reason") not in (None, "null"):
            told["finish"] = choice["finish_reason"]
        for position, call in enumerate(said.get("tool_calls") or ()):
            index = position if call.get("index") is None else call["index"]
            if index == len(told["calls"]):
                told["calls"].append([call["function"]["name"], ""])
            told["calls"][index][1] += call["function"]["arguments"]


async def models(arguments: document.Json) -> AsyncIterator[document.Json]:
    """The models, by both generations of the SDK."""
    listed = client(dict(arguments), NATIVE).models.list(page_size=3)
    found = dashscope.Models.list(page=1, page_size=3, api_key=arguments["api_key"], base_address=NATIVE)
    one = client(dict(arguments), NATIVE).models.get("deepseek-r1")
    yield {
        "v2": [listed.total_count, [model.model for model in listed.models]],
        "v1": [found.output["total"], [model["model"] for model in found.output["models"]]],
        "one": one.model,
    }


async def tokens(arguments: document.Json) -> AsyncIterator[document.Json]:
    """The tokens of a prompt."""
    dashscope.base_http_api_url = NATIVE
    found = dashscope.Tokenization.call(
        model=arguments["model"], messages=arguments["messages"], api_key=arguments["api_key"]
    )
    yield {"status": found.status_code, "output": found.output, "usage": found.usage}


document.write({"create": create, "models": models, "tokens": tokens})
