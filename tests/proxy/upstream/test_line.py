"""Claims about one connection to an upstream: which framing is taken, what ends it, and what it may cost."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import socket
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from config import sources
from proxy.upstream import client, line, pools
from proxy.upstream.line import IDLE, LOST, WHOLE, Line, Stage
from proxy.upstream.reasons import SPEAKS_TLS
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
    ("body", "detail"),
    [
        (gzip.compress(b"cut" * 99)[:-9], "a body that is no whole gzip"),
        (b"plain", "a body that is no gzip"),
        (zlib.compress(b"deflate"), "a body that is no gzip"),
    ],
    ids=["cut", "plain", "deflate"],
)
async def test_what_is_no_whole_gzip_is_broken(body: bytes, detail: str) -> None:
    head = OK + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(body)
    async with answering(head + body) as (upstreams, _):
        with pytest.raises(Broken) as broken:
            await asked(upstreams)
        assert broken.value.detail == detail


TOO_LONG = f"more than {line.HEAD_BYTES} bytes of a head, or between two pieces of a body"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
# What comes, how much of it is read, and what it is called.
ENDLESS = {
    "a coding nobody asked for": (
        OK + b"Content-Encoding: br\r\nContent-Length: 2\r\n\r\n{}",
        b"",
        "a content coding nobody asked for",
    ),
    "a head without end": (OK + b"X-Filler: " + b"a" * 200_000, b"", TOO_LONG),
    "heads without end": (OK + b"X-Filler: a\r\n" * 20_000, b"", TOO_LONG),
    "interim answers without end": (b"HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n" * 5_000, b"", TOO_LONG),
    "trailers without end": (CHUNKED + b"2\r\n{}\r\n0\r\n" + b"X-Filler: a\r\n" * 20_000, b"{}", TOO_LONG),
    "a trailer without end": (CHUNKED + b"2\r\n{}\r\n0\r\nX-Filler: " + b"a" * 200_000, b"{}", TOO_LONG),
    "an extension without end": (CHUNKED + b"2;" + b"a" * 200_000, b"", TOO_LONG),
    "two lengths": (
        OK + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"",
        "no HTTP, HttpParserError",
    ),
    "no HTTP": (b"RFB 003.008\r\n\r\n", b"", "no HTTP, HttpParserError"),
    "an upgrade": (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n",
        b"",
        "an upgrade nobody asked for",
    ),
    "an end before the length": (OK + b"Content-Length: 9\r\n\r\n{}", b"{}", "connection closed"),
}


@pytest.mark.parametrize("how", ["read", "pour"])
@pytest.mark.parametrize(("wire", "read", "detail"), ENDLESS.values(), ids=ENDLESS)
async def test_what_has_no_end_or_no_sense_is_broken(wire: bytes, read: bytes, detail: str, how: str) -> None:
    came = bytearray()

    async def reading() -> None:
        with contextlib.closing(await answered(upstreams, POST, [])) as response:
            if how == "pour":
                await response.pour(came.extend)
            while how == "read" and (piece := await response.read()):
                came.extend(piece)

    async with answering(wire, ends=True) as (upstreams, _), asyncio.timeout(30):
        with pytest.raises(Broken) as broken:
            await reading()
        assert (came, broken.value.detail) == (read, detail)
        assert (upstreams.connections.idle, upstreams.connections.acquired) == (0, 0)


@pytest.mark.parametrize("status", [b"204 No Content", b"304 Not Modified"])
@pytest.mark.parametrize("length", [b"", b"Content-Length: 9\r\n"])
async def test_an_answer_without_a_body_is_whole_with_its_head(status: bytes, length: bytes) -> None:
    """RFC 9112, 6.3: whatever length it says."""
    async with answering(b"HTTP/1.1 " + status + b"\r\n" + length + b"\r\n", JSON) as (upstreams, seen):
        assert await asked(upstreams) == (int(status[:3]), None, b"")
        assert (await asked(upstreams))[2] == b"{}"
    assert seen == [2]


@pytest.mark.parametrize("before", [b"", b"HTTP/1.1 103 Early Hints\r\nContent-Length: 9\r\n\r\n"])
async def test_a_body_may_end_with_its_connection(before: bytes) -> None:
    async with answering(before + OK + b"\r\n{}", ends=True) as (upstreams, _):
        assert (await asked(upstreams))[2] == b"{}"
        assert (upstreams.connections.idle, upstreams.connections.acquired) == (0, 0)


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
    body = b"".join(b"%016x" % number for number in range(1 << 16))
    async with asyncio.timeout(30), answering(OK + b"Content-Length: %d\r\n\r\n" % len(body) + body) as (upstreams, _):
        with contextlib.closing(await answered(upstreams, POST, [])) as response:
            (open_line,) = upstreams.connections._acquired
            while open_line._is_reading:  # noqa: ASYNC110 - a connection tells nobody
                await asyncio.sleep(0)
            assert line.HELD_BYTES < open_line._held_bytes <= line.HELD_BYTES + READ_BYTES
            if how == "pour":
                came = bytearray()
                await response.pour(came.extend)
                assert came == body
            else:
                assert await whole(response) == body
            assert response.at_end()
            assert open_line._held_bytes == 0


class Wire:
    """A connection over a real socket, told by the test what the loop would tell it, and when.

    theirs: the other end
    parted: what it was said to have parted from: a stage for each time
    """

    def __init__(self, one: Line, transport: asyncio.Transport, theirs: socket.socket, parted: list[Stage]) -> None:
        self.line = one
        self.transport = transport
        self.theirs = theirs
        self.parted = parted

    def came(self, *pieces: bytes) -> None:
        """These have been read, each by itself, and none at more than once."""
        for piece in pieces:
            for start in range(0, len(piece), READ_BYTES):
                part = piece[start : start + READ_BYTES]
                self.line.get_buffer(-1)[: len(part)] = part
                self.line.buffer_updated(len(part))


StartWire = Callable[..., Awaitable[Wire]]


@pytest.fixture
async def wired() -> AsyncIterator[StartWire]:
    """Makes connections; idle, or asked and so far answered with these."""
    loop, ends = asyncio.get_running_loop(), contextlib.ExitStack()

    async def start(*pieces: bytes) -> Wire:
        ours, theirs = socket.socketpair()
        ends.callback(theirs.close)
        parted = list[Stage]()
        transport, one = await loop.create_unix_connection(
            lambda: Line(loop, lambda one: parted.append(one.stage)), sock=ours
        )
        ends.callback(transport.abort)
        wire = Wire(one, transport, theirs, parted)
        if pieces:
            one.ask(b"GET / HTTP/1.1\r\n\r\n")
            wire.came(*pieces)
        return wire

    with ends:
        yield start


# Before what is too long, how that begins, and how it ends.
LENGTHS = {
    "a head": (b"", OK + b"X-Filler: ", b"\r\nContent-Length: 2\r\n\r\n{}"),
    "before the first piece": (CHUNKED, b"2;a=", b"\r\n{}\r\n0\r\n\r\n"),
    "between two pieces": (CHUNKED + b"1\r\n{\r\n", b"1;a=", b"\r\n}\r\n0\r\n\r\n"),
    "a trailer": (CHUNKED + b"2\r\n{}\r\n", b"0\r\nX-Filler: ", b"\r\n\r\n"),
}


@pytest.mark.parametrize(("before", "begin", "end"), LENGTHS.values(), ids=LENGTHS)
async def test_a_head_or_what_stands_between_pieces_is_as_long_as_it_may_be(
    wired: StartWire, before: bytes, begin: bytes, end: bytes
) -> None:
    longest = begin.ljust(line.HEAD_BYTES, b"a")
    wire = await wired(b"", before, longest)
    wire.came(end)
    assert await whole(wire.line) == b"{}"
    wire = await wired(b"", before, longest, b"a")
    assert (wire.line.stage, wire.parted, wire.transport.is_closing()) == (LOST, [LOST], True)
    with pytest.raises(Broken, match=TOO_LONG):
        await whole(wire.line)


@pytest.mark.parametrize(
    ("pieces", "detail"),
    [
        ((b"\x15\x03\x01\x00\x02\x02\x28",), str(SPEAKS_TLS)),
        ((b"220 ready\r\n",), "no HTTP, "),
        ((b"HTTP/1.1 ", b"\x15\x03\x01\x00\x02\x02\x28"), "no HTTP, "),
        ((CHUNKED, b"\x15\x03\x01\x00\x02\x02\x28"), "no HTTP, "),
    ],
)
async def test_tls_is_named_where_an_answer_begins_with_it(
    wired: StartWire, pieces: tuple[bytes, ...], detail: str
) -> None:
    wire = await wired(*pieces)
    assert wire.transport.is_closing()
    with pytest.raises(Broken, match=f"^{detail}"):
        await wire.line.head()


PACKED = gzip.compress(b"{}")
PACKED_HEAD = OK + b"Content-Encoding: gzip\r\n"


@pytest.mark.parametrize(
    ("pieces", "reads", "at_end", "stage"),
    [
        ((b"",), False, False, LOST),
        ((OK + b"Content-Length: 2\r\n\r\n",), False, False, LOST),
        ((JSON,), False, False, LOST),
        ((JSON,), True, True, IDLE),
        ((CHUNKED + b"1\r\n{\r\n1\r\n}\r\n", b"0\r\n\r\n"), True, True, IDLE),
        ((OK + b"Connection: close\r\nContent-Length: 2\r\n\r\n", b"{", b"}"), True, True, LOST),
        ((JSON, b"HTTP/1.1"), True, True, LOST),
        ((PACKED_HEAD + b"Content-Length: %d\r\n\r\n" % len(PACKED), PACKED[:9], PACKED[9:]), True, True, IDLE),
        # Its end is said by what was packed, before its connection ends.
        ((PACKED_HEAD + b"\r\n", PACKED), True, True, LOST),
    ],
)
async def test_a_connection_whose_answer_was_read_to_its_end_serves_again_and_no_other(
    wired: StartWire, pieces: tuple[bytes, ...], reads: bool, at_end: bool, stage: Stage
) -> None:
    """ERR-4; and whoever had it is told once that it is free, or lost."""
    wire = await wired(*pieces)
    if reads:
        assert await whole(wire.line) == b"{}"
        assert wire.line._held_bytes == 0
    assert wire.line.at_end() is at_end
    for _ in range(2):
        wire.line.close()
    assert (wire.line.stage, wire.parted, wire.transport.is_closing()) == (stage, [stage], stage is LOST)


async def test_bytes_behind_what_was_packed_end_its_connection(wired: StartWire) -> None:
    wire = await wired(PACKED_HEAD + b"Content-Length: %d\r\n\r\n" % (len(PACKED) + 4), PACKED)
    assert await wire.line.read() == b"{}"
    wire.came(b"junk")
    assert wire.line.at_end()
    wire.line.close()
    assert wire.parted == [LOST]


@pytest.mark.parametrize(
    ("pieces", "error", "read", "detail"),
    [
        ((OK + b"\r\n{}",), None, b"{}", None),
        ((OK + b"\r\n{}",), ConnectionResetError(), b"{}", "ConnectionResetError"),
        ((OK + b"Content-Length: 3\r\n\r\n{}",), None, b"{}", "connection closed"),
        ((CHUNKED + b"2\r\n{}\r\n",), None, b"{}", "connection closed"),
        ((b"HTTP/1.1",), None, b"", "connection closed"),
        ((b"HTTP/1.1",), ConnectionResetError(), b"", "ConnectionResetError"),
        ((JSON,), None, b"{}", None),
        ((JSON,), ConnectionResetError(), b"{}", None),
    ],
)
async def test_the_end_of_a_connection_is_that_of_a_body_without_a_length_and_breaks_off_any_other(
    wired: StartWire, pieces: tuple[bytes, ...], error: Exception | None, read: bytes, detail: str | None
) -> None:
    """RFC 9112, 6.3 and 8; what came before it is read, and nobody is left waiting."""
    wire, came = await wired(*pieces), bytearray()

    async def reading() -> None:
        await wire.line.head()
        while piece := await wire.line.read():
            came.extend(piece)

    task = asyncio.create_task(reading())
    await asyncio.sleep(0)
    wire.line.connection_lost(error)
    async with asyncio.timeout(30):
        if detail is None:
            await task
        else:
            with pytest.raises(Broken) as broken:
                await task
            assert broken.value.detail == detail
    wire.line.close()
    assert (came, wire.parted) == (read, [LOST])


async def test_one_that_ends_while_it_is_idle_is_told_of_and_has_nothing_to_let_go_of(wired: StartWire) -> None:
    failed = list[object]()
    asyncio.get_running_loop().set_exception_handler(lambda _, said: failed.append(said))
    for _ in range(2):
        (wire := await wired()).theirs.close()
        while not wire.parted:  # noqa: ASYNC110 - a connection tells nobody
            await asyncio.sleep(0)
        assert wire.parted == [LOST]
        wire.line.abort()
        await asyncio.sleep(0)
    assert failed == []


async def test_of_one_that_is_lost_the_parser_is_let_go_of(wired: StartWire) -> None:
    """The two know each other: only a collection would free them."""
    wire = await wired(JSON)
    assert hasattr(wire.line, "_parser")
    wire.line.abort()
    assert await wire.line.read() == b"{}"
    with pytest.raises(Broken, match="closed by us"):
        await wire.line.head()
    await asyncio.sleep(0)
    assert not hasattr(wire.line, "_parser")


@pytest.mark.parametrize("looks", [True, False])
async def test_an_idle_one_is_fit_for_a_call_until_anything_has_come(wired: StartWire, looks: bool) -> None:
    """What the loop has not seen yet counts where the socket can be looked into: there TLS does not stand before it."""
    wire = await wired()
    if looks:
        wire.line.peek_at(wire.transport.get_extra_info("socket"))
    assert wire.line.is_usable()
    wire.theirs.send(b"x")
    assert wire.line.is_usable() is not looks
    wire = await wired()
    wire.transport.close()
    assert not wire.line.is_usable()
    wire = await wired(JSON)
    assert not wire.line.is_usable()
    await whole(wire.line)
    assert not wire.line.is_usable()
    wire.line.close()
    assert wire.line.is_usable()


@pytest.mark.parametrize("more", [0, 1])
async def test_what_is_held_stops_the_reading_above_its_bound_and_is_read_in_order(wired: StartWire, more: int) -> None:
    """SSE-10; a connection that serves again is read from again."""
    pieces = [b"a" * (READ_BYTES // 2), b"b" * (line.HELD_BYTES - READ_BYTES // 2), b"c" * more]
    body = b"".join(pieces)
    wire = await wired(OK + b"Content-Length: %d\r\n\r\n" % (len(body) + 1), *pieces)
    assert wire.transport.is_reading() is not bool(more)
    assert [await wire.line.read() for piece in pieces if piece] == [piece for piece in pieces if piece]
    waiting = asyncio.create_task(wire.line.read())
    await asyncio.sleep(0)
    assert wire.transport.is_reading()
    wire.came(b"d")
    assert await waiting == b"d"
    wire = await wired(OK + b"Content-Length: %d\r\n\r\n" % len(body), *pieces)
    assert await whole(wire.line) == body
    wire.line.close()
    assert (wire.line.stage, wire.transport.is_reading()) == (IDLE, True)


async def test_pieces_are_poured_as_they_come_and_wake_nobody_until_there_is_enough(
    wired: StartWire, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What comes behind that is held; and a failure behind it is for whoever reads on."""
    wake, woken = Line._wake, list[Stage]()

    def counted(one: Line) -> None:
        woken.append(one.stage)
        wake(one)

    monkeypatch.setattr(Line, "_wake", counted)
    wire, came = await wired(CHUNKED, b"1\r\n1\r\n", b"1\r\n2\r\n1\r\n3\r\n"), list[bytes]()
    woken.clear()
    pouring = asyncio.create_task(wire.line.pour(lambda piece: came.append(piece) or piece == b"56"))  # type: ignore[func-returns-value]
    await asyncio.sleep(0)
    assert came == [b"1", b"23"]
    wire.came(b"1\r\n4\r\n")
    assert woken == []
    wire.came(b"1\r\n5\r\n1\r\n6\r\n", b"1\r\n7\r\n", b"no chunk")
    await pouring
    assert came == [b"1", b"23", b"4", b"56"]
    assert await wire.line.read() == b"7"
    with pytest.raises(Broken):
        await wire.line.read()


@pytest.mark.parametrize("held", [True, False])
async def test_what_takes_pieces_may_fail_and_whoever_pours_is_told(wired: StartWire, held: bool) -> None:
    def take(_: bytes) -> bool:
        raise ZeroDivisionError

    wire = await wired(CHUNKED, *[b"1\r\n1\r\n"] * held)
    pouring = asyncio.create_task(wire.line.pour(take))
    await asyncio.sleep(0)
    if not held:
        wire.came(b"1\r\n1\r\n")
    with pytest.raises(ZeroDivisionError):
        await pouring
    wire.came(b"1\r\n2\r\n0\r\n\r\n")
    assert await wire.line.read() == b"2"
    await wire.line.pour(take)
    assert wire.line.at_end()


async def test_what_comes_for_who_was_cancelled_in_the_same_turn_is_no_failure(wired: StartWire) -> None:
    wire = await wired(b"HTTP/1.1 2")
    waiting = asyncio.create_task(wire.line.head())
    await asyncio.sleep(0)
    waiting.cancel()
    wire.came(b"00 OK\r\nContent-Length: 2\r\n\r\n{}")
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert wire.line.stage is WHOLE


async def test_what_a_head_says_is_read_and_a_trailer_says_nothing(wired: StartWire) -> None:
    said = b"Content-Type: Text/Event-Stream ; charset=utf-8\r\nRetry-After:  7 \r\nTransfer-Encoding: chunked\r\n\r\n"
    wire = await wired(b"HTTP/1.1 429 Too Many\r\n" + said, b"0\r\nContent-Type: a/b\r\nRetry-After: 9\r\n\r\n")
    assert (wire.line.status, wire.line.content_type, wire.line.retry_after) == (429, "text/event-stream", "7")
    assert await whole(wire.line) == b""
    wire.line.close()
    wire.line.ask(b"GET / HTTP/1.1\r\n\r\n")
    assert wire.line.is_silent
    wire.came(b"HTTP/1.1")
    assert not wire.line.is_silent
    wire.came(b" 200 OK\r\nContent-Length: 0\r\n\r\n")
    assert (wire.line.status, wire.line.content_type, wire.line.retry_after) == (200, "", None)


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
