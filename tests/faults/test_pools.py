"""P · Pools of upstreams that fail: who is asked instead, who is asked again, what a caller sees (spec ERR-4, POOL)."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Protocol

import pytest
import pytest_asyncio

from config.values import toml
from proxy.simulation.simulator import Simulator
from proxy.simulation.wire import Script
from tests import caller
from tests.faults.conftest import Stage, Stand, frame
from tests.faults.matrix import row

pytestmark = pytest.mark.asyncio(loop_scope="module")

BROKEN = (500, "InternalError")
WORDS = "one two three four five six"


class Fleet(Protocol):
    """`stand, one, other = await fleet({"max_in_flight": 1}, {"priority": 1}, failover_on=[429])`, a pool for each."""

    async def __call__(self, *entries: dict[str, Any], **said: object) -> tuple[Stand, Simulator, Simulator]: ...


def written(file: Path, entries: list[dict[str, Any]], said: dict[str, object]) -> None:
    text = "".join(f"{name} = {toml(value)}\n" for name, value in said.items())
    for number, entry in enumerate(entries):
        fields = {"name": f"p{number}", **entry}
        text += "[[pools]]\n" + "".join(f"{name} = {toml(value)}\n" for name, value in fields.items())
    file.write_text(text)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "pools.toml"


@pytest_asyncio.fixture(loop_scope="module")
async def fleet(stage: Stage, file: Path) -> AsyncIterator[Fleet]:
    async with AsyncExitStack() as stack:

        async def start(*entries: dict[str, Any], **said: object) -> tuple[Stand, Simulator, Simulator]:
            upstreams = [await stack.enter_async_context(Simulator(Script(text=WORDS))) for _ in entries]
            placed = [{"urls": [upstream.url], **entry} for upstream, entry in zip(upstreams, entries, strict=True)]
            written(file, placed, said)
            one, other = upstreams
            return await stage("--config", str(file), upstream=one), one, other

        yield start


def attempts(stand: Stand) -> list[list[tuple[str, str]]]:
    """Pool and result of each try of each call, in the order in which they ended."""
    calls = [line["attempts"] for line in stand.lines if line["event"] == "call"]
    return [[(one["pool"], one["result"]) for one in tries] for tries in calls]


async def logged(stand: Stand, event: str) -> dict[str, Any]:
    """The first line of an event, once it is there."""
    async with asyncio.timeout(20):
        while not (found := [line for line in stand.lines if line["event"] == event]):  # noqa: ASYNC110 - of a process
            await asyncio.sleep(0.01)
    return found[0]


@row("an `event:error` 500 where it had begun, the answer from then on", figure="one call; two tries of the next")
async def test_f115_an_engine_that_dies_costs_the_calls_that_had_begun_there(fleet: Fleet) -> None:
    stand, one, other = await fleet({}, {"priority": 1})
    stand.next(Script(text=WORDS, gap_s=0.05, stall_after=3))
    async with stand.frees("upstream_cut") as named:
        begun = asyncio.create_task(stand.ask(headers=named))
        await one.until(lambda: bool(one.calls) and one.calls[0].events == 3)
        await one.__aexit__(None, None, None)
        assert frame((await begun).body) == BROKEN
    for _ in range(2):
        async with stand.frees("ok") as named:
            assert caller.text((await stand.ask(headers=named)).body) == WORDS
    assert attempts(stand)[1:] == [[("p0", "unreachable"), ("p1", "200")], [("p1", "200")]]
    assert len(other.calls) == 2


@row("three times 500 `InternalError`, then the answer", freed="", figure="out after three, checks or none")
async def test_f116_an_engine_whose_list_answers_and_whose_calls_fail_is_left(fleet: Fleet) -> None:
    stand, one, _ = await fleet({}, {"priority": 1}, health_interval=0.05)
    one.script = Script(status=500)
    for _ in range(3):
        assert (await stand.ask()).fault[:2] == BROKEN
    checks = len(one.calls) + 3
    await one.until(lambda: len(one.calls) > checks)
    assert (await stand.ask()).status == 200
    await logged(stand, "target_out")
    assert not [line for line in stand.lines if line["event"] == "target_well"]


@row("503 `ModelServingError`, `Retry-After: 1`", figure="max_in_flight 1: upstream is asked once")
async def test_f117_where_nothing_is_free_nobody_is_asked(fleet: Fleet) -> None:
    stand, one, other = await fleet({"max_in_flight": 1}, {"models": ["deepseek-r1"]})
    stand.next(Script(first_byte_delay_s=30))
    held = asyncio.create_task(stand.ask())
    await one.call(1)
    refused = await stand.ask()
    assert refused.fault[:2] == (503, "ModelServingError")
    assert refused.headers["Retry-After"] == "1"
    assert (len(one.calls), other.calls) == (1, [])
    held.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await held
    # Its place is free as soon as the process has seen that its caller has left.
    assert await one.calls[0].over() == "aborted"
    async with stand.frees("ok") as named:
        assert (await stand.ask(headers=named)).status == 200


@row("500 `InternalError` while all of them fail, the answer once one does not", figure="no wait for a time out")
async def test_f118_where_all_are_out_the_least_bad_serves(fleet: Fleet) -> None:
    stand, one, other = await fleet({}, {})
    one.script = other.script = Script(status=500)
    async with asyncio.timeout(20):
        while stand.served.output.count('"target_out"') < 2:
            assert (await stand.ask()).fault[:2] == BROKEN
    one.script = other.script = Script(text=WORDS)
    async with stand.frees("ok") as named:
        assert (await stand.ask(headers=named)).status == 200


@row("the answer; where a token was out an `event:error`", figure="failover_on: two tries, after a token one")
async def test_f119_a_status_that_says_nothing_was_done_is_asked_elsewhere(fleet: Fleet) -> None:
    statuses = [429, 503, 529]
    stand, _, other = await fleet({}, {"priority": 1}, failover_on=statuses)
    for status in statuses:
        stand.next(Script(status=status, retry_after="30"))
        async with stand.frees("ok") as named:
            assert caller.text((await stand.ask(headers=named)).body) == WORDS
        stand.next(Script(text=WORDS, error_event_after=3, error_event_status=status))
        async with stand.frees("upstream_error", "throttled") as named:
            assert b"event:error" in (await stand.ask(headers=named)).body
    first = [[("p0", str(status)), ("p1", "200")] for status in statuses]
    assert attempts(stand) == [tries for one in first for tries in (one, [("p0", "200")])]
    assert len(other.calls) == len(statuses)


@row("503 `ModelUnavailable`, then the answer", figure="named once in the log, on `/pools`; found by a reload at once")
async def test_f120_a_name_without_an_address_is_unavailable_until_it_has_one(fleet: Fleet, file: Path) -> None:
    stand, one, other = await fleet({"urls": ["dns+http://nowhere.invalid:1"]}, {"models": ["deepseek-r1"]})
    async with stand.frees("rejected") as named:
        answer = await stand.ask(headers=named)
    assert answer.fault[:2] == (503, "ModelUnavailable")
    assert b"nowhere" not in answer.body
    assert (await logged(stand, "name_not_found"))["target"] == "dns+http://nowhere.invalid:1"
    admin = await asyncio.to_thread(lambda: stand.served.admin_url)
    shown = await caller.ask(admin, b"", {"Connection": "close"}, path="/pools.json", method="GET")
    found = {one["target"]: (one["state"], one["last_error"]) for one in shown.json["targets"]}
    assert found["dns+http://nowhere.invalid:1"] == ("out", "no_address")
    written(file, [{"urls": [one.url.replace("http://127.0.0.1", "dns+http://localhost")]}], {})
    stand.served.process.send_signal(signal.SIGHUP)
    await logged(stand, "reloaded")
    async with stand.frees("ok") as named:
        assert (await stand.ask(headers=named)).status == 200
    assert other.calls == []


@row("the answer, of the calls on their way with the old key, too", figure="two tries each; a mounted Secret's link")
async def test_f121_a_key_that_is_renewed_costs_no_call(fleet: Fleet, tmp_path: Path) -> None:
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "key").write_text(f"sk-{name}")
    (tmp_path / "data").symlink_to("old")
    stand, one, other = await fleet({"api_key_file": str(tmp_path / "data" / "key")}, {"priority": 1})
    one.script = Script(text=WORDS, key="sk-new", first_byte_delay_s=0.2)
    (tmp_path / "next").symlink_to("new")
    (tmp_path / "next").rename(tmp_path / "data")
    answers = await asyncio.gather(*(stand.ask() for _ in range(4)))
    assert [caller.text(answer.body) for answer in answers] == [WORDS] * 4
    assert "target_out" not in stand.served.output
    assert other.calls == []


@row("the answer, as it began", figure="one line with every complaint; the stream that is open ends whole")
async def test_f122_a_configuration_that_is_broken_changes_nothing(fleet: Fleet, file: Path) -> None:
    stand, one, _ = await fleet({}, {"models": ["deepseek-r1"]})
    stand.next(Script(text=WORDS, repeat=8, gap_s=0.05))
    async with stand.frees("ok") as named:
        begun = asyncio.create_task(stand.ask(headers=named))
        await one.until(lambda: bool(one.calls) and one.calls[0].events > 3)
        written(file, [{"urls": [one.url]}, {"name": "p0", "url": "http://a"}], {})
        stand.served.process.send_signal(signal.SIGHUP)
        assert len((await logged(stand, "reload_refused"))["reason"]) == 2
        assert caller.text((await begun).body) == WORDS * 8
    async with stand.frees("ok") as named:
        assert caller.text((await stand.ask(headers=named)).body) == WORDS


@row("an error of its own each, three times, then the answer", figure="out after three: first_token_timeout 0.3 s")
async def test_f123_an_engine_that_begins_and_says_nothing_is_left(fleet: Fleet) -> None:
    stand, one, other = await fleet({"first_token_timeout": 0.3}, {"priority": 1})
    broken = Script(replay=b'data: {"error": {"message": "no", "code": 503}}\n\n')
    stand.next(Script(stall_after=0), Script(cut_after=0, cut_by="rst"), broken)
    for outcome in ("timeout_first_token", "upstream_cut", "upstream_error"):
        async with stand.frees(outcome) as named:
            assert (await stand.ask(headers=named)).status in {500, 503}
    async with stand.frees("ok") as named:
        assert caller.text((await stand.ask(headers=named)).body) == WORDS
    assert (await logged(stand, "target_out"))["reason"] == "503"
    assert (len(one.calls), len(other.calls)) == (3, 1)
