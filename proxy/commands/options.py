"""Settings, and the fields of a dataclass, into flags of the command line: a new one is a new flag by itself."""

# ruff: noqa: PLC0415 - who only asks for help does not wait for the settings

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import click

from proxy.commands.texts import Command
from proxy.protocol import field_docs

# How a switch of a kind is read, where its type alone would not do.
KINDS: Mapping[Any, click.ParamType[Any]] = {Path: click.Path(exists=True, dir_okay=False, path_type=Path)}


class Sectioned(Command):
    """A command that takes the settings, shown in their sections instead of as one list of forty flags."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """The flags; whoever types a secret is told where it belongs."""
        from config import settings

        for name in settings.SECRETS:
            typed = "--" + name.replace("_", "-")
            if any(word == typed or word.startswith(f"{typed}=") for word in args):
                text = f"{typed}: a flag is in every list of processes: say it in {settings.VARIABLES[name]}"
                file = settings.FLAGS.get(f"{name}_file")
                raise click.UsageError(text + (f", or in a file that {file} names" if file else ""), ctx)
        return super().parse_args(ctx, args)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The sections of `config.settings`, then the flags that are no settings."""
        from config import settings

        records = {param.name: record for param in self.get_params(ctx) if (record := param.get_help_record(ctx))}
        for section, names in settings.SECTIONS.items():
            with formatter.section(section):
                formatter.write_dl([records.pop(name) if name in records else _no_flag(name) for name in names])
        with formatter.section("Other"):
            formatter.write_dl(list(records.values()))


def config() -> click.Option:
    """The flag that names the file of settings."""
    from config import settings

    return click.Option(["--config"], metavar="FILE", help=f"TOML file of settings. [{settings.CONFIG_VARIABLE}]")


def flag(name: str) -> click.Option:
    """A flag of one setting. It hands on text: `settings.load` judges all of it at once."""
    from config import settings

    field = settings.Settings.model_fields[name]
    text = f"{field.description} [{'; '.join(filter(None, (settings.VARIABLES[name], _default(field.default))))}]"
    flag = settings.FLAGS[name]
    if field.annotation in (bool, bool | None):
        return click.Option([name, f"{flag}/--no-{flag.removeprefix('--')}"], default=None, help=text)
    several = isinstance(field.default, tuple | dict)
    choices: tuple[str, ...] = () if field.title else get_args(field.annotation)

    def complete(_: click.Context, __: click.Parameter, begun: str) -> list[str]:
        return [choice for choice in choices if choice.startswith(begun)]

    return click.Option(
        [name, flag],
        metavar=field.title or "|".join(choices),
        multiple=several,
        type=str,
        help=text,
        shell_complete=complete if choices else None,
    )


def _default(value: object) -> str:
    match value:
        case None | () | {}:
            return ""
        case bool():
            return f"default {'yes' if value else 'no'}"
        case _ if hasattr(value, "human_readable"):
            return f"default {value.human_readable().replace('.0', '')}"
    return f"default {value}"


def _no_flag(name: str) -> tuple[str, str]:
    from config import settings

    return settings.VARIABLES.get(name, f"[[{name}]]"), settings.Settings.model_fields[name].description or ""


def port(default: int) -> click.Option:
    """The flag of commands that listen and take no settings."""
    kind = click.IntRange(0, 65535)
    text = "Port to listen on; 0 picks a free one."
    return click.Option(["--port"], metavar="PORT", type=kind, default=default, show_default=True, help=text)


def of(shape: type) -> Iterator[click.Option]:
    """A flag for each field of a dataclass, its help the field's line in the docstring: a new field is a new flag.

    A field's first type counts (`Path | bytes | None` is a file); `gap_s` is `--gap SECONDS`; tuples may be repeated.
    """
    kinds, words = get_type_hints(shape), field_docs.of(shape)
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
