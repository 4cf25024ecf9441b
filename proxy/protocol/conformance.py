"""Whether what a gateway answered is DashScope: checks as rows, each judged purely from the bytes that came.

`checks` lays out the rows that apply to a model; whoever has sockets makes their requests and hands `judge` what came
(`proxy.commands.conform`). Models answer differently each time, so a row judges form and invariants, and raises
`NotShown` where the answer gave nothing to judge by.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Final, Literal

import orjson

from proxy.protocol import asks, claims, compatible_checks, judgements, probes, tables
from proxy.protocol.asks import Ask, Target
from proxy.protocol.judgements import Breach, Came, Judge, NotShown
from proxy.protocol.probes import Probe
from translators import faults
from translators.dialogue import Json

Weight = Literal["must", "should", "note"]
# name, group, rule, weight, names of its requests, who judges their answers; its words are in `claims`
Row = tuple[str, str, str, Weight, tuple[str, ...], Judge]


class Verdict(Enum):
    """What a check found."""

    FAILED = "failed"
    NOT_SHOWN = "not shown"
    PASSED = "passed"


@dataclass(frozen=True, slots=True)
class Check:
    """One rule held against what some requests bring.

    rule:   its number in the protocol document
    weight: whether clients break without it (must), lose something (should), or may merely like to know (note)
    claim:  what a gateway that keeps it does
    why:    who is hurt by one that does not
    chance: whether a model may answer so that nothing is shown, and asking again may help
    """

    name: str
    group: str
    rule: str
    weight: Weight
    claim: str
    why: str
    asks: tuple[Ask, ...]
    judge: Judge
    chance: bool = False


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found, and by what."""

    verdict: Verdict
    evidence: str = ""


def judge(check: Check, came: Sequence[Came], target: Target) -> Finding:
    """Hold what came against a rule; an answer that cannot be read breaks it."""
    try:
        complaint = check.judge(came, target)
    except NotShown as reason:
        return Finding(Verdict.NOT_SHOWN, str(reason))
    except Breach as breach:
        return Finding(Verdict.FAILED, str(breach))
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        return Finding(Verdict.FAILED, f"an answer of another shape ({type(error).__name__}: {error})")
    return Finding(Verdict.FAILED, complaint) if complaint else Finding(Verdict.PASSED)


_ROWS: Final[tuple[Row, ...]] = (
    ("endpoint", "surface", "HTTP-1", "must", ("reply",), judgements.status),
    ("reply-shape", "surface", "OUT-1", "must", ("reply",), judgements.whole),
    ("reply-finish", "surface", "OUT-2", "must", ("reply",), judgements.ended),
    ("request-id", "surface", "HTTP-6", "must", ("reply", "refused"), judgements.identified),
    ("request-id-header", "surface", "HTTP-6", "should", ("reply", "refused"), judgements.identified_in_header),
    ("request-id-kept", "surface", "HTTP-6", "note", ("kept id",), judgements.kept),
    ("json-type", "surface", "HTTP-7", "must", ("reply",), judgements.header("content-type", "application/json.*")),
    ("stream-type", "surface", "HTTP-7", "must", ("text",), judgements.header("content-type", "text/event-stream.*")),
    ("stream-charset", "surface", "HTTP-7", "note", ("text",), judgements.header("content-type", ".*;charset=utf-8")),
    (
        "stream-cache",
        "surface",
        "HTTP-7",
        "should",
        ("text",),
        judgements.header("cache-control", ".*no-(cache|store).*"),
    ),
    ("stream-buffering", "surface", "HTTP-7", "should", ("text",), judgements.header("x-accel-buffering", "no")),
    ("call-gateway", "surface", "HTTP-7", "note", ("text",), judgements.header("x-dashscope-call-gateway", "true")),
    ("sse-accept", "surface", "HTTP-5", "must", ("by accept",), judgements.is_stream),
    ("sse-content-type", "surface", "HTTP-5", "should", ("by content type",), judgements.is_stream),
    ("sse-case", "surface", "HTTP-5", "should", ("in capitals",), judgements.is_stream),
    ("sse-disable", "surface", "HTTP-5", "should", ("disabled",), judgements.is_json),
    ("sse-body", "surface", "HTTP-5", "must", ("by body",), judgements.is_json),
    ("unknown-path", "surface", "HTTP-4", "should", ("no path",), judgements.refused_as(faults.NOT_FOUND)),
    (
        "wrong-method",
        "surface",
        "HTTP-4",
        "should",
        ("wrong method",),
        judgements.refused_as(faults.wrong_method("GET")),
    ),
    ("multimodal", "surface", "HTTP-3", "should", ("multimodal",), judgements.in_parts_or(faults.WRONG_ENDPOINT)),
    ("async", "surface", "HTTP-9", "should", ("async",), judgements.refused_as(faults.NO_ASYNC)),
    ("encrypted", "surface", "HTTP-9", "note", ("encrypted",), judgements.refused_as(faults.ENCRYPTED_BODY)),
    ("ignored", "surface", "HTTP-8", "must", ("ignored",), judgements.status),
    (
        "stream-plain",
        "surface",
        "HTTP-11",
        "should",
        ("offered gzip",),
        judgements.header("content-encoding", "(identity)?"),
    ),
    ("gzip", "surface", "HTTP-11", "note", ("gzip",), judgements.status),
    ("models", "surface", "HTTP-12", "note", ("models",), judgements.models),
    ("tokenizer", "surface", "HTTP-12", "note", ("tokenizer",), judgements.tokens),
    ("no-key", "keys", "HTTP-10", "must", ("no key",), judgements.locked),
    ("wrong-key", "keys", "HTTP-10", "must", ("reply", "wrong key"), judgements.among_answers(judgements.locked)),
    ("x-api-key", "keys", "HTTP-10", "note", ("x-api-key",), judgements.status),
    ("keep-alive", "connections", "HTTP-1", "should", ("alive 1", "alive 2"), judgements.reused),
    ("http-1.0", "connections", "HTTP-1", "should", ("http/1.0",), judgements.status),
    ("expect", "connections", "HTTP-1", "should", ("expect",), judgements.status),
    ("hang-up", "connections", "MET-5", "must", ("hang up", "after"), judgements.unharmed),
    ("hang-up-time", "connections", "MET-5", "note", ("alive 1", "hang up", "after"), judgements.accepted_soon),
    (
        "frame",
        "frames",
        "SSE-1",
        "must",
        ("text", "cumulative", "tool stream"),
        judgements.clean("SSE-1"),
    ),
    ("whole-frames", "frames", "SSE-1", "should", ("text", "cumulative"), judgements.whole_frames),
    ("error-frame", "frames", "SSE-3", "must", ("text", "cumulative"), judgements.clean("SSE-3")),
    (
        "one-end",
        "frames",
        "SSE-4",
        "must",
        ("text", "cumulative", "tool stream"),
        judgements.clean("SSE-4"),
    ),
    ("no-empty-packets", "frames", "SSE-10", "should", ("text",), judgements.clean("SSE-10", incremental=True)),
    ("heartbeats", "frames", "SSE-11", "must", ("text", "cumulative"), judgements.clean("SSE-11")),
    (
        "packet-shape",
        "frames",
        "OUT-1",
        "must",
        ("text", "cumulative", "tool stream"),
        judgements.clean("OUT-1"),
    ),
    ("packet-id", "frames", "HTTP-6", "must", ("text", "cumulative"), judgements.clean("HTTP-6")),
    (
        "finish-word",
        "frames",
        "OUT-2",
        "must",
        ("text", "cumulative", "tool stream"),
        judgements.clean("OUT-2"),
    ),
    ("incremental", "frames", "SSE-5", "must", ("text",), judgements.several),
    ("cumulative", "frames", "PAR-13", "must", ("cumulative",), judgements.grows),
    ("cumulative-whole", "frames", "SSE-5", "must", ("cumulative",), judgements.clean("SSE-5", incremental=False)),
    ("usage-every-packet", "usage", "SSE-9", "must", ("text", "cumulative"), judgements.on_every),
    ("usage-first", "usage", "USE-1", "must", ("text",), judgements.from_the_first),
    ("usage-running", "usage", "USE-1", "must", ("text",), judgements.on_the_way),
    ("usage-falls", "usage", "USE-2", "must", ("text", "cumulative"), judgements.clean("USE-2")),
    ("usage-sum", "usage", "OUT-4", "must", ("text", "cumulative"), judgements.clean("OUT-4")),
    ("usage-reply", "usage", "OUT-4", "must", ("reply",), judgements.sums),
    ("usage-exact", "usage", "USE-2", "must", ("text",), judgements.counted),
    ("usage-exact-running", "usage", "USE-2", "should", ("text",), judgements.running),
    ("usage-prompt", "usage", "USE-1", "should", ("reply",), judgements.prompt_counted),
    ("no-tool", "tools", "PAR-17", "must", ("no tool",), judgements.called_nothing),
    ("auto-tool", "tools", "OUT-5", "must", ("auto tool",), judgements.maybe_called),
    ("one-tool", "tools", "PAR-18", "must", ("auto tool",), judgements.called_once),
    ("parallel-tools", "tools", "PAR-18", "should", ("parallel tools",), judgements.called_both),
    ("tool-stream", "tools", "SSE-7", "must", ("tool stream",), judgements.clean("SSE-7", incremental=True)),
    ("tool-cumulative", "tools", "SSE-7", "must", ("tool cumulative",), judgements.clean("SSE-7", incremental=False)),
    (
        "tool-stream-shape",
        "tools",
        "OUT-5",
        "must",
        ("tool stream", "tool cumulative"),
        judgements.clean("OUT-5"),
    ),
    ("tool-loop", "tools", "REQ-5", "must", ("tool loop",), judgements.whole),
    ("length", "answers", "OUT-8", "must", ("length",), judgements.cut_off),
    *((f"length-{name}", "answers", "PAR-5", "should", (name,), judgements.cut_off) for name in asks.LIMIT_ALIASES),
    ("stop", "answers", "PAR-9", "must", ("stop",), judgements.stopped),
    ("logprobs", "answers", "OUT-6", "should", ("logprobs",), judgements.log_probabilities),
    ("json", "answers", "PAR-11", "must", ("json",), judgements.json_object),
    ("schema", "answers", "PAR-11", "should", ("schema",), judgements.json_object),
    ("prompt", "prompts", "REQ-2", "must", ("prompt",), judgements.whole),
    ("history", "prompts", "REQ-2", "must", ("history",), judgements.whole),
    ("parts", "prompts", "REQ-4", "must", ("parts",), judgements.whole),
    ("prefix", "prompts", "REQ-6", "should", ("prefix",), judgements.new_text_only),
    ("error-shape", "errors", "ERR-1", "must", ("refused", "no json"), judgements.error_shape),
    ("error-codes", "errors", "ERR-2", "must", ("refused", "no json", "wrong key"), judgements.error_codes),
    ("body-invalid", "errors", "REQ-1", "must", ("no json",), judgements.refused_as(faults.BODY_INVALID)),
    ("error-status", "errors", "SSE-2", "must", ("refused", "refused stream"), judgements.true_status),
    ("model-name", "models", "MOD-2", "note", ("vendor",), judgements.status),
)

# Rows for models that think, for those whose thinking can be off, for those that need not think, and for routes.
_THINKING: Final[tuple[Row, ...]] = (
    ("thinks", "thinking", "PAR-14", "must", ("thinking",), judgements.thought),
    ("thinking-order", "thinking", "SSE-6", "must", ("thinking",), judgements.clean("SSE-6", incremental=True)),
    ("thinking-frames", "thinking", "SSE-1", "must", ("thinking",), judgements.clean("SSE-1")),
    ("thinking-details", "thinking", "OUT-4", "should", ("thinking",), judgements.details),
)
_HYBRID: Final[tuple[Row, ...]] = (
    ("thinks-not", "thinking", "PAR-14", "must", ("not thinking",), judgements.did_not_think),
)
_PLAIN: Final[tuple[Row, ...]] = (
    ("named-tool", "tools", "PAR-17", "must", ("named tool",), judgements.called),
    ("required-tool", "tools", "PAR-17", "must", ("required tool",), judgements.called),
    ("n", "answers", "PAR-8", "must", ("n", "reply"), judgements.two),
    ("n-stream", "answers", "OUT-7", "must", ("n stream",), judgements.two_streamed),
)
_ROUTED: Final[tuple[Row, ...]] = (("route-model", "models", "HTTP-2", "must", ("by path",), judgements.status),)

_CHANCE: Final = frozenset(
    ("auto-tool", "one-tool", "parallel-tools", "stop", "json", "schema", "incremental", "tool", "tool-stream")
)

LONGEST_CLAIM: Final = 60
# Made of a rule, by kind: their names are numbered.
_NUMBERED: Final = re.compile(r"(.+-(?:takes|refuses)-)(\d+)(-text)?")
# Values at the inner edges of a range, types that are read as another, and aliases: to be taken, each by a call.
TAKEN: Final[tuple[tuple[str, Json], ...]] = (
    ("PAR-1", {"temperature": 0}),
    ("PAR-1", {"temperature": 1.99}),
    ("PAR-1", {"temperature": "0.5"}),
    ("PAR-1", {"temperature": None}),
    ("PAR-2", {"top_p": 1}),
    ("PAR-2", {"top_p": 0.01}),
    ("PAR-3", {"top_k": 0}),
    ("PAR-3", {"top_k": 101}),
    ("PAR-4", {"seed": 0}),
    ("PAR-4", {"seed": 2**63 - 1}),
    ("PAR-5", {"max_tokens": 1}),
    ("PAR-6", {"repetition_penalty": 1.1}),
    ("PAR-7", {"presence_penalty": -2}),
    ("PAR-7", {"presence_penalty": 2}),
    ("PAR-7", {"frequency_penalty": 2}),
    ("PAR-9", {"stop": "zzz"}),
    ("PAR-9", {"stop": ["zzz", "yyy"]}),
    ("PAR-9", {"stop": [104307]}),
    ("PAR-10", {"logprobs": True, "top_logprobs": 0}),
    ("PAR-10", {"logprobs": True, "top_logprobs": 5}),
    ("PAR-11", {"response_format": {"type": "text"}}),
    ("PAR-12", {"result_format": "message"}),
    ("PAR-13", {"incremental_output": True}),
    ("PAR-16", {"tools": []}),
    ("PAR-17", {"tool_choice": "auto"}),
    ("PAR-19", {"enable_search": False}),
)


def checks(target: Target) -> tuple[Check, ...]:
    """The rows that apply to a target, groups together, cheap and general ones first."""
    if target.api == "openai":
        return _compatible(target)
    known = asks.asks(target)
    rows = [*_ROWS, *(_ROUTED if target.routed else ())]
    rows += _THINKING if target.thinks != "never" else ()
    rows += _HYBRID if target.thinks == "hybrid" else ()
    rows += _PLAIN if target.thinks != "always" else ()
    laid = [
        Check(
            name, group, rule, weight, *claims.CLAIMS[name], tuple(known[ask] for ask in names), judged, name in _CHANCE
        )
        for name, group, rule, weight, names, judged in rows
    ]
    return (*laid, *_edges(target), *_refusals(target, known["reply"]))


def _compatible(target: Target) -> tuple[Check, ...]:
    known = compatible_checks.requests(target)
    return tuple(
        Check(name, group, rule, weight, claim, why, tuple(known[ask] for ask in names), judged, name in _CHANCE)
        for name, group, rule, weight, claim, why, names, judged in compatible_checks.rows(target)
    )


def by_rule() -> Mapping[str, tuple[str, ...]]:
    """The names of the checks that hold a rule, whatever the model, the route and the tongue.

    Names that differ by a number alone are one: `PAR-1-takes-1…3`.
    """
    names: dict[str, dict[str, None]] = defaultdict(dict)
    for row in tables.shipped().rows:
        for target in (Target(row.id, row, routed=True), Target(row.id, row, api="openai")):
            for check in checks(target):
                names[check.rule][check.name] = None
    return {rule: tuple(_run_together(found)) for rule, found in names.items()}


def _run_together(names: Iterable[str]) -> Iterator[str]:
    """Names that differ by a number only, as one with the first and the last number."""
    numbers: dict[tuple[str, str], list[int]] = defaultdict(list)
    for name in names:
        if found := _NUMBERED.fullmatch(name):
            numbers[found[1], found[3] or ""].append(int(found[2]))
        else:
            numbers[name, ""] = []
    for (head, tail), listed in numbers.items():
        yield f"{head}{_span(listed)}{tail}"


def _span(numbers: Sequence[int]) -> str:
    """The least and the greatest; "" where there are none."""
    if not numbers:
        return ""
    first, last = min(numbers), max(numbers)
    return str(first) if first == last else f"{first}…{last}"


def selected(rows: Sequence[Check], only: Collection[str]) -> tuple[Check, ...]:
    """The rows whose group, rule or name is named, all where nothing is; KeyError names a word that means none."""
    known = {word for row in rows for word in (row.group, row.rule, row.name)}
    for word in only:
        if word not in known:
            raise KeyError(word)
    return tuple(row for row in rows if not only or {row.group, row.rule, row.name} & set(only))


def asked(rows: Iterable[Check]) -> dict[str, Ask]:
    """The requests of some rows, each once, in the order in which they are made."""
    return {ask.name: ask for row in rows for ask in row.asks}


def _edges(target: Target) -> Iterator[Check]:
    numbers = Counter[str]()
    for rule, given in TAKEN:
        numbers[rule] += 1
        claim, name = f"{_shown(given)} is taken", f"{rule}-takes-{numbers[rule]}"
        ask = asks.priced(target, name, asks.call(target, "Say hello.", **{"max_tokens": 8, **given}))
        yield Check(name, "parameters", rule, "must", claim, claims.BRANCH, (ask,), judgements.status)


def _refusals(target: Target, good: Ask) -> Iterator[Check]:
    """Two rows, for the code and for the words, of every refusal of the protocol document that this model earns."""
    sources, known, numbers = tables.shipped(), target.row is not None, Counter[str]()
    for probe in (*probes.STRUCTURE, *probes.REFUSED):
        # Numbered before some are left out, so that a name means the same for every model.
        numbers[probe.rule] += 1
        if target.routed and _is_about_the_model(probe):
            continue
        try:
            # A model we do not know is held to what all have in common.
            fault = tables.refusal_of(_for(probe, target.row.id if target.row else "deepseek-v3"), sources)
        except ValueError:
            continue
        name = f"{probe.rule}-refuses-{numbers[probe.rule]}"
        ask = Ask(name, _document(_for(probe, target.model)), stream=probe.stream)
        group = "parameters" if probe.rule.startswith("PAR") else "prompts"
        claim = f"{_shown(probe.given)} is {fault.status} {fault.code}"
        judged = judgements.among_answers(judgements.refused_as(fault))
        yield Check(name, group, probe.rule, "must", claim, claims.BRANCH, (good, ask), judged)
        claim = f"{_shown(probe.given)} in the service's words"
        judged = judgements.among_answers(judgements.worded_as(fault, known=known))
        yield Check(f"{name}-text", "texts", probe.rule, "should", claim, claims.SEARCHED, (good, ask), judged)


def _is_about_the_model(probe: Probe) -> bool:
    """Whether it is refused for the model in its body, which a route that names one makes up for (spec HTTP-2)."""
    return probe.rule == "MOD-2" or ("input" in probe.given and "model" not in probe.given)


def _for(probe: Probe, model: str) -> Probe:
    """The same of another model, but where the model is what it is about."""
    if probe.rule == "MOD-2":
        return probe
    return replace(probe, model=model, given=probe.given | ({"model": model} if "model" in probe.given else {}))


def _document(probe: Probe) -> Json:
    if {"model", "input"} & probe.given.keys():
        return probe.given
    return {"model": probe.model, "input": {"prompt": "hi"}, "parameters": probe.given}


def _shown(given: Json) -> str:
    text = orjson.dumps(given).decode()
    return text if len(text) <= LONGEST_CLAIM else f"{text[:LONGEST_CLAIM]}…"
