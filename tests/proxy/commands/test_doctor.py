"""Claims about what the doctor sees: on machines that are well, and on such as are not."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

import pytest
from aiohttp import web

from config import settings, sources
from proxy import vocabulary
from proxy.commands import doctor, exit_codes

KEY = "sk-ours"
OWN = {"DASHSEEK_UPSTREAM_API_KEY": KEY}


@contextlib.asynccontextmanager
async def upstream(
    key: str = KEY, certificate: Path | None = None, status: int = 200, path: str = "/models"
) -> AsyncIterator[str]:
    """A host that lists its models to who has the key."""

    async def models(asked: web.Request) -> web.Response:
        return web.Response(status=status if asked.headers.get("Authorization") == f"Bearer {key}" else 401)

    context = None
    if certificate is not None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate / "cert.pem", certificate / "key.pem")
    app = web.Application()
    app.router.add_get(path, models)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
        yield f"{'https' if context else 'http'}://127.0.0.1:{runner.addresses[0][1]}"
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


async def test_a_host_without_a_list_of_models_says_nothing_of_the_key() -> None:
    async with upstream(status=404) as target:
        found = await seen(reading(target, environ=OWN))
    assert found["key"].verdict == "warn"
    assert "check --online" in found["key"].to_do


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


async def test_a_name_that_nobody_has_ends_the_examination_of_that_upstream_alone() -> None:
    async with upstream() as target:
        findings = [finding async for finding in doctor.findings(reading("https://a.invalid", target), {})]
    about = [(finding.what, finding.verdict) for finding in findings][-4:]
    assert about == [("name", "fail"), ("name", "ok"), ("connection", "ok"), ("key", "ok")]


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


async def test_a_server_that_speaks_tls_is_told_from_one_that_speaks_no_http(certificate: Path) -> None:
    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    async with upstream(certificate=certificate) as target:
        found = await seen(reading(target.replace("https", "http"), environ=OWN))
    assert (found["key"].verdict, found["key"].to_do) == ("fail", "say https:// instead of http://")
    async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as server:
        found = await seen(reading(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", environ=OWN))
    assert (found["key"].verdict, found["key"].to_do) == ("fail", "does this port speak HTTP?")


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
    assert "hush" not in str(found)


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


def test_the_gravest_failure_is_the_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor.examine(reading("http://127.0.0.1:1"), {}) == exit_codes.Exit.UPSTREAM_REFUSED
    assert doctor.examine(reading("http://127.0.0.1:1", port="x"), {}) == exit_codes.Exit.CONFIGURATION
    said = capsys.readouterr().out
    assert "fail  connection" in said
    assert "-> is it up" in said
