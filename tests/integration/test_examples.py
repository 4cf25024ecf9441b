"""The examples of the docs page, one in each language, run as they stand before the real process: they say the same."""

from __future__ import annotations

import asyncio
import os

import pytest

from proxy.simulation.wire import Script
from tests import caller, needs
from tests.conftest import ROOT
from tests.integration.conftest import Pair

pytestmark = pytest.mark.asyncio(loop_scope="module")

EXAMPLES = ROOT / "proxy" / "examples"
COMMANDS = {
    "call.sh": ("bash",),
    "call.py": (str(needs.CLIENTS / "dashscope-2" / "bin" / "python"),),
    "compatible.py": (str(needs.CLIENTS / "openai" / "bin" / "python"),),
    "Call.java": ("java",),
    "call.mjs": ("node",),
    "call.go": ("go", "run"),
}
# The jar of the SDK is in no registry that CI has.
NOT_RUN = {"Sdk.java"}
NEEDS = {
    "call.sh": "curl",
    "call.py": ".clients/dashscope-2",
    "compatible.py": ".clients/openai",
    "Call.java": "javac",
    "call.mjs": "node",
    "call.go": "go",
}


def there(name: str) -> bool:
    """Whether what an example needs is here."""
    need = NEEDS[name]
    client = need.removeprefix(".clients/")
    return needs.is_client(client) if client != need else needs.found(need) is not None


# Before the test: one that is skipped once it has told the upstream what to say would leave that to the next.
examples = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=needs.unless(there(name), need)) for name, need in NEEDS.items()]
)


async def test_every_example_is_run_but_for_the_one_that_needs_a_jar() -> None:
    assert {path.name for path in EXAMPLES.iterdir()} == COMMANDS.keys() | NOT_RUN | {"README.md", "README.zh.md"}
    assert NEEDS.keys() == COMMANDS.keys()


async def run(name: str, url: str, key: str = caller.KEY) -> tuple[int, str, str]:
    """The exit code, the output and the complaints of an example."""
    urls = {"DASHSCOPE_HTTP_BASE_URL": f"{url}/api/v1", "OPENAI_BASE_URL": f"{url}/compatible-mode/v1"}
    env = {**os.environ, "DASHSCOPE_API_KEY": key, **urls, "NO_COLOR": "1"}
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


@examples
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


@examples
@pytest.mark.parametrize("late", [False, True], ids=["refused", "broken"])
async def test_an_example_does_not_take_a_failure_for_an_answer(pair: Pair, name: str, *, late: bool) -> None:
    pair.next(Script(cut_after=2) if late else Script(key="sk-another"))
    code, out, err = await run(name, pair.url)
    # On the compatible surface the codes are written `internal_error`, `invalid_api_key`.
    said = (out + err).replace("_", "").lower()
    assert ("internalerror" if late else "invalidapikey") in said
    assert "tokens\n" not in out
    # curl hands on what it gets.
    assert (code != 0) == (name != "call.sh")
