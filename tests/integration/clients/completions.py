"""Calls through `chat.completions` of dashscope's second generation, native protocol, into what their user sees."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import dashscope
import document

# Native is the protocol we speak; its own retries would hide what one answer does to it.
OPTIONS = {"base_url": document.BASE_URL, "protocol": "native", "max_retries": 0}


async def client(arguments: document.Json) -> AsyncIterator[document.Json]:
    """Make a call that blocks."""
    answer = dashscope.Client(**OPTIONS).chat.completions.create(**spelled(arguments))
    for response in answer if arguments["stream"] else [answer]:
        yield packet(response)


async def async_client(arguments: document.Json) -> AsyncIterator[document.Json]:
    """Make a call that is awaited."""
    answer = await dashscope.AsyncClient(**OPTIONS).chat.completions.create(**spelled(arguments))
    if not arguments["stream"]:
        yield packet(answer)
        return
    async for response in answer:
        yield packet(response)


def spelled(arguments: document.Json) -> document.Json:
    """The call in its words: where nothing is said of a stream, it would ask for deltas."""
    if not arguments["stream"] or "incremental_output" in arguments:
        return arguments
    return arguments | {"parameters": {"incremental_output": False}}


def packet(response: Any) -> document.Json:
    """A completion or a chunk of one, in DashScope's form."""
    plain: document.Json = response.model_dump(mode="json")
    choices = plain.pop("choices")
    return {
        **plain,
        "output": {"choices": [{**each, "message": each.get("message") or each["delta"]} for each in choices]},
    }


document.write({"Client": client, "AsyncClient": async_client})
