"""Claims about a port that is listened on: who is taken, who waits, what is left at its end (ERR-5, OPS-2)."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import resource
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest
import structlog.testing
from aiohttp import http_parser

from proxy.downstream import listener
from proxy.downstream.listener import Listener, listen
from tests.proxy.conftest import no_file_left

Start = Callable[..., Awaitable[Listener]]


class Port:
    """What connects to listeners of a test, and who was taken there."""

    def __init__(self, ends: contextlib.ExitStack) -> None:
        self._ends = ends
        self.taken: list[asyncio.Protocol] = []

    def __call__(self) -> asyncio.Protocol:
        """One connection."""
        taken, ends = self.taken, self._ends

        class Taken(asyncio.Protocol):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                taken.append(self)
                ends.callback(transport.close)

        return Taken()

    async def listen(self, address: Any = ("127.0.0.1", 0), **said: Any) -> Listener:
        found = await listen(self, address, **said)
        self._ends.callback(found.close)
        return found

    def dial(self, *sockets: socket.socket) -> None:
        """Connect to each, as far as the kernel does it."""
        for one in sockets:
            self._ends.enter_context(socket.create_connection(one.getsockname()[:2], timeout=10))

    async def until(self, number: int) -> None:
        async with asyncio.timeout(30):
            while len(self.taken) < number:  # noqa: ASYNC110 - the loop brings them
                await asyncio.sleep(0)


@pytest.fixture
async def port() -> AsyncIterator[Port]:
    with contextlib.ExitStack() as ends:
        yield Port(ends)
    await asyncio.sleep(0)


def is_watched(one: socket.socket) -> bool:
    """Whether the loop looks for who connects; it does not any more."""
    return asyncio.get_running_loop().remove_reader(one)


@pytest.mark.parametrize("given", [False, True])
async def test_who_connects_is_taken_until_it_is_closed(port: Port, given: bool) -> None:
    address: Any = ("127.0.0.1", 0)
    if given:
        address = socket.socket()
        address.bind(("127.0.0.1", 0))
    found = await port.listen(address)
    (one,) = found.sockets
    assert one.gettimeout() == 0
    assert one.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR) != 0 or given
    for number in (1, 2):
        port.dial(one)
        await port.until(number)
    while found._beginning:  # noqa: ASYNC110 - the loop ends them
        await asyncio.sleep(0)
    place, number = one.getsockname(), one.fileno()
    for _ in range(2):
        found.close()
    assert not asyncio.get_running_loop().remove_reader(number)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(place, timeout=10)


async def test_a_port_is_anothers_unless_both_say_that_they_share_it(port: Port) -> None:
    first = await port.listen()
    place = first.sockets[0].getsockname()
    with pytest.raises(OSError, match=rf"cannot listen on \('127\.0\.0\.1', {place[1]}\): ") as refused:
        await port.listen(place)
    assert refused.value.errno == errno.EADDRINUSE
    shared = await port.listen(shared=True)
    again = await port.listen(shared.sockets[0].getsockname(), shared=True)
    assert again.sockets[0].getsockname() == shared.sockets[0].getsockname()


async def test_each_address_of_a_name_is_listened_on_once_or_none(port: Port, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of version 6 beside one of its own for version 4."""
    row = (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "")
    found = [(*row, ("127.0.0.1", 0)), (*row, ("127.0.0.1", 0)), (*row, ("127.0.0.2", 0))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    assert [one.getsockname()[0] for one in (await port.listen()).sockets] == ["127.0.0.1", "127.0.0.2"]
    made = list[socket.socket]()

    class Kept(socket.socket):
        def __init__(self, *said: Any) -> None:
            super().__init__(*said)
            made.append(self)

    monkeypatch.setattr(socket, "socket", Kept)
    found[:] = [(*row, ("127.0.0.1", 0)), (*row, ("192.0.2.1", 0))]
    with pytest.raises(OSError, match=r"192\.0\.2\.1"):
        await port.listen()
    assert [one.fileno() for one in made] == [-1, -1]


@pytest.mark.skipif(not socket.has_ipv6, reason="this Python knows no addresses of version 6")
async def test_an_address_of_version_6_is_that_alone(port: Port) -> None:
    try:
        found = await port.listen(("::1", 0))
    except OSError:
        pytest.skip("this machine has no address of version 6")
    assert found.sockets[0].getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY) != 0


async def test_who_has_connected_is_taken_before_the_end(port: Port) -> None:
    """The kernel resets whom nobody has taken."""
    found = await port.listen()
    (one,) = found.sockets
    place = one.getsockname()
    port.dial(*[one] * 20)
    assert port.taken == []
    await found.drain()
    assert len(port.taken) == 20
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(place, timeout=10)
    await found.drain()


async def test_only_so_many_are_taken_at_one_go(port: Port) -> None:
    """None of them can be counted before the loop has had its turn."""
    found = await port.listen()
    (one,) = found.sockets
    port.dial(*[one] * 20)
    found._accept(one)
    assert len(found._beginning) == listener.ACCEPTED_AT_ONCE
    await port.until(20)


async def test_without_a_file_to_take_one_with_it_waits_until_there_is_one(
    port: Port, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener, "NO_FILE_S", 0.01)
    found = await port.listen()
    (one,) = found.sockets
    port.dial(one)
    with structlog.testing.capture_logs() as lines, no_file_left():
        found._accept(one)
        assert not is_watched(one)
        assert len(found._pauses) == 1
    assert [(line["event"], line["reason"]) for line in lines] == [("accept_failed", "EMFILE")]
    await port.until(1)
    assert found._pauses == set()
    assert is_watched(one)


async def test_at_the_end_nobody_waits_for_a_file_or_looks_for_a_certificate(port: Port) -> None:
    begun = asyncio.Event()

    async def keep_fresh() -> None:
        begun.set()
        await asyncio.sleep(3_600)

    certificate: Any = SimpleNamespace(keep_fresh=keep_fresh)
    bound = socket.socket()
    bound.bind(("127.0.0.1", 0))
    for address in (bound, ("127.0.0.1", 0)):
        found = await port.listen(address, certificate=certificate)
        (one,) = found.sockets
        await begun.wait()
        port.dial(one)
        with no_file_left():
            found._accept(one)
        (pause,) = found._pauses
        found._go_on(one)
        assert found._pauses == set()
        found._pauses.add(pause)
        found._stop()
        assert not is_watched(one)
        assert (pause.cancelled(), found._pauses) == (True, set())
        assert found._following is not None
        with pytest.raises(asyncio.CancelledError):
            await found._following


async def test_what_else_goes_wrong_is_told(port: Port) -> None:
    found = await port.listen()
    with socket.socket() as gone:
        pass
    with pytest.raises(OSError, match="Bad file descriptor"):
        found._accept(gone)
    with socket.socket() as one, contextlib.closing(socket.socket()):
        one.bind(("127.0.0.1", 0))
        one.listen()
        one.setblocking(False)
        assert found._accept(one) is None
    assert (found._pauses, found._beginning) == (set(), set())


@pytest.mark.parametrize(
    ("files", "most"), [(1024, 64), (256, 64), (255, 63), (8, 2), (3, 1), (0, 1), (resource.RLIM_INFINITY, 64)]
)
def test_the_admin_port_has_a_quarter_of_all_files_at_most(
    monkeypatch: pytest.MonkeyPatch, files: int, most: int
) -> None:
    """Whoever fills it takes none from callers."""
    monkeypatch.setattr(resource, "getrlimit", lambda _: (files, files))
    assert listener.admin_connections() == most


@pytest.mark.parametrize(
    ("soft", "asked_for", "most"),
    [
        (1024, None, 440),
        (1024, 100, 100),
        (1024, 5_000, 440),
        (256, None, 56),
        (128, None, 8),
        (20, None, 1),
        (resource.RLIM_INFINITY, None, sys.maxsize),
        (resource.RLIM_INFINITY, 100, 100),
    ],
)
def test_the_cap_never_passes_what_the_limit_of_files_has_room_for(
    monkeypatch: pytest.MonkeyPatch, soft: int, asked_for: int | None, most: int
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (soft, soft))
    assert listener.most_connections(asked_for) == most


class TestFileLimit:
    """A process may open as many files as it is allowed to, not as many as a shell happens to give."""

    def test_the_soft_limit_becomes_the_hard_one(self, monkeypatch: pytest.MonkeyPatch) -> None:
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        chosen: list[tuple[int, int]] = []
        monkeypatch.setattr(resource, "getrlimit", lambda _: (hard - 1, hard))
        monkeypatch.setattr(resource, "setrlimit", lambda _, limits: chosen.append(limits))
        listener.raise_file_limit()
        assert chosen == [(hard, hard)]

    def test_where_it_cannot_be_raised_it_stays(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(_: int, __: tuple[int, int]) -> None:
            raise ValueError("current limit exceeds maximum limit")

        monkeypatch.setattr(resource, "getrlimit", lambda _: (256, resource.RLIM_INFINITY))
        monkeypatch.setattr(resource, "setrlimit", refuse)
        with structlog.testing.capture_logs() as lines:
            listener.raise_file_limit()
        (line,) = lines
        assert (line["event"], line["log_level"], line["files"], line["reason"]) == (
            "file_limit",
            "warning",
            256,
            "ValueError",
        )

    def test_a_limit_of_files_that_is_the_hard_one_stays(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(resource, "getrlimit", lambda _: (512, 512))
        monkeypatch.setattr(resource, "setrlimit", lambda *_: pytest.fail("nothing is to be raised"))
        with structlog.testing.capture_logs() as lines:
            listener.raise_file_limit()
        assert lines == []


def test_another_parser_than_the_one_that_was_tested_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    assert listener.parser_complaint() is None
    monkeypatch.setattr(http_parser, "HttpRequestParser", http_parser.HttpRequestParserPy)
    assert "C parser" in str(listener.parser_complaint())
