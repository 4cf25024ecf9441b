"""Claims about published clients of the compatible surface: what their users see of us, before the simulator.

Each lives in an environment of its own (`prepare`), where a script makes all its calls in one go, as in `test_clients`.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson
import pytest

from proxy.simulation.deepseek import Script
from proxy.simulation.simulator import Simulator
from tests import needs
from tests.conftest import StartServe, StartSimulator
from tests.integration import scripts

pytestmark = pytest.mark.timeout(scripts.CALLS_TIMEOUT_S + 60)

Json = dict[str, Any]

COMPATIBLE = "/compatible-mode/v1"
KEY = "sk-right"

TEXT = 'Grüße, 世界 🧑‍🚀:\n1 < 2 && "x" done.'
CHAIN = "First 我想想… then 🤔 this."
TOOL = 'get_weather {"city": "杭州 Hangzhou"}'
OFFERED = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "Tell the weather of a city.",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
        },
    }
]


@dataclass(frozen=True, slots=True)
class Case:
    """One call.

    switches:  what the simulator is to do
    arguments: what else the caller says, in the words of the scripts
    """

    switches: Json = field(default_factory=dict)
    arguments: Json = field(default_factory=dict)


THINKS: Json = {"model": "deepseek-v3.2", "thinking": True}
CASES: Mapping[str, Case] = {
    "reply": Case({"text": TEXT}, {"stream": False}),
    "stream": Case({"text": TEXT}, {"stream": True}),
    "thinking": Case({"text": TEXT, "reasoning": CHAIN}, {"stream": True, **THINKS}),
    "thinking reply": Case(
        {"text": TEXT, "reasoning": CHAIN}, {"stream": False, "model": "deepseek-v4-flash", "thinking": True}
    ),
    "tool": Case({"tools": [TOOL]}, {"stream": True, "tools": OFFERED}),
    "tool reply": Case({"tools": [TOOL]}, {"stream": False, "tools": OFFERED}),
    "refused": Case({}, {"stream": True, "temperature": 2}),
    "refused reply": Case({}, {"stream": False, "temperature": 2}),
    "bad key": Case({}, {"stream": True, "api_key": "sk-wrong"}),
    "unknown model": Case({}, {"stream": False, "model": "gpt-4o"}),
    "throttled": Case({"status": 429}, {"stream": True}),
    "broken": Case({"text": "one two three four five six", "cut_after": 5}, {"stream": True}),
}
ANSWERED = ("reply", "stream", "thinking", "thinking reply", "tool", "tool reply")
# What was refused before a chunk has left: status and code.
REFUSED: Mapping[str, tuple[int, str]] = {
    "refused": (400, "invalid_parameter_error"),
    "refused reply": (400, "invalid_parameter_error"),
    "bad key": (401, "invalid_api_key"),
    "unknown model": (404, "model_not_found"),
    "throttled": (429, "limit_requests"),
}
STREAMS = frozenset(name for name, case in CASES.items() if case.arguments["stream"])
REPLIES = frozenset(CASES) - STREAMS
# What an agent shows, whose tools are functions of its own.
TEXTS = frozenset({"reply", "stream", "thinking", "thinking reply"})


@dataclass(frozen=True, slots=True)
class Reader:
    """A way in which a published client makes a call.

    client: its environment below `.clients`
    script: the file of `clients/` that runs there
    api:    what that script calls the way
    cases:  what can be asked that way
    tells:  whether its failures have the code and the status as they came
    thinks: whether it shows the chain of thought
    sums:   whether it asks for the usage of a stream
    """

    client: str
    script: str
    api: str
    cases: frozenset[str] = frozenset(CASES)
    tells: bool = True
    thinks: bool = True
    sums: bool = True

    def __str__(self) -> str:
        return f"{self.client} {self.api}"


READERS = (
    Reader("openai", "openai_sdk.py", "create"),
    Reader("openai", "openai_sdk.py", "create, awaited"),
    Reader("openai", "openai_sdk.py", "stream helper", STREAMS),
    Reader("openai", "openai_sdk.py", "raw response", REPLIES),
    Reader("openai-js", "openai_node.mjs", "create"),
    Reader("openai-js", "openai_node.mjs", "stream helper", STREAMS, thinks=False),
    Reader("openai-js", "ai_sdk.mjs", "openai-compatible"),
    Reader("openai-js", "ai_sdk.mjs", "deepseek"),
    Reader("langchain-openai", "langchain_openai_models.py", "ChatOpenAI", thinks=False),
    Reader("langchain-openai", "langchain_openai_models.py", "ChatQwen"),
    Reader("litellm", "litellm_completion.py", "openai/", tells=False),
    Reader("litellm", "litellm_completion.py", "dashscope/", tells=False),
    Reader("dashscope-2", "dashscope_openai.py", "create", tells=False),
    Reader("agno", "agent_frameworks.py", "agno", TEXTS, tells=False),
    Reader(
        "agentscope", "agent_frameworks.py", "agentscope", frozenset(CASES) - {"refused", "refused reply"}, tells=False
    ),
    # It shows a chain in its text.
    Reader(
        *("dify-plugin", "dify_plugin_sdk.py", "invoke"),
        cases=frozenset(CASES) - {"thinking", "thinking reply"},
        tells=False,
        thinks=False,
        sums=False,
    ),
    Reader("camel", "agent_frameworks.py", "camel", frozenset(CASES) - {"refused", "refused reply"}, tells=False),
)

# What one way of each client does beyond an answer: it goes on behind a call of its own, and leaves a stream.
LOOP = [
    {"role": "developer", "content": "Be brief."},
    {"role": "user", "content": "Weather?"},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {"id": "c1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city":"Paris"}'}}
        ],
    },
    {"role": "tool", "tool_call_id": "c1", "content": "Sunny."},
]
FURTHER_CASES: Mapping[str, Case] = {
    "loop": Case({}, {"stream": True, "messages": LOOP, "tools": OFFERED, "tool_choice": "none"}),
    "left": Case({"text": "a b c", "endless": True, "gap_s": 0.02}, {"stream": True, "leave_after": 5}),
}
FURTHER = [
    reader
    for reader in READERS
    if reader.api in ("create", "openai-compatible", "ChatOpenAI", "ChatQwen", "openai/")
    and reader.client != "dashscope-2"
]

Sight = dict[tuple[str, str], Json]


EVERY = pytest.mark.parametrize(
    "reader", [pytest.param(reader, marks=needs.clients(reader.client)) for reader in READERS], ids=str
)


def arguments_of(switches: Json, **arguments: Any) -> Json:
    """A call: to the simulator its last message is an order of its own."""
    order = orjson.dumps({"simulate": switches}).decode() if switches else "Hi"
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": order}]
    return {"api_key": KEY, "model": "deepseek-v3", "messages": turns, **arguments}


def cases_of(reader: Reader) -> Mapping[str, Case]:
    """What is asked that way."""
    further = FURTHER_CASES if reader in FURTHER else {}
    return {name: CASES[name] for name in reader.cases} | further


@pytest.fixture(scope="module")
def sights() -> dict[str, Sight]:
    """What has been seen already: clients take seconds to start, so they make all their calls at once."""
    return {}


@pytest.fixture
async def sight(sights: dict[str, Sight], simulator: StartSimulator, serve: StartServe) -> Sight:
    """What the user of each client saw of each call."""
    if sights.keys() == {"begun"}:
        pytest.fail("see the first test of these clients, in which not all of them came to an end")
    if not sights:
        sights["begun"] = {}
        upstream = await simulator(Script(key=KEY))
        front = await serve(upstream.url)
        calls: dict[tuple[str, str], Json] = defaultdict(dict)
        for reader in READERS:
            if needs.is_client(reader.client):
                for name, case in cases_of(reader).items():
                    asked = {"api": reader.api, "arguments": arguments_of(case.switches, **case.arguments)}
                    calls[reader.client, reader.script][f"{reader}: {name}"] = asked
        documents = await asyncio.gather(
            *(scripts.run(front.url + COMPATIBLE, *where, made) for where, made in calls.items())
        )
        sights["all"] = {
            (str(reader), name): document[f"{reader}: {name}"]
            for reader in READERS
            for document in documents
            for name in cases_of(reader)
            if f"{reader}: {name}" in document
        }
        endless = [call for call in upstream.calls if b"endless" in call.raw]
        async with asyncio.timeout(5):
            sights["left"] = {("", str(number)): await call.over() for number, call in enumerate(endless)}
    return sights["all"]


@EVERY
def test_an_answer_is_whole(reader: Reader, sight: Sight) -> None:
    """COM-13 to COM-21: text, chain, calls, the reason to finish and the tokens, once."""
    for name in sorted(reader.cases & {*ANSWERED}):
        seen, case = sight[str(reader), name], CASES[name]
        assert seen["failure"] is None, (name, seen)
        (told,) = seen["packets"]
        assert told["text"] == case.switches.get("text", ""), name
        assert told["reasoning"] == (case.switches.get("reasoning", "") if reader.thinks else ""), name
        calls = [(call, orjson.loads(arguments)) for call, arguments in told["calls"]]
        wanted = [("get_weather", {"city": "杭州 Hangzhou"})] if "tools" in case.switches else []
        assert calls == wanted, name
        assert told["finish"] in (("tool_calls", "tool-calls") if wanted else ("stop",)), name
        prompt, completion = told["usage"]
        assert 0 < prompt < 400, name
        # Who asks for none counts what it reads: of a call, nothing.
        least = int(reader.sums or name in REPLIES)
        assert least <= completion < 100, name


@EVERY
def test_the_tokens_are_the_same_whoever_asks(reader: Reader, sight: Sight) -> None:
    """COM-14: what is added up comes once."""
    for name in sorted(reader.cases & ({"reply", "stream"} if reader.sums else {"reply"})):
        _, completion = sight[str(reader), name]["packets"][0]["usage"]
        assert completion == 23, name


@EVERY
def test_a_refusal_keeps_its_status_its_code_and_its_words(reader: Reader, sight: Sight) -> None:
    """COM-25, COM-26: before the first chunk, on streams too."""
    for name in sorted(reader.cases & {*REFUSED}):
        seen, (status, code) = sight[str(reader), name], REFUSED[name]
        failure = seen["failure"]
        assert failure is not None, (name, seen)
        assert not any(told["text"] for told in seen["packets"]), name
        if reader.tells:
            assert (failure["status"], failure["code"]) == (status, code), (name, failure)


@EVERY
def test_an_answer_that_breaks_off_is_a_failure_behind_its_text(reader: Reader, sight: Sight) -> None:
    """COM-26: never a clean end."""
    if "broken" in reader.cases:
        seen = sight[str(reader), "broken"]
        assert seen["failure"] is not None, seen
        # The provider for DeepSeek tells the words alone.
        if reader.tells:
            assert seen["failure"].get("code", "internal_error") == "internal_error", seen
            assert "internal error" in seen["failure"]["text"], seen


async def ask(front: Any, reader: Reader, **arguments: Any) -> Json:
    """One more call of a client."""
    calls = {"one": {"api": reader.api, "arguments": arguments}}
    seen: Json = (await scripts.run(front.url + COMPATIBLE, reader.client, reader.script, calls))["one"]
    return seen


RETRIERS = [
    pytest.param(reader, marks=needs.clients(reader.client), id=str(reader)) for reader in (READERS[0], READERS[4])
]


# What the simulator does, what the caller is told, and how often upstream is asked. openai-node would sleep for as long
# as `Retry-After` says, be it seconds or a date.
LATER: Mapping[str, tuple[Json, tuple[int, str], int]] = {
    "at any time": ({"status": 503}, (503, "ModelServingError"), 3),
    "in an hour": ({"status": 429, "retry_after": "4870"}, (429, "limit_requests"), 1),
    "on a date": ({"status": 429, "retry_after": "Fri, 01 Jan 2100 00:00:00 GMT"}, (429, "limit_requests"), 1),
}


@pytest.mark.parametrize("reader", RETRIERS)
async def test_a_call_that_may_succeed_soon_is_sent_again_and_one_that_may_tomorrow_is_not(
    reader: Reader, simulator: StartSimulator, serve: StartServe
) -> None:
    """COM-27: `x-should-retry`."""
    upstream: Simulator = await simulator(Script(key=KEY))
    front = await serve(upstream.url)
    asked = {name: arguments_of(switches, stream=True, retries=2) for name, (switches, _, _) in LATER.items()}
    calls = {name: {"api": reader.api, "arguments": arguments} for name, arguments in asked.items()}
    seen = await scripts.run(front.url + COMPATIBLE, reader.client, reader.script, calls)
    orders = Counter(call.body["messages"][-1]["content"] for call in upstream.calls)
    for name, (_, told, times) in LATER.items():
        failure = seen[name]["failure"]
        assert ((failure["status"], failure["code"]), orders[asked[name]["messages"][-1]["content"]]) == (
            told,
            times,
        ), name


@pytest.mark.parametrize("reader", RETRIERS)
async def test_one_that_the_operator_must_mend_is_not(
    reader: Reader, simulator: StartSimulator, serve: StartServe
) -> None:
    """COM-27: `x-should-retry`."""
    upstream: Simulator = await simulator(Script(key=KEY))
    front = await serve(upstream.url, "--auth", "any", env={"DASHSEEK_UPSTREAM_API_KEY": "sk-wrong"})
    seen = await ask(front, reader, **arguments_of({}, stream=True, retries=2))
    assert (seen["failure"]["status"], seen["failure"]["code"]) == (500, "internal_error")
    assert len(upstream.calls) == 1


FURTHER_READERS = pytest.mark.parametrize(
    "reader", [pytest.param(reader, marks=needs.clients(reader.client), id=str(reader)) for reader in FURTHER]
)


@FURTHER_READERS
def test_a_tool_loop_comes_to_its_end(reader: Reader, sight: Sight) -> None:
    """COM-7: what a client was told of a call is what it sends back."""
    seen = sight[str(reader), "loop"]
    assert seen["failure"] is None, seen
    assert seen["packets"][0]["text"]
    assert seen["packets"][0]["finish"] == "stop"


@FURTHER_READERS
def test_who_closes_a_stream_stops_the_upstream(reader: Reader, sight: Sight, sights: dict[str, Sight]) -> None:
    """MET-5, COM-11."""
    seen = sight[str(reader), "left"]
    assert seen["failure"] is None, seen
    assert seen["packets"][0]["text"]
    assert {*sights["left"].values()} == {"aborted"}
    assert len(sights["left"]) == len([one for one in FURTHER if needs.is_client(one.client)])


@needs.clients("dashscope-2")
async def test_the_sdk_lists_models_and_counts_tokens(simulator: StartSimulator, serve: StartServe) -> None:
    """HTTP-12, with both generations of its client."""
    upstream: Simulator = await simulator()
    front = await serve(upstream.url)
    calls = {name: {"api": name, "arguments": arguments_of({"text": "x"})} for name in ("models", "tokens")}
    seen = await scripts.run(front.url + COMPATIBLE, "dashscope-2", "dashscope_openai.py", calls)
    assert seen["models"]["failure"] is None, seen
    (models,) = seen["models"]["packets"]
    assert models["v1"] == models["v2"]
    assert len(models["v1"][1]) == 3
    assert models["one"] == "deepseek-r1"
    assert seen["tokens"]["failure"] is None, seen
    (tokens,) = seen["tokens"]["packets"]
    assert tokens["status"] == 200
    assert "".join(tokens["output"]["tokens"]) == '{"simulate":{"text":"x"}}'
    assert tokens["usage"]["input_tokens"] > len(tokens["output"]["token_ids"])
    assert upstream.calls == []
