"""DashScope calls through `chat.completions.create` of the SDK's second generation, into what its user sees.

Usage: completions.py http://HOST:PORT/api/v1 < CALLS, where CALLS is {NAME: {"api": …, "arguments": {…}}}; prints
{NAME: {"packets": […], "failure": {…} or null}}, a reply being one packet.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from typing import Any

import dashscope
from dashscope.v2 import errors

Json = dict[str, Any]

# Its own retries would hide what a single answer does to it.
OPTIONS = {"base_url": sys.argv[1], "protocol": "native", "max_retries": 0}


async def see(call: Json) -> Json:
    """Make one call."""
    packets, failure = [], None
    try:
        async for response in RESPONSES[call["api"]](call["arguments"]):
            packets.append(packet(response.model_dump(mode="json")))
    except errors.DashScopeError as error:
        failure = {
            "kind": type(error).__name__,
            "status": error.status_code,
            "code": error.code,
            "message": error.message,
            "request_id": error.request_id,
        }
    return {"packets": packets, "failure": failure}


def packet(response: Json) -> Json:
    """A completion or a chunk of it, in the form it had on the wire."""
    choices = [
        {"message": choice.get("message") or choice.get("delta"), **choice} for choice in response.pop("choices")
    ]
    return {**response, "output": {"choices": choices}}


async def sync(arguments: Json) -> AsyncIterator[Any]:
    """What `Client` answers with."""
    with_key = dashscope.Client(api_key=arguments.pop("api_key"), **OPTIONS)
    answer = with_key.chat.completions.create(**arguments)
    for response in answer if arguments.get("stream") else [answer]:
        yield response


async def aio(arguments: Json) -> AsyncIterator[Any]:
    """What `AsyncClient` answers with."""
    with_key = dashscope.AsyncClient(api_key=arguments.pop("api_key"), **OPTIONS)
    answer = await with_key.chat.completions.create(**arguments)
    if arguments.get("stream"):
        async for response in answer:
            yield response
    else:
        yield answer


RESPONSES = {"Client": sync, "AsyncClient": aio}


async def main() -> None:
    """Make all calls, one after the other."""
    calls = json.load(sys.stdin)
    print(json.dumps({name: await see(call) for name, call in calls.items()}))


asyncio.run(main())
