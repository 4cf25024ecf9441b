"""Claims about a configuration that is read anew while calls go through: swapped whole, or not at all."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pickle
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import structlog

from config.values import toml
from proxy.commands import check
from proxy.server import reloading
from proxy.server.reloading import Reloader, Snapshot, Source
from proxy.simulation.wire import Script
from proxy.upstream import report
from tests import caller
from tests.conftest import StartSimulator
from tests.proxy.conftest import Running, StartGateway

CALL = caller.call("one two three four five six seven eight", incremental_output=True)


def write(path: Path, url: str, name: str = "p", **said: object) -> None:
    text = "".join(
        f"{key} = {toml(value)}\n" for key, value in {**said, "pools": [{"name": name, "urls": [url]}]}.items()
    )
    path.with_suffix(".next").write_text(text)
    path.with_suffix(".next").rename(path)


@contextlib.asynccontextmanager
async def following(front: Running, path: Path) -> AsyncIterator[Reloader]:
    source = Source(lambda: check.read({"port": 0}, str(path), os.environ), str(path), snapshot(path))
    reloader = Reloader(front.house, source)
    task = asyncio.create_task(reloader.serve())
    try:
        yield reloader
    finally:
        task.cancel()


def snapshot(path: Path) -> Snapshot:
    return Snapshot(*check.read({"port": 0}, str(path), {}))


async def until(front: Running, name: str, before: float) -> None:
    async with asyncio.timeout(10):
        while getattr(front.house.latest, name) == before:  # noqa: ASYNC110 - nobody is told
            await asyncio.sleep(0.01)


async def asked(front: Running) -> str:
    """The pool that a call went to."""
    number = len(front.ended) + 1
    assert (await caller.stream(front.url, CALL)).status == 200
    record, _ = await front.end_of(number)
    return record.closing["attempts"][-1]["pool"]


async def test_an_open_call_ends_as_it_began_and_the_next_one_goes_elsewhere(
    simulator: StartSimulator, gateway_before: StartGateway, tmp_path: Path
) -> None:
    path = tmp_path / "c.toml"
    old, new = await simulator(Script(gap_s=0.05)), await simulator()
    write(path, old.url, "old")
    front = await gateway_before(config=path)
    async with following(front, path) as reloader:
        streaming = asyncio.create_task(caller.stream(front.url, CALL))
        await old.call(1)
        write(path, new.url, "new", idle_timeout=7)
        reloader.ask()
        await until(front, "reloaded_at_s", 0.0)
        assert await asked(front) == "new"
        answer = await streaming
        assert answer.status == 200
        assert caller.text(answer.body).endswith("eight")
        await front.end_of(2)
    pools = {record.closing["attempts"][-1]["pool"] for record, _ in front.ended}
    assert pools == {"old", "new"}
    assert front.house.latest.gateway.settings.idle_timeout == 7
    assert [look.in_flight for look in report.targets(front.house.latest.gateway.upstreams)] == [0]


async def test_what_is_wrong_leaves_all_as_it_was_and_is_said_in_one_line(
    simulator: StartSimulator, gateway_before: StartGateway, tmp_path: Path
) -> None:
    path = tmp_path / "c.toml"
    upstream = await simulator()
    write(path, upstream.url)
    front = await gateway_before(config=path)
    with structlog.testing.capture_logs() as lines:
        async with following(front, path) as reloader:
            write(path, upstream.url, "q", idle_timeout=-1, wait=2)
            reloader.ask()
            await until(front, "refused_at_s", 0.0)
            assert await asked(front) == "p"
    (line,) = [line for line in lines if line["event"] == "reload_refused"]
    assert [reason.split(" ")[0] for reason in line["reason"]] == ["wait", "idle_timeout"]


def renamed(path: Path, *said: object, **settings: object) -> None:
    """As an editor writes it, or a tool for deployments."""
    write(path, *said, **settings)  # type: ignore[arg-type]


def in_place(path: Path, *said: object, **settings: object) -> None:
    """As a shell does: it is empty for a moment, and then half there."""
    write(path.with_suffix(".whole"), *said, **settings)  # type: ignore[arg-type]
    text = path.with_suffix(".whole").read_text()
    with path.open("w") as file:
        file.write(text[: len(text) // 2])
        file.flush()
        file.write(text[len(text) // 2 :])


def mounted(path: Path, *said: object, **settings: object) -> None:
    """As Kubernetes mounts a ConfigMap: a link into a directory that is a link, and the second one is replaced."""
    version = path.parent / f"..{len([*path.parent.iterdir()])}"
    version.mkdir()
    write(version / path.name, *said, **settings)  # type: ignore[arg-type]
    (path.parent / "..data_tmp").symlink_to(version.name)
    (path.parent / "..data_tmp").rename(path.parent / "..data")
    if not path.is_symlink():
        path.symlink_to(f"..data/{path.name}")


@pytest.mark.parametrize("replace", [renamed, in_place, mounted])
async def test_a_file_that_changes_is_followed_where_that_is_asked_for(
    simulator: StartSimulator,
    gateway_before: StartGateway,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    replace: Callable[..., None],
) -> None:
    monkeypatch.setattr(reloading, "LOOK_EVERY_S", 0.02)
    path = tmp_path / "c.toml"
    upstream = await simulator()
    replace(path, upstream.url, reload="watch")
    front = await gateway_before(config=path)
    async with following(front, path):
        for name in "qr":
            before = front.house.latest.reloaded_at_s
            replace(path, upstream.url, name, reload="watch")
            await until(front, "reloaded_at_s", before)
            assert await asked(front) == name


async def test_a_file_that_is_away_leaves_all_as_it_was_and_is_followed_when_it_is_back(
    simulator: StartSimulator, gateway_before: StartGateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reloading, "LOOK_EVERY_S", 0.02)
    path = tmp_path / "c.toml"
    upstream = await simulator()
    write(path, upstream.url, reload="watch")
    front = await gateway_before(config=path)
    with structlog.testing.capture_logs() as lines:
        async with following(front, path):
            path.unlink()
            await until(front, "refused_at_s", 0.0)
            assert await asked(front) == "p"
            write(path, upstream.url, "q", reload="watch")
            await until(front, "reloaded_at_s", 0.0)
            assert await asked(front) == "q"
    assert [line["event"] for line in lines if line["event"].startswith("reload")] == ["reload_refused", "reloaded"]


@pytest.mark.parametrize(("reload", "followed"), [("signal", False), ("watch", True)])
def test_files_are_looked_at_where_they_are_to_be_watched(tmp_path: Path, reload: str, followed: bool) -> None:
    path = tmp_path / "c.toml"
    write(path, "http://127.0.0.1:1", reload=reload)
    source = Source(lambda: check.read({"port": 0}, str(path), {}), str(path), snapshot(path))
    assert not source.has_changed()
    write(path, "http://127.0.0.1:1", "q", reload=reload)
    assert source.has_changed() is followed
    judged = source.judged()
    assert ([pool.name for pool in judged.settings.pools], source.has_changed()) == (["q"], False)


async def test_a_target_that_is_still_there_stands_as_it_stood_and_what_is_gone_is_forgotten(
    gateway_before: StartGateway, tmp_path: Path
) -> None:
    path = tmp_path / "c.toml"
    write(path, "http://127.0.0.1:1")
    front = await gateway_before(config=path)
    lease = front.house.upstreams.lease("deepseek-v3")
    async with following(front, path) as reloader:
        for number in range(3):
            before = front.house.latest.reloaded_at_s
            write(path, "http://127.0.0.1:1", heartbeat=3 + number)
            reloader.ask()
            await until(front, "reloaded_at_s", before)
        (look,) = report.targets(front.house.latest.gateway.upstreams)
        assert look.in_flight == 1
        lease.release()
        before = front.house.latest.reloaded_at_s
        write(path, "http://127.0.0.1:2")
        reloader.ask()
        await until(front, "reloaded_at_s", before)
    assert [*front.house.upstreams.standings] == [("p", "http://127.0.0.1:2")]


class Trickle:
    """A socket on which little comes at once, and then nothing more."""

    def __init__(self, wire: bytes) -> None:
        self.wire = wire
        self.is_over = False

    def recv(self, most: int) -> bytes:
        assert not self.is_over
        self.is_over = not self.wire
        found, self.wire = self.wire[: min(most, 2)], self.wire[min(most, 2) :]
        return found


@pytest.mark.parametrize(("length", "found"), [(0, b""), (1, b"a"), (5, b"abcde"), (7, b"abcdefg")])
def test_of_what_comes_in_pieces_so_many_bytes_are_taken_and_no_more(length: int, found: bytes) -> None:
    trickle = Trickle(b"abcdefg")
    assert (reloading._exactly(trickle, length), trickle.wire) == (found, b"abcdefg"[length:])  # type: ignore[arg-type]
    with pytest.raises(EOFError):
        reloading._exactly(trickle, 8 - length)  # type: ignore[arg-type]


class TestSeveralWorkers:
    """All of them take a configuration, or none."""

    @pytest.fixture
    async def workers(
        self, gateway_before: StartGateway, tmp_path: Path
    ) -> AsyncIterator[tuple[list[socket.socket], list[Running], Path]]:
        path = tmp_path / "c.toml"
        write(path, "http://127.0.0.1:1", "old")
        fronts = [await gateway_before(config=path) for _ in range(2)]
        pairs = [socket.socketpair() for _ in fronts]
        tasks = [
            asyncio.create_task(reloading.follow(theirs, front.house, 1))
            for (_, theirs), front in zip(pairs, fronts, strict=True)
        ]
        yield [ours for ours, _ in pairs], fronts, path
        for ours, _ in pairs:
            ours.close()
        await asyncio.gather(*tasks)

    async def test_all_take_it(self, workers: Any) -> None:
        controls, fronts, path = workers
        write(path, "http://127.0.0.1:1", "new")
        assert await asyncio.to_thread(reloading.offered, controls, snapshot(path)) == []
        assert [front.house.latest.gateway.settings.pools[0].name for front in fronts] == ["new", "new"]

    async def test_each_says_that_it_can_and_that_it_has(self, workers: Any) -> None:
        """The first process waits for both, and serves no signal meanwhile."""
        (control, _), _, path = workers

        def talk() -> list[bytes]:
            control.settimeout(30)
            reloading._send(control, reloading.Kind.OFFER, 99, pickle.dumps(snapshot(path)))
            can = reloading._answer(control, 99)
            reloading._send(control, reloading.Kind.GO, 99)
            return [can, reloading._answer(control, 99)]

        assert await asyncio.to_thread(talk) == [b"[]", b""]

    async def test_what_was_not_offered_or_was_taken_is_not_taken(self, workers: Any) -> None:
        controls, fronts, path = workers
        for name in ("new", "newer"):
            before = fronts[0].house.latest.refused_at_s
            reloading._send(controls[0], reloading.Kind.GO, 7)
            await until(fronts[0], "refused_at_s", before)
            write(path, "http://127.0.0.1:1", name)
            assert await asyncio.to_thread(reloading.offered, controls, snapshot(path)) == []
            assert [front.house.latest.gateway.settings.pools[0].name for front in fronts] == [name] * 2
            assert min(front.house.latest.reloaded_at_s for front in fronts) > before
        before = [front.house.latest.refused_at_s for front in fronts]
        reloading.tell_refused(controls)
        for front, at_s in zip(fronts, before, strict=True):
            await until(front, "refused_at_s", at_s)

    async def test_none_does_where_one_is_gone(self, workers: Any) -> None:
        controls, fronts, path = workers
        gone, other = socket.socketpair()
        other.close()
        write(path, "http://127.0.0.1:1", "new")
        reasons = await asyncio.to_thread(reloading.offered, [*controls, gone], snapshot(path))
        gone.close()
        assert reasons == ["a worker does not follow; it may be about to be replaced"]
        for front in fronts:
            await until(front, "refused_at_s", 0.0)
            assert front.house.latest.gateway.settings.pools[0].name == "old"

    async def test_none_does_where_one_cannot(self, workers: Any, tmp_path: Path) -> None:
        controls, fronts, path = workers
        keys = tmp_path / "keys.toml"
        keys.write_text("")
        write(path, "http://127.0.0.1:1", "new", keys_file=str(keys))
        offer = snapshot(path)
        keys.unlink()
        reasons = await asyncio.to_thread(reloading.offered, controls, offer)
        assert "cannot be read" in reasons[0]
        for front in fronts:
            await until(front, "refused_at_s", 0.0)
            assert front.house.latest.gateway.settings.pools[0].name == "old"

    async def test_none_does_where_one_does_not_answer(self, workers: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        controls, fronts, path = workers
        monkeypatch.setattr(reloading, "WORKER_S", 0.1)
        deaf, other = socket.socketpair()
        write(path, "http://127.0.0.1:1", "new")
        reasons = await asyncio.to_thread(reloading.offered, [*controls, deaf], snapshot(path))
        deaf.close()
        other.close()
        assert reasons == ["a worker does not follow; it may be about to be replaced"]
        assert [front.house.latest.gateway.settings.pools[0].name for front in fronts] == ["old", "old"]
        # What comes after it is understood.
        assert await asyncio.to_thread(reloading.offered, controls, snapshot(path)) == []
        assert [front.house.latest.gateway.settings.pools[0].name for front in fronts] == ["new", "new"]
