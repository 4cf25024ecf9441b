"""Claims about the processes of one port, one decision after the other: who starts, hangs, is replaced, is ended.

What they do together is `integration/test_workers.py`'s.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Protocol

import orjson
import pytest
import structlog

from config import sources
from config.settings import Settings
from proxy.server import board, signals, supervisor
from proxy.server.board import SILENT_S, Heartbeats
from proxy.server.supervisor import Following, WorkerSlot

# What a test forks does little, and ends by itself.
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")

NOWHERE = "http://127.0.0.1:1"
UNCHANGED = Following(lambda _: None, lambda: False)
# Longer than any wait of the first process.
LONG_S = 1e4


class Clock:
    """A time that passes where a test says so."""

    def __init__(self) -> None:
        self.now_s = 1_000.0

    def monotonic(self) -> float:
        return self.now_s


class StartFirst(Protocol):
    """`first = start(workers=3)`: the first process, in this one, before it has forked any child."""

    def __call__(self, following: Following = UNCHANGED, **said: object) -> supervisor._Supervisor: ...


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    for module in (supervisor, board):
        monkeypatch.setattr(module, "time", clock)
    return clock


@pytest.fixture
def surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for name in ("NOTIFY_SOCKET", "WATCHDOG_USEC"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def start(clock: Clock, surroundings: None) -> Iterator[StartFirst]:
    with contextlib.ExitStack() as stack:

        def start(following: Following = UNCHANGED, **said: object) -> supervisor._Supervisor:
            first = supervisor._Supervisor(settings(**said), following)
            stack.callback(first.close)
            return first

        yield start


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """The signals that are sent, each with the process that gets it, which need not be there."""
    sent: list[tuple[int, int]] = []

    def kill(pid: int, number: int) -> None:
        sent.append((pid, number))
        raise ProcessLookupError

    monkeypatch.setattr(os, "kill", kill)
    return sent


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, surroundings: None) -> Iterator[Callable[[], list[str]]]:
    """All that the service manager has heard since it was asked last."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(str(tmp_path / "manager"))
        heard.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "manager"))

        def said() -> list[str]:
            found = []
            with contextlib.suppress(BlockingIOError):
                while True:
                    found.append(heard.recv(64).decode())
            return found

        yield said


def settings(**said: object) -> Settings:
    return sources.load({"upstream": (NOWHERE,), "port": 0, "admin_port": 0, "workers": 2, **said}, None, {})


def unheard(*_: str) -> None:
    pass


def run(first: supervisor._Supervisor, *, served: bool = True) -> list[supervisor._Child]:
    """All children, as if they ran; their numbers are those of processes that cannot be."""
    for child in first._children:
        child.pid = (1 << 30) + child.number
        child.started_s = first._looked_s
        child.has_served, child.was_killed = served, False
        first._heartbeats.beat(child.number)
    first._announced = served
    return first._children


def pids(*children: supervisor._Child) -> list[int]:
    return [child.pid or 0 for child in children]


def files() -> set[str]:
    return {*os.listdir("/proc/self/fd")}


def is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


class TestFork:
    """What a child begins with, in a process that is really forked."""

    def found(
        self, first: supervisor._Supervisor, child: supervisor._Child, look: Callable[[WorkerSlot], object]
    ) -> Any:
        """What a child finds once it is there."""
        ours = os.getpid()
        reads, writes = os.pipe()
        try:
            slot = first.fork(child)
            if os.getpid() != ours:
                assert slot is not None
                os.write(writes, orjson.dumps(look(slot)))
        finally:
            if os.getpid() != ours:
                os._exit(0)
        assert slot is None
        os.close(writes)
        with open(reads, "rb") as file:
            found = orjson.loads(file.read())
        assert child.pid
        os.waitpid(child.pid, 0)
        return found

    def test_it_has_its_slot_and_nothing_of_the_first_process(
        self, start: StartFirst, clock: Clock, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setenv("NOTIFY_SOCKET", "/of/the/first")
        handlers = {number: signal.getsignal(number) for number in supervisor.SIGNALS}
        first = start(workers=3)
        other, child = first._children[1:3]
        other.control, theirs = socket.socketpair()
        child.has_served = child.was_killed = True
        clock.now_s += 5
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())

        def look(slot: WorkerSlot) -> object:
            assert other.control is not None
            slot.say_ready()
            slot.control.sendall(b"from the child")
            return {
                "slot": [slot.number, slot.port, slot.workers, slot.ready, slot.lifeline, slot.admin.fileno()],
                "sockets": {str(number): str(path) for number, path in slot.sockets.items()},
                "is_leader": os.getpgid(0) == os.getpid(),
                "handlers": all(signal.getsignal(number) is handler for number, handler in handlers.items()),
                "wakes": signal.set_wakeup_fd(-1),
                "blocked": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ()) - mask),
                "notify": os.environ.get("NOTIFY_SOCKET"),
                "ready": [*map(is_open, first._ready)],
                "lifeline": [*map(is_open, first._lifeline)],
                "heard": [end.fileno() for end in first._heard],
                "other": other.control.fileno(),
            }

        found = self.found(first, child, look)
        theirs.close()
        admin = first._admin.fileno()
        assert found["slot"] == [2, first._reserved.getsockname()[1], 3, first._ready[1], first._lifeline[0], admin]
        (directory,) = tmp_path.glob("dashseek-*")
        assert found["sockets"] == {str(number): str(directory / str(number)) for number in (1, 2, 3)}
        assert (found["is_leader"], found["handlers"], found["wakes"], found["notify"]) == (True, True, -1, None)
        # Until it has handlers of its own: they would end it.
        assert found["blocked"] == sorted({signals.HANG_UP, *signals.LEVELS})
        assert (found["ready"], found["lifeline"]) == ([False, True], [True, False])
        assert (found["heard"], found["other"]) == ([-1, -1], -1)

        assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == mask
        assert os.environ["NOTIFY_SOCKET"] == "/of/the/first"
        assert (child.started_s, child.has_served, child.was_killed) == (clock.now_s, False, False)
        assert (os.read(first._ready[0], 64), first._heartbeats.last_s(2)) == (b"\2", clock.now_s)
        assert child.control is not None
        assert child.control.recv(64) == b"from the child"
        # The child is gone, and nobody else holds its end.
        assert child.control.recv(64) == b""
        for control in (child.control, other.control):
            control.close()

    def test_the_end_of_before_there_were_handlers_is_a_childs_again_and_not_the_first_processs(
        self, start: StartFirst
    ) -> None:
        """Until it has handlers of its own a child ends well; the first process is ending, and none is to end it."""
        handlers = {number: signal.getsignal(number) for number in supervisor.SIGNALS}
        hook, mask = sys.unraisablehook, signal.pthread_sigmask(signal.SIG_BLOCK, ())
        try:
            signals.prepare()
            first = start()
            child = first._children[1]
            prepared = self.found(first, child, lambda _: signals.is_prepared())
            assert child.control is not None
            child.control.close()
            first._forget_signals()
            assert (prepared, {signal.getsignal(number) for number in supervisor.SIGNALS}) == (True, {signal.SIG_IGN})
        finally:
            sys.unraisablehook = hook
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            for number, handler in handlers.items():
                signal.signal(number, handler)

    def test_where_none_is_to_be_had_the_start_fails_and_later_it_is_tried_again(
        self, start: StartFirst, clock: Clock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def scarce() -> int:
            raise BlockingIOError(errno.EAGAIN, "none left")

        first = start()
        child = first._children[1]
        monkeypatch.setattr(os, "fork", scarce)
        mask, before = signal.pthread_sigmask(signal.SIG_BLOCK, ()), files()
        with pytest.raises(BlockingIOError) as error:
            first.fork(child)
        assert (files(), signal.pthread_sigmask(signal.SIG_BLOCK, ())) == (before, mask)
        assert error.value.errno == errno.EAGAIN
        first._announced = True
        with structlog.testing.capture_logs() as lines:
            assert first.fork(child) is None
        assert (files(), signal.pthread_sigmask(signal.SIG_BLOCK, ())) == (before, mask)
        (line,) = lines
        assert (line["event"], line["number"], line["reason"], line["next_in_s"]) == (
            *("process_not_started", 1, "none left", 1.0),
        )
        assert first.missing() == [first._children[0], first._children[2]]
        clock.now_s += 1
        assert first.missing() == first._children

    def test_who_is_missing_is_who_does_not_run_and_nobody_as_all_leave(self, start: StartFirst) -> None:
        first = start()
        admin, _, other = run(first)
        assert first.missing() == []
        admin.pid = other.pid = None
        assert first.missing() == [admin, other]
        first._leaving = True
        assert first.missing() == []

    @pytest.mark.parametrize("code", [0, 3])
    def test_it_all_begins_with_what_serves_and_ends_with_its_code(self, surroundings: None, code: int) -> None:
        ours = os.getpid()
        announced = []
        ended = 99

        def serve(slot: WorkerSlot) -> int:
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
            slot.say_ready()
            signal.sigwait({signal.SIGTERM})
            return code if slot.number == 2 else 0

        def announce(url: str, admin_url: str) -> None:
            announced.append((url, admin_url))
            signal.raise_signal(signal.SIGTERM)

        try:
            ended = supervisor.supervise(settings(), serve, announce, UNCHANGED)
        finally:
            if os.getpid() != ours:
                os._exit(ended)
        assert ended == code
        ((url, admin_url),) = announced
        assert url.startswith("http://127.0.0.1:") is admin_url.startswith("http://127.0.0.1:") is True
        assert url != admin_url


class TestSlot:
    """What a child does with its slot while it serves."""

    @contextlib.contextmanager
    def slot(self, tmp_path: Path) -> Iterator[tuple[WorkerSlot, int]]:
        """A slot, and the end of its lifeline that the first process holds."""
        lifeline, held = os.pipe()
        ours, theirs = socket.socketpair()
        with ours, theirs:
            yield WorkerSlot(1, 0, ours, tmp_path / "sockets", 2, Heartbeats(3), -1, lifeline, theirs), held
        for descriptor in (lifeline, held):
            if is_open(descriptor):
                os.close(descriptor)

    async def test_its_heart_beats_again_and_again_and_then_it_is_no_more_said_to_serve(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(supervisor, "BEAT_EVERY_S", 0.001)
        before = asyncio.all_tasks()
        with self.slot(tmp_path) as (slot, _):
            with slot.held():
                for _ in range(3):
                    last_s = slot.heartbeats.last_s(1)
                    async with asyncio.timeout(10):
                        while slot.heartbeats.last_s(1) == last_s:  # noqa: ASYNC110 - in memory that is shared
                            await asyncio.sleep(0.001)
            # What turned is gone, and so is who looked at the lifeline.
            _, turning = await asyncio.wait({*asyncio.all_tasks()} - before, timeout=10)
            assert turning == set()
            assert slot.heartbeats.last_s(1) == 0
            assert not asyncio.get_running_loop().remove_reader(slot.lifeline)

    @pytest.mark.parametrize("is_there", [True, False])
    async def test_when_the_first_process_is_gone_it_stops_once_and_removes_what_that_left(
        self, tmp_path: Path, *, is_there: bool
    ) -> None:
        stopped = asyncio.Event()
        signalled: list[int] = []
        handler = signal.signal(signal.SIGTERM, lambda number, _: (signalled.append(number), stopped.set()))
        try:
            with self.slot(tmp_path) as (slot, held), slot.held():
                if is_there:
                    slot.directory.mkdir()
                os.close(held)
                await asyncio.wait_for(stopped.wait(), 10)
                for _ in range(10):
                    await asyncio.sleep(0)
        finally:
            signal.signal(signal.SIGTERM, handler)
        assert (signalled, slot.directory.exists()) == ([signal.SIGTERM], False)


class TestWait:
    """One turn of the first process."""

    @pytest.mark.parametrize(
        ("watchdog_us", "state", "slept_s"),
        [
            (None, {}, supervisor.LOOK_EVERY_S),
            (None, {"due_in_s": 0.25}, 0.25),
            (None, {"due_in_s": -5.0}, 0.0),
            (None, {"due_in_s": 0.25, "leaving": True}, supervisor.LOOK_EVERY_S),
            (None, {"leaving": True, "kill_in_s": 0.5}, 0.5),
            (None, {"leaving": True, "kill_in_s": 0.5, "kill_admin_in_s": 0.125}, 0.125),
            (None, {"leaving": True, "kill_in_s": -0.5, "kill_admin_in_s": 3.0}, supervisor.LOOK_EVERY_S),
            (500_000, {}, 0.25),
            (500_000, {"due_in_s": 0.125}, 0.125),
            (5_000_000, {}, supervisor.LOOK_EVERY_S),
        ],
    )
    def test_it_sleeps_until_the_first_thing_that_is_due_and_never_long(
        self,
        start: StartFirst,
        clock: Clock,
        sent: list[tuple[int, int]],
        monkeypatch: pytest.MonkeyPatch,
        *,
        watchdog_us: int | None,
        state: Mapping[str, float],
        slept_s: float,
    ) -> None:
        first = start()
        worker = run(first)[1]
        if watchdog_us is not None:
            monkeypatch.setenv("WATCHDOG_USEC", str(watchdog_us))
        if "due_in_s" in state:
            worker.pid, worker.due_s = None, clock.now_s + state["due_in_s"]
        first._leaving = bool(state.get("leaving"))
        first._kill_at_s = clock.now_s + state.get("kill_in_s", LONG_S)
        first._kill_admin_at_s = clock.now_s + state.get("kill_admin_in_s", LONG_S)
        slept: list[float] = []

        def select(readable: Sequence[int], _: object, __: object, timeout_s: float) -> tuple[list[int], ...]:
            assert {*readable} == {first._ready[0], first._heard[0].fileno()}
            slept.append(timeout_s)
            return [], [], []

        monkeypatch.setattr(supervisor, "select", SimpleNamespace(select=select))
        first.wait(unheard)
        assert slept == [slept_s]

    def test_it_looks_who_hangs(self, start: StartFirst, clock: Clock, sent: list[tuple[int, int]]) -> None:
        first = start()
        run(first)[1].due_s = clock.now_s
        first._heartbeats._at_s[1] -= SILENT_S + 1
        first._children[1].started_s = first._awake_since_s = 0.0
        os.write(first._ready[1], b"\0")
        first.wait(unheard)
        assert sent == [((1 << 30) + 1, signal.SIGKILL)]

    @pytest.mark.parametrize(("tls_cert", "scheme"), [(None, "http"), (Path("cert.pem"), "https")])
    def test_it_announces_once_that_all_serve(
        self, clock: Clock, surroundings: None, tls_cert: Path | None, scheme: str
    ) -> None:
        announced: list[tuple[str, str]] = []
        chosen = settings().model_copy(update={"tls_cert": tls_cert})
        with contextlib.closing(supervisor._Supervisor(chosen, UNCHANGED)) as first:
            run(first, served=False)
            for number, times in ((2, 0), (0, 0), (1, 1), (1, 1)):
                os.write(first._ready[1], bytes([number]))
                first.wait(lambda *urls: announced.append(urls))  # type: ignore[arg-type]
                assert len(announced) == times
            port, admin_port = (one.getsockname()[1] for one in (first._reserved, first._admin))
        assert announced == [(f"{scheme}://127.0.0.1:{port}", f"http://127.0.0.1:{admin_port}")]

    @pytest.mark.parametrize(
        ("number", "told", "leaves", "reloads"),
        [
            *((number, (0, 1, 2), False, 0) for number in signals.LEVELS),
            *((number, (1, 2), True, 0) for number in signals.STOPS),
            (signals.HANG_UP, (), False, 1),
        ],
    )
    def test_a_signal_is_passed_on_or_followed(
        self,
        start: StartFirst,
        sent: list[tuple[int, int]],
        manager: Callable[[], list[str]],
        number: int,
        told: Sequence[int],
        *,
        leaves: bool,
        reloads: int,
    ) -> None:
        """A level is moved in each process; to stop is the workers' first: the admin process says how they stand."""
        reloaded: list[object] = []
        first = start(Following(reloaded.append, lambda: False))
        children = run(first)
        signal.raise_signal(number)
        for _ in range(2):
            # It looks again, and finds nothing new.
            first.wait(unheard)
            os.write(first._ready[1], b"\1")
        passed_on = signal.SIGTERM if leaves else number
        assert sent == [(children[one].pid, passed_on) for one in told]
        assert (first._leaving, len(reloaded), manager()) == (leaves, reloads, ["STOPPING=1"] * leaves)

    def test_a_burst_of_signals_is_heard_whole_and_never_waited_for(
        self, start: StartFirst, sent: list[tuple[int, int]], capfd: pytest.CaptureFixture[str]
    ) -> None:
        first = start()
        workers = run(first)
        for number in (*signals.LEVELS, signal.SIGCHLD):
            signal.raise_signal(number)
        first.wait(unheard)
        assert sent == [(pid, number) for number in signals.LEVELS for pid in pids(*workers)]
        assert not any(end.getblocking() for end in first._heard)
        # More than there is room for are too many to be heard, and nothing to be said of.
        with contextlib.suppress(BlockingIOError):
            while True:
                first._heard[1].send(bytes([signal.SIGCHLD]) * 4096)
        signal.raise_signal(signal.SIGUSR1)
        assert capfd.readouterr() == ("", "")

    def test_the_watchdog_hears_of_it_while_all_answer(
        self, start: StartFirst, manager: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first = start()
        run(first)
        os.write(first._ready[1], b"\1")
        first.wait(unheard)
        assert manager() == []
        for is_well, said in ((True, ["WATCHDOG=1"]), (False, [])):
            monkeypatch.setenv("WATCHDOG_USEC", "1000000")
            first._children[1].has_served = is_well
            os.write(first._ready[1], b"\0")
            first.wait(unheard)
            assert manager() == said

    @pytest.mark.parametrize(
        ("announced", "leaving", "runs", "has_served", "hangs", "answers"),
        [
            (False, False, False, False, False, True),
            (False, False, True, False, True, True),
            (True, False, True, True, False, True),
            (True, False, True, True, True, False),
            (True, False, True, False, False, False),
            (True, False, False, True, False, False),
            (True, True, False, False, False, True),
            (True, True, True, True, True, False),
        ],
    )
    def test_all_answer_where_each_turns_or_has_left(
        self,
        start: StartFirst,
        clock: Clock,
        *,
        announced: bool,
        leaving: bool,
        runs: bool,
        has_served: bool,
        hangs: bool,
        answers: bool,
    ) -> None:
        first = start()
        children = run(first)
        clock.now_s += SILENT_S + 1
        for child in children:
            first._heartbeats.beat(child.number)
        first._announced, first._leaving = announced, leaving
        worker = children[1]
        worker.has_served = has_served
        if hangs:
            clock.now_s += SILENT_S + 1
            for child in children:
                if child is not worker:
                    first._heartbeats.beat(child.number)
        if not runs:
            worker.pid = None
            first._heartbeats.forget(worker.number)
        assert first._all_answer() is answers


class TestFollow:
    """The configuration, offered to the workers."""

    @pytest.mark.parametrize(
        ("announced", "leaving", "asked", "changed", "follows"),
        [
            (True, False, True, False, True),
            (True, False, False, True, True),
            (True, False, False, False, False),
            (False, False, True, True, False),
            (True, True, True, True, False),
        ],
    )
    def test_it_is_offered_to_those_who_run_where_that_is_asked_for_or_a_file_has_changed(
        self, start: StartFirst, *, announced: bool, leaving: bool, asked: bool, changed: bool, follows: bool
    ) -> None:
        offered: list[Sequence[socket.socket]] = []
        first = start(Following(offered.append, lambda: changed), workers=3)
        assert not first._is_asked_to_follow
        admin, worker, other, _ = run(first)
        ours, theirs = socket.socketpair()
        with ours, theirs:
            worker.control = admin.control = ours
            other.pid = None
            first._announced, first._leaving, first._is_asked_to_follow = announced, leaving, asked
            first._follow()
            assert offered == [[ours]] * follows
            # Who could not be served then is not forgotten.
            assert first._is_asked_to_follow is (asked and not follows)


class TestHang:
    """Who is killed, and when."""

    @pytest.mark.parametrize(
        ("has_served", "beat_s", "started_s", "patience_s"),
        [
            # By its last beat.
            (True, 50.0, 0.0, 50.0 + SILENT_S),
            # One that has stopped to serve ends by itself.
            (True, 0.0, 40.0, None),
            # A beat of before its start is its predecessor's.
            (False, 10.0, 40.0, 40.0 + supervisor.START_S),
            (True, 10.0, 40.0, 40.0 + SILENT_S),
            (False, 0.0, 40.0, 40.0 + supervisor.START_S),
        ],
    )
    def test_a_child_is_given_its_time_to_begin_and_to_turn_and_no_more(
        self,
        start: StartFirst,
        clock: Clock,
        sent: list[tuple[int, int]],
        *,
        has_served: bool,
        beat_s: float,
        started_s: float,
        patience_s: float | None,
    ) -> None:
        began_s = clock.now_s
        first = start()
        missing, worker, other = run(first)
        # One that does not run comes before it.
        missing.pid = None
        first._heartbeats.forget(2)
        clock.now_s = began_s + beat_s
        first._heartbeats.beat(1)
        if not beat_s:
            first._heartbeats.forget(1)
        worker.has_served, worker.started_s = has_served, began_s + started_s
        first._awake_since_s = began_s
        for at_s, killed in ((patience_s or LONG_S, False), ((patience_s or LONG_S) + 0.125, patience_s is not None)):
            # It was let run all along.
            clock.now_s = began_s + at_s
            first._looked_s = clock.now_s - supervisor.FROZEN_S
            with structlog.testing.capture_logs() as lines:
                first._end_who_hangs()
            assert sent == [(worker.pid, signal.SIGKILL)] * killed
            assert worker.was_killed is killed
            assert [(line["event"], line["number"], line["pid"]) for line in lines] == [
                ("process_hung", 1, worker.pid)
            ] * killed
        # Once.
        first._end_who_hangs()
        assert len(sent) == (patience_s is not None)
        assert not other.was_killed

    def test_after_the_machine_stood_still_patience_begins_anew(
        self, start: StartFirst, clock: Clock, sent: list[tuple[int, int]]
    ) -> None:
        first = start()
        run(first)
        clock.now_s += LONG_S
        first._end_who_hangs()
        clock.now_s += supervisor.FROZEN_S
        first._end_who_hangs()
        clock.now_s += SILENT_S - supervisor.FROZEN_S
        first._end_who_hangs()
        assert sent == []
        clock.now_s += 0.125
        first._end_who_hangs()
        assert len(sent) == 3


class TestEnd:
    """Whoever asks for it gets it, in a time that is known."""

    def at(self, first: supervisor._Supervisor, clock: Clock, at_s: float) -> None:
        """Let time pass, in which every child turns."""
        while clock.now_s < at_s:
            clock.now_s = min(at_s, clock.now_s + 1)
            for child in first._children:
                first._heartbeats.beat(child.number)
            first._end_who_hangs()

    @pytest.mark.parametrize(("again_in_s", "killed_in_s"), [(None, 9.0), (1.0, 5.0), (8.0, 9.0)])
    def test_workers_are_killed_who_outlive_the_drain_or_a_second_signal(
        self,
        start: StartFirst,
        clock: Clock,
        sent: list[tuple[int, int]],
        again_in_s: float | None,
        killed_in_s: float,
    ) -> None:
        """OPS-2: after `drain_delay` + `drain_timeout` + 4 s; after a second signal 4 s later, if that is sooner."""
        assert supervisor.LAST_STEPS_S == 4
        first = start(drain_delay=2, drain_timeout=3)
        _, *workers = run(first)
        began_s = clock.now_s
        first._leave()
        told = [(pid, signal.SIGTERM) for pid in pids(*workers)]
        assert sent == told
        if again_in_s is not None:
            self.at(first, clock, began_s + again_in_s)
            first._leave()
            assert sent == told * 2
        sent.clear()
        self.at(first, clock, began_s + killed_in_s)
        assert sent == []
        with structlog.testing.capture_logs() as lines:
            self.at(first, clock, began_s + killed_in_s + 0.125)
        assert sent == [(pid, signal.SIGKILL) for pid in pids(*workers)]
        assert [(line["event"], line["number"]) for line in lines] == [("process_killed", 1), ("process_killed", 2)]

    def test_the_admin_process_goes_when_no_worker_is_left_and_is_killed_soon(
        self, start: StartFirst, clock: Clock, sent: list[tuple[int, int]]
    ) -> None:
        assert supervisor.ADMIN_LAST_S == 0.8
        first = start()
        admin, worker, other = run(first)
        for left in (other, worker):
            first._leave()
            assert not first.is_done()
            assert (admin.pid, signal.SIGTERM) not in sent
            first._lose(left, 0)
            first._dismiss_admin()
        assert sent[-1] == (admin.pid, signal.SIGTERM)
        began_s = clock.now_s
        self.at(first, clock, began_s + 0.5)
        # Told again, it has no more time.
        first._leave()
        self.at(first, clock, began_s + 0.8)
        assert (admin.pid, signal.SIGKILL) not in sent
        assert not first.is_done()
        self.at(first, clock, began_s + 0.9)
        assert sent[-1] == (admin.pid, signal.SIGKILL)
        first._lose(admin, -signal.SIGKILL)
        assert (first.is_done(), first.code) == (True, 0)

    def test_where_no_worker_is_there_to_leave_the_admin_process_goes_at_once(
        self, start: StartFirst, sent: list[tuple[int, int]]
    ) -> None:
        first = start()
        admin, worker, other = run(first)
        worker.pid = other.pid = None
        first._leave()
        assert sent == [(admin.pid, signal.SIGTERM)]

    def test_all_who_have_ended_are_noted_at_once_and_the_last_worker_dismisses_the_admin_process(
        self, start: StartFirst
    ) -> None:
        first = start()
        admin, worker, other = first._children
        for child, words in ((admin, ["sleep", "20"]), (worker, ["sh", "-c", "exit 7"]), (other, ["true"])):
            child.pid = os.posix_spawnp(words[0], words, os.environ)
            child.started_s, child.was_killed = 0.0, False
        ran = admin.pid
        assert ran is not None
        for child in (worker, other):
            assert child.pid is not None
            os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        first._leaving = True
        first._reap()
        assert (admin.pid, worker.pid, other.pid, first.code) == (ran, None, None, 7)
        dismissed = os.waitid(os.P_PID, ran, os.WEXITED | os.WNOWAIT)
        assert dismissed is not None
        assert dismissed.si_status == signal.SIGTERM
        first._reap()
        assert (first.is_done(), first.code) == (True, 7)

    @pytest.mark.parametrize(
        ("number", "was_killed", "code", "said"),
        [
            (1, False, 0, 0),
            # Told before it could hear, or when it had no more to hear.
            (1, False, -signal.SIGTERM, 0),
            (1, False, -signal.SIGKILL, 1),
            (1, False, 3, 3),
            (1, True, -signal.SIGKILL, 1),
            (0, False, 3, 3),
            # It had nothing to lose.
            (0, True, -signal.SIGKILL, 0),
        ],
    )
    def test_how_a_child_that_leaves_has_ended_is_how_all_end(
        self, start: StartFirst, sent: list[tuple[int, int]], number: int, code: int, said: int, *, was_killed: bool
    ) -> None:
        first = start()
        children = run(first)
        first._leaving = True
        child = children[number]
        child.was_killed = was_killed
        child.control, theirs = socket.socketpair()
        control = child.control
        first._lose(child, code)
        theirs.close()
        assert (first.code, child.pid, child.control, control.fileno()) == (said, None, None, -1)
        assert [first._heartbeats.last_s(one) > 0 for one in range(3)] == [one != number for one in range(3)]
        # The first that says something is heard.
        first._lose(children[2], 5)
        assert first.code == (said or 5)

    @pytest.mark.parametrize(("code", "said"), [(2, 2), (1, 1), (0, 1), (-signal.SIGSEGV, 1)])
    def test_one_that_cannot_start_ends_all_with_its_code(
        self, start: StartFirst, sent: list[tuple[int, int]], code: int, said: int
    ) -> None:
        first = start()
        _, worker, other = run(first, served=False)
        with structlog.testing.capture_logs() as lines:
            first._lose(worker, code)
        assert (first.code, first._leaving, lines) == (said, True, [])
        assert sent == [(other.pid, signal.SIGTERM)]

    @pytest.mark.parametrize("was_killed", [False, True])
    def test_one_that_dies_while_all_serve_is_said_and_replaced(
        self, start: StartFirst, clock: Clock, sent: list[tuple[int, int]], *, was_killed: bool
    ) -> None:
        """One that hung is said to until its successor turns: nobody takes its callers meanwhile."""
        first = start()
        _, worker, _ = run(first)
        worker.was_killed, pid = was_killed, worker.pid
        with structlog.testing.capture_logs() as lines:
            first._lose(worker, -signal.SIGKILL)
        assert (first.code, first._leaving, sent) == (0, False, [])
        assert (first._heartbeats.last_s(1) > 0) is was_killed
        (line,) = lines
        assert (line["event"], line["number"], line["pid"], line["code"], line["next_in_s"]) == (
            *("process_died", 1, pid, -signal.SIGKILL, 1.0),
        )
        assert first.missing() == []
        clock.now_s += 1
        assert first.missing() == [worker]

    @pytest.mark.parametrize("is_ours", [True, False])
    @pytest.mark.parametrize("directory_is_there", [True, False])
    def test_it_leaves_nothing_behind_but_what_is_another_processs(
        self, clock: Clock, surroundings: None, tmp_path: Path, *, is_ours: bool, directory_is_there: bool
    ) -> None:
        handlers = {number: signal.getsignal(number) for number in (*supervisor.SIGNALS, signal.SIGCHLD)}
        before = files()
        waiting = {signals.HANG_UP, *signals.LEVELS}
        signal.pthread_sigmask(signal.SIG_BLOCK, waiting)
        first = supervisor._Supervisor(settings(), UNCHANGED)
        # What has waited for handlers is let through.
        assert signal.getsignal(signal.SIGTERM) is signals.ignore
        assert not waiting & signal.pthread_sigmask(signal.SIG_UNBLOCK, waiting)
        (directory,) = tmp_path.iterdir()
        if not directory_is_there:
            directory.rmdir()
        if not is_ours:
            first._owner += 1
            first.close()
            assert files() > before
            assert directory.exists() is directory_is_there
            assert signal.getsignal(signal.SIGTERM) is signals.ignore
            first._owner -= 1
        first.close()
        assert (files(), [*tmp_path.iterdir()]) == (before, [])
        assert {number: signal.getsignal(number) for number in handlers} == handlers
        assert signal.set_wakeup_fd(-1) == -1


class TestPostponed:
    """When one that has died is replaced."""

    def test_who_dies_young_again_and_again_is_replaced_later_and_later(self, clock: Clock) -> None:
        child = supervisor._Child(1)
        waits_s = []
        for _ in range(8):
            child.started_s = clock.now_s - supervisor.LIVED_S
            waits_s.append(supervisor._postponed_s(child))
            assert child.due_s == clock.now_s + waits_s[-1]
            clock.now_s += 100
        assert waits_s == [1, 2, 4, 8, 16, *[supervisor.LONGEST_WAIT_S] * 3]

    def test_who_has_lived_is_replaced_at_once_and_the_waits_begin_anew(self, clock: Clock) -> None:
        child = supervisor._Child(1, wait_s=supervisor.LONGEST_WAIT_S)
        child.started_s = clock.now_s - supervisor.LIVED_S - 0.125
        assert (supervisor._postponed_s(child), child.due_s) == (0, clock.now_s)
        child.started_s = clock.now_s
        assert supervisor._postponed_s(child) == 1


class TestPorts:
    """What is bound before anything is forked."""

    def test_the_port_of_the_calls_is_shared_and_that_of_the_admin_is_listened_on(self, start: StartFirst) -> None:
        first = start()
        for bound, shared, listens in ((first._reserved, 1, 0), (first._admin, 0, 1)):
            options = [
                bound.getsockopt(socket.SOL_SOCKET, one) != 0
                for one in (socket.SO_REUSEADDR, socket.SO_REUSEPORT, socket.SO_ACCEPTCONN)
            ]
            assert options == [True, bool(shared), bool(listens)]
        with contextlib.closing(supervisor._bound(*first._reserved.getsockname(), shared=True)) as beside:
            assert beside.getsockname() == first._reserved.getsockname()

    @pytest.mark.parametrize("of", ["port", "admin_port"])
    def test_one_that_is_taken_is_said_with_its_address_and_leaves_nothing_open(
        self, clock: Clock, surroundings: None, tmp_path: Path, of: str
    ) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            before = files()
            with pytest.raises(OSError, match=rf"cannot listen on \('127\.0\.0\.1', {port}\): ") as error:
                supervisor._Supervisor(settings(**{of: port}), UNCHANGED)
            assert error.value.errno == errno.EADDRINUSE
            assert (files(), [*tmp_path.iterdir()]) == (before, [])
