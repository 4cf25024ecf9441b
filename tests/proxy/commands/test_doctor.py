"""Claims about what the doctor sees: on machines that are well, and on such as are not."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import resource
import shutil
import socket
import ssl
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import pytest
from aiohttp import http_parser, web

from config import settings, sources
from proxy import vocabulary
from proxy.commands import doctor, exit_codes
from proxy.downstream import listener
from proxy.metering.append_file import ROOM_BYTES
from tests.proxy.surroundings import left_port

KEY = "sk-ours"
OWN = {"DASHSEEK_UPSTREAM_API_KEY": KEY}


@contextlib.asynccontextmanager
async def upstream(
    key: str | None = KEY,
    certificate: Path | None = None,
    status: int = 200,
    path: str = "/models",
    host: str = "127.0.0.1",
) -> AsyncIterator[str]:
    """A host that lists its models to who has the key; None: to who has none."""

    async def models(asked: web.Request) -> web.Response:
        wanted = key and f"Bearer {key}"
        return web.Response(status=status if asked.headers.get("Authorization") == wanted else 401)

    context = None
    if certificate is not None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate / "cert.pem", certificate / "key.pem")
    app = web.Application()
    app.router.add_get(path, models)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, 0, ssl_context=context).start()
        yield f"{'https' if context else 'http'}://{host}:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def reading(*targets: str, environ: Mapping[str, str] = {}, **flags: object) -> Callable[[], settings.Settings]:
    flags = {"port": "0", "upstream": targets, **flags}
    return lambda: sources.load(flags, None, environ, needs=("upstream",))


async def seen(read: Callable[[], settings.Settings], environ: Mapping[str, str] = {}) -> dict[str, doctor.Finding]:
    """The last finding on each subject."""
    return {finding.what: finding async for finding in doctor.findings(read, environ)}


async def test_on_a_machine_that_is_well_all_is_well() -> None:
    async with upstream() as target:
        found = await seen(reading(target, environ=OWN))
    assert {finding.verdict for finding in found.values()} == {"ok"}
    assert list(found) == [
        *("python", "parser", "packages", "vocabulary", "environment", "settings", "event loop", "open files", "port"),
        *("name", "connection", "key"),
    ]


async def test_a_key_that_is_refused_is_seen_and_not_shown() -> None:
    async with upstream(key="sk-another") as target:
        found = await seen(reading(target, environ=OWN))
    assert (found["key"].verdict, found["key"].code) == ("fail", exit_codes.Exit.UPSTREAM_REFUSED)
    assert KEY not in str(found)


@pytest.mark.parametrize(
    ("status", "key", "verdict", "says"),
    [
        (200, "ours", "ok", "taken"),
        (401, "ours", "fail", "refused"),
        (403, "ours", "fail", "refused"),
        (404, "ours", "warn", "there is no list of models"),
        (400, "ours", "warn", "which says nothing"),
        (500, "ours", "warn", "which says nothing"),
        (200, "theirs", "ok", "callers bring theirs"),
        (401, "theirs", "ok", "callers bring theirs"),
        (403, "theirs", "ok", "callers bring theirs"),
        (404, "theirs", "warn", "there is no list of models"),
        (500, "theirs", "warn", "which says nothing"),
        (200, "none", "ok", "taken"),
        (401, "none", "fail", "refused"),
        (403, "none", "fail", "refused"),
    ],
)
async def test_what_a_status_says_of_the_key(status: int, key: str, verdict: str, says: str) -> None:
    """ours: the operator's own; theirs: each caller's, of which none is here; none: none is sent."""
    environ, flags, beside = {
        "ours": (OWN, {}, {}),
        "theirs": ({}, {}, {}),
        # What a caller would bring is not for an upstream that is sent none of theirs.
        "none": ({}, {"auth": "none"}, {"DASHSCOPE_API_KEY": KEY}),
    }[key]
    async with upstream(key=KEY if key == "ours" else None, status=status) as target:
        found = (await seen(reading(target, environ=environ, **flags), beside))["key"]
    assert (found.verdict, says in found.found) == (verdict, True), found
    assert found.found.startswith(f"GET {target}/models: {status}")
    assert bool(found.to_do) == (verdict != "ok")
    if verdict == "fail":
        assert found.code == exit_codes.Exit.UPSTREAM_REFUSED


@pytest.mark.parametrize("environ", [{}, OWN, {"DASHSEEK_UPSTREAM_API_KEY": "sk-wrong"}])
async def test_a_forgotten_v1_is_told_with_a_key_and_without(environ: Mapping[str, str]) -> None:
    """What nobody answers at the base URL is looked for below it: vLLM, SGLang have it there alone."""
    async with upstream(path="/v1/models") as target:
        found = await seen(reading(target, environ=environ))
    assert (found["key"].verdict, found["key"].code) == ("fail", exit_codes.Exit.UPSTREAM_REFUSED)
    assert found["key"].to_do == f"say --upstream {target}/v1"


async def test_a_server_without_any_list_of_models_is_no_proof_of_an_upstream() -> None:
    async with upstream(path="/index.html") as target:
        found = await seen(reading(target))
    assert found["key"].verdict == "warn"
    assert "/chat/completions" in found["key"].to_do


async def test_a_callers_key_can_be_tried() -> None:
    async with upstream() as target:
        untried = await seen(reading(target))
        tried = await seen(reading(target), {"DASHSCOPE_API_KEY": "sk-wrong"})
    assert (untried["key"].verdict, tried["key"].verdict) == ("ok", "fail")


async def test_an_own_key_is_tried_and_not_what_a_caller_would_bring() -> None:
    async with upstream() as target:
        found = await seen(reading(target, environ=OWN), {"DASHSCOPE_API_KEY": "sk-wrong"})
    assert found["key"].verdict == "ok"


async def test_a_name_that_nobody_has_ends_the_examination_of_that_upstream_alone() -> None:
    async with upstream() as target:
        findings = [finding async for finding in doctor.findings(reading("https://a.invalid", target), {})]
    about = [(finding.what, finding.verdict) for finding in findings][-4:]
    assert about == [("name", "fail"), ("name", "ok"), ("connection", "ok"), ("key", "ok")]


async def test_a_name_has_as_many_addresses_as_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def found(*addresses: str) -> Callable[..., list[Any]]:
        # Each is found once for a kind of socket.
        return lambda *_, **__: [(2, kind, 6, "", (one, 1)) for one in addresses for kind in (1, 2)]

    for addresses, told in (
        (("127.0.0.1",), "localhost has 1 address, in "),
        (("127.0.0.1", "127.0.0.2"), "2 addresses, in "),
    ):
        monkeypatch.setattr(socket, "getaddrinfo", found(*addresses))
        assert told in (await seen(reading("http://localhost:1")))["name"].found


async def test_milliseconds_are_told_since_it_began(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "perf_counter", lambda: 12.25)
    assert doctor._since(12.0) == "250"


@pytest.mark.parametrize("scheme", doctor.PORTS)
async def test_a_url_without_a_port_means_that_of_its_scheme(scheme: str) -> None:
    found = await seen(reading(f"{scheme}://127.255.255.254"))
    assert found["connection"].found.startswith(f"127.255.255.254:{ {'http': 80, 'https': 443}[scheme] }: ")


async def test_nobody_there_is_a_failure_of_the_upstream() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        found = await seen(reading(f"http://127.0.0.1:{bound.getsockname()[1]}"))
    assert found["connection"].code == exit_codes.Exit.UPSTREAM_REFUSED
    assert "refused" in found["connection"].found


async def test_a_server_that_is_mute_to_tls_is_not_said_to_be_away() -> None:
    """One that waits for the end of a request's head waits for ever: its port is open, and no firewall is between."""
    ended = asyncio.Event()

    async def wait(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            await reader.readuntil(b"\r\n\r\n")
        writer.transport.abort()
        ended.set()

    async with await asyncio.start_server(wait, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        found = await seen(reading(f"https://127.0.0.1:{port}", connect_timeout="0.5"))
        await ended.wait()
    assert (found["connection"].verdict, found["connection"].code) == ("fail", exit_codes.Exit.UPSTREAM_REFUSED)
    assert "http://" in found["connection"].to_do
    assert "firewall" not in found["connection"].to_do


async def test_no_connection_is_left_open() -> None:
    """One to see that somebody listens, one to ask for the models."""
    opened, ended = 0, asyncio.Semaphore(0)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal opened
        opened += 1
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                await reader.readuntil(b"\r\n\r\n")
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
        ended.release()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        found = await seen(reading(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", environ=OWN))
        for _ in range(2):
            await ended.acquire()
    assert (found["key"].verdict, opened) == ("ok", 2)


async def test_a_server_that_speaks_tls_is_told_from_one_that_speaks_no_http(certificate: Path) -> None:
    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    async with upstream(certificate=certificate) as target:
        found = await seen(reading(target.replace("https", "http"), environ=OWN))
    assert (found["key"].verdict, found["key"].to_do) == ("fail", "say https:// instead of http://")
    async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as server:
        found = await seen(reading(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", environ=OWN))
    assert (found["key"].verdict, found["key"].to_do) == ("fail", "does this port speak HTTP?")


async def test_a_server_that_answers_400_to_plain_http_and_speaks_tls_is_told(certificate: Path) -> None:
    """As nginx does; a 400 of one that speaks no TLS says nothing of how it is spoken to."""
    behind = 0

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer):
            if not (first := await reader.read(1 << 16)).startswith(b"\x16"):
                writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            elif behind:
                hello, back = await asyncio.open_connection("127.0.0.1", behind)
                with contextlib.closing(back):
                    back.write(first)
                    writer.write(await hello.read(1 << 16))
                    await reader.read()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server, upstream(certificate=certificate) as tls:
        asked = reading(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", environ=OWN)
        found = (await seen(asked))["key"]
        assert (found.verdict, found.to_do) == ("warn", "try it: dashseek check --online")
        behind = urlsplit(tls).port or 0
        found = (await seen(asked))["key"]
        assert (found.verdict, found.to_do) == ("fail", "say https:// instead of http://")
        assert "400: it speaks TLS" in found.found


async def test_a_certificate_nobody_vouches_for_is_seen(certificate: Path) -> None:
    async with upstream(certificate=certificate) as target:
        found = await seen(reading(target, environ=OWN))
    assert found["connection"].verdict == "fail"
    assert "--upstream-ca-file" in found["connection"].to_do


async def test_a_certificate_that_ends_soon_is_seen(certificate: Path) -> None:
    async with upstream(certificate=certificate) as target:
        found = await seen(reading(target, environ=OWN, upstream_ca_file=str(certificate / "cert.pem")))
    assert found["connection"].verdict == "warn"
    assert "good for 1 days" in found["connection"].found
    assert found["key"].verdict == "ok"


@pytest.mark.parametrize(("soon", "verdict"), [(1, "ok"), (2, "warn")])
async def test_a_certificate_ends_soon_where_fewer_days_are_left(
    soon: int, verdict: str, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "SOON_DAYS", soon)
    async with upstream(certificate=certificate) as target:
        found = await seen(reading(target, environ=OWN, upstream_ca_file=str(certificate / "cert.pem")))
    assert found["connection"].verdict == verdict


async def test_what_goes_unencrypted_to_another_machine_is_seen() -> None:
    """As far as the name says: 127.0.0.2 is none of those that are this machine."""
    async with upstream(host="127.0.0.2") as target:
        found = await seen(reading(target, environ=OWN))
    assert (found["connection"].verdict, found["key"].verdict) == ("warn", "ok")
    assert "unencrypted" in found["connection"].found


@pytest.mark.parametrize(
    ("version", "verdict"), [((3, 10, 99, "final", 0), "fail"), ((3, 11, 0, "alpha", 1), "ok"), ((4, 0, 0), "ok")]
)
async def test_an_old_python_is_seen(
    version: tuple[object, ...], verdict: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "version_info", version)
    found = doctor._python()
    assert (found.verdict, bool(found.to_do)) == (verdict, verdict == "fail")


async def test_whatever_takes_the_names_or_the_place_of_what_was_tested_is_seen(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    home = tmp_path / "proxy.py-1.0.dist-info"
    home.mkdir()
    (home / "METADATA").write_text("Metadata-Version: 2.1\nName: proxy.py\nVersion: 1.0\n")
    (home / "RECORD").write_text("proxy.py,,\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(http_parser, "HttpRequestParser", http_parser.HttpRequestParserPy)
    found = await seen(reading("http://127.0.0.1:1"))
    for what, to_do in (("packages", "also installed by proxy.py"), ("parser", "without its C parser")):
        assert (found[what].verdict, found[what].code) == ("fail", exit_codes.Exit.CONFIGURATION)
        assert to_do in found[what].to_do


async def test_the_loop_is_named_and_whether_it_was_chosen() -> None:
    chosen = await seen(reading("http://127.0.0.1:1", loop="asyncio"))
    assert chosen["event loop"].found == "asyncio, as chosen; pip install '.[fast]' brings uvloop"
    best = (await seen(reading("http://127.0.0.1:1")))["event loop"].found
    if importlib.util.find_spec("uvloop"):
        assert best == f"uvloop {metadata.version('uvloop')}"
    else:
        assert best == "asyncio; pip install '.[fast]' brings uvloop"


async def test_each_pool_is_named(tmp_path: Path) -> None:
    file = tmp_path / "dashseek.toml"
    pool = '[[pools]]\nname = "{0}"\nurls = ["http://127.0.0.1:1/{0}"]\ndialect = "vllm"\n'
    file.write_text(pool.format("a") + pool.format("b"))
    read = [finding async for finding in doctor.findings(lambda: sources.load({"port": "0"}, str(file), {}), {})]
    assert [finding.found for finding in read if finding.what == "settings"] == [
        f"pool {name}: http://127.0.0.1:1/{name}, dialect vllm" for name in "ab"
    ]
    alone = await seen(reading("http://127.0.0.1:1"))
    assert alone["settings"].found == "upstream http://127.0.0.1:1, dialect deepseek"


async def test_a_pool_has_a_time_to_connect_of_its_own(tmp_path: Path) -> None:
    file = tmp_path / "dashseek.toml"
    file.write_text(
        '[[pools]]\nname = "a"\nurls = ["http://a"]\nconnect_timeout = 3\n[[pools]]\nname = "b"\nurls = ["http://b"]\n'
    )
    chosen = sources.load({"port": "0", "connect_timeout": "5"}, str(file), {})
    assert [doctor._Asked(chosen, pool, "", urlsplit("")).connect_s for pool in chosen.pools_in_force] == [3, 5]


async def test_there_is_room_for_as_many_as_were_asked_for_or_for_a_thousand(monkeypatch: pytest.MonkeyPatch) -> None:
    for room, asked_for, verdict in (
        (doctor.FEW_CONNECTIONS, None, "ok"),
        (doctor.FEW_CONNECTIONS - 1, None, "warn"),
        (500, "500", "ok"),
        (499, "500", "warn"),
        (doctor.FEW_CONNECTIONS, "5000", "ok"),
    ):
        monkeypatch.setattr(listener, "fitting", lambda hard, asked_for, room=room: room)
        found = await seen(reading("http://127.0.0.1:1", max_connections=asked_for))
        assert found["open files"].verdict == verdict, (room, asked_for)


async def test_few_open_files_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, 256))
    found = await seen(reading("http://127.0.0.1:1"))
    assert found["open files"].verdict == "warn"
    assert "ulimit -n" in found["open files"].to_do


async def test_a_port_that_is_taken_is_seen() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        found = await seen(reading("http://127.0.0.1:1", admin_port=str(taken.getsockname()[1])))
    assert found["port"].verdict == "warn"


async def test_a_port_is_free_though_a_connection_of_it_is_remembered() -> None:
    """A listener may have the port."""
    port = left_port()
    findings = [it async for it in doctor.findings(reading("http://127.0.0.1:1", admin_port=str(port)), {})]
    assert [(it.verdict, it.found) for it in findings if it.what == "port"] == [
        ("ok", "127.0.0.1:0 is free"),
        ("ok", f"127.0.0.1:{port} is free"),
    ]


async def test_an_address_of_the_sixth_version_is_tried_as_one() -> None:
    with socket.socket(socket.AF_INET6) as tried:
        try:
            tried.bind(("::1", 0))
        except OSError:
            pytest.skip("this machine has no IPv6")
    findings = [it async for it in doctor.findings(reading("http://127.0.0.1:1", admin_host="::1", admin_port="0"), {})]
    assert [it.found for it in findings if it.what == "port"] == ["127.0.0.1:0 is free", "::1:0 is free"]


@pytest.mark.parametrize(
    ("free", "verdict"),
    [(doctor.FEW_BYTES, "ok"), (doctor.FEW_BYTES - 1, "warn"), (ROOM_BYTES, "warn"), (ROOM_BYTES - 1, "fail")],
)
async def test_a_disk_with_little_room_is_seen(
    free: int, verdict: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    path = tmp_path / "calls.jsonl"
    found = (await seen(reading("http://127.0.0.1:1", journal_file=str(path))))["journal"]
    assert found.verdict == verdict
    assert found.found == (f"{path}" if verdict == "fail" else f"{path}, {free // 1024**2} MiB free")


async def test_a_journal_on_standard_output_is_kept_by_who_reads_it() -> None:
    found = await seen(reading("http://127.0.0.1:1", journal_file="-"))
    assert (found["journal"].verdict, found["journal"].found) == ("ok", "standard output; who reads it keeps it")


async def test_several_workers_need_a_place_for_their_sockets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert "workers" not in await seen(reading("http://127.0.0.1:1"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    found = (await seen(reading("http://127.0.0.1:1", workers="2")))["workers"]
    assert (found.verdict, found.found) == ("ok", f"2, their sockets in {tmp_path}")

    def none() -> str:
        raise FileNotFoundError

    monkeypatch.setattr(tempfile, "gettempdir", none)
    found = (await seen(reading("http://127.0.0.1:1", workers="2")))["workers"]
    assert (found.verdict, found.found) == ("fail", "2")
    assert "mount one at /tmp" in found.to_do


async def test_a_journal_is_looked_at_and_not_made(tmp_path: Path) -> None:
    path = tmp_path / "calls.jsonl"
    found = await seen(reading("http://127.0.0.1:1", journal_file=str(path)))
    assert found["journal"].verdict in {"ok", "warn"}
    assert not path.exists()


@pytest.mark.parametrize(("policy", "verdict"), [("open", "warn"), ("closed", "fail")])
async def test_a_redis_that_is_away_is_as_grave_as_the_policy_says(policy: str, verdict: str) -> None:
    environ = {"DASHSEEK_REDIS_URL": "redis://:hush@127.0.0.1:1/0", "DASHSEEK_REDIS_POLICY": policy}
    found = await seen(reading("http://127.0.0.1:1", environ=environ))
    assert found["redis"].verdict == verdict
    assert found["redis"].to_do.endswith("calls are refused" if policy == "closed" else "calls go without limits")
    assert "hush" not in str(found)


async def test_a_redis_that_answers_is_well_and_is_left_again() -> None:
    left = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # A command is an array: *2, then $4 and a word, twice.
        while line := await reader.readline():
            for _ in range(2 * int(line[1:])):
                await reader.readline()
            writer.write(b"+PONG\r\n")
        left.set()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        url = f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0"
        found = await seen(reading("http://127.0.0.1:1", environ={"DASHSEEK_REDIS_URL": url}))
        await left.wait()
    assert (found["redis"].verdict, found["redis"].found) == ("ok", "answers")


async def test_wrong_settings_are_told_and_the_machine_is_examined_all_the_same() -> None:
    found = await seen(reading("http://127.0.0.1:1", idle_timeout="soon"))
    assert found["settings"].verdict == "fail"
    assert "idle_timeout (--idle-timeout)" in found["settings"].found
    assert found["vocabulary"].verdict == "ok"
    assert "key" not in found


async def test_a_vocabulary_that_is_not_ours_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    vocabulary.load.cache_clear()
    monkeypatch.setattr(vocabulary, "SHA256", "0" * 64)
    found = await seen(reading("http://127.0.0.1:1"))
    assert found["vocabulary"].verdict == "fail"
    assert "pip install" in found["vocabulary"].to_do


async def test_a_proxy_of_the_environment_is_passed_by_and_that_is_said() -> None:
    found = await seen(reading("http://127.0.0.1:1"), {"https_proxy": "http://user:hush@proxy"})
    assert found["environment"].verdict == "warn"
    assert "hush" not in str(found)


def test_the_gravest_failure_is_the_exit_code(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """What is wrong here before what is wrong there; lines in columns, and what mends it below them."""
    os.mkfifo(tmp_path / "pipe")
    assert doctor.examine(reading("http://127.0.0.1:1"), {}) == exit_codes.Exit.UPSTREAM_REFUSED
    assert doctor.examine(reading("http://127.0.0.1:1", port="x"), {}) == exit_codes.Exit.CONFIGURATION
    capsys.readouterr()
    both = reading("http://127.0.0.1:1", journal_file=str(tmp_path / "pipe"))
    assert doctor.examine(both, {}) == exit_codes.Exit.CONFIGURATION
    said = capsys.readouterr().out
    assert f"fail  journal     {tmp_path / 'pipe'}\n                  -> is no file but a pipe" in said
    assert "fail  connection  127.0.0.1:1: " in said
    assert "\n                  -> is it up" in said
    assert said.count("->") == 2
