"""A gateway's URL -> whether it is DashScope: makes the requests of `proxy.protocol.conformance`, tells the findings.

Plain HTTP against any gateway; nothing of ours runs behind it.
"""

from __future__ import annotations

import asyncio
import gzip
import re
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import aiohttp
import click
import orjson
from multidict import CIMultiDict
from yarl import URL

from config import sources
from proxy import vocabulary
from proxy.commands import conform_reports
from proxy.commands.conform_reports import Report, Result
from proxy.commands.exit_codes import Exit
from proxy.protocol import asks, conformance, tables
from proxy.protocol.asks import Api, Ask, Target
from proxy.protocol.conformance import Check, Finding, Verdict
from proxy.protocol.judgements import REJECTED, Came
from proxy.upstream.reasons import reason_of
from translators import tokens
from translators.dashscope import call as calls
from translators.deepseek import prompt
from translators.dialogue import Json

KEY_VARIABLE: Final = "DASHSCOPE_API_KEY"
WRONG_KEY: Final = "sk-of-nobody-for-dashseek-conform"
# What may be asked again where a model's answer showed nothing.
TRIES: Final = 3
# The longest wait for a gateway that is too busy, in seconds; then its answer stands.
LONGEST_RETRY_S: Final = 20.0
# After so many answers in a row that it is too busy nobody waits any more.
PATIENCE: Final = 3
# So many requests without any answer, from the first on, and there is nobody.
SILENCE: Final = 3
# The request that any gateway answers, on either surface.
PLAIN: Final = "reply"
BASES: Final[Mapping[Api, str]] = {"dashscope": "/api/v1", "openai": "/compatible-mode/v1"}
# What stands behind the part of a URL that both surfaces share.
ROUTES: Final = re.compile(r"(/compatible-mode|/api)?(/v1)?(/services/.*|/chat/completions)?$")
SHOWN_BYTES: Final = 300
# No answer to these requests is so long; who sends more is not listened to.
LONGEST_BODY_BYTES: Final = 4 << 20


class AskedWronglyError(Exception):
    """A URL that is none, or a word of `--only` that names nothing; the text says what would be right."""


@dataclass(frozen=True, slots=True)
class Examined:
    """What is to be examined, and how.

    url:       the SDK's base, such as `https://dashscope.aliyuncs.com/api/v1`
    route:     the path that is asked for answers, from the host on; the service's own where it is None
    only:      groups, rules or names of checks; all where there are none
    budget:    tokens that may be spent
    timeout_s: for one request, from connecting to its end
    api:       what the gateway is to speak; `url` is the base of that tongue's SDKs
    counted:   whether the model has DeepSeek's vocabulary, and can be held against our count
    """

    url: str
    model: str
    key: str
    timeout_s: float
    counted: bool
    route: str | None = None
    only: tuple[str, ...] = ()
    budget: int | None = None
    api: Api = "dashscope"


def target_of(model: str, route: str | None, *, counted: bool, api: Api = "dashscope") -> Target:
    """What we know of a model: its row and its count, where it is DeepSeek's."""
    catalogue, routed = tables.shipped().catalogue, "/models/" in (route or "")
    if not catalogue.knows(model):
        return Target(model, routed=routed, api=api)
    row, words = catalogue.find(model), vocabulary.load()

    def rendered(document: Json) -> int:
        asked = calls.translate(document, catalogue, stream=False, decode=bytes)
        return prompt.length(prompt.parts(asked, row.template), words)

    return Target(
        model,
        row,
        (lambda text: tokens.count(text, words)) if counted else None,
        rendered if counted else None,
        routed=routed,
        api=api,
    )


def rows_of(target: Target, only: Sequence[str]) -> tuple[Check, ...]:
    """The checks to make; AskedWronglyError for a word that names none."""
    checks = conformance.checks(target)
    try:
        return conformance.selected(checks, only)
    except KeyError as unknown:
        word = str(unknown.args[0])
        known = {name for check in checks for name in (check.group, check.rule, check.name)}
        guess = sources.guess(word, known)
        raise AskedWronglyError(f"--only {word}: no group, rule or check has that name (--list){guess}") from None


def check_url(url: str) -> None:
    """Refuse what no request can be made to, with AskedWronglyError."""
    try:
        asked = URL(url)
    except ValueError:
        asked = URL()
    if asked.scheme not in ("http", "https") or not asked.host:
        raise AskedWronglyError("say whom to examine: URL is an SDK's base, such as https://HOST/api/v1")


def check_key(key: str) -> None:
    """Refuse what no header can carry, with AskedWronglyError."""
    if not (key.isascii() and key.isprintable() and key == key.strip()):
        raise AskedWronglyError(f"{KEY_VARIABLE}: a key has no blanks around it, no line ends and ASCII alone")


def check_reports(*files: Path | None) -> None:
    """Refuse files that cannot be written, before anything is spent, with AskedWronglyError."""
    for file in files:
        if file and not file.absolute().parent.is_dir():
            raise AskedWronglyError(f"{file}: there is no such folder to write it to")


def show_list(target: Target, only: Sequence[str]) -> int:
    """Print the checks, and of the rules that have none the reason."""
    conform_reports.show_list(rows_of(target, only))
    return Exit.OK


def run(examined: Examined, *, as_json: bool, junit: Path | None, html: Path | None) -> int:
    """Examine, report; 0 where every must is kept, 1 where one is broken or not asked, 4 where nobody answers."""
    target = target_of(examined.model, examined.route, counted=examined.counted, api=examined.api)
    rows = rows_of(target, examined.only)
    made = conformance.asked(rows).values()
    click.echo(
        f"{len(rows)} checks of {conform_reports.bare(examined.url)}: {len(made)} calls, "
        f"about {sum(ask.tokens for ask in made):,} tokens",
        err=True,
    )
    report = asyncio.run(examine(examined, target, rows, _progress(len(rows))))
    if isinstance(report, str):
        click.echo(f"nobody answers there: {report}", err=True)
        return Exit.UPSTREAM_REFUSED
    if as_json:
        click.echo(orjson.dumps(conform_reports.as_json(report), option=orjson.OPT_INDENT_2))
    else:
        conform_reports.show(report)
    if junit:
        junit.write_bytes(conform_reports.as_junit(report))
    if html:
        html.write_text(conform_reports.as_html(report), "utf-8")
    return Exit.OK if report.conforms else Exit.NO


def _progress(total: int) -> Callable[[int, Check], None]:
    """Shows what is being looked at: one line rewritten on a terminal, else a line for each group."""
    groups: list[str] = []

    def tell(number: int, check: Check) -> None:
        if sys.stderr.isatty():
            click.echo(f"\r\033[K{number}/{total} {check.group}: {check.name}", nl=False, err=True)
            if number == total:
                click.echo("\r\033[K", nl=False, err=True)
        elif check.group not in groups:
            groups.append(check.group)
            click.echo(f"{number}/{total} {check.group}", err=True)

    return tell


async def examine(
    examined: Examined, target: Target, rows: Sequence[Check], progress: Callable[[int, Check], None]
) -> Report | str:
    """Make the requests and judge them; what is known where SIGINT ends it; why, where nobody answers."""
    stopped, loop = asyncio.Event(), asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGINT, stopped.set)
    began, results = datetime.now(UTC), []
    try:
        async with AsyncExitStack() as stack:
            examiner = _Examiner(examined, target, await stack.enter_async_context(_session()))
            stopping = asyncio.create_task(stopped.wait())
            stack.callback(stopping.cancel)
            for number, check in enumerate(rows, 1):
                progress(number, check)
                work = asyncio.create_task(examiner.result(check))
                await asyncio.wait((work, stopping), return_when=asyncio.FIRST_COMPLETED)
                if not work.done():
                    work.cancel()
                    await asyncio.wait((work,))
                    break
                results.append(work.result())
                if examiner.alone:
                    return examiner.alone
    finally:
        loop.remove_signal_handler(signal.SIGINT)
    left = [Result(check, Finding(Verdict.NOT_SHOWN, "left off"), unasked=True) for check in rows[len(results) :]]
    url = conform_reports.bare(examined.url)
    hint = _astray(examined, examiner.came[PLAIN]) if PLAIN in examiner.came else ""
    made, spent = examiner.made, examiner.spent
    return Report(url, examined.route, examined.model, began, made, spent, (*results, *left), hint, bool(left))


def _astray(examined: Examined, plain: Came) -> str:
    """What was probably meant, where a plain call is refused; "" where it is not, or cannot be told."""
    said = plain.body.lower()
    if plain.status in (401, 403):
        return f"a plain call is answered {plain.status}: is that its key, in {KEY_VARIABLE}?"
    if plain.status in (400, 404) and (b"modelnotfound" in said or (b"model" in said and b"exist" in said)):
        return f"a plain call is answered {plain.status}, it has no {examined.model}: say a model of its with --model"
    if plain.status in (404, 405) and not examined.route:
        asked = conform_reports.bare(examined.url).rstrip("/")
        meant = ROUTES.sub("", asked) + BASES[examined.api]
        told = f"say the base of an SDK, such as {meant}" if meant != asked else "no such route is there"
        return f"a plain call is answered {plain.status}: {told}"
    return ""


def _session(**how: Any) -> aiohttp.ClientSession:
    traced = aiohttp.TraceConfig()

    async def reused(_: aiohttp.ClientSession, context: SimpleNamespace, __: object) -> None:
        if (note := context.trace_request_ctx) is not None:
            note["reused"] = True

    traced.on_connection_reuseconn.append(reused)
    # Bytes as they come, and no header that nobody asked for.
    return aiohttp.ClientSession(
        auto_decompress=False,
        skip_auto_headers=("Accept-Encoding", "Accept", "Content-Type"),
        trace_configs=[traced],
        **how,
    )


@dataclass(slots=True)
class _Examiner:
    """Who asks: each request once, unless chance spoiled it.

    made, spent: requests and tokens so far
    alone:       why nobody answers, as the first requests say; "" where somebody does
    rejected:    answers in a row that it is too busy
    """

    examined: Examined
    target: Target
    session: aiohttp.ClientSession
    made: int = 0
    spent: int = 0
    alone: str = ""
    rejected: int = 0
    came: dict[str, Came] = field(default_factory=dict)

    async def result(self, check: Check) -> Result:
        """Ask what a check asks, and judge it; again where chance showed nothing."""
        for attempt in range(TRIES if check.chance else 1):
            if attempt:
                for ask in check.asks:
                    self.came.pop(ask.name, None)
            for ask in check.asks:
                if ask.name not in self.came and not self._affordable(ask):
                    spent = Finding(Verdict.NOT_SHOWN, "not asked: the budget is spent")
                    return Result(check, spent, unasked=True)
                if ask.name not in self.came:
                    self.came[ask.name] = await self._ask(ask)
            came = [self.came[ask.name] for ask in check.asks]
            finding = conformance.judge(check, came, self.target)
            if finding.verdict is not Verdict.NOT_SHOWN:
                break
        return Result(
            check,
            Finding(finding.verdict, self._redacted(finding.evidence)),
            tuple(self._redacted(_told(ask, self._path(ask))) for ask in check.asks),
            tuple(self._redacted(_shown(answer)) for answer in came),
            unasked=finding.verdict is Verdict.NOT_SHOWN and any(answer.status in REJECTED for answer in came),
        )

    def _affordable(self, ask: Ask) -> bool:
        budget = self.examined.budget
        return budget is None or not ask.tokens or self.spent + ask.tokens <= budget

    async def _ask(self, ask: Ask) -> Came:
        came = await self._made(ask)
        wait_s = _retry_s(came)
        if came.status in REJECTED and wait_s <= LONGEST_RETRY_S and self.rejected < PATIENCE:
            await asyncio.sleep(wait_s)
            came = await self._made(ask)
        self.rejected = self.rejected + 1 if came.status in REJECTED else 0
        if not came.status and came.failed and came.reused:
            # It was the connection that had gone, as any may while it is idle.
            async with _session() as fresh:
                came = await self._made(ask, fresh)
        if len(self.came) + 1 >= SILENCE and not any(one.status for one in (came, *self.came.values())):
            self.alone = came.failed
        self.spent += _total(came, ask)
        return came

    async def _made(self, ask: Ask, session: aiohttp.ClientSession | None = None) -> Came:
        self.made += 1
        began, note = time.monotonic(), {"reused": False}
        pieces: list[bytes] = []
        head: tuple[int, Mapping[str, str]] = (0, {})
        failed = ""
        try:
            async with AsyncExitStack() as stack:
                session = session or self.session
                if ask.manner in ("fresh", "http10"):
                    how = {"version": aiohttp.HttpVersion10} if ask.manner == "http10" else {}
                    session = await stack.enter_async_context(_session(**how))
                got = await stack.enter_async_context(self._request(session, ask, note))
                head = got.status, {name.lower(): value for name, value in got.headers.items()}
                # Whoever goes before the end takes the connection along.
                async for piece in _pieces(got, eager=ask.manner == "hang_up"):
                    pieces.append(piece)
                    if ask.manner == "hang_up":
                        break
                    if sum(map(len, pieces)) > LONGEST_BODY_BYTES:
                        failed = f"longer than {LONGEST_BODY_BYTES:,} bytes"
                        break
        except aiohttp.ClientConnectorError as error:
            failed = str(reason_of(getattr(error, "certificate_error", None) or error.os_error))
            if self.made == 1:
                self.alone = failed
        except TimeoutError:
            failed = f"not whole after {self.examined.timeout_s:g} s"
        except (aiohttp.ClientError, ValueError) as error:
            failed = f"{type(error).__name__}: {error}"
        return Came(*head, tuple(pieces), failed, note["reused"], time.monotonic() - began)

    def _request(self, session: aiohttp.ClientSession, ask: Ask, note: dict[str, bool]) -> Any:
        key = WRONG_KEY if ask.manner == "wrong_key" else self.examined.key
        headers = CIMultiDict(
            {"Content-Type": "application/json"}, **({"X-DashScope-SSE": "enable"} if ask.stream else {})
        )
        if ask.manner == "x_api_key":
            headers["X-Api-Key"] = key
        elif ask.manner != "no_key":
            headers["Authorization"] = f"Bearer {key}"
        body = ask.call if isinstance(ask.call, bytes | None) else orjson.dumps(ask.call)
        if ask.manner == "gzip" and body is not None:
            body, headers["Content-Encoding"] = gzip.compress(body), "gzip"
        headers.update(ask.headers)
        return session.request(
            ask.method,
            URL(self._path(ask), encoded=True),
            data=body,
            headers=headers,
            expect100=ask.manner == "expect",
            allow_redirects=False,
            timeout=aiohttp.ClientTimeout(total=self.examined.timeout_s),
            trace_request_ctx=note,
        )

    def _path(self, ask: Ask) -> str:
        base = conform_reports.bare(self.examined.url).rstrip("/")
        if ask.path or self.examined.route is None:
            return base + (ask.path or asks.GENERATION)
        return str(URL(base).origin()) + self.examined.route

    def _redacted(self, text: str) -> str:
        return text.replace(self.examined.key, "‹key›") if self.examined.key else text


async def _pieces(got: aiohttp.ClientResponse, *, eager: bool) -> Any:
    """The body by chunks of HTTP; what has none comes in one, or `eager`ly as it is read."""
    held = bytearray()
    async for data, whole in got.content.iter_chunks():
        held += data
        if held and (whole or eager or len(held) > LONGEST_BODY_BYTES):
            yield bytes(held)
            held.clear()
    if held:
        yield bytes(held)


def _retry_s(came: Came) -> float:
    said = came.headers.get("retry-after", "1")
    return float(said) if said.isdigit() else 1.0


def _total(came: Came, ask: Ask) -> int:
    """What an answer says it cost, by the last figure in it; what it may have cost where it says nothing."""
    if came.status != 200:  # noqa: PLR2004 - the number says it
        return 0
    for line in reversed(came.body.split(b"\n")):
        try:
            usage = orjson.loads(line.removeprefix(b"data:"))["usage"]
            return int(usage["total_tokens"])
        except (ValueError, KeyError, TypeError):
            continue
    return ask.tokens


def _told(ask: Ask, url: str) -> str:
    """A request in a line, without its key."""
    body = b"" if ask.call is None else ask.call if isinstance(ask.call, bytes) else orjson.dumps(ask.call)
    said = {**({"X-DashScope-SSE": "enable"} if ask.stream else {}), **ask.headers}
    headers = "".join(f" {name}: {value};" for name, value in said.items())
    manner = "" if ask.manner == "plain" else f" ({ask.manner.replace('_', ' ')})"
    return f"{ask.method} {URL(url).path}{manner}{headers} {body.decode()}".rstrip()


def _shown(came: Came) -> str:
    """What came, cut to what matters: the status, then the beginning, and the end of what is long."""
    if not came.status:
        return came.failed
    text = came.body.decode("utf-8", "replace")
    if len(text) > 2 * SHOWN_BYTES:
        text = f"{text[:SHOWN_BYTES]}\n…\n{text[-SHOWN_BYTES:]}"
    return f"{came.status} {came.headers.get('content-type', '')} {came.failed}\n{text}"
