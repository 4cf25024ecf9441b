"""Settings in force and settings read anew -> what changes with them, and what cannot while the process runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from pydantic import SecretStr, ValidationError

from config import settings as words
from config import sources, values
from config.models import ModelRow
from config.pools import Pool
from config.settings import Settings, SettingsError

# What a process is made with: ports, processes, files, and what stands before its routes. They change with a restart.
FIXED: Final = frozenset(
    {
        *("host", "port", "admin_host", "admin_port", "tls_cert", "tls_key", "workers", "loop", "max_connections"),
        *("journal_file", "journal_fsync", "journal_max_bytes", "journal_policy", "redis_url", "redis_policy"),
        *("model_route", "cors_origin", "trusted_host", "max_body_bytes", "header_timeout", "keepalive_timeout"),
        *("drain_delay", "drain_timeout", "log_level", "log_format", "tracing"),
    }
)
# What two sayings must both hold for one of them to be another.
_SAYS_NOTHING: Final = frozenset({"origins"})


class Change(NamedTuple):
    """One setting, one entry of a table, one field of a pool, or one model, that is said in another way.

    name:     of the setting, `map.deepseek-v3`, `pools.engines.weight`, or `model ID`
    before, after: as a file would say it; None where it was not there; a secret is never shown
    is_fixed: whether it stays as it was until the process is started anew
    """

    name: str
    before: str | None
    after: str | None
    is_fixed: bool = False

    def __str__(self) -> str:
        return f"{self.name}: {self.before or 'not set'} -> {self.after or 'not set'}"


def between(
    now: Settings, then: Settings, rows: Sequence[ModelRow] = (), rows_then: Sequence[ModelRow] = ()
) -> list[Change]:
    """What is said in another way; the models only where both tables are given."""
    changed = (name for name in words.NAMES if name not in _SAYS_NOTHING and _value(now, name) != _value(then, name))
    found = [change for name in changed for change in _told(name, now, then)]
    before, after = ({row["id"]: row for row in table} for table in (rows, rows_then))
    for name in dict.fromkeys([*before, *after]):
        if before.get(name) != after.get(name):
            told = "another row" if name in before else "a row"
            found.append(Change(f"model {name}", "a row" if name in before else None, told if name in after else None))
    return found


def settled(now: Settings, then: Settings) -> tuple[Settings, list[str]]:
    """The settings that a reload leads to, and the names of those that stay as they were.

    Judged once more as a whole: what may be said of another port may not be said of this one. Raises `SettingsError`.
    """
    left = [change.name for change in between(now, then) if change.is_fixed]
    if not left:
        return then, []
    said = {name: getattr(now if name in left else then, name) for name in words.NAMES}
    if said["upstream_api_key_file"] is not None:
        # It is read again.
        said["upstream_api_key"] = None
    origins = {**then.origins, **{name: now.origins.get(name, "default") for name in left}}
    try:
        return Settings(**said, origins=origins), left
    except ValidationError as error:
        raise SettingsError(
            [
                f"{detail['loc'][0]} ({origins.get(str(detail['loc'][0]), 'default')}): {sources.explain(detail)}; "
                f"{', '.join(left)} cannot change while the process runs"
                for detail in error.errors()
            ]
        ) from None


def files(chosen: Settings, config_file: str | None) -> Iterator[Path]:
    """The files whose change is another configuration; those that are followed by themselves are not among them."""
    if config_file is not None:
        yield Path(config_file)
    if chosen.models_file is not None:
        yield chosen.models_file


def _told(name: str, now: Settings, then: Settings) -> Iterator[Change]:
    """A setting that is another one: part by part where it is made of several."""
    if name == "pools":
        yield from _pools(now.pools, then.pools)
    elif name in words.TABLES:
        yield from _entries(name, getattr(now, name), getattr(then, name))
    else:
        yield Change(name, _shown(now, name), _shown(then, name), name in FIXED)


def _pools(now: Sequence[Pool], then: Sequence[Pool]) -> Iterator[Change]:
    before, after = ({pool.name: pool for pool in pools} for pools in (now, then))
    for name in dict.fromkeys([*before, *after]):
        one, other = before.get(name), after.get(name)
        fields = [field for field in Pool.model_fields if getattr(one, field, None) != getattr(other, field, None)]
        said, says = ({} if pool is None else pool.said() for pool in (one, other))
        # What a pool that comes or goes leaves at its default needs no line.
        for field in (field for field in fields if field == "api_key" or field in said or field in says):
            yield Change(f"pools.{name}.{field}", _field(one, said, field), _field(other, says, field))
    if [*before] != [*after] and {*before} == {*after}:
        yield Change("pools", values.toml([*before]), values.toml([*after]))


def _field(pool: Pool | None, said: Mapping[str, object], field: str) -> str | None:
    """What a pool says in a field, or has there by default; None where that is nothing."""
    if field == "api_key":
        return None if pool is None or pool.api_key is None else "(secret)"
    value = said.get(field, getattr(pool, field, None))
    return None if value is None else values.toml(value)


def _entries(name: str, now: Mapping[str, object], then: Mapping[str, object]) -> Iterator[Change]:
    for entry in dict.fromkeys([*now, *then]):
        if now.get(entry) != then.get(entry):
            before, after = (values.toml(table[entry]) if entry in table else None for table in (now, then))
            yield Change(f"{name}.{entry}", before, after)


def _value(chosen: Settings, name: str) -> object:
    value = getattr(chosen, name)
    return value.get_secret_value() if isinstance(value, SecretStr) else value


def _shown(chosen: Settings, name: str) -> str | None:
    if isinstance(getattr(chosen, name), SecretStr):
        return "(secret)"
    said = words.shown(chosen, name)
    return None if said is None else said.partition(" = ")[2]
