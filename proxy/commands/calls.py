"""The calls that a running `serve --inspect` keeps: `dashseek calls` lists them, takes one away, plays one again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any, Final

import aiohttp
import click
import orjson
from yarl import URL

from proxy.commands import tables
from proxy.commands.exit_codes import Exit
from proxy.inspector import call_file, comparison, copies

ADMIN: Final = "http://127.0.0.1:8081"
KEY_VARIABLE: Final = "DASHSCOPE_API_KEY"
TIMEOUT_S: Final = 600.0
MOST_DIFFERENCES: Final = 20
# What of a caller's headers is said again; the rest is its connection's, or its key.
SENT: Final = ("content-type", "accept", "x-dashscope-")


class NotThere(Exception):  # noqa: N818 - it says what is the matter
    """Nobody who keeps calls, or no such call; the text says which."""


def show_list(admin: str, *, as_json: bool) -> int:
    """Print the calls that are kept, the newest first."""
    told = asyncio.run(_got(admin, "calls/list"))
    if as_json:
        click.echo(told)
        return Exit.OK
    calls = orjson.loads(told)["calls"]
    tables.show(
        ("id", "at", "status", "outcome", "model", "mode", "in", "out", "first ms", "ms", "path"),
        [_row(call) for call in reversed(calls)],
        6,
    )
    return Exit.OK


def _row(call: Mapping[str, Any]) -> tuple[str, ...]:
    at = datetime.fromtimestamp(call["at_s"], UTC).astimezone()
    numbers = (call["input_tokens"], call["output_tokens"], call["first_ms"], call["ended_ms"])
    return (
        str(call["number"]),
        f"{at:%H:%M:%S}",
        str(call["status"] or "…"),
        call["outcome"],
        call["model"],
        "SSE" if call["stream"] else "JSON",
        *("" if number is None else f"{number:.0f}" for number in numbers),
        call["path"],
    )


def export(admin: str, name: str, *, redact: bool, har: bool) -> int:
    """Print one call as a file."""
    path = f"calls/{name}{'.har' if har else ''}"
    click.echo(asyncio.run(_got(admin, path, {"redact": "1"} if redact else {})))
    return Exit.OK


def replay(file: Path, to: str, key: str) -> int:
    """Make a caller's call again and print what differs; 0 where nothing does, 1 where something does.

    Raises `NoCallFile` where the file holds none, or one that cannot be made again.
    """
    document = call_file.read(file.read_bytes())
    if why := copies.why_not_again(document) or copies.why_not_whole(document):
        raise call_file.NoCallFile(f"this call cannot be made again: {why}")
    caller = document["caller"]
    before = call_file.answer_of(document)
    status, after, took_s = asyncio.run(_made(to, caller, key))
    was, _ = call_file.answered_of(document)
    found = [] if was == status else [f"status {was} before, {status} now"]
    found += islice(comparison.differences(before, after), MOST_DIFFERENCES + 1)
    if learned := comparison.correction(before, after):
        click.echo(
            f"input tokens are {abs(learned)} {'more' if learned > 0 else 'fewer'} now until upstream tells its own: "
            "what a server learns of its upstream's template (spec USE-5), and no difference"
        )
    for line in found[:MOST_DIFFERENCES]:
        click.echo(line)
    if len(found) > MOST_DIFFERENCES:
        click.echo("and more")
    ended = document["ended_ms"]
    click.echo(
        f"{'something differs' if found else 'the same answer'}; {took_s * 1e3:,.0f} ms"
        + (f", {ended:,.0f} ms before" if ended else "")
    )
    return Exit.NO if found else Exit.OK


async def _made(to: str, caller: Mapping[str, Any], key: str) -> tuple[int, bytes, float]:
    headers = {name: said for name, said in caller["headers"].items() if name.lower().startswith(SENT)}
    headers["Authorization"] = f"Bearer {key}"
    url = URL(to.rstrip("/") + caller["path"], encoded=True)
    body = call_file.decoded(caller["body"])
    began = time.monotonic()
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT_S)) as session,
            session.request(caller["method"], url, data=body or None, headers=headers, allow_redirects=False) as answer,
        ):
            said = bytearray()
            try:
                async for piece in answer.content.iter_any():
                    said += piece
            except aiohttp.ClientPayloadError:
                pass  # broken off: what came is compared
            return answer.status, bytes(said), time.monotonic() - began
    except aiohttp.ClientConnectionError:
        raise NotThere(f"nobody answers at {url.origin()}") from None


async def _got(admin: str, path: str, query: Mapping[str, str] | None = None) -> bytes:
    url = URL(admin.rstrip("/") + "/" + path).with_query(query or {})
    try:
        async with aiohttp.ClientSession() as session, session.get(url) as answer:
            if answer.status == 404:  # noqa: PLR2004 - the number says it
                raise NotThere("no such call is kept" if path != "calls/list" else f"{admin} does not run --inspect")
            if not answer.ok:
                raise NotThere(f"{admin} answered {answer.status}")
            return await answer.read()
    except aiohttp.ClientConnectionError:
        raise NotThere(f"nobody answers at {admin}: say --admin URL, the admin port of serve --inspect") from None
