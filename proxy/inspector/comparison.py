"""Two answers to one call -> what differs between them, event by event; what differs in every answer is left out.

Set apart as well is what a server has learned of its upstream's prompt template between the two (spec USE-5).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import dropwhile, zip_longest
from typing import Any, Final

import orjson

from translators.sse import ERROR, Decoder, is_stream
from translators.usage import PLAUSIBLE_DIFFERENCE

# Made anew for every answer.
FRESH: Final = frozenset({"request_id", "id", "created"})
MOST_EVENT_BYTES: Final = 16 << 20
SHOWN_CHARS: Final = 60
ABSENT: Final = object()
# Figures that the count of the prompt is a part of.
OF_THE_PROMPT: Final = frozenset(
    f".usage.{name}"
    for name in (
        *("input_tokens", "prompt_tokens", "total_tokens"),
        *("input_tokens_details.text_tokens", "prompt_tokens_details.text_tokens"),
    )
)


def differences(before: bytes, after: bytes) -> Iterator[str]:
    """A line for each place where the second answer says something else than the first, in order.

    A `correction` is none.
    """
    one, other, learned = events(before), events(after), correction(before, after)
    if len(one) != len(other):
        yield f"{len(one)} events before, {len(other)} now"
    for number, (was, is_now) in enumerate(zip_longest(one, other, fillvalue=ABSENT), 1):
        for path, old, new in _apart(was, is_now, ""):
            if not (learned and path in OF_THE_PROMPT and _more(old, new) == learned):
                yield f"event {number}{path}: {_shown(old)} before, {_shown(new)} now"


def correction(before: bytes, after: bytes) -> int:
    """How many tokens more the second answer says of the prompt, all along or until upstream told; 0 where it is no
    correction that a server learns: such a one is the same in every packet (spec USE-5).
    """
    pairs = zip(_prompts(events(before)), _prompts(events(after)), strict=False)
    more = [now - was for was, now in pairs]
    learned = more[0] if more else 0
    is_learned = abs(learned) <= PLAUSIBLE_DIFFERENCE and not any(dropwhile(lambda one: one == learned, more))
    return learned if is_learned else 0


def _prompts(answer: list[Any]) -> Iterator[int]:
    for event in answer:
        usage = event.get("usage") if isinstance(event, Mapping) else None
        if isinstance(usage, Mapping):
            figure = usage.get("input_tokens", usage.get("prompt_tokens"))
            if isinstance(figure, int):
                yield figure


def _more(old: Any, new: Any) -> int | None:
    return new - old if isinstance(old, int) and isinstance(new, int) else None


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
