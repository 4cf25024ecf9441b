"""Calls through agent frameworks that have a model class for the service into what their user sees.

Each of them has an environment of its own.
"""
# ruff: noqa: PLC0415 - the others are not there

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import document


async def agno(arguments: document.Json) -> AsyncIterator[document.Json]:
    """An agent of agno's with its `DashScope` model."""
    from agno.agent import Agent
    from agno.models.dashscope import DashScope

    system, user = (message["content"] for message in arguments["messages"])
    model = DashScope(
        id=arguments["model"],
        api_key=arguments["api_key"],
        base_url=document.BASE_URL,
        max_retries=0,
        enable_thinking=arguments.get("thinking", False),
    )
    agent = Agent(model=model, telemetry=False, system_message=system)
    told = document.answer()
    if not arguments["stream"]:
        answer = agent.run(user)
        told |= {"text": answer.content, "reasoning": answer.reasoning_content or ""}
        yield finished(
            told, answer.metrics.input_tokens, answer.metrics.output_tokens, failed=answer.status != "COMPLETED"
        )
        return
    for event in agent.run(user, stream=True, yield_run_output=True):
        if type(event).__name__ == "RunOutput":
            metrics = event.metrics
            finished(told, metrics.input_tokens, metrics.output_tokens, failed=event.status != "COMPLETED")
        elif event.event == "RunContent":
            told["text"] += event.content or ""
            told["reasoning"] += event.reasoning_content or ""
    yield told


async def agentscope(arguments: document.Json) -> AsyncIterator[document.Json]:
    """AgentScope's `DashScopeChatModel`."""
    from agentscope.credential import DashScopeCredential
    from agentscope.message import AssistantMsg, SystemMsg, UserMsg
    from agentscope.model import DashScopeChatModel

    kinds = {"system": SystemMsg, "user": UserMsg, "assistant": AssistantMsg}
    model = DashScopeChatModel(
        DashScopeCredential(api_key=arguments["api_key"], base_url=document.BASE_URL),
        arguments["model"],
        DashScopeChatModel.Parameters(thinking_enable=arguments.get("thinking", False)),
        stream=arguments["stream"],
        max_retries=0,
        client_kwargs={"max_retries": 0},
    )
    turns = [kinds[turn["role"]](name=turn["role"], content=turn["content"]) for turn in arguments["messages"]]
    answer = await model(turns, tools=arguments.get("tools"))
    told = document.answer()
    if not arguments["stream"]:
        yield blocks(told, answer)
        return
    async for part in answer:
        if part.is_last:
            told = document.answer()
            blocks(told, part)
    yield told


def blocks(told: document.Json, response: Any) -> document.Json:
    """The blocks of a response that is complete."""
    for block in response.content:
        if block.type == "text":
            told["text"] += block.text
        elif block.type == "thinking":
            told["reasoning"] += block.thinking
        else:
            told["calls"].append([block.name, block.input if isinstance(block.input, str) else json.dumps(block.input)])
    return finished(told, response.usage.input_tokens, response.usage.output_tokens)


async def camel(arguments: document.Json) -> AsyncIterator[document.Json]:
    """CAMEL's `QwenModel`."""
    from camel.models import QwenModel

    settings: document.Json = {"stream": arguments["stream"]}
    if arguments.get("thinking"):
        settings["extra_body"] = {"enable_thinking": True}
    if arguments["stream"]:
        settings["stream_options"] = {"include_usage": True}
    model = QwenModel(arguments["model"], settings, api_key=arguments["api_key"], url=document.BASE_URL, max_retries=0)
    answer = model.run(arguments["messages"], tools=arguments.get("tools"))
    told = document.answer()
    for part in answer if arguments["stream"] else [answer]:
        for choice in part.choices:
            said = choice.delta if arguments["stream"] else choice.message
            told["text"] += said.content or ""
            told["reasoning"] += getattr(said, "reasoning_content", None) or ""
            for position, call in enumerate(said.tool_calls or ()):
                index = getattr(call, "index", None)
                if (position if index is None else index) == len(told["calls"]):
                    told["calls"].append([call.function.name, ""])
                told["calls"][-1][1] += call.function.arguments
        if part.usage is not None:
            finished(told, part.usage.prompt_tokens, part.usage.completion_tokens)
    yield told


def finished(told: document.Json, prompt: int, completion: int, *, failed: bool = False) -> document.Json:
    """None of them tells why an answer ended, beside that it did."""
    if failed:
        raise RuntimeError("the run has failed")
    told["usage"] = [prompt, completion]
    told["finish"] = "tool_calls" if told["calls"] else "stop"
    return told


document.write({"agno": agno, "agentscope": agentscope, "camel": camel})
