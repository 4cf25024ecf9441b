"""`/docs` of the admin port: the protocol, examples and a box that makes a call, in one page that loads nothing.

The page is made of what ships: `PROTOCOL.md` in both languages, the examples, and `page/`. It is made once, in a
thread, when it is first asked for. The box posts to `docs/try`, which hands the call on to the data port.

Why not straight to the data port: that is another origin, and it answers no CORS question, so that no website can read
from it. The way by this port opens nothing either: a call is taken only from this page (`from_this_page`), it goes to
our own data port and nowhere else, it has no key but the one the page sends, and it is taken from nobody to whom the
data port is closed (`may_reach`), so it can do what the caller could.
"""

from __future__ import annotations

import asyncio
import base64
import functools
import hashlib
import html
import re
import tomllib
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import aiohttp
import orjson
from aiohttp import hdrs, web

import translators
from config.settings import Settings, is_loopback
from proxy.admin import diagram, translation
from proxy.downstream import browsers, paths, surface, tls
from proxy.downstream.body import OpenBodies
from proxy.downstream.request import Request
from proxy.downstream.sinks import CallerGone
from translators import faults
from translators.compatible import tongue as compatible
from translators.dashscope import tongue as dashscope
from translators.tongue import Tongue

ROOM: Final = Path(__file__).parent
PROTOCOL: Final = Path(translators.__file__).parent
LANGUAGES: Final[Mapping[str, str]] = {"en": "PROTOCOL.md", "zh": "PROTOCOL.zh.md"}
# What a tab is called, and its file.
EXAMPLES: Final[Mapping[str, str]] = {
    "curl": "call.sh",
    "Python": "call.py",
    "OpenAI": "compatible.py",
    "Java": "Call.java",
    "Java SDK": "Sdk.java",
    "Node": "call.mjs",
    "Go": "call.go",
}
# The address in the examples, which the page replaces by the one that is served on.
WRITTEN: Final = "http://127.0.0.1:8080"
# What the page may call, by the tongue it names in its query.
TRIED: Final[Mapping[str, tuple[Tongue, str]]] = {
    dashscope.API: (dashscope, paths.GENERATION),
    compatible.API: (compatible, paths.COMPATIBLE[0] + paths.COMPLETIONS),
}
# As `0.0.0.0` is where to listen, not where to call.
ANYWHERE: Final = ("//0.0.0.0:", "//[::]:")

# The field for a key, where one is asked for; and what a button says that copies.
KEY: Final = (
    '<label><span lang="en">Key <small>sent with this call, kept nowhere</small></span>'
    '<span lang="zh">密钥 <small>仅随本次请求发送，不保存</small></span>'
    '<input id="key" type="password" autocomplete="off" spellcheck="false" placeholder="sk-…"></label>'
)
COPY: Final = '<span lang="en">Copy</span><span lang="zh">复制</span>'

MARK: Final = re.compile(r"<!-- example: (\S+) (\w+) ?(\S*) -->\n```(\w+)")
COMMENT: Final = re.compile(r"<!--.*?-->\n?", re.DOTALL)
OTHER_LANGUAGE: Final = re.compile(r"\[[^\]]+\]\(PROTOCOL[\w.]*\) · ")
RULE: Final = re.compile(r"\b[A-Z]{1,4}-\d+\b")
NAME: Final = re.compile(r"<code>([^<\s]{1,28})</code>")
SLOT: Final = re.compile(r"\{\{(\w+)\}\}")

CALLER: Final = web.AppKey("caller", aiohttp.ClientSession)
CALLS: Final = web.AppKey("calls", asyncio.Semaphore)
SETTINGS: Final = web.AppKey("settings", Settings)
# A call of the page holds a file towards the data port, too: so many at a time, out of those spared.
MOST_CALLS: Final = 8
SENT: Final = (hdrs.AUTHORIZATION, hdrs.CONTENT_TYPE, "X-DashScope-SSE")
RETURNED: Final = (hdrs.CONTENT_TYPE, hdrs.CACHE_CONTROL, hdrs.RETRY_AFTER)
HEADERS: Final[Mapping[str, str]] = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


@dataclass(frozen=True, slots=True)
class Page:
    """The page as it is sent.

    policy: its Content-Security-Policy: nothing runs but its own script, nothing is asked but this port
    """

    body: bytes
    policy: str


def add_to(app: web.Application, settings: Settings) -> None:
    """Let an admin application show the page, the OpenAPI document, and let the page make calls."""
    app[SETTINGS] = settings
    app[CALLS] = asyncio.Semaphore(MOST_CALLS)
    app.router.add_get("/docs", _show)
    app.router.add_get("/openapi.json", _describe)
    app.router.add_post("/docs/try", _try)
    app.router.add_post("/docs/translate", _translate)
    app.cleanup_ctx.append(_calling)


@functools.lru_cache(maxsize=1)
def page(served: str, *, asks_key: bool) -> Page:
    """The page of a process that serves there; `asks_key` where a call needs one."""
    described = orjson.loads((PROTOCOL / "openapi.json").read_bytes())
    models = described["components"]["schemas"]["Call"]["properties"]["model"]["enum"]
    slots = {
        "served": html.escape(served),
        "key": KEY if asks_key else "",
        "copy": COPY,
        "models": "".join(f'<option value="{html.escape(model)}">' for model in models),
        "examples": "".join(_examples(served)),
    }
    for language, name in LANGUAGES.items():
        slots[f"article_{language}"], slots[f"contents_{language}"] = rendered(
            (PROTOCOL / name).read_text("utf-8"), f"{language}-"
        )
    return made("page", slots)


def made(name: str, slots: Mapping[str, str]) -> Page:
    """A page of its three files, with the policy that lets nothing else run.

    slots: what stands in it beside its style and its script, as HTML
    """
    style, shared, own = (
        (ROOM / "page" / file).read_text("utf-8") for file in (f"{name}.css", "reasons.js", f"{name}.js")
    )
    script = shared + own
    within = {**slots, "reasons": reasons(), "style": style, "script": script}
    body = SLOT.sub(lambda slot: within[slot[1]], (ROOM / "page" / f"{name}.html").read_text("utf-8"))
    policy = [
        "default-src 'none'",
        f"script-src '{_digest(script)}'",
        f"style-src '{_digest(style)}'",
        "connect-src 'self'",
        "img-src data:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ]
    return Page(body.encode(), "; ".join(policy))


@functools.cache
def reasons() -> str:
    """What is said of a field, a failure or a stray, and the same in Chinese, as JSON that may stand in a page."""
    known = tomllib.loads((ROOM / "page" / "reasons.zh.toml").read_text("utf-8"))
    return orjson.dumps(known).decode().replace("<", "\\u003c")


def rendered(document: str, prefix: str) -> tuple[str, str]:
    """A protocol document as HTML, and its contents as a list of links; `prefix` tells the languages' anchors apart."""
    from markdown_it import MarkdownIt  # noqa: PLC0415 - only who asks for the page pays for it

    source = OTHER_LANGUAGE.sub("", document)
    source = COMMENT.sub("", MARK.sub(r"```\4 \1 · \2 \3", source))
    markdown = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = markdown.parse(source)
    contents = []
    # Of the table one is in: the names of its columns, and which is next; on a phone each cell stands under its own.
    column: list[str] = []
    for number, token in enumerate(tokens):
        if token.type == "heading_open":
            text = tokens[number + 1].content
            anchor = prefix + (re.match(r"[\d.]*\d", text) or ["top"])[0].replace(".", "-")
            token.attrSet("id", anchor)
            if token.tag in ("h2", "h3"):
                contents.append(f'<li class="{token.tag}"><a href="#{anchor}">{html.escape(text)}</a></li>')
        elif token.type == "fence":
            token.type, token.content = "html_block", _fence(token.info, token.content, f"{prefix}tip-{number}")
        elif token.type == "th_open":
            column = [*column, tokens[number + 1].content.replace("`", "")]
        elif token.type == "tr_open":
            column, cell = [] if tokens[number + 1].type == "th_open" else column, 0
        elif token.type == "td_open":
            token.attrSet("data-th", column[cell])
            cell += 1
        elif token.type in ("table_open", "table_close"):
            edge = '<div class="wide"><table>' if token.type == "table_open" else "</table></div>"
            token.type, token.content = "html_block", edge
    article = markdown.renderer.render(tokens, markdown.options, {})
    # A number breaks at its hyphen otherwise, and a name anywhere in a narrow column.
    article = NAME.sub(r'<code class="whole">\1</code>', RULE.sub(r'<span class="whole">\g<0></span>', article))
    return article, f"<ul>{''.join(contents)}</ul>"


def _fence(info: str, content: str, tip: str) -> str:
    language, _, caption = info.partition(" ")
    if language == "mermaid":
        return f'<div class="wide">{diagram.svg(content, tip)}</div>\n'
    head = f"<figcaption>{html.escape(caption.strip())}</figcaption>" if caption else ""
    return f"<figure>{head}<pre><code>{html.escape(content)}</code></pre></figure>\n"


def _examples(served: str) -> Iterator[str]:
    for number, (title, name) in enumerate(EXAMPLES.items()):
        code = html.escape((ROOM.parent / "examples" / name).read_text("utf-8").replace(WRITTEN, served))
        checked = "" if number else " checked"
        yield f'<input type="radio" name="tab" id="tab-{number}"{checked}><label for="tab-{number}">{title}</label>'
        yield f"<pre><code>{code}</code></pre>"


def _digest(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


async def _show(request: web.Request) -> web.StreamResponse:
    served, asks_key = callable_at(request.app[surface.SERVED]), request.app[SETTINGS].auth != "none"
    return shown(await asyncio.to_thread(functools.partial(page, served, asks_key=asks_key)))


def callable_at(served: str) -> str:
    """The URL to call where one listens on every address."""
    for anywhere in ANYWHERE:
        served = served.replace(anywhere, "//127.0.0.1:")
    return served


def shown(made: Page) -> web.Response:
    """A page as an answer."""
    headers = {**HEADERS, "Content-Security-Policy": made.policy, hdrs.CACHE_CONTROL: "no-cache"}
    return web.Response(body=made.body, content_type="text/html", charset="utf-8", headers=headers)


async def _describe(_: web.Request) -> web.StreamResponse:
    body = await asyncio.to_thread((PROTOCOL / "openapi.json").read_bytes)
    return web.Response(body=body, content_type="application/json")


async def _calling(app: web.Application) -> AsyncIterator[None]:
    # Its own limit would let them wait in a queue that nobody sees.
    connector = aiohttp.TCPConnector(limit=0)
    waits = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(connector=connector, timeout=waits, auto_decompress=False) as session:
        app[CALLER] = session
        yield


def from_this_page(request: web.Request) -> bool:
    """Whether it is the page's own script that asks: no website may, though it makes a browser of ours ask for it.

    The name in `Host` must be no name an attacker can own, or a page of theirs could move its name to our address after
    it was loaded, and be of our origin (DNS rebinding). `Origin` must be that of the page, which a form or a script of
    another site cannot say; and JSON is no type that a browser sends across origins without asking first.
    """
    return (
        browsers.is_own_name(request.host)
        and browsers.is_origin_of(request.headers.get(hdrs.ORIGIN, ""), request.host)
        and request.headers.get(browsers.SEC_FETCH_SITE, "same-origin") == "same-origin"
        and request.content_type == "application/json"
    )


def may_reach(served: str, remote: str | None) -> bool:
    """Whether who asks from there could call the data port, too.

    On loopback it may ask for no key of its callers (spec KEY-1), while the admin port stands open to a platform's
    probes: as in a sidecar.
    """
    return not is_loopback(urlsplit(served).hostname or "") or is_loopback(remote or "")


async def _try(request: web.Request) -> web.StreamResponse:
    """Hand a call of the page on to the data port, and its answer back as it comes."""
    app = request.app
    call, path = _taken(request)
    async with app[CALLS]:
        body = await _body(call, request.client_max_size, app[SETTINGS].body_timeout)
        # The data port keeps it: both answers have the same.
        headers = {"X-Request-Id": call.id} | {name: call.headers[name] for name in SENT if name in call.headers}
        response, shown = None, app[SETTINGS].tls_cert
        try:
            async with app[CALLER].post(
                app[surface.SERVED] + path,
                data=body,
                headers=headers,
                allow_redirects=False,
                ssl=True if shown is None else tls.trusting(shown),
            ) as answer:
                back = {name: answer.headers[name] for name in RETURNED if name in answer.headers}
                response = web.StreamResponse(status=answer.status, headers=back)
                await response.prepare(request)
                async for piece in answer.content.iter_any():
                    await response.write(piece)
                return response
        except aiohttp.ClientError:
            if response is not None:
                call.hang_up()  # what is out stays as it is, and breaks off
            raise faults.Refusal(faults.UNAVAILABLE) from None


async def _translate(request: web.Request) -> web.StreamResponse:
    """Say what would go upstream for a call of the page; nothing does."""
    app = request.app
    call, _ = _taken(request)
    async with app[CALLS]:
        body = await _body(call, request.client_max_size, app[SETTINGS].body_timeout)
        stream = call.tongue.wants_stream(call.headers, {})
        shown = await asyncio.to_thread(_translated, app[SETTINGS], call.tongue.API, body, stream)
    return web.Response(body=shown, content_type="application/json")


def _translated(settings: Settings, api: str, body: bytes, stream: bool) -> bytes:
    return orjson.dumps(translation.build(settings, api).call(body, stream=stream).document())


def _taken(request: web.Request) -> tuple[Request, str]:
    """A request of the page, in the tongue it names, and where that is served.

    Raises `Refusal` where it may not ask, or too many do.
    """
    tongue, path = TRIED.get(request.query.get("api", ""), TRIED[dashscope.API])
    request[surface.TONGUE] = tongue
    if not (from_this_page(request) and may_reach(request.app[surface.SERVED], request.remote)):
        raise faults.Refusal(faults.ACCESS_DENIED)
    if request.app[CALLS].locked():
        raise faults.Refusal(faults.OVERLOADED)
    return Request(request, tongue), path


async def _body(call: Request, most_bytes: int, timeout_s: float) -> bytes:
    try:
        async with asyncio.timeout(timeout_s):
            with OpenBodies(2 * most_bytes, most_bytes).hold() as held:  # its own, as packed and as unpacked
                return bytes(await call.body(held))
    except TimeoutError:
        raise faults.Refusal(faults.BODY_INVALID, "body_timeout fired") from None
    except CallerGone:
        call.hang_up()
