"""Calls through Dify's plugin SDK into what Dify sees, by the class that "OpenAI-API-compatible" is made of."""

from __future__ import annotations

# Patches the standard library, before anything else is imported.
from dify_plugin.interfaces.model.openai_compatible.llm import OAICompatLargeLanguageModel  # isort: skip

import json
from collections.abc import AsyncIterator

import document
from dify_plugin.entities.model import message


class Model(OAICompatLargeLanguageModel):
    """The same without a vocabulary from the network, by which it counts what it has asked no usage of."""

    def _get_num_tokens_by_gpt2(self, text: str) -> int:
        return len(text.split())


MODEL = Model(model_schemas=[])
ROLES = {
    "system": message.SystemPromptMessage,
    "user": message.UserPromptMessage,
    "assistant": message.AssistantPromptMessage,
    "tool": message.ToolPromptMessage,
}


async def invoke(arguments: document.Json) -> AsyncIterator[document.Json]:
    """As a node of a workflow does: the credential is checked, and the model is asked."""
    model, stream = arguments.pop("model"), arguments.pop("stream")
    known = {
        "endpoint_url": document.BASE_URL,
        "api_key": arguments.pop("api_key"),
        "mode": "chat",
        "context_size": "65536",
        "function_calling_type": "tool_call",
        "stream_function_calling": "supported",
    }
    turns = [ROLES[turn["role"]](content=turn["content"]) for turn in arguments.pop("messages")]
    tools = [message.PromptMessageTool(**tool["function"]) for tool in arguments.pop("tools", ())]
    if arguments.pop("check", False):
        MODEL.validate_credentials(model, known)
    answer = MODEL._generate(model, known, turns, arguments, tools=tools or None, stream=stream)
    told = document.answer()
    if not stream:
        answer = [answer]
    for part in answer:
        said, used = (part.message, part.usage) if not stream else (part.delta.message, part.delta.usage)
        told["text"] += said.content or ""
        told["calls"] += [[call.function.name, call.function.arguments] for call in said.tool_calls or ()]
        if used:
            told["usage"] = [used.prompt_tokens, used.completion_tokens]
        told["finish"] = part.delta.finish_reason if stream and part.delta.finish_reason else told["finish"]
    # Of a whole answer it keeps no reason to finish.
    told["finish"] = told["finish"] or ("tool_calls" if told["calls"] else "stop")
    yield json.loads(json.dumps(told))


document.write({"invoke": invoke})
