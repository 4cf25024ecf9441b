"""What api.deepseek.com refuses of a body, in its words; of a host of another kind, less."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from proxy.simulation.deepseek import Answer, Json, Script, _offered, _pictures, _stops, _text, _thinks, _wants
from translators import images
from translators.openai.dialects import DIALECTS, Dialect

_ROLES = ("system", "user", "assistant", "tool", "latest_reminder")
_TOOL_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_MAX_STOPS = 16
_DEEPSEEK = DIALECTS["deepseek"]
_DESERIALIZE = "Failed to deserialize the JSON body into the target type: "


def _outside(body: Json, name: str, low: float, high: float) -> bool:
    value = body.get(name)
    return value is not None and not low <= value <= high


def _forces_a_tool(body: Json) -> bool:
    return body.get("tool_choice") not in (None, "auto", "none")


def _lost_reasoning(body: Json) -> bool:
    """Whether a turn of the running tool loop came back without its chain of thought."""
    messages = body["messages"]
    last_user = max((at for at, message in enumerate(messages) if message["role"] == "user"), default=-1)
    loop = (message for message in messages[last_user + 1 :] if message["role"] == "assistant")
    return any(message.get("reasoning_content") is None for message in loop)


def _lonely_tool(body: Json) -> bool:
    asked: set[str] = set()
    for message in body["messages"]:
        asked |= {call["id"] for call in message.get("tool_calls") or ()}
        if message["role"] == "tool" and message.get("tool_call_id") not in asked:
            return True
    return False


def _says_json(body: Json) -> bool:
    return any("json" in _text(message).lower() for message in body["messages"])


class _Rule(NamedTuple):
    """What is wrong with a body, DeepSeek's words for it, and the hosts that refuse it as well."""

    broken: Callable[[Json], bool]
    text: str
    holds: Callable[[Dialect], bool] = lambda _: True


def _is_deepseek(host: Dialect) -> bool:
    return host is _DEEPSEEK


def _shows_what_is_no_picture(body: Json) -> bool:
    for message in body["messages"]:
        for picture in _pictures(message):
            try:
                if images.is_inline(picture["url"]):
                    images.header(picture["url"])
            except images.UnreadableError:
                return True
    return False


# What a body does wrong, and DeepSeek's words for it, in the order it looks (SOURCES#deepseek-request).
_RULES: tuple[_Rule, ...] = (
    _Rule(
        lambda body: _outside(body, "max_tokens", 1, 393_216),
        "Invalid max_tokens value, the valid range of max_tokens is [1, 393216]",
    ),
    _Rule(
        lambda body: _outside(body, "temperature", 0, 2),
        "Invalid temperature value, the valid range of temperature is [0, 2]",
    ),
    _Rule(
        lambda body: _outside(body, "top_p", 0, 1) or body.get("top_p") == 0,
        "Invalid top_p value, the valid range of top_p is (0, 1.0]",
    ),
    _Rule(
        lambda body: _outside(body, "n", 1, 1),
        "Invalid n value (currently only n = 1 is supported)",
        lambda host: host.most_choices == 1,
    ),
    _Rule(
        lambda body: _outside(body, "top_logprobs", 0, 20),
        "Invalid top_logprobs value, the valid range of top_logprobs is [0, 20]",
    ),
    _Rule(
        lambda body: body.get("top_logprobs") is not None and not body.get("logprobs"),
        "Invalid top_logprobs value, logprobs must be true to use top_logprobs",
    ),
    _Rule(
        lambda body: len(_stops(body)) > _MAX_STOPS,
        f"Invalid stop value, at most {_MAX_STOPS} stop sequences are supported",
    ),
    _Rule(
        lambda body: body.get("stream_options") is not None and not body.get("stream"),
        "stream_options should be set along with stream = true",
    ),
    _Rule(
        lambda body: _wants(body) == "json_schema",
        "response_format.type `json_schema` is unavailable now",
        lambda host: not host.json_schema,
    ),
    _Rule(
        lambda body: _wants(body) == "json_object" and not _says_json(body),
        "Prompt must contain the word 'json' in some form to use 'response_format' of type 'json_object'.",
    ),
    _Rule(
        lambda body: any(not _TOOL_NAME.fullmatch(tool["function"]["name"]) for tool in body.get("tools") or ()),
        "Invalid 'tools[].function.name': string does not match pattern. Expected '^[a-zA-Z0-9_-]{1,64}$'.",
    ),
    _Rule(
        lambda body: _thinks(body, _DEEPSEEK) and _forces_a_tool(body),
        "Thinking mode does not support this tool_choice",
        _is_deepseek,
    ),
    _Rule(
        lambda body: isinstance(body.get("tool_choice"), dict) and not _offered(body),
        "tool_choice names a function that is not among the tools",
    ),
    _Rule(
        lambda body: any(message["role"] == "assistant" and _pictures(message) for message in body["messages"]),
        "Image in assistant message is not supported",
        _is_deepseek,
    ),
    _Rule(
        _shows_what_is_no_picture,
        "You have uploaded an unsupported image. Please make sure your image is valid and has one of the following "
        "formats: webp, png, jpeg, and gif.",
    ),
    _Rule(_lonely_tool, "Messages with role 'tool' must be a response to a preceding message with 'tool_calls'"),
    _Rule(
        lambda body: _thinks(body, _DEEPSEEK) and bool(body.get("tools")) and _lost_reasoning(body),
        "The `reasoning_content` in the thinking mode must be passed back to the API.",
        _is_deepseek,
    ),
)


def fault(body: Json, *, beta: bool, host: Dialect = _DEEPSEEK) -> str | None:
    """What is wrong with a body, in DeepSeek's words; None where nothing is.

    beta:   whether the path was below `/beta`, where alone a prefix is continued
    host:   the kind of host that looks at it
    """
    match body:
        case {"model": str(), "messages": [_, *_] as messages} if all(isinstance(one, dict) for one in messages):
            pass
        case _:
            return f"{_DESERIALIZE}expected an object with `model` and `messages`"
    for at, message in enumerate(messages):
        if message.get("role") not in _ROLES:
            roles = ", ".join(f"`{role}`" for role in _ROLES)
            return (
                f"{_DESERIALIZE}messages[{at}].role: unknown variant `{message.get('role')}`, expected one of {roles}"
            )
    if messages[-1].get("prefix") and not beta:
        return "prefix is a beta feature: use the base URL https://api.deepseek.com/beta"
    try:
        return next((rule.text for rule in _RULES if rule.holds(host) and rule.broken(body)), None)
    except (TypeError, KeyError, AttributeError) as error:
        return f"{_DESERIALIZE}{error}"


def too_long(answer: Answer, body: Json, script: Script) -> str | None:
    """What is said to a prompt that leaves no room for its answer; None to one that does."""
    prompt, wanted = answer.usage["prompt_tokens"], body.get("max_tokens") or 0
    if prompt + wanted <= script.context_tokens:
        return None
    return (
        f"This model's maximum context length is {script.context_tokens} tokens. However, you requested "
        f"{prompt + wanted} tokens ({prompt} in the messages, {wanted} in the completion). "
        "Please reduce the length of the messages or completion."
    )
