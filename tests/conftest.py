"""What every test may ask for: the vocabulary, an upstream, and the real `dashseek serve` as a process of its own.

And of a whole run: what was skipped is summed up in its last lines.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import os
import re
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Mapping
from pathlib import Path
from typing import Any, Protocol

import pytest
from hypothesis import HealthCheck, settings

import proxy.vocabulary
from proxy.simulation.simulator import Simulator
from proxy.simulation.wire import Json, Script
from tests import needs
from tests.forks import Forked, forks
from translators import tokens

ROOT = needs.ROOT
# Whether campaigns are run whole, as `.ci/run campaign` does; a run of all tests takes a sample of each. Under its own
# name the variable would be a setting to the commands that tests start.
os.environ.setdefault("TESTS_CAMPAIGN", os.environ.pop("DASHSEEK_CAMPAIGN", ""))
WHOLE = os.environ["TESTS_CAMPAIGN"] == "1"
# The event loop of the processes that tests start, where it is to be another than theirs by default:
# `DASHSEEK_LOOP=asyncio pytest tests/faults`.
os.environ.setdefault("TESTS_LOOP", os.environ.pop("DASHSEEK_LOOP", ""))
LOOP = {"DASHSEEK_LOOP": os.environ["TESTS_LOOP"]} if os.environ["TESTS_LOOP"] else {}
SAMPLE = 20
# Whose tests start processes and let them run into their time limits.
WAITING = [ROOT / "tests" / name for name in ("deploy", "faults", "integration")]
# Variables that nothing reads before `serve` does, whoever has imported its modules.
READ_BY_SERVE = ("DASHSEEK_", "OTEL_", "NOTIFY_SOCKET", "WATCHDOG_USEC", "TMPDIR")
# How long an example takes says nothing on a machine with other work.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")
READY = re.compile(r"dashseek serving on (https?://\S+)")
ADMIN = re.compile(r'"admin":"(http://[^"]+)"')
READY_TIMEOUT_S = 60.0
END_TIMEOUT_S = 20.0


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("dashseek")
    group.addoption("--skipped-to", metavar="FILE", help="write there what was skipped, for `pytest @FILE`")
    group.addoption("--ran-to", metavar="FILE", help="write there what was not skipped")
    group.addoption("--all-there", action="store_true", help="fail if a test lacks what `.ci/run setup` would install")
    group.addoption("--covered-by", metavar="REGEX", help="of `--cov`: by tests alone whose node begins so")


def pytest_configure(config: pytest.Config) -> None:
    # Side by side (`-n 2 --dist loadfile`) files go in our order.
    if hasattr(config.option, "loadscopereorder"):
        config.option.loadscopereorder = False


def pytest_collection(session: pytest.Session) -> None:
    """Side by side, each process reads the tests from another place on: what one compiles, others find."""
    worker = getattr(session.config, "workerinput", None)
    if worker is None:
        return
    asked = {session.config.invocation_params.dir / word.partition("::")[0] for word in session.config.args}
    files = sorted({file for path in asked for file in (path.rglob("test_*.py") if path.is_dir() else [path])})
    first = len(files) * int(worker["workerid"].removeprefix("gw")) // worker["workercount"]
    for file in (*files[first:], *files[:first]):
        # What cannot be read is told by the collection.
        with contextlib.suppress(Exception, pytest.skip.Exception):
            importlib.import_module(".".join(file.relative_to(ROOT).with_suffix("").parts))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Before `-m` is looked at; files that wait are dealt among those that compute, so that a core has always work."""
    for item in items:
        if needs.is_outfit(item):
            item.add_marker("outfit")
    kinds: dict[bool, list[Path]] = {True: [], False: []}
    for file in dict.fromkeys(item.path for item in items):
        kinds[any(file.is_relative_to(home) for home in WAITING)].append(file)
    # What waits is longer, file by file: it has begun when the short files of the end fill up.
    place = {file: 0.7 * number / len(kinds[True]) for number, file in enumerate(kinds[True])}
    place |= {file: number / len(kinds[False]) for number, file in enumerate(reversed(kinds[False]))}
    items.sort(key=lambda item: place[item.path])


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, Any, Any]:
    """Nothing is traced of a test that covers nothing: to trace costs a third of its time."""
    own, measuring = item.config.option.covered_by, item.config.pluginmanager.get_plugin("_cov")
    if not own or measuring is None or measuring.cov_controller is None or re.match(own, item.nodeid):
        return (yield)
    measuring.cov_controller.pause()
    try:
        return (yield)
    finally:
        measuring.cov_controller.resume()


def skipped(config: pytest.Config) -> list[tuple[str, str]]:
    """The node and the reason of all that a run has skipped."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    reports = reporter.stats.get("skipped", []) if reporter else []
    return [(report.nodeid, report.longrepr[2].removeprefix("Skipped: ")) for report in reports]


def ran(config: pytest.Config) -> list[str]:
    """The nodes of all that a run has not skipped."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    stats = reporter.stats if reporter else {}
    return [report.nodeid for how in ("passed", "failed", "error") for report in stats.get(how, ())]


def pytest_sessionfinish(session: pytest.Session) -> None:
    found = skipped(session.config)
    if not hasattr(session.config, "workerinput"):
        option = session.config.option
        for path, nodes in ((option.skipped_to, [node for node, _ in found]), (option.ran_to, ran(session.config))):
            if path:
                Path(path).write_text("".join(f"{node}\n" for node in nodes))
    lacking = [reason for _, reason in found if reason not in map(needs.reason, needs.MACHINE)]
    if session.config.option.all_there and lacking and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    if found := Counter(reason for _, reason in skipped(config)):
        terminalreporter.section(f"{found.total():,} tests were skipped")
        for reason, number in found.most_common():
            what, _, how = reason.removeprefix("needs ").partition(": ")
            terminalreporter.write_line(f"{number:6,} for want of {what} (to get it: {how})")


def campaign(whole: int) -> int:
    """How much of a campaign to run: one in twenty, or all of it where DASHSEEK_CAMPAIGN is 1 (`.ci/run campaign`)."""
    return whole if WHOLE else -(-whole // SAMPLE)


class StartSimulator(Protocol):
    """`upstream = await simulator(Script(gap_s=0.01))`."""

    def __call__(self, script: Script | Callable[[Json], Script] | None = None) -> Awaitable[Simulator]: ...


class StartServe(Protocol):
    """`front = await serve(upstream.url, "--auth", "none", env={"DASHSEEK_IDLE_TIMEOUT": "1"})`."""

    def __call__(self, upstream: str, *flags: str, env: Mapping[str, str] | None = None) -> Awaitable[Served]: ...


class Served:
    """A running `dashseek serve`: its process, and its base URL once it is ready."""

    def __init__(
        self, flags: tuple[str, ...], env: Mapping[str, str], directory: Path, *, own_interpreter: bool = False
    ) -> None:
        # The settings of whoever runs the tests are not the settings under test.
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("DASHSEEK_")}
        given = {**inherited, **LOOP, "PYTHONPATH": str(ROOT), **env}
        self.process: subprocess.Popen[str] | Forked
        # What is no setting of ours may be read by Python itself, or while modules are imported.
        if own_interpreter or not all(name.startswith(READ_BY_SERVE) for name in env):
            self.process = subprocess.Popen(
                [sys.executable, "-m", "proxy", "serve", *flags],
                cwd=directory,
                env=given,
                # As a shell does for a job: a test may send what a terminal sends to all of it.
                process_group=0,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                encoding="utf-8",
            )
        else:
            self.process = forks().start(("serve", *flags), given, directory)
        self.url = ""
        self._lines: list[str] = []
        self._ready_or_dead = threading.Event()
        self._admin_known = threading.Event()
        # Read all along: a full pipe would stop the process.
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def output(self) -> str:
        """What it has written so far, standard output and standard error in one."""
        return "".join(self._lines)

    @property
    def admin_url(self) -> str:
        """The base URL of its admin port, which it says in its log."""
        # The log is written beside the line that scripts wait for, and may come after it.
        assert self._admin_known.wait(READY_TIMEOUT_S), self.output
        found = ADMIN.search(self.output)
        assert found, self.output
        return found[1]

    def wait_until_ready(self) -> None:
        """Return once it serves; AssertionError with its output where it ended instead."""
        assert self._ready_or_dead.wait(READY_TIMEOUT_S), f"not ready after {READY_TIMEOUT_S:g} s:\n{self.output}"
        assert self.url, f"ended before it was ready:\n{self.output}"

    def end(self) -> int:
        """SIGTERM, and SIGKILL where that does not end it in time; the exit code."""
        if self.process.poll() is None:
            self.process.terminate()
        try:
            self.process.wait(END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._reader.join()
        return self.process.returncode

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as stdout:
            for line in stdout:
                self._lines.append(line)
                if ADMIN.search(line):
                    self._admin_known.set()
                if not self.url and (found := READY.search(line)):
                    self.url = found[1]
                    self._ready_or_dead.set()
        self._ready_or_dead.set()
        self._admin_known.set()


@pytest.fixture(scope="session")
def vocabulary() -> tokens.Vocabulary:
    """The real one, loaded once."""
    return proxy.vocabulary.load()


@pytest.fixture
async def simulator(vocabulary: tokens.Vocabulary) -> AsyncIterator[StartSimulator]:
    """Starts upstreams in the test's own loop, which counts by the real vocabulary; they end with the test."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(script: Script | Callable[[Json], Script] | None = None) -> Simulator:
            return await stack.enter_async_context(Simulator(script, vocabulary=vocabulary))

        yield start


@pytest.fixture
async def serve(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[StartServe]:
    """Starts the real thing before an upstream, on a free port, in an empty directory; it ends with the test."""
    with contextlib.ExitStack() as stack:
        own_interpreter = request.node.get_closest_marker("own_interpreter") is not None

        async def start(upstream: str, *flags: str, env: Mapping[str, str] | None = None) -> Served:
            # Without one where a file of settings has pools.
            before = ("--upstream", upstream) if upstream else ()
            served = Served((*before, "--port", "0", *flags), env or {}, tmp_path, own_interpreter=own_interpreter)
            stack.callback(served.end)
            # In a thread: the upstream may live in this loop.
            await asyncio.to_thread(served.wait_until_ready)
            return served

        yield start
