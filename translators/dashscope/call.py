"""A DashScope call, bytes and then JSON -> the neutral `Call`, or the Refusal it earns: a request's first translation.

Faults come in the order of the spec: REQ-1, the model (MOD-2), REQ-2 to REQ-6, then the parameters (PAR-1 to PAR-20).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import orjson

from translators import breadth, faults, surrogates
from translators.catalogue import LONGEST_NAME, Catalogue
from translators.dashscope import kinds, messages, parameters
from translators.dashscope.rules import Case
from translators.dialogue import Call, Json, Path

# orjson reads 1,024 levels, and writes so many.
DEEPEST = 254

READ_FIELDS = frozenset({"model", "input", "parameters"})

# Known to clients, without a meaning at the top level (spec HTTP-8).
DROPPED: Mapping[str, str] = {
    "stream": "SSE is asked for by header alone; some releases of the Python SDK leak this",
    "resources": "lists the platform's plug-in resources, which no upstream has",
}

PARTIAL_WHILE_THINKING = "Partial mode is not supported when enable_thinking is true"

# A log line is no place for a caller's essay.
MOST_IGNORED = 32
LONGEST_FIELD = 80


def read(raw: bytes | bytearray) -> Json:
    """The JSON object in a request body; anything else is refused (spec REQ-1), but half a surrogate pair (REQ-10)."""
    try:
        try:
            document = orjson.loads(raw)
        except orjson.JSONDecodeError as error:
            document = _mended(raw, error)
        # Each level has two brackets.
        if len(raw) > 2 * DEEPEST and breadth.levels_of(document, raw) > DEEPEST:
            # Perhaps too deep to be written back, and then it could not go upstream. Most calls need no such trial,
            # which costs a long one half of what reading it does.
            orjson.dumps(document)
    except (orjson.JSONDecodeError, orjson.JSONEncodeError) as error:
        raise faults.Refusal(faults.BODY_INVALID, cause=str(error).replace(": ", " at ")) from None
    if not isinstance(document, dict):
        raise faults.Refusal(faults.BODY_INVALID, cause="not an object")
    return document


def translate(
    document: Json,
    catalogue: Catalogue,
    *,
    stream: bool,
    decode: Callable[[Sequence[int]], bytes],
    path_model: str | None = None,
    strict_thinking: bool | None = None,
    path: Path = "text",
) -> Call:
    """The call a document makes, checked in full but for the length of its input (spec MOD-4).

    document:        what `read` returned
    stream:          whether the headers ask for SSE
    decode:          token ids to the bytes they stand for; KeyError, ValueError or OverflowError for an unknown id
    path_model:      the model in the URL, which wins over the document's (spec HTTP-2)
    strict_thinking: overrides the model's row on what thinking demands; None leaves it (spec PAR-14)
    path:            which of the two native paths it came by; the one with a model in it takes them all (spec HTTP-3)
    """
    # What is as it should be is asked no function: of 204 a small call entered, ten.
    name, source, given = path_model or document.get("model"), document.get("input"), document.get("parameters")
    if type(name) is not str or not name:
        name = _model_name(document)
    if type(source) is not dict:
        source = _input(document)
    model = catalogue.find(name)
    if path_model is None and model.path not in (path, "both"):
        raise faults.Refusal(faults.WRONG_ENDPOINT, f"{model.id} is called on the {model.path} path (path of its row)")
    if type(given) is not dict:
        given = _parameters(document)
    plain = messages.plain(source["messages"], messages.ROLES) if source.keys() == messages.TURNS else None
    said = messages.read(source, sees=model.sees) if plain is None else plain
    case = tuple.__new__(Case, (model, said, given, stream, strict_thinking, decode))
    if said[-1].partial:
        check_partial(case)
    filled = parameters.check(case)
    ignored: tuple[str, ...] = ()
    if plain is None or not (document.keys() <= READ_FIELDS and given.keys() <= parameters.NAMED):
        ignored = _ignored(document, source if plain is None else {}, given)
    # The partner's route is another service, which sends calls in pieces (spec PAR-20).
    filled.setdefault("tool_stream", path_model is not None)
    return Call(model, said, stream, asked_model=name[:LONGEST_NAME], ignored=ignored, **filled)


def _mended(raw: bytes | bytearray, error: orjson.JSONDecodeError) -> object:
    """A body that is no JSON but for half a surrogate pair; raises `error`, or another like it, where that is not all.

    One bad character that a client keeps in its history must not end the conversation for good.
    """
    document = surrogates.loads(raw)
    try:
        return surrogates.mended(document)
    except RecursionError:
        raise error from None


def prompted(document: Json, catalogue: Catalogue) -> Call:
    """The call whose prompt a document holds, to be counted: no parameter is looked at (spec HTTP-12)."""
    name, source = _model_name(document), _input(document)
    model = catalogue.find(name)
    said = messages.read(source, sees=model.sees)
    return Call(model, said, stream=False, thinking=model.thinking == "always")


def check_partial(case: Case) -> None:
    """Refuse to go on with an answer where the model is asked to think (spec REQ-6).

    A model that never thinks ignores the flag here as elsewhere; r1 does not (SOURCES#r1-thinking-flag).
    """
    if case.model.thinking != "never" and case.given.get("enable_thinking") is True:
        raise faults.Refusal(faults.invalid(PARTIAL_WHILE_THINKING))


def shortened(names: Iterable[str]) -> tuple[str, ...]:
    """Names that nobody read, never their values: each once, few and short (spec HTTP-8)."""
    found: dict[str, None] = {}
    for name in names:
        found[name[:LONGEST_FIELD]] = None
        if len(found) == MOST_IGNORED:
            break
    return tuple(found)


def _model_name(document: Json) -> str:
    name = document.get("model")
    if name is None or name == "":
        raise faults.Refusal(faults.MODEL_MISSING)
    if not isinstance(name, str):
        raise faults.Refusal(faults.MODEL_UNKNOWN)
    return name


def _input(document: Json) -> Json:
    source = document.get("input")
    if source is None:
        raise faults.Refusal(faults.INPUT_MISSING)
    if not isinstance(source, dict):
        raise faults.Refusal(faults.BODY_INVALID, cause="input is not an object")
    return source


def _parameters(document: Json) -> Json:
    given = document.get("parameters")
    return {} if given is None else kinds.dictionary(given, "parameters")


def _ignored(document: Json, source: Json, given: Json) -> tuple[str, ...]:
    """Names that nobody read, dotted."""
    names = [*kinds.unread(document, READ_FIELDS)]
    if source:
        names += [f"input.{name}" for name in messages.ignored(source)]
    if not given.keys() <= parameters.NAMED:
        names += [f"parameters.{name}" for name in parameters.ignored(given)]
    return shortened(names) if names else ()
