"""Claims about the way to an upstream: what is sent, what is retried, and what never is (spec ERR-4, OPS-3)."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from config import sources
from proxy.simulation.wire import Script
from proxy.upstream import client, connections, health, line, pools, report, response, targets
from proxy.upstream.response import completion_of, failure_of
from tests.asking import MODEL, answered
from tests.conftest import StartSimulator
from translators import faults
from translators.openai import failures

Converse = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]]

POST = client.Post("/chat/completions", b'{"model":"m","messages":[{"role":"user","content":"hi"}]}', "sk-key")
TERMS = failures.Terms(input_limit=1000, own_key=False)


@contextlib.asynccontextmanager
async def before(*targets: str, **chosen: object) -> AsyncIterator[pools.Upstreams]:
    async with pools.opened(sources.load({"upstream": targets, **chosen}, None, {})) as upstreams:
        yield upstreams


async def ask(upstreams: pools.Upstreams, post: client.Post = POST) -> tuple[bytes, list[targets.Attempt]]:
    """One call, read to its end."""
    attempts: list[targets.Attempt] = []
    with contextlib.closing(await answered(upstreams, post, attempts)) as said:
        return await completion_of(said), attempts


async def refusal_of(upstreams: pools.Upstreams) -> tuple[faults.Refusal, list[targets.Attempt]]:
    attempts: list[targets.Attempt] = []
    try:
        with contextlib.closing(await answered(upstreams, POST, attempts)) as said:
            return await failure_of(said, TERMS), attempts
    except response.UpstreamFailure as failure:
        return failure.refusal(), attempts


async def rewritten(_: object) -> client.Post:
    """The same for every pool."""
    return POST


@pytest.fixture
def closed_port() -> Iterator[str]:
    """A target that refuses connections: bound by us, so that nobody else takes it, and not listening."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"


class TestWhatIsSent:
    async def test_the_headers_are_ours_and_no_others(self, simulator: StartSimulator) -> None:
        """Built from zero: nothing of the caller's request is passed on but its trace."""
        simulated = await simulator()
        post = client.Post(POST.path, POST.body, POST.key, {"traceparent": "00-a-b-01"})
        async with before(simulated.url) as upstreams:
            await ask(upstreams, post)
        headers = dict(simulated.calls[0].headers)
        assert headers.pop("Host") == simulated.url.removeprefix("http://")
        assert headers.pop("Content-Length") == str(len(POST.body))
        assert headers == {
            "Authorization": "Bearer sk-key",
            "Content-Type": "application/json",
            "Accept": "*/*",
            # Compressed events would wait for each other.
            "Accept-Encoding": "identity",
            "User-Agent": "dashseek",
            "traceparent": "00-a-b-01",
        }
        assert simulated.calls[0].raw == POST.body

    async def test_without_a_key_there_is_no_authorization(self, simulator: StartSimulator) -> None:
        simulated = await simulator()
        async with before(simulated.url) as upstreams:
            await ask(upstreams, client.Post(POST.path, POST.body, None))
        assert "Authorization" not in simulated.calls[0].headers

    @pytest.mark.parametrize("more", [0, 1])
    async def test_a_long_body_arrives_whole_and_once(self, simulator: StartSimulator, more: int) -> None:
        """With its head, or behind it where it is longer than what is copied."""
        simulated = await simulator()
        size = client.JOINED_BYTES + more
        body = POST.body.replace(b"hi", b"h" * (size - len(POST.body) + 2))
        async with before(simulated.url) as upstreams:
            for _ in range(2):
                await ask(upstreams, POST._replace(body=body))
        assert [call.raw for call in simulated.calls] == [body] * 2
        # With anything behind it the connection would not have served again.
        assert simulated.connections == 1

    @pytest.mark.parametrize("end", ["\n", "\r", "\r\n"])
    @pytest.mark.parametrize("place", ["key", "name", "value", "path", "header"])
    async def test_no_header_becomes_two(self, simulator: StartSimulator, place: str, end: str) -> None:
        """Whatever let it through: a request with lines of somebody else's is not sent."""
        simulated, said = await simulator(), f"a{end}X-Who: else"
        posts = {
            "key": POST._replace(key=said),
            "name": POST._replace(known_as={said: "b"}),
            "value": POST._replace(known_as={"b": said}),
            "path": POST._replace(path=f"/{said}"),
        }
        async with before(simulated.url) as upstreams:
            (target,) = upstreams.targets
            if place == "header":
                target.pool = target.pool.model_copy(update={"headers": {"b": said}})
            with pytest.raises(ValueError, match="more than one line"):
                await ask(upstreams, posts.get(place, POST))
            assert report.connections(upstreams.connections) == {"idle": 0, "acquired": 0}
        assert not simulated.calls

    async def test_a_proxy_of_the_environment_is_not_asked(
        self, simulator: StartSimulator, monkeypatch: pytest.MonkeyPatch, closed_port: str
    ) -> None:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, closed_port)
        async with before((await simulator()).url) as upstreams:
            await ask(upstreams)

    @pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
    async def test_a_redirect_is_a_failure_and_is_not_followed(self, simulator: StartSimulator, status: int) -> None:
        elsewhere = await simulator()

        async def redirect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(POST.body)
            location = f"{elsewhere.url}{POST.path}"
            writer.write(f"HTTP/1.1 {status} Moved\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n".encode())
            writer.close()

        async with listening(redirect) as url, before(url) as upstreams:
            refusal, attempts = await refusal_of(upstreams)
        assert refusal.fault == faults.UPSTREAM_BROKEN
        assert len(attempts) == 1
        assert elsewhere.connections == 0


class TestTheOneRetry:
    async def test_where_a_target_refuses_the_next_is_asked(self, simulator: StartSimulator, closed_port: str) -> None:
        async with before(closed_port, (await simulator()).url) as upstreams:
            _, attempts = await ask(upstreams)
        assert [attempt.word for attempt in attempts] == ["unreachable", "200"]

    async def test_where_all_refuse_the_model_is_unavailable(self, closed_port: str) -> None:
        async with before(closed_port) as upstreams:
            refusal, attempts = await refusal_of(upstreams)
        assert refusal.fault == faults.UNAVAILABLE
        assert len(attempts) == 2

    async def test_where_no_name_leads_anywhere_no_connection_was_there_before(self) -> None:
        async with before("http://nowhere.invalid") as upstreams:
            _, attempts = await refusal_of(upstreams)
        assert [(attempt.word, attempt.reused) for attempt in attempts] == [("unreachable", False)] * 2

    async def test_a_third_target_is_not_asked(self, simulator: StartSimulator, closed_port: str) -> None:
        """At most one retry: a caller has clocks of its own."""
        simulated = await simulator()
        async with before(closed_port, "http://nowhere.invalid", simulated.url) as upstreams:
            await refusal_of(upstreams)
        assert not simulated.calls

    async def test_a_target_that_could_not_be_reached_is_tried_last_for_a_while(
        self, simulator: StartSimulator, closed_port: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Passive ejection: only the first call loses a try to it, until its time is over."""
        simulated = await simulator()
        async with before(closed_port, simulated.url) as upstreams:
            tries = [[attempt.target for attempt in (await ask(upstreams))[1]] for _ in range(3)]
            monkeypatch.setattr(health, "FIRST_OUT_S", -1.0)
            first = next(one for one in upstreams._targets if one.url == closed_port)
            first.standing.health = health.Health()
            upstreams.note(first, health.Event.LOST)
            tries.append([attempt.target for attempt in (await ask(upstreams))[1]])
        assert tries == [[closed_port, simulated.url], [simulated.url], [simulated.url], [closed_port, simulated.url]]

    async def test_a_target_that_answers_again_is_tried_in_its_turn_again(self, closed_port: str) -> None:
        """Without waiting for the end of its ejection."""
        with socket.socket() as bound:
            bound.bind(("127.0.0.1", 0))
            url = f"http://127.0.0.1:{bound.getsockname()[1]}"
            async with before(closed_port, url) as upstreams:
                _, attempts = await refusal_of(upstreams)
                tries = [[attempt.target for attempt in attempts]]
                async with await asyncio.start_server(polite, sock=bound):
                    for _ in range(2):
                        _, attempts = await ask(upstreams)
                        tries.append([attempt.target for attempt in attempts])
        assert tries == [[closed_port, url], [closed_port, url], [url]]

    @pytest.mark.parametrize("status", [429, 500, 503])
    async def test_an_answer_is_an_answer(self, simulator: StartSimulator, status: int) -> None:
        simulated = await simulator(Script(status=status))
        async with before(simulated.url, simulated.url) as upstreams:
            _, attempts = await refusal_of(upstreams)
        assert len(attempts) == len(simulated.calls) == 1

    async def test_a_new_connection_that_dies_is_not_tried_again(self) -> None:
        """It may have been served."""
        async with listening(deaf) as url, before(url) as upstreams:
            refusal, attempts = await refusal_of(upstreams)
        assert refusal.fault == faults.UPSTREAM_BROKEN
        assert [attempt.word for attempt in attempts] == ["broken"]

    async def test_a_pooled_connection_that_died_under_its_request_is_replaced_by_a_new_one(self) -> None:
        """It had been closed at the other side before the request came: nothing was served."""
        async with listening(served_once) as url, before(url) as upstreams:
            await ask(upstreams)
            _, attempts = await ask(upstreams)
        assert [(attempt.reused, attempt.word) for attempt in attempts] == [(True, "broken"), (False, "200")]

    async def test_a_408_for_a_request_that_was_not_read_is_a_dead_connection(self) -> None:
        """The server gave up waiting for our next request; it came too late to say so in time."""
        async with listening(impatient) as url, before(url) as upstreams:
            await ask(upstreams)
            _, attempts = await ask(upstreams)
        assert [(attempt.reused, attempt.word) for attempt in attempts] == [(True, "broken"), (False, "200")]

    async def test_a_second_answer_that_nobody_asked_for_is_nobodys_answer(self) -> None:
        """Text across callers: whatever comes on an idle connection ends it, read by the loop or not."""
        async with listening(talkative) as url, before(url) as upstreams:
            for pause_s in (0.0, 0.05):
                assert (await ask(upstreams))[0] == b"{}"
                time.sleep(pause_s)  # noqa: ASYNC251 - the loop shall not have its turn
                body, attempts = await ask(upstreams)
                assert (body, attempts[0].reused) == (b"{}", False)

    async def test_pooled_connections_that_were_seen_to_have_died_cost_no_try(self, simulator: StartSimulator) -> None:
        """Even where every one of the pool has died."""
        simulated = await simulator()
        async with before(simulated.url) as upstreams:
            await asyncio.gather(*(ask(upstreams) for _ in range(4)))
            _sever(upstreams)
            _, attempts = await ask(upstreams)
            assert len(upstreams.connections._places) == 1
        assert [(attempt.reused, attempt.word) for attempt in attempts] == [(False, "200")]
        assert len(simulated.calls) == 5

    async def test_an_upstream_that_closes_idle_connections_costs_no_call(self, simulator: StartSimulator) -> None:
        """SOURCES#reused-connections: without the retry one call of a hundred fails. No call is served twice."""
        calls, lanes = 2_000, 20
        simulated = await simulator(Script(text="hi", keepalive_timeout_s=0.05))
        async with before(simulated.url) as upstreams:

            async def lane(number: int) -> int:
                retried = 0
                for turn in range(calls // lanes):
                    _, attempts = await ask(upstreams)
                    retried += len(attempts) - 1
                    # All around the moment at which the other side closes.
                    await asyncio.sleep(0.046 + (turn * lanes + number) % 9 * 0.001)
                return retried

            retried = sum(await asyncio.gather(*map(lane, range(lanes))))
        assert len(simulated.calls) == calls
        assert simulated.connections >= retried > 0, "no call has met a connection that was being closed"


class TestConnections:
    async def test_one_is_counted_while_it_has_a_call_the_first_or_another(self, simulator: StartSimulator) -> None:
        simulated = await simulator()
        async with before(simulated.url) as upstreams:
            for _ in range(2):
                with contextlib.closing(await answered(upstreams, POST, [])) as said:
                    assert report.connections(upstreams.connections) == {"idle": 0, "acquired": 1}
                    await completion_of(said)
                assert report.connections(upstreams.connections) == {"idle": 1, "acquired": 0}
            (target,) = upstreams.targets
            asked = client.status_of(upstreams.connections, target.place, "/models", None, connect_s=5, headers={})
            assert await asked == response.OK
            assert report.connections(upstreams.connections) == {"idle": 1, "acquired": 0}
        assert upstreams.connections.idle == 0

    async def test_that_of_a_call_that_ends_before_its_answer_is_closed(self) -> None:
        heard = asyncio.Event()

        async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(POST.body)
            heard.set()
            with contextlib.suppress(ConnectionError):
                await reader.read()
            writer.close()

        async with listening(silent) as url, before(url) as upstreams:
            asking = asyncio.create_task(ask(upstreams))
            await heard.wait()
            assert upstreams.connections.acquired == 1
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
            assert report.connections(upstreams.connections) == {"idle": 0, "acquired": 0}

    async def test_that_of_a_call_that_was_not_read_is_closed_by_us(self) -> None:
        """Its server may wait for us to do so."""

        async def waiting(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(POST.body)
            writer.write(ANSWER)
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                await reader.readuntil(b"\r\n\r\n")
                writer.write(b"HTTP/1.1 408 Request Time-out\r\nContent-Length: 0\r\n\r\n")
                await reader.read()
            writer.close()

        async with listening(waiting) as url, before(url) as upstreams:
            for words in (["200"], ["broken", "200"]):
                assert [attempt.word for attempt in (await ask(upstreams))[1]] == words
            assert report.connections(upstreams.connections) == {"idle": 1, "acquired": 0}

    async def test_none_in_time_is_a_failure_of_its_own(self) -> None:
        """Name and handshake included: here is nobody who shakes hands."""
        with socket.create_server(("127.0.0.1", 0)) as server:
            async with before(f"https://127.0.0.1:{server.getsockname()[1]}") as upstreams:
                (target,) = upstreams.targets
                with pytest.raises(response.Slow, match=r"^no connection in 0\.05 s$"):
                    await upstreams.connections.connect(target.place, 0.05)

    async def test_those_that_have_waited_long_enough_are_closed_and_the_next_is_looked_at_in_time(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        loop, opened, place = asyncio.get_running_loop(), connections.Connections(10), connections.place_of("http://a")
        monkeypatch.setattr(connections, "monotonic", lambda: 105.0)
        idle = opened._idle[place] = list[line.Line]()
        for idle_s in (90.0, 95.0, 97.0, 100.0):
            idle.append(one := line.Line(loop, opened._part))
            one.idle_s = idle_s
            opened._places[one] = place
        before_s = loop.time()
        opened._close_old()
        assert [one.idle_s for one in idle] == [97.0, 100.0]
        assert opened._sweep is not None
        assert before_s + 2 <= opened._sweep.when() <= loop.time() + 2
        opened.close()
        assert (opened.idle, opened._sweep.cancelled()) == (0, True)

    @pytest.mark.parametrize(
        ("url", "leads_to", "authority"),
        [
            ("http://h/v1/", (False, "h", 80, "/v1"), "h"),
            ("https://h", (True, "h", 443, ""), "h"),
            ("HTTPS://h:443/v1", (True, "h", 443, "/v1"), "h"),
            ("http://h:443", (False, "h", 443, ""), "h:443"),
            ("https://h:80", (True, "h", 80, ""), "h:80"),
            ("http://[::1]:8000", (False, "::1", 8000, ""), "[::1]:8000"),
            ("https://[::1]", (True, "::1", 443, ""), "[::1]"),
        ],
    )
    def test_a_url_leads_to_a_place_and_its_host_is_said_with_a_port_of_its_own(
        self, url: str, leads_to: tuple[bool, str, int, str], authority: str
    ) -> None:
        place = connections.place_of(url)
        assert (place[:4], place.authority) == (leads_to, authority)

    @pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
    def test_an_address_is_its_own(self, address: str) -> None:
        place = connections.Place(False, address, 8000, "")
        assert connections.addresses_of(place) == [address]
        assert connections.addresses_of(place._replace(host="nowhere.invalid", address=address)) == [address]


class TestNames:
    """A name's addresses: tried in turn, remembered for a while, asked for anew where they fail (RFC 8305)."""

    NAME = "http://upstream.test:{}"

    @staticmethod
    def _resolve(monkeypatch: pytest.MonkeyPatch, found: list[str]) -> list[str]:
        """What the system's resolver would say from now on; every question it was asked."""
        asked: list[str] = []

        def look_up(place: connections.Place) -> list[connections.Address]:
            asked.append(place.host)
            return [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (host, place.port)) for host in found]

        monkeypatch.setattr(connections, "_look_up", look_up)
        return asked

    async def test_an_address_that_refuses_or_says_nothing_gives_way_to_the_next(
        self, simulator: StartSimulator, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Within the one try, and long before `connect_timeout`."""
        port = urlsplit((simulated := await simulator()).url).port
        with contextlib.ExitStack() as ends:
            # Its queue is full: what comes now is answered by nobody.
            silent = ends.enter_context(socket.create_server(("127.0.0.3", port or 0), backlog=0))
            for _ in range(3):
                waiting = ends.enter_context(socket.socket())
                waiting.setblocking(False)
                waiting.connect_ex(silent.getsockname())
            self._resolve(monkeypatch, ["127.0.0.2", "127.0.0.3", "127.0.0.1"])
            began_s = time.monotonic()
            async with before(self.NAME.format(port), connect_timeout=10) as upstreams:
                _, attempts = await ask(upstreams)
        assert [attempt.word for attempt in attempts] == ["200"]
        assert len(simulated.calls) == 1
        assert time.monotonic() - began_s < 5

    async def test_a_name_is_asked_for_once_in_a_while_and_anew_where_it_leads_nowhere(
        self, simulator: StartSimulator, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        port, found = urlsplit((await simulator()).url).port, ["127.0.0.2"]
        asked = self._resolve(monkeypatch, found)
        async with before(self.NAME.format(port)) as upstreams:
            _, attempts = await refusal_of(upstreams)
            assert [attempt.word for attempt in attempts] == ["unreachable", "unreachable"]
            # The host has moved: what failed is not remembered.
            found[:] = ["127.0.0.1"]
            before_it = len(asked)
            for _ in range(3):
                assert [attempt.word for attempt in (await ask(upstreams))[1]] == ["200"]
                _sever(upstreams)
            assert len(asked) == before_it + 1
            # Its time is over.
            monkeypatch.setattr(connections, "monotonic", lambda: time.monotonic() + connections.ADDRESSES_S)
            await ask(upstreams)
            assert len(asked) == before_it + 2

    async def test_of_places_that_are_gone_no_address_is_kept_and_their_connections_end_by_themselves(
        self, simulator: StartSimulator, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Of pods that come and go each has another name; what stays is not looked up anew."""
        port = urlsplit((await simulator()).url).port
        asked = self._resolve(monkeypatch, ["127.0.0.1"])
        async with before(self.NAME.format(port), f"http://gone.test:{port}") as upstreams:
            open_ones = upstreams.connections
            await ask(upstreams)
            stays, gone = (target.place for target in upstreams.targets)
            for kept in ({stays, gone}, {stays}):
                for place in (stays, gone):
                    await open_ones.connect(place, 5)
                open_ones.keep(kept)
            await open_ones.connect(gone, 5)
            assert sorted(asked) == ["gone.test", "gone.test", "upstream.test"]
            assert open_ones.idle == 1
            open_ones.keep(())
            assert open_ones.idle == 1


class TestAnswers:
    @pytest.mark.parametrize("status", [429, 503])
    async def test_retry_after_is_passed_on(self, simulator: StartSimulator, status: int) -> None:
        async with before((await simulator(Script(status=status, retry_after="17"))).url) as upstreams:
            refusal, _ = await refusal_of(upstreams)
        assert refusal.fault.retry_after == "17"

    @pytest.mark.parametrize("shape", ["nested", "flat", "detail", "host", "text", "html"])
    async def test_what_upstream_said_is_not_repeated(self, simulator: StartSimulator, shape: str) -> None:
        """Spec ERR-2."""
        said = "key sk-abcdefghijk of org-9 at http://10.1.2.3:8000/v1 failed in /srv/app/engine.py"
        switches: dict[str, object] = {"status": 500, "error_text": said, "error_shape": shape}
        async with before((await simulator(Script(**switches))).url) as upstreams:  # type: ignore[arg-type]
            refusal, _ = await refusal_of(upstreams)
        assert refusal.fault.message == faults.UPSTREAM_BROKEN.message
        for secret in ("sk-abc", "10.1.2.3", "/srv"):
            assert secret not in refusal.cause

    async def test_a_page_without_end_is_read_to_its_limit(self, simulator: StartSimulator) -> None:
        """Spec ERR-3: size capped."""
        async with before((await simulator(Script(status=500, error_text="a" * (4 << 20)))).url) as upstreams:
            refusal, _ = await refusal_of(upstreams)
        assert refusal.fault == faults.UPSTREAM_BROKEN

    async def test_a_completion_longer_than_any_model_writes_is_none(
        self, simulator: StartSimulator, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(response, "COMPLETION_BYTES", 100)
        async with before((await simulator()).url) as upstreams:
            with pytest.raises(faults.Refusal) as refusal:
                await ask(upstreams)
        assert refusal.value.fault == faults.UPSTREAM_BROKEN

    @pytest.mark.parametrize("size", [response.READ_BYTES, response.READ_BYTES + 1, 5 * response.READ_BYTES])
    async def test_a_long_completion_is_read_whole_and_all_of_it_is_said_to_be_held(
        self, size: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def long(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                while True:
                    await reader.readuntil(POST.body)
                    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + b"x" * size)
            writer.close()

        async with listening(long) as url, before(url) as upstreams:
            monkeypatch.setattr(response, "COMPLETION_BYTES", size)
            held = list[int]()
            lease = upstreams.lease(MODEL)
            with contextlib.closing(await upstreams.post(lease, POST, rewritten, [])) as said:
                assert await completion_of(said, held.append) == b"x" * size
            assert sum(held) == (size if size > response.READ_BYTES else 0)
            # What is one read at most is never too long.
            monkeypatch.setattr(response, "COMPLETION_BYTES", size - 1)
            if size > response.READ_BYTES:
                with (
                    contextlib.closing(await upstreams.post(lease, POST, rewritten, [])) as said,
                    pytest.raises(faults.Refusal, match=f"more than {size - 1} bytes"),
                ):
                    await completion_of(said)

    async def test_a_body_that_was_not_read_closes_its_connection(self, simulator: StartSimulator) -> None:
        """A connection in doubt serves nobody again."""
        simulated = await simulator(Script(gap_s=0.01))
        async with before(simulated.url) as upstreams:
            with contextlib.closing(await answered(upstreams, POST, [])):
                pass
            assert await simulated.calls[0].over() == "aborted"


class TestTls:
    """TLS is always verified."""

    async def test_an_unknown_certificate_is_refused(self, certificate: Path) -> None:
        async with listening(polite, certificate) as url, before(url) as upstreams:
            refusal, _ = await refusal_of(upstreams)
        assert refusal.fault == faults.UNAVAILABLE
        assert "certificate is not believed" in refusal.cause

    async def test_one_the_operator_trusts_is_accepted(self, certificate: Path) -> None:
        trusted = str(certificate / "cert.pem")
        async with listening(polite, certificate) as url, before(url, upstream_ca_file=trusted) as upstreams:
            assert (await ask(upstreams))[0] == b"{}"

    def test_where_the_operator_says_whom_to_trust_nobody_else_is(self, certificate: Path) -> None:
        """As the setting says: a public authority cannot vouch for a host of the operator's own."""
        chosen = sources.load({"upstream_ca_file": str(certificate / "cert.pem")}, None, {})
        assert [
            dict(name for (name,) in one["subject"]) for one in client.trust_of(chosen.upstream_ca_file).get_ca_certs()
        ] == [{"commonName": "localhost"}]


async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Take the call, and hang up without a byte."""
    await reader.readuntil(POST.body)
    writer.close()


async def served_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer, and hang up at the next request."""
    await reader.readuntil(POST.body)
    writer.write(ANSWER)
    with contextlib.suppress(asyncio.IncompleteReadError):
        await reader.readuntil(b"\r\n\r\n")
    writer.close()


async def impatient(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer, and say of the next request that it took too long."""
    await reader.readuntil(POST.body)
    writer.write(ANSWER)
    with contextlib.suppress(asyncio.IncompleteReadError):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 408 Request Time-out\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
    writer.close()


async def talkative(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer, and a moment later again."""
    with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
        await reader.readuntil(POST.body)
        writer.write(ANSWER)
        await asyncio.sleep(0)
        writer.write(ANSWER.replace(b"{}", b"[]"))
        await reader.read()
    writer.close()


ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


async def polite(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer with an empty object."""
    with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
        await reader.readuntil(POST.body)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
    writer.close()


@contextlib.asynccontextmanager
async def listening(converse: Converse, certificate: Path | None = None) -> AsyncIterator[str]:
    """A server that does as told, and is done with it at the end."""
    context = None
    talking: set[asyncio.Task[None]] = set()

    def converses(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        talking.add(asyncio.ensure_future(converse(reader, writer)))

    if certificate is not None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate / "cert.pem", certificate / "key.pem")
    server = await asyncio.start_server(converses, "127.0.0.1", 0, ssl=context)
    async with server:
        port = server.sockets[0].getsockname()[1]
        yield f"{'http' if context is None else 'https'}://127.0.0.1:{port}"
    await asyncio.gather(*talking)


def _sever(upstreams: pools.Upstreams) -> None:
    """Cut every idle connection of the pool at the other side's kernel, unseen by this side's loop until it writes."""
    for idle in upstreams.connections._idle.values():
        for one in idle:
            assert one._peeked is not None
            one._peeked.shutdown(socket.SHUT_RDWR)


class TestUpstreamKeepaliveTimeout:
    """Spec ERR-5: ours ends before upstream's, so that we are the ones who close (both of its sides)."""

    async def test_a_connection_within_it_is_used_again(self, simulator: StartSimulator) -> None:
        simulated = await simulator(Script(text="hi"))
        async with before(simulated.url, upstream_keepalive_timeout=2) as upstreams:
            await ask(upstreams)
            await asyncio.sleep(0.1)
            _, (attempt,) = await ask(upstreams)
        assert attempt.reused
        assert simulated.connections == 1

    async def test_once_all_are_closed_nobody_looks_for_old_ones(self, simulator: StartSimulator) -> None:
        async with before((await simulator()).url) as upstreams:
            await ask(upstreams)
            sweep = upstreams.connections._sweep
            assert sweep is not None
            assert not sweep.cancelled()
        assert sweep.cancelled()

    async def test_beyond_it_the_connection_is_closed_unasked(self, simulator: StartSimulator) -> None:
        simulated = await simulator(Script(text="hi"))
        async with before(simulated.url, upstream_keepalive_timeout=0.1) as upstreams, asyncio.timeout(3):
            await ask(upstreams)
            await simulated.until(lambda: not simulated.open_connections)
            _, (attempt,) = await ask(upstreams)
        assert not attempt.reused
        assert simulated.connections == 2
