"""Flags, environment and file into settings: where each was said, what was guessed, and every complaint at once."""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from config.pools import FIELDS, POOL_NAME
from config.settings import (
    CONFIG_VARIABLE,
    FILE_ONLY,
    FLAGS,
    KEY,
    NAMES,
    PREFIX,
    SECRETS,
    SHORTHAND,
    TABLES,
    VARIABLES,
    Settings,
    SettingsError,
)

# A Service named `dashseek` makes Kubernetes set these in every pod beside it: they say nothing about us.
SERVICE_LINK = re.compile(
    r"\w+_SERVICE_(HOST|PORT\w*)=.*"
    r"|\w+_PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?=.*"
    r"|\w+_PORT=(tcp|udp|sctp)://.*"
)
# pydantic's own words for these are its own, unclear, or repeat a part of the value.
WORDINGS: Mapping[str, str] = {
    "missing": "is missing",
    "extra_forbidden": "there is no such field",
    "path_not_file": "is not a file",
    "path_type": "must be a path",
    "string_type": "must be text",
    "string_too_short": "must not be empty",
    "too_short": "must not be empty",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "finite_number": "must be a number that is finite",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "dict_type": "must be a table",
    "list_type": "must be a list",
    "tuple_type": "must be a list",
    "byte_size": "must be a number of bytes, such as 16777216 or 16MiB",
    "byte_size_unit": "must be a number of bytes, such as 16777216 or 16MiB",
}
# A setting of all that stands below the first `[[pools]]`, where TOML takes it for a field of that entry.
STRAY = "is a setting of the whole file: say it above the first [[pools]], below it belongs to that pool"
KEYS = "api_key_env or api_key_file"
# Where a line begins an entry of a list, and where a table.
ENTRY = re.compile(r"""\s*\[\[\s*["']?([\w-]+)["']?\s*\]\]""")
TABLE = re.compile(r"""\s*\[\s*["']?([\w-]+)["']?(?:\s*\.\s*["']?([\w-]+))?""")
# What a path is written with, by whoever means one: a key that got into its place is not.
PATH = re.compile(r"(/|\./|\.\./|~/).*", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Saying:
    """One thing an operator said.

    name:   the setting it is about, or what they took for one
    value:  as said: text, a list of texts, or a TOML value
    origin: where they find it again: a flag, a variable, `file:line`
    inner:  the same of each entry of a list and its fields: `0`, `0.weight`
    """

    name: str
    value: Any
    origin: str
    inner: Mapping[str, str] = field(default_factory=dict)


def load(
    flags: Mapping[str, object],
    config_file: str | None,
    environ: Mapping[str, str],
    needs: Collection[str] = (),
) -> Settings:
    """Settle what flags, environment and file say.

    flags:       by setting; None and () are flags that were not given
    config_file: path of a TOML file; else `DASHSEEK_CONFIG` names it
    environ:     the process's variables; an empty one counts as unset, but for a secret, where it is a mistake
    needs:       settings this command cannot do without
    errors:      SettingsError, with all complaints at once; alone that of a file which is not TOML
    """
    path = config_file or environ.get(CONFIG_VARIABLE)
    in_file = [*(_file(path) if path else ())]
    said = [*in_file, *_environment(environ, _key_variables(in_file)), *_flags(flags)]
    misplaced = [_misplaced(saying) or _empty(saying) for saying in said]
    chosen, origins = _settle(saying for saying, complaint in zip(said, misplaced, strict=True) if not complaint)
    missing = [name for name in needs if not (chosen.get(name) or (name == "upstream" and chosen.get("pools")))]
    complaints = [*filter(None, misplaced), *map(_missing, missing), *_said_twice(chosen, origins)]
    try:
        settings = Settings.model_validate({**chosen, "origins": origins}, context={"environ": environ})
    except ValidationError as error:
        told = (_complaint(detail, origins, chosen.get("pools")) for detail in error.errors())
        raise SettingsError([*complaints, *told]) from None
    if complaints:
        raise SettingsError(complaints)
    return settings


def _file(path: str) -> Iterator[Saying]:
    try:
        text = Path(path).read_text("utf-8")
        said = tomllib.loads(text)
    except OSError as error:
        raise SettingsError([f"{path}: cannot be read: {error.strerror}"]) from error
    except ValueError as error:
        raise SettingsError([f"{path}: is not TOML: {error}"]) from error
    lines = _lines(text)
    inner: dict[str, dict[str, str]] = {}
    for place, line in lines.items():
        name, _, rest = place.partition(".")
        if rest:
            inner.setdefault(name, {})[rest] = f"{path}:{line}"
    return (Saying(name, value, f"{path}:{lines.get(name, 1)}", inner.get(name, {})) for name, value in said.items())


def _lines(text: str) -> dict[str, int]:
    """The line each top-level name, entry of a list and field of one begins on, which tomllib does not tell."""
    found: dict[str, int] = {}
    entries: Counter[str] = Counter()
    inside = ""
    for number, line in enumerate(text.splitlines(), 1):
        if entry := ENTRY.match(line):
            inside = f"{entry[1]}.{entries[entry[1]]}"
            entries[entry[1]] += 1
            places = [entry[1], inside]
        elif table := TABLE.match(line):
            # `[pools.headers]` is a field of the entry above it; any other ends that.
            inside = inside if inside.startswith(f"{table[1]}.") else ""
            places = [table[1], f"{inside}.{table[2]}"] if inside and table[2] else [table[1]]
        elif key := KEY.match(line):
            # Top-level keys stand before all tables, so keys inside tables can only come too late to matter.
            places = [key[1], f"{inside}.{key[1]}"] if inside else [key[1]]
        else:
            continue
        for place in places:
            found.setdefault(place, number)
    return found


def _key_variables(in_file: Iterable[Saying]) -> frozenset[str]:
    """The variables that pools have their keys in: they may look like settings, and are none."""
    entries = (entry for saying in in_file if saying.name == "pools" for entry in _listed(saying.value))
    named = (entry.get("api_key_env") for entry in entries if isinstance(entry, Mapping))
    return frozenset(name for name in named if isinstance(name, str))


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _said_twice(chosen: Mapping[str, Any], origins: Mapping[str, str]) -> Iterator[str]:
    """What is shorthand for one pool, beside pools."""
    if not chosen.get("pools"):
        return
    for name in SHORTHAND:
        # `check --print` says the defaults, too.
        if chosen.get(name) and chosen[name] != Settings.model_fields[name].default:
            yield (
                f"{name} ({origins[name]}): is shorthand for one pool, and there are pools ({origins['pools']}): "
                f"say it in an entry [[pools]], as {_field_of(name)}, or leave the pools out"
            )


def _field_of(shorthand: str) -> str:
    """What an entry of pools calls it."""
    bare = shorthand.removeprefix("upstream_")
    return {"upstream": "urls", "api_key": KEYS, "api_key_file": KEYS}.get(bare, bare)


def _environment(environ: Mapping[str, str], others: Collection[str]) -> Iterator[Saying]:
    for variable, text in sorted(environ.items()):
        ours = variable.startswith(PREFIX) and variable not in (CONFIG_VARIABLE, *others)
        named = variable.removeprefix(PREFIX).lower()
        if ours and (text or named in SECRETS) and not SERVICE_LINK.fullmatch(f"{variable}={text}"):
            yield Saying(named, text, variable)


def _flags(flags: Mapping[str, object]) -> Iterator[Saying]:
    return (Saying(name, value, FLAGS[name]) for name, value in flags.items() if value not in (None, ()))


def _misplaced(saying: Saying) -> str | None:
    if saying.name in SECRETS and saying.origin not in VARIABLES.values():
        file = f"{saying.name}_file"
        where = f"say it in {VARIABLES[saying.name]}" + f", or in a file of its own named by {file}" * (file in NAMES)
        return f"{saying.name} ({saying.origin}): a secret does not belong here: {where}"
    if saying.name in FILE_ONLY and saying.origin.startswith(PREFIX):
        return f"{saying.name} ({saying.origin}): belongs in the file, an entry [[{saying.name}]] for each"
    if saying.name in NAMES:
        return None
    if saying.name in FIELDS:
        return f"{saying.name} ({saying.origin}): belongs to a pool: say it below the line [[pools]] of one"
    return f"{saying.name} ({saying.origin}): there is no such setting{guess(saying.name, NAMES)}"


def _empty(saying: Saying) -> str | None:
    """A secret that leads nowhere must not turn "ours pays" into "theirs does" without a word."""
    if saying.name not in SECRETS or saying.value:
        return None
    return f"{saying.name} ({saying.origin}): is empty: say the secret, or leave the variable out"


def guess(word: str, words: Iterable[str]) -> str:
    """What somebody may have meant, to end a complaint with; empty where nothing is near."""
    close = difflib.get_close_matches(word, [*words], 1)
    return f"; did you mean {close[0]}?" if close else ""


def _settle(said: Iterable[Saying]) -> tuple[dict[str, Any], dict[str, str]]:
    """The strongest value of each setting and its origin; of a table, all parts, weakest first."""
    chosen: dict[str, Any] = {}
    origins = dict.fromkeys(NAMES, "default")
    for name, value, origin, inner in ((one.name, one.value, one.origin, one.inner) for one in said):
        whole = name in TABLES and name in chosen
        chosen |= {name: [*chosen.get(name, ()), value] if name in TABLES else value}
        origins |= {name: f"{origins[name]}, {origin}" if whole else origin}
        origins |= {f"{name}.{place}": at for place, at in inner.items()}
    if "upstream_api_key" not in chosen:
        origins |= {"upstream_api_key": origins["upstream_api_key_file"]}
    return chosen, origins


def _missing(name: str) -> str:
    return f"{name}: is missing: say it in {FLAGS[name]}, {VARIABLES[name]} or the file"


def _complaint(detail: ErrorDetails, origins: Mapping[str, str], entries: object) -> str:
    loc = (*detail["loc"], *detail.get("ctx", {}).get("at", ()))
    wrong = explain(detail)
    if loc[0] == "pools" and detail["type"] == "extra_forbidden":
        stray = str(loc[-1])
        if stray in SHORTHAND:
            wrong = f"is shorthand for a pool: in an entry it is {_field_of(stray)}"
        else:
            wrong = STRAY if stray in NAMES else wrong + guess(stray, FIELDS)
    return f"{where(origins, loc, entries)}: {wrong}"


def where(origins: Mapping[str, str], loc: Sequence[int | str], entries: object = ()) -> str:
    """A setting, or a part of one, with the place where it was said: `pools.engines.weight (dashseek.toml:12)`.

    entries: the pools, which are called by their names; one without a name is `#1`, `#2`, …
    """
    places = [".".join(map(str, loc[:length])) for length in range(len(loc), 0, -1)]
    origin = next((origins[place] for place in places if place in origins), "default")
    named = [f"#{part + 1}" if isinstance(part, int) else part for part in loc]
    number = loc[1] if loc[0] == "pools" and len(loc) > 1 else None
    if isinstance(number, int) and isinstance(entries, list | tuple):
        entry = entries[number]
        name = entry.get("name") if isinstance(entry, Mapping) else getattr(entry, "name", None)
        if isinstance(name, str) and POOL_NAME.fullmatch(name):
            named[1] = name
    return f"{'.'.join(named)} ({origin})"


def explain(detail: ErrorDetails) -> str:
    """What pydantic found wrong, in an operator's words, without the value."""
    wrong = WORDINGS.get(detail["type"], detail["msg"])
    wrong = wrong.removeprefix("Value error, ").replace("Input should", "must")
    given = detail["input"]
    if detail["type"] == "literal_error" and isinstance(given, str):
        return wrong + guess(given, re.findall(r"'([\w.]+)'", wrong))
    if detail["type"] == "path_not_file" and PATH.fullmatch(str(given)):
        return f"{wrong}: nothing is at {given}" if not os.path.lexists(str(given)) else f"{wrong}: {given}"
    return wrong
