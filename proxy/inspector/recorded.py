"""One call as both doors saw it: what came and what left, when, and with no key in it.

Times are milliseconds since the call came in, to a tenth. Keys are masked here, before anything is kept.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from time import monotonic
from typing import Final

from proxy.metering.journal import Record

# Words in the name of a header whose value lets somebody in, and what stands for such a value.
SECRET_WORDS: Final = ("auth", "cookie", "key", "password", "secret", "signature", "token")
# As keys of the services we know are written: masked wherever a head or a path has one.
KEY: Final = re.compile(r"\bsk-[A-Za-z0-9_-]{8,}")
MASKED: Final = "(masked)"
# A shorter key is a word that stands in many texts: masked where it is a header, not in what is said.
SHORTEST_KEY: Final = 6
# What Python needs for one read or packet beside its bytes, about.
ENTRY_BYTES: Final = 200


@dataclass(slots=True)
class Read:
    """What came from upstream at once."""

    at_ms: float
    wire: bytes


@dataclass(slots=True)
class Packet:
    """What was handed to the caller at once.

    call, read: the upstream call, and the read of it, in whose turn it left; -1 where it was none's
    """

    at_ms: float
    frames: bytes
    call: int
    read: int


@dataclass(slots=True)
class UpstreamCall:
    """One upstream call.

    number:  among those of its call, from 0
    target:  the base URL that answered; "" before one has
    pool:    whose it is; "" where there is but the one of `--upstream`
    status:  0 before a head has come
    failure: what kept it from being answered, or from ending; "" where nothing did
    """

    number: int
    path: str
    body: bytes
    headers: dict[str, str]
    asked_ms: float
    target: str = ""
    pool: str = ""
    status: int = 0
    content_type: str = ""
    answered_ms: float | None = None
    ended_ms: float | None = None
    failure: str = ""
    reads: list[Read] = field(default_factory=list)


class Mask:
    """What replaces keys by stars of the same length, so that no frame changes its shape."""

    __slots__ = ("_keys", "_reach")

    def __init__(self) -> None:
        self._keys: list[bytes] = []
        self._reach = 0

    def add(self, key: str | None) -> None:
        """Take a key; from now on it is masked."""
        secret = (key or "").encode("utf-8", "surrogateescape")
        if len(secret) >= SHORTEST_KEY and secret not in self._keys:
            self._keys.append(secret)
            self._reach = max(self._reach, len(secret) - 1)

    def __call__(self, wire: bytes) -> bytes:
        for key in self._keys:
            if key in wire:
                wire = wire.replace(key, b"*" * len(key))
        return wire

    def spans(self, before: Sequence[Read], wire: bytes) -> int:
        """How many of the newest reads hold the beginning of a key that ends in the next one; 0 where there is none."""
        if not before or not self._reach:
            return 0
        reads, tail = 1, before[-1].wire
        while len(tail) < self._reach and reads < len(before):
            reads += 1
            tail = before[-reads].wire + tail
        seam = tail[-self._reach :] + wire[: self._reach]
        for key in self._keys:
            if key in seam:
                return reads
        return 0

    def across(self, pieces: Sequence[bytes]) -> list[bytes]:
        """Pieces of a wire, where a key may begin in one and end in another."""
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


@dataclass(slots=True)
class RecordedCall:
    """One call, or a request that was none.

    number:     ours, from 1 in each process
    began_s:    when it came, on the monotonic clock; `at_s` by the wall clock
    body:       inflated
    model:      as its caller named it, once somebody has asked for that
    hint:       what a request that is no call may have meant
    status:     of a request that is no call; 0 of a call, whose record says it
    record:     what the books say of it, once it has ended
    held_bytes: what is kept of it
    lost_bytes: what came beyond the bound of one call, and is not kept
    lost_body_bytes: those of them that are of the caller's body
    limit:      that bound
    refusal:    the body of an answer that is a failure and nothing else; no packet, to the books as well
    looked_at:  the upstream call and the read that came last, for the packets that leave meanwhile
    """

    number: int
    at_s: float
    method: str
    path: str
    api: str
    request_id: str
    headers: dict[str, str]
    limit: int
    began_s: float = field(default_factory=monotonic)
    body: bytes = b""
    read_ms: float | None = None
    upstream: list[UpstreamCall] = field(default_factory=list)
    packets: list[Packet] = field(default_factory=list)
    streams: bool = False
    model: str = ""
    hint: str = ""
    status: int = 0
    record: Record | None = None
    ended_ms: float | None = None
    held_bytes: int = 0
    lost_bytes: int = 0
    lost_body_bytes: int = 0
    refusal: bytes = b""
    is_forgotten: bool = False
    mask: Mask = field(default_factory=Mask)
    looked_at: tuple[int, int] = (-1, -1)

    def now_ms(self) -> float:
        """Since it came."""
        return round((monotonic() - self.began_s) * 1e3, 1)

    def hold(self, size: int) -> bool:
        """Whether so many bytes more fit into the bound of one call; what does not is counted as lost."""
        if self.is_forgotten or self.held_bytes + size + ENTRY_BYTES > self.limit:
            self.lost_bytes += size
            return False
        self.held_bytes += size + ENTRY_BYTES
        return True

    def take_body(self, body: bytes | bytearray) -> None:
        """Keep the caller's body, or the beginning that fits."""
        self.read_ms = self.now_ms()
        kept = bytes(body[: max(0, self.limit - self.held_bytes - ENTRY_BYTES)])
        self.lost_body_bytes = len(body) - len(kept)
        self.lost_bytes += self.lost_body_bytes
        self.held_bytes += len(kept) + ENTRY_BYTES
        self.body = self.mask(kept)

    def ask(self, path: str, body: bytes, headers: Mapping[str, str]) -> UpstreamCall:
        """Keep an upstream call that is being made."""
        kept = self.mask(body) if self.hold(len(body)) else b""
        call = UpstreamCall(len(self.upstream), path, kept, masked_headers(headers.items()), self.now_ms())
        self.upstream.append(call)
        return call

    def take_read(self, call: UpstreamCall, wire: bytes) -> None:
        """Keep what has come from upstream, and take packets that leave from now on for what it has become."""
        reads = call.reads
        if self.hold(len(wire)):
            wire = self.mask(wire)
            if spanned := self.mask.spans(reads, wire):
                *before, wire = self.mask.across([*(read.wire for read in reads[-spanned:]), wire])
                for read, masked in zip(reads[-spanned:], before, strict=True):
                    read.wire = masked
            reads.append(Read(self.now_ms(), wire))
        self.looked_at = (call.number, len(reads) - 1)

    def take_packet(self, frames: bytes) -> None:
        """Keep what is handed to the caller."""
        if self.hold(len(frames)):
            self.packets.append(Packet(self.now_ms(), self.mask(frames), *self.looked_at))

    def take_refusal(self, body: bytes) -> None:
        """Keep the answer that was a failure and nothing else."""
        if self.hold(len(body)):
            self.refusal = self.mask(body)

    def close(self, record: Record) -> None:
        """Keep what the books say of it."""
        self.record, self.ended_ms = record, self.now_ms()

    def forget(self) -> None:
        """Keep nothing of it any more."""
        self.is_forgotten = True
        self.body = self.refusal = b""
        self.packets.clear()
        for call in self.upstream:
            call.body = b""
            call.reads.clear()
