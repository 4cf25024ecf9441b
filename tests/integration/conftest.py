"""The real `dashseek serve` as a process before an upstream in the test's loop, both started once for a module."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

import pytest
import pytest_asyncio

from proxy.simulation.simulator import Simulator
from proxy.simulation.wire import Script
from tests.conftest import Served
from translators import tokens


@dataclass(frozen=True, slots=True)
class Pair:
    """A process and its upstream."""

    upstream: Simulator
    served: Served

    @property
    def url(self) -> str:
        """The base URL of the process."""
        return self.served.url

    def next(self, *scripts: Script) -> int:
        """Let the next calls be answered so; the number of the first of them, for `upstream.call`."""
        assert not self.upstream.scripts
        self.upstream.scripts.extend(scripts)
        return len(self.upstream.calls) + 1


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pair(
    request: pytest.FixtureRequest, vocabulary: tokens.Vocabulary, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Pair]:
    """Starts both with the module's `FLAGS`; tests that use it run in the module's loop (`pytestmark`)."""
    flags: tuple[str, ...] = getattr(request.module, "FLAGS", ())
    async with Simulator(vocabulary=vocabulary) as upstream:
        directory = tmp_path_factory.mktemp("serve")
        served = Served(("--upstream", upstream.url, "--port", "0", *flags), {}, directory)
        try:
            # In a thread: the upstream lives in this loop.
            await asyncio.to_thread(served.wait_until_ready)
            yield Pair(upstream, served)
        finally:
            await asyncio.to_thread(served.end)


@pytest.fixture(autouse=True)
def nothing_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """What a test that failed has left for the upstream to say is not said to the next one."""
    yield
    if isinstance(pair := request.node.funcargs.get("pair"), Pair):
        pair.upstream.scripts.clear()
