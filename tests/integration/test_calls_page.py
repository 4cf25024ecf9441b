"""`/calls` in a real browser, with 200 calls of which fifty go on: what a reader finds out by the page alone."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from urllib.parse import urlsplit

import orjson

from proxy.simulation.wire import Script
from tests import caller, needs
from tests.caller import SSE
from tests.conftest import StartServe, StartSimulator

HOME = Path(__file__).parent
MARKUP = "<img src=x onerror=alert(1)>"
WEATHER = {
    "type": "function",
    "function": {"name": "get_weather", "parameters": {"type": "object", "required": ["city"]}},
}


async def test_a_reader_sees_every_call_live_and_finds_what_is_wrong(
    serve: StartServe, simulator: StartSimulator
) -> None:
    browser, playwright = needs.program("chromium"), needs.client("playwright")
    upstream = await simulator()
    served = await serve(upstream.url, "--inspect")

    async def made(call: caller.Json, script: Script | None = None, path: str = caller.GENERATION) -> None:
        if script is not None:
            upstream.scripts.append(script)
        await caller.ask(served.url, call, SSE, path=path)

    for number in range(146):
        await made(caller.call(f"Call number {number}", "deepseek-v4-flash"), Script(text="Yes."))
    # Three tools that misbehave, and one text that would run if it were markup.
    await made({}, path="/v1/services/aigc/text-generation/generation")
    tools = {"tools": [WEATHER], "result_format": "message", "incremental_output": True}
    fine = Script(tools=('get_weather {"city":"Hangzhou","days":3}',), delta_chars=2, gap_s=0.002)
    await made(caller.call("Weather?", "deepseek-v3.1", **tools), fine)
    await made(
        caller.call("Count.", "deepseek-v3.2", incremental_output=True), Script(text="one two three", gap_s=0.01)
    )
    await made(caller.call(MARKUP, "deepseek-r1", incremental_output=True, plugins={}))
    upstream.scripts.extend([Script(text="go on ", endless=True, gap_s=0.05)] * 50)
    going = [
        asyncio.create_task(made(caller.call("On and on", "deepseek-v3", incremental_output=True))) for _ in range(50)
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
    # Fine arguments of a tool: upstream's fragments are held, and leave as one call.
    assert seen["tool"]["marks"].count("held") > 5
    assert '⚙ get_weather{"city":"Hangzhou","days":3}' in seen["tool"]["line"]
    # Usage that upstream tells at the end alone: each packet's is counted.
    assert seen["counted"]["marks"].count("counted") >= 3
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
    assert (seen["failed"], seen["complaints"], seen["kept"]) == (0, [], [0, 0, ""])
    assert seen["chinese"][0] == "请求"
    assert {urlsplit(url).netloc for url in seen["asked"]} <= {urlsplit(served.admin_url).netloc, ""}
    assert seen["overflow"] == [0, 0, 0]
    assert caller.KEY not in out.decode()
