"""What was tried against the product and held, as it goes over the line: requests of callers, answers of upstreams."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

import orjson

from tests import caller

BODY: Final = orjson.dumps(caller.call())
POST: Final = f"POST {caller.GENERATION} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer k\r\n".encode()
CHUNKED: Final = b"Transfer-Encoding: chunked\r\n"
LENGTH: Final = b"Content-Length: %d\r\n" % len(BODY)
IN_CHUNKS: Final = b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)


def _coded(coding: bytes) -> bytes:
    return POST + b"Transfer-Encoding: " + coding + b"\r\n\r\n" + IN_CHUNKS


def _long(length: bytes) -> bytes:
    return POST + b"Content-Length: " + length + b"\r\n\r\n" + BODY


def _with(line: bytes) -> bytes:
    return POST + line + b"\r\n" + LENGTH + b"\r\n" + BODY


def _line(line: bytes) -> bytes:
    """A whole request with another first line."""
    return line + b"\r\n" + POST.partition(b"\r\n")[2] + LENGTH + b"\r\n" + BODY


def _packed(encoding: bytes, body: bytes) -> bytes:
    return POST + b"Content-Encoding: %b\r\nContent-Length: %d\r\n\r\n%b" % (encoding, len(body), body)


def _unread(value: bytes) -> bytes:
    body = BODY[:-1] + b',"x":' + value + b"}"
    return POST + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)


# Each has exactly one answer, of one of these statuses, and upstream is not asked.
REFUSED: Final[dict[str, tuple[bytes, frozenset[int]]]] = {
    name: (wire, frozenset(statuses))
    for name, (wire, *statuses) in {
        "content-length and chunked": (POST + LENGTH + CHUNKED + b"\r\n" + IN_CHUNKS, 400),
        "chunked twice": (POST + CHUNKED * 2 + b"\r\n" + IN_CHUNKS, 400),
        "`chunked, chunked`": (_coded(b"chunked, chunked"), 400),
        "`chunked, identity`": (_coded(b"chunked, identity"), 400),
        "`identity, chunked`": (_coded(b"identity, chunked"), 400),
        "`gzip, chunked`": (_coded(b"gzip, chunked"), 400),
        "`xchunked`": (_coded(b"xchunked"), 400),
        "vertical tab before chunked": (_coded(b"\x0bchunked"), 400),
        "`chunked;q=1`": (_coded(b"chunked;q=1"), 400),
        "chunked on HTTP/1.0": (_coded(b"chunked").replace(b"HTTP/1.1", b"HTTP/1.0"), 400),
        "blank before the colon": (_with(b"X : 1"), 400),
        "two lengths, one figure": (POST + LENGTH * 2 + b"\r\n" + BODY, 400),
        "two lengths": (POST + LENGTH + b"Content-Length: 3\r\n\r\n" + BODY, 400),
        "list of lengths": (_long(b"%d, %d" % (len(BODY), len(BODY))), 400),
        "length with a sign": (_long(b"+%d" % len(BODY)), 400),
        "length below zero": (_long(b"-1"), 400),
        "length in hex": (_long(b"0x%x" % len(BODY)), 400),
        "length of 65 bits": (_long(b"%d" % (1 << 65)), 400),
        "length with an underscore": (_long(b"1_0"), 400),
        "chunk size with 0x": (POST + CHUNKED + b"\r\n0x" + IN_CHUNKS, 400),
        "chunk size with +": (POST + CHUNKED + b"\r\n+" + IN_CHUNKS, 400),
        "chunk size of 17 digits": (POST + CHUNKED + b"\r\nfffffffffffffffff\r\n", 400),
        "chunk that ends by LF": (POST + CHUNKED + b"\r\n" + IN_CHUNKS.replace(b"\r\n0", b"\n0"), 400),
        "chunk extension that ends by LF": (POST + CHUNKED + b"\r\n2;a\n{}\r\n0\r\n\r\n", 400),
        "chunk without its end": (POST + CHUNKED + b"\r\n2\r\n{}XX0\r\n\r\n", 400),
        "trailer with NUL": (POST + CHUNKED + b"\r\n" + IN_CHUNKS[:-2] + b"X: \0\r\n\r\n", 400),
        "folded header": (_with(b"X: 1\r\n Y: 2"), 400),
        "folded Transfer-Encoding": (POST + b"Transfer-Encoding:\r\n chunked\r\n\r\n" + IN_CHUNKS, 400),
        "NUL in a header": (_with(b"X: a\0b"), 400),
        "CR in a header": (_with(b"X: a\rb"), 400),
        "head by LF": (POST.replace(b"\r\n", b"\n") + LENGTH.replace(b"\r\n", b"\n") + b"\n" + BODY, 400),
        "no Host": (_with(b"X: 1").replace(b"Host: localhost\r\n", b""), 400),
        "two Hosts": (_with(b"Host: localhost"), 400),
        "HTTP/1.2": (_line(f"POST {caller.GENERATION} HTTP/1.2".encode()), 400),
        "HTTP/0.9": (b"GET /healthz\r\n\r\n", 400),
        "HTTP/2 preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        "absolute form": (_line(f"POST http://localhost{caller.GENERATION} HTTP/1.1".encode()), 400),
        "CONNECT": (_line(b"CONNECT localhost:80 HTTP/1.1"), 400),
        "OPTIONS *": (b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        "TLS to the plain port": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500), 400),
        "odd Expect": (_with(b"Expect: sk-secret"), 400),
        "key of eight bits": (_with(b"X: 1").replace(b"Bearer k", b"Bearer \xe9\xff"), 401, 400),
        "two Authorization lines": (_with(b"Authorization: Bearer other"), 401),
        "150 headers": (_with(b"\r\n".join(b"X-%d: 1" % number for number in range(150))), 400),
        "header of 9 kB": (_with(b"X: " + b"a" * 9_000), 400),
        "path of 9 kB": (_line(b"POST /" + b"a" * 9_000 + b" HTTP/1.1"), 400),
        "path with ..": (_line(b"POST /api/../healthz HTTP/1.1"), 400, 404),
        "path with //": (_line(f"POST /{caller.GENERATION} HTTP/1.1".encode()), 404),
        "method with quotes": (_line(b'"GET" / HTTP/1.1'), 400),
        "TRACE": (_line(b"TRACE / HTTP/1.1"), 400, 404),
        "brotli": (_packed(b"br", BODY), 400),
        "gzip twice": (_packed(b"gzip, gzip", gzip.compress(gzip.compress(BODY))), 400),
        "gzip in gzip, told once": (_packed(b"gzip", gzip.compress(gzip.compress(BODY))), 400),
        "gzip that is none": (_packed(b"gzip", BODY), 400),
        "gzip and garbage": (_packed(b"gzip", gzip.compress(BODY) + b"garbage"), 400),
        "gzip with a wrong check sum": (_packed(b"gzip", gzip.compress(BODY)[:-8] + bytes(8)), 400),
        "gzip cut by 1 byte": (_packed(b"gzip", gzip.compress(BODY)[:-1]), 400),
        "gzip cut by 8 bytes": (_packed(b"gzip", gzip.compress(BODY)[:-8]), 400),
        "50,000 empty gzip members": (_packed(b"gzip", gzip.compress(b"") * 50_000), 400),
        "one header without end": (POST + b"X: " + b"a" * (3 << 20), 400),
        "headers without end": (POST + b"X: 1\r\n" * (1 << 19), 400),
        "request line without end": (b"POST /" + b"a" * (3 << 20), 400),
        "trailers without end": (POST + CHUNKED + b"\r\n" + IN_CHUNKS[:-2] + b"X: 1\r\n" * (1 << 19), 400),
    }.items()
}

# Each is a call like any other, and well.
TAKEN: Final[dict[str, bytes]] = {
    "length with leading zeros": _long(b"000%d" % len(BODY)),
    "`Expect: 100-continue`": _with(b"Expect: 100-continue"),
    "a fragment in the path": _line(f"POST {caller.GENERATION}#a HTTP/1.1".encode()),
    "gzip of two members": _packed(b"gzip", gzip.compress(BODY[:20]) + gzip.compress(BODY[20:])),
    "a body in chunks of one byte": POST
    + CHUNKED
    + b"\r\n"
    + b"".join(b"1\r\n%c\r\n" % one for one in BODY)
    + b"0\r\n\r\n",
    "a chunk extension": POST + CHUNKED + b"\r\n" + IN_CHUNKS.replace(b"\r\n", b";a=b\r\n", 1),
    "`Upgrade: h2c`": _with(b"Connection: Upgrade\r\nUpgrade: h2c"),
    "line ends before a request": b"\r\n" * 10_000 + _with(b"X: 1"),
    "an unread number of 300 digits": _unread(b"9" * 300),
    "an unread list, 120 deep": _unread(b"[" * 120 + b"]" * 120),
}

# Each is read to its end and refused in words; its connection serves on.
UNREADABLE: Final[dict[str, bytes]] = {
    "an unread number of 100,000 digits": _unread(b"9" * 100_000),
    "an unread `1e999`": _unread(b"1e999"),
    "an unread `NaN`": _unread(b"NaN"),
    "an unread list, 1,000 deep": _unread(b"[" * 1_000 + b"]" * 1_000),
    "an unread list, 100,000 deep": _unread(b"[" * 100_000 + b"]" * 100_000),
}
# The rest of what was tried: row by row of this matrix, or the test that does it.
ELSEWHERE: Final[dict[str, str]] = {
    "prompts of callers who leave, six of 12 MiB; eight past a key's limits": "rows 83, 84",
    "a prompt of blanks, digits, letters, marks, 18 kinds": "row 82",
    "64 kB of gzip that become 12 MiB of lists, objects, commas, escapes, schemas, 16 kinds": "row 77",
    "a gzip bomb, one of a megabyte and forty unfinished; without a key": "rows 15, 76, 85",
    "bodies of all open calls; what upstream's answers hold": "row 85, tests/proxy/call/test_large_answers.py",
    "a delta, a chain, arguments or a JSON answer of megabytes": "row 99",
    "packets that repeat a long text, hundreds in one read": "tests/proxy/call/test_large_answers.py",
    "an idle upstream connection that speaks": "row 105",
    "stops that nearly match": "row 106",
    "log probabilities in cumulative packets": "row 107",
    "keys, hosts and headers in upstream's words": "row 108",
    "usage that cannot be": "rows 57, 109",
    "silent, half and endless requests to the admin port; 300 at once": "rows 91, 92",
    "idle strangers, health while all is at work": "rows 93, 94",
    "a head or a body a byte at a time; half a head behind a request": "rows 13, 14, 95",
    "a website: CSRF, DNS rebinding, the admin port by a moved name": "row 96",
    "forged requests to `/docs/try`": "tests/integration/test_docs.py",
    "strays, thousands": "row 97",
    "HEAD, garbage and thousands of requests behind a request or a stream": "row 111",
    "names, models and ids with escapes, line ends, a million characters": "row 112",
    "a call hidden in the body of another, 16 forms, behind three ingresses": "tests/integration/test_ingresses.py",
    "who does not read, vanishes, resets, half-closes": "rows 1 to 11",
    "10,000 leavers; 24,000 mixed calls, half of them leavers": "rows 12, 100",
    "2,000 open streams": "row 65",
    "requests mutated, a million": "tests/faults/test_figures.py",
    "concurrency and calls a minute by hundreds at once": "tests/proxy/admission/test_limits.py",
    "an upstream that is unknown to the certificate, expired, another's": "row 26",
    "an upstream that stalls, cuts, freezes, is killed": "rows 45 to 50",
    "Redis stopped, killed, emptied, its answers lost, its clock set back": "row 78",
    "a refund a minute late": "tests/proxy/admission/test_limits.py, tests/integration/test_shared_limits.py",
    "a worker that hangs or dies; the first process killed": "row 79, tests/integration/test_workers.py",
    "HUP, QUIT, INT, USR1, USR2 at every moment": "row 80",
    "a keys file emptied, cut, changed under its old time": "rows 81, 110",
    "a journal with NULs, torn and foreign lines; written to a pipe": "tests/proxy/metering/test_ledger.py, "
    "tests/integration/test_journal_output.py",
    "canaries in every input, looked for in every output": "tests/integration/test_serve.py",
    "settings with secrets, wrong": "tests/integration/test_check.py",
}

# The kinds that got through when all this was tried first, and what shows that each of them is gone.
GONE: Final = {
    "work for callers who have left, in one queue without bound": "rows 82, 83, 84",
    "JSON of many small containers": "rows 77, 113",
    "gzip inflated on the loop, before the key, without end": "rows 76, 77, 85, 113",
    "leases of a Redis that was away": "row 78",
    "bytes on an idle upstream connection taken for an answer": "row 105",
    "an admin port without clocks and a cap": "rows 91, 92",
    "a website that calls with the operator's key": "row 96",
    "a worker that hangs, and that nobody replaces": "row 79",
    "stops that nearly match, quadratic": "row 106",
    "log probabilities in cumulative packets, quadratic": "row 107",
    "idle strangers that fill the connections": "rows 93, 94",
    "SIGHUP and SIGQUIT that cut": "row 80",
    "sentences that repeat our key and hosts": "row 108",
    "an upstream's `Retry-After` as it is": "row 108",
    "usage that no model can have, believed": "rows 57, 109",
    "a clock of Redis that goes back": "row 78",
    "a giant delta, many tool calls, many fragments": "rows 99, 103, tests/translators/test_toolcalls.py",
    "a keys file that is emptied for a moment": "rows 81, 110",
    "a keys file changed in place under its old time": "rows 81, 110",
    "gzip cut in its last bytes, taken for whole": "row 101, tests/proxy/downstream/test_body.py",
    "half a head behind a request, untimed": "row 95",
    "`identity, chunked` and `gzip, chunked` taken for `chunked`": "row 101",
    "two `Authorization` lines": "row 101",
    "an admin port that answers in another's words": "row 92",
    "a call whose count waits, told that its body is invalid": "row 124, tests/proxy/call/test_prepare.py",
    "SIGUSR1 in the first tenths of a second": "row 80",
}

Say = Callable[[asyncio.StreamWriter], Awaitable[None]]
OK: Final = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
JSON_HEAD: Final = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"


def chunked(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def event(delta: object, finish: str | None = None, **more: object) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return b"data: %b\n\n" % orjson.dumps({"choices": [choice], **more})


WELL: Final = event({"content": "one two"}) + event({}, "stop") + b"data: [DONE]\n\n"


def usage(**figures: object) -> bytes:
    told = {"prompt_tokens": 9, "completion_tokens": 2, **figures}
    return event({"content": "one two"}) + event({}, "stop", usage=told) + b"data: [DONE]\n\n"


def once(answer: bytes) -> Say:
    async def say(writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        await writer.drain()

    return say


def streamed(events: bytes) -> Say:
    return once(OK + chunked(events) + b"0\r\n\r\n")


def for_ever(head: bytes, piece: bytes, gap_s: float = 0.0) -> Say:
    async def say(writer: asyncio.StreamWriter) -> None:
        writer.write(head)
        while True:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(gap_s)

    return say


def bytewise(answer: bytes) -> Say:
    async def say(writer: asyncio.StreamWriter) -> None:
        for byte in answer:
            writer.write(bytes((byte,)))
            await writer.drain()
            await asyncio.sleep(0)

    return say


def packed(wire: bytes, *, whole: bool = True) -> bytes:
    return (
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n"
        % len(wire)
        + (wire if whole else wire[:-8])
    )


@dataclass(frozen=True, slots=True)
class Hostile:
    """What an upstream says to a call.

    statuses: what its caller may be told; with 200 come packets, which may end in an error frame
    ends:     whether the stream then has a finish; None: either
    """

    say: Say
    statuses: frozenset[int]
    ends: bool | None = None


def told(say: Say, *statuses: int, ends: bool | None = None) -> Hostile:
    return Hostile(say, frozenset(statuses), ends)


HOSTILE: Final[dict[str, Hostile]] = {
    "comments for ever": told(for_ever(OK, chunked(b": hello\n\n" * 99), 0.01), 500),
    "a line without end": told(for_ever(OK, chunked(b"a" * 65_536)), 500),
    "an event without end": told(for_ever(OK, chunked(b"data: " + b"a" * 65_000)), 500),
    "empty deltas for ever": told(for_ever(OK, chunked(event({}) * 9), 0.01), 500),
    "1xx for ever": told(for_ever(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 99), 500),
    "headers for ever": told(for_ever(b"HTTP/1.1 200 OK\r\n", b"X: 1\r\n" * 999), 500),
    "chunk extension for ever": told(for_ever(OK + b"5", b";a=b" * 999), 500),
    "trailers for ever": told(for_ever(OK + chunked(event({"content": "a"})) + b"0\r\n", b"X: 1\r\n" * 999), 200, 500),
    "102 and 103 first": told(
        once(
            b"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n"
            + OK
            + chunked(WELL)
            + b"0\r\n\r\n"
        ),
        200,
        ends=True,
    ),
    "101": told(once(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n"), 500),
    "5,000 headers": told(
        once(OK[:-2] + b"X: 1234567890123456789012345\r\n" * 5_000 + b"\r\n" + chunked(WELL) + b"0\r\n\r\n"), 500
    ),
    "status 999": told(once(b"HTTP/1.1 999 What\r\nContent-Length: 0\r\n\r\n"), 500),
    "302": told(once(b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n"), 500),
    "HTTP/0.9": told(once(b"hello\n"), 500),
    "HTTP/1.0": told(once(b"HTTP/1.0 200 OK\r\nContent-Type: text/event-stream\r\n\r\n" + WELL), 200, ends=True),
    "cut": told(once(OK + chunked(event({"content": "a"})) + b"ff\r\n"), 200, ends=False),
    "length and chunked": told(once(OK[:-2] + b"Content-Length: 5\r\n\r\n" + chunked(WELL) + b"0\r\n\r\n"), 500),
    "gzip unasked": told(once(packed(gzip.compress(WELL))), 200, ends=True),
    "gzip cut": told(once(packed(gzip.compress(WELL), whole=False)), 200, 500),
    "gzip bomb": told(once(packed(caller.bomb(b"a" * (1 << 20), 64, b"data: "))), 500),
    "brotli unasked": told(once(packed(gzip.compress(WELL)).replace(b"gzip", b"br")), 500),
    "html": told(once(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 6\r\n\r\n<html>"), 500),
    "no type": told(
        once(OK.replace(b"Content-Type: text/event-stream\r\n", b"") + chunked(WELL) + b"0\r\n\r\n"), 200, ends=True
    ),
    "usage below zero": told(streamed(usage(prompt_tokens=-1, completion_tokens=-5)), 200, ends=True),
    "usage 1e30": told(streamed(usage(completion_tokens=1e30)), 200, ends=True),
    "usage 2**63": told(streamed(usage(completion_tokens=1 << 63)), 200, ends=True),
    "usage 2**39": told(streamed(usage(completion_tokens=1 << 39, prompt_tokens=1 << 39)), 200, ends=True),
    "cached above the prompt": told(streamed(usage(prompt_cache_hit_tokens=99)), 200, ends=True),
    "usage in words": told(streamed(usage(completion_tokens="two")), 200, ends=True),
    "usage as a list": told(streamed(event({"content": "a"}) + event({}, "stop", usage=[1])), 200, ends=True),
    "5,000 choices": told(
        streamed(b"data: %b\n\n" % orjson.dumps({"choices": [{"index": 0, "delta": {"content": "a"}}] * 5_000})), 500
    ),
    "index -1": told(streamed(b'data: {"choices":[{"index":-1,"delta":{"content":"a"}}]}\n\n'), 500),
    "tool index 2**70": told(
        streamed(
            event(
                {"tool_calls": [{"index": 1 << 63, "id": "a", "function": {"name": "f", "arguments": "{}"}}]}
            ).replace(b"9223372036854775808", b"1180591620717411303424")
            + event({}, "tool_calls")
        ),
        200,
        500,
    ),
    "tool id of control characters": told(
        streamed(
            event({"tool_calls": [{"index": 0, "id": "\x00\x1b\n", "function": {"name": "f", "arguments": "{}"}}]})
            + event({}, "tool_calls")
        ),
        200,
        ends=True,
    ),
    "NUL": told(streamed(event({"content": "a\0b"}) + event({}, "stop")), 200, ends=True),
    "half a surrogate pair": told(
        streamed(event({"content": "X"}).replace(b"X", b"\\ud800") + event({}, "stop")), 200, ends=True
    ),
    "bad UTF-8": told(streamed(event({"content": "X"}).replace(b"X", b"\xff")), 500),
    "line separators": told(streamed(event({"content": "a\u2028\u0085b"}) + event({}, "stop")), 200, ends=True),
    "byte-order mark": told(streamed(b"\xef\xbb\xbf" + WELL), 200, ends=True),
    "CR alone": told(streamed(WELL.replace(b"\n", b"\r")), 200, ends=True),
    "text after the finish": told(streamed(event({}, "stop") + WELL), 200, ends=True),
    "two finishes": told(streamed(event({"content": "a"}) + event({}, "stop") + event({}, "length")), 200, ends=True),
    "200, then an error": told(streamed(b'data: {"error":{"message":"x","code":429}}\n\n'), 429),
    "[DONE] alone": told(streamed(b"data: [DONE]\n\n"), 500),
    "2,000 deep": told(streamed(b"data: " + b"[" * 2_000 + b"]" * 2_000 + b"\n\n"), 500),
    "NaN": told(streamed(b'data: {"choices":[{"index":0,"delta":{"content":NaN}}]}\n\n'), 500),
    "an unknown finish": told(streamed(event({"content": "a"}) + event({}, "because")), 200),
    "an event of 17 MB": told(streamed(event({"content": "a" * (17 << 20)})), 500),
    "chunk size ffff…": told(once(OK + chunked(event({"content": "a"})) + b"f" * 40 + b"\r\n"), 200, ends=False),
    "head byte by byte for ever": told(for_ever(b"HTTP/1.1 200 OK\r\nX: ", b"a", 0.05), 500),
    "the whole answer byte by byte": told(bytewise(OK + chunked(WELL) + b"0\r\n\r\n"), 200, ends=True),
    "2,500 tool calls": told(
        streamed(
            b"".join(
                event(
                    {
                        "tool_calls": [
                            {"index": number, "id": f"c{number}", "function": {"name": "f", "arguments": "{}"}}
                        ]
                    }
                )
                for number in range(2_500)
            )
        ),
        200,
        500,
        ends=False,
    ),
    "16,000 fragments of one call": told(
        streamed(
            event({"tool_calls": [{"index": 0, "id": "c", "function": {"name": "f", "arguments": '{"a":"'}}]})
            + event({"tool_calls": [{"index": 0, "function": {"arguments": "}"}}]}) * 16_000
            + event({}, "tool_calls")
        ),
        200,
        ends=True,
    ),
    "JSON for a stream": told(
        once(JSON_HEAD % 69 + b'{"choices":[{"index":0,"message":{"content":"a"},"finish_reason":""}]}'[:69]), 500, 200
    ),
}


# After an answer has been read, and before the next call.
LATER_S: Final = 0.05


class Server:
    """An upstream that says whatever bytes it is told to.

    say:   what it says to a call; may be changed between two
    keeps: whether a connection serves again
    later: said on a connection a moment after its answer, where there is any
    """

    def __init__(self) -> None:
        self.say: Say = streamed(WELL)
        self.keeps = False
        self.later = b""
        self.asked = 0
        self.url = ""

    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
                await reader.readexactly(length)
                self.asked += 1
                await self.say(writer)
                if self.later:
                    await asyncio.sleep(LATER_S)
                    writer.write(self.later)
                    self.later = b""
                if not self.keeps:
                    break
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def serving() -> AsyncIterator[Server]:
    """Such an upstream, as long as the context lives."""
    upstream = Server()
    server = await asyncio.start_server(upstream.converse, "127.0.0.1", 0)
    upstream.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield upstream
    finally:
        server.close()


def page() -> list[str]:
    """What was tried, as a table in Markdown."""
    tables = {101: REFUSED, 102: TAKEN, 103: HOSTILE, 104: UNREADABLE}
    lines = [f"| {name} | row {number} |" for number, names in tables.items() for name in names]
    return lines + [f"| {name} | {where} |" for name, where in ELSEWHERE.items()]


def gone() -> list[str]:
    """The kinds that got through, as a table in Markdown."""
    return [f"| {number} | {kind} | {where} |" for number, (kind, where) in enumerate(GONE.items(), 1)]
