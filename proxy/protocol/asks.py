"""The requests that a gateway is examined by, each with what it may cost; whom they are for is a `Target`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import orjson

from translators.dialogue import Json, Model

Api = Literal["dashscope", "openai"]
Manner = Literal["plain", "fresh", "http10", "expect", "hang_up", "no_key", "wrong_key", "x_api_key", "gzip"]

GENERATION: Final = "/services/aigc/text-generation/generation"
MULTIMODAL: Final = "/services/aigc/multimodal-generation/generation"
KEPT_ID: Final = "7574ee8f-38a3-4b1e-9280-11c33ab46e51"

TOOL: Final[Json] = {
    "type": "function",
    "function": {
        "name": "get_current_weather",
        "description": "The weather in a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
CITIES: Final = "What is the weather in Beijing, and in Shanghai?"
# Characters beyond ASCII, so that an escape would show.
SCENE: Final = "请用一句话介绍杭州西湖的景色。"
WORDS: Final = "Repeat exactly these words and nothing else: alpha beta gamma delta"


@dataclass(frozen=True, slots=True)
class Ask:
    """One request to make.

    name:    what it is known by; checks that ask the same share its answer
    call:    the body as JSON, or as bytes; None for none
    stream:  whether it asks for SSE by `X-DashScope-SSE`
    headers: beside the key and the content type
    path:    below the SDK's base; "" is the route of generation
    manner:  how it is sent
    tokens:  what it may cost, prompt and answer, about
    """

    name: str
    call: Json | bytes | None
    stream: bool = False
    headers: Mapping[str, str] = field(default_factory=dict)
    path: str = ""
    method: str = "POST"
    manner: Manner = "plain"
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class Target:
    """Whom the checks are for.

    model:  the name to ask for
    row:    what we know of that model; None where it is not DeepSeek's
    count:  text in tokens, exactly; None where nothing can be counted
    prompt: a call's prompt in tokens, as the model's template renders it
    routed: whether the route asked names the model in its path
    api:    what it is to speak: DashScope's own protocol, or its OpenAI-compatible surface
    """

    model: str
    row: Model | None = None
    count: Callable[[str], int] | None = None
    prompt: Callable[[Json], int] | None = None
    routed: bool = False
    api: Api = "dashscope"

    @property
    def thinks(self) -> str:
        """`never`, `hybrid` or `always`; a model we do not know is asked for nothing it may refuse."""
        return self.row.thinking if self.row else "never"


# The limit of an answer where a check asks for no other.
ANSWER_TOKENS: Final = 64


def call(target: Target, text: str = WORDS, **parameters: object) -> Json:
    return {
        "model": target.model,
        "input": {"messages": [{"role": "user", "content": text}]},
        "parameters": {"max_tokens": ANSWER_TOKENS, "temperature": 0, **_quiet(target), **parameters},
    }


def _limited(target: Target, name: str) -> Json:
    """A call whose answer is to be cut off by another name of `max_tokens`."""
    asked = call(target)
    del asked["parameters"]["max_tokens"]
    asked["parameters"][name] = CUT_AT
    return asked


def _quiet(target: Target) -> Json:
    """What keeps a hybrid model from thinking where a check does not ask for it."""
    return {"enable_thinking": False} if target.thinks == "hybrid" else {}


# The limit of an answer that is to be cut off.
CUT_AT: Final = 3
LIMIT_ALIASES: Final = ("max_length", "max_completion_tokens")
# What a short question is thought about for, where no budget is said.
THINKING_TOKENS: Final = 300


def priced(target: Target, name: str, call: Json, **how: Any) -> Ask:
    """A request with what it may cost: the answer's limit, the chain's where it thinks, and the prompt."""
    given = call.get("parameters", {})
    chain = THINKING_TOKENS if given.get("enable_thinking") or target.thinks == "always" else 0
    answer = given.get("n", 1) * given.get("max_tokens", ANSWER_TOKENS)
    prompt = 10 + len(orjson.dumps(call.get("input", {}))) // 4 + len(orjson.dumps(given.get("tools", ""))) // 4
    return Ask(name, call, tokens=prompt + chain + answer, **how)


def asks(target: Target) -> dict[str, Ask]:
    """Every request that more than one check, or a check of its own words, asks for, by name."""
    plain, short = call(target), call(target, "Say hello.", max_tokens=8)
    tools = {"tools": [TOOL], "result_format": "message"}
    turn = {"id": "call_1", "type": "function", "function": {"name": TOOL["function"]["name"], "arguments": "{}"}}
    loop = call(target, CITIES, **tools)
    loop["input"]["messages"] += [
        {"role": "assistant", "content": "", "tool_calls": [turn]},
        {"role": "tool", "content": "sunny, 21 degrees", "tool_call_id": "call_1"},
    ]
    thinking = {"enable_thinking": True, "incremental_output": True, "max_tokens": ANSWER_TOKENS}
    named = {"type": "function", "function": {"name": TOOL["function"]["name"]}}
    schema = {"type": "json_schema", "json_schema": {"name": "s", "schema": {"type": "object"}}}
    parts = [{"type": "text", "text": "Say "}, {"text": "hello."}]
    refused = call(target, temperature=9)
    listed = (
        priced(target, "reply", plain),
        priced(target, "text", call(target, SCENE, incremental_output=True), stream=True),
        priced(target, "cumulative", call(target, SCENE), stream=True),
        priced(target, "thinking", call(target, "Is 91 a prime?", **thinking), stream=True),
        priced(target, "not thinking", call(target, "Is 91 a prime?", incremental_output=True), stream=True),
        priced(target, "named tool", call(target, CITIES, tool_choice=named, **tools)),
        priced(target, "required tool", call(target, CITIES, tool_choice="required", **tools)),
        priced(target, "no tool", call(target, CITIES, tool_choice="none", **tools)),
        priced(target, "auto tool", call(target, CITIES, max_tokens=128, **tools)),
        priced(target, "parallel tools", call(target, CITIES, max_tokens=128, parallel_tool_calls=True, **tools)),
        priced(
            target, "tool stream", call(target, CITIES, incremental_output=True, max_tokens=128, **tools), stream=True
        ),
        priced(target, "tool cumulative", call(target, CITIES, max_tokens=128, **tools), stream=True),
        priced(target, "tool loop", loop),
        priced(target, "length", call(target, max_tokens=CUT_AT)),
        *(priced(target, name, _limited(target, name)) for name in LIMIT_ALIASES),
        priced(target, "stop", call(target, stop=["gamma"])),
        priced(target, "n", call(target, n=2)),
        priced(target, "n stream", call(target, n=2, incremental_output=True), stream=True),
        priced(target, "logprobs", call(target, logprobs=True, top_logprobs=2)),
        priced(
            target, "json", call(target, "Give a JSON object with one key.", response_format={"type": "json_object"})
        ),
        priced(target, "schema", call(target, "Give a JSON object with one key.", response_format=schema)),
        priced(target, "prompt", {**short, "input": {"prompt": "Say hello."}}),
        priced(
            target,
            "history",
            {**short, "input": {"prompt": "And now?", "history": [{"user": "I am Li.", "bot": "Hello, Li."}]}},
        ),
        priced(target, "parts", {**short, "input": {"messages": [{"role": "user", "content": parts}]}}),
        priced(
            target,
            "prefix",
            {
                **short,
                "input": {
                    "messages": [*short["input"]["messages"], {"role": "assistant", "content": "He", "partial": True}]
                },
            },
        ),
        priced(target, "vendor", {**short, "model": f"vendor/{target.model.upper()}"}),
        priced(target, "by path", {**short, "model": "no-such-model"}),
        priced(
            target,
            "ignored",
            {
                **short,
                "stream": False,
                "resources": [],
                "parameters": {**short["parameters"], "kwargs": {}, "vl_high_resolution_images": False, "plugins": {}},
            },
            headers={
                "X-DashScope-WorkSpace": "",
                "X-DashScope-DataInspection": "disable",
                "X-DashScope-Async": "disable",
                "X-Unknown": "1",
            },
        ),
        priced(target, "kept id", short, headers={"X-Request-Id": KEPT_ID}),
        priced(target, "by accept", short, headers={"Accept": "text/event-stream"}),
        priced(target, "by content type", short, headers={"Content-Type": "text/event-stream"}),
        priced(target, "in capitals", short, headers={"X-DASHSCOPE-SSE": "Enable"}),
        priced(target, "disabled", short, headers={"X-DashScope-SSE": "disable", "Accept": "text/event-stream"}),
        priced(target, "by body", {**short, "stream": True, "parameters": {**short["parameters"], "stream": True}}),
        priced(target, "offered gzip", {**short}, stream=True, headers={"Accept-Encoding": "gzip"}),
        priced(target, "gzip", short, manner="gzip"),
        priced(target, "expect", short, manner="expect"),
        priced(target, "http/1.0", short, manner="http10"),
        priced(target, "alive 1", short),
        priced(target, "alive 2", short),
        priced(target, "hang up", call(target, SCENE, incremental_output=True), stream=True, manner="hang_up"),
        priced(target, "after", short, manner="fresh"),
        priced(target, "x-api-key", short, manner="x_api_key"),
        Ask("no key", short, manner="no_key"),
        Ask("wrong key", short, manner="wrong_key"),
        Ask("refused", refused),
        Ask("refused stream", refused, stream=True),
        Ask("no path", short, path="/services/aigc/no-such-service"),
        Ask("wrong method", None, method="GET"),
        priced(target, "multimodal", short, path=MULTIMODAL),
        Ask("async", short, headers={"X-DashScope-Async": "enable"}),
        Ask("encrypted", short, headers={"X-DashScope-EncryptionKey": "{}"}),
        Ask("no json", b"{"),
        Ask("models", None, method="GET", path="/models"),
        Ask("tokenizer", short, path="/tokenizer"),
    )
    return {ask.name: ask for ask in listed}
