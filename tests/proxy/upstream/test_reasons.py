"""Claims about what is said of an upstream that does not answer: one sentence, in the log and by the doctor."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from config import sources
from config.settings import Settings
from proxy.commands import doctor
from proxy.upstream import client, pools, reasons
from proxy.upstream.response import UpstreamFailure
from tests.asking import answered

Trouble = Callable[[Path], AbstractAsyncContextManager[str]]


@contextlib.asynccontextmanager
async def listening(answer: bytes, certificate: Path | None = None) -> AsyncIterator[str]:
    """A port that answers anything with that, over TLS where there is a certificate; its host and number."""
    context = None
    if certificate is not None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate / "cert.pem", certificate / "key.pem")

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(answer)
        writer.close()

    async with await asyncio.start_server(converse, "127.0.0.1", 0, ssl=context) as server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"


@contextlib.asynccontextmanager
async def nobody(_: Path) -> AsyncIterator[str]:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"


@contextlib.asynccontextmanager
async def nobody_by_name(_: Path) -> AsyncIterator[str]:
    """Of several addresses none is listened on."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"http://localhost:{bound.getsockname()[1]}"


@contextlib.asynccontextmanager
async def no_name(_: Path) -> AsyncIterator[str]:
    yield "http://nowhere.invalid"


@contextlib.asynccontextmanager
async def plain(_: Path) -> AsyncIterator[str]:
    async with listening(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n") as place:
        yield f"https://{place}"


@contextlib.asynccontextmanager
async def silent(_: Path) -> AsyncIterator[str]:
    """A port that hangs up on a handshake."""
    async with listening(b"") as place:
        yield f"https://{place}"


@contextlib.asynccontextmanager
async def unknown(certificate: Path) -> AsyncIterator[str]:
    async with listening(b"", certificate) as place:
        yield f"https://{place}"


@contextlib.asynccontextmanager
async def alert(_: Path) -> AsyncIterator[str]:
    """What OpenSSL says to a request in plain HTTP."""
    async with listening(b"\x15\x03\x01\x00\x02\x02\x46") as place:
        yield f"http://{place}"


TROUBLES: dict[str, tuple[Trouble, str, str]] = {
    "nobody": (nobody, "nobody listens", "is it up"),
    "nobody, by name": (nobody_by_name, "nobody listens", "is it up"),
    "no name": (no_name, "nobody has that name", "DNS"),
    "https to http": (plain, "it speaks no TLS", "http:// instead of https://"),
    "a handshake nobody answers": (silent, "", "does it speak TLS"),
    "an unknown certificate": (unknown, "not believed, self-signed certificate", "--upstream-ca-file"),
    "http to https": (alert, "it speaks TLS", "https:// instead of http://"),
}


def settings(target: str) -> Settings:
    return sources.load({"upstream": (target,)}, None, {})


async def cause(target: str) -> str:
    async with pools.opened(settings(target)) as upstreams:
        with pytest.raises(UpstreamFailure) as failed:
            await answered(upstreams, client.Post("/chat/completions", b"{}", None), [])
    return failed.value.refusal().cause


@pytest.mark.parametrize("name", TROUBLES)
async def test_the_log_says_what_is_the_case_and_what_mends_it(name: str, certificate: Path) -> None:
    trouble, found, to_do = TROUBLES[name]
    async with trouble(certificate) as target:
        said = await cause(target)
    assert found in said
    assert to_do in said
    # What stands behind a colon is upstream's, which the log leaves out.
    assert ": " not in said


@pytest.mark.parametrize("name", [name for name in TROUBLES if name != "http to https"])
async def test_the_doctor_says_the_same(name: str, certificate: Path) -> None:
    trouble, found, to_do = TROUBLES[name]
    async with trouble(certificate) as target:
        *_, last = [finding async for finding in doctor.of_upstreams(settings(target), {})]
    assert last.verdict == "fail"
    assert found in last.found
    assert to_do in last.to_do


async def test_the_doctor_knows_a_port_that_would_rather_be_asked_over_tls(certificate: Path) -> None:
    async with listening(b"", certificate) as place:
        *_, last = [finding async for finding in doctor.of_upstreams(settings(f"http://{place}"), {})]
    assert (last.verdict, last.to_do) == ("fail", "say https:// instead of http://")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.EHOSTUNREACH, "x"), "there is no way to it"),
        (OSError(errno.EMFILE, "x"), "too many files are open"),
        (OSError("Multiple exceptions: [Errno 111] Connect call failed ('::1', 1), [Errno 101] no"), "nobody listens"),
        (OSError(errno.EIO, "x"), "no connection was made, Input/output error"),
        (RuntimeError("no address"), "no connection was made, RuntimeError"),
    ],
)
def test_every_failure_has_a_sentence(error: Exception, said: str) -> None:
    assert said in reasons.reason_of(error).found
