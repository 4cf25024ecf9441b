"""A caller's document and its upstream body into a trail: one line a field, what became of it and why.

Nothing is described twice: the lines come from the tables that do the work, `parameters` and `crossings`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from translators.dashscope import call as calls
from translators.dashscope import parameters
from translators.dashscope.parameters import Row
from translators.dialogue import Call, Json
from translators.openai.fields import Action, FieldMapping

UNKNOWN: Final = "unknown here, and ignored as the service does"
UNSAID: Final = "the default"


@dataclass(frozen=True, slots=True)
class Line:
    """What became of one field.

    field:  the caller's name for it, dotted; "" where the caller said nothing
    action: `added` is what upstream is told although the caller said nothing; the others are the crossing's
    theirs: upstream's name for it; "" where upstream is not told
    """

    field: str
    action: Action | Literal["added"]
    theirs: str
    why: str


def of(document: Json, call: Call, crossed: Sequence[FieldMapping]) -> list[Line]:
    """The trail of a call that was not refused.

    document: what the caller sent, as `call.read` returned it
    crossed:  what `openai.request.Order.fields` said of the call
    """
    by_field = {crossing.ours: crossing for crossing in crossed}
    lines = [*_said(document, call, by_field)]
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
    for name in call.ignored:
        yield Line(name, "dropped", "", _reason(name))


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
