"""Claims about a port that speaks TLS: all that holds without it holds, and a new certificate is shown as it comes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import shutil
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import structlog.testing

from config import values
from proxy.downstream import strays, tls
from proxy.simulation.wire import Script
from tests import caller, needs
from tests.conftest import StartSimulator
from tests.proxy.conftest import Running, StartGateway

LOUD = "word " * 15_000


@pytest.fixture
def pair(certificate: Path, tmp_path: Path) -> dict[str, str]:
    """A certificate and its key that a test may change, as settings."""
    for name in ("cert.pem", "key.pem"):
        shutil.copy(certificate / name, tmp_path)
    return {"tls_cert": str(tmp_path / "cert.pem"), "tls_key": str(tmp_path / "key.pem")}


def make(pair: dict[str, str], name: str) -> None:
    """Another certificate in place of it, as a certificate manager does: each file is replaced at once."""
    new = {kind: f"{path}.new" for kind, path in pair.items()}
    arguments = ["-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={name}"]
    files = ["-keyout", new["tls_key"], "-out", new["tls_cert"]]
    subprocess.run([needs.program("openssl"), "req", "-x509", *arguments, *files], check=True, capture_output=True)
    for kind, path in pair.items():
        os.replace(new[kind], path)


async def shown(url: str) -> bytes:
    """The certificate that a handshake shows."""
    place = urlsplit(url)
    _, writer = await asyncio.open_connection(place.hostname, place.port, ssl=caller.BELIEVING)
    found: bytes = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.transport.abort()
    return found


async def served(
    simulator: StartSimulator, start: StartGateway, script: Script | None = None, **chosen: Any
) -> Running:
    return await start((await simulator(script)).url, **chosen)


async def test_calls_are_served_as_without_it(
    simulator: StartSimulator, gateway_before: StartGateway, pair: dict[str, str]
) -> None:
    front = await served(simulator, gateway_before, **pair)
    assert front.url.startswith("https://")
    assert (await caller.ask(front.url, caller.call())).json["usage"]["total_tokens"] > 0
    stream = await caller.stream(front.url, caller.call(incremental_output=True))
    assert caller.text(stream.body)
    assert (await caller.ask(front.url, b"[]")).status == 400


async def test_a_connection_serves_call_after_call(
    simulator: StartSimulator, gateway_before: StartGateway, pair: dict[str, str]
) -> None:
    front = await served(simulator, gateway_before, **pair)
    async with caller.dial(front.url) as line:
        for _ in range(3):
            line.send(caller.request(caller.call()))
            assert (await line.answer()).status == 200


async def test_long_calls_and_long_answers_come_through_whole(
    simulator: StartSimulator, gateway_before: StartGateway, pair: dict[str, str]
) -> None:
    front = await served(simulator, gateway_before, Script(text=LOUD), **pair)
    answer = await caller.ask(front.url, caller.call(LOUD))
    assert answer.json["output"]["choices"][0]["message"]["content"] == LOUD


async def test_a_caller_in_pieces_is_understood(
    simulator: StartSimulator, gateway_before: StartGateway, pair: dict[str, str]
) -> None:
    """Bytes of the socket end where they like."""
    front = await served(simulator, gateway_before, **pair)
    session, place = Pieces(), urlsplit(front.url)
    reader, writer = await asyncio.open_connection(place.hostname, place.port)
    session.ours.write(caller.request(caller.call(), {"Connection": "close"}))
    async with asyncio.timeout(20):
        answer = await session.run(reader, writer)
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")


class Pieces:
    """A client of TLS that hands its socket seven bytes at a time."""

    def __init__(self) -> None:
        self.ours, self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO(), ssl.MemoryBIO()
        self._session = caller.BELIEVING.wrap_bio(self._in, self._out)

    async def run(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        answer, waits, agreed = b"", self.ours.read(), False
        while True:
            try:
                if not agreed:
                    self._session.do_handshake()
                    agreed = True
                if waits:
                    self._session.write(waits)
                    waits = b""
                while got := self._session.read(1 << 16):
                    answer += got
                break
            except ssl.SSLWantReadError:
                pass
            wire = self._out.read()
            for at in range(0, len(wire), 7):
                writer.write(wire[at : at + 7])
                await asyncio.sleep(0)
            self._in.write(await reader.read(1 << 16))
        writer.transport.abort()
        return answer


async def test_who_hangs_up_stops_the_upstream(
    simulator: StartSimulator, gateway_before: StartGateway, pair: dict[str, str]
) -> None:
    """MET-5"""
    front = await served(simulator, gateway_before, Script(endless=True, gap_s=0.02), **pair)
    async with caller.dial(front.url) as line:
        line.send(caller.request(caller.call(incremental_output=True), caller.SSE))
        await line.head()
        await line.until(b"id:3\n")
    record, outcome = await front.end_of()
    assert outcome == "client_gone_mid_stream"
    assert record.closing["packets"] >= 3


@pytest.mark.parametrize("headers", [caller.SSE, {}], ids=["packets", "reply"])
async def test_what_was_encrypted_and_not_taken_is_not_delivered(
    simulator: StartSimulator, gateway_before: StartGateway, pair: dict[str, str], headers: dict[str, str]
) -> None:
    """MET-3: a caller who does not read is cut, and the books stand where the kernel stopped taking."""
    reply = b'{"choices":[{"index":0,"message":{"content":"%b"},"finish_reason":"stop"}]}' % (b"a" * (8 << 20))
    endless = Script(text="word " * 2_000, endless=True, deltas_per_write=500)
    script = endless if headers else Script(replay=reply, replay_content_type="application/json")
    front = await served(simulator, gateway_before, script, write_timeout=0.3, idle_timeout=60, **pair)
    async with caller.dial(front.url, receive_bytes=4096) as line, asyncio.timeout(20):
        line.send(caller.request(caller.call(incremental_output=True), headers))
        line.stall()
        record, outcome = await front.end_of()
    assert outcome == "client_stalled"
    assert bool(record.closing["usage"]["output_tokens"]) is bool(headers)
    if headers:
        assert record.closing["bytes_out"] < 1 << 20


async def test_plain_http_there_is_a_line_in_the_log(
    simulator: StartSimulator, gateway_before: StartGateway, pair: dict[str, str]
) -> None:
    front = await served(simulator, gateway_before, **pair)
    with structlog.testing.capture_logs() as lines:
        async with caller.dial(front.url.replace("https:", "http:")) as line:
            line.send(caller.request(caller.call()))
            await line.eof()
    assert [line["hint"] for line in lines if line["event"] == "stray"] == [strays.PLAIN_HINT]


async def test_so_is_what_is_no_handshake(
    simulator: StartSimulator, gateway_before: StartGateway, pair: dict[str, str]
) -> None:
    front = await served(simulator, gateway_before, **pair)
    with structlog.testing.capture_logs() as lines:
        async with caller.dial(front.url.replace("https:", "http:")) as line:
            line.send(b"\x16\x03\x01\x00\x05nonsense and more of it")
            await line.eof()
    assert [line["reason"][:5] for line in lines if line["event"] == "malformed"] == ["tls: "]


async def test_a_handshake_has_its_place_and_its_clock(
    simulator: StartSimulator, gateway_before: StartGateway, pair: dict[str, str]
) -> None:
    """ERR-5: who connects and says nothing is counted, makes way for a caller, and is closed in time."""
    front = await served(simulator, gateway_before, max_connections=1, header_timeout=0.3, **pair)
    plain = front.url.replace("https:", "http:")
    async with caller.dial(plain) as silent:
        assert (await caller.ask(front.url, caller.call())).status == 200
        assert await asyncio.wait_for(silent.eof(), 5) == b""
    async with caller.dial(plain) as silent:
        assert await asyncio.wait_for(silent.eof(), 5) == b""


class Above(asyncio.Protocol):
    """What stands above TLS: it notes what it is told."""

    def __init__(self) -> None:
        self.told: list[object] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.told.append("made")

    def data_received(self, data: bytes) -> None:
        self.told.append(data)

    def eof_received(self) -> bool | None:
        self.told.append("end")
        return None

    def connection_lost(self, exc: Exception | None) -> None:
        self.told.append("lost")

    def pause_writing(self) -> None:
        self.told.append("paused")

    def resume_writing(self) -> None:
        self.told.append("resumed")


class Talk:
    """One connection of both sides: ours in the loop, theirs by hand.

    refused: why handshakes have failed
    """

    def __init__(self, certificate: Path, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> None:
        self.ours, self.theirs = socket.socketpair()
        for one in (self.ours, self.theirs):
            one.setblocking(False)
        self.above, self.refused = Above(), list[str]()
        context = values.certificate(certificate / "cert.pem", certificate / "key.pem")
        self.secured = tls.Secured(context, self.above, self.refused.append)
        theirs = ssl._create_unverified_context()
        theirs.maximum_version = version
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.session = theirs.wrap_bio(self._in, self._out)

    async def begin(self) -> Talk:
        """Connect, without a word."""
        loop = asyncio.get_running_loop()
        self.socket, _ = await loop.create_unix_connection(lambda: self.secured, sock=self.ours)
        return self

    async def agreed(self) -> Talk:
        """Connect, and shake hands."""
        await self.begin()
        async with asyncio.timeout(30):
            await self.until(self.session.do_handshake)
            await self.say(b"hi")
            while b"hi" not in self.above.told:  # noqa: ASYNC110 - the loop brings it
                await asyncio.sleep(0)
        # What a session may be begun again by.
        with contextlib.suppress(BlockingIOError):
            self._in.write(self.theirs.recv(1 << 16))
        return self

    async def until(self, step: Callable[[], Any]) -> Any:
        """What a step of theirs comes to once all that it waits for has come."""
        while True:
            try:
                return step()
            except ssl.SSLWantReadError:
                await self.send()
                with contextlib.suppress(BlockingIOError):
                    if came := self.theirs.recv(1 << 16):
                        self._in.write(came)
                    else:
                        self._in.write_eof()
                await asyncio.sleep(0)

    async def say(self, text: bytes) -> None:
        self.session.write(text)
        await self.send()

    async def send(self) -> None:
        if wire := self._out.read():
            await asyncio.get_running_loop().sock_sendall(self.theirs, wire)

    async def hear(self, size: int) -> bytes:
        heard = b""
        while len(heard) < size:
            heard += await self.until(lambda: self.session.read(1 << 16))
        return heard

    def end(self) -> None:
        self.socket.abort()
        self.theirs.close()


@pytest.fixture
async def talk(certificate: Path) -> AsyncIterator[Talk]:
    one = Talk(certificate)
    async with asyncio.timeout(60):
        yield one
    one.end()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_farewell_of_theirs_is_the_end_of_what_comes_and_is_answered(
    certificate: Path, version: ssl.TLSVersion
) -> None:
    """They may wait for it, their end of the socket open."""
    one = await Talk(certificate, version).agreed()
    with contextlib.suppress(ssl.SSLWantReadError):
        one.session.unwrap()
    await one.send()
    async with asyncio.timeout(30):
        await one.until(one.session.unwrap)
        while "lost" not in one.above.told:  # noqa: ASYNC110 - the loop brings it
            await asyncio.sleep(0)
    assert one.above.told == ["made", b"hi", "end", "lost"]
    one.end()


async def test_a_farewell_of_ours_is_said_once_behind_what_was_written(talk: Talk) -> None:
    await talk.agreed()
    talk.secured.write(b"bye")
    for _ in range(2):
        talk.secured.close()
    assert talk.secured.is_closing()
    talk.secured.write(b"more")
    assert await talk.hear(3) == b"bye"
    # An end without one would be an error.
    assert await talk.until(lambda: talk.session.read(9)) == b""


async def test_before_a_handshake_there_is_nobody_to_write_or_say_farewell_to(talk: Talk) -> None:
    await talk.begin()
    assert not talk.secured.is_closing()
    talk.secured.write(b"hello")
    talk.secured.close()
    while "lost" not in talk.above.told:  # noqa: ASYNC110 - the loop brings it
        await asyncio.sleep(0)
    assert talk.theirs.recv(99) == b""


@pytest.mark.parametrize("agreed", [False, True])
async def test_what_is_no_tls_ends_it_with_an_alert_and_is_a_refusal_where_nothing_was_agreed(
    talk: Talk, agreed: bool
) -> None:
    await (talk.agreed() if agreed else talk.begin())
    talk.secured.data_received(b"\x16\x03\x01\x00\x05nonsense and more of it")
    assert len(talk.refused) == (not agreed)
    assert (talk.secured.is_closing(), talk.socket.is_closing()) == (True, True)
    talk.secured.data_received(b"\x16\x03\x01\x00\x05nonsense and more of it")
    assert len(talk.refused) == (not agreed)
    assert select.select([talk.theirs], [], [], 0)[0]
    # A record of TLS: before the handshake an alert (21), later one that is encrypted (23).
    assert talk.theirs.recv(2) in {b"\x15\x03", b"\x17\x03"}


async def test_what_the_kernel_does_not_take_waits_in_order(talk: Talk) -> None:
    """As without TLS: what of it has left can be told."""
    await talk.agreed()
    text = b"".join(b"%08d" % number for number in range(1 << 18))
    half = len(text) // 2
    talk.secured.write(text[:half])
    waits_bytes = talk.secured.get_write_buffer_size()
    assert waits_bytes > 0
    assert "paused" in talk.above.told
    talk.secured.write(memoryview(text)[half:])
    talk.secured.write(b"")
    assert talk.secured.get_write_buffer_size() > waits_bytes + half
    assert await talk.hear(len(text)) == text
    assert (talk.secured.get_write_buffer_size(), talk.above.told[-1]) == (0, "resumed")


async def test_it_is_a_transport_as_the_sockets_is(talk: Talk) -> None:
    await talk.agreed()
    secured, plain = talk.secured, talk.socket
    assert secured.get_extra_info("ssl_object").version() == "TLSv1.3"
    assert secured.get_extra_info("sslcontext") is not None
    assert secured.get_extra_info("socket") is plain.get_extra_info("socket")
    assert secured.get_extra_info("nothing", "else") == "else"
    assert not secured.can_write_eof()
    for change, reads in ((secured.pause_reading, False), (secured.resume_reading, True)):
        change()
        assert secured.is_reading() is plain.is_reading() is reads
    secured.set_write_buffer_limits(high=7)
    assert plain.get_write_buffer_limits() == (1, 7)
    assert secured.get_protocol() is talk.above
    secured.set_protocol(other := Above())
    assert secured.get_protocol() is other
    secured.eof_received()
    assert other.told == ["end"]
    secured.abort()
    assert (secured.is_closing(), plain.is_closing()) == (True, True)
    await asyncio.sleep(0)
    assert other.told == ["end", "lost"]


@pytest.mark.parametrize("end", ["abort", "close"])
async def test_nothing_is_written_to_a_socket_that_is_closing(talk: Talk, end: str) -> None:
    await talk.agreed()
    getattr(talk.socket, end)()
    assert talk.secured.is_closing()
    talk.secured.write(b"more")
    while "lost" not in talk.above.told:  # noqa: ASYNC110 - the loop brings it
        await asyncio.sleep(0)
    assert talk.theirs.recv(99) == b""


async def test_one_that_is_lost_is_over(talk: Talk) -> None:
    await talk.agreed()
    talk.secured.connection_lost(None)
    assert talk.secured.is_closing()
    assert talk.above.told[-1] == "lost"


def test_who_asks_our_own_port_believes_its_certificate_by_any_name_and_no_other(certificate: Path) -> None:
    context = tls.trusting(certificate / "cert.pem")
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, False)
    # It need not be one that vouches for itself.
    assert context.verify_flags & ssl.VERIFY_X509_PARTIAL_CHAIN
    assert len(context.get_ca_certs()) == 1


def test_nothing_older_than_tls_1_2_is_spoken(pair: dict[str, str]) -> None:
    context = values.certificate(Path(pair["tls_cert"]), Path(pair["tls_key"]))
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert context.options & ssl.OP_NO_RENEGOTIATION


async def test_a_new_certificate_is_shown_to_the_next_and_halfway_through_the_old_one_stays(
    simulator: StartSimulator, gateway_before: StartGateway, pair: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tls, "LOOK_EVERY_S", 0.02)
    front = await served(simulator, gateway_before, **pair)
    before = await shown(front.url)
    old_key = key_of(pair)
    make(pair, "another")
    new_key = key_of(pair)
    await until_shown(front.url, Path(pair["tls_cert"]))
    put_key(pair, old_key)
    with structlog.testing.capture_logs() as lines:
        async with asyncio.timeout(5):
            while not lines:  # noqa: ASYNC110 - the file is looked at by the clock
                await asyncio.sleep(0.01)
    assert lines[0] == {
        "event": "certificate_kept",
        "log_level": "error",
        "reason": "is not the key of the certificate in tls_cert",
    }
    assert before != await shown(front.url) == der(Path(pair["tls_cert"]))
    put_key(pair, new_key)
    assert (await caller.ask(front.url, caller.call())).status == 200


def key_of(pair: dict[str, str]) -> bytes:
    return Path(pair["tls_key"]).read_bytes()


def put_key(pair: dict[str, str], key: bytes) -> None:
    Path(pair["tls_key"]).write_bytes(key)


def der(path: Path) -> bytes:
    return ssl.PEM_cert_to_DER_cert(path.read_text())


async def until_shown(url: str, path: Path) -> None:
    async with asyncio.timeout(5):
        while await shown(url) != der(path):  # noqa: ASYNC110 - the file is looked at by the clock
            await asyncio.sleep(0.02)


def test_a_file_that_is_gone_keeps_what_is_there(pair: dict[str, str]) -> None:
    kept = tls.Certificate(Path(pair["tls_cert"]), Path(pair["tls_key"]))
    context = kept.context
    Path(pair["tls_cert"]).unlink()
    with structlog.testing.capture_logs() as lines:
        kept.refresh()
    assert kept.context is context
    assert lines[0]["reason"] == "No such file or directory"
