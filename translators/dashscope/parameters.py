"""`parameters` of a call -> the fields of `dialogue.Call` they fill: the table of everything a caller may set.

A row is a parameter: adding one is adding a row. The rows stand in the order of the spec (PAR-1 to PAR-20), which is
the order of checking; the first fault is the answer. What is known and left out on purpose has its reason in `DROPPED`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from translators.dashscope import kinds, rules
from translators.dashscope.rules import Case, Rule, Within
from translators.dialogue import Json


@dataclass(frozen=True, slots=True)
class Row:
    """One parameter.

    theirs:  its name in `parameters`
    ours:    the field of `dialogue.Call` it fills; None where the call is only checked for it
    kind:    raw value and dotted path to a value of its type
    rule:    that value and the case to what the call gets; None: whatever is of its type
    why:     what becomes of it, for whoever asks about a translation
    source:  the rule of the spec
    aliases: further names; the first one given, in this order, counts, and the rest are ignored
    """

    theirs: str
    ours: str | None
    kind: Callable[[Any, str], Any]
    rule: Rule | None
    why: str
    source: str
    aliases: tuple[str, ...] = ()

    def spelling(self, given: Json) -> str | None:
        """The name this parameter was given under; None where it was not, and null counts as not given."""
        for name in (self.theirs, *self.aliases):
            if given.get(name) is not None:
                return name
        return None


ROWS: tuple[Row, ...] = (
    Row(
        "temperature",
        "temperature",
        kinds.number,
        Within("Temperature should be in [0.0, 2.0)", at_least=0, below=2),
        "means the same upstream",
        "PAR-1",
    ),
    Row(
        "top_p",
        "top_p",
        kinds.number,
        Within("Range of top_p should be (0.0, 1.0]", above=0, at_most=1),
        "means the same upstream",
        "PAR-2",
    ),
    Row(
        "top_k",
        "top_k",
        kinds.integer,
        rules.top_k,
        "sent where the upstream has it; 0 and above 100 turn it off",
        "PAR-3",
    ),
    Row(
        "seed",
        "seed",
        kinds.integer,
        Within("Range of seed should be [0, 9223372036854775807]", at_least=0, at_most=2**63 - 1),
        "sent where the upstream has it",
        "PAR-4",
    ),
    Row(
        "max_tokens",
        "max_tokens",
        kinds.integer,
        rules.max_tokens,
        "limits the answer without the chain of thought; upstreams that count the chain get an allowance for it",
        "PAR-5",
        # The protocol's own name first, then the newer of the two others.
        aliases=("max_completion_tokens", "max_length"),
    ),
    Row(
        "repetition_penalty",
        "repetition_penalty",
        kinds.number,
        Within("Repetition_penalty should be greater than 0.0", above=0),
        "sent where the upstream has it",
        "PAR-6",
    ),
    Row(
        "presence_penalty",
        "presence_penalty",
        kinds.number,
        Within("Presence_penalty should be in [-2.0, 2.0]", at_least=-2, at_most=2),
        "means the same upstream",
        "PAR-7",
    ),
    Row(
        "frequency_penalty",
        "frequency_penalty",
        kinds.number,
        Within("Frequency_penalty should be in [-2.0, 2.0]", at_least=-2, at_most=2),
        "means the same upstream",
        "PAR-7",
    ),
    Row("n", "n", kinds.integer, rules.n, "asked of the upstream, or asked for one by one", "PAR-8"),
    Row(
        "stop",
        "stops",
        kinds.anything,
        rules.stop,
        "sent as texts, token ids decoded; what the upstream does not take is watched for here",
        "PAR-9",
    ),
    Row("logprobs", "logprobs", kinds.boolean, None, "means the same upstream", "PAR-10"),
    Row(
        "top_logprobs",
        "top_logprobs",
        kinds.integer,
        rules.top_logprobs,
        "means the same upstream; nothing without logprobs",
        "PAR-10",
    ),
    Row(
        "response_format",
        "response_format",
        kinds.anything,
        rules.response_format,
        "means the same upstream; a schema becomes an instruction where the upstream takes none",
        "PAR-11",
    ),
    Row(
        "result_format",
        None,
        kinds.string,
        rules.result_format,
        "the layout of our answer, which is always message",
        "PAR-12",
    ),
    Row(
        "incremental_output",
        "incremental",
        kinds.boolean,
        None,
        "the layout of our packets; the upstream always sends what is new",
        "PAR-13",
    ),
    Row(
        "enable_thinking",
        "thinking",
        kinds.boolean,
        rules.enable_thinking,
        "switches the chain of thought where the model lets it, always said upstream",
        "PAR-14",
    ),
    Row(
        "thinking_budget",
        "thinking_budget",
        kinds.integer,
        rules.thinking_budget,
        "sent where the upstream has it, else counted here; nothing without thinking",
        "PAR-15",
    ),
    Row("tools", "tools", kinds.anything, rules.tools, "means the same upstream, each schema made whole", "PAR-16"),
    Row(
        "tool_choice",
        "tool_choice",
        kinds.anything,
        rules.tool_choice,
        "means the same upstream; left out without tools",
        "PAR-17",
    ),
    Row(
        "parallel_tool_calls",
        "parallel_tool_calls",
        kinds.boolean,
        None,
        "false lets the first call through alone; sent where the upstream has it",
        "PAR-18",
    ),
    Row(
        "tool_stream",
        "tool_stream",
        kinds.boolean,
        None,
        "true lets the pieces of a tool call leave as they come; else it leaves in one packet, once it is whole",
        "PAR-20",
    ),
    Row(
        "enable_search",
        None,
        kinds.boolean,
        rules.enable_search,
        "no upstream searches the web; false asks for nothing",
        "PAR-19",
    ),
)

# Known to clients, without a meaning here (spec HTTP-8). Anything else is dropped as unknown.
DROPPED: Mapping[str, str] = {
    "stream": "SSE is asked for by header alone; Dify and LangChain.js send this with every call",
    "heartbeat": "the stream keeps itself alive, whatever the call says",
    "kwargs": "an empty leftover that LlamaIndex sends",
    "user": "names the caller's own end user, who is none of the upstream's business",
    "plugins": "belongs to the platform's plug-ins, which no upstream has",
    "skill": "belongs to the platform's document skills, which no upstream has",
    "enable_code_interpreter": "the platform's own interpreter, which no upstream has",
    "search_options": "tunes enable_search, which is refused",
    "translation_options": "for translation models",
    "vl_high_resolution_images": "for models that see",
    "vl_enable_image_hw_output": "for models that see",
    "logit_bias": "DeepSeek has no token biases",
    "reasoning_effort": "thinking is steered by enable_thinking and thinking_budget",
    "preserve_thinking": "the chain of an earlier turn goes upstream wherever the caller keeps it",
}


@dataclass(frozen=True, slots=True)
class Table:
    """All that the callers of one tongue may set.

    rows:   in the order of checking
    root:   what a refusal names before a parameter
    places: where each spelling's row stands: most calls give two or three, and only their rows are looked at
    named:  every row's first spelling, which counts wherever it is given
    """

    rows: tuple[Row, ...]
    root: str
    places: Mapping[str, int] = field(init=False)
    named: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        places = {name: place for place, row in enumerate(self.rows) for name in (row.theirs, *row.aliases)}
        object.__setattr__(self, "places", places)
        object.__setattr__(self, "named", frozenset(row.theirs for row in self.rows))

    def check(self, case: Case) -> Json:
        """The fields of `dialogue.Call` that the given parameters fill; what is not given is not filled."""
        given, root = case.given, self.root
        # Thinking is a matter of the model too: it is settled without the flag.
        filled: Json = {"thinking": case.thinks}
        for row in self._asked(given):
            name = row.spelling(given) if row.aliases else row.theirs
            if name is None or (value := given[name]) is None:
                continue
            value = row.kind(value, root + name)
            if row.rule is not None:
                value = row.rule(value, case)
            if row.ours is not None:
                filled[row.ours] = value
        return filled

    def ignored(self, given: Json) -> Sequence[str]:
        """Names that no row reads: dropped, unknown, or set aside for another spelling (spec HTTP-8)."""
        return kinds.unread(given, {name for row in self._asked(given) if (name := row.spelling(given)) is not None})

    def _asked(self, given: Json) -> list[Row]:
        """The rows one of whose names is given, in their order."""
        places, found = self.places, []
        for name in given:
            if name in places:
                found.append(places[name])  # noqa: PERF401 - a comprehension is one call more for every call
        if len(found) > 1:
            found = sorted(set(found))
        return [*map(self.rows.__getitem__, found)]


PARAMETERS = Table(ROWS, "parameters.")
check, ignored, NAMED = PARAMETERS.check, PARAMETERS.ignored, PARAMETERS.named
