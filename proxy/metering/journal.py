"""A call's beginning and end into two lines of the usage journal: what was delivered, what was generated, how it ended.

The `open` line is there before the upstream is called, so that a call which a crash cuts off is unknown, never missing.
Everything here is synchronous: a `finally` that closes an entry cannot be cancelled half-way.
Source: spec MET-1…MET-4; SOURCES#usage-record.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import os
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final, Literal, NotRequired, TypedDict

import orjson
import structlog

from config.settings import Settings, SettingsError
from proxy.metering import seals
from proxy.metering.append_file import DASH, LineFile, StandardOutput
from proxy.metering.outcome import Outcome as Outcome  # noqa: PLC0414 - a record's word, for who knows the journal
from translators import dialogue, faults
from translators.usage import Basis

log = structlog.get_logger()

Policy = Literal["refuse", "continue"]

SYNC_EVERY_S: Final = 1.0
# At the end, so long for the disk to take the last lines; they are in the kernel's hands by then, whatever it does.
LAST_SYNC_S: Final = 5.0
UNWRITABLE: Final = replace(faults.UNAVAILABLE, blame="operator")


class Told(TypedDict):
    """What upstream has said of one upstream call, in tokens; None where it has not said that.

    prompt:     its prompt
    cached:     the part of it that was read from a cache
    completion: what was generated
    reasoning:  the chain of thought
    """

    prompt: int | None
    cached: int | None
    completion: int | None
    reasoning: int | None


class Attempt(TypedDict):
    """One try at one upstream.

    target: its base URL
    result: what came of it: a status, or the name of what went wrong
    reused: whether it went over a connection that had served before
    pool:   the pool it is of; only where there are pools
    used:   what upstream said it has used, None where it has said nothing; only where there are pools
    """

    target: str
    result: str
    reused: bool
    pool: NotRequired[str]
    used: NotRequired[Told | None]


class OutputDetails(TypedDict):
    """The parts of `output_tokens`.

    reasoning_tokens: the chain of thought
    text_tokens:      everything else; only of models that think when asked
    """

    reasoning_tokens: int
    text_tokens: NotRequired[int]


class PromptDetails(TypedDict):
    """A part of `input_tokens`.

    cached_tokens: what upstream read from its cache
    """

    cached_tokens: int


class Usage(TypedDict):
    """Tokens of one call, whatever its caller's tongue calls them (spec MET-3).

    input_tokens:          the prompt
    output_tokens:         everything generated: chain of thought, answer and tool markup
    total_tokens:          always their sum
    output_tokens_details: where the call thinks, or a chain has come
    prompt_tokens_details: where upstream tells
    image_tokens:          the part of the prompt that is images, where it is known
    """

    input_tokens: int
    output_tokens: int
    total_tokens: int
    output_tokens_details: NotRequired[OutputDetails]
    prompt_tokens_details: NotRequired[PromptDetails]
    image_tokens: NotRequired[int]


class UpstreamCall(TypedDict):
    """What one upstream call has used, as far as is known (spec MET-3).

    prompt:     tokens of its prompt
    cached:     those read from a cache; None where upstream did not tell
    completion: tokens it generated
    reasoning:  those of its chain of thought; None where the call does not think
    basis:      whose figures these are
    end:        how its choices ended, with commas between; None where one of them had not
    """

    prompt: int
    cached: int | None
    completion: int
    reasoning: int | None
    basis: Basis
    end: str | None


class Times(TypedDict):
    """When things happened, in milliseconds since `at`; None where they did not."""

    upstream_sent: float | None
    first_packet: float | None
    last_packet: float | None
    closed: float


class Opening(TypedDict):
    """What is known of a call when it is admitted; both of its lines say it.

    at:             when it was received: UTC, RFC 3339, to the millisecond
    request_id:     the caller's, and not unique where the caller chooses it
    api:            the tongue it came in: `dashscope`, or `openai` on the compatible surface
    model:          as the model table names it
    upstream_model: the id it has upstream
    key_id:         the first twelve digits of the key's SHA-256; None where there is no key
    key_name:       its name in the keys file; None where it has none
    stream:         whether it asked for packets
    thinking:       whether it thinks
    """

    at: str
    request_id: str
    api: str
    model: str
    upstream_model: str
    key_id: str | None
    key_name: str | None
    stream: bool
    thinking: bool


class Closing(TypedDict):
    """What is known of a call when it has ended.

    outcome:      how, one of `Outcome`'s values
    status:       HTTP status sent, or the number in the error frame; 499 where the caller had left
    code:         DashScope's code that was sent; None where there was no error
    usage:        what the last packet handed to the caller's socket said, or the reply: what the caller is billed for
    generated:    the last figure known of what upstream read and produced: the sum of its calls
    basis:        where `generated` is from, at its weakest
    calls:        what each upstream call has used, in the order they were begun; of several each has a prompt
    drift_tokens: upstream's prompt tokens less our own count; None where upstream told nothing
    packets:      packets handed to the caller's socket; a reply is one
    bytes_out:    bytes of the body handed to it
    attempts:     tries upstream; empty where it was never asked
    t:            times
    source:       spec MET-3; SOURCES#usage-record
    """

    outcome: str
    status: int
    code: str | None
    usage: Usage
    generated: Usage
    basis: Basis
    calls: list[UpstreamCall]
    drift_tokens: int | None
    packets: int
    bytes_out: int
    attempts: list[Attempt]
    t: Times


# Frozen, each of its fields would be set by a call of its own.
@dataclass(slots=True)
class Record:
    """One call that has ended, as all who keep it tell it: the journal, the log, the metrics, the spans.

    request_id:     the caller's
    api:            as in `Opening`
    opening:        what was known when it was admitted; None where it was refused before
    closing:        how it ended
    key_id:         as in `Opening`, which a call that was refused early has not
    model:          what it asked for, as the model table names it; None where it was refused unread
    asked_model:    the same as its caller named it, cut and escaped; None where no name was read
    stream:         whether it asked for packets
    finish_reasons: of its choices that ended by themselves or by us, in order
    limited:        whether it was over a limit of ours
    tries:          of each attempt its pool, its target as configured, and whether it was not the first
    read_s:         how long its body took to come in, in seconds; None where it did not
    translate_s:    from there to its first upstream call, in seconds; None where it had none
    fault:          how it failed, also where nobody was there to be told; None where it did not
    cause:          why, for the operator: never a word of a caller's or of upstream's
    upstream_said:  upstream's own sentence about its failure, cleaned, for the log alone; None where there is none
    trace_id:       what it is found by in the traces; None where calls are not traced
    """

    request_id: str
    api: str
    opening: Opening | None
    closing: Closing
    key_id: str | None
    model: str | None
    asked_model: str | None
    stream: bool
    finish_reasons: tuple[str, ...]
    limited: bool
    tries: Sequence[tuple[str, str, bool]]
    read_s: float | None
    translate_s: float | None
    fault: faults.Fault | None
    cause: str | None
    upstream_said: str | None
    trace_id: str | None


def render(facts: Opening | Closing) -> bytes:
    """One half of a call's record as a JSON object: once, for every line that says it.

    It is 4 KiB, whatever it says: orjson gives its buffer as it is.
    """
    return orjson.dumps(facts)


NOTHING: Final[Usage] = {"input_tokens": 0, "output_tokens": 0, "total_tokens": 0}


class Entry:
    """An admitted call in the journal, until it is closed.

    opening: as JSON, rendered once for both lines and the log's
    """

    __slots__ = ("_call", "_closed", "_journal", "opening")

    def __init__(self, journal: Journal, call: bytes, opening: bytes) -> None:
        self._journal = journal
        self._call = call
        self._closed = False
        self.opening = opening

    def close(self, closing: bytes) -> None:
        """Write the call's `close` line; the first one counts. Never raises: what cannot be written is counted."""
        if not self._closed:
            self._closed = True
            self._journal.close_call(self._call, self.opening, closing)


class Journal:
    """The journal of this process, beside those of others in the same file.

    written: lines that are in the file
    dropped: lines that are not, exactly
    """

    def __init__(self, file: LineFile | StandardOutput | None, policy: Policy) -> None:
        self._file = file
        self._policy = policy
        # The call id in the journal is made here: a request id may be chosen by its caller, and may come twice.
        self._process = os.urandom(6).hex().encode()
        self._numbers = itertools.count(1)
        self._failing = False
        self.written = 0
        self.dropped = 0

    def open(self, opening: Opening) -> Entry:
        """Write the call's `open` line; raises `Refusal` where it cannot be written and the policy is to refuse."""
        # Kept as long as the call is open, so in a buffer of its own size.
        call, rendered = b"%b-%x" % (self._process, next(self._numbers)), b"%b" % render(opening)
        if self._file is not None:
            line = b'{"ev":"open","call":"%b",%b\n' % (call, rendered[1:])
            if not self._write(line) and self._policy == "refuse":
                raise faults.Refusal(UNWRITABLE, "the journal cannot be written")
        return Entry(self, call, rendered)

    def close_call(self, call: bytes, opening: bytes, closing: bytes) -> None:
        """Write the `close` line of an admitted call.

        call:             its name in the books
        opening, closing: JSON objects, whose members follow each other
        """
        if self._file is not None:
            self._write(b'{"ev":"close","call":"%b",%b,%b\n' % (call, opening[1:-1], closing[1:]))

    def turn_away(self, opening: bytes, closing: bytes) -> None:
        """Write the lone `close` line of a call that was never admitted, such as one over a limit: it has no name."""
        if self._file is not None:
            self._write(b'{"ev":"close","call":null,%b,%b\n' % (opening[1:-1], closing[1:]))

    def writable(self) -> bool:
        """Whether calls can be written down, or need not be (spec OPS-1)."""
        return self._file is None or self._policy == "continue" or self._file.writable()

    def _write(self, line: bytes) -> bool:
        """Write one line; True if it is in the file."""
        assert self._file is not None  # noqa: S101 - for the type checker: there is one
        try:
            self._file.append(line)
        except OSError as error:
            self.dropped += 1
            if not self._failing:
                log.error("journal_unwritable", reason=error.strerror, policy=self._policy)
            self._failing = True
            return False
        self.written += 1
        if self._failing:
            self._failing = False
            log.warning("journal_writable_again", dropped=self.dropped)
        return True

    def close(self) -> None:
        """Force the last lines to the disk and close the file."""
        if self._file is not None:
            try:
                self._file.close()
            except OSError as error:
                log.error("journal_sync_failed", reason=error.strerror)


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[Journal]:
    """The journal an operator asked for, synced as they asked, as long as the context lives.

    Raises `SettingsError` where the file cannot be written at the start: that is no time to be patient.
    """
    path = settings.journal_file
    if path is None:
        yield Journal(None, "continue")
        return
    limit = None if settings.journal_max_bytes is None else int(settings.journal_max_bytes)
    file: LineFile | StandardOutput = StandardOutput()
    if path != DASH:
        file = LineFile(path, max_bytes=limit, sync=settings.journal_fsync)
    if not file.writable():
        origin = settings.origins.get("journal_file", "default")
        raise SettingsError([f"journal_file ({origin}): cannot be written, or its disk is full"])
    journal = Journal(file, settings.journal_policy)
    over = threading.Event()
    # A thread of its own, which the end of the process need not wait for: a disk may never answer.
    syncing = threading.Thread(target=_keep_synced, args=(file, journal, over), name="journal", daemon=True)
    syncing.start()
    threading.Thread(target=_keep_sealed, args=(file, over), name="seals", daemon=True).start()
    try:
        yield journal
    finally:
        over.set()
        await asyncio.to_thread(syncing.join, LAST_SYNC_S)
        if syncing.is_alive():
            log.error("journal_sync_failed", reason=f"no answer in {LAST_SYNC_S:g} s")


def _keep_synced(file: LineFile | StandardOutput, journal: Journal, over: threading.Event) -> None:
    """Force lines to the disk once a second, and a last time when all is over."""
    while not over.wait(SYNC_EVERY_S):
        try:
            file.sync()
        except OSError as error:
            log.error("journal_sync_failed", reason=error.strerror)
    journal.close()


def _keep_sealed(file: LineFile | StandardOutput, over: threading.Event) -> None:
    """Seal each file that was rotated away, apart from syncing: to read it takes a while."""
    while not over.wait(SYNC_EVERY_S):
        try:
            file.seal(_seal)
        except OSError as error:
            log.error("journal_seal_failed", reason=error.strerror)


def _seal(descriptor: int) -> bytes:
    line = seals.seal(descriptor)
    said = orjson.loads(line)
    log.info("journal_sealed", begins=said["begins"], bytes=said["bytes"], ended=said["ended"], sha256=said["sha256"])
    return line


def usage(used: dialogue.Usage, *, hybrid: bool) -> Usage:
    """Usage as a line says it.

    hybrid: whether the model thinks when asked: of one that always does, nobody asks what else it wrote
    """
    said: Usage = {"input_tokens": used.input, "output_tokens": used.output, "total_tokens": used.total}
    if used.reasoning is not None:
        said["output_tokens_details"] = {"reasoning_tokens": used.reasoning}
        if hybrid:
            said["output_tokens_details"]["text_tokens"] = used.output - used.reasoning
    if used.cached is not None:
        said["prompt_tokens_details"] = {"cached_tokens": used.cached}
    if used.image is not None:
        said["image_tokens"] = used.image
    return said


def timestamp(epoch_s: float) -> str:
    """A wall clock's time as `at` says it."""
    second, micros = divmod(round(epoch_s * 1e6), 1_000_000)
    return f"{clock(second)}.{micros // 1000:03d}Z"


@functools.lru_cache(maxsize=2)
def clock(epoch_s: int) -> str:
    """Date and time of a second in UTC, without a zone; made once a second, for every line of a call says it."""
    return datetime.fromtimestamp(epoch_s, UTC).isoformat(timespec="seconds").removesuffix("+00:00")
