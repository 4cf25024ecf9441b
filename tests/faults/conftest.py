"""The real `dashseek serve` before a scriptable upstream, and what must be true of both once a fault is over."""

from __future__ import annotations

import asyncio
import contextlib
import os
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import orjson
import pytest
import pytest_asyncio

from proxy.simulation.simulator import Simulator
from proxy.simulation.wire import Script
from proxy.telemetry.log_writer import GATHER_S
from tests import caller
from tests.conftest import Served
from tests.stopwatch import Stopwatch
from translators import tokens

LOGGED_S = 2.0
FREED_S = 1.0
# An idle connection to the upstream is one that is kept, not one that is leaked: here they are kept for a moment only.
FLAGS = ("--upstream-keepalive-timeout", "0.2")
CALL = caller.call("Tell me everything.", incremental_output=True)


@dataclass(slots=True)
class Stand:
    """A process and its upstream.

    idle_fds: files the process had open before its first call
    """

    upstream: Simulator
    served: Served
    idle_fds: int = 0

    @property
    def url(self) -> str:
        """The base URL of the process."""
        return self.served.url

    @property
    def fds(self) -> int:
        """Files the process has open."""
        return len(os.listdir(f"/proc/{self.served.process.pid}/fd"))

    @property
    def rss_bytes(self) -> int:
        """Memory the process has in use."""
        pages = Path(f"/proc/{self.served.process.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    def watch(self) -> Stopwatch:
        """Runs from now on, as long as the process and this one have a core."""
        return Stopwatch(self.served.process.pid)

    @property
    def lines(self) -> list[dict[str, Any]]:
        """The log."""
        return [orjson.loads(line) for line in self.served.output.splitlines() if line.startswith("{")]

    async def gauges(self) -> Mapping[str, float]:
        """The metrics."""
        admin = await asyncio.to_thread(lambda: self.served.admin_url)
        answer = await caller.ask(admin, b"", {"Connection": "close"}, path="/metrics", method="GET")
        samples = (line.rpartition(" ") for line in answer.body.decode().splitlines() if not line.startswith("#"))
        return {name: float(value) for name, _, value in samples}

    def next(self, *scripts: Script) -> int:
        """Let the next calls be answered so; the number of the first of them, for `upstream.call`."""
        assert not self.upstream.scripts
        self.upstream.scripts.extend(scripts)
        return len(self.upstream.calls) + 1

    @contextlib.asynccontextmanager
    async def frees(self, *outcomes: str) -> AsyncIterator[Mapping[str, str]]:
        """Headers for one call; when the block is over, all it took must be free within a second.

        outcomes: what the record of the call may say; none where no call is recorded
        """
        known_as = str(uuid.uuid4())
        yield {"X-Request-Id": known_as}
        await self.settled()
        # A line is gathered with others before it is written, and read here by a thread.
        watch, limit_s = self.watch(), LOGGED_S if outcomes else 2 * GATHER_S
        while not self._outcomes_of(known_as) and watch.lap_s() < limit_s:  # noqa: ASYNC110 - a process tells nobody
            await asyncio.sleep(0.01)
        named = self._outcomes_of(known_as)
        assert len(named) == bool(outcomes), named
        assert set(named) <= set(outcomes), named

    def _outcomes_of(self, request_id: str) -> list[str]:
        return [line["outcome"] for line in self.lines if line.get("request_id") == request_id and "outcome" in line]

    async def settled(self) -> None:
        """Wait until nothing is left of any call: at most a second."""
        watch = self.watch()
        while (self.upstream.open or self.fds > self.idle_fds) and watch.lap_s() < FREED_S:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        assert (self.upstream.open, self.fds) == (0, self.idle_fds)
        # What the process says is gathered, and read by a thread of its own.
        await asyncio.sleep(2 * GATHER_S)
        assert "raceback" not in self.served.output, self.served.output[-6000:]

    async def outcomes(self, number: int) -> list[str]:
        """Of all calls so far, once the log has told of this number."""
        async with asyncio.timeout(LOGGED_S):
            while True:
                found = [line["outcome"] for line in self.lines if line["event"] == "call"]
                if len(found) >= number:
                    return found
                await asyncio.sleep(GATHER_S)

    async def ask(self, body: caller.Json | bytes = CALL, headers: Mapping[str, str] = {}) -> caller.Answer:
        """One call for packets."""
        return await caller.stream(self.url, body, headers)

    async def reply(self, body: caller.Json | bytes = CALL, headers: Mapping[str, str] = {}) -> caller.Answer:
        """One call for a reply."""
        return await caller.ask(self.url, body, headers)


class Stage(Protocol):
    """`stand = await stage("--idle-timeout", "0.5", targets=[chaos.url], upstream=upstream)`."""

    async def __call__(
        self,
        *flags: str,
        upstream: Simulator | None = None,
        targets: tuple[str, ...] = (),
        env: Mapping[str, str] | None = None,
    ) -> Stand: ...


@contextlib.asynccontextmanager
async def standing(
    upstream: Simulator,
    targets: tuple[str, ...],
    flags: tuple[str, ...],
    env: Mapping[str, str],
    directory: Path,
    *,
    own_interpreter: bool = False,
) -> AsyncIterator[Stand]:
    """A process before these targets, or the upstream itself, as long as the context lives."""
    # A configuration says itself who is asked.
    places = () if "--config" in flags else targets or (upstream.url,)
    asked = [part for target in places for part in ("--upstream", target)]
    served = Served((*asked, "--port", "0", *FLAGS, *flags), env, directory, own_interpreter=own_interpreter)
    try:
        # In a thread: the upstream lives in this loop.
        await asyncio.to_thread(served.wait_until_ready)
        stand = Stand(upstream, served)
        # uvloop keeps a file of its own from its first connection on.
        await caller.ask(stand.url, b"", {"Connection": "close"}, path="/healthz", method="GET")
        while stand.idle_fds != stand.fds:
            stand.idle_fds = stand.fds
            await asyncio.sleep(0.05)
        yield stand
    finally:
        # How it ends when it is asked to is rows 61 to 63; here it is only to be gone.
        served.process.kill()
        await asyncio.to_thread(served.end)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stand(
    request: pytest.FixtureRequest, vocabulary: tokens.Vocabulary, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Stand]:
    """One process for a module, started with its `FLAGS`; tests that use it run in the module's loop (`pytestmark`)."""
    flags: tuple[str, ...] = getattr(request.module, "FLAGS", ())
    directory = tmp_path_factory.mktemp("serve")
    async with Simulator(vocabulary=vocabulary) as upstream, standing(upstream, (), flags, {}, directory) as stand:
        yield stand


@pytest.fixture(autouse=True)
def nothing_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """What a test that failed has left for the upstream to say is not said to the next one."""
    yield
    if isinstance(stand := request.node.funcargs.get("stand"), Stand):
        stand.upstream.scripts.clear()


@pytest_asyncio.fixture(loop_scope="module")
async def stage(vocabulary: tokens.Vocabulary, tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Stage]:
    """Starts processes for one test; without an upstream of the test's own they get one."""
    own_interpreter = request.node.get_closest_marker("own_interpreter") is not None
    async with contextlib.AsyncExitStack() as stack:

        async def start(
            *flags: str,
            upstream: Simulator | None = None,
            targets: tuple[str, ...] = (),
            env: Mapping[str, str] | None = None,
        ) -> Stand:
            if upstream is None:
                upstream = await stack.enter_async_context(Simulator(vocabulary=vocabulary))
            standing_there = standing(upstream, targets, flags, env or {}, tmp_path, own_interpreter=own_interpreter)
            return await stack.enter_async_context(standing_there)

        yield start


def frame(body: bytes) -> tuple[int, str]:
    """Status and code of the error frame that a stream ends with; an assertion that it is one."""
    head, _, data = body.removesuffix(b"\n\n").rpartition(b"\ndata:")
    *_, event, status = head.split(b"\n")
    assert event == b"event:error"
    assert list(orjson.loads(data)) == ["code", "message", "request_id"]
    return int(status.removeprefix(b":HTTP_STATUS/")), orjson.loads(data)["code"]
