"""The process: one that does everything, or one of several that serve a port."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import socket
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import structlog
from aiohttp import web

from config.models import ModelRow
from config.settings import Settings, SettingsError
from proxy import vocabulary
from proxy.admin import application as admin
from proxy.admin.application import Process
from proxy.admission import keyring
from proxy.call.gateway import Gateway, catalogue_of, open_gateway
from proxy.downstream import listener, surface
from proxy.downstream.phase import LIFECYCLE
from proxy.inspector.recent_calls import RecentCalls
from proxy.metering.append_file import DASH
from proxy.server import board, event_loop, lifecycle, notices, reloading, supervisor, systemd
from proxy.server.board import WorkerReport, WorkerReports
from proxy.server.reloading import Reloader, Snapshot, Source
from proxy.server.routes import application, inspected
from proxy.server.supervisor import Following, WorkerSlot
from proxy.telemetry import logs, metrics
from proxy.telemetry.log_writer import Lines, LogWriter, Unthreaded
from proxy.upstream.report import targets

log = structlog.get_logger()


# Written to past the interpreter, see `log_writer`.
STDOUT: Final = 1
STDERR: Final = 2

SERVING: Final = "dashseek serving on {}\n"  # the line that scripts wait for
DOCS: Final = "protocol, examples, a box to try a call: {}/docs\n"

LIMITS_APART: Final = (
    "keys of the keys file have limits, and each of several processes would allow them whole: "
    "say DASHSEEK_REDIS_URL as well"
)

# So many new objects before the youngest generation is looked through.
GC_THRESHOLD: Final = 10_000


def serve(source: Source) -> int:
    """Serve until a signal; returns the exit code.

    source: the configuration, and where it is read anew
    Raises `OSError` where the port is not to be had, `vocabulary.VocabularyError` where the vocabulary is not.
    """
    settings, rows, _ = source.now
    if settings.workers == 1:
        return _run(settings, lambda stdout, stderr: _serve(source, stdout, stderr))
    _check_keys(settings, rows)
    # What every worker needs is loaded once and shared; nothing here may start a thread (see `supervisor`).
    vocabulary.load()
    _freeze_loaded()
    unthreaded = Unthreaded(STDERR)
    logs.configure(settings, unthreaded)

    def child(slot: WorkerSlot) -> int:
        if slot.number == supervisor.ADMIN_PROCESS:
            return _run(settings, lambda _, __: _answer(settings, slot))
        # What is in force by now, where it comes in the place of one that has died.
        return _run(settings, lambda _, stderr: _work(source.now, slot, stderr))

    def announce(url: str, admin_url: str) -> None:
        _log_start(settings, rows, url, admin_url)
        if settings.journal_file != DASH:
            Unthreaded(STDOUT).write(_announcement(url, admin_url))
        systemd.say("READY=1")

    def reload(workers: Sequence[socket.socket]) -> None:
        try:
            snapshot = source.judged()
            _check_keys(snapshot.settings, snapshot.rows)
        except SettingsError as error:
            reloading.tell_refused(workers)
            reasons: Sequence[str] = error.lines
        else:
            reasons = reloading.offered(workers, snapshot)
        if reasons:
            log.error("reload_refused", reason=tuple(reasons))
        else:
            source.now = snapshot
            log.info("reloaded", left=snapshot.left)

    return supervisor.supervise(settings, child, announce, Following(reload, source.has_changed))


def _check_keys(settings: Settings, rows: Collection[ModelRow]) -> None:
    """Raise `SettingsError` where each of several processes would allow a key's limits whole."""
    if settings.keys_file and not settings.redis_url:
        known = keyring.read(settings.keys_file, catalogue_of(settings, rows))
        if any(key.limits for key in known.values()):
            raise SettingsError([f"workers ({settings.origins['workers']}): {LIMITS_APART}"])


def _run(settings: Settings, work: Callable[[Lines, Lines], Coroutine[Any, Any, None]]) -> int:
    with (
        contextlib.closing(logs.configure(settings)) as stderr,
        contextlib.closing(LogWriter(STDOUT)) as stdout,
    ):
        listener.raise_file_limit()
        with asyncio.Runner(loop_factory=event_loop.factory(settings)) as runner:
            runner.run(work(stdout, stderr))
        return 0


async def _serve(source: Source, stdout: Lines, stderr: Lines) -> None:
    """One process that does everything."""
    settings, rows, _ = source.now
    async with _open_process(settings, rows, stderr) as (gateway, calls, state):
        running = await lifecycle.start(calls, settings, admin.application(state, settings))

        def announce() -> None:
            _log_start(settings, rows, running.url, running.admin_url)
            # Books are all that is on their page; the log has said where it serves.
            if settings.journal_file != DASH:
                stdout.write(_announcement(running.url, running.admin_url))
            systemd.say("READY=1")

        reloader = Reloader(gateway, source)
        async with _beside(reloader.serve()):
            await running.until_told_to_stop(gateway.open_calls, announce, reloader.ask)


async def _work(snapshot: Snapshot, slot: WorkerSlot, stderr: Lines) -> None:
    """One of several that serve a port."""
    settings, rows = snapshot.settings.of_worker(slot.number), snapshot.rows
    async with _open_process(settings, rows, stderr) as (gateway, calls, state):

        def report() -> WorkerReport:
            return {
                "process": os.getpid(),
                "reasons": state.said(),
                "reading": board.sent(state.measured.read()),
                "targets": [[*row] for row in targets(gateway.latest.gateway.upstreams)],
            }

        running = await lifecycle.start(calls, settings.model_copy(update={"port": slot.port}))
        async with (
            board.serve_report(slot.sockets[slot.number], report),
            _beside(reloading.follow(slot.control, gateway, slot.number)),
        ):
            with slot.held():
                await running.until_told_to_stop(gateway.open_calls, slot.say_ready)


async def _answer(settings: Settings, slot: WorkerSlot) -> None:
    """The admin process of several."""
    growing = frozenset(row.name for row in metrics.ROWS if row.kind != "gauge")
    app = admin.application(WorkerReports(slot.sockets, slot.heartbeats, growing), settings)
    app[surface.SERVED] = lifecycle.url((settings.host, slot.port), secured=settings.tls_cert is not None)
    with slot.held():
        await lifecycle.answer(app, settings, slot.admin, slot.say_ready)


@asynccontextmanager
async def _beside(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Let it go on as long as the context lives."""
    going_on = asyncio.create_task(work)
    try:
        yield
    finally:
        going_on.cancel()


@asynccontextmanager
async def _open_process(
    settings: Settings, rows: Collection[ModelRow], stderr: Lines
) -> AsyncIterator[tuple[Gateway, web.Application, Process]]:
    async with open_gateway(settings, rows) as gateway, metrics.opened(gateway.gauges(), stderr) as measured:
        _freeze_loaded()
        recent = RecentCalls() if settings.inspect else None
        if recent is None:
            calls = application(gateway, measured.keep, measured.keep_stray)
        else:
            calls = inspected(gateway, measured.keep, recent, measured.keep_stray)
        yield gateway, calls, Process(gateway, calls[LIFECYCLE], measured, recent)


def _freeze_loaded() -> None:
    """Keep what is loaded out of every garbage collection: it lives as long as the process."""
    gc.collect()
    gc.freeze()
    # A call of many small parts is read in a fifth of the time where the collector does not look in between.
    gc.set_threshold(GC_THRESHOLD)


def _announcement(url: str, admin_url: str | None) -> str:
    """What a person reads first: where the calls go, and where to read on."""
    return SERVING.format(url) + (DOCS.format(lifecycle.callable_at(admin_url)) if admin_url else "")


def _log_start(settings: Settings, rows: Collection[ModelRow], url: str, admin_url: str | None) -> None:
    log.info(
        "serving",
        url=url,
        admin=admin_url,
        upstream=[url for pool in settings.pools_in_force for url in pool.urls],
        dialect=", ".join(dict.fromkeys(pool.dialect for pool in settings.pools_in_force)),
        auth=settings.auth,
        workers=settings.workers,
        loop=event_loop.name_of(settings),
    )
    notices.say(settings, rows)
