"""The multimodal path's answers: those of the text path with `content` as a list of parts, and images in the usage.

The names are those of `translators.tongue`; what is not here is DashScope's on both paths. Of the packets an empty
`content` is an empty list, as recorded; of a reply it is one part with an empty text, which clients read unasked.
Source: spec HTTP-3, OUT-1; SOURCES#multimodal-path.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import orjson

from translators import choice as answer
from translators import dialogue
from translators.catalogue import Catalogue
from translators.collected import Collected
from translators.dashscope import call as calls
from translators.dashscope import shapes
from translators.dashscope.packets import CONTENT_MARK, EMPTY, Cumulative, Frames, Incremental, Shape, Sides
from translators.dashscope.packets import error as failure
from translators.dashscope.shapes import Message
from translators.dashscope.tongue import API, failure_headers, read, wants_stream
from translators.dialogue import Call, Json
from translators.service import HEARTBEAT, STREAM_HEADERS, check
from translators.tongue import Writer
from translators.usage import Said, Tally

__all__ = (
    "API",
    "HEARTBEAT",
    "STREAM_HEADERS",
    "check",
    "failure",
    "failure_headers",
    "read",
    "translate",
    "wants_stream",
    "writer",
)

# A side of a packet that says nothing, and one that says this JSON string.
NOTHING = b"[]"
ONE_PART = b'[{"text":%b}]'


def translate(
    document: Json,
    catalogue: Catalogue,
    *,
    stream: bool,
    decode: Callable[[Sequence[int]], bytes],
    path_model: str | None = None,
    strict_thinking: bool | None = None,
) -> Call:
    """The call a document makes by this path; see `tongue.Tongue.translate`."""
    return calls.translate(
        document,
        catalogue,
        stream=stream,
        decode=decode,
        path_model=path_model,
        strict_thinking=strict_thinking,
        path="multimodal",
    )


def writer(call: Call, tally: Tally, *, request_id: str, at_s: float) -> Writer:  # noqa: ARG001 - no packet says a time
    """Packets of what is new, packets of all so far, or one reply: as the call asks."""
    shape = PartsShape(call, tally, request_id)
    if not call.stream:
        return Collected(shape)
    return IncrementalParts(Frames(shape)) if call.incremental else CumulativeParts(Frames(shape))


class PartsShape(Shape):
    """What packets and reply have in common here."""

    __slots__ = ()

    def message(self, content: Any, reasoning: Any, calls: Sequence[shapes.ToolCall] = ()) -> Message:
        """See `Shape.message`; a mark stands for the whole list, a fragment is one (`CumulativeParts.sides`)."""
        if isinstance(content, str) and content is not CONTENT_MARK:
            content = [{"text": content}] if content else []
        return super().message(content, reasoning, calls)

    def usage(self, used: dialogue.Usage) -> shapes.Usage:
        """See `Shape.usage`; here the input has its parts as well."""
        shown = super().usage(used)
        image = used.image or 0
        shown["input_tokens_details"] = {"text_tokens": max(0, used.input - image)}
        if image:
            shown["input_tokens_details"]["image_tokens"] = shown["image_tokens"] = image
        return shown

    def form(self, index: int) -> bytes:
        """See `Shape.form`; the parts of the input follow the prompt, so that no two streams have one."""
        return self.marked(index, self.tally.input, self.tally.cached, self.request_id)

    def of(self, choice: answer.Choice, content: str, reasoning: str, logprobs: Sequence[Json]) -> shapes.Choice:
        """See `collected.Layout`."""
        made = super().of(choice, content, reasoning, logprobs)
        made["message"]["content"] = [{"text": content}]
        return made


class IncrementalParts(Incremental):
    """Packets that carry what is new."""

    __slots__ = ()
    # A text is a part of a list here.
    splice = splice_one = None

    def reasoning(self, choice: answer.Choice, texts: Sequence[str], said: Sequence[Said]) -> None:
        if self.logprobs:
            super().reasoning(choice, texts, said)
            return
        self.frames.show_reasoning()
        self.frames.text(choice, [(NOTHING, orjson.dumps(text)) for text in texts], said)

    def content(self, choice: answer.Choice, texts: Sequence[str], said: Sequence[Said]) -> None:
        if self.logprobs:
            super().content(choice, texts, said)
        else:
            self.frames.text(choice, map(self.sides, texts), said)

    def sides(self, content: str) -> Sides:
        """See `Incremental.sides`."""
        return (ONE_PART % orjson.dumps(content) if content else NOTHING, EMPTY)


class CumulativeParts(Cumulative):
    """Packets that carry everything so far."""

    __slots__ = ()

    def sides(self, content: bytes, reasoning: bytes) -> Sides:
        """See `Cumulative.sides`."""
        return (ONE_PART % (b'"%b"' % content) if content else NOTHING, b'"%b"' % reasoning)
