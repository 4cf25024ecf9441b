"""Claims about what is asked beside calls: which models there are, and how long a prompt is (HTTP-12, COM-29)."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from aiohttp import web

from proxy.admission.limits import Taken
from proxy.admission.memory_limiter import MemoryLimiter
from proxy.call import lookups
from proxy.call.prompt_count import INLINE_CHARS
from proxy.call.thread_pool import LARGE_BODY_BYTES, THREADS, Job
from proxy.downstream import surface
from proxy.downstream.browsers import Browsers, nothing
from proxy.downstream.phase import LIFECYCLE, Lifecycle, Phase
from proxy.downstream.request import Request
from proxy.simulation.wire import Script
from tests import caller
from tests.conftest import StartSimulator
from tests.proxy.conftest import Running, StartGateway
from translators.dashscope import call as dashscope_call
from translators.dashscope import tongue

MODELS, TOKENIZER = "/api/v1/models", "/api/v1/tokenizer"
NOBODY = "http://127.0.0.1:1"


def keyed(directory: Path, said: str) -> dict[str, str]:
    """Settings by which the callers' key is known, with these lines of its own."""
    digest = hashlib.sha256(caller.KEY.encode()).hexdigest()
    keys, ours = directory / "keys.toml", directory / "upstream.key"
    keys.write_text(f'[[key]]\nname = "team a"\nsha256 = "{digest}"\n{said}\n')
    ours.write_text("sk-ours")
    return {"keys_file": str(keys), "upstream_api_key_file": str(ours)}


async def listed(front: Running, query: str = "") -> list[str]:
    answer = await caller.ask(front.url, b"", path=f"{MODELS}?page_size=100{query}", method="GET")
    return [row["model"] for row in answer.json["output"]["models"]]


async def tokens(front: Running, text: str, *before: caller.Json) -> caller.Answer:
    """What is said of a prompt whose user has said this last."""
    messages = [*before, {"role": "user", "content": text}]
    return await caller.ask(front.url, {"model": "deepseek-v3", "input": {"messages": messages}}, path=TOKENIZER)


async def test_a_caller_sees_the_models_it_may_call_and_no_others(gateway_before: StartGateway, tmp_path: Path) -> None:
    """KEY-1; in any spelling a call may use."""
    anybody = await gateway_before(NOBODY, aliases={"qwen-turbo": "deepseek-r1"})
    assert await listed(anybody) == [*anybody.house.catalogue.names]
    assert await listed(anybody, "&model=qwen-turbo") == ["qwen-turbo"]
    assert await listed(anybody, "&model=gpt-4o") == []
    one = await gateway_before(
        NOBODY, aliases={"qwen-turbo": "deepseek-r1"}, **keyed(tmp_path, 'models = ["deepseek-r1"]')
    )
    assert sorted(await listed(one)) == ["deepseek-r1", "qwen-turbo"]
    assert await listed(one, "&model=qwen-turbo") == ["qwen-turbo"]
    assert await listed(one, "&model=deepseek-v3") == []
    every = await gateway_before(NOBODY, **keyed(tmp_path, ""))
    assert await listed(every) == [*every.house.catalogue.names]


@pytest.mark.parametrize(
    ("first", "text"),
    [("Hi", "你是谁？"), ("Hi", "a" + " b" * INLINE_CHARS), ("/" * LARGE_BODY_BYTES, "a b")],
    ids=["short", "long to count", "long to read"],
)
async def test_the_tokens_are_those_of_what_the_user_said_last_and_the_length_is_that_of_a_call(
    simulator: StartSimulator, gateway_before: StartGateway, first: str, text: str
) -> None:
    """By the loop, or by a thread beside it."""
    front = await gateway_before((await simulator(Script(text="hi", usage="never"))).url)
    turns = ({"role": "user", "content": first}, {"role": "assistant", "content": "Yes?"})
    said = (await tokens(front, text, *turns)).json
    assert "".join(said["output"]["tokens"]) == text
    vocabulary = front.house.vocabulary
    assert said["output"]["token_ids"] == vocabulary.encode(text)
    body = {"model": "deepseek-v3", "input": {"messages": [*turns, {"role": "user", "content": text}]}}
    assert said["usage"] == {"input_tokens": (await caller.ask(front.url, body)).json["usage"]["input_tokens"]}


async def test_it_is_one_of_the_calls_of_a_minute_and_takes_nothing_else(
    gateway_before: StartGateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LIM-1: no tokens, and no place among those that are open; of all, and of a key by its own limits."""
    reserve, taken = MemoryLimiter.reserve, list[object]()

    async def kept(*asked: Any) -> object:
        taken.append(await reserve(*asked))
        return taken[-1]

    monkeypatch.setattr(MemoryLimiter, "reserve", kept)
    front = await gateway_before(NOBODY, limits="rpm=2 tpm=1 concurrency=1")
    assert [(await tokens(front, "a b c d")).status for _ in range(3)] == [200, 200, 429]
    assert (await caller.ask(front.url, b"", path=MODELS, method="GET")).fault[1] == "Throttling.RateQuota"
    assert isinstance(front.house.limiter, MemoryLimiter)
    assert [*front.house.limiter._buckets] == ["all:rpm"]
    front = await gateway_before(NOBODY, limits="tpm=1 concurrency=1")
    assert [(await tokens(front, "a b c d")).status for _ in range(3)] == [200] * 3
    front = await gateway_before(NOBODY, **keyed(tmp_path, 'limits = "rpm=1"'))
    assert [(await tokens(front, "a b c d")).status for _ in range(2)] == [200, 429]
    # Of what is not settled a limiter in a Redis goes on to hold the lease.
    assert [one._open for one in taken if isinstance(one, Taken)] == [False] * 3


async def test_what_a_call_may_not_say_in_its_head_is_refused_here_too(gateway_before: StartGateway) -> None:
    front = await gateway_before(NOBODY)
    body = {"model": "deepseek-v3", "input": {"prompt": "x"}}
    answer = await caller.ask(front.url, body, {"X-DashScope-Async": "enable"}, path=TOKENIZER)
    assert answer.fault == (await caller.ask(front.url, caller.call(), {"X-DashScope-Async": "enable"})).fault
    assert answer.status == 403


async def test_who_comes_when_the_process_ends_is_sent_elsewhere(gateway_before: StartGateway) -> None:
    """OPS-2."""
    front = await gateway_before(NOBODY)
    front.process.calls.runner.app[LIFECYCLE].phase = Phase.CUTTING
    assert (await tokens(front, "a")).fault[:2] == (503, "ModelUnavailable")
    assert (await caller.ask(front.url, caller.call())).headers["Retry-After"] == "1"
    assert (await caller.ask(front.url, b"", path=MODELS, method="GET")).fault[:2] == (503, "ModelUnavailable")


async def test_a_body_that_does_not_come_is_not_waited_for(gateway_before: StartGateway) -> None:
    """ERR-5."""
    front = await gateway_before(NOBODY, body_timeout=0.1)
    async with caller.dial(front.url) as line:
        line.send(caller.request(caller.call(), path=TOKENIZER)[:-5])
        assert (await line.answer()).fault[:2] == (400, "InvalidParameter")
    assert not front.house.open_calls


async def test_one_that_is_counted_for_too_long_is_counted_no_more(gateway_before: StartGateway) -> None:
    """ERR-5, USE-8: what nobody waits for any more leaves the queue."""
    front, go_on = await gateway_before(NOBODY, first_token_timeout=0.1), threading.Event()
    pool = front.house.counting

    def held() -> Iterator[int]:
        go_on.wait()
        yield 0

    before = [Job(held(), 1, 0, lambda *_: None) for _ in range(THREADS)]
    try:
        for job in before:
            pool.put(job)
        assert (await tokens(front, "a" * (INLINE_CHARS + 1))).fault[:2] == (500, "RequestTimeOut")
        assert pool.waiting_chars == len(before)
    finally:
        go_on.set()


async def test_one_that_is_counted_keeps_no_other_body_from_being_read(gateway_before: StartGateway) -> None:
    """REQ-11: a large packed body is one at a time until it is read, and no longer."""
    front, go_on = await gateway_before(NOBODY), threading.Event()
    pool, turns = front.house.counting, front.house.open_bodies.turns

    def held() -> Iterator[int]:
        go_on.wait()
        yield 0

    body = {"model": "deepseek-v3", "input": {"prompt": "a b " * LARGE_BODY_BYTES}}
    packed = gzip.compress(orjson.dumps(body))
    try:
        for _ in range(THREADS):
            pool.put(Job(held(), 1, 0, lambda *_: None))
        asking = asyncio.create_task(caller.ask(front.url, packed, {"Content-Encoding": "gzip"}, path=TOKENIZER))
        while pool.waiting_chars <= THREADS:  # noqa: ASYNC110 - a pool tells nobody
            await asyncio.sleep(0.005)
        assert not turns.locked()
    finally:
        go_on.set()
    assert (await asking).status == 400


async def test_who_leaves_before_its_body_is_there_gets_no_answer(gateway_before: StartGateway) -> None:
    """A read may find it before the handler is cancelled: that is no bug of ours."""
    house, told = (await gateway_before(NOBODY)).house, asyncio.get_running_loop().create_future()

    async def handler(request: web.Request) -> web.StreamResponse:
        asked: Any = Request(request, tongue)
        assert request.transport is not None
        request.transport.abort()
        try:
            await lookups.tokens(house, asked, dashscope_call.prompted)
        except BaseException as error:
            told.set_result(type(error))
            raise
        told.set_result(None)
        return web.Response()

    app = web.Application()
    app[LIFECYCLE], app[surface.BROWSERS] = Lifecycle(), Browsers(nothing)
    app.router.add_post("/", handler)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        host, port = runner.addresses[0]
        async with caller.dial(f"http://{host}:{port}") as line:
            line.send(caller.request(caller.call(), path="/")[:-5])
            assert await line.eof() == b""
        assert await told is asyncio.CancelledError
    finally:
        await runner.cleanup()
