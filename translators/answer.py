"""What a stream and a reply share: the choices of one call, its tally, and how upstream's figures are taken at the end.

Its choices are filled by the upstream's tongue and laid out by the caller's; it knows neither.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from translators import usage
from translators.choice import Choice, Writer
from translators.dialogue import Call, Usage
from translators.terms import Terms
from translators.tokens import Vocabulary
from translators.toolcalls import Drafts
from translators.usage import Basis, Figures, Meter, Tally


class Account(NamedTuple):
    """What one call has come to, all its choices and upstream calls together; tokens of the model's vocabulary.

    packets:        how many the caller's socket was handed; a reply is one
    delivered:      what they said; None before there was one (spec MET-3)
    generated:      the last figure known of what upstream read and produced
    basis:          whose figure that is
    drift:          upstream's prompt tokens less our own count; None where upstream told nothing
    finish_reasons: of the choices that have ended, in order
    figures:        what each upstream call reported last, by its number; one that reported nothing is missing
    """

    packets: int
    delivered: Usage | None
    generated: Usage
    basis: Basis
    drift: int | None
    finish_reasons: tuple[str, ...]
    figures: Mapping[int, Figures]


class Answer:
    """One call's answer as it grows.

    choices: its `n` answers
    tally:   what they share: the prompt's length, and upstream's figures as they come
    """

    __slots__ = ("_legs", "_settled", "choices", "tally")

    def __init__(self, call: Call, terms: Terms, vocabulary: Vocabulary, tally: Tally, writer: Writer) -> None:
        self._legs = terms.legs
        self._settled: set[int] = set()
        self.tally = tally
        self.choices = [
            Choice(
                index,
                Meter(vocabulary, terms.chain_end if call.thinking else 0, terms.answer_end),
                writer,
                terms.rules,
                Drafts(vocabulary, f"call_{terms.request_id.replace('-', '')}_{index}"),
                tally=tally,
            )
            for index in range(call.n)
        ]

    @property
    def basis(self) -> Basis:
        """Whose figures the usage is, at its weakest leg (spec MET-3)."""
        return min(map(self._basis_of, range(self._legs)), key=usage.BASES.index)

    def served_by(self, leg: int) -> Sequence[Choice]:
        """The choices that one upstream call fills."""
        return self.choices if self._legs == 1 else self.choices[leg : leg + 1]

    def settle(self, leg: int) -> None:
        """Take upstream's figures of the whole answer over ours (spec USE-3); an answer cut by us keeps our count."""
        served = self.served_by(leg)
        figures = self.tally.figures.get(leg)
        if figures is None or figures.output is None or any(choice.cut for choice in served):
            return
        self._settled.add(leg)
        # A sum for several choices: what it differs from our counts goes to the last of them.
        last = served[-1].meter
        last.settle(max(0, figures.output - sum(choice.meter.output for choice in served[:-1])))
        if len(served) == 1:
            last.reasoning = usage.reasoning_of(figures, last.reasoning)

    def _basis_of(self, leg: int) -> Basis:
        if leg in self._settled:
            return "upstream_final"
        told = self.tally.figures.get(leg)
        return "counted" if told is None or told.output is None else "upstream_last"

    def used(self) -> Usage:
        """The usage of all choices: input once, outputs summed (spec OUT-7)."""
        each = [self.tally.of(choice.meter) for choice in self.choices]
        if len(each) == 1:
            return each[0]
        chains = [one.reasoning for one in each if one.reasoning is not None]
        output = sum(one.output for one in each)
        return Usage(self.tally.input, output, sum(chains) if chains else None, self.tally.cached)
