"""What a service manager hears of the real process, on a socket of either kind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy.server import systemd
from proxy.simulation.wire import Script
from tests import caller
from tests.conftest import StartServe, StartSimulator
from tests.proxy.conftest import no_file_left

NOWHERE = "http://127.0.0.1:1"


@contextlib.contextmanager
def manager(address: str) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(address.replace("@", "\0"))
        heard.settimeout(10)
        yield heard


def next_of(heard: socket.socket) -> str:
    return heard.recv(4096).decode()


def until_silence(heard: socket.socket) -> list[str]:
    """All it hears until nothing comes for a second; a kernel keeps no more than ten for who does not listen."""
    heard.settimeout(1)
    said = []
    with contextlib.suppress(TimeoutError):
        while True:
            said.append(next_of(heard))
    return said


@pytest.mark.parametrize("flags", [(), ("--workers", "2")], ids=["one process", "several"])
@pytest.mark.parametrize("kind", ["path", "abstract"])
async def test_ready_is_said_once_it_serves_and_stopping_when_it_is_told_to(
    serve: StartServe, tmp_path: Path, kind: str, flags: tuple[str, ...]
) -> None:
    address = str(tmp_path / "notify") if kind == "path" else f"@dashseek-test-{os.getpid()}"
    with manager(address) as heard:
        served = await serve(NOWHERE, *flags, env={"NOTIFY_SOCKET": address})
        assert await asyncio.to_thread(next_of, heard) == "READY=1"
        assert (await caller.ask(served.url, b"", path="/healthz", method="GET")).status == 200
        served.process.terminate()
        assert await asyncio.to_thread(next_of, heard) == "STOPPING=1"
        assert await asyncio.to_thread(served.process.wait, 10) == 0, served.output
        heard.setblocking(False)
        with pytest.raises(BlockingIOError):
            next_of(heard)


async def test_the_watchdog_hears_twice_in_its_time_even_in_the_drain(
    serve: StartServe, simulator: StartSimulator, tmp_path: Path
) -> None:
    upstream = await simulator(Script(text="one two three", gap_s=0.3))
    address = str(tmp_path / "notify")
    with manager(address) as heard:
        served = await serve(upstream.url, env={"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "200000"})
        assert await asyncio.to_thread(next_of, heard) == "READY=1"
        hearing = asyncio.create_task(asyncio.to_thread(until_silence, heard))
        call = asyncio.create_task(caller.stream(served.url, caller.call()))
        await upstream.call()
        served.process.terminate()
        assert (await call).status == 200
        assert await asyncio.to_thread(served.process.wait, 10) == 0
        said = await hearing
    assert said[said.index("STOPPING=1") :].count("WATCHDOG=1") >= 3


async def test_several_processes_turn_by_the_first(serve: StartServe, tmp_path: Path) -> None:
    address = str(tmp_path / "notify")
    with manager(address) as heard:
        env = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "200000"}
        await serve(NOWHERE, "--workers", "2", env=env)
        said = [await asyncio.to_thread(next_of, heard) for _ in range(12)]
    after = said[said.index("READY=1") + 1 :]
    assert after == ["WATCHDOG=1"] * len(after) != []


async def test_a_manager_who_is_gone_changes_nothing(serve: StartServe, tmp_path: Path) -> None:
    served = await serve(NOWHERE, env={"NOTIFY_SOCKET": str(tmp_path / "nobody")})
    assert served.end() == 0


def test_who_has_no_file_left_says_nothing_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What fails in the turning ends it, and the manager would kill a process that serves."""
    with manager(address := str(tmp_path / "manager")) as heard:
        monkeypatch.setenv("NOTIFY_SOCKET", address)
        with no_file_left():
            systemd.say("WATCHDOG=1")
        systemd.say("STATUS=with one again")
        assert heard.recv(64) == b"STATUS=with one again"


def test_a_manager_who_does_not_listen_holds_nobody_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with manager(address := str(tmp_path / "manager")) as heard:
        monkeypatch.setenv("NOTIFY_SOCKET", address)
        # More than any kernel keeps for who does not.
        for _ in range(2_000):
            systemd.say("WATCHDOG=1")
        assert heard.recv(64) == b"WATCHDOG=1"


@pytest.mark.parametrize(("said", "every_s"), [(None, None), ("", None), ("0", None), ("200000", 0.1), ("1", 5e-7)])
def test_a_keep_alive_is_due_twice_in_the_time_of_the_watchdog(
    monkeypatch: pytest.MonkeyPatch, said: str | None, every_s: float | None
) -> None:
    monkeypatch.delenv("WATCHDOG_USEC", raising=False)
    if said is not None:
        monkeypatch.setenv("WATCHDOG_USEC", said)
    assert systemd.watchdog_s() == every_s


async def test_it_turns_from_the_loop_until_it_is_cancelled_and_not_where_no_watchdog_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WATCHDOG_USEC", raising=False)
    with manager(address := str(tmp_path / "manager")) as heard:
        monkeypatch.setenv("NOTIFY_SOCKET", address)
        await systemd.turning()
        monkeypatch.setenv("WATCHDOG_USEC", "2000")
        turning = asyncio.create_task(systemd.turning())
        assert [await asyncio.to_thread(next_of, heard) for _ in range(3)] == ["WATCHDOG=1"] * 3
        turning.cancel()
        with pytest.raises(asyncio.CancelledError):
            await turning
