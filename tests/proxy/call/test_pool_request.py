"""Claims about a call that goes to one pool or another: it is written, counted and recorded for its own (POOL-5)."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from config.values import toml
from proxy.call.pool_request import PREFIX_CHARS, affinity_of
from proxy.call.prompt_count import INLINE_CHARS
from proxy.simulation.wire import Script
from proxy.upstream import report
from tests import caller
from tests.conftest import StartSimulator
from tests.proxy.conftest import StartGateway
from translators.deepseek import prompt
from translators.dialogue import Message, Tool


@pytest.fixture
def config(tmp_path: Path) -> Iterator[Any]:
    path = tmp_path / "pools.toml"

    def written(*entries: dict[str, Any], **said: object) -> Path:
        path.write_text("".join(f"{name} = {toml(value)}\n" for name, value in {**said, "pools": [*entries]}.items()))
        return path

    return written


async def test_another_dialect_is_another_body_other_names_and_another_count(
    simulator: StartSimulator, gateway_before: StartGateway, config: Any
) -> None:
    busy, free = await simulator(Script(status=503)), await simulator(Script(text="hello there"))
    path = config(
        {"name": "engines", "urls": [busy.url], "dialect": "vllm", "map": {"deepseek-v3.2": "ds32"}},
        {"name": "official", "urls": [free.url], "priority": 1},
        failover_on=[503],
    )
    front = await gateway_before(config=path)
    call = caller.call("hi", model="deepseek-v3.2", incremental_output=True, enable_thinking=True)
    answer = await caller.stream(front.url, call)
    assert caller.text(answer.body) == "hello there"
    record, outcome = await front.end_of()
    assert outcome == "ok"
    assert record.opening is not None
    first, second = busy.calls[0].body, free.calls[0].body
    assert first["model"] == "ds32"
    assert record.opening["upstream_model"] == second["model"] != "ds32"
    assert "chat_template_kwargs" in first
    assert "chat_template_kwargs" not in second
    attempts = record.closing["attempts"]
    assert [(tried["pool"], tried["result"], tried["used"] is None) for tried in attempts] == [
        ("engines", "503", True),
        ("official", "200", False),
    ]
    used = attempts[1]["used"]
    assert used is not None
    assert used["prompt"] == record.closing["calls"][0]["prompt"] == record.closing["usage"]["input_tokens"]
    assert {kind[0] for kind in front.house.offsets._seen} == {"official"}  # type: ignore[index]


@pytest.mark.parametrize(("second", "counts"), [("vllm", 1), ("deepseek", 2)], ids=["the same", "another"])
@pytest.mark.parametrize("words", [1, INLINE_CHARS], ids=["short", "long"])
async def test_a_prompt_is_counted_anew_where_another_pool_writes_it_another_way(
    simulator: StartSimulator,
    gateway_before: StartGateway,
    config: Any,
    monkeypatch: pytest.MonkeyPatch,
    *,
    words: int,
    second: str,
    counts: int,
) -> None:
    """USE-6, USE-8: a short one by the loop, a long one by a thread."""
    busy, free = await simulator(Script(status=503)), await simulator(Script(text="hello there", usage="never"))
    path = config(
        {"name": "one", "urls": [busy.url], "dialect": "vllm"},
        {"name": "other", "urls": [free.url], "dialect": second, "priority": 1},
        failover_on=[503],
    )
    front = await gateway_before(config=path)
    totals, threads = prompt.totals, list[threading.Thread]()

    def looking(*given: Any) -> Iterator[int]:
        threads.append(threading.current_thread())
        yield from totals(*given)

    monkeypatch.setattr(prompt, "totals", looking)
    answer = await caller.stream(front.url, caller.call("a " * words, incremental_output=True))
    assert caller.text(answer.body) == "hello there"
    assert caller.packets(answer.body)[-1]["usage"]["input_tokens"] >= words
    assert len(threads) == counts
    assert (threading.main_thread() in threads) == (words == 1)


@pytest.mark.parametrize("owned", [True, False], ids=["the pool's", "the caller's"])
async def test_each_pool_is_asked_with_its_own_key_or_with_the_callers(
    simulator: StartSimulator, gateway_before: StartGateway, config: Any, tmp_path: Path, *, owned: bool
) -> None:
    """KEY-1, POOL-5: no key of one pool is shown to another, nor one of ours beside a caller's."""
    busy, free = await simulator(Script(status=503)), await simulator(Script(text="hello there"))
    keys = tmp_path / "keys.toml"
    keys.write_text(f'[[key]]\nname = "a"\nsha256 = "{hashlib.sha256(caller.KEY.encode()).hexdigest()}"\n')
    pools: list[dict[str, Any]] = [{"name": "one", "urls": [busy.url]}, {"name": "two", "urls": [free.url]}]
    for priority, pool in enumerate(pools):
        pool["priority"] = priority
        if owned:
            (tmp_path / pool["name"]).write_text(f"sk-of-{pool['name']}")
            pool["api_key_file"] = str(tmp_path / pool["name"])
    said: dict[str, Any] = {"keys_file": str(keys)} if owned else {}
    front = await gateway_before(config=config(*pools, failover_on=[503], **said))
    assert (await caller.stream(front.url, caller.call("hi"))).status == 200
    sent = [upstream.calls[0].headers["Authorization"] for upstream in (busy, free)]
    assert sent == (["Bearer sk-of-one", "Bearer sk-of-two"] if owned else [f"Bearer {caller.KEY}"] * 2)


def test_a_conversation_is_known_by_its_system_and_its_first_turn() -> None:
    """AFF: what comes later changes nothing, nor what stands behind the part that engines look at first."""
    model, system = SimpleNamespace(id="m"), Message("system", "Be brief.")
    first, later = Message("user", "Tell me of rivers."), Message("user", "And lakes?")
    tool = Tool("f", {"name": "f"})

    def number(affinity: str, *messages: Message, tools: tuple[Tool, ...] = (), key: str | None = "k") -> int | None:
        gateway: Any = SimpleNamespace(settings=SimpleNamespace(affinity=affinity))
        call: Any = SimpleNamespace(model=model, tools=tools, messages=messages)
        known: Any = SimpleNamespace(fingerprint=key)
        return affinity_of(gateway, call, known)

    one = number("prefix", system, first)
    assert one == number("prefix", system, first, later) == number("prefix", system, first, key="l")
    long = first._replace(content="a" * PREFIX_CHARS)
    assert number("prefix", long) == number("prefix", long._replace(content="a" * PREFIX_CHARS + "b"))
    others = [
        number("prefix", first),
        number("prefix", system),
        number("prefix", system, later),
        number("prefix", system._replace(content="Be long."), first),
        number("prefix", system, first._replace(content=None)),
        number("prefix", system, first._replace(role="assistant")),
        number("prefix", system, first, tools=(tool,)),
        number("key", system, first),
        number("key", system, first, key="l"),
        number("key", system, first, key=None),
    ]
    assert len({one, *others}) == 1 + len(others)
    assert number("key", system) == number("key", first, later)
    assert number("off", system, first) is None


async def test_once_the_head_is_out_another_pools_failure_is_an_error_frame(
    simulator: StartSimulator, gateway_before: StartGateway, config: Any
) -> None:
    """SSE-11: whose answer it is makes no difference."""
    busy, broken = await simulator(Script(status=503, first_byte_delay_s=0.2)), await simulator(Script(status=500))
    path = config(
        {"name": "engines", "urls": [busy.url], "dialect": "vllm"},
        {"name": "official", "urls": [broken.url], "priority": 1},
        failover_on=[503],
    )
    front = await gateway_before(config=path, head_hold=0.02, heartbeat=0.02)
    answer = await caller.stream(front.url, caller.call("hi", incremental_output=True))
    assert answer.status == 200
    assert answer.body.startswith(b":heartbeat\n")
    assert b"event:error\n" in answer.body
    assert (await front.end_of())[1] == "upstream_error"
    assert (len(busy.calls), len(broken.calls)) == (1, 1)


async def test_choices_that_are_calls_of_their_own_stay_in_their_pool_within_its_bound(
    simulator: StartSimulator, gateway_before: StartGateway, config: Any
) -> None:
    upstream = await simulator(Script(text="a b c", gap_s=0.005))
    entry = {"name": "p", "urls": [upstream.url], "max_in_flight": 3}
    front = await gateway_before(config=config(entry))
    call = caller.call("hi", model="deepseek-v3", incremental_output=True, n=3, result_format="message")
    answer = await caller.stream(front.url, call)
    assert answer.status == 200
    record, outcome = await front.end_of()
    assert (outcome, len(upstream.calls)) == ("ok", 3)
    assert [tried["used"] is not None for tried in record.closing["attempts"]] == [True] * 3
    assert front.house.upstreams.in_flight == 0
    refused = await caller.stream(front.url, caller.call("hi", model="deepseek-v3", n=4, result_format="message"))
    assert (refused.status, (await front.end_of(2))[1]) == (503, "throttled")
    assert front.house.upstreams.in_flight == 0


async def test_where_nothing_is_free_the_caller_may_come_back(
    simulator: StartSimulator, gateway_before: StartGateway, config: Any
) -> None:
    upstream = await simulator()
    front = await gateway_before(config=config({"name": "p", "urls": [upstream.url], "max_in_flight": 1}))
    lease = front.house.upstreams.lease("deepseek-v3")
    refused = await caller.stream(front.url, caller.call("hi"))
    assert refused.status == 503
    assert refused.headers["Retry-After"] == "1"
    assert b"ModelServingError" in refused.body
    record, outcome = await front.end_of()
    assert (outcome, record.closing["attempts"], record.closing["basis"]) == ("throttled", [], "none")
    lease.release()
    assert (await caller.stream(front.url, caller.call("hi"))).status == 200


@pytest.mark.parametrize("affinity", ["prefix", "key"])
async def test_turns_of_one_conversation_go_to_one_target(
    simulator: StartSimulator, gateway_before: StartGateway, config: Any, affinity: str
) -> None:
    fleet = [await simulator() for _ in range(3)]
    entry = {"name": "p", "urls": [upstream.url for upstream in fleet]}
    front = await gateway_before(config=config(entry, affinity=affinity))
    said = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Tell me of rivers."}]
    for turn in range(4):
        more = [{"role": "assistant", "content": "Yes."}, {"role": "user", "content": f"And {turn}?"}] * turn
        call = caller.call("", incremental_output=True)
        call["input"] = {"messages": [*said, *more]}
        assert (await caller.stream(front.url, call)).status == 200
    assert sorted(len(upstream.calls) for upstream in fleet) == [0, 0, 4]


async def test_the_first_token_has_the_time_that_its_pool_has(
    simulator: StartSimulator, gateway_before: StartGateway, config: Any
) -> None:
    upstream = await simulator(Script(first_byte_delay_s=30))
    entry = {"name": "p", "urls": [upstream.url], "first_token_timeout": 0.1}
    front = await gateway_before(config=config(entry))
    assert (await caller.stream(front.url, caller.call("hi"))).status == 500
    _, outcome = await front.end_of()
    assert outcome == "timeout_first_token"
    (look,) = report.targets(front.house.upstreams)
    assert (look.last_error, look.in_flight) == ("first_token_timeout", 0)
