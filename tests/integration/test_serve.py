"""Claims about `dashseek serve` as a process: how it starts, how it ends, and what it says meanwhile."""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import orjson
import pytest

from proxy.simulation.wire import Script
from tests import caller, lint
from tests.conftest import ROOT, Served, StartServe, StartSimulator

UNAVAILABLE = (503, "ModelUnavailable", "Model is unavailable, please try again later.")
WORDS = "one two three four five six seven eight nine ten"
INCREMENTAL = caller.call(WORDS, incremental_output=True)


def start(*flags: str, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """A `serve` that is expected to end by itself."""
    return subprocess.run(
        [sys.executable, "-m", "proxy", "serve", *flags],
        env={"PYTHONPATH": str(ROOT), "PATH": "", **(env or {})},
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )


async def ended(served: Served) -> int:
    return await asyncio.to_thread(served.process.wait, 10)


class TestStart:
    def test_a_port_in_use_is_exit_3_with_a_sentence(self) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            ran = start("--upstream", "http://127.0.0.1:1", "--port", str(taken.getsockname()[1]))
        assert ran.returncode == 3
        assert "is in use: stop who has it" in ran.stderr
        assert "raceback" not in ran.stderr

    @pytest.mark.parametrize(
        ("flags", "env"),
        [
            (("--auth", "none", "--host", "0.0.0.0"), {}),
            (("--auth", "any", "--host", "::"), {}),
            (("--host", "0.0.0.0"), {"DASHSEEK_UPSTREAM_API_KEY": "sk-ours"}),
        ],
    )
    def test_an_open_door_with_our_own_key_behind_it_is_refused(
        self, flags: tuple[str, ...], env: dict[str, str]
    ) -> None:
        """Spec KEY-1: with the sentence that mends it."""
        ran = start("--upstream", "http://127.0.0.1:1", *flags, env=env)
        assert ran.returncode == 2
        assert "--auth passthrough" in ran.stderr
        assert "sk-ours" not in ran.stderr + ran.stdout
        assert "raceback" not in ran.stderr

    def test_every_wrong_setting_is_named_at_once(self) -> None:
        ran = start("--idle-timeout", "soon", "--port", "70000", env={"DASHSEEK_HEARTBEET": "1"})
        assert ran.returncode == 2
        for name in ("idle_timeout", "port", "heartbeet", "upstream"):
            assert name in ran.stderr

    async def test_a_flag_beats_a_variable_and_a_variable_beats_the_file(
        self, simulator: StartSimulator, serve: StartServe, tmp_path: Path
    ) -> None:
        """Each of the three hides a time-out that would fail the call, where the stronger one did not count."""
        file = tmp_path / "dashseek.toml"
        file.write_text('first_token_timeout = 0.1\nidle_timeout = 0.1\naliases = {house = "deepseek-v3"}\n')
        upstream = await simulator(Script(text="one two", first_byte_delay_s=0.3, gap_s=0.3))
        served = await serve(
            upstream.url,
            *("--config", str(file), "--idle-timeout", "5"),
            env={"DASHSEEK_FIRST_TOKEN_TIMEOUT": "5", "DASHSEEK_IDLE_TIMEOUT": "0.1"},
        )
        answer = await caller.stream(served.url, caller.call("Hi", model="house", incremental_output=True))
        assert caller.text(answer.body) == "one two"

    async def test_our_own_key_from_a_file_goes_upstream_in_place_of_the_callers(
        self, simulator: StartSimulator, serve: StartServe, tmp_path: Path
    ) -> None:
        key = tmp_path / "key"
        key.write_text("sk-ours\n")
        upstream = await simulator()
        served = await serve(upstream.url, "--upstream-api-key-file", str(key))
        await caller.ask(served.url, caller.call())
        assert upstream.calls[0].headers["Authorization"] == "Bearer sk-ours"


@pytest.mark.own_interpreter
class TestEnd:
    """Spec OPS-2."""

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
    async def test_a_signal_lets_an_open_stream_end_and_then_it_is_exit_0(
        self, simulator: StartSimulator, serve: StartServe, number: signal.Signals
    ) -> None:
        upstream = await simulator(Script(text=WORDS, gap_s=0.05))
        served = await serve(upstream.url)
        async with caller.dial(served.url) as line:
            line.send(caller.request(INCREMENTAL, caller.SSE))
            await line.head()
            served.process.send_signal(number)
            body = await line.rest()
        assert not lint.check(body, incremental=True)
        assert caller.text(body) == WORDS
        assert await ended(served) == 0

    async def test_a_second_signal_cuts_at_once_with_one_error_frame(
        self, simulator: StartSimulator, serve: StartServe
    ) -> None:
        upstream = await simulator(Script(text=WORDS, endless=True, gap_s=0.05))
        served = await serve(upstream.url)
        async with caller.dial(served.url) as line:
            line.send(caller.request(INCREMENTAL, caller.SSE))
            await line.head()
            body = await line.piece()
            served.process.terminate()
            body += await line.piece() + await line.piece()
            served.process.terminate()
            started_s = time.monotonic()
            body += await line.rest()
        assert not lint.check(body, incremental=True)
        error = caller.packets(body)[-1]
        assert (503, error["code"], error["message"]) == UNAVAILABLE
        assert b"event:error\n:HTTP_STATUS/503\n" in body
        assert await ended(served) == 0
        assert time.monotonic() - started_s < 10
        assert await upstream.calls[0].over() == "aborted"

    async def test_what_outlives_the_drain_is_told_so(self, simulator: StartSimulator, serve: StartServe) -> None:
        upstream = await simulator(Script(first_byte_delay_s=30))
        served = await serve(upstream.url, "--drain-timeout", "0.2")
        async with caller.dial(served.url) as line:
            line.send(caller.request(caller.call()))
            await upstream.call()
            served.process.terminate()
            assert (await line.answer()).fault == UNAVAILABLE
        assert await ended(served) == 0

    async def test_no_call_is_lost_while_it_drains(self, simulator: StartSimulator, serve: StartServe) -> None:
        """40 open streams, one signal: every one of them comes to its own end."""
        upstream = await simulator(Script(text=WORDS, gap_s=0.03))
        served = await serve(upstream.url)
        calls = [asyncio.create_task(caller.stream(served.url, INCREMENTAL)) for _ in range(40)]
        await upstream.until(lambda: len(upstream.calls) == 40)
        served.process.terminate()
        assert {caller.text((await call).body) for call in calls} == {WORDS}
        assert await ended(served) == 0


class TestLog:
    """Spec MET-4, and the one line of every call."""

    CANARIES: Mapping[str, str] = {
        "key": "sk-canary-key-90c1",
        "our own key": "sk-canary-own-11ad",
        "prompt": "canary-prompt-5b7e",
        "answer": "canary-answer-aa02",
        "tool": "canary_tool_77f0",
        "header": "canary-header-3d3d",
        "path": "canary-path-c0de",
        "model": "canary-model-beef",
        "chain": "canary-chain-1e1e",
        "upstream": "canary-upstream-4242",
    }

    @pytest.mark.parametrize("own_key", [False, True], ids=["callers' key", "our own key"])
    async def test_it_holds_no_key_no_prompt_and_no_answer(
        self, simulator: StartSimulator, serve: StartServe, own_key: bool, tmp_path: Path
    ) -> None:
        """Canaries in everything a caller and an upstream can say, and every way a call can end.

        Looked for in everything that is written: output, debug log, journal, metrics, and every refusal, head and body.
        """
        canary = self.CANARIES
        env = {"DASHSEEK_UPSTREAM_API_KEY": canary["our own key"]} if own_key else {}
        upstream = await simulator(Script(text=canary["answer"], reasoning=canary["chain"]))
        flags = ("--log-level", "debug", "--idle-timeout", "0.3", "--first-token-timeout", "0.6")
        served = await serve(upstream.url, *flags, "--journal-file", str(tmp_path / "journal"), env=env)
        answers: list[caller.Answer] = []
        headers = {
            "Authorization": f"Bearer {canary['key']}",
            "X-Canary": canary["header"],
            "X-Request-Id": canary["header"],
        }
        tool = {"type": "function", "function": {"name": canary["tool"], "description": canary["prompt"]}}
        call = caller.call(canary["prompt"], tools=[tool], incremental_output=True, odd=canary["prompt"])
        said = canary["upstream"]
        scripts = [
            Script(text=canary["answer"]),
            Script(tools=(f'{canary["tool"]} {{"a": "{canary["answer"]}"}}',)),
            *(
                Script(status=status, error_text=f"{said} {canary['prompt']}")
                for status in (401, 402, 403, 404, 429, 500)
            ),
            *(Script(status=500, error_text=said, error_shape=shape) for shape in ("flat", "detail", "text", "html")),
            Script(text=canary["answer"] * 3, cut_after=3),
            Script(text=canary["answer"] * 3, stall_after=3),
            Script(error_event_after=1, error_text=said),
            Script(replay=f"data: {said} {{\n\n".encode()),
            Script(replay=f'{{"choices": "{said}"}}'.encode(), replay_content_type="application/json"),
            Script(first_byte_delay_s=30),
        ]
        for sse in (caller.SSE, {}):
            for script in scripts:
                upstream.scripts.append(script)
                answers.append(await caller.ask(served.url, call, headers | sse))
        thinking = {"enable_thinking": True, "thinking_budget": 3, "incremental_output": True}
        others = [
            caller.request(caller.call(canary["prompt"], model="deepseek-v3.2", **thinking), headers | caller.SSE),
            caller.request(caller.call(canary["prompt"], model=canary["model"]), headers),
            caller.request(caller.call(temperature=canary["prompt"]), headers),
            caller.request(f'{{"model": "{canary["prompt"]}'.encode(), headers),
            caller.request(b"\x1f\x8b" + canary["prompt"].encode(), headers | {"Content-Encoding": "gzip"}),
            caller.request(call, headers, path=f"/{canary['path']}"),
            caller.request(call, headers, path=f"/p/models/{canary['path']}"),
            caller.request(call, headers, method="CANARY-METHOD"),
            f"GET /{canary['path']} HTTP/1.1\nX: {canary['header']}\n\n".encode(),
            caller.request(call, headers | {"Transfer-Encoding": canary["header"]}),
        ]
        for wire in others:
            async with caller.dial(served.url) as line:
                line.send(wire)
                answers.append(await line.answer())
        metrics = await caller.ask(served.admin_url, b"", {"Connection": "close"}, path="/metrics", method="GET")
        assert b"dashseek_requests_total" in metrics.body
        assert await asyncio.to_thread(served.end) == 0
        refusals = [str(answer) for answer in answers if answer.status != 200]
        assert len(refusals) > len(others)
        written = "\n".join((str(metrics), (tmp_path / "journal").read_text(), *refusals))
        assert not {name for name, word in canary.items() if word in written}
        # What was asked for in vain is named: a path (HTTP-13), and a model; both cut and escaped. So is what upstream
        # said of a failure, but for sentences that repeat the call.
        assert {name for name, word in canary.items() if word in served.output} == {"model", "path", "upstream"}
        assert "raceback" not in served.output

    async def test_every_line_of_a_call_carries_its_id(self, simulator: StartSimulator, serve: StartServe) -> None:
        upstream = await simulator()
        served = await serve(upstream.url, "--log-level", "debug")
        ids = set()
        for body, headers in ((caller.call(odd=1), {}), (caller.call(odd=1), caller.SSE), (b"[]", {})):
            answer = await caller.ask(served.url, body, headers)
            ids.add(answer.headers["x-request-id"])
        async with caller.dial(served.url) as line:
            line.send(b"no HTTP\r\n\r\n")
            ids.add((await line.answer()).headers["x-request-id"])
        await asyncio.to_thread(served.end)
        lines = [orjson.loads(line) for line in served.output.splitlines() if line.startswith("{")]
        of_calls = [line for line in lines if line["event"] not in ("serving", "models_retire", "draining", "stopped")]
        assert {line["event"] for line in of_calls} == {"open", "call", "ignored", "malformed"}
        assert {line.get("request_id") for line in of_calls} == ids

    async def test_a_wait_that_was_too_long_is_named(self, simulator: StartSimulator, serve: StartServe) -> None:
        """Spec ERR-5: which one fired."""
        upstream = await simulator(Script(text=WORDS, stall_after=4))
        served = await serve(upstream.url, "--idle-timeout", "0.2", "--header-timeout", "0.2")
        await caller.stream(served.url, INCREMENTAL)
        async with caller.dial(served.url) as line:
            line.send(b"POST / HT")
            await line.eof()
        await asyncio.to_thread(served.end)
        assert '"cause":"idle_timeout fired"' in served.output
        assert '"reason":"header_timeout"' in served.output

    async def test_our_own_key_refused_upstream_is_loud(self, simulator: StartSimulator, serve: StartServe) -> None:
        """The caller is not at fault; the operator must see it."""
        upstream = await simulator(Script(key="sk-another"))
        served = await serve(upstream.url, env={"DASHSEEK_UPSTREAM_API_KEY": "sk-ours"})
        assert (await caller.ask(served.url, caller.call())).fault[:2] == (500, "InternalError")
        await asyncio.to_thread(served.end)
        (line,) = [line for line in served.output.splitlines() if '"event":"call"' in line]
        assert orjson.loads(line)["level"] == "error"
