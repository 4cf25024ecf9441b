"""G, H · The process itself: its end, its limits, its clock, its bugs, and who calls it twice (spec OPS-2, ERR-1)."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import resource
import socket
import subprocess
import sys
import time
from pathlib import Path

import orjson
import pytest

from proxy.downstream import listener
from proxy.simulation.simulator import Simulator
from proxy.simulation.wire import Script
from tests import caller
from tests.faults import matrix
from tests.faults.conftest import CALL, Stage, Stand, frame
from tests.faults.matrix import row
from translators import tokens

pytestmark = pytest.mark.asyncio(loop_scope="module")

ROOT = Path(__file__).parents[2]
WORDS = "one two three four five six"
FILES = 128
GAP_S = 0.25
UNAVAILABLE = (503, "ModelUnavailable")
OVERLOADED = (503, "ModelServingError")

# Python runs this before anything else: the clock on the wall says what a file says.
CLOCK = """
import pathlib, time
_now = time.time
time.time = lambda: _now() + float(pathlib.Path(OFFSET).read_text())
"""
# The step that a file names raises, once.
BUGS = """
import asyncio, importlib, inspect, pathlib, sys
def _armed(step):
    if pathlib.Path(STEP).read_text() == step:
        pathlib.Path(STEP).write_text("")
        raise RuntimeError("canary-bug")
def _hook(step):
    module, *names = step.split(":")
    holder = importlib.import_module(module)
    *path, name = names[0].split(".")
    for part in path:
        holder = getattr(holder, part)
    real = getattr(holder, name)
    if inspect.iscoroutinefunction(real):
        async def hooked(*said, **named):
            _armed(step)
            return await real(*said, **named)
    else:
        def hooked(*said, **named):
            _armed(step)
            return real(*said, **named)
    setattr(holder, name, hooked)
if "serve" in sys.orig_argv:
    for step in STEPS:
        _hook(step)
"""
STEPS = (
    "translators.dashscope.tongue:check",
    "proxy.downstream.request:Request.body",
    "proxy.call.prepare:_ready",
    "proxy.call.pool_request:CallWriter.count",
    "proxy.upstream.pools:Upstreams.post",
    "proxy.call.forward:completion_of",
    "proxy.call.relay:pump",
    "proxy.call.relay:drop_leftover",
    "proxy.downstream.sinks:PacketSink.pass_on",
    "proxy.downstream.sinks:PacketSink.close",
    "translators.pipe:Pipe.feed",
)
WRITING = ("proxy.downstream.sinks:PacketSink.pass_on", "proxy.downstream.sinks:PacketSink.close")
# Where the caller has been told all.
AFTERWARDS = ("proxy.call.relay:drop_leftover", "proxy.downstream.sinks:PacketSink.close")


def _hooked(directory: Path, code: str) -> dict[str, str]:
    """The variables that make a process run this first."""
    (directory / "sitecustomize.py").write_text(code)
    return {"PYTHONPATH": f"{directory}:{ROOT}"}


async def _ended(stand: Stand) -> int:
    return await asyncio.to_thread(stand.served.process.wait, 20)


@row("all of it; a call on a kept connection: 503 `ModelUnavailable`, `Retry-After`", freed="exit 0")
@pytest.mark.own_interpreter
async def test_f61_a_signal_lets_open_streams_end(stage: Stage) -> None:
    stand = await stage()
    stand.next(Script(), Script(text=WORDS, gap_s=0.15))
    async with caller.dial(stand.url) as line, caller.dial(stand.url) as kept:
        kept.send(caller.request(CALL))
        await kept.answer()
        line.send(caller.request(CALL, caller.SSE))
        await line.head()
        stand.served.process.terminate()
        await asyncio.sleep(0.2)
        kept.send(caller.request(CALL))
        refused = await kept.answer()
        assert refused.fault[:2] == UNAVAILABLE
        assert (refused.headers["Retry-After"], refused.headers["Connection"]) == ("1", "close")
        with pytest.raises(ConnectionRefusedError):
            async with caller.dial(stand.url):
                pass
        assert caller.text(await line.rest()) == WORDS
    assert await _ended(stand) == 0


@row("packets, then `event:error` 503 `ModelUnavailable`", freed="exit 0", figure="drain_timeout 0.2 s")
@pytest.mark.own_interpreter
async def test_f62_a_stream_that_outlives_the_drain_is_told_so(stage: Stage) -> None:
    stand = await stage("--drain-timeout", "0.2")
    stand.next(Script(endless=True, gap_s=0.05))
    async with caller.dial(stand.url) as line:
        line.send(caller.request(CALL, caller.SSE))
        await line.head()
        stand.served.process.terminate()
        assert frame(await line.rest()) == UNAVAILABLE
    assert await _ended(stand) == 0
    assert await stand.upstream.calls[0].over() == "aborted"
    assert '"shutdown_cut"' in stand.served.output


@row("packets, then `event:error` 503 `ModelUnavailable`", freed="exit 0", figure="≤ 2 s")
@pytest.mark.own_interpreter
async def test_f63_a_second_signal_cuts_at_once(stage: Stage) -> None:
    stand = await stage()
    stand.next(Script(endless=True, gap_s=0.05))
    async with caller.dial(stand.url) as line:
        line.send(caller.request(CALL, caller.SSE))
        await line.head()
        stand.served.process.terminate()
        body = await line.piece() + await line.piece()
        watch = stand.watch()
        stand.served.process.terminate()
        assert frame(body + await line.rest()) == UNAVAILABLE
    assert await watch.ended_s(stand.served.process.poll) < 2
    assert stand.served.process.wait() == 0


@row(
    "503 `ModelServingError` beyond the cap, or a cut far beyond it, then service again",
    figure=f"{FILES} files, 100 callers one by one and 300 at once: no accept error",
)
async def test_f66_without_files_to_spare_callers_are_sent_away_not_dropped(stage: Stage, tmp_path: Path) -> None:
    stand = await stage(env=_with_files(tmp_path, FILES))
    stand.upstream.script = Script(stall_after=2)
    async with contextlib.AsyncExitStack() as stack:
        heads = []
        for _ in range(100):
            calling = contextlib.AsyncExitStack()
            line = await calling.enter_async_context(caller.dial(stand.url))
            line.send(caller.request(CALL, caller.SSE))
            head = await line.head()
            heads.append(head.status)
            if head.status == 200:
                stack.push_async_callback(calling.aclose)
                continue
            assert head.headers["Connection"] == "close"
            await calling.aclose()
        assert set(heads) == {200, 503}
        assert heads.count(200) == listener.fitting(FILES, None)
        await asyncio.gather(*(_sent_away(stand) for _ in range(300)))
        assert stand.fds < FILES
    await stand.settled()
    stand.upstream.script = Script()
    assert (await stand.ask()).status == 200
    assert "accept_failed" not in stand.served.output
    assert stand.served.output.count('"no_room"') == 1


async def test_without_a_file_to_accept_with_callers_wait_and_the_process_rests(stage: Stage) -> None:
    """Another part of the process, or of the machine, has taken what was left for them."""
    stand = await stage("--log-level", "warning")
    process = stand.served.process
    most = resource.prlimit(process.pid, resource.RLIMIT_NOFILE)
    # The limit is one of numbers: the lowest that is free is the first that is not to be had.
    held = {int(name) for name in os.listdir(f"/proc/{process.pid}/fd")}
    lowest_free = next(number for number in itertools.count() if number not in held)
    resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (lowest_free, most[1]))
    busy_s = _cpu_s(process.pid)
    asked = [asyncio.create_task(stand.ask()) for _ in range(20)]
    await asyncio.sleep(2.5)
    assert not any(task.done() for task in asked)
    assert _cpu_s(process.pid) - busy_s < 0.3
    resource.prlimit(process.pid, resource.RLIMIT_NOFILE, most)
    async with asyncio.timeout(5):
        assert {answer.status for answer in await asyncio.gather(*asked)} == {200}
    assert [line["event"] for line in stand.lines] == ["accept_failed"]
    await stand.settled()


@row("all of it", figure="an hour forth and back in mid-stream")
async def test_f68_a_clock_that_jumps_changes_nothing(stage: Stage, tmp_path: Path) -> None:
    offset = tmp_path / "offset"
    offset.write_text("0")
    env = _hooked(tmp_path, CLOCK.replace("OFFSET", repr(str(offset))))
    stand = await stage("--idle-timeout", "1", "--total-timeout", "5", env=env)
    stand.next(Script(text=WORDS, gap_s=0.05))
    async with stand.frees("ok") as named, caller.dial(stand.url) as line:
        line.send(caller.request(CALL, caller.SSE | dict(named)))
        await line.head()
        body = await line.piece()
        for jump_s in ("3600", "-3600"):
            offset.write_text(jump_s)
            body += await line.piece()
        assert caller.text(body + await line.rest()) == WORDS


@row("all of it", figure=f"a prompt of 10 MB beside a stream: its longest gap ≤ {GAP_S:g} s, two times of three")
async def test_f69_a_long_prompt_does_not_hold_up_other_streams(stage: Stage) -> None:
    stand = await stage()
    stand.upstream.script = Script(endless=True, gap_s=0.01)
    body = caller.request(caller.call("\u4f60\u597d, how are you today? " * 350_000), caller.SSE)
    longest_s = []
    async with stand.frees("client_gone_mid_stream") as named, caller.dial(stand.url) as line:
        line.send(caller.request(CALL, caller.SSE | dict(named)))
        await line.head()
        for _ in range(3):
            other = asyncio.create_task(asyncio.to_thread(_blocking, stand.url, body))
            longest_s.append(await _longest_gap_s(line, other))
            assert b" 400 " in await other
    # Whoever else uses this machine holds a stream up, too.
    assert sorted(longest_s)[1] < GAP_S, longest_s
    matrix.reached("longest gap of a stream beside prompts of 10 MB", f"{sorted(longest_s)[1] * 1e3:.0f} ms")


@row(
    "500 `InternalError`; a broken connection where writing itself is what fails",
    figure=f"a bug at each of {len(STEPS)} steps, packets and reply",
)
async def test_f70_a_bug_at_any_step_is_an_internal_error_and_no_leak(stage: Stage, tmp_path: Path) -> None:
    armed = tmp_path / "step"
    armed.write_text("")
    stand = await stage(env=_hooked(tmp_path, f"STEP, STEPS = {str(armed)!r}, {STEPS!r}\n{BUGS}"))
    # With its last word behind the rest, which is what is dropped.
    stand.upstream.script = Script(gap_s=0.01)
    # A step that is not there any more would leave those behind it without a hook.
    assert "sitecustomize" not in stand.served.output, stand.served.output
    for step in STEPS:
        raised = []
        for ask in (stand.ask, stand.reply):
            armed.write_text(step)
            try:
                answer = await ask()
            except asyncio.IncompleteReadError:
                assert step in WRITING
                raised.append(True)
                continue
            if step in AFTERWARDS:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(1):
                        while armed.read_text():  # noqa: ASYNC110 - a file that another process empties
                            await asyncio.sleep(0.01)
            raised.append(not armed.read_text())
            assert b"canary" not in answer.body
            if answer.status != 200:
                assert answer.fault[:2] == (500, "InternalError")
            elif b"event:error" in answer.body:
                assert frame(answer.body) == (500, "InternalError")
            else:
                # The step was not taken, or nothing was left to tell.
                assert armed.read_text() or step in AFTERWARDS
        assert any(raised), f"{step} is on the way of no call"
    armed.write_text("")
    assert (await stand.ask()).status == 200
    async with asyncio.timeout(1):
        while stand.upstream.open or stand.fds > stand.idle_fds:  # noqa: ASYNC110 - files of a process
            await asyncio.sleep(0.01)


@row("–", freed="exit 2 for settings, 3 for a port in use", figure="one line each, all settings at once")
async def test_f71_what_cannot_start_says_why_and_ends(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        for flags, code, told in (
            (("--idle-timeout", "soon", "--port", "x"), 2, ("idle_timeout", "port")),
            (("--port", str(taken.getsockname()[1])), 3, ("in use",)),
        ):
            command = [sys.executable, "-m", "proxy", "serve", "--upstream", "http://127.0.0.1:1", *flags]
            ended = await asyncio.to_thread(
                subprocess.run, command, cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True
            )
            assert ended.returncode == code, ended.stderr
            assert all(word in ended.stderr for word in told)
            assert "raceback" not in ended.stderr


@row(
    "all of it",
    figure="a pipe that is full from the start: no call waits, lost lines are counted, the end comes in 3 s",
)
async def test_f72_a_log_that_nobody_reads_stops_no_call(vocabulary: tokens.Vocabulary, tmp_path: Path) -> None:
    reads, writes = os.pipe()
    os.set_blocking(writes, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writes, b"\n" * 4096)
    os.set_blocking(writes, True)
    env = _hooked(tmp_path, "import proxy.telemetry.log_writer as w; w.MOST_LINES = 50")
    async with Simulator(vocabulary=vocabulary) as upstream:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        flags = ("--upstream", upstream.url, "--port", str(port), "--admin-port", "0")
        command = [sys.executable, "-m", "proxy", "serve", *flags]
        start = asyncio.to_thread(subprocess.Popen, command, cwd=tmp_path, env=env, stdout=writes, stderr=writes)
        process = await start
        os.close(writes)
        try:
            url = await _up(port)
            answers = await asyncio.gather(*(caller.ask(url, CALL) for _ in range(100)))
            assert {answer.status for answer in answers} == {200}
            # An answer is out before the line of its call is said: the last may be told of, or kept, after the rest.
            said, kept, told = b"", 0, 0
            while told + kept < 2 * 100 or b"dashseek serving on" not in said:
                said += await asyncio.to_thread(os.read, reads, 1 << 16)
                whole = said[: said.rfind(b"\n") + 1].splitlines()
                lines = [orjson.loads(line) for line in whole if line.startswith(b"{")]
                kept = sum(line["event"] in ("open", "call") for line in lines)
                told = sum(line["count"] for line in lines if line["event"] == "log_lines_dropped")
            assert told + kept == 2 * 100
            assert kept >= 45
        finally:
            process.terminate()
            assert await asyncio.to_thread(process.wait, 3) == 0
            os.close(reads)


@row("no end while idle", freed="–", figure="kept for 75 s by default, as long as nginx keeps its own; here 0.7 s of 1")
async def test_f74_an_idle_connection_outlives_what_an_ingress_keeps(stage: Stage) -> None:
    stand = await stage("--keepalive-timeout", "1")
    async with caller.dial(stand.url) as line:
        for _ in range(2):
            line.send(caller.request(CALL))
            assert (await line.answer()).status == 200
            await asyncio.sleep(0.7)


@row("the second answer", figure="two records with ids of their own")
async def test_f75_a_call_sent_twice_is_two_calls(stage: Stage) -> None:
    stand = await stage()
    stand.next(Script(first_byte_delay_s=30), Script())
    async with caller.dial(stand.url) as line:
        line.send(caller.request(CALL, caller.SSE))
        await stand.upstream.call()
        line.vanish()
    assert (await stand.ask()).status == 200
    await stand.settled()
    said = [line for line in stand.lines if line["event"] == "call"]
    assert [line["outcome"] for line in said] == ["client_gone_before_first_packet", "ok"]
    assert len({line["request_id"] for line in said}) == 2


def _with_files(directory: Path, most: int) -> dict[str, str]:
    """The variables that let a process open so many files, and never more."""
    return _hooked(directory, f"import resource; resource.setrlimit(resource.RLIMIT_NOFILE, ({most}, {most}))")


async def _up(port: int) -> str:
    """The URL of a process that cannot say it, once it listens."""
    async with asyncio.timeout(20):
        while True:
            with contextlib.suppress(ConnectionRefusedError):
                async with caller.dial(url := f"http://127.0.0.1:{port}"):
                    return url
            await asyncio.sleep(0.05)


async def _longest_gap_s(line: caller.Line, other: asyncio.Task[bytes]) -> float:
    """Between two packets, while something else goes on."""
    longest_s, last_s = 0.0, time.monotonic()
    while not other.done():
        await line.piece()
        now_s = time.monotonic()
        longest_s, last_s = max(longest_s, now_s - last_s), now_s
    return longest_s


async def _sent_away(stand: Stand) -> None:
    """One more caller than there is room for: told so, or cut."""
    with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
        assert (await stand.reply()).fault[:2] == OVERLOADED


def _cpu_s(pid: int) -> float:
    """CPU time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _blocking(url: str, wire: bytes) -> bytes:
    """One call from a thread, so that its sending takes nothing from this loop; the status line of its answer."""
    host, _, port = url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), 30) as connection:
        connection.sendall(wire)
        return connection.recv(100).partition(b"\r\n")[0]
