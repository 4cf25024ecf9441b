"""SSE-1 … SSE-4, SSE-8, SSE-10, SSE-11 and USE-1, USE-3, USE-5 on the wire of the real process.

What a packet says is proved in `translators`; here the bytes, their writes, and the moments at which they come are.
"""

from __future__ import annotations

import asyncio
import re
import time
from typing import Any

import orjson
import pytest

from proxy.simulation.wire import Script
from tests import caller, lint
from tests.integration.conftest import Pair
from translators import faults, tokens

pytestmark = pytest.mark.asyncio(loop_scope="module")

FLAGS = (
    *("--head-hold", "0.4", "--heartbeat", "0.15", "--usage-timeout", "0.3"),
    *("--first-token-timeout", "1.2", "--idle-timeout", "0.6", "--connect-timeout", "1"),
)

KNOWN = "5354a793-a130-4b36-b1dc-2610c5f49071"
WORDS = "one two three four five six seven eight nine ten"
INCREMENTAL = caller.call(WORDS, incremental_output=True)
FRAME = re.compile(rb"id:(\d+)\nevent:result\n:HTTP_STATUS/200\ndata:(\{[^\n]*\})\n\n")
# Events of an answer of ten words: the role, the words, the finish with its usage, [DONE].
ROLE, FINISH = 1, 12


def said(**script: Any) -> Script:
    """Ten words, and what else the script says."""
    return Script(**{"text": WORDS, **script})


async def stream(pair: Pair, script: Script, body: caller.Json = INCREMENTAL) -> caller.Answer:
    """One stream, free of breaches unless it was refused."""
    pair.next(script)
    answer = await caller.stream(pair.url, body)
    if answer.status == 200:
        assert not lint.check(answer.body, incremental=body["parameters"].get("incremental_output", False))
    return answer


def usages(body: bytes) -> list[caller.Json]:
    return [packet["usage"] for packet in caller.packets(body) if "usage" in packet]


def logged(pair: Pair, request_id: str) -> list[caller.Json]:
    """The lines of the log about one call."""
    return [orjson.loads(line) for line in pair.served.output.splitlines() if f'"{request_id}"' in line]


def last(body: bytes) -> caller.Json:
    return caller.packets(body)[-1]


class TestSse1:
    """The bytes of a frame."""

    async def test_every_byte_is_where_it_belongs(self, pair: Pair) -> None:
        pair.next(said(text='你好，🌍 "quoted"\n'))
        body = (await caller.stream(pair.url, INCREMENTAL, {"X-Request-Id": KNOWN})).body
        frames = FRAME.findall(body)
        assert b"".join(b"id:%b\nevent:result\n:HTTP_STATUS/200\ndata:%b\n\n" % frame for frame in frames) == body
        assert [int(number) for number, _ in frames] == [*range(1, len(frames) + 1)]
        assert all(orjson.dumps(orjson.loads(data)) == data for _, data in frames)
        assert "你好".encode() in body
        assert rb"\u" not in body
        assert b"[DONE]" not in body
        assert b"\r" not in body

    async def test_the_first_packet_to_the_byte(self, pair: Pair) -> None:
        pair.next(said(text="Hi", gap_s=0.05))
        body = (await caller.stream(pair.url, INCREMENTAL, {"X-Request-Id": KNOWN})).body
        usage = usages(body)[0]
        expected = (
            'id:1\nevent:result\n:HTTP_STATUS/200\ndata:{"output":{"choices":[{"message":{"content":"Hi",'
            '"role":"assistant"},"index":0,"finish_reason":"null"}]},"usage":{"input_tokens":%d,"output_tokens":1,'
            '"total_tokens":%d},"request_id":"%s"}\n\n'
        )
        assert body.startswith((expected % (usage["input_tokens"], usage["total_tokens"], KNOWN)).encode())

    @pytest.mark.parametrize("shape", [{"split": 1}, {"split": 7}, {"deltas_per_write": 50}, {"crlf": True}], ids=str)
    async def test_a_write_holds_whole_frames(self, pair: Pair, shape: dict[str, Any]) -> None:
        """Some clients decode each network read by itself."""
        pair.next(said(text="你好，世界！ " * 8, **shape))
        async with caller.dial(pair.url) as line:
            line.send(caller.request(INCREMENTAL, caller.SSE))
            await line.head()
            pieces = []
            while piece := await line.piece():
                assert piece.startswith(b"id:")
                assert piece.endswith(b"\n\n")
                pieces.append(piece)
        assert caller.text(b"".join(pieces)) == "你好，世界！ " * 8

    async def test_a_packet_leaves_when_its_delta_comes(self, pair: Pair) -> None:
        """Nothing waits for more: each of ten deltas is seen before the next is written."""
        number = pair.next(said(gap_s=0.03))
        async with caller.dial(pair.url) as line:
            line.send(caller.request(INCREMENTAL, caller.SSE))
            await line.head()
            seen = await pair.upstream.call(number)
            for word in range(1, 10):
                await line.piece()
                assert seen.events <= word + 2
            await line.rest()


class TestSse2:
    """An error before the first packet has its own status and a plain JSON body, on SSE calls as well."""

    @pytest.mark.parametrize(
        ("status", "fault"),
        [
            (400, (400, "InvalidParameter")),
            (401, (401, "InvalidApiKey")),
            (402, (400, "Arrearage")),
            (403, (403, "AccessDenied")),
            (404, (503, "ModelUnavailable")),
            (429, (429, "Throttling.RateQuota")),
            (500, (500, "InternalError")),
            (502, (500, "InternalError")),
            (503, (503, "ModelServingError")),
            (307, (500, "InternalError")),
            (204, (500, "InternalError")),
        ],
    )
    async def test_a_status(self, pair: Pair, status: int, fault: tuple[int, str]) -> None:
        assert (await stream(pair, Script(status=status))).fault[:2] == fault

    @pytest.mark.parametrize("status", [429, 503])
    async def test_retry_after_is_passed_on(self, pair: Pair, status: int) -> None:
        assert (await stream(pair, Script(status=status, retry_after="7"))).headers["retry-after"] == "7"

    async def test_retry_after_is_passed_on_from_the_head_of_a_success(self, pair: Pair) -> None:
        script = Script(error_event_after=0, error_event_status=429, retry_after="7")
        answer = await stream(pair, script)
        assert (answer.status, answer.headers["retry-after"]) == (429, "7")

    async def test_more_behind_an_end_that_came_with_its_usage_is_logged(self, pair: Pair) -> None:
        usage = {"prompt_tokens": 9, "completion_tokens": 1, "total_tokens": 10}
        wire = b"".join(
            b"data: %b\n\n" % orjson.dumps({"choices": [{"index": 0, "delta": {"content": text}, **more}], **told})
            for text, more, told in (
                ("one", {}, {}),
                ("", {"finish_reason": "stop"}, {"usage": usage}),
                (" two", {}, {}),
            )
        )
        answer = await stream(pair, Script(replay=wire, deltas_per_write=3))
        assert b" two" not in answer.body
        known_as = answer.headers["x-request-id"]
        async with asyncio.timeout(10):
            while not (lines := [line for line in logged(pair, known_as) if line["event"] == "call"]):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert lines[0]["outcome"] == "ok"
        (told,) = [line for line in logged(pair, known_as) if line["event"] == "text_after_end"]
        assert (told["target"], told["level"]) == (pair.upstream.url, "warning")

    @pytest.mark.parametrize("after", [0, ROLE], ids=["first event", "after the role"])
    @pytest.mark.parametrize(("status", "code"), [(429, "Throttling.RateQuota"), (503, "ModelServingError")])
    async def test_an_error_event_in_the_body_of_a_success(
        self, pair: Pair, after: int, status: int, code: str
    ) -> None:
        """vLLM answers 200 and then says what is wrong (SOURCES#errors-in-a-stream)."""
        answer = await stream(pair, said(error_event_after=after, error_event_status=status))
        assert answer.fault[:2] == (status, code)

    @pytest.mark.parametrize("cut_by", ["fin", "rst", "end"])
    @pytest.mark.parametrize("after", [0, ROLE])
    async def test_an_upstream_that_is_lost(self, pair: Pair, after: int, cut_by: str) -> None:
        answer = await stream(pair, said(cut_after=after, cut_by=cut_by))
        assert answer.fault == (500, "InternalError", faults.UPSTREAM_BROKEN.message)

    @pytest.mark.parametrize(
        "script",
        [
            Script(replay=b"<html>502</html>", replay_content_type="text/html"),
            Script(replay=b"data: {]\n\n"),
            Script(replay=b""),
            Script(replay=b'{"id":1', replay_content_type="application/json"),
            Script(finish_reason="aborted", text=""),
        ],
        ids=["a page", "no JSON", "nothing", "half of a completion", "given up"],
    )
    async def test_what_cannot_be_read(self, pair: Pair, script: Script) -> None:
        assert (await stream(pair, script)).fault[:2] == (500, "InternalError")


class TestSse3And4:
    """After bytes have gone out, an error is one frame and the end; a stream never just ends."""

    @pytest.mark.parametrize("cut_by", ["fin", "rst", "end"])
    async def test_a_lost_upstream_is_an_error_frame_never_a_clean_end(self, pair: Pair, cut_by: str) -> None:
        pair.next(said(cut_after=5, cut_by=cut_by, gap_s=0.01))
        known_as = KNOWN
        body = (await caller.stream(pair.url, INCREMENTAL, {"X-Request-Id": known_as})).body
        assert caller.text(body) == "one two three four"
        frame = (
            f'id:5\nevent:error\n:HTTP_STATUS/500\ndata:{{"code":"InternalError",'
            f'"message":"{faults.UPSTREAM_BROKEN.message}","request_id":"{known_as}"}}\n\n'
        )
        assert body.endswith(b"\n\n" + frame.encode())

    @pytest.mark.parametrize(
        ("script", "status", "code"),
        [
            (said(error_event_after=5, error_event_status=429), 429, "Throttling.RateQuota"),
            (said(error_event_after=5, error_event_status=503), 503, "ModelServingError"),
            (said(finish_reason="content_filter"), 400, "DataInspectionFailed"),
            (said(finish_reason="insufficient_system_resource"), 503, "ModelServingError"),
            (said(finish_reason="something new"), 500, "InternalError"),
            (said(stall_after=5), 500, "RequestTimeOut"),
        ],
        ids=["rate", "overload", "moderated", "resources", "unknown finish", "silence"],
    )
    async def test_every_other_failure_too(self, pair: Pair, script: Script, status: int, code: str) -> None:
        body = (await stream(pair, script)).body
        assert f"event:error\n:HTTP_STATUS/{status}\n".encode() in body
        assert last(body)["code"] == code

    async def test_the_connection_is_good_for_the_next_call(self, pair: Pair) -> None:
        """The body ends properly, after a failure too."""
        async with caller.dial(pair.url) as line:
            pair.next(said(cut_after=5), said())
            for expected in ("one two three four", WORDS):
                line.send(caller.request(INCREMENTAL, caller.SSE))
                assert caller.text((await line.answer()).body) == expected

    async def test_a_finish_without_done_is_a_finish(self, pair: Pair) -> None:
        assert last((await stream(pair, said(no_done=True))).body)["output"]["choices"][0]["finish_reason"] == "stop"

    async def test_done_without_a_finish_ends_a_stream_that_said_something(self, pair: Pair) -> None:
        """SOURCES#stream-pitfalls: the finish is made up only where [DONE] was seen."""
        body = (await stream(pair, said(finish_reason="-"))).body
        assert last(body)["output"]["choices"][0]["finish_reason"] == "stop"
        body = (await stream(pair, said(finish_reason="-", no_done=True))).body
        assert last(body)["code"] == "InternalError"


class TestSse8:
    """The finish packet is held until usage is known."""

    @pytest.mark.parametrize("usage", ["finish", "own", "every"])
    async def test_wherever_upstream_says_it_the_last_packet_says_the_same(self, pair: Pair, usage: str) -> None:
        body = (await stream(pair, said(usage=usage, gap_s=0.01))).body
        assert last(body)["output"]["choices"][0]["finish_reason"] == "stop"
        assert usages(body)[-1]["output_tokens"] == 10

    async def test_usage_that_never_comes_is_counted(self, pair: Pair) -> None:
        body = (await stream(pair, said(usage="never"))).body
        assert usages(body)[-1]["output_tokens"] == 10

    async def test_usage_that_comes_too_late_is_not_waited_for(self, pair: Pair) -> None:
        started = time.monotonic()
        body = (await stream(pair, said(usage="own", stall_after=FINISH))).body
        assert 0.25 < time.monotonic() - started < 5
        assert last(body)["output"]["choices"][0]["finish_reason"] == "stop"

    async def test_an_upstream_that_breaks_off_now_has_not_failed(self, pair: Pair) -> None:
        body = (await stream(pair, said(usage="own", cut_after=FINISH, cut_by="rst"))).body
        assert last(body)["output"]["choices"][0]["finish_reason"] == "stop"


class TestSse10:
    """What comes in, and what of it goes out."""

    async def test_keep_alive_comments_are_swallowed(self, pair: Pair) -> None:
        body = (await stream(pair, said(first_byte_delay_s=0.2, keep_alive_s=0.02, gap_s=0.04))).body
        assert b"keep-alive" not in body
        assert caller.text(body) == WORDS

    async def test_blank_lines_before_a_completion_are_swallowed(self, pair: Pair) -> None:
        pair.next(said(blank_lines=50))
        answer = await caller.ask(pair.url, caller.call(WORDS))
        assert answer.json["output"]["choices"][0]["message"]["content"] == WORDS

    @pytest.mark.parametrize("shape", [{"split": 1}, {"split": 3, "crlf": True}, {"deltas_per_write": 100}], ids=str)
    async def test_how_the_network_cuts_it_changes_nothing(self, pair: Pair, shape: dict[str, Any]) -> None:
        known_as = {"X-Request-Id": KNOWN}
        pair.next(said(), said(**shape))
        plain = await caller.stream(pair.url, INCREMENTAL, known_as)
        cut = await caller.stream(pair.url, INCREMENTAL, known_as)
        assert plain.body == cut.body

    async def test_an_upstream_that_answers_a_stream_with_json_is_understood(self, pair: Pair) -> None:
        message = {"role": "assistant", "content": WORDS}
        usage = {"prompt_tokens": 9, "completion_tokens": 10, "total_tokens": 19}
        completion = {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "usage": usage}
        script = Script(replay=orjson.dumps(completion), replay_content_type="application/json; charset=utf-8")
        body = (await stream(pair, script)).body
        assert caller.text(body) == WORDS
        assert (usages(body)[-1]["input_tokens"], usages(body)[-1]["output_tokens"]) == (9, 10)

    async def test_a_caller_who_does_not_read_stops_the_upstream(self, pair: Pair) -> None:
        """Memory per stream is bounded: what is not read is not asked for."""
        number = pair.next(Script(text="word " * 2000, endless=True, deltas_per_write=500))
        async with caller.dial(pair.url, receive_bytes=4096) as line:
            line.send(caller.request(caller.call("w " * 50, incremental_output=True), caller.SSE))
            await line.head()
            line.stall()
            seen = await pair.upstream.call(number)
            before = -1
            while before != seen.events:
                before = seen.events
                await asyncio.sleep(0.1)
            assert seen.ended == "open"


class TestSse11:
    """The head is held for a while; then it goes out alone, and comments keep the connection warm."""

    async def test_before_the_border_an_error_has_its_status(self, pair: Pair) -> None:
        answer = await stream(pair, Script(status=429, first_byte_delay_s=0.2))
        assert answer.fault[:2] == (429, "Throttling.RateQuota")

    async def test_after_it_an_error_is_an_error_frame(self, pair: Pair) -> None:
        answer = await stream(pair, Script(status=429, first_byte_delay_s=0.6))
        assert answer.status == 200
        assert last(answer.body)["code"] == "Throttling.RateQuota"
        assert b":HTTP_STATUS/429\n" in answer.body

    async def test_heartbeats_come_while_there_is_nothing_to_say(self, pair: Pair) -> None:
        pair.next(said(first_byte_delay_s=0.9))
        async with caller.dial(pair.url) as line:
            started = time.monotonic()
            line.send(caller.request(INCREMENTAL, caller.SSE))
            assert (await line.head()).status == 200
            assert time.monotonic() - started > 0.3
            assert await line.piece() == b":heartbeat\n"
            assert await line.piece() == b":heartbeat\n"
            body = await line.rest()
        assert caller.text(body) == WORDS

    async def test_heartbeats_extend_no_limit(self, pair: Pair) -> None:
        answer = await stream(pair, Script(first_byte_delay_s=30))
        assert last(answer.body)["code"] == "RequestTimeOut"

    async def test_a_reply_is_held_as_long_as_it_takes(self, pair: Pair) -> None:
        pair.next(said(first_byte_delay_s=0.7))
        assert (await caller.ask(pair.url, caller.call(WORDS))).status == 200


class TestUse:
    """Usage on every packet."""

    async def test_use1_from_the_first_packet_on_and_never_falling(self, pair: Pair) -> None:
        body = (await stream(pair, said(text=WORDS + " — 你好，世界 🌍"))).body
        seen = usages(body)
        assert all(usage["input_tokens"] > 0 for usage in seen)
        outputs = [usage["output_tokens"] for usage in seen]
        assert outputs[0] > 0
        assert outputs == sorted(outputs)
        assert all(usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"] for usage in seen)

    async def test_use1_the_count_is_the_vocabularys(self, pair: Pair, vocabulary: tokens.Vocabulary) -> None:
        body = (await stream(pair, said(usage="never", delta_chars=3))).body
        grown = ""
        for packet in caller.packets(body)[:-1]:
            grown += packet["output"]["choices"][0]["message"]["content"]
            assert packet["usage"]["output_tokens"] == len(vocabulary.encode(grown))

    async def test_use3_upstreams_figures_win_as_soon_as_they_come(self, pair: Pair) -> None:
        chunks = [
            _chunk("Hel", {"prompt_tokens": 100, "completion_tokens": 3, "total_tokens": 103}),
            _chunk("lo", {"prompt_tokens": 100, "completion_tokens": 7, "total_tokens": 107}),
            _chunk(None, {"prompt_tokens": 100, "completion_tokens": 5, "total_tokens": 105}),
        ]
        replay = b"".join(b"data: %b\n\n" % orjson.dumps(chunk) for chunk in chunks) + b"data: [DONE]\n\n"
        seen = usages((await stream(pair, Script(replay=replay, split=1))).body)
        assert {usage["input_tokens"] for usage in seen[1:]} == {100}
        # Only upstream's own last word may correct downward.
        assert [usage["output_tokens"] for usage in seen] == [3, 7, 5]

    async def test_use5_a_template_that_moved_is_learned_for_the_next_call(self, pair: Pair) -> None:
        """79 tokens more for every prompt of a kind, from one day to the next."""
        # A kind of prompt that no other test here has taught anything about.
        body = caller.call("Say it in json.", incremental_output=True, response_format={"type": "json_object"})
        counted = usages((await stream(pair, said(usage="never"), body)).body)[0]["input_tokens"]
        figures = {"prompt_tokens": counted + 79, "completion_tokens": 1, "total_tokens": counted + 80}
        chunks = _chunk("{}", None), _chunk(None, figures)
        replay = b"".join(b"data: %b\n\n" % orjson.dumps(chunk) for chunk in chunks) + b"data: [DONE]\n\n"
        first, then = [usages((await stream(pair, Script(replay=replay), body)).body) for _ in range(2)]
        assert [usage["input_tokens"] for usage in first] == [counted, counted + 79]
        assert [usage["input_tokens"] for usage in then] == [counted + 79, counted + 79]


def _chunk(content: str | None, usage: caller.Json | None) -> caller.Json:
    delta = {} if content is None else {"content": content}
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": "stop" if not delta else None}], "usage": usage}
