"""A file of callers into who may call: each known by the SHA-256 of a key, with the models and the limits it has.

    [[key]]
    name = "team a"
    sha256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
    models = ["deepseek-v3", "deepseek-r1"]     # all, where it is not said; by any name callers may use
    limits = { concurrency = 8, rpm = 60 }      # those of `key_limits`, where it is not said

Re-read when it changes; a new version that cannot be read leaves the old one in force, and so does one without any key
for a while: it may be about to be written. Source: spec KEY-1.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import re
import tomllib
import unicodedata
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal

import structlog
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from config import sources, values
from config.file_version import version_if_there
from config.settings import PREFIX, SettingsError
from config.values import Limit, Limits
from translators import faults
from translators.catalogue import Catalogue

log = structlog.get_logger()

LOOK_EVERY_S: Final = 1.0
# A file without keys is one that somebody writes anew, until it has been so for more looks than this.
EMPTY_LOOKS: Final = 3
# Unicode categories of what no line of a log or a table shows: control characters, line ends, half a character.
UNSHOWN: Final = frozenset({"Cc", "Zl", "Zp", "Cs"})
# Enough digits to find a key by; what decides is all of them.
INDEX_BYTES: Final = 8
FINGERPRINT_DIGITS: Final = 12

Name = Annotated[str, Field(min_length=1, max_length=64)]
Digest = Annotated[str, BeforeValidator(values.word), Field(pattern=r"^[0-9a-f]{64}$")]
Model = Annotated[str, BeforeValidator(values.word), Field(min_length=1)]


class KeyRow(BaseModel):
    """One `[[key]]` of the file."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    name: Name
    sha256: Digest
    models: Annotated[tuple[Model, ...], Field(min_length=1)] | None = None
    limits: Limits | None = None


class File(BaseModel):
    """The file."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    key: tuple[KeyRow, ...] = ()


@dataclass(frozen=True, slots=True)
class Key:
    """A caller we know.

    name:   what the operator calls it
    digest: the SHA-256 of its key
    models: ids it may ask for; None: all
    limits: its own; None: those of every key
    """

    name: str
    digest: bytes
    models: frozenset[str] | None = None
    limits: Limit | None = None

    @property
    def fingerprint(self) -> str:
        """Names the key in logs and records without giving it away."""
        return self.digest.hex()[:FINGERPRINT_DIGITS]

    def check_model(self, model: str) -> None:
        """Raise `Refusal` where this caller may not ask for a model, named by its id."""
        if self.models is not None and model not in self.models:
            raise faults.Refusal(faults.ACCESS_DENIED, f"the key {self.name!r} may not ask for {model}")


Keys = Mapping[bytes, Key]
# What limits of a day or a month can be here: none where processes share no Redis, money where callers have prices.
Budgeted = Literal["none", "tokens", "money"]


class Keyring:
    """The keys that are in force.

    path:      their file
    catalogue: the models they may name
    """

    def __init__(self, path: Path, catalogue: Catalogue, budgets: Budgeted = "money") -> None:
        self._path = path
        self._catalogue = catalogue
        self._version = version_if_there(path)
        self._budgets = budgets
        self._keys = read(path, catalogue, budgets)
        self._empty_looks = 0

        self._watching: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Keep the keys fresh from now on."""
        self._watching = asyncio.create_task(self.keep_fresh())

    def end(self) -> None:
        """Keep them fresh no more."""
        if self._watching is not None:
            self._watching.cancel()
            self._watching = None

    def __len__(self) -> int:
        return len(self._keys)

    @property
    def keys(self) -> Collection[Key]:
        """Each of them."""
        return self._keys.values()

    @property
    def has_budgets(self) -> bool:
        """Whether a key has a limit of a day or a month."""
        return any(key.limits is not None and key.limits.of_period for key in self._keys.values())

    def find(self, secret: str) -> Key:
        """The caller who brings this key; raises `Refusal` where nobody does."""
        digest = digest_of(secret)
        # How long the lookup takes can tell something about a part of a hash. A guesser cannot steer the hash of a
        # guess, and even the whole of a true one is no key. What decides takes the same time for every digest.
        key = self._keys.get(digest[:INDEX_BYTES])
        if key is None or not hmac.compare_digest(key.digest, digest):
            raise faults.Refusal(faults.BAD_KEY, "no such key in the keys file")
        return key

    async def keep_fresh(self) -> None:
        """Read the file again when it has changed, until cancelled; looks once a second, and reads in a thread."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            await self.refresh()

    async def refresh(self) -> None:
        """Read the file again if it has changed; one that cannot be read, or is empty, is logged once and kept out."""
        version = version_if_there(self._path)
        if version != self._version:
            self._version = version
            await self._read()
        elif self._empty_looks:
            self._look_at_none()

    async def _read(self) -> None:
        self._empty_looks = 0
        try:
            keys = await asyncio.to_thread(read, self._path, self._catalogue, self._budgets)
        except SettingsError as error:
            log.error("keys_kept", reason=error.lines, keys=len(self._keys))
            return
        if keys or not self._keys:
            self._take(keys)
        else:
            log.error("keys_kept", reason=(f"keys_file ({self._path}): holds no key",), keys=len(self._keys))
            self._look_at_none()

    def _look_at_none(self) -> None:
        self._empty_looks += 1
        if self._empty_looks > EMPTY_LOOKS:
            self._empty_looks = 0
            self._take({})

    def _take(self, keys: Keys) -> None:
        self._keys = keys
        log.info("keys_read", keys=len(keys))


@asynccontextmanager
async def opened(path: Path, catalogue: Catalogue) -> AsyncIterator[Keyring]:
    """The keys of a file, kept fresh as long as the context lives; raises `SettingsError` where it cannot be read."""
    keyring = Keyring(path, catalogue)
    keyring.begin()
    try:
        yield keyring
    finally:
        keyring.end()


def read(path: Path, catalogue: Catalogue, budgets: Budgeted = "money") -> Keys:
    """The keys of a file by the first bytes of their digests; raises `SettingsError`, which repeats no value of it."""
    read = rows(path)
    unknown = [
        f"keys_file ({path}): key.{number}.models.{place}: there is no such model"
        + sources.guess(name, catalogue.names)
        for number, row in enumerate(read)
        for place, name in enumerate(row.models or ())
        if not catalogue.knows(name)
    ]
    for number, row in enumerate(read):
        if row.limits is not None and row.limits.of_period and budgets == "none":
            unknown.append(
                f"keys_file ({path}): key.{number}.limits: of a day or a month, need one process or {PREFIX}REDIS_URL"
            )
        elif row.limits is not None and row.limits.of_money and budgets == "tokens":
            unknown.append(f"keys_file ({path}): key.{number}.limits: of money, need a prices_file with [[callers]]")
    if unknown:
        raise SettingsError(unknown)
    return {key.digest[:INDEX_BYTES]: key for key in (_key(row, catalogue) for row in read)}


def rows(path: Path) -> tuple[KeyRow, ...]:
    """The rows of a file as they stand; raises `SettingsError`, which repeats no value of it."""
    try:
        read = File.model_validate(tomllib.loads(path.read_text("utf-8"))).key
    except OSError as error:
        raise SettingsError([f"keys_file ({path}): cannot be read: {error.strerror}"]) from None
    except ValidationError as error:
        places = ((".".join(map(str, detail["loc"])), sources.explain(detail)) for detail in error.errors())
        raise SettingsError([f"keys_file ({path}): {where}: {wrong}" for where, wrong in places]) from None
    except (ValueError, RecursionError):  # whose text may hold what stands in the file
        raise SettingsError([f"keys_file ({path}): is not TOML in UTF-8"]) from None
    # Two keys may have one name, the old and the new one of a caller; one key with two names is a slip.
    if len({row.sha256 for row in read}) < len(read):
        raise SettingsError([f"keys_file ({path}): one sha256 is there twice"])
    return read


def digest_of(secret: str) -> bytes:
    """The SHA-256 of a key, whatever bytes a header held."""
    digest = _OF_NOTHING.copy()
    digest.update(secret.encode("utf-8", "surrogateescape"))
    return digest.digest()


# A copy of it takes a fifth of what OpenSSL takes to look up what SHA-256 is: 1.3 % of a small call.
_OF_NOTHING: Final = hashlib.sha256()


def check_line(what: str, said: str) -> None:
    """Raise `ValueError` where a word of a keys file is more than a line of text."""
    if any(unicodedata.category(char) in UNSHOWN for char in said):
        raise ValueError(f"a {what} is one line of text in UTF-8 without control characters, not {said!r}")


def entry(name: str, secret: str) -> str:
    """The `[[key]]` of a caller, to append to a keys file.

    Raises `ValueError` where no header could carry the key, or the name is no line of text.
    """
    check_line("name", name)
    if not re.fullmatch(r"[!-~]+", secret):
        raise ValueError("a key is printable ASCII without spaces, on one line")
    # A TOML string of one line is a JSON string.
    quoted = json.dumps(name, ensure_ascii=False)
    return f'\n[[key]]\nname = {quoted}\nsha256 = "{digest_of(secret).hex()}"'


def _key(row: KeyRow, catalogue: Catalogue) -> Key:
    may_ask_for = None if row.models is None else frozenset(catalogue.find(name).id for name in row.models)
    return Key(row.name, bytes.fromhex(row.sha256), may_ask_for, row.limits)
