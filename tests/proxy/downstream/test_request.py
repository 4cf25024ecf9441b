"""Claims about a caller's request as the way of a call sees it: what is read of it, and where its answer goes."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from proxy.downstream import surface
from proxy.downstream.body import Limits, OpenBodies
from proxy.downstream.browsers import Browsers, nothing
from proxy.downstream.connection import Connection
from proxy.downstream.phase import CUTTING, DRAINING, LEAVING, LIFECYCLE, SERVING, Lifecycle, Phase
from proxy.downstream.request import TIMING, Request
from proxy.downstream.sinks import CallerGone
from translators import faults
from translators.dashscope import tongue


def called(phase: Phase = SERVING, *, answered: bool | None = None, transport: Any = None, **said: Any) -> Request:
    """A request; `answered` is whether our connection has brought another before, None where it is not one of ours."""
    app = web.Application()
    app[LIFECYCLE], app[surface.BROWSERS] = Lifecycle(phase), Browsers(nothing)
    protocol: Any = SimpleNamespace()
    if answered is not None:
        protocol = Connection.__new__(Connection)
        protocol.has_answered, protocol.file = answered, 7
    protocol.transport = transport
    request = make_mocked_request("POST", "/a/b?c=d", {"X-A": "b"}, app=app)
    request._protocol = protocol
    return Request(request, tongue, **said)


class Transport:
    """The end of a connection that notes what becomes of it."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def abort(self) -> None:
        self.told.append("aborted")

    def set_write_buffer_limits(self, high: int) -> None:
        self.told.append(f"high {high}")


def test_it_is_known_by_its_path_and_its_route() -> None:
    one = called()
    assert (one.method, one.path, one.headers["x-a"]) == ("POST", "/a/b", "b")
    assert one._web[surface.TONGUE] is tongue
    for resource, route in ((None, "/a/b"), (SimpleNamespace(canonical="/a/{model}"), "/a/{model}")):
        came: Any = make_mocked_request("POST", "/a/b?c=d", app=one._web.app, match_info={"model": "m"})
        came.match_info.route.resource = resource
        known = Request(came, tongue)
        assert (known.route, known.path_model) == (route, "m")
    assert one.limits == Limits(one._web.client_max_size, 0)
    assert called(image_bytes=9).limits == Limits(one._web.client_max_size, 9)
    one.say_times(lambda: "total;dur=1.0")
    assert one._web[TIMING]() == "total;dur=1.0"


@pytest.mark.parametrize(
    ("phase", "answered", "refused"),
    [
        (SERVING, True, False),
        (DRAINING, True, False),
        (DRAINING, None, False),
        (LEAVING, False, False),
        (LEAVING, True, True),
        (LEAVING, None, True),
        (CUTTING, False, True),
        (CUTTING, True, True),
        (CUTTING, None, True),
    ],
)
def test_who_leaves_takes_the_first_call_of_a_connection_and_nobody_else(
    phase: Phase, answered: bool | None, refused: bool
) -> None:
    """OPS-2: it may succeed on the next connection at once."""
    one = called(phase, answered=answered)
    if not refused:
        one.refuse_late()
        return
    with pytest.raises(faults.Refusal) as late:
        one.refuse_late()
    assert late.value.fault == faults.UNAVAILABLE.after("1")


async def test_its_answer_goes_to_its_connection_and_past_it_where_that_is_ours() -> None:
    pipe: Any = SimpleNamespace()
    for answered, file in ((False, 7), (None, None)):
        one = called(answered=answered, transport=(end := Transport()))
        one._web._task = SimpleNamespace(get_loop=asyncio.get_running_loop)  # type: ignore[assignment]
        assert not one.has_answer
        reply = one.reply(pipe)
        assert (reply._file, one.has_answer) == (file, False)
        told: Any = []
        packets = one.packets(pipe, hold_s=60, heartbeat_s=60, on_first=told.append)
        packets.stop()
        assert (packets._file, packets.on_first, end.told) == (file, told.append, ["high 0"])
        assert not one.has_answer
        packets._is_open = True
        assert one.has_answer
    with pytest.raises(CallerGone):
        called(answered=True).reply(pipe)


@pytest.mark.parametrize(
    ("at_once", "there", "told"), [(True, True, ["aborted"]), (False, True, []), (True, False, []), (False, False, [])]
)
@pytest.mark.parametrize("begun", [True, False])
def test_to_hang_up_is_to_be_cancelled_and_drops_what_waits_where_it_is_to_be_at_once(
    at_once: bool, there: bool, told: list[str], begun: bool
) -> None:
    """MET-3: what lies in our own buffer then was not handed over."""
    end, settled = Transport(), list[bool]()
    one = called(answered=True, transport=end if there else None)
    if begun:
        one._sink = SimpleNamespace(settle=lambda: settled.append(True))  # type: ignore[assignment]
    with pytest.raises(asyncio.CancelledError):
        one.hang_up(at_once=at_once)
    assert (end.told, settled) == (told, [True] * begun)
    with pytest.raises(asyncio.CancelledError):
        one.hang_up()
    assert end.told == told


async def test_its_body_is_read_within_its_limits() -> None:
    received = list[str]()
    one = called()
    with OpenBodies(100, 100).hold() as held:
        assert await one.body(held, lambda: received.append("all")) == b""
    assert received == ["all"]
