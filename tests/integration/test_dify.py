"""Dify's Tongyi plugin, version by version: its way to us, and the calls it makes, by the SDK that it uses.

The plugin itself is in no package registry; what it calls is written here as its source has it.
"""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import orjson
import pytest

from proxy.simulation.wire import Script
from tests import needs
from tests.conftest import ROOT, Served, StartServe, StartSimulator
from tests.integration.test_tls import BLOCK, FLAGS

PAGE = (ROOT / "proxy" / "examples" / "README.md").read_text("utf-8")
SECTION = PAGE.partition("\n## Dify, and its 401\n")[2].partition("\n## ")[0]
(COMMAND,) = re.findall(r"```sh\n(.*?)```", SECTION, re.DOTALL)
RECIPE = shlex.split(COMMAND.replace("\\\n", " "))
ROWS = [row.strip("| ").split(" | ") for row in re.findall(r"^\|.*`qwen-\w+` \|$", SECTION, re.MULTILINE)]
ENVIRONMENT, CODE, FIELD = "DASHSCOPE_HTTP_BASE_URL", "get_http_base_address", "API Host"


@dataclass(frozen=True)
class Plugin:
    """One version, and what is peculiar to it.

    sdk:    the environment of the SDK it asks for
    way:    what leads it to us
    checks: the model by which a credential is checked
    row:    of the page's table
    """

    sdk: str
    way: str
    checks: str
    row: int


PLUGINS: Mapping[str, Plugin] = {
    "0.0.54": Plugin("dashscope-1", ENVIRONMENT, "qwen-turbo", 0),
    "0.1.17": Plugin("dashscope-1", ENVIRONMENT, "qwen-flash", 1),
    "0.2.4": Plugin("dashscope-1", CODE, "qwen-flash", 2),
    "0.2.13": Plugin("dashscope-2", CODE, "qwen-turbo", 3),
    "with API Host": Plugin("dashscope-2", FIELD, "qwen-turbo", 4),
}
TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Tell it.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
SAID = "你好，世界！"
MADE = {"name": "get_weather", "arguments": '{"city": "杭州"}'}


def calls(plugin: Plugin) -> list[dict[str, Any]]:
    """The check of a credential, a workflow's two ways to ask, and an agent's: with tools no increments."""

    def call(text: str, model: str, *, stream: bool = False, **more: Any) -> dict[str, Any]:
        messages = [{"role": "user", "content": text}]
        tells = {"stream": stream, "incremental_output": stream and "tools" not in more}
        return {"model": model, "messages": messages, "api_key": "sk-a", **tells, **more}

    return [
        call("ping", plugin.checks, temperature=0.5),
        call("hi", "deepseek-v3", temperature=0.5, stop=["###"]),
        call("hi", "deepseek-v3", stream=True),
        call(orjson.dumps({"simulate": {"tools": [PICKED]}}).decode(), "deepseek-v3", stream=True, tools=[TOOL]),
    ]


PICKED = f"{MADE['name']} {MADE['arguments']}"


async def run(plugin: Plugin, served: Served, here: Path, asked: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Make the calls as the plugin does, in a process with its environment."""
    api = f"{served.url}/api/v1"
    env = {"PATH": os.environ["PATH"]}
    address: str | None = None
    if plugin.way == ENVIRONMENT:
        env[ENVIRONMENT] = api
    elif plugin.way == CODE:
        address = api
    else:
        # Of what is written into the field, scheme and path are cut off.
        address = f"https://{urlsplit(served.url).netloc}/api/v1"
        env["REQUESTS_CA_BUNDLE"] = str(here / "tls.crt")
    process = await asyncio.create_subprocess_exec(
        *(needs.client(plugin.sdk) / "bin" / "python", ROOT / "tests/integration/clients/tongyi_plugin.py"),
        env=env,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate(orjson.dumps({"base_address": address, "calls": asked}))
    assert process.returncode == 0, err.decode()
    seen: list[dict[str, Any]] = orjson.loads(out)
    return seen


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A directory with the certificate of the handbook's recipe."""
    needs.program("openssl")
    make = BLOCK.partition("\ndashseek serve")[0]
    subprocess.run(["/bin/sh", "-ec", make], cwd=tmp_path, check=True, capture_output=True)
    return tmp_path


def needing(version: str) -> Any:
    """A version whose SDK must be there."""
    sdk = PLUGINS[version].sdk
    return pytest.param(version, marks=needs.clients(sdk))


@pytest.mark.parametrize("version", [needing(version) for version in PLUGINS])
async def test_a_plugin_is_served_by_the_pages_one_line(
    version: str, here: Path, serve: StartServe, simulator: StartSimulator
) -> None:
    plugin = PLUGINS[version]
    at = RECIPE.index("--upstream")
    flags = [*RECIPE[2:at], *RECIPE[at + 2 :], *(FLAGS if plugin.way == FIELD else ())]
    flags[flags.index("--host") + 1] = "127.0.0.1"
    served = await serve((await simulator(Script(text=SAID))).url, *flags)
    check, blocking, streamed, tooled = await run(plugin, served, here, calls(plugin))
    for seen in (check, blocking, streamed):
        assert (seen["status"], seen["text"], seen["finish"]) == (200, SAID, "stop"), seen
        assert seen["usage"]["total_tokens"] == seen["usage"]["input_tokens"] + seen["usage"]["output_tokens"]
    assert (tooled["status"], tooled["finish"]) == (200, "tool_calls"), tooled
    (made,) = tooled["tools"]
    assert (made["name"], orjson.loads(made["arguments"])) == (MADE["name"], orjson.loads(MADE["arguments"]))


@pytest.mark.parametrize("version", PLUGINS)
def test_the_page_says_of_a_version_what_it_does(version: str) -> None:
    plugin = PLUGINS[version]
    row = ROWS[plugin.row]
    address = ROWS[plugin.row - 1][1] if row[1] == "the same" else row[1]
    assert plugin.way in f"{row[0]} {address}"
    assert row[-1] == f"`{plugin.checks}`"
    assert f"{plugin.checks}=deepseek-v3" in RECIPE


@needs.clients("dashscope-2")
async def test_a_plain_port_says_in_the_log_why_the_newest_plugin_fails(
    here: Path, serve: StartServe, simulator: StartSimulator
) -> None:
    plugin = PLUGINS["with API Host"]
    served = await serve((await simulator()).url)
    with pytest.raises(AssertionError, match=r"WRONG_VERSION_NUMBER|SSL"):
        await run(plugin, served, here, calls(plugin)[:1])
    async with asyncio.timeout(5):
        while "a TLS hello" not in served.output:  # noqa: ASYNC110 - nothing tells that a process has logged
            await asyncio.sleep(0.05)


@needs.clients("dashscope-2")
async def test_thinking_that_blocks_needs_the_switch_the_page_names(
    here: Path, serve: StartServe, simulator: StartSimulator
) -> None:
    plugin, upstream = PLUGINS["0.2.13"], await simulator()
    thinks = calls(plugin)[1] | {"model": "deepseek-v3.2", "enable_thinking": True}
    assert "`--no-strict-thinking`" in SECTION
    strict = await serve(upstream.url)
    lenient = await serve(upstream.url, "--no-strict-thinking")
    assert [answer["status"] for answer in await run(plugin, strict, here, [thinks])] == [400]
    assert [answer["status"] for answer in await run(plugin, lenient, here, [thinks])] == [200]
