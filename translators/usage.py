"""Token figures: what we count while an answer streams, reconciled with what upstream reports.

One `Meter` per choice counts; one `Tally` per call holds what the choices share and what upstream said; `Offsets`
remembers between calls how far a server's prompt template is from ours. Source: spec USE-1…USE-5.
"""

from __future__ import annotations

import weakref
from collections import Counter as Counted
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from itertools import accumulate
from typing import Final, Literal, NamedTuple

import orjson

from translators.dialogue import Usage
from translators.tokens import Counter, Vocabulary

Basis = Literal["upstream_final", "upstream_last", "counted", "none"]

# From weak to strong.
BASES: Final[tuple[Basis, ...]] = ("none", "counted", "upstream_last", "upstream_final")

# A difference beyond this many tokens is no chat template but another vocabulary (the largest seen is 92).
PLAUSIBLE_DIFFERENCE: Final = 128
# Differences that are remembered of one kind of call: the commonest of so many is believed.
REMEMBERED: Final = 5
# Our count while a packet says upstream's own running figure: below any count, so that the larger of the two is always
# upstream's.
_REPORTED: Final = -1 << 62
# Where no window is known, any whole number is a figure.
_NO_WINDOW: Final = 1 << 62
# What stands behind a chain that is gone on with, in tokens: `</think>` and a blank line.
CLOSING: Final = 2


# Text that nobody asks a figure of is counted once there is so much of it: a millisecond or two of work. Most answers
# are shorter, some two thousand tokens: they are never counted where upstream tells what they came to.
SLICE_BYTES: Final = 16_384
# What stands between two JSON strings in a list of them: a line end stands in none.
BETWEEN: Final = b",\n"

# Tokens that a packet says were generated so far, and how many of them were the chain of thought.
Said = tuple[int, int]
NOTHING_SAID: Final[Said] = 0, 0
# The same of several packets: the one figure of each, and the other.
Run = tuple[list[int], list[int]]


class Figures(NamedTuple):
    """Usage as upstream reports it, each figure a whole number or None where it is missing."""

    input: int | None = None
    output: int | None = None
    reasoning: int | None = None
    cached: int | None = None
    image: int | None = None


NOTHING_TOLD: Final = Figures()


class Place:
    """A place in a text that is counted later, and what it says of tokens once that is asked for.

    end:  where it is among what is owed, in bytes
    told: its figures; None until they are counted
    """

    __slots__ = ("_meter", "end", "told")

    def __init__(self, meter: weakref.ref[Meter], end: int, told: Said | None) -> None:
        # Its meter holds it: the two of a call that is over would else wait for a collection.
        self._meter = meter
        self.end = end
        self.told = told

    @property
    def meter(self) -> Meter:
        """What counts the text; it lives as long as the answer."""
        meter = self._meter()
        if meter is None:
            raise ReferenceError("the answer is gone")
        return meter

    @property
    def said(self) -> Said:
        """The figures of a packet that ended here."""
        if self.told is None:
            self.meter.settle()
        assert self.told is not None  # noqa: S101 - for the type checker: its meter has told it
        return self.told


class Meter:
    """Counts one choice as it grows: chain of thought, its closing tag, answer, tool markup.

    Where nobody asks for a figure on the way, pieces are owed: kept, and counted a slice at a time, one by one as they
    came, so that every figure is what it would have been. What upstream tells of a whole answer settles it uncounted.

    chain_end:  tokens the server counts for closing a chain, 1 for `</think>` where the call thinks, else 0
    answer_end: tokens it counts for ending an answer by itself, 1 where the end-of-sentence token is counted, else 0
    """

    __slots__ = (
        "__weakref__",
        "_acts",
        "_answer",
        "_base",
        "_chain",
        "_last",
        "_lead",
        "_lead_tokens",
        "_least",
        "_markup",
        "_offset",
        "_output",
        "_owed",
        "_owes_chain",
        "_passed",
        "_passed_bytes",
        "_places",
        "_reasoning",
        "_this",
        "_vocabulary",
        "_whole",
        "answer_end",
        "chain_end",
    )

    def __init__(self, vocabulary: Vocabulary, chain_end: int, answer_end: int = 0) -> None:
        self._vocabulary = vocabulary
        # Made with the chain that it counts: most answers have none.
        self._chain: Counter | None = None
        self._answer = Counter(vocabulary)
        self.chain_end = chain_end
        self.answer_end = answer_end
        self._base = 0
        self._lead = ""
        self._lead_tokens = 0
        self._least = 0
        self._markup = 0
        self._offset = 0
        self._output = 0
        self._reasoning = 0
        # Upstream's figures of the whole answer, once they stand.
        self._whole: Said | None = None
        # JSON strings, each with a comma and a line end behind it: a twentieth of what as many texts would hold.
        self._owed = bytearray()
        self._owes_chain = False
        # What has happened behind the pieces that are owed, in order; and the places among them that are remembered.
        self._acts: list[tuple[Callable[[int], None], int]] = []
        self._places: list[Place] = []
        # The figures of the last piece that was owed and is counted; of the last that was passed by; and how much of
        # what is owed has been passed by since.
        self._last = self._passed = NOTHING_SAID
        self._passed_bytes = 0
        self._this = weakref.ref(self)

    @property
    def output(self) -> int:
        """Tokens generated so far, as the next packet says it; never falls before the last word."""
        if self._whole is not None:
            return self._whole[0]
        if self._owed:
            self.settle()
        return self._output

    @property
    def reasoning(self) -> int:
        """Tokens of the visible chain of thought so far."""
        if self._whole is not None:
            return self._whole[1]
        if self._owed and self._owes_chain:
            self.settle()
        return self._reasoning

    def owing(self, *, is_chain: bool) -> bytearray:
        """Where pieces of the chain, or of the answer, are put to be counted later: JSON strings, each and `BETWEEN`.

        It stands until something else is told of the choice, or its other side is asked for.
        """
        if self._owed and (self._acts or is_chain is not self._owes_chain):
            self.settle()
        self._owes_chain = is_chain
        return self._owed

    def place(self) -> Place:
        """Where the text has come to by what is owed."""
        end = len(self._owed)
        place = Place(self._this, end, None if end else self._last)
        if end:
            self._places.append(place)
        return place

    def pass_by(self) -> None:
        """What is owed has left: the figures of its last piece are `passed`. A slice of text is counted."""
        self._passed_bytes = end = len(self._owed)
        if not end:
            self._passed = self._last
        elif end > SLICE_BYTES:
            self.settle()

    @property
    def passed(self) -> Said:
        """The figures of the packet that left last, of those that were owed."""
        if self._passed_bytes:
            self.settle()
        return self._passed

    def settle(self) -> None:
        """Count what is owed, and do what has happened behind it."""
        owed = bytes(self._owed)
        self._owed.clear()
        texts = orjson.loads(b"[%b]" % owed[: -len(BETWEEN)])
        made, chain = (self.think_run if self._owes_chain else self.answer_run)(texts)
        self._last = made[-1], chain[-1]
        if self._passed_bytes:
            # In no string stands a line end: so many pieces stand before it.
            last = owed.count(BETWEEN, 0, self._passed_bytes) - 1
            self._passed, self._passed_bytes = (made[last], chain[last]), 0
        for place in self._places:
            last = owed.count(BETWEEN, 0, place.end) - 1
            place.told = made[last], chain[last]
        self._places.clear()
        acts, self._acts = self._acts, []
        for act, value in acts:
            act(value)

    def think(self, *texts: str) -> list[Said]:
        """Count pieces of the chain of thought; what the packet of each says."""
        return [*zip(*self.think_run(texts), strict=True)]

    def answer(self, *texts: str) -> list[Said]:
        """Count pieces of the answer; what the packet of each says."""
        return [*zip(*self.answer_run(texts), strict=True)]

    def think_one(self, text: str) -> Said:
        """The same as `think`, of one piece: nearly each of a stream that comes as it is generated."""
        if self._owed:
            self.settle()
        if self._chain is None:
            self._chain = Counter(self._vocabulary)
        # Nothing else has come yet: a chain behind its answer is not shown (spec SSE-6).
        self._reasoning = self._base = chain = self._chain.add(text)
        made = chain + self._offset
        if made > self._output:  # noqa: PLR1730 - `max` is one call more for every delta
            self._output = made
        return self._output, chain

    def answer_one(self, text: str) -> Said:
        """The same as `answer`, of one piece."""
        if self._owed:
            self.settle()
        made = self._answer.add(text) + self._base + self._markup + self._offset
        if made > self._output:  # noqa: PLR1730 - `max` is one call more for every delta
            self._output = made
        return self._output, self._reasoning

    def think_run(self, texts: Sequence[str]) -> Run:
        """The same as `think`, in columns."""
        if self._owed:
            self.settle()
        counter = self._chain
        if counter is None:
            counter = self._chain = Counter(self._vocabulary)
        chain = counter.add_each(texts)
        made = self._raised(chain, self._offset)
        self._reasoning = self._base = counter.total
        return made, chain

    def answer_run(self, texts: Sequence[str]) -> Run:
        """The same as `answer`, in columns."""
        if self._owed:
            self.settle()
        made = self._raised(self._answer.add_each(texts), self._base + self._markup + self._offset)
        return made, [self._reasoning] * len(made)

    def close_chain(self) -> None:
        """The chain is over, even an empty one: the server counts the tag that closes it, once."""
        if not self.chain_end:
            return
        self._settled()
        self._base += self.chain_end
        self.chain_end = 0
        self._raise_to(self.counted + self._offset)

    def skip(self, text: str) -> None:
        """Count what was generated between the chain and the answer, and is shown in neither."""
        self._settled()
        self._base += self._answer.fork().add(text)
        self._raise_to(self.counted + self._offset)

    def leave_chain(self, made: int, reasoning: int) -> None:
        """The chain was left at its budget: go on from `made`, all that is billed of it, `reasoning` of that shown.

        The tag that closes it stands in the next prompt: no upstream call generates it (spec OUT-9).
        """
        self.chain_end = 0
        self._reasoning = reasoning
        self._least = made
        self.resume_from(made)

    def end(self) -> None:
        """Count what a model writes to end: the answer has ended by itself, by no limit and not by us."""
        if self._owed:
            self._acts.append((self._end, self.answer_end))
        else:
            self._end(self.answer_end)

    def markup(self, count: int, lead: str = "") -> None:
        """All tool markup so far is `count` tokens behind `lead`, a text that may share a token with the answer."""
        self._settled()
        if lead and not self._lead:
            self._lead = lead
            self._lead_tokens = self._tokens_behind_the_answer()
        self._markup = self._lead_tokens + count
        self._raise_to(self.counted + self._offset)

    @property
    def said(self) -> Said:
        """The figures of a packet that left now: `output` and `reasoning`."""
        if self._whole is not None:
            return self._whole
        if self._owed:
            self.settle()
        return self._output, self._reasoning

    @property
    def counted(self) -> int:
        """Everything generated so far, by our own count."""
        if self._owed:
            self.settle()
        return self._base + self._answer.total + self._markup

    def answer_fits(self, text: str, limit: int) -> int:
        """How many leading characters of `text` the answer can take within `limit` tokens (spec OUT-8)."""
        self._settled()
        return self._answer.fits(text, limit)

    def chain_fits(self, text: str, limit: int) -> int:
        """How many leading characters of `text` the chain can take within `limit` tokens (spec OUT-9)."""
        self._settled()
        if self._chain is None:
            self._chain = Counter(self._vocabulary)
        return self._chain.fits(text, limit)

    def expect(self, reported: int) -> None:
        """Upstream says `reported` of text that is about to be counted: its packets say that figure (spec USE-3)."""
        if self._owed:
            self._acts.append((self._expect, reported))
        else:
            self._expect(reported)

    def resume_from(self, reported: int) -> None:
        """That text is counted: go on from upstream's figure, without falling (spec USE-3)."""
        if self._owed:
            self._acts.append((self._resume_from, reported))
        else:
            self._resume_from(reported)

    def correct(self, output: int, reasoning: int) -> None:
        """Take the last figures, which may be below an earlier packet's (spec USE-3)."""
        self._whole = output, reasoning

    def conclude(self) -> None:
        """Take the exact count for the last packet: the text is complete and upstream has reported nothing."""
        self._output = self.exact

    @property
    def exact(self) -> int:
        """The text encoded at one go, which may be below what was said on the way (spec USE-2).

        Deltas that are not token-aligned are more tokens one by one than together. A running figure of upstream's goes
        on to count: no text is less than what it said of a part.
        """
        counted = self.counted - self._lead_tokens + self._tokens_behind_the_answer()
        return counted if self._offset == _REPORTED else max(self._least, counted + self._offset)

    def _end(self, tokens: int) -> None:
        self._base += tokens
        self._raise_to(self.counted + self._offset)

    def _expect(self, reported: int) -> None:
        self._least = reported
        self._offset = _REPORTED
        self._output = max(self._output, reported)

    def _resume_from(self, reported: int) -> None:
        self._offset = reported - self.counted

    def _raised(self, totals: list[int], more: int) -> list[int]:
        """What packets say of totals that come one after the other, one at the least: it never falls."""
        made = [total + more for total in totals] if more else totals
        # They seldom fall: to sort what is sorted takes a sixth of the time that looking at each takes.
        if made[0] < self._output or made != sorted(made):
            made = [*accumulate(made, max, initial=self._output)][1:]
        self._output = made[-1]
        return made

    def _settled(self) -> None:
        if self._owed:
            self.settle()

    def _tokens_behind_the_answer(self) -> int:
        return self._answer.fork().add(self._lead) - self._answer.total if self._lead else 0

    def _raise_to(self, output: int) -> None:
        self._output = max(self._output, output)


class Upstream:
    """One upstream call, and what it tells of its tokens.

    leg:      which of the caller's choices it serves, by their number; 0 where it serves all
    choices:  how many
    before:   tokens an earlier upstream call has generated of the same choice, which this one goes on with (spec OUT-9)
    chain:    tokens of the chain of thought that is in its prompt for that; None where it is no second call
    figures:  what it told, as far as it is believed; a later report replaces, it is never added (spec USE-3)
    is_final: whether its output is of the whole answer: told when nothing more could come
    """

    __slots__ = ("before", "chain", "choices", "figures", "is_final", "leg")

    def __init__(self, leg: int, choices: int, before: int, chain: int | None) -> None:
        self.leg = leg
        self.choices = choices
        self.before = before
        self.chain = chain
        self.figures = NOTHING_TOLD
        self.is_final = False

    def completion(self, counted: int) -> int:
        """Tokens it has generated: its last word, else the larger of what it told of a part and of our count."""
        told = self.figures.output or 0
        return told if self.is_final else max(told, counted)

    def reasoning(self, counted: int) -> int:
        """Those of its chain: upstream's figure, ours where it is missing, or 0 although one was seen (spec USE-4)."""
        return self.figures.reasoning or counted

    @property
    def basis(self) -> Basis:
        """Whose its figures are, at the weaker of prompt and answer (spec MET-3)."""
        if self.figures.input is None or self.figures.output is None:
            return "counted"
        return "upstream_final" if self.is_final else "upstream_last"


class Spent(NamedTuple):
    """What one upstream call has used, as far as is known: figures of the journal (spec MET-3).

    leg:        which of the caller's choices it served, by their number; 0 where it served all
    prompt:     tokens of its prompt
    cached:     those read from a cache; None where upstream did not tell
    completion: tokens it generated, chain and tool markup included
    reasoning:  those of its chain; None where the call does not think
    basis:      whose figures these are, the weaker of prompt's and completion's
    end:        how each of its choices ended: DashScope's word, `cut` where we ended it, `budget` where its chain was
                gone on with in another call, None where it had not ended
    """

    leg: int
    prompt: int
    cached: int | None
    completion: int
    reasoning: int | None
    basis: Basis
    end: tuple[str | None, ...]


class Tally:
    """What the choices of one call share: the prompt, and upstream's figures as they come.

    window:        tokens the model's context holds: no figure is beyond (spec USE-3)
    input:         prompt tokens, counted (and moved by what was learned) until upstream tells
    counted_input: prompt tokens by our own count alone
    cached:        prompt tokens upstream read from its cache; None until it tells
    image:         prompt tokens of the images, never beyond the input: as upstream tells, else ours of those whose size
                   is known, else, or where these are more, what upstream's prompt has beyond our count of its text
    counts_chain:  whether usage names the tokens of the chain: where the call thinks, or once a chain has come
    told_input:    prompt tokens upstream told, at the end believed or not; None until it tells
    upstream:      its upstream calls, in the order they were begun
    """

    __slots__ = (
        "_images",
        "_is_countable",
        "_knows_images",
        "_text",
        "cached",
        "counted_input",
        "counts_chain",
        "image",
        "input",
        "told_input",
        "upstream",
        "window",
    )

    def __init__(
        self,
        window: int = _NO_WINDOW,
        *,
        counts_chain: bool = False,
        image: int | None = None,
        is_countable: bool = True,
    ) -> None:
        """Begin with nothing but our count of the images, and whether that is of all there are."""
        self.window = window
        self.counts_chain = counts_chain
        self.input = 0
        self.counted_input = 0
        self.cached: int | None = None
        self.image = self._images = image
        self._is_countable = self._knows_images = is_countable
        self._text = 0
        self.told_input: int | None = None
        self.upstream: list[Upstream] = []

    def count_prompt(self, counted: int, learned: int, overhead: int) -> None:
        """Our count of the prompt, and what was learned to add (spec USE-5).

        overhead: tokens of it that are the template's own; the texts themselves are there under any template
        """
        self.counted_input = counted
        self.input = counted + learned if learned >= -overhead else counted
        self._text = self.input - (self._images or 0)

    def begin(self, leg: int, choices: int = 1, *, before: int = 0, chain: int | None = None) -> Upstream:
        """Another upstream call is made; see `Upstream` for what it is told of an earlier one."""
        self.upstream.append(Upstream(leg, choices, before, chain))
        return self.upstream[-1]

    def latest(self, leg: int) -> Upstream:
        """The upstream call that serves these choices now."""
        last = self.upstream[-1]
        return last if last.leg == leg else next(one for one in reversed(self.upstream) if one.leg == leg)

    def report(self, upstream: Upstream, told: Figures, *, final: bool, of_one: bool = False) -> int | None:
        """Take what an upstream call says; its output, with what was generated before, as far as it is believed.

        While the answer goes on a zero says that nothing is known yet; at the end it is a figure. Beyond the model's
        window there is none (spec USE-3). What is not said, or not believed, stays as it was.
        final:  whether nothing more can come
        of_one: whether the output is that of one choice of several, which says nothing of the whole
        """
        prompt, output, reasoning, cached, image = told
        least, window = 0 if final else 1, self.window
        if prompt is not None and not least <= prompt <= window:
            prompt = None
        if output is not None and not least <= output <= (window if of_one else window * upstream.choices):
            output = None
        if cached is not None:
            # Where it names no prompt at all, the one we count stands for it.
            known = self.input if told.input is None else prompt
            cached = None if known is None else min(cached, known)
        whole = None if of_one else output
        if reasoning is not None:
            reasoning = None if whole is None else min(reasoning, whole)
        before = upstream.figures
        believed = (
            before.input if prompt is None else prompt,
            before.output if whole is None else whole,
            before.reasoning if reasoning is None else reasoning,
            before.cached if cached is None else cached,
            None,
        )
        upstream.figures = tuple.__new__(Figures, believed)
        upstream.is_final = final and output is not None
        if upstream.chain is None:
            self._take(told.input if final else prompt, prompt, cached, image)
        elif prompt is not None and (first := self._of_first(prompt, upstream.chain)) is not None:
            self._take(None, first, None, image)
        return None if output is None else upstream.before + output

    @property
    def drift(self) -> int | None:
        """How far upstream's prompt is from our own count, in tokens, for the record (spec USE-5)."""
        return None if self.told_input is None else self.told_input - self.counted_input

    def of(self, meter: Meter) -> Usage:
        """The usage of one choice as its next packet says it."""
        output, chain = meter.said
        reasoning = min(chain, output) if self.counts_chain else None
        return tuple.__new__(Usage, (self.input, output, reasoning, self.cached, self.image))

    def _take(self, told: int | None, prompt: int | None, cached: int | None, image: int | None) -> None:
        """What upstream says of the caller's prompt, and what of that is believed."""
        if told is not None:
            self.told_input = told
        if cached is not None:
            self.cached = cached
        if prompt is not None:
            self.input = prompt
            if image or self._images is not None or not self._knows_images:
                self._see(image, prompt)

    def _of_first(self, prompt: int, chain: int) -> int | None:
        """The caller's prompt, by that of the call which goes on behind its chain; None where it is known without.

        A call that is left at its budget seldom tells its prompt: with an image of unknown size nobody else does.
        """
        if self._is_countable or any(one.chain is None and one.figures.input is not None for one in self.upstream):
            return None
        first = prompt - chain - CLOSING
        return first if first > self._text else None

    def _see(self, told: int | None, prompt: int) -> None:
        """What of a prompt that is believed is images."""
        if told and told <= prompt:
            self._images, self._knows_images = told, True
        if not self._knows_images or (self._images or 0) > prompt:
            # Of unknown size, or seen by a model that counts by another rule than DeepSeek's.
            self.image = max(0, prompt - self._text) or None
        elif self._images is not None:
            self.image = self._images


class Offsets:
    """Differences between a server's prompt count and ours, by kind of call (spec USE-5).

    A template differs by a constant, and moves without notice: of the last few differences the commonest is applied,
    of equally common ones the latest. What is larger than any template comes from another vocabulary, or from what
    grows with the prompt, and teaches nothing; nor does a prompt of 0 tokens, which is no figure.
    """

    __slots__ = ("_applied", "_seen")

    def __init__(self) -> None:
        self._seen: dict[Hashable, deque[int]] = {}
        self._applied: dict[Hashable, int] = {}

    def get(self, kind: Hashable) -> int:
        """What to add to our count of a prompt of this kind, in tokens."""
        return self._applied.get(kind, 0)

    def learn(self, kind: Hashable, counted: int, reported: int) -> int:
        """Remember how far `counted` was from `reported`; returns the difference, for the record."""
        difference = reported - counted
        if reported and abs(difference) <= PLAUSIBLE_DIFFERENCE:
            seen = self._seen.get(kind)
            if seen is None:
                seen = self._seen[kind] = deque(maxlen=REMEMBERED)
            seen.append(difference)
            # One more of the commonest leaves it that, and the latest. To look for it takes 1 % of a small call.
            if self._applied.get(kind) != difference:
                # `max` keeps the first of equals.
                self._applied[kind] = max(reversed(seen), key=Counted(seen).__getitem__)
        return difference
