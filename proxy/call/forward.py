"""One call on its way: its upstream calls, its pipe, its caller, and what the record of it needs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable
from contextlib import closing
from dataclasses import dataclass
from http import HTTPStatus
from time import monotonic

import structlog

from proxy.call import relay
from proxy.call.abandoned import AbandonedSink
from proxy.call.exchange import CallerStalled, Exchange, refusal_of
from proxy.call.gateway import Gateway
from proxy.call.prompt_count import Count
from proxy.call.timeouts import CallTimeouts, Expired, Timeout
from proxy.downstream.request import Request
from proxy.downstream.sinks import CallerGone, Response, Sink
from proxy.upstream.client import Post
from proxy.upstream.response import completion_of, failure_of
from translators.pipe import Pipe, State
from translators.terms import Terms

log = structlog.get_logger()


@dataclass(slots=True)
class Forwarding:
    """A call that is ready to go.

    post:    its upstream call
    resumed: the upstream call that goes on after a chain of thought that has reached its budget
    timeouts: the waits of the call
    kind:    key of the learned difference between upstream's prompt count and ours (spec USE-5)
    streams: whether its answer is packets, else one reply
    """

    gateway: Gateway
    request: Request
    exchange: Exchange
    pipe: Pipe
    terms: Terms
    post: Post
    resumed: Callable[[str], Post]
    count: Count
    kind: Hashable
    streams: bool
    timeouts: CallTimeouts

    async def reply(self) -> Response:
        """Serve the call as one JSON reply."""
        reply = self.request.reply(self.pipe)
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
            self.pipe, hold_s=gateway.settings.head_hold, heartbeat_s=gateway.settings.heartbeat
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

    async def _relay(self, sink: Sink) -> None:
        """Run the upstream calls; a failure is raised while its status can still be sent, else it is the last frame."""
        try:
            with self.timeouts as timeouts:
                if self.gateway.settings.cancel_policy == "drain":
                    most = self.gateway.settings.cancel_drain_tokens
                    sink = unheard = AbandonedSink(sink, self.pipe, timeouts, most)
                    self.exchange.unheard = unheard.leave
                await self._legs(sink, timeouts)
        except CallerGone:
            raise
        except Exception as error:  # noqa: BLE001 - a stream that is open needs its last frame, whatever happened
            if self.exchange.times.ended_s is not None:
                return
            if sink.left:
                self.exchange.refusal = refusal_of(error, self.exchange)
            else:
                await self._fail(sink, error)
        if sink.left:
            raise CallerGone

    async def _fail(self, sink: Sink, error: Exception) -> None:
        """End with an error frame, unless the caller does not read, not even the finish that was written."""
        ended = self.pipe.state is State.ENDED
        if isinstance(error, Expired) and (ended or error.wait is Timeout.CALLER):
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
        if self.terms.legs == 1:
            await self._leg(sink, timeouts, 0)
            return
        try:
            async with asyncio.TaskGroup() as group:
                for leg in range(self.terms.legs):
                    group.create_task(self._leg(sink, timeouts, leg))
        except BaseExceptionGroup as failed:
            # The first failure has ended the others: they have nothing to add.
            raise failed.exceptions[0] from None

    async def _leg(self, sink: Sink, timeouts: CallTimeouts, leg: int) -> None:
        """Move one answer, which may be that of two upstream calls (spec OUT-9)."""
        await self._ask(self.post, sink, timeouts, leg)
        # Nobody would read what a second one says.
        if (chain := self.pipe.chain_over_budget(leg)) is not None and not sink.left:
            self.pipe.resume(leg)
            await self._ask(self.resumed(chain), sink, timeouts, leg)

    async def _ask(self, post: Post, sink: Sink, timeouts: CallTimeouts, leg: int) -> None:
        """Make one upstream call and move its answer."""
        timeouts.enter(Timeout.FIRST_TOKEN)
        if self.exchange.times.sent_s is None:
            self.exchange.times.sent_s = monotonic()
            self.count.beside()
        with closing(await self.gateway.upstreams.post(post, self.exchange.attempts)) as response:
            if self.exchange.times.answered_s is None:
                self.exchange.times.answered_s = monotonic()
            if response.status != HTTPStatus.OK:
                raise await failure_of(response, self.terms.failures)
            await self.count.wait()
            if response.content_type == "application/json":
                frames = self.pipe.feed_completion(await completion_of(response), leg)
                await relay.write(sink, frames, timeouts)
            else:
                usage_s = self.gateway.settings.usage_timeout
                await relay.pump(response, sink, self.pipe, timeouts, leg=leg, usage_s=usage_s)
            self.exchange.refusal = self.pipe.refusal
            if self.pipe.state is State.ENDED:
                timeouts.enter(Timeout.CALLER)
                await self._end(sink)
                self._learn()
            if not (self.pipe.refusal or self.pipe.was_cut(leg) or self.pipe.chain_over_budget(leg)):
                await relay.drop_leftover(response)

    def _learn(self) -> None:
        """Remember how far our count of the prompt was from upstream's."""
        tally = self.pipe.answer.tally
        reported = tally.upstream[0].figures.input
        if reported is not None:
            self.gateway.offsets.learn(self.kind, tally.counted_input, reported)
