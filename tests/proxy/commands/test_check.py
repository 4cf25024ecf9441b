"""Claims about what `dashseek check` says, line by line; of processes those are tests/integration/test_check.py's."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from click.testing import CliRunner

from config import settings
from proxy.commands import check, cli
from proxy.commands.exit_codes import Exit
from proxy.metering.journal import Record
from proxy.simulation.wire import Script
from tests import forks
from tests.conftest import StartSimulator
from translators import faults

AT = ("--upstream", "http://127.0.0.1:1")
POOLS = """
[[pools]]
name = "a"
urls = ["http://127.0.0.1:1/v1", "http://127.0.0.1:2/v1"]
models = ["deepseek-v3", "deepseek-r1"]
priority = 2
[[pools]]
name = "b"
urls = ["http://127.0.0.1:3"]
"""
OWN = 'api_key_env = "POOL_KEY"\n'


def run(*words: str, **environ: str) -> list[str]:
    env = {**dict.fromkeys((name for name in os.environ if name.startswith(settings.PREFIX)), None), "LANG": "C"}
    ended = CliRunner().invoke(cli.dashseek, ["check", *words], env={**env, **environ}, prog_name="dashseek")
    assert ended.exit_code == 0, ended.output
    return ended.output.splitlines()


def test_the_most_important_of_what_settings_mean_is_said_in_five_lines() -> None:
    said = run(*AT, "--port", "9000")
    assert said[:4] == [
        f"ok        2 settings said, {len(settings.NAMES) - 2} left at their defaults",
        "upstream  http://127.0.0.1:1, dialect deepseek",
        "callers   whoever has a key of the upstream's (auth passthrough); on 127.0.0.1:9000",
        "pays      each caller: the key they bring goes upstream",
    ]
    assert said[4].startswith("models    deepseek-v3, deepseek-v3.1, ")
    # What is to be noticed stands in the same columns.
    assert said[5].startswith("retired   the service stops selling ")


def test_what_has_no_price_under_a_limit_of_money_is_said(tmp_path: Path) -> None:
    (path := tmp_path / "prices.toml").write_text(
        '[[callers]]\nmodel = "deepseek-v3"\nvalid_from = 2026-01-01T00:00:00Z\ncurrency = "CNY"\n'
        "input = 1\ncached = 1\noutput = 1\n"
    )
    words = (*AT, "--prices-file", str(path), "--model-limit")
    assert not [line for line in run(*words, "deepseek-v3=cost_day=5") if line.startswith("prices")]
    assert run(*words, "deepseek-r1=cost_day=5")[-1] == (
        "prices    calls of deepseek-r1 go under a limit of money and have no price now: they count nothing there"
    )


@pytest.mark.parametrize(
    ("words", "environ", "callers", "pays"),
    [
        (
            (),
            {"DASHSEEK_UPSTREAM_API_KEY": "sk-a"},
            "whoever brings any key at all (auth any)",
            "the upstream key of {}",
        ),
        (("--auth", "none"), {}, "whoever reaches the port (auth none)", "nobody: no key goes upstream"),
        (("--auth", "any"), {}, "whoever brings any key at all (auth any)", "nobody: no key goes upstream"),
        (("--keys-file", "FILE"), {}, "those whose key is in the keys file: 2 of FILE (auth keys)", "nobody: {}"),
    ],
)
def test_who_calls_and_who_pays(
    words: tuple[str, ...], environ: dict[str, str], callers: str, pays: str, tmp_path: Path
) -> None:
    keys = tmp_path / "keys.toml"
    keys.write_text("".join(f'[[key]]\nname = "{name}"\nsha256 = "{name * 64}"\n' for name in "ab"))
    said = run(*AT, *(word.replace("FILE", str(keys)) for word in words), **environ)
    paid = pays.format("DASHSEEK_UPSTREAM_API_KEY, for all of them" if environ else "no key goes upstream")
    assert said[2:4] == [f"callers   {callers.replace('FILE', str(keys))}; on 127.0.0.1:8080", f"pays      {paid}"]


@pytest.mark.parametrize(
    ("file", "words", "pays"),
    [
        (POOLS, (), "each caller: the key they bring goes to a, b"),
        (POOLS, ("--auth", "none"), "nobody: no key goes to a, b"),
        (POOLS + OWN, (), "our own key of b; nobody: no key goes to a"),
        (POOLS.replace("priority = 2\n", OWN) + OWN, (), "our own key of a, b"),
    ],
)
def test_each_pool_is_named_with_what_it_gets_and_whose_key_it_is_sent(
    file: str, words: tuple[str, ...], pays: str, tmp_path: Path
) -> None:
    (path := tmp_path / "c.toml").write_text(file)
    said = run("--config", str(path), *words, POOL_KEY="sk-p")
    priority = 2 if "priority" in file else 0
    urls = "http://127.0.0.1:1/v1, http://127.0.0.1:2/v1"
    assert said[1:3] == [
        f"upstream  a: {urls}, dialect deepseek, priority {priority}, for deepseek-v3, deepseek-r1",
        "upstream  b: http://127.0.0.1:3, dialect deepseek, priority 0, for every model",
    ]
    assert said[4] == f"pays      {pays}"


def test_every_setting_is_printed_under_its_section_as_a_file_would_say_it() -> None:
    sections = "\n".join([*run(*AT, "--print"), ""]).split("\n\n")
    assert sections.pop() == ""
    assert [section.split("\n")[0] for section in sections] == [f"# {name}" for name in settings.SECTIONS]
    for section, names in zip(sections, settings.SECTIONS.values(), strict=True):
        lines = section.split("\n")[1:]
        assert [line.removeprefix("# ").split(" ")[0] for line in lines] == [*names]
    lines = "\n".join(sections).split("\n")
    assert {'upstream = ["http://127.0.0.1:1"]  # --upstream', "idle_timeout = 120  # default"} <= {*lines}
    assert "# keys_file is not set" in lines


@pytest.mark.parametrize(
    ("then", "told"),
    [
        ('auth = "none"', "host (now.toml:1): "),
        ('journal_file = "pipe"', "is no file but a pipe"),
        ('keys_file = "odd.toml"', "odd.toml"),
    ],
)
def test_what_a_reload_would_refuse_is_refused_here(
    then: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first could be served on the loopback that it asks for, and not on the address that stays."""
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    for name, text in {
        "keys.toml": f'[[key]]\nname = "a"\nsha256 = "{"a" * 64}"\n',
        "odd.toml": "[[key]]\nname = 1\n",
        "now.toml": 'host = "0.0.0.0"\nkeys_file = "keys.toml"\n',
        "then.toml": f"{then}\n",
    }.items():
        Path(name).write_text(text)
    words = ("check", *AT, "--config", "now.toml", "--against", "then.toml")
    ended = CliRunner().invoke(cli.dashseek, words, env={"LANG": "C"}, prog_name="dashseek")
    assert (ended.exit_code, told in ended.output) == (2, True), ended.output


def test_the_call_has_a_port_and_an_address_that_are_nobodys() -> None:
    """Whoever serves already keeps its own; 0 is whichever is free."""
    assert (check.ALONE["host"], check.ALONE["port"]) == ("127.0.0.1", 0)


RECORD = {
    "attempts": [{"target": "http://a", "result": "unreachable"}, {"target": "http://b", "result": "200"}],
    "status": 200,
    "code": None,
    "t": {"first_packet": 12.4, "closed": 99.6},
    "usage": {"input_tokens": 5, "output_tokens": 2, "total_tokens": 7},
    "basis": "upstream_final",
    "drift_tokens": -1,
}
ASKED = ["asked     http://a: unreachable", "asked     http://b: 200"]


@pytest.mark.parametrize(
    ("said", "closing", "code", "lines"),
    [
        (
            {},
            {},
            Exit.OK,
            [
                *ASKED,
                "answered  after 12 ms, whole after 100 ms",
                "usage     5 + 2 = 7 tokens (upstream_final); our count of the prompt was off by -1",
            ],
        ),
        (
            {"fault": faults.INTERNAL, "upstream_said": "out of order"},
            {"status": 500, "code": "InternalError"},
            Exit.UPSTREAM_REFUSED,
            [
                *ASKED,
                f"failed    500 InternalError: {faults.INTERNAL.message}",
                "          upstream said: out of order",
            ],
        ),
        (
            {"fault": faults.INTERNAL, "cause": "why"},
            {"status": 500, "code": "InternalError", "attempts": []},
            Exit.CONFIGURATION,
            ["failed    500 InternalError: why"],
        ),
    ],
)
def test_what_came_of_the_call_is_said_from_its_record(
    said: dict[str, Any], closing: dict[str, Any], code: Exit, lines: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    record = {"fault": None, "cause": None, "upstream_said": None, **said, "closing": {**RECORD, **closing}}
    assert check._told(cast("Record", SimpleNamespace(**record))) == code
    assert capsys.readouterr().out.splitlines() == lines


@pytest.mark.parametrize(
    ("words", "file", "asked"),
    [
        ((), "", "deepseek-v3"),
        (("--map", "deepseek-r1=their-r1"), "", "their-r1"),
        (("--map", "deepseek-r1=their-r1", "--model", "deepseek-v3"), "", "deepseek-v3"),
        ((), 'map = {deepseek-v3 = "theirs"}', "theirs"),
    ],
)
async def test_the_call_asks_for_a_model_that_the_upstream_has(
    words: tuple[str, ...], file: str, asked: str, simulator: StartSimulator, tmp_path: Path
) -> None:
    """The one that is named, one that is mapped, the commonest; whatever proxy the environment names."""
    upstream = await simulator(Script(dialect="vllm"))
    (path := tmp_path / "c.toml").write_text(
        f'[[pools]]\nname = "p"\nurls = ["{upstream.url}"]\ndialect = "vllm"\n{file}\n' if file else ""
    )
    flags = ("--config", str(path)) if file else ("--upstream", upstream.url, "--dialect", "vllm")
    env = {"DASHSCOPE_API_KEY": "sk-x", "http_proxy": "http://127.0.0.1:1", "no_proxy": ""}
    ended = await asyncio.to_thread(forks.dashseek, "check", "--online", *flags, *words, env=env)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    (call,) = upstream.calls
    assert (call.body["model"], call.headers["Authorization"]) == (asked, "Bearer sk-x")
    assert "\nasked     " in ended.stdout
