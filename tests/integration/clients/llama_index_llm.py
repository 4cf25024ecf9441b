"""Calls through LlamaIndex's `DashScope` into what their user sees."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import dashscope
import document
from llama_index.core.llms import ChatMessage
from llama_index.llms.dashscope import DashScope

dashscope.base_http_api_url = document.BASE_URL


async def complete(arguments: document.Json) -> AsyncIterator[document.Json]:
    """Complete the last message, as one reply."""
    answer = llm(arguments).complete(arguments["messages"][-1]["content"])
    yield packet(answer.raw, answer.text)


async def chat(arguments: document.Json) -> AsyncIterator[document.Json]:
    """Make a call, streamed or not."""
    messages = [ChatMessage(**message) for message in arguments["messages"]]
    if not arguments["stream"]:
        answer = llm(arguments).chat(messages)
        yield packet(answer.raw, answer.message.content)
        return
    for delta in llm(arguments).stream_chat(messages):
        yield packet(delta.raw, delta.delta)


def llm(arguments: document.Json) -> DashScope:
    """The model, with what it takes of the arguments."""
    options = {name: arguments[name] for name in ("api_key", "max_tokens") if name in arguments}
    return DashScope(model_name=arguments["model"], **options)


def packet(response: Any, text: str | None) -> document.Json:
    """What the response holds, with the text LlamaIndex shows of it; it hides a failure in an empty message."""
    plain: document.Json = json.loads(json.dumps(response))
    if not plain["output"]:
        raise document.Failed(plain)
    (choice,) = plain["output"]["choices"]
    return {**plain, "output": {"choices": [{**choice, "message": {**choice["message"], "content": text}}]}}


document.write({"complete": complete, "chat": chat})
