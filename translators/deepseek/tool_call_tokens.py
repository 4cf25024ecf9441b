"""One tool call as it comes, name and JSON arguments in pieces -> how many tokens the model has written of it.

Servers read a call off the model's markup and tell it as JSON; here the JSON is written back, piece by piece, so that
every packet counts what was generated so far (spec USE-7). Whatever a call holds, its cost is linear.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from enum import Enum, auto
from typing import Final

from translators import tokens
from translators.deepseek.markup import NOT_AN_OBJECT, Argument, Markup, Piece
from translators.tokens import Counter, Vocabulary

_BLANKS: Final = " \t\r\n"
_ESCAPES: Final = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f"}
_UNICODE_ESCAPE_CHARS: Final = 6
# Where a string, or a value that is no string, may go on differently.
_STRING_TURN: Final = re.compile(r'["\\]')
_VALUE_TURN: Final = re.compile(r'["\[\]{},]')


def constant(pieces: Iterable[Piece], vocabulary: Vocabulary) -> int:
    """How many tokens a fixed part of a markup has: one for a special token, and those of each text."""
    return sum(vocabulary.length(piece) if isinstance(piece, str) else 1 for piece in pieces)


class CallCounter:
    """Tokens of one call so far: exactly those of the whole when it is whole, and fewer before.

    total: tokens so far, from what begins the call to what ends it
    """

    __slots__ = ("_arguments", "_counter", "_ended", "_markup", "_settled", "_vocabulary", "total")

    def __init__(self, markup: Markup, vocabulary: Vocabulary) -> None:
        self._markup = markup
        self._vocabulary = vocabulary
        self._settled = 0
        self._counter = Counter(vocabulary)
        self._arguments: _Object | None = None
        self._ended = False
        self.total = 0
        self._write(markup.call)

    def name(self, piece: str) -> None:
        """Take a piece of the function's name; what stands behind the name is counted with it."""
        if self._arguments is None:
            self._write((piece,))
            self.total += constant(self._markup.named, self._vocabulary)
        else:
            # Told behind its arguments: its place is passed, its length is not.
            self._settled += tokens.count(piece, self._vocabulary)
            self.total = self._settled + self._counter.total

    def add(self, arguments: str) -> None:
        """Take a piece of the arguments."""
        if self._ended:
            return
        if self._arguments is None:
            self._arguments = self._begun()
        self._write(self._arguments.feed(arguments))
        if self._arguments.is_whole:
            self._end()

    def end(self) -> None:
        """The call is over, whatever its arguments are: what was opened is closed."""
        if self._ended:
            return
        if self._arguments is None:
            self._arguments = self._begun()
        self._write(self._arguments.eof())
        self._end()

    def _begun(self) -> _Object:
        self._write(self._markup.named)
        return _Object(self._markup)

    def _end(self) -> None:
        self._ended = True
        self._write(self._markup.called)

    def _write(self, pieces: Iterable[Piece]) -> None:
        for piece in pieces:
            if isinstance(piece, str):
                self._counter.add(piece)
            else:
                self._settled += self._counter.total + 1
                self._counter = Counter(self._vocabulary)
        self.total = self._settled + self._counter.total


class _State(Enum):
    """What the arguments' JSON is at."""

    __hash__ = object.__hash__  # in C; an `Enum` hashes its name, in Python

    START = auto()
    KEY = auto()
    COLON = auto()
    BEFORE_VALUE = auto()
    STRING = auto()
    VALUE = auto()
    TEXT = auto()
    WHOLE = auto()


# What stands for an argument's markup where there is none: arguments are then written as they come.
_NO_MARKUP: Final = Argument((), "", "", {True: "", False: ""}, ())


class _Object:
    """The arguments' JSON object, read as it comes, into what the model wrote for it.

    A string is written bare; any other value as it is told, for a server tells it as the model wrote it. What is no
    object is one argument (`markup.NOT_AN_OBJECT`).
    is_whole: whether the object has ended; what follows is not the model's
    """

    __slots__ = (
        "_argument",
        "_as_told",
        "_blanks",
        "_depth",
        "_empty",
        "_in_key",
        "_markup",
        "_out",
        "_pending",
        "_quoted",
        "_state",
        "is_whole",
    )

    def __init__(self, markup: Markup) -> None:
        self._markup = markup
        self._as_told = markup.argument is None
        self._argument = markup.argument or _NO_MARKUP
        self._state = _State.START
        self._out: list[Piece] = []
        self._pending = ""
        self._blanks: list[str] = []
        self._depth = 0
        self._empty = True
        self._in_key = self._quoted = False
        self.is_whole = False

    def feed(self, told: str) -> list[Piece]:
        """Take a piece of JSON; what the model wrote for it."""
        text = self._pending + told
        self._out, self._pending = [], ""
        at, end = 0, len(text)
        while at < end and self._state is not _State.WHOLE:
            at = self._step(text, at)
        self.is_whole = self._state is _State.WHOLE
        if self._as_told:
            return [told[: len(told) - (end - at)]]
        return self._out

    def eof(self) -> list[Piece]:
        """No more is told: what closes an object that has not ended."""
        self._out = [] if self._as_told else [self._pending]
        if self._state in (_State.START, _State.KEY):
            self._leave()
            return self._out
        argument = self._argument
        owed = (argument.kind[True], argument.valued, argument.named)
        steps = (_State.BEFORE_VALUE, _State.COLON, _State.STRING if self._in_key else None)
        missing = steps.index(self._state) + 1 if self._state in steps else 0
        self._out += (*reversed(owed[:missing]), *argument.after)
        return self._out

    def _step(self, text: str, at: int) -> int:
        """Read on from `at`, as far as the state lasts; returns where the next one begins."""
        match self._state:
            case _State.START:
                return self._start(text, at)
            case _State.KEY:
                return self._key(text, at)
            case _State.COLON:
                return self._colon(text, at)
            case _State.BEFORE_VALUE:
                return self._before_value(text, at)
            case _State.STRING:
                return self._string(text, at)
            case _State.VALUE:
                return self._value(text, at)
        self._out.append(text[at:])
        return len(text)

    def _start(self, text: str, at: int) -> int:
        at = _past(text, at, _BLANKS)
        if at < len(text):
            if text[at] == "{":
                self._state = _State.KEY
                return at + 1
            self._enter(_State.TEXT)
            self._out += (NOT_AN_OBJECT, self._argument.named, self._argument.valued, self._argument.kind[True])
        return at

    def _key(self, text: str, at: int) -> int:
        at = _past(text, at, _BLANKS + ",")
        if at == len(text):
            return at
        if text[at] == '"':
            self._enter(_State.STRING)
            self._in_key = True
        elif text[at] == "}":
            self._leave()
        else:
            self._out.append(text[at])
        return at + 1

    def _colon(self, text: str, at: int) -> int:
        at = _past(text, at, _BLANKS)
        if at == len(text):
            return at
        self._out.append(self._argument.valued)
        self._state = _State.BEFORE_VALUE
        return at + (text[at] == ":")

    def _before_value(self, text: str, at: int) -> int:
        at = _past(text, at, _BLANKS)
        if at == len(text):
            return at
        is_text = text[at] == '"'
        self._out.append(self._argument.kind[is_text])
        self._state = _State.STRING if is_text else _State.VALUE
        return at + is_text

    def _string(self, text: str, at: int) -> int:
        turn = _STRING_TURN.search(text, at)
        if turn is None:
            self._out.append(text[at:])
            return len(text)
        self._out.append(text[at : turn.start()])
        if turn[0] == "\\":
            return self._escape(text, turn.start())
        if self._in_key:
            self._in_key = False
            self._out.append(self._argument.named)
            self._state = _State.COLON
        else:
            self._close()
        return turn.end()

    def _escape(self, text: str, at: int) -> int:
        size = _UNICODE_ESCAPE_CHARS if text[at + 1 : at + 2] == "u" else 2
        escape = text[at : at + size]
        if len(escape) < size:
            self._pending = escape
            return len(text)
        letter, digits = escape[1], escape[2:]
        try:
            self._out.append(chr(int(digits, 16)) if digits else _ESCAPES.get(letter, letter))
        except ValueError:
            self._out.append(escape)
        return at + size

    def _value(self, text: str, at: int) -> int:
        turn = (_STRING_TURN if self._quoted else _VALUE_TURN).search(text, at)
        end = len(text) if turn is None else turn.start()
        told = text[at:end]
        bare = told if self._quoted else told.rstrip(_BLANKS)
        if bare:
            self._out.append("".join(self._blanks) + bare)
            self._blanks = []
        if len(bare) < len(told):
            # They are the value's only if it goes on.
            self._blanks.append(told[len(bare) :])
        if turn is None:
            return end
        return self._turn(text, end, turn[0])

    def _turn(self, text: str, at: int, sign: str) -> int:
        """Take what may end a value that is no string, or a string within it."""
        size = 1
        if sign == "\\":
            size = 2
            if at + 1 == len(text):
                self._pending = sign
                return len(text)
        elif sign == '"':
            self._quoted = not self._quoted
        elif sign in "[{":
            self._depth += 1
        elif self._depth and sign in "]}":
            self._depth -= 1
        elif not self._depth and sign in ",}":
            self._blanks = []
            self._close()
            # The sign itself is the object's.
            return at
        self._out.append("".join(self._blanks) + text[at : at + size])
        self._blanks = []
        return at + size

    def _enter(self, state: _State) -> None:
        self._empty = False
        self._state = state
        self._out += self._argument.before

    def _close(self) -> None:
        self._out += self._argument.after
        self._state = _State.KEY

    def _leave(self) -> None:
        if self._empty:
            self._out += self._markup.no_arguments
        self._state = _State.WHOLE


def _past(text: str, at: int, skipped: str) -> int:
    """Where the first character is that is none of these."""
    while at < len(text) and text[at] in skipped:
        at += 1
    return at
