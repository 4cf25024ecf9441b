"""Calls through LiteLLM into what their user sees."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator

# It else asks the network for prices when it is imported.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

import document
import litellm

litellm.suppress_debug_info = True


async def openai(arguments: document.Json) -> AsyncIterator[document.Json]:
    """As any server that speaks OpenAI's protocol."""
    async for told in see("openai", arguments):
        yield told


async def dashscope(arguments: document.Json) -> AsyncIterator[document.Json]:
    """By its own name for the service."""
    async for told in see("dashscope", arguments):
        yield told


async def see(provider: str, arguments: document.Json) -> AsyncIterator[document.Json]:
    """Make a call, streamed or not."""
    if arguments.pop("thinking", False):
        arguments["extra_body"] = {"enable_thinking": True}
    arguments["num_retries"] = arguments.pop("retries", 0)
    arguments["max_retries"] = 0
    if arguments["stream"]:
        arguments["stream_options"] = {"include_usage": True}
    arguments["model"] = f"{provider}/{arguments['model']}"
    leave_after = arguments.pop("leave_after", None)
    answer = litellm.completion(api_base=document.BASE_URL, **arguments)
    if not arguments["stream"]:
        yield told_of(answer, answer.choices[0].message)
        return
    chunks = []
    try:
        for chunk in answer:
            chunks.append(chunk)
            if len(chunks) == leave_after:
                break
    finally:
        if chunks:
            whole = litellm.stream_chunk_builder(chunks)
            yield told_of(whole, whole.choices[0].message)


def told_of(completion: document.Any, message: document.Any) -> document.Json:
    """A completion, or what its chunks make up."""
    return {
        "text": message.content or "",
        "reasoning": getattr(message, "reasoning_content", None) or "",
        "calls": [[call.function.name, call.function.arguments] for call in message.tool_calls or ()],
        "finish": completion.choices[0].finish_reason,
        "usage": [completion.usage.prompt_tokens, completion.usage.completion_tokens],
    }


document.write({"openai/": openai, "dashscope/": dashscope})
