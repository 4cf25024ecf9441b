"""Claims about the way of the docs page's calls where the data port lets it down."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import re
from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from config import sources
from proxy.admin import application as admin
from proxy.admin import docs
from proxy.admin.docs import MOST_CALLS
from proxy.downstream import surface
from proxy.server import lifecycle
from proxy.server.board import Heartbeats, WorkerReports
from proxy.simulation.wire import Script
from tests import caller
from tests.conftest import StartSimulator
from tests.proxy.conftest import Running, StartGateway


@contextlib.asynccontextmanager
async def desk_before(said: bytes, asked: list[bytes] | None = None) -> AsyncIterator[tuple[str, dict[str, str]]]:
    """An admin port whose data port says this and breaks off; its URL, and the headers of its page.

    asked: takes the first byte of each call that gets there
    """

    async def break_off(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first = await reader.read(1)
        if asked is not None:
            asked.append(first)
        writer.write(said)
        writer.close()

    async with contextlib.AsyncExitStack() as stack:
        data = await stack.enter_async_context(await asyncio.start_server(break_off, "127.0.0.1", 0))
        settings = sources.load({"upstream": ("http://127.0.0.1:1",)}, None, {})
        desk = admin.application(WorkerReports({}, Heartbeats(1), frozenset()), settings)
        desk[surface.SERVED] = lifecycle.url(data.sockets[0].getsockname())
        runner = web.AppRunner(desk)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        yield f"http://{host}:{port}", {"Host": f"{host}:{port}", "Origin": f"http://{host}:{port}"}


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 200 OK\r\nContent-Ty"], ids=["nothing", "half a head"])
async def test_a_data_port_that_breaks_off_before_its_answer_is_said_to_be_away(said: bytes) -> None:
    async with desk_before(said) as (url, ours):
        answer = await caller.ask(url, caller.call(), ours, path="/docs/try")
    assert answer.fault[:2] == (503, "ModelUnavailable")


async def test_an_answer_that_breaks_off_breaks_off() -> None:
    """What is out stays as it is, and no end of it is made up."""
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    async with desk_before(head + b"7\r\ndata:1\n\r\n") as (url, ours), caller.dial(url) as line:
        line.send(caller.request(caller.call(), ours, path="/docs/try"))
        assert (await line.head()).status == 200
        assert await line.piece() == b"data:1\n"
        assert await line.eof() == b""


async def test_an_answer_comes_through_as_it_is() -> None:
    """Nothing is followed and nothing unpacked; of its headers come those that the page reads."""
    packed = gzip.compress(b"{}")
    head = b"HTTP/1.1 307 Temporary Redirect\r\nLocation: /elsewhere\r\nContent-Encoding: gzip\r\nRetry-After: 7\r\n"
    head += b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(packed)
    async with desk_before(head + packed) as (url, ours):
        answer = await caller.ask(url, caller.call(), ours, path="/docs/try")
    assert (answer.status, answer.body, answer.headers["retry-after"]) == (307, packed, "7")
    assert "location" not in answer.headers


# What the page is made of, in small: each kind of line that a protocol document has.
DOCUMENT = """\
# The `title`

[中文](PROTOCOL.zh.md) · Read <!-- a mark -->
SSE-4 of `a_name` and `two words`.

## 2 Second <b>

### 2.1 Below

#### 2.1.3 Deeper

<!-- example: call.json stream -->
```json
{"a": "<b>"}
```

| `x` | y |
|---|---|
| 1 | 2 |
| 3 | 4 |

| z |
|---|
| 5 |

```
plain
```

```mermaid
stateDiagram-v2
    [*] --> A
    A --> B: GO
    B --> [*]
```
"""
ARTICLE = """\
<h1 id="en-top">The <code class="whole">title</code></h1>
<p>Read <span class="whole">SSE-4</span> of <code class="whole">a_name</code> and <code>two words</code>.</p>
<h2 id="en-2">2 Second &lt;b&gt;</h2>
<h3 id="en-2-1">2.1 Below</h3>
<h4 id="en-2-1-3">2.1.3 Deeper</h4>
<figure><figcaption>call.json · stream</figcaption><pre><code>{&quot;a&quot;: &quot;&lt;b&gt;&quot;}
</code></pre></figure>
<div class="wide"><table><thead>
<tr>
<th><code class="whole">x</code></th>
<th>y</th>
</tr>
</thead>
<tbody>
<tr>
<td data-th="x">1</td>
<td data-th="y">2</td>
</tr>
<tr>
<td data-th="x">3</td>
<td data-th="y">4</td>
</tr>
</tbody>
</table></div><div class="wide"><table><thead>
<tr>
<th>z</th>
</tr>
</thead>
<tbody>
<tr>
<td data-th="z">5</td>
</tr>
</tbody>
</table></div><figure><pre><code>plain
</code></pre></figure>
"""
CONTENTS = (
    '<ul><li class="h2"><a href="#en-2">2 Second &lt;b&gt;</a></li>'
    '<li class="h3"><a href="#en-2-1">2.1 Below</a></li></ul>'
)


def test_a_document_becomes_an_article_with_its_contents() -> None:
    """Chapters by their number, cells under the name of their column, drawings of machines, and no mark of ours."""
    article, contents = docs.rendered(DOCUMENT, "en-")
    text, found, drawing = article.partition('<div class="wide"><svg class="machine"')
    assert (text, contents) == (ARTICLE, CONTENTS)
    assert found
    # Another drawing, and another language's, has other heads of its arrows.
    assert re.search(r'marker id="en-tip-\d+"', drawing)
    assert drawing.endswith("</svg></div>\n")


def test_the_first_example_is_shown_and_all_call_the_address_that_is_served() -> None:
    shown = "".join(docs._examples("http://127.0.0.1:81"))
    tabs = re.findall(r'<input type="radio" name="tab" id="(tab-\d)"( checked)?><label for="(tab-\d)">', shown)
    assert tabs == [(f"tab-{at}", "" if at else " checked", f"tab-{at}") for at in range(len(docs.EXAMPLES))]
    assert docs.WRITTEN not in shown
    assert shown.count("http://127.0.0.1:81") >= len(docs.EXAMPLES)


@pytest.mark.parametrize(
    ("served", "called"),
    [
        ("http://0.0.0.0:8080", "http://127.0.0.1:8080"),
        ("http://[::]:8080", "http://127.0.0.1:8080"),
        ("https://[::1]:8080", "https://[::1]:8080"),
        ("http://10.0.0.1:8080", "http://10.0.0.1:8080"),
    ],
)
def test_who_listens_everywhere_is_called_on_loopback(served: str, called: str) -> None:
    assert docs.callable_at(served) == called


@pytest.mark.parametrize(
    ("served", "remote", "may"),
    [
        ("http://127.0.0.1:8080", "127.0.0.1", True),
        ("http://127.0.0.1:8080", "::1", True),
        ("http://127.0.0.1:8080", "10.0.0.1", False),
        ("http://127.0.0.1:8080", None, False),
        ("http://0.0.0.0:8080", "10.0.0.1", True),
        ("http://10.0.0.1:8080", "10.0.0.2", True),
        ("http://10.0.0.1:8080", None, True),
    ],
)
def test_who_could_call_the_data_port_may_by_the_page(served: str, remote: str | None, may: bool) -> None:
    assert docs.may_reach(served, remote) is may


def attempt(front: Running, **headers: str) -> bytes:
    ours = {"Host": front.admin_url.removeprefix("http://"), "Origin": front.admin_url, **headers}
    return caller.request(caller.call(), ours, path="/docs/try")


async def test_a_body_that_never_ends_is_answered(gateway_before: StartGateway) -> None:
    front = await gateway_before("http://127.0.0.1:1", body_timeout=0.2)
    async with caller.dial(front.admin_url) as line, asyncio.timeout(3):
        line.send(attempt(front)[:-5])
        assert (await line.answer()).fault[:2] == (400, "InvalidParameter")
        assert await line.eof() == b""
    # Nothing was asked.
    assert front.ended == []


async def test_of_who_leaves_in_the_middle_of_a_body_nothing_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the handler is not cancelled for it."""
    monkeypatch.setattr(docs, "MOST_CALLS", 1)
    asked: list[bytes] = []
    async with desk_before(b"", asked) as (url, ours), asyncio.timeout(30):

        async def code_of_another() -> str:
            return (await caller.ask(url, caller.call(), ours, path="/docs/try")).fault[1]

        async with caller.dial(url) as line:
            line.send(caller.request(caller.call(), ours, path="/docs/try")[:-5])
            while await code_of_another() != "ModelServingError":
                pass
        asked.clear()
        # There is room for another one as soon as the first is over.
        while await code_of_another() != "ModelUnavailable":
            pass
    assert len(asked) == 1


async def test_a_body_beyond_the_limit_is_refused(gateway_before: StartGateway) -> None:
    front = await gateway_before("http://127.0.0.1:1")
    async with caller.dial(front.admin_url) as line:
        line.send(attempt(front, **{"Content-Length": str(3 << 20)}) + bytes(1 << 20))
        assert (await line.answer()).fault[:2] == (400, "BadRequest.TooLarge")


async def test_so_many_of_its_calls_are_open_at_a_time_and_no_more(
    simulator: StartSimulator, gateway_before: StartGateway
) -> None:
    """Each holds two files more, which no cap on connections counts."""
    front = await gateway_before((await simulator(Script(endless=True, gap_s=0.05))).url)
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(MOST_CALLS):
            line = await stack.enter_async_context(caller.dial(front.admin_url))
            line.send(attempt(front, **caller.SSE))
            assert (await line.head()).status == 200
        other = await stack.enter_async_context(caller.dial(front.admin_url))
        other.send(attempt(front))
        assert (await other.answer()).fault[:2] == (503, "ModelServingError")
