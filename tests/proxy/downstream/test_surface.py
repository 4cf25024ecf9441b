"""Claims about what every request passes and every answer carries, on either port (HTTP-4, HTTP-6, ERR-1)."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import orjson
import pytest
import structlog.testing
from aiohttp import HttpVersion, HttpVersion10, HttpVersion11, web
from aiohttp.test_utils import make_mocked_request
from multidict import CIMultiDict

from proxy.downstream import surface
from proxy.downstream.browsers import Browsers, foreign_page, nothing
from proxy.downstream.phase import CUTTING, DRAINING, LEAVING, LIFECYCLE, SERVING, Phase
from proxy.downstream.strays import Stray, Strays
from translators import faults
from translators.compatible import tongue as compatible
from translators.dashscope import tongue as dashscope

NEVER = Browsers(foreign_page, frozenset({"https://ours.example"}))
ANY = Browsers(nothing)


def application(browsers: Browsers = ANY) -> tuple[web.Application, list[int]]:
    """An application that is guarded, and what it has counted as strays."""
    app, counted = web.Application(), list[int]()
    surface.guard(
        app,
        tongue=dashscope,
        below={"/v1/": compatible},
        browsers=browsers,
        strays=Strays("calls", count=counted.append),
        health=("/healthz",),
    )
    return app, counted


def asked(
    method: str = "POST", path: str = "/", headers: Any = (), *, version: HttpVersion = HttpVersion11, **said: Any
) -> web.Request:
    app = said.pop("app", None) or application()[0]
    return make_mocked_request(method, path, CIMultiDict(headers), version=version, app=app, **said)


CHUNKED = ("Transfer-Encoding", "chunked")


@pytest.mark.parametrize(
    ("version", "path", "headers", "complaint"),
    [
        (HttpVersion11, "/", [], None),
        (HttpVersion10, "/", [], None),
        (HttpVersion11, "/", [CHUNKED], None),
        (HttpVersion11, "/", [("transfer-encoding", "Chunked")], None),
        (HttpVersion(0, 9), "/", [], "HTTP version"),
        (HttpVersion(2, 0), "/", [], "HTTP version"),
        (HttpVersion10, "/", [CHUNKED], "Transfer-Encoding on HTTP/1.0"),
        (HttpVersion11, "/", [("Transfer-Encoding", "gzip, chunked")], "Transfer-Encoding"),
        (HttpVersion11, "/", [CHUNKED, CHUNKED], "Transfer-Encoding"),
        (HttpVersion11, "http://a/", [], "not origin-form"),
        (HttpVersion10, "http://a/", [], "not origin-form"),
        (HttpVersion11, "http://a/", [CHUNKED], "not origin-form"),
    ],
)
def test_what_others_may_frame_in_another_way_is_no_request(
    version: HttpVersion, path: str, headers: list[tuple[str, str]], complaint: str | None
) -> None:
    request = asked(path=path, headers=headers, version=version)
    if complaint is None:
        surface.check_framing(request)
        return
    with pytest.raises(surface.Misframed) as refused:
        surface.check_framing(request)
    assert refused.value.message == complaint


@pytest.mark.parametrize(
    ("fault", "more", "headers"),
    [
        (faults.BODY_INVALID, {}, {}),
        (faults.OVERLOADED.after("7"), {}, {"Retry-After": "7"}),
        (faults.OVERLOADED.after("7"), {"Retry-After": "9", "X": "y"}, {"Retry-After": "9", "X": "y"}),
        (faults.BODY_INVALID, {"X": "y"}, {"X": "y"}),
    ],
)
def test_a_failure_is_an_answer_of_its_own(fault: faults.Fault, more: dict[str, str], headers: dict[str, str]) -> None:
    answer = surface.refused(fault, "r", dashscope.failure, more)
    assert (answer.status, answer.content_type) == (fault.status, "application/json")
    assert orjson.loads(answer.body)["request_id"] == "r"  # type: ignore[arg-type]
    assert {name: answer.headers[name] for name in ("Retry-After", "X") if name in answer.headers} == headers


@pytest.mark.parametrize(
    ("phase", "headers", "whole", "is_last"),
    [
        (SERVING, {}, True, False),
        (DRAINING, {}, True, False),
        (LEAVING, {}, True, True),
        (CUTTING, {}, True, True),
        (SERVING, {"Upgrade": "h2c"}, True, True),
        (SERVING, {}, False, True),
    ],
)
async def test_a_connection_brings_no_more_where_the_process_leaves_or_what_follows_is_read_by_nobody(
    phase: Phase, headers: dict[str, str], whole: bool, is_last: bool
) -> None:
    request = asked(headers=headers, payload=SimpleNamespace(is_eof=lambda: whole))
    request.app[LIFECYCLE].phase = phase
    other = SimpleNamespace(phase=SERVING)
    assert surface.is_last(request) is is_last
    assert surface.is_last(request, other) is (is_last and phase is SERVING)  # type: ignore[arg-type]
    answer = web.Response(headers={"Server": "any"})
    answer._keep_alive = True
    await surface.last_look(request, answer)
    assert (answer.headers["X-Request-Id"], answer.headers["Via"]) == (surface.request_id(request), "1.1 dashseek")
    assert "Server" not in answer.headers
    assert (answer.headers.get("Connection"), answer.keep_alive) == (("close", False) if is_last else (None, True))


async def test_the_page_that_asked_may_read_any_answer() -> None:
    request = asked(headers={"Origin": "https://ours.example"}, app=application(NEVER)[0])
    answer = web.Response()
    await surface.last_look(request, answer)
    assert answer.headers["Access-Control-Allow-Origin"] == "https://ours.example"


class TestStraight:
    """Calls at their known paths go past the router, and find what it would have found."""

    @pytest.mark.parametrize(
        ("method", "path", "headers", "goes"),
        [
            ("POST", "/calls", {}, "straight"),
            ("POST", "/calls?a=1", {}, "general"),
            ("POST", "/others", {}, "general"),
            ("GET", "/calls", {}, "general"),
            ("POST", "/calls", {"Expect": "100-continue"}, "general"),
        ],
    )
    async def test_only_those(self, method: str, path: str, headers: dict[str, str], goes: str) -> None:
        app, _ = application()
        passed = list[str]()

        def passing(name: str) -> Any:
            @web.middleware
            async def pass_by(request: web.Request, handler: Any) -> web.StreamResponse:
                passed.append(name)
                return await handler(request)  # type: ignore[no-any-return]

            return pass_by

        app.middlewares.extend(map(passing, ("first", "second")))

        async def call(request: web.Request) -> web.StreamResponse:
            assert request.app is app
            assert request.match_info.route.resource is not None
            assert request.match_info.route.resource.canonical == "/calls"
            return web.Response(text="straight")

        async def general(_: web.Request) -> web.StreamResponse:
            return web.Response(text="general")

        surface.add_calls(app, "/calls", call)
        answer: Any = await surface.straight(app, general)(asked(method, path, headers, app=app))
        assert answer.text == goes
        assert passed == (["first", "second"] if goes == "straight" else [])

    async def test_by_the_router_they_are_found_too(self) -> None:
        app, _ = application()

        async def call(_: web.Request) -> web.StreamResponse:
            return web.Response(text="called")

        surface.add_calls(app, "/calls", call)
        found = await app.router.resolve(asked("POST", "/calls", app=app))
        answer: Any = await found.handler(asked("POST", "/calls", app=app))
        assert answer.text == "called"


NOT_POST = web.HTTPMethodNotAllowed("PUT", ["POST", "GET"])


@pytest.mark.parametrize(
    ("error", "fault", "hint"),
    [
        (faults.Refusal(faults.OVERLOADED.after("1"), "a cause"), faults.OVERLOADED, None),
        (web.HTTPRequestEntityTooLarge(1, 2), faults.BODY_TOO_LARGE, None),
        (Stray(faults.ACCESS_DENIED, "a hint"), faults.ACCESS_DENIED, "a hint"),
        (NOT_POST, faults.wrong_method("PUT"), "takes GET, POST"),
        (web.HTTPNotFound(), faults.NOT_FOUND, None),
    ],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.parametrize(
    ("path", "speaks", "shape"),
    [
        ("/v1/anything", None, "openai"),
        ("/v1", None, "openai"),
        ("/v10", None, "dashscope"),
        ("/v1/anything", dashscope, "dashscope"),
        ("/", compatible, "openai"),
    ],
    ids=str,
)
async def test_every_failure_is_told_in_the_tongue_of_who_asks(
    *, error: Exception, fault: faults.Fault, hint: str | None, path: str, speaks: Any, shape: str
) -> None:
    """HTTP-4, COM-1; what is no call leaves a line, and is counted."""
    app, counted = application()
    request = asked("PUT", path, app=app)
    if speaks is not None:
        request[surface.TONGUE] = speaks

    async def fail(_: web.Request) -> web.StreamResponse:
        raise error

    (shaped,) = app.middlewares
    with structlog.testing.capture_logs() as lines:
        answer: Any = await shaped(request, fail)  # type: ignore[call-arg, arg-type]
    assert answer.status == fault.status
    told = orjson.loads(answer.body)
    assert ("error" in told) is (shape == "openai")
    assert fault.message.partition("%")[0][:9] in str(told)
    is_stray = not isinstance(error, faults.Refusal | web.HTTPRequestEntityTooLarge)
    assert counted == [fault.status] * is_stray
    assert [line["event"] for line in lines] == ["stray"] * is_stray
    if hint is not None:
        assert lines[0]["hint"] == hint
    if isinstance(error, faults.Refusal):
        assert error.__traceback__ is None


async def test_what_is_well_is_let_through_and_what_a_website_may_not_send_is_not() -> None:
    """HTTP-15."""

    async def served(_: web.Request) -> web.StreamResponse:
        return web.Response(text="served")

    page, ours = {"Origin": "https://evil.example"}, {"Origin": "https://ours.example"}
    asks = {"Access-Control-Request-Method": "POST"}
    for browsers, method, headers, status in (
        (ANY, "POST", {}, 200),
        (ANY, "POST", page, 200),
        (NEVER, "POST", {}, 200),
        (NEVER, "POST", page, 403),
        (NEVER, "POST", ours, 200),
        (NEVER, "POST", ours | asks, 200),
        (NEVER, "OPTIONS", ours | asks, 204),
        (NEVER, "OPTIONS", ours, 200),
    ):
        app, _ = application(browsers)
        (shaped,) = app.middlewares
        answer = await shaped(asked(method, "/calls", headers, app=app), served)  # type: ignore[call-arg, arg-type]
        assert answer.status == status, (method, headers)
        assert surface.last_look in app.on_response_prepare
    with pytest.raises(surface.Misframed):
        await shaped(asked(version=HttpVersion(2, 0), app=app), served)  # type: ignore[call-arg, arg-type]
