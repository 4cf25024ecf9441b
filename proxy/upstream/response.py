"""What an upstream answered, as the way of a call sees it: a head, bytes as they come, and three ways to fail.

No HTTP library is named here. `client` maps what its library raises to these errors, once. Source: spec ERR-4.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import ClassVar, Protocol

from translators import faults
from translators.openai import failures

# The status of an answer; `HTTPStatus.OK` is two function calls.
OK = 200
# What is read at once is written before more is read. A cumulative packet holds the whole text so far, so that the
# bytes of one read may become hundreds of times as many: what a caller who does not read costs is decided here.
READ_BYTES = 32 << 10

# Longer JSON answers come from no model.
COMPLETION_BYTES = 64 << 20


class Result(Enum):
    """What came of a try: an answer, whose status says more, or none. The value is the word of the record.

    OPEN: nobody waited for it to end
    """

    OPEN = "open"
    ANSWERED = "answered"
    UNREACHABLE = "unreachable"
    SLOW = "connect_timeout"
    BROKEN = "broken"


class UpstreamFailure(Exception):  # noqa: N818 - its kinds are named for what happened
    """No answer, or none that is whole.

    detail: what the library or the system called it, for the log; it holds nothing that upstream said
    fault:  what it is to the caller
    result: what the record of the try says
    """

    fault: ClassVar[faults.Fault]
    result: ClassVar[Result]
    words: ClassVar[str]

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail

    def refusal(self) -> faults.Refusal:
        """The refusal this failure becomes, with the cause for the log."""
        return faults.Refusal(self.fault, f"{self.words} ({self.detail})")


class Unreachable(UpstreamFailure):
    """No connection was made: refused, unroutable, no such name, a certificate that is not believed."""

    fault = faults.UNAVAILABLE
    result = Result.UNREACHABLE
    words = "no connection"


class Slow(UpstreamFailure):
    """No connection was made within `connect_timeout`."""

    fault = faults.TIMED_OUT
    result = Result.SLOW
    words = "connect_timeout fired"


class Broken(UpstreamFailure):
    """The connection ended before the answer did, or brought what is no HTTP."""

    fault = faults.UPSTREAM_BROKEN
    result = Result.BROKEN
    words = faults.CUT


class Response(Protocol):
    """The answer to one POST, its head read and its body not. Whoever asked closes it.

    status:       of HTTP
    content_type: the media type in lower case, without parameters; "" where there is none
    retry_after:  the header as it came; None where there is none
    """

    status: int
    content_type: str
    retry_after: str | None

    async def read(self) -> bytes:
        """What has come, at most `READ_BYTES` of it, waiting for the first of them; b"" at the end. Raises `Broken`."""

    async def pour(self, take: Callable[[bytes], bool]) -> None:
        """Hand what comes to `take`, read by read, until it has enough (it returns True) or the body has ended.

        `take` runs inside the turn of the loop in which the bytes came. Raises `Broken`, and whatever `take` raises.
        """

    def at_end(self) -> bool:
        """Whether the body has come in whole and was read."""

    def close(self) -> None:
        """Let go of the connection: it serves again if its answer was read to the end, and is closed if not."""


async def failure_of(response: Response, terms: failures.Terms) -> faults.Refusal:
    """The refusal that a response other than a success stands for. Raises `Broken`."""
    raw = await _whole(response, failures.BODY_LIMIT)
    return failures.of_response(response.status, raw[: failures.BODY_LIMIT], terms, response.retry_after)


async def completion_of(response: Response, hold: Callable[[int], None] | None = None) -> bytes:
    """The whole body of a JSON answer. Raises `Broken`, and `Refusal` where it is longer than any model's.

    hold: told how many bytes more the call holds, where that is more than one read; may raise `Refusal`
    """
    raw = await response.read()
    if len(raw) <= READ_BYTES and response.at_end():
        return raw  # as nearly every one
    raw = await _whole(response, COMPLETION_BYTES, hold, raw)
    if len(raw) > COMPLETION_BYTES:
        raise faults.Refusal(
            faults.UPSTREAM_BROKEN, f"upstream sent a completion of more than {COMPLETION_BYTES} bytes"
        )
    return raw


async def _whole(
    response: Response, limit: int, hold: Callable[[int], None] | None = None, first: bytes = b""
) -> bytes:
    parts, size, held = [first], len(first), 0
    while size <= limit and (part := await response.read()):
        parts.append(part)
        size += len(part)
        if hold is not None and size > READ_BYTES:
            hold(size - held)
            held = size
    return b"".join(parts)
