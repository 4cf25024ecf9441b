"""C · The upstream cannot be reached: a true status in time, one safe retry, nothing asked twice (spec ERR-4)."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import subprocess
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from proxy.simulation.simulator import Simulator
from proxy.simulation.wire import Script
from tests import caller, needs
from tests.faults import chaos
from tests.faults.conftest import Stage
from tests.faults.matrix import row

pytestmark = pytest.mark.asyncio(loop_scope="module")

UNAVAILABLE = (503, "ModelUnavailable")
TIMED_OUT = (500, "RequestTimeOut")
BROKEN = (500, "InternalError")

# Python runs this before anything else: names lead where a file says, and may lead elsewhere later.
NAMES = """
import pathlib, socket
_ask = socket.getaddrinfo
def getaddrinfo(host, port, *others, **named):
    table = dict(line.split("=") for line in pathlib.Path(NAMES).read_text().split())
    found = table.get(host, host)
    return [entry for address in found.split(",") for entry in _ask(address, port, *others, **named)]
socket.getaddrinfo = getaddrinfo
"""


@pytest.fixture
def names(tmp_path: Path) -> tuple[Path, dict[str, str]]:
    """A file of `name=address,address`, and the variables that make a process go by it."""
    table = tmp_path / "names"
    hook = tmp_path / "hook"
    hook.mkdir()
    (hook / "sitecustomize.py").write_text(NAMES.replace("NAMES)", f"{str(table)!r})"))
    # uvloop asks the system itself, and not Python.
    return table, {"PYTHONPATH": f"{hook}:{Path(__file__).parents[2]}", "DASHSEEK_LOOP": "asyncio"}


@row("503 `ModelUnavailable`", figure="≤ 1 s; two tries, another target where there is one")
async def test_f21_a_refused_connection_is_tried_elsewhere_and_then_said(stage: Stage) -> None:
    with chaos.closed_port() as closed:
        alone = await stage(targets=(closed,))
        watch = alone.watch()
        async with alone.frees("upstream_error") as named:
            assert (await alone.ask(headers=named)).fault[:2] == UNAVAILABLE
        assert watch.lap_s() < 1
        upstream = alone.upstream
        backed = await stage(targets=(closed, upstream.url), upstream=upstream)
        for _ in range(3):
            async with backed.frees("ok") as named:
                assert (await backed.ask(headers=named)).status == 200
    attempts = [len(line["attempts"]) for line in backed.lines if line["event"] == "call"]
    assert attempts == [2, 1, 1]


@row("500 `RequestTimeOut`", figure="connect_timeout 0.3 s, one try")
async def test_f22_an_upstream_that_answers_no_syn_is_given_up_in_time(stage: Stage) -> None:
    async with chaos.deaf_port() as deaf:
        stand = await stage("--connect-timeout", "0.3", targets=(deaf,))
        started_s, watch = time.monotonic(), stand.watch()
        async with stand.frees("timeout_connect") as named:
            assert (await stand.ask(headers=named)).fault[:2] == TIMED_OUT
        assert watch.lap_s() < 1
    assert time.monotonic() - started_s >= 0.3


@row("503 `ModelUnavailable`", figure="no such name; the name is not repeated")
async def test_f23_a_name_that_leads_nowhere_is_unavailable(stage: Stage) -> None:
    stand = await stage(targets=("http://nowhere.invalid",))
    async with stand.frees("upstream_error") as named:
        answer = await stand.ask(headers=named)
        assert answer.fault[:2] == UNAVAILABLE
    assert b"nowhere" not in answer.body


@row("the answer, of every call", figure="the retry asks the name anew: two attempts for the first call, then one")
async def test_f24_a_name_that_moves_is_followed_at_once(stage: Stage, names: tuple[Path, dict[str, str]]) -> None:
    table, env = names
    table.write_text("model.test=127.0.0.1")
    async with Simulator() as old:
        port = int(old.url.rpartition(":")[2])
        async with Simulator(host="127.0.0.2", port=port) as new:
            stand = await stage(targets=(f"http://model.test:{port}",), upstream=new, env=env)
            assert (await stand.ask()).status == 200
            await old.__aexit__(None, None, None)
            table.write_text("model.test=127.0.0.2")
            await stand.settled()
            for _ in range(3):
                async with stand.frees("ok") as named:
                    assert (await stand.ask(headers=named)).status == 200
    assert [len(line["attempts"]) for line in stand.lines if line["event"] == "call"] == [1, 2, 1, 1]


@row("the answer", figure="one attempt: the other address of the same name")
async def test_f25_one_dead_address_of_several_costs_no_call(stage: Stage, names: tuple[Path, dict[str, str]]) -> None:
    table, env = names
    table.write_text("model.test=127.0.0.3,127.0.0.1")
    async with Simulator() as upstream:
        named_target = upstream.url.replace("127.0.0.1", "model.test")
        stand = await stage(targets=(named_target,), upstream=upstream, env=env)
        async with stand.frees("ok") as named:
            assert (await stand.ask(headers=named)).status == 200
    assert [len(line["attempts"]) for line in stand.lines if line["event"] == "call"] == [1]


@pytest.mark.parametrize("flaw", ["expired", "wrong name", "unknown CA", "no handshake"])
@row("503 `ModelUnavailable`; 500 `RequestTimeOut` for a handshake that stalls", figure="connect_timeout, TLS included")
async def test_f26_a_certificate_that_is_not_right_is_never_accepted(stage: Stage, tmp_path: Path, flaw: str) -> None:
    certificate = _certificate(tmp_path, "other.test" if flaw == "wrong name" else "localhost", flaw == "expired")
    trusted = () if flaw == "unknown CA" else ("--upstream-ca-file", str(certificate))
    async with _listening(None if flaw == "no handshake" else certificate) as port:
        stand = await stage("--connect-timeout", "0.5", *trusted, targets=(f"https://localhost:{port}",))
        async with stand.frees("upstream_error", "timeout_connect") as named:
            answer = await stand.ask(headers=named)
    assert answer.fault[:2] == (TIMED_OUT if flaw == "no handshake" else UNAVAILABLE)


@row("the answer", figure="two attempts, the upstream was asked once")
async def test_f27_a_pooled_connection_that_dies_as_it_is_used_costs_no_call(stage: Stage) -> None:
    async with Simulator() as upstream, chaos.Chaos(upstream.url) as line:
        stand = await stage("--upstream-keepalive-timeout", "30", targets=(line.url,), upstream=upstream)
        assert (await stand.ask()).status == 200

        async def heals() -> None:
            while line.connections < 2:  # noqa: ASYNC110 - it must happen before the next byte
                await asyncio.sleep(0)
            line.line = chaos.Line()

        line.line = chaos.Line(reset_on_request=True)
        healing = asyncio.create_task(heals())
        assert (await stand.ask()).status == 200
        await healing
        await asyncio.sleep(0.1)
        assert [len(said["attempts"]) for said in stand.lines if said["event"] == "call"] == [1, 2]
        assert len(upstream.calls) == 2


@row("500 `InternalError` (spec ERR: an early end)", figure="one attempt: it may have been served")
async def test_f28_a_reset_after_the_request_was_sent_is_not_tried_again(stage: Stage) -> None:
    async with Simulator() as upstream, chaos.Chaos(upstream.url, chaos.Line(reset_after=0)) as line:
        stand = await stage(targets=(line.url,), upstream=upstream)
        async with stand.frees("upstream_cut", "upstream_error") as named:
            assert (await stand.ask(headers=named)).fault[:2] == BROKEN
        assert len(upstream.calls) == 1


async def test_a_line_that_only_slices_and_delays_changes_no_word(stage: Stage) -> None:
    async with Simulator(Script(text="one two three")) as upstream, chaos.Chaos(upstream.url) as between:
        stand = await stage(targets=(between.url,), upstream=upstream)
        for line in (chaos.Line(slice_bytes=7), chaos.Line(latency_s=0.01)):
            between.line = line
            async with stand.frees("ok") as named:
                assert caller.text((await stand.ask(headers=named)).body) == "one two three"


async def test_a_line_that_passes_nothing_is_a_fault_in_time(stage: Stage) -> None:
    async with Simulator() as upstream, chaos.Chaos(upstream.url) as between:
        stand = await stage("--first-token-timeout", "0.4", targets=(between.url,), upstream=upstream)
        # A reset that comes at once may find the connection made, or still being made.
        for line, statuses in ((chaos.Line(refuse=True), {500, 503}), (chaos.Line(black_hole=True), {500})):
            between.line = line
            async with stand.frees("upstream_cut", "upstream_error", "timeout_first_token") as named:
                async with asyncio.timeout(1):
                    assert (await stand.ask(headers=named)).fault[0] in statuses


def _certificate(directory: Path, name: str, expired: bool) -> Path:
    """A certificate for one name, and its key beside it in the same file."""
    key, request, path = directory / "key.pem", directory / "request.pem", directory / "cert.pem"
    dates = ["-startdate", "20200101000000Z", "-enddate", "20200102000000Z"] if expired else ["-days", "2"]
    config = directory / "ca.cnf"
    config.write_text(
        f"[ca]\ndefault_ca=d\n[d]\ndatabase={directory}/index\nserial={directory}/serial\nnew_certs_dir={directory}\n"
        "default_md=sha256\npolicy=p\nx509_extensions=x\n[p]\ncommonName=supplied\n"
        f"[x]\nsubjectAltName=DNS:{name}\nbasicConstraints=CA:true\n"
    )
    (directory / "index").write_text("")
    (directory / "serial").write_text("01")
    asked = ["req", "-new", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={name}", "-keyout", key, "-out", request]
    signed = ["ca", "-batch", "-selfsign", "-config", config, "-keyfile", key, "-in", request, "-out", path, *dates]
    for arguments in (asked, [*signed, "-notext"]):
        subprocess.run([needs.program("openssl"), *map(str, arguments)], check=True, capture_output=True)
    return path


@contextlib.asynccontextmanager
async def _listening(certificate: Path | None) -> AsyncIterator[int]:
    """A server that speaks TLS, or accepts and says nothing; its port."""
    context = None
    if certificate is not None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate, certificate.with_name("key.pem"))

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            await reader.read()
        writer.close()

    server = await asyncio.start_server(converse, "127.0.0.1", 0, ssl=context)
    async with server:
        yield server.sockets[0].getsockname()[1]
