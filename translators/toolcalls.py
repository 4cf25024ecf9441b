"""Fragments of tool calls, merged into whole calls whatever order, index or gaps they come with (spec SSE-7).

Servers differ: a first fragment without arguments (vLLM), later ones without id, type and name (DeepSeek) or with empty
and null ones (Bailian's compatible mode, Azure), a whole call in one delta, an index that changes between head and tail
of one call (deepseek-v4-flash, seen in the field).
"""

from __future__ import annotations

from typing import Final

import orjson

from translators import tokens
from translators.dialogue import Json, ToolCall
from translators.tokens import Counter, Vocabulary

# What the model writes around names, keys and values, in tokens (measured on recorded answers, tokenizer.md §4.3).
FIRST_CALL: Final = 25
NEXT_CALL: Final = 12
ARGUMENT: Final = 14


class Draft:
    """One call as it grows.

    arguments: JSON text so far, in pieces
    shown:     how many pieces the caller has seen; -1 before it has seen the call at all
    closed:    whole, and the caller has seen that: what may still come is blanks
    """

    __slots__ = ("_counter", "_name_tokens", "_vocabulary", "_whole", "arguments", "closed", "id", "name", "shown")

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.id = ""
        self.name = ""
        self.arguments: list[str] = []
        self.shown = -1
        self.closed = False
        self._whole = False
        self._name_tokens = 0
        self._vocabulary = vocabulary
        self._counter = Counter(vocabulary)

    def add(self, call_id: str, name: str, arguments: str) -> None:
        """Take one fragment; an id or name that is already known is a repetition, not a continuation."""
        if self.shown < 0:
            self.id = self.id or call_id
        if name and not self.name:
            self.name = name
            self._name_tokens = tokens.count(name, self._vocabulary)
        if arguments and not self.closed:
            self.arguments.append(arguments)
            self._counter.add(arguments)
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

    def tokens(self) -> int:
        """Tokens of this call so far; its raw JSON stands in for keys and values until they can be told apart."""
        return self._name_tokens + self._counter.total

    def tokens_whole(self) -> int:
        """Tokens of this call as the model wrote it: name, keys, values, and the markup of each argument."""
        arguments = _object(self.text)
        if arguments is None:
            return self.tokens()
        words = list(arguments)
        words += [value if isinstance(value, str) else orjson.dumps(value).decode() for value in arguments.values()]
        count = sum(tokens.count(word, self._vocabulary) for word in words)
        return self._name_tokens + ARGUMENT * len(arguments) + count


class Drafts:
    """The calls of one choice, in the order they were begun."""

    __slots__ = ("_by_id", "_by_index", "_fallback_id", "_vocabulary", "drafts")

    def __init__(self, vocabulary: Vocabulary, fallback_id: str) -> None:
        self.drafts: list[Draft] = []
        self._by_index: dict[int, Draft] = {}
        self._by_id: dict[str, Draft] = {}
        self._fallback_id = fallback_id
        self._vocabulary = vocabulary

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
        draft.add(call_id, name, arguments)

    def whole(self) -> tuple[ToolCall, ...]:
        """Every call as it stands."""
        return tuple(
            ToolCall(self.id_of(position), draft.name, draft.text) for position, draft in enumerate(self.drafts)
        )

    def id_of(self, position: int) -> str:
        """The call's id, or one made for it where upstream gave none: callers pair results by it."""
        return self.drafts[position].id or f"{self._fallback_id}_{position}"

    def tokens(self) -> int:
        """Tokens of all tool markup so far."""
        return self._frame() + sum(draft.tokens() for draft in self.drafts)

    def tokens_whole(self) -> int:
        """Tokens of all tool markup once every call has ended."""
        return self._frame() + sum(draft.tokens_whole() for draft in self.drafts)

    def _frame(self) -> int:
        return FIRST_CALL + NEXT_CALL * (len(self.drafts) - 1)

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
        draft = Draft(self._vocabulary)
        self.drafts.append(draft)
        return draft


def _object(text: str) -> Json | None:
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    return found if isinstance(found, dict) else None
