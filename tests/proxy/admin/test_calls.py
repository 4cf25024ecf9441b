"""Claims about `/calls` of the admin port: what is listed, told live and taken away, by whom, and how much at once."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from config.values import toml
from proxy.admin import calls, docs
from proxy.inspector import call_file, copies
from proxy.inspector.recent_calls import RecentCalls
from proxy.telemetry import installed
from tests import caller
from tests.caller import Json, Line
from tests.conftest import StartSimulator
from tests.proxy.conftest import Running, StartGateway

COMPATIBLE = "/compatible-mode/v1/chat/completions"


async def got(front: Running, path: str, **headers: str) -> caller.Answer:
    """An answer of the admin port, whose documents are kept nowhere and read by no other page."""
    said = {"Content-Length": "", "Authorization": "", **{name.replace("_", "-"): it for name, it in headers.items()}}
    answer = await caller.ask(front.admin_url, b"", said, path=path, method="GET")
    if path != "/calls" and answer.status == 200:
        assert docs.HEADERS.items() <= {**answer.headers}.items()
        assert (answer.headers["cache-control"], answer.headers["content-type"]) == ("no-store", "application/json")
    return answer


@pytest.fixture
async def front(simulator: StartSimulator, gateway_before: StartGateway) -> Running:
    return await gateway_before((await simulator()).url, inspect=True)


def recent_of(front: Running) -> RecentCalls:
    assert front.recent is not None
    return front.recent


def begun(front: Running, number: int = 1) -> None:
    """So many calls that have come in, and go on."""
    for _ in range(number):
        recent_of(front).begin("POST", "/", "dashscope", "r", {})


async def test_calls_are_listed_with_what_they_may_take(front: Running) -> None:
    begun(front, 2)
    recent = recent_of(front)
    assert (await got(front, "/calls/list")).json == {
        "calls": [call_file.summary_of(call) for call in recent],
        "held_bytes": recent.held_bytes,
        "most_calls": 200,
        "most_call_bytes": 2 << 20,
        "most_bytes": 256 << 20,
    }


async def test_a_call_is_taken_away_whole_redacted_or_as_an_archive(front: Running) -> None:
    """By its number or its request id."""
    answer = await caller.ask(front.url, caller.call("Tell me of the sea."))
    await front.end_of()
    (call,) = recent_of(front)
    document = orjson.loads(orjson.dumps(call_file.document_of(call)))
    whole = (await got(front, "/calls/1")).json
    account = whole.pop("account")
    assert whole == {**document, "not_offered": copies.not_offered(document)}
    assert {"field": "model", "action": "renamed"}.items() <= account[0].items()
    assert (await got(front, f"/calls/{answer.headers['x-request-id']}")).json["number"] == 1
    shared = await got(front, "/calls/1?redact")
    assert (shared.json["redacted"], "account" in shared.json, b"the sea" in shared.body) == (True, False, False)
    log = (await got(front, "/calls/1.har")).json["log"]
    assert (log["creator"]["version"], len(log["entries"])) == (installed.version_of("dashseek"), 2)
    for path in ("/calls/2", "/calls/2.har", "/calls/another", "/calls/2?redact"):
        assert (await got(front, path)).fault[:2] == (404, "NotFound")


@pytest.mark.parametrize(
    ("site", "status"), [("cross-site", 403), ("same-site", 403), ("same-origin", 200), ("none", 200), ("", 200)]
)
async def test_only_our_own_page_and_who_is_no_browser_may_read_them(front: Running, site: str, status: int) -> None:
    begun(front)
    for path in ("/calls/list", "/calls/1", "/calls/1.har"):
        answer = await got(front, path, Sec_Fetch_Site=site)
        assert answer.status == status
        assert status == 200 or answer.fault[:2] == (403, "AccessDenied")
    if status == 403:
        assert (await got(front, "/calls/events", Sec_Fetch_Site=site)).status == 403


async def test_the_page_names_the_port_that_is_called(front: Running) -> None:
    answer = await got(front, "/calls")
    assert (answer.status, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert front.url in answer.body.decode()


@contextlib.asynccontextmanager
async def watching(front: Running) -> AsyncIterator[Line]:
    """Who looks on, from the first event on."""
    async with caller.dial(front.admin_url) as line, asyncio.timeout(30):
        line.send(caller.request(b"", {"Content-Length": "", "Authorization": ""}, path="/calls/events", method="GET"))
        head = await line.head()
        assert (head.status, head.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
        assert (head.headers["cache-control"], head.headers["x-frame-options"]) == ("no-store", "DENY")
        yield line


async def told(line: Line) -> Json:
    """The next event."""
    piece = await line.piece()
    assert piece.startswith(b"data:")
    assert piece.endswith(b"\n\n")
    event: Json = orjson.loads(piece[5:])
    return event


def numbers(event: Json) -> list[int]:
    return [call["number"] for call in event["calls"]]


async def test_who_looks_on_is_told_of_all_calls_and_then_of_what_changes(
    front: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So many at once as make an event of some kilobytes."""
    monkeypatch.setattr(calls, "EVERY_S", 0.0)
    monkeypatch.setattr(calls, "SUMMARIES_AT_ONCE", 2)
    begun(front, 5)
    recent = recent_of(front)
    async with watching(front) as line:
        first, *others = [await told(line) for _ in range(3)]
        assert [numbers(event) for event in (first, *others)] == [[1, 2], [3, 4], [5]]
        assert first["calls"][0] == call_file.summary_of(next(iter(recent)))
        assert (first["gone"], first["held_bytes"], first["most_calls"]) == ([], recent.held_bytes, 200)
        begun(front)
        assert numbers(await told(line)) == [6]
        recent.clear()
        assert [(numbers(event), event["gone"]) for event in [await told(line) for _ in range(3)]] == [
            ([], [1, 2]),
            ([], [3, 4]),
            ([], [5, 6]),
        ]


async def test_who_looks_on_before_the_first_call_is_told_that_there_is_none(front: Running) -> None:
    async with watching(front) as line:
        assert (await told(line))["calls"] == []


async def test_what_changes_is_told_a_few_times_a_second_at_most(
    front: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "EVERY_S", 3_600)
    async with watching(front) as line:
        await told(line)
        begun(front)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(line.piece(), 0.1)


async def test_who_looks_on_while_nothing_changes_hears_that_we_live_and_no_more(
    front: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "EVERY_S", 0.0)
    monkeypatch.setattr(calls, "BEAT_S", 0.01)
    async with watching(front) as line:
        await told(line)
        assert [await line.piece() for _ in range(3)] == [b":\n\n"] * 3
        begun(front)
        event = b""
        while not event.startswith(b"data:"):
            event = (await line.piece()).removeprefix(b":\n\n")
        assert numbers(orjson.loads(event.removeprefix(b"data:"))) == [1]


async def test_so_many_may_look_on_at_a_time_and_no_more(
    gateway_before: StartGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "MOST_WATCHERS", 1)
    front = await gateway_before("http://127.0.0.1:1", inspect=True)
    async with watching(front) as line:
        await told(line)
        assert (await got(front, "/calls/events")).fault[:2] == (503, "ModelServingError")


MESSAGES = [{"role": "user", "content": "Hi"}]
NATIVE: Json = {"model": "deepseek-v3.2", "input": {"messages": MESSAGES}, "parameters": {"top_k": 5, "plugins": {}}}
SEEN = [{"role": "user", "content": [{"text": "Hi"}]}]
PARTS: Json = {"model": "deepseek-v4.1-flash", "input": {"messages": SEEN}, "parameters": {"top_k": 5}}
OPENAI: Json = {"model": "deepseek-v3.2", "messages": MESSAGES, "top_k": 5}


@pytest.fixture
async def two_pools(gateway_before: StartGateway, tmp_path: Path) -> Running:
    """Before hosts of two kinds; the second has a name of its own for the model, and knows `top_k`."""
    pools = [
        {"name": "a", "urls": ["http://127.0.0.1:1"]},
        {"name": "b", "urls": ["http://127.0.0.1:2"], "map": {"deepseek-v3.2": "of-b"}, "dialect": "vllm"},
    ]
    file = tmp_path / "dashseek.toml"
    file.write_text(f"pools = {toml(pools)}\ninspect = true\n")
    return await gateway_before(config=file)


def recorded(body: Json | bytes, path: str = caller.GENERATION, *, api: str = "dashscope", pools: Any = ("a",)) -> Json:
    """As much of a call's document as tells what became of its fields."""
    said = body if isinstance(body, bytes) else orjson.dumps(body)
    asked = [{"pool": pool} for pool in pools]
    return {"caller": {"path": path, "body": call_file.coded(said)}, "api": api, "stream": True, "upstream": asked}


MULTIMODAL = "/api/v1/services/aigc/multimodal-generation/generation"
OF_A = {"model": "renamed", "parameters.top_k": "dropped"}
OF_B = {"model": "renamed", "parameters.top_k": "kept"}
PLUGINS = {"parameters.plugins": "dropped"}


@pytest.mark.parametrize(
    ("document", "actions"),
    [
        (recorded(NATIVE), OF_A | PLUGINS),
        (recorded(NATIVE, pools=("a", "b")), OF_B | PLUGINS),
        # A pool that is gone since: as the first would be asked.
        (recorded(NATIVE, pools=("gone",)), OF_A | PLUGINS),
        (recorded(PARTS, MULTIMODAL), OF_A),
        (recorded({**NATIVE, "model": ""}, "/partner/models/deepseek-v3.2"), OF_A | PLUGINS),
        (recorded(OPENAI, COMPATIBLE, api="openai"), {"model": "renamed", "top_k": "dropped"}),
        (recorded(OPENAI, COMPATIBLE, api="openai", pools=("b",)), {"model": "renamed", "top_k": "kept"}),
        (recorded(NATIVE, pools=()), {}),
        (recorded(NATIVE, api=""), {}),
        (recorded(b'{"model":"deepseek-v3.2","inp'), {}),
    ],
)
async def test_what_became_of_each_field_is_said_as_its_pool_was_asked(
    two_pools: Running, document: Json, actions: dict[str, str]
) -> None:
    lines = calls.account_of(document, two_pools.house)
    assert all([*line] == ["field", "action", "upstream", "why"] for line in lines)
    found = {line["field"]: line["action"] for line in lines}
    assert {field: found[field] for field in actions} == actions
    assert bool(lines) is bool(actions)
