"""Claims about one connection to an upstream: which framing is taken, what ends it, and what it may cost."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import zlib
from collections.abc import AsyncIterator

import pytest

from config import sources
from proxy.upstream import client, line, pools
from proxy.upstream.response import READ_BYTES, Broken, Response
from tests.asking import answered

POST = client.Post("/chat/completions", b"{}", None)
OK = b"HTTP/1.1 200 OK\r\n"
JSON = OK + b"Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"


@contextlib.asynccontextmanager
async def answering(*answers: bytes, ends: bool = False) -> AsyncIterator[tuple[pools.Upstreams, list[int]]]:
    """An upstream that answers each request with the next of these bytes, and the requests each connection brought."""
    waiting, seen = list(answers), []
    talking: set[asyncio.Task[None]] = set()

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(0)
        number = len(seen) - 1
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                await reader.readuntil(b"\r\n\r\n{}")
                seen[number] += 1
                writer.write(waiting.pop(0))
                await writer.drain()
                if ends:
                    break
        writer.close()

    def converses(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        talking.add(asyncio.ensure_future(converse(reader, writer)))

    server = await asyncio.start_server(converses, "127.0.0.1", 0)
    async with server:
        target = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with pools.opened(sources.load({"upstream": (target,)}, None, {})) as upstreams:
            yield upstreams, seen
    await asyncio.gather(*talking)


async def whole(response: Response) -> bytes:
    body = b""
    while piece := await response.read():
        body += piece
    return body


async def asked(upstreams: pools.Upstreams) -> tuple[int, str | None, bytes]:
    with contextlib.closing(await answered(upstreams, POST, [])) as response:
        return response.status, response.retry_after, await whole(response)


@pytest.mark.parametrize("surplus", [b"x", b"\0", JSON, b"\r\n" * 3])
@pytest.mark.parametrize("answer", [JSON, JSON.replace(b"Content-Type", b"Connection: close\r\nContent-Type")])
async def test_what_follows_a_whole_answer_is_nobodys_and_ends_the_connection(answer: bytes, surplus: bytes) -> None:
    async with answering(answer + surplus, JSON) as (upstreams, seen):
        assert (await asked(upstreams))[2] == b"{}"
        assert (await asked(upstreams))[2] == b"{}"
    assert sum(seen) == 2
    if surplus.strip():
        assert seen == [1, 1]


@pytest.mark.parametrize("field", [b"Content-Encoding: br", b"Content-Encoding: gzip", b"Retry-After: 77"])
async def test_what_an_interim_answer_says_of_itself_is_not_said_of_the_answer(field: bytes) -> None:
    interim = b"HTTP/1.1 103 Early Hints\r\n" + field + b"\r\n\r\n"
    async with answering(interim * 3 + JSON) as (upstreams, _):
        assert await asked(upstreams) == (200, None, b"{}")


@pytest.mark.parametrize("coding", [b"gzip", b"x-gzip", b"GZIP"])
@pytest.mark.parametrize("chunked", [True, False])
async def test_a_gzip_nobody_asked_for_is_inflated(coding: bytes, chunked: bool) -> None:
    plain = b"data: {}\n\n" * 50_000
    packed = gzip.compress(plain)
    head = OK + b"Content-Encoding: " + coding + b"\r\n"
    answer = (
        head + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(packed), packed)
        if chunked
        else head + b"Content-Length: %d\r\n\r\n%b" % (len(packed), packed)
    )
    async with answering(answer, JSON) as (upstreams, seen):
        assert (await asked(upstreams))[2] == plain
        await asked(upstreams)
    assert seen == [2]


async def test_what_little_becomes_much_gives_others_their_turn() -> None:
    packed = gzip.compress(b": x\n\n" * 2_000_000)
    head = OK + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed)
    async with answering(head + packed) as (upstreams, _):
        turns, pieces = 0, 0

        async def others() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        def take(_: bytes) -> bool:
            nonlocal pieces
            pieces += 1
            return False

        beside = asyncio.create_task(others())
        with contextlib.closing(await answered(upstreams, POST, [])) as response:
            before = turns
            await response.pour(take)
        assert turns - before >= pieces > 200
        beside.cancel()


@pytest.mark.parametrize("behind", [b"", b"junk" * 50_000], ids=["nothing", "junk"])
async def test_the_end_of_what_was_packed_is_the_end_of_the_answer(behind: bytes) -> None:
    answer = OK + b"Content-Encoding: gzip\r\n\r\n" + gzip.compress(b"whole") + behind
    async with answering(answer, ends=not behind) as (upstreams, _), asyncio.timeout(5):
        assert (await asked(upstreams))[2] == b"whole"


@pytest.mark.parametrize(
    "body", [gzip.compress(b"cut" * 99)[:-9], b"plain", zlib.compress(b"deflate")], ids=["cut", "plain", "deflate"]
)
async def test_what_is_no_whole_gzip_is_broken(body: bytes) -> None:
    head = OK + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(body)
    async with answering(head + body) as (upstreams, _):
        with pytest.raises(Broken):
            await asked(upstreams)


ENDLESS = {
    "a coding nobody asked for": OK + b"Content-Encoding: br\r\nContent-Length: 2\r\n\r\n{}",
    "a head without end": OK + b"X-Filler: " + b"a" * 200_000,
    "heads without end": OK + b"X-Filler: a\r\n" * 20_000,
    "interim answers without end": b"HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n" * 5_000,
    "trailers without end": OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n" + b"X-Filler: a\r\n" * 20_000,
    "a trailer without end": OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\nX-Filler: " + b"a" * 200_000,
    "an extension without end": OK + b"Transfer-Encoding: chunked\r\n\r\n2;" + b"a" * 200_000,
    "two lengths": OK + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "no HTTP": b"RFB 003.008\r\n\r\n",
    "an upgrade": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n",
    "an end before the length": OK + b"Content-Length: 9\r\n\r\n{}",
}


@pytest.mark.parametrize("wire", ENDLESS.values(), ids=ENDLESS)
async def test_what_has_no_end_or_no_sense_is_broken(wire: bytes) -> None:
    async with answering(wire, ends=True) as (upstreams, _), asyncio.timeout(5):
        with pytest.raises(Broken):
            await asked(upstreams)


@pytest.mark.parametrize("status", [b"204 No Content", b"304 Not Modified"])
@pytest.mark.parametrize("length", [b"", b"Content-Length: 9\r\n"])
async def test_an_answer_without_a_body_is_whole_with_its_head(status: bytes, length: bytes) -> None:
    """RFC 9112, 6.3: whatever length it says."""
    async with answering(b"HTTP/1.1 " + status + b"\r\n" + length + b"\r\n", JSON) as (upstreams, seen):
        assert await asked(upstreams) == (int(status[:3]), None, b"")
        assert (await asked(upstreams))[2] == b"{}"
    assert seen == [2]


async def test_a_body_may_end_with_its_connection() -> None:
    async with answering(OK + b"\r\n{}", ends=True) as (upstreams, _):
        assert (await asked(upstreams))[2] == b"{}"


async def test_trailers_and_extensions_of_a_sane_length_are_read_over() -> None:
    wire = OK + b"Transfer-Encoding: chunked\r\n\r\n2;a=b\r\n{}\r\n0\r\nX-Sum: 1\r\n\r\n"
    async with answering(wire, JSON) as (upstreams, seen):
        assert (await asked(upstreams))[2] == b"{}"
        assert (await asked(upstreams))[2] == b"{}"
    assert seen == [2]


@pytest.mark.parametrize("head", [OK, b"HTTP/1.1 103 Early Hints\r\n\r\n" + OK], ids=["an answer", "an interim one"])
async def test_a_second_answer_in_the_same_read_is_none_of_the_first(head: bytes) -> None:
    """And its connection serves no other call: RFC 9112 has no answer that nobody asked for."""
    wire = JSON + head + b'Content-Length: 9\r\n\r\n{"more":1}'
    async with answering(wire, JSON) as (upstreams, seen):
        assert (await asked(upstreams))[2] == b"{}"
        assert (await asked(upstreams))[2] == b"{}"
    assert seen == [1, 1]


@pytest.mark.parametrize("how", ["read", "pour"])
async def test_what_nobody_reads_stays_with_upstream_until_somebody_does(how: str) -> None:
    """ERR-5: back-pressure; of an answer no more is held here than a read or two."""
    body = b"0123456789abcdef" * (1 << 16)
    async with asyncio.timeout(30), answering(OK + b"Content-Length: %d\r\n\r\n" % len(body) + body) as (upstreams, _):
        with contextlib.closing(await answered(upstreams, POST, [])) as response:
            (open_line,) = upstreams.connections._acquired
            while open_line._is_reading:  # noqa: ASYNC110 - a connection tells nobody
                await asyncio.sleep(0)
            assert open_line._held_bytes <= line.HELD_BYTES + READ_BYTES
            if how == "pour":
                came = bytearray()
                await response.pour(came.extend)
                assert came == body
            else:
                assert await whole(response) == body
            assert response.at_end()


async def test_what_comes_while_nobody_asks_ends_the_connection_at_once() -> None:
    """ERR-4: such a one is never used again."""
    writers: list[asyncio.StreamWriter] = []
    talks: list[asyncio.Task[None]] = []

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while await reader.readuntil(b"\r\n\r\n{}"):
                writer.write(JSON)
        writer.close()

    def converses(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        talks.append(asyncio.ensure_future(converse(reader, writer)))

    async with asyncio.timeout(10), await asyncio.start_server(converses, "127.0.0.1", 0) as server:
        target = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        settings = sources.load({"upstream": (target,), "upstream_keepalive_timeout": 60}, None, {})
        async with pools.opened(settings) as upstreams:
            for calls in (1, 2):
                assert (await asked(upstreams))[2] == b"{}"
                assert (len(writers), upstreams.connections.idle) == (calls, 1)
                writers[-1].write(JSON)
                while upstreams.connections.idle:  # noqa: ASYNC110 - a connection tells nobody
                    await asyncio.sleep(0)
    await asyncio.gather(*talks)
