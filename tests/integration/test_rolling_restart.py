"""Two processes behind nginx or HAProxy, one restarted after the other under load: nobody notices (spec OPS-2)."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from proxy.simulation.simulator import Simulator
from proxy.simulation.wire import Json, Script
from tests import caller, needs
from tests.conftest import Served
from tests.integration import ingress
from translators import tokens

WORDS = "one two three four five six seven eight nine ten"
CALLERS = 12
CALL = caller.call("Tell me everything.", incremental_output=True)
# HAProxy asks every second whether a process is ready, and nginx asks nobody.
DRAINS = {"nginx": 0, "haproxy": 3}
# Until a process that is back gets calls again: nginx tries it after `fail_timeout` (1 s), HAProxy asks every second.
BACK_S = 2.5


class Load:
    """Callers who call again as soon as they have their answer: one half long streams, the other short replies."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._enough = asyncio.Event()
        self.wrong: list[str] = []
        self.right = 0

    async def run(self) -> None:
        await asyncio.gather(*(self._caller(number) for number in range(CALLERS)))

    def end(self) -> None:
        self._enough.set()

    async def _caller(self, number: int) -> None:
        streams = number % 2 == 1
        while not self._enough.is_set():
            try:
                answer = await (caller.stream if streams else caller.ask)(self._url, CALL)
            except (OSError, EOFError) as error:
                self.wrong.append(repr(error))
                continue
            if answer.status != 200 or (streams and caller.text(answer.body) != WORDS):
                self.wrong.append(f"{answer.line} {answer.body[-200:]!r}")
            else:
                self.right += 1


def answers(body: Json) -> Script:
    """Streams for the drain to wait for; and many replies, so that one of them is always about to connect."""
    return Script(text=WORDS, gap_s=0.05 if body.get("stream") else 0)


@pytest.mark.parametrize("program", [pytest.param(name, marks=needs.programs(name)) for name in DRAINS])
async def test_a_rolling_restart_loses_no_call_and_cuts_no_stream(
    program: str, vocabulary: tokens.Vocabulary, tmp_path: Path
) -> None:
    kind = ingress.KINDS[program]
    ports = ingress.free_ports()
    pairs = [(ports["8080"], ports["8081"]), (ports["8082"], ports["8083"])]
    flags = ("--drain-delay", str(DRAINS[program]), "--drain-timeout", "30")
    async with Simulator(answers, vocabulary=vocabulary) as upstream:

        async def started(number: int) -> Served:
            return await asyncio.to_thread(ingress.served, upstream.url, *pairs[number], tmp_path, *flags)

        processes = [await started(0), await started(1)]
        try:
            async with ingress.running(kind, ports, tmp_path) as url:
                load = Load(url)
                calling = asyncio.create_task(load.run())
                await asyncio.sleep(BACK_S)
                for number, old in enumerate(processes):
                    old.process.terminate()
                    assert await asyncio.to_thread(old.process.wait, 20) == 0
                    processes[number] = await started(number)
                    await asyncio.sleep(BACK_S)
                load.end()
                await calling
                assert load.wrong == []
                # Every one of the four had a share, so there was something to lose.
                assert all('"event":"call"' in process.output for process in processes)
        finally:
            for process in processes:
                process.process.kill()
                await asyncio.to_thread(process.end)
    assert load.right > 100
