"""Calls through the provider of dashscope's own command line, which finds a model's path by its `url error`.

It remembers on the disk what it has found: here in a home of its own, and of each call anew.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncIterator

import document

os.environ["HOME"] = tempfile.mkdtemp()

from dashscope.acli.providers.tongyi import TongyiProvider


async def provider(arguments: document.Json) -> AsyncIterator[document.Json]:
    """One call: text, figures and the path that has answered."""
    TongyiProvider._path_cache = {}
    asked = TongyiProvider(arguments["model"], api_key=arguments["api_key"], base_url=document.BASE_URL)
    told = document.answer()
    if arguments["stream"]:
        async for chunk in asked.chat_stream(arguments["messages"]):
            told["text"] += chunk.delta_content or ""
            told["reasoning"] += chunk.delta_reasoning_content or ""
            told["usage"] = chunk.usage or told["usage"]
    else:
        answer = await asked.chat(arguments["messages"])
        told |= {"text": answer.content, "reasoning": answer.reasoning_content, "usage": answer.usage}
    yield told | {"path": asked._generation_path}


document.write({"TongyiProvider": provider})
