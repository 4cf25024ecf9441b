"""`/calls` in a real browser, with 200 calls of which fifty go on: what a reader finds out by the page alone."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import orjson

from proxy.simulation.simulator import Simulator
from proxy.simulation.wire import Script
from tests import caller, needs
from tests.caller import SSE
from tests.conftest import Served, StartServe, StartSimulator

HOME = Path(__file__).parent
Json = dict[str, Any]
# Of writes that are to be read one by one, whatever else the machine has to do.
APART_S = 0.3
MARKUP = "<img src=x onerror=alert(1)>"
# Figures that are zeros until the end.
ZEROS = b"".join(
    b'data: {"choices":[{"index":0,"delta":{"content":"%b"},"finish_reason":%b}],"usage":'
    b'{"prompt_tokens":%d,"completion_tokens":%d,"total_tokens":%d}}\n\n' % said
    for said in ((b"one", b"null", 0, 0, 0), (b" two", b"null", 0, 0, 0), (b"", b'"stop"', 9, 2, 11))
)
WEATHER = {
    "type": "function",
    "function": {"name": "get_weather", "parameters": {"type": "object", "required": ["city"]}},
}


async def a_days_calls(served: Served, upstream: Simulator) -> None:
    """150 calls, the last of which are of interest."""

    async def made(call: caller.Json, script: Script | None = None, path: str = caller.GENERATION) -> None:
        if script is not None:
            upstream.scripts.append(script)
        await caller.ask(served.url, call, SSE, path=path)

    for number in range(143):
        await made(caller.call(f"Call number {number}", "deepseek-v4-flash"), Script(text="Yes."))
    # A key that is missing; upstream's figures that are zeros until its end; an answer whose reads cut its events.
    await caller.ask(served.url, caller.call("Who am I?", "deepseek-v4-pro"), {**SSE, "Authorization": ""})
    await made(caller.call("Zeros.", "deepseek-v3.2-exp", incremental_output=True), Script(replay=ZEROS, gap_s=APART_S))
    await made(
        caller.call("Cut.", "deepseek-r1-0528", incremental_output=False),
        Script(text="一二三四五六", reasoning="想想。", split=37, gap_s=0.002),
    )
    # Three tools that misbehave, and one text that would run if it were markup.
    await made({}, path="/v1/services/aigc/text-generation/generation")
    tools = {"tools": [WEATHER], "result_format": "message", "incremental_output": True}
    fine = Script(tools=('get_weather {"city":"Hangzhou","days":3}',), delta_chars=2, gap_s=APART_S / 5)
    await made(caller.call("Weather?", "deepseek-v3.1", **tools), fine)
    await made(
        caller.call("Count.", "deepseek-v3.2", incremental_output=True), Script(text="one two three", gap_s=APART_S)
    )
    await made(caller.call(MARKUP, "deepseek-r1", incremental_output=True, plugins={}))


@needs.programs("chromium")
@needs.clients("playwright")
async def test_a_reader_sees_every_call_live_and_finds_what_is_wrong(
    serve: StartServe, simulator: StartSimulator
) -> None:
    browser, playwright = needs.program("chromium"), needs.client("playwright")
    upstream = await simulator()
    served = await serve(upstream.url, "--inspect")

    await a_days_calls(served, upstream)
    # Slowly: the page shows 200 rows of a call, and no more of them while its browser starts.
    upstream.scripts.extend([Script(text="go on ", endless=True, gap_s=1)] * 50)
    going = [
        asyncio.create_task(caller.ask(served.url, caller.call("On and on", incremental_output=True), SSE))
        for _ in range(50)
    ]
    await upstream.until(lambda: upstream.open == 50)

    pictures = os.environ.get("TESTS_PICTURES", "")
    visit = await asyncio.create_subprocess_exec(
        str(playwright / "bin" / "python"),
        str(HOME / "clients" / "calls_page.py"),
        served.admin_url,
        browser,
        *([pictures] if pictures else []),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(visit.communicate(), 90)
    for task in going:
        task.cancel()
    await asyncio.gather(*going, return_exceptions=True)
    assert visit.returncode == 0, err.decode()
    seen = orjson.loads(out)

    assert (seen["rows"], seen["open"], seen["grows"], seen["closed"]) == (200, 50, True, True)
    assert seen["searching"] == "search"
    # A wrong base URL: the row says what is missing.
    assert "/api is missing before it" in seen["stray"]["row"]
    holds_what_became_of_it(seen)
    # Texts are texts.
    assert MARKUP in seen["markup"]["came"]
    assert seen["markup"]["images"] == 0
    assert "dropped" in seen["markup"]["account"]
    assert "parameters.plugins" in seen["markup"]["account"]

    assert seen["curl"].startswith(
        f"curl -N '{served.url}{caller.GENERATION}' \\\n  -H \"Authorization: Bearer $DASHSCOPE"
    )
    assert "-H 'X-DashScope-SSE: enable'" in seen["curl"]
    assert f'"content":"{MARKUP}"' in seen["curl"]
    assert seen["upstream"].startswith(f"curl -N '{upstream.url}/chat/completions'")
    assert "data: [DONE]" in seen["golden"] or "finish_reason" in seen["golden"]
    compile(seen["python"], "copied", "exec")
    assert (seen["failed"], seen["complaints"], seen["kept"]) == (1, [], [0, 0, ""])
    assert seen["chinese"][0] == "请求"
    is_chinese(seen)
    assert {urlsplit(url).netloc for url in seen["asked"]} <= {urlsplit(served.admin_url).netloc, ""}
    assert seen["overflow"] == [0, 0, 0]
    assert caller.KEY not in out.decode()


def holds_what_became_of_it(seen: Json) -> None:
    # Fine arguments of a tool: upstream's fragments are held, and leave as one call.
    assert "held" in seen["tool"]["marks"]
    assert "changed" not in seen["tool"]["marks"]
    assert seen["tool"]["line"].count("a tool call leaves whole, unless the call says tool_stream") == 1
    assert "a tool call leaves in one packet, once it is whole" in seen["tool"]["account"]
    assert '⚙ get_weather{"city":"Hangzhou","days":3}' in seen["tool"]["line"]
    # Usage that upstream tells at the end alone: each packet's is counted.
    # A zero that is not filled in yet is no figure: what the packet says is counted, until upstream tells.
    # Reads that cut events change nothing, nor do packets that say all again.
    # How many events share a read, whether one holds no whole event or the end of the answer alone, is the network's to
    # say.
    for name in ("counted", "zeros", "cut"):
        assert "counted" in seen[name]["marks"]
        assert {*seen[name]["marks"]} <= {"counted", "held", "dropped"}
    assert "想想。" in seen["cut"]["line"]
    # What was refused before its body was read cannot be made again from here, and why is said.
    assert "401" in seen["refused"]["row"]
    assert "Invalid API-key" in seen["refused"]["line"] or "No API-key" in seen["refused"]["line"]
    assert "No curl, Python, golden case: its body was never read" in seen["refused"]["lacks"]
    assert (seen["refused"]["copies"], seen["stray"]["copies"]) == ([], [])
    assert '"code":"NotFound"' in seen["stray"]["line"]
    assert "X-DashScope-SSE: enable" in seen["stray"]["headers"]
    assert seen["markup"]["copies"] == ["curl", "upstream", "python", "golden"]


def is_chinese(seen: Json) -> None:
    assert "未给出：工具调用完整后以一个数据包送出；true 时其片段随到随发" in seen["tool_zh"]["account"]
    assert {"保留", "改名"} <= {*seen["tool_zh"]["account"].split()}
    assert "工具调用完整后才送出，除非请求带 tool_stream" in seen["tool_zh"]["line"]
    assert "前面缺少 /api" in seen["stray_zh"]["row"] + seen["stray_zh"]["cause"]
    assert "不提供 curl、Python、样例：正文未读取" in seen["stray_zh"]["lacks"]
