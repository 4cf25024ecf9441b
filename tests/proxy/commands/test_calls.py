"""Claims about `dashseek calls`: what it asks the admin port for, what it says of a call that is made again."""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson
import pytest
from aiohttp import web

from proxy.commands import calls
from proxy.inspector.call_file import NoCallFile
from tests.proxy.surroundings import serving

Json = dict[str, Any]
ADMIN = "nobody answers at {}: say --admin URL, the admin port of serve --inspect"
CALL: Json = {
    "number": 7,
    "at_s": 1_764_403_507.5,
    "status": 200,
    "outcome": "ok",
    "model": "deepseek-v3",
    "stream": True,
    "input_tokens": 1_234,
    "output_tokens": 0,
    "first_ms": 10.6,
    "ended_ms": 1_234.4,
    "path": "/api/v1/x",
}
OPEN = {
    **CALL,
    "number": 8,
    "status": 0,
    "outcome": "open",
    "stream": False,
    **dict.fromkeys(("input_tokens", "output_tokens", "first_ms", "ended_ms")),
}


@contextlib.asynccontextmanager
async def answering(*answers: web.StreamResponse) -> AsyncIterator[tuple[str, list[tuple[web.BaseRequest, bytes]]]]:
    """A server that gives these answers in order; with what it was asked."""
    came: list[tuple[web.BaseRequest, bytes]] = []
    left = [*answers]

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        came.append((request, await request.read()))
        return left.pop(0)

    async with serving(answer) as url:
        yield url, came


@pytest.fixture
def shanghai(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patched:
        patched.setenv("TZ", "Asia/Shanghai")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("shanghai")
async def test_calls_are_listed_the_newest_first_in_the_time_of_this_machine(
    capsys: pytest.CaptureFixture[str],
) -> None:
    told = orjson.dumps({"calls": [CALL, OPEN]})
    async with answering(web.Response(body=told), web.Response(body=told)) as (url, came):
        assert await asyncio.to_thread(calls.show_list, f"{url}/", as_json=False) == 0
        assert capsys.readouterr().out.splitlines() == [
            "id  at        status  outcome  model        mode    in  out  first ms    ms       path",
            "8   16:05:07  …       open     deepseek-v3  JSON                             /api/v1/x",
            "7   16:05:07  200     ok       deepseek-v3  SSE   1234    0        11  1234  /api/v1/x",
        ]
        assert await asyncio.to_thread(calls.show_list, url, as_json=True) == 0
        assert capsys.readouterr().out.encode() == told + b"\n"
    assert [request.path_qs for request, _ in came] == ["/calls/list"] * 2


@pytest.mark.parametrize(
    ("how", "path"),
    [
        ({}, "/calls/7"),
        ({"redact": True}, "/calls/7?redact=1"),
        ({"har": True}, "/calls/7.har"),
        ({"redact": True, "har": True}, "/calls/7.har?redact=1"),
    ],
)
async def test_a_call_is_taken_away_as_it_comes(
    how: Mapping[str, bool], path: str, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = {"redact": False, "har": False, **how}
    async with answering(web.Response(body=b"the call")) as (url, came):
        assert await asyncio.to_thread(calls.export, url, "7", **chosen) == 0
    assert capsys.readouterr().out == "the call\n"
    assert [request.path_qs for request, _ in came] == [path]


async def test_what_is_not_there_is_told_apart() -> None:
    answers = [web.Response(status=status) for status in (404, 404, 500)]
    async with answering(*answers) as (url, _):
        with pytest.raises(calls.NotThere, match=re.escape(f"{url} does not run --inspect")):
            await asyncio.to_thread(calls.show_list, url, as_json=True)
        with pytest.raises(calls.NotThere, match="no such call is kept"):
            await asyncio.to_thread(calls.export, url, "7", redact=False, har=False)
        with pytest.raises(calls.NotThere, match=f"{url} answered 500"):
            await asyncio.to_thread(calls.export, url, "7", redact=False, har=False)
    with pytest.raises(calls.NotThere, match=re.escape(ADMIN.format(url))):
        await asyncio.to_thread(calls.show_list, url, as_json=True)


def kept(path: Path, *packets: str, **said: Any) -> Path:
    """A file of a call that was answered so."""
    document = {
        "dashseek_call": 1,
        "caller": {
            "method": "PUT",
            "path": "/api/v1/a%2fb%7E?c=d",
            "headers": {
                "Content-Type": "application/json",
                "Accept": "text/event-stream",
                "X-DashScope-SSE": "enable",
                "Authorization": "Bearer (left out)",
                "Host": "elsewhere",
                "Cookie": "c",
            },
            "body": {"text": '{"model":"m"}'},
            "read_ms": 1.0,
            "lost_bytes": 0,
        },
        "upstream": [],
        "packets": [{"text": packet} for packet in packets],
        "refusal": None,
        "status": 200,
        "ended_ms": 1_234.4,
        "lost_bytes": 0,
        **said,
    }
    path.write_bytes(orjson.dumps(document))
    return path


async def replayed(file: Path, answer: web.StreamResponse, capsys: pytest.CaptureFixture[str]) -> tuple[int, list[str]]:
    """The exit code, and what was said; times are left out."""
    async with answering(answer) as (url, came):
        code = await asyncio.to_thread(calls.replay, file, f"{url}/", "sk-mine")
    assert len(came) == 1
    said = re.sub(r"; [\d,]+ ms", "; T ms", capsys.readouterr().out)
    return code, said.splitlines()


async def test_a_call_is_made_again_as_its_caller_made_it_with_a_key_of_ones_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with answering(web.Response(body=b'{"a":1}'), web.Response(body=b'{"a":1}')) as (url, came):
        for body in ('{"model":"m"}', ""):
            file = kept(tmp_path / "call.json", '{"a":1}')
            document = orjson.loads(file.read_bytes())
            document["caller"]["body"] = {"text": body}
            file.write_bytes(orjson.dumps(document))
            assert await asyncio.to_thread(calls.replay, file, f"{url}/", "sk-mine") == 0
    first, second = came
    assert (first[0].method, first[0].raw_path, first[1]) == ("PUT", "/api/v1/a%2fb%7E?c=d", b'{"model":"m"}')
    sent = {name.lower(): value for name, value in first[0].headers.items()}
    assert sent["authorization"] == "Bearer sk-mine"
    assert (sent["content-type"], sent["accept"], sent["x-dashscope-sse"]) == (
        *("application/json", "text/event-stream", "enable"),
    )
    assert "cookie" not in sent
    assert sent["host"] == url.removeprefix("http://")
    assert second[1] == b""
    told, again = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"the same answer; [\d,]{1,5} ms, 1,234 ms before", told)
    assert again.startswith("the same answer; ")


async def test_what_differs_is_told_line_by_line_and_the_code_is_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = kept(tmp_path / "call.json", '{"a":1}', ended_ms=None)
    assert await replayed(file, web.Response(body=b'{"a":1}'), capsys) == (0, ["the same answer; T ms"])
    assert await replayed(file, web.Response(body=b'{"a":2}'), capsys) == (
        *(1, ["event 1.a: 1 before, 2 now", "something differs; T ms"]),
    )
    assert await replayed(file, web.Response(status=302, headers={"Location": "/b"}, body=b'{"a":1}'), capsys) == (
        *(1, ["status 200 before, 302 now", "something differs; T ms"]),
    )


@pytest.mark.parametrize(("number", "more"), [(20, []), (21, ["and more"])])
async def test_of_many_differences_the_first_are_told(
    number: int, more: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before, after = (orjson.dumps([base] * number) for base in (1, 2))
    file = kept(tmp_path / "call.json", before.decode(), ended_ms=None)
    code, told = await replayed(file, web.Response(body=after), capsys)
    assert (code, told) == (
        *(1, [f"event 1[{at}]: 1 before, 2 now" for at in range(20)] + [*more, "something differs; T ms"]),
    )


@pytest.mark.parametrize(("now", "said"), [(7, "2 more"), (3, "2 fewer")])
async def test_what_a_server_has_learned_of_a_template_is_no_difference(
    now: int, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """USE-5."""

    def answer(prompt: int) -> str:
        return orjson.dumps({"usage": {"input_tokens": prompt, "total_tokens": prompt + 1}}).decode()

    file = kept(tmp_path / "call.json", answer(5), ended_ms=None)
    code, told = await replayed(file, web.Response(text=answer(now)), capsys)
    assert code == 0
    assert told[0].startswith(f"input tokens are {said} now until upstream tells its own: ")
    assert told[1:] == ["the same answer; T ms"]


async def test_of_an_answer_that_breaks_off_what_came_is_compared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def cut(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"a":1}')
        await writer.drain()
        writer.close()

    file = kept(tmp_path / "call.json", '{"a":1}')
    async with await asyncio.start_server(cut, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        assert await asyncio.to_thread(calls.replay, file, url, "sk") == 0
    assert capsys.readouterr().out.startswith("the same answer; ")


async def test_what_cannot_be_made_again_is_not_asked(tmp_path: Path) -> None:
    for said in (
        {"lost_bytes": 5},
        {"caller": {"method": "GET", "lost_bytes": 5, "body": {"text": ""}, "headers": {}}},
    ):
        file = kept(tmp_path / "call.json", "{}", **said)
        with pytest.raises(NoCallFile, match=r"^this call cannot be made again: "):
            await asyncio.to_thread(calls.replay, file, "http://127.0.0.1:1", "sk")
    with pytest.raises(calls.NotThere, match=r"^nobody answers at http://127.0.0.1:1$"):
        await asyncio.to_thread(calls.replay, kept(tmp_path / "call.json", "{}"), "http://127.0.0.1:1/x", "sk")
