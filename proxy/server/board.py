"""The state of each worker: its heartbeat in shared memory, its readiness and figures for the admin process (OPS-1)."""

from __future__ import annotations

import asyncio
import mmap
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypedDict

import orjson

from proxy.telemetry import series
from proxy.telemetry.series import Reading
from proxy.upstream.report import TargetReport

# A worker answers the admin process from its event loop: one that takes longer is not fit to serve either.
ASK_S: Final = 1.0


# So often each child notes that its event loop turns; one that has not for so long hangs, and is killed and replaced.
BEAT_EVERY_S: Final = 1.0
SILENT_S: Final = 10.0


class Heartbeats:
    """When the event loop of each child last turned, by the machine's monotonic clock; in memory that all share.

    A child that was killed because it hung keeps its last beat until its successor's first: it is said as long.
    """

    def __init__(self, children: int) -> None:
        self._at_s = memoryview(mmap.mmap(-1, 8 * children)).cast("d")

    def beat(self, number: int) -> None:
        """Note the time: this child's event loop runs."""
        self._at_s[number] = time.monotonic()

    def forget(self, number: int) -> None:
        """Clear this child's time: it does not serve, and is not taken to hang."""
        self._at_s[number] = 0.0

    def last_s(self, number: int) -> float:
        """When this child's loop last turned; 0 for one that does not serve."""
        return self._at_s[number]

    def hangs(self, number: int) -> bool:
        """Whether a child that serves has not turned for too long."""
        last_s = self._at_s[number]
        return bool(last_s) and time.monotonic() - last_s > SILENT_S


class WorkerReport(TypedDict):
    """What a worker says of itself.

    process: its id, which tells it from the one that had its number before
    reasons: why it is not ready; none if it is
    reading: everything it has measured, as `series.Reading` but for the labels, which are no keys in JSON
    targets: how they stand there, each a `TargetReport` as a list
    """

    process: int
    reasons: list[str]
    reading: dict[str, list[tuple[list[str], list[float]]]]
    targets: list[list[Any]]


@asynccontextmanager
async def serve_report(path: Path, report: Callable[[], WorkerReport]) -> AsyncIterator[None]:
    """Answer the admin process at this path, as long as the context lives."""

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(orjson.dumps(report()))
        writer.close()

    # It takes the place of the socket of one that died here.
    async with await asyncio.start_unix_server(answer, path):
        yield


@dataclass(frozen=True, slots=True)
class WorkerReports:
    """The reports of the workers, asked for anew each time.

    What only grows must not shrink with a worker that is gone: whoever scrapes a smaller sum takes it for counted anew
    from zero, and counts what is left of it twice.

    sockets:    where each of them answers
    heartbeats: whether it does
    growing:    names of what only grows
    """

    sockets: Mapping[int, Path]
    heartbeats: Heartbeats
    growing: frozenset[str]
    _latest: dict[int, WorkerReport] = field(default_factory=dict)
    _gone: Reading = field(default_factory=dict)

    async def reasons(self) -> list[str]:
        """Why a call would not be served: nobody serves, or somebody who gets calls would refuse it or let it hang."""
        hanging = [number for number in self.sockets if self.heartbeats.hangs(number)]
        asked = [path for number, path in self.sockets.items() if number not in hanging]
        reports = [report for report in await asyncio.gather(*map(_ask, asked)) if report is not None]
        found = dict.fromkeys(f"worker {number} does not answer" for number in hanging)
        found |= {reason: None for report in reports for reason in report["reasons"]}
        return [*found] if reports else [*found, "no worker serves"]

    @property
    def inspected(self) -> None:
        """No calls are kept where several processes serve."""

    async def readings(self) -> list[Reading]:
        """The metrics of each worker, those of ended ones included."""
        return [*await asyncio.gather(*map(self._reading, self.sockets)), self._gone]

    async def targets(self) -> list[TargetReport]:
        """How each target stands, in each worker that answers."""
        asked = [path for number, path in self.sockets.items() if not self.heartbeats.hangs(number)]
        reports = await asyncio.gather(*map(_ask, asked))
        return [TargetReport(*row) for report in reports if report is not None for row in report["targets"]]

    async def _reading(self, number: int) -> Reading:
        report = None if self.heartbeats.hangs(number) else await _ask(self.sockets[number])
        before = self._latest.get(number)
        if report is None:
            return self._grown(before) if before is not None else {}
        if before is not None and before["process"] != report["process"]:
            series.add_to(self._gone, self._grown(before))
        self._latest[number] = report
        return _received(report)

    def _grown(self, report: WorkerReport) -> Reading:
        return {name: series for name, series in _received(report).items() if name in self.growing}


def sent(reading: Reading) -> dict[str, list[tuple[list[str], list[float]]]]:
    """A reading in the form of `WorkerReport`."""
    return {name: [([*labels], values) for labels, values in series.items()] for name, series in reading.items()}


def _received(report: WorkerReport) -> Reading:
    return {name: {tuple(labels): values for labels, values in series} for name, series in report["reading"].items()}


async def _ask(path: Path) -> WorkerReport | None:
    """The report of one worker; None where none is there or none answers."""
    try:
        async with asyncio.timeout(ASK_S):
            reader, writer = await asyncio.open_unix_connection(path)
            try:
                report: WorkerReport = orjson.loads(await reader.read())
            finally:
                writer.close()
    except (OSError, TimeoutError, orjson.JSONDecodeError):
        return None
    return report
