"""Calls through LangChain's `ChatOpenAI`, and through `ChatQwen` above it, into what their user sees."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import document
from langchain_openai import ChatOpenAI
from langchain_qwq import ChatQwen


async def chat_openai(arguments: document.Json) -> AsyncIterator[document.Json]:
    """With usage in streams asked for, which it adds up."""
    thinking = {"extra_body": {"enable_thinking": True}} if arguments.pop("thinking", False) else {}
    async for told in see(ChatOpenAI, arguments, stream_usage=True, **thinking):
        yield told


async def chat_qwen(arguments: document.Json) -> AsyncIterator[document.Json]:
    """DashScope's own integration."""
    thinking = {"enable_thinking": True} if arguments.pop("thinking", False) else {}
    async for told in see(ChatQwen, arguments, **thinking):
        yield told


async def see(kind: Any, arguments: document.Json, **words: Any) -> AsyncIterator[document.Json]:
    """Make a call, streamed or not."""
    key, messages, stream = (arguments.pop(name) for name in ("api_key", "messages", "stream"))
    rest = {name: arguments.pop(name) for name in ("tools", "tool_choice") if name in arguments}
    retries, leave_after = arguments.pop("retries", 0), arguments.pop("leave_after", None)
    model = kind(base_url=document.BASE_URL, api_key=key, max_retries=retries, **arguments, **words)
    if not stream:
        yield told_of(model.invoke(messages, **rest))
        return
    message = None
    try:
        for number, chunk in enumerate(model.stream(messages, **rest), 1):
            message = chunk if message is None else message + chunk
            if number == leave_after:
                break
    finally:
        if message is not None:
            yield told_of(message)


def told_of(message: Any) -> document.Json:
    """A message, or the sum of its chunks."""
    usage = message.usage_metadata
    return {
        "text": message.text if isinstance(message.text, str) else message.text(),
        "reasoning": message.additional_kwargs.get("reasoning_content", ""),
        "calls": [[call["name"], document.json.dumps(call["args"])] for call in message.tool_calls],
        "finish": message.response_metadata.get("finish_reason"),
        "usage": usage and [usage["input_tokens"], usage["output_tokens"]],
    }


document.write({"ChatOpenAI": chat_openai, "ChatQwen": chat_qwen})
