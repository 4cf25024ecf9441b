"""Claims about published clients: what their users see of us, before the simulator and before a real llama.cpp.

Each client lives in an environment of its own (`prepare`), where a script makes all its calls in one go and prints what
its user saw of them. What upstream said to a call is composed once more here, from the body that reached it.
"""

from __future__ import annotations

import asyncio
import inspect
import itertools
import re
import uuid
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import aiohttp
import orjson
import pytest

from proxy.simulation import deepseek, llamacpp, simulator, wire
from tests import needs
from tests.integration import scripts
from translators import faults, tokens

pytestmark = pytest.mark.timeout(scripts.CALLS_TIMEOUT_S + 60)

Json = dict[str, Any]

KEY = "sk-right"


class StartSimulator(Protocol):
    """The fixture `simulator` of conftest.py."""

    async def __call__(self, script: wire.Script) -> simulator.Simulator: ...


class StartServe(Protocol):
    """The fixture `serve` of conftest.py; what it starts has a `url`."""

    async def __call__(self, upstream: str, *flags: str, env: Mapping[str, str] | None = None) -> Any: ...


@dataclass(frozen=True, slots=True)
class Case:
    """One call.

    arguments: in the words of `Generation.call`; without a model, deepseek-v3
    switches:  what the simulator is to do, beside saying the text
    prompt:    whether it asks by a prompt with a history, not by messages
    """

    arguments: Json
    switches: Json = field(default_factory=dict)
    prompt: bool = False

    @property
    def snapshots(self) -> bool:
        """Whether each packet shows all of the answer so far, not what is new."""
        return bool(self.arguments["stream"]) and not self.arguments.get("incremental_output")


# Characters of several tokens, tokens of several bytes, white space at both ends, what JSON and SSE must escape.
TEXT = ' Grüße,  世界 🧑‍🚀:\n\n1 < 2 && "x"\t\\n done.\n'
CHAIN = "First 我想想…\n\nthen 🤔 this. "
TOOLS = ('get_weather {"city": "杭州 Hangzhou", "days": 2}', 'get_time {"zone": "Asia/Shanghai"}')
OFFERED = [
    {
        "type": "function",
        "function": {
            "name": name,
            "description": f"Tell it of a {asked}.",
            "parameters": {"type": "object", "properties": {asked: {"type": "string"}}, "required": [asked]},
        },
    }
    for name, asked in (("get_weather", "city"), ("get_time", "zone"))
]

FORMS: Mapping[str, Json] = {
    "reply": {"stream": False},
    "deltas": {"stream": True, "incremental_output": True},
    # What a stream is where nobody says anything (spec PAR-13).
    "snapshots": {"stream": True},
    # Where it is said, newer SDKs ask for deltas instead and put them together themselves (SOURCES#sdk-merging).
    "merged": {"stream": True, "incremental_output": False},
}
KINDS: Mapping[str, Case] = {
    "plain": Case({}),
    "prompt": Case({}, prompt=True),
    "cut": Case({"max_tokens": 5}),
    "r1": Case({"model": "deepseek-r1"}, {"reasoning": CHAIN}),
    "v3.2": Case({"model": "deepseek-v3.2", "enable_thinking": True}, {"reasoning": CHAIN}),
    "tools": Case({"tools": OFFERED, "parallel_tool_calls": True}, {"tools": TOOLS}),
    "one tool": Case({"tools": OFFERED}, {"tools": TOOLS}),
    "logprobs": Case({"logprobs": True, "top_logprobs": 2}),
    "n": Case({"n": 2}),
}
ANSWERED: Mapping[str, Case] = {
    f"{kind} {form}": Case(case.arguments | arguments, case.switches, case.prompt)
    for kind, case in KINDS.items()
    for form, arguments in FORMS.items()
    # A hybrid model thinks in deltas only (spec PAR-14).
    if kind != "v3.2" or form == "deltas"
}

# What is refused before a packet has left, and the words for it (spec ERR).
FAULTS: Mapping[str, tuple[Case, faults.Fault]] = {
    "bad key": (Case({"api_key": "sk-wrong"}), faults.BAD_KEY),
    "unknown model": (Case({"model": "no-such-model"}), faults.MODEL_UNKNOWN),
    "bad parameter": (Case({"top_p": 1.5}), faults.invalid("Range of top_p should be (0.0, 1.0]")),
    "overdue account": (Case({}, {"status": 402}), faults.ARREARAGE),
    "throttled": (Case({}, {"status": 429}), faults.RATE_LIMITED),
    "overloaded": (Case({}, {"status": 503}), faults.OVERLOADED),
    "broken": (Case({}, {"status": 500}), faults.UPSTREAM_BROKEN),
}
REFUSED: Mapping[str, Case] = {
    f"{name}, {form}": Case(case.arguments | FORMS[form], case.switches)
    for name, (case, _) in FAULTS.items()
    for form in ("reply", "deltas")
}

# Where an answer that has begun breaks off, and the words for it (spec SSE-3, SSE-4).
BREAKS: Mapping[str, tuple[Json, faults.Fault]] = {
    "connection lost": ({"cut_after": 6}, faults.UPSTREAM_BROKEN),
    "no finish": ({"cut_after": 6, "cut_by": "end"}, faults.UPSTREAM_BROKEN),
    "error event": ({"error_event_after": 6, "error_event_status": 503}, faults.OVERLOADED),
}
BROKEN: Mapping[str, Case] = {
    f"{name}, {form}": Case(FORMS[form], switches)
    for name, (switches, _) in BREAKS.items()
    for form in ("deltas", "snapshots")
}

# Upstream is silent for longer than a heartbeat, before its first word and between any two.
QUICK_HEARTBEATS = {"DASHSEEK_HEAD_HOLD": "0.1", "DASHSEEK_HEARTBEAT": "0.1"}
# Between two packets there must be room for a tick that sees the first of them and for one that sees nothing new.
SILENT: Json = {"first_byte_delay_s": 0.4, "gap_s": 0.35, "delta_chars": 40}
SILENCES: Mapping[str, Case] = {
    "silent deltas": Case(FORMS["deltas"], SILENT),
    "silent snapshots": Case(FORMS["snapshots"], SILENT),
    "silent refusal": Case(FORMS["deltas"], SILENT | {"status": 429}),
}

REAL: Mapping[str, Case] = {
    f"real {form}": Case(FORMS[form] | {"max_tokens": 8}) for form in ("reply", "deltas", "snapshots")
}

ALL: Mapping[str, Case] = {**ANSWERED, **REFUSED, **BROKEN, **SILENCES, **REAL}
BY_MESSAGES = frozenset(name for name, case in ALL.items() if not case.prompt)
# It streams by deltas, with tools by snapshots too. A status but 400 and 401 ends in a KeyError of its own: it hands
# the SDK's response to an exception which is made for those of `requests`.
LANGCHAIN = frozenset(
    {f"{kind} {form}" for kind in ("plain", "cut", "r1", "tools", "one tool", "real") for form in ("reply", "deltas")}
    | {"v3.2 deltas", "tools snapshots", "one tool snapshots", "silent deltas", "silent refusal"}
    | {name for name in REFUSED if FAULTS[name.partition(", ")[0]][1].status in (400, 401)}
    | {f"{name}, deltas" for name in BREAKS}
)
# It streams by deltas alone, shows no chain, and of a refusal not every word.
LANGCHAIN_JS = frozenset(
    {f"{kind} {form}" for kind in ("plain", "cut", "tools", "one tool", "real") for form in ("reply", "deltas")}
    | {"silent deltas", "silent refusal"}
    | {f"{name}, deltas" for name in BREAKS}
)
# It shows an empty message for whatever goes wrong.
LLAMA_INDEX = frozenset(
    {f"{kind} {form}" for kind in ("plain", "r1", "real") for form in ("reply", "deltas")} | {"silent deltas"}
)


@dataclass(frozen=True, slots=True)
class Reader:
    """A way in which a published client shows an answer.

    client: its environment below `.clients`
    script: the file of `clients/` that runs there
    api:    what that script calls the way
    cases:  what can be asked that way
    folds:  whether it makes deltas of snapshots
    raises: whether its exceptions have classes by DashScope's codes
    """

    client: str
    script: str
    api: str
    cases: frozenset[str]
    folds: bool = False
    raises: bool = False

    def __str__(self) -> str:
        return f"{self.client} {self.api}"


READERS = (
    Reader("dashscope-2", "generation.py", "Generation", frozenset(ALL)),
    Reader("dashscope-2", "generation.py", "AioGeneration", frozenset(ALL)),
    Reader("dashscope-2", "completions.py", "Client", BY_MESSAGES, raises=True),
    Reader("dashscope-2", "completions.py", "AsyncClient", BY_MESSAGES, raises=True),
    Reader("dashscope-1", "generation.py", "Generation", frozenset(ALL)),
    Reader("dashscope-1", "generation.py", "AioGeneration", frozenset(ALL)),
    Reader("langchain", "tongyi.py", "ChatTongyi", LANGCHAIN, folds=True),
    Reader("langchainjs", "tongyi.mjs", "ChatAlibabaTongyi", LANGCHAIN_JS, folds=True),
    Reader("llama-index", "llama_index_llm.py", "chat", LLAMA_INDEX, folds=True),
    Reader("llama-index", "llama_index_llm.py", "complete", frozenset({"plain reply", "real reply"})),
)


@dataclass(frozen=True, slots=True)
class Seen:
    """What the user of a client saw of one call.

    packets: in DashScope's form, a reply being one
    failure: the class and the text of the exception, if it failed
    said:    what upstream said, None where it was not asked, or is not scripted
    """

    packets: list[Json]
    failure: Json | None
    said: deepseek.Answer | None

    @property
    def answer(self) -> deepseek.Answer:
        """What upstream said, where it must have been asked."""
        assert self.said is not None
        return self.said

    def choices(self, index: int) -> Iterator[Json]:
        """One of the choices, from packet to packet."""
        for packet in self.packets:
            yield from (choice for choice in packet["output"]["choices"] if choice["index"] == index)

    def texts(self, key: str, index: int) -> list[str]:
        """One side of a choice, from packet to packet; an absent one is empty."""
        return [choice["message"].get(key) or "" for choice in self.choices(index)]


Sight = dict[tuple[Reader, str], Seen]


@pytest.fixture(scope="module")
def sights() -> dict[str, Sight | None]:
    """What has been seen already: clients take seconds to start, so they make all calls of a setting at once.

    None where that failed: the first test has said how, and the others need not wait for it again.
    """
    return {}


def seen_in(sights: dict[str, Sight | None], setting: str) -> Sight:
    """What has been seen of a setting."""
    found = sights[setting]
    assert found is not None, "the clients could not make their calls: see the first of these tests"
    return found


@pytest.fixture
async def sight(
    sights: dict[str, Sight | None], simulator: StartSimulator, serve: StartServe, vocabulary: tokens.Vocabulary
) -> Sight:
    """All calls but the silent ones, before the simulator."""
    if "loud" not in sights:
        sights["loud"] = None
        upstream = await simulator(deepseek.Script(key=KEY))
        front = await serve(upstream.url)
        sights["loud"] = await see(front.url, {**ANSWERED, **REFUSED, **BROKEN}, upstream, vocabulary)
    return seen_in(sights, "loud")


@pytest.fixture
async def silent_sight(
    sights: dict[str, Sight | None], simulator: StartSimulator, serve: StartServe, vocabulary: tokens.Vocabulary
) -> Sight:
    """The calls during which upstream is silent for a while."""
    if "silent" not in sights:
        sights["silent"] = None
        upstream = await simulator(deepseek.Script(key=KEY))
        front = await serve(upstream.url, env=QUICK_HEARTBEATS)
        sights["silent"] = await see(front.url, SILENCES, upstream, vocabulary)
    return seen_in(sights, "silent")


@pytest.fixture
async def real_sight(sights: dict[str, Sight | None], serve: StartServe) -> Sight:
    """A few calls before a real model."""
    if "real" not in sights:
        sights["real"] = None
        with llamacpp.start() as llama:
            front = await serve(llama.url, "--dialect", "llamacpp")
            sights["real"] = await see(front.url, REAL)
    return seen_in(sights, "real")


Claim = Callable[[Reader, str, Sight], None]


def each(names: Collection[str], *, sight: str = "sight") -> Callable[[Claim], Any]:
    """Make of a claim about one case a test for each reader, which names all of its cases that fail.

    sight: the fixture that has seen them
    """

    def over(claim: Claim) -> Any:
        def test(**given: Any) -> None:
            reader: Reader = given["reader"]
            wrong = {}
            for name in names:
                if name in reader.cases:
                    try:
                        claim(reader, name, given[sight])
                    except Exception as error:  # noqa: BLE001 - whatever is wrong with one case, the others are looked at
                        wrong[name] = f"{type(error).__name__}: {error}"
            assert not wrong, "\n\n".join(f"{reader}: {name}\n{said}" for name, said in wrong.items())

        parameters = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY) for name in ("reader", sight)]
        test.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        test.__doc__ = claim.__doc__
        return readers(*(reader for reader in READERS if not reader.cases.isdisjoint(names)))(test)

    return over


def readers(*chosen: Reader) -> pytest.MarkDecorator:
    """Run a test for each of these readers whose client is there."""
    clients = [
        pytest.param(reader, marks=needs.unless(is_prepared(reader), f".clients/{reader.client}")) for reader in chosen
    ]
    return pytest.mark.parametrize("reader", clients, ids=str)


def is_prepared(reader: Reader) -> bool:
    """A script of Node needs Node itself, beside its client."""
    return needs.is_client(reader.client) and (reader.script.endswith(".py") or needs.found("node") is not None)


@each(ANSWERED)
def test_text_and_reasoning_are_whole_and_in_order(reader: Reader, name: str, sight: Sight) -> None:
    """SSE-5, SSE-6, OUT-7."""
    case, seen = ALL[name], sight[reader, name]
    assert seen.failure is None
    said = seen.answer
    for index in range(case.arguments.get("n", 1)):
        for key, pieces in (("content", said.content), ("reasoning_content", said.reasoning or ())):
            texts = seen.texts(key, index)
            if case.snapshots and not reader.folds:
                assert all(after.startswith(before) for before, after in itertools.pairwise(texts))
                texts = texts[-1:]
            assert "".join(texts) == "".join(pieces)


@each(ANSWERED)
def test_calls_of_tools_are_whole(reader: Reader, name: str, sight: Sight) -> None:
    """SSE-7, OUT-5, PAR-18."""
    case, seen = ALL[name], sight[reader, name]
    said = [(tool, "".join(arguments)) for tool, arguments in seen.answer.tools]
    shown = [choice["message"].get("tool_calls") or [] for choice in seen.choices(0)]
    calls = joined(shown[-1:] if case.snapshots and not reader.folds else shown)
    wanted = said if case.arguments.get("parallel_tool_calls") else said[:1]
    assert [(call["name"], call["arguments"]) for call in calls] == wanted
    ids = [call["id"] for call in calls]
    assert all(ids)
    assert len(set(ids)) == len(ids)


@each(ANSWERED)
def test_the_reason_to_finish_comes_once_at_the_end(reader: Reader, name: str, sight: Sight) -> None:
    """OUT-2, SSE-4; ChatTongyi tells none before the end."""
    case, seen = ALL[name], sight[reader, name]
    for index in range(case.arguments.get("n", 1)):
        *early, last = filter(None, (choice["finish_reason"] for choice in seen.choices(index)))
        assert set(early) <= {"null"}
        assert last == seen.answer.finish


@each(ANSWERED)
def test_usage_is_on_every_packet_and_ends_with_what_upstream_said(reader: Reader, name: str, sight: Sight) -> None:
    """USE-1, USE-3, USE-4, OUT-4, OUT-7; ChatTongyi tells it with the last packet only."""
    case, seen = ALL[name], sight[reader, name]
    said = seen.answer.usage
    shown = [packet for packet in seen.packets if packet["usage"] is not None]
    assert len(shown) == (1 if reader.api == "ChatTongyi" else len(seen.packets))
    for index in range(case.arguments.get("n", 1)):
        usages = [packet["usage"] for packet in shown if index in indices(packet)]
        check_growth(usages[:-1])
        choices = len(indices([packet for packet in shown if index in indices(packet)][-1]))
        assert usages[-1]["input_tokens"] == said["prompt_tokens"]
        assert usages[-1]["output_tokens"] == said["completion_tokens"] * choices
        assert usages[-1]["total_tokens"] == usages[-1]["input_tokens"] + usages[-1]["output_tokens"]
        details = said.get("completion_tokens_details", {})
        told = usages[-1].get("output_tokens_details") or {}
        assert told.get("reasoning_tokens") == details.get("reasoning_tokens")


@each([name for name in ANSWERED if name.startswith("logprobs")])
def test_logprobs_are_those_of_the_text(reader: Reader, name: str, sight: Sight) -> None:
    """OUT-6, PAR-10."""
    case, seen = ALL[name], sight[reader, name]
    said = seen.answer
    shown = [(choice.get("logprobs") or {}).get("content") or [] for choice in seen.choices(0)]
    entries = shown[-1] if case.snapshots else [entry for some in shown for entry in some]
    assert tuple(entry["token"] for entry in entries) == said.content
    assert {len(entry["top_logprobs"]) for entry in entries} == {2}


@each([*ANSWERED, *BROKEN])
def test_all_packets_of_a_call_have_one_id(reader: Reader, name: str, sight: Sight) -> None:
    """HTTP-6."""
    seen = sight[reader, name]
    ids = {packet["request_id"] for packet in seen.packets if packet["request_id"]}
    ids |= {*UUID.findall(seen.failure["text"])} if seen.failure else set()
    (request_id,) = ids
    assert str(uuid.UUID(request_id)) == request_id


UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@readers(*READERS)
def test_no_two_calls_have_the_same_id(reader: Reader, sight: Sight) -> None:
    """HTTP-6."""
    whose = [{packet["request_id"] for packet in seen.packets} for (one, _), seen in sight.items() if one == reader]
    ids = [one for some in whose for one in some if one]
    assert len(set(ids)) == len(ids)


# The class that the second SDK generation has for a code.
CLASSES: Mapping[str, str] = {
    "InvalidApiKey": "AuthenticationError",
    "InvalidParameter": "BadRequestError",
    "Arrearage": "PermissionDeniedError",
    "Throttling.RateQuota": "RateLimitError",
    "ModelServingError": "ServiceUnavailableError",
    "InternalError": "InternalServerError",
}


@each(REFUSED)
def test_a_refusal_keeps_its_status_code_and_words(reader: Reader, name: str, sight: Sight) -> None:
    """SSE-2, ERR-1: before the first packet, on streams too."""
    seen, (_, fault) = sight[reader, name], FAULTS[name.partition(", ")[0]]
    assert seen.packets == []
    assert seen.failure is not None
    for words in (str(fault.status), fault.code, fault.message):
        assert words in seen.failure["text"]
    if reader.raises:
        assert seen.failure["kind"] == CLASSES[fault.code]


@each(BROKEN)
def test_an_answer_that_breaks_off_is_a_failure_after_its_text(reader: Reader, name: str, sight: Sight) -> None:
    """SSE-3, SSE-4. Inside a stream the SDKs know codes, not statuses: all are 400 to them, or 200."""
    seen, (_, fault) = sight[reader, name], BREAKS[name.partition(", ")[0]]
    assert seen.failure is not None
    for words in (fault.code, fault.message):
        assert words in seen.failure["text"]
    texts = seen.texts("content", 0)
    # Upstream named the role and said five pieces. ChatTongyi looks one ahead, and so loses the last.
    pieces = seen.answer.content[: 4 if reader.api == "ChatTongyi" else 5]
    assert (texts[-1] if ALL[name].snapshots else "".join(texts)) == "".join(pieces)
    check_growth([packet["usage"] for packet in seen.packets if packet["usage"]])


@each(SILENCES, sight="silent_sight")
def test_no_client_takes_a_heartbeat_for_an_event(reader: Reader, name: str, silent_sight: Sight) -> None:
    """SSE-11."""
    case, seen = ALL[name], silent_sight[reader, name]
    if "status" in case.switches:
        assert seen.packets == []
        assert seen.failure is not None
        assert faults.RATE_LIMITED.code in seen.failure["text"]
        return
    assert seen.failure is None
    said, texts = seen.answer.content, seen.texts("content", 0)
    assert (texts[-1] if case.snapshots else "".join(texts)) == "".join(said)
    # Each piece, and the finish; ChatTongyi ends its messages with an empty one.
    assert len(seen.packets) == len(said) + 1 + (reader.api == "ChatTongyi")


async def test_a_heartbeat_stands_after_the_head_between_frames_and_before_one(
    simulator: StartSimulator, serve: StartServe
) -> None:
    """SSE-11: the clients above have met it in all its places."""
    upstream = await simulator(deepseek.Script(key=KEY))
    front = await serve(upstream.url, env=QUICK_HEARTBEATS)
    asked = arguments_of(READERS[0], "silent deltas")
    body = {
        "model": asked["model"],
        "input": {"messages": asked["messages"]},
        "parameters": {"incremental_output": True},
    }
    path = "/api/v1/services/aigc/text-generation/generation"
    headers = {"Authorization": f"Bearer {KEY}", "X-DashScope-SSE": "enable"}
    async with aiohttp.ClientSession() as session, session.post(front.url + path, json=body, headers=headers) as answer:
        stream = await answer.read()
    assert re.match(rb"(:heartbeat\n)+id:1\n", stream)
    assert re.search(rb"}\n\n(:heartbeat\n)+id:2\n", stream)
    assert b":heartbeat\n\n" not in stream


@needs.unless(llamacpp.available(), "the local model")
@each(REAL, sight="real_sight")
def test_a_real_model_is_understood(reader: Reader, name: str, real_sight: Sight) -> None:
    """A text, an end, and usage that grows, up to what upstream says: it has another vocabulary (USE-3)."""
    seen = real_sight[reader, name]
    assert seen.failure is None
    assert "".join(seen.texts("content", 0))
    *_, finish = filter(None, (choice["finish_reason"] for choice in seen.choices(0)))
    assert finish in {"stop", "length"}
    usages = [packet["usage"] for packet in seen.packets if packet["usage"]]
    check_growth(usages[:-1])
    assert usages[-1]["total_tokens"] == usages[-1]["input_tokens"] + usages[-1]["output_tokens"]
    assert 0 < usages[-1]["output_tokens"] <= ALL[name].arguments["max_tokens"]


async def see(
    url: str,
    cases: Iterable[str],
    upstream: simulator.Simulator | None = None,
    vocabulary: tokens.Vocabulary | None = None,
) -> Sight:
    """Let every client that is prepared make the calls it can; those of different scripts go side by side."""
    asked = [(reader, name) for reader in READERS if is_prepared(reader) for name in cases if name in reader.cases]
    calls: dict[tuple[str, str], Json] = defaultdict(dict)
    for reader, name in asked:
        call = {"api": reader.api, "arguments": arguments_of(reader, name)}
        calls[reader.client, reader.script][f"{reader}: {name}"] = call
    documents = await asyncio.gather(*(scripts.run(f"{url}/api/v1", *where, made) for where, made in calls.items()))
    shown = {one: seen for document in documents for one, seen in document.items()}
    said = answers(upstream, vocabulary) if upstream else {}
    return {
        (reader, name): Seen(**shown[f"{reader}: {name}"], said=said.get(question(reader, name)))
        for reader, name in asked
    }


def arguments_of(reader: Reader, name: str) -> Json:
    """A call's arguments, in the words of `Generation.call`."""
    case, asked = ALL[name], question(reader, name)
    if case.prompt:
        words: Json = {"prompt": asked, "history": [{"user": "Are you there?", "bot": "Yes."}]}
    else:
        words = {"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": asked}]}
    return {"api_key": KEY, "model": "deepseek-v3"} | words | case.arguments


def question(reader: Reader, name: str) -> str:
    """The last user message of a call: to the simulator an order of its own, by which it is known again."""
    if name in REAL:
        return "Tell me a story."
    return orjson.dumps({"simulate": {"text": f"{reader}, {name}:{TEXT}"} | ALL[name].switches}).decode()


def answers(upstream: simulator.Simulator, vocabulary: tokens.Vocabulary | None) -> dict[str, deepseek.Answer]:
    """What the simulator has said, by what it was asked."""
    scale = deepseek.Scale(vocabulary)
    said = {}
    for body in (call.body for call in upstream.calls):
        script = deepseek.with_switches(deepseek.Script(), deepseek.settings(body))
        said[body["messages"][-1]["content"]] = deepseek.compose(body, script, scale)
    return said


def joined(shown: Iterable[list[Json]]) -> list[Json]:
    """Tool calls out of their fragments."""
    calls: dict[int, Json] = {}
    for fragments in shown:
        for place, fragment in enumerate(fragments):
            # Put together by the second SDK generation itself, calls have a place instead of an index.
            index = place if fragment["index"] is None else fragment["index"]
            call = calls.setdefault(index, {"id": "", "name": "", "arguments": ""})
            calls[index] = {
                "id": call["id"] or fragment["id"],
                "name": call["name"] + (fragment["function"].get("name") or ""),
                "arguments": call["arguments"] + (fragment["function"].get("arguments") or ""),
            }
    return [calls[index] for index in sorted(calls)]


def indices(packet: Json) -> set[int]:
    return {choice["index"] for choice in packet["output"]["choices"]}


def check_growth(usages: list[Json]) -> None:
    """Every figure is one, none falls, and they add up (spec USE-1, USE-2)."""
    for usage in usages:
        assert usage["input_tokens"] > 0
        assert usage["output_tokens"] > 0
        assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]
    outputs = [usage["output_tokens"] for usage in usages]
    assert outputs == sorted(outputs)
