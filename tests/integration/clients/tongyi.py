"""Calls through LangChain's `ChatTongyi` into what their user sees."""

from __future__ import annotations

import warnings
from collections.abc import AsyncIterator

import dashscope
import document
from langchain_core.messages import AIMessage, AIMessageChunk

with warnings.catch_warnings():
    # It says at each import that nobody maintains it any more.
    warnings.simplefilter("ignore", DeprecationWarning)
    from langchain_community.chat_models import ChatTongyi

dashscope.base_http_api_url = document.BASE_URL


async def chat_tongyi(arguments: document.Json) -> AsyncIterator[document.Json]:
    """Make a call, streamed or not."""
    rest = {**arguments}
    key, model, messages, stream = (rest.pop(name) for name in ("api_key", "model", "messages", "stream"))
    # Without `streaming`, `stream()` is one JSON call.
    tongyi = ChatTongyi(api_key=key, model=model, streaming=stream, max_retries=1)
    for message in tongyi.stream(messages, **rest) if stream else [tongyi.invoke(messages, **rest)]:
        yield packet(message)


def packet(message: AIMessage) -> document.Json:
    """A message or a chunk of one, in DashScope's form; what LangChain tells at the end only is None before."""
    told = message.response_metadata
    shown = {"content": message.content, **message.additional_kwargs}
    if isinstance(message, AIMessageChunk):
        shown["tool_calls"] = [
            {"index": call["index"], "id": call["id"], "function": {"name": call["name"], "arguments": call["args"]}}
            for call in message.tool_call_chunks
        ]
    choice = {"index": 0, "finish_reason": told.get("finish_reason"), "message": shown}
    return {"request_id": told.get("request_id"), "usage": told.get("token_usage"), "output": {"choices": [choice]}}


document.write({"ChatTongyi": chat_tongyi})
