"""`dashseek WORD…` without a second of imports: forked off a process that has read its code and the vocabulary.

So it is made by itself, too, where it has several workers. A test whose claim is about the start, the end or the
signals of a process marks itself `own_interpreter` and gets a Python of its own, as an operator does.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import gc
import os
import resource
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import orjson

ROOT = Path(__file__).parent.parent
MESSAGE_BYTES = 1 << 20
START_TIMEOUT_S = 60.0
RUN_TIMEOUT_S = 60.0


class Forked:
    """A process that was forked for us, by the names that `subprocess.Popen` has."""

    def __init__(self, stdout: IO[str]) -> None:
        self.pid = 0
        self.stdout = stdout
        self.returncode: int | None = None
        self.known, self.ended = threading.Event(), threading.Event()

    def poll(self) -> int | None:
        """Its exit code; None while it runs."""
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code; `subprocess.TimeoutExpired` where it does not end in time."""
        if not self.ended.wait(timeout):
            raise subprocess.TimeoutExpired("dashseek", timeout or 0)
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Nothing is sent where it has ended: its number may be another's by now."""
        if self.returncode is None:
            # It may have ended, and that not be told yet.
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        """SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)


class Forks:
    """The process that forks, of a process that tests; it ends with that."""

    def __init__(self) -> None:
        self._line, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._asking = threading.Lock()
        self._asked: list[Forked] = []
        self._running: dict[int, Forked] = {}
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.forks", str(theirs.fileno())],
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                # What ends a test with a signal from a terminal is not for this one.
                process_group=0,
            )
        threading.Thread(target=self._listen, daemon=True).start()
        atexit.register(self._end)

    def _end(self) -> None:
        self._line.shutdown(socket.SHUT_RDWR)
        self._process.wait()

    def start(self, words: Sequence[str], env: Mapping[str, str], directory: Path) -> Forked:
        """`dashseek WORD…`, with both outputs in one pipe."""
        ours, theirs = os.pipe()
        child = Forked(open(ours, encoding="utf-8"))  # noqa: SIM115 - whoever reads it closes it
        try:
            self._ask(child, words, env, directory, (theirs, theirs))
        finally:
            os.close(theirs)
        return child

    def run(self, words: Sequence[str], env: Mapping[str, str], directory: Path) -> subprocess.CompletedProcess[str]:
        """`dashseek WORD…` to its end."""
        with (
            tempfile.TemporaryFile("w+", encoding="utf-8") as out,
            tempfile.TemporaryFile("w+", encoding="utf-8") as err,
        ):
            child = Forked(out)
            self._ask(child, words, env, directory, (out.fileno(), err.fileno()))
            try:
                code = child.wait(RUN_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                child.kill()
                raise
            # Each is one open file with the child's: it stands where the child has written last.
            out.seek(0)
            err.seek(0)
            return subprocess.CompletedProcess(words, code, out.read(), err.read())

    def _ask(
        self, child: Forked, words: Sequence[str], env: Mapping[str, str], directory: Path, outputs: tuple[int, int]
    ) -> None:
        files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        asked = orjson.dumps({"words": words, "env": dict(env), "directory": str(directory), "files": files})
        with self._asking:
            self._asked.append(child)
            socket.send_fds(self._line, [asked], outputs)
        assert child.known.wait(START_TIMEOUT_S), "nothing was forked"

    def _listen(self) -> None:
        """Note what was forked, in the order in which that was asked for, and what has ended."""
        while told := self._line.recv(MESSAGE_BYTES):
            news = orjson.loads(told)
            if "code" in news:
                child = self._running.pop(news["pid"])
                child.returncode = news["code"]
                child.ended.set()
            else:
                child = self._asked.pop(0)
                child.pid = news["pid"]
                self._running[child.pid] = child
                child.known.set()


@functools.cache
def forks() -> Forks:
    """Started with the first that is asked for."""
    return Forks()


def dashseek(*words: str, env: Mapping[str, str] = {}, directory: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """`dashseek WORD…` to its end, with these variables and no other that is a setting or a key."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("DASHSEEK_", "DASHSCOPE_"))}
    return forks().run(words, {**inherited, "PYTHONPATH": str(ROOT), **env}, directory)


def serve(line: socket.socket) -> dict[str, Any] | None:
    """Fork whenever that is asked for, until nobody can ask any more; in a child, what it is to be."""
    woken, wakes = os.pipe()
    os.set_blocking(wakes, False)
    os.set_blocking(woken, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wakes)
    with selectors.DefaultSelector() as selector:
        selector.register(line, selectors.EVENT_READ)
        selector.register(woken, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is not line:
                    _tell_ends(line, woken)
                    continue
                asked, outputs, _, _ = socket.recv_fds(line, MESSAGE_BYTES, 2)
                if not asked:
                    return None
                if not (pid := os.fork()):
                    return {**orjson.loads(asked), "outputs": outputs}
                for output in outputs:
                    os.close(output)
                line.send(orjson.dumps({"pid": pid}))


def _tell_ends(line: socket.socket, woken: int) -> None:
    os.read(woken, 4096)
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if not pid:
            return
        line.send(orjson.dumps({"pid": pid, "code": os.waitstatus_to_exitcode(status)}))


def become(child: Mapping[str, Any]) -> None:
    """What a new Python would begin with, in a process that was forked."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setpgid(0, 0)
    for number, output in enumerate(child["outputs"], 1):
        os.dup2(output, number)
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (child["files"], most))
    os.chdir(child["directory"])
    os.environ.clear()
    os.environ.update(child["env"])
    time.tzset()
    sys.argv = [str(ROOT / "proxy" / "__main__.py"), *child["words"]]


def main() -> None:
    """Read everything, then fork."""
    from proxy import __main__, vocabulary  # noqa: PLC0415 - whoever asks for a fork imports this module, too
    from proxy.commands import check, cli  # noqa: F401, PLC0415
    from proxy.server import process  # noqa: F401, PLC0415

    vocabulary.load()
    gc.collect()
    gc.freeze()
    line = socket.socket(fileno=int(sys.argv[1]))
    if (child := serve(line)) is not None:
        line.detach()
        become(child)
        __main__.main()


if __name__ == "__main__":
    main()
