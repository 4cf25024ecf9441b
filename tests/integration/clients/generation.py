"""Calls through `Generation` and `AioGeneration` of any dashscope into what their user sees."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import Any

import dashscope
import document

dashscope.base_http_api_url = document.BASE_URL


async def generation(arguments: document.Json) -> AsyncIterator[document.Json]:
    """Make a call that blocks."""
    answer = dashscope.Generation.call(**arguments)
    for response in answer if arguments["stream"] else [answer]:
        yield packet(response)


async def aio_generation(arguments: document.Json) -> AsyncIterator[document.Json]:
    """Make a call that is awaited."""
    answer = await dashscope.AioGeneration.call(**arguments)
    if not arguments["stream"]:
        yield packet(answer)
        return
    async for response in answer:
        yield packet(response)


def packet(response: Any) -> document.Json:
    """What a response holds, as plain JSON: its objects answer to more than that."""
    plain: document.Json = json.loads(json.dumps(response))
    if plain["status_code"] != HTTPStatus.OK:
        raise document.Failed(plain)
    return plain


document.write({"Generation": generation, "AioGeneration": aio_generation})
