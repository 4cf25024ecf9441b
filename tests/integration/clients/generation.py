"""DashScope calls through the SDK's `Generation` and `AioGeneration`, into what their user sees; any dashscope.

Usage: generation.py http://HOST:PORT/api/v1 < CALLS, where CALLS is {NAME: {"api": …, "arguments": {…}}}; prints
{NAME: {"packets": […], "failure": {…} or null}}, a reply being one packet.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from collections.abc import AsyncIterator
from typing import Any

import dashscope

Json = dict[str, Any]

# Every refusal is an error in the SDK's log as well; here it is told in the document.
logging.disable()


async def see(call: Json) -> Json:
    """Make one call."""
    packets, failure = [], None
    try:
        async for response in RESPONSES[call["api"]](call["arguments"]):
            if response.status_code == 200:
                # As plain JSON: the SDK's objects answer to more than they hold.
                packets.append(json.loads(json.dumps(response)))
            else:
                failure = {
                    "kind": "response",
                    "status": response.status_code,
                    "code": response.code,
                    "message": response.message,
                    "request_id": response.request_id,
                }
    except Exception as error:  # noqa: BLE001 - whatever the SDK raises is what its user sees
        failure = {"kind": type(error).__name__, "message": str(error)}
    return {"packets": packets, "failure": failure}


async def sync(arguments: Json) -> AsyncIterator[Any]:
    """Responses of `Generation.call`."""
    answer = dashscope.Generation.call(**arguments)
    for response in answer if arguments.get("stream") else [answer]:
        yield response


async def aio(arguments: Json) -> AsyncIterator[Any]:
    """Responses of `AioGeneration.call`."""
    answer = await dashscope.AioGeneration.call(**arguments)
    if arguments.get("stream"):
        async for response in answer:
            yield response
    else:
        yield answer


RESPONSES = {"Generation": sync, "AioGeneration": aio}


async def main() -> None:
    """Make all calls, one after the other."""
    dashscope.base_http_api_url = sys.argv[1]
    calls = json.load(sys.stdin)
    print(json.dumps({name: await see(call) for name, call in calls.items()}))


asyncio.run(main())
