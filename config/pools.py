"""One `[[pools]]` entry into a checked `Pool`: upstreams of one kind, the models they serve, and how they are asked.

A key is never said in the file: a variable or a file of its own holds it. Source: spec ERR-4, OPS-3.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final, Literal, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationInfo,
    field_validator,
)
from pydantic_core import PydanticCustomError

from config import values
from config.values import Certificates, File, Key, Names, Number, Seconds, Table, TargetUrls, Word

Dialect = Literal["deepseek", "vllm", "sglang", "llamacpp", "siliconflow", "ark", "openai"]
Spread = Literal["load", "order"]
DIALECTS: Final[tuple[Dialect, ...]] = get_args(Dialect)

EVERY_MODEL: Final = "*"
# What each pool's entry in a model's row is filed under, beside the dialects, which have no colon.
ROW_PREFIX: Final = "pool:"
# Headers that are ours to say: they frame a request, carry its key, or find it again.
OURS: Final = frozenset(
    {
        *("accept", "accept-encoding", "authorization", "connection", "content-length", "content-type", "expect"),
        *("host", "te", "trailer", "transfer-encoding", "upgrade", "user-agent"),
        *("x-request-id", "traceparent", "tracestate"),
    }
)
POOL_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,31}")
_HEADER: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE: Final = re.compile(r"[!-~]+( +[!-~]+)*")
# What stands for the value of a header where an entry is shown: it may be a secret.
UNSHOWN: Final = "(secret)"


def _headers(said: Mapping[str, str]) -> Mapping[str, str]:
    for name, value in said.items():
        if not _HEADER.fullmatch(name):
            raise ValueError("a name must be that of a header, such as X-Tenant")
        if name.lower() in OURS:
            raise ValueError(f"{name.lower()} is not to be said here: dashseek says it itself")
        if not _VALUE.fullmatch(value):
            raise ValueError(f"{name}: must be printable ASCII on one line")
        if value == UNSHOWN:
            raise ValueError(f"{name}: {UNSHOWN} stands for a value that is not printed: say the value itself")
    return said


def _each_once(urls: tuple[str, ...]) -> tuple[str, ...]:
    bare = [url.rstrip("/") for url in urls]
    if twice := sorted({url for url in bare if bare.count(url) > 1}):
        raise ValueError(f"{', '.join(twice)} is there twice: say each URL once; weight is how a pool takes more")
    return urls


def _variable(name: str, info: ValidationInfo) -> str:
    """The name of a variable that is set; what may be a key instead of a name is not repeated."""
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        raise ValueError("must be the name of a variable, such as ENGINE_API_KEY")
    if not _environ(info).get(name):
        shown = name if re.fullmatch(r"[A-Z][A-Z0-9_]*", name) else "that variable"
        raise ValueError(f"{shown} is not set, or is empty: set it where dashseek is started")
    return name


def _environ(info: ValidationInfo) -> Mapping[str, str]:
    found: Mapping[str, str] = (info.context or {}).get("environ", {})
    return found


def _name(text: str) -> str:
    if not POOL_NAME.fullmatch(text):
        raise ValueError("must be a name of 1 to 32 letters, digits, _, . and -, which begins with a letter or digit")
    return text


def _with_a_key(path: Path, info: ValidationInfo) -> Path:
    if info.data.get("api_key_env"):
        raise ValueError("a key is said twice: say api_key_env or api_key_file")
    values.key_of(path)
    return path


class Pool(BaseModel):
    """Upstreams of one kind.

    name:                names it in records, metrics and on pages; "" is the one pool of `--upstream`
    urls:                base URLs; `dns+http://NAME:PORT/v1` is one target for each address of the name
    dialect:             how they differ from the others
    api_key_env, api_key_file: where its key is; without both none is sent, or the caller's (auth passthrough)
    models:              names of the models it serves, or `*`
    map:                 the id a model has there, by its name
    weight:              how much of the load it takes beside pools of the same priority
    priority:            0 is asked first; a greater one where nothing is well and free before it
    max_in_flight:       most upstream calls at a time of each target, in all workers; None: no bound
    spread:              load: the less loaded of two picked at random; order: the first in the list that is well
    connect_timeout, first_token_timeout: its own, in seconds; None: those of all
    ca_file:             certificates to trust instead of the system's
    headers:             said with each of its requests
    """

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, hide_input_in_errors=True)

    name: Annotated[str, AfterValidator(_name)]
    urls: Annotated[TargetUrls, Field(min_length=1), AfterValidator(_each_once)]
    dialect: Annotated[Dialect, Word] = "deepseek"
    api_key_env: Annotated[str, AfterValidator(_variable)] | None = None
    api_key_file: Annotated[File, AfterValidator(_with_a_key)] | None = None
    models: Annotated[Names, Field(min_length=1)] = (EVERY_MODEL,)
    map: Table = {}
    weight: Annotated[float, BeforeValidator(values.number), Field(gt=0, le=1000, allow_inf_nan=False)] = 1.0
    priority: Annotated[int, BeforeValidator(values.number), Field(ge=0, le=100)] = 0
    max_in_flight: Number | None = None
    spread: Annotated[Spread, Word] = "load"
    connect_timeout: Seconds | None = None
    first_token_timeout: Seconds | None = None
    ca_file: Certificates | None = None
    headers: Annotated[dict[str, str], AfterValidator(_headers)] = {}
    api_key: Key | None = Field(default=None, repr=False)

    @field_validator("api_key", mode="before")
    @classmethod
    def _kept_elsewhere(cls, said: object, info: ValidationInfo) -> object:
        """The key, from the variable or the file that holds it."""
        if said is not None:
            raise ValueError("a secret does not belong here: say api_key_env, or api_key_file")
        if (variable := info.data.get("api_key_env")) is not None:
            return SecretStr(_environ(info)[variable])
        path: Path | None = info.data.get("api_key_file")
        return None if path is None else values.key_of(path)

    @property
    def row_key(self) -> str:
        """What its entries in a model's row are filed under."""
        return ROW_PREFIX + self.name

    def part(self, number: int, workers: int) -> Pool:
        """The pool as one of several processes has it, counted from 1: each has its part of `max_in_flight`."""
        if self.max_in_flight is None:
            return self
        each, more = divmod(self.max_in_flight, workers)
        return self.model_copy(update={"max_in_flight": each + (number <= more)})

    def serves(self, model: str) -> bool:
        """Whether it serves a model, named by its id."""
        return EVERY_MODEL in self.models or model in self.models

    def said(self) -> dict[str, object]:
        """The entry as a file would say it; neither its key is in it, nor what its headers say."""
        return {
            name: dict.fromkeys(value, UNSHOWN)
            if name == "headers"
            else str(value)
            if isinstance(value, Path)
            else value
            for name in type(self).model_fields
            if name != "api_key"
            and (value := getattr(self, name)) is not None
            # What is left at its default need not be said.
            and value != type(self).model_fields[name].default
        }


# What an entry may say; its key is kept elsewhere.
FIELDS: Final = frozenset(Pool.model_fields) - {"api_key"}


def _entries(said: object) -> object:
    if not isinstance(said, list | tuple) or not all(isinstance(entry, Mapping | Pool) for entry in said):
        raise ValueError("must be a list of entries, each below a line [[pools]]")
    return said


def _apart(pools: tuple[Pool, ...]) -> tuple[Pool, ...]:
    names: set[str] = set()
    for number, pool in enumerate(pools):
        if pool.name in names:
            raise PydanticCustomError(
                "twice", "another pool has that name: say one of its own", {"at": (number, "name")}
            )
        names.add(pool.name)
    return pools


PoolTable = Annotated[tuple[Pool, ...], BeforeValidator(_entries), AfterValidator(_apart)]
