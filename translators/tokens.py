"""Text to token counts: exact for a whole prompt and after every delta of an answer, at a cost that follows what came.

The vocabulary comes from outside. `Counter` settles what no later text can tokenize anew and encodes only the short
tail behind it each time; a pre-token that does not end is kept as tokens, of which the last few are merged again
(SOURCES#running-count).
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Protocol

from translators import faults, pretokens

# Up to here a tail is simply encoded again; most deltas of a real stream end there.
_SHORT_TAIL_CHARS = 24
# Up to here a tail may wait for a sure border; beyond, its pre-tokens are settled one by one.
_LONG_TAIL_CHARS = 64
# A millisecond or two of work for an event loop, and far from the million blanks at which the engine gives up.
_SLICE_CHARS = 8_192
# What comes later can tokenize anew no more than the longest token holds.
_LONGEST_TOKEN_BYTES = 128
_LONGEST_CHARACTER_BYTES = 4
# Where each character is looked at, so many are taken at a time.
_STRIDE_CHARS = 64
# A pre-token that goes on is merged so many characters at a time: longer ones cost the engine more for each character.
_RUN_CHARS = 1024
# A run ends in so few tokens that are not its longest.
_LAST_TOKENS = 4
# A sure border is looked for so far back: where there is none, looking costs more than pre-tokenizing.
_LOOK_BACK_CHARS = 1_024
# So much the total of a text may fall at most, whatever follows: what is not settled, and the last token that is.
UNSETTLED_TOKENS = 1_024
# A text whose tokens are told has a sure border every so many characters: far from what the engine cannot take.
LONGEST_RUN_CHARS = 128 << 10


# How many tokens a short text has; and the rows of borders its first character may stand on the right in, and its last
# one on the left (`pretokens.right_of`, `pretokens.left_of`).
Word = tuple[int, int, int]


class Vocabulary(Protocol):
    """The tokens of a model; text that spells a special token is plain text to it."""

    def encode(self, text: str) -> Sequence[int]:
        """The tokens of a text; half a surrogate pair counts as U+FFFD."""
        ...

    def length(self, text: str) -> int:
        """How many tokens a text has, for short texts that come again and again: it may remember them."""
        ...

    def word(self, text: str) -> Word:
        """The same, with what is before and behind it."""
        ...

    def encode_piece(self, piece: bytes) -> Sequence[int]:
        """The tokens of bytes within one pre-token; at least one byte."""
        ...

    def decode_bytes(self, tokens: Sequence[int]) -> bytes:
        """The bytes of tokens; KeyError for an id that is none."""
        ...

    def first_piece(self, text: str) -> int:
        """How many characters the first pre-token of a text has; takes no half surrogate pairs."""
        ...

    def settled(self, text: str) -> int:
        """How many characters at the start of a text are pre-tokens that no later text can change, alone as within it.

        It may be 0 where only the first has ended.
        """
        ...


def totals(text: str, vocabulary: Vocabulary) -> Iterator[int]:
    """How many tokens a text has up to each of a few thousand characters, the last time in all (spec USE-8).

    For a caller that shares its thread with others, or wants to know only whether a text is too long.
    """
    if len(text) <= _SLICE_CHARS:
        yield len(vocabulary.encode(text))
        return
    counter = Counter(vocabulary)
    for start in range(0, len(text), _SLICE_CHARS):
        yield counter.add(text[start : start + _SLICE_CHARS])


def encoded(text: str, vocabulary: Vocabulary) -> Iterator[Sequence[int]]:
    """The tokens of a text, in parts; raises `Refusal` where too much of it offers no border between two.

    Nobody writes so: for a million blanks the engine gives up, and what it makes of them is worth no more.
    """
    rest = ""
    for start in range(0, len(text), _SLICE_CHARS):
        rest += text[start : start + _SLICE_CHARS]
        if end := pretokens.cut(rest, max(len(rest) - _SLICE_CHARS, 0)):
            yield vocabulary.encode(rest[:end])
            rest = rest[end:]
        elif len(rest) > LONGEST_RUN_CHARS:
            raise faults.Refusal(faults.BODY_TOO_LARGE, "a text without borders")
    yield vocabulary.encode(rest)


def count(text: str, vocabulary: Vocabulary) -> int:
    """How many tokens a text has, in time proportional to its length whatever it holds (spec USE-6)."""
    return len(vocabulary.encode(text)) if len(text) <= _SLICE_CHARS else Counter(vocabulary).add(text)


class Counter:
    """The number of tokens of a text that grows: after every `add` what encoding all of it anew would give.

    total:  tokens so far; falls where a delta completes a word that is one token
    source: spec USE-2; SOURCES#running-count
    """

    __slots__ = (
        "_base",
        "_encode",
        "_left",
        "_open",
        "_room_chars",
        "_seen_chars",
        "_tail",
        "_vocabulary",
        "_word",
        "total",
    )

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.total = 0
        self._vocabulary = vocabulary
        self._encode = vocabulary.encode
        self._word = vocabulary.word
        # Two only in white space: lines, and blanks that one more line end would join to them.
        self._open: list[_Piece] = []
        self._base = 0
        self._tail = ""
        # The rows of borders in which the last character stands on the left; while a piece is open there is no border.
        self._left = 0
        self._seen_chars = 0
        self._room_chars = _SHORT_TAIL_CHARS

    def add(self, delta: str) -> int:
        """Count a delta; returns the new total."""
        if len(delta) <= _SHORT_TAIL_CHARS:
            # As in `add_each`, of one: a third of what it takes there.
            made, right, last = self._word(delta)
            if self._left & right:
                self._base = self.total
                self._tail, self._left, self._seen_chars = delta, last, 0
                self.total += made
                return self.total
        return self.add_each((delta,))[0]

    def add_each(self, deltas: Iterable[str]) -> list[int]:
        """Count one delta after the other; returns the total after each."""
        totals: list[int] = []
        # In locals, and looked up once: a read of many deltas takes two thirds of the time.
        total, base, tail, left, word = self.total, self._base, self._tail, self._left, self._word
        for delta in deltas:
            if len(delta) <= _SHORT_TAIL_CHARS:
                made, right, last = word(delta)
                if left & right:
                    # Most deltas of most languages are a word of their own: what was counted so far stays as it is.
                    base, tail, left = total, delta, last
                    total += made
                    totals.append(total)
                    continue
                tail += delta
            elif left & pretokens.right_of(delta[0]):
                base, tail = total, delta
            else:
                tail += delta
            if len(tail) > self._room_chars:
                self._begin_tail(base)
                total = self._settle(tail)
                base, tail, left = self._base, self._tail, self._left
            else:
                made, _, left = word(tail)
                total = base + made
            totals.append(total)
        self._begin_tail(base)
        self.total, self._tail, self._left = total, tail, left
        return totals

    def fits(self, delta: str, limit: int) -> int:
        """How much of `delta`, in leading characters, can be added at most with a total within `limit` tokens.

        Counts nothing. Where even the first character does not fit it is 0 (spec OUT-8, OUT-9).
        """
        if len(delta) <= self.sure_chars(limit):
            return len(delta)
        fitting, here = 0, self.fork()
        # What cannot be too much whatever it is needs no second look: a fork costs as much as an open piece is long.
        while fitting < len(delta) and (sure := here.sure_chars(limit)) >= _STRIDE_CHARS:
            here.add(delta[fitting : fitting + sure])
            fitting = min(fitting + sure, len(delta))
        for start in range(fitting, len(delta), _STRIDE_CHARS):
            if here.total > limit + _LONGEST_TOKEN_BYTES:
                break
            stride = delta[start : start + _STRIDE_CHARS]
            there = here.fork()
            if there.add(stride) <= limit:
                fitting = start + len(stride)
            else:
                for length, character in enumerate(stride, start + 1):
                    if here.add(character) <= limit:
                        fitting = length
            here = there
        return fitting

    def sure_chars(self, limit: int) -> int:
        """How many characters can be added whatever they are, and the total stays within `limit` tokens."""
        return (limit - self.total - _LONGEST_TOKEN_BYTES) // _LONGEST_CHARACTER_BYTES

    def fork(self) -> Counter:
        """Another counter of the same text, to go its own way."""
        fork = copy.copy(self)
        self._open = [replace(piece, tokens=[*piece.tokens]) for piece in self._open]
        return fork

    def _begin_tail(self, base: int) -> None:
        """The tail stands behind so many tokens; another one than before was not looked at yet."""
        if base != self._base:
            self._base = base
            self._seen_chars = 0

    def _settle(self, text: str) -> int:
        """Shorten the tail, which has become `text`; returns the new total."""
        tail = self._shorten(text[:_SLICE_CHARS])
        for start in range(_SLICE_CHARS, len(text), _SLICE_CHARS):
            tail = self._shorten(tail + text[start : start + _SLICE_CHARS])
        self._room_chars = -1 if self._open else _SHORT_TAIL_CHARS
        self._left = 0 if self._open else pretokens.left_of(tail[-1:])
        self._tail = tail
        self.total = self._base + len(self._encode(tail))
        if self._open and _ends_in_half_a_pair(tail):
            # Until the other half comes it counts as U+FFFD, and U+FFFD may belong to the open piece.
            self._tail = tail[:-1]
            self.total = self.fork().add("\ufffd")
            self._tail = tail
        return self.total

    def _shorten(self, text: str) -> str:
        """Settle what stands before the last sure border, or all that can be; returns the rest, the new tail."""
        if not self._open:
            cut = pretokens.cut(text, max(self._seen_chars, len(text) - _LOOK_BACK_CHARS))
            if cut:
                self._base += len(self._encode(text[:cut]))
                text = text[cut:]
            self._seen_chars = len(text)
            if len(text) <= _LONG_TAIL_CHARS:
                return text
        self._seen_chars = 0
        half = text[-1] if _ends_in_half_a_pair(text) else ""
        text, tail = _whole(text.removesuffix(half)), ""
        for start in range(0, len(text), _RUN_CHARS):
            tail = self._advance(tail + text[start : start + _RUN_CHARS])
        return tail + half

    def _advance(self, text: str) -> str:
        """Settle the pre-tokens that have ended, put the last into an open piece; returns the rest, the new tail."""
        if self._open:
            text = self._grow(text)
        while len(text) > _LONG_TAIL_CHARS:
            # Of little text one border is found in less time than all of them.
            if len(text) > 2 * _LONG_TAIL_CHARS and (end := self._vocabulary.settled(text)):
                self._base += len(self._encode(text[:end]))
            elif end := self._border(text):
                self._base += len(self._vocabulary.encode_piece(text[:end].encode()))
            else:
                end = self._vocabulary.first_piece(text)
                tokens = [*self._vocabulary.encode_piece(text[:end].encode())]
                self._base += len(tokens)
                self._open.append(_Piece(self._vocabulary, tokens, text[:2] + text[end - 1]))
            text = text[end:]
        return text

    def _grow(self, text: str) -> str:
        """Give the open pieces what belongs to them; returns the rest, the start of another pre-token."""
        first, last = self._open[0], self._open[-1]
        if first is not last and self._vocabulary.first_piece(first.stub + last.stub + text) > len(first.stub):
            self._base += first.splice("", last.text) - len(last.tokens)
            self._open, last = [first], first
        whole, known_chars = last.stub + text, len(last.stub)
        border = self._border(whole)
        # Of white space a line end that comes may take the blanks behind the last one into the piece.
        has_lines = "\n" in whole or "\r" in whole
        end = border or (self._vocabulary.first_piece(whole) if has_lines else len(whole))
        # It may end one character earlier than it seemed to: the last of many blanks is the start of the word behind.
        self._base += last.splice(last.stub[end:], whole[known_chars:end])
        if border:
            self._open = []
        return whole[end:]

    def _border(self, text: str) -> int:
        """Where the first pre-token of `text` ends, if nothing that may follow can change that; else 0."""
        # What a line end at the end does not change, nothing does: only white space reaches over what lies between.
        end = self._vocabulary.first_piece(text + "\n")
        return end if end < len(text) else 0


@dataclass(slots=True)
class _Piece:
    """A pre-token that goes on, as its tokens.

    stub: its first two characters and its last; what follows belongs to the piece exactly if it belongs to these
    """

    vocabulary: Vocabulary
    tokens: list[int]
    stub: str

    @property
    def text(self) -> str:
        return self.vocabulary.decode_bytes(self.tokens).decode()

    def splice(self, lent: str, more: str) -> int:
        """Take `lent` off the end and put `more` there; returns how many tokens that adds.

        Merges again only as many of the last tokens as it takes: tokens are the encoding of a piece if and only if each
        neighbouring two are the encoding of theirs (SOURCES#running-count).
        """
        size = len(self.tokens)
        # A token has at least one byte: one more than `lent` has bytes outlives the loss.
        window_tokens, joined = len(lent.encode()) + 1, False
        if len(more) > 2 * _LONGEST_TOKEN_BYTES:
            # To merge so much twice would cost more than to begin where the one pass is most often enough.
            ends = accumulate(len(self.vocabulary.decode_bytes((token,))) for token in self.tokens[:-_LAST_TOKENS:-1])
            window_tokens += sum(end < _LONGEST_TOKEN_BYTES for end in ends)
        while not joined:
            start = max(size - window_tokens, 0)
            window = self.vocabulary.decode_bytes(self.tokens[start:]).removesuffix(lent.encode())
            merged = self.vocabulary.encode_piece(window + more.encode())
            # Without a neighbour on the left this is a single token, the encoding of itself.
            neighbours = [*self.tokens[max(start - 1, 0) : start], merged[0]]
            joined = [*self.vocabulary.encode_piece(self.vocabulary.decode_bytes(neighbours))] == neighbours
            window_tokens *= 2
        self.tokens[start:] = merged
        self.stub = self.stub[:2] + (more or self.stub)[-1]
        return len(self.tokens) - size


def _ends_in_half_a_pair(text: str) -> bool:
    return "\ud800" <= text[-1:] <= "\udbff"


def _whole(text: str) -> str:
    """The text with surrogate pairs joined and halves replaced, as the vocabulary counts them."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
