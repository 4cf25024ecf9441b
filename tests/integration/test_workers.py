"""`serve --workers`: one port, one journal, one set of metrics, several processes (issue "Fast"; OPS-1, OPS-2)."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import aiohttp
import orjson
import pytest

from proxy.server.board import BEAT_EVERY_S, SILENT_S
from proxy.simulation.wire import Script
from tests import caller, lint
from tests.conftest import ROOT, Served, StartServe, StartSimulator
from tests.stopwatch import Stopwatch

WORDS = "one two three four five six seven eight nine ten"
STREAM = caller.call(WORDS, incremental_output=True)
ADMIN = ("--admin-port", "0")
# The child takes its time between the fork and its first own step.
SLOW_FORK = """
import os, time
fork = os.fork
def slow():
    pid = fork()
    if not pid:
        time.sleep(0.5)
    return pid
os.fork = slow
"""
# As where the system allows no further process.
NO_FOURTH_FORK = """
import errno, itertools, os
fork, forks = os.fork, itertools.count(1)
def scarce():
    if next(forks) == 4:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
    return fork()
os.fork = scarce
"""


def children(served: Served) -> list[int]:
    """The processes behind the first one, in the order they were started: the front desk, then the workers."""
    ours = f"\nPPid:\t{served.process.pid}\n"
    return sorted(pid for pid in map(int, filter(str.isdecimal, os.listdir("/proc"))) if ours in status(pid))


def status(pid: int) -> str:
    """What the kernel says of a process; nothing where it is gone."""
    try:
        return Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return ""


def runs(pid: int) -> bool:
    """Whether a process has not ended; whoever inherits an orphan may be slow to take note of its end."""
    return "\nState:\t" in status(pid) and "\nState:\tZ" not in status(pid)


async def admin(served: Served, path: str) -> tuple[int, str]:
    async with aiohttp.ClientSession() as session, session.get(served.admin_url + path) as answer:
        return answer.status, await answer.text()


def closed(path: Path) -> list[dict[str, object]]:
    """The closed calls in a journal."""
    lines = (orjson.loads(line) for line in path.read_bytes().splitlines())
    return [line for line in lines if line["ev"] == "close"]


def directories(temporary: Path) -> list[Path]:
    """Where workers answer the admin process."""
    return [*temporary.glob("dashseek-*")]


async def until(happened: Callable[[], bool]) -> None:
    """Look now and then: nothing tells what becomes of other processes."""
    async with asyncio.timeout(20):
        while not happened():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def test_calls_spread_over_the_workers_and_add_up_in_one_journal_and_one_scrape(
    serve: StartServe, simulator: StartSimulator, tmp_path: Path
) -> None:
    """MET-2, OPS-1."""
    upstream = await simulator()
    served = await serve(upstream.url, "--workers", "2", *ADMIN, "--journal-file", "calls.jsonl")
    for _ in range(40):
        assert (await caller.ask(served.url, caller.call())).status == 200
    await until(lambda: len(closed(tmp_path / "calls.jsonl")) == 40)
    # A call's name in the journal begins with that of the process that served it.
    shares = {str(line["call"]).rpartition("-")[0] for line in closed(tmp_path / "calls.jsonl")}
    assert len(shares) == 2, shares
    _, scraped = await admin(served, "/metrics")
    labels = 'api="dashscope",code="ok",mode="json",model="deepseek-v3",outcome="ok",status="200"'
    ok = f"dashseek_requests_total{{{labels}}} 40.0"
    assert ok in scraped
    assert await admin(served, "/readyz") == (200, '{"ready": true, "reasons": []}')


async def test_what_a_target_may_have_on_its_way_is_divided_among_the_workers(
    serve: StartServe, simulator: StartSimulator, tmp_path: Path
) -> None:
    """POOL-2: never above `max_in_flight`."""
    upstream = await simulator(Script(text=WORDS, stall_after=5))
    said = f'[[pools]]\nname = "p"\nurls = ["{upstream.url}"]\nmax_in_flight = 3\n'
    (tmp_path / "pools.toml").write_text(said)
    served = await serve("", "--workers", "2", "--config", "pools.toml", *ADMIN)
    async with contextlib.AsyncExitStack() as stack:
        # Each on a connection of its own: whichever worker that comes to, until both have their part.
        while len(upstream.calls) < 3:
            line = await stack.enter_async_context(caller.dial(served.url))
            line.send(caller.request(STREAM, caller.SSE))
            await line.head()
        answers = [await caller.ask(served.url, caller.call()) for _ in range(20)]
        assert {(answer.status, answer.headers["Retry-After"]) for answer in answers} == {(503, "1")}
        assert len(upstream.calls) == 3


@pytest.mark.parametrize("workers", [1, 2])
async def test_each_process_may_open_as_many_files_as_it_is_allowed_to(serve: StartServe, workers: int) -> None:
    """Whatever a shell gives: more callers than that are served."""
    given, (soft, hard) = 128, resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard <= 4 * given:
        pytest.skip(f"this machine allows {hard} files: raise its hard limit (ulimit -Hn)")
    resource.setrlimit(resource.RLIMIT_NOFILE, (given, hard))
    try:
        starting = asyncio.ensure_future(serve("http://127.0.0.1:1", "--workers", str(workers)))
        # It is started in the first turn, with what this process has.
        await asyncio.sleep(0)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    served = await starting
    # The first of several serves nobody.
    processes = children(served) if workers > 1 else [served.process.pid]
    await until(lambda: {resource.prlimit(pid, resource.RLIMIT_NOFILE) for pid in processes} == {(hard, hard)})
    await until(lambda: served.output.count('"file_limit"') >= workers)
    lines = [orjson.loads(line) for line in served.output.splitlines() if '"file_limit"' in line]
    assert {(line["level"], line["before"], line["files"]) for line in lines} == {("info", given, hard)}
    async with contextlib.AsyncExitStack() as open_lines:
        for _ in range(given * (1 + workers)):
            last = await open_lines.enter_async_context(caller.dial(served.url))
        last.send(caller.request(b"", path="/healthz", method="GET"))
        assert (await last.answer()).status == 200


async def test_a_worker_that_dies_is_replaced_and_the_others_go_on(
    serve: StartServe, simulator: StartSimulator
) -> None:
    upstream = await simulator()
    served = await serve(upstream.url, "--workers", "2", *ADMIN)
    before = children(served)
    os.kill(before[-1], signal.SIGKILL)
    await until(lambda: len(children(served)) == 3 and before[-1] not in children(served))
    for _ in range(10):
        assert (await caller.ask(served.url, caller.call())).status == 200
    assert (await admin(served, "/readyz"))[0] == 200
    assert '"process_died"' in served.output
    assert await asyncio.to_thread(served.end) == 0


async def test_a_worker_that_cannot_be_forked_now_is_forked_later_and_the_others_go_on(
    serve: StartServe, simulator: StartSimulator, tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(NO_FOURTH_FORK)
    env = {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    served = await serve((await simulator()).url, "--workers", "2", *ADMIN, env=env)
    os.kill(children(served)[-1], signal.SIGKILL)
    await until(lambda: '"process_not_started"' in served.output)
    assert (await caller.ask(served.url, caller.call())).status == 200
    await until(lambda: len(children(served)) == 3)
    assert await asyncio.to_thread(served.end) == 0


async def test_what_a_worker_has_counted_is_counted_on_when_it_is_gone(
    serve: StartServe, simulator: StartSimulator
) -> None:
    """OPS-1: a sum that shrinks would be taken for one that began anew."""
    upstream = await simulator()
    served = await serve(upstream.url, "--workers", "2", *ADMIN)

    async def counted() -> float:
        _, scraped = await admin(served, "/metrics")
        found = re.findall(r'^dashseek_requests_total{.*outcome="ok".*} (\S+)$', scraped, re.MULTILINE)
        return sum(map(float, found))

    async def call_until(sum_of_calls: int, times: int) -> None:
        for _ in range(times):
            assert (await caller.ask(served.url, caller.call())).status == 200
        async with asyncio.timeout(20):
            while await counted() != sum_of_calls:  # noqa: ASYNC110 - a call is counted once its answer is out
                await asyncio.sleep(0.02)

    await call_until(30, 30)
    for last in children(served)[1:]:
        os.kill(last, signal.SIGKILL)
        await until(lambda last=last: last not in children(served))
        assert await counted() == 30
        await until(lambda: len(children(served)) == 3)
    async with asyncio.timeout(20):
        while (await admin(served, "/readyz"))[0] != 200:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    await call_until(40, 10)


@pytest.mark.own_interpreter
async def test_a_signal_drains_all_of_them_and_open_streams_end_whole(
    serve: StartServe, simulator: StartSimulator
) -> None:
    """OPS-2."""
    upstream = await simulator(Script(gap_s=0.1))
    served = await serve(upstream.url, "--workers", "2", *ADMIN)
    streams = [asyncio.create_task(caller.stream(served.url, STREAM)) for _ in range(8)]
    await upstream.call(8)
    served.process.send_signal(signal.SIGTERM)
    for answer in await asyncio.gather(*streams):
        assert lint.check(answer.body) == []
    assert await asyncio.to_thread(served.process.wait, 10) == 0


async def test_a_signal_is_one_signal_while_a_worker_is_being_forked(
    serve: StartServe, simulator: StartSimulator, tmp_path: Path
) -> None:
    """OPS-2: what the new one is told before it can hear must not come back as the second signal of the others."""
    (tmp_path / "sitecustomize.py").write_text(SLOW_FORK)
    upstream = await simulator(Script(gap_s=0.2))
    served = await serve(
        upstream.url, "--workers", "2", *ADMIN, env={"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    )
    before = children(served)
    os.kill(before[-1], signal.SIGKILL)
    await until(lambda: before[-1] not in children(served))
    stream = asyncio.create_task(caller.stream(served.url, STREAM))
    await upstream.call(1)
    await until(lambda: len(children(served)) == 3)
    served.process.send_signal(signal.SIGTERM)
    assert lint.check((await stream).body) == []
    assert await asyncio.to_thread(served.process.wait, 10) == 0
    assert '"cutting"' not in served.output


@pytest.mark.own_interpreter
async def test_a_second_signal_cuts_all_of_them_with_an_error_frame(
    serve: StartServe, simulator: StartSimulator
) -> None:
    """OPS-2."""
    upstream = await simulator(Script(stall_after=3))
    served = await serve(upstream.url, "--workers", "2", *ADMIN)
    streams = [asyncio.create_task(caller.stream(served.url, STREAM)) for _ in range(4)]
    await upstream.call(4)
    served.process.send_signal(signal.SIGTERM)
    await until(lambda: '"draining"' in served.output)
    served.process.send_signal(signal.SIGTERM)
    for answer in await asyncio.gather(*streams):
        assert b"event:error\n:HTTP_STATUS/503\n" in answer.body
    assert await asyncio.to_thread(served.process.wait, 10) == 0


@pytest.mark.own_interpreter
async def test_who_is_told_to_stop_again_while_it_ends_has_stopped_well(serve: StartServe) -> None:
    """OPS-2: between the last handler and the last instruction a signal ends a process by its default."""
    served = await serve("http://127.0.0.1:1", "--workers", "2", *ADMIN)
    told = children(served)
    served.process.terminate()
    while served.process.poll() is None:
        for pid in told:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        await asyncio.sleep(0.001)
    assert served.process.returncode == 0, served.output


@pytest.mark.own_interpreter
async def test_workers_whose_first_process_is_gone_drain_leave_and_leave_nothing(
    serve: StartServe, simulator: StartSimulator, tmp_path: Path
) -> None:
    upstream = await simulator(Script(gap_s=0.1))
    served = await serve(upstream.url, "--workers", "2", *ADMIN, env={"TMPDIR": str(tmp_path)})
    left = children(served)
    stream = asyncio.create_task(caller.stream(served.url, STREAM))
    await upstream.call(1)
    assert len(directories(tmp_path)) == 1
    served.process.send_signal(signal.SIGKILL)
    assert lint.check((await stream).body) == []
    await until(lambda: not any(map(runs, left)))
    assert directories(tmp_path) == []


async def test_its_temporary_directory_goes_with_it(serve: StartServe, tmp_path: Path) -> None:
    served = await serve("http://127.0.0.1:1", "--workers", "2", *ADMIN, env={"TMPDIR": str(tmp_path)})
    assert len(directories(tmp_path)) == 1
    assert await asyncio.to_thread(served.end) == 0
    assert directories(tmp_path) == []


async def test_a_worker_that_hangs_is_said_killed_and_replaced_and_the_watchdog_rests_meanwhile(
    serve: StartServe, simulator: StartSimulator, tmp_path: Path
) -> None:
    """OPS-1: the kernel gives its share of callers to it as before."""
    (tmp_path / "sitecustomize.py").write_text(SLOW_FORK)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.setblocking(False)
        env = {
            "NOTIFY_SOCKET": str(tmp_path / "notify"),
            "WATCHDOG_USEC": "100000",
            "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)]),
        }
        served = await serve((await simulator()).url, "--workers", "3", *ADMIN, env=env)
        turns_s: list[float] = []
        hearing = asyncio.create_task(_hear(manager, turns_s))
        before = children(served)
        os.kill(before[2], signal.SIGSTOP)
        at_s = time.monotonic()
        answers: list[tuple[float, int, str]] = []
        async with asyncio.timeout(40):
            while not answers or answers[-1][1] != 200 or not any(status == 503 for _, status, _ in answers):
                answers.append((time.monotonic() - at_s, *await admin(served, "/readyz")))
                await asyncio.sleep(0.02)
        hearing.cancel()
        for answer in await asyncio.gather(*(caller.ask(served.url, caller.call()) for _ in range(30))):
            assert answer.status == 200
        now = children(served)
        assert await asyncio.to_thread(served.end) == 0
    (hung,) = (orjson.loads(line) for line in served.output.splitlines() if '"process_hung"' in line)
    assert (hung["number"], hung["pid"]) == (2, before[2])
    assert SILENT_S <= hung["silent_s"] < SILENT_S + 2
    assert len(now) == 4
    assert not runs(before[2])
    refused = [(when_s, text) for when_s, status, text in answers if status == 503]
    assert {text for _, text in refused} == {'{"ready": false, "reasons": ["worker 2 does not answer"]}'}
    assert refused[0][0] > SILENT_S - BEAT_EVERY_S - 0.1
    turns_s = [turn_s - at_s for turn_s in turns_s]
    gaps = {after - before: before for before, after in itertools.pairwise(turns_s)}
    assert max(gaps) > 0.4
    assert gaps[max(gaps)] > SILENT_S - BEAT_EVERY_S - 1


async def _hear(manager: socket.socket, turns_s: list[float]) -> None:
    """Note when a service manager is told that all turn."""
    while True:
        if await asyncio.get_running_loop().sock_recv(manager, 4096) == b"WATCHDOG=1":
            turns_s.append(time.monotonic())


async def test_a_worker_that_hangs_does_not_hold_up_the_end(serve: StartServe, simulator: StartSimulator) -> None:
    """OPS-2: whatever a worker does, all is gone within `drain_delay` + `drain_timeout` + 5 s."""
    drain = ("--drain-delay", "0.5", "--drain-timeout", "0.5")
    upstream = await simulator(Script(endless=True, gap_s=0.05))
    served = await serve(upstream.url, "--workers", "2", *ADMIN, *drain)
    # The kernel gives each to one of two; all to the one that hangs, once in 65,000 runs.
    streams = [asyncio.create_task(caller.stream(served.url, STREAM)) for _ in range(16)]
    await upstream.call(16)
    stopped = children(served)
    os.kill(stopped[-1], signal.SIGSTOP)
    watch = Stopwatch(served.process.pid, *stopped)
    served.process.terminate()
    assert await watch.ended_s(served.process.poll) < 6
    assert served.process.wait() == 1
    assert not any(map(runs, stopped))
    assert '"process_killed"' in served.output
    ends = await asyncio.gather(*streams, return_exceptions=True)
    told = [end for end in ends if isinstance(end, caller.Answer) and b":HTTP_STATUS/503" in end.body]
    assert len(told) >= 1


async def test_the_admin_process_that_hangs_does_not_either(serve: StartServe) -> None:
    served = await serve("http://127.0.0.1:1", "--workers", "2", *ADMIN, "--drain-timeout", "0")
    os.kill(children(served)[0], signal.SIGSTOP)
    watch = Stopwatch(served.process.pid, *children(served))
    served.process.terminate()
    assert await watch.ended_s(served.process.poll) < 5
    assert served.process.wait() == 0


async def test_a_worker_that_dies_young_is_replaced_later_each_time(serve: StartServe) -> None:
    served = await serve("http://127.0.0.1:1", "--workers", "2", *ADMIN)

    def waits() -> list[float]:
        died = (line for line in served.output.splitlines() if '"process_died"' in line)
        return [orjson.loads(line)["next_in_s"] for line in died]

    for count in range(1, 4):
        await until(lambda: len(children(served)) == 3)
        os.kill(children(served)[-1], signal.SIGKILL)
        await until(lambda count=count: len(waits()) == count)
    assert waits() == [1.0, 2.0, 4.0]
    assert await asyncio.to_thread(served.end) == 0


@pytest.mark.own_interpreter
async def test_ctrl_c_reaches_each_process_once(serve: StartServe, simulator: StartSimulator) -> None:
    """OPS-2: a terminal sends it to the whole process group; twice would be the cut."""
    upstream = await simulator(Script(gap_s=0.1))
    served = await serve(upstream.url, "--workers", "2", *ADMIN)
    streams = [asyncio.create_task(caller.stream(served.url, STREAM)) for _ in range(4)]
    await upstream.call(4)
    os.killpg(served.process.pid, signal.SIGINT)
    for answer in await asyncio.gather(*streams):
        assert lint.check(answer.body) == []
    assert await asyncio.to_thread(served.process.wait, 10) == 0
    assert '"cutting"' not in served.output


def test_a_port_in_use_is_exit_3_whoever_would_have_served_it() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        ran = start("--upstream", "http://127.0.0.1:1", "--port", port, "--workers", "2")
    assert (ran.returncode, f"port {port} of 127.0.0.1 is in use" in ran.stderr) == (3, True), ran.stderr


def test_what_keeps_a_worker_from_starting_ends_all_with_its_sentence_and_code() -> None:
    ran = start("--upstream", "http://127.0.0.1:1", "--port", "0", "--workers", "2", "--journal-file", "/dev/null/x")
    assert ran.returncode == 2, ran.stderr
    assert "journal_file" in ran.stderr
    assert "raceback" not in ran.stderr


@pytest.mark.parametrize("flag", [("--limits", "rpm=60"), ("--key-limits", "tpm=1000")])
def test_limits_of_several_processes_need_a_place_in_common(flag: tuple[str, str]) -> None:
    """LIM-1: each would allow the whole limit."""
    ran = start("--upstream", "http://127.0.0.1:1", "--port", "0", "--workers", "2", *flag)
    assert (ran.returncode, "DASHSEEK_REDIS_URL" in ran.stderr) == (2, True), ran.stderr


def test_limits_in_a_keys_file_need_it_too(tmp_path: Path) -> None:
    """LIM-1."""
    file = tmp_path / "keys.toml"
    file.write_text('[[key]]\nname = "team"\nsha256 = "' + "0" * 64 + '"\nlimits = "rpm=60"\n')
    ran = start("--upstream", "http://127.0.0.1:1", "--port", "0", "--workers", "2", "--keys-file", str(file))
    assert (ran.returncode, "DASHSEEK_REDIS_URL" in ran.stderr) == (2, True), ran.stderr


def start(*flags: str) -> subprocess.CompletedProcess[str]:
    """A `serve` that is expected to end by itself."""
    return subprocess.run(
        [sys.executable, "-m", "proxy", "serve", *flags],
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
