"""What schemathesis cannot know of this protocol, as hooks: `SCHEMATHESIS_HOOKS=declared.py st run openapi.json`."""

from __future__ import annotations

import json
from typing import Any

import jsonschema_rs
import schemathesis

# Their answers say nothing of a request.
PLATFORM = ("/healthz", "/readyz", "/openapi.json")
PREFIX = "<400> InternalError.Algo.InvalidParameter: "


def _is_number(value: object) -> bool:
    try:
        float(value) if isinstance(value, str) else None
    except ValueError:
        return False
    return isinstance(value, str)


@schemathesis.hook
def filter_body(context: Any, body: Any) -> bool:
    """The document says in words that a number may come in a string: to the schema that is wrong, to the code right."""
    # On the compatible surface parameters stand at the top level.
    places = (body.get("parameters"), body) if isinstance(body, dict) else ()
    return not any(isinstance(given, dict) and any(map(_is_number, given.values())) for given in places)


@schemathesis.check
def refused_only_as_declared(ctx: Any, response: Any, case: Any) -> None:
    """A call that keeps the schema is answered, or refused for what the document declares beside it."""
    if case.meta is None or not case.meta.generation.mode.is_positive or response.status_code == 200:
        return
    declared = case.operation.definition.raw.get("x-refused-although-valid")
    if declared is None or response.status_code != 400:
        return
    document = response.json()
    said = document.get("error", document)["message"].removeprefix(PREFIX)
    assert said in {refusal["message"] for refusal in declared}, f"a valid call was refused: {said}"


@schemathesis.check
def one_id(ctx: Any, response: Any, case: Any) -> None:
    """The id of the head is that of the body (HTTP-6)."""
    said = response.headers.get("x-request-id")
    if said and response.headers["content-type"][0] == "application/json" and case.operation.path not in PLATFORM:
        document = response.json()
        if response.status_code != 200 or "request_id" in document:
            assert said == [document["request_id"]], "the head has another id than the body"
        elif document.get("object") == "chat.completion":
            assert said == [document["id"].removeprefix("chatcmpl-")], "the head has another id than the body"


@schemathesis.check
def another_method_is_refused(ctx: Any, response: Any, case: Any) -> None:
    """An undeclared method on a known path is 400, in these words (HTTP-4)."""
    data = case.meta.phase.data if case.meta else None
    scenario = getattr(data, "scenario", None)
    if scenario is None or scenario.name != "UNSPECIFIED_HTTP_METHOD":
        return
    method = response.request.method
    assert response.status_code == 400, f"{method} is answered with {response.status_code}"
    if method != "HEAD":
        document = response.json()
        assert document.get("error", document)["message"] == f"Request method '{method}' is not supported."


@schemathesis.check
def a_stream_is_whole(ctx: Any, response: Any, case: Any) -> None:
    """Frames are numbered without gaps, hold an Answer each, and end in one that says so (SSE-1, SSE-4)."""
    if not response.headers["content-type"][0].startswith("text/event-stream"):
        return
    components = case.operation.schema.raw_schema["components"]
    if "event:" not in response.content.decode():
        _compatible_stream_is_whole(response.content.decode(), components)
        return
    answer = jsonschema_rs.Draft202012Validator({"$ref": "#/components/schemas/Answer", "components": components})
    frames = response.content.decode().removesuffix("\n\n").split("\n\n")
    for number, frame in enumerate(frames, 1):
        head, data = frame.split("\ndata:")
        assert head == f"id:{number}\nevent:result\n:HTTP_STATUS/200", f"a wrong frame: {head}"
        answer.validate(json.loads(data))
    assert json.loads(data)["output"]["choices"][0]["finish_reason"] != "null", "the stream just ends"


def _compatible_stream_is_whole(stream: str, components: Any) -> None:
    """Events hold a chunk each, and the last says that all is there (COM-15, COM-16)."""
    chunk = jsonschema_rs.Draft202012Validator(
        {"$ref": "#/components/schemas/CompatibleChunk", "components": components}
    )
    *events, done = stream.removesuffix("\n\n").split("\n\n")
    assert done == "data: [DONE]", "the stream just ends"
    for event in events:
        chunk.validate(json.loads(event.removeprefix("data: ")))
