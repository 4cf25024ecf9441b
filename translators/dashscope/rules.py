"""A parameter of the right type -> what the call gets for it, or the refusal its rule has (spec PAR-1 to PAR-19).

These are the checks the rows of `parameters` name; each is given the value and the case it belongs to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any, NamedTuple

from translators import faults
from translators.dashscope import kinds
from translators.dashscope import tools as toolbox
from translators.dialogue import Json, Message, Model, ResponseFormat, Tool, ToolChoice

Rule = Callable[[Any, "Case"], Any]

# Echoed texts are cut: a refusal is no place for a caller's essay.
LONGEST_ECHO = 64

MAX_TOKENS = "Range of max_tokens should be [1, {}]"
N_WITH_TOOLS = "The n parameter must be 1 when tools is given"
N_WITH_THINKING = "The n parameter must be 1 when the model is thinking"
STOP_KINDS = (
    'The "stop" parameter must be of type "str", "list[str]", "list[int]", or "list[list[int]]",'
    " and all elements within the list must be of the same type."
)
UNKNOWN_FORMAT = (
    "Unknown format of response_format, response_format should be a dict, includes 'type' and an optional key"
    " 'json_schema'. The response_format type from user is {}."
)
NO_JSON_WORD = "'messages' must contain the word 'json' in some form, to use 'response_format' of type 'json_object'."
JSON_WHILE_THINKING = "Json mode response is not supported when enable_thinking is true"
RESULT_FORMAT = 'result_format should be "message" or "text"'
RESULT_FORMAT_WITH_TOOLS = 'The result_format parameter must be "message" when tools is given'
THINKING_BUDGET = "The thinking_budget parameter must be a positive integer and not greater than {}"
TOP_K_OFF_ABOVE = 100
# Far more than any caller has words to stop at, and than any upstream takes.
MOST_STOPS = 256
LONGEST_STOP_CHARS = 512
ALL_STOPS_CHARS = 16_384
STOP_TOO_LONG = 'The "stop" parameter is too long.'


class Case(NamedTuple):
    """One call as a rule sees it: what a check may look at beside its own value.

    messages:        the conversation, already checked
    given:           `parameters` as the caller sent them
    stream:          whether the call asks for SSE
    strict_thinking: the operator's word on the three demands of thinking; None leaves it to the model's row
    decode:          token ids to the bytes they stand for; KeyError, ValueError or OverflowError for an unknown id
    """

    model: Model
    messages: tuple[Message, ...]
    given: Json
    stream: bool
    strict_thinking: bool | None
    decode: Callable[[Sequence[int]], bytes]

    @property
    def asked_to_think(self) -> bool:
        """Whether `enable_thinking` is what makes this call think."""
        return self.model.thinking == "hybrid" and self.given.get("enable_thinking") is True

    @property
    def thinks(self) -> bool:
        """Whether this call thinks, the model's nature considered (spec PAR-14)."""
        nature = self.model.thinking
        return nature == "always" or (nature == "hybrid" and self.given.get("enable_thinking") is True)

    @property
    def strict(self) -> bool:
        """Whether thinking demands SSE, incremental output and message format."""
        return self.model.strict_thinking if self.strict_thinking is None else self.strict_thinking


# In the order the service names them: what thinking demands, and what a call without it is told (spec PAR-14).
THINKING_DEMANDS: tuple[tuple[Callable[[Case], bool], str], ...] = (
    (
        lambda case: case.stream,
        "parameter.enable_thinking must be set to false for non-streaming calls",
    ),
    (
        lambda case: case.given.get("incremental_output") is True,
        'The incremental_output parameter must be "true" when enable_thinking is true',
    ),
    (
        lambda case: case.given.get("result_format") != "text",
        'The result_format parameter must be "message" when enable_thinking is true',
    ),
)


@dataclass(frozen=True, slots=True)
class Within:
    """The rule that a number keeps its bounds, and the text for one that does not."""

    text: str
    at_least: float = -inf
    above: float = -inf
    at_most: float = inf
    below: float = inf

    def __call__(self, value: float, case: Case) -> float:  # noqa: ARG002 - this rule needs the value alone
        """The number, where it keeps them."""
        if not (self.at_least <= value <= self.at_most and self.above < value < self.below):
            raise _refused(self.text)
        return value


def top_k(value: int, case: Case) -> int | None:  # noqa: ARG001 - the shape every rule has
    """The candidate count; None is off, which 0 and everything above 100 mean (spec PAR-3)."""
    if value < 0:
        raise _refused("Parameter top_k be greater than or equal to 0")
    return value if 0 < value <= TOP_K_OFF_ABOVE else None


def max_tokens(value: int, case: Case) -> int:
    """The answer's limit, within the model's own (spec PAR-5)."""
    if not 1 <= value <= case.model.answer_tokens:
        raise _refused(MAX_TOKENS.format(case.model.answer_tokens))
    return value


def n(value: int, case: Case) -> int:
    """How many answers; more than one only without tools and thinking (spec PAR-8)."""
    if value not in range(1, 5):
        raise _refused("Range of n should be [1, 4]")
    if value > 1 and case.given.get("tools"):
        raise _refused(N_WITH_TOOLS)
    if value > 1 and case.thinks:
        raise _refused(N_WITH_THINKING)
    return value


def stop(value: Any, case: Case) -> tuple[str, ...]:
    """The texts that end the answer, each once, in the caller's order (spec PAR-9).

    A list of ids is a list of one-token stops, a list of lists one stop each. An unknown id is refused with the
    rule's own text. Empty stops, and ids that are no whole UTF-8 text, are dropped: no text can ever show them.
    """
    if isinstance(value, list):
        kinds.bounded(value, "parameters.stop", MOST_STOPS)
    if isinstance(value, str):
        texts: list[str] = [value]
    elif isinstance(value, list) and all(isinstance(item, str) for item in value):
        texts = value
    else:
        texts = list(_decoded(_token_ids(value), case.decode))
    lengths = [len(text) for text in texts]
    if max(lengths, default=0) > LONGEST_STOP_CHARS or sum(lengths) > ALL_STOPS_CHARS:
        raise _refused(STOP_TOO_LONG)
    return tuple(dict.fromkeys(text for text in texts if text))


def top_logprobs(value: int, case: Case) -> int | None:
    """How many candidates beside each token; None where `logprobs` is off (spec PAR-10)."""
    if value not in range(6):
        raise _refused("Range of top_logprobs should be [0, 5]")
    return value if case.given.get("logprobs") is True else None


def response_format(value: Any, case: Case) -> ResponseFormat:
    """What the answer must look like (spec PAR-11)."""
    form = _format(value)
    if form.type == "json_object" and not any("json" in (said.content or "").lower() for said in case.messages):
        raise _refused(NO_JSON_WORD)
    # The service means structured output as a whole, a schema as well (partner spec, error page). What always
    # thinks was not asked to by the flag, and its upstreams do take JSON mode: it may.
    if form.type != "text" and case.asked_to_think:
        raise _refused(JSON_WHILE_THINKING)
    return form


def result_format(value: str, case: Case) -> str:
    """The layout of the answer; `text` is let through and answered as message (spec PAR-12)."""
    if value not in {"message", "text"}:
        raise _refused(RESULT_FORMAT)
    if value == "text" and case.given.get("tools"):
        raise _refused(RESULT_FORMAT_WITH_TOOLS)
    return value


def enable_thinking(value: bool, case: Case) -> bool:
    """Whether the call thinks, which the model's nature has a say in (spec PAR-14)."""
    if value and case.model.thinking == "never" and case.model.enable_thinking == "refuse":
        raise faults.Refusal(faults.no_thinking(case.model.id))
    if case.asked_to_think and case.strict:
        for met, text in THINKING_DEMANDS:
            if not met(case):
                raise _refused(text)
    return case.thinks


def thinking_budget(value: int, case: Case) -> int | None:
    """The chain's limit; None where this call does not think (spec PAR-15)."""
    limit = case.model.chain_tokens
    # A model without a chain has no range to be in: it ignores the budget as it ignores the flag.
    if limit and not 1 <= value <= limit:
        raise _refused(THINKING_BUDGET.format(limit))
    return value if case.thinks else None


def tools(value: Any, case: Case) -> tuple[Tool, ...]:  # noqa: ARG001 - the shape every rule has
    """The functions the model may call (spec PAR-16)."""
    return toolbox.read(value, "parameters.tools")


def tool_choice(value: Any, case: Case) -> ToolChoice:
    """Which of them it shall call (spec PAR-17)."""
    return toolbox.choose(value, tools(case.given.get("tools") or [], case), thinks=case.thinks)


def enable_search(value: bool, case: Case) -> bool:  # noqa: ARG001 - the shape every rule has
    """Never on: no upstream searches (spec PAR-19)."""
    if value:
        raise _refused("This model does not support enable_search.")
    return False


def _refused(text: str) -> faults.Refusal:
    return faults.Refusal(faults.invalid(text))


def _token_ids(value: Any) -> list[list[int]]:
    """One list of token ids a stop, whichever of the two id forms it came in."""
    if isinstance(value, list):
        # Exact types: JSON's true is an int to `isinstance`.
        if all(type(item) is int for item in value):
            return [[item] for item in value]
        if all(isinstance(item, list) and all(type(part) is int for part in item) for item in value):
            return value
    raise _refused(STOP_KINDS)


def _decoded(sequences: list[list[int]], decode: Callable[[Sequence[int]], bytes]) -> Iterator[str]:
    for ids in sequences:
        try:
            raw = decode(ids)
        except (KeyError, ValueError, OverflowError):
            raise _refused(STOP_KINDS) from None
        try:
            yield raw.decode()
        except UnicodeDecodeError:
            continue


def _format(value: Any) -> ResponseFormat:
    form: Json = value if isinstance(value, dict) else {"type": value}
    match form:
        case {"type": "text" | "json_object" as kind} if form is value:
            return ResponseFormat(kind)
        case {"type": "json_schema", "json_schema": dict(schema)}:
            return ResponseFormat("json_schema", schema)
    said = form.get("type")
    raise _refused(UNKNOWN_FORMAT.format(said[:LONGEST_ECHO] if isinstance(said, str) else type(said).__name__))
