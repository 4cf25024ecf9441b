"""`Plan` -> the fields of the body, one row per field of the call: ours, theirs, what was done to it, and why.

The rows are the mapping itself: a body is what they send, a trail is what they say. Rows stand in the order of
the body; a later one wins where two send the same field. Source: spec, column "upstream" of the PAR rules.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, NamedTuple

from translators.dialogue import Call, Json
from translators.openai import messages, plan
from translators.openai.dialects import Native
from translators.openai.plan import Plan

Action = Literal["kept", "renamed", "clamped", "dropped", "emulated"]


class FieldMapping(NamedTuple):
    """What became of one field of the call.

    ours:   its name in `Call`
    theirs: its name upstream; "" where it has none
    action: `emulated` is what upstream cannot do and we do for it
    why:    the reason, where the field did not simply cross
    sent:   what it puts into the body
    """

    ours: str
    theirs: str
    action: Action
    why: str = ""
    sent: Mapping[str, Any] = {}


Row = Callable[[Plan], FieldMapping | None]


def crossings(decided: Plan) -> list[FieldMapping]:
    """Every field of the call that was said, and what becomes of it."""
    said = [crossing for row in _ALWAYS if (crossing := row(decided)) is not None]
    return [*said, *_where_said(decided)]


def sent(decided: Plan) -> Json:
    """The body: what the crossings put into it, one after the other.

    What every call says is written without them, for a crossing has its reasons, which no upstream reads: of the 68 µs
    of a small call four.
    """
    call, dialect = decided.call, decided.dialect
    body: Json = {"model": decided.upstream_model, "messages": messages.written(call, dialect)}
    if call.messages[-1].partial:
        body |= dialect.continuation.body
    body["stream"] = decided.stream
    if decided.stream:
        body["stream_options"] = dialect.stream_options
    body |= dialect.thinking[call.thinking]
    if call.thinking_budget is not None and (budget := _thinking_budget(decided)) is not None:
        body |= budget.sent
    body["max_tokens"] = decided.max_tokens
    if call.n != 1 and (number := _n(decided)) is not None:
        body |= number.sent
    if call[_FIRST:_BEHIND] != _UNSAID:
        for crossing in _where_said(decided):
            body |= crossing.sent
    return body


def _where_said(decided: Plan) -> Iterator[FieldMapping]:
    """What becomes of the fields that a call need not say: most say two or three, and no row of another is asked."""
    call = decided.call
    for field, row in _WHERE_SAID:
        value = getattr(call, field)
        if value is not None and value != () and value is not False and (crossing := row(decided)) is not None:
            yield crossing


def _kept(ours: str, value: object, theirs: str = "") -> FieldMapping:
    name = theirs or ours
    return FieldMapping(ours, name, "kept" if name == ours else "renamed", sent={name: value})


def _dropped(ours: str, why: str) -> FieldMapping:
    return FieldMapping(ours, "", "dropped", why)


def _model(decided: Plan) -> FieldMapping:
    renamed = decided.upstream_model != decided.call.model.id
    sent = {"model": decided.upstream_model}
    return FieldMapping("model", "model", "renamed" if renamed else "kept", "the id it has upstream", sent)


def _messages(decided: Plan) -> FieldMapping:
    sent: Json = {"messages": messages.written(decided.call, decided.dialect)}
    if not decided.call.messages[-1].partial:
        return FieldMapping("messages", "messages", "kept", "", sent)
    sent |= decided.dialect.continuation.body
    return FieldMapping("messages", ", ".join(sent), "kept", "the last one is gone on with (spec REQ-6)", sent)


def _stream(decided: Plan) -> FieldMapping:
    if not decided.stream:
        return _kept("stream", False)
    sent = {"stream": True, "stream_options": decided.dialect.stream_options}
    if decided.call.stream:
        return FieldMapping("stream", "stream, stream_options", "kept", "usage is asked for", sent)
    return FieldMapping("stream", "stream, stream_options", "emulated", "the text must be seen as it comes", sent)


def _thinking(decided: Plan) -> FieldMapping:
    sent = decided.dialect.thinking[decided.call.thinking]
    return FieldMapping(
        "thinking", ", ".join(sent), "renamed", "always said: upstream's default is on (spec PAR-14)", sent
    )


def _thinking_budget(decided: Plan) -> FieldMapping | None:
    budget, native = decided.call.thinking_budget, decided.dialect.budget
    if budget is None:
        return None
    if decided.budgeting == "unasked":
        return _dropped("thinking_budget", "no chain of thought is to come")
    if isinstance(native, Native):
        held = min(max(budget, native.least), native.most or budget)
        action: Action = "renamed" if held == budget else "clamped"
        return FieldMapping("thinking_budget", native.field, action, "upstream holds it", {native.field: held})
    if decided.effort is None:
        return FieldMapping("thinking_budget", "", "emulated", "enforced by counting (spec OUT-9)")
    model, dialect = decided.call.model, decided.dialect
    word = dialect.word_for(decided.effort, model.templates.get(dialect.name, model.template))
    if word is None:
        return _dropped("thinking_budget", "upstream knows neither a budget nor an effort")
    why = "not enforced: upstream takes an effort for it"
    return FieldMapping("thinking_budget", "reasoning_effort", "renamed", why, {"reasoning_effort": word})


def _max_tokens(decided: Plan) -> FieldMapping:
    sent = {"max_tokens": decided.max_tokens}
    if decided.max_tokens < decided.wanted_tokens:
        return FieldMapping(
            "max_tokens", "max_tokens", "clamped", "upstream's bound, or the context that is left", sent
        )
    if decided.max_tokens != (decided.call.max_tokens or decided.call.model.answer_tokens):
        return FieldMapping(
            "max_tokens", "max_tokens", "emulated", "upstream counts the chain as well (spec OUT-8)", sent
        )
    return FieldMapping("max_tokens", "max_tokens", "kept", "without it, the model's answer limit (spec OUT-8)", sent)


def _n(decided: Plan) -> FieldMapping | None:
    if decided.call.n == 1:
        return None
    if decided.legs > 1:
        return FieldMapping("n", "", "emulated", f"{decided.legs} upstream calls (spec OUT-7)")
    return _kept("n", decided.call.n)


def _sampling(ours: str) -> Row:
    def row(decided: Plan) -> FieldMapping | None:
        value = getattr(decided.call, ours)
        theirs = decided.dialect.sampling.get(ours)
        return _kept(ours, value, theirs) if theirs else _dropped(ours, "upstream does not have it")

    return row


def _seed(decided: Plan) -> FieldMapping | None:
    seed = decided.call.seed
    if seed is None or "seed" not in decided.dialect.sampling or seed < decided.dialect.seeds:
        return _sampling("seed")(decided)
    return FieldMapping(
        "seed", "seed", "clamped", "upstream's seeds are narrower", {"seed": seed % decided.dialect.seeds}
    )


def _stops(decided: Plan) -> FieldMapping | None:
    sent = {"stop": list(decided.sent_stops)} if decided.sent_stops else {}
    if decided.kept_stops:
        return FieldMapping(
            "stops", ", ".join(sent), "emulated", f"{len(decided.kept_stops)} of them looked for here", sent
        )
    return FieldMapping("stops", "stop", "renamed", sent=sent)


def _logprobs(decided: Plan) -> FieldMapping | None:
    if not decided.call.logprobs:
        return None
    if decided.stream and decided.call.tools and not decided.dialect.logprobs_beside_tools:
        return _dropped("logprobs", "upstream refuses them in a stream with tools")
    return _kept("logprobs", True)


def _top_logprobs(decided: Plan) -> FieldMapping | None:
    asked, most = decided.call.top_logprobs, decided.dialect.most_logprobs
    logprobs = _logprobs(decided)
    if asked is None or logprobs is None or not logprobs.sent:
        return _dropped("top_logprobs", "goes with logprobs only")
    return _kept("top_logprobs", min(asked, most))


def _response_format(decided: Plan) -> FieldMapping | None:
    wanted = decided.call.response_format
    if wanted is None or wanted.type == "text":
        return _dropped("response_format", "the default")
    sent: Json = {"type": wanted.type} | ({"json_schema": wanted.schema} if wanted.type == "json_schema" else {})
    return _kept("response_format", sent)


def _tools(decided: Plan) -> FieldMapping | None:
    tools, named = decided.call.tools, plan.named_tool(decided.call)
    if named is not None and not decided.dialect.named_tool:
        sent = {"tools": [_tool(named.function)]}
        return FieldMapping(
            "tools", "tools", "emulated", "the one that must be called, for upstream takes no name", sent
        )
    return _kept("tools", [_tool(tool.function) for tool in tools])


def _tool(function: Json) -> dict[str, Any]:
    return {"type": "function", "function": function}


def _tool_choice(decided: Plan) -> FieldMapping | None:
    choice, named = decided.call.tool_choice, plan.named_tool(decided.call)
    if choice == "auto":
        return None
    if not decided.call.tools:
        return _dropped("tool_choice", "there are no tools")
    if named is None:
        return _kept("tool_choice", choice)
    if decided.dialect.named_tool:
        return _kept("tool_choice", {"type": "function", "function": {"name": named.name}})
    return FieldMapping("tool_choice", "tool_choice", "emulated", "required, of one tool", {"tool_choice": "required"})


def _parallel_tool_calls(decided: Plan) -> FieldMapping | None:
    if decided.dialect.parallel_tools:
        return _kept("parallel_tool_calls", decided.call.parallel_tool_calls)
    return FieldMapping("parallel_tool_calls", "", "emulated", "calls after the first are trimmed here (spec PAR-18)")


_ALWAYS: tuple[Row, ...] = (_model, _messages, _stream, _thinking, _thinking_budget, _max_tokens, _n)
# By the field of the call that is not said where it is None, empty or false.
_WHERE_SAID: tuple[tuple[str, Row], ...] = (
    *((name, _sampling(name)) for name in ("temperature", "top_p", "top_k")),
    ("seed", _seed),
    *((name, _sampling(name)) for name in ("repetition_penalty", "presence_penalty", "frequency_penalty")),
    ("stops", _stops),
    ("logprobs", _logprobs),
    ("top_logprobs", _top_logprobs),
    ("response_format", _response_format),
    ("tools", _tools),
    ("tool_choice", _tool_choice),
    ("tools", _parallel_tool_calls),
)
# What those fields are where a call says none of them, as most do: they stand side by side in `Call`.
_FIRST, _BEHIND = Call._fields.index("temperature"), Call._fields.index("parallel_tool_calls")
_UNSAID = tuple(Call._field_defaults[name] for name in Call._fields[_FIRST:_BEHIND])
