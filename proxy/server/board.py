"""What each worker says of itself, asked by the admin process: is it ready, and all it has measured (spec OPS-1)."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypedDict

import orjson

from proxy.telemetry import series
from proxy.telemetry.series import Reading

# A worker answers the admin process from its event loop: one that takes longer is not fit to serve either.
ASK_S: Final = 1.0


class Report(TypedDict):
    """What a worker says of itself.

    process: its id, which tells it from the one that had its number before
    reasons: why it is not ready; none if it is
    reading: everything it has measured, as `series.Reading` but for the labels, which are no keys in JSON
    """

    process: int
    reasons: list[str]
    reading: dict[str, list[tuple[list[str], list[float]]]]


@asynccontextmanager
async def serve_report(path: Path, report: Callable[[], Report]) -> AsyncIterator[None]:
    """Answer the admin process at this path, as long as the context lives."""

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            writer.write(orjson.dumps(report()))
            await writer.drain()
        writer.close()

    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)  # of one that died here
    async with await asyncio.start_unix_server(answer, path):
        yield


@dataclass(frozen=True, slots=True)
class WorkerReports:
    """What the workers say of themselves, asked anew each time.

    What only grows must not shrink with a worker that is gone: whoever scrapes a smaller sum takes it for counted anew
    from zero, and counts what is left of it twice.

    sockets: where each of them answers
    growing: names of what only grows
    """

    sockets: Mapping[int, Path]
    growing: frozenset[str]
    _latest: dict[int, Report] = field(default_factory=dict)
    _gone: Reading = field(default_factory=dict)

    async def reasons(self) -> list[str]:
        """Why a call would not be served: nobody serves, or somebody who does would refuse it."""
        answers = await asyncio.gather(*map(_ask, self.sockets.values()))
        reports = [answer for answer in answers if answer is not None]
        found = {reason: None for report in reports for reason in report["reasons"]}
        return [*found] if reports else ["no worker serves"]

    async def readings(self) -> list[Reading]:
        """What each has measured, and what those had who are gone."""
        return [*await asyncio.gather(*map(self._reading, self.sockets)), self._gone]

    async def _reading(self, number: int) -> Reading:
        report = await _ask(self.sockets[number])
        before = self._latest.get(number)
        if report is None:
            return self._grown(before) if before is not None else {}
        if before is not None and before["process"] != report["process"]:
            series.add_to(self._gone, self._grown(before))
        self._latest[number] = report
        return _received(report)

    def _grown(self, report: Report) -> Reading:
        return {name: series for name, series in _received(report).items() if name in self.growing}


def sent(reading: Reading) -> dict[str, list[tuple[list[str], list[float]]]]:
    """A reading in the form of `Report`."""
    return {name: [([*labels], values) for labels, values in series.items()] for name, series in reading.items()}


def _received(report: Report) -> Reading:
    return {name: {tuple(labels): values for labels, values in series} for name, series in report["reading"].items()}


async def _ask(path: Path) -> Report | None:
    """What one worker says; None while there is none, or none that answers."""
    try:
        async with asyncio.timeout(ASK_S):
            reader, writer = await asyncio.open_unix_connection(path)
            try:
                report: Report = orjson.loads(await reader.read())
            finally:
                writer.close()
    except (OSError, TimeoutError, orjson.JSONDecodeError):
        return None
    return report
