"""A command line, into one call of the module that does the work: serve, demo, translate, usage and the others.

A command is built, and what it needs is imported, once it is named: help comes at once, and `version` works where the
rest cannot.
"""

# ruff: noqa: PLC0415 - the imports inside functions are the point

from __future__ import annotations

import contextlib
import difflib
import errno
import os
import platform
import re
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from proxy.commands import exit_codes, help_texts, options, texts
from proxy.commands.exit_codes import Exit
from proxy.commands.options import Sectioned
from proxy.commands.texts import Command, Group
from proxy.telemetry import installed

if TYPE_CHECKING:
    from config.models import ModelRow
    from config.settings import Settings

SHELLS = ("bash", "zsh", "fish")
CONTEXT: Mapping[str, Any] = {"help_option_names": ["-h", "--help"], "max_content_width": 80}


Settled = TypeVar("Settled")


class WrongSetting(click.ClickException):
    """Something the operator can mend; told in a sentence on stderr, without a traceback."""

    exit_code = Exit.CONFIGURATION


class PortInUse(click.ClickException):
    """The one failure to start that may mend itself, so it has a code of its own."""

    exit_code = Exit.PORT_IN_USE


# What the system may say to an address we want to listen on, and what mends it, by host flag and port flag; whatever
# else it says is no mistake of the operator.
LISTENING: Mapping[int | None, tuple[type[click.ClickException], str]] = {
    errno.EADDRINUSE: (PortInUse, "{where} is in use: stop who has it, or say another with {port}"),
    errno.EACCES: (WrongSetting, "this user may not listen on {where}: say one above 1023 with {port}"),
    errno.EADDRNOTAVAIL: (WrongSetting, "this machine does not have the address of {where}: say another with {host}"),
    socket.EAI_NONAME: (WrongSetting, "no address has the name of {where}: say another with {host}"),
}
ADDRESS = re.compile(r"\('([^']*)', (\d+)")


class Commands(Group):
    """A group over the table at the end of this file; only a command that is named gets built."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Names in the order of the table, which is the order a newcomer needs them in."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """The command, built; `WrongSetting` where the code it needs is not ours."""
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return None
        if cmd_name != "version" and (complaint := installed.shadow_complaint()) is not None:
            raise WrongSetting(complaint)
        return entry.build()

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """What is typed, with a guess where it is no command."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            for close in difflib.get_close_matches(args[0], [*COMMANDS]):
                raise click.UsageError(f"{error.message} Did you mean {close}?", ctx) from None
            raise

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """The table, without building what is in it."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.summary) for name, entry in COMMANDS.items()])
        with formatter.section("Exit codes"):
            formatter.write_dl([(str(code.value), meaning) for code, meaning in exit_codes.MEANINGS.items()])


def _version(ctx: click.Context, _param: click.Parameter, asked: bool) -> None:
    if asked:
        click.echo(version())
        ctx.exit()


@click.command(cls=Commands, help=help_texts.DASHSEEK, context_settings=CONTEXT)
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Say the version.")
def dashseek() -> None:
    """Run one of `COMMANDS`."""


def version() -> str:
    """One line: ours, Python's and aiohttp's version, which a bug report begins with."""
    return (
        f"{installed.DISTRIBUTION} {installed.version_of(installed.DISTRIBUTION)} "
        f"(Python {platform.python_version()}, aiohttp {installed.version_of('aiohttp')})"
    )


def _serve() -> click.Command:
    from config import settings

    def run(config: str | None, **flags: object) -> None:
        chosen, rows = _settle(flags, config)
        _load_vocabulary()
        _inspect_installation()
        from proxy.commands import check, files
        from proxy.server import process
        from proxy.server.reloading import Snapshot, Source

        if wrong := files.complaints(chosen):
            raise _wrong(wrong)
        config_file = config or os.environ.get(settings.CONFIG_VARIABLE) or None
        source = Source(lambda: check.read(flags, config, os.environ), config_file, Snapshot(chosen, rows))
        _end_with(lambda: process.serve(source), chosen)

    params: list[click.Parameter] = [*(options.flag(name) for name in settings.FLAGS), options.config()]
    return Sectioned("serve", callback=run, params=params, help=help_texts.SERVE, context_settings=dict(CONTEXT))


def _load_vocabulary() -> None:
    """Load what serving needs before the rest is imported, which then takes the room that loading leaves: 6 MiB."""
    from proxy import vocabulary

    with contextlib.suppress(vocabulary.VocabularyError):  # raised again, and told, where it is needed
        vocabulary.load()


def _settle(flags: Mapping[str, object], config: str | None) -> tuple[Settings, tuple[ModelRow, ...]]:
    from config import models, sources

    chosen = _settled(lambda: sources.load(flags, config, os.environ, needs=("upstream",)))
    return chosen, _settled(lambda: models.load(chosen))


def _settled(read: Callable[[], Settled]) -> Settled:
    from config.settings import SettingsError

    try:
        return read()
    except SettingsError as error:
        raise _wrong(error.lines) from None


def _wrong(lines: Sequence[str]) -> WrongSetting:
    return WrongSetting("\n  ".join(map(texts.of, ["wrong settings", *lines])))


def _demo() -> click.Command:
    def run(once: bool, port: int) -> None:
        _inspect_installation()
        from proxy.commands import demo

        _end_with(lambda: demo.run(once=once, port=port))

    once = click.Option(["--once"], is_flag=True, help="End after the call.")
    return Command(
        "demo", callback=run, params=[once, options.port(8080)], help=help_texts.DEMO, context_settings=dict(CONTEXT)
    )


def _simulate() -> click.Command:
    from proxy.inspector.call_file import NoCallFile
    from proxy.simulation import simulator
    from proxy.simulation.wire import Script

    def run(host: str, port: int, **switches: Any) -> None:
        _inspect_installation()
        try:
            _end_with(lambda: simulator.run(Script(**switches), host, port))
        except NoCallFile as error:
            raise WrongSetting(f"--replay: {error}") from None

    host = click.Option(
        ["--host"], metavar="HOST", default="127.0.0.1", show_default=True, help="Address to listen on."
    )
    params: list[click.Parameter] = [host, options.port(8090), *options.of(Script)]
    return Command("simulate", callback=run, params=params, help=help_texts.SIMULATE, context_settings=dict(CONTEXT))


def _translate() -> click.Command:

    def run(config: str | None, call: Any, *, model: str | None, answer: bool, sse: bool | None, **rest: Any) -> int:
        from config import sources
        from proxy.admin import translation
        from proxy.commands import translate

        as_json, api, pool = bool(rest.pop("as_json")), str(rest.pop("api")), rest.pop("pool")
        translator = _settled(lambda: translation.build(sources.load(rest, config, os.environ), api, pool))
        if sys.stdin.isatty():
            texts.echo("reading JSON from this terminal; Ctrl-D on a line of its own ends it", err=True)
        given = sys.stdin.buffer.read()
        if answer:
            asked = call.read() if call else None
            return translate.of_answer(given, asked, translator, stream=sse, model=model)
        return translate.of_call(given, translator, stream=bool(sse), model=model, as_json=as_json)

    params: list[click.Parameter] = [
        options.flag("dialect"),
        click.Option(
            ["--pool"], metavar="NAME", help="Write it for this pool of the file. [the first that serves the model]"
        ),
        click.Option(
            ["--api"],
            type=click.Choice(["dashscope", "openai"]),
            default="dashscope",
            show_default=True,
            help="The protocol of the call: DashScope's own, or that of its compatible surface.",
        ),
        click.Option(["--model"], metavar="NAME", help="Take this model instead of the call's."),
        click.Option(
            ["--sse/--no-sse"], default=None, help="Whether the call asks for SSE, which its headers would say."
        ),
        click.Option(["--json", "as_json"], is_flag=True, help="Print JSON, for scripts."),
        click.Option(["--answer"], is_flag=True, help="Read an upstream's answer instead: a stream or a JSON body."),
        click.Option(["--call"], type=click.File("rb"), help="With --answer: the call it answers."),
        *(options.flag(name) for name in ("map", "aliases", "models_file", "strict_thinking", "think_in_content")),
        options.config(),
    ]
    return Command(
        "translate", callback=_exiting(run), params=params, help=help_texts.TRANSLATE, context_settings=dict(CONTEXT)
    )


def _check() -> click.Command:
    from config import settings

    def run(
        config: str | None, *, show: bool, online: bool, model: str | None, against: str | None, **flags: object
    ) -> int:
        chosen, rows = _settle(flags, config)
        from proxy.commands import check

        if against is not None:
            then, rows_then = _settled(lambda: check.read(flags, against, os.environ))
            return _settled(lambda: check.against(chosen, rows, then, rows_then))
        if show:
            check.show(chosen)
            return Exit.OK
        if online and check.needs_key(chosen, os.environ):
            raise WrongSetting(
                texts.of(f"callers bring their own key here: say one in {check.KEY_VARIABLE} for the call")
            )
        code = _settled(lambda: check.offline(chosen, rows))
        return _settled(lambda: check.online(chosen, rows, os.environ, model)) if online else code

    params: list[click.Parameter] = [
        *(options.flag(name) for name in settings.FLAGS),
        options.config(),
        click.Option(["--print", "show"], is_flag=True, help="Print every setting as a file, with where it was said."),
        click.Option(["--online"], is_flag=True, help="Make one small call through all of it."),
        click.Option(["--model"], metavar="NAME", help="With --online: ask for this model."),
        click.Option(["--against"], metavar="FILE", help="Say what a reload from --config to this file would change."),
    ]
    return Sectioned(
        "check", callback=_exiting(run), params=params, help=help_texts.CHECK, context_settings=dict(CONTEXT)
    )


def _doctor() -> click.Command:
    from config import settings, sources

    def run(config: str | None, **flags: object) -> int:
        from proxy.commands import doctor

        return doctor.examine(lambda: sources.load(flags, config, os.environ, needs=("upstream",)), os.environ)

    params: list[click.Parameter] = [*(options.flag(name) for name in settings.FLAGS), options.config()]
    return Sectioned(
        "doctor", callback=_exiting(run), params=params, help=help_texts.DOCTOR, context_settings=dict(CONTEXT)
    )


def _conform() -> click.Command:
    def run(url: str, *, listed: bool, **asked: Any) -> int:
        from proxy.commands import conform

        only, model = asked["only"], asked["model"]
        reports = {name: asked.pop(name) for name in ("as_json", "junit", "html")}
        try:
            if listed:
                return conform.show_list(
                    conform.target_of(model, asked["route"], counted=False, api=asked["api"]), only
                )
            conform.check_url(url)
            if not (key := os.environ.get(conform.KEY_VARIABLE, "")):
                raise WrongSetting(f"say a key in {conform.KEY_VARIABLE}")
            conform.check_key(key)
            conform.check_reports(reports["junit"], reports["html"])
            return conform.run(conform.Examined(url, key=key, **asked), **reports)
        except conform.AskedWronglyError as error:
            raise WrongSetting(str(error)) from None

    path = click.Path(dir_okay=False, writable=True, path_type=Path)
    params: list[click.Parameter] = [
        click.Argument(["url"], metavar="URL", default="", required=False),
        click.Option(["--model"], metavar="NAME", default="deepseek-v3", show_default=True, help="Ask for this model."),
        click.Option(["--route"], metavar="PATH", help="Ask this path of the host, such as a partner's."),
        click.Option(
            ["--api"], type=click.Choice(["dashscope", "openai"]), default="dashscope", help="What it is to speak."
        ),
        click.Option(["--only"], multiple=True, metavar="WORD", help="A group, rule or check; repeatable."),
        click.Option(["listed", "--list"], is_flag=True, help="List the checks and end."),
        click.Option(["--budget"], type=click.IntRange(0), metavar="TOKENS", help="Spend at most so many tokens."),
        click.Option(
            ["timeout_s", "--timeout"],
            type=click.FloatRange(0, min_open=True),
            metavar="SECONDS",
            default=60,
            show_default=True,
            help="Seconds for one request.",
        ),
        click.Option(["counted", "--count/--no-count"], default=True, help="Hold usage against our own count."),
        click.Option(["as_json", "--json"], is_flag=True, help="Print JSON, for scripts."),
        click.Option(["--junit"], type=path, metavar="FILE", help="Write JUnit XML, for CI."),
        click.Option(["--html"], type=path, metavar="FILE", help="Write a page to hand over."),
    ]
    return _command("conform", run, params, help_texts.CONFORM)


def _calls() -> click.Command:
    def told(run: Callable[[], int]) -> int:
        from proxy.commands import calls
        from proxy.inspector.call_file import NoCallFile

        try:
            return run()
        except (calls.NotThere, NoCallFile) as error:
            raise click.ClickException(str(error)) from None

    def listed(admin: str, as_json: bool) -> int:
        from proxy.commands import calls

        return told(lambda: calls.show_list(admin, as_json=as_json))

    def export(name: str, admin: str, redact: bool, har: bool) -> int:
        from proxy.commands import calls

        return told(lambda: calls.export(admin, name, redact=redact, har=har))

    def replay(file: Path, to: str) -> int:
        from proxy.commands import calls

        return told(lambda: calls.replay(file, to, os.environ.get(calls.KEY_VARIABLE, "sk-replayed")))

    admin = click.Option(
        ["--admin"], metavar="URL", default="http://127.0.0.1:8081", show_default=True, help="The admin port of serve."
    )
    name = click.Argument(["name"], metavar="ID")
    as_json = click.Option(["as_json", "--json"], is_flag=True, help="Print JSON, for scripts.")
    redact = click.Option(["--redact"], is_flag=True, help="Each text becomes filler that counts the same.")
    har = click.Option(["--har"], is_flag=True, help="As an HTTP archive.")
    to = click.Option(
        ["--to"], metavar="URL", required=True, help="Whom to ask: a host, such as http://127.0.0.1:8080."
    )
    file = click.Argument(["file"], type=options.KINDS[Path])
    return _group(
        "calls",
        help_texts.CALLS,
        _command("list", listed, [admin, as_json], help_texts.CALLS_LIST),
        _command("export", export, [name, admin, redact, har], help_texts.CALLS_EXPORT),
        _command("replay", replay, [file, to], help_texts.CALLS_REPLAY),
    )


def _completion() -> click.Command:
    from click import shell_completion

    def run(shell: str) -> int:
        script = shell_completion.get_completion_class(shell)
        assert script is not None  # noqa: S101 - for the type checker: it is one of SHELLS
        click.echo(script(dashseek, {}, "dashseek", "_DASHSEEK_COMPLETE").source())
        return Exit.OK

    return _command("completion", run, [click.Argument(["shell"], type=click.Choice(SHELLS))], help_texts.COMPLETION)


def _usage() -> click.Command:
    from proxy.commands import usage

    files = click.Argument(["files"], metavar="FILE...", nargs=-1, required=True, type=options.KINDS[Path])
    lines = click.Option(
        ["-n", "--lines"], type=click.IntRange(0), default=10, show_default=True, help="Calls to begin with."
    )
    follow = click.Option(["--follow/--no-follow"], default=True, show_default=True, help="Go on with new calls.")

    def verify(files: tuple[Path, ...]) -> int:
        return _booked(lambda: usage.verify(files))

    def tail(file: Path, lines: int, follow: bool) -> int:
        return _booked(lambda: usage.tail(file, lines, follow=follow))

    def compared(files: tuple[Path, ...], form: usage.Form, tolerance: tuple[str, ...], **asked: Any) -> int:
        from proxy.commands import reconcile

        keys = frozenset(asked.pop("keys"))
        return _booked(
            lambda: reconcile.show(
                files, form, reconcile.Asked(keys=keys, tolerance=reconcile.tolerance(tolerance), **asked)
            )
        )

    against: list[click.Parameter] = [
        files,
        click.Option(
            ["--bill"], multiple=True, required=True, type=options.KINDS[Path], help="The provider's CSV or ZIP."
        ),
        click.Option(["--mapping"], type=options.KINDS[Path], help="TOML file: columns, names. [DeepSeek's]"),
        click.Option(["keys", "--key"], multiple=True, metavar="NAME", help="Only this key of the bill; repeatable."),
        click.Option(["--prices"], type=options.KINDS[Path], help="TOML file of prices, to compare money too."),
        click.Option(["--tz"], metavar="ZONE", help="Zone of the days. [the bill's own]"),
        click.Option(["--tolerance"], multiple=True, metavar="N|N%", help="How much a line may differ. [0]"),
        *_forms(),
    ]
    return _group(
        "usage",
        help_texts.USAGE,
        _usage_sum(files),
        _command("verify", verify, [files], help_texts.VERIFY),
        _command("reconcile", compared, against, help_texts.RECONCILE),
        _usage_export(files),
        _command("tail", tail, [click.Argument(["file"], type=options.KINDS[Path]), lines, follow], help_texts.TAIL),
    )


def _usage_sum(files: click.Argument) -> click.Command:
    from proxy.commands import usage

    def total(files: tuple[Path, ...], form: usage.Form, **asked: Any) -> int:
        return _booked(lambda: usage.show_sum(files, form, usage.report(**asked)))

    params: list[click.Parameter] = [
        files,
        click.Option(
            ["--by"], multiple=True, type=click.Choice([*usage.DIMENSIONS]), help="One table by this; repeatable."
        ),
        click.Option(["--tz"], metavar="ZONE", help="Zone of hours, days, months. [this machine's]"),
        click.Option(["--since"], metavar="TIME", help="Calls received from then on: 2026-11, 2026-11-28."),
        click.Option(["--until"], metavar="TIME", help="Calls received before then."),
        click.Option(
            ["price_file", "--prices"], type=options.KINDS[Path], help="TOML file of prices: adds columns of money."
        ),
        *_forms(),
    ]
    return _command("sum", total, params, help_texts.SUM)


def _usage_export(files: click.Argument) -> click.Command:
    def run(files: tuple[Path, ...], **asked: Any) -> int:
        from proxy.commands import export

        return _booked(lambda: export.show(files, export.Asked(**asked)))

    params: list[click.Parameter] = [
        files,
        click.Option(
            ["--to"],
            required=True,
            type=click.Path(path_type=Path),
            help="Where to: FILE.csv, FILE.sqlite, or a directory NAME.parquet.",
        ),
        click.Option(["--tz"], metavar="ZONE", help="Zone of --since and --until. [this machine's]"),
        click.Option(["--since"], metavar="TIME", help="Calls received from then on: 2026-11, 2026-11-28."),
        click.Option(["--until"], metavar="TIME", help="Calls received before then."),
        click.Option(["with_unknown", "--unknown"], is_flag=True, help="Calls without an end too, when all is over."),
    ]
    return _command("export", run, params, help_texts.EXPORT)


def _forms() -> list[click.Parameter]:
    return [
        click.Option([f"--{form}", "form"], flag_value=form, default="table", help=f"Print {form.upper()}.")
        for form in ("json", "csv")
    ]


def _booked(run: Callable[[], int]) -> int:
    """Read books; what the operator typed or named wrongly is a sentence, and so is a file that cannot be read."""
    from proxy.metering.export import ExportError
    from proxy.metering.periods import PeriodError
    from proxy.metering.prices import PriceError
    from proxy.metering.provider_bill import BillError

    try:
        return run()
    except (BillError, ExportError, PeriodError, PriceError) as error:
        raise WrongSetting(str(error)) from None
    except BrokenPipeError:
        # Whoever read it, such as `head`, has enough: click ends without a word.
        raise
    except OSError as error:
        named = f"{error.filename}: " if error.filename else ""
        raise click.ClickException(f"{named}{error.strerror or error}") from None


def _keys() -> click.Command:
    def digest(name: str) -> int:
        from proxy.admission import keyring

        secret = click.prompt("Key", hide_input=True, err=True) if sys.stdin.isatty() else sys.stdin.read()
        try:
            click.echo(keyring.entry(name, secret.strip()))
        except ValueError as error:
            raise WrongSetting(str(error)) from None
        return Exit.OK

    def listed(file: Path, journals: tuple[Path, ...], as_json: bool) -> int:
        return _edited(lambda: keys.show(file, journals, as_json=as_json))

    def add(file: Path, name: str, models: tuple[str, ...], limits: str | None, bring: bool) -> int:
        return _edited(lambda: keys.add(file, name, models, limits, bring=bring))

    def revoke(file: Path, which: str) -> int:
        return _edited(lambda: keys.revoke(file, which))

    from proxy.commands import keys

    name = click.Option(["--name"], metavar="NAME", required=True, help="Names the caller in logs and journals.")
    there = click.Argument(["file"], type=options.KINDS[Path])
    listing: list[click.Parameter] = [
        there,
        click.Option(
            ["journals", "--journal"], multiple=True, type=options.KINDS[Path], help="Its use, too; repeatable."
        ),
        click.Option(["as_json", "--json"], is_flag=True, help="Print JSON, for scripts."),
    ]
    adding: list[click.Parameter] = [
        click.Argument(["file"], type=click.Path(dir_okay=False, path_type=Path)),
        name,
        click.Option(["models", "--model"], multiple=True, metavar="NAME", help="May ask for this; repeatable. [all]"),
        click.Option(["--limits"], metavar="LIMIT", help="Its own: 'rpm=60 tpm=100000'. [those of every key]"),
        click.Option(["bring", "--stdin"], is_flag=True, help="Read the key instead of making one."),
    ]
    return _group(
        "keys",
        help_texts.KEYS,
        _command("list", listed, listing, help_texts.KEYS_LIST),
        _command("add", add, adding, help_texts.KEYS_ADD),
        _command("revoke", revoke, [there, click.Argument(["which"], metavar="NAME")], help_texts.KEYS_REVOKE),
        _command("digest", digest, [name], help_texts.DIGEST),
    )


def _edited(run: Callable[[], int]) -> int:
    from proxy.admission.key_file import KeyFileError

    try:
        return _booked(lambda: _settled(run))
    except KeyFileError as error:
        raise WrongSetting(str(error)) from None


def _group(name: str, text: str, *commands: click.Command) -> click.Group:
    return Group(name, commands, help=text, context_settings=dict(CONTEXT))


def _command(name: str, run: Callable[..., int], params: list[click.Parameter], text: str) -> click.Command:
    return Command(name, callback=_exiting(run), params=params, help=text, context_settings=dict(CONTEXT))


def _exiting(run: Callable[..., int]) -> Callable[..., None]:
    """A callback that ends the process with what `run` returns."""

    def callback(**params: object) -> None:
        try:
            code = Exit(run(**params))
            # Here a reader who has left is an error that click knows; at the end of the interpreter it is a message.
            if sys.stdout is not None:  # as it is where whoever started us has closed it
                sys.stdout.flush()
        except KeyboardInterrupt:
            code = Exit.INTERRUPTED
        except OSError as error:
            # Of a file it says the name.
            if error.errno != errno.ENOSPC or error.filename is not None:
                raise
            # Or the interpreter would try once more.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise click.ClickException(f"standard output: {error.strerror}") from None
        click.get_current_context().exit(code)

    return callback


def _version_command() -> click.Command:
    def run() -> int:
        click.echo(version())
        return Exit.OK

    return _command("version", run, [], "Say the version.")


def _inspect_installation() -> None:
    """Refuse to run where the code that would run, or parse, is not the code that was tested."""
    from proxy.downstream import listener

    for complaint in (installed.room_complaint(), listener.parser_complaint()):
        if complaint is not None:
            raise WrongSetting(complaint)


def _end_with(work: Callable[[], int], chosen: Settings | None = None) -> None:
    from proxy import vocabulary

    try:
        code = _settled(work)
    except vocabulary.VocabularyError as error:
        raise WrongSetting(str(error)) from error
    except OSError as error:
        if error.errno in LISTENING:
            raise _unheard(error, chosen) from error
        raise
    click.get_current_context().exit(code)


def _unheard(error: OSError, chosen: Settings | None) -> click.ClickException:
    """What an operator is told of an address that is not to be had: which it is, and the flag that says another.

    asyncio puts the address into the text, and nowhere else.
    """
    kind, sentence = LISTENING[error.errno]
    found = ADDRESS.search(str(error))
    port = int(found[2]) if found else None
    prefix = "admin-" if chosen is not None and port is not None and port == chosen.admin_port else ""
    where = f"port {port} of {found[1]}" if found else "that port"
    if prefix:
        where = f"the admin port, {port} of {found[1] if found else ''},"
    return kind(sentence.format(where=where, host=f"--{prefix}host", port=f"--{prefix}port"))


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
    "conform": Entry("Is a gateway DashScope? Ask it, and say what is not.", _conform),
    "translate": Entry("See what would become of a call, offline.", _translate),
    "calls": Entry("See, take away and replay calls of serve --inspect.", _calls),
    "usage": Entry("Add up, check, export or watch usage journals.", _usage),
    "keys": Entry("List, add and revoke callers' keys.", _keys),
    "completion": Entry("Print what makes a shell complete commands.", _completion),
    "version": Entry("Say the version.", _version_command),
}
