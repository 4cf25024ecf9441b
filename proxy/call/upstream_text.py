"""Upstream's sentence about a failure -> what the log may say of it: nothing that quotes the call (spec MET-4).

Some upstreams quote a part of the prompt in theirs. Looked at once, for a call that has failed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import orjson

from translators import faults
from translators.dialogue import Call

REPEATS: Final = "(left out: it repeats the call)"
# A piece of so many bytes of UTF-8 that both say is no accident; it is looked for at every fourth byte.
PIECE_BYTES: Final = 16
STEP_BYTES: Final = 4
# A text shorter than a piece is looked for whole, unless it is a mere syllable.
SHORTEST_BYTES: Final = 4
# Beyond so much text the search would hold up the event loop for more than some milliseconds.
MOST_BYTES: Final = 64 << 10


def for_log(refusal: faults.Refusal | None, call: Call | None) -> str | None:
    """The sentence, `REPEATS` in its place where it quotes the call, None where upstream said nothing."""
    if refusal is None or not refusal.said:
        return None
    if call is None:
        return refusal.said
    sentence, seen_bytes = _plain(refusal.said), 0
    pieces = [sentence[at : at + PIECE_BYTES] for at in range(0, max(0, len(sentence) - PIECE_BYTES + 1), STEP_BYTES)]
    for text in _texts(call):
        seen_bytes += len(text)
        if seen_bytes > MOST_BYTES:
            return REPEATS
        said = _plain(text)
        short = SHORTEST_BYTES <= len(said) < PIECE_BYTES + STEP_BYTES
        if (short and said in sentence) or any(piece in said for piece in pieces):
            return REPEATS
    return refusal.said


def _texts(call: Call) -> Iterator[str]:
    """Everything the caller has written, in no order."""
    for message in call.messages:
        yield message.content or ""
        yield message.reasoning or ""
        for made in message.tool_calls:
            yield made.arguments
    for tool in call.tools:
        yield orjson.dumps(tool.function).decode()
    yield from call.stops


def _plain(text: str) -> bytes:
    """One line in lower case, as a sentence that was cleaned is: white space does not hide a quotation."""
    return " ".join(text.split()).lower().encode("utf-8", "replace")
