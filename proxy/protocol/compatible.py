"""The compatible surface in the protocol document and in `openapi.json`: the second tongue from its own tables.

What it shares with the native one is said there; here is what is different, each refusal and each byte as the code
gives it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import orjson
from pydantic import TypeAdapter

from proxy import vocabulary
from proxy.downstream.paths import COMPATIBLE, COMPLETIONS, MODELS, NATIVE_MODELS, TOKENIZER
from proxy.protocol import phrases
from proxy.protocol.openapi import (
    EXAMPLE_ID,
    JSON_MEDIA,
    REF,
    SSE_MEDIA,
    _answered,
    _call,
    _catalogue,
    _described,
    _failures,
    _limits,
    _parameter,
    _ref,
    _request_id_header,
    _sent,
)
from proxy.protocol.phrases import Language
from proxy.protocol.probes import TOOL
from proxy.protocol.schemas import CROSS_FIELD, NAME
from proxy.protocol.tables import Sources, _code, _json, _table
from translators import faults
from translators.compatible import parameters, shapes, tongue
from translators.compatible.call import ROLES
from translators.compatible.failures import KINDS, NO_KEY, SPELLINGS, Spelling
from translators.dashscope import messages
from translators.dashscope import parameters as native
from translators.dialogue import Call, Json, Model
from translators.openai import dialects, request
from translators.openai.request import Order
from translators.pipe import Pipe
from translators.terms import agreed

# Of a fixed moment, so that the document is the same whenever it is written.
AT_S: Final = 1_795_872_537.0
MARK: Final = "Compatible"
PATHS: Final = tuple(root + COMPLETIONS for root in COMPATIBLE)

_USER: Final[Json] = {"role": "user", "content": "hi"}


def _says(*turns: Json, **fields: Any) -> Json:
    return {"model": "deepseek-v3", "messages": list(turns or (_USER,)), **fields}


# Calls made to be refused, by the rule they are about.
REFUSED: Final[tuple[tuple[str, Json], ...]] = (
    ("COM-6", {"messages": [_USER]}),
    ("COM-6", {**_says(), "model": "gpt-4o"}),
    ("COM-7", {"model": "deepseek-v3"}),
    ("COM-7", {"model": "deepseek-v3", "messages": []}),
    ("COM-7", _says(_USER, {"role": "robot", "content": "hi"})),
    ("COM-7", _says({"role": "user", "content": 5})),
    ("COM-7", _says({"role": "user", "content": [{"type": "image_url"}]})),
    ("COM-8", _says(temperature=2)),
    ("COM-8", _says(temperature="warm")),
    ("COM-8", _says(seed=-1)),
    ("COM-8", _says(seed=2**31)),
    ("COM-8", _says(tools=[TOOL], tool_choice="any")),
    ("COM-9", {**_says(), "model": "deepseek-v3.2", "thinking": {"type": "enabled"}}),
    ("COM-21", _says(stream=True, stream_options={"include_usage": "yes"})),
)


def _translated(document: Json, sources: Sources) -> Call:
    stream = tongue.wants_stream({}, document)
    # No probe stops at a token by its number: any way to decode one will do.
    return tongue.translate(document, sources.catalogue, stream=stream, decode=bytes)


def _refusal(document: Json, sources: Sources) -> faults.Fault:
    try:
        _translated(document, sources)
    except faults.Refusal as refusal:
        return refusal.fault
    raise ValueError(f"a probe was not refused: {document}")


def _fields(language: Language, _: Sources) -> str:
    head = (("field", "type and range", "default", "rule"), ("字段", "类型与范围", "默认值", "规则"))
    return _table(
        head[language],
        (
            (
                ", ".join(map(_code, (row.theirs, *row.aliases))),
                *(words[language] for words in phrases.TAKES_HERE.get(row.theirs, phrases.TAKES[row.theirs])),
                row.source,
            )
            for row in parameters.TABLE.rows
        ),
    )


def _dropped(_: Language, __: Sources) -> str:
    return " ".join(map(_code, sorted(parameters.DROPPED)))


def _refused(language: Language, sources: Sources) -> str:
    head = (("rule", "call", "status", "`code`", "`message`"), ("规则", "请求", "状态", "`code`", "`message`"))
    return _table(
        head[language],
        ((rule, _json(given), *_told(_refusal(given, sources))) for rule, given in REFUSED),
    )


def _told(fault: faults.Fault) -> tuple[str, str, str]:
    error = orjson.loads(tongue.failure(fault, EXAMPLE_ID))["error"]
    # Some texts quote a name by the very marks that show them as code here.
    quoted = f"`{_code(error['message'])}`" if "`" in error["message"] else _code(error["message"])
    return str(fault.status), _code(error["code"] or "null"), quoted


def _faults(language: Language, _: Sources) -> str:
    head = (
        ("DashScope's code (journal, log, metrics)", "`type`", "`code`", "text, where it differs"),
        ("DashScope 的 code（流水、日志、指标）", "`type`", "`code`", "不同的文本"),
    )
    own = {f"`InvalidParameter`, {kind}": told for kind, told in KINDS.items()}
    no_key = {f"`{faults.NO_KEY.code}`, {('none was given', '未提供')[language]}": NO_KEY}
    named = {_code(code): told for code, told in SPELLINGS.items()} | own | no_key
    codes = {fault.code for fault in vars(faults).values() if isinstance(fault, faults.Fault)}
    itself = {_code(code): Spelling(code, code) for code in sorted(codes - SPELLINGS.keys() - NATIVE_CODES)}
    return _table(
        head[language],
        (
            (name, _code(told.type), _code(told.code or "null"), _code(told.text) if told.text else "")
            for name, told in (named | itself).items()
        ),
    )


# What the native surface alone can answer.
NATIVE_CODES: Final = {"BadRequest.EmptyInput"}


def _order(document: Json, sources: Sources) -> Order:
    return request.order(_translated(document, sources), dialects.DIALECTS["deepseek"])


def _spoken(document: Json, upstream: Sequence[Json], sources: Sources) -> str:
    order = _order(document, sources)
    terms = agreed(order, request_id=EXAMPLE_ID, own_key=True, at_s=AT_S)
    through = Pipe(order.call, terms, vocabulary.load(), tongue)
    wire = b"".join(b"data: " + orjson.dumps(chunk) + b"\n\n" for chunk in upstream) + b"data: [DONE]\n\n"
    return (through.feed(wire) + through.eof()).decode().rstrip("\n")


def _chunk(delta: Json, finish: str | None = None) -> Json:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


SAID: Final[tuple[Json, ...]] = (
    _chunk({"role": "assistant", "content": ""}),
    _chunk({"reasoning_content": "想"}),
    _chunk({"content": "你好"}),
    _chunk({}, "stop"),
    {"choices": [], "usage": {"prompt_tokens": 12, "completion_tokens": 3}},
)
ASKED: Final = {**_says(), "model": "deepseek-v3.2", "enable_thinking": True}


def _stream(_: Language, sources: Sources) -> str:
    asked = {**ASKED, "stream": True, "stream_options": {"include_usage": True}}
    return f"```text\n{_spoken(asked, SAID, sources)}\n```"


def _reply(_: Language, sources: Sources) -> str:
    asked = {**ASKED, "model": "deepseek-r1"}
    return f"```json\n{_spoken(asked, SAID, sources)}\n```"


def _failure(_: Language, __: Sources) -> str:
    return f"```json\n{tongue.failure(faults.TIMED_OUT, EXAMPLE_ID).decode()}\n```"


TABLES: Final[Mapping[str, Callable[[Language, Sources], str]]] = {
    "compatible-fields": _fields,
    "compatible-dropped": _dropped,
    "compatible-refused": _refused,
    "compatible-faults": _faults,
    "compatible-stream": _stream,
    "compatible-reply": _reply,
    "compatible-failure": _failure,
}


def described(document: Json, sources: Sources) -> Json:
    """The OpenAPI document with the second surface, and with what stands beside the calls of the first."""
    components = document["components"]
    schemas = {**components["schemas"], **dict(_read()), **_asked_of(sources.rows)}
    paths = {**document["paths"], **_paths(sources)}
    tags = [{"name": "compatible", "description": "What OpenAI clients use, on the data port."}, *document["tags"]]
    return {**document, "tags": tags, "paths": paths, "components": {**components, "schemas": schemas}}


def _paths(sources: Sources) -> Json:
    paths: Json = {
        path: {"post": {**_completions(sources), "operationId": f"complete{number or ''}"}}
        for number, path in enumerate(PATHS)
    }
    for number, root in enumerate(COMPATIBLE):
        listed = _get(f"listCompatibleModels{number or ''}", "The models this key may call (COM-29)", f"{MARK}Models")
        one = _get(f"describeCompatibleModel{number or ''}", "One of them; slashes allowed (COM-29)", f"{MARK}Model")
        one["parameters"] = [{"name": "id", "in": "path", "required": True, "schema": _names(sources.rows)}]
        one["responses"] |= _refusals([faults.BAD_KEY, faults.MODEL_NOT_FOUND, faults.RATE_LIMITED])
        paths[root + MODELS] = {"get": listed}
        paths[root + MODELS + "/{id}"] = {"get": one}
    page = {"type": "integer", "minimum": 1}
    models = _get("listModels", "The models this key may call, a page at a time (HTTP-12)", "ModelPage")
    models["tags"] = ["calls"]
    models["parameters"] = [
        _query("model", "One name alone.", {"type": "string"}),
        _query("page_no", "From 1.", page | {"maximum": 1_000_000}),
        _query("page_size", "At most 100.", page | {"maximum": 100}),
    ]
    models["responses"] |= _failures([faults.BODY_INVALID, faults.BAD_KEY, faults.RATE_LIMITED])
    paths[NATIVE_MODELS] = {"get": models}
    paths[TOKENIZER] = {
        "post": {
            "operationId": "tokenize",
            "summary": "The tokens of a prompt; no upstream is asked (HTTP-12)",
            "tags": ["calls"],
            "security": [{"bearer": []}, {"apiKey": []}],
            "requestBody": {"required": True, "content": {JSON_MEDIA: {"schema": _ref("Prompted")}}},
            "responses": {
                "200": _answered(_ref("Tokens")),
                **_failures(
                    (
                        *(faults.BODY_INVALID, faults.MODEL_MISSING, faults.INPUT_MISSING, faults.BODY_TOO_LARGE),
                        *(faults.BAD_KEY, faults.ACCESS_DENIED, faults.RATE_LIMITED, faults.OVERLOADED),
                        faults.TIMED_OUT,
                    )
                ),
            },
            "x-refused-although-valid": [
                {"rule": rule, "message": text} for rule, text in (*CROSS_FIELD, *_limits(sources.rows))
            ],
        }
    }
    return paths


def _completions(sources: Sources) -> Json:
    return {
        "summary": "One call, answered as JSON, or as a stream where the body says so (COM-1, COM-2)",
        "tags": ["compatible"],
        "security": [{"bearer": []}, {"apiKey": []}],
        "requestBody": {
            "required": True,
            "content": {
                JSON_MEDIA: {
                    "schema": _ref(f"{MARK}Call"),
                    "examples": {"json": {"value": _says()}, "stream": {"value": _says(stream=True)}},
                }
            },
        },
        "responses": {
            "200": {
                "description": "A completion, or its chunks.",
                "headers": {"x-request-id": _request_id_header()},
                "content": {
                    JSON_MEDIA: {"schema": _ref(f"{MARK}Completion")},
                    SSE_MEDIA: {
                        "schema": {
                            "description": "Events `data: ` and a CompatibleChunk, each ended by an empty line; "
                            "`data: [DONE]` where the answer is whole, else a last event with a CompatibleFailure "
                            "(COM-15, COM-26)."
                        },
                        "examples": {"finished": {"value": _stream(Language.EN, sources)[8:-4] + "\n\n"}},
                    },
                },
            },
            **_refusals(fault for fault in _catalogue() if fault.code != faults.INPUT_MISSING.code),
        },
        "x-refused-although-valid": [
            {"rule": rule, "message": text} for rule, text in (*CROSS_FIELD, *_limits(sources.rows))
        ],
    }


def _get(name: str, summary: str, schema: str) -> Json:
    return {
        "operationId": name,
        "summary": summary,
        "tags": ["compatible"],
        "security": [{"bearer": []}, {"apiKey": []}],
        "responses": {
            "200": _answered(_ref(schema)),
            **_refusals([faults.BAD_KEY, faults.RATE_LIMITED]),
        },
    }


def _query(name: str, text: str, schema: Json) -> Json:
    return {"name": name, "in": "query", "description": text, "schema": schema}


def _refusals(listed: Iterable[faults.Fault]) -> dict[str, Json]:
    """The answers of these faults in this tongue, by status."""
    found = _failures(listed)
    for status, answer in found.items():
        examples = answer["content"][JSON_MEDIA]["examples"]
        for example in examples.values():
            said = example["value"]
            fault = faults.Fault(int(status), said["code"], said["message"])
            example["value"] = orjson.loads(tongue.failure(fault, EXAMPLE_ID))
        answer["content"][JSON_MEDIA] = {"schema": _ref(f"{MARK}Failure"), "examples": examples}
    return found


def _read() -> Iterator[tuple[str, Json]]:
    """The schemas of what a caller reads."""
    by_name = {name: shape for name, shape in vars(shapes).items() if isinstance(shape, type)}
    for shape in (shapes.Completion, shapes.Chunk, shapes.Failure, shapes.Models):
        whole = TypeAdapter(shape).json_schema(ref_template=f"{REF}{MARK}{{model}}")
        for name, schema in {**whole.pop("$defs", {}), shape.__name__: whole}.items():
            yield MARK + name, _described(schema, by_name[name])


def _names(rows: Sequence[Model]) -> Json:
    return {
        "enum": [row.id for row in rows],
        "description": "In any case, and with a vendor's prefix; an operator may add names (MOD-2, MOD-3).",
    }


def _asked_of(rows: Sequence[Model]) -> dict[str, Json]:
    """The schemas of what a caller sends, and of what stands beside the calls."""
    rows_here = {row.theirs: row for row in parameters.TABLE.rows}
    given = {row.theirs: _parameter(row, rows) for row in native.ROWS if row.theirs in rows_here}
    given["seed"] = {**given["seed"], "maximum": parameters.LARGEST_SEED}
    turns = {name: _turn(name, rows) for name in ("Turn", "AssistantTurn", "CallingTurn")}
    switch = {"type": ["boolean", "null"]}
    options = {
        "type": ["object", "null"],
        "properties": {"include_usage": switch, "continuous_usage_stats": switch},
    }
    call = {
        "type": "object",
        "properties": {
            "model": _names(rows),
            "messages": {
                "description": "The conversation, oldest first; the last is no `system`, and an `assistant` only where "
                "it is `partial`.",
                "type": "array",
                "minItems": 1,
                "maxItems": messages.MOST_TURNS,
                "items": {"anyOf": [_ref(f"{MARK}{name}") for name in turns]},
                "contains": {"properties": {"role": {"const": "user"}}},
            },
            "stream": {"description": "Answer with a stream (COM-2).", **switch},
            "stream_options": {"description": "What a stream tells of tokens; nothing without `stream` (COM-21)."},
            "max_completion_tokens": given["max_tokens"],
            **given,
        },
        "required": ["model", "messages"],
        "if": {"properties": {"stream": {"const": True}}, "required": ["stream"]},
        "then": {"properties": {"stream_options": options}},
    }
    models = {"type": "array", "items": {"type": "object", "required": ["model", "provider"]}}
    page = {"total": {"type": "integer"}, "page_no": {"type": "integer"}, "page_size": {"type": "integer"}}
    tokens = {
        "token_ids": {"type": "array", "items": {"type": "integer"}},
        "tokens": {"type": "array", "items": {"type": "string"}},
    }
    usage = {"input_tokens": {"type": "integer"}}
    full = _call(rows)
    return {
        f"{MARK}Call": call,
        **{MARK + name: turn for name, turn in turns.items()},
        "Prompted": {
            **full,
            "description": "A call, whose parameters nobody looks at.",
            "properties": {name: schema for name, schema in full["properties"].items() if name != "parameters"},
        },
        "ModelPage": _closed(output=_closed(**page, models=models), request_id=NAME),
        "Tokens": _closed(output=_closed(**tokens), usage=_closed(**usage), request_id=NAME),
    }


def _turn(name: str, rows: Sequence[Model]) -> Json:
    """A turn of the native surface, with the roles of this one."""
    turn: Json = _sent(rows)[name]
    if name == "Turn":
        roles = {"enum": [role for role, ours in ROLES.items() if ours != "assistant"]}
        return {**turn, "properties": {**turn["properties"], "role": roles}}
    said = {"type": ["boolean", "null"], "description": "DeepSeek's name for `partial`."}
    return {**turn, "properties": {**turn["properties"], "prefix": said}}


def _closed(**fields: Json) -> Json:
    return {"type": "object", "properties": fields, "required": [*fields], "additionalProperties": False}
