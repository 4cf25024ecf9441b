"""Claims about the door: when a prompt is counted (USE-6)."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import itertools
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import orjson
import pytest

from config import sources
from config.values import toml
from proxy.admission import limits
from proxy.admission.memory_limiter import MemoryLimiter
from proxy.call import prepare
from proxy.call.thread_pool import LARGE_BODY_BYTES, THREADS, Job
from proxy.downstream.body import PLAIN_RATIO
from proxy.downstream.request import Request
from proxy.downstream.sinks import CallerGone
from proxy.simulation.wire import Script
from proxy.telemetry import log_writer, logs
from proxy.upstream import names as upstream_names
from tests import caller, pictures
from tests.conftest import StartSimulator
from tests.proxy.conftest import LOG, StartGateway
from translators import breadth, dialogue


@pytest.mark.parametrize("path", [caller.GENERATION, "/compatible-mode/v1/chat/completions", "/api/v1/tokenizer"])
async def test_a_model_that_a_key_may_not_call_is_denied_and_upstream_is_not_asked(
    simulator: StartSimulator, gateway_before: StartGateway, tmp_path: Path, path: str
) -> None:
    """KEY-1."""
    digest = hashlib.sha256(caller.KEY.encode()).hexdigest()
    keys = tmp_path / "keys.toml"
    keys.write_text(f'[[key]]\nname = "team a"\nsha256 = "{digest}"\nmodels = ["deepseek-r1"]\n')
    ours, upstream = tmp_path / "upstream.key", await simulator()
    ours.write_text("sk-ours")
    front = await gateway_before(upstream.url, keys_file=str(keys), upstream_api_key_file=str(ours))
    called = [{"role": "user", "content": "hi"}]
    for model, status in (("deepseek-v3", 403), ("deepseek-r1", 200)):
        call = {"model": model, "input": {"messages": called}, "messages": called}
        assert (await caller.ask(front.url, call, path=path)).status == status
    asked = [seen.headers["Authorization"] for seen in upstream.calls]
    assert asked == ([] if "tokenizer" in path else ["Bearer sk-ours"])


class TestCounting:
    """Spec USE-6: the prompt is counted without holding up anybody."""

    LONG = "All happy families are alike; each unhappy family is unhappy in its own way. " * 2_000

    async def test_a_long_prompt_is_counted_beside_the_upstream_call_and_to_the_token(
        self, simulator: StartSimulator, gateway_before: StartGateway
    ) -> None:
        upstream = await simulator(Script(text="hi", usage="never"))
        front = await gateway_before(upstream.url)
        answer = await caller.stream(front.url, caller.call(self.LONG, incremental_output=True))
        vocabulary = front.house.vocabulary
        text_alone = len(vocabulary.encode(self.LONG))
        counts = {packet["usage"]["input_tokens"] for packet in caller.packets(answer.body)}
        assert len(counts) == 1
        assert text_alone < counts.pop() < text_alone + 10

    async def test_nobody_waits_while_it_is_counted(
        self, simulator: StartSimulator, gateway_before: StartGateway
    ) -> None:
        front = await gateway_before((await simulator(Script(text="hi"))).url)
        # In this process's own time: what others take of the machine meanwhile is nobody's fault here.
        gaps: list[float] = []

        async def tick() -> None:
            last = time.process_time()
            while True:
                await asyncio.sleep(0)
                gaps.append((now := time.process_time()) - last)
                last = now

        ticking = asyncio.create_task(tick())
        assert (await caller.ask(front.url, caller.call(self.LONG * 4))).status == 200
        ticking.cancel()
        assert max(gaps) < 0.25

    async def test_a_prompt_beyond_the_models_limit_never_reaches_the_upstream(
        self, simulator: StartSimulator, gateway_before: StartGateway
    ) -> None:
        """Spec MOD-4."""
        upstream = await simulator()
        front = await gateway_before(upstream.url)
        limit = front.house.catalogue.find("deepseek-v3").input_tokens
        status, code, message = (await caller.ask(front.url, caller.call("a b " * limit))).fault
        assert (status, code) == (400, "InvalidParameter")
        assert message.endswith(f"Range of input length should be [1, {limit}]")
        assert not upstream.calls

    @pytest.mark.parametrize("path", [caller.GENERATION, "/api/v1/tokenizer"])
    async def test_a_prompt_of_just_the_models_limit_is_taken(
        self, simulator: StartSimulator, gateway_before: StartGateway, path: str
    ) -> None:
        """Spec MOD-4: and one of a token more is not."""
        front = await gateway_before((await simulator(Script(text="hi", usage="never"))).url)
        limit = front.house.catalogue.find("deepseek-v3").input_tokens

        async def asked(words: int) -> caller.Answer:
            return await caller.ask(front.url, caller.call("a" + " a" * (words - 1)), path=path)

        around = (await asked(1)).json["usage"]["input_tokens"] - 1
        longest = await asked(limit - around)
        assert (longest.status, longest.json["usage"]["input_tokens"]) == (200, limit)
        assert (await asked(limit - around + 1)).status == 400

    async def test_who_waits_for_a_count_is_not_told_that_the_body_was_invalid(
        self, simulator: StartSimulator, gateway_before: StartGateway
    ) -> None:
        """ERR-5: longer than body_timeout, for all of the body was there."""
        front = await gateway_before((await simulator(Script(text="hi"))).url, limits="tpm=9000000", body_timeout=0.2)
        busy, over = threading.Semaphore(0), threading.Event()

        def for_long() -> Iterator[int]:
            busy.release()
            over.wait()
            yield 1

        for _ in range(THREADS):
            front.house.counting.put(Job(for_long(), 1, sys.maxsize, lambda *_: None))
        for _ in range(THREADS):
            await asyncio.to_thread(busy.acquire)
        asking = asyncio.create_task(caller.ask(front.url, caller.call(self.LONG)))
        done, _ = await asyncio.wait([asking], timeout=0.6)
        over.set()
        assert not done
        assert (await asking).status == 200

    @pytest.mark.parametrize("limits", [None, "rpm=100 concurrency=9"])
    async def test_a_count_that_decides_nothing_is_not_waited_for(
        self, simulator: StartSimulator, gateway_before: StartGateway, limits: str | None
    ) -> None:
        """USE-6: nor where limits are of calls alone."""
        upstream, over = await simulator(Script(text="hi")), threading.Event()
        front = await gateway_before(upstream.url, limits=limits)

        def for_long() -> Iterator[int]:
            over.wait()
            yield 1

        try:
            for _ in range(THREADS):
                front.house.counting.put(Job(for_long(), 1, sys.maxsize, lambda *_: None))
            asking = asyncio.create_task(caller.ask(front.url, caller.call(self.LONG[:20_000])))
            async with asyncio.timeout(30):
                await upstream.call()
        finally:
            over.set()
        assert (await asking).status == 200


class TestHeld:
    """REQ-11: what an open call holds is what was sent, and what is made of it."""

    MANY = caller.call(ignored=[0] * 20_000)
    LARGE = caller.call("word " * 60_000, "deepseek-v4.1-flash")
    BOTH = caller.call("word " * 60_000, "deepseek-v4.1-flash", ignored=[0] * 90_000)

    @pytest.mark.parametrize("packs", [False, True], ids=["plain", "packed"])
    @pytest.mark.parametrize(
        ("call", "texts", "builds"),
        [(caller.call(), 1, False), (MANY, 1, True), (LARGE, 2, False), (BOTH, 2, True)],
        ids=["small", "many values", "large", "both"],
    )
    async def test_so_much_until_it_ends(
        self,
        simulator: StartSimulator,
        gateway_before: StartGateway,
        *,
        call: caller.Json,
        texts: int,
        builds: bool,
        packs: bool,
    ) -> None:
        """Its text is in the call, and again in what upstream is asked; a value is some hundred bytes."""
        upstream = await simulator(Script(first_byte_delay_s=30))
        front = await gateway_before(upstream.url)
        raw, bodies = orjson.dumps(call), front.house.open_bodies
        sent = gzip.compress(raw) if packs else raw
        built = 100 * breadth.parts_of(call, raw) if builds else 0
        async with caller.dial(front.url) as line:
            line.send(caller.request(sent, {"Content-Encoding": "gzip"} if packs else {}))
            await upstream.call()
            assert bodies.held_bytes == texts * len(raw) + built
            most_plain = max(LARGE_BODY_BYTES, PLAIN_RATIO * len(sent))
            assert bodies.grown_bytes == (max(0, len(raw) + built - most_plain) if packs else 0)
            assert not bodies.turns.locked()
            line.vanish()
            await front.end_of()
        assert (bodies.held_bytes, bodies.grown_bytes) == (0, 0)


class TestRefused:
    """What the books say of a call that was not sent anywhere."""

    @pytest.mark.parametrize(
        ("chosen", "pool", "before", "status", "limited"),
        [
            ({"limits": "rpm=1"}, {}, 1, 429, True),
            ({"limits": "tpm=50"}, {}, 1, 429, True),
            ({"limits": "tpd=1"}, {}, 1, 429, True),
            ({}, {"max_in_flight": 1}, 0, 503, True),
            ({}, {"urls": ["dns+http://engines.example"]}, 0, 503, False),
        ],
        ids=str,
    )
    async def test_where_there_is_no_room_it_was_limited(
        self,
        simulator: StartSimulator,
        gateway_before: StartGateway,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        *,
        chosen: dict[str, str],
        pool: dict[str, Any],
        before: int,
        status: int,
        limited: bool,
    ) -> None:
        """LIM-1, MET-1; and it says what it would have been called by who is asked first, or would be."""
        upstream = await simulator(Script(text="hi"))
        first = {"name": "p0", "urls": [upstream.url], "dialect": "vllm", **pool}
        second = {"name": "p1", "urls": ["http://127.0.0.1:1"], "dialect": "deepseek", "priority": 1, **pool}
        path, file = tmp_path / "calls.jsonl", tmp_path / "pools.toml"
        file.write_text(f"pools = {toml([first, second])}\n")
        monkeypatch.setattr(upstream_names, "addresses_of", lambda _: [])
        front = await gateway_before(config=file, journal_file=str(path), **chosen)
        for target in front.house.upstreams.targets:
            target.standing.in_flight = not before
        call = caller.call("a b c " * 9, max_tokens=20)
        assert [(await caller.ask(front.url, call)).status for _ in range(before + 1)] == [*[200] * before, status]
        record, outcome = await front.end_of(before + 1)
        assert (outcome, record.limited) == ("throttled" if limited else "rejected", limited)
        line = orjson.loads(path.read_bytes().splitlines()[-1])
        assert (line["upstream_model"], line["attempts"]) == ("deepseek-v3", [])

    async def test_the_limits_of_a_key_are_its_own(
        self, simulator: StartSimulator, gateway_before: StartGateway, tmp_path: Path
    ) -> None:
        """KEY-1, LIM-1; and the line says whose it is."""
        digest = hashlib.sha256(caller.KEY.encode()).hexdigest()
        keys, ours, path = (tmp_path / name for name in ("keys.toml", "upstream.key", "calls.jsonl"))
        keys.write_text(f'[[key]]\nname = "team a"\nsha256 = "{digest}"\nlimits = "rpm=1"\n')
        ours.write_text("sk-ours")
        chosen = {"keys_file": str(keys), "upstream_api_key_file": str(ours), "journal_file": str(path)}
        front = await gateway_before((await simulator(Script(text="hi"))).url, **chosen, limits="rpm=9")
        assert [(await caller.ask(front.url, caller.call())).status for _ in range(2)] == [200, 429]
        await front.end_of(2)
        assert {orjson.loads(line)["key_name"] for line in path.read_bytes().splitlines()} == {"team a"}

    async def test_of_one_whose_caller_is_gone_before_its_answer_begins_nothing_stays_open(
        self, simulator: StartSimulator, gateway_before: StartGateway, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As where its connection has ended, and the handler does not know it yet."""

        def gone(*_: object, **__: object) -> None:
            raise CallerGone

        monkeypatch.setattr(Request, "packets", gone)
        front = await gateway_before((await simulator()).url)
        async with caller.dial(front.url) as line:
            line.send(caller.request(caller.call(), caller.SSE))
            assert await line.eof() == b""
        record, outcome = await front.end_of()
        assert outcome == "client_gone_before_first_packet"
        assert (record.closing["basis"], record.closing["calls"]) == ("none", [])
        assert len(front.house.open_calls) == 0


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (caller.call(), []),
        (caller.call(nobody_reads=1), ["ignored"]),
        (caller.call(model="DeepSeek-V3"), ["model"]),
        (caller.call(model="DeepSeek-V3", nobody_reads=1), ["model", "ignored"]),
    ],
    ids=str,
)
@pytest.mark.parametrize("level", ["debug", "info"])
async def test_what_was_made_of_a_name_and_what_nobody_reads_is_said_to_who_looks_closely(
    simulator: StartSimulator,
    gateway_before: StartGateway,
    capfd: pytest.CaptureFixture[str],
    *,
    call: caller.Json,
    said: list[str],
    level: str,
) -> None:
    """HTTP-8, MOD-6; where no journal is kept, a line says that a call begins (MET-2)."""
    logs.configure(sources.load({"log_format": "json", "log_level": level}, None, {}), log_writer.Unthreaded(2))
    front = await gateway_before((await simulator(Script(text="hi"))).url)
    assert (await caller.ask(front.url, call)).status == 200
    record, _ = await front.end_of()
    lines = [orjson.loads(line) for line in capfd.readouterr().err.splitlines() if line.startswith("{")]
    mine = [line for line in lines if line.get("request_id") == record.request_id]
    assert [line["event"] for line in mine] == [*(said if level == "debug" else []), "open", "call"]
    assert all("at" not in line for line in mine)


@pytest.mark.parametrize("traced", [None, "4bf9"])
def test_that_a_call_begins_is_said_of_its_trace_too(capfd: pytest.CaptureFixture[str], traced: str | None) -> None:
    opening: Any = {"at": "2026-11-22T10:00:00.000Z", "request_id": "r", "model": "m"}
    logs.configure(LOG, log_writer.Unthreaded(2))
    prepare._say_open(opening, orjson.dumps(opening), traced)
    said = orjson.loads(capfd.readouterr().err)
    assert [said.pop(name) for name in ("event", "level", "timestamp")][:2] == ["open", "info"]
    assert said == {"request_id": "r", "model": "m"} | ({} if traced is None else {"trace_id": traced})


class TestImages:
    """REQ-4, REQ-11: of just a limit is taken, and one more is not; what is shown and what is written apart."""

    PICTURE = pictures.url(pictures.PNG)

    def shown(self, *urls: str, text: str = "What is it?") -> caller.Json:
        parts = [*({"image": url} for url in urls), {"text": text}]
        messages = [{"role": "user", "content": parts}]
        return {"model": "deepseek-v4.1-flash", "input": {"messages": messages}}

    @pytest.mark.parametrize("more", [0, 1])
    @pytest.mark.parametrize(
        ("setting", "number", "said"),
        [
            ("max_body_bytes", 1, "Payload Too Large."),
            ("max_image_bytes", 2, "Multimodal file size is too large"),
            ("max_images", 3, "got 3"),
        ],
    )
    async def test_limits(
        self,
        simulator: StartSimulator,
        gateway_before: StartGateway,
        *,
        setting: str,
        number: int,
        said: str,
        more: int,
    ) -> None:
        upstream = await simulator()
        body = self.shown(*[self.PICTURE] * number)
        inline_bytes = number * len(self.PICTURE)
        most = {
            "max_body_bytes": len(orjson.dumps(body)) - inline_bytes,
            "max_image_bytes": inline_bytes,
            "max_images": number,
        }
        front = await gateway_before(upstream.url, **{setting: str(most[setting] - more)})
        answer = await caller.ask(front.url, body)
        assert answer.status == (400 if more else 200), answer.body
        if more:
            assert said in answer.json["message"]
        assert len(upstream.calls) == 1 - more

    @pytest.mark.parametrize(
        ("chosen", "url", "status"),
        [
            ({"image_address": "refuse"}, "https://example.invalid/a.png", 400),
            ({"image_address": "refuse"}, PICTURE, 200),
            ({"image_type": ["gif"]}, PICTURE, 400),
            ({"image_type": ["png"]}, PICTURE, 200),
            ({"image_type": ["gif"]}, "https://example.invalid/a.png", 200),
        ],
    )
    async def test_kinds(
        self, simulator: StartSimulator, gateway_before: StartGateway, chosen: Any, url: str, status: int
    ) -> None:
        upstream = await simulator()
        front = await gateway_before(upstream.url, **chosen)
        assert (await caller.ask(front.url, self.shown(url))).status == status
        assert len(upstream.calls) == (status == 200)


class TestTrace:
    """The only headers of a caller that go upstream."""

    async def test_the_callers_trace_goes_on_and_nothing_else(
        self, simulator: StartSimulator, gateway_before: StartGateway
    ) -> None:
        upstream = await simulator()
        front = await gateway_before(upstream.url)
        trace = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "tracestate": "a=b"}
        others = {"Cookie": "c", "X-Forwarded-For": "f", "X-DashScope-WorkSpace": "w", "Connection": "authorization"}
        await caller.ask(front.url, caller.call(), trace | others)
        sent = upstream.calls[0].headers
        assert {name: sent[name] for name in trace} == trace
        assert not {*others} & {*sent}

    async def test_upstream_learns_the_id_the_caller_knows(
        self, simulator: StartSimulator, gateway_before: StartGateway
    ) -> None:
        """And nothing of a proxy before it."""
        upstream = await simulator()
        front = await gateway_before(upstream.url)
        answer = await caller.ask(front.url, caller.call(), {"Via": "1.1 other"})
        sent = upstream.calls[0].headers
        assert sent["x-request-id"] == answer.json["request_id"]
        assert "via" not in {name.lower() for name in sent}

    @pytest.mark.parametrize("header", ["tracestate", "traceparent"])
    async def test_bytes_that_are_no_text_are_left_out(
        self, simulator: StartSimulator, gateway_before: StartGateway, header: str
    ) -> None:
        upstream = await simulator()
        front = await gateway_before(upstream.url)
        assert (await caller.ask(front.url, caller.call(), {header: "a=\xff"})).status == 200
        assert header not in upstream.calls[0].headers


async def test_what_a_body_names_is_never_asked(simulator: StartSimulator, gateway_before: StartGateway) -> None:
    """Spec OPS-3: no host from a body, wherever it may stand."""
    upstream, other = await simulator(), await simulator()
    front = await gateway_before(upstream.url)
    names = [
        "api_base",
        "base_url",
        "url",
        "endpoint",
        "host",
        "proxy",
        "upstream",
        "callback_url",
        "file_url",
        "model_url",
    ]
    spoils = dict.fromkeys(names, other.url)
    calls = itertools.chain(
        [caller.call(**spoils), caller.call() | spoils, caller.call() | {"model": f"{other.url}/deepseek-v3"}],
        [caller.call() | {"input": {**caller.call()["input"], **spoils}}],
    )
    for body in calls:
        await caller.ask(front.url, body)
    assert upstream.calls
    assert not other.connections


class TestReserved:
    """LIM-1: what a call takes from a limit of tokens is the most it can become, and no more."""

    MOST_PROMPT = 40

    @pytest.mark.parametrize(
        ("model", "parameters", "most"),
        [
            ("deepseek-v3", {}, 16_384),
            ("deepseek-v3", {"max_tokens": 10}, 10),
            ("deepseek-v3", {"max_tokens": 10, "n": 3}, 30),
            ("deepseek-v3.2", {"max_tokens": 10}, 10),
            ("deepseek-v3.2", {"max_tokens": 10, "enable_thinking": True}, 32_768 + 10),
            ("deepseek-v3.2", {"max_tokens": 10, "enable_thinking": True, "thinking_budget": 200}, 200 + 10),
            ("deepseek-r1", {"max_tokens": 10, "thinking_budget": 200}, 200 + 10),
        ],
        ids=str,
    )
    async def test_it_is_the_prompt_and_the_longest_answer_this_call_may_get(
        self,
        simulator: StartSimulator,
        gateway_before: StartGateway,
        model: str,
        parameters: dict[str, object],
        most: int,
    ) -> None:
        upstream = await simulator(Script(first_byte_delay_s=30))
        front = await gateway_before(upstream.url, limits="tpm=1000000")
        limiter = front.house.limiter
        assert isinstance(limiter, MemoryLimiter)
        # Nothing drains meanwhile.
        limiter._clock_ms = lambda: 0
        async with caller.dial(front.url) as line:
            line.send(caller.request(caller.call(model=model, incremental_output=True, **parameters), caller.SSE))
            await upstream.call()
            taken = limiter._buckets["all:tpm"].level // limits.PERIODS_MS["tpm"]
        assert most < taken < most + self.MOST_PROMPT

    @pytest.mark.parametrize(
        ("said", "most"),
        [
            ({}, 50),
            ({"max_tokens": 7}, 7),
            ({"max_tokens": 7, "n": 3}, 21),
            ({"thinking": True}, 350),
            ({"thinking": True, "thinking_budget": 40, "n": 2}, 180),
            ({"thinking_budget": 40}, 50),
        ],
        ids=str,
    )
    def test_an_answer_is_as_long_as_all_its_choices_with_their_chains(self, said: dict[str, Any], most: int) -> None:
        model = dialogue.Model("m", "hybrid", 1_000, 100, 300, 50, "v3")
        call: Any = SimpleNamespace(
            **{"model": model, "n": 1, "max_tokens": None, "thinking": False, "thinking_budget": None, **said}
        )
        assert prepare._longest_answer(call) == most

    async def test_two_short_calls_at_once_fit_where_two_of_the_longest_would_not(
        self, simulator: StartSimulator, gateway_before: StartGateway
    ) -> None:
        upstream = await simulator(Script(first_byte_delay_s=30))
        front = await gateway_before(upstream.url, limits="tpm=2000")
        async with caller.dial(front.url) as one, caller.dial(front.url) as other:
            for line in (one, other):
                line.send(caller.request(caller.call(max_tokens=10)))
            async with asyncio.timeout(5):
                await upstream.call(2)


async def test_beside_a_long_prompt_the_answer_is_given_the_room_that_is_left(
    simulator: StartSimulator, gateway_before: StartGateway
) -> None:
    """OUT-8: a prompt that the model takes, though not together with its longest answer."""
    upstream = await simulator()
    front = await gateway_before(upstream.url)
    model = front.house.catalogue.find("deepseek-v3")
    answer = await caller.ask(front.url, caller.call("a b " * 58_000))
    assert answer.status == 200
    prompt_tokens = answer.json["usage"]["input_tokens"]
    assert model.context_tokens - model.answer_tokens < prompt_tokens < model.input_tokens
    (seen,) = upstream.calls
    assert model.context_tokens - prompt_tokens - 10 <= seen.body["max_tokens"] <= model.context_tokens - prompt_tokens
