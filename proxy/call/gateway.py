"""What outlives a call: settings, models, vocabulary, upstreams, and what was learned of their prompts."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AbstractContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from config import models as tables
from config import settings
from proxy import vocabulary
from proxy.admission import keyring, limits
from proxy.call import abandoned, timeouts
from proxy.metering import journal
from proxy.upstream import client
from translators import catalogue as models
from translators import dialogue, tokens, usage
from translators.openai import dialects

if TYPE_CHECKING:
    from proxy.telemetry import spans


@dataclass(frozen=True, slots=True)
class Gateway:
    """One gateway; nothing in it belongs to a call.

    limits_s: how long each wait of a call may last, in seconds
    journal:  what is written down of every call
    limiter:  what lets calls in
    ring:     the keys that are let in; None where any is, or none is needed
    departures: calls that may outlive their callers
    spans:      where calls are told to a collector of traces, if they are
    offsets:  how far upstream's prompt templates are from ours (spec USE-5)
    clocks:   the watches of open calls, for a drain to end
    streams:  what open calls write their packets to
    """

    settings: settings.Settings
    catalogue: models.Catalogue
    vocabulary: tokens.Vocabulary
    upstreams: client.Upstream
    dialect: dialects.Dialect
    limits_s: Mapping[timeouts.Wait, float]
    journal: journal.Journal
    limiter: limits.Limiter
    ring: keyring.Ring | None
    departures: abandoned.Departures
    spans: spans.Spans | None = None
    offsets: usage.Offsets = field(default_factory=usage.Offsets)
    clocks: set[timeouts.Watch] = field(default_factory=set)
    streams: set[object] = field(default_factory=set)

    def timed(self, wait: timeouts.Wait, since_s: float) -> timeouts.Watch:
        """The watch of one call, which waits for this first; a drain finds it.

        since_s: loop time at which the call began
        """
        return timeouts.Watch(wait, self.limits_s, self.clocks, since_s)


def catalogue_of(chosen: settings.Settings, rows: Iterable[tables.ModelRow]) -> models.Catalogue:
    """The models on offer, by all their names."""
    return models.Catalogue((dialogue.Model(**row) for row in rows), chosen.aliases)


@asynccontextmanager
async def opened(chosen: settings.Settings, rows: Iterable[tables.ModelRow]) -> AsyncIterator[Gateway]:
    """The gateway an operator asked for, with its pools and files, as long as the context lives.

    Raises `SettingsError` where the journal or the keys file cannot be used, `VocabularyError` where the vocabulary
    cannot.
    """
    async with AsyncExitStack() as stack:
        catalogue = catalogue_of(chosen, rows)
        yield Gateway(
            chosen,
            catalogue,
            vocabulary.load(),
            await stack.enter_async_context(client.opened(chosen)),
            dialects.DIALECTS[chosen.dialect],
            {wait: float(getattr(chosen, wait.value)) for wait in timeouts.Wait},
            await stack.enter_async_context(journal.opened(chosen)),
            await stack.enter_async_context(limits.opened(chosen)),
            await stack.enter_async_context(keyring.opened(chosen.keys_file, catalogue)) if chosen.keys_file else None,
            # Last, so that it ends first: what a call stands on outlives it.
            await stack.enter_async_context(abandoned.opened()),
            stack.enter_context(_spans(chosen)) if chosen.tracing == "otlp" else None,
        )


def _spans(chosen: settings.Settings) -> AbstractContextManager[spans.Spans]:
    try:
        from proxy.telemetry import spans  # noqa: PLC0415 - needs an extra that most do not need
    except ModuleNotFoundError:
        origin = chosen.origins.get("tracing", "default")
        raise settings.SettingsError(
            [f"tracing ({origin}): needs OpenTelemetry: pip install 'dashseek[otel]'"]
        ) from None
    return spans.opened()
