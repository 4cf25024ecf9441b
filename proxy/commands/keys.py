"""The file of callers' keys, shown and edited: `keys list`, `keys add`, `keys revoke`."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import click
import orjson

from config import models as known_models
from config import sources
from config.settings import CONFIG_VARIABLE, PREFIX, SettingsError
from config.values import Limit
from proxy.admission import key_file, keyring
from proxy.admission.keyring import FINGERPRINT_DIGITS, KeyRow
from proxy.commands import tables, usage
from proxy.commands.exit_codes import Exit
from proxy.metering import ledger
from translators.catalogue import Catalogue
from translators.dialogue import Model

NONE = "-"
OWN_MODELS = (
    f"names of your own are read from {CONFIG_VARIABLE}, or from {PREFIX}MODELS_FILE, {PREFIX}MAP and {PREFIX}ALIASES"
)


@dataclass(slots=True)
class Use:
    """What a key has used, as journals say.

    last: when its last call was received
    """

    calls: int = 0
    input: int = 0
    output: int = 0
    last: str | None = None


def show(path: Path, journals: Sequence[Path], *, as_json: bool) -> int:
    """List the keys of a file, with their use where journals are named; raises `SettingsError`, `OSError`."""
    rows = keyring.rows(path)
    used = _used(journals) if journals else None
    listed = [_listed(row, used) for row in rows]
    if as_json:
        click.echo(orjson.dumps(listed, option=orjson.OPT_INDENT_2))
        return Exit.OK
    head = ["name", "fingerprint", "models", "limits", *(["last", "calls", "input", "output"] if journals else [])]
    tables.show(head, [[_text(row[name]) for name in head] for row in listed], 5 if journals else 4)
    return Exit.OK


def add(path: Path, name: str, models: Sequence[str], limits: str | None, *, bring: bool) -> int:
    """Add a caller's key: one that is made here and shown this once, before it is added, or one from standard input.

    models: by names of models that the settings of the environment know, for a gateway refuses the file for others
    Raises `KeyFileError`, `SettingsError`, `OSError`, and `ClickException` where the key cannot be shown.
    """
    _check_models(models)
    secret = sys.stdin.read().strip() if bring else key_file.made()
    show = None if bring else partial(_show_secret, path, secret)
    row = key_file.add(path, name, secret, models=models, limits=limits, show=show)
    if not bring:
        click.echo("This is the key; it is shown this once, and the file has its digest alone.", err=True)
    click.echo(f"{path}: {row.name} ({_fingerprint(row)}) may call within a second", err=True)
    return Exit.OK


def revoke(path: Path, which: str) -> int:
    """Take out keys by name or fingerprint; raises `KeyFileError`, `SettingsError`, `OSError`."""
    for row in key_file.revoke(path, which):
        click.echo(f"{path}: {row.name} ({_fingerprint(row)}) may not call any more, within a second")
    click.echo(f"the file as it was: {path}{key_file.BACKUP}", err=True)
    return Exit.OK


def _check_models(names: Sequence[str]) -> None:
    """Raise `KeyFileError` for names that a gateway does not start with."""
    if not names:
        return
    try:
        chosen = sources.load({}, None, os.environ)
        rows = known_models.load(chosen)
    except SettingsError as error:
        click.echo(f"the models are not judged, for the settings are wrong: {error.lines[0]}", err=True)
        return
    catalogue = Catalogue((Model(**row) for row in rows), chosen.aliases)
    unknown = [
        f"--model {name!r}: there is no such model{sources.guess(name, catalogue.names)}"
        for name in names
        if not catalogue.knows(name)
    ]
    if unknown:
        raise key_file.KeyFileError("\n  ".join([*unknown, OWN_MODELS]))


def _show_secret(path: Path, secret: str) -> None:
    try:
        if sys.__stdout__ is None:
            raise OSError(errno.EBADF, "standard output is closed")
        click.echo(secret)
    except OSError as error:
        raise click.ClickException(f"{path}: no key was added, for it cannot be shown: {error.strerror}") from None


def _used(journals: Sequence[Path]) -> dict[str, Use]:
    used: dict[str, Use] = {}

    def see(record: dict[str, Any], _: Path) -> None:
        use = used.setdefault(record["key_id"], Use())
        use.calls += 1
        use.input += record["usage"]["input_tokens"]
        use.output += record["usage"]["output_tokens"]
        use.last = max(use.last or "", record["at"])

    with usage.reading(journals) as advance:
        usage.show_doubts(ledger.read(journals, each=see, advance=advance))
    return used


def _listed(row: KeyRow, used: dict[str, Use] | None) -> dict[str, Any]:
    listed: dict[str, Any] = {
        "name": row.name,
        "fingerprint": _fingerprint(row),
        "models": list(row.models) if row.models is not None else None,
        "limits": _limits(row.limits),
    }
    if used is not None:
        use = used.get(_fingerprint(row), Use())
        listed |= {"calls": use.calls, "input": use.input, "output": use.output, "last": use.last}
    return listed


def _limits(limits: Limit | None) -> str | None:
    if limits is None:
        return None
    return " ".join(f"{name}={amount}" for name in Limit.__dataclass_fields__ if (amount := getattr(limits, name)))


def _text(value: object) -> str:
    if value is None:
        return NONE
    if isinstance(value, list):
        return " ".join(value)
    return f"{value:,}" if isinstance(value, int) else str(value)


def _fingerprint(row: KeyRow) -> str:
    return row.sha256[:FINGERPRINT_DIGITS]
