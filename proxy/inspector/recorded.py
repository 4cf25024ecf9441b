"""One call as both doors saw it: what came and what left, when, and with no key in it.

Times are milliseconds since the call came in, to a tenth. Keys are masked (`key_mask`) before anything is kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from time import monotonic
from typing import Final

from proxy.inspector.key_mask import Mask, masked_headers
from proxy.metering.journal import Record

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
