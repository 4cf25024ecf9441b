"""What a stream and a reply share: the choices of one call, its tally, and how upstream's figures are taken at the end.

Its choices are filled by the upstream's tongue and laid out by the caller's; it knows neither.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

from translators import usage
from translators.choice import Choice, Writer
from translators.deepseek.templates import LAYOUTS
from translators.dialogue import Call, Usage
from translators.terms import Terms
from translators.tokens import Vocabulary
from translators.toolcalls import Drafts
from translators.usage import Basis, Meter, Spent, Tally, Upstream


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
        names = [tool.name for tool in call.tools] if call.tools else ()
        self.choices = [
            Choice(
                index,
                Meter(vocabulary, terms.chain_end if call.thinking else 0, terms.answer_end),
                writer,
                terms.rules,
                # Made with the first call that comes; it knows nothing of the answer, so that the two make no ring.
                partial(
                    Drafts,
                    vocabulary,
                    f"call_{terms.request_id.replace('-', '')}_{index}",
                    LAYOUTS[terms.template].calls,
                    names=names,
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
        # What upstream said includes what we have cut off.
        bases += ["upstream_last" for choice in self.choices if choice.cut]
        return bases[0] if len(bases) == 1 else min(bases, key=usage.BASES.index)

    def served_by(self, leg: int) -> Sequence[Choice]:
        """The choices that one upstream call fills."""
        return self.choices if self._legs == 1 else self.choices[leg : leg + 1]

    def reconcile(self, leg: int) -> None:
        """Settle the last packets' figures: upstream's for the whole answer, else our own count (spec USE-3).

        What upstream has generated is what they say together, so that the caller's bill and upstream's agree. An answer
        cut by us keeps our count, as far as upstream's own last word goes.
        """
        served, upstream = self.served_by(leg), self.tally.latest(leg)
        if len(served) == 1 and upstream.is_final and not served[0].cut:
            # What follows would come to the same, and count what is owed for it. Nearly every answer ends here.
            meter = served[0].meter
            made, chain = upstream.before + upstream.completion(0), meter.reasoning
            meter.correct(made, min(upstream.reasoning(chain), made) if upstream.chain is None else chain)
            return
        meters = [choice.meter for choice in served]
        for meter in meters:
            meter.conclude()
        counted = sum(meter.output for meter in meters)
        made = upstream.before + upstream.completion(counted - upstream.before)
        if any(choice.cut for choice in served):
            made = min(made, counted)
        outputs = _shares(made, [(meter.output, made) for meter in meters])
        chains = [meter.reasoning for meter in meters]
        if upstream.chain is None:
            chain = min(upstream.reasoning(sum(chains)), made)
            chains = _shares(chain, [*zip(chains, outputs, strict=True)])
        for meter, output, tokens in zip(meters, outputs, chains, strict=True):
            meter.correct(output, tokens)

    def left_at_budget(self, leg: int) -> tuple[int, int]:
        """Tokens generated by an upstream call whose chain has reached its budget, and our count of that chain.

        Its own last word for all it wrote may be below our count of a part: the caller is billed no more than that.
        """
        upstream, meter = self.tally.latest(leg), self.served_by(leg)[0].meter
        made, chain = meter.counted, meter.reasoning
        reasoning = chain
        if upstream.is_final:
            made = min(made, upstream.completion(made))
            reasoning = min(upstream.reasoning(chain), chain, made)
        meter.leave_chain(made, reasoning)
        return made, chain

    def spent(self) -> tuple[Spent, ...]:
        """What each upstream call has used, as far as is known, in the order they were begun (spec MET-3)."""
        return tuple([self._spent(upstream) for upstream in self.tally.upstream])

    def _spent(self, upstream: Upstream) -> Spent:
        served, figures, successor = self.served_by(upstream.leg), upstream.figures, self.tally.latest(upstream.leg)
        if successor is not upstream:
            # Its chain was gone on with in another call. What it told of it is of a part, unless it was its last word.
            counted, chain = successor.before, successor.chain or 0
            reasoning = upstream.reasoning(chain) if upstream.is_final else max(upstream.reasoning(chain), chain)
            end: tuple[str | None, ...] = ("budget",)
        else:
            # Where it has told all, our count is not asked for: of an answer that nobody had to count it would be made.
            counted = chain = 0
            if not upstream.is_final:
                counted = sum([choice.meter.exact for choice in served]) - upstream.before
            if upstream.chain is None:
                for choice in served:
                    chain += choice.meter.reasoning
            reasoning = upstream.reasoning(chain)
            end = tuple([_end_of(choice) for choice in served])
        completion = upstream.completion(counted)
        prompt = self.tally.input if upstream.chain is None else self.tally.input + upstream.chain + usage.CLOSING
        return Spent(
            leg=upstream.leg,
            prompt=prompt if figures.input is None else figures.input,
            cached=figures.cached,
            completion=completion,
            reasoning=min(reasoning, completion) if self.tally.counts_chain else None,
            basis=upstream.basis,
            end=end,
        )

    def used(self) -> Usage:
        """The usage of all choices: input once, outputs summed (spec OUT-7)."""
        if len(self.choices) == 1:
            return self.tally.of(self.choices[0].meter)
        each = [self.tally.of(choice.meter) for choice in self.choices]
        chains = [one.reasoning for one in each if one.reasoning is not None]
        output = sum(one.output for one in each)
        return Usage(self.tally.input, output, sum(chains) if chains else None, self.tally.cached, self.tally.image)


def _shares(total: int, counted: Sequence[tuple[int, int]]) -> list[int]:
    """A figure for several choices, shared out: each has our count of it, what differs goes to the last that holds it.

    counted: of each choice our count, and the most that it holds
    """
    shares = [min(tokens, most) for tokens, most in counted]
    for at in reversed(range(len(shares))):
        short = total - sum(shares)
        shares[at] = min(max(0, shares[at] + short), counted[at][1])
    return shares


def _end_of(choice: Choice) -> str | None:
    if choice.over_budget:
        return "budget"
    if choice.cut:
        return "cut"
    return choice.finish_reason.word if choice.finish_reason else None
