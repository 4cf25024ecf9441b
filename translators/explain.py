"""A caller's document and its upstream body into a trail: one line a field, what became of it and why.

Nothing is described twice: the lines come from the tables that do the work, `parameters` and `crossings`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from translators.compatible import call as compatible_calls
from translators.compatible import parameters as compatible_parameters
from translators.compatible import tongue as compatible
from translators.dashscope import call as calls
from translators.dashscope import parameters
from translators.dashscope.parameters import Row
from translators.dialogue import Call, Json
from translators.openai.fields import Action, FieldMapping

UNKNOWN: Final = "unknown here, and ignored as the service does"
UNSAID: Final = "the default"
SHAPES: Final = "the layout of our answer"
HELD: Final = "not said: a tool call leaves in one packet, once it is whole; true lets its pieces leave as they come"


@dataclass(frozen=True, slots=True)
class Line:
    """What became of one field.

    field:  the caller's name for it, dotted; "" where the caller said nothing that could name it
    action: `added` is what upstream is told although the caller said nothing; the others are the crossing's
    theirs: upstream's name for it; "" where upstream is not told
    """

    field: str
    action: Action | Literal["added"]
    theirs: str
    why: str


def of(document: Json, call: Call, crossed: Sequence[FieldMapping], api: str) -> list[Line]:
    """The trail of a call that was not refused.

    api:      the tongue it is in, by its name in the books
    document: what the caller sent, as that tongue's `read` returned it
    crossed:  what `openai.request.Order.fields` said of the call
    """
    by_field = {crossing.ours: crossing for crossing in crossed}
    lines = [*(_said_compatibly if api == compatible.API else _said)(document, call, by_field)]
    told = {crossing.ours for line in lines for crossing in crossed if line.field and line.theirs == crossing.theirs}
    lines += [
        Line("", "added", crossing.theirs, crossing.why or UNSAID)
        for crossing in crossed
        if crossing.ours not in told and crossing.theirs
    ]
    return lines


def _said(document: Json, call: Call, by_field: dict[str, FieldMapping]) -> Iterator[Line]:
    if "model" in document:
        yield _crossed("model", by_field["model"])
    for form in ("messages", "prompt", "history"):
        if document["input"].get(form) is not None:
            yield _crossed(f"input.{form}", by_field["messages"])
    given = document.get("parameters") or {}
    for row in parameters.ROWS:
        name = row.spelling(given)
        if name is not None:
            yield _parameter(f"parameters.{name}", row, by_field.get(row.ours or ""))
    if call.tools and not call.tool_stream and given.get("tool_stream") is None:
        yield Line("parameters.tool_stream", "kept", "", HELD)
    for name in call.ignored:
        yield Line(name, "dropped", "", _reason(name))


def _said_compatibly(document: Json, call: Call, by_field: dict[str, FieldMapping]) -> Iterator[Line]:
    """The same where everything stands at the top level."""
    yield _crossed("model", by_field["model"])
    yield _crossed("messages", by_field["messages"])
    for row in compatible_parameters.TABLE.rows:
        if (name := row.spelling(document)) is not None:
            yield _parameter(name, row, by_field.get(row.ours or ""))
    for name in sorted(compatible_calls.SWITCHES & document.keys()):
        yield _crossed(name, by_field["thinking"])
    for name in sorted(compatible_calls.SHAPING & document.keys()):
        yield Line(name, "kept", "", SHAPES)
    for name in call.ignored:
        yield Line(name, "dropped", "", compatible_parameters.DROPPED.get(name, UNKNOWN))


def _crossed(field: str, crossing: FieldMapping) -> Line:
    return Line(field, crossing.action, crossing.theirs, crossing.why)


def _parameter(field: str, row: Row, crossing: FieldMapping | None) -> Line:
    if crossing is not None:
        return Line(field, crossing.action, crossing.theirs, crossing.why or row.why)
    # What shapes our own answer, or says what would hold anyway, is kept: there is only nothing to tell upstream.
    return Line(field, "kept", "", row.why)


def _reason(name: str) -> str:
    room, _, field = name.rpartition(".")
    known = {"": calls.DROPPED, "parameters": parameters.DROPPED}.get(room, {})
    return known.get(field, UNKNOWN)
