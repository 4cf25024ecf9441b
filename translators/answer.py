"""What a stream and a reply share: the choices of one call, its tally, and how upstream's figures are taken at the end.

Its choices are filled by the upstream's tongue and laid out by the caller's; it knows neither.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from translators import usage
from translators.choice import Choice, Writer
from translators.deepseek.templates import LAYOUTS
from translators.dialogue import Call, Usage
from translators.terms import Terms
from translators.tokens import Vocabulary
from translators.toolcalls import Drafts
from translators.usage import Basis, Meter, Spent, Tally, Upstream

# What stands behind a chain that is gone on with, in tokens: `</think>` and a blank line.
CLOSING: Final = 2


class Account(NamedTuple):
    """What one call has come to, all its choices and upstream calls together; tokens of the model's vocabulary.

    packets:        how many the caller's socket was handed; a reply is one
    delivered:      what they said; None before there was one (spec MET-3)
    generated:      the last figure known of what upstream read and produced
    basis:          whose figure that is
    drift:          upstream's prompt tokens less our own count; None where upstream told nothing
    finish_reasons: of the choices that have ended, in order
    spent:          what each upstream call has used, in the order they were begun
    """

    packets: int
    delivered: Usage | None
    generated: Usage
    basis: Basis
    drift: int | None
    finish_reasons: tuple[str, ...]
    spent: tuple[Spent, ...]


class Answer:
    """One call's answer as it grows.

    choices: its `n` answers
    tally:   what they share: the prompt's length, and upstream's figures as they come
    """

    __slots__ = ("_legs", "choices", "tally")

    def __init__(self, call: Call, terms: Terms, vocabulary: Vocabulary, tally: Tally, writer: Writer) -> None:
        self._legs = terms.legs
        self.tally = tally
        self.choices = [
            Choice(
                index,
                Meter(vocabulary, terms.chain_end if call.thinking else 0, terms.answer_end),
                writer,
                terms.rules,
                Drafts(
                    vocabulary,
                    f"call_{terms.request_id.replace('-', '')}_{index}",
                    LAYOUTS[terms.template].calls,
                    names=[tool.name for tool in call.tools],
                    opened=terms.calls_opened,
                ),
                tally=tally,
            )
            for index in range(call.n)
        ]

    @property
    def basis(self) -> Basis:
        """Whose figures the usage is, at the weakest of its upstream calls (spec MET-3)."""
        bases = [one.basis for one in self.tally.upstream]
        if any(choice.cut for choice in self.choices):
            # What upstream said includes what we have cut off.
            bases.append("upstream_last")
        return min(bases, key=usage.BASES.index)

    def served_by(self, leg: int) -> Sequence[Choice]:
        """The choices that one upstream call fills."""
        return self.choices if self._legs == 1 else self.choices[leg : leg + 1]

    def reconcile(self, leg: int) -> None:
        """Settle the last packets' figures: upstream's for the whole answer, else our own count (spec USE-3).

        An answer cut by us keeps our count.
        """
        served, upstream = self.served_by(leg), self.tally.latest(leg)
        told = upstream.figures.output if upstream.is_final else None
        if told is None or any(choice.cut for choice in served):
            for choice in served:
                choice.meter.conclude()
            return
        # A sum for several choices: what it differs from our counts goes to the last of them.
        for choice in served[:-1]:
            choice.meter.conclude()
        last = served[-1].meter
        last.correct(max(0, upstream.before + told - sum(choice.meter.output for choice in served[:-1])))
        if len(served) == 1 and upstream.chain is None:
            last.reasoning = usage.reasoning_of(upstream.figures, last.reasoning)

    def spent(self) -> tuple[Spent, ...]:
        """What each upstream call has used, as far as is known, in the order they were begun (spec MET-3)."""
        return tuple(map(self._spent, self.tally.upstream))

    def _spent(self, upstream: Upstream) -> Spent:
        served, figures, successor = self.served_by(upstream.leg), upstream.figures, self.tally.latest(upstream.leg)
        if successor is not upstream:
            # Its chain was gone on with in another call.
            counted = reasoning = successor.chain or 0
            end: tuple[str | None, ...] = ("budget",)
        else:
            counted = sum(choice.meter.exact for choice in served) - upstream.before
            reasoning = sum(choice.meter.reasoning for choice in served) if upstream.chain is None else 0
            end = tuple(map(_end_of, served))
        told = figures.output or 0
        completion = told if upstream.is_final else max(told, counted)
        prompt = self.tally.input if upstream.chain is None else self.tally.input + upstream.chain + CLOSING
        return Spent(
            leg=upstream.leg,
            prompt=prompt if figures.input is None else figures.input,
            cached=figures.cached,
            completion=completion,
            reasoning=min(usage.reasoning_of(figures, reasoning), completion) if self.tally.counts_chain else None,
            basis=upstream.basis,
            end=end,
        )

    def used(self) -> Usage:
        """The usage of all choices: input once, outputs summed (spec OUT-7)."""
        each = [self.tally.of(choice.meter) for choice in self.choices]
        if len(each) == 1:
            return each[0]
        chains = [one.reasoning for one in each if one.reasoning is not None]
        output = sum(one.output for one in each)
        return Usage(self.tally.input, output, sum(chains) if chains else None, self.tally.cached)


def _end_of(choice: Choice) -> str | None:
    if choice.over_budget:
        return "budget"
    if choice.cut:
        return "cut"
    return choice.finish_reason.value if choice.finish_reason else None
