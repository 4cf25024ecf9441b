"""Claims about the command line: help that teaches, mistakes told in sentences, exit codes a script can read."""

from __future__ import annotations

import asyncio
import errno
import gc
import hashlib
import io
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib import import_module, metadata
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import click
import orjson
import pytest
from aiohttp import http_parser
from click.testing import CliRunner, Result

from config import settings
from proxy import __main__, vocabulary
from proxy.commands import cli, exit_codes, options
from proxy.inspector.call_file import NoCallFile
from proxy.server import signals
from tests.proxy.surroundings import distribution

ROOT = Path(cli.__file__).parents[2]
UPSTREAM = ("serve", "--upstream", "http://127.0.0.1:1")
GROUPS = [("usage", "sum"), ("usage", "verify"), ("usage", "tail"), ("keys", "digest")]
COMMANDS = [(), *((name,) for name in cli.COMMANDS), *GROUPS]


@dataclass(frozen=True)
class Script:
    """Two lines of summary,
    which are no fields.

    text:     what to say,
              and to say again
    gap_s:    between writes
    usage:    where usage comes
    tools:    calls to answer with
    replay:   a file to send
    cut:      break off
    done:     end with [DONE]
    """

    text: str | None = None
    gap_s: float = 0.5
    usage: Literal["finish", "own"] = "finish"
    tools: tuple[str, ...] = ()
    replay: Path | bytes | None = None
    cut: bool = False
    done: bool = True
    delays: tuple[int, ...] = field(default_factory=lambda: (1, 2))


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[tuple[Any, ...]]]:
    """Furnish `proxy.NAME` with a function that ends as told, and return the calls it gets."""

    def furnish(name: str, function: str, ending: int | Exception = 0) -> list[tuple[Any, ...]]:
        calls: list[tuple[Any, ...]] = []

        def work(*args: Any, **named: Any) -> int:
            calls.append((*args, *named.items()))
            if isinstance(ending, Exception):
                raise ending
            return ending

        wing, _, stem = name.rpartition(".")
        module = ModuleType(f"proxy.{name}")
        module.__dict__[function] = work
        monkeypatch.setattr("proxy.simulation.wire.Script", Script)
        monkeypatch.setitem(sys.modules, f"proxy.{name}", module)
        monkeypatch.setattr(import_module(f"proxy.{wing}"), stem, module, raising=False)
        return calls

    for variable in [name for name in os.environ if name.startswith(settings.PREFIX)]:
        monkeypatch.delenv(variable)
    return furnish


def run(*arguments: str, env: dict[str, str] | None = None) -> Result:
    # A wide terminal: what is to fit into 80 columns must do so by itself.
    return CliRunner().invoke(cli.dashseek, arguments, env={"COLUMNS": "200"} | (env or {}), prog_name="dashseek")


def process(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, env=os.environ | environ, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("words", ["version", "keys digest --name a", "completion bash"])
def test_what_cannot_be_shown_is_said_and_a_closed_output_is_none(words: str) -> None:
    """A full disk, and `>&-` of whoever wants to see nothing: no traceback at either end of the interpreter."""
    shell = f"echo key | {sys.executable} -m proxy {words}"
    full = subprocess.run(f"{shell} >/dev/full", shell=True, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (full.returncode, full.stderr) == (1, "Error: standard output: No space left on device\n")
    closed = subprocess.run(f"{shell} >&-", shell=True, cwd=ROOT, capture_output=True, text=True, check=False)
    assert "Traceback" not in closed.stderr


# Help


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_fits_eighty_columns_and_answers_to_both_spellings(
    command: tuple[str, ...], room: Callable[..., Any]
) -> None:
    room("simulation.simulator", "run")
    long, short = run(*command, "--help"), run(*command, "-h")
    assert long.exit_code == 0
    assert long.output == short.output
    assert max(map(len, long.output.splitlines())) <= 80


@pytest.mark.parametrize(
    "command", [(), *((name,) for name in cli.COMMANDS if name != "version"), *GROUPS], ids=" ".join
)
def test_help_teaches_with_examples(command: tuple[str, ...], room: Callable[..., Any]) -> None:
    room("simulation.simulator", "run")
    assert "Examples:\n  " in run(*command, "--help").output.replace("\n    ", "\n  ")


def test_help_of_serve_names_flag_variable_and_default_of_every_setting() -> None:
    shown = " ".join(run("serve", "--help").output.split())
    for name in settings.NAMES:
        assert settings.VARIABLES.get(name, f"[[{name}]]") in shown
        assert settings.FLAGS.get(name, "") in shown
    for section in settings.SECTIONS:
        assert f"{section}: " in shown
    assert "[DASHSEEK_IDLE_TIMEOUT; default 120]" in shown
    assert "[DASHSEEK_LOG_UPSTREAM_TEXT; default yes]" in shown
    assert "DASHSEEK_UPSTREAM_API_KEY Upstream key. Not a flag" in shown
    # What a flag takes: a kind, or one of some words.
    for typed in (
        "--idle-timeout SECONDS ",
        "--loop auto|asyncio|uvloop ",
        "--strict-thinking / --no-strict-thinking ",
    ):
        assert typed in shown
    assert shown.endswith(
        "Other: --config FILE TOML file of settings. [DASHSEEK_CONFIG] -h, --help Show this message and exit."
    )
    assert "[DASHSEEK_MAX_BODY_BYTES; default 12MiB]" in shown


def test_help_needs_none_of_the_rooms() -> None:
    """What is asked for most comes at once: neither pydantic nor aiohttp is imported for it."""
    lines = "import sys; from proxy.commands import cli; cli.dashseek(['-h'], standalone_mode=False); "
    ended = process("-c", lines + "print({'pydantic', 'aiohttp', 'structlog'} & sys.modules.keys())")
    assert ended.stdout.splitlines()[-1] == "set()"


def test_the_module_is_the_same_program() -> None:
    """`python -m proxy` does the same."""
    assert process("-m", "proxy", "--help").stdout == run("--help").output
    assert process("-m", "proxy", "--version").stdout == run("version").output


Ending = type[BaseException] | BaseException


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Run `main` with some words and an ending of the command line; what was done until then, in order."""

    def begin(*words: str, ending: Ending | None = None) -> list[str]:
        done: list[str] = []

        def command_line(*, prog_name: str) -> None:
            done.append(prog_name)
            if ending is not None:
                raise ending

        monkeypatch.setattr(sys, "argv", ["dashseek", *words])
        monkeypatch.setattr(signals, "prepare", lambda: done.append("signals"))
        monkeypatch.setattr(cli, "dashseek", command_line)
        monkeypatch.setattr(gc, "set_threshold", lambda _: None)
        __main__.main()
        return done

    return begin


def test_signals_are_prepared_before_serve_and_no_other_command(begun: Callable[..., list[str]]) -> None:
    assert begun("serve", "--port", "0") == begun("serve") == ["signals", "dashseek"]
    for words in ((), ("check", "serve"), ("--help",), ("version",)):
        assert begun(*words) == ["dashseek"]


def wrapped(cause: BaseException | None) -> RuntimeError:
    """As Python 3.11 wraps what is raised while a class is made."""
    error = RuntimeError("Error calling __set_name__")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("ending", "left"),
    [
        (SystemExit(4), SystemExit),
        (wrapped(SystemExit(5)), SystemExit),
        (wrapped(ValueError()), RuntimeError),
        (wrapped(None), RuntimeError),
        (ModuleNotFoundError("no name"), ModuleNotFoundError),
        (ModuleNotFoundError("ours", name="proxy.nowhere"), ModuleNotFoundError),
        (ModuleNotFoundError("theirs", name="aiohttp.nowhere"), ModuleNotFoundError),
    ],
)
def test_what_ends_the_command_line_ends_the_process(
    ending: BaseException, left: Ending, begun: Callable[..., list[str]]
) -> None:
    with pytest.raises(BaseException) as ended:  # noqa: PT011 - which is what is claimed
        begun("check", ending=ending)
    assert ended.type is left
    assert ended.value in (ending, ending.__cause__)
    if isinstance(ended.value, SystemExit):
        assert ended.value.code in (4, 5)


def test_a_package_that_is_missing_is_named(
    begun: Callable[..., list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        begun("check", ending=ModuleNotFoundError("no", name="nowhere_at_all.deep.er"))
    assert ended.value.code == 2
    told = capsys.readouterr().err
    assert told.startswith(f"Error: dashseek needs the package nowhere_at_all, which {sys.executable} does not have: ")


def test_the_version_names_what_a_bug_report_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "version", lambda name: {"dashseek": "1.2.3", "aiohttp": "4.5.6"}[name])
    assert run("--version").output.startswith("dashseek 1.2.3 (Python 3.")
    assert run("version").output == run("--version").output


def test_a_checkout_that_is_not_installed_has_no_version_to_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", unknown)
    assert "dashseek not installed" in run("version").output


def test_a_shell_can_complete_commands_and_flags() -> None:
    for words, completed in {
        "dashseek se": "plain,serve",
        "dashseek serve --idle": "plain,--idle-timeout",
        "dashseek serve --dialect vl": "plain,vllm",
    }.items():
        ended = process(
            *("-m", "proxy"),
            _DASHSEEK_COMPLETE="bash_complete",
            COMP_WORDS=words,
            COMP_CWORD=str(len(words.split()) - 1),
        )
        assert ended.stdout == f"{completed}\n"


def switches() -> Iterator[str]:
    """A line for all that may be typed behind each command, but settings, which the handbook and its tests name."""

    def of(command: click.Command, *before: str) -> Iterator[str]:
        path = (*before, str(command.name))
        for one in command.commands.values() if isinstance(command, click.Group) else ():
            yield from of(one, *path)
        for param in command.params:
            is_setting = param.name in settings.FLAGS and getattr(param, "help", "") == options.flag(param.name).help
            if not is_setting:
                yield f"{' '.join(path)}: {', '.join(facts(param))}"

    for entry in cli.COMMANDS.values():
        yield from of(entry.build())


def facts(param: click.Parameter) -> Iterator[str]:
    """How a switch is typed, what it takes, and what holds where it is not typed."""
    yield f"{'/'.join([*param.opts, *param.secondary_opts])} {param.metavar or ''}".strip()
    yield from (name for name, holds in {"required": param.required, "repeatable": param.multiple}.items() if holds)
    if param.nargs != 1:
        yield "several"
    match param.type:
        case click.Choice(choices=choices):
            yield f"one of {' '.join(map(str, choices))}"
        case click.IntRange(min=least, max=most) | click.FloatRange(min=least, max=most):
            yield f"{'more than ' if param.type.min_open else ''}{least} to {most}"
        case click.Path(exists=exists, dir_okay=may_be_directory, writable=writable):
            yield "a path" if may_be_directory else "a file"
            yield from (name for name, holds in {"that is there": exists, "to write": writable}.items() if holds)
        case kind:
            yield kind.name
    if param.default not in (None, False, "", ()) and str(param.default) != "Sentinel.UNSET":
        yield f"else {param.default}"
    if isinstance(param, click.Option) and param.show_default:
        yield "which help says"


def test_what_may_be_typed_is_what_scripts_know() -> None:
    """Names, kinds and defaults of all switches: an upgrade must not change what a script has typed."""
    known = Path(__file__).with_name("switches.txt").read_text("utf-8").splitlines()
    assert [*switches()] == known


# serve


def test_serve_hands_on_settings_and_models_and_ends_with_the_code_of_the_work(room: Callable[..., Any]) -> None:
    calls = room("server.process", "serve", exit_codes.Exit.UPSTREAM_REFUSED)
    ended = run(*UPSTREAM, "--upstream", "http://b", "--map", "x=y", "--no-strict-thinking", "--idle-timeout", "7")
    assert ended.exit_code == 4
    ((source,),) = calls
    chosen, rows, _ = source.now
    assert source.config_file is None
    assert (chosen.upstream, chosen.map) == (("http://127.0.0.1:1", "http://b"), {"x": "y"})
    assert (chosen.strict_thinking, chosen.idle_timeout) == (False, 7)
    assert "x" in {row["id"] for row in rows}


def test_flags_beat_variables_beat_the_file(room: Callable[..., Any], tmp_path: Path) -> None:
    calls = room("server.process", "serve")
    file = tmp_path / "dashseek.toml"
    file.write_text("port = 1\nhead_hold = 1\nheartbeat = 1\n")
    environ = {"DASHSEEK_PORT": "2", "DASHSEEK_HEAD_HOLD": "2"}
    assert run(*UPSTREAM, "--config", str(file), "--port", "3", env=environ).exit_code == 0
    ((source,),) = calls
    chosen = source.now.settings
    assert (chosen.port, chosen.head_hold, chosen.heartbeat) == (3, 2, 1)
    assert source.config_file == str(file)
    file.write_text("port = 9\nhead_hold = 9\nheartbeat = 9\n")
    following = source.judged()
    assert (following.settings.port, following.settings.head_hold, following.settings.heartbeat) == (3, 9, 9)


def test_wrong_settings_are_lines_on_stderr_and_code_2(room: Callable[..., Any]) -> None:
    calls = room("server.process", "serve")
    key = "sk-canary-0123456789"
    environ = {"DASHSEEK_UPSTREAM_API_KEY": key, "DASHSEEK_HEARTBEET": "1"}
    ended = run("serve", "--idle-timeout", "soon", "--host", "0.0.0.0", env=environ)
    assert (ended.exit_code, ended.stdout, calls) == (2, "", [])
    assert ended.stderr.startswith("Error: wrong settings\n  ")
    for told in ("upstream: is missing", "idle_timeout (--idle-timeout)", "host (--host)", "did you mean heartbeat?"):
        assert told in ended.stderr
    assert key not in ended.output
    assert "Traceback" not in ended.output


def test_rows_that_cannot_be_are_wrong_settings_too(room: Callable[..., Any]) -> None:
    room("server.process", "serve")
    ended = run(*UPSTREAM, "--alias", "a=b")
    assert (ended.exit_code, ended.stderr) == (
        2,
        "Error: wrong settings\n  aliases.a (--alias): stands for a model that is not known\n",
    )


def test_a_setting_found_wrong_only_when_it_is_used_is_told_like_the_others(room: Callable[..., Any]) -> None:
    room("server.process", "serve", settings.SettingsError(["journal_file (--journal-file): cannot be written"]))
    ended = run(*UPSTREAM)
    assert (ended.exit_code, ended.stderr) == (
        2,
        "Error: wrong settings\n  journal_file (--journal-file): cannot be written\n",
    )


def test_an_unknown_flag_is_code_2_with_a_suggestion() -> None:
    ended = run("serve", "--idel-timeout", "3")
    assert ended.exit_code == 2
    assert "--idle-timeout" in ended.stderr


@pytest.mark.parametrize(("typed", "guess"), [("serv", " Did you mean serve?"), ("frobnicate", "")])
def test_an_unknown_command_is_code_2(typed: str, guess: str) -> None:
    ended = run(typed)
    assert ended.exit_code == 2
    assert ended.stderr.endswith(f"\nError: No such command '{typed}'.{guess}\n")


def test_serve_does_not_begin_where_the_books_cannot_be_kept(room: Callable[..., Any], tmp_path: Path) -> None:
    calls = room("server.process", "serve")
    os.mkfifo(pipe := tmp_path / "pipe")
    ended = run(*UPSTREAM, "--journal-file", str(pipe))
    assert (ended.exit_code, calls) == (2, [])
    assert "journal_file (--journal-file): is no file but a pipe" in ended.stderr


def test_a_key_is_never_a_flag() -> None:
    """A flag is in every list of processes."""
    assert run(*UPSTREAM, "--upstream-api-key", "x").exit_code == 2


# Listening


def test_a_taken_port_is_code_3_and_a_sentence(room: Callable[..., Any]) -> None:
    """The error is the one a real server raises."""

    async def listen(port: int) -> None:
        await asyncio.get_running_loop().create_server(asyncio.Protocol, "127.0.0.1", port)

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match="in use") as refused:
            asyncio.run(listen(port))
    room("server.process", "serve", refused.value)
    ended = run(*UPSTREAM)
    assert (ended.exit_code, ended.stderr) == (
        3,
        f"Error: port {port} of 127.0.0.1 is in use: stop who has it, or say another with --port\n",
    )


NOT_HAD = {
    errno.EADDRINUSE: (3, "{} is in use: stop who has it, or say another with {}port"),
    errno.EACCES: (2, "this user may not listen on {}: say one above 1023 with {}port"),
    errno.EADDRNOTAVAIL: (2, "this machine does not have the address of {}: say another with {}host"),
    socket.EAI_NONAME: (2, "no address has the name of {}: say another with {}host"),
}


@pytest.mark.parametrize("number", NOT_HAD)
@pytest.mark.parametrize("command", ["serve", "demo"])
def test_an_address_that_is_not_to_be_had_is_named_with_its_flag(
    room: Callable[..., Any], number: int, command: str
) -> None:
    """As asyncio says it; the admin port is serve's, and demo has no flag for its own."""
    words = UPSTREAM if command == "serve" else ("demo",)
    where = {
        "no": ("that port", "--"),
        "on address ('10.9.8.7', 8080): no": ("port 8080 of 10.9.8.7", "--"),
        "on address ('::1', 8081, 0, 0): no": (
            ("the admin port, 8081 of ::1,", "--admin-") if command == "serve" else ("port 8081 of ::1", "--")
        ),
    }
    code, sentence = NOT_HAD[number]
    for said, named in where.items():
        room(
            {"serve": "server.process", "demo": "commands.demo"}[command],
            words[0].replace("demo", "run"),
            OSError(number, said),
        )
        ended = run(*words)
        assert (ended.exit_code, ended.stderr) == (code, f"Error: {sentence.format(*named)}\n")


def test_a_missing_vocabulary_is_told_with_the_command_that_mends_it(room: Callable[..., Any]) -> None:
    """USE-6: nothing is downloaded, so somebody has to install it."""
    room("server.process", "serve", vocabulary.VocabularyError("it is gone"))
    ended = run(*UPSTREAM)
    assert (ended.exit_code, "it is gone. Mend it with: " in ended.stderr) == (2, True)


def test_any_other_failure_keeps_its_traceback(room: Callable[..., Any]) -> None:
    bug = OSError(errno.EIO, "a bug")
    room("server.process", "serve", bug)
    assert run(*UPSTREAM).exception is bug


# The house


@pytest.mark.parametrize("command", [UPSTREAM, ("demo",), ("simulate",)], ids=lambda command: command[0])
def test_no_command_runs_where_another_distribution_claims_a_room(
    command: tuple[str, ...], room: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """design.md 2: `proxy`, `translators` and `config` are names that others install as well."""
    calls = [room("server.process", "serve"), room("commands.demo", "run"), room("simulation.simulator", "run")]
    distribution(tmp_path, "proxy.py", RECORD="proxy.py,,\nproxy/__init__.py,sha256=x,7\n")
    monkeypatch.syspath_prepend(tmp_path)
    ended = run(*command)
    assert (ended.exit_code, calls) == (2, [[], [], []])
    assert "a package of ours is also installed by proxy.py (proxy): give dashseek an environment" in ended.stderr


def test_no_command_runs_on_the_slow_parser(room: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """SOURCES#http-parsers: it reads malformed calls differently."""
    room("commands.demo", "run")
    monkeypatch.setattr(http_parser, "HttpRequestParser", http_parser.HttpRequestParserPy)
    ended = run("demo")
    assert (ended.exit_code, "without its C parser" in ended.stderr) == (2, True)


def test_the_slow_parser_is_noticed_in_a_real_process() -> None:
    ended = process("-m", "proxy", *UPSTREAM, AIOHTTP_NO_EXTENSIONS="1")
    assert (ended.returncode, "without its C parser" in ended.stderr) == (2, True)


# demo and simulate


def test_demo_hands_on_its_two_switches(room: Callable[..., Any]) -> None:
    calls = room("commands.demo", "run", 1)
    assert run("demo", "--once", "--port", "0").exit_code == 1
    assert calls == [(("once", True), ("port", 0))]


def test_simulate_without_switches_is_the_default_script(room: Callable[..., Any]) -> None:
    calls = room("simulation.simulator", "run")
    assert run("simulate").exit_code == 0
    assert calls == [(Script(), "127.0.0.1", 8090)]


def test_the_help_of_simulate_says_each_default_that_is_one() -> None:
    said = " ".join(run("simulate", "--help").output.split())
    assert {"[default: finish]", "[default: 1048576]", "[default: 200]", "[default: deepseek]"} <= {
        *re.findall(r"\[default: [^\]]*\]", said)
    }
    assert not re.search(r"\[default: (None|\(\)|\"\"|)\]", said)


def test_simulate_has_a_switch_for_each_field_of_the_script(room: Callable[..., Any], tmp_path: Path) -> None:
    calls = room("simulation.simulator", "run")
    file = tmp_path / "body.sse"
    file.write_text("")
    ended = run(
        *("simulate", "--text", "hi", "--gap", "0.25", "--usage", "own", "--tools", "a {}", "--tools", "b {}"),
        *("--replay", str(file), "--cut", "--no-done", "--delays", "7", "--host", "::1", "--port", "0"),
    )
    assert ended.exit_code == 0, ended.output
    script = Script("hi", 0.25, "own", ("a {}", "b {}"), file, cut=True, done=False, delays=(7,))
    assert calls == [(script, "::1", 0)]


def test_the_help_of_a_switch_is_the_line_of_its_field() -> None:
    helps = {switch.name: switch.help for switch in options.of(Script)}
    assert helps["text"] == "what to say, and to say again"
    assert helps["done"] == "end with [DONE]"
    assert helps["delays"] is None
    assert {type(switch.type) for switch in options.of(Script)} >= {click.Choice, click.Path}


@pytest.mark.parametrize("wrong", [("--usage", "there"), ("--replay", "/nowhere"), ("--gap", "soon")], ids=" ".join)
def test_a_switch_of_another_kind_is_code_2(wrong: tuple[str, str], room: Callable[..., Any]) -> None:
    room("simulation.simulator", "run")
    assert run("simulate", *wrong).exit_code == 2


def test_what_cannot_be_played_again_is_a_sentence(room: Callable[..., Any]) -> None:
    room("simulation.simulator", "run", NoCallFile("that call never went upstream"))
    ended = run("simulate")
    assert (ended.exit_code, ended.stderr) == (2, "Error: --replay: that call never went upstream\n")


# translate


def test_who_is_waited_for_on_a_terminal_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    call = b'{"model": "deepseek-v3", "input": {"prompt": "hi"}}'

    class Terminal(io.TextIOWrapper):
        def isatty(self) -> bool:
            return True

    with monkeypatch.context() as patched, CliRunner().isolation() as (out, err, _):
        patched.setattr(sys, "stdin", Terminal(io.BytesIO(call)))
        assert cli.dashseek(["translate", "--json"], standalone_mode=False) == 0
        told, shown = err.getvalue(), orjson.loads(out.getvalue())
    assert told.startswith(b"reading JSON from this terminal; Ctrl-D")
    assert shown["body"]["messages"]


# calls


def test_what_calls_cannot_do_is_a_sentence_and_code_1(tmp_path: Path) -> None:
    (file := tmp_path / "call.json").write_text("{}")
    there = ("--admin", "http://127.0.0.1:1")
    nobody = "nobody answers at http://127.0.0.1:1: say --admin URL, the admin port of serve --inspect"
    for words, told in {
        ("calls", "list", *there): nobody,
        ("calls", "export", "1", *there): nobody,
        ("calls", "replay", str(file), "--to", "http://127.0.0.1:1"): "not a call as `calls export` writes it",
    }.items():
        ended = run(*words)
        assert (ended.exit_code, ended.stderr) == (1, f"Error: {told}\n")


# Books


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError(errno.EIO, "Input/output error", "calls.jsonl"), "calls.jsonl: Input/output error"),
        (OSError(errno.EIO, "Input/output error"), "Input/output error"),
        (OSError("odd"), "odd"),
    ],
)
def test_a_file_that_cannot_be_read_is_told_as_far_as_it_is_known(
    error: OSError, told: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise error

    (path := tmp_path / "calls.jsonl").touch()
    monkeypatch.setattr(Path, "open", refuse)
    ended = run("usage", "sum", str(path))
    assert (ended.exit_code, ended.stderr) == (1, f"Error: {told}\n")


# keys


@pytest.mark.parametrize("given", ["sk-caller-1\n", "sk-caller-1"])
def test_a_key_from_standard_input_becomes_an_entry_without_the_key(given: str) -> None:
    """KEY-1; the digest is that of `printf sk-caller-1 | sha256sum`."""
    ended = CliRunner().invoke(cli.dashseek, ["keys", "digest", "--name", "team a"], input=given)
    digest = hashlib.sha256(b"sk-caller-1").hexdigest()
    assert (ended.exit_code, ended.stdout) == (0, f'\n[[key]]\nname = "team a"\nsha256 = "{digest}"\n')


@pytest.mark.parametrize("name", ["team\na", "team\x7f", "team\u2028a"])
def test_a_name_that_is_no_line_of_text_gets_no_entry(name: str) -> None:
    ended = CliRunner().invoke(cli.dashseek, ["keys", "digest", "--name", name], input="sk-caller-1")
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert "a name is one line of text" in ended.stderr


def test_a_key_that_is_none_is_code_2() -> None:
    ended = CliRunner().invoke(cli.dashseek, ["keys", "digest", "--name", "team a"], input="two words")
    assert (ended.exit_code, ended.stderr) == (2, "Error: a key is printable ASCII without spaces, on one line\n")


def test_a_key_is_asked_for_without_an_echo_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []

    def prompt(*_: Any, **how: Any) -> str:
        asked.append(how)
        return "sk-caller-1"

    with monkeypatch.context() as patched:
        patched.setattr(sys, "stdin", type("Terminal", (), {"isatty": lambda _: True})())
        patched.setattr(click, "prompt", prompt)
        cli.dashseek(["keys", "digest", "--name", "a"], standalone_mode=False)
    assert asked == [{"hide_input": True, "err": True}]


# pools

ENGINES = (
    '[[pools]]\nname = "engines"\nurls = ["http://127.0.0.1:1/v1"]\ndialect = "vllm"\nmap = {deepseek-v3 = "ds3"}\n'
)
OFFICIAL = (
    '[[pools]]\nname = "official"\nurls = ["https://api.deepseek.com"]\npriority = 1\napi_key_env = "OFFICIAL_KEY"\n'
)


def test_check_says_what_a_reload_would_change_and_what_stays(tmp_path: Path) -> None:
    now, then = tmp_path / "now.toml", tmp_path / "then.toml"
    now.write_text(ENGINES)
    then.write_text("port = 9\nidle_timeout = 7\n" + ENGINES)
    told = run("check", "--config", str(now), "--against", str(then))
    assert told.exit_code == 0
    assert told.output.splitlines() == [
        "needs a restart  port: 8080 -> 9",
        "at reload        idle_timeout: 120 -> 7",
        "needs a restart  admin_port: 8081 -> 10",
    ]
    assert run("check", "--config", str(now), "--against", str(now)).output == "a reload would change nothing\n"
    then.write_text("idle_timeout = -1\n" + ENGINES)
    assert run("check", "--config", str(now), "--against", str(then)).exit_code == exit_codes.Exit.CONFIGURATION


def test_check_says_who_is_asked_and_whose_key_goes_where(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text(ENGINES + OFFICIAL)
    told = run("check", "--config", str(file), env={"OFFICIAL_KEY": "sk-official"})
    assert told.exit_code == 0, told.output
    assert "upstream  engines: http://127.0.0.1:1/v1, dialect vllm, priority 0, for every model\n" in told.output
    assert "pays      our own key of official; nobody: no key goes to engines\n" in told.output
    assert "sk-official" not in told.output


def test_translate_writes_a_call_for_the_pool_that_is_named(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text(ENGINES + OFFICIAL)
    call = '{"model": "deepseek-v3", "input": {"prompt": "hi"}}'

    def told(*words: str, file: Path = file) -> str:
        said = ["translate", "--config", str(file), *words]
        return str(CliRunner().invoke(cli.dashseek, said, input=call, env={"OFFICIAL_KEY": "sk-a"}).output)

    def asked(*words: str) -> tuple[str, str]:
        shown = orjson.loads(told("--json", *words))
        return shown["pool"], shown["body"]["model"]

    assert asked() == asked("--pool", "engines") == ("engines", "ds3")
    assert asked("--pool", "official") == ("official", "deepseek-flash")
    assert told().startswith("POST /chat/completions of pool engines   (")
    assert "no pool nope: there are engines, official\n" in told("--pool", "nope")
    assert "no pool offical: there are engines, official; did you mean official?" in told("--pool", "offical")
    file.write_text(ENGINES + "priority = 1\n" + OFFICIAL.replace("priority = 1\n", ""))
    assert asked() == ("official", "deepseek-flash")
    file.write_text(ENGINES.replace('map = {deepseek-v3 = "ds3"}', "models = 'deepseek-r1'") + OFFICIAL)
    assert asked() == ("official", "deepseek-flash")
    assert "pool engines does not serve deepseek-v3" in told("--pool", "engines")
    (alone := tmp_path / "alone.toml").write_text('upstream = "http://127.0.0.1:1"\n')
    assert "POST /chat/completions   (" in told(file=alone)
    assert "there is no pool engines: the configuration has none" in told("--pool", "engines", file=alone)
