"""The real `serve` with a certificate: the handbook's recipe, word for word, before curl and the docs page."""

from __future__ import annotations

import asyncio
import re
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests import caller, needs
from tests.conftest import ROOT, StartServe, StartSimulator
from tests.integration.test_logs import until

HANDBOOK = (ROOT / "deploy" / "README.md").read_text()
SECTION = HANDBOOK.partition("\n## TLS\n")[2].partition("\n## ")[0]
(BLOCK,) = re.findall(r"```sh\n(.*?)```", SECTION, re.DOTALL)
FLAGS = ("--tls-cert", "tls.crt", "--tls-key", "tls.key")


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A directory with the recipe's certificate and key, which the tests' `serve` runs in."""
    needs.program("openssl")
    make = BLOCK.partition("\ndashseek serve")[0]
    subprocess.run(["/bin/sh", "-ec", make], cwd=tmp_path, check=True, capture_output=True)
    return tmp_path


async def test_the_recipe_serves_curl(here: Path, serve: StartServe, simulator: StartSimulator) -> None:
    curl = needs.program("curl")
    assert "dashseek serve" in BLOCK
    for flag in FLAGS:
        assert flag in BLOCK
    served = await serve((await simulator()).url, *FLAGS)
    assert served.url.startswith("https://127.0.0.1:")
    ask = (curl, "-sS", "--cacert", str(here / "tls.crt"), "-X", "POST", served.url + caller.GENERATION)
    process = await asyncio.create_subprocess_exec(
        *(*ask, "-H", "Authorization: Bearer sk-x", "-H", "Content-Type: application/json"),
        *("-d", '{"model":"deepseek-v3","input":{"prompt":"hi"}}'),
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await process.communicate()
    assert b'"total_tokens"' in out


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_the_docs_page_calls_over_it_and_a_new_certificate_is_followed(
    here: Path, serve: StartServe, simulator: StartSimulator, workers: str
) -> None:
    served = await serve((await simulator()).url, *FLAGS, "--workers", workers)
    admin = served.admin_url
    headers = {"Host": urlsplit(admin).netloc, "Origin": admin, **caller.SSE}
    for _ in range(2):
        answer = await caller.ask(admin, caller.call(), headers, path="/docs/try")
        assert (answer.status, bool(caller.text(answer.body))) == (200, True)
        make = BLOCK.partition("\ndashseek serve")[0]
        await asyncio.to_thread(subprocess.run, ["/bin/sh", "-ec", make], cwd=here, check=True, capture_output=True)
        await until(served, "certificate_read", int(workers))
    assert await asyncio.to_thread(served.end) == 0
