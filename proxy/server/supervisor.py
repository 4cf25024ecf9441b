"""One port served by several processes: forked from one that has loaded the vocabulary, replaced when one dies, drained
together.

The first process answers nobody. It has neither event loop nor thread, so that it can fork at any time, and the
vocabulary's memory stays shared. The kernel spreads connections over the workers (SO_REUSEPORT), also to one that
hangs: whose loop does not turn is killed and replaced. One more child, the admin process, answers the admin port for
all of them. Source: spec OPS-1, OPS-2.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import select
import shutil
import signal
import socket
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import structlog

from config.settings import Settings
from proxy.server import lifecycle, signals, systemd
from proxy.server.board import BEAT_EVERY_S, SILENT_S, Heartbeats

log = structlog.get_logger()

ADMIN_PROCESS: Final = 0  # its number; the workers' are counted from 1

SIGNALS: Final = frozenset({*signals.STOPS, signals.HANG_UP, *signals.LEVELS})

# So long a child may take to serve; what it needs is loaded before it is forked.
START_S: Final = 60.0
# So often the first process looks at the children's heartbeats. Where it was not let run for as long as that and much
# more (a frozen container), nor were they: their patience begins anew.
LOOK_EVERY_S: Final = 1.0
FROZEN_S: Final = 5.0
# What a worker that leaves needs beside `drain_delay` and `drain_timeout`: for the first calls of those who have just
# connected, the last frames, the last words to Redis. The admin process goes after the last worker, within so long.
# Together less than five seconds: whatever a child does, all is gone by then.
LAST_STEPS_S: Final = 4.0
ADMIN_LAST_S: Final = 0.8
# A child that has lived for so long is replaced at once; one that has not waits, longer each time.
LIVED_S: Final = 10.0
LONGEST_WAIT_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class WorkerSlot:
    """What a child needs to know of its slot.

    number:     `ADMIN_PROCESS`, or that of a worker
    port:       of the calls
    admin:      what the admin process listens on
    directory:  of `sockets`
    workers:    how many there are
    heartbeats: where to note that its loop turns
    ready:      descriptor to say on that it serves
    lifeline:   descriptor that ends when the first process does
    control:    where the first process offers it another configuration
    """

    number: int
    port: int
    admin: socket.socket
    directory: Path
    workers: int
    heartbeats: Heartbeats
    ready: int
    lifeline: int
    control: socket.socket

    @property
    def sockets(self) -> Mapping[int, Path]:
        """Where the workers answer the admin process, by number."""
        return {number: self.directory / str(number) for number in range(1, self.workers + 1)}

    def say_ready(self) -> None:
        """Tell the first process that this one serves."""
        self.heartbeats.beat(self.number)
        os.write(self.ready, bytes([self.number]))

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Send heartbeats, and drain when the first process is gone, for nobody else could ask for it."""
        loop = asyncio.get_running_loop()

        def be_alone() -> None:
            loop.remove_reader(self.lifeline)
            # Nor could anybody else remove it.
            shutil.rmtree(self.directory, ignore_errors=True)
            signal.raise_signal(signal.SIGTERM)

        turning = asyncio.create_task(self._turn())
        loop.add_reader(self.lifeline, be_alone)
        try:
            yield
        finally:
            loop.remove_reader(self.lifeline)
            turning.cancel()
            self.heartbeats.forget(self.number)

    async def _turn(self) -> None:
        while True:
            self.heartbeats.beat(self.number)
            await asyncio.sleep(BEAT_EVERY_S)


@dataclass(slots=True)
class _Child:
    """The slot of one child, whether it runs or is to be started.

    due_s:      when the next one may start
    wait_s:     how long that one waits if this one dies young
    control:    this side of what a worker is offered another configuration by; None while none runs

    Of the one that runs, or ran last:
    started_s:  when it was forked
    has_served: whether it has said so
    was_killed: whether the first process has ended it: it hung, or took too long to leave
    """

    number: int
    pid: int | None = None
    due_s: float = -math.inf
    wait_s: float = 1.0
    control: socket.socket | None = None
    started_s: float = field(init=False)
    has_served: bool = field(init=False)
    was_killed: bool = field(init=False)


@dataclass(frozen=True, slots=True)
class Following:
    """How the first process follows the configuration for its workers.

    reload:      read the configuration anew and offer it to these
    has_changed: whether a file says that it is time to
    """

    reload: Callable[[Sequence[socket.socket]], None]
    has_changed: Callable[[], bool]


def supervise(
    settings: Settings,
    serve: Callable[[WorkerSlot], int],
    announce: Callable[[str, str], None],
    following: Following,
) -> int:
    """Keep the processes of one port alive until a signal; returns the exit code, in every process its own.

    serve:    the work of a child; its exceptions leave through this function too
    announce: is told both URLs once all serve
    following: how another configuration is followed
    Raises `OSError` where a port is not to be had.
    """
    with contextlib.closing(_Supervisor(settings, following)) as supervisor:
        while not supervisor.is_done():
            for child in supervisor.missing():
                if (slot := supervisor.fork(child)) is not None:
                    return serve(slot)
            supervisor.wait(announce)
        return supervisor.code


class _Supervisor:
    """The children of the first process: started, watched, replaced, ended."""

    def __init__(self, settings: Settings, following: Following) -> None:
        self._following = following
        self._is_asked_to_follow = False
        self._owner = os.getpid()
        self.code = 0
        self._drain_s = settings.drain_delay + settings.drain_timeout
        self._is_secured = settings.tls_cert is not None
        self._leaving = False
        # When workers that have not left are killed, and then the admin process.
        self._kill_at_s = math.inf
        self._kill_admin_at_s = math.inf
        self._announced = False
        self._looked_s = self._awake_since_s = time.monotonic()
        self._children = [_Child(number) for number in range(settings.workers + 1)]
        self._heartbeats = Heartbeats(len(self._children))
        with contextlib.ExitStack() as stack:
            # Bound and never listened on: it keeps the port ours while workers come and go.
            self._reserved = stack.enter_context(_bound(settings.host, settings.port, shared=True))
            self._admin = stack.enter_context(_bound(settings.admin_host, settings.admin_port, shared=False))
            self._admin.listen()
            stack.pop_all()
        self._ready = os.pipe()
        self._lifeline = os.pipe()
        self._heard = socket.socketpair()
        for end in self._heard:
            end.setblocking(False)
        # Handlers that do nothing: what counts is the byte that the interpreter writes for each signal.
        self._waker = signal.set_wakeup_fd(self._heard[1].fileno(), warn_on_full_buffer=False)
        self._handlers = {number: signal.signal(number, signals.ignore) for number in (*SIGNALS, signal.SIGCHLD)}
        signals.deliver()
        # Last: from here on no signal keeps it from being removed.
        self._directory = Path(tempfile.mkdtemp(prefix="dashseek-"))

    def missing(self) -> list[_Child]:
        """Where a child is missing and may start now."""
        if self._leaving:
            return []
        now_s = time.monotonic()
        return [child for child in self._children if child.pid is None and child.due_s <= now_s]

    def fork(self, child: _Child) -> WorkerSlot | None:
        """Fork; in the child its slot, in the first process None."""
        child.started_s, child.has_served, child.was_killed = time.monotonic(), False, False
        # Until the child has its own handlers a signal to it would be told to the first process, and lost on the child.
        unblocked = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        ours, theirs = socket.socketpair()
        try:
            pid = os.fork()
            if not pid:
                # A terminal sends Ctrl-C to every process of a group: the first process alone shall have it, and pass
                # it on.
                os.setpgid(0, 0)
                self._forget_signals()
                unblocked |= {signals.HANG_UP, *signals.LEVELS}
        except OSError as error:
            ours.close()
            theirs.close()
            if not self._announced:
                raise
            # The others serve, and what is missing may be there in a moment.
            log.error("process_not_started", number=child.number, reason=error.strerror, next_in_s=_postponed_s(child))
            return None
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, unblocked)
        if pid:
            theirs.close()
            child.pid, child.control = pid, ours
            return None
        for other in (ours, *(one.control for one in self._children if one.control is not None)):
            other.close()
        # systemd hears from the first process.
        os.environ.pop("NOTIFY_SOCKET", None)
        os.close(self._lifeline[1])
        os.close(self._ready[0])
        return WorkerSlot(
            child.number,
            self._reserved.getsockname()[1],
            self._admin,
            self._directory,
            len(self._children) - 1,
            self._heartbeats,
            self._ready[1],
            self._lifeline[0],
            theirs,
        )

    def is_done(self) -> bool:
        """Whether nobody is left and nobody is to come."""
        return self._leaving and not any(child.pid for child in self._children)

    def wait(self, announce: Callable[[str, str], None]) -> None:
        """Sleep until a child serves or dies, a signal comes, or something is due; and do what that asks for."""
        self._end_who_hangs()
        turn_s = systemd.watchdog_s()
        if turn_s is not None and self._all_answer():
            systemd.turn()
        now_s = time.monotonic()
        due_s = [child.due_s for child in self._children if child.pid is None and not self._leaving]
        due_s += [at_s for at_s in (self._kill_at_s, self._kill_admin_at_s) if at_s > now_s]
        sleep_s = max(0.0, min([LOOK_EVERY_S, turn_s or LOOK_EVERY_S, *(at_s - now_s for at_s in due_s)]))
        ready, heard = self._ready[0], self._heard[0]
        readable, _, _ = select.select([ready, heard.fileno()], [], [], sleep_s)
        if ready in readable:
            for number in os.read(ready, 64):
                self._children[number].has_served = True
            if not self._announced and all(child.has_served for child in self._children):
                self._announced = True
                announce(
                    lifecycle.url(self._reserved.getsockname(), secured=self._is_secured),
                    lifecycle.url(self._admin.getsockname()),
                )
        if heard.fileno() in readable:
            for number in heard.recv(64):
                self._hear(signal.Signals(number))
        self._follow()

    def close(self) -> None:
        """Close the sockets and files of the first process; nothing in a child."""
        if os.getpid() != self._owner:
            return
        self._forget_signals()
        for descriptor in (*self._ready, *self._lifeline):
            os.close(descriptor)
        self._reserved.close()
        self._admin.close()
        shutil.rmtree(self._directory, ignore_errors=True)

    def _follow(self) -> None:
        """Let all workers follow another configuration, once they serve, if that was asked for or is to be seen."""
        if not self._announced or self._leaving:
            return
        if self._is_asked_to_follow or self._following.has_changed():
            self._is_asked_to_follow = False
            children = [child for child in self._children[1:] if child.pid is not None]
            self._following.reload([child.control for child in children if child.control is not None])
            # Who waited for the workers has not looked at the children's heartbeats meanwhile.
            self._looked_s = time.monotonic()

    def _hear(self, number: signal.Signals) -> None:
        if number == signal.SIGCHLD:
            self._reap()
        elif number in signals.STOPS:
            self._leave()
        elif number == signals.HANG_UP:
            self._is_asked_to_follow = True
        else:
            self._send(number, self._children)

    def _leave(self) -> None:
        now_s = time.monotonic()
        if self._leaving:
            self._kill_at_s = min(self._kill_at_s, now_s + LAST_STEPS_S)
        else:
            systemd.say("STOPPING=1")
            self._leaving = True
            self._kill_at_s = now_s + self._drain_s + LAST_STEPS_S
        # The admin process goes last: until then it says that nobody is ready.
        self._send(signal.SIGTERM, self._children[1:])
        self._dismiss_admin()

    def _end_who_hangs(self) -> None:
        """Kill each child whose event loop hangs, which does not begin to serve, or has not ended in time."""
        now_s = time.monotonic()
        if now_s - self._looked_s > FROZEN_S:
            self._awake_since_s = now_s
        self._looked_s = now_s
        for child in self._children:
            if child.pid is None or child.was_killed:
                continue
            if now_s > (self._kill_at_s if child.number else self._kill_admin_at_s):
                log.error("process_killed", number=child.number, pid=child.pid)
                self._kill(child)
            elif (silent_s := self._silent_s(child, now_s)) > (SILENT_S if child.has_served else START_S):
                log.error("process_hung", number=child.number, pid=child.pid, silent_s=round(silent_s, 1))
                self._kill(child)

    def _silent_s(self, child: _Child, now_s: float) -> float:
        """Seconds since a child's last heartbeat; 0 for one that has stopped serving."""
        beat_s = self._heartbeats.last_s(child.number)
        if child.has_served and not beat_s:
            return 0.0
        # A beat of before its start is its predecessor's.
        return now_s - max(beat_s, child.started_s, self._awake_since_s)

    def _all_answer(self) -> bool:
        """Whether the watchdog is to be told that all is well: every child's loop runs, or has ended as we leave."""
        if not self._announced:
            return True
        return all(
            (self._leaving if child.pid is None else child.has_served) and not self._heartbeats.hangs(child.number)
            for child in self._children
        )

    def _kill(self, child: _Child) -> None:
        child.was_killed = True
        self._send(signal.SIGKILL, (child,))

    def _reap(self) -> None:
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if not pid:
                    break
                for child in self._children:
                    if child.pid == pid:
                        self._lose(child, os.waitstatus_to_exitcode(status))
        if self._leaving:
            self._dismiss_admin()

    def _lose(self, child: _Child, code: int) -> None:
        pid, child.pid = child.pid, None
        if child.control is not None:
            child.control.close()
            child.control = None
        if not child.was_killed or self._leaving:
            self._heartbeats.forget(child.number)
        if self._leaving:
            if child.number == ADMIN_PROCESS and child.was_killed:
                return  # it had nothing to lose
            # One that was told to stop before it could hear, or again when it had no more to hear, has stopped.
            stopped = -code == signal.SIGTERM
            self.code = self.code or (0 if stopped else code if code >= 0 else 1)
            return
        if not self._announced:
            # It could not start, and has said why; nor could the next one.
            self.code = max(code, 1)
            self._leave()
            return
        log.error("process_died", number=child.number, pid=pid, code=code, next_in_s=_postponed_s(child))

    def _dismiss_admin(self) -> None:
        if not any(child.pid for child in self._children[1:]):
            self._kill_admin_at_s = min(self._kill_admin_at_s, time.monotonic() + ADMIN_LAST_S)
            self._send(signal.SIGTERM, self._children)

    def _send(self, number: signal.Signals, children: Iterable[_Child]) -> None:
        for child in children:
            if child.pid is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child.pid, number)

    def _forget_signals(self) -> None:
        """Drop the first process's signal handlers: in a child, which has its own, and when all is over."""
        signal.set_wakeup_fd(self._waker)
        if os.getpid() == self._owner:
            signals.restore(self._handlers)
        else:
            for number, handler in self._handlers.items():
                signal.signal(number, handler)
        for end in self._heard:
            end.close()


def _postponed_s(child: _Child) -> float:
    """Let the next child come at once where this one has lived, else after a wait, longer each time; in how long."""
    now_s = time.monotonic()
    if now_s - child.started_s > LIVED_S:
        child.wait_s, next_in_s = 1.0, 0.0
    else:
        next_in_s = child.wait_s
        child.wait_s = min(2 * child.wait_s, LONGEST_WAIT_S)
    child.due_s = now_s + next_in_s
    return next_in_s


def _bound(host: str, port: int, *, shared: bool) -> socket.socket:
    """A socket on this address; raises `OSError` where it is not to be had.

    shared: whether others of our processes may have it too
    """
    family, kind, proto, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    bound = socket.socket(family, kind, proto)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        bound.bind(address)
    except OSError as error:
        bound.close()
        # As asyncio words it: who reads it is told which address it is.
        raise OSError(error.errno, f"cannot listen on {(host, port)}: {error.strerror}") from None
    return bound
