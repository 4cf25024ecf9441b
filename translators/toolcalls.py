"""Fragments of tool calls, merged into whole calls whatever order, index or gaps they come with (spec SSE-7).

Servers differ: a first fragment without arguments (vLLM), later ones without id, type and name (DeepSeek) or with empty
and null ones (Bailian's compatible mode, Azure), a whole call in one delta, an index that changes between head and tail
of one call (deepseek-v4-flash, seen in the field).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

import orjson

from translators import faults, surrogates
from translators.deepseek.markup import Markup
from translators.deepseek.templates import LAYOUTS
from translators.deepseek.tool_call_tokens import CallCounter, constant
from translators.dialogue import ToolCall
from translators.tokens import Vocabulary

# More calls than these in one answer are a server gone wrong; callers' own turns have the same bound.
MOST_CALLS: Final = 1_024
# A name is a word, and its pieces are put together again at every piece.
LONGEST_NAME: Final = 1_024
# Characters of all arguments together: as many as one event may have bytes.
MOST_CHARS: Final = 16 << 20
# What opens or closes something, and what can end a string or hide that it does not.
_STRUCTURE: Final = re.compile(r'["{}\[\]]')
_IN_STRING: Final = re.compile(r'["\\]')
# Arguments that may still turn out to be none, any number of them: nothing is shown. Blanks mean nothing there.
_NOTHING: Final = re.compile(r"(?:\{\}|null)*(?:\{|n|nu|nul)?")
_LONGEST_NOTHING: Final = 64
# The same before the object that was meant.
_PLACEHOLDERS: Final = re.compile(r"(?:\s*(?:\{\s*\}|null))+(?=\s*\{)")


class Draft:
    """One call as it grows.

    arguments: JSON text so far, in pieces; no more of them once it is an object
    shown:     how many pieces the caller has seen; -1 before it has seen the call at all
    counter:   what the model has written of it, in tokens
    """

    __slots__ = (
        "_end",
        "_half",
        "_markup",
        "_start",
        "_vocabulary",
        "_whole",
        "arguments",
        "counter",
        "id",
        "name",
        "shown",
    )

    def __init__(self, vocabulary: Vocabulary, markup: Markup = LAYOUTS["v4"].calls) -> None:
        self.id = ""
        self.name = ""
        self.arguments: list[str] = []
        self.shown = -1
        self.counter = CallCounter(markup, vocabulary)
        self._markup = markup
        self._vocabulary = vocabulary
        self._end = _End()
        self._half = ""
        # What came of arguments, without blanks and what stood for others, as far as it tells whether they are none.
        self._start = ""
        self._whole = False

    def add(self, call_id: str, name: str, arguments: str) -> None:
        """Take one fragment; an id that is already known is a repetition, and so is a name, once arguments came."""
        if self.shown < 0:
            self.id = self.id or call_id
        if name and not (self.name and self.arguments):
            if len(self.name) + len(name) > LONGEST_NAME:
                raise faults.Refusal(faults.UPSTREAM_BROKEN, "upstream sent a function's name without end")
            self.name += name
            self.counter.name(name)
        if arguments:
            self._extend(arguments)

    @property
    def text(self) -> str:
        """The arguments so far."""
        return "".join(self.arguments)

    def is_whole(self) -> bool:
        """Whether the arguments are a complete JSON object: nothing can follow."""
        return self._whole

    @property
    def is_empty(self) -> bool:
        """Whether nothing but an id was ever said of it."""
        return not (self.name or self._start)

    def is_placeholder(self) -> bool:
        """Whether what there is of arguments may be none at all, or stand for others that follow."""
        return len(self._start) <= _LONGEST_NOTHING and _NOTHING.fullmatch(self._start) is not None

    def close(self, *, cut: bool) -> None:
        """Nothing follows: half a character stays one, and no arguments at all are an empty object, unless cut off."""
        if self._half:
            self._half = ""
            self._extend("\ufffd")
        if cut:
            return
        if self.shown < 0 and self.text.strip() in ("", "null"):
            self._restart()
            self._extend("{}")
        self.counter.end()

    def _extend(self, more: str) -> None:
        """Take more of the arguments; wherever they are cut, what becomes of them is the same.

        Blanks before the object mean nothing, nor does anything behind it.
        """
        if not (self.arguments or self._half):
            more = more.lstrip()
        # Hosts that begin with `{}` and say the arguments later, or at once behind it, mean the later ones.
        if self.shown < 0 and self.is_placeholder() and (found := _PLACEHOLDERS.match(self._start + more)):
            more = (self._start + more)[found.end() :].lstrip()
            self._restart()
        if len(self._start) <= _LONGEST_NOTHING:
            self._start += "".join(more[: _LONGEST_NOTHING * 2].split())
        if self._whole:
            return
        more, self._half = surrogates.parted(self._half + more)
        if more:
            # Parsed once, where it can be whole: what closes before its end is no object for any parser.
            if (end := self._end.seen(more)) and _is_object(self.text + more[:end]):
                self._whole, self._half, more = True, "", more[:end]
            self.arguments.append(more)
            self.counter.add(more)

    def _restart(self) -> None:
        self.arguments, self._start, self._end, self._whole = [], "", _End(), False
        self.counter = CallCounter(self._markup, self._vocabulary)
        self.counter.name(self.name)


class Drafts:
    """The calls of one choice, in the order they were begun.

    names:  the functions the caller offers: they settle whether a name is whole
    lead:   the text that opens the calls, which may share a token with the answer before it; empty where there is none
    tokens: all tool markup so far beyond that, in tokens
    """

    __slots__ = (
        "_by_id",
        "_by_index",
        "_chars",
        "_fallback_id",
        "_markup",
        "_names",
        "_opened",
        "_vocabulary",
        "drafts",
        "lead",
        "tokens",
    )

    def __init__(
        self,
        vocabulary: Vocabulary,
        fallback_id: str,
        markup: Markup = LAYOUTS["v4"].calls,
        *,
        names: Iterable[str] = (),
        opened: bool = False,
    ) -> None:
        """Begin with no call; `opened` where the prompt holds what opens them (a forced `tool_choice`)."""
        self.drafts: list[Draft] = []
        self._by_index: dict[int, Draft] = {}
        self._by_id: dict[str, Draft] = {}
        self._chars = 0
        self._fallback_id = fallback_id
        self._markup = markup
        self._names = frozenset(names)
        self._opened = opened
        self._vocabulary = vocabulary
        self.lead = ""
        self.tokens = 0

    def add(self, index: int | None, call_id: str, name: str, arguments: str, *, anew: bool = False) -> None:
        """Take one fragment as upstream sent it; missing fields are empty, a missing index is None.

        anew: whether it is a call of its own, whatever it says: in a message all are

        Raises `Refusal` where there are more calls, longer names or arguments, than any answer has.
        """
        self._chars += len(arguments)
        if self._chars > MOST_CHARS:
            raise faults.Refusal(faults.UPSTREAM_BROKEN, "upstream sent arguments without end")
        draft = None if anew else self._find(index, call_id, name)
        if draft is None or ((call_id or name) and arguments.strip() and draft.is_whole()):
            # Some servers give every call the same index, or its function's name for an id.
            draft = self._begin()
        if index is not None:
            self._by_index[index] = draft
        if call_id:
            self._by_id[call_id] = draft
        before = draft.counter.total
        draft.add(call_id, self._piece(draft.name, name), arguments)
        self.tokens += draft.counter.total - before

    def close(self, *, cut: bool) -> None:
        """End every call and their block, unless the last was cut off by a limit.

        Raises `Refusal` where a call has arguments and no name, and more than one function could be meant.
        """
        last = self.drafts[-1]
        # An id alone calls nothing, nor does what a limit cut off before its name.
        calls = [draft for draft in self.drafts if draft.name or not (draft.is_empty or (cut and draft is last))]
        for draft in self.drafts:
            before = draft.counter.total
            if not draft.name and draft.arguments and len(self._names) == 1:
                draft.add("", next(iter(self._names)), "")
            draft.close(cut=cut and draft is last)
            self.tokens += draft.counter.total - before
        self.drafts = calls
        if not all(draft.name for draft in calls):
            raise faults.Refusal(faults.UPSTREAM_BROKEN, "upstream sent a tool call without a name")
        if not cut:
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
        known = None if index is None else self._by_index.get(index)
        if (same := self._by_id.get(call_id)) is not None:
            # A function's name for an id: the index tells two calls apart where both say their names.
            return None if known is None and index is not None and name and same.name else same
        begins = bool(call_id or name)
        if known is not None:
            # A call that goes on under an id made anew for each fragment says no name, and is not whole.
            taken = bool(call_id and known.id and (name or known.is_whole())) or self._is_another(known, name)
            return None if taken else known
        # The tail of a call under a new index belongs to the call begun last.
        return None if begins or not self.drafts else self.drafts[-1]

    def _is_another(self, known: Draft, name: str) -> bool:
        """Whether `name`, said at the index of a call that has one, begins another call there."""
        if not (name and known.name) or name == known.name:
            return False
        if known.arguments:
            return True
        # Without arguments between them it is the rest of the name, unless both are names of functions; and the longer
        # spelling of the same even then, where a call that is another would have said an id.
        grows = bool(known.id) and name.startswith(known.name)
        return known.name in self._names and name in self._names and not grows

    def _piece(self, known: str, name: str) -> str:
        """What of a fragment's name is new: nothing of a repetition (spec OUT-5)."""
        if not known or not name:
            return name
        if any(offered.startswith(known + name) for offered in self._names):
            # "ha" and "ha" of "haha", unless "ha" is a function too: that one has been said again.
            return "" if name == known and known in self._names else name
        if name != known and name.startswith(known) and any(offered.startswith(name) for offered in self._names):
            # Said anew at every fragment, a little longer.
            return name.removeprefix(known)
        return "" if known in self._names or name == known else name

    def _begin(self) -> Draft:
        if len(self.drafts) >= MOST_CALLS:
            raise faults.Refusal(faults.UPSTREAM_BROKEN, f"upstream sent more than {MOST_CALLS} tool calls")
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


class _End:
    """Finds the end of a JSON object whose text comes in pieces; looks at every character once."""

    __slots__ = ("_begun", "_depth", "_hidden", "_in_string", "_over")

    def __init__(self) -> None:
        self._depth = 0
        self._in_string = False
        self._hidden = False
        self._begun = False
        self._over = False

    def seen(self, text: str) -> int:
        """Where in this piece the object ends, behind its last character; 0 where it does not."""
        if not self._begun:
            self._begun = True
            # What is no object has no end.
            self._over = not text.startswith("{")
        if self._over:
            return 0
        at = self._unhide(text) if self._hidden else 0
        while (found := (_IN_STRING if self._in_string else _STRUCTURE).search(text, at)) is not None:
            mark, at = found[0], found.end()
            if mark == "\\":
                self._hidden = True
                at = self._unhide(text, at)
            elif mark == '"':
                self._in_string = not self._in_string
            else:
                self._depth += 1 if mark in "{[" else -1
                if not self._depth:
                    self._over = True
                    return at
        return 0

    def _unhide(self, text: str, at: int = 0) -> int:
        """Where to go on behind the character that a backslash hides, which may be in the next piece."""
        self._hidden = at == len(text)
        return at + 1


def _is_object(text: str) -> bool:
    try:
        return isinstance(surrogates.loads(text.encode()), dict)
    except orjson.JSONDecodeError:
        return False
