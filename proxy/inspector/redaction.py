"""A recorded call with every text replaced by filler that counts the same, so that it can be shown to others.

Words become words, Chinese Chinese, digits digits; blanks, punctuation, JSON's keys and form, names, ids, figures and
parameters stay. Each piece has as many tokens as the one it stands for, at every border of a delta: played again, a
redacted call makes the same packets with the same usage (spec USE-2). Keys were masked before (`key_mask`).
"""

from __future__ import annotations

import base64
import functools
import itertools
import random
import re
import struct
import zlib
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from typing import Any, Final

import orjson

from proxy.inspector.call_file import coded, decoded, handed
from translators import images
from translators.tokens import Vocabulary

Json = dict[str, Any]
# Where a string is no text: what a protocol says with it.
KEPT: Final = frozenset(
    (
        *("model", "role", "type", "name", "id", "tool_call_id", "object", "finish_reason", "system_fingerprint"),
        *("result_format", "tool_choice", "stop", "required", "format", "reasoning_effort", "service_tier", "code"),
        *("request_id", "created", "effort", "param", "event", "native_finish_reason", "provider", "stream_options"),
    )
)
KEPT_HEADERS: Final = frozenset(
    ("content-type", "accept", "user-agent", "x-request-id", "content-length", "host", "accept-encoding", "connection")
)
REDACTED: Final = "(redacted)"
UPSTREAM: Final = "http://upstream.example"
ADDRESS: Final = re.compile(r"https?://\S+\Z", re.IGNORECASE)
ELSEWHERE: Final = "https://picture.example/redacted"
LONGEST_BROKEN_CHARS: Final = 64 << 10
# What a translator looks for in a text: it must find it there again.
TAGS: Final = re.compile(r"</?think>|<｜[^｜]{1,32}｜>|｜DSML｜")
ESCAPE: Final = re.compile(r"\\(?:u[0-9a-fA-F]{4}|.)", re.DOTALL)
JSON_PART: Final = re.compile(r'"(?P<text>(?:[^"\\]|\\.)*)"?(?P<key>\s*:)?|-?\d[\d.eE+-]*', re.DOTALL)
CJK: Final = re.compile("[\u3040-\u30ff\u4e00-\u9fa5]")
# No pre-token that is worth replacing is longer; a longer one is cut.
WINDOW_CHARS: Final = 256
TRIES: Final = 400
MOST_FILLERS: Final = 500
# Of an upstream's own sentence about a failure, so many words of the caller's in a row are the caller's.
QUOTED_WORDS: Final = 3
OK: Final = 200


def _fillers(vocabulary: Vocabulary) -> Mapping[str, Sequence[str]]:
    """Tokens of one kind each, the most frequent ones: what a piece of that kind is made of."""
    found: dict[str, list[str]] = {"lower": [], "title": [], "cjk": [], "other": []}
    numbers = itertools.count()
    while any(len(tokens) < MOST_FILLERS for tokens in found.values()):
        try:
            token = vocabulary.decode_bytes([next(numbers)]).decode()
        except UnicodeDecodeError:
            continue
        except KeyError:
            break
        if token.isascii() and token.isalpha():
            if token.islower():
                found["lower"].append(token)
            elif token.istitle():
                found["title"].append(token)
        elif token.isalpha() and not any(map(str.isascii, token)):
            found["cjk" if CJK.match(token) else "other"].append(token)
    return found


@dataclass(slots=True)
class Filler:
    """Replaces texts by filler, a word by the same one wherever no border cuts it.

    words:  three words in a row that the caller has said
    tokens: what pieces are made of, by kind
    """

    vocabulary: Vocabulary
    random: random.Random = field(default_factory=random.Random)
    known: dict[str, str] = field(default_factory=dict)
    words: set[tuple[str, ...]] = field(default_factory=set)
    tokens: Mapping[str, Sequence[str]] = field(init=False)

    def __post_init__(self) -> None:
        self.tokens = _fillers(self.vocabulary)

    def text(self, text: str, cuts: Sequence[int] = (), fixed: Collection[int] = ()) -> list[str]:
        """The filler of a text, cut where `cuts` cut the text; characters at the places `fixed` stay."""
        parts, borders = [""], [*cuts]
        for start, end in self._pieces(text):
            piece = text[start:end]
            inside = []
            while borders and borders[0] < end:
                if (border := borders.pop(0)) <= start:
                    parts.append("")
                else:
                    inside.append(border - start)
            kept = [at in fixed for at in range(start, end)]
            segments = self._segments(piece, inside, kept)
            parts[-1] += segments[0]
            parts += segments[1:]
        return parts + [""] * len(borders)

    def whole(self, text: str) -> str:
        """The filler of a text in one; of JSON its values alone; of a picture one of its size, without a pixel."""
        if images.is_inline(text):
            return _blank(text)
        if ADDRESS.match(text):
            return ELSEWHERE
        return self.text(text, fixed=fixed_of(text, is_json=is_json(text)))[0]

    def quoted(self, text: str) -> str:
        """An upstream's sentence, without what it repeats of the caller's."""
        pieces = [text[start:end] for start, end in self._pieces(text)]
        places = [place for place, piece in enumerate(pieces) if any(map(str.isalnum, piece))]
        covered: set[int] = set()
        for run in zip(*(places[at:] for at in range(QUOTED_WORDS)), strict=False):
            if tuple(_word(pieces[place]) for place in run) in self.words:
                covered.update(run)
        return "".join(
            self._segments(piece, [], [False] * len(piece))[0] if place in covered else piece
            for place, piece in enumerate(pieces)
        )

    def hear(self, text: str) -> None:
        """Remember what a caller has said, to find it where upstream repeats it."""
        words = [_word(text[start:end]) for start, end in self._pieces(text) if any(map(str.isalnum, text[start:end]))]
        self.words.update(zip(*(words[at:] for at in range(QUOTED_WORDS)), strict=False))

    def _pieces(self, text: str) -> Iterator[tuple[int, int]]:
        start = 0
        while window := text[start : start + WINDOW_CHARS]:
            end = start + max(1, self.vocabulary.first_piece(window.encode("utf-8", "replace").decode()))
            yield start, end
            start = end

    def _segments(self, piece: str, cuts: Sequence[int], kept: Sequence[bool]) -> list[str]:
        """The filler of one pre-token, in as many segments as its cuts leave."""
        lead = next((at for at, char in enumerate(piece) if char.isalnum() and not kept[at]), len(piece))
        body = piece[lead:]
        if not body or any(kept[lead:]):
            return _at(piece, cuts)
        if not cuts and piece in self.known:
            return [self.known[piece]]
        counts = [self._count(piece[:cut]) for cut in (*cuts, len(piece))]
        if body.isdecimal():
            digits = "".join(self.random.choice("123456789") for _ in body)
            return _at(piece[:lead] + digits, cuts)
        for _ in range(TRIES):
            made = piece[:lead] + self._made(body, counts[-1])
            if self._count(made) != counts[-1]:
                continue
            places = self._places(made, lead, cuts, counts)
            if places is not None:
                if not cuts:
                    self.known[piece] = made
                return _at(made, places)
        # Nothing of that count was found: what it is not may be told, what it was may not.
        return _at("x" * len(piece), cuts)

    def _made(self, body: str, tokens: int) -> str:
        kind = (
            "cjk" if CJK.search(body) else "other" if not body.isascii() else "title" if body[0].isupper() else "lower"
        )
        first = self.random.choice(self.tokens[kind])
        rest = self.tokens["lower" if kind == "title" else kind]
        return first + "".join(self.random.choice(rest) for _ in range(tokens - 1))

    def _places(self, made: str, lead: int, cuts: Sequence[int], counts: Sequence[int]) -> list[int] | None:
        """Where filler is to be cut, to count at each cut what the text counts there."""
        places: list[int] = []
        for cut, count in zip(cuts, counts, strict=False):
            if cut <= lead:
                places.append(cut)
                continue
            least = max([lead, *places]) + 1
            found = next((at for at in range(least, len(made)) if self._count(made[:at]) == count), None)
            if found is None:
                return None
            places.append(found)
        return places

    def _count(self, text: str) -> int:
        return self.vocabulary.length(text)


def _blank(url: str) -> str:
    """A picture of the same size, which is all that is counted of one; its pixels are left out."""
    try:
        _, width, height = images.header(url)
    except images.UnreadableError:
        width = height = 1

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0))
    picture = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    return f"data:image/png;base64,{base64.b64encode(picture).decode()}"


def _word(piece: str) -> str:
    return "".join(filter(str.isalnum, piece)).lower()


def _at(text: str, cuts: Sequence[int]) -> list[str]:
    return [text[start:end] for start, end in pairwise((0, *cuts, len(text)))]


def is_json(text: str) -> bool:
    """Whether a text is JSON that has values of its own."""
    return text.lstrip()[:1] in ("{", "[")


def fixed_of(text: str, *, is_json: bool, stops: Collection[str] = ()) -> set[int]:
    """The places of a text that stay as they are: tags, stops, and of JSON all but its values."""
    fixed = {at for found in TAGS.finditer(text) for at in range(*found.span())}
    for stop in filter(None, stops):
        fixed |= {at for found in re.finditer(re.escape(stop), text) for at in range(*found.span())}
    if not is_json:
        return fixed
    values: set[int] = set()
    for found in JSON_PART.finditer(text):
        if found["key"]:
            continue
        is_text = found["text"] is not None
        start, end = found.span("text") if is_text else found.span()
        values |= {*range(start, end)}
        if is_text:
            values -= {at for escape in ESCAPE.finditer(text, start, end) for at in range(*escape.span())}
        else:
            values -= {at for at in range(start, end) if not text[at].isdigit()}
    return fixed | ({*range(len(text))} - values)


# A place of a text in a document: its holder, its key there, and what it is a part of.
Slot = tuple[Any, Any, tuple[object, ...]]


def _slots(document: Any, side: tuple[object, ...] = (), key: str = "") -> Iterator[Slot]:
    """The texts of a document, each with the side it is a part of: the choice, the call, the field."""
    if isinstance(document, dict):
        if isinstance(document.get("index"), int):
            side = (*side, document["index"])
        for name, value in document.items():
            if name in KEPT:
                continue
            if isinstance(value, str):
                yield document, name, (*side, name)
            else:
                yield from _slots(value, side, name)
    elif isinstance(document, list):
        for at, value in enumerate(document):
            if isinstance(value, str):
                yield document, at, (*side, key)
            else:
                yield from _slots(value, side, key)


def redacted(document: Mapping[str, Any], vocabulary: Vocabulary) -> Json:
    """A call without a word of its caller's or of its upstream's."""
    made, filler = deepcopy(dict(document)), Filler(vocabulary)
    made["redacted"] = True
    made.pop("account", None)
    made.pop("not_offered", None)
    caller = made["caller"]
    caller["headers"] = _headers(caller["headers"])
    asked = _parsed(decoded(caller["body"]))
    for holder, key, _ in _slots(asked):
        filler.hear(holder[key])
    stops = [stop for stop in _stops(asked) if isinstance(stop, str)]
    caller["body"] = _alone(caller["body"], filler)
    sides = _Sides(filler, stops)
    for call in made["upstream"]:
        call["target"], call["headers"] = UPSTREAM, _headers(call["headers"])
        call["body"] = _alone(call["body"], filler)
        sides.read(call)
    sides.hear_packets(handed(made))
    sides.write(made)
    for line in made["journal"]:
        if "key_id" in line:
            line["key_id"] = line["key_name"] = None
        for attempt in line.get("attempts", ()):
            attempt["target"] = UPSTREAM
    return made


def _headers(headers: Mapping[str, str]) -> Json:
    return {
        name: value if name.lower() in KEPT_HEADERS or name.lower().startswith("x-dashscope-") else REDACTED
        for name, value in headers.items()
    }


def _parsed(wire: bytes) -> Any:
    try:
        return orjson.loads(wire)
    except orjson.JSONDecodeError:
        return None


def _stops(asked: Any) -> list[Any]:
    given = asked if isinstance(asked, dict) else {}
    said = (given.get("parameters") or {}).get("stop", given.get("stop")) or []
    return [said] if isinstance(said, str) else list(said)


def _alone(said: Mapping[str, Any], filler: Filler) -> Json:
    """A body that stands for itself."""
    wire = decoded(said)
    document = _parsed(wire)
    if not isinstance(document, dict):
        # Longer ones are calls of which only the beginning is kept: nobody plays them.
        text = wire.decode("utf-8", "replace")
        return coded(filler.whole(text).encode() if len(text) <= LONGEST_BROKEN_CHARS else b"x" * len(text))
    for holder, key, _ in [*_slots(document)]:
        holder[key] = filler.whole(holder[key])
    return coded(orjson.dumps(document))


@dataclass(slots=True)
class _Event:
    """A part of a wire: bytes that stay, or a document between two of them."""

    wire: bytes
    head: bytes = b""
    document: Any = None
    tail: bytes = b""

    def dumped(self) -> bytes:
        return self.wire if self.document is None else self.head + orjson.dumps(self.document) + self.tail


_BLOCK: Final = re.compile(rb".*?(?:\r?\n\r?\n|\Z)", re.DOTALL)
_DATA: Final = re.compile(rb"(.*?(?:^|\n)data: ?)(.*?)(\r?\n.*)?\Z", re.DOTALL)


def _events(wire: bytes) -> list[_Event]:
    """The events of a stream, or the one document of a body."""
    document = _parsed(wire)
    if isinstance(document, dict):
        return [_Event(wire, b"", document, b"")]
    found = []
    for block in filter(None, _BLOCK.findall(wire)):
        data = _DATA.match(block)
        document = _parsed(data[2]) if data else None
        if data and isinstance(document, dict):
            found.append(_Event(block, data[1], document, data[3] or b""))
        else:
            found.append(_Event(block))
    return found


class _Sides:
    """The texts of an answer, each as a whole, with all places where a border of its upstream's or ours cuts it."""

    def __init__(self, filler: Filler, stops: Collection[str]) -> None:
        self._filler = filler
        self._stops = stops
        self._calls: list[list[_Event]] = []
        self._packets: list[list[_Event]] = []
        # Of each side the slots that it is in, in order.
        self._slots: dict[tuple[object, ...], list[Slot]] = {}
        self._ours: dict[tuple[object, ...], list[Slot]] = {}

    def read(self, call: Mapping[str, Any]) -> None:
        """Take what one upstream call has said."""
        number = len(self._calls)
        events = _events(b"".join(decoded(read) for read in call["reads"]))
        self._calls.append(events)
        for event in events:
            if event.document is not None and (call["status"] != OK or "error" in event.document):
                self._quote(event.document)
            elif event.document is not None:
                for slot in _slots(event.document):
                    self._slots.setdefault((number, *slot[2]), []).append(slot)

    def hear_packets(self, packets: Sequence[Mapping[str, Any]]) -> None:
        """Take what the caller was handed."""
        for packet in packets:
            events = _events(decoded(packet))
            self._packets.append(events)
            for event in events:
                if event.document is None:
                    continue
                if "code" in event.document or "error" in event.document:
                    self._quote(event.document)
                    continue
                for slot in _slots(event.document):
                    self._ours.setdefault(slot[2], []).append(slot)

    def write(self, made: Json) -> None:
        """Fill all sides, and put them back into the document."""
        texts = {side: [holder[key] for holder, key, _ in slots] for side, slots in self._slots.items()}
        cuts = {side: [*accumulate(map(len, said))][:-1] for side, said in texts.items()}
        spans = {side: self._found(side, slots, texts) for side, slots in self._ours.items()}
        for span in spans.values():
            if span is not None:
                cuts[span[0]] = sorted({*cuts[span[0]], *(at for pair in span[1] for at in pair)})
        filled: dict[tuple[object, ...], tuple[list[int], list[str]]] = {}
        for side, said in texts.items():
            whole = "".join(said)
            places = [cut for cut in cuts[side] if 0 < cut < len(whole)]
            fixed = fixed_of(whole, is_json=side[-1] == "arguments" or is_json(whole), stops=self._stops)
            filled[side] = ([0, *places, len(whole)], self._filler.text(whole, places, fixed))
            ends = [0, *accumulate(map(len, said))]
            for (holder, key, _), pair in zip(self._slots[side], pairwise(ends), strict=True):
                holder[key] = _between(filled[side], *pair)
        for side, slots in self._ours.items():
            span = spans[side]
            for at, (holder, key, _) in enumerate(slots):
                holder[key] = (
                    self._filler.whole(holder[key]) if span is None else _between(filled[span[0]], *span[1][at])
                )
        self._put_back(made)

    def _quote(self, document: Json) -> None:
        for holder, key, _ in [*_slots(document)]:
            holder[key] = self._filler.quoted(holder[key])

    def _found(
        self, side: tuple[object, ...], slots: Sequence[Slot], texts: Mapping[tuple[object, ...], Sequence[str]]
    ) -> tuple[tuple[object, ...], list[tuple[int, int]]] | None:
        """The side of upstream's that ours tells, and which part of it each packet holds; None where it is another."""
        said = [holder[key] for holder, key, _ in slots]
        whole, last = "".join(said), said[-1]
        for theirs, parts in texts.items():
            if theirs[-1] != side[-1]:
                continue
            text = "".join(parts)
            if text.startswith(whole):
                return theirs, [*pairwise([0, *accumulate(map(len, said))])]
            if last and text.startswith(last) and all(last.startswith(one) for one in said):
                return theirs, [(0, len(one)) for one in said]
        return None

    def _put_back(self, made: Json) -> None:
        for call, events in zip(made["upstream"], self._calls, strict=True):
            _mend_logprobs(events)
            sizes = [len(decoded(read)) for read in call["reads"]]
            for read, wire in zip(call["reads"], _recut(events, sizes), strict=True):
                _recode(read, wire)
        for packet, events in zip(handed(made), self._packets, strict=True):
            _mend_logprobs(events)
            _recode(packet, b"".join(event.dumped() for event in events))


def _recode(said: Json, wire: bytes) -> None:
    """Other bytes in their place: what was text may not be text any more, and the other way round."""
    for form in ("text", "base64"):
        said.pop(form, None)
    said.update(coded(wire))


def _between(filled: tuple[Sequence[int], Sequence[str]], start: int, end: int) -> str:
    places, parts = filled
    return "".join(part for at, part in zip(places, parts, strict=False) if start <= at < end)


def _mend_logprobs(events: Sequence[_Event]) -> None:
    """The bytes beside a token are those of the token."""

    def mend(document: Any) -> None:
        if isinstance(document, dict):
            if isinstance(document.get("token"), str) and isinstance(document.get("bytes"), list):
                document["bytes"] = [*document["token"].encode()]
            for value in document.values():
                mend(value)
        elif isinstance(document, list):
            for value in document:
                mend(value)

    for event in events:
        mend(event.document)


def _recut(events: Sequence[_Event], sizes: Sequence[int]) -> Iterator[bytes]:
    """The bytes of some events as they came: what ended with an event still does, what ended inside one ends inside."""
    before = [0, *accumulate(len(event.wire) for event in events)]
    dumped = [event.dumped() for event in events]
    after = [0, *accumulate(map(len, dumped))]
    wire = b"".join(dumped)
    move: Callable[[int], int] = functools.partial(_moved, before, after)
    for start, end in pairwise([0, *accumulate(sizes)]):
        yield wire[move(start) : move(end)]


def _moved(before: Sequence[int], after: Sequence[int], at: int) -> int:
    event = bisect_left(before, at)
    if before[event] == at:
        return after[event]
    # Inside the event before: as far into it as it was.
    whole, now = before[event] - before[event - 1], after[event] - after[event - 1]
    inside = (at - before[event - 1]) * now // whole
    return after[event - 1] + max(1, inside)
