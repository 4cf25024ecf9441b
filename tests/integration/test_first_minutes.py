"""What a newcomer sees first: the figures of the demo, the way to the docs, a sentence for each mistake."""

from __future__ import annotations

import asyncio
import os
import pty
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from proxy.commands import demo
from proxy.simulation import llamacpp
from tests import caller, needs
from tests.conftest import ROOT, StartServe

DOCS = re.compile(r"(http://\S+:\d+)/docs")


async def get(url: str, path: str) -> tuple[int, str]:
    answer = await caller.ask(url, b"", path=path, method="GET")
    return answer.status, answer.body.decode()


async def test_serve_says_where_the_docs_are_and_the_admin_port_leads_there(serve: StartServe) -> None:
    served = await serve("http://127.0.0.1:1")
    found = DOCS.search(served.output)
    assert found, served.output
    status, index = await get(found[1], "/")
    assert status == 200
    for name in re.findall(r'href="([^"]+)"', index):
        assert (await get(found[1], f"/{name}"))[0] == 200, name


@pytest.mark.flags("--host", "0.0.0.0", "--auth", "passthrough", "--admin-host", "0.0.0.0")
async def test_an_address_to_listen_on_is_not_said_to_be_one_to_call(serve: StartServe) -> None:
    served = await serve("http://127.0.0.1:1")
    found = DOCS.search(served.output)
    assert found
    assert found[1].startswith("http://127.0.0.1:")


async def test_the_demo_serves_on_with_a_docs_page(tmp_path: Path) -> None:
    running = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "proxy", "demo", "--port", "0"), cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    assert running.stdout is not None
    try:
        async with asyncio.timeout(60):
            while not (found := DOCS.search((await running.stdout.readline()).decode())):
                pass
        assert (await get(found[1], "/docs"))[0] == 200
    finally:
        running.terminate()
        await running.communicate()
    assert running.returncode == 0


def test_the_docs_of_the_demo_are_where_those_of_serve_are_unless_somebody_is_there() -> None:
    with socket.socket() as taken, socket.socket() as free:
        taken.bind(("127.0.0.1", 0))
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        assert demo._admin_port(port - 1) == port
        assert demo._admin_port(taken.getsockname()[1] - 1) == 0
    assert (demo._admin_port(0), demo._admin_port(65_535)) == (0, 0)


def test_before_the_simulator_no_figure_jumps(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(llamacpp, "available", lambda: False)
    assert demo.run(once=True, port=0) == 0
    assert "upstream says the same" in (said := capfd.readouterr().out)
    assert demo.JUMPS not in said


@needs.unless(llamacpp.available(), "the local model")
def test_before_another_vocabulary_one_line_says_why_the_figures_jump(capfd: pytest.CaptureFixture[str]) -> None:
    assert demo.run(once=True, port=0) == 0
    assert demo.JUMPS in capfd.readouterr().out


def test_who_starts_translate_in_a_terminal_is_told_that_it_waits() -> None:
    ours, theirs = pty.openpty()
    try:
        with subprocess.Popen(
            (sys.executable, "-m", "proxy", "translate"),
            cwd=ROOT,
            stdin=theirs,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as running:
            # A line, and the end of input at the beginning of the next.
            os.write(ours, b'{"model":"deepseek-v3","input":{"prompt":"hi"}}\n\x04')
            said, told = running.communicate(timeout=60)
    finally:
        os.close(ours)
        os.close(theirs)
    assert running.returncode == 0
    assert b"input.prompt" in said
    assert b"Ctrl-D" in told
