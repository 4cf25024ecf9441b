"""Chunks that hold a piece of text and nothing else, read by what differs between them: the text.

What stands around a string in a JSON document is, around any other string, the same document with that string in its
place. So a chunk that begins and ends as the earlier one did, with a JSON string between, needs no other look:
a quarter of what a delta costs. Where anything else differs (a finish, usage, a new time stamp) it fits no stencil.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from io import BytesIO
from typing import Any, Final

import orjson

from translators.openai.choices import NOT_ENDED
from translators.usage import BETWEEN

NOT_PLAIN: Final = "", ""
# No text, of a chunk that has nothing else to say either: streams begin so, and some go on so while the model is slow.
SILENT: Final = "", "nothing"
CONTENT: Final = "content"
# Where a delta has text; and where it stands in its bytes: of several places the last, as for whoever reads all of it.
_TEXTS: Final = {
    name: re.compile(rb'.*"%b"\s*:\s*("(?:[^"\\]|\\.)*")' % name.encode(), re.DOTALL)
    for name in (CONTENT, "reasoning_content", "reasoning")
}
_PROBE: Final = "\u2603"
# A stencil is cut from small chunks, and from no more than one of so many that do not fit: where every chunk has
# something of its own beside the text, looking for one must not cost more than it saves.
_LARGEST_BYTES: Final = 4_096
_EVERY: Final = 16
_BORDER: Final = b'"' + BETWEEN + b'"'
# As numbers: see `sse`.
QUOTE: Final = 0x22
BACKSLASH: Final = 0x5C
# An event of several lines is written otherwise than its data is read.
LF: Final = 0x0A


def plain(chunk: Any, *, told: bool = False) -> tuple[str, str]:
    """The text of a chunk for the only choice that says nothing else, and its name in the delta; else no text.

    A chunk that says nothing at all is `SILENT`.
    told: whether it may say usage beside it

    What stands beside it as a null or an empty text, as with SGLang, or as a role, as with Ark, says nothing.
    """
    try:
        (item,) = chunk["choices"]
        delta = item["delta"]
        text, name = SILENT
        for here in _TEXTS:
            said = delta.get(here)
            if said is not None and said != "":
                if text != "":
                    return NOT_PLAIN
                text, name = said, here
        index = item.get("index", 0)
        if (
            type(text) is str
            and not delta.get("tool_calls")
            and not delta.get("function_call")
            and item.get("finish_reason") in NOT_ENDED
            and type(index) is int
            and index == 0
            and (told or chunk.get("usage") is None)
            and not chunk.get("error")
        ):
            return text, name
    except (AttributeError, KeyError, TypeError, ValueError):
        pass
    return NOT_PLAIN


class Stencil:
    """What stands before and behind the text of a plain chunk.

    name:      of that text in the delta
    is_chain:  whether it is of the chain of thought
    two_bytes: what two such events have at the least
    """

    __slots__ = (
        "_after",
        "_before",
        "_between",
        "_head",
        "_line",
        "_middle",
        "_misses",
        "_run",
        "_tail",
        "is_chain",
        "name",
        "two_bytes",
    )

    def __init__(self) -> None:
        self._head = self._tail = b"\0"  # no JSON begins so
        self._middle = slice(0)
        # The same of a read: what stands before its first text, between two, and behind the last.
        self._before = self._between = self._after = b"\0"
        self._run = self._line = slice(0)
        self.two_bytes = 0
        self._misses = 0
        self.name = ""
        self.is_chain = False

    def run_in(self, wire: bytes) -> tuple[list[str], list[bytes], bytes] | None:
        """The texts of a read that is events of plain chunks and nothing else.

        And, as they stand, the JSON strings of these texts: one by one, and all of them with `BETWEEN` between.
        None for any other read; also where a string holds `\\u`: halves of a pair may be in two of them, and what is
        escaped is to leave as it is read. All strings are read in one go: a line end within one would be no JSON, so
        that none reaches over the border of two.
        """
        if not (wire.startswith(self._before) and wire.endswith(self._after)):
            return None
        lines, middle = wire[self._run], self._line
        # Cut where lines end, and compared: to look for all that stands between two texts, of hundreds of bytes, takes
        # four times as long, a fifth of what a delta of a burst costs. A file of bytes finds the end of a line in a
        # third of the time that `split` takes.
        strings = [line[middle] for line in BytesIO(wire).readlines()[::2]]
        if self._between.join(strings) != lines:
            return None
        lines = BETWEEN.join(strings)
        if lines.count(_BORDER) != len(strings) - 1:
            return None
        # One byte is found in a sixth of the time that two take.
        if (BACKSLASH in lines and b"\\u" in lines) or not (lines and lines[0] == QUOTE and lines[-1] == QUOTE):
            return None
        try:
            texts = orjson.loads(b"[%b]" % lines)
        except orjson.JSONDecodeError:
            return None
        if len(texts) != len(strings) or "" in texts:
            return None
        return texts, strings, lines

    def strings_in(self, wire: bytes) -> tuple[Sequence[bytes], bytes] | None:
        """Of a read as `run_in` or `one_in` reads it the JSON strings alone."""
        if len(wire) < self.two_bytes:
            one = self.one_in(wire)
            return None if one is None else ((one[1],), one[1])
        found = self.run_in(wire)
        return None if found is None else found[1:]

    def one_in(self, wire: bytes) -> tuple[str, bytes] | None:
        """The text of a read that is shorter than two chunks, as `run_in` reads it, and its JSON string."""
        if not (wire.startswith(self._before) and wire.endswith(self._after)):
            return None
        string = wire[self._run]
        if not string or string[0] != QUOTE or string[-1] != QUOTE or (BACKSLASH in string and b"\\u" in string):
            return None
        try:
            text = orjson.loads(string)
        except orjson.JSONDecodeError:
            return None
        return (text, string) if text else None

    def text_in(self, data: bytes) -> str:
        """The text of a chunk that fits; no text for any other."""
        if data.startswith(self._head) and data.endswith(self._tail):
            try:
                text = orjson.loads(data[self._middle])
            except orjson.JSONDecodeError:
                return ""
            if type(text) is str:
                return text
        return ""

    def cut(self, data: bytes, name: str) -> None:
        """Take the next stencil from a plain chunk that did not fit the last; of the same text, now and then."""
        self._misses += 1
        if (self._misses % _EVERY != 1 and name == self.name) or len(data) > _LARGEST_BYTES or LF in data:
            return
        found = _TEXTS[name].match(data)
        if found is None:
            return
        head, tail = data[: found.start(1)], data[found.end(1) :]
        # What another string in its place makes is read: so this was the place, and the only one.
        if plain(orjson.loads(head + orjson.dumps(_PROBE) + tail)) == (_PROBE, name):
            self._head, self._tail, self.name, self.is_chain = head, tail, name, name != CONTENT
            self._middle = slice(len(head), -len(tail))
            self._before, self._after = b"data:" + head, tail + b"\n\n"
            self._between = self._after + self._before
            self._run = slice(len(self._before), -len(self._after))
            self._line = slice(len(self._before), -len(tail) - 1)
            self.two_bytes = 2 * len(self._between)
