"""The turns of a `Call` -> the `messages` of an upstream body, and what has to be said in them that has no field.

Source: spec REQ-6, REQ-7, PAR-11, OUT-9; SOURCES#deepseek-request, #engine-request.
"""

from __future__ import annotations

import json

from translators import faults
from translators.dialogue import TEXT_ALONE, Call, Image, Json, Message, ResponseFormat, ToolCall
from translators.openai import plan
from translators.openai.dialects import Dialect

# "JSON" must be in the prompt where JSON mode is asked for (DeepSeek API guide, JSON output).
SCHEMA_INSTRUCTION = "Answer with one JSON object, and nothing else, that conforms to this JSON schema:\n"
# A prefix whose text is empty would reopen the chain: the official renderer closes it only before text.
CLOSED = "\n\n"


def check_images(call: Call, dialect: Dialect) -> None:
    """Raise `Refusal` for an image in a turn where this upstream takes none (spec REQ-4)."""
    if not dialect.tool_images and any(message.parts and message.role == "tool" for message in call.messages):
        raise faults.Refusal(faults.NOT_TEXT, f"dialect {dialect.name} takes no image in a tool's answer")


def seen(call: Call, dialect: Dialect) -> Call:
    """The call as upstream is asked it, which is what to count: what has no field there is said in a message.

    A schema that cannot be enforced becomes JSON mode and a system instruction (spec PAR-11); an assistant turn of
    a thinking tool loop that lacks its chain gets an empty one (spec REQ-7).
    """
    if call.response_format is None and not (call.thinking and call.tools):
        return call
    return _with_chains(_with_schema(call, dialect), dialect)


def resumed(call: Call, dialect: Dialect, chain: str) -> Call:
    """The call that goes on after `chain`, closed at the budget; a stream, as the first leg was (spec OUT-9)."""
    prefix = Message("assistant", chain + "</think>" + CLOSED, partial=True)
    template = call.model.templates.get(dialect.name, call.model.template)
    if template in dialect.continuation.chain_from:
        prefix = Message("assistant", CLOSED, reasoning=chain, partial=True)
    return call._replace(messages=(*call.messages, prefix), thinking_budget=None, stream=True)


def written(call: Call, dialect: Dialect) -> list[Json]:
    """The messages of the body; `call` as `seen`."""
    out = []
    for message in call.messages:
        if message[2:] == TEXT_ALONE:
            # As nearly all are.
            out.append({"role": message.role, "content": message.content})
        else:
            out.append(_message(message, dialect))
    return out


def _with_schema(call: Call, dialect: Dialect) -> Call:
    wanted = call.response_format
    if dialect.json_schema or wanted is None or wanted.type != "json_schema":
        return call
    schema = (wanted.schema or {}).get("schema", {})
    instruction = SCHEMA_INSTRUCTION + json.dumps(schema, ensure_ascii=False, separators=(",", ":"))
    first, *others = call.messages
    # In the first system message, for some templates take only one.
    if first.role == "system":
        instruction = f"{first.content}\n\n{instruction}"
    else:
        others = [first, *others]
    messages = (Message("system", instruction), *others)
    return call._replace(messages=messages, response_format=ResponseFormat("json_object"))


def _with_chains(call: Call, dialect: Dialect) -> Call:
    if not (dialect.keeps_reasoning and call.thinking and plan.offers_tools(call)):
        return call
    users = [index for index, message in enumerate(call.messages) if message.role == "user"]
    loop = users[-1] if users else 0
    messages = tuple(
        message._replace(reasoning=message.reasoning or "") if message.role == "assistant" and index > loop else message
        for index, message in enumerate(call.messages)
    )
    return call._replace(messages=messages)


def _message(message: Message, dialect: Dialect) -> Json:
    out: Json = {"role": message.role, "content": [*map(_part, message.parts)] if message.parts else message.content}
    if message.reasoning is not None and dialect.keeps_reasoning:
        out["reasoning_content"] = message.reasoning
    if message.tool_calls:
        out["tool_calls"] = [_tool_call(call) for call in message.tool_calls]
    if message.role == "tool":
        out["tool_call_id"] = message.tool_call_id
    return out | dialect.continuation.message if message.partial else out


def _part(part: str | Image) -> Json:
    if isinstance(part, str):
        return {"type": "text", "text": part}
    return {"type": "image_url", "image_url": {"url": part.url} | ({"detail": part.detail} if part.detail else {})}


def _tool_call(call: ToolCall) -> Json:
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
