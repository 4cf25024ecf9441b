"""The machine and what is around it, into one line each: well, doubtful or not, and what to do about it.

Each examination stands alone: one that fails leaves the others to be made. Nothing here costs a token.
"""

from __future__ import annotations

import asyncio
import platform
import resource
import shutil
import socket
import ssl
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Literal
from urllib.parse import SplitResult, urlsplit

import click

from config.pools import Pool
from config.settings import Settings, SettingsError
from proxy import vocabulary
from proxy.commands import files, texts
from proxy.commands.exit_codes import Exit
from proxy.downstream import listener
from proxy.metering.append_file import DASH
from proxy.server import event_loop
from proxy.telemetry import installed
from proxy.upstream import client as upstream
from proxy.upstream.connections import Connections, place_of
from proxy.upstream.names import DNS_PREFIX
from proxy.upstream.pools import MODELS, closed
from proxy.upstream.reasons import ANSWERS_NO_TLS, SPEAKS_TLS, Reason, reason_of
from proxy.upstream.response import UpstreamFailure
from proxy.vocabulary import VocabularyError

Verdict = Literal["ok", "warn", "fail"]

FEW_CONNECTIONS: Final = 1_000
FEW_BYTES: Final = 1 << 30
SOON_DAYS: Final = 14
OLDEST: Final = (3, 11)
PROXIES: Final = ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy")
OK: Final = 200
BAD_REQUEST: Final = 400
NOT_FOUND: Final = 404
KEY_REFUSED: Final = (401, 403)
# What a base URL that is right says to who has no key.
KEY_ASKED: Final = (OK, *KEY_REFUSED)
PORTS: Final = {"https": 443, "http": 80}
# A host may take so much longer to answer than to be connected to.
ANSWER_TIMES: Final = 2
REDIS_TIMEOUT_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class Finding:
    """What one examination found.

    what:  was looked at
    found: in a few words, never a secret
    to_do: what mends it, where it is not well
    code:  what the process ends with, where it has failed
    """

    verdict: Verdict
    what: str
    found: str
    to_do: str = ""
    code: Exit = Exit.CONFIGURATION


def examine(read: Callable[[], Settings], environ: Mapping[str, str]) -> int:
    """Make every examination and print what it found; the gravest failure is the exit code.

    read: settles the settings; raises `SettingsError` where they are wrong
    """
    return asyncio.run(_report(read, environ))


async def _report(read: Callable[[], Settings], environ: Mapping[str, str]) -> int:
    failed: list[Exit] = []
    async for finding in findings(read, environ):
        verdict, what = (
            texts.padded(texts.of(one), columns) for one, columns in ((finding.verdict, 4), (finding.what, 11))
        )
        click.echo(f"{verdict}  {what} {texts.of(finding.found)}")
        if finding.verdict != "ok":
            click.echo(f"{'':18}-> {texts.of(finding.to_do)}")
        if finding.verdict == "fail":
            failed.append(finding.code)
    return min(failed, default=Exit.OK)


async def findings(read: Callable[[], Settings], environ: Mapping[str, str]) -> AsyncIterator[Finding]:
    """Every finding, as soon as it is made."""
    for finding in (_python(), _parser(), _rooms(), _vocabulary(), _environment(environ)):
        yield finding
    try:
        chosen = read()
    except SettingsError as error:
        yield Finding("fail", "settings", "; ".join(error.lines), "see dashseek check")
        return
    for pool in chosen.pools_in_force:
        named = f"pool {pool.name}: " if pool.name else "upstream "
        yield Finding("ok", "settings", f"{named}{', '.join(pool.urls)}, dialect {pool.dialect}")
    yield _loop(chosen)
    yield _files(chosen)
    for finding in (*_port(chosen), *_journal(chosen), *_sockets(chosen)):
        yield finding
    async for finding in _redis(chosen):
        yield finding
    async for finding in of_upstreams(chosen, environ):
        yield finding


def _python() -> Finding:
    found = f"{platform.python_version()}, dashseek {installed.version_of(installed.DISTRIBUTION)}"
    if sys.version_info < OLDEST:
        return Finding("fail", "python", found, "use Python 3.11 or newer")
    return Finding("ok", "python", found)


def _loop(settings: Settings) -> Finding:
    """Which event loop `serve` would have: a paced delta costs a twentieth to a fifth less on uvloop."""
    name = event_loop.name_of(settings)
    if name == "uvloop":
        return Finding("ok", "event loop", f"uvloop {installed.version_of('uvloop')}")
    chosen = "asyncio, as chosen" if settings.loop == "asyncio" else "asyncio"
    return Finding("ok", "event loop", f"{chosen}; pip install '.[fast]' brings uvloop")


def _parser() -> Finding:
    found = f"aiohttp {installed.version_of('aiohttp')}"
    if (complaint := listener.parser_complaint()) is not None:
        return Finding("fail", "parser", found, complaint)
    return Finding("ok", "parser", f"{found} with its C parser")


def _rooms() -> Finding:
    if (complaint := installed.room_complaint()) is not None:
        return Finding("fail", "packages", "names of ours are taken", complaint)
    return Finding("ok", "packages", "nobody else has our names")


def _vocabulary() -> Finding:
    started_s = time.perf_counter()
    try:
        vocabulary.load()
    except VocabularyError as error:
        return Finding("fail", "vocabulary", "cannot be used", str(error))
    return Finding("ok", "vocabulary", f"{vocabulary.SHA256[:12]}…, as published, loaded in {_since(started_s)} ms")


def _since(started_s: float) -> str:
    """The milliseconds since then, by `time.perf_counter`."""
    return f"{(time.perf_counter() - started_s) * 1e3:.0f}"


def _environment(environ: Mapping[str, str]) -> Finding:
    said = [name for name in PROXIES if environ.get(name)]
    if said:
        return Finding("warn", "environment", f"{', '.join(said)} is set", "upstreams are always asked directly")
    return Finding("ok", "environment", "no proxy that we would pass by")


def _files(chosen: Settings) -> Finding:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Whoever serves takes all it may.
    room = listener.fitting(hard, chosen.max_connections)
    found = f"{soft}, may be {hard}: room for {room} connections"
    if room < min(FEW_CONNECTIONS, chosen.max_connections or FEW_CONNECTIONS):
        return Finding("warn", "open files", found, "raise the limit: ulimit -n 65536, or LimitNOFILE= of the unit")
    return Finding("ok", "open files", found)


def _port(chosen: Settings) -> Iterator[Finding]:
    for host, port in ((chosen.host, chosen.port), (chosen.admin_host, chosen.admin_port)):
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family) as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                tried.bind((host, port))
            except OSError as error:
                found = f"{host}:{port}: {error.strerror or error}"
                yield Finding("warn", "port", found, "fine if that is the dashseek that serves; else choose another")
            else:
                yield Finding("ok", "port", f"{host}:{port} is free")


def _journal(chosen: Settings) -> Iterator[Finding]:
    path = chosen.journal_file
    if path is None:
        return
    if (wrong := files.journal(path)) is not None:
        yield Finding("fail", "journal", f"{path}", wrong)
        return
    if path == DASH:
        yield Finding("ok", "journal", "standard output; who reads it keeps it")
        return
    free = shutil.disk_usage(path.parent).free
    found = f"{path}, {free >> 20} MiB free"
    if free < FEW_BYTES:
        yield Finding("warn", "journal", found, "make room, or say --journal-max-bytes and remove old files")
    else:
        yield Finding("ok", "journal", found)


def _sockets(chosen: Settings) -> Iterator[Finding]:
    if chosen.workers == 1:
        return
    if (wrong := files.sockets(chosen.workers)) is not None:
        yield Finding("fail", "workers", f"{chosen.workers}", wrong)
    else:
        yield Finding("ok", "workers", f"{chosen.workers}, their sockets in {tempfile.gettempdir()}")


async def _redis(chosen: Settings) -> AsyncIterator[Finding]:
    if chosen.redis_url is None:
        return
    try:
        from redis import asyncio as redis  # noqa: PLC0415 - an extra that most do not need
        from redis import exceptions  # noqa: PLC0415
    except ModuleNotFoundError:
        yield Finding("fail", "redis", "there is no client", "pip install '.[redis]'")
        return
    client = redis.Redis.from_url(
        chosen.redis_url.get_secret_value(),
        socket_connect_timeout=chosen.connect_timeout,
        socket_timeout=REDIS_TIMEOUT_S,
    )
    try:
        await client.ping()
    except (exceptions.RedisError, OSError) as error:
        verdict: Verdict = "fail" if chosen.redis_policy == "closed" else "warn"
        then = "calls are refused" if verdict == "fail" else "calls go without limits"
        yield Finding(verdict, "redis", type(error).__name__, f"check DASHSEEK_REDIS_URL; while it is away {then}")
    else:
        yield Finding("ok", "redis", "answers")
    finally:
        await client.aclose()


async def of_upstreams(chosen: Settings, environ: Mapping[str, str]) -> AsyncIterator[Finding]:
    """Name, connection, path and key of each upstream; what stands on one that failed is not examined."""
    for pool in chosen.pools_in_force:
        for label in pool.urls:
            target = label.removeprefix(DNS_PREFIX)
            asked = _Asked(chosen, pool, target, urlsplit(target))
            for examination in (_name, _connection):
                finding = await examination(asked)
                yield finding
                if finding.verdict == "fail":
                    break
            else:
                yield await _key(asked, environ)


@dataclass(frozen=True, slots=True)
class _Asked:
    """One upstream that is examined."""

    chosen: Settings
    pool: Pool
    target: str
    place: SplitResult

    @property
    def connect_s(self) -> float:
        """How long a connection to it may take to be made."""
        return self.pool.connect_timeout or self.chosen.connect_timeout

    def trust(self) -> ssl.SSLContext | None:
        """Whose certificates are believed; None where none is shown."""
        return upstream.trust_of(self.pool.ca_file) if self.place.scheme == "https" else None

    async def status(self, base: str, key: str | None) -> int:
        """What it says to who asks for its models; raises `UpstreamFailure`."""
        connections = Connections(self.chosen.upstream_keepalive_timeout)
        if (trust := self.trust()) is not None:
            connections.believe("", trust)
        try:
            return await upstream.status_of(
                connections, place_of(base), MODELS, key, connect_s=self.connect_s, headers=self.pool.headers
            )
        finally:
            await closed(connections)


async def _name(asked: _Asked) -> Finding:
    place = asked.place
    started_s = time.perf_counter()
    host = place.hostname or ""
    try:
        every = await asyncio.get_running_loop().getaddrinfo(host, place.port, type=socket.SOCK_STREAM)
    except OSError as error:
        return _unreached("name", host, reason_of(error))
    found = {address[0] for *_, address in every}
    several = "es" if len(found) > 1 else ""
    return Finding("ok", "name", f"{host} has {len(found)} address{several}, in {_since(started_s)} ms")


async def _connection(asked: _Asked) -> Finding:
    place, context = asked.place, asked.trust()
    port = place.port or PORTS[place.scheme]
    writer: asyncio.StreamWriter | None = None
    try:
        async with asyncio.timeout(asked.connect_s):
            _, writer = await asyncio.open_connection(place.hostname, port)
            if context is not None:
                await writer.start_tls(context, server_hostname=place.hostname)
    except (OSError, TimeoutError) as error:
        # A server that waits for the end of a head says nothing to a TLS hello, and is not away.
        mute = writer is not None and isinstance(error, TimeoutError)
        return _unreached("connection", f"{place.hostname}:{port}", ANSWERS_NO_TLS if mute else reason_of(error))
    finally:
        if writer is not None:
            writer.transport.abort()
    secured = writer.get_extra_info("ssl_object")
    if secured is None:
        return _unsecured(place)
    return _secured(place, secured)


def _unsecured(place: SplitResult) -> Finding:
    if place.hostname in {"localhost", "127.0.0.1", "::1"}:
        return Finding("ok", "connection", f"{place.netloc} takes it")
    return Finding(
        "warn", "connection", f"{place.netloc} takes it, unencrypted", "use https:// unless the network is all yours"
    )


def _secured(place: SplitResult, secured: ssl.SSLObject) -> Finding:
    until = datetime.fromtimestamp(ssl.cert_time_to_seconds(str((secured.getpeercert() or {})["notAfter"])), UTC)
    left_days = (until - datetime.now(UTC)).days
    found = f"{place.netloc}, {secured.version()}, certificate good for {left_days} days"
    if left_days < SOON_DAYS:
        return Finding("warn", "connection", found, "tell who runs the upstream")
    return Finding("ok", "connection", found)


async def _key(asked: _Asked, environ: Mapping[str, str]) -> Finding:
    """Whether the base URL is one, and its key is taken: a list of models costs nothing."""
    chosen, target, own = asked.chosen, asked.target, asked.pool.api_key
    key = own.get_secret_value() if own else environ.get("DASHSCOPE_API_KEY") if chosen.auth == "passthrough" else None
    try:
        async with asyncio.timeout(ANSWER_TIMES * asked.connect_s):
            status = await asked.status(target, key)
            if status == NOT_FOUND and await _answers_below(asked, key):
                found = f"nobody answers to {target}/models, but to {target}/v1/models"
                return _refused("key", found, f"say --upstream {target}/v1")
    except (UpstreamFailure, TimeoutError) as error:
        reason = SPEAKS_TLS if await _speaks_tls(asked) else Reason(str(error), "does this port speak HTTP?")
        return _unreached("key", f"GET {target}/models", reason)
    found = f"GET {target}/models: {status}"
    if status == BAD_REQUEST and await _speaks_tls(asked):
        return _unreached("key", found, SPEAKS_TLS)
    if key is None and chosen.auth == "passthrough" and status in KEY_ASKED:
        return Finding("ok", "key", f"{found}; callers bring theirs; to try one, say it in DASHSCOPE_API_KEY")
    if status in KEY_REFUSED:
        return _refused("key", f"{found}, refused", "check DASHSEEK_UPSTREAM_API_KEY, or the file that holds it")
    if status == NOT_FOUND:
        to_do = "is it the base URL that /chat/completions is added to? Try it: dashseek check --online"
        return Finding("warn", "key", f"{found}; there is no list of models", to_do)
    if status != OK:
        return Finding("warn", "key", f"{found}, which says nothing", "try it: dashseek check --online")
    return Finding("ok", "key", f"{found}, taken")


async def _answers_below(asked: _Asked, key: str | None) -> bool:
    """Whether what is not at the base URL is at `/v1` below it, where most servers have it."""
    return await asked.status(f"{asked.target}/v1", key) in (OK, *KEY_REFUSED)


async def _speaks_tls(asked: _Asked) -> bool:
    """Whether a port that was asked in plain HTTP would rather be asked over TLS."""
    place = asked.place
    if place.scheme != "http":
        return False
    try:
        async with asyncio.timeout(asked.connect_s):
            _, writer = await asyncio.open_connection(place.hostname, place.port or PORTS["http"], ssl=True)
    except ssl.SSLCertVerificationError:
        return True
    except (OSError, TimeoutError):
        return False
    writer.transport.abort()
    return True


def _unreached(what: str, where: str, reason: Reason) -> Finding:
    return _refused(what, f"{where}: {reason.found}", reason.to_do)


def _refused(what: str, found: str, to_do: str) -> Finding:
    return Finding("fail", what, found, to_do, Exit.UPSTREAM_REFUSED)
