"""Taps hand on what passes, keep it, and tell at once who looks on; nothing else changes."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator
from typing import Any

import orjson
import pytest

from proxy.downstream.strays import Strays
from proxy.inspector import taps
from proxy.inspector.recent_calls import CURRENT, RecentCalls, Watch
from proxy.inspector.recorded import RecordedCall
from proxy.simulation.wire import Script
from proxy.upstream.client import Post
from proxy.upstream.response import Broken, Unreachable
from proxy.upstream.targets import Attempt
from tests import caller
from tests.conftest import StartSimulator
from tests.proxy.conftest import Running, StartGateway
from tests.proxy.telemetry.records import ended

KEY = "sk-that-nobody-may-see"


class Kept:
    """One call that is kept, and who looks on."""

    def __init__(self, watch: Watch, recent: RecentCalls) -> None:
        self.recent = recent
        self.watch = watch
        self.call = recent.begin("POST", "/", "dashscope", "r", {})
        self.is_told()

    def is_told(self) -> bool:
        """Whether who looks on was told of it since this was asked last."""
        return self.watch.take() == [self.call.number]


@pytest.fixture
def kept() -> Iterator[Kept]:
    recent = RecentCalls()
    with recent.watched() as watch:
        yield Kept(watch, recent)
    CURRENT.set(None)


class Behind:
    """What a tap stands for: a sink, upstreams, and a response in one."""

    status, content_type, retry_after = 429, "text/event-stream", "7"

    def __init__(self, *reads: bytes, failure: Exception | None = None, is_over: bool = False) -> None:
        self.reads = reads
        self.failure = failure
        self.is_over = is_over
        self.look: Callable[[], object] = bool
        self.is_closed = False
        self.posts: list[Any] = []

    def pass_on(self, frames: bytes) -> bool:
        return frames == b"all"

    async def post(self, post: Post, attempts: list[Attempt], again: Callable[[], Any]) -> Behind:
        if self.failure is not None:
            self.look()
            raise self.failure
        self.posts = [post, await again()]
        self.look()
        attempts += [Attempt("http://a", "p"), Attempt("http://b", "q")]
        return self

    async def read(self) -> bytes:
        if self.failure is not None:
            raise self.failure
        return self.reads[0]

    async def pour(self, take: Callable[[bytes], bool]) -> None:
        self.posts = [take(read) for read in self.reads]
        if self.failure is not None:
            raise self.failure

    def at_end(self) -> bool:
        return self.is_over

    def close(self) -> None:
        self.is_closed = True


def test_frames_are_kept_and_passed_on(kept: Kept) -> None:
    behind: Any = Behind()
    sink = taps.TappedSink(behind, kept.call, kept.recent)
    assert [sink.pass_on(frames) for frames in (b"some", b"all")] == [False, True]
    assert kept.is_told()
    assert [packet.frames for packet in kept.call.packets] == [b"some", b"all"]
    assert sink.status == 429


async def test_an_upstream_call_is_kept_as_it_was_written_last(kept: Kept) -> None:
    """With the target that has answered it, and no key."""
    behind, attempts = Behind(), list[Attempt]()
    CURRENT.set(kept.call)
    seen = []

    async def again() -> Post:
        (first,) = kept.call.upstream
        seen.append((kept.is_told(), first.status, first.target))
        return Post("/again", f"is {KEY} good?".encode(), KEY, {"X-Note": "b"})

    behind.look = kept.is_told
    tapped = taps.upstreams(behind, kept.recent)
    response = await tapped.post(Post("/first", b"{}", None), attempts, again)
    assert seen == [(True, 0, "")]
    assert [post.path for post in behind.posts] == ["/first", "/again"]
    first, second = kept.call.upstream
    assert (first.path, first.body, first.status) == ("/first", b"{}", 0)
    assert (second.path, second.headers) == ("/again", {"X-Note": "b"})
    assert second.body == b"is " + b"*" * len(KEY) + b" good?"
    assert (second.target, second.pool, second.status, second.content_type) == (
        "http://b",
        "q",
        429,
        behind.content_type,
    )
    assert second.answered_ms is not None
    assert kept.is_told()
    assert (response.status, response.content_type, response.retry_after) == (429, behind.content_type, "7")
    assert tapped.at_end() is False


async def test_an_upstream_call_that_is_not_answered_is_kept_with_why(kept: Kept) -> None:
    CURRENT.set(kept.call)
    behind = Behind(failure=Unreachable("refused"))
    behind.look = kept.is_told
    tapped = taps.upstreams(behind, kept.recent)
    with pytest.raises(Unreachable, match="refused"):
        await tapped.post(Post("/first", b"{}", None), [], lambda: None)
    (call,) = kept.call.upstream
    assert (call.failure, call.ended_ms is None) == ("no connection (refused)", False)
    assert kept.is_told()


async def test_where_no_call_is_served_nothing_is_kept(kept: Kept) -> None:
    CURRENT.set(None)
    behind = Behind()

    async def again() -> None: ...

    assert await taps.upstreams(behind, kept.recent).post(Post("/", b"", None), [], again) is behind
    assert kept.call.upstream == []


def tapped(kept: Kept, behind: Any) -> Any:
    return taps.TappedResponse(behind, kept.call, kept.call.ask("/", b"", {}), kept.recent)


async def test_what_is_read_is_kept_and_handed_on(kept: Kept) -> None:
    response = tapped(kept, Behind(b"whole"))
    assert await response.read() == b"whole"
    assert kept.is_told()
    assert await tapped(kept, Behind(b"")).read() == b""
    poured: list[bytes] = []
    behind = Behind(b"one", b"two")
    await tapped(kept, behind).pour(lambda wire: poured.append(wire) or wire == b"two")
    assert (poured, behind.posts, kept.is_told()) == ([b"one", b"two"], [False, True], True)
    reads = [[read.wire for read in call.reads] for call in kept.call.upstream]
    assert reads == [[b"whole"], [], [b"one", b"two"]]


async def test_of_a_call_that_was_let_go_of_nothing_is_kept_and_all_is_handed_on(kept: Kept) -> None:
    response = tapped(kept, Behind(b"whole"))
    kept.recent.clear()
    kept.is_told()
    assert await response.read() == b"whole"
    assert (kept.call.upstream[0].reads, kept.call.lost_bytes, kept.is_told()) == ([], 0, False)


@pytest.mark.parametrize("way", ["read", "pour"])
async def test_an_answer_that_breaks_off_ends_with_why_and_only_once(kept: Kept, way: str) -> None:
    behind = Behind(failure=Broken("reset"))
    response = tapped(kept, behind)
    with pytest.raises(Broken):
        await (response.read() if way == "read" else response.pour(lambda _: True))
    (call,) = kept.call.upstream
    told, ended_ms = (call.failure, kept.is_told()), call.ended_ms
    response.close()
    assert told == (f"{Broken.words} (reset)", True)
    assert (call.failure, call.ended_ms, kept.is_told(), behind.is_closed) == (told[0], ended_ms, False, True)


@pytest.mark.parametrize(("is_over", "failure"), [(True, ""), (False, "closed by us")])
def test_an_answer_is_closed_at_its_end_or_by_us(kept: Kept, is_over: bool, failure: str) -> None:
    response = tapped(kept, Behind(is_over=is_over))
    assert response.at_end() is is_over
    response.close()
    (call,) = kept.call.upstream
    assert (call.failure, call.ended_ms is None, kept.is_told()) == (failure, False, True)


def test_a_call_that_has_ended_is_told_on_with_its_record(kept: Kept) -> None:
    told: list[Any] = []
    keep = taps.keep_of(told.append, kept.recent)
    CURRENT.set(None)
    keep(ended())
    assert (len(told), kept.call.record, kept.is_told()) == (1, None, False)
    CURRENT.set(kept.call)
    keep(record := ended())
    assert (told[1:], kept.call.record, kept.is_told()) == ([record], record, True)


@pytest.mark.parametrize(
    ("given", "hint", "method"), [("said", "said", "POST"), (None, "guessed", "POST"), (None, "guessed", "")]
)
async def test_a_stray_is_kept_with_what_was_meant(kept: Kept, given: str | None, hint: str, method: str) -> None:
    counted: list[int] = []
    strays = taps.TappedStrays(Strays("calls", ((re.compile("/x"), "guessed"),), counted.append), kept.recent)
    CURRENT.set(None)
    strays.note(method, f"/x/{KEY}?key=1", 404, "id", given)
    *_, call = kept.recent
    assert (call.method, call.path, call.request_id, call.headers) == (method, "/x/(masked)", "id", {})
    assert (call.status, call.hint, call.ended_ms) == (404, hint, 0.0)
    assert (counted, kept.watch.take()) == ([404], [call.number])
    # What came before any request has no answer to be kept.
    assert CURRENT.get() is (call if method else None)


async def test_a_stray_that_nobody_can_guess_has_no_hint(kept: Kept) -> None:
    taps.TappedStrays(Strays("calls"), kept.recent).note("GET", "/y", 404, "id")
    *_, call = kept.recent
    assert call.hint == ""


async def newest(front: Running) -> RecordedCall:
    """The call that came last."""
    assert front.recent is not None
    *_, call = front.recent
    return call


async def test_a_stream_is_kept_from_its_head_to_its_record(
    simulator: StartSimulator, gateway_before: StartGateway
) -> None:
    upstream = await simulator(Script(text="one two three"))
    front = await gateway_before(upstream.url, inspect=True)
    assert front.recent is not None
    said = caller.call(f"Is {caller.KEY} good?", incremental_output=True)
    with front.recent.watched() as watch:
        answer = await caller.stream(front.url, said, {"X-Note": "here", "Cookie": "c"})
        record, _ = await front.end_of()
        assert watch.changed
    call = await newest(front)
    assert (call.method, call.path, call.api, call.streams) == ("POST", caller.GENERATION, "dashscope", True)
    assert (call.headers["X-Note"], call.headers["Cookie"]) == ("here", "(masked)")
    assert (call.record, call.status, call.request_id) == (record, 0, answer.headers["x-request-id"])
    assert orjson.loads(call.body)["input"]["messages"][0]["content"] == f"Is {'*' * len(caller.KEY)} good?"
    assert b"".join(packet.frames for packet in call.packets) == answer.body
    (asked,) = call.upstream
    assert (asked.target, asked.status, asked.failure) == (upstream.url, 200, "")
    assert b"".join(read.wire for read in asked.reads).endswith(b"data: [DONE]\n\n")
    assert {packet.call for packet in call.packets} == {0}
    # What is held is counted to the last byte: each change was told.
    assert front.recent.held_bytes == sum(one.held_bytes for one in front.recent)


async def test_who_looks_on_sees_a_call_go_on(simulator: StartSimulator, gateway_before: StartGateway) -> None:
    """Its body before it goes upstream, what upstream said before more comes."""
    upstream = await simulator(Script(stall_after=2))
    front = await gateway_before(upstream.url, inspect=True)
    assert front.recent is not None
    async with caller.dial(front.url) as line:
        line.send(caller.request(caller.call(incremental_output=True), caller.SSE))
        await upstream.call()
        await line.head()
        await line.piece()
        call = await newest(front)
        assert (call.body != b"", call.read_ms is None, call.record) == (True, False, None)
        assert (call.upstream[0].status, bool(call.packets)) == (200, True)
        assert front.recent.held_bytes == call.held_bytes
        line.leave()
        await front.end_of()
    assert call.upstream[0].failure == "closed by us"


async def test_a_reply_is_kept_as_one_packet(simulator: StartSimulator, gateway_before: StartGateway) -> None:
    front = await gateway_before((await simulator()).url, inspect=True)
    answer = await caller.ask(front.url, caller.call())
    await front.end_of()
    call = await newest(front)
    assert (call.streams, [packet.frames for packet in call.packets], call.refusal) == (False, [answer.body], b"")


BODY = orjson.dumps(caller.call("What did I send?"))


@pytest.mark.parametrize(
    ("path", "method", "headers", "told"),
    [
        # A call that its head refuses, a stray, and what callers ask beside their calls.
        (caller.GENERATION, "POST", {"Authorization": ""}, ("dashscope", 0, 401)),
        ("/v1/services/aigc/text-generation/generation", "POST", {}, ("", 404, 404)),
        ("/v1/models", "GET", {"Authorization": "", "Content-Length": ""}, ("", 401, 401)),
        (caller.GENERATION, "GET", {"Content-Length": ""}, ("", 400, 400)),
    ],
    ids=["no key", "no route", "a lookup", "a wrong method"],
)
async def test_what_is_refused_is_kept_with_its_headers_and_its_answer(
    gateway_before: StartGateway, path: str, method: str, headers: dict[str, str], told: tuple[str, int, int]
) -> None:
    front = await gateway_before("http://127.0.0.1:1", inspect=True)
    assert front.recent is not None
    with front.recent.watched() as watch:
        body = BODY if method == "POST" else b""
        asked = {"X-Note": "here", "X-Request-Id": "mine", **headers}
        answer = await caller.ask(front.url, body, asked, path=path, method=method)
        call = await newest(front)
        assert watch.take() == [call.number]
    api, status, sent = told
    assert (call.method, call.path, call.api, call.status, answer.status) == (method, path, api, status, sent)
    assert (call.refusal, call.packets) == (answer.body, [])
    assert call.headers["X-Note"] == "here"
    assert call.request_id == answer.headers["x-request-id"]
    assert (call.record is None, call.ended_ms == 0.0) == (api == "", api == "")
    assert front.recent.held_bytes == call.held_bytes


async def test_what_is_refused_behind_a_call_is_none_of_its(gateway_before: StartGateway) -> None:
    """Over the same connection."""
    front = await gateway_before("http://127.0.0.1:1", inspect=True)
    async with caller.dial(front.url) as line:
        line.send(caller.request(BODY))
        first = await line.answer()
        line.send(caller.request(b"", {"Authorization": "", "Content-Length": ""}, path="/v1/models", method="GET"))
        second = await line.answer()
    assert front.recent is not None
    assert [(call.path, call.refusal) for call in front.recent] == [
        (caller.GENERATION, first.body),
        ("/v1/models", second.body),
    ]


async def test_each_step_of_a_call_is_told_as_it_is_taken(
    simulator: StartSimulator, gateway_before: StartGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, changed = list[tuple[bool, ...]](), RecentCalls.changed

    def look(recent: RecentCalls, call: RecordedCall) -> None:
        changed(recent, call)
        asked = call.upstream[0] if call.upstream else None
        theirs = (asked.status > 0, bool(asked.reads)) if asked else (False, False)
        seen.append((bool(call.body), asked is not None, *theirs, bool(call.packets), call.record is not None))

    monkeypatch.setattr(RecentCalls, "changed", look)
    front = await gateway_before((await simulator(Script(text="one"))).url, inspect=True)
    await caller.stream(front.url, caller.call(incremental_output=True))
    await front.end_of()
    steps = ("body", "asked", "answered", "read", "packet", "record")
    assert [*dict.fromkeys(seen)] == [tuple(at < done for at in range(len(steps))) for done in range(len(steps) + 1)]


async def test_a_failed_reply_is_a_refusal_and_no_packet(
    simulator: StartSimulator, gateway_before: StartGateway
) -> None:
    front = await gateway_before((await simulator(Script(status=500))).url, inspect=True)
    answer = await caller.ask(front.url, caller.call())
    await front.end_of()
    call = await newest(front)
    assert (answer.status, call.refusal, call.packets) == (500, answer.body, [])


async def test_a_key_that_a_refusal_says_back_is_masked(gateway_before: StartGateway) -> None:
    front = await gateway_before("http://127.0.0.1:1", inspect=True)
    told = {"Content-Length": ""}
    answer = await caller.ask(front.url, b"", told, path=f"/v1/models/{caller.KEY}", method="GET")
    assert caller.KEY.encode() in answer.body
    call = await newest(front)
    assert (call.path, call.refusal) == ("/v1/models/(masked)", answer.body.replace(caller.KEY.encode(), b"*" * 18))


async def test_an_answer_that_is_no_failure_is_none_of_a_call(
    simulator: StartSimulator, gateway_before: StartGateway
) -> None:
    front = await gateway_before((await simulator()).url, inspect=True)
    assert (await caller.ask(front.url, b"", path="/healthz", method="GET")).status == 200
    assert front.recent is not None
    assert len(front.recent) == 0


async def test_two_calls_at_once_are_kept_apart(simulator: StartSimulator, gateway_before: StartGateway) -> None:
    front = await gateway_before((await simulator()).url, inspect=True)
    answers = await asyncio.gather(*(caller.ask(front.url, caller.call(text)) for text in ("one", "two")))
    await front.end_of(2)
    assert front.recent is not None
    said = {orjson.loads(call.body)["input"]["messages"][0]["content"]: call for call in front.recent}
    for text, answer in zip(("one", "two"), answers, strict=True):
        assert [packet.frames for packet in said[text].packets] == [answer.body]
        assert len(said[text].upstream) == 1
