"""Claims about the assembly: which path leads where, and that whatever happens to a call is told once."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import gc
import os
import resource
import select
import signal
import socket
import subprocess
import sys
import uuid
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import orjson
import pytest
import structlog
from multidict import CIMultiDict

from config import models, sources
from config.settings import Settings, SettingsError
from proxy import vocabulary
from proxy.downstream import paths, request_ids
from proxy.server import board, lifecycle, process, reloading, supervisor
from proxy.server.board import Heartbeats
from proxy.server.reloading import Snapshot, Source
from proxy.server.supervisor import Following, WorkerSlot
from proxy.simulation.wire import Script
from proxy.telemetry import logs
from tests import caller
from tests.conftest import ROOT, StartSimulator
from tests.proxy.conftest import StartGateway
from translators import faults
from translators.dashscope import tongue

NOWHERE = "http://127.0.0.1:1"


def settings(**said: object) -> Settings:
    return sources.load({"upstream": (NOWHERE,), "port": 0, "admin_port": 0, "log_format": "json", **said}, None, {})


def sourced(**said: object) -> Source:
    """A configuration that is the same whenever it is read."""
    chosen = settings(**said)
    rows = models.load(chosen)
    return Source(lambda: (chosen, rows), None, Snapshot(chosen, rows))


@pytest.mark.parametrize(
    ("path", "status", "model"),
    [
        ("/partner/models/deepseek-v3", 200, "deepseek-v3"),
        ("/any-thing/models/siliconflow/deepseek-r1", 200, "deepseek-r1"),
        ("/partner/models/a/b/c/deepseek-v3", 200, "deepseek-v3"),
        ("/partner/models/", 404, None),
        ("/partner/models/deepseek-v3/", 404, None),
        ("/partner/models//deepseek-v3", 404, None),
        ("//models/deepseek-v3", 404, None),
        ("/a/b/models/deepseek-v3", 404, None),
    ],
)
async def test_the_partner_route_takes_the_model_from_the_path(
    simulator: StartSimulator, gateway_before: StartGateway, path: str, status: int, model: str | None
) -> None:
    """Spec HTTP-2: it wins over the body's."""
    running = await gateway_before((await simulator()).url)
    answer = await caller.ask(running.url, caller.call(model="deepseek-v3.2"), path=path)
    assert answer.status == status
    if model is not None:
        record, _ = await running.end_of()
        assert record.model == model


async def test_the_partner_route_is_the_operators(simulator: StartSimulator, gateway_before: StartGateway) -> None:
    url = (await simulator()).url
    other = await gateway_before(url, model_route="/v1/{model}/generate")
    assert (await caller.ask(other.url, caller.call(), path="/v1/x/deepseek-v3/generate")).status == 200
    assert (await caller.ask(other.url, caller.call(), path="/partner/models/deepseek-v3")).status == 404
    none = await gateway_before(url, model_route="off")
    assert (await caller.ask(none.url, caller.call(), path="/partner/models/deepseek-v3")).status == 404


KNOWN = "5354a793-a130-4b36-b1dc-2610c5f49071"


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        (KNOWN, KNOWN),
        (KNOWN.upper(), KNOWN),
        (KNOWN.replace("-", ""), None),
        (f"{{{KNOWN}}}", None),
        (f"urn:uuid:{KNOWN}", None),
        (f"{KNOWN}x", None),
        ("", None),
        ("1", None),
        ("ＡＢＣ", None),
        ("\udcff" * 36, None),
    ],
)
def test_a_well_formed_id_is_kept_and_anything_else_replaced(said: str, kept: str | None) -> None:
    """Spec HTTP-6."""
    request = _Asked(CIMultiDict({"X-Request-Id": said}))
    known_as = request_ids.request_id(request)  # type: ignore[arg-type]
    assert known_as == (kept or known_as)
    assert str(uuid.UUID(known_as)) == known_as
    assert request_ids.request_id(request) == known_as  # type: ignore[arg-type]


# Says ten new ids, in a child that was forked in the middle and in its parent.
FORKED = """
import os
from proxy.downstream.request_ids import new_request_id
first = new_request_id()
child = os.fork()
if child:
    os.waitpid(child, 0)
print(first, *(new_request_id() for _ in range(10)))
"""


def test_new_ids_differ_also_in_what_is_forked() -> None:
    made = [request_ids.new_request_id() for _ in range(3 * request_ids.IDS_AT_ONCE)]
    assert {uuid.UUID(one).version for one in made} == {4}
    assert {str(uuid.UUID(one)) for one in made} == set(made)
    run = subprocess.run([sys.executable, "-c", FORKED], cwd=ROOT, capture_output=True, text=True, check=True)
    assert len(made) + 1 + 2 * 10 == len({*made, *run.stdout.split()})


class _Asked(dict[object, object]):
    """As much of a request as an id needs."""

    def __init__(self, headers: CIMultiDict[str]) -> None:
        super().__init__()
        self.headers = headers


@pytest.mark.parametrize(
    ("admin_url", "docs"),
    [(None, ""), ("http://0.0.0.0:2", "protocol, examples, a box to try a call: http://127.0.0.1:2/docs\n")],
)
def test_a_person_reads_first_where_calls_go_and_where_to_read_on(admin_url: str | None, docs: str) -> None:
    assert process._announcement("http://0.0.0.0:1", admin_url) == f"dashseek serving on http://0.0.0.0:1\n{docs}"


@pytest.mark.parametrize(
    ("limited", "redis_url", "is_refused"),
    [("", None, False), ("b", None, True), ("ab", None, True), ("b", "redis://a", False)],
)
def test_a_limit_of_one_key_needs_a_place_in_common(
    tmp_path: Path, limited: str, redis_url: str | None, *, is_refused: bool
) -> None:
    """LIM-1: each of several processes would allow it whole."""
    file = tmp_path / "keys.toml"
    rows = (
        f'[[key]]\nname = "{name}"\nsha256 = "{digit * 64}"\n' + 'limits = "rpm=60"\n' * (name in limited)
        for name, digit in (("a", "0"), ("b", "1"))
    )
    file.write_text("".join(rows))
    keyed = settings(workers=2, keys_file=str(file)).model_copy(update={"redis_url": redis_url})
    for chosen, refused in ((keyed, is_refused), (settings(workers=2), False)):
        with (
            pytest.raises(SettingsError, match=r"workers \(--workers\): .*DASHSEEK_REDIS_URL")
            if refused
            else nullcontext()
        ):
            process._check_keys(chosen, models.load(chosen))


async def test_what_goes_on_beside_ends_with_it() -> None:
    began, ended = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with process._beside(work()):
        await began.wait()
    async with asyncio.timeout(10):
        await ended.wait()


class Logged:
    """A log that is kept, as what writes lines."""

    def __init__(self) -> None:
        self.dropped = 0
        self._lines: list[dict[str, Any]] = []

    @property
    def events(self) -> dict[str, dict[str, Any]]:
        """The last line of each kind."""
        return {line["event"]: line for line in self._lines}

    def write(self, line: str) -> None:
        self.write_line(line.encode())

    def write_line(self, line: bytes) -> None:
        self._lines.append(orjson.loads(line))

    def flush(self) -> None:
        pass

    def close(self) -> None:
        pass


class TestServe:
    """The process as it is run, in this one; what several of them are together is `test_supervisor.py`'s."""

    @pytest.fixture(autouse=True)
    def logged(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[Logged]:
        """The log of what serves in this process, which forks no other; all that it sets for itself is set back."""
        threshold, files = gc.get_threshold(), resource.getrlimit(resource.RLIMIT_NOFILE)
        configure, logged = logs.configure, Logged()
        monkeypatch.setattr(logs, "configure", lambda said, lines=None: configure(said, lines or logged))
        monkeypatch.setattr(supervisor, "supervise", lambda *_: 7)
        gc.unfreeze()
        yield logged
        gc.unfreeze()
        gc.set_threshold(*threshold)
        resource.setrlimit(resource.RLIMIT_NOFILE, files)

    @pytest.fixture
    def manager(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
            heard.bind(str(tmp_path / "manager"))
            heard.settimeout(45)
            monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "manager"))
            yield heard

    @contextlib.contextmanager
    def then(self, look: Callable[[], object]) -> Iterator[None]:
        """Look beside what serves in the block, and stop it."""

        def looked() -> None:
            try:
                look()
            finally:
                os.kill(os.getpid(), signal.SIGTERM)

        # Where it does not come to have handlers of its own.
        handler = signal.signal(signal.SIGTERM, ours := lambda *_: None)
        try:
            with ThreadPoolExecutor(1) as threads:
                looking = threads.submit(looked)
                yield
                looking.result()
            assert signal.getsignal(signal.SIGTERM) is ours
        finally:
            signal.signal(signal.SIGTERM, handler)

    @contextlib.contextmanager
    def slot(self, number: int, directory: Path) -> Iterator[tuple[WorkerSlot, Callable[[], bytes]]]:
        """A slot, and what waits until it says that it serves."""
        ready, lifeline = os.pipe(), os.pipe()
        ours, theirs = socket.socketpair()
        with ours, theirs, socket.create_server(("127.0.0.1", 0)) as listening:
            slot = WorkerSlot(number, 1, listening, directory, 2, Heartbeats(3), ready[1], lifeline[0], theirs)

            def said() -> bytes:
                readable, _, _ = select.select([ready[0]], [], [], 45)
                assert readable
                return os.read(ready[0], 64)

            yield slot, said
        for descriptor in (*ready, *lifeline):
            os.close(descriptor)

    def several(
        self, source: Source, monkeypatch: pytest.MonkeyPatch
    ) -> tuple[Callable[[WorkerSlot], int], Callable[[str, str], None], Following]:
        """What `serve` leaves to the first of several processes."""
        left: list[Any] = []
        monkeypatch.setattr(supervisor, "supervise", lambda *said: left.extend(said) or 7)
        assert process.serve(source) == 7
        assert left.pop(0) is source.now.settings
        child, announce, following = left
        return child, announce, following

    @pytest.mark.parametrize("journal", [None, "-"])
    def test_one_process_serves_both_ports_until_it_is_told_to_stop(
        self, manager: socket.socket, logged: Logged, capfd: pytest.CaptureFixture[str], journal: str | None
    ) -> None:
        source = sourced(dialect="ark", **({"journal_file": journal} if journal else {}))
        told: dict[str, Any] = {}
        _, most_files = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(512, most_files), most_files))

        def look() -> None:
            assert manager.recv(64) == b"READY=1"
            assert resource.getrlimit(resource.RLIMIT_NOFILE) == (most_files, most_files)
            told.update(logged.events)
            for url in (told["serving"]["url"], told["serving"]["admin"]):
                assert asyncio.run(caller.ask(url, b"", path="/healthz", method="GET")).status == 200
            assert asyncio.run(caller.ask(told["serving"]["admin"], b"", path="/calls", method="GET")).status == 404

        with self.then(look):
            assert process.serve(source) == 0
        assert manager.recv(64) == b"STOPPING=1"
        assert (told["serving"]["workers"], told["serving"]["dialect"]) == (1, "ark")
        # What is to be known of settings that are right is said with it.
        assert told["thinking_budget_not_held"]["dialect"] == "ark"
        said = process._announcement(told["serving"]["url"], told["serving"]["admin"])
        assert capfd.readouterr().out == ("" if journal else said)

    def test_calls_are_kept_where_they_are_to_be_inspected(self, manager: socket.socket, logged: Logged) -> None:
        def look() -> None:
            assert manager.recv(64) == b"READY=1"
            url = logged.events["serving"]["admin"]
            assert asyncio.run(caller.ask(url, b"", path="/calls", method="GET")).status == 200

        with self.then(look):
            assert process.serve(sourced(inspect=True)) == 0

    def test_what_lives_as_long_as_the_process_is_no_garbage_to_look_through(self, manager: socket.socket) -> None:
        class Cycle:
            def __init__(self) -> None:
                self.itself = self

        def look() -> None:
            assert manager.recv(64) == b"READY=1"
            assert (found(), gc.get_threshold()[0], gc.get_freeze_count() > 10_000) == (None, 10_000, True)

        gc.disable()
        try:
            found = weakref.ref(Cycle())
            with self.then(look):
                assert process.serve(sourced()) == 0
        finally:
            gc.enable()

    def test_the_first_of_several_loads_for_all_and_says_once_that_all_serve(
        self, manager: socket.socket, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
    ) -> None:
        loaded: list[bool] = []
        monkeypatch.setattr(vocabulary, "load", lambda: loaded.append(gc.get_freeze_count() == 0))
        _, announce, _ = self.several(sourced(workers=2, dialect="ark"), monkeypatch)
        assert loaded == [True]
        assert gc.get_freeze_count() > 10_000
        assert capfd.readouterr().out == ""
        announce("http://0.0.0.0:1", "http://0.0.0.0:2")
        said = capfd.readouterr()
        assert said.out == process._announcement("http://0.0.0.0:1", "http://0.0.0.0:2")
        # Its log is set up, and without a thread.
        serving = orjson.loads(said.err.splitlines()[0])
        assert (serving["event"], serving["url"], serving["admin"], serving["workers"]) == (
            *("serving", "http://0.0.0.0:1", "http://0.0.0.0:2", 2),
        )
        assert '"thinking_budget_not_held"' in said.err
        assert manager.recv(64) == b"READY=1"
        _, announce, _ = self.several(sourced(workers=2, journal_file="-"), monkeypatch)
        announce("http://0.0.0.0:1", "http://0.0.0.0:2")
        assert (capfd.readouterr().out, manager.recv(64)) == ("", b"READY=1")

    def test_limits_that_each_would_allow_whole_keep_several_from_starting_and_from_following(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        limited = tmp_path / "keys.toml"
        limited.write_text(f'[[key]]\nname = "a"\nsha256 = "{"0" * 64}"\nlimits = "rpm=60"\n')
        keyed = sourced(workers=2, keys_file=str(limited))
        with pytest.raises(SettingsError, match="workers"):
            process.serve(keyed)
        source = sourced(workers=2, reload="watch")
        before, source.read = source.now, keyed.read
        _, _, following = self.several(source, monkeypatch)
        ours, theirs = socket.socketpair()
        with ours, theirs, structlog.testing.capture_logs() as lines:
            following.reload([ours])
            kind, _, length = reloading._FRAME.unpack(theirs.recv(64, socket.MSG_DONTWAIT))
        assert (kind, length, source.now) == (reloading.Kind.NO, 0, before)
        ((line),) = lines
        assert (line["event"], "DASHSEEK_REDIS_URL" in line["reason"][0]) == ("reload_refused", True)

    @pytest.mark.parametrize("one_is_gone", [False, True])
    def test_several_follow_what_all_of_them_take(self, monkeypatch: pytest.MonkeyPatch, *, one_is_gone: bool) -> None:
        source, later = sourced(workers=2), sourced(workers=2, idle_timeout=7)
        before, source.read = source.now, later.read
        _, _, following = self.several(source, monkeypatch)
        gone, other = socket.socketpair()
        other.close()
        with gone, structlog.testing.capture_logs() as lines:
            following.reload([gone] * one_is_gone)
        assert [line["event"] for line in lines] == ["reload_refused" if one_is_gone else "reloaded"]
        assert source.now.settings.idle_timeout == (before.settings.idle_timeout if one_is_gone else 7)

    @pytest.mark.parametrize(("tls", "scheme"), [(False, "http"), (True, "https")])
    def test_the_admin_process_answers_for_all_until_it_is_told_to_stop(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, certificate: Path, *, tls: bool, scheme: str
    ) -> None:
        said = {"tls_cert": str(certificate / "cert.pem"), "tls_key": str(certificate / "key.pem")} if tls else {}
        child, _, _ = self.several(sourced(workers=2, **said), monkeypatch)
        with self.slot(supervisor.ADMIN_PROCESS, tmp_path) as (slot, ready):

            def look() -> None:
                assert ready() == bytes([supervisor.ADMIN_PROCESS])
                url = lifecycle.url(slot.admin.getsockname())
                answer = asyncio.run(caller.ask(url, b"", path="/readyz", method="GET"))
                assert (answer.status, b"no worker serves" in answer.body) == (503, True)
                docs = asyncio.run(caller.ask(url, b"", path="/docs", method="GET"))
                assert f"{scheme}://127.0.0.1:{slot.port}/".encode() in docs.body

            with self.then(look):
                assert child(slot) == 0
            assert (slot.admin.fileno(), slot.heartbeats.last_s(supervisor.ADMIN_PROCESS)) == (-1, 0)

    def test_a_worker_serves_reports_and_follows_until_it_is_told_to_stop(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        source = sourced(workers=2)
        child, _, _ = self.several(source, monkeypatch)
        # As the first process holds it, for all of them.
        reserved = supervisor._bound("127.0.0.1", 0, shared=True)
        with reserved, self.slot(1, tmp_path) as (given, ready):
            port = reserved.getsockname()[1]
            slot = dataclasses.replace(given, port=port)
            url = f"http://127.0.0.1:{port}"

            def look() -> None:
                assert ready() == b"\1"
                assert asyncio.run(caller.ask(url, b"", path="/healthz", method="GET")).status == 200
                assert asyncio.run(caller.ask(url, caller.call())).status == 503
                reported = asyncio.run(board._ask(slot.sockets[1]))
                assert reported is not None
                assert (reported["process"], reported["reasons"]) == (os.getpid(), [])
                assert "dashseek_requests_total" in reported["reading"]
                assert [row[:2] for row in reported["targets"]] == [["", NOWHERE]]

            with self.then(look):
                assert child(slot) == 0
        assert slot.heartbeats.last_s(1) == 0


class TestOneRecordForEveryCall:
    """Spec MET-1: whatever happened, the record is told once."""

    async def test_a_call_that_was_answered(self, simulator: StartSimulator, gateway_before: StartGateway) -> None:
        running = await gateway_before((await simulator()).url)
        await caller.ask(running.url, caller.call())
        await caller.stream(running.url, caller.call())
        await running.end_of(2)
        assert [outcome for _, outcome in running.ended] == ["ok", "ok"]

    @pytest.mark.parametrize("headers", [caller.SSE, {}], ids=["packets", "reply"])
    async def test_a_call_that_was_refused(self, gateway_before: StartGateway, headers: dict[str, str]) -> None:
        running = await gateway_before("http://127.0.0.1:1")
        await caller.ask(running.url, b"[]", headers)
        ((record, outcome),) = running.ended
        assert outcome == "rejected"
        assert record.fault == faults.BODY_INVALID

    async def test_a_call_that_broke_in_the_middle(
        self, simulator: StartSimulator, gateway_before: StartGateway
    ) -> None:
        running = await gateway_before((await simulator(Script(cut_after=3))).url)
        assert (await caller.stream(running.url, caller.call())).status == 200
        assert [outcome for _, outcome in running.ended] == ["upstream_cut"]

    @pytest.mark.parametrize("headers", [caller.SSE, {}], ids=["packets", "reply"])
    async def test_a_call_whose_caller_left(
        self, simulator: StartSimulator, gateway_before: StartGateway, headers: dict[str, str]
    ) -> None:
        upstream = await simulator(Script(first_byte_delay_s=30))
        running = await gateway_before(upstream.url)
        async with caller.dial(running.url) as line:
            line.send(caller.request(caller.call(), headers))
            await upstream.call()
            line.leave()
            _, outcome = await running.end_of()
        assert outcome == "client_gone_before_first_packet"

    async def test_a_bug_before_there_is_anything_to_pass_on(
        self, gateway_before: StartGateway, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(tongue, "check", lambda _: 1 / 0)
        running = await gateway_before("http://127.0.0.1:1")
        assert (await caller.ask(running.url, caller.call())).fault[:2] == (500, "InternalError")
        assert [outcome for _, outcome in running.ended] == ["internal_error"]

    async def test_what_is_no_call_has_none(self, gateway_before: StartGateway) -> None:
        running = await gateway_before("http://127.0.0.1:1")
        await caller.ask(running.url, caller.call(), path="/elsewhere")
        assert not running.ended

    async def test_a_model_on_the_other_path_has_a_refusals_line(self, gateway_before: StartGateway) -> None:
        """HTTP-3, HTTP-13: the line says our sentence, the model and where it is bound."""
        running = await gateway_before("http://127.0.0.1:1")
        answer = await caller.ask(running.url, caller.call(), path=paths.MULTIMODAL)
        assert answer.fault == (400, "InvalidParameter", "url error, please check url！")
        ((record, outcome),) = running.ended
        assert (outcome, record.asked_model) == ("rejected", "deepseek-v3")
        assert "deepseek-v3 is called on the text path" in record.cause
