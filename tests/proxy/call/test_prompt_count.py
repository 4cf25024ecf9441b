"""Claims about when a prompt is counted: once, and beside what does not need it (spec USE-6)."""

from __future__ import annotations

import asyncio
import socket
import threading
from dataclasses import replace

import pytest

from proxy.call import prompt_count
from tests import caller
from tests.proxy.conftest import StartGateway
from translators import dialogue
from translators.deepseek import prompt

MODEL = dialogue.Model("m", "never", 200, 100, 0, 50, "v3")
ROOMY = replace(MODEL, input_tokens=1 << 20, context_tokens=1 << 21)
SHORT, LONG = 20, prompt_count.INLINE_CHARS + 1
COMPLETION = (
    b'{"choices":[{"index":0,"message":{"role":"assistant","content":"hi"},"finish_reason":"stop"}],'
    b'"usage":{"prompt_tokens":5,"completion_tokens":1,"total_tokens":6}}'
)


class Counted:
    """Counts to seven, and remembers how often and in which thread."""

    def __init__(self) -> None:
        self.threads: list[threading.Thread] = []

    def __call__(self) -> int:
        self.threads.append(threading.current_thread())
        return 7


async def test_a_short_prompt_that_decides_nothing_is_not_counted_before_it_must() -> None:
    counted = Counted()
    count = await prompt_count.begin(counted, SHORT, MODEL)
    assert (count.tokens, counted.threads) == (None, [])


@pytest.mark.parametrize("chars", [26, LONG], ids=["as many bytes as tokens are allowed", "long"])
async def test_a_prompt_that_may_be_too_long_is_counted_before_its_call(chars: int) -> None:
    """Spec MOD-4."""
    assert (await prompt_count.begin(Counted(), chars, MODEL)).tokens == 7


async def test_a_long_one_is_counted_in_a_thread_and_told_of_when_it_is_known() -> None:
    counted, told = Counted(), asyncio.Event()
    count = await prompt_count.begin(counted, LONG, ROOMY)
    assert count.tokens is None
    count.tell(lambda tokens: told.set() if tokens == 7 else None)
    await told.wait()
    assert await count.wait() == 7
    assert counted.threads != [threading.main_thread()]
    assert len(counted.threads) == 1


async def test_it_is_counted_behind_what_is_ready_and_once() -> None:
    counted, told, order = Counted(), asyncio.Event(), []
    count = prompt_count.Count(counted)
    count.tell(lambda _: (order.append("counted"), told.set()))
    count.beside()
    count.beside()
    asyncio.get_running_loop().call_soon(order.append, "written")
    await told.wait()
    assert await count.wait() == 7
    assert (order, len(counted.threads)) == (["written", "counted"], 1)


async def test_who_asks_later_is_told_at_once() -> None:
    count, told = prompt_count.Count(Counted()), []
    assert count.now() == 7
    count.tell(told.append)
    assert told == [7]


async def test_what_keeps_a_thread_from_counting_is_raised_where_it_is_waited_for() -> None:
    def broken() -> int:
        raise MemoryError

    count = prompt_count.Count(broken)
    count.in_thread()
    with pytest.raises(MemoryError):
        await count.wait()
    assert count.tokens is None


async def test_it_is_counted_when_the_call_is_on_its_way(
    gateway_before: StartGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop, real, there = asyncio.get_running_loop(), prompt.length, []
    taken: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        front = await gateway_before(f"http://127.0.0.1:{listening.getsockname()[1]}")

        async def serve(upstream: socket.socket) -> None:
            taken.append(await loop.sock_recv(upstream, 1 << 16))
            head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
            await loop.sock_sendall(upstream, head % len(COMPLETION) + COMPLETION)

        first = asyncio.create_task(caller.ask(front.url, caller.call()))
        upstream, _ = await loop.sock_accept(listening)
        with upstream:
            await serve(upstream)
            assert (await first).status == 200

            def looking(*said: object) -> int:
                # This loop may have let the upstream read it already.
                there.append(taken[1][:4] if len(taken) > 1 else upstream.recv(4, socket.MSG_PEEK))
                return real(*said)

            # From here on the connection is there: what the count comes behind is the writing alone.
            monkeypatch.setattr(prompt, "length", looking)
            second = asyncio.create_task(caller.ask(front.url, caller.call()))
            await serve(upstream)
            assert (await second).status == 200
    assert there == [b"POST"]
