"""One command to see it work: an upstream, the proxy before it, one streamed call shown packet by packet.

With the `[local]` extra the upstream is a real llama.cpp with a real small model, else the simulator.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any, Final

import aiohttp
import click
import orjson

from config import models, sources
from proxy import vocabulary
from proxy.admin import application as admin
from proxy.call.gateway import open_gateway
from proxy.commands import texts
from proxy.downstream import paths
from proxy.downstream.phase import LIFECYCLE
from proxy.inspector.recent_calls import RecentCalls
from proxy.metering.journal import Record
from proxy.server import lifecycle, routes
from proxy.simulation import llamacpp
from proxy.simulation.simulator import Simulator
from proxy.simulation.wire import Script
from proxy.telemetry import logs, metrics
from translators.sse import ERROR, Decoder
from translators.tokens import Vocabulary

KEY: Final = "sk-demo"
# The dialect of the simulator, which counts as DeepSeek does.
SIMULATED: Final = "deepseek"
CALL: Final = {
    "model": "deepseek-v3",
    "input": {"messages": [{"role": "user", "content": "Tell me in two sentences what the sea is."}]},
    "parameters": {"incremental_output": True, "max_tokens": 120, "temperature": 0},
}
LOOPBACK: Final = "127.0.0.1"
UNFINISHED: Final = "null"
# Between two packets of the simulator, so that they are seen to come.
GAP_S: Final = 0.02
FRAME_BYTES: Final = 1 << 20

TO_PASTE: Final = """
It keeps serving; try it from another shell (end it with Ctrl-C):

  curl -N {url}{path} \\
    -H 'Authorization: Bearer {key}' -H 'Content-Type: application/json' -H 'X-DashScope-SSE: enable' \\
    -d '{{"model":"deepseek-v3","input":{{"messages":[{{"role":"user","content":"Hello!"}}]}},\
"parameters":{{"incremental_output":true}}}}'

  import dashscope  # pip install dashscope
  dashscope.base_http_api_url = "{url}/api/v1"
  for packet in dashscope.Generation.call(
      "deepseek-v3", prompt="Hello!", api_key="{key}", stream=True, incremental_output=True, result_format="message"
  ):
      print(packet.output.choices[0].message.content, end="", flush=True)

The protocol, examples, a box to try a call: {docs}/docs
Both sides of every call, as it goes: {docs}/calls
"""
# Packets are counted by DeepSeek's vocabulary as they come; the last one says what upstream counted.
JUMPS: Final = """\
why the last figures jump: packets are counted as they come, by DeepSeek's vocabulary; this small model has another,
and its own count comes at the end. Before DeepSeek both agree."""


@dataclass(slots=True)
class Seen:
    """What the caller saw of the call.

    counted:    prompt and answer (tokens) as we counted them: as the last packet but the finish said
    usage:      as the last packet said it
    complaints: what was wrong with it
    """

    packets: int = 0
    finish: str = UNFINISHED
    counted: tuple[int, int] = (0, 0)
    usage: dict[str, Any] = field(default_factory=dict)
    complaints: list[str] = field(default_factory=list)


def run(*, once: bool, port: int) -> int:
    """Show one call, then serve on; returns 0 only if the call was right."""
    return asyncio.run(_demo(once=once, port=port))


async def _demo(*, once: bool, port: int) -> int:
    async with AsyncExitStack() as stack:
        words = vocabulary.load()
        url, dialect, what = await _upstream(stack, words)
        said = {"upstream": (url,), "dialect": dialect, "port": port, "admin_port": _admin_port(port), "auth": "any"}
        chosen = sources.load({**said, "log_level": "warning"}, None, {})
        stderr = logs.configure(chosen)
        stack.callback(stderr.close)
        gateway = await stack.enter_async_context(open_gateway(chosen, models.load(chosen)))
        measured = await stack.enter_async_context(metrics.opened(gateway.gauges(), stderr))
        kept: asyncio.Queue[Record] = asyncio.Queue()

        def keep(record: Record) -> None:
            measured.keep(record)
            kept.put_nowait(record)

        recent = RecentCalls()
        calls = routes.inspected(gateway, keep, recent)
        state = admin.Process(gateway, calls[LIFECYCLE], measured, recent)
        running = await lifecycle.start(calls, chosen, admin.application(state, chosen))
        texts.echo(f"upstream  {what}\nproxy     {running.url}")
        seen = await _show(running.url)
        seen.complaints += _against_upstream(seen, await kept.get(), dialect)
        for complaint in seen.complaints:
            texts.echo(f"wrong: {complaint}", err=True)
        if once:
            await running.stop()
        else:
            texts.echo(TO_PASTE.format(url=running.url, path=paths.GENERATION, key=KEY, docs=running.admin_url))
            await running.until_told_to_stop(gateway.open_calls)
    return 1 if seen.complaints else 0


def _admin_port(port: int) -> int:
    """Where `serve` has it, as the README says, or 0, any that is free, where somebody else is there."""
    admin = port and port + 1
    with socket.socket() as probe:
        # A port that was left a moment ago can be had, as a listener has it.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, admin))
        except (OSError, OverflowError):
            return 0
    return admin


async def _upstream(stack: AsyncExitStack, words: Vocabulary) -> tuple[str, str, str]:
    """Where to ask, in which dialect, and what that is in words."""
    if llamacpp.available():
        running = stack.enter_context(llamacpp.start())
        return running.url, "llamacpp", f"a real llama.cpp with {running.model}, 135 million parameters"
    simulated = await stack.enter_async_context(Simulator(Script(gap_s=GAP_S), vocabulary=words))
    return simulated.url, SIMULATED, f"the simulator; for a real model: {llamacpp.INSTALL}"


async def _show(url: str) -> Seen:
    """Make the call as a DashScope client would, and print what comes."""
    texts.echo(f"sent      {orjson.dumps(CALL).decode()}\n")
    headers = {"Authorization": f"Bearer {KEY}", "X-DashScope-SSE": "enable"}
    seen = Seen()
    async with (
        aiohttp.ClientSession() as session,
        session.post(url + paths.GENERATION, json=CALL, headers=headers) as got,
    ):
        if got.content_type != "text/event-stream":
            seen.complaints.append(f"answered with {got.status}: {await got.text()}")
            return seen
        async for packet in _packets(got):
            _take(packet, seen)
    texts.echo(f"\n{seen.packets} packets, {seen.finish}; usage {orjson.dumps(seen.usage).decode()}")
    if seen.finish == UNFINISHED:
        seen.complaints.append("the stream ended without a finish")
    return seen


async def _packets(got: aiohttp.ClientResponse) -> AsyncIterator[dict[str, Any]]:
    decoder = Decoder(FRAME_BYTES)
    async for wire in got.content.iter_any():
        for data in decoder.feed(wire):
            yield orjson.loads(data.removeprefix(ERROR))


def _take(packet: dict[str, Any], seen: Seen) -> None:
    if "output" not in packet:
        seen.complaints.append(f"an error frame: {packet.get('code')} {packet.get('message')}")
        return
    choice, used = packet["output"]["choices"][0], packet["usage"]
    figures = f"{used['input_tokens']:>4} + {used['output_tokens']:>3} = {used['total_tokens']:>4}"
    click.echo(f"{figures}  {choice['message']['content']!r}")
    if used["total_tokens"] != used["input_tokens"] + used["output_tokens"] or not used["input_tokens"]:
        seen.complaints.append(f"packet {seen.packets + 1} does not add up: {used}")
    seen.packets += 1
    if seen.usage:
        seen.counted = seen.usage["input_tokens"], seen.usage["output_tokens"]
    seen.finish = choice["finish_reason"]
    seen.usage = used


def _against_upstream(seen: Seen, record: Record, dialect: str) -> list[str]:
    """The last packet says what upstream says, or the call was not right; and so do those before, or it is said why."""
    basis, generated = record.closing["basis"], record.closing["generated"]
    figures = f"{generated['input_tokens']} + {generated['output_tokens']}"
    if basis != "upstream_final" or generated != seen.usage:
        return [f"the record says {figures} ({basis})"]
    texts.echo(f"upstream says the same: {figures}")
    if jump := _jump(seen):
        if dialect == SIMULATED:
            return [jump]
        texts.echo(JUMPS)
    return []


def _jump(seen: Seen) -> str | None:
    """How the figures of the last packet differ from those before it; None where they go on as they were."""
    prompt, answer = seen.counted
    used = seen.usage
    # The finish may bring a last token, which ends the answer and has no text.
    if used["input_tokens"] == prompt and used["output_tokens"] - answer in range(2):
        return None
    return f"the figures were {prompt} + {answer}, then {used['input_tokens']} + {used['output_tokens']}"
