"""A cheap upstream: every answer is bytes made beforehand, so that what is measured is not it.

python -m tests.bench.upstream   prints its URL, serves until it is killed

How a call is answered is the last line of its last message: `{"deltas": 50, "burst": 16, "gap_s": 0.02}` is fifty
deltas, sixteen a write, so long apart. With `"silent": true` nothing comes after the first write.
"""

from __future__ import annotations

import asyncio
from typing import Any

import orjson

WORDS = (
    " the",
    " sea",
    " is",
    " wide",
    ",",
    " deep",
    " and",
    " blue",
    "，",
    "大海",
    "很",
    "深",
    ".",
    "\n",
    " It",
    " moves",
)
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def _chunk(delta: dict[str, Any], finish: str | None = None, **more: object) -> bytes:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
    document = {
        "id": "cac7192e-5619-4b95-8ae5-1a1a0a2c3b4d",
        "object": "chat.completion.chunk",
        "created": 1764661832,
        "model": "deepseek-flash",
        "system_fingerprint": "fp_eaab8d114b_prod0820_fp8_kvcache",
        "choices": [choice],
    }
    return b"data: " + orjson.dumps(document | more) + b"\n\n"


DELTAS = [_chunk({"content": word}) for word in WORDS]
FIRST = _chunk({"role": "assistant", "content": ""})


def last(deltas: int) -> bytes:
    usage = {"prompt_tokens": 9, "completion_tokens": deltas, "total_tokens": 9 + deltas}
    return _chunk({"content": ""}, "stop", usage=usage) + b"data: [DONE]\n\n"


def _sized(wire: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(wire), wire)


async def _answer(asked: dict[str, Any], writer: asyncio.StreamWriter) -> None:
    # A pass-through hands the caller's own body on.
    messages = asked.get("messages") or asked["input"]["messages"]
    how = orjson.loads(messages[-1]["content"].rpartition("\n")[2])
    deltas, burst = how["deltas"], how["burst"]
    if not asked.get("stream"):
        message = {"role": "assistant", "content": "".join(WORDS[at % len(WORDS)] for at in range(deltas))}
        usage = {"prompt_tokens": 9, "completion_tokens": deltas, "total_tokens": 9 + deltas}
        choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
        body = orjson.dumps({"id": "1", "object": "chat.completion", "choices": choices, "usage": usage})
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body
        )
        return
    writer.write(HEAD + _sized(FIRST))
    for start in range(0, deltas, burst):
        if how["gap_s"]:
            await asyncio.sleep(how["gap_s"])
        writer.write(_sized(b"".join(DELTAS[at % len(DELTAS)] for at in range(start, min(start + burst, deltas)))))
        await writer.drain()
        if how.get("silent"):
            await asyncio.Event().wait()
    writer.write(_sized(last(deltas)) + b"0\r\n\r\n")


async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            size = int(head.partition(b"content-length:")[2].split(b"\r\n", 1)[0])
            await _answer(orjson.loads(await reader.readexactly(size)), writer)
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


async def main() -> None:
    server = await asyncio.start_server(_serve, "127.0.0.1", 0, limit=32 << 20)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)  # noqa: T201 - the line the runner waits for
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
