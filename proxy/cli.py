"""A command line, into one call of the room that does the work: serve, demo, translate, usage and the others.

A command is built, and what it needs is imported, once it is named: help comes at once, and `version` works where the
rest cannot.
"""

# ruff: noqa: PLC0415 - the imports inside functions are the point

from __future__ import annotations

import errno
import os
import platform
import socket
import sys
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, Field, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import click

from proxy import exits, fieldlines, installation, versions

if TYPE_CHECKING:
    from config import models, settings

SHELLS = ("bash", "zsh", "fish")
CONTEXT: Mapping[str, Any] = {"help_option_names": ["-h", "--help"], "max_content_width": 80}


Settled = TypeVar("Settled")


class WrongSetting(click.ClickException):
    """Something the operator can mend; told in a sentence on stderr, without a traceback."""

    exit_code = exits.Exit.CONFIGURATION


class PortInUse(click.ClickException):
    """The one failure to start that may mend itself, so it has a code of its own."""

    exit_code = exits.Exit.PORT_IN_USE


# What the system may say to an address we want to listen on; whatever else it says is no mistake of the operator.
LISTENING: Mapping[int | None, click.ClickException] = {
    errno.EADDRINUSE: PortInUse("the port is in use: stop who has it, or say another with --port"),
    errno.EACCES: WrongSetting("this user may not listen on that port: say one above 1023 with --port"),
    errno.EADDRNOTAVAIL: WrongSetting("this machine does not have that address: say another with --host"),
    socket.EAI_NONAME: WrongSetting("no address has that name: say another with --host"),
}

# How a switch of a kind is read, where its type alone would not do.
KINDS: Mapping[Any, click.ParamType[Any]] = {Path: click.Path(exists=True, dir_okay=False, path_type=Path)}

DASHSEEK = """A reverse proxy that speaks DashScope to its callers and OpenAI-style chat
completions to DeepSeek, with exact token usage on every packet.

\b
Examples:
  dashseek demo
      a real call through the proxy, with nothing to set up
  dashseek serve --upstream https://api.deepseek.com
      callers bring their DeepSeek key as DashScope's
  dashseek COMMAND --help
      all about one command
"""

SERVE = """Serve DashScope text generation before a DeepSeek upstream, until a signal.

\b
Examples:
  dashseek serve --upstream https://api.deepseek.com
  DASHSEEK_UPSTREAM_API_KEY=sk-... dashseek serve \\
      --upstream https://api.deepseek.com --idle-timeout 60
  dashseek serve --upstream http://gpu:8000/v1 --dialect vllm \\
      --map deepseek-v3=my-model --alias qwen-turbo=deepseek-v3
  dashseek serve --config dashseek.toml

Each setting is a flag, a variable (DASHSEEK_IDLE_TIMEOUT), a key of the file
(idle_timeout = 60), or its default; the first that is there counts.
"""

DEMO = """Start an upstream and the proxy before it, show one streamed call packet by
packet, then keep serving and print the lines to paste into a shell or an SDK.

\b
Examples:
  dashseek demo
  dashseek demo --once      exit code 0 only if the call was right
"""

SIMULATE = """Serve a DeepSeek-shaped upstream that answers by script, faults included, so
that a proxy can be tried without a key.

\b
Examples:
  dashseek simulate --port 8090
  dashseek serve --upstream http://127.0.0.1:8090
"""


TRANSLATE = """Read a DashScope call from standard input and show the upstream call it becomes,
with one line for every field: kept, renamed, clamped, dropped, emulated or added,
and why. Nothing is sent anywhere. Exit code 1 if the call would be refused.

\b
Examples:
  dashseek translate < call.json
  dashseek translate --dialect vllm --sse --json < call.json
  dashseek translate --answer --call call.json < recorded.sse
"""

USAGE = """Add up, check or watch usage journals, which serve writes with --journal-file.

\b
Examples:
  dashseek usage sum usage.jsonl usage.jsonl.*
  dashseek usage sum --by key --by day --csv usage.jsonl*
  dashseek usage verify usage.jsonl*
  dashseek usage tail usage.jsonl
"""

SUM = """Total the calls and tokens of usage journals, gzip'd ones too, by day, model, key
and outcome. Calls without an end are named: they are unknown, not lost.

\b
Examples:
  dashseek usage sum usage.jsonl*
  dashseek usage sum --by model --json usage.jsonl*
"""

VERIFY = """Check that usage journals are true: each call has one end, sums add up, what was
delivered was generated. Names each line that is wrong; exit code 1 if one is.

\b
Examples:
  dashseek usage verify usage.jsonl usage.jsonl.1 usage.jsonl.2.gz
"""

TAIL = """Show the last calls of a usage journal, one line each, then each call as it ends.

\b
Examples:
  dashseek usage tail usage.jsonl
  dashseek usage tail --lines 100 --no-follow usage.jsonl
"""

CHECK = """Judge settings as serve would, without serving: takes the same flags, variables
and file, and says what is wrong, where it was said, and what would be right.

\b
Examples:
  dashseek check --config dashseek.toml
  dashseek check --config dashseek.toml --print
      every setting, with where it was said; secrets are not shown
  DASHSCOPE_API_KEY=sk-... dashseek check --online \\
      --upstream https://api.deepseek.com
      one small call through all of it; a few tokens
"""

DOCTOR = """Examine this machine and what is around it, a line for each: Python, parser,
packages, vocabulary, open files, ports, journal, Redis, and of each upstream its
name, its connection and whether it takes the key. Costs no tokens.

\b
Examples:
  dashseek doctor --upstream https://api.deepseek.com
  dashseek doctor --config dashseek.toml
"""

COMPLETION = """Print what makes a shell complete commands and flags; bash needs 4.4 or newer.

\b
Examples:
  dashseek completion bash >> ~/.bash_completion
  dashseek completion zsh > "${fpath[1]}/_dashseek"
  dashseek completion fish > ~/.config/fish/completions/dashseek.fish
"""

KEYS = """Make entries for the file of --keys-file, which lists the callers' keys.

\b
Examples:
  dashseek keys digest --name "team a" < key.txt >> keys.toml
"""

DIGEST = """Read a caller's key from standard input, or ask for it, and print its entry for
the keys file: the SHA-256, from which nobody can get the key.

\b
Examples:
  dashseek keys digest --name "team a" < key.txt >> keys.toml
  openssl rand -hex 24 | tee key.txt | dashseek keys digest --name ci
"""


class Commands(click.Group):
    """A group over the table at the end of this file; only a command that is named gets built."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Names in the order of the table, which is the order a newcomer needs them in."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """The command, built."""
        entry = COMMANDS.get(cmd_name)
        return entry.build() if entry else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """The table, without building what is in it."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.summary) for name, entry in COMMANDS.items()])
        with formatter.section("Exit codes"):
            formatter.write_dl([(str(code.value), meaning) for code, meaning in exits.MEANINGS.items()])


class Sectioned(click.Command):
    """A command that takes the settings, shown in their sections instead of as one list of forty flags."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The sections of `config.settings`, then the flags that are no settings."""
        from config import settings

        records = {param.name: record for param in self.get_params(ctx) if (record := param.get_help_record(ctx))}
        for section, names in settings.SECTIONS.items():
            with formatter.section(section):
                formatter.write_dl([records.pop(name) if name in records else _variable_alone(name) for name in names])
        with formatter.section("Other"):
            formatter.write_dl(list(records.values()))


def _version(ctx: click.Context, _param: click.Parameter, asked: bool) -> None:
    if asked:
        click.echo(version())
        ctx.exit()


@click.command(cls=Commands, help=DASHSEEK, context_settings=CONTEXT)
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Say the version.")
def dashseek() -> None:
    """Run one of `COMMANDS`."""


def version() -> str:
    """One line: ours, Python's and aiohttp's version, which a bug report begins with."""
    return (
        f"{versions.DISTRIBUTION} {versions.of(versions.DISTRIBUTION)} "
        f"(Python {platform.python_version()}, aiohttp {versions.of('aiohttp')})"
    )


def _serve() -> click.Command:
    from config import settings

    def run(config: str | None, **flags: object) -> None:
        chosen, rows = _settle(flags, config)
        _inspect_the_house()
        from proxy import app

        _end_with(lambda: app.serve(chosen, rows))

    params: list[click.Parameter] = [*(_flag(name) for name in settings.FLAGS), _config()]
    return Sectioned("serve", callback=run, params=params, help=SERVE, context_settings=dict(CONTEXT))


def _config() -> click.Option:
    from config import settings

    return click.Option(["--config"], metavar="FILE", help=f"TOML file of settings. [{settings.CONFIG_VARIABLE}]")


def _flag(name: str) -> click.Option:
    """A flag of one setting. It hands on text: `settings.load` judges all of it at once."""
    from config import settings

    field = settings.Settings.model_fields[name]
    text = f"{field.description} [{'; '.join(filter(None, (settings.VARIABLES[name], _default(field.default))))}]"
    flag = settings.FLAGS[name]
    if field.annotation == (bool | None):
        return click.Option([name, f"{flag}/--no-{flag.removeprefix('--')}"], default=None, help=text)
    several = isinstance(field.default, tuple | dict)
    form = field.title or "|".join(get_args(field.annotation))
    return click.Option([name, flag], metavar=form, multiple=several, type=str, help=text)


def _default(value: object) -> str:
    match value:
        case None | () | {}:
            return ""
        case _ if hasattr(value, "human_readable"):
            return f"default {value.human_readable().replace('.0', '')}"
    return f"default {value}"


def _variable_alone(name: str) -> tuple[str, str]:
    from config import settings

    return settings.VARIABLES[name], settings.Settings.model_fields[name].description or ""


def _settle(flags: Mapping[str, object], config: str | None) -> tuple[settings.Settings, tuple[models.ModelRow, ...]]:
    from config import models, settings

    chosen = _settled(lambda: settings.load(flags, config, os.environ, needs=("upstream",)))
    return chosen, _settled(lambda: models.load(chosen))


def _settled(read: Callable[[], Settled]) -> Settled:
    from config import settings

    try:
        return read()
    except settings.SettingsError as error:
        raise WrongSetting("\n  ".join(["wrong settings", *error.lines])) from None


def _demo() -> click.Command:
    def run(once: bool, port: int) -> None:
        _inspect_the_house()
        from proxy import demo

        _end_with(lambda: demo.run(once=once, port=port))

    once = click.Option(["--once"], is_flag=True, help="End after the call.")
    return click.Command("demo", callback=run, params=[once, _port(8080)], help=DEMO, context_settings=dict(CONTEXT))


def _simulate() -> click.Command:
    from proxy import simulator

    def run(host: str, port: int, **switches: Any) -> None:
        _inspect_the_house()
        _end_with(lambda: simulator.run(simulator.Script(**switches), host, port))

    host = click.Option(
        ["--host"], metavar="HOST", default="127.0.0.1", show_default=True, help="Address to listen on."
    )
    params: list[click.Parameter] = [host, _port(8090), *switches_of(simulator.Script)]
    return click.Command("simulate", callback=run, params=params, help=SIMULATE, context_settings=dict(CONTEXT))


def _translate() -> click.Command:
    from config import settings

    def run(config: str | None, call: Any, *, model: str | None, answer: bool, sse: bool | None, **rest: object) -> int:
        from proxy import translate

        as_json = bool(rest.pop("as_json"))
        translator = translate.build(_settled(lambda: settings.load(rest, config, os.environ)))
        given = sys.stdin.buffer.read()
        if answer:
            asked = call.read() if call else None
            return translate.of_answer(given, asked, translator, stream=sse, model=model)
        return translate.of_call(given, translator, stream=bool(sse), model=model, as_json=as_json)

    params: list[click.Parameter] = [
        _flag("dialect"),
        click.Option(["--model"], metavar="NAME", help="Take this model instead of the call's."),
        click.Option(
            ["--sse/--no-sse"], default=None, help="Whether the call asks for SSE, which its headers would say."
        ),
        click.Option(["--json", "as_json"], is_flag=True, help="Print JSON, for scripts."),
        click.Option(["--answer"], is_flag=True, help="Read an upstream's answer instead: a stream or a JSON body."),
        click.Option(["--call"], type=click.File("rb"), help="With --answer: the DashScope call it answers."),
        *(_flag(name) for name in ("map", "aliases", "models_file", "strict_thinking")),
        _config(),
    ]
    return click.Command(
        "translate", callback=_exiting(run), params=params, help=TRANSLATE, context_settings=dict(CONTEXT)
    )


def _check() -> click.Command:
    from config import settings

    def run(config: str | None, *, show: bool, online: bool, model: str | None, **flags: object) -> int:
        chosen, rows = _settle(flags, config)
        from proxy import check

        if show:
            check.show(chosen)
            return exits.Exit.OK
        if online and check.needs_key(chosen, os.environ):
            raise WrongSetting(f"callers bring their own key here: say one in {check.KEY_VARIABLE} for the call")
        code = _settled(lambda: check.offline(chosen, rows))
        return _settled(lambda: check.online(chosen, rows, os.environ, model)) if online else code

    params: list[click.Parameter] = [
        *(_flag(name) for name in settings.FLAGS),
        _config(),
        click.Option(["--print", "show"], is_flag=True, help="Print every setting as a file, with where it was said."),
        click.Option(["--online"], is_flag=True, help="Make one small call through all of it."),
        click.Option(["--model"], metavar="NAME", help="With --online: ask for this model."),
    ]
    return Sectioned("check", callback=_exiting(run), params=params, help=CHECK, context_settings=dict(CONTEXT))


def _doctor() -> click.Command:
    from config import settings

    def run(config: str | None, **flags: object) -> int:
        from proxy import doctor

        return doctor.examine(lambda: settings.load(flags, config, os.environ, needs=("upstream",)), os.environ)

    params: list[click.Parameter] = [*(_flag(name) for name in settings.FLAGS), _config()]
    return Sectioned("doctor", callback=_exiting(run), params=params, help=DOCTOR, context_settings=dict(CONTEXT))


def _completion() -> click.Command:
    from click import shell_completion

    def run(shell: str) -> int:
        script = shell_completion.get_completion_class(shell)
        assert script is not None  # noqa: S101 - for the type checker: it is one of SHELLS
        click.echo(script(dashseek, {}, "dashseek", "_DASHSEEK_COMPLETE").source())
        return exits.Exit.OK

    return _command("completion", run, [click.Argument(["shell"], type=click.Choice(SHELLS))], COMPLETION)


def _usage() -> click.Command:
    from proxy import usage

    def total(files: tuple[Path, ...], by: tuple[str, ...], form: usage.Form) -> int:
        return usage.show_sum(files, by, form)

    def verify(files: tuple[Path, ...]) -> int:
        return usage.verify(files)

    def tail(file: Path, lines: int, follow: bool) -> int:
        return usage.tail(file, lines, follow=follow)

    files = click.Argument(["files"], metavar="FILE...", nargs=-1, required=True, type=KINDS[Path])
    by = click.Option(
        ["--by"], multiple=True, type=click.Choice(usage.DIMENSIONS), help="One table by this; may be repeated."
    )
    forms = [
        click.Option([f"--{form}", "form"], flag_value=form, default="table", help=f"Print {form.upper()}.")
        for form in ("json", "csv")
    ]
    lines = click.Option(
        ["-n", "--lines"], type=click.IntRange(0), default=10, show_default=True, help="Calls to begin with."
    )
    follow = click.Option(["--follow/--no-follow"], default=True, show_default=True, help="Go on with new calls.")
    return _group(
        "usage",
        USAGE,
        _command("sum", total, [files, by, *forms], SUM),
        _command("verify", verify, [files], VERIFY),
        _command("tail", tail, [click.Argument(["file"], type=KINDS[Path]), lines, follow], TAIL),
    )


def _keys() -> click.Command:
    def digest(name: str) -> int:
        from proxy import keys

        secret = click.prompt("Key", hide_input=True, err=True) if sys.stdin.isatty() else sys.stdin.read()
        try:
            click.echo(keys.entry(name, secret.strip()))
        except ValueError as error:
            raise WrongSetting(str(error)) from None
        return exits.Exit.OK

    name = click.Option(["--name"], metavar="NAME", required=True, help="Names the caller in logs and journals.")
    return _group("keys", KEYS, _command("digest", digest, [name], DIGEST))


def _group(name: str, text: str, *commands: click.Command) -> click.Group:
    return click.Group(name, commands, help=text, context_settings=dict(CONTEXT))


def _command(name: str, run: Callable[..., int], params: list[click.Parameter], text: str) -> click.Command:
    return click.Command(name, callback=_exiting(run), params=params, help=text, context_settings=dict(CONTEXT))


def _exiting(run: Callable[..., int]) -> Callable[..., None]:
    """A callback that ends the process with what `run` returns."""

    def callback(**params: object) -> None:
        click.get_current_context().exit(run(**params))

    return callback


def _port(default: int) -> click.Option:
    kind = click.IntRange(0, 65535)
    text = "Port to listen on; 0 picks a free one."
    return click.Option(["--port"], metavar="PORT", type=kind, default=default, show_default=True, help=text)


def switches_of(shape: type) -> Iterator[click.Option]:
    """A flag for each field of a dataclass, its help the field's line in the docstring: a new field is a new flag.

    A field's first type counts (`Path | bytes | None` is a file); `gap_s` is `--gap SECONDS`; tuples may be repeated.
    """
    kinds, words = get_type_hints(shape), fieldlines.of(shape)
    return (_switch(field, kinds[field.name], words.get(field.name)) for field in fields(shape))


def _switch(field: Field[Any], kind: Any, text: str | None) -> click.Option:
    default = field.default_factory() if field.default_factory is not MISSING else field.default
    flag = "--" + field.name.removesuffix("_s").replace("_", "-")
    if kind is bool:
        form = f"{flag}/--no-{flag.removeprefix('--')}" if default else flag
        return click.Option([field.name, form], is_flag=True, default=default, show_default=bool(default), help=text)
    if get_origin(kind) in {Union, types.UnionType}:
        kind = get_args(kind)[0]
    several = get_origin(kind) is tuple
    kind = get_args(kind)[0] if several else kind
    return click.Option(
        [field.name, flag],
        type=click.Choice(get_args(kind)) if get_origin(kind) is Literal else KINDS.get(kind, kind),
        metavar="SECONDS" if field.name.endswith("_s") else None,
        multiple=several,
        default=default,
        show_default=default not in (None, "", ()),
        help=text,
    )


def _version_command() -> click.Command:
    return click.Command(
        "version", callback=lambda: click.echo(version()), help="Say the version.", context_settings=dict(CONTEXT)
    )


def _inspect_the_house() -> None:
    """Refuse to run where the code that would run, or parse, is not the code that was tested."""
    for complaint in (installation.room_complaint(), installation.parser_complaint()):
        if complaint is not None:
            raise WrongSetting(complaint)


def _end_with(work: Callable[[], int]) -> None:
    from proxy import vocabulary

    try:
        code = _settled(work)
    except vocabulary.VocabularyError as error:
        raise WrongSetting(str(error)) from error
    except OSError as error:
        if error.errno in LISTENING:
            raise LISTENING[error.errno] from error
        raise
    click.get_current_context().exit(code)


@dataclass(frozen=True, slots=True)
class Entry:
    """One command: what the group's help says of it, and how it is made."""

    summary: str
    build: Callable[[], click.Command]


COMMANDS: Mapping[str, Entry] = {
    "serve": Entry("Serve DashScope before a DeepSeek upstream.", _serve),
    "demo": Entry("See one call go through, with nothing to set up.", _demo),
    "simulate": Entry("Be a DeepSeek-shaped upstream, faults on demand.", _simulate),
    "check": Entry("Judge settings as serve would; --online makes a call.", _check),
    "doctor": Entry("Examine this machine and the way to the upstream.", _doctor),
    "translate": Entry("See what would become of a call, offline.", _translate),
    "usage": Entry("Add up, check or watch usage journals.", _usage),
    "keys": Entry("Make entries for the file of callers' keys.", _keys),
    "completion": Entry("Print what makes a shell complete commands.", _completion),
    "version": Entry("Say the version.", _version_command),
}
