"""The examples of the docs page, one in each language, run as they stand before the real process: they say the same."""

from __future__ import annotations

import asyncio
import os
import shutil
from pathlib import Path

import pytest

from proxy.simulation.wire import Script
from tests import caller
from tests.integration.conftest import Pair

pytestmark = pytest.mark.asyncio(loop_scope="module")

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "proxy" / "examples"
SDK = ROOT / ".clients" / "dashscope-2" / "bin" / "python"
COMMANDS = {
    "call.sh": ("bash",),
    "call.py": (str(SDK),),
    "Call.java": ("java",),
    "call.mjs": ("node",),
    "call.go": ("go", "run"),
}
# The jar of the SDK is in no registry that CI has.
NOT_RUN = {"Sdk.java"}
NEEDS = {"call.sh": ("bash", "curl")}


async def test_every_example_is_run_but_for_the_one_that_needs_a_jar() -> None:
    assert {path.name for path in EXAMPLES.iterdir()} == COMMANDS.keys() | NOT_RUN


async def run(name: str, url: str, key: str = caller.KEY) -> tuple[int, str, str]:
    """The exit code, the output and the complaints of an example; skips where its language is not here."""
    for program in NEEDS.get(name, COMMANDS[name][:1]):
        if shutil.which(program) is None:
            pytest.skip(f"needs {program}")
    env = {**os.environ, "DASHSCOPE_API_KEY": key, "DASHSCOPE_HTTP_BASE_URL": f"{url}/api/v1", "NO_COLOR": "1"}
    process = await asyncio.create_subprocess_exec(
        *COMMANDS[name],
        str(EXAMPLES / name),
        env=env,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


@pytest.mark.parametrize("name", COMMANDS)
async def test_an_example_shows_the_answer_and_what_it_cost(pair: Pair, name: str) -> None:
    pair.next(Script(text='Ich bin "DeepSeek".\n我是 DeepSeek。\\'))
    code, out, err = await run(name, pair.url)
    assert code == 0, err
    if name == "call.sh":
        assert caller.text(out.encode()) == 'Ich bin "DeepSeek".\n我是 DeepSeek。\\'
        return
    text, usage, nothing = out.rsplit("\n", 2)
    assert (text, nothing) == ('Ich bin "DeepSeek".\n我是 DeepSeek。\\', "")
    assert usage == "6 + 13 = 19 tokens"


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("late", [False, True], ids=["refused", "broken"])
async def test_an_example_does_not_take_a_failure_for_an_answer(pair: Pair, name: str, *, late: bool) -> None:
    pair.next(Script(cut_after=2) if late else Script(key="sk-another"))
    code, out, err = await run(name, pair.url)
    said = out + err
    assert ("InternalError" if late else "InvalidApiKey") in said
    assert "tokens\n" not in out
    # curl hands on what it gets.
    assert (code != 0) == (name != "call.sh")
