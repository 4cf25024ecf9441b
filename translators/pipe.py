"""Upstream bytes into downstream bytes: sse ▸ chunks ▸ answer ▸ a tongue's writer; the one state machine of a stream.

The shell feeds what it reads and writes what it gets; it sees no field. A failure before the first packet is a
`Refusal`, so that it keeps its true HTTP status; after it, it is an error frame (spec SSE-2, SSE-3, SSE-4). Whatever
happens, the pipe ends once. What costs more than a turn of a loop is put off until the shell lets it catch up.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable
from enum import Enum, auto
from functools import partial
from typing import Final, NamedTuple

from translators import faults, sse
from translators.answer import Account, Answer
from translators.dialogue import Call, Usage
from translators.openai.chunks import Reader
from translators.sse import Decoder
from translators.terms import Terms
from translators.tokens import Vocabulary
from translators.tongue import Mark, Tongue
from translators.usage import Tally

__all__ = ["Mark", "Pipe", "State"]


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


# Names of the module: asked of its class, a member takes as long as two calls (Python 3.11).
HELD, OPEN, ENDED = State
PACKET, FINISH, FAULT = Event

# What is absent cannot happen: an ended stream takes nothing more, and a held one is refused, not ended, by a fault.
NEXT: Final = {
    (State.HELD, Event.PACKET): State.OPEN,
    (State.HELD, Event.FINISH): State.ENDED,
    (State.OPEN, Event.PACKET): State.OPEN,
    (State.OPEN, Event.FINISH): State.ENDED,
    (State.OPEN, Event.FAULT): State.ENDED,
}


# Frames that repeat the text so far are laid out so many bytes at a time, whatever one read holds.
FRAMES_BYTES: Final = 1 << 20


class Late(NamedTuple):
    """What has come of an upstream call and waits to be taken.

    size: how many bytes of upstream's, at most
    take: takes it; what it becomes
    """

    leg: int
    size: int
    take: Callable[[], bytes]


# Nothing waits, as nearly always: an empty deque of its own would be 600 bytes for each call. It never holds anything.
NOTHING_LATE: Final[deque[Late]] = deque(maxlen=0)


class Pipe:
    """One answer on its way: fed by streams or by whole completions, read as packets or as one reply.

    A call that does not stream is the same pipe with another writer: nothing comes out of it until the reply does, so
    that a folded stream and a completion give the same reply.
    state:     see `State`
    took_text: whether the newest read was text and nothing else, by which no upstream call ends
    refusal:   what ended an open stream with an error frame
    failed_behind_packets: whether packets of the same read came before that frame
    hand_over: say that all that has come out is in the caller's socket; the writer's own, for it is called for every
               write
    mark, hand_over_to: what has come out so far, and that it is in the caller's socket up to there
    """

    __slots__ = (
        "_decoders",
        "_flowing",
        "_held_bytes",
        "_hold",
        "_large_bytes",
        "_late",
        "_logprobs",
        "_open_legs",
        "_readers",
        "_terms",
        "_used",
        "_weighed_at_bytes",
        "_writer",
        "answer",
        "failed_behind_packets",
        "hand_over",
        "hand_over_to",
        "mark",
        "refusal",
        "state",
        "took_text",
    )

    def __init__(
        self,
        call: Call,
        terms: Terms,
        vocabulary: Vocabulary,
        tongue: Tongue,
        *,
        large_bytes: int = sys.maxsize,
        hold: Callable[[int], None] | None = None,
    ) -> None:
        """Begin with nothing.

        large_bytes: an event or a completion of more is put off (`catch_up`)
        hold:        told how many bytes more, or fewer, the answer keeps, once they are many; may raise `Refusal`
        """
        sees = call.model.sees
        tally = Tally(
            call.model.context_tokens,
            counts_chain=call.thinking,
            image=call.image_tokens if sees else None,
            is_countable=not sees or call.is_countable,
        )
        self.state = HELD
        self._terms = terms
        self._writer = tongue.writer(call, tally, request_id=terms.request_id, at_s=terms.at_s)
        self.hand_over = self._writer.hand_over
        self.mark = self._writer.mark
        self.hand_over_to = self._writer.hand_over_to
        self.answer = Answer(call, terms, vocabulary, tally, self._writer)
        self._open_legs = {*range(terms.legs)}
        # Those whose reads are taken as they come: all that are open, or none while the pipe is behind.
        self._flowing: set[int] | frozenset[int] = self._open_legs
        self._late = NOTHING_LATE
        self._large_bytes = self._weighed_at_bytes = large_bytes
        self._hold = hold
        self._held_bytes = 0
        self._logprobs = call.logprobs
        self.refusal: faults.Refusal | None = None
        self.failed_behind_packets = False
        self.took_text = False
        self._used: Usage | None = None
        self._readers = [*map(self._reader, self._open_legs)]
        self._decoders = [Decoder(terms.event_limit, large_bytes) for _ in self._readers]

    def count_prompt(self, counted: int, learned: int, overhead: int = 0) -> None:
        """Say how long the prompt is, before the first packet; see `Tally.count_prompt`."""
        self.answer.tally.count_prompt(counted, learned, overhead)

    def feed(self, wire: bytes, leg: int = 0) -> bytes:
        """What upstream's bytes become; raises `Refusal` where they end the call before its first packet."""
        self.took_text = False
        decoder = self._decoders[leg]
        if leg not in self._flowing:
            if leg in self._open_legs:
                self._put_off(Late(leg, decoder.held_bytes + len(wire), partial(self._take_read, leg, wire)))
            return b""
        reader, writer = self._readers[leg], self._writer
        try:
            if writer.kept_bytes <= self._weighed_at_bytes:
                if decoder.is_between and reader.take_run(wire):
                    # Nearly every read of a stream ends here: it has opened before, unless all of it was held.
                    if reader.over or self.state is not OPEN:
                        return self._flow(leg)
                    self.took_text = True
                    return writer.take()
                if reader.reads_runs and not (decoder.is_large or (decoder.is_between and wire.endswith(b"\n\n"))):
                    return self._feed_cut(leg, wire)
                events = decoder.feed(wire)
                if not decoder.is_large:
                    reader.feed(events)
                    return self._flow(leg)
            else:
                events = decoder.feed(wire)
            return self._weighed(leg, events)
        except faults.Refusal as refusal:
            return self.fail(refusal)

    def _feed_cut(self, leg: int, wire: bytes) -> bytes:
        """A read that begins or ends within an event: what it has of whole events is taken at one go where it can be.

        A server before upstream's own sends what fills its buffers, wherever that ends; and so do we, read 64 KiB at a
        time. Event by event such a read costs three times as much.
        """
        decoder, reader = self._decoders[leg], self._readers[leg]
        begins = 0 if decoder.is_between else wire.find(b"\n\n") + 2
        ends = max(wire.rfind(b"\n\n") + 2, begins)
        rest = wire
        try:
            for part in filter(None, (wire[:begins], wire[begins:ends], wire[ends:])):
                rest = rest[len(part) :]
                if not (decoder.is_between and reader.take_run(part)):
                    reader.feed(decoder.feed(part))
        except faults.Refusal:
            reader.take_last_usage(iter(decoder.feed(rest)))
            raise
        if decoder.is_large:
            self._weigh()
        return self._flow(leg)

    def feed_completion(self, raw: bytes, leg: int = 0) -> bytes:
        """What one upstream call's whole completion becomes; raises `Refusal` where it is none.

        Events under the label of a document are events (spec SSE-10).
        """
        if len(raw) > self._large_bytes or leg not in self._flowing:
            self._put_off(Late(leg, len(raw), partial(self._take_completion, leg, raw)))
            return b""
        return self._take_completion(leg, raw)

    def eof(self, leg: int = 0) -> bytes:
        """End of upstream's stream: the finish if it was seen, else a failure (spec SSE-4)."""
        if leg not in self._flowing:
            return b""
        decoder = self._decoders[leg]
        try:
            if decoder.is_document:
                return self.feed_completion(decoder.document(), leg)
            if decoder.is_large:
                self._put_off(Late(leg, decoder.held_bytes, partial(self._end, leg)))
                return b""
            return self._end(leg)
        except faults.Refusal as refusal:
            return self.fail(refusal)

    @property
    def is_behind(self) -> bool:
        """Whether something that was fed is put off: nothing is taken, of any upstream call, before that is."""
        return self._flowing is not self._open_legs

    @property
    def late_bytes(self) -> int:
        """How many of upstream's bytes `catch_up` takes next, at most."""
        return self._late[0].size if self._late else 0

    def catch_up(self) -> bytes:
        """Take a part of what was put off; what it becomes. Raises `Refusal` as `feed` does.

        It may run in a thread of its own, as long as nobody but `feed` is called meanwhile; then comes `go_on`.
        """
        late = self._late.popleft()
        if late.leg not in self._open_legs:
            return b""
        try:
            return late.take()
        except faults.Refusal as refusal:
            return self.fail(refusal)

    def go_on(self) -> None:
        """What `catch_up` gave is on its way: take reads as they come again, if nothing else was put off."""
        if not self._late:
            self._flowing = self._open_legs
            for decoder in self._decoders:
                decoder.look()
        self._weigh()

    def release(self, leg: int = 0) -> bytes:
        """Finish with our own count: `usage_timeout` has passed without upstream's usage (spec SSE-8)."""
        if leg not in self._flowing:
            return b""
        self._readers[leg].done = True
        return self._flow(leg)

    def progress(self) -> bytes:
        """A packet of usage alone for each choice whose text is held and has grown; no bytes where none has.

        To be asked for now and then while `feed` gives nothing, a second apart at the least: who hangs up while a tool
        call is held is billed for what was generated of it (spec SSE-7).
        """
        if self.state is not ENDED:
            for choice in self.answer.choices:
                if choice.holds_calls:
                    self._writer.progress(choice)
        return self._frames_out()

    def chain_over_budget(self, leg: int = 0) -> str | None:
        """The chain that has reached its budget, to be gone on with in another upstream call; None if there is none."""
        choice = self.answer.served_by(leg)[0]
        return choice.chain if choice.over_budget else None

    def resume(self, leg: int = 0) -> None:
        """From now on this upstream call is another one, which goes on behind the closed chain (spec OUT-9)."""
        before, chain = self.answer.left_at_budget(leg)
        self.answer.served_by(leg)[0].resume()
        self._decoders[leg] = Decoder(self._terms.event_limit, self._large_bytes)
        self._readers[leg] = self._reader(leg, before, chain)
        self._open_legs.add(leg)

    def fail(self, refusal: faults.Refusal) -> bytes:
        """End with a fault: raised while the head is held, an error frame once it is out."""
        ready = self._writer.take()
        if ready:
            # What came before the fault in the same read goes out, as it would have had it come alone.
            self.state = NEXT[self.state, PACKET]
            self.failed_behind_packets = True
        following = NEXT.get((self.state, FAULT))
        if following is None:
            raise refusal
        self.state = following
        self.refusal = refusal
        self._open_legs.clear()
        self._late = deque()
        return ready + self._writer.error(refusal.fault)

    def account(self) -> Account:
        """What the call has come to so far; its record takes this and nothing else."""
        answer = self.answer
        packets, delivered = self._writer.handed()
        generated, spent = self._used or answer.used(), answer.spent()
        finish_reasons: tuple[str, ...] = ()
        for choice in answer.choices:
            if choice.finish_reason is not None:
                finish_reasons += (choice.finish_reason.word,)
        figures = generated, answer.basis(spent), answer.tally.drift
        return tuple.__new__(Account, (packets, delivered, *figures, finish_reasons, spent))

    def open(self) -> None:
        """Note that the head is out: from now on a failure is an error frame (spec SSE-11)."""
        self.state = NEXT[self.state, PACKET]

    def is_open(self, leg: int = 0) -> bool:
        """Whether more is wanted of this upstream call."""
        return leg in self._open_legs

    @property
    def is_over(self) -> bool:
        """Whether what has come out is all that will."""
        return self.state is ENDED

    def wants_no_more(self, leg: int = 0) -> bool:
        """Whether this upstream call has said all but its usage, or more than can be taken at once."""
        return leg not in self._flowing or self._readers[leg].has_ended()

    def awaits_usage(self, leg: int = 0) -> bool:
        """Whether all that is missing of this upstream call is its usage."""
        return leg in self._flowing and self._readers[leg].has_ended()

    def was_cut(self, leg: int = 0) -> bool:
        """Whether we ended the answer while upstream is still talking: its connection is not fit for another call."""
        return any(choice.cut for choice in self.answer.served_by(leg))

    def pass_by(self, wire: bytes, leg: int = 0) -> None:
        """Look at what upstream says behind its end, for `has_passed_by`; nothing comes of it."""
        self._readers[leg].pass_by(self._decoders[leg].feed(wire))

    @property
    def has_passed_by(self) -> bool:
        """Whether upstream said more of the answer behind an end that it had told with its usage: nobody sees that."""
        return any(reader.passed_by for reader in self._readers)

    def generated(self, leg: int = 0) -> int:
        """Tokens generated so far, shown or held: how the shell tells a token from a comment."""
        return sum([choice.meter.output for choice in self.answer.served_by(leg)])

    def _put_off(self, late: Late) -> None:
        if not self._late:
            self._late = deque()
        self._late.append(late)
        self._flowing = frozenset()

    def _weighed(self, leg: int, events: list[bytes]) -> bytes:
        """Take events of which one is large, or whose frames would be; or put them off."""
        self._weigh()
        decoder, writer = self._decoders[leg], self._writer
        is_large = bool(events) and decoder.is_large
        if is_large or (writer.repeats and len(events) > 1 and len(events) * writer.kept_bytes > FRAMES_BYTES):
            self._put_off(self._late_events(leg, events))
            return b""
        self._readers[leg].feed(events)
        return self._flow(leg)

    def _weigh(self) -> None:
        """Tell how much the answer keeps, where that has changed by much. Raises `Refusal`."""
        if self._hold is None:
            return
        kept = self._writer.kept_bytes
        if not self._writer.repeats:
            self._weighed_at_bytes = kept + self._large_bytes
        kept += sum(decoder.held_bytes for decoder in self._decoders) + sum(late.size for late in self._late)
        if abs(kept - self._held_bytes) > self._large_bytes:
            change, self._held_bytes = kept - self._held_bytes, kept
            self._hold(change)

    def _take_read(self, leg: int, wire: bytes) -> bytes:
        return self._take_events(leg, self._decoders[leg].feed(wire))

    def _take_events(self, leg: int, events: list[bytes]) -> bytes:
        """Take events, as many at a time as their frames may be."""
        reader = self._readers[leg]
        part = self._part_of(events)
        if rest := events[part:]:
            self._late.appendleft(self._late_events(leg, rest))
        try:
            reader.feed(events[:part])
        except faults.Refusal:
            reader.take_last_usage(iter(rest))
            raise
        return self._flow(leg)

    def _late_events(self, leg: int, events: list[bytes]) -> Late:
        return Late(leg, max(map(len, events)), partial(self._take_events, leg, events))

    def _part_of(self, events: list[bytes]) -> int:
        """How many events to take at a time: their frames say all of the text again, each."""
        kept = self._writer.kept_bytes
        if self._writer.repeats:
            for number, event in enumerate(events, 1):
                kept += len(event)
                if number * kept > FRAMES_BYTES:
                    return number
        return len(events)

    def _take_completion(self, leg: int, raw: bytes) -> bytes:
        if not raw.startswith(b"{") and sse.is_stream(raw):
            end = Late(leg, 0, partial(self._end, leg))
            if self.is_behind:
                self._late.appendleft(end)
                return self._take_read(leg, raw)
            frames = self.feed(raw, leg)
            if not self._late:
                return frames + self.eof(leg)
            self._late.append(end)
            return frames
        self._readers[leg].feed_completion(raw, self._terms.prefix)
        return self._flow(leg)

    def _end(self, leg: int) -> bytes:
        """Take what was not ended by a blank line, and the end."""
        reader = self._readers[leg]
        reader.feed(self._decoders[leg].eof())
        if not (reader.done or reader.has_ended()):
            raise faults.Refusal(faults.UPSTREAM_BROKEN, f"{faults.CUT} before the answer ended")
        reader.done = True
        return self._flow(leg)

    def _flow(self, leg: int) -> bytes:
        """Finish what can be finished, and hand out every frame there is."""
        reader = self._readers[leg]
        if not (reader.over or reader.done):
            return self._frames_out()
        served = self.answer.served_by(leg)
        if served[0].over_budget:
            self._open_legs.discard(leg)
            return self._frames_out()
        reader.end()
        for choice in served:
            choice.close()
        self.answer.reconcile(leg, served)
        for choice in served:
            self._writer.finish(choice)
        self._open_legs.discard(leg)
        if self._open_legs:
            return self._frames_out()
        self.state = NEXT[self.state, FINISH]
        self._used = self.answer.used()
        return self._writer.whole(self.answer.choices, self._used)

    def _frames_out(self) -> bytes:
        out = self._writer.take()
        if out and self.state is not OPEN:
            self.state = NEXT[self.state, PACKET]
        return out

    def _reader(self, leg: int, before: int = 0, chain: int | None = None) -> Reader:
        return Reader(
            self.answer.served_by(leg),
            self.answer.tally,
            leg,
            self._terms.failures,
            logprobs=self._logprobs,
            before=before,
            chain=chain,
        )
