"""Two answers to one call -> what differs between them, event by event; what differs in every answer is left out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import zip_longest
from typing import Any, Final

import orjson

from translators.sse import ERROR, Decoder, is_stream

# Made anew for every answer.
FRESH: Final = frozenset({"request_id", "id", "created"})
MOST_EVENT_BYTES: Final = 16 << 20
SHOWN_CHARS: Final = 60
ABSENT: Final = object()


def differences(before: bytes, after: bytes) -> Iterator[str]:
    """A line for each place where the second answer says something else than the first, in order."""
    one, other = events(before), events(after)
    if len(one) != len(other):
        yield f"{len(one)} events before, {len(other)} now"
    for number, (was, is_now) in enumerate(zip_longest(one, other, fillvalue=ABSENT), 1):
        for path, old, new in _apart(was, is_now, ""):
            yield f"event {number}{path}: {_shown(old)} before, {_shown(new)} now"


def events(body: bytes) -> list[Any]:
    """The data of a stream's events, or the one document of a reply."""
    if not is_stream(body):
        return [_read(body)] if body else []
    decoder = Decoder(MOST_EVENT_BYTES)
    return [_read(data.removeprefix(ERROR)) for data in (*decoder.feed(body), *decoder.eof())]


def _read(data: bytes) -> Any:
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        return data.decode("utf-8", "replace").strip()


def _apart(one: Any, other: Any, path: str) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        for name in dict.fromkeys((*one, *other)):
            if name not in FRESH:
                yield from _apart(one.get(name, ABSENT), other.get(name, ABSENT), f"{path}.{name}")
    elif isinstance(one, list) and isinstance(other, list):
        for at, (was, is_now) in enumerate(zip_longest(one, other, fillvalue=ABSENT)):
            yield from _apart(was, is_now, f"{path}[{at}]")
    elif one is not other and (type(one) is not type(other) or one != other):
        yield path, one, other


def _shown(value: Any) -> str:
    if value is ABSENT:
        return "nothing"
    text = orjson.dumps(value).decode()
    return text if len(text) <= SHOWN_CHARS else f"{text[:SHOWN_CHARS]}…"
