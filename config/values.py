"""Words an operator writes, into values of a kind: seconds, ports, bytes, lists, tables, base URLs, routes, limits.

One kind serves all three places a value is said in: a variable and a flag are text, a file has types of its own.
`title` is how a value of the kind looks in a help text. Complaints never repeat the value.
"""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, ByteSize, Field, FilePath, SecretStr

if TYPE_CHECKING:
    import ssl


@dataclass(frozen=True, slots=True)
class Limit:
    """How much is let in; None is without limit.

    concurrency: calls open at the same time
    burst:       calls at once; as many come back every second
    rpm:         calls a minute, all of them at once if need be
    tpm:         tokens a minute, likewise; reserved when a call is let in, settled when it has ended
    tpd:         tokens a day, of this machine's zone: a call is let in while some are left
    tokens_month: likewise, of a month
    cost_day:    money a day, as `prices_file` reckons what callers owe
    cost_month:  likewise, of a month
    source:      spec LIM-1
    """

    concurrency: int | None = None
    burst: int | None = None
    rpm: int | None = None
    tpm: int | None = None
    tpd: int | None = None
    tokens_month: int | None = None
    cost_day: Decimal | None = None
    cost_month: Decimal | None = None

    @property
    def of_period(self) -> bool:
        """Whether some of it is of a day or a month."""
        return any(getattr(self, name) is not None for name in BUDGETS)

    @property
    def of_money(self) -> bool:
        """Whether some of it is money."""
        return self.cost_day is not None or self.cost_month is not None


WORD = re.compile(r"[a-z_]{1,20}")
DURATION = re.compile(r"(\d+(?:\.\d+)?) ?(ms|s|m|min|h)", re.IGNORECASE)
DNS = "dns"
UNITS_S: Mapping[str, float] = {"ms": 1e-3, "s": 1, "m": 60, "min": 60, "h": 3600}
LIMITS = tuple(field.name for field in fields(Limit))
# Limits of a day or a month, of which two are money.
Budget = Literal["tpd", "tokens_month", "cost_day", "cost_month"]
BUDGETS: tuple[Budget, ...] = get_args(Budget)
COSTS = frozenset({"cost_day", "cost_month"})


def number(value: object) -> object:
    """Refuse what Python takes for a number though no operator means one: `idle_timeout = true` is not a second."""
    if isinstance(value, bool):
        raise ValueError("must be a number, not true or false")
    return value


def seconds(value: object) -> object:
    """Seconds, as a number or with a unit as sizes have one: `90`, `500ms`, `60s`, `5m`, `1h`."""
    if isinstance(value, str) and (found := DURATION.fullmatch(value.strip())):
        return float(found[1]) * UNITS_S[found[2].lower()]
    try:
        return float(number(value))  # type: ignore[arg-type]
    except (TypeError, ValueError) as error:
        if isinstance(value, bool):
            raise
        raise ValueError("must be a number of seconds, such as 90, 500ms or 5m") from error


def word(value: object) -> object:
    """A word of a closed set, in any case: `DASHSEEK_LOG_LEVEL=INFO` is common practice."""
    return value.lower() if isinstance(value, str) else value


def items(value: object) -> list[object]:
    """One list, from a repeated flag, a file's list, or a variable's `a,b` or `["a","b"]`."""
    match value:
        case str() if value.startswith("["):
            return items(_json(value))
        case str():
            return [part.strip() for part in value.split(",") if part.strip()]
        case list() | tuple():
            return [part for item in value for part in (items(item) if isinstance(item, str) else [item])]
    raise ValueError('must be text or a list of texts, such as ["https://api.deepseek.com"]')


def table(value: object) -> dict[str, object]:
    """One table, names in lower case, from a mapping, its JSON, `a=b,c=d`, or a list of these, weakest first."""
    match value:
        case Mapping():
            return _once((str(name), entry) for name, entry in value.items())
        case str() if value.startswith("{"):
            return table(_json(value))
        case str():
            return _once(pair(part) for part in value.split(",") if part.strip())
        case list() | tuple():
            return {name: entry for part in value for name, entry in table(part).items()}
    raise ValueError("must be a table, or NAME=VALUE")


def _json(text: str) -> object:
    try:
        json.loads(text)
    except ValueError as error:  # whose text is the parser's
        raise ValueError("begins as JSON does, and is none") from error
    return json.loads(text, object_pairs_hook=_once)


def _once(said: Iterable[tuple[str, object]]) -> dict[str, object]:
    """A table, names in lower case; which of two values of one name was meant nobody knows."""
    named: dict[str, object] = {}
    for name, entry in said:
        key = name.lower()
        if key in named:
            # As where a limit is named: what is no word may be a value.
            twice = key if WORD.fullmatch(key) else "one name"
            raise ValueError(f"says {twice} twice")
        named[key] = entry
    return named


def pair(text: str) -> tuple[str, str]:
    """`NAME=VALUE`, the name in lower case; a second `=` belongs to the value."""
    name, _, value = (part.strip() for part in text.partition("="))
    if not (name and value):
        raise ValueError("must be NAME=VALUE")
    return name.lower(), value


def limit(value: object) -> object:
    """A limit, from a file's table or from words: `rpm=60 tpm=100000`."""
    match value:
        case str():
            return limit(_once(pair(part) for part in re.split(r"[\s,]+", value.strip())))
        case Mapping():
            amounts = _once((str(name), amount) for name, amount in value.items())
            unknown = sorted(amounts.keys() - {*LIMITS})
            if not amounts or unknown:
                # A word is named; what is none may be a value that got into the wrong place.
                words = ", ".join(filter(WORD.fullmatch, unknown))
                wrong = f"there is no limit {words}: " if words else ""
                raise ValueError(f"{wrong}must name one or more of {', '.join(LIMITS)}")
            read: dict[str, Any] = {
                name: (_money if name in COSTS else _count)(name, amount) for name, amount in amounts.items()
            }
            return Limit(**read)
        case Limit():
            return value
    raise ValueError("must be a table, or words such as rpm=60 tpm=100000")


def _count(name: str, amount: object) -> int:
    try:
        count = int(str(amount))
    except ValueError:  # whose text repeats it
        count = 0
    if count < 1:
        raise ValueError(f"{name} must be a whole number, 1 or more, such as {name}=60")
    return count


def _money(name: str, amount: object) -> Decimal:
    try:
        value = Decimal(str(amount))
    except InvalidOperation:  # whose text repeats it
        value = Decimal(0)
    if not value.is_finite() or value <= 0:
        raise ValueError(f"{name} must be an amount of money above 0, such as {name}=12.50")
    return value


def toml(value: object) -> str:
    """A value as a TOML file would say it, which reads as the same value again."""
    match value:
        case bool():
            return str(value).lower()
        case int():
            return str(int(value))  # a size in bytes would tell itself in MiB, rounded
        case Decimal():
            return f"{value:f}"
        case float():
            return repr(value).removesuffix(".0")
        case Limit():
            return toml({name: amount for name in LIMITS if (amount := getattr(value, name)) is not None})
        case Mapping():
            return "{" + ", ".join(f"{_bare(str(name))} = {toml(entry)}" for name, entry in value.items()) + "}"
        case tuple() | list():
            return "[" + ", ".join(map(toml, value)) + "]"
    # A TOML string of one line is a JSON string.
    return json.dumps(str(value), ensure_ascii=False)


def _bare(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else toml(name)


def redis_url(secret: SecretStr) -> SecretStr:
    """Where a Redis is; it may hold a password, so it is kept as one."""
    url = secret.get_secret_value()
    try:
        parts = urlsplit(url)
        known = bool(re.fullmatch(r"[!-~]+", url)) and parts.scheme in {"redis", "rediss", "unix"}
        known = known and bool(parts.path if parts.scheme == "unix" else parts.hostname) and parts.port != 0
    except ValueError:
        known = False
    if not known:
        raise ValueError("must be redis://HOST:PORT/NUMBER, rediss://… for TLS, or unix:///PATH")
    return secret


def path_name(said: object) -> object:
    """What can be the name of a file: one that is too long is an error of the system's wherever it is looked for."""
    if isinstance(said, str | Path):
        try:
            os.stat(said)
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:
                raise ValueError("is longer than the name of a file can be") from error
        except ValueError as error:
            raise ValueError("cannot be the name of a file") from error
    return said


def writable(path: Path) -> Path:
    """A file that is there, or can be made; `-` is standard output."""
    if path == Path("-"):
        return path
    if path.is_dir() or not path.parent.is_dir():
        raise ValueError("must be a file, in a directory that is there")
    return path


def target_url(text: str) -> str:
    """A base URL, or `dns+` and one: as many targets as its name has addresses."""
    scheme, _, rest = text.partition("+")
    if scheme.lower() != DNS:
        return base_url(text)
    url = base_url(rest)
    if re.fullmatch(r"[0-9.]+|.*:.*", urlsplit(url).hostname or ""):
        raise ValueError("dns+ is for a name, which is looked up again and again")
    return f"{DNS}+{url}"


def base_url(text: str) -> str:
    """An upstream's base URL, without its trailing slash."""
    if not re.fullmatch(r"[!-~]+", text):
        raise ValueError("must be printable ASCII without spaces")
    try:
        url = urlsplit(text)
        _ = url.port
    except ValueError:  # whose text holds the host
        raise ValueError("must be a URL with a port from 0 to 65535, if any") from None
    if url.scheme not in {"http", "https"} or not url.hostname:
        raise ValueError("must begin with http:// or https:// and name a host")
    if "@" in url.netloc:
        raise ValueError("must not hold a user or password: the key has a setting of its own, upstream_api_key")
    if "?" in text or "#" in text:
        raise ValueError("is a base URL: no query, no fragment")
    if text.rstrip("/").endswith("/chat/completions"):
        raise ValueError("is a base URL: leave /chat/completions out")
    return text.rstrip("/")


def origin(text: str) -> str:
    """Where a page of the web comes from, as browsers say it: `https://chat.example.com`, in lower case; `*`: any."""
    if text == "*":
        return text
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*://[!-~]+", text) or set("/?#@*,") & set(text.partition("://")[2]):
        raise ValueError("must be an origin, such as https://chat.example.com without a path, or * alone")
    return text.lower()


def host_name(text: str) -> str:
    """A name that a request may be addressed to, in lower case, without a port."""
    if not re.fullmatch(r"(?!-)[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*", text):
        raise ValueError("must be the name of a host: no scheme, no port, no *")
    return text.lower()


def url_path(text: str) -> str:
    """A path of an upstream."""
    if not re.fullmatch(r"/[!-~]*", text):
        raise ValueError("must be a path that begins with /, such as /health")
    return text


def route(text: str | None) -> str | None:
    """A path with one `{model}` in it; None, said as `off`, is no such route."""
    if text is None or text == "off":
        return None
    names = re.findall(r"{(\w+)}", text)
    segments = re.fullmatch(r"(/([\w.~-]+|{[A-Za-z_]\w*}))+", text)
    if not segments or names.count("model") != 1 or len(set(names)) < len(names):
        raise ValueError('must be a path with one {model} in it, such as "/{partner}/models/{model}", or "off"')
    return text


def readable(path: Path) -> Path:
    """A file that can be opened now: better told at start-up than with the first call."""
    try:
        path.open("rb").close()
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from error
    return path


def certificates(path: Path) -> Path:
    """A file of certificates to trust."""
    import ssl  # noqa: PLC0415 - who only asks for help does not wait for it

    try:
        ssl.create_default_context(cafile=str(path))
    except ssl.SSLError:
        raise ValueError("holds no certificate in PEM") from None
    return path


def certificate(cert: Path, key: Path) -> ssl.SSLContext:
    """A certificate with its chain, and its key, as a server shows them: TLS 1.2 or newer. Raises `ValueError`."""
    import ssl  # noqa: PLC0415 - who only asks for help does not wait for it

    def passphrase() -> str:
        raise ValueError("is encrypted: no pass phrase is asked for, so name a key without one")

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(cert, key, passphrase)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise ValueError("is not the key of the certificate in tls_cert") from None
        raise ValueError("with tls_cert: one of the two holds no certificate or no key in PEM") from None
    return context


def key(secret: SecretStr) -> SecretStr:
    """A key that fits into a header: no line end, no quote of a careless `echo`."""
    if not re.fullmatch(r"[!-~]+", secret.get_secret_value()):
        raise ValueError("must be printable ASCII without spaces")
    return secret


def key_of(path: Path) -> SecretStr:
    """The key that is all a file holds, white space around it apart."""
    try:
        return key(SecretStr(path.read_text("ascii").strip()))
    except UnicodeDecodeError as error:
        raise ValueError("must be printable ASCII without spaces") from error


Seconds = Annotated[float, BeforeValidator(seconds), Field(gt=0, allow_inf_nan=False, title="SECONDS")]
SecondsOrZero = Annotated[float, BeforeValidator(seconds), Field(ge=0, allow_inf_nan=False, title="SECONDS")]
Bytes = Annotated[ByteSize, BeforeValidator(number), Field(gt=0, title="BYTES")]
Port = Annotated[int, BeforeValidator(number), Field(ge=0, le=65535, title="PORT")]
File = Annotated[FilePath, BeforeValidator(path_name), AfterValidator(readable)]
Certificates = Annotated[File, AfterValidator(certificates)]
Key = Annotated[SecretStr, AfterValidator(key)]
NewFile = Annotated[Path, BeforeValidator(path_name), AfterValidator(writable)]
RedisUrl = Annotated[SecretStr, AfterValidator(redis_url)]
Tokens = Annotated[int, BeforeValidator(number), Field(gt=0, title="TOKENS")]
Number = Annotated[int, BeforeValidator(number), Field(gt=0, title="NUMBER")]
Limits = Annotated[Limit, BeforeValidator(limit), Field(title="LIMIT")]
Word = BeforeValidator(word)
TargetUrls = Annotated[tuple[Annotated[str, AfterValidator(target_url)], ...], BeforeValidator(items)]
Names = Annotated[tuple[Annotated[str, BeforeValidator(word), Field(min_length=1)], ...], BeforeValidator(items)]
Statuses = Annotated[tuple[Annotated[int, Field(strict=False)], ...], BeforeValidator(items)]
UrlPath = Annotated[str, AfterValidator(url_path)]
Origins = Annotated[tuple[Annotated[str, AfterValidator(origin)], ...], BeforeValidator(items)]
HostNames = Annotated[tuple[Annotated[str, AfterValidator(host_name)], ...], BeforeValidator(items)]
ImageTypes = Annotated[tuple[Literal["png", "jpeg", "gif", "webp"], ...], BeforeValidator(items)]
Table = Annotated[dict[str, Annotated[str, Field(min_length=1)]], BeforeValidator(table)]
LimitTable = Annotated[dict[str, Limits], BeforeValidator(table)]
Route = Annotated[str | None, AfterValidator(route)]
