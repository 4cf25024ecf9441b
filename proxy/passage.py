"""One call on its way: its upstream calls, its pipe, its caller, and what the record of it needs."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final

import aiohttp
from aiohttp import web

from proxy import admission, gateway, relay, upstream, watch
from translators import dialogue, faults, pipe

STREAM_HEADERS: Final = {
    "Content-Type": "text/event-stream;charset=UTF-8",
    "Cache-Control": "no-cache",
    "X-Accel-Buffering": "no",
    "X-DashScope-Call-Gateway": "true",
}

# What a wait that lasted too long is to the caller.
EXPIRED: Final[Mapping[watch.Wait, faults.Fault]] = {
    watch.Wait.FIRST_TOKEN: faults.TIMED_OUT,
    watch.Wait.TOKEN: faults.TIMED_OUT,
    watch.Wait.TOTAL: faults.TIMED_OUT,
    watch.Wait.DRAIN: faults.UNAVAILABLE,
}


class CallerStalled(Exception):  # noqa: N818 - named for what happened
    """The caller has not read for too long; there is nobody to tell."""


@dataclass(slots=True)
class Exchange:
    """One call as its record will tell it.

    received_s, first_packet_s: loop time
    refusal:                    how it failed, if it did
    """

    request_id: str
    received_s: float
    caller: admission.Admission | None = None
    call: dialogue.Call | None = None
    attempts: list[upstream.Attempt] = field(default_factory=list)
    pipe: pipe.Pipe | None = None
    first_packet_s: float | None = None
    refusal: faults.Refusal | None = None


@dataclass(slots=True)
class Count:
    """A prompt's length in tokens: known, or being counted in a thread."""

    tokens: int | None = None
    future: asyncio.Future[int] | None = None

    async def wait(self) -> int:
        """The length, once it is known."""
        if self.tokens is None and self.future is not None:
            self.tokens = await asyncio.shield(self.future)
        return self.tokens or 0


@dataclass(frozen=True, slots=True)
class Passage:
    """A call that is ready to go.

    kind: the kind of prompt it has, for what is learned of its length
    """

    gateway: gateway.Gateway
    asked: web.Request
    exchange: Exchange
    through: pipe.Pipe
    terms: pipe.Terms
    post: upstream.Post
    count: Count
    kind: Hashable

    async def reply(self) -> web.Response:
        """Serve the call as one JSON reply."""
        whole = relay.Whole()
        await self._relay(whole)
        return web.Response(body=whole.body, content_type="application/json")

    async def stream(self) -> web.StreamResponse:
        """Serve the call as packets."""
        chosen = self.gateway.settings
        headers = STREAM_HEADERS | {"X-Request-Id": self.exchange.request_id}
        downstream = relay.Downstream(
            self.asked, headers, self.through, hold_s=chosen.head_hold, heartbeat_s=chosen.heartbeat
        )
        try:
            await self._relay(downstream)
        finally:
            downstream.stop()
            self.exchange.first_packet_s = downstream.first_s
        return await downstream.opened()

    async def _relay(self, sink: relay.Sink) -> None:
        """Run the upstream calls; a failure is raised while the caller can get its status, else it is the last frame."""
        try:
            async with watch.Watch(self.gateway.limits_s) as clock:
                self.gateway.clocks.add(clock)
                try:
                    await self._legs(sink, clock)
                finally:
                    self.gateway.clocks.discard(clock)
            self._learn()
        except (watch.Expired, aiohttp.ClientError, faults.Refusal) as error:
            if isinstance(error, watch.Expired) and error.wait is watch.Wait.CALLER:
                raise CallerStalled from None
            self.exchange.refusal = refusal = _refusal_of(error)
            await sink.write(self.through.fail(refusal))
            await sink.close()

    async def _legs(self, sink: relay.Sink, clock: watch.Watch) -> None:
        if self.terms.legs == 1:
            await self._leg(sink, clock, 0)
            return
        try:
            async with asyncio.TaskGroup() as group:
                for leg in range(self.terms.legs):
                    group.create_task(self._leg(sink, clock, leg))
        except BaseExceptionGroup as failed:
            # The first failure has ended the others: they have nothing to add.
            raise failed.exceptions[0] from None

    async def _leg(self, sink: relay.Sink, clock: watch.Watch, leg: int) -> None:
        """Make one upstream call and move its answer."""
        async with self.gateway.upstreams.post(self.post, self.exchange.attempts) as response:
            if response.status != HTTPStatus.OK:
                raise await upstream.failure_of(response, self.terms.failures)
            self.through.count_prompt(await self.count.wait(), self.gateway.offsets.get(self.kind))
            if response.content_type == "application/json":
                await sink.write(self.through.feed_completion(await upstream.completion_of(response), leg))
            else:
                usage_s = self.gateway.settings.usage_timeout
                await relay.pump(response.content, sink, self.through, clock, leg=leg, usage_s=usage_s)
            if self.through.state is pipe.State.ENDED:
                await sink.close()
            if not self.through.was_cut(leg):
                await relay.drop_leftover(response)

    def _learn(self) -> None:
        """Remember how far our count of the prompt was from upstream's."""
        tally = self.through.answer.tally
        reported = tally.figures.get(0)
        if reported is not None and reported.input is not None:
            self.gateway.offsets.learn(self.kind, tally.counted_input, reported.input)


def _refusal_of(error: watch.Expired | aiohttp.ClientError | faults.Refusal) -> faults.Refusal:
    if isinstance(error, faults.Refusal):
        return error
    if isinstance(error, watch.Expired):
        return faults.Refusal(EXPIRED[error.wait], f"{error.wait.value} fired")
    return faults.Refusal(faults.UPSTREAM_BROKEN, f"upstream broke off: {type(error).__name__}")
