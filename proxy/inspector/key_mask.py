"""Headers, paths and bodies of a call -> the same with its keys masked, before anything of it is kept.

What callers and models say stays as it is; `redaction` replaces that, where a call is exported to be shown to others.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import accumulate, pairwise
from typing import Final, Protocol

# Words in the name of a header whose value lets somebody in, and what stands for such a value.
SECRET_WORDS: Final = ("auth", "cookie", "key", "password", "secret", "signature", "token")
# As keys of the services we know are written: masked wherever a head or a path has one.
KEY: Final = re.compile(r"\bsk-[A-Za-z0-9_-]{8,}")
MASKED: Final = "(masked)"
# A shorter key is a word that stands in many texts: masked where it is a header, not in what is said.
SHORTEST_KEY: Final = 6


class HasWire(Protocol):
    """The bytes of one read."""

    @property
    def wire(self) -> bytes: ...


class Mask:
    """Replaces the keys of one call by stars of the same length, so that no frame changes its shape."""

    __slots__ = ("_keys",)

    def __init__(self) -> None:
        self._keys: list[bytes] = []

    def add(self, key: str | None) -> None:
        """Take a key; from now on it is masked."""
        secret = (key or "").encode("utf-8", "surrogateescape")
        if len(secret) >= SHORTEST_KEY and secret not in self._keys:
            self._keys.append(secret)

    def __call__(self, wire: bytes) -> bytes:
        for key in self._keys:
            if key in wire:
                wire = wire.replace(key, b"*" * len(key))
        return wire

    def spans(self, before: Sequence[HasWire], wire: bytes) -> int:
        """How many of the newest reads hold the beginning of a key that ends in the next one; 0 where there is none."""
        if not before or not self._keys:
            return 0
        reach = max(map(len, self._keys)) - 1
        reads, tail = 1, before[-1].wire
        while len(tail) < reach and reads < len(before):
            reads += 1
            tail = before[-reads].wire + tail
        seam = tail[-reach:] + wire[:reach]
        for key in self._keys:
            if key in seam:
                return reads
        return 0

    def across(self, pieces: Sequence[bytes]) -> list[bytes]:
        """Mask a key that begins in one of some reads and ends in another; each keeps its length."""
        masked, ends = self(b"".join(pieces)), [0, *accumulate(map(len, pieces))]
        return [masked[start:end] for start, end in pairwise(ends)]


def masked_headers(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Headers by their names as they came; of one that came twice the last."""
    return {
        str(name): MASKED if any(word in name.lower() for word in SECRET_WORDS) else masked_text(str(value))
        for name, value in headers
    }


def masked_text(text: str) -> str:
    """A path or a header's value without what is written like a key."""
    return KEY.sub(MASKED, text)
