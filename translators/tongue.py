"""A caller's tongue: all that the pipe and the shell need of the protocol a caller speaks.

A tongue is a module that has these names (`translators.dashscope.tongue`); a row of the routes says which path speaks
which. What all tongues have in common is the shell's: statuses and `Retry-After` (a `Fault` has them), the request id's
header, when the head of a stream is held and when a heartbeat is due (spec HTTP-6, SSE-2, SSE-11).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple, Protocol

from translators import choice
from translators.catalogue import Catalogue
from translators.choice import Choice
from translators.dialogue import Call, Json, Usage
from translators.faults import Fault
from translators.usage import Tally


class Handed(NamedTuple):
    """What the caller's socket has been handed.

    packets: how many; a reply is one, an error frame is none
    usage:   what a caller who has read them all has been told of tokens, or could have been: all choices together, up
             to the last packet; None before there was one (spec MET-3)
    """

    packets: int
    usage: Usage | None


# What an entry of log probabilities takes, about, with the alternatives it names.
ENTRY_BYTES: Final = 2_048

# What a writer knows of one moment of an answer; nobody else looks into it.
Mark = Any


class Writer(choice.Writer, Protocol):
    """Lays out one call's answer; a stream's frames or a reply.

    kept_bytes: about how much it keeps of the answer
    repeats:    whether each frame says all of that again
    """

    @property
    def kept_bytes(self) -> int: ...

    @property
    def repeats(self) -> bool: ...

    def take(self) -> bytes:
        """Every frame since the last take, each whole; nothing of a reply."""

    def whole(self, choices: Sequence[Choice], used: Usage, /) -> bytes:
        """Every choice has had its finish: the frames that are left and those that end a stream, or the reply.

        used: the usage of all choices
        """

    def error(self, fault: Fault) -> bytes:
        """What ends an answer that has begun and failed; the last that is asked of a writer."""

    def hand_over(self) -> None:
        """All that was taken is in the caller's socket."""

    def mark(self) -> Mark:
        """What was taken so far, to be handed over later."""

    def hand_over_to(self, mark: Mark, /) -> None:
        """What was taken up to there is in the caller's socket."""

    def handed(self) -> Handed:
        """What is in the caller's socket, as far as was said."""


class Tongue(Protocol):
    """The names a tongue's module has.

    API:            its name in the books
    STREAM_HEADERS: of the head of a stream
    HEARTBEAT:      what shows in a silent stream that we are alive; no client may take it for an event (spec SSE-11)
    """

    @property
    def API(self) -> str: ...  # noqa: N802 - a module's constant

    @property
    def STREAM_HEADERS(self) -> Mapping[str, str]: ...  # noqa: N802

    @property
    def HEARTBEAT(self) -> bytes: ...  # noqa: N802

    def check(self, headers: Mapping[str, str]) -> None:
        """Raise `Refusal` for what a header asks for and no upstream can do; before the body is read."""

    def read(self, body: bytes | bytearray, /) -> Json:
        """The document in a request body; raises `Refusal` where it is none."""

    def wants_stream(self, headers: Mapping[str, str], document: Json) -> bool:
        """Whether the caller asks for SSE."""

    def translate(
        self,
        document: Json,
        catalogue: Catalogue,
        *,
        stream: bool,
        decode: Callable[[Sequence[int]], bytes],
        path_model: str | None,
        strict_thinking: bool | None,
    ) -> Call:
        """The call that a document makes; raises `Refusal` for the first fault in it.

        decode:          token ids to the bytes they stand for; KeyError, ValueError or OverflowError for an unknown id
        path_model:      the model in the URL, where a route has one
        strict_thinking: overrides the model's row on what thinking demands; None leaves it (spec PAR-14)
        """

    def writer(self, call: Call, tally: Tally, *, request_id: str, at_s: float) -> Writer:
        """What lays out the answer of one call, as it grows.

        at_s: wall clock, when the call was received
        """

    def failure(self, fault: Fault, request_id: str) -> bytes:
        """The body of an answer that is a failure, JSON."""

    def failure_headers(self, fault: Fault, now_s: float) -> Mapping[str, str]:
        """What its head says beside `Retry-After`; now_s: the time of day, in seconds since 1970."""
