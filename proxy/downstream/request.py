"""A caller's request as the way of a call sees it: its headers, its model in the path, its body, and where to answer.

No HTTP library is seen through it: what aiohttp raises is mapped here. Source: spec HTTP-2, HTTP-6, HTTP-11.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable
from typing import Final, NoReturn

from aiohttp import web
from multidict import CIMultiDictProxy

from proxy.downstream.answer_head import Head
from proxy.downstream.body import HeldBody, Limits, read
from proxy.downstream.connection import Connection
from proxy.downstream.phase import CUTTING, LEAVING, SERVING
from proxy.downstream.request_ids import named
from proxy.downstream.sinks import CallerGone, PacketSink, ReplySink
from proxy.downstream.surface import TONGUE
from translators import faults
from translators.pipe import Pipe
from translators.tongue import Tongue

# A call that comes while the process leaves may succeed on the next connection at once: another process answers it.
LEAVING_RETRY_S: Final = "1"

TIMING: Final[web.RequestKey[Callable[[], str]]] = web.RequestKey("timing")


class Request:
    """One call as it came.

    tongue:     the protocol its caller speaks, as its route says
    id:         its request id (spec HTTP-6)
    headers:    as the caller sent them, names in any case
    path_model: the model that the route's path names; None where it names none
    limits:     how long its body may be
    """

    __slots__ = ("_head", "_sink", "_web", "headers", "id", "limits", "path_model", "tongue")

    def __init__(self, request: web.Request, tongue: Tongue, image_bytes: int = 0) -> None:
        """One call, which nobody has seen before; `image_bytes` of images may come along in its body."""
        self._web = request
        request[TONGUE] = tongue
        self.limits = _limits(request.client_max_size, image_bytes)
        self._sink: PacketSink | ReplySink | None = None
        self.tongue = tongue
        self.id = named(request)
        self.headers: CIMultiDictProxy[str] = request.headers
        self.path_model: str | None = request.match_info.get("model")
        self._head = Head(request, self.id)

    def say_times(self, timing: Callable[[], str]) -> None:
        """What the head of its answer says of times (`Server-Timing`), whoever answers.

        aiohttp's request knows no more of us than this: a ring of the two would wait for a collection.
        """
        self._head.timing = self._web[TIMING] = timing

    @property
    def method(self) -> str:
        """The method of the request."""
        return self._web.method

    @property
    def path(self) -> str:
        """The path, without its query."""
        return self._web.path

    @property
    def route(self) -> str:
        """The path as the route is written, which is the same for many paths."""
        resource = self._web.match_info.route.resource
        return self._web.path if resource is None else resource.canonical

    def refuse_late(self) -> None:
        """Raise `Refusal` where the process is leaving, unless the call is the first one of its connection.

        An ingress has no other way to learn of the end than that it cannot connect any more.
        """
        phase = self._head.lifecycle.phase
        if phase is SERVING:
            return
        connection = self._web.protocol
        answered = not isinstance(connection, Connection) or connection.has_answered
        if phase >= CUTTING or (phase >= LEAVING and answered):
            raise faults.Refusal(faults.UNAVAILABLE.after(LEAVING_RETRY_S), "the process is ending")

    @property
    def has_answer(self) -> bool:
        """Whether a part of its answer is out: a second one would be taken for a part of it."""
        return self._sink is not None and self._sink.is_open

    def body(self, held: HeldBody, received: Callable[[], None] | None = None) -> Awaitable[bytearray]:
        """The call's body, inflated. Raises `Refusal` where it is too large or unreadable, `CallerGone`.

        received: called once all of it has come, as it was sent
        """
        return read(self._web, held, self.limits, received)

    def packets(
        self, pipe: Pipe, *, hold_s: float, heartbeat_s: float, on_first: Callable[[float], None]
    ) -> PacketSink:
        """Where the packets of its answer go; `on_first` is told when the first one does."""
        transport, file = self._way_out()
        self._sink = sink = PacketSink(
            self._web, transport, self.tongue, pipe, self._head, file=file, hold_s=hold_s, heartbeat_s=heartbeat_s
        )
        sink.on_first = on_first
        return sink

    def reply(self, pipe: Pipe) -> ReplySink:
        """Where the one reply goes."""
        transport, file = self._way_out()
        self._sink = sink = ReplySink(self._web, transport, file, pipe, self._head)
        return sink

    def _way_out(self) -> tuple[asyncio.Transport, int | None]:
        """What takes the bytes of an answer, and the descriptor past it where there is one."""
        connection = self._web.protocol
        if connection.transport is None:
            raise CallerGone
        return connection.transport, connection.file if isinstance(connection, Connection) else None

    def hang_up(self, *, at_once: bool = False) -> NoReturn:
        """End the connection without an answer, or without the rest of it: aiohttp does so for a cancelled handler.

        at_once: what is written and not yet sent is dropped
        """
        if self._sink is not None:
            self._sink.settle()
        if at_once and self._web.transport is not None:
            self._web.transport.abort()
        raise asyncio.CancelledError from None


_limits: Final = functools.lru_cache(Limits)  # the same for all calls of a configuration
