"""Claims about a request's body: how much of it is read, inflated and held, and when (spec HTTP-11, REQ-11)."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import random
import zlib

import orjson
import pytest

from proxy.downstream import body as bodies
from proxy.simulation.wire import Script
from tests import caller
from tests.conftest import StartSimulator
from tests.proxy.conftest import StartGateway
from translators import faults

UNREADABLE = (400, "InvalidParameter", faults.BODY_INVALID.message)
TOO_LARGE = (400, "BadRequest.TooLarge", "Payload Too Large.")
FULL = (503, "ModelServingError", faults.OVERLOADED.message)
GZIP = {"Content-Encoding": "gzip"}
RAW = orjson.dumps(caller.call())
# The model that takes the longest prompts.
LONGEST = "deepseek-v4-flash"
PACKED = gzip.compress(RAW)


class TestBody:
    """Spec HTTP-11."""

    LIMIT = 4_096

    @pytest.mark.parametrize("encoding", ["gzip", " GZIP ", "x-gzip", "X-Gzip", "identity"])
    async def test_gzip_is_inflated(
        self, simulator: StartSimulator, gateway_before: StartGateway, encoding: str
    ) -> None:
        front = await gateway_before((await simulator()).url)
        raw = orjson.dumps(caller.call())
        body = gzip.compress(raw) if "g" in encoding.lower() else raw
        assert (await caller.ask(front.url, body, {"Content-Encoding": encoding})).status == 200

    @pytest.mark.parametrize("encoding", ["deflate", "br", "zstd", "gzip, gzip", "aes128gcm"])
    async def test_no_other_encoding_is(self, gateway_before: StartGateway, encoding: str) -> None:
        front = await gateway_before("http://127.0.0.1:1")
        answer = await caller.ask(front.url, caller.call(), {"Content-Encoding": encoding})
        assert answer.fault == UNREADABLE

    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b"{}",
            *(PACKED[:-cut] for cut in (1, 4, 8, 9, 20)),
            PACKED[:40] + b"x" * 30,
            PACKED[:-8] + bytes(4) + PACKED[-4:],
            PACKED[:-4] + bytes(4),
            PACKED + b"x",
            PACKED + PACKED[:-1],
            zlib.compress(RAW),
            gzip.compress(PACKED),
        ],
        ids=[
            "nothing",
            "not gzip",
            *(f"cut short by {cut}" for cut in (1, 4, 8, 9, 20)),
            "broken in the middle",
            "another check sum",
            "another length",
            "something behind it",
            "a second member cut short",
            "deflate",
            "packed twice",
        ],
    )
    async def test_broken_gzip_is_unreadable(self, gateway_before: StartGateway, body: bytes) -> None:
        front = await gateway_before("http://127.0.0.1:1")
        assert (await caller.ask(front.url, body, {"Content-Encoding": "gzip"})).fault == UNREADABLE

    async def test_the_limit_counts_after_inflation(self, gateway_before: StartGateway) -> None:
        front = await gateway_before("http://127.0.0.1:1", max_body_bytes=str(self.LIMIT))
        bomb = gzip.compress(orjson.dumps(caller.call("a" * 10_000_000)))
        assert (await caller.ask(front.url, bomb, {"Content-Encoding": "gzip"})).fault == TOO_LARGE

    async def test_a_length_beyond_the_limit_is_refused_before_the_body_comes(
        self, gateway_before: StartGateway
    ) -> None:
        front = await gateway_before("http://127.0.0.1:1", max_body_bytes=str(self.LIMIT))
        longest = self.LIMIT + int(front.house.settings.max_image_bytes)
        async with caller.dial(front.url) as line:
            line.send(caller.request(b"{", {"Content-Length": str(longest + 1)}))
            answer = await line.answer()
        assert answer.fault == TOO_LARGE
        assert answer.headers["connection"] == "close"

    async def test_chunks_beyond_the_limit_are_refused_without_waiting_for_the_last(
        self, gateway_before: StartGateway
    ) -> None:
        front = await gateway_before("http://127.0.0.1:1", max_body_bytes=str(self.LIMIT))
        async with caller.dial(front.url) as line:
            line.send(caller.request(b"", {"Content-Length": "", "Transfer-Encoding": "chunked"}))
            line.send(b"%x\r\n%b\r\n" % (self.LIMIT + 1, b"a" * (self.LIMIT + 1)))
            assert (await line.answer()).fault == TOO_LARGE

    async def test_a_body_of_just_the_limit_is_read(
        self, simulator: StartSimulator, gateway_before: StartGateway
    ) -> None:
        front = await gateway_before((await simulator()).url, max_body_bytes=str(self.LIMIT))
        room = self.LIMIT - len(orjson.dumps(caller.call("")))
        body = orjson.dumps(caller.call("a" * room))
        assert len(body) == self.LIMIT
        assert (await caller.ask(front.url, body)).status == 200

    @pytest.mark.parametrize(("begin", "fault"), [(b"{", TOO_LARGE), (b'{"data:image/', UNREADABLE)])
    async def test_only_one_that_shows_a_picture_is_read_beyond_it(
        self, gateway_before: StartGateway, begin: bytes, fault: tuple[int, str, str]
    ) -> None:
        """REQ-11: whoever shows none is refused at the limit of a text, on every path."""
        front = await gateway_before("http://127.0.0.1:1", max_body_bytes="300000", max_image_bytes="900000")
        body = begin + b"a" * 600_000
        assert (await caller.ask(front.url, body)).fault == fault
        assert (await caller.ask(front.url, gzip.compress(body), GZIP)).fault == fault

    async def test_and_that_before_the_rest_of_it_comes(self, gateway_before: StartGateway) -> None:
        front = await gateway_before("http://127.0.0.1:1", max_body_bytes="300000", max_image_bytes="900000")
        async with caller.dial(front.url) as line:
            line.send(caller.request(b"a" * 400_000, {"Content-Length": "1000000"}))
            assert (await line.answer()).fault == TOO_LARGE

    @pytest.mark.parametrize("sent", [0, 40])
    async def test_a_body_that_does_not_come_is_not_waited_for(self, gateway_before: StartGateway, sent: int) -> None:
        """Spec ERR-5: `body_timeout`."""
        front = await gateway_before("http://127.0.0.1:1", body_timeout=0.1)
        raw = orjson.dumps(caller.call())
        async with caller.dial(front.url) as line:
            line.send(caller.request(raw)[: -(len(raw) - sent)])
            answer = await line.answer()
        assert answer.fault == UNREADABLE
        assert answer.headers["connection"] == "close"
        record, outcome = await front.end_of()
        assert outcome == "timeout_body"
        assert record.cause == "body_timeout fired"

    async def test_a_slow_body_in_time_is_read(self, simulator: StartSimulator, gateway_before: StartGateway) -> None:
        front = await gateway_before((await simulator()).url, body_timeout=2)
        wire = caller.request(caller.call())
        async with caller.dial(front.url) as line:
            for at in range(0, len(wire), 50):
                line.send(wire[at : at + 50])
                await asyncio.sleep(0.02)
            assert (await line.answer()).status == 200

    async def test_a_caller_who_leaves_in_the_middle_of_it_is_gone(self, gateway_before: StartGateway) -> None:
        front = await gateway_before("http://127.0.0.1:1")
        async with caller.dial(front.url) as line:
            line.send(caller.request(caller.call())[:-5])
            await asyncio.sleep(0.05)
            line.vanish()
            assert (await front.end_of())[1] == "client_gone_before_first_packet"

    @pytest.mark.parametrize("members", [2, bodies.MOST_MEMBERS])
    async def test_members_are_read_one_after_the_other(
        self, simulator: StartSimulator, gateway_before: StartGateway, members: int
    ) -> None:
        upstream = await simulator()
        front = await gateway_before(upstream.url)
        raw = orjson.dumps(caller.call("a b c d " * 20_000))
        size = len(raw) // members + 1
        packed = b"".join(gzip.compress(raw[at : at + size]) for at in range(0, len(raw), size))
        assert (await caller.ask(front.url, packed, GZIP)).status == 200
        assert upstream.calls[0].body["messages"][0]["content"] == "a b c d " * 20_000

    async def test_there_are_not_too_many_of_them(self, gateway_before: StartGateway) -> None:
        """Each costs as much as a full one, and an empty one is twenty bytes."""
        front = await gateway_before("http://127.0.0.1:1")
        packed = gzip.compress(b"") * bodies.MOST_MEMBERS + PACKED
        assert (await caller.ask(front.url, packed, GZIP)).fault == UNREADABLE

    async def test_what_all_members_hold_counts(self, gateway_before: StartGateway) -> None:
        front = await gateway_before("http://127.0.0.1:1", max_body_bytes=str(self.LIMIT))
        packed = gzip.compress(b" " * (self.LIMIT // 2)) * 2 + PACKED
        assert (await caller.ask(front.url, packed, GZIP)).fault == TOO_LARGE

    @pytest.mark.parametrize("size", [200, 100_000, bodies.STEP_BYTES, 3 * bodies.STEP_BYTES, 900_001])
    async def test_steps_lose_nothing(self, simulator: StartSimulator, gateway_before: StartGateway, size: int) -> None:
        upstream = await simulator()
        front = await gateway_before(upstream.url)
        text = "a" * (size - len(orjson.dumps(caller.call("", LONGEST))))
        body = gzip.compress(orjson.dumps(caller.call(text, LONGEST)))
        assert (await caller.ask(front.url, body, GZIP)).status == 200
        assert upstream.calls[0].body["messages"][0]["content"] == text

    async def test_two_lines_of_encoding_are_two_encodings(self, gateway_before: StartGateway) -> None:
        front = await gateway_before("http://127.0.0.1:1")
        twice = {"Content-Encoding": "gzip\r\nContent-Encoding: gzip"}
        assert (await caller.ask(front.url, gzip.compress(PACKED), twice)).fault == UNREADABLE

    async def test_without_a_key_nothing_is_inflated(
        self, gateway_before: StartGateway, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def never(*_: object) -> None:
            raise AssertionError

        monkeypatch.setattr(zlib, "decompressobj", never)
        front = await gateway_before("http://127.0.0.1:1")
        answer = await caller.ask(front.url, PACKED, GZIP | {"Authorization": ""})
        assert answer.fault[:2] == (401, "InvalidApiKey")

    async def test_a_connection_goes_on_behind_a_body_that_is_no_gzip(
        self, simulator: StartSimulator, gateway_before: StartGateway
    ) -> None:
        """Its framing was sound."""
        front = await gateway_before((await simulator()).url)
        async with caller.dial(front.url) as line:
            line.send(caller.request(b"{}", GZIP))
            assert (await line.answer()).fault == UNREADABLE
            line.send(caller.request(PACKED, GZIP))
            assert (await line.answer()).status == 200


class TestLimits:
    """Spec REQ-11: what stands before the first picture is never longer than a text may be."""

    @pytest.mark.parametrize(
        ("before", "after", "shows", "refused"),
        [
            (0, 9, False, False),
            (0, 10, False, False),
            (0, 11, False, True),
            (10, 11, False, True),
            # It was looked at when it became longer.
            (11, 12, False, False),
            (0, 11, True, False),
        ],
    )
    def test_it_is_looked_at_once_when_it_becomes_longer(
        self, *, before: int, after: int, shows: bool, refused: bool
    ) -> None:
        body = bytearray(bodies.PICTURES[0][:after] if shows else b"a" * after)
        limits = bodies.Limits(10, 90)
        assert len(body) == after
        with pytest.raises(faults.Refusal) if refused else contextlib.nullcontext():
            limits.check(body, before)

    @pytest.mark.parametrize("image_bytes", [0, 90])
    def test_the_longest_is_a_text_and_all_pictures(self, image_bytes: int) -> None:
        limits, body = bodies.Limits(10, image_bytes), bytearray()
        assert limits.most_bytes == 10 + image_bytes
        add = limits.adding_to(body)
        for _ in range(2):
            add(b"a" * 5)
        assert body == b"a" * 10
        # Without pictures whoever receives it knows its limit.
        with pytest.raises(faults.Refusal) if image_bytes else contextlib.nullcontext():
            add(b"a")


class TestShares:
    """Spec REQ-11: what one call holds of what all may hold, and what it gives back."""

    def test_all_that_there_is_can_be_held_and_no_more(self) -> None:
        everything = bodies.OpenBodies(100, 100)
        with everything.hold() as one, everything.hold() as other:
            one.take(60)
            other.take(40)
            with pytest.raises(faults.Refusal) as refused:
                other.take(1)
            assert (refused.value.fault.code, refused.value.fault.retry_after) == ("ModelServingError", "1")
            assert everything.held_bytes == 100
            one.take(-10)
            other.take(10)
            one.give_back()
            assert everything.held_bytes == 50
            one.give_back()
            assert everything.held_bytes == 50
        assert everything.held_bytes == 0

    @pytest.mark.parametrize("ending", ["end_turn", "give_back"])
    async def test_a_turn_is_taken_once_and_ends_once(self, ending: str) -> None:
        everything = bodies.OpenBodies(100, 100)
        with everything.hold() as one, everything.hold() as other:
            for _ in range(2):
                await one.take_turn()
            waits = asyncio.ensure_future(other.take_turn())
            await asyncio.sleep(0)
            assert (one.has_turn, other.has_turn) == (True, False)
            getattr(one, ending)()
            await waits
            assert (one.has_turn, other.has_turn) == (False, True)
            getattr(one, ending)()
            assert everything.turns.locked()
        assert not everything.turns.locked()

    @pytest.mark.parametrize(
        ("packed", "built", "grown"),
        [
            (None, 1 << 30, 0),
            (1, bodies.LARGE_BYTES, 0),
            (1, bodies.LARGE_BYTES + 1, 1),
            (1 << 20, bodies.PLAIN_RATIO << 20, 0),
            (1 << 20, (bodies.PLAIN_RATIO << 20) + 5, 5),
        ],
    )
    def test_what_a_packed_body_has_grown_is_what_is_beyond_a_written_text(
        self, packed: int | None, built: int, grown: int
    ) -> None:
        everything = bodies.OpenBodies(1 << 31, 1 << 31)
        with everything.hold() as one:
            if packed is not None:
                one.came_packed(packed)
            # Its newest size counts, and not how often it was told.
            for size in (built + 7, built, built):
                one.built(size)
            assert everything.grown_bytes == grown
        assert everything.grown_bytes == 0

    def test_the_last_byte_that_may_grow_is_no_reason_to_refuse(self) -> None:
        everything = bodies.OpenBodies(1 << 31, 100)
        with everything.hold() as one, everything.hold() as other:
            for held in (one, other):
                held.came_packed(1)
            one.grow(bodies.LARGE_BYTES + 60)
            other.grow(bodies.LARGE_BYTES + 40)
            with pytest.raises(faults.Refusal):
                other.grow(bodies.LARGE_BYTES + 41)

    async def test_a_packed_body_holds_what_it_was_made_into_once_it_is_read(
        self, simulator: StartSimulator, gateway_before: StartGateway
    ) -> None:
        """And nothing of what was sent, of which there may be several pieces and members."""
        upstream = await simulator(Script(first_byte_delay_s=30))
        front = await gateway_before(upstream.url)
        raw = orjson.dumps(caller.call(random.Random(1).randbytes(40_000).hex()))
        packed = gzip.compress(raw[:50_000]) + gzip.compress(raw[50_000:])
        assert len(packed) > 2 * bodies.PIECE_BYTES
        async with caller.dial(front.url) as line:
            line.send(caller.request(packed, GZIP))
            await upstream.call()
            assert front.house.open_bodies.held_bytes == len(raw)
            line.vanish()
            await front.end_of()
        assert front.house.open_bodies.held_bytes == 0


class TestAllOpenCalls:
    """Spec REQ-11: what they hold, unpacked, is bounded."""

    async def test_beyond_it_a_call_is_told_to_come_back(
        self, simulator: StartSimulator, gateway_before: StartGateway
    ) -> None:
        body = orjson.dumps(caller.call("a" * 10_000))
        upstream = await simulator(Script(text="a b c", gap_s=0.2))
        front = await gateway_before(upstream.url, max_open_bytes=str(2 * len(body) + 200))
        first = asyncio.create_task(caller.ask(front.url, body))
        second = asyncio.create_task(caller.ask(front.url, gzip.compress(body), GZIP))
        while len(upstream.calls) < 2:  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0.01)
        assert front.house.open_bodies.held_bytes == 2 * len(body)
        for third in caller.request(body), caller.request(gzip.compress(body), GZIP):
            async with caller.dial(front.url) as line:
                line.send(third)
                refused = await line.answer()
            assert refused.fault == FULL
            assert refused.headers["Retry-After"] == "1"
        assert [(await call).status for call in (first, second)] == [200, 200]
        assert front.house.open_bodies.held_bytes == 0
        assert (await caller.ask(front.url, body)).status == 200

    @pytest.mark.parametrize("headers", [{}, GZIP], ids=["plain", "gzip"])
    async def test_a_body_that_is_not_there_yet_holds_what_was_sent(
        self, gateway_before: StartGateway, headers: dict[str, str]
    ) -> None:
        """Of a bomb, a few kilobytes."""
        front = await gateway_before("http://127.0.0.1:1")
        body = gzip.compress(orjson.dumps(caller.call("a" * 10_000_000)))
        async with caller.dial(front.url) as line:
            line.send(caller.request(body, headers)[:-1])
            while front.house.open_bodies.held_bytes < len(body) - 1:  # noqa: ASYNC110 - it tells nobody
                await asyncio.sleep(0.01)
            assert front.house.open_bodies.held_bytes == len(body) - 1
            line.vanish()
            await front.end_of()
        assert front.house.open_bodies.held_bytes == 0


class TestGrown:
    """Spec REQ-11: several packed bodies cost no more than one."""

    ONE = 12 << 20

    def test_together_they_become_as_much_as_one_may(self) -> None:
        together = bodies.OpenBodies(1 << 30, self.ONE)
        with together.hold() as first, together.hold() as second:
            for held in (first, second):
                held.came_packed(1_000)
                # Those that wait for their turn stand in nobody's way.
                held.grow(bodies.LARGE_BYTES)
            first.grow(self.ONE)
            first.built(5 * self.ONE)
            with pytest.raises(faults.Refusal) as refused:
                second.grow(1 << 20)
            assert (refused.value.fault.code, refused.value.fault.retry_after) == ("ModelServingError", "1")
        assert together.grown_bytes == 0

    async def test_a_call_that_grows_beside_a_vast_one_is_told_to_come_back(
        self, simulator: StartSimulator, gateway_before: StartGateway
    ) -> None:
        front = await gateway_before((await simulator()).url)
        body = gzip.compress(RAW + b" " * (4 << 20))
        with front.house.open_bodies.hold() as vast:
            vast.came_packed(10)
            vast.built(2 * self.ONE)
            assert (await caller.ask(front.url, body, GZIP)).fault == FULL
        assert (await caller.ask(front.url, body, GZIP)).status == 200

    def test_what_was_written_packs_less_and_is_no_matter(self) -> None:
        together = bodies.OpenBodies(1 << 30, self.ONE)
        with together.hold() as plain, together.hold() as text, together.hold() as vast:
            plain.grow(self.ONE)
            text.came_packed(self.ONE // bodies.PLAIN_RATIO)
            text.grow(self.ONE)
            vast.came_packed(10)
            vast.grow(self.ONE)
            text.grow(self.ONE)
