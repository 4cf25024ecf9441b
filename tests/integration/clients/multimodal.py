"""Calls through `MultiModalConversation` and its awaited twin of any dashscope into what their user sees."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import Any

import dashscope
import document
from dashscope.aigc.multimodal_conversation import AioMultiModalConversation

dashscope.base_http_api_url = document.BASE_URL


async def conversation(arguments: document.Json) -> AsyncIterator[document.Json]:
    """Make a call that blocks."""
    answer = dashscope.MultiModalConversation.call(**arguments)
    for response in answer if arguments["stream"] else [answer]:
        yield packet(response)


async def aio_conversation(arguments: document.Json) -> AsyncIterator[document.Json]:
    """Make a call that is awaited."""
    answer = await AioMultiModalConversation.call(**arguments)
    if not arguments["stream"]:
        yield packet(answer)
        return
    async for response in answer:
        yield packet(response)


def packet(response: Any) -> document.Json:
    """What a response holds, as plain JSON."""
    plain: document.Json = json.loads(json.dumps(response))
    if plain["status_code"] != HTTPStatus.OK:
        raise document.Failed(plain)
    return plain


document.write({"MultiModalConversation": conversation, "AioMultiModalConversation": aio_conversation})
