"""What a judge is asked, and what it has to say: the vocabulary of the tables of judges."""

from __future__ import annotations

from functools import partial
from typing import Any, Final, NamedTuple

import orjson

from proxy.protocol import tables
from proxy.protocol.asks import Target
from proxy.protocol.conformance import Check, Finding, Verdict
from proxy.protocol.conformance import judge as find
from proxy.protocol.judgements import Came, Judge

KNOWN: Final = {row.id: row for row in tables.shipped().rows}
# One token a character, so that what a bound lets through can be counted by hand.
PLAIN: Final = Target("deepseek-v3", KNOWN["deepseek-v3"], count=len)
HYBRID: Final = Target("deepseek-v3.2", KNOWN["deepseek-v3.2"], count=len)
ALWAYS: Final = Target("deepseek-r1", KNOWN["deepseek-r1"], count=len)
UNKNOWN: Final = Target("qwen-max")

KEPT: Final = Finding(Verdict.PASSED)
broken: Final = partial(Finding, Verdict.FAILED)
unshown: Final = partial(Finding, Verdict.NOT_SHOWN)
MISSHAPEN: Final = "an answer of another shape"


class Case(NamedTuple):
    """Answers, and what a judge finds in them; … in its words stands for whatever follows."""

    judge: Judge
    came: tuple[Came, ...]
    found: Finding
    target: Target

    def __str__(self) -> str:
        name = getattr(self.judge, "__qualname__", "").partition(".")[0]
        return f"{name} {self.found.verdict.value} {self.found.evidence}"

    def holds(self) -> None:
        """Fail where the judge finds something else."""
        check = Check("name", "group", "rule", "must", "claim", "why", (), self.judge)
        said = find(check, self.came, self.target)
        begun, more, _ = self.found.evidence.partition("…")
        evidence = said.evidence[: len(begun)] if more else said.evidence
        assert (said.verdict, evidence) == (self.found.verdict, begun), said


def case(judge: Judge, *came: Came, found: Finding = KEPT, target: Target = PLAIN) -> Case:
    """A case of a model that never thinks, where nothing else is said."""
    return Case(judge, came, found, target)


def answer(document: object, status: int = 200, **how: Any) -> Came:
    """A document as an answer."""
    return Came(status, pieces=(orjson.dumps(document),), **how)


def without(document: dict[str, Any], *names: str) -> dict[str, Any]:
    """A document that lacks some of its fields."""
    return {name: value for name, value in document.items() if name not in names}


BUSY: Final = Came(429, pieces=(b"slow down",))
BROKE: Final = Came(500, pieces=(b"oops",))
