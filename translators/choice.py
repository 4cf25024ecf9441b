"""Upstream's pieces into one choice as it grows: put in order, ended where they must end, handed to a writer.

Neutral ground: the upstream's tongue calls `think`, `say`, `fragment` and `finish`; the caller's tongue is the
`Writer`. What only some calls need (leftover `<think>` tags, local stops, limits) sits on `_filtered`; the plain path
knows none of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum, auto
from typing import Final, NamedTuple, Protocol

from translators.dialogue import LENGTH, STOP, TOOL_CALLS, Finish, Json, ToolCall
from translators.stops import Finder
from translators.thinktags import Splitter
from translators.toolcalls import Draft, Drafts
from translators.usage import Meter, Run, Said, Tally


class Phase(Enum):
    """Where a choice stands."""

    __hash__ = object.__hash__  # in C; an `Enum` hashes its name, in Python

    START = auto()
    THINKING = auto()
    ANSWERING = auto()
    CALLING = auto()
    ENDED = auto()


class Sight(Enum):
    """What kind of piece upstream has sent."""

    __hash__ = object.__hash__  # in C; an `Enum` hashes its name, in Python

    REASONING = auto()
    CONTENT = auto()
    CALL = auto()
    FINISH = auto()


# Names of the module: asked of its class, a member takes as long as two calls (Python 3.11).
START, THINKING, ANSWERING, CALLING, ENDED = Phase
REASONING, CONTENT, CALL, FINISH = Sight

# What is absent is not shown to the caller: a chain after its answer, anything after the end (spec SSE-4, SSE-6).
NEXT: Final = {
    (Phase.START, Sight.REASONING): Phase.THINKING,
    (Phase.START, Sight.CONTENT): Phase.ANSWERING,
    (Phase.START, Sight.CALL): Phase.CALLING,
    (Phase.START, Sight.FINISH): Phase.ENDED,
    (Phase.THINKING, Sight.REASONING): Phase.THINKING,
    (Phase.THINKING, Sight.CONTENT): Phase.ANSWERING,
    (Phase.THINKING, Sight.CALL): Phase.CALLING,
    (Phase.THINKING, Sight.FINISH): Phase.ENDED,
    (Phase.ANSWERING, Sight.CONTENT): Phase.ANSWERING,
    (Phase.ANSWERING, Sight.CALL): Phase.CALLING,
    (Phase.ANSWERING, Sight.FINISH): Phase.ENDED,
    (Phase.CALLING, Sight.CONTENT): Phase.CALLING,
    (Phase.CALLING, Sight.CALL): Phase.CALLING,
    (Phase.CALLING, Sight.FINISH): Phase.ENDED,
}


# The line ends of a blank line.
BLANK_LINE: Final = 2


class Rules(NamedTuple):
    """What we do to an answer ourselves, because the upstream of this call does not.

    think_tags:     split `<think>…</think>` off the content (spec OUT-10)
    inside_chain:   content begins inside the chain: only `</think>` is looked for
    stops:          end the answer before the first of these texts
    answer_limit:   end the answer at so many tokens (spec OUT-8)
    chain_limit:    end the chain of thought at so many tokens (spec OUT-9)
    parallel_calls: show every tool call, not just the first (spec PAR-18)
    calls_in_pieces: show a tool call as it comes; else in one piece, once it is whole (spec SSE-7)
    blank_behind_chain: the model writes a blank line behind its chain: an answer that does not begin with it has lost
                    it on the way, and was billed for it (SOURCES#recorded-completions)
    """

    think_tags: bool = False
    inside_chain: bool = False
    stops: tuple[str, ...] = ()
    answer_limit: int | None = None
    chain_limit: int | None = None
    parallel_calls: bool = False
    calls_in_pieces: bool = False
    blank_behind_chain: bool = False


# Takes pieces as upstream wrote them: JSON strings, one by one and all of them with `BETWEEN` between.
Copy = Callable[[Sequence[bytes], bytes], None]
# Makes one that takes them of the answer, or of the chain where the last is true, for as long as nothing else comes.
Copier = Callable[["Choice", bool], Copy]
# Takes the same, with the usage up to each piece; what upstream wrote is what we would have written.
Splice = Callable[["Choice", Sequence[bytes], Run, bool], None]
SpliceOne = Callable[["Choice", bytes, Said, bool], None]
# What a JSON string may hold that we write otherwise, beside `\\u`.
BACKSLASH: Final = 0x5C
OWN_SPELLING: Final = rb"\/"


class Writer(Protocol):
    """Lays out what a choice has to say; a caller's tongue has one (`tongue.Writer`)."""

    @property
    def copier(self) -> Copier | None:
        """Takes pieces that are counted later; None where what is laid out says usage on the way."""

    @property
    def splice(self) -> Splice | None:
        """Takes pieces as JSON strings, counted; None where what is laid out is made of texts."""

    @property
    def splice_one(self) -> SpliceOne | None:
        """The same of one piece."""

    def reasoning(self, choice: Choice, texts: Sequence[str], said: Sequence[Said], /) -> None:
        """Pieces of the chain of thought, and the usage up to each of them."""

    def content(self, choice: Choice, texts: Sequence[str], said: Sequence[Said], /) -> None:
        """Pieces of the answer, and the usage up to each of them."""

    def fragment(self, choice: Choice, position: int, call: ToolCall, *, first: bool) -> None:
        """A piece of the tool call at `position`; `arguments` holds the piece, id and name count only in the first."""

    def progress(self, choice: Choice) -> None:
        """Nothing new but the usage, where it has grown: what the model writes is held until whole (spec SSE-7)."""

    def finish(self, choice: Choice) -> None:
        """The end of a choice, with its tail, its calls and its last usage."""


class Choice:
    """One choice; everything about it that outlives a chunk.

    tail:          text that came with the finish and leaves with it (spec SSE-5)
    logprobs:      entries whose text has not left yet
    copier:        the writer's; None where it needs each text
    finish_reason: None until the answer has ended
    cut:           ended by us: upstream is still talking and must be closed
    over_budget:   the chain has reached its limit: the answer is to be asked for again, behind a closed chain
    """

    __slots__ = (
        "_begin_calls",
        "_calls",
        "_chain",
        "_closing",
        "_ended_from",
        "_finder",
        "_live",
        "_owed_bytes",
        "_plain",
        "_rules",
        "_splice",
        "_splice_one",
        "_splitter",
        "_tally",
        "_writer",
        "copier",
        "cut",
        "finish_reason",
        "index",
        "logprobs",
        "meter",
        "over_budget",
        "phase",
        "tail",
    )

    def __init__(
        self,
        index: int,
        meter: Meter,
        writer: Writer,
        rules: Rules,
        calls: Callable[[int], Drafts],
        *,
        tally: Tally,
    ) -> None:
        """Begin with nothing; `calls` makes what holds the tool calls of the choice of an index, once there is one."""
        self.index = index
        self.meter = meter
        self.phase = START
        self.finish_reason: Finish | None = None
        self.tail = ""
        self.logprobs: list[Json] = []
        self.cut = False
        self.over_budget = False
        self._tally = tally
        self._writer = writer
        self.copier = writer.copier
        self._splice = writer.splice
        self._splice_one = writer.splice_one
        self._rules = rules
        self._begin_calls = calls
        self._calls: Drafts | None = None
        self._live = 0
        self._owed_bytes = 0
        self._chain: list[str] = []
        self._ended_from = START
        self._splitter = Splitter(inside=rules.inside_chain) if rules.think_tags else None
        self._finder = Finder(rules.stops) if rules.stops else None
        self._plain = self._is_plain()
        self._closing = False

    def think(self, *texts: str) -> None:
        """Take pieces of the chain of thought, in order."""
        if self._splitter is not None and not self._splitter.begun:
            # It comes on its own after all: what the content begins with is the answer.
            self._splitter = None
            self._plain = not self._closing and self._is_plain()
        self._think(*texts)

    def _think(self, *texts: str) -> None:
        if self.phase is not THINKING:
            if not self._step(REASONING):
                return
            # Once for a chain, not for every delta: a chain that nobody asked for is counted, too.
            self._tally.counts_chain = True
        if self._rules.chain_limit is None:
            self._writer.reasoning(self, texts, self.meter.think(*texts))
            return
        for text in texts:
            if fitting := self._within_budget(text, self._rules.chain_limit):
                self._writer.reasoning(self, (fitting,), self.meter.think(fitting))

    def say(self, *texts: str) -> None:
        """Take pieces of the answer, in order."""
        if not self._plain:
            for text in texts:
                self._filtered(text)
            return
        # The end makes a choice plain no more: as long as it is, every step is legal.
        if self.phase is not ANSWERING:
            self._step(CONTENT, texts[0])
        self._writer.content(self, texts, self.meter.answer(*texts))

    def copies(self, *, is_chain: bool) -> bool:
        """Whether more of the answer, or of the chain, can leave as upstream wrote it: nothing of ours needs a text."""
        return (
            self.phase is (THINKING if is_chain else ANSWERING)
            and self._plain
            and not (is_chain and self._rules.chain_limit is not None)
        )

    def copy(self, *, is_chain: bool) -> Copy:
        """What takes it, for as long as nothing else comes; to be asked for where there is some."""
        assert self.copier is not None  # noqa: S101 - for the type checker: who asks has looked
        return self.copier(self, is_chain)

    def take_run(self, texts: Sequence[str], strings: Sequence[bytes], lines: bytes, *, is_chain: bool) -> None:
        """Take pieces of the answer or of the chain, as texts and as upstream wrote them: JSON strings without `\\u`.

        lines: the strings in one, with `BETWEEN` between
        """
        splice = self._splice
        if (
            splice is None
            or not self._plain
            or (is_chain and self._rules.chain_limit is not None)
            or (BACKSLASH in lines and OWN_SPELLING in lines)
        ):
            (self.think if is_chain else self.say)(*texts)
            return
        if is_chain:
            if self.phase is not THINKING:
                if not self._step(REASONING):
                    return
                self._tally.counts_chain = True
        elif self.phase is not ANSWERING:
            self._step(CONTENT, texts[0])
        splice(self, strings, (self.meter.think_run if is_chain else self.meter.answer_run)(texts), is_chain)

    def take_one(self, text: str, string: bytes, *, is_chain: bool) -> None:
        """The same of one piece, nearly each of a stream that comes as it is generated: fewer objects."""
        if (
            self.phase is not (THINKING if is_chain else ANSWERING)
            or not self._plain
            or self._rules.chain_limit is not None
            or (BACKSLASH in string and OWN_SPELLING in string)
        ):
            self.take_run((text,), (string,), string, is_chain=is_chain)
        elif self._splice_one is not None:
            self._splice_one(
                self, string, (self.meter.think_one if is_chain else self.meter.answer_one)(text), is_chain
            )
        else:
            (self.think if is_chain else self.say)(text)

    def quote(self, text: str) -> None:
        """Take a whole answer whose length upstream tells: where nothing of ours needs a count, none is made."""
        if self._plain:
            self._step(CONTENT, text)
            self._writer.content(self, (text,), (self.meter.said,))
        else:
            self._filtered(text)

    def fragment(self, index: int | None, call_id: str, name: str, arguments: str, *, anew: bool = False) -> None:
        """Take a piece of a tool call, with empty words for what upstream left out; `anew` where it is a whole one."""
        if self.phase is not CALLING and not self._step(CALL):
            return
        if self._calls is None:
            self._calls = self._begin_calls(self.index)
        self._calls.add(index, call_id, name, arguments, anew=anew)
        self.meter.markup(self._calls.tokens, self._calls.lead)
        self._show_calls(self._calls, at_end=False)

    def finish(self, reason: Finish, reasoning: str = "", text: str = "") -> None:
        """Take the end, and the text that came with it: the chain leaves at once, the answer with the last packet.

        Dify drops a chain it finds in the last packet. Until `close` it is upstream's word alone: hosts say `stop` on
        an empty first chunk and answer all the same, and what follows takes it back (spec OUT-3).
        """
        more = (reasoning, REASONING), (text, CONTENT)
        if self.phase is ENDED and not any(said and self._take_back(sight) for said, sight in more):
            return
        self._closing = True
        self._plain = False
        if reasoning:
            self.think(reasoning)
        if self.over_budget:
            return
        if text:
            self._filtered(text)
        if not self.cut:
            self._ended_from, self.phase = self.phase, ENDED
            self.finish_reason = reason

    def close(self) -> None:
        """Close the choice: hand out what was held, and count what the model wrote to end."""
        if self.finish_reason is None or self._ended_from is ENDED:
            return
        self.phase, reason = self._ended_from, self.finish_reason
        if self._splitter is not None or self._finder is not None:
            self.finish_reason = None
            self._flush_held()
        if not self.cut:
            self._end(reason)

    def resume(self) -> None:
        """Continue with the answer of a second upstream call, behind the closed chain (spec OUT-9)."""
        self.over_budget = self._closing = False
        self._splitter = None
        self._plain = self._is_plain()
        self._step(CONTENT)

    @property
    def chain(self) -> str:
        """The chain so far, where it may have to be gone on with."""
        return "".join(self._chain)

    @property
    def holds_calls(self) -> bool:
        """Whether the model is writing a call."""
        return self.phase is CALLING

    def tool_calls(self) -> tuple[ToolCall, ...]:
        """Every call there is to show."""
        if self._calls is None:
            return ()
        calls = self._calls.whole()
        return calls if self._rules.parallel_calls else calls[:1]

    def entries_of(self, text: str) -> list[Json]:
        """Take the log probabilities of `text`, which is leaving; those of text held back stay.

        A token that spans a border goes with the text it begins in, one without text with the end; where we cut the
        answer, what is left belongs to text that nobody sees (spec OUT-6).
        """
        self._owed_bytes += len(text.encode())
        taken = 0
        while taken < len(self.logprobs) and self._owed_bytes > 0:
            self._owed_bytes -= len(self.logprobs[taken]["bytes"])
            taken += 1
        if self.finish_reason is not None and not self.cut:
            taken = len(self.logprobs)
        leaving, self.logprobs = self.logprobs[:taken], self.logprobs[taken:]
        return leaving

    def _is_plain(self) -> bool:
        return not (self._splitter or self._rules.stops or self._rules.answer_limit)

    def _within_budget(self, text: str, limit: int) -> str:
        """What of a piece of the chain its budget still holds."""
        if self.over_budget:
            return ""
        room = self.meter.chain_fits(text, limit)
        self.over_budget = room < len(text)
        self._chain.append(text[:room])
        return text[:room]

    def _step(self, sight: Sight, text: str = "") -> bool:
        """Move to the phase that `sight` leads to; False where the caller must not see it.

        text: what the answer begins with
        """
        if self.phase is ENDED and not self._take_back(sight):
            return False
        following = NEXT.get((self.phase, sight))
        if following is None:
            return False
        if self.phase in (START, THINKING) and sight in (CONTENT, CALL):
            if self.meter.chain_end:
                self.meter.close_chain()
            # Either is a matter of few models.
            may_hide = self._splitter is not None or self._rules.blank_behind_chain
            if may_hide and text and (unseen := self._unseen_lines(text)):
                self.meter.skip("\n" * unseen)
        self.phase = following
        return True

    def _unseen_lines(self, text: str) -> int:
        """How many line ends were generated between the chain and the answer, which begins so, and are in neither."""
        if self._splitter is not None and self._splitter.opened:
            return self._splitter.gap
        return BLANK_LINE if self._rules.blank_behind_chain and not text.startswith("\n") else 0

    def _take_back(self, sight: Sight) -> bool:
        """Take back an end that more of the answer follows; False where that would not be shown anyway."""
        if (self._ended_from, sight) not in NEXT:
            return False
        self.phase, self.finish_reason, self._closing = self._ended_from, None, False
        self._plain = self._is_plain()
        if self.tail:
            text, self.tail = self.tail, ""
            self._writer.content(self, (text,), (self.meter.said,))
        return True

    def _filtered(self, text: str) -> None:
        """The way of a piece of content where something of ours may split, hold or end it."""
        if self._splitter is not None:
            chain, text = self._splitter.feed(text)
            if self._splitter.opened and self.phase is not ANSWERING:
                self.logprobs = spelling(self.logprobs, text)
            if chain:
                self._think(chain)
        if text and not self.over_budget:
            self._answered(text)

    def _answered(self, text: str) -> None:
        if self.phase is not ANSWERING and not self._step(CONTENT, text):
            return
        limit = self._rules.answer_limit
        room = len(text) if limit is None else self.meter.answer_fits(text, limit)
        full = room < len(text)
        text = text[:room]
        said = self.meter.answer(text)
        if self._finder is not None:
            text = self._finder.feed(text)
            if self._finder.hit:
                self._cut(STOP, text)
                return
        if full:
            self._cut(LENGTH, text + (self._finder.eof() if self._finder else ""))
        elif self._closing:
            self.tail += text
        elif text:
            self._writer.content(self, (text,), said)

    def _cut(self, reason: Finish, text: str) -> None:
        self.tail += text
        self.cut = True
        self._end(reason)

    def _flush_held(self) -> None:
        """Let out text held for a tag or a stop that never came whole."""
        if self._splitter is not None:
            chain, text = self._splitter.eof()
            if chain:
                self._think(chain)
                # Half a tag over the budget is no reason to ask again.
                self.over_budget = False
            if text:
                self._answered(text)
        if self._finder is not None and not self.cut:
            self.tail += self._finder.eof()

    def _end(self, reason: Finish) -> None:
        thought_only = self.phase in (START, THINKING)
        # No call of a method for what most calls do not count.
        if self.meter.chain_end and not (thought_only and reason is LENGTH):
            self.meter.close_chain()
        if self.meter.answer_end and not (self.cut or reason is LENGTH):
            self.meter.end()
        self.phase = self._ended_from = ENDED
        self.finish_reason = reason
        if self._calls is not None:
            self._calls.close(cut=reason is LENGTH)
            self.meter.markup(self._calls.tokens, self._calls.lead)
        if self._calls is None or not self._calls.drafts:
            # Clients take the word for a promise of calls: without any it would be an empty one.
            if reason is TOOL_CALLS:
                self.finish_reason = STOP
        else:
            # A call cut off by the limit is no call to make: it keeps `length`, so that nobody runs half its arguments.
            if reason is STOP or all(draft.is_whole() for draft in self._calls.drafts):
                self.finish_reason = TOOL_CALLS
            self._show_calls(self._calls, at_end=True)

    def _show_calls(self, calls: Drafts, *, at_end: bool) -> None:
        """Hand out calls in their order, each once it is whole, or in pieces: a later one waits (spec SSE-7)."""
        drafts = calls.drafts if self._rules.parallel_calls else calls.drafts[:1]
        while self._live < len(drafts):
            draft = drafts[self._live]
            follows = self._live + 1 < len(drafts)
            # What may stand for other arguments waits until nothing else can come.
            ready = at_end or bool(draft.name and (follows or not draft.is_placeholder()))
            over = at_end or (ready and draft.is_whole())
            if ready and (over or self._rules.calls_in_pieces):
                self._show(calls, draft, at_end=at_end)
            if not over or not (at_end or follows):
                return
            self._live += 1

    def _show(self, calls: Drafts, draft: Draft, *, at_end: bool) -> None:
        """Hand out what is new of a call, with its id and name where it is the first of it."""
        first = draft.shown < 0
        piece = "".join(draft.arguments[max(draft.shown, 0) :])
        if piece or (first and at_end):
            call = ToolCall(calls.id_of(self._live), draft.name, piece)
            self._writer.fragment(self, self._live, call, first=first)
            draft.shown = len(draft.arguments)


def spelling(entries: list[Json], text: str) -> list[Json]:
    """Of the log probabilities of a longer text, the last ones: those that spell its end, `text`."""
    room_bytes = len(text.encode())
    start = len(entries)
    while start and len(entries[start - 1]["bytes"]) <= room_bytes:
        start -= 1
        room_bytes -= len(entries[start]["bytes"])
    return entries[start:]
