"""What outlives a call: settings, models, vocabulary, upstreams, and what was learned of their prompts."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AbstractContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from time import monotonic, time
from typing import TYPE_CHECKING, Final

import structlog

from config.models import ModelRow
from config.pools import Pool
from config.settings import Settings, SettingsError
from proxy import vocabulary
from proxy.admission.keyring import Keyring
from proxy.admission.limits import Limiter
from proxy.admission.memory_limiter import MemoryLimiter
from proxy.call import abandoned, budgets, large_answers, past_use
from proxy.call.abandoned import AbandonedCalls
from proxy.call.budgets import Budgets, SharedBudgets
from proxy.call.large_answers import LargeAnswers
from proxy.call.thread_pool import ThreadPool
from proxy.call.timeouts import OpenCalls, Timeout
from proxy.downstream.body import OpenBodies
from proxy.metering import journal, periods
from proxy.metering.append_file import DASH
from proxy.metering.journal import Journal
from proxy.metering.prices import Prices
from proxy.telemetry import metrics
from proxy.telemetry.metrics import Gauge
from proxy.telemetry.series import MetricRow
from proxy.upstream import pools, report
from proxy.upstream.pools import Upstreams
from translators.catalogue import Catalogue
from translators.dialogue import Model
from translators.openai import dialects
from translators.openai.dialects import Dialect
from translators.tokens import Vocabulary
from translators.usage import Offsets

if TYPE_CHECKING:
    from proxy.telemetry.spans import Spans

log = structlog.get_logger()

# Of a journal that is so large it is said that it is about to be read.
LARGE_BYTES: Final = 64 << 20


@dataclass(slots=True)
class Latest:
    """Which gateway the next call goes through: another one after each reload.

    gateway:       that one
    reloaded_at_s: wall clock, when a configuration was taken last; 0 where none was since the start
    refused_at_s:  when one was refused last
    """

    gateway: Gateway = field(init=False)
    reloaded_at_s: float = 0.0
    refused_at_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Gateway:
    """One gateway, under one configuration; nothing in it belongs to a call.

    loop:            of this process; asked for each time, it costs a call to the kernel
    settings:        as the operator said them
    catalogue:       the models on offer, by all their names
    vocabulary:      what texts are counted with
    upstreams:       the pools that calls go to
    journal:         what is written down of every call
    limiter:         what lets calls in
    budgets:         what was used today and this month
    keyring:         the keys that are let in; None where any is, or none is needed
    open_calls:      the calls that are open, for their timer and for a drain
    open_bodies:     what the bodies of open calls hold
    reading:         where large bodies are read
    counting:        where long prompts are counted
    large_answers:   where what upstream says at once and is long is taken
    abandoned_calls: calls that may outlive their callers
    spans:           where calls are told to a collector of traces, if they are
    offsets:         how far upstream's prompt templates are from ours (spec USE-5)
    latest:          the gateway that has taken this one's place, or this one
    """

    loop: asyncio.AbstractEventLoop
    settings: Settings
    catalogue: Catalogue
    vocabulary: Vocabulary
    upstreams: Upstreams
    journal: Journal
    limiter: Limiter
    budgets: SharedBudgets
    keyring: Keyring | None
    open_calls: OpenCalls
    open_bodies: OpenBodies
    reading: ThreadPool
    counting: ThreadPool
    large_answers: LargeAnswers
    abandoned_calls: AbandonedCalls
    spans: Spans | None = None
    offsets: Offsets = field(default_factory=Offsets)
    latest: Latest = field(default_factory=Latest)
    _models: dict[tuple[str, str], Model] = field(default_factory=dict)

    def dialect_of(self, pool: Pool) -> Dialect:
        """How the upstreams of a pool differ from others."""
        return dialects.DIALECTS[pool.dialect]

    def model_of(self, pool: Pool, model: Model) -> Model:
        """A model as a pool has it: under the id of its map, and rendered as that id is."""
        if model.id not in pool.map:
            return model
        found = self._models.get((pool.name, model.id))
        if found is None:
            found = self._models[pool.name, model.id] = in_pool(pool, model)
        return found

    def upstream_model(self, pool: Pool, model: Model) -> str:
        """The id that a model has in a pool."""
        return self.model_of(pool, model).upstream.get(pool.dialect, model.id)

    def gauges(self) -> Mapping[MetricRow, Gauge]:
        """The metrics that are read when they are asked for: each row, and the function that reads it."""
        journal, upstreams, open_calls = self.journal, self.upstreams, self.open_calls
        return {
            metrics.IN_FLIGHT: lambda: {(): len(open_calls)},
            metrics.STREAMS: lambda: {(): open_calls.streams},
            metrics.CONNECTIONS: lambda: {
                (state,): number for state, number in report.connections(upstreams.connections).items()
            },
            # Another one after each reload.
            metrics.TARGETS: lambda: report.states(self.latest.gateway.upstreams),
            metrics.TARGET_CALLS: lambda: report.loads(self.latest.gateway.upstreams),
            metrics.TARGET_FIRST_TOKEN: lambda: report.first_tokens_s(self.latest.gateway.upstreams),
            metrics.RELOADED: lambda: {(): self.latest.reloaded_at_s},
            metrics.REFUSED: lambda: {(): self.latest.refused_at_s},
            metrics.JOURNAL_LINES: lambda: {(): journal.written},
            metrics.JOURNAL_DROPPED: lambda: {(): journal.dropped},
            metrics.JOURNAL_WRITABLE: lambda: {(): journal.writable()},
        }


def catalogue_of(settings: Settings, rows: Iterable[ModelRow]) -> Catalogue:
    """The models on offer, by all their names."""
    return Catalogue((Model(**row) for row in rows), settings.aliases)


def in_pool(pool: Pool, model: Model) -> Model:
    """A model as a pool has it; its row says so under the pool's name."""
    return replace(
        model,
        upstream={**model.upstream, pool.dialect: model.upstream[pool.row_key]},
        templates={**model.templates, pool.dialect: model.templates[pool.row_key]},
    )


@asynccontextmanager
async def open_gateway(settings: Settings, rows: Iterable[ModelRow]) -> AsyncIterator[Gateway]:
    """The gateway an operator asked for, with its pools and files, as long as the context lives.

    Raises `SettingsError` where the journal or the keys file cannot be used, `VocabularyError` where the vocabulary
    cannot.
    """
    loop = asyncio.get_running_loop()
    async with AsyncExitStack() as stack:
        catalogue = catalogue_of(settings, rows)
        open_calls = OpenCalls(_limits_s(settings), loop)
        stack.callback(open_calls.close)
        upstreams = await pools.started(settings)
        stack.push_async_callback(pools.closed, upstreams.connections)
        priced = budgets.prices_of(settings)
        keyring = _keyring(settings, catalogue, priced)
        latest = Latest()
        gateway = latest.gateway = Gateway(
            loop=loop,
            settings=settings,
            catalogue=catalogue,
            vocabulary=vocabulary.load(),
            keyring=keyring,
            budgets=await _budgets(settings, keyring, priced),
            upstreams=upstreams,
            journal=await stack.enter_async_context(journal.opened(settings)),
            limiter=await stack.enter_async_context(open_limiter(settings)),
            open_calls=open_calls,
            open_bodies=OpenBodies(int(settings.max_open_bytes), int(settings.max_body_bytes)),
            # One thread, so that of large bodies one is in pieces at a time; `max_open_bytes` bounds those that wait.
            reading=stack.enter_context(ThreadPool(int(settings.max_open_bytes), threads=1)),
            counting=stack.enter_context(ThreadPool()),
            large_answers=LargeAnswers(stack.enter_context(ThreadPool(threads=large_answers.THREADS))),
            spans=stack.enter_context(_spans(settings)) if settings.tracing == "otlp" else None,
            # Entered last, so that it is left first: abandoned calls end before the pools and files that they use.
            abandoned_calls=await stack.enter_async_context(abandoned.opened()),
            latest=latest,
        )
        if gateway.keyring is not None:
            gateway.keyring.begin()
        _say_unpriced(gateway)
        stack.callback(lambda: _retire(latest.gateway))
        yield gateway


async def successor(gateway: Gateway, settings: Settings, rows: Iterable[ModelRow]) -> Gateway:
    """The gateway of another configuration, with all that outlives it; nothing of it is in force yet.

    Raises `SettingsError` where it cannot be.
    """
    try:
        catalogue = catalogue_of(settings, rows)
        before = gateway.upstreams
        # A name that cannot be asked in this moment keeps the addresses it has.
        upstreams = Upstreams(settings, before.connections, before.standings, addresses=before.addresses)
        await upstreams.prepare()
    except (OSError, ValueError) as error:
        raise SettingsError([f"the configuration cannot be used: {type(error).__name__}"]) from error
    priced = budgets.prices_of(settings)
    return replace(
        gateway,
        settings=settings,
        catalogue=catalogue,
        upstreams=upstreams,
        keyring=_keyring(settings, catalogue, priced),
        budgets=gateway.budgets.under(priced),
        _models={},
    )


def take_over(gateway: Gateway) -> None:
    """Let the next call, and all after it, go through this one; calls that are open go on through theirs."""
    before, settings = gateway.latest.gateway, gateway.settings
    _retire(before)
    gateway.upstreams.begin()
    if gateway.keyring is not None:
        gateway.keyring.begin()
    gateway.open_calls.limit(_limits_s(settings))
    gateway.open_bodies.most_bytes = int(settings.max_open_bytes)
    gateway.open_bodies.most_grown = int(settings.max_body_bytes)
    gateway.latest.gateway = gateway
    _say_unpriced(gateway)


def _limits_s(settings: Settings) -> Mapping[Timeout, float]:
    return {timeout: float(getattr(settings, timeout.value)) for timeout in Timeout}


def _retire(gateway: Gateway) -> None:
    """Keep nothing of it fresh any more."""
    gateway.upstreams.end()
    if gateway.keyring is not None:
        gateway.keyring.end()


def _keyring(settings: Settings, catalogue: Catalogue, priced: Prices | None) -> Keyring | None:
    if settings.keys_file is None:
        return None
    return Keyring(settings.keys_file, catalogue, budgets.budgeted(settings, priced))


def _say_unpriced(gateway: Gateway) -> None:
    """Log which models cost nothing under a limit of money, because their price is missing or not in force yet."""
    keys = None if gateway.keyring is None else gateway.keyring.keys
    if models := gateway.budgets.unpriced(gateway.settings, gateway.catalogue, keys):
        log.warning("models_without_price", models=models)


async def _budgets(settings: Settings, keyring: Keyring | None, priced: Prices | None) -> SharedBudgets:
    """What was used today and this month: as Redis says, or, where a limit asks for it, as the journal does."""
    try:
        zone = periods.machine_zone()
    except periods.PeriodError as error:
        raise SettingsError([f"TZ: {error}"]) from None
    if settings.redis_url is not None:
        return SharedBudgets(zone, priced)
    used = Budgets(zone, priced)
    is_asked = any(limit.of_period for limit in budgets.said(settings)) or (keyring and keyring.has_budgets)
    if is_asked and settings.journal_file not in {None, DASH} and settings.journal_file.parent.is_dir():
        began_s = monotonic()
        month = past_use.month_of(settings.journal_file, zone, time())
        if (size_bytes := month.size_bytes) >= LARGE_BYTES:
            log.info("budgets_reading", bytes=size_bytes)
        read = await asyncio.to_thread(past_use.count, used, month, priced)
        # What counts nothing may have been used all the same.
        level = logging.WARNING if read.broken or read.torn else logging.INFO
        took_s = round(monotonic() - began_s, 3)
        log.log(level, "budgets_read", calls=read.calls, broken=read.broken, torn=read.torn, took_s=took_s)
    return used


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
    return SettingsError([f"{setting} ({origin}): needs {needed}: pip install '.[{extra}]'"])
