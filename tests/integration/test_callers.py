"""Who may call and what is kept of it: the real `serve` with a keys file, a journal and its admin port."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path
from typing import Any

import aiohttp
import orjson

from tests import caller, forks
from tests.conftest import StartServe, StartSimulator

SECRET = "sk-team-a"
OURS = {"DASHSEEK_UPSTREAM_API_KEY": "sk-ours"}


def keys_file(path: Path, *secrets: str, models: str = "") -> Path:
    rows = [
        f'[[key]]\nname = "team {number}"\nsha256 = "{hashlib.sha256(secret.encode()).hexdigest()}"\n{models}'
        for number, secret in enumerate(secrets)
    ]
    path.write_text("\n".join(rows))
    return path


async def ask(url: str, secret: str, model: str = "deepseek-v3") -> caller.Answer:
    return await caller.ask(url, caller.call(model=model), {"Authorization": f"Bearer {secret}"})


def code_of(answer: caller.Answer) -> str:
    code: str = orjson.loads(answer.body)["code"]
    return code


async def test_only_keys_of_the_file_are_let_in_and_ours_goes_upstream(
    serve: StartServe, simulator: StartSimulator, tmp_path: Path
) -> None:
    """KEY-1, HTTP-10"""
    upstream = await simulator()
    path = keys_file(tmp_path / "keys.toml", SECRET, models='models = ["deepseek-v3"]\n')
    served = await serve(upstream.url, "--keys-file", str(path), env=OURS)
    assert (await ask(served.url, SECRET)).status == 200
    assert upstream.calls[0].headers["Authorization"] == "Bearer sk-ours"
    refused = await ask(served.url, "sk-somebody")
    assert (refused.status, code_of(refused)) == (401, "InvalidApiKey")
    denied = await ask(served.url, SECRET, "deepseek-r1")
    assert (denied.status, code_of(denied)) == (403, "AccessDenied")
    assert len(upstream.calls) == 1
    assert SECRET not in served.output


async def test_a_changed_keys_file_is_followed_and_a_broken_one_is_not(
    serve: StartServe, simulator: StartSimulator, tmp_path: Path
) -> None:
    """KEY-1: re-read on change."""
    path = keys_file(tmp_path / "keys.toml", SECRET)
    served = await serve((await simulator()).url, "--keys-file", str(path), env=OURS)
    keys_file(path, SECRET, "sk-new")
    async with asyncio.timeout(10):
        while (await ask(served.url, "sk-new")).status != 200:  # noqa: ASYNC110 - the file is looked at once a second
            await asyncio.sleep(0.1)
    path.write_text("[[key]\n")
    async with asyncio.timeout(10):
        while "keys_kept" not in served.output:  # noqa: ASYNC110 - nothing tells that a process has logged
            await asyncio.sleep(0.05)
    assert (await ask(served.url, SECRET)).status == 200


async def test_the_journal_tells_every_call_and_the_books_are_right(
    serve: StartServe, simulator: StartSimulator, tmp_path: Path
) -> None:
    """MET-6: what callers last saw is what the journal sums up to."""
    path = tmp_path / "calls.jsonl"
    served = await serve((await simulator()).url, "--journal-file", str(path))
    answers = await asyncio.gather(*(caller.ask(served.url, caller.call(f"call {n}")) for n in range(20)))
    assert served.end() == 0
    seen = sum(orjson.loads(answer.body)["usage"]["total_tokens"] for answer in answers)

    verified = await asyncio.to_thread(forks.dashseek, "usage", "verify", str(path))
    assert verified.returncode == 0, verified.stdout
    summed = await asyncio.to_thread(forks.dashseek, "usage", "sum", "--json", str(path))
    assert orjson.loads(summed.stdout)["total"]["total"] == seen


async def get(url: str) -> tuple[int, Any]:
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        return answer.status, await answer.json()


async def test_the_admin_port_says_alive_and_ready_until_the_drain(
    serve: StartServe, simulator: StartSimulator
) -> None:
    """OPS-1, OPS-2: not ready while it still serves."""
    served = await serve((await simulator()).url, "--drain-delay", "1.5", "--log-format", "json")
    admin = served.admin_url
    assert await get(f"{admin}/healthz") == (200, {"status": "ok"})
    assert await get(f"{admin}/readyz") == (200, {"ready": True, "reasons": []})
    assert (await get(f"{served.url}/healthz"))[0] == 200
    served.process.terminate()
    async with asyncio.timeout(5):
        while (await get(f"{admin}/readyz"))[0] == 200:  # noqa: ASYNC110 - a signal takes its time
            await asyncio.sleep(0.05)
    assert (await get(f"{admin}/readyz"))[1]["reasons"] == ["draining"]
    assert (await caller.ask(served.url, caller.call())).status == 200
    assert await asyncio.to_thread(served.process.wait, 10) == 0
