"""What signals do to the real process, from its first tenths of a second to its last (OPS-2)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from proxy.simulation.wire import Script
from tests import caller, lint
from tests.conftest import ROOT, StartServe, StartSimulator
from tests.integration.test_workers import children

WORDS = "one two three four five six seven eight nine ten"
STREAM = caller.call(WORDS, incremental_output=True)
PROCESSES = pytest.mark.parametrize("flags", [(), ("--workers", "2")], ids=["one process", "several"])
SERVE = [sys.executable, "-m", "proxy", "serve", "--upstream", "http://127.0.0.1:1", "--port", "0", "--admin-port", "0"]


def masks(pid: int) -> tuple[int, int]:
    """Which signals a process catches, and which wait, as bits."""
    status = dict(line.split(":\t") for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(status["SigCgt"], 16), int(status["SigBlk"], 16)


def has(mask: int, number: signal.Signals) -> bool:
    return bool(mask >> (number - 1) & 1)


@contextlib.contextmanager
def starting(*flags: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process in its first tenths of a second: our first line has run, and little more."""
    with subprocess.Popen([*SERVE, *flags], env=os.environ | {"PYTHONPATH": str(ROOT)}, stderr=subprocess.PIPE) as one:
        try:
            until_s = time.monotonic() + 10
            while not has(masks(one.pid)[1], signal.SIGUSR1):
                assert time.monotonic() < until_s
            yield one
        finally:
            one.kill()


@PROCESSES
async def test_a_hang_up_reads_the_configuration_anew_and_cuts_nothing(
    serve: StartServe, simulator: StartSimulator, flags: tuple[str, ...]
) -> None:
    upstream = await simulator(Script(gap_s=0.1))
    served = await serve(upstream.url, *flags)
    streams = [asyncio.create_task(caller.stream(served.url, STREAM)) for _ in range(4)]
    await upstream.call(4)
    for pid in (served.process.pid, *(children(served) if flags else ())):
        os.kill(pid, signal.SIGHUP)
    for answer in await asyncio.gather(*streams):
        assert lint.check(answer.body) == []
    assert (await caller.ask(served.url, caller.call())).status == 200
    # The children have nothing to read: the first process tells them.
    assert (served.output.count('"reloaded"'), served.output.count('"hung_up"')) == (1, 3 * bool(flags))
    assert await asyncio.to_thread(served.end) == 0


@PROCESSES
async def test_to_quit_is_to_stop(serve: StartServe, simulator: StartSimulator, flags: tuple[str, ...]) -> None:
    upstream = await simulator(Script(gap_s=0.1))
    served = await serve(upstream.url, *flags)
    streams = [asyncio.create_task(caller.stream(served.url, STREAM)) for _ in range(4)]
    await upstream.call(4)
    served.process.send_signal(signal.SIGQUIT)
    for answer in await asyncio.gather(*streams):
        assert lint.check(answer.body) == []
    assert await asyncio.to_thread(served.process.wait, 10) == 0
    assert '"cutting"' not in served.output


@PROCESSES
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT], ids=lambda number: number.name)
def test_a_signal_to_stop_before_there_are_handlers_ends_it_well(
    number: signal.Signals, flags: tuple[str, ...]
) -> None:
    with starting(*flags) as process:
        process.send_signal(number)
        _, said = process.communicate(timeout=10)
        assert (process.returncode, said) == (0, b"")


@PROCESSES
@pytest.mark.parametrize("after_s", [0.0, 0.2, 0.5, 1.0])
def test_a_signal_to_stop_at_any_time_of_the_start_ends_it_well(after_s: float, flags: tuple[str, ...]) -> None:
    with starting(*flags) as process:
        time.sleep(after_s)
        process.terminate()
        _, said = process.communicate(timeout=10)
        assert process.returncode == 0, said
        assert b"raceback" not in said


def test_a_signal_to_stop_is_not_lost_where_nothing_can_be_raised() -> None:
    """In what an import calls back, as in `__del__`, the interpreter drops what a handler raises."""
    script = """
import os, signal, time
from proxy.server import signals
class Dropped:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0)
signals.prepare()
Dropped()
while True:
    time.sleep(1)
"""
    ended = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, timeout=60, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, b"", b"")


@PROCESSES
def test_what_else_comes_before_there_are_handlers_waits_for_them(flags: tuple[str, ...]) -> None:
    with starting(*flags) as process:
        for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP):
            process.send_signal(number)
        assert process.stderr is not None
        events: list[str] = []
        expected = {"serving", "reloaded"} | ({"log_level"} if not flags else set())
        while not expected <= {*events}:
            events.append(orjson.loads(process.stderr.readline())["event"])
        process.terminate()
        assert process.wait(10) == 0


@PROCESSES
async def test_no_signal_harms_a_process_that_is_ending(serve: StartServe, flags: tuple[str, ...]) -> None:
    served = await serve("http://127.0.0.1:1", *flags)
    served.process.terminate()
    numbers = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGINT, signal.SIGQUIT)
    while served.process.poll() is None:
        for number in numbers:
            served.process.send_signal(number)
        await asyncio.sleep(0.001)
    assert served.process.returncode == 0, served.output
    assert "raceback" not in served.output


def test_a_signal_to_stop_while_an_import_makes_a_class_ends_it_well() -> None:
    """Up to Python 3.11 what a handler raises in `__set_name__` comes out as a RuntimeError."""
    script = """
import os, signal, sys
from proxy import __main__
class Named:
    def __set_name__(self, owner, name):
        os.kill(os.getpid(), signal.SIGTERM)
class Finder:
    def find_spec(name, path, target=None):
        if name == "proxy.commands":
            type("Made", (), {"named": Named()})
sys.meta_path.insert(0, Finder)
sys.argv = ["dashseek", "serve", "--upstream", "http://127.0.0.1:1", "--port", "0"]
__main__.main()
"""
    ended = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, timeout=60, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, b"", b"")
