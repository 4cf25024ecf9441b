"""Valid calls into calls that somebody might send to hurt us, and the strict reading of what comes back.

Two kinds: a body that is well framed, on a connection that stays; and a whole request, bytes and framing included, on a
connection of its own. Everything comes from one seed.
"""

from __future__ import annotations

import asyncio
import copy
import gzip
import random
from collections import Counter
from collections.abc import Callable, Coroutine
from http import HTTPStatus
from typing import Any, Final, TypeVar

import orjson

from tests import caller
from translators import faults

T = TypeVar("T")

# Nothing that comes back may hold one of these.
CANARY: Final = "canary-4b1d"
KEY: Final = f"sk-{CANARY}"

HANG_S: Final = 30.0
WORKERS: Final = 128
BATCH: Final = 25
# The part of all requests that have their framing mutated, too.
RAW: Final = 0.4

CODES: Final = frozenset(value.code for value in vars(faults).values() if isinstance(value, faults.Fault)) | {
    faults.no_thinking("").code
}
CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"

ODD_VALUES: Final[tuple[Any, ...]] = (
    None, True, False, 0, -1, 1, 2**63, -(2**53), 1e300, 0.1, "", " ", "null", "\u0000", "\ufeff", "💥" * 9,
    "a" * 5_000, [], {}, [[]], [None], [{}], {"": ""}, {"type": "text"}, [{"type": "image_url"}], "enable",
    "system", "tool",
)  # fmt: skip
CALLS: Final[tuple[caller.Json, ...]] = (
    caller.call(f"{CANARY} hello", incremental_output=True, temperature=0.7, seed=1, stop=["x", "y"], top_p=0.5),
    caller.call(f"{CANARY} hello", model="deepseek-v3.2", enable_thinking=True, thinking_budget=9, max_tokens=5),
    caller.call(
        f"{CANARY} hello",
        tools=[{"type": "function", "function": {"name": "f", "description": "d", "parameters": {"type": "object"}}}],
        tool_choice="auto",
        result_format="message",
        n=1,
    ),
    {
        "model": "deepseek-v3",
        "input": {
            "messages": [
                {"role": "system", "content": "s"},
                {"role": "user", "content": [{"type": "text", "text": CANARY}]},
                {"role": "assistant", "content": "", "tool_calls": [
                    {"id": "1", "type": "function", "index": 0, "function": {"name": "f", "arguments": "{}"}}]},
                {"role": "tool", "content": "r", "tool_call_id": "1"},
            ]
        },
        "parameters": {"presence_penalty": 0.1, "repetition_penalty": 1.1, "logprobs": True, "top_logprobs": 2},
    },
    {"model": "deepseek-r1", "input": {"prompt": CANARY}, "parameters": {}},
)  # fmt: skip
NAMES: Final = (
    "",
    "a",
    "model",
    "input",
    "messages",
    "prompt",
    "history",
    "content",
    "role",
    "stop",
    "__proto__",
    "x" * 200,
)
ODD_TEXTS: Final = (
    b'"\\ud800"',
    b"NaN",
    b"1e999",
    b"-0",
    b'"\\u0000"',
    b"Infinity",
    b"1" * 400,
    b"'a'",
    b'"\xff\xfe"',
    b"",
)
EXTENSIONS: Final = (b"", b";a=b", b";" + b"a" * 9_000, b" ", b"g", b"\0")
ENDS: Final = (b"0\r\n\r\n", b"0\r\nTrailer: x\r\n\r\n", b"fffffffffffffffff\r\n", b"-1\r\n", b"", b"0\n\n", b"\r\n")
LINE_ENDS: Final = (*(b"\r\n",) * 8, b"\n", b"\r")
# Put in whole, or in place of another.
LINES: Final = (
    b"Content-Length: 5", b"Content-Length: +5", b"Content-Length: 0x5", b"Content-Length: -1", b"Content-Length: 5, 5",
    b"Content-Length: 99999999999999999999", b"Content-Length:", b"Transfer-Encoding: chunked",
    b"Transfer-Encoding: xchunked", b"Transfer-Encoding: chunked, identity", b"Transfer-Encoding : chunked",
    b"Transfer-Encoding:\tchunked", b" folded", b"Host: b", b"Host:", b": empty", b"No colon", b"A\0B: c",
    b"X: \x80\xff", b"Upgrade: h2c", b"Connection: Upgrade", b"Connection: keep-alive, close", b"Expect: x",
    b"Expect: \xff", b"Expect: 100-continue", b"Content-Encoding: gzip", b"Content-Encoding: deflate",
    b"Content-Encoding: br", b"Content-Type: text/plain", b"Content-Type: text/event-stream",
    b"Accept: text/event-stream", b"X-DashScope-Async: enable", b"X-DashScope-EncryptionKey: {}",
    b"X-Request-Id: \xff", b"Authorization: Bearer", b"X: " + b"a" * 9_000,
    *(b"\r\n".join([b"X-%d: y" % number for number in range(count)]) for count in (60, 130)),
)  # fmt: skip
FIRST_LINES: Final = (
    b"GET / HTTP/1.1", b"HEAD /healthz HTTP/1.1", b"OPTIONS * HTTP/1.1", b"CONNECT a:1 HTTP/1.1", b"PRI * HTTP/2.0",
    b"POST http://evil/ HTTP/1.1", b"POST / HTTP/1.0", b"POST / HTTP/0.9", b"POST /  HTTP/1.1", b"POST / HTTP/1.1 ",
    b"post / HTTP/1.1", b"BREW / HTTP/1.1", b"POST", b"", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"GET /" + b"a" * 9_000 + b" HTTP/1.1", b"GET /%00%ff%2e%2e/ HTTP/1.1", b"POST /a/models/b/c HTTP/1.1",
    b"GET /api/v1/services/aigc/text-generation/generation HTTP/1.1",
    b"POST /api/v1/services/aigc/multimodal-generation/generation HTTP/1.1",
)  # fmt: skip


class Unfit(AssertionError):  # noqa: N818 - named for what came
    """What came back is none of our answers, or did not come."""


async def attack(url: str, requests: int, seed: int) -> Counter[str]:
    """Send so many requests, many at a time; returns how often each status came.

    Raises `Unfit` with the request, for the first that is answered in another way than ours, or not in time.
    """
    came: Counter[str] = Counter()
    starts = iter(range(0, requests, BATCH))

    async def work() -> None:
        for start in starts:
            await _batch(url, random.Random(f"{seed} {start}"), min(BATCH, requests - start), came)

    async with asyncio.TaskGroup() as group:
        for _ in range(WORKERS):
            group.create_task(work())
    return came


async def _batch(url: str, dice: random.Random, count: int, came: Counter[str]) -> None:
    """Some well framed on a connection that stays, the others each on its own."""
    raw = round(count * RAW)
    calls = [_call(dice) for _ in range(count - raw)]
    silent = 0
    while calls:
        async with caller.dial(url) as line:
            stays = True
            while calls and stays:
                answers = await _in_time(_next(line, calls[-1]), calls[-1])
                silent = 0 if answers else silent + 1
                if silent == 1:
                    break  # it was closed for being idle, just as we wrote: as any caller, we take another one
                came[_fit(_one(answers, calls[-1]), calls.pop())] += 1
                stays = answers[0].headers.get("Connection") != "close"
    for _ in range(raw):
        wire = _wire(dice)
        answers = await _in_time(_until_the_end(url, wire), wire)
        # Here, too, a connection may have said nothing for too long before we came to write.
        answers = answers or await _in_time(_until_the_end(url, wire), wire)
        if wire:
            _one(answers, wire)
        came.update(_fit(answer, wire) for answer in answers)


def _one(answers: list[caller.Answer], wire: bytes) -> caller.Answer:
    if not answers:
        raise Unfit(f"no answer to {wire!r}")
    return answers[0]


async def _next(line: caller.Line, wire: bytes) -> list[caller.Answer]:
    """The answer, or none where the connection has ended before it."""
    line.send(wire)
    try:
        head = await line.head()
    except (asyncio.IncompleteReadError, ConnectionResetError) as error:
        if isinstance(error, asyncio.IncompleteReadError) and error.partial:
            raise
        return []
    return [await line.answer(head)]


async def _in_time(work: Coroutine[Any, Any, T], wire: bytes) -> T:
    try:
        async with asyncio.timeout(HANG_S):
            return await work
    except TimeoutError:
        raise Unfit(f"a hang after {wire!r}") from None
    except (ConnectionError, asyncio.IncompleteReadError, ValueError) as error:
        raise Unfit(f"{error!r} after {wire!r}") from None


async def _until_the_end(url: str, wire: bytes) -> list[caller.Answer]:
    """Every answer on one connection until the other side closes it."""
    async with caller.dial(url) as line:
        line.send(wire)
        came = (await line.eof()).replace(CONTINUE, b"")
    reader = asyncio.StreamReader()
    reader.feed_data(came)
    reader.feed_eof()
    kept, answers = caller.Line(reader, line._writer), []
    while not reader.at_eof():
        # A request that could not be read is answered whole, whatever its method.
        answers.append(await kept.answer(bodiless=wire.startswith(b"HEAD ") and came.endswith(b"\r\n\r\n")))
    return answers


def _fit(answer: caller.Answer, wire: bytes) -> str:
    """The status, if an answer is one that we give."""
    try:
        assert CANARY not in str(answer), "an echo"
        assert "Server" not in answer.headers
        kind = answer.headers["Content-Type"]
        if wire.startswith(b"HEAD "):
            assert kind.startswith("application/json")
        elif kind.startswith("text/event-stream"):
            assert answer.status == HTTPStatus.OK
            assert answer.body.endswith(b"\n\n")
            last = caller.packets(answer.body)[-1]
            assert last.get("code") in CODES or last["output"]["choices"][0]["finish_reason"] != "null"
        elif answer.status == HTTPStatus.OK:
            assert answer.json.keys() >= {"output", "usage", "request_id"} or answer.json == {"status": "ok"}
        else:
            assert answer.fault[1] in CODES
    except (AssertionError, KeyError, IndexError, ValueError) as error:
        raise Unfit(f"{error!r}: {answer} after {wire!r}") from None
    return str(answer.status)


def _headers(dice: random.Random) -> dict[str, str]:
    asked = dice.choice(({}, caller.SSE, {"Accept": "text/event-stream"}, {"X-DashScope-SSE": "disable"}))
    return {"Authorization": f"Bearer {KEY}", "X-Canary": CANARY, **asked}


def _call(dice: random.Random) -> bytes:
    """A well-framed request with a body that is odd in its values, its shape or its bytes."""
    document = copy.deepcopy(dice.choice(CALLS))
    for _ in range(dice.choice((0, 1, 1, 1, 2, 3))):
        _change(document, dice)
    raw, headers = orjson.dumps(document), _headers(dice)
    if dice.random() < 1 / 3:
        raw = dice.choice(BODIES)(raw, dice)
    if dice.random() < 1 / 20:
        raw, headers = gzip.compress(raw, 1), headers | {"Content-Encoding": "gzip"}
    return caller.request(raw, headers)


def _change(document: caller.Json, dice: random.Random) -> None:
    """Replace, rename, remove or add a value, anywhere."""
    holder: Any = document
    while True:
        keys = [*holder] if isinstance(holder, dict) else [*range(len(holder))]
        if not keys:
            return
        key = dice.choice(keys)
        if not isinstance(holder[key], dict | list) or dice.random() < 1 / 4:
            break
        holder = holder[key]
    match dice.randrange(4):
        case 0:
            del holder[key]
        case 1 if isinstance(holder, dict):
            holder[dice.choice(NAMES)] = holder.pop(key)
        case _:
            holder[key] = copy.deepcopy(dice.choice(ODD_VALUES))


def _flipped(raw: bytes, dice: random.Random) -> bytes:
    """Some bytes replaced, removed or put in."""
    wire = bytearray(raw)
    for _ in range(dice.randint(1, 4)):
        at = dice.randrange(len(wire) or 1)
        wire[at : at + dice.randrange(3)] = dice.randbytes(dice.randrange(3))
    return bytes(wire)


# What is done to the bytes of a body.
BODIES: Final[tuple[Callable[[bytes, random.Random], bytes], ...]] = (
    _flipped,
    lambda raw, dice: raw[: dice.randrange(len(raw))],
    lambda raw, dice: raw.replace(b'"hello"', dice.choice(ODD_TEXTS)).replace(CANARY.encode(), dice.choice(ODD_TEXTS)),
    lambda _, dice: dice.choice((b"[", b'{"a":', b"[{")) * dice.choice((9, 300, 1_100, 40_000)),
    lambda raw, _: raw + raw,
    lambda raw, _: b"\xef\xbb\xbf" + raw,
    lambda raw, _: raw[:-1] + b"," + raw[1:],
)


def _wire(dice: random.Random) -> bytes:
    """A request with its framing, or any of its bytes, gone wrong."""
    wire = caller.request(orjson.dumps(dice.choice(CALLS)), {**_headers(dice), "Connection": "close"})
    head, _, body = wire.partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    for _ in range(dice.randint(1, 2)):
        lines = dice.choice(HEADS)(lines, dice) or [b""]
    if dice.random() < 1 / 6:
        lines = [*(line for line in lines if not line.startswith(b"Content-Length")), b"Transfer-Encoding: chunked"]
        body = b"%x%b\r\n%b\r\n%b" % (len(body), dice.choice(EXTENSIONS), body, dice.choice(ENDS))
    wire = dice.choice(LINE_ENDS).join((*lines, b"", b"")) + body
    return dice.choice(WHOLE)(wire, dice) if dice.random() < 1 / 3 else wire


# What is done to the lines of a head.
HEADS: Final[tuple[Callable[[list[bytes], random.Random], list[bytes]], ...]] = (
    lambda lines, dice: [dice.choice(FIRST_LINES), *lines[1:]],
    lambda lines, dice: [*lines[:-2], dice.choice(LINES), *lines[-2:]],
    lambda lines, dice: [*lines[:-1], dice.choice(LINES)],
    lambda lines, dice: _flipped(b"\r\n".join(lines), dice).split(b"\r\n"),
    lambda lines, dice: dice.sample(lines, len(lines) - 1),
)
# What is done to all of a request.
WHOLE: Final[tuple[Callable[[bytes, random.Random], bytes], ...]] = (
    _flipped,
    lambda wire, dice: wire[: dice.randrange(len(wire))],
    lambda wire, _: wire + wire,
    lambda wire, dice: dice.randbytes(dice.randrange(1, 300)) + wire,
)
