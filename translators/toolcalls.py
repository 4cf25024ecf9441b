"""Fragments of tool calls, merged into whole calls whatever order, index or gaps they come with (spec SSE-7).

Servers differ: a first fragment without arguments (vLLM), later ones without id, type and name (DeepSeek) or with empty
and null ones (Bailian's compatible mode, Azure), a whole call in one delta, an index that changes between head and tail
of one call (deepseek-v4-flash, seen in the field).
"""

from __future__ import annotations

import orjson

from translators.deepseek.call_counter import CallCounter, constant
from translators.deepseek.markup import Markup
from translators.deepseek.templates import LAYOUTS
from translators.dialogue import Json, ToolCall
from translators.tokens import Vocabulary


class Draft:
    """One call as it grows.

    arguments: JSON text so far, in pieces
    shown:     how many pieces the caller has seen; -1 before it has seen the call at all
    closed:    whole, and the caller has seen that: what may still come is blanks
    counter:   what the model has written of it, in tokens
    """

    __slots__ = ("_whole", "arguments", "closed", "counter", "id", "name", "shown")

    def __init__(self, vocabulary: Vocabulary, markup: Markup = LAYOUTS["v4"].calls) -> None:
        self.id = ""
        self.name = ""
        self.arguments: list[str] = []
        self.shown = -1
        self.closed = False
        self.counter = CallCounter(markup, vocabulary)
        self._whole = False

    def add(self, call_id: str, name: str, arguments: str) -> None:
        """Take one fragment; an id or name that is already known is a repetition, not a continuation."""
        if self.shown < 0:
            self.id = self.id or call_id
        if name and not self.name:
            self.name = name
            self.counter.name(name)
        if arguments and not self.closed:
            self.arguments.append(arguments)
            self.counter.add(arguments)
            self._whole = False

    @property
    def text(self) -> str:
        """The arguments so far."""
        return "".join(self.arguments)

    def is_whole(self) -> bool:
        """Whether the arguments are a complete JSON object: nothing can follow."""
        # Parsed once per piece, and only where a piece can be the last: arguments may be long, their pieces short.
        if not self._whole and self.arguments and self.arguments[-1].rstrip()[-1:] in ("}", ""):
            self._whole = _object(self.text) is not None
        return self._whole


class Drafts:
    """The calls of one choice, in the order they were begun.

    lead:   the text that opens the calls, which may share a token with the answer before it; empty where there is none
    tokens: all tool markup so far beyond that, in tokens
    """

    __slots__ = ("_by_id", "_by_index", "_fallback_id", "_markup", "_opened", "_vocabulary", "drafts", "lead", "tokens")

    def __init__(
        self,
        vocabulary: Vocabulary,
        fallback_id: str,
        markup: Markup = LAYOUTS["v4"].calls,
        *,
        opened: bool = False,
    ) -> None:
        """Begin with no call; `opened` where the prompt holds what opens them (a forced `tool_choice`)."""
        self.drafts: list[Draft] = []
        self._by_index: dict[int, Draft] = {}
        self._by_id: dict[str, Draft] = {}
        self._fallback_id = fallback_id
        self._markup = markup
        self._opened = opened
        self._vocabulary = vocabulary
        self.lead = ""
        self.tokens = 0

    def add(self, index: int | None, call_id: str, name: str, arguments: str) -> None:
        """Take one fragment as upstream sent it; missing fields are empty, a missing index is None."""
        draft = self._find(index, call_id, name)
        if draft is None or ((call_id or name) and arguments.strip() and draft.is_whole()):
            # Some servers give every call the same index, or its function's name for an id.
            draft = self._begin()
        if index is not None:
            self._by_index[index] = draft
        if call_id:
            self._by_id[call_id] = draft
        before = draft.counter.total
        draft.add(call_id, name, arguments)
        self.tokens += draft.counter.total - before

    def end(self) -> None:
        """The model has ended by itself: every call is over, and so is their block."""
        for draft in self.drafts:
            before = draft.counter.total
            draft.counter.end()
            self.tokens += draft.counter.total - before
        self.tokens += constant(self._markup.close, self._vocabulary)

    def whole(self) -> tuple[ToolCall, ...]:
        """Every call as it stands."""
        return tuple(
            ToolCall(self.id_of(position), draft.name, draft.text) for position, draft in enumerate(self.drafts)
        )

    def id_of(self, position: int) -> str:
        """The call's id, or one made for it where upstream gave none: callers pair results by it."""
        return self.drafts[position].id or f"{self._fallback_id}_{position}"

    def _find(self, index: int | None, call_id: str, name: str) -> Draft | None:
        if call_id and call_id in self._by_id:
            return self._by_id[call_id]
        known = None if index is None else self._by_index.get(index)
        begins = bool(call_id or name)
        if known is not None:
            renamed = bool(name and known.name and known.name != name and known.arguments)
            taken = bool(call_id and known.id) or renamed
            return None if taken else known
        # The tail of a call under a new index belongs to the call begun last.
        return None if begins or not self.drafts else self.drafts[-1]

    def _begin(self) -> Draft:
        if self.drafts:
            self.tokens += constant(self._markup.between, self._vocabulary)
        elif not self._opened:
            first, *others = self._markup.opening
            self.lead = first if isinstance(first, str) else ""
            self.tokens += constant(others if self.lead else self._markup.opening, self._vocabulary)
        draft = Draft(self._vocabulary, self._markup)
        self.tokens += draft.counter.total
        self.drafts.append(draft)
        return draft


def _object(text: str) -> Json | None:
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    return found if isinstance(found, dict) else None
