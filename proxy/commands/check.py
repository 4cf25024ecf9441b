"""Settings into what they mean: each value with where it was said; and, if asked for, one small call through all of it.

What is wrong with them has been told before anything here runs: `config.settings` names file, line, key and remedy.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection, Mapping, Sequence
from contextlib import AsyncExitStack
from datetime import UTC
from typing import Any, Final

import aiohttp
import click

from config import changes, models, settings, sources
from config.models import ModelRow
from config.pools import EVERY_MODEL, Pool
from config.settings import Settings, SettingsError
from proxy.admission import keyring
from proxy.admission.keyring import Key
from proxy.call import budgets
from proxy.call.budgets import SharedBudgets
from proxy.call.gateway import catalogue_of, open_gateway
from proxy.commands import doctor, files, known_models, texts
from proxy.commands.exit_codes import Exit
from proxy.downstream import paths
from proxy.metering.journal import Record
from proxy.metering.prices import Prices
from proxy.server import lifecycle, notices, routes
from proxy.telemetry import logs
from proxy.upstream.response import Result
from translators import faults
from translators.catalogue import Catalogue

# The variable callers of DashScope keep their key in; for the call of --online, where the key is the caller's.
KEY_VARIABLE: Final = "DASHSCOPE_API_KEY"
ANY_KEY: Final = "sk-check"
MODEL: Final = "deepseek-v3"
# What the call must not touch: the journal and the limits of the callers, the port of who may be serving already.
ALONE: Final[Mapping[str, Any]] = {
    "host": "127.0.0.1",
    "port": 0,
    "tls_cert": None,
    "tls_key": None,
    "keys_file": None,
    "journal_file": None,
    "redis_url": None,
    "limits": None,
    "key_limits": None,
    "model_limits": {},
    "log_level": "critical",
    "tracing": "off",
}
UNPRICED: Final = "calls of {} go under a limit of money and have no price now: they count nothing there"
# Who may call, by `auth`.
CALLERS: Final[Mapping[str, str]] = {
    "passthrough": "whoever has a key of the upstream's",
    "any": "whoever brings any key at all",
    "none": "whoever reaches the port",
    "keys": "those whose key is in the keys file",
}


def show(chosen: Settings) -> None:
    """Print every setting as a file would say it, and where it is from; what comes out is a file for `--config`."""
    for section, names in settings.SECTIONS.items():
        click.echo(f"# {section}")
        for name in names:
            origin = chosen.origins.get(name, "default")
            said = settings.shown(chosen, name)
            click.echo(f"{said}  # {origin}" if said else f"# {name} is not set")
        click.echo()


def offline(chosen: Settings, rows: Sequence[ModelRow]) -> int:
    """Say that the settings can be used, and the most important of what they mean; `SettingsError` where they cannot.

    rows: the models on offer
    """
    if wrong := files.complaints(chosen):
        raise SettingsError(wrong)
    catalogue = catalogue_of(chosen, rows)
    priced = budgets.prices_of(chosen)
    keys = _keys(chosen, catalogue, priced)
    callers = CALLERS[chosen.auth]
    if chosen.keys_file:
        callers += f": {len(keys or ())} of {chosen.keys_file}"
    said = sum(chosen.origins.get(name, "default") != "default" for name in settings.NAMES)
    texts.echo(f"ok        {said} settings said, {len(settings.NAMES) - said} left at their defaults")
    for pool in chosen.pools_in_force:
        texts.echo(f"upstream  {_named(pool)}{', '.join(pool.urls)}, dialect {pool.dialect}{_shared(pool)}")
    texts.echo(f"callers   {callers} (auth {chosen.auth}); on {chosen.host}:{chosen.port}")
    texts.echo(f"pays      {_payer(chosen)}")
    texts.echo(f"models    {', '.join(row['id'] for row in rows)}")
    for topic, sentence in notices.sentences(chosen, rows):
        texts.echo(f"{topic:9} {sentence}")
    if unpriced := SharedBudgets(UTC, priced).unpriced(chosen, catalogue, keys):
        texts.echo(f"prices    {UNPRICED.format(', '.join(unpriced))}")
    return Exit.OK


def read(
    flags: Mapping[str, object], config: str | None, environ: Mapping[str, str]
) -> tuple[Settings, tuple[ModelRow, ...]]:
    """The settings and models of a configuration, judged as a whole; raises `SettingsError`."""
    chosen = sources.load(flags, config, environ, needs=("upstream",))
    if wrong := files.complaints(chosen):
        raise SettingsError(wrong)
    rows = models.load(chosen)
    _keys(chosen, catalogue_of(chosen, rows), budgets.prices_of(chosen))
    return chosen, rows


def _keys(chosen: Settings, catalogue: Catalogue, priced: Prices | None) -> Collection[Key] | None:
    """The callers of the keys file; None where there is none. Raises `SettingsError`."""
    if chosen.keys_file is None:
        return None
    return keyring.read(chosen.keys_file, catalogue, budgets.budgeted(chosen, priced)).values()


def against(now: Settings, rows: Sequence[ModelRow], then: Settings, rows_then: Sequence[ModelRow]) -> int:
    """Say what a reload would change, and what it would leave until the process is started anew."""
    changes.settled(now, then)
    found = changes.between(now, then, rows, rows_then)
    for change in found:
        texts.echo(f"{'needs a restart' if change.is_fixed else 'at reload':15}  {change}")
    if not found:
        texts.echo("a reload would change nothing")
    return Exit.OK


def _named(pool: Pool) -> str:
    return f"{pool.name}: " if pool.name else ""


def _shared(pool: Pool) -> str:
    """What of the calls a pool gets; nothing where it is alone."""
    if not pool.name:
        return ""
    models = "every model" if EVERY_MODEL in pool.models else ", ".join(pool.models)
    return f", priority {pool.priority}, for {models}"


def _payer(chosen: Settings) -> str:
    """Whose key goes upstream."""
    if chosen.pools:
        own = [pool.name for pool in chosen.pools if pool.api_key is not None]
        others = [pool.name for pool in chosen.pools if pool.api_key is None]
        theirs = "each caller: the key they bring" if chosen.auth == "passthrough" else "nobody: no key"
        told = [f"our own key of {', '.join(own)}"] if own else []
        return "; ".join([*told, *([f"{theirs} goes to {', '.join(others)}"] if others else [])])
    if chosen.upstream_api_key is not None:
        return f"the upstream key of {chosen.origins['upstream_api_key']}, for all of them"
    if chosen.auth == "passthrough":
        return "each caller: the key they bring goes upstream"
    return "nobody: no key goes upstream"


def online(chosen: Settings, rows: Sequence[ModelRow], environ: Mapping[str, str], model: str | None) -> int:
    """Make one small call through the whole of it, and say what came."""
    # Telemetry is for who serves; here the lines below say it all.
    alone = chosen.model_copy(update={**ALONE, "auth": _auth(chosen)})
    model = (
        model
        or next((name for pool in chosen.pools_in_force for name in pool.map), None)
        or next(iter(chosen.map), MODEL if any(row["id"] == MODEL for row in rows) else rows[0]["id"])
    )
    with contextlib.closing(logs.configure(alone)):
        record = asyncio.run(_call(alone, rows, environ.get(KEY_VARIABLE, ANY_KEY), model))
    code = _told(record)
    if record.fault == faults.MODEL_UNKNOWN:
        texts.echo(f"          -> {known_models.hint(model, catalogue_of(chosen, rows).names)}")
    # What could not be reached has said so; what has answered may be the wrong place.
    if any(attempt["result"] != Result.UNREACHABLE.value for attempt in record.closing["attempts"]) and code != Exit.OK:
        asyncio.run(_examine(alone, environ))
    return code


def needs_key(chosen: Settings, environ: Mapping[str, str]) -> bool:
    """Whether a call needs a key that only a caller has."""
    return chosen.auth == "passthrough" and not environ.get(KEY_VARIABLE)


def _auth(chosen: Settings) -> str:
    return "passthrough" if chosen.auth == "passthrough" else "any"


async def _call(chosen: Settings, rows: Sequence[ModelRow], key: str, model: str) -> Record:
    """One call, as the gateway itself saw it."""
    ended: asyncio.Queue[Record] = asyncio.Queue()
    async with AsyncExitStack() as stack:
        gateway = await stack.enter_async_context(open_gateway(chosen, rows))
        running = await lifecycle.start(routes.application(gateway, ended.put_nowait), chosen)
        stack.push_async_callback(running.stop)
        session = await stack.enter_async_context(aiohttp.ClientSession(trust_env=False))
        call = {"model": model, "input": {"prompt": "Say hello."}, "parameters": {"max_tokens": 16}}
        headers = {"Authorization": f"Bearer {key}", "X-DashScope-SSE": "enable"}
        async with session.post(running.url + paths.GENERATION, json=call, headers=headers) as answer:
            await answer.read()
        return await ended.get()


async def _examine(chosen: Settings, environ: Mapping[str, str]) -> None:
    """Say what the doctor finds wrong with the upstream that has failed."""
    async for finding in doctor.of_upstreams(chosen, environ):
        if finding.verdict != "ok":
            what = texts.padded(texts.of(finding.what), 9)
            click.echo(f"{what} {texts.of(finding.found)}\n          -> {texts.of(finding.to_do)}")


def _told(record: Record) -> int:
    closing = record.closing
    for attempt in closing["attempts"]:
        texts.echo(f"asked     {attempt['target']}: {attempt['result']}")
    if record.fault is not None:
        texts.echo(f"failed    {closing['status']} {closing['code']}: {record.cause or record.fault.message}")
        if record.upstream_said:
            texts.echo(f"          upstream said: {record.upstream_said}")
        return Exit.UPSTREAM_REFUSED if closing["attempts"] else Exit.CONFIGURATION
    times, used = closing["t"], closing["usage"]
    texts.echo(f"answered  after {times['first_packet']:.0f} ms, whole after {times['closed']:.0f} ms")
    texts.echo(
        f"usage     {used['input_tokens']} + {used['output_tokens']} = {used['total_tokens']} tokens "
        f"({closing['basis']}); our count of the prompt was off by {closing['drift_tokens']}"
    )
    return Exit.OK
