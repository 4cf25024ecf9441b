"""J · Attacks that were tried and held: each once more against the real process (spec HTTP-14, ERR-3, ERR-4)."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from proxy.simulation.simulator import Simulator
from proxy.simulation.wire import Script
from tests import caller, lint
from tests.faults import attacks
from tests.faults.conftest import Stage, Stand, standing
from tests.faults.matrix import row
from tests.faults.test_cost import KEYED_CPU_S, Spent
from translators import tokens

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(120)]

FLAGS = ("--header-timeout", "1", "--body-timeout", "1")
TIMEOUTS = ("--first-token-timeout", "1", "--idle-timeout", "1", "--total-timeout", "4")
INCREMENTAL = caller.call(incremental_output=True)
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.mark.parametrize("name", attacks.REFUSED)
@row("one answer of its own, 400, 401 or 404, then the end", freed="the connection", figure="upstream unasked, no echo")
async def test_f101_a_request_that_is_none_has_one_answer_and_asks_nobody(stand: Stand, name: str) -> None:
    wire, statuses = attacks.REFUSED[name]
    async with asyncio.timeout(20), caller.dial(stand.url) as line:
        line.send(wire + SMUGGLED)
        answer = await line.answer(bodiless=False)
        assert answer.status in statuses
        with contextlib.suppress(ConnectionError):
            assert b"/smuggled" not in await line.eof()
    assert b"sk-secret" not in answer.body
    assert not stand.upstream.calls
    await stand.settled()


@pytest.mark.parametrize("name", attacks.TAKEN)
@row("200", figure="odd, and a call like any other")
async def test_f102_an_odd_request_is_a_call_like_any_other(stand: Stand, name: str) -> None:
    before = len(stand.upstream.calls)
    async with asyncio.timeout(20), caller.dial(stand.url) as line:
        line.send(attacks.TAKEN[name])
        head = await line.head()
        if head.status == 100:
            head = await line.head()
        assert (await line.answer(head)).status == 200
    assert len(stand.upstream.calls) == before + 1
    stand.upstream.calls.clear()
    await stand.settled()


@pytest.mark.parametrize("name", attacks.UNREADABLE)
@row("400 `InvalidParameter`, then 200 on the same connection", figure="numbers and depths that no parser takes")
async def test_f104_what_no_parser_takes_is_refused_and_the_connection_serves_on(stand: Stand, name: str) -> None:
    async with asyncio.timeout(20), caller.dial(stand.url) as line:
        line.send(attacks.UNREADABLE[name])
        assert (await line.answer()).fault[:2] == (400, "InvalidParameter")
        line.send(caller.request(caller.call()))
        assert (await line.answer()).status == 200
    stand.upstream.calls.clear()
    await stand.settled()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def attacked(
    vocabulary: tokens.Vocabulary, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[tuple[Stand, attacks.Server]]:
    """A process and the hostile server that it calls."""
    directory = tmp_path_factory.mktemp("serve")
    async with (
        attacks.serving() as hostile,
        Simulator(vocabulary=vocabulary) as unused,
        standing(unused, (hostile.url,), TIMEOUTS, {}, directory) as stand,
    ):
        yield stand, hostile


@pytest.mark.parametrize("name", attacks.HOSTILE)
@row(
    "a status of its own, or packets that end in a finish or an error frame",
    figure="within the limits of waits; the next call is well",
)
async def test_f103_whatever_upstream_says_its_caller_is_told_one_end(
    attacked: tuple[Stand, attacks.Server], name: str
) -> None:
    stand, upstream = attacked
    attack = attacks.HOSTILE[name]
    upstream.say = attack.say
    async with asyncio.timeout(30):
        answer = await stand.ask(INCREMENTAL)
    assert answer.status in attack.statuses
    if answer.status == 200:
        assert not lint.check(answer.body, incremental=True)
        if attack.ends is not None:
            assert (b"event:error\n" not in answer.body) is attack.ends
    upstream.say = attacks.streamed(attacks.WELL)
    assert caller.text((await stand.ask(INCREMENTAL)).body) == "one two"
    await stand.settled()


@pytest.mark.parametrize(
    "later",
    [
        attacks.OK + attacks.chunked(attacks.event({"content": "of another"}, "stop")) + b"0\r\n\r\n",
        attacks.JSON_HEAD % 2 + b"{}",
        b"HTTP/1.1 408 Request Time-out\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        b"junk",
    ],
    ids=["events", "JSON", "408", "junk"],
)
@row("its own answer", figure="a whole answer, a 408 or bytes of no kind, 50 ms after the last answer")
async def test_f105_what_an_idle_connection_says_is_nobodys_answer(stage: Stage, later: bytes) -> None:
    async with attacks.serving() as upstream:
        stand = await stage("--upstream-keepalive-timeout", "4", targets=(upstream.url,))
        upstream.keeps, upstream.later = True, later
        assert caller.text((await stand.ask(INCREMENTAL)).body) == "one two"
        await asyncio.sleep(3 * attacks.LATER_S)
        answer = await stand.ask(INCREMENTAL)
        assert caller.text(answer.body) == "one two"
        assert upstream.asked == 2


@row("the answer", figure="64 stops that nearly match 30,000 characters: ≤ 0.3 s of the processor in the loop")
async def test_f106_stops_that_nearly_match_cost_little(stand: Stand) -> None:
    stops = ["a" * 50 + chr(ord("b") + number % 20) + str(number) for number in range(64)]
    stand.upstream.scripts.append(Script(text="a" * 30_000, usage="never"))
    spent = Spent(stand.served.process.pid)
    assert (await stand.reply(caller.call(stop=stops))).status == 200
    assert spent.loop_s < KEYED_CPU_S
    stand.upstream.calls.clear()


@row(
    "all of it",
    figure="1,500 tokens with five alternatives each, in cumulative packets: ≤ 16 MB, ≤ 1 s of the processor",
)
async def test_f107_log_probabilities_are_not_said_again(stand: Stand) -> None:
    stand.upstream.scripts.append(Script(text="word " * 1_500, deltas_per_write=50))
    spent = Spent(stand.served.process.pid)
    answer = await stand.ask(caller.call(logprobs=True, top_logprobs=5))
    assert answer.status == 200
    assert len(answer.body) < 16_000_000
    assert spent.loop_s < 1
    stand.upstream.calls.clear()


@row("400 `InvalidParameter`, 429", figure="our key and hosts in upstream's words, twelve forms of `Retry-After`")
async def test_f108_neither_our_key_nor_a_host_nor_any_header_comes_back(stage: Stage) -> None:
    key = "token-abc123"
    stand = await stage(env={"DASHSEEK_UPSTREAM_API_KEY": key})
    host = stand.upstream.url.removeprefix("http://")
    secrets = (key, host, "gpu-node-3:8000", "[fd00::1]:8000", "api.corp.example.dev:443", "password: hunter2")
    for secret in secrets:
        stand.next(Script(status=400, error_text=f"Invalid temperature {secret} at once"))
        answer = await stand.reply()
        assert answer.fault[:2] == (400, "InvalidParameter")
        assert secret.encode() not in answer.body
    for said in ("-1", "1e9", "9" * 30, "soon", "1;2", "<b>", "0x10", "1.5", "²", "1 2", "99999999", "\x01"):
        stand.next(Script(status=429, retry_after=said))
        told = (await stand.reply()).headers.get("Retry-After")
        assert told is None or (told.isascii() and told.isdigit() and len(told) < 8)
    assert key not in stand.served.output


@pytest.mark.parametrize(
    "told", [{"completion_tokens": 1 << 39}, {"prompt_tokens": 1 << 39}, {"completion_tokens": -1}]
)
@row("our own count", figure="usage that no model can have is not billed; cached tokens are at most the prompt's")
async def test_f109_figures_that_cannot_be_are_not_billed(
    attacked: tuple[Stand, attacks.Server], told: dict[str, object]
) -> None:
    stand, upstream = attacked
    upstream.say = attacks.streamed(attacks.usage(**told, prompt_cache_hit_tokens=1 << 20))
    used = caller.packets((await stand.ask(INCREMENTAL)).body)[-1]["usage"]
    assert used["total_tokens"] < 100
    assert used.get("prompt_tokens_details", {}).get("cached_tokens", 0) <= used["input_tokens"]
    upstream.say = attacks.streamed(attacks.WELL)


def keys(secret: str) -> bytes:
    digest = hashlib.sha256(secret.encode()).hexdigest()
    return f'[[key]]\nname = "a"\nsha256 = "{digest}"\n'.encode()


@row("200 for who is in the old file, then 401 for who is struck off", figure="seen by the process within 2.5 s")
async def test_f110_a_keys_file_that_is_emptied_or_keeps_its_time_is_read_right(stage: Stage, tmp_path: Path) -> None:
    path = tmp_path / "keys.toml"
    path.write_bytes(keys("old"))
    known = path.stat()
    stand = await stage("--keys-file", str(path), env={"DASHSEEK_UPSTREAM_API_KEY": "sk-ours"})
    old, new = {"Authorization": "Bearer old"}, {"Authorization": "Bearer new"}
    assert (await stand.reply(headers=old)).status == 200
    path.write_bytes(b"")
    await asyncio.sleep(1.5)
    assert (await stand.reply(headers=old)).status == 200
    path.write_bytes(keys("new"))
    os.utime(path, ns=(known.st_atime_ns, known.st_mtime_ns))
    async with asyncio.timeout(5):
        while (await stand.reply(headers=new)).status != 200:  # noqa: ASYNC110 - a process tells nobody
            await asyncio.sleep(0.1)
    assert (await stand.reply(headers=old)).status == 401


@row(
    "200 for the call and for what is whole behind it, one 400 for garbage",
    figure="3 MB of requests behind a stream are not taken in: ≤ 4 MiB",
)
async def test_f111_what_stands_behind_a_request_is_answered_in_its_turn(stand: Stand) -> None:
    healthy = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    async with asyncio.timeout(10), caller.dial(stand.url) as line:
        line.send(caller.request(b"", method="HEAD") + healthy)
        assert (await line.answer(bodiless=True)).status == 400
        assert (await line.answer()).status == 200
    async with asyncio.timeout(10), caller.dial(stand.url) as line:
        line.send(healthy + b"garbage\r\n\r\n")
        answers = await line.eof()
        assert answers.count(b"HTTP/1.1 ") <= 2
        assert b"HTTP/1.1 400" in answers
    spent = Spent(stand.served.process.pid)
    stand.upstream.scripts.append(Script(text="one two", gap_s=0.1))
    async with asyncio.timeout(20), caller.dial(stand.url) as line:
        line.send(caller.request(INCREMENTAL, caller.SSE) + healthy * (3_000_000 // len(healthy)))
        assert caller.text((await line.answer()).body) == "one two"
        for _ in range(20):
            assert (await line.answer()).status == 200
        assert spent.peak_bytes < 4 << 20
    stand.upstream.calls.clear()


@pytest.mark.parametrize(
    "name", ["\x1b[2J\r\nlevel=error", "a" * 1_000_000, "\u2028\ud7ff\0"], ids=["escapes", "1 MB", "marks"]
)
@row(
    "400 `InvalidParameter`", figure="a model's name is cut at 64 and escaped in one line of the log; ids are replaced"
)
async def test_f112_no_name_makes_a_line_of_the_log(stand: Stand, name: str) -> None:
    before = len(stand.served.output)
    answer = await stand.reply(caller.call(model=name), {"X-Request-Id": "a\tb" * 50})
    assert answer.fault[:2] == (400, "InvalidParameter")
    assert len(answer.body) < 1_000
    await stand.settled()
    said = stand.served.output[before:]
    assert len(said) < 4_000
    assert "\x1b" not in said
    assert all(line.startswith("{") for line in said.splitlines())
    assert not stand.upstream.calls
