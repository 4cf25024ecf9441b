"""The gateway in the test's own loop, over real sockets, so that a test can look at both of its sides and inside."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import pytest
import structlog

from config import models, sources
from proxy.admin import application as admin
from proxy.call import gateway
from proxy.downstream.phase import LIFECYCLE
from proxy.inspector.recent_calls import RecentCalls
from proxy.metering import journal
from proxy.server import lifecycle, routes
from proxy.telemetry import log_writer, logs, metrics
from tests import needs
from translators import tokens


@dataclass(slots=True)
class Running:
    """A gateway that serves.

    ended:  every call that has ended, with its outcome
    recent: the calls that are kept with both their sides; None where they are not inspected
    """

    house: gateway.Gateway
    process: lifecycle.Running
    metrics: metrics.Metrics
    recent: RecentCalls | None = None
    ended: list[tuple[journal.Record, str]] = field(default_factory=list)
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def url(self) -> str:
        """Its base URL."""
        return self.process.url

    @property
    def admin_url(self) -> str:
        """That of its admin port."""
        assert self.process.admin_url is not None
        return self.process.admin_url

    def keep(self, record: journal.Record) -> None:
        """Be told of a call that has ended."""
        self.ended.append((record, record.closing["outcome"]))
        self._news.set()

    async def end_of(self, number: int = 1) -> tuple[journal.Record, str]:
        """Wait for the end of the call of that number, from 1."""
        while len(self.ended) < number:
            self._news.clear()
            await self._news.wait()
        return self.ended[number - 1]


class StartGateway(Protocol):
    """`front = await gateway_before(upstream.url, idle_timeout=0.1)`; config: a file of settings."""

    def __call__(self, *targets: str, config: Path | None = None, **chosen: object) -> Awaitable[Running]: ...


LOG = sources.load({"upstream": ("http://127.0.0.1:1",), "log_format": "json"}, None, {})


@pytest.fixture(autouse=True)
def log() -> Iterator[None]:
    """The log as `serve` sets it up; by default structlog draws every traceback with all of its variables."""
    logs.configure(LOG, log_writer.Unthreaded(sys.stderr.fileno()))
    yield
    structlog.reset_defaults()


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with `cert.pem`, of localhost and 127.0.0.1, good for two days, and its `key.pem`."""
    path = tmp_path_factory.mktemp("tls")
    arguments = ["-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    names = ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    out = ["-keyout", str(path / "key.pem"), "-out", str(path / "cert.pem")]
    openssl = needs.program("openssl")
    subprocess.run([openssl, "req", "-x509", *arguments, *names, *out], check=True, capture_output=True)
    return path


@pytest.fixture
async def gateway_before(vocabulary: tokens.Vocabulary) -> AsyncIterator[StartGateway]:
    """Starts gateways before upstreams; they end with the test."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(*targets: str, config: Path | None = None, **chosen: object) -> Running:
            said = sources.load({"upstream": targets, "port": 0, **chosen}, config and str(config), {})
            house = await stack.enter_async_context(gateway.open_gateway(said, models.load(said)))
            measured = metrics.Metrics(house.gauges())
            ended: list[tuple[journal.Record, str]] = []
            running: Running

            def keep(record: journal.Record) -> None:
                measured.keep(record)
                running.keep(record)

            recent = RecentCalls() if said.inspect else None
            if recent is None:
                calls = routes.application(house, keep, measured.keep_stray)
            else:
                calls = routes.inspected(house, keep, recent, measured.keep_stray)
            desk = admin.application(admin.Process(house, calls[LIFECYCLE], measured, recent), said)
            process = await lifecycle.start(calls, said, desk)
            running = Running(house, process, measured, recent, ended)
            stack.push_async_callback(process.stop)
            return running

        yield start


@contextlib.contextmanager
def no_file_left() -> Iterator[None]:
    """This process can open nothing more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
