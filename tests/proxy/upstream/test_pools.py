"""Claims about the pools of a configuration: who is asked, who is asked next, and what is kept fresh meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from config import sources
from config.values import toml
from proxy.simulation.wire import Script
from proxy.upstream import client, pools, report
from proxy.upstream import names as upstream_names
from proxy.upstream.health import Event, State
from proxy.upstream.response import UpstreamFailure, completion_of
from proxy.upstream.targets import Attempt
from tests.asking import MODEL, answered
from tests.conftest import ROOT, StartSimulator
from tests.proxy.upstream.test_client import Converse, listening, polite
from translators import faults

# A certificate that vouches for none of the servers here.
OTHERS = ROOT / "tests/config/ca.pem"
POST = client.Post("/chat/completions", b'{"model":"m","messages":[{"role":"user","content":"hi"}]}', None)
NO_SLOT = "every upstream has max_in_flight calls"


class Front:
    """Upstreams of a file's pools; `said` are its other settings."""

    def __init__(self, directory: Path) -> None:
        self._file = directory / "pools.toml"

    @contextlib.asynccontextmanager
    async def before(self, *entries: dict[str, Any], **said: object) -> AsyncIterator[pools.Upstreams]:
        named = [{"name": f"p{number}", **entry} for number, entry in enumerate(entries)]
        self._file.write_text("".join(f"{name} = {toml(value)}\n" for name, value in {**said, "pools": named}.items()))
        async with pools.opened(sources.load({}, str(self._file), dict(os.environ))) as upstreams:
            yield upstreams


@pytest.fixture
def front(tmp_path: Path) -> Front:
    return Front(tmp_path)


@pytest.fixture
def closed_port() -> Iterator[str]:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"


async def ask(upstreams: pools.Upstreams) -> list[Attempt]:
    attempts: list[Attempt] = []
    with contextlib.suppress(UpstreamFailure), contextlib.closing(await answered(upstreams, POST, attempts)) as said:
        await completion_of(said)
    return attempts


async def rewritten(_: object) -> client.Post:
    """The same for every pool."""
    return POST


async def until(happened: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not happened():  # noqa: ASYNC110 - what is waited for is the work of a task that tells nobody
            await asyncio.sleep(0.01)


def words(attempts: list[Attempt]) -> list[tuple[str, str]]:
    return [(attempt.pool, attempt.word) for attempt in attempts]


class TestChoice:
    """Spec POOL-2."""

    async def test_the_last_resort_is_asked_where_the_first_cannot_be(
        self, front: Front, simulator: StartSimulator, closed_port: str
    ) -> None:
        official = await simulator()
        entries = ({"urls": [closed_port]}, {"urls": [official.url], "priority": 1})
        async with front.before(*entries) as upstreams:
            assert words(await ask(upstreams)) == [("p0", "unreachable"), ("p1", "200")]
            assert words(await ask(upstreams)) == [("p1", "200")]

    async def test_a_pool_that_does_not_serve_the_model_is_not_asked(
        self, front: Front, simulator: StartSimulator
    ) -> None:
        one, other = await simulator(), await simulator()
        entries = ({"urls": [one.url], "models": ["deepseek-r1"]}, {"urls": [other.url], "priority": 1})
        async with front.before(*entries) as upstreams:
            assert words(await ask(upstreams)) == [("p1", "200")]

    async def test_above_max_in_flight_the_next_priority_takes_it_and_then_nobody(self, front: Front) -> None:
        entries = (
            {"urls": ["http://127.0.0.1:1"], "max_in_flight": 2},
            {"urls": ["http://127.0.0.1:2"], "max_in_flight": 1, "priority": 1},
        )
        async with front.before(*entries) as upstreams:
            leases = [upstreams.lease(MODEL) for _ in range(3)]
            assert [lease.pool.name for lease in leases] == ["p0", "p0", "p1"]
            with pytest.raises(faults.Refusal, match=NO_SLOT) as refused:
                upstreams.lease(MODEL)
            assert (refused.value.fault.code, refused.value.fault.retry_after) == ("ModelServingError", "1")
            leases[0].release()
            leases[0].release()
            assert upstreams.lease(MODEL).pool.name == "p0"
            assert upstreams.in_flight == 3

    async def test_a_key_stays_with_its_target(self, front: Front) -> None:
        async with front.before({"urls": [f"http://127.0.0.1:{port}" for port in range(1, 9)]}) as upstreams:
            places = set()
            for _ in range(20):
                lease = upstreams.lease(MODEL, key=77)
                assert lease.target is not None
                places.add(lease.target.url)
                lease.release()
            assert len(places) == 1


class Names:
    """What names lead to; it is asked in a thread."""

    def __init__(self) -> None:
        self.found: list[str] = []
        self.asked = 0

    def addresses_of(self, _: object) -> list[str]:
        self.asked += 1
        if not self.found:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return self.found


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    made = Names()
    monkeypatch.setattr(pools, "ADDRESSES_EVERY_S", 0.02)
    monkeypatch.setattr(upstream_names, "addresses_of", made.addresses_of)
    return made


FULL_FIRST = (
    {"urls": ["http://127.0.0.1:1"], "max_in_flight": 2},
    {"urls": ["http://127.0.0.1:2"], "priority": 1},
)


class TestLease:
    """What a call holds of a target, and what it says of it."""

    async def test_what_is_on_its_way_is_counted_where_it_is_and_no_more_when_it_has_ended(self, front: Front) -> None:
        async with front.before(*FULL_FIRST) as upstreams:
            first, second = upstreams.targets

            def counted() -> tuple[int, ...]:
                loads = (target.standing.in_flight for target in (first, second))
                return *loads, upstreams.in_flight, upstreams.retries

            assert counted() == (0, 0, 0, 0)
            one, other = upstreams.lease(MODEL), upstreams.lease(MODEL)
            assert (one.attempt, one.is_judged, counted()) == (None, False, (2, 0, 2, 0))
            one.take(second, retry=True)
            assert counted() == (1, 1, 2, 1)
            one.take(first, retry=True)
            assert counted() == (2, 0, 2, 1)
            for lease in (one, one, other):
                lease.release()
            assert counted() == (0, 0, 0, 0)

    async def test_a_trial_that_goes_elsewhere_leaves_the_next_call_to_try(self, front: Front) -> None:
        async with front.before(*FULL_FIRST) as upstreams:
            first, second = upstreams.targets
            upstreams.now_s = lambda: 1_000.0
            early = upstreams.lease(MODEL)
            upstreams.note(first, Event.LOST)
            upstreams.now_s = lambda: 1_010.0
            trial = upstreams.lease(MODEL)
            assert (trial.target, first.standing.health.state) == (first, State.TRIAL)
            early.take(second, retry=True)
            assert first.standing.health.state is State.TRIAL, "who was there before is not on trial"
            trial.take(second, retry=True)
            assert upstreams.lease(MODEL).target is first

    async def test_one_more_of_the_same_call_stays_in_its_pool(self, front: Front) -> None:
        async with front.before(*FULL_FIRST) as upstreams:
            one = upstreams.lease(MODEL)
            assert one.choose([one.target]) is upstreams.targets[1]
            assert one.another().pool is one.pool
            with pytest.raises(faults.Refusal, match=NO_SLOT):
                one.another()
            one.stay()
            assert one.choose([one.target]) is None
        async with front.before({"urls": ["http://127.0.0.1:1", "http://127.0.0.1:2"]}) as upstreams:
            for key in range(1, 20):
                bound = upstreams.lease(MODEL, key=key)
                more = bound.another()
                assert more.target is bound.target
                bound.release()
                more.release()

    async def test_only_the_first_that_comes_of_an_answer_is_said_of_a_target(self, front: Front) -> None:
        async with front.before(*FULL_FIRST) as upstreams:
            (standing, _) = (target.standing for target in upstreams.targets)
            lease = upstreams.lease(MODEL)
            for first_token_s in (0.5, 9.0):
                lease.answered(first_token_s)
            lease.failed("silent")
            assert (standing.first_token_s, standing.last_error, standing.health.failures) == (0.5, None, 0)
            lease.release()
            for number in range(1, 4):
                lease = upstreams.lease(MODEL)
                for word in ("silent", "again"):
                    lease.failed(word)
                lease.answered(9.0)
                assert (standing.last_error, standing.health.failures) == ("silent", number)
                lease.release()
            assert standing.health.state is State.OUT
            ended = upstreams.lease(MODEL, only=upstreams.pools[0])
            ended.release()
            ended.answered(9.0)
            ended.failed("late")
            assert (standing.first_token_s, standing.last_error) == (0.5, "silent")
            upstreams.lease(MODEL, only=upstreams.pools[0]).answered()
            assert (standing.first_token_s, standing.health.failures) == (0.5, 0)
            assert standing.health.state is State.WELL

    async def test_where_no_pool_serves_a_model_it_is_unavailable(self, front: Front) -> None:
        entries = (
            {"urls": ["http://127.0.0.1:1"], "models": [MODEL], "max_in_flight": 1},
            {"urls": ["http://127.0.0.1:2"], "models": ["deepseek-r1"]},
        )
        async with front.before(*entries) as upstreams:
            upstreams.lease(MODEL)
            for model, only, fault in (
                (MODEL, None, faults.OVERLOADED.after("1")),
                ("deepseek-r1", upstreams.pools[0], faults.OVERLOADED.after("1")),
                ("deepseek-v3.1", None, faults.UNAVAILABLE),
            ):
                with pytest.raises(faults.Refusal) as refused:
                    upstreams.lease(model, only=only)
                assert refused.value.fault == fault

    @pytest.mark.parametrize("alone", [False, True])
    async def test_a_target_that_goes_out_or_comes_back_is_said_once_where_there_is_another(
        self, front: Front, alone: bool
    ) -> None:
        entries = FULL_FIRST[: 1 if alone else 2]
        async with front.before(*entries) as upstreams:
            with structlog.testing.capture_logs() as lines:
                for event in (Event.FAILED, Event.LOST, Event.LOST, Event.ANSWERED, Event.ANSWERED):
                    upstreams.note(upstreams.targets[0], event)
        assert [line["event"] for line in lines] == ([] if alone else ["target_out", "target_well"])


class TestFailover:
    """Spec POOL-4."""

    async def test_a_second_try_is_counted_as_one_and_the_first_answer_is_let_go(
        self, front: Front, simulator: StartSimulator
    ) -> None:
        seen = list[int]()
        busy = await simulator(Script(status=503))
        free = await simulator(lambda _: seen.append(upstreams.retries) or Script())  # type: ignore[func-returns-value]
        entries = ({"urls": [busy.url]}, {"urls": [free.url], "priority": 1})
        async with front.before(*entries, failover_on=[503]) as upstreams:
            assert words(await ask(upstreams)) == [("p0", "503"), ("p1", "200")]
            assert (seen, upstreams.retries, upstreams.connections.acquired) == ([1], 0, 0)

    async def test_a_status_is_tried_again_as_often_as_may_be(self, front: Front, simulator: StartSimulator) -> None:
        urls = [(await simulator(Script(status=503))).url for _ in range(4)]
        for most in (1, 2, 3):
            async with front.before({"urls": urls}, failover_on=[503], max_attempts=most) as upstreams:
                assert len(await ask(upstreams)) == most

    @pytest.mark.parametrize(("retries", "asked"), [(0, ["p0", "p1"]), (100, ["p0"])])
    async def test_no_connection_in_the_pools_own_time_is_tried_elsewhere_within_the_budget(
        self, front: Front, simulator: StartSimulator, retries: int, asked: list[str]
    ) -> None:
        """Nobody is there who shakes hands; what may have cost a while is not asked of everybody at once."""
        free = await simulator()
        with socket.create_server(("127.0.0.1", 0)) as server:
            silent = f"https://127.0.0.1:{server.getsockname()[1]}"
            entries = ({"urls": [silent], "connect_timeout": 0.05}, {"urls": [free.url], "priority": 1})
            async with front.before(*entries, connect_timeout=30) as upstreams:
                upstreams.retries = retries
                attempts = await ask(upstreams)
        assert words(attempts) == [*zip(asked, ("connect_timeout", "200"), strict=False)]

    async def test_what_has_failed_is_said_once_of_its_target(
        self, front: Front, simulator: StartSimulator, closed_port: str
    ) -> None:
        bad = await simulator(Script(status=500))
        async with front.before({"urls": [bad.url]}) as upstreams:
            lease = upstreams.lease(MODEL)
            with contextlib.closing(await upstreams.post(lease, POST, rewritten, [])):
                lease.failed("silent")
                lease.answered(1.0)
            (standing,) = (target.standing for target in upstreams.targets)
            assert (standing.health.failures, standing.last_error, standing.first_token_s) == (1, "500", None)
        async with front.before({"urls": [closed_port]}) as upstreams:
            (standing,) = (target.standing for target in upstreams.targets)
            lease = upstreams.lease(MODEL)
            with pytest.raises(UpstreamFailure):
                await upstreams.post(lease, POST, rewritten, [])
            lease.failed("silent")
            assert standing.last_error == "unreachable"

    @pytest.mark.parametrize("status", [429, 503, 529])
    async def test_where_the_operator_says_so_another_is_asked_after_a_status(
        self, front: Front, simulator: StartSimulator, status: int
    ) -> None:
        busy, free = await simulator(Script(status=status)), await simulator()
        entries = ({"urls": [busy.url]}, {"urls": [free.url], "priority": 1})
        async with front.before(*entries, failover_on=[status]) as upstreams:
            assert words(await ask(upstreams)) == [("p0", str(status)), ("p1", "200")]
        async with front.before(*entries) as upstreams:
            assert words(await ask(upstreams)) == [("p0", str(status))]

    async def test_never_after_another_status(self, front: Front, simulator: StartSimulator) -> None:
        broken, free = await simulator(Script(status=500)), await simulator()
        entries = ({"urls": [broken.url]}, {"urls": [free.url], "priority": 1})
        async with front.before(*entries, failover_on=[429, 503, 529]) as upstreams:
            assert words(await ask(upstreams)) == [("p0", "500")]

    async def test_at_most_so_many_tries(self, front: Front) -> None:
        urls = [f"http://127.0.0.1:{port}" for port in range(1, 6)]
        async with front.before({"urls": urls}, max_attempts=3) as upstreams:
            attempts = await ask(upstreams)
            assert [attempt.retry for attempt in attempts] == [False, True, True]
            assert len({attempt.target for attempt in attempts}) == 3

    async def test_a_bad_hour_does_not_double_itself(self, front: Front, simulator: StartSimulator) -> None:
        """Retries are a fifth of the calls in flight, and three at the least."""
        urls = [(await simulator(Script(status=503))).url for _ in range(2)]
        async with front.before({"urls": urls}, failover_on=[503]) as upstreams:
            held = [upstreams.lease(MODEL) for _ in range(10)]
            upstreams.retries = 3
            assert len(await ask(upstreams)) == 1
            held += [upstreams.lease(MODEL) for _ in range(10)]
            assert len(await ask(upstreams)) == 2

    async def test_a_refused_connection_is_outside_the_budget(self, front: Front) -> None:
        async with front.before({"urls": [f"http://127.0.0.1:{port}" for port in range(1, 3)]}) as upstreams:
            upstreams.retries = 100
            assert len(await ask(upstreams)) == 2


class TestHealth:
    """Spec POOL-3."""

    async def test_failures_in_a_row_put_a_target_out_and_an_answer_brings_it_back(
        self, front: Front, simulator: StartSimulator
    ) -> None:
        bad = {"now": True}
        one = await simulator(lambda _: Script(status=500) if bad["now"] else Script())
        other = await simulator()
        entries = ({"urls": [one.url]}, {"urls": [other.url], "priority": 1})
        async with front.before(*entries) as upstreams:
            clock = {"s": 1_000.0}
            upstreams.now_s = lambda: clock["s"]
            pool_of = [words(await ask(upstreams))[0][0] for _ in range(4)]
            assert pool_of == ["p0", "p0", "p0", "p1"]
            look = report.targets(upstreams)[0]
            assert (look.state, look.out_for_s, look.last_error, look.calls) == ("out", 10.0, "500", 3)
            bad["now"] = False
            clock["s"] += 10
            assert [words(await ask(upstreams))[0] for _ in range(2)] == [("p0", "200")] * 2
            assert report.targets(upstreams)[0].state == "well"

    async def test_a_trial_whose_caller_leaves_is_no_verdict(self, front: Front) -> None:
        entries = ({"urls": ["http://127.0.0.1:1"]}, {"urls": ["http://127.0.0.1:2"], "priority": 1})
        async with front.before(*entries) as upstreams:
            clock = {"s": 1_000.0}
            upstreams.now_s = lambda: clock["s"]
            upstreams.note(upstreams._targets[0], Event.LOST)
            assert upstreams.lease(MODEL).pool.name == "p1"
            clock["s"] += 10
            trial = upstreams.lease(MODEL)
            assert (trial.pool.name, upstreams.lease(MODEL).pool.name) == ("p0", "p1")
            trial.release()
            assert upstreams.lease(MODEL).pool.name == "p0"

    async def test_a_call_that_began_before_says_nothing_of_a_trial(self, front: Front) -> None:
        """Its caller leaves while another call is on trial there."""
        entries = ({"urls": ["http://127.0.0.1:1"]}, {"urls": ["http://127.0.0.1:2"], "priority": 1})
        async with front.before(*entries) as upstreams:
            clock = {"s": 1_000.0}
            upstreams.now_s = lambda: clock["s"]
            early = upstreams.lease(MODEL)
            upstreams.note(early.target, Event.LOST)
            clock["s"] += 10
            trial = upstreams.lease(MODEL)
            early.release()
            assert (trial.pool.name, upstreams.lease(MODEL).pool.name) == ("p0", "p1")

    async def test_who_is_asked_in_turn_is_found_out_before_a_call_is_lost(
        self, front: Front, simulator: StartSimulator, closed_port: str
    ) -> None:
        one = await simulator()
        async with front.before({"urls": [closed_port, one.url]}, health_interval=0.02) as upstreams:
            await until(lambda: report.targets(upstreams)[0].state != "well")
            assert [len(await ask(upstreams)) for _ in range(4)] == [1] * 4

    async def test_a_check_that_is_answered_takes_back_nothing_that_calls_have_shown(
        self, front: Front, simulator: StartSimulator
    ) -> None:
        """Its list of models is there; its completions fail."""
        bad, good = await simulator(Script(status=500)), await simulator()
        entries = ({"urls": [bad.url]}, {"urls": [good.url], "priority": 1})
        async with front.before(*entries, health_interval=0.01) as upstreams:
            for _ in range(3):
                await ask(upstreams)
            checks = len(bad.calls) + 3
            await bad.until(lambda: len(bad.calls) > checks)
            assert words(await ask(upstreams)) == [("p1", "200")]
            assert report.targets(upstreams)[0].state == "out"

    async def test_a_check_brings_back_what_could_not_be_reached(self, front: Front, simulator: StartSimulator) -> None:
        one, other = await simulator(), await simulator()
        entries = ({"urls": [one.url]}, {"urls": [other.url], "priority": 1})
        async with front.before(*entries, health_interval=0.01) as upstreams:
            upstreams.note(upstreams.targets[0], Event.LOST)
            await until(lambda: report.targets(upstreams)[0].state == "well")

    @pytest.mark.parametrize(("path", "asked"), [(None, "/v1/models"), ("/health", "/health")])
    @pytest.mark.parametrize("status", [200, 500])
    async def test_a_check_asks_for_the_models_or_what_the_operator_says_at_the_root(
        self, front: Front, path: str | None, asked: str, status: int
    ) -> None:
        """What it finds that is no failure is said of no target."""
        paths = list[str]()

        async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            paths.append((await reader.readuntil(b"\r\n\r\n")).split()[1].decode())
            writer.write(b"HTTP/1.1 %d Any\r\nContent-Length: 0\r\n\r\n" % status)
            writer.close()

        said = {} if path is None else {"health_path": path}
        async with (
            listening(converse) as url,
            front.before({"urls": [f"{url}/v1"]}, health_interval=0.01, **said) as upstreams,
        ):
            (standing,) = (target.standing for target in upstreams.targets)
            await until(lambda: len(paths) > 2)
            assert {*paths} == {asked}
            assert (standing.last_error, bool(standing.health.ailing)) == (
                (None, False) if status == 200 else ("500", True)
            )

    async def test_a_check_that_is_not_answered_ends_in_a_while(self, front: Front) -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            url = f"http://127.0.0.1:{silent.getsockname()[1]}"
            async with front.before({"urls": [url]}, health_interval=0.01, connect_timeout=0.1) as upstreams:
                (standing,) = (target.standing for target in upstreams.targets)
                await until(lambda: standing.last_error is not None)
                assert (standing.last_error, standing.health.state) == ("connect_timeout", State.OUT)

    def test_checks_come_a_fifth_earlier_or_later(self) -> None:
        """Or all replicas would come at once."""
        assert [pools.spread(10, chance) for chance in (0.0, 0.5, 1.0)] == pytest.approx([8, 10, 12])

    async def test_what_is_kept_fresh_is_looked_at_once_in_a_while_and_by_nobody_at_the_end(
        self, front: Front, simulator: StartSimulator, names: Names, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(pools, "ADDRESSES_EVERY_S", 3_600)
        monkeypatch.setattr(pools, "FILES_EVERY_S", 3_600)
        (tmp_path / "key").write_text("sk-any")
        names.found, url = ["127.0.0.1"], (await simulator()).url
        entry = {
            "urls": [url, url.replace("http://127.0.0.1", "dns+http://engines.example")],
            "api_key_file": str(tmp_path / "key"),
        }
        async with front.before(entry, health_interval=3_600) as upstreams:
            tasks = [*upstreams._tasks]
            (tmp_path / "key").write_text("sk-other")
            assert words(await ask(upstreams)) == [("p0", "200")]
            assert (len(tasks), names.asked, upstreams.key_of(upstreams.pools[0])) == (3, 1, "sk-any")
            assert upstreams.connections.idle == 1
            (one,) = upstreams.connections._places
            assert one._transport is not None
            closing = one._transport.get_extra_info("socket")
        assert upstreams._tasks == []
        assert [task.cancelled() for task in tasks] == [True] * 3
        assert closing.fileno() == -1

    @pytest.mark.parametrize(("auth", "state"), [("none", "out"), ("passthrough", "well")])
    async def test_a_401_is_ours_to_mend_unless_callers_bring_the_key(
        self, front: Front, simulator: StartSimulator, auth: str, state: str
    ) -> None:
        """Without a key none goes along: then it is ours that lacks."""
        locked, other = await simulator(Script(status=401)), await simulator()
        entries = ({"urls": [locked.url]}, {"urls": [other.url], "priority": 1})
        async with front.before(*entries, auth=auth) as upstreams:
            assert words(await ask(upstreams)) == [("p0", "401")]
            look = report.targets(upstreams)[0]
            assert (look.state, look.last_error) == (state, "401" if state == "out" else None)


class TestKeys:
    async def test_each_pool_has_its_own(
        self, front: Front, simulator: StartSimulator, tmp_path: Path, closed_port: str
    ) -> None:
        (tmp_path / "key").write_text("sk-second")
        official = await simulator()
        entries = (
            {"urls": [closed_port]},
            {"urls": [official.url], "priority": 1, "api_key_file": str(tmp_path / "key")},
        )
        async with front.before(*entries) as upstreams:
            await ask(upstreams)
        assert official.calls[0].headers["Authorization"] == "Bearer sk-second"

    async def test_after_a_401_its_file_is_looked_at_once_more(
        self, front: Front, simulator: StartSimulator, tmp_path: Path
    ) -> None:
        key = tmp_path / "key"
        key.write_text("sk-old")

        def judged(_: object) -> Script:
            return Script(status=200 if official.calls[-1].headers["Authorization"] == "Bearer sk-new" else 401)

        official = await simulator(judged)
        async with front.before({"urls": [official.url], "api_key_file": str(key)}) as upstreams:
            assert words(await ask(upstreams)) == [("p0", "401")]
            key.write_text("sk-new")
            assert words(await ask(upstreams)) == [("p0", "401"), ("p0", "200")]
            assert report.targets(upstreams)[0].state == "well"

    async def test_calls_that_were_on_their_way_with_the_key_of_before_are_asked_again(
        self, front: Front, simulator: StartSimulator, tmp_path: Path
    ) -> None:
        key = tmp_path / "key"
        key.write_text("sk-old")

        def judged(_: object) -> Script:
            key.write_text("sk-new")
            return Script(status=401 if official.calls[-1].headers["Authorization"] == "Bearer sk-old" else 200)

        official = await simulator(judged)
        async with front.before({"urls": [official.url], "api_key_file": str(key)}) as upstreams:
            said = await asyncio.gather(ask(upstreams), ask(upstreams))
            assert [words(attempts) for attempts in said] == [[("p0", "401"), ("p0", "200")]] * 2
            assert report.targets(upstreams)[0].state == "well"

    @pytest.mark.parametrize("anew", [False, True])
    async def test_another_key_is_tried_at_once(
        self, front: Front, simulator: StartSimulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, anew: bool
    ) -> None:
        """A file that changes, or another configuration: nobody waits for the end of the time out."""
        monkeypatch.setattr(pools, "FILES_EVERY_S", 0.02)
        key = tmp_path / "key"
        key.write_text("sk-old")
        official, other = await simulator(Script(status=401)), await simulator()
        entries = ({"urls": [official.url], "api_key_file": str(key)}, {"urls": [other.url], "priority": 1})
        async with front.before(*entries) as upstreams:
            assert words(await ask(upstreams)) == [("p0", "401")]
            assert words(await ask(upstreams)) == [("p1", "200")]
            if anew:
                after = pools.Upstreams(upstreams.settings, upstreams.connections, upstreams.standings)
                after.begin()
                after.end()
            else:
                key.write_text("sk-new")
                await until(lambda: upstreams.key_of(upstreams.pools[0]) == "sk-new")
            assert words(await ask(upstreams))[0][0] == "p0"

    async def test_a_file_that_changes_is_followed(
        self, front: Front, simulator: StartSimulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As a mounted Secret does: by a link to another directory."""
        monkeypatch.setattr(pools, "FILES_EVERY_S", 0.02)
        for name in ("one", "two"):
            (tmp_path / name).mkdir()
            (tmp_path / name / "key").write_text(f"sk-{name}")
        (tmp_path / "data").symlink_to("one")
        path = tmp_path / "data" / "key"
        async with front.before({"urls": ["http://127.0.0.1:1"], "api_key_file": str(path)}) as upstreams:
            (pool,) = upstreams.pools
            assert upstreams.key_of(pool) == "sk-one"
            (tmp_path / "next").symlink_to("two")
            (tmp_path / "next").rename(tmp_path / "data")
            await until(lambda: upstreams.key_of(pool) == "sk-two")
            assert {"sk-one", "sk-two"} <= {*upstreams.unsaid}

    async def test_a_file_that_is_gone_or_says_the_same_is_no_other_key(
        self, front: Front, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As for a moment while it is replaced."""
        monkeypatch.setattr(pools, "FILES_EVERY_S", 0.01)
        look, looks = pools.version_if_there, list[object]()
        monkeypatch.setattr(pools, "version_if_there", lambda path: looks.append(path) or look(path))  # type: ignore[func-returns-value]
        (key := tmp_path / "key").write_text("sk-one")
        entries = [{"urls": [f"http://127.0.0.1:{port}"], "api_key_file": str(key)} for port in (1, 2)]
        with structlog.testing.capture_logs() as lines:
            async with front.before(*entries) as upstreams:
                kept = upstreams.unsaid
                for step in (key.unlink, lambda: key.write_text("sk-one")):
                    await asyncio.to_thread(step)
                    seen = len(looks) + 4
                    await until(lambda seen=seen: len(looks) > seen)  # type: ignore[misc]
                assert upstreams.unsaid == kept
        assert lines == []


async def test_what_a_configuration_has_no_more_is_forgotten_unless_a_call_is_on_its_way(front: Front) -> None:
    urls = [f"http://127.0.0.1:{port}" for port in (1, 2, 3)]
    async with front.before({"urls": urls}) as before:
        held = next(lease for lease in iter(lambda: before.lease(MODEL), None) if lease.target is before.targets[1])
        for target in (before.targets[0], before.targets[2]):
            target.standing.in_flight = 0
        before.connections._addresses.update((target.place, (0.0, [])) for target in before.targets)
        settings = before.settings.model_copy(
            update={"pools": (before.pools[0].model_copy(update={"urls": urls[:1]}),)}
        )
        after = pools.Upstreams(settings, before.connections, before.standings)
        assert len(before.standings) == 3
        after.begin()
        assert [url for _, url in before.standings] == urls[:2]
        assert [*before.connections._addresses] == [target.place for target in after.targets]
        held.release()
        after.begin()
        assert [url for _, url in before.standings] == urls[:1]


async def test_what_dies_under_a_call_is_asked_anew_in_its_own_pool_where_nothing_had_come(front: Front) -> None:
    """ERR-4: what has begun to answer may have worked, and is paid for once."""

    def dying(said: bytes) -> Converse:
        async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.suppress(asyncio.IncompleteReadError):
                await reader.readuntil(POST.body)
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
                await reader.readuntil(POST.body)
                writer.write(said)
            writer.close()

        return converse

    for said, tries in ((b"", [("p0", "broken"), ("p0", "200")]), (b"HTTP/1.1", [("p0", "broken")])):
        async with (
            listening(dying(said)) as url,
            front.before({"urls": [url]}, {"urls": ["http://127.0.0.1:1"]}) as upstreams,
        ):
            upstreams.note(upstreams.targets[1], Event.LOST)
            assert words(await ask(upstreams)) == [("p0", "200")]
            upstreams.note(upstreams.targets[1], Event.ANSWERED)
            lease = upstreams.lease(MODEL, only=upstreams.pools[0])
            attempts = list[Attempt]()
            with contextlib.suppress(UpstreamFailure):
                (await upstreams.post(lease, POST, rewritten, attempts)).close()
            assert words(attempts) == tries


async def test_a_name_is_as_many_targets_as_it_has_addresses(
    front: Front, simulator: StartSimulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pools, "ADDRESSES_EVERY_S", 0.02)
    found = [["127.0.0.1", "127.0.0.2"], ["127.0.0.1"]]
    monkeypatch.setattr(upstream_names, "addresses_of", lambda _: found[0])
    upstream = await simulator()
    url = upstream.url.replace("127.0.0.1", "engines.example")
    async with front.before({"urls": [f"dns+{url}"]}) as upstreams:
        targets = [look.target for look in report.targets(upstreams)]
        assert targets == [upstream.url, upstream.url.replace("127.0.0.1", "127.0.0.2")]
        found.pop(0)
        await until(lambda: len(report.targets(upstreams)) == 1)
        (attempt,) = await ask(upstreams)
    assert (attempt.target, attempt.label) == (upstream.url, f"dns+{url}")
    assert upstream.calls[0].headers["Host"] == url.removeprefix("http://")


class TestCertificates:
    """TLS is verified for each pool by its own `ca_file`, and by the system's where it names none."""

    async def test_each_pool_believes_its_own_alone(self, front: Front, certificate: Path) -> None:
        trusted = certificate / "cert.pem"
        async with listening(polite, certificate) as url:
            # The same place, for those who believe another.
            entries = (
                {"urls": [url], "ca_file": str(OTHERS)},
                {"urls": [url], "priority": 1},
                {"urls": [url], "priority": 2, "ca_file": str(trusted)},
            )
            async with front.before(*entries, max_attempts=3) as upstreams:
                assert words(await ask(upstreams)) == [("p0", "unreachable"), ("p1", "unreachable"), ("p2", "200")]

    async def test_the_systems_are_read_where_a_url_asks_for_them_and_once_for_all(self, front: Front) -> None:
        """Reading them takes a moment of every start."""
        plain, secure = "http://127.0.0.1:1", "https://127.0.0.1:2"
        async with front.before({"urls": [plain]}) as upstreams:
            assert upstreams._trusts == {}
        async with front.before({"urls": [plain, secure]}, {"urls": [secure]}) as upstreams:
            assert [*upstreams._trusts] == [""]
            before = upstreams._trusts[""]
            await upstreams.prepare()
            assert upstreams._trusts[""] is before

    async def test_a_file_of_one_pool_is_believed_by_no_other(
        self, front: Front, certificate: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(pools, "FILES_EVERY_S", 0.02)
        (changes := tmp_path / "ca.pem").write_bytes(OTHERS.read_bytes())
        (unused := tmp_path / "plain.pem").write_bytes(OTHERS.read_bytes())
        entries = (
            {"urls": ["https://127.0.0.1:1"], "ca_file": str(OTHERS)},
            {"urls": ["https://127.0.0.1:2"], "ca_file": str(changes)},
            {"urls": ["http://127.0.0.1:3"], "ca_file": str(unused)},
        )
        async with front.before(*entries) as upstreams:
            before = dict(upstreams._trusts)
            assert {*before} == {str(OTHERS), str(changes)}
            with structlog.testing.capture_logs() as lines:
                unused.write_bytes(b"none")
                changes.write_bytes((certificate / "cert.pem").read_bytes())
                await until(lambda: bool(lines))
            assert [(line["event"], line["pool"]) for line in lines] == [("certificates_read", "p1")]
            assert upstreams._trusts[str(OTHERS)] is before[str(OTHERS)]

    async def test_a_file_that_changes_is_followed(
        self, front: Front, certificate: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(pools, "FILES_EVERY_S", 0.02)
        believed, following = tmp_path / "ca.pem", tmp_path / "ca.next"
        believed.write_bytes(OTHERS.read_bytes())
        async with (
            listening(polite, certificate) as url,
            front.before({"urls": [url], "ca_file": str(believed)}, max_attempts=1) as upstreams,
        ):
            assert words(await ask(upstreams)) == [("p0", "unreachable")]
            # What is no certificate leaves the old in force.
            for text in (b"none", (certificate / "cert.pem").read_bytes()):
                following.write_bytes(text)
                following.rename(believed)
                with structlog.testing.capture_logs() as lines:
                    await until(lambda lines=lines: any(line["event"].startswith("certificates_") for line in lines))
            assert words(await ask(upstreams)) == [("p0", "200")]


class TestNames:
    async def test_one_without_an_address_is_seen_and_said_once(self, front: Front, names: Names) -> None:
        label = "dns+http://engines.example:8000"
        entries = ({"urls": [label], "max_in_flight": 4}, {"urls": ["http://127.0.0.1:1"], "priority": 1})
        with structlog.testing.capture_logs() as lines:
            async with front.before(*entries) as upstreams:
                await until(lambda: names.asked > 4)
                _, lost = report.targets(upstreams)
                assert lost == report.TargetReport("p0", label, "out", 0, 4, None, "no_address", None, 0)
                assert report.states(upstreams)["p0", label, "out"] == 1
                assert upstreams.lease(MODEL).pool.name == "p1"
                names.found = ["10.0.0.1"]
                await until(lambda: report.targets(upstreams)[0].target == "http://10.0.0.1:8000")
                assert len(report.targets(upstreams)) == 2
                assert report.states(upstreams)["p0", label, "out"] == 0
        assert [line["event"] for line in lines] == ["name_not_found", "name_found", "addresses"]

    async def test_all_addresses_of_one_are_told_together(self, front: Front, names: Names) -> None:
        names.found, label = ["10.0.0.1", "10.0.0.2"], "dns+http://engines.example:8000"
        async with front.before({"urls": [label]}) as upstreams:
            one, other = upstreams.targets
            place = ("p0", label)
            assert report.loads(upstreams) == {place: 0.0}
            assert report.first_tokens_s(upstreams) == {}
            for target, first_token_s in ((one, 0.25), (other, 0.123_456), (other, 0.123_456)):
                upstreams.lease(MODEL).take(target)
                target.standing.took(first_token_s)
            assert report.loads(upstreams) == {place: 3.0}
            assert report.first_tokens_s(upstreams) == {place: 0.25}
            states = {state: number for (*_, state), number in report.states(upstreams).items()}
            assert states == {"well": 2.0, "out": 0.0, "trial": 0.0}
            upstreams.now_s = lambda: 1_000.0
            upstreams.note(other, Event.LOST)
            upstreams.now_s = lambda: 1_002.96
            look = report.targets(upstreams)[1]
            assert (look.out_for_s, look.first_token_s, look.in_flight) == (7.0, 0.1235, 2)
            upstreams.now_s = lambda: 1_020.0
            assert report.targets(upstreams)[1].out_for_s == 0.0

    async def test_an_address_that_is_gone_is_forgotten_when_its_calls_have_ended(
        self, front: Front, names: Names
    ) -> None:
        names.found = ["10.0.0.1"]
        async with front.before({"urls": ["dns+http://engines.example:8000"]}) as upstreams:
            lease = upstreams.lease(MODEL)
            for number in range(2, 5):
                names.found = [f"10.0.0.{number}"]
                await until(lambda: report.targets(upstreams)[0].target == f"http://{names.found[0]}:8000")
                following = upstreams.lease(MODEL)
                assert following.target is upstreams.targets[0]
                following.release()
            await until(lambda: len(upstreams.standings) == 2)
            assert ("p0", "http://10.0.0.1:8000") in upstreams.standings
            lease.release()
            await until(lambda: [*upstreams.standings] == [("p0", "http://10.0.0.4:8000")])

    async def test_one_that_cannot_be_asked_keeps_what_it_has_over_a_reload_too(
        self, front: Front, names: Names
    ) -> None:
        names.found = ["10.0.0.1"]
        async with front.before({"urls": ["dns+http://engines.example:8000"]}) as upstreams:
            names.found = []
            after = pools.Upstreams(
                upstreams.settings, upstreams.connections, upstreams.standings, addresses=upstreams.addresses
            )
            await after.prepare()
            assert [look.target for look in report.targets(after)] == ["http://10.0.0.1:8000"]


async def test_what_a_pool_says_with_each_request_is_said(front: Front, simulator: StartSimulator) -> None:
    upstream = await simulator()
    async with front.before({"urls": [upstream.url], "headers": {"X-Tenant": "a b"}}) as upstreams:
        await ask(upstreams)
    assert upstream.calls[0].headers["X-Tenant"] == "a b"
