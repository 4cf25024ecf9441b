"""`dashseek check`, `doctor` and `completion` as processes: what they say, and the codes they end with."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from proxy.simulation.wire import Script
from tests import forks, needs
from tests.conftest import ROOT, StartSimulator

CALLERS_KEY = {"DASHSCOPE_API_KEY": "sk-the-callers-own"}


async def dashseek(*words: str, env: Mapping[str, str] = {}, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """One command, in a thread: the upstream may live in this loop."""
    return await asyncio.to_thread(forks.dashseek, *words, env=env, directory=cwd)


class TestCheck:
    """What `serve` would make of the settings."""

    async def test_what_is_wrong_is_told_with_file_line_allowed_values_and_a_guess(self, tmp_path: Path) -> None:
        file = tmp_path / "dashseek.toml"
        file.write_text('upstream = ["http://a"]\n\nidle_timeout = "soon"\ndialect = "vlm"\nheartbeet = 3\n')
        ended = await dashseek("check", "--config", str(file))
        assert ended.returncode == 2
        assert f"idle_timeout ({file}:3): must be a number of seconds, such as 90, 500ms or 5m" in ended.stderr
        assert f"dialect ({file}:4): must be 'deepseek', 'vllm'" in ended.stderr
        assert "did you mean vllm?" in ended.stderr
        assert f"heartbeet ({file}:5): there is no such setting; did you mean heartbeat?" in ended.stderr

    async def test_what_can_be_used_is_summed_up(self, tmp_path: Path) -> None:
        ended = await dashseek("check", "--upstream", "http://a", "--map", "my-model=x", cwd=tmp_path)
        assert ended.returncode == 0
        assert ended.stdout.startswith("ok  ")
        assert "my-model" in ended.stdout

    @pytest.mark.parametrize(("dialect", "held"), [("deepseek", True), ("ark", False)])
    async def test_a_dialect_that_holds_no_budget_says_so(self, dialect: str, *, held: bool, tmp_path: Path) -> None:
        """OUT-9."""
        ended = await dashseek("check", "--upstream", "http://a", "--dialect", dialect, cwd=tmp_path)
        assert ended.returncode == 0
        assert (f"dialect {dialect} holds no thinking_budget" in ended.stdout) is not held

    async def test_a_keys_file_that_cannot_be_read_is_wrong_too(self, tmp_path: Path) -> None:
        file = tmp_path / "keys.toml"
        file.write_text("[[key]]\nname = 1\n")
        ended = await dashseek("check", "--upstream", "http://a", "--keys-file", str(file))
        assert ended.returncode == 2
        assert "keys_file" in ended.stderr

    async def test_print_says_where_each_value_is_from_and_no_secret(self, tmp_path: Path) -> None:
        file = tmp_path / "dashseek.toml"
        file.write_text('upstream = ["http://a"]\nidle_timeout = 7\n')
        environ = {"DASHSEEK_UPSTREAM_API_KEY": "sk-ours", "DASHSEEK_HEARTBEAT": "3"}
        ended = await dashseek("check", "--config", str(file), "--port", "9000", "--print", env=environ)
        for line in (
            f"idle_timeout = 7  # {file}:2",
            "heartbeat = 3  # DASHSEEK_HEARTBEAT",
            "port = 9000  # --port",
            "body_timeout = 30  # default",
            "# upstream_api_key = (secret)  # DASHSEEK_UPSTREAM_API_KEY",
            "# keys_file is not set",
        ):
            assert line in ended.stdout.splitlines()
        assert "sk-ours" not in ended.stdout + ended.stderr
        again = tmp_path / "again.toml"
        again.write_text(ended.stdout)
        assert (await dashseek("check", "--config", str(again))).returncode == 0

    async def test_online_makes_one_small_call_and_says_what_came(
        self, simulator: StartSimulator, tmp_path: Path
    ) -> None:
        upstream = await simulator()
        journal = tmp_path / "calls.jsonl"
        flags = ("--upstream", upstream.url, "--journal-file", str(journal), "--limits", "rpm=1")
        ended = await dashseek("check", "--online", *flags, env=CALLERS_KEY)
        assert ended.returncode == 0, ended.stdout + ended.stderr
        assert "answered  after " in ended.stdout
        assert "tokens (upstream_final)" in ended.stdout
        (call,) = upstream.calls
        assert call.headers["Authorization"] == "Bearer sk-the-callers-own"
        assert call.body["max_tokens"] <= 16
        assert not journal.exists()

    async def test_online_asks_with_our_key_for_the_model_that_is_mapped(self, simulator: StartSimulator) -> None:
        upstream = await simulator()
        flags = ("--upstream", upstream.url, "--dialect", "vllm", "--map", "deepseek-v3=mine")
        ended = await dashseek("check", "--online", *flags, env={"DASHSEEK_UPSTREAM_API_KEY": "sk-ours"})
        assert ended.returncode == 0, ended.stdout + ended.stderr
        (call,) = upstream.calls
        assert (call.headers["Authorization"], call.body["model"]) == ("Bearer sk-ours", "mine")

    @pytest.mark.parametrize(
        ("script", "said"),
        [
            (Script(status=401), "401 InvalidApiKey"),
            (Script(status=500), "500 InternalError"),
            (Script(cut_after=1), "500 InternalError"),
        ],
        ids=["key refused", "ill", "cut"],
    )
    async def test_an_upstream_that_fails_is_exit_4(self, simulator: StartSimulator, script: Script, said: str) -> None:
        ended = await dashseek("check", "--online", "--upstream", (await simulator(script)).url, env=CALLERS_KEY)
        assert ended.returncode == 4
        assert f"failed    {said}" in ended.stdout

    async def test_online_says_why_an_upstream_was_not_reached(self) -> None:
        ended = await dashseek("check", "--online", "--upstream", "http://127.0.0.1:1", env=CALLERS_KEY)
        assert ended.returncode == 4
        assert "nobody listens on that port" in ended.stdout
        assert "is it up" in ended.stdout
        assert "Error" not in ended.stdout

    async def test_online_says_what_the_doctor_finds_wrong_with_an_upstream_that_answers_so(
        self, simulator: StartSimulator
    ) -> None:
        upstream = await simulator()
        ended = await dashseek("check", "--online", "--upstream", f"{upstream.url}/elsewhere", env=CALLERS_KEY)
        assert ended.returncode == 4
        assert f"-> say --upstream {upstream.url}/elsewhere/v1" not in ended.stdout
        assert "-> is it the base URL that /chat/completions is added to?" in ended.stdout

    async def test_an_unknown_model_is_answered_with_those_there_are(self, simulator: StartSimulator) -> None:
        flags = ("--upstream", (await simulator()).url, "--model", "deepseek-v33")
        ended = await dashseek("check", "--online", *flags, env=CALLERS_KEY)
        assert "-> known: " in ended.stdout
        assert "; did you mean deepseek-v3" in ended.stdout

    @pytest.mark.parametrize(
        ("flags", "env", "callers", "pays"),
        [
            ((), {}, "whoever has a key of the upstream's (auth passthrough)", "each caller: "),
            ((), {"DASHSEEK_UPSTREAM_API_KEY": "sk-ours"}, "whoever brings any key", "the upstream key of DASHSEEK_"),
            (("--auth", "none"), {}, "whoever reaches the port", "nobody: "),
        ],
        ids=["passthrough", "ours", "none"],
    )
    async def test_who_calls_and_who_pays_are_two_lines(
        self, flags: tuple[str, ...], env: Mapping[str, str], callers: str, pays: str
    ) -> None:
        ended = await dashseek("check", "--upstream", "http://a", *flags, env=env)
        assert f"callers   {callers}" in ended.stdout
        assert f"pays      {pays}" in ended.stdout
        assert "sk-ours" not in ended.stdout

    async def test_online_needs_a_key_that_callers_would_bring(self) -> None:
        ended = await dashseek("check", "--online", "--upstream", "http://127.0.0.1:1")
        assert ended.returncode == 2
        assert "DASHSCOPE_API_KEY" in ended.stderr


async def test_the_doctor_looks_at_the_real_machine(simulator: StartSimulator) -> None:
    ended = await dashseek("doctor", "--port", "0", "--upstream", (await simulator()).url)
    assert ended.returncode == 0, ended.stdout
    assert ended.stdout.startswith("ok    python")
    assert ended.stderr == ""


COMPLETED = {
    "bash": """
        eval "$({dashseek} completion bash)"
        COMP_WORDS=(dashseek comp) COMP_CWORD=1
        dashseek() {{ {dashseek} "$@"; }}
        _dashseek_completion dashseek
        echo "${{COMPREPLY[@]}}"
    """,
    "zsh": """
        autoload -U compinit && compinit -u -d "$PWD/dump" && eval "$({dashseek} completion zsh)"
        whence -w _dashseek_completion
    """,
    "fish": """
        {dashseek} completion fish | source
        complete | string match -r dashseek
    """,
}


@pytest.mark.parametrize("shell", COMPLETED)
def test_a_real_shell_takes_its_completion(shell: str, tmp_path: Path) -> None:
    needs.program(shell)
    program = tmp_path / "dashseek"
    program.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m proxy "$@"\n')
    program.chmod(0o755)
    ended = subprocess.run(
        [shell, "-c", COMPLETED[shell].format(dashseek=program)],
        cwd=tmp_path,
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    expected = {"bash": "completion", "zsh": "_dashseek_completion: function", "fish": "dashseek"}
    assert expected[shell] in ended.stdout
