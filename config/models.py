"""The shipped model table, an operator's rows and `--map`, into the rows that a caller's model name is looked up in."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired

from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError, with_config
from typing_extensions import TypedDict  # the only one pydantic reads before Python 3.12

from config import sources
from config.pools import DIALECTS, EVERY_MODEL
from config.settings import Settings, SettingsError

Template = Literal["v3", "r1", "v3.1", "v3.2", "v4-preview", "v4", "v4.1"]
Tokens = Annotated[int, Field(gt=0, strict=True)]
Word = Annotated[str, Field(pattern=r"^[!-~]+$")]
DEFAULTS: Mapping[str, object] = {
    "enable_thinking": "ignore",
    "strict_thinking": False,
    "aliases": (),
    "think_in_content": "auto",
    "path": "text",
    "sees": False,
    "retires": None,
    "upstream": {},
    "templates": {},
}
# What an unknown name of `--map` becomes (spec MOD-5).
PATTERN = "deepseek-v3"
# A snapshot of a model: `-MMDD`, `-YYMMDD` or `-YYYY-MM-DD` behind its name, as callers' names are read (spec MOD-6).
DATED = re.compile(r"(.+)-(?:\d{4}|\d{6}|\d{4}-\d{2}-\d{2})", re.ASCII)


def _consistent(row: ModelRow) -> ModelRow:
    if max(row["input_tokens"], row["chain_tokens"], row["answer_tokens"]) > row["context_tokens"]:
        raise ValueError("no limit can be greater than context_tokens")
    if (row["thinking"] == "never") != (row["chain_tokens"] == 0):
        raise ValueError("chain_tokens is 0 on a model that never thinks, and on no other")
    return row


def _by_dialect(entries: Mapping[str, Any]) -> Mapping[str, Any]:
    for dialect in entries:
        if dialect not in DIALECTS:
            raise ValueError(f"goes by dialect: must be one of {', '.join(DIALECTS)}")
    return entries


@with_config(ConfigDict(extra="forbid"))
class ModelRow(TypedDict):
    """One model; field for field `translators.dialogue.Model`, which says what they mean (spec MOD-1)."""

    id: Word
    thinking: Literal["never", "hybrid", "always"]
    context_tokens: Tokens
    input_tokens: Tokens
    chain_tokens: Annotated[int, Field(ge=0, strict=True)]
    answer_tokens: Tokens
    template: Template
    enable_thinking: Literal["ignore", "refuse"]
    strict_thinking: bool
    aliases: tuple[Word, ...]
    think_in_content: Literal["auto", "yes", "no"]
    path: Literal["text", "multimodal", "both"]
    sees: bool
    retires: Annotated[str, Field(pattern=r"^\d{4}-(0[1-9]|1[0-2])$")] | None
    upstream: Annotated[Mapping[str, Word], AfterValidator(_by_dialect)]
    templates: Annotated[Mapping[str, Template], AfterValidator(_by_dialect)]


@with_config(ConfigDict(extra="forbid"))
class ModelFile(TypedDict):
    """A file of rows.

    model:     rows; one of a known id need not be whole
    templates: by upstream id, the template that model renders its prompts with
    """

    model: NotRequired[list[dict[str, Any]]]
    templates: NotRequired[dict[str, Template]]


FILE: TypeAdapter[ModelFile] = TypeAdapter(ModelFile)
ROW: TypeAdapter[ModelRow] = TypeAdapter(Annotated[ModelRow, AfterValidator(_consistent)])


def load(chosen: Settings) -> tuple[ModelRow, ...]:
    """All rows, shipped ones first.

    errors: SettingsError, with a line for each fault of `models_file`, `map`, `aliases` and `model_limits`
    """
    shipped = FILE.validate_python(tomllib.loads(resources.files("config").joinpath("models.toml").read_text("utf-8")))
    theirs = _read(chosen.models_file) if chosen.models_file else ModelFile()
    templates = {**shipped.get("templates", {}), **theirs.get("templates", {})}
    drafts = _drafted([*shipped.get("model", ()), *theirs.get("model", ())], chosen.map)
    # A new name of a pool's map is a new model; one that is known has its own row, and the pool's id beside it.
    for pool in chosen.pools:
        drafts |= {name: _mapped(name, model, drafts) for name, model in pool.map.items() if name not in drafts}
    rows, complaints = _checked(drafts.values(), str(chosen.models_file))
    named = {name for row in rows for name in (row["id"], *row["aliases"])} | drafts.keys()
    complaints += [
        f"aliases.{name} ({chosen.origins.get('aliases', 'default')}): stands for a model that is not known"
        + sources.guess(model.lower(), drafts)
        for name, model in chosen.aliases.items()
        if not {*_names(model.lower())} & named
    ]
    complaints += [
        f"model_limits.{name} ({chosen.origins.get('model_limits', 'default')}): there is no such model"
        + sources.guess(name.lower(), drafts)
        for name in chosen.model_limits
        if name.lower() not in drafts
    ]
    complaints += [
        f"{sources.where(chosen.origins, ('pools', number, 'models'), chosen.pools)}: there is no model {name}"
        + sources.guess(name, drafts)
        for number, pool in enumerate(chosen.pools)
        for name in pool.models
        if name != EVERY_MODEL and name not in drafts
    ]
    served = {name for row in rows if _is_served(row, chosen) for name in (row["id"], *row["aliases"])}
    complaints += [
        f"aliases.{name} ({chosen.origins.get('aliases', 'default')}): stands for a model that no pool serves"
        for name, model in chosen.aliases.items()
        if chosen.pools and {*_names(model.lower())} & named and not {*_names(model.lower())} & served
    ]
    complaints += [
        f"{sources.where(chosen.origins, ('pools', number, 'map'), chosen.pools)}: {model} is not among its models: "
        "add it there, or leave it out here"
        for number, pool in enumerate(chosen.pools)
        for model in pool.map
        if not pool.serves(model)
    ]
    if complaints:
        raise SettingsError(complaints)
    return tuple(_settled(row, templates, chosen) for row in rows if _is_served(row, chosen))


def _read(path: Path) -> ModelFile:
    try:
        return FILE.validate_python(tomllib.loads(path.read_text("utf-8")))
    except ValidationError as error:
        raise SettingsError(_complaints(error, f"models_file ({path})")) from None
    except ValueError as error:
        raise SettingsError([f"models_file ({path}): is not TOML: {error}"]) from error


def _drafted(rows: Iterable[Mapping[str, Any]], mapped: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Unchecked rows by id: what is said of an id later goes over what was said before."""
    drafts: dict[str, dict[str, Any]] = {}
    for row in rows:
        name = str(row.get("id", "")).lower()
        drafts |= {name: {**DEFAULTS, **drafts.get(name, {}), **row, "id": name}}
    for name, upstream in mapped.items():
        drafts |= {name: _mapped(name, upstream, drafts)}
    return drafts


def _mapped(name: str, upstream: str, drafts: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The row of `name` with one id for every dialect; a vendor's or a dated name is a row like the model's."""
    known = {alias: draft for draft in drafts.values() for alias in draft.get("aliases", ())} | dict(drafts)
    like = next(known[other] for other in (*_names(name), PATTERN) if other in known)
    # What is sold, and for how long, is said of the model's own name.
    own = {} if like["id"] == name else {"aliases": (), "retires": None}
    return {**like, **own, "id": name, "upstream": dict.fromkeys(DIALECTS, upstream)}


def _names(name: str) -> Iterator[str]:
    """The names a model is looked up by, the first that is known wins (spec MOD-2, MOD-6)."""
    plain = name.rpartition("/")[2]
    yield from (name, plain)
    if dated := DATED.fullmatch(plain):
        yield dated[1]


def _checked(drafts: Iterable[Mapping[str, Any]], origin: str) -> tuple[list[ModelRow], list[str]]:
    rows: list[ModelRow] = []
    complaints: list[str] = []
    for draft in drafts:
        try:
            rows.append(ROW.validate_python(draft))
        except ValidationError as error:
            complaints += _complaints(error, f"model {draft['id']} ({origin})")
    return rows, complaints


def _complaints(error: ValidationError, origin: str) -> list[str]:
    return [
        ": ".join(filter(None, (origin, ".".join(map(str, detail["loc"])), sources.explain(detail))))
        for detail in error.errors()
    ]


def _is_served(row: ModelRow, chosen: Settings) -> bool:
    """Whether there is a pool for it: what none serves is on nobody's list."""
    return not chosen.pools or any(pool.serves(row["id"]) for pool in chosen.pools)


def _settled(row: ModelRow, templates: Mapping[str, Template], chosen: Settings) -> ModelRow:
    """The row under these settings, naming each upstream model that does not render prompts as the row says."""
    served = {dialect: templates[model] for dialect, model in row["upstream"].items() if model in templates}
    differing = {dialect: template for dialect, template in served.items() if template != row["template"]}
    by_pool = {pool.row_key: pool.map[row["id"]] for pool in chosen.pools if row["id"] in pool.map}
    rendered = {
        pool.row_key: templates.get(pool.map[row["id"]], row["templates"].get(pool.dialect, row["template"]))
        for pool in chosen.pools
        if row["id"] in pool.map
    }
    row = {
        **row,
        "upstream": {**row["upstream"], **by_pool},
        "templates": {**differing, **row["templates"], **rendered},
    }
    return row if chosen.think_in_content == "auto" else {**row, "think_in_content": chosen.think_in_content}
