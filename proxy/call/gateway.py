"""What outlives a call: settings, models, vocabulary, upstreams, and what was learned of their prompts."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AbstractContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from config.models import ModelRow
from config.settings import Settings, SettingsError
from proxy import vocabulary
from proxy.admission import keyring
from proxy.admission.keyring import Keyring
from proxy.admission.limits import Limiter
from proxy.admission.memory_limiter import MemoryLimiter
from proxy.call import abandoned
from proxy.call.abandoned import AbandonedCalls
from proxy.call.prompt_count import CountingPool
from proxy.call.timeouts import CallTimeouts, OpenCalls, Timeout
from proxy.downstream.body import OpenBodies
from proxy.metering import journal
from proxy.metering.journal import Journal
from proxy.telemetry import metrics
from proxy.telemetry.metrics import Gauge
from proxy.telemetry.series import Row
from proxy.upstream import client
from proxy.upstream.client import Upstream
from translators.catalogue import Catalogue
from translators.dialogue import Model
from translators.openai import dialects
from translators.openai.dialects import Dialect
from translators.tokens import Vocabulary
from translators.usage import Offsets

if TYPE_CHECKING:
    from proxy.telemetry.spans import Spans


@dataclass(frozen=True, slots=True)
class Gateway:
    """One gateway; nothing in it belongs to a call.

    limits_s: how long each wait of a call may last, in seconds
    journal:  what is written down of every call
    limiter:  what lets calls in
    keyring:     the keys that are let in; None where any is, or none is needed
    abandoned_calls: calls that may outlive their callers
    open_bodies: what the bodies of open calls hold
    counting: where long prompts are counted
    spans:      where calls are told to a collector of traces, if they are
    offsets:  how far upstream's prompt templates are from ours (spec USE-5)
    open_calls: the calls that are open, for a drain to end
    """

    settings: Settings
    catalogue: Catalogue
    vocabulary: Vocabulary
    upstreams: Upstream
    dialect: Dialect
    limits_s: Mapping[Timeout, float]
    journal: Journal
    limiter: Limiter
    keyring: Keyring | None
    abandoned_calls: AbandonedCalls
    open_bodies: OpenBodies
    counting: CountingPool
    spans: Spans | None = None
    offsets: Offsets = field(default_factory=Offsets)
    open_calls: OpenCalls = field(default_factory=OpenCalls)

    def timed(self, wait: Timeout, since_s: float) -> CallTimeouts:
        """The watch of one call, which waits for this first; a drain finds it.

        since_s: loop time at which the call began
        """
        return CallTimeouts(wait, self.limits_s, self.open_calls, since_s)

    def gauges(self) -> Mapping[Row, Gauge]:
        """What is measured by looking: each row, and the look."""
        journal, upstreams, open_calls = self.journal, self.upstreams, self.open_calls
        return {
            metrics.IN_FLIGHT: lambda: {(): len(open_calls)},
            metrics.STREAMS: lambda: {(): open_calls.streams},
            metrics.CONNECTIONS: lambda: {(state,): number for state, number in upstreams.connections().items()},
            metrics.JOURNAL_LINES: lambda: {(): journal.written},
            metrics.JOURNAL_DROPPED: lambda: {(): journal.dropped},
            metrics.JOURNAL_WRITABLE: lambda: {(): journal.writable()},
        }


def catalogue_of(settings: Settings, rows: Iterable[ModelRow]) -> Catalogue:
    """The models on offer, by all their names."""
    return Catalogue((Model(**row) for row in rows), settings.aliases)


@asynccontextmanager
async def open_gateway(settings: Settings, rows: Iterable[ModelRow]) -> AsyncIterator[Gateway]:
    """The gateway an operator asked for, with its pools and files, as long as the context lives.

    Raises `SettingsError` where the journal or the keys file cannot be used, `VocabularyError` where the vocabulary
    cannot.
    """
    async with AsyncExitStack() as stack:
        catalogue = catalogue_of(settings, rows)
        yield Gateway(
            settings,
            catalogue,
            vocabulary.load(),
            await stack.enter_async_context(client.opened(settings)),
            dialects.DIALECTS[settings.dialect],
            {wait: float(getattr(settings, wait.value)) for wait in Timeout},
            await stack.enter_async_context(journal.opened(settings)),
            await stack.enter_async_context(open_limiter(settings)),
            await stack.enter_async_context(keyring.opened(settings.keys_file, catalogue))
            if settings.keys_file
            else None,
            # Last, so that it ends first: what a call stands on outlives it.
            await stack.enter_async_context(abandoned.opened()),
            OpenBodies(int(settings.max_open_bytes)),
            stack.enter_context(CountingPool()),
            stack.enter_context(_spans(settings)) if settings.tracing == "otlp" else None,
        )


@asynccontextmanager
async def open_limiter(settings: Settings) -> AsyncIterator[Limiter]:
    """The limiter an operator asked for, as long as the context lives.

    Raises `SettingsError` where it is to be in a Redis and the client for that is not installed.
    """
    if settings.redis_url is None:
        yield MemoryLimiter()
        return
    try:
        from proxy.admission import redis_limiter  # noqa: PLC0415 - needs an extra that most do not need
    except ModuleNotFoundError:
        raise _without(settings, "redis_url", "the Redis client", "redis") from None
    async with redis_limiter.opened(settings.redis_url.get_secret_value(), settings.redis_policy) as shared:
        yield shared


def _spans(settings: Settings) -> AbstractContextManager[Spans]:
    try:
        from proxy.telemetry import spans  # noqa: PLC0415 - needs an extra that most do not need
    except ModuleNotFoundError:
        raise _without(settings, "tracing", "OpenTelemetry", "otel") from None
    return spans.opened()


def _without(settings: Settings, setting: str, needed: str, extra: str) -> SettingsError:
    """What an operator is told who asked for something whose extra is not installed."""
    origin = settings.origins.get(setting, "default")
    return SettingsError([f"{setting} ({origin}): needs {needed}: pip install 'dashseek[{extra}]'"])
