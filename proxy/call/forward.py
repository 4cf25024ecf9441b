"""One call on its way: its upstream calls, its pipe, its caller, and what the record of it needs."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from dataclasses import dataclass
from time import monotonic
from typing import Final

import structlog

from config.pools import Pool
from proxy.call import relay
from proxy.call.abandoned import AbandonedSink
from proxy.call.exchange import CallerStalled, Exchange, log_bug, refusal_of
from proxy.call.gateway import Gateway
from proxy.call.pool_request import CallWriter, PoolRequest
from proxy.call.timeouts import CALLER, FIRST_TOKEN, CallTimeouts, Expired
from proxy.downstream.request import Request
from proxy.downstream.sinks import ENDED, CallerGone, Response, Sink
from proxy.metering.journal import render
from proxy.upstream.client import Post
from proxy.upstream.pools import Lease
from proxy.upstream.response import OK, UpstreamFailure, completion_of, failure_of
from proxy.upstream.response import Response as Answer
from translators import faults
from translators.openai import failures
from translators.pipe import Pipe

log = structlog.get_logger()

# From here on a status says that upstream has failed.
SERVER_ERROR: Final = 500


@dataclass(slots=True)
class Forwarding:
    """A call that is ready to go, and its way from then on.

    A leg is one of its upstream calls that run side by side, where the dialect has fewer choices than the call wants;
    it may be followed by a second one that goes on after a chain of thought (spec OUT-7, OUT-9).

    writer:       what it is written from, should it go to another pool
    pool_request: how it is written for the pool that it goes to
    lease:        its place among the calls on their way there
    streams:      whether its answer is packets, else one reply
    timeouts:     the waits of the call
    turns:        of its upstream calls, where what they say must be taken beside the loop; None before
    """

    gateway: Gateway
    request: Request
    exchange: Exchange
    writer: CallWriter
    pool_request: PoolRequest
    lease: Lease
    streams: bool
    timeouts: CallTimeouts
    turns: asyncio.Lock | None = None

    @property
    def pipe(self) -> Pipe:
        """The way of its answer."""
        return self.pool_request.pipe

    async def reply(self) -> Response:
        """Serve the call as one JSON reply."""
        reply = self.request.reply(self.pool_request.pipe)
        try:
            await self._relay(reply)
        finally:
            exchange = self.exchange
            exchange.times.first_packet_s = exchange.times.last_packet_s = reply.sent_s
            exchange.bytes_out = reply.bytes
        return reply.response

    async def stream(self) -> Response:
        """Serve the call as packets."""
        gateway, times = self.gateway, self.exchange.times
        packets = self.request.packets(
            self.pool_request.pipe,
            hold_s=gateway.settings.head_hold,
            heartbeat_s=gateway.settings.heartbeat,
            on_first=self._begun,
        )
        gateway.open_calls.streams += 1
        try:
            await self._relay(packets)
        finally:
            gateway.open_calls.streams -= 1
            packets.stop()
            times.first_packet_s, times.last_packet_s = packets.first_s, packets.last_s
            self.exchange.bytes_out = packets.bytes
        return packets.response

    def _begun(self, at_s: float) -> None:
        """The first packet is there; one that says that upstream has failed is not of an answer."""
        if (self.pipe.refusal is None or self.pipe.failed_behind_packets) and self.exchange.times.sent_s is not None:
            self.lease.answered(at_s - self.exchange.times.sent_s)

    async def _relay(self, sink: Sink) -> None:
        """Run the upstream calls; a failure is raised while its status can still be sent, else it is the last frame."""
        try:
            with self.timeouts as timeouts:
                if self.gateway.settings.cancel_policy == "drain":
                    most = self.gateway.settings.cancel_drain_tokens
                    sink = abandoned = AbandonedSink(sink, self.pipe, timeouts, most)
                    self.exchange.abandon = abandoned.leave
                if self.pool_request.terms.legs > 1:
                    await self._legs(sink, timeouts)
                else:
                    if self.exchange.call is not None and self.exchange.call.n > 1:
                        # Another pool may need several upstream calls for as many choices.
                        self.lease.stay()
                    await self._leg(sink, timeouts, 0, self.lease)
        except CallerGone:
            raise
        except Exception as error:  # noqa: BLE001 - a stream that is open needs its last frame, whatever happened
            if isinstance(error, Expired) and error.wait is FIRST_TOKEN:
                self.lease.failed(error.wait.value)
            if self.exchange.times.ended_s is not None:
                log_bug(error, self.exchange)
                return
            if sink.left:
                self.exchange.refusal = refusal_of(error, self.exchange)
            else:
                await self._fail(sink, error)
        if sink.left:
            raise CallerGone

    async def _fail(self, sink: Sink, error: Exception) -> None:
        """End with an error frame, unless the caller does not read, not even the finish that was written."""
        ended = self.pipe.state is ENDED
        if isinstance(error, Expired) and (ended or error.wait is CALLER):
            raise CallerStalled from None
        if ended:
            # A bug in the last write itself: no frame may follow a finish, which may be out or not.
            raise error
        self.exchange.refusal = refusal = refusal_of(error, self.exchange)
        frame = self.pipe.fail(refusal)
        try:
            async with asyncio.timeout(self.gateway.settings.write_timeout):
                if sink.pass_on(frame):
                    await sink.drained()
                await self._end(sink)
        except TimeoutError:
            raise CallerStalled from None

    async def _end(self, sink: Sink) -> None:
        await sink.close()
        if not sink.left:
            self.exchange.times.ended_s = monotonic()

    async def _legs(self, sink: Sink, timeouts: CallTimeouts) -> None:
        """Several upstream calls side by side, each written for one pool: none of them can go to another."""
        self.lease.stay()
        try:
            with ExitStack() as ends:
                leases = [self.lease]
                for _ in range(self.pool_request.terms.legs - 1):
                    leases.append(self.lease.another())
                    ends.callback(leases[-1].release)
                async with asyncio.TaskGroup() as group:
                    for leg, lease in enumerate(leases):
                        group.create_task(self._leg(sink, timeouts, leg, lease))
        except faults.Refusal:
            # Before any of them was asked: too much is on its way there.
            self.exchange.limited = True
            raise
        except BaseExceptionGroup as failed:
            # The first failure has ended the others: they have nothing to add.
            raise failed.exceptions[0] from None

    async def _leg(self, sink: Sink, timeouts: CallTimeouts, leg: int, lease: Lease) -> None:
        """Move one answer, which may be that of two upstream calls (spec OUT-9)."""
        await self._ask(self.pool_request.first(), sink, timeouts, leg, lease)
        # Nobody would read what a second one says.
        pipe = self.pool_request.pipe
        if (chain := pipe.chain_over_budget(leg)) is not None and not sink.left:
            pipe.resume(leg)
            lease.stay()
            await self._ask(self.pool_request.resumed(chain), sink, timeouts, leg, lease, chain=chain)

    async def _ask(
        self, post: Post, sink: Sink, timeouts: CallTimeouts, leg: int, lease: Lease, *, chain: str | None = None
    ) -> None:
        """Make one upstream call and move its answer.

        chain: behind which it goes on, where it does
        """
        timeouts.enter(FIRST_TOKEN)
        if self.exchange.times.sent_s is None:
            self.exchange.times.sent_s = monotonic()
            self.pool_request.count.beside(self.gateway.loop)

        async def rewrite(pool: Pool) -> Post:
            await self._turn_to(pool, sink)
            return self.pool_request.first() if chain is None else self.pool_request.resumed(chain)

        exchange = self.exchange
        response = await self.gateway.upstreams.post(lease, post, rewrite, exchange.attempts)
        # A prompt, and of the shortest 4 KiB: orjson gives its buffer as it is. A tenth of what a silent stream holds.
        del post
        try:
            if exchange.times.answered_s is None:
                exchange.times.answered_s = monotonic()
            if response.status != OK:
                raise await failure_of(response, self.pool_request.terms.failures)
            # Another pool's, where the call has turned to one.
            pipe, count = self.pool_request.pipe, self.pool_request.count
            if count.tokens is None:
                await count.wait()
            if lease.attempt is not None and lease.attempt.pool:
                lease.attempt.used = pipe.answer.tally.latest(leg)
            await self._judge(response, sink, pipe, leg, lease)
            exchange.refusal = pipe.refusal
            if pipe.state is ENDED:
                timeouts.enter(CALLER)
                await self._end(sink)
                self._learn()
            if not response.at_end() or pipe.has_passed_by:
                await self._leave(response, pipe, leg)
        finally:
            response.close()

    async def _judge(self, response: Answer, sink: Sink, pipe: Pipe, leg: int, lease: Lease) -> None:
        """Move one answer, and note of its target what came of it before there was a packet."""
        try:
            await self._move(response, sink, pipe, leg)
        except UpstreamFailure as failure:
            lease.failed(failure.result.value)
            raise
        except faults.Refusal as refusal:
            _blame(refusal, sink, lease)
            # Of a failure inside a success the head may say when to come back.
            raise failures.waiting(refusal, response.retry_after) from None
        if pipe.refusal is None:
            lease.answered()
        else:
            _blame(pipe.refusal, sink, lease)

    async def _leave(self, response: Answer, pipe: Pipe, leg: int) -> None:
        """Let go of an answer that has ended, and tell of what it said behind its end."""
        if not (response.at_end() or pipe.refusal or pipe.was_cut(leg) or pipe.chain_over_budget(leg)):
            await relay.drop_leftover(response, pipe, leg)
        if pipe.has_passed_by:
            exchange = self.exchange
            log.warning("text_after_end", request_id=exchange.request_id, target=exchange.attempts[-1].target)

    async def _move(self, response: Answer, sink: Sink, pipe: Pipe, leg: int) -> None:
        """Move the body of one answer through the pipe to the caller."""
        if response.content_type != "application/json":
            usage_s = self.gateway.settings.usage_timeout
            await relay.pump(response, sink, pipe, self.timeouts, self._catch_up, leg=leg, usage_s=usage_s)
            return
        frames = pipe.feed_completion(await completion_of(response, self.writer.held.take), leg)
        if pipe.is_behind:
            await self._catch_up(response, sink, pipe)
        elif sink.pass_on(frames):
            self.timeouts.enter(CALLER)
            await sink.drained()

    async def _catch_up(self, response: Answer, sink: Sink, pipe: Pipe) -> None:
        """Pass on what the pipe has put off, one upstream call's after the other's."""
        if self.turns is None:
            self.turns = asyncio.Lock()
        await self.gateway.large_answers.catch_up(pipe, response, sink, self.timeouts, self.turns)

    async def _turn_to(self, pool: Pool, sink: Sink) -> None:
        """Write the call anew, for another pool or with another key, where nothing of its answer has come yet."""
        if self.pool_request.terms.legs > 1 or pool is self.pool_request.pool:
            # Others of its legs are being answered, through this pipe.
            self.pool_request = self.writer.with_key(self.pool_request)
            return
        self.pool_request = await self.writer.rewritten(self.pool_request, pool)
        sink.redirect(self.pool_request.pipe)
        limit_s = pool.first_token_timeout or self.gateway.settings.first_token_timeout
        self.timeouts.limit(FIRST_TOKEN, limit_s)
        books = self.exchange.books
        if books.opening is not None and books.entry is not None:
            books.opening["upstream_model"] = self.pool_request.order.upstream_model
            books.entry.opening = render(books.opening)

    def _learn(self) -> None:
        """Remember how far our count of the prompt was from upstream's."""
        tally = self.pool_request.pipe.answer.tally
        reported = tally.upstream[0].figures.input
        # An image of unknown size is no difference of templates.
        if reported is not None and self.exchange.call is not None and self.exchange.call.is_countable:
            self.gateway.offsets.learn(self.pool_request.kind, tally.counted_input, reported)


def _blame(refusal: faults.Refusal, sink: Sink, lease: Lease) -> None:
    """Note of a target what its answer has failed with; where there is no room here, who may come back is told when."""
    fault, is_ours = refusal.fault, not refusal.cause.startswith(faults.UPSTREAM)
    if fault.status < SERVER_ERROR:
        lease.answered()
    elif not (is_ours and fault.retry_after is not None) and not sink.left:
        lease.failed(str(fault.status))
