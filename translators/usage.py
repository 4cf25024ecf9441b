"""Token figures: what we count while an answer streams, reconciled with what upstream reports.

One `Meter` per choice counts; one `Tally` per call holds what the choices share and what upstream said; `Offsets`
remembers between calls how far a server's prompt template is from ours. Source: spec USE-1…USE-5.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Final, Literal, NamedTuple

from translators.dialogue import Usage
from translators.tokens import Counter, Vocabulary

Basis = Literal["upstream_final", "upstream_last", "counted", "none"]

# From weak to strong.
BASES: Final[tuple[Basis, ...]] = ("none", "counted", "upstream_last", "upstream_final")

# A first difference beyond this many tokens is no chat template but another vocabulary (the largest seen is 92).
PLAUSIBLE_DIFFERENCE = 256
# While upstream's own figure stands, whatever we count is below it.
_SILENCED = -(1 << 62)
# A difference that changes from call to call is still a rounding matter below this share of the prompt.
STABLE_SHARE = 0.05


# Tokens that a packet says were generated so far, and how many of them were the chain of thought.
Said = tuple[int, int]


class Figures(NamedTuple):
    """Usage as upstream reports it, each figure a sane whole number or None where it is missing."""

    input: int | None = None
    output: int | None = None
    reasoning: int | None = None
    cached: int | None = None


class Meter:
    """Counts one choice as it grows: chain of thought, its closing tag, answer, tool markup.

    output:    tokens generated so far, as the next packet says it; never falls while the answer streams
    reasoning: tokens of the visible chain of thought so far
    chain_end:  tokens the server counts for closing a chain, 1 for `</think>` where the call thinks, else 0
    answer_end: tokens it counts for ending an answer by itself, 1 where the end-of-sentence token is counted, else 0
    """

    __slots__ = ("_answer", "_answer_end", "_base", "_chain", "_chain_end", "_markup", "_shift", "output", "reasoning")

    def __init__(self, vocabulary: Vocabulary, chain_end: int, answer_end: int = 0) -> None:
        self._chain = Counter(vocabulary)
        self._answer = Counter(vocabulary)
        self._chain_end = chain_end
        self._answer_end = answer_end
        self._base = 0
        self._markup = 0
        self._shift = 0
        self.output = 0
        self.reasoning = 0

    def think(self, *texts: str) -> list[Said]:
        """Count pieces of the chain of thought; what the packet of each says."""
        output, more = self.output, self._answer.total + self._markup + self._shift
        said = []
        for chain in self._chain.add_each(texts):
            if chain + more > output:  # noqa: PLR1730 - `max` is one call more for every delta
                output = chain + more
            said.append((output, chain))
        self.output = output
        self.reasoning = self._base = self._chain.total
        return said

    def close_chain(self) -> None:
        """The chain is over, even an empty one: the server counts the tag that closes it, once."""
        self._base += self._chain_end
        self._chain_end = 0
        self._raise_to(self.counted + self._shift)

    def end(self) -> None:
        """The answer has ended by itself, not by a limit and not by us."""
        self._base += self._answer_end
        self._raise_to(self.counted + self._shift)

    def answer(self, *texts: str) -> list[Said]:
        """Count pieces of the answer; what the packet of each says."""
        output, more, chain = self.output, self._base + self._markup + self._shift, self.reasoning
        said = []
        for total in self._answer.add_each(texts):
            if total + more > output:  # noqa: PLR1730 - as above
                output = total + more
            said.append((output, chain))
        self.output = output
        return said

    def markup(self, count: int) -> None:
        """All tool markup so far is `count` tokens."""
        self._markup = count
        self._raise_to(self.counted + self._shift)

    @property
    def said(self) -> Said:
        """What a packet would say now."""
        return self.output, self.reasoning

    @property
    def counted(self) -> int:
        """Everything generated so far, by our own count."""
        return self._base + self._answer.total + self._markup

    def answer_fits(self, text: str, limit: int) -> int:
        """How many leading characters of `text` the answer can take within `limit` tokens (spec OUT-8)."""
        return self._answer.fits(text, limit)

    def chain_fits(self, text: str, limit: int) -> int:
        """How many leading characters of `text` the chain can take within `limit` tokens (spec OUT-9)."""
        return self._chain.fits(text, limit)

    def hear(self, output: int) -> None:
        """Upstream says `output` of the text that is about to be counted: its packets show that figure (spec USE-3)."""
        self._shift = _SILENCED
        self._raise_to(output)

    def follow(self, output: int) -> None:
        """That text is counted: go on from upstream's figure, without falling (spec USE-3)."""
        self._shift = output - self.counted

    def settle(self, output: int) -> None:
        """Upstream's last word; it alone may correct a count downward (spec USE-3)."""
        self.output = output

    def _raise_to(self, output: int) -> None:
        self.output = max(self.output, output)


class Tally:
    """What the choices of one call share: the prompt, and upstream's figures as they come.

    input:         prompt tokens, counted (and shifted by what was learned) until upstream tells
    counted_input: prompt tokens by our own count alone
    cached:        prompt tokens upstream read from its cache; None until it tells
    counts_chain:  whether usage names the tokens of the chain: where the call thinks, or once a chain has come
    figures:       the last figures of each upstream call; a later report replaces, it is never added (spec USE-3)
    """

    __slots__ = ("cached", "counted_input", "counts_chain", "figures", "input")

    def __init__(self, *, counts_chain: bool = False) -> None:
        self.counts_chain = counts_chain
        self.input = 0
        self.counted_input = 0
        self.cached: int | None = None
        self.figures: dict[int, Figures] = {}

    def report(self, leg: int, figures: Figures) -> None:
        """Take what one upstream call said; what it leaves out stays as it was."""
        before = self.figures.get(leg, Figures())
        self.figures[leg] = Figures(
            before.input if figures.input is None else figures.input,
            before.output if figures.output is None else figures.output,
            before.reasoning if figures.reasoning is None else figures.reasoning,
            before.cached if figures.cached is None else figures.cached,
        )
        if figures.input is not None:
            self.input = figures.input
        if figures.cached is not None:
            self.cached = figures.cached

    @property
    def drift(self) -> int | None:
        """Upstream's prompt tokens less our own count; None where upstream told nothing."""
        told = self.figures.get(0)
        return None if told is None or told.input is None else told.input - self.counted_input

    def of(self, meter: Meter) -> Usage:
        """The usage of one choice as its next packet says it."""
        reasoning = min(meter.reasoning, meter.output) if self.counts_chain else None
        return Usage(self.input, meter.output, reasoning, self.cached)


def reasoning_of(figures: Figures, counted: int) -> int:
    """Upstream's figure for the chain; ours where it is missing, or 0 although a chain was seen (spec USE-4)."""
    return figures.reasoning or counted


class Offsets:
    """Differences between a server's prompt count and ours, by kind of call (spec USE-5).

    A server-side template moves without notice by a constant: one answer of a kind is enough to follow it. A difference
    that will not stay the same comes from another vocabulary or another template family, and is forgotten.
    """

    __slots__ = ("_last", "_trusted")

    def __init__(self) -> None:
        self._last: dict[Hashable, int] = {}
        self._trusted: dict[Hashable, int] = {}

    def get(self, kind: Hashable) -> int:
        """What to add to our count of a prompt of this kind, in tokens."""
        return self._trusted.get(kind, 0)

    def learn(self, kind: Hashable, counted: int, reported: int) -> int:
        """Remember how far `counted` was from `reported`; returns the difference, for the record."""
        difference = reported - counted
        last = self._last.get(kind)
        self._last[kind] = difference
        first_and_plausible = last is None and abs(difference) <= PLAUSIBLE_DIFFERENCE
        if first_and_plausible or difference == last or abs(difference) <= counted * STABLE_SHARE:
            self._trusted[kind] = difference
        else:
            self._trusted.pop(kind, None)
        return difference
