"""HTTP-1 … HTTP-11, rule by rule, against the real process."""

from __future__ import annotations

import asyncio
import gzip
import re
import uuid
from typing import Any

import orjson
import pytest

from proxy.downstream import paths
from proxy.simulation.wire import Script
from tests import caller
from tests.integration.conftest import Pair
from translators import faults

pytestmark = pytest.mark.asyncio(loop_scope="module")

FLAGS = ("--log-level", "debug", "--max-body-bytes", "1MiB")

NOT_FOUND = (404, "NotFound", "Not found!")
NO_KEY = (401, "InvalidApiKey", "No API-key provided.")
UNREADABLE = (400, "InvalidParameter", "Required body invalid, please check the request body format.")
TOO_LARGE = (400, "BadRequest.TooLarge", "Payload Too Large.")
KNOWN = "5354a793-a130-4b36-b1dc-2610c5f49071"
TRANSPORT = {"date", "transfer-encoding", "content-length", "connection"}


class TestHttp1:
    """The native endpoint, JSON and SSE."""

    async def test_a_call_is_answered_with_a_reply(self, pair: Pair) -> None:
        answer = await caller.ask(pair.url, caller.call("Hello!"))
        assert answer.status == 200
        assert [*answer.json] == ["output", "usage", "request_id"]

    async def test_and_with_packets_where_they_are_asked_for(self, pair: Pair) -> None:
        answer = await caller.stream(pair.url, caller.call("Hello!"))
        assert answer.status == 200
        assert answer.body.startswith(b"id:1\nevent:result\n:HTTP_STATUS/200\ndata:{")


class TestHttp2:
    """Partner routes with the model in the path, which wins over the body's."""

    @pytest.mark.parametrize("model", ["deepseek-v3.1", "DeepSeek-V3.1", "pre-x/deepseek-v3.1", "a%2Fdeepseek-v3.1"])
    async def test_the_model_of_the_path_is_asked(self, pair: Pair, model: str) -> None:
        number = pair.next(Script())
        answer = await caller.ask(pair.url, caller.call(model="deepseek-r1"), path=f"/partner/models/{model}")
        assert answer.status == 200
        # The body's model always thinks, the path's only when asked to.
        assert (await pair.upstream.call(number)).body["thinking"] == {"type": "disabled"}

    async def test_a_body_without_a_model_will_do(self, pair: Pair) -> None:
        body = {name: value for name, value in caller.call().items() if name != "model"}
        assert (await caller.ask(pair.url, body, path="/partner/models/deepseek-v3")).status == 200

    async def test_a_model_nobody_knows_is_told(self, pair: Pair) -> None:
        answer = await caller.ask(pair.url, caller.call(), path="/partner/models/gpt-4")
        assert answer.fault == (400, "InvalidParameter", "Model not exist.")


async def test_http3_the_multimodal_endpoint_takes_the_models_that_are_bound_to_it(pair: Pair) -> None:
    answer = await caller.ask(pair.url, caller.call(), path=paths.MULTIMODAL)
    assert answer.fault == (400, "InvalidParameter", "url error, please check url！")
    for path in (paths.MULTIMODAL, caller.GENERATION, "/siliconflow/models/deepseek-v4.1-flash"):
        answer = await caller.ask(pair.url, caller.call(model="deepseek-v4.1-flash"), path=path)
        content = answer.json["output"]["choices"][0]["message"]["content"]
        assert content == ([{"text": "You said: Say hello."}] if path == paths.MULTIMODAL else "You said: Say hello.")


class TestHttp4:
    """Unknown paths and wrong methods."""

    @pytest.mark.parametrize(
        "path",
        [
            "/",
            "/nowhere",
            f"{caller.GENERATION}/",
            f"/{caller.GENERATION}",
            caller.GENERATION.replace("/v1", "//v1"),
            caller.GENERATION.upper(),
            caller.GENERATION.replace("generation/generation", "generation/../generation"),
            "/api/v1",
            "/healthz/",
            "/compatible-mode",
            "/partner/models/",
            "/partner/models/deepseek-v3/",
            "/partner/models//deepseek-v3",
            "//partner/models/deepseek-v3",
            "/%2e%2e/etc/passwd",
        ],
    )
    @pytest.mark.parametrize("method", ["POST", "GET", "DELETE", "OPTIONS"])
    async def test_an_unknown_path_is_not_found(self, pair: Pair, path: str, method: str) -> None:
        assert (await caller.ask(pair.url, caller.call(), path=path, method=method)).fault == NOT_FOUND

    @pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "PROPFIND"])
    @pytest.mark.parametrize("path", [caller.GENERATION, paths.MULTIMODAL, "/partner/models/deepseek-v3"])
    async def test_a_wrong_method_is_named(self, pair: Pair, path: str, method: str) -> None:
        answer = await caller.ask(pair.url, b"", path=path, method=method)
        assert answer.fault == (400, "InvalidParameter", f"Request method '{method}' is not supported.")

    async def test_a_head_has_the_status_and_no_body(self, pair: Pair) -> None:
        async with caller.dial(pair.url) as line:
            for path, status in ((caller.GENERATION, 400), ("/nowhere", 404), (paths.HEALTH, 200)):
                line.send(caller.request(b"", path=path, method="HEAD"))
                answer = await line.answer(bodiless=True)
                assert answer.status == status
                assert uuid.UUID(answer.headers["x-request-id"])

    async def test_health_is_asked_by_get(self, pair: Pair) -> None:
        assert (await caller.ask(pair.url, b"", path=paths.HEALTH, method="GET")).json == {"status": "ok"}
        assert (await caller.ask(pair.url, b"", path=paths.HEALTH)).fault[0] == 400


class TestHttp5:
    """What selects SSE, and what does not."""

    @pytest.mark.parametrize(
        "headers",
        [{"X-DashScope-SSE": "enable"}, {"accept": "text/event-stream"}, {"Content-Type": "text/event-stream"}],
    )
    async def test_any_of_three_headers_does(self, pair: Pair, headers: dict[str, str]) -> None:
        answer = await caller.ask(pair.url, caller.call(), headers)
        assert answer.headers["content-type"] == "text/event-stream;charset=UTF-8"

    async def test_an_explicit_disable_wins(self, pair: Pair) -> None:
        headers = {"X-DashScope-SSE": "disable", "Accept": "text/event-stream"}
        assert (await caller.ask(pair.url, caller.call(), headers)).headers["content-type"] == "application/json"

    async def test_no_field_of_the_body_does(self, pair: Pair) -> None:
        answer = await caller.ask(pair.url, caller.call(stream=True) | {"stream": True})
        assert answer.headers["content-type"] == "application/json"


class TestHttp6:
    """Every answer carries an id, and its body says the same."""

    ANSWERS = (
        pytest.param(caller.GENERATION, "POST", caller.call(), {}, id="reply"),
        pytest.param(caller.GENERATION, "POST", caller.call(), caller.SSE, id="packets"),
        pytest.param(caller.GENERATION, "POST", b"{", {}, id="refused body"),
        pytest.param(caller.GENERATION, "POST", caller.call(), {"Authorization": ""}, id="no key"),
        pytest.param(caller.GENERATION, "GET", b"", {}, id="wrong method"),
        pytest.param("/nowhere", "POST", b"", {}, id="unknown path"),
        pytest.param(paths.HEALTH, "GET", b"", {}, id="health"),
    )

    @pytest.mark.parametrize(("path", "method", "body", "headers"), ANSWERS)
    async def test_the_callers_is_kept(
        self, pair: Pair, path: str, method: str, body: bytes, headers: dict[str, str]
    ) -> None:
        answer = await caller.ask(pair.url, body, headers | {"x-request-id": KNOWN}, path=path, method=method)
        assert answer.headers.getall("x-request-id") == [KNOWN]
        if path != paths.HEALTH:
            assert f'"request_id":"{KNOWN}"'.encode() in answer.body

    @pytest.mark.parametrize(("path", "method", "body", "headers"), ANSWERS)
    async def test_without_one_it_is_ours(
        self, pair: Pair, path: str, method: str, body: bytes, headers: dict[str, str]
    ) -> None:
        answer = await caller.ask(pair.url, body, headers, path=path, method=method)
        ours = answer.headers["x-request-id"]
        assert str(uuid.UUID(ours)) == ours
        if path != paths.HEALTH:
            assert f'"request_id":"{ours}"'.encode() in answer.body

    @pytest.mark.parametrize("said", ["abc", KNOWN + "0", "a\tb", "<script>", "0" * 4000])
    async def test_anything_else_is_replaced(self, pair: Pair, said: str) -> None:
        answer = await caller.ask(pair.url, caller.call(), {"X-Request-Id": said})
        assert answer.headers["x-request-id"] != said
        assert said not in answer.body.decode()


class TestHttp7:
    """The headers of an answer, all of them."""

    @staticmethod
    def named(answer: caller.Answer, *times: str) -> dict[str, str]:
        """Without those of the transport, and without times, which must be these."""
        named = {name.lower(): value for name, value in answer.headers.items() if name.lower() not in TRANSPORT}
        timed = [re.fullmatch(r"([a-z-]+);dur=\d+\.\d", part) for part in named.pop("server-timing").split(", ")]
        assert [part and part[1] for part in timed] == [*times]
        return named

    async def test_of_a_reply(self, pair: Pair) -> None:
        answer = await caller.ask(pair.url, caller.call())
        assert self.named(answer, "read", "translate", "upstream", "total") == {
            "content-type": "application/json",
            "x-request-id": answer.json["request_id"],
            "via": "1.1 dashseek",
        }

    async def test_of_an_error(self, pair: Pair) -> None:
        answer = await caller.stream(pair.url, b"[]")
        assert self.named(answer, "read", "total") == {
            "content-type": "application/json",
            "x-request-id": answer.json["request_id"],
            "via": "1.1 dashseek",
        }

    async def test_of_what_is_not_http(self, pair: Pair) -> None:
        """Answered past aiohttp, and known by the same name."""
        async with caller.dial(pair.url) as line:
            line.send(b"GARBAGE\r\n\r\n")
            answer = await line.answer()
        assert answer.headers["via"] == "1.1 dashseek"

    async def test_of_packets(self, pair: Pair) -> None:
        answer = await caller.stream(pair.url, caller.call())
        named = self.named(answer, "read", "translate", "upstream", "first-token", "total")
        named.pop("x-request-id")
        assert named == {
            "via": "1.1 dashseek",
            "content-type": "text/event-stream;charset=UTF-8",
            "cache-control": "no-cache",
            "x-accel-buffering": "no",
            "x-dashscope-call-gateway": "true",
        }

    async def test_a_caller_of_http_1_0_is_served(self, pair: Pair) -> None:
        wire = caller.request(caller.call("Hi"), caller.SSE).replace(b"HTTP/1.1", b"HTTP/1.0", 1)
        async with caller.dial(pair.url) as line:
            line.send(wire)
            answer = await line.answer()
        assert answer.line == "HTTP/1.0 200 OK"
        assert "transfer-encoding" not in answer.headers
        assert caller.packets(answer.body)[-1]["output"]["choices"][0]["finish_reason"] == "stop"


class TestHttp8:
    """What is not known is ignored, never refused, and named once in the debug log."""

    async def test_headers_fields_and_parameters(self, pair: Pair) -> None:
        headers = {
            "X-DashScope-WorkSpace": "w",
            "X-DashScope-DataInspection": '{"input":"cip"}',
            "X-DashScope-OssResourceResolve": "enable",
            "x-dashscope-sdk-version": "1",
            "X-Request-Id": (known := str(uuid.uuid4())),
        }
        parameters: dict[str, Any] = {
            "kwargs": {},
            "plugins": "{}",
            "tool_stream": True,
            "vl_high": 1,
            "user": "u",
            "heartbeat": True,
        }
        body = caller.call(**parameters) | {"resources": [], "stream": True, "task_group": "aigc"}
        body["input"]["messages"][0]["cache_control"] = {"type": "ephemeral"}
        assert (await caller.ask(pair.url, body, headers)).status == 200
        lines = [line for line in await _log(pair, known) if line["event"] == "ignored"]
        assert len(lines) == 1
        for name in ("plugins", "vl_high", "task_group", "cache_control"):
            assert name in str(lines[0]["fields"])


class TestHttp9:
    """Asynchronous and encrypted calls."""

    async def test_asynchronous_calls_are_denied(self, pair: Pair) -> None:
        answer = await caller.ask(pair.url, caller.call(), {"X-DashScope-Async": "enable"})
        assert answer.fault == (403, "AccessDenied", "Current user api does not support asynchronous calls.")

    async def test_encrypted_bodies_are_refused(self, pair: Pair) -> None:
        answer = await caller.ask(pair.url, b"\x00\x01", {"X-DashScope-EncryptionKey": "{}"})
        assert answer.fault[:2] == (400, "InvalidParameter")


class TestHttp10:
    """The key."""

    @pytest.mark.parametrize("headers", [{"Authorization": "bEaReR sk-a"}, {"Authorization": "", "X-API-KEY": "sk-a"}])
    async def test_it_comes_by_either_header(self, pair: Pair, headers: dict[str, str]) -> None:
        number = pair.next(Script())
        assert (await caller.ask(pair.url, caller.call(), headers)).status == 200
        assert (await pair.upstream.call(number)).headers["Authorization"] == "Bearer sk-a"

    @pytest.mark.parametrize("said", ["", "Bearer", "Bearer  ", "Basic dTpw"])
    async def test_none_or_an_empty_one_is_refused_before_the_body_is_looked_at(self, pair: Pair, said: str) -> None:
        assert (await caller.ask(pair.url, b"not JSON", {"Authorization": said})).fault == NO_KEY

    async def test_one_that_upstream_refuses_is_the_callers(self, pair: Pair) -> None:
        pair.next(Script(key="sk-another"))
        answer = await caller.ask(pair.url, caller.call())
        assert answer.fault == (401, "InvalidApiKey", "Invalid API-key provided.")
        assert caller.KEY[-4:] not in answer.body.decode()


class TestHttp11:
    """Bodies: their packing, their size."""

    async def test_gzip_is_accepted(self, pair: Pair) -> None:
        body = gzip.compress(orjson.dumps(caller.call()))
        assert (await caller.ask(pair.url, body, {"Content-Encoding": "gzip"})).status == 200

    async def test_the_limit_counts_after_inflation(self, pair: Pair) -> None:
        body = gzip.compress(orjson.dumps(caller.call("a" * (2 << 20))))
        assert len(body) < 4096
        assert (await caller.ask(pair.url, body, {"Content-Encoding": "gzip"})).fault == TOO_LARGE

    async def test_broken_gzip_is_unreadable(self, pair: Pair) -> None:
        async with caller.dial(pair.url) as line:
            line.send(caller.request(b"{}", {"Content-Encoding": "gzip"}))
            assert (await line.answer()).fault == UNREADABLE

    @pytest.mark.parametrize("size", [(1 << 20) + 1, 8 << 20])
    async def test_a_body_beyond_the_limit_is_too_large(self, pair: Pair, size: int) -> None:
        async with caller.dial(pair.url) as line:
            line.send(caller.request(b" " * size))
            assert (await line.answer()).fault == TOO_LARGE

    async def test_so_is_one_that_does_not_say_its_size(self, pair: Pair) -> None:
        async with caller.dial(pair.url) as line:
            line.send(caller.request(b"", {"Content-Length": "", "Transfer-Encoding": "chunked"}))
            line.send(b"10000\r\n%b\r\n" % (b" " * 0x10000) * 20 + b"0\r\n\r\n")
            assert (await line.answer()).fault == TOO_LARGE

    async def test_a_body_in_chunks_is_read(self, pair: Pair) -> None:
        body = orjson.dumps(caller.call())
        async with caller.dial(pair.url) as line:
            line.send(caller.request(b"", {"Content-Length": "", "Transfer-Encoding": "chunked"}))
            line.send(b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n")
            assert (await line.answer()).status == 200

    async def test_packets_are_never_compressed(self, pair: Pair) -> None:
        answer = await caller.stream(pair.url, caller.call(), {"Accept-Encoding": "gzip, deflate, br"})
        assert "content-encoding" not in answer.headers
        assert answer.body.startswith(b"id:1\n")


async def test_a_connection_serves_call_after_call_whatever_became_of_them(pair: Pair) -> None:
    """A refusal is no reason to connect anew."""
    async with caller.dial(pair.url) as line:
        for body, headers, status in (
            (caller.call(), {}, 200),
            (b"[]", {}, 400),
            (caller.call(), caller.SSE, 200),
            (caller.call(), {"Authorization": ""}, 401),
            (caller.call(model="gpt-4"), caller.SSE, 400),
            (caller.call(), {}, 200),
        ):
            line.send(caller.request(body, headers))
            answer = await line.answer()
            assert answer.status == status
            assert "connection" not in answer.headers


async def test_what_is_not_http_is_answered_in_the_same_shape(pair: Pair) -> None:
    """Spec ERR-6."""
    async with caller.dial(pair.url) as line:
        line.send(b"GET / HTTP/1.1\nHost: canary-not-http\n\n")
        answer = await line.answer()
        assert answer.fault == (400, "InvalidParameter", faults.BODY_INVALID.message)
        assert await line.eof() == b""
    assert "Traceback" not in pair.served.output
    assert "canary-not-http" not in pair.served.output


async def _log(pair: Pair, request_id: str) -> list[caller.Json]:
    """The lines of a call, once its last is there."""
    async with asyncio.timeout(5):
        while True:
            lines = [orjson.loads(line) for line in pair.served.output.splitlines() if request_id in line]
            if any(line["event"] == "call" for line in lines):
                return lines
            await asyncio.sleep(0.01)
