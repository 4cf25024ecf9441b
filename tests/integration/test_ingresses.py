"""Row 73 of the fault matrix: behind our ingresses a stream flows, a hang-up arrives, a drain loses nothing.

nginx, HAProxy and Envoy run the very files of deploy/ingresses before the real process; one of its two servers is away.
"""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from proxy.simulation.simulator import Simulator
from proxy.simulation.wire import Script
from tests import caller
from tests.conftest import Served
from tests.integration import ingress
from translators import tokens

pytestmark = pytest.mark.asyncio(loop_scope="module")

WORDS = "one two three four five six"
GAP_S = 0.1
HEARTBEAT_S = 0.3
# How much later than without it: in the best of a few tries, for the machine has other things to do.
LATER_S = 0.05
TRIES = 3
ABORT_S = 1.0
CALL = caller.call("Tell me everything.", incremental_output=True)
STREAM, REPLY = caller.request(CALL, caller.SSE), caller.request(CALL)
TOO_LARGE = (400, "BadRequest.TooLarge", "Payload Too Large.")


@dataclass(slots=True)
class Front:
    """An ingress, the process behind it, and the upstream behind that."""

    url: str
    served: Served
    upstream: Simulator


@contextlib.asynccontextmanager
async def standing(
    kind: ingress.Kind, vocabulary: tokens.Vocabulary, directory: Path, *flags: str
) -> AsyncIterator[Front]:
    ports = ingress.free_ports()
    async with Simulator(vocabulary=vocabulary) as upstream:
        served = await asyncio.to_thread(ingress.served, upstream.url, ports["8080"], ports["8081"], directory, *flags)
        try:
            async with ingress.running(kind, ports, directory) as url:
                yield Front(url, served, upstream)
        finally:
            served.process.kill()
            await asyncio.to_thread(served.end)


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=ingress.PROGRAMS)
async def front(
    request: pytest.FixtureRequest, vocabulary: tokens.Vocabulary, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Front]:
    kind = ingress.KINDS[request.param]
    directory = tmp_path_factory.mktemp(kind.program)
    flags = ("--heartbeat", str(HEARTBEAT_S), "--head-hold", str(HEARTBEAT_S))
    async with standing(kind, vocabulary, directory, *flags) as front:
        yield front


@pytest.mark.parametrize("program", ingress.PROGRAMS)
async def test_the_program_accepts_its_file(program: str, tmp_path: Path) -> None:
    kind = ingress.KINDS[program]
    file = kind.written(tmp_path, ingress.free_ports())
    words = [kind.found(), *kind.check(str(file))]
    judged = await asyncio.to_thread(subprocess.run, words, capture_output=True, text=True, check=False)
    assert judged.returncode == 0, judged.stderr
    assert "warn" not in judged.stderr.lower(), judged.stderr


async def arrivals(url: str, upstream: Simulator) -> list[float]:
    """When each packet of one stream came, in seconds after the upstream was asked."""
    number = len(upstream.calls) + 1
    upstream.scripts.append(Script(text=WORDS, gap_s=GAP_S))
    async with caller.dial(url) as line:
        line.send(STREAM)
        asked_s = (await upstream.call(number)).received_s
        await line.head()
        times, body = [], b""
        while piece := await line.piece():
            times += [time.monotonic() - asked_s] * piece.count(b"\n\n")
            body += piece
    assert caller.text(body) == WORDS
    return times


async def test_packets_come_one_by_one_and_no_later(front: Front) -> None:
    behind = [await arrivals(front.url, front.upstream) for _ in range(TRIES)]
    direct = [await arrivals(front.served.url, front.upstream) for _ in range(TRIES)]
    words = len(WORDS.split())
    for times in behind:
        assert len(times) >= words
        assert times[words - 1] - times[0] > GAP_S * (words - 1) * 0.8
    assert min(times[0] for times in behind) - min(times[0] for times in direct) < LATER_S


async def test_a_heartbeat_comes_through_a_silence(front: Front) -> None:
    front.upstream.scripts.append(Script(text=WORDS, first_byte_delay_s=1))
    async with caller.dial(front.url) as line:
        line.send(STREAM)
        head = await line.head()
        assert head.headers["content-type"] == "text/event-stream;charset=UTF-8"
        assert (await line.piece()).startswith(b":")
        assert caller.text(await line.rest()) == WORDS


@pytest.mark.parametrize("hang_up", [caller.Line.leave, caller.Line.vanish], ids=["FIN", "RST"])
@pytest.mark.parametrize(
    ("script", "wire", "seen"),
    [
        pytest.param(Script(endless=True, gap_s=0.01), STREAM, b"id:5\n", id="mid-stream"),
        pytest.param(Script(stall_after=5), STREAM, b"id:3\n", id="in a silence"),
        pytest.param(Script(first_byte_delay_s=30), REPLY, None, id="before the reply"),
    ],
)
async def test_a_hang_up_reaches_the_upstream(
    front: Front, script: Script, wire: bytes, seen: bytes | None, hang_up: Callable[[caller.Line], None]
) -> None:
    number = len(front.upstream.calls) + 1
    front.upstream.scripts.append(script)
    async with caller.dial(front.url) as line:
        line.send(wire)
        upstream_call = await front.upstream.call(number)
        if seen:
            await line.head()
            await line.until(seen)
        left_s = time.monotonic()
        hang_up(line)
        async with asyncio.timeout(5):
            assert await upstream_call.over() == "aborted"
    assert (upstream_call.ended_s or 0) - left_s < ABORT_S


async def test_a_long_call_goes_through_and_one_too_long_is_refused_in_dashscopes_words(front: Front) -> None:
    long = caller.call("a" * (10 << 20))
    refused = await caller.ask(front.url, long)
    assert refused.fault[1] == "InvalidParameter", "the model's own limit"
    too_long = caller.call("a" * (17 << 20))
    assert (await caller.ask(front.url, too_long)).fault == TOO_LARGE


async def test_the_head_is_dashseeks_own(front: Front) -> None:
    known_as = "5354a793-a130-4b36-b1dc-2610c5f49071"
    answer = await caller.ask(front.url, CALL, {"X-Request-Id": known_as})
    assert answer.headers.getall("x-request-id") == [known_as]
    assert answer.headers["content-type"].startswith("application/json")


@pytest.mark.parametrize("program", ingress.PROGRAMS)
async def test_a_drain_loses_nothing(program: str, vocabulary: tokens.Vocabulary, tmp_path: Path) -> None:
    async with standing(ingress.KINDS[program], vocabulary, tmp_path) as front, caller.dial(front.url) as line:
        front.upstream.scripts += [Script(text=WORDS, gap_s=0.2), Script(text=WORDS, first_byte_delay_s=0.8)]
        line.send(STREAM)
        await line.head()
        reply = asyncio.create_task(caller.ask(front.url, CALL))
        await front.upstream.call(2)
        front.served.process.terminate()
        assert caller.text(await line.rest()) == WORDS
        assert (await reply).status == 200
        assert await asyncio.to_thread(front.served.process.wait, 5) == 0


HIDDEN = caller.request(caller.call("smuggled"))
# What one reads as chunked and another may not: then the body of one is a request to the other.
CODINGS = (
    "Transfer-Encoding: chunked",
    "Transfer-Encoding: Chunked",
    "Transfer-Encoding:\tchunked",
    "Transfer-Encoding: chunked ",
    "Transfer-Encoding: xchunked",
    "Transfer-Encoding: chunked;q=1",
    "Transfer-Encoding: \x0bchunked",
    "Transfer-Encoding: identity, chunked",
    "Transfer-Encoding: chunked, identity",
    "Transfer-Encoding: gzip, chunked",
    "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
    "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked",
    "Transfer-Encoding : chunked",
    "Transfer-Encoding:\r\n chunked",
    "X: 1\nTransfer-Encoding: chunked",
    "X: 1\rTransfer-Encoding: chunked",
)


@pytest.mark.parametrize("coding", CODINGS)
async def test_no_call_is_hidden_in_the_body_of_another(front: Front, coding: str) -> None:
    """Spec HTTP-14 (CWE-444): whoever of the two believes the length, and whoever the coding."""
    asked = len(front.upstream.calls)
    for body, length in ((b"0\r\n\r\n" + HIDDEN, None), (b"%x\r\n%b\r\n0\r\n\r\n" % (len(HIDDEN), HIDDEN), 4)):
        head = f"POST {caller.GENERATION} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer k\r\n{coding}\r\n"
        framed = f"{head}Content-Length: {len(body) if length is None else length}\r\n\r\n".encode("latin-1")
        async with caller.dial(front.url) as line:
            line.send(framed + body)
            with contextlib.suppress(TimeoutError, asyncio.IncompleteReadError, ConnectionError):
                async with asyncio.timeout(0.5):
                    await line.answer()
        # Over the connections that the ingress keeps, the next callers get their own answers.
        for _ in range(2):
            answer = await caller.ask(front.url, caller.call("mine"))
            assert "mine" in answer.json["output"]["choices"][0]["message"]["content"]
        said = [seen.body["messages"][-1]["content"] for seen in front.upstream.calls[asked:]]
        # Where both believe a length that ends before it, it is hidden from nobody: one call behind another.
        assert said == ["mine"] * len(said) or length is not None
        asked = len(front.upstream.calls)
