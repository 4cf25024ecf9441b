"""What a choice says into DashScope packets, each one whole SSE frame: deltas as they come, or the full text so far.

One `Frames` numbers and lays out; `Incremental` and `Cumulative` decide what a packet repeats. The plain text packet is
the hot path: its constant parts are serialised once per stream, and only what changes is spliced in.
Source: spec SSE-1, SSE-3, SSE-5, SSE-7.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import orjson

from translators import choice as answer
from translators import dialogue, faults
from translators.dashscope import shapes
from translators.dashscope.shapes import Answer, Failure, Finish, Function, Message
from translators.dialogue import Call, Json
from translators.tongue import ENTRY_BYTES, Handed
from translators.usage import Run, Said, Tally

UNFINISHED: Final[Finish] = "null"  # the string: clients compare it as one (spec OUT-2)

# No space after the colons: the official Python SDK recognises only "event:error".
FRAME: Final = b"id:%d\nevent:result\n:HTTP_STATUS/200\ndata:%b\n\n"
ERROR_FRAME: Final = b"id:%d\nevent:error\n:HTTP_STATUS/%d\ndata:%b\n\n"

# Placeholders in a packet that is serialised once per stream: the hot path replaces them by a delta's text and figures.
# No id, name or number of ours can equal one.
CONTENT_MARK: Final = "\0content"
REASONING_MARK: Final = "\0reasoning"
REQUEST_MARK: Final = "\0request"
FIGURE_MARKS: Final = {"output": -1, "total": -2, "reasoning": -3, "text": -4}
# What is the same in a whole stream, most often.
GIVEN_MARK: Final = -5
CACHED_MARK: Final = -6
EMPTY: Final = b'""'
# In a packet with no other text of its own yet.
OPEN_END: Final = b'"finish_reason":"%b"' % UNFINISHED.encode()

# What a writer of packets has from its `Frames`, as it is: passed on by a method each would cost a call more.
FRAMING: Final = ("take", "whole", "error", "hand_over", "hand_over_to", "handed", "mark")

# The number of the newest packet; what each choice's newest said of output and reasoning tokens; what the newest of all
# said of the prompt, of the cache and of images.
Told = tuple[int, Mapping[int, Said], int, int | None, int | None]

# A packet with one text: a form to be filled in by `%`; the same in parts, with an empty one for each value; and how
# many values tell of the chain.
OneSided = tuple[bytes, list[bytes], int]

# The two texts of a packet, content and chain of thought, as JSON strings.
Sides = tuple[bytes, bytes]


# From so many packets on, columns are filled in; and numbers as they are written, those of most packets, in half a MiB.
_COLUMNS_FROM: Final = 6
_WRITTEN_MOST: Final = 10_000
_WRITTEN: Final = [b"%d" % number for number in range(_WRITTEN_MOST)]

# By whether they think, by choice or at all, tell the chain's tokens and the cache's; and by the choice.
_FORMS: Final[dict[tuple[bool, bool, bool, int, int], bytes]] = {}


class Shape:
    """What the packets and the reply of one call have in common.

    thinks: whether messages carry `reasoning_content`: on a thinking model, or once a chain was seen all the same
    hybrid: whether usage names the tokens of the text beside it; refused on r1 (spec OUT-4)
    """

    __slots__ = ("call", "hybrid", "request_id", "tally", "thinks")

    def __init__(self, call: Call, tally: Tally, request_id: str) -> None:
        self.call = call
        self.tally = tally
        self.request_id = request_id
        # A chain that is counted is shown: `Frames.text` knows no usage of a chain in packets without one.
        self.thinks = call.thinking or call.model.thinking != "never"
        self.hybrid = call.model.thinking == "hybrid"

    def message(self, content: Any, reasoning: Any, calls: Sequence[shapes.ToolCall] = ()) -> Message:
        """The `message` of a choice: content and role always, the rest where there is some."""
        message: Message
        if self.thinks:
            message = {"content": content, "reasoning_content": reasoning, "role": "assistant"}
        else:
            message = {"content": content, "role": "assistant"}
        if calls:
            message["tool_calls"] = list(calls)
        return message

    def choice(self, index: int, message: Message, finish: Finish, logprobs: Sequence[Json]) -> shapes.Choice:
        """One member of `choices`."""
        choice: shapes.Choice = {"message": message, "index": index, "finish_reason": finish}
        if self.call.logprobs:
            choice["logprobs"] = {"content": list(logprobs)}
        return choice

    def usage(self, used: dialogue.Usage) -> shapes.Usage:
        """The `usage` object (spec OUT-4)."""
        shown: shapes.Usage = {
            "input_tokens": used.input,
            "output_tokens": used.output,
            "total_tokens": used.input + used.output,
        }
        if used.reasoning is not None:
            shown["output_tokens_details"] = {"reasoning_tokens": used.reasoning}
            if self.hybrid:
                shown["output_tokens_details"]["text_tokens"] = used.output - used.reasoning
        if used.cached is not None:
            shown["prompt_tokens_details"] = {"cached_tokens": used.cached}
        return shown

    def whole(self, choices: list[shapes.Choice], shown_usage: shapes.Usage) -> Answer:
        """A packet or a reply: these three members, nothing else (spec OUT-1)."""
        return {"output": {"choices": choices}, "usage": shown_usage, "request_id": self.request_id}

    def form(self, index: int) -> bytes:
        """A text packet of a choice, to be filled by `%`: number, both texts, output, total, and its details.

        The packets of two streams differ in little: it is serialised once for each kind, of which there are few.
        """
        tally = self.tally
        cached = () if tally.cached is None else (tally.cached,)
        kind = self.thinks, self.hybrid, tally.counts_chain, len(cached), index
        form = _FORMS.get(kind)
        if form is None:
            form = self.marked(index, GIVEN_MARK, CACHED_MARK if cached else None, REQUEST_MARK).replace(b"%", b"%%")
            for mark in (GIVEN_MARK, CACHED_MARK):
                form = form.replace(b":%d" % mark, b":%d")
            _FORMS[kind] = form = form.replace(orjson.dumps(REQUEST_MARK), b"%b")
        return form % (tally.input, *cached, orjson.dumps(self.request_id))

    def marked(self, index: int, given: int, cached: int | None, request_id: str) -> bytes:
        """The same, serialised now."""
        marks, tally = FIGURE_MARKS, self.tally
        chain = 0 if tally.counts_chain else None
        shown: Any = self.usage(dialogue.Usage(given, 0, chain, cached, tally.image))
        shown |= {"output_tokens": marks["output"], "total_tokens": marks["total"]}
        details = shown.get("output_tokens_details", {})
        for name in details:
            details[name] = marks[name.removesuffix("_tokens")]
        choice = self.choice(index, self.message(CONTENT_MARK, REASONING_MARK), UNFINISHED, [])
        form = orjson.dumps({**self.whole([choice], shown), "request_id": request_id})
        for mark in (CONTENT_MARK, REASONING_MARK):
            form = form.replace(orjson.dumps(mark), b"%b")
        for figure in marks.values():
            form = form.replace(b":%d" % figure, b":%d")
        return FRAME.replace(b"%b", form)

    def of(self, choice: answer.Choice, content: str, reasoning: str, logprobs: Sequence[Json]) -> shapes.Choice:
        """See `reply.Layout`."""
        calls: Sequence[shapes.ToolCall] = ()
        if made := choice.tool_calls():
            calls = [tool_call(position, call) for position, call in enumerate(made)]
        ended: Finish = UNFINISHED if choice.finish_reason is None else choice.finish_reason.word
        message = self.message(content, reasoning, calls)
        if self.call.logprobs:
            return self.choice(choice.index, message, ended, logprobs)
        return {"message": message, "index": choice.index, "finish_reason": ended}

    def reply(self, choices: list[shapes.Choice], used: dialogue.Usage) -> Answer:
        """See `reply.Layout`."""
        return {"output": {"choices": choices}, "usage": self.usage(used), "request_id": self.request_id}

    def error(self, fault: faults.Fault) -> bytes:
        """See `reply.Layout`."""
        return error(fault, self.request_id)


def tool_call(position: int, call: dialogue.ToolCall, *, first: bool = True) -> shapes.ToolCall:
    """One member of `tool_calls`; a later fragment has an empty id and no name (spec OUT-5, SSE-7)."""
    function: Function = {"arguments": call.arguments}
    if first:
        function = {"name": call.name, "arguments": call.arguments}
    return {"function": function, "id": call.id if first else "", "index": position, "type": "function"}


def error(fault: faults.Fault, request_id: str) -> bytes:
    """The body of an error, in this order: some clients know an error by its first key (spec ERR-1)."""
    failure: Failure = {"code": fault.code, "message": fault.message, "request_id": request_id}
    return orjson.dumps(failure)


class Frames:
    """Numbers frames and collects them until the pipe hands them on.

    number: of the newest packet
    """

    __slots__ = (
        "_cached",
        "_chain_forms",
        "_content_forms",
        "_forms",
        "_given",
        "_handed",
        "_image",
        "_out",
        "_said",
        "_shows_chain",
        "number",
        "shape",
    )

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self.number = 0
        # What the newest packet of each choice said: output and reasoning tokens.
        self._said: dict[int, Said] = {}
        self._out: list[bytes] = []
        self._forms: dict[int, bytes] = {}
        # The same with an empty text in place of the chain, or of the answer: what is new is never both.
        self._content_forms: dict[int, OneSided] = {}
        self._chain_forms: dict[int, OneSided] = {}
        # What the newest packet said of the prompt, and every form says.
        self._given = 0
        self._cached: int | None = None
        self._image = shape.tally.image
        self._shows_chain = shape.thinks and shape.tally.counts_chain
        self._handed: Told = (0, {}, 0, None, None)

    def text(
        self, choice: answer.Choice, texts: Iterable[Sides], said: Iterable[Said], finish: Finish = UNFINISHED
    ) -> None:
        """Packets of text, without log probabilities and calls; `finish` is of the last of them, where it is one."""
        shape, index = self.shape, choice.index
        tally = shape.tally
        given = tally.input
        if given != self._given or tally.cached != self._cached or tally.image != self._image:
            self._renew()
        form = self._forms.get(index) or self._form_of(index)
        if finish != UNFINISHED:
            form = form.replace(OPEN_END, b'"finish_reason":"%b"' % finish.encode())
        number = self.number
        for (content, reasoning), (made, chain) in zip(texts, said, strict=True):
            number += 1
            seen = made if chain > made else chain  # noqa: FURB136 - `min` is one call more for every delta
            if not shape.thinks:
                values: tuple[object, ...] = (number, content, made, given + made)
            elif not tally.counts_chain:
                values = (number, content, reasoning, made, given + made)
            elif shape.hybrid:
                values = (number, content, reasoning, made, given + made, seen, made - seen)
            else:
                values = (number, content, reasoning, made, given + made, seen)
            self._out.append(form % values)
        self.number = number
        self._said[index] = made, seen

    def splice(self, choice: answer.Choice, strings: Sequence[bytes], said: Run, is_chain: bool) -> None:
        """Packets of text of one side, as JSON strings: the hot path of bursts.

        They are filled in by columns, which takes half as long as one by one.
        """
        tally, index, number, several = self.shape.tally, choice.index, self.number, len(strings)
        made, chain = said
        given = tally.input
        if several < _COLUMNS_FROM or given + made[-1] >= _WRITTEN_MOST or number + several >= _WRITTEN_MOST:
            for string, one in zip(strings, zip(made, chain, strict=True), strict=True):
                self.splice_one(choice, string, one, is_chain)
            return
        if is_chain:
            self.show_reasoning()
        if given != self._given or tally.cached != self._cached or tally.image != self._image:
            self._renew()
        forms = self._chain_forms if is_chain else self._content_forms
        _, row, details = forms.get(index) or self._one_sided_form(index, is_chain=is_chain)
        if chain[-1] > made[0]:
            chain = [*map(min, chain, made)]
        step, parts = len(row), row * several
        parts[1::step] = _WRITTEN[number + 1 : number + 1 + several]
        parts[3::step] = strings
        parts[5::step] = [_WRITTEN[output] for output in made]
        parts[7::step] = [_WRITTEN[given + output] for output in made]
        if details:
            parts[9::step] = [_WRITTEN[seen] for seen in chain]
            if details > 1:
                parts[11::step] = [_WRITTEN[output - seen] for output, seen in zip(made, chain, strict=True)]
        self._out.append(b"".join(parts))
        self.number = number + several
        self._said[index] = made[-1], chain[-1]

    def splice_one(self, choice: answer.Choice, string: bytes, said: Said, is_chain: bool) -> None:
        """The same of one: the hot path of what leaves as it is generated."""
        if is_chain:
            self.show_reasoning()
        tally, index = self.shape.tally, choice.index
        given = tally.input
        if given != self._given or tally.cached != self._cached or tally.image != self._image:
            self._renew()
        forms = self._chain_forms if is_chain else self._content_forms
        form, _, details = forms.get(index) or self._one_sided_form(index, is_chain=is_chain)
        made, chain = said
        if chain > made:
            said = made, made
            chain = made
        self.number = number = self.number + 1
        if not details:
            self._out.append(form % (number, string, made, given + made))
        elif details > 1:
            self._out.append(form % (number, string, made, given + made, chain, made - chain))
        else:
            self._out.append(form % (number, string, made, given + made, chain))
        self._said[index] = said

    def packet(
        self,
        choice: answer.Choice,
        message: Message,
        logprobs: Sequence[Json] = (),
        finish: Finish = UNFINISHED,
    ) -> None:
        """Any other packet."""
        shape = self.shape
        shown = shape.choice(choice.index, message, finish, logprobs)
        used = shape.tally.of(choice.meter)
        if used.input != self._given or used.cached != self._cached or used.image != self._image:
            self._renew()
        packet = shape.whole([shown], shape.usage(used))
        self.number += 1
        self._said[choice.index] = (used.output, used.reasoning or 0)
        self._out.append(FRAME % (self.number, orjson.dumps(packet)))

    def error(self, fault: faults.Fault) -> bytes:
        """The frame that ends a stream that failed (spec SSE-3); it has a number, but it is no packet."""
        return ERROR_FRAME % (self.number + 1, fault.status, error(fault, self.shape.request_id))

    def is_behind(self, choice: answer.Choice) -> bool:
        """Whether more was generated of a choice than its newest packet said."""
        return choice.meter.output > self._said.get(choice.index, (0, 0))[0]

    def take(self) -> bytes:
        """Every frame since the last take: whole frames, one write."""
        out = self._out
        if not out:
            return b""
        self._out = []
        return b"".join(out)

    def whole(self, _: Sequence[answer.Choice], __: dialogue.Usage) -> bytes:
        """The last frames: each choice has had its finish, with its usage."""
        return self.take()

    def hand_over(self) -> None:
        """See `tongue.Writer`."""
        self._handed = self.number, self._said.copy(), self._given, self._cached, self._image

    def mark(self) -> Told:
        """See `tongue.Writer`."""
        return self.number, self._said.copy(), self._given, self._cached, self._image

    def hand_over_to(self, mark: Told) -> None:
        """See `tongue.Writer`."""
        self._handed = mark

    def handed(self) -> Handed:
        """See `tongue.Writer`."""
        packets, newest, given, cached, image = self._handed
        if not newest:
            return Handed(packets, None)
        made = chain = 0
        for output, reasoning in newest.values():
            made += output
            chain += reasoning
        figures = given, made, chain if self.shape.tally.counts_chain else None, cached, image
        return tuple.__new__(Handed, (packets, tuple.__new__(dialogue.Usage, figures)))

    def show_reasoning(self) -> None:
        """A chain came where none was expected: from now on packets carry it."""
        if not self._shows_chain:
            self._shows_chain = self.shape.thinks = True
            self._forget()

    def _renew(self) -> None:
        """Upstream has told another figure of the prompt: the forms that say the old one are gone."""
        tally = self.shape.tally
        self._given, self._cached, self._image = tally.input, tally.cached, tally.image
        self._forget()

    def _forget(self) -> None:
        self._forms.clear()
        self._content_forms.clear()
        self._chain_forms.clear()

    def _one_sided_form(self, index: int, *, is_chain: bool) -> OneSided:
        form = self._forms.get(index) or self._form_of(index)
        if self.shape.thinks:
            content, reasoning = (EMPTY, b"%b") if is_chain else (b"%b", EMPTY)
            before, between, behind = form.split(b"%b")
            form = before + content + between + reasoning + behind
        row = [part for constant in form.replace(b"%b", b"%d").split(b"%d") for part in (constant, b"")][:-1]
        details = 0 if not (self.shape.thinks and self.shape.tally.counts_chain) else 1 + self.shape.hybrid
        (self._chain_forms if is_chain else self._content_forms)[index] = made = form, row, details
        return made

    def _form_of(self, index: int) -> bytes:
        self._forms[index] = form = self.shape.form(index)
        return form


class Incremental:
    """Packets that carry what is new (`incremental_output: true`)."""

    kept_bytes = 0
    repeats = False
    __slots__ = ("frames", "logprobs", *FRAMING)

    # Every packet says usage.
    copier = None

    def __init__(self, frames: Frames) -> None:
        self.frames = frames
        self.take, self.whole, self.error = frames.take, frames.whole, frames.error
        self.hand_over, self.handed = frames.hand_over, frames.handed
        self.mark, self.hand_over_to = frames.mark, frames.hand_over_to
        self.logprobs = frames.shape.call.logprobs

    @property
    def splice(self) -> answer.Splice | None:
        """See `choice.Writer`."""
        return None if self.logprobs else self.frames.splice

    @property
    def splice_one(self) -> answer.SpliceOne | None:
        """See `choice.Writer`."""
        return None if self.logprobs else self.frames.splice_one

    def reasoning(self, choice: answer.Choice, texts: Sequence[str], said: Sequence[Said]) -> None:
        if self.logprobs:
            self.frames.show_reasoning()
            self.frames.packet(choice, self.frames.shape.message("", "".join(texts)))
        else:
            for text, one in zip(texts, said, strict=True):
                self.frames.splice_one(choice, orjson.dumps(text), one, True)

    def content(self, choice: answer.Choice, texts: Sequence[str], said: Sequence[Said]) -> None:
        if self.logprobs:
            text = "".join(texts)
            self.frames.packet(choice, self.frames.shape.message(text, ""), choice.entries_of(text))
        else:
            for text, one in zip(texts, said, strict=True):
                self.frames.splice_one(choice, orjson.dumps(text), one, False)

    def fragment(self, choice: answer.Choice, position: int, call: dialogue.ToolCall, *, first: bool) -> None:
        fragment = tool_call(position, call, first=first)
        self.frames.packet(choice, self.frames.shape.message("", "", [fragment]))

    def progress(self, choice: answer.Choice) -> None:
        if self.frames.is_behind(choice):
            self.frames.packet(choice, self.frames.shape.message("", ""))

    def finish(self, choice: answer.Choice) -> None:
        if self.logprobs:
            message = self.frames.shape.message(choice.tail, "")
            self.frames.packet(choice, message, choice.entries_of(choice.tail), finish_of(choice))
        else:
            self.frames.text(choice, (self.sides(choice.tail),), (choice.meter.said,), finish_of(choice))

    def sides(self, content: str) -> Sides:
        """The two texts of a packet of the answer."""
        return orjson.dumps(content), EMPTY


class Cumulative:
    """Packets that carry everything so far (the default); tool calls are held until whole and shown once, at the end.

    A snapshot that grows from one call to two, or lacks a name, breaks ChatTongyi. Log probabilities alone are what is
    new, and all of them in the last packet: repeated in each, 1,500 tokens of them were 390 MB.
    """

    repeats = True
    __slots__ = ("_content", "_reasoning", "_said", "frames", "kept_bytes", "logprobs", *FRAMING)

    copier = None

    def __init__(self, frames: Frames) -> None:
        self.frames = frames
        self.take, self.whole, self.error = frames.take, frames.whole, frames.error
        self.hand_over, self.handed = frames.hand_over, frames.handed
        self.mark, self.hand_over_to = frames.mark, frames.hand_over_to
        self.logprobs = frames.shape.call.logprobs
        self.kept_bytes = 0
        # Per choice: the text so far as the inside of a JSON string, appended to and never encoded again.
        self._content: dict[int, bytes] = {}
        self._reasoning: dict[int, bytes] = {}
        self._said: dict[int, list[Json]] = {}

    @property
    def splice(self) -> answer.Splice | None:
        """See `choice.Writer`."""
        return None if self.logprobs else self._splice

    @property
    def splice_one(self) -> answer.SpliceOne | None:
        """See `choice.Writer`."""
        return None if self.logprobs else self._splice_one

    def _splice(self, choice: answer.Choice, strings: Sequence[bytes], said: Run, is_chain: bool) -> None:
        for string, output, chain in zip(strings, *said, strict=True):
            self._splice_one(choice, string, (output, chain), is_chain)

    def _splice_one(self, choice: answer.Choice, string: bytes, said: Said, is_chain: bool) -> None:
        if is_chain:
            self.frames.show_reasoning()
        self._grow(self._reasoning if is_chain else self._content, choice.index, string)
        self._text(choice, said)

    def reasoning(self, choice: answer.Choice, texts: Sequence[str], said: Sequence[Said]) -> None:
        self.frames.show_reasoning()
        for text, one in zip(texts, said, strict=True):
            self._grow(self._reasoning, choice.index, orjson.dumps(text))
            self._text(choice, one)

    def content(self, choice: answer.Choice, texts: Sequence[str], said: Sequence[Said]) -> None:
        for text, one in zip(texts, said, strict=True):
            self._grow(self._content, choice.index, orjson.dumps(text))
            self._text(choice, one, self._entries_of(choice, text) if self.logprobs else ())

    def fragment(self, choice: answer.Choice, position: int, call: dialogue.ToolCall, *, first: bool) -> None:
        """Held: `finish` shows the calls."""

    def progress(self, choice: answer.Choice) -> None:
        if self.frames.is_behind(choice):
            self._text(choice, choice.meter.said)

    def finish(self, choice: answer.Choice) -> None:
        self._grow(self._content, choice.index, orjson.dumps(choice.tail))
        self._entries_of(choice, choice.tail)
        calls = [tool_call(position, call) for position, call in enumerate(choice.tool_calls())]
        self._packet(choice, calls, finish_of(choice), self._said[choice.index])

    def _entries_of(self, choice: answer.Choice, text: str) -> list[Json]:
        entries = choice.entries_of(text)
        self._said.setdefault(choice.index, []).extend(entries)
        self.kept_bytes += len(entries) * ENTRY_BYTES
        return entries

    def _grow(self, texts: dict[int, bytes], index: int, string: bytes) -> None:
        piece = string[1:-1]
        texts[index] = texts.get(index, b"") + piece
        self.kept_bytes += len(piece)

    def _text(self, choice: answer.Choice, said: Said, entries: Sequence[Json] = ()) -> None:
        if self.logprobs:
            self._packet(choice, [], UNFINISHED, entries)
        else:
            content = self._content.get(choice.index, b"")
            reasoning = self._reasoning.get(choice.index, b"")
            self.frames.text(choice, (self.sides(content, reasoning),), (said,))

    def sides(self, content: bytes, reasoning: bytes) -> Sides:
        """Both texts so far, the insides of JSON strings, as a packet says them."""
        return b'"%b"' % content, b'"%b"' % reasoning

    def _packet(
        self, choice: answer.Choice, calls: Sequence[shapes.ToolCall], finish: Finish, entries: Sequence[Json]
    ) -> None:
        sides = self.sides(self._content.get(choice.index, b""), self._reasoning.get(choice.index, b""))
        content, reasoning = map(orjson.Fragment, sides)
        self.frames.packet(choice, self.frames.shape.message(content, reasoning, calls), entries, finish)


def finish_of(choice: answer.Choice) -> Finish:
    """The word a choice ended with."""
    return UNFINISHED if choice.finish_reason is None else choice.finish_reason.word
