"""The parts of an upstream choice that a chunk and a whole completion share: finish reasons, logprobs, tool calls.

Source: DeepSeek API reference, "Create chat completion"; captures of vLLM, SGLang and llama.cpp; spec OUT-2, OUT-3,
OUT-6.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import orjson

from translators import choice as answer
from translators import faults, surrogates
from translators.choice import ANSWERING, Choice
from translators.dialogue import Finish, Json

# How upstream says why it stopped. What is not listed is an error, never a silent `stop` (spec OUT-3).
FINISHES: Final[Mapping[str, Finish]] = {
    "stop": Finish.STOP,
    "length": Finish.LENGTH,
    "tool_calls": Finish.TOOL_CALLS,
    "function_call": Finish.TOOL_CALLS,  # the older name, still sent by some hosts
    "eos": Finish.STOP,  # hosts that pass the engine's own word on
}
# How it says that it has not stopped yet: llama.cpp null, SGLang of 2025 an empty word, KoboldCpp DashScope's own.
NOT_ENDED: Final = (None, "", "null")
# As much of it as the log is told.
LONGEST_WORD: Final = 40
# The names of the chain of thought; the same thing where both come (spec SSE-6).
REASONING: Final = ("reasoning_content", "reasoning")
NAMES: Final = frozenset(REASONING)
# What of a delta is a part of the answer.
SAYING: Final = ("content", *REASONING, "tool_calls", "function_call")
FAILED_FINISHES: Final[Mapping[str, faults.Fault]] = {
    "content_filter": faults.OUTPUT_MODERATED,
    "insufficient_system_resource": faults.OVERLOADED,
    "aborted": faults.UPSTREAM_BROKEN,
    "abort": faults.UPSTREAM_BROKEN,
    "error": faults.UPSTREAM_BROKEN,
}


def finish_of(word: object) -> Finish | None:
    """Why the answer ended, None where it has not; raises `Refusal` where it did not end as an answer should."""
    if word in NOT_ENDED:
        return None
    finish = FINISHES.get(word) if isinstance(word, str) else None
    if finish is None:
        known = isinstance(word, str) and word in FAILED_FINISHES
        fault = FAILED_FINISHES[str(word)] if known else faults.UPSTREAM_BROKEN
        raise faults.Refusal(
            fault, f"upstream finish_reason {str(word)[:LONGEST_WORD]!r}" if known else "unknown finish_reason"
        )
    return finish


def has_ended(item: object) -> bool:
    """Whether an upstream choice says that its answer has ended, in whatever way: its usage is of all of it (USE-3)."""
    return isinstance(item, dict) and item.get("finish_reason") not in NOT_ENDED


def text_of(value: object) -> str:
    """A text field, which upstreams also leave out or send as null."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    raise faults.Refusal(faults.UPSTREAM_BROKEN, f"upstream sent a text as {type(value).__name__}")


def word_of(value: object) -> str:
    """A text field that is never continued: half a surrogate pair in it stays alone (spec SSE-10)."""
    return surrogates.whole(text_of(value))


def reasoning_of(part: Mapping[str, Any]) -> str:
    """The chain of thought under either of its names."""
    for name in REASONING:
        said = part.get(name)
        if said is not None and said != "":
            return text_of(said)
    return ""


def calls_of(part: Mapping[str, Any]) -> object:
    """The tool calls of a delta or of a message; the older `function_call`, of which there is one, as such a call."""
    if calls := part.get("tool_calls"):
        return calls
    called = part.get("function_call")
    if not called:
        return None
    if not isinstance(called, dict):
        raise faults.Refusal(faults.UPSTREAM_BROKEN, "upstream sent a function call that is no object")
    return [{"index": 0, "function": called}]


def take_calls(choice: Choice, calls: object, *, whole: bool = False) -> None:
    """Hand the tool calls of a delta, or of a whole message, to the choice."""
    if not isinstance(calls, list):
        raise faults.Refusal(faults.UPSTREAM_BROKEN, "upstream sent tool_calls that are no list")
    for call in calls:
        if not isinstance(call, dict):
            raise faults.Refusal(faults.UPSTREAM_BROKEN, "upstream sent a tool call that is no object")
        function = call.get("function")
        function = function if isinstance(function, dict) else {}
        index = call.get("index")
        said = word_of(call.get("id")), word_of(function.get("name")), _arguments_of(function.get("arguments"))
        if any(said):
            choice.fragment(index if type(index) is int else None, *said, anew=whole)


def _arguments_of(value: object) -> str:
    """The arguments of a call as text, which some hosts send parsed (llama.cpp of spring 2026)."""
    if not isinstance(value, dict | list):
        return text_of(value)
    try:
        return orjson.dumps(value).decode()
    except orjson.JSONEncodeError:
        pass
    try:
        return orjson.dumps(surrogates.mended(value)).decode()
    except (orjson.JSONEncodeError, RecursionError):
        raise faults.Refusal(faults.UPSTREAM_BROKEN, "upstream sent arguments of too many levels") from None


def take_logprobs(choice: Choice, part: Mapping[str, Any], logprobs: object) -> None:
    """Hand the log probabilities of answer tokens to the choice; those of reasoning tokens are dropped (spec PAR-10).

    part: the delta or message they stand beside; where it holds a chain as well, they start with the chain's (vLLM)
    """
    entries = logprobs.get("content") if isinstance(logprobs, dict) else None
    if not isinstance(entries, list) or calls_of(part):
        return
    content = word_of(part.get("content"))
    # A character of several tokens leaves its first ones with no text at all.
    if content or (choice.phase is ANSWERING and not reasoning_of(part)):
        found = [_entry(entry) for entry in entries if isinstance(entry, dict)]
        choice.logprobs += answer.spelling(found, content) if reasoning_of(part) else found


def _entry(entry: Mapping[str, Any]) -> Json:
    tops = entry.get("top_logprobs")
    return {
        **_token(entry),
        "top_logprobs": [_token(top) for top in tops if isinstance(top, dict)] if isinstance(tops, list) else [],
    }


def _token(entry: Mapping[str, Any]) -> Json:
    token = word_of(entry.get("token"))
    raw = entry.get("bytes")
    return {
        "token": token,
        "bytes": raw if isinstance(raw, list) else list(token.encode()),
        "logprob": entry.get("logprob"),
    }
