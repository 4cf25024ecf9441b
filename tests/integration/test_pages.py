"""Every command of the README, of the callers' page and of the handbook is one that works."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import shlex
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson
import pytest

from proxy.commands import demo, exit_codes
from proxy.simulation.wire import Script
from proxy.telemetry import metrics
from tests import caller, forks, needs

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
CALLERS = (ROOT / "proxy" / "examples" / "README.md").read_text()
# The commands of its "Deploy" are tests/deploy/test_handbook.py's.
HANDBOOK = re.sub(r"\n## Deploy\n.*?(?=\n## )", "", (ROOT / "deploy" / "README.md").read_text(), flags=re.DOTALL)
PAGES = README + CALLERS + HANDBOOK
SHELL = re.findall(r"```sh\n(.*?)```", PAGES, re.DOTALL)
PYTHON = re.findall(r"```python\n(.*?)```", CALLERS, re.DOTALL)
NODE = re.findall(r"```js\n(.*?)```", CALLERS, re.DOTALL)
# One command a line, continued lines joined.
COMMANDS = [line for block in SHELL for line in block.replace("\\\n", " ").splitlines() if line and line[0] != "#"]
(OPENSSL,) = [command for command in COMMANDS if command.startswith("openssl ")]
SETUP = [command for command in COMMANDS if "pip install" in command]
SERVE = [command for command in COMMANDS if "dashseek serve" in command]
CALL = {"model": "deepseek-v3", "input": {"prompt": "hi"}}


def words(command: str) -> tuple[dict[str, str], list[str]]:
    """The variables and the words of a command line; a trailing `&` is the shell's."""
    parts = shlex.split(command.split(" <", maxsplit=1)[0].removesuffix("&"))
    env = {}
    while "=" in parts[0]:
        name, _, value = parts.pop(0).partition("=")
        env[name] = value
    return env, parts


def test_the_two_commands_are_what_ci_looks_for() -> None:
    for name in ("demo", "test"):
        assert f"<!-- command: {name} -->\n```sh\npython3 -m venv .venv" in README
    assert len(SETUP) == 2


def test_there_is_no_command_that_nothing_here_runs() -> None:
    known = [
        command
        for command in COMMANDS
        if command in SETUP
        or command.startswith(("curl ", "openssl "))  # the latter in `test_tls`
        or re.search(r"dashseek (serve|simulate|translate|check|doctor|keys|usage)", command)
    ]
    assert known == COMMANDS


@pytest.mark.parametrize("command", SERVE)
async def test_a_serve_recipe_serves(serve: Any, tmp_path: Path, command: str) -> None:
    (tmp_path / "keys.toml").write_text(f'[[key]]\nname = "me"\nsha256 = "{"0" * 64}"\n')
    if "--tls-cert" in command:
        needs.program("openssl")
        await asyncio.to_thread(subprocess.run, ["/bin/sh", "-ec", OPENSSL], cwd=tmp_path, check=True)
    env, (name, verb, *flags) = words(command)
    assert (name, verb) == ("dashseek", "serve")
    at = flags.index("--upstream")
    upstream = flags[at + 1]
    served = await serve(upstream, *flags[:at], *flags[at + 2 :], env=env)
    assert served.end() == 0


def test_the_simulator_recipe_takes_its_flags() -> None:
    (command,) = [command for command in COMMANDS if "dashseek simulate" in command]
    _, (_, *flags) = words(command)
    flags[flags.index("--port") + 1] = "0"
    with subprocess.Popen([sys.executable, "-m", "proxy", *flags], cwd=ROOT, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        assert run.stdout.readline().startswith("simulating DeepSeek on http://")
        run.terminate()
        assert run.wait(10) == 0


def test_the_translate_recipe_translates() -> None:
    (command,) = [command for command in COMMANDS if "dashseek translate" in command]
    _, (_, *flags) = words(command)
    run = subprocess.run(
        [sys.executable, "-m", "proxy", *flags], cwd=ROOT, input=orjson.dumps(CALL), capture_output=True, check=False
    )
    assert run.returncode == 0
    assert b"input.prompt" in run.stdout


EXAMINING = [command for command in COMMANDS if re.search(r"dashseek (check|doctor)", command)]


@pytest.mark.parametrize("command", EXAMINING)
async def test_a_recipe_that_examines_finds_a_simulated_upstream_well(
    simulator: Any, command: str, tmp_path: Path
) -> None:
    upstream = await simulator()
    for name, where in (("dashseek.toml", "/etc/dashseek/dashseek.toml"), ("next.toml", "next.toml")):
        (tmp_path / name).write_text(f'upstream = ["{upstream.url}"]\n')
        command = command.replace(where, str(tmp_path / name))
    env, (_, *flags) = words(command.replace("https://api.deepseek.com", upstream.url))
    ended = await asyncio.to_thread(forks.dashseek, *flags, env=env)
    assert ended.returncode == 0, ended.stdout


def test_the_tables_of_metrics_and_exit_codes_are_those_of_the_code() -> None:
    lines = HANDBOOK.splitlines()
    rows = [
        f"| `{row.name}` | {row.kind} | {', '.join(f'`{label}`' for label in row.labels)} | {row.meaning} |"
        for row in metrics.ROWS
    ]
    assert [line for line in lines if re.match(r"\| `\w+` \| (counter|gauge|histogram) \|", line)] == rows
    codes = [f"| {code.value} | {meaning} |" for code, meaning in exit_codes.MEANINGS.items()]
    assert [line for line in lines if re.match(r"\| \d+ \| ", line)] == codes


async def test_the_recipes_of_keys_and_books_go_together(serve: Any, simulator: Any, tmp_path: Path) -> None:
    """Make a key, call with it, read the book: word for word, in a shell."""

    def shell(command: str) -> str:
        dashseek = f'dashseek() {{ "{sys.executable}" -m proxy "$@"; }}\n'
        run = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", dashseek + command],
            cwd=tmp_path,
            env={"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"]},
            capture_output=True,
            text=True,
            check=False,
        )
        assert run.returncode == 0, (command, run.stderr)
        return run.stdout

    (make,) = [command for command in COMMANDS if "dashseek keys" in command]
    await asyncio.to_thread(shell, make)
    key = (tmp_path / "team-a.key").read_text().strip()
    served = await serve(
        (await simulator()).url,
        *("--keys-file", "keys.toml", "--journal-file", "calls.jsonl"),
        env={"DASHSEEK_UPSTREAM_API_KEY": "sk-ours"},
    )
    answer = await caller.ask(served.url, caller.call(), {"Authorization": f"Bearer {key}"})
    assert answer.status == 200
    assert (await caller.ask(served.url, caller.call())).status == 401
    assert served.end() == 0
    total = answer.json["usage"]["total_tokens"]
    books = [await asyncio.to_thread(shell, command) for command in COMMANDS if "dashseek usage" in command]
    summed, by_key, verified, shown = books
    assert f" {total} " in summed
    assert "\nteam a," in by_key
    assert verified == "1 calls, 0 unknown, 0 torn lines, no rule broken\n"
    assert "  team a  " in shown


@needs.programs("curl")
async def test_the_curl_call_gets_packets(serve: Any, simulator: Any) -> None:
    upstream = await simulator()
    served = await serve(upstream.url)
    (command,) = [command for command in COMMANDS if command.startswith("curl ")]
    process = await asyncio.create_subprocess_shell(
        command.replace("http://127.0.0.1:8080", served.url),
        env={"DASHSCOPE_API_KEY": "sk-test", "PATH": os.environ["PATH"]},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    out, _ = await process.communicate()
    assert out.startswith(b"id:1\nevent:result\n:HTTP_STATUS/200\ndata:{")


@pytest.mark.parametrize("name", ["call.sh", "call.py", "Sdk.java"])
def test_an_example_is_the_file_that_is_run(name: str) -> None:
    assert f"\n{(ROOT / 'proxy' / 'examples' / name).read_text().rstrip()}\n```" in CALLERS


@needs.clients("langchain")
async def test_the_langchain_snippet_prints_the_answer(serve: Any, simulator: Any) -> None:
    python = needs.client("langchain") / "bin" / "python"
    served = await serve((await simulator()).url)
    (snippet,) = [block for block in PYTHON if "ChatTongyi" in block]
    process = await asyncio.create_subprocess_exec(
        *(str(python), "-W", "ignore", "-c", snippet.replace("http://127.0.0.1:8080", served.url)),
        env={"DASHSCOPE_API_KEY": "sk-test"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert (process.returncode, out.decode()) == (0, "You said: 你是谁？"), err.decode()


# What a snippet for the compatible surface imports, and the environment of a client in which it runs.
SNIPPETS = {
    "from openai import": "openai",
    "from langchain_openai import": "langchain-openai",
    'from "openai"': "openai-js",
    'from "ai"': "openai-js",
}


def test_every_snippet_of_the_compatible_surface_is_run() -> None:
    assert len([block for block in PYTHON + NODE if "compatible-mode" in block]) == len(SNIPPETS)


@pytest.mark.parametrize(
    "imports",
    [pytest.param(imports, marks=needs.clients(name)) for imports, name in SNIPPETS.items()],
)
async def test_a_snippet_of_the_compatible_surface_prints_the_answer(serve: Any, simulator: Any, imports: str) -> None:
    home = needs.client(SNIPPETS[imports])
    (snippet,) = [block for block in PYTHON + NODE if imports in block]
    node = ("node", "--input-type=module", "-e")
    command = node if snippet in NODE else (str(home / "bin" / "python"), "-c")
    served = await serve((await simulator()).url)
    process = await asyncio.create_subprocess_exec(
        *(*command, snippet.replace("http://127.0.0.1:8080", served.url)),
        cwd=home,
        env={"OPENAI_API_KEY": "sk-test", "PATH": os.environ["PATH"]},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert (process.returncode, out.decode()) == (0, "You said: 你是谁？"), err.decode()


class TestDify:
    """What each row of the table answers to; the calls of its plugin, version by version, are in `test_dify`."""

    SAID = re.findall(r"^\| (\d{3}) `([^`]+)`", CALLERS, re.MULTILINE)

    async def test_each_row_is_an_answer_that_the_check_gets(self, serve: Any, simulator: Any, tmp_path: Path) -> None:
        entries = {"0" * 64: "", hashlib.sha256(caller.KEY.encode()).hexdigest(): 'models = ["deepseek-r1"]\n'}
        for name, keys in (("others.toml", [*entries][:1]), ("keys.toml", [*entries][1:])):
            rows = (f'[[key]]\nname = "me"\nsha256 = "{digest}"\n{entries[digest]}' for digest in keys)
            (tmp_path / name).write_text("".join(rows))
        upstream = await simulator(Script(key="sk-another"))
        ping = caller.call("ping", "qwen-turbo", temperature=0.5)
        alias = ("--alias", "qwen-turbo=deepseek-v3")
        ours = {"DASHSEEK_UPSTREAM_API_KEY": "sk-stale"}
        passing = await serve(upstream.url, *alias)
        bare = await serve(upstream.url)
        strangers = await serve(upstream.url, *alias, "--keys-file", "others.toml", env=ours)
        known = await serve(upstream.url, *alias, "--keys-file", "keys.toml", env=ours)
        stale = await serve(upstream.url, *alias, env=ours)
        answers = [
            await caller.ask(passing.url, ping, {"Authorization": ""}),
            await caller.ask(passing.url, ping),
            await caller.ask(strangers.url, ping),
            await caller.ask(known.url, ping),
            await caller.ask(bare.url, ping),
            await caller.ask(stale.url, ping),
        ]
        for (status, said), answer in zip(self.SAID, answers, strict=True):
            assert answer.status == int(status)
            assert said in answer.fault


@needs.clients("dashscope-2")
async def test_the_sdk_snippet_prints_text_and_usage(serve: Any, simulator: Any) -> None:
    python = needs.client("dashscope-2") / "bin" / "python"
    upstream = await simulator()
    served = await serve(upstream.url)
    (snippet,) = [block for block in PYTHON if "Generation" in block]
    process = await asyncio.create_subprocess_exec(
        str(python),
        "-c",
        snippet.replace("http://127.0.0.1:8080", served.url),
        env={"DASHSCOPE_API_KEY": "sk-test"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    assert out.endswith(b" tokens\n")


def test_the_demo_shows_a_right_call_and_ends() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "proxy", "demo", "--once", "--port", "0"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
    )
    assert run.returncode == 0, run.stderr
    assert "upstream says the same" in run.stdout


async def test_the_demos_admin_port_is_the_one_above_unless_somebody_has_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert demo._admin_port(port - 1) == 0
    assert demo._admin_port(port - 1) == port
    assert demo._admin_port(0) == demo._admin_port(65_535) == 0
