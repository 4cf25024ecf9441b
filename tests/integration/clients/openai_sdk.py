"""Calls through the OpenAI SDK into what their user sees."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import document
import openai


def client(kind: Any, arguments: document.Json) -> Any:
    """A client of either kind; its own retries would hide what one answer does to it, unless they are asked for."""
    return kind(
        base_url=document.BASE_URL, api_key=arguments.pop("api_key"), max_retries=arguments.pop("retries", 0)
    ).chat.completions


def spelled(arguments: document.Json) -> document.Json:
    """The call in its words."""
    if arguments.pop("thinking", False):
        arguments["extra_body"] = {"enable_thinking": True}
    if arguments["stream"]:
        arguments["stream_options"] = {"include_usage": True}
    return arguments


async def create(arguments: document.Json) -> AsyncIterator[document.Json]:
    """`create`, blocking; a stream may be left after some chunks."""
    leave_after = arguments.pop("leave_after", None)
    answer = client(openai.OpenAI, arguments).create(**spelled(arguments))
    if not arguments["stream"]:
        yield whole(answer)
        return
    told = document.answer()
    try:
        for number, chunk in enumerate(answer, 1):
            add(told, chunk)
            if number == leave_after:
                answer.close()
                break
    finally:
        yield told


async def create_async(arguments: document.Json) -> AsyncIterator[document.Json]:
    """The same, awaited."""
    answer = await client(openai.AsyncOpenAI, arguments).create(**spelled(arguments))
    if not arguments["stream"]:
        yield whole(answer)
        return
    told = document.answer()
    try:
        async for chunk in answer:
            add(told, chunk)
    finally:
        yield told


async def helper(arguments: document.Json) -> AsyncIterator[document.Json]:
    """The helper for streams, which joins every string that comes again."""
    arguments = spelled(arguments)
    del arguments["stream"]
    with client(openai.OpenAI, arguments).stream(**arguments) as events:
        for _ in events:
            pass
        yield whole(events.get_final_completion())


async def raw(arguments: document.Json) -> AsyncIterator[document.Json]:
    """`with_raw_response`: what the head says is what the body does."""
    answer = client(openai.OpenAI, arguments).with_raw_response.create(**spelled(arguments))
    completion = answer.parse()
    assert completion.id == f"chatcmpl-{answer.headers['x-request-id']}"
    assert completion._request_id == answer.headers["x-request-id"]
    yield whole(completion)


def whole(completion: Any) -> document.Json:
    """A completion."""
    (choice,) = completion.choices
    message = choice.message
    return {
        "text": message.content or "",
        "reasoning": getattr(message, "reasoning_content", None) or "",
        "calls": [[call.function.name, call.function.arguments] for call in message.tool_calls or ()],
        "finish": choice.finish_reason,
        "usage": [completion.usage.prompt_tokens, completion.usage.completion_tokens],
    }


def add(told: document.Json, chunk: Any) -> None:
    """A chunk to what has come before it."""
    if chunk.usage is not None:
        assert told["usage"] is None
        told["usage"] = [chunk.usage.prompt_tokens, chunk.usage.completion_tokens]
    for choice in chunk.choices:
        told["text"] += choice.delta.content or ""
        told["reasoning"] += getattr(choice.delta, "reasoning_content", None) or ""
        told["finish"] = choice.finish_reason or told["finish"]
        for call in choice.delta.tool_calls or ():
            if call.index == len(told["calls"]):
                told["calls"].append([call.function.name, ""])
            told["calls"][call.index][1] += call.function.arguments


document.write({"create": create, "create, awaited": create_async, "stream helper": helper, "raw response": raw})
