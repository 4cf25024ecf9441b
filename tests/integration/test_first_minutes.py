"""What a newcomer sees first: the figures of the demo, the way to the docs, a sentence for each mistake."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys

import pytest

from tests import caller
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
