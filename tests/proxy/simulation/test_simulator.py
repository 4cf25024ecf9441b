"""Claims about the stand-in upstream: over its sockets it is DeepSeek, or exactly the fault a script asks for."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest

from proxy.commands import cli
from proxy.commands import options as switches
from proxy.inspector.call_file import NoCallFile
from proxy.simulation.simulator import Simulator, run
from proxy.simulation.wire import Json, Script
from tests import needs

Start = Callable[..., Awaitable[Simulator]]

ASK: Json = {
    "model": "deepseek-flash",
    "messages": [{"role": "user", "content": "Hello"}],
    "thinking": {"type": "disabled"},
}
STREAM: Json = {**ASK, "stream": True, "stream_options": {"include_usage": True}}
REPLY = "You said: Hello"
ROOT = Path(cli.__file__).parents[2]


async def ask(upstream: Simulator, body: Json, path: str = "/chat/completions", **options: Any) -> tuple[int, bytes]:
    async with (
        aiohttp.ClientSession() as session,
        session.post(upstream.url + path, json=body, **options) as answer,
    ):
        return answer.status, await answer.read()


def events(stream: bytes) -> list[Any]:
    datas = [line.removeprefix("data: ") for line in stream.decode().split("\n") if line.startswith("data: ")]
    return [data if data == "[DONE]" else orjson.loads(data) for data in datas]


def deltas(stream: bytes, side: str = "content") -> list[str]:
    chunks = [chunk for chunk in events(stream) if chunk != "[DONE]" and chunk["choices"]]
    return [text for chunk in chunks if (text := chunk["choices"][0]["delta"].get(side))]


def address(upstream: Simulator) -> tuple[str, int]:
    host, port = upstream.url.removeprefix("http://").split(":")
    return host, int(port)


async def raw(upstream: Simulator, body: Json) -> bytes:
    """The answer's bytes as the socket gave them, framing of HTTP and all."""
    reader, writer = await asyncio.open_connection(*address(upstream))
    content = orjson.dumps(body)
    writer.write(b"POST /chat/completions HTTP/1.1\r\nContent-Length: %d\r\n\r\n%b" % (len(content), content))
    answer = await reader.readuntil(b"\r\n\r\n")
    while not answer.endswith(b"\r\n0\r\n\r\n"):
        answer += await reader.readuntil(b"\r\n")
    writer.close()
    await writer.wait_closed()
    return answer


async def test_a_stream_names_the_role_then_thinks_then_speaks_then_tells_its_usage(simulator: Start) -> None:
    """SOURCES#deepseek-stream: thinking is on unless switched off, and usage rides in the finish chunk."""
    upstream = await simulator(Script(reasoning="Hello.", text="Yes."))
    _, stream = await ask(upstream, {**STREAM, "thinking": {"type": "enabled"}})
    *chunks, done = events(stream)
    choices = [chunk["choices"][0] for chunk in chunks]
    assert [choice["delta"] for choice in choices] == [
        {"role": "assistant", "content": None, "reasoning_content": ""},
        {"content": None, "reasoning_content": "Hello"},
        {"content": None, "reasoning_content": "."},
        {"content": "Yes", "reasoning_content": None},
        {"content": ".", "reasoning_content": None},
        {"content": "", "reasoning_content": None},
    ]
    assert [choice["finish_reason"] for choice in choices] == [None] * 5 + ["stop"]
    assert [chunk["usage"] for chunk in chunks[:-1]] == [None] * 5
    assert chunks[-1]["usage"]["completion_tokens"] == 2 + 1 + 2
    assert chunks[-1]["usage"]["completion_tokens_details"] == {"reasoning_tokens": 2}
    assert done == "[DONE]"


async def test_a_json_answer_has_the_text_and_the_usage(simulator: Start, vocabulary: Any) -> None:
    upstream = await simulator()
    status, body = await ask(upstream, ASK)
    answer = orjson.loads(body)
    assert status == 200
    assert answer["choices"][0]["message"] == {"role": "assistant", "content": REPLY}
    assert answer["usage"]["completion_tokens"] == len(vocabulary.encode(REPLY))
    assert answer["usage"]["prompt_tokens"] == len(vocabulary.encode("Hello")) + 4


@pytest.mark.parametrize(
    ("placement", "with_usage"), [("finish", [5]), ("own", [6]), ("every", [0, 1, 2, 3, 4, 5]), ("never", [])]
)
async def test_usage_comes_where_the_script_puts_it(simulator: Start, placement: Any, with_usage: list[int]) -> None:
    """SOURCES#usage-placement."""
    upstream = await simulator(Script(usage=placement))
    _, stream = await ask(upstream, STREAM)
    chunks = events(stream)[:-1]
    assert [at for at, chunk in enumerate(chunks) if chunk["usage"]] == with_usage
    assert all(chunk["choices"] for chunk in chunks[:6])
    figures = [chunk["usage"]["completion_tokens"] for chunk in chunks if chunk["usage"]]
    assert figures == sorted(figures)


async def test_a_stream_that_does_not_ask_gets_no_usage(simulator: Start) -> None:
    upstream = await simulator(Script(usage="own"))
    _, stream = await ask(upstream, {**ASK, "stream": True})
    assert not any(chunk["usage"] for chunk in events(stream)[:-1])


async def test_the_script_may_be_queued_computed_or_chosen_by_the_message(simulator: Start) -> None:
    upstream = await simulator(lambda body: Script(text=body["model"]))
    upstream.scripts.append(Script(status=503))
    assert (await ask(upstream, ASK))[0] == 503
    refused = upstream.calls[0]
    assert (refused.events, refused.prompt_tokens, refused.completion_tokens) == (0, 0, 0)
    assert b'"deepseek-flash"' in (await ask(upstream, ASK))[1]
    wish = {"role": "user", "content": '{"simulate": {"status": 429, "error_text": "slow down"}}'}
    status, body = await ask(upstream, {**ASK, "messages": [wish]})
    assert (status, orjson.loads(body)["error"]["message"]) == (429, "slow down")
    no_wish = {"role": "user", "content": '{"simulate": {"status": 429}, "more": 1}'}
    assert (await ask(upstream, {**ASK, "messages": [no_wish]}))[0] == 200


@pytest.mark.parametrize("switches", ['{"stauts": 429}', '{"usage": "both"}', '{"replay": "setup.cfg"}'])
async def test_a_switch_that_is_wrong_or_not_the_callers_is_named(simulator: Start, switches: str) -> None:
    upstream = await simulator()
    wish = {"role": "user", "content": f'{{"simulate": {switches}}}'}
    status, body = await ask(upstream, {**ASK, "messages": [wish]})
    assert status == 400
    assert next(iter(orjson.loads(switches))) in orjson.loads(body)["error"]["message"]


async def test_keep_alives_are_comments_in_a_stream_and_blank_lines_before_json(simulator: Start) -> None:
    """SOURCES#deepseek-stream."""
    upstream = await simulator(Script(first_byte_delay_s=0.05, keep_alive_s=0.02))
    started = time.monotonic()
    _, stream = await ask(upstream, STREAM)
    assert time.monotonic() - started >= 0.05
    assert stream.startswith(b": keep-alive\n\n: keep-alive\n\ndata: {")
    _, body = await ask(upstream, ASK)
    assert body.startswith(b"\n\n{")
    upstream.script = Script(blank_lines=3)
    assert (await ask(upstream, ASK))[1].startswith(b"\n\n\n{")
    upstream.script = Script(first_byte_delay_s=0.02, keep_alive_s=0.02)
    assert (await ask(upstream, ASK))[1].startswith(b"{")


@pytest.mark.parametrize(
    ("change", "script", "text"),
    [
        ({"temperature": 3}, Script(), "temperature"),
        ({"max_tokens": 100}, Script(context_tokens=50), "This model's maximum context length is 50 tokens"),
    ],
    ids=["a value", "too long"],
)
async def test_what_deepseek_refuses_is_a_400(simulator: Start, change: Json, script: Script, text: str) -> None:
    """SOURCES#deepseek-errors."""
    upstream = await simulator(script)
    for body in (ASK, STREAM):
        status, said = await ask(upstream, {**body, **change})
        assert (status, text in orjson.loads(said)["error"]["message"]) == (400, True)


async def test_nothing_comes_before_the_first_byte_delay(simulator: Start) -> None:
    upstream = await simulator(Script(first_byte_delay_s=0.1))
    started = time.monotonic()
    for body in (STREAM, ASK):
        assert (await ask(upstream, body))[0] == 200
    assert time.monotonic() - started >= 0.2


async def test_a_gap_lies_between_writes(simulator: Start) -> None:
    upstream = await simulator(Script(gap_s=0.02))
    started = time.monotonic()
    await ask(upstream, STREAM)
    assert time.monotonic() - started >= 6 * 0.02


async def test_a_stream_waits_behind_its_first_write_until_it_is_to_go_on(simulator: Start) -> None:
    upstream = await simulator(Script(deltas_per_write=2))
    upstream.goes_on.clear()
    asking = asyncio.create_task(ask(upstream, STREAM))
    seen = await upstream.call()
    await upstream.until(lambda: seen.events == 2)
    await asyncio.wait({asking}, timeout=0.1)
    assert (seen.events, seen.ended) == (2, "open")
    upstream.goes_on.set()
    _, stream = await asking
    assert "".join(deltas(stream)) == REPLY
    assert seen.ended == "done"


@pytest.mark.parametrize("cut_by", ["fin", "rst"])
@pytest.mark.parametrize("body", [STREAM, ASK], ids=["stream", "json"])
async def test_a_cut_breaks_the_body_off(simulator: Start, cut_by: Any, body: Json) -> None:
    """SOURCES#fault-matrix rows 45, 46: FIN leaves the chunked body without its end, RST is an error of the socket."""
    upstream = await simulator(Script(cut_after=1, cut_by=cut_by))
    lost = aiohttp.ClientPayloadError if cut_by == "fin" else aiohttp.ClientOSError
    with pytest.raises((lost, aiohttp.ClientPayloadError)):
        await ask(upstream, body)
    seen = upstream.calls[0]
    assert (await seen.over(), seen.events) == ("cut", 1)


async def test_a_cut_by_end_is_a_proper_body_that_just_stops(simulator: Start) -> None:
    upstream = await simulator(Script(cut_after=3, cut_by="end"))
    _, stream = await ask(upstream, STREAM)
    assert deltas(stream) == ["You", " said"]
    assert await upstream.calls[0].over() == "cut"


async def test_a_fault_may_come_right_before_the_end(simulator: Start) -> None:
    upstream = await simulator(Script(cut_after=7))
    with pytest.raises(aiohttp.ClientPayloadError):
        await ask(upstream, STREAM)
    assert upstream.calls[0].events == 7


async def test_a_caller_who_resets_has_left_too(simulator: Start) -> None:
    upstream = await simulator(Script(stall_after=1))
    with socket.create_connection(address(upstream)) as caller:
        caller.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        content = orjson.dumps(STREAM)
        caller.sendall(b"POST /chat/completions HTTP/1.1\r\nContent-Length: %d\r\n\r\n%b" % (len(content), content))
        seen = await upstream.call(1)
        await upstream.until(lambda: seen.events == 1)
    async with asyncio.timeout(10):
        assert await seen.over() == "aborted"


async def test_a_reset_is_one_to_who_reads_to_the_end_and_a_fin_is_none(simulator: Start) -> None:
    """SOURCES#fault-matrix rows 45, 46."""
    for cut_by, is_reset in (("rst", True), ("fin", False)):
        upstream = await simulator(Script(cut_after=1, cut_by=cut_by))  # type: ignore[arg-type]
        reader, writer = await asyncio.open_connection(*address(upstream))
        content = orjson.dumps(STREAM)
        writer.write(b"POST /chat/completions HTTP/1.1\r\nContent-Length: %d\r\n\r\n%b" % (len(content), content))
        with pytest.raises(ConnectionResetError) if is_reset else contextlib.nullcontext():
            assert b"data: " in await reader.read()
        writer.close()
        with contextlib.suppress(ConnectionResetError):
            await writer.wait_closed()


@pytest.mark.parametrize("body", [STREAM, ASK], ids=["stream", "json"])
async def test_a_stall_is_silence_until_the_caller_leaves_and_then_noted_at_once(simulator: Start, body: Json) -> None:
    upstream = await simulator(Script(stall_after=1))
    caller = asyncio.create_task(ask(upstream, body))
    seen = await upstream.call(1)
    await upstream.until(lambda: seen.events == 1)
    assert upstream.open == upstream.open_connections == 1
    left = time.monotonic()
    caller.cancel()
    assert await seen.over() == "aborted"
    assert seen.ended_s is not None
    assert seen.ended_s - left < 0.1
    assert upstream.open == 0


async def test_an_endless_answer_ends_with_its_caller(simulator: Start) -> None:
    upstream = await simulator(Script(text="again", endless=True))
    caller = asyncio.create_task(ask(upstream, STREAM))
    seen = await upstream.call(1)
    await upstream.until(lambda: seen.events >= 100)
    caller.cancel()
    assert await seen.over() == "aborted"


@pytest.mark.parametrize(
    ("shape", "content_type", "body"),
    [
        ("nested", "application/json", {"message": "no", "type": "unknown_error"}),
        ("flat", "application/json", {"message": "no", "object": "error", "code": 402}),
        ("detail", "application/json", {"detail": "no"}),
        ("host", "application/json", {"code": 402, "message": "no", "data": None}),
        ("text", "text/plain", None),
        ("html", "text/html", None),
    ],
)
async def test_an_error_has_the_shape_of_its_kind_of_upstream(
    simulator: Start, shape: Any, content_type: str, body: Json | None
) -> None:
    """SOURCES#deepseek-errors, #engine-errors."""
    upstream = await simulator(Script(status=402, error_text="no", error_shape=shape, retry_after="7"))
    async with aiohttp.ClientSession() as session, session.post(f"{upstream.url}/chat/completions", json=ASK) as answer:
        assert (answer.status, answer.content_type, answer.headers["Retry-After"]) == (402, content_type, "7")
        if body is None:
            assert "no" in await answer.text()
        else:
            parsed = await answer.json()
            assert body.items() <= parsed.get("error", parsed).items()


async def test_an_error_event_may_be_the_first_event_of_a_200(simulator: Start) -> None:
    """SOURCES#errors-in-a-stream, vLLM."""
    upstream = await simulator(Script(error_event_after=0, error_event_status=400, error_text="bad schema"))
    status, stream = await ask(upstream, STREAM)
    assert status == 200
    assert [event if event == "[DONE]" else event["error"]["code"] for event in events(stream)] == [400, "[DONE]"]
    upstream.script = Script(error_event_after=2, no_done=True)
    *_, last = events((await ask(upstream, STREAM))[1])
    assert last["error"]["code"] == 500


async def test_the_finish_may_be_any_word_or_missing_and_done_may_be_missing(simulator: Start) -> None:
    upstream = await simulator(Script(finish_reason="aborted"))
    *_, finish, _ = events((await ask(upstream, STREAM))[1])
    assert finish["choices"][0]["finish_reason"] == "aborted"
    upstream.script = Script(finish_reason="-", no_done=True)
    *_, last = events((await ask(upstream, STREAM))[1])
    assert last["choices"][0] == {"index": 0, "delta": {"content": " Hello"}, "logprobs": None, "finish_reason": None}


@pytest.mark.parametrize("size", [1, 7, 4_096])
async def test_a_split_limits_every_write(simulator: Start, size: int) -> None:
    upstream = await simulator(Script(split=size))
    head, _, body = (await raw(upstream, STREAM)).partition(b"\r\n\r\n")
    assert b"Transfer-Encoding: chunked" in head
    sizes, joined = [], b""
    while body:
        length, _, rest = body.partition(b"\r\n")
        sizes.append(int(length, 16))
        joined, body = joined + rest[: sizes[-1]], rest[sizes[-1] + 2 :]
    assert max(sizes) <= size
    assert "".join(deltas(joined)) == REPLY


async def test_a_burst_is_several_events_in_one_write(simulator: Start) -> None:
    upstream = await simulator(Script(deltas_per_write=16))
    body = (await raw(upstream, STREAM)).partition(b"\r\n\r\n")[2]
    assert body.count(b"data: ") == 7
    assert len(re.findall(rb"(?:^|\r\n)[0-9a-f]+\r\n", body)) == 2  # one chunk, and the end


async def test_deltas_may_be_cut_without_regard_to_tokens(simulator: Start) -> None:
    upstream = await simulator(Script(text="abcdef", delta_chars=4))
    assert deltas((await ask(upstream, STREAM))[1]) == ["abcd", "ef"]


async def test_lines_may_end_with_crlf(simulator: Start) -> None:
    upstream = await simulator(Script(crlf=True, first_byte_delay_s=0.03, keep_alive_s=0.02))
    _, stream = await ask(upstream, STREAM)
    assert stream.startswith(b": keep-alive\r\n\r\ndata: {")
    assert stream.count(b"\n") == stream.count(b"\r\n")


@pytest.mark.parametrize("size", [None, 3])
async def test_a_replay_is_byte_for_byte_what_was_given(simulator: Start, tmp_path: Path, size: int | None) -> None:
    stream = b": ping\r\n\r\ndata: {}\n\ndata: [DONE]\n\n" + b"data: torn"
    (tmp_path / "upstream.sse").write_bytes(stream)
    upstream = await simulator(Script(replay=tmp_path / "upstream.sse", split=size, crlf=True))
    assert (await ask(upstream, STREAM))[1] == stream
    upstream.script = Script(replay=stream, cut_after=2, cut_by="end")
    assert (await ask(upstream, STREAM))[1] == b": ping\r\n\r\ndata: {}\n\n"
    upstream.script = Script(replay=b"{}", replay_content_type="application/json")
    assert (await ask(upstream, ASK))[1] == b"{}"
    # Of what is sent verbatim nothing is known.
    assert {seen.completion_tokens for seen in upstream.calls} == {0}
    upstream.script = Script(replay=b"")
    assert await ask(upstream, ASK) == (200, b"")


def exported(*answers: str, **more: Any) -> bytes:
    """A call as it is exported, which was answered so by its upstreams, one after the other."""
    return orjson.dumps(
        {
            "dashseek_call": 1,
            "caller": {"body": {"text": "{}"}},
            "upstream": [
                {
                    "asked_ms": 0.0,
                    "answered_ms": 1.0,
                    "status": 200,
                    "content_type": "text/plain",
                    "failure": "",
                    "reads": [{"at_ms": 2.0, "text": answer}],
                }
                for answer in answers
            ],
            "lost_bytes": 0,
            "redacted": False,
            "ended_ms": 3.0,
            **more,
        }
    )


async def test_a_call_that_went_upstream_several_times_is_played_so_and_then_anew(simulator: Start) -> None:
    upstream = await simulator(Script(replay=exported("one", "two"), fast=True))
    assert [(await ask(upstream, ASK))[1] for _ in range(3)] == [b"one", b"two", b"one"]


@pytest.mark.parametrize(
    ("replay", "why"),
    [
        (orjson.dumps({"log": {"entries": []}}), "an HTTP archive"),
        (exported(), "never went upstream"),
        (exported("one", lost_bytes=1), "1 bytes of it are not kept"),
        (exported("one", dashseek_call=9), "of form 9"),
    ],
)
def test_what_cannot_be_played_is_told_before_anything_is_listened_on(replay: bytes, why: str) -> None:
    with pytest.raises(NoCallFile, match=why):
        run(Script(replay=replay), "no host of this name", -1)


async def test_what_it_has_done_is_told_to_who_asks_beside_the_calls(simulator: Start) -> None:
    upstream = await simulator(Script(stall_after=1))
    assert (upstream.connections, {*upstream.tally.values()}) == (0, {0})
    stalling = [asyncio.create_task(ask(upstream, STREAM)) for _ in range(2)]
    for number in (1, 2):
        seen = await upstream.call(number)
        await upstream.until(lambda seen=seen: seen.events == 1)
    assert [await upstream.call(number) for number in (1, 2)] == upstream.calls
    upstream.scripts.append(Script(text="one two"))
    async with aiohttp.ClientSession() as session:
        for _ in range(2):
            async with session.get(f"{upstream.url}/tally") as answer:
                assert answer.content_type == "application/json"
                assert (await answer.json())["open"] == 2
        async with session.post(f"{upstream.url}/chat/completions", json=ASK) as answer:
            usage = (await answer.json())["usage"]
        for caller in stalling:
            caller.cancel()
        await asyncio.gather(*(seen.over() for seen in upstream.calls))
        async with session.get(f"{upstream.url}/tally") as answer:
            tally = await answer.json()
    assert tally == {
        "calls": 3,
        "open": 0,
        "most_open": 3,
        "prompt_tokens": 3 * usage["prompt_tokens"],
        "completion_tokens": usage["completion_tokens"],
    }
    # All that was asked by one session went through one connection.
    assert upstream.connections == 3


async def test_its_end_leaves_no_connection_and_nobody_who_listens() -> None:
    async with Simulator() as upstream, Simulator() as other:
        assert upstream.url != other.url
        reader, writer = await asyncio.open_connection(*address(upstream))
        await upstream.until(lambda: upstream.open_connections == 1)
    assert upstream.open_connections == 0
    assert await reader.read() == b""
    writer.close()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(*address(upstream))


async def test_its_url_can_be_called_in_either_version() -> None:
    try:
        upstream = await Simulator(host="::1").__aenter__()
    except OSError:
        needs.lack("IPv6")
    assert re.fullmatch(r"http://\[::1\]:\d+", upstream.url)
    assert (await ask(upstream, ASK))[0] == 200
    await upstream.__aexit__(None, None, None)


@pytest.mark.parametrize(
    ("authorization", "status", "text"),
    [
        ("Bearer sk-right", 200, REPLY),
        ("bearer sk-right", 200, REPLY),
        ("Bearer sk-wrong", 401, "****rong is invalid"),
        ("Basic sk-right", 401, "auth header format should be Bearer"),
        (None, 401, "Authentication Fails (governor)"),
    ],
)
async def test_only_the_right_key_is_let_in(
    simulator: Start, authorization: str | None, status: int, text: str
) -> None:
    upstream = await simulator(Script(key="sk-right"))
    headers = {"Authorization": authorization} if authorization else {}
    got, body = await ask(upstream, ASK, headers=headers)
    assert got == status
    assert text in body.decode()
    assert (body == text.encode()) is (authorization is None)


async def test_an_idle_connection_is_closed_by_its_limit_and_kept_without_one(simulator: Start) -> None:
    """SOURCES#fault-matrix row 27."""
    upstream = await simulator(Script(keepalive_timeout_s=0.05))
    url = f"{upstream.url}/chat/completions"
    async with aiohttp.ClientSession() as session:
        for _ in range(2):
            async with session.post(url, json=ASK) as answer:
                await answer.read()
        assert [seen.connection for seen in upstream.calls] == [1, 1]
        assert upstream.open_connections == 1
        await upstream.until(lambda: upstream.open_connections == 0)
    assert (await ask(upstream, ASK))[0] == 200
    assert upstream.connections == 2


async def test_a_caller_who_reuses_a_connection_at_the_moment_it_closes_fails(simulator: Start) -> None:
    """SOURCES#fault-matrix row 27: what a proxy has to survive, reproduced every time."""
    upstream = await simulator(Script(keepalive_timeout_s=0.01))
    async with aiohttp.ClientSession() as session:
        async with session.post(f"{upstream.url}/chat/completions", json=ASK) as answer:
            await answer.read()
        await upstream.until(lambda: upstream.open_connections == 0)
        with pytest.raises((aiohttp.ClientOSError, aiohttp.ServerDisconnectedError)):
            await session.post(f"{upstream.url}/chat/completions", json=ASK)


async def test_it_remembers_what_it_was_asked_and_how_that_ended(simulator: Start) -> None:
    upstream = await simulator()
    await ask(upstream, ASK, path="/v1/chat/completions?x=1", headers={"X-Trace": "7"})
    seen = upstream.calls[0]
    assert (seen.method, seen.path, seen.headers["x-trace"]) == ("POST", "/v1/chat/completions", "7")
    assert (seen.body, orjson.loads(seen.raw)) == (ASK, ASK)
    assert await seen.over() == "done"
    assert seen.ended_s is not None
    assert seen.ended_s >= seen.received_s


@pytest.mark.parametrize(
    ("method", "path", "status"), [("POST", "/model", 404), ("GET", "/chat/completions", 405), ("POST", "/models", 405)]
)
async def test_another_path_or_method_is_refused(simulator: Start, method: str, path: str, status: int) -> None:
    upstream = await simulator()
    async with aiohttp.ClientSession() as session, session.request(method, upstream.url + path) as answer:
        assert answer.status == status


@pytest.mark.parametrize("base", ["", "/v1", "/beta"])
async def test_it_lists_models_to_who_has_the_key(simulator: Start, base: str) -> None:
    upstream = await simulator(Script(key="sk-right"))
    async with aiohttp.ClientSession() as session:
        for key, status in (("sk-wrong", 401), ("sk-right", 200)):
            headers = {"Authorization": f"Bearer {key}"}
            async with session.get(f"{upstream.url}{base}/models", headers=headers) as answer:
                assert answer.status == status
                listed = await answer.json()
    assert {row["object"] for row in listed["data"]} == {"model"}


async def test_who_speaks_tls_is_hung_up_on(simulator: Start) -> None:
    """Not left to wait: a hello has no end of a head."""
    upstream = await simulator()
    async with aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.ClientConnectorError):
            await session.get(upstream.url.replace("http://", "https://"))


async def test_a_body_without_its_length_is_refused(simulator: Start) -> None:
    async def parts() -> Any:
        yield b"{}"

    upstream = await simulator()
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{upstream.url}/chat/completions", data=parts()) as answer,
    ):
        assert answer.status == 411


@pytest.mark.parametrize(
    "noise",
    [
        *(b"\x16\x03\x01\r\n\r\n", b"x" * 100_000, b"POST / HTTP/1.1\r\nContent-Le"),
        *(b"POST / and more HTTP/1.1\r\n\r\n", b"POST / HTTP/1.1\r\nContent-Length: many\r\n\r\n"),
    ],
)
async def test_noise_is_hung_up_on(simulator: Start, noise: bytes) -> None:
    upstream = await simulator()
    reader, writer = await asyncio.open_connection(*address(upstream))
    writer.write(noise)
    writer.write_eof()
    # A reset, where it hung up before it had read all of it.
    with contextlib.suppress(ConnectionResetError):
        assert await reader.read() == b""
    writer.close()
    assert upstream.calls == []


async def test_without_a_vocabulary_a_word_is_a_token() -> None:
    async with Simulator() as upstream:
        _, stream = await ask(upstream, STREAM)
    assert deltas(stream) == ["You", " said:", " Hello"]
    assert events(stream)[-2]["usage"]["completion_tokens"] == 3


async def test_a_bug_of_the_stand_in_is_not_taken_for_a_fault_of_the_upstream() -> None:
    def broken(body: Json) -> Script:
        raise LookupError("a bug")

    upstream = await Simulator(broken).__aenter__()
    with pytest.raises(aiohttp.ServerDisconnectedError):
        await ask(upstream, ASK)
    with pytest.raises(LookupError, match="a bug"):
        await upstream.__aexit__(None, None, None)


async def test_a_hundred_callers_who_leave_leave_nothing_behind(simulator: Start) -> None:
    upstream = await simulator(Script(gap_s=0.01, endless=True))
    callers = [asyncio.create_task(ask(upstream, STREAM)) for _ in range(100)]
    await upstream.call(100)
    for caller in callers:
        caller.cancel()
    assert {await seen.over() for seen in upstream.calls} == {"aborted"}
    await upstream.until(lambda: upstream.open_connections == 0)


def test_every_switch_is_a_flag_with_help() -> None:
    flags = list(switches.of(Script))
    assert [flag.name for flag in flags] == list(Script.__dataclass_fields__)
    assert all(flag.help for flag in flags)


@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_prints_its_url_and_ends_by_a_signal_with_0(signal_number: int) -> None:
    program = "import sys; from proxy.simulation import simulator as s; sys.exit(s.run(s.Script(), '127.0.0.1', 0))"
    env = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        assert re.fullmatch(r"simulating DeepSeek on http://127\.0\.0\.1:\d+\n", child.stdout.readline())
        child.send_signal(signal_number)
        assert child.wait(10) == 0
