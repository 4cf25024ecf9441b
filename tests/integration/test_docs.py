"""The docs page on the real process: what it says, who may make calls by it, and what a browser makes of it."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import socket
from base64 import b64encode
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import orjson
import pytest

from proxy.admin import docs
from proxy.protocol import documents
from proxy.simulation.simulator import Simulator
from proxy.simulation.wire import Script
from tests import caller, needs
from tests.conftest import StartServe, StartSimulator
from tests.integration.conftest import Pair

pytestmark = pytest.mark.asyncio(loop_scope="module")

HOME = Path(__file__).parent
# Any key is let in, and the operator's own goes upstream: a website that got through would spend it.
OPERATORS = "sk-the-operators"


async def ask(url: str, path: str) -> caller.Answer:
    return await caller.ask(url, b"", {"Content-Length": "", "Authorization": ""}, path=path, method="GET")


async def attempt(admin: str, **headers: str) -> caller.Answer:
    """A call by the page's way, as its own script makes it, or with other headers."""
    ours = {"Host": urlsplit(admin).netloc, "Origin": admin, **caller.SSE}
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await caller.ask(admin, caller.call(), ours | named, path="/docs/try")


async def test_the_page_needs_nothing_from_anywhere(pair: Pair) -> None:
    answer = await ask(pair.served.admin_url, "/docs")
    page = answer.body.decode()
    loaded = re.findall(r'<(?:link|script|img|iframe)[^>]*(?:src|href)="(?!data:)', page)
    assert (answer.status, answer.headers["content-type"], loaded) == (200, "text/html; charset=utf-8", [])
    assert pair.url in page


async def test_the_policy_lets_run_what_is_in_the_page_and_nothing_else(pair: Pair) -> None:
    answer = await ask(pair.served.admin_url, "/docs")
    policy = dict(part.split(" ", 1) for part in answer.headers["content-security-policy"].split("; "))
    for tag, directive in (("script", "script-src"), ("style", "style-src")):
        (inline,) = re.findall(rf"<{tag}>(.*?)</{tag}>", answer.body.decode(), re.DOTALL)
        assert policy[directive] == f"'sha256-{b64encode(hashlib.sha256(inline.encode()).digest()).decode()}'"
    assert (policy["default-src"], policy["connect-src"], policy["frame-ancestors"]) == ("'none'", "'self'", "'none'")
    assert not re.search(r"<[^>]+ (style|on\w+)=", answer.body.decode())


async def test_it_holds_the_whole_protocol_in_both_languages(pair: Pair) -> None:
    page = (await ask(pair.served.admin_url, "/docs")).body.decode()
    for language, name in docs.LANGUAGES.items():
        text = (docs.PROTOCOL / name).read_text("utf-8")
        for level, title in re.findall(r"^(#{2,3}) (.*)$", text, re.MULTILINE):
            assert re.search(rf'<h{len(level)} id="{language}-[\d-]+">{re.escape(title)}</h', page), title
    assert page.count('class="machine"') == 4
    assert "<!-- " not in page


async def test_the_openapi_document_is_served_as_it_ships(pair: Pair) -> None:
    answer = await ask(pair.served.admin_url, "/openapi.json")
    assert answer.headers["content-type"].startswith("application/json")
    assert answer.body == (documents.HOME / documents.OPENAPI).read_bytes()


async def test_the_page_can_make_a_call_and_gets_packets(pair: Pair) -> None:
    answer = await attempt(pair.served.admin_url)
    assert answer.status == 200
    assert caller.text(answer.body)
    assert answer.headers["x-request-id"] == caller.packets(answer.body)[0]["request_id"]


@pytest.mark.asyncio(loop_scope="function")
async def test_so_it_can_where_several_processes_serve(serve: StartServe, simulator: StartSimulator) -> None:
    served = await serve((await simulator()).url, "--workers", "2")
    answer = await attempt(served.admin_url)
    assert (answer.status, bool(caller.text(answer.body))) == (200, True)


async def test_a_refusal_comes_through_as_it_is(pair: Pair) -> None:
    assert (await attempt(pair.served.admin_url, Authorization="")).fault == (
        401,
        "InvalidApiKey",
        "No API-key provided.",
    )


async def test_it_can_in_either_tongue_and_is_refused_in_the_one_it_asked_in(pair: Pair) -> None:
    """COM-33."""
    body = {"model": "deepseek-v3", "messages": [{"role": "user", "content": "Hi"}]}
    admin = pair.served.admin_url
    ours = {"Host": urlsplit(admin).netloc, "Origin": admin}
    answer = await caller.ask(admin, body, ours, path="/docs/try?api=openai")
    assert (answer.status, answer.json["object"]) == (200, "chat.completion")
    refused = await caller.ask(admin, body, {**ours, "Origin": "https://attacker.example"}, path="/docs/try?api=openai")
    assert (refused.status, refused.json["error"]["code"]) == (403, "access_denied")
    assert (await caller.ask(admin, caller.call(), ours, path="/docs/try?api=another")).json["output"]


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param({"Origin": "https://attacker.example"}, id="another site's script"),
        pytest.param({"Origin": "null"}, id="a sandboxed frame"),
        pytest.param({"Origin": ""}, id="nobody's page"),
        pytest.param({"Origin": "http://127.0.0.1:1"}, id="another port of this machine"),
        pytest.param({"Host": "attacker.example", "Origin": "http://attacker.example"}, id="a rebound name"),
        pytest.param({"Host": "[::", "Origin": "http://[::"}, id="half an address"),
        pytest.param({"Sec_Fetch_Site": "cross-site"}, id="by the browser's own word"),
        pytest.param({"Content_Type": "text/plain"}, id="a type that needs no leave"),
        pytest.param({"Content_Type": "application/x-www-form-urlencoded"}, id="a form"),
    ],
)
async def test_no_website_can_make_a_call_by_it(pair: Pair, headers: dict[str, str]) -> None:
    before = len(pair.upstream.calls)
    assert (await attempt(pair.served.admin_url, **headers)).fault == (403, "AccessDenied", "Access denied.")
    assert len(pair.upstream.calls) == before


@pytest.mark.asyncio(loop_scope="function")
@pytest.mark.parametrize("workers", ["1", "2"])
async def test_a_data_port_on_loopback_stays_closed_to_who_reaches_the_admin_port_alone(
    serve: StartServe, simulator: StartSimulator, workers: str
) -> None:
    """KEY-1: as in a sidecar, whose admin port the kubelet asks from outside."""
    upstream = await simulator()
    flags = ("--admin-host", "0.0.0.0", "--workers", workers)
    served = await serve(upstream.url, *flags, env={"DASHSEEK_UPSTREAM_API_KEY": OPERATORS})
    port = urlsplit(served.admin_url).port
    outside = f"http://{_address_outside()}:{port}"
    assert (await ask(outside, "/readyz")).status == 200
    assert (await attempt(outside)).fault == (403, "AccessDenied", "Access denied.")
    assert upstream.calls == []
    assert (await attempt(f"http://127.0.0.1:{port}")).status == 200


def _address_outside() -> str:
    """One of this machine's own that is not loopback; to choose it nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as line:
        try:
            line.connect(("192.0.2.1", 9))
        except OSError:
            needs.lack("an address beside loopback")
        return str(line.getsockname()[0])


async def test_it_answers_no_question_of_another_origin(pair: Pair) -> None:
    """A preflight gets no leave, on either port."""
    headers = {"Origin": "https://attacker.example", "Access-Control-Request-Method": "POST"}
    for url, path in ((pair.served.admin_url, "/docs/try"), (pair.url, caller.GENERATION)):
        answer = await caller.ask(url, b"", headers, path=path, method="OPTIONS")
        assert answer.status in (400, 405)
        assert not [name for name in answer.headers if name.lower().startswith("access-control")]


@pytest.mark.asyncio(loop_scope="function")
async def test_the_operators_key_never_reaches_the_page(serve: StartServe, simulator: StartSimulator) -> None:
    upstream = await simulator()
    served = await serve(upstream.url, env={"DASHSEEK_UPSTREAM_API_KEY": OPERATORS})
    headers = {"Host": urlsplit(served.admin_url).netloc, "Origin": served.admin_url}
    told = [
        await ask(served.admin_url, "/docs"),
        await caller.ask(served.admin_url, caller.call(), headers, path="/docs/try"),
        await caller.ask(served.admin_url, caller.call(), {**headers, "Authorization": ""}, path="/docs/try"),
    ]
    assert [answer.status for answer in told] == [200, 200, 401]
    assert not [answer for answer in told if OPERATORS.encode() in answer.body]
    assert upstream.calls[-1].headers["Authorization"] == f"Bearer {OPERATORS}"


async def test_who_leaves_the_page_ends_the_call_upstream(pair: Pair) -> None:
    number = pair.next(Script(endless=True, gap_s=0.02))
    admin = pair.served.admin_url
    async with caller.dial(admin) as line:
        headers = {"Host": urlsplit(admin).netloc, "Origin": admin, **caller.SSE}
        line.send(caller.request(caller.call(), headers, path="/docs/try"))
        await line.head()
        await line.until(b"id:2\n")
    call = await pair.upstream.call(number)
    await asyncio.wait_for(call.over(), 5)
    assert call.ended == "aborted"


ASKED = 'it\'s "so" \\ 好'


async def _has_gone_on(conversed: dict[str, Any], sdk: str, upstream: Simulator) -> None:
    assert conversed["turns"] == [ASKED, "Hello, reader.", "And then?"]
    assert [turn["content"] for turn in conversed["theirs"]["messages"]] == conversed["turns"]
    assert conversed["fields"][0] == "model"
    await _run_what_was_copied(conversed, sdk, upstream)


def _has_found_the_way(read: dict[str, Any]) -> None:
    """By an anchor, by the address, by a link; on a phone no cell is cut, and all begins at one edge."""
    assert read["by an anchor"] == ["zh", "#zh-5", "#zh-5"]
    assert read["toggled"] == ["en", "?lang=en#en-5", "#en-5"]
    assert read["by the address"][:2] == ["zh", "?lang=zh"]
    assert read["by a link"] == ["en", "?lang=zh#en-7", "#en-7"]
    assert (read["contents"], read["cells"], len(set(read["edges"]))) == ([True, False], True, 1)


async def _run_what_was_copied(copied: dict[str, str], sdk: str, upstream: Simulator) -> None:
    """The call as curl and as an SDK's, as the page spells them: both bring upstream the very same messages."""
    python = needs.client(sdk) / "bin" / "python"
    for words in (("bash", "-c", copied["curl"]), (str(python), "-c", copied["sdk"])):
        number = len(upstream.calls)
        environ = {"DASHSCOPE_API_KEY": "sk-reader", "PATH": os.environ["PATH"]}
        process = await asyncio.create_subprocess_exec(*words, env=environ, stdout=asyncio.subprocess.PIPE)
        out, _ = await process.communicate()
        assert (process.returncode, out.count(b"content") > 1) == (0, True)
        (call,) = upstream.calls[number:]
        assert [turn["content"] for turn in call.body["messages"]] == [ASKED, "Hello, reader.", "And then?"]


async def test_what_would_go_upstream_is_shown_and_nothing_goes(pair: Pair) -> None:
    before, admin = len(pair.upstream.calls), pair.served.admin_url
    headers = {"Host": urlsplit(admin).netloc, "Origin": admin, **caller.SSE}
    answer = await caller.ask(admin, caller.call("hi", "DeepSeek-V3"), headers, path="/docs/translate")
    assert answer.json["body"]["messages"] == [{"role": "user", "content": "hi"}]
    assert answer.json["fields"][0]["field"] == "model"
    refused = await caller.ask(admin, caller.call("hi", "none"), headers, path="/docs/translate")
    assert refused.fault == (400, "InvalidParameter", "Model not exist.")
    strangers = {**headers, "Origin": "https://attacker.example"}
    assert (await caller.ask(admin, caller.call(), strangers, path="/docs/translate")).status == 403
    assert len(pair.upstream.calls) == before


@pytest.mark.asyncio(loop_scope="function")
@pytest.mark.parametrize(("flags", "asks"), [((), True), (("--auth", "none"), False)], ids=["passthrough", "none"])
async def test_a_key_is_asked_for_where_one_is(serve: StartServe, flags: tuple[str, ...], asks: bool) -> None:
    served = await serve("http://127.0.0.1:1", *flags)
    assert (b'id="key"' in (await ask(served.admin_url, "/docs")).body) is asks


@pytest.mark.asyncio(loop_scope="function")
@needs.programs("chromium")
@needs.clients("playwright")
async def test_a_reader_sees_packets_and_usage_as_they_come(serve: StartServe, simulator: StartSimulator) -> None:
    browser, playwright = needs.program("chromium"), needs.client("playwright")
    upstream = await simulator(Script(text="Hello, reader.", gap_s=0.01))
    served = await serve(upstream.url)
    visit = await asyncio.create_subprocess_exec(
        str(playwright / "bin" / "python"),
        str(HOME / "clients" / "docs_page.py"),
        served.admin_url,
        browser,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(visit.communicate(), 115)
    assert visit.returncode == 0, err.decode()
    seen = orjson.loads(out)

    thinking = seen["thinking"]
    assert thinking["status"].startswith("200 · ")
    assert (thinking["answer"], bool(thinking["reasoning"])) == ("Hello, reader.", True)
    ids = [int(packet[0]) for packet in thinking["packets"]]
    assert ids == list(range(1, len(ids) + 1))
    assert thinking["packets"][-1][4:] == [
        "stop",
        *(thinking[f"{kind}_tokens"] for kind in ("input", "output", "total")),
    ]
    assert int(thinking["total_tokens"]) == int(thinking["input_tokens"]) + int(thinking["output_tokens"])
    assert thinking["raw"].startswith("id:1\nevent:result\n:HTTP_STATUS/200\ndata:{")
    assert thinking["request_id"] in thinking["raw"]

    assert seen["cumulative"]["answer"] == seen["reply"]["answer"] == "Hello, reader."
    assert len(seen["cumulative"]["packets"]) > len(seen["reply"]["packets"]) == 1

    assert seen["cancelled"]["status"].startswith("cancelled · ")
    assert len(seen["cancelled"]["packets"]) >= 3
    assert "aborted" in [call.ended for call in upstream.calls]
    assert seen["broken"]["failure"].startswith("500 InternalError: ")
    assert seen["refused"]["failure"] == "401 InvalidApiKey: No API-key provided."

    visible, body = seen["surface"]
    assert (visible, orjson.loads(body)["stream_options"]) == (False, {"include_usage": True})
    chunks = seen["chunks"]
    assert chunks["status"].startswith("200 · ")
    assert (chunks["answer"], bool(chunks["reasoning"])) == ("Hello, reader.", True)
    assert [int(chunk[0]) for chunk in chunks["packets"]] == [*range(1, len(chunks["packets"]) + 1)]
    figures = [chunks[f"{kind}_tokens"] for kind in ("input", "output", "total")]
    assert chunks["packets"][-1][2:] == ["", "", "", *figures]
    assert [chunk[5:] for chunk in chunks["packets"][:-1]] == [["", "", ""]] * (len(chunks["packets"]) - 1)
    assert int(figures[2]) == int(figures[0]) + int(figures[1])
    assert int(chunks["reasoning_tokens"]) > 0
    assert chunks["raw"].startswith('data: {"choices":[{"delta":{')
    assert chunks["raw"].endswith("data: [DONE]\n\n")
    assert chunks["request_id"] in chunks["raw"]
    assert seen["completion"]["answer"] == "Hello, reader."
    assert len(seen["completion"]["packets"]) == 1
    assert seen["chunks broken"]["failure"].startswith("internal_error: ")
    assert seen["chunks refused"]["failure"].startswith("401 invalid_request_error: You didn't provide an API key.")
    assert len(seen["told here"]) == 1

    for conversed, sdk in zip(seen["conversed"], ("dashscope-2", "openai"), strict=True):
        await _has_gone_on(conversed, sdk, upstream)
    _has_found_the_way(seen["read"])

    assert (seen["english"][0][:9], seen["chinese"][0][0]) == ("DashScope", "说")
    assert (seen["complaints"], len(seen["told"]), seen["kept"]) == ([], 1, [0, 0, ""])
    assert {urlsplit(url).netloc for url in seen["asked"]} <= {urlsplit(served.admin_url).netloc, ""}
    assert seen["overflow"] == [0, 0, 0]
