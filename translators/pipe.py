"""Upstream bytes into downstream bytes: sse ▸ chunks ▸ answer ▸ packets, and the one state machine of a stream.

The shell feeds what it reads and writes what it gets; it sees no field. A failure before the first packet is a
`Refusal`, so that it keeps its true HTTP status; after it, it is an error frame (spec SSE-2, SSE-3, SSE-4). Whatever
happens, the pipe ends once.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum, auto
from typing import Final, NamedTuple

from translators import dialogue, faults, usage
from translators.choice import Choice, Rules, Writer
from translators.dashscope import shapes
from translators.dashscope.packets import Cumulative, Frames, Incremental, Shape
from translators.dashscope.reply import Collected
from translators.dialogue import Call
from translators.openai import failures
from translators.openai.chunks import Reader
from translators.openai.dialects import Dialect
from translators.openai.request import Body
from translators.sse import Decoder
from translators.tokens import Vocabulary
from translators.toolcalls import Drafts
from translators.usage import Basis, Meter, Tally


class State(Enum):
    """Where a stream stands, as its caller sees it."""

    __hash__ = object.__hash__  # in C; an `Enum` hashes its name, in Python

    HELD = auto()  # nothing has gone out: a failure can still have its own status
    OPEN = auto()  # the head is out
    ENDED = auto()  # the finish or an error frame is out: nothing follows


class Event(Enum):
    """What moves a stream on."""

    __hash__ = object.__hash__  # in C; an `Enum` hashes its name, in Python

    PACKET = auto()
    FINISH = auto()
    FAULT = auto()


# What is absent cannot happen: an ended stream takes nothing more, and a held one is refused, not ended, by a fault.
NEXT: Final = {
    (State.HELD, Event.PACKET): State.OPEN,
    (State.HELD, Event.FINISH): State.ENDED,
    (State.OPEN, Event.PACKET): State.OPEN,
    (State.OPEN, Event.FINISH): State.ENDED,
    (State.OPEN, Event.FAULT): State.ENDED,
}


class Terms(NamedTuple):
    """What an answer is made under, beside the call.

    rules:         what we do to it ourselves
    chain_end:     tokens upstream counts for closing a chain of thought, 0 or 1
    legs:          upstream calls that serve it: 1, or `n` where upstream knows no `n`
    failures:      what its failures can depend on
    request_id:    the caller's, in every packet
    event_limit:   bytes one upstream event may have
    answer_end:    tokens upstream counts for ending an answer, 0 or 1
    prefix:        text a JSON completion repeats before its own (llama.cpp, prefix completion)
    """

    rules: Rules
    chain_end: int
    legs: int
    failures: failures.Terms
    request_id: str
    event_limit: int = 16 << 20
    prefix: str = ""
    answer_end: int = 0


def agreed(
    call: Call,
    dialect: Dialect,
    body: Body,
    *,
    request_id: str,
    own_key: bool,
    event_limit: int = 16 << 20,
) -> Terms:
    """The terms of an answer to `body`: what upstream does not do, we do."""
    last = call.messages[-1]
    return Terms(
        rules=Rules(
            think_tags=dialect.think_in_content and call.thinking,
            stops=body.stops,
            answer_limit=body.answer_limit,
            chain_limit=body.chain_limit,
            parallel_calls=call.parallel_tool_calls,
        ),
        chain_end=int(dialect.counts_close),
        answer_end=int(dialect.counts_end),
        legs=body.legs,
        failures=failures.Terms(call.model.input_tokens, own_key),
        request_id=request_id,
        event_limit=event_limit,
        prefix=last.content or "" if dialect.repeats_prefix and last.partial else "",
    )


class Answer:
    """What a stream and a reply share: the choices, the tally, and how they are settled at the end."""

    __slots__ = ("_legs", "_settled", "choices", "shape", "tally")

    def __init__(
        self,
        call: Call,
        terms: Terms,
        vocabulary: Vocabulary,
        shape: Shape,
        writer: Writer,
    ) -> None:
        self._legs = terms.legs
        self._settled: set[int] = set()
        self.shape = shape
        self.tally = shape.tally
        self.choices = [
            Choice(
                index,
                Meter(vocabulary, terms.chain_end if call.thinking else 0, terms.answer_end),
                writer,
                terms.rules,
                Drafts(vocabulary, f"call_{terms.request_id.replace('-', '')}_{index}"),
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

    def used(self) -> dialogue.Usage:
        """The usage of all choices: input once, outputs summed (spec OUT-7)."""
        each = [self.shape.used(choice) for choice in self.choices]
        if len(each) == 1:
            return each[0]
        chains = [one.reasoning for one in each if one.reasoning is not None]
        output = sum(one.output for one in each)
        return dialogue.Usage(self.tally.input, output, sum(chains) if chains else None, self.tally.cached)


class Pipe:
    """One answer on its way: fed by streams or by whole completions, read as packets or as one reply.

    A call that does not stream is the same pipe with another writer: nothing comes out of it until the reply does, so
    that a folded stream and a completion give the same reply.
    state:   see `State`
    packets: how many the caller was handed; a reply is one
    refusal: what ended an open stream with an error frame
    """

    __slots__ = (
        "_collected",
        "_decoders",
        "_delivered",
        "_delivered_cached",
        "_frames",
        "_logprobs",
        "_open_legs",
        "_readers",
        "_terms",
        "_writer",
        "answer",
        "packets",
        "refusal",
        "state",
    )

    def __init__(self, call: Call, terms: Terms, vocabulary: Vocabulary) -> None:
        tally = Tally()
        shape = Shape(call, tally, terms.request_id)
        self.state = State.HELD
        self._terms = terms
        self._frames = Frames(shape)
        self._collected = None if call.stream else Collected(shape)
        self._writer: Writer = self._collected or (
            Incremental(self._frames) if call.incremental else Cumulative(self._frames)
        )
        self.answer = Answer(call, terms, vocabulary, shape, self._writer)
        self._open_legs = set(range(terms.legs))
        self._logprobs = call.logprobs
        self._delivered: dict[int, tuple[int, int, int]] = {}
        self._delivered_cached: int | None = None
        self.packets = 0
        self.refusal: faults.Refusal | None = None
        self._decoders = [Decoder(terms.event_limit) for _ in self._open_legs]
        self._readers = [self._reader(leg) for leg in self._open_legs]

    def count_prompt(self, counted: int, learned: int) -> None:
        """Say how long the prompt is, before the first packet: our count, and what was learned to add (spec USE-5)."""
        tally = self.answer.tally
        tally.counted_input = counted
        tally.input = max(0, counted + learned)

    def feed(self, wire: bytes, leg: int = 0) -> bytes:
        """What upstream's bytes become; raises `Refusal` where they end the call before its first packet."""
        if leg not in self._open_legs:
            return b""
        reader = self._readers[leg]
        try:
            reader.feed(self._decoders[leg].feed(wire))
            return self._flow(leg)
        except faults.Refusal as refusal:
            return self.fail(refusal)

    def feed_completion(self, raw: bytes, leg: int = 0) -> bytes:
        """What one upstream call's whole completion becomes; raises `Refusal` where it is none."""
        self._readers[leg].feed_completion(raw, self._terms.prefix)
        return self._flow(leg)

    def eof(self, leg: int = 0) -> bytes:
        """Upstream has closed: the finish if it was seen, else a failure (spec SSE-4)."""
        if leg not in self._open_legs:
            return b""
        reader = self._readers[leg]
        try:
            reader.feed(self._decoders[leg].eof())
            if not (reader.done or self._has_ended(leg)):
                raise faults.Refusal(faults.UPSTREAM_BROKEN, f"{faults.CUT} before the answer ended")
            reader.done = True
            return self._flow(leg)
        except faults.Refusal as refusal:
            return self.fail(refusal)

    def release(self, leg: int = 0) -> bytes:
        """Upstream was given its time to report usage and has not: finish with our own count (spec SSE-8)."""
        if leg not in self._open_legs:
            return b""
        self._readers[leg].done = True
        return self._flow(leg)

    def chain_over_budget(self, leg: int = 0) -> str | None:
        """The chain that has reached its budget, to be gone on with in another upstream call; None if there is none."""
        choice = self.answer.served_by(leg)[0]
        return choice.chain if choice.over_budget else None

    def resume(self, leg: int = 0) -> None:
        """From now on this upstream call is another one, which goes on behind the closed chain (spec OUT-9)."""
        choice = self.answer.served_by(leg)[0]
        choice.resume()
        self._decoders[leg] = Decoder(self._terms.event_limit)
        self._readers[leg] = self._reader(leg, before=choice.meter.counted)
        self._open_legs.add(leg)

    def fail(self, refusal: faults.Refusal) -> bytes:
        """End with a fault: raised while the head is held, an error frame once it is out."""
        ready = self._frames.take()
        if ready:
            # What came before the fault in the same read goes out, as it would have had it come alone.
            self.state = NEXT[self.state, Event.PACKET]
        following = NEXT.get((self.state, Event.FAULT))
        if following is None:
            raise refusal
        self.state = following
        self.refusal = refusal
        self._open_legs.clear()
        return ready + self._frames.error(refusal.fault)

    def hand_over(self) -> None:
        """What has come out so far is handed to the caller's socket: its usage is what the caller is billed for."""
        if self._collected is not None:
            self.packets = 1
        else:
            # An error frame has a number too, but it is no packet.
            self.packets = self._frames.number - (self.refusal is not None)
            self._delivered = self._frames.said.copy()
            self._delivered_cached = self._frames.cached

    @property
    def delivered(self) -> dialogue.Usage | None:
        """What the last packets handed over said, outputs summed; None before there was one (spec MET-3)."""
        if self._collected is not None:
            return self.answer.used() if self.packets else None
        if not self._delivered:
            return None
        said = self._delivered.values()
        chain = sum(one[2] for one in said) if self.answer.shape.counts_chain else None
        return dialogue.Usage(max(one[0] for one in said), sum(one[1] for one in said), chain, self._delivered_cached)

    def shown(self, used: dialogue.Usage) -> shapes.Usage:
        """Usage in the form the caller sees it (spec OUT-4)."""
        return self.answer.shape.usage(used)

    def open(self) -> None:
        """The shell has sent the head on its own: from now on a failure is an error frame (spec SSE-11)."""
        self.state = NEXT[self.state, Event.PACKET]

    def is_open(self, leg: int = 0) -> bool:
        """Whether more is wanted of this upstream call."""
        return leg in self._open_legs

    def awaits_usage(self, leg: int = 0) -> bool:
        """Whether all that is missing of this upstream call is its usage."""
        return leg in self._open_legs and self._has_ended(leg)

    def was_cut(self, leg: int = 0) -> bool:
        """Whether we ended the answer while upstream is still talking: its connection is not fit for another call."""
        return any(choice.cut for choice in self.answer.served_by(leg))

    def generated(self, leg: int = 0) -> int:
        """Tokens generated so far, shown or held: how the shell tells a token from a comment."""
        return sum(choice.meter.output for choice in self.answer.served_by(leg))

    def _has_ended(self, leg: int) -> bool:
        for choice in self.answer.served_by(leg):  # noqa: SIM110 - a generator would be made for every delta
            if choice.finish_reason is None:
                return False
        return True

    def _flow(self, leg: int) -> bytes:
        """Finish what can be finished, and hand out every frame there is."""
        reader = self._readers[leg]
        if not (reader.over or reader.done):
            return self._frames_out()
        served = self.answer.served_by(leg)
        if served[0].over_budget:
            self._open_legs.discard(leg)
            return self._frames_out()
        if reader.done and not self._has_ended(leg):
            reader.conclude()
        if reader.settled:
            self.answer.settle(leg)
        for choice in served:
            self._writer.finish(choice)
        self._open_legs.discard(leg)
        if self._open_legs:
            return self._frames_out()
        self.state = NEXT[self.state, Event.FINISH]
        if self._collected is not None:
            return self._collected.reply(self.answer.choices, self.answer.used())
        return self._frames.take()

    def _frames_out(self) -> bytes:
        out = self._frames.take()
        if out and self.state is not State.OPEN:
            self.state = NEXT[self.state, Event.PACKET]
        return out

    def _reader(self, leg: int, before: int = 0) -> Reader:
        return Reader(
            self.answer.served_by(leg),
            self.answer.tally,
            leg,
            self._terms.failures,
            logprobs=self._logprobs,
            before=before,
        )
