"""Claims about a connection before any handler: framing, clocks, rooms, answers to what is no request.

They hold for both ports, which are served by one class. Source: spec ERR-5, ERR-6, HTTP-14.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import uuid
from collections.abc import AsyncIterator

import pytest
import structlog.testing

from proxy.downstream import connection as entrance
from proxy.downstream import listener
from proxy.server import lifecycle
from proxy.simulation.wire import Script
from tests import caller
from tests.conftest import StartSimulator
from tests.proxy.conftest import Running, StartGateway
from translators import faults

CANARY = "canary-7f3a"
MALFORMED = (400, "InvalidParameter", faults.BODY_INVALID.message)
HEALTHY = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
UNFINISHED = f"POST {caller.GENERATION} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n\r\n{{".encode()
FORM = "POST {path} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n"


def post(fields: str, body: bytes = b"") -> bytes:
    return FORM.format(path=caller.GENERATION, fields=f"X-Api-Key: {CANARY}\r\n{fields}").encode("latin-1") + body


@pytest.fixture
async def front(gateway_before: StartGateway) -> Running:
    """Before no upstream: nothing of this may get so far."""
    return await gateway_before("http://127.0.0.1:1", header_timeout=0.3)


@pytest.fixture(params=["calls", "admin"])
def door(request: pytest.FixtureRequest, front: Running) -> str:
    """The URL of each of its ports: a guard of one is a guard of the other."""
    return front.url if request.param == "calls" else front.admin_url


NOT_HTTP = {
    "not HTTP at all": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + CANARY.encode(),
    "no such method": f"{CANARY} / HTTP/1.1\r\n\r\n".encode(),
    "bare LF": f"GET /{CANARY} HTTP/1.1\nHost: localhost\n\n".encode(),
    "version 2": f"GET /{CANARY} HTTP/2.0\r\nHost: localhost\r\n\r\n".encode(),
    "no version": f"GET /{CANARY}\r\n\r\n".encode(),
    "no Host": f"GET /{CANARY} HTTP/1.1\r\n\r\n".encode(),
    "a header line that never ends": post(f"X-A: {CANARY}{'a' * 9000}\r\n"),
    "too many headers": post("".join(f"X-{number}: {CANARY}\r\n" for number in range(200))),
    "space before the colon": post(f"X-A : {CANARY}\r\n"),
    "a folded header": post(f"X-A: b\r\n {CANARY}\r\n"),
    "NUL in a header": post(f"X-A: {CANARY}\x00\r\n"),
    "two lengths": post(f"Content-Length: 2\r\nContent-Length: 3\r\nX-A: {CANARY}\r\n", b"{}"),
    "a length and chunks": post("Content-Length: 2\r\nTransfer-Encoding: chunked\r\n", b"2\r\n{}\r\n0\r\n\r\n"),
    "a length that is no number": post("Content-Length: +2\r\n", b"{}"),
    "identity before chunks": post("Transfer-Encoding: identity, chunked\r\n", b"2\r\n{}\r\n0\r\n\r\n"),
    "gzip before chunks": post("Transfer-Encoding: gzip, chunked\r\n", b"2\r\n{}\r\n0\r\n\r\n"),
    "identity and chunks in two lines": post(
        "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n", b"2\r\n{}\r\n0\r\n\r\n"
    ),
    "another transfer encoding": post(f"Transfer-Encoding: x{CANARY}\r\n", b"{}"),
    "chunks in HTTP/1.0": f"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\nX: {CANARY}\r\n\r\n0\r\n\r\n".encode(),
    "absolute-form": f"GET http://{CANARY}/healthz HTTP/1.1\r\nHost: localhost\r\n\r\n".encode(),
    "asterisk-form": b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "CONNECT": f"CONNECT {CANARY}:443 HTTP/1.1\r\nHost: localhost\r\n\r\n".encode(),
    "a chunk size that is none": post(f"Transfer-Encoding: chunked\r\nX-A: {CANARY}\r\n", b"ZZ\r\n{}\r\n0\r\n\r\n"),
    "a chunk size beyond all numbers": post("Transfer-Encoding: chunked\r\n", b"fffffffffffffffff\r\n{}\r\n"),
    "a request in a TLS hello": b"\x16\x03\x01" + HEALTHY,
    "an expectation nobody knows": post(f"Expect: {CANARY}\r\nContent-Length: 2\r\n", b"{}"),
    "an expectation that is no text": post("Expect: x\r\nContent-Length: 2\r\n", b"{}").replace(b"t: x", b"t: \xff"),
}


@pytest.mark.parametrize("wire", NOT_HTTP.values(), ids=NOT_HTTP.keys())
async def test_what_is_no_request_gets_one_answer_of_ours_and_the_end(door: str, wire: bytes) -> None:
    """Whatever stands behind it on the connection is not taken for a request, and nothing of it is repeated."""
    async with caller.dial(door) as line:
        line.send(wire + HEALTHY)
        answer = await line.answer()
        assert answer.fault == MALFORMED
        assert await line.eof() == b""
    assert uuid.UUID(answer.json["request_id"])
    assert answer.headers["connection"] == "close"
    assert "server" not in answer.headers
    assert CANARY not in str(answer.headers) + answer.body.decode()


async def test_a_flood_of_what_is_no_request_is_one_line_for_many(front: Running) -> None:
    with structlog.testing.capture_logs() as lines:
        for _ in range(50):
            async with caller.dial(front.url) as line:
                line.send(NOT_HTTP["bare LF"])
                await line.eof()
    assert [(line["event"], line["reason"], line["count"]) for line in lines] == [("malformed", "BadStatusLine", 1)]
    assert CANARY not in str(lines)


async def test_the_line_that_comes_later_counts_those_that_were_not_said(
    front: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxy.downstream.strays.LINE_EVERY_S", 0.2)
    with structlog.testing.capture_logs() as lines:
        for pause_s in (0, 0, 0.3, 0):
            await asyncio.sleep(pause_s)
            async with caller.dial(front.url) as line:
                line.send(NOT_HTTP["CONNECT"])
                await line.eof()
    assert [(line["reason"], line["count"]) for line in lines] == [("not origin-form", 1), ("not origin-form", 2)]


class TestHeaderTimeout:
    """For a head to come in, from its first byte to its last."""

    async def test_half_a_head_is_answered_and_closed(self, door: str) -> None:
        async with caller.dial(door) as line, asyncio.timeout(2):
            line.send(b"POST / HTTP/1.1\r\nHost: loc")
            assert (await line.answer()).fault == (500, "RequestTimeOut", faults.TIMED_OUT.message)
            assert await line.eof() == b""

    async def test_a_head_that_trickles_does_not_re_arm_it(self, door: str) -> None:
        async with caller.dial(door) as line, asyncio.timeout(2):
            answer = asyncio.ensure_future(line.answer())
            while not answer.done():
                line.send(b"P")
                await asyncio.sleep(0.02)
            assert (await answer).status in (400, 500)

    async def test_a_connection_that_says_nothing_is_closed_without_a_word(self, door: str) -> None:
        async with caller.dial(door) as line, asyncio.timeout(2):
            assert await line.eof() == b""

    async def test_a_slow_head_in_time_is_served(self, front: Running) -> None:
        async with caller.dial(front.url) as line:
            for part in (HEALTHY[:10], HEALTHY[10:30], HEALTHY[30:]):
                line.send(part)
                await asyncio.sleep(0.05)
            assert (await line.answer()).status == 200

    async def test_it_does_not_count_while_a_call_is_served(
        self, simulator: StartSimulator, gateway_before: StartGateway
    ) -> None:
        upstream = await simulator(Script(text="hi", first_byte_delay_s=0.4))
        front = await gateway_before(upstream.url, header_timeout=0.1)
        async with caller.dial(front.url) as line:
            line.send(caller.request(caller.call()))
            assert (await line.answer()).status == 200

    async def test_it_does_not_count_while_a_body_comes_in(self, gateway_before: StartGateway) -> None:
        front = await gateway_before("http://127.0.0.1:1", header_timeout=0.1)
        wire = caller.request(caller.call())
        async with caller.dial(front.url) as line:
            line.send(wire[:-20])
            await asyncio.sleep(0.2)
            line.send(wire[-20:-10])
            await asyncio.sleep(0.2)
            line.send(wire[-10:])
            assert (await line.answer()).fault[1] == "ModelUnavailable"

    async def test_half_a_head_behind_a_request_in_its_segment_has_no_longer(self, door: str) -> None:
        """Its first byte came before the answer did; `keepalive_timeout` is 75 s here."""
        async with caller.dial(door) as line, asyncio.timeout(2):
            line.send(HEALTHY + HEALTHY[:20])
            assert (await line.answer()).status == 200
            assert (await line.answer()).fault == (500, "RequestTimeOut", faults.TIMED_OUT.message)
            assert await line.eof() == b""

    @pytest.mark.parametrize("framing", ["Content-Length: 2", "Transfer-Encoding: chunked"])
    @pytest.mark.parametrize("cut", [1, 30, 70])
    async def test_so_has_half_a_head_behind_a_body_however_it_is_cut(
        self, front: Running, framing: str, cut: int
    ) -> None:
        body = b"{}" if "Length" in framing else b"2\r\n{}\r\n0\r\n\r\n"
        wire = post(f"{framing}\r\n", body)
        async with caller.dial(front.url) as line, asyncio.timeout(2):
            line.send(wire[:-cut])
            await asyncio.sleep(0.05)
            line.send(wire[-cut:] + HEALTHY[:30])
            assert (await line.answer()).status == 400
            assert (await line.answer()).fault[1] == "RequestTimeOut"
            assert await line.eof() == b""

    async def test_half_a_head_behind_many_requests_ends_without_a_word(self, front: Running) -> None:
        """Where a request has come ahead before, what waits is not known: it could be taken for the next one."""
        async with caller.dial(front.url) as line, asyncio.timeout(2):
            line.send(HEALTHY * 3 + HEALTHY[:20])
            for _ in range(3):
                assert (await line.answer()).status == 200
            assert await line.eof() == b""

    async def test_half_a_head_that_is_made_whole_in_time_is_served(self, front: Running) -> None:
        async with caller.dial(front.url) as line:
            for _ in range(2):
                line.send(HEALTHY + HEALTHY[:20])
                assert (await line.answer()).status == 200
                await asyncio.sleep(0.1)
                line.send(HEALTHY[20:])
                assert (await line.answer()).status == 200

    @pytest.mark.parametrize(
        "wire",
        [
            HEALTHY,
            b"\r\n" + HEALTHY,
            HEALTHY + b"\r\n",
            post("Content-Length: 4\r\n", b"\r\n\r\n"),
            post("Content-Length: 2\r\n", b"{}\r\n"),
            post("Transfer-Encoding: chunked\r\n", b"2\r\n{}\r\n0\r\n\r\n"),
            post("Transfer-Encoding: chunked\r\n", b"1;a=b\r\n{\r\n1\r\n}\r\n0\r\nX-T: 1\r\n\r\n"),
        ],
    )
    async def test_a_request_that_came_alone_leaves_its_connection_to_the_longer_clock(
        self, front: Running, wire: bytes
    ) -> None:
        async def keep(cut: int) -> None:
            async with caller.dial(front.url) as line:
                line.send(wire[:cut])
                await asyncio.sleep(0.02)
                line.send(wire[cut:])
                await line.answer()
                await asyncio.sleep(0.4)
                line.send(HEALTHY)
                assert (await line.answer()).status == 200

        await asyncio.gather(*(keep(cut) for cut in (0, 1, 3, 40, len(wire) - 5)))

    async def test_it_does_not_count_while_a_request_that_came_ahead_is_served(
        self, simulator: StartSimulator, gateway_before: StartGateway
    ) -> None:
        upstream = await simulator(Script(text="hi", first_byte_delay_s=0.4))
        front = await gateway_before(upstream.url, header_timeout=0.2)
        async with caller.dial(front.url) as line:
            line.send(caller.request(caller.call()) * 3)
            for _ in range(3):
                assert (await line.answer()).status == 200

    async def test_an_idle_connection_is_kept_for_the_next_call(self, door: str) -> None:
        """That is `keepalive_timeout`'s to end; empty lines before a call are none of it (RFC 9112 2.2)."""
        async with caller.dial(door) as line:
            for before in (b"", b"\r\n\r\n"):
                line.send(before + HEALTHY)
                assert (await line.answer()).status == 200
                await asyncio.sleep(0.4)
            line.send(HEALTHY[:5])
            assert (await line.answer()).fault[1] == "RequestTimeOut"


@pytest.mark.parametrize("behind", [b"", b"\r\n", b"\n"])
async def test_an_empty_line_behind_a_body_begins_no_head(gateway_before: StartGateway, behind: bytes) -> None:
    """RFC 9112 2.2: `keepalive_timeout` ends the connection, without a word."""
    front = await gateway_before("http://127.0.0.1:1", header_timeout=0.1, keepalive_timeout=0.3)
    async with caller.dial(front.url) as line, asyncio.timeout(10):
        line.send(post("Content-Length: 2\r\n", b"{}") + behind)
        assert (await line.answer()).status == 400
        assert await line.eof() == b""


async def test_an_idle_connection_is_closed_after_its_time(gateway_before: StartGateway) -> None:
    front = await gateway_before("http://127.0.0.1:1", keepalive_timeout=0.1)
    async with caller.dial(front.url) as line, asyncio.timeout(2):
        line.send(HEALTHY)
        await line.answer()
        assert await line.eof() == b""


@pytest.mark.parametrize("upgrade", ["h2c", "websocket"])
async def test_an_upgrade_is_ignored_and_the_connection_ends(front: Running, upgrade: str) -> None:
    """JDK's HttpClient offers h2c with its first call; what stands behind it is not taken for a request."""
    fields = {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": upgrade, "HTTP2-Settings": "AAEAAEAAAAIAAAAB"}
    async with caller.dial(front.url) as line:
        line.send(caller.request(caller.call(), fields) + HEALTHY)
        answer = await line.answer()
        assert answer.fault[1] == "ModelUnavailable"
        assert answer.headers["connection"] == "close"
        assert await line.eof() == b""


async def test_who_asks_first_is_told_to_go_on(front: Running) -> None:
    """`Expect: 100-continue`, as curl says with a long body."""
    wire = caller.request(caller.call(), {"Expect": "100-continue"})
    head, _, body = wire.partition(b"\r\n\r\n")
    async with caller.dial(front.url) as line:
        line.send(head + b"\r\n\r\n")
        assert (await line.head()).status == 100
        line.send(body)
        assert (await line.answer()).fault[1] == "ModelUnavailable"


async def test_a_call_that_goes_past_the_router_is_answered_as_by_it(front: Running) -> None:
    """With a query behind its path it goes by the router."""
    path = caller.GENERATION
    wires = [caller.request(body, path=asked) for body in (caller.call(), b"{") for asked in (path, f"{path}?a=1")]
    async with caller.dial(front.url) as line:
        line.send(b"".join(wires) + caller.request(caller.call(), path=path, method="PUT"))
        straight, by_router, unread, unread_by_router, other_method = [await line.answer() for _ in range(5)]
    for one, other in ((straight, by_router), (unread, unread_by_router)):
        assert one.fault == other.fault
        assert [*one.headers] == [*other.headers]
        assert one.headers["via"] == "1.1 dashseek"
    assert straight.fault[1] == "ModelUnavailable"
    assert unread.fault[:2] == (400, "InvalidParameter")
    assert other_method.json["message"] == "Request method 'PUT' is not supported."


async def test_calls_sent_ahead_are_answered_in_order(simulator: StartSimulator, gateway_before: StartGateway) -> None:
    upstream = await simulator(lambda body: Script(text=body["messages"][0]["content"]))
    front = await gateway_before(upstream.url)
    async with caller.dial(front.url) as line:
        line.send(b"".join(caller.request(caller.call(word)) for word in ("one", "two", "three")))
        said = [(await line.answer()).json["output"]["choices"][0]["message"]["content"] for _ in range(3)]
    assert said == ["one", "two", "three"]


async def test_a_bug_outside_of_any_handler_is_told_as_one_and_logged_with_its_place(
    front: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("proxy.downstream.surface.check_framing", fail)
    with structlog.testing.capture_logs() as lines:
        async with caller.dial(front.url) as line:
            line.send(HEALTHY)
            answer = await line.answer()
    assert answer.fault == (500, "InternalError", faults.INTERNAL.message)
    (bug,) = lines
    assert (bug["event"], bug["request_id"]) == ("bug", answer.json["request_id"])
    assert isinstance(bug["exc_info"], ZeroDivisionError)


async def test_a_caller_who_has_left_is_answered_by_nobody(front: Running) -> None:
    async with caller.dial(front.url) as line:
        line.send(NOT_HTTP["bare LF"])
        line.vanish()
    # What fails in the loop is told to its handler, and not raised here.
    wrong: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: wrong.append(context))
    server = front.process.calls.runner.server
    assert server is not None
    async with asyncio.timeout(5):
        while server.connections:  # noqa: ASYNC110 - nothing tells that a connection is gone
            await asyncio.sleep(0.01)
    assert wrong == []


async def test_little_is_written_for_a_caller_who_does_not_read(
    simulator: StartSimulator, gateway_before: StartGateway
) -> None:
    """MET-3: what the kernel takes is billed; left to itself it takes megabytes, and the caller is noticed late."""
    upstream = await simulator(Script(text="word " * 2_000, endless=True, deltas_per_write=500))
    running = await gateway_before(upstream.url, write_timeout=0.3, idle_timeout=60)
    async with caller.dial(running.url, receive_bytes=4096) as line, asyncio.timeout(20):
        line.send(caller.request(caller.call(incremental_output=True), caller.SSE))
        line.stall()
        record, outcome = await running.end_of()
    assert outcome == "client_stalled"
    assert record.closing["bytes_out"] < 1 << 20


async def test_a_caller_who_reads_nothing_of_a_small_answer_is_cut_by_the_kernel(
    simulator: StartSimulator, gateway_before: StartGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What fits into the buffers is nobody's write any more: no clock of ours sees it wait."""
    monkeypatch.setattr("proxy.downstream.connection.KERNEL_GRACE_S", 0.2)
    answer = Script(text="word " * 2_000, deltas_per_write=500)
    running = await gateway_before((await simulator(answer)).url, write_timeout=0.3, keepalive_timeout=60)
    server = running.process.calls.runner.server
    assert server is not None
    async with caller.dial(running.url, receive_bytes=4096) as line, asyncio.timeout(10):
        line.send(caller.request(caller.call(), {"X-DashScope-SSE": "disable"}))
        line.stall()
        await running.end_of()
        while server.connections:  # noqa: ASYNC110 - nothing tells that a connection is gone
            await asyncio.sleep(0.05)


async def test_a_head_that_begins_late_has_its_own_time_and_its_own_answer(gateway_before: StartGateway) -> None:
    """aiohttp's clock for idle connections runs on until a head is whole."""
    front = await gateway_before("http://127.0.0.1:1", keepalive_timeout=0.2, header_timeout=0.4)
    async with caller.dial(front.url) as line:
        line.send(HEALTHY)
        assert (await line.answer()).status == 200
        line.send(HEALTHY[:20])
        await asyncio.sleep(0.3)
        line.send(HEALTHY[20:])
        assert (await line.answer()).status == 200
        line.send(HEALTHY[:20])
        assert (await line.answer()).fault[1] == "RequestTimeOut"


@contextlib.asynccontextmanager
async def busy(front: Running, number: int = 1) -> AsyncIterator[None]:
    """So many callers whose answers are awaited."""
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(number):
            line = await stack.enter_async_context(caller.dial(front.url))
            line.send(caller.request(caller.call(), caller.SSE))
            await line.head()
        yield


class TestRoom:
    """A cap on connections, below the limit of open files (SOURCES#open-files)."""

    @pytest.fixture
    async def small(self, simulator: StartSimulator, gateway_before: StartGateway) -> Running:
        """Two callers and no more, before an upstream that does not end by itself."""
        upstream = await simulator(Script(endless=True, gap_s=0.05))
        return await gateway_before(upstream.url, max_connections=2, header_timeout=30)

    async def test_beyond_the_cap_it_is_503_and_the_end_whatever_was_sent(self, small: Running) -> None:
        async with busy(small, 2), caller.dial(small.url) as line:
            line.send(post("Content-Length: 100000\r\n", b"a" * 50_000))
            answer = await line.answer()
            line.send(b"a" * 50_000)
            assert answer.fault == (503, "ModelServingError", faults.OVERLOADED.message)
            assert answer.headers["Connection"] == "close"
            assert await line.eof() == b""

    async def test_health_is_answered_beyond_the_cap_and_nothing_behind_it(self, small: Running) -> None:
        async with busy(small, 2), caller.dial(small.url) as line:
            line.send(HEALTHY + caller.request(caller.call()))
            answer = await line.answer()
            assert (answer.status, answer.headers["Connection"]) == (200, "close")
            assert await line.eof() == b""

    async def test_who_sends_nothing_keeps_no_probe_from_its_answer(self, small: Running) -> None:
        async with contextlib.AsyncExitStack() as stack:
            await stack.enter_async_context(busy(small, 2))
            for _ in range(3 * entrance.RESERVE):
                silent = await stack.enter_async_context(caller.dial(small.url))
                silent.send(HEALTHY[:12])
            line = await stack.enter_async_context(caller.dial(small.url))
            line.send(HEALTHY)
            assert (await line.answer()).status == 200

    async def test_who_came_beyond_the_cap_and_finds_a_slot_now_is_served(self, small: Running) -> None:
        async with contextlib.AsyncExitStack() as stack:
            crowd = await stack.enter_async_context(contextlib.AsyncExitStack())
            await crowd.enter_async_context(busy(small, 2))
            line = await stack.enter_async_context(caller.dial(small.url))
            await asyncio.sleep(0.05)
            await crowd.aclose()
            await asyncio.sleep(0.1)
            line.send(caller.request(caller.call(), caller.SSE))
            assert (await line.head()).status == 200

    async def test_the_connection_that_has_been_idle_longest_makes_way(self, small: Running) -> None:
        async with caller.dial(small.url) as first, caller.dial(small.url) as second:
            for line in (first, second, first):
                line.send(HEALTHY)
                assert (await line.answer()).status == 200
            with structlog.testing.capture_logs() as lines:
                async with caller.dial(small.url) as third:
                    third.send(HEALTHY)
                    assert (await third.answer()).status == 200
                    assert await second.eof() == b""
                    first.send(HEALTHY)
                    assert (await first.answer()).status == 200
        assert [(line["event"], line["reason"]) for line in lines] == [("no_room", "longest_idle_closed")]

    @pytest.mark.parametrize("said", [b"", HEALTHY[:20]], ids=["silent from the start", "half a head"])
    async def test_so_does_one_that_has_brought_no_request_yet(self, small: Running, said: bytes) -> None:
        async with busy(small), caller.dial(small.url) as idle:
            idle.send(said)
            await asyncio.sleep(0.05)
            async with caller.dial(small.url) as line:
                line.send(caller.request(caller.call(), caller.SSE))
                assert (await line.head()).status == 200
                assert await idle.eof() == b""

    async def test_a_call_never_makes_way(self, small: Running) -> None:
        async with caller.dial(small.url) as line:
            line.send(caller.request(caller.call(), caller.SSE))
            await line.head()
            for _ in range(20):
                async with caller.dial(small.url) as other:
                    other.send(HEALTHY)
                    assert (await other.answer()).status == 200
            assert await line.piece()

    async def test_strangers_who_come_back_each_minute_hold_up_nobody(self, small: Running) -> None:
        """`GET /healthz` on connections that are kept filled the cap before."""
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(10):
                line = await stack.enter_async_context(caller.dial(small.url))
                line.send(HEALTHY)
                assert (await line.answer()).status == 200
            called = await stack.enter_async_context(caller.dial(small.url))
            called.send(caller.request(caller.call(), caller.SSE))
            assert (await called.head()).status == 200

    async def test_the_admin_port_has_a_cap_and_a_reserve_of_its_own(
        self, gateway_before: StartGateway, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(listener, "ADMIN_CONNECTIONS", 4)
        front = await gateway_before("http://127.0.0.1:1", header_timeout=30)
        async with contextlib.AsyncExitStack() as stack:
            silent = [await stack.enter_async_context(caller.dial(front.admin_url)) for _ in range(20)]
            line = await stack.enter_async_context(caller.dial(front.admin_url))
            line.send(HEALTHY.replace(b"/healthz", b"/readyz"))
            assert (await line.answer()).status == 200
            async with asyncio.timeout(2):
                assert [await one.eof() for one in silent[:17]] == [b""] * 17
            assert len(_connections(front.process.admin)) == 4

    async def test_nothing_is_left_of_a_connection_that_made_way(self, small: Running) -> None:
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(50):
                line = await stack.enter_async_context(caller.dial(small.url))
                line.send(HEALTHY)
        await asyncio.sleep(0.2)
        assert _connections(small.process.calls) == []
        port = small.process.calls.listener.connections.args[1]  # type: ignore[attr-defined]
        assert (port.slots.open, port.slots.idle, port.reserve.open, port.reserve.idle) == (0, {}, 0, {})

    async def test_who_comes_beyond_those_being_told_is_cut_without_a_word(
        self, small: Running, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Where all of the reserve is at work, which takes a probe a moment."""
        monkeypatch.setattr(small.process.calls.listener.connections.args[1].reserve, "most", 0)  # type: ignore[attr-defined]
        async with busy(small, 2), caller.dial(small.url) as line:
            assert await line.eof() == b""

    async def test_a_stranger_who_was_answered_and_sends_on_makes_way(self, gateway_before: StartGateway) -> None:
        """A body that nobody waits for is read for a second, so that the answer arrives; not at a caller's cost."""
        front = await gateway_before("http://127.0.0.1:1", max_connections=2)
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(2):
                line = await stack.enter_async_context(caller.dial(front.url))
                line.send(UNFINISHED)
                assert (await line.head()).status == 401
            # Heard, and not sent away as one too many.
            assert (await caller.ask(front.url, caller.call())).fault[:2] == (503, "ModelUnavailable")

    async def test_a_connection_that_ended_makes_room(self, gateway_before: StartGateway) -> None:
        front = await gateway_before("http://127.0.0.1:1", max_connections=1)
        for _ in range(5):
            async with caller.dial(front.url) as line:
                line.send(HEALTHY)
                assert (await line.answer()).status == 200
            await asyncio.sleep(0.02)


@pytest.mark.parametrize(
    ("write_timeout_s", "user_ms", "idle_s", "every_s"),
    [(60.0, 65_000, 30, 10), (7.5, 12_500, 3, 1), (0.5, 5_500, 1, 1)],
)
def test_the_kernels_clock_is_a_little_later_than_ours(
    write_timeout_s: float, user_ms: int, idle_s: int, every_s: int
) -> None:
    """ERR-5: in its own units, of which none may be 0."""
    wanted = {
        "TCP_NOTSENT_LOWAT": 128 << 10,
        "TCP_USER_TIMEOUT": user_ms,
        "TCP_KEEPIDLE": idle_s,
        "TCP_KEEPINTVL": every_s,
    }
    there = {getattr(socket, name): value for name, value in wanted.items() if hasattr(socket, name)}
    assert entrance.kernels_clock(write_timeout_s) == there


HELD, CHUNKED = {"Connection": "keep-alive"}, {"Transfer-Encoding": "chunked"}
CUT = {"Connection": "close"}


@pytest.mark.parametrize(
    ("version", "said", "streams", "head"),
    [
        ("1.1", {}, False, {}),
        ("1.1", {}, True, CHUNKED),
        ("1.1", CUT, False, CUT),
        ("1.1", CUT, True, CUT | CHUNKED),
        ("1.1", {"Upgrade": "h2c"}, False, CUT),
        ("1.0", {}, False, {}),
        ("1.0", {}, True, {}),
        ("1.0", HELD, False, HELD),
        # Its end is the connection's.
        ("1.0", HELD, True, {}),
    ],
)
async def test_the_head_of_an_answer_says_how_it_ends_and_what_becomes_of_the_connection(
    simulator: StartSimulator,
    gateway_before: StartGateway,
    *,
    version: str,
    said: dict[str, str],
    streams: bool,
    head: dict[str, str],
) -> None:
    """HTTP-7, HTTP-14: and the connection is what was said of it."""
    front = await gateway_before((await simulator()).url)
    wire = caller.request(caller.call(), said | (caller.SSE if streams else {}))
    wire = wire.replace(b" HTTP/1.1\r\n", f" HTTP/{version}\r\n".encode(), 1)
    async with caller.dial(front.url) as line:
        line.send(wire)
        answer = await line.head()
        assert answer.line == f"HTTP/{version} 200 OK"
        named = {name: answer.headers[name] for name in ("Connection", "Transfer-Encoding") if name in answer.headers}
        assert named == head
        assert ("Content-Length" in answer.headers) is not streams
        if head.get("Connection", "keep-alive" if version == "1.1" else "close") == "close":
            await line.eof()
        else:
            await line.answer(answer)
            line.send(wire)
            assert (await line.head()).status == 200


def _connections(port: lifecycle.Port | None) -> list[object]:
    assert port is not None
    assert port.runner.server is not None
    return [*port.runner.server.connections]


async def test_of_aiohttps_private_parts_two_are_read_and_say_what_is_thought(
    simulator: StartSimulator, gateway_before: StartGateway
) -> None:
    """Where one is gone or means another thing, an idle connection is taken for one at work, or the other way round."""
    upstream = await simulator(Script(endless=True, gap_s=0.05))
    front = await gateway_before(upstream.url)
    async with caller.dial(front.url) as line:
        line.send(HEALTHY)
        await line.answer()
        (connection,) = _connections(front.process.calls)
        assert isinstance(connection, entrance.Connection)
        assert (connection.awaits_head, connection.has_request) == (True, False)
        line.send(caller.request(caller.call(), caller.SSE))
        await line.head()
        assert (connection.awaits_head, connection.has_request) == (False, True)
