"""Claims about what the admin process hears of workers, over real sockets, also those of the unwell."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import orjson
import pytest

from proxy.server import board
from proxy.server.board import Heartbeats, WorkerReport, WorkerReports

WELL: WorkerReport = {
    "process": 7,
    "reasons": [],
    "reading": {"calls": [(["ok"], [3.0])], "open": [([], [2.0])]},
    "targets": [["p", "http://a", "well", 2, 4, None, None, 0.5, 10]],
}


@contextlib.asynccontextmanager
async def answering(path: Path, wire: bytes) -> AsyncIterator[None]:
    """A worker that says just this and then is gone."""

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(wire)
        writer.close()

    async with await asyncio.start_unix_server(answer, path):
        yield


def reports(tmp_path: Path, workers: int = 2) -> WorkerReports:
    paths = {number: tmp_path / str(number) for number in range(1, workers + 1)}
    return WorkerReports(paths, Heartbeats(workers + 1), frozenset({"calls"}))


async def test_a_worker_that_serves_says_so_and_what_it_has_measured(tmp_path: Path) -> None:
    asked = reports(tmp_path, 1)
    async with board.serve_report(asked.sockets[1], lambda: {**WELL, "reasons": ["draining"]}):
        assert await asked.reasons() == ["draining"]
        assert await asked.readings() == [{"calls": {("ok",): [3.0]}, "open": {(): [2.0]}}, {}]


async def test_how_targets_stand_is_heard_of_each_worker(tmp_path: Path) -> None:
    asked = reports(tmp_path)
    async with board.serve_report(asked.sockets[1], lambda: WELL):
        (look,) = await asked.targets()
    assert (look.target, look.state, look.in_flight) == ("http://a", "well", 2)


async def test_a_report_takes_the_place_of_one_that_died_and_is_sent_whole_however_long_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(board, "ASK_S", 60.0)
    asked = reports(tmp_path, 1)
    with socket.socket(socket.AF_UNIX) as died:
        died.bind(str(asked.sockets[1]))
    long = [f"reason {number}" for number in range(50_000)]
    async with board.serve_report(asked.sockets[1], lambda: {**WELL, "reasons": long}):
        assert await asked.reasons() == long


async def test_who_has_heard_a_report_hangs_up(tmp_path: Path) -> None:
    hung_up = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(orjson.dumps(WELL))
        writer.write_eof()
        assert await reader.read() == b""
        hung_up.set()
        writer.close()

    asked = reports(tmp_path, 1)
    async with await asyncio.start_unix_server(answer, asked.sockets[1]):
        assert await asked.reasons() == []
        async with asyncio.timeout(10):
            await hung_up.wait()


@pytest.mark.parametrize("wire", [b"", b"{", orjson.dumps(WELL)[:-9], b"\xff"], ids=["none", "one byte", "half", "bad"])
async def test_half_an_answer_is_none(tmp_path: Path, wire: bytes) -> None:
    """Of a worker that dies while it answers; what it had counted before is counted on."""
    asked = reports(tmp_path)
    async with board.serve_report(asked.sockets[1], lambda: WELL):
        async with board.serve_report(asked.sockets[2], lambda: WELL):
            await asked.readings()
        async with answering(asked.sockets[2], wire):
            assert await asked.reasons() == []
            _, half, _ = await asked.readings()
            assert half == {"calls": {("ok",): [3.0]}}


async def test_where_nobody_answers_nobody_serves(tmp_path: Path) -> None:
    asked = reports(tmp_path)
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(asked.sockets[1]))
        silent.listen()
        assert await asked.reasons() == ["no worker serves"]


async def test_who_has_not_turned_for_ten_seconds_is_said_and_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is not there is no reason: the kernel gives it no callers."""
    assert board.SILENT_S == 10
    asked = reports(tmp_path, 3)
    asked.heartbeats.beat(2)
    async with board.serve_report(asked.sockets[1], lambda: WELL):
        assert await asked.reasons() == []
        monkeypatch.setattr(board, "SILENT_S", -1.0)
        with socket.socket(socket.AF_UNIX) as silent:
            silent.bind(str(asked.sockets[2]))
            silent.listen()
            async with asyncio.timeout(board.ASK_S / 2):
                assert await asked.reasons() == ["worker 2 does not answer"]
                await asked.readings()
        asked.heartbeats.forget(2)
        assert await asked.reasons() == []


def test_who_turns_hangs_when_it_has_not_for_longer_and_who_does_not_serve_never(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    beats, clock = Heartbeats(2), {"s": 100.0}
    monkeypatch.setattr(board.time, "monotonic", lambda: clock["s"])
    assert (beats.last_s(1), beats.hangs(1)) == (0.0, False)
    beats.beat(1)
    for later_s, hangs in ((0.0, False), (board.SILENT_S, False), (board.SILENT_S + 0.5, True)):
        clock["s"] = 100.0 + later_s
        assert (beats.last_s(1), beats.hangs(1), beats.hangs(0)) == (100.0, hangs, False)
    beats.beat(1)
    assert not beats.hangs(1)
    clock["s"] += 100.0
    beats.forget(1)
    assert (beats.last_s(1), beats.hangs(1)) == (0.0, False)


async def test_what_a_worker_has_counted_is_counted_on_when_another_has_its_number(tmp_path: Path) -> None:
    """Once each, however often it is asked for; what does not only grow goes with it."""
    asked = reports(tmp_path, 1)
    said = dict(WELL)
    async with board.serve_report(asked.sockets[1], lambda: said):  # type: ignore[arg-type,return-value]
        for process, gone in ((7, None), (7, None), (8, 3.0), (8, 3.0), (9, 6.0)):
            said["process"] = process
            now, before = await asked.readings()
            assert now == {"calls": {("ok",): [3.0]}, "open": {(): [2.0]}}
            assert before == ({} if gone is None else {"calls": {("ok",): [gone]}})
    assert await asked.readings() == [{"calls": {("ok",): [3.0]}}, {"calls": {("ok",): [6.0]}}]


async def test_who_hangs_is_not_asked_how_targets_stand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = reports(tmp_path)
    async with board.serve_report(asked.sockets[1], lambda: WELL), board.serve_report(asked.sockets[2], lambda: WELL):
        assert len(await asked.targets()) == 2
        assert await asked.reasons() == []
        asked.heartbeats.beat(2)
        monkeypatch.setattr(board, "SILENT_S", -1.0)
        assert len(await asked.targets()) == 1
        assert await asked.reasons() == ["worker 2 does not answer"]


def test_a_reading_is_the_same_after_its_way_as_json() -> None:
    reading = {"calls": {("ok", "a"): [3.0, 1.0]}, "open": {(): [2.0]}}
    assert board._received({**WELL, "reading": orjson.loads(orjson.dumps(board.sent(reading)))}) == reading
