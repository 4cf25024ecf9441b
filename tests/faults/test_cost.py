"""I · Cost: what a byte may cost, in seconds of the processor and memory read from the process itself, not by a clock.

Spec USE-8, HTTP-11, REQ-11. What is sent is 64 kB at most; what it would become is another matter.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import gzip
import random
import string
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import orjson
import pytest

from proxy.simulation.wire import Script
from tests import caller
from tests.faults import matrix
from tests.faults.conftest import Stage, Stand
from tests.faults.matrix import row

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(300)]

MIB = 1 << 20
SENT_BYTES = 64 << 10
BODY_BYTES = 12 << 20
GZIP = {"Content-Encoding": "gzip"}
KEYLESS = {"Authorization": ""}
# The model that takes the longest prompts.
LONGEST = "deepseek-v4-flash"

KEYLESS_CPU_S = 0.05
KEYLESS_BYTES = 16 << 20
KEYED_CPU_S = 0.3
# Of all threads: 12 MiB of text, the dearest of which may cost ten times as much as English (row 82).
KEYED_ALL_S = 5.0
KEYED_BYTES = 64 << 20
GAP_S = 0.1
TIMES_ENGLISH = 10

ENGLISH = "The relay reads what has come, counts it and hands it on; nothing waits for a number, none is guessed. "


class Spent:
    """What a process spends while it is looked at.

    loop_s: seconds of the processor, of the thread that has the loop; all_s: of all threads
    peak_bytes: the most memory beyond what it had before
    """

    def __init__(self, pid: int) -> None:
        self._proc = Path("/proc") / str(pid)
        self._pid = pid
        # From now on the most memory is the present one.
        (self._proc / "clear_refs").write_text("5")
        self._before_bytes = self._most_bytes()
        self._before_s = self.loop_now_s(), self.all_now_s()

    def loop_now_s(self) -> float:
        """Of the thread that has the loop, since it began."""
        return int((self._proc / "task" / str(self._pid) / "schedstat").read_text().split()[0]) / 1e9

    def all_now_s(self) -> float:
        """Of all threads that are there."""
        return sum(int((task / "schedstat").read_text().split()[0]) for task in (self._proc / "task").iterdir()) / 1e9

    @property
    def loop_s(self) -> float:
        return self.loop_now_s() - self._before_s[0]

    @property
    def all_s(self) -> float:
        return self.all_now_s() - self._before_s[1]

    @property
    def peak_bytes(self) -> int:
        return self._most_bytes() - self._before_bytes

    def _most_bytes(self) -> int:
        (line,) = (line for line in (self._proc / "status").read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) << 10


@contextlib.asynccontextmanager
async def beside(stand: Stand, spent: Spent) -> AsyncIterator[list[float]]:
    """Another caller's stream; between each two of its packets, so many seconds the loop has worked without a pause."""
    gaps: list[float] = []
    stand.upstream.scripts.append(Script(text="a b", endless=True, gap_s=0.005))
    async with caller.dial(stand.url) as line:
        line.send(caller.request(caller.call(incremental_output=True), caller.SSE))
        await line.head()
        await line.piece()

        async def watch() -> None:
            last_s = spent.loop_now_s()
            while True:
                await line.piece()
                gaps.append((now_s := spent.loop_now_s()) - last_s)
                last_s = now_s

        watching = asyncio.create_task(watch())
        yield gaps
        await asyncio.sleep(0.05)
        watching.cancel()


def packed(body: bytes) -> bytes:
    """A body as gzip sends it, in 64 kB at most."""
    wire = gzip.compress(body, 9)
    assert len(wire) < SENT_BYTES, len(wire)
    assert len(body) <= BODY_BYTES, len(body)
    return wire


def saying(text: bytes, model: str = LONGEST, **more: bytes) -> bytes:
    """A call with so much of a text as there is room for, as it stands in JSON."""
    said = b"".join(b',"%b":%b' % (name.encode(), value) for name, value in more.items())
    head = b'{"model":"%b","input":{"messages":[{"role":"user","content":"' % model.encode()
    end = b'"}]}%b}' % said
    return head + text * ((BODY_BYTES - 8 - len(head) - len(end)) // len(text)) + end


def unread(value: bytes) -> bytes:
    """A call with a field that nobody reads."""
    return orjson.dumps(caller.call())[:-1] + b',"x":' + value + b"}"


def tool(schema: bytes) -> bytes:
    """A call with a tool of this schema."""
    said = orjson.dumps(caller.call(model=LONGEST, tools=[{"type": "function", "function": {"name": "f"}}]))
    return said.replace(b'"name":"f"', b'"name":"f","parameters":' + schema)


def many(unit: bytes, parts: int) -> bytes:
    return b"[" + b",".join([unit] * parts) + b"]"


NESTED = b'{"a":' * 100 + b"1" + b"}" * 100
# Made where they are sent: all of them together are 200 MB.
DEAR: dict[str, Callable[[], bytes]] = {
    "blanks": lambda: saying(b" "),
    "blanks and an emoji": lambda: saying(b" ").replace(b"   ", "😀".encode()[:3] + b"\x80", 1),
    "blanks and a Chinese character": lambda: saying(b" ").replace(b"   ", "一".encode(), 1),
    "letters": lambda: saying(b"a"),
    "commas": lambda: saying(b","),
    "quotes": lambda: saying(b'\\"'),
    "escapes": lambda: saying(b"\\u4e00"),
    "lists, as many as are taken": lambda: unread(many(b"[" * 100 + b"]" * 100, 4_900)),
    "objects, as many as are taken": lambda: unread(many(NESTED, 1_990)),
    "empty objects, as many as are taken": lambda: unread(many(b"{}", 249_000)),
    "lists, as many as fit": lambda: unread(many(b"[]", (BODY_BYTES - 200) // 3)),
    "objects, as many as fit": lambda: unread(many(NESTED, (BODY_BYTES - 200) // 602)),
    "a schema, as large as is taken": lambda: tool(many(NESTED, 1_990)),
    "parts of a text, as many as are taken": lambda: (
        saying(b" ").split(b'"content":')[0] + b'"content":' + many(b'{"text":"a"}', 152_000) + b"}]}}"
    ),
    "not JSON": lambda: b"[" * BODY_BYTES,
    "blanks alone": lambda: b" " * BODY_BYTES,
}
keyless: list[tuple[float, int]] = []
BOMB = caller.bomb(b" " * MIB, 60)


@pytest.mark.parametrize(
    "wire",
    [
        pytest.param(caller.request(BOMB, GZIP | KEYLESS), id="bomb"),
        pytest.param(caller.request(packed(DEAR["objects, as many as fit"]()), GZIP | KEYLESS), id="objects"),
        pytest.param(caller.request(b"[" * SENT_BYTES, KEYLESS), id="lists"),
        pytest.param(
            caller.request(b"", KEYLESS | {"Content-Length": "", "Transfer-Encoding": "chunked"})
            + b"1\r\n \r\n" * (SENT_BYTES // 6),
            id="small chunks",
        ),
        pytest.param(b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * (SENT_BYTES // 6), id="headers"),
        pytest.param(b"\r\n" * (SENT_BYTES // 2), id="line ends"),
        pytest.param(caller.request(b"", {"X-A": "\x00" * 8_000} | KEYLESS) * 8, id="no text"),
    ],
)
@row(
    "401 `InvalidApiKey`, or 400",
    figure=f"64 kB without a key: ≤ {KEYLESS_CPU_S} s of the processor in the loop, twice that in all threads, "
    f"≤ {KEYLESS_BYTES >> 20} MiB",
)
async def test_f76_who_has_no_key_costs_next_to_nothing(stand: Stand, wire: bytes) -> None:
    spent = Spent(stand.served.process.pid)
    async with caller.dial(stand.url) as line:
        line.send(wire[: SENT_BYTES + 512])
        with contextlib.suppress(TimeoutError, asyncio.IncompleteReadError):
            async with asyncio.timeout(0.5):
                assert (await line.answer()).status in {400, 401}
    await stand.settled()
    assert spent.loop_s < KEYLESS_CPU_S
    assert spent.all_s < 2 * KEYLESS_CPU_S
    assert spent.peak_bytes < KEYLESS_BYTES
    keyless.append((spent.loop_s, spent.peak_bytes))
    matrix.reached(
        "the dearest 64 kB without a key",
        f"{max(keyless)[0] * 1e3:.0f} ms of the loop, {max(size for _, size in keyless) / MIB:.1f} MiB",
    )


# What each has cost: seconds of the loop, bytes, the longest gap, seconds of all threads.
spent_on: dict[str, tuple[float, int, float, float]] = {}


@pytest.mark.parametrize("name", DEAR)
@row(
    "an answer, or 400",
    figure=f"64 kB that become 12 MiB: ≤ {KEYED_CPU_S} s of the processor in the loop, ≤ {KEYED_ALL_S:g} s in all "
    f"threads, of which two count, ≤ {KEYED_BYTES >> 20} MiB; "
    f"another stream's longest gap ≤ {GAP_S * 1e3:g} ms of it",
)
async def test_f77_who_has_a_key_costs_little_whatever_it_becomes(stage: Stage, name: str) -> None:
    stand = await stage()
    # It would count all of the prompt at once.
    stand.upstream.script = Script(text="a b", usage="never")
    wire = packed(DEAR[name]())
    await stand.reply()
    spent = Spent(stand.served.process.pid)
    answer = await stand.reply(wire, GZIP)
    loop_s, all_s, peak_bytes = spent.loop_s, spent.all_s, spent.peak_bytes
    async with beside(stand, spent) as gaps:
        assert (await stand.reply(wire, GZIP)).status == answer.status
    assert answer.status in {200, 400}
    assert loop_s < KEYED_CPU_S
    assert all_s < KEYED_ALL_S
    assert peak_bytes < KEYED_BYTES
    assert max(gaps) < GAP_S
    spent_on[name] = loop_s, peak_bytes, max(gaps), all_s
    by_loop, by_bytes, by_gap, by_all = (max(spent_on, key=lambda one: spent_on[one][place]) for place in range(4))
    matrix.reached(
        "the dearest 64 kB with a key",
        f"{spent_on[by_loop][0]:.2f} s of the loop ({by_loop}); {spent_on[by_bytes][1] / MIB:.0f} MiB ({by_bytes}); "
        f"longest gap of another stream {spent_on[by_gap][2] * 1e3:.0f} ms ({by_gap}); "
        f"{spent_on[by_all][3]:.1f} s of all threads ({by_all})",
    )


def prompts() -> Iterator[tuple[str, str]]:
    """A MiB of each, by kinds of what it is made of."""
    dice = random.Random(8)
    runs = {
        "blanks": " ",
        "blanks out of step": "x" + " " * 1_000,
        "tabs": "\t",
        "line ends": "\n",
        "digits": "0123456789",
        "underscores": "_",
        "letters": "a",
        "a character each": "\x01\x02\x03a",
        "Chinese without an end": "一二三",
        "combining marks": "e\u0301\u0308",
        "joined emoji": "👨\u200d👩\u200d👧\u200d👦",
        "joiners": "\u200dx",
        "no-break spaces": "\u00a0",
        "JSON": '{"a":[1,2,{"b":null}]},',
    }
    yield from ((name, run * (MIB // len(run.encode()))) for name, run in runs.items())
    yield "base64", base64.b64encode(dice.randbytes(MIB * 3 // 4)).decode()
    yield "any letters", "".join(dice.choices(string.ascii_letters, k=MIB))
    yield "any punctuation", "".join(dice.choices(string.punctuation, k=MIB))
    yield "any characters", "".join(map(chr, dice.choices(range(0x20, 0xD800), k=MIB // 3)))


@row(
    "the answer",
    figure=f"of 18 kinds, the dearest MiB of prompt costs ≤ {TIMES_ENGLISH} × a MiB of English, all in all",
)
async def test_f82_no_prompt_costs_much_more_than_english(stage: Stage) -> None:
    stand = await stage()
    stand.upstream.script = Script(text="a b", usage="never")

    async def cost_s(text: str) -> float:
        spent = Spent(stand.served.process.pid)
        assert (await stand.reply(caller.call(text, LONGEST))).status in {200, 400}
        return spent.all_s

    english = ENGLISH * (MIB // len(ENGLISH))
    await cost_s(english)
    # Others use the machine too: each is as cheap as it can be.
    usual_s = min([await cost_s(english) for _ in range(5)])
    costs = {name: min([await cost_s(text) for _ in range(2)]) / usual_s for name, text in prompts()}
    for name, text in prompts():
        if costs[name] >= TIMES_ENGLISH / 2:
            costs[name] = min([costs[name], *[await cost_s(text) / usual_s for _ in range(3)]])
    dearest = max(costs, key=costs.__getitem__)
    assert costs[dearest] < TIMES_ENGLISH, costs
    matrix.reached(
        "the dearest MiB of prompt",
        f"{dearest}: {costs[dearest]:.1f} × a MiB of English, which is {usual_s * 1e3:.0f} ms",
    )


@row(
    "200 for who stays; 429 for who is over a limit",
    figure="six prompts of 12 MiB whose callers leave: their work ends within 0.5 s of the processor, "
    "a call of 10,000 characters costs as much as without them",
)
async def test_f83_nobody_waits_for_the_prompts_of_callers_who_have_left(stage: Stage) -> None:
    stand = await stage()
    stand.upstream.script = Script(text="a b", usage="never")
    wire = caller.request(packed(saying(b" ")), GZIP)
    await stand.reply(caller.call(ENGLISH * 100))
    for _ in range(6):
        async with caller.dial(stand.url) as line:
            line.send(wire)
            await asyncio.sleep(0.3)
    spent = Spent(stand.served.process.pid)
    assert (await stand.reply(caller.call(ENGLISH * 100))).status == 200
    await asyncio.sleep(0.5)
    assert spent.all_s < 0.5
    await stand.settled()


@row(
    "503 `ModelServingError` or 429 at once; 200 for the other key",
    figure="concurrency=1 and rpm=5 a key: of eight prompts of 12 MiB at most one is counted at a time, "
    "another key's call costs as much as without them",
)
async def test_f84_a_key_over_its_limits_has_nothing_counted(stage: Stage) -> None:
    stand = await stage("--key-limits", "rpm=5 concurrency=1")
    stand.upstream.script = Script(text="a b", usage="never")
    await stand.reply()
    wire = caller.request(packed(saying(b" ")), GZIP | {"Authorization": "Bearer another"})
    async with contextlib.AsyncExitStack() as stack:
        lines = [await stack.enter_async_context(caller.dial(stand.url)) for _ in range(8)]
        for line in lines:
            line.send(wire)
        answer = await stand.reply(caller.call(ENGLISH * 100))
        assert answer.status == 200
        # Large bodies are read one at a time: one call may end before the next one asks to be let in.
        answers = [await line.answer() for line in lines]
        refused = [one for one in answers if one.status != 200]
        assert len(refused) >= 8 - 5
        assert {refusal.status for refusal in refused} <= {429, 503}
        assert {refusal.headers["Retry-After"] for refusal in refused} >= {"1"}
    await stand.settled()


@row(
    "503 `ModelServingError`, `Retry-After: 1`, then 200",
    figure="forty bombs whose last byte does not come hold what was sent of them; max_open_bytes 24 MiB, "
    "three calls of 10 MiB: one is told to come back",
)
async def test_f85_what_all_open_calls_hold_is_bounded(stage: Stage) -> None:
    stand = await stage("--max-open-bytes", "24MiB")
    await stand.reply()
    spent = Spent(stand.served.process.pid)
    bomb = caller.request(packed(saying(b"a")), GZIP)
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(40):
            (await stack.enter_async_context(caller.dial(stand.url))).send(bomb[:-1])
        assert (await stand.reply()).status == 200
        assert spent.peak_bytes < KEYLESS_BYTES
    whole = caller.request(b" " * (10 << 20))[:-1]
    async with contextlib.AsyncExitStack() as stack:
        lines = [await stack.enter_async_context(caller.dial(stand.url)) for _ in range(3)]
        for line in lines:
            line.send(whole)
        done, pending = await asyncio.wait(
            [asyncio.ensure_future(line.answer()) for line in lines], timeout=5, return_when=asyncio.FIRST_COMPLETED
        )
        (refused,) = (task.result() for task in done)
        assert (refused.fault[:2], refused.headers["Retry-After"]) == ((503, "ModelServingError"), "1")
        for task in pending:
            task.cancel()
    assert (await stand.reply()).status == 200
    await stand.settled()


SEVERAL = ("commas", "escapes", "lists, as many as are taken", "parts of a text, as many as are taken")
several: dict[str, tuple[float, int, float]] = {}


@pytest.mark.parametrize("name", SEVERAL)
@row(
    "an answer, 400, or 503 `ModelServingError` beyond `max_open_bytes`",
    figure=f"64 kB as several calls at once: ≤ {KEYED_CPU_S} s of the processor in the loop, ≤ {KEYED_ALL_S:g} s in "
    f"all threads, ≤ {KEYED_BYTES >> 20} MiB; together packed bodies become no more than one may",
)
async def test_f113_several_calls_in_as_many_bytes_cost_little_more_than_one(stage: Stage, name: str) -> None:
    stand = await stage()
    stand.upstream.script = Script(text="a b", usage="never")
    wire = packed(DEAR[name]())
    calls = max(SENT_BYTES // len(wire), 1)
    await stand.reply()
    spent = Spent(stand.served.process.pid)
    answers = await asyncio.gather(*(stand.reply(wire, GZIP) for _ in range(calls)))
    assert {answer.status for answer in answers} <= {200, 400, 503}
    # What many bodies are read into is open all at once, where a slow machine gets behind.
    assert {answer.fault[:2] for answer in answers if answer.status == 503} <= {(503, "ModelServingError")}
    loop_s, all_s, peak_bytes = spent.loop_s, spent.all_s, spent.peak_bytes
    assert loop_s < KEYED_CPU_S
    assert all_s < KEYED_ALL_S
    assert peak_bytes < KEYED_BYTES
    several[name] = loop_s, peak_bytes, all_s
    by_loop, by_bytes, by_all = (max(several, key=lambda one: several[one][place]) for place in range(3))
    matrix.reached(
        "the dearest 64 kB with a key, as several calls at once",
        f"{several[by_loop][0]:.2f} s of the loop ({by_loop}); {several[by_bytes][1] / MIB:.0f} MiB ({by_bytes}); "
        f"{several[by_all][2]:.1f} s of all threads ({by_all})",
    )
    await stand.settled()


@row(
    "the answer",
    figure="body_timeout 0.2 s; 12 MiB of blanks that are counted before they are let in, which takes longer",
)
async def test_f124_who_waits_for_a_count_is_not_told_that_the_body_was_invalid(stage: Stage) -> None:
    stand = await stage("--body-timeout", "0.2", "--limits", "tpm=100000000")
    stand.upstream.script = Script(text="a b", usage="never")
    wire = packed(DEAR["blanks"]())
    await stand.reply()
    began_s = asyncio.get_running_loop().time()
    assert (await stand.reply(wire, GZIP)).status == 200
    assert asyncio.get_running_loop().time() - began_s > 0.2
    await stand.settled()


@pytest.mark.parametrize("name", ["blanks", "lists, as many as fit", "lists, as many as are taken"])
@row(
    "an answer, or 400 `BadRequest.TooLarge`",
    figure=f"`/api/v1/tokenizer`: ≤ {KEYED_CPU_S} s of the processor in the loop, ≤ {KEYED_BYTES >> 20} MiB",
)
async def test_f114_the_tokenizer_has_the_guards_of_a_call(stage: Stage, name: str) -> None:
    stand = await stage()
    wire = packed(DEAR[name]())
    await stand.reply()
    spent = Spent(stand.served.process.pid)
    answer = await caller.ask(stand.url, wire, GZIP, path="/api/v1/tokenizer")
    assert answer.status in {200, 400}
    assert spent.loop_s < KEYED_CPU_S
    assert spent.peak_bytes < KEYED_BYTES
    assert (await stand.reply()).status == 200
    await stand.settled()
