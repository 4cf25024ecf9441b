"""Claims about the life of the process: it listens, drains on a signal, and leaves nothing open (spec OPS-2).

Signals to a process of its own are in the integration tests; here the signal is this process's, and the gateway's
inside can be looked at.
"""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import socket
import ssl
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import structlog
from aiohttp import web

from config import sources
from proxy.downstream.phase import LIFECYCLE, Phase
from proxy.server import lifecycle, routes, signals
from proxy.simulation.wire import Script
from tests import caller, needs
from tests.conftest import StartSimulator
from tests.proxy.conftest import Running, StartGateway, no_file_left
from translators import faults

UNAVAILABLE = (503, "ModelUnavailable", faults.UNAVAILABLE.message)


def stop() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


async def told(front: Running) -> asyncio.Task[None]:
    """A gateway that waits for a signal of this process."""
    task = asyncio.create_task(front.process.until_told_to_stop(front.house.open_calls))
    await asyncio.sleep(0.01)
    return task


async def test_a_port_in_use_is_an_error_and_leaves_nothing(gateway_before: StartGateway) -> None:
    front = await gateway_before("http://127.0.0.1:1")
    port = int(front.url.rpartition(":")[2])
    chosen = sources.load({"upstream": ("http://127.0.0.1:1",), "port": port}, None, {})
    app, cleaned_up = routes.application(front.house), asyncio.Event()

    async def clean_up(_: web.Application) -> None:
        cleaned_up.set()

    app.on_cleanup.append(clean_up)
    with pytest.raises(OSError, match="Address already in use") as error:
        await lifecycle.start(app, chosen)
    assert (error.value.errno, cleaned_up.is_set()) == (errno.EADDRINUSE, True)


async def test_an_admin_port_in_use_leaves_the_other_free(gateway_before: StartGateway) -> None:
    front = await gateway_before("http://127.0.0.1:1")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    taken = int(front.url.rpartition(":")[2])
    chosen = sources.load({"upstream": ("http://127.0.0.1:1",), "port": port, "admin_port": taken}, None, {})
    app = routes.application(front.house)
    with pytest.raises(OSError, match="Address already in use"):
        await lifecycle.start(app, chosen, routes.application(front.house))
    socket.create_server(("127.0.0.1", port)).close()


@pytest.mark.parametrize(
    ("address", "secured", "url", "callable_at"),
    [
        (("127.0.0.1", 80), False, "http://127.0.0.1:80", "http://127.0.0.1:80"),
        (("0.0.0.0", 8000), True, "https://0.0.0.0:8000", "https://127.0.0.1:8000"),
        (("::1", 8000, 0, 0), True, "https://[::1]:8000", "https://[::1]:8000"),
        (("::", 8000, 0, 0), False, "http://[::]:8000", "http://[::1]:8000"),
    ],
)
def test_an_address_is_shown_as_a_url_and_one_of_all_as_one_to_call(
    address: tuple[object, ...], secured: bool, url: str, callable_at: str
) -> None:
    shown = lifecycle.url(address, secured=secured)
    assert (shown, lifecycle.callable_at(shown)) == (url, callable_at)
    assert lifecycle.url(address).startswith("http://")


async def test_an_address_of_version_6_is_shown_as_a_url(gateway_before: StartGateway) -> None:
    try:
        front = await gateway_before("http://127.0.0.1:1", host="::1")
    except OSError:
        needs.lack("IPv6")
    assert front.url.startswith("http://[::1]:")


async def test_with_nothing_open_it_ends_at_once(gateway_before: StartGateway) -> None:
    front = await gateway_before("http://127.0.0.1:1")
    ending = await told(front)
    since = asyncio.get_running_loop().time()
    stop()
    async with asyncio.timeout(1):
        await ending
    # A call may be on its way on a connection that is kept.
    assert asyncio.get_running_loop().time() - since >= lifecycle.LATECOMERS_S


async def test_a_stop_goes_phase_by_phase_and_leaves_neither_port_nor_handler(
    gateway_before: StartGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "1000000")
    front = await gateway_before("http://127.0.0.1:1", drain_delay=30)
    handled, state, announced = (
        signal.getsignal(signal.SIGTERM),
        front.process.calls.runner.app[LIFECYCLE],
        asyncio.Event(),
    )
    ending = asyncio.create_task(front.process.until_told_to_stop(front.house.open_calls, announced.set))
    await announced.wait()
    assert (state.phase, signal.getsignal(signal.SIGTERM) is handled) == (Phase.SERVING, False)
    async with asyncio.timeout(10), caller.dial(front.url) as kept:
        kept.send(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert (await kept.answer()).status == 200
        stop()
        while state.phase is Phase.SERVING:  # noqa: ASYNC110 - nobody is told
            await asyncio.sleep(0.005)
        assert state.phase is Phase.DRAINING
        stop()
        await ending
        assert await kept.eof() == b""
    assert (state.phase, signal.getsignal(signal.SIGTERM)) == (Phase.CUTTING, handled)
    for url in (front.url, front.admin_url):
        with pytest.raises(ConnectionRefusedError):
            await caller.ask(url, b"", path="/healthz", method="GET")
    assert [task for task in asyncio.all_tasks() if "turning" in str(task.get_coro())] == []


async def test_it_can_be_stopped_at_once_and_shares_no_port(gateway_before: StartGateway) -> None:
    front = await gateway_before("http://127.0.0.1:1")
    assert front.process.admin is not None
    for port in (front.process.calls, front.process.admin):
        assert [one.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT) for one in port.listener.sockets] == [0]
    await front.process.stop()
    for url in (front.url, front.admin_url):
        with pytest.raises(ConnectionRefusedError):
            await caller.ask(url, b"", path="/healthz", method="GET")


async def test_signals_are_heard_while_it_serves_and_left_as_they_were(gateway_before: StartGateway) -> None:
    """What has waited for handlers is let through; a loop that handles any signal wakes up for all of them."""
    front = await gateway_before("http://127.0.0.1:1")
    waiting = {signals.HANG_UP, *signals.LEVELS}
    handled, announced = signal.getsignal(lifecycle.WAKES), asyncio.Event()
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, waiting)
    try:
        ending = asyncio.create_task(front.process.until_told_to_stop(front.house.open_calls, announced.set))
        await announced.wait()
        assert not waiting & signal.pthread_sigmask(signal.SIG_BLOCK, ())
        assert signal.getsignal(lifecycle.WAKES) is not handled
        stop()
        await ending
        assert signal.getsignal(lifecycle.WAKES) is handled
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


@pytest.mark.parametrize("is_followed", [True, False])
async def test_a_hang_up_is_followed_or_said_in_a_process_that_was_prepared(
    gateway_before: StartGateway, *, is_followed: bool
) -> None:
    """Whoever runs us in a process of their own may end when its terminal is closed."""
    front = await gateway_before("http://127.0.0.1:1")
    numbers = (*signals.STOPS, signals.HANG_UP, *signals.LEVELS)
    handlers = {number: signal.getsignal(number) for number in numbers}
    mask, hook, asked = signal.pthread_sigmask(signal.SIG_BLOCK, ()), sys.unraisablehook, asyncio.Event()
    try:
        signals.prepare()
        with structlog.testing.capture_logs() as lines:
            announced = asyncio.Event()
            ending = asyncio.create_task(
                front.process.until_told_to_stop(
                    front.house.open_calls, announced.set, asked.set if is_followed else None
                )
            )
            await announced.wait()
            signal.raise_signal(signal.SIGHUP)
            async with asyncio.timeout(10):
                while not asked.is_set() and not lines:  # noqa: ASYNC110 - a line of the log
                    await asyncio.sleep(0.005)
            stop()
            await ending
        assert (asked.is_set(), "hung_up" in {line["event"] for line in lines}) == (is_followed, not is_followed)
        assert {signal.getsignal(number) for number in numbers} == {signal.SIG_IGN}
    finally:
        sys.unraisablehook = hook
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for number, handler in handlers.items():
            signal.signal(number, handler)


async def test_a_terminal_that_is_closed_is_not_ours_to_hear_where_nothing_was_prepared(
    gateway_before: StartGateway,
) -> None:
    front = await gateway_before("http://127.0.0.1:1")
    handled, announced = signal.getsignal(signal.SIGHUP), asyncio.Event()
    ending = asyncio.create_task(front.process.until_told_to_stop(front.house.open_calls, announced.set))
    await announced.wait()
    assert signal.getsignal(signal.SIGHUP) is handled
    stop()
    await ending


async def test_callers_speak_tls_where_there_is_a_certificate(gateway_before: StartGateway, certificate: Path) -> None:
    said = {"tls_cert": str(certificate / "cert.pem"), "tls_key": str(certificate / "key.pem")}
    front = await gateway_before("http://127.0.0.1:1", **said)
    assert (front.url[:8], front.admin_url[:7]) == ("https://", "http://")
    address = urlsplit(front.url)
    trusted = ssl.create_default_context(cafile=str(certificate / "cert.pem"))
    reader, writer = await asyncio.open_connection(address.hostname, address.port, ssl=trusted)
    writer.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert await reader.readline() == b"HTTP/1.1 200 OK\r\n"
    writer.close()
    await writer.wait_closed()


async def test_what_breaks_while_a_second_signal_may_come_is_not_lost() -> None:
    async def breaks() -> None:
        raise LookupError("a bug")

    with pytest.raises(LookupError, match="a bug"):
        await lifecycle._either(asyncio.Event(), breaks())


async def test_with_no_file_left_it_ends_all_the_same(gateway_before: StartGateway) -> None:
    front = await gateway_before("http://127.0.0.1:1")
    ending = await told(front)
    with no_file_left():
        stop()
        await asyncio.wait_for(ending, 3)


async def test_calls_that_are_open_end_as_they_would_have(
    simulator: StartSimulator, gateway_before: StartGateway
) -> None:
    upstream = await simulator(Script(text="one two three four five", gap_s=0.05))
    front = await gateway_before(upstream.url)
    ending = await told(front)
    async with caller.dial(front.url) as line:
        line.send(caller.request(caller.call(incremental_output=True), caller.SSE))
        await line.head()
        stop()
        assert caller.text(await line.rest()) == "one two three four five"
    await ending
    assert (await front.end_of())[1] == "ok"


async def test_new_connections_are_served_during_the_delay_and_refused_after_it(
    simulator: StartSimulator, gateway_before: StartGateway
) -> None:
    upstream = await simulator(Script(text="one", first_byte_delay_s=0.6))
    front = await gateway_before(upstream.url, drain_delay=0.2)
    ending = await told(front)
    stop()
    await asyncio.sleep(0.05)
    served = asyncio.create_task(caller.ask(front.url, caller.call()))
    await asyncio.sleep(0.3)
    with pytest.raises(ConnectionRefusedError):
        await caller.ask(front.url, caller.call())
    assert (await served).status == 200
    await ending


@pytest.mark.parametrize("turns", range(4), ids="{} turns of the loop later".format)
async def test_who_has_connected_when_the_listener_closes_is_served(
    simulator: StartSimulator, gateway_before: StartGateway, turns: int
) -> None:
    """However far the loop is with them; an ingress that got a reset for a call it has sent could not send it again."""
    upstream = await simulator(Script(text="one"))
    front = await gateway_before(upstream.url)
    address = (urlsplit(front.url).hostname, urlsplit(front.url).port)
    # The loop stands still while they connect.
    connected = [socket.create_connection(address) for _ in range(8)]
    for one in connected:
        one.sendall(caller.request(caller.call(), {"Connection": "close"}))
    for _ in range(turns):
        await asyncio.sleep(0)
    await front.process._close()
    streams = [await asyncio.open_connection(sock=one) for one in connected]
    heads = await asyncio.gather(*(reader.readline() for reader, _ in streams))
    assert heads == [b"HTTP/1.1 200 OK\r\n"] * 8
    for _, writer in streams:
        writer.close()


async def test_a_connection_that_was_let_in_brings_its_first_call_even_after_the_listener_closed(
    simulator: StartSimulator, gateway_before: StartGateway
) -> None:
    upstream = await simulator(Script(text="one"))
    front = await gateway_before(upstream.url)
    async with caller.dial(front.url) as line:
        await asyncio.sleep(0.05)
        await front.process._close()
        line.send(caller.request(caller.call()))
        answer = await line.answer()
        assert (answer.status, answer.headers["connection"]) == (200, "close")


async def test_who_has_connected_and_takes_its_time_is_waited_for_and_nobody_else(
    simulator: StartSimulator, gateway_before: StartGateway
) -> None:
    """A proxy before us on a busy machine."""
    upstream = await simulator(Script(text="one"))
    front = await gateway_before(upstream.url)
    async with caller.dial(front.url) as kept, caller.dial(front.url) as line:
        kept.send(caller.request(caller.call()))
        assert (await kept.answer()).status == 200
        ending = await told(front)
        stop()
        await asyncio.sleep(lifecycle.LATECOMERS_S * 3)
        line.send(caller.request(caller.call()))
        assert (await line.answer()).status == 200
        async with asyncio.timeout(lifecycle.FIRST_CALLS_S / 2):
            await ending


async def test_a_call_that_is_open_gets_no_more_than_the_drain_for_that(
    simulator: StartSimulator, gateway_before: StartGateway
) -> None:
    """Also the first of its connection: it has been brought."""
    upstream = await simulator(Script(stall_after=3))
    front = await gateway_before(upstream.url, drain_timeout=0)
    async with caller.dial(front.url) as line:
        line.send(caller.request(caller.call(), caller.SSE))
        await line.head()
        ending = await told(front)
        stop()
        async with asyncio.timeout(lifecycle.FIRST_CALLS_S / 2):
            assert b":HTTP_STATUS/503" in (await line.rest())
            await ending


async def test_nor_does_one_of_whose_answer_nothing_has_left(
    simulator: StartSimulator, gateway_before: StartGateway
) -> None:
    upstream = await simulator(Script(first_byte_delay_s=30))
    front = await gateway_before(upstream.url, drain_timeout=0)
    async with caller.dial(front.url) as line:
        line.send(caller.request(caller.call()))
        await upstream.call()
        ending = await told(front)
        stop()
        async with asyncio.timeout(lifecycle.FIRST_CALLS_S / 2):
            assert (await line.answer()).fault == UNAVAILABLE
            await ending


async def test_who_connects_and_says_nothing_holds_nobody_up_for_long(gateway_before: StartGateway) -> None:
    front = await gateway_before("http://127.0.0.1:1")
    async with caller.dial(front.url):
        ending = await told(front)
        stop()
        async with asyncio.timeout(lifecycle.FIRST_CALLS_S + 2):
            await ending


async def test_a_call_on_a_connection_that_is_kept_is_sent_away_never_reset(
    simulator: StartSimulator, gateway_before: StartGateway
) -> None:
    """It may be asked again at once, on another connection."""
    upstream = await simulator(Script(text="one", first_byte_delay_s=0.4))
    front = await gateway_before(upstream.url)
    ending = await told(front)
    async with caller.dial(front.url) as kept, caller.dial(front.url) as busy:
        kept.send(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert (await kept.answer()).status == 200
        busy.send(caller.request(caller.call()))
        await upstream.call()
        stop()
        await asyncio.sleep(0.05)
        kept.send(caller.request(caller.call()))
        sent_away = await kept.answer()
        assert sent_away.fault == UNAVAILABLE
        assert sent_away.headers["retry-after"] == "1"
        assert sent_away.headers["connection"] == "close"
        assert await kept.eof() == b""
        answer = await busy.answer()
        assert answer.status == 200
        assert answer.headers["connection"] == "close"
    await ending
    assert len(upstream.calls) == 1


async def test_what_outlives_the_drain_ends_with_one_error_frame(
    simulator: StartSimulator, gateway_before: StartGateway
) -> None:
    upstream = await simulator(Script(endless=True, gap_s=0.02))
    front = await gateway_before(upstream.url, drain_timeout=0.2)
    ending = await told(front)
    async with caller.dial(front.url) as line:
        line.send(caller.request(caller.call(), caller.SSE))
        await line.head()
        stop()
        body = await line.rest()
    assert body.count(b"event:error\n:HTTP_STATUS/503\n") == 1
    assert await upstream.calls[0].over() == "aborted"
    await ending


async def test_a_second_signal_cuts_at_once(simulator: StartSimulator, gateway_before: StartGateway) -> None:
    upstream = await simulator(Script(first_byte_delay_s=30))
    front = await gateway_before(upstream.url, drain_delay=30)
    ending = await told(front)
    async with caller.dial(front.url) as line, asyncio.timeout(2):
        line.send(caller.request(caller.call()))
        await upstream.call()
        stop()
        await asyncio.sleep(0.05)
        stop()
        assert (await line.answer()).fault == UNAVAILABLE
        await ending


async def test_a_caller_who_does_not_read_its_last_frame_holds_nobody_up(
    simulator: StartSimulator, gateway_before: StartGateway
) -> None:
    upstream = await simulator(Script(endless=True, deltas_per_write=200))
    front = await gateway_before(upstream.url, drain_timeout=0)
    ending = await told(front)
    async with caller.dial(front.url, receive_bytes=4096) as line, asyncio.timeout(5):
        line.send(caller.request(caller.call("a " * 100), caller.SSE))
        await line.head()
        line.stall()
        await asyncio.sleep(0.3)
        stop()
        await ending
    assert not front.house.open_calls
