"""The tables and shapes the code works by -> an OpenAPI 3.1 document of every endpoint.

`python -m proxy.protocol.documents` writes it to `translators/openapi.json`, which ships and which the admin
port serves.
What a schema cannot say, because one field's range hangs on another, is listed under `x-refused-although-valid` with
the exact texts: schemathesis runs against the real process by this document, and takes no other refusal for right.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from math import inf
from typing import Any, Final

from pydantic import TypeAdapter

from config.settings import Settings
from proxy.downstream import paths
from proxy.protocol import field_docs, phrases, probes
from proxy.protocol.phrases import Language
from proxy.protocol.schemas import _ASSISTANT, _READY, CROSS_FIELD, NAME, SAID, SSE_HEADER, TEXT, TOOL_CALL
from translators import faults
from translators.dashscope import kinds, messages, parameters, rules, shapes
from translators.dashscope.parameters import Row
from translators.dashscope.rules import Rule, Within
from translators.dashscope.shapes import Answer, Failure
from translators.dialogue import Json, Model

REF: Final = "#/components/schemas/"
JSON_MEDIA: Final = "application/json"
SSE_MEDIA: Final = "text/event-stream"
EXAMPLE_ID: Final = "5354a793-a130-4b36-b1dc-2610c5f49071"

# The shapes a caller reads; what they are made of comes with them.
READ: Final[tuple[Any, ...]] = (Answer, Failure)
SHAPES: Final = {name: shape for name, shape in vars(shapes).items() if isinstance(shape, type)}

TYPES: Final[Mapping[Callable[[Any, str], Any], str]] = {
    kinds.number: "number",
    kinds.integer: "integer",
    kinds.boolean: "boolean",
    kinds.string: "string",
}


def document(rows: Sequence[Model], streams: Mapping[str, str]) -> Json:
    """The document for these models, which every operator has; paths are those of the default settings.

    streams: examples of SSE bodies, each by what it shows
    """
    settings = Settings()
    generation = _generation(rows, streams)
    # In the path the model wins, and nobody looks at the body's.
    by_path = {**generation, "operationId": "generateByPath", "parameters": [*_path(rows), *generation["parameters"]]}
    by_path["requestBody"] = _request_body(_ref("CallOfPathModel"))
    return {
        "openapi": "3.1.0",
        "jsonSchemaDialect": "https://json-schema.org/draft/2020-12/schema",
        "info": {
            "title": "dashseek",
            "summary": "DashScope text generation before DeepSeek models",
            "description": "Every rule, worked examples and the stream's states: PROTOCOL.md. `null` means absent, and "
            "what is not named here is ignored, in every object a caller sends (HTTP-8). A number may also come in a "
            'string (`"0.5"`). An unknown path is 404, a known one with another method is 400, not 405 (HTTP-4).',
            "version": "1",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [_server("the data port", settings.port)],
        "tags": [
            {"name": "calls", "description": "What DashScope clients use, on the data port."},
            {"name": "operations", "description": "What operators and platforms use, on the admin port."},
        ],
        "paths": {
            paths.GENERATION: {"post": generation},
            settings.model_route or "": {"post": by_path},
            paths.MULTIMODAL: {"post": _multimodal(generation)},
            paths.HEALTH: {"get": _health()},
            "/docs/try": {"servers": [_server("the admin port", settings.port + 1)], "post": _try()},
            **{
                path: {"servers": [_server("the admin port", settings.port + 1)], **item}
                for path, item in ADMIN.items()
            },
        },
        "components": {
            "schemas": {**dict(_read()), "Call": _call(rows), "CallOfPathModel": _call(()), **_sent(rows)},
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "description": "The scheme in any case (HTTP-10)."},
                "apiKey": {"type": "apiKey", "in": "header", "name": "x-api-key"},
            },
        },
    }


def _server(what: str, port: int) -> Json:
    variables = {"host": {"default": "127.0.0.1"}, "port": {"default": str(port)}}
    return {"url": "http://{host}:{port}", "description": what, "variables": variables}


def _generation(rows: Sequence[Model], streams: Mapping[str, str]) -> Json:
    answer = {"$ref": f"{REF}Answer"}
    return {
        "operationId": "generate",
        "summary": "One call, answered as JSON or as a stream",
        "tags": ["calls"],
        "security": [{"bearer": []}, {"apiKey": []}],
        "parameters": [
            _header(
                "X-DashScope-SSE",
                "`enable`: answer with a stream; `disable` wins over an `Accept` that names it.",
                SSE_HEADER,
            ),
            _header("X-Request-Id", "A UUID, kept as `request_id`; anything else is replaced.", {"type": "string"}),
        ],
        "requestBody": _request_body(_ref("Call")),
        "responses": {
            "200": {
                "description": "A reply; a stream where the headers ask for one (HTTP-5).",
                "headers": {"x-request-id": _request_id_header()},
                "content": {
                    JSON_MEDIA: {"schema": answer},
                    SSE_MEDIA: {
                        "schema": {
                            "description": "Frames `id:N`, `event:result`, `:HTTP_STATUS/200`, `data:` and an Answer, "
                            "each line ended by one LF and each frame by an empty line. The last frame has a "
                            '`finish_reason` other than `"null"`, or is `event:error` with a Failure (SSE-1, SSE-4).',
                        },
                        "examples": {name: {"value": stream} for name, stream in streams.items()},
                    },
                },
            },
            **_failures(fault for fault in _catalogue() if fault.status != faults.NOT_FOUND.status),
            **_failures([faults.MODEL_NOT_FOUND]),
        },
        "x-refused-although-valid": [{"rule": rule, "message": text} for rule, text in (*CROSS_FIELD, *_limits(rows))],
    }


def _request_body(schema: Json) -> Json:
    examples = {"prompt": {"value": {"model": "deepseek-v3", "input": {"prompt": "hi"}}}} | {
        probe.rule.lower(): {
            "summary": f"{probe.rule}: {', '.join(probe.given)}",
            "value": {
                "model": probe.model,
                "input": {"messages": [{"role": "user", "content": "hi, in json"}]},
                "parameters": probe.given,
            },
        }
        for probe in probes.CROSSED
        if not probe.stream
    }
    return {"required": True, "content": {JSON_MEDIA: {"schema": schema, "examples": examples}}}


def _path(rows: Sequence[Model]) -> list[Json]:
    return [
        {"name": "partner", "in": "path", "required": True, "schema": NAME, "example": "siliconflow"},
        {"name": "model", "in": "path", "required": True, "schema": _model(rows)},
    ]


def _header(name: str, text: str, schema: Json) -> Json:
    return {"name": name, "in": "header", "description": text, "schema": schema}


def _multimodal(generation: Json) -> Json:
    """The other native path: the same call and answer for the models that are bound to it."""
    return generation | {
        "operationId": "generateMultimodal",
        "summary": "The same for models bound to this path, which may be shown images (HTTP-3)",
        "description": 'Where the model sees, `content` of a message may hold `{"image": URL}` parts; `content` of an '
        'answer is a list of at most one `{"text"}` part. A model bound to the other path is 400 '
        "`url error, please check url！`.",
    }


def _health() -> Json:
    return {
        "operationId": "health",
        "summary": "Alive; on the admin port too (OPS-1)",
        "tags": ["operations"],
        "responses": {"200": _answered({"type": "object", "properties": {"status": {"const": "ok"}}})},
    }


def _try() -> Json:
    return {
        "operationId": "try",
        "summary": "The way of the box in `/docs` to the data port; refused to whatever is not that page",
        "tags": ["operations"],
        "responses": _failures([faults.ACCESS_DENIED]),
    }


def _answered(schema: Json, media: str = JSON_MEDIA, text: str = "Answered.") -> Json:
    return {"description": text, "content": {media: {"schema": schema}}}


ADMIN: Final[Mapping[str, Json]] = {
    "/readyz": {
        "get": {
            "operationId": "ready",
            "summary": "Whether a call would be served; not whether upstream is well (OPS-1)",
            "tags": ["operations"],
            "responses": {
                "200": _answered(_READY, text="It would."),
                "503": _answered(_READY, text="It would not: draining, or the journal cannot be written."),
            },
        }
    },
    "/metrics": {
        "get": {
            "operationId": "metrics",
            "summary": "Figures for Prometheus (OPS-1)",
            "tags": ["operations"],
            "responses": {"200": _answered({"type": "string"}, "text/plain")},
        }
    },
    "/docs": {
        "get": {
            "operationId": "docs",
            "summary": "The protocol as a page, with a box to try a call",
            "tags": ["operations"],
            "responses": {"200": _answered({"type": "string"}, "text/html")},
        }
    },
    "/openapi.json": {
        "get": {
            "operationId": "openapi",
            "summary": "This document",
            "tags": ["operations"],
            "responses": {"200": _answered({"type": "object"})},
        }
    },
}


def _failures(listed: Iterable[faults.Fault]) -> dict[str, Json]:
    """The answers of these faults, by status."""
    by_status: dict[int, list[faults.Fault]] = defaultdict(list)
    for fault in listed:
        by_status[fault.status].append(fault)
    return {str(status): _failure(status, by_status[status]) for status in sorted(by_status)}


def _failure(status: int, listed: Sequence[faults.Fault]) -> Json:
    codes = list(dict.fromkeys(fault.code for fault in listed))
    headers = {"x-request-id": _request_id_header()}
    if status in (429, 503):
        headers["retry-after"] = {
            "description": "Seconds, or an HTTP date, where it is known.",
            "schema": {"type": "string"},
        }
    return {
        "description": ", ".join(f"`{code}`" for code in codes),
        "headers": headers,
        "content": {
            JSON_MEDIA: {
                "schema": {"allOf": [_ref("Failure"), {"properties": {"code": {"enum": codes}}}]},
                "examples": {
                    f"{fault.code} {number}": {
                        "value": {"code": fault.code, "message": fault.message, "request_id": EXAMPLE_ID}
                    }
                    for number, fault in enumerate(_distinct(listed), 1)
                },
            }
        },
    }


def _distinct(listed: Iterable[faults.Fault]) -> Iterator[faults.Fault]:
    yield from {(fault.code, fault.message): fault for fault in listed}.values()


def _catalogue() -> Iterator[faults.Fault]:
    yield from (fault for fault in vars(faults).values() if isinstance(fault, faults.Fault))
    yield faults.invalid(rules.NO_JSON_WORD)
    yield faults.no_thinking("deepseek-v3")


def _request_id_header() -> Json:
    return {"description": "The same as the body's `request_id`.", "schema": {"type": "string", "format": "uuid"}}


def _read() -> Iterator[tuple[str, Json]]:
    """The schemas of what a caller reads."""
    for shape in READ:
        whole = TypeAdapter(shape).json_schema(ref_template=REF + "{model}")
        for name, schema in {**whole.pop("$defs", {}), shape.__name__: whole}.items():
            yield name, _described(schema, SHAPES[name])


def _described(schema: Json, shape: type) -> Json:
    said = field_docs.of(shape)
    fields = {
        name: {**{key: value for key, value in field.items() if key != "title"}, "description": said[name]}
        for name, field in schema["properties"].items()
    }
    title, _, _ = (shape.__doc__ or "").partition("\n")
    # Nothing else is ever in there: a field that is not declared is a mistake of ours.
    closed = {"type": "object", "description": title, "properties": fields, "required": schema["required"]}
    return {**closed, "additionalProperties": False}


def _model(rows: Iterable[Model]) -> Json:
    return {
        "enum": [row.id for row in rows],
        "description": "In any case, and with a vendor's prefix; an operator may add names (MOD-2, MOD-3).",
    }


def _call(rows: Sequence[Model]) -> Json:
    return {
        "type": "object",
        "properties": {
            **({"model": _model(rows)} if rows else {}),
            "input": {
                "oneOf": [
                    {**_ref("Messages"), "properties": {"prompt": {"type": "null"}}},
                    {**_ref("Prompt"), "properties": {"messages": {"type": "null"}}},
                ]
            },
            "parameters": {"anyOf": [_ref("Parameters"), {"type": "null"}]},
        },
        "required": ["model", "input"] if rows else ["input"],
    }


def _sent(rows: Sequence[Model]) -> dict[str, Json]:
    """The schemas of what a caller sends."""
    return {
        "Messages": {
            "type": "object",
            "properties": {
                "messages": {
                    "description": "The conversation, oldest first; the last is no `system`, and an `assistant` only "
                    "where it is `partial`.",
                    "type": "array",
                    "minItems": 1,
                    "maxItems": messages.MOST_TURNS,
                    "items": {"anyOf": [_ref("Turn"), _ref("AssistantTurn"), _ref("CallingTurn")]},
                    "contains": {"properties": {"role": {"const": "user"}}},
                }
            },
            "required": ["messages"],
        },
        "Prompt": {
            "type": "object",
            "properties": {
                "prompt": _ref("Text"),
                "history": {
                    "type": ["array", "null"],
                    "maxItems": messages.MOST_TURNS // 2,
                    "items": {
                        "type": "object",
                        "properties": {side: {"anyOf": [_ref("Text"), {"type": "null"}]} for side in ("user", "bot")},
                    },
                },
            },
            "required": ["prompt"],
        },
        "Text": TEXT,
        "Turn": {
            "type": "object",
            "properties": {
                "role": {"enum": [role for role, ours in messages.ROLES.items() if ours != "assistant"]},
                "content": _ref("Text"),
                "tool_call_id": {"description": "On `tool`: the call it answers; without one, by `name` and order."},
                "name": {"description": "On `tool`: the function that was called."},
            },
            "required": ["role", "content"],
        },
        "AssistantTurn": {
            "type": "object",
            "properties": {
                **_ASSISTANT,
                "content": _ref("Text"),
                "tool_calls": {"type": ["array", "null"], "maxItems": messages.MOST_CALLS, "items": _ref("GivenCall")},
            },
            "required": ["role", "content"],
        },
        "CallingTurn": {
            "type": "object",
            "properties": {
                **_ASSISTANT,
                "content": {"anyOf": [_ref("Text"), {"type": "null"}]},
                "tool_calls": {
                    "type": "array",
                    "minItems": 1,
                    "maxItems": messages.MOST_CALLS,
                    "items": _ref("GivenCall"),
                },
            },
            "required": ["role", "tool_calls"],
        },
        "GivenCall": TOOL_CALL,
        "Parameters": {
            "type": "object",
            "properties": {row.theirs: _parameter(row, rows) for row in parameters.ROWS},
        },
    }


def _parameter(row: Row, rows: Sequence[Model]) -> Json:
    takes, default = (words[Language.EN] for words in phrases.TAKES[row.theirs])
    also = f" Also `{'`, `'.join(row.aliases)}`, read where this one is absent." if row.aliases else ""
    what = f"{takes[0].upper()}{takes[1:]}; default: {default}."
    described = {"description": f"{what}{also} {row.why.capitalize()} ({row.source})."}
    if row.theirs == "max_tokens":
        return {**SAID[row.theirs], "maximum": max(model.answer_tokens for model in rows), **described}
    if row.theirs in SAID:
        return {**SAID[row.theirs], **described}
    return {"type": [TYPES[row.kind], "null"], **_bounds(row.rule), **described}


def _bounds(rule: Rule | None) -> Json:
    if not isinstance(rule, Within):
        return {}
    said = {
        "minimum": rule.at_least,
        "exclusiveMinimum": rule.above,
        "maximum": rule.at_most,
        "exclusiveMaximum": rule.below,
    }
    return {word: bound for word, bound in said.items() if abs(bound) != inf}


def _limits(rows: Iterable[Model]) -> Iterator[tuple[str, str]]:
    """The refusals whose figure is a model's."""
    for limit in sorted({row.answer_tokens for row in rows}):
        yield "PAR-5", rules.MAX_TOKENS.format(limit)
    for limit in sorted({row.chain_tokens for row in rows} - {0}):
        yield "PAR-15", rules.THINKING_BUDGET.format(limit)
    for limit in sorted({row.input_tokens for row in rows}):
        yield "MOD-4", faults.input_length(limit).message.removeprefix(faults.PARAMETER_PREFIX)


def _ref(name: str) -> Json:
    return {"$ref": f"{REF}{name}"}
