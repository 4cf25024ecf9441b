"""The tables of the protocol document, each made of what the code and its probes say."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from enum import Enum, IntEnum
from pathlib import Path
from typing import Any, Final

import orjson

from config import models as tables
from config.settings import Settings
from proxy.admission import limits
from proxy.admission.limits import Kind
from proxy.metering.journal import Closing, Opening, Outcome
from proxy.protocol import phrases, probes
from proxy.protocol.phrases import Language, Words
from proxy.protocol.probes import Probe
from translators import choice, faults, pipe
from translators.catalogue import Catalogue
from translators.choice import Phase, Sight
from translators.dashscope import call, parameters
from translators.dialogue import Call, Json, Model
from translators.openai import dialects, failures, request
from translators.openai.dialects import Continuation, Dialect, Native
from translators.openai.failures import Failure, Terms, Verdict
from translators.openai.fields import FieldMapping
from translators.pipe import Event, State

# What stands in a table for `faults.PARAMETER_PREFIX`.
PREFIX: Final = "‹P›"
# What `faults` makes of an argument, with one.
MADE: Final[Mapping[str, faults.Fault]] = {
    "invalid": faults.invalid("…"),
    "wrong_method": faults.wrong_method("GET"),
    "no_thinking": faults.no_thinking("X"),
    "too_many_images": faults.too_many_images(50, 51),
    "input_length": faults.input_length(98_304),
}


@dataclass(frozen=True, slots=True)
class Sources:
    """What the tables are read from, beside the code: the shipped models."""

    rows: tuple[Model, ...]
    catalogue: Catalogue


class Doer(IntEnum):
    """Who does what a call asks for, the best first."""

    UPSTREAM = 0
    US = 1
    NOBODY = 2


def shipped() -> Sources:
    """The models as they ship, without any operator's settings."""
    rows = tuple(Model(**row) for row in tables.load(Settings()))
    return Sources(rows, Catalogue(rows))


def _parameters(language: Language, _: Sources) -> str:
    head = (("field", "type and range", "default", "rule"), ("字段", "类型与范围", "默认值", "规则"))
    return _table(
        head[language],
        (
            (
                ", ".join(map(_code, (row.theirs, *row.aliases))),
                *(words[language] for words in phrases.TAKES[row.theirs]),
                row.source,
            )
            for row in parameters.ROWS
        ),
    )


def _dropped(_: Language, __: Sources) -> str:
    return " ".join(map(_code, sorted(parameters.DROPPED)))


def _types(language: Language, _: Sources) -> str:
    head = (("type", "given", "becomes, or is refused with"), ("类型", "传入", "结果，或拒绝文本"))
    return _table(
        head[language],
        (
            (_code(kind.__name__), _json(value), _typed(kind, value))
            for kind, values in probes.TYPED.items()
            for value in values
        ),
    )


def _structure(language: Language, sources: Sources) -> str:
    head = (("rule", "call", "code", "text"), ("规则", "请求", "code", "文本"))
    return _table(
        head[language],
        (
            (probe.rule, _json(probe.given), _code(fault.code), _code(_short(fault.message)))
            for probe in probes.STRUCTURE
            if (fault := refusal_of(probe, sources))
        ),
    )


def _refused(language: Language, sources: Sources) -> str:
    head = (("rule", "parameters", "model", "text"), ("规则", "参数", "模型", "文本"))
    return _table(
        head[language],
        (
            (probe.rule, _json(probe.given), _asked(probe), _code(_short(refusal_of(probe, sources).message)))
            for probe in probes.REFUSED
        ),
    )


def _crossed(language: Language, sources: Sources) -> str:
    head = (("rule", "given", "model"), ("规则", "传入", "模型"))
    return _table(
        (*head[language], *dialects.DIALECTS),
        (
            (
                probe.rule,
                _json(probe.given),
                _asked(probe),
                *(_crossing(probe, dialect, sources) for dialect in dialects.DIALECTS.values()),
            )
            for probe in probes.CROSSED
        ),
    )


def _models(language: Language, sources: Sources) -> str:
    head = (
        (
            "model",
            "path",
            "sees",
            "thinks",
            "strict (PAR-14)",
            "context",
            "input",
            "chain",
            "answer",
            "template",
            "retires",
        ),
        ("模型", "路径", "看图", "思考", "严格（PAR-14）", "上下文", "输入", "思维链", "回答", "模板", "下架"),
    )
    return _table(
        head[language],
        (
            (
                _code(row.id),
                phrases.PATHS[row.path][language],
                phrases.YES_NO[row.sees][language],
                phrases.THINKS[row.thinking][language],
                phrases.YES_NO[row.strict_thinking][language],
                *(
                    f"{limit:,}"
                    for limit in (row.context_tokens, row.input_tokens, row.chain_tokens, row.answer_tokens)
                ),
                row.template,
                row.retires or "–",
            )
            for row in sources.rows
        ),
    )


def _upstream_ids(language: Language, sources: Sources) -> str:
    said = {name for row in sources.rows for name in row.upstream}
    named = [name for name in dialects.DIALECTS if name in said]
    return _table(
        (("model", "模型")[language], *named, ("any other", "其他")[language]),
        ((_code(row.id), *(_code(row.upstream[name]) for name in named), _code(row.id)) for row in sources.rows),
    )


def _dialects(language: Language, _: Sources) -> str:
    return _table(
        (("fact", "事实")[language], *dialects.DIALECTS),
        (
            (
                phrases.FACTS[fact.name][language],
                *(_fact(getattr(row, fact.name), language) for row in dialects.DIALECTS.values()),
            )
            for fact in fields(Dialect)
            if fact.name != "name"
        ),
    )


def _faults(language: Language, _: Sources) -> str:
    head = (
        ("status", "code", "text", "trigger", "at fault", "may retry"),
        ("状态", "code", "文本", "触发条件", "责任方", "可否重试"),
    )
    listed = {name: fault for name, fault in vars(faults).items() if isinstance(fault, faults.Fault)} | dict(MADE)
    return _table(
        head[language],
        (
            (
                str(fault.status),
                _code(fault.code),
                _code(_short(fault.message)),
                phrases.TRIGGERS[name][language],
                phrases.BLAMED[fault.blame][language],
                _retry(fault)[language],
            )
            for name, fault in sorted(listed.items(), key=lambda item: (item[1].status, item[1].code))
        ),
    )


def _failures(language: Language, _: Sources) -> str:
    head = (
        ("upstream status", "and says", "caller reads", "with the operator's key"),
        ("上游状态", "并且内容含", "调用方收到", "使用运营方密钥时"),
    )
    return _table(
        head[language],
        (
            (
                _statuses(row.statuses) or phrases.ANY[language],
                _code(row.words) if row.words else phrases.ANY[language],
                _read(row.fault),
                _read(row.own_key) if row.own_key else "=",
            )
            for row in failures.ROWS
        ),
    )


def _waits(language: Language, _: Sources) -> str:
    head = (("setting", "default, s", "waits for", "then"), ("设置", "默认值，秒", "等待什么", "到时"))
    settings = Settings()
    return _table(
        head[language],
        (
            (_code(name), f"{getattr(settings, name):g}", *(words[language] for words in said))
            for name, said in phrases.WAITS.items()
        ),
    )


def _recorded(language: Language, _: Sources) -> str:
    head = (("field", "line", "meaning"), ("字段", "行", "含义"))
    lines = {"open, close": Opening, "close": Closing}
    return _table(
        head[language],
        (
            (_code(name), line, phrases.RECORDED[name][language])
            for line, shape in lines.items()
            for name in shape.__annotations__
        ),
    )


def _outcomes(language: Language, _: Sources) -> str:
    head = (("outcome", "meaning"), ("outcome", "含义"))
    return _table(
        head[language],
        ((_code(outcome.value), phrases.OUTCOMES[outcome.value][language]) for outcome in Outcome),
    )


def _limits(language: Language, _: Sources) -> str:
    head = (("limit", "of", "who is over it reads"), ("限额", "对象", "超出者收到"))
    said: dict[Kind, Words] = {
        "concurrency": ("calls open at the same time", "同时进行的调用"),
        "burst": ("calls a second", "每秒调用"),
        "rpm": ("calls a minute", "每分钟调用"),
        "tpm": ("tokens a minute", "每分钟 token"),
        "tpd": ("tokens a day", "每日 token"),
        "tokens_month": ("tokens a month", "每月 token"),
        "cost_day": ("money a day", "每日金额"),
        "cost_month": ("money a month", "每月金额"),
    }
    return _table(
        head[language],
        ((_code(kind), said[kind][language], _read(fault)) for kind, fault in limits.FAULTS.items()),
    )


def _client(_: Language, __: Sources) -> str:
    code = (Path(__file__).parents[1] / "examples" / "call.mjs").read_text("utf-8")
    return f"```js\n{code.rstrip()}\n```"


def _fidelity(_: Language, sources: Sources) -> str:
    head = ("DashScope", "native", "done here", "left out or refused", "why")
    return _table(head, (*_parameter_fidelity(sources), *phrases.FEATURES, *_ignored_fidelity()))


def _parameter_fidelity(sources: Sources) -> Iterator[Sequence[str]]:
    """A row for each parameter: who has it, for whom the proxy does it, and who goes without, in the worst probe."""
    for row in parameters.ROWS:
        asked = [probe for probe in probes.CROSSED if next(iter(probe.given)) == row.theirs]
        where: dict[Doer, list[str]] = {doer: [] for doer in Doer}
        for name, dialect in dialects.DIALECTS.items():
            where[max((_doer(_crossed_by(probe, dialect, sources), probe) for probe in asked), default=Doer.US)].append(
                name
            )
        cells = phrases.HERE.get(row.theirs) or tuple(_names(names) for names in where.values())
        yield (_code(row.theirs), *cells, f"{row.why} ({row.source})")


def _doer(crossing: FieldMapping, probe: Probe) -> Doer:
    """Who does what a probe asks for; an effort is not a budget, and another value of the same field is our doing."""
    if crossing.action == "dropped" or (crossing.ours, crossing.theirs) == ("thinking_budget", "reasoning_effort"):
        return Doer.NOBODY
    asked = next(iter(probe.given.items()))
    changed = asked[0] in crossing.sent and crossing.sent[asked[0]] != asked[1]
    return Doer.US if crossing.action == "emulated" or changed else Doer.UPSTREAM


def _names(listed: Collection[str]) -> str:
    return "all" if len(listed) == len(dialects.DIALECTS) else ", ".join(listed) or "–"


def _ignored_fidelity() -> Iterator[Sequence[str]]:
    for name, why in parameters.DROPPED.items():
        yield (_code(name), "–", "–", "ignored", f"{why} (HTTP-8)")


def _stream_states(language: Language, _: Sources) -> str:
    return _machine(State, Event, pipe.NEXT, language)


def _stream_diagram(_: Language, __: Sources) -> str:
    return _diagram(pipe.NEXT, State.HELD, State.ENDED)


def _choice_states(language: Language, _: Sources) -> str:
    return _machine(Phase, Sight, choice.NEXT, language)


def _choice_diagram(_: Language, __: Sources) -> str:
    return _diagram(choice.NEXT, Phase.START, Phase.ENDED)


TABLES: Final[Mapping[str, Callable[[Language, Sources], str]]] = {
    "parameters": _parameters,
    "dropped": _dropped,
    "types": _types,
    "structure": _structure,
    "refused": _refused,
    "crossed": _crossed,
    "models": _models,
    "upstream-ids": _upstream_ids,
    "dialects": _dialects,
    "faults": _faults,
    "failures": _failures,
    "client": _client,
    "waits": _waits,
    "recorded": _recorded,
    "outcomes": _outcomes,
    "limits": _limits,
    "stream-states": _stream_states,
    "stream-diagram": _stream_diagram,
    "choice-states": _choice_states,
    "choice-diagram": _choice_diagram,
}
# What stands on the callers' page alone, which is English.
CALLERS_TABLES: Final = {"fidelity": _fidelity}


def _typed(kind: Callable[[Any, str], Any], value: object) -> str:
    try:
        return _json(kind(value, "parameters.X"))
    except faults.Refusal as refusal:
        return _code(_short(refusal.fault.message))


def _call(probe: Probe, sources: Sources) -> Call:
    whole = {"model", "input"} & probe.given.keys()
    document = probe.given if whole else {"model": probe.model, "input": {"prompt": "hi"}, "parameters": probe.given}
    # No probe stops at a token by its number: any way to decode one will do.
    return call.translate(document, sources.catalogue, stream=probe.stream, decode=bytes)


def refusal_of(probe: Probe, sources: Sources) -> faults.Fault:
    """What a call made to be refused is told; ValueError where it is not refused."""
    try:
        _call(probe, sources)
    except faults.Refusal as refusal:
        return refusal.fault
    raise ValueError(f"a probe of {probe.rule} was not refused: {probe.given}")


def _crossing(probe: Probe, dialect: Dialect, sources: Sources) -> str:
    theirs = next(iter(probe.given))
    return _crossed_as(_crossed_by(probe, dialect, sources), {theirs: probe.given[theirs]})


def _crossed_by(probe: Probe, dialect: Dialect, sources: Sources) -> FieldMapping:
    theirs = next(iter(probe.given))
    ours = next(row.ours for row in parameters.ROWS if row.theirs == theirs)
    asked = _call(probe, sources)
    return next(crossing for crossing in request.order(asked, dialect).fields() if crossing.ours == ours)


def _crossed_as(crossing: FieldMapping, given: Json) -> str:
    """`=` as it came, `—` not sent, `⌂` done by the proxy; else what is sent instead."""
    if crossing.action == "emulated":
        return f"⌂ {_json(crossing.sent)}" if crossing.sent else "⌂"
    if not crossing.sent:
        return "—"
    return "=" if crossing.sent == given else _json(crossing.sent)


def _asked(probe: Probe) -> str:
    return _code(probe.model) + (" SSE" if probe.stream else "")


def _retry(fault: faults.Fault) -> Words:
    waits = fault.status in failures.RETRIED and fault.blame != "operator"
    return phrases.WAIT if waits else phrases.RETRY[fault.blame]


def _read(verdict: faults.Fault | Verdict) -> str:
    """The fault of a row; one that depends on the failure is made of a failure that says only `…`."""
    if not isinstance(verdict, faults.Fault):
        verdict = verdict(Failure(400, "", "…"), Terms(98_304, own_key=False))
    return f"{verdict.status} {_code(verdict.code)} {_code(_short(verdict.message))}"


def _statuses(statuses: Collection[int]) -> str:
    """Numbers and runs of numbers; "" where it is all there are."""
    if len(statuses) >= len(failures.ROWS[-1].statuses):
        return ""
    runs: list[list[int]] = []
    for status in sorted(statuses):
        if runs and status == runs[-1][-1] + 1:
            runs[-1].append(status)
        else:
            runs.append([status])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}–{run[-1]}" for run in runs)


def _fact(value: object, language: Language) -> str:
    match value:
        case bool():
            return phrases.YES_NO[value][language]
        case None:
            return "–"
        case int():
            return f"{value:,}"
        case str():
            return value
        case Native():
            return f"{_code(value.field)} [{value.least}, {value.most or '∞'}]"
        case Continuation():
            return " ".join([_code(value.path), *(_json(extra) for extra in (value.message, value.body) if extra)])
        case {True: switched_on, False: switched_off}:
            return f"{_json(switched_off)} / {_json(switched_on)}"
        case Mapping() if all(isinstance(item, str) for item in value.values()):
            return ", ".join(map(_code, value.values())) or "–"
    return _json(value)


def _machine(
    states: type[Enum], events: type[Enum], following: Mapping[tuple[Any, Any], Enum], language: Language
) -> str:
    return _table(
        (("in \\ on", "状态 \\ 事件")[language], *(_code(event.name) for event in events)),
        (
            (
                _code(state.name),
                *(_code(after.name) if (after := following.get((state, event))) else "–" for event in events),
            )
            for state in states
        ),
    )


def _diagram(following: Mapping[tuple[Any, Any], Enum], first: Enum, last: Enum) -> str:
    lines = [f"    {state.name} --> {after.name}: {event.name}" for (state, event), after in following.items()]
    whole = [f"    [*] --> {first.name}", *lines, f"    {last.name} --> [*]"]
    return "\n".join(["```mermaid", "stateDiagram-v2", *whole, "```"])


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows))


def _short(message: str) -> str:
    return message.replace(faults.PARAMETER_PREFIX, PREFIX + " ")


def _json(value: object) -> str:
    return _code(orjson.dumps(value).decode())


def _code(text: str) -> str:
    # A bar ends a cell even inside of code.
    return f"`{text.replace('|', chr(92) + '|')}`"
