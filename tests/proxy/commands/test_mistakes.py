"""What a newcomer types, sets or writes wrongly is answered with one sentence that mends it, never a traceback."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from click.testing import CliRunner

from config import settings
from proxy.commands import cli
from tests import forks
from tests.conftest import ROOT

AT = ("check", "--upstream", "http://127.0.0.1:1")
DIGEST = "0" * 64


@dataclass(frozen=True)
class Mistake:
    """One mistake, and its answer.

    words: the command line; HERE is a folder of the test's own
    says:  parts of the answer: what is wrong, and what mends it
    env:   variables
    file:  a TOML file of settings, named by --config
    keys:  a keys file, named by --keys-file
    given: standard input
    code:  the exit code
    """

    words: tuple[str, ...]
    says: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    file: str | None = None
    keys: str | None = None
    given: str = ""
    code: int = 2


MISTAKES: Mapping[str, Mistake] = {
    # Flags
    "a command misspelt": Mistake(("serv",), ("No such command 'serv'", "Did you mean serve?")),
    "no upstream": Mistake(("serve",), ("upstream: is missing", "--upstream, DASHSEEK_UPSTREAM or the file")),
    "a flag misspelt": Mistake((*AT, "--idel-timeout", "3"), ("--idle-timeout",)),
    "a key as a flag": Mistake((*AT, "--upstream-api-key", "sk-x"), ("DASHSEEK_UPSTREAM_API_KEY", "api-key-file")),
    "a key as a flag, joined": Mistake((*AT, "--upstream-api-key=sk-x"), ("say it in DASHSEEK_UPSTREAM_API_KEY",)),
    "a password as a flag": Mistake((*AT, "--redis-url", "redis://a"), ("say it in DASHSEEK_REDIS_URL",)),
    "a word misspelt": Mistake((*AT, "--dialect", "vlm"), ("dialect (--dialect)", "did you mean vllm?")),
    "seconds in words": Mistake((*AT, "--idle-timeout", "soon"), ("idle_timeout (--idle-timeout)", "90, 500ms or 5m")),
    "no seconds at all": Mistake((*AT, "--idle-timeout", "0"), ("must be greater than 0",)),
    "bytes in words": Mistake((*AT, "--max-body-bytes", "lots"), ("number of bytes, such as 16777216 or 16MiB",)),
    "a limit nobody knows": Mistake(
        (*AT, "--limits", "rpm=abc foo=3"), ("there is no limit foo", "concurrency, burst, rpm, tpm")
    ),
    "a limit in words": Mistake((*AT, "--limits", "rpm=abc"), ("rpm must be a whole number, 1 or more",)),
    "half a mapping": Mistake((*AT, "--map", "deepseek-v3"), ("map (--map)", "must be NAME=VALUE")),
    "an alias of nothing": Mistake((*AT, "--alias", "a=deepsek-v3"), ("not known; did you mean deepseek-v3?",)),
    "a limit of no model": Mistake(
        (*AT, "--model-limit", "deepsek-v3=rpm=1"), ("no such model; did you mean deepseek-v3?",)
    ),
    "a port in words": Mistake((*AT, "--port", "http"), ("port (--port): must be a whole number",)),
    "a port beyond ports": Mistake((*AT, "--port", "70000"), ("less than or equal to 65535",)),
    "one port twice": Mistake((*AT, "--port", "9000", "--admin-port", "9000"), ("must not be the port of the calls",)),
    "open to the world": Mistake((*AT, "--host", "0.0.0.0", "--auth", "none"), ("bind 127.0.0.1", "--keys-file FILE")),
    "keys without a file": Mistake((*AT, "--auth", "keys"), ("keys and keys_file go together",)),
    "no workers": Mistake((*AT, "--workers", "0"), ("workers (--workers)", "greater than 0")),
    "limits of several": Mistake((*AT, "--workers", "2", "--limits", "rpm=60"), ("say DASHSEEK_REDIS_URL as well",)),
    "a journal nowhere": Mistake((*AT, "--journal-file", "HERE/no/calls.jsonl"), ("in a directory that is there",)),
    "a journal that is a pipe": Mistake((*AT, "--journal-file", "HERE/pipe"), ("no file but a pipe", "name a file")),
    "a certificate without its key": Mistake((*AT, "--tls-cert", "HERE/empty"), ("tls_cert and tls_key go together",)),
    "a certificate that is none": Mistake(
        (*AT, "--tls-cert", "HERE/empty", "--tls-key", "HERE/key"), ("no certificate or no key in PEM",)
    ),
    "certificates that are none": Mistake((*AT, "--upstream-ca-file", "HERE/empty"), ("no certificate in PEM",)),
    # Variables
    "a variable misspelt": Mistake(AT, ("did you mean heartbeat?",), env={"DASHSEEK_HEARTBEET": "1"}),
    "an empty key": Mistake(AT, ("is empty", "leave the variable out"), env={"DASHSEEK_UPSTREAM_API_KEY": ""}),
    "a key with its line end": Mistake(
        AT, ("must be printable ASCII without spaces",), env={"DASHSEEK_UPSTREAM_API_KEY": "sk-canary\n"}
    ),
    "two keys": Mistake(
        (*AT, "--upstream-api-key-file", "HERE/key"),
        ("is said twice",),
        env={"DASHSEEK_UPSTREAM_API_KEY": "sk-canary"},
    ),
    "a Redis without a scheme": Mistake(AT, ("must be redis://HOST:PORT",), env={"DASHSEEK_REDIS_URL": "canary:1"}),
    # The file
    "no TOML": Mistake(("check",), ("is not TOML", "line 1"), file="upstream: http://a"),
    "no file": Mistake(("check", "--config", "HERE/none.toml"), ("cannot be read: No such file",)),
    "a table for a list": Mistake(
        ("check",), ("dashseek.toml:1", 'such as ["https://api.deepseek.com"]'), file='[upstream]\nurl = "http://a"\n'
    ),
    "a key in the file": Mistake(
        AT, ("a secret does not belong here", "DASHSEEK_UPSTREAM_API_KEY"), file='upstream_api_key = "sk-canary"\n'
    ),
    "a yes for seconds": Mistake(AT, ("must be a number, not true or false",), file="idle_timeout = true\n"),
    # Keys
    "no keys file": Mistake((*AT, "--keys-file", "HERE/none.toml"), ("keys_file (--keys-file): is not a file",)),
    "a key for its digest": Mistake(AT, ("keys.toml", "sha256"), keys='[[key]]\nname = "a"\nsha256 = "sk-canary"\n'),
    # URLs
    "a host for a URL": Mistake(("check", "--upstream", "api.deepseek.com"), ("begin with http:// or https://",)),
    "the whole URL": Mistake(
        ("check", "--upstream", "https://a/v1/chat/completions"), ("leave /chat/completions out",)
    ),
    "a password in a URL": Mistake(("check", "--upstream", "https://u:canary@a"), ("upstream_api_key",)),
    # Input
    "nothing to translate": Mistake(("translate",), ("body invalid",), code=1),
    "a model nobody knows": Mistake(
        ("translate",),
        ("Model not exist.", "known: ", ", deepseek-v3, ", "did you mean deepseek-v3?"),
        given='{"model":"deepsek-v3","input":{"prompt":"hi"}}',
        code=1,
    ),
    "no journal to sum": Mistake(("usage", "sum", "HERE/none.jsonl"), ("none.jsonl' does not exist",)),
}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for variable in [name for name in os.environ if name.startswith(settings.PREFIX)]:
        monkeypatch.delenv(variable)
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "empty").touch()
    (tmp_path / "key").write_text("sk-file")
    return tmp_path


def test_there_are_as_many_as_were_once_tried() -> None:
    assert len(MISTAKES) >= 38


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_answered_with_what_mends_it(name: str, here: Path) -> None:
    mistake = MISTAKES[name]
    words = [word.replace("HERE", str(here)) for word in mistake.words]
    for flag, text in (("--config", mistake.file), ("--keys-file", mistake.keys)):
        if text is not None:
            file = here / ("keys.toml" if flag == "--keys-file" else "dashseek.toml")
            file.write_text(text)
            words += [flag, str(file)]
    ended = CliRunner().invoke(cli.dashseek, words, env=dict(mistake.env), input=mistake.given, prog_name="dashseek")
    assert ended.exit_code == mistake.code, ended.output
    for part in mistake.says:
        assert part in ended.output
    assert "Traceback" not in ended.output
    assert "canary" not in ended.output


@pytest.mark.parametrize("said", ["60s", "60000ms", "1m", "60"])
def test_seconds_take_units_as_sizes_do(said: str, here: Path) -> None:
    ended = CliRunner().invoke(cli.dashseek, [*AT, "--idle-timeout", said, "--print"])
    assert "idle_timeout = 60  # --idle-timeout" in ended.output


# What only a process can do wrong


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


def process(*words: str, cwd: Path = ROOT, **environ: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(settings.PREFIX)}
    return subprocess.run(
        [sys.executable, *words],
        cwd=cwd,
        env={**inherited, "PYTHONPATH": str(ROOT), **environ},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("flag", ["--port", "--admin-port"])
def test_a_taken_port_is_named_with_its_number_and_its_flag(flag: str, workers: str, taken: int) -> None:
    ports = {"--port": "0", "--admin-port": "0", flag: str(taken), "--workers": workers}
    flags = [word for pair in ports.items() for word in pair]
    ended = forks.dashseek("serve", "--upstream", "http://127.0.0.1:1", *flags)
    assert (ended.returncode, "Traceback" in ended.stderr) == (3, False)
    assert f"{taken} of 127.0.0.1" in ended.stderr
    assert f"say another with {flag}\n" in ended.stderr


def test_several_processes_without_a_place_for_their_sockets_are_told_before_they_start(
    monkeypatch: pytest.MonkeyPatch, here: Path
) -> None:
    def none() -> str:
        raise FileNotFoundError

    monkeypatch.setattr("tempfile.gettempdir", none)
    ended = CliRunner().invoke(cli.dashseek, [*AT, "--workers", "2"])
    assert (ended.exit_code, "mount one at /tmp" in ended.output) == (2, True)


@pytest.mark.parametrize("command", [("serve", "--upstream", "http://a"), ("doctor",), ("check",), ("translate",)])
def test_a_config_of_somebody_else_is_a_sentence(command: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "__init__.py").touch()
    # As an editable install stands in the path: behind the folder one is in.
    ended = process("-m", "proxy", *command, cwd=tmp_path, PYTHONPATH=f"{tmp_path}:{ROOT}")
    assert (ended.returncode, "Traceback" in ended.stderr) == (2, False)
    assert f"our package `config` is taken from {tmp_path}" in ended.stderr


def test_the_version_is_said_though_a_package_is_taken(tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "__init__.py").touch()
    ended = process("-m", "proxy", "version", cwd=tmp_path, PYTHONPATH=f"{tmp_path}:{ROOT}")
    assert ended.stdout.startswith("dashseek ")


def test_a_python_without_our_packages_is_a_sentence() -> None:
    """`python3 -m proxy` outside the environment."""
    ended = process("-S", "-m", "proxy", "check")
    assert (ended.returncode, "Traceback" in ended.stderr) == (2, False)
    assert "which " + sys.executable + " does not have" in ended.stderr


def test_an_old_python_is_a_sentence() -> None:
    ended = process("-c", "import sys; sys.version_info = (3, 10, 4); from proxy.__main__ import main; main()")
    assert (ended.returncode, ended.stderr) == (2, "Error: dashseek needs Python 3.11 or newer, and this is 3.10\n")
