"""Every setting: its type, its default, its help, and what it must agree with; one frozen `Settings`.

`sources` reads them: flags are stronger than `DASHSEEK_*` variables, these than the file, the file than the defaults.
All that is wrong is told at once, with the place where it was said.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ByteSize, ConfigDict, Field, SecretStr, ValidationInfo, field_validator

from config import values
from config.pools import Dialect, Pool, PoolTable
from config.values import (
    Bytes,
    Certificates,
    File,
    HostNames,
    ImageTypes,
    Key,
    Limits,
    LimitTable,
    NewFile,
    Number,
    Origins,
    Port,
    RedisUrl,
    Route,
    Seconds,
    SecondsOrZero,
    Statuses,
    Table,
    TargetUrls,
    UrlPath,
    Word,
)

PREFIX = "DASHSEEK_"
CONFIG_VARIABLE = "DASHSEEK_CONFIG"

Loop = Literal["auto", "asyncio", "uvloop"]
Auth = Literal["passthrough", "any", "none", "keys"]
LogLevel = Literal["debug", "info", "warning", "error"]
LogFormat = Literal["auto", "json", "console"]
JournalSync = Literal["never", "interval", "always"]
JournalPolicy = Literal["refuse", "continue"]
RedisPolicy = Literal["open", "closed"]
Tracing = Literal["off", "otlp"]
CancelPolicy = Literal["abort", "drain"]
ImageAddress = Literal["pass", "refuse"]
ThinkInContent = Literal["auto", "yes", "no"]
Affinity = Literal["off", "prefix", "key"]
Reload = Literal["signal", "watch"]
# What may be asked elsewhere: these say that nothing was done.
FAILOVER_STATUSES = (429, 503, 529)
# Whatever a limit may say, in the order of its table.
QUANTITIES = ", ".join(values.LIMITS)
# Settled by a validator, from the fields before it.
UNSET: Any = None


def _failover_statuses(statuses: tuple[int, ...]) -> tuple[int, ...]:
    if not {*statuses} <= {*FAILOVER_STATUSES}:
        raise ValueError("must be of 429, 503, 529: no other status says that nothing was done")
    return statuses


class SettingsError(Exception):
    """Settings that cannot be used.

    lines: one complaint each: the setting, where it was said, what is wrong, what would be right; never its value
    """

    def __init__(self, lines: Iterable[str]) -> None:
        self.lines = tuple(lines)
        super().__init__("\n".join(self.lines))


class Settings(BaseModel):
    """Everything an operator decides; times in seconds, sizes in bytes, paths as the process sees them.

    A later field may look at earlier ones (`auth` at the key, `host` at `auth`), so the order is part of the meaning.
    origins: where each setting was said: a flag, a variable, `file:line`, or "default"
    source:  spec ERR-5, HTTP-2, HTTP-15, KEY-1, LIM-1, MET-1, MET-5, MOD-3, MOD-5, OPS-1, OPS-2, PAR-14, SSE-8, SSE-11
    """

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, hide_input_in_errors=True)

    pools: PoolTable = Field(
        default=(), description="Several upstreams of several kinds, each an entry [[pools]] of the file."
    )
    upstream: TargetUrls = Field(
        default=(),
        title="URL",
        description="Base URL that /chat/completions is added to; a second one is tried when the first fails.",
    )
    upstream_api_key_file: File | None = Field(
        default=None, title="FILE", description="File that holds the upstream key and nothing else."
    )
    upstream_api_key: Key | None = Field(
        default=None, description="Upstream key. Not a flag and not in the file: both are easily read by others."
    )
    upstream_ca_file: Certificates | None = Field(
        default=None,
        title="FILE",
        description="Certificates (PEM) to trust instead of the system's. TLS is always verified.",
    )
    dialect: Annotated[Dialect, Word] = Field(
        default="deepseek", description="How the upstream differs from the others."
    )

    affinity: Annotated[Affinity, Word] = Field(
        default="off",
        description="Ask the same upstream for calls that begin alike, so that its prefix cache has them. prefix: by "
        "the beginning of the prompt. key: by the caller's key. off: by load alone.",
    )
    max_attempts: Number = Field(
        default=2, le=5, title="NUMBER", description="Most tries of one upstream call, the first included."
    )
    failover_on: Annotated[Statuses, AfterValidator(_failover_statuses)] = Field(
        default=(),
        title="STATUS",
        description="Statuses of an upstream after which another one is asked: 429, 503, 529.",
    )
    health_interval: Seconds | None = Field(
        default=None,
        title="SECONDS",
        description="Ask each upstream whether it is well so often. Unset: its answers to calls tell.",
    )
    health_path: UrlPath | None = Field(
        default=None,
        title="PATH",
        description="What it is then asked for, from the root of its host, such as /health. Unset: its list of models.",
    )

    models_file: File | None = Field(
        default=None,
        title="FILE",
        description="More rows for the model table, or other values for the shipped ones (TOML).",
    )
    map: Table = Field(
        default={},
        title="NAME=UPSTREAM_ID",
        description="Ask upstream for UPSTREAM_ID where a caller says NAME; a new NAME is a new model.",
    )
    aliases: Table = Field(default={}, title="NAME=MODEL", description="Let callers say NAME for MODEL.")
    model_route: Route = Field(
        default="/{partner}/models/{model}",
        title="PATH",
        description="Second path for calls, with the model in it; {model} may hold slashes. off: no such path.",
    )
    strict_thinking: bool | None = Field(
        default=None,
        description="Calls that think must ask for SSE and incremental output. Unset: as each model's row says.",
    )

    think_in_content: Annotated[ThinkInContent, Word] = Field(
        default="auto",
        description="Whether the chain of thought comes inside the content. yes: always, and content begins inside it. "
        "no: never. auto: as each model's row says, which as shipped is where deepseek-r1 opens with <think>.",
    )

    keys_file: File | None = Field(
        default=None, title="FILE", description="SHA-256 digests of the keys that callers may use. Re-read on change."
    )
    auth: Annotated[Auth, Word] = Field(
        default=UNSET,
        description="Whose key pays. passthrough: the caller's goes upstream. any: a key must be there, any will do. "
        "none: none needed. keys: one of the keys file. Unset: keys with a keys file, any with an upstream key, else "
        "passthrough.",
    )
    host: str = Field(default="127.0.0.1", min_length=1, title="HOST", description="Address to listen on.")
    port: Port = Field(default=8080, description="Port to listen on; 0 picks a free one.")
    admin_host: str = Field(
        default="127.0.0.1", min_length=1, title="HOST", description="Address of health and metrics."
    )
    admin_port: Port = Field(
        default=UNSET, description="Port of health and metrics. Unset: the port after the one above."
    )
    tls_cert: File | None = Field(
        default=None,
        title="FILE",
        description="Certificate (PEM) with its chain: callers speak TLS 1.2 or newer. Re-read on change.",
    )
    tls_key: File | None = Field(default=None, title="FILE", description="Its key (PEM), without a pass phrase.")
    cors_origin: Origins = Field(
        default=(),
        title="ORIGIN",
        description="Origin of web pages that may call and read the answers, such as https://chat.example.com; * is "
        "every page, where callers bring keys that are judged. With auth any or none, pages of other origins are "
        "refused.",
    )
    trusted_host: HostNames = Field(
        default=(),
        title="NAME",
        description="Name that pages of our own, and whoever asks an admin port on loopback, may find us by, beside "
        "addresses and localhost.",
    )

    limits: Limits | None = Field(
        default=None,
        title="LIMIT",
        description=f"Most of all calls: {QUANTITIES}, such as 'concurrency=64 rpm=600 tpm=1000000'. They are calls "
        "open and calls a second, calls and tokens a minute, tokens a day and a month, and what callers owe for both.",
    )
    key_limits: Limits | None = Field(
        default=None,
        title="LIMIT",
        description=f"Most of each key, unless its entry in the keys file says its own: {QUANTITIES}.",
    )
    model_limits: LimitTable = Field(
        default={}, title="NAME=LIMIT", description="Most of all calls to model NAME, such as 'deepseek-r1=rpm=60'."
    )
    redis_url: RedisUrl | None = Field(
        default=None, description="Redis that several processes keep their limits in. Unset: each has its own."
    )
    redis_policy: Annotated[RedisPolicy, Word] = Field(
        default="open", description="While Redis is away. open: calls go without limits. closed: they are refused."
    )
    prices_file: File | None = Field(
        default=None,
        title="FILE",
        description="What callers owe, for limits of money, as for `usage sum --prices`.",
    )

    journal_file: NewFile | None = Field(
        default=None,
        title="FILE",
        description="Append two lines of JSON for each call: its usage, how it ended. Several processes may share it. "
        "-: standard output.",
    )
    journal_fsync: Annotated[JournalSync, Word] = Field(
        default="interval",
        description="When lines are forced to the disk. interval: every second. always: each, while all calls wait.",
    )
    journal_max_bytes: Bytes | None = Field(
        default=None,
        title="BYTES",
        description="Size at which the file becomes FILE.1, then FILE.2 and so on. Unset: left to logrotate.",
    )
    journal_policy: Annotated[JournalPolicy, Word] = Field(
        default="refuse",
        description="While it cannot be written. refuse: no calls. continue: count the lines that are missing.",
    )
    cancel_policy: Annotated[CancelPolicy, Word] = Field(
        default="abort",
        description="When a caller leaves. abort: upstream is stopped. drain: it is read on, for the record alone.",
    )
    cancel_drain_timeout: Seconds = Field(
        default=60, description="With drain: for upstream to end after its caller has left; then it is stopped."
    )
    cancel_drain_tokens: Number = Field(
        default=8192,
        title="NUMBER",
        description="With drain: most tokens generated after the caller has left; then upstream is stopped.",
    )
    max_connections: Number | None = Field(
        default=None,
        title="NUMBER",
        description="Most open connections of callers; beyond them it is 503. Unset: half the limit of open files.",
    )
    max_body_bytes: Bytes = Field(default=ByteSize(12 << 20), description="Longest call, unpacked; also 8MiB.")
    max_open_bytes: Bytes = Field(
        default=ByteSize(256 << 20), description="Most that the calls of all open connections hold, unpacked; else 503."
    )
    max_image_bytes: Bytes = Field(
        default=ByteSize(20 << 20),
        description="Longest images of a call together, as written in it, beside max_body_bytes; where models see.",
    )
    max_images: Number = Field(default=50, le=600, title="NUMBER", description="Most images in a call.")
    image_type: ImageTypes = Field(
        default=("png", "jpeg", "gif", "webp"),
        title="TYPE",
        description="What an image that comes along may be, by its own first bytes: png, jpeg, gif, webp.",
    )
    image_address: Annotated[ImageAddress, Word] = Field(
        default="pass",
        description="An image that is told by its address. pass: upstream fetches it. refuse: for engines of your own "
        "that would fetch what only they can reach.",
    )
    max_event_bytes: Bytes = Field(default=ByteSize(16 << 20), description="Longest single event of an upstream.")

    loop: Annotated[Loop, Word] = Field(
        default="auto",
        description="What turns the event loop. auto: uvloop where it is installed (pip install '.[fast]'), "
        "else asyncio.",
    )
    workers: Number = Field(
        default=1, le=64, title="NUMBER", description="Processes that serve the port; they share limits in Redis alone."
    )

    header_timeout: Seconds = Field(default=10, description="For a caller to send the head of a call.")
    body_timeout: Seconds = Field(default=30, description="For a caller to send the body.")
    connect_timeout: Seconds = Field(default=5, description="To connect to an upstream, TLS included.")
    first_token_timeout: Seconds = Field(default=300, description="From the upstream call to its first token.")
    idle_timeout: Seconds = Field(
        default=120, description="Between two tokens. Upstream's keep-alive comments do not count."
    )
    write_timeout: Seconds = Field(default=60, description="For a caller who does not read what we write.")
    total_timeout: Seconds = Field(default=3600, description="For a whole call.")
    usage_timeout: Seconds = Field(default=2, description="For upstream's usage, once the answer is complete.")
    head_hold: Seconds = Field(default=25, description="Longest wait for a first packet before the 200 goes out alone.")
    heartbeat: Seconds = Field(default=15, description="Between two comments to the caller while nothing else is sent.")
    keepalive_timeout: Seconds = Field(default=75, description="To keep a caller's idle connection.")
    upstream_keepalive_timeout: Seconds = Field(
        default=4, description="To keep an idle upstream connection; less than the upstream does (uvicorn: 5)."
    )
    drain_delay: SecondsOrZero = Field(default=0, description="Not ready but still serving, after the first SIGTERM.")
    drain_timeout: SecondsOrZero = Field(default=600, description="For open calls to end, after that.")

    log_level: Annotated[LogLevel, Word] = Field(default="info", description="Least severe event to log.")
    log_format: Annotated[LogFormat, Word] = Field(
        default="auto", description="auto: console on a terminal, else json."
    )
    log_upstream_text: bool = Field(
        default=True,
        description="Say in the log of a failure what upstream said of it: at most 300 characters, without keys, "
        "addresses and ids, and not where it repeats the call.",
    )
    tracing: Annotated[Tracing, Word] = Field(
        default="off", description="otlp: send spans to where OTEL_EXPORTER_OTLP_ENDPOINT says (extra otel)."
    )
    inspect: bool | None = Field(
        default=None,
        description="Keep the last 200 calls, both sides of each, in memory, for /calls on the admin port: texts, no "
        "keys. Loopback and one worker only.",
    )

    reload: Annotated[Reload, Word] = Field(
        default="signal",
        description="When the configuration is read anew. signal: on SIGHUP. watch: also when its file has changed.",
    )

    origins: dict[str, str] = Field(default={}, repr=False)

    def of_worker(self, number: int) -> Settings:
        """The settings of one of its processes, counted from 1: what all may have together is divided among them."""
        return self.model_copy(update={"pools": tuple(pool.part(number, self.workers) for pool in self.pools)})

    @property
    def pools_in_force(self) -> tuple[Pool, ...]:
        """The pools that calls go to: those of the file, or the one of `--upstream`, whose name is empty."""
        return self.pools or (
            Pool.model_construct(
                name="",
                urls=self.upstream,
                dialect=self.dialect,
                api_key_file=self.upstream_api_key_file,
                api_key=self.upstream_api_key,
                # As it has always been: a second URL is for when the first fails.
                spread="order",
                ca_file=self.upstream_ca_file,
            ),
        )

    @field_validator("upstream_api_key", mode="after")
    @classmethod
    def _from_file(cls, key: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        path: Path | None = info.data.get("upstream_api_key_file")
        if key and path:
            raise ValueError("is said twice: here and in upstream_api_key_file")
        return values.key_of(path) if path else key

    @field_validator("auth", mode="before")
    @classmethod
    def _by_the_key(cls, auth: object, info: ValidationInfo) -> object:
        """The default: `keys` with a keys file, `any` with an upstream key of ours, else `passthrough`."""
        if auth is not None:
            return auth
        if info.data.get("keys_file"):
            return "keys"
        own = info.data.get("upstream_api_key") or any(pool.api_key for pool in info.data.get("pools") or ())
        return "any" if own else "passthrough"

    @field_validator("auth", mode="after")
    @classmethod
    def _keys_need_a_file(cls, auth: Auth, info: ValidationInfo) -> Auth:
        if (auth == "keys") != bool(info.data.get("keys_file")) and "keys_file" in info.data:
            raise ValueError("keys and keys_file go together: say both or neither")
        if auth == "passthrough" and any(pool.api_key for pool in info.data.get("pools") or ()):
            raise ValueError(
                "with passthrough callers' own keys go upstream, and a pool has one of ours: say keys_file (callers "
                "you know), or leave its key out"
            )
        return auth

    @field_validator("tls_key", mode="after")
    @classmethod
    def _with_its_certificate(cls, key: Path | None, info: ValidationInfo) -> Path | None:
        if "tls_cert" not in info.data:
            return key
        cert: Path | None = info.data["tls_cert"]
        if (cert is None) != (key is None):
            raise ValueError("tls_cert and tls_key go together: say both or neither")
        if cert is not None and key is not None:
            values.certificate(cert, key)
        return key

    @field_validator("host", mode="after")
    @classmethod
    def _open_to_the_world(cls, host: str, info: ValidationInfo) -> str:
        auth = info.data.get("auth")
        if auth in {"any", "none"} and not is_loopback(host):
            raise ValueError(
                f"with auth = {auth} whoever reaches this address may call: bind 127.0.0.1, "
                "or say --auth passthrough (callers bring their own key) or --keys-file FILE (callers you know)"
            )
        return host

    @field_validator("cors_origin", mode="after")
    @classmethod
    def _no_page_pays_with_our_key(cls, origins: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        auth = info.data.get("auth")
        if "*" in origins and auth in {"any", "none"}:
            raise ValueError(
                f"with auth = {auth} any website could call at your cost: name the origins, "
                "or say --auth passthrough (callers bring their own key) or --keys-file FILE (callers you know)"
            )
        return origins

    @field_validator("workers", mode="after")
    @classmethod
    def _share_their_limits(cls, workers: int, info: ValidationInfo) -> int:
        limited = any(info.data.get(name) for name in ("limits", "key_limits", "model_limits"))
        if workers > 1 and limited and not info.data.get("redis_url"):
            raise ValueError(f"each of several processes would allow the whole limit: say {PREFIX}REDIS_URL as well")
        for pool in info.data.get("pools", ()):
            most = pool.max_in_flight
            if most is not None and most < workers:
                raise ValueError(
                    f"each has its part of max_in_flight = {most} of the pool {pool.name}, and needs one: "
                    f"say --workers {most} at most, or a greater max_in_flight"
                )
        return workers

    @field_validator("inspect", mode="after")
    @classmethod
    def _seen_from_here_alone(cls, inspect: bool | None, info: ValidationInfo) -> bool | None:
        if not inspect:
            return inspect
        for name in ("host", "admin_host"):
            if name in info.data and not is_loopback(info.data[name]):
                raise ValueError(f"shows what callers say: {name} must be an address of loopback, such as 127.0.0.1")
        if info.data.get("workers", 1) > 1:
            raise ValueError("shows the calls of one process: say --workers 1")
        return inspect

    @field_validator("prices_file", mode="after")
    @classmethod
    def _money_has_prices(cls, prices_file: Path | None, info: ValidationInfo) -> Path | None:
        if prices_file is None and any(limit.of_money for limit in _limits(info)):
            raise ValueError("limits of money, cost_day and cost_month, need one")
        return prices_file

    @field_validator("admin_port", mode="before")
    @classmethod
    def _next_port(cls, admin_port: object, info: ValidationInfo) -> object:
        port = info.data.get("port", 0)
        return (port and port + 1) if admin_port is None else admin_port

    @field_validator("admin_port", mode="after")
    @classmethod
    def _another_port(cls, admin_port: int, info: ValidationInfo) -> int:
        if admin_port and admin_port == info.data.get("port"):
            raise ValueError("must not be the port of the calls")
        return admin_port


def _limits(info: ValidationInfo) -> list[values.Limit]:
    """All limits that are said."""
    said = [info.data.get("limits"), info.data.get("key_limits"), *(info.data.get("model_limits") or {}).values()]
    return [limit for limit in said if limit is not None]


SECTIONS: Mapping[str, tuple[str, ...]] = {
    "Upstream": (
        "pools",
        "upstream",
        "upstream_api_key",
        "upstream_api_key_file",
        "upstream_ca_file",
        "dialect",
        "affinity",
        "max_attempts",
        "failover_on",
        "health_interval",
        "health_path",
    ),
    "Models": ("map", "aliases", "models_file", "model_route", "strict_thinking", "think_in_content"),
    "Callers": (
        "host",
        "port",
        "auth",
        "keys_file",
        "tls_cert",
        "tls_key",
        "cors_origin",
        "trusted_host",
        "max_body_bytes",
        "max_open_bytes",
        "max_image_bytes",
        "max_images",
        "image_type",
        "image_address",
        "max_connections",
    ),
    "Limits": ("limits", "key_limits", "model_limits", "redis_url", "redis_policy", "prices_file"),
    "Metering": (
        "journal_file",
        "journal_fsync",
        "journal_max_bytes",
        "journal_policy",
        "cancel_policy",
        "cancel_drain_timeout",
        "cancel_drain_tokens",
    ),
    "Time limits": (
        "header_timeout",
        "body_timeout",
        "connect_timeout",
        "first_token_timeout",
        "idle_timeout",
        "write_timeout",
        "total_timeout",
        "usage_timeout",
    ),
    "Streams and connections": (
        "head_hold",
        "heartbeat",
        "max_event_bytes",
        "keepalive_timeout",
        "upstream_keepalive_timeout",
    ),
    "Operation": (
        "workers",
        "loop",
        "admin_host",
        "admin_port",
        "drain_delay",
        "drain_timeout",
        "log_level",
        "log_format",
        "log_upstream_text",
        "tracing",
        "reload",
        "inspect",
    ),
}
NAMES = tuple(name for names in SECTIONS.values() for name in names)
TABLES = frozenset({"map", "aliases", "model_limits"})
# Of the file alone.
FILE_ONLY = frozenset({"pools"})
# What `pools` says in its entries.
SHORTHAND = ("upstream", "upstream_api_key", "upstream_api_key_file", "upstream_ca_file", "dialect", "map")
SECRETS = frozenset({"upstream_api_key", "redis_url"})
FLAGS: Mapping[str, str] = {
    name: "--" + {"aliases": "alias", "model_limits": "model_limit"}.get(name, name).replace("_", "-")
    for name in NAMES
    if name not in SECRETS | FILE_ONLY
}
VARIABLES: Mapping[str, str] = {name: PREFIX + name.upper() for name in NAMES if name not in FILE_ONLY}
KEY = re.compile(r"""\s*\[*\s*["']?([\w-]+)""")


def shown(settings: Settings, name: str) -> str | None:
    """One setting as a file would say it; None where it is not set. A secret is there as a comment, without its value.

    name: one of `NAMES`
    """
    value = getattr(settings, name)
    if isinstance(value, SecretStr):
        return f"# {name} = (secret)"
    if name == "pools":
        value = [pool.said() for pool in value]
    if name == "model_route" and value is None:
        value = "off"
    return None if value is None else f"{name} = {values.toml(value)}"


def is_loopback(host: str) -> bool:
    """Whether only this machine can be at, or reach, an address."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
