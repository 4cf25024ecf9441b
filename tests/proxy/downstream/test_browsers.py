"""Claims about what a website can make a browser do, by the requests that browsers send (spec HTTP-15)."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest
import structlog.testing

from config import sources
from config.settings import SettingsError
from proxy.simulation.simulator import Simulator
from tests import caller
from tests.conftest import StartSimulator
from tests.proxy.conftest import Running, StartGateway

DENIED = (403, "AccessDenied", "Access denied.")
PAGE = "https://chat.example.com"
GET = {"Content-Length": "", "Content-Type": "", "Authorization": ""}


@pytest.fixture
async def upstream(simulator: StartSimulator) -> Simulator:
    return await simulator()


@pytest.fixture
async def open_door(upstream: Simulator, gateway_before: StartGateway) -> Running:
    return await gateway_before(upstream.url, auth="none", cors_origin=[PAGE], trusted_host=["proxy.home.example"])


def headers(front: Running, said: dict[str, str]) -> dict[str, str]:
    """`PORT` stands for that of the data port."""
    return {name: value.replace("PORT", str(urlsplit(front.url).port)) for name, value in said.items()}


FOREIGN = {
    "another site's script, a type that needs no leave": {
        "Origin": "http://evil.example",
        "Sec-Fetch-Site": "cross-site",
        "Content-Type": "text/plain",
    },
    "a browser that says no site": {"Host": "127.0.0.1:PORT", "Origin": "http://evil.example"},
    "another port of this machine": {"Host": "127.0.0.1:PORT", "Origin": "http://127.0.0.1:1"},
    "a sandboxed frame": {"Host": "127.0.0.1:PORT", "Origin": "null"},
    "a file": {"Host": "localhost:PORT", "Origin": "file://"},
    "a rebound name": {"Host": "evil.example:PORT", "Origin": "http://evil.example:PORT"},
    "a rebound name, by the browser's own word": {"Host": "evil.example:PORT", "Sec-Fetch-Site": "same-origin"},
    "a sister of ours": {"Host": "proxy.home.example", "Sec-Fetch-Site": "same-site"},
    "an origin that only ends like a named one": {"Origin": "https://evil-chat.example.com"},
    "a named origin by another scheme": {"Origin": "http://chat.example.com"},
    "a named origin on another port": {"Origin": "https://chat.example.com:8443"},
    "half an address": {"Host": "[::", "Origin": "http://[::"},
    "an address before a name": {"Host": "127.0.0.1.evil.example", "Origin": "http://127.0.0.1.evil.example"},
    "of our own, across sites": {
        "Host": "localhost:PORT",
        "Origin": "http://localhost:PORT",
        "Sec-Fetch-Site": "cross-site",
    },
}
OURS = {
    "a program": {},
    "a program that asks by any name": {"Host": "dashseek.cluster.example"},
    "a page of an address": {
        "Host": "127.0.0.1:PORT",
        "Origin": "http://127.0.0.1:PORT",
        "Sec-Fetch-Site": "same-origin",
    },
    "a page of localhost": {"Host": "localhost:PORT", "Origin": "http://localhost:PORT"},
    "a page of version 6": {"Host": "[::1]:PORT", "Origin": "http://[::1]:PORT"},
    "a page of a trusted host": {
        "Host": "Proxy.Home.example",
        "Origin": "https://proxy.home.example",
        "Sec-Fetch-Site": "same-origin",
    },
    "typed by hand": {"Host": "127.0.0.1:PORT", "Sec-Fetch-Site": "none"},
    "a named page": {"Host": "evil.example", "Origin": PAGE, "Sec-Fetch-Site": "cross-site"},
}


async def asked(front: Running, cases: dict[str, dict[str, str]]) -> dict[str, caller.Answer]:
    return {case: await caller.ask(front.url, caller.call(), headers(front, said)) for case, said in cases.items()}


@pytest.mark.parametrize("auth", ["any", "none"])
async def test_no_website_makes_a_call_where_no_key_is_judged(
    upstream: Simulator, gateway_before: StartGateway, auth: str
) -> None:
    front = await gateway_before(upstream.url, auth=auth, cors_origin=[PAGE], trusted_host=["proxy.home.example"])
    assert {case: answer.fault for case, answer in (await asked(front, FOREIGN)).items()} == dict.fromkeys(
        FOREIGN, DENIED
    )
    assert (upstream.calls, front.ended) == ([], [])


async def test_whoever_is_no_website_may_call(open_door: Running) -> None:
    assert {case: answer.status for case, answer in (await asked(open_door, OURS)).items()} == dict.fromkeys(OURS, 200)


async def test_where_the_callers_own_key_pays_a_page_may_call_with_it(
    upstream: Simulator, gateway_before: StartGateway
) -> None:
    """It has to know it; and without leave it cannot read the answer."""
    answers = await asked(await gateway_before(upstream.url), FOREIGN)
    assert {case: answer.status for case, answer in answers.items()} == dict.fromkeys(FOREIGN, 200)
    assert "access-control" not in str(answers).lower()


async def leave(front: Running, asks: dict[str, str]) -> caller.Answer:
    """A browser's question before a call, and its answer, which has no body."""
    async with caller.dial(front.url) as line:
        line.send(caller.request(b"", GET | asks, method="OPTIONS"))
        return await line.answer(bodiless=True)


class TestCors:
    """Pages that the operator named may call, and read."""

    async def test_its_browser_is_told_that_it_may(self, open_door: Running, upstream: Simulator) -> None:
        asks = {
            "Origin": PAGE,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization,content-type,x-dashscope-sse",
        }
        answer = await leave(open_door, asks)
        assert answer.status == 204
        assert answer.headers["Access-Control-Allow-Origin"] == PAGE
        assert answer.headers["Access-Control-Allow-Headers"] == asks["Access-Control-Request-Headers"]
        assert "POST" in answer.headers["Access-Control-Allow-Methods"]
        assert answer.headers["Vary"] == "Origin"
        assert "Access-Control-Allow-Credentials" not in answer.headers
        assert upstream.calls == []

    async def test_nobody_else_is(self, open_door: Running) -> None:
        for origin in ("https://evil.example", "null", f"{PAGE}.evil.example"):
            asks = {"Origin": origin, "Access-Control-Request-Method": "POST"}
            answer = await caller.ask(open_door.url, b"", GET | asks, method="OPTIONS")
            assert answer.fault == DENIED
            assert not [name for name in answer.headers if name.lower().startswith("access-control")]

    async def test_every_header_it_asks_for_is_let_through(self, open_door: Running) -> None:
        """COM-28: a name is a token (RFC 9110, 5.6.2), and some clients have dozens of them."""
        for asked in (
            "x.dotted, x_under,\tx!#$%&'*+^`|~",
            ",".join(f"x-stainless-number-{index}" for index in range(200)),
        ):
            asks = {"Origin": PAGE, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": asked}
            answer = await leave(open_door, asks)
            assert answer.headers["Access-Control-Allow-Headers"] == asked

    async def test_names_of_headers_that_are_none_are_not_repeated(self, open_door: Running) -> None:
        asks = {"Origin": PAGE, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "a: b;"}
        answer = await leave(open_door, asks)
        assert (answer.status, "Access-Control-Allow-Headers" in answer.headers) == (204, False)

    async def test_it_reads_packets_replies_and_refusals(
        self, upstream: Simulator, gateway_before: StartGateway
    ) -> None:
        front = await gateway_before(upstream.url, cors_origin=[PAGE])
        for sse, key, status in (("enable", "k", 200), ("disable", "k", 200), ("enable", "", 401)):
            said = {"Origin": PAGE, "X-DashScope-SSE": sse, "Authorization": f"Bearer {key}"}
            answer = await caller.ask(front.url, caller.call(), said)
            assert (answer.status, answer.headers["Access-Control-Allow-Origin"]) == (status, PAGE)
            shown = answer.headers["Access-Control-Expose-Headers"].split(", ")
            # A client in a page goes by all of these.
            assert {"X-Request-Id", "Retry-After", "X-Should-Retry"} <= {*shown}
            assert answer.headers["Vary"] == "Origin"

    async def test_the_admin_port_is_no_pages_to_read(self, open_door: Running) -> None:
        said = GET | {"Host": "localhost", "Origin": PAGE}
        answer = await caller.ask(open_door.admin_url, b"", said, path="/metrics", method="GET")
        assert not [name for name in answer.headers if name.lower().startswith("access-control")]


PATHS = ("/metrics", "/readyz", "/healthz", "/docs", "/openapi.json", "/nowhere")


async def test_an_admin_port_on_loopback_answers_no_name_that_may_be_anybodys(open_door: Running) -> None:
    """A page of a moved name asks so; a GET of its own origin carries neither `Origin` nor `Sec-Fetch-Site`."""
    for path in PATHS:
        answer = await caller.ask(open_door.admin_url, b"", GET | {"Host": "evil.example"}, path=path, method="GET")
        assert answer.fault == DENIED, path
        for host in ("127.0.0.1:81", "localhost", "proxy.home.example:9", "[::1]"):
            answer = await caller.ask(open_door.admin_url, b"", GET | {"Host": host}, path=path, method="GET")
            assert answer.status == (404 if path == PATHS[-1] else 200), (path, host)


async def test_a_probe_of_http_1_0_names_no_host_and_is_answered(open_door: Running) -> None:
    """No browser leaves it out."""
    async with caller.dial(open_door.admin_url) as line:
        line.send(b"GET /readyz HTTP/1.0\r\n\r\n")
        assert (await line.answer()).status == 200


async def test_an_admin_port_bound_elsewhere_is_asked_by_any_name(
    upstream: Simulator, gateway_before: StartGateway
) -> None:
    """Prometheus and the kubelet name it as their platform does."""
    front = await gateway_before(upstream.url, admin_host="0.0.0.0")
    url = front.admin_url.replace("0.0.0.0", "127.0.0.1")
    said = GET | {"Host": "dashseek.monitoring.svc:8081"}
    for path in PATHS[:-1]:
        assert (await caller.ask(url, b"", said, path=path, method="GET")).status == 200


async def test_a_refused_page_leaves_a_line_that_names_the_way_out(open_door: Running) -> None:
    with structlog.testing.capture_logs() as lines:
        await caller.ask(open_door.url, caller.call(), {"Origin": "https://evil.example"})
        await caller.ask(
            open_door.url, caller.call(), headers(open_door, FOREIGN["a rebound name"]), path=f"{caller.GENERATION}?a=b"
        )
    assert [(line["event"], line["path"], line["status"]) for line in lines] == [("stray", caller.GENERATION, 403)] * 2
    assert ["--cors-origin" in lines[0]["hint"], "--trusted-host" in lines[1]["hint"]] == [True, True]
    assert "evil" not in str(lines)


@pytest.mark.parametrize(
    "said",
    [
        {"cors_origin": ["https://*"]},
        {"cors_origin": ["*.example.com"]},
        {"cors_origin": ["https://a.example/path"]},
        {"cors_origin": ["a.example"]},
        {"cors_origin": ["null"]},
        {"trusted_host": ["*.example.com"]},
        {"trusted_host": ["http://a.example"]},
        {"trusted_host": ["a.example:8080"]},
    ],
)
def test_what_is_no_origin_or_no_name_is_refused_at_the_start(said: dict[str, list[str]]) -> None:
    with pytest.raises(SettingsError) as error:
        sources.load({"upstream": ("http://127.0.0.1:1",), **said}, None, {})
    assert next(iter(said)) in str(error.value)


@pytest.mark.parametrize("auth", ["any", "none"])
def test_every_page_is_let_in_by_no_door_that_judges_no_key(auth: str) -> None:
    """COM-28: a website could call at the operator's cost."""
    said = {"upstream": ("http://127.0.0.1:1",), "cors_origin": ("*",), "auth": auth}
    key = {"DASHSEEK_UPSTREAM_API_KEY": "sk-ours"}
    with pytest.raises(SettingsError, match="any website could call at your cost"):
        sources.load(said, None, key)
    assert sources.load({**said, "auth": "passthrough"}, None, {}).cors_origin == ("*",)


def test_both_are_said_by_flags_variables_and_the_file() -> None:
    said = {"DASHSEEK_CORS_ORIGIN": "https://A.example, app://obsidian.md", "DASHSEEK_TRUSTED_HOST": "A.example"}
    chosen = sources.load({"upstream": ("http://127.0.0.1:1",)}, None, said)
    assert chosen.cors_origin == ("https://a.example", "app://obsidian.md")
    assert chosen.trusted_host == ("a.example",)
