"""A call of the compatible surface, JSON -> the neutral `Call`, or the Refusal it earns (spec COM-4 to COM-10).

Faults come in the order of COM-4: the model, the messages, then the parameters in the order of the table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import orjson

from translators import faults
from translators.catalogue import LONGEST_NAME, Catalogue
from translators.compatible.parameters import TABLE, typed
from translators.dashscope import kinds, messages
from translators.dashscope.call import check_partial, shortened
from translators.dashscope.messages import Manner, Role
from translators.dashscope.rules import LONGEST_ECHO, Case
from translators.dialogue import Call, Json, Model

# Read here; the rest is the table's.
SHAPING: Final = frozenset({"stream", "stream_options"})
READ_FIELDS: Final = frozenset({"model", "messages"}) | SHAPING
# What says whether to think, beside `enable_thinking` (spec COM-9).
SWITCHES: Final = frozenset({"thinking", "chat_template_kwargs", "reasoning_effort"})
# Names of which none is ever ignored.
_READ: Final = READ_FIELDS | SWITCHES | TABLE.named
READ_IN_MESSAGES: Final = messages.READ_FIELDS | {"prefix"}

ROLES: Final[Mapping[str, Role]] = {
    "system": "system",
    "assistant": "assistant",
    "user": "user",
    "tool": "tool",
    "function": "tool",
    # OpenAI's newer word, which the service refuses: its callers' most reported fault. Nobody relies on the refusal.
    "developer": "system",
}
NO_ROLE: Final = "{} is not one of ['system', 'assistant', 'user', 'tool', 'function'] - 'messages.[{}].role'"
NO_MESSAGES: Final = "[] is too short - 'messages'"
NOT_CONTENT: Final = (
    "Invalid type for 'messages.[{}].content': expected one of a string or array of objects, but got {} instead."
)
UNKNOWN_MODEL: Final = "The model `{}` does not exist or you do not have access to it."
# By Python's types, first match; a bool is an int to `isinstance`.
TYPES: Final = ((dict, "an object"), (bool, "a boolean"), (int, "an integer"), (float, "a number"))

_boolean, _object, _array = typed(kinds.boolean), typed(kinds.dictionary), typed(kinds.sequence)


class Form(NamedTuple):
    """How the answer of a call is to be laid out.

    model:         as the caller named it
    usage:         whether a stream tells the usage at its end
    running_usage: whether every chunk tells it
    """

    model: str
    usage: bool = False
    running_usage: bool = False


def _shown(value: Any) -> str:
    """A value as a refusal names it: a word as it is, all else as JSON, cut."""
    if value is None:
        return "None"
    return (value if isinstance(value, str) else orjson.dumps(value).decode())[:LONGEST_ECHO]


def _wrong_content(content: Any, index: int) -> faults.Fault:
    found = next(name for kind, name in TYPES if isinstance(content, kind))
    return faults.invalid(NOT_CONTENT.format(index, found), "invalid_type")


def _pictured(part: Json) -> tuple[Any, Any] | None:
    """`{"type": "image_url", "image_url": {"url", "detail"}}`; some clients put the address there by itself."""
    image = part.get("image_url")
    if image is None:
        return None
    return (image.get("url"), image.get("detail")) if isinstance(image, dict) else (image, None)


MANNER: Final = Manner(
    ROLES,
    # The second is DeepSeek's word for it.
    partial=("partial", "prefix"),
    place="messages.[{}]".format,
    image=_pictured,
    wrong_role=lambda word, index: faults.invalid(NO_ROLE.format(_shown(word), index), "unnamed"),
    wrong_content=_wrong_content,
)


def wants_stream(headers: Mapping[str, str], document: Json) -> bool:  # noqa: ARG001 - another tongue looks there
    """Whether the body asks for SSE; no header does (spec COM-2)."""
    return document.get("stream") is True


def translate(
    document: Json,
    catalogue: Catalogue,
    *,
    stream: bool,
    decode: Callable[[Sequence[int]], bytes],
    path_model: str | None = None,
    strict_thinking: bool | None = None,
) -> Call:
    """The call a document makes, checked in full but for the length of its input; see `tongue.Tongue.translate`."""
    name: Any = document.get("model") if path_model is None else path_model
    model = find(catalogue, name)
    plain = messages.plain(document.get("messages"), ROLES)
    said = messages.converse(_turns(document), MANNER, sees=model.sees) if plain is None else plain
    # The demands of thinking that this surface has no words for are met: a chunk says what is new (spec COM-8).
    given = {**document, "enable_thinking": _switch(document), "incremental_output": True, "result_format": None}
    case = tuple.__new__(Case, (model, said, given, stream, strict_thinking, decode))
    if said[-1].partial:
        check_partial(case)
    filled = TABLE.check(case)
    form = _form(name, document, stream=stream)
    ignored = () if plain is not None and document.keys() <= _READ else _ignored(document)
    return Call(
        model,
        said,
        stream,
        # One fragment a chunk, as they come: clients of this protocol join them (spec COM-19).
        tool_stream=True,
        asked_model=name[:LONGEST_NAME],
        form=form,
        ignored=ignored,
        **filled,
    )


def find(catalogue: Catalogue, name: Any) -> Model:
    """The model a caller means; refuses in the words of this surface, and with its status (spec COM-6)."""
    if name is None or name == "":
        raise faults.Refusal(faults.MODEL_MISSING)
    if not isinstance(name, str):
        raise faults.Refusal(unknown_model(name))
    try:
        return catalogue.find(name)
    except faults.Refusal as refusal:
        raise faults.Refusal(unknown_model(name), refusal.cause) from None


def unknown_model(name: Any) -> faults.Fault:
    """The fault of a name that is no model's."""
    return faults.Fault(404, faults.MODEL_NOT_FOUND.code, UNKNOWN_MODEL.format(_shown(name)))


def _turns(document: Json) -> list[Json]:
    listed = document.get("messages")
    if listed is None:
        raise faults.Refusal(faults.invalid(messages.NO_FORM))
    if listed == []:
        raise faults.Refusal(faults.invalid(NO_MESSAGES, "unnamed"))
    bounded = kinds.bounded(_array(listed, "messages"), "messages", messages.MOST_TURNS)
    return [turn if type(turn) is dict else _object(turn, MANNER.place(index)) for index, turn in enumerate(bounded)]


def _switch(document: Json) -> Any:
    """What the call says of thinking, under the first of the names it goes by; None where it says nothing."""
    said = document.get("enable_thinking")
    if said is not None:
        return said
    thinking, template = document.get("thinking"), document.get("chat_template_kwargs")
    word = thinking.get("type") if isinstance(thinking, dict) else None
    if word in ("enabled", "disabled"):
        return word == "enabled"
    if isinstance(template, dict):
        for name in ("enable_thinking", "thinking"):
            if isinstance(template.get(name), bool):
                return template[name]
    return False if document.get("reasoning_effort") == "none" else None


def _form(name: str, document: Json, *, stream: bool) -> Form:
    said = document.get("stream")
    if said is not None and type(said) is not bool:
        _boolean(said, "stream")
    options = document.get("stream_options")
    if not stream or options is None:
        return Form(name)
    given = _object(options, "stream_options")
    usage, running = (
        given.get(field) is not None and _boolean(given[field], f"stream_options.{field}")
        for field in ("include_usage", "continuous_usage_stats")
    )
    return Form(name, usage, usage and running)


def _ignored(document: Json) -> tuple[str, ...]:
    """Names that nobody read, dotted (spec COM-10)."""
    names = [name for name in TABLE.ignored(document) if name not in READ_FIELDS and name not in SWITCHES]
    for turn in document["messages"]:
        if not turn.keys() <= READ_IN_MESSAGES:
            names += [f"messages.{name}" for name in kinds.unread(turn, READ_IN_MESSAGES)]
    return shortened(names) if names else ()
