"""What a choice says into chunks of the compatible surface, each one whole SSE event; and the layout of a completion.

A plain text chunk is the hot path: all of it but the text is the same for one side of one choice, made once a stream,
and the text is laid between, as upstream wrote it (`copy`). Usage is told at the end alone, and only where it is asked
for: clients add up all they see; so that text is counted behind the stream. Source: spec COM-12 to COM-23, COM-34.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import orjson

from translators import choice as answer
from translators import dialogue, faults
from translators.compatible import shapes
from translators.compatible.call import Form
from translators.compatible.failures import failure
from translators.compatible.shapes import Chunk, Completion, Delta
from translators.dialogue import Call, Json
from translators.tongue import Handed
from translators.usage import BETWEEN, Meter, Place, Said, Tally

# One space: as recorded, and as every client of the OpenAI protocol has seen it.
FRAME: Final = b"data: %b\n\n"
DONE: Final = b"data: [DONE]\n\n"
NULL: Final = b"null"
# Between the choices of a chunk and its usage.
BEHIND_CHOICES: Final = b',"object":"chat.completion.chunk","usage":'
CHUNK: Final = b'data: {"choices":%b' + BEHIND_CHOICES + b"%b%b\n\n"

# Stands for the text in a chunk that is made once; no name or id of ours can hold it.
MARK: Final = "\0text"

CONTENT: Final = "content"
REASONING: Final = "reasoning_content"
# What stands beside a text, by whether the call thinks and which side it is of; a null is the side that is silent.
DELTAS: Final[Mapping[tuple[bool, str], Delta]] = {
    (False, CONTENT): {"content": MARK},
    (True, CONTENT): {"content": MARK, "reasoning_content": None},
    (True, REASONING): {"content": None, "reasoning_content": MARK},
}
FIRST: Final[Mapping[bool, Delta]] = {
    False: {"content": "", "role": "assistant"},
    True: {"content": None, "role": "assistant", "reasoning_content": ""},
}
LAST: Final[Mapping[bool, Delta]] = {False: {"content": ""}, True: {"content": "", "reasoning_content": None}}

# Of the newest chunk of a choice: the prompt, and what is said of the answer: as it is, as it will be counted, or by
# the meter, which knows of the last that was passed by.
Newest = tuple[int, Said | Place | Meter]
# What stands before a text, between two, and behind.
Around = tuple[bytes, bytes, bytes]
# How many chunks; what each choice's newest said, or would have; of the cache; of all.
Told = tuple[int, Mapping[int, Newest], int | None, dialogue.Usage | None]


class Layout:
    """What the chunks and the completion of one call have in common.

    thinks: whether messages carry `reasoning_content`: where the call thinks, or once a chain was seen all the same
    form:   how the call wants its answer
    """

    __slots__ = ("_behind", "_created_s", "_id", "call", "form", "request_id", "tally", "thinks")

    def __init__(self, call: Call, tally: Tally, request_id: str, created_s: int) -> None:
        self._created_s = created_s
        self._id = f"chatcmpl-{request_id}"
        # What stands behind the usage of every chunk, once there is one.
        self._behind = b""
        self.call = call
        self.form: Form = call.form
        self.request_id = request_id
        self.tally = tally
        self.thinks = call.thinking

    def usage(self, used: dialogue.Usage) -> shapes.Usage:
        """The `usage` object (spec COM-14)."""
        shown: shapes.Usage = {
            "prompt_tokens": used.input,
            "completion_tokens": used.output,
            "total_tokens": used.total,
        }
        if used.reasoning is not None:
            shown["completion_tokens_details"] = {"reasoning_tokens": used.reasoning}
        if used.cached is not None:
            shown["prompt_tokens_details"] = {"cached_tokens": used.cached}
        return shown

    def chunk(self, choices: list[shapes.ChunkChoice], usage: shapes.Usage | None) -> bytes:
        """One event (spec COM-15, COM-16): what changes is serialised, the rest once a stream."""
        behind = self._behind
        if not behind:
            rest: Chunk = {
                "choices": [],
                "object": "chat.completion.chunk",
                "usage": None,
                "created": self._created_s,
                "system_fingerprint": None,
                "model": self.form.model,
                "id": self._id,
            }
            # The name of a model comes behind them, and can say what it likes.
            _, _, behind = orjson.dumps(rest).partition(BEHIND_CHOICES + NULL)
            self._behind = behind
        told = NULL if usage is None else orjson.dumps(usage)
        return CHUNK % (orjson.dumps(choices), told, behind)

    def of(self, choice: answer.Choice, content: str, reasoning: str, logprobs: Sequence[Json]) -> shapes.Choice:
        """See `reply.Layout`."""
        message: shapes.Message
        if self.thinks:
            message = {"content": content, "reasoning_content": reasoning, "role": "assistant"}
        else:
            message = {"content": content, "role": "assistant"}
        if calls := choice.tool_calls():
            message["tool_calls"] = [_whole_call(position, call) for position, call in enumerate(calls)]
        return {
            "message": message,
            "finish_reason": _finish(choice),
            "index": choice.index,
            "logprobs": {"content": list(logprobs)} if self.call.logprobs else None,
        }

    def reply(self, choices: list[shapes.Choice], used: dialogue.Usage) -> Completion:
        """See `reply.Layout`."""
        return {
            "choices": choices,
            "object": "chat.completion",
            "usage": self.usage(used),
            "created": self._created_s,
            "system_fingerprint": None,
            "model": self.form.model,
            "id": self._id,
        }

    def error(self, fault: faults.Fault) -> bytes:
        """See `reply.Layout`."""
        return failure(fault, self.request_id)


class Chunks:
    """Lays out a stream and collects its events until the pipe hands them on."""

    kept_bytes = 0
    repeats = False
    # Where a chunk tells usage it is laid out whole.
    splice = splice_one = None
    __slots__ = (
        "_begun",
        "_cached",
        "_forms",
        "_handed",
        "_layout",
        "_made",
        "_out",
        "_owing",
        "_running",
        "_said",
        "_used",
    )

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._running = layout.form.running_usage
        self._out: list[bytes] = []
        self._made = 0
        # Choices that have had their first chunk; what stands before and behind a text of a choice and a side.
        self._begun: set[int] = set()
        self._forms: dict[tuple[int, str], Around] = {}
        # What the newest chunk of each choice said, or would have said; never changed, but replaced.
        self._said: Mapping[int, Newest] = {}
        self._cached: int | None = None
        # Of the whole answer, once it is over.
        self._used: dialogue.Usage | None = None
        self._handed: Told = (0, {}, None, None)
        # What owes pieces.
        self._owing: list[Meter] = []

    def reasoning(self, choice: answer.Choice, texts: Sequence[str], said: Sequence[Said]) -> None:
        self._show_reasoning()
        self._text(choice, REASONING, texts, said)

    def content(self, choice: answer.Choice, texts: Sequence[str], said: Sequence[Said]) -> None:
        if self._layout.call.logprobs:
            self._spell(choice, "".join(texts))
        else:
            self._text(choice, CONTENT, texts, said)

    def fragment(self, choice: answer.Choice, position: int, call: dialogue.ToolCall, *, first: bool) -> None:
        piece = _first_piece(position, call) if first else _later_piece(position, call)
        self._chunk(choice, {"content": None, "tool_calls": [piece]})

    def progress(self, choice: answer.Choice) -> None:
        """Usage alone, where every chunk tells it: no other chunk has anything to say (spec COM-18, COM-22)."""
        if self._running:
            self._chunk(choice, LAST[self._layout.thinks])

    def finish(self, choice: answer.Choice) -> None:
        # Text that came with the end leaves before it (spec COM-20).
        if choice.tail:
            self._spell(choice, choice.tail)
        last = LAST[self._layout.thinks]
        self._chunk(choice, last, entries=choice.entries_of(""), finish=_finish(choice))

    @property
    def copier(self) -> answer.Copier | None:
        """See `choice.Writer`; usage on every chunk, and log probabilities beside their text, need each text."""
        return None if self._running or self._layout.call.logprobs else self._copier

    def take(self) -> bytes:
        """Every event since the last take: whole events, one write."""
        out = self._out
        if not out:
            return b""
        self._out = []
        return b"".join(out)

    def whole(self, _: Sequence[answer.Choice], used: dialogue.Usage) -> bytes:
        """The last events: usage where it is asked for, and the word that the answer is whole (spec COM-15, COM-21)."""
        self._used = used
        if self._layout.form.usage:
            self._made += 1
            self._out.append(self._layout.chunk([], self._layout.usage(used)))
        self._out.append(DONE)
        return self.take()

    def error(self, fault: faults.Fault) -> bytes:
        """The event that ends a stream that failed; nothing says that it is whole (spec COM-26)."""
        return FRAME % self._layout.error(fault)

    def hand_over(self) -> None:
        """See `tongue.Writer`."""
        self._handed = self._made, self._said, self._cached, self._used
        for meter in self._owing:
            meter.pass_by()

    def mark(self) -> Told:
        """See `tongue.Writer`."""
        said = {
            index: (given, newest.place() if isinstance(newest, Meter) else newest)
            for index, (given, newest) in self._said.items()
        }
        return self._made, said, self._cached, self._used

    def hand_over_to(self, mark: Told) -> None:
        """See `tongue.Writer`."""
        self._handed = mark

    def handed(self) -> Handed:
        """See `tongue.Writer`; what a usage chunk behind the last event would have said, asked for or not (COM-31)."""
        made, said, cached, used = self._handed
        if used is not None or not said:
            return Handed(made, used)
        return Handed(made, self._sum(said, cached))

    def _show_reasoning(self) -> None:
        """A chain came where none was expected: from now on chunks have a side for it."""
        if not self._layout.thinks:
            self._layout.thinks = True
            self._forms.clear()

    def _copier(self, choice: answer.Choice, is_chain: bool) -> answer.Copy:
        """The hot path: what takes chunks of text as upstream wrote it, in JSON strings.

        What is copied is like a chunk that came before: the choice has begun, and a chain has a side. All that is the
        same for each is looked up once: of a chunk that comes alone it would be a third of what it costs here.
        """
        index, tally, meter = choice.index, self._layout.tally, choice.meter
        side = REASONING if is_chain else CONTENT
        before, between, behind = self._forms.get((index, side)) or self._form_of(index, side)
        owe = meter.owing(is_chain=is_chain).extend
        self._said = {**self._said, index: (tally.input, meter)}
        self._cached = tally.cached
        if meter not in self._owing:
            self._owing.append(meter)

        def copy(strings: Sequence[bytes], lines: bytes) -> None:
            self._out += (before, between.join(strings), behind)
            self._made += len(strings)
            owe(lines)
            owe(BETWEEN)

        return copy

    def _text(self, choice: answer.Choice, side: str, texts: Sequence[str], said: Sequence[Said]) -> None:
        """Chunks of text."""
        tally, index = self._layout.tally, choice.index
        if index not in self._begun:
            self._begin(choice)
        if self._running:
            self._counted(choice, side, texts, said)
            return
        before, _, behind = self._forms.get((index, side)) or self._form_of(index, side)
        out = self._out
        for text in texts:
            out += (before, orjson.dumps(text), behind)
        self._made += len(texts)
        made, chain = said[-1]
        self._said = {**self._said, index: (tally.input, (made, min(chain, made)))}
        self._cached = tally.cached

    def _counted(self, choice: answer.Choice, side: str, texts: Sequence[str], said: Sequence[Said]) -> None:
        """Chunks of text that each say the usage so far (spec COM-22)."""
        tally = self._layout.tally
        for text, (made, chain) in zip(texts, said, strict=True):
            self._said = {**self._said, choice.index: (tally.input, (made, min(chain, made)))}
            self._cached = tally.cached
            self._add(choice.index, self._delta(side, text))

    def _spell(self, choice: answer.Choice, text: str) -> None:
        """A chunk of text with what is known of its tokens."""
        self._chunk(choice, self._delta(CONTENT, text), entries=choice.entries_of(text))

    def _chunk(
        self,
        choice: answer.Choice,
        delta: Delta,
        entries: Sequence[Json] = (),
        finish: shapes.Finish | None = None,
    ) -> None:
        """Any other chunk of a choice."""
        if choice.index not in self._begun:
            self._begin(choice)
        tally = self._layout.tally
        used = tally.of(choice.meter)
        self._said = {**self._said, choice.index: (used.input, (used.output, used.reasoning or 0))}
        self._cached = used.cached
        self._add(choice.index, delta, entries, finish)

    def _begin(self, choice: answer.Choice) -> None:
        """The chunk of its own a choice begins with (spec COM-17)."""
        self._begun.add(choice.index)
        self._cached = self._layout.tally.cached
        self._add(choice.index, FIRST[self._layout.thinks])

    def _add(self, index: int, delta: Delta, entries: Sequence[Json] = (), finish: shapes.Finish | None = None) -> None:
        shown: shapes.ChunkChoice = {
            "delta": delta,
            "finish_reason": finish,
            "index": index,
            "logprobs": {"content": list(entries)} if entries and self._layout.call.logprobs else None,
        }
        usage = None
        if self._running:
            usage = self._layout.usage(self._sum(self._said, self._cached))
        self._made += 1
        self._out.append(self._layout.chunk([shown], usage))

    def _sum(self, newest: Mapping[int, Newest], cached: int | None) -> dialogue.Usage:
        tally = self._layout.tally
        prompt = max((given for given, _ in newest.values()), default=tally.input)
        said = [*map(_figures, newest.values())]
        chain = sum(min(one[1], one[0]) for one in said) if tally.counts_chain else None
        return dialogue.Usage(prompt, sum(one[0] for one in said), chain, cached, tally.image)

    def _delta(self, side: str, text: str) -> Delta:
        delta: Any = {**DELTAS[self._layout.thinks, side], side: text}
        shown: Delta = delta
        return shown

    def _form_of(self, index: int, side: str) -> Around:
        """A chunk of this side of a choice, made once: what stands before a text, between two, and behind."""
        shown: shapes.ChunkChoice = {
            "delta": DELTAS[self._layout.thinks, side],
            "finish_reason": None,
            "index": index,
            "logprobs": None,
        }
        before, behind = self._layout.chunk([shown], None).split(orjson.dumps(MARK))
        self._forms[index, side] = form = before, behind + before, behind
        return form


def _figures(newest: Newest) -> Said:
    """What the newest chunk of a choice said, or would have said, of the answer."""
    _, here = newest
    if isinstance(here, Meter):
        return here.passed
    return here.said if isinstance(here, Place) else here


def _finish(choice: answer.Choice) -> Any:
    """The word a choice ended with; None until it has."""
    return None if choice.finish_reason is None else choice.finish_reason.word


def _whole_call(position: int, call: dialogue.ToolCall) -> shapes.ToolCall:
    return {
        "function": {"arguments": call.arguments, "name": call.name},
        "id": call.id,
        "index": position,
        "type": "function",
    }


def _first_piece(position: int, call: dialogue.ToolCall) -> Any:
    """The first fragment of a call (spec COM-19)."""
    function = {"name": call.name, "arguments": call.arguments}
    return {"index": position, "id": call.id, "type": "function", "function": function}


def _later_piece(position: int, call: dialogue.ToolCall) -> Any:
    """A later one. An empty id: clients join all they get of it."""
    return {"index": position, "id": "", "type": "function", "function": {"arguments": call.arguments}}
