"""Claims about requests that are no call: a line with a hint, and a count (spec HTTP-13)."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import uuid
from functools import partial
from typing import Any

import pytest
import structlog.testing

from proxy.downstream import request_ids, strays, surface
from proxy.downstream.strays import escaped
from tests import caller
from tests.conftest import ROOT
from tests.proxy.conftest import Running, StartGateway

SERVICES = "/api/v1/services/aigc/text-generation/generation"


@pytest.fixture
async def front(gateway_before: StartGateway) -> Running:
    return await gateway_before("http://127.0.0.1:1")


PATHS = {
    "/services/aigc/text-generation/generation": "/api/v1 is missing",
    "/api/v1/api/v1/services/aigc/text-generation/generation": "/api/v1 is there twice",
    f"{SERVICES}/": "trailing slash",
    f"/{SERVICES}": "doubled",
    "/api/v1//services/aigc/text-generation/generation": "doubled",
    "/v1/chat/completions/": "trailing slash",
    "//v1/chat/completions": "doubled",
    "/compatible-mode/v1//models": "doubled",
    "/v1/models/": "trailing slash",
    "/compatible-mode/chat/completions": "/v1 is missing",
    "/chat/completions": "/v1 is missing",
    "/models": "/v1 is missing",
    "/v1/v1/chat/completions": "/v1 is there twice",
    "/compatible-mode/v1/v1/models": "/v1 is there twice",
    "/v1/chat/completions/chat/completions": "/chat/completions is there twice",
    "/v1/embeddings": "OpenAI",
    "/api/v1/chat/completions": "OpenAI",
    "/v1/responses": "OpenAI",
    "/metrics": "admin port",
    "/api/v1/services/embeddings/text-embedding/text-embedding": "answers in text",
    "/api/v1/services/aigc/image2image/image-synthesis": "answers in text",
    "/favicon.ico": None,
}


async def test_a_request_that_no_route_takes_leaves_a_line_that_says_what_was_meant(
    front: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(front.process.calls.runner.app[surface.STRAYS]._log, "_most", len(PATHS))
    with structlog.testing.capture_logs() as lines:
        answers = [await caller.ask(front.url, caller.call(), path=f"{path}?api_key=canary") for path in PATHS]
    assert [(line["event"], line["method"], line["path"]) for line in lines] == [
        ("stray", "POST", path) for path in PATHS
    ]
    told = [(answer.status, answer.json["request_id"]) for answer in answers]
    assert [(line["status"], line["request_id"]) for line in lines] == told
    assert {status for status, _ in told} == {404}
    wrong = [
        line for line, hint in zip(lines, PATHS.values(), strict=True) if (hint or "None") not in str(line["hint"])
    ]
    assert wrong == []
    assert "canary" not in str(lines)


async def test_so_does_another_method(front: Running) -> None:
    with structlog.testing.capture_logs() as lines:
        await caller.ask(front.url, b"", method="GET")
    assert [(line["event"], line["status"], line["hint"]) for line in lines] == [("stray", 400, "takes POST")]


async def test_so_does_a_call_that_came_to_the_admin_port(front: Running) -> None:
    with structlog.testing.capture_logs() as lines:
        assert (await caller.ask(front.admin_url, caller.call())).fault[:2] == (404, "NotFound")
    (line,) = lines
    assert (line["port"], line["hint"]) == ("admin", "a call: the data port takes it")


async def test_so_does_a_tls_hello_on_the_plain_port(front: Running) -> None:
    with structlog.testing.capture_logs() as lines:
        async with caller.dial(front.url) as line:
            line.send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(32))
            assert (await line.answer()).status == 400
    (said,) = lines
    assert (said["event"], said["status"], said["path"]) == ("stray", 400, "")
    assert "TLS" in said["hint"]


async def test_a_path_is_cut_and_escaped(front: Running) -> None:
    with structlog.testing.capture_logs() as lines:
        await caller.ask(front.url, caller.call(), path="/" + "a%0A" * 100)
    (line,) = lines
    assert line["path"] == ("/" + "a%0A" * 100)[:128]
    assert escaped("a\x1b[31m\n\u4f60\udcff", 64) == "a\\x1b[31m\\x0a\\u4f60\\udcff"
    # What is one of the two, printable or ASCII, is not both; cut is what came, not what is made of it.
    assert [escaped(one, 2) for one in ("\u4f60" * 3, "\n" * 3, "abc")] == ["\\u4f60" * 2, "\\x0a" * 2, "ab"]


async def test_the_first_ten_of_a_minute_are_said_and_the_rest_counted(
    front: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    limited = front.process.calls.runner.app[surface.STRAYS]._log
    with structlog.testing.capture_logs() as lines:
        for _ in range(25):
            await caller.ask(front.url, caller.call(), path="/nowhere")
        monkeypatch.setattr(limited, "_ends_s", 0.0)
        await caller.ask(front.url, caller.call(), path="/nowhere")
    assert [line["count"] for line in lines] == [1] * 10 + [16]


async def test_each_is_counted_by_its_status(front: Running) -> None:
    for path, method in (("/nowhere", "POST"), ("/nowhere", "GET"), (caller.GENERATION, "GET")):
        await caller.ask(front.url, b"", path=path, method=method)
    answer = await caller.ask(front.admin_url, b"", path="/metrics", method="GET")
    told = [line for line in answer.body.decode().splitlines() if line.startswith("dashseek_stray_requests_total{")]
    assert sorted(told) == [
        'dashseek_stray_requests_total{status="400"} 1.0',
        'dashseek_stray_requests_total{status="404"} 2.0',
    ]


async def test_a_call_that_fails_is_none(front: Running) -> None:
    with structlog.testing.capture_logs() as lines:
        await caller.ask(front.url, caller.call(model="gpt-4"))
        await caller.ask(front.url, caller.call(), {"Authorization": ""})
    assert {line["event"] for line in lines} == {"call"}


@pytest.mark.parametrize(
    ("limits", "told"),
    [
        ({"most": 2, "every_s": 5.0}, [(100.0, 1), (100.0, 1), (105.0, 3), (109.9, 1), (110.0, 2)]),
        ({}, [(100.0, 1), (110.0, 7)]),
    ],
)
async def test_a_window_begins_anew_at_its_end_and_counts_what_went_unsaid(
    monkeypatch: pytest.MonkeyPatch, limits: Any, told: list[tuple[float, int]]
) -> None:
    """HTTP-13, with the loop's clock in the test's hand."""
    limited = strays.RateLimitedLog("came", "data", **limits)
    said: list[tuple[float, int]] = []
    for now_s in (100.0, 100.0, 100.0, 104.9, 105.0, 109.9, 109.9, 110.0):
        with structlog.testing.capture_logs() as lines, monkeypatch.context() as patched:
            patched.setattr(asyncio.get_running_loop(), "time", partial(float, now_s))
            limited.note(reason="r")
        said += [(now_s, line["count"]) for line in lines]
        assert all((line["event"], line["port"], line["log_level"]) == ("came", "data", "warning") for line in lines)
    assert said == told


def test_processes_that_are_forked_say_no_ids_of_one_another() -> None:
    """HTTP-6: ids are made many at once, and those that are left are of the process that made them."""
    words = (
        "import os; from proxy.downstream import request_ids as r; r.new_request_id(); child = os.fork();"
        "os.write(1, b''.join(r.new_request_id().encode() + b' ' for _ in range(9))); child and os.waitpid(child, 0)"
    )
    ids = subprocess.run([sys.executable, "-c", words], cwd=ROOT, capture_output=True, check=True).stdout.split()
    assert len({*ids}) == len(ids) == 18


def test_an_ids_bits_are_those_of_a_random_one() -> None:
    """HTTP-6, RFC 9562: version 4, each once; a caller's is kept where it is one."""
    made = [request_ids.new_request_id() for _ in range(3 * request_ids.IDS_AT_ONCE)]
    assert len({*made}) == len(made)
    for one in made:
        read = uuid.UUID(one)
        assert (str(read), read.version, read.variant) == (one, 4, uuid.RFC_4122)
    assert {one[19] for one in made} == {*"89ab"}
    # All else is random: no place says the same in all of them.
    assert [place for place in range(36) if len({one[place] for one in made}) == 1] == [8, 13, 14, 18, 23]
    assert request_ids.new_request_id(made[0]) == made[0]
    for odd in (made[0].upper(), made[0] + "0", made[0][:-1], "a"):
        assert request_ids.new_request_id(odd) != odd


def test_the_rates_are_those_of_the_rule() -> None:
    assert (strays.STRAY_LINES, strays.STRAY_WINDOW_S, strays.PATH_CHARS) == (10, 60.0, 128)
